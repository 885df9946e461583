//! The NVA: directory state machine, gRPC service, persistent store.
#![forbid(unsafe_code)]

pub mod directory;

pub use directory::{Answer, Config, Directory, Input, Output, SessionId, State, Write};
