//! ARP (RFC 826) and RARP (RFC 903) for Ethernet and IPv4: one format, two EtherTypes.

use crate::addr::Mac;
use crate::bytes::{mac_at, put, put_u16, u16_at, v4_at};
use crate::error::WireError;
use crate::ethernet::{self, EtherType};
use core::net::Ipv4Addr;

mod field {
    pub const HRD: usize = 0;
    pub const PRO: usize = 2;
    pub const HLN: usize = 4;
    pub const PLN: usize = 5;
    pub const OP: usize = 6;
    pub const SHA: usize = 8;
    pub const SPA: usize = 14;
    pub const THA: usize = 18;
    pub const TPA: usize = 24;
}

/// Bytes of an ARP or RARP packet.
pub const PACKET_LEN: usize = 28;
/// Bytes of an untagged frame with an ARP packet, before Ethernet padding.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

/// ARP request.
pub const OP_REQUEST: u16 = 1;
/// ARP reply.
pub const OP_REPLY: u16 = 2;
/// RARP request ("request reverse").
pub const OP_RARP_REQUEST: u16 = 3;
/// RARP reply ("reply reverse").
pub const OP_RARP_REPLY: u16 = 4;

/// A view of an ARP or RARP packet.
#[derive(Clone, Copy, Debug)]
pub struct Arp<T> {
    buf: T,
}

impl<T: AsRef<[u8]>> Arp<T> {
    /// Checks length and that hardware is Ethernet, protocol IPv4 (R28). Any operation passes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 28 bytes; [`WireError::BadField`] for another hrd, pro, hln
    /// or pln.
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let b = buf.as_ref();
        if b.len() < PACKET_LEN {
            return Err(WireError::Truncated);
        }
        let known = u16_at(b, field::HRD) == 1
            && u16_at(b, field::PRO) == EtherType::IPV4.0
            && b[field::HLN] == 6
            && b[field::PLN] == 4;
        if known { Ok(Arp { buf }) } else { Err(WireError::BadField) }
    }

    #[inline]
    fn b(&self) -> &[u8] {
        self.buf.as_ref()
    }

    /// Operation, see [`OP_REQUEST`] and its siblings.
    #[inline]
    pub fn op(&self) -> u16 {
        u16_at(self.b(), field::OP)
    }

    /// Sender hardware address.
    #[inline]
    pub fn sha(&self) -> Mac {
        mac_at(self.b(), field::SHA)
    }

    /// Sender protocol address.
    #[inline]
    pub fn spa(&self) -> Ipv4Addr {
        v4_at(self.b(), field::SPA)
    }

    /// Target hardware address.
    #[inline]
    pub fn tha(&self) -> Mac {
        mac_at(self.b(), field::THA)
    }

    /// Target protocol address.
    #[inline]
    pub fn tpa(&self) -> Ipv4Addr {
        v4_at(self.b(), field::TPA)
    }

    /// All fields as a value.
    #[inline]
    pub fn repr(&self) -> ArpRepr {
        ArpRepr { op: self.op(), sha: self.sha(), spa: self.spa(), tha: self.tha(), tpa: self.tpa() }
    }

    /// An ARP request.
    #[inline]
    pub fn is_request(&self) -> bool {
        self.op() == OP_REQUEST
    }

    /// An ARP reply.
    #[inline]
    pub fn is_reply(&self) -> bool {
        self.op() == OP_REPLY
    }

    /// A gratuitous ARP (R24): request or reply, spa = tpa and not 0, sha = `eth_src`, the frame's
    /// source.
    #[inline]
    pub fn is_gratuitous(&self, eth_src: Mac) -> bool {
        (self.is_request() || self.is_reply())
            && self.spa() == self.tpa()
            && !self.spa().is_unspecified()
            && self.sha() == eth_src
    }

    /// An address probe (RFC 5227 section 2.1.1, R30): a request with spa 0 that asks for an
    /// address. Never creates a binding.
    #[inline]
    pub fn is_probe(&self) -> bool {
        self.is_request() && self.spa().is_unspecified() && !self.tpa().is_unspecified()
    }

    /// A hypervisor's announcement of a moved VM (R26), where this packet came as EtherType
    /// [`EtherType::RARP`]: op 3, sha = tha = `eth_src`, both protocol addresses 0. The caller
    /// checks that the frame is broadcast.
    #[inline]
    pub fn is_rarp_announce(&self, eth_src: Mac) -> bool {
        self.op() == OP_RARP_REQUEST
            && self.sha() == self.tha()
            && self.sha() == eth_src
            && self.sha().is_unicast()
            && self.spa().is_unspecified()
            && self.tpa().is_unspecified()
    }
}

/// The fields of an ARP or RARP packet as values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpRepr {
    /// Operation.
    pub op: u16,
    /// Sender hardware address.
    pub sha: Mac,
    /// Sender protocol address.
    pub spa: Ipv4Addr,
    /// Target hardware address.
    pub tha: Mac,
    /// Target protocol address.
    pub tpa: Ipv4Addr,
}

impl ArpRepr {
    /// A request for `tpa`'s MAC. With `spa` 0 it is a probe (R30, R32).
    pub const fn request(sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> ArpRepr {
        ArpRepr { op: OP_REQUEST, sha, spa, tha: Mac::ZERO, tpa }
    }

    /// The reply that tells the sender of `asked` that its target address is at `owner` (R28).
    pub const fn reply_to(asked: &ArpRepr, owner: Mac) -> ArpRepr {
        ArpRepr { op: OP_REPLY, sha: owner, spa: asked.tpa, tha: asked.sha, tpa: asked.spa }
    }

    /// A gratuitous request: `ip` is at `mac` (R24).
    pub const fn gratuitous(mac: Mac, ip: Ipv4Addr) -> ArpRepr {
        ArpRepr { op: OP_REQUEST, sha: mac, spa: ip, tha: Mac::ZERO, tpa: ip }
    }

    /// A hypervisor's RARP announcement of `mac` (R26).
    pub const fn rarp_announce(mac: Mac) -> ArpRepr {
        let none = Ipv4Addr::UNSPECIFIED;
        ArpRepr { op: OP_RARP_REQUEST, sha: mac, spa: none, tha: mac, tpa: none }
    }

    /// The EtherType that fits the operation: RARP for 3 and 4, ARP otherwise.
    pub const fn ethertype(&self) -> EtherType {
        match self.op {
            OP_RARP_REQUEST | OP_RARP_REPLY => EtherType::RARP,
            _ => EtherType::ARP,
        }
    }

    /// Writes the 28-byte packet; returns 28.
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        if buf.len() < PACKET_LEN {
            return Err(WireError::NoSpace);
        }
        put_u16(buf, field::HRD, 1);
        put_u16(buf, field::PRO, EtherType::IPV4.0);
        buf[field::HLN] = 6;
        buf[field::PLN] = 4;
        put_u16(buf, field::OP, self.op);
        put(buf, field::SHA, self.sha.0);
        put(buf, field::SPA, self.spa.octets());
        put(buf, field::THA, self.tha.0);
        put(buf, field::TPA, self.tpa.octets());
        Ok(PACKET_LEN)
    }

    /// Writes a whole untagged frame, without padding; returns [`FRAME_LEN`].
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8], dst: Mac, src: Mac) -> Result<usize, WireError> {
        if buf.len() < FRAME_LEN {
            return Err(WireError::NoSpace);
        }
        let at = ethernet::emit(buf, dst, src, self.ethertype())?;
        Ok(at + self.emit(&mut buf[at..])?)
    }
}
