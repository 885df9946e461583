//! What an operator may look at.

use std::net::IpAddr;

use godwit_model::{Allowed, BoundIp, HandoverCounts, NveId, OperState, Version, VmKey};
use godwit_tables::update::PortIdx;
use godwit_wire::{Mac, Prefix, Span, Vni};

pub use crate::refusals::Refusal;

/// What the workers do with a VM's frames, in the operator's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryState {
    /// At another NVE.
    Remote,
    /// Delivered here.
    Local,
    /// Expected here; early packets are held.
    Expected,
    /// Paused here; packets are held.
    Paused,
    /// Left this NVE; packets in flight are forwarded.
    Departed,
    /// Nowhere, says the directory.
    Absent,
    /// Attached nowhere, says the directory, and segments for it are answered by resets.
    Detached,
    /// The NVA is being asked.
    Querying,
}

impl EntryState {
    /// The word that the admin protocol uses.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryState::Remote => "remote",
            EntryState::Local => "local",
            EntryState::Expected => "expected",
            EntryState::Paused => "paused",
            EntryState::Departed => "departed",
            EntryState::Absent => "absent",
            EntryState::Detached => "detached",
            EntryState::Querying => "querying",
        }
    }
}

/// An address that sends VXLAN to a VN in which no NVE has it (R69).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StrangerView {
    /// The outer source.
    pub ip: IpAddr,
    /// The VN.
    pub vni: Vni,
    /// Frames that were dropped.
    pub frames: u64,
    /// Milliseconds since the last one was told of.
    pub ago_ms: u64,
}

/// What this NVE knows of a VM: the admin protocol's `Entry`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryView {
    /// The VM.
    pub key: VmKey,
    /// Its name in the directory; empty where it is not known.
    pub name: String,
    /// What is done with its frames.
    pub state: EntryState,
    /// Where it is, or still runs.
    pub nve: Option<NveId>,
    /// The locator in use towards it.
    pub locator: Option<IpAddr>,
    /// Version of the record; zero where there is none.
    pub version: Version,
    /// How long the entry still lives; `None` for as long as nothing changes.
    pub expires: Option<Span>,
    /// Another NVE says that the VM left; the directory is being asked (R39).
    pub suspect: bool,
    /// The locator is another NVE's word, which the directory has not confirmed (R47).
    pub unconfirmed: bool,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Next hops by which its locator is reached.
    pub hops: Vec<HopView>,
    /// What its last handover did here, all workers together.
    pub handover: HandoverCounts,
}

/// Where an access port stands (R15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortState {
    /// There, the directory has not spoken on its VM yet.
    Init,
    /// Provisioned and silent.
    Associated,
    /// Its VM runs.
    Activated,
    /// Its VM is paused; what arrives is held.
    Paused,
    /// Its VM runs at another NVE.
    Departed,
    /// The NVA refused its claim.
    Quarantined,
    /// Not an access port; its link is up.
    Up,
    /// Not an access port; its link is down.
    Down,
}

impl PortState {
    /// The word that the admin protocol uses.
    pub fn as_str(self) -> &'static str {
        match self {
            PortState::Init => "init",
            PortState::Associated => "associated",
            PortState::Activated => "activated",
            PortState::Paused => "paused",
            PortState::Departed => "departed",
            PortState::Quarantined => "quarantined",
            PortState::Up => "up",
            PortState::Down => "down",
        }
    }
}

/// A port as control sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortView {
    /// Its number.
    pub port: PortIdx,
    /// Its name.
    pub name: String,
    /// `access`, `uplink` or `exception`.
    pub role: &'static str,
    /// Its VM, for an access port.
    pub key: Option<VmKey>,
    /// The VM's name in the directory, where known.
    pub vm: String,
    /// Its state.
    pub state: PortState,
    /// The link is up.
    pub link_up: bool,
    /// What the VM manager said of its VM last (R16).
    pub oper: Option<OperState>,
    /// What its VM may call its own, for an access port.
    pub bindings: Option<BindingsView>,
}

