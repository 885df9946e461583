//! Frames from VMs that are not plain, and those that wait for their port to open.

use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{Admission, Key, PortIdx, PortRole};
use godwit_tables::{DropReason, Tables};
use godwit_wire::ethernet::TAG_LEN;
use godwit_wire::policy::{Direction, Traffic};
use godwit_wire::{Frame, Mac};

use super::inspect::inspect;
use crate::Output;
use crate::bum::{self, Audience};
use crate::classify::Arrival;
use crate::context::Context;
use crate::disposition::Disposition;
use crate::offload;
use crate::packet::{Packet, PacketSource};
use crate::port::{Found, Port};

/// What is to be known of a frame, beside its disposition, once its bytes are no longer looked at: the frame itself
/// moves on.
struct Seen {
    src: Mac,
    /// It resolves addresses.
    resolves: bool,
    /// Whom it is for, of a plain frame to a group (R61, R66).
    audience: Result<Audience, DropReason>,
    /// What its VM's policy looks at (R23), if there is a policy that is about such frames.
    traffic: Option<Traffic>,
}

impl Seen {
    fn of(frame: &Frame<'_>, disposition: &Disposition, port: &Port, tables: &Tables) -> Seen {
        let audience = match disposition {
            Disposition::Flood => bum::audience(frame, tables, port.vn, port.port, true),
            _ => Ok(Audience::EVERYBODY),
        };
        let carried = port.filtered && disposition.is_carried();
        let traffic = if carried { Traffic::of(frame, Direction::Out) } else { None };
        Seen { src: frame.src(), resolves: frame.resolves(), audience, traffic }
    }
}

/// Everything that is not plain.
#[cold]
#[inline(never)]
pub(super) fn apply_cold<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    mut packet: P,
    port: &Port,
) {
    let frame = offload::read(&packet);
    if !packet.is_plain() {
        // The first pass counted the first piece.
        let others = packet.len() - packet.data().len();
        cx.tables.counters.received(port.port, 0, others as u64);
        if let Err(reason) = offload::admit(&packet, frame.as_ref().ok()) {
            return cx.drop(packet, reason);
        }
    }
    let Ok(frame) = frame else { return cx.drop(packet, DropReason::Truncated) };
    let (mut disposition, mut found) = inspect(&frame, port, cx.tables, cx.now);
    let mut seen = Seen::of(&frame, &disposition, port, cx.tables);
    if let Disposition::Untag = disposition {
        packet.data_mut().copy_within(..12, TAG_LEN);
        packet.trim_front(TAG_LEN);
        // Another frame now, which is read anew.
        let Ok(frame) = offload::read(&packet) else { return cx.drop(packet, DropReason::Truncated) };
        (disposition, found) = inspect(&frame, port, cx.tables, cx.now);
        seen = Seen::of(&frame, &disposition, port, cx.tables);
    }
    // What waits for its port to open is looked at again then.
    if found != Found::default() && !matches!(disposition, Disposition::FirstFrame | Disposition::Probe) {
        cx.tell_sources(port.port, seen.src, &found, port.admission == Admission::Activated);
    }
    if seen.resolves && disposition != Disposition::Drop(DropReason::ResolutionLimit) {
        cx.tables.ports.resolved(port.port, cx.now);
    }
    act(cx, packet, port, &disposition, &seen);
}

