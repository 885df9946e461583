//! What may stand on the command line: names, addresses, numbers, bytes.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use godwit_model::Learning;
use godwit_wire::{Dscp, Mac, Prefix, Vni};

/// A name of an NVE, VN, VM or port.
///
/// # Errors
/// See [`godwit_model::check_name`].
pub fn name(s: &str) -> Result<String, String> {
    godwit_model::check_name("this", s).map_err(|_| {
        "use 1 to 63 of the characters A-Z a-z 0-9 . _ - and begin with a letter or digit".to_owned()
    })?;
    Ok(s.to_owned())
}

/// A DSCP: a number or a name.
///
/// # Errors
/// Says how one is written.
pub fn dscp(s: &str) -> Result<Dscp, String> {
    godwit_model::parse_dscp(s).map_err(|e| e.to_string())
}

/// A receive queue, `PORT:QUEUE`.
///
/// # Errors
/// Says how one is written.
pub fn queue(s: &str) -> Result<(String, u16), String> {
    let bad = || "write PORT:QUEUE, up0:1 say".to_owned();
    let (port, queue) = s.rsplit_once(':').ok_or_else(bad)?;
    Ok((name(port)?, queue.parse().map_err(|_| bad())?))
}

/// A move's identity: whatever the manager chose, but not nothing.
///
/// # Errors
/// Where it is empty.
pub fn move_id(s: &str) -> Result<String, String> {
    if s.is_empty() { Err("a move's ID is not empty".into()) } else { Ok(s.to_owned()) }
}

/// A VM's state in the words of RFC 7666.
///
/// # Errors
/// Names the words.
pub fn oper_state(s: &str) -> Result<godwit_model::OperState, String> {
    s.parse().map_err(|_| format!("use one of {}", godwit_model::OperState::names()))
}

/// A MAC address.
///
/// # Errors
/// Says how one is written.
pub fn mac(s: &str) -> Result<Mac, String> {
    s.parse().map_err(|e: godwit_wire::ParseAddrError| e.to_string())
}

/// A MAC address that a VM may own.
///
/// # Errors
/// Where it is none, a group address or zero.
pub fn vm_mac(s: &str) -> Result<Mac, String> {
    let mac = mac(s)?;
    if mac.is_unicast() {
        Ok(mac)
    } else {
        Err("a VM's address is an individual one: not zero, and its first octet even".into())
    }
}

/// A VNI.
///
/// # Errors
/// Where it does not fit in 24 bits.
pub fn vni(s: &str) -> Result<u32, String> {
    s.parse::<Vni>().map(Vni::get).map_err(|e| e.to_string())
}

/// An IPv4 address.
///
/// # Errors
/// Says how one is written.
pub fn ipv4(s: &str) -> Result<Ipv4Addr, String> {
    s.parse().map_err(|_| "an IPv4 address is four numbers, as in 10.0.0.1, without a prefix length".into())
}

/// An IPv6 address.
///
/// # Errors
/// Says how one is written.
pub fn ipv6(s: &str) -> Result<Ipv6Addr, String> {
    s.parse().map_err(|_| "an IPv6 address is written as in 2001:db8::1, without a prefix length".into())
}

/// A prefix, or an address alone.
///
/// # Errors
/// Says how one is written.
pub fn prefix(s: &str) -> Result<Prefix, String> {
    s.parse::<Prefix>().map_err(|e| e.to_string())
}

/// Whose word binds addresses; `None`: it is not said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(pub Option<Learning>);

/// `recorded`, `learned`, `learned=N` or `default`.
///
/// # Errors
/// Names the words.
pub fn learning(s: &str) -> Result<Word, String> {
    if s == "default" {
        return Ok(Word(None));
    }
    let word: Result<Learning, godwit_model::BadLearning> = s.parse();
    word.map(|l| Word(Some(l))).map_err(|_| {
        format!("use recorded, learned, learned=N with N from 1 to {}, or default", godwit_model::LEARNED_MAX)
    })
}

/// A span in seconds, fractions allowed, not zero.
///
/// # Errors
/// Where it is no such number.
pub fn seconds(s: &str) -> Result<Duration, String> {
    let ok = s.parse::<f64>().ok().filter(|v| (0.001..=86_400.0).contains(v));
    ok.map(Duration::from_secs_f64)
        .ok_or_else(|| "a time is in seconds from 0.001 to 86400, as in 2.5".into())
}

/// Bytes as hexadecimal digits, optionally apart by blanks or colons.
///
/// # Errors
/// Where a digit is none, or half a byte is missing.
pub fn hex(s: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u32> = s
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| c.to_digit(16).ok_or_else(|| format!("{c:?} is not a hexadecimal digit")))
        .collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of digits: half a byte is missing".into());
    }
    Ok(digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect())
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
