//! R2 and R4: the entropy of the source port and the flow label.

use godwit_testkit::frames::{self, Ck, V4, V6};
use godwit_wire::flow::{FlowKind, flow_hash};
use godwit_wire::{FlowHash, FlowKey, HashKey, Mac};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const M1: Mac = Mac([2, 0, 0, 0, 0, 1]);
const M2: Mac = Mac([2, 0, 0, 0, 0, 2]);
const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
const FLOWS: u32 = 10_000;

/// Poor keys, which must do as well, and some that look random.
fn keys() -> Vec<HashKey> {
    let poor = [(0, 0), (1, 2), (u64::MAX, 0), (!7, !7)];
    let scattered = (1..9u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i.pow(20)));
    poor.into_iter().chain(scattered).map(|(a, b)| HashKey::new(a, b)).collect()
}

/// R2's test: 10 000 flows over 64 buckets, each within 40 % of the mean; by the low bits of the
/// port, by its high bits and by both ends of the flow label.
fn assert_spread(what: &str, hashes: &[FlowHash]) {
    type Pick = fn(FlowHash) -> usize;
    let picks: [(&str, Pick); 4] = [
        ("port, low bits", |h| usize::from(h.src_port() % 64)),
        ("port, high bits", |h| usize::from((h.src_port() - 49152) / 256)),
        ("label, low bits", |h| (h.flow_label() % 64) as usize),
        ("label, high bits", |h| (h.flow_label() >> 14) as usize),
    ];
    for (bits, pick) in picks {
        let mut buckets = [0u32; 64];
        hashes.iter().for_each(|h| buckets[pick(*h)] += 1);
        let mean = hashes.len() as f64 / 64.0;
        for (i, n) in buckets.iter().enumerate() {
            let off = (f64::from(*n) - mean).abs() / mean;
            assert!(off <= 0.4, "{what}, {bits}: bucket {i} has {n}, mean {mean}");
        }
    }
}

fn spread(what: &str, frame: impl Fn(u32) -> Vec<u8>) {
    for key in keys() {
        let hashes: Vec<_> = (0..FLOWS).map(|i| flow_hash(&frame(i), &key)).collect();
        assert_spread(what, &hashes);
    }
}

/// Flows get source ports that spread evenly (R2).
#[test]
fn flows_spread_by_source_port() {
    for (a, b) in [(IpAddr::from(A4), IpAddr::from(B4)), (A6.into(), B6.into())] {
        spread("source port", |i| frames::udp_frame((M1, a, 1024 + i as u16), (M2, b, 53), b"x"));
    }
}

#[test]
fn flows_spread_by_destination_port() {
    for (a, b) in [(IpAddr::from(A4), IpAddr::from(B4)), (A6.into(), B6.into())] {
        spread("destination port", |i| frames::tcp_frame((M1, a, 4000), (M2, b, i as u16), (0, 0), 2, b""));
    }
}

#[test]
fn flows_spread_by_address() {
    spread("IPv4 source", |i| {
        frames::ping((M1, Ipv4Addr::from(0x0a00_0000 + i).into()), (M2, B4.into()), 0, b"")
    });
    spread("IPv6 destination", |i| {
        let to = Ipv6Addr::from(u128::from(B6) + u128::from(i));
        frames::ping((M1, A6.into()), (M2, to.into()), 0, b"")
    });
    spread("IPv6 prefix", |i| {
        let from = Ipv6Addr::from(u128::from(A6) + (u128::from(i) << 64));
        frames::ping((M1, from.into()), (M2, B6.into()), 0, b"")
    });
}

#[test]
fn non_ip_spreads_by_mac_and_type() {
    spread("MAC", |i| frames::ethernet(M2, Mac::from_u64(0x0200_0000_0000 + u64::from(i)), 0x88b5, &[0; 46]));
    spread("EtherType", |i| frames::ethernet(M2, M1, 0x9000 + i as u16, &[0; 46]));
}

/// Packets of one flow have one source port (R2).
#[test]
fn one_flow_has_one_port_whatever_it_carries() {
    let key = HashKey::new(3, 4);
    for (a, b) in [(IpAddr::from(A4), IpAddr::from(B4)), (A6.into(), B6.into())] {
        let one = flow_hash(&frames::tcp_frame((M1, a, 1), (M2, b, 2), (0, 0), 2, b""), &key);
        for n in 0..1000u32 {
            let data = vec![n as u8; n as usize % 97];
            let f = frames::tcp_frame((M1, a, 1), (M2, b, 2), (n, n * 7), 0x18, &data);
            assert_eq!(flow_hash(&f, &key), one);
            // A tag does not make another flow, nor does Ethernet padding.
            assert_eq!(flow_hash(&frames::tagged(&f, 0x8100, 5), &key), one);
            assert_eq!(flow_hash(&frames::padded(f, 300), &key), one);
        }
    }
}