/// Does what a frame asks for.
fn act<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    mut packet: P,
    port: &Port,
    disposition: &Disposition,
    seen: &Seen,
) {
    let (plain, whole) = (packet.is_plain(), packet.data().len() == packet.len());
    match *disposition {
        // Requests and announcements are short.
        Disposition::Announce(..) | Disposition::Resolve(_) if !whole => {
            cx.drop(packet, DropReason::NotContiguous)
        }
        // What lies in pieces has not been seen in full: once it lies in one, it may turn out to say what it must not
        // (R66). What is to be cut is TCP, which says nothing of the kind.
        Disposition::Unicast(_) | Disposition::Flood | Disposition::Route | Disposition::Punt
            if !whole && packet.asks().segment == 0 =>
        {
            cx.parts(packet, |cx, part| apply_cold(cx, part, port));
        }
        Disposition::Unicast(to) => cx.within_policy(packet, seen.traffic.as_ref(), port, |cx, packet| {
            cx.resolve(packet, Key::new(port.vn, to), Arrival::Local);
        }),
        Disposition::ToOwner(to) => {
            packet.data_mut()[..6].copy_from_slice(&to.0);
            cx.resolve(packet, Key::new(port.vn, to), Arrival::Local);
        }
        Disposition::Route => {
            cx.within_policy(packet, seen.traffic.as_ref(), port, |cx, packet| cx.route(packet, port));
        }
        Disposition::Punt => {
            cx.within_policy(packet, seen.traffic.as_ref(), port, |cx, packet| cx.punt(packet));
        }
        Disposition::Flood => {
            cx.within_policy(packet, seen.traffic.as_ref(), port, |cx, packet| match plain {
                true => cx.flood_read(packet, port.vn, Some(port.vni), seen.audience),
                false => cx.flood(packet, port.vn, Some(port.vni)),
            })
        }
        Disposition::Announce(kind, ip) => {
            if cx.tables.ports.may_announce(port.port, cx.now) {
                cx.event(Event::Announce { port: port.port, kind, mac: seen.src, ip });
            }
            cx.consume(packet);
        }
        Disposition::Resolve(r) => cx.answer(packet, r),
        Disposition::FirstFrame => {
            if cx.tables.ports.may_report_first_frame(port.port, cx.now) {
                let kind = AnnounceKind::FirstFrame;
                cx.event(Event::Announce { port: port.port, kind, mac: seen.src, ip: None });
            }
            cx.await_opening(packet);
        }
        Disposition::Probe => cx.await_opening(packet),
        Disposition::Nothing => cx.consume(packet),
        Disposition::Untag => cx.drop(packet, DropReason::VlanTag),
        Disposition::Drop(reason @ DropReason::NotRouter) => cx.not_router(packet, reason),
        Disposition::Drop(reason) => cx.drop(packet, reason),
    }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Does `then` with what a VM sends, as far as its policy lets it (R23): a policy looks at packets as they leave,
    /// at a plain one's `traffic` and at what others become.
    fn within_policy(
        &mut self,
        packet: P,
        traffic: Option<&Traffic>,
        port: &Port,
        then: impl Fn(&mut Self, P),
    ) {
        if !port.filtered {
            return then(self, packet);
        }
        let one = |cx: &mut Self, packet: P, traffic: Option<&Traffic>| match cx
            .tables
            .ports
            .may_send(port.port, traffic, cx.now)
        {
            Ok(()) => then(cx, packet),
            Err(reason) => cx.drop(packet, reason),
        };
        if packet.is_plain() {
            return one(self, packet, traffic);
        }
        self.parts(packet, |cx, part| {
            let traffic = Frame::read(part.data()).map(|f| Traffic::of(&f, Direction::Out));
            match traffic {
                Ok(traffic) => one(cx, part, traffic.as_ref()),
                Err(_) => cx.drop(part, DropReason::Truncated),
            }
        });
    }

    /// A good frame of a port that is not activated yet: control may just be hearing of its VM (R45). One that its
    /// guest left unfinished becomes plain frames first: most of what a guest of virtio sends is unfinished.
    #[cold]
    fn await_opening(&mut self, packet: P) {
        if !packet.is_plain() {
            return self.parts(packet, |cx, part| cx.await_opening_in_one_piece(part));
        }
        self.await_opening_in_one_piece(packet);
    }

    fn await_opening_in_one_piece(&mut self, packet: P) {
        match self.tables.await_opening(self.ingress, packet.data(), self.now) {
            Ok(()) => self.out.discard(packet),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// A frame of a port that is open while older ones of it still wait: it goes after them, and is looked at then.
    #[cold]
    pub fn wait_behind_arrivals(&mut self, packet: P) {
        if packet.is_plain() {
            return self.wait_behind_in_one_piece(packet);
        }
        let others = packet.len() - packet.data().len();
        self.tables.counters.received(self.ingress, 0, others as u64);
        let admitted = offload::admit(&packet, offload::read(&packet).as_ref().ok());
        match admitted {
            Ok(()) => self.parts(packet, |cx, part| cx.wait_behind_in_one_piece(part)),
            Err(reason) => self.drop(packet, reason),
        }
    }

    fn wait_behind_in_one_piece(&mut self, packet: P) {
        match self.tables.await_opening(self.ingress, packet.data(), self.now) {
            Ok(()) => self.out.discard(packet),
            // What it waits for is a buffer.
            Err(DropReason::PortClosed) => self.drop(packet, DropReason::NoBuffer),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// The port has been activated: what waited for that goes before what comes now, in its order.
    #[cold]
    #[inline(never)]
    pub fn admit_arrivals(&mut self, port: &Port) {
        // Buffer first: without one the frame is safest where it is.
        while let Some(mut packet) = self.src.alloc() {
            if self.tables.take_arrival(port.port, &mut self.spare.frame).is_none() {
                return self.out.discard(packet);
            }
            self.tables.counters.worker.flushed += 1;
            if packet.set(&self.spare.frame) {
                apply_cold(self, packet, port);
            } else {
                self.drop(packet, DropReason::NoBuffer);
            }
        }
    }

    /// What became of the ports that frames wait for.
    #[cold]
    #[inline(never)]
    pub fn tick_arrivals(&mut self) {
        let Some(open) = self.tables.sort_arrivals(self.now) else { return };
        let Some(&PortRole::Access { vn, mac, admission }) = self.tables.ports.role(open) else { return };
        let ingress = core::mem::replace(&mut self.ingress, open);
        match Port::of(self.tables, open, vn, mac, admission) {
            Some(port) => self.admit_arrivals(&port),
            None => self.drop_arrivals(open, DropReason::UnknownVn),
        }
        self.ingress = ingress;
    }

    fn drop_arrivals(&mut self, port: PortIdx, reason: DropReason) {
        while self.tables.take_arrival(port, &mut self.spare.frame).is_some() {
            self.tables.counters.drop_one(port, reason);
        }
    }
}
