//! Packets in flight to a VM that has left: forwarded by its old NVE, unchanged inside, and never in circles.

use crate::common::moves::*;
use crate::common::*;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::Vxlan;
use godwit_wire::Span;
use std::net::IpAddr;

#[test]
fn r44_the_inner_frame_is_bit_identical_and_the_entropy_stays() {
    let mut lab = Lab::new();
    lab.departed(T6);
    let inner = numbered(R4, M1, 5);
    lab.one(UPLINK, &vxlan().frame(&inner));
    let (outer, got) = open(lab.only().1);
    assert_eq!(got, inner);
    assert_eq!(outer.dst, IpAddr::V6(NVE_B6));
    lab.clear();
    lab.vm(R4, VmState::Local { port: P2 });
    lab.access(P2, VN, R4, Admission::Activated);
    lab.one(P2, &inner);
    assert_eq!(open(lab.only().1).0.src_port, outer.src_port, "R2: the same port as the sender's own");
}

#[test]
fn r7_the_inner_ttl_is_nobodys_to_change() {
    let ttl_at = |f: &[u8]| open(f).1[22];
    let mut lab = Lab::new();
    let from_local = numbered(M1, R4, 1);
    assert_eq!(from_local[22], 64);
    lab.one(P1, &from_local);
    assert_eq!(ttl_at(lab.only().1), 64, "towards another NVE");
    lab.clear();
    lab.one(UPLINK, &vxlan().frame(&numbered(R4, M1, 2)));
    assert_eq!(lab.only().1[22], 64, "from another NVE");
    // Held while its VM moves, then forwarded in flight: the outer TTL pays (R46d).
    lab.clear();
    lab.vm(M1, paused());
    lab.one(UPLINK, &vxlan().frame(&numbered(R4, M1, 3)));
    lab.departed(T4);
    lab.one(UPLINK, &vxlan().frame(&numbered(R4, M1, 4)));
    lab.settle();
    let sent = lab.to(UPLINK);
    assert_eq!(sent.len(), 2);
    for f in sent {
        assert_eq!((open(f).0.ttl, ttl_at(f)), (48, 64));
    }
}

#[test]
fn r6_a_congestion_mark_survives_forwarding() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    let mut ip = godwit_testkit::frames::V4::new(v4(1), v4(2), 17);
    ip.tos = 2;
    let f = godwit_testkit::frames::ethernet(M1, R4, 0x0800, &ip.packet(b"12345678"));
    lab.one(UPLINK, &Vxlan { tos: 3, ..vxlan() }.frame(&f));
    lab.departed(T4);
    lab.one(UPLINK, &Vxlan { tos: 3, ..vxlan() }.frame(&f));
    lab.settle();
    for f in lab.to(UPLINK) {
        let (outer, inner) = open(f);
        assert_eq!((outer.ecn.bits(), inner[15] & 3), (3, 3));
    }
    assert_eq!(lab.to(UPLINK).len(), 2);
}

#[test]
fn r43_the_forward_entry_dies_with_its_timer() {
    let mut lab = Lab::new();
    lab.departed(T4);
    lab.one(UPLINK, &overlay(0));
    lab.wait(ms(59_999));
    lab.tick();
    lab.one(UPLINK, &overlay(1));
    assert_eq!(numbers(&lab.to(UPLINK)), [0, 1]);
    lab.wait(ms(1));
    lab.tick();
    lab.clear();
    dropped(&mut lab, UPLINK, &overlay(2), DropReason::NotLocal);
    assert_eq!(lab.take_events(), [], "its sender was reported a millisecond ago");
    lab.one(P2, &local(3));
    assert_eq!(numbers(&lab.to(UPLINK)), [3], "our own still reach it");
    assert_eq!(lab.tables.vms.specials(), 0);
}

#[test]
fn r43_retargeted_and_extended() {
    let mut lab = Lab::new();
    lab.departed(T4);
    lab.one(UPLINK, &overlay(0));
    lab.wait(ms(30_000));
    lab.departed(T6);
    lab.one(UPLINK, &overlay(1));
    lab.wait(ms(59_000));
    lab.tick();
    lab.one(UPLINK, &overlay(2));
    let to: Vec<IpAddr> = lab.to(UPLINK).iter().map(|f| open(f).0.dst).collect();
    assert_eq!(to, [NVE_B.into(), IpAddr::from(NVE_B6), NVE_B6.into()], "straight to the newest");
    lab.wait(ms(5));
    lab.tick();
    assert_eq!(lab.report().forwarded, 3, "counts go on");
}

#[test]
fn r41_what_is_still_on_its_way_to_the_old_port_goes_along() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Closed);
    lab.departed(T4);
    dropped(&mut lab, P1, &numbered(M1, M2, 1), DropReason::PortClosed);
    lab.one(P2, &local(2));
    assert_eq!((numbers(&lab.to(UPLINK)), lab.ttls()), (vec![2], vec![64]));
    assert_eq!(lab.tables.counters.worker.forwarded_in_flight, 0, "our own is no packet in flight");
}

