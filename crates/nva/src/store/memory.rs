//! A store in memory.

use std::future::ready;

use super::{Loaded, Pending, Store};
use crate::directory::{State, Write};

/// A store in memory, for tests. It commits at once.
#[derive(Default)]
pub struct MemoryStore {
    /// What was committed.
    pub state: State,
}

impl Store for MemoryStore {
    fn load(&mut self) -> Pending<Loaded> {
        let state = self.state.clone();
        self.state.epoch += 1;
        Box::pin(ready(Ok(Loaded { state, epoch: self.state.epoch })))
    }

    fn commit(&mut self, writes: Vec<Write>) -> Pending<()> {
        writes.iter().for_each(|w| self.state.apply(w));
        Box::pin(ready(Ok(())))
    }
}
