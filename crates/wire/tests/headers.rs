//! Extension chains, ICMP errors and what they quote, checksums that may be absent, addresses.

use godwit_testkit::frames::{self, Ck, V4, V6};
use godwit_wire::ipv6::Upper;
use godwit_wire::{Ipv4, Ipv6, Mac, Udp, Vni, WireError, icmpv4, icmpv6, ipv6, proto, quote};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const M1: Mac = Mac([2, 0, 0, 0, 0, 1]);
const M2: Mac = Mac([2, 0, 0, 0, 0, 2]);
const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);

fn upper(first: u8, chain: &[u8]) -> Result<Upper, WireError> {
    let mut ip = V6::new(A6, B6, first);
    ip.extensions = chain.to_vec();
    Ipv6::new_checked(&ip.packet(&[0; 8])[..]).expect("IPv6").upper()
}

#[test]
fn extension_headers_have_their_own_units() {
    // AH with length 4 is (4 + 2) * 4 = 24 bytes long, destination options with 1 are 16.
    let mut chain = vec![proto::DEST_OPTIONS, 4];
    chain.resize(24, 0);
    chain.extend([proto::UDP, 1]);
    chain.resize(24 + 16, 0);
    let expected = Upper { proto: proto::UDP, offset: 80, fragment: None };
    assert_eq!(upper(proto::AH, &chain), Ok(expected));
    // ESP and "no next header" end the chain.
    for end in [proto::ESP, proto::NO_NEXT] {
        let expected = Upper { proto: end, offset: 40, fragment: None };
        assert_eq!(upper(end, &[]), Ok(expected));
    }
}

