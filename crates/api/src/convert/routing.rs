//! Routing domains, subnets and static routes.

use godwit_model::message::NvaToNve;
use godwit_model::{Advertise, Dhcp, Domain, DomainId, StaticRoute, Subnet, UnderlayGroup, VnRouting};
use godwit_wire::Prefix;

use super::{ConvertError, Problem, each, ip, ip_bytes, ipv4, ipv6, mac, maybe, name, part, vni};
use crate::v1;

impl From<VnRouting> for v1::VnRouting {
    fn from(m: VnRouting) -> v1::VnRouting {
        v1::VnRouting {
            domain: m.domain.0,
            routed_only: m.routed_only,
            subnets: m.subnets.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::VnRouting> for VnRouting {
    type Error = ConvertError;

    fn try_from(p: v1::VnRouting) -> Result<VnRouting, ConvertError> {
        Ok(VnRouting {
            domain: DomainId(p.domain),
            routed_only: p.routed_only,
            subnets: each("subnets", p.subnets)?,
        })
    }
}

impl From<Subnet> for v1::Subnet {
    fn from(m: Subnet) -> v1::Subnet {
        v1::Subnet {
            prefix: m.prefix.to_string(),
            gateway: ip_bytes(m.gateway),
            advertise: m.advertise.map(Into::into),
            dhcp: m.dhcp.map(Into::into),
        }
    }
}

impl TryFrom<v1::Subnet> for Subnet {
    type Error = ConvertError;

    fn try_from(p: v1::Subnet) -> Result<Subnet, ConvertError> {
        Ok(Subnet {
            prefix: prefix("prefix", &p.prefix)?,
            gateway: ip("gateway", &p.gateway)?,
            advertise: maybe("advertise", p.advertise)?,
            dhcp: maybe("dhcp", p.dhcp)?,
        })
    }
}

impl From<Advertise> for v1::Advertise {
    fn from(m: Advertise) -> v1::Advertise {
        v1::Advertise { managed: m.managed, other: m.other, lifetime_s: m.lifetime_s.into() }
    }
}

impl TryFrom<v1::Advertise> for Advertise {
    type Error = ConvertError;

    fn try_from(p: v1::Advertise) -> Result<Advertise, ConvertError> {
        let too_large =
            |_| ConvertError::new("lifetime_s", Problem::TooLarge(p.lifetime_s.into(), u16::MAX.into()));
        let lifetime_s = u16::try_from(p.lifetime_s).map_err(too_large)?;
        Ok(Advertise { managed: p.managed, other: p.other, lifetime_s })
    }
}

impl From<Dhcp> for v1::Dhcp {
    fn from(m: Dhcp) -> v1::Dhcp {
        v1::Dhcp { lease_s: m.lease_s, dns: m.dns.into_iter().map(ip_bytes).collect() }
    }
}

impl TryFrom<v1::Dhcp> for Dhcp {
    type Error = ConvertError;

    fn try_from(p: v1::Dhcp) -> Result<Dhcp, ConvertError> {
        let dns = p.dns.iter().map(|b| ip("dns", b)).collect::<Result<_, _>>()?;
        Ok(Dhcp { lease_s: p.lease_s, dns })
    }
}

impl From<StaticRoute> for v1::StaticRoute {
    fn from(m: StaticRoute) -> v1::StaticRoute {
        v1::StaticRoute { prefix: m.prefix.to_string(), via: Some(m.via.into()) }
    }
}

impl TryFrom<v1::StaticRoute> for StaticRoute {
    type Error = ConvertError;

    fn try_from(p: v1::StaticRoute) -> Result<StaticRoute, ConvertError> {
        Ok(StaticRoute { prefix: prefix("prefix", &p.prefix)?, via: part("via", p.via)? })
    }
}

/// The message's form on the wire.
pub(super) fn domain(domain: Domain, reset: bool) -> v1::Domain {
    v1::Domain {
        id: domain.id.0,
        name: domain.name,
        gateway_mac: domain.gateway_mac.to_u64(),
        vnis: domain.vns.iter().map(|vni| vni.get()).collect(),
        reset,
    }
}

/// The message's form on the wire.
pub(super) fn domain_routes(id: DomainId, routes: Vec<StaticRoute>, gone: &[Prefix]) -> v1::DomainRoutes {
    v1::DomainRoutes {
        id: id.0,
        routes: routes.into_iter().map(Into::into).collect(),
        gone: gone.iter().map(Prefix::to_string).collect(),
    }
}

impl TryFrom<v1::DomainRoutes> for NvaToNve {
    type Error = ConvertError;

    fn try_from(p: v1::DomainRoutes) -> Result<NvaToNve, ConvertError> {
        let gone = p.gone.iter().map(|text| prefix("gone", text)).collect::<Result<_, _>>()?;
        Ok(NvaToNve::DomainRoutes { id: DomainId(p.id), routes: each("routes", p.routes)?, gone })
    }
}

impl TryFrom<v1::Domain> for NvaToNve {
    type Error = ConvertError;

    fn try_from(p: v1::Domain) -> Result<NvaToNve, ConvertError> {
        let domain = Domain {
            id: DomainId(p.id),
            name: name("name", "domain", p.name)?,
            gateway_mac: mac("gateway_mac", p.gateway_mac)?,
            vns: p.vnis.into_iter().map(|v| vni("vnis", v)).collect::<Result<_, _>>()?,
        };
        Ok(NvaToNve::Domain { domain, reset: p.reset })
    }
}

/// A prefix, as `ADDRESS` or `ADDRESS/LENGTH`.
///
/// # Errors
/// Where the text is none.
pub fn prefix(field: &str, text: &str) -> Result<Prefix, ConvertError> {
    text.parse().map_err(|_| ConvertError::new(field, Problem::Prefix(text.into())))
}

/// Groups of the underlay from their bytes; none where there are no bytes.
///
/// # Errors
/// Where there are other numbers of bytes.
pub fn underlay_group(v4: &[u8], v6: &[u8]) -> Result<UnderlayGroup, ConvertError> {
    Ok(UnderlayGroup {
        v4: if v4.is_empty() { None } else { Some(ipv4("underlay_group_v4", v4)?) },
        v6: if v6.is_empty() { None } else { Some(ipv6("underlay_group_v6", v6)?) },
    })
}
