//! What may stand on the command line: names, addresses, numbers, bytes.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use godwit_model::{BadDscp, BadRule, LEARNED_MAX, Learning, OperState};
use godwit_wire::prefix::BadPrefix;
use godwit_wire::{Dscp, Mac, ParseAddrError, Prefix, Vni};

/// An argument that cannot be read; the text says how one is written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadArgument {
    /// No name of an NVE, VN, VM or port.
    #[error("use 1 to 63 of the characters A-Z a-z 0-9 . _ - and begin with a letter or digit")]
    Name,
    /// No role of an operator.
    #[error("use read, operate or admin")]
    Role,
    /// No DSCP.
    #[error(transparent)]
    Dscp(#[from] BadDscp),
    /// No receive queue.
    #[error("write PORT:QUEUE, up0:1 say")]
    Queue,
    /// An empty identity of a move.
    #[error("a move's ID is not empty")]
    MoveId,
    /// No state of a VM.
    #[error("use one of {names}", names = OperState::names())]
    OperState,
    /// No MAC address, or no VNI.
    #[error(transparent)]
    Address(#[from] ParseAddrError),
    /// A MAC address that no VM may own.
    #[error("a VM's address is an individual one: not zero, and its first octet even")]
    NoVmMac,
    /// No IPv4 address.
    #[error("an IPv4 address is four numbers, as in 10.0.0.1, without a prefix length")]
    Ipv4,
    /// No IPv6 address.
    #[error("an IPv6 address is written as in 2001:db8::1, without a prefix length")]
    Ipv6,
    /// No prefix.
    #[error(transparent)]
    Prefix(#[from] BadPrefix),
    /// No way of learning addresses.
    #[error("use recorded, learned, learned=N with N from 1 to {LEARNED_MAX}, or default")]
    Learning,
    /// No time.
    #[error("a time is in seconds from 0.001 to 86400, as in 2.5")]
    Seconds,
    /// A character that is no hexadecimal digit.
    #[error("{0:?} is not a hexadecimal digit")]
    HexDigit(char),
    /// An odd number of hexadecimal digits.
    #[error("an odd number of digits: half a byte is missing")]
    HalfByte,
    /// No rule of a policy.
    #[error(transparent)]
    Rule(#[from] BadRule),
}

/// A name of an NVE, VN, VM or port.
///
/// # Errors
/// See [`godwit_model::check_name`].
pub fn name(s: &str) -> Result<String, BadArgument> {
    godwit_model::check_name("this", s).map_err(|_| BadArgument::Name)?;
    Ok(s.to_owned())
}

/// A DSCP: a number or a name.
///
/// # Errors
/// Says how one is written.
pub fn dscp(s: &str) -> Result<Dscp, BadArgument> {
    Ok(godwit_model::parse_dscp(s)?)
}

/// A receive queue, `PORT:QUEUE`.
///
/// # Errors
/// Says how one is written.
pub fn queue(s: &str) -> Result<(String, u16), BadArgument> {
    let (port, queue) = s.rsplit_once(':').ok_or(BadArgument::Queue)?;
    Ok((name(port)?, queue.parse().map_err(|_| BadArgument::Queue)?))
}

/// A move's identity: whatever the manager chose, but not nothing.
///
/// # Errors
/// Where it is empty.
pub fn move_id(s: &str) -> Result<String, BadArgument> {
    if s.is_empty() { Err(BadArgument::MoveId) } else { Ok(s.to_owned()) }
}

/// A VM's state in the words of RFC 7666.
///
/// # Errors
/// Names the words.
pub fn oper_state(s: &str) -> Result<OperState, BadArgument> {
    s.parse().map_err(|_| BadArgument::OperState)
}

/// A MAC address.
///
/// # Errors
/// Says how one is written.
pub fn mac(s: &str) -> Result<Mac, BadArgument> {
    Ok(s.parse::<Mac>()?)
}

/// A MAC address that a VM may own.
///
/// # Errors
/// Where it is none, a group address or zero.
pub fn vm_mac(s: &str) -> Result<Mac, BadArgument> {
    let mac = mac(s)?;
    if mac.is_unicast() { Ok(mac) } else { Err(BadArgument::NoVmMac) }
}

/// A VNI.
///
/// # Errors
/// Where it does not fit in 24 bits.
pub fn vni(s: &str) -> Result<u32, BadArgument> {
    Ok(s.parse::<Vni>()?.get())
}

/// An IPv4 address.
///
/// # Errors
/// Says how one is written.
pub fn ipv4(s: &str) -> Result<Ipv4Addr, BadArgument> {
    s.parse().map_err(|_| BadArgument::Ipv4)
}

/// An IPv6 address.
///
/// # Errors
/// Says how one is written.
pub fn ipv6(s: &str) -> Result<Ipv6Addr, BadArgument> {
    s.parse().map_err(|_| BadArgument::Ipv6)
}

/// A prefix, or an address alone.
///
/// # Errors
/// Says how one is written.
pub fn prefix(s: &str) -> Result<Prefix, BadArgument> {
    Ok(s.parse::<Prefix>()?)
}

/// Whose word binds addresses; `None`: it is not said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(pub Option<Learning>);

/// `recorded`, `learned`, `learned=N` or `default`.
///
/// # Errors
/// Names the words.
pub fn learning(s: &str) -> Result<Word, BadArgument> {
    if s == "default" {
        return Ok(Word(None));
    }
    s.parse::<Learning>().map(|l| Word(Some(l))).map_err(|_| BadArgument::Learning)
}

/// A span in seconds, fractions allowed, not zero.
///
/// # Errors
/// Where it is no such number.
pub fn seconds(s: &str) -> Result<Duration, BadArgument> {
    let ok = s.parse::<f64>().ok().filter(|v| (0.001..=86_400.0).contains(v));
    ok.map(Duration::from_secs_f64).ok_or(BadArgument::Seconds)
}

/// Bytes as hexadecimal digits, optionally apart by blanks or colons.
///
/// # Errors
/// Where a digit is none, or half a byte is missing.
pub fn hex(s: &str) -> Result<Vec<u8>, BadArgument> {
    let digits: Vec<u32> = s
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| c.to_digit(16).ok_or(BadArgument::HexDigit(c)))
        .collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(BadArgument::HalfByte);
    }
    Ok(digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect())
}

/// A rule of a policy, as the NVA writes it.
///
/// # Errors
/// What is wrong with it, and how a rule is written.
pub fn rule(s: &str) -> Result<String, BadArgument> {
    Ok(godwit_model::parse_rule(s)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_bytes() {
        assert_eq!(hex("ff 0a:0B"), Ok(vec![0xff, 0x0a, 0x0b]));
        assert!(hex("f").is_err());
        assert!(hex("zz").is_err());
    }

    #[test]
    fn a_vm_owns_an_individual_address() {
        assert!(vm_mac("02:00:00:00:00:01").is_ok());
        assert!(vm_mac("01:00:5e:00:00:01").is_err());
        assert!(vm_mac("00:00:00:00:00:00").is_err());
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "NaN", "inf", "x", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
