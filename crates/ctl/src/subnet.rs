//! Subnets and multicast groups on the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use godwit_api::v1;
use godwit_wire::Prefix;
use godwit_wire::prefix::BadPrefix;

/// Life of a router advertisement's default route, in seconds (RFC 4861 section 6.2.1).
pub const LIFETIME_S: u32 = 1800;
/// Life of a lease, in seconds.
pub const LEASE_S: u32 = 3600;

/// A subnet or a group that cannot be read; the text says how one is written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSubnet {
    /// No prefix.
    #[error(transparent)]
    Prefix(#[from] BadPrefix),
    /// A word that no subnet has.
    #[error(
        "{0:?} is nothing of a subnet: after PREFIX come gateway=ADDRESS, ra, lifetime=, dhcp and dns=, by commas"
    )]
    Word(String),
    /// The same twice.
    #[error("{0} is there twice")]
    Twice(String),
    /// No gateway.
    #[error("a subnet needs its gateway: PREFIX,gateway=ADDRESS, as in 10.1.0.0/24,gateway=10.1.0.1")]
    NoGateway,
    /// No address.
    #[error("{0:?} is no address; write 10.1.0.1 or 2001:db8::1, without a prefix length")]
    Address(String),
    /// No flags.
    #[error("{0:?} is no flag of router advertisements: use managed, other or managed+other")]
    Flag(String),
    /// No time.
    #[error("{0:?} is no time of whole seconds up to {1}; write 90s, 30m, 12h or 1day")]
    Time(String, &'static str),
    /// A lifetime without router advertisements.
    #[error("lifetime is that of router advertisements: add ra")]
    LifetimeAlone,
    /// DNS servers without DHCP.
    #[error("DNS servers are named by DHCP: add dhcp")]
    DnsAlone,
    /// No groups.
    #[error(
        "{0:?} is no multicast group, or the second one of its family; write 239.1.1.1, ff08::1:1 or both"
    )]
    Group(String),
}

/// An address of either family.
///
/// # Errors
/// Says how one is written.
pub fn address(s: &str) -> Result<IpAddr, BadSubnet> {
    s.parse().map_err(|_| BadSubnet::Address(s.into()))
}

/// An address as the protocol has it.
pub fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().into(),
        IpAddr::V6(a) => a.octets().into(),
    }
}

fn whole_seconds(s: &str) -> Option<u64> {
    let time: Duration = humantime::parse_duration(s).ok()?;
    (time.subsec_nanos() == 0).then_some(time.as_secs())
}

/// Life of a default route; 0: there is none.
///
/// # Errors
/// Where it is no time, or longer than the format takes.
pub fn lifetime(s: &str) -> Result<u32, BadSubnet> {
    let time = whole_seconds(s).and_then(|t| u16::try_from(t).ok());
    time.map(u32::from).ok_or_else(|| BadSubnet::Time(s.into(), "18h 12m 15s (65,535 s)"))
}

/// Life of a lease.
///
/// # Errors
/// Where it is no time, or longer than the format takes.
pub fn lease(s: &str) -> Result<u32, BadSubnet> {
    let time = whole_seconds(s).and_then(|t| u32::try_from(t).ok());
    time.ok_or_else(|| BadSubnet::Time(s.into(), "a year"))
}

/// Flags of router advertisements, `managed`, `other` or both with a plus between them.
///
/// # Errors
/// Names them.
pub fn advertise(s: &str) -> Result<v1::Advertise, BadSubnet> {
    let mut a = v1::Advertise { managed: false, other: false, lifetime_s: LIFETIME_S };
    for word in s.split('+') {
        match word {
            "managed" if !a.managed => a.managed = true,
            "other" if !a.other => a.other = true,
            _ => return Err(BadSubnet::Flag(word.into())),
        }
    }
    Ok(a)
}

/// What is said of a subnet so far.
#[derive(Default)]
struct Parts {
    gateway: Option<IpAddr>,
    advertise: Option<v1::Advertise>,
    lifetime_s: Option<u32>,
    lease_s: Option<u32>,
    dns: Option<Vec<IpAddr>>,
}

impl Parts {
    fn take(&mut self, word: &str) -> Result<(), BadSubnet> {
        let once = |first: bool, what: &str| {
            if first { Ok(()) } else { Err(BadSubnet::Twice(what.into())) }
        };
        let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
        match (name, value) {
            ("gateway", Some(v)) => once(self.gateway.replace(address(v)?).is_none(), name),
            ("ra", None) => {
                let plain = v1::Advertise { managed: false, other: false, lifetime_s: LIFETIME_S };
                once(self.advertise.replace(plain).is_none(), name)
            }
            ("ra", Some(v)) => once(self.advertise.replace(advertise(v)?).is_none(), name),
            ("lifetime", Some(v)) => once(self.lifetime_s.replace(lifetime(v)?).is_none(), name),
            ("dhcp", None) => once(self.lease_s.replace(LEASE_S).is_none(), name),
            ("dhcp", Some(v)) => once(self.lease_s.replace(lease(v)?).is_none(), name),
            ("dns", Some(v)) => {
                let all = v.split('+').map(address).collect::<Result<_, _>>()?;
                once(self.dns.replace(all).is_none(), name)
            }
            _ => Err(BadSubnet::Word(word.into())),
        }
    }
}

