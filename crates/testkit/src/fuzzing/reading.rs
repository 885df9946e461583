//! A tenant's frame read by the views of its protocols, for each question anew. [`Frame`] has to find the same in one
//! pass, and the fast path what [`Frame`] finds.

use godwit_wire::ethernet::{self, EtherType, Ethernet};
use godwit_wire::flow::{FlowKey, FlowKind};
use godwit_wire::frame::{Frame, Network};
use godwit_wire::guard::{self, Word};
use godwit_wire::ipv6::Upper;
use godwit_wire::offload::Layers;
use godwit_wire::policy::{self, Direction, PortRange, Rule, Traffic, Verdict};
use godwit_wire::tenant::{self, Source};
use godwit_wire::{HashKey, Ipv4, Ipv6, Ndp, Prefix, WireError, ndp, proto};
use std::net::IpAddr;

const KEY: HashKey = HashKey::new(3, 5);

/// A tenant's frame in one piece, and in two that are cut in several places.
pub fn frame(bytes: &[u8]) {
    let Ok(f) = Frame::read(bytes) else {
        assert!(bytes.len() < ethernet::HEADER_LEN);
        assert_eq!(tenant::quick_look(bytes, &KEY), None);
        return;
    };
    assert!(f.is_whole() && f.bytes() == bytes);
    link(&f, bytes);
    carried(&f, bytes);
    assert_eq!(f.source(), source(bytes));
    fast(&f, bytes);
    layers(&f, bytes, bytes.len());
    for at in [14, 18, 22, 34, 54, 62, 78, 142, bytes.len().saturating_sub(1)] {
        if (ethernet::HEADER_LEN..bytes.len()).contains(&at) {
            piece(&bytes[..at], bytes.len());
        }
    }
}

/// Of a first piece everything is read as if it were the frame, but the source and what offloads need.
fn piece(first: &[u8], len: usize) {
    let f = Frame::read_first(first, len).expect("a header");
    assert!(!f.is_whole());
    link(&f, first);
    carried(&f, first);
    assert_eq!(f.source(), source_of_piece(first));
    layers(&f, first, len);
}

/// The usual frames at fixed places.
fn fast(f: &Frame<'_>, bytes: &[u8]) {
    let found = tenant::Look::of(f, &KEY);
    assert_eq!(tenant::look(bytes, &KEY), found);
    if let Some(quick) = tenant::quick_look(bytes, &KEY) {
        assert_eq!(quick, found);
        assert_eq!(quick.is_v4(), f.ipv4().is_some());
        assert!(f.ports().is_some() && !f.resolves());
        // R66.
        assert_ne!(guard::word(f), Some(Word::OfServer));
    }
}

fn link(f: &Frame<'_>, bytes: &[u8]) {
    let Ok(eth) = Ethernet::new_checked(bytes) else {
        assert_eq!(f.network(), Network::Unknown);
        assert!(f.ethertype().is_tag() && f.outer_type().is_tag());
        return;
    };
    assert_eq!((f.dst(), f.src(), f.outer_type()), (eth.dst(), eth.src(), eth.outer_type()));
    assert_eq!((f.l3(), f.ethertype()), (eth.l3_offset(), eth.ethertype()));
    assert_eq!(f.payload(), eth.payload());
    let behind = bytes.get(16..18).map(|b| EtherType(u16::from_be_bytes([b[0], b[1]])));
    assert_eq!(f.type_behind_tag(), behind.filter(|_| eth.is_tagged()));
}

fn carried(f: &Frame<'_>, bytes: &[u8]) {
    assert_eq!(f.ecn(), ip4(bytes).map(|ip| ip.ecn()).or_else(|| ip6(bytes).map(|ip| ip.ecn())));
    let flow = FlowKey::of(f);
    assert_eq!((flow.kind(), flow.proto(), flow.ports(), flow.addresses()), five_tuple(bytes));
    assert_eq!(guard::word(f), word(bytes));
    let arp_like = matches!(carries(bytes), Some((EtherType::ARP | EtherType::RARP, _)));
    assert_eq!(f.arp().is_some(), arp_like);
    let (whole, part) = (nd_kind(bytes, false), nd_kind(bytes, true));
    assert_eq!(f.nd_kind(), part);
    assert_eq!(f.resolves(), arp_like || part.is_some());
    assert_eq!(Traffic::of(f, Direction::In).is_none(), arp_like || whole.is_some());
    discovery(f, bytes);
    [Direction::In, Direction::Out].into_iter().for_each(|direction| traffic(f, bytes, direction));
}

