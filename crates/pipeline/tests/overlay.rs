//! Frames from uplinks: decapsulation and everything that can be wrong with them.

use crate::common::*;
use godwit_pipeline::mem::MemPacket;
use godwit_pipeline::packet::Packet;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Ck, Vxlan};
use godwit_wire::Mac;

fn to_m1(n: u32) -> Vec<u8> {
    numbered(R4, M1, n)
}

#[test]
fn r12_decapsulated_and_delivered() {
    let mut lab = Lab::new();
    let inner = to_m1(1);
    for sender in [NVE_B.into(), NVE_B6.into()] {
        lab.one(UPLINK, &vxlan_from(sender, vni()).frame(&inner));
        assert_eq!(lab.only(), (P1, inner.as_slice()));
        lab.clear();
    }
    assert_eq!(lab.tables.counters.worker.decapsulated, 2);
}

#[test]
fn r1_reserved_bits_are_ignored_and_the_i_flag_is_not() {
    let mut lab = Lab::new();
    for flags in [0x08, 0xff] {
        let x = Vxlan { flags, reserved: [0xff; 4], ..vxlan() };
        lab.one(UPLINK, &x.frame(&to_m1(1)));
    }
    assert_eq!(lab.to(P1).len(), 2);
    let x = Vxlan { flags: 0, ..vxlan() };
    dropped(&mut lab, UPLINK, &x.frame(&to_m1(1)), DropReason::VxlanNoVniFlag);
}

#[test]
fn outer_padding_is_trimmed() {
    let mut lab = Lab::new();
    let inner = frames::ethernet(M1, R4, 0x1234, b"x");
    lab.one(UPLINK, &frames::padded(vxlan().frame(&inner), 120));
    assert_eq!(lab.only(), (P1, inner.as_slice()));
}

#[test]
fn r1_r3_r5_each_outer_fault_has_its_reason() {
    let mut lab = Lab::new();
    let inner = to_m1(1);
    let cases = [
        (Vxlan { frag: 0x2000, ..vxlan() }, DropReason::OuterFragment),
        (Vxlan { frag: 0x00b9, ..vxlan() }, DropReason::OuterFragment),
        (Vxlan { ip_checksum: Ck::Bad, ..vxlan() }, DropReason::BadIpChecksum),
        (Vxlan { ip_len: Some(2000), ..vxlan() }, DropReason::BadIpLength),
        (Vxlan { udp_len: Some(20), ..vxlan() }, DropReason::BadUdpLength),
        (Vxlan { udp_checksum: Ck::Bad, ..vxlan() }, DropReason::BadUdpChecksum),
        (Vxlan { udp_checksum: Ck::Bad, ..vxlan_from(NVE_B6.into(), vni()) }, DropReason::BadUdpChecksum),
    ];
    for (x, reason) in cases {
        dropped(&mut lab, UPLINK, &x.frame(&inner), reason);
    }
    let good = vxlan().frame(&inner);
    dropped(&mut lab, UPLINK, &good[..30], DropReason::Truncated);
    dropped(&mut lab, UPLINK, &good[..13], DropReason::Truncated);
    let mut version = good.clone();
    version[14] = 0x65;
    dropped(&mut lab, UPLINK, &version, DropReason::BadIpVersion);
    for udp_checksum in [Ck::Raw(0), Ck::Good] {
        lab.one(UPLINK, &Vxlan { udp_checksum, ..vxlan() }.frame(&inner));
    }
    assert_eq!(lab.to(P1).len(), 2);
}

#[test]
fn a_chain_of_ipv6_extensions_that_cannot_be_followed() {
    let mut lab = Lab::new();
    // Hop-by-hop options that claim to be longer than the packet.
    let mut f = vxlan_from(NVE_B6.into(), vni()).frame(&to_m1(1));
    f[14 + 6] = 0;
    f[14 + 40] = 17;
    f[14 + 41] = 0xff;
    dropped(&mut lab, UPLINK, &f, DropReason::BadIpExtension);
}

