//! Uplinks in a VLAN, and tags that only have a priority (R95).

use std::net::{IpAddr, Ipv4Addr};

use crate::common::*;
use godwit_pipeline::trace::{Ending, trace};
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Ck, Nd, Vxlan, tagged};
use godwit_wire::Mac;

const VLAN: u16 = 100;
const HOST: Mac = mac(0xcc00);
/// A priority and VLAN 0.
const PRIORITY: u16 = 0x6000;

fn to_m1(n: u32) -> Vec<u8> {
    numbered(R4, M1, n)
}

/// What other NVEs send, over both families, with and without a checksum.
fn packets(inner: &[u8]) -> Vec<Vec<u8>> {
    let of = |from: IpAddr, udp_checksum| Vxlan { udp_checksum, ..vxlan_from(from, vni()) }.frame(inner);
    let pair = |from: IpAddr| [of(from, Ck::Raw(0)), of(from, Ck::Good)];
    [pair(NVE_C.into()), pair(NVE_B6.into())].concat()
}

#[track_caller]
fn refused(lab: &mut Lab, frame: &[u8], reason: DropReason) {
    assert_eq!(trace(&lab.tables, UPLINK, frame, lab.now).verdict(), Ending::Drop(reason));
    dropped(lab, UPLINK, frame, reason);
}

#[test]
fn r95_a_priority_tag_is_as_good_as_none() {
    let mut lab = Lab::new();
    for (n, packet) in (0..).zip(packets(&to_m1(1))) {
        let packet = tagged(&packet, 0x8100, [0, PRIORITY, 0x7000, 0xf000][n % 4]);
        assert_eq!(trace(&lab.tables, UPLINK, &packet, lab.now).verdict(), Ending::Send { port: P1 });
        lab.one(UPLINK, &packet);
        assert_eq!(lab.only(), (P1, to_m1(1).as_slice()));
        lab.clear();
    }
    for (asks, answer) in [
        (frames::arp_request(HOST, NVE_B, LOC4), frames::arp_reply(UP_MAC, LOC4, HOST, NVE_B)),
        (
            frames::ping((HOST, NVE_B.into()), (UP_MAC, LOC4.into()), 7, b"there?"),
            frames::pong((UP_MAC, LOC4.into()), (HOST, NVE_B.into()), 7, b"there?"),
        ),
    ] {
        lab.one(UPLINK, &tagged(&asks, 0x8100, 0));
        assert_eq!(lab.only(), (UPLINK, answer.as_slice()), "untagged: the uplink is in no VLAN");
        lab.clear();
    }
    lab.one(UPLINK, &tagged(&Nd::solicit(HOST, v6(9), LOC6).frame(), 0x8100, 0));
    assert_eq!(lab.only().1[12..14], [0x86, 0xdd]);
    lab.clear();
    // A VLAN is no priority, and what has one is the host's.
    refused(&mut lab, &tagged(&packets(&to_m1(1))[0], 0x8100, 5), DropReason::NoExceptionPort);
    refused(&mut lab, &tagged(&packets(&to_m1(1))[0], 0x88a8, 0), DropReason::NoExceptionPort);
}

#[test]
fn r95_a_priority_tagged_packet_of_a_real_fabric() {
    let mac = |bytes: [u8; 6]| Mac(bytes);
    let (own, other) = (mac([0x9a, 0xbe, 0xeb, 0xda, 0xbd, 0xd8]), mac([2, 0x99, 0, 0, 0, 9]));
    let mut lab = Lab::new();
    let role = PortRole::Uplink {
        mac: own,
        v4: Some(LOC4),
        v6: None,
        link_v4: None,
        link_v6: None,
        v6_link_local: None,
        exception: None,
        vlan: None,
    };
    lab.apply(Update::PortSet { port: UPLINK, role });
    let packet = Vxlan::new((other, own), (NVE_C.into(), LOC4.into()), vni()).frame(&to_m1(3));
    let mut seen = vec![0x9a, 0xbe, 0xeb, 0xda, 0xbd, 0xd8, 0x02, 0x99, 0x00, 0x00, 0x00, 0x09];
    seen.extend([0x81, 0x00, 0x00, 0x00, 0x08, 0x00, 0x45]);
    seen.extend(&packet[15..]);
    lab.one(UPLINK, &seen);
    assert_eq!(lab.only(), (P1, to_m1(3).as_slice()));
}

