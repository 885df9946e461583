//! A worker stepped by hand over queues in memory: orders, relays, hand-overs of queues, counters.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_pipeline::packet::{Packet, ReceiveOffloads, Unfinished};
use godwit_tables::counters::Counters;
use godwit_tables::update::{
    Admission, DomainIdx, HoldLimits, Key, MAX_LENGTHS, NO_LENGTH, PortIdx, PortRole, Update, VmState, VnIdx,
    VnRouting,
};
use godwit_tables::{DropReason, Tables, TablesConfig};
use godwit_testkit::clients::Dhcp4;
use godwit_wire::{Instant, Mac, Span, Vni};
use godwit_worker::command::{Command, MAX_SENT, Mailbox, Order, Relay, Reply, SmallFrame, Snapshot, TxPath};
use godwit_worker::mem::{MemIo, MemQueue};
use godwit_worker::offloads::{SharedReceiveOffloads, SharedUse};
use godwit_worker::outbox::{OUTBOX, Outboxes};
use godwit_worker::worker::{BURST, LOOK, ORDERS, Worker};

const VN: VnIdx = VnIdx(0);
const A: PortIdx = PortIdx(1);
const B: PortIdx = PortIdx(2);

fn mac(port: PortIdx) -> Mac {
    Mac([2, 0, 0, 0, 0, port.0 as u8])
}

fn frame(from: PortIdx, to: PortIdx, n: u16) -> Vec<u8> {
    let ip = |p: PortIdx| IpAddr::from(Ipv4Addr::new(203, 0, 113, p.0 as u8));
    godwit_testkit::frames::udp_frame((mac(from), ip(from), n), (mac(to), ip(to), 9), b"payload")
}

/// A worker that knows two local VMs, A and B, but no queue yet.
fn worker() -> (Worker<MemIo>, Mailbox<MemIo>) {
    let mailbox = Mailbox::new(1024, 64);
    let tables =
        Tables::new(&TablesConfig { location_capacity: 64, hold_bytes: 1 << 20, ..Default::default() });
    let mut w = Worker::new(tables, MemPool::endless(), mailbox.clone());
    let vni = Vni::from_low24(7);
    order(&mailbox, Command::Table(Update::VnSet { vn: VN, vni, mtu: 1450, transparent_vlan: false }));
    for port in [A, B] {
        let role = PortRole::Access { vn: VN, mac: mac(port), admission: Admission::Activated };
        order(&mailbox, Command::Table(Update::PortSet { port, role }));
        let key = Key::new(VN, mac(port));
        order(&mailbox, Command::Table(Update::VmSet { key, state: VmState::Local { port } }));
    }
    w.step(Instant(1));
    (w, mailbox)
}

#[track_caller]
fn order(mailbox: &Mailbox<MemIo>, command: Command<MemIo>) {
    let order = Order { at: Instant(1), command };
    assert!(mailbox.commands.push(order).is_ok(), "the mailbox has room");
}

fn attach_rx(mailbox: &Mailbox<MemIo>, port: PortIdx) -> MemQueue {
    let rx = MemQueue::new(1024);
    order(mailbox, Command::AttachRx { port, queue: 0, rx: rx.clone() });
    rx
}

fn attach_tx(mailbox: &Mailbox<MemIo>, port: PortIdx, tx: TxPath<MemIo>) {
    order(mailbox, Command::AttachTx { port, tx, offloads: None, outbox: Vec::with_capacity(OUTBOX) });
}

fn steps(w: &mut Worker<MemIo>, n: usize) {
    for i in 0..n {
        w.step(Instant(1_000 + i as u64));
    }
}

fn sources(queue: &MemQueue) -> Vec<u16> {
    std::iter::from_fn(|| queue.take()).map(|f| u16::from_be_bytes([f[34], f[35]])).collect()
}

