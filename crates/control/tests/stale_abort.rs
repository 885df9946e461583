//! A move called off while its old NVE was away, told when that NVE is back: seeds 5351, 5386 and
//! 15543 of the simulation.

use crate::lab::{Lab, PORT, vm};
use godwit_control::Input;
use godwit_model::MoveId;
use godwit_model::message::NvaToNve;
use godwit_tables::update::{PortIdx, VmState};

const A: usize = 0;
const B: usize = 1;

/// v is paused at A while A is away from the NVA, which has called off m1 meanwhile.
fn paused_while_away() -> Lab {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.settle();
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.disconnect(A);
    lab.input(A, Input::PausePort { port: PORT });
    lab
}

/// A is welcomed, and the first thing that it hears is the call-off.
fn back_and_told(lab: &mut Lab) {
    lab.connect(A);
    lab.nva_hears(A);
    lab.nve_hears(A);
    let reason = "called off while this NVE was away".into();
    lab.hosts[A].inbox.push_back(NvaToNve::MoveAbort { id: MoveId("m1".into()), key: vm(1), reason });
    lab.nve_hears(A);
}

fn is_paused(lab: &Lab) -> bool {
    matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. }))
}

#[test]
fn r45_a_pause_for_a_newer_move_outlives_the_end_of_an_older_one() {
    let mut lab = paused_while_away();
    lab.nva.order_move("m2", vm(1));
    back_and_told(&mut lab);
    assert!(is_paused(&lab), "{:?}", lab.hosts[A].state(1));
    lab.order_move("m2", 1, A, B);
    lab.settle();
    assert!(is_paused(&lab), "{:?}", lab.hosts[A].state(1));
}

#[test]
fn r23_a_call_off_does_not_end_a_pause_that_was_there_before_the_move() {
    let other = PortIdx(9);
    for (again, given_back) in [(false, false), (true, true)] {
        let mut lab = Lab::new(2);
        lab.run_vm(A, 1);
        lab.settle();
        // The VM is on its way to another port of its NVE when a move is ordered and called off.
        lab.add_port(A, other, 1);
        lab.input(A, Input::PausePort { port: PORT });
        lab.order_move("m1", 1, A, B);
        lab.settle();
        if again {
            lab.input(A, Input::PausePort { port: PORT });
        }
        let reason = "test".into();
        lab.hosts[A].inbox.push_back(NvaToNve::MoveAbort { id: MoveId("m1".into()), key: vm(1), reason });
        lab.settle();
        assert_eq!(!is_paused(&lab), given_back, "{:?}", lab.hosts[A].state(1));
        lab.input(A, Input::ActivatePort { port: other });
        lab.settle();
        assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: other }));
    }
}

/// Seed 281748: who calls a move off lets the VM run again and orders the next move at once; the old NVE hears of
/// the pause for that first, and of the call-off later.
#[test]
fn r45_a_call_off_does_not_end_the_pause_for_the_move_after_it() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: PORT });
    lab.input(A, Input::ActivatePort { port: PORT });
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    lab.input(A, Input::PausePort { port: PORT });
    let reason = "called off by the operator".into();
    lab.hosts[A].inbox.push_back(NvaToNve::MoveAbort { id: MoveId("m1".into()), key: vm(1), reason });
    lab.settle();
    assert!(is_paused(&lab), "{:?}", lab.hosts[A].state(1));
    lab.order_move("m2", 1, A, B);
    lab.settle();
    assert!(is_paused(&lab), "{:?}", lab.hosts[A].state(1));
}

#[test]
fn r45_a_pause_ends_with_its_move_once_the_snapshot_has_told() {
    let mut lab = paused_while_away();
    lab.nva.records.get_mut(&vm(1)).unwrap().moving = None;
    back_and_told(&mut lab);
    assert!(is_paused(&lab), "before the snapshot nothing is known");
    lab.settle();
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
}

#[test]
fn r45_a_call_off_gives_the_vm_back_to_its_own_port_only() {
    let other = PortIdx(9);
    for (again, delivers) in [(other, false), (PORT, true)] {
        let mut lab = Lab::new(2);
        lab.run_vm(A, 1);
        lab.order_move("m1", 1, A, B);
        lab.settle();
        lab.input(A, Input::PortRemoved { port: PORT });
        lab.add_port(A, again, 1);
        let reason = "test".into();
        lab.hosts[A].inbox.push_back(NvaToNve::MoveAbort { id: MoveId("m1".into()), key: vm(1), reason });
        lab.settle();
        assert_eq!(lab.hosts[A].state(1) == Some(VmState::Local { port: again }), delivers, "{again:?}");
    }
}
