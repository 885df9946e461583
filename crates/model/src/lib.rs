//! Records that NVE, NVA and operator share: who a VM is, where it is, how sure we are, how it moves.
//!
//! No I/O and no protocol: `godwit-api` turns these into protobuf and back.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_lossless
    )
)]

mod addressing;
mod binding;
pub mod channel;
mod claim;
mod deadlines;
mod devargs;
mod drain;
mod identity;
mod ids;
mod level;
pub mod message;
mod moves;
mod oper;
mod phases;
mod policy;
mod record;
pub mod routable;
mod routing;
pub mod timing;
mod version;
mod vn;

pub use addressing::{
    Allowed, BadLearning, Bound, BoundIp, BoundKind, LEARNED_DEFAULT, LEARNED_MAX, Learning, LearningOf,
    MAX_BOUND, MAX_MACS, MAX_PREFIXES,
};
pub use binding::{Binding, BindingState, Bindings, Location, Locators};
pub use claim::{BindRefusal, ClaimCause, DenyReason, Unplanned};
pub use deadlines::Deadlines;
pub use devargs::{
    BadDevargs, BadDevargsRule, Devargs, DevargsRefusal, DevargsRule, PathBelow, check_devargs,
};
pub use drain::{DrainPhase, MAX_PARALLEL_MOVES};
pub use identity::{Identity, Role};
pub use ids::{BadName, MoveId, NveId, Secret, VmKey, check_name};
pub use level::Level;
pub use moves::{
    Abilities, HandoverCounts, ModeSet, MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStep, MoveStepKind,
    OnCold,
};
pub use oper::{BadOperState, OperState};
pub use phases::{MoveEvent, Next};
pub use policy::{BadDscp, BadPolicy, BadRule, Policy, parse_dscp, parse_rule};
pub use record::{Gateway, Mirror, VmRecord};
pub use routing::{
    Advertise, Dhcp, Domain, DomainId, GATEWAY_MAC, MAX_GROUPS, MAX_GROUPS_OF_NVE, MAX_LENGTHS, MAX_ROUTES,
    MAX_SUBNETS, Multicast, StaticRoute, Subnet, UnderlayGroup, VnRouting,
};
pub use version::{Version, serial_cmp};
pub use vn::{DirectoryMode, VnSettings};
