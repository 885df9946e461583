//! Spreading changes: to the old NVE first, then to the rest, acknowledged and said again (R38).

use std::collections::BTreeSet;

use godwit_model::message::{Change, NvaToNve};
use godwit_model::{MoveId, NveId, VmKey, VmRecord};
use godwit_wire::Vni;

use super::updates::{Awaited, Due, Fanout};
use super::{Directory, Level, SessionId};

/// Records in parts of which each fits in a message: one with many addresses counts for several.
pub(super) fn parts(records: Vec<VmRecord>, chunk: usize) -> Vec<Vec<VmRecord>> {
    let (mut parts, mut weight) = (Vec::<Vec<VmRecord>>::new(), usize::MAX);
    for r in records {
        let a = &r.allowed;
        let lists = [a.virtual_ips.len(), a.virtual_macs.len(), a.routes.len(), a.nested.len()];
        let more = r.addresses().count() + lists.iter().sum::<usize>();
        weight = weight.saturating_add(1 + more / 8);
        match parts.last_mut().filter(|_| weight <= chunk) {
            Some(part) => part.push(r),
            None => {
                weight = 1 + more / 8;
                parts.push(vec![r]);
            }
        }
    }
    parts
}

impl Directory {
    /// Tells every subscriber of the VN that hears of it the VM's record, or that it is gone.
    pub(super) fn publish(&mut self, key: VmKey, except: Option<SessionId>) {
        let overtaken = self.updates.release(key);
        self.tell_all(key, &except.into_iter().collect(), None);
        self.overtaken(overtaken);
    }

    /// A change that waited was overtaken by a newer one, which holds it: nobody is told it any more.
    fn overtaken(&mut self, fanout: Option<Fanout>) {
        if let Some(id) = fanout.and_then(|f| f.by) {
            self.check_done(&id);
        }
    }

    /// As [`Directory::publish`] for a new location: `old` learns it first.
    pub(super) fn publish_move(
        &mut self,
        key: VmKey,
        old: Option<NveId>,
        claimer: SessionId,
        by: Option<MoveId>,
    ) {
        let overtaken = self.updates.release(key);
        let mut told = BTreeSet::from([claimer]);
        let old = old.and_then(|nve| self.session_of(&nve));
        let old = old.filter(|s| self.hears_of(*s, key) && *s != claimer);
        if let Some(old) = old {
            let after = self.tell(old, key, by.clone());
            told.insert(old);
            let due = self.now + self.config.upd_delay;
            self.updates.hold(key, Fanout { due, after, told, by });
        } else {
            self.tell_all(key, &told, by);
        }
        self.overtaken(overtaken);
    }

    /// Tells of a record whose location, state and definition are the same. Those who must not hear of a new location
    /// before the old NVE go on waiting for it.
    pub(super) fn publish_in_place(&mut self, key: VmKey, except: Option<SessionId>) {
        let Some(told) = self.updates.held(key).map(|f| f.told.clone()) else {
            let except: BTreeSet<SessionId> = except.into_iter().collect();
            let hearers = self.hearers(key);
            for session in hearers.difference(&except) {
                self.tell(*session, key, None);
            }
            // Who hears of it by an update is not told as a port is: no claim and no question follow from this.
            return self.tell_ports(key, &hearers.union(&except).copied().collect());
        };
        for session in told.into_iter().filter(|s| Some(*s) != except) {
            if self.hears_of(session, key) {
                self.tell(session, key, None);
            }
        }
    }

    fn tell_all(&mut self, key: VmKey, except: &BTreeSet<SessionId>, by: Option<MoveId>) {
        for session in self.hearers(key).difference(except) {
            self.tell(*session, key, by.clone());
        }
        // Ports in a VN without a subscription: their NVE would not hear of it otherwise.
        self.tell_ports(key, except);
    }

    /// NVEs with a port for the VM are told its record, also where they know it: one that looks for the VM asks it at
    /// once, and one whose claim was refused claims again.
    pub(super) fn tell_ports(&mut self, key: VmKey, except: &BTreeSet<SessionId>) {
        for session in self.ports.of(key).difference(except) {
            self.tell_port(*session, key);
        }
    }

    fn tell_port(&mut self, session: SessionId, key: VmKey) {
        let record = self.records.get(&key).cloned();
        self.send(session, NvaToNve::Provision { key, record });
    }

    /// One update about a VM to one subscriber; the number of the acknowledgement it wants.
    pub(super) fn tell(&mut self, session: SessionId, key: VmKey, by: Option<MoveId>) -> u64 {
        let change = match self.records.get(&key) {
            Some(r) => Change::Vm(r.clone()),
            None => {
                Change::Removed { key, version: godwit_model::Version { epoch: self.epoch, seq: self.seq } }
            }
        };
        let ack_id = self.update(session, key.vni, change, by);
        self.note_news(session, key);
        ack_id
    }

