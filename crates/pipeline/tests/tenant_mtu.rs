//! Frames that are too big for the way to another NVE: what passes, and what their sender is told.

use crate::common::*;
use godwit_tables::DropReason;
use godwit_testkit::frames;
use godwit_wire::Mac;
use godwit_wire::ethernet::Ethernet;
use godwit_wire::icmpv4::Icmpv4;
use godwit_wire::icmpv6::Icmpv6;
use godwit_wire::ipv4::Ipv4;
use godwit_wire::ipv6::Ipv6;

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
