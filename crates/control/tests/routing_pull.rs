//! Routed VNs in pull mode: what is asked for, and how long it counts (R34, R36, R40, R58).

use crate::lab::Lab;
use crate::lab::domains::{DOMAIN, ip_of, prefix, vm_of, vn};
use crate::lab::said::{A, B};
use godwit_model::message::{NveToNva, QueryBy};
use godwit_tables::event::Event;
use godwit_tables::update::{NextHop, PortIdx, VmState};

/// VM 1 in VN 0 at A, VM 2 in VN 1 at B, one domain; both NVEs pull VN 1.
fn two() -> Lab {
    let mut lab = Lab::with(2, |c| {
        c.pull.insert(vn(1));
    });
    lab.join(&[0, 1]);
    lab.run_vm_of(A, 0, 1);
    lab.run_vm_of(B, 1, 2);
    lab
}

/// A packet of VM 1 at A for VM `n` of VN 1: what its worker makes of it.
fn send(lab: &mut Lab, n: u8) {
    match lab.hosts[A].route(ip_of(1, n)) {
        Some(NextHop::Subnet { vn, ask: true }) => {
            lab.event(A, Event::MissIp { vn, ip: ip_of(1, n), port: PortIdx(1) });
        }
        Some(NextHop::Vm(key)) => match lab.hosts[A].tables.vms.get(&key).copied() {
            None => lab.event(A, Event::MissMac { key, port: PortIdx(1) }),
            Some(VmState::Ageing { to }) => {
                lab.hosts[A].tables.vms.insert(key, VmState::Remote { to });
                lab.event(A, Event::InUse { key });
            }
            Some(_) => {}
        },
        other => panic!("{other:?}"),
    }
    lab.pass(0);
    lab.settle();
}

fn questions(lab: &Lab) -> usize {
    let about = |m: &&NveToNva| matches!(m, NveToNva::Query { vni, .. } if *vni == vn(1));
    lab.hosts[A].said.iter().filter(about).count()
}

fn leads_to_b(lab: &Lab) -> bool {
    let a = &lab.hosts[A];
    let Some(NextHop::Vm(key)) = a.route(ip_of(1, 2)) else { return false };
    let to = a.tables.vms.get(&key).and_then(|state| state.target());
    to.is_some_and(|to| to.vni == vn(1) && a.tables.tunnels[&to.tunnel].0 == crate::lab::locator(B))
}

#[test]
fn r34_r58_an_address_of_another_vn_is_asked_for_and_routed_to() {
    let mut lab = two();
    assert!(!leads_to_b(&lab), "nobody asked");
    send(&mut lab, 2);
    let by_ip = |m: &NveToNva| matches!(m, NveToNva::Query { by: QueryBy::Ip(ip), .. } if *ip == ip_of(1, 2));
    assert!(lab.hosts[A].said.iter().any(by_ip));
    assert!(leads_to_b(&lab));
}

#[test]
fn r36_r58_an_address_that_nobody_has_is_absent_for_a_while() {
    let mut lab = two();
    send(&mut lab, 99);
    let here = lab.hosts[A].vn(1).unwrap();
    assert!(lab.hosts[A].tables.absent_ips.contains_key(&(here, ip_of(1, 99))));
    assert_eq!(lab.hosts[A].route(ip_of(1, 99)), Some(NextHop::Subnet { vn: here, ask: true }));
}

#[test]
fn r40_r58_routed_packets_keep_a_pulled_record_alive() {
    let mut lab = two();
    send(&mut lab, 2);
    for _ in 0..60 {
        lab.pass(2_000);
        send(&mut lab, 2);
        assert!(leads_to_b(&lab));
    }
    assert!((3..12).contains(&questions(&lab)), "{}", questions(&lab));
    // What nobody sends to is forgotten, with its route.
    lab.pass(40_000);
    let here = lab.hosts[A].vn(1).unwrap();
    assert_eq!(lab.hosts[A].route(ip_of(1, 2)), Some(NextHop::Subnet { vn: here, ask: true }));
    assert_eq!(lab.hosts[A].tables.neighbors.get(&(here, ip_of(1, 2))), None);
}

#[test]
fn r58_a_worker_that_missed_the_answer_is_told_again() {
    let mut lab = two();
    send(&mut lab, 2);
    let asked = questions(&lab);
    let a = &mut lab.hosts[A];
    let (here, route) = (a.vn(1).unwrap(), a.route(ip_of(1, 2)));
    a.tables.routes.retain(|(_, p), _| *p != godwit_wire::Prefix::host(ip_of(1, 2)));
    lab.event(A, Event::MissIp { vn: here, ip: ip_of(1, 2), port: PortIdx(1) });
    assert_eq!(lab.hosts[A].route(ip_of(1, 2)), route);
    assert_eq!(questions(&lab), asked);
}

#[test]
fn r58_the_next_hop_of_a_static_route_is_asked_for() {
    let mut lab = two();
    let said = lab.nva.set_route(DOMAIN, prefix("203.0.113.0/24"), Some(vm_of(1, 2)));
    lab.deliver(said);
    let key = lab.hosts[A].key(1, 2);
    assert_eq!(lab.hosts[A].route("203.0.113.9".parse().unwrap()), Some(NextHop::Vm(key)));
    assert_eq!(lab.hosts[A].tables.vms.get(&key), None);
    lab.event(A, Event::MissMac { key, port: PortIdx(1) });
    lab.pass(0);
    lab.settle();
    assert!(lab.hosts[A].tables.vms[&key].target().is_some_and(|to| to.vni == vn(1)));
}
