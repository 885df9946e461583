//! Frame builders, captures and a seeded virtual fabric for tests.

#![forbid(unsafe_code)]

pub mod clients;
#[cfg(feature = "fabric")]
pub mod fabric;
pub mod frames;
pub mod fuzzing;
pub mod pcap;
mod rng;
pub mod tshark;

pub use rng::Rng;
