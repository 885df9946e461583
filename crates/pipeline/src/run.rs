//! The end of the passes: frames leave in their order, as many together as go the same way.

use std::vec::Drain;

use godwit_tables::DropReason;
use godwit_tables::update::PortIdx;

use crate::Output;
use crate::context::Context;
use crate::packet::{Packet, PacketSource};

/// Where a frame goes after the passes: a port, or [`COLD`].
pub(crate) type Exit = PortIdx;

/// The passes left the frame as it was: it takes the cold path. No port has this number.
pub(crate) const COLD: Exit = PortIdx(u16::MAX);

/// Likewise, because nobody knows where its destination is: the directory can be asked, if the port still may. No port
/// has this number either.
pub(crate) const UNKNOWN: Exit = PortIdx(u16::MAX - 1);

/// What the passes have to say of a frame at their end.
pub(crate) trait Done: Copy {
    /// Where the frame goes.
    fn exit(&self) -> Exit;
    /// Bytes of the frame as it leaves.
    fn len(&self) -> u32;
}

/// Sends each run of frames with the same exit together, and gives each that has none to `cold`. `done` speaks
/// of the first frames of `burst`, which leave it.
#[inline(always)]
pub(crate) fn emit<P: Packet, O: Output<P>, S: PacketSource<P>, D: Done>(
    cx: &mut Context<'_, P, O, S>,
    done: &[D],
    burst: &mut Vec<P>,
    cold: impl FnMut(&mut Context<'_, P, O, S>, P),
) {
    match one_exit(done) {
        Some((exit, bytes)) if burst.len() == done.len() => {
            cx.tables.counters.sent_many(exit, done.len() as u64, bytes);
            cx.out.send_all(exit, burst);
        }
        _ => emit_runs(cx, done, burst.drain(..done.len()), cold),
    }
}

/// Where all of them go, most often to the same uplink, and their bytes. No branch a frame.
#[inline(always)]
fn one_exit<D: Done>(done: &[D]) -> Option<(Exit, u64)> {
    let exit = done.first()?.exit();
    let (mut others, mut bytes) = (0, 0);
    for d in done {
        others |= d.exit().0 ^ exit.0;
        bytes += u64::from(d.len());
    }
    (others == 0 && exit.0 < UNKNOWN.0).then_some((exit, bytes))
}

#[inline(never)]
fn emit_runs<P: Packet, O: Output<P>, S: PacketSource<P>, D: Done>(
    cx: &mut Context<'_, P, O, S>,
    done: &[D],
    mut frames: Drain<'_, P>,
    mut cold: impl FnMut(&mut Context<'_, P, O, S>, P),
) {
    let mut rest = done;
    // If it may not, no frame of this burst asks, and so none has to wait for what another one asked. A VM that sends
    // to nobody at full speed would otherwise cost its neighbors more than one that is served (R67).
    let may_ask = cx.tables.may_query(cx.ingress, cx.now);
    while let Some(first) = rest.first() {
        let exit = first.exit();
        if exit == COLD || exit == UNKNOWN && may_ask {
            if let Some(packet) = frames.next() {
                cold(cx, packet);
            }
            rest = &rest[1..];
            continue;
        }
        let mut bytes = 0;
        let mut run = 0;
        while let Some(next) = rest.get(run).filter(|d| d.exit() == exit) {
            bytes += u64::from(next.len());
            run += 1;
        }
        rest = &rest[run..];
        if exit == UNKNOWN {
            cx.drop_run(frames.by_ref().take(run), DropReason::MissLimit);
            continue;
        }
        cx.tables.counters.sent_many(exit, run as u64, bytes);
        cx.out.send_run(exit, frames.by_ref().take(run));
    }
}
