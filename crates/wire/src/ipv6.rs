//! IPv6 (RFC 8200), its extension headers, and solicited-node multicast.

use crate::addr::Mac;
use crate::bytes::{put, put_u16, put_u32, u16_at, u32_at, v6_at};
use crate::ecn::Ecn;
use crate::error::WireError;
use crate::ethernet::multicast_mac_v6;
use crate::proto;
use core::net::Ipv6Addr;

mod field {
    pub const VER_CLASS_LABEL: usize = 0;
    pub const PAYLOAD_LEN: usize = 4;
    pub const NEXT: usize = 6;
    pub const HOP_LIMIT: usize = 7;
    pub const SRC: usize = 8;
    pub const DST: usize = 24;
}

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// ff02::1, all nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The MAC of [`ALL_NODES`].
pub const ALL_NODES_MAC: Mac = multicast_mac_v6(ALL_NODES);

/// The solicited-node multicast address of `addr` (RFC 4291 section 2.7.1).
#[inline]
pub const fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let o = addr.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15]])
}

/// The MAC of [`solicited_node`] of `addr`.
#[inline]
pub const fn solicited_node_mac(addr: Ipv6Addr) -> Mac {
    multicast_mac_v6(solicited_node(addr))
}

/// `addr` is some node's solicited-node multicast address.
#[inline]
pub const fn is_solicited_node(addr: Ipv6Addr) -> bool {
    let o = addr.octets();
    solicited_node(addr).to_bits() == addr.to_bits() && o[0] == 0xff
}

/// The fragment header of a packet (RFC 8200 section 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Offset of this fragment in the fragmentable part, in bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// What the fragments of one packet share.
    pub ident: u32,
}

/// Where the chain of extension headers ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upper {
    /// The upper-layer protocol. For a fragment it is the fragment header's next header, which all
    /// fragments of one packet share, even if more extension headers follow it.
    pub proto: u8,
    /// Where that header begins, in bytes from the start of the IPv6 header.
    pub offset: usize,
    /// The fragment header, if there is one. The walk stops there.
    pub fragment: Option<Fragment>,
}

/// A chain of extension headers that was walked.
#[derive(Clone, Copy)]
pub(crate) struct Chain {
    /// Where it ended.
    pub upper: Upper,
    /// How many headers it has.
    pub headers: u16,
    /// All of these are hop-by-hop or destination options.
    pub only_options: bool,
}

/// Where the next header field and the source address lie.
pub(crate) const NEXT: usize = field::NEXT;
pub(crate) const SRC: usize = field::SRC;

/// Checks a fixed header; bytes of the packet. Whether all of it is there is the caller's to see.
#[inline]
pub(crate) fn check(b: &[u8]) -> Result<usize, WireError> {
    if b.len() < HEADER_LEN {
        return Err(WireError::Truncated);
    }
    if b[field::VER_CLASS_LABEL] >> 4 != 6 {
        return Err(WireError::BadVersion);
    }
    Ok(HEADER_LEN + usize::from(u16_at(b, field::PAYLOAD_LEN)))
}

/// Walks the extension headers of a packet whose fixed header [`check`] accepts, in what there is of it.
#[inline]
pub(crate) fn chain(b: &[u8]) -> Result<Chain, WireError> {
    let next = b[field::NEXT];
    // Nearly every packet has no extension header; the walk stays out of line.
    if is_extension(next) {
        return walk(b, next);
    }
    let upper = Upper { proto: next, offset: HEADER_LEN, fragment: None };
    Ok(Chain { upper, headers: 0, only_options: true })
}

fn walk(b: &[u8], first: u8) -> Result<Chain, WireError> {
    let (mut next, mut offset) = (first, HEADER_LEN);
    let (mut headers, mut only_options) = (0, true);
    while is_extension(next) {
        // Every extension header is at least eight bytes long, so that these are at most 8,192.
        if b.len() < offset + 8 {
            return Err(WireError::Truncated);
        }
        let (kind, units) = (next, usize::from(b[offset + 1]));
        next = b[offset];
        headers += 1;
        only_options &= matches!(kind, proto::HOP_BY_HOP | proto::DEST_OPTIONS);
        if kind == proto::FRAGMENT {
            let off_flags = u16_at(b, offset + 2);
            let fragment =
                Fragment { offset: off_flags & !7, more: off_flags & 1 != 0, ident: u32_at(b, offset + 4) };
            let upper = Upper { proto: next, offset: offset + 8, fragment: Some(fragment) };
            return Ok(Chain { upper, headers, only_options });
        }
        // AH counts four-byte units less two (RFC 4302), all others eight-byte units less one.
        offset += if kind == proto::AH { (units + 2) * 4 } else { (units + 1) * 8 };
        if offset > b.len() {
            return Err(WireError::Truncated);
        }
    }
    Ok(Chain { upper: Upper { proto: next, offset, fragment: None }, headers, only_options })
}

/// A view of an IPv6 packet; bytes after the payload length (Ethernet padding) are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<T> {
    buf: T,
}

