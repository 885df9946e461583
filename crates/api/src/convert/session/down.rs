//! From the NVA to the NVE.

use godwit_model::message::{Change, MoveRole, NvaToNve, PairKey};
use godwit_model::{DomainId, Gateway, Secret};

use super::{maybe_ip, protocol, up};
use crate::convert::record::{bind_refusal, deny_reason, move_mode, version};
use crate::convert::{
    ConvertError, Problem, each, ip, ip_bytes, ipv4, mac, maybe, move_id, nve_id, part, routing, vni,
};
use crate::v1::{self, nva_message::Kind as Down};

/// All that the NVA sends: a message of the model, or an operator's request that it relays.
// Nearly every value is the large variant; a box would cost an allocation a message and save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum SessionDown {
    /// A message of the model.
    Message(NvaToNve),
    /// An operator's request for this NVE.
    AdminOrder {
        /// The order's number, for the answer.
        id: u64,
        /// The request, passed on as it is.
        request: v1::AdminRequest,
    },
}

impl From<NvaToNve> for SessionDown {
    fn from(m: NvaToNve) -> SessionDown {
        SessionDown::Message(m)
    }
}

impl From<SessionDown> for v1::NvaMessage {
    fn from(m: SessionDown) -> v1::NvaMessage {
        match m {
            SessionDown::Message(m) => m.into(),
            SessionDown::AdminOrder { id, request } => {
                v1::NvaMessage { kind: Some(Down::AdminOrder(v1::AdminOrder { id, request: Some(request) })) }
            }
        }
    }
}

impl From<NvaToNve> for v1::NvaMessage {
    fn from(m: NvaToNve) -> v1::NvaMessage {
        v1::NvaMessage { kind: Some(down(m)) }
    }
}

