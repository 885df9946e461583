//! The NVA: directory state machine, gRPC service, persistent store.
//!
//! [`directory`] decides, [`store`] remembers, [`service`] speaks. Only the last two do I/O.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_lossless
    )
)]

pub mod directory;
pub mod service;
pub mod store;

pub use directory::{
    Answered, Config, Directory, Input, Order, Output, Peer, Refusal, Reply, Request, SessionId, State, Write,
};
