//! Where a VM's interface is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::NveId;

/// An NVE's underlay addresses; at least one is set in a valid value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Locators {
    /// IPv4 locator.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 locator.
    pub v6: Option<Ipv6Addr>,
}

impl Locators {
    /// Neither family is set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Whether `ip` is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => self.v4 == Some(a),
            IpAddr::V6(a) => self.v6 == Some(a),
        }
    }
}

/// An NVE as others see it: its name and where to send to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// The NVE.
    pub nve: NveId,
    /// Its locators.
    pub locators: Locators,
}

/// Where the directory stands with a VM's interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BindingState {
    /// Defined, attached nowhere; its addresses stay reserved (R19).
    Detached,
    /// Attached to the NVE of its location, which carries its traffic.
    Active,
}
