//! The history of a move: its steps and counts.

use godwit_model::{HandoverCounts, MoveId, MoveStep, MoveStepKind, NveId, VmKey};

use super::super::{Directory, Level};

/// NVEs whose counts one move keeps.
const MAX_COUNTS: usize = 16;
/// A clock of an NVE that differs by more than a minute from the NVA's is wrong.
const CLOCKS_DIFFER_US: u64 = 60_000_000;

impl Directory {
    /// What an NVE says about a move: a step of the timeline, counts, or both.
    pub(in crate::directory) fn move_report(
        &mut self,
        nve: NveId,
        id: MoveId,
        step: Option<MoveStep>,
        counts: Option<HandoverCounts>,
    ) {
        if !self.moves.contains(&id) {
            return self.log(Level::Debug, format!("NVE {nve} reports of move {id}, which is forgotten"));
        }
        self.note_restart(&id);
        if let Some(counts) = counts {
            self.put_counts(&id, &nve, counts);
        }
        if self.moves.get(&id).is_some_and(|m| m.record.from == nve || m.record.to == nve) {
            self.move_lives(&id);
        }
        if let Some(mut step) = step {
            step.nve = Some(nve.clone());
            step.at_us = self.plausible_us(&id, step.at_us);
            let (what, note) = (step.what, step.note.clone());
            if let Some(m) = self.moves.get_mut(&id) {
                m.add_step(step, self.config.max_steps);
            }
            self.advance(&id, &nve, what, note);
        }
        self.changed(&id);
    }

    /// When a step was, by the clock of an NVE. One that is wrong puts it neither before the move nor after now.
    fn plausible_us(&self, id: &MoveId, at_us: u64) -> u64 {
        let began = self.moves.get(id).and_then(|m| m.record.steps.first()).map_or(0, |s| s.at_us);
        let may_be = began.saturating_sub(CLOCKS_DIFFER_US)..=self.wall_us.saturating_add(CLOCKS_DIFFER_US);
        if may_be.contains(&at_us) { at_us } else { self.wall_us }
    }

    fn put_counts(&mut self, id: &MoveId, nve: &NveId, counts: HandoverCounts) {
        let Some(m) = self.moves.get_mut(id) else { return };
        let all = &mut m.record.counts;
        if let Some((_, c)) = all.iter_mut().find(|(n, _)| n == nve) {
            *c = counts;
        } else if all.len() < MAX_COUNTS {
            all.push((nve.clone(), counts));
        }
    }

    /// The claim of an NVE that is refused while a move of the VM is under way belongs into its history.
    pub(in crate::directory) fn claim_refused(&mut self, key: VmKey, nve: &NveId, why: &str) {
        let Some(id) = self.records.get(&key).and_then(|r| r.moving.clone()) else { return };
        if self.moves.get(&id).is_some_and(|m| !m.has_step(nve, MoveStepKind::Denied)) {
            self.step(&id, MoveStepKind::Denied, Some(nve.clone()), why.into());
            self.changed(&id);
        }
    }

    /// A move that was under way at the restart says so before anything else is added to it.
    pub(super) fn note_restart(&mut self, id: &MoveId) {
        let Some(m) = self.moves.get_mut(id).filter(|m| m.restarted) else { return };
        m.restarted = false;
        let note = format!("the NVA restarted: epoch {}", self.epoch);
        let step = MoveStep { at_us: self.clock.started_us, nve: None, what: MoveStepKind::Restarted, note };
        m.add_step(step, self.config.max_steps);
        self.changed(id);
    }

    pub(in crate::directory) fn nva_step(&mut self, id: &MoveId, what: MoveStepKind, note: String) {
        self.step(id, what, None, note);
    }

    pub(super) fn step(&mut self, id: &MoveId, what: MoveStepKind, nve: Option<NveId>, note: String) {
        self.note_restart(id);
        let step = MoveStep { at_us: self.wall_us, nve, what, note };
        let max = self.config.max_steps;
        if let Some(m) = self.moves.get_mut(id) {
            m.add_step(step, max);
        }
    }
}
