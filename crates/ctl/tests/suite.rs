//! All integration tests in one binary: each binary of its own would compile and link the same again.
#![forbid(unsafe_code)]

mod commands;
mod errors;
mod fixture;
mod pki;
mod watch_qmp;