/// A rule made of the flow is about its frame; one that asks for what the frame has not is not.
fn traffic(f: &Frame<'_>, bytes: &[u8], direction: Direction) {
    let Some(t) = Traffic::of(f, direction) else { return };
    let matches = |rule: Rule| policy::verdict(&[rule], Verdict::Deny, &t).1.is_some();
    let any = Rule { direction, ..Rule::ANY };
    let (kind, proto, (from, to), addresses) = five_tuple(bytes);
    let Some((src, dst)) = addresses else {
        assert!(matches(any) && !matches(Rule { proto: Some(17), ..any }));
        return;
    };
    let (remote, own, other) = match direction {
        Direction::Out => (dst, from, to),
        Direction::In => (src, to, from),
    };
    let rule = Rule { proto: u8::try_from(proto).ok(), remote: Some(Prefix::host(remote)), ..any };
    assert!(rule.proto.is_some() && matches(rule));
    let (port, remote_port) = (PortRange::new(own, own), PortRange::new(other, other));
    let has_ports = matches!(kind, FlowKind::V4Ports | FlowKind::V6Ports);
    assert_eq!(matches(Rule { port, remote_port, ..rule }), has_ports);
}

/// A message is the same; of errors its readers tell apart only whether it is another kind of packet.
fn discovery(f: &Frame<'_>, bytes: &[u8]) {
    let told = |r: Result<Ndp, WireError>| r.map_err(|e| e == WireError::NotThis);
    let expected = match carries(bytes) {
        Some((EtherType::IPV6, packet)) => ndp::parse(packet),
        _ => Err(WireError::NotThis),
    };
    assert_eq!(told(f.ndp()), told(expected));
}

/// Type and bytes behind the tags.
fn carries(bytes: &[u8]) -> Option<(EtherType, &[u8])> {
    let eth = Ethernet::new_checked(bytes).ok()?;
    Some((eth.ethertype(), &bytes[eth.l3_offset()..]))
}

fn ip4(bytes: &[u8]) -> Option<Ipv4<&[u8]>> {
    let (_, packet) = carries(bytes).filter(|c| c.0 == EtherType::IPV4)?;
    Ipv4::new_checked(packet).ok()
}

fn ip6(bytes: &[u8]) -> Option<Ipv6<&[u8]>> {
    let (_, packet) = carries(bytes).filter(|c| c.0 == EtherType::IPV6)?;
    Ipv6::new_checked(packet).ok()
}

fn upper_of<'a>(ip: &'a Ipv6<&[u8]>) -> Option<(Upper, &'a [u8])> {
    let upper = ip.upper().ok()?;
    Some((upper, &ip.payload()[upper.offset - 40..]))
}

type FiveTuple = (FlowKind, u16, (u16, u16), Option<(IpAddr, IpAddr)>);

fn five_tuple(bytes: &[u8]) -> FiveTuple {
    let ports = |b: &[u8]| (u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2], b[3]]));
    if let Some(ip) = ip4(bytes) {
        let (proto, addr) = (ip.proto(), Some((ip.src().into(), ip.dst().into())));
        return match proto::has_ports(proto) && !ip.is_fragment() && ip.payload().len() >= 4 {
            true => (FlowKind::V4Ports, proto.into(), ports(ip.payload()), addr),
            false => (FlowKind::V4, proto.into(), (0, 0), addr),
        };
    }
    if let Some(ip) = ip6(bytes) {
        let addr = Some((ip.src().into(), ip.dst().into()));
        return match upper_of(&ip) {
            None => (FlowKind::V6, ip.next_header().into(), (0, 0), addr),
            Some((u, l4)) if proto::has_ports(u.proto) && u.fragment.is_none() && l4.len() >= 4 => {
                (FlowKind::V6Ports, u.proto.into(), ports(l4), addr)
            }
            Some((u, _)) => (FlowKind::V6, u.proto.into(), (0, 0), addr),
        };
    }
    (FlowKind::Mac, u16::from_be_bytes([bytes[12], bytes[13]]), (0, 0), None)
}

