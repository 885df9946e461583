//! What time does to special entries: held frames grow too old, queries and entries end, progress
//! is reported.

use godwit_wire::{Instant, Span};

use crate::event::Event;
use crate::holds::Origin;
use crate::update::VmState;
use crate::vms::{SpecialIdx, State};
use crate::{Dispatch, DropReason, Tables};

/// Held frames grow too old a few at a time: all entries are looked at for it no more often than this.
const SWEEP: Span = Span::from_ms(1);

/// What became of an entry that was looked at.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Serviced {
    /// It is gone; another one stands in its place in the list.
    pub gone: bool,
    /// For control.
    pub event: Option<Event>,
}

impl Tables {
    /// Special entries are worth a look.
    #[inline(always)]
    pub fn specials_due(&self, now: Instant) -> bool {
        self.vms.next_due() <= now
    }

    /// Begins a look at all special entries; each then says when it wants to be looked at again.
    pub fn begin_scan(&mut self) {
        self.vms.begin_scan();
    }

    /// The special entry at a place in their list, which has no gaps.
    pub fn special_at(&self, place: usize) -> Option<SpecialIdx> {
        self.vms.at_place(place)
    }

    /// Entries with frames to send, at most; some may turn out to have none.
    #[inline(always)]
    pub fn ready(&self) -> usize {
        self.vms.ready_len()
    }

    /// The next entry with frames to send.
    pub fn pop_ready(&mut self) -> Option<SpecialIdx> {
        self.vms.pop_ready()
    }

    /// Puts an entry whose held frames wait for their port alone into the list of those with frames to send.
    pub fn try_again(&mut self, at: SpecialIdx) {
        self.vms.mark_ready(at);
    }

    /// Ends the sending of held frames, for now or because none is left. The entry collapses where
    /// nothing special is left of it.
    pub fn drained(&mut self, at: SpecialIdx, now: Instant) -> Serviced {
        if self.next_held(at).is_some() {
            self.vms.mark_ready(at);
            return Serviced { gone: false, event: None };
        }
        let empty = self.vms.special(at).waiting() == 0;
        let event = self.vms.report(at, now, empty);
        let Some(word) = self.vms.collapsed(at, now) else { return Serviced { gone: false, event } };
        self.vms.free_special(at, Some(word), &mut self.routes);
        Serviced { gone: true, event }
    }

    /// Looks at an entry: ends what has ended, drops what is too old, reports what is due.
    pub fn service(&mut self, at: SpecialIdx, now: Instant) -> Serviced {
        match self.vms.special(at).state {
            State::Querying { until, .. } if until <= now => {
                self.forget(at, DropReason::HoldExpired);
                return Serviced { gone: true, event: None };
            }
            State::Known(VmState::Absent { until }) if until <= now => {
                let event = self.vms.report(at, now, true);
                self.forget(at, DropReason::HoldExpired);
                return Serviced { gone: true, event };
            }
            State::Known(VmState::Departed { to, until }) if until <= now => {
                self.vms.enter(at, VmState::Remote { to }, now);
            }
            _ => {}
        }
        self.expire(at, now);
        if self.next_held(at).is_some() {
            self.vms.mark_ready(at);
        }
        if let Some(word) = self.vms.collapsed(at, now) {
            let event = self.vms.report(at, now, true);
            self.vms.free_special(at, Some(word), &mut self.routes);
            return Serviced { gone: true, event };
        }
        let due = self.vms.own_due(at, now);
        self.vms.due(due);
        Serviced { gone: false, event: self.vms.report(at, now, false) }
    }

    /// Drops held frames that have waited longer than their limit. Those that may go now have as long again: they go,
    /// unless what they leave by takes nothing.
    fn expire(&mut self, at: SpecialIdx, now: Instant) {
        for origin in [Origin::Local, Origin::Overlay] {
            let s = self.vms.special(at);
            let age = match self.dispatch(&s.state, origin, true) {
                Dispatch::Hold => s.limits.age,
                Dispatch::Deliver(_) | Dispatch::Tunnel { .. } => Span(s.limits.age.0.saturating_mul(2)),
                Dispatch::Drop(_) => continue,
            };
            while let Some(oldest) = self.holds.oldest(self.vms.special(at).queue(origin)) {
                if now.since(oldest.arrived) < age {
                    self.vms.due((oldest.arrived + age).max(now + SWEEP));
                    break;
                }
                self.drop_held(at, origin, DropReason::HoldExpired);
            }
        }
    }
}
