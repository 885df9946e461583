//! Multicast group membership as a switch snoops it: what IGMP ([`crate::igmp`]) and MLD ([`crate::mld`]) messages
//! say, in one form for both families (RFC 4541).
//!
//! Sources are not kept: a host that wants any source of a group wants the group.

use core::net::IpAddr;

use crate::error::WireError;
use crate::frame::{Frame, Network};
use crate::{Span, igmp, mld, proto};

/// Version of a message's protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// IGMPv1 (RFC 1112).
    Igmp1,
    /// IGMPv2 (RFC 2236).
    Igmp2,
    /// IGMPv3 (RFC 3376).
    Igmp3,
    /// MLDv1 (RFC 2710).
    Mld1,
    /// MLDv2 (RFC 3810).
    Mld2,
}

/// A valid IGMP or MLD message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// A router asks who is a member.
    Query(Query),
    /// A host says what it is a member of, or leaves.
    Report(Report<'a>),
}

/// A query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    /// Address of the querier; unspecified for a switch that asks without one.
    pub src: IpAddr,
    /// Its version.
    pub version: Version,
    /// The group that is asked about; `None`: all.
    pub group: Option<IpAddr>,
    /// Time within which hosts answer.
    pub max_response: Span,
}

/// What a host says of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// It is a member, of any source at all.
    Member,
    /// It is no member any more, or no longer of some sources: a query shows whether anybody still is.
    Left,
}

/// The groups that a report is about: its own, or its records, all of them checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report<'a> {
    /// Of an old version: one group.
    One(IpAddr, Wish),
    /// IGMPv3: group records.
    V4(&'a [u8]),
    /// MLDv2: group records.
    V6(&'a [u8]),
}

/// Types of group records (RFC 3376 section 4.2.12, RFC 3810 section 5.2.12).
pub(crate) mod record {
    pub const IS_INCLUDE: u8 = 1;
    pub const IS_EXCLUDE: u8 = 2;
    pub const TO_INCLUDE: u8 = 3;
    pub const TO_EXCLUDE: u8 = 4;
    pub const ALLOW: u8 = 5;
    pub const BLOCK: u8 = 6;
}

impl Report<'_> {
    /// What it says, group by group, in its order. Records that say nothing are left out.
    pub fn wishes(&self) -> impl Iterator<Item = (IpAddr, Wish)> {
        let (one, mut rest, address) = match *self {
            Report::One(group, wish) => (Some((group, wish)), &[][..], 4),
            Report::V4(records) => (None, records, 4),
            Report::V6(records) => (None, records, 16),
        };
        let records = core::iter::from_fn(move || {
            let record = Record::read(rest, address).ok()?;
            rest = rest.get(record.len..)?;
            Some(record)
        });
        one.into_iter().chain(records.filter_map(|r| Some((r.group, r.wish()?))))
    }
}

/// A group record.
struct Record {
    kind: u8,
    sources: u16,
    group: IpAddr,
    /// Its length.
    len: usize,
}

impl Record {
    /// Reads the record that `b` begins with; its addresses have `address` bytes.
    fn read(b: &[u8], address: usize) -> Result<Record, WireError> {
        let head = b.get(..4 + address).ok_or(WireError::Truncated)?;
        let sources = u16::from_be_bytes([head[2], head[3]]);
        let len = 4 + address + usize::from(sources) * address + 4 * usize::from(head[1]);
        let group = match (<[u8; 4]>::try_from(&head[4..]), <[u8; 16]>::try_from(&head[4..])) {
            (Ok(v4), _) => IpAddr::from(v4),
            (_, Ok(v6)) => IpAddr::from(v6),
            _ => return Err(WireError::BadLength),
        };
        if len > b.len() {
            return Err(WireError::Truncated);
        }
        Ok(Record { kind: head[0], sources, group, len })
    }

