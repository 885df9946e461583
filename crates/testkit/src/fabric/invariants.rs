//! What holds in every run, and where it is looked at.
//!
//! # At every event
//!
//! * [`Invariant::OneDeliverer`]: when a worker begins to deliver a VM's frames to a port, no worker
//!   of another switch does. Hypervisors keep their part: a VM is paused before it runs elsewhere.
//! * [`Invariant::Versions`]: what a switch knows of a VM never gets older (R20); one version names
//!   one location, whoever says it.
//! * [`Invariant::Remembers`]: at a restart the NVA's disk has everything that it ever told anybody:
//!   records at least as new, and every order that was obeyed.
//! * [`Invariant::Isolation`], [`Invariant::Destination`], [`Invariant::Intact`]: a test frame comes
//!   to a VM of its own VN or routing domain (others use the same addresses), to the one it is for, bit by bit as sent;
//!   one that was routed with the Ethernet header that the gateway gives it.
//!   An answer to ARP or ND names the address's owner, and no request crosses the underlay.
//! * [`Invariant::Hops`]: the TTL of a frame falls by one on the way from one subnet to another or in a VN that is not
//!   bridged, and not at all within a bridged VN (R58).
//! * [`Invariant::NoDuplicates`]: a frame is received once, or once more for each time that the
//!   underlay repeated it.
//! * [`Invariant::Order`]: where nothing fails, no frame of a flow comes behind a later one of the same flow, whatever
//!   its VMs do (R77); but for what was sent before its sender moved while its receiver did or was paused (R54).
//!   No wait for an end marker runs out.
//! * [`Invariant::NoLoop`]: a frame is put into an outer header at most four times (R46d), three
//!   where nothing fails. A broadcast goes to each other switch once.
//! * [`Invariant::NoTriangle`]: where nothing fails, the old switch of a move has nothing to forward any
//!   more [`IN_FLIGHT`] after it forwarded the first frame (R48).
//! * [`Invariant::Found`]: a VM that runs behind a port with a link, and that nobody else has, is delivered to within
//!   [`FOUND`], whatever withdrew, closed, refused or lost it, and whether or not it ever speaks (R18, R19, R32).
//! * [`Invariant::Detached`]: where nothing fails, no worker sends frames for a VM anywhere, neither to where it was
//!   nor to where it is pending, when its manager starts it after it was shut down (R50, R51).
//! * [`Invariant::Owner`], [`Invariant::Keeps`], [`Invariant::Spoofed`]: see `bound.rs`.
//! * [`Invariant::Drained`]: nobody new comes to a switch that is drained; a drain ends and says who is left (R85).
//! * [`Invariant::Session`]: nothing is said without a session, and a clone of a live switch has none (R96).
//! * [`Invariant::Bounded`]: mailboxes, streams, requests and events stay below bounds.
//!
//! # Once faults have stopped and moves have ended
//!
//! * [`Invariant::Converges`]: within [`PATIENCE`] every VM has one owner in the directory, which is
//!   the switch that it runs at; every switch knows that version of it; the owner's workers deliver
//!   to its port and all others tunnel to the owner; nothing is held, claimed or asked for; no move
//!   is unfinished; the store holds what the directory knows.
//! * [`Invariant::NoLoss`]: a frame between VMs that nothing excuses was received: in a schedule
//!   that is planned, or in which sessions are cut and soon there again, all of them; with failing
//!   NVAs those between VMs that did not move. Then each VM sends one frame of each family to each
//!   other in its VN, and all of these are received, in any schedule. In a planned one every ARP or
//!   ND request for another's address was answered, if the asker stayed (R28).
//! * [`Invariant::Ghost`]: a minute after a VM of a routed VN is gone, nobody who probes hears that its address is
//!   taken, and no frame for it comes to anybody (R28, R58).
//! * [`Invariant::Balance`]: in each worker rx + copies = tx + consumed + drops + waiting.

use std::collections::{BTreeMap, BTreeSet};

use godwit_model::message::{Change, NvaToNve};
use godwit_model::{MoveId, NveId, Version, VmKey, VmRecord};
use godwit_tables::event::HandoverStats;
use godwit_tables::update::{Key, VmState};
use godwit_tables::vms::{Fib, State};
use godwit_wire::{Mac, Span};

use super::names;
use super::schedule::Class;
use super::worker::Worker;
use super::world::World;

/// Everything has found its place this long after the last fault and the last move.
///
/// A switch that fell silent is noticed after 3 s, connects at the latest 2 s later, and repeats an
/// unanswered claim at the latest after 5 s.
pub const PATIENCE: Span = Span::from_ms(15_000);

