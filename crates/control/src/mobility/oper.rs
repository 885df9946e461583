//! What the VM manager says of a VM (`vmOperState` of RFC 7666), and what follows for its port (R16).
//!
//! | The manager says | The port |
//! |---|---|
//! | preparing, shutdown, deleted | init: nothing is heard from it; a VM that ran on it is withdrawn |
//! | migrating, and the VM does not run on it | associated: its announcement activates it |
//! | migrating, and it does; running, suspending, shuttingdown | activated |
//! | paused | activated; what arrives is held, and nothing withdraws the VM |
//! | suspended, resuming | associated, withdrawn; the directory keeps the addresses |
//! | crashed | associated, withdrawn; init after 30 s |
//! | unknown, other | as before, with an alarm |
//!
//! The VM itself is believed before its manager: an announcement on an associated port activates it
//! (R18), and what the manager said before counts no more.

use godwit_model::{ClaimCause, OperState};
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use crate::io::Level;
use crate::manager::NoTransition;

use super::port::{AccessPort, Behind, Door, Opens};
use super::{Ctx, PauseCause, Phase, Vm};

/// A crashed VM may come up again on its port for so long (R16).
const CRASH_HOLD: Span = Span::from_ms(30_000);

impl AccessPort {
    /// Nothing that comes from it is heard: its VM left or was refused, or is not there to speak.
    pub(crate) fn is_closed(&self) -> bool {
        self.door == Door::Closed || self.behind == Behind::Nobody
    }

    /// The manager says that the VM is not executed here, and will not go on by itself.
    pub(crate) fn is_stopped(&self) -> bool {
        self.oper.is_some_and(|o| !o.is_active())
    }

    /// When a crashed VM counts as gone.
    pub(super) fn crash_ends(&self) -> Option<Instant> {
        match self.behind {
            Behind::Crashed { until } => Some(until),
            Behind::Anybody | Behind::Nobody => None,
        }
    }

    /// The word of an operator, a hypervisor or the VM itself, which a state before does not stand against.
    pub(crate) fn runs(&mut self, ordered: bool) {
        self.door = Door::Open;
        if ordered && self.opens == Opens::ByOrder {
            self.opens = Opens::Ordered;
        }
        self.behind = Behind::Anybody;
        if self.is_stopped() || self.oper == Some(OperState::Paused) {
            self.oper = None;
        }
    }
}

impl Vm {
    /// Why the manager cannot say `to` of the VM on this port now (R16).
    pub(crate) fn refuses_state(&self, port: PortIdx, to: OperState) -> Option<NoTransition> {
        let from = self.ports.get(&port)?.oper.filter(|from| !from.allows(to))?;
        Some(NoTransition { key: self.key, from, to })
    }

    /// The manager says how the VM on this port is.
    pub(crate) fn state_said(&mut self, port: PortIdx, to: OperState, cx: &mut Ctx<'_>) {
        if let Some(refused) = self.refuses_state(port, to) {
            return cx.note(Level::Warn, refused.to_string());
        }
        self.say_that_the_move_goes_on(cx);
        let Some(p) = self.ports.get_mut(&port) else { return };
        if to.is_vague() {
            let text = format!(
                "port {}: the state of {} is {to}, says its manager: nothing is changed",
                p.name, self.key
            );
            return cx.note(Level::Alarm, text);
        }
        let before = p.oper.replace(to);
        if before == Some(to) {
            return;
        }
        let was_off = p.behind == Behind::Nobody;
        p.behind = match to {
            OperState::Crashed => Behind::Crashed { until: cx.now + CRASH_HOLD },
            OperState::Preparing | OperState::Shutdown | OperState::Deleted => Behind::Nobody,
            _ => Behind::Anybody,
        };
        match to {
            OperState::Running => self.activate_asked(port, cx),
            // Transient states of one that runs; heard first, they say that it does.
            OperState::Suspending | OperState::ShuttingDown => self.runs_unless_it_left(port, cx),
            OperState::Paused => self.paused_by_manager(port, cx),
            OperState::Migrating => self.migrating(port, was_off, cx),
            OperState::Suspended
            | OperState::Resuming
            | OperState::Preparing
            | OperState::Shutdown
            | OperState::Deleted
            | OperState::Crashed => self.stops_on(port, before, cx),
            OperState::Unknown | OperState::Other => {}
        }
        self.look_again(cx);
    }

    /// The first word of a VM that nobody has seen yet. Where it is known to have left, it is late.
    fn runs_unless_it_left(&mut self, port: PortIdx, cx: &mut Ctx<'_>) {
        if self.phase == Phase::Idle {
            self.activate(port, ClaimCause::Activate, cx);
        }
    }

    fn paused_by_manager(&mut self, port: PortIdx, cx: &mut Ctx<'_>) {
        self.runs_unless_it_left(port, cx);
        if let Some(p) = self.ports.get_mut(&port) {
            // Its activation may have been the first word of it.
            p.oper = Some(OperState::Paused);
        }
        if self.is_on(port) {
            self.pause_asked(port, cx);
        }
    }

    /// At the old NVE nothing changes. At the new one the port is there for it, also where an earlier
    /// life of the VM had closed it.
    fn migrating(&mut self, port: PortIdx, was_off: bool, cx: &mut Ctx<'_>) {
        if self.is_on(port) || !was_off {
            return;
        }
        match self.phase {
            Phase::Left => self.reopen_ports(),
            _ => {
                if let Some(p) = self.ports.get_mut(&port).filter(|p| p.door == Door::Closed) {
                    p.door = Door::Open;
                }
            }
        }
        self.port_ready(cx);
    }

    /// It is not executed on this port any more. What is held for a move stays held (R45): its old
    /// hypervisor is often done before its new NVE has the grant.
    fn stops_on(&mut self, port: PortIdx, before: Option<OperState>, cx: &mut Ctx<'_>) {
        if matches!(&self.phase, Phase::Refused(r) if r.port == port) {
            self.refusal_over();
        }
        if let Some(p) = self.ports.get_mut(&port) {
            // What ran here does not: whoever starts it says so.
            p.is_left();
        }
        let said_before = before.is_some_and(|o| !o.is_active());
        if !self.is_on(port) || said_before {
            return;
        }
        let ordered = self.intent.as_ref().is_some_and(super::Intent::holds);
        if !ordered && before != Some(OperState::Migrating) {
            return self.attachment_over("it runs here no more, says its manager", cx);
        }
        if self.phase.is_running() {
            // A move explains a longer silence than a port that is only gone.
            let cause = if ordered { PauseCause::Asked } else { PauseCause::LinkDown };
            self.pause(Some(port), cause, cx);
        }
        self.arm_withdrawal(cx);
    }

    /// A crashed VM did not come back.
    pub(crate) fn crash_due(&mut self, cx: &Ctx<'_>) {
        for p in self.ports.values_mut().filter(|p| p.crash_ends().is_some_and(|t| t <= cx.now)) {
            p.behind = Behind::Nobody;
        }
    }
}
