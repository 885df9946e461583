//! What the configuration file says of VMs is good without an NVA, until the NVA knows better.

use crate::lab::said::{A, B, claims, is_remote_to};
use crate::lab::{Lab, PORT, key, location, mac, vm_ip, vni};
use godwit_control::Input;
use godwit_tables::update::VmState;

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
