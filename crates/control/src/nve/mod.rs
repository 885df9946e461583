//! The pure core of an NVE's control.
//!
//! Every input goes the same way: it changes what we know (the mirror, a VM's machine, a neighbor),
//! then what the workers should have follows from the whole of what we know (`sync`), and its
//! difference to the desired state so far is sent. So an input that comes twice, or after a reconnect, changes nothing.

mod ageing;
mod answers;
mod bind;
mod check;
mod clone;
mod events;
mod hops;
mod inspect;
mod machine;
mod multicast;
mod notices;
mod nva;
mod order;
mod pending;
mod policy;
mod ports;
#[cfg(test)]
mod properties;
mod provision;
mod rarp;
mod refused;
mod routing;
mod senders;
mod services;
mod stale;
mod statics;
mod sync;
mod underlay_groups;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher as _;
use std::net::IpAddr;

use fnv::FnvHasher;
use godwit_model::message::NveToNva;
use godwit_model::{Deadlines, DomainId, Locators, Policy, Version, VmKey, VmRecord};
use godwit_tables::update::PortIdx;
use godwit_wire::{Bucket, Instant, Span, Vni};

use crate::announcer::Announcer;
use crate::barrier::{After, Barriers};
use crate::binds::{Binds, Wanted};
use crate::config::NveConfig;
use crate::counts::Counts;
use crate::desired::DesiredState;
use crate::flushes::Flushes;
use crate::io::{Input, Level, Outputs};
use crate::lifetimes::Lifetimes;
use crate::mirror::Mirror;
use crate::mobility::Vm;
use crate::multicast::Multicast;
use crate::queries::{Asked, Queries};
use crate::refusals::Refusals;
use crate::seal::Seals;
use crate::unconfirmed::Unconfirmed;
use crate::underlay::Underlay;

/// Timers that one input fires at most; the rest fires with the next, which is due at once.
const MAX_FIRED: usize = 4096;

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// A VM's machine.
    Vm(VmKey),
    /// A question.
    Query(Asked),
    /// Negative answers are over.
    NegativeCache,
    /// Tunnels without use.
    Tunnels,
    /// Full report.
    Report,
    /// The NVA has been away for too long (R72).
    Headless,
    /// An entry that another NVE put in doubt.
    Suspect(VmKey),
    /// The next stage of a pulled record's lifetime (R40).
    Lifetime(VmKey),
    /// A request for an address or a virtual MAC (R92, R93).
    Bind(Wanted),
    /// Addresses that a VM has learned (R93).
    Addresses(VmKey),
    /// Uplinks have waited long enough for the NVA (R96).
    Guard,
    /// A router advertisement to a port's VM (R58).
    Advertise(PortIdx),
    /// Membership in groups of the underlay is said again (R60).
    UnderlayGroups,
    /// A VM's frames have waited for the end of their old path (R77).
    Path(VmKey),
    /// NVEs that left a VN may send to it no more (R69).
    Senders,
}

/// What a port is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PortKind {
    Access(VmKey),
    Uplink,
    Exception,
}

#[derive(Debug)]
struct Port {
    name: String,
    kind: PortKind,
    link_up: bool,
}

/// How it stands with the NVA.
#[derive(Default, Debug)]
struct Session {
    /// Counts connections, so that nothing of an earlier one is answered in a later.
    number: u64,
    connected: bool,
    /// The locators that Hello named.
    hello: Option<Locators>,
    welcomed: bool,
    /// It is of an older epoch than one that we have seen: nothing it says counts.
    outdated: bool,
    /// Highest epoch seen.
    epoch: u32,
}

impl Session {
    fn is_up(&self) -> bool {
        self.connected && self.welcomed && !self.outdated
    }
}

