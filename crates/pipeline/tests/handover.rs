//! VMs that move: hold, flush, abort, progress reports.

use crate::common::moves::*;
use crate::common::*;
use godwit_pipeline::mem::MemPool;
use godwit_tables::update::*;
use godwit_tables::{DropReason, TablesConfig};
use godwit_wire::{Instant, Span};

#[test]
fn r45_old_nve_holds_then_forwards_in_order() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    for n in 0..10 {
        if n % 2 == 0 { lab.one(UPLINK, &overlay(n)) } else { lab.one(P2, &local(n)) }
    }
    lab.tick();
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.tables.waiting(), 10);
    lab.departed(T4);
    lab.one(UPLINK, &overlay(10));
    lab.settle();
    assert_eq!(numbers(&lab.to(UPLINK)), (0..=10).collect::<Vec<_>>());
    let ttls: Vec<u8> = (0..=10).map(|n| if n % 2 == 0 { 48 } else { 64 }).collect();
    assert_eq!(lab.ttls(), ttls, "R46d for those from the overlay, R3 for our own");
    let stats = lab.report();
    assert_eq!((stats.held, stats.flushed, stats.forwarded), (10, 10, 6));
    assert_eq!((stats.dropped, stats.waiting), (0, 0));
    assert_eq!((stats.first_forward, stats.last_forward), (lab.now, lab.now));
    assert_eq!(lab.tables.counters.worker.forwarded_in_flight, 6);
    assert_eq!(lab.tables.vms.specials(), 1, "the forward entry stays");
}

#[test]
fn r45_new_nve_delivers_what_came_early_first() {
    let mut lab = Lab::new();
    lab.vm(M1, expected(Some(T4)));
    lab.input(UPLINK, &(0..70).map(overlay).collect::<Vec<_>>());
    lab.one(P2, &local(1000));
    assert_eq!(numbers(&lab.to(UPLINK)), [1000], "it still runs there, so local frames go there");
    lab.clear();
    lab.vm(M1, VmState::Local { port: P1 });
    // More is held than one drain sends: newer frames wait their turn.
    lab.one(UPLINK, &overlay(70));
    assert_eq!(numbers(&lab.to(P1)), (0..64).collect::<Vec<_>>());
    lab.one(P2, &local(71));
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), (0..=71).collect::<Vec<_>>());
    let stats = lab.report();
    assert_eq!((stats.held, stats.flushed, stats.forwarded, stats.waiting), (71, 71, 0, 0));
    assert_eq!(lab.tables.vms.specials(), 0);
}

#[test]
fn r77_local_frames_wait_for_the_end_of_their_old_path_and_those_of_the_overlay_do_not() {
    let mut lab = Lab::new();
    lab.vm(M1, expected(Some(T4)));
    lab.input(UPLINK, &(0..5).map(overlay).collect::<Vec<_>>());
    lab.one(P2, &local(100));
    assert_eq!(numbers(&lab.to(UPLINK)), [100], "by the old path");
    lab.clear();
    lab.vm(M1, VmState::Arrived { port: P1, hold: limits(100, 2000) });
    lab.one(P2, &local(101));
    // The old NVE sends the first one back here.
    lab.one(UPLINK, &overlay(100));
    lab.one(P2, &local(102));
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), [0, 1, 2, 3, 4, 100]);
    assert!(!lab.tables.has_sendable(key(M1)), "what is left waits");
    let stats = lab.report();
    assert_eq!((stats.held, stats.flushed, stats.waiting), (7, 5, 2), "control hears of it");
    lab.vm(M1, VmState::Local { port: P1 });
    assert!(lab.tables.has_sendable(key(M1)));
    lab.one(P2, &local(103));
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), [0, 1, 2, 3, 4, 100, 101, 102, 103]);
    assert_eq!(lab.tables.waiting(), 0);
}

#[test]
fn r45_what_a_port_does_not_take_at_once_waits_and_keeps_its_order() {
    let mut lab = Lab::with(&TablesConfig { settle: ms(1000), ..config() });
    lab.vm(M1, VmState::Expected { via: Some(through(T4)), hold: limits(4096, 2000) });
    lab.input(UPLINK, &(0..300).map(overlay).collect::<Vec<_>>());
    lab.vm(M1, VmState::Local { port: P1 });
    // What the old NVE held follows, faster than the port takes it.
    let (mut came, mut got) = (300, Vec::new());
    for round in 0..40 {
        lab.out.port_room = 32;
        if round < 10 {
            lab.input(UPLINK, &(came..came + 50).map(overlay).collect::<Vec<_>>());
            came += 50;
        }
        lab.settle();
        assert!(lab.to(P1).len() <= 32, "the port is not given more than it takes");
        got.extend(numbers(&lab.to(P1)));
        lab.clear();
        lab.wait(ms(1));
    }
    assert_eq!(got, (0..came).collect::<Vec<_>>());
    assert_eq!((lab.tables.waiting(), lab.tables.vms.specials()), (0, 1), "more of it may be on its way");
    lab.wait(ms(1000));
    lab.settle();
    assert_eq!(lab.tables.vms.specials(), 0, "from now on it is like any other");
}

