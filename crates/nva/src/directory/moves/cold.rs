//! Moves that interrupt their VM: it is shut down at its old NVE, then started at its new one (R51, R56).
//!
//! The five steps of the draft's section 4.3: the VM is *stopped* and its state *packaged* at the old NVE, *sent*,
//! *instantiated* at the new host, and started. The old NVE's withdrawal says that it is stopped; its manager may say
//! so, too, and says what only it knows of the others. The start is the grant of the new NVE's claim. In between the VM
//! is detached. A warm move has two of them: its state is mirrored before.

use godwit_model::{
    MoveEvent, MoveId, MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStepKind, Next, NveId, VmKey,
    VmRecord,
};

use super::super::{Directory, Level, Refusal};

/// What those who order a move that interrupts its VM accept.
fn notice(vm: &str, mode: MoveMode) -> String {
    let lost = match mode {
        MoveMode::Warm => ", and what it did after its last mirror is lost",
        MoveMode::Hot | MoveMode::Cold => "",
    };
    format!("a {mode} move shuts VM {vm} down and starts it anew: its connections end{lost}")
}

impl Directory {
    /// The VN and both NVEs take part in moves of this mode, and whoever orders it accepts what it means (R56).
    pub(super) fn check_mode(
        &self,
        r: &VmRecord,
        (from, to): (&NveId, &NveId),
        mode: MoveMode,
        accept: bool,
    ) -> Result<(), Refusal> {
        let vn = self.vns.record(r.key.vni);
        if let Some(vn) = vn.filter(|vn| !vn.settings.modes.has(mode)) {
            let (vm, vn, modes) = (r.name.clone(), vn.name.clone(), vn.settings.modes);
            return Err(Refusal::ModeOfVn { vm, vn, mode, modes });
        }
        // What one that is away takes part in is not known after a restart.
        let connected =
            [from, to].into_iter().filter_map(|nve| self.nves.get(nve)).filter(|n| n.session.is_some());
        for n in connected {
            if !n.abilities.modes.has(mode) {
                let (nve, modes) = (n.record.id.clone(), n.abilities.modes);
                return Err(Refusal::ModeOfNve { nve, mode, modes });
            }
        }
        if mode == MoveMode::Warm {
            Self::check_mirrored(r, to)?;
        }
        if mode.interrupts() && !accept {
            return Err(Refusal::Interrupts { notice: notice(&r.name, mode) });
        }
        Ok(())
    }

    /// The notice that was accepted is part of the move's history (R56).
    pub(super) fn note_accepted(&mut self, id: &MoveId) {
        let Some(r) = self.moves.get(id).map(|m| &m.record).filter(|r| r.mode.interrupts()) else { return };
        let mut text = notice(&r.vm, r.mode);
        let mirror = self.records.get(&r.key).and_then(|r| r.standby.as_ref());
        if let Some(mirror) = mirror.filter(|_| r.mode == MoveMode::Warm) {
            let age = self.wall_us.saturating_sub(mirror.mirrored_us) / 1_000_000;
            text += &format!(" (mirrored {age} s ago)");
        }
        self.nva_step(id, MoveStepKind::Accepted, text);
    }

    /// What an event leads to; whether the phase changed.
    pub(super) fn event(&mut self, id: &MoveId, event: MoveEvent) -> Next {
        let Some(m) = self.moves.get_mut(id) else { return Next::OutOfOrder };
        let next = m.record.phase.after(m.record.mode, event);
        if let Next::To(phase) = next {
            m.record.phase = phase;
        }
        next
    }

    /// The VM's move, where that interrupts it and waits for its grant.
    pub(in crate::directory) fn interrupting_move(&self, r: &VmRecord) -> Option<&MoveRecord> {
        let m = self.moves.get(r.moving.as_ref()?)?;
        (m.record.mode.interrupts() && m.awaits_grant()).then_some(&m.record)
    }

    /// The VM is shut down at the old NVE, by the word of `who`; true where that is so by a move that interrupts it.
    pub(in crate::directory) fn stopped_for_move(&mut self, key: VmKey, who: &str) -> bool {
        let Some(m) = self.records.get(&key).and_then(|r| self.interrupting_move(r)) else { return false };
        let (id, from) = (m.id.clone(), m.from.clone());
        if let Next::To(_) = self.event(&id, MoveEvent::Stopped) {
            self.move_lives(&id);
            self.step(&id, MoveStepKind::Stopped, Some(from), format!("says {who}"));
            self.detach(key);
            self.save_move(&id);
        }
        true
    }

