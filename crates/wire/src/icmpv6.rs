//! ICMPv6 (RFC 4443): echo for the gateway and the own locator, errors towards tenants. Neighbour
//! discovery is in [`crate::ndp`].

use crate::addr::Mac;
use crate::bytes::{put_u16, put_u32, u16_at, u32_at};
use crate::checksum::{self, fold, pseudo_v6, sum};
use crate::error::WireError;
use crate::ethernet::{self, EtherType, Ethernet};
use crate::ipv6::{self, Ipv6, Ipv6Repr};
use crate::proto;
use core::net::Ipv6Addr;

mod field {
    pub const TYPE: usize = 0;
    pub const CODE: usize = 1;
    pub const CHECKSUM: usize = 2;
    pub const REST: usize = 4;
}

/// Bytes of the header, the word after the checksum included.
pub const HEADER_LEN: usize = 8;
/// An error quotes no more than makes an IPv6 packet of 1280 bytes (RFC 4443 section 3).
pub const MAX_ERROR_LEN: usize = 1280;

/// Destination unreachable; code 3 is "address unreachable".
pub const UNREACHABLE: u8 = 1;
/// Packet too big; the MTU is `rest` (R8).
pub const PACKET_TOO_BIG: u8 = 2;
/// Time exceeded; code 0 is hop limit in transit.
pub const TIME_EXCEEDED: u8 = 3;
/// Parameter problem; code 1 is a next header that is not known, `rest` points at its field.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Unreachable: no route.
pub const CODE_NO_ROUTE: u8 = 0;
/// Unreachable: the address is nobody's.
pub const CODE_ADDRESS: u8 = 3;
/// Unreachable: nobody listens on the port.
pub const CODE_PORT: u8 = 4;
/// Parameter problem: a next header that is not known.
pub const CODE_NEXT_HEADER: u8 = 1;
/// Echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Redirect (RFC 4861): numbered as information, yet no error may answer it.
const REDIRECT: u8 = 137;

/// A view of an ICMPv6 message; its length is that of the buffer, which must be the IP payload
/// after all extension headers.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6<T> {
    buf: T,
}

impl<T: AsRef<[u8]>> Icmpv6<T> {
    /// Checks the length. Does not verify the checksum.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 8 bytes.
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        if buf.as_ref().len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Icmpv6 { buf }) }
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

    /// Message and pseudo-header sum up as they should.
    #[inline]
    pub fn verify_checksum(&self, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        let pseudo = pseudo_v6(src, dst, proto::ICMPV6, self.b().len() as u32);
        fold(pseudo + sum(self.b())) == 0xffff
    }

    /// An error or redirect, to which no error may answer (RFC 4443 section 2.4 (e)).
    #[inline]
    pub fn is_error(&self) -> bool {
        self.kind() < 128 || self.kind() == REDIRECT
    }
}

/// Fills in the checksum of `message`, whose checksum field may hold anything.
pub(crate) fn fill_checksum(message: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) {
    put_u16(message, field::CHECKSUM, 0);
    let pseudo = pseudo_v6(src, dst, proto::ICMPV6, message.len() as u32);
    let check = !fold(pseudo + sum(message));
    put_u16(message, field::CHECKSUM, check);
}

