//! Packets that the gateway sends on: once, from where a VM sends them (R7, R8, R35, R58).

use crate::common::routing::*;
use crate::common::*;
use godwit_pipeline::mem::MemPacket;
use godwit_pipeline::packet::Asks;
use godwit_pipeline::trace::{Ending, trace};
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Ck, V4, V6};
use godwit_wire::{Mac, Prefix, Vni};
use std::net::{IpAddr, Ipv4Addr};

/// From P1's VM to the gateway's MAC.
fn sent(to: IpAddr, ttl: u8, payload: &[u8]) -> Vec<u8> {
    packet((M1, GW), (near(to.is_ipv6(), 1), to), ttl, payload)
}

/// The same as the target VM gets it.
fn got(mac: Mac, to: IpAddr, ttl: u8, payload: &[u8]) -> Vec<u8> {
    packet((GW, mac), (near(to.is_ipv6(), 1), to), ttl, payload)
}

#[test]
fn r7_r58_a_packet_is_routed_once_with_one_hop_less() {
    for six in [false, true] {
        let mut lab = Lab::routed(false);
        lab.one(P1, &sent(far(six, 1), 64, b"here"));
        assert_eq!(lab.only(), (P3, got(M1, far(six, 1), 63, b"here").as_slice()));
        lab.clear();
        for (n, mac, nve) in [(4, R4, IpAddr::from(NVE_B)), (6, R6, NVE_B6.into())] {
            lab.one(P1, &sent(far(six, n), 2, b"there"));
            let (port, frame) = lab.only();
            let (outer, inner) = open(frame);
            assert_eq!((port, outer.dst, outer.vni), (UPLINK, nve, other_vni()));
            assert_eq!(inner, got(mac, far(six, n), 1, b"there"));
            lab.clear();
        }
        assert_eq!(lab.tables.counters.worker.encapsulated, 2);
    }
}

/// What comes from the overlay was routed where it came from, and the bridge stays what it is.
#[test]
fn r7_bridged_frames_and_those_of_other_nves_keep_their_ttl() {
    for six in [false, true] {
        let mut lab = Lab::routed(false);
        let bridged = packet((M1, M2), (near(six, 1), near(six, 2)), 1, b"x");
        lab.one(P1, &bridged);
        assert_eq!(lab.only(), (P2, bridged.as_slice()));
        lab.clear();
        let routed = packet((GW, M1), (far(six, 4), near(six, 1)), 63, b"y");
        lab.one(UPLINK, &vxlan().frame(&routed));
        assert_eq!(lab.only(), (P1, routed.as_slice()));
    }
}

#[test]
fn r58_in_a_vn_that_is_routed_only_the_destination_mac_says_nothing() {
    for six in [false, true] {
        let mut lab = Lab::routed(true);
        // That of a neighbor, of a VM elsewhere, of nobody.
        for mac in [M2, R4, GW, STRANGER] {
            let frame = packet((M1, mac), (near(six, 1), near(six, 2)), 64, b"x");
            lab.one(P1, &frame);
            assert_eq!(lab.only(), (P2, got(M2, near(six, 2), 63, b"x").as_slice()));
            lab.clear();
        }
        let own = packet((M1, GW), (near(six, 1), near(six, 1)), 64, b"to itself");
        lab.one(P1, &own);
        assert_eq!(lab.only(), (P1, got(M1, near(six, 1), 63, b"to itself").as_slice()));
        lab.clear();
        let to_all = packet((M1, Mac::BROADCAST), (near(six, 1), near(six, 2)), 64, b"x");
        dropped(&mut lab, P1, &to_all, DropReason::NotBridged);
        // In a VN that is bridged as well, it says which way.
        lab.part_of(VN, VnRouting::new(DOMAIN, GW, false));
        let unknown = packet((M1, STRANGER), (near(six, 1), near(six, 2)), 64, b"x");
        lab.one(P1, &unknown);
        assert_eq!(lab.take_events(), [Event::MissMac { key: key(STRANGER), port: P1 }]);
    }
}

