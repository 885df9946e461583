//! The NVE-NVA and operator protocols: protobuf, generated code, conversions, connections, TLS.
//!
//! The only crate that names tonic and prost in its interface; the others use what it re-exports.
//! [`v1`] is the wire form. [`convert`] turns it into the words of `godwit-model` and back and is the
//! single gate: what passed it has addresses of the right length, names that can be printed, known
//! enumerators and no missing part.
#![forbid(unsafe_code)]

mod auth;
pub mod client;
pub mod convert;
pub mod pages;
pub mod tls;

/// Generated from `proto/godwit/v1`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("godwit.v1");
}

pub use auth::{OperatorAuth, OperatorChannel};
pub use client::{ConnectError, connect, connect_as, connect_lazily, connect_unix};
pub use convert::{ConvertError, Problem, SessionDown, SessionUp};
pub use prost;
pub use tonic;

/// Version of the NVE-NVA protocol that `Hello` and `Welcome` carry.
pub const PROTOCOL: u32 = 2;

/// Largest message either side accepts, in bytes (R70).
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Largest message that an NVA takes from an NVE, in bytes (R70). Answers of switches to operators may be larger than
/// this only in pages.
pub const MAX_SAID_BYTES: usize = 64 << 10;

/// What may be under way on one stream of a connection before the receiver takes it, in bytes.
pub const STREAM_WINDOW: u32 = 1 << 20;

/// The same of a connection. HTTP/2 allows a peer small frames that nobody has taken yet by half of this, of which each
/// counts for 256 bytes: a receiver that stands still for five seconds finds 10,000 messages and takes them.
pub const CONNECTION_WINDOW: u32 = 8 << 20;
