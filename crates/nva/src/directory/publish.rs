//! Spreading changes: to the old NVE first, then to the rest, acknowledged and said again (R38).

use std::collections::BTreeSet;

use godwit_model::message::{Change, MemberChanges, NvaToNve};
use godwit_model::{MoveId, NveId, Version, VmKey};
use godwit_wire::Vni;

use super::streams::Cause;
use super::updates::{Due, Expected, Fanout};
use super::{Directory, Level, SessionId};

/// Members whose news are gathered in one update.
const GATHERED: usize = 128;

/// An update that is about to be said.
struct News {
    change: Change,
    about: Option<(VmKey, Version)>,
    by: Option<MoveId>,
    /// Its number, where it has waited.
    ack_id: Option<u64>,
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
            // However much it has to acknowledge: the others wait for it.
            let after = self.tell_now(old, key, by.clone(), None);
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

    /// What a session is told of a VM now, and the version of that.
    fn news_of(&self, key: VmKey) -> (Change, Version) {
        match self.records.get(&key) {
            Some(r) => (Change::Vm(r.clone()), r.version),
            None => {
                let version = Version { epoch: self.epoch, seq: self.seq };
                (Change::Removed { key, version }, version)
            }
        }
    }

    /// News of a VM for one subscriber: said now, or when it has acknowledged enough of what it was told before.
    pub(super) fn tell(&mut self, session: SessionId, key: VmKey, by: Option<MoveId>) {
        if !self.updates.is_full(session) {
            self.tell_now(session, key, by, None);
            return;
        }
        let Some(s) = self.sessions.get(&session).filter(|s| s.subscribed.contains_key(&key.vni)) else {
            return;
        };
        let nve = s.nve.clone();
        let version =
            self.records.get(&key).map_or(Version { epoch: self.epoch, seq: self.seq }, |r| r.version);
        let (ack_id, older) = self.updates.wait(session, (key, version), by.clone());
        if let Some(older) = older {
            self.move_acked(&older, ack_id, None);
            self.check_done(&older);
        }
        if let (Some(m), Some(nve)) = (by.and_then(|id| self.moves.get_mut(&id)), nve) {
            m.awaiting.insert(ack_id, nve);
        }
        if self.updates.waiting_for(session) > self.config.max_waiting {
            // All of it at once takes less than one by one.
            self.settle_by_snapshot(session, key.vni);
            self.snapshot(session, key.vni);
        }
    }

    /// One update about a VM to one subscriber; the number of the acknowledgement it wants.
    fn tell_now(&mut self, session: SessionId, key: VmKey, by: Option<MoveId>, ack_id: Option<u64>) -> u64 {
        let (change, version) = self.news_of(key);
        let news = News { change, about: Some((key, version)), by, ack_id };
        let ack_id = self.say(session, key.vni, news);
        self.note_news(session, key);
        ack_id
    }

    /// Sessions whose windows have room are told what waited for it.
    pub(super) fn tell_waiting(&mut self) {
        while self.out.len() < self.config.max_outputs
            && let Some((session, ack_id, key)) = self.updates.next_ready()
        {
            let by = self.updates.awaited(ack_id).and_then(|a| a.by.clone());
            if self.tell_now(session, key, by, Some(ack_id)) == 0 {
                self.settle(ack_id, None);
            }
        }
    }

    /// A member of the VN came, went, or changed: every subscriber but one is told.
    pub(super) fn member_news(&mut self, vni: Vni, nve: &NveId, except: Option<SessionId>) {
        for session in self.vns.subscribers(vni) {
            let is_told = Some(session) != except
                && self.sessions.get(&session).is_some_and(|s| s.subscribed.contains_key(&vni));
            if is_told && self.updates.member_news(session, vni, nve) {
                self.tell_members(session, vni, vec![nve.clone()]);
            }
        }
    }

    fn tell_members(&mut self, session: SessionId, vni: Vni, nves: Vec<NveId>) {
        let change = self.member_changes(vni, nves);
        let ack_id = self.say(session, vni, News { change, about: None, by: None, ack_id: None });
        if ack_id != 0 {
            self.updates.members_told(session, vni, ack_id);
        }
    }

    /// How these NVEs take part in the VN now.
    fn member_changes(&self, vni: Vni, nves: Vec<NveId>) -> Change {
        let vn = self.vns.get(vni);
        let is_member = |nve: &NveId| vn.is_some_and(|vn| vn.members.contains(nve));
        let mut all = MemberChanges::default();
        for nve in nves {
            match self.location_of(&nve).filter(|_| is_member(&nve)) {
                Some(l) if vn.is_some_and(|vn| vn.lingering.contains(&nve)) => all.lingering.push(l),
                Some(l) => all.joined.push(l),
                None => all.left.push(nve),
            }
        }
        all.into()
    }

