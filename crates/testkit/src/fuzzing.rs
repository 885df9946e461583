//! The bodies of the fuzz targets, shared by `fuzz/` (libFuzzer) and by the stable tests that run
//! them over a corpus and its mutations. Each takes arbitrary bytes and panics on a broken promise.

mod membership;
mod mutate;
mod peers;
#[cfg(feature = "control")]
mod punts;
mod reading;
mod routing;

pub use mutate::walk;
pub use peers::{peer, seeds as peer_seeds};
#[cfg(feature = "control")]
pub use punts::{punted, seeds as punt_seeds};
pub use reading::frame;

use crate::frames;
use godwit_wire::ethernet::{self, EtherType, Ethernet};
use godwit_wire::outer::Patch;
use godwit_wire::{
    Arp, Ecn, Family, FlowHash, Frame, HashKey, Icmpv4, Icmpv6, Ipv4, Ipv6, Mac, Ndp, Tcp, Udp,
};
use godwit_wire::{Class, OuterHeader, Vni, arp, ecn, flow, icmpv4, icmpv6, ndp, offload, outer, quote};
use std::net::IpAddr;

const PORT: u16 = 4789;

/// A frame from the underlay.
pub fn outer(frame: &[u8]) {
    let _ = quote::parse_too_big(frame, PORT);
    let Ok(o) = outer::parse_outer(frame, PORT) else { return };
    assert!(o.inner_offset >= o.family.overhead());
    assert!(o.inner_end <= frame.len());
    assert!(o.inner_end - o.inner_offset >= 14);
    // Bytes after the effective end must not matter.
    assert_eq!(outer::parse_outer(&frame[..o.inner_end], PORT), Ok(o));
    // Fewer never parse.
    assert!(outer::parse_outer(&frame[..o.inner_end - 1], PORT).is_err());
    let inner_frame = &frame[o.inner_offset..o.inner_end];
    reencapsulate(&o, inner_frame);
    checksum_in_full(frame, &o);
    inner(inner_frame);
}

