//! VMs with a special entry: being asked for, moving in, pausing, moving out (R35, R41–R46). Holds,
//! drains and forwards in flight; and the tick that does what time asks for.

use core::net::IpAddr;

use godwit_tables::event::Event;
use godwit_tables::holds::{About, Origin};
use godwit_tables::update::{Key, TunnelIdx};
use godwit_tables::vms::{Fib, SpecialIdx};
use godwit_tables::{Dispatch, DropReason};
use godwit_wire::Vni;

use crate::classify::{From, flight_ttl};
use crate::context::Context;
use crate::packet::{Packet, PacketSource};
use crate::too_big::Came;
use crate::{DEFAULT_TTL, DRAIN_BUDGET, Output};

impl From {
    fn origin(self) -> Origin {
        match self {
            From::Local => Origin::Local,
            From::Overlay { .. } => Origin::Overlay,
        }
    }

    /// The NVE that sent it here.
    fn sender(self) -> Option<IpAddr> {
        match self {
            From::Overlay { sender, .. } => Some(sender),
            From::Local => None,
        }
    }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Does with an inner frame for `key` whatever the tables say at this moment.
    #[cold]
    #[inline(never)]
    pub fn resolve(&mut self, packet: P, key: Key, vni: Vni, from: From) {
        if !packet.is_plain() {
            return self.resolve_parts(packet, key, vni, from);
        }
        match (self.tables.vms.get(key), from) {
            (Some(Fib::Local(port)), _) => self.deliver_from(packet, key, port, from),
            (Some(Fib::Special(at)), _) => self.special(packet, key, vni, at, from),
            (Some(Fib::Remote(tunnel)), From::Local) => self.send_elsewhere(packet, key, vni, tunnel),
            (Some(Fib::Ageing(tunnel)), From::Local) => {
                // What control has not heard is said with the next frame: unheard, the entry would die in use.
                if self.event(Event::InUse { key }) {
                    self.tables.vms.used(key, tunnel);
                }
                self.send_elsewhere(packet, key, vni, tunnel);
            }
            (None, From::Local) => self.miss(packet, key),
            (None | Some(Fib::Remote(_) | Fib::Ageing(_)), From::Overlay { .. }) => {
                self.not_here(packet, key, from)
            }
        }
    }

    /// Through the tunnel, or into a hold until it is ready.
    fn send_elsewhere(&mut self, packet: P, key: Key, vni: Vni, tunnel: TunnelIdx) {
        if self.tables.tunnels.ready(tunnel).is_some() {
            return self.tunnel_first(packet, tunnel, vni);
        }
        match self.tables.await_tunnel(key, tunnel) {
            Ok(at) => self.hold(packet, at, From::Local),
            Err(reason) => self.drop(packet, reason),
        }
    }

    pub fn deliver_from(&mut self, packet: P, key: Key, port: godwit_tables::update::PortIdx, from: From) {
        if port == self.ingress && self.tables.ports.leads_to(port, key.vn()) {
            return self.drop(packet, DropReason::Hairpin);
        }
        if from.origin() == Origin::Overlay {
            self.tables.counters.worker.decapsulated += 1;
        }
        self.deliver(port, key.vn(), packet);
    }