#[test]
fn the_walk_ends_with_the_packet() {
    let chain = |n: usize| {
        let mut c = [proto::DEST_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(n);
        c[(n - 1) * 8] = proto::UDP;
        c
    };
    for n in [1, 8, 12, 1000] {
        let found = upper(proto::DEST_OPTIONS, &chain(n));
        assert_eq!(found.map(|u| (u.proto, u.offset)), Ok((proto::UDP, 40 + 8 * n)));
        let endless = chain(n)[..8 * n - 8].to_vec();
        assert_eq!(
            upper(proto::DEST_OPTIONS, &endless),
            Err(WireError::Truncated),
            "{n}: cut off before its end"
        );
    }
    assert_eq!(upper(proto::ROUTING, &[proto::UDP, 2]), Err(WireError::Truncated));
}

fn permits4(change: impl Fn(&mut V4), payload: &[u8]) -> bool {
    let mut ip = V4::new(A4, B4, proto::UDP);
    change(&mut ip);
    icmpv4::permits_error(&Ipv4::new_checked(&ip.packet(payload)[..]).expect("IPv4"))
}

#[test]
fn what_an_icmp_error_may_answer() {
    assert!(permits4(|_| (), &[0; 8]));
    assert!(permits4(|ip| ip.frag = 0x2000, &[0; 8]));
    assert!(!permits4(|ip| ip.frag = 0x0001, &[0; 8]));
    for group in [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
        assert!(!permits4(|ip| ip.src = group, &[0; 8]) && !permits4(|ip| ip.dst = group, &[0; 8]));
    }
    assert!(!permits4(|ip| ip.src = Ipv4Addr::UNSPECIFIED, &[0; 8]));
    for (kind, may) in [(0, true), (3, false), (5, false), (8, true), (11, false), (12, false)] {
        let message = frames::icmpv4(kind, 0, 0, &[], Ck::Good);
        assert_eq!(permits4(|ip| ip.proto = proto::ICMP, &message), may, "type {kind}");
    }
}

fn permits6(change: impl Fn(&mut V6), payload: &[u8]) -> bool {
    let mut ip = V6::new(A6, B6, proto::UDP);
    change(&mut ip);
    icmpv6::permits_error(&Ipv6::new_checked(&ip.packet(payload)[..]).expect("IPv6"))
}

#[test]
fn what_an_icmpv6_error_may_answer() {
    assert!(permits6(|_| (), &[0; 8]));
    let fragment = |offset| {
        move |ip: &mut V6| {
            ip.next = proto::FRAGMENT;
            ip.extensions = frames::v6_fragment(proto::UDP, offset, true, 1);
        }
    };
    assert!(permits6(fragment(0), &[0; 8]) && !permits6(fragment(8), &[0; 8]));
    assert!(!permits6(|ip| ip.dst = ipv6::ALL_NODES, &[0; 8]));
    assert!(!permits6(|ip| ip.src = Ipv6Addr::UNSPECIFIED, &[0; 8]));
    for (kind, may) in [(1, false), (2, false), (127, false), (128, true), (135, true), (137, false)] {
        let message = frames::icmpv6(A6, B6, kind, 0, &[0; 4], Ck::Good);
        assert_eq!(permits6(|ip| ip.next = proto::ICMPV6, &message), may, "type {kind}");
    }
}

#[test]
fn errors_quote_as_much_as_they_may() {
    let original = vec![7; 9000];
    let mut out = vec![0; 2000];
    let error = icmpv4::ErrorRepr {
        eth_src: M1,
        eth_dst: M2,
        src: A4,
        dst: B4,
        kind: icmpv4::TIME_EXCEEDED,
        code: 0,
        rest: 0,
    };
    let message = frames::icmpv4(11, 0, 0, &original[..548], Ck::Good);
    let expected = frames::ethernet(M2, M1, 0x0800, &V4::new(A4, B4, 1).packet(&message));
    let len = error.emit_frame(&mut out, &original).expect("fits");
    assert_eq!((&out[..len], len), (&expected[..], 590));
    assert_eq!(error.emit_frame(&mut out[..589], &original), Err(WireError::NoSpace));

    let error = icmpv6::ErrorRepr {
        eth_src: M1,
        eth_dst: M2,
        src: A6,
        dst: B6,
        kind: icmpv6::PACKET_TOO_BIG,
        code: 0,
        rest: 1430,
    };
    let body = [&1430u32.to_be_bytes()[..], &original[..1232]].concat();
    let message = frames::icmpv6(A6, B6, 2, 0, &body, Ck::Good);
    let expected = frames::ethernet(M2, M1, 0x86dd, &V6::new(A6, B6, 58).packet(&message));
    let len = error.emit_frame(&mut out, &original).expect("fits");
    assert_eq!((&out[..len], len), (&expected[..], 1294));
    assert_eq!(error.emit_frame(&mut out[..1293], &original), Err(WireError::NoSpace));
}

#[test]
fn only_unicast_echo_requests_are_answered() {
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let refused = [
        frames::ping((M1, A4.into()), (Mac::BROADCAST, B4.into()), 1, b"x"),
        frames::ping((M1, A4.into()), (M2, Ipv4Addr::BROADCAST.into()), 1, b"x"),
        frames::pong((M1, A4.into()), (M2, B4.into()), 1, b"x"),
        frames::ping((M1, A6.into()), (group, ipv6::ALL_NODES.into()), 1, b"x"),
        frames::ping((M1, Ipv6Addr::UNSPECIFIED.into()), (M2, B6.into()), 1, b"x"),
        frames::pong((M1, A6.into()), (M2, B6.into()), 1, b"x"),
    ];
    for f in refused {
        let (mut four, mut six) = (f.clone(), f.clone());
        assert_eq!(icmpv4::echo_reply_in_place(&mut four, 64), Err(WireError::NotThis));
        assert_eq!(icmpv6::echo_reply_in_place(&mut six, 64), Err(WireError::NotThis));
        assert_eq!((&four, &six), (&f, &f));
    }
}

/// An ICMP 3/4 that quotes the first `n` bytes of a tunnel packet, changed by `change`.
fn too_big_v4(n: usize, change: impl Fn(&mut Vec<u8>)) -> Result<quote::TunnelTooBig, WireError> {
    let locators: (IpAddr, IpAddr) = (A4.into(), B4.into());
    let ours = frames::Vxlan::new((M1, M2), locators, Vni::from_low24(5)).frame(&[0; 60]);
    let mut quoted = ours[14..14 + n].to_vec();
    change(&mut quoted);
    let message = frames::icmpv4(3, 4, 1400, &quoted, Ck::Good);
    let f = frames::ethernet(M2, M1, 0x0800, &V4::new(B4, A4, 1).packet(&message));
    quote::parse_too_big(&f, 4789)
}

#[test]
fn quotes_may_be_short() {
    let vni = |r: Result<quote::TunnelTooBig, WireError>| r.map(|q| q.vni.map(Vni::get));
    assert_eq!(vni(too_big_v4(96, |_| ())), Ok(Some(5)));
    assert_eq!(vni(too_big_v4(36, |_| ())), Ok(Some(5)));
    assert_eq!(vni(too_big_v4(35, |_| ())), Ok(None));
    assert_eq!(vni(too_big_v4(28, |_| ())), Ok(None));
    for n in 0..28 {
        assert_eq!(vni(too_big_v4(n, |_| ())), Err(WireError::Truncated));
    }
}

#[test]
fn quotes_of_other_packets_are_not_ours() {
    assert_eq!(too_big_v4(96, |q| q[9] = proto::TCP), Err(WireError::NotThis));
    assert_eq!(too_big_v4(96, |q| q[7] = 1), Err(WireError::NotThis));
    assert_eq!(too_big_v4(96, |q| q[23] ^= 1), Err(WireError::NotThis));
    assert_eq!(too_big_v4(96, |q| q[28] = 0), Err(WireError::BadField));
    assert_eq!(too_big_v4(96, |q| q[0] = 0x65), Err(WireError::BadVersion));
    assert_eq!(too_big_v4(96, |q| q[0] = 0x44), Err(WireError::BadLength));
}

#[test]
fn an_absent_udp_checksum_is_fine_in_ipv4_only() {
    let (a, b) = (A4.into(), B4.into());
    let m = frames::udp(a, b, (1, 2), b"x", Ck::Raw(0));
    assert!(Udp::new_checked(&m[..]).expect("UDP").verify_v4(A4, B4));
    // A sum that would be right if zero did not mean "none": 0 in place of 0xffff.
    let found = (0..=u16::MAX).any(|free| {
        let m = frames::udp(A6.into(), B6.into(), (1, 2), &free.to_be_bytes(), Ck::Good);
        let all_ones = m[6..8] == [0xff, 0xff];
        if all_ones {
            assert!(Udp::new_checked(&m[..]).expect("UDP").verify_v6(A6, B6));
            let m = frames::udp(A6.into(), B6.into(), (1, 2), &free.to_be_bytes(), Ck::Raw(0));
            assert!(!Udp::new_checked(&m[..]).expect("UDP").verify_v6(A6, B6));
        }
        all_ones
    });
    assert!(found, "one of 65536 payloads sums up to zero");
}

#[test]
fn addresses_as_text() {
    assert_eq!("02:00:00:00:00:01".parse(), Ok(M1));
    assert_eq!("02-00-00-00-00-01".parse(), Ok(M1));
    for bad in [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "+2:00:00:00:00:01",
        "2:0:0:0:0:1",
        "0g:00:00:00:00:01",
    ] {
        assert!(bad.parse::<Mac>().is_err(), "{bad}");
    }
    assert_eq!(Mac::from_u64(M1.to_u64()), M1);
    assert_eq!("16777215".parse::<Vni>().map(Vni::get), Ok(0xff_ffff));
    assert!("16777216".parse::<Vni>().is_err());
}

#[test]
fn groups() {
    assert_eq!(ipv6::solicited_node(A6), frames::solicited_node(A6));
    assert_eq!(ipv6::solicited_node_mac(A6), frames::group_mac(frames::solicited_node(A6)));
    assert!(ipv6::is_solicited_node(frames::solicited_node(B6)));
    assert!(!ipv6::is_solicited_node(ipv6::ALL_NODES) && !ipv6::is_solicited_node(A6));
    let group = godwit_wire::ethernet::multicast_mac_v4([239, 129, 2, 3].into());
    assert_eq!(group, Mac([0x01, 0x00, 0x5e, 0x01, 2, 3]));
}