/// Who lives is found within this time.
pub const FOUND: Span = Span::from_ms(10_000);

/// So long a switch forwards for a VM that moved, where everybody hears of the move (R48).
pub const IN_FLIGHT: Span = Span::from_ms(1_000);

/// What was violated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invariant {
    /// Two switches delivered frames of one VM.
    OneDeliverer,
    /// Knowledge went back in time, or one version named two places.
    Versions,
    /// The NVA forgot what it had said.
    Remembers,
    /// A frame came into another VN.
    Isolation,
    /// A frame came to another VM, or an address was answered with another.
    Destination,
    /// A frame changed on its way.
    Intact,
    /// A frame came too often.
    NoDuplicates,
    /// A promised frame did not come.
    NoLoss,
    /// A VM that lives was not found.
    Found,
    /// An address was another VM's than it should be, or two VMs'.
    Owner,
    /// A VM that lives lost an address that it uses.
    Keeps,
    /// A frame came from an address that was not its sender's.
    Spoofed,
    /// A frame was overtaken by a later one of its flow.
    Order,
    /// A frame went round.
    NoLoop,
    /// A frame's TTL fell too often, or not at all.
    Hops,
    /// A VM that was shut down was sent to.
    Detached,
    /// A VM that is gone was answered for.
    Ghost,
    /// A switch forwarded for long, though everybody could know better.
    NoTriangle,
    /// A VM came to a switch that was drained, or a drain did not say who is left.
    Drained,
    /// Something was said without a session, or a clone had one.
    Session,
    /// A queue grew without bound.
    Bounded,
    /// The end was not quiet, or not right.
    Converges,
    /// A frame is not accounted for.
    Balance,
}

/// What somebody outside the NVA was told.
#[derive(Default)]
pub(super) struct Known {
    /// The newest version of each VM that was said, and every place that a version named.
    places: BTreeMap<VmKey, BTreeMap<Version, Option<NveId>>>,
    /// The newest version that each switch has shown.
    seen: BTreeMap<(usize, VmKey), Version>,
    /// Moves that were taken.
    pub orders: BTreeSet<MoveId>,
}

impl World {
    /// A switch's worker tells what it forwarded for a VM that has left (R48).
    pub(super) fn check_forwarding(&mut self, host: usize, stats: &HandoverStats) {
        let lasted = stats.last_forward.since(stats.first_forward);
        if matches!(self.plan.class, Class::Planned | Class::Frozen) && lasted > IN_FLIGHT {
            let text = format!("n{host} goes on forwarding for {} ms: {stats:?}", lasted.as_ms());
            self.fail(Invariant::NoTriangle, text);
        }
    }
}

impl Known {
    /// A switch remembers nothing any more.
    pub fn forget(&mut self, host: usize) {
        self.seen.retain(|(h, _), _| *h != host);
    }
}

impl World {
    // ---- At every event ----

    pub fn check_one_deliverer(&mut self, host: usize, key: Key) {
        let Some(vn) = self.hosts[host].workers.iter().find_map(|w| w.tables.vns.get(key.vn())) else {
            return;
        };
        let vm = VmKey { vni: vn.vni, mac: key.mac() };
        if vm.mac == names::VIRTUAL_MAC {
            return; // Whoever spoke last has it, and the one before hears of that in time.
        }
        // One that stands still delivers nothing, and hears what was said before it goes on.
        for other in (0..self.hosts.len()).filter(|h| *h != host && !self.is_stalled(*h)) {
            if self.hosts[other].workers.iter().any(|w| w.delivers(vm).is_some()) {
                let text = format!("n{host} begins to deliver {vm}, and n{other} still does");
                return self.fail(Invariant::OneDeliverer, text);
            }
        }
    }

    pub fn check_versions(&mut self, host: usize) {
        for vm in 0..self.guests.len() {
            let key = self.guests[vm].key;
            let version = self.hosts[host].nve.version(key);
            let seen = self.known.seen.entry((host, key)).or_default();
            if version < *seen && version != Version::ZERO {
                let text = format!("n{host} knew {seen} of {key} and now {version}");
                return self.fail(Invariant::Versions, text);
            }
            *seen = version.max(*seen);
        }
    }

