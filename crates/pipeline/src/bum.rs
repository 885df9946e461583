//! Broadcast, unknown groups and multicast: copies to everybody in the VN (R60), or to the members of a group (R61).

use core::net::IpAddr;

use godwit_tables::DropReason;
use godwit_tables::Tables;
use godwit_tables::event::Event;
use godwit_tables::groups::routers_of;
use godwit_tables::update::{Member, Multicast, PortIdx, TunnelIdx, VnIdx};
use godwit_wire::frame::Network;
use godwit_wire::guard::{self, Word};
use godwit_wire::membership::{self, Message};
use godwit_wire::{Frame, Mac, Vni, igmp, mld};

use crate::context::Context;
use crate::packet::{Packet, PacketSource};
use crate::{DEFAULT_TTL, Output};

/// Where one copy goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Destination {
    /// A VM's port.
    Port(PortIdx),
    /// Another NVE.
    Tunnel(TunnelIdx),
}

/// For whom a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    /// Everybody in the VN.
    Everybody,
    /// DHCP servers: no other VM is to answer (R66).
    Servers,
    /// The members of the group, and multicast routers (R61).
    Group(IpAddr),
    /// Multicast routers of the family; control has read the frame (R61).
    Routers(IpAddr),
}

/// Who gets copies of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Audience {
    to: To,
    /// Control is told of the frame: IGMP or MLD of a VM here (R61).
    told: bool,
}

impl Audience {
    /// Everybody, without control.
    pub const EVERYBODY: Audience = Audience { to: To::Everybody, told: false };

    /// Why a frame for it has no receiver; `None`: it needs none, since control has read it.
    pub fn without_receiver(self) -> Option<DropReason> {
        match self.to {
            To::Everybody | To::Servers => Some(DropReason::NoReceiver),
            To::Group(_) => Some(DropReason::NoMember),
            To::Routers(_) => (!self.told).then_some(DropReason::NoMember),
        }
    }
}

/// Who gets copies of a frame that came in on `from`; `local`: from a VM. No side effects.
///
/// # Errors
/// Why nobody does.
pub(crate) fn audience(
    frame: &Frame<'_>,
    tables: &Tables,
    vn: VnIdx,
    from: PortIdx,
    local: bool,
) -> Result<Audience, DropReason> {
    let word = guard::word(frame);
    if local {
        check_word(tables, from, word)?;
    }
    if word == Some(Word::ToServer) {
        return Ok(Audience { to: To::Servers, told: false });
    }
    let policy = tables.vns.get(vn).map_or(Multicast::Flood, |v| v.multicast);
    match (policy, group_of(frame)) {
        (Multicast::Flood, _) | (_, None) => Ok(Audience::EVERYBODY),
        (Multicast::Off, Some(group)) if !is_link_local(group) => Err(DropReason::MulticastOff),
        (Multicast::Off, _) => Ok(Audience::EVERYBODY),
        (Multicast::Snoop, Some(group)) => snooped(frame, group, local, || tables.ports.is_server(from)),
    }
}

/// The same in a VN that snoops.
fn snooped(
    frame: &Frame<'_>,
    group: IpAddr,
    local: bool,
    is_router: impl Fn() -> bool,
) -> Result<Audience, DropReason> {
    let to = match membership::read(frame) {
        None if is_link_local(group) => return Ok(Audience::EVERYBODY),
        None => return Ok(Audience { to: To::Group(group), told: false }),
        Some(Err(_)) => return Err(DropReason::MembershipMalformed),
        // Who asks draws all multicast to itself: routers only. That of another NVE has looked.
        Some(Ok(Message::Query(_))) if local && !is_router() => return Err(DropReason::NotRouter),
        Some(Ok(Message::Query(_))) => To::Everybody,
        // Other hosts would take a report for their own, and be silent (RFC 4541 section 2.1.1).
        Some(Ok(Message::Report(_))) => To::Routers(routers_of(group)),
    };
    Ok(Audience { to, told: local })
}

