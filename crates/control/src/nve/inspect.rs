//! What an operator sees.

use std::collections::BTreeSet;
use std::net::IpAddr;

use godwit_model::{Domain, NveId, Version, VmKey, VmRecord};
use godwit_tables::update::{Key, NextHop, PortIdx, SourceRule, VmState};
use godwit_wire::{Instant, Prefix, Vni};

use crate::desired::tunnel_of;
use crate::queries::Asked;
use crate::view::{
    BindingsView, DomainRouteView, DomainRoutesView, DomainView, EntryState, EntryView, NeighborView,
    NvaView, PortState, PortView,
};

use super::{Nve, PortKind};

impl Nve {
    /// What is known of VMs, by VN and MAC; of one VN or of all.
    pub fn entries(&self, now: Instant, vni: Option<Vni>) -> Vec<EntryView> {
        let mut keys: BTreeSet<VmKey> = self.vms.keys().copied().collect();
        for v in self.mirror.vns() {
            keys.extend(self.mirror.records(v).map(|r| r.key));
            keys.extend(self.mirror.absents(v).into_iter().map(|(mac, _)| VmKey { vni: v, mac }));
        }
        keys.extend(self.queries.waiting().filter_map(|asked| match asked {
            Asked::Mac(vni, mac) => Some(VmKey { vni, mac }),
            Asked::Ip(..) => None,
        }));
        keys.into_iter()
            .filter(|k| vni.is_none_or(|v| k.vni == v))
            .filter_map(|k| self.entry(now, k))
            .collect()
    }

    /// What is known of one VM.
    pub fn entry(&self, now: Instant, key: VmKey) -> Option<EntryView> {
        let record = self.mirror.record(key);
        let vm = self.vms.get(&key);
        let table = self.desired.vn(key.vni).and_then(|vn| self.desired.vm(Key::new(vn, key.mac)));
        let querying = self.queries.is_waiting(Asked::Mac(key.vni, key.mac));
        if record.is_none() && vm.is_none() && table.is_none() && !querying {
            return None;
        }
        let state = match table {
            Some(VmState::Remote { .. } | VmState::Ageing { .. }) => EntryState::Remote,
            Some(VmState::Local { .. } | VmState::Arrived { .. }) => EntryState::Local,
            Some(VmState::Expected { .. }) => EntryState::Expected,
            Some(VmState::Paused { .. }) => EntryState::Paused,
            Some(VmState::Blocked) => EntryState::Blocked,
            Some(VmState::Departed { .. }) => EntryState::Departed,
            None if querying => EntryState::Querying,
            Some(VmState::Detached { .. }) => EntryState::Detached,
            Some(VmState::Absent { .. }) | None => EntryState::Absent,
        };
        let locator = table.and_then(tunnel_of).and_then(|t| self.desired.remote(t));
        let until = match table {
            Some(VmState::Departed { until, .. } | VmState::Absent { until }) => Some(until),
            Some(VmState::Remote { .. } | VmState::Ageing { .. }) => self.life_end(key),
            _ => None,
        };
        Some(EntryView {
            key,
            name: record.map(|r| r.name.clone()).unwrap_or_default(),
            state,
            nve: self.where_is(key, state),
            locator,
            hops: locator.map(|l| self.hops_to(l)).unwrap_or_default(),
            version: record.map_or(Version::ZERO, |r| r.version),
            expires: until.filter(|t| *t != Instant::NEVER).map(|t| t.since(now)),
            suspect: self.unconfirmed.is_suspect(key),
            unconfirmed: state == EntryState::Remote
                && self
                    .unconfirmed
                    .hearsay(key)
                    .is_some_and(|h| record.is_none_or(|r| h.version > r.version)),
            ips: record.into_iter().flat_map(VmRecord::addresses).map(|(ip, _)| ip).collect(),
            handover: vm.map(|v| v.handover.counts()).unwrap_or_default(),
        })
    }

    /// The version of what the directory said of a VM, zero for nothing.
    pub fn version(&self, key: VmKey) -> Version {
        self.mirror.record(key).map_or(Version::ZERO, |r| r.version)
    }

    /// A planned move of the VM is known here, and neither its end nor its call-off was heard of.
    pub fn expects_move(&self, key: VmKey) -> bool {
        self.vms.get(&key).is_some_and(|vm| vm.intent.is_some())
    }

    fn where_is(&self, key: VmKey, state: EntryState) -> Option<NveId> {
        match state {
            EntryState::Local | EntryState::Paused | EntryState::Blocked => Some(self.config.nve.clone()),
            EntryState::Departed => self.vms.get(&key)?.forward.as_ref().map(|f| f.to.nve.clone()),
            _ => self.mirror.record(key)?.active_nve().cloned(),
        }
    }

