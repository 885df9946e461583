//! What a VM manager says of its VMs, and what becomes of their ports and bindings (R16).

use crate::lab::said::{A, B, admission, claims, is_remote_to, withdrawals};
use crate::lab::{Lab, PORT, vm, vm_ip};
use godwit_control::Input;
use godwit_control::view::PortState;
use godwit_model::MoveId;
use godwit_model::OperState::{
    self, Crashed, Deleted, Migrating, Other, Paused, Preparing, Resuming, Running, Shutdown, ShuttingDown,
    Suspended, Suspending, Unknown,
};
use godwit_tables::update::{Admission, PortIdx, VmState};

fn say(lab: &mut Lab, i: usize, state: OperState) {
    lab.input(i, Input::VmState { port: PORT, state });
    lab.settle();
}

fn port(lab: &Lab, i: usize) -> PortState {
    lab.hosts[i].nve.ports().iter().find(|p| p.port == PORT).unwrap().state
}

/// Of [`bound`]: it has an active binding.
const ACTIVE: bool = true;
/// Of [`bound`]: it is bound to no NVE.
const DETACHED: bool = false;

/// The VM is bound to an NVE in the directory; its addresses are there in either case.
fn bound(lab: &Lab) -> bool {
    let record = &lab.nva.records[&vm(1)];
    assert_eq!(record.ips().collect::<Vec<_>>(), [vm_ip(1)], "addresses stay reserved");
    record.is_active()
}

/// A VM that is defined and has its port at A.
fn with_port() -> Lab {
    let mut lab = Lab::new(2);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab
}

#[test]
fn r16_every_state_leads_to_its_port_state_and_binding() {
    // Each row begins where it left off before.
    let rows = [
        (Preparing, PortState::Init, Admission::Closed, DETACHED),
        (Shutdown, PortState::Init, Admission::Closed, DETACHED),
        (Running, PortState::Activated, Admission::Activated, ACTIVE),
        (Suspending, PortState::Activated, Admission::Activated, ACTIVE),
        (Suspended, PortState::Associated, Admission::Associated, DETACHED),
        (Resuming, PortState::Associated, Admission::Associated, DETACHED),
        (Running, PortState::Activated, Admission::Activated, ACTIVE),
        (Paused, PortState::Paused, Admission::Activated, ACTIVE),
        (Running, PortState::Activated, Admission::Activated, ACTIVE),
        // At the source: it fails, and the VM goes on.
        (Migrating, PortState::Activated, Admission::Activated, ACTIVE),
        (Running, PortState::Activated, Admission::Activated, ACTIVE),
        (Unknown, PortState::Activated, Admission::Activated, ACTIVE),
        (Other, PortState::Activated, Admission::Activated, ACTIVE),
        (ShuttingDown, PortState::Activated, Admission::Activated, ACTIVE),
        (Shutdown, PortState::Init, Admission::Closed, DETACHED),
        // At the target.
        (Migrating, PortState::Associated, Admission::Associated, DETACHED),
        (Running, PortState::Activated, Admission::Activated, ACTIVE),
        (ShuttingDown, PortState::Activated, Admission::Activated, ACTIVE),
        (Shutdown, PortState::Init, Admission::Closed, DETACHED),
        (Deleted, PortState::Init, Admission::Closed, DETACHED),
    ];
    let mut lab = with_port();
    for (n, (state, shown, may, binding)) in rows.into_iter().enumerate() {
        say(&mut lab, A, state);
        let is = (port(&lab, A), admission(&lab, A, PORT), bound(&lab));
        assert_eq!(is, (shown, Some(may), binding), "row {n}: {state}");
    }
    assert_eq!(lab.hosts[A].alarms(), 2, "unknown and other");
}

#[test]
fn r16_the_first_word_may_be_any() {
    for (state, shown) in [
        (Preparing, PortState::Init),
        (Running, PortState::Activated),
        (Suspending, PortState::Activated),
        (Suspended, PortState::Associated),
        (Resuming, PortState::Associated),
        (Paused, PortState::Paused),
        (Migrating, PortState::Associated),
        (ShuttingDown, PortState::Activated),
        (Shutdown, PortState::Init),
        (Crashed, PortState::Associated),
        (Deleted, PortState::Init),
        (Unknown, PortState::Associated),
    ] {
        let mut lab = with_port();
        say(&mut lab, A, state);
        assert_eq!(port(&lab, A), shown, "{state}");
    }
}

#[test]
fn r16_what_rfc_7666_has_no_way_to_is_refused_and_changes_nothing() {
    let mut lab = with_port();
    say(&mut lab, A, Running);
    let why = lab.hosts[A].nve.may_say(PORT, Resuming).unwrap_err().to_string();
    assert!(why.contains("was running") && why.contains("suspending"), "{why}");
    say(&mut lab, A, Resuming);
    assert_eq!((port(&lab, A), bound(&lab)), (PortState::Activated, ACTIVE));
    say(&mut lab, A, Running);
    assert_eq!(claims(&lab, A).len(), 1, "said again it is no news");
    say(&mut lab, A, Crashed);
    let why = lab.hosts[A].nve.may_say(PORT, Running).unwrap_err().to_string();
    assert!(why.contains("remove the port"), "{why}");
    assert!(lab.hosts[A].nve.may_say(PortIdx(0), Running).unwrap_err().to_string().contains("up0"));
}

