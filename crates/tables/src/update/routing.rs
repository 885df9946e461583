//! Routing domains in updates (R58).

use godwit_wire::Mac;

use super::{Key, VnIdx};

/// A worker's dense number of a routing domain; control gives it out (R58).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct DomainIdx(pub u16);

/// Lengths that the prefixes of a domain have at most, of each family.
pub const MAX_LENGTHS: usize = 8;

/// The lengths of the prefixes that a routing domain has of one family, longest first, host routes left out; the rest
/// is [`NO_LENGTH`]. A lookup that finds no host route tries them in turn.
pub type Lengths = [u8; MAX_LENGTHS];

/// No prefix has so many bits.
pub const NO_LENGTH: u8 = u8::MAX;

/// Where a route of a domain leads (R58).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// To this VM, wherever it is: its frames get its MAC, and its VN's number.
    Vm(Key),
    /// To a subnet of the VN, whose VMs have host routes: an address without one is asked for in a pulled VN, and
    /// otherwise not reachable.
    Subnet {
        /// The VN.
        vn: VnIdx,
        /// The directory is asked.
        ask: bool,
    },
    /// To the gateway itself: one of its addresses in the VN.
    Gateway(VnIdx),
}

/// A VN's part in a routing domain (R58).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VnRouting {
    /// The domain.
    pub domain: DomainIdx,
    /// MAC of the gateway, the same at every NVE.
    pub mac: Mac,
    /// The VN is not bridged: each frame to a single MAC is routed, and each address is answered for with the
    /// gateway's MAC.
    pub routed_only: bool,
    /// Control answers DHCP for IPv4: clients' messages are shown to it, and not copied to the VN.
    pub dhcp_v4: bool,
    /// The same for IPv6.
    pub dhcp_v6: bool,
    /// Control advertises the gateway as an IPv6 router: solicitations are shown to it, and not copied to the VN.
    pub advertise: bool,
}

impl VnRouting {
    /// A part in which control answers nothing.
    pub const fn new(domain: DomainIdx, mac: Mac, routed_only: bool) -> VnRouting {
        VnRouting { domain, mac, routed_only, dhcp_v4: false, dhcp_v6: false, advertise: false }
    }
}

/// The largest number of routing domains an NVE has a part in at a time.
pub const MAX_DOMAINS: usize = 4096;
