//! Receive queues of a worker, and which of them are looked at when.
//!
//! *Busy* queues are polled in every iteration. One that may rest ([`RxQueue::can_rest`]) and brought nothing from
//! one survey to the next is *resting*: it is looked at without taking anything ([`RxQueue::has_frames`]), and is busy
//! again, in the same iteration, as soon as there is something in it.
//!
//! Resting queues are looked at one after the other, always first the one whose last look is the longest ago. While
//! there is something to do, an iteration looks at the share of them that the time since the iteration before takes
//! of the bound `idle_poll`; a worker with nothing to do looks at all of them in every iteration. So with `d` from the
//! beginning of an iteration to that of the next, a queue is looked at after `idle_poll` or `d`, whichever is longer;
//! where `d` varies, after `idle_poll` and one `d` at most.
//!
//! All memory is reserved at the start.

use std::collections::VecDeque;

use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use crate::io::{Io, QUEUES, RxQueue};
use crate::perf::QueuePerf;

/// How long a resting queue may go without a look while its worker has something to do, unless the configuration
/// says otherwise.
pub const IDLE_POLL: Span = Span::from_us(50);

/// From one survey of the busy queues to the next. Long beside [`IDLE_POLL`]: to wake a queue costs more than to look
/// at it.
pub const SURVEY: Span = Span::from_us(200);

/// A receive queue that this worker has.
pub(crate) struct Polled<I: Io> {
    pub port: PortIdx,
    pub queue: u16,
    pub rx: I::Rx,
    pub perf: QueuePerf,
    /// It has been empty since the round of flushes began.
    pub was_empty: bool,
    /// Bursts that it had brought when it was last surveyed.
    surveyed: u64,
}

impl<I: Io> Polled<I> {
    fn new(port: PortIdx, queue: u16, rx: I::Rx) -> Polled<I> {
        Polled { port, queue, rx, perf: QueuePerf::default(), was_empty: false, surveyed: 0 }
    }

    fn is(&self, port: PortIdx, queue: u16) -> bool {
        self.port == port && self.queue == queue
    }
}

/// All receive queues of a worker.
pub(crate) struct Queues<I: Io> {
    /// Those that every iteration polls.
    pub busy: Vec<Polled<I>>,
    /// Those that rest, each at a place of its own.
    places: Vec<Option<Polled<I>>>,
    /// Places without a queue.
    free: Vec<u16>,
    /// Places with one, in the order in which they are looked at.
    turn: VecDeque<u16>,
    /// Bound between two looks at a resting queue; zero: none rests.
    idle_poll: Span,
    looked: Instant,
    next_survey: Instant,
}

impl<I: Io> Queues<I> {
    pub fn new(idle_poll: Span) -> Queues<I> {
        Queues {
            busy: Vec::with_capacity(QUEUES),
            places: Vec::with_capacity(QUEUES),
            free: Vec::with_capacity(QUEUES),
            turn: VecDeque::with_capacity(QUEUES),
            idle_poll,
            looked: Instant(0),
            next_survey: Instant(0),
        }
    }

    /// Changes the bound between two looks at a resting queue; before the first iteration.
    pub fn set_idle_poll(&mut self, idle_poll: Span) {
        self.idle_poll = idle_poll;
    }

    /// Polls a queue from now on.
    pub fn add(&mut self, port: PortIdx, queue: u16, rx: I::Rx) {
        self.busy.push(Polled::new(port, queue, rx));
    }

    /// Polls it no longer.
    pub fn remove(&mut self, port: PortIdx, queue: u16) -> Option<I::Rx> {
        if let Some(at) = self.busy.iter().position(|p| p.is(port, queue)) {
            return Some(self.busy.swap_remove(at).rx);
        }
        let at = self.places.iter().position(|p| p.as_ref().is_some_and(|p| p.is(port, queue)))?;
        let gone = self.places[at].take()?;
        self.turn.retain(|place| usize::from(*place) != at);
        self.free.push(at as u16);
        Some(gone.rx)
    }

