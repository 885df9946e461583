//! What a worker counts. Plain integers: only the worker writes them, and it publishes copies.
//!
//! Every frame that enters, and every copy made of one, ends in exactly one of four ways:
//!
//! ```text
//! rx + copies = tx + consumed + drops + waiting
//! ```
//!
//! with rx, tx and drops summed over the ports, and `waiting` what [`crate::Tables::waiting`] tells.
//! Tests hold every path to it.

use crate::update::{MAX_PORTS, PortIdx};

godwit_counters::drop_reasons! {
    /// Why a frame was dropped. Its index is its place in [`PortCounters::drops`].
    DropReason;

    /// Shorter than an Ethernet header, or ends inside a header that it announces.
    Truncated = "truncated",
    /// The frame lies in several buffers, and neither the first holds its headers nor one its whole.
    NotContiguous = "not_contiguous",
    /// Asks for a checksum or for segments that its headers do not allow: neither TCP nor UDP, lengths that
    /// contradict each other, a segment size of 0 or one that makes more than 256 packets.
    BadOffload = "bad_offload", // R11
    /// Came in on a port that has no role (yet, or any more).
    PortUnknown = "port_unknown",
    /// The port's VM may not talk: not provisioned, not activated, or left.
    PortClosed = "port_closed", // R15, R41
    /// The port's VN is not configured.
    UnknownVn = "unknown_vn",
    /// A MAC or IP source, ARP sender or ND address that is none of the port's VM's and that it may not bind by its
    /// own word, or that is another VM's.
    SpoofedSource = "spoofed_source", // R65, R30
    /// A source of a VM that has bound as many addresses by its own word as it may.
    AddressLimit = "address_limit", // R93
    /// A source that the VM shares with others and has not announced by gratuitous ARP or an unsolicited neighbor
    /// advertisement since another one did.
    NotAnnounced = "not_announced", // R92
    /// An IP packet of a VM whose headers cannot be read, on a port bound to addresses or to a group.
    InnerMalformed = "inner_malformed", // R65
    /// A frame with more tags than its VN takes: one where it strips them, two where it keeps them.
    VlanTag = "vlan_tag", // R10
    /// Destination is a link-local reserved group (01:80:c2:00:00:0x), which bridges never forward.
    LinkLocalReserved = "link_local_reserved",
    /// Destination is on the port that the frame came from.
    Hairpin = "hairpin",
    /// No VM has the destination address: a negative answer of the directory.
    UnknownUnicast = "unknown_unicast", // R36
    /// The VM with the destination address is attached nowhere.
    Detached = "detached", // R19, R53
    /// The port's frames raise too many questions to the directory, or there is no room to remember one more.
    MissLimit = "miss_limit", // R35, R67
    /// Larger than the path to the remote NVE carries.
    TooBig = "too_big", // R8
    /// The tunnel that the destination's entry names does not exist.
    NoTunnel = "no_tunnel",
    /// The destination's port does not exist any more, or serves another VN.
    PortGone = "port_gone",
    /// Pushed out of a hold by newer frames: its limit of packets was reached.
    HoldOverflow = "hold_overflow", // R35, R45
    /// Held for longer than its age limit.
    HoldExpired = "hold_expired", // R35, R45
    /// Held for a VM whose entry was removed, or that turned out to be elsewhere.
    HoldAborted = "hold_aborted",
    /// The memory for held frames is full: the oldest of the VM that held most, or one that found no room.
    HoldMemory = "hold_memory", // R45
    /// ARP or RARP that cannot be read, or that neither asks, nor answers, nor announces as a VM may.
    ArpMalformed = "arp_malformed", // R27, R28
    /// Neighbor discovery that no host accepts, for its hop limit, checksum, length or target, or because it comes in
    /// fragments; or an advertisement to a group that announces nothing.
    NdMalformed = "nd_malformed", // R25, R29
    /// Asks for an address that no VM has: a negative answer of the directory, or its owner is detached.
    UnknownTarget = "unknown_target", // R28, R31
    /// An ARP or ND request for an address that nobody has, in a VN that floods these: too many.
    FloodLimit = "flood_limit", // R31
    /// A router advertisement, a redirect, an answer of DHCP or a query of IGMP or MLD, from a VM that was not defined
    /// as a router.
    NotRouter = "not_router", // R66
    /// The policy of the VM that sends, or of the one that it is for, denies it.
    PolicyDenied = "policy_denied", // R23
    /// Beyond the rate that its VM's policy allows it to send.
    PolicyRate = "policy_rate", // R23
    /// ARP, RARP or neighbor discovery of a VM beyond its port's rate.
    ResolutionLimit = "resolution_limit", // R67
    /// Asks for an address that the asker owns itself, or another VM at the same port.
    OwnAddress = "own_address", // R28, R30
    /// Asks what this port is already waiting to hear.
    AskRepeated = "ask_repeated",
    /// Too many requests wait for an answer, or the port raises too many questions to the directory.
    AskLimit = "ask_limit", // R31, R67
    /// A request waited for its answer until its time was up.
    AskExpired = "ask_expired", // R31
    /// A solicitation that only its target may answer, which nobody here knew where to find: the host asks again, and
    /// then it gets there.
    AskOwner = "ask_owner", // R29
    /// To be routed, but no untagged IP packet whose headers can be read and sum up.
    NotRoutable = "not_routable", // R58
    /// To be routed, from or to an address that no router forwards packets of: of this host, of this link, a group.
    RouteMartian = "route_martian", // R58
    /// To be routed, with options or hop-by-hop options that cannot be read, or with a source route.
    RouteOptions = "route_options", // R58
    /// To be routed, with a TTL or hop limit of 0 or 1.
    TtlExceeded = "ttl_exceeded", // R7
    /// To be routed, and its routing domain has no route to the destination.
    NoRoute = "no_route", // R58
    /// To be routed into a subnet where nobody has the destination address.
    HostUnreachable = "host_unreachable", // R35, R58
    /// For the gateway itself, which answers nothing but echo requests in one piece.
    GatewayRefused = "gateway_refused", // R58
    /// Broadcast or multicast in a VN that is routed only, which is not carried on.
    NotBridged = "not_bridged", // R58
    /// From the overlay to the gateway's MAC: packets are routed where they come from a VM, and nowhere else.
    OverlayToGateway = "overlay_to_gateway", // R58
    /// VXLAN from an address that is no locator of an NVE that takes part in the VN.
    UnknownSender = "unknown_sender", // R69
    /// DHCP or a router solicitation beyond the port's rate.
    PuntLimit = "punt_limit", // R58, R67
    /// DHCP or a router solicitation that control had no room for.
    PuntFull = "punt_full", // R58
    /// Broadcast or multicast, and nobody else is in the VN.
    NoReceiver = "no_receiver",
    /// Multicast to a group without members elsewhere, in a VN that snoops.
    NoMember = "no_member", // R61
    /// Multicast beyond the link, in a VN without it.
    MulticastOff = "multicast_off", // R61
    /// IGMP or MLD that cannot be read, or that no host accepts: checksum, length, TTL, group, a fragment.
    MembershipMalformed = "membership_malformed", // R61
    /// A VN's replication list is full, so a copy was not made.
    ReplicationLimit = "replication_limit", // R60
    /// The buffer pool is empty: a copy, an answer or a held frame could not be sent.
    NoBuffer = "no_buffer",
    /// The buffer has no room for the outer header.
    NoHeadroom = "no_headroom",
    /// Came in on an uplink that is in a VLAN, without that VLAN's tag.
    OtherVlan = "other_vlan", // R95
    /// An uplink frame for another station.
    NotOurMac = "not_our_mac",
    /// A VXLAN packet for another locator.
    NotOurLocator = "not_our_locator",
    /// The outer IP version contradicts the EtherType.
    BadIpVersion = "bad_ip_version",
    /// Outer IP lengths contradict each other or the frame.
    BadIpLength = "bad_ip_length", // R1
    /// The outer IPv4 header checksum is wrong.
    BadIpChecksum = "bad_ip_checksum",
    /// An outer IPv6 extension chain that cannot be followed.
    BadIpExtension = "bad_ip_extension",
    /// An outer fragment: they are never reassembled.
    OuterFragment = "outer_fragment", // R3
    /// The outer UDP length is not that of the IP payload.
    BadUdpLength = "bad_udp_length", // R1
    /// The outer UDP checksum is there and wrong.
    BadUdpChecksum = "bad_udp_checksum", // R5
    /// The VXLAN header's I flag is 0.
    VxlanNoVniFlag = "vxlan_no_vni_flag", // R1
    /// No VN here has the packet's VNI.
    UnknownVni = "unknown_vni", // R1
    /// Less than an Ethernet header inside the VXLAN packet, or one that ends within its tags.
    InnerTruncated = "inner_truncated", // R1, R10
    /// The inner source address is a group.
    InnerMulticastSource = "inner_multicast_source", // R1
    /// The inner frame is tagged and its VN is not transparent.
    InnerVlan = "inner_vlan", // R10
    /// Outer congestion mark on an inner packet that cannot carry it.
    Congestion = "congestion", // R6
    /// From the overlay for a VM that is not here: split horizon forbids to send it on.
    NotLocal = "not_local", // R43, R46a
    /// Forwarded in flight too often: the outer TTL is used up.
    TtlExhausted = "ttl_exhausted", // R46d
    /// A datagram of another NVE, or what looks like one, beyond what control is handed: a thousand a second.
    PeerLimit = "peer_limit", // R47
    /// Underlay traffic that is not for the switch, and no exception port takes it. Usually harmless.
    NoExceptionPort = "no_exception_port",
    /// The port's transmit queue was full.
    TxFull = "tx_full",
}

