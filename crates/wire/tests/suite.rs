//! All integration tests in one binary: each binary of its own would compile and link the same again.
#![forbid(unsafe_code)]

mod ecn;
mod flow;
mod fragment;
mod frame;
mod fuzz_smoke;
mod golden;
mod headers;
mod membership;
mod offload;
mod outer;
mod properties;
mod resolution;
mod tshark;
