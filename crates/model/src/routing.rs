//! Routing within a tenant: routing domains, subnets, static routes (R58), and what becomes of multicast (R60, R61).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::{Mac, Prefix, Vni};

use crate::VmKey;

/// Subnets of a VN at most, both families together.
pub const MAX_SUBNETS: usize = 16;
/// Lengths that the prefixes of a domain may have at most, of each family: a lookup tries each (R58).
pub const MAX_LENGTHS: usize = 8;
/// Static routes of a domain at most.
pub const MAX_ROUTES: usize = 65_536;
/// The gateway MAC of an installation that configured none: locally administered.
pub const GATEWAY_MAC: Mac = Mac([0x02, 0x67, 0x77, 0x00, 0x00, 0x01]);

/// Number of a routing domain; the directory gives it out, and never again to another domain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DomainId(pub u32);

/// A VN's part in a routing domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VnRouting {
    /// The domain.
    pub domain: DomainId,
    /// Layer 3 only: its VMs are not bridged, whatever their inner destination MAC. Otherwise the gateway stands beside
    /// the bridge.
    pub routed_only: bool,
    /// Its subnets, sorted by prefix; none overlaps another one of the domain.
    pub subnets: Vec<Subnet>,
}

/// A subnet of a VN, with the gateway that each NVE is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// Its addresses.
    pub prefix: Prefix,
    /// The gateway's address, one of them.
    pub gateway: IpAddr,
    /// IPv6: the gateway sends router advertisements (RFC 4861).
    pub advertise: Option<Advertise>,
    /// VMs get their recorded addresses by DHCP (RFC 2131, RFC 8415).
    pub dhcp: Option<Dhcp>,
}

/// What router advertisements of a subnet say (RFC 4861 section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertise {
    /// M flag: addresses are to be had by DHCPv6. Without it hosts may form addresses from the prefix (A flag).
    pub managed: bool,
    /// O flag: other settings are to be had by DHCPv6.
    pub other: bool,
    /// Router lifetime, in seconds; 0: no default router.
    pub lifetime_s: u16,
}

/// What DHCP says of a subnet beside address, router and MTU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dhcp {
    /// Life of a lease, in seconds.
    pub lease_s: u32,
    /// DNS servers, of the subnet's family.
    pub dns: Vec<IpAddr>,
}

/// A route of a domain that the operator set: packets for the prefix go to a VM that routes them on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaticRoute {
    /// Where packets are for.
    pub prefix: Prefix,
    /// The VM, in a VN of the domain.
    pub via: VmKey,
}

/// A routing domain as NVEs know it, its routes apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// Its number.
    pub id: DomainId,
    /// The operator's name for it.
    pub name: String,
    /// MAC of the gateway at every NVE: the installation's.
    pub gateway_mac: Mac,
    /// The VNs that it joins, sorted.
    pub vns: Vec<Vni>,
}

/// Multicast groups of a VN at most that VMs of one NVE have joined, those of multicast routers included (R61).
pub const MAX_GROUPS: usize = 1024;
/// Groups at most that the VMs of one NVE have joined, of all VNs together.
pub const MAX_GROUPS_OF_NVE: usize = 65_536;

/// What becomes of multicast in a VN (R61).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Multicast {
    /// It is copied to everybody.
    #[default]
    Flood,
    /// It is copied to those that asked for it by IGMP or MLD; link-local groups to everybody.
    Snoop,
    /// It is dropped, but for link-local groups.
    Off,
}

impl Multicast {
    /// `flood`, `snoop` or `off`.
    pub fn as_text(self) -> &'static str {
        match self {
            Multicast::Flood => "flood",
            Multicast::Snoop => "snoop",
            Multicast::Off => "off",
        }
    }
}

/// Multicast groups of the underlay that carry a VN's broadcast and multicast where copies are too many (R60).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct UnderlayGroup {
    /// Over IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Over IPv6.
    pub v6: Option<Ipv6Addr>,
}
