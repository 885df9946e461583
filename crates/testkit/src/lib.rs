//! Frame builders, captures and a seeded virtual fabric for tests.

pub mod frames;
pub mod fuzzing;
pub mod pcap;
