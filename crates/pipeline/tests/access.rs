//! Frames from VMs: encapsulation, local delivery, port admission, tags, misses.

use crate::common::*;
use godwit_pipeline::mem::MemPacket;
use godwit_pipeline::packet::Takes;
use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::update::*;
use godwit_tables::{DropReason, TablesConfig};
use godwit_testkit::frames;
use godwit_wire::ethernet::Ethernet;
use godwit_wire::icmpv4::Icmpv4;
use godwit_wire::icmpv6::Icmpv6;
use godwit_wire::ipv4::Ipv4;
use godwit_wire::ipv6::Ipv6;
use godwit_wire::outer::UdpChecksum;
use godwit_wire::{Instant, Mac};

#[test]
fn r1_r3_r5_golden_ipv4() {
    let mut lab = Lab::new();
    let inner = numbered(M1, R4, 7);
    lab.one(P1, &inner);
    let want = golden(&inner, NVE_B.into(), 0);
    assert_eq!(lab.only(), (UPLINK, want.as_slice()));
    assert_eq!(lab.tables.counters.worker.encapsulated, 1);
}

#[test]
fn r1_r4_r5_golden_ipv6() {
    let mut lab = Lab::new();
    let inner = frames::tcp_frame((M1, v6(1).into(), 5), (R6, v6(2).into(), 6), (1, 2), 0x10, b"hello");
    lab.one(P1, &inner);
    let want = golden(&inner, NVE_B6.into(), 0);
    assert_eq!(lab.only(), (UPLINK, want.as_slice()));
}

#[test]
fn r4_each_packet_of_a_dual_stack_vm_goes_over_its_own_family() {
    let mut lab = Lab::new();
    lab.apply(Update::TunnelTwin { tunnel: T6, twin: Some(T4) });
    let over = |lab: &mut Lab, f: &[u8]| {
        lab.clear();
        lab.one(P1, f);
        let sent = lab.to(UPLINK);
        assert_eq!(sent.len(), 1);
        open(sent[0]).0.dst
    };
    let inner4 = numbered(M1, R6, 1);
    let inner6 = frames::tcp_frame((M1, v6(1).into(), 5), (R6, v6(2).into(), 6), (1, 2), 0x10, b"hello");
    let fragment = {
        let mut ip = frames::V4::new(v4(1), v4(2), 17);
        ip.frag = 0x2000;
        frames::ethernet(R6, M1, 0x0800, &ip.packet(&[0; 32]))
    };
    assert_eq!(over(&mut lab, &inner4), NVE_B);
    assert_eq!(over(&mut lab, &fragment), NVE_B, "the slow path as well");
    assert_eq!(over(&mut lab, &inner6), NVE_B6);
    assert_eq!(over(&mut lab, &frames::ethernet(R6, M1, 0x1234, b"no IP")), NVE_B6);
    // A copy of a broadcast, too.
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T6 });
    assert_eq!(over(&mut lab, &numbered(M1, Mac::BROADCAST, 2)), NVE_B);
    // A twin that is not ready takes nothing.
    lab.apply(Update::TunnelPending { tunnel: T4, remote: NVE_B.into() });
    assert_eq!(over(&mut lab, &inner4), NVE_B6);
    lab.apply(Update::TunnelTwin { tunnel: T6, twin: None });
    lab.tunnel(T4, NVE_B.into());
    assert_eq!(over(&mut lab, &inner4), NVE_B6);
}

#[test]
fn r5_full_checksums_where_they_are_wanted() {
    let mut lab = Lab::with(&TablesConfig { udp_checksum: true, ..config() });
    let burst = [numbered(M1, R4, 1), numbered(M1, M2, 2), numbered(M1, R6, 3)];
    lab.input(P1, &burst);
    // And from a cold path: a copy of a broadcast.
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.one(P1, &numbered(M1, Mac::BROADCAST, 4));
    let sent = lab.to(UPLINK);
    assert_eq!(numbers(&sent), [1, 3, 4]);
    for f in sent {
        assert_eq!(open(f).0.udp_checksum, UdpChecksum::Good);
    }
    assert_eq!(lab.to(P2)[0], burst[1], "a frame that is not encapsulated stays as it is");
}

