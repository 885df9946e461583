//! Warm and cold moves at the NVEs: a VM is shut down at one and started at another (R50, R51).

use crate::lab::said::{is_remote_to, queries, withdrawals};
use crate::lab::{Lab, PORT, key, locator, mac, vm, vm_ip};
use godwit_control::Input;
use godwit_model::message::NveToNva;
use godwit_model::{MoveMode, MoveStepKind, OperState};
use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, VmState, VnIdx};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// v (VM 1) runs at A, its peer p (VM 2) at C; B has a port for v.
fn v_at_a() -> Lab {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(C, 2);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab
}

fn stop(lab: &mut Lab, i: usize) {
    for state in [OperState::ShuttingDown, OperState::Shutdown] {
        lab.input(i, Input::VmState { port: PORT, state });
    }
    lab.settle();
}

fn miss(lab: &mut Lab, i: usize) {
    lab.event(i, Event::MissMac { key: key(1), port: PortIdx(2) });
    lab.settle();
}

fn reported(lab: &Lab, i: usize, what: MoveStepKind) -> bool {
    lab.hosts[i].said.iter().any(|m| match m {
        NveToNva::MoveReport { step: Some(step), .. } => step.what == what,
        _ => false,
    })
}

#[test]
fn r51_a_cold_move_ends_every_entry_and_the_start_makes_them_anew() {
    let mut lab = v_at_a();
    lab.order_mode("m", 1, (A, B), MoveMode::Cold);
    lab.settle();
    assert!(reported(&lab, A, MoveStepKind::Prepared) && reported(&lab, B, MoveStepKind::Prepared));
    assert!(is_remote_to(&lab, B, 1, A), "B holds nothing for a VM that still runs: it reaches it");

    stop(&mut lab, A);
    assert_eq!(withdrawals(&lab, A).len(), 1, "its shutdown is no pause: nothing is held for it");
    for i in [A, B, C] {
        let state = lab.hosts[i].state(1);
        assert!(!matches!(state, Some(VmState::Paused { .. } | VmState::Expected { .. })), "{i}: {state:?}");
        assert_eq!(lab.hosts[i].tunnel_ip(1), None, "NVE {i} sends it nowhere");
    }
    assert_eq!(lab.hosts[C].tables.neighbors.get(&(VnIdx(0), vm_ip(1))), None, "R28: nor is it answered for");

    lab.announce(B, PORT, 1);
    lab.settle();
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }));
    assert!(is_remote_to(&lab, C, 1, B) && is_remote_to(&lab, A, 1, B));
    assert_eq!(lab.hosts[C].tables.neighbors[&(VnIdx(0), vm_ip(1))], Some(mac(1)), "R55: the same address");
    assert!((0..3).all(|i| !lab.hosts[i].nve.expects_move(vm(1))), "nobody waits for more of the move");
    assert_eq!((0..3).map(|i| lab.hosts[i].alarms()).sum::<usize>(), 0);
}

#[test]
fn r51_a_port_that_goes_while_a_cold_move_is_ordered_is_the_shutdown() {
    let mut lab = v_at_a();
    lab.order_mode("m", 1, (A, B), MoveMode::Cold);
    lab.settle();
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.settle();
    assert_eq!(withdrawals(&lab, A).len(), 1, "at once, and not after port_down_hold");
    assert!(!lab.nva.records[&vm(1)].is_active());
}

#[test]
fn r51_a_withdrawal_that_news_had_overtaken_is_said_again() {
    let mut lab = v_at_a();
    lab.order_mode("m", 1, (A, B), MoveMode::Warm);
    // Its pending location is on the way to A when the VM is shut down there.
    for state in [OperState::ShuttingDown, OperState::Shutdown] {
        lab.input(A, Input::VmState { port: PORT, state });
    }
    lab.settle();
    assert!(!lab.nva.records[&vm(1)].is_active(), "{:?}", withdrawals(&lab, A));
    assert_eq!(withdrawals(&lab, A).len(), 2);
}

#[test]
fn r51_the_word_of_a_manager_that_the_vm_is_shut_down_closes_its_port() {
    let mut lab = v_at_a();
    lab.order_mode("m", 1, (A, B), MoveMode::Cold);
    lab.settle();
    lab.detach(1);
    lab.settle();
    assert_eq!(lab.hosts[A].tunnel_ip(1), None);
    assert_ne!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    lab.announce(A, PORT, 1);
    lab.settle();
    assert!(!lab.nva.records[&vm(1)].is_active(), "what its guest had sent before does not start it again");
    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(is_remote_to(&lab, A, 1, B));
}

#[test]
fn r51_a_cold_move_that_is_called_off_leaves_the_vm_as_it_is() {
    let mut lab = v_at_a();
    lab.order_mode("m", 1, (A, B), MoveMode::Cold);
    lab.settle();
    lab.input(A, Input::PortLink { port: PORT, up: false });
    lab.abort("m", 1, &[A, B]);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })), "its link is down still");
    lab.pass(4_000);
    assert_eq!(withdrawals(&lab, A).len(), 1, "R19");
}

#[test]
fn r50_the_way_to_a_pending_location_is_resolved_and_never_used() {
    let mut lab = v_at_a();
    let resolved = |lab: &Lab, i: usize, to: usize| {
        lab.hosts[i].tables.tunnels.values().any(|t| t.0 == locator(to) && t.1.is_some())
    };
    lab.order_mode("m", 1, (A, B), MoveMode::Warm);
    lab.settle();
    assert!(resolved(&lab, C, B), "ahead of any frame");
    assert!(is_remote_to(&lab, C, 1, A), "the active location alone is sent to");
    lab.pass(200_000);
    assert!(resolved(&lab, C, B), "as long as it is pending");

    stop(&mut lab, A);
    assert_eq!(lab.hosts[C].tunnel_ip(1), None, "a pending location carries nothing");
    miss(&mut lab, C);
    assert_eq!(queries(&lab, C).len(), 0, "the directory has said that it runs nowhere yet");
    assert!(matches!(lab.hosts[C].state(1), Some(VmState::Absent { .. })), "what is sent to it is dropped");

    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(is_remote_to(&lab, C, 1, B), "the grant is all that was missing");
    assert_eq!(queries(&lab, C).len() + queries(&lab, A).len(), 0);
    assert_eq!(lab.hosts[C].tables.neighbors[&(VnIdx(0), vm_ip(1))], Some(mac(1)));
}

#[test]
fn r50_a_pending_location_that_ends_keeps_no_tunnel() {
    let mut lab = Lab::new(4);
    lab.run_vm(A, 1);
    lab.run_vm(C, 2);
    lab.order_mode("m", 1, (A, 3), MoveMode::Warm);
    lab.settle();
    let there = |lab: &Lab| lab.hosts[C].tables.tunnels.values().any(|t| t.0 == locator(3));
    assert!(there(&lab));
    lab.abort("m", 1, &[A, 3]);
    lab.end_pending(1);
    lab.settle();
    lab.pass(200_000);
    assert!(!there(&lab));
    assert!(is_remote_to(&lab, C, 1, A));
}
