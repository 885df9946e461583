//! Receiver offload capabilities of a port, and queues that its guest uses: bytes that control writes and workers read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use godwit_pipeline::packet::ReceiveOffloads;

/// Receiver offload capabilities of a port (R11). Nothing else hangs on them, so neither side waits for the other; a
/// worker that reads an old value sends a frame as the receiver of a moment ago would have had it.
#[derive(Clone, Debug, Default)]
pub struct SharedReceiveOffloads(Arc<AtomicU8>);

impl SharedReceiveOffloads {
    /// The capabilities.
    pub fn get(&self) -> ReceiveOffloads {
        ReceiveOffloads::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// The capabilities from now on.
    pub fn set(&self, offloads: ReceiveOffloads) {
        self.0.store(offloads.bits(), Ordering::Relaxed);
    }
}

/// A guest receives by this queue. As above: who reads an old value finds the queue of no use for a moment, or
/// uses the relay a moment longer.
#[derive(Clone, Debug, Default)]
pub struct SharedUse(Arc<AtomicBool>);

impl SharedUse {
    /// It does.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// It does, or not, from now on.
    pub fn set(&self, used: bool) {
        self.0.store(used, Ordering::Relaxed);
    }
}
