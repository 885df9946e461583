//! Pauses of VMs' connections: who hears of them, how they end, and what is remembered (R54).

use godwit_model::{PauseEnd, WhilePaused};

use super::*;
use MoveStepKind as K;

/// vm1 is at A; B is there.
fn ready() -> (World, SessionId, SessionId) {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.settle(&[a, b]);
    (w, a, b)
}

fn pause(w: &mut World, treatment: WhilePaused, limit_s: u32) -> Result<(VmRecord, Vec<Output>), Refusal> {
    w.order(Order::PauseVm { vm: "vm1".into(), treatment, limit_s })
}

fn resume(w: &mut World) -> Result<(VmRecord, Vec<Output>), Refusal> {
    w.order(Order::ResumeVm { vm: "vm1".into() })
}

fn ended(w: &World) -> Option<PauseEnd> {
    w.vm(1).pause.and_then(|p| p.ended).map(|(end, _)| end)
}

/// Time passes, and the NVEs are heard.
fn pass(w: &mut World, sessions: &[SessionId], ms: u64) -> Vec<Output> {
    let mut all = Vec::new();
    for _ in 0..ms.div_ceil(1000) {
        all.extend(w.pass(1000.min(ms)));
        for s in sessions {
            let news = all.clone();
            all.extend(w.ack(*s, &news));
            all.extend(w.say(*s, NveToNva::Keepalive));
        }
    }
    all
}

#[test]
fn r54_a_pause_is_in_the_record_until_it_is_resumed_and_a_while_longer() {
    let (mut w, a, b) = ready();
    let before = w.vm(1).version;
    let (record, out) = pause(&mut w, WhilePaused::Hold, 60).unwrap();
    assert!(record.version > before && record.paused().is_some());
    assert_eq!(updated(&out, a).last().and_then(|r| r.pause), record.pause, "its NVE acts on it");
    assert_eq!(w.durable.vms[&key(1)].pause, record.pause);

    // The same again begins its time anew, and may be of the other kind.
    let (again, _) = pause(&mut w, WhilePaused::Drop, 5).unwrap();
    let (first, second) = (record.pause.unwrap(), again.pause.unwrap());
    assert!(second.since_us > first.since_us);
    assert_eq!((second.treatment, second.limit_s), (WhilePaused::Drop, 5));

    let (record, out) = resume(&mut w).unwrap();
    assert_eq!((record.paused(), ended(&w)), (None, Some(PauseEnd::Resumed)));
    assert_eq!(updated(&out, a).last().and_then(|r| r.pause), record.pause);
    assert_eq!(resume(&mut w).unwrap(), (record, vec![]), "said again");
    pass(&mut w, &[a, b], 59_000);
    assert_eq!(ended(&w), Some(PauseEnd::Resumed), "remembered");
    pass(&mut w, &[a, b], 2000);
    assert_eq!((w.vm(1).pause, w.durable.vms[&key(1)].pause), (None, None));
    assert_eq!(resume(&mut w), Err(Refusal::NotPaused { vm: "vm1".into() }));
}

#[test]
fn r54_a_pause_ends_with_its_time_also_across_a_restart() {
    let (mut w, a, b) = ready();
    pause(&mut w, WhilePaused::Hold, 10).unwrap();
    pass(&mut w, &[a, b], 6000);
    w.restart();
    let (a, b) = (w.join("a"), w.join("b"));
    assert!(w.vm(1).paused().is_some(), "a restart forgets nothing");
    pass(&mut w, &[a, b], 3000);
    assert!(w.vm(1).paused().is_some());
    let out = pass(&mut w, &[a, b], 2000);
    assert_eq!(ended(&w), Some(PauseEnd::TimedOut));
    let told = updated(&out, a).into_iter().filter_map(|r| r.pause).filter_map(|p| p.ended).next_back();
    assert_eq!(told.map(|(end, _)| end), Some(PauseEnd::TimedOut), "its NVE drops what it held");
    assert_eq!(w.d.counts.pauses_timed_out, 1);
}

#[test]
fn r54_a_pause_stays_through_a_move_whose_history_has_it() {
    let (mut w, a, b) = ready();
    pause(&mut w, WhilePaused::Hold, 60).unwrap();
    w.settle(&[a, b]);
    w.start(1, "b", "m").unwrap();
    w.step(a, "m", K::Prepared);
    w.step(b, "m", K::Prepared);
    w.step(a, "m", K::Paused);
    let out = w.say(b, claim(1, Version::ZERO));
    assert!(granted(&out, b).unwrap().paused().is_some(), "the new NVE holds on");
    let acked = w.ack(a, &out);
    w.ack(b, &acked);
    w.settle(&[a, b]);
    assert_eq!(w.phase("m"), MovePhase::Done);
    resume(&mut w).unwrap();
    let steps = &w.d.move_record(&MoveId("m".into())).unwrap().steps;
    let noted: Vec<K> = steps.iter().map(|s| s.what).collect();
    assert!(noted[..2] == [K::Ordered, K::ConnectionsPaused], "{noted:?}");
    assert_eq!(noted.last(), Some(&K::ConnectionsResumed));
}

#[test]
fn r54_what_cannot_be_paused_is_refused() {
    let (mut w, ..) = ready();
    for limit in [0, 3601] {
        assert_eq!(pause(&mut w, WhilePaused::Hold, limit), Err(Refusal::BadPause(limit)));
    }
    assert_eq!(resume(&mut w), Err(Refusal::NotPaused { vm: "vm1".into() }));
    let unknown: Result<(VmRecord, _), _> = w.order(Order::ResumeVm { vm: "vm9".into() });
    assert!(matches!(unknown, Err(Refusal::UnknownVm(_))), "{unknown:?}");
    // Behind a foreign NVE nobody would act on it.
    w.define_nve(&id("vtep"), locators(9)).unwrap();
    w.define_vm(VmDefinition { pinned: Some(id("vtep")), ..definition(2) }).unwrap();
    let order = Order::PauseVm { vm: "vm2".into(), treatment: WhilePaused::Hold, limit_s: 60 };
    let refused: Result<(VmRecord, _), _> = w.order(order);
    assert_eq!(refused, Err(Refusal::PauseElsewhere { vm: "vm2".into(), nve: id("vtep") }));
}