/// What came in must go out the same: the headers written anew parse to the same values.
fn reencapsulate(o: &outer::Outer, inner: &[u8]) {
    let header = match (o.src, o.dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => OuterHeader::v4(Mac::ZERO, Mac::ZERO, s, d, PORT, 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => OuterHeader::v6(Mac::ZERO, Mac::ZERO, s, d, PORT, 64),
        _ => panic!("outer addresses of different families"),
    };
    assert_eq!(header.family(), o.family);
    let mut out = vec![0xaa; header.len()];
    let patch =
        Patch { vni: o.vni, hash: FlowHash::with(o.src_port, 7), class: Class::new(Some(o.dscp), o.ecn) };
    header.write(&mut out, inner.len(), o.ttl, patch);
    out.extend(inner);
    let again = outer::parse_outer(&out, PORT).expect("own headers parse");
    let expected = outer::Outer {
        src_port: o.src_port | flow::FIRST_PORT,
        inner_offset: header.len(),
        inner_end: out.len(),
        udp_checksum: outer::UdpChecksum::Zero,
        ..*o
    };
    assert_eq!(again, expected);
}

fn checksum_in_full(frame: &[u8], o: &outer::Outer) {
    let mut full = frame[..o.inner_end].to_vec();
    outer::fill_udp_checksum(&mut full, PORT).expect("it parsed before");
    let again = outer::parse_outer(&full, PORT).expect("a full checksum is accepted");
    assert_eq!(again.udp_checksum, outer::UdpChecksum::Good);
}

/// A frame whose guest left its checksum, or its cutting, to the switch (R11). The first two bytes are
/// the segment size, the third the length of the first piece.
pub fn offload(bytes: &[u8]) {
    let Some((&[high, low, piece], frame)) = bytes.split_first_chunk() else { return };
    let first = &frame[..frame.len().min(usize::from(piece).max(14))];
    let Ok(read) = Frame::read_first(first, frame.len()) else { return };
    reading::layers(&read, first, frame.len());
    if let Ok(layers) = offload::Layers::of(&read) {
        let mut whole = frame.to_vec();
        assert!(layers.complete(&mut whole));
        sound(&whole, &layers);
        assert!(!layers.complete(&mut whole[..layers.end - 1]), "what is not there is not summed");
    }
    let Ok(cut) = offload::Cut::of(&read, u16::from_be_bytes([high, low])) else { return };
    let mut at = cut.header_len();
    for i in 0..cut.count() {
        let mut packet = frame[..cut.header_len()].to_vec();
        packet.extend(&frame[at..at + cut.payload_len(i)]);
        at += cut.payload_len(i);
        assert!(cut.finish(i, &mut packet));
        let read = Frame::read(&packet).expect("a header");
        let layers = offload::Layers::of(&read).expect("own packets are sound");
        assert_eq!(layers.end, packet.len());
        sound(&packet, &layers);
    }
    assert_eq!(at, cut.layers().end, "all of the payload and no more");
    assert!(!cut.finish(cut.count(), &mut frame.to_vec()));
}

/// The transport checksum is the one that plain arithmetic gives.
fn sound(frame: &[u8], layers: &offload::Layers) {
    let address = |at: usize| -> IpAddr {
        if layers.six {
            <[u8; 16]>::try_from(&frame[layers.l3 + 8 + 16 * at..][..16]).expect("16 bytes").into()
        } else {
            <[u8; 4]>::try_from(&frame[layers.l3 + 12 + 4 * at..][..4]).expect("4 bytes").into()
        }
    };
    let proto = if layers.tcp { 6 } else { 17 };
    let message = &frame[layers.l4..layers.end];
    let rest = frames::upper_checksum(address(0), address(1), proto, message);
    assert!(rest == 0 || rest == 0xffff, "a sum with its checksum in it is all ones");
}

/// A frame from a tenant.
pub fn inner(frame: &[u8]) {
    reading::frame(frame);
    membership::frame(frame);
    routing::frame(frame);
    let key = HashKey::new(1, 2);
    let flow = flow::FlowKey::of_frame(frame);
    let hash = flow.hash(&key);
    assert_eq!(hash, flow::flow_hash(frame, &key));
    assert!(hash.src_port() >= flow::FIRST_PORT);
    assert!((1..1 << 20).contains(&hash.flow_label()));
    let _ = (flow.kind(), flow.ports(), flow.proto());
    ecn_all(frame);
    echo(frame);
    let Ok(eth) = Ethernet::new_checked(frame) else { return };
    let _ = (eth.dst(), eth.src(), eth.outer_type());
    tag(frame, &eth);
    match eth.ethertype() {
        EtherType::ARP | EtherType::RARP => address_resolution(eth.payload(), eth.src()),
        EtherType::IPV4 => ipv4(eth.payload()),
        EtherType::IPV6 => ipv6(eth.payload()),
        _ => {}
    }
}

fn ecn_all(frame: &[u8]) {
    let before = Ecn::of_frame(frame);
    for outer in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
        let mut copy = frame.to_vec();
        let applied = ecn::apply_to_frame(&mut copy, outer);
        let Some(inner) = before else {
            assert!(applied.is_ok() && copy == frame);
            continue;
        };
        match ecn::decapsulate(inner, outer) {
            Err(_) => assert!(applied.is_err() && copy == frame),
            Ok(merged) => {
                assert!(applied.is_ok());
                assert_eq!(Ecn::of_frame(&copy), Some(merged));
                assert_eq!(header_sums_up(frame), header_sums_up(&copy));
            }
        }
    }
}

/// Whether an IPv4 header's checksum is right by the naive sum; `None` for other frames.
fn header_sums_up(frame: &[u8]) -> Option<bool> {
    let eth = Ethernet::new_checked(frame).ok()?;
    let ip = Ipv4::new_checked(eth.payload()).ok().filter(|_| eth.ethertype() == EtherType::IPV4)?;
    Some(frames::checksum(&eth.payload()[..ip.header_len()]) == 0)
}

