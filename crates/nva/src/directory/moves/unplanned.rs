//! Moves that nobody ordered, and claims for VMs of other NVEs that were refused: they have a record like an
//! ordered move's, so that `godwitctl move list` and `move show` explain them too (R21, R22).
//!
//! The record begins when the verdict is known. What was done before is kept with the claim that waits for it.

use godwit_model::{
    ClaimCause, DenyReason, MoveId, MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStep, MoveStepKind,
    NveId, Version, VmKey,
};

use super::super::Directory;
use super::super::claim::ClaimRequest;

impl Directory {
    /// The first step of a claim that no order explains.
    pub(in crate::directory) fn claimed_step(&self, nve: &NveId, cause: ClaimCause) -> MoveStep {
        self.story_step(Some(nve), MoveStepKind::Claimed, cause.as_text())
    }

    /// A step of the NVA, or of an NVE.
    pub(in crate::directory) fn story_step(
        &self,
        nve: Option<&NveId>,
        what: MoveStepKind,
        note: &str,
    ) -> MoveStep {
        MoveStep { at_us: self.wall_us, nve: nve.cloned(), what, note: note.into() }
    }

    /// A VM goes from one NVE to another without an order: its record, which still waits for the grant. `None`
    /// where every place for moves is taken by one that is not over.
    pub(in crate::directory) fn unplanned_move(
        &mut self,
        key: VmKey,
        from: NveId,
        to: &NveId,
        asked: &ClaimRequest,
    ) -> Option<MoveId> {
        let record = self.unplanned_record(key, from, to, asked, MovePhase::Preparing, Version::ZERO)?;
        let id = record.id.clone();
        self.counts.moves_unplanned += 1;
        self.open_move(record);
        Some(id)
    }

    /// A claim for another NVE's VM was refused, and no ordered move has it in its history. Repeated claims against
    /// the same location add nothing, whatever else of the VM changes.
    pub(in crate::directory) fn unplanned_refused(
        &mut self,
        nve: &NveId,
        asked: &ClaimRequest,
        reason: DenyReason,
        text: &str,
    ) {
        use DenyReason as R;
        let contested = matches!(reason, R::OwnedElsewhere | R::Pinned | R::Frozen | R::Draining);
        let key = asked.key;
        let Some(r) = self.records.get(&key).filter(|r| contested && r.moving.is_none()) else { return };
        let Some(from) = r.active_nve().filter(|from| *from != nve).cloned() else { return };
        let version = r.version;
        let place = (key, nve.clone());
        let about = (self.stay(key), reason);
        if self.moves.has_refused(&place, &about) {
            return;
        }
        let Some(record) = self.unplanned_record(key, from, nve, asked, MovePhase::Failed, version) else {
            return;
        };
        let id = record.id.clone();
        self.moves.remember(record);
        self.nva_step(&id, MoveStepKind::Denied, text.into());
        self.save_move(&id);
        self.moves.note_refused(place, about, id, self.config.max_moves);
    }

    /// The VM's stay where it is, by the version with which it was lost before: another one after each change of its
    /// location, and only then.
    fn stay(&self, key: VmKey) -> Version {
        self.claims.former(key).map_or(Version::ZERO, |(_, version)| *version)
    }

    /// The record that it is to have.
    fn unplanned_record(
        &mut self,
        key: VmKey,
        from: NveId,
        to: &NveId,
        asked: &ClaimRequest,
        phase: MovePhase,
        version: Version,
    ) -> Option<MoveRecord> {
        self.make_room().ok()?;
        let id = self.moves.free_id('u')?;
        let vm = self.records.get(&key)?.name.clone();
        let steps = if asked.story.is_empty() {
            vec![self.claimed_step(to, asked.cause)]
        } else {
            asked.story.clone()
        };
        Some(MoveRecord {
            id,
            vm,
            key,
            from,
            to: to.clone(),
            mode: MoveMode::Hot,
            origin: MoveOrigin::Unplanned,
            phase,
            version,
            steps,
            counts: Vec::new(),
        })
    }
}
