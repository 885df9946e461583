//! Messages of the NVE-NVA session.

use std::net::{IpAddr, Ipv6Addr};

use godwit_model::message::{Attachment, Change, MoveRole, NvaToNve, NveToNva, QueryBy};
use godwit_model::{DirectoryMode, Gateway, Secret};

use super::record::{bind_refusal, claim_cause, deny_reason, move_mode, version};
use super::{
    ConvertError, Problem, addresses, each, ip, ip_bytes, ipv4, ipv6, mac, maybe, move_id, name, nve_id,
    part, vni,
};
use crate::v1::{self, nva_message::Kind as Down, nve_message::Kind as Up};

/// All that an NVE sends: a message of the model, or the answer to an operator's request.
#[derive(Clone, PartialEq, Debug)]
pub enum SessionUp {
    /// A message of the model.
    Message(NveToNva),
    /// The answer to [`SessionDown::AdminOrder`] of the same `id`.
    AdminReply {
        /// The order's number.
        id: u64,
        /// The answer, passed on as it is.
        response: v1::AdminResponse,
    },
}

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

impl From<NveToNva> for SessionUp {
    fn from(m: NveToNva) -> SessionUp {
        SessionUp::Message(m)
    }
}

impl From<NvaToNve> for SessionDown {
    fn from(m: NvaToNve) -> SessionDown {
        SessionDown::Message(m)
    }
}