#[test]
fn r5_full_checksums_are_left_to_a_device_that_takes_them() {
    let mut lab = Lab::with(&TablesConfig { udp_checksum: true, ..config() });
    lab.out.takes = Takes { checksum: true, ..Takes::NOTHING };
    let burst = [numbered(M1, R4, 1), numbered(M1, M2, 2), numbered(M1, R6, 3)];
    lab.input(P1, &burst);
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.one(P1, &numbered(M1, Mac::BROADCAST, 4));
    let sent: Vec<_> =
        lab.out.sent.iter().filter(|(port, _)| *port == UPLINK).map(|(_, p)| p.clone()).collect();
    assert_eq!(sent.len(), 3);
    for p in sent {
        let told = p.handed_on().expect("the device is told");
        let l3_len = if told.six { 40 } else { 20 };
        assert_eq!(
            (told.l2_len, told.l3_len, told.l4_len, told.tcp, told.segment),
            (14, l3_len, 8, false, 0)
        );
        // What the device does: the sum over the datagram as it lies there, pseudo-header included.
        let mut frame = p.bytes();
        let udp = 14 + l3_len;
        let whole = !godwit_wire::checksum::fold(godwit_wire::checksum::sum(&frame[udp..]));
        frame[udp + 6..udp + 8].copy_from_slice(&if whole == 0 { 0xffff } else { whole }.to_be_bytes());
        assert_eq!(open(&frame).0.udp_checksum, UdpChecksum::Good);
    }
    assert_eq!(lab.tables.counters.worker.checksums_left, 3);
    assert_eq!(lab.to(P2)[0], burst[1], "a frame that is not encapsulated stays as it is");
}

#[test]
fn r6_ecn_is_copied_and_dscp_is_not() {
    let mut lab = Lab::new();
    let mut ip = frames::V4::new(v4(1), v4(2), 17);
    ip.tos = 0xb8 | 3;
    let m = frames::udp(v4(1).into(), v4(2).into(), (1, 2), b"x", frames::Ck::Good);
    let inner = frames::ethernet(R4, M1, 0x0800, &ip.packet(&m));
    lab.one(P1, &inner);
    let want = golden(&inner, NVE_B.into(), 3);
    assert_eq!(lab.only().1, want);
}

/// The wire says which byte it is; what else is in the header stays.
#[test]
fn r6_dscp_is_copied_where_that_is_wanted() {
    for udp_checksum in [false, true] {
        let mut lab = Lab::with(&TablesConfig { copy_dscp: true, udp_checksum, ..config() });
        for (tos, class) in [(0xb8 | 3, 0xb8 | 3), (0x28, 0x28), (0, 0)] {
            let mut ip = frames::V4::new(v4(1), v4(2), 17);
            ip.tos = tos;
            let m = frames::udp(v4(1).into(), v4(2).into(), (1, 2), b"x", frames::Ck::Good);
            let inner = frames::ethernet(R4, M1, 0x0800, &ip.packet(&m));
            lab.one(P1, &inner);
            let sent = lab.only().1.to_vec();
            let (outer, carried) = open(&sent);
            assert_eq!((sent[15], carried), (class, inner.as_slice()), "IPv4 in IPv4");
            assert_eq!(outer.ecn.bits(), tos & 3, "and the header's checksum holds, or it would not parse");
            lab.clear();
            lab.one(P1, &frames::ethernet(R6, M1, 0x0800, &ip.packet(&m)));
            let sent = lab.only().1;
            assert_eq!(sent[14] << 4 | sent[15] >> 4, class, "IPv4 in IPv6");
            lab.clear();
        }
        // What is not IP has none.
        lab.one(P1, &frames::ethernet(R4, M1, 0x88b5, &[0xff; 60]));
        assert_eq!(lab.only().1[15], 0);
        lab.clear();
        // One that is forwarded in flight gets it again.
        lab.vm(R4, VmState::Departed { tunnel: T6, until: lab.now + ms(1000) });
        let mut ip = frames::V4::new(v4(2), v4(4), 17);
        ip.tos = 0xb8;
        let m = frames::udp(v4(2).into(), v4(4).into(), (1, 2), b"x", frames::Ck::Good);
        lab.one(UPLINK, &vxlan().frame(&frames::ethernet(R4, R6, 0x0800, &ip.packet(&m))));
        let sent = lab.only().1;
        assert_eq!(sent[14] << 4 | sent[15] >> 4, 0xb8, "in flight");
    }
}

