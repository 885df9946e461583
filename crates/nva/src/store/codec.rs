//! Records as bytes: the protobuf messages of the protocols, so that fields can be added.

use std::collections::BTreeSet;

use godwit_api::convert;
use godwit_api::prost::{self, Message};
use godwit_api::{ConvertError, Problem, v1};
use godwit_model::{DomainId, MoveId, NveId, Policy, StaticRoute, VmKey, VmRecord, VnSettings};
use godwit_wire::Vni;

use crate::directory::{DomainRecord, DrainFailure, DrainRecord, NveRecord, StoredMove, VnAccess, VnRecord};

/// Bytes that are no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error("a record does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("a record does not make sense: {0}")]
    Convert(#[from] ConvertError),
}

type Decoded<T> = Result<T, CodecError>;

fn missing(field: &str) -> ConvertError {
    ConvertError { field: field.into(), problem: Problem::Missing }
}

pub(super) fn vn(r: &VnRecord) -> Vec<u8> {
    let p = v1::Vn {
        name: r.name.clone(),
        vni: r.vni.get(),
        settings: Some(r.settings.clone().into()),
        ..Default::default()
    };
    p.encode_to_vec()
}

/// A VN's settings as format 1 has them: beside its name.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(prost_path = "godwit_api::prost")]
struct SettingsBesideName {
    #[prost(uint32, tag = "3")]
    mtu: u32,
    #[prost(bool, tag = "4")]
    transparent_vlan: bool,
    #[prost(bool, tag = "7")]
    flood_silent: bool,
    #[prost(enumeration = "v1::Unplanned", tag = "8")]
    unplanned: i32,
    #[prost(bool, tag = "9")]
    rarp: bool,
    #[prost(message, optional, tag = "11")]
    learning: Option<v1::Learning>,
}

impl From<SettingsBesideName> for v1::VnSettings {
    fn from(p: SettingsBesideName) -> v1::VnSettings {
        let SettingsBesideName { mtu, transparent_vlan, flood_silent, unplanned, rarp, learning } = p;
        // Later settings have the values that they have where nobody set them.
        #[allow(clippy::needless_update)]
        v1::VnSettings {
            mtu,
            transparent_vlan,
            flood_silent,
            rarp,
            learning,
            unplanned,
            ..Default::default()
        }
    }
}

pub(super) fn vn_from(bytes: &[u8]) -> Decoded<VnRecord> {
    let p = v1::Vn::decode(bytes)?;
    let settings = match p.settings {
        Some(settings) => settings,
        None => SettingsBesideName::decode(bytes)?.into(),
    };
    Ok(VnRecord {
        vni: convert::vni("vn.vni", p.vni)?,
        name: convert::name("vn.name", "VN", p.name)?,
        settings: VnSettings::try_from(settings)?,
    })
}

/// A routing domain, beside its number.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(prost_path = "godwit_api::prost")]
struct DomainRow {
    #[prost(string, tag = "1")]
    name: String,
}

pub(super) fn domain(r: &DomainRecord) -> Vec<u8> {
    DomainRow { name: r.name.clone() }.encode_to_vec()
}

pub(super) fn domain_from(id: u32, bytes: &[u8]) -> Decoded<DomainRecord> {
    let row = DomainRow::decode(bytes)?;
    Ok(DomainRecord { id: DomainId(id), name: convert::name("domain.name", "routing domain", row.name)? })
}

pub(super) fn route(r: &StaticRoute) -> Vec<u8> {
    v1::StaticRoute::from(*r).encode_to_vec()
}

pub(super) fn route_from(bytes: &[u8]) -> Decoded<StaticRoute> {
    Ok(v1::StaticRoute::decode(bytes)?.try_into()?)
}

pub(super) fn vm(r: &VmRecord) -> Vec<u8> {
    v1::VmRecord::from(r.clone()).encode_to_vec()
}

pub(super) fn vm_from(bytes: &[u8]) -> Decoded<VmRecord> {
    Ok(v1::VmRecord::decode(bytes)?.try_into()?)
}

