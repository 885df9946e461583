//! ARP and ND in the overlay (R24–R26, R28–R31): announcements are told to control and go no
//! further; requests are answered from the tables, or wait until the directory answers. Neither is
//! flooded, but for requests that the directory has no answer to, in VNs made for silent hosts.
//!
//! What they say of their sender is checked wherever they stand: to a group or to a single host, and behind
//! the tags that a transparent VN keeps ([`check`], R65, R66). Tagged ones are then carried like data, since the
//! directory knows no addresses of single VLANs.

use core::cell::OnceCell;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::neighbors::{Ask, AskRefused, Neighbor};
use godwit_tables::update::{Key, PortIdx, VmState};
use godwit_tables::vms::{Fib, State};
use godwit_tables::{DropReason, Tables};
use godwit_wire::arp::{self, Arp, ArpRepr};
use godwit_wire::ndp::{self, Advert, AdvertFrame, Ndp, Solicit, SolicitFrame};
use godwit_wire::{EtherType, Frame, Instant, Mac, WireError};

use crate::Output;
use crate::context::Context;
use crate::disposition::{Disposition, Resolution};
use crate::packet::{Packet, PacketSource};
use crate::port::{Found, Port, Use};

/// Bytes of an answer, whichever it is.
const MAX_ANSWER: usize = ndp::MAX_FRAME_LEN;

impl Resolution {
    /// Writes an answer; `None` for a request that waits.
    fn emit(&self, buf: &mut [u8; MAX_ANSWER]) -> Option<usize> {
        match self {
            Resolution::Arp(r) => r.emit_frame(buf, r.tha, r.sha).ok(),
            Resolution::Nd(a) => a.emit_frame(buf).ok(),
            Resolution::Wait { .. } | Resolution::Flood { .. } => None,
        }
    }

    /// The address that somebody probed for and may not have, with its owner (R30).
    fn taken(&self) -> Option<(IpAddr, Mac)> {
        match self {
            Resolution::Arp(r) if r.tpa.is_unspecified() => Some((r.spa.into(), r.sha)),
            Resolution::Nd(a) if !a.solicited => Some((a.target.into(), a.eth_src)),
            _ => None,
        }
    }
}

/// What a frame says to resolve addresses, behind tags or not, read once.
pub(crate) struct Message<'a> {
    pub frame: &'a Frame<'a>,
    /// Its checksum is summed up where somebody asks for it: not of what is over a port's limit (R67).
    nd: OnceCell<Result<Ndp, WireError>>,
}