    fn wish(&self) -> Option<Wish> {
        match (self.kind, self.sources) {
            (record::IS_EXCLUDE | record::TO_EXCLUDE, _) => Some(Wish::Member),
            (record::IS_INCLUDE | record::TO_INCLUDE | record::ALLOW, 1..) => Some(Wish::Member),
            (record::TO_INCLUDE, 0) => Some(Wish::Left),
            (record::BLOCK, 1..) => Some(Wish::Left),
            // Of unknown types the rest of the message still counts (RFC 3376 section 4.2.12).
            _ => None,
        }
    }
}

/// Checks `count` records and returns their bytes; what follows them is ignored.
///
/// # Errors
/// [`WireError::Truncated`], or [`WireError::BadField`] for a record that is not about a group.
pub(crate) fn records(b: &[u8], count: u16, address: usize) -> Result<&[u8], WireError> {
    let mut len = 0;
    for _ in 0..count {
        let record = Record::read(&b[len..], address)?;
        if !record.group.is_multicast() {
            return Err(WireError::BadField);
        }
        len += record.len;
    }
    Ok(&b[..len])
}

/// A code of mantissa and exponent: one byte with 4 bits of mantissa, or two bytes with 12 (RFC 3376 section 4.1.1,
/// RFC 3810 section 5.1.3).
pub(crate) const fn decode(code: u32, mantissa: u32) -> u32 {
    let exponent = mantissa + 3;
    if code < 1 << exponent {
        return code;
    }
    let (low, shift) = (code & ((1 << mantissa) - 1), (code >> mantissa) & 7);
    (low | 1 << mantissa) << (shift + 3)
}

/// The largest code that means no more than `value`.
pub(crate) const fn encode(value: u32, mantissa: u32) -> u32 {
    let exponent = mantissa + 3;
    if value < 1 << exponent {
        return value;
    }
    let mut shift = 0;
    while shift < 7 && value >> (shift + 3) >= 2 << mantissa {
        shift += 1;
    }
    let scaled = value >> (shift + 3);
    let low = if scaled >= 2 << mantissa { (1 << mantissa) - 1 } else { scaled & ((1 << mantissa) - 1) };
    1 << exponent | shift << mantissa | low
}

/// Looks for IGMP or MLD in a frame, behind its tags. `None` for everything else; the error is why a message is none.
pub fn read<'a>(frame: &Frame<'a>) -> Option<Result<Message<'a>, WireError>> {
    let (upper, bytes) = frame.upper()?;
    match (frame.network(), upper.proto) {
        (Network::V4(_), proto::IGMP) => {
            let ip = frame.ipv4()?;
            // Fragments of a message cannot be read, and no host sends any.
            let whole = if upper.fragment.is_some() { Err(WireError::Fragment) } else { Ok(()) };
            let message = whole.and_then(|()| igmp::parse(&ip, bytes));
            (message != Err(WireError::NotThis)).then_some(message)
        }
        (Network::V6(_), proto::ICMPV6) if !upper.is_later() && mld::is_type(*bytes.first()?) => {
            let ip = frame.ipv6()?;
            if upper.fragment.is_some() {
                return Some(Err(WireError::Fragment));
            }
            Some(mld::parse(&ip, bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_widths_mean_what_the_rfcs_say() {
        // RFC 3376 section 4.1.1: (mant | 0x10) << (exp + 3).
        assert_eq!(decode(127, 4), 127);
        assert_eq!(decode(0x80, 4), 0x10 << 3);
        assert_eq!(decode(0xff, 4), 0x1f << 10);
        assert_eq!(decode(0x7fff, 12), 0x7fff);
        assert_eq!(decode(0x8000, 12), 0x1000 << 3);
        assert_eq!(decode(0xffff, 12), 0x1fff << 10);
        for mantissa in [4, 12] {
            for code in 0..1u32 << (mantissa + 4) {
                assert_eq!(encode(decode(code, mantissa), mantissa), code, "mantissa {mantissa}");
            }
            for value in (0..40_000u32).chain([u32::MAX]) {
                assert!(decode(encode(value, mantissa), mantissa) <= value);
            }
        }
    }
}
