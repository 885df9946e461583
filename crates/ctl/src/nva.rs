//! The connection to the NVA.

use std::future::Future;
use std::time::Duration;

use godwit_api::OperatorChannel;
use godwit_api::tonic::{Response, Status, Streaming};
use godwit_api::v1;
use godwit_api::v1::operator_client::OperatorClient;

use crate::failure::Failure;

/// A connection to the NVA.
#[derive(Clone, Debug)]
pub struct Nva {
    client: OperatorClient<OperatorChannel>,
    url: String,
    timeout: Duration,
}

impl Nva {
    /// The NVA behind `client`, which listens at `url`; an answer may take `timeout`.
    pub fn new(client: OperatorClient<OperatorChannel>, url: String, timeout: Duration) -> Nva {
        Nva { client, url, timeout }
    }

    /// The generated client; clones share the connection.
    pub fn client(&self) -> OperatorClient<OperatorChannel> {
        self.client.clone()
    }

    /// Waits for the answer to a call.
    ///
    /// # Errors
    /// The NVA's refusal, a lost connection, or no answer in time.
    pub async fn settle<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        settle(&self.peer(), self.timeout, call).await
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What messages call it.
    pub fn peer(&self) -> String {
        format!("the NVA at {}", self.url)
    }

    /// All VNs.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn vns(&self) -> Result<Vec<v1::Vn>, Failure> {
        let (mut all, mut page) = (Vec::new(), String::new());
        loop {
            let list = self.settle(self.client().list_vns(v1::ListVnsRequest { page })).await?;
            all.extend(list.vns);
            page = list.next;
            if page.is_empty() {
                return Ok(all);
            }
        }
    }

    /// All policies.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn policies(&self) -> Result<Vec<v1::Policy>, Failure> {
        Ok(self.settle(self.client().list_policies(v1::ListPoliciesRequest {})).await?.policies)
    }

    /// All routing domains, without their routes.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn domains(&self) -> Result<Vec<v1::DomainInfo>, Failure> {
        Ok(self.settle(self.client().list_domains(v1::ListDomainsRequest {})).await?.domains)
    }

    /// The VMs of a VN, or all where `vn` is empty.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn vms(&self, vn: &str) -> Result<Vec<v1::VmRecord>, Failure> {
        let (mut all, mut page) = (Vec::new(), String::new());
        loop {
            let request = v1::ListVmsRequest { vn: vn.into(), page };
            let list = self.settle(self.client().list_vms(request)).await?;
            all.extend(list.vms);
            page = list.next;
            if page.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Names of VMs that begin as this one; the one itself, if it is there, and some others.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn similar_vms(&self, name: &str) -> Result<Vec<String>, Failure> {
        Ok(self.settle(self.client().similar_vms(v1::VmName { name: name.into() })).await?.names)
    }

    /// All NVEs.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn nves(&self) -> Result<Vec<v1::NveInfo>, Failure> {
        let (mut all, mut page) = (Vec::new(), String::new());
        loop {
            let list = self.settle(self.client().list_nves(v1::ListNvesRequest { page })).await?;
            all.extend(list.nves);
            page = list.next;
            if page.is_empty() {
                return Ok(all);
            }
        }
    }

    /// The moves of a VM, or all where `vm` is empty.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn moves(&self, vm: &str, unfinished_only: bool) -> Result<Vec<v1::MoveRecord>, Failure> {
        let (mut all, mut page) = (Vec::new(), String::new());
        loop {
            let request = v1::ListMovesRequest { vm: vm.into(), unfinished_only, page };
            let list = self.settle(self.client().list_moves(request)).await?;
            all.extend(list.moves);
            page = list.next;
            if page.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Follows a move; the stream itself may last longer than the timeout.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn watch(&self, id: &str) -> Result<Streaming<v1::MoveRecord>, Failure> {
        self.settle(self.client().watch_move(v1::MoveName { id: id.into() })).await
    }
}

/// Waits for the answer of `peer` to a call.
///
/// # Errors
/// A refusal, a lost connection, or no answer in time.
pub async fn settle<T>(
    peer: &str,
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Failure::from_status(peer, &status)),
        Err(_) => {
            Err(Failure::unreachable(format!("{peer} gave no answer within {} s", timeout.as_secs_f64()))
                .remedy("raise --timeout, or look at its log"))
        }
    }
}
