//! The keys of the configuration file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use godwit_model::{DevargsRule, MoveMode};
use godwit_wire::{Mac, VlanId, Vni};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer};

use super::bond::{self, BondConfig};
use super::domain::{DomainConfig, SubnetConfig};
use super::text::{from_text, optional_net};
use super::underlay::{RouteConfig, UnderlayConfig};
use crate::placement::Pin;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The NVE itself.
    pub nve: Nve,
    /// Underlay ports.
    #[serde(rename = "uplink")]
    pub uplinks: Vec<UplinkConfig>,
    /// Locators of a loopback, and how next hops are found.
    pub underlay: UnderlayConfig,
    /// Routes on the underlay.
    #[serde(rename = "route")]
    pub routes: Vec<RouteConfig>,
    /// Ports of VMs that are there from the start.
    #[serde(rename = "port")]
    pub ports: Vec<PortConfig>,
    /// Settings of VNs.
    #[serde(rename = "vn")]
    pub vns: Vec<VnConfig>,
    /// Routing domains that are known without a directory.
    #[serde(rename = "domain")]
    pub domains: Vec<DomainConfig>,
    /// VMs at other NVEs that are known without a directory.
    #[serde(rename = "vm")]
    pub vms: Vec<VmConfig>,
    /// Underlay neighbors that are known without being asked.
    #[serde(rename = "neighbor")]
    pub neighbors: Vec<NeighborConfig>,
}

/// What may be ordered by way of the NVA where the file does not say: sockets of guests, and taps.
pub const DEVARGS_RELAYED: [&str; 3] = [
    "net_vhost: iface=/run/godwit/, queues, client=0, tso, packed, postcopy-support, linear-buffer, ext-buffer",
    "vhost: vhost=/run/godwit/, mode, queues, tso",
    "net_tap: iface=tap*, mac",
];

/// Table `[nve]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nve {
    /// The NVE's name, unique in the data center; the host's name by default.
    pub id: String,
    /// Cores of the workers, mask or list.
    pub workers: String,
    /// Receive queues that a certain core polls, `PORT:QUEUE@CORE` each.
    #[serde(deserialize_with = "pins")]
    pub rxq_affinity: Vec<Pin>,
    /// The worker's core that polls the ports of VMs in post-copy migration, and no others.
    pub postcopy_core: Option<usize>,
    /// Core of the control threads; any core that has no worker by default.
    pub control_core: Option<usize>,
    /// The NVA; without one only `[[vm]]` entries are known.
    pub nva: Option<String>,
    /// Orders that change something are taken by way of the NVA, too; by default by the admin socket only.
    pub relayed_changes: bool,
    /// Drivers that ports may be ordered of, with their keys and the directories of their paths. By default any by the
    /// admin socket, and [`DEVARGS_RELAYED`] by way of the NVA.
    #[serde(deserialize_with = "rules")]
    pub devargs_allow: Option<Vec<DevargsRule>>,
    /// Path of the admin socket; `/run/godwit/ID.sock` by default.
    pub admin_socket: Option<PathBuf>,
    /// A worker that found nothing to do sleeps so long, in microseconds; 0: never (dedicated cores).
    pub idle_sleep_us: u64,
    /// `auto`, `always` or `never`.
    pub hugepages: Hugepages,
    /// Memory for packet buffers and DPDK's own, in MiB.
    pub memory_mb: usize,
    /// Further EAL arguments, split at blanks.
    pub eal: String,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Outer UDP checksums are computed by this switch (R5); VXLAN does without by default.
    pub udp_checksum: bool,
    /// The outer header gets the inner packet's DSCP, not 0 (R6).
    pub copy_dscp: bool,
    /// Key of the hash that spreads inner flows over outer source ports; the same at every NVE.
    pub flow_hash_key: u64,
    /// Outer family towards NVEs that have both: `auto` (that of the VM's addresses, IPv6 where it has
    /// both), `v4` or `v6`.
    pub outer: OuterChoice,
    /// How long the old NVE forwards packets in flight after a VM left, in seconds (fwd_timer).
    pub fwd_timer_s: u64,
    /// VXLAN is accepted from NVEs only that take part in its VN (R69).
    pub check_senders: bool,
    /// Forward packets in flight; off only to show what is lost without it.
    pub forward_in_flight: bool,
    /// Frames for a VM that has moved wait so long for those that went by the old path, in milliseconds (R77); 0: no
    /// path is ended with a marker.
    pub marker_wait_ms: u64,
    /// A stale sender of one VM is told where that is at most so often, in milliseconds (R47).
    pub redirect_ms: u64,
    /// Addresses that VMs bound by their own word are asked for so often, in seconds (R93).
    pub address_check_s: u64,
    /// Without an NVA locations at other NVEs are kept so long, in seconds (R72).
    pub headless_s: u64,
    /// VMs asked a second whether they are still here when another of their VN has left (R32); 0: none.
    pub scan_rate: u32,
    /// Questions after which such a VM counts as silent.
    pub scan_tries: u32,
    /// VMs that the NVA sends here at most when it drains other switches (R85).
    pub vm_capacity: u32,
    /// ARP, RARP and ND frames that a VM's port may send, a second and at once (R67); a rate of 0: no bound.
    pub resolution_rate: u32,
    /// See `resolution_rate`.
    pub resolution_burst: u32,
    /// Questions to the directory that one port's frames may raise, a second and at once (R67); 0: no bound.
    pub question_rate: u32,
    /// See `question_rate`.
    pub question_burst: u32,
    /// Questions that the whole switch may put to the directory for its VMs, a second (R67); 0: no bound.
    pub query_rate: u32,
    /// Claims that are sent for one VM, a second (R67); 0: no bound.
    pub claim_rate: u32,
    /// Moves that this switch takes part in (R56).
    pub move_modes: Vec<MoveModeKind>,
    /// Packets that wait for one unknown destination, a worker (R35).
    pub miss_hold_packets: u32,
    /// Handover and early-arrival buffers: packets a VM and worker; as many as memory allows where it is unset.
    pub handover_hold_packets: Option<u32>,
    /// Oldest age of a held packet, in milliseconds.
    pub handover_hold_ms: u64,
    /// Memory of all holds together, in MiB: half of it divided among the workers, half taken by need.
    pub hold_memory_mb: usize,
    /// Locations that a worker's table has room for.
    pub locations: usize,
    /// IP addresses that a worker's table of neighbors has room for.
    pub addresses: usize,
    /// Routes of routing domains that a worker's table has room for (R58).
    pub routes: usize,
}