    /// Some queue rests.
    #[inline]
    pub fn has_resting(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Puts what each queue brought into `out`, as far as that has room.
    pub fn report(&self, out: &mut Vec<(PortIdx, u16, QueuePerf)>) {
        out.clear();
        let room = out.capacity();
        let one = |(q, resting): (&Polled<I>, bool)| (q.port, q.queue, QueuePerf { resting, ..q.perf });
        out.extend(self.iter().take(room).map(one));
    }

    /// All, and whether they rest.
    pub fn iter(&self) -> impl Iterator<Item = (&Polled<I>, bool)> {
        self.busy.iter().map(|p| (p, false)).chain(self.places.iter().flatten().map(|p| (p, true)))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&mut Polled<I>, bool)> {
        let resting = self.places.iter_mut().flatten().map(|p| (p, true));
        self.busy.iter_mut().map(|p| (p, false)).chain(resting)
    }

    /// Begins the queues' counts anew.
    pub fn reset_perf(&mut self) {
        for (polled, _) in self.iter_mut() {
            (polled.perf, polled.surveyed) = (QueuePerf::default(), 0);
        }
    }

    /// Looks at resting queues: at all of them where the worker had nothing to do in the iteration before, else at
    /// those whose time has come. Those with frames are busy from now on. Returns the number of looks.
    #[inline(never)]
    pub fn look(&mut self, now: Instant, loaded: bool) -> usize {
        let resting = self.turn.len();
        let passed = now.since(self.looked);
        self.looked = now;
        let mut left = if loaded { share(resting, passed, self.idle_poll) } else { resting };
        let mut looks = 0;
        // Each is looked at once at most. One that wakes does not cost the others their turn.
        while left > 0 && looks < resting {
            let Some(place) = self.turn.pop_front() else { break };
            looks += 1;
            if self.wakes(place) {
                continue;
            }
            self.turn.push_back(place);
            left -= 1;
        }
        looks
    }

    /// Makes the queue at `place` busy if there is something in it.
    #[inline]
    fn wakes(&mut self, place: u16) -> bool {
        let at = &mut self.places[usize::from(place)];
        let Some(polled) = at.take_if(|polled| polled.rx.has_frames()) else { return false };
        self.busy.push(polled);
        self.free.push(place);
        true
    }

    /// It is time for [`Queues::survey`].
    #[inline]
    pub fn is_survey_due(&self, now: Instant) -> bool {
        now >= self.next_survey
    }

    /// Puts busy queues that may rest and brought nothing since the last survey to rest. They have just been polled,
    /// so they are looked at last.
    #[cold]
    #[inline(never)]
    pub fn survey(&mut self, now: Instant) {
        self.next_survey = if self.idle_poll == Span(0) { Instant::NEVER } else { now + SURVEY };
        let mut at = 0;
        while let Some(polled) = self.busy.get_mut(at) {
            let bursts = polled.perf.bursts;
            let silent = core::mem::replace(&mut polled.surveyed, bursts) == bursts;
            if self.idle_poll > Span(0) && silent && polled.rx.can_rest() {
                let polled = self.busy.swap_remove(at);
                self.put_to_rest(polled);
            } else {
                at += 1;
            }
        }
    }

    fn put_to_rest(&mut self, polled: Polled<I>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u16
        });
        self.places[usize::from(place)] = Some(polled);
        self.turn.push_back(place);
    }
}

/// How many of `resting` queues are due where `passed` has gone by since the last looks and each is to be looked at
/// within `bound`.
#[inline]
pub(crate) fn share(resting: usize, passed: Span, bound: Span) -> usize {
    let turns = (bound.0 / passed.0.max(1)).max(1);
    resting.div_ceil(turns as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r13_the_share_of_an_iteration_is_that_of_its_time() {
        let us = Span::from_us;
        assert_eq!(share(500, us(5), us(50)), 50);
        assert_eq!(share(500, us(26), us(50)), 500, "one iteration fits into the bound");
        assert_eq!(share(500, us(90), us(50)), 500, "none does");
        assert_eq!(share(3, us(1), us(50)), 1, "one at least");
        assert_eq!(share(7, Span(0), us(50)), 1, "a clock that stands still");
        assert_eq!(share(0, us(1), us(50)), 0);
    }
}
