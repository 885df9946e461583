//! Routing domains: the VNs that an NVE takes part in for them, and the routes that its workers have (R58).

use crate::lab::domains::{DOMAIN, ip_of, part, prefix, subnet, vm_of, vn};
use crate::lab::said::{A, B};
use crate::lab::{Lab, mac};
use godwit_control::Input;
use godwit_model::message::{Change, NvaToNve, NveToNva};
use godwit_model::{DomainId, GATEWAY_MAC, VnRouting, VnSettings};
use godwit_tables::event::Event;
use godwit_tables::update::{DomainIdx, NO_LENGTH, NextHop, PortIdx, Update};
use godwit_wire::{Mac, Prefix};

/// VM 1 in VN 0 at A, VM 2 in VN 1 at B, one domain.
pub fn two() -> Lab {
    let mut lab = Lab::new(2);
    lab.join(&[0, 1]);
    lab.run_vm_of(A, 0, 1);
    lab.run_vm_of(B, 1, 2);
    lab
}

fn lingers(lab: &Lab, i: usize, of: u32) -> Vec<bool> {
    let of_vn = |m: &NveToNva| match m {
        NveToNva::Linger { vni, lingers } if *vni == vn(of) => Some(*lingers),
        NveToNva::Subscribe { vni, lingers: true, .. } if *vni == vn(of) => Some(true),
        _ => None,
    };
    lab.hosts[i].said.iter().filter_map(of_vn).collect()
}

pub fn subscribed(lab: &Lab, i: usize) -> Vec<u32> {
    lab.nva.subscribed[i].iter().map(|vni| vni.get() - vn(0).get()).collect()
}

#[test]
fn r58_a_port_brings_the_routes_of_all_vns_of_its_domain() {
    let lab = two();
    let a = &lab.hosts[A];
    assert_eq!((subscribed(&lab, A), lingers(&lab, A, 1)), (vec![0, 1], vec![true]));
    assert_eq!(a.route(ip_of(1, 2)), Some(NextHop::Vm(a.key(1, 2))), "a VM of another VN");
    assert_eq!(a.route(ip_of(0, 1)), Some(NextHop::Vm(a.key(0, 1))));
    for of in [0, 1] {
        let here = a.vn(of).unwrap();
        assert_eq!(a.route(ip_of(of, 254)), Some(NextHop::Gateway(here)));
        assert_eq!(a.route(ip_of(of, 77)), Some(NextHop::Subnet { vn: here, ask: false }));
        assert_eq!(a.tables.subnets[&(here, subnet(of).prefix)], ip_of(of, 254));
        let routing = a.tables.routing[&here];
        assert_eq!((routing.mac, routing.routed_only), (GATEWAY_MAC, false));
        for ip in [ip_of(of, 254), GATEWAY_MAC.link_local().into()] {
            assert_eq!(a.tables.neighbors[&(here, ip)], Some(GATEWAY_MAC), "{ip}");
            assert!(a.tables.routers.contains(&(here, ip)), "{ip}");
        }
    }
    let (v4, v6) = a.tables.domains.values().next().unwrap();
    assert_eq!((v4[0], v4[1], v6[0]), (24, NO_LENGTH, NO_LENGTH));
    // No port of VN 1 is at A: it neither sends copies nor gets any.
    assert!(lab.hosts.iter().all(|h| h.tables.replicas.is_empty()));
}

#[test]
fn r58_a_vn_with_a_port_gets_copies_and_without_one_only_its_routes_stay() {
    let mut lab = two();
    lab.run_vm_of(A, 1, 3);
    assert_eq!(lingers(&lab, A, 1), [true, false]);
    let copies = |lab: &Lab, i: usize, of: u32| {
        let vn = lab.hosts[i].vn(of).unwrap();
        lab.hosts[i].tables.replicas.iter().filter(|(v, _)| *v == vn).count()
    };
    assert_eq!((copies(&lab, A, 1), copies(&lab, B, 1)), (1, 1));
    lab.remove_port(A, 3);
    lab.pass(60_000);
    assert_eq!(lingers(&lab, A, 1), [true, false, true]);
    assert_eq!((copies(&lab, A, 1), copies(&lab, B, 1)), (0, 0));
    assert!(matches!(lab.hosts[A].route(ip_of(1, 2)), Some(NextHop::Vm(_))));
}

