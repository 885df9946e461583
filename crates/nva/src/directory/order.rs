//! Orders of the operator and their answers, as values.

use godwit_model::{Locators, MoveId, MoveMode, MovePhase, MoveRecord, NveId, Policy, Subnet, VmRecord};
use godwit_wire::Prefix;

use super::{
    Departure, Directory, DomainInfo, DrainInfo, NveInfo, Refusal, RouteInfo, SessionId, VmChanges,
    VmDefinition, VnChanges, VnChoice, VnInfo, VnRecord,
};

/// An operator's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Makes a VN; the same order again changes nothing.
    CreateVn(VnRecord),
    /// Changes a VN's settings.
    SetVn {
        /// The VN's name.
        name: String,
        /// What is to change.
        changes: VnChanges,
    },
    /// Deletes a VN without VMs.
    DeleteVn {
        /// The VN's name.
        name: String,
    },
    /// Adds a subnet to a routed VN, or gives one that is there other settings (R58).
    AddSubnet {
        /// The VN's name.
        vn: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// Removes a subnet that no VM has an address in.
    RemoveSubnet {
        /// The VN's name.
        vn: String,
        /// The subnet's prefix.
        prefix: Prefix,
    },
    /// Makes a routing domain; the same order again changes nothing (R58).
    CreateDomain {
        /// The domain's name.
        name: String,
    },
    /// Deletes a routing domain without VNs.
    DeleteDomain {
        /// The domain's name.
        name: String,
    },
    /// Packets of a domain for a prefix go to a VM; a route that is there gets this next hop.
    AddRoute {
        /// The domain's name.
        domain: String,
        /// Where packets are for.
        prefix: Prefix,
        /// The VM's name.
        via: String,
    },
    /// Removes a static route.
    RemoveRoute {
        /// The domain's name.
        domain: String,
        /// The route's prefix.
        prefix: Prefix,
    },
    /// Defines a VM, or changes one that is there to what is defined.
    DefineVm(VmDefinition),
    /// Changes what is named of a VM, while it runs too.
    SetVm {
        /// The VM's name.
        name: String,
        /// What is to change.
        changes: VmChanges,
    },
    /// Deletes a VM that does not run at a connected NVE.
    DeleteVm {
        /// The VM's name.
        name: String,
    },
    /// Lets a frozen VM be claimed and moved again (R22).
    ClearVm {
        /// The VM's name.
        name: String,
    },
    /// Passes on that a VM left an NVE (R39).
    VmDeparted {
        /// The VM's name.
        name: String,
        /// The NVE that it left; `None`: the one that the directory has it at.
        nve: Option<NveId>,
    },
    /// Makes a policy, or gives one that is there other rules.
    DefinePolicy(Policy),
    /// Removes a policy that no VM has.
    RemovePolicy {
        /// The policy's name.
        name: String,
    },
    /// Defines an NVE that has no session, or gives it other locators.
    DefineNve {
        /// The NVE's name.
        id: NveId,
        /// Its locators.
        locators: Locators,
    },
    /// Forgets an NVE that is not connected and holds no VM.
    DeleteNve {
        /// The NVE's name.
        id: NveId,
    },
    /// An NVE may take part in these VNs too (R68). It need not have spoken yet.
    AllowNve {
        /// The NVE's name.
        id: NveId,
        /// The VNs.
        vns: VnChoice,
        /// And in no others.
        only: bool,
    },
    /// An NVE may take part in these VNs no more, and leaves them (R68).
    DenyNve {
        /// The NVE's name.
        id: NveId,
        /// The VNs.
        vns: VnChoice,
        /// Its VMs there are detached.
        force: bool,
    },
    /// Orders a move; the same id again is the same move (R57).
    StartMove {
        /// The VM's name.
        vm: String,
        /// The NVE that it is to move to.
        to: NveId,
        /// The kind of move.
        mode: MoveMode,
        /// The move's name; empty: it is given one.
        id: String,
        /// Whoever orders it accepts that it interrupts the VM (R56).
        accept: bool,
    },
    /// The VM's manager says how far it is with a warm or cold move (R50, R51).
    ReportMove {
        /// The move's name.
        id: MoveId,
        /// Stopped, packaged, sent or instantiated.
        phase: MovePhase,
    },
    /// The VM's state is mirrored to an NVE, or is not any more (R50).
    SetMirror {
        /// The VM's name.
        vm: String,
        /// The standby NVE and the seconds from one mirror to the next; `None`: it is not mirrored.
        to: Option<(NveId, u32)>,
    },
    /// The VM's manager has mirrored it.
    VmMirrored {
        /// The VM's name.
        vm: String,
        /// When, in microseconds since 1970; `None`: now.
        at_us: Option<u64>,
    },
    /// Calls a move off before its grant.
    AbortMove {
        /// The move's name.
        id: MoveId,
    },
    /// Empties an NVE; the same order again goes on (R85).
    DrainNve(DrainOrder),
    /// Orders no more moves of a drain; those under way end, and the NVE still takes no VMs.
    StopDrain {
        /// The NVE's name.
        nve: NveId,
    },
    /// The NVE takes VMs again; a drain that runs ends.
    UndrainNve {
        /// The NVE's name.
        nve: NveId,
    },
}