#[test]
fn frames_go_from_port_to_port_in_order() {
    let (mut w, mailbox) = worker();
    let (rx, tx) = (attach_rx(&mailbox, A), MemQueue::new(1024));
    attach_tx(&mailbox, B, TxPath::Own(tx.clone()));
    (0..100).for_each(|n| assert!(rx.put(frame(A, B, n))));
    steps(&mut w, 6);
    assert_eq!(sources(&tx), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_full_transmit_queue_delays_and_then_counts() {
    let (mut w, mailbox) = worker();
    let (rx, tx) = (attach_rx(&mailbox, A), MemQueue::new(8));
    attach_tx(&mailbox, B, TxPath::Own(tx.clone()));
    (0..20).for_each(|n| assert!(rx.put(frame(A, B, n))));
    steps(&mut w, 3);
    assert_eq!(w.tables().counters.dropped(DropReason::TxFull), 0, "what does not fit waits");
    let mut got = sources(&tx);
    while got.len() < 20 {
        steps(&mut w, 1);
        got.extend(sources(&tx));
    }
    assert_eq!(got, (0..20).collect::<Vec<_>>());
    // Far more than queue and outbox hold together.
    let total = 8 + OUTBOX as u16 + 100;
    for n in 0..total {
        assert!(rx.put(frame(A, B, n)));
        steps(&mut w, 1);
    }
    assert_eq!(w.tables().counters.dropped(DropReason::TxFull), 100);
    assert_eq!(w.tables().counters.port(B).tx_packets, 20 + u64::from(total) - 100);
}

/// What A's guest did not take before it stopped goes after it, before what comes later.
#[test]
fn r45_what_a_vm_did_not_take_before_it_stopped_is_held() {
    let (mut w, mailbox) = worker();
    let (rx, stopped) = (attach_rx(&mailbox, A), MemQueue::new(3));
    attach_tx(&mailbox, B, TxPath::Own(stopped.clone()));
    (0..20).for_each(|n| assert!(rx.put(frame(A, B, n))));
    // Another VM's broadcast is not B's alone.
    let mut all = frame(A, B, 99);
    all[..6].fill(0xff);
    assert!(rx.put(all));
    steps(&mut w, 2);
    let key = Key::new(VN, mac(B));
    let hold = HoldLimits { packets: 100, age: Span::from_ms(1000) };
    order(&mailbox, Command::Table(Update::VmSet { key, state: VmState::Paused { hold } }));
    (20..25).for_each(|n| assert!(rx.put(frame(A, B, n))));
    steps(&mut w, 2);
    let taken = stopped.len() as u64;
    assert_eq!((w.tables().waiting(), w.tables().counters.port(B).tx_packets), (25 - taken, taken + 1));

    // Called off: it goes on where it was.
    let mut got = sources(&stopped);
    order(&mailbox, Command::Table(Update::VmSet { key, state: VmState::Local { port: B } }));
    for _ in 0..30 {
        steps(&mut w, 1);
        got.extend(sources(&stopped).into_iter().filter(|n| *n != 99));
    }
    assert_eq!(got, (0..25).collect::<Vec<_>>());
    let counters = &w.tables().counters;
    assert_eq!((counters.dropped(DropReason::TxFull), w.tables().waiting()), (0, 0));
}

#[test]
fn a_worker_without_a_queue_relays_to_the_one_that_has_it() {
    let ((mut first, box1), (mut second, box2)) = (worker(), worker());
    let (rx, tx) = (attach_rx(&box1, A), MemQueue::new(1024));
    let relay = Arc::new(ArrayQueue::new(16));
    attach_tx(&box1, B, TxPath::Relay(relay.clone()));
    attach_tx(&box2, B, TxPath::Own(tx.clone()));
    order(&box2, Command::ServeRelay { port: B, relay });
    (0..20).for_each(|n| assert!(rx.put(frame(A, B, n))));
    steps(&mut first, 2);
    steps(&mut second, 2);
    assert_eq!(sources(&tx), (0..16).collect::<Vec<_>>());
    assert_eq!(first.tables().counters.dropped(DropReason::TxFull), 4, "the relay is bounded");
}

/// The other worker must see that a VM takes nothing, so that what is held for it stays there.
#[test]
fn r45_what_a_device_does_not_take_stays_in_the_relay() {
    let ((mut first, box1), (mut second, box2)) = (worker(), worker());
    let (rx, tx) = (attach_rx(&box1, A), MemQueue::new(8));
    let relay: Relay<_> = Arc::new(ArrayQueue::new(4096));
    attach_tx(&box1, B, TxPath::Relay(relay.clone()));
    attach_tx(&box2, B, TxPath::Own(tx.clone()));
    order(&box2, Command::ServeRelay { port: B, relay: relay.clone() });
    let total = 8 + OUTBOX as u16 + 1000;
    for n in 0..total {
        assert!(rx.put(frame(A, B, n)));
        steps(&mut first, 1);
        steps(&mut second, 1);
    }
    assert_eq!(relay.len(), 1000);
    let mut got = sources(&tx);
    while got.len() < usize::from(total) {
        steps(&mut second, 1);
        got.extend(sources(&tx));
    }
    assert_eq!(got, (0..total).collect::<Vec<_>>(), "in order");
    assert_eq!(second.tables().counters.dropped(DropReason::TxFull), 0);

    // A port that goes takes with it what still waits, and that is counted.
    (0..total).for_each(|n| {
        assert!(rx.put(frame(A, B, n)));
        steps(&mut first, 1);
    });
    steps(&mut second, 2);
    order(&box2, Command::DetachTx { port: B });
    steps(&mut second, 1);
    let sent = sources(&tx).len() as u64;
    assert_eq!(second.tables().counters.dropped(DropReason::TxFull), u64::from(total) - sent);
}

#[test]
fn r13_a_guests_further_queue_is_used_while_it_is_in_use() {
    let ((mut first, box1), (mut second, box2)) = (worker(), worker());
    let (rx, own, first_queue) = (attach_rx(&box2, A), MemQueue::new(64), MemQueue::new(64));
    let relay: Relay<_> = Arc::new(ArrayQueue::new(64));
    attach_tx(&box1, B, TxPath::Own(first_queue.clone()));
    order(&box1, Command::ServeRelay { port: B, relay: relay.clone() });
    let used = SharedUse::default();
    attach_tx(&box2, B, TxPath::Either { tx: own.clone(), used: used.clone(), relay });
    let mut n = 0;
    let mut four = |second: &mut Worker<MemIo>, first: &mut Worker<MemIo>| {
        (n..n + 4).for_each(|n| assert!(rx.put(frame(A, B, n))));
        n += 4;
        steps(second, 2);
        steps(first, 2);
    };
    four(&mut second, &mut first);
    assert_eq!((sources(&first_queue), sources(&own)), ((0..4).collect(), vec![]), "not in use yet");
    used.set(true);
    four(&mut second, &mut first);
    assert_eq!((sources(&first_queue), sources(&own)), (vec![], (4..8).collect()));
    used.set(false);
    four(&mut second, &mut first);
    assert_eq!((sources(&first_queue), sources(&own)), ((8..12).collect(), vec![]));
    assert_eq!(second.tables().counters.total().dropped(), 0);
}

#[test]
fn a_receive_queue_changes_workers_without_losing_a_frame() {
    let ((mut first, box1), (mut second, box2)) = (worker(), worker());
    let (rx, tx) = (attach_rx(&box1, A), MemQueue::new(1024));
    for mailbox in [&box1, &box2] {
        attach_tx(mailbox, B, TxPath::Own(tx.clone()));
    }
    (0..50).for_each(|n| assert!(rx.put(frame(A, B, n))));
    steps(&mut first, 1);
    order(&box1, Command::DetachRx { port: A, queue: 0 });
    (50..100).for_each(|n| assert!(rx.put(frame(A, B, n))));
    steps(&mut first, 3);
    let Some(Reply::Rx { rx: Some(queue), .. }) = box1.replies.pop() else { panic!("the queue comes back") };
    order(&box2, Command::AttachRx { port: A, queue: 0, rx: queue });
    steps(&mut second, 6);
    assert_eq!(sources(&tx), (0..100).collect::<Vec<_>>());
}

#[test]
fn detaching_sends_what_waits_and_later_frames_are_counted() {
    let (mut w, mailbox) = worker();
    let (rx, tx) = (attach_rx(&mailbox, A), MemQueue::new(4));
    attach_tx(&mailbox, B, TxPath::Own(tx.clone()));
    (0..10).for_each(|n| assert!(rx.put(frame(A, B, n))));
    steps(&mut w, 2);
    order(&mailbox, Command::DetachTx { port: B });
    steps(&mut w, 1);
    assert!(matches!(mailbox.replies.pop(), Some(Reply::Tx { tx: Some(TxPath::Own(_)), .. })));
    assert_eq!(w.tables().counters.dropped(DropReason::TxFull), 6, "the queue took 4 of 10");
    assert!(rx.put(frame(A, B, 99)));
    steps(&mut w, 2);
    assert_eq!(w.tables().counters.dropped(DropReason::TxFull), 7, "no way out any more");
}

/// A worker applies a bounded number of updates an iteration (R14).
#[test]
fn orders_are_bounded_an_iteration_and_wait_for_room_for_answers() {
    let (mut w, _) = worker();
    let small = Mailbox::new(256, 8);
    let mut fresh = Worker::<MemIo>::new(
        Tables::new(&TablesConfig { location_capacity: 64, hold_bytes: 1 << 20, ..Default::default() }),
        MemPool::endless(),
        small.clone(),
    );
    (0..200).for_each(|token| order(&small, Command::Barrier { token }));
    fresh.step(Instant(1));
    assert_eq!(small.replies.len(), ORDERS);
    steps(&mut fresh, 20);
    let tokens: Vec<u64> = std::iter::from_fn(|| small.replies.pop())
        .filter_map(|r| if let Reply::Reached { token } = r { Some(token) } else { None })
        .collect();
    assert_eq!(tokens, (0..200).collect::<Vec<_>>());
    steps(&mut w, 1);
}

#[test]
fn r14_under_load_an_order_waits_for_a_few_bursts_and_else_not_at_all() {
    let (mut w, mailbox) = worker();
    let rx = attach_rx(&mailbox, A);
    attach_tx(&mailbox, B, TxPath::Own(MemQueue::new(1 << 16)));
    steps(&mut w, 1);
    let reached = |mailbox: &Mailbox<MemIo>| {
        std::iter::from_fn(|| mailbox.replies.pop())
            .filter_map(|r| if let Reply::Reached { token } = r { Some(token) } else { None })
            .collect::<Vec<_>>()
    };
    let bound = u64::from(LOOK).div_ceil(BURST as u64);
    let (mut waiting, mut looks) = (0, 0);
    for step in 0..100 {
        (0..BURST).for_each(|n| assert!(rx.put(frame(A, B, n as u16))));
        order(&mailbox, Command::Barrier { token: step });
        w.step(Instant(1_000 + step));
        let now = reached(&mailbox);
        assert_eq!(now, (waiting..waiting + now.len() as u64).collect::<Vec<_>>());
        looks += u64::from(!now.is_empty());
        waiting += now.len() as u64;
        assert!(step + 1 - waiting < bound, "after step {step} order {waiting} still waits");
    }
    assert!(looks <= 100 / bound + 1, "{looks} looks into the mailbox beside 100 full bursts");
    // The worker does not know before it has looked that the load has ended.
    steps(&mut w, 2);
    assert_eq!(mailbox.commands.len(), 0);
    for step in 100..110 {
        (1..BURST).for_each(|n| assert!(rx.put(frame(A, B, n as u16))));
        order(&mailbox, Command::Barrier { token: step });
        w.step(Instant(2_000 + step));
        assert_eq!(reached(&mailbox).last(), Some(&step));
    }
}

#[test]
fn control_sends_traces_and_reads_counters() {
    let (mut w, mailbox) = worker();
    let tx = MemQueue::new(8);
    attach_tx(&mailbox, B, TxPath::Own(tx.clone()));
    let sent = frame(A, B, 5);
    let small = SmallFrame::new(&sent).expect("it is short");
    order(&mailbox, Command::Send { port: B, frame: sent.clone() });
    order(&mailbox, Command::Trace { id: 3, port: A, frame: small });
    order(&mailbox, Command::Snapshot(Snapshot::empty()));
    steps(&mut w, 1);
    assert_eq!(sources(&tx), [5]);
    let Some(Reply::Sent { frame: back }) = mailbox.replies.pop() else { panic!("the frame, to be freed") };
    assert_eq!(back, sent);
    let Some(Reply::Trace { id: 3, trace }) = mailbox.replies.pop() else { panic!("a trace") };
    assert!(!trace.steps().is_empty());
    let Some(Reply::Snapshot(s)) = mailbox.replies.pop() else { panic!("counters") };
    assert_eq!(s.counters.port(B).tx_packets, 1);
    assert_eq!(s.locations, 2);
    assert!(SmallFrame::new(&[0; 257]).is_none());
    order(&mailbox, Command::Stop);
    steps(&mut w, 1);
    assert!(w.stopped());
}

#[test]
fn r58_what_a_vm_asks_of_its_gateway_reaches_control_and_nobody_else() {
    let (mut w, mailbox) = worker();
    let (rx, tx) = (attach_rx(&mailbox, A), MemQueue::new(8));
    attach_tx(&mailbox, B, TxPath::Own(tx.clone()));
    let none = [NO_LENGTH; MAX_LENGTHS];
    order(&mailbox, Command::Table(Update::DomainSet { domain: DomainIdx(0), v4: none, v6: none }));
    let routing = VnRouting { dhcp_v4: true, ..VnRouting::new(DomainIdx(0), Mac([2, 0, 0, 0, 9, 9]), false) };
    order(&mailbox, Command::Table(Update::VnRoutingSet { vn: VN, routing: Some(routing) }));
    steps(&mut w, 1);
    let discover = Dhcp4::new(mac(A), 1).frame();
    assert!(rx.put(discover.clone()));
    steps(&mut w, 2);
    let punt = mailbox.punts.take().expect("a frame for control");
    assert_eq!((punt.port(), punt.bytes()), (A, &discover[..]));
    assert!(mailbox.punts.take().is_none() && tx.is_empty(), "it is broadcast to nobody");
}

#[test]
fn control_sends_vms_frames_with_packets_of_1500_bytes() {
    let (mut w, mailbox) = worker();
    let tx = MemQueue::new(8);
    attach_tx(&mailbox, B, TxPath::Own(tx.clone()));
    let long = vec![7; MAX_SENT];
    order(&mailbox, Command::Send { port: B, frame: long.clone() });
    steps(&mut w, 1);
    assert_eq!(tx.take(), Some(long), "no tag, nothing cut off");
    order(&mailbox, Command::Send { port: PortIdx(9), frame: vec![7; 60] });
    steps(&mut w, 1);
    assert!(matches!(mailbox.replies.pop(), Some(Reply::Sent { .. })));
    assert!(matches!(mailbox.replies.pop(), Some(Reply::Sent { .. })), "given back where nobody is, too");
}

#[test]
fn r11_frames_handed_on_do_not_outlive_the_guest_that_would_have_taken_them() {
    let offloads = SharedReceiveOffloads::default();
    let all = ReceiveOffloads { checksum: true, tcp4: true, tcp6: true };
    offloads.set(all);
    let mut out = Outboxes::<MemIo>::new();
    let (queue, mut counters) = (MemQueue::new(0), Counters::new());
    out.attach(A, TxPath::Own(queue), Some(offloads.clone()), Vec::with_capacity(OUTBOX));
    assert_eq!((out.offloads(A), out.offloads(B)), (all, ReceiveOffloads::NOTHING));
    let told = Unfinished { l2_len: 14, l3_len: 20, l4_len: 20, six: false, tcp: true, segment: 1400 };
    for n in 0..4 {
        let mut packet = MemPacket::new(&[n; 60]);
        if n % 2 == 0 {
            packet.hand_on(told);
        }
        counters.sent(A, 60);
        out.send(A, packet);
    }
    out.flush(&mut counters);
    assert_eq!(out.waiting(), 4, "the guest is slow, no more");
    offloads.set(ReceiveOffloads::NOTHING);
    out.flush(&mut counters);
    assert_eq!((out.waiting(), counters.dropped(DropReason::TxFull)), (2, 2));
}
