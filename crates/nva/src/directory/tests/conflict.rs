//! Claims that no move explains, and VMs that go to and fro.

use super::*;

/// VM 1 at a, claimed by b on the newest ground; what that led to.
fn contested(policy: Unplanned) -> (World, SessionId, SessionId, Vec<Output>) {
    let mut w = World::new();
    w.policy(policy);
    let (a, b) = (w.join("a"), w.join("b"));
    let held = w.take(a, 1);
    let out = w.say(b, claim(1, held.version));
    (w, a, b, out)
}

fn verified(w: &World, alive: bool) -> NveToNva {
    NveToNva::Verified { key: key(1), version: w.vm(1).version, alive, note: "looked".into() }
}

fn is_asked(out: &[Output], session: SessionId) -> bool {
    sent(out, session).iter().any(|m| matches!(m, NvaToNve::Verify { .. }))
}

fn is_answered(out: &[Output], session: SessionId) -> bool {
    denied(out, session).is_some() || granted(out, session).is_some()
}

#[test]
fn r21_verify_a_live_victim_keeps_its_binding() {
    let (mut w, a, b, out) = contested(Unplanned::Verify);
    assert!(is_asked(&out, a) && !is_answered(&out, b));
    let again = w.say(b, claim(1, w.vm(1).version));
    assert!(!is_asked(&again, a) && !is_answered(&again, b), "a repeated claim asks nobody again");
    let before = w.vm(1).version;
    let answer = verified(&w, true);
    let out = w.say(a, answer);
    assert_eq!(denied(&out, b), Some(DenyReason::OwnedElsewhere));
    assert_eq!((owner(w.vm(1)), w.vm(1).version), (Some("a"), before));
}

#[test]
fn r21_verify_a_vm_that_is_gone_is_granted_at_once() {
    let (mut w, a, b, _) = contested(Unplanned::Verify);
    let answer = verified(&w, false);
    let out = w.say(a, answer);
    assert!(granted(&out, b).is_some());
    assert_eq!(updated(&out, a).len(), 1, "the loser learns the winner and forwards (R41)");
    assert_eq!(owner(w.vm(1)), Some("b"));
}

#[test]
fn r21_verify_an_old_nve_that_is_away_loses_it_after_three_missed_keepalives() {
    let (mut w, a, b, _) = contested(Unplanned::Verify);
    w.leave(a);
    let mut out = Vec::new();
    for _ in 0..28 {
        out.extend(w.pass(100));
        w.say(b, NveToNva::Keepalive);
    }
    assert!(!is_answered(&out, b), "2.8 s are not three keepalives of a second");
    let out = w.pass(400);
    assert!(granted(&out, b).is_some());
}

#[test]
fn r21_verify_an_old_nve_that_comes_back_is_asked_again() {
    let (mut w, a, b, _) = contested(Unplanned::Verify);
    w.leave(a);
    w.pass(1000);
    let a = w.join("a");
    let out = w.pass(200);
    assert!(is_asked(&out, a));
    let answer = verified(&w, true);
    assert!(denied(&w.say(a, answer), b).is_some());
}

#[test]
fn r21_verify_who_says_nothing_keeps_it() {
    let (mut w, a, b, _) = contested(Unplanned::Verify);
    let mut out = Vec::new();
    for _ in 0..11 {
        out.extend(w.pass(1000));
        w.say(a, NveToNva::Keepalive);
        w.say(b, NveToNva::Keepalive);
    }
    assert_eq!(denied(&out, b), Some(DenyReason::OwnedElsewhere));
    assert_eq!(owner(w.vm(1)), Some("a"));
}

#[test]
fn r21_accept_and_deny_ask_nobody() {
    let (w, a, b, out) = contested(Unplanned::Accept);
    assert!(granted(&out, b).is_some() && !is_asked(&out, a));
    assert_eq!(owner(w.vm(1)), Some("b"));
    let (w, a, b, out) = contested(Unplanned::Deny);
    assert!(denied(&out, b).is_some() && !is_asked(&out, a));
    assert_eq!(owner(w.vm(1)), Some("a"));
}

#[test]
fn r21_of_two_claims_without_a_move_the_newer_base_wins_then_the_lower_address() {
    // c asks first in every case; the bases are those of b and c.
    for (of_b, of_c, winner) in [(0, 0, "b"), (1, 0, "b"), (0, 1, "c")] {
        let mut w = World::new();
        let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
        let held = w.take(a, 1).version;
        let base = |n: u64| Version { seq: held.seq + n, ..held };
        let mut out = w.say(c, claim(1, base(of_c)));
        out.extend(w.say(b, claim(1, base(of_b))));
        let (winner, loser) = if winner == "b" { (b, c) } else { (c, b) };
        assert!(denied(&out, loser).is_some() && !is_answered(&out, winner));
        let answer = verified(&w, false);
        let out = w.say(a, answer);
        let record = granted(&out, winner).unwrap();
        w.settle(&[a, b, c]);
        assert_eq!(w.vm(1), &record, "one winner everywhere");
    }
}

