//! Updates that NVEs have not acknowledged, and changes that they have not been told yet (R38).
//!
//! Everything is found by session and VN, and nothing is found by looking at all: a session that does not acknowledge
//! costs others nothing. A session is sent as many updates as its window has room for. Further news of VMs wait, of
//! each VM the newest, and leave as acknowledgements come; the window widens with each of them, and is halved where
//! updates were said in vain.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use godwit_model::message::NvaToNve;
use godwit_model::{MoveId, NveId, Version, VmKey};
use godwit_wire::{Instant, Vni};

use super::SessionId;

/// A window is never narrower.
const NARROWEST: usize = 16;
/// Updates about members of one VN that are said to a session one by one; what comes before it has acknowledged one of
/// them is gathered.
const MEMBER_UPDATES: usize = 8;

/// A change that the subscribers other than the old NVE have not been told yet.
pub(super) struct Fanout {
    /// They are told at this time at the latest.
    pub due: Instant,
    /// ... or when the old NVE acknowledges this update.
    pub after: u64,
    /// Who must not be told: the claimer, who has its Grant, and the old NVE, who has its Update.
    pub told: BTreeSet<SessionId>,
    /// The planned move it belongs to.
    pub by: Option<MoveId>,
}

/// An update that was not acknowledged.
pub(super) struct Awaited {
    pub session: SessionId,
    pub vni: Vni,
    /// The VM that it is about, and the version that the session does not know yet; `None`: it is about a member.
    pub about: Option<(VmKey, Version)>,
    /// The move that waits for it.
    pub by: Option<MoveId>,
    state: State,
}

/// How far an update is.
enum State {
    /// Not said: the session's window is full.
    Waits,
    /// Said, and said again so many times more.
    Said { left: u8, message: Box<NvaToNve> },
    /// Said often enough; a late Ack still counts.
    GivenUp,
}

impl Awaited {
    /// The session has been told.
    pub fn is_said(&self) -> bool {
        !matches!(self.state, State::Waits)
    }
}

/// An update whose time is over.
pub(super) enum Due {
    /// It is said again.
    Again(SessionId, Box<NvaToNve>),
    /// It was said often enough.
    GivenUp(SessionId, Vni),
}

/// What one session owes acknowledgements for, and what it is still to be told.
struct Owed {
    by_vn: BTreeMap<Vni, BTreeSet<u64>>,
    /// Said and not given up.
    said: usize,
    given_up: usize,
    window: usize,
    /// News of VMs that wait, in the order in which they came.
    waits: BTreeMap<u64, VmKey>,
    waits_of: BTreeMap<VmKey, u64>,
    /// News of members, by VN.
    members: BTreeMap<Vni, MemberNews>,
}

/// News of the members of one VN: some updates at a time, and what comes meanwhile is gathered in one.
#[derive(Default)]
struct MemberNews {
    under_way: BTreeSet<u64>,
    wait: BTreeSet<NveId>,
}

/// All news that are under way.
pub(super) struct Updates {
    /// Changes that wait for the old NVE to know first.
    fanouts: BTreeMap<VmKey, Fanout>,
    fanouts_after: BTreeMap<u64, VmKey>,
    fanouts_due: BTreeSet<(Instant, VmKey)>,
    awaited: BTreeMap<u64, Awaited>,
    owed: BTreeMap<SessionId, Owed>,
    /// Sessions whose window has room again while news wait.
    ready: BTreeSet<SessionId>,
    /// When updates are said again, in order; those that are not awaited any more are skipped.
    retries: VecDeque<(Instant, u64)>,
    last_ack: u64,
    /// The widest window.
    window: usize,
}

impl Owed {
    fn new(window: usize) -> Owed {
        Owed {
            by_vn: BTreeMap::new(),
            said: 0,
            given_up: 0,
            window,
            waits: BTreeMap::new(),
            waits_of: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }
}

impl Updates {
    /// Nothing waits; no session gets more than `window` updates that it has not acknowledged.
    pub fn new(window: usize) -> Updates {
        Updates {
            fanouts: BTreeMap::new(),
            fanouts_after: BTreeMap::new(),
            fanouts_due: BTreeSet::new(),
            awaited: BTreeMap::new(),
            owed: BTreeMap::new(),
            ready: BTreeSet::new(),
            retries: VecDeque::new(),
            last_ack: 0,
            window: window.max(NARROWEST),
        }
    }

