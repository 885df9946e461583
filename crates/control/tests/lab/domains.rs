//! Routing domains in the lab.

use std::net::IpAddr;

use godwit_control::{Input, PortSpec, WorkerSet};
use godwit_model::message::{Change, NvaToNve};
use godwit_model::{Domain, DomainId, GATEWAY_MAC, StaticRoute, Subnet, VmKey, VnRouting, VnSettings};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{DomainIdx, Key, NextHop, PortIdx, VnIdx};
use godwit_wire::{Prefix, Vni};

use super::nva::{MiniNva, Said};
use super::{Host, Lab, VNI, mac};

pub const DOMAIN: DomainId = DomainId(7);

/// The VNs of the lab: `vni()` is number 0.
pub fn vn(n: u32) -> Vni {
    Vni::new(VNI + n).unwrap()
}

/// VM `n` of VN `of`.
pub fn vm_of(of: u32, n: u8) -> VmKey {
    VmKey { vni: vn(of), mac: mac(n) }
}

/// Its address, and that of the gateway as VM 254.
pub fn ip_of(of: u32, n: u8) -> IpAddr {
    IpAddr::from([10, 1, u8::try_from(of).unwrap(), n])
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub fn subnet(of: u32) -> Subnet {
    let gateway = ip_of(of, 254);
    Subnet { prefix: Prefix::of(gateway, 24), gateway, advertise: None, dhcp: None }
}

pub fn part(of: u32) -> VnRouting {
    VnRouting { domain: DOMAIN, routed_only: false, subnets: vec![subnet(of)] }
}

impl MiniNva {
    pub fn settings_of(&self, vni: Vni) -> VnSettings {
        VnSettings { routing: self.routing.get(&vni).cloned(), ..self.settings.clone() }
    }

    /// The domains of a VN, if the NVE was not told of them yet.
    pub fn tell_domains(&mut self, i: usize, vni: Vni) -> Said {
        let of_vn = self.domains.values().filter(|(d, _)| d.vns.contains(&vni));
        let new: Vec<_> = of_vn.filter(|(d, _)| !self.told.contains(&(i, d.id))).cloned().collect();
        let mut said = Vec::new();
        for (domain, routes) in new {
            self.told.insert((i, domain.id));
            let id = domain.id;
            said.push((i, NvaToNve::Domain { domain, reset: true }));
            said.push((i, NvaToNve::DomainRoutes { id, routes, gone: Vec::new() }));
        }
        said
    }

    /// Domains that join no VN of the NVE's any more.
    pub fn no_part_left(&mut self, i: usize) -> Said {
        let subscribed = &self.subscribed[i];
        let joins = |id: &DomainId| self.domains[id].0.vns.iter().any(|v| subscribed.contains(v));
        let of_nve = self.told.iter().filter(|(j, _)| *j == i).map(|(_, id)| *id);
        let left: Vec<DomainId> = of_nve.filter(|id| !joins(id)).collect();
        self.told.retain(|(j, id)| *j != i || !left.contains(id));
        left.into_iter().map(|id| (i, NvaToNve::DomainGone { id })).collect()
    }

    /// A domain of the VNs, each with its subnet.
    pub fn set_domain(&mut self, id: DomainId, vns: &[u32]) -> Said {
        let domain = Domain {
            id,
            name: format!("d{}", id.0),
            gateway_mac: GATEWAY_MAC,
            vns: vns.iter().map(|n| vn(*n)).collect(),
        };
        let routes = self.domains.get(&id).map(|(_, routes)| routes.clone()).unwrap_or_default();
        self.domains.insert(id, (domain.clone(), routes));
        self.routing.retain(|_, r| r.domain != id);
        self.routing.extend(vns.iter().map(|n| (vn(*n), VnRouting { domain: id, ..part(*n) })));
        let told = self.told.iter().filter(|(_, d)| *d == id);
        let news = NvaToNve::Domain { domain, reset: false };
        let mut said: Said = told.map(|(i, _)| (*i, news.clone())).collect();
        said.extend(self.say_settings());
        said
    }

    pub fn remove_domain(&mut self, id: DomainId) -> Said {
        self.domains.remove(&id);
        self.routing.retain(|_, r| r.domain != id);
        let mut said = self.say_settings();
        said.extend(
            self.told.iter().filter(|(_, d)| *d == id).map(|(i, _)| (*i, NvaToNve::DomainGone { id })),
        );
        self.told.retain(|(_, d)| *d != id);
        said
    }

    /// All VNs' settings to all who subscribed to them.
    pub fn say_settings(&mut self) -> Said {
        let all: Vec<(usize, Vni)> = self
            .subscribed
            .iter()
            .enumerate()
            .flat_map(|(i, vnis)| vnis.iter().map(move |v| (i, *v)))
            .collect();
        all.into_iter().flat_map(|(i, vni)| self.subscribe(i, vni)).collect()
    }

    pub fn set_route(&mut self, id: DomainId, prefix: Prefix, via: Option<VmKey>) -> Said {
        let (_, routes) = self.domains.get_mut(&id).unwrap();
        routes.retain(|r| r.prefix != prefix);
        let new: Vec<StaticRoute> = via.map(|via| StaticRoute { prefix, via }).into_iter().collect();
        routes.extend(&new);
        let gone = if via.is_none() { vec![prefix] } else { Vec::new() };
        let news = NvaToNve::DomainRoutes { id, routes: new, gone };
        self.told.iter().filter(|(_, d)| *d == id).map(|(i, _)| (*i, news.clone())).collect()
    }
}

impl Lab {
    pub fn deliver(&mut self, said: Said) {
        for (to, message) in said {
            if self.hosts[to].connected {
                self.hosts[to].inbox.push_back(message);
            }
        }
        self.settle();
    }

    /// A VN in no domain becomes one of a domain with these.
    pub fn join(&mut self, vns: &[u32]) {
        let said = self.nva.set_domain(DOMAIN, vns);
        self.deliver(said);
    }

    pub fn add_port_of(&mut self, i: usize, of: u32, n: u8) {
        let spec = PortSpec::Access { vni: vn(of), mac: mac(n), explicit_activation: false };
        let port = PortIdx(u16::from(n));
        self.input(i, Input::PortAdded { port, name: format!("vm{n}"), spec, workers: WorkerSet::first(1) });
        self.settle();
    }

    pub fn announce_of(&mut self, i: usize, of: u32, n: u8) {
        let (port, kind) = (PortIdx(u16::from(n)), AnnounceKind::GratuitousArp);
        self.event(i, Event::Announce { port, kind, mac: mac(n), ip: Some(ip_of(of, n)) });
        self.settle();
    }

    /// VM `n` of VN `of` runs at NVE `i`.
    pub fn run_vm_of(&mut self, i: usize, of: u32, n: u8) {
        self.nva.define(vm_of(of, n), ip_of(of, n));
        let known = Change::Vm(self.nva.records[&vm_of(of, n)].clone());
        let said = self.nva.news(vn(of), &known, None);
        self.deliver(said);
        self.add_port_of(i, of, n);
        self.announce_of(i, of, n);
    }

    pub fn remove_port(&mut self, i: usize, n: u8) {
        self.input(i, Input::PortRemoved { port: PortIdx(u16::from(n)) });
        self.settle();
    }
}

impl Host {
    /// The worker's number of a VN.
    pub fn vn(&self, of: u32) -> Option<VnIdx> {
        self.tables.vns.iter().find(|(_, (vni, _))| *vni == vn(of).get()).map(|(vn, _)| *vn)
    }

    pub fn key(&self, of: u32, n: u8) -> Key {
        Key::new(self.vn(of).unwrap(), mac(n))
    }

    /// Where its worker sends packets of the first domain for `ip`, as a lookup finds it.
    pub fn route(&self, ip: IpAddr) -> Option<NextHop> {
        self.route_in(*self.tables.domains.keys().next()?, ip)
    }

    pub fn route_in(&self, domain: DomainIdx, ip: IpAddr) -> Option<NextHop> {
        let exact = self.tables.routes.get(&(domain, Prefix::host(ip)));
        let (v4, v6) = self.tables.domains[&domain];
        let lengths = if ip.is_ipv4() { v4 } else { v6 };
        let by_length = |len: &u8| self.tables.routes.get(&(domain, Prefix::of(ip, *len)));
        exact.or_else(|| lengths.iter().filter(|len| **len <= 128).find_map(by_length)).copied()
    }

    /// Nothing of routing is left.
    pub fn routes_nothing(&self) -> bool {
        let t = &self.tables;
        t.domains.is_empty() && t.routes.is_empty() && t.routing.is_empty() && t.subnets.is_empty()
    }
}
