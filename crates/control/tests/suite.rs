//! All integration tests in one binary: each binary of its own would compile and link the same again.
#![forbid(unsafe_code)]

mod addresses;
mod alive;
mod announcements;
mod attachment;
mod conflict;
mod directory;
mod fabric;
mod forgotten_addresses;
mod gateway;
mod headless;
mod hot_move;
mod lab;
mod limits;
mod loops;
mod modes;
mod multicast;
mod next_hops;
mod order;
mod policy;
mod pull;
mod rarp;
mod routes;
mod routing;
mod routing_pull;
mod scan;
mod second_word;
mod sources;
mod stale;
mod stale_abort;
mod static_configuration;
mod tshark;
mod underlay;
mod uplink_guard;
mod views;
mod vm_state;