#[test]
fn r21_a_withdrawal_ends_the_waiting() {
    let (mut w, a, b, _) = contested(Unplanned::Verify);
    let version = w.vm(1).version;
    w.say(a, NveToNva::Withdraw { key: key(1), version });
    let out = w.pass(200);
    assert!(is_answered(&out, b), "granted, or told to claim on the newer ground");
}

#[test]
fn r21_a_move_ordered_meanwhile_wins() {
    let (mut w, a, b, _) = contested(Unplanned::Verify);
    let c = w.join("c");
    w.start(1, "c", "m").unwrap();
    let out = w.say(c, claim(1, Version::ZERO));
    assert!(granted(&out, c).is_some());
    let out = w.pass(200);
    assert_eq!(denied(&out, b), Some(DenyReason::StaleVersion));
    let late = verified(&w, false);
    w.say(a, late);
    assert_eq!(owner(w.vm(1)), Some("c"));
}

/// VM 1 goes to and fro between a and b, `n` times.
fn ping_pong(w: &mut World, n: usize) -> [SessionId; 2] {
    let sessions = [w.join("a"), w.join("b")];
    w.take(sessions[0], 1);
    for i in 1..=n {
        let base = w.vm(1).version;
        let out = w.say(sessions[i % 2], claim(1, base));
        assert!(granted(&out, sessions[i % 2]).is_some(), "move {i}");
        w.settle(&sessions);
    }
    sessions
}

#[test]
fn r22_five_ping_pongs_freeze_and_the_operator_clears() {
    let mut w = World::new();
    w.policy(Unplanned::Accept);
    let [a, b] = ping_pong(&mut w, 4);
    assert!(!w.vm(1).frozen);
    let base = w.vm(1).version;
    let out = w.say(b, claim(1, base));
    assert!(granted(&out, b).unwrap().frozen);
    assert!(
        out.iter().any(|o| matches!(o, Output::Log { level: Level::Alarm, text } if text.contains("ALARM")))
    );
    let base = w.vm(1).version;
    assert_eq!(denied(&w.say(a, claim(1, base)), a), Some(DenyReason::Frozen));
    assert!(granted(&w.say(b, claim(1, base)), b).is_some(), "the last owner keeps it");
    assert_eq!(w.start(1, "a", "m"), Err(Refusal::VmFrozen { vm: "vm1".into(), nve: id("b") }));
    w.restart();
    assert!(w.vm(1).frozen, "durable");
    w.clear_vm("vm1").unwrap();
    let (a, _b) = (w.join("a"), w.join("b"));
    let base = w.vm(1).version;
    assert!(granted(&w.say(a, claim(1, base)), a).is_some());
}

#[test]
fn r22_a_restart_of_the_nva_forgets_no_unplanned_move() {
    let mut w = World::new();
    w.policy(Unplanned::Accept);
    ping_pong(&mut w, 4);
    w.restart();
    let [_a, b] = ["a", "b"].map(|nve| w.join(nve));
    let base = w.vm(1).version;
    let out = w.say(b, claim(1, base));
    assert!(granted(&out, b).unwrap().frozen, "the fifth");
    assert!(w.durable.flaps.is_empty(), "nothing is kept of what was frozen");
}

#[test]
fn r22_unplanned_moves_of_long_ago_are_forgotten_on_disk_too() {
    let mut w = World::new();
    w.policy(Unplanned::Accept);
    ping_pong(&mut w, 2);
    assert_eq!(w.durable.flaps.len(), 1);
    w.pass(181_000);
    assert!(w.durable.flaps.is_empty());
}

#[test]
fn r22_a_frozen_vm_is_not_withdrawn() {
    let mut w = World::new();
    w.policy(Unplanned::Accept);
    let [_a, b] = ping_pong(&mut w, 5);
    let version = w.vm(1).version;
    w.say(b, NveToNva::Withdraw { key: key(1), version });
    assert_eq!(owner(w.vm(1)), Some("b"));
}

#[test]
fn r22_ten_planned_moves_do_not_freeze() {
    let mut w = World::new();
    let sessions = [w.join("a"), w.join("b")];
    w.take(sessions[0], 1);
    for i in 1..=10 {
        w.start(1, ["a", "b"][i % 2], &format!("m{i}")).unwrap();
        w.take(sessions[i % 2], 1);
        w.settle(&sessions);
    }
    assert!(!w.vm(1).frozen);
}

#[test]
fn r22_slow_moves_do_not_freeze() {
    let mut w = World::new();
    w.policy(Unplanned::Accept);
    let sessions = [w.join("a"), w.join("b")];
    w.take(sessions[0], 1);
    for i in 1..=6 {
        for _ in 0..50 {
            w.pass(1000);
            sessions.iter().for_each(|s| drop(w.say(*s, NveToNva::Keepalive)));
        }
        let base = w.vm(1).version;
        w.say(sessions[i % 2], claim(1, base));
        w.settle(&sessions);
    }
    assert!(!w.vm(1).frozen);
}