fn echo(frame: &[u8]) {
    let mut copy = frame.to_vec();
    match icmpv4::echo_reply_in_place(&mut copy, 64) {
        Err(_) => assert_eq!(copy, frame),
        Ok(len) => {
            let eth = Ethernet::new_checked(&copy[..len]).expect("a reply is a frame");
            let ip = Ipv4::new_checked(eth.payload()).expect("a reply is IPv4");
            assert!(ip.verify_checksum() && ip.ttl() == 64);
            let icmp = Icmpv4::new_checked(ip.payload()).expect("a reply is ICMP");
            assert!(icmp.verify_checksum() && icmp.kind() == icmpv4::ECHO_REPLY);
        }
    }
    let mut copy = frame.to_vec();
    match icmpv6::echo_reply_in_place(&mut copy, 64) {
        Err(_) => assert_eq!(copy, frame),
        Ok(len) => {
            let eth = Ethernet::new_checked(&copy[..len]).expect("a reply is a frame");
            let ip = Ipv6::new_checked(eth.payload()).expect("a reply is IPv6");
            let icmp = Icmpv6::new_checked(ip.payload()).expect("a reply is ICMPv6");
            assert!(icmp.verify_checksum(ip.src(), ip.dst()));
            assert_eq!(icmp.kind(), icmpv6::ECHO_REPLY);
        }
    }
}

fn tag(frame: &[u8], eth: &Ethernet<&[u8]>) {
    let mut copy = frame.to_vec();
    let Ok(tci) = ethernet::strip_tag(&mut copy) else {
        assert!(!eth.is_tagged());
        return;
    };
    assert_eq!(Some(tci), eth.tci());
    let plain = &copy[ethernet::TAG_LEN..];
    assert_eq!((&plain[..12], &plain[12..]), (&frame[..12], &frame[16..]));
}

fn address_resolution(packet: &[u8], eth_src: Mac) {
    let Ok(arp) = Arp::new_checked(packet) else { return };
    let mut out = [0; arp::PACKET_LEN];
    assert_eq!(arp.repr().emit(&mut out), Ok(arp::PACKET_LEN));
    assert_eq!(out[..], packet[..arp::PACKET_LEN]);
    let kinds = [arp.is_gratuitous(eth_src), arp.is_probe(), arp.is_rarp_announce(eth_src)];
    assert!(kinds.iter().filter(|k| **k).count() <= 1);
}

fn ipv4(packet: &[u8]) {
    let Ok(ip) = Ipv4::new_checked(packet) else { return };
    let _ = (ip.verify_checksum(), ip.ident(), ip.dont_fragment(), ip.fragment_offset());
    let _ = icmpv4::permits_error(&ip);
    if let Ok(udp) = Udp::new_checked(ip.payload()) {
        let _ = (udp.verify_v4(ip.src(), ip.dst()), udp.payload());
    }
    if let Ok(tcp) = Tcp::new_checked(ip.payload()) {
        let _ = (tcp.verify_v4(ip.src(), ip.dst()), tcp.payload(), tcp.window());
    }
    let error = icmpv4::ErrorRepr {
        eth_src: Mac::ZERO,
        eth_dst: Mac::ZERO,
        src: ip.dst(),
        dst: ip.src(),
        kind: icmpv4::UNREACHABLE,
        code: icmpv4::CODE_FRAG_NEEDED,
        rest: 1450,
    };
    let mut out = [0; 600];
    let len = error.emit_frame(&mut out, &packet[..ip.total_len()]).expect("errors are short");
    assert_eq!(header_sums_up(&out[..len]), Some(true));
    assert_eq!(frames::checksum(&out[34..len]), 0);
}

fn ipv6(packet: &[u8]) {
    let Ok(ip) = Ipv6::new_checked(packet) else { return };
    let _ = (ip.flow_label(), icmpv6::permits_error(&ip));
    if let Ok(upper) = ip.upper() {
        assert!(upper.offset <= ip.total_len());
    }
    if let Ok(udp) = Udp::new_checked(ip.payload()) {
        let _ = (udp.verify_v6(ip.src(), ip.dst()), udp.payload());
    }
    if let Ok(tcp) = Tcp::new_checked(ip.payload()) {
        let _ = (tcp.verify_v6(ip.src(), ip.dst()), tcp.payload());
    }
    match ndp::parse(packet) {
        Ok(Ndp::Solicit(s)) => {
            assert!(!s.target.is_multicast());
            assert!(!s.is_dad() || s.slla.is_none());
            let mut out = [0; ndp::MAX_FRAME_LEN];
            let reply = ndp::AdvertFrame::reply_to(&s, Mac::ZERO, Mac::ZERO, false);
            let len = reply.emit_frame(&mut out).expect("the longest frame fits");
            assert!(matches!(ndp::parse(&out[14..len]), Ok(Ndp::Advert(_))));
        }
        Ok(Ndp::Advert(a)) => assert!(!(a.solicited && a.is_unsolicited_announce())),
        _ => {}
    }
}

