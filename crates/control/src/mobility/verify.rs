//! Another NVE claims the VM without a move: does it still run here (R21)?

use std::net::IpAddr;

use godwit_model::message::NveToNva;
use godwit_model::{Version, VmRecord};
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use super::{Ctx, Vm};

/// So long the VM has for an answer (R21).
const PATIENCE: Span = Span::from_ms(3000);
/// Between two questions to it.
const GAP: Span = Span::from_ms(1000);
/// Questions without which silence means nothing.
const LEAST_ASKED: u32 = 3;
/// Addresses that are asked at once: one answer is enough.
pub(super) const MAX_ASKED: usize = 4;

/// Of a VM's addresses those that it is asked for at the `turn`-th time, `size` at once: a guest may have configured
/// any of them, so all have their turn.
pub(super) fn asked_in_turn(r: &VmRecord, turn: u32, size: usize) -> Vec<IpAddr> {
    let all: Vec<IpAddr> = r.addresses().map(|(ip, _)| ip).collect();
    let from = (turn as usize).wrapping_mul(size) % all.len().max(1);
    all.iter().cycle().skip(from).take(all.len().min(size)).copied().collect()
}

/// A question of the NVA that only the VM can answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Check {
    /// The version that the question named.
    version: Version,
    /// The VM is asked next.
    next: Instant,
    /// Silence until then is the answer, if it was asked often enough: a switch that stood still asked nobody.
    until: Instant,
    asked: u32,
}

impl Check {
    pub(crate) fn deadline(&self) -> Instant {
        self.next.min(self.until)
    }
}

impl Vm {
    /// The NVA asks. Without a port it is gone; otherwise its addresses are asked for 3 s.
    pub(crate) fn verify_asked(&mut self, version: Version, cx: &mut Ctx<'_>) {
        if self.check.as_ref().is_some_and(|c| c.version == version) {
            return;
        }
        self.check = Some(Check { version, next: cx.now, until: cx.now + PATIENCE, asked: 0 });
        if self.asked_port().is_some() && cx.record.is_none_or(|r| r.addresses().next().is_none()) {
            // Without an address there is nothing to ask for, and a VM in doubt stays where it is.
            return self.answer(true, "it has a port, and no address by which it could be asked", cx);
        }
        self.look_again(cx);
        self.check_due(cx);
    }

    /// The port that the VM is on, where that has a link.
    fn asked_port(&self) -> Option<PortIdx> {
        self.phase.port().filter(|port| self.ports.get(port).is_some_and(|p| p.link_up))
    }

    /// Its port may be gone meanwhile, which needs no patience.
    pub(crate) fn look_again(&mut self, cx: &mut Ctx<'_>) {
        if self.check.is_some() && self.asked_port().is_none() {
            self.answer(false, "it has no port here any more", cx);
        }
    }

    /// Asks once more, or gives up.
    pub(crate) fn check_due(&mut self, cx: &mut Ctx<'_>) {
        let Some(c) = self.check.clone() else { return };
        if c.until <= cx.now && c.asked >= LEAST_ASKED {
            return self.answer(false, "it answered nothing for 3 s", cx);
        }
        if c.next > cx.now {
            return;
        }
        if let Some(c) = &mut self.check {
            c.next = cx.now + GAP;
            c.until = c.until.max(c.next);
            c.asked += 1;
        }
        if let (Some(port), Some(r)) = (self.asked_port(), cx.record) {
            // All of them, each time: its silence is taken for its absence.
            let ips: Vec<IpAddr> = r.addresses().map(|(ip, _)| ip).collect();
            cx.actions.push(super::Action::Probe { port, ips });
        }
    }

    /// The VM answered.
    pub(crate) fn heard_alive(&mut self, port: PortIdx, cx: &mut Ctx<'_>) {
        if self.phase.running_on() == Some(port) {
            self.scan = None;
        }
        if self.check.is_some() && self.asked_port() == Some(port) {
            self.answer(true, "it answered", cx);
        }
        self.found_on(port, cx);
    }

    fn answer(&mut self, alive: bool, note: &str, cx: &mut Ctx<'_>) {
        if let Some(c) = self.check.take() {
            let (key, version) = (self.key, c.version);
            cx.send(NveToNva::Verified { key, version, alive, note: note.to_owned() });
        }
    }

    /// The session in which the question came is over; in the next one it is put again.
    pub(crate) fn forget_check(&mut self) {
        self.check = None;
    }
}
