//! Reading the outer headers of a received frame.

use crate::addr::Vni;
use crate::bytes::{u16_at, u32_at};
use crate::checksum::{fold, pseudo_v4, pseudo_v6, sum};
use crate::dscp::Dscp;
use crate::ecn::Ecn;
use crate::error::WireError;
use crate::ethernet::{self, EtherType};
use crate::ipv6::Ipv6;
use crate::{ipv4, proto, udp, vxlan};
use core::fmt;
use core::net::IpAddr;

use super::{Family, L3, V4_UDP, V6_UDP};

/// What the receiver knows of the UDP checksum of an accepted packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UdpChecksum {
    /// The sender computed none (RFC 6935, R5).
    Zero,
    /// It was verified over header, pseudo-header and inner frame.
    Good,
}

/// The outer header of a received VXLAN packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// Outer family.
    pub family: Family,
    /// The locator of the sending NVE.
    pub src: IpAddr,
    /// The locator that it was sent to; whether that is ours is the caller's question.
    pub dst: IpAddr,
    /// TTL or hop limit as received, in hops.
    pub ttl: u8,
    /// Outer DSCP as received (R6).
    pub dscp: Dscp,
    /// Outer ECN, to be merged by [`crate::ecn::apply_to_frame`].
    pub ecn: Ecn,
    /// The virtual network.
    pub vni: Vni,
    /// UDP source port: the sender's flow entropy.
    pub src_port: u16,
    /// Where the inner frame begins, in bytes from the start of the outer frame.
    pub inner_offset: usize,
    /// Where it ends. Bytes after it are padding of the outer Ethernet, to be trimmed.
    pub inner_end: usize,
    /// Whether the UDP checksum was absent or good.
    pub udp_checksum: UdpChecksum,
}

/// Why a received frame is no VXLAN packet to decapsulate. One value, one drop counter, except
/// [`OuterError::NotVxlan`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum OuterError {
    /// Nothing wrong with it: the underlay's own traffic (ARP, ICMP, another port), to be handed
    /// elsewhere.
    NotVxlan,
    /// Ends inside a header.
    Truncated,
    /// The version does not fit the EtherType.
    BadVersion,
    /// IP lengths contradict each other or exceed the frame (R1).
    IpLength,
    /// Wrong IPv4 header checksum.
    IpChecksum,
    /// An IPv6 extension chain that cannot be followed.
    BadExtension,
    /// A UDP fragment: outer fragments are never reassembled (R3).
    Fragment,
    /// The UDP length is not that of the IP payload (R1).
    UdpLength,
    /// A nonzero UDP checksum that is wrong (R5).
    UdpChecksum,
    /// The VXLAN I flag is 0 (R1).
    NoVni,
    /// Less than an Ethernet header inside (R1).
    InnerTooShort,
}

impl OuterError {
    /// All values, in the order of their discriminants.
    pub const ALL: [OuterError; 11] = [
        OuterError::NotVxlan,
        OuterError::Truncated,
        OuterError::BadVersion,
        OuterError::IpLength,
        OuterError::IpChecksum,
        OuterError::BadExtension,
        OuterError::Fragment,
        OuterError::UdpLength,
        OuterError::UdpChecksum,
        OuterError::NoVni,
        OuterError::InnerTooShort,
    ];

    /// A short name for counters and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            OuterError::NotVxlan => "not_vxlan",
            OuterError::Truncated => "outer_truncated",
            OuterError::BadVersion => "outer_bad_version",
            OuterError::IpLength => "outer_ip_length",
            OuterError::IpChecksum => "outer_ip_checksum",
            OuterError::BadExtension => "outer_bad_extension",
            OuterError::Fragment => "outer_fragment",
            OuterError::UdpLength => "outer_udp_length",
            OuterError::UdpChecksum => "outer_udp_checksum",
            OuterError::NoVni => "vxlan_no_vni",
            OuterError::InnerTooShort => "inner_too_short",
        }
    }
}

impl fmt::Display for OuterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for OuterError {}

/// An unfragmented UDP datagram found in a frame: `udp..end` is the IP payload's UDP part.
pub(super) struct L4 {
    family: Family,
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    class: u8,
    pub(super) udp: usize,
    pub(super) end: usize,
}

impl L4 {
    pub(super) fn pseudo_sum(&self) -> u64 {
        let len = self.end - self.udp;
        match (self.src, self.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => pseudo_v4(s, d, proto::UDP, len as u16),
            (IpAddr::V6(s), IpAddr::V6(d)) => pseudo_v6(s, d, proto::UDP, len as u32),
            // `locate_udp` takes both addresses from one header.
            _ => 0,
        }
    }
}

