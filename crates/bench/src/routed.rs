//! What routed rows have beside bridged ones (R58): a domain of two VNs, each with a subnet and the gateway, and in the
//! far VN VMs with host routes, or VMs that route for prefixes of four lengths.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::{Mac, Prefix};

use crate::ends::{self, VNI};
use crate::plan::Row;

/// The VN of the VMs elsewhere.
pub const FAR_VNI: u32 = 101;
/// MAC of the gateway in both VNs.
pub const GATEWAY: Mac = Mac([0x02, 0x67, 0x77, 0, 0, 0x01]);

/// Lengths of the prefixes that are routed for.
const LENGTHS_V4: [u8; 4] = [16, 20, 24, 28];
const LENGTHS_V6: [u8; 4] = [32, 40, 48, 56];
/// Where the prefixes of each length begin, 4,096 of them without meeting those of another length.
const BEGIN_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(32, 0, 0, 0),
    Ipv4Addr::new(48, 0, 0, 0),
    Ipv4Addr::new(49, 0, 0, 0),
    Ipv4Addr::new(50, 0, 0, 0),
];
const BEGIN_V6: [u16; 4] = [0x3000, 0x3001, 0x3002, 0x3003];
/// The subnet of the VMs elsewhere, with its gateway.
const FAR_V4: Subnet = ("10.128.0.0/12", "10.143.255.254");
const FAR_V6: Subnet = ("2001:db8:b::/64", "2001:db8:b::ffff:ffff:ffff");
/// That of the VM that sends.
const NEAR_V4: Subnet = ("10.1.0.0/16", "10.1.255.254");
const NEAR_V6: Subnet = ("2001:db8:a::/64", "2001:db8:a::ffff:ffff:ffff");

type Subnet = (&'static str, &'static str);

/// The address of the `n`-th VM elsewhere. The first is not that of the subnet itself.
fn vm_ip(row: &Row, n: u32) -> IpAddr {
    ends::far_ip(row, n + 1)
}

/// The `n`-th prefix of a row with routers, and which of them it is behind.
fn prefix(row: &Row, n: u32) -> (Prefix, u32) {
    let (of_length, at) = ((n % 4) as usize, n / 4);
    let (len, first): (u8, IpAddr) = if row.inner_v6 {
        let (len, begin) = (LENGTHS_V6[of_length], BEGIN_V6[of_length]);
        (len, Ipv6Addr::from_bits(u128::from(begin) << 112 | u128::from(at) << (128 - len)).into())
    } else {
        let (len, begin) = (LENGTHS_V4[of_length], BEGIN_V4[of_length]);
        (len, Ipv4Addr::from_bits(begin.to_bits() | at << (32 - len)).into())
    };
    (Prefix::of(first, len), at % row.routers)
}

/// Where frames to the `n`-th destination are for: an address, and the VM that they reach by it.
pub fn destination(row: &Row, n: u32) -> (IpAddr, u32) {
    if row.routers == 0 {
        return (vm_ip(row, n), n);
    }
    let (prefix, vm) = prefix(row, n);
    let ip = match prefix.addr() {
        IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() + 1).into(),
        IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() + 1).into(),
    };
    (ip, vm)
}

/// The `n`-th destination as a rule of OVS matches it, and the rule's priority: the longer prefix counts.
pub fn rule(row: &Row, n: u32) -> (String, u32, u32) {
    let (ip, vm) = destination(row, n);
    let to = if row.routers == 0 { Prefix::host(ip) } else { prefix(row, n).0 };
    let family = if row.inner_v6 { "ipv6,ipv6_dst" } else { "ip,nw_dst" };
    let matched = format!("{family}={}/{}", to.addr(), to.prefix_len());
    (matched, 10 + u32::from(to.prefix_len()), vm)
}

