//! Accepting connections: how many there may be, of whom, and how long one may say nothing.
//!
//! [`accept`] makes of a listener a stream of connections that passed a [`Gate`]. What speaks on them (TLS, HTTP/2)
//! comes behind it and needs to know two things: a [`Guarded`] connection is read and written as a `TcpStream`, and its
//! [`PeerInfo`] is to be told when the other side has shown what it is there for. Until then the connection is a
//! *stranger's*: it must begin to speak within [`Limits::first_bytes`] and be known within [`Limits::known`]. Of too
//! many strangers the oldest goes, so that newcomers come through however many stay silent.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use godwit_api::tonic::Request;
use godwit_api::tonic::transport::server::Connected;
use godwit_counters::Entry;
use godwit_wire::{Bucket, Instant, Rate, Span};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use tokio_stream::wrappers::ReceiverStream;

/// Connections that wait for the server to take them over.
const TAKEN: usize = 64;
/// Pauses while the system has no files or no memory for a connection: they double.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Lines of the log about connections that were turned away.
const LINES: Rate = Rate::every(Span::from_ms(10_000), 3);

/// How many connections are taken, and how patient to be with those that say nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub total: usize,
    /// Of these, from one address; of IPv6 from one /64.
    pub per_source: usize,
    /// Of these, strangers; of more the oldest is closed.
    pub strangers: usize,
    /// A connection must begin to speak within this time.
    pub first_bytes: Duration,
    /// It must have shown what it is there for within this time.
    pub known: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            total: 20_000,
            per_source: 1_024,
            strangers: 1_024,
            first_bytes: Duration::from_secs(3),
            known: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// For a listener of operators' own.
    pub fn of_operators(self) -> Limits {
        Limits { total: 512, per_source: 128, strangers: 128, ..self }
    }
}

godwit_counters::counters! {
    /// Counters of connections to the service, since its start.
    Counts;

    /// Connections taken.
    connections_accepted: One,
    /// Connections turned away: too many altogether.
    connections_beyond_total: One,
    /// Connections turned away: too many from their address.
    connections_beyond_source: One,
    /// Connections closed that had not shown what they are there for when too many others came.
    strangers_displaced: One,
    /// Connections closed that said nothing, or too little, for too long.
    strangers_timed_out: One,
    /// Times that the system had no files or no memory for a connection.
    accept_failures: One,
}

