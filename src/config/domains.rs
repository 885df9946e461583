//! What cannot be true of routing domains that are known without a directory (R58): the first mistake, as key, what
//! and remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::routable::{bad_gateway, holds, is_edge, may_be_gateway, unrouted};
use godwit_model::{MAX_LENGTHS, MAX_ROUTES, MAX_SUBNETS};
use godwit_wire::{Mac, Prefix, Vni};

use super::Config;
use super::check::last_of_row;
use super::domain::{DomainRouteConfig, SubnetConfig};
use super::file::VnConfig;

type Mistake = (String, String, String);

fn mistaken<T>(key: String, what: String, remedy: impl Into<String>) -> Result<T, Mistake> {
    Err((key, what, remedy.into()))
}

/// The first mistake in `[[domain]]` and what VNs and VMs have of them.
pub fn mistake(c: &Config) -> Option<Mistake> {
    let all = || {
        domains(c)?;
        (0..c.vns.len()).try_for_each(|i| vn(c, i))?;
        (0..c.domains.len()).try_for_each(|d| Domain::new(c, d).check())
    };
    all().err()
}

fn domains(c: &Config) -> Result<(), Mistake> {
    for (i, d) in c.domains.iter().enumerate() {
        let key = |k: &str| format!("domain[{i}].{k}");
        if !c.nve.nva.is_empty() {
            let what = "domains are the NVA's to define, and there is one".into();
            return mistaken(format!("domain[{i}]"), what, "use `godwitctl domain create`, or drop nve.nva");
        }
        if let Err(e) = godwit_model::check_name("routing domain", &d.name) {
            return mistaken(key("name"), e.to_string(), "rename it");
        }
        if let Some(j) = c.domains[..i].iter().position(|other| other.name == d.name) {
            let what = format!("{:?} is also domain[{j}]", d.name);
            return mistaken(key("name"), what, "give each domain a name of its own");
        }
        if !may_be_gateway(d.gateway_mac) {
            let what = format!("{} is no MAC for gateways", d.gateway_mac);
            return mistaken(
                key("gateway_mac"),
                what,
                "use a locally administered one, 02:00:00:00:00:fe say",
            );
        }
    }
    Ok(())
}

/// A VN and its subnets, each by itself.
fn vn(c: &Config, i: usize) -> Result<(), Mistake> {
    let v = &c.vns[i];
    let key = |k: &str| format!("vn[{i}].{k}");
    let Some(name) = &v.domain else {
        let routed = [("routed_only", v.routed_only), ("subnets", !v.subnets.is_empty())];
        return match routed.into_iter().find(|(_, set)| *set) {
            Some((k, _)) => {
                mistaken(key(k), "the VN is in no routing domain".into(), "set domain, or drop it")
            }
            None => Ok(()),
        };
    };
    if !c.domains.iter().any(|d| d.name == *name) {
        return mistaken(
            key("domain"),
            format!("there is no domain {name:?}"),
            "add a [[domain]] of this name",
        );
    }
    if v.subnets.len() > MAX_SUBNETS {
        let what = format!("{} subnets", v.subnets.len());
        return mistaken(key("subnets"), what, format!("use {MAX_SUBNETS} at most"));
    }
    for (n, SubnetConfig { prefix, gateway }) in v.subnets.iter().enumerate() {
        let key = |k: &str| format!("vn[{i}].subnets[{n}].{k}");
        if prefix.is_host() {
            let what = format!("{prefix} has no room for a VM beside the gateway");
            return mistaken(key("prefix"), what, "use a shorter prefix, ADDRESS/LENGTH");
        }
        if let Some(why) = unrouted(prefix, false) {
            let what = format!("nothing is routed to a part of {prefix}: {why}");
            return mistaken(key("prefix"), what, "use a prefix of unicast addresses");
        }
        if let Some(why) = bad_gateway(prefix, *gateway) {
            let what = format!("{gateway} {why} of {prefix}").replace("outside of", "outside");
            return mistaken(key("gateway"), what, "name an address of a host in the subnet");
        }
    }
    Ok(())
}

/// Consecutive addresses of one VM, or of a row of them.
struct Addresses {
    first: IpAddr,
    last: IpAddr,
    key: String,
}

