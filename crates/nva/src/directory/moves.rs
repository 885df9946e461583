//! Moves: intent, phases, timeline, history (R49, R57).

use std::collections::BTreeMap;

use godwit_model::message::{MoveRole, NvaToNve};
use godwit_model::{
    HandoverCounts, MoveId, MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStep, MoveStepKind, NveId,
    Version, VmKey,
};
use godwit_wire::{Instant, Span};

use super::{Directory, Level, Output, Refusal, SessionId, StoredMove, Write};

/// Longest note of a step, in bytes.
const MAX_NOTE: usize = 200;
/// NVEs whose counts one move keeps.
const MAX_COUNTS: usize = 16;
/// Steps of the NVA itself that a full timeline still takes: it always shows how the move ended.
const RESERVED_STEPS: usize = 8;
/// How a move that time ended says so.
const NO_CLAIM: &str = "no claim of NVE ";
/// An NVE that comes back so long after a move was called off does not remember it.
pub(super) const CALLED_OFF_AGE: Span = Span::from_ms(600_000);

/// A move and what is needed to follow it.
pub(super) struct Move {
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
        matches!(self.record.phase, MovePhase::Preparing | MovePhase::Prepared | MovePhase::Paused)
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

/// How far a move without a grant had come, for its last step.
fn point(m: &Move) -> String {
    let (from, to) = (&m.record.from, &m.record.to);
    let prepared = |nve| m.has_step(nve, MoveStepKind::Prepared);
    match m.record.phase {
        _ if m.has_step(to, MoveStepKind::Activated) => format!("after the VM ran at {to}, before its claim"),
        MovePhase::Paused => format!("while the VM was paused at {from}"),
        MovePhase::Prepared => "before the VM was paused".into(),
        _ if !prepared(to) && !prepared(from) => "before any NVE was prepared".into(),
        _ if !prepared(to) => format!("before {to} was prepared"),
        _ => format!("before {from} was prepared"),
    }
}

fn truncate(note: &mut String) {
    if note.len() > MAX_NOTE {
        let end = (0..=MAX_NOTE).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
        note.truncate(end);
    }
}

impl Directory {
    /// Orders a move; the same id again is the same move (R57). An empty id is given one.
    ///
    /// # Errors
    /// Where the VM or the NVE is unknown, the VM is not active, pinned, there already or in another
    /// move, or the NVE is not connected.
    pub(super) fn start_move(
        &mut self,
        vm: &str,
        to: &NveId,
        mode: MoveMode,
        id: &str,
    ) -> Result<MoveRecord, Refusal> {
        if let Some(m) = self.moves.get(&MoveId(id.into())) {
            let r = &m.record;
            if r.vm == vm && r.to == *to && r.mode == mode {
                let id = r.id.clone();
                self.ordered_again(&id);
                return Ok(self.moves[&id].record.clone());
            }
            return Err(Refusal::MoveIdTaken { id: r.id.clone(), vm: r.vm.clone(), to: r.to.clone() });
        }
        let (key, from) = self.may_move(vm, to)?;
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
        let mut m = Move::new(StoredMove { number: self.next_move, record });
        m.deadline = Some(self.now + self.config.intent_timeout);
        self.move_numbers.insert(self.next_move, id.clone());
        self.next_move += 1;
        self.moves.insert(id.clone(), m);
        self.open_moves.insert(id.clone());
        self.timed_out.remove(&key);
        self.set_moving(key, Some(id.clone()));
        self.nva_step(&id, MoveStepKind::Ordered, String::new());
        self.save_move(&id);
        self.log(Level::Info, format!("move {id}: VM {vm} ({key}) to NVE {to} ordered"));
        self.prepare(&id, MoveRole::Target);
        self.prepare(&id, MoveRole::Source);
        Ok(self.moves[&id].record.clone())
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
        let may = self.may_move(&vm, &to).ok().filter(|(_, owner)| *owner == from);
        let Some((key, _)) = may else { return };
        self.reopen(id, "again, after its time was over");
        self.set_moving(key, Some(id.clone()));
        self.save_move(id);
        self.log(Level::Info, format!("move {id}: ordered again after its time was over"));
        self.prepare(id, MoveRole::Target);
        self.prepare(id, MoveRole::Source);
    }

