//! Receive queues that rest: when they are looked at, and that nothing gets lost or out of order (R13).

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam::queue::ArrayQueue;
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_tables::event::Event;
use godwit_tables::update::{Admission, Key, PortIdx, PortRole, Update, VmState, VnIdx};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{Instant, Mac, Span, Vni};
use godwit_worker::command::{Command, Mailbox, Order, Relay, Reply, Snapshot, TxPath};
use godwit_worker::io::{Io, RxQueue};
use godwit_worker::mem::MemQueue;
use godwit_worker::outbox::OUTBOX;
use godwit_worker::polling::{IDLE_POLL, SURVEY};
use godwit_worker::queue_handover::{Baton, QueueHandover};
use godwit_worker::worker::{BURST, Worker};
use proptest::prelude::*;

const A: PortIdx = PortIdx(1);
const B: PortIdx = PortIdx(2);
const START: u64 = 1_000_000;
/// The UDP port that frames of the first ring go to: none that the switch looks at.
const PORTS: u16 = 10_000;

/// What a ring saw.
#[derive(Default)]
struct Seen {
    frames: VecDeque<Vec<u8>>,
    /// When it was polled or looked at last.
    last: u64,
    /// The longest time between two of these, and by how much one exceeded what was allowed.
    longest: u64,
    late: u64,
    looks: u64,
    polls: u64,
}

/// A guest's ring in memory that notes when it is looked at.
#[derive(Clone)]
struct Ring {
    seen: Arc<Mutex<Seen>>,
    clock: Arc<Clock>,
    rests: bool,
}

/// The time by hand, and how long a ring may have gone without a look by then.
#[derive(Default)]
struct Clock {
    now: AtomicU64,
    allowed: AtomicU64,
}

impl Ring {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panicked with it")
    }

    fn noted(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen();
        let now = self.clock.now.load(Ordering::Relaxed);
        let gap = now - seen.last;
        seen.longest = seen.longest.max(gap);
        seen.late = seen.late.max(gap.saturating_sub(self.clock.allowed.load(Ordering::Relaxed)));
        seen.last = now;
        seen
    }
}

impl RxQueue<MemPacket> for Ring {
    fn rx(&mut self, out: &mut Vec<MemPacket>, max: usize) -> usize {
        let mut seen = self.noted();
        seen.polls += 1;
        let n = seen.frames.len().min(max).min(out.capacity() - out.len());
        out.extend(seen.frames.drain(..n).map(|f| MemPacket::new(&f)));
        n
    }

    fn can_rest(&self) -> bool {
        self.rests
    }

    fn has_frames(&mut self) -> bool {
        let mut seen = self.noted();
        seen.looks += 1;
        !seen.frames.is_empty()
    }
}

/// Such rings.
struct RingIo;

impl Io for RingIo {
    type Packet = MemPacket;
    type Rx = Ring;
    type Tx = MemQueue;
    type Pool = MemPool;
}

fn mac(port: PortIdx) -> Mac {
    Mac([2, 0, 0, 0, 0, port.0 as u8])
}

/// A worker with rings of VM A, by the numbers of their queues, whose frames go to B.
struct Scene {
    worker: Worker<RingIo>,
    mailbox: Mailbox<RingIo>,
    rings: Vec<Ring>,
    tx: MemQueue,
    clock: Arc<Clock>,
    bound: u64,
    /// For each ring, the number of its next frame, and of the next that B is to get.
    sent: Vec<u16>,
    got: BTreeMap<u16, u16>,
}

impl Scene {
    fn new(rests: &[bool], bound: Span) -> Scene {
        let mailbox = Mailbox::new(4096, 64);
        let config = TablesConfig { location_capacity: 64, hold_bytes: 1 << 20, ..Default::default() };
        let worker = Worker::new(Tables::new(&config), MemPool::endless(), mailbox.clone());
        let clock = Arc::new(Clock::default());
        clock.now.store(START, Ordering::Relaxed);
        clock.allowed.store(u64::MAX, Ordering::Relaxed);
        let ring = |&rests| Ring {
            seen: Arc::new(Mutex::new(Seen { last: START, ..Seen::default() })),
            clock: clock.clone(),
            rests,
        };
        let rings: Vec<Ring> = rests.iter().map(ring).collect();
        let mut scene = Scene {
            worker: worker.with_idle_poll(bound),
            mailbox,
            sent: vec![0; rings.len()],
            rings,
            tx: MemQueue::new(1 << 20),
            clock,
            bound: bound.0,
            got: BTreeMap::new(),
        };
        scene.begin();
        scene
    }

