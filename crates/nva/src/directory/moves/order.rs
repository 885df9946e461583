//! Orders of the operator about moves, and those that come again after their time (R49).

use godwit_model::message::MoveRole;
use godwit_model::{
    MoveId, MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStepKind, NveId, Version, VmKey,
};

use super::super::{Directory, Level, Refusal};

impl Directory {
    /// Orders a move; the same id again is the same move (R57). An empty id is given one.
    ///
    /// # Errors
    /// Where the VM or the NVE is unknown, the VM is not active, pinned, there already or in another
    /// move, the NVE is not connected, or the mode is not possible or not accepted.
    pub(in crate::directory) fn start_move(
        &mut self,
        vm: &str,
        to: &NveId,
        mode: MoveMode,
        id: &str,
        accept: bool,
    ) -> Result<MoveRecord, Refusal> {
        if let Some(m) = self.moves.get(&MoveId(id.into())) {
            let r = &m.record;
            // What nobody ordered is not an order's to resume.
            let ordered = r.origin == MoveOrigin::Ordered;
            if ordered && r.vm == vm && r.to == *to && r.mode == mode {
                let id = r.id.clone();
                self.ordered_again(&id);
                return self.move_record(&id).cloned();
            }
            return Err(Refusal::MoveIdTaken { id: r.id.clone(), vm: r.vm.clone(), to: r.to.clone() });
        }
        let (key, from) = self.may_move(vm, to)?;
        self.check_mode(self.vm_named(vm)?, (&from, to), mode, accept)?;
        let id = self.move_name(id)?;
        self.make_room()?;
        let record = MoveRecord {
            id: id.clone(),
            vm: vm.into(),
            key,
            from,
            to: to.clone(),
            mode,
            origin: MoveOrigin::Ordered,
            phase: MovePhase::Preparing,
            version: Version::ZERO,
            steps: Vec::new(),
            counts: Vec::new(),
        };
        self.moves.forget_timed_out(key);
        self.counts.moves_ordered += 1;
        self.open_move(record);
        self.set_moving(key, Some(id.clone()));
        self.nva_step(&id, MoveStepKind::Ordered, String::new());
        self.note_accepted(&id);
        self.save_move(&id);
        self.log(Level::Info, format!("move {id}: VM {vm} ({key}) to NVE {to} ordered, {mode}"));
        self.begin_move(&id, mode);
        self.move_record(&id).cloned()
    }

    /// Who orders a move again says that it goes on; one that only time has ended goes on with that.
    fn ordered_again(&mut self, id: &MoveId) {
        self.move_lives(id);
        // The order giver knows of the VM's pause and means it: if it lasts, its NVE says so once more.
        if self.moves.get_mut(id).filter(|m| m.awaits_grant()).is_some_and(|m| m.paused.take().is_some()) {
            self.prepare(id, MoveRole::Source);
        }
        let Some(m) = self.moves.get(id).filter(|m| m.timed_out()) else { return };
        let (vm, to, from) = (m.record.vm.clone(), m.record.to.clone(), m.record.from.clone());
        let mode = m.record.mode;
        let may = self.may_move(&vm, &to).ok().filter(|(_, owner)| *owner == from);
        let Some((key, _)) = may else { return };
        // What it was ordered for may not be possible any more.
        let able = self.vm_named(&vm).and_then(|r| self.check_mode(r, (&from, &to), mode, true));
        if able.is_err() {
            return;
        }
        self.reopen(id, "again, after its time was over");
        self.set_moving(key, Some(id.clone()));
        self.save_move(id);
        self.log(Level::Info, format!("move {id}: ordered again after its time was over"));
        self.begin_move(id, mode);
    }

    /// The NVEs of a move that is on are told, by its mode.
    fn begin_move(&mut self, id: &MoveId, mode: MoveMode) {
        if mode == MoveMode::Warm {
            self.begin_pending(id);
        }
        self.prepare(id, MoveRole::Target);
        self.prepare(id, MoveRole::Source);
    }

