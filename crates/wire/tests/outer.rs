//! R1, R3, R4, R5: what is accepted from the underlay, what is refused, and why.

use godwit_testkit::frames::{self, Ck, V4, V6, Vxlan};
use godwit_wire::outer::{Outer, OuterError, Patch, UdpChecksum, parse_outer};
use godwit_wire::{Class, Dscp, Ecn, Family, FlowHash, Mac, OuterHeader, VlanId, Vni};
use std::net::{IpAddr, Ipv6Addr};

const U1: Mac = Mac([2, 0, 0, 0, 1, 1]);
const U2: Mac = Mac([2, 0, 0, 0, 1, 2]);

fn inner() -> Vec<u8> {
    frames::arp_request(Mac([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into(), [10, 0, 0, 2].into())
}

fn locators(family: Family) -> (IpAddr, IpAddr) {
    match family {
        Family::V4 => ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()),
        Family::V6 => ("fd00::1".parse().expect("IPv6"), "fd00::2".parse().expect("IPv6")),
    }
}

fn vxlan(family: Family) -> Vxlan {
    Vxlan::new((U1, U2), locators(family), Vni::from_low24(77))
}

fn both(change: impl Fn(&mut Vxlan)) -> [Result<Outer, OuterError>; 2] {
    [Family::V4, Family::V6].map(|family| {
        let mut v = vxlan(family);
        change(&mut v);
        parse_outer(&v.frame(&inner()), 4789)
    })
}

fn refused(e: OuterError, change: impl Fn(&mut Vxlan)) {
    assert_eq!(both(change), [Err(e), Err(e)]);
}

#[test]
fn reserved_bits_are_ignored_but_i_is_required() {
    assert!(both(|v| (v.flags, v.reserved) = (0xff, [0xff; 4])).iter().all(Result::is_ok));
    for r in both(|v| (v.flags, v.reserved) = (0x08, [1, 2, 3, 4])) {
        assert_eq!(r.map(|o| o.vni.get()), Ok(77));
    }
    refused(OuterError::NoVni, |v| v.flags = 0);
    refused(OuterError::NoVni, |v| v.flags = 0xf7);
}

/// Received UDP checksums of each kind (R5).
#[test]
fn udp_checksum_zero_good_bad_and_all_ones() {
    for r in both(|v| v.udp_checksum = Ck::Raw(0)) {
        assert_eq!(r.map(|o| o.udp_checksum), Ok(UdpChecksum::Zero));
    }
    for r in both(|v| v.udp_checksum = Ck::Good) {
        assert_eq!(r.map(|o| o.udp_checksum), Ok(UdpChecksum::Good));
    }
    refused(OuterError::UdpChecksum, |v| v.udp_checksum = Ck::Bad);
}

/// A UDP checksum that is computed as zero is sent as 0xFFFF (R5).
#[test]
fn a_checksum_computed_as_zero_is_sent_and_accepted_as_all_ones() {
    for family in [Family::V4, Family::V6] {
        // Two bytes of the inner frame are free; some value of them makes the sum come out at 0.
        let hit = (0..=u16::MAX).find_map(|free| {
            let mut i = inner();
            i.extend(free.to_be_bytes());
            let mut v = vxlan(family);
            v.udp_checksum = Ck::Good;
            let f = v.frame(&i);
            let at = family.overhead() - 10;
            (f[at..at + 2] == [0xff, 0xff]).then_some((f, i))
        });
        let (f, i) = hit.expect("one of 65536 sums is zero");
        assert_eq!(parse_outer(&f, 4789).map(|o| o.udp_checksum), Ok(UdpChecksum::Good));
        let mut own = vxlan(family).frame(&i);
        godwit_wire::outer::fill_udp_checksum(&mut own, 4789).expect("VXLAN");
        assert_eq!(own, f);
    }
}

#[test]
fn lengths_must_agree() {
    let udp_len = (8 + 8 + inner().len()) as u16;
    for len in [0, 7, udp_len - 1, udp_len + 1, u16::MAX] {
        refused(OuterError::UdpLength, |v| v.udp_len = Some(len));
    }
    refused(OuterError::IpLength, |v| v.ip_len = Some(u16::MAX));
    // A shorter IP length than the datagram's: the datagram no longer fits.
    refused(OuterError::UdpLength, |v| v.ip_len = Some(50));
    let mut v = vxlan(Family::V4);
    v.ip_len = Some(19);
    assert_eq!(parse_outer(&v.frame(&inner()), 4789), Err(OuterError::IpLength));
    v.ip_len = Some(27);
    assert_eq!(parse_outer(&v.frame(&inner()), 4789), Err(OuterError::Truncated));
}

/// The outer IPv4 header checksum is verified (R3).
#[test]
fn ipv4_header_checksum_is_verified() {
    let mut v = vxlan(Family::V4);
    v.ip_checksum = Ck::Bad;
    assert_eq!(parse_outer(&v.frame(&inner()), 4789), Err(OuterError::IpChecksum));
}

/// Outer fragments are dropped (R3).
#[test]
fn outer_fragments_are_refused() {
    for frag in [0x2000, 0x0001, 0x2001, 0x1fff] {
        let mut v = vxlan(Family::V4);
        v.frag = frag;
        assert_eq!(parse_outer(&v.frame(&inner()), 4789), Err(OuterError::Fragment));
    }
    let (a, b) = (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let mut ip = V6::new(a, b, 44);
    ip.extensions = frames::v6_fragment(17, 0, true, 1);
    let f = frames::ethernet(U2, U1, 0x86dd, &ip.packet(&[0; 64]));
    assert_eq!(parse_outer(&f, 4789), Err(OuterError::Fragment));
    // A fragment of something else is not ours to judge.
    let mut ip = V4::new([1, 1, 1, 1].into(), [2, 2, 2, 2].into(), 6);
    ip.frag = 0x2000;
    let f = frames::ethernet(U2, U1, 0x0800, &ip.packet(&[0; 64]));
    assert_eq!(parse_outer(&f, 4789), Err(OuterError::NotVxlan));
}

#[test]
fn inner_frame_of_less_than_a_header() {
    for n in 0..20 {
        for family in [Family::V4, Family::V6] {
            let r = parse_outer(&vxlan(family).frame(&vec![0; n]), 4789);
            assert_eq!(r.err(), (n < 14).then_some(OuterError::InnerTooShort));
        }
    }
}

#[test]
fn underlay_traffic_is_left_to_others() {
    refused(OuterError::NotVxlan, |v| v.ports.1 = 4790);
    let all = [
        inner(),
        frames::Nd::solicit(U1, "fe80::1".parse().expect("IPv6"), "fe80::2".parse().expect("IPv6")).frame(),
        frames::ping((U1, [192, 0, 2, 1].into()), (U2, [192, 0, 2, 2].into()), 1, b"x"),
        frames::tagged(&vxlan(Family::V4).frame(&inner()), 0x8100, 5),
        frames::ethernet(U2, U1, 0x88cc, &[0; 46]),
    ];
    for f in all {
        assert_eq!(parse_outer(&f, 4789), Err(OuterError::NotVxlan));
    }
}

#[test]
fn options_extensions_and_padding_are_tolerated() {
    let mut v = vxlan(Family::V4);
    v.options = vec![1; 40];
    let plain = v.frame(&inner());
    let o = parse_outer(&frames::padded(plain.clone(), plain.len() + 9), 4789).expect("padded");
    assert_eq!((o.inner_offset, o.inner_end), (90, plain.len()));

    let (IpAddr::V6(a), IpAddr::V6(b)) = locators(Family::V6) else { panic!("IPv6") };
    let mut ip = V6::new(a, b, 60);
    ip.extensions = vec![17, 0, 1, 4, 0, 0, 0, 0];
    let whole = vxlan(Family::V6).frame(&inner());
    let f = frames::ethernet(U2, U1, 0x86dd, &ip.packet(&whole[54..]));
    assert_eq!(parse_outer(&f, 4789).map(|o| o.inner_offset), Ok(78));
    ip.extensions[1] = 200;
    let f = frames::ethernet(U2, U1, 0x86dd, &ip.packet(&whole[54..]));
    assert_eq!(parse_outer(&f, 4789), Err(OuterError::BadExtension));
}

#[test]
fn every_truncation_is_refused_with_a_reason() {
    for family in [Family::V4, Family::V6] {
        let f = vxlan(family).frame(&inner());
        for n in 0..f.len() {
            let e = parse_outer(&f[..n], 4789).expect_err("shorter");
            // Below the fixed headers it is truncated, then the IP length claims too much.
            let headers = family.overhead() - 16;
            let expected = if n < headers { OuterError::Truncated } else { OuterError::IpLength };
            assert_eq!(e, expected, "{n}");
        }
    }
}

#[test]
fn version_must_fit_the_ethertype() {
    let mut f = vxlan(Family::V4).frame(&inner());
    f[14] = 0x65;
    assert_eq!(parse_outer(&f, 4789), Err(OuterError::BadVersion));
    let mut f = vxlan(Family::V6).frame(&inner());
    f[14] = 0x40;
    assert_eq!(parse_outer(&f, 4789), Err(OuterError::BadVersion));
}

/// The prebuilt outer header equals one that is built field by field (R1, R3, R4, R23).
#[test]
fn the_written_header_is_the_naive_one() {
    let ecns = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];
    let classes = ecns.into_iter().flat_map(|ecn| (0..64).map(move |n| Class::new(Dscp::new(n), ecn)));
    for class in classes {
        for ttl in [1, 48, 64, 255] {
            for family in [Family::V4, Family::V6] {
                let mut v = vxlan(family);
                (v.tos, v.ttl, v.label, v.ports.0) = (class.bits(), ttl, 0xfedcb, 65535);
                let expected = v.frame(&inner());
                let header = match v.ip {
                    (IpAddr::V4(s), IpAddr::V4(d)) => OuterHeader::v4(U1, U2, s, d, 4789, 64),
                    (IpAddr::V6(s), IpAddr::V6(d)) => OuterHeader::v6(U1, U2, s, d, 4789, 64),
                    _ => panic!("one family"),
                };
                assert_eq!((header.src_ip(), header.dst_ip()), v.ip);
                assert_eq!((header.dst_mac(), header.ttl()), (U2, 64));
                let mut out = vec![0xaa; header.len()];
                let patch = Patch { vni: v.vni, hash: FlowHash::with(65535, 0xfedcb), class };
                header.write(&mut out, inner().len(), ttl, patch);
                assert_eq!(out, expected[..header.len()]);
            }
        }
    }
}

#[test]
fn r95_a_tagged_header_is_the_naive_one_with_a_tag() {
    let class = Class::new(Dscp::new(46), Ecn::Ect1);
    for id in [1, 100, 4094] {
        let vlan = VlanId::new(id).expect("a VLAN");
        for (family, ttl) in [Family::V4, Family::V6].into_iter().flat_map(|f| [(f, 64), (f, 17)]) {
            let mut v = vxlan(family);
            (v.tos, v.ttl, v.label, v.ports.0) = (class.bits(), ttl, 0xfedcb, 65535);
            let expected = godwit_testkit::frames::tagged(&v.frame(&inner()), 0x8100, id);
            let plain = match v.ip {
                (IpAddr::V4(s), IpAddr::V4(d)) => OuterHeader::v4(U1, U2, s, d, 4789, 64),
                (IpAddr::V6(s), IpAddr::V6(d)) => OuterHeader::v6(U1, U2, s, d, 4789, 64),
                _ => panic!("one family"),
            };
            let header = plain.in_vlan(vlan);
            assert_eq!((header.src_ip(), header.dst_ip(), header.dst_mac()), (v.ip.0, v.ip.1, U2));
            assert_eq!((header.family(), header.vlan(), plain.vlan()), (family, Some(vlan), None));
            assert_eq!((header.len(), header.l3()), (plain.len() + 4, 18));
            let mut out = vec![0xaa; header.len()];
            let patch = Patch { vni: v.vni, hash: FlowHash::with(65535, 0xfedcb), class };
            header.write(&mut out, inner().len(), ttl, patch);
            assert_eq!(out, expected[..header.len()]);
        }
    }
    assert!([0, 4095, 4096, 65535].iter().all(|id| VlanId::new(*id).is_none()));
}

#[test]
fn reasons_have_names_of_their_own() {
    let names: std::collections::HashSet<_> = OuterError::ALL.iter().map(|e| e.as_str()).collect();
    assert_eq!(names.len(), OuterError::ALL.len());
    for (i, e) in OuterError::ALL.into_iter().enumerate() {
        assert_eq!(e as usize, i);
    }
}
