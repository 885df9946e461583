//! Keys of datagrams between NVEs (R47, D13): each NVE has a secret by which it opens what others send to it, and is
//! told the keys of the pairs in which it is the sender, see [`godwit_model::channel`].
//!
//! A session has a number that no other one gets, so that no NVE uses a nonce twice, whatever is started anew. An NVE
//! that was started anew gets a new secret: it has forgotten what it saw. By time, and when an NVE is deleted, all get
//! new ones, the receivers first. Keys of pairs follow, so many a tick.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use godwit_model::message::{NvaToNve, PairKey};
use godwit_model::{Locators, NveId, Secret, channel};
use godwit_wire::{Instant, Vni};

use super::{Directory, Level, SessionId};

/// Keys of pairs that are made in one tick.
const A_TICK: usize = 512;
/// Keys in one message.
const IN_MESSAGE: usize = 256;

/// The secret by which an NVE opens datagrams.
struct Receiver {
    number: u32,
    /// The process that has it.
    instance: u64,
}

/// Someone who is told keys.
enum Todo {
    /// The session, those of all members of the VN.
    Session(SessionId, Vni),
    /// Every session in the VN behind this one, that of the NVE.
    Newcomer(Vni, NveId, SessionId),
}

/// All that is known of keys; nothing of it outlives a restart, nor does the NVA's secret.
#[derive(Default)]
pub(super) struct Keys {
    receivers: BTreeMap<NveId, Receiver>,
    last_number: u32,
    /// Number of the last session as a sender.
    last_sender: u32,
    todo: VecDeque<Todo>,
    /// When all get new secrets.
    rotates: Option<Instant>,
}

/// What a session was told.
#[derive(Default)]
pub(super) struct Told {
    /// Its number as a sender; 0: it has none.
    sender: u32,
    /// Numbers of the secrets whose keys it was told.
    secrets: BTreeSet<u32>,
}

impl Keys {
    fn next_number(&mut self, epoch: u32) -> u32 {
        // Apart from those of other incarnations, for some time at least: their secrets differ in any case.
        self.last_number = match self.last_number {
            0 => epoch.wrapping_mul(1 << 16) | 1,
            n => n.wrapping_add(1),
        };
        self.last_number
    }
}

fn addresses(l: Locators) -> impl Iterator<Item = IpAddr> {
    l.v4.map(IpAddr::V4).into_iter().chain(l.v6.map(IpAddr::V6))
}

impl Directory {
    /// A session has begun: its number, and the secret of its NVE, a new one where another process speaks.
    pub(super) fn give_channel_key(&mut self, session: SessionId) {
        let Some(nva) = self.config.channel_secret else { return };
        let Some(nve) = self.sessions.get(&session).and_then(|s| s.nve.clone()) else { return };
        let Some(sender) = self.keys.last_sender.checked_add(1) else { return };
        self.keys.last_sender = sender;
        if let Some(s) = self.sessions.get_mut(&session) {
            s.told = Told { sender, secrets: BTreeSet::new() };
        }
        let instance = self.nves.get(&nve).map_or(0, |n| n.record.instance);
        let known = self.keys.receivers.get(&nve).is_some_and(|r| r.instance == instance && instance != 0);
        if !known {
            let number = self.keys.next_number(self.epoch);
            self.keys.receivers.insert(nve.clone(), Receiver { number, instance });
            self.key_changed(&nve);
        }
        self.say_channel_key(session, &nve, &nva, false);
    }

    fn say_channel_key(&mut self, session: SessionId, nve: &NveId, nva: &Secret, alone: bool) {
        let Some(Receiver { number, .. }) = self.keys.receivers.get(nve) else { return };
        let Some(sender) = self.sessions.get(&session).map(|s| s.told.sender).filter(|n| *n > 0) else {
            return;
        };
        let (number, secret) = (*number, channel::receiver(nva, *number, nve));
        self.send(session, NvaToNve::ChannelKey { number, sender, secret, alone });
    }

    /// Others seal by another key for this NVE from now on.
    fn key_changed(&mut self, nve: &NveId) {
        let vnis = self.nves.get(nve).map(super::view::memberships).unwrap_or_default();
        for vni in vnis {
            self.keys_for_newcomer(vni, nve);
        }
    }

    /// The session takes part in the VN: it may have to speak to all other members.
    pub(super) fn keys_for_session(&mut self, session: SessionId, vni: Vni) {
        if self.config.channel_secret.is_some() {
            self.keys.todo.push_back(Todo::Session(session, vni));
        }
    }

    /// The NVE takes part in the VN: the others may have to speak to it.
    pub(super) fn keys_for_newcomer(&mut self, vni: Vni, nve: &NveId) {
        if self.config.channel_secret.is_some() {
            self.keys.todo.push_back(Todo::Newcomer(vni, nve.clone(), SessionId(0)));
        }
    }