    /// An unknown destination: the directory is asked once, the frame waits (R34, R35).
    fn miss(&mut self, packet: P, key: Key) {
        match self.tables.begin_query(key, self.ingress, self.now) {
            Ok(at) => {
                self.event(Event::MissMac { key, port: self.ingress });
                self.hold(packet, at, From::Local);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// From the overlay, for a VM that is not here and has no forward entry (R43, R46a).
    fn not_here(&mut self, packet: P, key: Key, from: From) {
        self.tell_sender(key, from, |key, sender| Event::NotLocal { key, sender });
        self.drop(packet, DropReason::NotLocal);
    }

    fn tell_sender(&mut self, key: Key, from: From, event: impl Fn(Key, IpAddr) -> Event) {
        if let From::Overlay { sender, .. } = from
            && from != From::RETURNED
            && self.tables.may_report_sender(key, sender, self.now)
        {
            self.event(event(key, sender));
        }
    }

    fn special(&mut self, packet: P, key: Key, vni: Vni, at: SpecialIdx, from: From) {
        let origin = from.origin();
        let mut verdict = self.tables.dispatch_new(self.tables.vms.special(at), origin);
        if verdict.is_none() {
            // Older frames may go now, and newer ones must not overtake them.
            let mut budget = DRAIN_BUDGET;
            self.drain(at, &mut budget);
            verdict = self.tables.dispatch_new(self.tables.vms.special(at), origin);
        }
        match verdict {
            None | Some(Dispatch::Hold) => self.hold(packet, at, from),
            // What the old NVE held comes all at once, and a guest's queue is short: it waits here (R45).
            Some(Dispatch::Deliver(port)) if self.out.is_full(port) => {
                self.hold(packet, at, from);
                self.tables.try_again(at);
            }
            Some(Dispatch::Deliver(port)) => self.deliver_from(packet, key, port, from),
            Some(Dispatch::Tunnel { tunnel, in_flight: false }) => self.tunnel_first(packet, tunnel, vni),
            Some(Dispatch::Tunnel { tunnel, .. }) => match self.in_flight(packet, at, vni, tunnel, from) {
                Ok(()) => {}
                Err((packet, reason)) => {
                    let came = Came { by: self.ingress, vn: key.vn(), sender: from.sender() };
                    self.tell_if_too_big(&packet, reason, tunnel, came);
                    self.drop(packet, reason);
                }
            },
            Some(Dispatch::Drop(DropReason::NotLocal)) => self.not_here(packet, key, from),
            Some(Dispatch::Drop(reason)) => self.drop(packet, reason),
        }
    }

    /// The frame waits; its buffer does not (R45).
    fn hold(&mut self, packet: P, at: SpecialIdx, from: From) {
        let about = match from {
            From::Local => About::local(self.now, self.ingress, self.tables.ports.dscp(self.ingress)),
            From::Overlay { sender, ttl, dscp } => About::overlay(self.now, self.ingress, sender, ttl, dscp),
        };
        match self.tables.hold(at, packet.data(), about) {
            Ok(()) => self.out.discard(packet),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// Sends a frame on to its VM's new NVE (R44), if its outer TTL allows another journey (R46d).
    fn in_flight(
        &mut self,
        packet: P,
        at: SpecialIdx,
        vni: Vni,
        tunnel: TunnelIdx,
        from: From,
    ) -> Result<(), (P, DropReason)> {
        let (ttl, dscp) = match from {
            From::Overlay { ttl, dscp, .. } => (flight_ttl(ttl), dscp),
            From::Local => (Some(DEFAULT_TTL), self.tables.ports.dscp(self.ingress)),
        };
        // Also where the TTL is used up: that is the sender whose entry closes a loop.
        let key = self.tables.vms.special(at).key;
        self.tell_sender(key, from, |key, sender| Event::StaleSender { key, sender });
        let Some(ttl) = ttl else {
            self.tell_loop(key, from, tunnel);
            return Err((packet, DropReason::TtlExhausted));
        };
        self.tunnel(packet, tunnel, vni, (ttl, dscp))?;
        self.tables.forwarded(at, self.now);
        Ok(())
    }

    /// Frames for `key` go round, and these are two of the NVEs that send them on (R46).
    #[cold]
    fn tell_loop(&mut self, key: Key, from: From, tunnel: TunnelIdx) {
        if let From::Overlay { sender, .. } = from
            && let Some(to) = self.tables.tunnels.get(tunnel).and_then(|t| t.remote)
            && self.tables.may_report_loop(key, sender, self.now)
        {
            self.event(Event::TtlExhausted { key, sender, to });
        }
    }

    /// Sends held frames that may go, oldest first, until the budget or the buffers are used up, or the VM's port
    /// has enough to do: a guest's queue takes no thousands at a time.
    fn drain(&mut self, at: SpecialIdx, budget: &mut u32) {
        while *budget > 0 {
            let Some((origin, to)) = self.tables.next_held(at) else { return };
            if let Dispatch::Deliver(port) = to
                && self.out.is_full(port)
            {
                return;
            }
            *budget -= 1;
            if let Dispatch::Drop(reason) = to {
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
                Err((packet, reason)) => {
                    if let Dispatch::Tunnel { tunnel, .. } = to {
                        let sender = (about.origin == Origin::Overlay).then_some(about.sender);
                        let vn = self.tables.vms.special(at).key.vn();
                        let came = Came { by: about.ingress, vn, sender };
                        self.tell_if_too_big(&packet, reason, tunnel, came);
                    }
                    self.out.discard(packet);
                    self.tables.lost(at, about.ingress, reason, self.now);
                }
            }
        }
    }

    fn tell_if_too_big(&mut self, packet: &P, reason: DropReason, tunnel: TunnelIdx, came: Came) {
        if reason == DropReason::TooBig {
            self.too_big_on_its_way(packet, tunnel, came);
        }
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
            Dispatch::Tunnel { tunnel, in_flight } => {
                let Some(vni) = self.tables.vns.get(key.vn()).map(|v| v.vni) else {
                    return Err((packet, DropReason::UnknownVn));
                };
                if in_flight {
                    let from = From::Overlay { sender: about.sender, ttl: about.ttl, dscp: about.dscp };
                    return self.in_flight(packet, at, vni, tunnel, from);
                }
                self.tunnel(packet, tunnel, vni, (DEFAULT_TTL, about.dscp))?;
                self.tables.counters.worker.encapsulated += 1;
                Ok(())
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
    for _ in 0..cx.tables.ready() {
        if budget == 0 {
            break;
        }
        let Some(at) = cx.tables.pop_ready() else { continue };
        cx.drain(at, &mut budget);
        if let Some(event) = cx.tables.drained(at, cx.now).event {
            cx.event(event);
        }
    }
    if cx.tables.asks_due(cx.now) {
        cx.answer_waiting();
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
