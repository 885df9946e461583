//! NVE sessions: one bidirectional stream each.

use std::sync::Arc;

use godwit_api::tonic::{self, Request, Response, Status, Streaming};
use godwit_api::v1::nva_session_server::NvaSession;
use godwit_api::{SessionUp, v1};
use godwit_model::Identity;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;

use super::handle::{Handle, Opened, Outgoing, SHARE};
use crate::directory::SessionId;

pub(super) struct Sessions {
    handle: Handle,
}

impl Sessions {
    pub fn new(handle: Handle) -> Sessions {
        Sessions { handle }
    }
}

#[tonic::async_trait]
impl NvaSession for Sessions {
    type SessionStream = ReceiverStream<Outgoing>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NveMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.remote_addr();
        let identity = request.extensions().get::<Identity>().cloned().unwrap_or(Identity::Unproven);
        let Opened { id, outbox, ended } = self.handle.open(peer, identity).await?;
        tracing::debug!("{id} opens from {peer:?}");
        let handle = self.handle.clone();
        let inbound = request.into_inner();
        tokio::spawn(async move {
            tokio::select! {
                () = read(&handle, id, inbound) => handle.gone(id).await,
                // The actor ended it and knows.
                _ = ended => {}
            }
            tracing::debug!("{id} has ended");
        });
        Ok(Response::new(ReceiverStream::new(outbox)))
    }
}

/// Hands on what the NVE says until it says no more.
async fn read(handle: &Handle, id: SessionId, mut inbound: Streaming<v1::NveMessage>) {
    let share = Arc::new(Semaphore::new(SHARE));
    loop {
        // What the NVE says beyond its share waits in its own connection.
        let Ok(turn) = share.clone().acquire_owned().await else { return };
        let message = match inbound.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(e) => {
                tracing::debug!("{id} breaks: {}", e.message());
                return;
            }
        };
        let handed = match SessionUp::try_from(message) {
            Ok(message) => handle.up(id, message, turn).await,
            Err(e) => handle.bad(id, e.to_string(), turn).await,
        };
        if handed.is_err() {
            return;
        }
    }
}
