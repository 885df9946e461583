//! R61: which IGMP and MLD messages say what, and which are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_testkit::frames::{self, Ck, V4, V6};
use godwit_wire::membership::{Message, Query, Version, Wish};
use godwit_wire::{Frame, Mac, Span, WireError, igmp, membership, mld};
use proptest::prelude::*;

const M: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOST4: (Mac, Ipv4Addr) = (M, Ipv4Addr::new(10, 0, 0, 1));
const HOST6: (Mac, Ipv6Addr) = (M, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const G4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const G6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);

fn wishes(frame: &[u8]) -> Vec<(IpAddr, Wish)> {
    match membership::read(&Frame::read(frame).unwrap()) {
        Some(Ok(Message::Report(report))) => report.wishes().collect(),
        other => panic!("no report: {other:?}"),
    }
}

fn query(frame: &[u8]) -> Query {
    match membership::read(&Frame::read(frame).unwrap()) {
        Some(Ok(Message::Query(query))) => query,
        other => panic!("no query: {other:?}"),
    }
}

#[track_caller]
fn refused(frame: &[u8], why: WireError) {
    assert_eq!(membership::read(&Frame::read(frame).unwrap()), Some(Err(why)));
}

#[test]
fn r61_reports_of_old_versions() {
    for kind in [0x12, 0x16] {
        assert_eq!(wishes(&frames::igmp_one(HOST4, kind, G4)), [(G4.into(), Wish::Member)]);
    }
    assert_eq!(wishes(&frames::igmp_one(HOST4, 0x17, G4)), [(G4.into(), Wish::Left)]);
    assert_eq!(wishes(&frames::mld_one(HOST6, 131, G6)), [(G6.into(), Wish::Member)]);
    assert_eq!(wishes(&frames::mld_one(HOST6, 132, G6)), [(G6.into(), Wish::Left)]);
    // A host that has no address yet (RFC 3810 section 5.2.13).
    assert_eq!(wishes(&frames::mld_one((M, Ipv6Addr::UNSPECIFIED), 131, G6)).len(), 1);
}

#[test]
fn r61_records_count_for_the_group_whatever_their_sources() {
    use Wish::{Left, Member};
    // Type, with sources, what it means.
    let cases = [
        (1, false, None),
        (1, true, Some(Member)),
        (2, false, Some(Member)),
        (2, true, Some(Member)),
        (3, false, Some(Left)),
        (3, true, Some(Member)),
        (4, false, Some(Member)),
        (4, true, Some(Member)),
        (5, true, Some(Member)),
        (6, true, Some(Left)),
        (7, true, None),
    ];
    for (kind, sources, wish) in cases {
        let expected4: Vec<_> = wish.map(|w| (IpAddr::V4(G4), w)).into_iter().collect();
        assert_eq!(
            wishes(&frames::igmp3_report(HOST4, &[(kind, G4)], sources)),
            expected4,
            "{kind} {sources}"
        );
        let expected6: Vec<_> = wish.map(|w| (IpAddr::V6(G6), w)).into_iter().collect();
        assert_eq!(
            wishes(&frames::mld2_report(HOST6, &[(kind, G6)], sources)),
            expected6,
            "{kind} {sources}"
        );
    }
    let other = Ipv4Addr::new(239, 9, 9, 9);
    let two = frames::igmp3_report(HOST4, &[(3, G4), (4, other)], false);
    assert_eq!(wishes(&two), [(G4.into(), Left), (other.into(), Member)]);
}

#[test]
fn r61_queries_of_each_version() {
    let q = query(&frames::igmp2_query(HOST4));
    assert_eq!((q.version, q.group, q.max_response), (Version::Igmp2, None, Span::from_ms(10_000)));
    assert_eq!(q.src, IpAddr::V4(HOST4.1));
    let all = Ipv4Addr::new(224, 0, 0, 1);
    let v1 = query(&frames::igmp(HOST4, all, [0x11, 0], &[0; 4]));
    assert_eq!((v1.version, v1.max_response), (Version::Igmp1, Span::from_ms(10_000)));
    let rest = [&G4.octets()[..], &[2, 125, 0, 0]].concat();
    let v3 = query(&frames::igmp(HOST4, G4, [0x11, 10], &rest));
    assert_eq!(
        (v3.version, v3.group, v3.max_response),
        (Version::Igmp3, Some(G4.into()), Span::from_ms(1000))
    );
    let q = query(&frames::mld1_query(HOST6));
    assert_eq!((q.version, q.group, q.max_response), (Version::Mld1, None, Span::from_ms(10_000)));
}

