//! Moves that interrupt their VM: warm and cold ones, their capability, and what is refused.

use godwit_model::message::MoveRole;

use super::*;
use MoveStepKind as K;

/// vm1 is at A; B and C are there.
fn ready() -> (World, SessionId, SessionId, SessionId) {
    let mut w = World::new();
    let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
    w.take(a, 1);
    w.settle(&[a, b, c]);
    (w, a, b, c)
}

fn withdraw(w: &mut World, session: SessionId) -> Vec<Output> {
    let version = w.vm(1).version;
    w.say(session, NveToNva::Withdraw { key: key(1), version })
}

fn report(w: &mut World, phase: MovePhase) -> Result<MovePhase, Refusal> {
    let (record, _): (MoveRecord, _) = w.order(Order::ReportMove { id: MoveId("m".into()), phase })?;
    Ok(record.phase)
}

fn mirror(w: &mut World, to: Option<(&str, u32)>) -> Result<VmRecord, Refusal> {
    let to = to.map(|(nve, s)| (id(nve), s));
    w.order(Order::SetMirror { vm: "vm1".into(), to }).map(|(record, _)| record)
}

fn mirrored(w: &mut World, at_us: Option<u64>) -> Result<VmRecord, Refusal> {
    w.order(Order::VmMirrored { vm: "vm1".into(), at_us }).map(|(record, _)| record)
}

fn kinds(w: &World) -> Vec<K> {
    w.d.move_record(&MoveId("m".into())).unwrap().steps.iter().map(|s| s.what).collect()
}

fn alarms(outputs: &[Output]) -> usize {
    outputs.iter().filter(|o| matches!(o, Output::Log { level: Level::Alarm, .. })).count()
}

#[test]
fn r51_a_cold_move_from_order_to_done() {
    let (mut w, a, b, c) = ready();
    let (record, out) = w.start_mode(1, "b", "m", MoveMode::Cold).unwrap();
    assert_eq!((record.phase, record.mode), (MovePhase::Preparing, MoveMode::Cold));
    let told = |out: &[Output], to| {
        let of = sent(out, to).into_iter().filter_map(|m| match m {
            NvaToNve::MovePrepare { role, mode, .. } => Some((role, mode)),
            _ => None,
        });
        of.collect::<Vec<_>>()
    };
    assert_eq!(told(&out, a), [(MoveRole::Source, MoveMode::Cold)]);
    assert_eq!(told(&out, b), [(MoveRole::Target, MoveMode::Cold)]);
    assert_eq!(w.vm(1).pending(), None, "of a cold move nobody is told ahead");
    w.step(a, "m", K::Prepared);
    w.step(b, "m", K::Prepared);
    assert_eq!(w.phase("m"), MovePhase::Prepared);

    let ips = w.vm(1).ips().collect::<Vec<_>>();
    let out = withdraw(&mut w, a);
    assert_eq!((w.phase("m"), owner(w.vm(1))), (MovePhase::Stopped, None));
    for session in [a, b, c] {
        assert!(updated(&out, session).iter().all(|r| !r.is_active()), "its entries go everywhere");
        assert_eq!(updated(&out, session).len(), 1);
    }
    w.settle(&[a, b, c]);
    for phase in [MovePhase::Packaged, MovePhase::Sent, MovePhase::Instantiated] {
        assert_eq!(report(&mut w, phase), Ok(phase));
        assert_eq!(report(&mut w, phase), Ok(phase), "said again");
        assert_eq!(w.durable.moves[&MoveId("m".into())].record.phase, phase);
    }
    let out = w.say(b, claim(1, Version::ZERO));
    let at_b = granted(&out, b).unwrap();
    assert_eq!((owner(&at_b), at_b.ips().collect::<Vec<_>>()), (Some("b"), ips));
    w.settle(&[a, b, c]);
    assert_eq!(w.phase("m"), MovePhase::Done);
    use K::*;
    let expected =
        [Ordered, Accepted, Prepared, Prepared, Stopped, Packaged, Sent, Instantiated, Claimed, Granted];
    assert_eq!(kinds(&w)[..10], expected);
    let accepted = &w.d.move_record(&MoveId("m".into())).unwrap().steps[1].note;
    assert!(accepted.contains("connections end"), "{accepted}");
}

