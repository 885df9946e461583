//! The NVA client against a real gRPC server on the loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use godwit_api::v1::nva_session_server::{NvaSession, NvaSessionServer};
use godwit_api::v1::{AdminResponse, NvaMessage, NveMessage, nve_message::Kind};
use godwit_api::{SessionDown, tonic};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_nva_client::{NvaClient, SessionConfig, SessionEvent};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

const SOON: Duration = Duration::from_secs(20);

/// What the NVE says, and where to answer.
type Session = (Streaming<NveMessage>, mpsc::Sender<Result<NvaMessage, Status>>);

/// Hands each session to the test.
struct Server {
    sessions: mpsc::Sender<Session>,
}

#[tonic::async_trait]
impl NvaSession for Server {
    type SessionStream = ReceiverStream<Result<NvaMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<NveMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (tx, rx) = mpsc::channel(16);
        let _ = self.sessions.send((request.into_inner(), tx)).await;
        Ok(Response::new(ReceiverStream::new(rx)))
    }
}

type Sessions = Arc<Mutex<mpsc::Receiver<Session>>>;

async fn serve(addr: &str) -> (SocketAddr, Sessions, JoinHandle<()>) {
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tx, rx) = mpsc::channel(4);
    let server = tonic::transport::Server::builder()
        .add_service(NvaSessionServer::new(Server { sessions: tx }))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let task = tokio::spawn(async move { drop(server.await) });
    (addr, Arc::new(Mutex::new(rx)), task)
}

/// One that takes a test which was kept from its core for no silent NVA.
fn config(addr: SocketAddr) -> SessionConfig {
    SessionConfig { keepalive: Duration::from_secs(20), ..SessionConfig::new(format!("http://{addr}")) }
}

async fn event(client: &mut NvaClient) -> SessionEvent {
    timeout(SOON, client.recv()).await.expect("an event comes soon")
}

fn down(message: NvaToNve) -> Result<NvaMessage, Status> {
    Ok(SessionDown::Message(message).into())
}

fn withdraw(seq: u64) -> NveToNva {
    let mac = godwit_wire::Mac([2, 0, 0, 0, 0, 1]);
    let key = godwit_model::VmKey { vni: godwit_wire::Vni::from_low24(1), mac };
    NveToNva::Withdraw { key, version: godwit_model::Version { epoch: 1, seq } }
}

/// The next message that is no keepalive.
async fn said(stream: &mut Streaming<NveMessage>) -> Kind {
    loop {
        let kind = timeout(SOON, stream.message()).await.unwrap().unwrap().unwrap().kind.unwrap();
        if !matches!(kind, Kind::Keepalive(_)) {
            return kind;
        }
    }
}

#[tokio::test]
async fn messages_go_both_ways_and_what_is_not_understood_ends_nothing() {
    let (addr, sessions, _server) = serve("127.0.0.1:0").await;
    let mut client = NvaClient::spawn(config(addr));
    assert_eq!(event(&mut client).await, SessionEvent::Connected);
    client.send(withdraw(7));
    let (mut up, to_nve) = sessions.lock().await.recv().await.unwrap();
    assert!(matches!(said(&mut up).await, Kind::Withdraw(w) if w.version.unwrap().seq == 7));

    to_nve.send(down(NvaToNve::Welcome { epoch: 4, keepalive_ms: 60_000 })).await.unwrap();
    to_nve.send(Ok(NvaMessage { kind: None })).await.unwrap();
    to_nve.send(down(NvaToNve::Error { text: "no".into() })).await.unwrap();
    let order = SessionDown::AdminOrder { id: 9, request: Default::default() };
    to_nve.send(Ok(order.into())).await.unwrap();
    let welcome = NvaToNve::Welcome { epoch: 4, keepalive_ms: 60_000 };
    assert_eq!(event(&mut client).await, SessionEvent::Message(welcome));
    assert_eq!(event(&mut client).await, SessionEvent::Message(NvaToNve::Error { text: "no".into() }));
    // An order without a kind is none; whatever becomes of it, the session goes on.
    client.reply(9, AdminResponse::default());
    client.send(withdraw(8));
    let mut kinds = vec![said(&mut up).await];
    while !matches!(kinds.last(), Some(Kind::Withdraw(_))) {
        kinds.push(said(&mut up).await);
    }
    assert!(kinds.iter().any(|k| matches!(k, Kind::AdminReply(r) if r.id == 9)));
}

#[tokio::test]
async fn a_restarted_nva_is_found_soon_and_hears_nothing_of_the_old_session() {
    let (addr, sessions, server) = serve("127.0.0.1:0").await;
    let mut client = NvaClient::spawn(config(addr));
    assert_eq!(event(&mut client).await, SessionEvent::Connected);
    let (up, to_nve) = sessions.lock().await.recv().await.unwrap();
    to_nve.send(down(NvaToNve::Welcome { epoch: 1, keepalive_ms: 0 })).await.unwrap();
    assert!(matches!(event(&mut client).await, SessionEvent::Message(_)));

    server.abort();
    drop((up, to_nve));
    // The owner has not heard of it yet: this is meant for the session that is over.
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.send(withdraw(1));
    assert!(matches!(event(&mut client).await, SessionEvent::Lost { .. }));
    client.send(withdraw(2));

    let (_, sessions, _server) = serve(&addr.to_string()).await;
    let before = tokio::time::Instant::now();
    assert_eq!(event(&mut client).await, SessionEvent::Connected);
    // The gap between attempts grows to two seconds.
    assert!(before.elapsed() < Duration::from_secs(10));
    client.send(withdraw(3));
    let (mut up, _to_nve) = sessions.lock().await.recv().await.unwrap();
    assert!(matches!(said(&mut up).await, Kind::Withdraw(w) if w.version.unwrap().seq == 3));
}

/// A silent NVA loses the session, and is tried again (R71).
#[tokio::test]
async fn a_silent_nva_is_left() {
    let (addr, sessions, _server) = serve("127.0.0.1:0").await;
    let keepalive = Duration::from_millis(100);
    let mut client = NvaClient::spawn(SessionConfig { keepalive, ..config(addr) });
    assert_eq!(event(&mut client).await, SessionEvent::Connected);
    let _held = sessions.lock().await.recv().await.unwrap();
    let lost = event(&mut client).await;
    assert!(matches!(&lost, SessionEvent::Lost { why } if why.contains("silent")), "{lost:?}");
    assert_eq!(event(&mut client).await, SessionEvent::Connected, "and tried again");
}

#[tokio::test]
async fn an_nva_that_does_not_listen_never_blocks_the_owner() {
    let (addr, sessions, _server) = serve("127.0.0.1:0").await;
    let mut client = NvaClient::spawn(SessionConfig { queue: 8, ..config(addr) });
    assert_eq!(event(&mut client).await, SessionEvent::Connected);
    // More than the queue holds before the network's part has a turn.
    for seq in 0..100 {
        client.send(withdraw(seq));
    }
    let lost = event(&mut client).await;
    assert!(matches!(&lost, SessionEvent::Lost { why } if why.contains("keep up")), "{lost:?}");
    assert_eq!(event(&mut client).await, SessionEvent::Connected);
    client.send(withdraw(500));
    let _first = sessions.lock().await.recv().await.unwrap();
    let (mut up, _to_nve) = sessions.lock().await.recv().await.unwrap();
    assert!(matches!(said(&mut up).await, Kind::Withdraw(w) if w.version.unwrap().seq == 500));
}