/// Consecutive MACs of VMs of a VN, by VN and first MAC: the last MAC, and the key.
type Macs = BTreeMap<(Vni, u64), (u64, String)>;

/// A domain with all that is in it.
struct Domain<'a> {
    c: &'a Config,
    at: usize,
    vns: BTreeMap<Vni, (usize, &'a VnConfig)>,
    addresses: Vec<Addresses>,
    macs: Macs,
}

impl<'a> Domain<'a> {
    fn new(c: &'a Config, at: usize) -> Domain<'a> {
        let name = &c.domains[at].name;
        let vns = c.vns.iter().enumerate().filter(|(_, v)| v.domain.as_ref() == Some(name));
        let vns: BTreeMap<Vni, (usize, &VnConfig)> = vns.map(|(i, v)| (v.vni, (i, v))).collect();
        let mut domain = Domain { c, at, vns, addresses: Vec::new(), macs: Macs::new() };
        for (i, p) in c.ports.iter().enumerate() {
            domain.add(p.vni, p.mac, &p.ips, 1, &format!("port[{i}]"));
        }
        for (i, v) in c.vms.iter().enumerate() {
            domain.add(v.vni, v.mac, &v.ips, v.count, &format!("vm[{i}]"));
        }
        domain
    }

    /// VMs of the domain; of other VNs they are left out.
    fn add(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], count: u32, key: &str) {
        if !self.vns.contains_key(&vni) {
            return;
        }
        let first = mac.to_u64();
        let last = first + u64::from(count) - 1;
        let known = self.macs.entry((vni, first)).or_insert((last, key.to_owned()));
        known.0 = known.0.max(last);
        self.addresses.extend(ips.iter().filter(|ip| !is_link_local(**ip)).map(|&first| Addresses {
            first,
            last: last_of_row(first, count).unwrap_or(first),
            key: format!("{key}.ips"),
        }));
    }

    fn check(mut self) -> Result<(), Mistake> {
        self.subnets()?;
        self.gateways_mac()?;
        self.routes()?;
        self.vms()?;
        self.twice()?;
        self.room()
    }

    fn name(&self) -> &str {
        &self.c.domains[self.at].name
    }

    /// All subnets, with their keys.
    fn all_subnets(&self) -> Vec<(Prefix, IpAddr, String)> {
        let of_vn = |(i, v): &(usize, &'a VnConfig)| {
            let key = |n| format!("vn[{i}].subnets[{n}]");
            v.subnets.iter().enumerate().map(|(n, s)| (s.prefix, s.gateway, key(n))).collect::<Vec<_>>()
        };
        self.vns.values().flat_map(of_vn).collect()
    }

    fn subnets(&self) -> Result<(), Mistake> {
        let mut all = self.all_subnets();
        all.sort_by_key(|(prefix, ..)| *prefix);
        // Of prefixes that overlap one contains the other, and so is the last that begins before it or at it.
        match all.windows(2).find(|pair| pair[0].0.overlaps(&pair[1].0)) {
            Some([(one, _, first), (other, _, second)]) => mistaken(
                format!("{second}.prefix"),
                format!("{other} overlaps {one}, which is {first}, in domain {:?}", self.name()),
                "give each subnet of a domain addresses of its own",
            ),
            _ => Ok(()),
        }
    }

    fn gateways_mac(&self) -> Result<(), Mistake> {
        let mac = self.c.domains[self.at].gateway_mac;
        let has = |first: u64, last: u64| (first..=last).contains(&mac.to_u64());
        match self.macs.iter().find(|((_, first), (last, _))| has(*first, *last)) {
            Some((_, (_, key))) => mistaken(
                format!("{key}.mac"),
                format!("{mac} is the gateway's in domain {:?}", self.name()),
                "give the VM another address, or set gateway_mac",
            ),
            None => Ok(()),
        }
    }