    /// The NVE's locators changed, and with them the keys of all its pairs.
    pub(super) fn keys_follow_locators(&mut self, nve: &NveId) {
        if self.config.channel_secret.is_none() {
            return;
        }
        let number = self.keys.next_number(self.epoch);
        let Some(r) = self.keys.receivers.get_mut(nve) else { return };
        // A new secret, so that each other one is told, too.
        r.number = number;
        if let (Some(session), Some(nva)) = (self.session_of(nve), self.config.channel_secret) {
            if let Some(s) = self.sessions.get_mut(&session) {
                s.told.secrets.clear();
            }
            self.say_channel_key(session, nve, &nva, false);
            let vnis: Vec<Vni> = self
                .sessions
                .get(&session)
                .map(|s| s.subscribed.keys().copied().collect())
                .unwrap_or_default();
            vnis.into_iter().for_each(|vni| self.keys_for_session(session, vni));
        }
        self.key_changed(nve);
    }

    /// An NVE is gone for good: what it knows is worth nothing from now on.
    pub(super) fn revoke_keys(&mut self, nve: &NveId) {
        if self.keys.receivers.remove(nve).is_some() {
            self.rotate_keys(true);
        }
    }

    /// New secrets for all, and the keys of their pairs behind them.
    fn rotate_keys(&mut self, alone: bool) {
        let Some(nva) = self.config.channel_secret else { return };
        let all: Vec<NveId> = self.keys.receivers.keys().cloned().collect();
        self.log(Level::Info, format!("{} NVEs get new keys for what they tell each other", all.len()));
        self.keys.todo.clear();
        for nve in all {
            let number = self.keys.next_number(self.epoch);
            if let Some(r) = self.keys.receivers.get_mut(&nve) {
                r.number = number;
            }
            if let Some(session) = self.session_of(&nve) {
                self.say_channel_key(session, &nve, &nva, alone);
            }
        }
        for (session, vnis) in self.sessions.subscriptions() {
            if let Some(s) = self.sessions.get_mut(&session) {
                s.told.secrets.clear();
            }
            self.keys.todo.extend(vnis.into_iter().map(|vni| Todo::Session(session, vni)));
        }
    }

    /// New secrets where it is time, and some more keys of pairs.
    pub(super) fn tick_keys(&mut self) {
        let Some(nva) = self.config.channel_secret else { return };
        let (now, life) = (self.now, self.config.key_life);
        if life.0 > 0 && *self.keys.rotates.get_or_insert(now + life) <= now {
            self.keys.rotates = Some(now + life);
            self.rotate_keys(false);
        }
        let mut room = A_TICK;
        while room > 0 {
            let Some(todo) = self.keys.todo.pop_front() else { return };
            match todo {
                Todo::Session(session, vni) => self.tell_session(&nva, session, vni, &mut room),
                Todo::Newcomer(vni, nve, after) => self.tell_of_newcomer(&nva, vni, nve, after, &mut room),
            }
        }
    }

    fn tell_session(&mut self, nva: &Secret, session: SessionId, vni: Vni, room: &mut usize) {
        let Some(vn) = self.vns.get(vni) else { return };
        let members: Vec<NveId> = vn.members.iter().cloned().collect();
        let mut keys = Vec::new();
        for nve in members {
            // Looking at one costs something, too.
            *room = room.saturating_sub(1);
            keys.extend(self.pair_keys(nva, session, &nve, room));
            if keys.len() >= IN_MESSAGE {
                self.send(session, NvaToNve::PairKeys { keys: std::mem::take(&mut keys) });
            }
        }
        if !keys.is_empty() {
            self.send(session, NvaToNve::PairKeys { keys });
        }
    }

    fn tell_of_newcomer(&mut self, nva: &Secret, vni: Vni, nve: NveId, after: SessionId, room: &mut usize) {
        let Some(vn) = self.vns.get(vni) else { return };
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let sessions: Vec<SessionId> = vn.subscribers.range(behind).take((*room).max(1)).copied().collect();
        let Some(last) = sessions.last().copied() else { return };
        for session in sessions {
            *room = room.saturating_sub(1);
            let keys = self.pair_keys(nva, session, &nve, room);
            if !keys.is_empty() {
                self.send(session, NvaToNve::PairKeys { keys });
            }
        }
        self.keys.todo.push_front(Todo::Newcomer(vni, nve, last));
    }

    /// The keys by which this session's NVE seals for the other one, where it was not told them.
    fn pair_keys(&mut self, nva: &Secret, session: SessionId, to: &NveId, room: &mut usize) -> Vec<PairKey> {
        let Some(Receiver { number, .. }) = self.keys.receivers.get(to) else { return Vec::new() };
        let number = *number;
        let Some(theirs) = self.nves.get(to).map(|n| n.record.locators) else { return Vec::new() };
        let Some(s) = self.sessions.get_mut(&session) else { return Vec::new() };
        let own = s.nve.as_ref().filter(|nve| *nve != to).and_then(|nve| self.nves.get(nve));
        let Some(ours) = own.map(|n| n.record.locators) else { return Vec::new() };
        if s.told.sender == 0 || !s.told.secrets.insert(number) {
            return Vec::new();
        }
        let sender = s.told.sender;
        let receiver = channel::receiver(nva, number, to);
        let pairs = addresses(ours).flat_map(|from| addresses(theirs).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from.is_ipv4() == to.is_ipv4());
        let key =
            |(from, to)| PairKey { from, to, number, secret: channel::pair(&receiver, sender, from, to) };
        let keys: Vec<PairKey> = pairs.map(key).collect();
        *room = room.saturating_sub(keys.len());
        keys
    }
}