#[test]
fn r10_r95_an_inner_priority_tag_goes_where_tags_are_stripped() {
    let mut lab = Lab::new();
    let inner = tagged(&to_m1(1), 0x8100, PRIORITY);
    for packet in packets(&inner) {
        assert_eq!(trace(&lab.tables, UPLINK, &packet, lab.now).verdict(), Ending::Send { port: P1 });
        lab.one(UPLINK, &packet);
        assert_eq!(lab.only(), (P1, to_m1(1).as_slice()));
        lab.clear();
    }
    let all = tagged(&frames::ethernet(Mac::BROADCAST, R4, 0x1234, b"hear"), 0x8100, 0);
    lab.one(UPLINK, &vxlan().frame(&all));
    assert!(lab.to(P1)[0][12..14] == [0x12, 0x34] && lab.to(P2).len() == 1);
    lab.clear();
    refused(&mut lab, &vxlan().frame(&tagged(&to_m1(1), 0x8100, 0x6005)), DropReason::InnerVlan);
    refused(&mut lab, &vxlan().frame(&tagged(&to_m1(1), 0x88a8, 0)), DropReason::InnerVlan);
    refused(&mut lab, &vxlan().frame(&tagged(&inner, 0x8100, 0)), DropReason::InnerVlan);
    // From a VM, the same tag goes like any other.
    lab.one(P1, &tagged(&numbered(M1, M2, 4), 0x8100, PRIORITY));
    assert_eq!(lab.only(), (P2, numbered(M1, M2, 4).as_slice()));
    lab.clear();
    lab.vn(VN, vni(), true);
    lab.one(UPLINK, &vxlan().frame(&inner));
    assert_eq!(lab.only(), (P1, inner.as_slice()), "a transparent VN carries what it gets");
}

#[test]
fn r95_what_an_uplink_in_a_vlan_sends_has_its_tag() {
    let mut lab = Lab::in_vlan(VLAN, None);
    for (to, remote) in [(R4, IpAddr::from(NVE_B)), (R6, NVE_B6.into())] {
        let inner = numbered(M1, to, 1);
        lab.one(P1, &inner);
        assert_eq!(lab.only(), (UPLINK, tagged(&golden(&inner, remote, 0), 0x8100, VLAN).as_slice()));
        lab.clear();
        // The tag takes nothing from the packets' room.
        let room = usize::from(MTU) - if remote.is_ipv4() { 36 } else { 56 };
        let full = frames::ethernet(to, M1, 0x1234, &vec![0; room - 14]);
        lab.one(P1, &full);
        assert_eq!(lab.only().1.len(), 18 + usize::from(MTU));
        lab.clear();
        dropped(&mut lab, P1, &frames::ethernet(to, M1, 0x1234, &vec![0; room - 13]), DropReason::TooBig);
    }
    // Broadcast takes the cold path.
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T6 });
    let all = frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"hear, hear");
    lab.one(P1, &all);
    let sent = lab.to(UPLINK)[0];
    assert_eq!((&sent[12..18], &sent[74..]), (&[0x81, 0, 0, 100, 0x86, 0xdd][..], all.as_slice()));
}

#[test]
fn r5_r6_r95_checksums_and_marks_behind_the_tag() {
    let mut config = config();
    (config.udp_checksum, config.copy_dscp) = (true, true);
    let mut lab = Lab::with(&config);
    let vlan = godwit_wire::VlanId::new(VLAN).unwrap();
    lab.set_uplink_in(None, Some(vlan));
    for (tunnel, to, remote) in [(T4, R4, IpAddr::from(NVE_B)), (T6, R6, NVE_B6.into())] {
        let header = outer_header(remote).in_vlan(vlan);
        lab.apply(Update::TunnelSet { tunnel, uplink: UPLINK, remote, mtu: MTU, header });
        let m = frames::udp(v4(1).into(), v4(2).into(), (1, 2), b"12345678", Ck::Good);
        let ip = frames::V4 { tos: 0xb8, ..frames::V4::new(v4(1), v4(2), 17) };
        lab.one(P1, &frames::ethernet(to, M1, 0x0800, &ip.packet(&m)));
        let (_, sent) = lab.only();
        assert_eq!(sent[12..16], [0x81, 0, 0, 100]);
        let mut bare = sent.to_vec();
        bare.drain(12..16);
        let (outer, _) = open(&bare);
        assert_eq!(outer.dscp.get(), 0xb8 >> 2);
        assert_eq!(outer.udp_checksum, godwit_wire::outer::UdpChecksum::Good);
        lab.clear();
    }
}

