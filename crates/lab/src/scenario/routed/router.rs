//! A router VM with containers behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::domain::{Domain, Net, start};
use crate::cmd;
use crate::lab::Lab;
use crate::lab::topology::{GUEST_MTU, add_namespace, guest_addresses, offloads_off, set_sysctls};

/// The router VM's end of the wire to its container.
const WIRE: &str = "pods";
/// The container's end.
const CONTAINER: &str = "eth0";

/// The containers' subnets.
const SUBNETS: [&str; 2] = ["10.9.0.0/24", "2001:db8:9::/64"];

/// An address of the containers' subnet.
pub(super) fn container_ip(v6: bool, n: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, n.into()).into()
    } else {
        Ipv4Addr::new(10, 9, 0, n).into()
    }
}

/// Starts a VM of a network that routes for a container behind it, which is a namespace of this name.
///
/// # Errors
/// Where any step fails.
pub(super) fn start_router(
    lab: &mut Lab,
    domain: &Domain,
    net: Net,
    (name, n): (&str, u8),
    nve: &str,
    container: &str,
) -> Result<()> {
    start(lab, net, net.vm(name, n), nve)?;
    let (outer, inner) = (lab.namespace(name), lab.namespace(container));
    add_namespace(&inner)?;
    cmd::ip_batch(
        &outer,
        &[format!(
            "link add {WIRE} mtu {GUEST_MTU} type veth peer name {CONTAINER} mtu {GUEST_MTU} netns {inner}"
        )],
    )?;
    let ends = [(&outer, WIRE, 1), (&inner, CONTAINER, 2)];
    for (namespace, interface, n) in ends {
        guest_addresses(namespace, interface, &[container_ip(false, n), container_ip(true, n)])?;
        offloads_off(namespace, interface)?;
    }
    for v6 in [false, true] {
        let family = if v6 { "-6" } else { "-4" };
        cmd::sh(&format!("ip -n {inner} {family} route add default via {}", container_ip(v6, 1)))?;
    }
    set_sysctls(&outer, &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
    SUBNETS.iter().try_for_each(|prefix| domain.route(lab, prefix, name))
}
