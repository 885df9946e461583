//! Which flow a frame belongs to, and the entropy that shows it to the underlay (R2, R4).
//!
//! The hash runs once on every frame that a VM sends, so it is a few wide multiplies and no table:
//! two for IPv4 and non-IP frames, four for IPv6, of which two run side by side.

use core::net::IpAddr;

use crate::bytes::{array, u16_at, u32_at};
use crate::frame::Frame;
use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;

/// The first UDP source port of encapsulated frames; there are 2^14 (RFC 7348 section 5).
pub const FIRST_PORT: u16 = 49152;

/// How much of a frame went into its [`FlowKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FlowKind {
    /// No usable IP header: MAC addresses and EtherType.
    Mac = 0,
    /// IPv4 addresses and protocol: a fragment, no ports, or truncated ports.
    V4 = 1,
    /// IPv4 addresses, protocol and ports.
    V4Ports = 2,
    /// IPv6 addresses and protocol: a fragment, no ports, or truncated headers.
    V6 = 3,
    /// IPv6 addresses, protocol and ports.
    V6Ports = 4,
}

/// What identifies the flow of a frame within its VN: 5-tuple, 3-tuple, or MACs and EtherType.
/// Directed: the answers of a flow have another key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// Source then destination address. IPv4: both in the first word. MAC: the twelve bytes as
    /// they stand in the frame, in the first word and the low half of the second.
    addr: [u64; 4],
    /// Bits 48.. kind, 32..48 protocol or EtherType, 0..32 ports.
    rest: u64,
}

impl FlowKey {
    /// Of less than a header.
    pub(crate) const NONE: FlowKey = FlowKey::new([0; 4], FlowKind::Mac, 0, 0);

    #[inline(always)]
    pub(crate) const fn new(addr: [u64; 4], kind: FlowKind, proto: u16, ports: u32) -> FlowKey {
        FlowKey { addr, rest: (kind as u64) << 48 | (proto as u64) << 32 | ports as u64 }
    }

    /// The key of a frame. What cannot be read further falls back to the next coarser kind.
    #[inline]
    pub fn of(frame: &Frame<'_>) -> FlowKey {
        if let Some(ip) = frame.ipv4() {
            Self::of_ipv4(frame, &ip)
        } else if let Some(ip) = frame.ipv6() {
            Self::of_ipv6(frame, &ip)
        } else {
            Self::of_macs(frame.bytes())
        }
    }

    /// The key of an Ethernet frame that nobody has read yet; zeros for less than 14 bytes.
    #[inline]
    pub fn of_frame(frame: &[u8]) -> FlowKey {
        Frame::read(frame).map_or(Self::NONE, |f| Self::of(&f))
    }

    #[inline]
    fn of_ipv4(frame: &Frame<'_>, ip: &Ipv4<&[u8]>) -> FlowKey {
        let addr = [u64::from(ip.src().to_bits()) << 32 | u64::from(ip.dst().to_bits()), 0, 0, 0];
        match frame.ports() {
            Some(ports) => Self::new(addr, FlowKind::V4Ports, ip.proto().into(), ports),
            None => Self::new(addr, FlowKind::V4, ip.proto().into(), 0),
        }
    }

    #[inline]
    fn of_ipv6(frame: &Frame<'_>, ip: &Ipv6<&[u8]>) -> FlowKey {
        let (s, d) = (ip.src().octets(), ip.dst().octets());
        let word = |o: &[u8; 16], at| u64::from_be_bytes(array(o, at));
        let addr = [word(&s, 0), word(&s, 8), word(&d, 0), word(&d, 8)];
        // A chain that cannot be followed: the fixed header still names the flow.
        let proto = frame.upper().map_or(ip.next_header(), |(upper, _)| upper.proto);
        match frame.ports() {
            Some(ports) => Self::new(addr, FlowKind::V6Ports, proto.into(), ports),
            None => Self::new(addr, FlowKind::V6, proto.into(), 0),
        }
    }

    #[inline]
    fn of_macs(frame: &[u8]) -> FlowKey {
        let high = u64::from(u32_at(frame, 0)) << 32 | u64::from(u32_at(frame, 4));
        let low = u64::from(u32_at(frame, 8));
        Self::new([high, low, 0, 0], FlowKind::Mac, u16_at(frame, 12), 0)
    }

