//! The poll-mode loop of a pinned core, its mailbox, outboxes and counters.
//!
//! A worker owns its tables outright. Control reaches it by one bounded lock-free queue of
//! [`command::Command`]s ([`orders::Orders`]) and hears of it by three: [`command::Reply`]s, never lost, events, and
//! VMs' frames that control answers ([`punts::Punts`]). Of these two the newest is dropped and counted when their
//! queue is full.

#![forbid(unsafe_code)]

pub mod command;
#[cfg(feature = "dpdk")]
pub mod dpdk;
mod exits;
pub mod flush;
pub mod io;
pub mod mem;
pub mod offloads;
pub mod orders;
pub mod outbox;
pub mod perf;
pub mod polling;
pub mod punts;
pub mod queue_handover;
pub mod stages;
pub mod worker;
