//! All tests of whole processes in one binary: each binary of its own would compile and link the same again.
#![forbid(unsafe_code)]

mod addresses;
mod bare_metal;
mod bench_rows;
mod clones;
mod common;
mod drain;
mod evil;
mod fabric;
mod frozen_sender;
mod guest;
mod guest_tso;
mod guests;
mod hot_move;
mod interop;
mod interrupted;
mod libvirt;
mod multicast;
mod nva_kill;
mod offloads;
mod placement;
mod returns;
mod routed;
mod router_role;
mod scan_storm;
mod sockets;
mod split_brain;
mod stalls;
mod underlay;
