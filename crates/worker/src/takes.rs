//! What a port's receiver takes unfinished (R11): one byte that control writes and workers read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use godwit_pipeline::packet::Takes;

/// The byte. Nothing else hangs on it, so neither side waits for the other; a worker that reads an old
/// value sends a frame as the receiver of a moment ago would have had it.
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