#[test]
fn r51_the_new_nve_gets_nothing_while_the_vm_runs_at_the_old_one() {
    let (mut w, a, b, _) = ready();
    w.start_mode(1, "b", "m", MoveMode::Cold).unwrap();
    let out = w.say(b, claim(1, Version::ZERO));
    assert_eq!(denied(&out, b), Some(DenyReason::OwnedElsewhere));
    assert_eq!((w.phase("m"), owner(w.vm(1))), (MovePhase::Preparing, Some("a")));
    withdraw(&mut w, a);
    let out = w.say(b, claim(1, Version::ZERO));
    assert!(granted(&out, b).is_some(), "nothing more has to be said for its start");
}

#[test]
fn r51_reports_out_of_order_name_what_may_follow() {
    let (mut w, a, b, _) = ready();
    w.start_mode(1, "b", "m", MoveMode::Cold).unwrap();
    let refused = report(&mut w, MovePhase::Instantiated).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("still runs at NVE a") && text.contains("report m stopped"), "{text}");
    assert_eq!(refused.kind(), RefusalKind::State);
    assert_eq!(report(&mut w, MovePhase::Stopped), Ok(MovePhase::Stopped), "its manager's word");
    assert_eq!(owner(w.vm(1)), None);
    let text = report(&mut w, MovePhase::Sent).unwrap_err().to_string();
    assert!(text.contains("move m is stopped") && text.contains("packaged can"), "{text}");
    assert_eq!(report(&mut w, MovePhase::Stopped), Ok(MovePhase::Stopped));
    let text = report(&mut w, MovePhase::Paused).unwrap_err().to_string();
    assert!(text.contains("stopped, packaged, sent, instantiated"), "{text}");
    let late = Order::ReportMove { id: MoveId("x".into()), phase: MovePhase::Sent };
    assert!(matches!(w.order::<MoveRecord>(late), Err(Refusal::UnknownMove(_))));
    w.say(b, claim(1, Version::ZERO));
    assert!(matches!(report(&mut w, MovePhase::Packaged), Err(Refusal::MoveGranted { .. })));
    let _ = a;
}

#[test]
fn r51_a_vm_that_nobody_starts_stays_detached_with_an_alarm() {
    let config = Config { intent_timeout: Span::from_ms(1000), ..Config::default() };
    let mut w = World::with(config);
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.settle(&[a, b]);
    w.start_mode(1, "b", "m", MoveMode::Cold).unwrap();
    let out = withdraw(&mut w, a);
    w.ack(a, &out);
    w.ack(b, &out);
    let out = w.pass(1500);
    assert_eq!((w.phase("m"), owner(w.vm(1)), alarms(&out)), (MovePhase::Aborted, None, 1));
    assert_eq!(w.vm(1).moving, None);
    let out = w.say(b, claim(1, Version::ZERO));
    assert!(granted(&out, b).is_some(), "who starts it at last is not refused");
}

#[test]
fn r51_a_vm_that_runs_again_at_its_old_nve_has_its_move_begin_anew() {
    let (mut w, a, b, c) = ready();
    w.start_mode(1, "b", "m", MoveMode::Cold).unwrap();
    withdraw(&mut w, a);
    report(&mut w, MovePhase::Packaged).unwrap();
    let out = w.say(c, claim(1, Version::ZERO));
    assert_eq!(denied(&out, c), Some(DenyReason::OwnedElsewhere), "not at a third one");
    let out = w.say(a, claim(1, Version::ZERO));
    assert!(granted(&out, a).is_some());
    assert_eq!((w.phase("m"), owner(w.vm(1))), (MovePhase::Preparing, Some("a")));
    let out = w.say(b, claim(1, Version::ZERO));
    assert_eq!(denied(&out, b), Some(DenyReason::OwnedElsewhere));
    withdraw(&mut w, a);
    assert_eq!(w.phase("m"), MovePhase::Stopped);
    let (record, _) = w.abort_move(&MoveId("m".into())).unwrap();
    let last = &record.steps.last().unwrap().note;
    assert!(last.contains("it is detached"), "{last}");
    assert_eq!(owner(w.vm(1)), None);
}

