//! What NVEs may take part in, as the protocol has it (R68).

use godwit_api::{ConvertError, convert, v1};

use crate::directory::{Order, VnAccess, VnChoice};

fn choice(vns: Vec<String>, all: bool) -> VnChoice {
    if all { VnChoice::All } else { VnChoice::Named(vns) }
}

pub(super) fn allow(p: v1::AllowNveRequest) -> Result<Order, ConvertError> {
    let v1::AllowNveRequest { nve, vns, all, only } = p;
    Ok(Order::AllowNve { id: convert::nve_id("nve", nve)?, vns: choice(vns, all), only })
}

pub(super) fn deny(p: v1::DenyNveRequest) -> Result<Order, ConvertError> {
    let v1::DenyNveRequest { nve, vns, all, force } = p;
    Ok(Order::DenyNve { id: convert::nve_id("nve", nve)?, vns: choice(vns, all), force })
}

pub(super) fn access(a: &VnAccess) -> v1::NveAccess {
    v1::NveAccess { only: matches!(a, VnAccess::Only(_)), vnis: a.named().iter().map(|v| v.get()).collect() }
}