    /// All ports by number.
    pub fn ports(&self) -> Vec<PortView> {
        let view = |(&port, p): (&_, &super::Port)| {
            let key = if let PortKind::Access(key) = p.kind { Some(key) } else { None };
            let vm = key.and_then(|k| self.vms.get(&k));
            let role = match p.kind {
                PortKind::Access(_) => "access",
                PortKind::Uplink => "uplink",
                PortKind::Exception => "exception",
            };
            let by_link = if p.link_up { PortState::Up } else { PortState::Down };
            let by_vm = || vm.map_or(PortState::Init, |vm| vm.port_state(port));
            let record = key.and_then(|k| self.mirror.record(k));
            PortView {
                port,
                name: p.name.clone(),
                role,
                key,
                vm: record.map(|r| r.name.clone()).unwrap_or_default(),
                state: if key.is_some() { by_vm() } else { by_link },
                link_up: p.link_up,
                oper: vm.and_then(|vm| vm.ports.get(&port)).and_then(|p| p.oper),
                bindings: key.map(|key| self.bindings_view(port, key)),
            }
        };
        self.ports.iter().map(view).collect()
    }

    fn bindings_view(&self, port: PortIdx, key: VmKey) -> BindingsView {
        let record = self.mirror.record(key);
        let bound = record.map(|r| r.bound.clone()).unwrap_or_default();
        let mut recorded: Vec<IpAddr> = self.mirror.addresses(key).into_iter().collect();
        recorded.retain(|ip| bound.at(*ip).is_none());
        let rules = self.desired.bindings(port).map(|b| [b.rules.v4, b.rules.v6, b.rules.link_local]);
        let room = rules.unwrap_or([SourceRule::Any; 3]).map(|rule| match rule {
            SourceRule::Any => None,
            SourceRule::Listed { room } => Some(room),
            SourceRule::Full => Some(0),
        });
        BindingsView {
            recorded,
            bound: bound.ips,
            macs: bound.macs,
            allowed: record.map(|r| r.allowed.clone()).unwrap_or_default(),
            router: self.mirror.is_defined_router(key),
            room,
            refused: self.refusals.of(port),
        }
    }

    /// The underlay's neighbors by uplink and address.
    pub fn neighbors(&self) -> Vec<NeighborView> {
        let view = |(uplink, ip, n): (_, _, &crate::underlay::Neighbor)| NeighborView {
            ip,
            mac: n.mac,
            state: n.reach.as_str(),
            uplink,
            uplink_name: self.ports.get(&uplink).map(|p| p.name.clone()).unwrap_or_default(),
        };
        self.underlay.neighbors().map(view).collect()
    }

    /// Routing domains that this NVE has a part in, by number.
    pub fn domains(&self) -> Vec<DomainView> {
        self.own_domains().map(|domain| self.domain_view(domain)).collect()
    }

    fn own_domains(&self) -> impl Iterator<Item = &Domain> {
        self.mirror.domains.all().filter(|d| self.domains.contains(&d.id))
    }

    fn domain_view(&self, domain: &Domain) -> DomainView {
        let (host_routes, prefixes) = self.desired.routes_of(domain.id);
        let routed_to = domain.vns.iter().filter(|vni| self.is_only_routed_to(**vni));
        DomainView {
            name: domain.name.clone(),
            routed_to: routed_to.copied().collect(),
            vns: domain.vns.clone(),
            host_routes,
            prefixes,
        }
    }

    /// The routes of the domains that this NVE has a part in, or of the one of this name; with those of VMs' addresses
    /// and gateways where they are asked for (`hosts`). `most` at most, and whether there are more.
    pub fn domain_routes(
        &self,
        name: Option<&str>,
        hosts: bool,
        most: usize,
    ) -> (Vec<DomainRoutesView>, bool) {
        let (mut room, mut more) = (most, false);
        let mut all = Vec::new();
        for domain in self.own_domains().filter(|d| name.is_none_or(|name| d.name == name)) {
            let routes = self.desired.routes_in(domain.id).filter_map(|r| self.route_view(r));
            let mut routes = routes.filter(|r| hosts || !matches!(r.kind, "vm" | "gateway"));
            let shown: Vec<DomainRouteView> = routes.by_ref().take(room).collect();
            room -= shown.len();
            more |= routes.next().is_some();
            all.push(DomainRoutesView { domain: self.domain_view(domain), routes: shown });
        }
        (all, more)
    }

    fn route_view(&self, (prefix, to, fixed): (Prefix, NextHop, bool)) -> Option<DomainRouteView> {
        let (kind, vn, mac) = match to {
            NextHop::Vm(key) => (if fixed { "static" } else { "vm" }, key.vn(), Some(key.mac())),
            NextHop::Subnet { vn, .. } => ("subnet", vn, None),
            NextHop::Gateway(vn) => ("gateway", vn, None),
        };
        let vni = self.desired.vni(vn)?;
        let via = mac.map(|mac| {
            let key = VmKey { vni, mac };
            let record = self.mirror.record(key);
            let nve = record.and_then(|r| r.active_nve().cloned());
            (key, record.map(|r| r.name.clone()).unwrap_or_default(), nve)
        });
        Some(DomainRouteView { prefix, kind, vni, via })
    }

    /// How it stands with the NVA.
    pub fn nva(&self) -> NvaView {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (vns, synced) = self.mirror.synced();
        NvaView {
            connected: self.session.is_up(),
            epoch: self.session.epoch,
            vns: count(vns),
            synced: count(synced),
            claims_waiting: count(self.vms.values().filter(|vm| vm.claim.is_some()).count()),
            queries_waiting: count(self.queries.waiting().count()),
            refusal: self.clone.refusal.clone(),
        }
    }
}
