//! What a move's history tells of everything that did not go as planned.

use super::*;
use MoveStepKind as K;

fn ready() -> (World, SessionId, SessionId, SessionId) {
    let mut w = World::new();
    let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
    w.take(a, 1);
    w.settle(&[a, b, c]);
    w.start(1, "b", "m").unwrap();
    (w, a, b, c)
}

/// The note of the move's newest step of a kind.
fn note(w: &World, of: &str, what: K) -> Option<String> {
    let m = w.d.move_record(&MoveId(of.into())).unwrap();
    m.steps.iter().rev().find(|s| s.what == what).map(|s| s.note.clone())
}

fn abort(w: &mut World) {
    w.abort_move(&MoveId("m".into())).unwrap();
}

#[test]
fn r49_the_history_says_who_called_a_move_off_and_when() {
    let cases: [(&[(&str, K)], &str); 5] = [
        (&[], "before any NVE was prepared"),
        (&[("a", K::Prepared)], "before b was prepared"),
        (&[("a", K::Prepared), ("b", K::Prepared)], "before the VM was paused"),
        (&[("a", K::Prepared), ("b", K::Prepared), ("a", K::Paused)], "while the VM was paused at a"),
        (&[("a", K::Paused), ("b", K::Activated)], "after the VM ran at b, before its claim"),
    ];
    for (steps, when) in cases {
        let (mut w, a, b, _) = ready();
        for (nve, what) in steps {
            w.step(if *nve == "a" { a } else { b }, "m", *what);
        }
        abort(&mut w);
        assert_eq!(note(&w, "m", K::Aborted), Some(format!("{when}: called off by the operator")));
    }
}

#[test]
fn r49_the_history_says_that_the_vm_was_gone_at_the_call_off() {
    let (mut w, a, _, _) = ready();
    let version = w.vm(1).version;
    w.step(a, "m", K::Paused);
    w.say(a, NveToNva::Withdraw { key: key(1), version });
    abort(&mut w);
    let note = note(&w, "m", K::Aborted).unwrap();
    assert!(note.ends_with("; a had withdrawn the VM, which is detached now"), "{note}");
    assert!(!w.vm(1).is_active());
}

#[test]
fn r21_a_claim_against_a_move_is_in_its_history() {
    let (mut w, _, b, c) = ready();
    for _ in 0..3 {
        assert!(denied(&w.say(c, claim(1, Version::ZERO)), c).is_some());
    }
    w.say(b, claim(1, Version::ZERO));
    let m = w.d.move_record(&MoveId("m".into())).unwrap();
    let refused: Vec<_> = m.steps.iter().filter(|s| s.what == K::Denied).collect();
    assert_eq!(refused.len(), 1, "repetitions are one step");
    assert_eq!(refused[0].nve, Some(id("c")));
    assert!(refused[0].note.contains("VM vm1 is at NVE a"), "{}", refused[0].note);
    assert_eq!(w.phase("m"), MovePhase::Granted, "the move is not disturbed");
}

