//! Frames from VMs: the passes over a burst.

mod cold;
mod inspect;
mod router;
mod unmade;

use godwit_tables::locations::Home;
use godwit_tables::routes::Step;
use godwit_tables::update::{Admission, Key, PortIdx, PortRole, VnIdx};
use godwit_tables::vms::{Fib, RemoteMark, View};
use godwit_tables::{DropReason, Tables};
use godwit_wire::outer::Patch;
use godwit_wire::policy::{Direction, Traffic};
use godwit_wire::{Class, FlowHash, Frame, Instant, Mac, guard, tenant};

use crate::bum;
use crate::classify::{self, Sender};
use crate::context::Context;
use crate::encap::{encapsulate, finish, is_unfinished};
use crate::packet::{Packet, PacketSource};
use crate::port::Port;
use crate::run::{self, COLD, Exit, UNKNOWN};
use crate::{MAX_BURST, Output, Stage};

use cold::apply_cold;
pub(crate) use inspect::inspect;
use router::Router;

/// Before the second pass: the frame needs nothing but the location of its destination,
const BRIDGED: Exit = PortIdx(0);
/// or nothing but the route to it (R58), by the step that it is to be found at: the host route, until the pass between
/// finds out that there is none.
#[inline(always)]
const fn routed_frame(step: Step) -> Exit {
    PortIdx(BRIDGED.0 + 1 + step.number() as u16)
}

/// The step of a routed frame.
#[inline(always)]
const fn step_of(exit: Exit) -> Step {
    Step::of(exit.0.wrapping_sub(BRIDGED.0 + 1) as u8)
}

/// No frame of the burst is routed;
const NO_ROUTES: u8 = 0;
/// some may be, by host routes alone;
const HOSTS: u8 = 1;
/// or by prefixes, too, which a pass between the two has looked for.
const PREFIXES: u8 = 2;

/// What the passes remember of a frame.
#[derive(Clone, Copy)]
pub(crate) struct AccessSlot {
    /// Its destination's; of a routed IPv4 packet, the address that it is to.
    key: Key,
    hash: FlowHash,
    home: Home,
    /// Bytes of the frame: as it came in, then as it leaves.
    len: u32,
    /// Where it goes; before the second pass [`BRIDGED`], a [`routed_frame`] or [`COLD`].
    exit: Exit,
    /// The outer header's: the frame's ECN, and the DSCP of its VM's policy (R6, R23).
    class: Class,
    /// An IPv4 packet: over a dual-stack underlay it goes over IPv4 (R4).
    v4: bool,
}

impl Default for AccessSlot {
    fn default() -> AccessSlot {
        AccessSlot {
            key: Key(0),
            hash: FlowHash(0),
            home: Home::default(),
            len: 0,
            exit: COLD,
            class: Class::default(),
            v4: false,
        }
    }
}

impl run::Done for AccessSlot {
    #[inline(always)]
    fn exit(&self) -> Exit {
        self.exit
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }
}

/// Processes the first `n` frames of a burst, at most [`MAX_BURST`].
pub(crate) fn burst<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    slots: &mut [AccessSlot; MAX_BURST],
    burst: &mut Vec<P>,
    n: usize,
    vn: VnIdx,
    mac: Mac,
    admission: Admission,
) {
    if admission == Admission::Closed {
        return cx.refuse(burst, n, DropReason::PortClosed);
    }
    let Some(port) = Port::of(cx.tables, cx.ingress, vn, mac, admission) else {
        return cx.refuse(burst, n, DropReason::UnknownVn);
    };
    if port.routing.is_some() && cx.tables.awaited_due(cx.now) {
        cx.route_awaited();
        if cx.tables.awaited_due(cx.now) {
            return behind_awaited(cx, burst, n, &port);
        }
    }
    if cx.tables.has_arrivals_at(cx.ingress) && admission == Admission::Activated {
        cx.admit_arrivals(&port);
        if cx.tables.has_arrivals_at(cx.ingress) {
            return behind_arrivals(cx, burst, n);
        }
    }
    let slots = &mut slots[..n.min(MAX_BURST)];
    // Where nothing is routed, the passes do not know of it.
    let routed = port.routing.is_some();
    match (port.has_more(cx.tables), routed) {
        (false, false) => look::<false, false, _, _, _>(cx, slots, &burst[..n], &port),
        (true, false) => look::<true, false, _, _, _>(cx, slots, &burst[..n], &port),
        (false, true) => look::<false, true, _, _, _>(cx, slots, &burst[..n], &port),
        (true, true) => look::<true, true, _, _, _>(cx, slots, &burst[..n], &port),
    }
    let routing = match routed {
        true if Router::of(cx.tables, &port).aim(slots, &burst[..n]) => PREFIXES,
        true => HOSTS,
        false => NO_ROUTES,
    };
    cx.out.ended(Stage::Look);
    let burst_now = &mut burst[..n];
    match (cx.tables.tunnels.are_varied(), routing) {
        (false, NO_ROUTES) => apply::<false, NO_ROUTES, _, _, _>(cx, slots, burst_now, &port),
        (true, NO_ROUTES) => apply::<true, NO_ROUTES, _, _, _>(cx, slots, burst_now, &port),
        (false, HOSTS) => apply::<false, HOSTS, _, _, _>(cx, slots, burst_now, &port),
        (true, HOSTS) => apply::<true, HOSTS, _, _, _>(cx, slots, burst_now, &port),
        (false, _) => apply::<false, PREFIXES, _, _, _>(cx, slots, burst_now, &port),
        (true, _) => apply::<true, PREFIXES, _, _, _>(cx, slots, burst_now, &port),
    }
    cx.out.ended(Stage::Apply);
    run::emit(cx, slots, burst, |cx, packet| apply_cold(cx, packet, &port));
    cx.out.ended(Stage::Emit);
}

