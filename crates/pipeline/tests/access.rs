//! Frames from VMs: encapsulation, local delivery, tags, malformed frames.

use crate::common::*;
use godwit_pipeline::mem::MemPacket;
use godwit_pipeline::packet::ReceiveOffloads;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_tables::{DropReason, TablesConfig};
use godwit_testkit::frames;
use godwit_wire::Mac;
use godwit_wire::outer::UdpChecksum;

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
    lab.out.takes = ReceiveOffloads { checksum: true, ..ReceiveOffloads::NOTHING };
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
        lab.vm(R4, VmState::Departed { to: through(T6), until: lab.now + ms(1000) });
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
    let to = Target { tunnel: T4, vni: other_vni() };
    lab.apply(Update::VmSet { key: Key::new(OTHER_VN, R4), state: VmState::Remote { to } });
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
