//! What a router looks at before it forwards a packet (RFC 1812 sections 4.2 and 5, RFC 8200, R58).

use core::net::IpAddr;

use crate::frame::{Frame, Network};
use crate::route::is_martian;
use crate::{ethernet, ipv4, ipv6, proto};

/// Why a packet is not forwarded, whatever the routes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unroutable {
    /// Not an untagged IP packet that lies in one piece, or its headers cannot be read or do not sum up.
    Malformed,
    /// From or to an address that no router forwards packets of.
    Martian,
    /// Options that cannot be read, or that say which way the packet is to take.
    Options,
}

/// What routing needs of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// TTL or hop limit, in hops.
    pub ttl: u8,
}

/// Reads the header of a packet that is to be routed. Addresses are judged by [`Header::check_addresses`].
///
/// # Errors
/// [`Unroutable::Malformed`], [`Unroutable::Options`].
pub fn read(frame: &Frame<'_>) -> Result<Header, Unroutable> {
    if frame.l3() != ethernet::HEADER_LEN || !frame.is_whole() {
        return Err(Unroutable::Malformed);
    }
    if let Some(ip) = frame.ipv4() {
        // A fragment that ends beyond the longest packet would be another one, were it cut (RFC 791 section 3.2).
        let end = ip.header_len() + ip.fragment_offset() + (ip.total_len() - ip.header_len());
        if !ip.verify_checksum() || end > usize::from(u16::MAX) {
            return Err(Unroutable::Malformed);
        }
        let options = frame.payload().get(ipv4::HEADER_LEN..ip.header_len());
        if !options.is_some_and(are_good_v4) {
            return Err(Unroutable::Options);
        }
        return Ok(Header { src: ip.src().into(), dst: ip.dst().into(), ttl: ip.ttl() });
    }
    let (Network::V6(v6), Some(ip)) = (frame.network(), frame.ipv6()) else {
        return Err(Unroutable::Malformed);
    };
    let Ok(upper) = v6.upper else { return Err(Unroutable::Malformed) };
    let extensions = frame.bytes().get(frame.l3() + ipv6::HEADER_LEN..upper.at);
    if !extensions.is_some_and(|b| are_good_v6(ip.next_header(), b)) {
        return Err(Unroutable::Options);
    }
    Ok(Header { src: ip.src().into(), dst: ip.dst().into(), ttl: ip.hop_limit() })
}

/// IPv4 options can be walked, and none is a source route (RFC 791 section 3.1).
fn are_good_v4(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE_ROUTE: u8 = 131;
    const STRICT_ROUTE: u8 = 137;
    loop {
        match options {
            [] | [END, ..] => return true,
            [NOP, rest @ ..] => options = rest,
            [LOOSE_ROUTE | STRICT_ROUTE, ..] => return false,
            [_, len, ..] if *len >= 2 => match options.get(usize::from(*len)..) {
                Some(rest) => options = rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

/// The extension headers before the upper layer: hop-by-hop options stand first and can be walked (RFC 8200 section
/// 4.3), and no routing header is of type 0 (RFC 5095). `chain` holds all of them, as a walk has found.
fn are_good_v6(first: u8, chain: &[u8]) -> bool {
    const SOURCE_ROUTE: u8 = 0;
    let (mut kind, mut rest) = (first, chain);
    while ipv6::is_extension(kind) {
        let &[next, units, route, ..] = rest else { return false };
        let len = match kind {
            proto::AH => (usize::from(units) + 2) * 4,
            proto::FRAGMENT => 8,
            _ => (usize::from(units) + 1) * 8,
        };
        let Some(header) = rest.get(..len) else { return false };
        let good = match kind {
            proto::HOP_BY_HOP => rest.len() == chain.len() && are_options(&header[2..]),
            proto::ROUTING => route != SOURCE_ROUTE,
            _ => true,
        };
        if !good {
            return false;
        }
        if kind == proto::FRAGMENT {
            return true;
        }
        (kind, rest) = (next, &rest[len..]);
    }
    true
}

/// Options of IPv6: a byte of padding, or type, length and so many bytes.
fn are_options(mut b: &[u8]) -> bool {
    const PAD1: u8 = 0;
    loop {
        match b {
            [] => return true,
            [PAD1, rest @ ..] => b = rest,
            [_, len, rest @ ..] => match rest.get(usize::from(*len)..) {
                Some(rest) => b = rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

impl Header {
    /// The addresses are such that a router forwards packets from one to the other.
    ///
    /// # Errors
    /// [`Unroutable::Martian`].
    pub fn check_addresses(&self) -> Result<(), Unroutable> {
        if is_martian(self.src) || is_martian(self.dst) {
            return Err(Unroutable::Martian);
        }
        Ok(())
    }
}

/// Where the field lies, in bytes from the start of an IPv6 packet, that names the upper layer: what a parameter
/// problem points at (RFC 4443 section 3.4). `None` where the chain of extension headers is cut off.
pub fn upper_field(packet: &[u8]) -> Option<u32> {
    let (mut field, mut at) = (ipv6::NEXT, ipv6::HEADER_LEN);
    let mut kind = *packet.get(field)?;
    while ipv6::is_extension(kind) {
        let units = usize::from(*packet.get(at + 1)?);
        field = at;
        at += match kind {
            proto::FRAGMENT => return Some(field as u32),
            proto::AH => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        kind = packet[field];
    }
    Some(field as u32)
}