#[test]
fn r58_with_the_last_port_all_vns_of_the_domain_go() {
    let mut lab = two();
    lab.remove_port(A, 1);
    lab.pass(60_000);
    assert_eq!(subscribed(&lab, A), [0; 0]);
    assert!(lab.hosts[A].tables.vns.is_empty() && lab.hosts[A].routes_nothing());
    assert!(lab.hosts[A].tables.neighbors.is_empty());
    // Numbers are given out again.
    lab.run_vm_of(A, 1, 4);
    assert_eq!(subscribed(&lab, A), [0, 1]);
    assert_eq!(lab.hosts[A].tables.domains.keys().copied().collect::<Vec<_>>(), [DomainIdx(0)]);
}

#[test]
fn r58_the_domain_may_come_before_or_after_the_settings_of_its_vns() {
    for domain_first in [true, false] {
        let mut lab = Lab::new(1);
        lab.nva.define(vm_of(0, 1), ip_of(0, 1));
        lab.add_port_of(A, 0, 1);
        let said = lab.nva.set_domain(DOMAIN, &[0, 1]);
        let end = said.into_iter().find(|(_, m)| matches!(m, NvaToNve::End { .. })).unwrap().1;
        let (domain, _) = lab.nva.domains[&DOMAIN].clone();
        let domain = NvaToNve::Domain { domain, reset: true };
        let (first, second) = if domain_first { (domain, end) } else { (end, domain) };
        lab.nva.told.insert((A, DOMAIN));
        lab.input(A, Input::Nva(first));
        assert!(lab.hosts[A].routes_nothing(), "half of it is nothing");
        lab.input(A, Input::Nva(second));
        lab.settle();
        assert_eq!(subscribed(&lab, A), [0, 1], "domain first: {domain_first}");
        assert_eq!(lab.hosts[A].tables.routing.len(), 2);
    }
}

#[test]
fn r58_vns_join_a_domain_and_leave_it_while_traffic_runs() {
    let mut lab = two();
    lab.nva.define(vm_of(2, 5), ip_of(2, 5));
    lab.run_vm_of(B, 2, 5);
    assert_eq!(lab.hosts[A].route(ip_of(2, 5)), None);
    lab.join(&[0, 1, 2]);
    assert_eq!(subscribed(&lab, A), [0, 1, 2]);
    assert_eq!(lab.hosts[A].route(ip_of(2, 5)), Some(NextHop::Vm(lab.hosts[A].key(2, 5))));
    let before = lab.hosts[A].updates.len();
    lab.join(&[0, 2]);
    assert_eq!((subscribed(&lab, A), subscribed(&lab, B)), (vec![0, 2], vec![0, 1, 2]));
    assert_eq!(lab.hosts[A].route(ip_of(1, 2)), None);
    // VN 1 is bridged only at B, whose VM 5 keeps what it had.
    let b = &lab.hosts[B];
    assert_eq!(b.tables.routing.keys().copied().collect::<Vec<_>>(), [b.vn(0), b.vn(2)].map(Option::unwrap));
    assert_eq!(b.tables.neighbors.get(&(b.vn(1).unwrap(), ip_of(1, 254))), None);
    assert_eq!(b.tables.neighbors[&(b.vn(1).unwrap(), ip_of(1, 2))], Some(mac(2)));
    let ours = |prefix: &Prefix| subnet(1).prefix.contains(prefix.addr());
    let others = |u: &&Update| matches!(u, Update::RouteRemove { prefix, .. } if !ours(prefix));
    assert_eq!(lab.hosts[A].updates[before..].iter().find(others), None, "no other route went");
}

