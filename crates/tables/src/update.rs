//! The one vocabulary by which control changes a worker's tables.
//!
//! Every update is a small `Copy` value: it crosses a bounded lock-free queue, and neither side
//! allocates for it. An update describes the wanted state, not a change to it, so that applying one
//! twice, or applying the last of several only, ends in the same state.

use core::net::IpAddr;

use godwit_wire::outer::OuterHeader;
use godwit_wire::policy::{Rule, Verdict};
use godwit_wire::{Dscp, Instant, Mac, Prefix, Rate, Span, Vni};

mod groups;
mod ports;
mod routing;
mod vms;

pub use groups::{Member, Multicast};
pub use ports::{Admission, PortRole, PrefixKind, SourceRule, SourceRules};
pub use routing::{DomainIdx, Lengths, MAX_DOMAINS, MAX_LENGTHS, NO_LENGTH, NextHop, VnRouting};
pub use vms::{HoldLimits, VmState};

/// A worker's dense number of a virtual network; control gives it out, at most 65,535 at a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct VnIdx(pub u16);

/// A port's number on this NVE; control gives it out, below [`MAX_PORTS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct PortIdx(pub u16);

/// A tunnel's number: one for each remote locator that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct TunnelIdx(pub u32);

/// Where frames for a VM at another NVE are sent: the outer header's VNI is that of the entry, whatever VN the frame
/// came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// The NVE's tunnel.
    pub tunnel: TunnelIdx,
    /// The VNI under which that NVE has the VM.
    pub vni: Vni,
}

impl core::fmt::Debug for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "tunnel {} with {:?}", self.tunnel.0, self.vni)
    }
}

/// Ways that a tunnel has at most (R95).
pub const MAX_WAYS: usize = 8;

/// Shares that a tunnel's flows are divided into where it has several ways: as many as keep eight ways within an
/// eighth of each other.
pub const SHARES: usize = 64;

/// The way of each share of a tunnel's flows, each below [`MAX_WAYS`].
pub type Shares = [u8; SHARES];

/// The largest number of ports an NVE carries at a time.
pub const MAX_PORTS: usize = 1024;

/// A VM's key within a worker: VN number and MAC in one integer, `vn << 48 | mac`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct Key(pub u64);

impl Key {
    /// From VN and MAC.
    #[inline]
    pub const fn new(vn: VnIdx, mac: Mac) -> Key {
        Key((vn.0 as u64) << 48 | mac.to_u64())
    }

    /// The VN.
    #[inline]
    pub const fn vn(self) -> VnIdx {
        VnIdx((self.0 >> 48) as u16)
    }

    /// The MAC.
    #[inline]
    pub const fn mac(self) -> Mac {
        Mac::from_u64(self.0)
    }
}

