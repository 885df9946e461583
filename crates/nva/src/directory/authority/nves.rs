//! What an NVE may say: it speaks for itself, from its own locators, and about VNs and moves that it has a part in.

use std::net::IpAddr;

use godwit_model::message::{Attachment, NvaToNve, NveToNva};
use godwit_model::{DenyReason, Identity, Locators, NveId};
use godwit_wire::Vni;

use super::super::clones::Hello;
use super::super::{Directory, SessionId};

impl Directory {
    /// An operator's certificate opens no session of an NVE.
    pub(in crate::directory) fn is_stranger(&mut self, session: SessionId) -> bool {
        let Some(s) = self.sessions.get(&session) else { return false };
        let Identity::Operator { name, .. } = &s.identity else { return false };
        let text = format!(
            "operator {name} is no switch and cannot open a session of an NVE; use the certificate of a switch"
        );
        self.denied(session, "session", text.clone());
        self.close(session, text);
        true
    }

    /// The Hello names the NVE that the connection proved, with locators that it may use; otherwise the session ends.
    pub(in crate::directory) fn may_be(&mut self, session: SessionId, hello: &Hello) -> bool {
        let Some(s) = self.sessions.get(&session) else { return false };
        let Some(text) = self.not_itself(&s.identity, hello) else { return true };
        self.denied(session, "hello", text.clone());
        self.close(session, text);
        false
    }

    fn not_itself(&self, identity: &Identity, hello: &Hello) -> Option<String> {
        let Identity::Nve { id, locators } = identity else { return None };
        if *id != hello.nve {
            return Some(format!(
                "the certificate is that of NVE {id}, and it speaks for NVE {}; set nve.id to {id}, or give it the \
                 certificate of {}",
                hello.nve, hello.nve
            ));
        }
        let own = addresses(hello.locators);
        if let Some(ip) = own.clone().find(|ip| !locators.is_empty() && !locators.contains(ip)) {
            let listed: Vec<String> = locators.iter().map(IpAddr::to_string).collect();
            return Some(format!(
                "the certificate of NVE {id} lists the locators {}, and not {ip}; use one of these, or a certificate \
                 that lists it",
                listed.join(", ")
            ));
        }
        own.clone().find_map(|ip| {
            let other = self.nves.values().find(|n| n.record.id != *id && n.record.locators.contains(ip))?;
            Some(format!(
                "locator {ip} is that of NVE {}; NVE {id} needs one of its own, or `godwitctl nve delete {}` first",
                other.record.id, other.record.id
            ))
        })
    }

    /// The NVE may say this; otherwise it is refused, and the session stays.
    pub(in crate::directory) fn may_say(
        &mut self,
        session: SessionId,
        nve: &NveId,
        message: &NveToNva,
    ) -> bool {
        if let NveToNva::MoveReport { id, .. } = message {
            let others = self.moves.get(id).is_some_and(|m| m.record.from != *nve && m.record.to != *nve);
            if others {
                let text = format!("NVE {nve} has no part in move {id} and reports nothing of it");
                self.denied(session, "move report", text);
            }
            return !others;
        }
        let Some((vni, what)) = self.outside(nve, message) else { return true };
        let text = self.no_part(nve, vni);
        if let NveToNva::Claim { seq, key, .. } = message {
            // With its number, so that it is not repeated at once.
            self.audit_nve(session, what, &text);
            self.counts.claims_refused += 1;
            let (seq, key, reason) = (*seq, *key, DenyReason::NotAllowed);
            self.send(session, NvaToNve::Deny { seq, key, reason, text, record: None });
        } else {
            self.denied(session, what, text);
        }
        false
    }

    fn no_part(&self, nve: &NveId, vni: Vni) -> String {
        let vn = match self.vns.record(vni) {
            Some(r) => format!("{} ({vni})", r.name),
            None => vni.to_string(),
        };
        let name = self.vns.record(vni).map_or("VN", |r| &r.name);
        format!("NVE {nve} may not take part in VN {vn}; `godwitctl nve allow {nve} --vn {name}` lets it")
    }

    /// The VN that the message is about, where the NVE may not take part in it. What takes its leave is always heard.
    fn outside(&self, nve: &NveId, message: &NveToNva) -> Option<(Vni, &'static str)> {
        let access = self.access.get(nve)?;
        let (vni, what) = match message {
            NveToNva::Subscribe { vni, .. } => (*vni, "subscribe"),
            NveToNva::Linger { vni, .. } => (*vni, "linger"),
            NveToNva::Groups { vni, .. } => (*vni, "groups"),
            NveToNva::Query { vni, .. } => (*vni, "query"),
            NveToNva::Associate { key, .. } => (key.vni, "associate"),
            NveToNva::Claim { key, .. } => (key.vni, "claim"),
            NveToNva::Bind { key, .. } => (key.vni, "bind"),
            NveToNva::Departed { key, .. } => (key.vni, "departed"),
            NveToNva::Redirect { key, .. } => (key.vni, "redirect"),
            NveToNva::Verified { key, .. } => (key.vni, "verified"),
            NveToNva::ForwardEnding { key, .. } => (key.vni, "forward ending"),
            NveToNva::MoveReport { .. }
            | NveToNva::Hello { .. }
            | NveToNva::Unsubscribe { .. }
            | NveToNva::Disassociate { .. }
            | NveToNva::Withdraw { .. }
            | NveToNva::Unbind { .. }
            | NveToNva::Ack { .. }
            | NveToNva::Report { .. }
            | NveToNva::Keepalive => return None,
        };
        (!access.allows(vni)).then_some((vni, what))
    }

    /// Of a report of ports, what the NVE may report: ports in VNs that it may take part in.
    pub(in crate::directory) fn may_report(
        &self,
        nve: &NveId,
        attachments: Vec<Attachment>,
    ) -> Vec<Attachment> {
        let Some(access) = self.access.get(nve) else { return attachments };
        attachments.into_iter().filter(|a| access.allows(a.key.vni)).collect()
    }
}

fn addresses(locators: Locators) -> impl Iterator<Item = IpAddr> + Clone {
    locators.v4.map(IpAddr::V4).into_iter().chain(locators.v6.map(IpAddr::V6))
}
