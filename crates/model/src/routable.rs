//! Which prefixes, addresses and MACs routing may use (R58).

use std::net::IpAddr;

use godwit_wire::{Mac, Prefix};

/// Prefixes that no packet of a tenant is routed to.
const UNROUTED: [(&str, &str); 9] = [
    ("0.0.0.0/8", "of this host (0.0.0.0/8)"),
    ("127.0.0.0/8", "loopback addresses"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast groups"),
    ("240.0.0.0/4", "reserved (240.0.0.0/4)"),
    ("::/127", "the unspecified and the loopback address"),
    ("::ffff:0.0.0.0/96", "IPv4-mapped"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast groups"),
];

/// Why nothing is routed to a part of `prefix`, or to all of it where only that is asked.
pub fn unrouted(prefix: &Prefix, whole: bool) -> Option<&'static str> {
    let known = UNROUTED.iter().filter_map(|(text, why)| Some((text.parse::<Prefix>().ok()?, *why)));
    let found = |p: &Prefix| if whole { holds(p, prefix) } else { p.overlaps(prefix) };
    known.filter(|(p, _)| found(p)).map(|(_, why)| why).next()
}

/// All addresses of `inner` are in `outer`.
pub fn holds(outer: &Prefix, inner: &Prefix) -> bool {
    outer.prefix_len() <= inner.prefix_len() && outer.contains(inner.addr())
}

/// The network address or the broadcast address of an IPv4 subnet that has these.
pub fn is_edge(subnet: &Prefix, ip: IpAddr) -> bool {
    subnet.is_ipv4() && subnet.prefix_len() < 31 && (ip == subnet.addr() || ip == subnet.last())
}

/// Why `gateway` cannot be the gateway's address in the subnet.
pub fn bad_gateway(subnet: &Prefix, gateway: IpAddr) -> Option<&'static str> {
    if gateway.is_ipv4() != subnet.is_ipv4() {
        Some("is not of the family")
    } else if !subnet.contains(gateway) {
        Some("is outside")
    } else if is_edge(subnet, gateway) {
        Some("is the network or the broadcast address")
    } else {
        None
    }
}

/// A MAC that gateways may have: one that no maker gives to a card, and not that of the switches' own probes. It is an
/// individual, locally administered one, or one for documentation (RFC 9542 section 2.1.4).
pub fn may_be_gateway(mac: Mac) -> bool {
    let local = mac.0[0] & 0b10 != 0;
    let documented = mac.0[..5] == [0, 0, 0x5e, 0, 0x53];
    mac.is_unicast() && mac != Mac::PROBER && (local || documented)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn r58_no_tenants_packet_is_routed_to_groups_or_to_the_host_itself() {
        for bad in ["127.0.0.0/16", "224.0.0.0/24", "255.255.255.255", "fe80::/64", "ff02::1", "::1"] {
            assert!(unrouted(&prefix(bad), true).is_some(), "{bad}");
            assert!(unrouted(&prefix(bad), false).is_some(), "{bad}");
        }
        for good in ["10.0.0.0/8", "203.0.113.0/24", "2001:db8::/32"] {
            assert_eq!(
                (unrouted(&prefix(good), true), unrouted(&prefix(good), false)),
                (None, None),
                "{good}"
            );
        }
        // A default route contains some of them.
        assert_eq!(unrouted(&prefix("0.0.0.0/0"), true), None);
        assert!(unrouted(&prefix("0.0.0.0/0"), false).is_some());
    }

    #[test]
    fn r58_a_gateway_is_a_host_of_its_subnet() {
        let bad = |subnet: &str, gateway: &str| bad_gateway(&prefix(subnet), gateway.parse().unwrap());
        assert_eq!(bad("10.0.0.0/24", "10.0.0.1"), None);
        assert_eq!(bad("10.0.0.0/31", "10.0.0.0"), None, "RFC 3021");
        assert_eq!(
            bad("2001:db8::/64", "2001:db8::"),
            None,
            "RFC 4291 section 2.6.1: the routers' anycast address"
        );
        assert_eq!(bad("10.0.0.0/24", "10.0.1.1"), Some("is outside"));
        assert_eq!(bad("10.0.0.0/24", "2001:db8::1"), Some("is not of the family"));
        for edge in ["10.0.0.0", "10.0.0.255"] {
            assert!(bad("10.0.0.0/24", edge).is_some_and(|why| why.contains("broadcast")), "{edge}");
        }
    }

    #[test]
    fn r58_the_gateways_mac_is_no_makers_and_no_groups() {
        for good in ["02:67:77:00:00:01", "0a:00:00:00:00:01", "00:00:5e:00:53:10"] {
            assert!(may_be_gateway(good.parse().unwrap()), "{good}");
        }
        for bad in ["03:00:00:00:00:01", "00:1b:21:00:00:01", "00:00:00:00:00:00"] {
            assert!(!may_be_gateway(bad.parse().unwrap()), "{bad}");
        }
        assert!(!may_be_gateway(Mac::PROBER));
    }
}
