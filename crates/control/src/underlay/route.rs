//! Which uplinks and next hops lead to a remote locator: the longest prefix that an uplink with a link has, of
//! the uplinks' own prefixes and gateways, the configured routes and the kernel's.

use std::net::{IpAddr, Ipv6Addr};

use godwit_tables::update::{MAX_WAYS, PortIdx};

use crate::io::{Route, RouteOrigin, UplinkSpec};

use super::spread::NextHop;
use super::{Underlay, Uplink};

/// A match: length of the prefix and who says so, the better one later in the order.
type Rank = (u8, u8);

const BY_ROUTE: [u8; 2] = [2, 1];
const CONNECTED: u8 = 3;
const GATEWAY: u8 = 0;

impl Underlay {
    /// All next hops of the best match, in order; at most [`MAX_WAYS`]. Uplinks with a link go before those without.
    ///
    /// Where each uplink has a locator of its own, packets leave by the uplink that has the one they come from:
    /// then only the next hops of one uplink count, the lowest.
    pub(super) fn route(&self, remote: IpAddr) -> Vec<NextHop> {
        if remote.is_multicast() {
            return self.route_of_group(remote);
        }
        let mut hops =
            [true, false].iter().map(|up| self.best(remote, *up)).find(|h| !h.is_empty()).unwrap_or_default();
        hops.sort_unstable();
        hops.dedup();
        if !self.is_loopback(remote)
            && let Some(&(first, _)) = hops.first()
        {
            hops.retain(|(uplink, _)| *uplink == first);
        }
        hops.truncate(MAX_WAYS);
        hops
    }

    /// A group of the underlay is on the link of one uplink, the first with a link: by several, it would come twice
    /// (R60).
    fn route_of_group(&self, group: IpAddr) -> Vec<NextHop> {
        let speaks = |u: &Uplink| match group {
            IpAddr::V4(_) => u.spec.v4.is_some(),
            IpAddr::V6(_) => u.spec.v6.is_some(),
        };
        let up = self.uplinks.iter().find(|(_, u)| u.link_up && speaks(u));
        up.map(|(port, _)| (*port, group)).into_iter().collect()
    }

    /// The best match among uplinks whose link is `up`.
    fn best(&self, remote: IpAddr, up: bool) -> Vec<NextHop> {
        let usable = |port: &PortIdx| self.uplinks.get(port).is_some_and(|u| u.link_up == up);
        let mut best: (Option<Rank>, Vec<NextHop>) = (None, Vec::new());
        let mut offer = |rank: Rank, hops: &mut dyn Iterator<Item = NextHop>| {
            if Some(rank) > best.0 {
                best = (Some(rank), hops.collect());
            } else if Some(rank) == best.0 {
                best.1.extend(hops);
            }
        };
        for (&port, u) in self.uplinks.iter().filter(|(_, u)| u.link_up == up) {
            if let Some(len) = prefix_len(&u.spec, remote).filter(|_| on_link(&u.spec, remote)) {
                offer((len, CONNECTED), &mut std::iter::once((port, remote)));
            }
            if let Some(gateway) = gateway(&u.spec, remote) {
                offer((0, GATEWAY), &mut std::iter::once((port, gateway)));
            }
        }
        for (routes, rank) in [&self.fixed, &self.kernel].into_iter().zip(BY_ROUTE) {
            for route in routes.iter().filter(|r| r.contains(remote)) {
                // A route that leads nowhere ends here, too; one whose uplinks have lost their link is as if withdrawn.
                if route.hops.is_empty() || route.hops.iter().any(|h| usable(&h.uplink)) {
                    let hops = route.hops.iter().filter(|h| usable(&h.uplink));
                    offer((route.len, rank), &mut hops.map(|h| (h.uplink, h.ip.unwrap_or(remote))));
                }
            }
        }
        best.1
    }

    /// Takes over the routes of one origin.
    pub(super) fn take_routes(&mut self, origin: RouteOrigin, routes: Vec<Route>) {
        match origin {
            RouteOrigin::Fixed => self.fixed = routes,
            RouteOrigin::Kernel => self.kernel = routes,
        }
    }

    /// `ip` can be a neighbor on that uplink.
    pub(super) fn is_on_link(&self, port: PortIdx, ip: IpAddr) -> bool {
        let by_route = |r: &Route| {
            let here = |h: &crate::io::RouteHop| h.uplink == port;
            r.hops.iter().any(|h| here(h) && (h.ip == Some(ip) || h.ip.is_none() && r.contains(ip)))
        };
        self.uplinks.get(&port).is_some_and(|u| on_link(&u.spec, ip))
            || self.fixed.iter().chain(&self.kernel).any(by_route)
    }
}

impl Route {
    /// The route is for `ip`.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        same_prefix(self.to, ip, self.len)
    }
}

/// Length of the uplink's prefix of `ip`'s family; link-local addresses have one of their own.
fn prefix_len(spec: &UplinkSpec, ip: IpAddr) -> Option<u8> {
    match ip {
        IpAddr::V4(_) => spec.v4.map(|n| n.prefix_len),
        IpAddr::V6(ip) if is_link_local(ip) => Some(10),
        IpAddr::V6(_) => spec.v6.map(|n| n.prefix_len),
    }
}

/// `ip` lies in the uplink's prefix, or is a link-local address of a family that it speaks.
fn on_link(spec: &UplinkSpec, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => spec.v4.is_some_and(|n| same_prefix(ip, n.addr.into(), n.prefix_len)),
        IpAddr::V6(a) => {
            spec.v6.is_some_and(|n| is_link_local(a) || same_prefix(ip, n.addr.into(), n.prefix_len))
        }
    }
}

/// Both are of one family and agree in their first `len` bits.
fn same_prefix(a: IpAddr, b: IpAddr, len: u8) -> bool {
    let differing = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing >= u32::from(len)
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
