//! Storms of ARP, ND, RARP and unknown destinations from one VM, as frames (R67).

use crate::common::*;
use godwit_tables::event::Event;
use godwit_tables::{DropReason, TablesConfig};
use godwit_testkit::frames::{self, Nd};
use godwit_wire::{Mac, Span};

/// The rates of a switch that nobody configured.
fn lab() -> Lab {
    let TablesConfig { question_rate, resolution_rate, .. } = TablesConfig::default();
    let large =
        TablesConfig { special_capacity: 8192, miss_capacity: 4096, misses_per_port: 256, ..config() };
    let large = TablesConfig { ask_capacity: 256, asks_per_port: 64, ..large };
    Lab::with(&TablesConfig { question_rate, resolution_rate, ..large })
}

fn questions(lab: &mut Lab) -> usize {
    lab.take_events().iter().filter(|e| matches!(e, Event::MissIp { .. } | Event::MissMac { .. })).count()
}

/// So many frames a second: a hundred times what is allowed.
const STORM: u32 = 20_000;

/// The frames of `one`, [`STORM`] a second, for `ms` milliseconds; how many questions they led to.
fn storm(lab: &mut Lab, ms: u32, one: impl Fn(u32) -> Vec<u8>) -> usize {
    let mut asked = 0;
    for n in 0..STORM / 1000 * ms {
        lab.one(P1, &one(n));
        lab.now = lab.now + Span::from_us(1_000_000 / u64::from(STORM));
        if n % (STORM / 1000) == 0 {
            lab.tick();
            asked += questions(lab);
            lab.clear();
        }
    }
    asked
}

#[test]
fn r67_a_vm_that_scans_asks_50_times_a_second_and_others_are_answered_at_once() {
    let mut lab = lab();
    lab.neighbor(v4(4), R4);
    let scan = |n: u32| frames::arp_request(M1, v4(1), (0x0a01_0000 + n).into());
    let asked = storm(&mut lab, 2000, scan);
    assert!((100..=151).contains(&asked), "{asked}: a burst of 50, then 50 a second");
    let looked_at = 40_000 - lab.drops(DropReason::ResolutionLimit);
    assert!((390..=400).contains(&looked_at), "{looked_at}: 200, then 100 a second");
    // In the midst of it another VM has its answers, and its questions go to the directory.
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(4)));
    assert_eq!(lab.only().0, P2);
    lab.one(P2, &frames::arp_request(M2, v4(2), v4(77)));
    assert_eq!(questions(&mut lab), 1);
}

#[test]
fn r67_unknown_destinations_raise_50_questions_a_second() {
    let mut lab = lab();
    let scan = |n: u32| numbered(M1, mac((0x10_0000 + n).into()), n);
    let asked = storm(&mut lab, 2000, scan);
    assert!((100..=151).contains(&asked), "{asked}");
    assert!(lab.drops(DropReason::MissLimit) > 39_800);
    lab.one(P2, &numbered(M2, mac(0x7777), 1));
    assert_eq!(questions(&mut lab), 1, "the other port's share is its own");
}

#[test]
fn r67_every_kind_of_announcement_counts_and_data_does_not() {
    for kind in 0..4 {
        let mut lab = lab();
        let one = |_| match kind {
            0 => frames::garp(M1, v4(1)),
            1 => frames::rarp_announce(M1),
            2 => Nd::announce(M1, v6(1)).frame(),
            _ => Nd::solicit(M1, v6(1), v6(9)).frame(),
        };
        storm(&mut lab, 1000, one);
        let looked_at = 20_000 - lab.drops(DropReason::ResolutionLimit);
        assert!((290..=300).contains(&looked_at), "{kind}: {looked_at}");
        // What the VM says to its peers goes on.
        lab.clear();
        lab.one(P1, &numbered(M1, M2, 5));
        assert_eq!(lab.only().0, P2);
    }
}

/// Of 250 at once the first 200 are looked at, and the trace says so of the next.
#[track_caller]
fn counts(lab: &mut Lab, frame: &[u8]) {
    lab.input(P1, &vec![frame.to_vec(); 250]);
    assert_eq!(lab.drops(DropReason::ResolutionLimit), 50);
    let verdict = godwit_pipeline::trace::trace(&lab.tables, P1, frame, lab.now).verdict();
    assert_eq!(verdict, godwit_pipeline::trace::Ending::Drop(DropReason::ResolutionLimit));
}