/// One NVE's control: no I/O, no clock, no thread. The same inputs at the same times give the same
/// outputs.
#[derive(Debug)]
pub struct Nve {
    config: NveConfig,
    now: Instant,
    wall_us: u64,
    session: Session,
    /// When the last session that was up ended.
    nva_gone: Instant,
    /// Whether this switch is another one's clone (R96).
    clone: clone::Suspicion,
    ports: BTreeMap<PortIdx, Port>,
    vms: BTreeMap<VmKey, Vm>,
    /// Further VMs behind access ports, which only the configuration file knows of.
    behind: BTreeMap<VmKey, PortIdx>,
    /// VMs with a planned move.
    intents: BTreeSet<VmKey>,
    /// VMs that are to run at another NVE, the way to which is kept resolved (R50).
    pending: BTreeSet<VmKey>,
    /// VNs without a port here, in which VMs that left are forwarded for (R17), or which VMs here send to by way of
    /// their domain (R58).
    lingering: BTreeSet<Vni>,
    /// Routing domains that this NVE has a part in.
    domains: BTreeSet<DomainId>,
    mirror: Mirror,
    queries: Queries,
    /// Lifetimes of pulled records (R40).
    lifetimes: Lifetimes,
    underlay: Underlay,
    announcer: Announcer,
    /// Policies that the NVA has told (R23).
    policies: BTreeMap<String, Policy>,
    /// Multicast groups (R61).
    multicast: Multicast,
    /// Which of them the NVA was told in this session.
    groups_told: BTreeMap<Vni, BTreeSet<IpAddr>>,
    /// Groups of the underlay that were joined, each by an uplink (R60).
    underlay_groups: BTreeMap<IpAddr, PortIdx>,
    /// Alarms on groups that found no room.
    groups_full: Bucket,
    /// VMs that asked for their own address and wait for the directory, with the end of their patience (R27).
    rarp: BTreeMap<VmKey, (PortIdx, Instant)>,
    /// RARP replies sent: each looks for its VN's gateway.
    rarp_replies: Bucket,
    desired: DesiredState,
    barriers: Barriers,
    /// What waits until the workers' frames have left (R77).
    flushes: Flushes,
    /// What waits for the end of an old path (R77).
    order: order::Order,
    timers: Deadlines<Timer>,
    /// Number of the last claim or query.
    seq: u64,
    /// What the directory said of VMs that are to come here: their VN may be unknown until their ports are there.
    prepared: BTreeMap<VmKey, VmRecord>,
    /// Withdrawals that wait for a session.
    withdrawals: BTreeMap<VmKey, Version>,
    /// Reports that wait for a session.
    reports: VecDeque<NveToNva>,
    /// Tunnels that nothing used at the last look.
    idle_tunnels: BTreeSet<IpAddr>,
    /// Datagrams to and from other NVEs.
    seals: Seals,
    /// Who sends (R69).
    senders: senders::Senders,
    /// What they say and the directory has not confirmed.
    unconfirmed: Unconfirmed,
    /// What VMs use by their own word and the directory has not granted (R92, R93).
    binds: Binds,
    /// What they use and might not (R65).
    refusals: Refusals,
    /// Learned addresses that are asked for (R93).
    checks: check::Checks,
    /// Stale senders that were told.
    told: stale::Told,
    /// What VMs ask of their gateway (R58).
    services: services::Services,
    counts: Counts,
    /// VMs that are asked whether they are still here (R32).
    scan_bucket: Bucket,
    /// Questions that workers' frames raised (R67).
    query_bucket: Bucket,
    /// Questions to VMs that are looked for (R32).
    seek_bucket: Bucket,
    /// Questions that renew a pulled entry and had to wait for their turn (R67).
    refresh_bucket: Bucket,
    /// Alarms on full tables.
    table_full: Bucket,
}

impl Nve {
    /// An NVE without ports.
    pub fn new(config: NveConfig) -> Nve {
        Nve {
            desired: DesiredState::new(config.workers),
            now: Instant(0),
            wall_us: 0,
            session: Session::default(),
            nva_gone: Instant(0),
            clone: clone::Suspicion::default(),
            ports: BTreeMap::new(),
            vms: BTreeMap::new(),
            behind: BTreeMap::new(),
            intents: BTreeSet::new(),
            pending: BTreeSet::new(),
            lingering: BTreeSet::new(),
            domains: BTreeSet::new(),
            mirror: Mirror::default(),
            queries: Queries::default(),
            lifetimes: Lifetimes::default(),
            underlay: Underlay::new(config.locators, config.liveness),
            announcer: Announcer::default(),
            policies: BTreeMap::new(),
            multicast: Multicast::default(),
            groups_told: BTreeMap::new(),
            underlay_groups: BTreeMap::new(),
            groups_full: Bucket::default(),
            rarp: BTreeMap::new(),
            rarp_replies: Bucket::default(),
            barriers: Barriers::default(),
            flushes: Flushes::default(),
            order: order::Order::default(),
            timers: Deadlines::default(),
            seq: 0,
            prepared: BTreeMap::new(),
            withdrawals: BTreeMap::new(),
            reports: VecDeque::new(),
            idle_tunnels: BTreeSet::new(),
            seals: Seals::default(),
            senders: senders::Senders::default(),
            unconfirmed: Unconfirmed::default(),
            binds: Binds::default(),
            refusals: Refusals::default(),
            checks: check::Checks::default(),
            told: stale::Told::default(),
            services: services::Services::default(),
            counts: Counts::default(),
            scan_bucket: Bucket::default(),
            query_bucket: Bucket::default(),
            seek_bucket: Bucket::default(),
            refresh_bucket: Bucket::default(),
            table_full: Bucket::default(),
            config,
        }
    }