    /// Nothing waits.
    pub fn is_quiet(&self) -> bool {
        self.fanouts.is_empty() && self.awaited.is_empty()
    }

    /// Updates that are not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.awaited.len() - self.waiting()
    }

    /// News that wait because the windows of their sessions are full.
    pub fn waiting(&self) -> usize {
        self.owed.values().map(|o| o.waits.len()).sum()
    }

    // ---- Changes that the old NVE is told of first ----

    /// A change of the VM waits for the old NVE.
    pub fn hold(&mut self, key: VmKey, fanout: Fanout) {
        self.release(key);
        self.fanouts_after.insert(fanout.after, key);
        self.fanouts_due.insert((fanout.due, key));
        self.fanouts.insert(key, fanout);
    }

    /// The change of a VM that waits.
    pub fn held(&self, key: VmKey) -> Option<&Fanout> {
        self.fanouts.get(&key)
    }

    /// It waits no more: it is told, or overtaken.
    pub fn release(&mut self, key: VmKey) -> Option<Fanout> {
        let fanout = self.fanouts.remove(&key)?;
        self.fanouts_after.remove(&fanout.after);
        self.fanouts_due.remove(&(fanout.due, key));
        Some(fanout)
    }

    /// VMs with a change that waits.
    pub fn all_held(&self) -> impl Iterator<Item = VmKey> {
        self.fanouts.keys().copied()
    }

    /// The VM whose change waits for this acknowledgement.
    pub fn held_for(&self, ack_id: u64) -> Option<VmKey> {
        self.fanouts_after.get(&ack_id).copied()
    }

    /// A VM whose change has waited long enough.
    pub fn held_until(&self, now: Instant) -> Option<VmKey> {
        self.fanouts_due.first().filter(|(due, _)| *due <= now).map(|(_, key)| *key)
    }

    // ---- Updates ----

    /// A number for an update.
    pub fn next_ack(&mut self) -> u64 {
        self.last_ack += 1;
        self.last_ack
    }

    /// The session has so many updates to acknowledge that further ones wait.
    pub fn is_full(&self, session: SessionId) -> bool {
        self.owed.get(&session).is_some_and(|o| o.said >= o.window || !o.waits.is_empty())
    }

    /// News of a VM waits until the session's window has room. Where older news of it wait already, those take up the
    /// newer ones, and their number is returned.
    pub fn wait(
        &mut self,
        session: SessionId,
        (key, version): (VmKey, Version),
        by: Option<MoveId>,
    ) -> (u64, Option<MoveId>) {
        let window = self.window;
        let owed = self.owed.entry(session).or_insert_with(|| Owed::new(window));
        if let Some(ack_id) = owed.waits_of.get(&key).copied() {
            let older = self.awaited.get_mut(&ack_id).and_then(|a| core::mem::replace(&mut a.by, by.clone()));
            return (ack_id, older.filter(|m| Some(m) != by.as_ref()));
        }
        self.last_ack += 1;
        let ack_id = self.last_ack;
        owed.waits.insert(ack_id, key);
        owed.waits_of.insert(key, ack_id);
        owed.by_vn.entry(key.vni).or_default().insert(ack_id);
        let (vni, about) = (key.vni, Some((key, version)));
        self.awaited.insert(ack_id, Awaited { session, vni, about, by, state: State::Waits });
        (ack_id, None)
    }

    /// News of VMs that wait for the session's window.
    pub fn waiting_for(&self, session: SessionId) -> usize {
        self.owed.get(&session).map_or(0, |o| o.waits.len())
    }

    /// A session that waits no more because its window has room, and the news that it is told first.
    pub fn next_ready(&mut self) -> Option<(SessionId, u64, VmKey)> {
        while let Some(session) = self.ready.first().copied() {
            let first = self.owed.get(&session).filter(|o| o.said < o.window);
            match first.and_then(|o| o.waits.first_key_value()).map(|(id, key)| (*id, *key)) {
                Some((ack_id, key)) => return Some((session, ack_id, key)),
                None => self.ready.remove(&session),
            };
        }
        None
    }

