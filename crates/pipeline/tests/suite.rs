//! All integration tests in one binary, as each of its own would compile and link the same again; but `allocation`,
//! whose allocator is the whole process's.
#![forbid(unsafe_code)]

mod acceptance;
mod access;
mod admission;
mod ageing;
mod announcements;
mod broadcast;
mod common;
mod decision;
mod drain;
mod gateway;
mod guard;
mod handover;
mod in_flight;
mod isolation;
mod learned;
mod mark;
mod misses;
mod multicast;
mod next_hops;
mod offload;
mod overlay;
mod policy;
mod properties;
mod proxy;
mod requests;
mod resets;
mod route_waits;
mod routed;
mod routed_sizes;
mod routes;
mod senders;
mod several_nves;
mod sources;
mod storm;
mod tenant_mtu;
mod too_big;
mod tshark;
mod underlay;
mod virtuals;
mod vlan;