/// Number of reasons.
pub const DROP_REASONS: usize = DropReason::ALL.len();

godwit_counters::counters! {
    /// Counters of one port.
    PortCounters;

    /// Frames that came in.
    rx_packets: Packets,
    /// Bytes that came in, without FCS.
    rx_bytes: Bytes,
    /// Frames that went out.
    tx_packets: Packets,
    /// Bytes that went out, without FCS.
    tx_bytes: Bytes,
    by DropReason:
    /// Frames that came in here and were dropped; [`DropReason::TxFull`] counts at the port that could not send.
    drops,
}

impl PortCounters {
    /// Frames dropped, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }
}

godwit_counters::counters! {
    /// Counters of one worker.
    WorkerCounters;

    /// Frames put into an outer header for the first time.
    encapsulated: Packets,
    /// Frames taken out of an outer header and delivered.
    decapsulated: Packets,
    /// Frames from the overlay sent on to a VM's new NVE.
    forwarded_in_flight: Packets, // R44
    /// Frames put into a hold.
    held: Packets, // R35, R45
    /// Held frames that went on in order.
    flushed: Packets,
    /// Memory that held frames take now.
    hold_bytes: Bytes as Gauge, // R45
    /// The most that they have taken.
    hold_peak_bytes: Bytes as Gauge, // R45
    /// Frames that an uplink handed over in pieces, copied into one.
    gathered: Packets,
    /// Broadcast and multicast frames that were replicated.
    replicated: Packets,
    /// Copies of frames asked for, made or not.
    copies: Packets,
    /// Outer UDP checksums left to the uplink's device.
    checksums_left: Packets, // R5
    /// Partial checksums completed.
    checksums_completed: Packets, // R11
    /// Large TCP frames cut into packets; each packet but the first counts as a copy.
    segmented: Packets, // R11
    /// Frames handed from one VM to another of this host without their checksum or uncut.
    handed_on: Packets, // R11
    /// Senders told that a frame was too big for the way to its VM; each counts as a copy.
    told_too_big: Packets, // R8
    /// Segments for VMs that are attached nowhere answered by resets; each counts as a copy.
    resets_sent: Packets, // R53
    /// Packets of VMs that the gateway sent on.
    routed: Packets, // R7, R58
    /// Packets that were too big for the way to their VM and cut into fragments; each but the first counts as a copy.
    fragmented: Packets, // R8
    /// ICMP errors that the gateway sent to VMs; each counts as a copy.
    icmp_errors: Packets, // R58
    /// Frames handed to control: DHCP and router solicitations.
    punted: Packets, // R58
    /// Reports of routers on packets too big for the underlay that quote a packet of ours.
    path_too_big: Packets, // R9
    /// Those that quote what we did not send: another locator, another VN, too little to tell.
    path_too_big_unmatched: Packets, // R9
    /// Datagrams of other NVEs, or what looks like them, handed to control.
    peer_datagrams: Packets, // R47
    /// ARP requests answered, the underlay's included.
    answered_arp: Packets,
    /// Neighbor solicitations answered, the underlay's included.
    answered_nd: Packets,
    /// Echo requests to an own locator, or to a gateway, answered.
    answered_echo: Packets,
    /// Frames for unknown destinations that began a query.
    misses: Packets, // R34
    /// Frames that ended here as they should: announcements and the underlay's neighbor answers.
    consumed: Packets,
    /// IGMP and MLD messages of VMs that control was told of.
    memberships: Packets, // R61
    /// Those beyond a port's rate, or that found no room: control was not told.
    memberships_lost: Packets, // R61
    /// Events that found their queue full.
    events_dropped: One,
    /// Updates refused because a table was full or an index out of range.
    table_full: One, // R13
    /// Updates applied.
    updates: One,
}

