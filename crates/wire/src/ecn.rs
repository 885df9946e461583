//! Explicit congestion notification through the tunnel (RFC 6040, R6).

use crate::ethernet::{EtherType, Ethernet};
use crate::frame::Frame;
use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;
use core::fmt;

/// The two ECN bits of an IP header (RFC 3168 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Ecn {
    /// 00: the transport does not understand ECN.
    #[default]
    NotEct = 0,
    /// 01: ECN-capable transport, codepoint 1.
    Ect1 = 1,
    /// 10: ECN-capable transport, codepoint 0.
    Ect0 = 2,
    /// 11: congestion experienced.
    Ce = 3,
}

/// A packet that RFC 6040 says to drop: congestion was marked outside, and the inner transport
/// could not be told by a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CongestionDrop;

impl fmt::Display for CongestionDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outer CE on an inner packet that is not ECN-capable")
    }
}

impl core::error::Error for CongestionDrop {}

impl Ecn {
    /// From the low two bits of a type-of-service byte or traffic class; the rest is ignored.
    #[inline]
    pub const fn from_bits(tos: u8) -> Ecn {
        match tos & 3 {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The codepoint in the low two bits.
    #[inline]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// The codepoint of the IP packet in an Ethernet frame; `None` where there is no IP header to
    /// read it from (other EtherType, or malformed).
    #[inline]
    pub fn of_frame(frame: &[u8]) -> Option<Ecn> {
        Frame::read(frame).ok()?.ecn()
    }

    /// The outer codepoint at encapsulation: a copy of the inner one, Not-ECT for non-IP frames
    /// (RFC 6040 section 4.1 normal mode, R6).
    #[inline]
    pub fn for_encap(frame: &[u8]) -> Ecn {
        Ecn::of_frame(frame).unwrap_or(Ecn::NotEct)
    }
}

/// RFC 6040 figure 4: what the inner codepoint becomes at decapsulation.
///
/// # Errors
/// [`CongestionDrop`] for inner Not-ECT under outer CE.
#[inline]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> Result<Ecn, CongestionDrop> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Err(CongestionDrop),
        (Ecn::NotEct, _) => Ok(Ecn::NotEct),
        (Ecn::Ce, _) | (_, Ecn::Ce) => Ok(Ecn::Ce),
        (_, Ecn::Ect1) => Ok(Ecn::Ect1),
        (_, Ecn::NotEct | Ecn::Ect0) => Ok(inner),
    }
}

/// Applies [`decapsulate`] to the IP packet in `frame`, repairing the IPv4 header checksum. Frames
/// without an IP header stay as they are and are delivered even under CE (R6).
///
/// # Errors
/// [`CongestionDrop`]; the frame is unchanged then.
#[inline]
pub fn apply_to_frame(frame: &mut [u8], outer: Ecn) -> Result<(), CongestionDrop> {
    // Figure 4 changes the inner codepoint only under outer ECT(1) or CE.
    if matches!(outer, Ecn::NotEct | Ecn::Ect0) {
        return Ok(());
    }
    let Some(inner) = Ecn::of_frame(frame) else { return Ok(()) };
    let merged = decapsulate(inner, outer)?;
    if merged != inner {
        set_in_frame(frame, merged);
    }
    Ok(())
}

/// Sets the codepoint of the IP packet in `frame`; returns whether there was one.
pub fn set_in_frame(frame: &mut [u8], ecn: Ecn) -> bool {
    let Ok(mut eth) = Ethernet::new_checked(frame) else { return false };
    match eth.ethertype() {
        EtherType::IPV4 => Ipv4::new_checked(eth.payload_mut()).map(|mut p| p.set_ecn(ecn)).is_ok(),
        EtherType::IPV6 => Ipv6::new_checked(eth.payload_mut()).map(|mut p| p.set_ecn(ecn)).is_ok(),
        _ => false,
    }
}
