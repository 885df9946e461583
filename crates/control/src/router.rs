//! Which update goes to which worker, and the numbers that updates use.
//!
//! The router keeps the state that every worker should have and sends only differences to it; a
//! worker that joins gets all of it. At this stage each worker has everything: remote locations could
//! go only to the workers that poll a port of their VN, and this is the one place that would know.
//!
//! Numbers of VNs and tunnels are dense. One that was given up is given out again only when all
//! workers have applied its removal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::Policy;
use godwit_tables::update::{HoldLimits, Key, PortIdx, PortRole, Shares, TunnelIdx, Update, VmState, VnIdx};
use godwit_wire::outer::OuterHeader;
use godwit_wire::{Instant, Mac, Rate, Span, Vni};

use crate::bindings::Bindings;
use crate::config::WorkerSet;

/// Between two requests for silent hosts that one NVE floods in one VN: ten a second (R31).
const SILENT_GAP_MS: u64 = 100;

/// What a worker answers on an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Owner { mac: Mac, router: bool },
    Absent { until: Instant },
}

/// All ways of a tunnel (R95): none while no next hop answers, one for all flows, or several that share them.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct TunnelWays {
    /// Each with its place, which it keeps while it is there.
    pub(crate) ways: Vec<(u8, TunnelWay)>,
    /// By which place each share of the flows goes, where there are several.
    pub(crate) shares: Option<Shares>,
}

/// A resolved tunnel.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct TunnelWay {
    pub(crate) uplink: PortIdx,
    pub(crate) mtu: u16,
    pub(crate) header: OuterHeader,
}

#[derive(Debug)]
struct Vn {
    vni: Vni,
    mtu: u16,
    transparent_vlan: bool,
    flood_silent: bool,
    replicas: BTreeSet<TunnelIdx>,
}

