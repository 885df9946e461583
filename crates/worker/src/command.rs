//! What control asks of a worker, and what it answers.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use godwit_pipeline::trace::Trace;
use godwit_tables::counters::Counters;
use godwit_tables::event::Event;
use godwit_tables::update::{Key, PortIdx, Update};
use godwit_wire::Instant;

use crate::io::{Io, QUEUES};
use crate::offloads::{SharedReceiveOffloads, SharedUse};
use crate::orders::Orders;
use crate::perf::{Perf, QueuePerf, Work};
use crate::punts::Punts;
use crate::queue_handover::QueueHandover;
use crate::stages::Ticks;

/// The longest frame that control traces, in bytes: its headers are enough.
pub const SMALL_FRAME: usize = 256;

/// The longest frame that control sends, in bytes: one with a packet of 1,500 bytes.
pub const MAX_SENT: usize = 1514;

/// A short frame by value, so that a command needs no allocation on either side.
#[derive(Clone, Copy)]
pub struct SmallFrame {
    len: u16,
    bytes: [u8; SMALL_FRAME],
}

impl SmallFrame {
    /// `None` where `frame` is longer than [`SMALL_FRAME`].
    pub fn new(frame: &[u8]) -> Option<SmallFrame> {
        let mut bytes = [0; SMALL_FRAME];
        bytes.get_mut(..frame.len())?.copy_from_slice(frame);
        Some(SmallFrame { len: frame.len() as u16, bytes })
    }

