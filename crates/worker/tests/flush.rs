//! Flushes: control hears when all that a worker had of a VM's frames has left (R77).

use godwit_pipeline::mem::MemPool;
use godwit_tables::event::Event;
use godwit_tables::update::{Admission, HoldLimits, Key, PortIdx, PortRole, Update, VmState, VnIdx};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{Instant, Mac, Span, Vni};
use godwit_worker::command::{Command, Mailbox, Order, TxPath};
use godwit_worker::flush::{FLUSHES, PATIENCE};
use godwit_worker::mem::{MemIo, MemQueue};
use godwit_worker::outbox::OUTBOX;
use godwit_worker::worker::{BURST, Worker};

const VN: VnIdx = VnIdx(0);
const A: PortIdx = PortIdx(1);
const B: PortIdx = PortIdx(2);
const START: Instant = Instant(1_000_000);

fn mac(port: PortIdx) -> Mac {
    Mac([2, 0, 0, 0, 0, port.0 as u8])
}

fn key(port: PortIdx) -> Key {
    Key::new(VN, mac(port))
}

fn frame(n: u16) -> Vec<u8> {
    let ip = |p: PortIdx| std::net::IpAddr::from([203, 0, 113, p.0 as u8]);
    godwit_testkit::frames::udp_frame((mac(A), ip(A), n), (mac(B), ip(B), 9), b"payload")
}

/// A worker with the local VMs A, which sends, and B, whose device takes `room` frames.
struct Bench {
    worker: Worker<MemIo>,
    mailbox: Mailbox<MemIo>,
    rx: MemQueue,
    tx: MemQueue,
    now: Instant,
}

impl Bench {
    fn new(room: usize) -> Bench {
        let mailbox = Mailbox::new(1024, 64);
        let config = TablesConfig { location_capacity: 64, hold_bytes: 1 << 20, ..TablesConfig::default() };
        let worker = Worker::new(Tables::new(&config), MemPool::endless(), mailbox.clone());
        let (rx, tx) = (MemQueue::new(4096), MemQueue::new(room));
        let mut bench = Bench { worker, mailbox, rx, tx, now: START };
        let (vni, mtu) = (Vni::from_low24(7), 1450);
        bench.order(Command::Table(Update::VnSet { vn: VN, vni, mtu, transparent_vlan: false }));
        for port in [A, B] {
            let role = PortRole::Access { vn: VN, mac: mac(port), admission: Admission::Activated };
            bench.order(Command::Table(Update::PortSet { port, role }));
            bench.entry(port, VmState::Local { port });
        }
        bench.order(Command::AttachRx { port: A, queue: 0, rx: bench.rx.clone() });
        let (tx, outbox) = (TxPath::Own(bench.tx.clone()), Vec::with_capacity(OUTBOX));
        bench.order(Command::AttachTx { port: B, tx, offloads: None, outbox });
        bench.step();
        bench
    }

    fn order(&self, command: Command<MemIo>) {
        let order = Order { at: START, command };
        assert!(self.mailbox.commands.push(order).is_ok(), "the mailbox has room");
    }

    fn entry(&self, port: PortIdx, state: VmState) {
        self.order(Command::Table(Update::VmSet { key: key(port), state }));
    }

    fn step(&mut self) {
        self.now = self.now + Span::from_us(10);
        self.worker.step(self.now);
    }

    /// Flushes that are over.
    fn flushed(&self) -> Vec<u64> {
        let events = std::iter::from_fn(|| self.mailbox.events.pop());
        events.filter_map(|e| if let Event::Flushed { token } = e { Some(token) } else { None }).collect()
    }
}

#[test]
fn r77_what_lay_in_the_receive_queues_has_left_before_a_flush_is_over() {
    let mut bench = Bench::new(4096);
    let frames = 5 * BURST as u16;
    (0..frames).for_each(|n| assert!(bench.rx.put(frame(n))));
    bench.order(Command::Flush { token: 7, key: key(B), port: None });
    while bench.flushed() != [7] {
        assert!(bench.now < START + PATIENCE, "it was not the patience that ended it");
        bench.step();
    }
    assert_eq!(bench.tx.len(), usize::from(frames));
}