/// An NVE that is to be emptied (R85).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainOrder {
    /// The NVE.
    pub nve: NveId,
    /// Where its VMs may go; empty: to any other NVE.
    pub to: Vec<NveId>,
    /// Moves at the same time.
    pub parallel: u32,
    /// VMs that take no hot move may be shut down for a cold one.
    pub accept_interruption: bool,
}

/// The answer to a request that was not refused. An order's answer is read by `try_into`.
#[derive(Clone, PartialEq, Debug)]
pub enum Answered {
    /// Messages of NVEs and ticks have outputs only.
    Nothing,
    /// The VN, as it is now or was before its deletion.
    Vn(VnInfo),
    /// The routing domain, as it is now or was before its deletion.
    Domain(DomainInfo),
    /// The static route, as it is now or was before its removal.
    Route(RouteInfo),
    /// The VM, as it is now or was before its deletion.
    Vm(Box<VmRecord>),
    /// What was done about a departure.
    Departure(Departure),
    /// The policy, as it is now or was before its removal.
    Policy(Policy),
    /// The NVE, as it is now or was before its deletion.
    Nve(NveInfo),
    /// The move.
    Move(MoveRecord),
    /// The drain, as it is now or was before its end.
    Drain(Box<DrainInfo>),
    /// The session that a relayed request goes to.
    Session(SessionId),
}

/// An answer of another kind than its order's.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("the directory answered with {0:?}, which is no {1}; please report this with the log")]
pub struct OtherAnswer(pub Box<Answered>, pub &'static str);

/// Each kind of answer as its content: from it by `into`, to it by `try_into`.
macro_rules! kinds_of_answers {
    ($($kind:ident $content:ty;)*) => {$(
        impl From<$content> for Answered {
            fn from(content: $content) -> Answered {
                Answered::$kind(content.into())
            }
        }

        impl TryFrom<Answered> for $content {
            type Error = OtherAnswer;

            fn try_from(answer: Answered) -> Result<$content, OtherAnswer> {
                match answer {
                    Answered::$kind(content) => Ok(*Box::<$content>::from(content)),
                    other => Err(OtherAnswer(Box::new(other), stringify!($content))),
                }
            }
        }
    )*};
}

kinds_of_answers! {
    Vn VnInfo;
    Domain DomainInfo;
    Route RouteInfo;
    Vm VmRecord;
    Departure Departure;
    Policy Policy;
    Nve NveInfo;
    Move MoveRecord;
    Drain DrainInfo;
    Session SessionId;
}

impl Directory {
    /// Carries an order out, or refuses it and changes nothing.
    pub(super) fn obey(&mut self, order: Order) -> Result<Answered, Refusal> {
        Ok(match order {
            Order::CreateVn(vn) => self.create_vn(vn)?.into(),
            Order::SetVn { name, changes } => self.set_vn(&name, changes)?.into(),
            Order::DeleteVn { name } => self.delete_vn(&name)?.into(),
            Order::AddSubnet { vn, subnet } => self.add_subnet(&vn, subnet)?.into(),
            Order::RemoveSubnet { vn, prefix } => self.remove_subnet(&vn, prefix)?.into(),
            Order::CreateDomain { name } => self.create_domain(name)?.into(),
            Order::DeleteDomain { name } => self.delete_domain(&name)?.into(),
            Order::AddRoute { domain, prefix, via } => self.add_route(&domain, prefix, &via)?.into(),
            Order::RemoveRoute { domain, prefix } => self.remove_route(&domain, prefix)?.into(),
            Order::DefineVm(definition) => self.define_vm(definition)?.into(),
            Order::SetVm { name, changes } => self.set_vm(&name, changes)?.into(),
            Order::DeleteVm { name } => self.delete_vm(&name)?.into(),
            Order::ClearVm { name } => self.clear_vm(&name)?.into(),
            Order::VmDeparted { name, nve } => self.vm_departed(&name, nve.as_ref())?.into(),
            Order::DefinePolicy(policy) => self.define_policy(policy)?.into(),
            Order::RemovePolicy { name } => self.remove_policy(&name)?.into(),
            Order::DefineNve { id, locators } => self.define_nve(&id, locators)?.into(),
            Order::DeleteNve { id } => self.delete_nve(&id)?.into(),
            Order::AllowNve { id, vns, only } => self.allow_nve(&id, &vns, only)?.into(),
            Order::DenyNve { id, vns, force } => self.deny_nve(&id, &vns, force)?.into(),
            Order::StartMove { vm, to, mode, id, accept } => {
                self.start_move(&vm, &to, mode, &id, accept)?.into()
            }
            Order::ReportMove { id, phase } => self.report_move(&id, phase)?.into(),
            Order::SetMirror { vm, to } => self.set_mirror(&vm, to)?.into(),
            Order::VmMirrored { vm, at_us } => self.vm_mirrored(&vm, at_us)?.into(),
            Order::AbortMove { id } => self.abort_move(&id)?.into(),
            Order::DrainNve(order) => self.drain_nve(order)?.into(),
            Order::StopDrain { nve } => self.stop_drain(&nve)?.into(),
            Order::UndrainNve { nve } => self.undrain_nve(&nve)?.into(),
        })
    }
}
