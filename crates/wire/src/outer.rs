//! The outer headers of a VXLAN packet as one block (R1, R3, R4, R5, R95): written from a prebuilt
//! copy, read in one pass.

mod parse;

pub use parse::{Outer, OuterError, UdpChecksum, parse_outer};

use crate::addr::{Mac, Vni};
use crate::bytes::{array, put, put_u16, put_u32, u16_at, v4_at, v6_at};
use crate::checksum::{self, fold, sum, udp_field};
use crate::dscp::Class;
use crate::error::WireError;
use crate::ethernet::{self, EtherType, TAG_LEN, VlanId};
use crate::flow::FlowHash;
use crate::ipv4::{self, Ipv4Repr};
use crate::ipv6::{self, Ipv6Repr};
use crate::{proto, udp, vxlan};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parse::locate_udp;

/// Bytes before the inner frame with outer IPv4: Ethernet, IPv4, UDP, VXLAN.
pub const V4_LEN: usize = 50;
/// Bytes before the inner frame with outer IPv6.
pub const V6_LEN: usize = 70;
/// [`V4_LEN`] behind an 802.1Q tag (R95).
pub const TAGGED_V4_LEN: usize = V4_LEN + TAG_LEN;
/// [`V6_LEN`] behind an 802.1Q tag.
pub const TAGGED_V6_LEN: usize = V6_LEN + TAG_LEN;
/// The largest inner frame that fits under a 16-bit outer length in either family.
pub const MAX_INNER: usize = 65535 - 20 - 8 - 8;

/// Bytes of an Ethernet header before its type or tag.
const ADDRESSES: usize = 12;
const L3: usize = ethernet::HEADER_LEN;
const TAGGED_L3: usize = L3 + TAG_LEN;
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

