//! The one vocabulary by which control changes a worker's tables.
//!
//! Every update is a small `Copy` value: it crosses a bounded lock-free queue, and neither side
//! allocates for it. An update describes the wanted state, not a change to it, so that applying one
//! twice, or applying the last of several only, ends in the same state.

use core::net::IpAddr;

use godwit_wire::outer::OuterHeader;
use godwit_wire::policy::{Rule, Verdict};
use godwit_wire::{Dscp, Instant, Mac, Prefix, Rate, Span, VlanId, Vni};

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

/// A worker's dense number of a routing domain; control gives it out (R58).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct DomainIdx(pub u16);

/// Lengths that the prefixes of a domain have at most, of each family.
pub const MAX_LENGTHS: usize = 8;

/// The lengths of the prefixes that a routing domain has of one family, longest first, host routes left out; the rest
/// is [`NO_LENGTH`]. A lookup that finds no host route tries them in turn.
pub type Lengths = [u8; MAX_LENGTHS];

/// No prefix has so many bits.
pub const NO_LENGTH: u8 = u8::MAX;

/// Where a route of a domain leads (R58).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// To this VM, wherever it is: its frames get its MAC, and its VN's number.
    Vm(Key),
    /// To a subnet of the VN, whose VMs have host routes: an address without one is asked for in a pulled VN, and
    /// otherwise not reachable.
    Subnet {
        /// The VN.
        vn: VnIdx,
        /// The directory is asked.
        ask: bool,
    },
    /// To the gateway itself: one of its addresses in the VN.
    Gateway(VnIdx),
}

/// A VN's part in a routing domain (R58).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VnRouting {
    /// The domain.
    pub domain: DomainIdx,
    /// MAC of the gateway, the same at every NVE.
    pub mac: Mac,
    /// The VN is not bridged: each frame to a single MAC is routed, and each address is answered for with the
    /// gateway's MAC.
    pub routed_only: bool,
    /// Control answers DHCP for IPv4: clients' messages are shown to it, and not copied to the VN.
    pub dhcp_v4: bool,
    /// The same for IPv6.
    pub dhcp_v6: bool,
    /// Control advertises the gateway as an IPv6 router: solicitations are shown to it, and not copied to the VN.
    pub advertise: bool,
}

impl VnRouting {
    /// A part in which control answers nothing.
    pub const fn new(domain: DomainIdx, mac: Mac, routed_only: bool) -> VnRouting {
        VnRouting { domain, mac, routed_only, dhcp_v4: false, dhcp_v6: false, advertise: false }
    }
}

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

/// What becomes of multicast in a VN (R61).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Multicast {
    /// It is copied to everybody.
    #[default]
    Flood,
    /// It is copied to the members of its group and to multicast routers; link-local groups to everybody. Control is
    /// told of IGMP and MLD.
    Snoop,
    /// It is dropped, but for link-local groups.
    Off,
}

/// Who gets what is sent to a multicast group (R61).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Member {
    /// A VM's port here.
    Port(PortIdx),
    /// Another NVE with members.
    Tunnel(TunnelIdx),
}

/// Ways that a tunnel has at most (R95).
pub const MAX_WAYS: usize = 8;

/// Shares that a tunnel's flows are divided into where it has several ways: as many as keep eight ways within an
/// eighth of each other.
pub const SHARES: usize = 64;

/// The way of each share of a tunnel's flows, each below [`MAX_WAYS`].
pub type Shares = [u8; SHARES];

/// The largest number of routing domains an NVE has a part in at a time.
pub const MAX_DOMAINS: usize = 4096;

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

/// Bounds of one VM's handover buffer (R45), besides the memory that all have together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldLimits {
    /// At most so many packets; the oldest goes first.
    pub packets: u32,
    /// A packet older than this is dropped.
    pub age: Span,
}

impl HoldLimits {
    /// As many packets as memory allows.
    pub const fn of_age(age: Span) -> HoldLimits {
        HoldLimits { packets: u32::MAX, age }
    }
}