#[test]
fn r58_a_vn_changes_its_domain() {
    let other = DomainId(8);
    let mut lab = two();
    lab.run_vm_of(A, 2, 5);
    let said = lab.nva.set_domain(other, &[2]);
    lab.deliver(said);
    assert_eq!(lab.hosts[A].tables.domains.len(), 2);
    let domain_of = |lab: &Lab, of: u32| lab.hosts[A].tables.routing[&lab.hosts[A].vn(of).unwrap()].domain;
    let (first, second) = (domain_of(&lab, 0), domain_of(&lab, 2));
    assert_ne!(first, second);
    assert_eq!(lab.hosts[A].route_in(second, ip_of(1, 2)), None, "another domain's");
    assert_eq!(lab.hosts[A].route_in(first, ip_of(2, 5)), None);
    lab.nva.domains.get_mut(&DOMAIN).unwrap().0.vns = vec![vn(0)];
    let said = lab.nva.set_domain(other, &[1, 2]);
    lab.deliver(said);
    assert_eq!(domain_of(&lab, 1), second);
    assert_eq!(lab.hosts[A].route_in(first, ip_of(1, 2)), None);
    assert_eq!(lab.hosts[A].route_in(second, ip_of(1, 2)), Some(NextHop::Vm(lab.hosts[A].key(1, 2))));
}

#[test]
fn r58_nothing_of_a_deleted_domain_is_left() {
    let mut lab = two();
    let said = lab.nva.remove_domain(DOMAIN);
    lab.deliver(said);
    assert_eq!(subscribed(&lab, A), [0]);
    for h in &lab.hosts {
        assert!(h.routes_nothing());
        assert!(!h.tables.neighbors.values().any(|owner| *owner == Some(GATEWAY_MAC)));
    }
    assert_eq!(lab.hosts[A].tables.neighbors.len(), 1, "VM 1 stays");
}

#[test]
fn r58_without_the_nva_routing_goes_on_and_its_return_changes_nothing() {
    let mut lab = two();
    lab.disconnect(A);
    lab.pass(5_000);
    let before = lab.hosts[A].updates.len();
    lab.connect(A);
    lab.settle();
    assert_eq!((subscribed(&lab, A), lingers(&lab, A, 1)), (vec![0, 1], vec![true, true]));
    let of_routing = |u: &&Update| {
        matches!(
            u,
            Update::RouteRemove { .. }
                | Update::RouteSet { .. }
                | Update::DomainSet { .. }
                | Update::VnRoutingSet { .. }
        )
    };
    assert_eq!(lab.hosts[A].updates[before..].iter().find(of_routing), None);
    assert!(matches!(lab.hosts[A].route(ip_of(1, 2)), Some(NextHop::Vm(_))));
}

#[test]
fn r58_routes_that_are_told_anew_in_parts_do_not_go_meanwhile() {
    let mut lab = two();
    for (net, n) in [("203.0.113.0/24", 1), ("198.51.100.0/24", 1), ("192.0.2.0/24", 1)] {
        let said = lab.nva.set_route(DOMAIN, prefix(net), Some(vm_of(0, n)));
        lab.deliver(said);
    }
    lab.disconnect(A);
    let (domain, routes) = lab.nva.domains[&DOMAIN].clone();
    lab.nva.told.insert((A, DOMAIN));
    let before = lab.hosts[A].updates.len();
    lab.hosts[A].connected = true;
    lab.input(A, Input::NvaConnected);
    lab.nva_hears(A);
    lab.nve_hears(A);
    lab.input(A, Input::Nva(NvaToNve::Domain { domain, reset: true }));
    for part in routes[..2].chunks(1) {
        let (id, routes) = (DOMAIN, part.to_vec());
        lab.input(A, Input::Nva(NvaToNve::DomainRoutes { id, routes, gone: Vec::new() }));
    }
    let gone = |lab: &Lab| {
        let gone = |u: &&Update| matches!(u, Update::RouteRemove { .. });
        lab.hosts[A].updates[before..].iter().filter(gone).count()
    };
    assert_eq!(gone(&lab), 0);
    // With a VN's End all were told: the third is gone.
    lab.settle();
    assert_eq!(gone(&lab), 1);
    assert_eq!(lab.hosts[A].route("192.0.2.1".parse().unwrap()), None);
    assert_eq!(
        lab.hosts[A].route("198.51.100.1".parse().unwrap()),
        Some(NextHop::Vm(lab.hosts[A].key(0, 1)))
    );
}