    /// One change that is not about a VM, to every subscriber but one.
    pub(super) fn update_all(&mut self, vni: Vni, change: Change, except: Option<SessionId>) {
        for session in self.vns.subscribers(vni) {
            if Some(session) != except {
                self.update(session, vni, change.clone(), None);
            }
        }
    }

    pub(super) fn update(&mut self, session: SessionId, vni: Vni, change: Change, by: Option<MoveId>) -> u64 {
        let Some(s) = self.sessions.get_mut(&session) else { return 0 };
        let Some(sub) = s.subscribed.get_mut(&vni) else { return 0 };
        sub.revision += 1;
        let revision = sub.revision;
        let ack_id = self.updates.next_ack();
        s.unacked.insert(ack_id);
        let message = NvaToNve::Update { vni, revision, ack_id, change };
        if let (Some(id), Some(nve)) = (&by, s.nve.clone())
            && let Some(m) = self.moves.get_mut(id)
        {
            m.awaiting.insert(ack_id, nve);
        }
        let retries = Some(self.config.upd_retries);
        let awaited = Awaited { session, vni, by, retries, message: message.clone() };
        self.updates.expect(ack_id, awaited, self.now + self.config.upd_timeout);
        self.send(session, message);
        ack_id
    }

    /// The update is in effect in every worker of that NVE.
    pub(super) fn ack(&mut self, session: SessionId, ack_id: u64) {
        if self.updates.awaited(ack_id).is_none_or(|a| a.session != session) {
            return; // Said twice, or of an older session.
        }
        if let Some(s) = self.sessions.get_mut(&session) {
            s.dirty = false;
        }
        self.settle(ack_id, Some(""));
        for key in self.updates.held_where(|f| f.after == ack_id) {
            self.release(key);
        }
    }

    /// The update needs no acknowledgement any more; `note` says why for the move's timeline, none
    /// where the NVE did not confirm anything.
    fn settle(&mut self, ack_id: u64, note: Option<&str>) {
        let Some(a) = self.updates.settle(ack_id) else { return };
        if let Some(s) = self.sessions.get_mut(&a.session) {
            s.unacked.remove(&ack_id);
        }
        let Some(id) = a.by else { return };
        self.move_acked(&id, ack_id, note);
        self.check_done(&id);
    }

    /// Others may know now.
    pub(super) fn release(&mut self, key: VmKey) {
        let Some(f) = self.updates.release(key) else { return };
        self.tell_all(key, &f.told, f.by.clone());
        if let Some(id) = f.by {
            self.check_done(&id);
        }
    }

    /// The session is gone: nobody waits for its acknowledgements; it gets a snapshot when it is back.
    pub(super) fn forget_acks(&mut self, session: SessionId, unacked: BTreeSet<u64>) {
        for key in self.updates.held_where(|f| unacked.contains(&f.after)) {
            self.release(key);
        }
        for ack_id in unacked {
            if self.updates.awaited(ack_id).is_some_and(|a| a.session == session) {
                self.settle(ack_id, None);
            }
        }
    }

    /// A snapshot is about to say all that the session's updates of this VN said.
    pub(super) fn settle_by_snapshot(&mut self, session: SessionId, vni: Vni) {
        let Some(s) = self.sessions.get(&session) else { return };
        let of_vn = |id: &&u64| self.updates.awaited(**id).is_some_and(|a| a.vni == vni);
        let settled: BTreeSet<u64> = s.unacked.iter().filter(of_vn).copied().collect();
        self.forget_acks(session, settled);
    }

    /// Says again what was not acknowledged; after the last time the NVE is dirty and gets a snapshot.
    pub(super) fn retry_updates(&mut self) {
        let mut dirty: BTreeSet<(SessionId, Vni)> = BTreeSet::new();
        let again = self.now + self.config.upd_timeout;
        while let Some(due) = self.updates.next_due(self.now, again) {
            match due {
                Due::Again(session, message) => self.send(session, *message),
                Due::GivenUp(session, vni) => {
                    dirty.insert((session, vni));
                }
            }
        }
        for (session, vni) in dirty {
            self.mark_dirty(session, vni);
        }
    }

    fn mark_dirty(&mut self, session: SessionId, vni: Vni) {
        let who = self.name_of(session);
        self.log(Level::Warn, format!("{who} does not acknowledge updates of VN {vni}: dirty, snapshot"));
        // The snapshot covers all updates of the VN, so none of them is said again.
        self.updates.give_up(session, vni);
        if let Some(s) = self.sessions.get_mut(&session) {
            s.dirty = true;
        }
        self.snapshot(session, vni);
    }
}
