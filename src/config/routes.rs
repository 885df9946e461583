//! What cannot be true of loopback locators and routes of the underlay (R95), and where next hops are.

use std::net::IpAddr;

use super::underlay::{RouteSource, Via};
use super::{Config, UplinkConfig};

/// Next hops of a route at most, as many as a tunnel has ways.
const MAX_VIA: usize = godwit_tables::update::MAX_WAYS;

/// The interface by which the kernel reaches an uplink: as configured, or as the exception device's arguments say.
pub fn kernel_interface(u: &UplinkConfig) -> Option<&str> {
    if let Some(name) = &u.exception_interface {
        return Some(name);
    }
    let devargs = u.exception.as_deref()?;
    let own = ["net_tap", "eth_tap", "net_virtio_user", "virtio_user"].iter().any(|d| devargs.starts_with(d));
    devargs.split(',').find_map(|arg| arg.trim().strip_prefix("iface=")).filter(|_| own)
}

/// The number of the uplink that a next hop is on.
///
/// # Errors
/// Why there is none, and what to do.
pub fn uplink_of(c: &Config, via: &Via) -> Result<usize, (String, String)> {
    let names = || c.uplinks.iter().map(|u| u.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = &via.uplink {
        return c.uplinks.iter().position(|u| u.name == *name).ok_or_else(|| {
            (
                format!("{}%{name} leads nowhere: there is no uplink {name:?}", via.ip),
                format!("name one of {}", names()),
            )
        });
    }
    if matches!(via.ip, IpAddr::V6(a) if a.is_unicast_link_local()) {
        return match c.uplinks.len() {
            1 => Ok(0),
            _ => Err((
                format!("{} is on every link", via.ip),
                format!("write {0}%UPLINK with one of {1}", via.ip, names()),
            )),
        };
    }
    let on_link = |u: &UplinkConfig| u.nets().any(|net| net.contains(&via.ip));
    c.uplinks.iter().position(on_link).ok_or_else(|| {
        let prefix = |u: &UplinkConfig| {
            let of: Vec<String> = u.nets().map(|net| net.to_string()).collect();
            format!("{} has {}", u.name, if of.is_empty() { "none".into() } else { of.join(" and ") })
        };
        let prefixes: Vec<String> = c.uplinks.iter().map(prefix).collect();
        (
            format!("{} leads nowhere: it is on no uplink's link ({})", via.ip, prefixes.join("; ")),
            "name a router on a link, or say by which uplink it is reached: ADDRESS%UPLINK".into(),
        )
    })
}

/// The first mistake in `[underlay]` and `[[route]]`: key, what, remedy.
pub fn mistake(c: &Config) -> Option<(String, String, String)> {
    in_underlay(c).or_else(|| (0..c.routes.len()).find_map(|i| in_route(c, i)))
}

fn in_underlay(c: &Config) -> Option<(String, String, String)> {
    let u = &c.underlay;
    let bad =
        |key: &str, what: String, remedy: &str| Some((format!("underlay.{key}"), what, remedy.to_owned()));
    let ranges = [
        ("probe_ms", u.probe_ms, 100, 60_000),
        ("probe_tries", u.probe_tries.into(), 1, 10),
        ("probe_wait_ms", u.probe_wait_ms, 10, 10_000),
    ];
    for (key, value, low, high) in ranges {
        if !(low..=high).contains(&value) {
            return bad(key, format!("{value} is out of range"), &format!("use {low} to {high}"));
        }
    }
    let locators = [("locator4", u.locator4.map(IpAddr::V4)), ("locator6", u.locator6.map(IpAddr::V6))];
    for (key, ip) in locators.into_iter().filter_map(|(key, ip)| Some((key, ip?))) {
        let link_local = matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || link_local {
            return bad(
                key,
                format!("{ip} is no address that others can send to"),
                "use an address of your own",
            );
        }
        let on = |l: &&UplinkConfig| l.nets().any(|net| net.contains(&ip));
        if let Some(l) = c.uplinks.iter().find(on) {
            let what =
                format!("{ip} lies in the prefix of uplink {:?}, so only that one would lead to it", l.name);
            return bad(
                key,
                what,
                "use an address outside of all links, or drop it: an uplink's address is a locator",
            );
        }
    }
    if u.routes == RouteSource::Kernel && !c.uplinks.iter().any(|u| kernel_interface(u).is_some()) {
        let what = "no uplink has an exception interface, by which the kernel's routes could leave".into();
        return bad("routes", what, "give the uplinks exception = \"net_tapN,iface=NAME\"");
    }
    None
}

fn in_route(c: &Config, i: usize) -> Option<(String, String, String)> {
    let route = &c.routes[i];
    let bad =
        |key: &str, what: String, remedy: &str| Some((format!("route[{i}].{key}"), what, remedy.to_owned()));
    let addr = route.to.addr();
    if addr != route.to.network() {
        return bad(
            "to",
            format!("{} has bits behind its prefix", route.to),
            "write the prefix's first address",
        );
    }
    if let Some(j) = c.routes[..i].iter().position(|r| r.to == route.to) {
        let what = format!("{} is that of route[{j}]", route.to);
        return bad("to", what, "give one route all its next hops");
    }
    let uplinks_have =
        |v4: bool| c.uplinks.iter().any(|u| if v4 { u.ipv4.is_some() } else { u.ipv6.is_some() });
    let own = match c.underlay.has_locator() {
        true => c.underlay.has_family_of(addr),
        false => uplinks_have(addr.is_ipv4()),
    };
    if !own {
        return bad(
            "to",
            format!("there is no locator of the family of {}", route.to),
            "set one, or drop the route",
        );
    }
    if route.via.is_empty() {
        return bad("via", format!("the route to {} leads nowhere", route.to), "name a next hop");
    }
    if route.via.len() > MAX_VIA {
        let what = format!("{} next hops", route.via.len());
        return bad("via", what, &format!("use {MAX_VIA} at most"));
    }
    for (n, via) in route.via.iter().enumerate() {
        let key = format!("via[{n}]");
        if addr.is_ipv6() && via.ip.is_ipv4() {
            return bad(&key, format!("{} is no next hop of IPv6 packets", via.ip), "name an IPv6 address");
        }
        match uplink_of(c, via) {
            Err((what, remedy)) => return bad(&key, what, &remedy),
            Ok(at) => {
                let u = &c.uplinks[at];
                if u.nets().any(|net| net.addr() == via.ip) {
                    return bad(&key, format!("{} is uplink {:?} itself", via.ip, u.name), "name the router");
                }
            }
        }
    }
    None
}
