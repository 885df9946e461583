//! Addresses of the overlay: MAC addresses and VXLAN network identifiers.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

/// A 48-bit IEEE 802 MAC address, first octet on the wire first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
    /// Source of the switch's own questions to local VMs; no VM has it (R21, R32).
    pub const PROBER: Mac = Mac([0x02, 0x67, 0x77, 0x74, 0x00, 0x01]);
    /// 00:00:00:00:00:00, never a valid source.
    pub const ZERO: Mac = Mac([0; 6]);

    /// The group bit is set: broadcast or multicast.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// The link-local IPv6 address that follows from it (RFC 4291 appendix A, RFC 4862 section 5.3).
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Addr::from_bits(0xfe80 << 112 | u64::from_be_bytes(id) as u128)
    }

    /// An individual, non-zero address: one that a VM may own.
    #[inline]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && self.to_u64() != 0
    }

    /// The address as an integer below 2^48, first octet most significant.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The inverse of [`Mac::to_u64`]; the upper 16 bits are ignored.
    #[inline]
    pub const fn from_u64(v: u64) -> Mac {
        let [_, _, a, b, c, d, e, f] = v.to_be_bytes();
        Mac([a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no MAC address or no VNI; says what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddrError(pub &'static str);

impl fmt::Display for ParseAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for ParseAddrError {}

impl FromStr for Mac {
    type Err = ParseAddrError;

    fn from_str(s: &str) -> Result<Mac, ParseAddrError> {
        const E: ParseAddrError =
            ParseAddrError("a MAC address is six hexadecimal octets, as in 02:00:00:00:00:01");
        let mut out = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for o in &mut out {
            let p = parts.next().ok_or(E)?;
            // `from_str_radix` alone would take a sign.
            if p.len() != 2 || !p.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(E);
            }
            *o = u8::from_str_radix(p, 16).map_err(|_| E)?;
        }
        if parts.next().is_some() {
            return Err(E);
        }
        Ok(Mac(out))
    }
}

/// A 24-bit VXLAN network identifier (RFC 7348 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Vni(u32);

impl Vni {
    /// The largest identifier, 2^24 - 1.
    pub const MAX: u32 = 0x00ff_ffff;

    /// `None` where `v` does not fit in 24 bits.
    #[inline]
    pub const fn new(v: u32) -> Option<Vni> {
        if v <= Self::MAX { Some(Vni(v)) } else { None }
    }

    /// From the low 24 bits of `v`; the rest is ignored.
    #[inline]
    pub const fn from_low24(v: u32) -> Vni {
        Vni(v & Self::MAX)
    }

    /// The identifier as an integer below 2^24.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vni {}", self.0)
    }
}

impl FromStr for Vni {
    type Err = ParseAddrError;

    fn from_str(s: &str) -> Result<Vni, ParseAddrError> {
        s.parse().ok().and_then(Vni::new).ok_or(ParseAddrError("a VNI is a number from 0 to 16777215"))
    }
}