fn word(bytes: &[u8]) -> Option<Word> {
    let udp = |b: &[u8], client: u16, server: u16| match u16::from_be_bytes([*b.get(2)?, *b.get(3)?]) {
        to if to == client => Some(Word::OfServer),
        to if to == server => Some(Word::ToServer),
        _ => None,
    };
    if let Some(ip) = ip4(bytes) {
        let first = ip.proto() == proto::UDP && ip.fragment_offset() == 0;
        return if first { udp(ip.payload(), 68, 67) } else { None };
    }
    let ip = ip6(bytes)?;
    let (u, message) = upper_of(&ip).filter(|(u, _)| u.fragment.is_none_or(|f| f.offset == 0))?;
    match (u.proto, message.first()) {
        (proto::ICMPV6, Some(134 | 137)) => Some(Word::OfServer),
        (proto::UDP, _) => udp(message, 546, 547),
        _ => None,
    }
}

/// The type of a neighbor discovery message; `first`: the first of several fragments has one.
fn nd_kind(bytes: &[u8], first: bool) -> Option<u8> {
    let ip = ip6(bytes)?;
    let (u, message) = upper_of(&ip)?;
    let begins = u.fragment.is_none_or(|f| first && f.offset == 0);
    let &kind = message.first()?;
    (begins && u.proto == proto::ICMPV6 && (133..=137).contains(&kind)).then_some(kind)
}

fn source(bytes: &[u8]) -> Source {
    match carries(bytes) {
        Some((EtherType::IPV4, _)) => {
            ip4(bytes).map_or(Source::Malformed, |ip| Source::V4(ip.src().to_bits()))
        }
        Some((EtherType::IPV6, _)) => {
            ip6(bytes).map_or(Source::Malformed, |ip| Source::V6(ip.src().to_bits()))
        }
        _ => Source::NotIp,
    }
}

fn source_of_piece(first: &[u8]) -> Source {
    let Some((ethertype, packet)) = carries(first) else { return Source::NotIp };
    let version = packet.first().map(|b| b >> 4);
    match ethertype {
        EtherType::IPV4 if version == Some(4) && packet.len() >= 20 => {
            Source::V4(u32::from_be_bytes(packet[12..16].try_into().expect("four bytes")))
        }
        EtherType::IPV6 if version == Some(6) && packet.len() >= 40 => {
            Source::V6(u128::from_be_bytes(packet[8..24].try_into().expect("sixteen bytes")))
        }
        EtherType::IPV4 | EtherType::IPV6 => Source::Malformed,
        _ => Source::NotIp,
    }
}

/// What can be completed or cut, and where it lies, by a walk of its own.
pub(super) fn layers(f: &Frame<'_>, first: &[u8], len: usize) {
    let expected = walk(first, len);
    assert_eq!(Layers::of(f).ok(), expected, "{len} bytes, of which {} are there", first.len());
}

fn walk(first: &[u8], len: usize) -> Option<Layers> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(first.get(at..at + 2)?.try_into().ok()?));
    let mut l3 = 14;
    while l3 < 22 && EtherType(u16_at(l3 - 2)?).is_tag() {
        l3 += 4;
    }
    let ip = first.get(l3..)?;
    let (six, l4, end, proto) = match u16_at(l3 - 2)? {
        0x0800 if ip.len() >= 20 && ip[0] >> 4 == 4 && ip[0] & 15 >= 5 && u16_at(l3 + 6)? & 0x3fff == 0 => {
            let header = usize::from(ip[0] & 15) * 4;
            (false, l3 + header, l3 + usize::from(u16_at(l3 + 2)?), ip[9])
        }
        0x86dd if ip.len() >= 40 && ip[0] >> 4 == 6 => {
            let (mut next, mut at, mut left) = (ip[6], l3 + 40, 8);
            while matches!(next, proto::HOP_BY_HOP | proto::DEST_OPTIONS) {
                let header = first.get(at..at + 8).filter(|_| left > 0)?;
                (next, at, left) = (header[0], at + (usize::from(header[1]) + 1) * 8, left - 1);
            }
            (true, at, l3 + 40 + usize::from(u16_at(l3 + 4)?), next)
        }
        _ => return None,
    };
    let header = match proto {
        proto::TCP => usize::from(first.get(l4..l4 + 20)?[12] >> 4) * 4,
        proto::UDP if l4 + usize::from(u16_at(l4 + 4)?) == end => 8,
        _ => return None,
    };
    let (tcp, payload) = (proto == proto::TCP, l4 + header);
    let fits =
        header >= 8 && (!tcp || header >= 20) && payload <= end && end <= len && payload <= first.len();
    fits.then_some(Layers { l3, l4, payload, end, six, tcp })
}
