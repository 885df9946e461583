//! Frames from VMs.

use godwit_tables::event::{AnnounceKind, Event, Refused};
use godwit_tables::locations::Home;
use godwit_tables::update::{Admission, Key, PortIdx, PortRole, VnIdx};
use godwit_tables::vms::{Fib, View};
use godwit_tables::{DropReason, Tables};
use godwit_wire::ethernet::{Ethernet, TAG_LEN};
use godwit_wire::outer::Patch;
use godwit_wire::{Class, EtherType, FlowHash, Instant, Mac, tenant};

use crate::bum;
use crate::classify::{self, Addresses, From, Sender};
use crate::context::Context;
use crate::encap::{encapsulate, finish, is_unfinished};
use crate::offload;
use crate::packet::{Packet, PacketSource};
use crate::port::{Found, Port, Speaker, Use};
use crate::proxy::{self, Resolution};
use crate::run::{self, COLD, Exit, UNKNOWN};
use crate::{MAX_BURST, Output, Pass};

/// What the passes remember of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    key: Key,
    hash: FlowHash,
    home: Home,
    /// Bytes of the frame: as it came in, then as it leaves.
    len: u32,
    /// Where it goes: not [`COLD`] before the second pass means that the frame needs nothing but its
    /// destination's location.
    exit: Exit,
    /// The outer header's: the frame's ECN, and the DSCP of its VM's policy (R6, R23).
    class: Class,
    /// An IPv4 packet: over a dual-stack underlay it goes over IPv4 (R4).
    v4: bool,
}