#[test]
fn r12_local_frames_are_delivered_as_they_are() {
    let mut lab = Lab::new();
    let f = numbered(M1, M2, 1);
    lab.one(P1, &f);
    assert_eq!(lab.only(), (P2, f.as_slice()));
    assert_eq!(lab.tables.counters.port(P1).rx_bytes, f.len() as u64);
    assert_eq!(lab.tables.counters.port(P2).tx_bytes, f.len() as u64);
}

#[test]
fn a_mixed_burst_keeps_its_order_for_each_destination() {
    let mut lab = Lab::new();
    let burst: Vec<_> = (0..200).map(|n| numbered(M1, [M2, R4, R6, STRANGER][n as usize % 4], n)).collect();
    lab.input(P1, &burst);
    let evens: Vec<u32> = (0..200).filter(|n| n % 4 == 0).collect();
    assert_eq!(numbers(&lab.to(P2)), evens);
    let tunnelled: Vec<u32> = (0..200).filter(|n| n % 4 == 1 || n % 4 == 2).collect();
    assert_eq!(numbers(&lab.to(UPLINK)), tunnelled);
    assert_eq!(lab.tables.waiting(), 16, "the oldest of the stranger's went (R35)");
    assert_eq!(lab.drops(DropReason::HoldOverflow), 50 - 16);
}

#[test]
fn r13_the_same_mac_in_vni_1_and_16777215() {
    let mut lab = Lab::new();
    // M1 of the other VN sends to M2, which exists in the first VN only.
    lab.one(P3, &numbered(M1, M2, 1));
    assert!(lab.out.sent.is_empty());
    assert_eq!(
        lab.take_events(),
        [Event::MissMac { key: Key::new(OTHER_VN, M2), port: P3 }],
        "a miss in its own VN"
    );
    lab.apply(Update::VmSet { key: Key::new(OTHER_VN, R4), state: VmState::Remote { tunnel: T4 } });
    lab.one(P3, &numbered(M1, R4, 2));
    lab.one(P1, &numbered(M1, R4, 3));
    let vnis: Vec<u32> = lab.to(UPLINK).iter().map(|f| open(f).0.vni.get()).collect();
    assert_eq!(vnis, [16_777_215, 1]);
    lab.clear();
    lab.input(
        UPLINK,
        &[
            vxlan_from(NVE_B.into(), vni()).frame(&numbered(R4, M1, 4)),
            vxlan_from(NVE_B.into(), other_vni()).frame(&numbered(R4, M1, 5)),
        ],
    );
    assert_eq!((numbers(&lab.to(P1)), numbers(&lab.to(P3))), (vec![4], vec![5]));
}

#[test]
fn r13_a_stale_entry_never_leads_into_another_vn() {
    let mut lab = Lab::new();
    lab.access(P2, OTHER_VN, M2, Admission::Activated);
    dropped(&mut lab, P1, &numbered(M1, M2, 1), DropReason::PortGone);
    lab.apply(Update::PortRemove { port: P2 });
    dropped(&mut lab, P1, &numbered(M1, M2, 1), DropReason::PortGone);
}

#[test]
fn r15_closed_and_unknown_ports() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Closed);
    dropped(&mut lab, P1, &numbered(M1, M2, 1), DropReason::PortClosed);
    dropped(&mut lab, P1, &frames::garp(M1, v4(1)), DropReason::PortClosed);
    assert_eq!(lab.take_events(), []);
    dropped(&mut lab, PortIdx(77), &numbered(M1, M2, 1), DropReason::PortUnknown);
    dropped(&mut lab, PortIdx(5000), &numbered(M1, M2, 1), DropReason::PortUnknown);
    lab.apply(Update::VnRemove { vn: OTHER_VN });
    dropped(&mut lab, P3, &numbered(M1, M2, 1), DropReason::UnknownVn);
}

