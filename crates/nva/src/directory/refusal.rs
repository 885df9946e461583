//! Why an operator's order was refused, and what to do about it.

use std::net::IpAddr;

use godwit_model::{BadName, BadPolicy, MoveId, MovePhase, NveId};
use godwit_wire::{Mac, Prefix, Vni};

/// The class of a refusal, for programs; gRPC has a status for each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefusalKind {
    /// What was named is not there.
    NotFound,
    /// What was to be made is there, and differs.
    Exists,
    /// The order makes no sense, whatever the state.
    Invalid,
    /// The order makes sense, but not in this state.
    State,
    /// An NVE that it takes is away, perhaps only for the moment after a restart: try again.
    Away,
    /// A bound is reached.
    Full,
    /// The peer is not permitted to order it.
    Permission,
}

/// An operator's order that was refused; nothing has changed.
#[allow(missing_docs)] // The fields are what the message says they are.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no VN {0:?}; `godwitctl vn list` shows those that are, `vn create` makes one")]
    UnknownVn(String),
    #[error("there is no VM {0:?}; `godwitctl vm list` shows those that are, `vm define` makes one")]
    UnknownVm(String),
    #[error("there is no NVE {0:?}; `godwitctl nve list` shows those that are")]
    UnknownNve(String),
    #[error("there is no move {0:?}; `godwitctl move list` shows those that are remembered")]
    UnknownMove(String),
    #[error(
        "there is no policy {0:?}; `godwitctl policy list` shows those that are, `policy define` makes one"
    )]
    UnknownPolicy(String),
    #[error("policy {name:?} is that of {vms} VMs; define these with another one or none first")]
    PolicyUsed { name: String, vms: usize },
    #[error(transparent)]
    Policy(#[from] BadPolicy),
    #[error(transparent)]
    Name(#[from] BadName),
    #[error("VN {name:?} is there with VNI {vni} and other settings; delete it first or choose another name")]
    VnExists { name: String, vni: Vni },
    #[error("VNI {vni} is VN {name:?}; choose another number")]
    VniTaken { vni: Vni, name: String },
    #[error("a tenant MTU of {0} bytes is of no use: 0 for each NVE's own, or 576 to 9216")]
    BadMtu(u16),
    #[error("VN {vn:?} has {vms} VMs; delete them first (`godwitctl vm list --vn {vn}`)")]
    VnHasVms { vn: String, vms: usize },
    #[error("VM {name:?} is there as {key}; delete it first or choose another name")]
    VmExists { name: String, key: String },
    #[error("{mac} is VM {name:?} in VN {vn:?}; a MAC address is unique within its VN")]
    MacTaken { mac: Mac, vn: String, name: String },
    #[error("{mac} is no address for a VM: use an individual one other than zero, as 02:00:00:00:00:01")]
    BadMac { mac: Mac },
    #[error("{ip} is VM {name:?} in VN {vn:?}; a second MAC for an address is refused, choose another")]
    IpTaken { ip: IpAddr, vn: String, name: String },
    #[error("{0} is no address for a VM: use an individual one")]
    BadIp(IpAddr),
    #[error("{got} addresses for one VM are more than {max}")]
    TooManyAddresses { got: usize, max: usize },
    #[error("{got} {what} for one VM are more than {max}")]
    TooMany { what: &'static str, got: usize, max: usize },
    #[error(
        "{what} {prefix} is of no use: name individual addresses, link-local ones singly, and not the whole family \
         (a VM that forwards for anybody is a `--router`)"
    )]
    BadPrefix { what: &'static str, prefix: Prefix },
    #[error("{mine} of VM {vm:?} is in conflict with {theirs} of VM {other:?}; {remedy}")]
    Overlap { mine: String, vm: String, theirs: String, other: String, remedy: String },
    #[error("VM {vm:?} runs at NVE {nve}; stop it or remove its port there first")]
    VmActive { vm: String, nve: NveId },
    #[error("VM {vm:?} has the unfinished move {id}; wait for it or `godwitctl move abort {id}` first")]
    VmMoving { vm: String, id: MoveId },
    #[error("VM {vm:?} is pinned to NVE {nve} and cannot move; define it again without the pin first")]
    VmPinned { vm: String, nve: NveId },
    #[error(
        "VM {vm:?} is frozen at NVE {nve} after too many unplanned moves; find the second one that uses its \
         MAC, then `godwitctl vm clear {vm}`"
    )]
    VmFrozen { vm: String, nve: NveId },
    #[error("VM {vm:?} is attached nowhere, so there is nothing to move: start it where it shall run")]
    VmDetached { vm: String },
    #[error("VM {vm:?} is attached nowhere, so there is nothing to leave; name the NVE it left with --nve")]
    DepartsFromNowhere { vm: String },
    #[error(
        "NVE {nve} is not the recorded owner of VM {vm:?}, which is {at}: its departure is not passed on"
    )]
    NotOwner { vm: String, nve: NveId, at: String },
    #[error("VM {vm:?} is at NVE {nve} already")]
    AlreadyThere { vm: String, nve: NveId },
    #[error("NVE {nve} is not connected; start godwit there and look at its --nva, then try again")]
    NveNotConnected { nve: NveId },
    #[error("move {id} is there for VM {vm:?} to NVE {to}; choose another id for another move")]
    MoveIdTaken { id: MoveId, vm: String, to: NveId },
    #[error("{0:?} is no move id: use 1 to 128 printable ASCII characters without spaces")]
    BadMoveId(String),
    #[error("move {id} has its grant: VM {vm:?} runs at NVE {to}; move it back with a new move")]
    MoveGranted { id: MoveId, vm: String, to: NveId },
    #[error("move {id} has ended as {phase:?} and cannot be called off")]
    MoveEnded { id: MoveId, phase: MovePhase },
    #[error("NVE {nve} speaks for itself; only NVEs without a session are defined, choose another name")]
    NveSpeaks { nve: NveId },
    #[error("NVE {nve} is connected; stop godwit there first")]
    NveConnected { nve: NveId },
    #[error("NVE {nve} holds {vms} VMs; move or delete them first")]
    NveHasVms { nve: NveId, vms: usize },
    #[error("an NVE needs an IPv4 or an IPv6 locator")]
    NoLocator,
    #[error("the directory holds {max} {what} and takes no more; delete some")]
    Full { what: &'static str, max: usize },
    #[error("{peer} sent {what} and is not permitted to; please report this with the log")]
    NotPermitted { peer: String, what: &'static str },
}

impl Refusal {
    /// Its class.
    pub fn kind(&self) -> RefusalKind {
        use Refusal as R;
        match self {
            R::UnknownVn(_)
            | R::UnknownVm(_)
            | R::UnknownNve(_)
            | R::UnknownMove(_)
            | R::UnknownPolicy(_) => RefusalKind::NotFound,
            R::VnExists { .. }
            | R::VniTaken { .. }
            | R::VmExists { .. }
            | R::MacTaken { .. }
            | R::IpTaken { .. }
            | R::Overlap { .. }
            | R::MoveIdTaken { .. }
            | R::NveSpeaks { .. } => RefusalKind::Exists,
            R::Name(_)
            | R::Policy(_)
            | R::BadMtu(_)
            | R::BadMac { .. }
            | R::BadIp(_)
            | R::TooManyAddresses { .. }
            | R::TooMany { .. }
            | R::BadPrefix { .. }
            | R::BadMoveId(_)
            | R::NoLocator => RefusalKind::Invalid,
            R::VnHasVms { .. }
            | R::PolicyUsed { .. }
            | R::VmActive { .. }
            | R::VmMoving { .. }
            | R::VmPinned { .. }
            | R::VmFrozen { .. }
            | R::VmDetached { .. }
            | R::DepartsFromNowhere { .. }
            | R::NotOwner { .. }
            | R::AlreadyThere { .. }
            | R::MoveGranted { .. }
            | R::MoveEnded { .. }
            | R::NveConnected { .. }
            | R::NveHasVms { .. } => RefusalKind::State,
            R::NveNotConnected { .. } => RefusalKind::Away,
            R::Full { .. } => RefusalKind::Full,
            R::NotPermitted { .. } => RefusalKind::Permission,
        }
    }
}
