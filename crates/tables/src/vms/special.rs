//! A VM that needs more than a word.

use godwit_wire::Instant;

use crate::event::HandoverStats;
use crate::holds::{Origin, Queue};
use crate::update::{HoldLimits, Key, PortIdx, VmState};

use super::Fib;

/// The state of a special entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Unknown: the directory is being asked (R34), frames wait (R35).
    Querying {
        /// The port whose frame began it.
        port: PortIdx,
        /// When the wait is over.
        until: Instant,
    },
    /// As control said. `Local` and `Remote` only while frames are held, for them or for a tunnel
    /// whose next hop does not answer yet.
    Known(VmState),
}

/// A VM that needs more than a word.
#[derive(Clone, Debug)]
pub struct Special {
    /// VN and MAC.
    pub key: Key,
    /// What to do with its frames.
    pub state: State,
    /// Held frames, by [`Origin`]: they may have to go different ways.
    pub queues: [Queue; 2],
    /// Bounds of what is held.
    pub limits: HoldLimits,
    /// Totals of its handover.
    pub stats: HandoverStats,
    /// It is, or was, in a handover: its totals are worth an event.
    pub(super) handover: bool,
    /// Its totals changed since the last event.
    pub(super) dirty: bool,
    /// Slots of held frames, as they were counted last.
    pub(super) slots: u32,
    pub(super) reported: Instant,
    /// A VM that has come to its port by a handover stays special until then: frames still come and go in bursts.
    pub(super) settles: Instant,
    /// It stands in the list of those with frames to send.
    pub(super) queued: bool,
    /// Frames of VMs here that are held go behind those of the overlay, whenever they came (R77).
    pub(crate) local_last: bool,
    /// Its place in the list of entries in use; `u32::MAX` where it is free.
    pub(super) place: u32,
}

impl Special {
    /// Frames held.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.queues[0].len() + self.queues[1].len()
    }

    /// Memory of the frames held, in slots.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.queues[0].slots() + self.queues[1].slots()
    }

    /// Frames held from `origin`.
    #[inline]
    pub fn queue(&self, origin: Origin) -> &Queue {
        &self.queues[origin as usize]
    }

    /// It has come to its port by a handover, and not long ago.
    pub(crate) fn is_settling(&self, now: Instant) -> bool {
        self.is_here() && now < self.settles
    }

    /// It runs on a port here.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.state, State::Known(VmState::Local { .. } | VmState::Arrived { .. }))
    }

    /// The word that says it all once nothing is held.
    pub(super) fn plain(&self) -> Option<Fib> {
        match self.state {
            State::Known(VmState::Local { port }) => Some(Fib::Local(port)),
            State::Known(VmState::Remote { to }) => Some(Fib::Remote(to)),
            State::Known(VmState::Ageing { to }) => Some(Fib::Ageing(to)),
            State::Known(VmState::Detached { reset }) => Some(Fib::Detached(reset)),
            _ => None,
        }
    }
}
