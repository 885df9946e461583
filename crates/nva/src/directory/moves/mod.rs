//! Moves: intent, phases, timeline, history (R49, R57).
//!
//! `order` obeys the operator, `hot` has the parts of the two NVEs and their progress, `cold` what is different where
//! the VM is shut down, `warm` where its state is mirrored before, `phase` ends moves and grants them,
//! `timeline` keeps their history, `table` finds them. `unplanned` has the moves that nobody ordered.

mod cold;
mod hot;
mod order;
mod phase;
mod table;
mod timeline;
mod unplanned;
mod warm;

pub(super) use table::Moves;

use std::collections::BTreeMap;

use godwit_model::{MoveId, MovePhase, MoveRecord, MoveStep, MoveStepKind, NveId, Version, VmKey};
use godwit_wire::Instant;

use super::{Directory, Output, Refusal, StoredMove, Write};
use phase::NO_CLAIM;
use table::AllOpen;

/// Longest note of a step, in bytes.
const MAX_NOTE: usize = 200;
/// Steps of the NVA itself that a full timeline still takes: it always shows how the move ended.
const RESERVED_STEPS: usize = 8;

/// A move and what is needed to follow it.
pub(in crate::directory) struct Move {
    number: u64,
    pub record: MoveRecord,
    /// Updates with the new location that NVEs have not acknowledged.
    pub awaiting: BTreeMap<u64, NveId>,
    /// The old NVE withdrew this version while the move was under way.
    pub withdrawn: Option<Version>,
    /// When patience ends: so long after the last sign that the move goes on; set at the next sweep after a restart.
    pub deadline: Option<Instant>,
    /// When the old NVE said that the VM stands still, which it must not for ever, whatever signs there are but the
    /// order itself. None once it says that the VM runs there again.
    paused: Option<Instant>,
    /// It was under way when the NVA restarted, and its timeline does not say so yet.
    restarted: bool,
}

impl Move {
    /// One that begins now.
    pub fn new(stored: StoredMove) -> Move {
        Move { restarted: false, ..Move::restored(stored) }
    }

    pub fn restored(stored: StoredMove) -> Move {
        let StoredMove { number, record } = stored;
        let restarted = !record.phase.is_final();
        let paused = None;
        Move { number, record, awaiting: BTreeMap::new(), withdrawn: None, deadline: None, paused, restarted }
    }

    pub fn stored(&self) -> StoredMove {
        StoredMove { number: self.number, record: self.record.clone() }
    }

    /// Ordered, and neither granted nor called off: the intent is in force.
    pub fn awaits_grant(&self) -> bool {
        self.record.phase.awaits_grant()
    }

    /// Nobody called it off: its time was over, and its parties may not know.
    pub fn timed_out(&self) -> bool {
        let last = self.record.steps.iter().rfind(|s| s.what == MoveStepKind::Aborted);
        self.record.phase == MovePhase::Aborted && last.is_some_and(|s| s.note.contains(NO_CLAIM))
    }

    /// Who has not acknowledged the new location, as the end of a sentence.
    fn unaware(&self) -> String {
        let names: Vec<&str> = self.awaiting.values().map(NveId::as_str).collect();
        if names.is_empty() {
            String::new()
        } else {
            format!(" before {} had acknowledged", names.join(", "))
        }
    }

    /// Both NVEs are ready for it.
    fn both_prepared(&self) -> bool {
        let prepared = |nve| self.has_step(nve, MoveStepKind::Prepared);
        prepared(&self.record.from) && prepared(&self.record.to)
    }

    fn has_step(&self, nve: &NveId, what: MoveStepKind) -> bool {
        self.record.steps.iter().any(|s| s.what == what && s.nve.as_ref() == Some(nve))
    }

    /// Adds to the timeline, unless it says nothing new or the timeline is full.
    fn add_step(&mut self, mut step: MoveStep, max: usize) {
        use MoveStepKind as K;
        if let Some(nve) = &step.nve {
            let once = matches!(step.what, K::Prepared | K::Claimed | K::FirstForwarded | K::Denied);
            if once && self.has_step(nve, step.what) || self.record.steps.contains(&step) {
                return;
            }
            if step.what == K::LastForwarded {
                self.record.steps.retain(|s| s.what != K::LastForwarded || s.nve != step.nve);
            }
        }
        let max = if step.nve.is_none() { max + RESERVED_STEPS } else { max };
        if self.record.steps.len() < max {
            truncate(&mut step.note);
            self.record.steps.push(step);
        }
    }
}

fn truncate(note: &mut String) {
    if note.len() > MAX_NOTE {
        let end = (0..=MAX_NOTE).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
        note.truncate(end);
    }
}

impl Directory {
    /// Forgets the oldest finished move where there are as many as the bound.
    pub(in crate::directory) fn make_room(&mut self) -> Result<(), Refusal> {
        let max = self.config.max_moves;
        match self.moves.make_room(max) {
            Ok(None) => {}
            Ok(Some(oldest)) => self.persist(Write::RemoveMove(oldest)),
            Err(AllOpen) => return Err(Refusal::Full { what: "unfinished moves", max }),
        }
        Ok(())
    }

    /// A move begins, and waits for its grant.
    fn open_move(&mut self, record: MoveRecord) {
        let id = record.id.clone();
        self.moves.remember(record);
        self.moves.set_open(&id);
        let deadline = self.now + self.config.intent_timeout;
        if let Some(m) = self.moves.get_mut(&id) {
            m.deadline = Some(deadline);
        }
    }

    fn set_moving(&mut self, key: VmKey, moving: Option<MoveId>) {
        let Some(mut record) = self.records.get(&key).cloned() else { return };
        if record.moving != moving {
            record.moving = moving;
            self.put_vm(record);
        }
    }

    /// The record changed in a way that a crash may undo: it is persisted with the next sweep.
    fn changed(&mut self, id: &MoveId) {
        self.moves.set_unsaved(id);
        self.out.push(Output::MoveChanged(id.clone()));
    }

    pub(in crate::directory) fn save_move(&mut self, id: &MoveId) {
        if let Some(stored) = self.moves.take_for_saving(id) {
            self.persist(Write::PutMove(stored));
            self.out.push(Output::MoveChanged(id.clone()));
        }
    }
}