#[derive(Debug)]
struct Tunnel {
    remote: IpAddr,
    ways: TunnelWays,
    /// Where its IPv4 packets go (R4).
    twin: Option<TunnelIdx>,
    /// VM entries, replication lists and tunnels that name it.
    users: u32,
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

/// The wanted state of all workers, and the updates that lead to it.
#[derive(Debug)]
pub(crate) struct Router {
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
    updates: Vec<(usize, Update)>,
}

impl Router {
    pub(crate) fn new(workers: WorkerSet) -> Router {
        Router {
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
        self.vns
            .insert(vn, Vn { vni, mtu, transparent_vlan, flood_silent: false, replicas: BTreeSet::new() });
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
        let keys: Vec<Key> =
            self.vms.range(Key::new(vn, Mac::ZERO)..=Key::new(vn, Mac::BROADCAST)).map(|(k, _)| *k).collect();
        for key in keys {
            self.set_vm(key, None);
        }
        let ips: Vec<_> = self.answers.keys().filter(|(v, _)| *v == vn).map(|(_, ip)| *ip).collect();
        for ip in ips {
            self.set_answer(vn, ip, None);
        }
        self.set_replicas(vn, BTreeSet::new());
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

    // ---- VMs and addresses ----

    /// What the workers do with a VM's frames.
    pub(crate) fn vm(&self, key: Key) -> Option<VmState> {
        self.vms.get(&key).copied()
    }

    /// Sets what the workers do with a VM's frames; `None` forgets it.
    pub(crate) fn set_vm(&mut self, key: Key, state: Option<VmState>) {
        let old = match state {
            Some(s) => self.vms.insert(key, s),
            None => self.vms.remove(&key),
        };
        if old == state {
            return;
        }
        self.count_use(state.and_then(tunnel_of), 1);
        match state {
            Some(state) => self.emit(Update::VmSet { key, state }),
            None => self.emit(Update::VmRemove { key }),
        }
        self.count_use(old.and_then(tunnel_of), -1);
    }

    /// A VM of this NVE has come by a move, as the directory knows now.
    pub(crate) fn settle_vm(&mut self, key: Key, hold: HoldLimits) {
        if matches!(self.vms.get(&key), Some(VmState::Local { .. })) {
            self.emit(Update::VmSettle { key, hold });
        }
    }

    /// The workers have forgotten a negative entry by themselves.
    pub(crate) fn absent_expired(&mut self, key: Key) {
        if matches!(self.vms.get(&key), Some(VmState::Absent { .. })) {
            self.vms.remove(&key);
        }
    }

    /// Has an entry that is watched watched once more, in case that a worker's word of its use was lost (R40).
    pub(crate) fn watch_again(&mut self, key: Key) {
        if let Some(state @ VmState::Ageing { .. }) = self.vm(key) {
            self.emit(Update::VmSet { key, state });
        }
    }

    /// Tells a worker once more what it should know; false: nothing is known.
    pub(crate) fn repeat_vm(&mut self, worker: usize, key: Key) -> bool {
        let state = self.vms.get(&key).copied().filter(|s| !matches!(s, VmState::Absent { .. }));
        if let Some(state) = state {
            self.updates.push((worker, Update::VmSet { key, state }));
        }
        state.is_some()
    }

    /// Sets what is answered on an address; `None` forgets it.
    pub(crate) fn set_answer(&mut self, vn: VnIdx, ip: IpAddr, answer: Option<Answer>) {
        let old = match answer {
            Some(a) => self.answers.insert((vn, ip), a),
            None => self.answers.remove(&(vn, ip)),
        };
        if old == answer {
            return;
        }
        match answer {
            Some(answer) => self.emit(answer_update(vn, ip, answer)),
            None => self.emit(Update::NeighborRemove { vn, ip }),
        }
    }

    /// The workers have an answer on an address.
    pub(crate) fn has_answer(&self, vn: VnIdx, ip: IpAddr) -> bool {
        self.answers.contains_key(&(vn, ip))
    }

    /// The workers have forgotten a negative answer by themselves.
    pub(crate) fn absent_ip_expired(&mut self, vn: VnIdx, ip: IpAddr) {
        if matches!(self.answers.get(&(vn, ip)), Some(Answer::Absent { .. })) {
            self.answers.remove(&(vn, ip));
        }
    }

    /// Who is answered for on an address.
    pub(crate) fn owner(&self, vn: VnIdx, ip: IpAddr) -> Option<(Mac, bool)> {
        match self.answers.get(&(vn, ip)) {
            Some(Answer::Owner { mac, router }) => Some((*mac, *router)),
            _ => None,
        }
    }

    /// Tells a worker once more who has an address; false: nothing is known.
    pub(crate) fn repeat_answer(&mut self, worker: usize, vn: VnIdx, ip: IpAddr) -> bool {
        let answer = self.answers.get(&(vn, ip)).copied().filter(|a| matches!(a, Answer::Owner { .. }));
        if let Some(answer) = answer {
            self.updates.push((worker, answer_update(vn, ip, answer)));
        }
        answer.is_some()
    }

    /// Sets the tunnels that get copies of a VN's broadcast and multicast frames (R60).
    pub(crate) fn set_replicas(&mut self, vn: VnIdx, wanted: BTreeSet<TunnelIdx>) {
        let Some(v) = self.vns.get_mut(&vn) else { return };
        let old = core::mem::replace(&mut v.replicas, wanted.clone());
        for &tunnel in wanted.difference(&old) {
            self.count_use(Some(tunnel), 1);
            self.emit(Update::ReplicaAdd { vn, tunnel });
        }
        for &tunnel in old.difference(&wanted) {
            self.emit(Update::ReplicaRemove { vn, tunnel });
            self.count_use(Some(tunnel), -1);
        }
    }

    // ---- Tunnels ----

    /// The tunnel to a locator.
    pub(crate) fn tunnel(&self, remote: IpAddr) -> Option<TunnelIdx> {
        self.by_remote.get(&remote).copied()
    }

    /// The locator behind a tunnel.
    pub(crate) fn remote(&self, tunnel: TunnelIdx) -> Option<IpAddr> {
        self.tunnels.get(&tunnel).map(|t| t.remote)
    }

    /// Adds a tunnel; `None`: all numbers are in use.
    pub(crate) fn add_tunnel(&mut self, remote: IpAddr, ways: TunnelWays) -> Option<TunnelIdx> {
        let tunnel = TunnelIdx(self.tunnel_numbers.take(u32::MAX)?);
        self.by_remote.insert(remote, tunnel);
        way_updates(tunnel, remote, None, &ways).into_iter().for_each(|u| self.emit(u));
        self.tunnels.insert(tunnel, Tunnel { remote, ways, twin: None, users: 0 });
        Some(tunnel)
    }

    /// A tunnel's next hops were resolved, changed or got lost.
    pub(crate) fn set_ways(&mut self, tunnel: TunnelIdx, ways: TunnelWays) {
        let Some(t) = self.tunnels.get_mut(&tunnel).filter(|t| t.ways != ways) else { return };
        let updates = way_updates(tunnel, t.remote, Some(&t.ways), &ways);
        t.ways = ways;
        updates.into_iter().for_each(|u| self.emit(u));
    }

    /// Sets where the IPv4 packets for a tunnel go (R4).
    pub(crate) fn set_twin(&mut self, tunnel: TunnelIdx, twin: Option<TunnelIdx>) {
        let Some(t) = self.tunnels.get_mut(&tunnel).filter(|t| t.twin != twin) else { return };
        let old = core::mem::replace(&mut t.twin, twin);
        self.count_use(twin, 1);
        self.emit(Update::TunnelTwin { tunnel, twin });
        self.count_use(old, -1);
    }

    /// Tunnels that no VM entry, no replication list and no other tunnel names.
    pub(crate) fn unused_tunnels(&self) -> impl Iterator<Item = (TunnelIdx, IpAddr)> + '_ {
        self.tunnels.iter().filter(|(_, t)| t.users == 0).map(|(idx, t)| (*idx, t.remote))
    }

    /// Removes an unused tunnel; its number is to be freed once that is applied. False: it is used.
    pub(crate) fn remove_tunnel(&mut self, tunnel: TunnelIdx) -> bool {
        let Some(t) = self.tunnels.get(&tunnel).filter(|t| t.users == 0) else { return false };
        let twin = t.twin;
        self.by_remote.remove(&t.remote);
        self.tunnels.remove(&tunnel);
        self.emit(Update::TunnelRemove { tunnel });
        self.count_use(twin, -1);
        true
    }

    /// Its removal is applied everywhere.
    pub(crate) fn free_tunnel(&mut self, tunnel: TunnelIdx) {
        self.tunnel_numbers.free.insert(tunnel.0);
    }

    fn count_use(&mut self, tunnel: Option<TunnelIdx>, by: i32) {
        if let Some(t) = tunnel.and_then(|t| self.tunnels.get_mut(&t)) {
            t.users = t.users.saturating_add_signed(by);
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
        all.extend(self.vms.iter().map(|(&key, &state)| Update::VmSet { key, state }));
        all.extend(self.answers.iter().map(|(&(vn, ip), &a)| answer_update(vn, ip, a)));
        for (&vn, v) in &self.vns {
            all.extend(v.replicas.iter().map(|&tunnel| Update::ReplicaAdd { vn, tunnel }));
        }
        self.updates.extend(all.into_iter().map(|u| (worker, u)));
        self.share_flood_gaps();
    }

    /// A worker takes no updates any more.
    pub(crate) fn worker_left(&mut self, worker: usize) {
        self.workers = self.workers.without(worker);
        self.share_flood_gaps();
    }
}

/// The rules, and what brings them into force.
fn policy_updates(port: PortIdx, policy: &Policy) -> impl Iterator<Item = Update> {
    let rules = policy.rules.iter().zip(0..).map(move |(&rule, at)| Update::PolicyRule { port, at, rule });
    let (count, rate) = (policy.rules.len() as u8, Rate::per_second(policy.rate, policy.burst));
    let (default, dscp) = (policy.default, policy.dscp);
    rules.chain([Update::PolicySet { port, rules: count, default, rate, dscp }])
}

/// The tunnel that an entry names.
pub(crate) fn tunnel_of(state: VmState) -> Option<TunnelIdx> {
    match state {
        VmState::Remote { tunnel } | VmState::Ageing { tunnel } | VmState::Departed { tunnel, .. } => {
            Some(tunnel)
        }
        VmState::Expected { via, .. } => via,
        VmState::Local { .. } | VmState::Paused { .. } | VmState::Absent { .. } => None,
    }
}

/// What leads a worker from a tunnel's old ways, if it knows any, to the new ones. No flow is sent by a way that
/// is in neither: a way is told before a share names it, and taken back after.
fn way_updates(tunnel: TunnelIdx, remote: IpAddr, old: Option<&TunnelWays>, new: &TunnelWays) -> Vec<Update> {
    let Some(&(_, first)) = new.ways.first() else { return vec![Update::TunnelPending { tunnel, remote }] };
    let set =
        |w: TunnelWay| Update::TunnelSet { tunnel, uplink: w.uplink, remote, mtu: w.mtu, header: w.header };
    let known = old.and_then(|o| o.ways.first()).map(|(_, w)| *w);
    let told = old.filter(|o| o.shares.is_some());
    // Without any way so far, frames may wait for the first.
    let mut updates = Vec::new();
    if known.is_none() {
        updates.push(set(first));
    }
    if new.shares.is_some() {
        let fresh = new.ways.iter().filter(|w| !told.is_some_and(|o| o.ways.contains(w)));
        updates.extend(fresh.map(|&(at, w)| {
            let TunnelWay { uplink, mtu, header } = w;
            Update::TunnelWay { tunnel, at, uplink, mtu, header }
        }));
    }
    if known.is_some_and(|k| k != first) {
        updates.push(set(first));
    }
    if new.shares != told.and_then(|o| o.shares) {
        updates.push(Update::TunnelSpread { tunnel, shares: new.shares });
    }
    updates
}

fn answer_update(vn: VnIdx, ip: IpAddr, answer: Answer) -> Update {
    match answer {
        Answer::Owner { mac, router } => Update::NeighborSet { vn, ip, mac, router },
        Answer::Absent { until } => Update::NeighborAbsent { vn, ip, until },
    }
}