/// Parses a frame from the underlay (R1, R3, R5). IPv4 options, IPv6 extension headers, any
/// reserved VXLAN bits and trailing Ethernet padding are tolerated.
///
/// # Errors
/// [`OuterError::NotVxlan`] for the underlay's own traffic; any other value is a reason to drop.
#[inline]
pub fn parse_outer(frame: &[u8], vxlan_port: u16) -> Result<Outer, OuterError> {
    let l4 = locate_udp(frame)?;
    let len = l4.end - l4.udp;
    if len < udp::HEADER_LEN {
        return Err(OuterError::Truncated);
    }
    if u16_at(frame, l4.udp + 2) != vxlan_port {
        return Err(OuterError::NotVxlan);
    }
    if usize::from(u16_at(frame, l4.udp + 4)) != len {
        return Err(OuterError::UdpLength);
    }
    let udp_checksum = match u16_at(frame, l4.udp + 6) {
        0 => UdpChecksum::Zero,
        _ if fold(l4.pseudo_sum() + sum(&frame[l4.udp..l4.end])) == 0xffff => UdpChecksum::Good,
        _ => return Err(OuterError::UdpChecksum),
    };
    let vx = l4.udp + udp::HEADER_LEN;
    if l4.end - vx < vxlan::HEADER_LEN {
        return Err(OuterError::Truncated);
    }
    if frame[vx] & vxlan::FLAG_I == 0 {
        return Err(OuterError::NoVni);
    }
    let inner_offset = vx + vxlan::HEADER_LEN;
    if l4.end - inner_offset < ethernet::HEADER_LEN {
        return Err(OuterError::InnerTooShort);
    }
    Ok(Outer {
        family: l4.family,
        src: l4.src,
        dst: l4.dst,
        ttl: l4.ttl,
        dscp: Dscp::of_class(l4.class),
        ecn: Ecn::from_bits(l4.class),
        vni: Vni::from_low24(u32_at(frame, vx + 4) >> 8),
        src_port: u16_at(frame, l4.udp),
        inner_offset,
        inner_end: l4.end,
        udp_checksum,
    })
}

#[inline]
pub(super) fn locate_udp(frame: &[u8]) -> Result<L4, OuterError> {
    if frame.len() < ethernet::HEADER_LEN {
        return Err(OuterError::Truncated);
    }
    match EtherType(u16_at(frame, 12)) {
        EtherType::IPV4 => locate_v4(frame),
        EtherType::IPV6 => locate_v6(frame),
        _ => Err(OuterError::NotVxlan),
    }
}

/// Why an IP view's gate refused, in this module's words. The gates report a missing fixed header
/// and a length beyond the frame alike, so the former is looked at first.
fn ip_error(e: WireError) -> OuterError {
    match e {
        WireError::BadVersion => OuterError::BadVersion,
        _ => OuterError::IpLength,
    }
}

#[inline]
fn locate_v4(frame: &[u8]) -> Result<L4, OuterError> {
    if frame.len() < V4_UDP {
        return Err(OuterError::Truncated);
    }
    let ip = ipv4::Ipv4::new_checked(&frame[L3..]).map_err(ip_error)?;
    if !ip.verify_checksum() {
        return Err(OuterError::IpChecksum);
    }
    if ip.proto() != proto::UDP {
        return Err(OuterError::NotVxlan);
    }
    if ip.is_fragment() {
        return Err(OuterError::Fragment);
    }
    Ok(L4 {
        family: Family::V4,
        src: ip.src().into(),
        dst: ip.dst().into(),
        ttl: ip.ttl(),
        class: ip.tos(),
        udp: L3 + ip.header_len(),
        end: L3 + ip.total_len(),
    })
}

#[inline]
fn locate_v6(frame: &[u8]) -> Result<L4, OuterError> {
    if frame.len() < V6_UDP {
        return Err(OuterError::Truncated);
    }
    let ip = Ipv6::new_checked(&frame[L3..]).map_err(ip_error)?;
    let upper = ip.upper().map_err(|_| OuterError::BadExtension)?;
    if upper.proto != proto::UDP {
        return Err(OuterError::NotVxlan);
    }
    if upper.fragment.is_some() {
        return Err(OuterError::Fragment);
    }
    Ok(L4 {
        family: Family::V6,
        src: ip.src().into(),
        dst: ip.dst().into(),
        ttl: ip.hop_limit(),
        class: ip.traffic_class(),
        udp: L3 + upper.offset,
        end: L3 + ip.total_len(),
    })
}