/// The group that an IP packet is for; `None` of broadcast, of what is not IP, and of packets for a single address.
fn group_of(frame: &Frame<'_>) -> Option<IpAddr> {
    if frame.dst() == Mac::BROADCAST {
        return None;
    }
    let dst: IpAddr = match frame.network() {
        Network::V4(_) => frame.ipv4()?.dst().into(),
        Network::V6(_) => frame.ipv6()?.dst().into(),
        _ => return None,
    };
    dst.is_multicast().then_some(dst)
}

fn is_link_local(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => igmp::is_link_local(v4),
        IpAddr::V6(v6) => mld::is_link_local(v6),
    }
}

/// A VM's frame to a group may go out: what routers and DHCP servers say comes from those only (R66). The overlay's
/// frames were looked at where they came in.
///
/// # Errors
/// Why not.
pub(crate) fn check_word(tables: &Tables, from: PortIdx, word: Option<Word>) -> Result<(), DropReason> {
    match word {
        Some(Word::OfServer) if !tables.ports.is_server(from) => Err(DropReason::NotRouter),
        _ => Ok(()),
    }
}

/// The audience in the VN but the port that the frame came from. Frames from the overlay go to local
/// ports only (`vni` unset): split horizon (R46a).
pub(crate) fn destinations<'a>(
    tables: &'a Tables,
    vn: VnIdx,
    from: PortIdx,
    audience: Audience,
    to_tunnels: bool,
) -> impl Iterator<Item = Destination> + use<'a> {
    let (group, routers, servers) = match audience.to {
        To::Everybody => (None, None, false),
        To::Servers => (None, None, true),
        To::Group(group) => (Some(group), Some(routers_of(group)), false),
        To::Routers(routers) => (None, Some(routers), false),
    };
    let all = routers.is_none();
    let hears = move |p: PortIdx| p != from && (!servers || tables.ports.is_server(p));
    let ports = all.then(|| tables.ports.activated(vn).filter(move |&p| hears(p)).map(Destination::Port));
    let tunnels = (all && to_tunnels).then(|| tables.vns.replicas(vn).map(Destination::Tunnel));
    let members = group.map(|g| tables.groups.members(vn, g));
    // A router that is a member gets one copy.
    let twice = move |m| group.is_some_and(|g| tables.groups.has(vn, g, m));
    let routers = routers.map(|r| tables.groups.members(vn, r).filter(move |m| !twice(*m)));
    let joined = members.into_iter().flatten().chain(routers.into_iter().flatten());
    let joined = joined.filter_map(move |m| match m {
        Member::Port(p) => (p != from && tables.ports.is_activated(p)).then_some(Destination::Port(p)),
        Member::Tunnel(t) => to_tunnels.then_some(Destination::Tunnel(t)),
    });
    ports.into_iter().flatten().chain(tunnels.into_iter().flatten()).chain(joined)
}

/// What becomes of copies to other NVEs where there are too many (R60).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bound {
    /// There are not.
    Kept,
    /// One goes to a group of the underlay instead.
    Group(TunnelIdx),
    /// So many more go, and one at least is missing.
    Cut(usize),
}

/// The same of a VM's frame with copies to `tunnels` NVEs.
pub(crate) fn bound(tables: &Tables, vn: VnIdx, audience: Audience, tunnels: usize) -> Bound {
    let Some(v) = tables.vns.get(vn) else { return Bound::Kept };
    let everybody = matches!(audience.to, To::Everybody | To::Servers);
    let limit = tables.vns.copy_limit();
    if tunnels <= limit && !(everybody && v.replicas_missing) {
        return Bound::Kept;
    }
    v.underlay_group.map_or(Bound::Cut(tunnels.min(limit)), Bound::Group)
}

impl Destination {
    pub(crate) fn is_tunnel(self) -> bool {
        matches!(self, Destination::Tunnel(_))
    }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Copies a frame to those in its VN that it is for; with a VNI to the other NVEs, too.
    #[cold]
    pub fn flood(&mut self, packet: P, vn: VnIdx, vni: Option<Vni>) {
        if !packet.is_plain() {
            return self.parts(packet, |cx, part| cx.flood(part, vn, vni));
        }
        let audience = match Frame::read(packet.data()) {
            Ok(frame) => audience(&frame, self.tables, vn, self.ingress, vni.is_some()),
            Err(_) => Ok(Audience::EVERYBODY),
        };
        self.flood_read(packet, vn, vni, audience);
    }

