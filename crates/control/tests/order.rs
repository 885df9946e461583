//! Order in a move: end markers, and who waits for them (R77).

use crate::lab::said::admission;
use crate::lab::{Lab, key, locator, nve_id, vm};
use godwit_control::{Counts, Input};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{ConnectionPause, MoveStepKind, PauseEnd, Secret, WhilePaused};
use godwit_tables::event::{Event, HandoverStats};
use godwit_tables::update::{Admission, PortIdx, VmState};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const AT_A: PortIdx = PortIdx(1);
const AT_B: PortIdx = PortIdx(9);

/// VM 1 at A, 2 at C, 3 at B; `marking` end their paths with markers.
fn begin(marking: &[usize]) -> Lab {
    let mut lab = Lab::new(3);
    lab.nva.secret = Some(Secret([9; 32]));
    for i in [A, B, C] {
        lab.disconnect(i);
        lab.connect(i);
    }
    lab.settle();
    for &i in marking {
        let nves = marking.iter().filter(|j| **j != i).map(|j| nve_id(*j)).collect();
        lab.hosts[i].inbox.push_back(NvaToNve::EndMarkers { reset: true, nves, gone: Vec::new() });
    }
    for (i, n) in [(A, 1), (C, 2), (B, 3)] {
        lab.run_vm(i, n);
    }
    lab.settle();
    lab
}

/// VM 1 is paused at A and has a port at B.
fn paused(lab: &mut Lab) {
    lab.add_port(B, AT_B, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.input(A, Input::PausePort { port: AT_A });
    lab.settle();
}

/// VM 1 goes from A to B.
fn move_to_b(lab: &mut Lab) {
    paused(lab);
    lab.announce(B, AT_B, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
}

/// A worker of NVE `i` holds a frame for VM 1.
fn holds(lab: &mut Lab, i: usize) {
    let stats = HandoverStats { held: 1, waiting: 1, ..HandoverStats::default() };
    lab.event(i, Event::Handover { key: key(1), stats });
}

fn counts(lab: &Lab, i: usize) -> Counts {
    *lab.hosts[i].nve.counts()
}

fn is_held(lab: &Lab, i: usize) -> bool {
    matches!(lab.hosts[i].state(1), Some(VmState::Paused { .. }))
}

#[test]
fn r77_a_sender_goes_over_when_its_end_marker_has_come_by_the_old_path() {
    let mut lab = begin(&[A, B, C]);
    move_to_b(&mut lab);
    assert!(is_held(&lab, C), "nothing goes to B before what went to A is there");
    assert_eq!(counts(&lab, C).markers_sent, 0, "nothing waits, so nothing is asked");
    holds(&mut lab, C);
    assert!(is_held(&lab, C), "its marker is on its way");
    lab.settle();
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
    let of = |i| counts(&lab, i);
    assert_eq!((of(C).markers_sent, of(A).markers_passed, of(B).markers_answered), (1, 1, 1));
    assert_eq!((of(C).markers_come, of(C).markers_late, of(C).order_held), (1, 0, 1));
}

#[test]
fn r77_a_marker_waits_while_the_frames_before_it_do() {
    let mut lab = begin(&[A, B, C]);
    paused(&mut lab);
    lab.disconnect(A);
    lab.announce(B, AT_B, 1);
    lab.settle();
    holds(&mut lab, C);
    lab.settle();
    assert!(is_held(&lab, A), "A has not heard of the grant");
    assert!(is_held(&lab, C), "so the marker is with what A holds");
    assert_eq!((counts(&lab, C).markers_sent, counts(&lab, A).markers_passed), (1, 0));
    lab.connect(A);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
    assert_eq!(counts(&lab, C).markers_come, 1);
}

#[test]
fn r77_no_wait_is_longer_than_it_may_be() {
    let mut lab = begin(&[A, B, C]);
    lab.disconnect(C);
    move_to_b(&mut lab);
    lab.connect(C);
    lab.settle();
    assert!(is_held(&lab, C));
    holds(&mut lab, C);
    // The marker is lost.
    lab.datagrams.clear();
    lab.pass(19);
    assert!(is_held(&lab, C));
    lab.pass(2);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)), "late is better than never");
    assert_eq!((counts(&lab, C).markers_late, counts(&lab, C).markers_come), (1, 0));
}

#[test]
fn r77_where_nothing_waits_nothing_is_late() {
    let mut lab = begin(&[A, B, C]);
    move_to_b(&mut lab);
    lab.pass(21);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
    assert_eq!((counts(&lab, C).markers_sent, counts(&lab, C).markers_late), (0, 0));
}

#[test]
fn r77_only_nves_that_mark_their_paths_are_waited_for() {
    for marking in [&[A, B][..], &[B, C], &[A, C], &[]] {
        let mut lab = begin(marking);
        move_to_b(&mut lab);
        assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)), "{marking:?}");
        assert_eq!(counts(&lab, C).markers_sent, 0, "{marking:?}");
    }
}

