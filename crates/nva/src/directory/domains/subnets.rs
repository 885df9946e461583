//! Subnets of VNs, with the gateway that each NVE is: orders, and what is refused of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use godwit_model::routable::{holds, is_edge, unrouted};
use godwit_model::{MAX_SUBNETS, Subnet, UnderlayGroup, VnRouting};
use godwit_wire::{Prefix, Vni};

use super::super::{Directory, Level, Refusal, VnInfo, VnRecord, Write, allowed};

/// Lives of DHCP leases, in seconds: from a minute to a year.
const LEASE: std::ops::RangeInclusive<u32> = 60..=31_536_000;
/// DNS servers of a subnet at most.
const MAX_DNS: usize = 8;

impl Directory {
    /// The part in a routing domain that a new VN is to have, with its subnets in order.
    pub(in super::super) fn check_routing(&self, vn: &VnRecord) -> Result<(), Refusal> {
        let Some(routing) = &vn.settings.routing else { return Ok(()) };
        if self.domains.get(routing.domain).is_none() {
            return Err(Refusal::UnknownDomain(format!("number {}", routing.domain.0)));
        }
        for s in &routing.subnets {
            check_alone(s)?;
            self.check_room(vn.vni, &vn.name, routing, s)?;
        }
        // None overlaps its neighbor, so none overlaps any other.
        for pair in routing.subnets.windows(2) {
            if pair[0].prefix.overlaps(&pair[1].prefix) {
                return Err(self.overlap(&vn.name, routing, pair[1].prefix, pair[0].prefix, &vn.name));
            }
        }
        if routing.subnets.len() > MAX_SUBNETS {
            return Err(too_many(&vn.name));
        }
        let prefixes: Vec<Prefix> = routing.subnets.iter().map(|s| s.prefix).collect();
        self.check_lengths(routing.domain, &prefixes)
    }

    /// Adds a subnet to a VN, or gives one that is there other settings.
    ///
    /// # Errors
    /// Where the VN is not there or in no domain, the subnet overlaps another one, its gateway is of no use or has an
    /// address of a VM, or a bound is reached.
    pub(in super::super) fn add_subnet(&mut self, name: &str, subnet: Subnet) -> Result<VnInfo, Refusal> {
        let (vni, mut record) = self.routed_vn(name)?;
        let Some(routing) = &mut record.settings.routing else {
            return Err(Refusal::NotRouted { vn: name.into() });
        };
        check_alone(&subnet)?;
        self.check_room(vni, name, routing, &subnet)?;
        self.check_vms(vni, name, &subnet)?;
        let prefix = subnet.prefix;
        let there = routing.subnets.iter().position(|s| s.prefix == prefix);
        if there.is_none() {
            if routing.subnets.len() >= MAX_SUBNETS {
                return Err(too_many(name));
            }
            self.check_lengths(routing.domain, &[prefix])?;
        }
        let gateway = subnet.gateway;
        match there {
            Some(at) if routing.subnets[at] == subnet => return self.vn_named(name),
            Some(at) => routing.subnets[at] = subnet,
            None => routing.subnets.push(subnet),
        }
        routing.subnets.sort_by_key(|s| s.prefix);
        self.domains.join(vni, routing);
        let verb = if there.is_some() { "is changed" } else { "is added" };
        self.save_routing(record, format!("VN {name}: subnet {prefix} {verb}, gateway {gateway}"));
        self.vn_named(name)
    }

    /// Removes a subnet that no VM has an address in.
    ///
    /// # Errors
    /// Where there is no such subnet, or VMs have addresses in it.
    pub(in super::super) fn remove_subnet(&mut self, name: &str, prefix: Prefix) -> Result<VnInfo, Refusal> {
        let (vni, mut record) = self.routed_vn(name)?;
        let Some(routing) = &mut record.settings.routing else {
            return Err(Refusal::NotRouted { vn: name.into() });
        };
        let before = routing.clone();
        routing.subnets.retain(|s| s.prefix != prefix);
        if *routing == before {
            let known = super::some(before.subnets.iter().map(|s| s.prefix.to_string()));
            return Err(Refusal::UnknownSubnet { vn: name.into(), prefix, known });
        }
        let (vms, some) = self.vms_within(vni, &prefix);
        if vms > 0 {
            return Err(Refusal::SubnetHasVms { vn: name.into(), prefix, vms, some });
        }
        self.domains.leave(vni, &before);
        self.domains.join(vni, routing);
        self.save_routing(record, format!("VN {name}: subnet {prefix} is removed"));
        self.vn_named(name)
    }

    fn routed_vn(&self, name: &str) -> Result<(Vni, VnRecord), Refusal> {
        let unknown = || Refusal::UnknownVn(name.into());
        let vni = self.vns.vni_of(name).ok_or_else(unknown)?;
        Ok((vni, self.vns.record(vni).ok_or_else(unknown)?.clone()))
    }

    /// The VN has other subnets: durable, and told to its subscribers.
    fn save_routing(&mut self, record: VnRecord, text: String) {
        let vni = record.vni;
        self.persist(Write::PutVn(record.clone()));
        self.log(Level::Info, text);
        self.vns.define(record);
        self.snapshot_all(vni);
    }

