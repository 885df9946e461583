//! A tenant's frame read once is what the views of its protocols read layer by layer, and what the fast path reads at
//! fixed places: flow hash, ECN, addresses, ports, offsets, and to whom its message is. The comparison is the fuzz
//! target's, `testkit/src/fuzzing/reading.rs`.

use godwit_testkit::frames::{self, Ck, Nd};
use godwit_testkit::fuzzing;
use godwit_wire::ethernet::EtherType;
use godwit_wire::frame::{Frame, Network};
use godwit_wire::tenant::{self, Source};
use godwit_wire::{Ecn, HashKey, Mac, WireError};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const M1: Mac = Mac([2, 0, 0, 0, 0, 1]);
const M2: Mac = Mac([2, 0, 0, 0, 0, 2]);
const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);

/// Protocols that some reader treats in a way of its own.
const PROTOCOLS: [u8; 14] = [6, 6, 17, 17, 58, 58, 1, 132, 50, 59, 44, 43, 51, 60];

/// An upper layer: ports that guards know, or a message of neighbor discovery.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let port = || prop_oneof![Just(67u16), Just(68), Just(546), Just(547), any::<u16>()];
    let ports = (port(), port(), any::<[u8; 20]>()).prop_map(|(from, to, rest)| {
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 24, 0, 0, 0, 0, 0, 0, 0x50], &rest].concat()
    });
    let discovery = (130u8..140, any::<[u8; 31]>()).prop_map(|(kind, rest)| [&[kind, 0], &rest[..]].concat());
    prop_oneof![ports, discovery, proptest::collection::vec(any::<u8>(), 0..6)]
}

