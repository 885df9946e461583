//! Receive queues that go from worker to worker under traffic: nothing is lost, doubled or overtaken.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use godwit_pipeline::mem::MemPool;
use godwit_tables::update::{Admission, Key, PortIdx, PortRole, Update, VmState, VnIdx};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{Instant, Mac, Vni};
use godwit_worker::command::{Command, Mailbox, Order, Reply, TxPath};
use godwit_worker::mem::{MemIo, MemQueue};
use godwit_worker::outbox::OUTBOX;
use godwit_worker::queue_handover::{Baton, PATIENCE, Progress, QueueHandover};
use godwit_worker::worker::Worker;
use proptest::prelude::*;

const A: PortIdx = PortIdx(1);
const B: PortIdx = PortIdx(2);

fn mac(port: PortIdx) -> Mac {
    Mac([2, 0, 0, 0, 0, port.0 as u8])
}

/// From A's VM to B's.
fn frame(n: u16) -> Vec<u8> {
    let ip = |p: PortIdx| IpAddr::from(Ipv4Addr::new(203, 0, 113, p.0 as u8));
    godwit_testkit::frames::udp_frame((mac(A), ip(A), n), (mac(B), ip(B), 9), b"payload")
}

/// Workers that know A and B. A's one queue is polled by the first; frames to B leave by `tx`.
struct Scene {
    workers: Vec<Worker<MemIo>>,
    boxes: Vec<Mailbox<MemIo>>,
    rx: MemQueue,
    tx: MemQueue,
    batons: Vec<Baton<MemIo>>,
    progress: Arc<Progress>,
    now: u64,
    got: Vec<u16>,
}

impl Scene {
    /// `sent_by` says of each worker who sends to B for it.
    fn new(sent_by: &[usize], room: usize) -> Scene {
        let (mut workers, mut boxes) = (Vec::new(), Vec::new());
        for _ in sent_by {
            let mailbox = Mailbox::new(1024, 64);
            let config = TablesConfig { location_capacity: 64, hold_bytes: 1 << 20, ..Default::default() };
            workers.push(Worker::new(Tables::new(&config), MemPool::endless(), mailbox.clone()));
            boxes.push(mailbox);
        }
        let (rx, tx) = (MemQueue::new(1024), MemQueue::new(room));
        let progress = Arc::default();
        let s = Scene { workers, boxes, rx, tx, batons: Vec::new(), progress, now: 1, got: Vec::new() };
        let relays: Vec<_> = sent_by.iter().map(|_| Arc::new(ArrayQueue::new(1024))).collect();
        for (w, &by) in sent_by.iter().enumerate() {
            s.know_both(w);
            let own = by == w;
            let tx = if own { TxPath::Own(s.tx.clone()) } else { TxPath::Relay(relays[by].clone()) };
            s.order(w, Command::AttachTx { port: B, tx, offloads: None, outbox: Vec::with_capacity(OUTBOX) });
            if own {
                s.order(w, Command::ServeRelay { port: B, relay: relays[w].clone() });
            }
        }
        let rx = s.rx.clone();
        s.order(0, Command::AttachRx { port: A, queue: 0, rx });
        s
    }

    fn know_both(&self, w: usize) {
        let (vn, vni) = (VnIdx(0), Vni::from_low24(7));
        self.order(w, Command::Table(Update::VnSet { vn, vni, mtu: 1450, transparent_vlan: false }));
        for port in [A, B] {
            let role = PortRole::Access { vn, mac: mac(port), admission: Admission::Activated };
            self.order(w, Command::Table(Update::PortSet { port, role }));
            let state = VmState::Local { port };
            self.order(w, Command::Table(Update::VmSet { key: Key::new(vn, mac(port)), state }));
        }
    }

    #[track_caller]
    fn order(&self, w: usize, command: Command<MemIo>) {
        let order = Order { at: Instant(1), command };
        assert!(self.boxes[w].commands.push(order).is_ok(), "the mailbox has room");
    }

    /// Sends A's queue along a route of workers.
    fn hand_over(&mut self, route: &[usize]) {
        self.batons = route[1..].iter().map(|_| Arc::new(ArrayQueue::new(1))).collect();
        self.progress = Arc::default();
        for (i, &w) in route.iter().enumerate().rev() {
            let (from, to) = (i.checked_sub(1), self.batons.get(i).cloned());
            let from = from.map(|i| self.batons[i].clone());
            let progress = self.progress.clone();
            self.order(w, Command::HandOver(QueueHandover { port: A, queue: 0, from, to, progress }));
        }
    }

