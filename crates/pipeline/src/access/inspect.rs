//! What a frame from a VM asks for: decided in full, without side effects.

use godwit_tables::event::{AnnounceKind, Refused};
use godwit_tables::update::Admission;
use godwit_tables::{DropReason, Tables};
use godwit_wire::ethernet::{Ethernet, TAG_LEN};
use godwit_wire::{EtherType, Instant, Mac, tenant};

use crate::bum;
use crate::classify::{self, Addresses};
use crate::port::{Found, Port, Speaker, Use};
use crate::proxy;
use crate::wish::Wish;

/// Looks at a frame whose port is not closed, in full. No side effects.
/// Of one that is not `whole` it is the first piece, which [`crate::offload::admit`] has let pass.
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
