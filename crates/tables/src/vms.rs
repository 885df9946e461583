//! What is known of each VM: the forwarding table, and the few VMs that need more than a number.
//!
//! A VM that sits on a port or behind a tunnel is one word in the forwarding table. Every other one
//! (being asked for, expected, paused, departed, absent, or with held frames still to be sent) has a
//! [`Special`] entry in a bounded slab, and the word names that. When nothing special is left of it,
//! the entry *collapses* into its word.

mod fib;
mod ranking;
mod special;

use std::collections::VecDeque;

use godwit_wire::Instant;

use crate::TablesConfig;
use crate::event::{Event, HandoverStats};
use crate::holds::{Origin, Queue, SLOT};
use crate::locations::Locations;
use crate::routes::Routes;
use crate::update::{HoldLimits, Key, Target, VmState};

use ranking::Ranking;

pub use fib::{Fib, RemoteMark, SpecialIdx, View, Word};
pub use special::{Special, State};

/// A table has no room for the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// The forwarding table and the special entries.
pub struct Vms {
    fib: Locations,
    specials: Vec<Special>,
    capacity: usize,
    free: Vec<u32>,
    active: Vec<u32>,
    /// Entries that may have frames to send, in turn. May name one that was freed since.
    ready: VecDeque<u32>,
    /// Entries in state `Querying`.
    querying: usize,
    /// Slots of the frames that they hold.
    querying_slots: u32,
    /// Entries by the memory of what they hold.
    ranking: Ranking,
    /// No entry has anything to do before this.
    next_due: Instant,
    limits: HoldLimits,
    report_interval: godwit_wire::Span,
    settle: godwit_wire::Span,
    /// Where the search for a negative answer goes on.
    hand: usize,
}

impl Vms {
    pub(crate) fn new(config: &TablesConfig) -> Vms {
        let n = config.special_capacity;
        Vms {
            fib: Locations::new(config.location_capacity, config.table_seed),
            specials: Vec::with_capacity(n),
            capacity: n,
            free: Vec::with_capacity(n),
            active: Vec::with_capacity(n),
            ready: VecDeque::with_capacity(2 * n),
            querying: 0,
            querying_slots: 0,
            ranking: Ranking::new(n),
            next_due: Instant::NEVER,
            limits: HoldLimits { packets: config.miss_hold_packets, age: config.miss_hold_age },
            report_interval: config.report_interval,
            settle: config.settle,
            hand: 0,
        }
    }

    pub(crate) fn bring_in(&mut self) {
        self.fib.bring_in();
    }

