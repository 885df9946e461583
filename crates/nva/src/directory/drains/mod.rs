//! Drains: an NVE is emptied by moves, and takes no VMs meanwhile (R85).
//!
//! A drain is ordered, goes on by itself (`run`), and can be looked at (`view`). `rules` decides where a VM may go. The
//! record is durable, so that a drain survives the NVA as it survives who ordered it; what is kept beside it is found
//! again by looking. VM managers perform the moves, as any other.

mod rules;
mod run;
mod view;

pub use view::{DrainInfo, DrainedVm, VmUnderWay};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use godwit_model::{DenyReason, DrainPhase, MAX_PARALLEL_MOVES, MoveId, NveId, VmKey, VmRecord};
use godwit_wire::Instant;

use super::{Directory, DrainOrder, DrainRecord, Level, Refusal, SessionId, Write};
use rules::{Group, Left, Needs, Taker};

/// VMs of an NVE that does not say how many it takes: as many as ports.
const CAPACITY_UNSAID: usize = 1024;

/// A drain, and what is needed to go on with it.
struct Drain {
    record: DrainRecord,
    /// VMs that are looked at next.
    queue: VecDeque<VmKey>,
    /// A move was ordered since the queue was filled.
    started: bool,
    /// A VM of the queue was left for a reason that may pass.
    waits: bool,
    /// Whoever is left is looked at again from then on.
    again: Instant,
    /// When something was last done.
    progress: Option<Instant>,
    /// The session of the NVE, and since when; `None`: that with which the drain was ordered.
    session: Option<(SessionId, Option<Instant>)>,
    /// The record is to be made durable.
    changed: bool,
}

impl Drain {
    fn new(record: DrainRecord) -> Drain {
        Drain {
            record,
            queue: VecDeque::new(),
            started: false,
            waits: false,
            again: Instant(0),
            progress: None,
            session: None,
            changed: false,
        }
    }

    /// There is something to be done for it.
    fn is_active(&self) -> bool {
        self.record.phase == DrainPhase::Running || !self.record.moving.is_empty()
    }
}

/// All drains, by NVE.
#[derive(Default)]
pub(super) struct Drains {
    by_nve: BTreeMap<NveId, Drain>,
}

impl Drains {
    /// What was persisted.
    pub fn restored(stored: BTreeMap<NveId, DrainRecord>) -> Drains {
        Drains { by_nve: stored.into_iter().map(|(nve, record)| (nve, Drain::new(record))).collect() }
    }

    /// What is to be persisted.
    pub fn stored(&self) -> BTreeMap<NveId, DrainRecord> {
        self.by_nve.iter().map(|(nve, d)| (nve.clone(), d.record.clone())).collect()
    }

    fn has(&self, nve: &NveId) -> bool {
        self.by_nve.contains_key(nve)
    }

    /// How far the drain of an NVE is; `None`: it is not drained.
    pub fn phase(&self, nve: &NveId) -> Option<DrainPhase> {
        self.by_nve.get(nve).map(|d| d.record.phase)
    }
}

impl Directory {
    /// Begins to empty an NVE, or goes on with that; the same order again changes nothing of a drain that runs.
    ///
    /// # Errors
    /// Where the NVE or one of those that its VMs are to go to is unknown, away or foreign, or they cannot take
    /// its VMs.
    pub(super) fn drain_nve(&mut self, order: DrainOrder) -> Result<DrainInfo, Refusal> {
        let DrainOrder { nve, mut to, parallel, accept_interruption } = order;
        to.sort();
        to.dedup();
        self.check_drain(&nve, &to, parallel)?;
        let here = self.vms_at(&nve);
        let before = self.drains.by_nve.get(&nve).map(|d| d.record.clone());
        let known = before.is_some();
        // One that has emptied the NVE keeps its report.
        let goes_on = |r: &DrainRecord| r.phase != DrainPhase::Ended || here.is_empty();
        let mut record = before.filter(goes_on).unwrap_or_else(|| DrainRecord {
            nve: nve.clone(),
            to: Vec::new(),
            parallel,
            accept_interruption,
            phase: DrainPhase::Stopped,
            ordered_us: self.wall_us,
            ended_us: 0,
            total: u32_of(here.len()),
            moved: 0,
            moving: BTreeMap::new(),
            failed: BTreeMap::new(),
            failed_in_row: 0,
            note: String::new(),
        });
        record.to = to;
        (record.parallel, record.accept_interruption) = (parallel, accept_interruption);
        self.check_places(&record, &here)?;
        if record.phase == DrainPhase::Stopped {
            record.phase = DrainPhase::Running;
            record.total = record.moved.saturating_add(u32_of(here.len()));
            (record.ended_us, record.failed_in_row) = (0, 0);
            record.failed.clear();
            record.note.clear();
        }
        if known {
            self.log(Level::Info, format!("drain of NVE {nve}: goes on with {} VMs", here.len()));
        } else {
            self.counts.drains_ordered += 1;
            self.log(Level::Info, format!("drain of NVE {nve}: ordered, {} VMs", here.len()));
        }
        self.refuse_claims_under_way(&nve);
        let fresh = self.session_of(&nve).map(|s| (s, None));
        let session = self.drains.by_nve.get(&nve).map_or(fresh, |d| d.session);
        let progress = Some(self.now);
        self.persist(Write::PutDrain(Box::new(record.clone())));
        self.drains.by_nve.insert(nve.clone(), Drain { session, progress, ..Drain::new(record) });
        self.drain_info(&nve)
    }

