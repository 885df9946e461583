//! What of the kernel's routes is a route of the underlay (R95). Pure: messages in, routes out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_control::{Route, RouteHop};
use godwit_tables::update::PortIdx;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteType, RouteVia,
};

/// Routes that are taken over at most; leaves tell a server of a loopback each, or of a default route.
pub const MAX_ROUTES: usize = 16_384;

/// A kernel's interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The uplink whose exception interface it is.
    pub uplink: Option<PortIdx>,
}

/// A route that is not taken over, and why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ignored {
    /// The prefix, `198.18.0.0/24`.
    pub to: String,
    /// Why.
    pub why: String,
}

/// What is made of the kernel's main table.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Table {
    /// Routes by uplinks, and those that lead nowhere.
    pub routes: Vec<Route>,
    /// The rest.
    pub ignored: Vec<Ignored>,
}

/// Where a next hop leads.
struct Hop {
    interface: u32,
    ip: Option<IpAddr>,
}

/// A route as the kernel has it.
struct Raw {
    metric: u32,
    /// Packets are refused or dropped.
    nowhere: bool,
    hops: Vec<Hop>,
}

/// Takes the routes of the main table that leave by uplinks. Of one prefix the lowest metric counts; all its next
/// hops have the same right, whatever their weights.
pub fn choose(messages: &[RouteMessage], interfaces: &BTreeMap<u32, Interface>) -> Table {
    let mut by_prefix: BTreeMap<(IpAddr, u8), Raw> = BTreeMap::new();
    for (prefix, raw) in messages.iter().filter_map(raw) {
        match by_prefix.get_mut(&prefix) {
            Some(other) if other.metric < raw.metric => {}
            // Older kernels tell each next hop of an IPv6 route in a message of its own.
            Some(other) if other.metric == raw.metric => other.hops.extend(raw.hops),
            _ => {
                by_prefix.insert(prefix, raw);
            }
        }
    }
    let mut table = Table::default();
    for ((to, len), raw) in by_prefix {
        let mut ignore = |why: String| table.ignored.push(Ignored { to: format!("{to}/{len}"), why });
        let hops: Vec<RouteHop> = raw.hops.iter().filter_map(|h| hop(h, interfaces)).collect();
        if table.routes.len() >= MAX_ROUTES {
            ignore(format!("more than {MAX_ROUTES} routes"));
        } else if raw.nowhere || !hops.is_empty() {
            table.routes.push(Route { to, len, hops });
        } else if let Some(h) = raw.hops.first() {
            let name = interfaces.get(&h.interface).map_or("an unknown interface", |i| i.name.as_str());
            ignore(format!("leaves by {name}, which is no uplink's exception interface"));
        }
    }
    table
}

fn hop(h: &Hop, interfaces: &BTreeMap<u32, Interface>) -> Option<RouteHop> {
    let uplink = interfaces.get(&h.interface)?.uplink?;
    Some(RouteHop { uplink, ip: h.ip })
}

/// Prefix and route; `None` for what is no route to other hosts, or has no next hop that lives.
fn raw(m: &RouteMessage) -> Option<((IpAddr, u8), Raw)> {
    let mut to = match m.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let nowhere = match m.header.kind {
        RouteType::Unicast => false,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => true,
        _ => return None,
    };
    let (mut metric, mut table) = (0, u32::from(m.header.table));
    let (mut interface, mut ip, mut hops) = (None, None, Vec::new());
    for attribute in &m.attributes {
        match attribute {
            RouteAttribute::Destination(a) => to = address(a)?,
            RouteAttribute::Priority(p) => metric = *p,
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Oif(i) => interface = Some(*i),
            RouteAttribute::Gateway(a) => ip = address(a),
            RouteAttribute::Via(v) => ip = via(v),
            RouteAttribute::MultiPath(all) => hops.extend(all.iter().filter_map(next_hop)),
            _ => {}
        }
    }
    let dead = m.header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    hops.extend(interface.filter(|_| !dead && hops.is_empty()).map(|interface| Hop { interface, ip }));
    let group = to.is_multicast() || matches!(to, IpAddr::V6(a) if a.is_unicast_link_local());
    let counts = table == u32::from(RouteHeader::RT_TABLE_MAIN) && !group && (nowhere || !hops.is_empty());
    if nowhere {
        hops.clear();
    }
    counts.then_some(((to, m.header.destination_prefix_length), Raw { metric, nowhere, hops }))
}

fn next_hop(h: &RouteNextHop) -> Option<Hop> {
    if h.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown) {
        return None;
    }
    let ip = h.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(a) => address(a),
        RouteAttribute::Via(v) => via(v),
        _ => None,
    });
    Some(Hop { interface: h.interface_index, ip })
}

