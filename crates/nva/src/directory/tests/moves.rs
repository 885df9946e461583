//! Planned moves.

use godwit_model::HandoverCounts;
use godwit_model::message::MoveRole;

use super::*;
use MoveStepKind as K;

fn ready() -> (World, SessionId, SessionId, SessionId) {
    let mut w = World::new();
    let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
    w.take(a, 1);
    w.settle(&[a, b, c]);
    (w, a, b, c)
}

fn prepares(outputs: &[Output], to: SessionId) -> Vec<MoveRole> {
    let of = sent(outputs, to).into_iter().filter_map(|m| match m {
        NvaToNve::MovePrepare { role, .. } => Some(role),
        _ => None,
    });
    of.collect()
}

fn aborts(outputs: &[Output], to: SessionId) -> usize {
    sent(outputs, to).iter().filter(|m| matches!(m, NvaToNve::MoveAbort { .. })).count()
}

fn kinds(w: &World, id: &str) -> Vec<K> {
    w.d.move_record(&MoveId(id.into())).unwrap().steps.iter().map(|s| s.what).collect()
}

fn abort(w: &mut World, id: &str) -> Result<(MoveRecord, Vec<Output>), Refusal> {
    w.abort_move(&MoveId(id.into()))
}

#[test]
fn r49_a_hot_move_from_order_to_done() {
    let (mut w, a, b, c) = ready();
    let (record, out) = w.start(1, "b", "m").unwrap();
    assert_eq!((record.phase, record.from, record.to), (MovePhase::Preparing, id("a"), id("b")));
    assert_eq!((prepares(&out, a), prepares(&out, b)), (vec![MoveRole::Source], vec![MoveRole::Target]));
    let prepared = sent(&out, b).pop();
    let Some(NvaToNve::MovePrepare { record, from, to, .. }) = prepared else { panic!("{prepared:?}") };
    assert_eq!((from.locators, to.locators), (locators(1), locators(2)));
    assert_eq!((record.ipv4, record.moving), (definition(1).ipv4, Some(MoveId("m".into()))));

    w.step(b, "m", K::Prepared);
    assert_eq!(w.phase("m"), MovePhase::Preparing, "one of two");
    w.step(a, "m", K::Prepared);
    assert_eq!(w.phase("m"), MovePhase::Prepared);
    w.step(a, "m", K::Paused);
    assert_eq!(w.phase("m"), MovePhase::Paused);
    w.step(b, "m", K::Activated);
    let out = w.say(b, claim(1, Version::ZERO));
    assert_eq!(w.phase("m"), MovePhase::Granted);
    let out = w.ack(a, &out);
    assert_eq!(w.phase("m"), MovePhase::Granted, "C does not know");
    w.ack(c, &out);
    assert_eq!(w.phase("m"), MovePhase::Done);
    use K::*;
    let expected =
        [Ordered, Prepared, Prepared, Paused, Activated, Claimed, Granted, Acknowledged, Acknowledged, Done];
    assert_eq!(kinds(&w, "m"), expected);
    assert_eq!(w.d.move_record(&MoveId("m".into())).unwrap().version, w.vm(1).version);
    assert_eq!(w.vm(1).moving, None);
    assert_eq!(w.durable.moves[&MoveId("m".into())].record.phase, MovePhase::Done);
}

#[test]
fn r49_the_vm_may_be_faster_than_the_preparations() {
    let (mut w, a, b, c) = ready();
    w.start(1, "b", "m").unwrap();
    w.say(b, claim(1, Version::ZERO));
    assert_eq!(owner(w.vm(1)), Some("b"));
    w.settle(&[a, b, c]);
    assert_eq!(w.phase("m"), MovePhase::Done);
}

#[test]
fn r57_the_same_order_again_is_the_same_move() {
    let (mut w, a, b, _) = ready();
    let (first, _) = w.start(1, "b", "m").unwrap();
    let (again, out) = w.start(1, "b", "m").unwrap();
    assert_eq!((again, out), (first, vec![]));
    assert_eq!(w.d.moves(None, false).len(), 1);
    let taken = Refusal::MoveIdTaken { id: MoveId("m".into()), vm: "vm1".into(), to: id("b") };
    assert_eq!(w.start(1, "c", "m"), Err(taken.clone()));
    w.say(b, claim(1, Version::ZERO));
    w.settle(&[a, b]);
    let (done, _) = w.start(1, "b", "m").unwrap();
    assert_eq!(done.version, w.vm(1).version, "even after its end");
}

