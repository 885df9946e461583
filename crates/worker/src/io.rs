//! What a worker needs of the world: queues of packets and a pool. DPDK's, or memory's in tests.

use godwit_pipeline::packet::{Packet, PacketSource};
use godwit_wire::Span;

use crate::perf::CoreUse;

/// The longest time between two calls of [`TxQueue::keep_alive`]; LACP's driver wants 100 ms at most.
pub const KEEP_ALIVE: Span = Span::from_ms(10);

/// Receive queues that a worker polls at most: all ports with four queues each. Of the memory reserved for them
/// (some 300 bytes a queue, in the worker and in control's snapshots) only the part that is used is ever touched.
pub const QUEUES: usize = 4096;

/// A receive queue, owned by one worker at a time.
pub trait RxQueue<P>: Send {
    /// Appends up to `max` received frames to `out`, never more than its spare capacity; returns how many.
    fn rx(&mut self, out: &mut Vec<P>, max: usize) -> usize;

    /// [`Self::rx`] has just read the frames that it returns: they are in the core's cache.
    #[inline]
    fn copies(&self) -> bool {
        true
    }

    /// While it is empty, it may be looked at seldom: a guest's ring, of which there are hundreds.
    #[inline]
    fn can_rest(&self) -> bool {
        false
    }

    /// [`Self::rx`] would find something. A look that takes nothing and costs much less; asked only of queues that
    /// [`Self::can_rest`].
    #[inline]
    fn has_frames(&mut self) -> bool {
        true
    }
}

/// A transmit queue, owned by one worker at a time.
pub trait TxQueue<P>: Send {
    /// Sends a prefix of `packets` and removes it; what stays was not taken. Returns how many were sent.
    fn tx(&mut self, packets: &mut Vec<P>) -> usize;

    /// Has the queue's device do what it can do only from here, traffic or not: a bond speaks LACP (R95). `true`
    /// where it wants that, every [`KEEP_ALIVE`] at least.
    #[inline]
    fn keep_alive(&mut self) -> bool {
        false
    }
}

/// One family of queues and buffers. Static dispatch: a worker is compiled for one family.
pub trait Io: 'static {
    /// A frame's buffer.
    type Packet: Packet + Send;
    /// A receive queue.
    type Rx: RxQueue<Self::Packet>;
    /// A transmit queue.
    type Tx: TxQueue<Self::Packet>;
    /// Where fresh buffers come from.
    type Pool: PacketSource<Self::Packet> + Send;
    /// A counter that time drives, to tell what a queue's frames cost; 0 where there is none.
    #[inline]
    fn ticks() -> u64 {
        0
    }
    /// What the system says of the calling thread; nothing where it cannot be told.
    fn core_use() -> CoreUse {
        CoreUse::default()
    }
}
