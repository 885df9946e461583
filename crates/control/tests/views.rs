//! What control shows to people, and which inputs it refuses.

use crate::lab::said::{A, B};
use crate::lab::{Lab, PORT, UPLINK, access, key, locator, mac, nve_id, vm, vm_ip, vni};
use godwit_control::view::EntryState;
use godwit_control::{Input, PortSpec, WorkerSet};
use godwit_model::DenyReason;
use godwit_model::message::NvaToNve;
use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, PortRole, VmState};
use godwit_wire::Mac;

#[test]
fn a_port_replaced_under_its_number_belongs_to_the_new_vm() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let spec = access(2);
    lab.input(A, Input::PortAdded { port: PORT, name: "q".into(), spec, workers: WorkerSet::first(1) });
    let role = lab.hosts[A].tables.ports[&PORT];
    assert!(matches!(role, PortRole::Access { mac: m, .. } if m == mac(2)));
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })));
}

#[test]
fn views_name_what_there_is() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.nva.mute_queries = true;
    lab.event(A, Event::MissMac { key: key(50), port: PORT });
    let entries = lab.hosts[A].nve.entries(lab.now, None);
    let states: Vec<_> = entries.iter().map(|e| (e.key, e.state)).collect();
    let want = [(vm(1), EntryState::Local), (vm(2), EntryState::Remote), (vm(50), EntryState::Querying)];
    assert_eq!(states, want);
    assert_eq!(entries[1].locator, Some(locator(B)));
    assert_eq!((entries[1].nve.clone(), entries[1].ips.clone()), (Some(nve_id(B)), vec![vm_ip(2)]));
    let neighbors = lab.hosts[A].nve.neighbors();
    assert_eq!(
        (neighbors[0].ip, neighbors[0].state, neighbors[0].uplink_name.as_str()),
        (locator(B), "reachable", "up0")
    );
    let nva = lab.hosts[A].nve.nva();
    assert_eq!((nva.connected, nva.epoch, nva.vns, nva.synced, nva.queries_waiting), (true, 1, 1, 1, 1));
}

#[test]
fn nonsense_is_refused_and_harmless() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let before = lab.hosts[A].tables.clone();
    let (denied, reason) = (vm(1), DenyReason::UnknownVm);
    lab.input(
        A,
        Input::Nva(NvaToNve::Deny { seq: 999, key: denied, reason, text: "?".into(), record: None }),
    );
    lab.input(A, Input::PausePort { port: PortIdx(77) });
    lab.input(A, Input::ActivatePort { port: UPLINK });
    lab.input(A, Input::PortRemoved { port: PortIdx(77) });
    lab.input(A, Input::Applied { worker: 63, token: u64::MAX });
    let spec = PortSpec::Access { vni: vni(), mac: Mac::BROADCAST, explicit_activation: false };
    let workers = WorkerSet::EMPTY;
    lab.input(A, Input::PortAdded { port: PortIdx(5), name: "x".into(), spec, workers });
    lab.input(A, Input::PortAdded { port: PortIdx(9999), name: "x".into(), spec: access(3), workers });
    lab.event(A, Event::TableFull { key: key(1) });
    lab.event(A, Event::NotLocal { key: godwit_tables::update::Key(u64::MAX), sender: locator(B) });
    assert_eq!(lab.hosts[A].tables, before);
}

#[test]
fn r45_a_pause_for_a_move_that_is_not_known_here_is_refused() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    let m1 = godwit_model::MoveId("m1".into());
    let may = |lab: &Lab, i: usize| lab.hosts[i].nve.may_pause(PORT, &m1);
    assert!(may(&lab, A).unwrap_err().to_string().contains("has not heard of move m1"));
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    assert_eq!(may(&lab, A), Ok(()));
    assert!(may(&lab, B).unwrap_err().to_string().contains("pause it at a"));
    let m2 = godwit_model::MoveId("m2".into());
    assert!(lab.hosts[A].nve.may_pause(PORT, &m2).unwrap_err().to_string().contains("in move m1 here"));
    assert!(lab.hosts[A].nve.may_pause(UPLINK, &m1).unwrap_err().to_string().contains("no access port"));
}
