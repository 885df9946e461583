//! Hundreds of VMs without namespaces of their own: each is a tap in the namespace of its switch, and the lab speaks
//! for it with raw frames. VMs talk in pairs, all the time, and every frame is numbered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fixedbitset::FixedBitSet;
use godwit_wire::Mac;
use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto, setsockopt, sockopt};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use super::frames::{ARP, IPV4, PROBE, address, arp_frame, numbers, probe};
use crate::lab::vm::{Network, VmSpec};
use crate::netns;

/// Frames that one host's VMs may leave unread: the machine is busy.
const RECEIVE_BUFFER: usize = 64 << 20;
/// How long a reader waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);
/// When nothing has come for so long, what is missing does not come any more.
const QUIET: Duration = Duration::from_secs(3);

/// Where a VM is, and what it sends.
#[derive(Clone)]
pub struct Attached {
    /// Number of the host.
    pub host: usize,
    /// The port's name, which is its tap's, too.
    pub port: String,
    link: LinkAddr,
    /// Frames that it sent by this tap.
    sent: u64,
    /// Frames that the tap had passed on before.
    before: u64,
}

/// A VM.
struct Guest {
    spec: VmSpec,
    peer: usize,
    gap: Duration,
    state: Mutex<State>,
    got: Mutex<Got>,
}

#[derive(Default)]
struct State {
    at: Option<Attached>,
    paused: bool,
    /// Numbers given to its probes.
    sent: u64,
}

/// What a VM received of its peer.
#[derive(Default)]
struct Got {
    seen: FixedBitSet,
    last: u64,
    totals: Totals,
}

/// Counts of probes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Sent.
    pub sent: u64,
    /// Received, each once.
    pub received: u64,
    /// Received once more.
    pub duplicated: u64,
    /// Received after one that was sent later.
    pub reordered: u64,
}

impl Totals {
    /// Those since `before`.
    pub fn since(self, before: Totals) -> Totals {
        Totals {
            sent: self.sent - before.sent,
            received: self.received - before.received,
            duplicated: self.duplicated - before.duplicated,
            reordered: self.reordered - before.reordered,
        }
    }

    /// Those that did not come.
    pub fn lost(self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    fn add(self, other: Totals) -> Totals {
        Totals {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// A switch's side of the VMs.
struct Host {
    namespace: String,
    probes: Socket,
    arp: Socket,
    /// VMs by the number of their tap.
    taps: Mutex<BTreeMap<usize, usize>>,
}

/// All VMs.
pub struct Crowd {
    guests: Vec<Guest>,
    hosts: Vec<Host>,
    sending: AtomicBool,
    over: AtomicBool,
    /// Frames that the machine's kernel dropped between a VM and its switch.
    pub kernel_drops: AtomicU64,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something in a network namespace.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            netns::enter(namespace)?;
            work()
        });
        entered.join().map_err(|_| anyhow::anyhow!("a thread in {namespace} panicked"))?
    })
}