/// Turns an echo request, a whole Ethernet frame, into its reply: addresses exchanged, hop limit
/// set. Returns the length of the reply, which drops Ethernet padding. The caller has found out
/// that the destination is its own.
///
/// # Errors
/// [`WireError::NotThis`] for everything that is no unicast echo request right after the fixed
/// header, [`WireError::BadChecksum`], or what the headers' gates say. The frame is unchanged then.
pub fn echo_reply_in_place(frame: &mut [u8], hop_limit: u8) -> Result<usize, WireError> {
    let mut eth = Ethernet::new_checked(frame)?;
    if eth.ethertype() != EtherType::IPV6 || eth.dst().is_multicast() {
        return Err(WireError::NotThis);
    }
    let (src, dst, l3) = (eth.src(), eth.dst(), eth.l3_offset());
    let mut ip = Ipv6::new_checked(eth.payload_mut())?;
    // A routing header would have to be reversed (RFC 8200 section 8.4); nobody pings like that.
    if ip.next_header() != proto::ICMPV6 || ip.dst().is_multicast() || ip.src().is_multicast() {
        return Err(WireError::NotThis);
    }
    let icmp = Icmpv6::new_checked(ip.payload())?;
    if icmp.kind() != ECHO_REQUEST || icmp.code() != 0 || ip.src().is_unspecified() {
        return Err(WireError::NotThis);
    }
    if !icmp.verify_checksum(ip.src(), ip.dst()) {
        return Err(WireError::BadChecksum);
    }
    let (old, new) = (u16::from(ECHO_REQUEST) << 8, u16::from(ECHO_REPLY) << 8);
    let check = checksum::update_u16(icmp.checksum(), old, new);
    let message = ip.payload_mut();
    message[field::TYPE] = ECHO_REPLY;
    put_u16(message, field::CHECKSUM, check);
    ip.swap_addresses();
    ip.set_hop_limit(hop_limit);
    let len = l3 + ip.total_len();
    eth.set_dst(src);
    eth.set_src(dst);
    Ok(len)
}

/// An ICMPv6 error may answer this packet (RFC 4443 section 2.4 (e), R8): it is no ICMPv6 error
/// itself, and source and destination are single hosts. Stricter than the RFC, which lets "packet
/// too big" answer multicast. The caller checks that the frame's destination MAC is no group.
pub fn permits_error(ip: &Ipv6<&[u8]>) -> bool {
    if ip.src().is_multicast() || ip.src().is_unspecified() || ip.dst().is_multicast() {
        return false;
    }
    let Ok(upper) = ip.upper() else { return false };
    if upper.fragment.is_some_and(|f| f.offset != 0) {
        return false;
    }
    if upper.proto != proto::ICMPV6 {
        return true;
    }
    let message = &ip.payload()[upper.offset - ipv6::HEADER_LEN..];
    Icmpv6::new_checked(message).is_ok_and(|m| !m.is_error())
}

/// An ICMPv6 error that is to be sent as a whole Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorRepr {
    /// Ethernet source: the gateway's MAC, or in L2 VNs the offending destination's (R8).
    pub eth_src: Mac,
    /// Ethernet destination.
    pub eth_dst: Mac,
    /// IP source.
    pub src: Ipv6Addr,
    /// IP destination: the source of the packet that caused the error.
    pub dst: Ipv6Addr,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The word after the checksum: for [`PACKET_TOO_BIG`] the MTU in bytes, at least 1280.
    pub rest: u32,
}

impl ErrorRepr {
    /// Writes the frame, quoting `original` (an IP packet) as far as [`MAX_ERROR_LEN`] allows;
    /// returns its length, at most 1294 bytes.
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8], original: &[u8]) -> Result<usize, WireError> {
        let quote = original.len().min(MAX_ERROR_LEN - ipv6::HEADER_LEN - HEADER_LEN);
        let at = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
        let len = at + HEADER_LEN + quote;
        let buf = buf.get_mut(..len).ok_or(WireError::NoSpace)?;
        ethernet::emit(buf, self.eth_dst, self.eth_src, EtherType::IPV6)?;
        let ip = Ipv6Repr {
            src: self.src,
            dst: self.dst,
            next_header: proto::ICMPV6,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            payload_len: HEADER_LEN + quote,
        };
        ip.emit(&mut buf[ethernet::HEADER_LEN..])?;
        let message = &mut buf[at..];
        message[field::TYPE] = self.kind;
        message[field::CODE] = self.code;
        put_u32(message, field::REST, self.rest);
        message[HEADER_LEN..].copy_from_slice(&original[..quote]);
        fill_checksum(message, self.src, self.dst);
        Ok(len)
    }
}
