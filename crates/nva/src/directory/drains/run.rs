//! A drain goes on: moves that ended are counted, others are ordered, until nothing is left that can be moved.

use std::borrow::Cow;

use godwit_model::{DrainPhase, MoveId, MoveMode, MovePhase, MoveStepKind, NveId, VmKey};
use godwit_wire::Span;

use super::super::{Directory, DrainFailure, Level, Write};
use super::rules::{self, Left, Taker};
use super::{Drain, Drains};

/// A VM whose moves failed so often is left.
const MAX_TRIES: u32 = 3;
/// VMs that moves have failed of; more end the drain.
const MAX_FAILED: usize = 256;
/// So many moves that fail in a row end the drain, or twice as many as go on at the same time where that is more.
const MAX_IN_ROW: u32 = 8;
/// VMs that are looked at in one step.
const LOOKS: usize = 256;
/// Whoever is left for a reason that may pass is looked at again after so long.
const AGAIN: Span = Span::from_ms(500);
/// A switch that is back claims the VMs that it has within this time.
const SETTLED: Span = Span::from_ms(10_000);

impl Drain {
    /// Too much fails for it to go on.
    fn is_hopeless(&self) -> bool {
        let r = &self.record;
        r.failed_in_row >= MAX_IN_ROW.max(2 * r.parallel) || r.failed.len() >= MAX_FAILED
    }

    fn failed(&mut self, key: VmKey, reason: String) {
        let f = self.record.failed.entry(key).or_insert(DrainFailure { tries: 0, reason: String::new() });
        (f.tries, f.reason) = (f.tries.saturating_add(1), reason);
        self.record.failed_in_row = self.record.failed_in_row.saturating_add(1);
        self.changed = true;
    }

    fn is_given_up(&self, key: &VmKey) -> bool {
        self.record.failed.get(key).is_some_and(|f| f.tries >= MAX_TRIES)
    }
}

impl Drains {
    /// Those that something is to be done for.
    fn active(&self) -> Vec<NveId> {
        self.by_nve.iter().filter(|(_, d)| d.is_active()).map(|(nve, _)| nve.clone()).collect()
    }
}

impl Directory {
    /// One step of each drain.
    pub(in crate::directory) fn go_on_draining(&mut self) {
        for nve in self.drains.active() {
            let Some(mut drain) = self.drains.by_nve.remove(&nve) else { continue };
            self.collect_moves(&mut drain);
            if drain.record.phase == DrainPhase::Running {
                self.watch_source(&mut drain);
                self.order_moves(&mut drain);
                self.conclude(&mut drain);
            }
            if std::mem::take(&mut drain.changed) {
                self.persist(Write::PutDrain(Box::new(drain.record.clone())));
            }
            self.drains.by_nve.insert(nve, drain);
        }
    }

    /// Counts its moves that have ended.
    fn collect_moves(&mut self, drain: &mut Drain) {
        let ended = |id: &MoveId| self.moves.get(id).is_none_or(|m| m.record.phase.is_final());
        let moving = drain.record.moving.iter().filter(|(_, id)| ended(id));
        let over: Vec<(VmKey, MoveId)> = moving.map(|(key, id)| (*key, id.clone())).collect();
        for (key, id) in over {
            drain.record.moving.remove(&key);
            drain.progress = Some(self.now);
            drain.changed = true;
            let gone = || self.records.get(&key).is_none_or(|r| !r.is_at(&drain.record.nve));
            match self.moves.get(&id).map(|m| &m.record) {
                Some(m) if m.phase != MovePhase::Done => {
                    let last = m
                        .steps
                        .iter()
                        .rfind(|s| matches!(s.what, MoveStepKind::Aborted | MoveStepKind::Failed));
                    let why = last.map(|s| format!("move {id}: {}", s.note)).unwrap_or_default();
                    drain.failed(key, why);
                }
                // It was forgotten since: the VM's place says how it ended.
                None if !gone() => drain.failed(key, format!("move {id} is forgotten")),
                _ => {
                    drain.record.moved = drain.record.moved.saturating_add(1);
                    drain.record.failed.remove(&key);
                    drain.record.failed_in_row = 0;
                    self.counts.vms_drained += 1;
                }
            }
        }
    }

    /// Notes since when the NVE has had its session.
    fn watch_source(&mut self, drain: &mut Drain) {
        let now = self.now;
        let session = self.session_of(&drain.record.nve);
        if drain.session.map(|(s, _)| s) != session {
            drain.session = session.map(|s| (s, Some(now)));
            drain.progress = Some(now);
        }
    }