#[test]
fn r77_vms_at_the_new_nve_reach_one_that_has_come_behind_what_they_sent_to_the_old_one() {
    let mut lab = begin(&[A, B, C]);
    paused(&mut lab);
    lab.announce(B, AT_B, 1);
    assert!(
        matches!(lab.hosts[B].state(1), Some(VmState::Arrived { port: AT_B, .. })),
        "the overlay's go in"
    );
    holds(&mut lab, B);
    lab.settle();
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: AT_B }));
    assert_eq!((counts(&lab, B).markers_sent, counts(&lab, B).markers_come), (1, 1));
    assert_eq!(counts(&lab, A).markers_passed, 1);
}

#[test]
fn r77_what_a_vm_sends_waits_until_its_old_nve_has_sent_everything_of_it() {
    let mut lab = begin(&[A, B, C]);
    lab.add_port(B, AT_B, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    // B hears the VM before A hears of its pause.
    lab.announce(B, AT_B, 1);
    assert_eq!(admission(&lab, B, AT_B), Some(Admission::Associated), "its frames wait with the port");
    lab.settle();
    assert_eq!(admission(&lab, B, AT_B), Some(Admission::Activated));
    assert_eq!((counts(&lab, A).sent_all, counts(&lab, B).sent_all_late), (1, 0));

    let mut lab = begin(&[A, B, C]);
    paused(&mut lab);
    lab.announce(B, AT_B, 1);
    assert_eq!(admission(&lab, B, AT_B), Some(Admission::Activated), "A has said so at the pause");

    let mut lab = begin(&[A, B, C]);
    lab.add_port(B, AT_B, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.disconnect(A);
    lab.announce(B, AT_B, 1);
    lab.pass(19);
    assert_eq!(admission(&lab, B, AT_B), Some(Admission::Associated));
    lab.pass(2);
    assert_eq!(admission(&lab, B, AT_B), Some(Admission::Activated), "but not forever");
    assert_eq!(counts(&lab, B).sent_all_late, 1);
}

#[test]
fn r77_what_was_said_of_a_pause_is_void_when_the_vm_runs_on_at_its_old_nve() {
    let mut lab = begin(&[A, B, C]);
    paused(&mut lab);
    lab.input(A, Input::ActivatePort { port: AT_A });
    lab.settle();
    lab.announce(B, AT_B, 1);
    assert_eq!(admission(&lab, B, AT_B), Some(Admission::Associated), "it has sent more from A since");
    lab.settle();
    assert_eq!(admission(&lab, B, AT_B), Some(Admission::Activated));
    assert_eq!((counts(&lab, A).sent_all, counts(&lab, B).sent_all_late), (2, 0));
}

#[test]
fn r54_r77_senders_hold_on_while_a_vm_that_has_moved_is_paused() {
    let mut lab = begin(&[A, B, C]);
    let pause =
        |ended| Some(ConnectionPause { treatment: WhilePaused::Hold, since_us: 1, limit_s: 10, ended });
    lab.pause(1, pause(None));
    move_to_b(&mut lab);
    for i in [B, C] {
        holds(&mut lab, i);
        assert!(is_held(&lab, i));
    }
    lab.settle();
    lab.pass(1000);
    assert!(is_held(&lab, C), "what it sent before is held at B, perhaps by another worker");
    assert_eq!((counts(&lab, C).markers_sent, counts(&lab, A).markers_passed), (1, 2), "B's own, too");
    lab.pause(1, pause(Some((PauseEnd::Resumed, 2))));
    lab.settle();
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: AT_B }));
    let of = |i| counts(&lab, i);
    assert_eq!((of(C).markers_come, of(C).markers_late, of(B).markers_come), (1, 0, 1));

    // A pause that nobody ends does not keep them longer than it may last.
    let mut lab = begin(&[A, B, C]);
    lab.pause(1, pause(None));
    move_to_b(&mut lab);
    holds(&mut lab, C);
    lab.disconnect(C);
    lab.pass(9000);
    assert!(is_held(&lab, C));
    lab.pass(1100);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
}

#[test]
fn r77_the_new_nve_reports_what_became_of_order() {
    let mut lab = begin(&[A, B, C]);
    move_to_b(&mut lab);
    holds(&mut lab, C);
    lab.settle();
    lab.pass(100);
    let step = lab.hosts[B].said.iter().find_map(|m| match m {
        NveToNva::MoveReport { step: Some(step), .. } if step.what == MoveStepKind::InOrder => Some(step),
        _ => None,
    });
    let note = &step.expect("a step").note;
    assert!(note.contains("1 senders") && note.contains("had left"), "{note}");
}

#[test]
fn r77_a_vm_that_goes_back_is_reached_at_once_where_it_was() {
    let mut lab = begin(&[A, B, C]);
    move_to_b(&mut lab);
    assert!(is_held(&lab, C));
    lab.order_move("m2", 1, B, A);
    lab.settle();
    lab.input(B, Input::PausePort { port: AT_B });
    lab.announce(A, AT_A, 1);
    lab.settle();
    assert_eq!(lab.version(1), lab.nva.records[&vm(1)].version);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(A)), "what went there went before");
}