    /// A move that time has ended is under way again.
    fn reopen(&mut self, id: &MoveId, why: &str) {
        let deadline = Some(self.now + self.config.intent_timeout);
        let Some(m) = self.moves.get_mut(id) else { return };
        (m.record.phase, m.deadline, m.paused, m.withdrawn) = (MovePhase::Preparing, deadline, None, None);
        let key = m.record.key;
        self.timed_out.remove(&key);
        self.called_off.remove(id);
        self.open_moves.insert(id.clone());
        self.nva_step(id, MoveStepKind::Ordered, why.into());
    }

    /// The VM's last ordered move, to this NVE, which only time has ended while the VM's location stayed: it explains a
    /// claim that comes late.
    pub(super) fn late_move(&self, key: VmKey, to: &NveId) -> Option<MoveId> {
        let m = self.moves.get(self.timed_out.get(&key)?)?;
        let owner = self.vms.get(&key)?.location.as_ref().map(|l| &l.nve);
        let explains = m.timed_out() && m.record.to == *to && owner == Some(&m.record.from);
        explains.then(|| m.record.id.clone())
    }

    /// The claim that it explains is granted after all.
    pub(super) fn reopen_late(&mut self, key: VmKey, to: &NveId) -> Option<MoveId> {
        let id = self.late_move(key, to)?;
        self.reopen(&id, "its new NVE claims the VM after its time was over");
        Some(id)
    }

    /// A sign that the move goes on: an order repeated, a state said, progress reported.
    fn move_lives(&mut self, id: &MoveId) {
        let deadline = self.now + self.config.intent_timeout;
        if let Some(m) = self.moves.get_mut(id).filter(|m| m.awaits_grant()) {
            m.deadline = Some(deadline);
        }
    }

    /// The VM's key and owner, where it may move to that NVE now.
    fn may_move(&self, vm: &str, to: &NveId) -> Result<(VmKey, NveId), Refusal> {
        let key = self.vm_names.get(vm).ok_or_else(|| Refusal::UnknownVm(vm.into()))?;
        let r = &self.vms[key];
        let target = self.nves.get(to).ok_or_else(|| Refusal::UnknownNve(to.to_string()))?;
        let vm = vm.to_owned();
        let Some(owner) = r.location.as_ref().map(|l| l.nve.clone()) else {
            return Err(Refusal::VmDetached { vm });
        };
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
        if target.session.is_none() {
            return Err(Refusal::NveNotConnected { nve: to.clone() });
        }
        Ok((*key, owner))
    }

    fn move_name(&self, id: &str) -> Result<MoveId, Refusal> {
        if id.is_empty() {
            let named = (self.next_move..).map(|n| MoveId(format!("m{n}")));
            let free = named.into_iter().find(|id| !self.moves.contains_key(id));
            return free.ok_or(Refusal::BadMoveId(String::new()));
        }
        let ok = id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic());
        if ok { Ok(MoveId(id.into())) } else { Err(Refusal::BadMoveId(id.into())) }
    }

    /// Forgets the oldest finished moves beyond the bound.
    pub(super) fn make_room(&mut self) -> Result<(), Refusal> {
        if self.moves.len() < self.config.max_moves {
            return Ok(());
        }
        let finished = |id: &&MoveId| !self.open_moves.contains(*id);
        let Some(oldest) = self.move_numbers.values().find(finished).cloned() else {
            return Err(Refusal::Full { what: "unfinished moves", max: self.config.max_moves });
        };
        if let Some(m) = self.moves.remove(&oldest) {
            self.move_numbers.remove(&m.number);
        }
        self.called_off.remove(&oldest);
        self.unsaved_moves.remove(&oldest);
        self.persist(Write::RemoveMove(oldest));
        Ok(())
    }

    /// Calls a move off before its grant; both NVEs return to what was.
    ///
    /// # Errors
    /// Where there is no such move, or it is granted or ended. One that is called off already is not
    /// refused, so that the order may be repeated.
    pub(super) fn abort_move(&mut self, id: &MoveId) -> Result<MoveRecord, Refusal> {
        let m = self.moves.get(id).ok_or_else(|| Refusal::UnknownMove(id.to_string()))?;
        let r = &m.record;
        match r.phase {
            MovePhase::Aborted => return Ok(r.clone()),
            MovePhase::Done | MovePhase::Granted => {
                let (vm, to) = (r.vm.clone(), r.to.clone());
                return Err(Refusal::MoveGranted { id: id.clone(), vm, to });
            }
            MovePhase::Failed => return Err(Refusal::MoveEnded { id: id.clone(), phase: r.phase }),
            MovePhase::Preparing | MovePhase::Prepared | MovePhase::Paused => {}
        }
        self.call_off(id, MovePhase::Aborted, "called off by the operator".into());
        Ok(self.moves[id].record.clone())
    }

