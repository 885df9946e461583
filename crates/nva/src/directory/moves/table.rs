//! The moves that are remembered, and where each of them stands.

use std::collections::{BTreeMap, BTreeSet};

use godwit_model::{DenyReason, MoveId, MoveOrigin, MovePhase, MoveRecord, NveId, Version, VmKey};

use super::super::StoredMove;
use super::Move;

/// A refused claim: of which VM, and by which NVE.
pub(super) type RefusedClaim = (VmKey, NveId);
/// What it was refused for: the VM's stay where it is, and the reason.
pub(super) type RefusedFor = (Version, DenyReason);

/// All moves, ordered or not.
#[derive(Default)]
pub(in crate::directory) struct Moves {
    by_id: BTreeMap<MoveId, Move>,
    /// For forgetting.
    by_age: BTreeMap<u64, MoveId>,
    /// Number of the youngest.
    last_number: u64,
    /// Neither done nor called off.
    open: BTreeSet<MoveId>,
    open_by_vm: BTreeSet<(VmKey, MoveId)>,
    /// Called off lately, and when, in microseconds since 1970 by the NVA's clock: an NVE that was away then is told
    /// when it is back.
    called_off: BTreeMap<MoveId, u64>,
    /// VMs whose last ordered move was ended by time alone: a late claim may be for that.
    timed_out: BTreeMap<VmKey, MoveId>,
    /// Refused claims that have a record of their own.
    refused: BTreeMap<RefusedClaim, (RefusedFor, MoveId)>,
    /// With steps or counts that are not persisted yet.
    unsaved: BTreeSet<MoveId>,
}

impl Moves {
    /// What was persisted.
    pub fn restored(stored: BTreeMap<MoveId, StoredMove>) -> Moves {
        let mut all = Moves::default();
        for (id, stored) in stored {
            all.last_number = all.last_number.max(stored.number);
            all.by_age.insert(stored.number, id.clone());
            match stored.record.phase {
                MovePhase::Done => {}
                MovePhase::Aborted | MovePhase::Failed => {
                    all.called_off.insert(id.clone(), ended_us(&stored.record));
                }
                _ => {
                    all.open.insert(id.clone());
                    all.open_by_vm.insert((stored.record.key, id.clone()));
                }
            }
            all.by_id.insert(id, Move::restored(stored));
        }
        // Each VM's newest order decides.
        let mut newest = BTreeMap::new();
        for m in all.by_age().filter(|m| m.record.origin != MoveOrigin::Unplanned) {
            newest.insert(m.record.key, m);
        }
        let late = newest.into_iter().filter(|(_, m)| m.timed_out());
        all.timed_out = late.map(|(key, m)| (key, m.record.id.clone())).collect();
        all
    }

    /// What is to be persisted.
    pub fn stored(&self) -> BTreeMap<MoveId, StoredMove> {
        self.by_id.iter().map(|(id, m)| (id.clone(), m.stored())).collect()
    }

    pub fn get(&self, id: &MoveId) -> Option<&Move> {
        self.by_id.get(id)
    }

    pub fn get_mut(&mut self, id: &MoveId) -> Option<&mut Move> {
        self.by_id.get_mut(id)
    }

    pub fn contains(&self, id: &MoveId) -> bool {
        self.by_id.contains_key(id)
    }

    /// All of them, oldest first.
    pub fn by_age(&self) -> impl Iterator<Item = &Move> {
        self.by_age.values().filter_map(|id| self.by_id.get(id))
    }

    /// Those behind the one with this number, with their numbers, oldest first.
    pub fn by_age_after(&self, last: Option<u64>) -> impl Iterator<Item = (u64, &MoveRecord)> {
        let behind = self.by_age.range(last.map_or(0, |n| n.saturating_add(1))..);
        behind.filter_map(|(n, id)| Some((*n, &self.by_id.get(id)?.record)))
    }

    /// Those that are neither done nor called off, by name.
    pub fn open(&self) -> impl Iterator<Item = &Move> {
        self.open.iter().filter_map(|id| self.by_id.get(id))
    }

