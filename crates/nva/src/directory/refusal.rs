//! Why an operator's order was refused, and what to do about it.

use std::net::IpAddr;

use godwit_model::{BadName, BadPolicy, ModeSet, MoveId, MoveMode, MovePhase, NveId, Role};
use godwit_wire::{Mac, Prefix, Vni};

use super::authority::BadAccess;

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
    #[error(
        "there is no routing domain {0:?}; `godwitctl domain list` shows those that are, `domain create` makes one"
    )]
    UnknownDomain(String),
    #[error(
        "routing domain {domain:?} joins {vns} VNs ({some}); take them out with `godwitctl vn set VN --no-domain`, or \
         delete them"
    )]
    DomainHasVns { domain: String, vns: usize, some: String },
    #[error(
        "VN {vn:?} is in no routing domain, so nothing in it is routed; put it into one first \
         (`godwitctl vn set {vn} --domain DOMAIN`)"
    )]
    NotRouted { vn: String },
    #[error(
        "VN {vn:?} is in routing domain {domain:?}, so it does not join {other:?}; `godwitctl vn set {vn} \
         --no-domain` takes it out, with its subnets"
    )]
    VnInDomain { vn: String, domain: String, other: String },
    #[error(
        "VN {vn:?} stays in routing domain {domain:?}: {routes} routes of the domain go by its VMs ({some}); \
         `godwitctl domain route remove {domain} PREFIX` first"
    )]
    VnHasRoutes { vn: String, domain: String, routes: usize, some: String },
    #[error(
        "subnet {prefix} of VN {vn:?} overlaps subnet {other} of VN {other_vn:?} in routing domain {domain:?}; choose \
         another prefix, or `godwitctl vn subnet remove {other_vn} {other}` first"
    )]
    SubnetsOverlap { prefix: Prefix, vn: String, other: Prefix, other_vn: String, domain: String },
    #[error("subnet {prefix} is of no use: {why}")]
    BadSubnet { prefix: Prefix, why: &'static str },
    #[error("subnet {prefix} has addresses that are not routed: {why}; choose another prefix")]
    UnroutedSubnet { prefix: Prefix, why: &'static str },
    #[error(
        "gateway {gateway} {why} of subnet {prefix}; name one of the addresses that a VM of it could have"
    )]
    BadGateway { gateway: IpAddr, prefix: Prefix, why: &'static str },
    #[error(
        "{ip}, the {what} of subnet {subnet} of VN {vn:?}, is an address of VM {vm:?}; choose another one, or give \
         the VM another address first (`godwitctl vm set {vm}`)"
    )]
    GatewayTaken { ip: IpAddr, what: &'static str, subnet: Prefix, vn: String, vm: String },
    #[error(
        "{mine} of VM {vm:?} has {gateway}, the gateway's address in subnet {subnet} of VN {vn:?}; choose another \
         one, or another gateway (`godwitctl vn subnet add {vn} {subnet} --gateway ADDRESS`)"
    )]
    GatewayAddress { mine: String, vm: String, gateway: IpAddr, subnet: Prefix, vn: String },
    #[error("address {ip} of VM {vm:?} is the {what} address of subnet {subnet}; choose another one")]
    SubnetEdge { ip: IpAddr, vm: String, subnet: Prefix, what: &'static str },
    #[error(
        "address {ip} of VM {vm:?} is outside the subnets of VN {vn:?} ({subnets}); choose one inside, or add a \
         subnet first (`godwitctl vn subnet add {vn}`)"
    )]
    OutsideSubnets { ip: IpAddr, vm: String, vn: String, subnets: String },
    #[error(
        "{mac} of VM {vm:?} is the MAC of every gateway (`godwit-nva --gateway-mac`); choose another one"
    )]
    GatewayMac { mac: Mac, vm: String },
    #[error("VN {vn:?} has no subnet {prefix}; it has {known}", known = none(known))]
    UnknownSubnet { vn: String, prefix: Prefix, known: String },
    #[error(
        "{vms} VMs of VN {vn:?} have addresses in subnet {prefix} ({some}); give them others or delete them \
         first"
    )]
    SubnetHasVms { vn: String, prefix: Prefix, vms: usize, some: String },
    #[error("{what} are {max} at most; remove one first")]
    AtMost { what: String, max: usize },
    #[error(
        "{prefix} would be one more length of {family} prefixes in routing domain {domain:?}, which has {known}; \
         {max} are possible, so choose a prefix of one of these lengths"
    )]
    Lengths { prefix: Prefix, domain: String, known: String, family: &'static str, max: usize },
    #[error("a route to {prefix} is of no use: {why}; choose another prefix")]
    BadRoute { prefix: Prefix, why: &'static str },
    #[error(
        "a route to {prefix} would be for a part of subnet {subnet} of VN {vn:?} in routing domain {domain:?}, which \
         its gateways deliver themselves; choose a prefix outside, or one that contains it"
    )]
    RouteInSubnet { prefix: Prefix, subnet: Prefix, vn: String, domain: String },
    #[error(
        "routing domain {domain:?} has a route to {route}, which is in subnet {prefix} of VN {vn:?}; choose another \
         prefix, or `godwitctl domain route remove {domain} {route}` first"
    )]
    SubnetHasRoute { vn: String, prefix: Prefix, route: Prefix, domain: String },
    #[error(
        "VM {vm:?} is in VN {vn:?}, which is not in routing domain {domain:?}; a next hop is a VM of the domain \
         (`godwitctl domain show {domain}` names its VNs)"
    )]
    NextHopElsewhere { vm: String, vn: String, domain: String },
    #[error(
        "VM {vm:?} may not send from {prefix}, so it cannot route for it; `godwitctl vm set {vm} --route {prefix}` \
         allows this prefix, `--router` any"
    )]
    MayNotRoute { vm: String, prefix: Prefix },
    #[error(
        "routing domain {domain:?} has no route to {prefix}; `godwitctl domain show {domain}` shows its routes"
    )]
    UnknownRoute { domain: String, prefix: Prefix },
    #[error(
        "VM {vm:?} is the next hop of {routes} routes of routing domain {domain:?} ({some}); `godwitctl domain \
         route remove` them first"
    )]
    IsNextHop { vm: String, domain: String, routes: usize, some: String },
    #[error(
        "VM {vm:?} is the next hop of {prefix} in routing domain {domain:?} and must be allowed to send from it; keep \
         `--route` or `--router`, or `godwitctl domain route remove {domain} {prefix}` first"
    )]
    RouteNeeds { vm: String, prefix: Prefix, domain: String },
    #[error("{0} is no group for the underlay: name one that is routed, as 239.1.1.1 or ff08::1:1")]
    BadUnderlayGroup(IpAddr),
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
    #[error(
        "VN {vn:?} of VM {vm:?} takes {modes} moves, no {mode} one: order another (`godwitctl vm move {vm} --mode`), \
         or allow it with `godwitctl vn set {vn} --modes`"
    )]
    ModeOfVn { vm: String, vn: String, mode: MoveMode, modes: ModeSet },
    #[error(
        "NVE {nve} takes part in {modes} moves, in no {mode} one: order another (`godwitctl vm move --mode`), or allow \
         it with `move_modes` in its configuration"
    )]
    ModeOfNve { nve: NveId, mode: MoveMode, modes: ModeSet },
    #[error("{notice}; who accepts that orders it with --accept-interruption")]
    Interrupts { notice: String },
    #[error(
        "VM {vm:?} is mirrored nowhere, and a warm move needs its state at NVE {to}: `godwitctl vm mirror {vm} --to \
         {to}` first, or order a cold move"
    )]
    NoMirror { vm: String, to: NveId },
    #[error(
        "VM {vm:?} is mirrored to NVE {standby}, and not to {to}: move it to {standby}, or `godwitctl vm mirror {vm} \
         --to {to}` first"
    )]
    MirrorElsewhere { vm: String, standby: NveId, to: NveId },
    #[error(
        "VM {vm:?} has not been mirrored to NVE {nve} yet; its manager says when it has (`godwitctl vm mirrored {vm}`)"
    )]
    NeverMirrored { vm: String, nve: NveId },
    #[error("VM {vm:?} runs at NVE {nve}: a mirror of it is for another NVE")]
    MirrorHere { vm: String, nve: NveId },
    #[error("a mirror every {0} s is of no use: 1 to 3600")]
    BadInterval(u32),
    #[error("VM {vm:?} is mirrored nowhere; `godwitctl vm mirror {vm} --to NVE` first")]
    NotMirrored { vm: String },
    #[error(
        "VM {vm:?} cannot have been mirrored {ahead_s} s from now; look at the clocks of manager and NVA"
    )]
    MirrorAhead { vm: String, ahead_s: u64 },
    #[error(
        "the manager of a {mode} move reports {known}, and not {phase}",
        known = steps(*mode), phase = phase.as_str()
    )]
    NotReported { mode: MoveMode, phase: MovePhase },
    #[error(
        "move {id} is {at}{why}: {phase} cannot follow, {next} can (`godwitctl move report {id} {next}`)",
        at = at.as_str(), phase = phase.as_str(), next = next.as_str()
    )]
    ReportTooEarly { id: MoveId, at: MovePhase, why: String, phase: MovePhase, next: MovePhase },
    #[error("NVE {nve} speaks for itself; only NVEs without a session are defined, choose another name")]
    NveSpeaks { nve: NveId },
    #[error("NVE {nve} is connected; stop godwit there first")]
    NveConnected { nve: NveId },
    #[error("NVE {nve} holds {vms} VMs; move or delete them first")]
    NveHasVms { nve: NveId, vms: usize },
    #[error(
        "NVE {nve} is being drained and takes no VMs; name another NVE, or `godwitctl nve undrain {nve}` first"
    )]
    NveDraining { nve: NveId },
    #[error("NVE {nve} is not being drained; `godwitctl nve drain {nve}` does that")]
    NotDraining { nve: NveId },
    #[error("{0} moves at the same time are of no use: from 1 to {max}", max = godwit_model::MAX_PARALLEL_MOVES)]
    BadParallel(u32),
    #[error("NVE {nve} cannot be drained: {why}")]
    CannotDrain { nve: NveId, why: String },
    #[error("an NVE needs an IPv4 or an IPv6 locator")]
    NoLocator,
    #[error("the directory holds {max} {what} and takes no more; delete some")]
    Full { what: &'static str, max: usize },
    #[error(
        "NVE {nve} may not take part in VN {vn:?}; choose another NVE, or let it by `godwitctl nve allow {nve} --vn \
         {vn}`"
    )]
    NveNotAllowed { nve: NveId, vn: String },
    #[error(
        "NVE {nve} has {vms} VMs in VNs that it may not take part in then, the first of them in VN {vn:?}; move them \
         away first, or let them be detached (`godwitctl nve deny --force`)"
    )]
    NveHasVmsIn { nve: NveId, vms: usize, vn: String },
    #[error("NVE {nve} is one without a session: it is in the VNs of the VMs that are pinned to it")]
    NveForeign { nve: NveId },
    #[error(transparent)]
    Access(#[from] BadAccess),
    #[error("{who} may not `{what}`: this takes the role {needs}; use a certificate or a token that has it")]
    RoleTooSmall { who: String, what: String, needs: Role },
    #[error(
        "NVE {nve} may not `{what}`: the certificate of a switch is no operator's; use one of an operator"
    )]
    NoOperator { nve: NveId, what: String },
    #[error("{peer} sent {what} and is not permitted to; please report this with the log")]
    NotPermitted { peer: String, what: &'static str },
}

