//! Acceptance tests of the requirement catalogue that need more than one state of a VM, with its numbers.

use std::net::IpAddr;

use crate::common::*;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_tables::{DropReason, TablesConfig};
use godwit_testkit::frames;
use godwit_wire::Mac;
use godwit_wire::outer::OuterHeader;

const HOLD: HoldLimits = HoldLimits { packets: 8192, age: godwit_wire::Span::from_ms(2000) };

/// A UDP packet of `len` bytes from M1 to R4 that must not be fragmented.
fn unfragmentable(len: usize) -> Vec<u8> {
    let ip = frames::V4 { frag: 0x4000, ..frames::V4::new(v4(1), v4(2), 17) };
    frames::ethernet(R4, M1, 0x0800, &ip.packet(&vec![0; len - 20]))
}

/// The MTU of the IPv4 error that M1 was sent, if it was sent one.
fn told_mtu(lab: &Lab) -> Option<u16> {
    let error = *lab.to(P1).first()?;
    assert_eq!((error[34], error[35]), (3, 4), "fragmentation needed");
    Some(u16::from_be_bytes([error[40], error[41]]))
}

#[test]
fn r8_an_underlay_of_1550_carries_1500_and_20_less_after_a_move_to_an_ipv6_locator() {
    let mut lab = Lab::new();
    let (v4_way, v6_way) = (NVE_B.into(), IpAddr::from(NVE_B6));
    for (tunnel, remote) in [(T4, v4_way), (T6, v6_way)] {
        let header = match remote {
            IpAddr::V4(r) => OuterHeader::v4(UP_MAC, HOP_MAC, LOC4, r, 4789, 64),
            IpAddr::V6(r) => OuterHeader::v6(UP_MAC, HOP_MAC, LOC6, r, 4789, 64),
        };
        lab.apply(Update::TunnelSet { tunnel, uplink: UPLINK, remote, mtu: 1550, header });
    }
    lab.one(P1, &unfragmentable(1500));
    assert_eq!((lab.to(UPLINK).len(), told_mtu(&lab)), (1, None));
    lab.clear();
    lab.one(P1, &unfragmentable(1501));
    assert_eq!((lab.to(UPLINK).len(), told_mtu(&lab)), (0, Some(1500)));
    lab.clear();
    lab.vm(R4, VmState::Remote { to: through(T6) });
    lab.one(P1, &unfragmentable(1500));
    assert_eq!((lab.to(UPLINK).len(), told_mtu(&lab)), (0, Some(1480)));
    lab.clear();
    lab.one(P1, &unfragmentable(1480));
    assert_eq!((lab.to(UPLINK).len(), told_mtu(&lab)), (1, None));
}

#[test]
fn r10_tags_from_the_overlay_are_dropped_by_default_and_kept_in_a_transparent_vn() {
    let mut lab = Lab::new();
    let tagged = frames::tagged(&numbered(R4, M1, 1), 0x8100, 0x6005);
    lab.one(UPLINK, &vxlan().frame(&tagged));
    assert!(lab.out.sent.is_empty());
    lab.vn(VN, vni(), true);
    lab.one(UPLINK, &vxlan().frame(&tagged));
    assert_eq!(lab.only(), (P1, tagged.as_slice()));
}

