//! The role that each order takes: one table, in which none can be forgotten.

use godwit_model::Role;

use super::super::Order;

impl Order {
    /// The order as operators give it, and the role that it takes.
    pub fn needs(&self) -> (&'static str, Role) {
        use Role::{Admin, Operate};
        match self {
            Order::CreateVn(_) => ("vn create", Admin),
            Order::SetVn { .. } => ("vn set", Admin),
            Order::DeleteVn { .. } => ("vn delete", Admin),
            Order::AddSubnet { .. } => ("vn subnet add", Admin),
            Order::RemoveSubnet { .. } => ("vn subnet remove", Admin),
            Order::CreateDomain { .. } => ("domain create", Admin),
            Order::DeleteDomain { .. } => ("domain delete", Admin),
            Order::AddRoute { .. } => ("domain route add", Admin),
            Order::RemoveRoute { .. } => ("domain route remove", Admin),
            Order::DefineVm(_) => ("vm define", Operate),
            Order::SetVm { .. } => ("vm set", Operate),
            Order::DeleteVm { .. } => ("vm delete", Operate),
            Order::ClearVm { .. } => ("vm clear", Operate),
            Order::VmDeparted { .. } => ("vm departed", Operate),
            Order::DefinePolicy(_) => ("policy define", Admin),
            Order::RemovePolicy { .. } => ("policy remove", Admin),
            Order::DefineNve { .. } => ("nve define", Admin),
            Order::DeleteNve { .. } => ("nve delete", Admin),
            Order::AllowNve { .. } => ("nve allow", Admin),
            Order::DenyNve { .. } => ("nve deny", Admin),
            Order::StartMove { .. } => ("vm move", Operate),
            Order::ReportMove { .. } => ("move report", Operate),
            Order::SetMirror { .. } => ("vm mirror", Operate),
            Order::VmMirrored { .. } => ("vm mirrored", Operate),
            Order::AbortMove { .. } => ("move abort", Operate),
            Order::DrainNve(_) => ("nve drain", Operate),
            Order::StopDrain { .. } => ("nve drain --stop", Operate),
            Order::UndrainNve { .. } => ("nve undrain", Operate),
        }
    }
}