    /// The NVA says this to somebody: from now on it must not forget it.
    pub fn promise(&mut self, message: &NvaToNve) {
        match message {
            NvaToNve::Snapshot { vms, .. } => vms.iter().for_each(|r| self.promise_record(r)),
            NvaToNve::Update { change: Change::Vm(record), .. }
            | NvaToNve::Response { record: Some(record), .. }
            | NvaToNve::Grant { record, .. }
            | NvaToNve::Deny { record: Some(record), .. }
            | NvaToNve::MovePrepare { record, .. }
            | NvaToNve::Bound { record, .. }
            | NvaToNve::Provision { record: Some(record), .. } => self.promise_record(record),
            _ => {}
        }
    }

    fn promise_record(&mut self, record: &VmRecord) {
        if !record.bound.is_empty()
            && let Some(guest) = self.guests.iter().find(|g| g.key == record.key)
        {
            self.words.holders.told(guest.vn, record);
        }
        let place = record.active_nve();
        let places = self.known.places.entry(record.key).or_default();
        let said = places.entry(record.version).or_insert_with(|| place.cloned());
        if said.as_ref() != place {
            let text = format!("{} of {} named {said:?} and now {place:?}", record.version, record.key);
            self.fail(Invariant::Versions, text);
        }
    }

    /// The NVA starts from its disk.
    pub fn check_disk(&mut self) {
        let disk = &self.nva.disk;
        let newest = |places: &BTreeMap<Version, Option<NveId>>| places.keys().next_back().copied();
        let forgotten = self.known.places.iter().find_map(|(key, places)| {
            let (said, has) = (newest(places)?, disk.vms.get(key).map(|r| r.version));
            has.is_none_or(|has| has < said)
                .then(|| format!("the NVA said {said} of {key}, its disk has {has:?}"))
        });
        let lost = self.known.orders.iter().find(|id| !disk.moves.contains_key(*id));
        let lost = lost.map(|id| format!("the NVA took move {id}, its disk has none of it"));
        if let Some(text) = forgotten.or(lost) {
            self.fail(Invariant::Remembers, text);
        }
    }

    /// After a transaction the disk holds what the directory knows of VMs.
    pub fn check_directory(&mut self) {
        let Some(directory) = &self.nva.directory else { return };
        for guest in &self.guests {
            let (has, disk) = (directory.vm(guest.key), self.nva.disk.vms.get(&guest.key));
            if has != disk {
                let text = format!("the directory has {has:?}, its disk {disk:?}");
                return self.fail(Invariant::Remembers, text);
            }
        }
        self.check_bound();
        self.check_drain();
    }

    // ---- At the end ----

    /// Why the fabric has not come to rest yet; `None` where it has.
    pub fn unrest(&self) -> Option<String> {
        if !self.scripts_are_done() {
            return Some("a move is on its way".into());
        }
        if self.now < self.stalls_until {
            return Some("somebody stands still".into());
        }
        let Some(directory) = self.nva.settled().filter(|d| self.nva.is_idle() && d.is_quiet()) else {
            return Some("the NVA has something to do".into());
        };
        if let Some(m) = directory.moves(None, true).first() {
            return Some(format!("move {} stands at {:?}", m.id, m.phase));
        }
        for guest in 0..self.guests.len() {
            if let Some(why) = self.unrest_of_record(guest) {
                return Some(why);
            }
        }
        self.unrest_of_addresses().or_else(|| (0..self.hosts.len()).find_map(|h| self.unrest_of_host(h)))
    }

    fn unrest_of_record(&self, vm: usize) -> Option<String> {
        let guest = &self.guests[vm];
        let Some(record) = self.nva.directory.as_ref()?.vm(guest.key) else {
            return Some(format!("the directory has no {}", guest.key));
        };
        let runs_at = guest.at.map(|(host, _)| names::nve(host));
        let right = runs_at.as_ref().is_some_and(|nve| record.is_at(nve)) && record.moving.is_none();
        (!right).then(|| format!("{} runs at {runs_at:?}, the directory has {record:?}", guest.key))
    }

    fn unrest_of_host(&self, host: usize) -> Option<String> {
        let h = &self.hosts[host];
        let nva = h.nve.nva();
        if !nva.connected || nva.claims_waiting > 0 || nva.queries_waiting > 0 || nva.synced < nva.vns {
            return Some(format!("n{host} stands so with the NVA: {nva:?}"));
        }
        // Who pulls has to ask, and a session that fell silent answers nothing until that is noticed.
        if !self.plan.pulls[host].is_empty() && h.conn.is_none_or(|conn| self.conns[conn].cut) {
            return Some(format!("n{host} has not noticed that its session is gone"));
        }
        if let Some(n) = h.nve.neighbors().iter().find(|n| n.mac.is_none()) {
            return Some(format!("n{host} is still asking for {}", n.ip));
        }
        for (number, worker) in h.workers.iter().enumerate() {
            if !worker.is_idle() || worker.tables.waiting() > 0 {
                return Some(format!("n{host}/{number} has something to do"));
            }
            let entry =
                |vm: usize| self.macs_of(vm).find_map(|mac| self.unrest_of_entry(host, worker, vm, mac));
            if let Some(why) = (0..self.guests.len()).find_map(entry) {
                return Some(format!("n{host}/{number}: {why}"));
            }
        }
        None
    }

