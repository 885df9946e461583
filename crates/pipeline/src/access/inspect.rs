//! What a frame from a VM asks for: decided in full, without side effects.

use godwit_tables::event::{AnnounceKind, Refused};
use godwit_tables::update::Admission;
use godwit_tables::{DropReason, Tables};
use godwit_wire::frame::Network;
use godwit_wire::{EtherType, Frame, Instant, Mac, guard};

use crate::bum;
use crate::classify;
use crate::port::{Found, Port, Speaker, Use};
use crate::proxy::{self, Message};
use crate::wish::Wish;

/// Looks at a frame whose port is not closed, in full. No side effects.
/// One that lies in pieces [`crate::offload::admit`] has let pass.
pub(crate) fn inspect(frame: &Frame<'_>, port: &Port, tables: &Tables, now: Instant) -> (Wish, Found) {
    let mut found = Found::default();
    let Some(mut port) = port.spoken_by(frame.src(), tables, now) else {
        return (Wish::Drop(found.refuse(frame.src(), None, Refused::Mac)), found);
    };
    let behind = port.speaker == Speaker::Behind;
    if behind && port.admission != Admission::Activated {
        return (Wish::Drop(DropReason::PortClosed), found);
    }
    if frame.outer_type().is_tag() && !port.transparent {
        return (untag(frame), found);
    }
    port.tagged = frame.outer_type().is_tag();
    let message = Message::of(frame);
    let wish = match inspect_as_kept(&message, &port, tables, now, &mut found) {
        // Nobody is told of it, since only the configuration knows of it.
        Wish::Announce(..) if behind => Wish::Nothing,
        wish => wish,
    };
    let wish = match (port.admission, wish) {
        (Admission::Activated, wish) => wish,
        // Malformed and spoofed frames prove nothing, and probes are not to.
        (_, Wish::Announce(..)) => wish,
        (_, Wish::Drop(_)) if message.is_probe() => wish,
        (_, _) if message.is_probe() => Wish::Probe,
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
fn untag(frame: &Frame<'_>) -> Wish {
    match frame.type_behind_tag() {
        None => Wish::Drop(DropReason::Truncated),
        Some(inner) if frame.outer_type() == EtherType::QINQ || inner.is_tag() => {
            Wish::Drop(DropReason::VlanTag)
        }
        Some(_) => Wish::Untag,
    }
}

/// A frame that has no tags, or keeps them: all checks are of what lies behind them (R10, R65–R67).
fn inspect_as_kept(
    message: &Message<'_>,
    port: &Port,
    tables: &Tables,
    now: Instant,
    found: &mut Found,
) -> Wish {
    let frame = message.frame;
    if classify::is_link_local_reserved(frame.dst().to_u64()) {
        return Wish::Drop(DropReason::LinkLocalReserved);
    }
    if frame.network() == Network::Unknown {
        return Wish::Drop(DropReason::Truncated);
    }
    // Nobody looks behind a third tag here, and its reader may.
    if frame.ethertype().is_tag() {
        return Wish::Drop(DropReason::VlanTag);
    }
    let resolves = frame.resolves();
    if resolves && !tables.ports.may_resolve(port.port, now) {
        return Wish::Drop(DropReason::ResolutionLimit);
    }
    let announced = if resolves && !port.tagged { message.announced() } else { None };
    let used = |ip| match resolves {
        true if announced == Some(ip) => Use::Announcement,
        true => Use::Word,
        false => Use::Data,
    };
    let checked = port
        .check_source(frame.source(), used, tables, now, found)
        .and_then(|()| proxy::check(message, used, port, tables, now, found));
    if let Err(reason) = checked {
        return Wish::Drop(reason);
    }
    let dst = frame.dst();
    let wish = match frame.outer_type() {
        EtherType::ARP => proxy::arp(frame, port, tables, now),
        EtherType::RARP => proxy::rarp(frame),
        EtherType::IPV6 if dst.is_multicast() => proxy::nd(message, port, tables, now),
        _ if dst.is_multicast() => Wish::Flood,
        _ if dst == Mac::ZERO => Wish::Drop(DropReason::UnknownUnicast),
        // What is to a group is checked where it is copied, when it is whole.
        _ => match bum::check_word(tables, port.port, guard::word(frame)) {
            Ok(()) => Wish::Unicast(dst),
            Err(reason) => Wish::Drop(reason),
        },
    };
    // No table has this destination, so that every frame to it comes here.
    if wish == Wish::Unicast(Mac::PROBER) {
        return Wish::Announce(AnnounceKind::Alive, message.answered());
    }
    wish
}