pub(super) fn policy(p: &Policy) -> Vec<u8> {
    v1::Policy::from(p.clone()).encode_to_vec()
}

pub(super) fn policy_from(bytes: &[u8]) -> Decoded<Policy> {
    Ok(v1::Policy::decode(bytes)?.try_into()?)
}

pub(super) fn flaps(times: &[u64]) -> Vec<u8> {
    times.iter().flat_map(|t| t.to_be_bytes()).collect()
}

pub(super) fn flaps_from((vni, mac): (u32, u64), bytes: &[u8]) -> Decoded<(VmKey, Vec<u64>)> {
    let key = VmKey { vni: convert::vni("flaps.vni", vni)?, mac: convert::mac("flaps.mac", mac)? };
    let (times, _) = bytes.as_chunks();
    Ok((key, times.iter().map(|t| u64::from_be_bytes(*t)).collect()))
}

/// The NVE without the VNs that it is in, which have rows of their own.
pub(super) fn nve(r: &NveRecord) -> Vec<u8> {
    let p = v1::NveInfo {
        name: r.id.to_string(),
        locators: Some(r.locators.into()),
        foreign: r.foreign,
        software: r.software.clone(),
        instance: r.instance,
        ..Default::default()
    };
    p.encode_to_vec()
}

pub(super) fn nve_from(bytes: &[u8]) -> Decoded<NveRecord> {
    let p = v1::NveInfo::decode(bytes)?;
    let locators = p.locators.ok_or_else(|| missing("nve.locators"))?;
    // Up to format 2.
    let vnis = p.vnis.into_iter().map(|v| convert::vni("nve.vnis", v));
    Ok(NveRecord {
        id: convert::nve_id("nve.name", p.name)?,
        locators: locators.try_into()?,
        foreign: p.foreign,
        software: p.software,
        instance: p.instance,
        vnis: vnis.collect::<Result<BTreeSet<_>, _>>()?,
    })
}

pub(super) fn member_from((nve, vni): (&str, u32)) -> Decoded<(NveId, Vni)> {
    Ok((convert::nve_id("member.nve", nve.to_string())?, convert::vni("member.vni", vni)?))
}

/// The VNs that an NVE may take part in, beside its name.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(prost_path = "godwit_api::prost")]
struct AccessRow {
    #[prost(bool, tag = "1")]
    only: bool,
    #[prost(uint32, repeated, tag = "2")]
    vnis: Vec<u32>,
}

pub(super) fn access(a: &VnAccess) -> Vec<u8> {
    let only = matches!(a, VnAccess::Only(_));
    AccessRow { only, vnis: a.named().iter().map(|v| v.get()).collect() }.encode_to_vec()
}

pub(super) fn access_from(nve: &str, bytes: &[u8]) -> Decoded<(NveId, VnAccess)> {
    let row = AccessRow::decode(bytes)?;
    let vnis = row.vnis.into_iter().map(|v| convert::vni("access.vnis", v)).collect::<Result<_, _>>()?;
    let access = if row.only { VnAccess::Only(vnis) } else { VnAccess::AllBut(vnis) };
    Ok((convert::nve_id("access.nve", nve.into())?, access))
}

/// A move with its number.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(prost_path = "godwit_api::prost")]
struct MoveRow {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(message, optional, tag = "2")]
    record: Option<v1::MoveRecord>,
}

pub(super) fn stored_move(m: &StoredMove) -> Vec<u8> {
    MoveRow { number: m.number, record: Some(m.record.clone().into()) }.encode_to_vec()
}

pub(super) fn move_from(bytes: &[u8]) -> Decoded<StoredMove> {
    let row = MoveRow::decode(bytes)?;
    let mut record = row.record.ok_or_else(|| missing("move.record"))?;
    if record.origin == 0 {
        // Of format 1, in which unplanned was a mode.
        let unplanned = record.mode == 2;
        let origin = if unplanned { v1::MoveOrigin::Unplanned } else { v1::MoveOrigin::Ordered };
        (record.mode, record.origin) = (v1::MoveMode::Hot.into(), origin.into());
    }
    Ok(StoredMove { number: row.number, record: record.try_into()? })
}

