//! Records: VMs, locations, versions, moves.

use godwit_model as model;
use godwit_wire::Dscp;
use godwit_wire::policy::{Rule, Verdict};

use super::{ConvertError, Problem, addresses, each, ipv4, ipv6, mac, move_id, name, nve_id, part, vni};
use crate::v1;

/// Enumerations whose enumerators have the same names on both sides; 0 means unset on the wire.
macro_rules! enums {
    ($($name:ident, $reader:ident { $($v:ident),* $(,)? })*) => {$(
        impl From<model::$name> for v1::$name {
            fn from(m: model::$name) -> v1::$name {
                match m { $(model::$name::$v => v1::$name::$v),* }
            }
        }

        #[doc = concat!("Reads a `", stringify!($name), "`.\n\n# Errors\nWhere it is unset or not known.")]
        pub fn $reader(field: &str, raw: i32) -> Result<model::$name, ConvertError> {
            match v1::$name::try_from(raw) {
                $(Ok(v1::$name::$v) => Ok(model::$name::$v),)*
                _ => Err(ConvertError::new(field, Problem::UnknownEnumerator(raw))),
            }
        }
    )*};
}

enums! {
    MoveMode, move_mode { Hot, Warm, Cold }
    MoveOrigin, move_origin { Ordered, Unplanned }
    MovePhase, move_phase {
        Preparing, Prepared, Paused, Granted, Done, Aborted, Failed, Stopped, Packaged, Sent, Instantiated,
    }
    MoveStepKind, move_step_kind {
        Ordered, Prepared, Paused, Activated, Claimed, Granted, FirstForwarded, LastForwarded,
        Acknowledged, Aborted, Failed, Done, Denied, Restarted, Overtaken, Asked, Answered, Frozen,
        Accepted, Stopped, Packaged, Sent, Instantiated, InOrder,
    }
    DenyReason, deny_reason {
        UnknownVm, AddressMismatch, OwnedElsewhere, StaleVersion, Pinned, Frozen, Draining, NotAllowed,
    }
    Unplanned, unplanned { Verify, Accept, Deny }
    Multicast, multicast { Flood, Snoop, Off }
    OnCold, on_cold { Drop, Reset }
    DrainPhase, drain_phase { Running, Stopped, Ended }
    BindRefusal, bind_refusal { UnknownVm, NotHere, NotAllowed, Full, Taken }
    ClaimCause, claim_cause {
        Activate, GratuitousArp, NeighborAdvertisement, Rarp, FirstFrame, Resync,
    }
}

/// A set of modes as the wire lists it.
pub(super) fn mode_list(modes: model::ModeSet) -> Vec<i32> {
    modes.iter().map(|m| v1::MoveMode::from(m).into()).collect()
}

/// Reads a set of modes; one that lists none is `unsaid`.
pub(super) fn mode_set(
    field: &'static str,
    list: &[i32],
    unsaid: model::ModeSet,
) -> Result<model::ModeSet, ConvertError> {
    if list.is_empty() {
        return Ok(unsaid);
    }
    let modes: Vec<model::MoveMode> = list.iter().map(|m| move_mode(field, *m)).collect::<Result<_, _>>()?;
    Ok(model::ModeSet::of(&modes))
}

/// A set of modes that may be unset.
pub fn modes(field: &'static str, list: &[i32]) -> Result<Option<model::ModeSet>, ConvertError> {
    (!list.is_empty()).then(|| mode_set(field, list, model::ModeSet::ALL)).transpose()
}

impl From<model::Version> for v1::Version {
    fn from(m: model::Version) -> v1::Version {
        v1::Version { epoch: m.epoch, seq: m.seq }
    }
}

impl From<v1::Version> for model::Version {
    fn from(p: v1::Version) -> model::Version {
        model::Version { epoch: p.epoch, seq: p.seq }
    }
}

