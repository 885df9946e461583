//! Pauses of VMs' connections as the protocol has them (R54).

use godwit_api::{ConvertError, convert, v1};
use godwit_model::WhilePaused;

use crate::directory::Order;

/// How long a pause lasts where the order does not say, in seconds.
const LIMIT_S: u32 = 60;

pub(super) fn order(p: v1::PauseVmRequest) -> Result<Order, ConvertError> {
    let treatment = match p.treatment {
        0 => WhilePaused::Hold,
        raw => convert::while_paused("treatment", raw)?,
    };
    Ok(Order::PauseVm { vm: p.vm, treatment, limit_s: if p.limit_s == 0 { LIMIT_S } else { p.limit_s } })
}
