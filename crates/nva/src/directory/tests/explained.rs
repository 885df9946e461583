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
    w.order(|d, now, wall| d.abort_move(now, wall, &MoveId("m".into()))).unwrap();
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
    assert_eq!(w.vm(1).state, BindingState::Detached);
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
    w.say(b, NveToNva::Subscribe { vni: vni(100) });
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
