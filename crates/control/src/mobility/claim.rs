//! Claims: said until answered, answered by Grant or Deny (R18, R20, R21).

use std::net::IpAddr;

use godwit_model::message::NveToNva;
use godwit_model::{ClaimCause, DenyReason, Version, VmRecord};
use godwit_wire::{Instant, Span};

use crate::io::Level;

use super::{Action, Ctx, Phase, Vm};

/// How long a claim waits for workers that are slow to forget a forward entry.
const GATE_PATIENCE: Span = Span::from_ms(50);

/// A claim without an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    /// Its number; repetitions carry the same.
    pub(crate) seq: u64,
    pub(crate) cause: ClaimCause,
    /// When it goes out, first or again; `None` while there is no session or no provision.
    pub(crate) next: Option<Instant>,
    backoff: Span,
    /// It went out in this session.
    sent: bool,
    /// It rests on an attachment that the NVA knew already.
    again: bool,
    /// Workers may still have a forward entry (R46c).
    gated: bool,
    /// The addresses that it named.
    ips: Vec<IpAddr>,
}

impl Claim {
    /// It says something new, which only its answer decides.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.again
    }

    /// It has not gone out in this session.
    pub(super) fn is_unsent(&self) -> bool {
        !self.sent
    }

    /// It says something new, and the NVA has it.
    pub(crate) fn awaits_answer(&self) -> bool {
        !self.again && self.sent
    }
}

impl Vm {
    /// Begins to claim. With `gated` the workers had a forward entry, and the claim waits until all
    /// of them have let go of it (R46c). So does a claim that takes the place of one that waits.
    pub(crate) fn start_claim(&mut self, cause: ClaimCause, gated: bool, cx: &mut Ctx<'_>) {
        let gated = gated || self.claim.as_ref().is_some_and(|c| c.gated && !c.sent);
        let seq = cx.next_seq();
        self.claim = Some(Claim {
            seq,
            cause,
            next: None,
            backoff: cx.config.claim_backoff,
            sent: false,
            again: cause == ClaimCause::Resync,
            gated,
            ips: Vec::new(),
        });
        if gated {
            cx.actions.push(Action::Gate { seq });
            self.claim_next(Some(cx.now + GATE_PATIENCE));
        } else {
            self.send_claim(cx);
        }
    }

    fn claim_next(&mut self, at: Option<Instant>) {
        if let Some(c) = &mut self.claim {
            c.next = at;
        }
    }

    /// All workers have applied the entry that was desired when claim `seq` began.
    pub(crate) fn gate_open(&mut self, seq: u64, cx: &mut Ctx<'_>) {
        if self.claim.as_ref().is_some_and(|c| c.seq == seq && !c.sent) {
            self.send_claim(cx);
        }
    }

    /// Sends or repeats the claim, if there is a session and the directory has spoken on the VM.
    pub(super) fn send_claim(&mut self, cx: &mut Ctx<'_>) {
        let port = match &self.phase {
            Phase::Refused(r) => Some(r.port),
            phase => phase.port(),
        };
        let name = port.and_then(|p| self.ports.get(&p)).map(|p| p.name.clone()).unwrap_or_default();
        let base = cx.version().max(self.hosted);
        let Some(c) = &mut self.claim else { return };
        if !cx.online || !self.provisioned.is_said() || name.is_empty() {
            c.next = None;
            return;
        }
        // A planned move is the operator's doing, and a new session the NVA's: neither is a storm (R67).
        let planned = c.again || self.intent.as_ref().is_some_and(super::Intent::is_target);
        if !c.sent && !planned && !self.claims.take(cx.config.claim_rate, cx.now) {
            c.next = Some(self.claims.next(cx.config.claim_rate, cx.now));
            return cx.actions.push(Action::ClaimDelayed);
        }
        c.sent = true;
        c.next = Some(cx.now + c.backoff);
        c.backoff = Span(c.backoff.0.saturating_mul(2)).min(cx.config.claim_backoff_max);
        let ips: Vec<IpAddr> = match cx.record {
            Some(r) => r.ips().collect(),
            None => self.announced.into_iter().collect(),
        };
        c.ips.clone_from(&ips);
        let (seq, cause) = (c.seq, c.cause);
        let (router, overrides) = (self.router, self.overrides.clone());
        cx.send(NveToNva::Claim { seq, key: self.key, ips, cause, base, port: name, router, overrides });
    }

    pub(crate) fn repeat_claim(&mut self, cx: &mut Ctx<'_>) {
        if self.claim.as_ref().is_some_and(|c| c.next.is_some_and(|t| t <= cx.now)) {
            self.send_claim(cx);
        }
    }

    /// Claims what runs here once more, but not at once: who keeps contradicting us is not flooded.
    pub(crate) fn reclaim_later(&mut self, cx: &mut Ctx<'_>) {
        let seq = cx.next_seq();
        let backoff = cx.config.claim_backoff;
        let next = Some(cx.now + backoff);
        self.claim = Some(Claim {
            seq,
            cause: ClaimCause::Resync,
            next,
            backoff,
            sent: false,
            again: true,
            gated: false,
            ips: Vec::new(),
        });
    }

