//! What cannot be true of a configuration, found before traffic.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Config, ConfigError, DirectoryKind, UplinkConfig, VmConfig, domains, nva, routes, uplink};
use crate::{cores, placement};

/// The smallest tenant MTU that is worth starting for: every IPv6 link carries 1,280 bytes (RFC 8200).
const MIN_TENANT_MTU: u16 = 1280;
/// Outer IPv4, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD_V4: u16 = 50;
/// Outer IPv6, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD_V6: u16 = 70;

/// A forward entry must outlive what others may still believe: an answer's life and the windows in
/// which queries and updates are repeated (R43). Whole seconds, as the key has them.
const FWD_TIMER_MIN_S: u64 = godwit_model::timing::min_fwd_timer_ms().div_ceil(1000);

pub(super) struct Checker<'a> {
    origin: &'a str,
}

/// # Errors
/// The first mistake found.
pub fn check(c: &Config, origin: &str, online: &[usize]) -> Result<(), ConfigError> {
    let k = Checker { origin };
    k.names(c)?;
    k.cores(c, online)?;
    k.limits(c)?;
    k.uplinks(c)?;
    if let Some((key, what, remedy)) = routes::mistake(c) {
        return k.bad(key, what, &remedy);
    }
    k.devices(c)?;
    k.attachments(c)?;
    k.pins(c)?;
    k.vns(c)?;
    k.static_vms(c)?;
    match domains::mistake(c) {
        Some((key, what, remedy)) => k.bad(key, what, &remedy),
        None => Ok(()),
    }
}

/// Largest tenant IP packet that an uplink carries, by the families of its locators, in bytes (R8).
pub fn tenant_mtu(c: &Config, u: &UplinkConfig) -> u16 {
    let over_v6 = if c.underlay.has_locator() { c.underlay.locator6.is_some() } else { u.ipv6.is_some() };
    let overhead = if over_v6 { OVERHEAD_V6 } else { OVERHEAD_V4 };
    u.mtu.saturating_sub(overhead)
}

