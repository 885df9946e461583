//! Order at the two NVEs of a planned move (R77): what the VM sends from the new one waits until the old one has said
//! that all that it sent from there has left.

use std::net::IpAddr;

use godwit_model::{MoveId, MoveStepKind};
use godwit_tables::update::PortIdx;
use godwit_wire::Instant;

use super::{Action, Ctx, Vm};

/// The step is reported so many times `marker_wait` after the grant: by then all senders have gone over.
const REPORT_AFTER: u64 = 4;

/// What the VM sent from its old NVE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Own {
    /// Its end is waited for until then; meanwhile nothing leaves here.
    Awaited(Instant),
    /// All of it has left there.
    Left,
    /// The old NVE did not say so in time.
    Late,
}

/// A VM that has come by a planned move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ordering {
    id: MoveId,
    own: Own,
    /// End markers of senders that have come.
    markers: u32,
    /// Wall clock of the last event, in microseconds.
    last_us: u64,
    /// When the step is reported; not before the grant.
    report_at: Option<Instant>,
}

impl Vm {
    /// The old NVE of a planned move marks the ends of its paths, or does not.
    pub(crate) fn expect_marker(&mut self, marks: bool) {
        if let Some(intent) = self.intent.as_mut().filter(|i| i.is_target()) {
            intent.marks = marks;
        }
    }

    /// It runs here now.
    pub(super) fn begin_order(&mut self, cx: &Ctx<'_>) {
        let Some(intent) = self.intent.as_ref().filter(|i| i.is_target() && i.marks) else { return };
        if self.ordering.as_ref().is_some_and(|o| o.id == intent.id) {
            return;
        }
        let own = if intent.all_sent { Own::Left } else { Own::Awaited(cx.now + cx.config.marker_wait) };
        let (id, last_us) = (intent.id.clone(), cx.wall_us);
        self.ordering = Some(Ordering { id, own, markers: 0, last_us, report_at: None });
    }

    /// Its claim is granted: senders go over from now on.
    pub(super) fn order_granted(&mut self, cx: &Ctx<'_>) {
        if let Some(o) = &mut self.ordering {
            let wait = godwit_wire::Span(cx.config.marker_wait.0.saturating_mul(REPORT_AFTER));
            o.report_at.get_or_insert(cx.now + wait);
        }
    }

    /// The old NVE says that all that the VM sent from there has left.
    /// Not `all`: it runs there again, and sends more.
    pub(crate) fn all_was_sent(&mut self, by: IpAddr, all: bool, cx: &mut Ctx<'_>) {
        if let Some(intent) = self.intent.as_mut().filter(|i| i.is_target() && i.from.locators.contains(by)) {
            intent.all_sent = all;
            if !all {
                return;
            }
            if let Some(o) = self.ordering.as_mut().filter(|o| o.id == intent.id) {
                o.left(cx);
            }
        } else if let Some(o) = self.ordering.as_mut().filter(|_| all) {
            // Its grant was faster.
            o.left(cx);
        }
    }

    /// All that a sender sent by its old path is here.
    pub(crate) fn marker_came(&mut self, cx: &Ctx<'_>) {
        if let Some(o) = &mut self.ordering {
            o.markers += 1;
            o.last_us = cx.wall_us;
        }
    }

    /// Nothing that it sends leaves here yet.
    pub(super) fn is_muted(&self) -> bool {
        self.ordering.as_ref().is_some_and(|o| matches!(o.own, Own::Awaited(_)))
    }

    /// The new NVE is told when all that the VM sent from here has left.
    /// It came from `port`.
    pub(super) fn announce_end(&self, port: Option<PortIdx>, cx: &mut Ctx<'_>) {
        if let Some(intent) = self.intent.as_ref().filter(|i| !i.is_target()) {
            cx.actions.push(Action::SentAll { to: intent.to.locators, port });
        }
    }

    pub(super) fn order_deadline(&self) -> Option<Instant> {
        let o = self.ordering.as_ref()?;
        match o.own {
            Own::Awaited(until) => Some(o.report_at.map_or(until, |t| t.min(until))),
            Own::Left | Own::Late => o.report_at,
        }
    }

    pub(super) fn order_due(&mut self, cx: &mut Ctx<'_>) {
        let Some(o) = &mut self.ordering else { return };
        if matches!(o.own, Own::Awaited(until) if until <= cx.now) {
            o.own = Own::Late;
            o.last_us = cx.wall_us;
            cx.actions.push(Action::MarkerLate);
        }
        if o.report_at.is_none_or(|t| t > cx.now) {
            return;
        }
        let Some(o) = self.ordering.take() else { return };
        let own = match o.own {
            Own::Left => "what the VM had sent before had left",
            Own::Awaited(_) | Own::Late => "the old NVE did not say in time that all of the VM's had left",
        };
        let note = format!("old paths of {} senders ended; {own}", o.markers);
        let step = Some(self.step(cx, MoveStepKind::InOrder, o.last_us, &note));
        cx.actions.push(Action::Report { id: o.id, step, counts: None });
    }
}

impl Ordering {
    fn left(&mut self, cx: &Ctx<'_>) {
        if matches!(self.own, Own::Awaited(_)) {
            self.own = Own::Left;
            self.last_us = cx.wall_us;
        }
    }
}
