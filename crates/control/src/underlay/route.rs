//! Which uplink and next hop lead to a remote locator: on-link prefix first, else a gateway.

use std::net::{IpAddr, Ipv6Addr};

use godwit_tables::update::PortIdx;

use crate::io::UplinkSpec;

use super::Underlay;

impl Underlay {
    /// Uplinks with a link go before those without; among equals the lowest number.
    pub(super) fn route(&self, remote: IpAddr) -> Option<(PortIdx, IpAddr)> {
        let by_link = |up: bool| self.uplinks.iter().filter(move |(_, u)| u.link_up == up);
        for up in [true, false] {
            let direct = by_link(up).find(|(_, u)| on_link(&u.spec, remote)).map(|(p, _)| (*p, remote));
            let through = || by_link(up).find_map(|(p, u)| gateway(&u.spec, remote).map(|g| (*p, g)));
            if let Some(way) = direct.or_else(through) {
                return Some(way);
            }
        }
        None
    }

    /// `ip` can be a neighbor on that uplink.
    pub(super) fn is_on_link(&self, port: PortIdx, ip: IpAddr) -> bool {
        self.uplinks.get(&port).is_some_and(|u| on_link(&u.spec, ip))
    }
}

/// `ip` lies in the uplink's prefix, or is a link-local address of a family that it speaks.
fn on_link(spec: &UplinkSpec, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => spec.v4.is_some_and(|n| {
            let mask = u32::MAX.checked_shl(32 - u32::from(n.prefix_len.min(32))).unwrap_or(0);
            ip.to_bits() & mask == n.addr.to_bits() & mask
        }),
        IpAddr::V6(ip) => spec.v6.is_some_and(|n| {
            let mask = u128::MAX.checked_shl(128 - u32::from(n.prefix_len.min(128))).unwrap_or(0);
            is_link_local(ip) || ip.to_bits() & mask == n.addr.to_bits() & mask
        }),
    }
}

fn gateway(spec: &UplinkSpec, remote: IpAddr) -> Option<IpAddr> {
    match remote {
        IpAddr::V4(_) => spec.v4.and_then(|n| n.gateway).map(IpAddr::V4),
        IpAddr::V6(_) => spec.v6.and_then(|n| n.gateway).map(IpAddr::V6),
    }
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local()
}
