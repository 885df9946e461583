//! Operators' messages as the directory has them, and back.

use godwit_api::convert;
use godwit_api::tonic::Status;
use godwit_api::{ConvertError, v1};
use godwit_model::{Allowed, DomainId, Learning, Multicast, NveId, OnCold, Unplanned, VmKey, VnSettings};
use godwit_wire::{Mac, Vni};

use super::super::allow;

use crate::directory::{
    DomainInfo, ListChange, NveInfo, RouteInfo, SharedOwner, VmChanges, VmDefinition, VnChanges, VnInfo,
    VnRecord,
};

pub(super) fn invalid(e: ConvertError) -> Status {
    Status::invalid_argument(e.to_string())
}

pub(super) fn vn(info: VnInfo) -> v1::Vn {
    v1::Vn {
        name: info.record.name,
        vni: info.record.vni.get(),
        settings: Some(info.record.settings.into()),
        vms: u32::try_from(info.vms).unwrap_or(u32::MAX),
        members: info.members.iter().map(NveId::to_string).collect(),
        pulling: info.pulling.iter().map(NveId::to_string).collect(),
        routing: info.routing.iter().map(NveId::to_string).collect(),
        domain: info.domain.unwrap_or_default(),
    }
}

pub(super) fn nve(info: NveInfo) -> v1::NveInfo {
    v1::NveInfo {
        name: info.record.id.to_string(),
        locators: Some(info.record.locators.into()),
        connected: info.connected,
        foreign: info.record.foreign,
        software: info.record.software,
        vms: u32::try_from(info.vms).unwrap_or(u32::MAX),
        vnis: info.vnis.iter().map(|v| v.get()).collect(),
        routing: info.routing.iter().map(|v| v.get()).collect(),
        silent_ms: info.silent_ms,
        dirty: info.dirty,
        instance: info.record.instance,
        drain: info.drain.map_or(0, |phase| v1::DrainPhase::from(phase).into()),
        modes: info.modes.iter().map(|m| v1::MoveMode::from(m).into()).collect(),
        access: Some(allow::access(&info.access)),
        refused: info.refused.map(|r| v1::RefusedNve { text: r.text, count: r.count, ago_ms: r.ago_ms }),
    }
}

pub(super) fn shared_owner(s: SharedOwner) -> v1::SharedOwner {
    let ip = s.ip.map(convert::ip_bytes).unwrap_or_default();
    v1::SharedOwner { ip, mac: s.mac.to_u64(), vm: s.vm }
}

/// `None` where the field is not set.
fn unplanned(raw: i32) -> Result<Option<Unplanned>, ConvertError> {
    if raw == 0 { Ok(None) } else { convert::unplanned("unplanned", raw).map(Some) }
}

/// As [`unplanned`].
fn multicast(raw: i32) -> Result<Option<Multicast>, ConvertError> {
    if raw == 0 { Ok(None) } else { convert::multicast("multicast", raw).map(Some) }
}

/// As [`unplanned`].
fn on_cold(raw: i32) -> Result<Option<OnCold>, ConvertError> {
    if raw == 0 { Ok(None) } else { convert::on_cold("on_cold", raw).map(Some) }
}

/// `domain`: the number of the routing domain that the request names.
pub(super) fn vn_changes(
    p: v1::SetVnRequest,
    domain: Option<Option<DomainId>>,
) -> Result<VnChanges, ConvertError> {
    let (learning_v4, learning_v6) = learning(p.learning)?;
    let groups = p.underlay_groups.map(|g| convert::underlay_group(&g.v4, &g.v6)).transpose()?;
    Ok(VnChanges {
        flood_silent: p.flood_silent,
        unplanned: unplanned(p.unplanned)?,
        rarp: p.rarp,
        learning_v4,
        learning_v6,
        multicast: multicast(p.multicast)?,
        underlay_group: groups,
        on_cold: on_cold(p.on_cold)?,
        modes: convert::modes("modes", &p.modes)?,
        domain,
        routed_only: p.routed_only,
    })
}

pub(super) fn domain(info: DomainInfo) -> v1::DomainInfo {
    v1::DomainInfo {
        id: info.record.id.0,
        name: info.record.name,
        gateway_mac: info.gateway_mac.to_u64(),
        vns: info.vns.into_iter().map(vn).collect(),
        routes: Vec::new(),
        route_count: u32::try_from(info.routes).unwrap_or(u32::MAX),
    }
}

