//! Warm and cold moves: the manager shuts the guest down, says how far it is, and starts it elsewhere (R50, R51).
//!
//! What it may rely on is as for hot moves. Beside that:
//!
//! * A guest is shut down, and its old switch told so, before it is started elsewhere. Where that switch does not say
//!   so to the NVA in time, the manager does.
//! * Where nothing fails, nobody has an entry any more that leads to the guest when it is started
//!   ([`Invariant::Detached`]): not to where it was, nor to where it is to run.

use godwit_control::Input;
use godwit_model::{MoveId, MoveMode, MovePhase, OperState};
use godwit_nva::Order;
use godwit_tables::vms::{Fib, State};
use godwit_wire::Span;

use super::invariants::Invariant;
use super::names;
use super::nva::Job;
use super::schedule::{Abort, Class, MovePlan, Pause, Schedule};
use super::script::Step;
use super::world::World;
use crate::rng::Rng;

/// An order without an answer is given again after so long.
const ANSWER: Span = Span::from_ms(400);
/// How often the manager looks how far the move is.
const LOOK: Span = Span::from_ms(5);
/// The old switch has so long to say that the guest is shut down.
const SAYS: Span = Span::from_ms(1500);
/// Where nothing fails, what the NVA says has taken effect after so long.
const TOLD: Span = Span::from_ms(80);

/// Some of the moves interrupt their VMs. Of a generator of its own, so that the rest is as the seed has it.
pub(super) fn draw(mut plan: Schedule) -> Schedule {
    let mut rng = Rng::new(plan.seed.rotate_left(29) ^ 0xc01d);
    let may = matches!(plan.class, Class::Planned | Class::NvaFaults | Class::Anything);
    if may && rng.chance(350) {
        for m in plan.moves.iter_mut().filter(|m| !m.dies && !m.local) {
            if rng.chance(600) {
                m.mode = rng.pick(&[MoveMode::Warm, MoveMode::Cold]);
                m.pause = rng.pick(&[Pause::Asked, Pause::Unplugged]);
                // Once it is shut down there is nothing to go back to.
                m.abort = m.abort.filter(|a| !matches!(a, Abort::Pausing | Abort::Paused));
            }
        }
    }
    plan
}

impl Schedule {
    /// Some of its moves interrupt their VMs.
    pub fn interrupts(&self) -> bool {
        self.moves.iter().any(|m| m.mode.interrupts())
    }
}

impl World {
    /// What comes before the order of a move.
    pub(super) fn first_step(plan: &MovePlan) -> Step {
        if plan.mode == MoveMode::Warm { Step::Mirror } else { Step::Order }
    }

    /// The manager says where it mirrors the guest to, and that it has.
    pub(super) fn mirror(&mut self, script: usize, done: bool) {
        let s = &self.scripts[script];
        let (vm, to) = (self.guests[s.plan.vm].name.clone(), names::nve(s.plan.to));
        let (order, again) = match done {
            false => (Order::SetMirror { vm, to: Some((to, 30)) }, Step::Mirror),
            true => (Order::VmMirrored { vm, at_us: None }, Step::Mirrored),
        };
        self.nva_request(Job::Order { script, order });
        if self.scripts[script].step == again {
            self.wake(script, again, ANSWER);
        }
    }

    /// The guest is shut down, and its switch hears of it.
    pub(super) fn shut_down(&mut self, script: usize) {
        let s = &self.scripts[script];
        let (vm, old, pause, after) = (s.plan.vm, s.old, s.plan.pause, s.plan.blackout);
        self.stats.moves_interrupting += 1;
        self.guests[vm].was_down = true;
        self.forgets_addresses(vm);
        match old {
            Some((host, port)) if pause == Pause::Unplugged => self.unplug(host, port),
            Some((host, port)) => {
                for state in [OperState::ShuttingDown, OperState::Shutdown] {
                    self.control(host, Input::VmState { port, state });
                }
            }
            None => {}
        }
        self.scripts[script].until = self.now + after + SAYS;
        self.wake(script, Step::Report, after);
    }

    /// The manager looks how far the move is, and reports what it has done.
    pub(super) fn report(&mut self, script: usize) {
        let s = &self.scripts[script];
        let (id, mode, late) = (MoveId(s.id.clone()), s.plan.mode, self.now >= s.until);
        let record = self.nva.settled().and_then(|d| d.move_record(&id).ok());
        let Some(phase) = record.map(|r| r.phase) else { return self.wake(script, Step::Report, LOOK) };
        match phase.may_be_reported(mode) {
            Some(MovePhase::Stopped) if !late => self.wake(script, Step::Report, LOOK),
            Some(next) => {
                self.nva_request(Job::Order { script, order: Order::ReportMove { id, phase: next } });
                self.wake(script, Step::Report, LOOK);
            }
            // It was called off meanwhile, or all is done.
            None => self.wake(script, Step::GoOn, TOLD),
        }
    }

    /// The guest is about to be started.
    pub(super) fn check_detached(&mut self, vm: usize) {
        if self.plan.class != Class::Planned {
            return;
        }
        for host in 0..self.hosts.len() {
            if let Some(text) = self.leads_to(host, vm) {
                return self.fail(Invariant::Detached, text);
            }
        }
    }

    /// What a switch would do with a frame for a guest that runs nowhere; `None`: nothing.
    fn leads_to(&self, host: usize, vm: usize) -> Option<String> {
        let key = self.guests[vm].key;
        let workers = self.hosts[host].workers.iter().enumerate();
        let mut leading = workers.filter_map(|(n, w)| Some((n, w, w.tables.vms.get(w.key(key)?)?)));
        leading.find_map(|(n, w, fib)| {
            let state = match fib {
                Fib::Special(at) => match w.tables.vms.special(at).state {
                    State::Known(state) if state.target().is_some() => Some(format!("{state:?}")),
                    _ => w.delivers(key).map(|port| format!("port {}", port.0)),
                },
                other => Some(format!("{other:?}")),
            };
            state.map(|s| format!("n{host}/{n} sends frames for {key}, which runs nowhere, to {s}"))
        })
    }
}
