//! Packets that VMs hand to their gateway (R7, R58): what becomes of each, decided without side effects, and done.
//!
//! Routing happens once, where a packet comes from a VM: one off the TTL, the Ethernet addresses of the target VM and
//! of the gateway, and from then on it is an ordinary frame for that VM.

use core::net::IpAddr;

use godwit_tables::awaited::{Fate, Place};
use godwit_tables::holds::About;
use godwit_tables::update::{Key, NextHop, PortIdx, PortRole, Target, VmState, VnIdx, VnRouting};
use godwit_tables::vms::{Fib, State};
use godwit_tables::{DropReason, Tables};
use godwit_wire::forward::{self, Header, Unroutable};
use godwit_wire::fragment::Fragments;
use godwit_wire::route::{decrement_ttl, is_martian, set_addresses};
use godwit_wire::{Dscp, Frame, Icmpv4, Icmpv6, ethernet, icmpv4, icmpv6, proto, tenant};

use crate::classify::Arrival;
use crate::context::Context;
use crate::gateway::{self, Letter, Problem};
use crate::packet::{Packet, PacketSource};
use crate::port::Port;
use crate::too_big::Back;
use crate::{DEFAULT_TTL, DRAIN_BUDGET, Output};

const L3: usize = ethernet::HEADER_LEN;

/// What becomes of a packet that is to be routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Routed {
    /// It goes to this VM.
    To(Key),
    /// An echo request to the gateway, which is answered.
    Echo,
    /// It waits for a route, unless the tables say that nobody has the address.
    Await(Place),
    /// It is dropped, and its sender may be told.
    Drop(DropReason, Option<Problem>),
}

/// What becomes of a packet of a VM in a VN with this part in a routing domain. The packet path acts on it, and a trace
/// prints it.
pub(crate) fn look_up(frame: &Frame<'_>, routing: &VnRouting, tables: &Tables) -> Routed {
    let header = match forward::read(frame) {
        Ok(header) if header.ttl == 0 => return Routed::Drop(DropReason::TtlExceeded, None),
        Ok(header) => header,
        Err(why) => return unroutable(why),
    };
    let to = tables.routes.get(routing.domain, header.dst);
    if header.dst == routing.mac.link_local() || matches!(to, Some(NextHop::Gateway(_))) {
        return to_gateway(frame, &header);
    }
    if let Err(why) = header.check_addresses() {
        return unroutable(why);
    }
    if header.ttl == 1 {
        return Routed::Drop(DropReason::TtlExceeded, Some(Problem::TimeExceeded));
    }
    match to {
        Some(NextHop::Vm(key)) => Routed::To(key),
        Some(NextHop::Subnet { vn, ask: true }) => {
            Routed::Await(Place { domain: routing.domain, vn, ip: header.dst })
        }
        Some(NextHop::Subnet { ask: false, .. } | NextHop::Gateway(_)) => {
            Routed::Drop(DropReason::HostUnreachable, Some(Problem::Host))
        }
        None => Routed::Drop(DropReason::NoRoute, Some(Problem::NoRoute)),
    }
}

fn unroutable(why: Unroutable) -> Routed {
    let reason = match why {
        Unroutable::Malformed => DropReason::NotRoutable,
        Unroutable::Martian => DropReason::RouteMartian,
        Unroutable::Options => DropReason::RouteOptions,
    };
    Routed::Drop(reason, None)
}

/// A packet for the gateway itself. A VM that has no other address yet may speak from a link-local one.
fn to_gateway(frame: &Frame<'_>, header: &Header) -> Routed {
    let near = matches!(header.src, IpAddr::V6(a) if a.is_unicast_link_local());
    if is_martian(header.src) && !near {
        return Routed::Drop(DropReason::RouteMartian, None);
    }
    let refused = |problem| Routed::Drop(DropReason::GatewayRefused, problem);
    let Some((upper, _)) = frame.upper() else { return refused(None) };
    match (upper.proto, header.src) {
        _ if upper.is_later() => refused(None),
        (proto::ICMP, IpAddr::V4(_)) | (proto::ICMPV6, IpAddr::V6(_)) if is_echo(frame) => Routed::Echo,
        // No error answers a message of the protocol that errors are of.
        (proto::ICMP, IpAddr::V4(_)) | (proto::ICMPV6, IpAddr::V6(_)) => refused(None),
        (proto::UDP, _) => refused(Some(Problem::Port)),
        _ => refused(Some(Problem::Protocol)),
    }
}

