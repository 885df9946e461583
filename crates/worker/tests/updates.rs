//! Updates beside traffic (R14).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant as Clock;

use godwit_pipeline::mem::MemPool;
use godwit_tables::update::{Admission, Key, PortIdx, PortRole, Target, TunnelIdx, Update, VmState, VnIdx};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::outer::{OuterHeader, parse_outer};
use godwit_wire::{Instant, Mac, Vni};
use godwit_worker::command::{Command, Mailbox, Order, Reply, Snapshot, TxPath};
use godwit_worker::mem::{MemIo, MemQueue};
use godwit_worker::outbox::OUTBOX;
use godwit_worker::perf::Histogram;
use godwit_worker::worker::Worker;

const UPDATES: u32 = 100_000;
const VN: VnIdx = VnIdx(0);
const VNI: Vni = Vni::from_low24(7);
const VM: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const ACCESS: PortIdx = PortIdx(0);
/// Two uplinks, each with a tunnel of its own.
const UPLINKS: [PortIdx; 2] = [PortIdx(1), PortIdx(2)];

fn locator(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 10 + n as u8)
}

fn uplink_mac(n: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, n as u8])
}

fn give(mailbox: &Mailbox<MemIo>, at: Instant, command: Command<MemIo>) {
    let mut order = Order { at, command };
    // A full mailbox delays control; it loses nothing.
    while let Err(back) = mailbox.commands.push(order) {
        order = back;
        std::thread::yield_now();
    }
}

fn set_up(mailbox: &Mailbox<MemIo>, access: &MemQueue, out: &[MemQueue; 2]) {
    let give = |command| give(mailbox, Instant(1), command);
    let own = Ipv4Addr::new(198, 18, 0, 1);
    give(Command::Table(Update::VnSet { vn: VN, vni: VNI, mtu: 1450, transparent_vlan: false }));
    let role = PortRole::Access { vn: VN, mac: VM, admission: Admission::Activated };
    give(Command::Table(Update::PortSet { port: ACCESS, role }));
    give(Command::AttachRx { port: ACCESS, queue: 0, rx: access.clone() });
    for (n, &uplink) in UPLINKS.iter().enumerate() {
        let (mac, v4) = (uplink_mac(n), Some(own));
        let role = PortRole::Uplink {
            mac,
            v4,
            v6: None,
            link_v4: None,
            link_v6: None,
            v6_link_local: None,
            exception: None,
            vlan: None,
        };
        give(Command::Table(Update::PortSet { port: uplink, role }));
        let remote = IpAddr::V4(locator(n));
        let header = OuterHeader::v4(mac, Mac([2, 0, 0, 0, 2, n as u8]), own, locator(n), 4789, 64);
        let tunnel = TunnelIdx(n as u32);
        give(Command::Table(Update::TunnelSet { tunnel, uplink, remote, mtu: 1500, header }));
        let tx = TxPath::Own(out[n].clone());
        give(Command::AttachTx { port: uplink, tx, offloads: None, outbox: Vec::with_capacity(OUTBOX) });
    }
    give(Command::Table(moved_to(0)));
}

fn moved_to(n: usize) -> Update {
    let to = Target { tunnel: TunnelIdx(n as u32), vni: VNI };
    Update::VmSet { key: Key::new(VN, PEER), state: VmState::Remote { to } }
}

/// Every packet has one tunnel's header, whole, and left by that tunnel's uplink. Returns how many
/// packets went each way.
fn check(out: &[MemQueue; 2]) -> HashMap<usize, u64> {
    let mut counts = HashMap::new();
    for (n, queue) in out.iter().enumerate() {
        while let Some(frame) = queue.take() {
            let outer = parse_outer(&frame, 4789).expect("a sound packet");
            assert_eq!(outer.dst, IpAddr::V4(locator(n)));
            assert_eq!((&frame[..6], &frame[6..12]), (&[2, 0, 0, 0, 2, n as u8][..], &uplink_mac(n).0[..]));
            *counts.entry(n).or_default() += 1;
        }
    }
    counts
}

/// A worker with a VM's port and both uplinks.
struct Bench {
    mailbox: Mailbox<MemIo>,
    worker: Worker<MemIo>,
    access: MemQueue,
    out: [MemQueue; 2],
    sent: u64,
    left: HashMap<usize, u64>,
    /// A frame has left by the tunnel; control's thread looks.
    used: Arc<[AtomicBool; 2]>,
}

/// What control's thread has of a [`Bench`].
type Given = (Mailbox<MemIo>, Arc<[AtomicBool; 2]>);

impl Bench {
    fn new() -> Bench {
        let mailbox = Mailbox::<MemIo>::new(4096, 64);
        let tables =
            Tables::new(&TablesConfig { location_capacity: 64, hold_bytes: 1 << 20, ..Default::default() });
        let worker = Worker::new(tables, MemPool::endless(), mailbox.clone());
        let access = MemQueue::new(64);
        let out = [MemQueue::new(1 << 16), MemQueue::new(1 << 16)];
        set_up(&mailbox, &access, &out);
        Bench { mailbox, worker, access, out, sent: 0, left: HashMap::new(), used: Arc::default() }
    }