/// Domain, VNs and VMs elsewhere, as tables of the switch's configuration.
pub fn config(text: &mut String, row: &Row) -> fmt::Result {
    let (near, far) = if row.inner_v6 { (NEAR_V6, FAR_V6) } else { (NEAR_V4, FAR_V4) };
    for (vni, (subnet, gateway)) in [(VNI, near), (FAR_VNI, far)] {
        writeln!(
            text,
            "[[vn]]\nvni = {vni}\ndomain = \"tenant\"\n\
             subnets = [{{ prefix = \"{subnet}\", gateway = \"{gateway}\" }}]"
        )?;
    }
    let locator = |n: u32| row.case.remote(n % row.nves);
    let vm = |text: &mut String, n, row_of: &str| {
        writeln!(
            text,
            "[[vm]]\nvni = {FAR_VNI}\nmac = \"{}\"\nips = [\"{}\"]\nlocator = \"{}\"{row_of}",
            ends::remote_vm(row, n),
            vm_ip(row, n),
            locator(n)
        )
    };
    // MAC addresses that do not follow each other are entries of their own.
    if row.random {
        (0..row.vms()).try_for_each(|n| vm(text, n, ""))?;
    } else {
        vm(text, 0, &format!("\ncount = {}\nnves = {}", row.vms(), row.nves))?;
    }
    writeln!(text, "[[domain]]\nname = \"tenant\"\ngateway_mac = \"{GATEWAY}\"")?;
    let route = |text: &mut String, n, row_of: &str| {
        let (to, via) = prefix(row, n);
        let mac = ends::remote_vm(row, via);
        writeln!(
            text,
            "[[domain.route]]\nto = \"{}/{}\"\nvni = {FAR_VNI}\nvia = \"{mac}\"{row_of}",
            to.addr(),
            to.prefix_len()
        )
    };
    match (row.routers, row.random) {
        (0, _) => Ok(()),
        (_, true) => (0..row.destinations).try_for_each(|n| route(text, n, "")),
        (routers, false) => (0..row.destinations.min(4)).try_for_each(|n| {
            let count = (row.destinations - n).div_ceil(4);
            route(text, n, &format!("\ncount = {count}\nvms = {}", routers.min(count)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan;

    fn row(name: &str) -> Row {
        plan::select(&[], name).unwrap()[0]
    }

    #[test]
    fn r58_prefixes_of_four_lengths_do_not_meet() {
        for name in ["route-v4/60/16384/routers=256", "route-v6/62/16384/routers=256"] {
            let row = row(name);
            let mut all: Vec<Prefix> = (0..row.destinations).map(|n| prefix(&row, n).0).collect();
            let lengths: BTreeSet<u8> = all.iter().map(|p| p.prefix_len()).collect();
            assert_eq!(lengths.len(), 4);
            all.sort_by_key(|p| p.addr());
            assert!(all.windows(2).all(|p| !p[0].contains(p[1].addr())), "{name}");
            let vms: BTreeSet<u32> = (0..row.destinations).map(|n| prefix(&row, n).1).collect();
            assert_eq!(vms.len(), 256);
            assert!((0..row.destinations).all(|n| prefix(&row, n).0.contains(destination(&row, n).0)));
        }
    }

    #[test]
    fn r58_vms_elsewhere_are_in_their_subnet_and_none_is_its_gateway() {
        for (name, (subnet, gateway)) in [("route-v4/60/1000000", FAR_V4), ("route-v6/62/1000000", FAR_V6)] {
            let (row, subnet) = (row(name), subnet.parse::<Prefix>().unwrap());
            for n in [0, 1, 999_999] {
                let (ip, vm) = destination(&row, n);
                assert_eq!(vm, n);
                assert!(subnet.contains(ip) && ip != subnet.addr() && ip.to_string() != gateway, "{ip}");
            }
        }
    }

    #[test]
    fn r58_ovs_has_the_same_routes_as_the_switch() {
        let routers = row("route-v4/60/10000/routers=256");
        assert_eq!(rule(&routers, 1), ("ip,nw_dst=48.0.0.0/20".into(), 30, 0));
        assert_eq!(rule(&routers, 4 * 257 + 3), ("ip,nw_dst=50.0.16.16/28".into(), 38, 1));
        let mut text = String::new();
        config(&mut text, &routers).unwrap();
        let route = "to = \"48.0.0.0/20\"\nvni = 101\nvia = \"02:20:00:00:00:00\"\ncount = 2500\nvms = 256\n";
        assert!(text.contains(route), "{text}");
        let hosts = row("route-v6/62/1000");
        assert_eq!(rule(&hosts, 7), ("ipv6,ipv6_dst=2001:db8:b::8/128".into(), 138, 7));
    }
}
