//! The outer headers of a VXLAN packet as one block (R1, R3, R4, R5): written from a prebuilt
//! copy, read in one pass.

use crate::addr::{Mac, Vni};
use crate::bytes::{array, put, put_u16, put_u32, u16_at, u32_at, v4_at, v6_at};
use crate::checksum::{self, fold, pseudo_v4, pseudo_v6, sum, udp_field};
use crate::dscp::{Class, Dscp};
use crate::ecn::Ecn;
use crate::error::WireError;
use crate::ethernet::{self, EtherType};
use crate::flow::FlowHash;
use crate::ipv4::{self, Ipv4Repr};
use crate::ipv6::{self, Ipv6, Ipv6Repr};
use crate::{proto, udp, vxlan};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes before the inner frame with outer IPv4: Ethernet, IPv4, UDP, VXLAN.
pub const V4_LEN: usize = 50;
/// Bytes before the inner frame with outer IPv6.
pub const V6_LEN: usize = 70;
/// The largest inner frame that fits under a 16-bit outer length in either family.
pub const MAX_INNER: usize = 65535 - 20 - 8 - 8;

const L3: usize = ethernet::HEADER_LEN;
const V4_UDP: usize = L3 + ipv4::HEADER_LEN;
const V6_UDP: usize = L3 + ipv6::HEADER_LEN;

/// The family of the outer header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// IPv4, 50 bytes of overhead.
    V4,
    /// IPv6, 70 bytes of overhead.
    V6,
}

impl Family {
    /// Bytes that encapsulation adds in front of the inner frame: 50 or 70.
    #[inline]
    pub const fn overhead(self) -> usize {
        match self {
            Family::V4 => V4_LEN,
            Family::V6 => V6_LEN,
        }
    }
}

/// A prebuilt outer header towards one remote locator.
///
/// What [`OuterHeader::write_v4`] reads are its first 54 bytes: with the few that a tunnel has to say beside
/// them it fits in one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct OuterHeader {
    /// IPv4: the header's sum without the fields that `write` patches, bytes as they lie on the wire.
    partial_sum: u16,
    family: Family,
    ttl: u8,
    bytes: [u8; 72],
}

impl OuterHeader {
    /// Outer IPv4: DF set, identification 0, DSCP 0 (R3, R6). `ttl` is the default of the first
    /// encapsulation.
    pub fn v4(
        src_mac: Mac,
        dst_mac: Mac,
        src_ip: Ipv4Addr,
        dst_ip: Ipv4Addr,
        udp_port: u16,
        ttl: u8,
    ) -> OuterHeader {
        let mut bytes = [0; 72];
        let ip = Ipv4Repr {
            src: src_ip,
            dst: dst_ip,
            proto: proto::UDP,
            ttl,
            tos: 0,
            ident: 0,
            dont_fragment: true,
            payload_len: 0,
        };
        put_ethernet(&mut bytes, dst_mac, src_mac, EtherType::IPV4);
        let written = ip.emit(&mut bytes[L3..]);
        debug_assert_eq!(written, Ok(ipv4::HEADER_LEN));
        put_u16(&mut bytes, L3 + 2, 0);
        put_u16(&mut bytes, L3 + 10, 0);
        let partial_sum = fold(sum(&bytes[L3..V4_UDP])).swap_bytes();
        put_u16(&mut bytes, V4_UDP + 2, udp_port);
        bytes[V4_UDP + udp::HEADER_LEN] = vxlan::FLAG_I;
        OuterHeader { partial_sum, family: Family::V4, ttl, bytes }
    }

    /// Outer IPv6: no extension header, DSCP 0 (R4, R6). `ttl` is the default hop limit of the
    /// first encapsulation.
    pub fn v6(
        src_mac: Mac,
        dst_mac: Mac,
        src_ip: Ipv6Addr,
        dst_ip: Ipv6Addr,
        udp_port: u16,
        ttl: u8,
    ) -> OuterHeader {
        let mut bytes = [0; 72];
        let ip = Ipv6Repr {
            src: src_ip,
            dst: dst_ip,
            next_header: proto::UDP,
            hop_limit: ttl,
            traffic_class: 0,
            flow_label: 0,
            payload_len: 0,
        };
        put_ethernet(&mut bytes, dst_mac, src_mac, EtherType::IPV6);
        let written = ip.emit(&mut bytes[L3..]);
        debug_assert_eq!(written, Ok(ipv6::HEADER_LEN));
        put_u16(&mut bytes, V6_UDP + 2, udp_port);
        bytes[V6_UDP + udp::HEADER_LEN] = vxlan::FLAG_I;
        OuterHeader { partial_sum: 0, family: Family::V6, ttl, bytes }
    }