/// M1 asks R4 whether it is there, and answers that it is there itself.
fn to_one() -> [Vec<u8>; 2] {
    let to_r4 = |nd: Nd| Nd { eth: (M1, R4), ip: (v6(1), v6(4)), ..nd }.frame();
    [to_r4(Nd::solicit(M1, v6(1), v6(4))), to_r4(Nd { flags: 0x60, ..Nd::announce(M1, v6(1)) })]
}

#[test]
fn r67_asking_one_neighbor_whether_it_is_there_counts() {
    for frame in to_one() {
        let mut lab = lab();
        counts(&mut lab, &frame);
        assert_eq!(lab.to(UPLINK).len(), 200);
    }
    let mut lab = lab();
    let ping = frames::ping((M1, v6(1).into()), (R4, v6(4).into()), 1, b"x");
    lab.input(P1, &vec![ping; 250]);
    assert_eq!(lab.to(UPLINK).len(), 250, "other ICMP is data");
}

#[test]
fn r67_tagged_resolution_counts() {
    let [asks, answers] = to_one();
    for frame in [
        frames::arp_request(M1, v4(1), v4(4)),
        frames::arp_reply(M1, v4(1), R4, v4(4)),
        frames::rarp_announce(M1),
        Nd::solicit(M1, v6(1), v6(4)).frame(),
        asks,
        answers,
    ] {
        let one = frames::tagged(&frame, 0x8100, 7);
        for tagged in [frames::tagged(&one, 0x88a8, 9), one] {
            let mut lab = lab();
            lab.vn(VN, vni(), true);
            counts(&mut lab, &tagged);
        }
    }
}

#[test]
fn r67_the_trace_says_that_the_limit_is_reached() {
    let mut lab = lab();
    let frame = frames::garp(M1, v4(1));
    for _ in 0..300 {
        lab.one(P1, &frame);
    }
    let verdict = godwit_pipeline::trace::trace(&lab.tables, P1, &frame, lab.now).verdict();
    assert_eq!(verdict, godwit_pipeline::trace::Ending::Drop(DropReason::ResolutionLimit));
    lab.wait(ms(10));
    let verdict = godwit_pipeline::trace::trace(&lab.tables, P1, &frame, lab.now).verdict();
    assert_eq!(verdict, godwit_pipeline::trace::Ending::Consumed);
}

#[test]
fn r67_who_may_not_ask_any_more_has_his_frames_dropped_at_once_and_those_for_known_vms_go() {
    let mut lab = lab();
    let unknown = |n: u64| mac(0x10_0000 + n);
    lab.input(P1, &(0..60).map(|n| numbered(M1, unknown(n.into()), n)).collect::<Vec<_>>());
    assert_eq!((questions(&mut lab), lab.drops(DropReason::MissLimit)), (50, 10), "a burst of 50");
    lab.clear();
    // What was asked for is held, what is known goes, in order; what cannot be asked for is dropped.
    let to = [unknown(3), R4, unknown(99), unknown(98), R4, Mac::ZERO, unknown(3), unknown(99), M2];
    let burst: Vec<_> = (100..).zip(to).map(|(n, to)| numbered(M1, to, n)).collect();
    let held = lab.tables.waiting();
    lab.input(P1, &burst);
    assert_eq!(questions(&mut lab), 0);
    assert_eq!((lab.tables.waiting() - held, lab.drops(DropReason::MissLimit)), (2, 13));
    assert_eq!(lab.drops(DropReason::UnknownUnicast), 1);
    assert_eq!((numbers(&lab.to(UPLINK)), numbers(&lab.to(P2))), (vec![101, 104], vec![108]));
}

#[test]
fn r67_the_last_question_of_a_burst_keeps_the_frames_after_it() {
    let mut lab = lab();
    let unknown = |n: u32| mac(0x10_0000 + u64::from(n));
    lab.input(P1, &(0..49).map(|n| numbered(M1, unknown(n), n)).collect::<Vec<_>>());
    let to = [7777, 8888, 7777, 7777, 8888];
    let burst: Vec<_> = (100..).zip(to).map(|(n, to)| numbered(M1, unknown(to), n)).collect();
    let held = lab.tables.waiting();
    lab.input(P1, &burst);
    assert_eq!((lab.tables.waiting() - held, lab.drops(DropReason::MissLimit)), (3, 2));
}
