//! Routing domains among the inputs, and what holds for the routes (R58).

use std::net::Ipv6Addr;

use godwit_model::{Advertise, Dhcp, Domain, StaticRoute, Subnet, VnRouting};
use godwit_tables::update::DomainIdx;

use super::*;

/// The VNs of domains: number 0 is the one that has the VMs and ports of all other inputs.
fn vn(n: u8) -> Vni {
    Vni::from_low24(77 + u32::from(n % 3))
}

fn id(n: u8) -> DomainId {
    DomainId(u32::from(n % 2) + 1)
}

fn prefix(third: u8, len: u8) -> Prefix {
    Prefix::of(Ipv4Addr::new(10, 0, third, 0).into(), len)
}

/// A VN's part in a domain: none, one subnet, or two, with this gateway or another.
pub(super) fn part(of: u8, n: u8, at: u8) -> Option<VnRouting> {
    let subnet = |third: u8| Subnet {
        prefix: prefix(third, if at == 5 { 25 } else { 24 }),
        gateway: Ipv4Addr::new(10, 0, third, n % 4 + 1).into(),
        advertise: None,
        dhcp: n.is_multiple_of(2).then(|| Dhcp { lease_s: 60, dns: Vec::new() }),
    };
    let gateway = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, of.into(), 0, 0, 0, 0, 0xfe));
    let v6 = Subnet {
        prefix: Prefix::of(gateway, 64),
        gateway,
        advertise: (at == 2).then_some(Advertise { managed: false, other: false, lifetime_s: 30 }),
        dhcp: Some(Dhcp { lease_s: u32::MAX, dns: vec![gateway] }),
    };
    let v4 = [of, of + 8].into_iter().take(usize::from(at % 3)).map(subnet);
    let subnets = v4.chain((n < 3).then_some(v6)).collect();
    (!at.is_multiple_of(4)).then(|| VnRouting { domain: id(at), routed_only: n.is_multiple_of(2), subnets })
}

