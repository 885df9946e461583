//! What an identity may do (R68): operators by their role, NVEs by their name, their locators, their VNs and their
//! part in a move. Refusals name who, what, and what it would take; each has its line in the audit log.
//!
//! | File | Content |
//! |---|---|
//! | `roles` | each order with the role that it takes |
//! | `nves` | Hellos and messages of NVEs |
//! | `access` | the VNs that an NVE may take part in, and the orders about them |
//! | `audit` | what the audit log is told |

mod access;
mod audit;
mod nves;
mod roles;

use godwit_model::{Identity, NveId, Role};

pub use access::{BadAccess, VnAccess, VnChoice};
pub(super) use audit::Attempts;
pub use audit::{AuditEntry, Verdict};

use super::door::{Operator, Relay};
use super::{Answered, Directory, Order, Refusal, SessionId};

/// Who asks for something, as refusals and the audit log name it.
fn who(operator: &Operator) -> String {
    match (&operator.identity, operator.address) {
        (Identity::Unproven, Some(address)) => format!("unproven ({address})"),
        (identity, _) => identity.to_string(),
    }
}

/// The operator may do what takes this role.
fn permit(operator: &Operator, what: &str, needs: Role) -> Result<(), Refusal> {
    match &operator.identity {
        Identity::Unproven => Ok(()),
        Identity::Operator { role, .. } if *role >= needs => Ok(()),
        Identity::Operator { .. } => {
            Err(Refusal::RoleTooSmall { who: who(operator), what: what.into(), needs })
        }
        Identity::Nve { id, .. } => Err(Refusal::NoOperator { nve: id.clone(), what: what.into() }),
    }
}

impl Directory {
    /// An order of an operator, where its role is large enough.
    pub(super) fn order(&mut self, operator: &Operator, order: Order) -> Result<Answered, Refusal> {
        let (what, needs) = order.needs();
        let details = audit::details(&order);
        let answer = permit(operator, what, needs).and_then(|()| self.obey(order));
        self.counts.orders += 1;
        self.counts.orders_refused += u64::from(answer.is_err());
        self.audit_operator(operator, what, details, answer.as_ref().err());
        answer
    }

    /// A question of an operator, answered by whoever holds the directory where this is not refused.
    pub(super) fn look(&mut self, operator: &Operator, what: String) -> Result<Answered, Refusal> {
        let answer = permit(operator, &what, Role::Read).map(|()| Answered::Nothing);
        if let Err(refusal) = &answer {
            self.audit_operator(operator, what, String::new(), Some(refusal));
        }
        answer
    }

    /// A request that an operator has for a switch.
    pub(super) fn relay(&mut self, operator: &Operator, relay: Relay) -> Result<Answered, Refusal> {
        let Relay { nve, what, needs, details } = relay;
        let session = permit(operator, what, needs).and_then(|()| self.session_for(&nve));
        if needs > Role::Read || session.as_ref().is_err_and(|r| r.is_denial()) {
            let details = format!("NVE {nve}: {details}");
            self.audit_operator(operator, what, audit::bounded(details), session.as_ref().err());
        }
        session.map(Answered::Session)
    }

    /// What an NVE tried and may not: it is told, the log and the audit log have it.
    pub(super) fn denied(&mut self, session: SessionId, what: &'static str, text: String) {
        self.audit_nve(session, what, &text);
        self.error(session, text);
    }

    /// The NVE may take part in the VN.
    pub(super) fn may_take_part(&self, nve: &NveId, vni: godwit_wire::Vni) -> bool {
        self.access.get(nve).is_none_or(|a| a.allows(vni))
    }
}
