//! Properties: no bytes make a parser panic, what is built reads back, and sums agree with the
//! naive ones.

use godwit_testkit::frames::{self, Ck};
use godwit_testkit::fuzzing;
use godwit_wire::checksum::{self, fold, sum, update_u16, update_u32};
use godwit_wire::ipv4::Ipv4Repr;
use godwit_wire::ipv6::Ipv6Repr;
use godwit_wire::ndp::{AdvertFrame, SolicitFrame};
use godwit_wire::outer::Patch;
use godwit_wire::{
    Arp, Ecn, FlowHash, Ipv4, Ipv6, Mac, Ndp, OuterHeader, Tcp, Udp, Vni, Vxlan, arp, ndp, parse_outer, udp,
    vxlan,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

fn unicast6() -> impl Strategy<Value = Ipv6Addr> {
    any::<[u8; 15]>().prop_map(|o| {
        let mut a = [0xfd; 16];
        a[1..].copy_from_slice(&o);
        Ipv6Addr::from(a)
    })
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(b in bytes(200)) {
        fuzzing::outer(&b);
        fuzzing::inner(&b);
        let _ = (Udp::new_checked(&b[..]), Tcp::new_checked(&b[..]), ndp::parse(&b));
    }

    #[test]
    fn arbitrary_bytes_behind_a_plausible_header_never_panic(
        b in bytes(200),
        start in proptest::sample::select(vec![
            vec![0x08, 0x00, 0x45], vec![0x08, 0x00, 0x4f], vec![0x86, 0xdd, 0x60],
            vec![0x08, 0x06, 0, 1, 8, 0, 6, 4], vec![0x81, 0, 0, 0, 0x86, 0xdd, 0x60],
        ]),
    ) {
        let mut f = vec![2; 12];
        f.extend(start);
        f.extend(b);
        fuzzing::outer(&f);
        fuzzing::inner(&f);
    }

    #[test]
    fn sums_agree_with_the_naive_ones(b in bytes(2000)) {
        prop_assert_eq!(checksum::checksum(&b), frames::checksum(&b));
    }

    #[test]
    fn sums_of_even_pieces_add_up(a in bytes(300), b in bytes(300)) {
        let even = &a[..a.len() & !1];
        let whole = [even, &b[..]].concat();
        prop_assert_eq!(fold(sum(even) + sum(&b)), fold(sum(&whole)));
    }

    #[test]
    fn folding_is_the_remainder(s in any::<u64>()) {
        let expected = if s == 0 { 0 } else { ((s - 1) % 0xffff + 1) as u16 };
        prop_assert_eq!(fold(s), expected);
    }

    #[test]
    fn incremental_update_is_the_full_sum(mut b in bytes(100), at in any::<usize>(), new in any::<[u8; 4]>()) {
        b.resize((b.len() & !3) + 8, 0x5a);
        let at = at % (b.len() / 4) * 4;
        let word = |b: &[u8]| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let (before, old) = (checksum::checksum(&b), word(&b));
        b[at..at + 4].copy_from_slice(&new);
        let (after, now) = (checksum::checksum(&b), word(&b));
        // 0 and 0xffff are one number; data of all zeros is the only one whose sum is 0 itself.
        let same = |x: u16, y: u16| x % 0xffff == y % 0xffff;
        prop_assert!(same(update_u32(before, old, now), after));
        let high = update_u16(before, (old >> 16) as u16, (now >> 16) as u16);
        prop_assert!(same(update_u16(high, old as u16, now as u16), after));
        // The result verifies in place of the full sum.
        prop_assert_eq!(fold(sum(&b) + u64::from(update_u32(before, old, now))), 0xffff);
    }

    #[test]
    fn ipv4_reads_back(
        (src, dst, proto, ttl, tos, ident, df) in any::<(Ipv4Addr, Ipv4Addr, u8, u8, u8, u16, bool)>(),
        payload in bytes(100),
    ) {
        let payload_len = payload.len();
        let repr = Ipv4Repr { src, dst, proto, ttl, tos, ident, dont_fragment: df, payload_len };
        let mut naive = frames::V4::new(src, dst, proto);
        (naive.ttl, naive.tos, naive.ident) = (ttl, tos, ident);
        naive.frag = if df { 0x4000 } else { 0 };
        let p = naive.packet(&payload);
        let mut out = [0xaa; 20];
        prop_assert_eq!(repr.emit(&mut out), Ok(20));
        prop_assert_eq!(&out[..], &p[..20]);
        let ip = Ipv4::new_checked(&p[..]).expect("valid");
        prop_assert!(ip.verify_checksum() && !ip.is_fragment());
        prop_assert_eq!((ip.src(), ip.dst(), ip.proto(), ip.ttl()), (src, dst, proto, ttl));
        prop_assert_eq!((ip.tos(), ip.ident(), ip.dont_fragment()), (tos, ident, df));
        prop_assert_eq!(ip.payload(), &payload[..]);
    }

    #[test]
    fn ipv4_setters_repair_the_checksum(src in any::<Ipv4Addr>(), tos in any::<u8>(), ttl in any::<u8>(), e in 0u8..4) {
        let mut naive = frames::V4::new(src, Ipv4Addr::LOCALHOST, 17);
        naive.tos = tos;
        let mut p = naive.packet(b"payload");
        let mut ip = Ipv4::new_checked(&mut p[..]).expect("valid");
        ip.set_ttl(ttl);
        ip.set_ecn(Ecn::from_bits(e));
        prop_assert!(ip.verify_checksum());
        (naive.ttl, naive.tos) = (ttl, tos & !3 | e);
        prop_assert_eq!(p, naive.packet(b"payload"));
    }

    #[test]
    fn ipv6_reads_back(
        (src, dst, next_header, hop_limit, class) in any::<(Ipv6Addr, Ipv6Addr, u8, u8, u8)>(),
        flow_label in 0u32..1 << 20,
        e in 0u8..4,
        payload in bytes(100),
    ) {
        let payload_len = payload.len();
        let repr = Ipv6Repr { src, dst, next_header, hop_limit, traffic_class: class, flow_label, payload_len };
        let mut naive = frames::V6::new(src, dst, next_header);
        (naive.hop_limit, naive.class, naive.label) = (hop_limit, class, flow_label);
        let mut p = naive.packet(&payload);
        let mut out = [0xaa; 40];
        prop_assert_eq!(repr.emit(&mut out), Ok(40));
        prop_assert_eq!(&out[..], &p[..40]);
        let mut ip = Ipv6::new_checked(&mut p[..]).expect("valid");
        prop_assert_eq!((ip.src(), ip.dst(), ip.next_header()), (src, dst, next_header));
        prop_assert_eq!((ip.hop_limit(), ip.traffic_class(), ip.flow_label()), (hop_limit, class, flow_label));
        prop_assert_eq!(ip.payload(), &payload[..]);
        ip.set_ecn(Ecn::from_bits(e));
        naive.class = class & !3 | e;
        prop_assert_eq!(p, naive.packet(&payload));
    }

    #[test]
    fn arp_reads_back(
        op in any::<u16>(), sha in mac(), spa in any::<Ipv4Addr>(), tha in mac(), tpa in any::<Ipv4Addr>()
    ) {
        let naive = frames::Arp { op, sha, spa, tha, tpa, ..Default::default() }.packet();
        let repr = arp::ArpRepr { op, sha, spa, tha, tpa };
        let mut out = [0xaa; 28];
        prop_assert_eq!(repr.emit(&mut out), Ok(28));
        prop_assert_eq!(&out[..], &naive[..]);
        prop_assert_eq!(Arp::new_checked(&naive[..]).map(|a| a.repr()), Ok(repr));
    }

    #[test]
    fn solicitation_reads_back(
        m in mac(), src in unicast6(), target in unicast6(), slla in any::<bool>(), nonce in any::<Option<[u8; 6]>>(),
    ) {
        let mut frame = SolicitFrame::resolve(m, src, target);
        (frame.slla, frame.nonce) = (slla.then_some(m), nonce);
        let mut out = [0xaa; ndp::MAX_FRAME_LEN];
        let len = frame.emit_frame(&mut out).expect("fits");
        let Ok(Ndp::Solicit(s)) = ndp::parse(&out[14..len]) else { panic!("a solicitation") };
        prop_assert_eq!((s.src, s.dst, s.target), (src, frame.dst, target));
        prop_assert_eq!((s.slla, s.nonce, s.other_options), (frame.slla, nonce, false));
        let mut naive = frames::Nd::solicit(m, src, target);
        naive.options = if slla { frames::mac_option(1, m) } else { Vec::new() };
        if let Some(n) = nonce {
            naive.options.extend([14, 1]);
            naive.options.extend(n);
        }
        prop_assert_eq!(&out[..len], &naive.frame()[..]);
    }

    #[test]
    fn advertisement_reads_back(m in mac(), src in unicast6(), target in unicast6(), flags in any::<[bool; 3]>()) {
        let [router, solicited, overrides] = flags;
        let frame = AdvertFrame {
            eth_src: m, eth_dst: m, src, dst: src, target, router, solicited, overrides, tlla: Some(m),
        };
        let mut out = [0xaa; ndp::MAX_FRAME_LEN];
        let len = frame.emit_frame(&mut out).expect("fits");
        let Ok(Ndp::Advert(a)) = ndp::parse(&out[14..len]) else { panic!("an advertisement") };
        prop_assert_eq!([a.router, a.solicited, a.overrides], flags);
        prop_assert_eq!((a.src, a.target, a.tlla, a.other_options), (src, target, Some(m), false));
    }

    #[test]
    fn transport_checksums_agree((src, dst) in addresses(), ports in any::<(u16, u16)>(), data in bytes(300)) {
        let good = frames::udp(src, dst, ports, &data, Ck::Good);
        let bad = frames::udp(src, dst, ports, &data, Ck::Bad);
        let segment = frames::tcp(src, dst, ports, (1, 2), 0x10, &data, Ck::Good);
        let broken = frames::tcp(src, dst, ports, (1, 2), 0x10, &data, Ck::Bad);
        let verdicts = [&good, &bad].map(|m| {
            let u = Udp::new_checked(&m[..]).expect("valid");
            assert_eq!((u.src_port(), u.dst_port()), ports);
            match (src, dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => u.verify_v4(s, d),
                (IpAddr::V6(s), IpAddr::V6(d)) => u.verify_v6(s, d),
                _ => unreachable!("one family"),
            }
        });
        prop_assert_eq!(verdicts, [true, false]);
        let verdicts = [&segment, &broken].map(|m| {
            let t = Tcp::new_checked(&m[..]).expect("valid");
            match (src, dst) {
                (IpAddr::V4(s), IpAddr::V4(d)) => t.verify_v4(s, d),
                (IpAddr::V6(s), IpAddr::V6(d)) => t.verify_v6(s, d),
                _ => unreachable!("one family"),
            }
        });
        prop_assert_eq!(verdicts, [true, false]);
        let mut out = [0xaa; 8];
        prop_assert_eq!(udp::emit(&mut out, ports.0, ports.1, data.len()), Ok(8));
        prop_assert_eq!(&out[..6], &good[..6]);
    }

    #[test]
    fn vxlan_reads_back(v in 0u32..1 << 24) {
        let v = Vni::new(v).expect("24 bits");
        let mut out = [0xaa; 8];
        prop_assert_eq!(vxlan::emit(&mut out, v), Ok(8));
        prop_assert_eq!(Vxlan::new_checked(&out[..]).map(|x| x.vni()), Ok(v));
        prop_assert_eq!((out[0], &out[1..4], out[7]), (8, &[0, 0, 0][..], 0));
    }

    #[test]
    fn the_outer_header_is_the_naive_one_and_reads_back(
        (src, dst) in addresses(),
        (m1, m2) in (mac(), mac()),
        (v, label, e) in (0u32..1 << 24, 1u32..1 << 20, 0u8..4),
        (ttl, sport, port) in any::<(u8, u16, u16)>(),
        inner in bytes(1500),
    ) {
        let header = match (src, dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => OuterHeader::v4(m1, m2, s, d, port, 64),
            (IpAddr::V6(s), IpAddr::V6(d)) => OuterHeader::v6(m1, m2, s, d, port, 64),
            _ => unreachable!("one family"),
        };
        let vni = Vni::new(v).expect("24 bits");
        let sport = sport | 0xc000;
        let mut out = vec![0xaa; header.len()];
        let patch = Patch { vni, hash: FlowHash::with(sport, label), class: Ecn::from_bits(e).into() };
        header.write(&mut out, inner.len(), ttl, patch);
        out.extend(&inner);
        let mut naive = frames::Vxlan::new((m1, m2), (src, dst), vni);
        (naive.ports, naive.ttl, naive.tos, naive.label) = ((sport, port), ttl, e, label);
        prop_assert_eq!(&out, &naive.frame(&inner));
        match parse_outer(&out, port) {
            Ok(o) => {
                prop_assert_eq!((o.src, o.dst, o.ttl, o.ecn.bits()), (src, dst, ttl, e));
                prop_assert_eq!((o.vni, o.src_port), (vni, sport));
                prop_assert_eq!(&out[o.inner_offset..o.inner_end], &inner[..]);
            }
            Err(e) => prop_assert_eq!((e.as_str(), inner.len() < 14), ("inner_too_short", true)),
        }
    }
}

#[test]
fn no_truncation_of_a_valid_frame_panics() {
    for seed in fuzzing::seeds() {
        for n in 0..=seed.len() {
            fuzzing::outer(&seed[..n]);
            fuzzing::inner(&seed[..n]);
        }
    }
}

#[test]
fn seeds_are_what_they_claim() {
    let accepted = fuzzing::seeds().iter().filter(|s| parse_outer(s, 4789).is_ok()).count();
    assert!(accepted >= 40, "{accepted} of the seeds are VXLAN");
    let quotes =
        fuzzing::seeds().iter().filter(|s| godwit_wire::quote::parse_too_big(s, 4789).is_ok()).count();
    assert_eq!(quotes, 2);
}