impl Default for Nve {
    fn default() -> Nve {
        Nve {
            id: hostname(),
            workers: String::new(),
            rxq_affinity: Vec::new(),
            postcopy_core: None,
            control_core: None,
            nva: None,
            relayed_changes: false,
            devargs_allow: None,
            admin_socket: None,
            idle_sleep_us: 0,
            hugepages: Hugepages::Auto,
            memory_mb: 256,
            eal: String::new(),
            vxlan_port: 4789,
            udp_checksum: false,
            copy_dscp: false,
            flow_hash_key: 0,
            outer: OuterChoice::Auto,
            fwd_timer_s: 60,
            check_senders: true,
            forward_in_flight: true,
            marker_wait_ms: 20,
            redirect_ms: 100,
            address_check_s: 300,
            headless_s: 300,
            scan_rate: 100,
            scan_tries: 3,
            vm_capacity: 1000,
            resolution_rate: 100,
            resolution_burst: 200,
            question_rate: 50,
            question_burst: 50,
            query_rate: 2000,
            claim_rate: 5,
            move_modes: vec![MoveModeKind::Hot, MoveModeKind::Warm, MoveModeKind::Cold],
            miss_hold_packets: 16,
            handover_hold_packets: None,
            handover_hold_ms: 2500,
            hold_memory_mb: 320,
            locations: 1 << 20,
            addresses: 1 << 16,
            routes: 1 << 16,
        }
    }
}

impl Nve {
    /// Path of the admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin_socket.clone().unwrap_or_else(|| PathBuf::from(format!("/run/godwit/{}.sock", self.id)))
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Whether to use hugepages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hugepages {
    /// Where there are enough; else ordinary pages, with a warning.
    Auto,
    /// Refuse to start without.
    Always,
    /// Ordinary pages.
    Never,
}

/// A kind of move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveModeKind {
    /// In running state.
    Hot,
    /// Shut down, then started where its state was mirrored.
    Warm,
    /// Shut down, sent, then started.
    Cold,
}

impl From<MoveModeKind> for MoveMode {
    fn from(kind: MoveModeKind) -> MoveMode {
        match kind {
            MoveModeKind::Hot => MoveMode::Hot,
            MoveModeKind::Warm => MoveMode::Warm,
            MoveModeKind::Cold => MoveMode::Cold,
        }
    }
}

/// Which outer family to use towards an NVE that has both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OuterChoice {
    /// The family of the VM's addresses; IPv6 where it has both.
    Auto,
    /// IPv4 where both have it.
    V4,
    /// IPv6 where both have it.
    V6,
}

/// Whether an uplink's device computes checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offloads {
    /// What it reports and has been seen to do.
    #[default]
    Auto,
    /// What it reports.
    On,
    /// Nothing.
    Off,
}

/// Table `[[uplink]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// Its name in tables and counters.
    pub name: String,
    /// DPDK device: a PCI address or vdev arguments; empty for a bond.
    #[serde(default)]
    pub devargs: String,
    /// Several devices as one, instead of `devargs` (R95).
    pub bond: Option<BondConfig>,
    /// The VLAN that the underlay is in at this device (R95).
    #[serde(default, deserialize_with = "bond::vlan")]
    pub vlan: Option<VlanId>,
    /// IPv4 address with the length of its prefix; the locator, unless `[underlay]` has one.
    #[serde(default, deserialize_with = "optional_net")]
    pub ipv4: Option<Ipv4Net>,
    /// IPv6 address with the length of its prefix; the locator, unless `[underlay]` has one.
    #[serde(default, deserialize_with = "optional_net")]
    pub ipv6: Option<Ipv6Net>,
    /// Next hop to IPv4 locators outside the prefix.
    pub gateway4: Option<Ipv4Addr>,
    /// Next hop to IPv6 locators outside the prefix.
    pub gateway6: Option<Ipv6Addr>,
    /// DPDK device that gets the underlay's own traffic, a `net_tap` say.
    pub exception: Option<String>,
    /// The kernel's interface of that device, where its arguments do not name it.
    pub exception_interface: Option<String>,
    /// Whether the device computes outer UDP checksums, where these are wanted (R5).
    #[serde(default)]
    pub offloads: Offloads,
    /// Largest IP packet, in bytes.
    #[serde(default = "uplink_mtu")]
    pub mtu: u16,
    /// Receive queues.
    #[serde(default = "one")]
    pub rx_queues: u16,
}

