//! Routes of domains at workers and for operators, and what a move needs of them (R58).

use std::net::IpAddr;

use crate::lab::domains::{DOMAIN, ip_of, prefix, vm_of, vn};
use crate::lab::said::{A, B};
use crate::lab::{Lab, mac, nve_id, worker};
use crate::routing::{subscribed, two};
use godwit_control::view::DomainRouteView;
use godwit_control::{Input, Outputs, PortSpec, WorkerSet};
use godwit_model::MoveStepKind;
use godwit_model::message::NveToNva;
use godwit_tables::event::Event;
use godwit_tables::update::{DomainIdx, NextHop, PortIdx, Update};
use godwit_wire::Prefix;

/// What a VM is to send to may be in VNs that this NVE has dropped with the last port of their domain.
#[test]
fn r42_r58_an_nve_that_left_a_domain_is_prepared_for_a_move_when_it_has_the_domains_records_again() {
    let mut lab = two();
    let prepared = |lab: &Lab| {
        let of = |m: &&NveToNva| match m {
            NveToNva::MoveReport { step: Some(step), .. } => step.what == MoveStepKind::Prepared,
            _ => false,
        };
        lab.hosts[A].said.iter().filter(of).count()
    };
    lab.order_move("there", 1, A, B);
    lab.settle();
    lab.add_port_of(B, 0, 1);
    lab.announce_of(B, 0, 1);
    assert_eq!(prepared(&lab), 1, "of the old NVE: it has the records still");
    lab.remove_port(A, 1);
    // It sends on what still comes for the VM, and so keeps its VN, but not the others of the domain.
    assert_eq!(subscribed(&lab, A), [0]);
    lab.order_move("back", 1, B, A);
    lab.settle();
    lab.input(
        A,
        Input::PortAdded {
            port: PortIdx(1),
            name: "vm1".into(),
            spec: PortSpec::Access { vni: vn(0), mac: mac(1), explicit_activation: false },
            workers: WorkerSet::first(1),
        },
    );
    assert_eq!(prepared(&lab), 1, "the records of VN 1 are on their way");
    lab.settle();
    assert_eq!(subscribed(&lab, A), [0, 1]);
    assert_eq!(prepared(&lab), 2);
    assert_eq!(lab.hosts[A].route(ip_of(1, 2)), Some(NextHop::Vm(lab.hosts[A].key(1, 2))));
}

#[test]
fn r13_r58_a_route_that_found_no_room_is_told_again_when_there_is_some() {
    const NOTHING: [IpAddr; 0] = [];
    let mut lab = two();
    let domain = *lab.hosts[A].tables.domains.keys().next().unwrap();
    let full = |ip| Event::RouteFull { domain, prefix: Prefix::host(ip) };
    // What a worker is told when it has room for one route.
    let told = |lab: &mut Lab| -> Vec<IpAddr> {
        let before = lab.hosts[A].updates.len();
        lab.event(A, Event::RouteRoom);
        let of = |u: &Update| match *u {
            Update::RouteSet { prefix, .. } => prefix.addr(),
            ref other => panic!("{other:?}"),
        };
        lab.hosts[A].updates[before..].iter().map(of).collect()
    };
    assert_eq!(told(&mut lab), NOTHING, "nothing was refused");
    lab.run_vm_of(B, 1, 3);
    let alarms = lab.hosts[A].alarms();
    for n in [2, 3] {
        lab.event(A, full(ip_of(1, n)));
    }
    assert_eq!(lab.hosts[A].alarms(), alarms + 1, "one alarm a second");
    let text = &lab.hosts[A].notes.last().unwrap().text;
    assert!(text.contains("10.1.1.2/32 of routing domain d7") || text.contains("10.1.1.2 of"), "{text}");
    assert_eq!(told(&mut lab), [ip_of(1, 2)], "one for each that went");
    // The other one is not there any more; a stranger's never was.
    lab.remove_port(B, 3);
    lab.pass(60_000);
    lab.event(A, full("203.0.113.9".parse().unwrap()));
    lab.event(A, Event::RouteFull { domain: DomainIdx(99), prefix: Prefix::host(ip_of(1, 2)) });
    assert_eq!(told(&mut lab), NOTHING);
    // A worker that begins anew is told everything.
    lab.event(A, full(ip_of(1, 2)));
    lab.hosts[A].tables = worker::Tables::default();
    lab.input(A, Input::WorkerLeft { worker: 0 });
    lab.input(A, Input::WorkerJoined { worker: 0 });
    assert_eq!(told(&mut lab), NOTHING);
}