    /// Ends a move that has no grant.
    pub(super) fn call_off(&mut self, id: &MoveId, phase: MovePhase, reason: String) {
        let Some(m) = self.moves.get_mut(id).filter(|m| m.awaits_grant()) else { return };
        // What the reader wants to know first: a long reason is cut at its end.
        let mut note = format!("{}: {reason}", point(m));
        m.record.phase = phase;
        let (key, withdrawn) = (m.record.key, m.withdrawn);
        let parties = [m.record.to.clone(), m.record.from.clone()];
        if phase == MovePhase::Aborted && reason.starts_with(NO_CLAIM) {
            self.timed_out.insert(key, id.clone());
        }
        let what = if phase == MovePhase::Failed { MoveStepKind::Failed } else { MoveStepKind::Aborted };
        self.open_moves.remove(id);
        self.called_off.insert(id.clone());
        let detaches = withdrawn.is_some() && withdrawn == self.vms.get(&key).map(|r| r.version);
        if detaches {
            note += &format!("; {} had withdrawn the VM, which is detached now", parties[1]);
        }
        self.nva_step(id, what, note);
        self.save_move(id);
        self.set_moving(key, None);
        self.log(Level::Warn, format!("move {id} has ended without a grant: {reason}"));
        for nve in parties {
            if let Some(session) = self.session_of(&nve) {
                let reason = reason.clone();
                self.send(session, NvaToNve::MoveAbort { id: id.clone(), key, reason });
            }
        }
        // The withdrawal that had to wait for the move's end.
        if detaches {
            self.detach(key);
        }
    }

    fn set_moving(&mut self, key: VmKey, moving: Option<MoveId>) {
        let Some(mut record) = self.vms.get(&key).cloned() else { return };
        if record.moving != moving {
            record.moving = moving;
            self.put_vm(record);
        }
    }

    fn prepare(&mut self, id: &MoveId, role: MoveRole) {
        let Some(r) = self.moves.get(id).map(|m| &m.record) else { return };
        let nve = if role == MoveRole::Target { &r.to } else { &r.from };
        let (Some(session), Some(record)) = (self.session_of(nve), self.vms.get(&r.key).cloned()) else {
            return;
        };
        let (Some(from), Some(to)) = (self.location_of(&r.from), self.location_of(&r.to)) else { return };
        let (key, mode) = (r.key, r.mode);
        // It may be told before it subscribes, and the move be over by then (R38).
        self.note_interest(session, key, self.config.pos_life);
        self.send(session, NvaToNve::MovePrepare { id: id.clone(), role, record, from, to, mode });
    }

    /// An NVE is back: what it may have missed of moves is said again.
    pub(super) fn repeat_moves(&mut self, session: SessionId, nve: &NveId) {
        let concerns = |m: &&Move| m.record.from == *nve || m.record.to == *nve;
        let off = self.called_off.iter().filter_map(|id| self.moves.get(id)).filter(concerns);
        let off: Vec<(MoveId, VmKey)> = off.map(|m| (m.record.id.clone(), m.record.key)).collect();
        for (id, key) in off {
            let reason = "called off while this NVE was away".into();
            self.send(session, NvaToNve::MoveAbort { id, key, reason });
        }
        let open = self.open_moves.iter().filter_map(|id| self.moves.get(id)).filter(concerns);
        // Of a claim that nobody ordered there is nothing to prepare.
        let open = open.filter(|m| m.record.origin == MoveOrigin::Ordered);
        let open: Vec<(MoveId, bool)> = open.map(|m| (m.record.id.clone(), m.record.to == *nve)).collect();
        for (id, target) in open {
            self.prepare(&id, if target { MoveRole::Target } else { MoveRole::Source });
        }
    }

    /// A port for a VM appeared at the NVE that the VM is to move to.
    pub(super) fn repeat_target_move(&mut self, session: SessionId, nve: &NveId, key: VmKey) {
        let Some(id) = self.vms.get(&key).and_then(|r| r.moving.clone()) else { return };
        let target = self.moves.get(&id).is_some_and(|m| m.awaits_grant() && m.record.to == *nve);
        if target && self.session_of(nve) == Some(session) {
            self.prepare(&id, MoveRole::Target);
        }
    }