    fn begin(&mut self) {
        let vn = VnIdx(0);
        let vni = Vni::from_low24(7);
        self.order(Command::Table(Update::VnSet { vn, vni, mtu: 1450, transparent_vlan: false }));
        for port in [A, B] {
            let role = PortRole::Access { vn, mac: mac(port), admission: Admission::Activated };
            self.order(Command::Table(Update::PortSet { port, role }));
            let (key, state) = (Key::new(vn, mac(port)), VmState::Local { port });
            self.order(Command::Table(Update::VmSet { key, state }));
        }
        self.attach_tx(B, self.tx.clone());
        for (queue, rx) in (0..).zip(self.rings.clone()) {
            self.order(Command::AttachRx { port: A, queue, rx });
        }
        while !self.mailbox.commands.is_empty() {
            self.step(Span::from_us(1));
        }
    }

    fn attach_tx(&self, port: PortIdx, tx: MemQueue) {
        let (tx, outbox) = (TxPath::Own(tx), Vec::with_capacity(OUTBOX));
        self.order(Command::AttachTx { port, tx, offloads: None, outbox });
    }

    #[track_caller]
    fn order(&self, command: Command<RingIo>) {
        let order = Order { at: Instant(START), command };
        assert!(self.mailbox.commands.push(order).is_ok(), "the mailbox has room");
    }

    /// So many frames arrive in a ring.
    fn put(&mut self, ring: usize, frames: usize) {
        let ip = |p: PortIdx| IpAddr::from([203, 0, 113, p.0 as u8]);
        for _ in 0..frames {
            let (n, to) = (self.sent[ring], PORTS + ring as u16);
            let frame =
                godwit_testkit::frames::udp_frame((mac(A), ip(A), n), (mac(B), ip(B), to), b"payload");
            self.rings[ring].seen().frames.push_back(frame);
            self.sent[ring] = n.wrapping_add(1);
        }
    }

    /// The iteration before took so long; another one begins. A ring may go without a look for the bound and the
    /// length of an iteration.
    fn step(&mut self, took: Span) {
        let now = self.clock.now.fetch_add(took.0, Ordering::Relaxed) + took.0;
        self.clock.allowed.store(self.bound + took.0, Ordering::Relaxed);
        self.worker.step(Instant(now));
        while let Some(frame) = self.tx.take() {
            let number = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            let ring = number(36) - PORTS;
            let next = self.got.entry(ring).or_default();
            assert_eq!(number(34), *next, "ring {ring} keeps its order");
            *next = next.wrapping_add(1);
        }
    }

    /// Idle iterations until all that may rest does.
    fn rest(&mut self) {
        for _ in 0..3 {
            self.step(SURVEY);
        }
    }

    fn got(&self, ring: usize) -> u16 {
        self.got.get(&(ring as u16)).copied().unwrap_or_default()
    }

    fn snapshot(&mut self) -> Box<Snapshot> {
        while self.mailbox.replies.pop().is_some() {}
        self.order(Command::Snapshot(Snapshot::empty()));
        loop {
            self.step(Span::from_us(1));
            if let Some(Reply::Snapshot(snapshot)) = self.mailbox.replies.pop() {
                return snapshot;
            }
        }
    }
}

fn rings(busy: usize, resting: usize) -> Vec<bool> {
    (0..busy + resting).map(|i| i >= busy).collect()
}