/// A drain, beside its NVE's name.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(prost_path = "godwit_api::prost")]
struct DrainRow {
    #[prost(string, repeated, tag = "1")]
    to: Vec<String>,
    #[prost(uint32, tag = "2")]
    parallel: u32,
    #[prost(bool, tag = "3")]
    accept_interruption: bool,
    #[prost(enumeration = "v1::DrainPhase", tag = "4")]
    phase: i32,
    #[prost(uint64, tag = "5")]
    ordered_us: u64,
    #[prost(uint64, tag = "6")]
    ended_us: u64,
    #[prost(uint32, tag = "7")]
    total: u32,
    #[prost(uint32, tag = "8")]
    moved: u32,
    #[prost(message, repeated, tag = "9")]
    moving: Vec<DrainMoveRow>,
    #[prost(message, repeated, tag = "10")]
    failed: Vec<DrainFailureRow>,
    #[prost(uint32, tag = "11")]
    failed_in_row: u32,
    #[prost(string, tag = "12")]
    note: String,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(prost_path = "godwit_api::prost")]
struct DrainMoveRow {
    #[prost(message, optional, tag = "1")]
    vm: Option<v1::VmKey>,
    #[prost(string, tag = "2")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
#[prost(prost_path = "godwit_api::prost")]
struct DrainFailureRow {
    #[prost(message, optional, tag = "1")]
    vm: Option<v1::VmKey>,
    #[prost(uint32, tag = "2")]
    tries: u32,
    #[prost(string, tag = "3")]
    reason: String,
}

pub(super) fn drain(d: &DrainRecord) -> Vec<u8> {
    let moving = d.moving.iter();
    let failed = d.failed.iter();
    let row = DrainRow {
        to: d.to.iter().map(NveId::to_string).collect(),
        parallel: d.parallel,
        accept_interruption: d.accept_interruption,
        phase: v1::DrainPhase::from(d.phase).into(),
        ordered_us: d.ordered_us,
        ended_us: d.ended_us,
        total: d.total,
        moved: d.moved,
        moving: moving.map(|(vm, id)| DrainMoveRow { vm: Some((*vm).into()), id: id.0.clone() }).collect(),
        failed: failed
            .map(|(vm, f)| DrainFailureRow {
                vm: Some((*vm).into()),
                tries: f.tries,
                reason: f.reason.clone(),
            })
            .collect(),
        failed_in_row: d.failed_in_row,
        note: d.note.clone(),
    };
    row.encode_to_vec()
}

pub(super) fn drain_from(nve: &str, bytes: &[u8]) -> Decoded<DrainRecord> {
    let row = DrainRow::decode(bytes)?;
    let key = |vm: Option<v1::VmKey>| -> Result<VmKey, ConvertError> {
        vm.ok_or_else(|| missing("drain.vm"))?.try_into()
    };
    let to = row.to.into_iter().map(|nve| convert::nve_id("drain.to", nve));
    let moving = row.moving.into_iter().map(|m| Ok((key(m.vm)?, MoveId(m.id))));
    let failed = row.failed.into_iter();
    let failed = failed.map(|f| Ok((key(f.vm)?, DrainFailure { tries: f.tries, reason: f.reason })));
    Ok(DrainRecord {
        nve: convert::nve_id("drain.nve", nve.into())?,
        to: to.collect::<Result<_, _>>()?,
        parallel: row.parallel,
        accept_interruption: row.accept_interruption,
        phase: convert::drain_phase("drain.phase", row.phase)?,
        ordered_us: row.ordered_us,
        ended_us: row.ended_us,
        total: row.total,
        moved: row.moved,
        moving: moving.collect::<Result<_, ConvertError>>()?,
        failed: failed.collect::<Result<_, ConvertError>>()?,
        failed_in_row: row.failed_in_row,
        note: row.note,
    })
}
