//! Destinations that nobody here knows, and what happens where tables or tunnels are missing.

use crate::common::*;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames;

#[test]
fn r34_r35_a_miss_asks_once_and_flushes_in_order() {
    let mut lab = Lab::new();
    let burst: Vec<_> = (1..=20).map(|n| numbered(M1, STRANGER, n)).collect();
    lab.input(P1, &burst);
    assert_eq!(lab.take_events(), [Event::MissMac { key: key(STRANGER), port: P1 }]);
    assert_eq!(lab.tables.counters.worker.misses, 1);
    lab.wait(ms(50));
    lab.tick();
    lab.vm(STRANGER, VmState::Remote { to: through(T4) });
    lab.one(P1, &numbered(M1, STRANGER, 21));
    lab.settle();
    assert_eq!(numbers(&lab.to(UPLINK)), (5..=21).collect::<Vec<_>>(), "5 to 20 before 21");
    assert_eq!(lab.drops(DropReason::HoldOverflow), 4);
    assert_eq!(lab.tables.vms.specials(), 0, "collapsed to its plain form");
    assert_eq!(lab.take_events(), [], "no handover, no report");
    lab.one(P1, &numbered(M1, STRANGER, 22));
    assert_eq!(number(lab.to(UPLINK).last().unwrap()), 22);
}

#[test]
fn r35_silence_drops_at_hold_age() {
    let mut lab = Lab::new();
    lab.one(P1, &numbered(M1, STRANGER, 1));
    lab.wait(ms(499));
    lab.tick();
    assert_eq!(lab.tables.waiting(), 1);
    lab.wait(ms(1));
    lab.tick();
    assert_eq!((lab.tables.waiting(), lab.drops(DropReason::HoldExpired)), (0, 1));
    lab.clear();
    lab.one(P1, &numbered(M1, STRANGER, 2));
    assert_eq!(lab.take_events().len(), 1, "the next frame asks again");
}

#[test]
fn r36_absent_is_dropped_without_another_query_until_it_is_forgotten() {
    let mut lab = Lab::new();
    lab.one(P1, &numbered(M1, STRANGER, 1));
    lab.clear();
    let until = lab.now + ms(5000);
    lab.vm(STRANGER, VmState::Absent { until });
    lab.tick();
    assert_eq!(lab.drops(DropReason::UnknownUnicast), 1, "what was held");
    dropped(&mut lab, P1, &numbered(M1, STRANGER, 2), DropReason::UnknownUnicast);
    assert_eq!(lab.take_events(), []);
    lab.wait(ms(5000));
    lab.tick();
    lab.one(P1, &numbered(M1, STRANGER, 3));
    assert_eq!(lab.take_events(), [Event::MissMac { key: key(STRANGER), port: P1 }]);
}

#[test]
fn r36_local_attach_clears_a_negative_answer_at_once() {
    let mut lab = Lab::new();
    let until = lab.now + ms(5000);
    lab.vm(M2, VmState::Absent { until });
    dropped(&mut lab, P1, &numbered(M1, M2, 1), DropReason::UnknownUnicast);
    lab.vm(M2, VmState::Local { port: P2 });
    lab.one(P1, &numbered(M1, M2, 2));
    assert_eq!(numbers(&lab.to(P2)), [2]);
}

#[test]
fn r67_one_port_cannot_ask_for_everything() {
    let mut lab = Lab::new();
    for n in 0..40 {
        lab.one(P1, &numbered(M1, mac(0x1000 + n), 1));
    }
    assert_eq!(lab.drops(DropReason::MissLimit), 24, "16 for each port");
    lab.clear();
    lab.one(P2, &numbered(M2, mac(0x2000), 1));
    assert_eq!(lab.take_events().len(), 1, "others still find room");
    // Answers give the room back.
    lab.vm(mac(0x1000), VmState::Remote { to: through(T4) });
    lab.clear();
    lab.one(P1, &numbered(M1, mac(0x3000), 1));
    assert_eq!(lab.take_events().len(), 1);
    lab.wait(ms(500));
    lab.tick();
    assert_eq!((lab.tables.vms.querying(), lab.tables.waiting()), (0, 0));
}