#[test]
fn r57_an_order_without_a_name_is_named() {
    let (mut w, a, b, _) = ready();
    let (first, _) = w.start(1, "b", "").unwrap();
    w.take(a, 2);
    let (second, _) = w.start(2, "b", "").unwrap();
    assert_ne!(first.id, second.id);
    let _ = b;
}

#[test]
fn r49_orders_that_make_no_sense_are_refused() {
    let (mut w, a, b, _) = ready();
    let vm = || "vm1".to_owned();
    assert_eq!(w.start(9, "b", "m"), Err(Refusal::UnknownVm("vm9".into())));
    assert_eq!(w.start(1, "x", "m"), Err(Refusal::UnknownNve("x".into())));
    assert_eq!(w.start(2, "b", "m"), Err(Refusal::VmDetached { vm: "vm2".into() }));
    assert_eq!(w.start(1, "a", "m"), Err(Refusal::AlreadyThere { vm: vm(), nve: id("a") }));
    assert_eq!(w.start(1, "b", "two words"), Err(Refusal::BadMoveId("two words".into())));
    w.leave(b);
    assert_eq!(w.start(1, "b", "m"), Err(Refusal::NveNotConnected { nve: id("b") }));
    w.start(1, "c", "m").unwrap();
    assert_eq!(w.start(1, "c", "n"), Err(Refusal::VmMoving { vm: vm(), id: MoveId("m".into()) }));
    assert_eq!(w.d.moves(None, false).len(), 1, "refused orders leave nothing behind");
    let _ = a;
}

#[test]
fn r49_an_abort_before_the_grant_tells_both() {
    let (mut w, a, b, c) = ready();
    w.start(1, "b", "m").unwrap();
    w.step(a, "m", K::Paused);
    let (record, out) = abort(&mut w, "m").unwrap();
    assert_eq!(
        (record.phase, aborts(&out, a), aborts(&out, b), aborts(&out, c)),
        (MovePhase::Aborted, 1, 1, 0)
    );
    assert_eq!((owner(w.vm(1)), w.vm(1).moving.clone()), (Some("a"), None));
    let (_, out) = abort(&mut w, "m").unwrap();
    assert_eq!(out, [], "again is no error");
    let version = w.vm(1).version;
    w.say(b, claim(1, Version::ZERO));
    let verified = NveToNva::Verified { key: key(1), version, alive: true, note: String::new() };
    let out = w.say(a, verified);
    assert_eq!(denied(&out, b), Some(DenyReason::OwnedElsewhere), "the intent is gone");
    w.start(1, "b", "n").unwrap();
}

#[test]
fn r49_an_abort_after_the_grant_is_refused() {
    let (mut w, a, b, c) = ready();
    w.start(1, "b", "m").unwrap();
    w.say(b, claim(1, Version::ZERO));
    let refused = Refusal::MoveGranted { id: MoveId("m".into()), vm: "vm1".into(), to: id("b") };
    assert_eq!(abort(&mut w, "m"), Err(refused.clone()));
    w.settle(&[a, b, c]);
    assert_eq!(abort(&mut w, "m"), Err(refused));
    assert_eq!(abort(&mut w, "x"), Err(Refusal::UnknownMove("x".into())));
}

#[test]
fn r49_an_intent_without_a_claim_ends_by_time() {
    let mut w = World::with(Config { intent_timeout: Span::from_ms(2000), ..Config::default() });
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.settle(&[a, b]);
    w.start(1, "b", "m").unwrap();
    w.pass(1800);
    w.say(a, NveToNva::Keepalive);
    w.say(b, NveToNva::Keepalive);
    assert_eq!(w.phase("m"), MovePhase::Preparing);
    let out = w.pass(300);
    assert_eq!((w.phase("m"), aborts(&out, a), aborts(&out, b)), (MovePhase::Aborted, 1, 1));
    let note = &w.d.move_record(&MoveId("m".into())).unwrap().steps.last().unwrap().note;
    assert!(note.contains("no claim of NVE b within 2 s"), "{note}");
    assert_eq!(owner(w.vm(1)), Some("a"));
}

#[test]
fn r49_an_nve_that_cannot_do_its_part_ends_the_move() {
    let (mut w, a, b, _) = ready();
    w.start(1, "b", "m").unwrap();
    let out = w.step(b, "m", K::Failed);
    assert_eq!((w.phase("m"), aborts(&out, a)), (MovePhase::Failed, 1));
}

#[test]
fn r49_a_bystander_cannot_change_the_phase() {
    let (mut w, _, _, c) = ready();
    w.start(1, "b", "m").unwrap();
    for what in [K::Paused, K::Failed, K::Aborted, K::Prepared] {
        w.step(c, "m", what);
    }
    assert_eq!(w.phase("m"), MovePhase::Preparing);
}

