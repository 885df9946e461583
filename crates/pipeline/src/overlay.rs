//! Frames from an uplink: VXLAN to us is decapsulated, everything else is the underlay's own.

use godwit_tables::event::Event;
use godwit_tables::locations::Home;
use godwit_tables::update::{Key, VnIdx};
use godwit_tables::vms::Fib;
use godwit_tables::{DropReason, Tables};
use godwit_wire::Mac;
use godwit_wire::ethernet::{TAG_LEN, strip_tag};
use godwit_wire::outer::{Outer, parse_outer};

use crate::classify::{Addresses, Arrival, is_group, outer_drop};
use crate::context::Context;
use crate::decap::{LastVn, Seen, decapsulate, find_vn, is_from_sender, look_inside, usual};
use crate::packet::{Packet, PacketSource};
use crate::run::{self, COLD, Exit};
use crate::underlay::Uplink;
use crate::{MAX_BURST, Output, Stage};

/// What a frame from an uplink is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind {
    /// VXLAN to us, for a single VM.
    Unicast,
    /// VXLAN to us, for a group.
    Group,
    /// The underlay's own traffic.
    Underlay,
    /// Dropped.
    Drop(DropReason),
}

/// What the passes remember of a frame.
#[derive(Clone, Copy)]
pub(crate) struct OverlaySlot {
    key: Key,
    home: Home,
    /// VXLAN to us, of the usual shape, for a single VM.
    usual: bool,
    inner_offset: u8,
    inner_end: u16,
    exit: Exit,
}

impl Default for OverlaySlot {
    fn default() -> OverlaySlot {
        OverlaySlot {
            key: Key(0),
            home: Home::default(),
            usual: false,
            inner_offset: 0,
            inner_end: 0,
            exit: COLD,
        }
    }
}

impl run::Done for OverlaySlot {
    #[inline(always)]
    fn exit(&self) -> Exit {
        self.exit
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        u32::from(self.inner_end) - u32::from(self.inner_offset)
    }
}

/// What [`classify`] found out.
pub(crate) struct Classified {
    pub kind: Kind,
    /// VN, inner destination and outer header, for VXLAN to us.
    pub inner: Option<(VnIdx, Mac, Outer)>,
    /// The VN strips tags: a priority tag of the inner frame is taken off.
    pub untag: bool,
}

/// Looks at a frame from an uplink, behind the tag that [`Uplink::untags`] has seen. No side effects.
pub(crate) fn inspect(
    frame: &[u8],
    contiguous: bool,
    uplink: &Uplink,
    tables: &Tables,
    last: &mut Option<LastVn>,
) -> Classified {
    match classify_vxlan(frame, contiguous, uplink, tables, last) {
        Ok((vn, dst, outer)) => {
            let kind = if is_group(dst) { Kind::Group } else { Kind::Unicast };
            let untag = !tables.vns.get(vn).is_some_and(|v| v.transparent_vlan);
            Classified { kind, inner: Some((vn, Mac::from_u64(dst), outer)), untag }
        }
        Err(kind) => Classified { kind, inner: None, untag: false },
    }
}

fn classify_vxlan(
    frame: &[u8],
    contiguous: bool,
    uplink: &Uplink,
    tables: &Tables,
    last: &mut Option<LastVn>,
) -> Result<(VnIdx, u64, Outer), Kind> {
    let drop = |reason| Err(Kind::Drop(reason));
    if !contiguous {
        return drop(DropReason::NotContiguous);
    }
    let Some(a) = Addresses::of(frame) else { return drop(DropReason::Truncated) };
    let ours = a.dst == uplink.mac.to_u64();
    if !ours && !a.to_group() {
        return drop(DropReason::NotOurMac);
    }
    match parse_outer(frame, tables.vxlan_port) {
        Ok(outer) if ours && !uplink.is_locator(outer.dst) => drop(DropReason::NotOurLocator),
        Ok(outer) if !ours && !is_of_group(&outer, uplink, tables) => drop(DropReason::NotOurLocator),
        Ok(outer) => match look_inside(frame, &outer, tables, last) {
            // What is for a single VM has no business in a group: other NVEs know where it is.
            Ok((_, dst)) if !ours && !is_group(dst) => drop(DropReason::NotOurLocator),
            Ok((vn, dst)) => Ok((vn, dst, outer)),
            Err(reason) => drop(reason),
        },
        Err(e) => Err(outer_drop(e).map_or(Kind::Underlay, Kind::Drop)),
    }
}