    /// Orders moves of those in the queue, as many as may go on.
    fn order_moves(&mut self, drain: &mut Drain) {
        let parallel = usize::try_from(drain.record.parallel).unwrap_or(usize::MAX);
        for _ in 0..LOOKS {
            if drain.record.moving.len() >= parallel || drain.is_hopeless() {
                return;
            }
            let Some(key) = drain.queue.pop_front() else { return };
            let here = self.records.get(&key).is_some_and(|r| r.active_nve() == Some(&drain.record.nve));
            if !here || drain.is_given_up(&key) || drain.record.moving.contains_key(&key) {
                continue;
            }
            match self.place_for(drain, key, &self.takers(&drain.record)) {
                Ok((to, mode)) => self.order_one(drain, key, &to, mode),
                Err(left) => drain.waits |= left.may_pass(),
            }
        }
    }

    /// Where a VM of the drained NVE goes now, and how; else why it is left.
    pub(super) fn place_for(
        &self,
        drain: &Drain,
        key: VmKey,
        takers: &[Taker],
    ) -> Result<(NveId, MoveMode), Left> {
        let Some(r) = self.records.get(&key) else { return Err(Left::SourceAway) };
        let mode = self.drain_mode(&drain.record, r)?;
        if let Some((id, ..)) = self.intent(r) {
            return Err(Left::Moving(id));
        }
        let needs = self.needs(&drain.record.nve, r, mode);
        let takers: Cow<[Taker]> = match self.access.is_empty() {
            true => takers.into(),
            false => takers.iter().filter(|t| self.may_take_part(&t.nve, key.vni)).cloned().collect(),
        };
        rules::choose(&takers, &needs).map(|t| (t.nve.clone(), mode)).map_err(Left::Nowhere)
    }

    fn order_one(&mut self, drain: &mut Drain, key: VmKey, to: &NveId, mode: MoveMode) {
        let Some(vm) = self.records.get(&key).map(|r| r.name.clone()) else { return };
        let id = self.moves.free_id('d').map(|id| id.0).unwrap_or_default();
        match self.start_move(&vm, to, mode, &id, drain.record.accept_interruption) {
            Ok(record) => {
                drain.record.moving.insert(key, record.id);
                drain.started = true;
                drain.changed = true;
            }
            Err(refusal) => drain.failed(key, refusal.to_string()),
        }
        drain.progress = Some(self.now);
    }

    /// The queue is through, and no move is under way: once more, later, or the end.
    fn conclude(&mut self, drain: &mut Drain) {
        if !drain.record.moving.is_empty() {
            return;
        }
        if drain.is_hopeless() {
            let n = drain.record.failed_in_row;
            let note = match n >= MAX_IN_ROW {
                true => format!("the last {n} moves failed; does a VM manager perform them?"),
                false => format!("the moves of {} VMs failed", drain.record.failed.len()),
            };
            return self.end_drain(drain, note);
        }
        if !drain.queue.is_empty() || drain.again > self.now {
            return;
        }
        let fresh = drain.progress.is_none();
        let progress = *drain.progress.get_or_insert(self.now);
        let here: Vec<VmKey> = self.vms_at(&drain.record.nve);
        let takers = self.takers(&drain.record);
        let may_go = |key: &VmKey| !drain.is_given_up(key) && self.place_for(drain, *key, &takers).is_ok();
        let open = here.iter().any(may_go);
        let source = drain.session.and_then(|(_, since)| since).map(|since| since + SETTLED);
        let unsettled = drain.session.is_none() || source.is_some_and(|at| at > self.now);
        let waits = std::mem::take(&mut drain.waits) || unsettled;
        let started = std::mem::take(&mut drain.started);
        if !(fresh || started || open) {
            if !waits {
                return self.end_drain(drain, String::new());
            }
            if progress + self.config.intent_timeout <= self.now {
                let s = self.config.intent_timeout.as_ms() / 1000;
                return self.end_drain(drain, format!("nothing more could be moved for {s} s"));
            }
            drain.again = self.now + AGAIN;
        }
        drain.queue = here.into();
        // Those that failed before come last.
        let failed = &drain.record.failed;
        drain.queue.make_contiguous().sort_by_key(|key| failed.contains_key(key));
    }

    fn end_drain(&mut self, drain: &mut Drain, note: String) {
        let record = &mut drain.record;
        (record.phase, record.ended_us) = (DrainPhase::Ended, self.wall_us);
        record.note = note;
        drain.changed = true;
        drain.queue.clear();
        let (nve, moved) = (record.nve.clone(), record.moved);
        let left = self.vms_at(&nve).len();
        let level = if left == 0 { Level::Info } else { Level::Warn };
        self.log(level, format!("drain of NVE {nve}: ended, {moved} VMs moved, {left} left"));
    }
}