/// What an outer header looks like: its length and where its fields are follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    V4,
    V6,
    TaggedV4,
    TaggedV6,
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
    shape: Shape,
    ttl: u8,
    /// All but the VXLAN header, which is written anew for each packet.
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
        OuterHeader { partial_sum, shape: Shape::V4, ttl, bytes }
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
        OuterHeader { partial_sum: 0, shape: Shape::V6, ttl, bytes }
    }

    /// The same header behind an 802.1Q tag of priority 0 (R95); it must not have one yet.
    #[must_use]
    pub fn in_vlan(mut self, vlan: VlanId) -> OuterHeader {
        debug_assert!(!self.is_tagged(), "one tag is all that an outer header has");
        self.shape = match self.family() {
            Family::V4 => Shape::TaggedV4,
            Family::V6 => Shape::TaggedV6,
        };
        let end = self.bytes.len() - TAG_LEN;
        self.bytes.copy_within(ADDRESSES..end, ADDRESSES + TAG_LEN);
        put_u16(&mut self.bytes, ADDRESSES, EtherType::VLAN.0);
        put_u16(&mut self.bytes, ADDRESSES + 2, vlan.get());
        self
    }

    /// The outer family.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        match self.shape {
            Shape::V4 | Shape::TaggedV4 => Family::V4,
            Shape::V6 | Shape::TaggedV6 => Family::V6,
        }
    }

    /// It has an 802.1Q tag: [`OuterHeader::write_tagged_v4`] and its like are to write it.
    #[inline(always)]
    pub const fn is_tagged(&self) -> bool {
        matches!(self.shape, Shape::TaggedV4 | Shape::TaggedV6)
    }

    /// [`OuterHeader::write_v4`] is to write it: of family V4, and untagged.
    #[inline(always)]
    pub const fn is_plain_v4(&self) -> bool {
        matches!(self.shape, Shape::V4)
    }

    /// The VLAN of its tag.
    pub fn vlan(&self) -> Option<VlanId> {
        if self.is_tagged() { VlanId::new(u16_at(&self.bytes, ADDRESSES + 2)) } else { None }
    }

    /// Bytes that [`OuterHeader::write`] fills: 50 or 70, behind a tag 54 or 74. Never 0.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        self.family().overhead() + self.l3() - L3
    }

    /// Bytes of its Ethernet header, the tag included: where the IP header begins.
    #[inline]
    pub const fn l3(&self) -> usize {
        if self.is_tagged() { L3 + TAG_LEN } else { L3 }
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
        match self.family() {
            Family::V4 => v4_at(&self.bytes, self.l3() + 16).into(),
            Family::V6 => v6_at(&self.bytes, self.l3() + 24).into(),
        }
    }

    /// The own locator that the header comes from.
    pub fn src_ip(&self) -> IpAddr {
        match self.family() {
            Family::V4 => v4_at(&self.bytes, self.l3() + 12).into(),
            Family::V6 => v6_at(&self.bytes, self.l3() + 8).into(),
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
        const RIGHT: &str = "the length of this outer header";
        match self.shape {
            Shape::V4 => self.write_v4(dst.try_into().expect(RIGHT), inner_len, patch),
            Shape::V6 => self.write_v6(dst.try_into().expect(RIGHT), inner_len, patch),
            Shape::TaggedV4 => self.write_tagged_v4(dst.try_into().expect(RIGHT), inner_len, patch),
            Shape::TaggedV6 => self.write_tagged_v6(dst.try_into().expect(RIGHT), inner_len, patch),
        }
        self.set_ttl(dst, ttl);
    }

    /// Changes the TTL or hop limit of a frame that this header was written into, and repairs the
    /// IPv4 checksum. A frame shorter than the header stays as it is.
    pub fn set_ttl(&self, frame: &mut [u8], ttl: u8) {
        if frame.len() < self.len() {
            return;
        }
        let l3 = self.l3();
        match self.family() {
            Family::V4 => {
                // TTL and protocol are one word of the sum.
                let old = u16_at(frame, l3 + 8);
                let new = u16::from(ttl) << 8 | old & 0xff;
                let repaired = checksum::update_u16(u16_at(frame, l3 + 10), old, new);
                put_u16(frame, l3 + 8, new);
                put_u16(frame, l3 + 10, repaired);
            }
            Family::V6 => frame[l3 + 7] = ttl,
        }
    }

    /// [`OuterHeader::write`] for an untagged header of family V4, with the TTL given at construction.
    ///
    /// All that is patched goes out in four stores, beside three of whole vectors.
    #[inline(always)]
    pub fn write_v4(&self, dst: &mut [u8; V4_LEN], inner_len: usize, patch: Patch) {
        debug_assert!(self.shape == Shape::V4);
        put::<16>(dst, 0, array(&self.bytes, 0));
        put::<16>(dst, 16, array(&self.bytes, 16));
        put::<2>(dst, 32, array(&self.bytes, 32));
        self.patch_v4::<L3, V4_LEN>(dst, inner_len, patch);
    }

    /// [`OuterHeader::write_v4`] for a tagged header.
    #[inline(always)]
    pub fn write_tagged_v4(&self, dst: &mut [u8; TAGGED_V4_LEN], inner_len: usize, patch: Patch) {
        debug_assert!(self.shape == Shape::TaggedV4);
        put::<16>(dst, 0, array(&self.bytes, 0));
        put::<16>(dst, 16, array(&self.bytes, 16));
        put::<6>(dst, 32, array(&self.bytes, 32));
        self.patch_v4::<TAGGED_L3, TAGGED_V4_LEN>(dst, inner_len, patch);
    }

    /// What differs from packet to packet behind an Ethernet header of `AT` bytes.
    #[inline(always)]
    fn patch_v4<const AT: usize, const LEN: usize>(
        &self,
        dst: &mut [u8; LEN],
        inner_len: usize,
        patch: Patch,
    ) {
        debug_assert!(inner_len <= MAX_INNER);
        let udp = AT + ipv4::HEADER_LEN;
        let udp_len = (inner_len + udp::HEADER_LEN + vxlan::HEADER_LEN) as u16;
        let total = (udp_len + ipv4::HEADER_LEN as u16).swap_bytes();
        let class = u16::from(patch.class.bits()) << 8;
        // One's complement sums do not mind the byte order, so they are taken as the bytes lie.
        let sum = !add(add(self.partial_sum, class), total);
        put(dst, AT, (u32::from(total) << 16 | u32::from(class) | 0x45).to_le_bytes());
        put(dst, AT + 10, sum.to_le_bytes());
        put(dst, udp, self.udp(udp, patch.src_port(), udp_len));
        put(dst, udp + udp::HEADER_LEN, vxlan(patch.vni));
    }

    /// [`OuterHeader::write`] for an untagged header of family V6, with the hop limit given at construction.
    #[inline(always)]
    pub fn write_v6(&self, dst: &mut [u8; V6_LEN], inner_len: usize, patch: Patch) {
        debug_assert!(self.shape == Shape::V6);
        put::<16>(dst, 0, array(&self.bytes, 0));
        put::<16>(dst, 16, array(&self.bytes, 16));
        put::<16>(dst, 32, array(&self.bytes, 32));
        put::<6>(dst, 48, array(&self.bytes, 48));
        self.patch_v6::<L3, V6_LEN>(dst, inner_len, patch);
    }

    /// [`OuterHeader::write_v6`] for a tagged header.
    #[inline(always)]
    pub fn write_tagged_v6(&self, dst: &mut [u8; TAGGED_V6_LEN], inner_len: usize, patch: Patch) {
        debug_assert!(self.shape == Shape::TaggedV6);
        put::<16>(dst, 0, array(&self.bytes, 0));
        put::<16>(dst, 16, array(&self.bytes, 16));
        put::<16>(dst, 32, array(&self.bytes, 32));
        put::<16>(dst, 42, array(&self.bytes, 42));
        self.patch_v6::<TAGGED_L3, TAGGED_V6_LEN>(dst, inner_len, patch);
    }

    /// What differs from packet to packet behind an Ethernet header of `AT` bytes.
    #[inline(always)]
    fn patch_v6<const AT: usize, const LEN: usize>(
        &self,
        dst: &mut [u8; LEN],
        inner_len: usize,
        patch: Patch,
    ) {
        debug_assert!(inner_len <= MAX_INNER);
        let udp = AT + ipv6::HEADER_LEN;
        let udp_len = (inner_len + udp::HEADER_LEN + vxlan::HEADER_LEN) as u16;
        let class = u32::from(patch.class.bits()) << 20;
        put_u32(dst, AT, 6 << 28 | class | patch.flow_label());
        put_u16(dst, AT + 4, udp_len);
        put(dst, udp, self.udp(udp, patch.src_port(), udp_len));
        put(dst, udp + udp::HEADER_LEN, vxlan(patch.vni));
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

/// A frame that was just encapsulated, as if it had no tag. What then stands for its addresses means nothing.
fn behind_tag(frame: &mut [u8]) -> &mut [u8] {
    let tagged = frame.len() >= TAGGED_L3 && u16_at(frame, ADDRESSES) == EtherType::VLAN.0;
    if tagged { &mut frame[TAG_LEN..] } else { frame }
}

/// Fills in the full UDP checksum of a whole encapsulated frame (optional in R5), a result of 0 as
/// 0xffff. The outer header may have one 802.1Q tag.
///
/// # Errors
/// [`WireError::NotThis`] where the frame does not parse as VXLAN on `vxlan_port`.
pub fn fill_udp_checksum(frame: &mut [u8], vxlan_port: u16) -> Result<(), WireError> {
    let frame = behind_tag(frame);
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
/// sum of the pseudo-header, which the device adds the rest to. Returns the lengths of the Ethernet header, with
/// its tag where it has one, and of the IP header, in bytes.
///
/// # Errors
/// [`WireError::NotThis`] where the frame does not parse as VXLAN on `vxlan_port`.
pub fn leave_udp_checksum(frame: &mut [u8], vxlan_port: u16) -> Result<(usize, usize), WireError> {
    let whole = frame.len();
    let frame = behind_tag(frame);
    let l2_len = L3 + whole - frame.len();
    let l4 = locate_udp(frame).map_err(|_| WireError::NotThis)?;
    if l4.end - l4.udp < udp::HEADER_LEN || u16_at(frame, l4.udp + 2) != vxlan_port {
        return Err(WireError::NotThis);
    }
    put_u16(frame, l4.udp + 6, fold(l4.pseudo_sum()));
    Ok((l2_len, l4.udp - L3))
}

/// Copies the DSCP of the inner packet, 0 for what is not IP, into the outer header of a frame that was just
/// encapsulated (R6); ECN stays, and the IPv4 checksum is repaired. A frame without outer and inner header stays as it
/// is. Each of them may have one 802.1Q tag.
pub fn copy_dscp(frame: &mut [u8]) {
    let frame = behind_tag(frame);
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