    /// How much of the frame the key holds.
    #[inline]
    pub const fn kind(&self) -> FlowKind {
        match self.rest >> 48 {
            1 => FlowKind::V4,
            2 => FlowKind::V4Ports,
            3 => FlowKind::V6,
            4 => FlowKind::V6Ports,
            _ => FlowKind::Mac,
        }
    }

    /// IP protocol, or EtherType for [`FlowKind::Mac`].
    #[inline]
    pub const fn proto(&self) -> u16 {
        (self.rest >> 32) as u16
    }

    /// Source and destination port, both 0 where the kind has none.
    #[inline]
    pub const fn ports(&self) -> (u16, u16) {
        ((self.rest >> 16) as u16, self.rest as u16)
    }

    /// Source and destination; `None` for [`FlowKind::Mac`].
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let [a, b, c, d] = self.addr;
        let v6 = |high, low| IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into());
        match self.kind() {
            FlowKind::Mac => None,
            FlowKind::V4 | FlowKind::V4Ports => {
                Some((IpAddr::V4(((a >> 32) as u32).into()), IpAddr::V4((a as u32).into())))
            }
            FlowKind::V6 | FlowKind::V6Ports => Some((v6(a, b), v6(c, d))),
        }
    }

    /// The keyed hash of this flow.
    #[inline(always)]
    pub const fn hash(&self, key: &HashKey) -> FlowHash {
        let [k0, k1, k2, k3] = key.0;
        let [a, b, c, d] = self.addr;
        let h = match self.kind() {
            FlowKind::V4 | FlowKind::V4Ports => mix(a ^ k0, self.rest ^ k1),
            FlowKind::Mac => mix(a ^ k0, b ^ self.rest ^ k1),
            FlowKind::V6 | FlowKind::V6Ports => {
                let addr = mix(a ^ k0, b ^ k1) ^ mix(c ^ k2, d ^ k3);
                mix(addr, self.rest ^ k1)
            }
        };
        // One multiply alone maps consecutive ports to an arithmetic progression, which is far
        // from spread out; every word goes through two.
        FlowHash(mix(h ^ k2, k3))
    }
}

/// Multiplies to 128 bits and folds, so that every input bit reaches every output bit.
#[inline(always)]
const fn mix(a: u64, b: u64) -> u64 {
    let p = (a as u128) * (b as u128);
    p as u64 ^ (p >> 64) as u64
}

/// The secret of the flow hash, drawn once a process: without it a tenant cannot aim many flows at
/// one path. Not a cryptographic promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashKey([u64; 4]);

impl HashKey {
    /// From two random words. Equal words give equal ports, so that a packet in flight may keep
    /// its path through another NVE (R2).
    pub const fn new(a: u64, b: u64) -> HashKey {
        // Odd constants from the fractional parts of square roots of primes; they keep the four
        // words different and nonzero even for a key of zeros.
        HashKey([
            a ^ 0x6a09_e667_f3bc_c909,
            b ^ 0xbb67_ae85_84ca_a73b,
            a.rotate_left(32) ^ 0x3c6e_f372_fe94_f82b,
            b.rotate_left(32) ^ 0xa54f_f53a_5f1d_36f1,
        ])
    }
}

/// The hash of a flow, from which port and label are taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// A hash that gives this source port, from 49152 on, and this flow label, for frames of a given
    /// look.
    pub const fn with(src_port: u16, flow_label: u32) -> FlowHash {
        FlowHash((src_port as u64) << 50 | (flow_label as u64 & 0x000f_ffff) << 20)
    }

    /// The outer UDP source port: 49152 to 65535 (R2).
    #[inline]
    pub const fn src_port(self) -> u16 {
        FIRST_PORT | (self.0 >> 50) as u16
    }

    /// The outer IPv6 flow label: 20 bits, never 0 (R4, RFC 6438 section 3).
    #[inline]
    pub const fn flow_label(self) -> u32 {
        let label = (self.0 >> 20) as u32 & 0x000f_ffff;
        if label == 0 { 1 } else { label }
    }
}

/// [`FlowKey::of_frame`] and [`FlowKey::hash`] in one call.
#[inline]
pub fn flow_hash(frame: &[u8], key: &HashKey) -> FlowHash {
    FlowKey::of_frame(frame).hash(key)
}
