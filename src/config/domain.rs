//! Keys of routing domains that are known without a directory (R58).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::GATEWAY_MAC;
use godwit_wire::{Mac, Prefix, Vni};
use serde::Deserialize;

use super::file::vni;
use super::text::from_text;

/// Table `[[domain]]`: a routing domain; VNs say that they are in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainConfig {
    /// Its name.
    pub name: String,
    /// MAC of the gateway, the same at every NVE.
    #[serde(default = "gateway_mac", deserialize_with = "from_text")]
    pub gateway_mac: Mac,
    /// Its static routes.
    #[serde(default, rename = "route")]
    pub routes: Vec<DomainRouteConfig>,
}

impl DomainConfig {
    /// Static routes, those of rows counted one by one.
    pub fn route_count(&self) -> u64 {
        self.routes.iter().map(|r| u64::from(r.count)).sum()
    }
}

/// Table `[[domain.route]]`: packets for a prefix go to a VM that routes them on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainRouteConfig {
    /// The prefix; with `count`, the first of consecutive ones of its length.
    #[serde(deserialize_with = "from_text")]
    pub to: Prefix,
    /// The VN of the VM.
    #[serde(deserialize_with = "vni")]
    pub vni: Vni,
    /// The VM; with `vms`, the first of consecutive ones.
    #[serde(deserialize_with = "from_text")]
    pub via: Mac,
    /// So many consecutive prefixes.
    #[serde(default = "one")]
    pub count: u32,
    /// Spread over so many VMs with consecutive addresses.
    #[serde(default = "one")]
    pub vms: u32,
}

impl DomainRouteConfig {
    /// The `n`-th prefix, where there are as many.
    pub fn prefix(&self, n: u32) -> Option<Prefix> {
        let len = self.to.prefix_len();
        // Of length 0 there is one only.
        let step = |bits: u32| match n {
            0 => Some(0),
            _ => u128::from(n).checked_mul(1_u128.checked_shl(bits - u32::from(len))?),
        };
        let addr = match self.to.addr() {
            IpAddr::V4(a) => {
                let at = u128::from(a.to_bits()).checked_add(step(32)?)?;
                IpAddr::V4(Ipv4Addr::from_bits(at.try_into().ok()?))
            }
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits().checked_add(step(128)?)?)),
        };
        Prefix::new(addr, len)
    }

    /// The VM that the `n`-th prefix is behind.
    pub fn next_hop(&self, n: u32) -> Mac {
        Mac::from_u64(self.via.to_u64() + u64::from(n % self.vms.max(1)))
    }
}

/// A subnet of a VN in a routing domain.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetConfig {
    /// Its addresses.
    #[serde(deserialize_with = "from_text")]
    pub prefix: Prefix,
    /// The gateway's address.
    pub gateway: IpAddr,
}

fn gateway_mac() -> Mac {
    GATEWAY_MAC
}

fn one() -> u32 {
    1
}