#[test]
fn r58_a_domain_that_was_deleted_while_the_nva_was_away_is_gone_after_its_return() {
    let mut lab = two();
    lab.disconnect(A);
    // It has nothing to say any more, not even that the domain is gone.
    lab.nva.remove_domain(DOMAIN);
    lab.connect(A);
    lab.settle();
    assert!(lab.hosts[A].routes_nothing());
    assert_eq!(subscribed(&lab, A), [0]);
}

#[test]
fn r58_the_gateway_owns_its_addresses_whatever_a_record_says() {
    let mut lab = two();
    let taken = vm_of(0, 9);
    lab.nva.define(taken, ip_of(0, 254));
    let record = lab.nva.records.get_mut(&taken).unwrap();
    record.bindings = Some(crate::lab::location(2)).into();
    let record = Change::Vm(record.clone());
    let said = lab.nva.news(vn(0), &record, None);
    lab.deliver(said);
    let a = &lab.hosts[A];
    let here = a.vn(0).unwrap();
    assert_eq!(a.tables.neighbors[&(here, ip_of(0, 254))], Some(GATEWAY_MAC));
    assert_eq!(a.route(ip_of(0, 254)), Some(NextHop::Gateway(here)));
    // The router of before is this VM: its hosts are not told of a change of owner.
    let said = lab.nva.remove_domain(DOMAIN);
    lab.deliver(said);
    assert_eq!(lab.hosts[A].tables.neighbors[&(here, ip_of(0, 254))], Some(mac(9)));
    lab.pass(1_000);
    let before = lab.hosts[A].frames.len();
    lab.join(&[0, 1]);
    lab.pass(1_000);
    assert_eq!(lab.hosts[A].tables.neighbors[&(here, ip_of(0, 254))], Some(GATEWAY_MAC));
    let told = lab.hosts[A].frames[before..].iter().filter(|(port, _)| *port == PortIdx(1)).count();
    assert_eq!(told, 0);
}

#[test]
fn r24_r58_vms_that_are_not_bridged_know_no_other_mac_and_are_told_of_none() {
    for routed_only in [true, false] {
        let mut lab = two();
        lab.nva.routing.insert(vn(0), VnRouting { routed_only, ..part(0) });
        let said = lab.nva.say_settings();
        lab.deliver(said);
        let before = lab.hosts[A].frames.len();
        // The address goes from one VM to another.
        for n in [5, 6] {
            let key = vm_of(0, n);
            lab.nva.define(key, ip_of(0, 5));
            let record = lab.nva.records.get_mut(&key).unwrap();
            record.bindings = Some(crate::lab::location(2)).into();
            let said = lab.nva.news(vn(0), &Change::Vm(lab.nva.records[&key].clone()), None);
            lab.deliver(said);
        }
        lab.pass(1_000);
        let told = lab.hosts[A].frames[before..].iter().filter(|(port, _)| *port == PortIdx(1)).count();
        assert_eq!(told, usize::from(!routed_only));
        assert_eq!(lab.hosts[A].route(ip_of(0, 5)), Some(NextHop::Vm(lab.hosts[A].key(0, 6))));
    }
}

