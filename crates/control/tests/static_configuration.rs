//! What the configuration file says of VMs is good without an NVA, until the NVA knows better.

use crate::lab::domains::{DOMAIN, ip_of, part, prefix, vm_of, vn};
use crate::lab::said::{A, B, claims, is_remote_to};
use crate::lab::{Lab, PORT, key, location, mac, vm_ip, vni};
use godwit_control::Input;
use godwit_model::{Domain, GATEWAY_MAC, StaticRoute};
use godwit_tables::update::{NextHop, VmState};

#[test]
fn static_locations_serve_without_an_nva() {
    let mut lab = Lab::new(1);
    lab.disconnect(A);
    let here = location(B);
    lab.input(
        A,
        Input::StaticVm { vni: vni(), mac: mac(2), location: here, ips: vec![vm_ip(2)], router: false },
    );
    lab.input(A, Input::StaticNeighbor { vni: vni(), ip: vm_ip(7), mac: mac(7), router: true });
    assert_eq!(lab.hosts[A].state(2), None, "no VN yet");
    lab.add_port(A, PORT, 1);
    assert!(is_remote_to(&lab, A, 2, B));
    assert_eq!(lab.hosts[A].tables.replicas.len(), 1);
    let vn = key(1).vn();
    assert_eq!(lab.hosts[A].tables.neighbors[&(vn, vm_ip(2))], Some(mac(2)));
    assert_eq!(lab.hosts[A].tables.neighbors[&(vn, vm_ip(7))], Some(mac(7)));
    lab.announce(A, PORT, 1);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    // The NVA's word replaces the file's, and its snapshot does not sweep it.
    lab.connect(A);
    lab.settle();
    assert!(is_remote_to(&lab, A, 2, B));
}

#[test]
fn vms_behind_a_port_are_there_without_an_nva_and_go_with_the_port() {
    let mut lab = Lab::new(2);
    lab.add_port(A, PORT, 1);
    let behind = |n| Input::VmBehindPort { port: PORT, mac: mac(n), ips: vec![vm_ip(n)] };
    lab.input(A, behind(2));
    lab.input(A, behind(3));
    assert_eq!(lab.hosts[A].state(2), Some(VmState::Local { port: PORT }));
    let vn = key(1).vn();
    assert_eq!(lab.hosts[A].tables.neighbors[&(vn, vm_ip(2))], Some(mac(2)));
    assert!(claims(&lab, A).is_empty(), "nobody else is told");
    // The NVA knows better.
    lab.run_vm(B, 3);
    lab.settle();
    assert!(is_remote_to(&lab, A, 3, B));
    lab.input(A, Input::PortRemoved { port: PORT });
    assert_eq!(lab.hosts[A].state(2), None);
    assert_eq!(lab.hosts[A].tables.neighbors.get(&(vn, vm_ip(2))), None);
}

#[test]
fn r58_a_static_domain_routes_to_static_vms_without_an_nva() {
    let mut lab = Lab::new(2);
    lab.disconnect(A);
    let (vns, net) = (vec![vn(0), vn(1)], prefix("192.0.2.0/24"));
    let domain = Domain { id: DOMAIN, name: String::from("d"), gateway_mac: GATEWAY_MAC, vns: vns.clone() };
    let parts: Vec<_> = vns.iter().zip(0..).map(|(vni, of)| (*vni, part(of))).collect();
    let route = StaticRoute { prefix: net, via: vm_of(1, 2) };
    lab.input(A, Input::StaticDomain { domain: domain.clone(), vns: parts.clone(), routes: vec![route] });
    let there = |n: u8| Input::StaticVm {
        vni: vn(1),
        mac: mac(n),
        location: location(B),
        ips: vec![ip_of(1, n)],
        router: false,
    };
    lab.input(A, there(2));
    lab.input(A, Input::StaticNeighbor { vni: vn(0), ip: ip_of(0, 1), mac: mac(1), router: false });
    assert!(lab.hosts[A].routes_nothing(), "no port yet");
    for _ in 0..2 {
        lab.add_port_of(A, 0, 1);
        let a = &lab.hosts[A];
        assert_eq!(a.route(ip_of(1, 2)), Some(NextHop::Vm(a.key(1, 2))), "a VM of the other VN");
        assert_eq!(a.route(ip_of(0, 1)), Some(NextHop::Vm(a.key(0, 1))), "the port's own");
        assert_eq!(a.route("192.0.2.9".parse().unwrap()), Some(NextHop::Vm(a.key(1, 2))));
        for of in [0, 1] {
            let here = a.vn(of).unwrap();
            assert_eq!(a.route(ip_of(of, 254)), Some(NextHop::Gateway(here)));
            assert_eq!(a.route(ip_of(of, 77)), Some(NextHop::Subnet { vn: here, ask: false }));
            assert_eq!(a.tables.neighbors[&(here, ip_of(of, 254))], Some(GATEWAY_MAC));
        }
        // One that comes later, and routes that change.
        lab.input(A, there(3));
        let a = &lab.hosts[A];
        assert_eq!(a.route(ip_of(1, 3)), Some(NextHop::Vm(a.key(1, 3))));
        lab.remove_port(A, 1);
        lab.pass(60_000);
        assert!(
            lab.hosts[A].routes_nothing(),
            "the domain goes with its last port, and comes back with the next"
        );
    }
    lab.add_port_of(A, 0, 1);
    lab.input(A, Input::StaticDomain { domain, vns: parts, routes: Vec::new() });
    assert_eq!(lab.hosts[A].route("192.0.2.9".parse().unwrap()), None, "the routes are replaced");
}
