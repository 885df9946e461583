//! Ports in updates: what they are for, and what their VMs may send from.

use core::net::{Ipv4Addr, Ipv6Addr};

use godwit_wire::{Mac, VlanId};

use super::{PortIdx, VnIdx};

/// How far a port lets its VM talk (R15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// No traffic, no announcements: the port is not provisioned, or its VM left (R41).
    Closed,
    /// Resources are there; announcements and the first frame are reported, nothing is forwarded.
    Associated,
    /// Traffic flows.
    Activated,
}

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortRole {
    /// A VM's interface (TSI). Frames from it must carry `mac` as source.
    Access {
        /// Its VN.
        vn: VnIdx,
        /// The VM's address.
        mac: Mac,
        /// Whether it may talk.
        admission: Admission,
    },
    /// An underlay port that carries locators.
    Uplink {
        /// The port's own address.
        mac: Mac,
        /// IPv4 locator.
        v4: Option<Ipv4Addr>,
        /// IPv6 locator.
        v6: Option<Ipv6Addr>,
        /// Own IPv4 address on this link where the locator is another, of a loopback: ARP and echo only (R95).
        link_v4: Option<Ipv4Addr>,
        /// The same for IPv6.
        link_v6: Option<Ipv6Addr>,
        /// The link-local address that answers neighbor solicitations too.
        v6_link_local: Option<Ipv6Addr>,
        /// Where the underlay's own traffic that is not for the switch goes.
        exception: Option<PortIdx>,
        /// The VLAN that it is in (R95): only frames with its tag are the uplink's, and all that it sends gets the tag.
        vlan: Option<VlanId>,
    },
    /// The host's side of an uplink: its frames leave through the uplink as they are, with the uplink's tag.
    Exception {
        /// The uplink it belongs to.
        uplink: PortIdx,
    },
}

/// Which source addresses of one family the VM of a port may have (R65, R93).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceRule {
    /// Every one: nobody said what the VM has. Only without a directory.
    Any,
    /// Those that are set, and new ones while there is room: they are used at once and told to control.
    Listed {
        /// How many more each of the port's MACs may have before control has set them; 0: it binds none by its own
        /// word.
        room: u8,
    },
    /// Those that are set: it has bound as many by its own word as it may. A new one is refused as such.
    Full,
}

/// The rules of a port's sources (R65, R93). Until they are set, every source is good while no address is set, and
/// then these and link-local ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceRules {
    /// IPv4.
    pub v4: SourceRule,
    /// IPv6, link-local addresses excepted.
    pub v6: SourceRule,
    /// IPv6 link-local addresses.
    pub link_local: SourceRule,
}

/// Why a prefix is a port's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefixKind {
    /// The port's VM routes for it: its addresses are good sources (R94).
    Routed,
    /// The port's VM shares it with others: an address of it becomes a good source when the VM announces it (R92).
    Shared,
}