#[test]
fn r45_what_the_old_nve_sends_after_a_late_grant_waits_for_the_port_too() {
    let mut lab = Lab::with(&TablesConfig { settle: ms(1000), ..config() });
    lab.vm(M1, expected(Some(T4)));
    lab.vm(M1, VmState::Local { port: P1 });
    // The NVA is away for longer than a VM that has been activated counts as new.
    lab.wait(ms(1000));
    lab.settle();
    assert_eq!(lab.tables.vms.specials(), 0);
    let hold = limits(4096, 2000);
    lab.apply(Update::VmSettle { key: key(M1), hold });
    lab.apply(Update::VmSettle { key: key(R4), hold });
    assert_eq!(lab.tables.vms.specials(), 1, "a VM of another NVE is as before");
    let mut got = Vec::new();
    lab.out.port_room = 32;
    lab.input(UPLINK, &(0..300).map(overlay).collect::<Vec<_>>());
    while lab.tables.waiting() > 0 || !lab.to(P1).is_empty() {
        lab.settle();
        got.extend(numbers(&lab.to(P1)));
        lab.clear();
        lab.out.port_room = 32;
        lab.wait(ms(1));
    }
    assert_eq!(got, (0..300).collect::<Vec<_>>());
    lab.wait(ms(1000));
    lab.settle();
    assert_eq!(lab.tables.vms.specials(), 0, "it does not count as new for ever");
}

#[test]
fn r35_what_a_vm_that_has_just_moved_here_says_to_whom_it_must_be_asked_for_waits_like_a_handover() {
    let mut lab = Lab::with(&TablesConfig { settle: ms(1000), ..config() });
    let say = |from: u32, to: u32| (from..to).map(|n| numbered(M1, STRANGER, n)).collect::<Vec<_>>();
    lab.vm(M1, expected(Some(T4)));
    lab.vm(M1, VmState::Local { port: P1 });
    lab.input(P1, &say(0, 90));
    assert_eq!(lab.tables.waiting(), 90);
    lab.vm(STRANGER, VmState::Remote { to: through(T4) });
    lab.settle();
    assert_eq!(numbers(&lab.to(UPLINK)), (0..90).collect::<Vec<_>>());
    lab.apply(Update::VmRemove { key: key(STRANGER) });
    lab.clear();
    lab.wait(ms(1000));
    lab.settle();
    lab.input(P1, &say(90, 180));
    assert_eq!(lab.tables.waiting(), 16, "later it is like any other");
}

#[test]
fn r45_expected_with_no_place_to_go_holds_local_frames_too() {
    let mut lab = Lab::new();
    lab.vm(M1, expected(None));
    lab.one(P2, &local(0));
    lab.one(UPLINK, &overlay(1));
    lab.one(P2, &local(2));
    // The directory now tells where it still runs: local frames go, early ones stay.
    lab.vm(M1, expected(Some(T4)));
    lab.one(P2, &local(3));
    lab.settle();
    assert_eq!(numbers(&lab.to(UPLINK)), [0, 2, 3]);
    assert_eq!(lab.tables.waiting(), 1);
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), [1]);
}

#[test]
fn r45_aborted_at_the_old_nve_everything_is_delivered() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    for n in 0..20 {
        if n % 3 == 0 { lab.one(P2, &local(n)) } else { lab.one(UPLINK, &overlay(n)) }
    }
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), (0..20).collect::<Vec<_>>());
}

#[test]
fn r46_aborted_at_the_new_nve_nothing_returns_to_the_overlay() {
    let mut lab = Lab::new();
    lab.vm(M1, expected(None));
    lab.one(UPLINK, &overlay(0));
    lab.one(P2, &local(1));
    lab.one(UPLINK, &overlay(2));
    lab.vm(M1, VmState::Remote { to: through(T4) });
    lab.settle();
    assert_eq!(numbers(&lab.to(UPLINK)), [1]);
    assert_eq!(lab.drops(DropReason::HoldAborted), 2);
    let stats = lab.report();
    assert_eq!((stats.held, stats.flushed, stats.dropped, stats.waiting), (3, 1, 2, 0));
    assert_eq!(lab.tables.vms.specials(), 0);
}