#[test]
fn r77_a_flush_waits_for_what_is_held_and_for_a_device_that_takes_little() {
    let mut bench = Bench::new(4);
    let hold = HoldLimits { packets: 500, age: Span::from_ms(1000) };
    bench.entry(B, VmState::Paused { hold });
    (0..200).for_each(|n| assert!(bench.rx.put(frame(n))));
    (0..8).for_each(|_| bench.step());
    assert_eq!(bench.worker.tables().waiting(), 200);
    bench.entry(B, VmState::Local { port: B });
    bench.order(Command::Flush { token: 1, key: key(B), port: None });
    let mut taken = 0;
    loop {
        bench.step();
        taken += std::iter::from_fn(|| bench.tx.take()).count();
        if bench.flushed() == [1] {
            break;
        }
    }
    assert_eq!((taken, bench.worker.tables().waiting()), (200, 0));
    assert!(bench.now < START + PATIENCE);
}

#[test]
fn r77_what_is_held_for_good_does_not_keep_a_flush() {
    let mut bench = Bench::new(4096);
    let hold = HoldLimits { packets: 500, age: Span::from_ms(1000) };
    bench.entry(B, VmState::Paused { hold });
    (0..20).for_each(|n| assert!(bench.rx.put(frame(n))));
    bench.order(Command::Flush { token: 1, key: key(B), port: None });
    (0..8).for_each(|_| bench.step());
    assert_eq!(bench.flushed(), [1]);
    assert_eq!(bench.worker.tables().waiting(), 20);
}

#[test]
fn r77_a_device_that_takes_nothing_ends_no_flush_but_its_time_does() {
    let mut bench = Bench::new(4);
    (0..20).for_each(|n| assert!(bench.rx.put(frame(n))));
    bench.order(Command::Flush { token: 1, key: key(B), port: None });
    (0..20).for_each(|_| bench.step());
    assert_eq!(bench.flushed(), [0; 0]);
    bench.now = bench.now + PATIENCE;
    (0..4).for_each(|_| bench.step());
    assert_eq!(bench.flushed(), [1]);
}

#[test]
fn r77_flushes_are_bounded_and_none_is_forgotten() {
    let mut bench = Bench::new(4096);
    let all = FLUSHES as u64 + 100;
    let mut over = std::collections::BTreeSet::new();
    for token in 0..all {
        bench.order(Command::Flush { token, key: key(B), port: None });
    }
    for _ in 0..200 {
        bench.step();
        over.extend(bench.flushed());
    }
    assert_eq!(over, (0..all).collect());
}

#[test]
fn r77_what_a_vm_sent_itself_is_waited_for_while_it_is_held_for_another_one() {
    let mut bench = Bench::new(4096);
    // The directory is being asked for B.
    bench.order(Command::Table(Update::VmRemove { key: key(B) }));
    bench.step();
    (0..3).for_each(|n| assert!(bench.rx.put(frame(n))));
    bench.step();
    assert_eq!(bench.worker.tables().waiting(), 3);
    bench.order(Command::Flush { token: 1, key: key(A), port: None });
    bench.order(Command::Flush { token: 2, key: key(A), port: Some(A) });
    bench.order(Command::Flush { token: 3, key: key(B), port: Some(B) });
    (0..20).for_each(|_| bench.step());
    assert_eq!(bench.flushed(), [0; 0], "a round is over as one");
    bench.entry(B, VmState::Local { port: B });
    (0..8).for_each(|_| bench.step());
    assert_eq!(bench.flushed().len(), 3);
    assert_eq!(bench.tx.len(), 3);
    assert!(bench.now < START + PATIENCE);

    // Whom A sent to stands still: what comes from elsewhere comes behind it.
    let hold = HoldLimits { packets: 500, age: Span::from_ms(1000) };
    bench.entry(B, VmState::Paused { hold });
    bench.step();
    (0..3).for_each(|n| assert!(bench.rx.put(frame(n))));
    bench.order(Command::Flush { token: 4, key: key(A), port: Some(A) });
    (0..8).for_each(|_| bench.step());
    assert_eq!((bench.flushed(), bench.worker.tables().waiting()), (vec![4], 3));
}