    /// What a worker does with a VM's frames is what should be done.
    fn unrest_of_entry(&self, host: usize, worker: &Worker, vm: usize, mac: Mac) -> Option<String> {
        let guest = &self.guests[vm];
        let (owner, port) = guest.at?;
        let asked = VmKey { mac, ..guest.key };
        let key = worker.key(asked)?;
        let newest = self.nva.directory.as_ref()?.vm(guest.key)?.version;
        let knows = self.hosts[host].nve.version(guest.key);
        // What is pulled is known to those who use it; what is watched, or has no entry because it ran nowhere when it
        // was last heard of, is asked about when it is used (R40).
        let pulled = owner != host && self.plan.pulls[host].contains(&guest.vn);
        let asks_first = matches!(worker.tables.vms.get(key), None | Some(Fib::Ageing(_)));
        if pulled && (knows == Version::ZERO || asks_first) {
            return None;
        }
        if knows != newest {
            return Some(format!("knows {knows} of {}, newest is {newest}", guest.key));
        }
        if owner == host {
            let to = worker.delivers(asked);
            return (to != Some(port)).then(|| format!("delivers {asked} to {to:?}, not {port:?}"));
        }
        let target = match worker.tables.vms.get(key) {
            Some(Fib::Remote(to) | Fib::Ageing(to)) => Some(to),
            Some(Fib::Special(at)) => match worker.tables.vms.special(at).state {
                State::Known(VmState::Departed { to, .. }) => Some(to),
                _ => None,
            },
            _ => None,
        };
        let to = target.and_then(|t| worker.tables.tunnels.get(t.tunnel)).and_then(|t| t.remote);
        let vni = worker.tables.vns.get(key.vn()).map(|v| v.vni);
        let right = to.is_some_and(|ip| names::host_at(ip) == owner) && target.map(|t| t.vni) == vni;
        (!right).then(|| {
            let fib = worker.tables.vms.get(key);
            format!("sends {asked} to {to:?} ({fib:?}), it is at n{owner}")
        })
    }

    /// Every promised frame came, and every frame that came or went is accounted for.
    pub fn check_ledger(&mut self) {
        for flow in 0..self.flows.len() {
            let f = &self.flows[flow];
            let (from, Some(to)) = (f.from, f.to) else { continue };
            let promised = !f.periodic || self.is_promised(from, to);
            let lost: Vec<usize> = (0..f.received.len()).filter(|seq| f.received[*seq] == 0).collect();
            if promised && !lost.is_empty() {
                let text = format!(
                    "flow {flow} from vm {from} to vm {to}: {} of {} lost, the first {:?}",
                    lost.len(),
                    f.received.len(),
                    &lost[..lost.len().min(8)]
                );
                return self.fail(Invariant::NoLoss, text);
            }
        }
        self.check_questions();
        self.check_words();
        for host in 0..self.hosts.len() {
            for worker in 0..self.hosts[host].workers.len() {
                let off = self.hosts[host].workers[worker].imbalance();
                if off != 0 {
                    let text = format!("n{host}/{worker}: {off} frames are not accounted for");
                    return self.fail(Invariant::Balance, text);
                }
            }
        }
    }

    /// Where nothing fails, every guest that stayed was told what it asked for (R28): while the owner
    /// is moved, its switch goes on answering.
    fn check_questions(&mut self) {
        // Nobody answers for a VM that is shut down.
        if !matches!(self.plan.class, Class::Planned | Class::Frozen) || self.plan.interrupts() {
            return;
        }
        let stayed = |vm: usize, at| self.guests[vm].at == at && !self.guests[vm].has_moved;
        let open = self.questions.iter().find(|((vm, ..), q)| stayed(*vm, q.at));
        if let Some(((vm, target, nd), q)) = open {
            let what = if *nd { "ND" } else { "ARP" };
            let text = format!("vm {vm} asked by {what} for address {target} at {:?}: no answer", q.since);
            self.fail(Invariant::NoLoss, text);
        }
    }
}
