//! What follows what in a move that waits for its grant: one machine for all modes, (mode, phase, event) -> phase.
//!
//! ```text
//! hot    Preparing -- prepared --> Prepared -- paused --> Paused ------------------------------ claimed --> Granted
//! warm   Preparing -- prepared --> Prepared -- stopped -> Stopped ------------- instantiated -> Instantiated
//! cold   Preparing -- prepared --> Prepared -- stopped -> Stopped -- packaged -> Packaged -- sent -> Sent
//!                                                                                   -- instantiated -> Instantiated
//!        warm, cold: Stopped, Packaged, Sent, Instantiated ------------------------------------ claimed --> Granted
//! ```
//!
//! | Event | Who says so | hot | warm, cold |
//! |---|---|---|---|
//! | prepared | both NVEs | Preparing to Prepared | likewise |
//! | paused | old NVE | any to Paused | stays |
//! | runs | old NVE | Paused to Prepared or Preparing | Stopped and later likewise |
//! | stopped | old NVE's withdrawal, or the manager | stays | Preparing, Prepared to Stopped |
//! | packaged, sent | manager | refused | cold: each after the one before; warm: refused |
//! | instantiated | manager | refused | cold: Sent, warm: Stopped, to Instantiated |
//! | claimed | new NVE | any to Granted | Stopped and later to Granted; before, the VM still runs: refused |
//!
//! What has been said may be said again. A move is called off or fails in each of these phases.

use crate::{MoveMode, MovePhase};

/// Something that a move's party says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MoveEvent {
    /// Both NVEs are ready.
    Prepared,
    /// The VM stands still at the old NVE.
    Paused,
    /// The VM runs at the old NVE, after it had stood still or had been stopped.
    Runs {
        /// Both NVEs are ready.
        prepared: bool,
    },
    /// The VM is shut down at the old NVE (R50, R51).
    Stopped,
    /// Its state is packaged.
    Packaged,
    /// Its state is at the new host.
    Sent,
    /// It is instantiated at the new host, and does not run yet.
    Instantiated,
    /// It runs at the new NVE, which claims it.
    Claimed,
}

/// What an event leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Another phase.
    To(MovePhase),
    /// Nothing changes.
    Stays,
    /// It cannot be: what has to come before did not.
    OutOfOrder,
}

/// How far a move that interrupts its VM has come since that stopped.
fn stage(phase: MovePhase) -> Option<usize> {
    let stages = [MovePhase::Stopped, MovePhase::Packaged, MovePhase::Sent, MovePhase::Instantiated];
    stages.iter().position(|p| *p == phase)
}

impl MovePhase {
    /// The move waits for its grant.
    pub fn awaits_grant(self) -> bool {
        !self.is_final() && self != MovePhase::Granted
    }

    /// The VM runs nowhere: it is shut down at the old NVE, and does not run at the new one yet.
    pub fn is_down(self) -> bool {
        stage(self).is_some()
    }

    /// What an event leads to in a move of this mode.
    #[must_use]
    pub fn after(self, mode: MoveMode, event: MoveEvent) -> Next {
        if !self.awaits_grant() {
            return Next::OutOfOrder;
        }
        let running = if let MoveEvent::Runs { prepared: true } = event {
            MovePhase::Prepared
        } else {
            MovePhase::Preparing
        };
        match event {
            MoveEvent::Prepared if self == MovePhase::Preparing => Next::To(MovePhase::Prepared),
            MoveEvent::Prepared => Next::Stays,
            MoveEvent::Paused if mode == MoveMode::Hot => Next::To(MovePhase::Paused),
            MoveEvent::Runs { .. } if self == MovePhase::Paused || self.is_down() => Next::To(running),
            MoveEvent::Paused | MoveEvent::Runs { .. } => Next::Stays,
            MoveEvent::Stopped if !mode.interrupts() || self.is_down() => Next::Stays,
            MoveEvent::Stopped => Next::To(MovePhase::Stopped),
            MoveEvent::Packaged => self.reported(mode, MovePhase::Packaged),
            MoveEvent::Sent => self.reported(mode, MovePhase::Sent),
            MoveEvent::Instantiated => self.reported(mode, MovePhase::Instantiated),
            MoveEvent::Claimed if !mode.interrupts() || self.is_down() => Next::To(MovePhase::Granted),
            MoveEvent::Claimed => Next::OutOfOrder,
        }
    }