#[test]
fn r58_prefixes_lead_to_the_vm_that_routes_for_them() {
    let mut lab = Lab::routed(false);
    for (six, to) in [(false, "172.16.9.9"), (true, "fd16::9")] {
        let to: IpAddr = to.parse().unwrap();
        lab.one(P1, &sent(to, 64, b"x"));
        assert_eq!(lab.only(), (P2, got(M2, to, 63, b"x").as_slice()), "{six}");
        lab.clear();
    }
}

#[test]
fn r58_what_cannot_be_routed_is_counted_and_nobody_is_told() {
    let mut lab = Lab::routed(false);
    let to_gateway = |ethertype, packet: &[u8]| frames::ethernet(GW, M1, ethertype, packet);
    dropped(&mut lab, P1, &to_gateway(0x88cc, &[0; 46]), DropReason::NotRoutable);
    let (src, dst) = (v4(1), far4(1));
    let header = || V4::new(src, dst, 17);
    let v4_frame = |h: V4| to_gateway(0x0800, &h.packet(&[0; 40]));
    dropped(&mut lab, P1, &v4_frame(V4 { checksum: Ck::Bad, ..header() }), DropReason::NotRoutable);
    dropped(&mut lab, P1, &v4_frame(V4 { total_len: Some(2000), ..header() }), DropReason::NotRoutable);
    dropped(&mut lab, P1, &v4_frame(V4 { ttl: 0, ..header() }), DropReason::TtlExceeded);
    for martian in ["0.0.0.9", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.0.1"] {
        let martian: Ipv4Addr = martian.parse().unwrap();
        dropped(&mut lab, P1, &v4_frame(V4 { dst: martian, ..header() }), DropReason::RouteMartian);
        dropped(&mut lab, P1, &v4_frame(V4 { src: martian, ..header() }), DropReason::RouteMartian);
    }
    // A source route, an option longer than the header, one without a length.
    for options in [vec![131, 7, 4, 10, 0, 0, 9, 0], vec![137, 3, 4, 0], vec![7, 9, 4, 0], vec![1, 1, 1, 7]] {
        dropped(&mut lab, P1, &v4_frame(V4 { options, ..header() }), DropReason::RouteOptions);
    }
    let header = || V6::new(v6(1), far6(1), 17);
    let v6_frame = |h: V6| to_gateway(0x86dd, &h.packet(&[0; 40]));
    dropped(&mut lab, P1, &v6_frame(V6 { hop_limit: 0, ..header() }), DropReason::TtlExceeded);
    for martian in ["::", "::1", "fe80::9", "ff02::1", "::ffff:10.0.1.1"] {
        let martian = martian.parse().unwrap();
        dropped(&mut lab, P1, &v6_frame(V6 { dst: martian, ..header() }), DropReason::RouteMartian);
        dropped(&mut lab, P1, &v6_frame(V6 { src: martian, ..header() }), DropReason::RouteMartian);
    }
    // Hop-by-hop options that go beyond their header, or stand behind another; a routing header of type 0.
    for (next, extensions) in [
        (0, vec![17, 0, 5, 9, 0, 0, 0, 0]),
        (60, vec![0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]),
        (43, vec![17, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        let frame = v6_frame(V6 { next, extensions, ..header() });
        dropped(&mut lab, P1, &frame, DropReason::RouteOptions);
    }
    let cut_off = v6_frame(V6 { next: 0, extensions: vec![17, 9, 1, 4, 0, 0, 0, 0], ..header() });
    dropped(&mut lab, P1, &cut_off, DropReason::NotRoutable);
    assert_eq!(lab.tables.counters.worker.icmp_errors, 0);
}

/// The longest packet has 65,535 bytes (RFC 791 section 3.1): what ends beyond it is part of no packet, and cut it
/// would be a fragment with another offset.
#[test]
fn r8_r58_a_fragment_that_ends_beyond_the_longest_packet_is_not_routed() {
    let last = |offset: u16, options: &[u8], payload: &[u8]| {
        let v4 = V4 { frag: offset / 8, options: options.to_vec(), ..V4::new(v4(1), far4(1), 17) };
        frames::ethernet(GW, M1, 0x0800, &v4.packet(payload))
    };
    for len in [4, 8, 400] {
        for offset in [65_512, 65_520, 65_528] {
            let mut lab = Lab::routed(false);
            dropped(&mut lab, P1, &last(offset, &[], &vec![7; len]), DropReason::NotRoutable);
            assert_eq!(lab.tables.counters.worker.icmp_errors, 0);
        }
    }
    // The header counts as it is.
    let mut lab = Lab::routed(false);
    dropped(&mut lab, P1, &last(65_504, &[1; 8], &[7; 4]), DropReason::NotRoutable);
    for (offset, options, len) in [(65_512, vec![], 3), (65_504, vec![], 11), (65_504, vec![1; 8], 3)] {
        lab.one(P1, &last(offset, &options, &vec![7; len]));
        assert_eq!(lab.only().0, P3, "it ends with the longest packet");
        lab.clear();
    }
}

/// A tag is of a VLAN that no gateway is in.
#[test]
fn r58_tagged_frames_of_a_transparent_vn_are_not_routed() {
    let mut lab = Lab::routed(true);
    lab.vn(VN, vni(), true);
    let tagged = frames::tagged(&sent(far(false, 1), 64, b"x"), 0x8100, 5);
    dropped(&mut lab, P1, &tagged, DropReason::NotRoutable);
}

#[test]
fn r58_well_formed_options_are_carried_along() {
    let mut lab = Lab::routed(false);
    // Router alert and padding; a record route; an end of the list.
    for options in [vec![148, 4, 0, 0, 1, 1, 1, 0], vec![7, 7, 4, 0, 0, 0, 0, 0], vec![0, 9, 9, 9]] {
        let v4 = |ttl| V4 { ttl, options: options.clone(), ..V4::new(v4(1), far4(1), 17) }.packet(b"payload");
        lab.one(P1, &frames::ethernet(GW, M1, 0x0800, &v4(64)));
        assert_eq!(lab.only(), (P3, frames::ethernet(M1, GW, 0x0800, &v4(63)).as_slice()));
        lab.clear();
    }
    for (next, extensions) in [
        (0, vec![17, 0, 5, 2, 0, 0, 1, 0]),
        (43, vec![17, 0, 4, 0, 0, 0, 0, 0]),
        (44, frames::v6_fragment(17, 8, true, 7)),
    ] {
        let v6 = |hop_limit| {
            V6 { hop_limit, next, extensions: extensions.clone(), ..V6::new(v6(1), far6(1), 17) }
                .packet(b"payload")
        };
        lab.one(P1, &frames::ethernet(GW, M1, 0x86dd, &v6(64)));
        assert_eq!(lab.only(), (P3, frames::ethernet(M1, GW, 0x86dd, &v6(63)).as_slice()));
        lab.clear();
    }
}

#[test]
fn r7_r58_senders_are_told_by_the_gateway_of_their_vn() {
    for six in [false, true] {
        let nowhere: IpAddr = if six { "2001:db8::9" } else { "203.0.113.9" }.parse().unwrap();
        for (to, ttl, reason, kinds) in [
            (far(six, 1), 1, DropReason::TtlExceeded, ((11, 0), (3, 0))),
            (nowhere, 1, DropReason::TtlExceeded, ((11, 0), (3, 0))),
            (nowhere, 64, DropReason::NoRoute, ((3, 0), (1, 0))),
            (far(six, 77), 64, DropReason::HostUnreachable, ((3, 1), (1, 3))),
        ] {
            let mut lab = Lab::routed(false);
            let frame = sent(to, ttl, &[7; 700]);
            let t = trace(&lab.tables, P1, &frame, lab.now).to_string();
            assert!(t.contains("the sender is told from"), "{t}");
            lab.one(P1, &frame);
            let want = told(gw(six), kinds.0, kinds.1, 0, &frame);
            assert_eq!(lab.only(), (P1, want.as_slice()));
            assert_eq!(lab.drops(reason), 1);
            lab.clear();
            for _ in 0..200 {
                lab.one(P1, &frame);
            }
            assert_eq!(lab.out.sent.len(), 99, "100 in a second");
        }
    }
}

#[test]
fn r58_nobody_is_told_of_errors_and_later_fragments() {
    let mut lab = Lab::routed(false);
    let about = frames::icmpv4(3, 1, 0, &[0; 28], Ck::Good);
    let error = ip_packet((v4(1).into(), far4(77).into()), 1, 64, &about);
    let later = V4 { frag: 5, ..V4::new(v4(1), far4(77), 17) }.packet(&[0; 40]);
    for packet in [error, later] {
        dropped(&mut lab, P1, &frames::ethernet(GW, M1, 0x0800, &packet), DropReason::HostUnreachable);
    }
    let body = [vec![0; 4], vec![0; 40]].concat();
    let error = frames::icmpv6(v6(1), far6(77), 1, 3, &body, Ck::Good);
    let error = ip_packet((v6(1).into(), far6(77).into()), 58, 64, &error);
    dropped(&mut lab, P1, &frames::ethernet(GW, M1, 0x86dd, &error), DropReason::HostUnreachable);
}

#[test]
fn r35_r58_packets_wait_for_a_route_and_go_in_their_order() {
    for six in [false, true] {
        let mut lab = Lab::routed(false);
        lab.pull();
        let to = far(six, 50);
        let frames: Vec<Vec<u8>> = (0..5).map(|n| sent(to, 64, &[n; 40])).collect();
        assert_eq!(trace(&lab.tables, P1, &frames[0], lab.now).verdict(), Ending::Miss);
        lab.input(P1, &frames);
        assert_eq!(trace(&lab.tables, P1, &frames[0], lab.now).verdict(), Ending::Held);
        assert_eq!(lab.take_events(), [Event::MissIp { vn: OTHER_VN, ip: to, port: P1 }], "asked once");
        assert_eq!(lab.tables.waiting(), 5);
        lab.own_route(to, Key::new(OTHER_VN, M1));
        // A newer one does not overtake them.
        lab.one(P1, &sent(to, 64, &[5; 40]));
        let want: Vec<Vec<u8>> = (0..6).map(|n| got(M1, to, 63, &[n; 40])).collect();
        assert_eq!(lab.to(P3), want);
        assert_eq!(lab.tables.waiting(), 0);
    }
}

#[test]
fn r35_an_address_that_nobody_has_is_unreachable() {
    for six in [false, true] {
        let mut lab = Lab::routed(false);
        lab.pull();
        let to = far(six, 50);
        let frame = sent(to, 64, b"x");
        let want = told(gw(six), (3, 1), (1, 3), 0, &frame);
        lab.one(P1, &frame);
        assert!(lab.out.sent.is_empty());
        let until = lab.now + ms(1000);
        lab.apply(Update::NeighborAbsent { vn: OTHER_VN, ip: to, until });
        lab.settle();
        assert_eq!(lab.only(), (P1, want.as_slice()));
        lab.clear();
        // Nobody is asked again as long as the answer lives.
        lab.one(P1, &frame);
        assert_eq!(lab.only(), (P1, want.as_slice()));
        assert_eq!(lab.drops(DropReason::HostUnreachable), 2);
        lab.clear();
        lab.wait(ms(1001));
        lab.one(P1, &frame);
        assert_eq!(lab.take_events(), [Event::MissIp { vn: OTHER_VN, ip: to, port: P1 }]);
        // No answer at all.
        lab.wait(ms(600));
        lab.settle();
        assert_eq!(lab.only(), (P1, want.as_slice()));
        assert_eq!(lab.drops(DropReason::HoldExpired), 1);
        assert_eq!(lab.tables.waiting(), 0);
    }
}

#[test]
fn r35_what_waits_for_a_route_is_bounded() {
    let mut lab = Lab::routed(false);
    lab.pull();
    let limit = config().miss_hold_packets;
    for n in 0..limit + 3 {
        lab.one(P1, &sent(far(false, 50), 64, &n.to_be_bytes()));
    }
    assert_eq!(lab.tables.waiting(), u64::from(limit));
    assert_eq!(lab.drops(DropReason::HoldOverflow), 3);
    for n in 0..u64::from(config().misses_per_port) {
        lab.one(P1, &sent(far(false, 100 + n as u8), 64, b"x"));
    }
    assert_eq!(lab.drops(DropReason::MissLimit), 1);
    // A port that is gone takes its packets along, whatever becomes of the route.
    lab.apply(Update::PortRemove { port: P1 });
    lab.wait(ms(600));
    lab.settle();
    assert_eq!(lab.tables.waiting(), 0);
    assert_eq!(lab.take_events().len(), 16);
}

/// A VM that the route names and nobody knows is asked for, and its frames wait as others do.
#[test]
fn r58_a_routed_frame_is_one_as_any_other_for_its_vm() {
    for six in [false, true] {
        let mut lab = Lab::routed(false);
        let stranger = Key::new(OTHER_VN, STRANGER);
        lab.one(P1, &sent(far(six, 9), 64, b"x"));
        assert_eq!(lab.take_events(), [Event::MissMac { key: stranger, port: P1 }]);
        let to = Target { tunnel: T4, vni: other_vni() };
        lab.apply(Update::VmSet { key: stranger, state: VmState::Remote { to } });
        lab.settle();
        assert_eq!(open(lab.only().1).1, got(STRANGER, far(six, 9), 63, b"x"));
        lab.clear();
        lab.apply(Update::VmSet { key: stranger, state: VmState::Paused { hold: limits(5, 100) } });
        lab.one(P1, &sent(far(six, 9), 64, b"y"));
        lab.apply(Update::VmSet { key: stranger, state: VmState::Local { port: P3 } });
        lab.settle();
        assert_eq!(lab.only(), (P3, got(STRANGER, far(six, 9), 63, b"y").as_slice()));
    }
}

#[test]
fn r11_r58_large_tcp_frames_are_cut_first_and_each_packet_loses_one_hop() {
    for six in [false, true] {
        for n in [1, 4] {
            let mut lab = Lab::routed(false);
            let payload: Vec<u8> = (0..5000).map(|i| (i * 7 + i / 251) as u8).collect();
            let (src, dst) = (near(six, 1), far(six, n));
            let frame = frames::tcp_frame((M1, src, 1000), (GW, dst, 80), (7, 7), 0x10, &payload);
            let asks = Asks { checksum: true, segment: 1400 };
            let mut unfinished = frame;
            let at = if six { 54 + 16 } else { 34 + 16 };
            unfinished[at..at + 2].copy_from_slice(&[0xab, 0xcd]);
            lab.input_packets(P1, vec![MemPacket::new(&unfinished).in_pieces(3000).asking(asks)]);
            let port = if n == 1 { P3 } else { UPLINK };
            let inner: Vec<&[u8]> = lab.to(port).iter().map(|f| if n == 1 { f } else { open(f).1 }).collect();
            assert_eq!(inner.len(), 4);
            let mut all: Vec<u8> = Vec::new();
            for f in &inner {
                let l4 = if six { 54 } else { 34 };
                assert_eq!(f[if six { 21 } else { 22 }], 63);
                assert_eq!(frames::upper_checksum(src, dst, 6, &f[l4..]), 0, "TCP sums up");
                assert!(six || frames::checksum(&f[14..34]) == 0);
                all.extend_from_slice(&f[l4 + 20..]);
            }
            assert_eq!(all, payload);
        }
    }
}

/// Rate, policy and sources are looked at before, whoever gets the packet.
#[test]
fn r23_r65_what_may_not_leave_is_not_routed() {
    let mut lab = Lab::routed(false);
    lab.apply(Update::SourceSet { port: P1, ip: v4(1).into() });
    let spoofed = packet((M1, GW), (v4(2).into(), far4(1).into()), 64, b"x");
    dropped(&mut lab, P1, &spoofed, DropReason::SpoofedSource);
    let rate = godwit_wire::Rate::UNLIMITED;
    let default = godwit_wire::policy::Verdict::Deny;
    lab.apply(Update::PolicySet { port: P3, rules: 0, default, rate, dscp: None });
    dropped(&mut lab, P1, &sent(far(false, 1), 64, b"x"), DropReason::PolicyDenied);
    lab.apply(Update::PolicySet { port: P1, rules: 0, default, rate, dscp: None });
    dropped(&mut lab, P1, &sent(far(false, 4), 64, b"x"), DropReason::PolicyDenied);
}

#[test]
fn r58_no_packet_leaves_its_domain() {
    let mut lab = Lab::routed(false);
    let other = DomainIdx(5);
    lab.apply(Update::VnRoutingSet { vn: VN, routing: Some(VnRouting::new(other, GW, false)) });
    lab.one(P1, &sent(far(false, 1), 64, b"x"));
    assert_eq!(lab.drops(DropReason::NoRoute), 1);
    assert!(lab.to(P3).is_empty());
    // The same address in both.
    lab.clear();
    lab.apply(Update::RouteSet {
        domain: other,
        prefix: Prefix::host(far(false, 1)),
        to: NextHop::Vm(key(M2)),
    });
    lab.one(P1, &sent(far(false, 1), 64, b"x"));
    assert_eq!(lab.only(), (P2, got(M2, far(false, 1), 63, b"x").as_slice()));
    lab.clear();
    // Without routing the gateway's MAC is nobody's.
    lab.apply(Update::VnRoutingSet { vn: VN, routing: None });
    lab.one(P1, &sent(far(false, 1), 64, b"x"));
    assert_eq!(lab.take_events(), [Event::MissMac { key: key(GW), port: P1 }]);
}

#[test]
fn r58_the_overlay_brings_nothing_to_route() {
    let mut lab = Lab::routed(false);
    for six in [false, true] {
        let frame = packet((R4, GW), (far(six, 4), near(six, 1)), 64, b"x");
        dropped(&mut lab, UPLINK, &vxlan().frame(&frame), DropReason::OverlayToGateway);
    }
    let none = Vni::from_low24(7);
    assert!(lab.tables.vns.by_vni(none).is_none());
}

#[test]
fn r58_a_trace_shows_the_route() {
    let lab = Lab::routed(false);
    let t = trace(&lab.tables, P1, &sent(far(false, 4), 64, b"x"), lab.now).to_string();
    let want = "\
port 1: VM 02:00:00:00:00:01 of VN 1, Activated
frame: from 02:00:00:00:00:01 to 02:00:00:00:67:77, type 0x0800
VN 1: VNI 1
source 02:00:00:00:00:01 is the port's VM
route to 10.0.1.4: VM 02:00:00:00:00:04 of VN 2
routed: from 02:00:00:00:67:77 to 02:00:00:00:00:04, TTL 63
destination 02:00:00:00:00:04 in VN 2: Remote { to: tunnel 0 with vni 16777215 }
tunnel 0: to NVE 198.18.0.2, MTU 1600, by port 0 to the next hop 02:00:00:00:bb:00
=> goes to NVE 198.18.0.2
";
    assert_eq!(t, want);
    let t = trace(&lab.tables, P1, &sent(far(false, 77), 64, b"x"), lab.now).to_string();
    assert!(t.contains("route to 10.0.1.77: a subnet of VN 2, and no VM has the address\n"), "{t}");
    assert!(t.contains("the sender is told from 10.0.0.254: host unreachable\n"), "{t}");
}
