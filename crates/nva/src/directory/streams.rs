//! Snapshots of VNs on their way to sessions (R37): in parts, session by session, so many records with each tick.
//!
//! A snapshot begins at once and ends with the step that it began in, where that has room. Otherwise it goes on with
//! the ticks. Updates of its VN are said meanwhile: a part that follows has what they said, and their versions count.
//! A session whose messages leave slowly is passed over until they have left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use godwit_model::message::NvaToNve;
use godwit_model::{DirectoryMode, NveId, VmKey, VmRecord};
use godwit_wire::{Span, Vni};

use super::interest::Subscription;
use super::{Directory, SessionId};

/// Records of one snapshot that leave before that of another session has its turn.
const TURN: usize = 8_192;
/// A session is given so long for each record of a snapshot before it is asked again for an acknowledgement.
const PER_RECORD: Span = Span(20_000);
/// It is given so long at most.
const PATIENCE: Span = Span::from_ms(10_000);
/// Members in an End that weigh as much as a record.
const MEMBERS_PER_RECORD: usize = 4;

/// Why a session gets a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// It asked for one, or the VN has changed as a whole.
    Wanted,
    /// It did not acknowledge updates. If it does before the snapshot has begun, it needs none.
    Deaf,
}

/// One snapshot.
struct Stream {
    /// Its place among all.
    place: u64,
    cause: Cause,
    rest: Rest,
    has_begun: bool,
    /// Records that have left in this turn.
    turn: usize,
}

/// Records that are still to be said.
enum Rest {
    /// All of the VN behind this one.
    After(Option<VmKey>),
    /// These.
    Keys(VecDeque<VmKey>),
}

/// All snapshots that are under way.
#[derive(Default)]
pub(super) struct Streams {
    by_vn: BTreeMap<(SessionId, Vni), Stream>,
    /// Those that go on, in the order of their turns.
    turns: BTreeMap<u64, (SessionId, Vni)>,
    /// Sessions whose messages leave slowly: none of their snapshots goes on.
    slow: BTreeSet<SessionId>,
    last_place: u64,
    /// Records that may leave before the next tick.
    room: usize,
}

impl Streams {
    /// A snapshot of this VN has not been told to its end.
    pub fn has(&self, session: SessionId, vni: Vni) -> bool {
        self.by_vn.contains_key(&(session, vni))
    }

    /// Snapshots under way.
    pub fn len(&self) -> usize {
        self.by_vn.len()
    }

    /// It has one that has not begun, only because it did not acknowledge updates.
    pub fn is_for_the_deaf(&self, session: SessionId, vni: Vni) -> bool {
        self.by_vn.get(&(session, vni)).is_some_and(|s| s.cause == Cause::Deaf && !s.has_begun)
    }

    /// Time has passed: so many records may leave.
    pub fn refill(&mut self, room: usize) {
        self.room = room;
    }

    fn of_session(&self, session: SessionId) -> Vec<Vni> {
        let first = (session, Vni::from_low24(0));
        let mine = self.by_vn.range(first..).take_while(|((s, _), _)| *s == session);
        mine.map(|((_, vni), _)| *vni).collect()
    }

    fn begin(&mut self, session: SessionId, vni: Vni, cause: Cause, rest: Rest) {
        let older = self.remove(session, vni);
        let cause =
            older.as_ref().map_or(cause, |o| if o.cause == Cause::Wanted { Cause::Wanted } else { cause });
        let place = match older {
            Some(o) => o.place,
            None => self.next_place(),
        };
        self.put(session, vni, Stream { place, cause, rest, has_begun: false, turn: 0 });
    }

    fn next_place(&mut self) -> u64 {
        self.last_place += 1;
        self.last_place
    }

    fn put(&mut self, session: SessionId, vni: Vni, stream: Stream) {
        if !self.slow.contains(&session) {
            self.turns.insert(stream.place, (session, vni));
        }
        self.by_vn.insert((session, vni), stream);
    }

    fn remove(&mut self, session: SessionId, vni: Vni) -> Option<Stream> {
        let stream = self.by_vn.remove(&(session, vni))?;
        self.turns.remove(&stream.place);
        Some(stream)
    }

    /// Nobody wants it any more.
    pub fn forget(&mut self, session: SessionId, vni: Vni) {
        self.remove(session, vni);
    }

    /// The session is gone.
    pub fn forget_session(&mut self, session: SessionId) {
        for vni in self.of_session(session) {
            self.remove(session, vni);
        }
        self.slow.remove(&session);
    }

    fn set_slow(&mut self, session: SessionId, slow: bool) {
        let changed = if slow { self.slow.insert(session) } else { self.slow.remove(&session) };
        if !changed {
            return;
        }
        for vni in self.of_session(session) {
            let Some(s) = self.by_vn.get(&(session, vni)) else { continue };
            match slow {
                true => drop(self.turns.remove(&s.place)),
                false => drop(self.turns.insert(s.place, (session, vni))),
            }
        }
    }
}