    /// The update of this number is said; it is to be acknowledged, and is said again at this time.
    pub fn expect(&mut self, ack_id: u64, awaited: Expected, again: Instant) {
        let Expected { session, vni, about, by, retries, message } = awaited;
        let window = self.window;
        let owed = self.owed.entry(session).or_insert_with(|| Owed::new(window));
        let mut about = about;
        if let Some(key) = owed.waits.remove(&ack_id) {
            owed.waits_of.remove(&key);
            // It does not know what was news first.
            about = self.awaited.get(&ack_id).and_then(|a| a.about).or(about);
        }
        owed.said += 1;
        owed.by_vn.entry(vni).or_default().insert(ack_id);
        let state = State::Said { left: retries, message: Box::new(message) };
        self.awaited.insert(ack_id, Awaited { session, vni, about, by, state });
        // In the order of their times, because all wait equally long.
        self.retries.push_back((again, ack_id));
    }

    pub fn awaited(&self, ack_id: u64) -> Option<&Awaited> {
        self.awaited.get(&ack_id)
    }

    /// Updates that the session has not acknowledged, those that it has not been told included.
    pub fn of_session(&self, session: SessionId) -> impl Iterator<Item = &Awaited> {
        let ids = self.owed.get(&session).into_iter().flat_map(|o| o.by_vn.values().flatten());
        ids.filter_map(|id| self.awaited.get(id))
    }

    /// Those of one VN.
    pub fn of_vn(&self, session: SessionId, vni: Vni) -> impl Iterator<Item = &Awaited> {
        self.ids_of_vn(session, vni).filter_map(|id| self.awaited.get(&id))
    }

    fn ids_of_vn(&self, session: SessionId, vni: Vni) -> impl Iterator<Item = u64> {
        let owed = self.owed.get(&session).and_then(|o| o.by_vn.get(&vni));
        owed.into_iter().flatten().copied()
    }

    /// The numbers of those of one VN, or of all.
    pub fn numbers(&self, session: SessionId, vni: Option<Vni>) -> Vec<u64> {
        match vni {
            Some(vni) => self.ids_of_vn(session, vni).collect(),
            None => self
                .owed
                .get(&session)
                .into_iter()
                .flat_map(|o| o.by_vn.values().flatten())
                .copied()
                .collect(),
        }
    }

    /// The session owes nothing.
    pub fn is_settled(&self, session: SessionId) -> bool {
        self.owed.get(&session).is_none_or(|o| o.by_vn.is_empty())
    }

    /// Some update of the VN was said in vain.
    pub fn has_given_up(&self, session: SessionId, vni: Vni) -> bool {
        self.of_vn(session, vni).any(|a| matches!(a.state, State::GivenUp))
    }

    /// Updates that were said to the session in vain.
    pub fn given_up(&self, session: SessionId) -> usize {
        self.owed.get(&session).map_or(0, |o| o.given_up)
    }

    /// It needs no acknowledgement any more; `acked`: because it has it.
    pub fn settle(&mut self, ack_id: u64, acked: bool) -> Option<Awaited> {
        let a = self.awaited.remove(&ack_id)?;
        let widest = self.window;
        if let Some(o) = self.owed.get_mut(&a.session) {
            match a.state {
                State::Waits => {
                    if let Some(key) = o.waits.remove(&ack_id) {
                        o.waits_of.remove(&key);
                    }
                }
                State::Said { .. } => {
                    o.said -= 1;
                    if acked {
                        o.window = (o.window + 1).min(widest);
                    }
                }
                State::GivenUp => o.given_up -= 1,
            }
            if let Some(ids) = o.by_vn.get_mut(&a.vni) {
                ids.remove(&ack_id);
                if ids.is_empty() {
                    o.by_vn.remove(&a.vni);
                }
            }
            if !o.waits.is_empty() {
                self.ready.insert(a.session);
            }
        }
        Some(a)
    }

