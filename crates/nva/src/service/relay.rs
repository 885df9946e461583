//! Requests that operators have for switches, with the role that each takes: one table, in which none can be forgotten.

use godwit_api::tonic::Status;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind;
use godwit_model::{NveId, Role};

use crate::directory::Relay;

/// Bytes of a request in the audit log.
const LONGEST: usize = 1024;

/// What the request takes.
///
/// # Errors
/// Where it asks for nothing, or for something that this NVA does not know.
pub(super) fn of(nve: NveId, request: &v1::AdminRequest) -> Result<Relay, Status> {
    let none = "request: is empty, or of a newer release than this godwit-nva";
    let kind = request.kind.as_ref().ok_or_else(|| Status::invalid_argument(none))?;
    let (what, needs) = needs(kind);
    let mut details = format!("{kind:?}");
    let end = (0..=LONGEST.min(details.len())).rev().find(|n| details.is_char_boundary(*n));
    details.truncate(end.unwrap_or(0));
    Ok(Relay { nve, what, needs, details })
}

fn needs(kind: &Kind) -> (&'static str, Role) {
    use Role::{Admin, Operate, Read};
    match kind {
        Kind::GetStatus(_) => ("nve show", Read),
        Kind::ListPorts(_) => ("port list", Read),
        Kind::GetCounters(_) => ("counters", Read),
        Kind::Trace(_) => ("trace", Read),
        Kind::ListEntries(_) => ("entries", Read),
        Kind::GetPerf(_) => ("perf", Read),
        Kind::GetPlacement(_) => ("placement show", Read),
        Kind::GetUnderlay(_) => ("underlay", Read),
        Kind::GetRoutes(_) => ("routes", Read),
        Kind::PausePort(_) => ("port pause", Operate),
        Kind::ActivatePort(_) => ("port activate", Operate),
        Kind::SetVmState(_) => ("port state", Operate),
        Kind::AddPort(_) => ("port add", Admin),
        Kind::RemovePort(_) => ("port remove", Admin),
        Kind::MovePort(_) => ("port move", Admin),
        Kind::SetPlacement(_) => ("placement set", Admin),
        Kind::Rebalance(_) => ("placement rebalance", Admin),
    }
}