fn down(m: NvaToNve) -> Down {
    match m {
        NvaToNve::Welcome { epoch, keepalive_ms } => {
            Down::Welcome(v1::Welcome { protocol: crate::PROTOCOL, epoch, keepalive_ms })
        }
        NvaToNve::Refused { text } => Down::Refused(v1::Refused { text }),
        NvaToNve::Snapshot { vni, vms } => {
            Down::Snapshot(v1::Snapshot { vni: vni.get(), vms: vms.into_iter().map(Into::into).collect() })
        }
        NvaToNve::End { vni, revision, known, settings, gateway, members, lingering } => Down::End(v1::End {
            vni: vni.get(),
            revision,
            known,
            settings: Some(settings.into()),
            gateway: gateway.map(|g| v1::Gateway { mac: g.mac.to_u64(), ipv4: g.ip.octets().into() }),
            members: members.into_iter().map(Into::into).collect(),
            lingering: lingering.iter().map(ToString::to_string).collect(),
        }),
        NvaToNve::Update { vni, revision, ack_id, change } => {
            let lingers = matches!(change, Change::MemberLingers(_));
            Down::Update(v1::Update {
                vni: vni.get(),
                revision,
                ack_id,
                change: Some(change.into()),
                lingers,
            })
        }
        NvaToNve::Response { seq, record, lifetime_ms } => Down::Response(v1::Response {
            seq,
            record: record.map(Into::into),
            // Rounded down: an answer must not live longer than was said.
            lifetime_100ms: u32::try_from(lifetime_ms / 100).unwrap_or(u32::MAX),
        }),
        NvaToNve::Grant { seq, record } => Down::Grant(v1::Grant { seq, record: Some(record.into()) }),
        NvaToNve::Deny { seq, key, reason, text, record } => Down::Deny(v1::Deny {
            seq,
            key: Some(key.into()),
            reason: v1::DenyReason::from(reason).into(),
            text,
            record: record.map(Into::into),
        }),
        NvaToNve::MovePrepare { id, role, record, from, to, mode } => Down::MovePrepare(v1::MovePrepare {
            move_id: id.0,
            role: v1::MoveRole::from(role).into(),
            record: Some(record.into()),
            from: Some(from.into()),
            to: Some(to.into()),
            mode: v1::MoveMode::from(mode).into(),
        }),
        NvaToNve::MoveAbort { id, key, reason } => {
            Down::MoveAbort(v1::MoveAbort { move_id: id.0, key: Some(key.into()), reason })
        }
        NvaToNve::Groups { vni, nve, reset, joined, left } => Down::NveGroups(v1::NveGroups {
            nve: nve.to_string(),
            groups: Some(up::groups(vni, reset, joined, left)),
        }),
        NvaToNve::Provision { key, record } => {
            Down::Provision(v1::Provision { key: Some(key.into()), record: record.map(Into::into) })
        }
        NvaToNve::Policies { reset, policies, gone } => {
            let policies = policies.into_iter().map(Into::into).collect();
            Down::Policies(v1::Policies { reset, policies, gone })
        }
        NvaToNve::EndMarkers { reset, nves, gone } => Down::EndMarkers(v1::EndMarkers {
            reset,
            nves: nves.iter().map(ToString::to_string).collect(),
            gone: gone.iter().map(ToString::to_string).collect(),
        }),
        NvaToNve::Domain { domain, reset } => Down::Domain(routing::domain(domain, reset)),
        NvaToNve::DomainRoutes { id, routes, gone } => {
            Down::DomainRoutes(routing::domain_routes(id, routes, &gone))
        }
        NvaToNve::DomainGone { id } => Down::DomainGone(v1::DomainGone { id: id.0 }),
        NvaToNve::ForwardExtend { key, version } => {
            Down::ForwardExtend(v1::ForwardExtend { key: Some(key.into()), version: Some(version.into()) })
        }
        NvaToNve::Departed { key, version, from } => Down::Departed(v1::DepartedNotice {
            key: Some(key.into()),
            version: Some(version.into()),
            from: from.to_string(),
        }),
        NvaToNve::Redirect { key, to, version, from } => Down::Redirect(v1::RedirectNotice {
            key: Some(key.into()),
            to: to.map(Into::into),
            version: Some(version.into()),
            from: from.to_string(),
        }),
        NvaToNve::ChannelKey { number, sender, secret, alone } => {
            Down::ChannelKey(v1::ChannelKey { number, sender, key: secret.0.to_vec(), alone })
        }
        NvaToNve::PairKeys { keys } => {
            Down::PairKeys(v1::PairKeys { keys: keys.into_iter().map(v1::PairKey::from).collect() })
        }
        NvaToNve::Bound { seq, record } => Down::Bound(v1::Bound { seq, record: Some(record.into()) }),
        NvaToNve::BindRefused { seq, key, mac, ip, reason, text } => Down::BindRefused(v1::BindRefused {
            seq,
            key: Some(key.into()),
            mac: mac.to_u64(),
            ip: ip.map(ip_bytes).unwrap_or_default(),
            reason: v1::BindRefusal::from(reason).into(),
            text,
        }),
        NvaToNve::VerifyIp { key, ip } => {
            Down::VerifyIp(v1::VerifyIp { key: Some(key.into()), ip: ip_bytes(ip) })
        }
        NvaToNve::Verify { key, version } => {
            Down::Verify(v1::Verify { key: Some(key.into()), version: Some(version.into()) })
        }
        NvaToNve::Error { text } => Down::Error(v1::Error { text }),
        NvaToNve::Keepalive => Down::Keepalive(v1::Keepalive {}),
    }
}

impl TryFrom<v1::NvaMessage> for SessionDown {
    type Error = ConvertError;

    fn try_from(p: v1::NvaMessage) -> Result<SessionDown, ConvertError> {
        match p.kind {
            None => Err(ConvertError::new("kind", Problem::Missing)),
            Some(Down::AdminOrder(o)) => {
                let request =
                    o.request.ok_or_else(|| ConvertError::new("admin_order.request", Problem::Missing))?;
                Ok(SessionDown::AdminOrder { id: o.id, request })
            }
            Some(kind) => message_down(kind).map(SessionDown::Message),
        }
    }
}