    /// The next update whose time is over at `now`; what is said again is due at `again`. `is_busy`: the session has
    /// other things to do before it can acknowledge anything, and is asked later.
    pub fn next_due(
        &mut self,
        now: Instant,
        again: Instant,
        is_busy: impl Fn(SessionId) -> bool,
    ) -> Option<Due> {
        while let Some((_, ack_id)) = self.retries.pop_front_if(|(at, _)| *at <= now) {
            let Some(a) = self.awaited.get_mut(&ack_id) else { continue };
            let State::Said { left, message } = &mut a.state else { continue };
            if is_busy(a.session) {
                self.retries.push_back((again, ack_id));
                continue;
            }
            if *left == 0 {
                return Some(Due::GivenUp(a.session, a.vni));
            }
            *left -= 1;
            let due = Due::Again(a.session, message.clone());
            self.retries.push_back((again, ack_id));
            return Some(due);
        }
        None
    }

    /// None of the session's updates of a VN is said again.
    pub fn give_up(&mut self, session: SessionId, vni: Vni) {
        let Some(o) = self.owed.get_mut(&session) else { return };
        for id in o.by_vn.get(&vni).into_iter().flatten() {
            let Some(a) = self.awaited.get_mut(id) else { continue };
            if matches!(a.state, State::Said { .. }) {
                a.state = State::GivenUp;
                o.said -= 1;
                o.given_up += 1;
            }
        }
        o.window = (o.window / 2).max(NARROWEST);
        if let Some(m) = o.members.get_mut(&vni) {
            m.under_way.clear();
        }
        if !o.waits.is_empty() {
            self.ready.insert(session);
        }
    }

    // ---- Members ----

    /// News of a member: true where the session is to be told at once, false where it waits for an acknowledgement.
    pub fn member_news(&mut self, session: SessionId, vni: Vni, nve: &NveId) -> bool {
        let window = self.window;
        let owed = self.owed.entry(session).or_insert_with(|| Owed::new(window));
        let news = owed.members.entry(vni).or_default();
        let now = news.under_way.len() < MEMBER_UPDATES && news.wait.is_empty();
        if !now {
            news.wait.insert(nve.clone());
        }
        now
    }

    /// News of members is under way by this update.
    pub fn members_told(&mut self, session: SessionId, vni: Vni, ack_id: u64) {
        if let Some(o) = self.owed.get_mut(&session) {
            o.members.entry(vni).or_default().under_way.insert(ack_id);
        }
    }

    /// The members whose news waited for this update, at most `max` of them; the rest goes on waiting.
    pub fn take_members(&mut self, session: SessionId, vni: Vni, ack_id: u64, max: usize) -> Vec<NveId> {
        let Some(o) = self.owed.get_mut(&session) else { return Vec::new() };
        let Some(news) = o.members.get_mut(&vni) else { return Vec::new() };
        news.under_way.remove(&ack_id);
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(nve) = news.wait.pop_first()
        {
            taken.push(nve);
        }
        if news.wait.is_empty() && news.under_way.is_empty() {
            o.members.remove(&vni);
        }
        taken
    }

    /// A snapshot says who the members are.
    pub fn forget_members(&mut self, session: SessionId, vni: Vni) {
        if let Some(o) = self.owed.get_mut(&session) {
            o.members.remove(&vni);
        }
    }

    /// The session is gone, and what it owed is settled.
    pub fn forget_session(&mut self, session: SessionId) {
        debug_assert!(self.owed.get(&session).is_none_or(|o| o.by_vn.is_empty()), "it owes nothing");
        self.owed.remove(&session);
        self.ready.remove(&session);
    }

    #[cfg(test)]
    pub fn last_ack(&self) -> u64 {
        self.last_ack
    }

    #[cfg(test)]
    pub fn all_awaited(&self) -> impl Iterator<Item = &Awaited> {
        self.awaited.values()
    }
}

/// What is said, and what is to be known of it until it is acknowledged.
pub(super) struct Expected {
    pub session: SessionId,
    pub vni: Vni,
    pub about: Option<(VmKey, Version)>,
    pub by: Option<MoveId>,
    pub retries: u8,
    pub message: NvaToNve,
}