/// All counters of a worker.
pub struct Counters {
    /// Not tied to a port.
    pub worker: WorkerCounters,
    /// Of all ports that are gone: what they lost stays to be seen.
    pub removed: PortCounters,
    ports: Box<[PortCounters]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters {
    /// All zero, for [`MAX_PORTS`] ports.
    pub fn new() -> Counters {
        Counters::with_ports(MAX_PORTS)
    }

    /// All zero, for `ports` ports, at least one and at most [`MAX_PORTS`].
    pub fn with_ports(ports: usize) -> Counters {
        let ports = vec![PortCounters::default(); ports.clamp(1, MAX_PORTS)].into_boxed_slice();
        Counters { worker: WorkerCounters::default(), removed: PortCounters::default(), ports }
    }

    /// Makes this a copy of `other`, which has as many ports, without allocating.
    pub fn copy_from(&mut self, other: &Counters) {
        self.worker = other.worker;
        self.removed = other.removed;
        self.ports.copy_from_slice(&other.ports);
    }

    /// A port's counters; numbers beyond the last port share its place.
    #[inline(always)]
    pub fn port(&self, port: PortIdx) -> &PortCounters {
        &self.ports[usize::from(port.0).min(self.ports.len() - 1)]
    }

    #[inline(always)]
    fn port_mut(&mut self, port: PortIdx) -> &mut PortCounters {
        let last = self.ports.len() - 1;
        &mut self.ports[usize::from(port.0).min(last)]
    }

    /// All ports' counters, by port number.
    pub fn ports(&self) -> &[PortCounters] {
        &self.ports
    }

    /// A port is gone: the next with its number begins at zero.
    pub fn retire(&mut self, port: PortIdx) {
        let gone = core::mem::take(self.port_mut(port));
        self.removed += &gone;
    }

    /// Counts one dropped frame of `port`.
    #[inline]
    pub fn drop_one(&mut self, port: PortIdx, reason: DropReason) {
        self.drop_many(port, reason, 1);
    }

    /// Counts dropped frames of `port`.
    #[inline]
    pub fn drop_many(&mut self, port: PortIdx, reason: DropReason, packets: u64) {
        self.port_mut(port).drops[reason as usize] += packets;
    }

    /// Counts frames that came in.
    #[inline]
    pub fn received(&mut self, port: PortIdx, packets: u64, bytes: u64) {
        let p = self.port_mut(port);
        p.rx_packets += packets;
        p.rx_bytes += bytes;
    }

    /// Counts one frame that goes out.
    #[inline(always)]
    pub fn sent(&mut self, port: PortIdx, bytes: usize) {
        let p = self.port_mut(port);
        p.tx_packets += 1;
        p.tx_bytes += bytes as u64;
    }

    /// Counts frames that go out together.
    #[inline(always)]
    pub fn sent_many(&mut self, port: PortIdx, packets: u64, bytes: u64) {
        let p = self.port_mut(port);
        p.tx_packets += packets;
        p.tx_bytes += bytes;
    }

    /// Takes back frames that were counted as sent and found their port's queue full.
    pub fn not_sent(&mut self, port: PortIdx, packets: u64, bytes: u64) {
        let p = self.port_mut(port);
        p.tx_packets = p.tx_packets.saturating_sub(packets);
        p.tx_bytes = p.tx_bytes.saturating_sub(bytes);
        p.drops[DropReason::TxFull as usize] += packets;
    }

    /// Takes back frames that were counted as sent and go another way.
    pub fn taken_back(&mut self, port: PortIdx, packets: u64, bytes: u64) {
        let p = self.port_mut(port);
        p.tx_packets = p.tx_packets.saturating_sub(packets);
        p.tx_bytes = p.tx_bytes.saturating_sub(bytes);
    }

    /// Frames of all ports, past ones too, dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.total().drops[reason as usize]
    }

