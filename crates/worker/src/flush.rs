//! Flushes: what this worker has of a VM's frames, received or not, is on its way before control is told so (R77).
//!
//! Frames that came to the NIC before a datagram of another NVE may lie in another receive queue than that, behind a
//! burst or in a hold. So a flush is over in three steps, which the flushes of one *round* go together:
//!
//! 1. each receive queue has once given less than was asked for: what lay in it is processed;
//! 2. no frame for the VM is held that may go, and none of it, where these are meant, that goes soon;
//! 3. the frames that were in the outboxes by then have been handed to their devices.
//!
//! A queue that never gets empty and a device that takes nothing are not waited for longer than [`PATIENCE`].

use godwit_tables::Tables;
use godwit_tables::event::Event;
use godwit_tables::update::{Key, PortIdx};
use godwit_wire::{Instant, Span};

/// Flushes that wait in one worker; a further one is over at once.
pub const FLUSHES: usize = 256;

/// How long a round lasts at most.
pub const PATIENCE: Span = Span::from_ms(10);

/// How far a round is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Queues are being emptied, holds drain.
    Draining,
    /// The outboxes are marked.
    Leaving,
    /// Control is being told.
    Over,
}

/// What is to have left.
#[derive(Clone, Copy)]
pub(crate) struct Flush {
    pub token: u64,
    /// Frames for this VM,
    pub key: Key,
    /// and those that came in on its port.
    pub port: Option<PortIdx>,
}

impl Flush {
    fn is_held(&self, tables: &Tables) -> bool {
        tables.has_sendable(self.key) || self.port.is_some_and(|port| tables.holds_from(port))
    }
}

/// The flushes of one worker; all memory is reserved at the start.
pub(crate) struct Flushes {
    waiting: Vec<Flush>,
    round: Vec<Flush>,
    stage: Stage,
    due: Instant,
}

/// What the worker has to do for the round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Nothing for now.
    Wait,
    /// Remember what is in the outboxes.
    Mark,
}

impl Flushes {
    pub(crate) fn new() -> Flushes {
        Flushes {
            waiting: Vec::with_capacity(FLUSHES),
            round: Vec::with_capacity(FLUSHES),
            stage: Stage::Over,
            due: Instant(0),
        }
    }

    /// There is something to do.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.round.is_empty()
    }

    /// Adds a flush; false: there are too many.
    pub(crate) fn add(&mut self, flush: Flush) -> bool {
        let room = self.waiting.len() < self.waiting.capacity();
        if room {
            self.waiting.push(flush);
        }
        room
    }

    /// Begins a round if none is under way: true, and the receive queues are to be emptied from now on.
    pub(crate) fn begins(&mut self, now: Instant) -> bool {
        let begins = self.round.is_empty();
        if begins {
            core::mem::swap(&mut self.round, &mut self.waiting);
            (self.stage, self.due) = (Stage::Draining, now + PATIENCE);
        }
        begins
    }

    /// The receive queues are to be emptied.
    pub(crate) fn drains(&self) -> bool {
        self.stage == Stage::Draining
    }

    /// The round goes on. `empty`: all receive queues have been; `clear`: what was marked in the outboxes has left.
    pub(crate) fn advance(&mut self, tables: &Tables, empty: bool, clear: bool, now: Instant) -> Step {
        let late = now >= self.due;
        match self.stage {
            Stage::Draining if late || empty && !self.round.iter().any(|f| f.is_held(tables)) => {
                self.stage = Stage::Leaving;
                return Step::Mark;
            }
            Stage::Leaving if late || clear => self.stage = Stage::Over,
            Stage::Draining | Stage::Leaving | Stage::Over => {}
        }
        Step::Wait
    }

    /// Tells control of the flushes that are over, as far as `tell` has room.
    pub(crate) fn tell(&mut self, mut tell: impl FnMut(Event) -> bool) {
        if self.stage == Stage::Over {
            while let Some(&Flush { token, .. }) = self.round.last()
                && tell(Event::Flushed { token })
            {
                self.round.pop();
            }
        }
    }
}