#[test]
fn r58_only_addresses_of_the_vns_subnets_are_routed_to() {
    let mut lab = two();
    let key = vm_of(1, 2);
    let mut record = lab.nva.records[&key].clone();
    let stranger = ip_of(0, 66);
    let link_local = "fe80::66".parse().unwrap();
    record.ipv4.push(match stranger {
        std::net::IpAddr::V4(ip) => ip,
        std::net::IpAddr::V6(_) => unreachable!(),
    });
    record.ipv6.push(link_local);
    record.version.seq += 1;
    let said = lab.nva.news(vn(1), &Change::Vm(record), None);
    lab.deliver(said);
    let a = &lab.hosts[A];
    assert_eq!(a.route(stranger), Some(NextHop::Subnet { vn: a.vn(0).unwrap(), ask: false }));
    assert_eq!(a.route(link_local.into()), None);
    assert_eq!(a.tables.neighbors[&(a.vn(1).unwrap(), stranger)], Some(mac(2)), "bridged it is answered for");
}

#[test]
fn r58_subnets_come_and_go_while_traffic_runs() {
    let mut lab = two();
    let wider = |lab: &mut Lab, subnets| {
        lab.nva.routing.insert(vn(1), VnRouting { subnets, ..part(1) });
        let said = lab.nva.say_settings();
        lab.deliver(said);
    };
    let mut more = subnet(1);
    more.prefix = prefix("2001:db8:1::/64");
    more.gateway = "2001:db8:1::1".parse().unwrap();
    wider(&mut lab, vec![subnet(1), more.clone()]);
    let here = lab.hosts[A].vn(1).unwrap();
    let unknown = "2001:db8:1::77".parse().unwrap();
    assert_eq!(lab.hosts[A].route(unknown), Some(NextHop::Subnet { vn: here, ask: false }));
    assert_eq!(lab.hosts[A].route(more.gateway), Some(NextHop::Gateway(here)));
    assert_eq!(lab.hosts[A].tables.domains[&DomainIdx(0)].1[0], 64);
    // Another gateway, and the other subnet goes with what was in it.
    more.gateway = "2001:db8:1::2".parse().unwrap();
    wider(&mut lab, vec![more.clone()]);
    let a = &lab.hosts[A];
    assert_eq!(a.route("2001:db8:1::1".parse().unwrap()), Some(NextHop::Subnet { vn: here, ask: false }));
    assert_eq!(a.tables.neighbors.get(&(here, "2001:db8:1::1".parse().unwrap())), None);
    assert_eq!(a.tables.neighbors[&(here, more.gateway)], Some(GATEWAY_MAC));
    assert_eq!(a.route(ip_of(1, 2)), None);
    wider(&mut lab, vec![subnet(1)]);
    assert_eq!(lab.hosts[A].route(ip_of(1, 2)), Some(NextHop::Vm(lab.hosts[A].key(1, 2))));
    assert_eq!(lab.hosts[A].route(unknown), None);
}

#[test]
fn r58_a_static_route_leads_to_its_vm_wherever_that_is() {
    let mut lab = two();
    let to = prefix("203.0.113.0/24");
    let set = |lab: &mut Lab, via| {
        let said = lab.nva.set_route(DOMAIN, to, via);
        lab.deliver(said);
    };
    let packet = "203.0.113.5".parse().unwrap();
    set(&mut lab, Some(vm_of(1, 2)));
    assert_eq!(lab.hosts[A].route(packet), Some(NextHop::Vm(lab.hosts[A].key(1, 2))));
    let before = lab.hosts[A].updates.len();
    set(&mut lab, Some(vm_of(0, 1)));
    assert_eq!(lab.hosts[A].route(packet), Some(NextHop::Vm(lab.hosts[A].key(0, 1))));
    let gap = |u: &&Update| matches!(u, Update::RouteRemove { .. });
    assert_eq!(lab.hosts[A].updates[before..].iter().find(gap), None, "never without a route");
    set(&mut lab, None);
    assert_eq!(lab.hosts[A].route(packet), None);
    // Of a VN that is in no domain, or another one.
    set(&mut lab, Some(vm_of(2, 5)));
    lab.run_vm_of(A, 2, 5);
    assert_eq!(lab.hosts[A].route(packet), None);
    lab.join(&[0, 1, 2]);
    assert_eq!(lab.hosts[A].route(packet), Some(NextHop::Vm(lab.hosts[A].key(2, 5))));
}