fn address(a: &RouteAddress) -> Option<IpAddr> {
    match a {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

fn via(v: &RouteVia) -> Option<IpAddr> {
    match v {
        RouteVia::Inet(a) => Some((*a).into()),
        RouteVia::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> BTreeMap<u32, Interface> {
        let named = |name: &str, uplink| Interface { name: name.into(), uplink };
        [(1, named("eth0", None)), (2, named("fab0", Some(PortIdx(0)))), (3, named("fab1", Some(PortIdx(2))))]
            .into()
    }

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn message(to: &str, len: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut m = RouteMessage::default();
        m.header.address_family = if ip(to).is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        m.header.destination_prefix_length = len;
        m.header.table = RouteHeader::RT_TABLE_MAIN;
        m.header.kind = RouteType::Unicast;
        // A default route names no destination.
        m.attributes.extend((len > 0).then(|| RouteAttribute::Destination(ip(to).into())));
        m.attributes.extend(attributes);
        m
    }

    fn by(interface: u32, gateway: &str) -> Vec<RouteAttribute> {
        vec![RouteAttribute::Oif(interface), RouteAttribute::Gateway(ip(gateway).into())]
    }

    fn path(interface: u32, gateway: &str) -> RouteNextHop {
        let mut h = RouteNextHop::default();
        h.interface_index = interface;
        h.attributes.push(RouteAttribute::Gateway(ip(gateway).into()));
        h
    }

    fn hop(uplink: u16, gateway: Option<&str>) -> RouteHop {
        RouteHop { uplink: PortIdx(uplink), ip: gateway.map(ip) }
    }

    #[test]
    fn r95_what_leaves_by_uplinks_is_taken_and_the_rest_named() {
        let mut dead = path(2, "10.0.1.8");
        dead.flags = RouteNextHopFlags::Linkdown;
        let several = vec![path(2, "10.0.1.0"), path(3, "10.0.2.0"), path(1, "203.0.113.1"), dead];
        let mut blackhole = message("198.18.9.0", 24, Vec::new());
        blackhole.header.kind = RouteType::BlackHole;
        let mut elsewhere = message("198.18.7.0", 24, by(2, "10.0.1.0"));
        elsewhere.header.table = 100;
        let table = choose(
            &[
                message("0.0.0.0", 0, vec![RouteAttribute::MultiPath(several)]),
                message("203.0.113.0", 24, vec![RouteAttribute::Oif(1)]),
                message("10.0.1.0", 31, vec![RouteAttribute::Oif(2)]),
                message("2001:db8::9", 128, by(3, "fe80::1")),
                message("fe80::", 64, vec![RouteAttribute::Oif(2)]),
                message("ff00::", 8, vec![RouteAttribute::Oif(2)]),
                blackhole,
                elsewhere,
            ],
            &interfaces(),
        );
        let route = |to, len, hops| Route { to: ip(to), len, hops };
        assert_eq!(
            table.routes,
            [
                route("0.0.0.0", 0, vec![hop(0, Some("10.0.1.0")), hop(2, Some("10.0.2.0"))]),
                route("10.0.1.0", 31, vec![hop(0, None)]),
                route("198.18.9.0", 24, vec![]),
                route("2001:db8::9", 128, vec![hop(2, Some("fe80::1"))]),
            ]
        );
        let why = "leaves by eth0, which is no uplink's exception interface".to_owned();
        assert_eq!(table.ignored, [Ignored { to: "203.0.113.0/24".into(), why }]);
    }

    #[test]
    fn r95_the_lowest_metric_counts_and_equals_share() {
        let with = |metric, interface, gateway: &str| {
            let mut attributes = by(interface, gateway);
            attributes.push(RouteAttribute::Priority(metric));
            message("2001:db8::", 32, attributes)
        };
        let messages = [with(20, 2, "fe80::1"), with(30, 2, "fe80::9"), with(20, 3, "fe80::2")];
        for reversed in [false, true] {
            let mut messages = messages.to_vec();
            if reversed {
                messages.reverse();
            }
            let mut hops = choose(&messages, &interfaces()).routes.remove(0).hops;
            hops.sort_by_key(|h| h.uplink);
            assert_eq!(hops, [hop(0, Some("fe80::1")), hop(2, Some("fe80::2"))]);
        }
    }

    #[test]
    fn r95_an_ipv4_route_may_have_an_ipv6_next_hop() {
        let via = RouteVia::Inet6("fe80::1".parse().unwrap());
        let m = message("198.18.0.0", 24, vec![RouteAttribute::Oif(2), RouteAttribute::Via(via)]);
        assert_eq!(choose(&[m], &interfaces()).routes[0].hops, [hop(0, Some("fe80::1"))]);
    }
}
