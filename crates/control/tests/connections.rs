//! Pauses of a VM's connections at the NVE that has it (R54).

use crate::lab::{Lab, locator, vm};
use godwit_control::Input;
use godwit_model::{ConnectionPause, PauseEnd, WhilePaused};
use godwit_tables::update::{PortIdx, Update, VmState};

const A: usize = 0;
const B: usize = 1;
const AT_A: PortIdx = PortIdx(1);
const AT_B: PortIdx = PortIdx(9);

/// VM 1 at A, 2 at B.
fn begin() -> Lab {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.settle();
    lab
}

fn pause(lab: &mut Lab, treatment: WhilePaused, ended: Option<PauseEnd>) {
    let ended = ended.map(|end| (end, 2));
    lab.pause(1, Some(ConnectionPause { treatment, since_us: 1, limit_s: 10, ended }));
    lab.settle();
}

fn is_held(lab: &Lab, i: usize) -> bool {
    matches!(lab.hosts[i].state(1), Some(VmState::Paused { .. }))
}

/// What the worker of NVE `i` was told of VM 1 since the update `from`.
fn told(lab: &Lab, i: usize, from: usize) -> Vec<VmState> {
    let of_vm = |u: &Update| match *u {
        Update::VmSet { key, state } if key == crate::lab::key(1) => Some(state),
        _ => None,
    };
    lab.hosts[i].updates[from..].iter().filter_map(of_vm).collect()
}

#[test]
fn r54_the_nve_of_a_paused_vm_holds_what_comes_and_others_send_as_before() {
    let mut lab = begin();
    pause(&mut lab, WhilePaused::Hold, None);
    assert!(is_held(&lab, A));
    assert_eq!(lab.hosts[B].tunnel_ip(1), Some(locator(A)));
    let from = lab.hosts[A].updates.len();
    pause(&mut lab, WhilePaused::Hold, Some(PauseEnd::Resumed));
    assert_eq!(told(&lab, A, from), [VmState::Local { port: AT_A }], "what is held is delivered");
}

#[test]
fn r54_a_pause_may_drop_and_one_that_times_out_drops_what_it_held() {
    let mut lab = begin();
    pause(&mut lab, WhilePaused::Drop, None);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Blocked));
    pause(&mut lab, WhilePaused::Drop, Some(PauseEnd::TimedOut));
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: AT_A }));
    assert_eq!(lab.hosts[A].nve.counts().pauses_timed_out, 0, "nothing was held");

    let held = ConnectionPause { treatment: WhilePaused::Hold, since_us: 3, limit_s: 10, ended: None };
    lab.pause(1, Some(held));
    lab.settle();
    let from = lab.hosts[A].updates.len();
    lab.pause(1, Some(ConnectionPause { ended: Some((PauseEnd::TimedOut, 4)), ..held }));
    lab.settle();
    assert_eq!(told(&lab, A, from), [VmState::Blocked, VmState::Local { port: AT_A }]);
    assert_eq!(lab.hosts[A].nve.counts().pauses_timed_out, 1);
}

#[test]
fn r54_without_the_nva_a_pause_ends_by_the_clock_of_its_nve() {
    let mut lab = begin();
    pause(&mut lab, WhilePaused::Hold, None);
    lab.disconnect(A);
    lab.pass(11_000);
    assert!(is_held(&lab, A));
    let (alarms, from) = (lab.hosts[A].alarms(), lab.hosts[A].updates.len());
    lab.pass(2000);
    assert_eq!(told(&lab, A, from), [VmState::Blocked, VmState::Local { port: AT_A }]);
    assert_eq!(lab.hosts[A].alarms(), alarms + 1);
    // The NVA says once more what it knows: that pause is over here.
    lab.connect(A);
    lab.settle();
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: AT_A }));
}

#[test]
fn r54_a_paused_vm_moves_and_what_is_held_goes_along() {
    let mut lab = begin();
    pause(&mut lab, WhilePaused::Hold, None);
    lab.add_port(B, AT_B, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: AT_A });
    lab.settle();
    lab.announce(B, AT_B, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })), "A sends on what it held");
    assert!(is_held(&lab, B), "B holds on");
    assert_eq!(lab.nva.records[&vm(1)].active_nve().map(|n| n.as_str()), Some("b"));
    pause(&mut lab, WhilePaused::Hold, Some(PauseEnd::Resumed));
    assert!(matches!(
        lab.hosts[B].state(1),
        Some(VmState::Local { port: AT_B } | VmState::Arrived { port: AT_B, .. })
    ));
}

#[test]
fn r54_a_switch_that_starts_anew_holds_again() {
    let mut lab = begin();
    pause(&mut lab, WhilePaused::Hold, None);
    lab.restart(A);
    lab.add_port(A, AT_A, 1);
    lab.settle();
    assert!(is_held(&lab, A), "{:?}", lab.hosts[A].state(1));
}
