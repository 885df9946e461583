//! The desired state of all workers, which update goes to which of them, and the numbers that updates use.
//!
//! A change of the state that every worker should have is sent as a difference; a worker that joins
//! gets all of it. At this stage each worker has everything: remote locations could
//! go only to the workers that poll a port of their VN, and this is the one place that would know.
//!
//! Numbers of VNs, tunnels and routing domains are dense. One that was given up is given out again only when all
//! workers have applied its removal.

mod groups;
mod routes;
mod tunnels;
mod vms;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::Policy;
use godwit_tables::update::{Key, Member, Multicast, PortIdx, PortRole, TunnelIdx, Update, VmState, VnIdx};
use godwit_wire::{Mac, Rate, Span, Vni};

use crate::bindings::Bindings;
use crate::config::WorkerSet;

use routes::DesiredRoutes;
pub(crate) use routes::RoutedVn;
use tunnels::{Tunnel, way_updates};
pub(crate) use tunnels::{TunnelWay, TunnelWays};
use vms::answer_update;
pub(crate) use vms::{Answer, tunnel_of};

/// Between two requests for silent hosts that one NVE floods in one VN: ten a second (R31).
const SILENT_GAP_MS: u64 = 100;

#[derive(Debug)]
struct Vn {
    vni: Vni,
    mtu: u16,
    transparent_vlan: bool,
    flood_silent: bool,
    replicas: BTreeSet<TunnelIdx>,
    /// Whom VXLAN is accepted from (R69).
    senders: BTreeSet<IpAddr>,
    senders_known: bool,
    multicast: Multicast,
    /// The tunnel to a group of the underlay (R60).
    underlay_group: Option<TunnelIdx>,
    /// Members of multicast groups (R61).
    members: BTreeMap<IpAddr, BTreeSet<Member>>,
}

/// Dense numbers.
#[derive(Default, Debug)]
struct Numbers {
    fresh: u32,
    free: BTreeSet<u32>,
}

impl Numbers {
    fn take(&mut self, limit: u32) -> Option<u32> {
        if let Some(n) = self.free.pop_first() {
            return Some(n);
        }
        let n = self.fresh;
        (n < limit).then(|| {
            self.fresh += 1;
            n
        })
    }
}

/// The desired state of all workers, and the updates that lead to it.
#[derive(Debug)]
pub(crate) struct DesiredState {
    workers: WorkerSet,
    vn_numbers: Numbers,
    tunnel_numbers: Numbers,
    by_vni: BTreeMap<Vni, VnIdx>,
    vns: BTreeMap<VnIdx, Vn>,
    by_remote: BTreeMap<IpAddr, TunnelIdx>,
    tunnels: BTreeMap<TunnelIdx, Tunnel>,
    ports: BTreeMap<PortIdx, PortRole>,
    /// What the VMs of ports may call their own (R65, R66, R92 to R94).
    bindings: BTreeMap<PortIdx, Bindings>,
    /// What the VMs of ports may send and get (R23).
    policies: BTreeMap<PortIdx, Policy>,
    vms: BTreeMap<Key, VmState>,
    answers: BTreeMap<(VnIdx, IpAddr), Answer>,
    /// Routing domains (R58).
    routes: DesiredRoutes,
    updates: Vec<(usize, Update)>,
}

impl DesiredState {
    pub(crate) fn new(workers: WorkerSet) -> DesiredState {
        DesiredState {
            workers,
            vn_numbers: Numbers::default(),
            tunnel_numbers: Numbers::default(),
            by_vni: BTreeMap::new(),
            vns: BTreeMap::new(),
            by_remote: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            ports: BTreeMap::new(),
            bindings: BTreeMap::new(),
            policies: BTreeMap::new(),
            vms: BTreeMap::new(),
            answers: BTreeMap::new(),
            routes: DesiredRoutes::default(),
            updates: Vec::new(),
        }
    }

    /// All workers that take updates.
    pub(crate) fn workers(&self) -> WorkerSet {
        self.workers
    }

    /// Updates since the last call, in order.
    pub(crate) fn take_updates(&mut self) -> Vec<(usize, Update)> {
        core::mem::take(&mut self.updates)
    }

    /// To all workers.
    fn emit(&mut self, update: Update) {
        for w in self.workers.iter() {
            self.updates.push((w, update));
        }
    }

    // ---- Virtual networks ----

