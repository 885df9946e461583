//! ICMP for IPv4 (RFC 792): echo for the gateway and the own locator, errors towards tenants.

use crate::addr::Mac;
use crate::bytes::{put_u16, put_u32, u16_at, u32_at};
use crate::checksum;
use crate::error::WireError;
use crate::ethernet::{self, EtherType, Ethernet};
use crate::ipv4::{self, Ipv4, Ipv4Repr};
use crate::proto;
use core::net::Ipv4Addr;

mod field {
    pub const TYPE: usize = 0;
    pub const CODE: usize = 1;
    pub const CHECKSUM: usize = 2;
    pub const REST: usize = 4;
}

/// Bytes of the header, the word after the checksum included.
pub const HEADER_LEN: usize = 8;
/// An error quotes no more than makes an IPv4 packet of 576 bytes (RFC 1812 section 4.3.2.3).
pub const MAX_ERROR_LEN: usize = 576;

/// Echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Destination unreachable; see [`CODE_FRAG_NEEDED`].
pub const UNREACHABLE: u8 = 3;
/// Echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Time exceeded; code 0 is TTL in transit.
pub const TIME_EXCEEDED: u8 = 11;
/// Unreachable: too big and DF set (RFC 1191, R8). The MTU is in the low half of `rest`.
pub const CODE_FRAG_NEEDED: u8 = 4;
/// Unreachable: no route to the network.
pub const CODE_NET: u8 = 0;
/// Unreachable: the network is there, the host is not.
pub const CODE_HOST: u8 = 1;
/// Unreachable: the host does not speak the protocol.
pub const CODE_PROTOCOL: u8 = 2;
/// Unreachable: nobody listens on the port.
pub const CODE_PORT: u8 = 3;

/// A view of an ICMP message; its length is that of the buffer, which must be the IP payload.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv4<T> {
    buf: T,
}

impl<T: AsRef<[u8]>> Icmpv4<T> {
    /// Checks the length. Does not verify the checksum.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 8 bytes.
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        if buf.as_ref().len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Icmpv4 { buf }) }
    }

    #[inline]
    fn b(&self) -> &[u8] {
        self.buf.as_ref()
    }

    /// Type.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.b()[field::TYPE]
    }

    /// Code within the type.
    #[inline]
    pub fn code(&self) -> u8 {
        self.b()[field::CODE]
    }

    /// The checksum as it stands.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.b(), field::CHECKSUM)
    }

    /// The word after the checksum: identifier and sequence of an echo, MTU of a "too big".
    #[inline]
    pub fn rest(&self) -> u32 {
        u32_at(self.b(), field::REST)
    }

    /// Echo data, or the packet that an error quotes.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.b()[HEADER_LEN..]
    }

    /// The message sums up as it should.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        checksum::is_valid(self.b())
    }

    /// An error or redirect, to which no error may answer (RFC 1122 section 3.2.2).
    #[inline]
    pub fn is_error(&self) -> bool {
        matches!(self.kind(), 3..=5 | 11 | 12)
    }
}

/// Turns an echo request, a whole Ethernet frame, into its reply: addresses exchanged, TTL set.
/// Returns the length of the reply, which drops Ethernet padding. The caller has found out that
/// the destination is its own.
///
/// # Errors
/// [`WireError::NotThis`] for everything that is no unicast echo request,
/// [`WireError::BadChecksum`], [`WireError::Fragment`], or what the headers' gates say. The frame
/// is unchanged then.
pub fn echo_reply_in_place(frame: &mut [u8], ttl: u8) -> Result<usize, WireError> {
    let mut eth = Ethernet::new_checked(frame)?;
    if eth.ethertype() != EtherType::IPV4 || eth.dst().is_multicast() {
        return Err(WireError::NotThis);
    }
    let (src, dst, l3) = (eth.src(), eth.dst(), eth.l3_offset());
    let mut ip = Ipv4::new_checked(eth.payload_mut())?;
    if ip.proto() != proto::ICMP || ip.dst().is_multicast() || ip.dst().is_broadcast() {
        return Err(WireError::NotThis);
    }
    if ip.is_fragment() {
        return Err(WireError::Fragment);
    }
    let icmp = Icmpv4::new_checked(ip.payload())?;
    if icmp.kind() != ECHO_REQUEST || icmp.code() != 0 {
        return Err(WireError::NotThis);
    }
    if !icmp.verify_checksum() || !ip.verify_checksum() {
        return Err(WireError::BadChecksum);
    }
    let sum = checksum::update_u16(icmp.checksum(), u16::from(ECHO_REQUEST) << 8, 0);
    let message = ip.payload_mut();
    message[field::TYPE] = ECHO_REPLY;
    put_u16(message, field::CHECKSUM, sum);
    ip.swap_addresses();
    ip.set_ttl(ttl);
    let len = l3 + ip.total_len();
    eth.set_dst(src);
    eth.set_src(dst);
    Ok(len)
}

/// An ICMP error may answer this packet (RFC 1122 section 3.2.2, R8): it is no ICMP error itself,
/// no later fragment, and source and destination are single hosts. The caller checks that the
/// frame's destination MAC is no group address.
pub fn permits_error(ip: &Ipv4<&[u8]>) -> bool {
    let (src, dst) = (ip.src(), ip.dst());
    let group = |a: Ipv4Addr| a.is_multicast() || a.is_broadcast();
    if group(src) || src.is_unspecified() || group(dst) || ip.fragment_offset() != 0 {
        return false;
    }
    if ip.proto() != proto::ICMP {
        return true;
    }
    Icmpv4::new_checked(ip.payload()).is_ok_and(|m| !m.is_error())
}

/// An ICMP error that is to be sent as a whole Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorRepr {
    /// Ethernet source: the gateway's MAC, or in L2 VNs the offending destination's (R8).
    pub eth_src: Mac,
    /// Ethernet destination.
    pub eth_dst: Mac,
    /// IP source.
    pub src: Ipv4Addr,
    /// IP destination: the source of the packet that caused the error.
    pub dst: Ipv4Addr,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The word after the checksum: for [`CODE_FRAG_NEEDED`] the MTU in bytes.
    pub rest: u32,
}

impl ErrorRepr {
    /// Writes the frame, quoting `original` (an IP packet) as far as [`MAX_ERROR_LEN`] allows;
    /// returns its length, at most 590 bytes.
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8], original: &[u8]) -> Result<usize, WireError> {
        let quote = original.len().min(MAX_ERROR_LEN - ipv4::HEADER_LEN - HEADER_LEN);
        let at = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
        let len = at + HEADER_LEN + quote;
        let buf = buf.get_mut(..len).ok_or(WireError::NoSpace)?;
        ethernet::emit(buf, self.eth_dst, self.eth_src, EtherType::IPV4)?;
        let ip = Ipv4Repr {
            src: self.src,
            dst: self.dst,
            proto: proto::ICMP,
            ttl: 64,
            tos: 0,
            ident: 0,
            dont_fragment: false,
            payload_len: HEADER_LEN + quote,
        };
        ip.emit(&mut buf[ethernet::HEADER_LEN..])?;
        let message = &mut buf[at..];
        message[field::TYPE] = self.kind;
        message[field::CODE] = self.code;
        put_u16(message, field::CHECKSUM, 0);
        put_u32(message, field::REST, self.rest);
        message[HEADER_LEN..].copy_from_slice(&original[..quote]);
        let sum = checksum::checksum(message);
        put_u16(message, field::CHECKSUM, sum);
        Ok(len)
    }
}
