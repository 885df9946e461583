//! Drains as the protocol has them (R85).

use godwit_api::{ConvertError, convert, v1};
use godwit_model::NveId;

use crate::directory::{DrainInfo, DrainOrder, DrainedVm};

/// Moves at the same time where the order does not say how many.
const PARALLEL: u32 = 4;

pub(super) fn order(p: v1::DrainNveRequest) -> Result<DrainOrder, ConvertError> {
    let to = p.to.into_iter().map(|nve| convert::nve_id("to", nve));
    Ok(DrainOrder {
        nve: convert::nve_id("nve", p.nve)?,
        to: to.collect::<Result<_, _>>()?,
        parallel: if p.parallel == 0 { PARALLEL } else { p.parallel },
        accept_interruption: p.accept_interruption,
    })
}

pub(super) fn answer(info: DrainInfo) -> v1::Drain {
    let vm = |v: DrainedVm| v1::DrainedVm { vm: v.vm, reason: v.reason };
    let r = info.record;
    let moving = info.moving.into_iter().map(|m| v1::DrainMove {
        vm: m.vm,
        move_id: m.id.0,
        to: m.to.to_string(),
        phase: v1::MovePhase::from(m.phase).into(),
    });
    v1::Drain {
        nve: r.nve.to_string(),
        to: r.to.iter().map(NveId::to_string).collect(),
        parallel: r.parallel,
        accept_interruption: r.accept_interruption,
        phase: v1::DrainPhase::from(r.phase).into(),
        ordered_us: r.ordered_us,
        ended_us: r.ended_us,
        elapsed_ms: info.elapsed_ms,
        total: r.total,
        moved: r.moved,
        here: info.here,
        elsewhere: info.elsewhere,
        moving: moving.collect(),
        failed: info.failed.into_iter().map(vm).collect(),
        left: info.left.into_iter().map(vm).collect(),
        note: r.note,
    }
}
