//! Frames that the gateway sends: Ethernet and IP around a message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::checksum::{fold, pseudo_v4, pseudo_v6, sum, udp_field};
use godwit_wire::ethernet::{self, EtherType};
use godwit_wire::ipv4::{self, Ipv4Repr};
use godwit_wire::ipv6::{self, Ipv6Repr};
use godwit_wire::{Mac, proto, udp};

/// Longest frame that control sends, in bytes.
const MAX_FRAME: usize = 1514;
/// Bytes from the beginning of a message to its checksum.
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
/// Time to live, in hops, of what stays on the link all the same.
const TTL: u8 = 64;
/// Neighbor discovery counts only with this hop limit, which no router lets through (RFC 4861 section 6.1.2).
const ND_HOP_LIMIT: u8 = 255;

/// Source and destination MAC.
pub(super) type Macs = (Mac, Mac);

/// An ICMPv6 message, whose checksum is filled in, as a frame of neighbor discovery.
pub(super) fn neighbor_discovery(macs: Macs, ips: (Ipv6Addr, Ipv6Addr), mut message: Vec<u8>) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let check = !fold(pseudo_v6(ips.0, ips.1, proto::ICMPV6, len) + sum(&message));
    if let Some(field) = message.get_mut(ICMP_CHECKSUM..ICMP_CHECKSUM + 2) {
        field.copy_from_slice(&check.to_be_bytes());
    }
    frame_v6(macs, ips, (proto::ICMPV6, ND_HOP_LIMIT), &message).unwrap_or_default()
}

/// A UDP datagram of either family from and to these ports; none where it is too long for a frame, or the addresses
/// are not of one family.
pub(super) fn udp(macs: Macs, ips: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Option<Vec<u8>> {
    let mut message = vec![0; udp::HEADER_LEN];
    udp::emit(&mut message, ports.0, ports.1, payload.len()).ok()?;
    message.extend(payload);
    let len = u16::try_from(message.len()).ok()?;
    let pseudo = match ips {
        (IpAddr::V4(src), IpAddr::V4(dst)) => pseudo_v4(src, dst, proto::UDP, len),
        (IpAddr::V6(src), IpAddr::V6(dst)) => pseudo_v6(src, dst, proto::UDP, len.into()),
        _ => return None,
    };
    let check = udp_field(!fold(pseudo + sum(&message)));
    message.get_mut(UDP_CHECKSUM..UDP_CHECKSUM + 2)?.copy_from_slice(&check.to_be_bytes());
    match ips {
        (IpAddr::V4(src), IpAddr::V4(dst)) => frame_v4(macs, (src, dst), &message),
        (IpAddr::V6(src), IpAddr::V6(dst)) => frame_v6(macs, (src, dst), (proto::UDP, TTL), &message),
        _ => None,
    }
}

fn frame_v4(macs: Macs, (src, dst): (Ipv4Addr, Ipv4Addr), message: &[u8]) -> Option<Vec<u8>> {
    let ip = Ipv4Repr {
        src,
        dst,
        proto: proto::UDP,
        ttl: TTL,
        tos: 0,
        ident: 0,
        dont_fragment: true,
        payload_len: message.len(),
    };
    let mut frame = header(macs, EtherType::IPV4, ipv4::HEADER_LEN)?;
    ip.emit(frame.get_mut(ethernet::HEADER_LEN..)?).ok()?;
    whole(frame, message)
}

fn frame_v6(
    macs: Macs,
    (src, dst): (Ipv6Addr, Ipv6Addr),
    (next_header, hop_limit): (u8, u8),
    message: &[u8],
) -> Option<Vec<u8>> {
    let payload_len = message.len();
    let ip = Ipv6Repr { src, dst, next_header, hop_limit, traffic_class: 0, flow_label: 0, payload_len };
    let mut frame = header(macs, EtherType::IPV6, ipv6::HEADER_LEN)?;
    ip.emit(frame.get_mut(ethernet::HEADER_LEN..)?).ok()?;
    whole(frame, message)
}

fn header((src, dst): Macs, ethertype: EtherType, ip_len: usize) -> Option<Vec<u8>> {
    let mut frame = vec![0; ethernet::HEADER_LEN + ip_len];
    ethernet::emit(&mut frame, dst, src, ethertype).ok()?;
    Some(frame)
}

fn whole(mut frame: Vec<u8>, message: &[u8]) -> Option<Vec<u8>> {
    frame.extend(message);
    (frame.len() <= MAX_FRAME).then_some(frame)
}