/// An echo request that [`icmpv4::echo_reply_in_place`] or its like for IPv6 answers.
fn is_echo(frame: &Frame<'_>) -> bool {
    if let Some(ip) = frame.ipv4() {
        let good = |m: &Icmpv4<_>| m.kind() == icmpv4::ECHO_REQUEST && m.code() == 0 && m.verify_checksum();
        return !ip.is_fragment() && Icmpv4::new_checked(ip.payload()).is_ok_and(|m| good(&m));
    }
    frame.ipv6().is_some_and(|ip| {
        let sound = |m: &Icmpv6<_>| m.verify_checksum(ip.src(), ip.dst());
        let good = |m: &Icmpv6<_>| m.kind() == icmpv6::ECHO_REQUEST && m.code() == 0 && sound(m);
        ip.next_header() == proto::ICMPV6 && Icmpv6::new_checked(ip.payload()).is_ok_and(|m| good(&m))
    })
}

/// The gateway has sent the frame on, here or at another NVE: it comes from its MAC, which no VM has.
pub(crate) fn is_routed(frame: &Frame<'_>, vn: VnIdx, tables: &Tables) -> bool {
    tables.routes.of_vn(vn).is_some_and(|r| r.mac == frame.src())
}

/// How a routed frame is cut that is too big for the way `to`: so that its fragments, which are a flow of their own,
/// pass the way of theirs. `None` where it must not be cut (R8).
pub(crate) fn fragments(frame: &Frame<'_>, to: Target, tables: &Tables) -> Option<Fragments> {
    let ip = frame.ipv4().filter(|ip| !ip.dont_fragment() && frame.l3() == L3)?;
    let bytes = frame.bytes();
    let max = |bytes: &[u8]| {
        let look = tenant::look(bytes, &tables.hash_key);
        let (way, _) = tables.tunnels.ready_for_frame::<true>(to.tunnel, look.is_v4(), look.hash)?;
        Some(usize::from(way.inner_max))
    };
    let whole = max(bytes)?;
    // A fragment as small as any has the addresses and the protocol of all.
    let mut small = [0; L3 + 60 + 8];
    let mtu = ip.header_len() + 8;
    let first = Fragments::of(frame.payload(), mtu).ok()?;
    let len = first.emit(0, frame.payload(), &mut small[L3..]).ok()?;
    small[..L3].copy_from_slice(&bytes[..L3]);
    let max = whole.min(max(&small[..L3 + len])?);
    Fragments::of(frame.payload(), max.checked_sub(L3)?).ok()
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Routes a frame of a port's VM; one that its guest left unfinished becomes plain ones first, since each packet
    /// has a TTL of its own.
    #[cold]
    #[inline(never)]
    pub fn route(&mut self, packet: P, port: &Port) {
        if !packet.is_plain() {
            return self.parts(packet, |cx, part| cx.route(part, port));
        }
        match self.older_for(&packet, port) {
            Some(place) => self.wait_behind(packet, &place),
            None => self.route_next(packet, port),
        }
    }

    /// Routes a packet that no older one for its destination waits before.
    fn route_next(&mut self, packet: P, port: &Port) {
        let Some(routing) = port.routing else { return self.drop(packet, DropReason::NotRoutable) };
        let Ok(frame) = Frame::read(packet.data()) else { return self.drop(packet, DropReason::Truncated) };
        match look_up(&frame, &routing, self.tables) {
            Routed::To(key) => self.send_on(packet, key, &routing),
            Routed::Echo => self.answer_echo(packet),
            Routed::Await(place) => self.await_route(packet, &place, &routing),
            Routed::Drop(reason, problem) => self.refuse_route(packet, reason, problem, &routing),
        }
    }

    /// One hop less, other addresses, and from here on a frame as any other for its VM.
    fn send_on(&mut self, mut packet: P, key: Key, routing: &VnRouting) {
        let bytes = packet.data_mut();
        let went = bytes.get_mut(L3..).and_then(decrement_ttl).is_some()
            && set_addresses(bytes, key.mac(), routing.mac);
        debug_assert!(went, "an IP packet with hops left");
        self.tables.counters.worker.routed += 1;
        self.resolve(packet, key, Arrival::Routed);
    }

    fn refuse_route(&mut self, packet: P, reason: DropReason, problem: Option<Problem>, routing: &VnRouting) {
        if let Some(problem) = problem {
            self.tell_problem(packet.data(), self.ingress, routing, problem);
        }
        self.drop(packet, reason);
    }

    /// The directory is asked for the address, and the packet waits (R35).
    fn await_route(&mut self, packet: P, place: &Place, routing: &VnRouting) {
        let about = About::local(self.now, self.ingress, self.tables.ports.dscp(self.ingress));
        match self.tables.await_route(place, packet.data(), about) {
            Ok(query) => {
                if query {
                    self.ask_for_route(place.vn, place.ip);
                }
                self.out.discard(packet);
            }
            Err(reason) => {
                let problem = (reason == DropReason::HostUnreachable).then_some(Problem::Host);
                self.refuse_route(packet, reason, problem, routing);
            }
        }
    }

    /// Sends on what waited for a route that is there now, and ends what waited long enough: [`DRAIN_BUDGET`] packets.
    /// More of it is due at once.
    #[cold]
    #[inline(never)]
    pub fn route_awaited(&mut self) {
        let (mut at, mut budget) = (0, DRAIN_BUDGET);
        while let Some(fate) = self.tables.fate(at, self.now) {
            if fate == Fate::Waits {
                at += 1;
                continue;
            }
            if budget == 0 || !self.end_first(at, fate) {
                return;
            }
            budget -= 1;
        }
        self.tables.awaited_seen();
    }

    /// Ends the wait of the first packet at `at`; false where there is no buffer for it.
    fn end_first(&mut self, at: usize, fate: Fate) -> bool {
        // Buffer first: without one the frame is safest where it is.
        let Some(mut packet) = self.src.alloc() else { return false };
        let place = self.tables.awaited_place(at);
        let Some(about) = self.tables.take_awaited(at, &mut self.spare.frame) else {
            self.out.discard(packet);
            return true;
        };
        let ingress = core::mem::replace(&mut self.ingress, about.ingress);
        match packet.set(&self.spare.frame) {
            true => self.end_wait(packet, fate, place),
            false => self.drop(packet, DropReason::NoBuffer),
        }
        self.ingress = ingress;
        true
    }

    /// Where packets wait that are older than this one, have its destination, and may go but cannot yet. Those that can
    /// go first.
    fn older_for(&mut self, packet: &P, port: &Port) -> Option<Place> {
        if !self.tables.awaited_due(self.now) {
            return None;
        }
        let domain = port.routing?.domain;
        let dst = forward::read(&Frame::read(packet.data()).ok()?).ok()?.dst;
        let mut budget = DRAIN_BUDGET;
        loop {
            let at = self.tables.awaited_for(domain, dst)?;
            let fate = self.tables.fate(at, self.now).filter(|fate| *fate == Fate::Goes)?;
            if budget == 0 || !self.end_first(at, fate) {
                return self.tables.awaited_place(at);
            }
            budget -= 1;
        }
    }

    fn wait_behind(&mut self, packet: P, place: &Place) {
        let about = About::local(self.now, self.ingress, self.tables.ports.dscp(self.ingress));
        match self.tables.wait_behind(place, packet.data(), about) {
            Ok(()) => self.out.discard(packet),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// The port of a packet that waited, if it is still its VM's: another one may have the number by now.
    fn port_that_waited(&self, packet: &P, place: Option<Place>) -> Option<(Port, VnRouting)> {
        let &PortRole::Access { vn, mac, admission } = self.tables.ports.role(self.ingress)? else {
            return None;
        };
        let port = Port::of(self.tables, self.ingress, vn, mac, admission)?;
        let routing = port.routing.filter(|r| place.is_some_and(|p| p.domain == r.domain))?;
        let src = Frame::read(packet.data()).ok()?.src();
        port.spoken_by(src, self.tables, self.now)?;
        Some((port, routing))
    }

    /// A packet of [`Self::ingress`](Context::ingress) has waited for a route.
    fn end_wait(&mut self, packet: P, fate: Fate, place: Option<Place>) {
        let Some((port, routing)) = self.port_that_waited(&packet, place) else {
            return self.drop(packet, DropReason::HoldAborted);
        };
        match fate {
            Fate::Lost(reason) => self.refuse_route(packet, reason, Some(Problem::Host), &routing),
            Fate::Goes | Fate::Waits => {
                self.tables.counters.worker.flushed += 1;
                self.route_next(packet, &port);
            }
        }
    }

    /// A packet of a VM here that was routed and is too big for its way: it is cut, or its sender is told (R8).
    #[cold]
    pub fn routed_too_big(&mut self, packet: P, key: Key, to: Target) {
        let marks = (DEFAULT_TTL, self.tables.ports.dscp(self.ingress));
        match self.send_cut(packet, key.vn(), to, marks, self.ingress) {
            Ok(sent) => self.tables.counters.worker.encapsulated += sent,
            Err(packet) => {
                self.tell_routed_too_big(packet.data(), key.vn(), to, self.ingress);
                self.drop(packet, DropReason::TooBig);
            }
        }
    }

    /// Cuts a routed packet that is too big for its way, and sends the fragments (R8); how many went. Those that did
    /// not are counted at the port `by`.
    ///
    /// # Errors
    /// The packet, where it was not routed or must not be cut.
    pub fn send_cut(
        &mut self,
        packet: P,
        vn: VnIdx,
        to: Target,
        marks: (u8, Option<Dscp>),
        by: PortIdx,
    ) -> Result<u64, P> {
        let Some(sent) = self.send_fragments(packet.data(), vn, to, marks, by) else { return Err(packet) };
        self.out.discard(packet);
        Ok(sent)
    }

    /// The same of a packet that lies elsewhere than in a buffer; `None` where it was not routed or must not be cut.
    pub fn send_fragments(
        &mut self,
        bytes: &[u8],
        vn: VnIdx,
        to: Target,
        marks: (u8, Option<Dscp>),
        by: PortIdx,
    ) -> Option<u64> {
        let frame = Frame::read(bytes).ok().filter(|f| is_routed(f, vn, self.tables))?;
        let cut = fragments(&frame, to, self.tables)?;
        self.tables.counters.worker.fragmented += 1;
        self.tables.counters.worker.copies += cut.count() as u64 - 1;
        let mut sent = 0;
        for i in 0..cut.count() {
            match self.send_fragment(bytes, &cut, i, to, marks) {
                Ok(()) => sent += 1,
                Err(reason) => self.tables.counters.drop_one(by, reason),
            }
        }
        Some(sent)
    }

    fn send_fragment(
        &mut self,
        bytes: &[u8],
        cut: &Fragments,
        i: usize,
        to: Target,
        marks: (u8, Option<Dscp>),
    ) -> Result<(), DropReason> {
        let mut part = self.src.alloc().ok_or(DropReason::NoBuffer)?;
        let made = part.append(L3 + cut.len(i)).is_some_and(|room| {
            room[..L3].copy_from_slice(&bytes[..L3]);
            cut.emit(i, &bytes[L3..], &mut room[L3..]).is_ok()
        });
        if !made {
            self.out.discard(part);
            return Err(DropReason::NoBuffer);
        }
        self.tunnel(part, to.tunnel, to.vni, marks).map_err(|(part, reason)| {
            self.out.discard(part);
            reason
        })
    }

    /// Tells the sender of a routed packet for the VN how much passes, wherever that VM is now: its address is in the
    /// domain, and the packet's Ethernet source is the gateway's. `by` is charged for it.
    pub fn tell_routed_too_big(&mut self, bytes: &[u8], vn: VnIdx, to: Target, by: PortIdx) -> Option<()> {
        if !self.tables.ports.has_error_left(by, self.now) {
            return None;
        }
        let frame = Frame::read(bytes).ok()?;
        let routing = self.tables.routes.of_vn(vn)?;
        let header = forward::read(&frame).ok()?;
        let look = tenant::Look::of(&frame, &self.tables.hash_key);
        let (way, _) = self.tables.tunnels.ready_for_frame::<true>(to.tunnel, look.is_v4(), look.hash)?;
        let mtu = usize::from(way.inner_max).checked_sub(L3)? as u32;
        let NextHop::Vm(sender) = self.tables.routes.get(routing.domain, header.src)? else { return None };
        let from = self.tables.routes.gateway(sender.vn(), header.src)?;
        let back = match self.tables.vms.get(sender)? {
            Fib::Local(port) if self.tables.ports.leads_to(port, sender.vn()) => Back::Port(port),
            Fib::Remote(to) | Fib::Ageing(to) => Back::Tunnel(to),
            Fib::Special(at) => match self.tables.vms.special(at).state {
                State::Known(VmState::Local { port } | VmState::Arrived { port, .. }) => {
                    self.tables.ports.leads_to(port, sender.vn()).then_some(Back::Port(port))?
                }
                State::Known(state) => Back::Tunnel(state.target()?),
                State::Querying { .. } => return None,
            },
            Fib::Local(_) | Fib::Detached(_) => return None,
        };
        let letter = Letter { from, macs: (routing.mac, sender.mac()) };
        let mut buf = [0; gateway::MAX_ERROR];
        let len = gateway::error(&frame, &letter, Problem::TooBig(mtu), &mut buf)?;
        self.send_back(&buf[..len], &back, by)
    }
}
