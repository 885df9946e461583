//! MLD, versions 1 and 2 (RFC 2710, RFC 3810): messages of hosts and routers, queries of a querier, and reports of a
//! host.

use core::net::{IpAddr, Ipv6Addr};

use crate::addr::Mac;
use crate::bytes::{put, put_u16, u16_at, v6_at};
use crate::error::WireError;
use crate::ethernet::{self, EtherType, multicast_mac_v6};
use crate::icmpv6::{self, Icmpv6};
use crate::ipv6::{self, Ipv6, Ipv6Repr};
use crate::membership::{Message, Query, Report, Version, Wish, decode, encode, record, records};
use crate::{Span, proto};

mod field {
    pub const TYPE: usize = 0;
    pub const CODE: usize = 4;
    pub const GROUP: usize = 8;
    /// Of a query of version 2: S flag and robustness, then the interval.
    pub const ROBUSTNESS: usize = 24;
    pub const INTERVAL: usize = 25;
    /// Of a report of version 2.
    pub const RECORDS: usize = 6;
}

const QUERY: u8 = 130;
const REPORT_V1: u8 = 131;
const DONE: u8 = 132;
const REPORT_V2: u8 = 143;

/// Bytes of the part of a report of version 2 before its records.
const HEAD: usize = 8;
/// Bytes of a message of version 1.
const SHORT: usize = 24;
/// Bytes of a query of version 2 without sources.
const QUERY_V2: usize = 28;
/// A hop-by-hop header with the Router Alert option of MLD and padding (RFC 2711).
const ALERT: [u8; 8] = [proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0];

/// ff02::2, all routers of the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// ff02::16, to which reports of version 2 go.
pub const V2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// A group of the interface or the link, which no router forwards and no switch prunes: scopes 0 to 2 (RFC 4291
/// section 2.7).
pub const fn is_link_local(group: Ipv6Addr) -> bool {
    let o = group.octets();
    o[0] == 0xff && o[1] & 0xf <= 2
}

/// The type of an ICMPv6 message is one of MLD.
pub const fn is_type(kind: u8) -> bool {
    matches!(kind, QUERY | REPORT_V1 | DONE | REPORT_V2)
}

/// Parses a message in the packet `ip`, with the checks of RFC 3810 sections 5 and 6.2: checksum, length, hop limit 1,
/// a link-local source (`::` for reports), Router Alert, groups.
///
/// # Errors
/// [`WireError::NotThis`] for other types; [`WireError::BadHopLimit`] for a hop limit other than 1; otherwise the
/// first check that failed.
pub fn parse<'a>(ip: &Ipv6<&[u8]>, message: &'a [u8]) -> Result<Message<'a>, WireError> {
    let kind = *message.first().ok_or(WireError::Truncated)?;
    if !is_type(kind) {
        return Err(WireError::NotThis);
    }
    let icmp = Icmpv6::new_checked(message)?;
    if ip.hop_limit() != 1 {
        return Err(WireError::BadHopLimit);
    }
    if !icmp.verify_checksum(ip.src(), ip.dst()) {
        return Err(WireError::BadChecksum);
    }
    let from_host = kind != QUERY && ip.src().is_unspecified();
    if !(ip.src().is_unicast_link_local() || from_host) || icmp.code() != 0 || !has_alert(ip) {
        return Err(WireError::BadField);
    }
    if kind == REPORT_V2 {
        let (head, rest) = message.split_at(HEAD);
        return Ok(Message::Report(Report::V6(records(rest, u16_at(head, field::RECORDS), 16)?)));
    }
    if message.len() < SHORT {
        return Err(WireError::Truncated);
    }
    let group = v6_at(message, field::GROUP);
    if kind == QUERY {
        return query(ip, message, group).map(Message::Query);
    }
    if !group.is_multicast() {
        return Err(WireError::BadField);
    }
    let wish = if kind == DONE { Wish::Left } else { Wish::Member };
    Ok(Message::Report(Report::One(group.into(), wish)))
}

fn query(ip: &Ipv6<&[u8]>, message: &[u8], group: Ipv6Addr) -> Result<Query, WireError> {
    let code = u32::from(u16_at(message, field::CODE));
    let (version, ms) = match message.len() {
        SHORT => (Version::Mld1, code),
        QUERY_V2.. => (Version::Mld2, decode(code, 12)),
        _ => return Err(WireError::BadLength),
    };
    if !(group.is_unspecified() || group.is_multicast()) {
        return Err(WireError::BadField);
    }
    Ok(Query {
        src: ip.src().into(),
        version,
        group: (!group.is_unspecified()).then_some(IpAddr::V6(group)),
        max_response: Span::from_ms(ms.into()),
    })
}