    /// All ports summed up, past ones too.
    pub fn total(&self) -> PortCounters {
        let mut sum = self.removed;
        self.ports.iter().for_each(|p| sum += p);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_dense_named_and_explained() {
        let mut names = std::collections::HashSet::new();
        for (i, r) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(r as usize, i);
            assert!(names.insert(r.name()), "{} twice", r.name());
            assert!(r.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(r.help().ends_with('.') && !r.help().starts_with(' '), "{:?}", r.help());
        }
    }

    #[test]
    fn a_removed_port_leaves_its_counts_behind_and_its_number_free() {
        let mut c = Counters::new();
        c.received(PortIdx(3), 5, 300);
        c.drop_one(PortIdx(3), DropReason::PortClosed);
        c.retire(PortIdx(3));
        c.received(PortIdx(3), 1, 60);
        assert_eq!((c.port(PortIdx(3)).rx_packets, c.port(PortIdx(3)).dropped()), (1, 0));
        assert_eq!((c.removed.rx_packets, c.removed.rx_bytes, c.total().rx_packets), (5, 300, 6));
        assert_eq!(c.dropped(DropReason::PortClosed), 1);
    }

    #[test]
    fn a_full_queue_takes_back_what_was_counted() {
        let mut c = Counters::new();
        let port = PortIdx(3);
        c.sent(port, 100);
        c.sent(port, 60);
        c.not_sent(port, 1, 60);
        assert_eq!((c.port(port).tx_packets, c.port(port).tx_bytes), (1, 100));
        assert_eq!(c.dropped(DropReason::TxFull), 1);
    }

    #[test]
    fn worker_counters_explain_themselves() {
        for entry in WorkerCounters::default().entries() {
            assert!(!entry.descriptor.name.is_empty() && entry.descriptor.help.ends_with('.'));
        }
    }

    #[test]
    fn a_port_shows_its_traffic_and_then_every_drop_reason() {
        let mut c = Counters::new();
        c.received(PortIdx(3), 5, 300);
        c.drop_many(PortIdx(3), DropReason::TxFull, 2);
        let shown: Vec<_> = c.port(PortIdx(3)).entries().map(|e| (e.descriptor.name, e.value)).collect();
        let traffic = [("rx_packets", 5), ("rx_bytes", 300), ("tx_packets", 0), ("tx_bytes", 0)];
        assert_eq!(shown[..4], traffic);
        assert_eq!((shown.len(), shown[shown.len() - 1]), (4 + DROP_REASONS, ("tx_full", 2)));
    }
}