/// What a worker does with frames for one VM. Whatever the worker held for the VM under an earlier
/// state is sent where the new state says, in order and before newer frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmState {
    /// At another NVE. Frames from local ports are tunnelled there; frames from the overlay are not
    /// ours and are dropped as `NotLocal` (split horizon, R46a).
    Remote {
        /// Its NVE.
        to: Target,
    },
    /// As `Remote`, and its life nears its end: the first frame from a local port makes it `Remote` and is told to
    /// control, which asks the directory again (R40).
    Ageing {
        /// Its NVE.
        to: Target,
    },
    /// Activated on a port of this NVE: everything is delivered there.
    Local {
        /// Its port.
        port: PortIdx,
    },
    /// As `Local` for what comes from the overlay; frames from local ports wait until their old path, by which they
    /// went to the VM's old NVE, has ended (R77).
    Arrived {
        /// Its port.
        port: PortIdx,
        /// Bounds of what waits.
        hold: HoldLimits,
    },
    /// Associated here and expected to start (new NVE of a move): frames from the overlay are held;
    /// frames from local ports go to where it still runs, or are held where that is unknown.
    Expected {
        /// Where it still runs.
        via: Option<Target>,
        /// Bounds of what arrives early.
        hold: HoldLimits,
    },
    /// Everything is held: paused on this NVE for its handover (old NVE of a move, R45), or at another NVE to which
    /// nothing is sent before the old path has ended (R77).
    Paused {
        /// Bounds of what is held.
        hold: HoldLimits,
    },
    /// Left this NVE (R41, R43): frames from the overlay are forwarded in flight through the tunnel
    /// with the outer TTL rule of R46d and counted as forwarded; frames from local ports are
    /// tunnelled as for `Remote`. At `until` the worker turns it into `Remote`.
    Departed {
        /// The new NVE.
        to: Target,
        /// When the forward entry dies (fwd_timer).
        until: Instant,
    },
    /// The directory knows no such VM, or one that is attached nowhere: frames are dropped as
    /// `UnknownUnicast` without another query until `until`, when the worker forgets the entry (R36).
    Absent {
        /// End of the negative answer's life.
        until: Instant,
    },
    /// The directory has the VM, and it is attached nowhere: frames are dropped as `Detached` until control says
    /// otherwise (R19, R51).
    Detached {
        /// Segments of connections with it are answered by resets (R53).
        reset: bool,
    },
}

impl VmState {
    /// Where frames of VMs here are sent, if to another NVE.
    pub fn target(self) -> Option<Target> {
        match self {
            VmState::Remote { to } | VmState::Ageing { to } | VmState::Departed { to, .. } => Some(to),
            VmState::Expected { via, .. } => via,
            VmState::Local { .. }
            | VmState::Arrived { .. }
            | VmState::Paused { .. }
            | VmState::Absent { .. }
            | VmState::Detached { .. } => None,
        }
    }
}

/// How far a port lets its VM talk (R15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// No traffic, no announcements: the port is not provisioned, or its VM left (R41).
    Closed,
    /// Resources are there; announcements and the first frame are reported, nothing is forwarded.
    Associated,
    /// Traffic flows.
    Activated,
}

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortRole {
    /// A VM's interface (TSI). Frames from it must carry `mac` as source.
    Access {
        /// Its VN.
        vn: VnIdx,
        /// The VM's address.
        mac: Mac,
        /// Whether it may talk.
        admission: Admission,
    },
    /// An underlay port that carries locators.
    Uplink {
        /// The port's own address.
        mac: Mac,
        /// IPv4 locator.
        v4: Option<core::net::Ipv4Addr>,
        /// IPv6 locator.
        v6: Option<core::net::Ipv6Addr>,
        /// Own IPv4 address on this link where the locator is another, of a loopback: ARP and echo only (R95).
        link_v4: Option<core::net::Ipv4Addr>,
        /// The same for IPv6.
        link_v6: Option<core::net::Ipv6Addr>,
        /// The link-local address that answers neighbor solicitations too.
        v6_link_local: Option<core::net::Ipv6Addr>,
        /// Where the underlay's own traffic that is not for the switch goes.
        exception: Option<PortIdx>,
        /// The VLAN that it is in (R95): only frames with its tag are the uplink's, and all that it sends gets the tag.
        vlan: Option<VlanId>,
    },
    /// The host's side of an uplink: its frames leave through the uplink as they are, with the uplink's tag.
    Exception {
        /// The uplink it belongs to.
        uplink: PortIdx,
    },
}

/// Which source addresses of one family the VM of a port may have (R65, R93).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceRule {
    /// Every one: nobody said what the VM has. Only without a directory.
    Any,
    /// Those that are set, and new ones while there is room: they are used at once and told to control.
    Listed {
        /// How many more each of the port's MACs may have before control has set them; 0: it binds none by its own
        /// word.
        room: u8,
    },
    /// Those that are set: it has bound as many by its own word as it may. A new one is refused as such.
    Full,
}

/// The rules of a port's sources (R65, R93). Until they are set, every source is good while no address is set, and
/// then these and link-local ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceRules {
    /// IPv4.
    pub v4: SourceRule,
    /// IPv6, link-local addresses excepted.
    pub v6: SourceRule,
    /// IPv6 link-local addresses.
    pub link_local: SourceRule,
}

/// Why a prefix is a port's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefixKind {
    /// The port's VM routes for it: its addresses are good sources (R94).
    Routed,
    /// The port's VM shares it with others: an address of it becomes a good source when the VM announces it (R92).
    Shared,
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