fn message_down(kind: Down) -> Result<NvaToNve, ConvertError> {
    match kind {
        Down::Welcome(p) => {
            protocol(p.protocol).map_err(|e| e.within("welcome"))?;
            Ok(NvaToNve::Welcome { epoch: p.epoch, keepalive_ms: p.keepalive_ms })
        }
        Down::Snapshot(p) => {
            Ok(NvaToNve::Snapshot { vni: vni("snapshot.vni", p.vni)?, vms: each("snapshot.vms", p.vms)? })
        }
        Down::End(p) => end(p).map_err(|e| e.within("end")),
        Down::Update(p) => update(p).map_err(|e| e.within("update")),
        Down::Response(p) => Ok(NvaToNve::Response {
            seq: p.seq,
            record: maybe("response.record", p.record)?,
            lifetime_ms: u64::from(p.lifetime_100ms) * 100,
        }),
        Down::Grant(p) => Ok(NvaToNve::Grant { seq: p.seq, record: part("grant.record", p.record)? }),
        Down::Deny(p) => deny(p).map_err(|e| e.within("deny")),
        Down::MovePrepare(p) => move_prepare(p).map_err(|e| e.within("move_prepare")),
        Down::MoveAbort(p) => Ok(NvaToNve::MoveAbort {
            id: move_id("move_abort.move_id", p.move_id)?,
            key: part("move_abort.key", p.key)?,
            reason: p.reason,
        }),
        Down::ForwardExtend(p) => Ok(NvaToNve::ForwardExtend {
            key: part("forward_extend.key", p.key)?,
            version: version("forward_extend.version", p.version)?,
        }),
        Down::Provision(p) => Ok(NvaToNve::Provision {
            key: part("provision.key", p.key)?,
            record: maybe("provision.record", p.record)?,
        }),
        Down::Policies(p) => Ok(NvaToNve::Policies {
            reset: p.reset,
            policies: each("policies.policies", p.policies)?,
            gone: p.gone,
        }),
        Down::EndMarkers(p) => Ok(NvaToNve::EndMarkers {
            reset: p.reset,
            nves: p.nves.into_iter().map(|n| nve_id("end_markers.nves", n)).collect::<Result<_, _>>()?,
            gone: p.gone.into_iter().map(|n| nve_id("end_markers.gone", n)).collect::<Result<_, _>>()?,
        }),
        Down::Domain(p) => NvaToNve::try_from(p).map_err(|e| e.within("domain")),
        Down::DomainRoutes(p) => NvaToNve::try_from(p).map_err(|e| e.within("domain_routes")),
        Down::DomainGone(p) => Ok(NvaToNve::DomainGone { id: DomainId(p.id) }),
        Down::Departed(p) => Ok(NvaToNve::Departed {
            key: part("departed.key", p.key)?,
            version: version("departed.version", p.version)?,
            from: nve_id("departed.from", p.from)?,
        }),
        Down::Redirect(p) => Ok(NvaToNve::Redirect {
            key: part("redirect.key", p.key)?,
            to: maybe("redirect.to", p.to)?,
            version: version("redirect.version", p.version)?,
            from: nve_id("redirect.from", p.from)?,
        }),
        Down::ChannelKey(p) => {
            let secret = secret("channel_key.key", p.key)?;
            Ok(NvaToNve::ChannelKey { number: p.number, sender: p.sender, secret, alone: p.alone })
        }
        Down::PairKeys(p) => {
            Ok(NvaToNve::PairKeys { keys: p.keys.into_iter().map(pair_key).collect::<Result<_, _>>()? })
        }
        Down::Bound(p) => Ok(NvaToNve::Bound { seq: p.seq, record: part("bound.record", p.record)? }),
        Down::BindRefused(p) => Ok(NvaToNve::BindRefused {
            seq: p.seq,
            key: part("bind_refused.key", p.key)?,
            mac: mac("bind_refused.mac", p.mac)?,
            ip: maybe_ip("bind_refused.ip", &p.ip)?,
            reason: bind_refusal("bind_refused.reason", p.reason)?,
            text: p.text,
        }),
        Down::NveGroups(p) => nve_groups(p).map_err(|e| e.within("nve_groups")),
        Down::VerifyIp(p) => {
            Ok(NvaToNve::VerifyIp { key: part("verify_ip.key", p.key)?, ip: ip("verify_ip.ip", &p.ip)? })
        }
        Down::Verify(p) => Ok(NvaToNve::Verify {
            key: part("verify.key", p.key)?,
            version: version("verify.version", p.version)?,
        }),
        Down::Refused(p) => Ok(NvaToNve::Refused { text: p.text }),
        Down::Error(p) => Ok(NvaToNve::Error { text: p.text }),
        Down::Keepalive(_) => Ok(NvaToNve::Keepalive),
        // Taken by the caller; here only so that the match stays complete.
        Down::AdminOrder(_) => Err(ConvertError::new("admin_order", Problem::Missing)),
    }
}

fn gateway(p: v1::Gateway) -> Result<Gateway, ConvertError> {
    Ok(Gateway { mac: mac("gateway.mac", p.mac)?, ip: ipv4("gateway.ipv4", &p.ipv4)? })
}

fn nve_groups(p: v1::NveGroups) -> Result<NvaToNve, ConvertError> {
    let groups = p.groups.ok_or_else(|| ConvertError::new("groups", Problem::Missing))?;
    let (vni, reset, joined, left) = up::groups_of(groups).map_err(|e| e.within("groups"))?;
    Ok(NvaToNve::Groups { vni, nve: nve_id("nve", p.nve)?, reset, joined, left })
}

