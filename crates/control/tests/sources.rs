//! The addresses that a port's VM may send from (R65).

use crate::lab::*;
use godwit_control::{Input, PortSpec, WorkerSet};
use godwit_model::message::NvaToNve;
use godwit_tables::event::{Event, Refused};

const A: usize = 0;

#[test]
fn r65_a_port_is_bound_to_what_the_directory_has_of_its_vm() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    assert_eq!(lab.hosts[A].tables.sources, [(PORT, vm_ip(1))].into());
    lab.input(A, Input::PortRemoved { port: PORT });
    assert!(lab.hosts[A].tables.sources.is_empty());
}

#[test]
fn r65_without_a_directory_the_configuration_file_binds() {
    let mut lab = Lab::new(1);
    let spec = PortSpec::Access { vni: vni(), mac: mac(1), explicit_activation: false };
    let workers = WorkerSet::first(1);
    lab.input(A, Input::PortAdded { port: PORT, name: "p".into(), spec, workers });
    assert!(lab.hosts[A].tables.sources.is_empty());
    lab.input(A, Input::StaticNeighbor { vni: vni(), ip: vm_ip(7), mac: mac(1), router: false });
    assert_eq!(lab.hosts[A].tables.sources, [(PORT, vm_ip(7))].into());
}

#[test]
fn r65_a_spoofing_vm_is_named() {
    let mut lab = Lab::new(1);
    lab.add_port(A, PORT, 1);
    lab.event(A, Event::Spoofed { port: PORT, mac: mac(1), ip: None, why: Refused::Address });
    assert!(lab.hosts[A].notes.iter().any(|n| n.text.contains("not its own")));
}

#[test]
fn r66_only_the_operators_word_makes_a_router() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    let told = |lab: &Lab| lab.hosts[A].tables.servers.clone();
    let say = |lab: &mut Lab, router_pinned| {
        let record = lab.nva.records.get_mut(&vm(1)).unwrap();
        (record.router, record.router_pinned) = (true, router_pinned);
        let record = record.clone();
        lab.input(A, Input::Nva(NvaToNve::Snapshot { vni: vni(), vms: vec![record] }));
    };
    say(&mut lab, false);
    assert!(told(&lab).is_empty(), "it said so itself");
    say(&mut lab, true);
    assert_eq!(told(&lab), [PORT].into());
    lab.input(A, Input::PortRemoved { port: PORT });
    assert!(told(&lab).is_empty());
    lab.event(A, Event::NotRouter { port: PORT });
    assert_eq!(lab.hosts[A].alarms(), 0, "a port that is gone");
}

#[test]
fn r66_who_speaks_as_a_router_is_named() {
    let mut lab = Lab::new(1);
    lab.add_port(A, PORT, 1);
    lab.event(A, Event::NotRouter { port: PORT });
    assert!(lab.hosts[A].notes.iter().any(|n| n.text.contains("was not defined as one")));
}
