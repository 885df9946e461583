//! Membership of NVEs in VNs (R17, R60), and the snapshots that it begins with (R37).

use std::collections::BTreeSet;

use godwit_model::message::{Attachment, Change, NvaToNve};
use godwit_model::{DirectoryMode, NveId};
use godwit_wire::Vni;

use super::interest::Subscription;
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
            self.announce_member(session, &nve, vni);
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
            self.announce_member(session, nve, vni);
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
            self.update_all(vni, Change::MemberLeft(nve.clone()), None);
        }
        self.vns.drop_unused(vni);
    }

    fn announce_member(&mut self, session: SessionId, nve: &NveId, vni: Vni) {
        if let Some(news) = self.membership(nve, vni) {
            self.update_all(vni, news, Some(session));
        }
    }

    /// How the NVE takes part in the VN, as news for the others.
    pub(super) fn membership(&self, nve: &NveId, vni: Vni) -> Option<Change> {
        let location = self.location_of(nve)?;
        let lingers = self.vns.get(vni).is_some_and(|vn| vn.lingering.contains(nve));
        Some(if lingers { Change::MemberLingers(location) } else { Change::MemberJoined(location) })
    }

    /// All records of a VN, or in pull mode those that the session hears of, its properties and its members (R37).
    pub(super) fn snapshot(&mut self, session: SessionId, vni: Vni) {
        let Some(s) = self.sessions.get(&session) else { return };
        let Some(Subscription { revision, mode }) = s.subscribed.get(&vni).copied() else { return };
        let nve = s.nve.clone();
        self.introduce_domain(session, vni);
        let records: Vec<_> = match mode {
            DirectoryMode::Push => self.records.of_vn(vni).cloned().collect(),
            DirectoryMode::Pull => {
                self.heard_of(session, vni).iter().filter_map(|key| self.records.get(key)).cloned().collect()
            }
        };
        for vms in super::publish::parts(records, self.config.snapshot_chunk) {
            self.send(session, NvaToNve::Snapshot { vni, vms });
        }
        let vn = self.vns.get(vni);
        let members = vn.into_iter().flat_map(|v| &v.members).filter(|m| Some(*m) != nve.as_ref());
        let members: Vec<_> = members.filter_map(|m| self.location_of(m)).collect();
        let lingers = |m: &NveId| vn.is_some_and(|v| v.lingering.contains(m));
        let lingering = members.iter().map(|l| l.nve.clone()).filter(lingers).collect();
        let record = vn.and_then(|v| v.record.as_ref());
        let end = NvaToNve::End {
            vni,
            revision,
            known: record.is_some(),
            settings: record.map(|r| r.settings.clone()).unwrap_or_default(),
            gateway: vn.and_then(|v| self.told_gateway(v, mode)),
            members,
            lingering,
        };
        self.send(session, end);
        self.keys_for_session(session, vni);
        self.groups_of_others(session, vni);
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
