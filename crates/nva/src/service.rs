//! The NVA on the network: sessions of NVEs and orders of operators over gRPC.
//!
//! One task, the actor, owns the directory and the store. Everything reaches it through one bounded
//! channel, and what it answers to NVEs goes through one bounded channel a session. It takes what has
//! gathered, has it committed in one transaction, and lets nothing out before that. Meanwhile it takes what comes.

pub mod accept;
mod actor;
mod allow;
mod audit;
mod batch;
mod caller;
mod connection;
mod counts;
mod drain;
mod follow;
mod handle;
mod identified;
mod lists;
mod operator;
mod pause;
mod relay;
mod session;
mod tls;
mod tokens;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use godwit_api::tls::TlsError;
use godwit_api::tonic::transport::Server;
use godwit_api::v1::nva_session_server::NvaSessionServer;
use godwit_api::v1::operator_server::OperatorServer;
use godwit_api::{CONNECTION_WINDOW, MAX_MESSAGE_BYTES, MAX_SAID_BYTES, STREAM_WINDOW, tonic};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::directory::Directory;
use crate::store::{Store, StoreError};
use accept::{Gate, Guarded, Limits};
use actor::Actor;
use audit::Audit;
pub use audit::{AuditError, AuditFile};
use connection::Transport;
use identified::{Door, Identified};
pub use tls::Security;
use tls::Tls;

/// Why the service could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken or not ours.
    #[error("cannot listen on {0}: {1}; is another godwit-nva running? Choose another address with --listen")]
    Listen(SocketAddr, std::io::Error),
    /// A file of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
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

/// Calls at a time on one connection.
const STREAMS: u32 = 64;

/// How long connections may take to end when the service stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Where to listen, and for how many.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Listen {
    /// Addresses for NVEs, and for operators where these have none of their own.
    pub nves: Vec<SocketAddr>,
    /// Addresses for operators alone.
    pub operators: Vec<SocketAddr>,
    /// How many connections are taken at [`Listen::nves`].
    pub limits: Limits,
    /// The audit log; without one its entries are lines of the log.
    pub audit: Option<AuditFile>,
}

/// Who is served at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    Nves,
    Operators,
    Both,
}

impl Service {
    /// Listens on every address and serves NVEs and operators. Port 0 takes a free one, see [`Service::addrs`].
    /// Entries of the audit log are lines of the log.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub async fn start(
        listen: &[SocketAddr],
        directory: Directory,
        store: Box<dyn Store>,
    ) -> Result<Service, ServeError> {
        Service::start_secured(listen, None, directory, store).await
    }

    /// The same with TLS, unless `security` is `None` (R68).
    ///
    /// # Errors
    /// Where a file of TLS cannot be used, or an address cannot be listened on.
    pub async fn start_secured(
        listen: &[SocketAddr],
        security: Option<Security>,
        directory: Directory,
        store: Box<dyn Store>,
    ) -> Result<Service, ServeError> {
        let listen = Listen { nves: listen.to_vec(), ..Listen::default() };
        Service::start_at(listen, security, directory, store).await
    }

    /// As [`Service::start_secured`], where operators may have addresses of their own.
    ///
    /// # Errors
    /// As there.
    pub async fn start_at(
        listen: Listen,
        security: Option<Security>,
        directory: Directory,
        store: Box<dyn Store>,
    ) -> Result<Service, ServeError> {
        let transport = Transport::new(security)?;
        let log = listen.audit.clone().map_or_else(|| Ok(Audit::none()), Audit::open)?;
        let at_nves = if listen.operators.is_empty() { Serves::Both } else { Serves::Nves };
        let all = listen.nves.iter().map(|addr| (*addr, at_nves));
        let all = all.chain(listen.operators.iter().map(|addr| (*addr, Serves::Operators)));
        let (mut listeners, mut addrs) = (Vec::new(), Vec::new());
        for (addr, serves) in all {
            let listener = TcpListener::bind(addr).await.map_err(|e| ServeError::Listen(addr, e))?;
            addrs.push(listener.local_addr().map_err(|e| ServeError::Listen(addr, e))?);
            listeners.push((listener, serves));
        }
        let (stop, stopped) = watch::channel(false);
        let gate = Gate::new(listen.limits);
        let of_operators = Gate::new(listen.limits.of_operators());
        let gates = vec![gate.clone(), of_operators.clone()];
        let (handle, actor) = Actor::new(directory, store, gates, log);
        let actor = tokio::spawn(actor.run(stopped.clone()));
        let mut servers = JoinSet::new();
        for (listener, serves) in listeners {
            let gate = if serves == Serves::Operators { &of_operators } else { &gate };
            let connections = accept::accept(listener, gate.clone());
            let operators = operator::Operators::new(handle.clone(), listen.audit.clone());
            let sessions = session::Sessions::new(handle.clone());
            let to = (sessions, operators);
            servers.spawn(serve(connections, transport.clone(), serves, to, stopped.clone()));
        }
        if let Transport::Tls(tls) = transport {
            tokio::spawn(keep_fresh(tls, stopped));
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
    connections: ReceiverStream<io::Result<Guarded>>,
    transport: Transport,
    serves: Serves,
    (sessions, operators): (session::Sessions, operator::Operators),
    mut stopped: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let sessions = NvaSessionServer::new(sessions);
    let sessions = sessions.max_decoding_message_size(MAX_SAID_BYTES);
    let operators = OperatorServer::new(operators);
    let operators = operators.max_decoding_message_size(MAX_MESSAGE_BYTES);
    let sessions = Identified { door: Door::Nves, inner: sessions };
    let operators =
        Identified { door: Door::Operators(transport.tokens()), inner: caller::WithCaller(operators) };
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .add_optional_service((serves != Serves::Operators).then_some(sessions))
        .add_optional_service((serves != Serves::Nves).then_some(operators))
        .serve_with_incoming_shutdown(transport.connections(connections), async move {
            let _ = stopped.wait_for(|s| *s).await;
        })
        .await
}

/// Reads the files of TLS again when they change.
async fn keep_fresh(tls: Arc<Tls>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopped.wait_for(|s| *s) => return,
            () = tokio::time::sleep(tls::LOOK) => {}
        }
        let tls = tls.clone();
        // It looks through the certificates of thousands of connections.
        if tokio::task::spawn_blocking(move || tls.refresh()).await.is_err() {
            return;
        }
    }
}