    /// A stage that only the manager knows of.
    fn reported(self, mode: MoveMode, to: MovePhase) -> Next {
        if !mode.reported().contains(&to) {
            return Next::OutOfOrder;
        }
        match (stage(self), stage(to)) {
            (Some(at), Some(new)) if at >= new => Next::Stays,
            _ if self.may_be_reported(mode) == Some(to) => Next::To(to),
            _ => Next::OutOfOrder,
        }
    }

    /// What a manager may report next of a move of this mode in this phase.
    pub fn may_be_reported(self, mode: MoveMode) -> Option<MovePhase> {
        let all = mode.reported();
        match all.iter().position(|p| *p == self) {
            Some(at) => all.get(at + 1).copied(),
            None if self.awaits_grant() => all.first().copied(),
            None => None,
        }
    }

    /// The word for it, as managers say it.
    pub fn as_str(self) -> &'static str {
        match self {
            MovePhase::Preparing => "preparing",
            MovePhase::Prepared => "prepared",
            MovePhase::Paused => "paused",
            MovePhase::Stopped => "stopped",
            MovePhase::Packaged => "packaged",
            MovePhase::Sent => "sent",
            MovePhase::Instantiated => "instantiated",
            MovePhase::Granted => "granted",
            MovePhase::Done => "done",
            MovePhase::Aborted => "aborted",
            MovePhase::Failed => "failed",
        }
    }
}

impl MoveMode {
    /// The phases that its manager reports, in order.
    pub fn reported(self) -> &'static [MovePhase] {
        use MovePhase::{Instantiated, Packaged, Sent, Stopped};
        match self {
            MoveMode::Hot => &[],
            MoveMode::Warm => &[Stopped, Instantiated],
            MoveMode::Cold => &[Stopped, Packaged, Sent, Instantiated],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MoveEvent::{Claimed, Instantiated, Packaged, Paused, Prepared, Runs, Sent, Stopped};
    use super::Next::{OutOfOrder, Stays, To};
    use super::*;
    use MovePhase as P;

    fn run(mode: MoveMode, events: &[MoveEvent]) -> MovePhase {
        events.iter().fold(P::Preparing, |phase, event| match phase.after(mode, *event) {
            To(next) => next,
            Stays => phase,
            OutOfOrder => panic!("{event:?} in {phase:?} of a {mode} move"),
        })
    }

    #[test]
    fn r51_a_cold_move_has_the_five_steps_in_their_order() {
        let steps = [Prepared, Stopped, Packaged, Sent, Instantiated, Claimed];
        assert_eq!(run(MoveMode::Cold, &steps), P::Granted);
        for (n, early) in steps.iter().enumerate().skip(3) {
            let phase = run(MoveMode::Cold, &steps[..2]);
            let next = phase.after(MoveMode::Cold, *early);
            assert_eq!(next, if n == 5 { To(P::Granted) } else { OutOfOrder }, "{early:?}");
        }
        assert_eq!(P::Prepared.after(MoveMode::Cold, Claimed), OutOfOrder, "it still runs");
        assert_eq!(P::Prepared.after(MoveMode::Cold, Packaged), OutOfOrder);
        assert_eq!(P::Sent.after(MoveMode::Cold, Packaged), Stays, "said again");
        assert_eq!(run(MoveMode::Cold, &[Stopped, Packaged, Runs { prepared: true }]), P::Prepared);
    }

    #[test]
    fn r50_a_warm_move_has_nothing_to_send() {
        assert_eq!(run(MoveMode::Warm, &[Prepared, Paused, Stopped, Instantiated, Claimed]), P::Granted);
        assert_eq!(run(MoveMode::Warm, &[Stopped, Claimed]), P::Granted);
        assert_eq!(P::Stopped.after(MoveMode::Warm, Packaged), OutOfOrder);
        assert_eq!(P::Stopped.may_be_reported(MoveMode::Warm), Some(P::Instantiated));
    }

    #[test]
    fn r49_a_hot_move_is_granted_whenever_the_new_nve_claims() {
        for phase in [P::Preparing, P::Prepared, P::Paused] {
            assert_eq!(phase.after(MoveMode::Hot, Claimed), To(P::Granted));
            assert_eq!(phase.after(MoveMode::Hot, Packaged), OutOfOrder);
        }
        assert_eq!(run(MoveMode::Hot, &[Prepared, Paused, Runs { prepared: true }]), P::Prepared);
        assert_eq!(P::Granted.after(MoveMode::Hot, Claimed), OutOfOrder);
    }
}