#[test]
fn r36_negative_answers_make_room_for_better_ones() {
    let mut lab = Lab::new();
    let until = lab.now + ms(5000);
    for n in 0..64 {
        lab.vm(mac(0x1000 + n), VmState::Absent { until });
    }
    lab.vm(M2, VmState::Paused { hold: limits(10, 1000) });
    assert_eq!(lab.take_events(), [], "no table is full");
    lab.one(P1, &numbered(M1, M2, 1));
    assert_eq!(lab.tables.waiting(), 1);
    assert_eq!(lab.tables.vms.specials(), 64);
}

#[test]
fn r13_a_full_table_says_so() {
    let mut c = config();
    c.location_capacity = 5;
    let mut lab = Lab::with(&c);
    lab.vm(STRANGER, VmState::Remote { to: through(T4) });
    assert_eq!(lab.take_events(), [Event::TableFull { key: key(STRANGER) }]);
    dropped(&mut lab, P1, &numbered(M1, STRANGER, 1), DropReason::MissLimit);
    lab.one(P1, &numbered(M1, M2, 1));
    assert_eq!(lab.to(P2).len(), 1, "known ones stay");
}

#[test]
fn frames_wait_for_a_tunnel_whose_next_hop_does_not_answer() {
    let mut lab = Lab::new();
    lab.vm(STRANGER, VmState::Remote { to: through(PENDING) });
    lab.input(P1, &(1..=3).map(|n| numbered(M1, STRANGER, n)).collect::<Vec<_>>());
    lab.tick();
    assert_eq!((lab.tables.waiting(), lab.out.sent.len()), (3, 0));
    lab.tunnel(PENDING, NVE_C.into());
    lab.settle();
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2, 3]);
    assert_eq!(lab.tables.vms.specials(), 0);
    // And the other way round: a ready tunnel may become pending.
    lab.apply(Update::TunnelPending { tunnel: PENDING, remote: NVE_C.into() });
    lab.one(P1, &numbered(M1, STRANGER, 4));
    lab.wait(ms(500));
    lab.tick();
    assert_eq!(lab.drops(DropReason::HoldExpired), 1);
    lab.tick();
    assert_eq!(lab.tables.vms.specials(), 0);
}

#[test]
fn a_tunnel_that_is_gone() {
    let mut lab = Lab::new();
    lab.vm(STRANGER, VmState::Remote { to: through(PENDING) });
    lab.one(P1, &numbered(M1, STRANGER, 1));
    lab.apply(Update::TunnelRemove { tunnel: PENDING });
    lab.settle();
    assert_eq!((lab.drops(DropReason::NoTunnel), lab.tables.waiting()), (1, 0));
    dropped(&mut lab, P1, &numbered(M1, STRANGER, 2), DropReason::NoTunnel);
    lab.vm(STRANGER, VmState::Remote { to: through(TunnelIdx(12_345)) });
    dropped(&mut lab, P1, &numbered(M1, STRANGER, 3), DropReason::NoTunnel);
}

#[test]
fn vn_remove_leaves_nothing_behind() {
    let mut lab = Lab::new();
    lab.neighbor(v4(4), R4);
    lab.one(P1, &numbered(M1, STRANGER, 1));
    lab.one(P1, &frames::arp_request(M1, v4(1), v4(77)));
    lab.vm(M2, VmState::Paused { hold: limits(10, 1000) });
    lab.one(P1, &numbered(M1, M2, 1));
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::VnRemove { vn: VN });
    assert_eq!(lab.tables.waiting(), 0);
    assert_eq!(lab.tables.vms.specials(), 0);
    assert_eq!(lab.tables.vms.len(), 1, "the other VN's VM stays");
    assert!(lab.tables.neighbors.is_empty());
    // The next VN of that number starts from nothing.
    lab.vn(VN, vni(), false);
    assert_eq!(lab.tables.vns.replicas(VN).count(), 0);
    lab.clear();
    lab.one(P1, &numbered(M1, R4, 1));
    assert!(matches!(lab.take_events()[..], [Event::MissMac { .. }]));
    lab.apply(Update::VmRemove { key: key(R4) });
    assert_eq!(lab.tables.waiting(), 0);
}