/// What a manager reports of a move.
fn steps(mode: MoveMode) -> String {
    let all: Vec<&str> = mode.reported().iter().map(|p| p.as_str()).collect();
    if all.is_empty() { "nothing".into() } else { all.join(", ") }
}

/// A list, or that it is empty.
fn none(list: &str) -> &str {
    if list.is_empty() { "none" } else { list }
}

impl Refusal {
    /// It is for what the identity that was proved may do.
    pub fn is_denial(&self) -> bool {
        matches!(self, Refusal::RoleTooSmall { .. } | Refusal::NoOperator { .. })
    }

    /// Its class.
    pub fn kind(&self) -> RefusalKind {
        use Refusal as R;
        match self {
            R::UnknownVn(_)
            | R::UnknownVm(_)
            | R::UnknownNve(_)
            | R::UnknownMove(_)
            | R::UnknownPolicy(_)
            | R::UnknownDomain(_)
            | R::UnknownSubnet { .. }
            | R::UnknownRoute { .. } => RefusalKind::NotFound,
            R::VnExists { .. }
            | R::VniTaken { .. }
            | R::VmExists { .. }
            | R::MacTaken { .. }
            | R::IpTaken { .. }
            | R::Overlap { .. }
            | R::SubnetsOverlap { .. }
            | R::SubnetHasRoute { .. }
            | R::RouteInSubnet { .. }
            | R::GatewayTaken { .. }
            | R::GatewayAddress { .. }
            | R::GatewayMac { .. }
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
            | R::BadSubnet { .. }
            | R::UnroutedSubnet { .. }
            | R::BadGateway { .. }
            | R::SubnetEdge { .. }
            | R::OutsideSubnets { .. }
            | R::BadRoute { .. }
            | R::BadUnderlayGroup(_)
            | R::BadParallel(_)
            | R::BadInterval(_)
            | R::MirrorAhead { .. }
            | R::NotReported { .. }
            | R::Access(_)
            | R::NoLocator => RefusalKind::Invalid,
            R::VnHasVms { .. }
            | R::DomainHasVns { .. }
            | R::NotRouted { .. }
            | R::VnInDomain { .. }
            | R::VnHasRoutes { .. }
            | R::SubnetHasVms { .. }
            | R::NextHopElsewhere { .. }
            | R::MayNotRoute { .. }
            | R::IsNextHop { .. }
            | R::RouteNeeds { .. }
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
            | R::ModeOfVn { .. }
            | R::ModeOfNve { .. }
            | R::Interrupts { .. }
            | R::NoMirror { .. }
            | R::MirrorElsewhere { .. }
            | R::NeverMirrored { .. }
            | R::MirrorHere { .. }
            | R::NotMirrored { .. }
            | R::ReportTooEarly { .. }
            | R::NveConnected { .. }
            | R::NveDraining { .. }
            | R::NotDraining { .. }
            | R::CannotDrain { .. }
            | R::NveNotAllowed { .. }
            | R::NveHasVmsIn { .. }
            | R::NveForeign { .. }
            | R::NveHasVms { .. } => RefusalKind::State,
            R::NveNotConnected { .. } => RefusalKind::Away,
            R::Full { .. } | R::AtMost { .. } | R::Lengths { .. } => RefusalKind::Full,
            R::NotPermitted { .. } | R::RoleTooSmall { .. } | R::NoOperator { .. } => RefusalKind::Permission,
        }
    }
}