fn end(p: v1::End) -> Result<NvaToNve, ConvertError> {
    Ok(NvaToNve::End {
        vni: vni("vni", p.vni)?,
        revision: p.revision,
        known: p.known,
        settings: maybe("settings", p.settings)?.unwrap_or_default(),
        gateway: p.gateway.map(gateway).transpose()?,
        members: each("members", p.members)?,
        lingering: p.lingering.into_iter().map(|n| nve_id("lingering", n)).collect::<Result<_, _>>()?,
    })
}

impl From<Change> for v1::update::Change {
    fn from(m: Change) -> v1::update::Change {
        match m {
            Change::Vm(record) => v1::update::Change::Vm(record.into()),
            Change::Removed { key, version } => v1::update::Change::Removed(v1::Removed {
                key: Some(key.into()),
                version: Some(version.into()),
            }),
            Change::MemberJoined(location) | Change::MemberLingers(location) => {
                v1::update::Change::MemberJoined(location.into())
            }
            Change::MemberLeft(nve) => v1::update::Change::MemberLeft(nve.to_string()),
            Change::Forgotten { key } => v1::update::Change::Forgotten(key.into()),
        }
    }
}

fn update(p: v1::Update) -> Result<NvaToNve, ConvertError> {
    let change = match p.change {
        None => return Err(ConvertError::new("change", Problem::Missing)),
        Some(v1::update::Change::Vm(r)) => Change::Vm(part("vm", Some(r))?),
        Some(v1::update::Change::Removed(r)) => Change::Removed {
            key: part("removed.key", r.key)?,
            version: version("removed.version", r.version)?,
        },
        Some(v1::update::Change::MemberJoined(l)) => {
            let location = part("member_joined", Some(l))?;
            if p.lingers { Change::MemberLingers(location) } else { Change::MemberJoined(location) }
        }
        Some(v1::update::Change::MemberLeft(n)) => Change::MemberLeft(nve_id("member_left", n)?),
        Some(v1::update::Change::Forgotten(key)) => Change::Forgotten { key: part("forgotten", Some(key))? },
    };
    Ok(NvaToNve::Update { vni: vni("vni", p.vni)?, revision: p.revision, ack_id: p.ack_id, change })
}

fn deny(p: v1::Deny) -> Result<NvaToNve, ConvertError> {
    Ok(NvaToNve::Deny {
        seq: p.seq,
        key: part("key", p.key)?,
        reason: deny_reason("reason", p.reason)?,
        text: p.text,
        record: maybe("record", p.record)?,
    })
}

impl From<MoveRole> for v1::MoveRole {
    fn from(m: MoveRole) -> v1::MoveRole {
        match m {
            MoveRole::Source => v1::MoveRole::Source,
            MoveRole::Target => v1::MoveRole::Target,
        }
    }
}

fn move_prepare(p: v1::MovePrepare) -> Result<NvaToNve, ConvertError> {
    let role = match v1::MoveRole::try_from(p.role) {
        Ok(v1::MoveRole::Source) => MoveRole::Source,
        Ok(v1::MoveRole::Target) => MoveRole::Target,
        _ => return Err(ConvertError::new("role", Problem::UnknownEnumerator(p.role))),
    };
    Ok(NvaToNve::MovePrepare {
        id: move_id("move_id", p.move_id)?,
        role,
        record: part("record", p.record)?,
        from: part("from", p.from)?,
        to: part("to", p.to)?,
        mode: move_mode("mode", p.mode)?,
    })
}

fn secret(field: &'static str, key: Vec<u8>) -> Result<Secret, ConvertError> {
    let wrong = ConvertError::new(field, Problem::KeyLength(key.len()));
    Ok(Secret(key.try_into().map_err(|_| wrong)?))
}

impl From<PairKey> for v1::PairKey {
    fn from(k: PairKey) -> v1::PairKey {
        let PairKey { from, to, number, secret } = k;
        v1::PairKey { from: ip_bytes(from), to: ip_bytes(to), number, key: secret.0.to_vec() }
    }
}

fn pair_key(p: v1::PairKey) -> Result<PairKey, ConvertError> {
    Ok(PairKey {
        from: ip("pair_key.from", &p.from)?,
        to: ip("pair_key.to", &p.to)?,
        number: p.number,
        secret: secret("pair_key.key", p.key)?,
    })
}
