//! Frames that wait for their VM: held, taken out in their order, dropped and counted.

use godwit_wire::Instant;

use crate::holds::{About, Holds, Origin, SLOT};
use crate::update::{Key, PortIdx, VmState};
use crate::vms::{Fib, SpecialIdx, State};
use crate::{Dispatch, DropReason, Tables};

impl Tables {
    /// Holds a frame for a VM with a special entry. Where its limit of packets is reached its oldest one goes; where
    /// the memory is full, the oldest one of the entry that holds most (R35, R45).
    ///
    /// # Errors
    /// Why it is not held. The caller counts the drop.
    pub fn hold(&mut self, at: SpecialIdx, frame: &[u8], about: About) -> Result<(), DropReason> {
        let limits = self.vms.special(at).limits;
        let querying = matches!(self.vms.special(at).state, State::Querying { .. });
        self.vms.touch(at, about.arrived);
        let had = self.vms.special(at).slots();
        let mut held = self.room_to_hold(querying, limits.packets, had, frame.len());
        if held.is_ok() {
            while self.vms.special(at).waiting() >= limits.packets {
                self.drop_oldest(at, DropReason::HoldOverflow);
            }
            held = self.make_room(at, frame.len()).and_then(|()| self.put(at, frame, about));
        }
        match held {
            Ok(()) => self.vms.due(about.arrived + limits.age),
            Err(reason) => self.vms.special_mut(at).stats.count_drop(reason),
        }
        held
    }

    fn put(&mut self, at: SpecialIdx, frame: &[u8], about: About) -> Result<(), DropReason> {
        let s = self.vms.special_mut(at);
        let pushed = self.holds.push(&mut s.queues[about.origin as usize], frame, about);
        pushed.map_err(|_| DropReason::HoldMemory)?;
        s.stats.held += 1;
        self.counters.worker.held += 1;
        self.vms.weigh(at);
        self.count_hold_memory();
        Ok(())
    }

    /// Makes room for another frame of an entry: as long as there is none, the oldest frame goes of the entry that
    /// would hold most.
    fn make_room(&mut self, at: SpecialIdx, len: usize) -> Result<(), DropReason> {
        while !self.holds.provide(len) {
            let slots = self.vms.special(at).slots();
            let (largest, most) = self.vms.largest().ok_or(DropReason::HoldMemory)?;
            let pays = if most > slots + Holds::slots_of(len) || slots == 0 { largest } else { at };
            self.drop_oldest(pays, DropReason::HoldMemory);
        }
        Ok(())
    }

    /// The same for a frame that waits elsewhere, with others that take `slots`.
    pub(crate) fn make_room_beside(&mut self, slots: u32, len: usize) -> Result<(), DropReason> {
        while !self.holds.provide(len) {
            let larger = self.vms.largest().filter(|&(_, most)| most > slots);
            let (largest, _) = larger.ok_or(DropReason::HoldMemory)?;
            self.drop_oldest(largest, DropReason::HoldMemory);
        }
        Ok(())
    }

    /// Whether a frame of `len` bytes finds room in a hold with frames that take `slots`, by itself or by what then
    /// goes, which is [`Tables::hold`]'s to do. What waits for the directory refuses newcomers (R35).
    ///
    /// # Errors
    /// Why not.
    pub fn room_to_hold(
        &self,
        querying: bool,
        packets: u32,
        slots: u32,
        len: usize,
    ) -> Result<(), DropReason> {
        let needs = Holds::slots_of(len);
        let pays = || slots >= needs || self.vms.largest().is_some_and(|(_, most)| most > slots + needs);
        match packets {
            0 => Err(DropReason::HoldOverflow),
            _ if querying => self.room_for_miss(len),
            _ if self.holds.has_room(len) || pays() => Ok(()),
            _ => Err(DropReason::HoldMemory),
        }
    }

    /// Part of the memory is for handovers alone, so that a storm of misses cannot starve them.
    fn room_for_miss(&self, len: usize) -> Result<(), DropReason> {
        let together = self.vms.querying_slots() + self.awaited.slots() + Holds::slots_of(len);
        if together <= self.holds.miss_slots() && self.holds.has_room(len) {
            Ok(())
        } else {
            Err(DropReason::HoldMemory)
        }
    }

    /// Counts what the frames held take.
    pub(crate) fn count_hold_memory(&mut self) {
        let w = &mut self.counters.worker;
        w.hold_bytes = u64::from(self.holds.slots_used()) * SLOT as u64;
        w.hold_peak_bytes = w.hold_peak_bytes.max(w.hold_bytes);
    }

    /// Frames held for one unknown destination at most, if no VM that has just moved here asked for it (R35).
    pub fn miss_hold_packets(&self) -> u32 {
        self.vms.default_limits().packets
    }