#[test]
fn r45_the_oldest_goes_when_the_limit_is_reached() {
    let mut lab = Lab::new();
    lab.vm(M1, VmState::Paused { hold: limits(5, 2000) });
    for n in 0..12 {
        if n % 2 == 0 { lab.one(P2, &local(n)) } else { lab.one(UPLINK, &overlay(n)) }
    }
    assert_eq!(lab.drops(DropReason::HoldOverflow), 7);
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), [7, 8, 9, 10, 11]);
    let stats = lab.report();
    assert_eq!((stats.held, stats.flushed, stats.dropped), (12, 5, 7));
}

#[test]
fn r45_a_limit_of_nothing_holds_nothing() {
    let mut lab = Lab::new();
    lab.vm(M1, VmState::Paused { hold: limits(0, 2000) });
    dropped(&mut lab, P2, &local(1), DropReason::HoldOverflow);
}

#[test]
fn r45_each_frame_has_its_age() {
    let mut lab = Lab::new();
    lab.vm(M1, VmState::Paused { hold: limits(100, 1000) });
    for n in 0..4 {
        lab.one(P2, &local(n));
        lab.wait(ms(300));
        lab.tick();
    }
    assert_eq!(lab.drops(DropReason::HoldExpired), 1);
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), [1, 2, 3]);
}

#[test]
fn r45_full_memory_lets_the_oldest_go() {
    let mut c = config();
    c.hold_bytes = 4096;
    let mut lab = Lab::with(&c);
    lab.vm(M1, paused());
    for n in 0..100 {
        lab.one(P2, &local(n));
    }
    let held = lab.tables.waiting();
    assert_eq!(lab.drops(DropReason::HoldMemory), 100 - held);
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), (100 - held as u32..100).collect::<Vec<_>>());
    let stats = lab.report();
    assert_eq!((stats.dropped, stats.dropped_memory, stats.bytes), (100 - held, 100 - held, 0));
    assert!((2000..=4096).contains(&stats.peak_bytes), "{stats:?}");
}

/// Holds for unknown destinations leave room to handovers (R35, R45).
#[test]
fn misses_leave_half_of_the_memory_to_handovers() {
    let mut c = config();
    c.hold_bytes = 8192;
    let mut lab = Lab::with(&c);
    for n in 0..16 {
        lab.one(P1, &numbered(M1, mac(0x1000 + n), 1));
        lab.one(P1, &numbered(M1, mac(0x1000 + n), 2));
    }
    assert!(lab.drops(DropReason::HoldMemory) > 0);
    lab.vm(M1, paused());
    lab.one(P2, &local(1));
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), [1]);
}

#[test]
fn no_buffers_lose_nothing() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    lab.input(UPLINK, &(0..10).map(overlay).collect::<Vec<_>>());
    lab.pool = MemPool::of(3);
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), [0, 1, 2]);
    lab.one(UPLINK, &overlay(10));
    let entered = lab.pool.taken();
    lab.pool = MemPool::endless();
    lab.forget_buffers(entered);
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), (0..=10).collect::<Vec<_>>());
}

#[test]
fn removed_while_holding() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    lab.input(UPLINK, &(0..3).map(overlay).collect::<Vec<_>>());
    lab.tick();
    lab.clear();
    lab.apply(Update::VmRemove { key: key(M1) });
    assert_eq!((lab.drops(DropReason::HoldAborted), lab.tables.waiting()), (3, 0));
    assert_eq!(lab.report().dropped, 3);
    dropped(&mut lab, UPLINK, &overlay(4), DropReason::NotLocal);
    lab.tick();
    assert_eq!(lab.tables.vms.specials(), 0);
}

#[test]
fn a_port_that_vanishes_before_the_flush() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    lab.input(UPLINK, &(0..3).map(overlay).collect::<Vec<_>>());
    lab.vm(M1, VmState::Local { port: P1 });
    lab.apply(Update::PortRemove { port: P1 });
    lab.settle();
    assert_eq!((lab.drops(DropReason::PortGone), lab.tables.waiting()), (3, 0));
    assert_eq!(lab.tables.vms.specials(), 0);
}

#[test]
fn progress_is_reported_at_most_every_five_milliseconds_and_at_once_when_empty() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    let mut reports = 0;
    for n in 0..100 {
        lab.one(UPLINK, &overlay(n));
        lab.tick();
        reports += lab.take_events().len();
        lab.wait(Span::from_us(500));
    }
    assert!((9..=11).contains(&reports), "{reports} in 50 ms");
    lab.departed(T4);
    lab.settle();
    let stats = lab.report();
    assert_eq!((stats.waiting, stats.forwarded), (0, 100));
    for _ in 0..100 {
        lab.wait(ms(1));
        lab.tick();
    }
    assert_eq!(lab.take_events(), [], "no change, no report");
}