#[test]
fn r50_everybody_knows_ahead_where_a_warm_move_leads() {
    let (mut w, a, b, c) = ready();
    mirror(&mut w, Some(("b", 30))).unwrap();
    mirrored(&mut w, None).unwrap();
    let (_, out) = w.start_mode(1, "b", "m", MoveMode::Warm).unwrap();
    let at_b = |r: &VmRecord| r.pending().map(|l| l.nve.clone()) == Some(id("b"));
    for session in [a, b, c] {
        let told = updated(&out, session);
        assert!(told.iter().any(|r| at_b(r) && owner(r) == Some("a")), "beside the active one: {told:?}");
    }
    w.settle(&[a, b, c]);
    let out = withdraw(&mut w, a);
    assert!(updated(&out, c).iter().any(|r| at_b(r) && !r.is_active()));
    assert_eq!(report(&mut w, MovePhase::Packaged).unwrap_err().kind(), RefusalKind::Invalid);
    w.settle(&[a, b, c]);
    w.restart();
    let (b, c) = (w.join("b"), w.join("c"));
    assert!(at_b(w.vm(1)), "durable");
    let out = w.say(b, claim(1, Version::ZERO));
    let record = granted(&out, b).unwrap();
    assert_eq!((record.pending(), owner(&record)), (None, Some("b")));
    assert_eq!(record.standby, None, "its state is there now");
    assert_eq!(owner(&updated(&out, c)[0]), Some("b"), "the grant flips all");
}

#[test]
fn r50_a_pending_location_ends_with_its_move() {
    let (mut w, a, b, c) = ready();
    mirror(&mut w, Some(("b", 30))).unwrap();
    mirrored(&mut w, None).unwrap();
    w.start_mode(1, "b", "m", MoveMode::Warm).unwrap();
    assert!(w.vm(1).pending().is_some());
    assert!(w.d.nves(w.now).iter().all(|n| n.vms == usize::from(n.record.id == id("a"))), "B has none yet");
    assert_eq!(mirror(&mut w, None).unwrap_err().kind(), RefusalKind::State, "the move rests on it");
    let (_, out) = w.abort_move(&MoveId("m".into())).unwrap();
    assert_eq!((w.vm(1).pending(), owner(w.vm(1))), (None, Some("a")));
    assert!(updated(&out, c).iter().any(|r| r.pending().is_none()));
    let _ = (a, b);
}

#[test]
fn r50_a_warm_move_needs_a_mirror_where_it_leads() {
    let (mut w, _, _, _) = ready();
    let warm = |w: &mut World, to: &str| w.start_mode(1, to, "m", MoveMode::Warm).map(drop);
    let (vm, b) = (|| String::from("vm1"), || id("b"));
    assert_eq!(warm(&mut w, "b"), Err(Refusal::NoMirror { vm: vm(), to: b() }));
    assert_eq!(mirror(&mut w, Some(("a", 30))), Err(Refusal::MirrorHere { vm: vm(), nve: id("a") }));
    assert_eq!(mirror(&mut w, Some(("b", 0))), Err(Refusal::BadInterval(0)));
    assert_eq!(mirror(&mut w, Some(("b", 3601))), Err(Refusal::BadInterval(3601)));
    assert_eq!(mirrored(&mut w, None), Err(Refusal::NotMirrored { vm: vm() }));
    mirror(&mut w, Some(("b", 30))).unwrap();
    assert_eq!(warm(&mut w, "b"), Err(Refusal::NeverMirrored { vm: vm(), nve: b() }));
    let ahead = w.wall_us() + 3_600_000_000;
    assert!(matches!(mirrored(&mut w, Some(ahead)), Err(Refusal::MirrorAhead { .. })));
    let now = w.wall_us();
    let standby = mirrored(&mut w, Some(now)).unwrap().standby.unwrap();
    assert_eq!((standby.mirrored_us, standby.interval_s), (now, 30));
    assert_eq!(mirrored(&mut w, Some(now - 1)).unwrap().standby.unwrap().mirrored_us, now, "late news");
    assert_eq!(mirror(&mut w, Some(("b", 60))).unwrap().standby.unwrap().mirrored_us, now);
    assert_eq!(warm(&mut w, "c"), Err(Refusal::MirrorElsewhere { vm: vm(), standby: b(), to: id("c") }));
    assert_eq!(w.d.moves(None, false).len(), 0, "refused orders leave nothing behind");
    warm(&mut w, "b").unwrap();
    let note = w.d.move_record(&MoveId("m".into())).unwrap().steps[1].note.clone();
    assert!(note.contains("mirrored 0 s ago"), "{note}");
    assert_eq!(w.durable.vms[&key(1)].standby.as_ref().unwrap().interval_s, 60);
}

