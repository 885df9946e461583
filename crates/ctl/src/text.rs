//! Addresses, versions and times of the protocol as text.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, UNIX_EPOCH};

use godwit_api::v1;
use godwit_wire::Mac;

/// The last one that RFC 3339 can say.
const LAST_MOMENT: Duration = Duration::from_millis(253_402_300_799_999);

/// A MAC address.
pub fn mac(mac: u64) -> String {
    Mac::from_u64(mac).to_string()
}

/// An IP address of 4 or 16 bytes; other lengths are shown as what they are.
pub fn ip(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ipv4Addr::from(v4).to_string()
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ipv6Addr::from(v6).to_string()
    } else {
        format!("bad-address-of-{}-bytes", bytes.len())
    }
}

/// Several IP addresses.
pub fn ips(list: &[Vec<u8>]) -> Vec<String> {
    list.iter().map(|b| ip(b)).collect()
}

/// A locator that may be absent.
pub fn locator(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| ip(bytes))
}

/// A version as epoch.seq; `None` for the one below all.
pub fn version(v: Option<&v1::Version>) -> Option<String> {
    v.filter(|v| (v.epoch, v.seq) != (0, 0)).map(|v| format!("{}.{}", v.epoch, v.seq))
}

/// VNI and MAC of a key; zeros where it is missing.
pub fn key(k: Option<&v1::VmKey>) -> (u32, String) {
    k.map_or((0, mac(0)), |k| (k.vni, mac(k.mac)))
}

/// `None` for the empty string, which is how the protocol says "none".
pub fn some(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_owned())
}

/// The value or nothing, for a cell.
pub fn or_empty(s: Option<&String>) -> String {
    s.cloned().unwrap_or_default()
}

/// A generated enum value's name without its prefix, in lower case.
pub fn enum_name(full: &str, prefix: &str) -> String {
    full.strip_prefix(prefix).unwrap_or(full).to_ascii_lowercase()
}

/// A span for people, two units at most: `350ms`, `12s`, `4m 10s`, `3d 4h`.
pub fn span_ms(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3600 % 24),
    }
}

/// A moment, given in microseconds since 1970, as RFC 3339 in UTC with milliseconds; later ones than year 9999 are
/// shown as its end.
pub fn moment_us(us: u64) -> String {
    let moment = UNIX_EPOCH + Duration::from_micros(us).min(LAST_MOMENT);
    humantime::format_rfc3339_millis(moment).to_string()
}

/// Memory in the unit that suits it.
pub fn memory(bytes: u64) -> String {
    let tenths = |unit: u64| bytes.saturating_mul(10).div_ceil(unit);
    let (tenths, unit) = match bytes {
        0 => return "0".into(),
        1..0x10_0000 => (tenths(1 << 10), "KiB"),
        0x10_0000..0x4000_0000 => (tenths(1 << 20), "MiB"),
        _ => (tenths(1 << 30), "GiB"),
    };
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment_us(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment_us(951_782_400_123_456), "2000-02-29T00:00:00.123Z");
        assert_eq!(moment_us(1_735_689_599_999_000), "2024-12-31T23:59:59.999Z");
        assert_eq!(moment_us(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn memories() {
        let shown = [0, 1, 268, 1024, 1 << 20, 160 << 20, (5 << 30) + 1].map(memory);
        let wanted = ["0", "0.1 KiB", "0.3 KiB", "1.0 KiB", "1.0 MiB", "160.0 MiB", "5.1 GiB"];
        assert_eq!(shown, wanted);
        assert!(memory(u64::MAX).ends_with(" GiB"), "no overflow");
    }

    #[test]
    fn spans() {
        for (ms, text) in [(350, "350ms"), (12_999, "12s"), (250_000, "4m 10s"), (273_600_000, "3d 4h")] {
            assert_eq!(span_ms(ms), text);
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(ip(&[198, 18, 0, 1]), "198.18.0.1");
        assert_eq!(ip(&[1]), "bad-address-of-1-bytes");
        assert_eq!(locator(&[]), None);
    }
}
