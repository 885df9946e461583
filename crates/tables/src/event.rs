//! What a worker tells control. Small `Copy` values: they cross a bounded lock-free queue.

use core::net::IpAddr;

use godwit_wire::{Instant, Mac, Prefix, Span, Vni, peer};

use crate::DropReason;
use crate::update::{DomainIdx, Key, PortIdx, VnIdx};

/// How a VM made itself known (R18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnnounceKind {
    /// Gratuitous ARP, request or reply form (R24).
    GratuitousArp,
    /// Unsolicited neighbor advertisement (R25).
    NeighborAdvertisement {
        /// Its R flag: the VM is a router.
        router: bool,
        /// Its O flag: not so for anycast addresses.
        overrides: bool,
    },
    /// A hypervisor's RARP announcement (R26).
    Rarp,
    /// Any other frame with the VM's address as source, seen on an Associated port.
    FirstFrame,
    /// A frame to `Mac::PROBER`: an answer to a question that control put to the VM (R21), with the address for which
    /// it answers.
    Alive,
}

/// Why a frame's addresses were refused (R65).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The MAC is none of the VM's.
    Mac,
    /// The address is none of the VM's, and it may bind none by its own word.
    Address,
    /// It has bound as many as it may by its own word (R93).
    Full,
    /// The address is another VM's.
    Taken,
    /// It may announce the address (R92) but has not done so.
    NotAnnounced,
}

/// What the handover of one VM has done in one worker so far; totals since the VM's last handover began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HandoverStats {
    /// Packets put into the hold.
    pub held: u64,
    /// Held packets that went on in order.
    pub flushed: u64,
    /// Packets from the overlay sent on to the new NVE; flushed ones that came from the overlay included.
    pub forwarded: u64,
    /// Held packets dropped, and packets that found no room, for whatever reason: limit, memory, age, abort.
    pub dropped: u64,
    /// Of these, for want of memory.
    pub dropped_memory: u64,
    /// For the limit of packets.
    pub dropped_limit: u64,
    /// For their age.
    pub dropped_age: u64,
    /// Packets still held.
    pub waiting: u64,
    /// Memory that they take, in bytes.
    pub bytes: u64,
    /// The most that they took, in bytes.
    pub peak_bytes: u64,
    /// When the first was forwarded; zero for never.
    pub first_forward: Instant,
    /// When the last was forwarded; zero for never.
    pub last_forward: Instant,
}

impl HandoverStats {
    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.dropped += 1;
        match reason {
            DropReason::HoldMemory => self.dropped_memory += 1,
            DropReason::HoldOverflow => self.dropped_limit += 1,
            DropReason::HoldExpired => self.dropped_age += 1,
            _ => {}
        }
    }
}