godwit_counters::counters! {
    /// Connections to the service.
    Gauges;

    /// Connections that are open.
    connections_open: One as Gauge,
    /// Of these, those that have not shown what they are there for.
    strangers_open: One as Gauge,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum TurnedAway {
    #[error("{0} connections are open, which is the limit (--connections)")]
    Total(usize),
    #[error("{1} connections from {0} are open, which is the limit (--connections-per-source)")]
    OfSource(IpAddr, usize),
}

#[derive(Default)]
struct Inner {
    open: usize,
    by_source: HashMap<IpAddr, usize>,
    /// By age; what is sent ends the connection.
    strangers: BTreeMap<u64, oneshot::Sender<()>>,
    last: u64,
    counts: Counts,
    lines: Bucket,
}

/// What all connections through one or several listeners have to pass.
pub struct Gate {
    limits: Limits,
    inner: Mutex<Inner>,
    started: std::time::Instant,
}

impl Gate {
    /// A gate with these limits.
    pub fn new(limits: Limits) -> Arc<Gate> {
        Arc::new(Gate { limits, inner: Mutex::default(), started: std::time::Instant::now() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whatever panicked, the numbers are those of before or after a step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its counters.
    pub fn entries(&self) -> Vec<Entry> {
        let inner = self.inner();
        let gauges =
            Gauges { connections_open: inner.open as u64, strangers_open: inner.strangers.len() as u64 };
        inner.counts.entries().chain(gauges.entries()).collect()
    }

    /// Lets a connection in, or says why not.
    fn enter(self: &Arc<Gate>, address: SocketAddr) -> Result<(Pass, oneshot::Receiver<()>), TurnedAway> {
        let source = source(address.ip());
        let (end, ended) = oneshot::channel();
        let mut inner = self.inner();
        let of_source = inner.by_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.limits.per_source {
            inner.counts.connections_beyond_source += 1;
            return Err(TurnedAway::OfSource(source, of_source));
        }
        if inner.strangers.len() >= self.limits.strangers
            && let Some((_, oldest)) = inner.strangers.pop_first()
        {
            inner.counts.strangers_displaced += 1;
            let _ = oldest.send(());
        }
        if inner.open >= self.limits.total {
            inner.counts.connections_beyond_total += 1;
            return Err(TurnedAway::Total(inner.open));
        }
        inner.counts.connections_accepted += 1;
        inner.open += 1;
        *inner.by_source.entry(source).or_default() += 1;
        inner.last += 1;
        let number = inner.last;
        inner.strangers.insert(number, end);
        let pass = Pass { gate: self.clone(), source, number, known: AtomicBool::new(false) };
        Ok((pass, ended))
    }

    /// There are no files left: the oldest strangers give theirs back.
    fn displace(&self, count: usize) {
        let mut inner = self.inner();
        inner.counts.accept_failures += 1;
        for _ in 0..count {
            let Some((_, oldest)) = inner.strangers.pop_first() else { return };
            inner.counts.strangers_displaced += 1;
            let _ = oldest.send(());
        }
    }

    /// A line for the log, unless there were many of late.
    fn warn(&self, text: &str) {
        let now = Instant(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if self.inner().lines.take(LINES, now) {
            tracing::warn!("{text}");
        }
    }
}

/// Connections are counted by this: IPv6 hosts have as many addresses as they like in their network.
fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

/// One connection's place at the gate, given back with it.
struct Pass {
    gate: Arc<Gate>,
    source: IpAddr,
    number: u64,
    known: AtomicBool,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inner = self.gate.inner();
        inner.open -= 1;
        inner.strangers.remove(&self.number);
        if let Some(n) = inner.by_source.get_mut(&self.source) {
            *n -= 1;
            if *n == 0 {
                inner.by_source.remove(&self.source);
            }
        }
    }
}

/// The other side of a connection; requests on it have it among their extensions.
#[derive(Clone)]
pub struct PeerInfo {
    address: SocketAddr,
    pass: Arc<Pass>,
}

impl PeerInfo {
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// It has shown what it is there for: it is no stranger any more.
    pub fn is_known(&self) {
        if !self.pass.known.swap(true, Ordering::Relaxed) {
            self.pass.gate.inner().strangers.remove(&self.pass.number);
        }
    }
}

/// The other side of the connection that a request came on.
pub fn peer<T>(request: &Request<T>) -> Option<&PeerInfo> {
    request.extensions().get()
}

/// A connection that passed the gate.
pub struct Guarded {
    stream: TcpStream,
    peer: PeerInfo,
    /// Until it is known: the time by which it must be, and the word that others need its place.
    watch: Option<Watch>,
}

struct Watch {
    deadline: Pin<Box<Sleep>>,
    spoke: bool,
    displaced: oneshot::Receiver<()>,
    began: tokio::time::Instant,
}

impl Guarded {
    fn new(stream: TcpStream, address: SocketAddr, pass: Pass, displaced: oneshot::Receiver<()>) -> Guarded {
        let limits = pass.gate.limits;
        let deadline = Box::pin(tokio::time::sleep(limits.first_bytes));
        let began = tokio::time::Instant::now();
        let watch = Some(Watch { deadline, spoke: false, displaced, began });
        Guarded { stream, peer: PeerInfo { address, pass: Arc::new(pass) }, watch }
    }

    /// Its other side.
    pub(super) fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// An error where it is a stranger's and its time is over, or its place is needed. `spoke`: it has said something.
    fn check(&mut self, cx: &mut Context<'_>, spoke: bool) -> io::Result<()> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        if self.peer.pass.known.load(Ordering::Relaxed) {
            self.watch = None;
            return Ok(());
        }
        if spoke && !watch.spoke {
            watch.spoke = true;
            watch.deadline.as_mut().reset(watch.began + self.peer.pass.gate.limits.known);
        }
        if let Poll::Ready(Ok(())) = Pin::new(&mut watch.displaced).poll(cx) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "others came, and it had said nothing",
            ));
        }
        if watch.deadline.as_mut().poll(cx).is_ready() {
            self.peer.pass.gate.inner().counts.strangers_timed_out += 1;
            self.watch = None;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it said nothing, or too little, for too long",
            ));
        }
        Ok(())
    }
}

impl Connected for Guarded {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx, false)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.check(cx, true)?;
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The connections of a listener that pass the gate. Dropped, it closes the listener.
pub fn accept(listener: TcpListener, gate: Arc<Gate>) -> ReceiverStream<io::Result<Guarded>> {
    let (taken, connections) = mpsc::channel(TAKEN);
    tokio::spawn(async move {
        tokio::select! {
            () = taken.closed() => {}
            () = run(&listener, &gate, &taken) => {}
        }
    });
    ReceiverStream::new(connections)
}

async fn run(listener: &TcpListener, gate: &Arc<Gate>, taken: &mpsc::Sender<io::Result<Guarded>>) {
    let mut pause = PAUSES.0;
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) if is_of_one(&e) => continue,
            Err(e) => {
                gate.warn(&format!(
                    "cannot take connections: {e}; raise the limit of open files (LimitNOFILE of the unit, ulimit -n)"
                ));
                gate.displace(TAKEN);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                continue;
            }
        };
        pause = PAUSES.0;
        match gate.enter(address) {
            Ok((pass, displaced)) => {
                // Without it a small answer waits for the other side's acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                if taken.send(Ok(Guarded::new(stream, address, pass, displaced))).await.is_err() {
                    return;
                }
            }
            Err(why) => gate.warn(&format!("turned a connection from {address} away: {why}")),
        }
    }
}

/// The connection failed that was to be accepted, and no other.
fn is_of_one(e: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(e.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

/// Raises the number of files that this process may have open to what it may be raised to. Returns that number.
///
/// # Errors
/// Where the system refuses.
pub fn raise_file_limit() -> io::Result<usize> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(usize::try_from(hard).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
