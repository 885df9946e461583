//! Another VM of the VN has left: is this one still here (R32)?
//!
//! It is asked by its addresses, on its own port, from a sender that binds nothing. A VM that is paused, on its way,
//! or has hardly come is left alone: others see to it, or it is probing its own addresses and would take ours for a
//! conflict (RFC 5227 §2.1.1). Silence is no departure: a stalled guest is silent, and so is one that answers no ARP.
//! Who left says so by its link, or another NVE claims it (R21); the silence is told to people.

use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use super::verify::{MAX_ASKED, asked_in_turn};
use super::{Action, Ctx, Phase, Vm};
use crate::io::Level;

/// Between two questions to one VM.
const GAP: Span = Span::from_ms(1000);

/// Questions to one VM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan {
    asked: u32,
    next: Instant,
}

impl Scan {
    pub(crate) fn deadline(&self) -> Instant {
        self.next
    }
}

impl Vm {
    /// Has it asked from `at` on, unless it is being asked; false where it is not to be.
    pub(crate) fn scan_from(&mut self, at: Instant, cx: &Ctx<'_>) -> bool {
        let Phase::Running(run) = self.phase else { return false };
        let wanted = self.scan.is_none() && self.scanned_port(cx).is_some();
        if wanted {
            self.scan = Some(Scan { asked: 0, next: at.max(run.since + cx.config.scan_grace) });
        }
        wanted
    }

    /// The port that it runs on, where it may be asked.
    fn scanned_port(&self, cx: &Ctx<'_>) -> Option<PortIdx> {
        let port = self.phase.running_on()?;
        let settled = self.intent.is_none() && !cx.is_moving() && self.check.is_none();
        let reachable = self.ports.get(&port).is_some_and(|p| p.link_up);
        let known = cx.record.is_some_and(|r| r.addresses().next().is_some());
        (settled && reachable && known).then_some(port)
    }

    /// Asks once more, or draws the conclusion.
    pub(crate) fn scan_due(&mut self, cx: &mut Ctx<'_>) {
        let Some(mut scan) = self.scan.filter(|s| s.next <= cx.now) else { return };
        let (Some(port), Some(r)) = (self.scanned_port(cx), cx.record) else {
            self.scan = None;
            return;
        };
        if scan.asked >= cx.config.scan_tries {
            self.scan = None;
            return self.is_silent(port, cx);
        }
        let ips = asked_in_turn(r, scan.asked, MAX_ASKED);
        scan = Scan { asked: scan.asked + 1, next: cx.now + GAP };
        self.scan = Some(scan);
        cx.actions.push(Action::Probe { port, ips });
    }

    fn is_silent(&self, port: PortIdx, cx: &mut Ctx<'_>) {
        let Some(p) = self.ports.get(&port) else { return };
        let text = format!(
            "port {}: {} answered none of {} questions; it stays, for its port has a link",
            p.name, self.key, cx.config.scan_tries
        );
        cx.note(Level::Alarm, text);
    }
}