/// A chain of extension headers that ends with the protocol, and what the fixed header names first.
fn extensions(kinds: &[u8], offset: u8, proto: u8) -> (u8, Vec<u8>) {
    let mut chain = Vec::new();
    for (i, &kind) in kinds.iter().enumerate() {
        let next = kinds.get(i + 1).copied().unwrap_or(proto);
        match kind {
            44 => chain.extend([next, 0, 0, offset, 0, 0, 0, 9]),
            // Four-byte units less two.
            51 => chain.extend([next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
            _ => chain.extend([next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    (kinds.first().copied().unwrap_or(proto), chain)
}

fn packet6() -> impl Strategy<Value = Vec<u8>> {
    let kinds =
        proptest::collection::vec(proptest::sample::select(vec![0u8, 60, 60, 43, 44, 51, 135]), 0..11);
    (proptest::sample::select(PROTOCOLS.to_vec()), kinds, any::<u8>(), message(), any::<u8>()).prop_map(
        |(proto, kinds, offset, message, class)| {
            let (next, extensions) = extensions(&kinds, offset, proto);
            let v6 = frames::V6 { next, hop_limit: 255, extensions, ..frames::V6::new(A6, B6, proto) };
            let mut packet = v6.packet(&message);
            (packet[0], packet[1]) = (0x60 | class >> 4, class << 4);
            packet
        },
    )
}

fn packet4() -> impl Strategy<Value = Vec<u8>> {
    let frag = prop_oneof![4 => Just(0x4000u16), 1 => Just(0x2000), 1 => Just(1), 1 => any::<u16>()];
    let options = (0usize..11).prop_map(|n| vec![1; 4 * n]);
    (proptest::sample::select(PROTOCOLS.to_vec()), frag, options, message(), any::<u8>()).prop_map(
        |(proto, frag, options, message, tos)| {
            let mut packet = frames::V4 { frag, options, ..frames::V4::new(A4, B4, proto) }.packet(&message);
            packet[1] = tos;
            packet
        },
    )
}

/// The packets of the fast path: neither options nor fragments.
fn usual() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), any::<bool>(), any::<u8>(), message()).prop_map(|(six, tcp, class, message)| {
        let (proto, len) = (if tcp { 6 } else { 17 }, message.len().max(4));
        let mut message = message;
        message.resize(len, 7);
        let (src, dst): (IpAddr, IpAddr) = if six { (A6.into(), B6.into()) } else { (A4.into(), B4.into()) };
        let mut packet = frames::ip(src, dst, proto, &message);
        match six {
            true => (packet[0], packet[1]) = (0x60 | class >> 4, class << 4),
            false => packet[1] = class,
        }
        packet
    })
}

fn resolution() -> impl Strategy<Value = Vec<u8>> {
    let nonce = Nd { options: vec![14, 1, 1, 2, 3, 4, 5, 6], ..Nd::dad(M1, A6) };
    proptest::sample::select(vec![
        frames::arp_request(M1, A4, B4),
        frames::garp(M1, A4),
        frames::rarp_announce(M1),
        nonce.frame(),
        Nd::solicit(M1, A6, B6).frame(),
        Nd::announce(M1, A6).frame(),
        Nd { checksum: Ck::Bad, ..Nd::announce(M1, A6) }.frame(),
    ])
}

/// A frame of any kind behind up to three tags, padded, cut, and with a few bytes changed.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let ip = |packet: Vec<u8>| {
        let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        frames::ethernet(M2, M1, ethertype, &packet)
    };
    let plain = prop_oneof![
        3 => packet4().prop_map(ip),
        3 => packet6().prop_map(ip),
        2 => usual().prop_map(ip),
        1 => resolution(),
    ];
    let tags = proptest::collection::vec(proptest::sample::select(vec![0x8100u16, 0x88a8]), 0..4);
    let tags = prop_oneof![2 => Just(Vec::new()), 1 => tags];
    let length = prop_oneof![3 => Just(None), 2 => (0usize..160).prop_map(Some)];
    let changes = proptest::collection::vec((12usize..90, any::<u8>()), 0..3);
    let changes = prop_oneof![1 => Just(Vec::new()), 1 => changes];
    (plain, tags, length, changes).prop_map(|(mut f, tags, length, changes)| {
        for tpid in tags {
            f = frames::tagged(&f, tpid, 7);
        }
        for (at, value) in changes {
            if let Some(b) = f.get_mut(at) {
                *b = value;
            }
        }
        f.resize(length.unwrap_or(f.len()), 0);
        f
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn read_once_is_what_the_views_read(f in frame()) {
        fuzzing::frame(&f);
    }

    #[test]
    fn the_fast_path_reads_the_usual_as_it_is(packet in usual(), padding in 0usize..40) {
        let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        let mut f = frames::ethernet(M2, M1, ethertype, &packet);
        f.resize(f.len() + padding, 0);
        fuzzing::frame(&f);
        let (l4, client) = if packet[0] >> 4 == 6 { (40, 546) } else { (20, 68) };
        let to_client = u16::from_be_bytes([packet[l4 + 2], packet[l4 + 3]]) == client;
        prop_assert_eq!(tenant::quick_look(&f, &HashKey::new(1, 2)).is_some(), !to_client);
    }

    #[test]
    fn no_bytes_are_read_differently(b in proptest::collection::vec(any::<u8>(), 0..120)) {
        fuzzing::frame(&b);
    }
}

#[test]
fn layers_that_cannot_be_read_are_states_of_their_own() {
    let udp = frames::udp_frame((M1, A4.into(), 1), (M2, B4.into(), 2), b"four");
    let read = |f: &[u8]| Frame::read(f).map(|f| (f.network(), f.source(), f.ecn()));
    let sound = read(&udp).expect("a header");
    assert!(matches!(sound.0, Network::V4(ip) if ip.end == udp.len()));
    assert_eq!((sound.1, sound.2), (Source::V4(A4.to_bits()), Some(Ecn::NotEct)));
    assert_eq!(read(&udp[..13]).err(), Some(WireError::Truncated));
    let cut = Network::Malformed(WireError::BadLength);
    assert_eq!(read(&udp[..udp.len() - 1]), Ok((cut, Source::Malformed, None)));
    let tagged = frames::tagged(&udp, 0x8100, 7);
    assert_eq!(read(&tagged[..17]), Ok((Network::Unknown, Source::NotIp, None)));
    let three = frames::tagged(&frames::tagged(&tagged, 0x8100, 7), 0x88a8, 7);
    assert_eq!(read(&three), Ok((Network::NotIp, Source::NotIp, None)));
    assert_eq!(Frame::read(&three).map(|f| f.ethertype()), Ok(EtherType::VLAN));
    // Of a first piece the sender's address is known, and nothing else that the rest may change.
    let first = Frame::read_first(&udp[..40], udp.len()).expect("a header");
    assert!(matches!(first.network(), Network::V4(ip) if ip.end == udp.len()));
    assert_eq!((first.source(), first.ecn(), first.ports()), (Source::V4(A4.to_bits()), None, None));
}