/// How much of a part a record takes: one with many addresses counts for several.
pub(super) fn weight(r: &VmRecord) -> usize {
    let a = &r.allowed;
    let lists = [a.virtual_ips.len(), a.virtual_macs.len(), a.routes.len(), a.nested.len()];
    1 + (r.addresses().count() + lists.iter().sum::<usize>()) / 8
}

impl Directory {
    /// All records of a VN, or in pull mode those that the session hears of, its properties and its members (R37).
    pub(super) fn snapshot(&mut self, session: SessionId, vni: Vni) {
        self.begin_stream(session, vni, Cause::Wanted);
    }

    pub(super) fn begin_stream(&mut self, session: SessionId, vni: Vni, cause: Cause) {
        let Some(s) = self.sessions.get(&session) else { return };
        let Some(Subscription { mode, .. }) = s.subscribed.get(&vni).copied() else { return };
        self.introduce_domain(session, vni);
        let rest = match mode {
            DirectoryMode::Push => Rest::After(None),
            DirectoryMode::Pull => Rest::Keys(self.heard_of(session, vni).into_iter().collect()),
        };
        self.streams.begin(session, vni, cause, rest);
        self.stream();
    }

    /// The session's messages leave slowly, or do so no more.
    pub(super) fn congested(&mut self, session: SessionId, slow: bool) {
        if self.sessions.get(&session).is_some() {
            self.streams.set_slow(session, slow);
            self.stream();
        }
    }

    /// Says as much of the snapshots as there is room for.
    pub(super) fn stream(&mut self) {
        while self.streams.room > 0
            && let Some((_, (session, vni))) = self.streams.turns.first_key_value()
        {
            let (session, vni) = (*session, *vni);
            let Some(mut stream) = self.streams.remove(session, vni) else { continue };
            stream.has_begun = true;
            let (vms, is_over) = self.next_part(vni, &mut stream);
            let count = vms.len();
            if count > 0 {
                self.send(session, NvaToNve::Snapshot { vni, vms });
            }
            let members = if is_over { self.end_stream(session, vni) / MEMBERS_PER_RECORD } else { 0 };
            self.streams.room = self.streams.room.saturating_sub((count + members).max(1));
            self.keeps_busy(session, count);
            if !is_over {
                stream.turn += count;
                if stream.turn >= TURN {
                    stream.turn = 0;
                    stream.place = self.streams.next_place();
                }
                self.streams.put(session, vni, stream);
            }
        }
    }

    /// The records of the next part, and whether it is the last one.
    fn next_part(&self, vni: Vni, stream: &mut Stream) -> (Vec<VmRecord>, bool) {
        let (mut part, mut weighs) = (Vec::new(), 0);
        let most = self.config.snapshot_chunk;
        let mut takes = |r: &VmRecord| {
            weighs += weight(r);
            let fits = part.is_empty() || weighs <= most;
            if fits {
                part.push(r.clone());
            }
            fits
        };
        let is_over = match &mut stream.rest {
            Rest::After(last) => self.records.of_vn_after(vni, *last).all(|r| {
                let fits = takes(r);
                if fits {
                    *last = Some(r.key);
                }
                fits
            }),
            Rest::Keys(keys) => {
                while let Some(key) = keys.front() {
                    if self.records.get(key).is_some_and(|r| !takes(r)) {
                        break;
                    }
                    keys.pop_front();
                }
                keys.is_empty()
            }
        };
        (part, is_over)
    }

    /// A snapshot ends: what the VN is, and who takes part. Returns how many do.
    fn end_stream(&mut self, session: SessionId, vni: Vni) -> usize {
        let Some(s) = self.sessions.get(&session) else { return 0 };
        let Some(Subscription { revision, mode }) = s.subscribed.get(&vni).copied() else { return 0 };
        let nve = s.nve.clone();
        let vn = self.vns.get(vni);
        let members = vn.into_iter().flat_map(|v| &v.members).filter(|m| Some(*m) != nve.as_ref());
        let members: Vec<_> = members.filter_map(|m| self.location_of(m)).collect();
        let lingers = |m: &NveId| vn.is_some_and(|v| v.lingering.contains(m));
        let lingering = members.iter().map(|l| l.nve.clone()).filter(lingers).collect();
        let record = vn.and_then(|v| v.record.as_ref());
        let count = members.len();
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
        count
    }

    /// The session has so many records to take in before it can acknowledge what it is told behind them.
    fn keeps_busy(&mut self, session: SessionId, records: usize) {
        let now = self.now;
        let takes = Span(PER_RECORD.0.saturating_mul(records as u64));
        if let Some(s) = self.sessions.get_mut(&session) {
            s.busy_until = (s.busy_until.max(now) + takes).min(now + PATIENCE);
        }
    }
}