    /// A new session: everything that runs here is said again (R73). A paused VM is only reported,
    /// because its new NVE may be claiming it.
    pub(crate) fn session_up(&mut self, cx: &mut Ctx<'_>) {
        self.settle_provision();
        for p in self.ports.values() {
            cx.actions.push(Action::Send(NveToNva::Associate { key: self.key, port: p.name.clone() }));
        }
        if let Some(intent) = &mut self.intent {
            intent.unconfirmed = true;
        }
        self.resume_forward(cx.now);
        self.ask_again(cx);
        let fresh = self.claim.as_ref().filter(|c| c.is_fresh()).map(|c| c.cause);
        match self.phase {
            Phase::Running(_) => self.start_claim(fresh.unwrap_or(ClaimCause::Resync), false, cx),
            _ => self.claim = None,
        }
        self.claim_refused_again(cx.now);
    }

    /// The session ended: nothing is repeated until the next one.
    pub(crate) fn session_down(&mut self, cx: &mut Ctx<'_>) {
        self.pause_forward(cx.now);
        self.claim_next(None);
        self.forget_check();
    }

    /// The claim holds; the record is in the mirror already.
    pub(crate) fn granted(&mut self, seq: u64, version: Version, cx: &mut Ctx<'_>) {
        let Some(version) = cx.here().filter(|v| *v >= version) else {
            // Overtaken by news; they decide.
            return self.directory_changed(cx);
        };
        self.refusal_lifted(seq, cx);
        if !self.is_hosted() {
            cx.note(
                Level::Warn,
                format!("{} was granted ({version}) but runs here no more: withdrawn", self.key),
            );
            return self.withdraw(version, cx);
        }
        self.hosted = self.hosted.max(version);
        self.confirmed = true;
        if let Some(claim) = self.claim.take_if(|c| c.seq == seq) {
            if claim.is_fresh() {
                cx.actions.push(Action::Settle);
            }
            cx.note(Level::Info, format!("{} is granted to this NVE ({version})", self.key));
            self.order_granted(cx);
            if self.intent.as_ref().is_some_and(super::Intent::is_target) {
                self.intent = None;
            }
        }
    }

    /// The claim fails; what the directory has instead is in the mirror already.
    pub(crate) fn denied(&mut self, seq: u64, reason: DenyReason, text: &str, cx: &mut Ctx<'_>) {
        let Some(claim) = self.claim.take_if(|c| c.seq == seq) else { return };
        if let Some(version) = cx.here() {
            // Ours after all, by a version that we had not seen.
            self.hosted = self.hosted.max(version);
            self.reclaim_later(cx);
            if let Some(c) = &mut self.claim {
                c.backoff = claim.backoff.max(c.backoff);
                c.next = Some(cx.now + c.backoff);
            }
            return;
        }
        if let Some((to, version)) = cx.elsewhere().filter(|(_, v)| self.confirmed && *v > self.hosted) {
            // The refusal is the first word of its departure (R21).
            let to = to.clone();
            return self.depart(to, version, cx);
        }
        self.disarm_withdrawal();
        if self.rested_on_old_news(&claim, reason, cx) {
            return self.claim_anew(&claim, cx);
        }
        // An order to activate comes once: it is kept as a refused one, which news may revive.
        let fresh = claim.is_fresh() && claim.cause != ClaimCause::Activate && self.is_hosted();
        if reason == DenyReason::StaleVersion && fresh {
            // It rested on news that had been overtaken. The directory's newer word is here now: if
            // the VM is too, its next frame claims it on that ground.
            cx.note(Level::Warn, format!("the claim of {} rested on old news: {text}", self.key));
            self.reopen_ports();
            return self.forward_to_winner(cx);
        }
        self.refused(&claim, reason, text, cx);
    }

    /// Nobody else has it, and the directory's record is not the one that the claim rested on: a definition crossed it.
    fn rested_on_old_news(&self, claim: &Claim, reason: DenyReason, cx: &Ctx<'_>) -> bool {
        let ours = |r: &VmRecord| r.ips().eq(claim.ips.iter().copied());
        let other = match reason {
            DenyReason::AddressMismatch => cx.record.is_some_and(|r| !ours(r)),
            DenyReason::StaleVersion => true,
            DenyReason::UnknownVm => cx.record.is_some(),
            DenyReason::OwnedElsewhere
            | DenyReason::Pinned
            | DenyReason::Frozen
            | DenyReason::Draining
            | DenyReason::NotAllowed => false,
        };
        other && self.is_hosted() && cx.elsewhere().is_none()
    }

    /// The VM stays where it is and is claimed on the ground of what is known now, after a while that grows: who keeps
    /// contradicting us is not flooded.
    fn claim_anew(&mut self, claim: &Claim, cx: &mut Ctx<'_>) {
        let seq = cx.next_seq();
        let (next, sent, gated) = (Some(cx.now + claim.backoff), false, false);
        self.claim = Some(Claim { seq, next, sent, gated, ips: Vec::new(), ..claim.clone() });
    }

    /// A refused VM's frames go where the directory has it, with what was held for it, if that is
    /// newer than what our hosting began with (R46b): a grant may have been lost with its session.
    pub(super) fn forward_to_winner(&mut self, cx: &mut Ctx<'_>) {
        let since = self.hosted.max(self.ran_from);
        let winner = cx.elsewhere().filter(|(_, v)| *v > since);
        if let Some((to, version)) = winner.map(|(l, v)| (l.clone(), v)) {
            self.handover.move_id = cx.record.and_then(|r| r.moving.clone());
            self.start_forward(to, version, cx);
        }
    }
}
