//! What the directory must not lose, kept where a crash does not reach it.

mod codec;
mod error;
mod export;
mod memory;
mod redb;
mod space;

use std::pin::Pin;

use tokio::sync::watch;

pub use self::redb::{FILE, RedbStore};
use crate::directory::{State, Write};
pub use error::StoreError;
pub use export::{ExportError, export};
pub use memory::MemoryStore;
pub use space::Space;

/// The result of a call to a store, awaited. It borrows nothing, so that the caller goes on meanwhile.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// The beginning of an incarnation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The state as the last incarnation left it.
    pub state: State,
    /// This incarnation's epoch, above all earlier ones, and durable already (R73).
    pub epoch: u32,
}

/// Where the service keeps the directory's state.
///
/// Calls are made one at a time: the next one when the one before has ended. Neither a call nor its awaiting may block
/// the thread.
pub trait Store: Send {
    /// Begins a new incarnation.
    ///
    /// # Errors
    /// Where the store cannot be read, or the new epoch cannot be written.
    fn load(&mut self) -> Pending<Loaded>;

    /// Makes all of `writes` durable in their order, or none of them. There may be thousands.
    ///
    /// A store whose transactions are smaller keeps a journal: the writes in as many parts as it takes, then a mark
    /// that they are complete. Applying a complete journal again after a crash changes nothing more
    /// ([`State::apply`]).
    ///
    /// Where there is no space, it waits until there is.
    ///
    /// # Errors
    /// Where the store refuses. The directory is ahead of the store then and must not go on.
    fn commit(&mut self, writes: Vec<Write>) -> Pending<()>;

    /// How much space there is for further writes. One whose sender is gone does not change.
    fn space(&self) -> watch::Receiver<Space> {
        watch::channel(Space::Plenty).1
    }
}

#[cfg(test)]
mod tests;
