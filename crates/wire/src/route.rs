//! What a router does to a frame (R58): one off the TTL, and other Ethernet addresses. All in place; the IPv4 checksum
//! is updated and not computed anew, so that a wrong one stays wrong (RFC 1624).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Mac;
use crate::bytes::{array, put, u32_at};
use crate::tenant::Source;
use crate::{ethernet, ipv4, ipv6};

/// Where an IPv4 header has its TTL, protocol and checksum.
const V4_TTL: usize = 8;
/// Where an IPv6 header has its hop limit.
const V6_HOPS: usize = 7;
/// Where they have their destinations.
const V4_DST: usize = 16;
const V6_DST: usize = 24;
const L3: usize = ethernet::HEADER_LEN;

/// Takes one off the TTL or hop limit of an IP packet and repairs the checksum of an IPv4 header; returns what is
/// left.
///
/// `None`, and the packet is unchanged, where it may not go on because the TTL is 0 or 1, or is no IP packet with a
/// whole fixed header. Nothing else of it is looked at.
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) -> Option<u8> {
    match packet.first()? >> 4 {
        4 if packet.len() >= ipv4::HEADER_LEN => {
            let left = packet[V4_TTL].checked_sub(1).filter(|left| *left > 0)?;
            let word = u32::from_le_bytes(array(packet, V4_TTL));
            put(packet, V4_TTL, one_hop_less(word).to_le_bytes());
            Some(left)
        }
        6 if packet.len() >= ipv6::HEADER_LEN => {
            let left = packet[V6_HOPS].checked_sub(1).filter(|left| *left > 0)?;
            packet[V6_HOPS] = left;
            Some(left)
        }
        _ => None,
    }
}

/// TTL, protocol and checksum as they lie, the TTL in the lowest byte and above 0, after one hop (RFC 1624, equation 3:
/// the checksum grows by what the TTL loses, and is never 0xffff).
#[inline(always)]
const fn one_hop_less(word: u32) -> u32 {
    let around = (word >= 0xfffe_0000) as u32;
    word.wrapping_add(0x1_0000 - 1).wrapping_add(around << 16)
}

/// Writes destination and source of a frame; `false`, and it is unchanged, where it is shorter than an Ethernet header.
#[inline]
pub fn set_addresses(frame: &mut [u8], dst: Mac, src: Mac) -> bool {
    let long = frame.len() >= L3;
    if long {
        put(frame, 0, dst.0);
        put(frame, dst.0.len(), src.0);
    }
    long
}

/// The source of routed frames, so laid out that a burst need not do it again for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// The first two bytes in the highest ones, and the other four.
    front: u64,
    back: u32,
}

impl From<Mac> for Addresses {
    fn from(src: Mac) -> Addresses {
        let lies = src.to_u64().swap_bytes() >> 16;
        Addresses { front: lies << 48, back: (lies >> 16) as u32 }
    }
}

impl Addresses {
    /// Writes destination and source of a frame to `dst`, a [`Mac::to_u64`].
    #[inline(always)]
    fn write(self, frame: &mut [u8; L3 + ipv4::HEADER_LEN], dst: u64) {
        put(frame, 0, (self.front | dst.swap_bytes() >> 16).to_le_bytes());
        put(frame, 8, self.back.to_le_bytes());
    }

    /// Sends an untagged frame on its way to `dst`, a [`Mac::to_u64`]: addresses, TTL, checksum. It has an IPv4 header
    /// (`v4`) or an IPv6 header, with a TTL above 1: [`onward`] has looked at it. A shorter one stays as it is.
    #[inline(always)]
    pub fn forward(self, frame: &mut [u8], dst: u64, v4: bool) {
        let Some(h) = frame.first_chunk_mut::<{ L3 + ipv4::HEADER_LEN }>() else { return };
        self.write(h, dst);
        if v4 {
            let word = u32::from_le_bytes(array(h, L3 + V4_TTL));
            put(h, L3 + V4_TTL, one_hop_less(word).to_le_bytes());
        } else {
            h[L3 + V6_HOPS] = h[L3 + V6_HOPS].wrapping_sub(1);
        }
    }
}

/// Where a packet is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onward {
    /// An IPv4 address.
    V4(u32),
    /// An IPv6 address.
    V6(u128),
}