#[test]
fn r55_a_claim_with_other_addresses_is_refused_in_every_mode() {
    for mode in [MoveMode::Hot, MoveMode::Cold] {
        let (mut w, a, b, _) = ready();
        w.start_mode(1, "b", "m", mode).unwrap();
        if mode.interrupts() {
            withdraw(&mut w, a);
        }
        let base = w.vm(1).version;
        let NveToNva::Claim { seq, key, cause, port, router, overrides, .. } = claim(1, base) else {
            unreachable!()
        };
        let other = NveToNva::Claim { seq, key, ips: vec![ip(9)], cause, base, port, router, overrides };
        let out = w.say(b, other);
        assert_eq!(denied(&out, b), Some(DenyReason::AddressMismatch), "{mode}");
        let out = w.say(b, claim(1, base));
        assert_eq!(granted(&out, b).unwrap().ips().collect::<Vec<_>>(), [ip(1)], "{mode}");
    }
}

#[test]
fn r56_modes_that_a_vn_or_an_nve_does_not_take_are_refused() {
    let (mut w, a, b, _) = ready();
    let only_cold = ModeSet::of(&[MoveMode::Cold]);
    let to = VnChanges { modes: Some(only_cold), ..VnChanges::default() };
    let out = w.set_vn("red", to).map(|(_, out)| out);
    assert!(out.is_ok_and(|out| all_sent(&out).is_empty()), "no NVE acts on it");
    let refused = w.start(1, "b", "m").unwrap_err();
    let (vm, vn) = ("vm1".into(), "red".into());
    assert_eq!(refused, Refusal::ModeOfVn { vm, vn, mode: MoveMode::Hot, modes: only_cold });
    assert!(w.d.moves(None, false).is_empty() && w.vm(1).moving.is_none());
    w.start_mode(1, "b", "m", MoveMode::Cold).unwrap();
    w.abort_move(&MoveId("m".into())).unwrap();

    w.set_vn("red", VnChanges { modes: Some(ModeSet::ALL), ..VnChanges::default() }).unwrap();
    let hello = |nve: &str, n, modes| NveToNva::Hello {
        nve: id(nve),
        locators: locators(n),
        software: "test".into(),
        last_epoch: 0,
        instance: 1,
        abilities: Abilities { modes, end_markers: false, capacity: 100 },
    };
    w.say(b, hello("b", 2, only_cold));
    let refused = w.start(1, "b", "h").unwrap_err();
    assert_eq!(refused, Refusal::ModeOfNve { nve: id("b"), mode: MoveMode::Hot, modes: only_cold });
    w.say(a, hello("a", 1, Abilities::unsaid().modes));
    let refused = w.start_mode(1, "b", "m2", MoveMode::Cold).unwrap_err();
    assert!(matches!(refused, Refusal::ModeOfNve { nve, .. } if nve == id("a")), "an earlier release");
    let b = w.d.nves(w.now).into_iter().find(|n| n.record.id == id("b")).unwrap();
    assert_eq!(b.modes, only_cold);
}

#[test]
fn r56_an_interruption_is_accepted_or_the_move_refused() {
    let (mut w, _, _, _) = ready();
    let order = |accept| Order::StartMove {
        vm: "vm1".into(),
        to: id("b"),
        mode: MoveMode::Cold,
        id: "m".into(),
        accept,
    };
    let refused = w.order::<MoveRecord>(order(false)).unwrap_err();
    assert!(refused.to_string().contains("--accept-interruption"), "{refused}");
    let (record, _): (MoveRecord, _) = w.order(order(true)).unwrap();
    assert_eq!(record.steps[1].what, K::Accepted);
    let (again, out): (MoveRecord, _) = w.order(order(false)).unwrap();
    assert_eq!((again, out.len()), (record, 0), "said once");
}