#[test]
fn r15_r18_associated_port_reports_and_forwards_nothing() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    waits(&mut lab, &numbered(M1, M2, 1));
    let first = Event::Announce { port: P1, kind: AnnounceKind::FirstFrame, mac: M1, ip: None };
    assert_eq!(lab.take_events(), [first]);
    waits(&mut lab, &numbered(M1, M2, 2));
    assert_eq!(lab.take_events(), [], "not for every frame");
    lab.wait(ms(5));
    waits(&mut lab, &numbered(M1, M2, 3));
    assert_eq!(lab.take_events(), [first], "but again while it lasts");
    // A question that has no answer shows as well that the VM is alive.
    lab.wait(ms(5));
    lab.apply(Update::NeighborAbsent { vn: VN, ip: v4(9).into(), until: Instant::NEVER });
    waits(&mut lab, &frames::arp_request(M1, v4(1), v4(9)));
    assert_eq!(lab.take_events(), [first]);
    // No ARP answers either, but announcements count.
    lab.neighbor(v4(2), M2);
    waits(&mut lab, &frames::arp_request(M1, v4(1), v4(2)));
    lab.one(P1, &frames::garp(M1, v4(1)));
    let kind = AnnounceKind::GratuitousArp;
    assert_eq!(lab.take_events(), [Event::Announce { port: P1, kind, mac: M1, ip: Some(v4(1).into()) }]);
    dropped(&mut lab, P1, &numbered(M2, M1, 4), DropReason::SpoofedSource);
    assert_eq!(lab.take_events(), [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }]);
}

/// The frame is neither sent nor dropped.
fn waits(lab: &mut Lab, frame: &[u8]) {
    let (sent, waiting) = (lab.out.sent.len(), lab.tables.waiting());
    lab.one(P1, frame);
    assert_eq!((lab.out.sent.len(), lab.tables.waiting()), (sent, waiting + 1));
}

#[test]
fn r45_what_a_vm_says_before_its_port_is_open_goes_first_when_it_is() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    for n in 1..=3 {
        waits(&mut lab, &numbered(M1, R4, n));
    }
    lab.tick();
    assert!(lab.to(UPLINK).is_empty());
    lab.access(P1, VN, M1, Admission::Activated);
    lab.one(P1, &numbered(M1, R4, 4));
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2, 3, 4]);
    assert_eq!(lab.tables.waiting(), 0);

    // Without a frame that comes after them they go with the next tick.
    lab.clear();
    lab.access(P1, VN, M1, Admission::Associated);
    waits(&mut lab, &numbered(M1, R4, 5));
    lab.access(P1, VN, M1, Admission::Activated);
    lab.tick();
    assert_eq!(numbers(&lab.to(UPLINK)), [5]);
}

#[test]
fn r45_a_port_that_does_not_open_sends_nothing_later() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    waits(&mut lab, &numbered(M1, R4, 1));
    lab.wait(ms(499));
    lab.tick();
    assert_eq!(lab.drops(DropReason::PortClosed), 0);
    lab.wait(ms(1));
    lab.tick();
    assert_eq!((lab.drops(DropReason::PortClosed), lab.tables.waiting()), (1, 0), "too late");
    waits(&mut lab, &numbered(M1, R4, 2));
    lab.access(P1, VN, M1, Admission::Closed);
    lab.tick();
    assert_eq!((lab.drops(DropReason::PortClosed), lab.tables.waiting()), (2, 0), "closed");
    // So many wait and no more.
    lab.access(P1, VN, M1, Admission::Associated);
    for n in 1..=256 {
        lab.one(P1, &numbered(M1, R4, n));
    }
    assert_eq!(lab.tables.waiting(), 256);
    dropped(&mut lab, P1, &numbered(M1, R4, 257), DropReason::PortClosed);
    assert!(lab.to(UPLINK).is_empty());
}

#[test]
fn r65_other_sources_go_nowhere() {
    let mut lab = Lab::new();
    dropped(&mut lab, P1, &numbered(M2, R4, 1), DropReason::SpoofedSource);
    dropped(&mut lab, P1, &numbered(Mac([3, 0, 0, 0, 0, 1]), R4, 1), DropReason::SpoofedSource);
    dropped(&mut lab, P1, &numbered(M2, STRANGER, 1), DropReason::SpoofedSource);
    assert_eq!(
        lab.take_events(),
        [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }],
        "no query, and one word a second"
    );
}

