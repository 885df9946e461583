//! Entries whose life nears its end: used ones are told of, and no frame notices (R40).

use crate::common::*;
use godwit_tables::event::Event;
use godwit_tables::update::*;

fn ageing() -> VmState {
    VmState::Ageing { to: through(T4) }
}

#[test]
fn r40_the_first_frame_raises_one_event_and_all_frames_go_on() {
    let mut lab = Lab::new();
    lab.vm(R4, ageing());
    lab.input(P1, &(1..=5).map(|n| numbered(M1, R4, n)).collect::<Vec<_>>());
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2, 3, 4, 5], "in order");
    assert_eq!(lab.take_events(), [Event::InUse { key: key(R4) }]);
    lab.input(P1, &(6..=9).map(|n| numbered(M1, R4, n)).collect::<Vec<_>>());
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(lab.take_events(), [], "once");
    lab.vm(R4, ageing());
    lab.one(P1, &numbered(M1, R4, 10));
    assert_eq!(lab.take_events(), [Event::InUse { key: key(R4) }], "watched again, told again");
}

#[test]
fn r40_a_use_that_control_could_not_hear_of_is_told_with_the_next_frame() {
    let mut lab = Lab::new();
    lab.vm(R4, ageing());
    lab.out.event_room = 0;
    lab.input(P1, &(1..=3).map(|n| numbered(M1, R4, n)).collect::<Vec<_>>());
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2, 3], "and frames go on");
    assert_eq!(lab.tables.counters.worker.events_dropped, 3);
    lab.out.event_room = usize::MAX;
    lab.input(P1, &[numbered(M1, R4, 4), numbered(M1, R4, 5)]);
    assert_eq!(lab.take_events(), [Event::InUse { key: key(R4) }]);
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2, 3, 4, 5]);
}

#[test]
fn r40_a_busy_entry_loses_and_holds_nothing_over_many_lives() {
    let mut lab = Lab::new();
    for life in 0..50 {
        lab.vm(R4, ageing());
        lab.input(P1, &(1..=20).map(|n| numbered(M1, R4, life * 20 + n)).collect::<Vec<_>>());
        lab.vm(R4, VmState::Remote { to: through(T4) });
        lab.tick();
        lab.wait(ms(1000));
    }
    assert_eq!(numbers(&lab.to(UPLINK)), (1..=1000).collect::<Vec<_>>());
    assert_eq!(lab.tables.waiting(), 0);
    assert_eq!((lab.tables.counters.worker.held, lab.tables.vms.specials()), (0, 0));
    assert_eq!(lab.take_events().len(), 50);
}

#[test]
fn r40_what_comes_from_the_overlay_is_no_use() {
    let mut lab = Lab::new();
    lab.vm(R4, ageing());
    let inner = numbered(R6, R4, 1);
    lab.one(UPLINK, &vxlan().frame(&inner));
    assert_eq!(lab.out.sent.len(), 0, "R46a");
    assert!(!lab.take_events().contains(&Event::InUse { key: key(R4) }));
}

#[test]
fn r40_a_tunnel_that_is_not_ready_lets_frames_wait_as_ever() {
    let mut lab = Lab::new();
    lab.vm(STRANGER, VmState::Ageing { to: through(PENDING) });
    lab.one(P1, &numbered(M1, STRANGER, 1));
    assert_eq!((lab.tables.waiting(), lab.out.sent.len()), (1, 0));
    assert_eq!(lab.take_events(), [Event::InUse { key: key(STRANGER) }]);
    // Said while frames wait: it is watched when they are gone.
    lab.vm(STRANGER, VmState::Ageing { to: through(PENDING) });
    lab.tunnel(PENDING, NVE_C.into());
    lab.settle();
    assert_eq!(numbers(&lab.to(UPLINK)), [1]);
    lab.one(P1, &numbered(M1, STRANGER, 2));
    assert_eq!(numbers(&lab.to(UPLINK)), [1, 2]);
    assert_eq!(lab.take_events(), [Event::InUse { key: key(STRANGER) }]);
    lab.apply(Update::VmRemove { key: key(STRANGER) });
    lab.one(P1, &numbered(M1, STRANGER, 3));
    assert!(matches!(lab.take_events()[..], [Event::MissMac { .. }]), "gone, it is asked for");
}
