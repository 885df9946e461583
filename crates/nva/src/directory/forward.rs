//! Forward entries at old NVEs: who may still send there, so that they live on for a while (R43).
//!
//! An NVE asks before one of its entries ends. Nothing is kept for that here: who is behind follows
//! from what was acknowledged on its session, or from what it knew when its last session ended.

use godwit_model::message::NvaToNve;
use godwit_model::{NveId, Version, VmKey, VmRecord};
use godwit_wire::Vni;

use super::{Directory, Level, SessionId};

impl Directory {
    /// A forward entry for the VM nears its end at `nve`: it is extended while a member of the VN has
    /// not acknowledged where the VM is. Silence lets it end.
    pub(super) fn forward_ending(&mut self, session: SessionId, nve: &NveId, key: VmKey, version: Version) {
        let behind = self.behind(nve, key);
        if behind.is_empty() {
            return;
        }
        let names: Vec<&str> = behind.iter().take(8).map(|n| n.as_str()).collect();
        let text = format!(
            "NVE {nve} goes on forwarding for {key}: {} of its VN's NVEs did not acknowledge where it is ({})",
            behind.len(),
            names.join(", ")
        );
        self.log(Level::Info, text);
        self.send(session, NvaToNve::ForwardExtend { key, version });
    }

    /// The members of the VM's VN that may still send to where it was. A detached VM has nobody to
    /// forward to, and a foreign NVE never acknowledges anything.
    fn behind(&self, asker: &NveId, key: VmKey) -> Vec<NveId> {
        let Some(r) = self.records.get(&key) else { return Vec::new() };
        let (Some(owner), Some(vn)) = (r.active_nve(), self.vns.get(key.vni)) else { return Vec::new() };
        let others = vn.members.iter().filter(|m| *m != asker && *m != owner);
        others.filter(|m| self.is_behind(m, r)).cloned().collect()
    }

    fn is_behind(&self, nve: &NveId, r: &VmRecord) -> bool {
        let Some(n) = self.nves.get(nve).filter(|n| !n.record.foreign) else { return false };
        let session = n.session.and_then(|id| Some((id, self.sessions.get(&id)?)));
        match session.filter(|(_, s)| s.subscribed.contains_key(&r.key.vni)) {
            Some((id, _)) if self.hears_of(id, r.key) => {
                self.waits_for_fanout(id, r.key)
                    || self.owes_ack(id, r.key)
                    || self.streams.has(id, r.key.vni)
            }
            // In pull mode, and it has not asked on this session: it may use what it was told on an earlier one.
            Some((_, s)) => self.may_use_earlier(s) && r.version >= n.knew_below,
            None => r.version >= n.knew_below,
        }
    }

    fn waits_for_fanout(&self, session: SessionId, key: VmKey) -> bool {
        self.updates.held(key).is_some_and(|f| !f.told.contains(&session)) && self.hears_of(session, key)
    }

    fn owes_ack(&self, session: SessionId, key: VmKey) -> bool {
        self.updates.of_vn(session, key.vni).filter_map(|a| a.about).any(|(k, _)| k == key)
    }

    /// The session's NVE knows everything below this version.
    pub(super) fn knows_below(&self, session: SessionId) -> Version {
        let Some(s) = self.sessions.get(&session) else { return Version::ZERO };
        let all = Version { epoch: self.epoch, seq: self.seq + 1 };
        let owed = self.updates.of_session(session).filter_map(|a| a.about).map(|(_, version)| version);
        let untold = self.updates.all_held().filter(|key| self.waits_for_fanout(session, *key));
        let untold = untold.filter_map(|key| self.records.get(&key)).map(|r| r.version);
        // What it did not subscribe to again, or in pull mode did not ask for again, it knows from an earlier session.
        let nve = s.nve.as_ref().and_then(|nve| self.nves.get(nve));
        let knows = |vni: &Vni| s.subscribed.contains_key(vni) && !self.streams.has(session, *vni);
        let away = |n: &super::Nve| !n.record.vnis.iter().all(knows);
        let earlier = nve.filter(|n| away(n) || self.may_use_earlier(s));
        owed.chain(untold).chain(earlier.map(|n| n.knew_below)).min().unwrap_or(all).min(all)
    }
}
