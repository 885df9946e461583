//! Carries out what the tables decide about a frame for a single VM. VMs with a special entry (being asked for, moving
//! in, pausing, moving out; R35, R41–R46): holds, drains, forwards in flight; and the tick, for what time asks for.

use core::net::IpAddr;

use godwit_tables::event::Event;
use godwit_tables::holds::{About, Origin};
use godwit_tables::update::{Key, PortIdx, PortRole, Target, VmState, VnIdx};
use godwit_tables::vms::{Fib, SpecialIdx, State};
use godwit_tables::{Action, Decision, Dispatch, DropReason, Egress, Inbound};
use godwit_wire::Dscp;
use godwit_wire::ethernet::Ethernet;
use godwit_wire::tenant::{self, Look};

use crate::classify::{Arrival, flight_ttl};
use crate::context::Context;
use crate::packet::{Packet, PacketSource};
use crate::too_big::Came;
use crate::{DEFAULT_TTL, DRAIN_BUDGET, Output};

/// Held frames that an entry may send in its turn, however many have one.
const LEAST_TURN: u32 = 8;

impl Arrival {
    pub(crate) fn origin(self) -> Origin {
        match self {
            Arrival::Local | Arrival::Routed => Origin::Local,
            Arrival::Overlay { .. } => Origin::Overlay,
        }
    }

