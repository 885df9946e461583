//! Senders that do not learn and packets that go round: both are named, and the directory is asked.

use crate::lab::said::{A, B, C, queries, warned};
use crate::lab::{Lab, PORT, key, locator, nve_id, vm};
use godwit_tables::event::Event;
use godwit_tables::update::VmState;

#[test]
fn r46_r48_a_sender_that_does_not_learn_is_named() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    let stale = |sender| Event::StaleSender { key: key(1), sender };
    lab.event(A, stale(locator(C)));
    assert_eq!(lab.hosts[A].alarms(), 0, "in flight is no fault");
    lab.event(A, stale(locator(B)));
    assert_eq!(queries(&lab, A).len(), 1, "R46e: our own forward target sends here");
    lab.pass(6_000);
    for _ in 0..10 {
        lab.event(A, stale(locator(C)));
    }
    assert_eq!(lab.hosts[A].alarms(), 1);
}

#[test]
fn r46_who_sends_packets_round_is_named() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.run_vm(C, 3);
    let (sender, to) = (locator(B), locator(C));
    // Also where no forward entry is left that would name the VM's new NVE.
    lab.event(A, Event::TtlExhausted { key: key(9), sender, to });
    assert_eq!(lab.hosts[A].alarms(), 1);
    for who in [format!("{} ({sender})", nve_id(B)), format!("{} ({to})", nve_id(C)), vm(9).to_string()] {
        assert!(warned(&lab, A, &who), "{who}: {:?}", lab.hosts[A].notes);
    }
    assert_eq!(queries(&lab, A).len(), 1, "if it is us, the directory says so");
}

#[test]
fn r46e_a_frame_from_where_we_forward_to_is_a_question() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    lab.event(A, Event::StaleSender { key: key(1), sender: locator(C) });
    assert_eq!(queries(&lab, A), [0u64; 0], "another sender may just be late");
    lab.event(A, Event::StaleSender { key: key(1), sender: locator(B) });
    lab.event(A, Event::StaleSender { key: key(1), sender: locator(B) });
    assert_eq!(queries(&lab, A).len(), 1, "B sends what it should deliver: one of us is wrong");
}
