//! Queues of DPDK's own devices.

use crate::device::Device;
use crate::lease::Lease;
use crate::mbuf::{self, Mbuf};

/// One receive queue of a started device.
#[derive(Debug)]
pub(crate) struct EthRx {
    port: u16,
    queue: u16,
    copies: bool,
    lease: Lease<Device>,
}

/// One transmit queue of a started device.
#[derive(Debug)]
pub(crate) struct EthTx {
    port: u16,
    queue: u16,
    /// See [`EthTx::keep_alive`].
    lively: bool,
    lease: Lease<Device>,
}

impl EthRx {
    /// # Safety
    /// The port runs as long as `lease` is held, has that queue, and no other handle of it exists.
    pub(crate) unsafe fn new(port: u16, queue: u16, copies: bool, lease: Lease<Device>) -> Self {
        Self { port, queue, copies, lease }
    }

    /// Appends up to `max` received frames to `out` and returns how many came.
    ///
    /// `out` is never grown: frames beyond its spare capacity stay in the queue. Some vector drivers
    /// receive nothing at all where fewer than 4 are asked for, so leave room for a burst of 32.
    #[inline]
    pub(crate) fn rx(&mut self, out: &mut Vec<Mbuf>, max: usize) -> usize {
        let len = out.len();
        let room = max.min(out.capacity() - len).min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port runs and `&mut self` is the queue's only handle. The spare capacity has room
        // for `room` pointers, to which Mbuf is transparent; the driver writes `got` of them, each to a
        // buffer that it gives up.
        unsafe {
            let spare = out.as_mut_ptr().add(len).cast();
            let got = usize::from(dpdk_sys::godwit_rx_burst(self.port, self.queue, spare, room));
            out.set_len(len + got);
            got
        }
    }

    /// [`Self::rx`] copies frames, as [`crate::DevInfo::copies`] says.
    #[inline]
    pub(crate) fn copies(&self) -> bool {
        self.copies
    }

    /// The port's id, which received buffers carry ([`Mbuf::port_id`]).
    pub(crate) fn port_id(&self) -> u16 {
        self.port
    }

    /// The queue's number within its port, from 0.
    pub(crate) fn queue_id(&self) -> u16 {
        self.queue
    }

    /// The port's name.
    pub(crate) fn port_name(&self) -> &str {
        self.lease.name()
    }
}

impl EthTx {
    /// # Safety
    /// The port runs as long as `lease` is held, has that queue, and no other handle of it exists.
    pub(crate) unsafe fn new(port: u16, queue: u16, lively: bool, lease: Lease<Device>) -> Self {
        Self { port, queue, lively, lease }
    }

    /// Sends frames from the front of `pkts` until the queue is full, removes those and returns how many
    /// they were. The unsent stay, in order, for the caller to keep, retry or drop.
    #[inline]
    pub(crate) fn tx(&mut self, pkts: &mut Vec<Mbuf>) -> usize {
        let n = pkts.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port runs and `&mut self` is the queue's only handle. The first `n` elements are
        // pointers to live, owned buffers; the driver takes over the first `sent` of them, which are then
        // removed without being freed.
        unsafe {
            let sent = dpdk_sys::godwit_tx_burst(self.port, self.queue, pkts.as_mut_ptr().cast(), n);
            let sent = usize::from(sent);
            mbuf::forget_front(pkts, sent);
            sent
        }
    }

    /// Has the driver do what it does besides when frames are sent: a bond's sends its LACP frames then. `true` where
    /// it wants that, every 100 ms at least; for other drivers nothing happens.
    #[inline]
    pub(crate) fn keep_alive(&mut self) -> bool {
        if self.lively {
            // SAFETY: the port runs and `&mut self` is the queue's only handle; of no frames the driver reads none.
            unsafe { dpdk_sys::godwit_tx_burst(self.port, self.queue, std::ptr::null_mut(), 0) };
        }
        self.lively
    }

    /// Checks and adapts frames that carry offload flags, as some drivers need before [`Self::tx`].
    /// Returns how many from the front may be sent; the next one may not.
    ///
    /// What drivers adapt is the checksum's field, which they want to hold the pseudo-header's sum. The
    /// switch puts it there when it leaves a checksum to a device (R5), and saves itself this second look at
    /// each frame; so this is for frames of other origin.
    #[inline]
    pub(crate) fn prepare(&mut self, pkts: &mut [Mbuf]) -> usize {
        let n = pkts.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port runs and `&mut self` is the queue's only handle; the slice's elements are
        // pointers to live, owned buffers, whose headers the driver may change.
        let ready =
            unsafe { dpdk_sys::godwit_tx_prepare(self.port, self.queue, pkts.as_mut_ptr().cast(), n) };
        usize::from(ready)
    }

    /// The port's id.
    pub(crate) fn port_id(&self) -> u16 {
        self.port
    }

    /// The queue's number within its port, from 0.
    pub(crate) fn queue_id(&self) -> u16 {
        self.queue
    }

    /// The port's name.
    pub(crate) fn port_name(&self) -> &str {
        self.lease.name()
    }
}