    /// The claim that a move was ordered for has its grant.
    pub(super) fn move_granted(&mut self, id: &MoveId, version: Version, why: &str) {
        let deadline = self.now + self.config.intent_timeout;
        let Some(m) = self.moves.get_mut(id) else { return };
        m.record.phase = MovePhase::Granted;
        m.record.version = version;
        m.withdrawn = None;
        m.deadline = Some(deadline);
        let to = m.record.to.clone();
        self.step(id, MoveStepKind::Claimed, Some(to), String::new());
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        self.nva_step(id, MoveStepKind::Granted, format!("version {version}{why}"));
        self.save_move(id);
    }

    /// A granted move of the VM that waits for acknowledgements is overtaken; `news` says by what.
    pub(super) fn overtake(&mut self, key: VmKey, news: &str) {
        let open = self.open_moves.iter().filter_map(|id| self.moves.get(id));
        let of_vm = |m: &&Move| m.record.key == key && m.record.phase == MovePhase::Granted;
        let earlier: Vec<(MoveId, String)> =
            open.filter(of_vm).map(|m| (m.record.id.clone(), m.unaware())).collect();
        for (id, unaware) in earlier {
            self.nva_step(&id, MoveStepKind::Overtaken, format!("{news}{unaware}"));
            self.save_move(&id);
        }
    }

    /// The claim of an NVE that is refused while a move of the VM is under way belongs into its history.
    pub(super) fn claim_refused(&mut self, key: VmKey, nve: &NveId, why: &str) {
        let Some(id) = self.vms.get(&key).and_then(|r| r.moving.clone()) else { return };
        if self.moves.get(&id).is_some_and(|m| !m.has_step(nve, MoveStepKind::Denied)) {
            self.step(&id, MoveStepKind::Denied, Some(nve.clone()), why.into());
            self.changed(&id);
        }
    }

    /// A move that was under way at the restart says so before anything else is added to it.
    fn note_restart(&mut self, id: &MoveId) {
        let Some(m) = self.moves.get_mut(id).filter(|m| m.restarted) else { return };
        m.restarted = false;
        let note = format!("the NVA restarted: epoch {}", self.epoch);
        let step = MoveStep { at_us: self.started_us, nve: None, what: MoveStepKind::Restarted, note };
        m.add_step(step, self.config.max_steps);
        self.changed(id);
    }

    /// An update of the move is settled: acknowledged, or its NVE is away and gets a snapshot later.
    pub(super) fn move_acked(&mut self, id: &MoveId, ack_id: u64, note: Option<&str>) {
        let Some(nve) = self.moves.get_mut(id).and_then(|m| m.awaiting.remove(&ack_id)) else { return };
        if let Some(note) = note {
            self.step(id, MoveStepKind::Acknowledged, Some(nve), note.into());
            self.changed(id);
        }
    }

    /// Ends a granted move when nobody is left to be told.
    pub(super) fn check_done(&mut self, id: &MoveId) {
        let Some(m) = self.moves.get(id) else { return };
        let waits = self.fanouts.get(&m.record.key).is_some_and(|f| f.by.as_ref() == Some(id));
        if m.record.phase == MovePhase::Granted && m.awaiting.is_empty() && !waits {
            self.move_done(id, String::new());
        }
    }

    fn move_done(&mut self, id: &MoveId, note: String) {
        let Some(m) = self.moves.get_mut(id) else { return };
        m.record.phase = MovePhase::Done;
        m.awaiting.clear();
        let key = m.record.key;
        self.open_moves.remove(id);
        // Until here the record names the move, so that an NVE which missed its order still reports.
        if self.vms.get(&key).is_some_and(|r| r.moving.as_ref() == Some(id)) {
            self.set_moving(key, None);
        }
        self.nva_step(id, MoveStepKind::Done, note);
        self.save_move(id);
        self.log(Level::Info, format!("move {id} is done"));
    }