impl<'a> Message<'a> {
    pub fn of(frame: &'a Frame<'a>) -> Message<'a> {
        Message { frame, nd: OnceCell::new() }
    }

    /// The neighbor discovery message.
    pub fn nd(&self) -> Result<Ndp, WireError> {
        *self.nd.get_or_init(|| self.frame.ndp())
    }

    /// It only looks whether an address is free: what comes of it is no claim, of that address or of any (R30).
    pub fn is_probe(&self) -> bool {
        match self.frame.ethertype() {
            EtherType::ARP => self.arp().is_some_and(|arp| arp.spa().is_unspecified()),
            EtherType::IPV6 => matches!(self.nd(), Ok(Ndp::Solicit(s)) if s.is_dad()),
            _ => false,
        }
    }

    /// The address that it says to everybody to be its sender's, unasked (R24, R25).
    pub fn announced(&self) -> Option<IpAddr> {
        let frame = self.frame;
        match frame.ethertype() {
            EtherType::ARP => {
                let arp = self.arp()?;
                let to_all = !frame.dst().is_unicast() && arp.is_gratuitous(frame.src());
                to_all.then(|| arp.spa().into())
            }
            EtherType::IPV6 => match self.nd() {
                Ok(Ndp::Advert(a)) if a.is_unsolicited_announce() => Some(a.target.into()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The address for which it answers a question.
    pub fn answered(&self) -> Option<IpAddr> {
        match self.frame.ethertype() {
            EtherType::ARP => self.arp().map(|arp| arp.spa().into()),
            EtherType::IPV6 => match self.nd() {
                Ok(Ndp::Advert(a)) => Some(a.target.into()),
                _ => None,
            },
            _ => None,
        }
    }

    fn arp(&self) -> Option<Arp<&'a [u8]>> {
        self.frame.arp()?.ok()
    }
}

/// What a frame from a VM says of its sender's addresses is its sender's to say (R65, R66): its readers would
/// believe it. Its Ethernet and IP source have been checked.
///
/// # Errors
/// Why it is dropped; the reason of its kind for what cannot be read.
pub(crate) fn check(
    message: &Message<'_>,
    used: impl Fn(IpAddr) -> Use,
    port: &Port,
    tables: &Tables,
    now: Instant,
    found: &mut Found,
) -> Result<(), DropReason> {
    let frame = message.frame;
    let arp = match frame.arp() {
        None => return check_nd(message, used, port, tables, now, found),
        Some(arp) => arp.map_err(|_| malformed(DropReason::ArpMalformed, found))?,
    };
    is_sender(arp.sha(), frame, found)?;
    if frame.ethertype() == EtherType::ARP {
        let spa = arp.spa().into();
        return port.check(spa, used(spa), tables, now, found);
    }
    // Answers are not for VMs to give (R27).
    if arp.op() != arp::OP_RARP_REQUEST {
        return Err(malformed(DropReason::ArpMalformed, found));
    }
    is_sender(arp.tha(), frame, found)
}

fn malformed(reason: DropReason, found: &mut Found) -> DropReason {
    found.clear();
    reason
}

/// A MAC that ARP or ND names as the sender's is the frame's source.
fn is_sender(mac: Mac, frame: &Frame<'_>, found: &mut Found) -> Result<(), DropReason> {
    if mac == frame.src() { Ok(()) } else { Err(found.refuse(mac, None, Refused::Mac)) }
}

/// Solicitations and advertisements; whose the other messages are, [`crate::bum::check_word`] knows. SEND's options
/// exempt none: a reader without SEND passes over them.
fn check_nd(
    message: &Message<'_>,
    used: impl Fn(IpAddr) -> Use,
    port: &Port,
    tables: &Tables,
    now: Instant,
    found: &mut Found,
) -> Result<(), DropReason> {
    let Some(ndp::NEIGHBOR_SOLICIT | ndp::NEIGHBOR_ADVERT) = message.frame.nd_kind() else { return Ok(()) };
    let (mac, target) = match message.nd() {
        Ok(Ndp::Solicit(s)) => (s.slla, None),
        Ok(Ndp::Advert(a)) => (a.tlla, Some(a.target.into())),
        _ => return Err(malformed(DropReason::NdMalformed, found)),
    };
    if let Some(mac) = mac {
        is_sender(mac, message.frame, found)?;
    }
    target.map_or(Ok(()), |ip| port.check(ip, used(ip), tables, now, found))
}

/// An untagged ARP packet from a VM, checked.
pub(crate) fn arp(frame: &Frame<'_>, port: &Port, tables: &Tables, now: Instant) -> Disposition {
    let Some(Ok(arp)) = frame.arp() else { return Disposition::Drop(DropReason::ArpMalformed) };
    let dst = frame.dst();
    if !dst.is_multicast() {
        // To the owner itself: to see whether it is alive, or to answer it (R28).
        return if dst == Mac::ZERO {
            Disposition::Drop(DropReason::UnknownUnicast)
        } else {
            Disposition::Unicast(dst)
        };
    }
    if arp.is_gratuitous(frame.src()) {
        return Disposition::Announce(AnnounceKind::GratuitousArp, Some(arp.spa().into()));
    }
    match arp.op() {
        arp::OP_REQUEST if !arp.tpa().is_unspecified() => {
            let ask = ask_of(port, arp.tpa().into(), arp.spa().into(), tables, now);
            resolve(&ask, tables, now)
        }
        arp::OP_REPLY => Disposition::Flood,
        _ => Disposition::Drop(DropReason::ArpMalformed),
    }
}

/// A RARP packet from a VM, checked: an announcement or nothing (R26).
pub(crate) fn rarp(frame: &Frame<'_>) -> Disposition {
    let Some(Ok(arp)) = frame.arp() else { return Disposition::Drop(DropReason::ArpMalformed) };
    if frame.dst() == Mac::BROADCAST && arp.is_rarp_announce(frame.src()) {
        return Disposition::Announce(AnnounceKind::Rarp, None);
    }
    Disposition::Drop(DropReason::ArpMalformed)
}

/// An untagged IPv6 packet from a VM to a group, checked.
pub(crate) fn nd(message: &Message<'_>, port: &Port, tables: &Tables, now: Instant) -> Disposition {
    match message.nd() {
        Ok(Ndp::Solicit(s)) => solicit(&s, port, tables, now),
        Ok(Ndp::Advert(adv)) => advert(&adv, port, tables, now),
        Ok(Ndp::RouterSolicit | Ndp::RouterAdvert | Ndp::Redirect) | Err(WireError::NotThis) => {
            Disposition::Flood
        }
        Err(_) if message.frame.resolves() => Disposition::Drop(DropReason::NdMalformed),
        Err(_) => Disposition::Drop(DropReason::InnerMalformed),
    }
}

fn solicit(s: &Solicit, port: &Port, tables: &Tables, now: Instant) -> Disposition {
    let target = s.target.into();
    // An option that we cannot speak for, SEND's for instance: the owner must see it (R29). A probe is answered here
    // whatever is in it: its owner's answer would be to all, and be taken for an announcement (R30).
    // Where VMs are not bridged, the gateway alone is asked.
    let bridged = port.routing.is_none_or(|r| !r.routed_only);
    let only_owner = s.other_options && !s.is_dad() && bridged;
    if only_owner
        && let Some(Neighbor::Known { mac, .. }) = tables.neighbors.get(port.vn, target, now)
        && mac != port.mac
        && port.routing.is_none_or(|r| r.mac != mac)
    {
        return Disposition::ToOwner(mac);
    }
    resolve(&Ask { only_owner, ..ask_of(port, target, s.src.into(), tables, now) }, tables, now)
}

fn advert(adv: &Advert, port: &Port, tables: &Tables, now: Instant) -> Disposition {
    if !adv.is_unsolicited_announce() {
        return Disposition::Drop(DropReason::NdMalformed);
    }
    let target = adv.target.into();
    let other = |n| matches!(n, Neighbor::Known { mac, .. } if mac != port.mac);
    if !adv.overrides && tables.neighbors.get(port.vn, target, now).is_some_and(other) {
        // Without the O flag it must not replace what is known (R25).
        return Disposition::Nothing;
    }
    let (router, overrides) = (adv.router, adv.overrides);
    Disposition::Announce(AnnounceKind::NeighborAdvertisement { router, overrides }, Some(target))
}

pub(crate) fn ask_of(port: &Port, target: IpAddr, ip: IpAddr, tables: &Tables, now: Instant) -> Ask {
    let expires = tables.ask_expires(now);
    Ask { vn: port.vn, target, port: port.port, mac: port.mac, ip, only_owner: false, expires }
}

/// Answers a request, lets it wait, or drops it.
pub(crate) fn resolve(ask: &Ask, tables: &Tables, now: Instant) -> Disposition {
    match answer(ask, tables, now) {
        Some(Ok(r)) => Disposition::Resolve(r),
        Some(Err(DropReason::UnknownTarget)) if asks_silent(ask, tables, now) => {
            Disposition::Resolve(Resolution::Flood { ask: *ask })
        }
        Some(Err(reason)) => Disposition::Drop(reason),
        None => match tables.check_ask(ask, now) {
            Ok(query) => Disposition::Resolve(Resolution::Wait { ask: *ask, query }),
            Err(AskRefused::Repeated) => Disposition::Drop(DropReason::AskRepeated),
            Err(AskRefused::Full) => Disposition::Drop(DropReason::AskLimit),
        },
    }
}

/// The answer to a request, or why there is none; `None` where the tables do not know.
fn answer(ask: &Ask, tables: &Tables, now: Instant) -> Option<Result<Resolution, DropReason>> {
    if let Some(routing) = tables.routes.of_vn(ask.vn).filter(|r| r.routed_only) {
        return answer_for_all(ask, routing.mac, tables, now);
    }
    let (owner, router) = match tables.neighbors.get(ask.vn, ask.target, now)? {
        Neighbor::Known { mac, router } => (mac, router),
        Neighbor::Absent { .. } => return Some(Err(DropReason::UnknownTarget)),
    };
    // A VM that probes for its own address, on its old or its new server, must hear nothing (R30); and one at the same
    // port hears the owner itself (R28).
    let key = Key::new(ask.vn, owner);
    if owner == ask.mac || tables.vms.get(key) == Some(Fib::Local(ask.port)) {
        return Some(Err(DropReason::OwnAddress));
    }
    let state = tables.vms.special_of(key).map(|s| s.state);
    if let Some(State::Known(VmState::Absent { .. })) = state {
        return Some(Err(DropReason::UnknownTarget));
    }
    Some(reply(ask, owner, router))
}

fn reply(ask: &Ask, owner: Mac, router: bool) -> Result<Resolution, DropReason> {
    match (ask.target, ask.ip) {
        (IpAddr::V4(target), IpAddr::V4(ip)) => {
            Ok(Resolution::Arp(ArpRepr::reply_to(&arp_request(ask.mac, ip, target), owner)))
        }
        (IpAddr::V6(target), IpAddr::V6(ip)) => {
            Ok(Resolution::Nd(AdvertFrame::reply_to(&solicitation(ip, target), ask.mac, owner, router)))
        }
        _ => Err(DropReason::UnknownTarget),
    }
}

/// The answer where VMs are not bridged (R58): each address is at the gateway's MAC, but for the asker's own. Whoever
/// probes hears of others that have the address, and of nobody else (R30).
fn answer_for_all(
    ask: &Ask,
    gateway: Mac,
    tables: &Tables,
    now: Instant,
) -> Option<Result<Resolution, DropReason>> {
    let known = tables.neighbors.get(ask.vn, ask.target, now);
    let probes = ask.ip.is_unspecified();
    let router = match known {
        Some(Neighbor::Known { mac, router }) => {
            let key = Key::new(ask.vn, mac);
            if mac == ask.mac || tables.vms.get(key) == Some(Fib::Local(ask.port)) {
                return Some(Err(DropReason::OwnAddress));
            }
            let state = tables.vms.special_of(key).map(|s| s.state);
            if probes && matches!(state, Some(State::Known(VmState::Absent { .. }))) {
                return Some(Err(DropReason::UnknownTarget));
            }
            router && mac == gateway
        }
        Some(Neighbor::Absent { .. }) if probes => return Some(Err(DropReason::UnknownTarget)),
        None if probes => return None,
        Some(Neighbor::Absent { .. }) | None => {
            let own = tables.ports.sources(ask.port).is_some_and(|s| s.lists(ask.target));
            if own || ask.target == ask.ip {
                return Some(Err(DropReason::OwnAddress));
            }
            false
        }
    };
    Some(reply(ask, gateway, router))
}

/// The VN has silent hosts, and one of them may have the address (R31).
fn asks_silent(ask: &Ask, tables: &Tables, now: Instant) -> bool {
    let absent = || matches!(tables.neighbors.get(ask.vn, ask.target, now), Some(Neighbor::Absent { .. }));
    tables.vns.get(ask.vn).is_some_and(|v| v.flood_gap.is_some()) && absent()
}

fn arp_request(mac: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> ArpRepr {
    ArpRepr::request(mac, ip, target)
}

fn solicitation(src: Ipv6Addr, target: Ipv6Addr) -> Solicit {
    Solicit { src, dst: target, target, slla: None, nonce: None, other_options: false }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Sends the answer in the request's own buffer, back to where it came from, or lets the
    /// request wait.
    pub fn answer(&mut self, mut packet: P, r: Resolution) {
        if let Resolution::Wait { ask, query } = r {
            if query {
                self.event(Event::MissIp { vn: ask.vn, ip: ask.target, port: ask.port });
            }
            self.tables.ask(ask, query, self.now);
            return self.out.discard(packet);
        }
        if let Resolution::Flood { ask } = r {
            return self.ask_silent(packet, &ask);
        }
        let mut buf = [0; MAX_ANSWER];
        let fits = r.emit(&mut buf).is_some_and(|n| fill(&mut packet, &buf[..n]));
        if !fits {
            return self.drop(packet, DropReason::NoBuffer);
        }
        self.count_answer(self.ingress, &r);
        self.send(self.ingress, packet);
    }

    /// Lets everybody in the VN see a request, unless there were too many of late (R31).
    fn ask_silent(&mut self, packet: P, ask: &Ask) {
        let vni = self.tables.vns.get(ask.vn).map(|v| v.vni);
        if self.tables.vns.may_flood_silent(ask.vn, self.now) {
            self.flood(packet, ask.vn, vni);
        } else {
            self.drop(packet, DropReason::FloodLimit);
        }
    }

    /// The directory has no answer to a request that waited: it is made once more, for silent hosts.
    fn ask_silent_late(&mut self, ask: &Ask) -> Result<(), DropReason> {
        let mut buf = [0; MAX_ANSWER];
        let n = request_frame(ask, &mut buf).ok_or(DropReason::NoBuffer)?;
        let mut packet = self.src.alloc().ok_or(DropReason::NoBuffer)?;
        if !packet.set(&buf[..n]) {
            self.out.discard(packet);
            return Err(DropReason::NoBuffer);
        }
        let ingress = core::mem::replace(&mut self.ingress, ask.port);
        self.ask_silent(packet, ask);
        self.ingress = ingress;
        Ok(())
    }

    fn count_answer(&mut self, to: PortIdx, r: &Resolution) {
        if let Some((ip, owner)) = r.taken()
            && self.tables.ports.may_report_taken(to, self.now)
        {
            self.event(Event::AddressTaken { port: to, ip, owner });
        }
        match r {
            Resolution::Arp(_) => self.tables.counters.worker.answered_arp += 1,
            _ => self.tables.counters.worker.answered_nd += 1,
        }
    }

    /// Answers the requests whose answers came, and ends those that waited long enough (R31).
    pub fn answer_waiting(&mut self) {
        let mut at = 0;
        while let Some(ask) = self.tables.asks().get(at) {
            match answer(&ask, self.tables, self.now) {
                Some(verdict) => {
                    self.tables.take_ask(at);
                    let done = match verdict {
                        Ok(_) if ask.only_owner => Err(DropReason::AskOwner),
                        Ok(r) => self.answer_late(&ask, &r),
                        // Made anew, it would lack what only its sender can write.
                        Err(DropReason::UnknownTarget)
                            if !ask.only_owner && asks_silent(&ask, self.tables, self.now) =>
                        {
                            self.ask_silent_late(&ask)
                        }
                        Err(reason) => Err(reason),
                    };
                    if let Err(reason) = done {
                        self.tables.counters.drop_one(ask.port, reason);
                    }
                }
                None if ask.expires <= self.now => {
                    self.tables.take_ask(at);
                    self.tables.counters.drop_one(ask.port, DropReason::AskExpired);
                }
                None => at += 1,
            }
        }
        self.tables.asks_seen();
    }

    /// Sends an answer in a buffer of its own.
    fn answer_late(&mut self, ask: &Ask, r: &Resolution) -> Result<(), DropReason> {
        if !self.tables.ports.leads_to(ask.port, ask.vn) {
            return Err(DropReason::PortGone);
        }
        let mut buf = [0; MAX_ANSWER];
        let n = r.emit(&mut buf).ok_or(DropReason::NoBuffer)?;
        let mut packet = self.src.alloc().ok_or(DropReason::NoBuffer)?;
        if !packet.set(&buf[..n]) {
            self.out.discard(packet);
            return Err(DropReason::NoBuffer);
        }
        self.count_answer(ask.port, r);
        self.send(ask.port, packet);
        Ok(())
    }
}

/// A request as its asker sent it, written anew; its length.
fn request_frame(ask: &Ask, buf: &mut [u8; MAX_ANSWER]) -> Option<usize> {
    match (ask.target, ask.ip) {
        (IpAddr::V4(target), IpAddr::V4(ip)) => {
            arp_request(ask.mac, ip, target).emit_frame(buf, Mac::BROADCAST, ask.mac).ok()
        }
        (IpAddr::V6(target), IpAddr::V6(ip)) => {
            let full = SolicitFrame::resolve(ask.mac, ip, target);
            // Duplicate address detection names no link-layer address (RFC 4861 section 4.3).
            let slla = full.slla.filter(|_| !ip.is_unspecified());
            SolicitFrame { slla, ..full }.emit_frame(buf).ok()
        }
        _ => None,
    }
}

/// Replaces a frame by an answer. An ARP request and its reply are equally long, so the padding of
/// a padded request stays.
fn fill<P: Packet>(packet: &mut P, answer: &[u8]) -> bool {
    if answer.len() != arp::FRAME_LEN {
        return packet.set(answer);
    }
    let Some(room) = packet.data_mut().get_mut(..answer.len()) else { return false };
    room.copy_from_slice(answer);
    true
}
