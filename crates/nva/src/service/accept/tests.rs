//! The gate, with and without sockets.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;

use super::*;

fn limits() -> Limits {
    Limits { total: 8, per_source: 4, strangers: 3, ..Limits::default() }
}

fn from(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 1000))
}

fn count(gate: &Gate, name: &str) -> u64 {
    gate.entries().into_iter().find(|e| e.descriptor.name == name).expect("a counter of the gate").value
}

#[test]
fn d1_one_source_takes_only_so_many_connections() {
    let gate = Gate::new(limits());
    let mut open: Vec<Pass> = (0..4).map(|_| gate.enter(from(1)).unwrap().0).collect();
    let refused = gate.enter(from(1)).err().unwrap().to_string();
    assert!(refused.contains("192.0.2.1") && refused.contains("--connections-per-source"), "{refused}");
    assert!(gate.enter(from(2)).is_ok(), "another one does not suffer");
    open.pop();
    assert!(gate.enter(from(1)).is_ok(), "one has left");
    let six = |last: u16| SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, last), 1));
    let _held: Vec<Pass> = (0..4).map(|n| gate.enter(six(n)).unwrap().0).collect();
    assert!(gate.enter(six(99)).is_err(), "addresses of one network are one source");
    assert_eq!(count(&gate, "connections_beyond_source"), 2);
}

#[test]
fn d1_the_total_is_kept_and_given_back() {
    let gate = Gate::new(Limits { strangers: 100, ..limits() });
    let mut open: Vec<Pass> = (0..8).map(|n| gate.enter(from(n)).unwrap().0).collect();
    assert!(gate.enter(from(20)).err().unwrap().to_string().contains("--connections"));
    open.clear();
    assert_eq!((count(&gate, "connections_open"), count(&gate, "strangers_open")), (0, 0));
    assert!(gate.enter(from(20)).is_ok());
    assert_eq!(count(&gate, "connections_beyond_total"), 1);
}

#[test]
fn d1_of_too_many_strangers_the_oldest_goes_and_who_is_known_stays() {
    let gate = Gate::new(limits());
    let (known, mut of_known) = gate.enter(from(1)).unwrap();
    let known = PeerInfo { address: from(1), pass: Arc::new(known) };
    known.is_known();
    let mut strangers: Vec<_> = (2..5).map(|n| gate.enter(from(n)).unwrap()).collect();
    let newcomer = gate.enter(from(6)).unwrap();
    assert!(strangers[0].1.try_recv().is_ok(), "the oldest is told to go");
    assert!(strangers[1].1.try_recv().is_err());
    assert!(of_known.try_recv() != Ok(()), "who is known stays");
    assert_eq!((count(&gate, "strangers_displaced"), count(&gate, "strangers_open")), (1, 3));
    drop((newcomer, strangers));
    assert_eq!(count(&gate, "connections_open"), 1);
}

/// A listener's connections through a gate, and where to connect.
async fn listening(limits: Limits) -> (SocketAddr, ReceiverStream<io::Result<Guarded>>, Arc<Gate>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Gate::new(limits);
    (address, accept(listener, gate.clone()), gate)
}

#[tokio::test]
async fn d1_who_says_nothing_is_cut_off_and_who_is_known_is_not() {
    let times =
        Limits { first_bytes: Duration::from_millis(50), known: Duration::from_millis(200), ..limits() };
    let (address, mut connections, gate) = listening(times).await;
    let mut buf = [0; 8];

    let _silent = TcpStream::connect(address).await.unwrap();
    let mut taken = connections.next().await.unwrap().unwrap();
    assert_eq!(taken.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(taken);

    let mut slow = TcpStream::connect(address).await.unwrap();
    let mut taken = connections.next().await.unwrap().unwrap();
    slow.write_all(b"PRI").await.unwrap();
    assert_eq!(taken.read(&mut buf).await.unwrap(), 3);
    assert_eq!(
        taken.read(&mut buf).await.unwrap_err().kind(),
        io::ErrorKind::TimedOut,
        "that was not enough"
    );
    drop(taken);

    let mut honest = TcpStream::connect(address).await.unwrap();
    let mut taken = connections.next().await.unwrap().unwrap();
    honest.write_all(b"PRI").await.unwrap();
    assert_eq!(taken.read(&mut buf).await.unwrap(), 3);
    taken.connect_info().is_known();
    tokio::time::sleep(Duration::from_millis(300)).await;
    honest.write_all(b"more").await.unwrap();
    assert_eq!(taken.read(&mut buf).await.unwrap(), 4, "it may be as quiet as it likes");
    assert_eq!(count(&gate, "strangers_timed_out"), 2);
}

#[tokio::test]
async fn d1_a_displaced_stranger_is_closed() {
    let (address, mut connections, _) = listening(Limits { strangers: 1, ..limits() }).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut taken = connections.next().await.unwrap().unwrap();
    let reader = tokio::spawn(async move { taken.read(&mut [0; 8]).await });
    let _second = TcpStream::connect(address).await.unwrap();
    let _held = connections.next().await.unwrap().unwrap();
    assert_eq!(reader.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(first.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn d1_a_stream_that_nobody_takes_from_any_more_closes_its_listener() {
    let (address, connections, _) = listening(limits()).await;
    drop(connections);
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
