//! Counters that name and explain themselves.
//!
//! A set of counters is a struct of plain `u64` fields, made by [`counters!`]; counting is `set.answered += 1`. Beside
//! each field stands its [`Descriptor`]: name, unit, kind and help. Whatever shows counters takes [`Entry`]s, whoever
//! counted. So a new counter is one line in its set, and the place that counts it.
//!
//! ```
//! godwit_counters::counters! {
//!     /// Counters of a library.
//!     Library;
//!
//!     /// Books lent.
//!     lent: One,
//!     /// Pages of books that were lost.
//!     pages_lost = "lost": One as Drop,
//! }
//!
//! let mut library = Library::default();
//! library.lent += 1;
//! let lent = library.entries().next().unwrap();
//! assert_eq!((lent.descriptor.name, lent.value), ("lent", 1));
//! assert_eq!(lent.descriptor.help, "Books lent.");
//! ```
//!
//! [`drop_reasons!`] makes an enum of reasons, each with a counter of its own; `by` in a set has an array of these.
#![forbid(unsafe_code)]

mod descriptor;
mod macros;

pub use descriptor::{Descriptor, Entry, Kind, Unit};

#[cfg(test)]
mod tests;
