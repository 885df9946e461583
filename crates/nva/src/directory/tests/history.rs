//! Bounds of what is remembered, and restoring it.

use super::*;

#[test]
fn a_timeline_is_bounded_and_still_shows_the_end() {
    let mut w = World::with(Config { max_steps: 10, ..Config::default() });
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.start(1, "b", "m").unwrap();
    for _ in 0..50 {
        w.pass(10);
        w.step(a, "m", MoveStepKind::Paused);
    }
    w.say(b, claim(1, Version::ZERO));
    w.settle(&[a, b]);
    let m = w.d.move_record(&MoveId("m".into())).unwrap();
    assert!(m.steps.len() <= 18, "{}", m.steps.len());
    assert_eq!(m.steps.last().unwrap().what, MoveStepKind::Done);
}

#[test]
fn a_note_is_bounded_at_a_character() {
    let mut w = World::new();
    let (a, _b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.start(1, "b", "m").unwrap();
    let step = MoveStep { at_us: 1, nve: None, what: MoveStepKind::Paused, note: "ü".repeat(500) };
    let report = NveToNva::MoveReport { id: MoveId("m".into()), key: key(1), step: Some(step), counts: None };
    w.say(a, report);
    let m = w.d.move_record(&MoveId("m".into())).unwrap();
    assert_eq!(m.steps.last().unwrap().note.len(), 200);
    assert_eq!(m.steps.last().unwrap().nve, Some(id("a")), "the session says who");
}

#[test]
fn the_oldest_finished_moves_are_forgotten() {
    let mut w = World::with(Config { max_moves: 3, ..Config::default() });
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.take(a, 2);
    w.start(2, "b", "open").unwrap();
    for n in 0..4 {
        w.start(1, "b", &format!("m{n}")).unwrap();
        w.abort_move(&MoveId(format!("m{n}"))).unwrap();
    }
    let names = |w: &World| w.d.moves(None, false).iter().map(|m| m.id.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&w), ["open", "m2", "m3"], "an unfinished one stays");
    assert_eq!(w.durable.moves.len(), 3);
    w.restart();
    assert_eq!(names(&w), ["open", "m2", "m3"]);
    let _ = b;
}

#[test]
fn r70_unfinished_moves_are_bounded() {
    let mut w = World::with(Config { max_moves: 2, ..Config::default() });
    let (a, _b) = (w.join("a"), w.join("b"));
    for n in 1..=3 {
        w.take(a, n);
    }
    w.start(1, "b", "m1").unwrap();
    w.start(2, "b", "m2").unwrap();
    assert!(matches!(w.start(3, "b", "m3"), Err(Refusal::Full { .. })));
}

#[test]
fn r70_nves_and_memberships_are_bounded() {
    let mut w = World::with(Config { max_nves: 2, max_vns_per_nve: 2, ..Config::default() });
    let (a, _) = w.hello("a");
    w.hello("b");
    let (c, out) = w.hello("c");
    assert!(out.iter().any(|o| matches!(o, Output::Close { session, .. } if *session == c)));
    for n in 0..3 {
        w.say(a, NveToNva::Subscribe { vni: vni(500 + n), mode: DirectoryMode::Push, lingers: false });
    }
    assert_eq!(w.durable.nves[&id("a")].vnis.len(), 2);
}

#[test]
fn r73_what_was_durable_is_what_is_restored() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.start(1, "b", "m").unwrap();
    w.take(b, 2);
    w.delete_vm("vm3").unwrap();
    assert_eq!(w.durable, w.d.state());
    let before = w.d.state();
    w.restart();
    assert_eq!(State { epoch: 1, ..w.d.state() }, before);
    assert_eq!(w.d.epoch(), 2);
}

#[test]
#[should_panic(expected = "is not above")]
fn r73_an_epoch_is_never_used_twice() {
    let state = State { epoch: 4, ..State::default() };
    let _ = Directory::restore(Config::default(), state, 4);
}