/// A change to the tables; see each variant for what it replaces.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Update {
    /// Adds or replaces a VN.
    VnSet {
        /// Number in this worker.
        vn: VnIdx,
        /// Identifier on the wire.
        vni: Vni,
        /// Tenant MTU: largest inner IP packet, in bytes (R8).
        mtu: u16,
        /// Inner VLAN tags pass (R10); otherwise they are stripped on the way in and a tagged frame
        /// from the overlay is dropped.
        transparent_vlan: bool,
    },
    /// Forgets a VN, its replication list and its neighbors; its VM entries must be removed before.
    VnRemove {
        /// The VN.
        vn: VnIdx,
    },
    /// Adds or replaces a port's role. The queues come separately, from the worker's own commands.
    PortSet {
        /// The port.
        port: PortIdx,
        /// Its role.
        role: PortRole,
    },
    /// Which sources the port's VM may have beside those that are set (R65, R93).
    SourceRulesSet {
        /// The port.
        port: PortIdx,
        /// The rules.
        rules: SourceRules,
    },
    /// Frames from this MAC are of the port's VM, too: a nested or a virtual one (R92, R94). Frames to it go where its
    /// own VM entry says.
    MacSet {
        /// The port.
        port: PortIdx,
        /// The MAC.
        mac: Mac,
        /// Virtual: other VMs may have it, and a frame from it here while its entry leads elsewhere is told to control.
        shared: bool,
    },
    /// The opposite of `MacSet`.
    MacRemove {
        /// The port.
        port: PortIdx,
        /// The MAC.
        mac: Mac,
    },
    /// Sources in this prefix are good, or may become so (R92, R94).
    PrefixSet {
        /// The port.
        port: PortIdx,
        /// The prefix.
        prefix: Prefix,
        /// Why.
        kind: PrefixKind,
    },
    /// The opposite of `PrefixSet`.
    PrefixRemove {
        /// The port.
        port: PortIdx,
        /// The prefix.
        prefix: Prefix,
        /// As it was set.
        kind: PrefixKind,
    },
    /// The port's VM may send from this address (R65).
    SourceSet {
        /// The port.
        port: PortIdx,
        /// The address.
        ip: IpAddr,
    },
    /// The opposite of `SourceSet`. An address that the VM uses and control was told of, but has not set, is refused
    /// for 5 s: control is not asked again and again.
    SourceRemove {
        /// The port.
        port: PortIdx,
        /// The address.
        ip: IpAddr,
    },
    /// The port's VM may speak as a router and as a DHCP server (R66), and forwards from every address that is not
    /// known to be another VM's (R94). Not so until this is set.
    ServerSet {
        /// The port.
        port: PortIdx,
        /// It may.
        server: bool,
    },
    /// One rule of the policy that `PolicySet` brings into force (R23).
    PolicyRule {
        /// The port.
        port: PortIdx,
        /// Its place, from 0.
        at: u8,
        /// The rule.
        rule: Rule,
    },
    /// The first `rules` rules that `PolicyRule` brought are in force for what the port's VM sends and gets, all
    /// together (R23).
    PolicySet {
        /// The port.
        port: PortIdx,
        /// How many.
        rules: u8,
        /// What becomes of frames that none matches.
        default: Verdict,
        /// What the VM may send.
        rate: Rate,
        /// Outer DSCP of what it sends to other NVEs; `None`: as of VMs without a policy (R6).
        dscp: Option<Dscp>,
    },
    /// The port's VM has no policy.
    PolicyClear {
        /// The port.
        port: PortIdx,
    },
    /// Forgets a port, its sources and its policy.
    PortRemove {
        /// The port.
        port: PortIdx,
    },
    /// Adds or replaces what is known of a VM.
    VmSet {
        /// VN and MAC.
        key: Key,
        /// What to do with its frames.
        state: VmState,
    },
    /// The directory has just learnt that a VM of this NVE has moved here: what its old NVE held for it comes
    /// now, all at once, and waits where its port does not take it (R45). Nothing happens to other keys.
    VmSettle {
        /// VN and MAC.
        key: Key,
        /// Bounds of what may wait.
        hold: HoldLimits,
    },
    /// Forgets a VM; what is held for it is dropped as `HoldAborted`.
    VmRemove {
        /// VN and MAC.
        key: Key,
    },
    /// The address `ip` belongs to `mac`: requests for it are answered (R28, R29) and those that
    /// wait for it are answered now (R31).
    NeighborSet {
        /// The VN.
        vn: VnIdx,
        /// The address.
        ip: IpAddr,
        /// Its owner.
        mac: Mac,
        /// The owner is a router: R flag of the advertisement.
        router: bool,
    },
    /// No VM of the VN has `ip`: requests are dropped without another query until `until`.
    NeighborAbsent {
        /// The VN.
        vn: VnIdx,
        /// The address.
        ip: IpAddr,
        /// End of the negative answer's life.
        until: Instant,
    },
    /// Forgets an address.
    NeighborRemove {
        /// The VN.
        vn: VnIdx,
        /// The address.
        ip: IpAddr,
    },
    /// Whether ARP and ND requests for addresses that the directory does not have are flooded in the
    /// VN, for hosts that never announce themselves (R31).
    VnSilent {
        /// The VN.
        vn: VnIdx,
        /// Least gap between two such requests in this worker; none: they are dropped.
        flood_gap: Option<Span>,
    },
    /// What becomes of multicast in the VN (R61). Flooded until this is set.
    VnMulticastSet {
        /// The VN.
        vn: VnIdx,
        /// What.
        multicast: Multicast,
    },
    /// Where the VN's broadcast and multicast go instead of more copies than there may be (R60): the tunnel's remote is
    /// a group of the underlay, and what comes from there by the tunnel's uplink is the VN's.
    VnUnderlayGroup {
        /// The VN.
        vn: VnIdx,
        /// The tunnel; none: copies only.
        tunnel: Option<TunnelIdx>,
    },
    /// Frames to the group are copied to this member (R61).
    GroupMemberSet {
        /// The VN.
        vn: VnIdx,
        /// The group; `0.0.0.0` or `::`: every group of the family, for multicast routers.
        group: IpAddr,
        /// The member.
        member: Member,
    },
    /// The opposite of `GroupMemberSet`.
    GroupMemberRemove {
        /// The VN.
        vn: VnIdx,
        /// The group.
        group: IpAddr,
        /// The member.
        member: Member,
    },
    /// Adds or replaces a routing domain (R58).
    DomainSet {
        /// The domain.
        domain: DomainIdx,
        /// Lengths of its IPv4 prefixes.
        v4: Lengths,
        /// Lengths of its IPv6 prefixes.
        v6: Lengths,
    },
    /// Forgets a domain; its routes were removed, and no VN is in it.
    DomainRemove {
        /// The domain.
        domain: DomainIdx,
    },
    /// The VN's part in a routing domain; none: it is bridged only (R58).
    VnRoutingSet {
        /// The VN.
        vn: VnIdx,
        /// Its part.
        routing: Option<VnRouting>,
    },
    /// The VN has this subnet, and the gateway this address in it: the source of its errors (R58).
    SubnetSet {
        /// The VN.
        vn: VnIdx,
        /// The subnet.
        prefix: Prefix,
        /// The gateway's address.
        gateway: IpAddr,
    },
    /// The opposite of `SubnetSet`.
    SubnetRemove {
        /// The VN.
        vn: VnIdx,
        /// The subnet.
        prefix: Prefix,
    },
    /// Adds or replaces a route of a domain (R58). A prefix of one address is a host route.
    RouteSet {
        /// The domain.
        domain: DomainIdx,
        /// Where packets are for.
        prefix: Prefix,
        /// Where they go.
        to: NextHop,
    },
    /// The opposite of `RouteSet`.
    RouteRemove {
        /// The domain.
        domain: DomainIdx,
        /// The prefix.
        prefix: Prefix,
    },
    /// Adds or replaces a tunnel whose next hop is resolved. Held packets waiting for it go out.
    TunnelSet {
        /// The tunnel.
        tunnel: TunnelIdx,
        /// The uplink it leaves through.
        uplink: PortIdx,
        /// The remote locator.
        remote: IpAddr,
        /// Largest outer IP packet on the way there, in bytes.
        mtu: u16,
        /// Outer header with the next hop's address; its bytes are copied before each packet.
        header: OuterHeader,
    },
    /// The tunnel exists but its next hop does not answer yet: packets for it are held as for an
    /// unknown destination.
    TunnelPending {
        /// The tunnel.
        tunnel: TunnelIdx,
        /// The remote locator.
        remote: IpAddr,
    },
    /// IPv4 packets for this tunnel go through its twin while that is ready: it leads to the same NVE
    /// over IPv4 (R4). `None`: all frames stay with the tunnel. Forgotten with the tunnel; nothing happens to one that
    /// is not there.
    TunnelTwin {
        /// The tunnel.
        tunnel: TunnelIdx,
        /// Its twin.
        twin: Option<TunnelIdx>,
    },
    /// Adds or replaces one of several ways of a tunnel (R95). Frames take it once a [`Update::TunnelSpread`]
    /// names it.
    TunnelWay {
        /// The tunnel.
        tunnel: TunnelIdx,
        /// Which of its ways, below [`MAX_WAYS`].
        at: u8,
        /// The uplink it leaves through.
        uplink: PortIdx,
        /// Largest outer IP packet on this way, in bytes.
        mtu: u16,
        /// Outer header with the next hop's address.
        header: OuterHeader,
    },
    /// By which way each share of a tunnel's flows goes (R95). `None`: all go by the tunnel's own header again.
    TunnelSpread {
        /// The tunnel, which is ready.
        tunnel: TunnelIdx,
        /// The way of each share; all of them were set.
        shares: Option<Shares>,
    },
    /// Forgets a tunnel; no VM, replication list or twin names it any more.
    TunnelRemove {
        /// The tunnel.
        tunnel: TunnelIdx,
    },
    /// VXLAN of the VN is accepted from this locator (R69).
    SenderAdd {
        /// The VN.
        vn: VnIdx,
        /// The outer source.
        ip: IpAddr,
    },
    /// The opposite of `SenderAdd`.
    SenderRemove {
        /// The VN.
        vn: VnIdx,
        /// The outer source.
        ip: IpAddr,
    },
    /// Whether VXLAN of the VN is accepted from those that `SenderAdd` names only; from anybody before this is set, and
    /// where one of them found no room.
    SendersKnown {
        /// The VN.
        vn: VnIdx,
        /// From them only.
        known: bool,
    },
    /// Broadcast and multicast frames of the VN are copied to this tunnel too (R60).
    ReplicaAdd {
        /// The VN.
        vn: VnIdx,
        /// A tunnel to an NVE with members.
        tunnel: TunnelIdx,
    },
    /// The opposite of `ReplicaAdd`.
    ReplicaRemove {
        /// The VN.
        vn: VnIdx,
        /// The tunnel.
        tunnel: TunnelIdx,
    },
}
