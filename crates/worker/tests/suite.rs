//! All integration tests in one binary: each binary of its own would compile and link the same again.
#![forbid(unsafe_code)]

mod flush;
mod polling;
mod queue_handover;
mod updates;
mod worker;
