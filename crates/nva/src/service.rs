//! The NVA on the network: sessions of NVEs and orders of operators over gRPC.
//!
//! One task, the actor, owns the directory and the store. Everything reaches it through one bounded
//! channel, and what it answers to NVEs goes through one bounded channel a session. It takes what has
//! gathered, has it committed in one transaction, and lets nothing out before that. Meanwhile it takes what comes.

mod actor;
mod allow;
mod audit;
mod batch;
mod caller;
mod counts;
mod drain;
mod follow;
mod handle;
mod operator;
mod relay;
mod session;

use std::net::SocketAddr;
use std::time::Duration;

use godwit_api::tonic::transport::Server;
use godwit_api::tonic::transport::server::TcpIncoming;
use godwit_api::v1::nva_session_server::NvaSessionServer;
use godwit_api::v1::operator_server::OperatorServer;
use godwit_api::{MAX_MESSAGE_BYTES, tonic};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::directory::Directory;
use crate::store::{Store, StoreError};
use actor::Actor;
use audit::Audit;
pub use audit::{AuditError, AuditFile};
use handle::Handle;

/// Why the service could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken or not ours.
    #[error("cannot listen on {0}: {1}; is another godwit-nva running? Choose another address with --listen")]
    Listen(SocketAddr, std::io::Error),
    /// The store refused: what was not durable was not said either.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The gRPC server ended.
    #[error("the gRPC server ended: {0}")]
    Server(#[from] tonic::transport::Error),
    /// A task of the service died.
    #[error("a part of the service died ({0}); please report this with the log")]
    Task(#[from] tokio::task::JoinError),
}

/// A running service.
pub struct Service {
    addrs: Vec<SocketAddr>,
    actor: JoinHandle<Result<(), StoreError>>,
    servers: JoinSet<Result<(), tonic::transport::Error>>,
    stop: watch::Sender<bool>,
}

/// How long connections may take to end when the service stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

impl Service {
    /// Listens on every address and serves. Port 0 takes a free one, see [`Service::addrs`]. Entries of the audit log
    /// are lines of the log.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub async fn start(
        listen: &[SocketAddr],
        directory: Directory,
        store: Box<dyn Store>,
    ) -> Result<Service, ServeError> {
        Service::audited(listen, directory, store, None).await
    }

    /// As [`Service::start`], with an audit log.
    ///
    /// # Errors
    /// Where an address cannot be listened on, or the audit log cannot be opened.
    pub async fn audited(
        listen: &[SocketAddr],
        directory: Directory,
        store: Box<dyn Store>,
        audit: Option<AuditFile>,
    ) -> Result<Service, ServeError> {
        let log = audit.clone().map_or_else(|| Ok(Audit::none()), Audit::open)?;
        let mut listeners = Vec::new();
        for addr in listen {
            let listener = TcpListener::bind(addr).await.map_err(|e| ServeError::Listen(*addr, e))?;
            listeners.push(listener);
        }
        let mut addrs = Vec::new();
        for (listener, asked) in listeners.iter().zip(listen) {
            addrs.push(listener.local_addr().map_err(|e| ServeError::Listen(*asked, e))?);
        }
        let (stop, stopped) = watch::channel(false);
        let (handle, actor) = Actor::new(directory, store, log);
        let actor = tokio::spawn(actor.run(stopped.clone()));
        let mut servers = JoinSet::new();
        for listener in listeners {
            servers.spawn(serve(listener, handle.clone(), audit.clone(), stopped.clone()));
        }
        Ok(Service { addrs, actor, servers, stop })
    }

    /// The addresses it listens on, in the order in which they were asked for.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Waits for `signal`, or until the service cannot go on, and ends it.
    ///
    /// # Errors
    /// Where it could not go on.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> Result<(), ServeError> {
        tokio::select! {
            () = signal => {}
            ended = &mut self.actor => return ended?.map_err(ServeError::from),
            Some(ended) = self.servers.join_next() => return ended?.map_err(ServeError::from),
        }
        // The actor ends all sessions; the servers end when their connections have.
        self.stop.send_replace(true);
        self.actor.await??;
        let servers = async { while self.servers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_TIMEOUT, servers).await;
        Ok(())
    }
}

async fn serve(
    listener: TcpListener,
    handle: Handle,
    audit: Option<AuditFile>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let sessions = NvaSessionServer::new(session::Sessions::new(handle.clone()));
    let operators = OperatorServer::new(operator::Operators::new(handle, audit));
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(sessions.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(caller::WithCaller(operators.max_decoding_message_size(MAX_MESSAGE_BYTES)))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            let _ = stopped.wait_for(|s| *s).await;
        })
        .await
}
