//! State that one worker owns, and the vocabulary by which control changes it.
//!
//! Nothing here is shared but a count of memory for holds: a worker owns its [`Tables`] outright, control reaches them
//! only by [`update::Update`], and they answer with [`event::Event`]. All memory is reserved when the
//! tables are made; nothing below allocates, locks, blocks, reads a clock or logs (R14).
//!
//! | File | Holds |
//! |---|---|
//! | `locations` | the forwarding table's memory: integer to integer, one cache line a lookup |
//! | `pages` | memory in huge pages |
//! | `vms` | what is known of each VM, in a word or in a special entry; which entry holds most |
//! | `decide` | what becomes of a frame for a single VM |
//! | `dispatch` | where a frame for a VM with a special entry goes |
//! | `queries` | special entries made and ended, questions to the directory |
//! | `arrivals` | frames of VMs whose port is not activated yet |
//! | `holds` | frames that wait, in memory of their own |
//! | `held` | which frames wait, and which go when |
//! | `ports` | ports: role, policy, sources, rates |
//! | `vns` | virtual networks, and where their broadcast is copied to |
//! | `tunnels` | ways to other NVEs, by flow where there are several |
//! | `groups` | multicast groups, and who wants what is sent to them |
//! | `sources` | what a port's VM may send from: addresses, prefixes, MACs |
//! | `sets` | sets of integers in memory of fixed size |
//! | `neighbors` | IP addresses, and the requests that wait to be told of one |
//! | `asks` | what bounds these requests |
//! | `awaited` | packets that wait for a host route |
//! | `routes` | routes of routing domains, and what VNs have of them |
//! | `reports` | rate limits of events |
//! | `apply` | what each update does |
//! | `service` | what time does: ages, ends, progress reports |
//! | `counters` | what is counted, and the balance that it must keep |
#![deny(unsafe_code)]
// Truncation is left out: what goes over the packet path is bounded by a frame or a table, and `as` costs nothing.
#![cfg_attr(not(test), warn(clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::cast_lossless))]

mod apply;
mod arrivals;
mod asks;
pub mod awaited;
mod config;
pub mod counters;
mod decide;
mod dispatch;
pub mod event;
pub mod event_limiter;
pub mod groups;
mod held;
pub mod holds;
pub mod locations;
pub mod neighbors;
mod pages;
pub mod policies;
pub mod ports;
pub mod prefetch;
mod queries;
mod reports;
pub mod routes;
mod senders;
mod service;
mod sets;
pub mod sources;
pub mod tunnels;
pub mod update;
pub mod vms;
pub mod vns;

pub use config::{OutOfRange, TablesConfig};
pub use counters::{Counters, DropReason, PortCounters, WorkerCounters};
pub use decide::{Action, Decision, Egress, Inbound};
pub use dispatch::Dispatch;
pub use service::Serviced;

use arrivals::Arrivals;
use awaited::Awaited;
use event_limiter::Limiter;
use godwit_wire::{Bucket, HashKey, Span};
use groups::Groups;
use holds::Holds;
use neighbors::{Asks, Neighbors};
use ports::Ports;
use routes::Routes;
use tunnels::Tunnels;
use vms::Vms;
use vns::Vns;

/// All state of one worker.
pub struct Tables {
    /// Locations.
    pub vms: Vms,
    /// Ports.
    pub ports: Ports,
    /// Virtual networks.
    pub vns: Vns,
    /// Tunnels.
    pub tunnels: Tunnels,
    /// IP addresses.
    pub neighbors: Neighbors,
    /// Routes.
    pub routes: Routes,
    /// Multicast groups.
    pub groups: Groups,
    /// Counters.
    pub counters: Counters,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Outer UDP checksums are computed, not zero (R5).
    pub udp_checksum: bool,
    /// The outer header gets the inner packet's DSCP, not 0 (R6).
    pub copy_dscp: bool,
    /// Key of the flow hash (R2).
    pub hash_key: HashKey,
    holds: Holds,
    arrivals: Arrivals,
    asks: Asks,
    awaited: Awaited,
    /// Routes that found no room, and have had none since.
    routes_refused: u32,
    redirects: Limiter,
    news: Limiter,
    peers: Bucket,
    queries: Bucket,
    bounds: Bounds,
}

/// What of the configuration is needed after start.
struct Bounds {
    miss_capacity: usize,
    misses_per_port: u16,
    asks_per_port: u16,
    miss_hold_age: Span,
    redirect_interval: Span,
}

impl Tables {
    /// Reserves everything.
    ///
    /// # Panics
    /// Where memory is not to be had or a capacity is absurd.
    pub fn new(config: &TablesConfig) -> Tables {
        assert!(config.vn_capacity <= usize::from(u16::MAX), "VN numbers are 16 bits");
        Tables {
            vms: Vms::new(config),
            ports: Ports::new(config),
            vns: Vns::new(config),
            tunnels: Tunnels::new(config),
            neighbors: Neighbors::new(config),
            routes: Routes::new(config),
            groups: Groups::new(config),
            counters: Counters::with_ports(config.port_capacity),
            vxlan_port: config.vxlan_port,
            udp_checksum: config.udp_checksum,
            copy_dscp: config.copy_dscp,
            hash_key: config.hash_key,
            holds: Holds::new(config.hold_bytes, config.hold_shared.clone()),
            arrivals: Arrivals::new(),
            asks: Asks::new(config),
            awaited: Awaited::new(config),
            routes_refused: 0,
            redirects: Limiter::new(),
            news: Limiter::new(),
            peers: Bucket::default(),
            queries: Bucket::default(),
            bounds: Bounds {
                miss_capacity: config.miss_capacity,
                misses_per_port: config.misses_per_port,
                asks_per_port: config.asks_per_port,
                miss_hold_age: config.miss_hold_age,
                redirect_interval: config.redirect_interval,
            },
        }
    }

    /// Makes the location table resident, so that no update waits for the kernel to back it with
    /// memory. To be called by the worker's own thread.
    pub fn bring_in(&mut self) {
        self.vms.bring_in();
    }

    /// Frames that are here and neither gone on nor dropped: held ones and waiting requests.
    pub fn waiting(&self) -> u64 {
        u64::from(self.holds.frames()) + self.asks.len() as u64
    }

    /// The hold memory.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// The requests that wait for the directory.
    pub fn asks(&self) -> &Asks {
        &self.asks
    }
}