    /// Takes one input at `now` (monotonic, never going back) and appends what is to be done.
    ///
    /// `wall_us` is the wall clock at `now` in microseconds since 1970, for timelines that people
    /// read. Timers that are due fire in every call, after the input.
    pub fn handle(&mut self, now: Instant, wall_us: u64, input: Input, out: &mut Outputs) {
        self.now = self.now.max(now);
        self.wall_us = wall_us;
        self.take(input, out);
        self.fire(out);
        self.multicast_due(out);
        self.follow_underlay(out);
        self.tell_local_vms(out);
        self.finish(out);
    }

    /// When to call [`Nve::handle`] with `Input::Tick` at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let announcement = self.announcer.due(self.now);
        let timers = [self.timers.next(), self.multicast.deadline(), self.underlay.deadline(), announcement];
        timers.into_iter().flatten().min()
    }

    /// What it was configured with.
    pub fn config(&self) -> &NveConfig {
        &self.config
    }

    /// What it counted since its start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The locators of its uplinks.
    pub fn locators(&self) -> Locators {
        let used = self.underlay.locators();
        if used.is_empty() { self.waiting_locators() } else { used }
    }

    fn take(&mut self, input: Input, out: &mut Outputs) {
        let Some(input) = self.hold_back(input, out) else { return };
        match input {
            Input::Worker { worker, event } => self.worker_event(worker, event, out),
            Input::Nva(message) => self.nva_message(message, out),
            Input::NvaConnected => self.nva_connected(out),
            Input::NvaLost => self.nva_lost(out),
            Input::PortAdded { port, name, spec, workers: _ } => self.port_added(port, name, spec, out),
            Input::PortRemoved { port } => self.port_removed(port, out),
            Input::PortLink { port, up } => self.port_link(port, up, out),
            Input::PausePort { port } => {
                self.access_port(port, "pause", out, |vm, cx| vm.pause_asked(port, cx))
            }
            Input::ActivatePort { port } => {
                self.access_port(port, "activate", out, |vm, cx| vm.activate_asked(port, cx));
            }
            Input::VmState { port, state } => {
                self.access_port(port, "report on", out, |vm, cx| vm.state_said(port, state, cx));
            }
            // All workers have everything at this stage, whoever polls a port.
            Input::PortWorkers { .. } | Input::Tick => {}
            Input::Punted { port, frame } => self.punted(port, &frame, out),
            Input::WorkerJoined { worker } => self.desired.worker_joined(worker),
            Input::WorkerLeft { worker } => {
                self.desired.worker_left(worker);
                let released = self.barriers.worker_left(worker);
                self.release(released, out);
                for then in self.flushes.worker_left(worker) {
                    self.flushed(then, out);
                }
            }
            Input::StaticVm { vni, mac, location, ips, router } => {
                let record = crate::records::static_record(VmKey { vni, mac }, location, &ips, router);
                self.static_vm(record, out);
            }
            Input::StaticDomain { domain, vns, routes } => self.static_domain(domain, vns, &routes, out),
            Input::VmBehindPort { port, mac, ips } => self.vm_behind_port(port, mac, &ips, out),
            Input::StaticNeighbor { vni, ip, mac, router } => {
                self.mirror.set_static_ip(vni, ip, crate::mirror::Owner { mac, router });
                self.sync_ip(vni, ip);
                self.sync_vm(VmKey { vni, mac }, out);
            }
            Input::Routes { origin, routes } => self.underlay.set_routes(self.now, origin, routes),
            Input::UnderlayNeighbor { uplink, ip, mac } => self.underlay.set_permanent(uplink, ip, mac),
            Input::Applied { worker, token } => {
                let released = self.barriers.applied(worker, token);
                self.release(released, out);
            }
        }
    }

    /// Fires the timers that are due.
    fn fire(&mut self, out: &mut Outputs) {
        for _ in 0..MAX_FIRED {
            let Some(timer) = self.timers.pop_due(self.now) else { break };
            match timer {
                Timer::Vm(key) => self.with_known_vm(key, out, Vm::tick),
                Timer::Query(asked) => self.query_due(asked, out),
                Timer::NegativeCache => self.negative_cache_due(),
                Timer::Tunnels => self.sweep_tunnels(),
                Timer::Senders => self.senders_due(),
                Timer::Report => self.report(out),
                Timer::Headless => self.headless(out),
                Timer::Suspect(key) => self.suspect_due(key),
                Timer::Lifetime(key) => self.lifetime_due(key, out),
                Timer::Bind(wanted) => self.bind_due(wanted, out),
                Timer::Addresses(key) => self.addresses_due(key, out),
                Timer::Guard => self.guard_over(out),
                Timer::Advertise(port) => self.advertise_due(port, out),
                Timer::UnderlayGroups => self.underlay_groups_due(out),
                Timer::Path(key) => self.path_due(key, out),
            }
        }
    }

    /// Lets workers' updates and barriers, frames and messages out.
    fn finish(&mut self, out: &mut Outputs) {
        for domain in self.desired.take_left_domains() {
            self.barriers.after_applied(After::FreeDomain(domain));
        }
        // Without workers nothing waits, and what is released may want something once more.
        for _ in 0..4 {
            if !self.barriers.is_wanted() {
                break;
            }
            match self.barriers.issue(self.desired.workers()) {
                Ok(token) => out.barriers.extend(self.desired.workers().iter().map(|w| (w, token))),
                Err(released) => self.release(released, out),
            }
        }
        out.updates.append(&mut self.desired.take_updates());
        out.frames.append(&mut self.underlay.take_frames());
    }

    fn release(&mut self, released: Vec<After>, out: &mut Outputs) {
        for after in released {
            match after {
                After::Ack { session, ack_id } if session == self.session.number => {
                    self.send(NveToNva::Ack { ack_id }, out);
                }
                After::Ack { .. } => {}
                After::Claim { key, seq } => self.with_known_vm(key, out, |vm, cx| vm.gate_open(seq, cx)),
                After::FreeVn(vn) => self.desired.free_vn(vn),
                After::FreeTunnel(tunnel) => self.desired.free_tunnel(tunnel),
                After::FreeDomain(domain) => self.desired.free_domain(domain),
            }
        }
    }

    /// To the NVA, if it has welcomed us; a new session says again what counts.
    fn send(&mut self, message: NveToNva, out: &mut Outputs) {
        if self.session.is_up() {
            out.to_nva.push(message);
        }
    }

    /// Forgets a VM's machine that remembers nothing, and a VN that nothing needs.
    fn tidy(&mut self, key: VmKey, out: &mut Outputs) {
        if self.vms.get(&key).is_some_and(Vm::is_forgettable) {
            self.vms.remove(&key);
        }
        self.timers.set(Timer::Vm(key), self.vms.get(&key).and_then(Vm::deadline));
        if self.vms.get(&key).is_some_and(|vm| vm.intent.is_some()) {
            self.intents.insert(key);
        } else {
            self.intents.remove(&key);
            self.prepared.remove(&key);
        }
        self.follow_life(key);
        self.follow_binds(key, out);
        self.follow_checks(key);
        self.follow_advertiser(key);
        if !self.vms.get(&key).is_some_and(Vm::is_present) {
            self.drop_vn_if_unneeded(key.vni, out);
        }
    }

    /// Another number for each NVE and VM, and the same each time.
    fn own_number(&self, key: VmKey) -> u64 {
        let mut hasher = FnvHasher::default();
        hasher.write(self.config.nve.as_str().as_bytes());
        hasher.write(&key.mac.0);
        hasher.write(&key.vni.get().to_be_bytes());
        hasher.finish()
    }

    fn alarm(&self, text: String, out: &mut Outputs) {
        out.note(Level::Alarm, text);
    }
}

/// Looks for tunnels without use so often, as a part of how long they are kept.
fn half(span: Span) -> Span {
    Span((span.0 / 2).max(1))
}