    /// A frame comes in, an iteration goes by, and what leaves is looked at.
    fn step(&mut self, frame: &[u8], now: Instant) {
        self.sent += u64::from(self.access.put(frame.to_vec()));
        self.worker.step(now);
        self.look();
    }

    fn look(&mut self) {
        for (n, count) in check(&self.out) {
            *self.left.entry(n).or_default() += count;
            self.used[n].store(true, Ordering::Release);
        }
    }

    /// Runs until all updates are given and taken, and what is on its way has left.
    fn run(&mut self, frame: &[u8], done: &AtomicBool, now: impl Fn() -> Instant) {
        while !done.load(Ordering::Acquire) || !self.mailbox.commands.is_empty() {
            self.step(frame, now());
        }
        for _ in 0..100 {
            self.worker.step(now());
        }
        self.look();
    }

    /// All updates have taken effect, none was lost beside traffic and no frame beside updates, and the last word
    /// holds.
    fn assert_complete(&mut self, frame: &[u8], now: Instant) {
        // Seven came before: the VN, three ports, two tunnels, the first location.
        assert_eq!(self.worker.tables().counters.worker.updates, u64::from(UPDATES) + 7);
        assert_eq!(self.left.values().sum::<u64>(), self.sent, "nothing is lost beside updates");
        assert!(self.access.put(frame.to_vec()));
        self.worker.step(now);
        assert_eq!(check(&self.out).get(&((UPDATES as usize - 1) % 2)), Some(&1));
    }

    fn given(&self) -> Given {
        (self.mailbox.clone(), self.used.clone())
    }

    /// How long updates waited until they were in effect.
    fn waited(&mut self, now: Instant) -> Histogram {
        give(&self.mailbox, now, Command::Snapshot(Snapshot::empty()));
        self.worker.step(now);
        let Some(Reply::Snapshot(s)) = self.mailbox.replies.pop() else { panic!("no snapshot") };
        s.perf.mailbox
    }
}

fn frame() -> Vec<u8> {
    let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    godwit_testkit::frames::udp_frame((VM, IpAddr::from(from), 1), (PEER, IpAddr::from(to), 2), b"payload")
}

/// Gives every update to every worker, as control does. After the first for each tunnel it waits until every worker
/// has sent a frame by it, however they are scheduled.
fn give_all(benches: &[Given], done: &AtomicBool, now: impl Fn() -> Instant) {
    for i in 0..UPDATES {
        let tunnel = i as usize % 2;
        for (mailbox, _) in benches {
            give(mailbox, now(), Command::Table(moved_to(tunnel)));
        }
        for (_, used) in benches {
            while !used[tunnel].load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
    }
    done.store(true, Ordering::Release);
}

#[test]
fn r14_100_000_updates_beside_traffic_tear_no_entry_and_none_is_lost() {
    let mut bench = Bench::new();
    let (start, done, frame) = (Clock::now(), AtomicBool::new(false), frame());
    let now = || Instant(1_000 + start.elapsed().as_nanos() as u64);
    let given = [bench.given()];
    std::thread::scope(|s| {
        s.spawn(|| give_all(&given, &done, now));
        bench.run(&frame, &done, now);
    });
    bench.assert_complete(&frame, now());
}

#[test]
fn r14_two_workers_get_every_update_and_neither_tears_an_entry() {
    let mut benches = [Bench::new(), Bench::new()];
    let (start, done, frame) = (Clock::now(), AtomicBool::new(false), frame());
    let now = || Instant(1_000 + start.elapsed().as_nanos() as u64);
    let given = benches.each_ref().map(Bench::given);
    std::thread::scope(|s| {
        for bench in &mut benches {
            let (frame, done) = (&frame, &done);
            s.spawn(move || bench.run(frame, done, now));
        }
        give_all(&given, &done, now);
    });
    let took = start.elapsed();
    for (n, bench) in benches.iter_mut().enumerate() {
        bench.assert_complete(&frame, now());
        let (waited, left) = (bench.waited(now()), &bench.left);
        // The setting up, too; each order's wait is written down when its iteration ends.
        assert!(waited.count() >= u64::from(UPDATES), "every update's way to its effect is recorded");
        let us = |share| waited.quantile(share) as f64 / 1000.0;
        // How long depends on the machine and on who else runs there.
        println!(
            "worker {n}: {} updates in {took:?}, in effect after {:.1} us (half), {:.1} us (99 of 100), {:.1} us \
             (all); frames by tunnel: {left:?}",
            waited.count(),
            us(0.5),
            us(0.99),
            us(1.0),
        );
        assert!((0..2).all(|tunnel| left.get(&tunnel).is_some_and(|n| *n > 0)), "both in use: {left:?}");
    }
}
