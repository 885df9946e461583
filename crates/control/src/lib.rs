//! The NVE's control plane: mobility state machine, directory mirror, underlay neighbors, desired
//! state of the workers.
//!
//! [`Nve`] is the whole of it, without I/O: inputs and the time go in, wanted effects come out. The
//! switch process runs it behind the NVA client (`godwit-nva-client`); tests and the simulator run
//! the same struct.
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

mod announcer;
mod barrier;
mod bindings;
mod binds;
pub mod config;
mod counts;
mod desired;
mod flushes;
mod gateway;
pub mod io;
mod lifetimes;
mod manager;
mod mirror;
mod mobility;
mod multicast;
mod negative_cache;
mod nve;
mod queries;
mod records;
mod refusals;
mod seal;
mod unconfirmed;
mod underlay;
pub mod view;

pub use config::{Liveness, NveConfig, OuterChoice, WorkerSet};
pub use counts::Counts;
pub use io::{
    Input, Level, Note, Outputs, PortSpec, Route, RouteHop, RouteOrigin, UplinkSpec, UplinkV4, UplinkV6,
};
pub use manager::{ManagerRefusal, NoTransition};
pub use nve::Nve;