#[test]
fn only_what_is_addressed_to_us() {
    let mut lab = Lab::new();
    let x = Vxlan { eth: (HOP_MAC, mac(0x77)), ..vxlan() };
    dropped(&mut lab, UPLINK, &x.frame(&to_m1(1)), DropReason::NotOurMac);
    let x = Vxlan { ip: (NVE_B.into(), NVE_C.into()), ..vxlan() };
    dropped(&mut lab, UPLINK, &x.frame(&to_m1(1)), DropReason::NotOurLocator);
    // The link-local address answers solicitations, but it is no locator.
    let x = Vxlan { ip: (NVE_B6.into(), LL6.into()), ..vxlan() };
    dropped(&mut lab, UPLINK, &x.frame(&to_m1(1)), DropReason::NotOurLocator);
    // Nor does VXLAN come by broadcast.
    let x = Vxlan { eth: (HOP_MAC, Mac::BROADCAST), ..vxlan() };
    dropped(&mut lab, UPLINK, &x.frame(&to_m1(1)), DropReason::NotOurLocator);
}

#[test]
fn r11_a_frame_that_comes_in_pieces_is_delivered_in_one() {
    let mut lab = Lab::new();
    let inner = to_m1(1);
    for size in [1, 60, 64] {
        lab.input_packets(UPLINK, vec![MemPacket::new(&vxlan().frame(&inner)).in_pieces(size)]);
        assert_eq!(lab.only(), (P1, inner.as_slice()), "pieces of {size} bytes");
        lab.clear();
    }
    assert_eq!(lab.tables.counters.worker.gathered, 3);
    lab.input_packets(UPLINK, vec![MemPacket::new(&vxlan().frame(&inner)[..70]).in_pieces(60)]);
    assert_eq!(lab.drops(DropReason::BadIpLength), 1, "faults are found in what was put together");
}

#[test]
fn r11_a_cards_doubt_of_a_checksum_costs_an_uplinks_frames_nothing() {
    // One of the usual shape, one that takes the cold path, one to a group, one with the outer checksum.
    let frames = [
        vxlan().frame(&to_m1(1)),
        Vxlan { tos: 1, ..vxlan() }.frame(&frames::udp_frame(
            (R4, v4(4).into(), 1),
            (M1, v4(1).into(), 2),
            b"x",
        )),
        vxlan().frame(&numbered(R4, Mac::BROADCAST, 2)),
        Vxlan { udp_checksum: Ck::Good, ..vxlan() }.frame(&to_m1(3)),
    ];
    for f in frames {
        let (mut sure, mut doubted) = (Lab::new(), Lab::new());
        sure.one(UPLINK, &f);
        doubted.input_packets(UPLINK, vec![MemPacket::new(&f).doubted()]);
        assert!(!sure.out.sent.is_empty());
        assert_eq!(sure.out.sent, doubted.out.sent);
        assert_eq!(sure.tables.counters.worker, doubted.tables.counters.worker);
        assert_eq!(sure.pool.taken(), doubted.pool.taken(), "no buffer is taken for it");
        assert_eq!(doubted.tables.counters.worker.gathered, 0);
    }
    // The fast path leaves the doubt where it is; only the cold path forgets it.
    let mut lab = Lab::new();
    lab.input_packets(UPLINK, vec![MemPacket::new(&vxlan().frame(&to_m1(1))).doubted()]);
    assert!(!lab.out.sent[0].1.is_plain());
}

#[test]
fn r1_r10_each_inner_fault_has_its_reason() {
    let mut lab = Lab::new();
    let f = vxlan_from(NVE_C.into(), godwit_wire::Vni::from_low24(55)).frame(&to_m1(1));
    dropped(&mut lab, UPLINK, &f, DropReason::UnknownVni);
    dropped(&mut lab, UPLINK, &vxlan().frame(&to_m1(1)[..13]), DropReason::InnerTruncated);
    let grouped = numbered(Mac([3, 0, 0, 0, 0, 1]), M1, 1);
    dropped(&mut lab, UPLINK, &vxlan().frame(&grouped), DropReason::InnerMulticastSource);
    let tagged = frames::tagged(&to_m1(1), 0x8100, 5);
    dropped(&mut lab, UPLINK, &vxlan().frame(&tagged), DropReason::InnerVlan);
    lab.vn(VN, vni(), true);
    lab.one(UPLINK, &vxlan().frame(&tagged));
    assert_eq!(lab.only(), (P1, tagged.as_slice()), "R10: a transparent VN lets the tag pass");
}

