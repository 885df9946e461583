//! What one VM's handover did with packets: counts from all workers, reported while they change.

use std::collections::BTreeMap;

use godwit_model::{HandoverCounts, MoveId, MoveStep, MoveStepKind, VmKey};
use godwit_tables::event::HandoverStats;
use godwit_wire::{Instant, Mac};

use super::{Action, Ctx};

/// One VM's handover.
#[derive(Default, Debug)]
pub(crate) struct Handover {
    /// The move that the counts belong to; without one they are only shown.
    pub(crate) move_id: Option<MoveId>,
    /// By worker and MAC: nested ones are counted with their VM (R94).
    workers: BTreeMap<(usize, Mac), HandoverStats>,
    counts: HandoverCounts,
    /// The counts as the NVA has them.
    reported: HandoverCounts,
    /// No report before then.
    rest_until: Instant,
    /// When the counts changed last.
    changed: Instant,
    /// Forwarded packets when LastForwarded was said.
    last_said: u64,
    /// When something is due.
    next: Option<Instant>,
}

impl Handover {
    /// A handover begins; earlier counts are over.
    pub(crate) fn begin(&mut self, move_id: Option<MoveId>) {
        *self = Handover { move_id, rest_until: self.rest_until, ..Handover::default() };
    }

    /// All workers together.
    pub(crate) fn counts(&self) -> HandoverCounts {
        self.counts
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// The NVA does not have everything yet.
    pub(crate) fn is_reporting(&self) -> bool {
        self.next.is_some()
    }

    /// A worker's totals of one MAC.
    pub(crate) fn heard(&mut self, from: (usize, Mac), stats: HandoverStats, key: VmKey, cx: &mut Ctx<'_>) {
        if self.workers.insert(from, stats) == Some(stats) {
            return;
        }
        self.counts = sum(&self.workers, cx);
        self.changed = cx.now;
        self.next = Some(self.rest_until.max(cx.now));
        self.tick(key, cx);
    }

    /// Reports what is due: changes at most every `counts_ival`, the last packet after quiet.
    pub(crate) fn tick(&mut self, key: VmKey, cx: &mut Ctx<'_>) {
        if self.next.is_none_or(|t| t > cx.now) {
            return;
        }
        if self.counts != self.reported {
            let first = self.reported.forwarded == 0 && self.counts.forwarded > 0;
            self.report(
                key,
                first.then_some((MoveStepKind::FirstForwarded, self.counts.first_forward_us)),
                cx,
            );
        }
        let quiet = self.changed + cx.config.counts_quiet;
        if self.counts.forwarded == self.last_said {
            self.next = None;
        } else if quiet <= cx.now {
            self.finish(key, cx);
        } else {
            self.next = Some(quiet);
        }
    }

    /// Forwarding has stopped, or must: says the last packet.
    pub(crate) fn finish(&mut self, key: VmKey, cx: &mut Ctx<'_>) {
        self.next = None;
        if self.counts.forwarded != self.last_said {
            self.last_said = self.counts.forwarded;
            self.report(key, Some((MoveStepKind::LastForwarded, self.counts.last_forward_us)), cx);
        }
    }

    fn report(&mut self, key: VmKey, step: Option<(MoveStepKind, u64)>, cx: &mut Ctx<'_>) {
        self.reported = self.counts;
        self.rest_until = cx.now + cx.config.counts_ival;
        let Some(id) = self.move_id.clone() else { return };
        let nve = Some(cx.config.nve.clone());
        let note = format!("{} forwarded of {key}", self.counts.forwarded);
        let step = step.map(|(what, at_us)| MoveStep { at_us, nve, what, note });
        cx.actions.push(Action::Report { id, step, counts: Some(self.counts) });
    }
}

/// All workers together, instants turned into wall-clock time.
fn sum(workers: &BTreeMap<(usize, Mac), HandoverStats>, cx: &Ctx<'_>) -> HandoverCounts {
    let wall = |at: Instant| cx.wall_us.saturating_sub(cx.now.since(at).0 / 1000);
    let mut all = HandoverCounts::default();
    for s in workers.values() {
        for (sum, n) in [
            (&mut all.held, s.held),
            (&mut all.flushed, s.flushed),
            (&mut all.forwarded, s.forwarded),
            (&mut all.dropped, s.dropped),
            (&mut all.dropped_memory, s.dropped_memory),
            (&mut all.dropped_limit, s.dropped_limit),
            (&mut all.dropped_age, s.dropped_age),
            (&mut all.held_bytes, s.bytes),
            (&mut all.peak_bytes, s.peak_bytes),
        ] {
            *sum = sum.saturating_add(n);
        }
    }
    let never = Instant(0);
    let first = workers.values().map(|s| s.first_forward).filter(|t| *t != never).min();
    let last = workers.values().map(|s| s.last_forward).filter(|t| *t != never).max();
    all.first_forward_us = first.map_or(0, wall);
    all.last_forward_us = last.map_or(0, wall);
    all
}