/// A burst while packets that waited for a route go, and not all could: what it routes must not overtake them, which
/// the cold path sees to (R35).
#[cold]
#[inline(never)]
fn behind_awaited<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    burst: &mut Vec<P>,
    n: usize,
    port: &Port,
) {
    let bytes = burst[..n].iter().map(|packet| packet.data().len() as u64).sum();
    cx.tables.counters.received(port.port, n as u64, bytes);
    if cx.tables.has_arrivals_at(port.port) && port.admission == Admission::Activated {
        cx.admit_arrivals(port);
    }
    for packet in burst.drain(..n) {
        match cx.tables.has_arrivals_at(port.port) && port.admission == Admission::Activated {
            true => cx.wait_behind_arrivals(packet),
            false => apply_cold(cx, packet, port),
        }
    }
}

/// A burst while frames that waited for their port to open go, and not all could for want of buffers: they must not be
/// overtaken (R45).
#[cold]
#[inline(never)]
fn behind_arrivals<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    burst: &mut Vec<P>,
    n: usize,
) {
    let bytes = burst[..n].iter().map(|packet| packet.data().len() as u64).sum();
    cx.tables.counters.received(cx.ingress, n as u64, bytes);
    for packet in burst.drain(..n) {
        cx.wait_behind_arrivals(packet);
    }
}

/// Pass one: headers, keys, prefetch of locations. `MORE`: frames may come from more than one MAC and address.
/// `ROUTED`: the port's VN has a gateway (R58). A function of its own: one call a burst, and registers for what the
/// loop needs instead of for all of a worker's step.
#[inline(never)]
fn look<const MORE: bool, const ROUTED: bool, P: Packet, O, S>(
    cx: &mut Context<'_, P, O, S>,
    slots: &mut [AccessSlot],
    burst: &[P],
    port: &Port,
) {
    let own = if port.is_plain() { Sender::of(port.mac) } else { Sender::NOBODY };
    let (vn, hash_key) = (u64::from(port.vn.0) << 48, cx.tables.hash_key);
    let vms = cx.tables.vms.view();
    let set = if MORE { cx.tables.ports.sources(port.port) } else { None };
    let router = Router::of(cx.tables, port);
    let mut bytes = 0;
    for (slot, packet) in slots.iter_mut().zip(burst) {
        let frame = packet.data();
        bytes += frame.len() as u64;
        slot.len = frame.len() as u32;
        if MORE {
            if let Some((dst, src)) = classify::to_single(frame)
                && packet.is_plain()
                && let Some(tenant) = tenant::quick_look(frame, &hash_key)
                && (src == own && (port.is_usual(tenant.source) || port.is_set(tenant.source, set))
                    || port.carries(src.mac(), tenant.source, cx.tables, cx.now))
            {
                if ROUTED && router.is(dst) {
                    router.look::<false>(slot, frame, tenant);
                    continue;
                }
                if !(ROUTED && router.is_only()) {
                    slot.set(Key(vn | dst), vms, tenant);
                    continue;
                }
            }
        } else if let Some(dst) = classify::from_to_single(frame, own)
            && packet.is_plain()
            && let Some(tenant) = tenant::quick_look(frame, &hash_key)
            && port.is_usual(tenant.source)
        {
            if ROUTED && router.is(dst) {
                router.look::<true>(slot, frame, tenant);
                continue;
            }
            if !(ROUTED && router.is_only()) {
                slot.set(Key(vn | dst), vms, tenant);
                continue;
            }
        }
        look_closer::<ROUTED, _>(slot, packet, port, cx.tables, cx.now);
    }
    cx.tables.counters.received(port.port, slots.len() as u64, bytes);
}

impl AccessSlot {
    /// The frame needs nothing but its destination's location.
    #[inline(always)]
    fn set(&mut self, key: Key, vms: View<'_>, tenant: tenant::Look) {
        self.home = vms.home(key);
        vms.prefetch(self.home);
        self.key = key;
        self.hash = tenant.hash;
        self.class = tenant.ecn.into();
        self.v4 = tenant.is_v4();
        self.exit = BRIDGED;
    }
}