    /// VMs' addresses are of hosts in subnets of their VN, where it has any of the family.
    fn vms(&self) -> Result<(), Mistake> {
        let ports =
            self.c.ports.iter().enumerate().map(|(i, p)| (format!("port[{i}].ips"), p.vni, &p.ips, 1));
        let vms = self.c.vms.iter().enumerate();
        let vms = vms.map(|(i, v)| (format!("vm[{i}].ips"), v.vni, &v.ips, v.count));
        for (key, vni, ips, count) in ports.chain(vms) {
            let Some((_, vn)) = self.vns.get(&vni) else { continue };
            for ip in ips.iter().filter(|ip| !is_link_local(**ip)) {
                vm_address(&key, vn, *ip, last_of_row(*ip, count).unwrap_or(*ip))?;
            }
        }
        Ok(())
    }

    /// No two VMs have one address, and none has a gateway's.
    fn twice(&mut self) -> Result<(), Mistake> {
        for (_, gateway, key) in self.all_subnets() {
            self.addresses.push(Addresses { first: gateway, last: gateway, key: format!("{key}.gateway") });
        }
        self.addresses.sort_by_key(|a| (a.first, a.last));
        match self.addresses.windows(2).find(|pair| pair[1].first <= pair[0].last) {
            Some([one, other]) => mistaken(
                other.key.clone(),
                format!("{} is of {} too, in domain {:?}", other.first, one.key, self.name()),
                "give each VM and each gateway of a domain addresses of its own",
            ),
            _ => Ok(()),
        }
    }

