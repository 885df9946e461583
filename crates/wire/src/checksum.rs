//! The Internet checksum (RFC 1071), its pseudo-headers and its incremental update (RFC 1624).
//!
//! Sums are kept unfolded in a `u64`: 2^16 is 1 modulo 0xffff, so words of any multiple of 16 bits
//! may be added and folded once at the end.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The unfolded one's complement sum of `data` as big-endian 16-bit words, an odd last byte padded
/// with a zero byte.
///
/// Sums of separate pieces add up if all but the last piece have an even length.
#[inline]
pub fn sum(data: &[u8]) -> u64 {
    let mut acc = 0u64;
    let (words, rest) = data.as_chunks::<4>();
    for w in words {
        acc += u64::from(u32::from_be_bytes(*w));
    }
    let mut tail = [0u8; 4];
    tail[..rest.len()].copy_from_slice(rest);
    acc + u64::from(u32::from_be_bytes(tail))
}

/// Folds a sum to 16 bits with end-around carry. Not complemented.
#[inline]
pub const fn fold(mut s: u64) -> u16 {
    // Four steps suffice for any u64: 64 -> 48+1 -> 33+1 -> 17 -> 16 bits and a last carry.
    s = (s & 0xffff_ffff) + (s >> 32);
    s = (s & 0xffff_ffff) + (s >> 32);
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    s = (s & 0xffff) + (s >> 16);
    s as u16
}

/// The checksum of `data` as it goes into a header whose checksum field is zero in `data`.
#[inline]
pub fn checksum(data: &[u8]) -> u16 {
    !fold(sum(data))
}

/// `data`, with its checksum field in place, sums up to all ones.
#[inline]
pub fn is_valid(data: &[u8]) -> bool {
    fold(sum(data)) == 0xffff
}

/// The sum of the IPv4 pseudo-header (RFC 768, RFC 9293): addresses, protocol, upper-layer length
/// in bytes.
#[inline]
pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, len: u16) -> u64 {
    u64::from(src.to_bits()) + u64::from(dst.to_bits()) + u64::from(proto) + u64::from(len)
}

/// The sum of the IPv6 pseudo-header (RFC 8200 section 8.1): addresses, upper-layer length in
/// bytes, next header.
#[inline]
pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, proto: u8, len: u32) -> u64 {
    sum(&src.octets()) + sum(&dst.octets()) + u64::from(proto) + u64::from(len)
}

/// The checksum field after one 16-bit word changed from `old` to `new` (RFC 1624, equation 3).
///
/// For UDP the caller leaves a zero ("no checksum") alone and sends a result of zero as 0xffff.
#[inline]
pub const fn update_u16(field: u16, old: u16, new: u16) -> u16 {
    !fold(!field as u64 + !old as u64 + new as u64)
}

/// As [`update_u16`], for two adjacent words that begin at an even offset.
#[inline]
pub const fn update_u32(field: u16, old: u32, new: u32) -> u16 {
    !fold(!field as u64 + !old as u64 + new as u64)
}

/// A computed UDP checksum as it is sent: zero means "none", so zero goes out as 0xffff (RFC 768).
#[inline]
pub const fn udp_field(computed: u16) -> u16 {
    if computed == 0 { 0xffff } else { computed }
}