#[test]
fn r16_a_crashed_vm_may_come_back_for_30_s() {
    let mut lab = with_port();
    say(&mut lab, A, Running);
    say(&mut lab, A, Crashed);
    assert_eq!((port(&lab, A), bound(&lab)), (PortState::Associated, DETACHED));
    assert_eq!(lab.hosts[A].state(1), None, "nothing is delivered");
    lab.pass(29_000);
    assert_eq!(port(&lab, A), PortState::Associated);
    lab.announce(A, PORT, 1);
    lab.settle();
    assert_eq!((port(&lab, A), bound(&lab)), (PortState::Activated, ACTIVE));
    lab.pass(40_000);
    assert_eq!(port(&lab, A), PortState::Activated, "it came back");
    say(&mut lab, A, Crashed);
    lab.pass(31_000);
    assert_eq!(port(&lab, A), PortState::Init);
    lab.announce(A, PORT, 1);
    lab.settle();
    assert_eq!((port(&lab, A), bound(&lab)), (PortState::Init, DETACHED), "too late");
}

#[test]
fn r16_a_paused_vm_is_held_for_and_never_withdrawn() {
    let mut lab = with_port();
    say(&mut lab, A, Running);
    say(&mut lab, A, Paused);
    // A vhost-user device is let go of while its VM is stopped.
    lab.input(A, Input::PortLink { port: PORT, up: false });
    lab.pass(3_600_000);
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })));
    assert!(bound(&lab));
    lab.input(A, Input::PortLink { port: PORT, up: true });
    say(&mut lab, A, Running);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    assert_eq!((claims(&lab, A).len(), withdrawals(&lab, A).len()), (1, 0));
    // Its word ends with the pause: a port that is lost later is one.
    lab.input(A, Input::PortLink { port: PORT, up: false });
    lab.pass(4_000);
    assert!(!bound(&lab));
}

#[test]
fn r16_a_link_that_was_lost_first_is_explained_by_the_pause() {
    let mut lab = with_port();
    say(&mut lab, A, Running);
    lab.input(A, Input::PortLink { port: PORT, up: false });
    lab.pass(1_000);
    say(&mut lab, A, Paused);
    lab.pass(60_000);
    assert!(bound(&lab));
}

/// The source is shut down before its target has the grant, and says migrating long after it left.
#[test]
fn r16_a_planned_move_told_by_states_alone() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    say(&mut lab, A, Running);
    lab.order_move("m", 1, A, B);
    lab.settle();
    lab.add_port(B, PORT, 1);
    lab.settle();
    say(&mut lab, A, Migrating);
    say(&mut lab, B, Migrating);
    assert_eq!((port(&lab, A), port(&lab, B)), (PortState::Activated, PortState::Associated));
    assert!(matches!(lab.hosts[B].state(1), Some(VmState::Expected { .. })));
    say(&mut lab, A, Shutdown);
    lab.pass(10_000);
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })), "held for the handover");
    assert_eq!(withdrawals(&lab, A), []);
    say(&mut lab, B, Running);
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    assert_eq!((port(&lab, A), port(&lab, B)), (PortState::Init, PortState::Activated));
    // Back again, to the port that was closed when it left.
    lab.order_move("n", 1, B, A);
    lab.settle();
    say(&mut lab, A, Migrating);
    assert_eq!(port(&lab, A), PortState::Associated);
    say(&mut lab, B, Migrating);
    say(&mut lab, A, Running);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    assert!(matches!(lab.hosts[B].state(1), Some(VmState::Departed { .. })));
    // Its old hypervisor is slow to notice.
    say(&mut lab, B, Migrating);
    lab.pass(61_000);
    assert_eq!(port(&lab, B), PortState::Departed);
    assert!(is_remote_to(&lab, B, 1, A));
}

#[test]
fn r16_a_call_off_does_not_wake_a_vm_that_was_shut_down() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.order_move("m", 1, A, B);
    lab.settle();
    say(&mut lab, A, Migrating);
    say(&mut lab, A, Shutdown);
    lab.nva.records.get_mut(&vm(1)).unwrap().moving = None;
    let abort = godwit_model::message::NvaToNve::MoveAbort {
        id: MoveId("m".into()),
        key: vm(1),
        reason: "changed my mind".into(),
    };
    lab.input(A, Input::Nva(abort));
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })), "not delivered to a dead VM");
    lab.pass(4_000);
    assert_eq!((port(&lab, A), bound(&lab)), (PortState::Init, DETACHED));
}

#[test]
fn r16_without_a_move_the_old_place_of_a_migrated_vm_is_kept_for_3_s() {
    let mut lab = with_port();
    say(&mut lab, A, Running);
    say(&mut lab, A, Migrating);
    say(&mut lab, A, Shutdown);
    say(&mut lab, A, Deleted);
    lab.pass(2_000);
    assert!(bound(&lab));
    lab.pass(2_000);
    assert!(!bound(&lab));
}

/// A grant that crosses the word does not wake the VM.
#[test]
fn r16_a_vm_that_stops_while_its_claim_is_under_way_is_withdrawn() {
    let mut lab = with_port();
    lab.input(A, Input::VmState { port: PORT, state: Running });
    lab.input(A, Input::VmState { port: PORT, state: Suspending });
    lab.input(A, Input::VmState { port: PORT, state: Suspended });
    lab.settle();
    assert_eq!((port(&lab, A), bound(&lab)), (PortState::Associated, DETACHED));
    assert_eq!(lab.hosts[A].state(1), None);
}