    /// Those of one VM.
    pub fn open_of(&self, key: VmKey) -> impl Iterator<Item = &Move> {
        let mine = self.open_by_vm.range((key, MoveId(String::new()))..).take_while(move |(k, _)| *k == key);
        mine.filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Those that were called off lately, by name.
    pub fn called_off(&self) -> impl Iterator<Item = &Move> {
        self.called_off.keys().filter_map(|id| self.by_id.get(id))
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// A name that no move has.
    pub fn free_id(&self, prefix: char) -> Option<MoveId> {
        let named = (self.last_number + 1..).map(|n| MoveId(format!("{prefix}{n}")));
        named.into_iter().find(|id| !self.contains(id))
    }

    /// A new move is remembered, and is the youngest.
    pub(super) fn remember(&mut self, record: MoveRecord) {
        self.last_number += 1;
        let id = record.id.clone();
        self.by_age.insert(self.last_number, id.clone());
        self.by_id.insert(id, Move::new(StoredMove { number: self.last_number, record }));
    }

    /// Forgets the oldest one that is not open, where there are `max` or more; the forgotten one. An error where all
    /// of them are open.
    pub(super) fn make_room(&mut self, max: usize) -> Result<Option<MoveId>, AllOpen> {
        if self.by_id.len() < max {
            return Ok(None);
        }
        let oldest = self.by_age.values().find(|id| !self.open.contains(*id)).cloned().ok_or(AllOpen)?;
        if let Some(m) = self.by_id.remove(&oldest) {
            self.by_age.remove(&m.number);
        }
        self.called_off.remove(&oldest);
        self.unsaved.remove(&oldest);
        Ok(Some(oldest))
    }

    /// The move begins, or goes on after its time was over.
    pub(super) fn set_open(&mut self, id: &MoveId) {
        self.called_off.remove(id);
        if let Some(m) = self.by_id.get(id) {
            self.open_by_vm.insert((m.record.key, id.clone()));
        }
        self.open.insert(id.clone());
    }

    /// The move is done.
    pub(super) fn set_done(&mut self, id: &MoveId) {
        self.close(id);
    }

    fn close(&mut self, id: &MoveId) {
        self.open.remove(id);
        if let Some(m) = self.by_id.get(id) {
            self.open_by_vm.remove(&(m.record.key, id.clone()));
        }
    }

    /// The move has ended without a grant; `timed_out`: by time alone.
    pub(super) fn set_called_off(&mut self, id: &MoveId, timed_out: bool, now_us: u64) {
        self.close(id);
        self.called_off.insert(id.clone(), now_us);
        if let Some(m) = self.by_id.get(id).filter(|_| timed_out) {
            self.timed_out.insert(m.record.key, id.clone());
        }
    }

    /// Nobody is told any more of those that were called off before then, in microseconds since 1970.
    pub(super) fn forget_called_off(&mut self, horizon_us: u64) {
        self.called_off.retain(|_, ended_us| *ended_us >= horizon_us);
    }

    /// A newer order decides, or the move goes on.
    pub(super) fn forget_timed_out(&mut self, key: VmKey) {
        self.timed_out.remove(&key);
    }

    /// The VM's last ordered move, where only time has ended it.
    pub(super) fn timed_out(&self, key: VmKey) -> Option<&Move> {
        self.get(self.timed_out.get(&key)?)
    }

    /// A claim that was refused for the same before has a record.
    pub(super) fn has_refused(&self, claim: &RefusedClaim, why: &RefusedFor) -> bool {
        self.refused.get(claim).is_some_and(|(of, id)| of == why && self.contains(id))
    }

    /// The record of a refused claim; `max` of them at most are found again.
    pub(super) fn note_refused(&mut self, claim: RefusedClaim, why: RefusedFor, id: MoveId, max: usize) {
        if self.refused.len() >= max {
            let moves = &self.by_id;
            self.refused.retain(|_, (_, id)| moves.contains_key(id));
        }
        self.refused.insert(claim, (why, id));
    }

    #[cfg(test)]
    pub fn refused_count(&self) -> usize {
        self.refused.len()
    }

    /// It changed in a way that need not be durable at once.
    pub(super) fn set_unsaved(&mut self, id: &MoveId) {
        self.unsaved.insert(id.clone());
    }

    /// The move as it is to be persisted now.
    pub(super) fn take_for_saving(&mut self, id: &MoveId) -> Option<StoredMove> {
        self.unsaved.remove(id);
        self.get(id).map(Move::stored)
    }

    /// Those that changed since they were persisted.
    pub fn take_unsaved(&mut self) -> Vec<StoredMove> {
        let unsaved = std::mem::take(&mut self.unsaved);
        unsaved.iter().filter_map(|id| self.get(id)).map(Move::stored).collect()
    }
}

/// When the move ended: by its last step of the NVA itself, whatever clocks NVEs have.
fn ended_us(r: &MoveRecord) -> u64 {
    r.steps.iter().rfind(|s| s.nve.is_none()).map_or(0, |s| s.at_us)
}

/// Every place for moves is taken by one that is not over.
pub(super) struct AllOpen;