    /// The frame, from its destination address on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A ring by which other workers hand frames to the one that owns a port's transmit queue, where the
/// port has fewer queues than there are workers. Bounded; a full one drops and counts.
pub type Relay<P> = Arc<ArrayQueue<P>>;

/// A worker's way to a port.
pub enum TxPath<I: Io> {
    /// A transmit queue of its own.
    Own(I::Tx),
    /// By the worker that owns the queue.
    Relay(Relay<I::Packet>),
    /// A queue of its own while the guest receives by it, else by the worker that owns the first.
    Either {
        /// The queue.
        tx: I::Tx,
        /// The guest receives by it.
        used: SharedUse,
        /// The other way.
        relay: Relay<I::Packet>,
    },
}

/// All counters of a worker and how it fares, copied at one point of its loop.
pub struct Snapshot {
    /// Frames, drops and work by kind.
    pub counters: Counters,
    /// Iterations.
    pub work: Work,
    /// Entries in the location table.
    pub locations: u64,
    /// Frames in holds.
    pub held: u64,
    /// Frames in outboxes.
    pub queued: u64,
    /// How it spent its time.
    pub perf: Perf,
    /// What each receive queue brought: port, number at the port.
    pub queues: Vec<(PortIdx, u16, QueuePerf)>,
    /// What each stage took.
    pub stages: Ticks,
}

impl Snapshot {
    /// Zeros, to be filled by a worker.
    pub fn empty() -> Box<Snapshot> {
        Box::new(Snapshot {
            counters: Counters::new(),
            work: Work::default(),
            locations: 0,
            held: 0,
            queued: 0,
            perf: Perf::new(Instant(0)),
            // The worker fills it without asking for memory.
            queues: Vec::with_capacity(QUEUES),
            stages: Ticks::default(),
        })
    }
}

/// An order to one worker. Orders take effect one after the other, in the order of the mailbox.
pub enum Command<I: Io> {
    /// A change to the tables.
    Table(Update),
    /// Poll this queue from now on.
    AttachRx {
        /// The port that its frames come from.
        port: PortIdx,
        /// Its number at the port.
        queue: u16,
        /// The queue.
        rx: I::Rx,
    },
    /// Stop polling it; answered by [`Reply::Rx`].
    DetachRx {
        /// The port.
        port: PortIdx,
        /// Its number at the port.
        queue: u16,
    },
    /// Take part in handing a receive queue to another worker. One handover at a time: it ends
    /// with [`Command::EndHandover`].
    HandOver(QueueHandover<I>),
    /// The handover is over, or called off; answered by [`Reply::Rx`] with the queue if it is still here
    /// and not polled.
    EndHandover {
        /// The port.
        port: PortIdx,
        /// Its number at the port.
        queue: u16,
    },
    /// Reach the port this way from now on.
    AttachTx {
        /// The port.
        port: PortIdx,
        /// The way.
        tx: TxPath<I>,
        /// Receiver offload capabilities of the guest behind it; `None` where there is none.
        offloads: Option<SharedReceiveOffloads>,
        /// Empty, with room for [`crate::outbox::OUTBOX`] frames: control allocates, the worker doesn't.
        outbox: Vec<I::Packet>,
    },
    /// Send what other workers put here, by the transmit queue that was attached before.
    ServeRelay {
        /// The port.
        port: PortIdx,
        /// Where the others put it.
        relay: Relay<I::Packet>,
    },
    /// Send what waits for the port and give the way back; answered by [`Reply::Tx`].
    DetachTx {
        /// The port.
        port: PortIdx,
    },
    /// The port is gone, its counts join those of the others that are
    /// ([`Counters::retire`](godwit_tables::counters::Counters::retire)).
    RetirePort {
        /// The port.
        port: PortIdx,
    },
    /// Send a frame that control made; answered by [`Reply::Sent`], for control to free the frame.
    Send {
        /// The port.
        port: PortIdx,
        /// The frame, of at most [`MAX_SENT`] bytes.
        frame: Vec<u8>,
    },
    /// Say what would happen to a frame; answered by [`Reply::Trace`].
    Trace {
        /// Returned with the answer.
        id: u64,
        /// The port it would come from.
        port: PortIdx,
        /// The frame.
        frame: SmallFrame,
    },
    /// Copy the counters into this; answered by [`Reply::Snapshot`].
    Snapshot(Box<Snapshot>),
    /// Begin the record of how the time is spent anew.
    ResetPerf,
    /// All orders before this one have taken effect; answered by [`Reply::Reached`].
    Barrier {
        /// Returned with the answer.
        token: u64,
    },
    /// Say by [`Event::Flushed`] when all that the worker had of a VM's frames when it took this order, received or
    /// not, has left (R77).
    Flush {
        /// Returned with the event.
        token: u64,
        /// The VM.
        key: Key,
        /// Its port, where what it has sent itself is meant as well.
        port: Option<PortIdx>,
    },
    /// End the loop; answered by [`Reply::Stopped`].
    Stop,
}

/// An order and when control gave it.
pub struct Order<I: Io> {
    /// When, on the clock that the worker is run by.
    pub at: Instant,
    /// What.
    pub command: Command<I>,
}

/// A worker's answer. Answers are never dropped: while their queue is full the worker takes no orders.
// A box would have the worker allocate; traces are rare and the queue is as long as the mailbox.
#[allow(clippy::large_enum_variant)]
pub enum Reply<I: Io> {
    /// The queue that it polled or was handing on; `None` where it had none of that name.
    Rx {
        /// The port.
        port: PortIdx,
        /// Its number at the port.
        queue: u16,
        /// The queue.
        rx: Option<I::Rx>,
    },
    /// The way it had; everything that waited was sent or counted.
    Tx {
        /// The port.
        port: PortIdx,
        /// The way.
        tx: Option<TxPath<I>>,
    },
    /// The frame was sent, or counted as dropped.
    Sent {
        /// The frame as control made it.
        frame: Vec<u8>,
    },
    /// What would happen.
    Trace {
        /// Of the order.
        id: u64,
        /// The verdict and how it came about.
        trace: Trace,
    },
    /// The counters, in what control sent.
    Snapshot(Box<Snapshot>),
    /// A barrier was reached.
    Reached {
        /// Of the order.
        token: u64,
    },
    /// The worker has ended.
    Stopped,
}

/// Control's ends of one worker's queues.
pub struct Mailbox<I: Io> {
    /// Orders; bounded, drained a few an iteration.
    pub commands: Arc<Orders<I>>,
    /// Answers; bounded, never dropped.
    pub replies: Arc<ArrayQueue<Reply<I>>>,
    /// What the worker noticed; bounded, the newest is dropped and counted where it is full.
    pub events: Arc<ArrayQueue<Event>>,
    /// VMs' frames for control; likewise.
    pub punts: Arc<Punts>,
}

impl<I: Io> Clone for Mailbox<I> {
    fn clone(&self) -> Self {
        Mailbox {
            commands: self.commands.clone(),
            replies: self.replies.clone(),
            events: self.events.clone(),
            punts: self.punts.clone(),
        }
    }
}

impl<I: Io> Mailbox<I> {
    /// With room for so many orders (and answers) and events.
    pub fn new(commands: usize, events: usize) -> Mailbox<I> {
        Mailbox {
            commands: Arc::new(Orders::new(commands)),
            replies: Arc::new(ArrayQueue::new(commands)),
            events: Arc::new(ArrayQueue::new(events)),
            punts: Arc::default(),
        }
    }
}