#[test]
fn r65_vms_behind_a_port_speak_for_themselves_only() {
    let mut lab = Lab::new();
    let behind = mac(0x51);
    lab.apply(Update::VmSet { key: key(behind), state: VmState::Local { port: P1 } });
    lab.one(P1, &numbered(behind, R4, 1));
    assert_eq!(numbers(&lab.to(UPLINK)), [1]);
    lab.one(P2, &numbered(M2, behind, 2));
    assert_eq!(numbers(&lab.to(P1)), [2]);
    dropped(&mut lab, P2, &numbered(behind, R4, 3), DropReason::SpoofedSource);
    let neighbor = Update::NeighborSet { vn: VN, ip: v4(1).into(), mac: M1, router: false };
    lab.apply(neighbor);
    dropped(&mut lab, P1, &numbered(behind, R4, 5), DropReason::SpoofedSource);
    assert_eq!(lab.take_events().len(), 2, "both spoofs are told");
    lab.one(P1, &frames::garp(behind, v4(9)));
    assert_eq!(lab.take_events(), [], "only the configuration knows of it");
    let port_of = |admission| PortRole::Access { vn: VN, mac: M1, admission };
    lab.apply(Update::PortSet { port: P1, role: port_of(Admission::Associated) });
    dropped(&mut lab, P1, &numbered(behind, R4, 4), DropReason::PortClosed);
}

#[test]
fn malformed_buffers() {
    let mut lab = Lab::new();
    dropped(&mut lab, P1, &[], DropReason::Truncated);
    dropped(&mut lab, P1, &numbered(M1, M2, 1)[..13], DropReason::Truncated);
    lab.input_packets(P1, vec![MemPacket::new(&numbered(M1, M2, 1)).in_pieces(30)]);
    assert_eq!(lab.drops(DropReason::NotContiguous), 1);
    lab.input_packets(P1, vec![MemPacket::with_headroom(&numbered(M1, R4, 1), 49)]);
    assert_eq!(lab.drops(DropReason::NoHeadroom), 1);
    lab.input_packets(P1, vec![MemPacket::with_headroom(&numbered(M1, R4, 1), 50)]);
    assert_eq!(lab.to(UPLINK).len(), 1);
}

#[test]
fn bridges_never_forward_reserved_groups() {
    let mut lab = Lab::new();
    let lldp = frames::ethernet(Mac([1, 0x80, 0xc2, 0, 0, 0x0e]), M1, 0x88cc, b"lldp");
    dropped(&mut lab, P1, &lldp, DropReason::LinkLocalReserved);
}

#[test]
fn never_back_to_where_it_came_from() {
    let mut lab = Lab::new();
    dropped(&mut lab, P1, &numbered(M1, M1, 1), DropReason::Hairpin);
}

#[test]
fn nobody_is_at_address_zero() {
    let mut lab = Lab::new();
    dropped(&mut lab, P1, &numbered(M1, Mac::ZERO, 1), DropReason::UnknownUnicast);
    assert_eq!(lab.take_events(), []);
}

#[test]
fn r10_one_tag_is_stripped() {
    let mut lab = Lab::new();
    let bare = numbered(M1, R4, 1);
    lab.one(P1, &frames::tagged(&bare, 0x8100, 0x6005));
    assert_eq!(open(lab.only().1).1, bare);
    lab.clear();
    lab.one(P1, &frames::tagged(&frames::garp(M1, v4(1)), 0x8100, 5));
    assert!(matches!(lab.take_events()[..], [Event::Announce { .. }]), "what it is counts, not its tag");
    let twice = frames::tagged(&frames::tagged(&bare, 0x8100, 5), 0x8100, 6);
    dropped(&mut lab, P1, &twice, DropReason::VlanTag);
    dropped(&mut lab, P1, &frames::tagged(&bare, 0x88a8, 5), DropReason::VlanTag);
    dropped(&mut lab, P1, &frames::tagged(&bare, 0x8100, 5)[..17], DropReason::Truncated);
}

#[test]
fn r10_transparent_vn_keeps_the_tag() {
    let mut lab = Lab::new();
    lab.vn(VN, vni(), true);
    let tagged = frames::tagged(&numbered(M1, R4, 1), 0x8100, 0x6005);
    lab.one(P1, &tagged);
    assert_eq!(open(lab.only().1).1, tagged);
}