/// An IPv4 header without options sums up (RFC 1812 section 5.2.2). One's complement sums do not mind the byte order,
/// nor whether longer words are added.
#[inline(always)]
fn sums_up(h: &[u8; L3 + ipv4::HEADER_LEN]) -> bool {
    /// The inverse of 0xffff modulo 2^64: what it multiplies into the first 2^64 / 0xffff numbers is a multiple.
    const ONES_INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    let long = |at| u64::from_le_bytes(array(h, L3 + at));
    let (sum, around) = long(0).overflowing_add(long(12));
    let (sum, once_more) = sum.carrying_add(u32::from_le_bytes(array(h, L3 + 8)).into(), around);
    let sum = sum + u64::from(once_more);
    sum.wrapping_mul(ONES_INVERSE) <= u64::MAX / 0xffff
}

/// Where the packet of a frame that [`crate::tenant::quick_look`] took is to go, if it may: its TTL is above 1, its
/// IPv4 header sums up, and its source, which that look found, is no martian; `sure`: somebody has looked at that
/// already. `None` says only: look closer.
#[inline(always)]
pub fn onward(frame: &[u8], source: Source, sure: bool) -> Option<Onward> {
    match source {
        Source::V4(from) => {
            let h: &[u8; L3 + ipv4::HEADER_LEN] = frame.first_chunk()?;
            let good = h[L3 + V4_TTL] > 1 && (sure || !is_martian_v4(from.into())) && sums_up(h);
            good.then(|| Onward::V4(u32_at(h, L3 + V4_DST)))
        }
        Source::V6(from) => {
            let to = v6_destination(frame)?;
            // All martians are below 1:: or above fe80::.
            let good = frame[L3 + V6_HOPS] > 1 && (sure || (1..0xfe80).contains(&((from >> 112) as u16)));
            good.then_some(Onward::V6(to))
        }
        Source::NotIp | Source::Malformed => None,
    }
}

/// The destination of the packet in an untagged frame, read as IPv6; `None` where it is shorter than its header.
#[inline(always)]
pub fn v6_destination(frame: &[u8]) -> Option<u128> {
    let h: &[u8; L3 + ipv6::HEADER_LEN] = frame.first_chunk()?;
    Some(u128::from_be_bytes(array(h, L3 + V6_DST)))
}

/// An address that no packet is routed to, nor from, unless it is somebody's own (RFC 1812 section 5.3.7, RFC 4291):
/// "this" network, loopback, link-local, multicast, reserved, all ones; unspecified, IPv4-mapped.
pub const fn is_martian(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => is_martian_v4(a),
        IpAddr::V6(a) => is_martian_v6(a),
    }
}

/// [`is_martian`] of an IPv4 address: 0/8, 127/8, 169.254/16, 224/3.
#[inline(always)]
pub const fn is_martian_v4(ip: Ipv4Addr) -> bool {
    let a = ip.to_bits();
    let net = a >> 24;
    net == 0 || net == 127 || net >= 224 || a >> 16 == 0xa9fe
}

