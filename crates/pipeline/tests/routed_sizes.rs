//! Routed packets that are too big for their way: cut, or their senders told (R8, R44).

use crate::common::routing::*;
use crate::common::*;
use godwit_pipeline::trace::{Ending, trace};
use godwit_tables::DropReason;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Ck, V4};
use godwit_wire::Mac;
use std::net::IpAddr;

/// Bytes of the largest packet through the tunnel.
fn fits(lab: &Lab, tunnel: TunnelIdx) -> usize {
    usize::from(lab.tables.tunnels.get(tunnel).expect("a tunnel").inner_max) - 14
}

#[test]
fn r8_the_sender_of_a_packet_that_must_not_be_cut_is_told_what_passes() {
    for (n, tunnel) in [(4, T4), (6, T6)] {
        for six in [false, true] {
            let mut lab = Lab::routed(false);
            let room = fits(&lab, tunnel);
            let frame = |len: usize, ttl, macs| {
                let message = vec![9; len - if six { 40 } else { 20 }];
                let packet = match (near(six, 1), far(six, n)) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => {
                        V4 { ttl, frag: 0x4000, ..V4::new(s, d, 99) }.packet(&message)
                    }
                    ips => ip_packet(ips, 99, ttl, &message),
                };
                let (src, dst): (Mac, Mac) = macs;
                frames::ethernet(dst, src, frames::ethertype(far(six, n)), &packet)
            };
            lab.one(P1, &frame(room, 64, (M1, GW)));
            assert_eq!(lab.only().0, UPLINK);
            lab.clear();
            lab.one(P1, &frame(room + 1, 64, (M1, GW)));
            let about = frame(room + 1, 63, (GW, R4));
            let want = told(gw(six), (3, 4), (2, 0), room as u32, &about);
            assert_eq!(lab.only(), (P1, want.as_slice()));
            assert_eq!((lab.drops(DropReason::TooBig), lab.tables.counters.worker.told_too_big), (1, 1));
        }
    }
}

/// Puts the payload of fragments together again, each of which is checked; their common header's bytes that count.
fn reassemble(packets: &[&[u8]], room: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for (i, p) in packets.iter().enumerate() {
        let header = usize::from(p[0] & 15) * 4;
        assert_eq!(frames::checksum(&p[..header]), 0, "the checksum is right");
        assert!(p.len() <= room && p.len() == usize::from(u16::from_be_bytes([p[2], p[3]])));
        let frag = u16::from_be_bytes([p[6], p[7]]);
        assert_eq!(usize::from(frag & 0x1fff) * 8, payload.len(), "no gap");
        assert_eq!(frag & 0x2000 != 0, i + 1 < packets.len(), "more follow, but for the last");
        assert_eq!((&p[4..6], p[8]), (&packets[0][4..6], 63), "one identification, one hop less");
        payload.extend(&p[header..]);
    }
    payload
}

#[test]
fn r8_a_packet_that_may_be_cut_is_cut_to_what_passes() {
    for (n, tunnel, mac) in [(4, T4, R4), (6, T6, R6)] {
        let mut lab = Lab::routed(false);
        let room = fits(&lab, tunnel);
        let payload: Vec<u8> = (0..4000).map(|i| (i * 7 + i / 251) as u8).collect();
        let message = frames::udp(v4(1).into(), far4(n).into(), (1, 2), &payload, Ck::Good);
        // Copied into all fragments: 148. In the first alone: 7.
        let options = vec![148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0];
        let packet = V4 { ident: 77, options, ..V4::new(v4(1), far4(n), 17) }.packet(&message);
        let frame = frames::ethernet(GW, M1, 0x0800, &packet);
        let seen = trace(&lab.tables, P1, &frame, lab.now).verdict();
        lab.one(P1, &frame);
        let sent = lab.to(UPLINK);
        let opened: Vec<_> = sent.iter().map(|f| open(f)).collect();
        assert!(matches!(seen, Ending::Fragmented { pieces, .. } if pieces == sent.len()), "{seen:?}");
        let ports: Vec<u16> = sent
            .iter()
            .map(|f| {
                let at = if n == 4 { 34 } else { 54 };
                u16::from_be_bytes([f[at], f[at + 1]])
            })
            .collect();
        assert!(ports.iter().all(|p| *p == ports[0]), "one way for all: {ports:?}");
        assert!(opened.iter().all(|(_, f)| f[..6] == mac.0 && f[6..12] == GW.0));
        let packets: Vec<&[u8]> = opened.iter().map(|(_, f)| &f[14..]).collect();
        assert_eq!(reassemble(&packets, room), message);
        assert_eq!(packets[0][20..32], packet[20..32], "all options in the first");
        assert!(packets[1..].iter().all(|p| p[0] == 0x46 && p[20..24] == [148, 4, 0, 0]));
        assert_eq!((lab.tables.counters.worker.fragmented, lab.drops(DropReason::TooBig)), (1, 0));
    }
}