    /// The domain has room for the subnet: no other one overlaps it, and no route leads there.
    fn check_room(&self, vni: Vni, vn: &str, routing: &VnRouting, s: &Subnet) -> Result<(), Refusal> {
        let Some(d) = self.domains.get(routing.domain) else { return Ok(()) };
        let other = d.overlapping(&s.prefix).filter(|(p, owner)| (*p, *owner) != (s.prefix, vni));
        if let Some((other, owner)) = other {
            return Err(self.overlap(vn, routing, s.prefix, other, &self.vn_name(owner)));
        }
        match d.route_within(&s.prefix) {
            Some((route, _)) if holds(&s.prefix, &route) => Err(Refusal::SubnetHasRoute {
                vn: vn.into(),
                prefix: s.prefix,
                route,
                domain: d.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn overlap(&self, vn: &str, routing: &VnRouting, prefix: Prefix, other: Prefix, owner: &str) -> Refusal {
        Refusal::SubnetsOverlap {
            prefix,
            vn: vn.into(),
            other,
            other_vn: owner.into(),
            domain: self.domain_name(routing.domain).unwrap_or_default().into(),
        }
    }

    /// No VM of the VN has what is the gateway's, or what nobody has in a subnet.
    fn check_vms(&self, vni: Vni, vn: &str, s: &Subnet) -> Result<(), Refusal> {
        let taken = |ip: IpAddr, what: &'static str, vm: &str| Refusal::GatewayTaken {
            ip,
            what,
            subnet: s.prefix,
            vn: vn.into(),
            vm: vm.into(),
        };
        let edges = [(s.prefix.addr(), "network address"), (s.prefix.last(), "broadcast address")];
        let edges = edges.into_iter().filter(|(ip, _)| is_edge(&s.prefix, *ip));
        for (ip, what) in edges.chain([(s.gateway, "gateway")]) {
            let owner = self.records.key_of_ip(vni, ip).and_then(|key| self.records.get(&key));
            if let Some(r) = owner {
                return Err(taken(ip, what, &r.name));
            }
        }
        let link_local = IpAddr::V6(self.config.gateway_mac.link_local());
        let owner = self.records.key_of_ip(vni, link_local).and_then(|key| self.records.get(&key));
        if let Some(r) = owner {
            return Err(taken(link_local, "link-local address of the gateway", &r.name));
        }
        for r in self.records.allowing(vni) {
            let mut prefixes = allowed::prefixes_of(&r.allowed);
            if let Some((what, p)) = prefixes.find(|(_, p)| p.contains(s.gateway)) {
                return Err(Refusal::GatewayAddress {
                    mine: format!("{what} {p}"),
                    vm: r.name.clone(),
                    gateway: s.gateway,
                    subnet: s.prefix,
                    vn: vn.into(),
                });
            }
        }
        Ok(())
    }
}

/// With its subnets in order.
pub(in super::super) fn put_in_order(vn: &mut VnRecord) {
    if let Some(routing) = &mut vn.settings.routing {
        routing.subnets.sort_by_key(|s| s.prefix);
    }
}

fn too_many(vn: &str) -> Refusal {
    Refusal::AtMost { what: format!("subnets of VN {vn:?}"), max: MAX_SUBNETS }
}

/// The subnet makes sense by itself.
fn check_alone(s: &Subnet) -> Result<(), Refusal> {
    let prefix = s.prefix;
    let bad = |why| Err(Refusal::BadSubnet { prefix, why });
    if prefix.is_host() {
        return bad("one address has no room for a VM beside the gateway");
    }
    if let Some(why) = unrouted(&prefix, false) {
        return Err(Refusal::UnroutedSubnet { prefix, why });
    }
    let gateway = |why| Err(Refusal::BadGateway { gateway: s.gateway, prefix, why });
    if s.gateway.is_ipv4() != prefix.is_ipv4() {
        return gateway("is not of the family");
    }
    if !prefix.contains(s.gateway) {
        return gateway("is outside");
    }
    if is_edge(&prefix, s.gateway) {
        return gateway("is the network or the broadcast address");
    }
    if s.advertise.is_some() && prefix.is_ipv4() {
        return bad("router advertisements are of IPv6");
    }
    let Some(dhcp) = &s.dhcp else { return Ok(()) };
    if !LEASE.contains(&dhcp.lease_s) {
        return bad("a DHCP lease lives from 60 s to a year (31,536,000 s)");
    }
    let dns: BTreeSet<IpAddr> = dhcp.dns.iter().copied().collect();
    if dhcp.dns.len() > MAX_DNS || dns.len() < dhcp.dns.len() {
        return bad("DNS servers are at most eight, each named once");
    }
    if dns.iter().any(|ip| ip.is_ipv4() != prefix.is_ipv4() || !allowed::is_individual(*ip)) {
        return bad("DNS servers are individual addresses of the subnet's family");
    }
    Ok(())
}

/// Groups of the underlay are groups that are routed (R60).
pub(in super::super) fn check_underlay_group(group: &UnderlayGroup) -> Result<(), Refusal> {
    let (v4, v6) = (group.v4.map(IpAddr::V4), group.v6.map(IpAddr::V6));
    for ip in [v4, v6].into_iter().flatten() {
        let good = match ip {
            IpAddr::V4(a) => a.is_multicast() && a.octets()[..3] != [224, 0, 0],
            // Scopes 0 to 2 do not leave the link (RFC 4291 section 2.7); 15 is reserved.
            IpAddr::V6(a) => a.is_multicast() && (3..15).contains(&(a.octets()[1] & 0xf)),
        };
        if !good {
            return Err(Refusal::BadUnderlayGroup(ip));
        }
    }
    Ok(())
}