/// Valid frames of every kind, to mutate from: encapsulated ones first, then bare tenant frames.
pub fn seeds() -> Vec<Vec<u8>> {
    let inner = inner_seeds();
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        for i in &inner {
            all.push(seed_outer(family).frame(i));
        }
        let mut summed = seed_outer(family);
        summed.udp_checksum = frames::Ck::Good;
        all.push(summed.frame(&inner[0]));
    }
    let mut options = seed_outer(Family::V4);
    options.options = vec![1; 8];
    all.push(frames::padded(options.frame(&inner[0]), 200));
    all.extend(inner);
    all
}

fn seed_outer(family: Family) -> frames::Vxlan {
    let ip: (IpAddr, IpAddr) = match family {
        Family::V4 => ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()),
        Family::V6 => ([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
    };
    let macs = (Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 1, 2]));
    frames::Vxlan::new(macs, ip, Vni::from_low24(0x12_3456))
}

fn inner_seeds() -> Vec<Vec<u8>> {
    let (m1, m2) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let (a4, b4): (std::net::Ipv4Addr, _) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let a6 = std::net::Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
    let b6 = std::net::Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
    let mut v = Vec::new();
    for (a, b) in [(IpAddr::V4(a4), IpAddr::V4(b4)), (a6.into(), b6.into())] {
        v.push(frames::udp_frame((m1, a, 1000), (m2, b, 53), b"question"));
        v.push(frames::tcp_frame((m1, a, 1000), (m2, b, 80), (1, 2), 0x18, b"GET /"));
        v.push(frames::ping((m1, a), (m2, b), 0x0001_0002, b"abcdefgh"));
    }
    let tagged = frames::tagged(&v[0], 0x8100, 100);
    v.push(frames::tagged(&tagged, 0x88a8, 7));
    v.push(tagged);
    v.push(frames::arp_request(m1, a4, b4));
    v.push(frames::arp_reply(m1, a4, m2, b4));
    v.push(frames::garp(m1, a4));
    v.push(frames::arp_probe(m1, a4));
    v.push(frames::rarp_announce(m1));
    let mut nonce = frames::Nd::dad(m1, a6);
    nonce.options.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    v.push(nonce.frame());
    v.push(frames::Nd::solicit(m1, a6, b6).frame());
    v.push(frames::Nd::announce(m1, a6).frame());
    let mut ip = frames::V6::new(a6, b6, 0);
    ip.extensions = vec![60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0];
    ip.extensions.extend(frames::v6_fragment(17, 8, true, 99));
    v.push(frames::ethernet(m2, m1, 0x86dd, &ip.packet(&[1; 24])));
    let mut ip = frames::V4::new(a4, b4, 17);
    (ip.frag, ip.ident, ip.options) = (0x2001, 7, vec![1, 1, 1, 0]);
    v.push(frames::ethernet(m2, m1, 0x0800, &ip.packet(&[1; 24])));
    v.extend(membership::seeds());
    // A router says that a tunnel packet of ours was too big.
    let ours = seed_outer(Family::V4).frame(&v[0]);
    let too_big = frames::icmpv4(3, 4, 1400, &ours[14..14 + 44], frames::Ck::Good);
    v.push(frames::ethernet(m2, m1, 0x0800, &frames::V4::new(b4, a4, 1).packet(&too_big)));
    let mut body = 1400u32.to_be_bytes().to_vec();
    body.extend(&seed_outer(Family::V6).frame(&v[0])[14..]);
    let too_big = frames::icmpv6(b6, a6, 2, 0, &body, frames::Ck::Good);
    v.push(frames::ethernet(m2, m1, 0x86dd, &frames::V6::new(b6, a6, 58).packet(&too_big)));
    v
}
