//! Keys of loopback locators and routes of the underlay (R95).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::text::{from_text, net};

/// Table `[underlay]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnderlayConfig {
    /// IPv4 locator of a loopback, which all uplinks lead to.
    pub locator4: Option<Ipv4Addr>,
    /// IPv6 locator of a loopback.
    pub locator6: Option<Ipv6Addr>,
    /// Where routes come from besides `[[route]]`.
    pub routes: RouteSource,
    /// From a next hop's answer to the next question, where it has others beside it, in milliseconds.
    pub probe_ms: u64,
    /// Questions without an answer after which it is out of use.
    pub probe_tries: u32,
    /// How long each of them waits for its answer, in milliseconds.
    pub probe_wait_ms: u64,
}

impl Default for UnderlayConfig {
    fn default() -> UnderlayConfig {
        UnderlayConfig {
            locator4: None,
            locator6: None,
            routes: RouteSource::Fixed,
            probe_ms: 1000,
            probe_tries: 3,
            probe_wait_ms: 300,
        }
    }
}

impl UnderlayConfig {
    /// All uplinks lead to locators of a loopback.
    pub fn has_locator(&self) -> bool {
        self.locator4.is_some() || self.locator6.is_some()
    }

    /// The loopback has a locator of the family of `ip`.
    pub fn has_family_of(&self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.locator4.is_some() } else { self.locator6.is_some() }
    }
}

/// Where routes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteSource {
    /// The configuration alone.
    #[default]
    Fixed,
    /// The kernel's main table, too: what leaves by the exception interface of an uplink.
    Kernel,
}

/// Table `[[route]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The locators that it is for.
    #[serde(deserialize_with = "net")]
    pub to: IpNet,
    /// The next hops, each with the same right.
    pub via: Vec<Via>,
}

/// A next hop: `10.0.1.1`, or with its uplink `fe80::1%up0`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Via {
    /// Its address.
    pub ip: IpAddr,
    /// Its uplink, where the address does not tell.
    pub uplink: Option<String>,
}

/// A text that is no [`Via`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no next hop; write an address, with its uplink where needed: 10.0.1.1 or fe80::1%up0")]
pub struct BadVia(pub String);

impl FromStr for Via {
    type Err = BadVia;

    fn from_str(s: &str) -> Result<Via, BadVia> {
        let (ip, uplink) = s.split_once('%').map_or((s, None), |(ip, uplink)| (ip, Some(uplink)));
        let ip = ip.parse().map_err(|_| BadVia(s.to_owned()))?;
        Ok(Via { ip, uplink: uplink.map(str::to_owned) })
    }
}

impl<'de> Deserialize<'de> for Via {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Via, D::Error> {
        from_text(d)
    }
}
