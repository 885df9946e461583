//! Receive and transmit queues: what a worker owns of a port.
//!
//! A queue is a device's or a guest's, and says which by one word that its worker has at hand anyway: the branch on it
//! goes the same way at each look.

use crate::ethqueue::{EthRx, EthTx};
use crate::mbuf::Mbuf;
use crate::port::NO_PORT_ID;
use crate::vhost::{VhostRx, VhostTx};

/// One receive queue of a started port. It has one owner and may move between threads.
#[derive(Debug)]
pub struct RxQueue(Rx);

#[derive(Debug)]
enum Rx {
    Eth(EthRx),
    Vhost(VhostRx),
}

/// One transmit queue of a started port. It has one owner and may move between threads.
#[derive(Debug)]
pub struct TxQueue(Tx);

#[derive(Debug)]
enum Tx {
    Eth(EthTx),
    Vhost(VhostTx),
}

impl From<EthRx> for RxQueue {
    fn from(queue: EthRx) -> RxQueue {
        RxQueue(Rx::Eth(queue))
    }
}

impl From<VhostRx> for RxQueue {
    fn from(queue: VhostRx) -> RxQueue {
        RxQueue(Rx::Vhost(queue))
    }
}

impl From<EthTx> for TxQueue {
    fn from(queue: EthTx) -> TxQueue {
        TxQueue(Tx::Eth(queue))
    }
}

impl From<VhostTx> for TxQueue {
    fn from(queue: VhostTx) -> TxQueue {
        TxQueue(Tx::Vhost(queue))
    }
}

impl RxQueue {
    /// Appends up to `max` received frames to `out` and returns how many came.
    ///
    /// `out` is never grown: frames beyond its spare capacity stay in the queue. Some vector drivers
    /// receive nothing at all where fewer than 4 are asked for, so leave room for a burst of 32.
    #[inline]
    pub fn rx(&mut self, out: &mut Vec<Mbuf>, max: usize) -> usize {
        match &mut self.0 {
            Rx::Eth(queue) => queue.rx(out, max),
            Rx::Vhost(queue) => queue.rx(out, max),
        }
    }

    /// [`Self::rx`] copies frames, as [`crate::DevInfo::copies`] says.
    #[inline]
    pub fn copies(&self) -> bool {
        match &self.0 {
            Rx::Eth(queue) => queue.copies(),
            Rx::Vhost(_) => true,
        }
    }

    /// The queue may be looked at seldom while it is empty: a guest's ring keeps what comes, and
    /// [`Self::has_frames`] says at little cost whether something did.
    #[inline]
    pub fn can_rest(&self) -> bool {
        matches!(self.0, Rx::Vhost(_))
    }

    /// Whether [`Self::rx`] would give something, without taking it: some nanoseconds for a guest's ring. `true` also
    /// where that shows only when frames are taken, as with DPDK's devices, and `false` while there is no guest.
    #[inline]
    pub fn has_frames(&mut self) -> bool {
        match &mut self.0 {
            Rx::Eth(_) => true,
            Rx::Vhost(queue) => queue.has_frames(),
        }
    }

    /// The port's id, which received buffers carry ([`Mbuf::port_id`]).
    pub fn port_id(&self) -> u16 {
        match &self.0 {
            Rx::Eth(queue) => queue.port_id(),
            Rx::Vhost(_) => NO_PORT_ID,
        }
    }

    /// The queue's number within its port, from 0.
    pub fn queue_id(&self) -> u16 {
        match &self.0 {
            Rx::Eth(queue) => queue.queue_id(),
            Rx::Vhost(queue) => queue.queue_id(),
        }
    }

    /// The port's name.
    pub fn port_name(&self) -> &str {
        match &self.0 {
            Rx::Eth(queue) => queue.port_name(),
            Rx::Vhost(queue) => queue.port_name(),
        }
    }
}

impl TxQueue {
    /// Sends frames from the front of `pkts` until the queue is full, removes those and returns how many
    /// they were. The unsent stay, in order, for the caller to keep, retry or drop.
    #[inline]
    pub fn tx(&mut self, pkts: &mut Vec<Mbuf>) -> usize {
        match &mut self.0 {
            Tx::Eth(queue) => queue.tx(pkts),
            Tx::Vhost(queue) => queue.tx(pkts),
        }
    }

    /// Has the driver do what it does besides when frames are sent: a bond's sends its LACP frames then. `true` where
    /// it wants that, every 100 ms at least; for other drivers nothing happens.
    #[inline]
    pub fn keep_alive(&mut self) -> bool {
        match &mut self.0 {
            Tx::Eth(queue) => queue.keep_alive(),
            Tx::Vhost(_) => false,
        }
    }

    /// Checks and adapts frames that carry offload flags, as some drivers need before [`Self::tx`].
    /// Returns how many from the front may be sent; the next one may not.
    ///
    /// What drivers adapt is the checksum's field, which they want to hold the pseudo-header's sum. The
    /// switch puts it there when it leaves a checksum to a device (R5), and saves itself this second look at
    /// each frame; so this is for frames of other origin.
    #[inline]
    pub fn prepare(&mut self, pkts: &mut [Mbuf]) -> usize {
        match &mut self.0 {
            Tx::Eth(queue) => queue.prepare(pkts),
            Tx::Vhost(_) => pkts.len(),
        }
    }

    /// The port's id.
    pub fn port_id(&self) -> u16 {
        match &self.0 {
            Tx::Eth(queue) => queue.port_id(),
            Tx::Vhost(_) => NO_PORT_ID,
        }
    }

    /// The queue's number within its port, from 0.
    pub fn queue_id(&self) -> u16 {
        match &self.0 {
            Tx::Eth(queue) => queue.queue_id(),
            Tx::Vhost(queue) => queue.queue_id(),
        }
    }

    /// The port's name.
    pub fn port_name(&self) -> &str {
        match &self.0 {
            Tx::Eth(queue) => queue.port_name(),
            Tx::Vhost(queue) => queue.port_name(),
        }
    }
}