/// Fragments of one datagram have one source port (R2).
#[test]
fn fragments_of_one_datagram_share_a_port() {
    let datagram = frames::udp(A4.into(), B4.into(), (7, 8), &[9; 4000], Ck::Good);
    let mut keys = HashSet::new();
    for (i, piece) in datagram.chunks(1480).enumerate() {
        let mut ip = V4::new(A4, B4, 17);
        let more = (i + 1) * 1480 < datagram.len();
        ip.frag = (i * 1480 / 8) as u16 | if more { 0x2000 } else { 0 };
        keys.insert(FlowKey::of_frame(&frames::ethernet(M2, M1, 0x0800, &ip.packet(piece))));
    }
    assert_eq!(keys.len(), 1);
    assert!(keys.iter().all(|k| k.kind() == FlowKind::V4));

    let datagram = frames::udp(A6.into(), B6.into(), (7, 8), &[9; 4000], Ck::Good);
    let mut keys = HashSet::new();
    for (i, piece) in datagram.chunks(1448).enumerate() {
        let mut ip = V6::new(A6, B6, 44);
        let more = (i + 1) * 1448 < datagram.len();
        ip.extensions = frames::v6_fragment(17, (i * 1448) as u16, more, 1);
        keys.insert(FlowKey::of_frame(&frames::ethernet(M2, M1, 0x86dd, &ip.packet(piece))));
    }
    assert_eq!(keys.len(), 1);
    assert!(keys.iter().all(|k| k.kind() == FlowKind::V6));
}

/// A packet without whole ports is hashed by three fields (R2).
#[test]
fn truncated_transport_falls_back_to_three_fields() {
    for n in 0..4 {
        let f = frames::ethernet(M2, M1, 0x0800, &V4::new(A4, B4, 6).packet(&[1, 2, 3][..n.min(3)]));
        assert_eq!(FlowKey::of_frame(&f).kind(), FlowKind::V4);
        let f = frames::ethernet(M2, M1, 0x86dd, &V6::new(A6, B6, 6).packet(&[1, 2, 3][..n.min(3)]));
        assert_eq!(FlowKey::of_frame(&f).kind(), FlowKind::V6);
    }
    // Four bytes are two ports, even where the rest is missing.
    let f = frames::ethernet(M2, M1, 0x0800, &V4::new(A4, B4, 6).packet(&[0, 1, 0, 2]));
    assert_eq!((FlowKey::of_frame(&f).kind(), FlowKey::of_frame(&f).ports()), (FlowKind::V4Ports, (1, 2)));
    let f = frames::ethernet(M2, M1, 0x86dd, &V6::new(A6, B6, 6).packet(&[0, 1, 0, 2]));
    assert_eq!((FlowKey::of_frame(&f).kind(), FlowKey::of_frame(&f).ports()), (FlowKind::V6Ports, (1, 2)));
    // Padding after the IP packet is no transport header.
    let f = frames::ethernet(M2, M1, 0x0800, &V4::new(A4, B4, 6).packet(&[]));
    assert_eq!(FlowKey::of_frame(&frames::padded(f, 60)).kind(), FlowKind::V4);
    // A chain of extensions that is cut off.
    let mut ip = V6::new(A6, B6, 60);
    ip.extensions = vec![17, 9];
    let f = frames::ethernet(M2, M1, 0x86dd, &ip.packet(&[]));
    assert_eq!((FlowKey::of_frame(&f).kind(), FlowKey::of_frame(&f).proto()), (FlowKind::V6, 60));
}

#[test]
fn malformed_ip_counts_as_non_ip() {
    let mut ip = V4::new(A4, B4, 17);
    ip.version_ihl = Some(0x44);
    let f = frames::ethernet(M2, M1, 0x0800, &ip.packet(&[0; 8]));
    assert_eq!((FlowKey::of_frame(&f).kind(), FlowKey::of_frame(&f).proto()), (FlowKind::Mac, 0x0800));
    assert_eq!(FlowKey::of_frame(&[0; 13]), FlowKey::of_frame(&[]));
}

#[test]
fn icmp_has_no_ports_and_keys_differ() {
    let f = frames::ping((M1, A4.into()), (M2, B4.into()), 1, b"x");
    assert_eq!(FlowKey::of_frame(&f).kind(), FlowKind::V4);
    let other = frames::ping((M1, A4.into()), (M2, B4.into()), 2, b"y");
    assert_eq!(FlowKey::of_frame(&f), FlowKey::of_frame(&other));
    let ports: HashSet<_> = (0..64).map(|k| flow_hash(&f, &HashKey::new(k, 0)).src_port()).collect();
    assert!(ports.len() > 60, "the secret decides the port: {}", ports.len());
}

/// An outer IPv6 header has a flow label (R4).
#[test]
fn flow_label_is_never_zero() {
    assert_eq!(FlowHash(0).flow_label(), 1);
    assert_eq!(FlowHash(0xfff0_0000_0000_0000).flow_label(), 1);
    assert_eq!((FlowHash(0).src_port(), FlowHash(u64::MAX).src_port()), (49152, 65535));
}
