//! The NVA: directory state machine, gRPC service, persistent store.
//!
//! [`directory`] decides, [`store`] remembers, [`service`] speaks. Only the last two do I/O.
#![forbid(unsafe_code)]

pub mod directory;
pub mod service;
pub mod store;

pub use directory::{Answer, Config, Directory, Input, Output, SessionId, State, Write};
