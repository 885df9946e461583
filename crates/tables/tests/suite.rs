//! All integration tests in one binary, as each of its own would compile and link the same again.

mod apply;
mod arrivals;
mod awaited;
mod common;
mod decide;
mod fairness;
mod neighbors;
mod policies;
mod ports;
mod routes;
mod vms;
mod vns;
