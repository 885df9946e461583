//! Thousands of random schedules through the virtual fabric.
//!
//! `FABRIC_SCHEDULES` sets how many (100,000), `FABRIC_SEED` the one that `replay` runs.

use godwit_testkit::fabric::{Class, Failure, Invariant, Sabotage, Schedule, Stats, run};

/// Schedules in all, over the tests below.
const SCHEDULES: u64 = 100_000;
/// Tests that share them, so that a machine's processors share the work.
const PARTS: u64 = 8;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name} is no number: {v}")))
}

/// Runs one part of the schedules and says what it has seen.
fn part(n: u64) {
    let each = env("FABRIC_SCHEDULES").unwrap_or(SCHEDULES).div_ceil(PARTS);
    let mut all = Stats::default();
    for seed in n * each..(n + 1) * each {
        match run(&Schedule::random(seed)) {
            Ok(stats) => all += stats,
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("seeds {} to {}: {all}", n * each, (n + 1) * each - 1);
}

/// One eighth of the random schedules, in which all invariants hold: isolation (R13), one owner (R20, R21), intact
/// frames (R7, R44), found VMs (R18, R19, R32), no loss (R28, R45, R49), no loop (R46d), no steady triangle (R48),
/// convergence (R73), bound addresses (R92, R93), no session of a clone (R96).
#[test]
fn schedules_part_1() {
    part(0);
}

/// As the first eighth.
#[test]
fn schedules_part_2() {
    part(1);
}

/// As the first eighth.
#[test]
fn schedules_part_3() {
    part(2);
}

/// As the first eighth.
#[test]
fn schedules_part_4() {
    part(3);
}

/// As the first eighth.
#[test]
fn schedules_part_5() {
    part(4);
}

/// As the first eighth.
#[test]
fn schedules_part_6() {
    part(5);
}

/// As the first eighth.
#[test]
fn schedules_part_7() {
    part(6);
}

/// As the first eighth.
#[test]
fn schedules_part_8() {
    part(7);
}

/// Runs one seed, or finds that it runs well.
#[test]
fn replay() {
    let Some(seed) = env("FABRIC_SEED") else { return };
    match run(&Schedule::random(seed)) {
        Ok(stats) => println!("seed {seed} holds: {stats}"),
        Err(failure) => panic!("{failure:#}"),
    }
}

#[test]
fn r28_who_asks_before_during_and_after_a_move_is_answered_for_the_right_owner() {
    // The invariants look at each answer, and at the end at each request without one.
    let mut all = Stats::default();
    for seed in 0..60 {
        match run(&Schedule::of(Class::Planned, seed)) {
            Ok(stats) => all += stats,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(all.asked_of_moving > 20 && all.asked > 2 * all.asked_of_moving, "{all}");
    assert!(all.answered > all.asked / 2, "repeated requests count once: {all}");
}

#[test]
fn r49_two_vms_that_change_places_lose_nothing() {
    // The invariants look for each frame, and at the end for one owner of each VM, where it runs.
    let mut all = Stats::default();
    for seed in 0..50 {
        match run(&Schedule::swap(seed)) {
            Ok(stats) => all += stats,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert_eq!((all.schedules, all.moves, all.moves_made), (50, 100, 100), "{all}");
    assert_eq!((all.moves_called_off, all.moves_unprepared, all.cold_starts), (0, 0, 0), "{all}");
    assert!(all.frames_held > 1_000 && all.frames_forwarded > 200, "in the midst of traffic: {all}");
    for by in [Sabotage::NoForwarding, Sabotage::NoHandoverHold] {
        let found = (0..50).find_map(|seed| run(&Schedule::swap(seed).broken(by)).err());
        assert_eq!(found.map(|f| f.invariant), Some(Invariant::NoLoss), "{by:?}");
    }
}

#[test]
fn r54_what_is_held_for_a_paused_vm_that_moves_reaches_its_new_switch_in_order() {
    // The invariants look for each frame, and for its place among the others.
    let mut all = Stats::default();
    for seed in 0..40 {
        match run(&Schedule::paused(seed)) {
            Ok(stats) => all += stats,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert_eq!((all.schedules, all.pauses, all.moves, all.moves_made), (40, 40, 40, 40), "{all}");
    // A second of two flows, and what was held once is held again at the new switch.
    assert!(all.frames_held > 40 * 200, "{all}");
    let found = (0..40).find_map(|seed| run(&Schedule::paused(seed).broken(Sabotage::NoHandoverHold)).err());
    assert_eq!(found.map(|f| f.invariant), Some(Invariant::NoLoss));
}

/// Runs schedules until one fails; fails itself where none does.
fn caught(class: Class, by: Sabotage, seeds: u64) -> Failure {
    let found = (0..seeds).find_map(|seed| run(&Schedule::of(class, seed).broken(by)).err());
    found.unwrap_or_else(|| panic!("{by:?} went unnoticed in {seeds} schedules"))
}

#[test]
fn a_switch_that_does_not_forward_is_caught() {
    assert_eq!(caught(Class::Planned, Sabotage::NoForwarding, 50).invariant, Invariant::NoLoss);
}

#[test]
fn a_switch_that_does_not_forward_for_one_that_hears_nothing_is_caught() {
    assert_eq!(caught(Class::Frozen, Sabotage::NoForwarding, 50).invariant, Invariant::NoLoss);
}

#[test]
fn r48_a_detour_that_does_not_end_is_caught() {
    assert_eq!(caught(Class::Frozen, Sabotage::NoRedirects, 50).invariant, Invariant::NoTriangle);
}

#[test]
fn a_switch_that_does_not_hold_for_a_paused_vm_is_caught() {
    assert_eq!(caught(Class::Planned, Sabotage::NoHandoverHold, 50).invariant, Invariant::NoLoss);
}

#[test]
fn a_switch_that_does_not_hold_early_packets_is_caught() {
    assert_eq!(caught(Class::Planned, Sabotage::NoArriveHold, 300).invariant, Invariant::NoLoss);
}

#[test]
fn r77_order_that_is_not_kept_is_caught() {
    assert_eq!(caught(Class::Planned, Sabotage::NoMarkers, 50).invariant, Invariant::Order);
}

#[test]
fn a_store_that_forgets_is_caught() {
    // Whoever looks first: what was said is not there any more, or is not what the switches have.
    let found = caught(Class::NvaFaults, Sabotage::ForgetfulStore, 300).invariant;
    assert!(matches!(found, Invariant::Remembers | Invariant::Converges), "{found:?}");
}

#[test]
fn a_frame_that_comes_twice_is_caught() {
    assert_eq!(caught(Class::Planned, Sabotage::SecretDuplicates, 50).invariant, Invariant::NoDuplicates);
}

#[test]
fn r32_guests_that_cannot_be_found_are_noticed() {
    let found = (0..300).find_map(|seed| {
        let failure = run(&Schedule::of(Class::Stalls, seed).broken(Sabotage::NoAnswers)).err()?;
        (failure.invariant == Invariant::Found).then_some(seed)
    });
    assert!(found.is_some(), "nobody misses guests that say nothing");
}

/// Runs schedules with virtual, learned and nested addresses until one fails as it should.
fn caught_as(invariant: Invariant, class: Class, by: Sabotage, seeds: u64) {
    let fails =
        |seed| run(&Schedule::addresses(class, seed).broken(by)).is_err_and(|f| f.invariant == invariant);
    assert!((0..seeds).any(fails), "{by:?} went unnoticed in {seeds} schedules");
}

#[test]
fn r92_a_virtual_address_has_one_owner_which_is_the_last_to_announce_it() {
    // The invariants look for the owner, for frames to it and for those of others; here is how much they saw.
    let mut all = Stats::default();
    for (seed, class) in (0..60).zip(Class::ALL.iter().cycle()) {
        match run(&Schedule::addresses(*class, seed)) {
            Ok(stats) => all += stats,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(all.takeovers > 60 && all.words_received > 2_000, "{all}");
    assert!(all.words_of_others > 50 && all.addresses_refused > 20, "{all}");
    assert!(all.addresses_bound > 200 && all.addresses_given_back > 0, "{all}");
}

#[test]
fn r92_a_switch_that_does_not_ask_for_virtual_addresses_is_caught() {
    caught_as(Invariant::Owner, Class::Planned, Sabotage::LostBinds, 50);
}

#[test]
fn r92_a_directory_that_gives_virtual_addresses_to_all_is_caught() {
    caught_as(Invariant::Owner, Class::Planned, Sabotage::SharedByAll, 100);
}

#[test]
fn r24_a_switch_that_does_not_tell_of_new_owners_is_caught() {
    caught_as(Invariant::NoLoss, Class::Planned, Sabotage::NoAnnouncer, 100);
}

#[test]
fn r65_a_switch_that_lets_any_source_pass_is_caught() {
    caught_as(Invariant::Spoofed, Class::Planned, Sabotage::UnboundSources, 50);
}

#[test]
fn r93_a_switch_that_gives_addresses_back_unasked_is_caught() {
    caught_as(Invariant::Keeps, Class::Planned, Sabotage::HastyUnbind, 100);
}

#[test]
fn r94_a_switch_that_does_not_forward_for_nested_macs_is_caught() {
    caught_as(Invariant::NoLoss, Class::Planned, Sabotage::NestedNotForwarded, 100);
}

#[test]
fn r58_routed_frames_stay_in_their_domain_and_lose_one_hop() {
    // The invariants look at each frame, at each answer, and at the end at a VM that is gone.
    let mut all = Stats::default();
    for (seed, class) in (0..60).zip(Class::ALL.iter().cycle()) {
        match run(&Schedule::routed(*class, seed)) {
            Ok(stats) => all += stats,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(all.frames_routed > 5_000 && all.moves_made > 60, "{all}");
}

/// Runs schedules with routing domains until one fails as it should.
fn caught_routed(invariant: Invariant, by: Sabotage, seeds: u64) {
    let fails = |seed| {
        run(&Schedule::routed(Class::Planned, seed).broken(by)).is_err_and(|f| f.invariant == invariant)
    };
    assert!((0..seeds).any(fails), "{by:?} went unnoticed in {seeds} schedules");
}

#[test]
fn r58_a_switch_that_has_one_domain_only_is_caught() {
    caught_routed(Invariant::Isolation, Sabotage::OneDomain, 50);
}

#[test]
fn r58_a_switch_that_routes_twice_is_caught() {
    caught_routed(Invariant::Hops, Sabotage::RoutedTwice, 20);
}

#[test]
fn r28_r58_a_switch_that_answers_for_vms_that_are_gone_is_caught() {
    caught_routed(Invariant::Ghost, Sabotage::AnswersForGone, 50);
}

#[test]
fn r85_a_drained_switch_is_empty_in_the_end_and_nobody_comes_to_it_meanwhile() {
    let mut all = Stats::default();
    for class in [Class::Planned, Class::Cuts, Class::NvaFaults] {
        for seed in 0..20 {
            match run(&Schedule::drained(class, seed)) {
                Ok(stats) => all += stats,
                Err(failure) => panic!("{failure}"),
            }
        }
    }
    assert!(all.drains == 60 && all.drained > 30 && all.moves_made >= all.drained, "{all}");
}

#[test]
fn r85_a_drained_switch_that_takes_vms_is_caught() {
    let found = (0..50)
        .find_map(|seed| run(&Schedule::drained(Class::Planned, seed).broken(Sabotage::Undrained)).err());
    assert_eq!(found.map(|f| f.invariant), Some(Invariant::Drained));
}