#[test]
fn r61_what_no_host_accepts_is_refused_with_its_reason() {
    let good = frames::igmp_one(HOST4, 0x16, G4);
    let at = 14 + 24;
    let mut bad = good.clone();
    bad[at + 2] ^= 1;
    refused(&bad, WireError::BadChecksum);
    refused(&frames::igmp_one(HOST4, 0x16, Ipv4Addr::new(10, 1, 1, 1)), WireError::BadField);
    refused(&frames::igmp(HOST4, G4, [0x16, 0], &[239, 1]), WireError::Truncated);
    refused(&frames::igmp(HOST4, G4, [0x11, 9], &[0; 6]), WireError::BadLength);
    // A record that says of more sources than there are.
    let long = [0, 0, 0, 1, 4, 0, 0, 9, 239, 1, 1, 1];
    refused(&frames::igmp(HOST4, G4, [0x22, 0], &long), WireError::Truncated);
    let many = [0, 0, 0xff, 0xff, 4, 0, 0, 0, 239, 1, 1, 1];
    refused(&frames::igmp(HOST4, G4, [0x22, 0], &many), WireError::Truncated);
    let far = V4 { ttl: 64, ..V4::new(HOST4.1, G4, 2) };
    let far = frames::ethernet(frames::group_mac_v4(G4), M, 0x0800, &far.packet(&good[at..]));
    refused(&far, WireError::BadHopLimit);
    let piece = V4 { ttl: 1, frag: 0x2000, ..V4::new(HOST4.1, G4, 2) };
    let piece = frames::ethernet(frames::group_mac_v4(G4), M, 0x0800, &piece.packet(&good[at..]));
    refused(&piece, WireError::Fragment);
}

#[test]
fn r61_mld_has_a_link_local_source_hop_limit_1_and_router_alert() {
    let global = (M, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    refused(&frames::mld_one(global, 131, G6), WireError::BadField);
    refused(&frames::mld1_query((M, Ipv6Addr::UNSPECIFIED)), WireError::BadField);
    refused(&frames::mld_one(HOST6, 131, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)), WireError::BadField);
    refused(&frames::mld(HOST6, G6, 131, &[0; 8]), WireError::Truncated);
    let body = [&[0; 4][..], &G6.octets()].concat();
    let message = |ck| frames::icmpv6(HOST6.1, G6, 131, 0, &body, ck);
    let alert = vec![58, 0, 5, 2, 0, 0, 1, 0];
    let packet = |hop_limit, extensions: Vec<u8>, ck| {
        let next = if extensions.is_empty() { 58 } else { 0 };
        let ip = V6 { hop_limit, extensions, ..V6::new(HOST6.1, G6, next) };
        frames::ethernet(frames::group_mac(G6), M, 0x86dd, &ip.packet(&message(ck)))
    };
    assert_eq!(wishes(&packet(1, alert.clone(), Ck::Good)).len(), 1);
    refused(&packet(2, alert.clone(), Ck::Good), WireError::BadHopLimit);
    refused(&packet(1, alert.clone(), Ck::Bad), WireError::BadChecksum);
    refused(&packet(1, Vec::new(), Ck::Good), WireError::BadField);
    // The alert of RSVP; options that end within one.
    refused(&packet(1, vec![58, 0, 5, 2, 0, 1, 1, 0], Ck::Good), WireError::BadField);
    refused(&packet(1, vec![58, 0, 1, 9, 0, 0, 0, 0], Ck::Good), WireError::BadField);
    assert_eq!(wishes(&packet(1, vec![58, 0, 0, 0, 5, 2, 0, 0], Ck::Good)).len(), 1, "behind padding");
}

#[test]
fn r61_other_frames_are_none() {
    let none = |frame: &[u8]| assert_eq!(membership::read(&Frame::read(frame).unwrap()), None);
    none(&frames::udp_frame((M, HOST4.1.into(), 1), (frames::group_mac_v4(G4), G4.into(), 2), b"stream"));
    none(&frames::Nd::announce(M, HOST6.1).frame());
    // DVMRP and PIMv1 share IGMP's number.
    none(&frames::igmp(HOST4, G4, [0x13, 1], &[0; 4]));
    none(&frames::arp_request(M, HOST4.1, HOST4.1));
}