#[test]
fn r10_half_a_tag_is_dropped_in_transparent_vns_too() {
    let mut lab = Lab::new();
    lab.vn(VN, vni(), true);
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    for group in [false, true] {
        let to = |single: Mac| if group { Mac::BROADCAST } else { single };
        let [out, back] = [(M1, to(R4)), (R4, to(M1))].map(|(from, to)| {
            let one = frames::tagged(&frames::ethernet(to, from, 0x1234, &[]), 0x8100, 7);
            (frames::tagged(&one, 0x88a8, 9), one)
        });
        // 14 to 17 bytes of a frame with one tag, to 21 of one with two.
        let cut = |f: &(Vec<u8>, Vec<u8>)| -> Vec<Vec<u8>> {
            let whole = (14..18).map(|n| f.1[..n].to_vec());
            whole.chain((14..22).map(|n| f.0[..n].to_vec())).collect()
        };
        for half in cut(&out) {
            dropped(&mut lab, P1, &half, DropReason::Truncated);
        }
        for half in cut(&back) {
            dropped(&mut lab, UPLINK, &vxlan().frame(&half), DropReason::InnerTruncated);
        }
        for whole in [&out.0, &out.1] {
            lab.one(P1, whole);
            assert_eq!(open(lab.to(UPLINK)[0]).1, whole);
            lab.clear();
        }
        for whole in [&back.0, &back.1] {
            lab.one(UPLINK, &vxlan().frame(whole));
            assert_eq!(lab.to(P1), [&whole[..]]);
            lab.clear();
        }
    }
}

#[test]
fn r15_an_associated_vm_is_neither_answered_nor_delivered_to_and_an_activated_one_is_both() {
    let mut lab = Lab::new();
    let asked = frames::padded(frames::arp_request(M1, v4(1), v4(4)), 60);
    lab.neighbor(v4(4), R4);
    lab.access(P1, VN, M1, Admission::Associated);
    lab.vm(M1, VmState::Expected { via: None, hold: HOLD });
    lab.one(P1, &asked);
    lab.one(UPLINK, &vxlan().frame(&numbered(R4, M1, 1)));
    lab.settle();
    assert!(lab.out.sent.is_empty(), "no answer, no delivery");
    lab.access(P1, VN, M1, Admission::Activated);
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    lab.one(P1, &asked);
    let to_vm = lab.to(P1);
    assert!(to_vm.iter().any(|f| f[12..14] == [8, 6]), "the answer");
    assert!(to_vm.iter().any(|f| f[12..14] == [8, 0]), "what waited");
}

#[test]
fn r44_inner_and_outer_families_in_all_combinations_byte_by_byte() {
    for from in [IpAddr::V4(NVE_C), IpAddr::V6(NVE_B6)] {
        for (tunnel, remote) in [(T4, IpAddr::V4(NVE_B)), (T6, IpAddr::V6(NVE_B6))] {
            for v6_inside in [false, true] {
                let mut lab = Lab::new();
                let ip = |n: u8| if v6_inside { v6(n.into()).into() } else { IpAddr::V4(v4(n)) };
                let inner = frames::udp_frame((R4, ip(4), 7), (M1, ip(1), 8), &[0x5a; 333]);
                lab.vm(M1, VmState::Departed { to: through(tunnel), until: lab.now + ms(60_000) });
                lab.one(UPLINK, &vxlan_from(from, vni()).frame(&inner));
                let (outer, got) = open(lab.only().1);
                assert_eq!((outer.dst, outer.ttl), (remote, 48));
                assert_eq!(got, inner, "{from} to {remote}");
            }
        }
    }
}

#[test]
fn r45_a_blackout_of_a_second_at_300_packets_a_second_loses_and_reorders_nothing() {
    for aborted in [false, true] {
        let mut lab = Lab::new();
        lab.vm(M1, VmState::Paused { hold: HOLD });
        for n in 0..300 {
            lab.one(UPLINK, &vxlan().frame(&numbered(R4, M1, n)));
            lab.wait(godwit_wire::Span::from_us(3333));
            lab.tick();
        }
        assert!(lab.out.sent.is_empty());
        if aborted {
            lab.vm(M1, VmState::Local { port: P1 });
        } else {
            lab.vm(M1, VmState::Departed { to: through(T4), until: lab.now + ms(60_000) });
        }
        lab.settle();
        let out = lab.to(if aborted { P1 } else { UPLINK });
        assert_eq!(numbers(&out), (0..300).collect::<Vec<_>>());
        assert_eq!((lab.tables.counters.total().dropped(), lab.tables.waiting()), (0, 0));
    }
}

