//! The hot move: what its two NVEs are told, and where their steps lead.

use godwit_model::message::{MoveRole, NvaToNve};
use godwit_model::{MoveEvent, MoveId, MoveOrigin, MovePhase, MoveStepKind, Next, NveId, VmKey};

use super::super::{Directory, SessionId};
use super::Move;

impl Directory {
    pub(super) fn prepare(&mut self, id: &MoveId, role: MoveRole) {
        let Some(r) = self.moves.get(id).map(|m| &m.record) else { return };
        let nve = if role == MoveRole::Target { &r.to } else { &r.from };
        let (Some(session), Some(record)) = (self.session_of(nve), self.records.get(&r.key).cloned()) else {
            return;
        };
        let (Some(from), Some(to)) = (self.location_of(&r.from), self.location_of(&r.to)) else { return };
        let (key, mode) = (r.key, r.mode);
        // It may be told before it subscribes, and the move be over by then (R38).
        self.note_interest(session, key, self.config.pos_life);
        self.send(session, NvaToNve::MovePrepare { id: id.clone(), role, record, from, to, mode });
    }

    /// An NVE is back: what it may have missed of moves is said again.
    pub(in crate::directory) fn repeat_moves(&mut self, session: SessionId, nve: &NveId) {
        let concerns = |m: &&Move| m.record.from == *nve || m.record.to == *nve;
        let off = self.moves.called_off().filter(concerns);
        let off: Vec<(MoveId, VmKey)> = off.map(|m| (m.record.id.clone(), m.record.key)).collect();
        for (id, key) in off {
            let reason = "called off while this NVE was away".into();
            self.send(session, NvaToNve::MoveAbort { id, key, reason });
        }
        let open = self.moves.open().filter(concerns);
        // Of a claim that nobody ordered there is nothing to prepare.
        let open = open.filter(|m| m.record.origin == MoveOrigin::Ordered);
        let open: Vec<(MoveId, bool)> = open.map(|m| (m.record.id.clone(), m.record.to == *nve)).collect();
        for (id, target) in open {
            self.prepare(&id, if target { MoveRole::Target } else { MoveRole::Source });
        }
    }

    /// A port for a VM appeared at the NVE that the VM is to move to.
    pub(in crate::directory) fn repeat_target_move(&mut self, session: SessionId, nve: &NveId, key: VmKey) {
        let Some(id) = self.records.get(&key).and_then(|r| r.moving.clone()) else { return };
        let target = self.moves.get(&id).is_some_and(|m| m.awaits_grant() && m.record.to == *nve);
        if target && self.session_of(nve) == Some(session) {
            self.prepare(&id, MoveRole::Target);
        }
    }

    /// The phase that an NVE's step leads to.
    pub(super) fn advance(&mut self, id: &MoveId, nve: &NveId, what: MoveStepKind, note: String) {
        let Some(m) = self.moves.get_mut(id).filter(|m| m.awaits_grant()) else { return };
        let (from, to) = (m.record.from.clone(), m.record.to.clone());
        let (both, mode) = (m.both_prepared(), m.record.mode);
        let party = *nve == from || *nve == to;
        match what {
            MoveStepKind::Prepared if both => {
                if let Next::To(_) = self.event(id, MoveEvent::Prepared) {
                    self.save_move(id);
                }
            }
            MoveStepKind::Paused if *nve == from && !mode.interrupts() => {
                m.paused.get_or_insert(self.now);
                self.event(id, MoveEvent::Paused);
                self.save_move(id);
            }
            // The VM was let run where it was: the move may go on, and its pause is over.
            MoveStepKind::Activated if *nve == from && !mode.interrupts() => {
                m.paused = None;
                self.event(id, MoveEvent::Runs { prepared: both });
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
}