/// An iteration of a busy worker: how long it takes in microseconds, and which resting rings get frames in it.
fn iterations() -> impl Strategy<Value = Vec<(u64, Vec<(usize, usize)>)>> {
    let arrivals = prop::collection::vec((any::<usize>(), 1_usize..80), 0..3);
    prop::collection::vec((prop_oneof![8 => 1_u64..20, 1 => 20_u64..200], arrivals), 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn r13_no_ring_waits_longer_than_the_bound_and_none_loses_its_order(
        busy in 1_usize..4, resting in 1_usize..300, iterations in iterations(),
    ) {
        let mut s = Scene::new(&rings(busy, resting), IDLE_POLL);
        for (us, arrivals) in iterations {
            (0..busy).for_each(|ring| s.put(ring, 2));
            arrivals.into_iter().for_each(|(ring, n)| s.put(busy + ring % resting, n));
            s.step(Span::from_us(us));
        }
        let late: Vec<_> = s.rings.iter().map(|r| r.seen().late).enumerate().filter(|l| l.1 > 0).collect();
        prop_assert_eq!(late, vec![], "rings that were looked at too late, by nanoseconds");
        for _ in 0..200 {
            s.step(Span::from_us(10));
        }
        for ring in 0..busy + resting {
            prop_assert_eq!(s.got(ring), s.sent[ring], "ring {} has got rid of all frames", ring);
        }
    }

    #[test]
    fn r13_with_even_iterations_a_look_comes_within_the_bound_or_one_of_them(
        resting in 1_usize..600, us in 1_u64..120,
    ) {
        let mut s = Scene::new(&rings(1, resting), IDLE_POLL);
        s.rest();
        s.rings.iter().for_each(|r| r.seen().longest = 0);
        for _ in 0..200 {
            s.put(0, 2);
            s.step(Span::from_us(us));
        }
        // The first of these iterations still looks at all.
        let bound = IDLE_POLL.0.max(us * 1000);
        let longest = s.rings[1..].iter().map(|r| r.seen().longest).max();
        prop_assert!(longest <= Some(bound), "{:?} ns", longest);
    }
}

#[test]
fn r13_a_busy_worker_spends_little_on_idle_rings() {
    let mut s = Scene::new(&rings(1, 499), IDLE_POLL);
    s.rest();
    let looks = |s: &Scene| s.rings.iter().map(|r| r.seen().looks).sum::<u64>();
    s.put(0, BURST);
    s.step(Span::from_us(2));
    let (before, polled) = (looks(&s), s.rings[1].seen().polls);
    for _ in 0..1000 {
        s.put(0, BURST);
        s.step(Span::from_us(2));
    }
    // 2,000 us are 40 turns, and a turn's last iteration may look at one more than its share.
    let made = looks(&s) - before;
    assert!((40 * 499..=42 * 499).contains(&made), "{made} looks");
    assert_eq!(s.rings[1].seen().polls, polled, "what rests is not polled");
    assert_eq!(s.got(0), s.sent[0]);
    let snapshot = s.snapshot();
    assert_eq!(snapshot.queues.iter().filter(|(_, _, q)| q.resting).count(), 499);
    assert!(snapshot.perf.looks.count >= made);
}

#[test]
fn r13_an_idle_worker_looks_at_every_ring_in_every_iteration() {
    let mut s = Scene::new(&rings(1, 300), IDLE_POLL);
    s.rest();
    s.rings.iter().for_each(|r| r.seen().longest = 0);
    for _ in 0..100 {
        s.step(Span::from_us(7));
    }
    assert!(s.rings.iter().all(|r| r.seen().longest == 7_000));
    // A frame is on its way in the iteration that finds it.
    s.put(200, 1);
    s.step(Span::from_us(7));
    assert_eq!(s.got(200), 1);
}

#[test]
fn r13_rings_that_may_not_rest_are_polled_as_ever() {
    for (rests, bound) in [(vec![false; 3], IDLE_POLL), (vec![true; 3], Span(0))] {
        let mut s = Scene::new(&rests, bound);
        s.rest();
        for _ in 0..100 {
            s.put(0, BURST);
            s.step(Span::from_us(3));
        }
        for ring in &s.rings {
            let seen = ring.seen();
            assert!((seen.looks, seen.polls) >= (0, 100) && seen.looks == 0);
        }
    }
}

#[test]
fn r77_a_flush_sees_what_lies_in_resting_rings() {
    let mut s = Scene::new(&rings(1, 400), IDLE_POLL);
    s.rest();
    s.put(0, BURST);
    s.step(Span::from_us(1));
    (1..401).for_each(|ring| s.put(ring, 1 + ring % 100));
    s.order(Command::Flush { token: 3, key: Key::new(VnIdx(0), mac(B)), port: None });
    let mut steps = 0;
    while !matches!(s.mailbox.events.pop(), Some(Event::Flushed { token: 3 })) {
        s.put(0, BURST / 2);
        s.step(Span::from_us(1));
        steps += 1;
        assert!(steps < 20, "it does not wait for their turn");
    }
    assert!((1..401).all(|ring| s.got(ring) == s.sent[ring]), "all of them have been emptied");
}

#[test]
fn r13_a_resting_ring_comes_back_with_what_is_in_it() {
    let mut s = Scene::new(&rings(0, 20), IDLE_POLL);
    s.rest();
    (0..20).for_each(|ring| s.put(ring, 2));
    let back: Vec<u16> = vec![3, 19, 0, 11];
    for &queue in &back {
        s.order(Command::DetachRx { port: A, queue });
    }
    s.step(Span::from_us(1));
    for &queue in &back {
        let Some(Reply::Rx { queue: of, rx: Some(rx), .. }) = s.mailbox.replies.pop() else { panic!() };
        assert_eq!((of, rx.seen().frames.len()), (queue, 2));
        s.order(Command::AttachRx { port: A, queue, rx });
    }
    s.order(Command::DetachRx { port: A, queue: 99 });
    s.step(Span::from_us(1));
    assert!(matches!(s.mailbox.replies.pop(), Some(Reply::Rx { rx: None, .. })));
    assert!((0..20).all(|ring| s.got(ring) == 2));
}

#[test]
fn r13_a_resting_ring_changes_workers() {
    let (mut first, mut second) = (Scene::new(&rings(0, 5), IDLE_POLL), Scene::new(&[], IDLE_POLL));
    first.rest();
    let baton: Baton<RingIo> = Arc::new(ArrayQueue::new(1));
    let part = |from, to| QueueHandover { port: A, queue: 4, from, to, progress: Arc::default() };
    second.order(Command::HandOver(part(Some(baton.clone()), None)));
    second.step(Span::from_us(1));
    first.order(Command::HandOver(part(None, Some(baton))));
    first.put(4, 3);
    first.step(Span::from_us(1));
    for _ in 0..2 {
        second.step(Span::from_us(1));
    }
    assert_eq!((first.got(4), second.got(4)), (0, 3));
    let has = |s: &mut Scene| s.snapshot().queues.iter().map(|q| q.1).collect::<Vec<_>>();
    assert_eq!(has(&mut second), [4]);
    assert!(!has(&mut first).contains(&4));
}

#[test]
fn r13_relays_of_many_ports_are_served_in_turn() {
    let mut s = Scene::new(&rings(1, 0), IDLE_POLL);
    let ports = 10..210;
    let relays: Vec<Relay<MemPacket>> = ports.clone().map(|_| Arc::new(ArrayQueue::new(4))).collect();
    let devices: Vec<MemQueue> = ports.clone().map(|_| MemQueue::new(4)).collect();
    for ((port, relay), device) in ports.map(PortIdx).zip(&relays).zip(&devices) {
        s.attach_tx(port, device.clone());
        s.order(Command::ServeRelay { port, relay: relay.clone() });
    }
    for _ in 0..100 {
        s.put(0, BURST);
        s.step(Span::from_us(5));
    }
    relays.iter().for_each(|relay| assert!(relay.push(MemPacket::new(&[7; 60])).is_ok()));
    let mut served = Vec::new();
    for _ in 0..10 {
        s.put(0, BURST);
        s.step(Span::from_us(5));
        served.push(devices.iter().filter(|d| d.len() == 1).count());
    }
    assert_eq!(served, (1..=10).map(|i| i * 20).collect::<Vec<_>>());
    // With nothing else to do it serves them all at once.
    s.step(Span::from_us(5));
    relays.iter().for_each(|relay| assert!(relay.push(MemPacket::new(&[7; 60])).is_ok()));
    s.step(Span::from_us(5));
    s.step(Span::from_us(5));
    assert!(devices.iter().all(|d| d.len() == 2));
}