    /// A move that time has ended is under way again.
    fn reopen(&mut self, id: &MoveId, why: &str) {
        let deadline = Some(self.now + self.config.intent_timeout);
        let Some(m) = self.moves.get_mut(id) else { return };
        (m.record.phase, m.deadline, m.paused, m.withdrawn) = (MovePhase::Preparing, deadline, None, None);
        let key = m.record.key;
        self.moves.forget_timed_out(key);
        self.moves.set_open(id);
        self.nva_step(id, MoveStepKind::Ordered, why.into());
    }

    /// The VM's last ordered move, to this NVE, which only time has ended while the VM's location stayed: it explains a
    /// claim that comes late.
    pub(in crate::directory) fn late_move(&self, key: VmKey, to: &NveId) -> Option<MoveId> {
        let m = self.moves.timed_out(key)?;
        let owner = self.records.get(&key)?.active_nve();
        let explains = m.timed_out() && m.record.to == *to && owner == Some(&m.record.from);
        explains.then(|| m.record.id.clone())
    }

    /// The claim that it explains is granted after all.
    pub(in crate::directory) fn reopen_late(&mut self, key: VmKey, to: &NveId) -> Option<MoveId> {
        let id = self.late_move(key, to)?;
        self.reopen(&id, "its new NVE claims the VM after its time was over");
        Some(id)
    }

    /// The VM's key and owner, where it may move to that NVE now.
    fn may_move(&self, vm: &str, to: &NveId) -> Result<(VmKey, NveId), Refusal> {
        let r = self.vm_named(vm)?;
        let target = self.nves.get(to).ok_or_else(|| Refusal::UnknownNve(to.to_string()))?;
        let vm = vm.to_owned();
        let Some(owner) = r.active_nve().cloned() else { return Err(Refusal::VmDetached { vm }) };
        if r.pinned {
            return Err(Refusal::VmPinned { vm, nve: owner });
        }
        if r.frozen {
            return Err(Refusal::VmFrozen { vm, nve: owner });
        }
        if let Some((id, ..)) = self.intent(r) {
            return Err(Refusal::VmMoving { vm, id });
        }
        if owner == *to {
            return Err(Refusal::AlreadyThere { vm, nve: owner });
        }
        self.check_takes_vms(to)?;
        if !self.may_take_part(to, r.key.vni) {
            let vn = self.vns.record(r.key.vni).map_or_else(|| r.key.vni.to_string(), |r| r.name.clone());
            return Err(Refusal::NveNotAllowed { nve: to.clone(), vn });
        }
        if target.session.is_none() {
            return Err(Refusal::NveNotConnected { nve: to.clone() });
        }
        Ok((r.key, owner))
    }

    fn move_name(&self, id: &str) -> Result<MoveId, Refusal> {
        if id.is_empty() {
            return self.moves.free_id('m').ok_or(Refusal::BadMoveId(String::new()));
        }
        let ok = id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic());
        if ok { Ok(MoveId(id.into())) } else { Err(Refusal::BadMoveId(id.into())) }
    }

    /// Calls a move off before its grant; both NVEs return to what was.
    ///
    /// # Errors
    /// Where there is no such move, or it is granted or ended. One that is called off already is not
    /// refused, so that the order may be repeated.
    pub(in crate::directory) fn abort_move(&mut self, id: &MoveId) -> Result<MoveRecord, Refusal> {
        let m = self.moves.get(id).ok_or_else(|| Refusal::UnknownMove(id.to_string()))?;
        let r = &m.record;
        match r.phase {
            MovePhase::Aborted => return Ok(r.clone()),
            MovePhase::Done | MovePhase::Granted => {
                let (vm, to) = (r.vm.clone(), r.to.clone());
                return Err(Refusal::MoveGranted { id: id.clone(), vm, to });
            }
            MovePhase::Failed => return Err(Refusal::MoveEnded { id: id.clone(), phase: r.phase }),
            MovePhase::Preparing
            | MovePhase::Prepared
            | MovePhase::Paused
            | MovePhase::Stopped
            | MovePhase::Packaged
            | MovePhase::Sent
            | MovePhase::Instantiated => {}
        }
        self.call_off(id, MovePhase::Aborted, "called off by the operator".into());
        self.move_record(id).cloned()
    }
}
