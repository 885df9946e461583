//! Which way the frames of a row go, and how long they are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;
use serde::{Serialize, Serializer};

/// Which way frames go and in which outer header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Case {
    /// From a VM into VXLAN over IPv4.
    EncapV4,
    /// From a VM into VXLAN over IPv6.
    EncapV6,
    /// Out of VXLAN over IPv4 to VMs.
    DecapV4,
    /// Out of VXLAN over IPv6 to VMs.
    DecapV6,
    /// IPv4 from a VM to its gateway, routed into another VN, into VXLAN over IPv4.
    RouteV4,
    /// IPv6 from a VM to its gateway, routed into another VN, into VXLAN over IPv6.
    RouteV6,
    /// From guests on vhost-user ports into VXLAN over IPv4.
    VhostEncap,
    /// Out of VXLAN over IPv4 to guests on vhost-user ports.
    VhostDecap,
}

impl Case {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Case::EncapV4 => "encap-v4",
            Case::EncapV6 => "encap-v6",
            Case::DecapV4 => "decap-v4",
            Case::DecapV6 => "decap-v6",
            Case::RouteV4 => "route-v4",
            Case::RouteV6 => "route-v6",
            Case::VhostEncap => "vhost-encap",
            Case::VhostDecap => "vhost-decap",
        }
    }

    /// Frames come from a VM.
    pub fn is_encap(self) -> bool {
        !matches!(self, Case::DecapV4 | Case::DecapV6 | Case::VhostDecap)
    }

    /// VMs are guests on vhost-user ports, with drivers of their own.
    pub fn is_vhost(self) -> bool {
        matches!(self, Case::VhostEncap | Case::VhostDecap)
    }

    /// Frames are for the gateway, which routes them.
    pub fn is_routed(self) -> bool {
        matches!(self, Case::RouteV4 | Case::RouteV6)
    }

    /// The bridged case between the same ends.
    pub fn bridged(self) -> Case {
        match self {
            Case::RouteV4 => Case::EncapV4,
            Case::RouteV6 => Case::EncapV6,
            other => other,
        }
    }

    /// The locator of the switch under test.
    pub fn locator(self) -> IpAddr {
        if self.is_v6() {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
        } else {
            Ipv4Addr::new(198, 18, 0, 1).into()
        }
    }

    /// The locator of the `n`-th other NVE.
    pub fn remote(self, n: u32) -> IpAddr {
        if self.is_v6() {
            Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(0x1_0000 + n)).into()
        } else {
            Ipv4Addr::from_bits(0xc612_0100 + n).into()
        }
    }

    /// Bits of the prefix that all locators share.
    pub fn prefix(self) -> u8 {
        if self.is_v6() { 64 } else { 16 }
    }

    /// The outer header is IPv6.
    pub fn is_v6(self) -> bool {
        matches!(self, Case::EncapV6 | Case::DecapV6 | Case::RouteV6)
    }

    /// Bytes that the outer headers add to a frame.
    pub fn overhead(self) -> usize {
        if self.is_v6() { 70 } else { 50 }
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// Lengths of the tenant's frames, without FCS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// Of twelve frames seven of 60 bytes, four of 590 and one of 1,514.
    Imix,
}

impl Sizes {
    /// The length of frame number `n`.
    pub fn of(self, n: usize) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Imix => match n % 12 {
                0..7 => 60,
                7..11 => 590,
                _ => 1514,
            },
        }
    }

    /// The longest.
    pub fn longest(self) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Imix => 1514,
        }
    }

    /// The mean, rounded.
    pub fn mean(self) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Imix => (7 * 60 + 4 * 590 + 1514) / 12,
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(bytes) => write!(f, "{bytes}"),
            Sizes::Imix => f.write_str("imix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imix_has_its_mean() {
        let all: Vec<usize> = (0..12).map(|n| Sizes::Imix.of(n)).collect();
        assert_eq!(all.iter().sum::<usize>() / 12, Sizes::Imix.mean());
    }
}