    fn routes(&self) -> Result<(), Mistake> {
        let d = &self.c.domains[self.at];
        if d.route_count() > MAX_ROUTES as u64 {
            let what = format!("{} static routes", d.route_count());
            return mistaken(format!("domain[{}].route", self.at), what, format!("use {MAX_ROUTES} at most"));
        }
        let subnets = self.all_subnets();
        let mut lengths: [BTreeSet<u8>; 2] = Default::default();
        for (p, ..) in &subnets {
            lengths[usize::from(p.is_ipv4())].insert(p.prefix_len());
        }
        if let Some(many) = lengths.iter().find(|l| l.len() > MAX_LENGTHS) {
            let what = format!("the subnets of domain {:?} have {} lengths", self.name(), many.len());
            let remedy = format!("use {MAX_LENGTHS} lengths of a family at most");
            return mistaken(format!("domain[{}]", self.at), what, remedy);
        }
        let mut rows: Vec<(u8, IpAddr, IpAddr, String)> = Vec::new();
        for (j, r) in d.routes.iter().enumerate() {
            let key = |k: &str| format!("domain[{}].route[{j}].{k}", self.at);
            let last = self.route(r, &key, &subnets)?;
            let of_family = &mut lengths[usize::from(r.to.is_ipv4())];
            if !r.to.is_host() {
                of_family.insert(r.to.prefix_len());
            }
            if of_family.len() > MAX_LENGTHS {
                let all: Vec<String> = of_family.iter().map(|len| format!("/{len}")).collect();
                let what =
                    format!("the domain's prefixes have {} lengths with it: {}", all.len(), all.join(", "));
                let remedy =
                    format!("use {MAX_LENGTHS} lengths of a family at most, those of subnets included");
                return mistaken(key("to"), what, remedy);
            }
            rows.push((r.to.prefix_len(), r.to.addr(), last.addr(), key("to")));
        }
        rows.sort();
        match rows.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[1].1 <= pair[0].2) {
            Some([one, other]) => {
                let what = format!("{}/{} is in {} too", other.1, other.0, one.3);
                mistaken(other.3.clone(), what, "give each prefix one next hop")
            }
            _ => Ok(()),
        }
    }

    /// One route or a row of them by itself; the last prefix.
    fn route(
        &self,
        r: &DomainRouteConfig,
        key: &impl Fn(&str) -> String,
        subnets: &[(Prefix, IpAddr, String)],
    ) -> Result<Prefix, Mistake> {
        if r.count == 0 || r.vms == 0 || r.vms > r.count {
            let what = format!("{} prefixes by way of {} VMs", r.count, r.vms);
            return mistaken(key("count"), what, "use 1 or more, and no more VMs than prefixes");
        }
        let Some(last) = r.prefix(r.count - 1) else {
            let what = format!("there are no {} prefixes from {} on", r.count, r.to);
            return mistaken(key("count"), what, "lower it, or begin earlier");
        };
        if let Some(why) = unrouted(&r.to, true).or_else(|| unrouted(&last, true)) {
            let what = format!("nothing is routed to {}: {why}", r.to);
            return mistaken(key("to"), what, "use a prefix of unicast addresses");
        }
        // A shorter one contains subnets, as a default route does: these are looked for first.
        let inside = |s: &Prefix| {
            let length = s.prefix_len() <= r.to.prefix_len() && s.is_ipv4() == r.to.is_ipv4();
            length && s.addr() <= last.addr() && r.to.addr() <= s.last()
        };
        if let Some((subnet, _, of)) = subnets.iter().find(|(s, ..)| inside(s)) {
            let one = (0..r.count).filter_map(|n| r.prefix(n)).find(|p| holds(subnet, p)).unwrap_or(r.to);
            let what = format!("{one} is in subnet {subnet} ({of}), where VMs have routes of their own");
            return mistaken(key("to"), what, "route prefixes outside of the domain's subnets");
        }
        if !self.vns.contains_key(&r.vni) {
            let what = format!("VN {} is not in domain {:?}", r.vni, self.name());
            return mistaken(key("vni"), what, "set domain in the [[vn]] of this VN, or name another VN");
        }
        if let Some(mac) = self.unknown_vm(r.vni, r.via.to_u64(), r.vms) {
            let what = format!("there is no VM {mac} in VN {}", r.vni);
            return mistaken(key("via"), what, "name a VM of a [[vm]] or [[port]] in that VN");
        }
        Ok(last)
    }

    /// The first of so many VMs that the file does not have.
    fn unknown_vm(&self, vni: Vni, first: u64, count: u32) -> Option<Mac> {
        let (mut at, end) = (first, first + u64::from(count));
        while at < end {
            let row = self.macs.range((vni, 0)..=(vni, at)).next_back();
            let Some((_, (last, _))) = row.filter(|(_, (last, _))| at <= *last) else {
                return Some(Mac::from_u64(at));
            };
            at = last + 1;
        }
        None
    }

    /// All of it finds room in the workers' tables.
    fn room(&self) -> Result<(), Mistake> {
        let subnets = self.all_subnets().len() as u64;
        let addresses: u64 = self.addresses.iter().map(|a| row_len(a.first, a.last)).sum();
        let routes = addresses + subnets + self.c.domains[self.at].route_count();
        let n = &self.c.nve;
        let tables = [("addresses", addresses, n.addresses), ("routes", routes, n.routes)];
        match tables.into_iter().find(|(_, needed, room)| *needed > *room as u64) {
            Some((key, needed, _)) => mistaken(
                format!("nve.{key}"),
                format!("domain {:?} alone has {needed} {key}", self.name()),
                format!("set it to {needed} or more"),
            ),
            None => Ok(()),
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// Addresses from `first` to `last`.
fn row_len(first: IpAddr, last: IpAddr) -> u64 {
    match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u64::from(b.to_bits() - a.to_bits()) + 1,
        (IpAddr::V6(a), IpAddr::V6(b)) => (b.to_bits() - a.to_bits()) as u64 + 1,
        _ => 1,
    }
}

fn vm_address(key: &str, vn: &VnConfig, first: IpAddr, last: IpAddr) -> Result<(), Mistake> {
    let alike: Vec<Prefix> =
        vn.subnets.iter().map(|s| s.prefix).filter(|p| p.is_ipv4() == first.is_ipv4()).collect();
    let Some(subnet) = alike.iter().find(|p| p.contains(first)) else {
        let known: Vec<String> = alike.iter().map(Prefix::to_string).collect();
        return match known.is_empty() {
            true => Ok(()),
            false => mistaken(
                key.into(),
                format!("{first} is in no subnet of VN {}: {}", vn.vni, known.join(", ")),
                "use an address of a subnet, or add its subnet",
            ),
        };
    };
    if !subnet.contains(last) {
        let what = format!("the last address, {last}, is outside {subnet}, where the first, {first}, is");
        return mistaken(key.into(), what, "lower count, or widen the subnet");
    }
    if let Some(ip) = [first, last].into_iter().find(|ip| is_edge(subnet, *ip)) {
        let what = format!("{ip} is the network or the broadcast address of {subnet}");
        return mistaken(key.into(), what, "use an address of a host");
    }
    Ok(())
}