/// What the VM of a port may call its own, and what it was refused (R65, R92 to R94).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BindingsView {
    /// Addresses that the directory or the configuration file lists.
    pub recorded: Vec<IpAddr>,
    /// Addresses that it has by its own word.
    pub bound: Vec<BoundIp>,
    /// Virtual MACs that it has now.
    pub macs: Vec<Mac>,
    /// What the operator allows it beside the recorded addresses.
    pub allowed: Allowed,
    /// It is a router by the operator's word.
    pub router: bool,
    /// IPv4, IPv6 and IPv6 link-local addresses that it may still bind by its own word; `None`: it is bound to nothing.
    pub room: [Option<u8>; 3],
    /// What it sent from and might not, the last first.
    pub refused: Vec<Refusal>,
}

/// A routing domain as its VMs here have it (R58).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainView {
    /// Its name.
    pub name: String,
    /// The VNs that it joins, sorted.
    pub vns: Vec<Vni>,
    /// Of these, VNs without a port here: they are only routed to.
    pub routed_to: Vec<Vni>,
    /// Addresses with a route of their own, those of gateways included.
    pub host_routes: usize,
    /// Subnets and static routes.
    pub prefixes: usize,
}

/// Routes of a domain as this NVE's workers have them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainRoutesView {
    /// The domain.
    pub domain: DomainView,
    /// By prefix; perhaps not all.
    pub routes: Vec<DomainRouteView>,
}

/// A route of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainRouteView {
    /// The prefix.
    pub prefix: Prefix,
    /// `vm`, `static`, `subnet` or `gateway`.
    pub kind: &'static str,
    /// The VN that it leads to.
    pub vni: Vni,
    /// The VM that is the next hop, its name and where it is, as far as they are known.
    pub via: Option<(VmKey, String, Option<NveId>)>,
}

/// A next hop on the underlay (R95).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HopView {
    /// Its address; `None`: the destination itself.
    pub ip: Option<IpAddr>,
    /// The uplink's name.
    pub uplink: String,
    /// As for a [`NeighborView`], `no link`, or empty where nothing is sent by it.
    pub state: &'static str,
    /// Its MAC, where known.
    pub mac: Option<Mac>,
    /// Of a locator's flows, so many in [`SHARES`](godwit_tables::update::SHARES) go by it.
    pub shares: usize,
}

/// A route on the underlay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteView {
    /// The prefix.
    pub to: IpAddr,
    /// Its length in bits.
    pub len: u8,
    /// The kernel says so, and not the configuration.
    pub kernel: bool,
    /// Where it leads.
    pub hops: Vec<HopView>,
}

/// A locator that is sent to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteView {
    /// The locator.
    pub locator: IpAddr,
    /// Largest outer IP packet, in bytes; `None` while no next hop answers.
    pub mtu: Option<u16>,
    /// By which next hops.
    pub hops: Vec<HopView>,
}

/// A neighbor on the underlay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeighborView {
    /// Its address.
    pub ip: IpAddr,
    /// Its MAC, where known.
    pub mac: Option<Mac>,
    /// `incomplete`, `reachable`, `stale`, `probe` or `permanent`.
    pub state: &'static str,
    /// The uplink it is on.
    pub uplink: PortIdx,
    /// That uplink's name.
    pub uplink_name: String,
}

/// How it stands with the NVA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NvaView {
    /// The NVA has welcomed us.
    pub connected: bool,
    /// Its incarnation; the last one seen where not connected, 0 for never.
    pub epoch: u32,
    /// VNs that are subscribed.
    pub vns: u32,
    /// Of these, VNs whose snapshot is complete.
    pub synced: u32,
    /// Claims that wait for an answer.
    pub claims_waiting: u32,
    /// Queries that wait for an answer.
    pub queries_waiting: u32,
    /// Why the NVA refuses this switch; another one has its name or a locator (R96).
    pub refusal: Option<String>,
}