#[test]
fn r8_the_tunnel_mtu_bounds_the_inner_packet() {
    let mut lab = Lab::new();
    let sized = |dst, ip_len: usize| {
        frames::udp_frame((M1, v4(1).into(), 1), (dst, v4(2).into(), 2), &vec![0; ip_len - 28])
    };
    for (dst, largest) in [(R4, usize::from(MTU) - 50), (R6, usize::from(MTU) - 70)] {
        dropped(&mut lab, P1, &sized(dst, largest + 1), DropReason::TooBig);
        lab.one(P1, &sized(dst, largest));
        let outer_ip = lab.only().1.len() - 14;
        assert_eq!(outer_ip, usize::from(MTU));
        lab.clear();
    }
    // A kept tag takes its four bytes from the same room.
    lab.vn(VN, vni(), true);
    let largest = usize::from(MTU) - 50;
    dropped(&mut lab, P1, &frames::tagged(&sized(R4, largest - 3), 0x8100, 1), DropReason::TooBig);
    lab.one(P1, &frames::tagged(&sized(R4, largest - 4), 0x8100, 1));
    assert_eq!(lab.to(UPLINK).len(), 1);
    // Between local ports there is no tunnel to fit into.
    lab.clear();
    lab.one(P1, &sized(M2, 9000));
    assert_eq!(lab.to(P2).len(), 1);
}

/// Type, code, MTU and quoted packet of an ICMP error to M1, everything else checked.
fn told(answer: &[u8], from: (Mac, std::net::IpAddr)) -> (u8, u8, u32, Vec<u8>) {
    let eth = Ethernet::new_checked(answer).unwrap();
    assert_eq!((eth.dst(), eth.src()), (M1, from.0));
    match from.1 {
        std::net::IpAddr::V4(src) => {
            let ip = Ipv4::new_checked(eth.payload()).unwrap();
            assert!(ip.verify_checksum() && (ip.src(), ip.dst()) == (src, v4(1)));
            let m = Icmpv4::new_checked(ip.payload()).unwrap();
            assert!(m.verify_checksum());
            (m.kind(), m.code(), m.rest(), m.payload().to_vec())
        }
        std::net::IpAddr::V6(src) => {
            let ip = Ipv6::new_checked(eth.payload()).unwrap();
            assert_eq!((ip.src(), ip.dst()), (src, v6(1)));
            let m = Icmpv6::new_checked(ip.payload()).unwrap();
            assert!(m.verify_checksum(ip.src(), ip.dst()));
            (m.kind(), m.code(), m.rest(), m.payload().to_vec())
        }
    }
}

/// A UDP packet of `len` bytes from M1 that must not be fragmented.
fn unfragmentable(dst: Mac, len: usize) -> Vec<u8> {
    let ip = frames::V4 { frag: 0x4000, ..frames::V4::new(v4(1), v4(2), 17) };
    frames::ethernet(dst, M1, 0x0800, &ip.packet(&vec![0; len - 20]))
}

#[test]
fn r8_who_sends_too_much_is_told_what_passes() {
    let mut lab = Lab::new();
    let room = usize::from(MTU);
    // 50 bytes over IPv4, 70 over IPv6: after a move to an IPv6 locator the answer is 20 less.
    for (dst, mtu) in [(R4, room - 50), (R6, room - 70)] {
        let frame = unfragmentable(dst, mtu + 1);
        lab.one(P1, &frame);
        let (kind, code, told_mtu, quote) = told(lab.to(P1)[0], (dst, v4(2).into()));
        assert_eq!((kind, code, told_mtu as usize), (3, 4, mtu));
        assert_eq!(quote, frame[14..14 + quote.len()]);
        lab.clear();
        lab.one(P1, &unfragmentable(dst, mtu));
        assert_eq!((lab.to(UPLINK).len(), lab.to(P1).len()), (1, 0));
        lab.clear();

        let six = frames::udp_frame((M1, v6(1).into(), 1), (dst, v6(2).into(), 2), &vec![0; mtu - 47]);
        lab.one(P1, &six);
        let (kind, code, told_mtu, quote) = told(lab.to(P1)[0], (dst, v6(2).into()));
        assert_eq!((kind, code, told_mtu as usize), (2, 0, mtu));
        assert_eq!(quote, six[14..14 + quote.len()]);
        lab.clear();
    }
    assert_eq!((lab.tables.counters.worker.told_too_big, lab.drops(DropReason::TooBig)), (4, 4));
}