    fn step(&mut self, w: usize) {
        self.now += 1;
        let now = Instant(self.now);
        self.workers[w].step(now);
    }

    fn take(&mut self, n: usize) {
        for _ in 0..n {
            let Some(f) = self.tx.take() else { return };
            self.got.push(u16::from_be_bytes([f[34], f[35]]));
        }
    }

    /// Ends the handover everywhere: nobody has kept the queue.
    fn end(&mut self) {
        for w in 0..self.workers.len() {
            self.order(w, Command::EndHandover { port: A, queue: 0 });
            self.step(w);
            let Some(Reply::Rx { rx, .. }) = self.boxes[w].replies.pop() else { panic!("an answer") };
            assert!(rx.is_none(), "worker {w} kept the queue");
        }
    }
}

#[test]
fn r13_a_queue_waits_for_what_its_worker_received() {
    let mut s = Scene::new(&[0, 1], 4);
    (0..20).for_each(|n| assert!(s.rx.put(frame(n))));
    s.step(0);
    s.hand_over(&[0, 1]);
    (20..30).for_each(|n| assert!(s.rx.put(frame(n))));
    for _ in 0..3 {
        s.step(0);
        s.step(1);
    }
    assert!(!s.progress.is_done(), "frames wait at the first worker, and B takes none");
    for _ in 0..20 {
        s.take(4);
        s.step(0);
        s.step(1);
    }
    assert!(s.progress.is_done() && !s.progress.was_late());
    s.take(usize::MAX);
    assert_eq!(s.got, (0..30).collect::<Vec<_>>());
    s.end();
}

#[test]
fn r13_a_device_that_takes_nothing_keeps_no_queue_waiting() {
    let mut s = Scene::new(&[0, 1], 4);
    (0..20).for_each(|n| assert!(s.rx.put(frame(n))));
    s.step(0);
    s.hand_over(&[0, 1]);
    s.step(0);
    assert!(!s.progress.is_done());
    s.now += PATIENCE.0;
    s.step(0);
    s.step(1);
    assert!(s.progress.is_done() && s.progress.was_late(), "and control hears of it");
    s.end();
}

#[test]
fn r13_a_pass_that_is_called_off_gives_the_queue_back() {
    let mut s = Scene::new(&[0, 1], 4);
    (0..20).for_each(|n| assert!(s.rx.put(frame(n))));
    s.step(0);
    s.hand_over(&[0, 1]);
    s.step(0);
    s.order(0, Command::EndHandover { port: A, queue: 0 });
    s.step(0);
    let Some(Reply::Rx { rx: Some(rx), .. }) = s.boxes[0].replies.pop() else { panic!("the queue") };
    s.order(0, Command::AttachRx { port: A, queue: 0, rx });
    (20..30).for_each(|n| assert!(s.rx.put(frame(n))));
    for _ in 0..20 {
        s.take(4);
        s.step(0);
    }
    assert_eq!(s.got, (0..30).collect::<Vec<_>>());
}

/// Who sends to B for each of three workers, and the way from worker 0 to worker 1 that follows.
const WAYS: [([usize; 3], &[usize]); 5] = [
    ([0, 1, 2], &[0, 1]),
    ([2, 1, 2], &[0, 2, 1]),
    ([1, 1, 2], &[0, 1]),
    ([2, 2, 2], &[0, 1]),
    ([0, 0, 0], &[0, 1]),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn r13_no_schedule_loses_doubles_or_overtakes_a_frame(
        way in 0..WAYS.len(), room in 1_usize..40, start in 0_usize..60,
        doings in prop::collection::vec((0_u8..8, 1_u16..40), 20..200),
    ) {
        let (sent_by, route) = WAYS[way];
        let mut s = Scene::new(&sent_by, room);
        let mut sent = 0;
        for (i, &(what, n)) in doings.iter().enumerate() {
            if i == start {
                s.hand_over(route);
            }
            match what {
                0..5 => s.step(usize::from(what) % 3),
                5 => s.take(n.into()),
                // Fewer than an outbox holds: what it drops for want of room is another matter.
                _ => for _ in 0..n.min(400 - sent) {
                    prop_assert!(s.rx.put(frame(sent)));
                    sent += 1;
                }
            }
        }
        if start >= doings.len() {
            s.hand_over(route);
        }
        for _ in 0..2000 {
            (0..3).for_each(|w| s.step(w));
            s.take(room);
        }
        prop_assert!(s.progress.is_done() && !s.progress.was_late());
        prop_assert_eq!(&s.got, &(0..sent).collect::<Vec<_>>());
        s.end();
    }
}