#[test]
fn r58_a_move_changes_no_route() {
    let mut lab = two();
    let before = lab.hosts[A].updates.len();
    let key = vm_of(1, 2);
    lab.nva.order_move("m", key);
    lab.add_port_of(A, 1, 2);
    lab.announce_of(A, 1, 2);
    assert_eq!(lab.nva.records[&key].active().map(|l| l.nve.clone()), Some(crate::lab::nve_id(A)));
    let of_routes = |u: &&Update| matches!(u, Update::RouteSet { .. } | Update::RouteRemove { .. });
    assert_eq!(lab.hosts[A].updates[before..].iter().find(of_routes), None);
    assert_eq!(lab.hosts[A].route(ip_of(1, 2)), Some(NextHop::Vm(lab.hosts[A].key(1, 2))));
}

#[test]
fn r58_a_vm_that_is_gone_has_no_route() {
    let mut lab = two();
    lab.remove_port(B, 2);
    lab.pass(60_000);
    let a = &lab.hosts[A];
    assert_eq!(a.route(ip_of(1, 2)), Some(NextHop::Subnet { vn: a.vn(1).unwrap(), ask: false }));
}

#[test]
fn r58_what_control_answers_in_a_vn_follows_its_subnets() {
    use godwit_model::{Advertise, Dhcp};
    let mut lab = two();
    let mut v6 = subnet(1);
    (v6.prefix, v6.gateway) = (prefix("2001:db8:1::/64"), "2001:db8:1::1".parse().unwrap());
    v6.advertise = Some(Advertise { managed: true, other: false, lifetime_s: 1800 });
    let mut v4 = subnet(1);
    v4.dhcp = Some(Dhcp { lease_s: 600, dns: Vec::new() });
    lab.nva.routing.insert(vn(1), VnRouting { routed_only: true, subnets: vec![v4, v6], ..part(1) });
    let said = lab.nva.say_settings();
    lab.deliver(said);
    let r = lab.hosts[B].tables.routing[&lab.hosts[B].vn(1).unwrap()];
    assert_eq!((r.routed_only, r.dhcp_v4, r.dhcp_v6, r.advertise), (true, true, false, true));
}

#[test]
fn r27_r58_a_vm_that_asks_for_its_address_hears_of_the_gateway_of_its_subnet() {
    use godwit_tables::event::AnnounceKind;
    use godwit_wire::arp::Arp;
    use godwit_wire::ethernet;
    let mut lab = Lab::new(1);
    lab.nva.settings = VnSettings { rarp: true, ..VnSettings::default() };
    lab.join(&[0, 1]);
    lab.run_vm_of(A, 0, 1);
    lab.event(A, Event::Announce { port: PortIdx(1), kind: AnnounceKind::Rarp, mac: mac(1), ip: None });
    lab.settle();
    let (_, reply) = lab.hosts[A].frames.iter().rfind(|(port, _)| *port == PortIdx(1)).unwrap();
    let arp = Arp::new_checked(&reply[ethernet::HEADER_LEN..]).unwrap();
    assert_eq!(reply[6..12], GATEWAY_MAC.0);
    assert_eq!((arp.sha(), arp.spa().into()), (GATEWAY_MAC, ip_of(0, 254)));
    assert_ne!(arp.sha(), Mac::PROBER);
}