pub(super) fn input(kind: u8, n: u8, at: u8, seq: u64) -> Input {
    let nva = Input::Nva;
    match kind {
        50 | 51 => {
            let vns = (0..3).filter(|v| n >> v & 1 == 1 || *v == at % 3).map(vn).collect();
            let gateway_mac = Mac([2, 0x67, 0, 0, 0, u8::from(seq > 17)]);
            let domain = Domain { id: id(at), name: format!("d{}", at % 2), gateway_mac, vns };
            let via = VmKey { vni: vn(n), mac: mac(at) };
            let routes = vec![StaticRoute { prefix: prefix(n * 16, 16 + at), via }];
            let gone = vec![prefix(at * 16, 16 + n)];
            match seq % 3 {
                0 => nva(NvaToNve::DomainRoutes { id: domain.id, routes, gone }),
                _ => nva(NvaToNve::Domain { domain, reset: seq.is_multiple_of(4) }),
            }
        }
        52 if seq.is_multiple_of(3) => {
            let vns = (0..3).filter(|v| n >> v & 1 == 1);
            let parts = vns.filter_map(|v| Some((vn(v), VnRouting { domain: id(at), ..part(v, n, at)? })));
            let parts: Vec<_> = parts.collect();
            let vns = parts.iter().map(|(vni, _)| *vni).collect();
            let gateway_mac = Mac([2, 0x67, 0, 0, 0, 0]);
            let domain = Domain { id: id(at), name: format!("d{}", at % 2), gateway_mac, vns };
            let via = VmKey { vni: vn(n), mac: mac(at) };
            let routes = vec![StaticRoute { prefix: prefix(n * 16, 16 + at), via }];
            Input::StaticDomain { domain, vns: parts, routes }
        }
        52 => nva(NvaToNve::DomainGone { id: id(at) }),
        53 => {
            let settings = VnSettings { routing: part(n % 3, n, at), ..VnSettings::default() };
            nva(NvaToNve::End {
                vni: vn(n),
                revision: seq,
                known: true,
                settings,
                gateway: None,
                members: vec![location(at)],
                lingering: Vec::new(),
            })
        }
        _ if seq.is_multiple_of(5) => {
            let (uplink, group) = (PortIdx(at.into()), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let event = match at % 3 {
                0 => Event::RouteRoom,
                1 => Event::GroupQuery { uplink, group, max_response: Span::from_ms(seq) },
                _ => Event::RouteFull { domain: DomainIdx((n % 3).into()), prefix: prefix(n * 16, 16 + at) },
            };
            Input::Worker { worker: usize::from(n % 2), event }
        }
        _ => {
            let of = n % 2 + 1;
            let mut record = record(n, at, seq);
            record.key.vni = vn(of);
            record.ipv4 = vec![Ipv4Addr::new(10, 0, of, n % 4)];
            nva(NvaToNve::Snapshot { vni: vn(of), vms: vec![record] })
        }
    }
}

/// VNs are taken for a domain exactly while this NVE has a part in it, and each route is of a VN that is there.
pub(super) fn check(nve: &Nve, tables: &BTreeMap<String, String>) {
    for n in 0..3 {
        let there = nve.desired.vn(vn(n)).is_some();
        assert_eq!(there, nve.mirror.vns().any(|v| v == vn(n)), "mirrored and not served");
        assert_eq!(
            there,
            tables.values().any(|t| t.starts_with("VnSet") && t.contains(&format!("{:?}", vn(n))))
        );
        let named = nve.domains.iter().any(|id| nve.mirror.domains.of_vn(vn(n)).any(|of| of == *id));
        let needed = nve.vms_of(vn(n)).any(|(_, vm)| vm.needs_vn())
            || nve.ports.values().any(|p| matches!(p.kind, PortKind::Access(key) if key.vni == vn(n)));
        assert_eq!(there, named || needed, "VN {n}: {named} {needed}");
        if let Some(at) = nve.desired.vn(vn(n)) {
            let part = nve.desired.routing(at);
            let domain = nve.mirror.settings(vn(n)).routing.as_ref().map(|r| r.domain);
            let domain = domain.filter(|id| nve.mirror.domains.get(*id).is_some());
            assert_eq!(part.map(|p| p.domain), domain);
            for ip in part.iter().flat_map(|p| p.gateways()) {
                assert_eq!(nve.desired.owner(at, ip), part.map(|p| (p.mac, true)), "the gateway's own");
            }
        }
    }
    let parts = tables.keys().filter(|k| k.starts_with("routing ")).count();
    assert!(parts > 0 || !tables.keys().any(|k| k.starts_with("route ") || k.starts_with("domain ")));
}

/// When all ports and all domains are gone, the workers have none of it.
pub(super) fn nothing_is_left(mut nve: Nve, now: Instant, mut tables: BTreeMap<String, String>) {
    let ports = (1..5).map(|port| Input::PortRemoved { port: PortIdx(port) });
    let session = [Input::NvaConnected, Input::Nva(NvaToNve::Welcome { epoch: 9, keepalive_ms: 3000 })];
    let gone = (0..2).map(|n| Input::Nva(NvaToNve::DomainGone { id: id(n) }));
    let mut now = now;
    for input in session.into_iter().chain(ports).chain(gone) {
        let mut out = Outputs::default();
        now = now + Span::from_ms(1);
        nve.handle(now, 0, input, &mut out);
        out.updates.iter().filter(|(w, _)| *w == 0).for_each(|(_, u)| apply(&mut tables, *u));
    }
    // VMs that are held although their port is gone, and forward entries, have an end.
    for _ in 0..1000 {
        let mut out = Outputs::default();
        now = now + Span::from_ms(1000);
        nve.handle(now, 0, Input::Tick, &mut out);
        out.updates.iter().filter(|(w, _)| *w == 0).for_each(|(_, u)| apply(&mut tables, *u));
    }
    let of_routing = |k: &&String| ["route", "routing", "subnet", "domain"].iter().any(|w| k.starts_with(w));
    assert_eq!(tables.keys().find(of_routing), None);
    assert!(nve.domains.is_empty());
    for n in 1..3 {
        assert_eq!(nve.desired.vn(vn(n)), None, "VN {n} was taken for its domain alone");
    }
}
