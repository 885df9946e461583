//! What the directory has said of a VM since its first port here came.
//!
//! ```text
//!                  | offline      | online
//!   no record      | Unsaid       | Asked
//!   a record       | Answered     | Early        when the first port comes
//!
//!   Unsaid, Early -- answer ------------------> Answered        Asked -- snapshot ------> Early
//!   Unsaid -- snapshot -----------------------> Answered        Asked -- new session ---> Unsaid
//!   Asked -- answer --------------------------> Answered        Early -- new session ---> Answered
//! ```

use godwit_model::ClaimCause;

use super::{Ctx, Phase, Vm};
use crate::io::Level;

/// What the directory has said of a VM since its first port here came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Provision {
    /// Nothing; no answer to a port's Associate is under way.
    Unsaid,
    /// Nothing; the answer is under way.
    Asked,
    /// Something, and the answer is under way: what it said before it heard of the port may be older than the report
    /// that the VM is not here.
    Early,
    /// Something, after it has heard of the port or in a session that knows it.
    Answered,
}

impl Provision {
    /// The first port comes. What the directory said before an earlier one went may be forgotten with the VN.
    pub(super) fn of_first_port(is_known: bool, online: bool) -> Provision {
        match (is_known, online) {
            (false, false) => Provision::Unsaid,
            (false, true) => Provision::Asked,
            (true, true) => Provision::Early,
            (true, false) => Provision::Answered,
        }
    }

    /// The directory has spoken on the VM: its ports are associated, and its claims may go out.
    pub(super) fn is_said(self) -> bool {
        matches!(self, Provision::Early | Provision::Answered)
    }

    /// No answer is under way: whatever the directory says counts.
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Provision::Unsaid | Provision::Answered)
    }

    /// No answer is under way any more: it is here, or its session is over.
    fn settle(&mut self) {
        *self = if self.is_said() { Provision::Answered } else { Provision::Unsaid };
    }

    /// The directory speaks on the VM; true for the first time.
    fn say(&mut self) -> bool {
        let first = !self.is_said();
        *self = if self.is_settled() { Provision::Answered } else { Provision::Early };
        first
    }
}

impl Vm {
    /// The directory's answer to a port of the VM.
    pub(crate) fn port_answered(&mut self, cx: &mut Ctx<'_>) {
        // Not the answer to its port: somebody repeats an order, or asks for it.
        let again = self.provisioned == Provision::Answered;
        self.provisioned.settle();
        self.provision(cx);
        if again {
            self.claim_refused_again(cx.now);
            self.seek_now(cx);
        }
    }

    /// A new session: it knows no question of an earlier one.
    pub(super) fn settle_provision(&mut self) {
        self.provisioned.settle();
    }

    /// The directory has spoken on the VM: deferred claims go out, unless the address that was
    /// announced meanwhile is not the VM's (R24).
    pub(crate) fn provision(&mut self, cx: &mut Ctx<'_>) {
        let first = self.provisioned.say();
        let alien = self.announced.take().filter(|ip| first && !cx.may_announce(*ip));
        let unsaid = self.claim.as_ref().is_some_and(|c| c.is_unsent() && c.cause != ClaimCause::Activate);
        if let Some(ip) = alien.filter(|_| unsaid && self.phase.is_running()) {
            cx.note(Level::Warn, format!("{} announced {ip}, which is not its address: refused", self.key));
            self.claim = None;
            self.phase = Phase::Idle;
        }
        if self.claim.as_ref().is_some_and(|c| c.is_unsent() && c.next.is_none()) {
            self.send_claim(cx);
        }
        if cx.record.is_some() {
            self.directory_changed(cx);
        }
        self.policy_came(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::Provision::{self, Answered, Asked, Early, Unsaid};

    #[test]
    fn an_answer_settles_and_a_snapshot_only_speaks() {
        let said = |mut p: Provision| (p.say(), p);
        assert_eq!(
            [Unsaid, Asked, Early, Answered].map(said),
            [(true, Answered), (true, Early), (false, Early), (false, Answered)]
        );
        let settled = |mut p: Provision| {
            p.settle();
            p
        };
        assert_eq!([Unsaid, Asked, Early, Answered].map(settled), [Unsaid, Unsaid, Answered, Answered]);
    }

    #[test]
    fn the_first_port_asks_while_there_is_a_session() {
        let of = |known, online| Provision::of_first_port(known, online);
        assert_eq!(
            [of(false, false), of(false, true), of(true, true), of(true, false)],
            [Unsaid, Asked, Early, Answered]
        );
    }
}