#[test]
fn r46d_outer_ttl() {
    let mut lab = Lab::new();
    lab.departed(T4);
    for (received, sent) in [(255, Some(48)), (64, Some(48)), (48, Some(32)), (32, Some(16)), (31, None)] {
        let f = Vxlan { ttl: received, ..vxlan() }.frame(&numbered(R4, M1, 1));
        match sent {
            None => dropped(&mut lab, UPLINK, &f, DropReason::TtlExhausted),
            Some(ttl) => {
                lab.one(UPLINK, &f);
                assert_eq!(lab.ttls(), [ttl]);
                lab.clear();
            }
        }
    }
    // A hold remembers what the frame came with.
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    for ttl in [48, 20] {
        lab.one(UPLINK, &Vxlan { ttl, ..vxlan() }.frame(&numbered(R4, M1, 1)));
    }
    lab.departed(T4);
    lab.settle();
    assert_eq!((lab.ttls(), lab.drops(DropReason::TtlExhausted)), (vec![32], 1));
}

#[test]
fn r46_a_ring_of_stale_forward_entries_ends() {
    // Three NVEs, each of which believes that M1 went on to the next one.
    let mut ring: Vec<Lab> = (0..3).map(|_| Lab::new()).collect();
    ring.iter_mut().for_each(|nve| nve.departed(T4));
    let mut frame = overlay(1);
    let mut journeys = 0;
    loop {
        let nve = &mut ring[journeys % 3];
        nve.one(UPLINK, &frame);
        if nve.out.sent.is_empty() {
            assert_eq!(nve.drops(DropReason::TtlExhausted), 1);
            let news = Event::TtlExhausted { key: key(M1), sender: NVE_C.into(), to: NVE_B.into() };
            assert!(nve.take_events().contains(&news), "both of its neighbors in the ring are named");
            nve.one(UPLINK, &frame);
            assert!(!nve.take_events().contains(&news), "once a second");
            nve.wait(ms(1000));
            nve.one(UPLINK, &frame);
            assert!(nve.take_events().contains(&news));
            break;
        }
        // The underlay carries it to the next NVE, which has the same addresses in this lab.
        let (outer, inner) = open(nve.only().1);
        frame = Vxlan { ttl: outer.ttl, ..vxlan_from(NVE_C.into(), vni()) }.frame(inner);
        nve.clear();
        journeys += 1;
        assert!(journeys <= 3, "re-encapsulated at most three times");
    }
    assert_eq!(journeys, 3);
}

#[test]
fn r46c_the_vm_returns() {
    let mut lab = Lab::new();
    lab.departed(T4);
    lab.one(UPLINK, &overlay(0));
    lab.vm(M1, expected(Some(T4)));
    lab.one(UPLINK, &overlay(1));
    lab.vm(M1, VmState::Local { port: P1 });
    lab.one(UPLINK, &overlay(2));
    lab.settle();
    assert_eq!((numbers(&lab.to(UPLINK)), numbers(&lab.to(P1))), (vec![0], vec![1, 2]));
}

#[test]
fn r47_stale_senders_are_reported_now_and_then() {
    let mut lab = Lab::new();
    lab.departed(T4);
    let stale = |sender: IpAddr| Event::StaleSender { key: key(M1), sender };
    for _ in 0..5 {
        lab.one(UPLINK, &overlay(1));
        lab.one(UPLINK, &vxlan_from(NVE_B6.into(), vni()).frame(&numbered(R4, M1, 1)));
    }
    assert_eq!(lab.take_events(), [stale(NVE_C.into()), stale(NVE_B6.into())]);
    lab.wait(ms(100));
    lab.one(UPLINK, &overlay(1));
    assert_eq!(lab.take_events(), [stale(NVE_C.into())]);
    // Held ones tell of their senders when they go.
    lab.wait(ms(100));
    lab.vm(M1, paused());
    lab.one(UPLINK, &overlay(1));
    lab.departed(T4);
    lab.settle();
    assert!(lab.take_events().contains(&stale(NVE_C.into())));
}

#[test]
fn r47_100_000_packets_a_second_are_ten_reports() {
    let mut lab = Lab::new();
    lab.departed(T4);
    let (mut reports, mut forwarded) = (0, Vec::new());
    // Fifty frames each half millisecond.
    for burst in 0..2_000 {
        lab.input(UPLINK, &(burst * 50..burst * 50 + 50).map(overlay).collect::<Vec<_>>());
        lab.tick();
        forwarded.extend(numbers(&lab.to(UPLINK)));
        let events = lab.take_events();
        reports += events.iter().filter(|e| matches!(e, Event::StaleSender { .. })).count();
        lab.clear();
        lab.wait(Span::from_us(500));
    }
    assert_eq!(reports, 10, "one each `redirect_ms`");
    assert_eq!(forwarded, (0..100_000).collect::<Vec<_>>(), "and each frame goes on, in order");
    assert_eq!(lab.tables.counters.total().dropped(), 0);
}

#[test]
fn a_departed_vms_tunnel_may_not_be_ready() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    lab.input(UPLINK, &(0..20).map(overlay).collect::<Vec<_>>());
    lab.departed(PENDING);
    lab.one(UPLINK, &overlay(20));
    lab.settle();
    assert!(lab.out.sent.is_empty());
    lab.tunnel(PENDING, NVE_C.into());
    lab.one(UPLINK, &overlay(21));
    lab.settle();
    assert_eq!(numbers(&lab.to(UPLINK)), (0..=21).collect::<Vec<_>>());
}
