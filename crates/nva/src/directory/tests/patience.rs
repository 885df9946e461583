//! Moves that take long, claims that come late or all at once, definitions that cross claims.

use super::*;
use MoveStepKind as K;
use godwit_model::message::MoveRole;

const PATIENCE: u64 = 2000;

/// VM 1 at a, ordered to b as move m; time is short here.
fn ordered(policy: Unplanned) -> (World, SessionId, SessionId) {
    let (intent_timeout, pause_limit) = (Span::from_ms(PATIENCE), Span::from_ms(5000));
    let mut w = World::with(Config { intent_timeout, pause_limit, ..Config::default() });
    w.policy(policy);
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.settle(&[a, b]);
    w.start(1, "b", "m").unwrap();
    (w, a, b)
}

/// Time passes while both are heard.
fn pass(w: &mut World, sessions: [SessionId; 2], ms: u64) -> Vec<Output> {
    let mut all = Vec::new();
    for _ in 0..ms / 100 {
        for s in sessions {
            all.extend(w.say(s, NveToNva::Keepalive));
        }
        all.extend(w.pass(100));
    }
    all
}

fn alive(w: &mut World, session: SessionId) {
    let id = MoveId("m".into());
    w.say(session, NveToNva::MoveReport { id, key: key(1), step: None, counts: None });
}

fn reason(w: &World) -> String {
    w.d.move_record(&MoveId("m".into())).unwrap().steps.last().unwrap().note.clone()
}

#[test]
fn r49_patience_runs_from_the_last_sign_of_life() {
    let (mut w, a, b) = ordered(Unplanned::Verify);
    for turn in 0..6 {
        pass(&mut w, [a, b], PATIENCE * 3 / 4);
        assert_eq!(w.phase("m"), MovePhase::Preparing, "turn {turn}");
        match turn % 3 {
            0 => drop(w.start(1, "b", "m").unwrap()),
            1 => alive(&mut w, a),
            _ => drop(w.step(b, "m", K::Prepared)),
        }
    }
    pass(&mut w, [a, b], PATIENCE + 200);
    assert_eq!(w.phase("m"), MovePhase::Aborted);
    assert!(reason(&w).contains("no claim of NVE b within 2 s of the last sign"), "{}", reason(&w));
}

#[test]
fn r49_a_pause_has_a_limit_that_no_sign_moves() {
    let (mut w, a, b) = ordered(Unplanned::Verify);
    w.step(a, "m", K::Paused);
    for _ in 0..4 {
        pass(&mut w, [a, b], 1000);
        alive(&mut w, a);
        assert_eq!(w.phase("m"), MovePhase::Paused);
    }
    pass(&mut w, [a, b], 1200);
    assert_eq!(w.phase("m"), MovePhase::Aborted);
    assert!(reason(&w).contains("no claim of NVE b within 5 s of the VM's pause"), "{}", reason(&w));
}

#[test]
fn r49_a_pause_that_is_over_ends_no_move() {
    let (mut w, a, b) = ordered(Unplanned::Verify);
    for (nve, what) in [(a, K::Prepared), (b, K::Prepared), (a, K::Paused), (a, K::Activated)] {
        w.step(nve, "m", what);
    }
    assert_eq!(w.phase("m"), MovePhase::Prepared, "the VM runs at a again");
    for _ in 0..6 {
        pass(&mut w, [a, b], 1000);
        alive(&mut w, a);
    }
    assert_eq!(w.phase("m"), MovePhase::Prepared);
    // The next pause has its own time.
    w.step(a, "m", K::Paused);
    for _ in 0..4 {
        pass(&mut w, [a, b], 1000);
        alive(&mut w, a);
        assert_eq!(w.phase("m"), MovePhase::Paused);
    }
    pass(&mut w, [a, b], 1200);
    assert_eq!(w.phase("m"), MovePhase::Aborted);
    assert!(reason(&w).contains("within 5 s of the VM's pause"), "{}", reason(&w));
    // What the new NVE says of its own port is no word on the pause.
    let (mut w, a, b) = ordered(Unplanned::Verify);
    w.step(a, "m", K::Paused);
    w.step(b, "m", K::Activated);
    assert_eq!(w.phase("m"), MovePhase::Paused);
}

#[test]
fn r49_the_order_repeated_begins_the_patience_with_a_pause_anew() {
    let (mut w, a, b) = ordered(Unplanned::Verify);
    w.step(a, "m", K::Paused);
    for _ in 0..6 {
        pass(&mut w, [a, b], 1500);
        let (record, out) = w.start(1, "b", "m").unwrap();
        assert_eq!(record.phase, MovePhase::Paused);
        let again = |m: &NvaToNve| matches!(m, NvaToNve::MovePrepare { role: MoveRole::Source, .. });
        assert_eq!(sent(&out, a).iter().filter(|m| again(m)).count(), 1, "whether it still stands");
        w.step(a, "m", K::Paused);
    }
    for _ in 0..4 {
        alive(&mut w, a);
        pass(&mut w, [a, b], 1000);
    }
    assert_eq!(w.phase("m"), MovePhase::Paused);
    alive(&mut w, a);
    pass(&mut w, [a, b], 1200);
    assert!(reason(&w).contains("within 5 s of the VM's pause"), "{}", reason(&w));
}