    /// The family, and with it the overhead.
    #[inline]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Bytes that [`OuterHeader::write`] fills: 50 or 70. Never 0.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        self.family.overhead()
    }

    /// The TTL or hop limit given at construction.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// The MAC address of the next hop.
    #[inline]
    pub fn dst_mac(&self) -> Mac {
        crate::bytes::mac_at(&self.bytes, 0)
    }

    /// The locator that the header leads to.
    pub fn dst_ip(&self) -> IpAddr {
        match self.family {
            Family::V4 => v4_at(&self.bytes, L3 + 16).into(),
            Family::V6 => v6_at(&self.bytes, L3 + 24).into(),
        }
    }

    /// The own locator that the header comes from.
    pub fn src_ip(&self) -> IpAddr {
        match self.family {
            Family::V4 => v4_at(&self.bytes, L3 + 12).into(),
            Family::V6 => v6_at(&self.bytes, L3 + 8).into(),
        }
    }

    /// Writes the header in front of an inner frame of `inner_len` bytes: lengths, IPv4 checksum,
    /// TTL, DSCP, ECN, source port, flow label (IPv6 only) and VNI patched in. The UDP checksum is 0
    /// (R5); see [`fill_udp_checksum`] for the optional full one.
    ///
    /// `inner_len` must be at most [`MAX_INNER`]: larger ones are a caller's bug that a debug
    /// build catches and a release build sends with a wrong length.
    ///
    /// # Panics
    /// Where `dst` is not exactly [`OuterHeader::len`] bytes.
    pub fn write(&self, dst: &mut [u8], inner_len: usize, ttl: u8, patch: Patch) {
        match self.family {
            Family::V4 => {
                let dst = dst.try_into().expect("the length of an IPv4 outer header");
                self.write_v4(dst, inner_len, patch);
            }
            Family::V6 => {
                let dst = dst.try_into().expect("the length of an IPv6 outer header");
                self.write_v6(dst, inner_len, patch);
            }
        }
        self.set_ttl(dst, ttl);
    }

    /// Changes the TTL or hop limit of a frame that this header was written into, and repairs the
    /// IPv4 checksum. A frame shorter than the header stays as it is.
    pub fn set_ttl(&self, frame: &mut [u8], ttl: u8) {
        if frame.len() < self.len() {
            return;
        }
        match self.family {
            Family::V4 => {
                // TTL and protocol are one word of the sum.
                let old = u16_at(frame, L3 + 8);
                let new = u16::from(ttl) << 8 | old & 0xff;
                let repaired = checksum::update_u16(u16_at(frame, L3 + 10), old, new);
                put_u16(frame, L3 + 8, new);
                put_u16(frame, L3 + 10, repaired);
            }
            Family::V6 => frame[L3 + 7] = ttl,
        }
    }

    /// [`OuterHeader::write`] for a header of family V4, with the TTL given at construction.
    ///
    /// All that is patched goes out in four stores, beside three of whole vectors.
    #[inline(always)]
    pub fn write_v4(&self, dst: &mut [u8; V4_LEN], inner_len: usize, patch: Patch) {
        debug_assert!(inner_len <= MAX_INNER && self.family == Family::V4);
        let udp_len = (inner_len + udp::HEADER_LEN + vxlan::HEADER_LEN) as u16;
        let total = (udp_len + ipv4::HEADER_LEN as u16).swap_bytes();
        let class = u16::from(patch.class.bits()) << 8;
        // One's complement sums do not mind the byte order, so they are taken as the bytes lie.
        let sum = !add(add(self.partial_sum, class), total);
        put::<16>(dst, 0, array(&self.bytes, 0));
        put::<16>(dst, 16, array(&self.bytes, 16));
        put::<2>(dst, 32, array(&self.bytes, 32));
        put(dst, L3, (u32::from(total) << 16 | u32::from(class) | 0x45).to_le_bytes());
        put(dst, L3 + 10, sum.to_le_bytes());
        put(dst, V4_UDP, self.udp(V4_UDP, patch.src_port(), udp_len));
        put(dst, V4_UDP + udp::HEADER_LEN, vxlan(patch.vni));
    }

    /// [`OuterHeader::write`] for a header of family V6, with the hop limit given at construction.
    #[inline(always)]
    pub fn write_v6(&self, dst: &mut [u8; V6_LEN], inner_len: usize, patch: Patch) {
        debug_assert!(inner_len <= MAX_INNER && self.family == Family::V6);
        let udp_len = (inner_len + udp::HEADER_LEN + vxlan::HEADER_LEN) as u16;
        put::<16>(dst, 0, array(&self.bytes, 0));
        put::<16>(dst, 16, array(&self.bytes, 16));
        put::<16>(dst, 32, array(&self.bytes, 32));
        put::<6>(dst, 48, array(&self.bytes, 48));
        let class = u32::from(patch.class.bits()) << 20;
        put_u32(dst, L3, 6 << 28 | class | patch.flow_label());
        put_u16(dst, L3 + 4, udp_len);
        put(dst, V6_UDP, self.udp(V6_UDP, patch.src_port(), udp_len));
        put(dst, V6_UDP + udp::HEADER_LEN, vxlan(patch.vni));
    }

    /// The UDP header, checksum 0, as one word: ports and length into the prebuilt one, where they
    /// are 0, as the bytes lie.
    #[inline(always)]
    fn udp(&self, at: usize, src_port: u16, udp_len: u16) -> [u8; 8] {
        let prebuilt = u64::from_le_bytes(array(&self.bytes, at));
        let patched = u64::from(src_port.swap_bytes()) | u64::from(udp_len.swap_bytes()) << 32;
        (prebuilt | patched).to_le_bytes()
    }
}

