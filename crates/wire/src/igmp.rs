//! IGMP, versions 1 to 3 (RFC 1112, RFC 2236, RFC 3376): messages of hosts and routers, queries of a querier, and
//! reports of a host.

use core::net::{IpAddr, Ipv4Addr};

use crate::addr::Mac;
use crate::bytes::{put, put_u16, u16_at, v4_at};
use crate::checksum::{self, checksum};
use crate::error::WireError;
use crate::ethernet::{self, EtherType, multicast_mac_v4};
use crate::ipv4::{self, Ipv4};
use crate::membership::{Message, Query, Report, Version, Wish, decode, encode, record, records};
use crate::{Span, proto};

mod field {
    pub const TYPE: usize = 0;
    pub const CODE: usize = 1;
    pub const CHECKSUM: usize = 2;
    pub const GROUP: usize = 4;
    /// Of a query of version 3: S flag and robustness, then the interval.
    pub const ROBUSTNESS: usize = 8;
    pub const INTERVAL: usize = 9;
    /// Of a report of version 3.
    pub const RECORDS: usize = 6;
}

const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_V3: u8 = 0x22;

/// Bytes of a message of versions 1 and 2, and of the part of a report of version 3 before its records.
const SHORT: usize = 8;
/// Bytes of a query of version 3 without sources.
const QUERY_V3: usize = 12;

/// 224.0.0.1, all systems of the link.
pub const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// 224.0.0.2, all routers of the link.
pub const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// 224.0.0.22, to which reports of version 3 go.
pub const V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);

/// A group of the link, which no router forwards and no switch prunes (RFC 4541 section 2.1.2).
pub const fn is_link_local(group: Ipv4Addr) -> bool {
    matches!(group.octets(), [224, 0, 0, _])
}

/// Parses a message in the packet `ip`, with the checks of RFC 3376 section 4 that matter to a switch: checksum,
/// length, TTL 1, groups.
///
/// # Errors
/// [`WireError::NotThis`] for other types (DVMRP, PIM); [`WireError::BadHopLimit`] for a TTL other than 1; otherwise
/// the first check that failed.
pub fn parse<'a>(ip: &Ipv4<&[u8]>, message: &'a [u8]) -> Result<Message<'a>, WireError> {
    let kind = *message.first().ok_or(WireError::Truncated)?;
    if !matches!(kind, QUERY | REPORT_V1 | REPORT_V2 | LEAVE | REPORT_V3) {
        return Err(WireError::NotThis);
    }
    if message.len() < SHORT {
        return Err(WireError::Truncated);
    }
    if ip.ttl() != 1 {
        return Err(WireError::BadHopLimit);
    }
    if !checksum::is_valid(message) {
        return Err(WireError::BadChecksum);
    }
    if kind == REPORT_V3 {
        let (head, rest) = message.split_at(SHORT);
        return Ok(Message::Report(Report::V4(records(rest, u16_at(head, field::RECORDS), 4)?)));
    }
    let group = v4_at(message, field::GROUP);
    if kind == QUERY {
        return query(ip, message, group).map(Message::Query);
    }
    if !group.is_multicast() {
        return Err(WireError::BadField);
    }
    let wish = if kind == LEAVE { Wish::Left } else { Wish::Member };
    Ok(Message::Report(Report::One(group.into(), wish)))
}

fn query(ip: &Ipv4<&[u8]>, message: &[u8], group: Ipv4Addr) -> Result<Query, WireError> {
    let code = message[field::CODE];
    let version = match message.len() {
        SHORT if code == 0 => Version::Igmp1,
        SHORT => Version::Igmp2,
        QUERY_V3.. => Version::Igmp3,
        _ => return Err(WireError::BadLength),
    };
    if !(group.is_unspecified() || group.is_multicast()) || ip.src().is_multicast() {
        return Err(WireError::BadField);
    }
    let tenths = match version {
        Version::Igmp1 => 100,
        Version::Igmp2 => code.into(),
        _ => decode(code.into(), 4),
    };
    Ok(Query {
        src: ip.src().into(),
        version,
        group: (!group.is_unspecified()).then_some(IpAddr::V4(group)),
        max_response: Span::from_ms(u64::from(tenths) * 100),
    })
}

