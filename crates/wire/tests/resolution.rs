//! R24 to R30: which ARP, RARP and neighbour discovery messages are what.

use godwit_testkit::frames::{self, Arp as RawArp, Ck, Nd};
use godwit_wire::ndp::{self, AdvertFrame, Ndp};
use godwit_wire::{Arp, Frame, Mac, WireError, arp};
use std::net::{Ipv4Addr, Ipv6Addr};

const M1: Mac = Mac([2, 0, 0, 0, 0, 1]);
const M2: Mac = Mac([2, 0, 0, 0, 0, 2]);
const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);

/// Gratuitous, probe, RARP announcement.
fn arp_kinds(raw: RawArp, eth_src: Mac) -> [bool; 3] {
    let p = raw.packet();
    let a = Arp::new_checked(&p[..]).expect("ARP");
    [a.is_gratuitous(eth_src), a.is_probe(), a.is_rarp_announce(eth_src)]
}

#[test]
fn gratuitous_arp() {
    let garp = RawArp { sha: M1, spa: A4, tpa: A4, ..RawArp::default() };
    assert_eq!(arp_kinds(garp, M1), [true, false, false]);
    assert_eq!(arp_kinds(RawArp { op: 2, ..garp }, M1), [true, false, false]);
    // Another source MAC, another target, no address, another operation: none of it claims.
    assert_eq!(arp_kinds(garp, M2), [false; 3]);
    assert_eq!(arp_kinds(RawArp { tpa: B4, ..garp }, M1), [false; 3]);
    let none = Ipv4Addr::UNSPECIFIED;
    assert_eq!(arp_kinds(RawArp { spa: none, tpa: none, ..garp }, M1), [false; 3]);
    assert_eq!(arp_kinds(RawArp { op: 3, ..garp }, M1), [false; 3]);
}

#[test]
fn arp_probe_and_rarp_announcement() {
    let probe = RawArp { sha: M1, tpa: A4, ..RawArp::default() };
    assert_eq!(arp_kinds(probe, M1), [false, true, false]);
    let rarp = RawArp { op: 3, sha: M1, tha: M1, ..RawArp::default() };
    assert_eq!(arp_kinds(rarp, M1), [false, false, true]);
    assert_eq!(arp_kinds(rarp, M2), [false; 3]);
    assert_eq!(arp_kinds(RawArp { tha: M2, ..rarp }, M1), [false; 3]);
    assert_eq!(arp_kinds(RawArp { spa: A4, ..rarp }, M1), [false; 3]);
    assert_eq!(arp_kinds(RawArp { sha: Mac::ZERO, tha: Mac::ZERO, ..rarp }, Mac::ZERO), [false; 3]);
}

#[test]
fn arp_for_other_hardware_is_refused() {
    let ok = RawArp::default();
    let bad = [
        RawArp { hrd: 6, ..ok },
        RawArp { pro: 0x86dd, ..ok },
        RawArp { hln: 8, ..ok },
        RawArp { pln: 16, ..ok },
    ];
    for raw in bad {
        assert_eq!(Arp::new_checked(raw.packet()).err(), Some(WireError::BadField));
    }
    assert_eq!(Arp::new_checked(&ok.packet()[..27]).err(), Some(WireError::Truncated));
}

#[test]
fn emitted_arp_is_the_naive_one() {
    let mut out = [0; arp::FRAME_LEN];
    let none = Ipv4Addr::UNSPECIFIED;
    let mut emitted = |r: arp::ArpRepr, dst, src| {
        assert_eq!(r.emit_frame(&mut out, dst, src), Ok(42));
        out.to_vec()
    };
    let b = Mac::BROADCAST;
    assert_eq!(emitted(arp::ArpRepr::request(M1, A4, B4), b, M1), frames::arp_request(M1, A4, B4));
    assert_eq!(emitted(arp::ArpRepr::request(M1, none, B4), b, M1), frames::arp_probe(M1, B4));
    assert_eq!(emitted(arp::ArpRepr::gratuitous(M1, A4), b, M1), frames::garp(M1, A4));
    assert_eq!(emitted(arp::ArpRepr::rarp_announce(M1), b, M1), frames::rarp_announce(M1)[..42]);
    let r = arp::ArpRepr::gratuitous(M1, A4).emit_frame(&mut [0; 41], b, M1);
    assert_eq!(r, Err(WireError::NoSpace));
}

fn parse(nd: &Nd) -> Result<Ndp, WireError> {
    ndp::parse(&nd.frame()[14..])
}

fn kind(packet: &[u8]) -> Option<u8> {
    Frame::read(&frames::ethernet(M2, M1, 0x86dd, packet)).expect("a header").nd_kind()
}

fn announces(nd: &Nd) -> bool {
    matches!(parse(nd), Ok(Ndp::Advert(a)) if a.is_unsolicited_announce())
}

/// An unsolicited advertisement is read with its flags (R25).
#[test]
fn unsolicited_advertisement() {
    let nd = Nd::announce(M1, A6);
    assert!(announces(&nd));
    let group = frames::solicited_node(A6);
    assert!(announces(&Nd { ip: (A6, group), eth: (M1, frames::group_mac(group)), ..nd.clone() }));
    // Without MAC, to one host, or as an answer it announces nothing.
    assert!(!announces(&Nd { options: Vec::new(), ..nd.clone() }));
    assert!(!announces(&Nd { ip: (A6, B6), ..nd.clone() }));
    assert!(!announces(&Nd { ip: (A6, B6), flags: 0x60, ..nd }));
}