/// [`is_martian`] of an IPv6 address: ::, ::1, ::ffff:0:0/96, fe80::/10, ff00::/8.
#[inline(always)]
pub const fn is_martian_v6(ip: Ipv6Addr) -> bool {
    let a = ip.to_bits();
    a <= 1 || a >> 32 == 0xffff || a >> 118 == 0x3fa || a >> 120 == 0xff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use proptest::prelude::*;

    fn v4(ttl: u8, rest: &[u8; 12]) -> [u8; 20] {
        let mut p = [0; 20];
        p[..8].copy_from_slice(&[0x45, rest[10], 0, 40, rest[0], rest[1], 0x40, 0]);
        p[8..10].copy_from_slice(&[ttl, rest[11]]);
        p[12..].copy_from_slice(&rest[2..10]);
        let sum = checksum::checksum(&p);
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        p
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

        #[test]
        fn r58_the_ttl_falls_by_one_and_the_checksum_is_the_one_that_is_computed(
            ttl in any::<u8>(),
            rest in any::<[u8; 12]>(),
        ) {
            let mut p = v4(ttl, &rest);
            let before = p;
            let left = decrement_ttl(&mut p);
            prop_assert_eq!(left, (ttl > 1).then(|| ttl - 1));
            let expected = if ttl > 1 { v4(ttl - 1, &rest) } else { before };
            prop_assert_eq!(p, expected);
        }

        #[test]
        fn r58_a_wrong_checksum_stays_wrong(rest in any::<[u8; 12]>(), wrong in any::<u16>()) {
            let mut p = v4(64, &rest);
            let good = u16::from_be_bytes([p[10], p[11]]);
            // All ones is another way to write zero, which nobody computes.
            prop_assume!(wrong != good && (wrong, good) != (0xffff, 0));
            p[10..12].copy_from_slice(&wrong.to_be_bytes());
            prop_assert_eq!(decrement_ttl(&mut p), Some(63));
            prop_assert!(!checksum::is_valid(&p));
        }

        #[test]
        fn r58_forwarding_changes_addresses_and_ttl_and_nothing_else(
            mut frame in prop::collection::vec(any::<u8>(), 54..80),
            ttl in 2u8..,
            six in any::<bool>(),
            dst in any::<[u8; 6]>(),
            src in any::<[u8; 6]>(),
        ) {
            frame[14] = if six { 0x60 } else { 0x45 };
            frame[if six { 21 } else { 22 }] = ttl;
            let mut expected = frame.clone();
            prop_assert!(set_addresses(&mut expected, Mac(dst), Mac(src)));
            prop_assert_eq!(&expected[..12], &[dst, src].concat()[..]);
            prop_assert_eq!(&expected[12..], &frame[12..]);
            prop_assert_eq!(decrement_ttl(&mut expected[14..]), Some(ttl - 1));
            Addresses::from(Mac(src)).forward(&mut frame, Mac(dst).to_u64(), !six);
            prop_assert_eq!(frame, expected);
        }

        #[test]
        fn what_is_no_whole_header_stays_as_it_is(mut bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let before = bytes.clone();
            prop_assert_eq!(decrement_ttl(&mut bytes), None);
            prop_assert_eq!(&bytes, &before);
            if bytes.len() < 14 {
                prop_assert!(!set_addresses(&mut bytes, Mac([1; 6]), Mac([2; 6])));
                prop_assert_eq!(bytes, before);
            }
        }
    }

    #[test]
    fn r58_what_may_go_on_has_a_hop_left_and_a_source_that_can_be_answered() {
        let mut f = [0; 60];
        f[14..34].copy_from_slice(&v4(2, &[1; 12]));
        f[30..34].copy_from_slice(&[10, 1, 2, 3]);
        f[24..26].fill(0);
        let sum = checksum::checksum(&f[14..34]).to_be_bytes();
        f[24..26].copy_from_slice(&sum);
        let from = Source::V4(0x0a00_0001);
        assert_eq!(onward(&f, from, false), Some(Onward::V4(0x0a01_0203)));
        assert_eq!(onward(&f[..33], from, true), None);
        for bit in 0..16 {
            f[24 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(onward(&f, from, false), None);
            f[24 + bit / 8] ^= 1 << (bit % 8);
        }
        for martian in [0, 0x7f00_0001, 0xa9fe_0001, 0xe000_0001, u32::MAX] {
            assert_eq!(onward(&f, Source::V4(martian), false), None);
        }
        f[22] = 1;
        assert_eq!(onward(&f, from, false), None);
        f[14..].fill(0);
        (f[14], f[21], f[38], f[53]) = (0x60, 2, 0xfd, 3);
        let from = Source::V6(0xfd00 << 112 | 1);
        assert_eq!(onward(&f, from, false), Some(Onward::V6(0xfd00 << 112 | 3)));
        assert_eq!(onward(&f[..53], from, true), None);
        for martian in [0, 1, 0xffff << 32 | 1, 0xfe80 << 112 | 1, 0xff02 << 112 | 1] {
            assert_eq!(onward(&f, Source::V6(martian), false), None);
        }
        f[21] = 1;
        assert_eq!(onward(&f, from, false), None);
        assert_eq!((onward(&f, Source::NotIp, true), onward(&f, Source::Malformed, true)), (None, None));
    }

    #[test]
    fn hop_limits_of_ipv6_end_at_one_too() {
        let mut p = [0; 40];
        p[0] = 0x60;
        for (hops, left) in [(0, None), (1, None), (2, Some(1)), (255, Some(254))] {
            p[7] = hops;
            assert_eq!(decrement_ttl(&mut p), left);
            assert_eq!(p[7], left.unwrap_or(hops));
        }
        assert_eq!(decrement_ttl(&mut p[..39]), None);
    }

    #[test]
    fn martians_are_what_the_registries_say() {
        let martian = |ip: &str| is_martian(ip.parse().unwrap());
        for ip in
            ["0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"]
        {
            assert!(martian(ip), "{ip}");
        }
        for ip in ["::", "::1", "::ffff:10.0.0.1", "fe80::1", "febf::1", "ff02::1"] {
            assert!(martian(ip), "{ip}");
        }
        for ip in ["10.0.0.1", "1.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.0.1", "223.255.255.255"] {
            assert!(!martian(ip), "{ip}");
        }
        for ip in ["2001:db8::1", "fd00::1", "fec0::1", "64:ff9b::1", "::2", "::1:0:0:1"] {
            assert!(!martian(ip), "{ip}");
        }
    }
}