#[test]
fn r95_only_its_vlans_frames_are_the_uplinks() {
    for exception in [None, Some(EXCEPTION)] {
        let mut lab = Lab::in_vlan(VLAN, exception);
        for priority in [0, 0x6000, 0xf000] {
            for packet in packets(&to_m1(1)) {
                let packet = tagged(&packet, 0x8100, priority | VLAN);
                assert_eq!(trace(&lab.tables, UPLINK, &packet, lab.now).verdict(), Ending::Send { port: P1 });
                lab.one(UPLINK, &packet);
                assert_eq!(lab.only(), (P1, to_m1(1).as_slice()));
                lab.clear();
            }
        }
        let packet = &packets(&to_m1(1))[0];
        let arp = &frames::arp_request(HOST, NVE_B, LOC4);
        for f in [packet, arp] {
            refused(&mut lab, f, DropReason::OtherVlan);
            for id in [0, 1, 99, 101, 4095] {
                refused(&mut lab, &tagged(f, 0x8100, id), DropReason::OtherVlan);
            }
            refused(&mut lab, &tagged(f, 0x88a8, VLAN), DropReason::OtherVlan);
        }
        assert_eq!(lab.take_events(), [], "nothing is learned of other VLANs");
        // Two tags: the outer one is the uplink's, and nothing here is in the inner one.
        let twice = tagged(&tagged(packet, 0x8100, 7), 0x8100, VLAN);
        match exception {
            None => refused(&mut lab, &twice, DropReason::NoExceptionPort),
            Some(port) => {
                lab.one(UPLINK, &twice);
                assert_eq!(lab.only(), (port, tagged(packet, 0x8100, 7).as_slice()));
            }
        }
    }
}

#[test]
fn r95_locators_are_answered_for_in_their_vlan() {
    let mut lab = Lab::in_vlan(VLAN, None);
    for (asks, answer) in [
        (frames::arp_request(HOST, NVE_B, LOC4), frames::arp_reply(UP_MAC, LOC4, HOST, NVE_B)),
        (
            frames::ping((HOST, NVE_B.into()), (UP_MAC, LOC4.into()), 7, b"there?"),
            frames::pong((UP_MAC, LOC4.into()), (HOST, NVE_B.into()), 7, b"there?"),
        ),
        (
            frames::ping((HOST, NVE_B6.into()), (UP_MAC, LOC6.into()), 7, b"there?"),
            frames::pong((UP_MAC, LOC6.into()), (HOST, NVE_B6.into()), 7, b"there?"),
        ),
    ] {
        lab.one(UPLINK, &tagged(&asks, 0x8100, VLAN));
        assert_eq!(lab.only(), (UPLINK, tagged(&answer, 0x8100, VLAN).as_slice()));
        lab.clear();
    }
    lab.one(UPLINK, &tagged(&Nd::solicit(HOST, v6(9), LOC6).frame(), 0x8100, VLAN));
    let (port, sent) = lab.only();
    assert_eq!((port, &sent[12..18]), (UPLINK, &[0x81, 0, 0, 100, 0x86, 0xdd][..]));
    let neighbor = |e: &Event| matches!(e, Event::Neighbor { uplink: UPLINK, mac: HOST, .. });
    assert!(lab.take_events().iter().all(neighbor));
}

#[test]
fn r95_the_exception_port_is_in_the_vlan_and_knows_of_no_tag() {
    let mut lab = Lab::in_vlan(VLAN, Some(EXCEPTION));
    let bgp = frames::udp_frame((HOST, NVE_B.into(), 179), (UP_MAC, LOC4.into(), 40_000), b"hello");
    lab.one(UPLINK, &tagged(&bgp, 0x8100, VLAN));
    assert_eq!(lab.only(), (EXCEPTION, bgp.as_slice()));
    lab.clear();
    let answer = frames::udp_frame((UP_MAC, LOC4.into(), 40_000), (HOST, NVE_B.into(), 179), b"hello");
    lab.one(EXCEPTION, &answer);
    assert_eq!(lab.only(), (UPLINK, tagged(&answer, 0x8100, VLAN).as_slice()));
    lab.clear();
    dropped(&mut lab, EXCEPTION, &answer[..13], DropReason::Truncated);
    let from = (Ipv4Addr::LOCALHOST, NVE_B);
    lab.one(UPLINK, &tagged(&frames::arp_request(HOST, from.1, from.0), 0x8100, VLAN));
    assert_eq!(lab.only().0, EXCEPTION, "what is not for a locator is the host's");
}
