//! Membership of NVEs in VNs (R17, R60).

use std::collections::BTreeSet;

use godwit_model::message::Attachment;
use godwit_model::{DirectoryMode, NveId};
use godwit_wire::Vni;

use super::{Directory, SessionId, Write};

impl Directory {
    pub(super) fn subscribe(
        &mut self,
        session: SessionId,
        nve: NveId,
        vni: Vni,
        mode: DirectoryMode,
        lingers: bool,
    ) {
        let Some(n) = self.nves.get_mut(&nve) else { return };
        let joins = !n.record.vnis.contains(&vni);
        if joins && n.record.vnis.len() >= self.config.max_vns_per_nve {
            let text = format!("NVE {nve} is a member of {} VNs and may not join more", n.record.vnis.len());
            return self.error(session, text);
        }
        n.record.vnis.insert(vni);
        if let Some(s) = self.sessions.get_mut(&session) {
            s.subscribed.entry(vni).or_default().mode = mode;
            if mode == DirectoryMode::Push {
                s.interests.forget_vn(vni);
            }
            match lingers {
                true => s.lingering.insert(vni),
                false => s.lingering.remove(&vni),
            };
        }
        let vn = self.vns.at(vni);
        vn.subscribers.insert(session);
        vn.members.insert(nve.clone());
        // What it said before, perhaps on an earlier connection, may be over.
        let changes = match lingers {
            true => vn.lingering.insert(nve.clone()),
            false => vn.lingering.remove(&nve),
        };
        if joins {
            self.persist(Write::JoinVn(nve.clone(), vni));
        }
        if joins || changes {
            self.member_news(vni, &nve, Some(session));
        }
        if joins {
            self.keys_for_newcomer(vni, &nve);
        }
        // Asked again after a gap: what was under way is part of the snapshot.
        self.settle_by_snapshot(session, vni);
        self.snapshot(session, vni);
    }

    pub(super) fn unsubscribe(&mut self, session: SessionId, nve: &NveId, vni: Vni) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.subscribed.remove(&vni);
            s.lingering.remove(&vni);
            s.interests.forget_vn(vni);
        }
        if let Some(vn) = self.vns.get_mut(vni) {
            vn.subscribers.remove(&session);
        }
        self.streams.forget(session, vni);
        self.settle_by_snapshot(session, vni);
        self.left_vn_of_domain(session, vni);
        self.leave(nve, vni);
    }

    /// The NVE has no port in the VN any more but still forwards, or it has one again: it is told all the same, and
    /// others replicate to it or do not (R17).
    pub(super) fn linger(&mut self, session: SessionId, nve: &NveId, vni: Vni, lingers: bool) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if !s.subscribed.contains_key(&vni) {
            return self.error(session, format!("VN {vni} is not subscribed to, so nobody lingers in it"));
        }
        let Some(vn) = self.vns.get_mut(vni) else { return };
        let changed = if lingers {
            s.lingering.insert(vni);
            vn.lingering.insert(nve.clone())
        } else {
            s.lingering.remove(&vni);
            vn.lingering.remove(nve)
        };
        if changed {
            self.member_news(vni, nve, Some(session));
        }
    }

    /// The NVE has no ports in the VN any more.
    pub(super) fn leave(&mut self, nve: &NveId, vni: Vni) {
        let Some(n) = self.nves.get_mut(nve) else { return };
        if !n.record.vnis.remove(&vni) {
            return;
        }
        self.persist(Write::LeaveVn(nve.clone(), vni));
        self.drop_member(nve, vni);
    }

    pub(super) fn drop_member(&mut self, nve: &NveId, vni: Vni) {
        self.forget_groups(nve, vni);
        let Some(vn) = self.vns.get_mut(vni) else { return };
        vn.lingering.remove(nve);
        if vn.members.remove(nve) {
            self.member_news(vni, nve, None);
        }
        self.vns.drop_unused(vni);
    }

    /// VNs that the NVE was a member of and that it neither subscribed to again nor has ports in.
    pub(super) fn report_memberships(&mut self, session: SessionId, nve: &NveId, attachments: &[Attachment]) {
        let Some(s) = self.sessions.get(&session) else { return };
        let used: BTreeSet<Vni> =
            attachments.iter().map(|a| a.key.vni).chain(s.subscribed.keys().copied()).collect();
        let Some(n) = self.nves.get(nve) else { return };
        let left: Vec<Vni> = n.record.vnis.difference(&used).copied().collect();
        for vni in left {
            self.leave(nve, vni);
        }
    }
}
