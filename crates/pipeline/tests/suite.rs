//! All integration tests in one binary, as each of its own would compile and link the same again; but `allocation`,
//! whose allocator is the whole process's.

mod acceptance;
mod access;
mod ageing;
mod common;
mod guard;
mod handover;
mod isolation;
mod learned;
mod mark;
mod next_hops;
mod offload;
mod overlay;
mod policy;
mod properties;
mod proxy;
mod several_nves;
mod sources;
mod storm;
mod too_big;
mod tshark;
mod underlay;
mod virtuals;
mod vlan;