/// The same for frames that are not of the usual shape, or not from the usual MAC and address: other protocols,
/// fragments, what else the port's VM may send from, and all that is for the cold path.
#[cold]
#[inline(never)]
fn look_closer<const ROUTED: bool, P: Packet>(
    slot: &mut AccessSlot,
    packet: &P,
    port: &Port,
    tables: &Tables,
    now: Instant,
) {
    let frame = packet.data();
    slot.exit = COLD;
    let open = port.admission == Admission::Activated && packet.is_plain();
    let Some((dst, src)) = classify::plain_unicast(frame).filter(|_| open) else { return };
    let key = Key(u64::from(port.vn.0) << 48 | dst);
    let free = |frame: &Frame<'_>| {
        let traffic = || Traffic::of(frame, Direction::Out);
        !port.filtered || tables.ports.sends_freely(port.port, traffic().as_ref())
    };
    let router = Router::of(tables, port);
    let routed = ROUTED && router.takes(dst);
    let mut set = |tenant: tenant::Look| {
        match routed {
            true if !router.knows(dst) => return,
            true => router.look::<false>(slot, packet.data(), tenant),
            false => slot.set(key, tables.vms.view(), tenant),
        }
        slot.class = Class::new(port.dscp, tenant.ecn);
    };
    // Neither of ARP or ND nor of a DHCP server, so that its sender's addresses and the policy are all there is to
    // look at.
    if let Some(tenant) = tenant::quick_look(frame, &tables.hash_key) {
        let free = || !port.filtered || Frame::read(frame).is_ok_and(|f| free(&f));
        if port.carries(src, tenant.source, tables, now) && free() {
            set(tenant);
        }
        return;
    }
    // Of what is routed, all else is the gateway's.
    if routed {
        return;
    }
    let Ok(frame) = Frame::read(frame) else { return };
    let good = match frame.source() {
        tenant::Source::NotIp => src == port.mac,
        source => !frame.resolves() && port.carries(src, source, tables, now),
    };
    if good && free(&frame) && bum::check_word(tables, port.port, guard::word(&frame)).is_ok() {
        set(tenant::Look::of(&frame, &tables.hash_key));
    }
}

/// Pass two, the fast path: to another NVE and to another port here. Whatever has no exit after
/// it is unchanged and takes the cold path. `VARIED`: tunnels may have twins
/// (R4), several ways or tags (R95). `ROUTES`: what may be among the frames (R58), [`NO_ROUTES`] and so on.
#[inline(never)]
fn apply<const VARIED: bool, const ROUTES: u8, P: Packet, O: Output<P>, S>(
    cx: &mut Context<'_, P, O, S>,
    slots: &mut [AccessSlot],
    burst: &mut [P],
    port: &Port,
) {
    let (mut encapsulated, mut routed, mut left) = (0, 0, 0);
    let tables = &*cx.tables;
    let vms = tables.vms.view();
    // The VNI is the entry's. Within its VN that is the port's own, which need not be read from each entry.
    let own = RemoteMark::of(port.vni);
    let router = Router::of(tables, port);
    for (slot, packet) in slots.iter_mut().zip(&mut *burst) {
        if slot.exit == COLD {
            continue;
        }
        if ROUTES != NO_ROUTES && slot.exit != BRIDGED {
            let at = (tables, port);
            slot.exit = match ROUTES {
                HOSTS => router.apply::<VARIED, false, _>(slot, packet, at, &mut encapsulated),
                _ => router.apply::<VARIED, true, _>(slot, packet, at, &mut encapsulated),
            };
            routed += u64::from(slot.exit != COLD);
            continue;
        }
        slot.exit = match vms.word_at(slot.home, slot.key) {
            Some(word) if let Some(to) = word.tunnel_of(own) => {
                match tables.tunnels.ready_for_frame::<VARIED>(to, slot.v4, slot.hash) {
                    Some((tunnel, header)) => {
                        let patch = Patch { vni: port.vni, hash: slot.hash, class: slot.class };
                        match encapsulate::<VARIED, _>(packet, tunnel, header, patch) {
                            Ok(grown) => {
                                slot.len += grown as u32;
                                encapsulated += 1;
                                tunnel.uplink
                            }
                            Err(_) => COLD,
                        }
                    }
                    None => COLD,
                }
            }
            Some(word) => match word.fib() {
                Fib::Local(to) if to != port.port && tables.ports.serves(to, port.vn) => to,
                _ => COLD,
            },
            // The cold path knows these two, which no table has.
            None if slot.key.mac() != Mac::PROBER && slot.key.mac() != Mac::ZERO => UNKNOWN,
            None => COLD,
        };
    }
    if is_unfinished(tables) && encapsulated > 0 {
        // What leaves by an uplink was encapsulated.
        let leaves =
            |slot: &AccessSlot| matches!(tables.ports.role(slot.exit), Some(PortRole::Uplink { .. }));
        let out = &*cx.out;
        let outer = slots.iter().zip(burst).filter(|(slot, _)| leaves(slot));
        let outer = outer.map(|(slot, p)| (p, out.receive_offloads(slot.exit).checksum));
        left = finish(outer, port.dscp.is_some(), tables);
    }
    cx.tables.counters.worker.checksums_left += left;
    cx.tables.counters.worker.encapsulated += encapsulated;
    if ROUTES != NO_ROUTES {
        cx.tables.counters.worker.routed += routed;
    }
}
