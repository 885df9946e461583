//! Frames from an uplink: VXLAN to us is decapsulated, everything else is the underlay's own.

use core::net::{IpAddr, Ipv4Addr};

use godwit_tables::locations::Home;
use godwit_tables::update::{Key, VnIdx};
use godwit_tables::vms::Fib;
use godwit_tables::{DropReason, Tables};
use godwit_wire::outer::{Outer, parse_outer};
use godwit_wire::{Ecn, Mac};

use crate::classify::{Addresses, From, is_group, outer_drop};
use crate::context::Context;
use crate::decap::{LastVn, decapsulate, look_inside};
use crate::packet::{Packet, PacketSource};
use crate::underlay::Uplink;
use crate::{MAX_BURST, Output};

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
pub(crate) struct Look {
    kind: Kind,
    key: Key,
    home: Home,
    found: Option<Fib>,
    inner_offset: u16,
    inner_end: u16,
    ecn: Ecn,
    ttl: u8,
    sender: IpAddr,
}

impl Default for Look {
    fn default() -> Look {
        Look {
            kind: Kind::Underlay,
            key: Key(0),
            home: Home::default(),
            found: None,
            inner_offset: 0,
            inner_end: 0,
            ecn: Ecn::NotEct,
            ttl: 0,
            sender: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

/// What [`classify`] found out.
pub(crate) struct Classified {
    pub kind: Kind,
    /// VN, inner destination and outer header, for VXLAN to us.
    pub inner: Option<(VnIdx, Mac, Outer)>,
}

/// Looks at a frame from an uplink. No side effects.
#[inline(always)]
pub(crate) fn classify(
    frame: &[u8],
    contiguous: bool,
    uplink: &Uplink,
    tables: &Tables,
    last: &mut Option<LastVn>,
) -> Classified {
    match classify_vxlan(frame, contiguous, uplink, tables, last) {
        Ok((vn, dst, outer)) => {
            let kind = if is_group(dst) { Kind::Group } else { Kind::Unicast };
            Classified { kind, inner: Some((vn, Mac::from_u64(dst), outer)) }
        }
        Err(kind) => Classified { kind, inner: None },
    }
}

#[inline(always)]
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
        Ok(outer) if !ours || !uplink.is_locator(outer.dst) => drop(DropReason::NotOurLocator),
        Ok(outer) => match look_inside(frame, &outer, tables, last) {
            Ok((vn, dst)) => Ok((vn, dst, outer)),
            Err(reason) => drop(reason),
        },
        Err(e) => Err(outer_drop(e).map_or(Kind::Underlay, Kind::Drop)),
    }
}

/// Processes the first `n` frames of a burst, at most [`MAX_BURST`].
pub(crate) fn burst<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    looks: &mut [Look; MAX_BURST],
    burst: &mut Vec<P>,
    n: usize,
    uplink: &Uplink,
) {
    let looks = &mut looks[..n.min(MAX_BURST)];
    look(cx, looks, &burst[..n], uplink);
    for look in looks.iter_mut() {
        look.found = cx.tables.vms.get_at(look.home, look.key);
    }
    for (look, mut packet) in looks.iter().zip(burst.drain(..n)) {
        match (look.kind, look.found) {
            (Kind::Unicast, Some(Fib::Local(port))) => {
                decapsulate(&mut packet, look.inner_offset.into(), look.inner_end.into(), look.ecn);
                cx.tables.counters.worker.decapsulated += 1;
                cx.deliver(port, look.key.vn(), packet);
            }
            _ => apply_cold(cx, packet, look, uplink),
        }
    }
}

/// Pass one: headers, keys, prefetch of locations.
#[inline(always)]
fn look<P: Packet, O, S>(cx: &mut Context<'_, P, O, S>, looks: &mut [Look], burst: &[P], uplink: &Uplink) {
    let mut bytes = 0;
    let mut last = None;
    for (look, packet) in looks.iter_mut().zip(burst) {
        let frame = packet.data();
        bytes += frame.len() as u64;
        let c = classify(frame, packet.is_contiguous(), uplink, cx.tables, &mut last);
        look.kind = c.kind;
        look.key = Key(0);
        if let Some((vn, mac, outer)) = c.inner {
            look.key = Key::new(vn, mac);
            // Outer lengths are 16 bits, and the link header before them is checked to be there.
            look.inner_offset = outer.inner_offset as u16;
            look.inner_end = outer.inner_end as u16;
            look.ecn = outer.ecn;
            look.ttl = outer.ttl;
            look.sender = outer.src;
        }
        look.home = cx.tables.vms.home(look.key);
        cx.tables.vms.prefetch(look.home);
    }
    cx.tables.counters.received(uplink.port, looks.len() as u64, bytes);
}

/// Everything but known unicast to a port.
#[cold]
#[inline(never)]
fn apply_cold<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    mut packet: P,
    look: &Look,
    uplink: &Uplink,
) {
    match look.kind {
        Kind::Underlay => return cx.underlay(packet, uplink),
        Kind::Drop(reason) => return cx.drop(packet, reason),
        Kind::Unicast | Kind::Group => {}
    }
    decapsulate(&mut packet, look.inner_offset.into(), look.inner_end.into(), look.ecn);
    if look.kind == Kind::Group {
        cx.tables.counters.worker.decapsulated += 1;
        return cx.flood(packet, look.key.vn(), None);
    }
    let Some(vni) = cx.tables.vns.get(look.key.vn()).map(|v| v.vni) else {
        return cx.drop(packet, DropReason::UnknownVni);
    };
    let from = From::Overlay { sender: look.sender, ttl: look.ttl };
    cx.resolve(packet, look.key, vni, from);
}