/// Bridged ones are not cut: an L2 VN has no router.
#[test]
fn r8_bridged_packets_are_not_cut() {
    let mut lab = Lab::routed(false);
    let big = packet((M1, R4), (v4(1).into(), v4(4).into()), 64, &[1; 2000]);
    dropped(&mut lab, P1, &big, DropReason::TooBig);
}

#[test]
fn r8_r44_routed_packets_that_were_held_or_are_in_flight_are_cut_or_told_of_too() {
    let mut lab = Lab::routed(false);
    let stranger = Key::new(OTHER_VN, STRANGER);
    let df = |len: usize| V4 { frag: 0x4000, ..V4::new(v4(1), far4(9), 99) }.packet(&vec![3; len]);
    let cut = packet((M1, GW), (v4(1).into(), far4(9).into()), 64, &[5; 3000]);
    lab.input(P1, &[cut.clone(), frames::ethernet(GW, M1, 0x0800, &df(2000))]);
    assert_eq!(lab.tables.waiting(), 2);
    let to = Target { tunnel: T4, vni: other_vni() };
    lab.apply(Update::VmSet { key: stranger, state: VmState::Remote { to } });
    lab.settle();
    let packets: Vec<&[u8]> = lab.to(UPLINK).iter().map(|f| &open(f).1[14..]).collect();
    let payload = reassemble(&packets, fits(&lab, T4));
    assert_eq!(payload, cut[34..], "UDP of the packet");
    let error = lab.to(P1)[0].to_vec();
    assert_eq!((error[34], error[35], &error[26..30]), (3, 4, &v4(254).octets()[..]));
    assert_eq!((&error[..12], lab.drops(DropReason::TooBig)), (&[M1.0, GW.0].concat()[..], 1));
    lab.clear();
    // In flight: R4's packet for M1, which left P1 for an NVE behind a way that carries less.
    lab.tunnel_of_mtu(T6, NVE_B6.into(), 1400);
    lab.departed(T6);
    let from_far = |frag| {
        let p = V4 { ttl: 63, frag, ident: 5, ..V4::new(far4(4), v4(1), 99) }.packet(&[8; 1440]);
        vxlan_from(NVE_B.into(), vni()).frame(&frames::ethernet(M1, GW, 0x0800, &p))
    };
    lab.one(UPLINK, &from_far(0));
    let sent = lab.to(UPLINK);
    assert!(sent.iter().all(|f| open(f).0.dst == IpAddr::from(NVE_B6) && open(f).0.ttl == 48));
    let packets: Vec<&[u8]> = sent.iter().map(|f| &open(f).1[14..]).collect();
    assert_eq!(reassemble(&packets, fits(&lab, T6)), [8; 1440]);
    assert_eq!(lab.tables.counters.worker.forwarded_in_flight, 1);
    lab.clear();
    // Its sender is told by the gateway of its own VN, where it is.
    lab.one(UPLINK, &from_far(0x4000));
    let (outer, inner) = open(lab.only().1);
    assert_eq!((outer.dst, outer.vni), (NVE_B.into(), other_vni()));
    assert_eq!((inner[34], inner[35], &inner[..12]), (3, 4, &[R4.0, GW.0].concat()[..]));
    assert_eq!((&inner[26..30], &inner[30..34]), (&far4(254).octets()[..], &far4(4).octets()[..]));
}
