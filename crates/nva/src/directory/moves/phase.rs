//! Grants of moves, and their ends: done, called off, or out of time.

use godwit_model::message::NvaToNve;
use godwit_model::{MoveId, MovePhase, MoveStepKind, NveId, Version, VmKey};
use godwit_wire::Span;

use super::super::{Directory, Level};
use super::Move;

/// How a move that time ended says so.
pub(super) const NO_CLAIM: &str = "no claim of NVE ";

/// An NVE that comes back so long after a move was called off does not remember it.
const CALLED_OFF_AGE: Span = Span::from_ms(600_000);

impl Directory {
    /// The claim that a move was ordered for has its grant.
    pub(in crate::directory) fn move_granted(&mut self, id: &MoveId, version: Version, why: &str) {
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
    pub(in crate::directory) fn overtake(&mut self, key: VmKey, news: &str) {
        let granted = |m: &&Move| m.record.phase == MovePhase::Granted;
        let earlier: Vec<(MoveId, String)> =
            self.moves.open_of(key).filter(granted).map(|m| (m.record.id.clone(), m.unaware())).collect();
        for (id, unaware) in earlier {
            self.nva_step(&id, MoveStepKind::Overtaken, format!("{news}{unaware}"));
            self.save_move(&id);
        }
    }

    /// Ends a move that has no grant.
    pub(in crate::directory) fn call_off(&mut self, id: &MoveId, phase: MovePhase, reason: String) {
        let Some(m) = self.moves.get_mut(id).filter(|m| m.awaits_grant()) else { return };
        // What the reader wants to know first: a long reason is cut at its end.
        let mut note = format!("{}: {reason}", point(m));
        let down = m.record.phase.is_down();
        m.record.phase = phase;
        let (key, withdrawn) = (m.record.key, m.withdrawn);
        let parties = [m.record.to.clone(), m.record.from.clone()];
        self.moves.set_called_off(
            id,
            phase == MovePhase::Aborted && reason.starts_with(NO_CLAIM),
            self.wall_us,
        );
        let (what, count) = match phase {
            MovePhase::Failed => (MoveStepKind::Failed, &mut self.counts.moves_failed),
            _ => (MoveStepKind::Aborted, &mut self.counts.moves_aborted),
        };
        *count += 1;
        let now = self.records.get(&key).map(|r| r.version);
        let detaches = withdrawn.is_some_and(|v| Some(v) == now || self.claims.has_stayed_since(key, v));
        if detaches {
            note += &format!("; {} had withdrawn the VM, which is detached now", parties[1]);
        }
        self.nva_step(id, what, note);
        self.save_move(id);
        self.set_moving(key, None);
        self.end_pending(key);
        self.log(Level::Warn, format!("move {id} has ended without a grant: {reason}"));
        if down {
            self.left_detached(id, &reason);
        }
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

    /// An update of the move is settled: acknowledged, or its NVE is away and gets a snapshot later.
    pub(in crate::directory) fn move_acked(&mut self, id: &MoveId, ack_id: u64, note: Option<&str>) {
        let Some(nve) = self.moves.get_mut(id).and_then(|m| m.awaiting.remove(&ack_id)) else { return };
        if let Some(note) = note {
            self.step(id, MoveStepKind::Acknowledged, Some(nve), note.into());
            self.changed(id);
        }
    }

    /// Ends a granted move when nobody is left to be told.
    pub(in crate::directory) fn check_done(&mut self, id: &MoveId) {
        let Some(m) = self.moves.get(id) else { return };
        let waits = self.updates.held(m.record.key).is_some_and(|f| f.by.as_ref() == Some(id));
        if m.record.phase == MovePhase::Granted && m.awaiting.is_empty() && !waits {
            self.move_done(id, String::new());
        }
    }

    fn move_done(&mut self, id: &MoveId, note: String) {
        let Some(m) = self.moves.get_mut(id) else { return };
        m.record.phase = MovePhase::Done;
        m.awaiting.clear();
        let key = m.record.key;
        self.moves.set_done(id);
        self.counts.moves_done += 1;
        // Until here the record names the move, so that an NVE which missed its order still reports.
        if self.records.get(&key).is_some_and(|r| r.moving.as_ref() == Some(id)) {
            self.set_moving(key, None);
        }
        self.nva_step(id, MoveStepKind::Done, note);
        self.save_move(id);
        self.log(Level::Info, format!("move {id} is done"));
    }

    /// A sign that the move goes on: an order repeated, a state said, progress reported.
    pub(super) fn move_lives(&mut self, id: &MoveId) {
        let deadline = self.now + self.config.intent_timeout;
        if let Some(m) = self.moves.get_mut(id).filter(|m| m.awaits_grant()) {
            m.deadline = Some(deadline);
        }
    }

    /// Looks at the deadlines of unfinished moves.
    pub(in crate::directory) fn sweep_moves(&mut self) {
        let open: Vec<MoveId> = self.moves.open().map(|m| m.record.id.clone()).collect();
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
        self.moves.forget_called_off(horizon);
    }
}

/// How far a move without a grant had come, for its last step.
fn point(m: &Move) -> String {
    let (from, to) = (&m.record.from, &m.record.to);
    let prepared = |nve| m.has_step(nve, MoveStepKind::Prepared);
    match m.record.phase {
        _ if m.has_step(to, MoveStepKind::Activated) => format!("after the VM ran at {to}, before its claim"),
        MovePhase::Paused => format!("while the VM was paused at {from}"),
        phase if phase.is_down() => {
            format!("after the VM was shut down at {from} ({}); it is detached", phase.as_str())
        }
        MovePhase::Prepared => "before the VM was paused".into(),
        _ if !prepared(to) && !prepared(from) => "before any NVE was prepared".into(),
        _ if !prepared(to) => format!("before {to} was prepared"),
        _ => format!("before {from} was prepared"),
    }
}