impl UplinkConfig {
    /// Its addresses with their prefixes, that of IPv4 first.
    pub fn nets(&self) -> impl Iterator<Item = IpNet> {
        self.ipv4.map(IpNet::V4).into_iter().chain(self.ipv6.map(IpNet::V6))
    }
}

fn uplink_mtu() -> u16 {
    1500
}

fn one() -> u16 {
    1
}

/// Table `[[port]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// Its name.
    pub name: String,
    /// DPDK device: a PCI address or vdev arguments.
    pub devargs: String,
    /// The VN, by its identifier.
    #[serde(deserialize_with = "vni")]
    pub vni: Vni,
    /// The VM's address.
    #[serde(deserialize_with = "from_text")]
    pub mac: Mac,
    /// The VM's IP addresses, where no NVA tells them: requests for them are answered, and the VM may
    /// send from no others (R65).
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// Largest IP packet towards the VM, in bytes; 0: the device's own.
    #[serde(default)]
    pub mtu: u16,
    /// Receive queues.
    #[serde(default = "one")]
    pub rx_queues: u16,
    /// `auto`: the VM's first frame or announcement activates the port; `start`: active at once;
    /// `explicit`: only an order does.
    #[serde(default)]
    pub activate: Activation,
    /// The VM's memory may be missing for a while: the worker of `nve.postcopy_core` polls the port.
    #[serde(default)]
    pub postcopy: bool,
}

/// When a port carries traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// With the VM's first frame or announcement.
    #[default]
    Auto,
    /// At once.
    Start,
    /// By order only.
    Explicit,
}

/// Table `[[vn]]`: what this switch does in a VN; it takes part in it while a port does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VnConfig {
    /// The VN, by its identifier.
    #[serde(deserialize_with = "vni")]
    pub vni: Vni,
    /// Whether the NVA sends all records of the VN, or is asked for those that are needed (R34, R37, R40).
    #[serde(default)]
    pub directory: DirectoryKind,
    /// The routing domain of the file that it is in; without one it is bridged only (R58).
    pub domain: Option<String>,
    /// Its VMs are not bridged.
    #[serde(default)]
    pub routed_only: bool,
    /// Its subnets.
    #[serde(default)]
    pub subnets: Vec<SubnetConfig>,
}

/// How records come from the NVA, in the words of RFC 8171.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryKind {
    /// All of them, with every change.
    #[default]
    Push,
    /// Those that were asked for, while they are used.
    Pull,
}

/// Table `[[vm]]`: a VM at another NVE, or behind a port of this one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// The VN, by its identifier.
    #[serde(deserialize_with = "vni")]
    pub vni: Vni,
    /// The VM's address; with `count`, the first of a row.
    #[serde(deserialize_with = "from_text")]
    pub mac: Mac,
    /// Its IP addresses; with `count`, each the first of a row.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// Locator of its NVE; with `nves` above 1, the first of a row.
    pub locator: Option<IpAddr>,
    /// The port behind which it is, instead of a locator.
    pub port: Option<String>,
    /// So many VMs with consecutive addresses.
    #[serde(default = "one_u32")]
    pub count: u32,
    /// Spread over so many NVEs with consecutive locators.
    #[serde(default = "one_u32")]
    pub nves: u32,
}

fn one_u32() -> u32 {
    1
}

/// Table `[[neighbor]]`: an underlay neighbor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighborConfig {
    /// Name of the uplink.
    pub uplink: String,
    /// Its address; with `count`, the first of a row with one MAC.
    pub ip: IpAddr,
    /// Its MAC.
    #[serde(deserialize_with = "from_text")]
    pub mac: Mac,
    /// So many consecutive addresses.
    #[serde(default = "one_u32")]
    pub count: u32,
}

fn rules<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<DevargsRule>>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    texts.iter().map(|t| t.parse().map_err(serde::de::Error::custom)).collect::<Result<_, _>>().map(Some)
}

fn pins<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Pin>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    texts.iter().map(|t| t.parse().map_err(serde::de::Error::custom)).collect()
}

pub(super) fn vni<'de, D: Deserializer<'de>>(d: D) -> Result<Vni, D::Error> {
    let n = u32::deserialize(d)?;
    Vni::new(n).ok_or_else(|| {
        serde::de::Error::custom(format!("{n} is no VNI; a VNI is a number from 0 to 16777215"))
    })
}
