//! What NVEs are told of domains: a domain as a whole before the first `End` of a VN that names it, and its changes.
//!
//! As long as a session is subscribed to a VN of the domain, it hears of it; then `DomainGone`. All of a session's
//! messages keep their order, so nothing of this is acknowledged or repeated; a new session is told everything anew.

use godwit_model::message::NvaToNve;
use godwit_model::{Domain, DomainId, StaticRoute};
use godwit_wire::{Prefix, Vni};

use super::super::{Directory, SessionId, VnRecord};

/// Routes in one message.
const CHUNK: usize = 1000;

impl Directory {
    /// The session is about to be told of a VN: first of its domain, where it does not know it.
    pub(in super::super) fn introduce_domain(&mut self, session: SessionId, vni: Vni) {
        let Some(id) = self.routing_of(vni).map(|r| r.domain) else { return };
        if self.sessions.get_mut(&session).is_some_and(|s| s.domains.insert(id)) {
            for message in self.domain_messages(id) {
                self.send(session, message);
            }
        }
    }

    /// News that tell an NVE the whole domain.
    fn domain_messages(&self, id: DomainId) -> Vec<NvaToNve> {
        let (Some(d), Some(domain)) = (self.domains.get(id), self.domain_as_told(id)) else {
            return Vec::new();
        };
        let routes: Vec<StaticRoute> = d.routes.iter().map(super::route).collect();
        let parts = routes.chunks(CHUNK);
        let parts = parts.map(|part| NvaToNve::DomainRoutes { id, routes: part.to_vec(), gone: Vec::new() });
        [NvaToNve::Domain { domain, reset: true }].into_iter().chain(parts).collect()
    }

    fn domain_as_told(&self, id: DomainId) -> Option<Domain> {
        let d = self.domains.get(id)?;
        Some(Domain {
            id,
            name: d.name.clone(),
            gateway_mac: self.config.gateway_mac,
            vns: d.vns.iter().copied().collect(),
        })
    }

    /// Its VNs are others: everybody who knows the domain learns it.
    pub(super) fn tell_domain(&mut self, id: DomainId) {
        let Some(domain) = self.domain_as_told(id) else { return };
        for session in self.sessions.that_know(id) {
            self.send(session, NvaToNve::Domain { domain: domain.clone(), reset: false });
        }
    }

    /// Some of its routes are others.
    pub(super) fn tell_routes(&mut self, id: DomainId, routes: &[StaticRoute], gone: &[Prefix]) {
        for session in self.sessions.that_know(id) {
            let (routes, gone) = (routes.to_vec(), gone.to_vec());
            self.send(session, NvaToNve::DomainRoutes { id, routes, gone });
        }
    }

    /// A VN joins its domain: who knows the domain learns it before the VN's `End` names it.
    pub(in super::super) fn enter_domain(&mut self, vn: &VnRecord) {
        if let Some(routing) = &vn.settings.routing {
            self.domains.join(vn.vni, routing);
            self.tell_domain(routing.domain);
        }
    }

    /// A VN is deleted, and its subscribers were told so: who has no other VN of its domain forgets the domain, and the
    /// others learn which VNs there are.
    pub(in super::super) fn leave_domain(&mut self, gone: Option<VnRecord>) {
        let Some((vni, routing)) = gone.and_then(|r| Some((r.vni, r.settings.routing?))) else { return };
        let id = routing.domain;
        self.domains.leave(vni, &routing);
        for session in self.sessions.that_know(id) {
            self.forget_domain(session, id);
        }
        self.tell_domain(id);
    }

    /// The session has left a VN, perhaps the last one of the domain that it had.
    pub(in super::super) fn left_vn_of_domain(&mut self, session: SessionId, vni: Vni) {
        if let Some(id) = self.routing_of(vni).map(|r| r.domain) {
            self.forget_domain(session, id);
        }
    }

    fn forget_domain(&mut self, session: SessionId, id: DomainId) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        let has = |vni: &Vni| s.subscribed.contains_key(vni);
        let needed = self.domains.get(id).is_some_and(|d| d.vns.iter().any(has));
        if !needed && s.domains.remove(&id) {
            self.send(session, NvaToNve::DomainGone { id });
        }
    }
}