/// A subnet of these parts.
///
/// # Errors
/// Where a part stands alone that belongs to another one.
pub fn built(
    prefix: Prefix,
    gateway: IpAddr,
    advertise: Option<v1::Advertise>,
    lifetime_s: Option<u32>,
    lease_s: Option<u32>,
    dns: Option<Vec<IpAddr>>,
) -> Result<v1::Subnet, BadSubnet> {
    let advertise = match (advertise, lifetime_s) {
        (None, Some(_)) => return Err(BadSubnet::LifetimeAlone),
        (Some(a), Some(lifetime_s)) => Some(v1::Advertise { lifetime_s, ..a }),
        (a, None) => a,
    };
    let dhcp = match (lease_s, dns) {
        (None, Some(_)) => return Err(BadSubnet::DnsAlone),
        (None, None) => None,
        (Some(lease_s), dns) => {
            let dns = dns.unwrap_or_default().into_iter().map(bytes).collect();
            Some(v1::Dhcp { lease_s, dns })
        }
    };
    Ok(v1::Subnet { prefix: prefix.to_string(), gateway: bytes(gateway), advertise, dhcp })
}

/// A subnet: `PREFIX,gateway=ADDRESS` and what else is said of it.
///
/// # Errors
/// Says what is wrong, and how one is written.
pub fn subnet(s: &str) -> Result<v1::Subnet, BadSubnet> {
    let mut words = s.split(',');
    let prefix: Prefix = words.next().unwrap_or_default().parse()?;
    let mut parts = Parts::default();
    words.try_for_each(|word| parts.take(word))?;
    let Parts { gateway, advertise, lifetime_s, lease_s, dns } = parts;
    built(prefix, gateway.ok_or(BadSubnet::NoGateway)?, advertise, lifetime_s, lease_s, dns)
}

/// Groups of the underlay: one of each family at most, by a comma.
///
/// # Errors
/// Says how they are written.
pub fn groups(s: &str) -> Result<v1::UnderlayGroups, BadSubnet> {
    let (mut v4, mut v6): (Option<Ipv4Addr>, Option<Ipv6Addr>) = (None, None);
    for word in s.split(',') {
        let bad = || BadSubnet::Group(word.into());
        let again = match word.parse().map_err(|_| bad())? {
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) if !ip.is_multicast() => return Err(bad()),
            IpAddr::V4(a) => v4.replace(a).is_some(),
            IpAddr::V6(a) => v6.replace(a).is_some(),
        };
        if again {
            return Err(bad());
        }
    }
    let octets = |ip: Option<IpAddr>| ip.map(bytes).unwrap_or_default();
    Ok(v1::UnderlayGroups { v4: octets(v4.map(IpAddr::V4)), v6: octets(v6.map(IpAddr::V6)) })
}

/// As [`groups`], or `none`.
///
/// # Errors
/// Says how they are written.
pub fn groups_or_none(s: &str) -> Result<v1::UnderlayGroups, BadSubnet> {
    if s == "none" { Ok(v1::UnderlayGroups::default()) } else { groups(s) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r58_a_subnet_says_its_gateway_and_what_else_it_has() {
        let plain = subnet("10.1.0.0/24,gateway=10.1.0.1").unwrap();
        assert_eq!((plain.prefix.as_str(), &plain.gateway[..]), ("10.1.0.0/24", &[10, 1, 0, 1][..]));
        assert_eq!((plain.advertise, plain.dhcp), (None, None));
        let all = "2001:db8:1::/64,dns=2001:db8::53+2001:db8::54,dhcp=12h,lifetime=1h,ra=other+managed,\
                   gateway=2001:db8:1::1";
        let all = subnet(all).unwrap();
        assert_eq!(all.advertise, Some(v1::Advertise { managed: true, other: true, lifetime_s: 3600 }));
        let dhcp = all.dhcp.unwrap();
        assert_eq!((dhcp.lease_s, dhcp.dns.len()), (43_200, 2));
        let defaults = subnet("2001:db8:1::/64,gateway=2001:db8:1::1,ra,dhcp").unwrap();
        assert_eq!(defaults.advertise.map(|a| a.lifetime_s), Some(1800));
        assert_eq!(defaults.dhcp.map(|d| d.lease_s), Some(3600));
    }

    #[test]
    fn r58_what_is_no_subnet_is_told_how_one_is_written() {
        let refused = [
            ("10.1.0.1/24,gateway=10.1.0.1", "beyond LENGTH clear"),
            ("10.1.0.0/24", "needs its gateway"),
            ("10.1.0.0/24,gateway=10.1.0.1/24", "without a prefix length"),
            ("10.1.0.0/24,gateway=10.1.0.1,gateway=10.1.0.2", "gateway is there twice"),
            ("10.1.0.0/24,gateway=10.1.0.1,mtu=1400", "nothing of a subnet"),
            ("10.1.0.0/24,gateway=10.1.0.1,", "nothing of a subnet"),
            ("10.1.0.0/24,gateway", "nothing of a subnet"),
            ("10.1.0.0/24,gateway=10.1.0.1,dns=10.1.0.2", "add dhcp"),
            ("10.1.0.0/24,gateway=10.1.0.1,dhcp=soon", "no time"),
            ("10.1.0.0/24,gateway=10.1.0.1,dhcp=1ms", "no time"),
            ("2001:db8::/64,gateway=2001:db8::1,lifetime=1h", "add ra"),
            ("2001:db8::/64,gateway=2001:db8::1,ra,lifetime=1day", "65,535"),
            ("2001:db8::/64,gateway=2001:db8::1,ra=always", "managed, other"),
        ];
        for (text, why) in refused {
            let e = subnet(text).unwrap_err().to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
    }

    #[test]
    fn r60_groups_of_the_underlay_are_one_of_each_family() {
        let both = groups("ff08::1:1,239.1.1.1").unwrap();
        assert_eq!((both.v4.len(), both.v6.len()), (4, 16));
        for bad in ["10.1.1.1", "239.1.1.1,239.1.1.2", "", "none", "239.1.1.1,"] {
            assert!(groups(bad).is_err(), "{bad}");
        }
        assert_eq!(groups_or_none("none"), Ok(v1::UnderlayGroups::default()));
    }
}
