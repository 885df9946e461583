//! What a frame from a VM asks for: decided in full, without side effects.

use godwit_tables::event::{AnnounceKind, Refused};
use godwit_tables::update::Admission;
use godwit_tables::{DropReason, Tables};
use godwit_wire::frame::Network;
use godwit_wire::{EtherType, Frame, Instant, Mac, guard};

use crate::bum;
use crate::classify;
use crate::disposition::Disposition;
use crate::gateway;
use crate::port::{Found, Port, Speaker, Use};
use crate::proxy::{self, Message};

/// Looks at a frame whose port is not closed, in full. No side effects.
/// One that lies in pieces [`crate::offload::admit`] has let pass.
pub(crate) fn inspect(frame: &Frame<'_>, port: &Port, tables: &Tables, now: Instant) -> (Disposition, Found) {
    let mut found = Found::default();
    let Some(mut port) = port.spoken_by(frame.src(), tables, now) else {
        return (Disposition::Drop(found.refuse(frame.src(), None, Refused::Mac)), found);
    };
    let behind = port.speaker == Speaker::Behind;
    if behind && port.admission != Admission::Activated {
        return (Disposition::Drop(DropReason::PortClosed), found);
    }
    if frame.outer_type().is_tag() && !port.transparent {
        return (untag(frame), found);
    }
    port.tagged = frame.outer_type().is_tag();
    let message = Message::of(frame);
    let disposition = match inspect_as_kept(&message, &port, tables, now, &mut found) {
        // Nobody is told of it, since only the configuration knows of it.
        Disposition::Announce(..) if behind => Disposition::Nothing,
        disposition => disposition,
    };
    let disposition = match (port.admission, disposition) {
        (Admission::Activated, disposition) => disposition,
        // Malformed and spoofed frames prove nothing, and probes are not to.
        (_, Disposition::Announce(..)) => disposition,
        (_, Disposition::Drop(_)) if message.is_probe() => disposition,
        (_, _) if message.is_probe() => Disposition::Probe,
        // A good question shows that the VM is alive, even one that has no answer.
        (
            _,
            Disposition::Drop(DropReason::UnknownTarget | DropReason::AskRepeated | DropReason::AskLimit),
        ) => Disposition::FirstFrame,
        (_, Disposition::Drop(_)) => disposition,
        _ => Disposition::FirstFrame,
    };
    (disposition, found)
}

/// A tagged frame of a VN that strips tags: one goes, two are too many, half a one is malformed.
fn untag(frame: &Frame<'_>) -> Disposition {
    match frame.type_behind_tag() {
        None => Disposition::Drop(DropReason::Truncated),
        Some(inner) if frame.outer_type() == EtherType::QINQ || inner.is_tag() => {
            Disposition::Drop(DropReason::VlanTag)
        }
        Some(_) => Disposition::Untag,
    }
}

/// A frame that has no tags, or keeps them: all checks are of what lies behind them (R10, R65–R67).
fn inspect_as_kept(
    message: &Message<'_>,
    port: &Port,
    tables: &Tables,
    now: Instant,
    found: &mut Found,
) -> Disposition {
    let frame = message.frame;
    if classify::is_link_local_reserved(frame.dst().to_u64()) {
        return Disposition::Drop(DropReason::LinkLocalReserved);
    }
    if frame.network() == Network::Unknown {
        return Disposition::Drop(DropReason::Truncated);
    }
    // Nobody looks behind a third tag here, and its reader may.
    if frame.ethertype().is_tag() {
        return Disposition::Drop(DropReason::VlanTag);
    }
    let resolves = frame.resolves();
    if resolves && !tables.ports.may_resolve(port.port, now) {
        return Disposition::Drop(DropReason::ResolutionLimit);
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
        return Disposition::Drop(reason);
    }
    let dst = frame.dst();
    let disposition = match frame.outer_type() {
        EtherType::ARP => proxy::arp(frame, port, tables, now),
        EtherType::RARP => proxy::rarp(frame),
        EtherType::IPV6 if dst.is_multicast() => proxy::nd(message, port, tables, now),
        _ if dst.is_multicast() => Disposition::Flood,
        _ if dst == Mac::ZERO => Disposition::Drop(DropReason::UnknownUnicast),
        // What is to a group is checked where it is copied, when it is whole.
        _ => match bum::check_word(tables, port.port, guard::word(frame)) {
            Ok(()) => Disposition::Unicast(dst),
            Err(reason) => Disposition::Drop(reason),
        },
    };
    // No table has this destination, so that every frame to it comes here.
    if disposition == Disposition::Unicast(Mac::PROBER) {
        return Disposition::Announce(AnnounceKind::Alive, message.answered());
    }
    match port.routing {
        Some(routing) => gateway::inspect(disposition, message, port, &routing, tables, now),
        None => disposition,
    }
}
