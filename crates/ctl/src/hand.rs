//! The ways to one NVE: through the NVA, or by its admin socket.

use std::time::Duration;

use godwit_api::tonic::transport::Channel;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use godwit_api::v1::nve_admin_client::NveAdminClient;
use godwit_api::{pages, v1};

use crate::failure::Failure;
use crate::nva::{Nva, settle};
use crate::suggest::{self, Named};

/// A way to one NVE.
#[derive(Clone, Debug)]
pub enum Hand {
    /// Through the NVA.
    Relay {
        /// The NVA.
        nva: Nva,
        /// The NVE's name.
        nve: String,
    },
    /// By its admin socket.
    Socket {
        /// The generated client.
        client: NveAdminClient<Channel>,
        /// The socket.
        path: String,
        /// How long to wait for an answer.
        timeout: Duration,
    },
}

impl Hand {
    /// Asks the NVE.
    ///
    /// # Errors
    /// Its refusal, a lost connection, or no answer in time.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        let (mut all, mut from) = self.page(ask.clone(), 0).await?;
        while from != 0 {
            let (page, next) = self.page(ask.clone(), from).await?;
            if !pages::join(&mut all, page) {
                return Err(unexpected(&self.peer()));
            }
            // It begins behind what there is, or nothing follows.
            from = if next > from { next } else { 0 };
        }
        Ok(all)
    }

    /// One page of an answer, and where the next one begins.
    async fn page(&self, ask: Ask, from: u64) -> Result<(Answer, u64), Failure> {
        let request = v1::AdminRequest { kind: Some(ask), from };
        match self {
            Hand::Relay { nva, nve } => relay(nva, nve, request).await,
            Hand::Socket { client, timeout, .. } => {
                let mut client = client.clone();
                accept(&self.peer(), settle(&self.peer(), *timeout, client.call(request)).await?)
            }
        }
    }

    /// What messages call it.
    pub fn peer(&self) -> String {
        match self {
            Hand::Relay { nve, .. } => format!("NVE {nve}"),
            Hand::Socket { path, .. } => format!("the NVE at {path}"),
        }
    }
}

/// Has the NVA relay a request to an NVE.
async fn relay(nva: &Nva, nve: &str, request: v1::AdminRequest) -> Result<(Answer, u64), Failure> {
    let asked = v1::AskNveRequest { nve: nve.into(), request: Some(request) };
    match nva.settle(nva.client().ask_nve(asked)).await {
        Ok(response) => accept(&format!("NVE {nve}"), response),
        Err(failure) => Err(suggest::explain(nva, failure, &[(Named::Nve, nve)]).await),
    }
}

/// An NVE's answer, its refusals turned into failures.
fn accept(peer: &str, response: v1::AdminResponse) -> Result<(Answer, u64), Failure> {
    match response.kind {
        Some(Answer::Error(e)) => Err(Failure::refused(format!("{peer} refused: {}", e.text))),
        Some(answer) => Ok((answer, response.next)),
        None => Err(unexpected(peer)),
    }
}

/// The NVE answered something else than was asked: another version, most likely.
pub fn unexpected(peer: &str) -> Failure {
    Failure::refused(format!("{peer} gave an answer that godwitctl does not understand"))
        .remedy("compare the versions of godwitctl and of the NVE")
}
