//! A receive queue on its way from one worker to another, without control in between: a queue that
//! nobody polls overflows within a millisecond at full rate.
//!
//! The worker that polled it lets go, waits until all it received by it has left its outboxes, and
//! hands the queue on by a [`Baton`]. Frames that went to another worker's relay are still waiting
//! there: the queue then passes through that worker, which likewise sends first what it had been
//! given. So the last worker receives nothing before all that came earlier was handed to the devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam::queue::ArrayQueue;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use crate::io::Io;

/// So long a worker waits for what it should send first. A device that takes nothing, as that of a
/// guest that left, shall not keep a queue from being polled.
pub const PATIENCE: Span = Span::from_ms(5);

/// Carries a queue from one worker to the next: a ring with room for one.
pub type Baton<I> = Arc<ArrayQueue<<I as Io>::Rx>>;

const DONE: u8 = 1;
const LATE: u8 = 2;

/// How far a handover has come; shared by all who take part.
#[derive(Default, Debug)]
pub struct Progress(AtomicU8);

impl Progress {
    /// The last worker polls the queue.
    pub fn is_done(&self) -> bool {
        // Acquire: what the workers did happens before control goes on.
        self.0.load(Ordering::Acquire) & DONE != 0
    }

    /// A worker did not wait any longer for a device that takes nothing: frames may overtake others.
    pub fn was_late(&self) -> bool {
        self.0.load(Ordering::Acquire) & LATE != 0
    }

    pub(crate) fn done(&self) {
        self.0.fetch_or(DONE, Ordering::Release);
    }

    pub(crate) fn late(&self) {
        self.0.fetch_or(LATE, Ordering::Release);
    }
}

/// A worker's part in the handover of a queue. Control keeps clones of what is shared, so that a worker frees nothing.
pub struct QueueHandover<I: Io> {
    /// The port.
    pub port: PortIdx,
    /// The queue's number at the port.
    pub queue: u16,
    /// Where the queue comes from; `None`: this worker polls it.
    pub from: Option<Baton<I>>,
    /// Where it goes; `None`: this worker polls it from now on.
    pub to: Option<Baton<I>>,
    /// How far it has come.
    pub progress: Arc<Progress>,
}

/// A handover at a worker that takes part in it.
pub(crate) struct ActiveHandover<I: Io> {
    pub order: QueueHandover<I>,
    /// The queue, while it is here.
    pub rx: Option<I::Rx>,
    /// When the patience ends.
    pub due: Instant,
    /// This worker has done its part.
    pub over: bool,
}
