//! IPv4 (RFC 791).

use crate::bytes::{put, put_u16, u16_at, v4_at};
use crate::checksum;
use crate::ecn::Ecn;
use crate::error::WireError;
use core::net::Ipv4Addr;

mod field {
    pub const VER_IHL: usize = 0;
    pub const TOS: usize = 1;
    pub const TOTAL_LEN: usize = 2;
    pub const IDENT: usize = 4;
    pub const FRAG: usize = 6;
    pub const TTL: usize = 8;
    pub const PROTO: usize = 9;
    pub const CHECKSUM: usize = 10;
    pub const SRC: usize = 12;
    pub const DST: usize = 16;
}

const FLAG_DF: u16 = 0x4000;
const FLAG_MF: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// Where the protocol and the source address lie.
pub(crate) const PROTO: usize = field::PROTO;
pub(crate) const SRC: usize = field::SRC;

/// Checks a header as far as it contradicts itself; bytes of the header and of the packet. Whether all of the packet is
/// there is the caller's to see.
#[inline]
pub(crate) fn check(b: &[u8]) -> Result<(usize, usize), WireError> {
    if b.len() < HEADER_LEN {
        return Err(WireError::Truncated);
    }
    if b[field::VER_IHL] >> 4 != 4 {
        return Err(WireError::BadVersion);
    }
    let header_len = usize::from(b[field::VER_IHL] & 0xf) * 4;
    let total_len = usize::from(u16_at(b, field::TOTAL_LEN));
    if header_len < HEADER_LEN || total_len < header_len {
        return Err(WireError::BadLength);
    }
    Ok((header_len, total_len))
}

/// The offset in its datagram, in bytes, of a packet that [`check`] accepts, if it is a fragment.
#[inline]
pub(crate) fn fragment(b: &[u8]) -> Option<u16> {
    let word = u16_at(b, field::FRAG);
    (word & (FLAG_MF | OFFSET_MASK) != 0).then_some((word & OFFSET_MASK) * 8)
}

/// A view of an IPv4 packet; bytes after the total length (Ethernet padding) are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<T> {
    buf: T,
}

impl<T: AsRef<[u8]>> Ipv4<T> {
    /// Checks version, header length and total length. Does not verify the header checksum.
    ///
    /// # Errors
    /// [`WireError::Truncated`] where the buffer ends before 20 bytes, the header or the total
    /// length; [`WireError::BadVersion`]; [`WireError::BadLength`] where IHL < 5 or the total
    /// length is smaller than the header.
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let b = buf.as_ref();
        let (_, total_len) = check(b)?;
        if b.len() < total_len {
            return Err(WireError::Truncated);
        }
        Ok(Ipv4 { buf })
    }

    /// A packet that [`Ipv4::new_checked`] would accept, as the caller knows.
    #[inline]
    pub(crate) fn checked(buf: T) -> Self {
        debug_assert!(Ipv4::new_checked(buf.as_ref()).is_ok());
        Ipv4 { buf }
    }

    #[inline]
    fn b(&self) -> &[u8] {
        self.buf.as_ref()
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.b()[field::VER_IHL] & 0xf) * 4
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(u16_at(self.b(), field::TOTAL_LEN))
    }

    /// The type-of-service byte: DSCP in the upper six bits, ECN in the lower two.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.b()[field::TOS]
    }

    /// Explicit congestion notification.
    #[inline]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_bits(self.tos())
    }

    /// Identification, which fragments of one datagram share.
    #[inline]
    pub fn ident(&self) -> u16 {
        u16_at(self.b(), field::IDENT)
    }

    /// Don't fragment.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        u16_at(self.b(), field::FRAG) & FLAG_DF != 0
    }

    /// More fragments follow.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        u16_at(self.b(), field::FRAG) & FLAG_MF != 0
    }

    /// Offset of this fragment in its datagram, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(u16_at(self.b(), field::FRAG) & OFFSET_MASK) * 8
    }

    /// One of several fragments, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        u16_at(self.b(), field::FRAG) & (FLAG_MF | OFFSET_MASK) != 0
    }

    /// Time to live, in hops.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.b()[field::TTL]
    }

    /// Protocol of the payload, see [`crate::proto`].
    #[inline]
    pub fn proto(&self) -> u8 {
        self.b()[field::PROTO]
    }

    /// The header checksum as it stands.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.b(), field::CHECKSUM)
    }

    /// The header sums up as it should.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        checksum::is_valid(&self.b()[..self.header_len()])
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> Ipv4Addr {
        v4_at(self.b(), field::SRC)
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Ipv4Addr {
        v4_at(self.b(), field::DST)
    }

    /// From the end of the header to the total length.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.b()[self.header_len()..self.total_len()]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4<T> {
    /// Replaces a 16-bit word of the header and repairs the checksum incrementally (RFC 1624).
    #[inline]
    fn patch_u16(&mut self, at: usize, new: u16) {
        let old = u16_at(self.b(), at);
        let sum = checksum::update_u16(self.checksum(), old, new);
        let b = self.buf.as_mut();
        put_u16(b, at, new);
        put_u16(b, field::CHECKSUM, sum);
    }

    /// Sets the ECN bits and repairs the header checksum.
    #[inline]
    pub fn set_ecn(&mut self, ecn: Ecn) {
        let first = u16_at(self.b(), field::VER_IHL);
        self.patch_u16(field::VER_IHL, (first & !3) | u16::from(ecn.bits()));
    }

    /// Sets the time to live and repairs the header checksum.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        let proto = self.proto();
        self.patch_u16(field::TTL, u16::from_be_bytes([ttl, proto]));
    }

    /// Exchanges source and destination, which leaves the checksum as it is.
    #[inline]
    pub fn swap_addresses(&mut self) {
        let (s, d) = (self.src(), self.dst());
        let b = self.buf.as_mut();
        put(b, field::SRC, d.octets());
        put(b, field::DST, s.octets());
    }

    /// The payload, to be changed in place.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let (from, to) = (self.header_len(), self.total_len());
        &mut self.buf.as_mut()[from..to]
    }
}

