//! All integration tests in one binary: each binary of its own would compile and link the same again.

mod client;
mod refusals;
mod roundtrip;