/// Every IPv6 link carries 1,280 bytes, and a host takes no word for less. What is between goes nowhere: an underlay of
/// less than 1,350 bytes is none for IPv6 inside.
#[test]
fn r8_ipv6_is_never_told_of_less_than_1280() {
    let mut lab = Lab::new();
    lab.tunnel_of_mtu(T4, NVE_B.into(), 1300);
    lab.one(P1, &unfragmentable(R4, 1251));
    assert_eq!(told(lab.to(P1)[0], (R4, v4(2).into())).2, 1250);
    lab.clear();
    for length in [1251, 1280, 1281] {
        let six = frames::udp_frame((M1, v6(1).into(), 1), (R4, v6(2).into(), 2), &vec![0; length - 48]);
        lab.one(P1, &six);
        let (kind, code, mtu, _) = told(lab.to(P1)[0], (R4, v6(2).into()));
        assert_eq!((kind, code, mtu), (2, 0, 1280), "{length}");
        lab.clear();
    }
}

#[test]
fn r8_a_kept_tag_comes_back_with_the_error() {
    let mut lab = Lab::new();
    lab.vn(VN, vni(), true);
    let room = usize::from(MTU) - 50;
    lab.one(P1, &frames::tagged(&unfragmentable(R4, room), 0x8100, 7));
    let answer = lab.to(P1)[0];
    assert_eq!(answer[12..16], [0x81, 0, 0, 7]);
    let (_, _, mtu, _) = told(answer, (R4, v4(2).into()));
    assert_eq!(mtu as usize, room - 4);
}

#[test]
fn r8_nobody_is_told_who_did_not_ask_or_asks_too_often() {
    let mut lab = Lab::new();
    let large = usize::from(MTU);
    let may_be_cut = frames::ethernet(
        R4,
        M1,
        0x0800,
        &frames::V4 { frag: 0, ..frames::V4::new(v4(1), v4(2), 17) }.packet(&vec![0; large]),
    );
    let an_error = {
        let ip = frames::V4 { frag: 0x4000, ..frames::V4::new(v4(1), v4(2), 1) };
        frames::ethernet(
            R4,
            M1,
            0x0800,
            &ip.packet(&frames::icmpv4(3, 4, 0, &vec![0; large], frames::Ck::Good)),
        )
    };
    let no_ip = frames::ethernet(R4, M1, 0x1234, &vec![0; large]);
    for silent in [&may_be_cut, &an_error, &no_ip] {
        dropped(&mut lab, P1, silent, DropReason::TooBig);
        assert!(lab.to(P1).is_empty());
    }
    let many = vec![unfragmentable(R4, large); 150];
    lab.input(P1, &many);
    assert_eq!(lab.to(P1).len(), 100);
    lab.clear();
    lab.wait(ms(1000));
    lab.input(P1, &many[..1]);
    assert_eq!(lab.to(P1).len(), 1, "a second later it may hear again");
}

#[test]
fn r34_r35_a_miss_asks_once_and_flushes_in_order() {
    let mut lab = Lab::new();
    let burst: Vec<_> = (1..=20).map(|n| numbered(M1, STRANGER, n)).collect();
    lab.input(P1, &burst);
    assert_eq!(lab.take_events(), [Event::MissMac { key: key(STRANGER), port: P1 }]);
    assert_eq!(lab.tables.counters.worker.misses, 1);
    lab.wait(ms(50));
    lab.tick();
    lab.vm(STRANGER, VmState::Remote { tunnel: T4 });
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
    lab.vm(mac(0x1000), VmState::Remote { tunnel: T4 });
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
    lab.vm(STRANGER, VmState::Remote { tunnel: T4 });
    assert_eq!(lab.take_events(), [Event::TableFull { key: key(STRANGER) }]);
    dropped(&mut lab, P1, &numbered(M1, STRANGER, 1), DropReason::MissLimit);
    lab.one(P1, &numbered(M1, M2, 1));
    assert_eq!(lab.to(P2).len(), 1, "known ones stay");
}

#[test]
fn frames_wait_for_a_tunnel_whose_next_hop_does_not_answer() {
    let mut lab = Lab::new();
    lab.vm(STRANGER, VmState::Remote { tunnel: PENDING });
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
    lab.vm(STRANGER, VmState::Remote { tunnel: PENDING });
    lab.one(P1, &numbered(M1, STRANGER, 1));
    lab.apply(Update::TunnelRemove { tunnel: PENDING });
    lab.settle();
    assert_eq!((lab.drops(DropReason::NoTunnel), lab.tables.waiting()), (1, 0));
    dropped(&mut lab, P1, &numbered(M1, STRANGER, 2), DropReason::NoTunnel);
    lab.vm(STRANGER, VmState::Remote { tunnel: TunnelIdx(12_345) });
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