/// The fields of a header without options that is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Repr {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Protocol of the payload.
    pub proto: u8,
    /// Time to live, in hops.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub ident: u16,
    /// Don't fragment.
    pub dont_fragment: bool,
    /// Bytes of payload, at most 65515.
    pub payload_len: usize,
}

impl Ipv4Repr {
    /// Writes the 20 bytes of header with a valid checksum; returns 20.
    ///
    /// # Errors
    /// [`WireError::NoSpace`] where `buf` is shorter than the header, [`WireError::BadLength`]
    /// where the payload does not fit into one packet.
    #[inline]
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        if buf.len() < HEADER_LEN {
            return Err(WireError::NoSpace);
        }
        let total = self.payload_len.checked_add(HEADER_LEN).and_then(|n| u16::try_from(n).ok());
        let total = total.ok_or(WireError::BadLength)?;
        buf[field::VER_IHL] = 0x45;
        buf[field::TOS] = self.tos;
        put_u16(buf, field::TOTAL_LEN, total);
        put_u16(buf, field::IDENT, self.ident);
        put_u16(buf, field::FRAG, if self.dont_fragment { FLAG_DF } else { 0 });
        buf[field::TTL] = self.ttl;
        buf[field::PROTO] = self.proto;
        put_u16(buf, field::CHECKSUM, 0);
        put(buf, field::SRC, self.src.octets());
        put(buf, field::DST, self.dst.octets());
        let sum = checksum::checksum(&buf[..HEADER_LEN]);
        put_u16(buf, field::CHECKSUM, sum);
        Ok(HEADER_LEN)
    }
}

/// Bytes of the Router Alert option (RFC 2113), value 0: each router looks at the packet.
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];

/// Writes the 24 bytes of a header with the Router Alert option, TTL 1 and the class of internetwork control, as
/// group membership has it (RFC 3376 section 4); returns 24.
///
/// # Errors
/// As [`Ipv4Repr::emit`].
pub(crate) fn emit_router_alert(
    buf: &mut [u8],
    src: Ipv4Addr,
    dst: Ipv4Addr,
    proto: u8,
    payload_len: usize,
) -> Result<usize, WireError> {
    const LEN: usize = HEADER_LEN + ROUTER_ALERT.len();
    if buf.len() < LEN {
        return Err(WireError::NoSpace);
    }
    let payload_len = payload_len + ROUTER_ALERT.len();
    let ip = Ipv4Repr { src, dst, proto, ttl: 1, tos: 0xc0, ident: 0, dont_fragment: true, payload_len };
    ip.emit(buf)?;
    put(buf, HEADER_LEN, ROUTER_ALERT);
    buf[field::VER_IHL] = 0x46;
    put_u16(buf, field::CHECKSUM, 0);
    let sum = checksum::checksum(&buf[..LEN]);
    put_u16(buf, field::CHECKSUM, sum);
    Ok(LEN)
}

/// What the header of a packet quoted by an ICMP error says. The quote may be cut off anywhere
/// after the header, so there is no view of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotedIpv4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Protocol.
    pub proto: u8,
    /// Not the first fragment: the transport header is not in it.
    pub later_fragment: bool,
    /// Bytes of header, all of them in the quote.
    pub header_len: usize,
}

/// Reads the header of a quoted, possibly cut off packet. Its checksum is not verified, since
/// routers may quote it with TTL changed.
///
/// # Errors
/// [`WireError::Truncated`], [`WireError::BadVersion`], [`WireError::BadLength`].
pub fn parse_quoted(b: &[u8]) -> Result<QuotedIpv4, WireError> {
    if b.len() < HEADER_LEN {
        return Err(WireError::Truncated);
    }
    if b[field::VER_IHL] >> 4 != 4 {
        return Err(WireError::BadVersion);
    }
    let header_len = usize::from(b[field::VER_IHL] & 0xf) * 4;
    if header_len < HEADER_LEN {
        return Err(WireError::BadLength);
    }
    if b.len() < header_len {
        return Err(WireError::Truncated);
    }
    Ok(QuotedIpv4 {
        src: v4_at(b, field::SRC),
        dst: v4_at(b, field::DST),
        proto: b[field::PROTO],
        later_fragment: u16_at(b, field::FRAG) & OFFSET_MASK != 0,
        header_len,
    })
}