/// A worker's word to control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A frame for a VM that the tables don't know; it is held. Raised once a key until answered.
    MissMac {
        /// VN and MAC.
        key: Key,
        /// The port that asked.
        port: PortIdx,
    },
    /// An ARP request or neighbor solicitation for an address that the tables don't know; it waits.
    MissIp {
        /// The VN.
        vn: VnIdx,
        /// The address.
        ip: IpAddr,
        /// The port that asked.
        port: PortIdx,
    },
    /// A VM announced itself on its port. `ip` is unset for RARP and for a first frame.
    Announce {
        /// The port.
        port: PortIdx,
        /// How.
        kind: AnnounceKind,
        /// The frame's source MAC: the port's, or a nested or virtual one of its VM's (R92, R94).
        mac: Mac,
        /// The IP address announced.
        ip: Option<IpAddr>,
    },
    /// Frames of a sender that has no part in their VN were dropped; raised once a second a sender at most (R69).
    UnknownSender {
        /// The VN's identifier on the wire.
        vni: Vni,
        /// The outer source.
        ip: IpAddr,
        /// Frames since it was raised last.
        frames: u64,
    },
    /// A VM that was not defined as a router sent a router advertisement, a redirect or an answer of DHCP, which was
    /// dropped (R66).
    NotRouter {
        /// Its port.
        port: PortIdx,
    },
    /// A VM's frame carried addresses that its port is not bound to; raised once a second a port
    /// at most (R65).
    Spoofed {
        /// The port.
        port: PortIdx,
        /// The frame's source MAC, or the one that its ARP or ND names as the sender's where that is what was refused.
        mac: Mac,
        /// The source address that it carried (of ARP and ND: the sender's or target's), if the MAC was good.
        ip: Option<IpAddr>,
        /// Why it was refused.
        why: Refused,
    },
    /// A VM uses an address that its port is not bound to and that it may bind by its own word (R92, R93), or speaks
    /// from a virtual MAC that it does not have (R92). The frame went on. Raised again once a second at most while the
    /// VM goes on and control has not set or removed the source.
    SourceSeen {
        /// The port.
        port: PortIdx,
        /// The frame's source MAC.
        mac: Mac,
        /// The address; `None`: it is of the virtual MAC alone.
        ip: Option<IpAddr>,
        /// By ARP or a neighbor advertisement for itself.
        announced: bool,
    },
    /// A VM asked, as before it begins to use an address, whether it is free, and was told that another VM has it
    /// (R30); raised once a second a port at most.
    AddressTaken {
        /// Its port.
        port: PortIdx,
        /// The address.
        ip: IpAddr,
        /// Who has it.
        owner: Mac,
    },
    /// The underlay's neighbor `ip` has the address `mac`, seen in ARP or ND on an uplink.
    Neighbor {
        /// The uplink.
        uplink: PortIdx,
        /// The neighbor.
        ip: IpAddr,
        /// Its address.
        mac: Mac,
        /// It answered our question (or announced itself to us).
        solicited: bool,
    },
    /// A router of the underlay says that packets from one of our locators, in a VN of ours, are too big for its
    /// next link (R9). Nothing proves it.
    PathTooBig {
        /// Our locator.
        local: IpAddr,
        /// Whom they went to.
        remote: IpAddr,
        /// Bytes that pass, outer IP header included.
        mtu: u32,
    },
    /// A datagram of another NVE for one of our locators, or what looks like one: nothing proves it before it is
    /// opened (R47).
    Peer {
        /// The sender's locator.
        src: IpAddr,
        /// Ours.
        dst: IpAddr,
        /// As it came.
        datagram: peer::Datagram,
    },
    /// A frame from the overlay for a VM that is not here and has no forward entry (R43 F, R47).
    NotLocal {
        /// VN and MAC.
        key: Key,
        /// The sender's locator.
        sender: IpAddr,
    },
    /// A frame was forwarded in flight for a sender with an old location (R47, R48).
    StaleSender {
        /// VN and MAC.
        key: Key,
        /// The sender's locator.
        sender: IpAddr,
    },
    /// A frame in flight was dropped, because its outer TTL allows no further journey: its NVEs send it round
    /// (R46d). Raised once a second a VM and sender at most.
    TtlExhausted {
        /// VN and MAC.
        key: Key,
        /// The NVE that sent it here.
        sender: IpAddr,
        /// The NVE that it would have gone to.
        to: IpAddr,
    },
    /// Progress of a VM's handover in this worker; raised when counts changed, at most every few
    /// milliseconds a VM, and when a hold runs empty.
    Handover {
        /// VN and MAC.
        key: Key,
        /// Totals.
        stats: HandoverStats,
    },
    /// A flush that control ordered is over: what this worker had of the VM's frames has left, or the time for it ran
    /// out (R77).
    Flushed {
        /// Of the order.
        token: u64,
    },
    /// A frame went to a VM whose entry is `Ageing` (R40).
    InUse {
        /// VN and MAC.
        key: Key,
    },
    /// A table is full; the update for `key` was refused (R13).
    TableFull {
        /// The entry that found no room.
        key: Key,
    },
    /// A router of the underlay asks who is a member of multicast groups (R60).
    GroupQuery {
        /// The uplink that it asked by.
        uplink: PortIdx,
        /// The group that it asks about, or the unspecified address of its family for all.
        group: IpAddr,
        /// Hosts answer within this time.
        max_response: Span,
    },
    /// A route found no room (R13, R58).
    RouteFull {
        /// Its domain.
        domain: DomainIdx,
        /// Its prefix.
        prefix: Prefix,
    },
    /// A route has gone, after one found no room: there is room for one.
    RouteRoom,
}