    /// What is wrong with the order, whatever VMs there are.
    fn check_drain(&self, nve: &NveId, to: &[NveId], parallel: u32) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::CannotDrain { nve: nve.clone(), why });
        let n = self.nves.get(nve).ok_or_else(|| Refusal::UnknownNve(nve.to_string()))?;
        if parallel == 0 || parallel > MAX_PARALLEL_MOVES {
            return Err(Refusal::BadParallel(parallel));
        }
        if n.record.foreign {
            return refuse(
                "it is defined without a session, and its VMs are pinned; define them elsewhere".into(),
            );
        }
        // A drain that has begun waits for it.
        if n.session.is_none() && !self.drains.has(nve) {
            return Err(Refusal::NveNotConnected { nve: nve.clone() });
        }
        for other in to {
            let t = self.nves.get(other).ok_or_else(|| Refusal::UnknownNve(other.to_string()))?;
            if other == nve {
                return refuse("its VMs cannot go to itself; name another NVE".into());
            }
            if t.record.foreign {
                return refuse(format!(
                    "NVE {other} has no session, and VMs do not move there; name another one"
                ));
            }
            if self.drains.has(other) {
                return Err(Refusal::NveDraining { nve: other.clone() });
            }
            if t.session.is_none() {
                return Err(Refusal::NveNotConnected { nve: other.clone() });
            }
        }
        Ok(())
    }

    /// Whether the other NVEs can take the VMs that may move at all.
    fn check_places(&self, record: &DrainRecord, here: &[VmKey]) -> Result<(), Refusal> {
        let mut groups: BTreeMap<_, Group> = BTreeMap::new();
        // Those under way have their places.
        for key in here.iter().filter(|key| !record.moving.contains_key(key)) {
            let Some(r) = self.records.get(key) else { continue };
            let Ok(mode) = self.drain_mode(record, r) else { continue };
            let group = groups.entry((key.vni, mode as u8)).or_insert_with(|| Group {
                vn: self.vns.record(key.vni).map(|r| r.name.clone()).unwrap_or_default(),
                needs: self.needs(&record.nve, r, mode),
                vms: 0,
            });
            group.vms += 1;
        }
        let groups: Vec<Group> = groups.into_values().collect();
        rules::check(&groups, &self.takers(record))
            .map_err(|why| Refusal::CannotDrain { nve: record.nve.clone(), why })
    }

    /// The mode in which the drain moves a VM, if it may move.
    fn drain_mode(&self, drain: &DrainRecord, r: &VmRecord) -> Result<godwit_model::MoveMode, Left> {
        if r.pinned {
            return Err(Left::Pinned);
        }
        if r.frozen {
            return Err(Left::Frozen);
        }
        let vn = self.vns.record(r.key.vni).map(|vn| vn.settings.modes).unwrap_or_default();
        let nve = self.nves.get(&drain.nve).filter(|n| n.session.is_some());
        let nve = nve.map(|n| n.abilities.modes).ok_or(Left::SourceAway)?;
        rules::mode(vn, nve, drain.accept_interruption)
    }

    /// What a VM needs of its new NVE: all that send to it have a family of locators in common with it.
    fn needs(&self, from: &NveId, r: &VmRecord, mode: godwit_model::MoveMode) -> Needs {
        let members = self.vns.get(r.key.vni).into_iter().flat_map(|vn| &vn.members);
        let all = members.chain([from]).filter_map(|nve| self.nves.get(nve));
        Needs::new(mode, all.map(|n| (&n.record.id, n.record.locators)))
    }

    /// Those that may take its VMs, with their room.
    fn takers(&self, drain: &DrainRecord) -> Vec<Taker> {
        let mut coming: BTreeMap<&NveId, usize> = BTreeMap::new();
        for m in self.moves.open().filter(|m| m.awaits_grant()) {
            *coming.entry(&m.record.to).or_default() += 1;
        }
        let named: BTreeSet<&NveId> = drain.to.iter().collect();
        let may = |nve: &NveId| *nve != drain.nve && (named.is_empty() || named.contains(nve));
        let others = self.nves.iter().filter(|(nve, n)| may(nve) && !n.record.foreign);
        let taker = |(nve, n): (&NveId, &super::nves::Nve)| {
            let said = usize::try_from(n.abilities.capacity).unwrap_or(usize::MAX);
            let capacity = if said == 0 { CAPACITY_UNSAID } else { said };
            let taken = n.vms.len() + coming.get(nve).copied().unwrap_or(0);
            Taker {
                nve: nve.clone(),
                locators: n.record.locators,
                modes: n.abilities.modes,
                connected: n.session.is_some(),
                draining: self.drains.has(nve),
                capacity,
                free: capacity.saturating_sub(taken),
            }
        };
        others.map(taker).collect()
    }

    /// The VMs that are located at an NVE.
    fn vms_at(&self, nve: &NveId) -> Vec<VmKey> {
        let vms = self.nves.get(nve).into_iter().flat_map(|n| &n.vms);
        let here = |key: &&VmKey| self.records.get(key).is_some_and(|r| r.active_nve() == Some(nve));
        vms.filter(here).copied().collect()
    }

    /// Orders no more moves.
    ///
    /// # Errors
    /// Where the NVE is not drained.
    pub(super) fn stop_drain(&mut self, nve: &NveId) -> Result<DrainInfo, Refusal> {
        let wall_us = self.wall_us;
        let drain = self.drain_mut(nve)?;
        if drain.record.phase == DrainPhase::Running {
            drain.record.phase = DrainPhase::Stopped;
            drain.record.ended_us = wall_us;
            drain.queue.clear();
            let record = drain.record.clone();
            self.persist(Write::PutDrain(Box::new(record)));
            self.log(Level::Info, format!("drain of NVE {nve}: stopped by the operator"));
        }
        self.drain_info(nve)
    }

    /// The NVE takes VMs again. Moves that are under way go on.
    ///
    /// # Errors
    /// Where the NVE is not drained.
    pub(super) fn undrain_nve(&mut self, nve: &NveId) -> Result<DrainInfo, Refusal> {
        let info = self.drain_info(nve)?;
        self.forget_drain(nve);
        self.log(Level::Info, format!("NVE {nve} takes VMs again"));
        Ok(info)
    }

    pub(super) fn forget_drain(&mut self, nve: &NveId) {
        if self.drains.by_nve.remove(nve).is_some() {
            self.persist(Write::RemoveDrain(nve.clone()));
        }
    }

    fn drain_mut(&mut self, nve: &NveId) -> Result<&mut Drain, Refusal> {
        if !self.nves.contains_key(nve) {
            return Err(Refusal::UnknownNve(nve.to_string()));
        }
        let drain = self.drains.by_nve.get_mut(nve);
        drain.ok_or_else(|| Refusal::NotDraining { nve: nve.clone() })
    }

    /// An order that brings a VM to the NVE is refused while it is drained.
    ///
    /// # Errors
    /// Where it is.
    pub(super) fn check_takes_vms(&self, nve: &NveId) -> Result<(), Refusal> {
        if self.drains.has(nve) { Err(Refusal::NveDraining { nve: nve.clone() }) } else { Ok(()) }
    }

    /// The claim would bring a VM to an NVE that is drained: one that was not there last, and whose move there was not
    /// ordered before the drain.
    pub(super) fn is_newcomer(
        &self,
        nve: &NveId,
        r: &VmRecord,
        intent: Option<&(MoveId, NveId, NveId)>,
    ) -> bool {
        // Of a VM that is attached elsewhere meanwhile, the drained NVE is no home any more.
        let was_here = || self.claims.former(r.key).is_some_and(|(former, _)| former == nve);
        let at_home = r.is_at(nve) || !r.is_active() && was_here();
        self.drains.has(nve)
            && !at_home
            // It moves there, or goes back to where its move began.
            && intent.is_none_or(|(_, from, to)| to != nve && from != nve)
            && self.late_move(r.key, nve).is_none()
    }

    /// A switch of a release without drains is refused for a reason that it knows.
    pub(super) fn as_known_to(&self, nve: &NveId, reason: DenyReason) -> DenyReason {
        let says_capacity = self.nves.get(nve).is_some_and(|n| n.abilities.capacity > 0);
        if reason == DenyReason::Draining && !says_capacity { DenyReason::OwnedElsewhere } else { reason }
    }
}

fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
