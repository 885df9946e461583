//! A claim that the NVA refused: its port is closed, and not for good (R18, R21).
//!
//! News of the VM, a word of the operator or of its guest let it be claimed again, and so does time where nobody else
//! has it: slower and slower, to some seconds. Nothing is delivered meanwhile; with the grant the port is open.

use godwit_model::{ClaimCause, DenyReason, NveId, Version};
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use crate::io::Level;

use super::{Claim, Ctx, Phase, Vm};

/// First and longest gap between claims that time alone repeats.
const GAP: (Span, Span) = (Span::from_ms(1000), Span::from_ms(5000));

/// What was refused, and when it is claimed again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) port: PortIdx,
    pub(crate) cause: ClaimCause,
    /// The directory's version that the refused claim rested on.
    pub(crate) at: Version,
    /// When it is claimed again; `NEVER` while a claim is under way, or where another has the VM or the operator has
    /// decided, so that only news or an order counts.
    next: Instant,
    gap: Span,
    /// Where the directory has the VM, as far as the refusal knows.
    owner: Option<NveId>,
}

impl Vm {
    /// Closes the port; frames for the VM go where the directory has it.
    pub(super) fn refused(&mut self, claim: &Claim, reason: DenyReason, text: &str, cx: &mut Ctx<'_>) {
        let (port, before) = match &self.phase {
            Phase::Refused(r) => (Some(r.port), Some((r.gap, r.cause))),
            phase => (phase.port(), None),
        };
        // Said once, however often it is tried.
        let level = if before.is_some() { Level::Debug } else { Level::Alarm };
        let text =
            format!("the NVA refuses {} to this NVE ({reason:?}: {text}): its port is closed", self.key);
        cx.note(level, text);
        // A move that interrupts the VM lets it start here as soon as it is shut down there.
        self.intent.take_if(|i| !i.mode.interrupts());
        self.close_ports();
        self.forward_to_winner(cx);
        let Some(port) = port else {
            if self.forward.is_some() {
                self.phase = Phase::Left;
            } else {
                // There is no port whose refusal could be taken back: each of its ports stands for itself.
                self.reopen_ports();
            }
            return;
        };
        let at = cx.version();
        let gap = before.map_or(GAP.0, |(gap, _)| Span(gap.0.saturating_mul(2)).min(GAP.1));
        let decided = match reason {
            DenyReason::OwnedElsewhere | DenyReason::Pinned | DenyReason::Frozen => true,
            // A drain is over some day, and the NVA says nothing then.
            DenyReason::Draining => cx.elsewhere().is_some(),
            // What the NVE may do is the operator's to change.
            DenyReason::UnknownVm
            | DenyReason::AddressMismatch
            | DenyReason::StaleVersion
            | DenyReason::NotAllowed => false,
        };
        let next = if decided { Instant::NEVER } else { cx.now + gap };
        let cause = before.map_or(claim.cause, |(_, cause)| cause);
        let owner = cx.elsewhere().map(|(l, _)| l.nve.clone());
        self.phase = Phase::Refused(Refusal { port, cause, at, next, gap, owner });
    }

    pub(super) fn refusal_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Refused(r) => Some(r.next).filter(|t| *t != Instant::NEVER),
            _ => None,
        }
    }

    /// Nothing is behind the port that was refused: on its other ports the VM may be heard again. One behind which
    /// nobody is, by its manager's word, stays closed by that.
    pub(super) fn refusal_over(&mut self) {
        self.claim = None;
        self.reopen_ports();
    }

    /// A word that may change the NVA's mind came.
    pub(super) fn claim_refused_again(&mut self, at: Instant) {
        if let Phase::Refused(r) = &mut self.phase {
            r.next = r.next.min(at);
        }
    }

    /// The directory has the VM at this other NVE by a newer word than the one that the refusal rested on. Where it is
    /// the same NVE, the VM has other addresses by now, or says something else of itself: no reason to claim it.
    pub(super) fn news_of_the_owner(&mut self, owner: &NveId, version: Version, now: Instant) {
        if let Phase::Refused(r) = &mut self.phase
            && version > r.at
        {
            r.at = version;
            if r.owner.as_ref() != Some(owner) {
                r.owner = Some(owner.clone());
                r.next = r.next.min(now + r.gap);
            }
        }
    }

    /// It is time to claim once more.
    pub(super) fn refusal_due(&mut self, cx: &mut Ctx<'_>) {
        let Phase::Refused(r) = &mut self.phase else { return };
        if r.next > cx.now {
            return;
        }
        r.next = Instant::NEVER;
        let cause = r.cause;
        if cx.online && self.claim.is_none() {
            let had_forward = self.forward.take().is_some();
            self.start_claim(cause, had_forward, cx);
        }
    }

    /// News after a refusal, and no other NVE has the VM: it may try again.
    pub(super) fn after_refusal(&mut self, port: PortIdx, cause: ClaimCause, cx: &mut Ctx<'_>) {
        self.claim = None;
        self.activate(port, cause, cx);
    }

    /// A claim that was refused before has its grant.
    pub(super) fn refusal_lifted(&mut self, seq: u64, cx: &mut Ctx<'_>) {
        let Phase::Refused(Refusal { port, .. }) = self.phase else { return };
        if self.claim.as_ref().is_none_or(|c| c.seq != seq) || !self.ports.contains_key(&port) {
            return;
        }
        // Nothing was delivered before: what follows is as if it had been activated and granted in one.
        let claim = self.claim.take();
        self.activate(port, ClaimCause::Resync, cx);
        if self.is_hosted() {
            self.claim = claim;
        }
    }
}