/// The packet begins with a hop-by-hop header that has the Router Alert option of MLD: type 5, value 0 (RFC 2711).
fn has_alert(ip: &Ipv6<&[u8]>) -> bool {
    let b = ip.payload();
    if ip.next_header() != proto::HOP_BY_HOP || b.len() < 8 {
        return false;
    }
    let Some(mut options) = b.get(2..8 + 8 * usize::from(b[1])) else { return false };
    // Each option is a byte at least, so that the header's 2,048 bytes bound the walk.
    while let [kind, rest @ ..] = options {
        if *kind == 0 {
            options = rest;
            continue;
        }
        let [len, value @ ..] = rest else { return false };
        let Some((value, next)) = value.split_at_checked((*len).into()) else { return false };
        if *kind == 5 {
            return value == [0, 0];
        }
        options = next;
    }
    false
}

/// Bytes of the longest frame that this file writes.
pub const MAX_FRAME_LEN: usize = MESSAGE_AT + QUERY_V2;

/// Where a message begins in a frame.
const MESSAGE_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + ALERT.len();
/// A report of version 2 with one record.
const REPORT_V2_LEN: usize = HEAD + 20;

/// A query that is to be sent as a whole Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueryFrame {
    /// Ethernet source.
    pub eth_src: Mac,
    /// IP source: the querier's, link-local.
    pub src: Ipv6Addr,
    /// The group that is asked about; `None`: all.
    pub group: Option<Ipv6Addr>,
    /// [`Version::Mld2`]; every other one is written as version 1.
    pub version: Version,
    /// Time within which hosts answer.
    pub max_response: Span,
    /// Messages that may be lost, 1 to 7 (version 2).
    pub robustness: u8,
    /// Between general queries (version 2).
    pub interval: Span,
}

impl QueryFrame {
    /// Writes the frame, to all nodes or to the group; returns its length.
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let mut message = [0; QUERY_V2];
        let ms = u32::try_from(self.max_response.as_ms()).unwrap_or(u32::MAX).max(1);
        message[field::TYPE] = QUERY;
        put(&mut message, field::GROUP, self.group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
        let (len, code) = if self.version == Version::Mld2 {
            message[field::ROBUSTNESS] = self.robustness & 7;
            let seconds = u32::try_from(self.interval.as_ms() / 1000).unwrap_or(u32::MAX);
            message[field::INTERVAL] = encode(seconds, 4) as u8;
            (QUERY_V2, encode(ms, 12))
        } else {
            (SHORT, ms)
        };
        put_u16(&mut message, field::CODE, code.min(0xffff) as u16);
        emit(buf, self.eth_src, self.src, self.group.unwrap_or(ipv6::ALL_NODES), &message[..len])
    }
}

/// A host's word on one group that is to be sent as a whole Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportFrame {
    /// Ethernet source.
    pub eth_src: Mac,
    /// IP source, link-local.
    pub src: Ipv6Addr,
    /// The group.
    pub group: Ipv6Addr,
    /// The host is a member, of all sources, or has left.
    pub wish: Wish,
    /// [`Version::Mld2`]; every other one is written as version 1.
    pub version: Version,
}

impl ReportFrame {
    /// Writes the frame; returns its length.
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let mut message = [0; REPORT_V2_LEN];
        let member = self.wish == Wish::Member;
        let (len, to) = if self.version == Version::Mld2 {
            message[field::TYPE] = REPORT_V2;
            put_u16(&mut message, field::RECORDS, 1);
            message[HEAD] = if member { record::TO_EXCLUDE } else { record::TO_INCLUDE };
            put(&mut message, HEAD + 4, self.group.octets());
            (REPORT_V2_LEN, V2_ROUTERS)
        } else {
            message[field::TYPE] = if member { REPORT_V1 } else { DONE };
            put(&mut message, field::GROUP, self.group.octets());
            (SHORT, if member { self.group } else { ALL_ROUTERS })
        };
        emit(buf, self.eth_src, self.src, to, &message[..len])
    }
}

/// Writes a frame around a message: hop limit 1, Router Alert, checksum.
fn emit(
    buf: &mut [u8],
    eth_src: Mac,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    message: &[u8],
) -> Result<usize, WireError> {
    let len = MESSAGE_AT + message.len();
    let buf = buf.get_mut(..len).ok_or(WireError::NoSpace)?;
    ethernet::emit(buf, multicast_mac_v6(dst), eth_src, EtherType::IPV6)?;
    let ip = Ipv6Repr {
        src,
        dst,
        next_header: proto::HOP_BY_HOP,
        hop_limit: 1,
        traffic_class: 0,
        flow_label: 0,
        payload_len: ALERT.len() + message.len(),
    };
    ip.emit(&mut buf[ethernet::HEADER_LEN..])?;
    buf[MESSAGE_AT - ALERT.len()..MESSAGE_AT].copy_from_slice(&ALERT);
    buf[MESSAGE_AT..].copy_from_slice(message);
    icmpv6::fill_checksum(&mut buf[MESSAGE_AT..], src, dst);
    Ok(len)
}