fn raw(ethertype: u16) -> Result<Socket> {
    let protocol = Protocol::from(i32::from(ethertype.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("raw socket")?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("receive buffer")?;
    socket.set_read_timeout(Some(LOOK)).context("read timeout")?;
    Ok(socket)
}

impl Crowd {
    /// So many VMs, even; the first `fast` of them send a probe each `fast_gap`, the others each `gap`.
    ///
    /// # Errors
    /// Where a namespace cannot be entered.
    pub fn new(
        namespaces: &[String],
        vms: usize,
        (gap, fast, fast_gap): (Duration, usize, Duration),
    ) -> Result<Crowd> {
        let guest = |n: usize| Guest {
            spec: numbered(n),
            peer: n ^ 1,
            gap: if n < fast { fast_gap } else { gap },
            state: Mutex::default(),
            got: Mutex::default(),
        };
        let host = |namespace: &String| -> Result<Host> {
            let (probes, arp) = within(namespace, || Ok((raw(IPV4)?, raw(ARP)?)))?;
            Ok(Host { namespace: namespace.clone(), probes, arp, taps: Mutex::default() })
        };
        Ok(Crowd {
            guests: (0..vms).map(guest).collect(),
            hosts: namespaces.iter().map(host).collect::<Result<_>>()?,
            sending: AtomicBool::new(false),
            over: AtomicBool::new(false),
            kernel_drops: AtomicU64::new(0),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Who one is.
    pub fn spec(&self, vm: usize) -> &VmSpec {
        &self.guests[vm].spec
    }

    /// Where one is.
    pub fn at(&self, vm: usize) -> Option<Attached> {
        locked(&self.guests[vm].state).at.clone()
    }

    /// Connects a VM with its tap at a host; it goes on sending there.
    ///
    /// # Errors
    /// Where there is no such tap.
    pub fn attach(&self, vm: usize, host: usize, port: &str) -> Result<()> {
        let h = &self.hosts[host];
        let (link, passed) = within(&h.namespace, || Ok((netns::link(port)?, passed_on(port)?)))?;
        locked(&h.taps).insert(link.ifindex(), vm);
        let at = Attached { host, port: port.to_owned(), link, sent: 0, before: passed.0 + passed.1 };
        locked(&self.guests[vm].state).at = Some(at);
        Ok(())
    }

    /// The VM of a tap that is gone hears nothing from it any more.
    pub fn forget_tap(&self, at: &Attached) {
        locked(&self.hosts[at.host].taps).remove(&at.link.ifindex());
    }

    /// Lets a VM stand still, or run.
    pub fn pause(&self, vm: usize, paused: bool) {
        locked(&self.guests[vm].state).paused = paused;
    }

    /// Waits until the switch has taken all that a paused VM sent.
    ///
    /// # Errors
    /// Where it does not within `patience`.
    pub fn drained(&self, vm: usize, patience: Duration) -> Result<()> {
        let Some(at) = self.at(vm) else { return Ok(()) };
        let give_up = Instant::now() + patience;
        let namespace = &self.hosts[at.host].namespace;
        within(namespace, || {
            loop {
                let (passed, dropped) = passed_on(&at.port)?;
                if passed + dropped >= at.before + at.sent {
                    self.kernel_drops.fetch_add(dropped, Ordering::Relaxed);
                    return Ok(());
                }
                if Instant::now() > give_up {
                    bail!(
                        "the switch did not take all that VM {} sent within {patience:?}",
                        self.spec(vm).name
                    );
                }
                sleep(Duration::from_millis(1));
            }
        })
    }

    /// A VM says that it is there, by a gratuitous ARP.
    ///
    /// # Errors
    /// Where its tap is gone.
    pub fn announce(&self, vm: usize) -> Result<()> {
        let guest = &self.guests[vm];
        let (mac, ip) = (guest.spec.mac, address(vm));
        let frame = arp_frame(1, mac, ip, [0; 6], ip, [0xff; 6]);
        self.say(&mut locked(&guest.state), true, &frame).with_context(|| format!("VM {vm} announces itself"))
    }

    /// Sends a frame by the VM's tap.
    fn say(&self, state: &mut State, arp: bool, frame: &[u8]) -> Result<(), Errno> {
        let Some(at) = state.at.as_mut() else { return Ok(()) };
        let host = &self.hosts[at.host];
        let fd = if arp { host.arp.as_raw_fd() } else { host.probes.as_raw_fd() };
        sendto(fd, frame, &at.link, MsgFlags::MSG_DONTWAIT)?;
        at.sent += 1;
        Ok(())
    }

    /// Runs the VMs until [`Crowd::end`]: one thread sends, and two for each host read.
    pub fn run<'s>(&'s self, scope: &'s std::thread::Scope<'s, '_>) {
        scope.spawn(|| self.send_all());
        for host in &self.hosts {
            scope.spawn(|| self.read_probes(host));
            scope.spawn(|| self.answer(host));
        }
    }

    /// Ends all threads.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Lets VMs send, or keeps them from it and waits until what they sent has come.
    pub fn send(&self, sending: bool) {
        self.sending.store(sending, Ordering::Relaxed);
        let (mut known, mut since) = (self.totals(|_| true).received, Instant::now());
        if sending {
            return;
        }
        loop {
            sleep(Duration::from_millis(100));
            let now = self.totals(|_| true);
            if now.received != known {
                (known, since) = (now.received, Instant::now());
            }
            if now.lost() == 0 && since.elapsed() > LOOK || since.elapsed() > QUIET {
                return;
            }
        }
    }

    /// Probes so far, of the pairs whose VMs are both wanted.
    pub fn totals(&self, wanted: impl Fn(usize) -> bool) -> Totals {
        let pairs = (0..self.guests.len()).filter(|n| wanted(*n) && wanted(self.guests[*n].peer));
        let of = |n: usize| {
            let sent = locked(&self.guests[n].state).sent;
            Totals { sent, ..locked(&self.guests[self.guests[n].peer].got).totals }
        };
        pairs.map(of).fold(Totals::default(), Totals::add)
    }

    fn send_all(&self) {
        let start = Instant::now();
        // Spread, so that they do not speak in one breath.
        let first =
            |(n, g): (usize, &Guest)| Reverse((start + g.gap * n as u32 / self.guests.len() as u32, n));
        let mut due: BinaryHeap<_> = self.guests.iter().enumerate().map(first).collect();
        let mut frame = Vec::with_capacity(PROBE);
        while !self.over.load(Ordering::Relaxed) {
            let now = Instant::now();
            let Some(Reverse((at, n))) = due.peek().copied() else { return };
            if at > now {
                sleep((at - now).min(Duration::from_millis(1)));
                continue;
            }
            due.pop();
            let guest = &self.guests[n];
            let mut state = locked(&guest.state);
            if self.sending.load(Ordering::Relaxed) && !state.paused && state.at.is_some() {
                let ends = (&guest.spec, &self.guests[guest.peer].spec);
                probe(&mut frame, (n, guest.peer), ends, state.sent);
                // A full queue of the machine's kernel is no loss of the switch's: the number is used the next time.
                if self.say(&mut state, false, &frame).is_ok() {
                    state.sent += 1;
                }
            }
            // Who was late does not catch up in a burst.
            let next = (at + guest.gap).max(now);
            due.push(Reverse((next, n)));
        }
    }

    fn read_probes(&self, host: &Host) {
        self.each_frame(host, &host.probes, |vm, frame| {
            let Some((from, to, number)) = numbers(frame) else { return };
            if to == vm && from == self.guests[vm].peer {
                locked(&self.guests[vm].got).note(number);
            }
        });
    }

    /// VMs answer ARP requests for their address.
    fn answer(&self, host: &Host) {
        self.each_frame(host, &host.arp, |vm, frame| {
            let Some(arp) = frame.get(14..42) else { return };
            let own = address(vm);
            if arp[6..8] != [0, 1] || arp[24..28] != own.octets() || arp[14..18] == own.octets() {
                return;
            }
            let (mut asker, mut asker_ip) = ([0; 6], [0; 4]);
            asker.copy_from_slice(&arp[8..14]);
            asker_ip.copy_from_slice(&arp[14..18]);
            let guest = &self.guests[vm];
            let mut state = locked(&guest.state);
            if !state.paused {
                let reply = arp_frame(2, guest.spec.mac, own, asker, asker_ip.into(), asker);
                // Who asks in vain asks again.
                let _ = self.say(&mut state, true, &reply);
            }
        });
    }

    /// Hands each frame that comes by a VM's tap over, with the VM, until the end.
    fn each_frame(&self, host: &Host, socket: &Socket, mut take: impl FnMut(usize, &[u8])) {
        let mut buffer = vec![0; 2048];
        while !self.over.load(Ordering::Relaxed) {
            match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                Ok((len, from)) => {
                    let tap = from.map(|a| a.ifindex());
                    let vm = tap.and_then(|tap| locked(&host.taps).get(&tap).copied());
                    if let (Some(vm), Some(frame)) = (vm, buffer.get(..len)) {
                        take(vm, frame);
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // A tap that goes makes one read fail.
                Err(e) if std::io::Error::from(e).kind() == ErrorKind::NetworkDown => {}
                Err(_) => sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Got {
    fn note(&mut self, number: u64) {
        let n = usize::try_from(number).unwrap_or(usize::MAX - 1);
        self.seen.grow(n + 1);
        if self.seen.put(n) {
            self.totals.duplicated += 1;
            return;
        }
        self.totals.received += 1;
        if number < self.last {
            self.totals.reordered += 1;
        }
        self.last = self.last.max(number);
    }
}

/// Who VM `n` is.
fn numbered(n: usize) -> VmSpec {
    let [high, low] = (n as u16).to_be_bytes();
    VmSpec {
        name: format!("v{n}"),
        mac: Mac([0x02, 0x67, 0x77, 2, high, low]),
        ips: vec![address(n).into()],
        vn: Network::default(),
    }
}

/// Frames of an interface of this thread's namespace that its kernel passed on, and dropped.
fn passed_on(interface: &str) -> Result<(u64, u64)> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").context("/proc/thread-self/net/dev")?;
    let row = table.lines().find_map(|l| l.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let row = row.with_context(|| format!("no interface {interface}"))?;
    let numbers: Vec<u64> = row.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // Eight columns of what was received; then bytes, packets, errors, drops.
    let at = |n: usize| numbers.get(n).copied().context("a row of /proc/net/dev is short");
    Ok((at(9)?, at(11)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r85_each_probe_counts_once() {
        let mut got = Got::default();
        for number in [0, 1, 3, 2, 3, 5] {
            got.note(number);
        }
        let totals = Totals { sent: 7, ..got.totals };
        assert_eq!((totals.received, totals.duplicated, totals.reordered, totals.lost()), (5, 1, 1, 2));
    }
}