/// By RFC 3376 sections 4 and 4.1: TTL 1, internetwork control, Router Alert; 10 s, robustness 2, 125 s.
#[test]
fn r61_a_general_query_byte_for_byte() {
    let frame = igmp::QueryFrame {
        eth_src: M,
        src: Ipv4Addr::new(10, 0, 0, 254),
        group: None,
        version: Version::Igmp3,
        max_response: Span::from_ms(10_000),
        robustness: 2,
        interval: Span::from_ms(125_000),
    };
    let mut buf = [0; igmp::MAX_FRAME_LEN];
    let len = frame.emit_frame(&mut buf).unwrap();
    #[rustfmt::skip]
    let golden = [
        1, 0, 0x5e, 0, 0, 1, 2, 0, 0, 0, 0, 1, 8, 0,
        0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, 2, 0xf9, 0x14, 10, 0, 0, 254, 224, 0, 0, 1, 0x94, 4, 0, 0,
        0x11, 100, 0xec, 0x1e, 0, 0, 0, 0, 2, 125, 0, 0,
    ];
    assert_eq!(frames::checksum(&golden[14..38]), 0, "the header's checksum is right");
    assert_eq!(frames::checksum(&golden[38..]), 0, "the message's checksum is right");
    assert_eq!(buf[..len], golden);
    assert!(matches!(frame.emit_frame(&mut [0; 20]), Err(WireError::NoSpace)));
}

proptest! {
    #[test]
    fn r61_what_is_written_is_what_is_read(
        v4 in any::<[u8; 4]>(), g in any::<[u8; 3]>(), v6 in any::<[u8; 8]>(), g6 in any::<[u8; 15]>(),
        all in any::<bool>(), new in any::<bool>(), left in any::<bool>(), ms in 100u64..400_000,
    ) {
        let src4 = Ipv4Addr::new(v4[0] & 0x7f, v4[1], v4[2], v4[3]);
        let group4 = Ipv4Addr::new(224 + g[0] % 16, g[1], g[2], 1);
        let mut src6 = [0; 16];
        (src6[0], src6[1]) = (0xfe, 0x80);
        src6[8..].copy_from_slice(&v6);
        let mut group6 = [0xff; 16];
        group6[1..].copy_from_slice(&g6);
        let (src6, group6) = (Ipv6Addr::from(src6), Ipv6Addr::from(group6));
        let (max_response, robustness, interval) = (Span::from_ms(ms), 2, Span::from_ms(125_000));
        let wish = if left { Wish::Left } else { Wish::Member };
        let mut buf = [0; mld::MAX_FRAME_LEN];

        let version = if new { Version::Igmp3 } else { Version::Igmp2 };
        let group = (!all).then_some(group4);
        let q = igmp::QueryFrame { eth_src: M, src: src4, group, version, max_response, robustness, interval };
        let len = q.emit_frame(&mut buf).unwrap();
        let read = query(&buf[..len]);
        prop_assert_eq!((read.src, read.version, read.group), (src4.into(), version, group.map(Into::into)));
        prop_assert!(read.max_response <= max_response);
        prop_assert_eq!(frames::checksum(&buf[14..38]), 0);
        prop_assert_eq!(frames::checksum(&buf[38..len]), 0);
        let r = igmp::ReportFrame { eth_src: M, src: src4, group: group4, wish, version };
        let len = r.emit_frame(&mut buf).unwrap();
        prop_assert_eq!(wishes(&buf[..len]), [(IpAddr::V4(group4), wish)]);

        let version = if new { Version::Mld2 } else { Version::Mld1 };
        let group = (!all).then_some(group6);
        let q = mld::QueryFrame { eth_src: M, src: src6, group, version, max_response, robustness, interval };
        let len = q.emit_frame(&mut buf).unwrap();
        let read = query(&buf[..len]);
        prop_assert_eq!((read.src, read.version, read.group), (src6.into(), version, group.map(Into::into)));
        prop_assert!(read.max_response <= max_response);
        let r = mld::ReportFrame { eth_src: M, src: src6, group: group6, wish, version };
        let len = r.emit_frame(&mut buf).unwrap();
        prop_assert_eq!(wishes(&buf[..len]), [(IpAddr::V6(group6), wish)]);
    }
}