    /// The table as a burst reads it.
    #[inline(always)]
    pub fn view(&self) -> View<'_> {
        View(self.fib.view())
    }

    /// Asks memory for what is known of a key.
    #[inline]
    pub fn fetch(&self, key: Key) {
        let view = self.view();
        view.prefetch(view.home(key));
    }

    /// What is known of a key.
    #[inline]
    pub fn get(&self, key: Key) -> Option<Fib> {
        self.fib.get(key.0).map(Fib::unpack)
    }

    /// A special entry.
    #[inline]
    pub fn special(&self, at: SpecialIdx) -> &Special {
        &self.specials[at.0 as usize]
    }

    /// The special entry of a key.
    pub fn special_of(&self, key: Key) -> Option<&Special> {
        match self.get(key)? {
            Fib::Special(at) => Some(self.special(at)),
            _ => None,
        }
    }

    pub(crate) fn special_mut(&mut self, at: SpecialIdx) -> &mut Special {
        &mut self.specials[at.0 as usize]
    }

    /// VMs known.
    pub fn len(&self) -> usize {
        self.fib.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.fib.is_empty()
    }

    /// VMs with a special entry.
    pub fn specials(&self) -> usize {
        self.active.len()
    }

    /// VMs that the directory is being asked for.
    pub fn querying(&self) -> usize {
        self.querying
    }

    /// Sets a key's word; true where the key is new. The routes that lead to the VM follow, here and wherever a word
    /// changes (R58).
    pub(crate) fn set_plain(&mut self, key: Key, word: Fib, routes: &mut Routes) -> Result<bool, NoRoom> {
        let old = self.fib.insert(key.0, word.pack()).map_err(|_| NoRoom)?;
        routes.follow(key, Some(word));
        Ok(old.is_none())
    }

    /// A special entry for a key that has none; true where the key was not in the table at all.
    pub(crate) fn make_special(
        &mut self,
        key: Key,
        state: State,
        routes: &mut Routes,
    ) -> Result<(SpecialIdx, bool), NoRoom> {
        let fresh = Special {
            key,
            state,
            queues: [Queue::EMPTY; 2],
            limits: self.limits,
            stats: HandoverStats::default(),
            handover: false,
            dirty: false,
            slots: 0,
            reported: Instant(0),
            settles: Instant(0),
            queued: false,
            local_last: false,
            place: self.active.len() as u32,
        };
        let at = match self.free.last() {
            Some(&at) => at,
            None if self.specials.len() < self.capacity => self.specials.len() as u32,
            None => return Err(NoRoom),
        };
        let is_new = self.set_plain(key, Fib::Special(SpecialIdx(at)), routes)?;
        if at as usize == self.specials.len() {
            self.specials.push(fresh);
        } else {
            self.free.pop();
            self.specials[at as usize] = fresh;
        }
        self.active.push(at);
        if let State::Querying { until, .. } = state {
            self.querying += 1;
            self.due(until);
        }
        Ok((SpecialIdx(at), is_new))
    }

    /// There is room for another special entry and its key.
    pub(crate) fn has_room(&self) -> bool {
        self.has_special_room() && self.fib.len() < self.fib.capacity()
    }

    /// There is room for another special entry of a key that the table has.
    pub(crate) fn has_special_room(&self) -> bool {
        !self.free.is_empty() || self.specials.len() < self.capacity || self.any_absent().is_some()
    }

    fn is_absent(&self, place: usize) -> bool {
        let at = self.active[place] as usize;
        matches!(self.specials[at].state, State::Known(VmState::Absent { .. }))
    }

    /// The place of a negative answer, from where the last one was found.
    fn any_absent(&self) -> Option<usize> {
        let n = self.active.len();
        (0..n).map(|i| (self.hand + i) % n).find(|&place| self.is_absent(place))
    }

    /// A negative answer that makes room for something better (R36). Not always the oldest: the
    /// list is gone round like a clock, so that finding one stays cheap while there are many.
    pub(crate) fn some_absent(&mut self) -> Option<SpecialIdx> {
        self.hand = self.any_absent()?;
        self.at_place(self.hand)
    }

    /// Bounds of a hold that control gave none.
    pub(crate) fn default_limits(&self) -> HoldLimits {
        self.limits
    }

    /// Frees a special entry, whose queues are empty, and leaves `word` in its place, or nothing.
    pub(crate) fn free_special(&mut self, at: SpecialIdx, word: Option<Fib>, routes: &mut Routes) {
        let s = &mut self.specials[at.0 as usize];
        debug_assert_eq!(s.waiting(), 0, "held frames are sent or dropped first");
        debug_assert_ne!(s.place, u32::MAX, "freed once");
        let (key, place) = (s.key, core::mem::replace(&mut s.place, u32::MAX) as usize);
        if matches!(s.state, State::Querying { .. }) {
            self.querying -= 1;
        }
        s.queued = false;
        self.active.swap_remove(place);
        if let Some(&moved) = self.active.get(place) {
            self.specials[moved as usize].place = place as u32;
        }
        self.free.push(at.0);
        match word {
            // The key is in the table, so this replaces and cannot fail.
            Some(w) => drop(self.set_plain(key, w, routes)),
            None => drop(self.remove_plain(key, routes)),
        }
    }

    /// A frame used an entry that was watched: it is plain again.
    pub(crate) fn used(&mut self, key: Key, to: Target, routes: &mut Routes) {
        // The key is in the table, so this replaces and cannot fail.
        let _ = self.set_plain(key, Fib::Remote(to), routes);
    }

    /// Removes a key's word.
    pub(crate) fn remove_plain(&mut self, key: Key, routes: &mut Routes) -> bool {
        routes.follow(key, None);
        self.fib.remove(key.0).is_some()
    }

    /// All keys of a VN leave the table. Visits all of it; special ones were freed before.
    pub(crate) fn remove_vn(&mut self, vn: crate::update::VnIdx, routes: &mut Routes) {
        self.fib.retain(|key, _| {
            let stays = Key(key).vn() != vn;
            if !stays {
                routes.follow(Key(key), None);
            }
            stays
        });
    }

    /// Replaces an entry's state; counts of a handover begin anew where one begins.
    pub(crate) fn enter(&mut self, at: SpecialIdx, state: VmState, now: Instant) {
        let s = &mut self.specials[at.0 as usize];
        let querying = matches!(s.state, State::Querying { .. });
        let was_here = s.is_here();
        let same = matches!(s.state, State::Known(old)
            if core::mem::discriminant(&old) == core::mem::discriminant(&state));
        // A forward entry that waits for the end of its old path (R77) stays the same handover.
        let waits =
            matches!((s.state, state), (State::Known(VmState::Departed { .. }), VmState::Paused { .. }));
        match state {
            VmState::Expected { hold, .. } | VmState::Paused { hold } => {
                s.limits = hold;
                s.handover = true;
                if !same && !waits {
                    // What is held already belongs to the handover that begins.
                    let peak_bytes = u64::from(s.slots()) * SLOT as u64;
                    s.stats =
                        HandoverStats { held: s.waiting().into(), peak_bytes, ..HandoverStats::default() };
                    s.dirty = s.waiting() > 0;
                }
            }
            VmState::Departed { .. } => s.handover = true,
            VmState::Arrived { hold, .. } => {
                (s.limits, s.handover, s.local_last) = (hold, true, true);
                if !was_here {
                    s.settles = now + self.settle;
                }
            }
            VmState::Local { .. } => {
                // Only what waited for the end of its old path goes behind; later ones go as they come.
                s.local_last &= !s.queues[Origin::Local as usize].is_empty();
                if s.handover && !was_here {
                    s.settles = now + self.settle;
                }
            }
            VmState::Remote { .. }
            | VmState::Ageing { .. }
            | VmState::Blocked
            | VmState::Absent { .. }
            | VmState::Detached { .. } => {}
        }
        s.state = State::Known(state);
        if querying {
            self.querying -= 1;
            self.querying_slots -= s.slots;
        }
        self.mark_ready(at);
        self.due(now);
    }

    /// From now on, and for a while, a VM that runs here is one that has just come (R45).
    pub(crate) fn begin_settling(&mut self, at: SpecialIdx, hold: HoldLimits, now: Instant) {
        let s = &mut self.specials[at.0 as usize];
        if s.is_here() {
            s.settles = now + self.settle;
            s.limits = hold;
            self.due(now);
        }
    }

    /// `Some` word where nothing special is left of the entry.
    pub(crate) fn collapsed(&self, at: SpecialIdx, now: Instant) -> Option<Fib> {
        let s = self.special(at);
        if s.waiting() == 0 && !s.is_settling(now) { s.plain() } else { None }
    }

    /// Something is to be done at `at`.
    pub(crate) fn due(&mut self, at: Instant) {
        self.next_due = self.next_due.min(at);
    }

    /// When the next scan of the special entries is worth it.
    #[inline(always)]
    pub fn next_due(&self) -> Instant {
        self.next_due
    }

    pub(crate) fn begin_scan(&mut self) {
        self.next_due = Instant::NEVER;
    }

    /// The entry at a place in the list of those in use.
    pub(crate) fn at_place(&self, place: usize) -> Option<SpecialIdx> {
        self.active.get(place).map(|&at| SpecialIdx(at))
    }

    /// Puts an entry that holds frames into the list of those to be sent.
    pub(crate) fn mark_ready(&mut self, at: SpecialIdx) {
        let s = &mut self.specials[at.0 as usize];
        if s.queued || s.waiting() == 0 {
            return;
        }
        if self.ready.len() < self.ready.capacity() {
            s.queued = true;
            self.ready.push_back(at.0);
        } else {
            // Stale names fill the list: the next scan comes by here again.
            self.due(Instant(0));
        }
    }

    /// Names in the list of those to be sent.
    #[inline(always)]
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Takes one off the list; `None` for a name that was freed since.
    pub(crate) fn pop_ready(&mut self) -> Option<SpecialIdx> {
        let at = self.ready.pop_front()?;
        let s = &mut self.specials[at as usize];
        core::mem::take(&mut s.queued).then_some(SpecialIdx(at))
    }

    /// An entry's totals changed: an event is due, at most every few milliseconds.
    pub(crate) fn touch(&mut self, at: SpecialIdx, now: Instant) {
        let s = &mut self.specials[at.0 as usize];
        if s.handover && !s.dirty {
            s.dirty = true;
            let when = (s.reported + self.report_interval).max(now);
            self.due(when);
        }
    }

    /// The event about an entry's totals, where one is due. `at_once`: whatever the interval.
    pub(crate) fn report(&mut self, at: SpecialIdx, now: Instant, at_once: bool) -> Option<Event> {
        let interval = self.report_interval;
        let s = &mut self.specials[at.0 as usize];
        if !s.dirty || !s.handover {
            return None;
        }
        let when = s.reported + interval;
        if !at_once && s.reported != Instant(0) && now < when {
            self.due(when);
            return None;
        }
        s.dirty = false;
        s.reported = now;
        let bytes = u64::from(s.slots()) * SLOT as u64;
        let stats = HandoverStats { waiting: s.waiting().into(), bytes, ..s.stats };
        Some(Event::Handover { key: s.key, stats })
    }

    /// When an entry next needs a look although nothing happens to it.
    pub(crate) fn own_due(&self, at: SpecialIdx, now: Instant) -> Instant {
        let s = self.special(at);
        match s.state {
            State::Querying { until, .. }
            | State::Known(VmState::Absent { until } | VmState::Departed { until, .. }) => until,
            State::Known(_) if s.is_settling(now) => s.settles,
            State::Known(_) => Instant::NEVER,
        }
    }
}