    /// The VNs in use.
    pub(crate) fn vnis(&self) -> impl Iterator<Item = Vni> + '_ {
        self.by_vni.keys().copied()
    }

    /// The number of a VN in use.
    pub(crate) fn vn(&self, vni: Vni) -> Option<VnIdx> {
        self.by_vni.get(&vni).copied()
    }

    /// The identifier behind a worker's number.
    pub(crate) fn vni(&self, vn: VnIdx) -> Option<Vni> {
        self.vns.get(&vn).map(|v| v.vni)
    }

    /// Adds a VN or changes its settings; `None`: all numbers are in use.
    pub(crate) fn set_vn(&mut self, vni: Vni, mtu: u16, transparent_vlan: bool) -> Option<VnIdx> {
        if let Some(vn) = self.vn(vni) {
            if let Some(v) =
                self.vns.get_mut(&vn).filter(|v| (v.mtu, v.transparent_vlan) != (mtu, transparent_vlan))
            {
                (v.mtu, v.transparent_vlan) = (mtu, transparent_vlan);
                self.emit(Update::VnSet { vn, vni, mtu, transparent_vlan });
            }
            return Some(vn);
        }
        let vn = VnIdx(u16::try_from(self.vn_numbers.take(u32::from(u16::MAX))?).ok()?);
        self.by_vni.insert(vni, vn);
        self.vns.insert(
            vn,
            Vn {
                vni,
                mtu,
                transparent_vlan,
                flood_silent: false,
                replicas: BTreeSet::new(),
                senders: BTreeSet::new(),
                senders_known: false,
                multicast: Multicast::Flood,
                underlay_group: None,
                members: BTreeMap::new(),
            },
        );
        self.emit(Update::VnSet { vn, vni, mtu, transparent_vlan });
        Some(vn)
    }

    /// Whether requests for unknown addresses are flooded in a VN (R31).
    pub(crate) fn set_flood_silent(&mut self, vn: VnIdx, flood: bool) {
        let Some(v) = self.vns.get_mut(&vn).filter(|v| v.flood_silent != flood) else { return };
        v.flood_silent = flood;
        let flood_gap = self.flood_gap(flood);
        self.emit(Update::VnSilent { vn, flood_gap });
    }

    /// There are more workers or fewer: each has another part of the NVE's rate.
    fn share_flood_gaps(&mut self) {
        let flood_gap = self.flood_gap(true);
        let floods: Vec<VnIdx> = self.vns.iter().filter(|(_, v)| v.flood_silent).map(|(vn, _)| *vn).collect();
        for vn in floods {
            self.emit(Update::VnSilent { vn, flood_gap });
        }
    }

    /// The workers share the NVE's rate; none of them gets less than one request a second.
    fn flood_gap(&self, flood: bool) -> Option<Span> {
        let gap = Span::from_ms(SILENT_GAP_MS * self.workers.len().max(1) as u64);
        flood.then_some(gap.min(Span::from_ms(1000)))
    }

    /// Removes a VN and everything in it; its number, to be freed once that is applied.
    pub(crate) fn remove_vn(&mut self, vni: Vni) -> Option<VnIdx> {
        let vn = self.by_vni.remove(&vni)?;
        self.set_routing(vn, None);
        let keys: Vec<Key> =
            self.vms.range(Key::new(vn, Mac::ZERO)..=Key::new(vn, Mac::BROADCAST)).map(|(k, _)| *k).collect();
        for key in keys {
            self.set_vm(key, None);
        }
        let ips: Vec<_> = self.answers.keys().filter(|(v, _)| *v == vn).map(|(_, ip)| *ip).collect();
        for ip in ips {
            self.set_answer(vn, ip, None);
        }
        self.clear_groups(vn);
        self.set_underlay_group(vn, None);
        self.set_multicast(vn, Multicast::Flood);
        self.set_replicas(vn, BTreeSet::new());
        self.set_senders(vn, BTreeSet::new(), false);
        self.set_flood_silent(vn, false);
        self.vns.remove(&vn);
        self.emit(Update::VnRemove { vn });
        Some(vn)
    }

    /// Its removal is applied everywhere.
    pub(crate) fn free_vn(&mut self, vn: VnIdx) {
        self.vn_numbers.free.insert(u32::from(vn.0));
    }

    // ---- Ports ----

    /// Sets a port's role; replaces what was.
    pub(crate) fn set_port(&mut self, port: PortIdx, role: PortRole) {
        if self.ports.insert(port, role) != Some(role) {
            self.emit(Update::PortSet { port, role });
        }
    }

    /// Sets what the VM of a port may call its own; to be told before the port opens (R15, R65, R66, R92 to R94).
    pub(crate) fn bind_port(&mut self, port: PortIdx, wanted: Bindings) {
        let old = self.bindings.insert(port, wanted.clone()).unwrap_or_default();
        for update in wanted.updates(port, &old) {
            self.emit(update);
        }
    }

    /// What the VM of a port may call its own.
    pub(crate) fn bindings(&self, port: PortIdx) -> Option<&Bindings> {
        self.bindings.get(&port)
    }

    /// Ends the use of an address that a worker lets a VM use until control has spoken (R92, R93).
    pub(crate) fn refuse_source(&mut self, port: PortIdx, ip: IpAddr) {
        if !self.bindings.get(&port).is_some_and(|b| b.sources.contains(&ip))
            && self.ports.contains_key(&port)
        {
            self.emit(Update::SourceRemove { port, ip });
        }
    }

    /// Sets the policy of a port's VM (R23); to be told before the port opens.
    pub(crate) fn set_policy(&mut self, port: PortIdx, policy: Option<&Policy>) {
        if self.policies.get(&port) == policy {
            return;
        }
        match policy {
            Some(policy) => {
                self.policies.insert(port, policy.clone());
                policy_updates(port, policy).for_each(|update| self.emit(update));
            }
            None => {
                self.policies.remove(&port);
                self.emit(Update::PolicyClear { port });
            }
        }
    }

    /// Forgets a port.
    pub(crate) fn remove_port(&mut self, port: PortIdx) {
        self.policies.remove(&port);
        self.bindings.remove(&port);
        if self.ports.remove(&port).is_some() {
            self.emit(Update::PortRemove { port });
        }
    }

    // ---- Workers ----

    /// A worker with empty tables is told everything, in an order in which nothing names what is
    /// not there yet.
    pub(crate) fn worker_joined(&mut self, worker: usize) {
        self.workers = self.workers.with(worker);
        if !self.workers.contains(worker) {
            return;
        }
        self.forget_refused_routes(worker);
        let mut all = Vec::new();
        for (&vn, v) in &self.vns {
            all.push(Update::VnSet { vn, vni: v.vni, mtu: v.mtu, transparent_vlan: v.transparent_vlan });
        }
        all.extend(self.tunnels.iter().flat_map(|(&idx, t)| way_updates(idx, t.remote, None, &t.ways)));
        for (&tunnel, t) in self.tunnels.iter().filter(|(_, t)| t.twin.is_some()) {
            all.push(Update::TunnelTwin { tunnel, twin: t.twin });
        }
        all.extend(self.ports.iter().map(|(&port, &role)| Update::PortSet { port, role }));
        for (&port, bindings) in &self.bindings {
            all.extend(bindings.updates(port, &Bindings::default()));
        }
        all.extend(self.policies.iter().flat_map(|(&port, policy)| policy_updates(port, policy)));
        all.extend(self.routes.domains());
        all.extend(self.vms.iter().map(|(&key, &state)| Update::VmSet { key, state }));
        all.extend(self.routes.parts());
        all.extend(self.answers.iter().map(|(&(vn, ip), &a)| answer_update(vn, ip, a)));
        for (&vn, v) in &self.vns {
            all.extend(v.replicas.iter().map(|&tunnel| Update::ReplicaAdd { vn, tunnel }));
            all.extend(v.senders.iter().map(|&ip| Update::SenderAdd { vn, ip }));
            all.extend(v.senders_known.then_some(Update::SendersKnown { vn, known: true }));
            all.extend(groups::updates(vn, v));
        }
        self.updates.extend(all.into_iter().map(|u| (worker, u)));
        self.share_flood_gaps();
    }

    /// A worker takes no updates any more.
    pub(crate) fn worker_left(&mut self, worker: usize) {
        self.workers = self.workers.without(worker);
        self.forget_refused_routes(worker);
        self.share_flood_gaps();
    }
}

/// The rules, and what brings them into force.
fn policy_updates(port: PortIdx, policy: &Policy) -> impl Iterator<Item = Update> {
    let rules = policy.rules.iter().zip(0..).map(move |(&rule, at)| Update::PolicyRule { port, at, rule });
    let count = u8::try_from(policy.rules.len()).unwrap_or(u8::MAX);
    let rate = Rate::per_second(policy.rate, policy.burst);
    let (default, dscp) = (policy.default, policy.dscp);
    rules.chain([Update::PolicySet { port, rules: count, default, rate, dscp }])
}