#[test]
fn r49_an_unfinished_move_is_said_again_on_a_new_session() {
    let (mut w, a, b, _) = ready();
    w.start(1, "b", "m").unwrap();
    let (new_a, out) = w.hello("a");
    assert_eq!(prepares(&out, new_a), [MoveRole::Source]);
    w.restart();
    let (new_b, out) = w.hello("b");
    assert_eq!(prepares(&out, new_b), [MoveRole::Target], "also by the next incarnation");
    w.say(new_b, claim(1, Version::ZERO));
    assert_eq!(owner(w.vm(1)), Some("b"), "and the intent still wins");
    let _ = (a, b);
}

#[test]
fn r49_a_move_called_off_while_an_nve_was_away_is_told_when_it_is_back() {
    let (mut w, a, b, _) = ready();
    w.start(1, "b", "m").unwrap();
    w.leave(b);
    abort(&mut w, "m").unwrap();
    let (b, out) = w.hello("b");
    assert_eq!((aborts(&out, b), prepares(&out, b)), (1, vec![]));
    let _ = a;
}

#[test]
fn r38_a_move_does_not_wait_for_an_nve_that_went_away() {
    let (mut w, a, b, c) = ready();
    w.start(1, "b", "m").unwrap();
    let out = w.say(b, claim(1, Version::ZERO));
    w.ack(a, &out);
    assert_eq!(w.phase("m"), MovePhase::Granted);
    w.leave(c);
    assert_eq!(w.phase("m"), MovePhase::Done);
}

#[test]
fn r38_a_move_waits_for_a_dirty_nve_but_not_for_ever() {
    let mut w = World::with(Config { intent_timeout: Span::from_ms(2000), ..Config::default() });
    let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
    w.take(a, 1);
    w.settle(&[a, b, c]);
    w.start(1, "b", "m").unwrap();
    let out = w.say(b, claim(1, Version::ZERO));
    w.ack(a, &out);
    w.pass(1500);
    assert_eq!(w.phase("m"), MovePhase::Granted);
    w.start(1, "c", "n").unwrap(); // The VM itself need not wait.
    w.pass(700);
    assert_eq!(w.phase("m"), MovePhase::Done);
    let m = w.d.move_record(&MoveId("m".into())).unwrap();
    assert!(m.steps.last().unwrap().note.contains("without the acknowledgement of c"));
    assert_eq!(w.vm(1).moving, Some(MoveId("n".into())), "the newer move is not disturbed");
}

#[test]
fn r73_a_granted_move_is_done_after_a_restart() {
    let (mut w, _, b, _) = ready();
    w.start(1, "b", "m").unwrap();
    w.say(b, claim(1, Version::ZERO));
    w.restart();
    assert_eq!(w.phase("m"), MovePhase::Granted);
    w.pass(200);
    assert_eq!(w.phase("m"), MovePhase::Done);
}

#[test]
fn r43_counts_replace_and_go_on_after_the_end() {
    let (mut w, a, b, c) = ready();
    w.start(1, "b", "m").unwrap();
    w.say(b, claim(1, Version::ZERO));
    w.settle(&[a, b, c]);
    for forwarded in [5, 9] {
        let counts = Some(HandoverCounts { forwarded, ..HandoverCounts::default() });
        let out = w.say(a, NveToNva::MoveReport { id: MoveId("m".into()), key: key(1), step: None, counts });
        assert!(out.contains(&Output::MoveChanged(MoveId("m".into()))));
    }
    let m = w.d.move_record(&MoveId("m".into())).unwrap();
    assert_eq!(m.counts.iter().map(|(n, c)| (n.as_str(), c.forwarded)).collect::<Vec<_>>(), [("a", 9)]);
    w.pass(200);
    assert_eq!(w.durable.moves[&MoveId("m".into())].record.counts.len(), 1, "durable a moment later");
}

#[test]
fn r43_the_last_forwarded_packet_is_one_step() {
    let (mut w, a, b, c) = ready();
    w.start(1, "b", "m").unwrap();
    w.say(b, claim(1, Version::ZERO));
    w.settle(&[a, b, c]);
    w.step(a, "m", K::FirstForwarded);
    for _ in 0..5 {
        w.pass(10);
        w.step(a, "m", K::LastForwarded);
    }
    let last = kinds(&w, "m").into_iter().filter(|k| *k == K::LastForwarded).count();
    assert_eq!(last, 1);
}
