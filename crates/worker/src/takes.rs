//! What control knows of a port's receiver and workers have to: bytes that it writes and they read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use godwit_pipeline::packet::Takes;

/// What it takes unfinished (R11). Nothing else hangs on it, so neither side waits for the other; a worker that reads
/// an old value sends a frame as the receiver of a moment ago would have had it.
#[derive(Clone, Debug, Default)]
pub struct SharedTakes(Arc<AtomicU8>);

impl SharedTakes {
    /// What is taken.
    pub fn get(&self) -> Takes {
        Takes::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// What is taken from now on.
    pub fn set(&self, takes: Takes) {
        self.0.store(takes.bits(), Ordering::Relaxed);
    }
}

/// A guest receives by this queue. As above: who reads an old value finds the queue of no use for a moment, or
/// takes the longer way a moment longer.
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
