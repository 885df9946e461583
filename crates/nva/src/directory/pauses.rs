//! Pauses of VMs' connections: ordered, ended by order or by time, and remembered for a while (R54).
//!
//! A pause is part of the VM's record: whichever NVE has the VM acts on it, and a restart forgets nothing. Other NVEs
//! send as before. Its time is that of the wall clock, which a restart of the NVA does not stop; an NVE that has lost
//! the NVA ends it by its own clock.

use godwit_model::{ConnectionPause, MoveId, MoveStepKind, PauseEnd, VmKey, VmRecord, WhilePaused, timing};

use super::{Directory, Level, Refusal};

/// The record of a pause outlives it so long, in microseconds.
const KEPT_US: u64 = timing::FWD_TIMER_MS * 1000;
/// Pauses, on or remembered, at the same time.
const MAX_PAUSES: usize = 65_536;

impl Directory {
    /// Pauses a VM's connections. The same again begins the time anew.
    ///
    /// # Errors
    /// Where the VM is unknown or behind an NVE that takes no orders, the time is of no use, or there are too many.
    pub(super) fn pause_vm(
        &mut self,
        vm: &str,
        treatment: WhilePaused,
        limit_s: u32,
    ) -> Result<VmRecord, Refusal> {
        let record = self.vm_named(vm)?;
        if !ConnectionPause::LIMITS.contains(&limit_s) {
            return Err(Refusal::BadPause(limit_s));
        }
        if let Some(nve) = record.active_nve().filter(|nve| self.is_foreign(nve)) {
            return Err(Refusal::PauseElsewhere { vm: vm.into(), nve: nve.clone() });
        }
        let (key, before) = (record.key, record.pause);
        if before.is_none() && self.records.pauses().len() >= MAX_PAUSES {
            return Err(Refusal::Full { what: "paused VMs", max: MAX_PAUSES });
        }
        // No two pauses of a VM are taken for one.
        let since_us = before.map_or(self.wall_us, |p| self.wall_us.max(p.since_us + 1));
        let pause = ConnectionPause { treatment, since_us, limit_s, ended: None };
        self.counts.pauses_ordered += 1;
        self.log(
            Level::Info,
            format!(
                "VM {vm} ({key}): its connections are paused for {limit_s} s at most, frames are {treatment}"
            ),
        );
        self.put_pause(key, Some(pause));
        if let Some(id) = self.moves_with_pause(key) {
            self.note_pause(&id);
        }
        self.vm_named(vm).cloned()
    }

    /// A VM's connections go on; what was held is delivered. Of a pause that has ended nothing is changed.
    ///
    /// # Errors
    /// Where the VM is unknown, or was not paused.
    pub(super) fn resume_vm(&mut self, vm: &str) -> Result<VmRecord, Refusal> {
        let record = self.vm_named(vm)?;
        let key = record.key;
        match record.pause {
            None => return Err(Refusal::NotPaused { vm: vm.into() }),
            Some(p) if p.is_on() => self.end_pause(key, PauseEnd::Resumed),
            Some(_) => {}
        }
        self.vm_named(vm).cloned()
    }

    /// Ends the pauses whose time is over, and forgets those that ended a while ago.
    pub(super) fn sweep_pauses(&mut self) {
        let now = self.wall_us;
        let mut due = Vec::new();
        for key in self.records.pauses() {
            let Some(p) = self.records.get(key).and_then(|r| r.pause) else { continue };
            match p.ended {
                None if p.due_us() <= now => due.push((*key, false)),
                Some((_, at)) if at.saturating_add(KEPT_US) <= now => due.push((*key, true)),
                _ => {}
            }
        }
        for (key, forgotten) in due {
            if !forgotten {
                self.counts.pauses_timed_out += 1;
                self.end_pause(key, PauseEnd::TimedOut);
            } else if let Some(mut record) = self.records.get(&key).cloned() {
                // Nothing follows from it for any NVE.
                record.pause = None;
                self.put_vm(record);
            }
        }
    }

    fn end_pause(&mut self, key: VmKey, end: PauseEnd) {
        let Some(record) = self.records.get(&key) else { return };
        let Some(pause) = record.paused().copied() else { return };
        let (name, level) =
            (record.name.clone(), if end == PauseEnd::Resumed { Level::Info } else { Level::Warn });
        let why = words(end);
        self.log(level, format!("VM {name} ({key}): its connections go on: {why}"));
        self.put_pause(key, Some(ConnectionPause { ended: Some((end, self.wall_us)), ..pause }));
        if let Some(id) = self.moves_with_pause(key) {
            self.nva_step(&id, MoveStepKind::ConnectionsResumed, why.into());
            self.save_move(&id);
        }
    }

    /// The record has this pause, and who hears of the VM hears of it.
    fn put_pause(&mut self, key: VmKey, pause: Option<ConnectionPause>) {
        let Some(mut record) = self.records.get(&key).cloned() else { return };
        record.pause = pause;
        record.version = self.next_version();
        self.put_vm(record);
        self.publish_in_place(key, None);
    }

    /// The move whose history has the pause: the one that is under way, or the last one if that ended not long ago.
    fn moves_with_pause(&self, key: VmKey) -> Option<MoveId> {
        if let Some(id) = self.records.get(&key).and_then(|r| r.moving.clone()) {
            return Some(id);
        }
        let last = self.moves.by_age().filter(|m| m.record.key == key).last()?;
        let ended = last.record.steps.last().map_or(0, |s| s.at_us);
        (ended.saturating_add(KEPT_US) > self.wall_us).then(|| last.record.id.clone())
    }

    /// The move's history says that the VM's connections are paused, if they are.
    pub(super) fn note_pause(&mut self, id: &MoveId) {
        let Some(key) = self.moves.get(id).map(|m| m.record.key) else { return };
        let Some(p) = self.records.get(&key).and_then(|r| r.paused()).copied() else { return };
        let note = format!("frames for the VM are {}, for {} s at most", p.treatment, p.limit_s);
        self.nva_step(id, MoveStepKind::ConnectionsPaused, note);
        self.save_move(id);
    }

    fn is_foreign(&self, nve: &godwit_model::NveId) -> bool {
        self.nves.get(nve).is_some_and(|n| n.record.foreign)
    }
}

fn words(end: PauseEnd) -> &'static str {
    match end {
        PauseEnd::Resumed => "by order",
        PauseEnd::TimedOut => "the time of the pause was over, and what was held is dropped",
    }
}