    /// The same of a plain frame that has been read: whom it is for.
    pub fn flood_read(
        &mut self,
        packet: P,
        vn: VnIdx,
        vni: Option<Vni>,
        audience: Result<Audience, DropReason>,
    ) {
        let audience = match audience {
            Ok(audience) => audience,
            Err(reason @ DropReason::NotRouter) => return self.not_router(packet, reason),
            Err(reason) => return self.drop(packet, reason),
        };
        if audience.told {
            self.tell_membership(&packet);
        }
        let mut to = core::mem::take(&mut self.spare.destinations);
        to.clear();
        let room = to.capacity();
        to.extend(destinations(self.tables, vn, self.ingress, audience, vni.is_some()).take(room));
        if vni.is_some() {
            self.bound_copies(&mut to, vn, audience);
        }
        match to.split_last() {
            None => match audience.without_receiver() {
                Some(reason) => self.drop(packet, reason),
                None => self.consume(packet),
            },
            Some((&last, rest)) => {
                self.tables.counters.worker.replicated += 1;
                for &d in rest {
                    self.tables.counters.worker.copies += 1;
                    match self.copy(&packet) {
                        Some(copy) => self.replica(copy, d, vn, vni),
                        None => self.tables.counters.drop_one(self.ingress, DropReason::NoBuffer),
                    }
                }
                // The frame itself makes the last journey.
                self.replica(packet, last, vn, vni);
            }
        }
        self.spare.destinations = to;
    }

    /// Keeps to the limit of copies to other NVEs (R60).
    fn bound_copies(&mut self, to: &mut Vec<Destination>, vn: VnIdx, audience: Audience) {
        let tunnels = to.iter().filter(|d| d.is_tunnel()).count();
        match bound(self.tables, vn, audience, tunnels) {
            Bound::Kept => {}
            Bound::Group(tunnel) => {
                to.retain(|d| !d.is_tunnel());
                to.push(Destination::Tunnel(tunnel));
            }
            Bound::Cut(limit) => {
                // Copies that should have been made.
                let missing = (tunnels - limit).max(1) as u64;
                self.tables.counters.worker.copies += missing;
                self.tables.counters.drop_many(self.ingress, DropReason::ReplicationLimit, missing);
                let mut room = limit;
                to.retain(|d| {
                    let stays = !d.is_tunnel() || room > 0;
                    room -= usize::from(stays && d.is_tunnel());
                    stays
                });
            }
        }
    }

    /// Hands IGMP or MLD of a VM to control (R61).
    fn tell_membership(&mut self, packet: &P) {
        let told = self.tables.ports.may_report_membership(self.ingress, self.now)
            && self.out.punt(self.ingress, packet.data());
        let counts = &mut self.tables.counters.worker;
        counts.memberships += u64::from(told);
        counts.memberships_lost += u64::from(!told);
    }

    /// Drops what only a router may say; control hears of it once a second and port.
    pub fn not_router(&mut self, packet: P, reason: DropReason) {
        if self.tables.ports.may_report_spoof(self.ingress, self.now) {
            self.event(Event::NotRouter { port: self.ingress });
        }
        self.drop(packet, reason);
    }

    fn copy(&mut self, packet: &P) -> Option<P> {
        let mut copy = self.src.alloc()?;
        if copy.set(packet.data()) {
            return Some(copy);
        }
        self.out.discard(copy);
        None
    }

    fn replica(&mut self, packet: P, to: Destination, vn: VnIdx, vni: Option<Vni>) {
        match (to, vni) {
            (Destination::Port(port), _) => self.deliver(port, vn, packet),
            (Destination::Tunnel(tunnel), Some(vni)) => {
                // A tunnel whose next hop does not answer loses broadcast, as a wire would.
                let mark = self.tables.ports.dscp(self.ingress);
                match self.tunnel(packet, tunnel, vni, (DEFAULT_TTL, mark)) {
                    Ok(()) => self.tables.counters.worker.encapsulated += 1,
                    Err((packet, reason)) => self.drop(packet, reason),
                }
            }
            (Destination::Tunnel(_), None) => self.drop(packet, DropReason::NoTunnel),
        }
    }
}