#[test]
fn r49_the_same_order_takes_up_a_move_that_time_has_ended() {
    for restart in [false, true] {
        let (mut w, mut a, mut b) = ordered(Unplanned::Deny);
        pass(&mut w, [a, b], PATIENCE + 200);
        assert_eq!(w.phase("m"), MovePhase::Aborted);
        if restart {
            w.restart();
            (a, b) = (w.join("a"), w.join("b"));
            // What runs at a is claimed again there.
            w.say(a, claim(1, w.vm(1).version));
        }
        let (record, out) = w.start(1, "b", "m").unwrap();
        assert_eq!((record.phase, w.vm(1).moving.clone()), (MovePhase::Preparing, Some(record.id)));
        for s in [a, b] {
            assert!(
                sent(&out, s).iter().any(|m| matches!(m, NvaToNve::MovePrepare { .. })),
                "restart {restart}"
            );
        }
        w.say(b, claim(1, w.vm(1).version));
        assert_eq!(owner(w.vm(1)), Some("b"));
    }
}

#[test]
fn r49_a_move_that_the_operator_called_off_stays_so() {
    let (mut w, ..) = ordered(Unplanned::Verify);
    w.abort_move(&MoveId("m".into())).unwrap();
    let (record, _) = w.start(1, "b", "m").unwrap();
    assert_eq!((record.phase, w.vm(1).moving.clone()), (MovePhase::Aborted, None));
}

#[test]
fn r49_r21_a_late_claim_of_an_ordered_move_is_not_refused_by_policy() {
    let (mut w, a, b) = ordered(Unplanned::Deny);
    pass(&mut w, [a, b], PATIENCE + 200);
    let version = w.vm(1).version;
    let out = w.say(b, claim(1, version));
    assert_eq!(denied(&out, b), None, "the old NVE is asked");
    assert!(sent(&out, a).contains(&NvaToNve::Verify { key: key(1), version }));
    w.say(a, NveToNva::Verified { key: key(1), version, alive: false, note: "it left".into() });
    assert_eq!(owner(w.vm(1)), Some("b"));
    assert!(matches!(w.phase("m"), MovePhase::Granted | MovePhase::Done));
    // A stranger's claim is refused as ever.
    let c = w.join("c");
    let out = w.say(c, claim(1, w.vm(1).version));
    assert_eq!(denied(&out, c), Some(DenyReason::OwnedElsewhere));
}

#[test]
fn r55_a_claim_with_the_addresses_of_before_is_made_again() {
    let mut w = World::new();
    let a = w.join("a");
    let before = w.vm(1).version;
    let more = VmDefinition { ipv4: vec![Ipv4Addr::new(192, 168, 0, 77)], ..definition(1) };
    w.define_vm(more).unwrap();
    for base in [Version::ZERO, before] {
        let out = w.say(a, claim(1, base));
        assert_eq!(denied(&out, a), Some(DenyReason::StaleVersion), "base {base}");
    }
    let out = w.say(a, claim(1, w.vm(1).version));
    assert_eq!(
        denied(&out, a),
        Some(DenyReason::AddressMismatch),
        "who knows the record names its addresses"
    );
}

#[test]
fn r18_an_order_repeated_reaches_who_has_a_port_for_the_vm() {
    let mut w = World::new();
    let a = w.join("a");
    w.say(a, NveToNva::Associate { key: key(1), port: "p1".into() });
    let (_, out) = w.define_vm(definition(1)).unwrap();
    let told = |out: &[Output], to| {
        sent(out, to).iter().filter(|m| matches!(m, NvaToNve::Provision { record: Some(_), .. })).count()
    };
    assert_eq!(told(&out, a), 1);
    // So does somebody's question for a VM that is nowhere (R32).
    let b = w.join("b");
    let by = godwit_model::message::QueryBy::Mac(key(1).mac);
    let out = w.say(b, NveToNva::Query { seq: 3, vni: vni(100), by });
    assert_eq!((told(&out, a), told(&out, b)), (1, 0));
}

#[test]
fn r18_claims_beyond_the_bound_are_not_refused() {
    let mut w = World::with(Config { max_contests: 1, ..Config::default() });
    let (a, b) = (w.join("a"), w.join("b"));
    for n in 1..=3 {
        w.take(a, n);
    }
    w.settle(&[a, b]);
    for n in 1..=3 {
        let out = w.say(b, claim(n, w.vm(n).version));
        assert_eq!(denied(&out, b), None, "VM {n}");
    }
    // The owner is gone; each comes again and finds room in time.
    w.leave(a);
    for _ in 0..4 {
        for n in 1..=3 {
            w.say(b, NveToNva::Keepalive);
            let out = w.say(b, claim(n, w.vm(n).version));
            assert_eq!(denied(&out, b), None);
        }
        w.pass(1500);
    }
    assert!((1..=3).all(|n| owner(w.vm(n)) == Some("b")));
}