/// The packet is of another NVE, for the underlay's group of its VN, and came by the uplink that joined it (R60): where
/// several uplinks hear it, one counts.
fn is_of_group(outer: &Outer, uplink: &Uplink, tables: &Tables) -> bool {
    let vn = tables.vns.by_vni(outer.vni).and_then(|vn| tables.vns.get(vn));
    let tunnel = vn.and_then(|v| v.underlay_group).and_then(|t| tables.tunnels.get(t));
    let joined = tunnel.is_some_and(|t| t.remote == Some(outer.dst) && t.uplink == uplink.port);
    joined && !uplink.is_locator(outer.src)
}

/// Processes the first `n` frames of a burst, at most [`MAX_BURST`].
pub(crate) fn burst<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    slots: &mut [OverlaySlot; MAX_BURST],
    burst: &mut Vec<P>,
    n: usize,
    uplink: &Uplink,
    seen: &mut Seen,
) {
    let slots = &mut slots[..n.min(MAX_BURST)];
    match uplink.vlan() {
        None => look::<false, _, _, _>(cx, slots, &burst[..n], uplink, seen),
        Some(_) => look::<true, _, _, _>(cx, slots, &burst[..n], uplink, seen),
    }
    cx.out.ended(Stage::Look);
    apply(cx, slots, &mut burst[..n]);
    cx.out.ended(Stage::Apply);
    run::emit(cx, slots, burst, |cx, packet| apply_cold(cx, packet, uplink));
    cx.out.ended(Stage::Emit);
}

/// Pass two: the fast path to a port here. Whatever has no exit after it takes the cold path.
#[inline(never)]
fn apply<P: Packet, O, S>(cx: &mut Context<'_, P, O, S>, slots: &mut [OverlaySlot], burst: &mut [P]) {
    let mut decapsulated = 0;
    let tables = &*cx.tables;
    let vms = tables.vms.view();
    for (slot, packet) in slots.iter_mut().zip(burst) {
        slot.exit = COLD;
        if slot.usual
            && let Some(Fib::Local(port)) = vms.get_at(slot.home, slot.key)
            && tables.ports.serves(port, slot.key.vn())
        {
            packet.cut(slot.inner_offset.into(), slot.inner_end.into());
            slot.exit = port;
            decapsulated += 1;
        }
    }
    cx.tables.counters.worker.decapsulated += decapsulated;
}

/// Pass one: headers, keys, prefetch of locations. `TAGGED`: the uplink is in a VLAN (R95).
///
/// A function of its own: one call a burst, and registers for what the loop needs instead of for all of a worker's
/// step.
#[inline(never)]
fn look<const TAGGED: bool, P: Packet, O, S>(
    cx: &mut Context<'_, P, O, S>,
    slots: &mut [OverlaySlot],
    burst: &[P],
    uplink: &Uplink,
    seen: &mut Seen,
) {
    let own = uplink.own(cx.tables.vxlan_port);
    let mut bytes = 0;
    let (mut last, mut sender) = seen.recall(cx.tables);
    let vms = cx.tables.vms.view();
    for (slot, packet) in slots.iter_mut().zip(burst) {
        let frame = packet.data();
        bytes += frame.len() as u64;
        // A card's word on checksums says nothing here: some call the one that VXLAN leaves out a wrong one.
        let usual = usual::<TAGGED>(frame, &own).filter(|_| packet.is_contiguous());
        let vn = usual.and_then(|u| {
            let vn = find_vn(cx.tables, u.vni, &mut last).ok()?;
            is_from_sender(cx.tables, vn, frame, u.inner_offset, &mut sender).then_some(vn)
        });
        slot.usual = vn.is_some();
        slot.key = Key(0);
        if let (Some(u), Some(vn)) = (usual, vn) {
            slot.key = Key(u64::from(vn.found.0) << 48 | u.dst);
            // 50 or 70, and at most a 16-bit length and the 54 bytes of headers before it.
            slot.inner_offset = u.inner_offset as u8;
            slot.inner_end = u.inner_end as u16;
        }
        slot.home = vms.home(slot.key);
        vms.prefetch(slot.home);
    }
    seen.keep(last, sender, cx.tables);
    cx.tables.counters.received(uplink.port, slots.len() as u64, bytes);
}