#[test]
fn counts_begin_anew_with_each_handover() {
    let mut lab = Lab::new();
    lab.vm(M1, paused());
    lab.one(UPLINK, &overlay(0));
    lab.departed(T4);
    lab.settle();
    assert_eq!(lab.report().forwarded, 1);
    lab.vm(M1, expected(Some(T4)));
    lab.one(UPLINK, &overlay(1));
    lab.wait(ms(10));
    lab.tick();
    let stats = lab.report();
    assert_eq!((stats.held, stats.forwarded, stats.first_forward), (1, 0, Instant(0)));
    // Said twice, it is still the same handover.
    lab.vm(M1, expected(Some(T4)));
    lab.one(UPLINK, &overlay(2));
    lab.wait(ms(10));
    lab.tick();
    assert_eq!(lab.report().held, 2);
}

#[test]
fn any_update_twice_ends_in_the_same_state() {
    let mut lab = Lab::new();
    for state in [paused(), expected(None), VmState::Local { port: P1 }, VmState::Remote { to: through(T4) }]
    {
        lab.vm(M1, state);
        let before = lab.tables.vms.special_of(key(M1)).map(|s| s.state);
        lab.vm(M1, state);
        assert_eq!(lab.tables.vms.special_of(key(M1)).map(|s| s.state), before);
    }
    let vms = lab.tables.vms.len();
    lab.apply(Update::VmRemove { key: key(M1) });
    lab.apply(Update::VmRemove { key: key(M1) });
    assert_eq!(lab.tables.vms.len(), vms - 1);
}

#[test]
fn many_vms_move_at_once() {
    let mut lab = Lab::new();
    for n in 0..50 {
        lab.vm(mac(0x100 + n), VmState::Paused { hold: limits(10, 2000) });
        for k in 0..5 {
            lab.one(P2, &numbered(M2, mac(0x100 + n), n as u32 * 10 + k));
        }
    }
    let until = lab.now + ms(1000);
    for n in 0..50 {
        lab.vm(mac(0x100 + n), VmState::Departed { to: through(T4), until });
    }
    lab.settle();
    let sent = numbers(&lab.to(UPLINK));
    assert_eq!(sent.len(), 250);
    for n in 0..50 {
        let of_one: Vec<u32> = sent.iter().copied().filter(|s| s / 10 == n).collect();
        assert_eq!(of_one, (0..5).map(|k| n * 10 + k).collect::<Vec<_>>());
    }
    lab.wait(ms(1000));
    lab.tick();
    assert_eq!((lab.tables.vms.specials(), lab.tables.waiting()), (0, 0));
}

#[test]
fn a_quiet_switch_does_nothing() {
    let mut lab = Lab::new();
    lab.tick();
    assert!(!lab.tables.specials_due(Instant(u64::MAX - 1)));
    lab.tick();
    assert!(lab.out.sent.is_empty());
}

#[test]
fn r45_what_is_held_behind_a_device_that_takes_nothing_grows_old() {
    for to in [VmState::Local { port: P1 }, VmState::Remote { to: through(T4) }] {
        let mut lab = Lab::new();
        lab.out.busy = vec![P1, UPLINK];
        lab.vm(M1, paused());
        lab.input(P2, &(0..5).map(local).collect::<Vec<_>>());
        lab.wait(ms(1900));
        lab.vm(M1, to);
        lab.wait(ms(2000));
        lab.settle();
        assert_eq!(lab.tables.waiting(), 5, "they may go, and have as long again");
        lab.wait(ms(200));
        lab.settle();
        assert_eq!((lab.tables.waiting(), lab.drops(DropReason::HoldExpired)), (0, 5), "{to:?}");
    }
}

#[test]
fn r54_frames_for_a_vm_whose_connections_are_paused_are_dropped_or_wait_for_their_turn() {
    let mut lab = Lab::new();
    lab.vm(M1, VmState::Blocked);
    lab.one(UPLINK, &overlay(1));
    lab.one(P2, &local(2));
    assert_eq!((lab.drops(DropReason::VmPaused), lab.tables.waiting()), (2, 0));
    // Held, and the time of the pause is over: none of them is delivered.
    lab.vm(M1, paused());
    lab.input(UPLINK, &(0..70).map(overlay).collect::<Vec<_>>());
    lab.vm(M1, VmState::Blocked);
    lab.vm(M1, VmState::Local { port: P1 });
    lab.one(UPLINK, &overlay(70));
    lab.settle();
    assert_eq!(numbers(&lab.to(P1)), [70]);
    assert_eq!(lab.drops(DropReason::VmPaused), 72);
}