impl Default for Look {
    fn default() -> Look {
        Look {
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

impl run::Done for Look {
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
    looks: &mut [Look; MAX_BURST],
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
    if cx.tables.has_arrivals_at(cx.ingress) && admission == Admission::Activated {
        cx.admit_arrivals(&port);
    }
    let looks = &mut looks[..n.min(MAX_BURST)];
    if port.has_more(cx.tables) {
        look::<true, _, _, _>(cx, looks, &burst[..n], &port);
    } else {
        look::<false, _, _, _>(cx, looks, &burst[..n], &port);
    }
    cx.out.ended(Pass::Look);
    match cx.tables.tunnels.are_varied() {
        false => apply::<false, _, _, _>(cx, looks, &mut burst[..n], &port),
        true => apply::<true, _, _, _>(cx, looks, &mut burst[..n], &port),
    }
    cx.out.ended(Pass::Apply);
    run::emit(cx, looks, burst, |cx, packet| apply_cold(cx, packet, &port));
    cx.out.ended(Pass::Emit);
}

/// Pass one: headers, keys, prefetch of locations. `MORE`: frames may come from more than one MAC and address. A
/// function of its own: one call a burst, and registers for what the loop needs instead of for all of a worker's step.
#[inline(never)]
fn look<const MORE: bool, P: Packet, O, S>(
    cx: &mut Context<'_, P, O, S>,
    looks: &mut [Look],
    burst: &[P],
    port: &Port,
) {
    let own = if port.is_plain() { Sender::of(port.mac) } else { Sender::NOBODY };
    let (vn, hash_key) = (u64::from(port.vn.0) << 48, cx.tables.hash_key);
    let vms = cx.tables.vms.view();
    let set = if MORE { cx.tables.ports.sources(port.port) } else { None };
    let mut bytes = 0;
    for (look, packet) in looks.iter_mut().zip(burst) {
        let frame = packet.data();
        bytes += frame.len() as u64;
        look.len = frame.len() as u32;
        if MORE {
            if let Some((dst, src)) = classify::to_single(frame)
                && packet.is_plain()
                && let Some(tenant) = tenant::quick_look(frame, &hash_key)
                && (src == own && (port.is_usual(tenant.source) || port.is_set(tenant.source, set))
                    || port.carries(src.mac(), tenant.source, cx.tables, cx.now))
            {
                look.set(Key(vn | dst), vms, tenant);
                continue;
            }
        } else if let Some(dst) = classify::from_to_single(frame, own)
            && packet.is_plain()
            && let Some(tenant) = tenant::quick_look(frame, &hash_key)
            && port.is_usual(tenant.source)
        {
            look.set(Key(vn | dst), vms, tenant);
            continue;
        }
        look_closer(look, packet, port, cx.tables, cx.now);
    }
    cx.tables.counters.received(port.port, looks.len() as u64, bytes);
}

impl Look {
    /// The frame needs nothing but its destination's location.
    #[inline(always)]
    fn set(&mut self, key: Key, vms: View<'_>, tenant: tenant::Look) {
        self.home = vms.home(key);
        vms.prefetch(self.home);
        self.key = key;
        self.hash = tenant.hash;
        self.class = tenant.ecn.into();
        self.v4 = tenant.is_v4();
        self.exit = PortIdx(0);
    }
}

/// The same for frames that are not of the usual shape, or not from the usual MAC and address: other protocols,
/// fragments, what else the port's VM may send from, and all that is for the cold path.
#[cold]
#[inline(never)]
fn look_closer<P: Packet>(look: &mut Look, packet: &P, port: &Port, tables: &Tables, now: Instant) {
    let frame = packet.data();
    look.exit = COLD;
    let open = port.admission == Admission::Activated && packet.is_plain();
    let Some((dst, src)) = classify::plain_unicast(frame).filter(|_| open) else { return };
    let key = Key(u64::from(port.vn.0) << 48 | dst);
    // Neither of ARP or ND nor of a DHCP server, so that its sender's addresses are all there is to look at.
    if !port.filtered
        && let Some(tenant) = tenant::quick_look(frame, &tables.hash_key)
    {
        if port.carries(src, tenant.source, tables, now) {
            look.set(key, tables.vms.view(), tenant);
        }
        return;
    }
    let tenant = tenant::look(frame, &tables.hash_key);
    let good = match tenant.source {
        tenant::Source::NotIp => src == port.mac,
        source => !proxy::is_resolution(frame) && port.carries(src, source, tables, now),
    };
    let free = !port.filtered || tables.ports.sends_freely(port.port, frame);
    if good && free && bum::check_word(tables, port.port, frame).is_ok() {
        look.set(key, tables.vms.view(), tenant);
        look.class = Class::new(port.dscp, tenant.ecn);
    }
}

/// Pass two, the straight lines: to another NVE and to another port here. Whatever has no exit after
/// it is unchanged and goes the long way. `VARIED`: tunnels may have twins
/// (R4), several ways or tags (R95).
#[inline(never)]
fn apply<const VARIED: bool, P: Packet, O: Output<P>, S>(
    cx: &mut Context<'_, P, O, S>,
    looks: &mut [Look],
    burst: &mut [P],
    port: &Port,
) {
    let (mut encapsulated, mut left) = (0, 0);
    let tables = &*cx.tables;
    let vms = tables.vms.view();
    for (look, packet) in looks.iter_mut().zip(&mut *burst) {
        if look.exit == COLD {
            continue;
        }
        look.exit = match vms.get_at(look.home, look.key) {
            Some(Fib::Remote(to)) => match tables.tunnels.ready_for_frame::<VARIED>(to, look.v4, look.hash) {
                Some((tunnel, header)) => {
                    let patch = Patch { vni: port.vni, hash: look.hash, class: look.class };
                    match encapsulate::<VARIED, _>(packet, tunnel, header, patch) {
                        Ok(grown) => {
                            look.len += grown as u32;
                            encapsulated += 1;
                            tunnel.uplink
                        }
                        Err(_) => COLD,
                    }
                }
                None => COLD,
            },
            Some(Fib::Local(to)) if to != port.port && tables.ports.serves(to, port.vn) => to,
            // The cold path knows these two, which no table has.
            None if look.key.mac() != Mac::PROBER && look.key.mac() != Mac::ZERO => UNKNOWN,
            _ => COLD,
        };
    }
    if is_unfinished(tables) && encapsulated > 0 {
        // What leaves by an uplink was encapsulated.
        let leaves = |look: &Look| matches!(tables.ports.role(look.exit), Some(PortRole::Uplink { .. }));
        let out = &*cx.out;
        let outer = looks.iter().zip(burst).filter(|(look, _)| leaves(look));
        let outer = outer.map(|(look, p)| (p, out.takes(look.exit).checksum));
        left = finish(outer, port.dscp.is_some(), tables);
    }
    cx.tables.counters.worker.checksums_left += left;
    cx.tables.counters.worker.encapsulated += encapsulated;
}

/// What a frame from a VM asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Wish {
    /// Carried to the VM with this address.
    Unicast(Mac),
    /// The same, but the frame is addressed to a group: rewrite its destination (R29).
    ToOwner(Mac),
    /// Copied to everybody in the VN (R60).
    Flood,
    /// The same, after its 802.1Q tag was taken off and the frame looked at again (R10).
    Untag,
    /// Tells that the VM is here (R18).
    Announce(AnnounceKind, Option<core::net::IpAddr>),
    /// Answered, or waits for an answer (R28–R31).
    Resolve(Resolution),
    /// Nothing; the frame did what it could.
    Nothing,
    /// Waits for the port to be activated; the port's VM shows that it is alive (R18).
    FirstFrame,
    /// Waits for the port to be activated, and says nothing of its VM (R30).
    Probe,
    /// Dropped.
    Drop(DropReason),
}

/// Looks at a frame whose port is not closed, in full. No side effects.
/// Of one that is not `whole` it is the first piece, which [`offload::admit`] has let pass.
pub(crate) fn inspect(
    frame: &[u8],
    whole: bool,
    port: &Port,
    tables: &Tables,
    now: Instant,
) -> (Wish, Found) {
    let mut found = Found::default();
    let Some(a) = Addresses::of(frame) else { return (Wish::Drop(DropReason::Truncated), found) };
    let Some(mut port) = port.spoken_by(a.src_mac(), tables, now) else {
        return (Wish::Drop(found.refuse(a.src_mac(), None, Refused::Mac)), found);
    };
    let behind = port.speaker == Speaker::Behind;
    if behind && port.admission != Admission::Activated {
        return (Wish::Drop(DropReason::PortClosed), found);
    }
    if a.ethertype.is_tag() && !port.transparent {
        return (untag(frame, a.ethertype), found);
    }
    port.tagged = a.ethertype.is_tag();
    let wish = match inspect_as_kept(frame, a, whole, &port, tables, now, &mut found) {
        // Nobody is told of it, since only the configuration knows of it.
        Wish::Announce(..) if behind => Wish::Nothing,
        wish => wish,
    };
    let wish = match (port.admission, wish) {
        (Admission::Activated, wish) => wish,
        // Malformed and spoofed frames prove nothing, and probes are not to.
        (_, Wish::Announce(..)) => wish,
        (_, Wish::Drop(_)) if proxy::is_probe(frame) => wish,
        (_, _) if proxy::is_probe(frame) => Wish::Probe,
        // A good question shows that the VM is alive, even one that has no answer.
        (_, Wish::Drop(DropReason::UnknownTarget | DropReason::AskRepeated | DropReason::AskLimit)) => {
            Wish::FirstFrame
        }
        (_, Wish::Drop(_)) => wish,
        _ => Wish::FirstFrame,
    };
    (wish, found)
}

/// A tagged frame of a VN that strips tags: one goes, two are too many, half a one is malformed.
fn untag(frame: &[u8], ethertype: EtherType) -> Wish {
    match Addresses::of(frame.get(TAG_LEN..).unwrap_or_default()) {
        None => Wish::Drop(DropReason::Truncated),
        Some(a) if ethertype == EtherType::QINQ || a.ethertype.is_tag() => Wish::Drop(DropReason::VlanTag),
        Some(_) => Wish::Untag,
    }
}

/// A frame that has no tags, or keeps them: all checks are of what lies behind them (R10, R65–R67).
fn inspect_as_kept(
    frame: &[u8],
    a: Addresses,
    whole: bool,
    port: &Port,
    tables: &Tables,
    now: Instant,
    found: &mut Found,
) -> Wish {
    if classify::is_link_local_reserved(a.dst) {
        return Wish::Drop(DropReason::LinkLocalReserved);
    }
    let Ok(eth) = Ethernet::new_checked(frame) else { return Wish::Drop(DropReason::Truncated) };
    // Nobody looks behind a third tag here, and its reader may.
    if eth.ethertype().is_tag() {
        return Wish::Drop(DropReason::VlanTag);
    }
    let resolves = proxy::is_resolution(frame);
    if resolves && !tables.ports.may_resolve(port.port, now) {
        return Wish::Drop(DropReason::ResolutionLimit);
    }
    let source = if whole { tenant::source(frame) } else { tenant::source_of_piece(frame) };
    let announced = if resolves && !port.tagged { proxy::announced(&eth) } else { None };
    let used = |ip| match resolves {
        true if announced == Some(ip) => Use::Announcement,
        true => Use::Word,
        false => Use::Data,
    };
    let checked = port
        .check_source(source, used, tables, now, found)
        .and_then(|()| proxy::check(&eth, used, port, tables, now, found));
    if let Err(reason) = checked {
        return Wish::Drop(reason);
    }
    let wish = match a.ethertype {
        EtherType::ARP => proxy::arp(eth.payload(), a, port, tables, now),
        EtherType::RARP => proxy::rarp(eth.payload(), a),
        EtherType::IPV6 if a.to_group() => proxy::nd(eth.payload(), port, tables, now),
        _ if a.to_group() => Wish::Flood,
        _ if a.dst == 0 => Wish::Drop(DropReason::UnknownUnicast),
        // What is to a group is checked where it is copied, when it is whole.
        _ => match bum::check_word(tables, port.port, frame) {
            Ok(()) => Wish::Unicast(a.dst_mac()),
            Err(reason) => Wish::Drop(reason),
        },
    };
    // No table has this destination, so that every frame to it comes here.
    if wish == Wish::Unicast(Mac::PROBER) {
        return Wish::Announce(AnnounceKind::Alive, proxy::answered(&eth));
    }
    wish
}

/// Everything that is not plain.
#[cold]
#[inline(never)]
fn apply_cold<P: Packet, O: Output<P>, S: PacketSource<P>>(
    cx: &mut Context<'_, P, O, S>,
    mut packet: P,
    port: &Port,
) {
    if !packet.is_plain() {
        // The first pass counted the first piece.
        let others = packet.len() - packet.data().len();
        cx.tables.counters.received(port.port, 0, others as u64);
        if let Err(reason) = offload::admit(&packet) {
            return cx.drop(packet, reason);
        }
    }
    let whole = packet.data().len() == packet.len();
    let (mut wish, mut found) = inspect(packet.data(), whole, port, cx.tables, cx.now);
    if wish == Wish::Untag {
        packet.data_mut().copy_within(..12, TAG_LEN);
        packet.trim_front(TAG_LEN);
        (wish, found) = inspect(packet.data(), whole, port, cx.tables, cx.now);
    }
    let mac = Addresses::of(packet.data()).map_or(port.mac, Addresses::src_mac);
    // What waits for its port to open is looked at again then.
    if found != Found::default() && !matches!(wish, Wish::FirstFrame | Wish::Probe) {
        cx.tell_sources(port.port, mac, &found, port.admission == Admission::Activated);
    }
    if wish != Wish::Drop(DropReason::ResolutionLimit) && proxy::is_resolution(packet.data()) {
        cx.tables.ports.resolved(port.port, cx.now);
    }
    match wish {
        // Requests and announcements are short.
        Wish::Announce(..) | Wish::Resolve(_) if !whole => cx.drop(packet, DropReason::NotContiguous),
        // What lies in pieces has not been seen in full: once it lies in one, it may turn out to say what it must not
        // (R66). What is to be cut is TCP, which says nothing of the kind.
        Wish::Unicast(_) | Wish::Flood if !whole && packet.asks().segment == 0 => {
            cx.parts(packet, |cx, part| apply_cold(cx, part, port));
        }
        Wish::Unicast(to) => cx.within_policy(packet, port, |cx, packet| {
            cx.resolve(packet, Key::new(port.vn, to), port.vni, From::Local);
        }),
        Wish::ToOwner(to) => {
            packet.data_mut()[..6].copy_from_slice(&to.0);
            cx.resolve(packet, Key::new(port.vn, to), port.vni, From::Local);
        }
        Wish::Flood => {
            cx.within_policy(packet, port, |cx, packet| cx.flood(packet, port.vn, Some(port.vni)));
        }
        Wish::Announce(kind, ip) => {
            if cx.tables.ports.may_announce(port.port, cx.now) {
                cx.event(Event::Announce { port: port.port, kind, mac, ip });
            }
            cx.consume(packet);
        }
        Wish::Resolve(r) => cx.answer(packet, r),
        Wish::FirstFrame => {
            if cx.tables.ports.may_report_first_frame(port.port, cx.now) {
                let kind = AnnounceKind::FirstFrame;
                cx.event(Event::Announce { port: port.port, kind, mac, ip: None });
            }
            cx.await_opening(packet);
        }
        Wish::Probe => cx.await_opening(packet),
        Wish::Nothing => cx.consume(packet),
        Wish::Untag => cx.drop(packet, DropReason::VlanTag),
        Wish::Drop(reason @ DropReason::NotRouter) => cx.not_router(packet, reason),
        Wish::Drop(reason) => cx.drop(packet, reason),
    }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Does `then` with what a VM sends, as far as its policy lets it (R23): a policy looks at packets as they leave.
    fn within_policy(&mut self, packet: P, port: &Port, then: impl Fn(&mut Self, P)) {
        if !port.filtered {
            return then(self, packet);
        }
        let one = |cx: &mut Self, packet: P| match cx.tables.ports.may_send(port.port, packet.data(), cx.now)
        {
            Ok(()) => then(cx, packet),
            Err(reason) => cx.drop(packet, reason),
        };
        if packet.is_plain() { one(self, packet) } else { self.parts(packet, one) }
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