#[test]
fn r58_an_operator_sees_the_domains_that_a_switch_has_a_part_in() {
    let mut lab = two();
    let said = lab.nva.set_route(DOMAIN, prefix("203.0.113.0/24"), Some(vm_of(1, 2)));
    lab.deliver(said);
    let views = lab.hosts[A].nve.domains();
    assert_eq!(views.len(), 1);
    assert_eq!((views[0].name.as_str(), &views[0].vns[..]), ("d7", &[vn(0), vn(1)][..]));
    assert_eq!(views[0].routed_to, [vn(1)]);
    assert_eq!((views[0].host_routes, views[0].prefixes), (4, 3), "two VMs and two gateways");
    let shown = |hosts, most| {
        let (all, more) = lab.hosts[A].nve.domain_routes(Some("d7"), hosts, most);
        let line = |r: &DomainRouteView| {
            let via = r.via.iter().map(|(key, name, nve)| format!(" {} {name} {nve:?}", key.mac));
            format!("{} {} {}{}", r.prefix, r.kind, r.vni.get() - vn(0).get(), via.collect::<String>())
        };
        (all.iter().flat_map(|d| &d.routes).map(line).collect::<Vec<_>>(), more)
    };
    let via = |n: u8, at: usize| format!("{} vm{n} Some({:?})", mac(n), nve_id(at));
    let fixed = format!("203.0.113.0/24 static 1 {}", via(2, B));
    let subnets = ["10.1.0.0/24 subnet 0", "10.1.1.0/24 subnet 1", &fixed];
    assert_eq!(shown(false, 9), (subnets.map(String::from).to_vec(), false));
    assert_eq!(shown(false, 2), (subnets[..2].iter().map(|s| (*s).into()).collect(), true));
    let (all, more) = shown(true, 9);
    assert!(all.contains(&format!("10.1.1.2 vm 1 {}", via(2, B))), "{all:?}");
    assert!(all.contains(&"10.1.0.254 gateway 0".into()) && all.len() == 7 && !more, "{all:?}");
    assert_eq!(lab.hosts[A].nve.domain_routes(Some("d8"), true, 9), (vec![], false));
    lab.remove_port(A, 1);
    lab.pass(60_000);
    assert!(lab.hosts[A].nve.domains().is_empty());
}

#[test]
fn r58_a_new_worker_is_told_of_routing_in_order() {
    let mut lab = two();
    let said = lab.nva.set_route(DOMAIN, prefix("203.0.113.0/24"), Some(vm_of(1, 2)));
    lab.deliver(said);
    let mut out = Outputs::default();
    let now = lab.now;
    lab.hosts[A].nve.handle(now, 0, Input::WorkerJoined { worker: 1 }, &mut out);
    let mut fresh = worker::Tables::default();
    let told = out.updates.iter().filter(|(worker, _)| *worker == 1);
    let told: Vec<Update> = told.map(|(_, update)| *update).collect();
    told.iter().for_each(|update| fresh.apply_checked(*update));
    let old = &lab.hosts[A].tables;
    assert_eq!((&fresh.domains, &fresh.routing), (&old.domains, &old.routing));
    assert_eq!((&fresh.subnets, &fresh.routes), (&old.subnets, &old.routes));
    assert_eq!((&fresh.neighbors, &fresh.routers), (&old.neighbors, &old.routers));
    let last_route = told.iter().rposition(|u| matches!(u, Update::RouteSet { .. })).unwrap();
    let first_part = told.iter().position(|u| matches!(u, Update::VnRoutingSet { .. })).unwrap();
    assert!(last_route < first_part, "nothing is routed before all routes are there");
}
