//! Addresses with the lengths of their prefixes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// An interface address with the length of its prefix, `198.18.0.1/24`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix<A> {
    /// The address itself.
    pub addr: A,
    /// Bits of the prefix.
    pub len: u8,
}

/// A text that is no [`Prefix`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not an address with a prefix length, such as 198.18.0.1/24 or 2001:db8::1/64")]
pub struct BadPrefix(pub String);

impl<A: FromStr + Into<IpAddr> + Copy> FromStr for Prefix<A> {
    type Err = BadPrefix;

    fn from_str(s: &str) -> Result<Prefix<A>, BadPrefix> {
        let bad = || BadPrefix(s.to_owned());
        let (addr, len) = s.split_once('/').ok_or_else(bad)?;
        let addr: A = addr.parse().map_err(|_| bad())?;
        let len: u8 = len.parse().map_err(|_| bad())?;
        let max = if addr.into().is_ipv4() { 32 } else { 128 };
        if len > max { Err(bad()) } else { Ok(Prefix { addr, len }) }
    }
}

impl<A: fmt::Display> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl<'de, A: FromStr + Into<IpAddr> + Copy> Deserialize<'de> for Prefix<A> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Prefix<A>, D::Error> {
        from_text(d)
    }
}

/// Reads a value from its text.
pub fn from_text<'de, D: Deserializer<'de>, T: FromStr>(d: D) -> Result<T, D::Error>
where
    T::Err: fmt::Display,
{
    let text = String::deserialize(d)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// The bits of `ip` behind its first `len`.
pub fn host_bits(ip: IpAddr, len: u8) -> u128 {
    bits(ip).checked_shl(len.into()).unwrap_or(0)
}

/// Both are of one family and agree in their first `len` bits.
pub fn same_prefix(a: IpAddr, b: IpAddr, len: u8) -> bool {
    let differing = (bits(a) ^ bits(b)).leading_zeros();
    a.is_ipv4() == b.is_ipv4() && differing >= u32::from(len)
}