#[test]
fn r45_full_holds_do_not_starve_reception() {
    // Held frames lie in memory of their own: however many wait, no packet buffer is kept.
    let mut lab = Lab::with(&TablesConfig { hold_bytes: 64 << 10, ..config() });
    lab.vm(M1, VmState::Paused { hold: HOLD });
    for n in 0..1000 {
        lab.one(UPLINK, &vxlan().frame(&numbered(R4, M1, n)));
        assert_eq!(lab.out.discarded as u32, n + 1, "its buffer is free again at once");
    }
    assert!(lab.drops(DropReason::HoldMemory) > 0, "the memory is full");
    lab.one(P1, &numbered(M1, M2, 7));
    assert_eq!(numbers(&lab.to(P2)), [7], "and everybody else goes on");
}

#[test]
fn r41_nothing_of_a_stale_vm_leaves_and_its_neighbors_reach_it_at_its_new_nve() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Closed);
    lab.vm(M1, VmState::Departed { to: through(T4), until: lab.now + ms(60_000) });
    for frame in [numbered(M1, M2, 1), numbered(M1, R4, 2), frames::garp(M1, v4(1))] {
        dropped(&mut lab, P1, &frame, DropReason::PortClosed);
    }
    assert_eq!(lab.take_events(), [], "not even its announcement counts");
    lab.one(P2, &numbered(M2, M1, 3));
    let (port, frame) = lab.only();
    let (outer, inner) = open(frame);
    assert_eq!((port, outer.dst, outer.ttl), (UPLINK, NVE_B.into(), 64));
    assert_eq!(number(inner), 3);
}

#[test]
fn r34_ten_thousand_frames_a_second_to_one_unknown_are_one_question() {
    let mut lab = Lab::new();
    for n in 0..4_990 {
        lab.one(P1, &numbered(M1, STRANGER, n));
        lab.wait(godwit_wire::Span::from_us(100));
        lab.tick();
    }
    assert_eq!(lab.take_events(), [Event::MissMac { key: key(STRANGER), port: P1 }], "until it is given up");
    assert_eq!(lab.drops(DropReason::HoldOverflow), 4_990 - 16);
}

#[test]
fn r35_a_full_memory_drops_what_arrives_and_asks_all_the_same() {
    let mut lab = Lab::with(&TablesConfig { hold_bytes: 8192, ..config() });
    for n in 0..16 {
        lab.one(P1, &numbered(M1, mac(0x1000 + n), 1));
        lab.one(P1, &numbered(M1, mac(0x1000 + n), 2));
    }
    assert!(lab.drops(DropReason::HoldMemory) > 0);
    let asked = lab.take_events();
    assert_eq!(asked.len(), 16, "{asked:?}");
}

#[test]
fn r42_without_an_answer_packets_go_at_hold_age_and_nothing_stays() {
    let mut lab = Lab::new();
    let before = lab.tables.vms.specials();
    for n in 0..5 {
        lab.one(P1, &numbered(M1, STRANGER, n));
    }
    assert_eq!(lab.tables.waiting(), 5);
    lab.wait(ms(499));
    lab.tick();
    assert_eq!(lab.tables.waiting(), 5);
    lab.wait(ms(1));
    lab.tick();
    assert_eq!((lab.tables.waiting(), lab.drops(DropReason::HoldExpired)), (0, 5));
    assert_eq!(lab.tables.vms.specials(), before, "no entry is left behind");
    assert!(lab.out.sent.is_empty(), "nothing goes round");
}

#[test]
fn r24_a_gratuitous_arp_makes_no_underlay_copy() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    for frame in [frames::garp(M1, v4(1)), garp_reply(M1, v4(1))] {
        lab.one(P1, &frame);
        assert!(lab.out.sent.is_empty(), "neither to the underlay nor to local ports");
        assert_eq!(lab.take_events().len(), 1, "one word to control");
        lab.clear();
    }
}

fn garp_reply(mac: Mac, ip: std::net::Ipv4Addr) -> Vec<u8> {
    let mut f = frames::garp(mac, ip);
    f[21] = 2;
    f
}