/// A card that fills buffers in steps (8,192 bytes of them, and not 9,000) hands a long frame over in pieces. It is
/// copied into one, since nothing else here reads pieces. What it says besides is forgotten: nothing that comes from
/// a wire is unfinished. `None`: the frame was dropped.
fn in_one_piece<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    mut packet: P,
) -> Option<P> {
    if packet.is_contiguous() {
        packet.finished();
        return Some(packet);
    }
    let Some(mut whole) = cx.src.alloc() else {
        cx.drop(packet, DropReason::NoBuffer);
        return None;
    };
    let Some(mut room) = whole.append(packet.len()) else {
        cx.out.discard(whole);
        cx.drop(packet, DropReason::NotContiguous);
        return None;
    };
    for piece in packet.pieces() {
        let (to, rest) = room.split_at_mut(piece.len().min(room.len()));
        to.copy_from_slice(&piece[..to.len()]);
        room = rest;
    }
    cx.out.discard(packet);
    cx.tables.counters.worker.gathered += 1;
    Some(whole)
}

/// Takes off the tag that makes the frame the uplink's, if it has one. `None`: the frame was dropped.
fn untag<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    mut packet: P,
    uplink: &Uplink,
) -> Option<P> {
    match uplink.untags(packet.data()) {
        Ok(false) => {}
        Ok(true) => {
            let stripped = strip_tag(packet.data_mut());
            debug_assert!(stripped.is_ok(), "a tag that was seen is there");
            packet.trim_front(TAG_LEN);
        }
        Err(reason) => {
            cx.drop(packet, reason);
            return None;
        }
    }
    Some(packet)
}

/// Drops a frame of a sender that has no part in its VN, and tells of it (R69).
fn refuse<P: Packet, O: Output<P>, S: PacketSource<P>>(cx: &mut Context<'_, P, O, S>, packet: P) {
    if let Ok(outer) = parse_outer(packet.data(), cx.tables.vxlan_port)
        && let Some(frames) = cx.tables.vns.refused(outer.vni, outer.src, cx.now)
    {
        cx.event(Event::UnknownSender { vni: outer.vni, ip: outer.src, frames });
    }
    cx.drop(packet, DropReason::UnknownSender);
}

/// Everything but the usual for a port here.
#[cold]
#[inline(never)]
fn apply_cold<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    packet: P,
    uplink: &Uplink,
) {
    let Some(packet) = in_one_piece(cx, packet) else { return };
    let Some(mut packet) = untag(cx, packet, uplink) else { return };
    let c = inspect(packet.data(), packet.is_contiguous(), uplink, cx.tables, &mut None);
    let (vn, dst, outer) = match (c.kind, c.inner) {
        (Kind::Drop(DropReason::UnknownSender), _) => return refuse(cx, packet),
        (Kind::Drop(reason), _) => return cx.drop(packet, reason),
        (_, None) => return cx.underlay(packet, uplink),
        (_, Some(inner)) => inner,
    };
    decapsulate(&mut packet, &outer, c.untag);
    if c.kind == Kind::Group {
        cx.tables.counters.worker.decapsulated += 1;
        return cx.flood(packet, vn, None);
    }
    cx.resolve(packet, Key::new(vn, dst), Arrival::outer(&outer));
}
