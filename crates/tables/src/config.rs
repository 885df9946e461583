//! Bounds of a worker's tables, fixed at start.

use godwit_wire::{HashKey, Rate, Span, vxlan};

use crate::holds::SharedChunks;
use crate::update::{MAX_DOMAINS, MAX_PORTS};

/// How large each table is. Everything is reserved when [`crate::Tables::new`] runs; nothing grows.
#[derive(Clone, Debug)]
pub struct TablesConfig {
    /// Ports; at most, and usually, [`MAX_PORTS`].
    pub port_capacity: usize,
    /// VM locations (MACs), local and remote together (R13).
    pub location_capacity: usize,
    /// Virtual networks at a time; at most 65,535.
    pub vn_capacity: usize,
    /// Tunnels: remote locators in use.
    pub tunnel_capacity: usize,
    /// IP addresses that ARP and ND requests are answered for, negative answers included.
    pub neighbor_capacity: usize,
    /// Routes of all routing domains together, host routes included (R58).
    pub route_capacity: usize,
    /// Routing domains at a time.
    pub domain_capacity: usize,
    /// Subnets of all VNs together.
    pub subnet_capacity: usize,
    /// Multicast groups of all VNs together that have members (R61).
    pub group_capacity: usize,
    /// Their members: ports here and other NVEs.
    pub member_capacity: usize,
    /// VMs that are in no plain state: being asked for, expected, paused, departed, absent.
    pub special_capacity: usize,
    /// Of these, at most so many being asked for, so that a scan leaves room for handovers.
    pub miss_capacity: usize,
    /// And at most so many for one port.
    pub misses_per_port: u16,
    /// Questions to the directory that one port's frames may raise (R67).
    pub question_rate: Rate,
    /// ARP, RARP and ND frames of one port that are looked at (R67).
    pub resolution_rate: Rate,
    /// ARP and ND requests that wait for the directory.
    pub ask_capacity: usize,
    /// Of these, at most so many from one port.
    pub asks_per_port: u16,
    /// Memory for held frames, in bytes, bookkeeping included (R45). Taken when it is needed.
    pub hold_bytes: usize,
    /// Memory for held frames that the workers have in common, taken when a worker's own is used up.
    pub hold_shared: SharedChunks,
    /// Frames held for one unknown destination; the oldest goes first (R35). More for a VM that has just moved here.
    pub miss_hold_packets: u32,
    /// How long a frame or a request waits for the directory (R31, R35).
    pub miss_hold_age: Span,
    /// Other NVEs that VXLAN is accepted from, each in each of its VNs, of either family (R69).
    pub sender_capacity: usize,
    /// Tunnels to which a VN's broadcast is copied at most (R60).
    pub replica_limit: usize,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Outer UDP checksums are computed, not zero (R5).
    pub udp_checksum: bool,
    /// The outer header gets the inner packet's DSCP, not 0 (R6).
    pub copy_dscp: bool,
    /// Key of the flow hash (R2).
    pub hash_key: HashKey,
    /// Seed of the location table.
    pub table_seed: [u64; 2],
    /// A VM's handover progress is reported at most this often.
    pub report_interval: Span,
    /// How long a VM that has just moved in keeps its special entry, so that what its port does not take at once can
    /// wait (R45).
    pub settle: Span,
    /// A stale sender, or a sender for a VM not here, is reported at most this often a VM (R47).
    pub redirect_interval: Span,
}

impl Default for TablesConfig {
    fn default() -> Self {
        TablesConfig {
            port_capacity: MAX_PORTS,
            location_capacity: 1 << 20,
            vn_capacity: 4096,
            tunnel_capacity: 8192,
            neighbor_capacity: 1 << 16,
            route_capacity: 1 << 16,
            domain_capacity: MAX_DOMAINS,
            subnet_capacity: 8192,
            group_capacity: 1 << 13,
            member_capacity: 1 << 15,
            special_capacity: 8192,
            miss_capacity: 4096,
            misses_per_port: 256,
            question_rate: Rate::per_second(50, 50),
            resolution_rate: Rate::per_second(100, 200),
            ask_capacity: 256,
            asks_per_port: 64,
            hold_bytes: 64 << 20,
            hold_shared: SharedChunks::default(),
            miss_hold_packets: 16,
            miss_hold_age: Span::from_ms(500),
            sender_capacity: 1 << 17,
            replica_limit: 128,
            vxlan_port: vxlan::UDP_PORT,
            udp_checksum: false,
            copy_dscp: false,
            hash_key: HashKey::new(0, 0),
            table_seed: [0; 2],
            report_interval: Span::from_ms(5),
            settle: Span(0),
            redirect_interval: Span::from_ms(100),
        }
    }
}

/// An index is beyond what the tables were built for, or a list is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfRange;