/// A version that must be there (R20: a location message without one is an error).
pub(super) fn version(field: &'static str, p: Option<v1::Version>) -> Result<model::Version, ConvertError> {
    p.map(model::Version::from).ok_or_else(|| ConvertError::new(field, Problem::Missing))
}

impl From<model::VmKey> for v1::VmKey {
    fn from(m: model::VmKey) -> v1::VmKey {
        v1::VmKey { vni: m.vni.get(), mac: m.mac.to_u64() }
    }
}

impl TryFrom<v1::VmKey> for model::VmKey {
    type Error = ConvertError;

    fn try_from(p: v1::VmKey) -> Result<model::VmKey, ConvertError> {
        Ok(model::VmKey { vni: vni("vni", p.vni)?, mac: mac("mac", p.mac)? })
    }
}

impl From<model::Locators> for v1::Locators {
    fn from(m: model::Locators) -> v1::Locators {
        v1::Locators {
            v4: m.v4.map(|a| a.octets().to_vec()).unwrap_or_default(),
            v6: m.v6.map(|a| a.octets().to_vec()).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Locators> for model::Locators {
    type Error = ConvertError;

    fn try_from(p: v1::Locators) -> Result<model::Locators, ConvertError> {
        let v4 = if p.v4.is_empty() { None } else { Some(ipv4("v4", &p.v4)?) };
        let v6 = if p.v6.is_empty() { None } else { Some(ipv6("v6", &p.v6)?) };
        if v4.is_none() && v6.is_none() {
            return Err(ConvertError::new("v4", Problem::NoLocator));
        }
        Ok(model::Locators { v4, v6 })
    }
}

impl From<model::Location> for v1::Location {
    fn from(m: model::Location) -> v1::Location {
        v1::Location { nve: m.nve.to_string(), locators: Some(m.locators.into()) }
    }
}

impl TryFrom<v1::Location> for model::Location {
    type Error = ConvertError;

    fn try_from(p: v1::Location) -> Result<model::Location, ConvertError> {
        Ok(model::Location { nve: nve_id("nve", p.nve)?, locators: part("locators", p.locators)? })
    }
}

/// On the wire a record has one location and the state of that; a pending binding has a field of its own.
fn located(m: &model::Bindings) -> (Option<v1::Location>, v1::BindingState) {
    match m.active().cloned() {
        Some(location) => (Some(location.into()), v1::BindingState::Active),
        None => (None, v1::BindingState::Detached),
    }
}

fn bindings(
    location: Option<v1::Location>,
    state: i32,
    pending: Option<v1::Location>,
) -> Result<model::Bindings, ConvertError> {
    let active: Option<model::Location> = super::maybe("location", location)?;
    let attached = match v1::BindingState::try_from(state) {
        Ok(v1::BindingState::Active) => true,
        Ok(v1::BindingState::Detached) => false,
        _ => return Err(ConvertError::new("state", Problem::UnknownEnumerator(state))),
    };
    if active.is_some() != attached {
        return Err(ConvertError::new("location", Problem::StateAndLocation));
    }
    let mut all = model::Bindings::from(active);
    all.set_pending(super::maybe("pending", pending)?);
    Ok(all)
}

impl From<model::Mirror> for v1::Mirror {
    fn from(m: model::Mirror) -> v1::Mirror {
        v1::Mirror { nve: m.nve.to_string(), interval_s: m.interval_s, mirrored_us: m.mirrored_us }
    }
}

impl TryFrom<v1::Mirror> for model::Mirror {
    type Error = ConvertError;

    fn try_from(p: v1::Mirror) -> Result<model::Mirror, ConvertError> {
        let nve = nve_id("nve", p.nve)?;
        Ok(model::Mirror { nve, interval_s: p.interval_s, mirrored_us: p.mirrored_us })
    }
}

impl From<model::VmRecord> for v1::VmRecord {
    fn from(m: model::VmRecord) -> v1::VmRecord {
        let (location, state) = located(&m.bindings);
        let pending = m.bindings.pending().cloned().map(Into::into);
        v1::VmRecord {
            name: m.name,
            key: Some(m.key.into()),
            ipv4: m.ipv4.iter().map(|a| a.octets().to_vec()).collect(),
            ipv6: m.ipv6.iter().map(|a| a.octets().to_vec()).collect(),
            location,
            state: state.into(),
            version: Some(m.version.into()),
            router: m.router,
            router_pinned: m.router_pinned,
            pinned: m.pinned,
            moving: m.moving.map(|id| id.0).unwrap_or_default(),
            interested: Vec::new(),
            frozen: m.frozen,
            policy: m.policy.unwrap_or_default(),
            no_override: m.no_override.iter().map(|a| a.octets().to_vec()).collect(),
            allowed: (!m.allowed.is_empty()).then(|| m.allowed.into()),
            bound_ips: m.bound.ips.into_iter().map(Into::into).collect(),
            bound_macs: m.bound.macs.iter().map(|m| m.to_u64()).collect(),
            shared: Vec::new(),
            pending,
            standby: m.standby.map(Into::into),
        }
    }
}

impl TryFrom<v1::VmRecord> for model::VmRecord {
    type Error = ConvertError;

    fn try_from(p: v1::VmRecord) -> Result<model::VmRecord, ConvertError> {
        Ok(model::VmRecord {
            name: name("name", "VM", p.name)?,
            key: part("key", p.key)?,
            ipv4: addresses("ipv4", &p.ipv4, ipv4)?,
            ipv6: addresses("ipv6", &p.ipv6, ipv6)?,
            bindings: bindings(p.location, p.state, p.pending)?,
            version: version("version", p.version)?,
            router: p.router,
            router_pinned: p.router_pinned,
            no_override: addresses("no_override", &p.no_override, ipv6)?,
            pinned: p.pinned,
            moving: if p.moving.is_empty() { None } else { Some(move_id("moving", p.moving)?) },
            frozen: p.frozen,
            policy: if p.policy.is_empty() { None } else { Some(name("policy", "policy", p.policy)?) },
            allowed: super::maybe("allowed", p.allowed)?.unwrap_or_default(),
            bound: model::Bound {
                ips: super::addressing::bound_ips(p.bound_ips)?,
                macs: super::addressing::macs("bound_macs", &p.bound_macs)?,
            },
            standby: super::maybe("standby", p.standby)?,
        })
    }
}

impl From<model::Policy> for v1::Policy {
    fn from(m: model::Policy) -> v1::Policy {
        v1::Policy {
            name: m.name,
            rules: m.rules.iter().map(Rule::to_string).collect(),
            default_deny: m.default == Verdict::Deny,
            rate: m.rate,
            burst: m.burst,
            dscp: m.dscp.map(|dscp| dscp.get().into()),
        }
    }
}

impl TryFrom<v1::Policy> for model::Policy {
    type Error = ConvertError;

    fn try_from(p: v1::Policy) -> Result<model::Policy, ConvertError> {
        let rules = p.rules.iter().map(|r| model::parse_rule(r));
        let policy = model::Policy {
            name: p.name,
            rules: rules
                .collect::<Result<_, _>>()
                .map_err(|e| ConvertError::new("rules", Problem::Rule(e)))?,
            default: if p.default_deny { Verdict::Deny } else { Verdict::Allow },
            rate: p.rate,
            burst: p.burst,
            dscp: p.dscp.map(dscp).transpose()?,
        };
        policy.check().map_err(|e| ConvertError::new("policy", Problem::Policy(e)))?;
        Ok(policy)
    }
}

fn dscp(number: u32) -> Result<Dscp, ConvertError> {
    let dscp = u8::try_from(number).ok().and_then(Dscp::new);
    dscp.ok_or_else(|| ConvertError::new("dscp", Problem::TooLarge(number.into(), 63)))
}

impl From<model::MoveStep> for v1::MoveStep {
    fn from(m: model::MoveStep) -> v1::MoveStep {
        v1::MoveStep {
            at_us: m.at_us,
            nve: m.nve.map(|n| n.to_string()).unwrap_or_default(),
            what: v1::MoveStepKind::from(m.what).into(),
            note: m.note,
        }
    }
}

impl TryFrom<v1::MoveStep> for model::MoveStep {
    type Error = ConvertError;

    fn try_from(p: v1::MoveStep) -> Result<model::MoveStep, ConvertError> {
        Ok(model::MoveStep {
            at_us: p.at_us,
            nve: if p.nve.is_empty() { None } else { Some(nve_id("nve", p.nve)?) },
            what: move_step_kind("what", p.what)?,
            note: p.note,
        })
    }
}

impl From<model::HandoverCounts> for v1::HandoverCounts {
    fn from(m: model::HandoverCounts) -> v1::HandoverCounts {
        v1::HandoverCounts {
            held: m.held,
            flushed: m.flushed,
            forwarded: m.forwarded,
            dropped: m.dropped,
            first_forward_us: m.first_forward_us,
            last_forward_us: m.last_forward_us,
            dropped_memory: m.dropped_memory,
            dropped_limit: m.dropped_limit,
            dropped_age: m.dropped_age,
            held_bytes: m.held_bytes,
            peak_bytes: m.peak_bytes,
        }
    }
}

impl From<v1::HandoverCounts> for model::HandoverCounts {
    fn from(p: v1::HandoverCounts) -> model::HandoverCounts {
        model::HandoverCounts {
            held: p.held,
            flushed: p.flushed,
            forwarded: p.forwarded,
            dropped: p.dropped,
            dropped_memory: p.dropped_memory,
            dropped_limit: p.dropped_limit,
            dropped_age: p.dropped_age,
            held_bytes: p.held_bytes,
            peak_bytes: p.peak_bytes,
            first_forward_us: p.first_forward_us,
            last_forward_us: p.last_forward_us,
        }
    }
}

impl From<model::MoveRecord> for v1::MoveRecord {
    fn from(m: model::MoveRecord) -> v1::MoveRecord {
        let count = |(nve, c): (model::NveId, model::HandoverCounts)| v1::NveCounts {
            nve: nve.to_string(),
            counts: Some(c.into()),
        };
        v1::MoveRecord {
            id: m.id.0,
            vm: m.vm,
            key: Some(m.key.into()),
            from: m.from.to_string(),
            to: m.to.to_string(),
            mode: v1::MoveMode::from(m.mode).into(),
            origin: v1::MoveOrigin::from(m.origin).into(),
            phase: v1::MovePhase::from(m.phase).into(),
            version: Some(m.version.into()),
            steps: m.steps.into_iter().map(Into::into).collect(),
            counts: m.counts.into_iter().map(count).collect(),
        }
    }
}

impl TryFrom<v1::MoveRecord> for model::MoveRecord {
    type Error = ConvertError;

    fn try_from(p: v1::MoveRecord) -> Result<model::MoveRecord, ConvertError> {
        let count = |c: v1::NveCounts| {
            let counts = c.counts.ok_or_else(|| ConvertError::new("counts.counts", Problem::Missing))?;
            Ok((nve_id("counts.nve", c.nve)?, counts.into()))
        };
        Ok(model::MoveRecord {
            id: move_id("id", p.id)?,
            vm: name("vm", "VM", p.vm)?,
            key: part("key", p.key)?,
            from: nve_id("from", p.from)?,
            to: nve_id("to", p.to)?,
            mode: move_mode("mode", p.mode)?,
            origin: move_origin("origin", p.origin)?,
            phase: move_phase("phase", p.phase)?,
            version: version("version", p.version)?,
            steps: each("steps", p.steps)?,
            counts: p.counts.into_iter().map(count).collect::<Result<_, ConvertError>>()?,
        })
    }
}