impl Checker<'_> {
    pub(super) fn bad<T>(
        &self,
        key: impl Into<String>,
        what: impl Into<String>,
        remedy: &str,
    ) -> Result<T, ConfigError> {
        Err(ConfigError::Invalid {
            origin: self.origin.into(),
            key: key.into(),
            what: what.into(),
            remedy: remedy.into(),
        })
    }

    fn names(&self, c: &Config) -> Result<(), ConfigError> {
        if let Err(e) = godwit_model::check_name("NVE", &c.nve.id) {
            return self.bad("nve.id", e.to_string(), "set nve.id or --id");
        }
        let mut seen: BTreeMap<&str, String> = BTreeMap::new();
        let uplinks = c.uplinks.iter().enumerate().map(|(i, u)| (&u.name, format!("uplink[{i}].name")));
        let ports = c.ports.iter().enumerate().map(|(i, p)| (&p.name, format!("port[{i}].name")));
        for (name, key) in uplinks.chain(ports) {
            if let Err(e) = godwit_model::check_name("port", name) {
                return self.bad(key, e.to_string(), "rename it");
            }
            if let Some(other) = seen.insert(name, key.clone()) {
                return self.bad(
                    key,
                    format!("{name:?} is also {other}"),
                    "give each port a name of its own",
                );
            }
        }
        Ok(())
    }

    fn cores(&self, c: &Config, online: &[usize]) -> Result<(), ConfigError> {
        if c.nve.workers.is_empty() {
            return self.bad(
                "nve.workers",
                "no worker cores are given",
                "set nve.workers or --workers, 0x2 say",
            );
        }
        let workers = match cores::parse(&c.nve.workers) {
            Ok(w) => w,
            Err(e) => return self.bad("nve.workers", e.to_string(), "name cores that are there"),
        };
        if workers.len() > 64 {
            return self.bad("nve.workers", format!("{} workers", workers.len()), "use at most 64");
        }
        let there = || format!("this machine has cores {online:?}");
        if let Some(core) = workers.iter().find(|w| !online.contains(w)) {
            let what = format!("{} names core {core}, which is absent: {}", c.nve.workers, there());
            return self.bad("nve.workers", what, "leave absent cores out of the mask");
        }
        if let Some(core) = c.nve.postcopy_core {
            if !workers.contains(&core) {
                let what = format!("core {core} has no worker; the workers' cores are {workers:?}");
                return self.bad("nve.postcopy_core", what, "name one of them");
            }
            if workers.len() < 2 {
                let what = "the only worker cannot be kept for post-copy ports";
                return self.bad("nve.postcopy_core", what, "give nve.workers a second core");
            }
        }
        match c.nve.control_core {
            Some(core) if !online.contains(&core) => {
                let what = format!("core {core} is absent: {}", there());
                self.bad("nve.control_core", what, "name a core that is there")
            }
            _ => Ok(()),
        }
    }

    fn limits(&self, c: &Config) -> Result<(), ConfigError> {
        let n = &c.nve;
        let ranges: [(&str, u64, u64, u64); 23] = [
            ("nve.fwd_timer_s", n.fwd_timer_s, FWD_TIMER_MIN_S, 3600),
            ("nve.marker_wait_ms", n.marker_wait_ms, 0, 200),
            ("nve.redirect_ms", n.redirect_ms, 10, 10_000),
            ("nve.headless_s", n.headless_s, 0, 86_400),
            ("nve.address_check_s", n.address_check_s, 10, 86_400),
            ("nve.scan_rate", n.scan_rate.into(), 0, 10_000),
            ("nve.scan_tries", n.scan_tries.into(), 1, 10),
            ("nve.vm_capacity", n.vm_capacity.into(), 1, 1023),
            ("nve.resolution_rate", n.resolution_rate.into(), 0, 1_000_000),
            ("nve.resolution_burst", n.resolution_burst.into(), 1, 1_000_000),
            ("nve.question_rate", n.question_rate.into(), 0, 1_000_000),
            ("nve.question_burst", n.question_burst.into(), 1, 1_000_000),
            ("nve.query_rate", n.query_rate.into(), 0, 1_000_000),
            ("nve.claim_rate", n.claim_rate.into(), 0, 1_000_000),
            ("nve.miss_hold_packets", n.miss_hold_packets.into(), 1, 256),
            ("nve.handover_hold_packets", n.handover_hold_packets.unwrap_or(0).into(), 0, 10_000_000),
            ("nve.handover_hold_ms", n.handover_hold_ms, 0, 10_000),
            ("nve.hold_memory_mb", n.hold_memory_mb as u64, 1, 16_384),
            ("nve.idle_poll_us", n.idle_poll_us, 0, 10_000),
            ("nve.memory_mb", n.memory_mb as u64, 32, 1 << 20),
            ("nve.locations", n.locations as u64, 16, 1 << 26),
            ("nve.addresses", n.addresses as u64, 16, 1 << 26),
            ("nve.routes", n.routes as u64, 16, 1 << 22),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return self.bad(key, format!("{value} is out of range"), &format!("use {low} to {high}"));
            }
        }
        if n.idle_sleep_us > 10_000 {
            let what = format!("{} µs would delay every packet that long", n.idle_sleep_us);
            return self.bad("nve.idle_sleep_us", what, "use 0 to 10000");
        }
        if n.vxlan_port == 0 {
            return self.bad("nve.vxlan_port", "0 is no UDP port", "use 4789");
        }
        if n.vxlan_port == godwit_wire::peer::PORT {
            let what = format!("{} is the port of datagrams between NVEs", n.vxlan_port);
            return self.bad("nve.vxlan_port", what, "use 4789");
        }
        if let Some((key, what, remedy)) = nva::mistake(n) {
            return self.bad(key, what, &remedy);
        }
        Ok(())
    }

    fn uplinks(&self, c: &Config) -> Result<(), ConfigError> {
        if c.uplinks.is_empty() {
            return self.bad("uplink", "there is none", "add an [[uplink]] with devargs and a locator");
        }
        let mut locators: BTreeMap<IpAddr, String> = BTreeMap::new();
        for (i, u) in c.uplinks.iter().enumerate() {
            let key = |k: &str| format!("uplink[{i}].{k}");
            if u.ipv4.is_none() && u.ipv6.is_none() && !c.underlay.has_locator() {
                return self.bad(
                    key("ipv4"),
                    "the uplink carries no locator",
                    "set ipv4 or ipv6 or both, or underlay.locator4",
                );
            }
            if let Some((k, what, remedy)) = uplink::mistake(u) {
                return self.bad(key(k), what, remedy);
            }
            for net in u.nets() {
                let ip = net.addr();
                self.locator(&key(family_key(ip)), net)?;
                if let Some(other) = overlapping(&locators, c, i, net) {
                    let what = format!("locator {net} overlaps that of {other}");
                    return self.bad(key(family_key(ip)), what, "give each uplink a prefix of its own");
                }
                locators.insert(ip, key(family_key(ip)));
            }
            self.gateway(&key("gateway4"), u.gateway4.map(IpAddr::V4), u.ipv4.map(IpNet::V4))?;
            self.gateway(&key("gateway6"), u.gateway6.map(IpAddr::V6), u.ipv6.map(IpNet::V6))?;
            let tenant = tenant_mtu(c, u);
            if tenant < MIN_TENANT_MTU || u.mtu > 9600 {
                let what = format!("{} leaves {tenant} bytes for tenants' packets", u.mtu);
                let remedy = format!("use {} to 9600", MIN_TENANT_MTU + u.mtu - tenant);
                return self.bad(key("mtu"), what, &remedy);
            }
            self.queues(&key("rx_queues"), u.rx_queues)?;
        }
        Ok(())
    }

    fn locator(&self, key: &str, net: IpNet) -> Result<(), ConfigError> {
        let ip = net.addr();
        let network = net.prefix_len() + 1 < net.max_prefix_len() && ip == net.network();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || network {
            return self.bad(key, format!("{net} is no address of a host"), "use the uplink's own address");
        }
        Ok(())
    }

    fn gateway(&self, key: &str, gw: Option<IpAddr>, own: Option<IpNet>) -> Result<(), ConfigError> {
        let Some(gw) = gw else { return Ok(()) };
        let link_local = matches!(gw, IpAddr::V6(a) if a.is_unicast_link_local());
        match own {
            None => self.bad(key, format!("{gw} has no locator of its family"), "set the locator or drop it"),
            Some(net) if net.addr() == gw => {
                self.bad(key, format!("{gw} is the locator itself"), "name the router")
            }
            Some(net) if !link_local && !net.contains(&gw) => {
                self.bad(key, format!("{gw} is not in {net}"), "name a router on the link")
            }
            Some(_) => Ok(()),
        }
    }

    fn queues(&self, key: &str, n: u16) -> Result<(), ConfigError> {
        if (1..=64).contains(&n) { Ok(()) } else { self.bad(key, format!("{n} queues"), "use 1 to 64") }
    }

    fn attachments(&self, c: &Config) -> Result<(), ConfigError> {
        let room = c.uplinks.iter().map(|u| tenant_mtu(c, u)).min().unwrap_or(u16::MAX);
        let mut seen = BTreeMap::new();
        for (i, p) in c.ports.iter().enumerate() {
            let key = |k: &str| format!("port[{i}].{k}");
            if !p.mac.is_unicast() {
                return self.bad(
                    key("mac"),
                    format!("{} is no VM's address", p.mac),
                    "use a unicast address",
                );
            }
            if let Some(other) = seen.insert((p.vni, p.mac), &p.name) {
                let what = format!("{} in VNI {} is on port {other:?} too", p.mac, p.vni);
                return self.bad(key("mac"), what, "give each VM an address of its own");
            }
            if p.postcopy && c.nve.postcopy_core.is_none() {
                let what = "no worker is kept for ports whose memory may be missing";
                return self.bad(key("postcopy"), what, "set nve.postcopy_core to a worker's core");
            }
            if p.mtu > room {
                let what =
                    format!("{} does not fit: the uplinks carry tenant packets of {room} bytes", p.mtu);
                return self.bad(key("mtu"), what, "lower it, or raise the uplinks' mtu");
            }
            self.queues(&key("rx_queues"), p.rx_queues)?;
        }
        Ok(())
    }

    /// A VM is at a locator or behind a port, and the port's VN is its own.
    fn place_of(&self, c: &Config, v: &VmConfig, i: usize) -> Result<(), ConfigError> {
        let port = match (&v.locator, &v.port) {
            (Some(_), None) => return Ok(()),
            (None, Some(port)) => port,
            _ => {
                let what = "a VM is in one place";
                return self.bad(format!("vm[{i}]"), what, "give it a locator or a port");
            }
        };
        let key = format!("vm[{i}].port");
        match c.ports.iter().find(|p| p.name == *port) {
            None => self.bad(key, format!("there is no port {port:?}"), "name one of the ports"),
            Some(p) if p.vni != v.vni => {
                let what = format!("port {port:?} is in VN {}, the VM in {}", p.vni, v.vni);
                self.bad(key, what, "use the port's VNI")
            }
            Some(_) => Ok(()),
        }
    }

    /// Pins name queues and workers that there will be. A device may still turn out to have fewer queues.
    fn pins(&self, c: &Config) -> Result<(), ConfigError> {
        let exceptions: Vec<String> = c
            .uplinks
            .iter()
            .filter(|u| u.exception.is_some())
            .map(|u| format!("{}.exception", u.name))
            .collect();
        let uplinks = c.uplinks.iter().map(|u| (u.name.as_str(), u.rx_queues));
        let ports = c.ports.iter().map(|p| (p.name.as_str(), p.rx_queues));
        let ports: Vec<_> = uplinks.chain(ports).chain(exceptions.iter().map(|e| (e.as_str(), 1))).collect();
        let ordinary = |name: &str| !c.ports.iter().any(|p| p.postcopy && p.name == name);
        let reserved = |p: &&placement::Pin| Some(p.core) == c.nve.postcopy_core && ordinary(&p.port);
        if let Some((i, pin)) = c.nve.rxq_affinity.iter().enumerate().find(|(_, p)| reserved(p)) {
            let what = format!("{pin}: core {} is kept for post-copy ports (nve.postcopy_core)", pin.core);
            return self.bad(format!("nve.rxq_affinity[{i}]"), what, "pin it to another worker's core");
        }
        let cores = cores::parse(&c.nve.workers).unwrap_or_default();
        placement::check(&c.nve.rxq_affinity, &ports, &cores).or_else(|(i, refusal)| {
            let remedy = "mend nve.rxq_affinity or --rxq-affinity; `godwitctl placement set` moves queues of \
                ports that are added later";
            self.bad(format!("nve.rxq_affinity[{i}]"), refusal.to_string(), remedy)
        })
    }

    fn vns(&self, c: &Config) -> Result<(), ConfigError> {
        if c.nve.move_modes.is_empty() {
            let what = "a switch without any move cannot lose a VM to another";
            return self.bad("nve.move_modes", what, "name hot, warm or cold, or leave it out");
        }
        for (i, v) in c.vns.iter().enumerate() {
            if c.vns[..i].iter().any(|earlier| earlier.vni == v.vni) {
                let what = format!("VN {} has a table already", v.vni);
                return self.bad(format!("vn[{i}].vni"), what, "keep one of them");
            }
            if v.directory == DirectoryKind::Pull && c.nve.nva.is_empty() {
                let what = "there is no NVA to pull from";
                return self.bad(format!("vn[{i}].directory"), what, "set nve.nva, or leave directory out");
            }
        }
        Ok(())
    }

    fn static_vms(&self, c: &Config) -> Result<(), ConfigError> {
        for (i, v) in c.vms.iter().enumerate() {
            if !v.mac.is_unicast() {
                return self.bad(
                    format!("vm[{i}].mac"),
                    format!("{} is no VM's address", v.mac),
                    "use a unicast address",
                );
            }
            if let Some(ip) = v.ips.iter().find(|ip| last_of_row(**ip, v.count).is_none()) {
                let what = format!("there are no {} addresses from {ip} on", v.count);
                return self.bad(format!("vm[{i}].ips"), what, "lower count, or begin earlier");
            }
            self.place_of(c, v, i)?;
            if v.nves == 0 || v.count == 0 {
                return self.bad(format!("vm[{i}].count"), "a row needs a VM and an NVE", "use 1 or more");
            }
        }
        for (i, n) in c.neighbors.iter().enumerate() {
            if !c.uplinks.iter().any(|u| u.name == n.uplink) {
                let what = format!("there is no uplink {:?}", n.uplink);
                return self.bad(format!("neighbor[{i}].uplink"), what, "name one of the uplinks");
            }
        }
        Ok(())
    }
}

/// The last of so many consecutive addresses, if there are as many.
pub(super) fn last_of_row(ip: IpAddr, count: u32) -> Option<IpAddr> {
    let more = count.saturating_sub(1);
    Some(match ip {
        IpAddr::V4(a) => IpAddr::V4(a.to_bits().checked_add(more)?.into()),
        IpAddr::V6(a) => IpAddr::V6(a.to_bits().checked_add(more.into())?.into()),
    })
}

fn family_key(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Name of the earlier locator key whose prefix meets `net`.
fn overlapping(seen: &BTreeMap<IpAddr, String>, c: &Config, before: usize, net: IpNet) -> Option<String> {
    c.uplinks[..before].iter().find_map(|u| {
        let hit = u.nets().find(|other| other.contains(&net.network()) || net.contains(&other.network()))?;
        seen.get(&hit.addr()).cloned()
    })
}