    /// The old NVE has the VM again, which had been shut down there: the move may go on, from its beginning.
    pub(in crate::directory) fn started_at_old(&mut self, key: VmKey, nve: &NveId) {
        let Some(m) = self.records.get(&key).and_then(|r| self.interrupting_move(r)) else { return };
        if m.from != *nve {
            return;
        }
        let id = m.id.clone();
        let Some(m) = self.moves.get(&id) else { return };
        let prepared = m.both_prepared();
        if let Next::To(_) = self.event(&id, MoveEvent::Runs { prepared }) {
            let note = "it runs there again".into();
            self.step(&id, MoveStepKind::Activated, Some(nve.clone()), note);
            self.save_move(&id);
        }
    }

    /// Why the new NVE of a move does not get the VM yet: it still runs at the old one.
    pub(in crate::directory) fn runs_at_old(&self, r: &VmRecord, nve: &NveId) -> Option<String> {
        let m = self.interrupting_move(r).filter(|m| m.to == *nve && !m.phase.is_down())?;
        Some(format!(
            "VM {} still runs at NVE {}, and its {} move {} lets it start at {nve} when it is shut down there \
             (`godwitctl move report {} stopped` if its port does not say so)",
            r.name, m.from, m.mode, m.id, m.id
        ))
    }

    /// The VM's manager says how far it is.
    ///
    /// # Errors
    /// Where there is no such move, it has no such step or is over, or another step has to come before.
    pub(in crate::directory) fn report_move(
        &mut self,
        id: &MoveId,
        phase: MovePhase,
    ) -> Result<MoveRecord, Refusal> {
        let m = self.moves.get(id).ok_or_else(|| Refusal::UnknownMove(id.to_string()))?;
        let r = &m.record;
        let (at, mode, key) = (r.phase, r.mode, r.key);
        if r.origin != MoveOrigin::Ordered || !mode.reported().contains(&phase) {
            return Err(Refusal::NotReported { mode, phase });
        }
        match at {
            MovePhase::Granted | MovePhase::Done => {
                return Err(Refusal::MoveGranted { id: id.clone(), vm: r.vm.clone(), to: r.to.clone() });
            }
            MovePhase::Aborted | MovePhase::Failed => {
                return Err(Refusal::MoveEnded { id: id.clone(), phase: at });
            }
            _ => {}
        }
        self.move_lives(id);
        let (event, what) = match phase {
            MovePhase::Packaged => (MoveEvent::Packaged, MoveStepKind::Packaged),
            MovePhase::Sent => (MoveEvent::Sent, MoveStepKind::Sent),
            MovePhase::Instantiated => (MoveEvent::Instantiated, MoveStepKind::Instantiated),
            _ => {
                self.stopped_for_move(key, "its manager");
                return self.move_record(id).cloned();
            }
        };
        match self.event(id, event) {
            Next::To(_) => {
                self.nva_step(id, what, "says its manager".into());
                self.save_move(id);
            }
            Next::Stays => {}
            Next::OutOfOrder => {
                let why = match at.is_down() {
                    false => format!(": VM {} still runs at NVE {}", self.vm_name(key), self.old_nve(id)),
                    true => String::new(),
                };
                let next = at.may_be_reported(mode).unwrap_or(at);
                return Err(Refusal::ReportTooEarly { id: id.clone(), at, why, phase, next });
            }
        }
        self.move_record(id).cloned()
    }

    fn vm_name(&self, key: VmKey) -> String {
        self.records.get(&key).map_or_else(|| key.to_string(), |r| r.name.clone())
    }

    fn old_nve(&self, id: &MoveId) -> String {
        self.moves.get(id).map_or_else(String::new, |m| m.record.from.to_string())
    }

    /// A move has ended without a grant while its VM was shut down: nobody has it, and somebody has to start it.
    pub(super) fn left_detached(&mut self, id: &MoveId, why: &str) {
        let Some(r) = self.moves.get(id).map(|m| &m.record) else { return };
        let text = format!(
            "ALARM: VM {} ({}) is shut down and attached nowhere, and its {} move {id} to NVE {} has ended: {why}",
            r.vm, r.key, r.mode, r.to
        );
        self.log(Level::Alarm, text);
    }
}
