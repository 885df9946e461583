//! From the NVE to the NVA.

use std::net::{IpAddr, Ipv6Addr};

use godwit_model::message::{Attachment, NveToNva, QueryBy};
use godwit_model::{Abilities, DirectoryMode};
use godwit_wire::Vni;

use super::{maybe_ip, protocol};
use crate::convert::record::{claim_cause, mode_list, mode_set, version};
use crate::convert::{
    ConvertError, Problem, addresses, each, ip, ip_bytes, ipv4, ipv6, mac, maybe, move_id, name, nve_id,
    part, vni,
};
use crate::v1::{self, nve_message::Kind as Up};

/// All that an NVE sends: a message of the model, or the answer to an operator's request.
#[derive(Clone, PartialEq, Debug)]
pub enum SessionUp {
    /// A message of the model.
    Message(NveToNva),
    /// The answer to [`SessionDown::AdminOrder`](super::SessionDown::AdminOrder) of the same `id`.
    AdminReply {
        /// The order's number.
        id: u64,
        /// The answer, passed on as it is.
        response: v1::AdminResponse,
    },
}

impl From<NveToNva> for SessionUp {
    fn from(m: NveToNva) -> SessionUp {
        SessionUp::Message(m)
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
        NveToNva::Hello { nve, locators, software, last_epoch, instance, abilities } => {
            Up::Hello(v1::Hello {
                protocol: crate::PROTOCOL,
                nve: nve.to_string(),
                locators: Some(locators.into()),
                software,
                last_epoch,
                instance,
                modes: mode_list(abilities.modes),
                end_markers: abilities.end_markers,
                capacity: abilities.capacity,
            })
        }
        NveToNva::Subscribe { vni, mode, lingers } => {
            Up::Subscribe(v1::Subscribe { vni: vni.get(), pull: mode == DirectoryMode::Pull, lingers })
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
        NveToNva::Ack { ack_ids } => Up::Ack(v1::Ack { ack_ids }),
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
        NveToNva::Groups { vni, reset, joined, left } => Up::Groups(groups(vni, reset, joined, left)),
        NveToNva::Report { attachments, more } => {
            Up::Report(v1::Report { attachments: attachments.into_iter().map(Into::into).collect(), more })
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
            Ok(NveToNva::Subscribe { vni: vni("subscribe.vni", p.vni)?, mode, lingers: p.lingers })
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
        Up::Ack(p) => Ok(NveToNva::Ack { ack_ids: p.ack_ids }),
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
            note: shown(p.note, MAX_NOTE),
        }),
        Up::MoveReport(p) => Ok(NveToNva::MoveReport {
            id: move_id("move_report.move_id", p.move_id)?,
            key: part("move_report.key", p.key)?,
            step: maybe("move_report.step", p.step)?,
            counts: p.counts.map(Into::into),
        }),
        Up::Groups(p) => {
            let (vni, reset, joined, left) = groups_of(p).map_err(|e| e.within("groups"))?;
            Ok(NveToNva::Groups { vni, reset, joined, left })
        }
        Up::Report(p) => {
            Ok(NveToNva::Report { attachments: each("report.attachments", p.attachments)?, more: p.more })
        }
        Up::Keepalive(_) => Ok(NveToNva::Keepalive),
        // Taken by the caller; here only so that the match stays complete.
        Up::AdminReply(_) => Err(ConvertError::new("admin_reply", Problem::Missing)),
    }
}

/// Longest name of a switch's software, in bytes.
const MAX_SOFTWARE: usize = 128;
/// Longest note of an NVE, in bytes.
const MAX_NOTE: usize = 512;

/// A text for people: cut where it is too long, and without what no terminal should be told.
pub(crate) fn shown(text: String, max: usize) -> String {
    let mut cut: String = text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect();
    while cut.len() > max {
        cut.pop();
    }
    cut
}

pub(super) fn groups(vni: Vni, reset: bool, joined: Vec<IpAddr>, left: Vec<IpAddr>) -> v1::Groups {
    let bytes = |ips: Vec<IpAddr>| ips.into_iter().map(ip_bytes).collect();
    v1::Groups { vni: vni.get(), reset, joined: bytes(joined), left: bytes(left) }
}

type Groups = (Vni, bool, Vec<IpAddr>, Vec<IpAddr>);

pub(super) fn groups_of(p: v1::Groups) -> Result<Groups, ConvertError> {
    let joined = addresses("joined", &p.joined, ip)?;
    Ok((vni("vni", p.vni)?, p.reset, joined, addresses("left", &p.left, ip)?))
}

fn hello(p: v1::Hello) -> Result<NveToNva, ConvertError> {
    protocol(p.protocol)?;
    let unsaid = Abilities::unsaid();
    Ok(NveToNva::Hello {
        nve: nve_id("nve", p.nve)?,
        locators: part("locators", p.locators)?,
        software: shown(p.software, MAX_SOFTWARE),
        last_epoch: p.last_epoch,
        instance: p.instance,
        abilities: Abilities {
            modes: mode_set("modes", &p.modes, unsaid.modes)?,
            end_markers: p.end_markers,
            capacity: p.capacity,
        },
    })
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