pub(super) fn route(r: RouteInfo) -> v1::RouteInfo {
    let via = Some(r.via.into());
    v1::RouteInfo { domain: r.domain, prefix: r.prefix.to_string(), via, vm: r.vm, vn: r.vn }
}

pub(super) fn vn_record(p: v1::Vn) -> Result<VnRecord, Status> {
    Ok(VnRecord {
        vni: convert::vni("vni", p.vni).map_err(invalid)?,
        name: p.name,
        settings: p.settings.map(VnSettings::try_from).transpose().map_err(invalid)?.unwrap_or_default(),
    })
}

pub(super) fn definition(p: v1::DefineVmRequest) -> Result<VmDefinition, ConvertError> {
    let pinned =
        if p.pinned_nve.is_empty() { None } else { Some(convert::nve_id("pinned_nve", p.pinned_nve)?) };
    Ok(VmDefinition {
        name: p.name,
        vn: p.vn,
        mac: convert::mac("mac", p.mac)?,
        ipv4: p.ipv4.iter().map(|b| convert::ipv4("ipv4", b)).collect::<Result<_, _>>()?,
        ipv6: p.ipv6.iter().map(|b| convert::ipv6("ipv6", b)).collect::<Result<_, _>>()?,
        router: p.router,
        pinned,
        policy: some(p.policy),
        allowed: p.allowed.map(Allowed::try_from).transpose()?.unwrap_or_default(),
    })
}

/// What is to change of whose word binds addresses, by family.
type LearningWords = (Option<Option<Learning>>, Option<Option<Learning>>);

fn learning(p: Option<v1::LearningChange>) -> Result<LearningWords, ConvertError> {
    let v1::LearningChange { v4, v6 } = p.unwrap_or_default();
    Ok((convert::learning_word("learning.v4", v4)?, convert::learning_word("learning.v6", v6)?))
}

pub(super) fn vm_changes(p: v1::SetVmRequest) -> Result<VmChanges, ConvertError> {
    let (learning_v4, learning_v6) = learning(p.learning)?;
    let (gone, new) = (p.remove.unwrap_or_default(), p.add.unwrap_or_default());
    let v4 = |ips: Vec<Vec<u8>>| ips.iter().map(|b| convert::ipv4("ipv4", b)).collect::<Result<Vec<_>, _>>();
    let v6 = |ips: Vec<Vec<u8>>| ips.iter().map(|b| convert::ipv6("ipv6", b)).collect::<Result<Vec<_>, _>>();
    let prefixes = |field, gone: &[String], new: &[String]| {
        Ok::<_, ConvertError>(ListChange {
            remove: convert::prefixes(field, gone)?,
            add: convert::prefixes(field, new)?,
        })
    };
    let macs = |field, gone: &[u64], new: &[u64]| {
        Ok::<_, ConvertError>(ListChange {
            remove: convert::macs(field, gone)?,
            add: convert::macs(field, new)?,
        })
    };
    Ok(VmChanges {
        router: p.router,
        policy: p.policy.map(some),
        learning_v4,
        learning_v6,
        virtual_ips: prefixes("virtual_ips", &gone.virtual_ips, &new.virtual_ips)?,
        virtual_macs: macs("virtual_macs", &gone.virtual_macs, &new.virtual_macs)?,
        routes: prefixes("routes", &gone.routes, &new.routes)?,
        nested: macs("nested", &gone.nested, &new.nested)?,
        ipv4: ListChange { remove: v4(gone.ipv4)?, add: v4(new.ipv4)? },
        ipv6: ListChange { remove: v6(gone.ipv6)?, add: v6(new.ipv6)? },
    })
}

/// The place of a VM in the list of all, by VNI and MAC.
pub(super) fn place_of(key: VmKey) -> u128 {
    u128::from(key.vni.get()) << 64 | u128::from(key.mac.to_u64())
}

pub(super) fn vm_at(place: u128) -> VmKey {
    let low = |n: u128, bits: u32| u64::try_from(n & ((1 << bits) - 1)).unwrap_or_default();
    let vni = u32::try_from(low(place >> 64, 24)).unwrap_or_default();
    VmKey { vni: Vni::from_low24(vni), mac: Mac::from_u64(low(place, 48)) }
}

pub(super) fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