#[test]
fn r73_a_restart_in_the_midst_is_in_the_history_once() {
    let (mut w, a, _, _) = ready();
    w.step(a, "m", K::Prepared);
    w.pass(200);
    w.restart();
    w.pass(200);
    let (b, _) = w.hello("b");
    w.say(b, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    w.say(b, claim(1, Version::ZERO));
    w.pass(200);
    let steps: Vec<K> = w.d.move_record(&MoveId("m".into())).unwrap().steps.iter().map(|s| s.what).collect();
    assert_eq!(steps, [K::Ordered, K::Prepared, K::Restarted, K::Claimed, K::Granted, K::Done]);
    assert_eq!(note(&w, "m", K::Restarted).unwrap(), "the NVA restarted: epoch 2");
    w.restart();
    w.pass(200);
    let again = w.d.move_record(&MoveId("m".into())).unwrap();
    assert_eq!(again.steps.len(), 6, "a restart after the end is none of its business");
}

#[test]
fn r49_a_move_that_was_overtaken_says_by_which() {
    let (mut w, a, b, c) = ready();
    let out = w.say(b, claim(1, Version::ZERO));
    w.ack(a, &out); // C is told, and silent.
    w.start(1, "c", "n").unwrap();
    w.say(c, claim(1, Version::ZERO));
    let overtaken = "move n took the VM on to c before c had acknowledged";
    assert_eq!(note(&w, "m", K::Overtaken), Some(overtaken.to_owned()));
    assert_eq!(note(&w, "n", K::Overtaken), None);
}

#[test]
fn r49_a_move_whose_vm_left_again_says_so() {
    let (mut w, a, b, _) = ready();
    let out = w.say(b, claim(1, Version::ZERO));
    w.ack(a, &out);
    let version = w.vm(1).version;
    w.say(b, NveToNva::Withdraw { key: key(1), version });
    let note = note(&w, "m", K::Overtaken).unwrap();
    assert!(note.starts_with("the VM was detached, version 1."), "{note}");
}

/// The records of moves that nobody ordered, oldest first.
fn unplanned(w: &World) -> Vec<MoveRecord> {
    w.d.moves(None, false).into_iter().filter(|m| m.origin == MoveOrigin::Unplanned).cloned().collect()
}

fn kinds(m: &MoveRecord) -> Vec<(Option<&str>, K)> {
    m.steps.iter().map(|s| (s.nve.as_ref().map(NveId::as_str), s.what)).collect()
}

/// VM 1 at a, claimed by b on the newest ground.
fn claimed(policy: Unplanned) -> (World, SessionId, SessionId) {
    let mut w = World::new();
    w.policy(policy);
    let (a, b) = (w.join("a"), w.join("b"));
    let held = w.take(a, 1);
    w.settle(&[a, b]);
    w.say(b, claim(1, held.version));
    (w, a, b)
}

#[test]
fn r21_a_claim_that_a_live_vm_contradicts_has_a_record_of_its_own() {
    let (mut w, a, b) = claimed(Unplanned::Verify);
    assert!(unplanned(&w).is_empty(), "the verdict is not known");
    let version = w.vm(1).version;
    for _ in 0..3 {
        w.say(a, NveToNva::Verified { key: key(1), version, alive: true, note: "it answered".into() });
        w.say(b, claim(1, version));
    }
    let told = unplanned(&w);
    let [m] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((m.from.as_str(), m.to.as_str(), m.phase, m.version), ("a", "b", MovePhase::Failed, version));
    let steps = [(Some("b"), K::Claimed), (None, K::Asked), (Some("a"), K::Answered), (None, K::Denied)];
    assert_eq!(kinds(m), steps);
    assert!(w.d.moves(None, true).is_empty(), "it is over");
}

/// Two claim a third one's VM, and the second goes before: what the owner was asked for the first one's sake it
/// answers the second, whose record has both.
#[test]
fn r21_a_second_claimers_record_has_what_the_owner_was_asked() {
    let mut w = World::new();
    w.policy(Unplanned::Verify);
    let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
    let version = w.take(a, 1).version;
    w.settle(&[a, b, c]);
    w.say(c, claim(1, version));
    assert!(denied(&w.say(b, claim(1, version)), c).is_some(), "b has the lower address");
    let answer = NveToNva::Verified { key: key(1), version, alive: false, note: "no port".into() };
    assert!(granted(&w.say(a, answer), b).is_some());

    let told = unplanned(&w);
    let [lost, won] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(kinds(lost), [(Some("c"), K::Claimed), (None, K::Asked), (None, K::Denied)]);
    assert!(lost.steps[2].note.contains("NVE b claims"), "{}", lost.steps[2].note);
    let steps = [(Some("b"), K::Claimed), (None, K::Asked), (Some("a"), K::Answered), (None, K::Granted)];
    assert_eq!(kinds(won)[..4], steps);
}

#[test]
fn r21_a_vm_that_was_started_elsewhere_without_an_order_has_a_move_in_the_list() {
    let (mut w, a, b) = claimed(Unplanned::Verify);
    let version = w.vm(1).version;
    let out = w.say(
        a,
        NveToNva::Verified { key: key(1), version, alive: false, note: "it has no port here".into() },
    );
    assert!(granted(&out, b).is_some());
    assert!(out.iter().any(|o| matches!(o, Output::Persist(Write::PutMove(_)))), "it outlives the NVA");
    w.settle(&[a, b]);
    let told = unplanned(&w);
    let [m] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((m.phase, m.version), (MovePhase::Done, w.vm(1).version));
    let steps = kinds(m);
    assert_eq!(
        steps[..4],
        [(Some("b"), K::Claimed), (None, K::Asked), (Some("a"), K::Answered), (None, K::Granted)]
    );
    assert_eq!(steps.last(), Some(&(None, K::Done)));
    assert!(w.vm(1).moving.is_none());
}

#[test]
fn r57_an_order_with_the_id_of_a_move_that_nobody_ordered_is_refused() {
    let (mut w, a, b) = claimed(Unplanned::Verify);
    let version = w.vm(1).version;
    w.say(a, NveToNva::Verified { key: key(1), version, alive: true, note: "it answered".into() });
    w.settle(&[a, b]);
    let told = unplanned(&w);
    let [m] = told.as_slice() else { panic!("{told:?}") };
    let MoveRecord { id, to, .. } = m.clone();
    let order = w.start(1, "b", &id.0);
    assert_eq!(order, Err(Refusal::MoveIdTaken { id, vm: "vm1".into(), to }));
}

#[test]
fn r22_the_unplanned_move_that_froze_a_vm_says_so_and_so_do_refused_claims() {
    let mut w = World::new();
    w.policy(Unplanned::Accept);
    let sessions = [w.join("a"), w.join("b")];
    w.take(sessions[0], 1);
    for n in 1..=5 {
        w.settle(&sessions);
        assert!(granted(&w.say(sessions[n % 2], claim(1, w.vm(1).version)), sessions[n % 2]).is_some());
    }
    let told = unplanned(&w);
    assert_eq!(told.len(), 5);
    let froze: Vec<bool> = told.iter().map(|m| m.steps.iter().any(|s| s.what == K::Frozen)).collect();
    assert_eq!(froze, [false, false, false, false, true]);
    assert!(denied(&w.say(sessions[0], claim(1, w.vm(1).version)), sessions[0]).is_some());
    let last = unplanned(&w).pop().unwrap();
    assert_eq!((last.to.as_str(), last.phase), ("a", MovePhase::Failed));
    let why = &last.steps.last().unwrap().note;
    assert!(why.contains("frozen at NVE b") && why.contains("vm clear"), "{why}");
}

#[test]
fn r21_a_claim_that_is_refused_while_the_vms_addresses_change_has_one_record() {
    let (mut w, a, b) = claimed(Unplanned::Verify);
    let port = "p9".to_owned();
    w.say(b, NveToNva::Associate { key: key(1), port });
    let provisioned = |out: &[Output]| {
        sent(out, b).iter().any(|m| matches!(m, NvaToNve::Provision { key: of, .. } if *of == key(1)))
    };
    let refuse = |w: &mut World| {
        let version = w.vm(1).version;
        w.say(b, claim(1, version));
        w.say(a, NveToNva::Verified { key: key(1), version, alive: true, note: "it answered".into() })
    };
    assert_eq!(denied(&refuse(&mut w), b), Some(DenyReason::OwnedElsewhere));
    let out = bind::allow(&mut w, 1, bind::virtual_ip(ip(200)));
    assert!(provisioned(&out), "a definition is news for who was refused");
    for n in 0..5 {
        let before = w.vm(1).version;
        // It has the virtual address, or loses it; or it says that it is a router, or none.
        let out = if n % 2 == 0 {
            w.say(a, bind::wish(1, ip(200), true, 0))
        } else {
            let NveToNva::Claim { seq, key, ips, cause, port, overrides, .. } = claim(1, before) else {
                unreachable!()
            };
            let router = Some(n % 4 == 1);
            w.say(a, NveToNva::Claim { seq, key, ips, cause, base: before, port, router, overrides })
        };
        if w.vm(1).version > before {
            assert!(!updated(&out, b).is_empty() && !provisioned(&out), "{n}: {out:?}");
        }
        assert_eq!(denied(&refuse(&mut w), b), Some(DenyReason::OwnedElsewhere));
    }
    assert!(w.vm(1).version.seq >= 7, "it has changed some times");
    assert_eq!(unplanned(&w).len(), 1);
    // It goes and comes: that is another conflict.
    let version = w.vm(1).version;
    w.say(a, NveToNva::Withdraw { key: key(1), version });
    w.take(a, 1);
    refuse(&mut w);
    assert_eq!(unplanned(&w).len(), 2);
}

#[test]
fn r21_records_of_refused_claims_are_bounded_as_all_moves_are() {
    let mut w = World::with(Config { max_moves: 4, ..Config::default() });
    w.policy(Unplanned::Deny);
    let (a, b) = (w.join("a"), w.join("b"));
    for _ in 0..9 {
        // A newer version of the location makes it another conflict.
        let version = w.take(a, 1).version;
        assert!(denied(&w.say(b, claim(1, version)), b).is_some());
        w.say(a, NveToNva::Withdraw { key: key(1), version });
    }
    assert_eq!((unplanned(&w).len(), w.d.moves.refused_count()), (4, 1));
    assert_eq!(w.durable.moves.len(), 4);
}