#[test]
fn r6_all_sixteen_combinations() {
    use godwit_wire::Ecn;
    for inner in 0..4u8 {
        for outer in 0..4u8 {
            let mut lab = Lab::new();
            let mut ip = frames::V4::new(v4(1), v4(2), 17);
            ip.tos = inner;
            let m = frames::udp(v4(1).into(), v4(2).into(), (1, 2), b"x", Ck::Good);
            let f = frames::ethernet(M1, R4, 0x0800, &ip.packet(&m));
            let packet = Vxlan { tos: outer, ..vxlan() }.frame(&f);
            match godwit_wire::ecn::decapsulate(Ecn::from_bits(inner), Ecn::from_bits(outer)) {
                Err(_) => dropped(&mut lab, UPLINK, &packet, DropReason::Congestion),
                Ok(merged) => {
                    lab.one(UPLINK, &packet);
                    ip.tos = merged.bits();
                    let want = frames::ethernet(M1, R4, 0x0800, &ip.packet(&m));
                    assert_eq!(lab.only(), (P1, want.as_slice()), "inner {inner} outer {outer}");
                }
            }
        }
    }
    let mut lab = Lab::new();
    let other = frames::ethernet(M1, R4, 0x1234, b"not IP");
    lab.one(UPLINK, &Vxlan { tos: 3, ..vxlan() }.frame(&other));
    assert_eq!(lab.only(), (P1, other.as_slice()), "non-IP with CE is delivered");
}

#[test]
fn r43_r46a_not_here_and_no_forward_entry() {
    let mut lab = Lab::new();
    let told = |mac| Event::NotLocal { key: key(mac), sender: NVE_C.into() };
    dropped(&mut lab, UPLINK, &vxlan().frame(&numbered(M1, R4, 1)), DropReason::NotLocal);
    assert_eq!(lab.take_events(), [told(R4)]);
    dropped(&mut lab, UPLINK, &vxlan().frame(&numbered(M1, R4, 1)), DropReason::NotLocal);
    assert_eq!(lab.take_events(), [], "rate-limited");
    lab.wait(ms(100));
    dropped(&mut lab, UPLINK, &vxlan().frame(&numbered(M1, STRANGER, 1)), DropReason::NotLocal);
    dropped(&mut lab, UPLINK, &vxlan().frame(&numbered(M1, R4, 1)), DropReason::NotLocal);
    assert_eq!(lab.take_events(), [told(STRANGER), told(R4)]);
    assert_eq!(lab.tables.vms.specials(), 0, "R12: nothing is learned or asked from data");
}

#[test]
fn r12_a_query_under_way_does_not_attract_the_overlay() {
    let mut lab = Lab::new();
    lab.one(P1, &numbered(M1, STRANGER, 1));
    dropped(&mut lab, UPLINK, &vxlan().frame(&numbered(R4, STRANGER, 1)), DropReason::NotLocal);
    let until = lab.now + ms(1000);
    lab.vm(STRANGER, VmState::Absent { until });
    lab.tick();
    dropped(&mut lab, UPLINK, &vxlan().frame(&numbered(R4, STRANGER, 2)), DropReason::UnknownUnicast);
}

#[test]
fn r60_r46a_group_frames_go_to_local_ports_only() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let f = frames::ethernet(Mac::BROADCAST, R4, 0x1234, b"hear, hear");
    lab.one(UPLINK, &vxlan().frame(&f));
    assert_eq!((lab.to(P1), lab.to(P2)), (vec![f.as_slice()], vec![f.as_slice()]));
    assert_eq!(lab.out.sent.len(), 2, "not to the other VN, not back to the overlay");
    lab.access(P1, VN, M1, Admission::Associated);
    lab.access(P2, VN, M2, Admission::Closed);
    dropped(&mut lab, UPLINK, &vxlan().frame(&f), DropReason::NoReceiver);
}
