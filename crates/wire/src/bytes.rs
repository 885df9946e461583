//! Reading and writing big-endian integers at an offset.
//!
//! These index, so they panic out of range: only views whose gate has checked the length, and
//! emitters that have checked the space, may call them.

use crate::addr::Mac;
use core::net::{Ipv4Addr, Ipv6Addr};

#[inline(always)]
pub(crate) fn array<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&b[at..at + N]);
    out
}

#[inline(always)]
pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(b, at))
}

#[inline(always)]
pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(b, at))
}

#[inline(always)]
pub(crate) fn mac_at(b: &[u8], at: usize) -> Mac {
    Mac(array(b, at))
}

#[inline(always)]
pub(crate) fn v4_at(b: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(array::<4>(b, at))
}

#[inline(always)]
pub(crate) fn v6_at(b: &[u8], at: usize) -> Ipv6Addr {
    Ipv6Addr::from(array::<16>(b, at))
}

#[inline(always)]
pub(crate) fn put<const N: usize>(b: &mut [u8], at: usize, v: [u8; N]) {
    b[at..at + N].copy_from_slice(&v);
}

#[inline(always)]
pub(crate) fn put_u16(b: &mut [u8], at: usize, v: u16) {
    put(b, at, v.to_be_bytes());
}

#[inline(always)]
pub(crate) fn put_u32(b: &mut [u8], at: usize, v: u32) {
    put(b, at, v.to_be_bytes());
}