    /// The oldest frame that an entry holds, of those that `dispatch` lets go; where it goes.
    pub fn next_held(&self, at: SpecialIdx) -> Option<(Origin, Dispatch)> {
        let s = self.vms.special(at);
        let candidate = |origin: Origin| {
            if s.queue(origin).is_empty() {
                return None;
            }
            let to = self.dispatch(&s.state, origin, true);
            (to != Dispatch::Hold).then(|| (self.holds.oldest_seq(s.queue(origin)), origin, to))
        };
        let (a, b) = (candidate(Origin::Local), candidate(Origin::Overlay));
        let first = match (a, b) {
            (Some(a), Some(b)) => Some(if a.0 <= b.0 && !s.local_last { a } else { b }),
            (a, b) => a.or(b),
        };
        first.map(|(_, origin, to)| (origin, to))
    }

    /// Frames for the VM are held that may go and have not gone yet.
    pub fn has_sendable(&self, key: Key) -> bool {
        matches!(self.vms.get(key), Some(Fib::Special(at)) if self.next_held(at).is_some())
    }

    /// Frames that the VM of this port sent are held and go soon: their way is being asked for, or what they leave by
    /// has had enough to do. What waits because its receiver stands still, or for the end of an old path, is not meant:
    /// what the VM sends by another NVE comes behind it.
    pub fn holds_from(&self, port: PortIdx) -> bool {
        if self.holds.held_from(port) == 0 {
            return false;
        }
        self.has_arrivals_at(port) || self.awaited_from(port) || self.held_for_others(port)
    }

    fn held_for_others(&self, port: PortIdx) -> bool {
        let stays = |s: &State| {
            matches!(
                s,
                State::Known(
                    VmState::Paused { .. } | VmState::Arrived { .. } | VmState::Expected { via: None, .. }
                )
            )
        };
        let all = (0..).map_while(|place| self.vms.at_place(place)).map(|at| self.vms.special(at));
        let mut held = all.filter(|s| !stays(&s.state)).map(|s| s.queue(Origin::Local));
        held.any(|queue| self.holds.has_from(queue, port))
    }

    /// Takes the oldest held frame of an origin out; its bytes replace those of `into`.
    pub fn take_held(&mut self, at: SpecialIdx, origin: Origin, into: &mut Vec<u8>) -> Option<About> {
        let s = self.vms.special_mut(at);
        // All that went before it by the old path was here, and has gone (R77).
        s.local_last &= origin == Origin::Overlay;
        let about = self.holds.pop_into(&mut s.queues[origin as usize], into);
        self.vms.weigh(at);
        self.count_hold_memory();
        about
    }

    /// A copy of the oldest held frame of an origin, which stays; its bytes replace those of `into`.
    pub fn peek_held(&self, at: SpecialIdx, origin: Origin, into: &mut Vec<u8>) -> Option<About> {
        self.holds.copy_into(self.vms.special(at).queue(origin), into)
    }

    /// Drops the oldest held frame of an origin.
    pub fn drop_held(&mut self, at: SpecialIdx, origin: Origin, reason: DropReason) {
        let s = self.vms.special_mut(at);
        if let Some(about) = self.holds.pop(&mut s.queues[origin as usize]) {
            s.stats.count_drop(reason);
            self.counters.drop_one(about.ingress, reason);
            self.vms.weigh(at);
            self.vms.touch(at, about.arrived);
            self.count_hold_memory();
        }
    }

    pub(crate) fn drop_all_held(&mut self, at: SpecialIdx, reason: DropReason) {
        while self.vms.special(at).waiting() > 0 {
            self.drop_oldest(at, reason);
        }
    }

    fn drop_oldest(&mut self, at: SpecialIdx, reason: DropReason) {
        let q = &self.vms.special(at).queues;
        let overlay_first = self.holds.oldest_seq(&q[1]) < self.holds.oldest_seq(&q[0]);
        self.drop_held(at, if overlay_first { Origin::Overlay } else { Origin::Local }, reason);
    }

    /// Counts a held frame that went on.
    pub fn flushed(&mut self, at: SpecialIdx, now: Instant) {
        self.counters.worker.flushed += 1;
        self.vms.special_mut(at).stats.flushed += 1;
        self.vms.touch(at, now);
    }

    /// Counts a frame that was sent on in flight (R43).
    pub fn forwarded(&mut self, at: SpecialIdx, now: Instant) {
        self.counters.worker.forwarded_in_flight += 1;
        let stats = &mut self.vms.special_mut(at).stats;
        stats.forwarded += 1;
        if stats.first_forward == Instant(0) {
            stats.first_forward = now;
        }
        stats.last_forward = now;
        self.vms.touch(at, now);
    }

    /// Counts a held frame, already taken out, that could not be sent.
    pub fn lost(&mut self, at: SpecialIdx, port: PortIdx, reason: DropReason, now: Instant) {
        self.vms.special_mut(at).stats.count_drop(reason);
        self.counters.drop_one(port, reason);
        self.vms.touch(at, now);
    }
}
