//! Frames that wait for their VM: held, taken out in their order, dropped and counted.

use godwit_wire::Instant;

use crate::holds::{About, Origin};
use crate::update::{Key, PortIdx};
use crate::vms::{Fib, SpecialIdx, State};
use crate::{Dispatch, DropReason, Tables};

impl Tables {
    /// Holds a frame for a VM with a special entry; the oldest one goes where its limit is reached
    /// (R35, R45).
    ///
    /// # Errors
    /// Why it is not held. The caller counts the drop.
    pub fn hold(&mut self, at: SpecialIdx, frame: &[u8], about: About) -> Result<(), DropReason> {
        let limits = self.vms.special(at).limits;
        let querying = matches!(self.vms.special(at).state, State::Querying { .. });
        self.vms.touch(at, about.arrived);
        if let Err(reason) = self.room_to_hold(querying, limits.packets, frame.len()) {
            self.vms.special_mut(at).stats.dropped += 1;
            return Err(reason);
        }
        while self.vms.special(at).waiting() >= limits.packets {
            self.drop_oldest(at, DropReason::HoldOverflow);
        }
        let s = self.vms.special_mut(at);
        // There was room before anything was dropped for it.
        let pushed = self.holds.push(&mut s.queues[about.origin as usize], frame, about);
        pushed.map_err(|_| DropReason::HoldMemory)?;
        s.stats.held += 1;
        self.counters.worker.held += 1;
        self.vms.due(about.arrived + limits.age);
        Ok(())
    }

    /// Whether a frame of `len` bytes finds room in a hold. Full memory refuses newcomers (R35); a
    /// full queue lets its oldest go, and that is [`Tables::hold`]'s to do.
    ///
    /// # Errors
    /// Why not.
    pub fn room_to_hold(&self, querying: bool, packets: u32, len: usize) -> Result<(), DropReason> {
        // Half of the memory is for handovers alone, so that a storm of misses cannot starve them.
        if querying && self.holds.slots_used() > self.holds.slots() / 2 {
            return Err(DropReason::HoldMemory);
        }
        match packets {
            0 => Err(DropReason::HoldOverflow),
            _ if self.holds.has_room(len) => Ok(()),
            _ => Err(DropReason::HoldMemory),
        }
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
            (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
            (a, b) => a.or(b),
        };
        first.map(|(_, origin, to)| (origin, to))
    }

    /// Frames for the VM are held that may go and have not gone yet.
    pub fn has_sendable(&self, key: Key) -> bool {
        matches!(self.vms.get(key), Some(Fib::Special(at)) if self.next_held(at).is_some())
    }

    /// Takes the oldest held frame of an origin out; its bytes replace those of `into`.
    pub fn take_held(&mut self, at: SpecialIdx, origin: Origin, into: &mut Vec<u8>) -> Option<About> {
        self.holds.pop_into(&mut self.vms.special_mut(at).queues[origin as usize], into)
    }

    /// Drops the oldest held frame of an origin.
    pub fn drop_held(&mut self, at: SpecialIdx, origin: Origin, reason: DropReason) {
        let s = self.vms.special_mut(at);
        if let Some(about) = self.holds.pop(&mut s.queues[origin as usize]) {
            s.stats.dropped += 1;
            self.counters.drop_one(about.ingress, reason);
            self.vms.touch(at, about.arrived);
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
        self.vms.special_mut(at).stats.dropped += 1;
        self.counters.drop_one(port, reason);
        self.vms.touch(at, now);
    }
}