    /// The frame as the tables decide about it.
    pub(crate) fn inbound(self, ingress: PortIdx, frame: &[u8]) -> Inbound<'_> {
        let routed = self == Arrival::Routed;
        Inbound { ingress, origin: self.origin(), flight: self.flight(), routed, frame }
    }

    /// The outer TTL of another journey, if it may make one (R46d).
    fn flight(self) -> Option<u8> {
        match self {
            Arrival::Overlay { ttl, .. } => flight_ttl(ttl),
            Arrival::Local | Arrival::Routed => None,
        }
    }

    /// The NVE that sent it here.
    fn sender(self) -> Option<IpAddr> {
        match self {
            Arrival::Overlay { sender, .. } => Some(sender),
            Arrival::Local | Arrival::Routed => None,
        }
    }

    /// The outer DSCP that it came with.
    fn dscp(self) -> Option<Dscp> {
        match self {
            Arrival::Overlay { dscp, .. } => dscp,
            Arrival::Local | Arrival::Routed => None,
        }
    }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Does with an inner frame for `key` whatever the tables decide at this moment.
    #[cold]
    #[inline(never)]
    pub fn resolve(&mut self, packet: P, key: Key, from: Arrival) {
        if packet.is_plain() {
            self.resolve_whole(packet, key, from);
        } else {
            self.resolve_parts(packet, key, from);
        }
    }

    /// The same for a frame that goes on as it is.
    pub fn resolve_whole(&mut self, packet: P, key: Key, from: Arrival) {
        let mut decision = self.decide(&packet, key, from);
        if let Action::Hold { at, behind: true, .. } = decision.action {
            // Older frames may go now, and newer ones must not overtake them.
            let mut budget = DRAIN_BUDGET;
            self.drain(at, &mut budget);
            decision = self.decide(&packet, key, from);
        }
        self.act(packet, key, &decision, from);
    }

    fn decide(&self, packet: &P, key: Key, from: Arrival) -> Decision {
        self.tables.decide(key, &from.inbound(self.ingress, packet.data()), self.now)
    }

    fn act(&mut self, packet: P, key: Key, decision: &Decision, from: Arrival) {
        if let (Some(Fib::Ageing(to)), Arrival::Local | Arrival::Routed) = (decision.entry, from) {
            self.tell_in_use(key, to);
        }
        match decision.action {
            Action::Deliver(port) => match decision.entry {
                // What the old NVE held comes all at once, and a guest's queue is short: it waits here (R45).
                Some(Fib::Special(at)) if self.out.is_full(port) => {
                    self.hold(packet, at, from);
                    self.tables.try_again(at);
                }
                _ => {
                    self.count_decapsulated(from);
                    self.send(port, packet);
                }
            },
            Action::Encapsulate { target, look } => self.tunnel_first(packet, target, look),
            Action::Forward { at, target, look, ttl } => {
                self.tell_stale(key, from);
                if let Err((packet, reason)) = self.forward(packet, at, target, look, (ttl, from.dscp())) {
                    self.drop(packet, reason);
                }
            }
            Action::Query { .. } => self.query(packet, key),
            Action::AwaitTunnel { target, .. } => match self.tables.await_tunnel(key, target) {
                Ok(at) => self.hold(packet, at, from),
                Err(reason) => self.drop(packet, reason),
            },
            Action::Hold { at, .. } => self.hold(packet, at, from),
            Action::Drop { reason, egress } => {
                self.give_up(packet, key, (reason, egress), decision.entry, from)
            }
        }
    }

    /// Drops a frame that goes nowhere, and tells whoever can do something about it.
    fn give_up(
        &mut self,
        packet: P,
        key: Key,
        (reason, egress): (DropReason, Option<Egress>),
        entry: Option<Fib>,
        from: Arrival,
    ) {
        match (reason, egress) {
            // Not here, and no forward entry (R43, R46a).
            (DropReason::NotLocal, _) => {
                self.tell_sender(key, from, |key, sender| Event::NotLocal { key, sender });
            }
            (DropReason::TtlExhausted, Some(Egress::Tunnel(to))) => {
                // That is the sender whose entry closes a loop.
                self.tell_stale(key, from);
                self.tell_loop(key, from, to);
            }
            (DropReason::TooBig, Some(Egress::Tunnel(to))) => match from {
                Arrival::Local => return self.too_big(packet, to.tunnel),
                Arrival::Routed => return self.routed_too_big(packet, key, to),
                Arrival::Overlay { sender, .. } => {
                    self.tell_stale(key, from);
                    let came = Came { by: self.ingress, vn: key.vn(), sender: Some(sender) };
                    return self.too_big_in_flight(packet, to, entry, came, from);
                }
            },
            (DropReason::PortGone | DropReason::PolicyDenied, _) => self.count_decapsulated(from),
            (DropReason::Detached, _) if from == Arrival::Local && entry == Some(Fib::Detached(true)) => {
                self.reset_connection(&packet, self.ingress);
            }
            _ => {}
        }
        self.drop(packet, reason);
    }

    fn count_decapsulated(&mut self, from: Arrival) {
        self.tables.counters.worker.decapsulated += u64::from(from.origin() == Origin::Overlay);
    }

    /// Tells control that an entry whose life nears its end is in use (R40). What control has not heard is told with
    /// the next frame: unheard, the entry would die in use.
    fn tell_in_use(&mut self, key: Key, to: Target) {
        if self.event(Event::InUse { key }) {
            self.tables.used(key, to);
        }
    }

    /// An unknown destination: the directory is asked once, the frame waits (R34, R35).
    fn query(&mut self, packet: P, key: Key) {
        match self.tables.begin_query(key, self.ingress, self.now) {
            Ok(at) => {
                self.event(Event::MissMac { key, port: self.ingress });
                self.hold(packet, at, Arrival::Local);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// A frame for a VM that has left: the NVE that sent it does not know yet.
    fn tell_stale(&mut self, key: Key, from: Arrival) {
        self.tell_sender(key, from, |key, sender| Event::StaleSender { key, sender });
    }

    fn tell_sender(&mut self, key: Key, from: Arrival, event: impl Fn(Key, IpAddr) -> Event) {
        if let Some(sender) = from.sender()
            && from != Arrival::RETURNED
            && self.tables.may_report_sender(key, sender, self.now)
        {
            self.event(event(key, sender));
        }
    }

    /// The frame waits; its buffer does not (R45).
    fn hold(&mut self, packet: P, at: SpecialIdx, from: Arrival) {
        let about = match from {
            Arrival::Local | Arrival::Routed => {
                About::local(self.now, self.ingress, self.tables.ports.dscp(self.ingress))
            }
            Arrival::Overlay { sender, ttl, dscp } => {
                About::overlay(self.now, self.ingress, sender, ttl, dscp)
            }
        };
        match self.tables.hold(at, packet.data(), about) {
            Ok(()) => self.out.discard(packet),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// Sends a frame on to its VM's new NVE (R44).
    fn forward(
        &mut self,
        packet: P,
        at: SpecialIdx,
        to: Target,
        look: Look,
        marks: (u8, Option<Dscp>),
    ) -> Result<(), (P, DropReason)> {
        self.tunnel_flow(packet, to, look, marks)?;
        self.tables.forwarded(at, self.now);
        Ok(())
    }

    /// Frames for `key` go round, and these are two of the NVEs that send them on (R46).
    #[cold]
    fn tell_loop(&mut self, key: Key, from: Arrival, to: Target) {
        if let Arrival::Overlay { sender, .. } = from
            && let Some(to) = self.tables.tunnels.get(to.tunnel).and_then(|t| t.remote)
            && self.tables.may_report_loop(key, sender, self.now)
        {
            self.event(Event::TtlExhausted { key, sender, to });
        }
    }

    /// Whether what frames would leave by has enough to do: a guest's queue takes no thousands at a time, nor does an
    /// uplink.
    fn has_to_wait(&self, to: Dispatch) -> bool {
        match to {
            Dispatch::Deliver(port) => self.out.is_full(port),
            Dispatch::Tunnel { target, .. } => {
                self.tables.tunnels.uplinks(target.tunnel).any(|uplink| self.out.is_full(uplink))
            }
            Dispatch::Hold | Dispatch::Drop(_) => false,
        }
    }

    /// Sends held frames that may go, oldest first, until the budget or the buffers are used up, or what they leave by
    /// has enough to do.
    fn drain(&mut self, at: SpecialIdx, budget: &mut u32) {
        while *budget > 0 {
            let Some((origin, to)) = self.tables.next_held(at) else { return };
            if self.has_to_wait(to) {
                return;
            }
            *budget -= 1;
            if let Dispatch::Drop(reason) = to {
                if reason == DropReason::Detached {
                    self.reset_held(at, origin);
                }
                self.tables.drop_held(at, origin, reason);
                continue;
            }
            // Buffer first: without one the frame is safest where it is.
            let Some(mut packet) = self.src.alloc() else { return };
            let Some(about) = self.tables.take_held(at, origin, &mut self.spare.frame) else { return };
            let sent = if packet.set(&self.spare.frame) {
                self.send_held(packet, at, &about, to)
            } else {
                Err((packet, DropReason::NoBuffer))
            };
            match sent {
                Ok(()) => self.tables.flushed(at, self.now),
                Err((packet, reason)) => self.cut_or_lose_held(packet, at, &about, to, reason),
            }
        }
    }

    /// The oldest held frame is about to be dropped, since its VM turned out to be attached nowhere: a segment is
    /// answered as one that did not wait is.
    fn reset_held(&mut self, at: SpecialIdx, origin: Origin) -> Option<()> {
        let State::Known(VmState::Detached { reset: true }) = self.tables.vms.special(at).state else {
            return None;
        };
        let mut packet = self.src.alloc()?;
        let about = self.tables.peek_held(at, origin, &mut self.spare.frame);
        let vn = self.tables.vms.special(at).key.vn();
        if let Some(about) = about.filter(|_| packet.set(&self.spare.frame))
            && self.is_of_port(&packet, about.ingress, vn)
        {
            self.reset_connection(&packet, about.ingress);
        }
        self.out.discard(packet);
        Some(())
    }

    /// The frame is from the VM that the port has now, and was not routed.
    fn is_of_port(&self, packet: &P, port: PortIdx, vn: VnIdx) -> bool {
        let src = Ethernet::new_checked(packet.data()).map(|eth| eth.src());
        let role = self.tables.ports.role(port);
        matches!(role, Some(&PortRole::Access { vn: of, mac, .. }) if of == vn && Ok(mac) == src)
    }

    /// A frame from another NVE that is too big to go on in flight: a routed one may be cut (R8), of every other one
    /// its sender is told.
    fn too_big_in_flight(&mut self, packet: P, to: Target, entry: Option<Fib>, came: Came, from: Arrival) {
        let marks = (from.flight().unwrap_or(0), from.dscp());
        match self.send_cut(packet, came.vn, to, marks, self.ingress) {
            Ok(_) => {
                if let Some(Fib::Special(at)) = entry {
                    self.tables.forwarded(at, self.now);
                }
            }
            Err(packet) => {
                self.too_big_on_its_way(&packet, to, came);
                self.drop(packet, DropReason::TooBig);
            }
        }
    }

    /// A held frame could not be sent as it is: a routed one that is too big may be cut (R8).
    fn cut_or_lose_held(
        &mut self,
        packet: P,
        at: SpecialIdx,
        about: &About,
        to: Dispatch,
        reason: DropReason,
    ) {
        let (Dispatch::Tunnel { target, in_flight }, DropReason::TooBig) = (to, reason) else {
            return self.lose_held(packet, at, about, to, reason);
        };
        let vn = self.tables.vms.special(at).key.vn();
        let ttl = if in_flight { flight_ttl(about.ttl).unwrap_or(0) } else { DEFAULT_TTL };
        match self.send_cut(packet, vn, target, (ttl, about.dscp), about.ingress) {
            Ok(_) if in_flight => self.tables.forwarded(at, self.now),
            Ok(sent) => self.tables.counters.worker.encapsulated += sent,
            Err(packet) => return self.lose_held(packet, at, about, to, reason),
        }
        self.tables.flushed(at, self.now);
    }

    /// Drops a held frame that could not be sent.
    fn lose_held(&mut self, packet: P, at: SpecialIdx, about: &About, to: Dispatch, reason: DropReason) {
        if let (Dispatch::Tunnel { target, .. }, DropReason::TooBig) = (to, reason) {
            let sender = (about.origin == Origin::Overlay).then_some(about.sender);
            let vn = self.tables.vms.special(at).key.vn();
            self.too_big_on_its_way(&packet, target, Came { by: about.ingress, vn, sender });
        }
        self.out.discard(packet);
        self.tables.lost(at, about.ingress, reason, self.now);
    }

    fn send_held(
        &mut self,
        packet: P,
        at: SpecialIdx,
        about: &About,
        to: Dispatch,
    ) -> Result<(), (P, DropReason)> {
        let key = self.tables.vms.special(at).key;
        match to {
            Dispatch::Deliver(port) => {
                if let Err(reason) = self.may_enter(port, key.vn(), &packet) {
                    return Err((packet, reason));
                }
                if about.origin == Origin::Overlay {
                    self.tables.counters.worker.decapsulated += 1;
                }
                self.send(port, packet);
                Ok(())
            }
            Dispatch::Tunnel { target, in_flight } => {
                let look = tenant::look(packet.data(), &self.tables.hash_key);
                if !in_flight {
                    self.tunnel_flow(packet, target, look, (DEFAULT_TTL, about.dscp))?;
                    self.tables.counters.worker.encapsulated += 1;
                    return Ok(());
                }
                let from = Arrival::Overlay { sender: about.sender, ttl: about.ttl, dscp: about.dscp };
                self.tell_stale(key, from);
                match from.flight() {
                    Some(ttl) => self.forward(packet, at, target, look, (ttl, about.dscp)),
                    None => {
                        self.tell_loop(key, from, target);
                        Err((packet, DropReason::TtlExhausted))
                    }
                }
            }
            Dispatch::Hold | Dispatch::Drop(_) => Err((packet, DropReason::HoldAborted)),
        }
    }
}

/// Everything that is due; see [`crate::Pipeline::tick`].
#[inline(never)]
pub(crate) fn tick<P: Packet, O: Output<P>, S: PacketSource<P>>(cx: &mut Context<'_, P, O, S>) {
    // First what time says: it may set frames free that then go at once.
    if cx.tables.specials_due(cx.now) {
        service_all(cx);
    }
    let mut budget = DRAIN_BUDGET;
    // Who has had a turn goes to the end of the line: each gets as much as the others, and whose receiver is slow
    // leaves its turn to them.
    for left in (1..=cx.tables.ready() as u32).rev() {
        if budget == 0 {
            break;
        }
        let Some(at) = cx.tables.pop_ready() else { continue };
        let mut mine = (budget / left).max(LEAST_TURN).min(budget);
        budget -= mine;
        let turn = mine;
        cx.drain(at, &mut mine);
        // To look in vain is work, too: thousands may wait for one full uplink.
        budget += if mine == turn { mine - 1 } else { mine };
        if let Some(event) = cx.tables.drained(at, cx.now).event {
            cx.event(event);
        }
    }
    if cx.tables.asks_due(cx.now) {
        cx.answer_waiting();
    }
    if cx.tables.awaited_due(cx.now) {
        cx.route_awaited();
    }
    if cx.tables.has_arrivals() {
        cx.tick_arrivals();
    }
}

/// Looks at every special entry once.
fn service_all<P: Packet, O: Output<P>, S: PacketSource<P>>(cx: &mut Context<'_, P, O, S>) {
    cx.tables.begin_scan();
    let mut place = 0;
    while let Some(at) = cx.tables.special_at(place) {
        let done = cx.tables.service(at, cx.now);
        if !done.gone {
            place += 1;
        }
        if let Some(event) = done.event {
            cx.event(event);
        }
    }
}