/// Bytes of the longest frame that this file writes.
pub const MAX_FRAME_LEN: usize = ethernet::HEADER_LEN + IP_LEN + REPORT_V3_LEN;

/// A header with the Router Alert option.
const IP_LEN: usize = ipv4::HEADER_LEN + 4;
/// A report of version 3 with one record.
const REPORT_V3_LEN: usize = SHORT + 8;

/// A query that is to be sent as a whole Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueryFrame {
    /// Ethernet source.
    pub eth_src: Mac,
    /// IP source: the querier's, or 0.0.0.0 for one that takes no part in its election (RFC 4541 section 2.1.1).
    pub src: Ipv4Addr,
    /// The group that is asked about; `None`: all.
    pub group: Option<Ipv4Addr>,
    /// [`Version::Igmp3`]; every other one is written as version 2.
    pub version: Version,
    /// Time within which hosts answer; in steps of 100 ms, rounded down, at least one.
    pub max_response: Span,
    /// Messages that may be lost, 1 to 7 (version 3).
    pub robustness: u8,
    /// Between general queries (version 3).
    pub interval: Span,
}

impl QueryFrame {
    /// Writes the frame, to all systems or to the group; returns its length.
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let mut message = [0; QUERY_V3];
        let tenths = u32::try_from(self.max_response.as_ms() / 100).unwrap_or(u32::MAX).max(1);
        message[field::TYPE] = QUERY;
        put(&mut message, field::GROUP, self.group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        let len = if self.version == Version::Igmp3 {
            message[field::CODE] = encode(tenths, 4) as u8;
            message[field::ROBUSTNESS] = self.robustness & 7;
            let seconds = u32::try_from(self.interval.as_ms() / 1000).unwrap_or(u32::MAX);
            message[field::INTERVAL] = encode(seconds, 4) as u8;
            QUERY_V3
        } else {
            message[field::CODE] = tenths.min(255) as u8;
            SHORT
        };
        emit(buf, self.eth_src, self.src, self.group.unwrap_or(ALL_SYSTEMS), &mut message[..len])
    }
}

/// A host's word on one group that is to be sent as a whole Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportFrame {
    /// Ethernet source.
    pub eth_src: Mac,
    /// IP source.
    pub src: Ipv4Addr,
    /// The group.
    pub group: Ipv4Addr,
    /// The host is a member, of all sources, or has left.
    pub wish: Wish,
    /// [`Version::Igmp3`]; every other one is written as version 2.
    pub version: Version,
}

impl ReportFrame {
    /// Writes the frame; returns its length.
    ///
    /// # Errors
    /// [`WireError::NoSpace`].
    pub fn emit_frame(&self, buf: &mut [u8]) -> Result<usize, WireError> {
        let mut message = [0; REPORT_V3_LEN];
        let member = self.wish == Wish::Member;
        let (len, to) = if self.version == Version::Igmp3 {
            message[field::TYPE] = REPORT_V3;
            put_u16(&mut message, field::RECORDS, 1);
            message[SHORT] = if member { record::TO_EXCLUDE } else { record::TO_INCLUDE };
            put(&mut message, SHORT + 4, self.group.octets());
            (REPORT_V3_LEN, V3_ROUTERS)
        } else {
            message[field::TYPE] = if member { REPORT_V2 } else { LEAVE };
            put(&mut message, field::GROUP, self.group.octets());
            (SHORT, if member { self.group } else { ALL_ROUTERS })
        };
        emit(buf, self.eth_src, self.src, to, &mut message[..len])
    }
}

/// Writes a frame around a message whose checksum is 0: TTL 1, internetwork control, Router Alert (RFC 2113).
fn emit(
    buf: &mut [u8],
    eth_src: Mac,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    message: &mut [u8],
) -> Result<usize, WireError> {
    let sum = checksum(message);
    put_u16(message, field::CHECKSUM, sum);
    let at = ethernet::HEADER_LEN;
    let len = at + IP_LEN + message.len();
    let buf = buf.get_mut(..len).ok_or(WireError::NoSpace)?;
    ethernet::emit(buf, multicast_mac_v4(dst), eth_src, EtherType::IPV4)?;
    ipv4::emit_router_alert(&mut buf[at..], src, dst, proto::IGMP, message.len())?;
    buf[at + IP_LEN..].copy_from_slice(message);
    Ok(len)
}