/// Advertisements that are not sound are refused (R25).
#[test]
fn invalid_discovery_is_refused_with_a_reason() {
    let nd = Nd::announce(M1, A6);
    let cases = [
        (Nd { hop_limit: 254, ..nd.clone() }, WireError::BadHopLimit),
        (Nd { checksum: Ck::Bad, ..nd.clone() }, WireError::BadChecksum),
        (Nd { code: 1, ..nd.clone() }, WireError::BadField),
        (Nd { target: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), ..nd.clone() }, WireError::BadField),
        (Nd { flags: 0x40, ..nd.clone() }, WireError::BadField),
        (Nd { options: vec![77, 0, 0, 0, 0, 0, 0, 0], ..nd.clone() }, WireError::BadLength),
        (Nd { options: vec![2, 2, 0, 0, 0, 0, 0, 0], ..nd.clone() }, WireError::Truncated),
        (Nd { options: vec![2, 1, 0, 0], ..nd.clone() }, WireError::Truncated),
        (Nd { options: [2, 2].into_iter().chain([0; 14]).collect(), ..nd.clone() }, WireError::BadLength),
        (Nd { options: [77, 1, 0, 0, 0, 0, 0, 0].repeat(17), ..nd.clone() }, WireError::TooDeep),
        (Nd { kind: 128, ..nd.clone() }, WireError::NotThis),
        (Nd { kind: 128, hop_limit: 64, ..nd.clone() }, WireError::NotThis),
        (Nd { options: frames::mac_option(1, M1), ..Nd::dad(M1, A6) }, WireError::BadField),
        (Nd { ip: (Ipv6Addr::UNSPECIFIED, A6), ..Nd::dad(M1, A6) }, WireError::BadField),
    ];
    for (nd, e) in cases {
        assert_eq!(parse(&nd), Err(e), "{nd:?}");
    }
}

#[test]
fn router_messages_are_told_apart() {
    for (kind, expected) in [(133, Ndp::RouterSolicit), (134, Ndp::RouterAdvert), (137, Ndp::Redirect)] {
        assert_eq!(parse(&Nd { kind, ..Nd::announce(M1, A6) }), Ok(expected));
    }
}

#[test]
fn options_of_a_solicitation() {
    let mut nd = Nd::dad(M1, A6);
    nd.options = vec![14, 1, 9, 8, 7, 6, 5, 4];
    let Ok(Ndp::Solicit(s)) = parse(&nd) else { panic!("a probe") };
    assert!(s.is_dad() && !s.other_options);
    assert_eq!(s.nonce, Some([9, 8, 7, 6, 5, 4]));
    // RFC 3971's CGA option: the owner must see it.
    let mut nd = Nd::solicit(M1, A6, B6);
    nd.options.extend([11, 1, 0, 0, 0, 0, 0, 0]);
    let Ok(Ndp::Solicit(s)) = parse(&nd) else { panic!("a solicitation") };
    assert!(s.other_options && s.slla == Some(M1));
}

#[test]
fn duplicate_address_detection_is_answered_to_all_nodes() {
    let Ok(Ndp::Solicit(s)) = parse(&Nd::dad(M1, A6)) else { panic!("a probe") };
    let mut out = [0; ndp::MAX_FRAME_LEN];
    let len = AdvertFrame::reply_to(&s, M1, M2, false).emit_frame(&mut out).expect("fits");
    assert_eq!(out[..len], Nd::announce(M2, A6).frame());
    let len = AdvertFrame::unsolicited(M2, A6, false).emit_frame(&mut out).expect("fits");
    assert_eq!(out[..len], Nd::announce(M2, A6).frame());
    let short = AdvertFrame::unsolicited(M2, A6, false).emit_frame(&mut out[..len - 1]);
    assert_eq!(short, Err(WireError::NoSpace));
}

#[test]
fn r66_discovery_is_known_behind_extension_headers_however_many() {
    let message = Nd::announce(M1, A6).frame()[54..].to_vec();
    let packet = |next: u8, extensions: Vec<u8>| {
        frames::V6 { next, hop_limit: 255, extensions, ..frames::V6::new(A6, B6, 58) }.packet(&message)
    };
    let options =
        |n: usize| [[60, 0, 1, 4, 0, 0, 0, 0].repeat(n - 1), vec![58, 0, 1, 4, 0, 0, 0, 0]].concat();
    assert_eq!(kind(&packet(58, Vec::new())), Some(ndp::NEIGHBOR_ADVERT));
    assert_eq!(kind(&packet(60, options(7))), Some(ndp::NEIGHBOR_ADVERT));
    assert_eq!(kind(&packet(60, options(12))), Some(ndp::NEIGHBOR_ADVERT));
    assert!(kind(&packet(60, options(100))).is_some());
    // The first fragment begins with the type, and may not be one (RFC 6980); a later one begins with anything.
    let fragment = |offset: u8| packet(44, vec![58, 0, 0, offset | 1, 0, 0, 0, 9]);
    assert_eq!(kind(&fragment(0)), Some(ndp::NEIGHBOR_ADVERT));
    assert_eq!(ndp::parse(&fragment(0)), Err(WireError::Fragment));
    assert_eq!(kind(&fragment(8)), None);
    assert_eq!(ndp::parse(&fragment(8)), Err(WireError::NotThis));
    for cut in 0..64 {
        assert!(kind(&packet(58, Vec::new())[..cut]).is_none(), "{cut} bytes");
    }
}