    /// Any update of one VN that is not about a VM's record.
    pub(super) fn update(&mut self, session: SessionId, vni: Vni, change: Change) {
        self.say(session, vni, News { change, about: None, by: None, ack_id: None });
    }

    /// Says an update; its number, or 0 where the session has no part in the VN.
    fn say(&mut self, session: SessionId, vni: Vni, news: News) -> u64 {
        let News { change, about, by, ack_id } = news;
        let Some(s) = self.sessions.get_mut(&session) else { return 0 };
        let Some(sub) = s.subscribed.get_mut(&vni) else { return 0 };
        sub.revision += 1;
        let revision = sub.revision;
        let ack_id = ack_id.unwrap_or_else(|| self.updates.next_ack());
        let message = NvaToNve::Update { vni, revision, ack_id, change };
        if let (Some(id), Some(nve)) = (&by, s.nve.clone())
            && let Some(m) = self.moves.get_mut(id)
        {
            m.awaiting.insert(ack_id, nve);
        }
        let retries = self.config.upd_retries;
        let awaited = Expected { session, vni, about, by, retries, message: message.clone() };
        self.updates.expect(ack_id, awaited, self.now + self.config.upd_timeout);
        self.send(session, message);
        ack_id
    }

    /// The update is in effect in every worker of that NVE.
    pub(super) fn ack(&mut self, session: SessionId, ack_id: u64) {
        let Some(a) = self.updates.awaited(ack_id).filter(|a| a.session == session && a.is_said()) else {
            return; // Said twice, or of an older session.
        };
        let (vni, is_of_members) = (a.vni, a.about.is_none());
        if let Some(s) = self.sessions.get_mut(&session) {
            s.dirty = false;
        }
        self.settle(ack_id, Some(""));
        if let Some(key) = self.updates.held_for(ack_id) {
            self.release(key);
        }
        if is_of_members {
            let gathered = self.updates.take_members(session, vni, ack_id, GATHERED);
            if !gathered.is_empty() {
                self.tell_members(session, vni, gathered);
            }
        }
        // It was late, and not deaf.
        if self.streams.is_for_the_deaf(session, vni) && !self.updates.has_given_up(session, vni) {
            self.streams.forget(session, vni);
        }
        self.tell_waiting();
    }

    /// The update needs no acknowledgement any more; `note` says why for the move's timeline, none
    /// where the NVE did not confirm anything.
    fn settle(&mut self, ack_id: u64, note: Option<&str>) {
        let Some(a) = self.updates.settle(ack_id, note.is_some()) else { return };
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
    pub(super) fn forget_acks(&mut self, session: SessionId) {
        self.settle_all(self.updates.numbers(session, None));
        self.updates.forget_session(session);
    }

    fn settle_all(&mut self, numbers: Vec<u64>) {
        for key in numbers.iter().filter_map(|id| self.updates.held_for(*id)).collect::<Vec<_>>() {
            self.release(key);
        }
        for ack_id in numbers {
            self.settle(ack_id, None);
        }
    }

    /// A snapshot is about to say all that the session's updates of this VN said.
    pub(super) fn settle_by_snapshot(&mut self, session: SessionId, vni: Vni) {
        self.updates.forget_members(session, vni);
        self.settle_all(self.updates.numbers(session, Some(vni)));
    }

    /// Changes that the old NVE was to know first, and did not say that it does in time.
    pub(super) fn release_due(&mut self) {
        while self.out.len() < self.config.max_outputs
            && let Some(key) = self.updates.held_until(self.now)
        {
            self.release(key);
        }
    }

    /// Says again what was not acknowledged; after the last time the NVE is dirty and gets a snapshot.
    pub(super) fn retry_updates(&mut self) {
        let (now, again) = (self.now, self.now + self.config.upd_timeout);
        while self.out.len() < self.config.max_outputs {
            let sessions = &self.sessions;
            let is_busy = |s| sessions.get(&s).is_some_and(|s| s.busy_until > now);
            match self.updates.next_due(now, again, is_busy) {
                Some(Due::Again(session, message)) => self.send(session, *message),
                Some(Due::GivenUp(session, vni)) => self.mark_dirty(session, vni),
                None => return,
            }
        }
    }

    fn mark_dirty(&mut self, session: SessionId, vni: Vni) {
        let who = self.name_of(session);
        // The snapshot covers all updates of the VN, so none of them is said again.
        self.updates.give_up(session, vni);
        let lost = self.updates.given_up(session);
        if lost > self.config.max_given_up {
            return self.close(session, format!("{lost} updates were not acknowledged: it must begin anew"));
        }
        self.log(Level::Warn, format!("{who} does not acknowledge updates of VN {vni}: dirty, snapshot"));
        if let Some(s) = self.sessions.get_mut(&session) {
            s.dirty = true;
        }
        self.begin_stream(session, vni, Cause::Deaf);
    }
}