impl From<SessionUp> for v1::NveMessage {
    fn from(m: SessionUp) -> v1::NveMessage {
        match m {
            SessionUp::Message(m) => m.into(),
            SessionUp::AdminReply { id, response } => {
                v1::NveMessage { kind: Some(Up::AdminReply(v1::AdminReply { id, response: Some(response) })) }
            }
        }
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

/// Splits addresses by family, as the wire has them.
fn split(ips: &[IpAddr]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = ips.iter().partition(|a| a.is_ipv4());
    (v4.into_iter().map(ip_bytes).collect(), v6.into_iter().map(ip_bytes).collect())
}

impl From<NveToNva> for v1::NveMessage {
    fn from(m: NveToNva) -> v1::NveMessage {
        v1::NveMessage { kind: Some(up(m)) }
    }
}

fn up(m: NveToNva) -> Up {
    match m {
        NveToNva::Hello { nve, locators, software, last_epoch, instance } => Up::Hello(v1::Hello {
            protocol: crate::PROTOCOL,
            nve: nve.to_string(),
            locators: Some(locators.into()),
            software,
            last_epoch,
            instance,
        }),
        NveToNva::Subscribe { vni, mode } => {
            Up::Subscribe(v1::Subscribe { vni: vni.get(), pull: mode == DirectoryMode::Pull })
        }
        NveToNva::Unsubscribe { vni } => Up::Unsubscribe(v1::Unsubscribe { vni: vni.get() }),
        NveToNva::Linger { vni, lingers } => Up::Linger(v1::Linger { vni: vni.get(), lingers }),
        NveToNva::Associate { key, port } => Up::Associate(v1::Associate { key: Some(key.into()), port }),
        NveToNva::Disassociate { key, port } => {
            Up::Disassociate(v1::Disassociate { key: Some(key.into()), port })
        }
        NveToNva::Query { seq, vni, by } => {
            let by = match by {
                QueryBy::Mac(m) => v1::query::By::Mac(m.to_u64()),
                QueryBy::Ip(a) => v1::query::By::Ip(ip_bytes(a)),
            };
            Up::Query(v1::Query { seq, vni: vni.get(), by: Some(by) })
        }
        NveToNva::Claim { seq, key, ips, cause, base, port, router, overrides } => {
            let (ipv4, ipv6) = split(&ips);
            let cause = v1::ClaimCause::from(cause).into();
            Up::Claim(v1::Claim {
                seq,
                key: Some(key.into()),
                ipv4,
                ipv6,
                cause,
                base: Some(base.into()),
                port,
                router,
                overrides: overrides.into_iter().map(override_flag).collect(),
            })
        }
        NveToNva::Withdraw { key, version } => {
            Up::Withdraw(v1::Withdraw { key: Some(key.into()), version: Some(version.into()) })
        }
        NveToNva::Ack { ack_id } => Up::Ack(v1::Ack { ack_id }),
        NveToNva::ForwardEnding { key, version } => {
            Up::ForwardEnding(v1::ForwardEnding { key: Some(key.into()), version: Some(version.into()) })
        }
        NveToNva::Departed { key, ips, version } => {
            let (ipv4, ipv6) = split(&ips);
            Up::Departed(v1::Departed { key: Some(key.into()), ipv4, ipv6, version: Some(version.into()) })
        }
        NveToNva::Redirect { key, to, version, sender } => Up::Redirect(v1::Redirect {
            key: Some(key.into()),
            to: to.map(Into::into),
            version: Some(version.into()),
            sender: ip_bytes(sender),
        }),
        NveToNva::Bind { seq, key, mac, ip, announced, age_ms } => Up::Bind(v1::Bind {
            seq,
            key: Some(key.into()),
            mac: mac.to_u64(),
            ip: ip.map(ip_bytes).unwrap_or_default(),
            announced,
            age_ms,
        }),
        NveToNva::Unbind { key, ip } => Up::Unbind(v1::Unbind { key: Some(key.into()), ip: ip_bytes(ip) }),
        NveToNva::Verified { key, version, alive, note } => {
            Up::Verified(v1::Verified { key: Some(key.into()), version: Some(version.into()), alive, note })
        }
        NveToNva::MoveReport { id, key, step, counts } => Up::MoveReport(v1::MoveReport {
            move_id: id.0,
            key: Some(key.into()),
            step: step.map(Into::into),
            counts: counts.map(Into::into),
        }),
        NveToNva::Report { attachments } => {
            Up::Report(v1::Report { attachments: attachments.into_iter().map(Into::into).collect() })
        }
        NveToNva::Keepalive => Up::Keepalive(v1::Keepalive {}),
    }
}

impl TryFrom<v1::NveMessage> for SessionUp {
    type Error = ConvertError;

    fn try_from(p: v1::NveMessage) -> Result<SessionUp, ConvertError> {
        match p.kind {
            None => Err(ConvertError::new("kind", Problem::Missing)),
            Some(Up::AdminReply(r)) => {
                let response =
                    r.response.ok_or_else(|| ConvertError::new("admin_reply.response", Problem::Missing))?;
                Ok(SessionUp::AdminReply { id: r.id, response })
            }
            Some(kind) => message_up(kind).map(SessionUp::Message),
        }
    }
}

fn message_up(kind: Up) -> Result<NveToNva, ConvertError> {
    match kind {
        Up::Hello(p) => hello(p).map_err(|e| e.within("hello")),
        Up::Subscribe(p) => {
            let mode = if p.pull { DirectoryMode::Pull } else { DirectoryMode::Push };
            Ok(NveToNva::Subscribe { vni: vni("subscribe.vni", p.vni)?, mode })
        }
        Up::Unsubscribe(p) => Ok(NveToNva::Unsubscribe { vni: vni("unsubscribe.vni", p.vni)? }),
        Up::Linger(p) => Ok(NveToNva::Linger { vni: vni("linger.vni", p.vni)?, lingers: p.lingers }),
        Up::Associate(p) => Ok(NveToNva::Associate {
            key: part("associate.key", p.key)?,
            port: name("associate.port", "port", p.port)?,
        }),
        Up::Disassociate(p) => Ok(NveToNva::Disassociate {
            key: part("disassociate.key", p.key)?,
            port: name("disassociate.port", "port", p.port)?,
        }),
        Up::Query(p) => query(p).map_err(|e| e.within("query")),
        Up::Claim(p) => claim(p).map_err(|e| e.within("claim")),
        Up::Withdraw(p) => Ok(NveToNva::Withdraw {
            key: part("withdraw.key", p.key)?,
            version: version("withdraw.version", p.version)?,
        }),
        Up::Ack(p) => Ok(NveToNva::Ack { ack_id: p.ack_id }),
        Up::ForwardEnding(p) => Ok(NveToNva::ForwardEnding {
            key: part("forward_ending.key", p.key)?,
            version: version("forward_ending.version", p.version)?,
        }),
        Up::Departed(p) => departed(p).map_err(|e| e.within("departed")),
        Up::Redirect(p) => Ok(NveToNva::Redirect {
            key: part("redirect.key", p.key)?,
            to: maybe("redirect.to", p.to)?,
            version: version("redirect.version", p.version)?,
            sender: ip("redirect.sender", &p.sender)?,
        }),
        Up::Bind(p) => Ok(NveToNva::Bind {
            seq: p.seq,
            key: part("bind.key", p.key)?,
            mac: mac("bind.mac", p.mac)?,
            ip: maybe_ip("bind.ip", &p.ip)?,
            announced: p.announced,
            age_ms: p.age_ms,
        }),
        Up::Unbind(p) => {
            Ok(NveToNva::Unbind { key: part("unbind.key", p.key)?, ip: ip("unbind.ip", &p.ip)? })
        }
        Up::Verified(p) => Ok(NveToNva::Verified {
            key: part("verified.key", p.key)?,
            version: version("verified.version", p.version)?,
            alive: p.alive,
            note: p.note,
        }),
        Up::MoveReport(p) => Ok(NveToNva::MoveReport {
            id: move_id("move_report.move_id", p.move_id)?,
            key: part("move_report.key", p.key)?,
            step: maybe("move_report.step", p.step)?,
            counts: p.counts.map(Into::into),
        }),
        Up::Report(p) => Ok(NveToNva::Report { attachments: each("report.attachments", p.attachments)? }),
        Up::Keepalive(_) => Ok(NveToNva::Keepalive),
        // Taken by the caller; here only so that the match stays complete.
        Up::AdminReply(_) => Err(ConvertError::new("admin_reply", Problem::Missing)),
    }
}

fn hello(p: v1::Hello) -> Result<NveToNva, ConvertError> {
    protocol(p.protocol)?;
    Ok(NveToNva::Hello {
        nve: nve_id("nve", p.nve)?,
        locators: part("locators", p.locators)?,
        software: p.software,
        last_epoch: p.last_epoch,
        instance: p.instance,
    })
}

fn protocol(v: u32) -> Result<(), ConvertError> {
    if v == crate::PROTOCOL { Ok(()) } else { Err(ConvertError::new("protocol", Problem::Protocol(v))) }
}

/// Empty where there is none.
fn maybe_ip(field: &str, raw: &[u8]) -> Result<Option<IpAddr>, ConvertError> {
    if raw.is_empty() { Ok(None) } else { ip(field, raw).map(Some) }
}

fn query(p: v1::Query) -> Result<NveToNva, ConvertError> {
    let by = match p.by {
        Some(v1::query::By::Mac(m)) => QueryBy::Mac(mac("mac", m)?),
        Some(v1::query::By::Ip(b)) => QueryBy::Ip(ip("ip", &b)?),
        None => return Err(ConvertError::new("by", Problem::Missing)),
    };
    Ok(NveToNva::Query { seq: p.seq, vni: vni("vni", p.vni)?, by })
}

fn departed(p: v1::Departed) -> Result<NveToNva, ConvertError> {
    let v4 = addresses("ipv4", &p.ipv4, ipv4)?.into_iter().map(IpAddr::V4);
    let v6 = addresses("ipv6", &p.ipv6, ipv6)?.into_iter().map(IpAddr::V6);
    Ok(NveToNva::Departed {
        key: part("key", p.key)?,
        ips: v4.chain(v6).collect(),
        version: version("version", p.version)?,
    })
}

fn claim(p: v1::Claim) -> Result<NveToNva, ConvertError> {
    let v4 = addresses("ipv4", &p.ipv4, ipv4)?.into_iter().map(IpAddr::V4);
    let v6 = addresses("ipv6", &p.ipv6, ipv6)?.into_iter().map(IpAddr::V6);
    Ok(NveToNva::Claim {
        seq: p.seq,
        key: part("key", p.key)?,
        ips: v4.chain(v6).collect(),
        cause: claim_cause("cause", p.cause)?,
        base: version("base", p.base)?,
        port: name("port", "port", p.port)?,
        router: p.router,
        overrides: p
            .overrides
            .iter()
            .map(|o| Ok((ipv6("overrides", &o.ipv6)?, o.set)))
            .collect::<Result<_, ConvertError>>()?,
    })
}

fn override_flag((ip, set): (Ipv6Addr, bool)) -> v1::OverrideFlag {
    v1::OverrideFlag { ipv6: ip.octets().to_vec(), set }
}

impl From<Attachment> for v1::Attachment {
    fn from(m: Attachment) -> v1::Attachment {
        v1::Attachment {
            key: Some(m.key.into()),
            port: m.port,
            version: Some(m.version.into()),
            active: m.active,
        }
    }
}

impl TryFrom<v1::Attachment> for Attachment {
    type Error = ConvertError;

    fn try_from(p: v1::Attachment) -> Result<Attachment, ConvertError> {
        Ok(Attachment {
            key: part("key", p.key)?,
            port: name("port", "port", p.port)?,
            version: version("version", p.version)?,
            active: p.active,
        })
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
        NvaToNve::Provision { key, record } => {
            Down::Provision(v1::Provision { key: Some(key.into()), record: record.map(Into::into) })
        }
        NvaToNve::Policies { reset, policies, gone } => {
            let policies = policies.into_iter().map(Into::into).collect();
            Down::Policies(v1::Policies { reset, policies, gone })
        }
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
        NvaToNve::ChannelKey { number, sender, secret } => {
            Down::ChannelKey(v1::ChannelKey { number, sender, key: secret.0.to_vec() })
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
            let wrong = ConvertError::new("channel_key.key", Problem::KeyLength(p.key.len()));
            let secret = Secret(p.key.try_into().map_err(|_| wrong)?);
            Ok(NvaToNve::ChannelKey { number: p.number, sender: p.sender, secret })
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