/// What differs from packet to packet in the headers towards one locator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patch {
    /// The virtual network.
    pub vni: Vni,
    /// Gives the UDP source port (R2) and the flow label (R4).
    pub hash: FlowHash,
    /// Outer DSCP and ECN (R6, R23).
    pub class: Class,
}

impl Patch {
    #[inline(always)]
    const fn src_port(&self) -> u16 {
        self.hash.src_port()
    }

    #[inline(always)]
    const fn flow_label(&self) -> u32 {
        self.hash.flow_label()
    }
}

/// One's complement addition: the carry comes back in. Two instructions.
#[inline(always)]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// The VXLAN header: only the I flag set (R1).
#[inline(always)]
fn vxlan(vni: Vni) -> [u8; 8] {
    (u64::from(vxlan::FLAG_I) << 56 | u64::from(vni.get()) << 8).to_be_bytes()
}

fn put_ethernet(bytes: &mut [u8; 72], dst: Mac, src: Mac, ty: EtherType) {
    put(bytes, 0, dst.0);
    put(bytes, 6, src.0);
    put_u16(bytes, 12, ty.0);
}

/// Fills in the full UDP checksum of a whole encapsulated frame (optional in R5), a result of 0 as
/// 0xffff.
///
/// # Errors
/// [`WireError::NotThis`] where the frame does not parse as VXLAN on `vxlan_port`.
pub fn fill_udp_checksum(frame: &mut [u8], vxlan_port: u16) -> Result<(), WireError> {
    let l4 = locate_udp(frame).map_err(|_| WireError::NotThis)?;
    if l4.end - l4.udp < udp::HEADER_LEN || u16_at(frame, l4.udp + 2) != vxlan_port {
        return Err(WireError::NotThis);
    }
    put_u16(frame, l4.udp + 6, 0);
    let total = l4.pseudo_sum() + sum(&frame[l4.udp..l4.end]);
    put_u16(frame, l4.udp + 6, udp_field(!fold(total)));
    Ok(())
}

/// Prepares a whole encapsulated frame for a device that fills in the UDP checksum (R5): the field gets the
/// sum of the pseudo-header, which the device adds the rest to. Returns the length of the IP header in
/// bytes.
///
/// # Errors
/// [`WireError::NotThis`] where the frame does not parse as VXLAN on `vxlan_port`.
pub fn leave_udp_checksum(frame: &mut [u8], vxlan_port: u16) -> Result<usize, WireError> {
    let l4 = locate_udp(frame).map_err(|_| WireError::NotThis)?;
    if l4.end - l4.udp < udp::HEADER_LEN || u16_at(frame, l4.udp + 2) != vxlan_port {
        return Err(WireError::NotThis);
    }
    put_u16(frame, l4.udp + 6, fold(l4.pseudo_sum()));
    Ok(l4.udp - L3)
}

/// Copies the DSCP of the inner packet, 0 for what is not IP, into the outer header of a frame that was just
/// encapsulated (R6); ECN stays, and the IPv4 checksum is repaired. A frame without outer and inner header stays as it
/// is. The inner one may have one 802.1Q tag.
pub fn copy_dscp(frame: &mut [u8]) {
    let v4 = match frame.get(12..14) {
        Some([0x08, 0x00]) => true,
        Some([0x86, 0xdd]) => false,
        _ => return,
    };
    let Some(dscp) = frame.get(if v4 { V4_LEN } else { V6_LEN }..).and_then(inner_dscp) else { return };
    let old = u16_at(frame, L3);
    if v4 {
        // Version, header length, and the byte of DSCP and ECN.
        let new = old & 0xff03 | u16::from(dscp) << 2;
        put_u16(frame, L3, new);
        let repaired = checksum::update_u16(u16_at(frame, L3 + 10), old, new);
        put_u16(frame, L3 + 10, repaired);
    } else {
        // Version, the traffic class, and the first bits of the flow label.
        put_u16(frame, L3, old & 0xf03f | u16::from(dscp) << 6);
    }
}

/// The DSCP of an inner frame; `None` where it is too short to have any header.
fn inner_dscp(inner: &[u8]) -> Option<u8> {
    let at = if inner.get(12..14)? == [0x81, 0x00] { L3 + 4 } else { L3 };
    let [first, second, ..] = *inner.get(at..at + 20).unwrap_or_default() else { return Some(0) };
    Some(match (u16_at(inner, at - 2), first >> 4) {
        (0x0800, 4) => second >> 2,
        (0x86dd, 6) => (first << 4 | second >> 4) >> 2,
        _ => 0,
    })
}

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
struct L4 {
    family: Family,
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    class: u8,
    udp: usize,
    end: usize,
}

impl L4 {
    fn pseudo_sum(&self) -> u64 {
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
fn locate_udp(frame: &[u8]) -> Result<L4, OuterError> {
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
