//! A probe: numbered UDP packets to a peer on an absolute schedule, and the check of the peer's.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, SockRef, Socket, Type};

use super::gate::{Gate, Pass, Sender};
use super::proto::{ProbeReport, ProbeSpec};
use super::track::Tracker;
use crate::clock::{ms, now_ns, sleep_until};
use crate::random;

const MAGIC: [u8; 4] = *b"gwpb";
/// Smallest UDP payload of a probe: its header without any pattern.
pub const HEADER_LEN: usize = 32;
/// A sender that fell behind catches up in bursts no larger than this.
const BURST_MAX: u64 = 32;
/// Senders wake at most this often; several packets may be due then.
const TICK_NS: u64 = 500_000;
/// Room for the time that an agent may be kept from its core: 64 MB are minutes of probes.
const SOCKET_BUFFER: usize = 64 << 20;

const GREETING: u8 = 1;
const GREETING_BACK: u8 = 2;
const NUMBERED: u8 = 3;

/// An open probe; its threads end with it.
pub struct Probe {
    spec: ProbeSpec,
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    met: AtomicBool,
    corrupt: AtomicU64,
    send_retries: AtomicU64,
    // When each packet was sent; the index is its number.
    sent_at: Mutex<Vec<u64>>,
    tracker: Mutex<Tracker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Probe {
    /// Opens the socket and starts both threads; the sender waits at the gate.
    ///
    /// # Errors
    /// Where the socket cannot be had or the sizes do not fit.
    pub fn open(spec: ProbeSpec, gate: Arc<Gate>) -> Result<Probe> {
        if spec.payload < HEADER_LEN || (spec.big_every > 0 && spec.big_payload < HEADER_LEN) {
            bail!("a probe's payload has at least {HEADER_LEN} bytes");
        }
        let socket = Arc::new(open_socket(spec.local)?);
        if let (Some(interface), SocketAddr::V6(_)) = (&spec.interface, spec.peer) {
            SockRef::from(&socket).set_multicast_if_v6(index(interface)?).context("sending to a group")?;
        }
        let shared = Arc::new(Shared::default());
        let receiver = Receiver { spec: spec.clone(), socket: socket.clone(), shared: shared.clone() };
        thread::Builder::new().name("probe-rx".into()).spawn(move || receiver.run())?;
        let sender = Transmitter { spec: spec.clone(), socket: socket.clone(), shared: shared.clone() };
        thread::Builder::new().name("probe-tx".into()).spawn(move || sender.run(&gate.join()))?;
        Ok(Probe { spec, socket, shared })
    }

    /// Greets the peer until it has greeted back.
    ///
    /// # Errors
    /// Where it does not within `patience`.
    pub fn meet(&self, patience: Duration) -> Result<()> {
        let started = now_ns();
        let give_up = started + patience.as_nanos() as u64;
        while now_ns() < give_up {
            let greeting = frame(&self.spec, GREETING, 0, HEADER_LEN);
            // Refusals are expected until the interface has its neighbor; the loop is the remedy.
            let _ = self.socket.send_to(&greeting, self.spec.peer);
            thread::sleep(Duration::from_millis(20));
            if self.shared.met.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        bail!("{} got no answer from {} in {:.0} ms", self.spec.local, self.spec.peer, ms(now_ns() - started))
    }

    /// Joins the group that this end receives at, or leaves it.
    ///
    /// # Errors
    /// Where it receives at no group, or the system refuses.
    pub fn set_member(&self, interface: &str, joined: bool) -> Result<()> {
        let (socket, index) = (SockRef::from(&self.socket), index(interface)?);
        let by = InterfaceIndexOrAddress::Index(index);
        let done = match (self.spec.local.ip(), joined) {
            (IpAddr::V4(group), true) => socket.join_multicast_v4_n(&group, &by),
            (IpAddr::V4(group), false) => socket.leave_multicast_v4_n(&group, &by),
            (IpAddr::V6(group), true) => socket.join_multicast_v6(&group, index),
            (IpAddr::V6(group), false) => socket.leave_multicast_v6(&group, index),
        };
        let what = if joined { "joining" } else { "leaving" };
        done.with_context(|| format!("{what} {} at {interface}", self.spec.local.ip()))
    }

    /// What has been sent and received so far.
    pub fn report(&self, peer_sent: u64) -> ProbeReport {
        let sent = lock(&self.shared.sent_at).len() as u64;
        let t = lock(&self.shared.tracker);
        ProbeReport {
            sent,
            send_retries: self.shared.send_retries.load(Ordering::Relaxed),
            received: t.received(),
            duplicated: t.duplicated(),
            reordered: t.reordered(),
            corrupt: self.shared.corrupt.load(Ordering::Relaxed),
            gaps: t.gaps().to_vec(),
            missing: t.missing(peer_sent),
            delay_us_max: t.delays().max_us(),
            delay_us_p50: t.delays().quantile_us(0.5),
            delay_us_p99: t.delays().quantile_us(0.99),
        }
    }

    /// When these numbers were sent; 0 for those that were not.
    pub fn sent_at(&self, seqs: &[u64]) -> Vec<u64> {
        let sent = lock(&self.shared.sent_at);
        seqs.iter().map(|&s| sent.get(s as usize).copied().unwrap_or(0)).collect()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

fn open_socket(local: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None).context("UDP socket")?;
    // Forced sizes pass the system's limits, so stock settings do; without the right to it the
    // ordinary limit applies, which short tests can live with.
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    }
    if setsockopt(&socket.as_fd(), sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    socket.bind(&local.into()).with_context(|| format!("binding UDP to {local}"))?;
    // The receiver looks up now and then to see whether its probe has been closed.
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket.into())
}

fn index(interface: &str) -> Result<u32> {
    if_nametoindex(interface).with_context(|| format!("no interface {interface}"))
}

/// The payload of one packet: header, then a pattern that only this packet has.
fn frame(spec: &ProbeSpec, kind: u8, seq: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    data[..4].copy_from_slice(&MAGIC);
    data[4] = kind;
    data[8..12].copy_from_slice(&spec.probe.to_be_bytes());
    data[12..16].copy_from_slice(&(len as u32).to_be_bytes());
    data[16..24].copy_from_slice(&seq.to_be_bytes());
    data[24..32].copy_from_slice(&now_ns().to_be_bytes());
    random::fill(pattern_seed(spec.probe, seq), 0, &mut data[HEADER_LEN..]);
    data
}

fn pattern_seed(probe: u32, seq: u64) -> u64 {
    seq ^ (u64::from(probe) << 48)
}

struct Transmitter {
    spec: ProbeSpec,
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
}

impl Transmitter {
    /// Packet n is due n intervals after the start; time at a shut gate does not count.
    fn run(&self, gate: &Sender<'_>) {
        let interval = |n: u64| n * 1_000_000_000 / u64::from(self.spec.rate);
        let mut seq = 0;
        let Pass::Go(_) = gate.pass() else { return };
        if self.spec.rate == 0 {
            return;
        }
        let mut start = now_ns();
        while !self.shared.closed.load(Ordering::Relaxed) {
            match gate.pass() {
                Pass::Stop => return,
                Pass::Go(waited) => start += waited,
            }
            let now = now_ns();
            let due = (now.saturating_sub(start)) * u64::from(self.spec.rate) / 1_000_000_000 + 1;
            for _ in 0..due.saturating_sub(seq).min(BURST_MAX) {
                match self.send(gate, seq) {
                    None => return,
                    Some(waited) => start += waited,
                }
                seq += 1;
            }
            sleep_until((start + interval(seq)).max(now + TICK_NS));
        }
    }

    /// Sends one packet, again and again if the kernel refuses it, and returns how long it stood at
    /// the gate; `None` at the end. A number is used up only by a packet that the kernel took.
    fn send(&self, gate: &Sender<'_>, seq: u64) -> Option<u64> {
        let big = self.spec.big_every > 0 && seq.is_multiple_of(u64::from(self.spec.big_every));
        let len = if big { self.spec.big_payload } else { self.spec.payload };
        let mut waited = 0;
        loop {
            match gate.pass() {
                Pass::Stop => return None,
                Pass::Go(ns) => waited += ns,
            }
            let data = frame(&self.spec, NUMBERED, seq, len);
            // Held over the system call, so that no report sees a packet sent but not counted.
            let mut sent_at = lock(&self.shared.sent_at);
            if self.socket.send_to(&data, self.spec.peer).is_ok() {
                sent_at.push(now_ns());
                return Some(waited);
            }
            drop(sent_at);
            self.shared.send_retries.fetch_add(1, Ordering::Relaxed);
            if self.shared.closed.load(Ordering::Relaxed) {
                return None;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

struct Receiver {
    spec: ProbeSpec,
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
}

impl Receiver {
    fn run(&self) {
        let mut buffer = vec![0; 65536];
        while !self.shared.closed.load(Ordering::Relaxed) {
            // Errors are the timeout, or an ICMP message about an earlier packet: both leave the
            // socket usable.
            if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
                self.take(&buffer[..len], from, now_ns());
            }
        }
    }

    fn take(&self, data: &[u8], from: SocketAddr, now: u64) {
        let Some((kind, seq, sent_ns)) = self.parse(data) else {
            self.shared.corrupt.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match kind {
            GREETING => {
                let _ = self.socket.send_to(&frame(&self.spec, GREETING_BACK, 0, HEADER_LEN), from);
            }
            GREETING_BACK => self.shared.met.store(true, Ordering::Release),
            _ => lock(&self.shared.tracker).arrived(seq, sent_ns, now),
        }
    }

    /// Kind, number and time of a packet that is whole and ours.
    fn parse(&self, data: &[u8]) -> Option<(u8, u64, u64)> {
        if data.len() < HEADER_LEN || data[..4] != MAGIC {
            return None;
        }
        let u32_at = |i: usize| Some(u32::from_be_bytes(data.get(i..i + 4)?.try_into().ok()?));
        let u64_at = |i: usize| Some(u64::from_be_bytes(data.get(i..i + 8)?.try_into().ok()?));
        let seq = u64_at(16)?;
        let seed = pattern_seed(self.spec.probe, seq);
        let whole = u32_at(8)? == self.spec.probe
            && u32_at(12)? as usize == data.len()
            && random::first_difference(seed, 0, &data[HEADER_LEN..]).is_none();
        whole.then_some((data[4], seq, u64_at(24)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::is_taken;
    use super::*;

    fn spec(local: u16, peer: u16) -> ProbeSpec {
        ProbeSpec {
            probe: 5,
            local: SocketAddr::from(([127, 0, 0, 1], local)),
            peer: SocketAddr::from(([127, 0, 0, 1], peer)),
            rate: 2000,
            payload: 100,
            big_every: 10,
            big_payload: 1372,
            interface: None,
        }
    }

    fn free_port() -> u16 {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Two probes that talk to each other; another test may take a free port before they do.
    fn pair(ga: &Arc<Gate>, gb: &Arc<Gate>) -> (Probe, Probe) {
        loop {
            let (pa, pb) = (free_port(), free_port());
            match (Probe::open(spec(pa, pb), ga.clone()), Probe::open(spec(pb, pa), gb.clone())) {
                (Ok(a), Ok(b)) => return (a, b),
                (Err(e), _) | (_, Err(e)) => assert!(is_taken(&e), "{e:#}"),
            }
        }
    }

    #[track_caller]
    fn wait(mut done: impl FnMut() -> bool) {
        let give_up = now_ns() + PATIENCE.as_nanos() as u64;
        while !done() {
            assert!(now_ns() < give_up);
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn two_probes_on_the_loopback_lose_nothing_over_a_pause() {
        let (ga, gb) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
        let (a, b) = pair(&ga, &gb);
        a.meet(PATIENCE).unwrap();
        b.meet(PATIENCE).unwrap();
        ga.open();
        gb.open();
        wait(|| a.report(0).sent >= 150);
        assert!(ga.shut(PATIENCE));
        let still = a.report(0).sent;
        wait(|| b.report(0).received == still);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(a.report(0).sent, still);
        ga.open();
        wait(|| a.report(0).sent > still + 300);
        ga.stop();
        gb.stop();
        assert!(ga.shut(PATIENCE) && gb.shut(PATIENCE), "both senders have ended");
        let (sent_a, sent_b) = (a.report(0).sent, b.report(0).sent);
        wait(|| a.report(0).received == sent_b && b.report(0).received == sent_a);
        let (ra, rb) = (a.report(sent_b), b.report(sent_a));
        assert!(ra.sent > 300, "{ra:?}");
        assert_eq!((ra.received, rb.received), (rb.sent, ra.sent));
        assert_eq!(ra.duplicated + rb.duplicated + ra.corrupt + rb.corrupt, 0);
        assert!(ra.missing.is_empty() && rb.missing.is_empty());
        assert!(rb.gaps[0].to_ns - rb.gaps[0].from_ns >= 90_000_000, "the pause shows at the peer");
        assert!(a.sent_at(&[0, 1 << 40])[0] > 0);
    }

    #[test]
    fn damaged_packets_are_noticed() {
        let s = spec(1, 2);
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let r = Receiver { spec: s.clone(), socket, shared: Arc::default() };
        let mut data = frame(&s, NUMBERED, 9, 64);
        assert_eq!(r.parse(&data).map(|p| p.1), Some(9));
        for i in 0..24 {
            let mut damaged = data.clone();
            damaged[i] ^= 0x40;
            // Kind and padding are covered by the UDP checksum only.
            assert!(r.parse(&damaged).is_none() || (4..8).contains(&i), "byte {i}");
        }
        data.pop();
        assert!(r.parse(&data).is_none());
    }
}