impl<T: AsRef<[u8]>> Ipv6<T> {
    /// Checks version and payload length. A payload length of 0 means no payload: jumbograms
    /// (RFC 2675) are not supported.
    ///
    /// # Errors
    /// [`WireError::Truncated`] where the buffer ends before the header or the payload;
    /// [`WireError::BadVersion`].
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let b = buf.as_ref();
        if b.len() < check(b)? {
            return Err(WireError::Truncated);
        }
        Ok(Ipv6 { buf })
    }

    /// A packet that [`Ipv6::new_checked`] would accept, as the caller knows.
    #[inline]
    pub(crate) fn checked(buf: T) -> Self {
        debug_assert!(Ipv6::new_checked(buf.as_ref()).is_ok());
        Ipv6 { buf }
    }

    #[inline]
    fn b(&self) -> &[u8] {
        self.buf.as_ref()
    }

    /// The traffic class: DSCP in the upper six bits, ECN in the lower two.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (u16_at(self.b(), field::VER_CLASS_LABEL) >> 4) as u8
    }

    /// Explicit congestion notification.
    #[inline]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_bits(self.traffic_class())
    }

    /// The 20-bit flow label.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32_at(self.b(), field::VER_CLASS_LABEL) & 0x000f_ffff
    }

    /// Bytes after the fixed header.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(u16_at(self.b(), field::PAYLOAD_LEN))
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + self.payload_len()
    }

    /// The next header field of the fixed header, which may name an extension header.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.b()[field::NEXT]
    }

    /// Hop limit, in hops.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.b()[field::HOP_LIMIT]
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> Ipv6Addr {
        v6_at(self.b(), field::SRC)
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Ipv6Addr {
        v6_at(self.b(), field::DST)
    }

    /// What follows the fixed header, extension headers included.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.b()[HEADER_LEN..self.total_len()]
    }

    /// Walks the extension headers to the upper layer, or to the fragment header, however many they are: what
    /// comes after them is what a receiver sees. Each is eight bytes at least, so that the packet's length bounds
    /// the walk.
    ///
    /// # Errors
    /// [`WireError::Truncated`] where a header in the chain is cut off.
    #[inline]
    pub fn upper(&self) -> Result<Upper, WireError> {
        chain(&self.b()[..self.total_len()]).map(|c| c.upper)
    }
}

#[inline]
pub(crate) const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        proto::HOP_BY_HOP
            | proto::ROUTING
            | proto::FRAGMENT
            | proto::AH
            | proto::DEST_OPTIONS
            | proto::MOBILITY
    )
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6<T> {
    /// Sets the ECN bits. IPv6 has no header checksum to repair.
    #[inline]
    pub fn set_ecn(&mut self, ecn: Ecn) {
        // The two ECN bits are the upper half of the low nibble of the second byte.
        let b = self.buf.as_mut();
        b[1] = (b[1] & !0x30) | (ecn.bits() << 4);
    }

    /// Sets the hop limit.
    #[inline]
    pub fn set_hop_limit(&mut self, hops: u8) {
        self.buf.as_mut()[field::HOP_LIMIT] = hops;
    }

    /// Exchanges source and destination, which leaves upper-layer checksums as they are.
    #[inline]
    pub fn swap_addresses(&mut self) {
        let (s, d) = (self.src(), self.dst());
        let b = self.buf.as_mut();
        put(b, field::SRC, d.octets());
        put(b, field::DST, s.octets());
    }

    /// What follows the fixed header, to be changed in place.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let to = self.total_len();
        &mut self.buf.as_mut()[HEADER_LEN..to]
    }
}

/// The fields of a fixed header that is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Repr {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Protocol of the payload.
    pub next_header: u8,
    /// Hop limit, in hops.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, of which the low 20 bits are used.
    pub flow_label: u32,
    /// Bytes of payload, at most 65535.
    pub payload_len: usize,
}

impl Ipv6Repr {
    /// Writes the 40 bytes of header; returns 40.
    ///
    /// # Errors
    /// [`WireError::NoSpace`]; [`WireError::BadLength`] where the payload does not fit.
    #[inline]
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        if buf.len() < HEADER_LEN {
            return Err(WireError::NoSpace);
        }
        let len = u16::try_from(self.payload_len).map_err(|_| WireError::BadLength)?;
        let class = u32::from(self.traffic_class) << 20;
        put_u32(buf, field::VER_CLASS_LABEL, 6 << 28 | class | (self.flow_label & 0x000f_ffff));
        put_u16(buf, field::PAYLOAD_LEN, len);
        buf[field::NEXT] = self.next_header;
        buf[field::HOP_LIMIT] = self.hop_limit;
        put(buf, field::SRC, self.src.octets());
        put(buf, field::DST, self.dst.octets());
        Ok(HEADER_LEN)
    }
}

/// What the fixed header of a packet quoted by an ICMPv6 error says. The quote may be cut off
/// anywhere after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotedIpv6 {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Next header.
    pub next_header: u8,
}

/// Reads the fixed header of a quoted, possibly cut off packet.
///
/// # Errors
/// [`WireError::Truncated`], [`WireError::BadVersion`].
pub fn parse_quoted(b: &[u8]) -> Result<QuotedIpv6, WireError> {
    if b.len() < HEADER_LEN {
        return Err(WireError::Truncated);
    }
    if b[field::VER_CLASS_LABEL] >> 4 != 6 {
        return Err(WireError::BadVersion);
    }
    let (src, dst) = (v6_at(b, field::SRC), v6_at(b, field::DST));
    Ok(QuotedIpv6 { src, dst, next_header: b[field::NEXT] })
}