    /// Looks at the deadlines of unfinished moves.
    pub(super) fn sweep_moves(&mut self) {
        let open: Vec<MoveId> = self.open_moves.iter().cloned().collect();
        for id in open {
            self.note_restart(&id);
            let fresh = self.now + self.config.intent_timeout;
            let (now, limit) = (self.now, self.config.pause_limit);
            let Some(m) = self.moves.get_mut(&id) else { continue };
            let late = *m.deadline.get_or_insert(fresh) <= now;
            let stood = m.paused.is_some_and(|at| at + limit <= now);
            if m.awaits_grant() && (late || stood) {
                let (span, since) = match stood {
                    true => (limit, "VM's pause"),
                    false => (self.config.intent_timeout, "last sign of the move"),
                };
                let reason =
                    format!("{NO_CLAIM}{} within {} s of the {since}", m.record.to, span.as_ms() / 1000);
                self.call_off(&id, MovePhase::Aborted, reason);
            } else if late {
                let missing: Vec<&str> = m.awaiting.values().map(NveId::as_str).collect();
                let note = format!("without the acknowledgement of {}", missing.join(", "));
                self.move_done(&id, note);
            } else {
                self.check_done(&id); // After a restart nobody is left to wait for.
            }
        }
        let horizon = self.wall_us.saturating_sub(CALLED_OFF_AGE.as_ms() * 1000);
        let moves = &self.moves;
        self.called_off.retain(|id| {
            let ended = moves.get(id).and_then(|m| m.record.steps.last()).map_or(0, |s| s.at_us);
            ended >= horizon
        });
    }

    /// What an NVE says about a move: a step of the timeline, counts, or both.
    pub(super) fn move_report(
        &mut self,
        nve: NveId,
        id: MoveId,
        step: Option<MoveStep>,
        counts: Option<HandoverCounts>,
    ) {
        if !self.moves.contains_key(&id) {
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
            let (what, note) = (step.what, step.note.clone());
            if let Some(m) = self.moves.get_mut(&id) {
                m.add_step(step, self.config.max_steps);
            }
            self.advance(&id, &nve, what, note);
        }
        self.changed(&id);
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

    /// The phase that an NVE's step leads to.
    fn advance(&mut self, id: &MoveId, nve: &NveId, what: MoveStepKind, note: String) {
        let Some(m) = self.moves.get_mut(id).filter(|m| m.awaits_grant()) else { return };
        let (from, to) = (m.record.from.clone(), m.record.to.clone());
        let both = m.has_step(&from, MoveStepKind::Prepared) && m.has_step(&to, MoveStepKind::Prepared);
        let party = *nve == from || *nve == to;
        match what {
            MoveStepKind::Prepared if both && m.record.phase == MovePhase::Preparing => {
                m.record.phase = MovePhase::Prepared;
                self.save_move(id);
            }
            MoveStepKind::Paused if *nve == from => {
                m.paused.get_or_insert(self.now);
                m.record.phase = MovePhase::Paused;
                self.save_move(id);
            }
            // The VM was let run where it was: the move may go on, and its pause is over.
            MoveStepKind::Activated if *nve == from => {
                m.paused = None;
                if m.record.phase == MovePhase::Paused {
                    m.record.phase = if both { MovePhase::Prepared } else { MovePhase::Preparing };
                }
                self.save_move(id);
            }
            MoveStepKind::Aborted if party => {
                self.call_off(id, MovePhase::Aborted, format!("NVE {nve}: {note}"));
            }
            MoveStepKind::Failed if party => {
                self.call_off(id, MovePhase::Failed, format!("NVE {nve}: {note}"));
            }
            _ => {}
        }
    }

    pub(super) fn nva_step(&mut self, id: &MoveId, what: MoveStepKind, note: String) {
        self.step(id, what, None, note);
    }

    fn step(&mut self, id: &MoveId, what: MoveStepKind, nve: Option<NveId>, note: String) {
        self.note_restart(id);
        let step = MoveStep { at_us: self.wall_us, nve, what, note };
        let max = self.config.max_steps;
        if let Some(m) = self.moves.get_mut(id) {
            m.add_step(step, max);
        }
    }

    /// The record changed in a way that a crash may undo: it is persisted with the next sweep.
    fn changed(&mut self, id: &MoveId) {
        self.unsaved_moves.insert(id.clone());
        self.out.push(Output::MoveChanged(id.clone()));
    }

    pub(super) fn save_move(&mut self, id: &MoveId) {
        self.unsaved_moves.remove(id);
        if let Some(stored) = self.moves.get(id).map(Move::stored) {
            self.persist(Write::PutMove(stored));
            self.out.push(Output::MoveChanged(id.clone()));
        }
    }
}
