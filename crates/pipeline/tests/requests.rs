//! ARP and ND requests that wait for the directory, and what bounds them.

use crate::common::*;
use godwit_pipeline::mem::MemPool;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Nd};
use std::net::IpAddr;

#[test]
fn r31_unknown_targets_wait_and_are_never_flooded() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let asked = frames::arp_request(M1, v4(1), v4(4));
    lab.one(P1, &asked);
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(4)));
    dropped(&mut lab, P1, &asked, DropReason::AskRepeated);
    let miss = |ip: IpAddr| Event::MissIp { vn: VN, ip, port: P1 };
    assert_eq!(lab.take_events(), [miss(v4(4).into())], "one query for two askers");
    lab.one(P1, &Nd::solicit(M1, v6(1), v6(4)).frame());
    assert_eq!(lab.take_events(), [miss(v6(4).into())]);
    assert_eq!(lab.tables.waiting(), 3);
    lab.tick();
    assert!(lab.out.sent.is_empty());
    lab.neighbor(v4(4), R4);
    lab.tick();
    assert_eq!(lab.to(P1), [frames::arp_reply(R4, v4(4), M1, v4(1))]);
    assert_eq!(lab.to(P2), [frames::arp_reply(R4, v4(4), M2, v4(2))]);
    lab.clear();
    lab.neighbor(v6(4), R4);
    lab.tick();
    let na = Nd { eth: (R4, M1), ip: (v6(4), v6(1)), flags: 0x60, ..Nd::announce(R4, v6(4)) };
    assert_eq!(lab.to(P1), [na.frame()]);
    assert_eq!(lab.tables.waiting(), 0);
}

#[test]
fn r31_absence_and_silence() {
    let mut lab = Lab::new();
    let asked = frames::arp_request(M1, v4(1), v4(77));
    lab.one(P1, &asked);
    let until = lab.now + ms(5000);
    lab.apply(Update::NeighborAbsent { vn: VN, ip: v4(77).into(), until });
    lab.tick();
    assert_eq!((lab.drops(DropReason::UnknownTarget), lab.tables.waiting()), (1, 0));
    lab.clear();
    for _ in 0..1000 {
        lab.one(P1, &asked);
    }
    assert_eq!(lab.drops(DropReason::UnknownTarget), 1001);
    assert!(lab.out.sent.is_empty() && lab.out.events.is_empty(), "one query for each neg_life");
    lab.wait(ms(5000));
    lab.one(P1, &asked);
    assert_eq!(lab.take_events().len(), 1);
    lab.wait(ms(500));
    lab.tick();
    assert_eq!((lab.drops(DropReason::AskExpired), lab.tables.waiting()), (1, 0));
}

#[test]
fn r31_silent_hosts_are_asked_for_where_the_vn_says_so() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::VnSilent { vn: VN, flood_gap: Some(ms(100)) });
    let asked = [frames::arp_request(M1, v4(1), v4(77)), Nd::solicit(M1, v6(1), v6(77)).frame()];
    let until = lab.now + ms(5000);
    for (f, ip) in asked.iter().zip([v4(77).into(), v6(77).into()]) {
        lab.one(P1, f);
        assert!(lab.out.sent.is_empty(), "the directory first");
        lab.apply(Update::NeighborAbsent { vn: VN, ip, until });
        lab.tick();
        assert_eq!(lab.to(P2), [f.as_slice()], "the request that waited, as it was");
        assert_eq!(lab.to(UPLINK).iter().map(|p| open(p).1).collect::<Vec<_>>(), [f]);
        lab.clear();
        lab.wait(ms(100));
    }
    for _ in 0..20 {
        lab.one(P1, &asked[0]);
    }
    assert_eq!(lab.to(UPLINK).len(), 1, "ten a second");
    assert_eq!(lab.drops(DropReason::FloodLimit), 19);
    lab.clear();
    lab.wait(ms(100));
    lab.apply(Update::VnSilent { vn: VN, flood_gap: None });
    lab.one(P1, &asked[0]);
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.drops(DropReason::UnknownTarget), 1);
}

#[test]
fn r67_requests_that_wait_are_bounded() {
    let mut lab = Lab::new();
    for n in 0..20 {
        lab.one(P1, &frames::arp_request(M1, v4(1), v4(100 + n)));
    }
    assert_eq!((lab.tables.waiting(), lab.drops(DropReason::AskLimit)), (8, 12));
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(200)));
    assert_eq!(lab.tables.waiting(), 9);
}

#[test]
fn a_late_answer_finds_its_port_gone_or_no_buffer() {
    let mut lab = Lab::new();
    lab.one(P1, &frames::arp_request(M1, v4(1), v4(4)));
    lab.apply(Update::PortRemove { port: P1 });
    lab.neighbor(v4(4), R4);
    lab.tick();
    assert_eq!(lab.drops(DropReason::PortGone), 1);
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(5)));
    lab.pool = MemPool::of(0);
    lab.neighbor(v4(5), R6);
    lab.tick();
    assert_eq!((lab.drops(DropReason::NoBuffer), lab.tables.waiting()), (1, 0));
}

#[test]
fn r13_neighbors_of_another_vn_are_not_ours() {
    let mut lab = Lab::new();
    lab.apply(Update::NeighborSet { vn: OTHER_VN, ip: v4(4).into(), mac: R4, router: false });
    lab.one(P1, &frames::arp_request(M1, v4(1), v4(4)));
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.tables.waiting(), 1);
    lab.apply(Update::NeighborRemove { vn: OTHER_VN, ip: v4(4).into() });
    assert!(lab.tables.neighbors.is_empty());
}

#[test]
fn r13_a_full_neighbor_table_forgets_dead_negative_answers_only() {
    let mut lab = Lab::new();
    let until = lab.now + ms(1000);
    for n in 0..50 {
        lab.neighbor(v4(n), R4);
        lab.apply(Update::NeighborAbsent { vn: VN, ip: v6(n.into()).into(), until });
    }
    lab.neighbor(v4(99), R4);
    assert_eq!(lab.take_events(), [Event::TableFull { key: key(R4) }]);
    lab.wait(ms(1000));
    lab.neighbor(v4(99), R4);
    assert_eq!(lab.take_events(), []);
    assert_eq!(lab.tables.neighbors.len(), 51);
}
