//! VNs that an NVE pulls: what it hears of, and for how long.

use godwit_model::message::{MoveRole, QueryBy};

use super::*;

/// A session that pulls VN red.
fn pull(w: &mut World, name: &str) -> SessionId {
    let (session, _) = w.hello(name);
    subscribe(w, session);
    session
}

fn subscribe(w: &mut World, session: SessionId) -> Vec<NvaToNve> {
    let out =
        w.say(session, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Pull, lingers: false });
    sent(&out, session)
}

fn ask(w: &mut World, session: SessionId, by: QueryBy) -> (Option<VmRecord>, u64) {
    let out = w.say(session, NveToNva::Query { seq: 9, vni: vni(100), by });
    let answer = sent(&out, session).into_iter().find_map(|m| match m {
        NvaToNve::Response { record, lifetime_ms, .. } => Some((record, lifetime_ms)),
        _ => None,
    });
    answer.unwrap_or_else(|| panic!("no answer: {out:?}"))
}

fn mac(n: u8) -> QueryBy {
    QueryBy::Mac(key(n).mac)
}

/// Lets time pass with everybody alive and acknowledging.
fn live(w: &mut World, sessions: &[SessionId], ms: u64) -> Vec<Output> {
    let mut all = Vec::new();
    for _ in 0..ms / 100 {
        let out = w.pass(100);
        for s in sessions {
            all.extend(w.ack(*s, &out));
            w.say(*s, NveToNva::Keepalive);
        }
        all.extend(out);
    }
    all
}

#[test]
fn r37_in_pull_mode_members_come_and_no_records() {
    let mut w = World::new();
    let a = w.join("a");
    w.take(a, 1);
    let (c, _) = w.hello("c");
    let said = subscribe(&mut w, c);
    let [NvaToNve::End { known: true, settings: VnSettings { mtu: 1400, .. }, members, .. }] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!(members.len(), 1, "R60: broadcast has to get to the others");
    let out = w.say(a, claim(2, Version::ZERO));
    assert_eq!(updated(&out, c), [], "nobody asked for it");
    assert_eq!(w.d.interested(key(1)), [id("a")]);
}

#[test]
fn r34_r38_who_asked_hears_of_changes_and_nobody_else() {
    let mut w = World::new();
    let (a, c, d) = (w.join("a"), pull(&mut w, "c"), pull(&mut w, "d"));
    w.take(a, 1);
    let (record, life) = ask(&mut w, c, mac(1));
    assert_eq!((record.as_ref().and_then(owner), life), (Some("a"), 30_000));
    assert_eq!(w.d.interested(key(1)), [id("a"), id("c")]);
    let version = w.vm(1).version;
    let out = w.say(a, NveToNva::Withdraw { key: key(1), version });
    assert_eq!((updated(&out, c).len(), updated(&out, d).len()), (1, 0));
    // It is said again until it is acknowledged, as to anybody.
    assert_eq!(updated(&w.pass(100), c).len(), 1);
}

#[test]
fn r34_an_address_is_as_good_as_a_mac_and_absence_is_remembered_too() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), pull(&mut w, "c"));
    assert!(ask(&mut w, c, QueryBy::Ip(ip(1))).0.is_some(), "detached");
    assert_eq!(ask(&mut w, c, mac(77)), (None, 5000));
    let out = w.say(a, claim(1, Version::ZERO));
    assert_eq!(updated(&out, c).len(), 1, "R36: news end a negative answer");
    let (_, out) = w.define_vm(definition(77)).unwrap();
    assert_eq!(updated(&out, c).len(), 1);
}

#[test]
fn r38_who_was_told_of_a_move_before_it_subscribed_hears_how_it_went() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.start(1, "b", "m1").unwrap();
    w.leave(a);
    let (a, out) = w.hello("a");
    let prepared = |m: &NvaToNve| matches!(m, NvaToNve::MovePrepare { role: MoveRole::Source, .. });
    assert!(sent(&out, a).iter().any(prepared), "{out:?}");
    // The move ends before it subscribes.
    let version = w.vm(1).version;
    let out = w.say(b, claim(1, version));
    let newest = granted(&out, b).unwrap();
    let told: Vec<VmRecord> = subscribe(&mut w, a)
        .into_iter()
        .flat_map(|m| if let NvaToNve::Snapshot { vms, .. } = m { vms } else { Vec::new() })
        .collect();
    assert_eq!(told.iter().map(|r| r.version).collect::<Vec<_>>(), [newest.version]);
}

#[test]
fn r40_an_interest_lives_as_long_as_the_answer_and_the_windows() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), pull(&mut w, "c"));
    w.take(a, 1);
    ask(&mut w, c, mac(1));
    live(&mut w, &[a, c], 30_800);
    assert_eq!(w.d.interested(key(1)), [id("a"), id("c")]);
    ask(&mut w, c, mac(1));
    live(&mut w, &[a, c], 30_800);
    assert_eq!(w.d.interested(key(1)), [id("a"), id("c")], "asked again, it lives on");
    live(&mut w, &[a, c], 200);
    assert_eq!(w.d.interested(key(1)), [id("a")]);
    let version = w.vm(1).version;
    let out = w.say(a, NveToNva::Withdraw { key: key(1), version });
    assert_eq!(updated(&out, c), []);
}

#[test]
fn r38_beyond_the_bound_the_oldest_interest_is_called_in() {
    let mut w = World::with(Config { max_interests: 2, ..Config::default() });
    let c = pull(&mut w, "c");
    ask(&mut w, c, mac(1));
    w.pass(10);
    ask(&mut w, c, mac(2));
    w.pass(10);
    let out = w.say(c, NveToNva::Query { seq: 9, vni: vni(100), by: mac(3) });
    let forgotten = |m: &NvaToNve| match m {
        NvaToNve::Update { change: Change::Forgotten { key }, .. } => Some(*key),
        _ => None,
    };
    assert_eq!(sent(&out, c).iter().find_map(forgotten), Some(key(1)));
    assert_eq!(w.d.interested(key(1)), []);
    assert_eq!(w.d.interested(key(2)), [id("c")]);
}

#[test]
fn r38_what_is_called_in_at_once_is_called_in_after_its_answer() {
    let mut w = World::with(Config { max_interests: 1, ..Config::default() });
    let c = pull(&mut w, "c");
    ask(&mut w, c, mac(1));
    // An absence lives shorter, so that it is the one to go.
    let out = w.say(c, NveToNva::Query { seq: 9, vni: vni(100), by: mac(77) });
    let said = sent(&out, c);
    let [NvaToNve::Response { record: None, .. }, NvaToNve::Update { change, .. }] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(*change, Change::Forgotten { key: key(77) });
    assert_eq!(w.d.interested(key(1)), [id("c")]);
}

#[test]
fn r38_an_nve_hears_of_its_own_vms_of_those_that_left_it_and_of_its_ports() {
    let mut w = World::new();
    let (a, b, c) = (pull(&mut w, "a"), pull(&mut w, "b"), pull(&mut w, "c"));
    w.take(a, 1);
    w.say(c, NveToNva::Associate { key: key(1), port: "p".into() });
    w.start(1, "b", "m").unwrap();
    let out = w.say(b, claim(1, Version::ZERO));
    assert_eq!(updated(&out, a).len(), 1, "the old one first");
    let out = w.ack(a, &out);
    assert_eq!(updated(&out, c).len(), 1, "a port for it");
    w.ack(c, &out);
    assert_eq!(w.phase("m"), MovePhase::Done, "who did not ask is not waited for");
    // A may forward for it, and hears where it goes next (R43).
    w.start(1, "c", "n").unwrap();
    let out = w.say(c, claim(1, Version::ZERO));
    let out = [w.ack(b, &out), out].concat();
    assert_eq!(updated(&out, a).len(), 1);
}

#[test]
fn r39_a_departure_is_passed_on_to_those_who_asked() {
    let mut w = World::new();
    let (a, c, d) = (w.join("a"), pull(&mut w, "c"), pull(&mut w, "d"));
    w.take(a, 1);
    ask(&mut w, c, mac(1));
    let version = w.vm(1).version;
    let out = w.say(a, NveToNva::Departed { key: key(1), ips: vec![], version });
    let told = |s| sent(&out, s).iter().any(|m| matches!(m, NvaToNve::Departed { .. }));
    assert_eq!((told(c), told(d)), (true, false));
}

#[test]
fn r43_forward_entries_wait_for_those_who_asked_and_for_those_who_may_remember() {
    let mut w = World::new();
    let (a, b, c) = (w.join("a"), w.join("b"), pull(&mut w, "c"));
    w.take(a, 1);
    w.settle(&[a, b]);
    let extended = |w: &mut World| {
        let version = w.vm(1).version;
        let out = w.say(a, NveToNva::ForwardEnding { key: key(1), version });
        sent(&out, a).iter().any(|m| matches!(m, NvaToNve::ForwardExtend { .. }))
    };
    live(&mut w, &[a, b, c], 31_000);
    ask(&mut w, c, mac(1));
    // C goes away and comes back, and has not asked since: it may go on with its old answer for a while.
    w.leave(c);
    w.start(1, "b", "m").unwrap();
    let out = w.say(b, claim(1, Version::ZERO));
    w.ack(a, &out);
    assert!(extended(&mut w), "away");
    let c = pull(&mut w, "c");
    assert!(extended(&mut w), "back, and not known to have asked");
    ask(&mut w, c, mac(1));
    assert!(!extended(&mut w), "it has the answer");
    let c = pull(&mut w, "c");
    assert!(extended(&mut w), "what it confirmed of other VMs is not remembered here");
    live(&mut w, &[a, b, c], 31_000);
    assert!(!extended(&mut w), "nothing that it was told before can be in use");
}

#[test]
fn r37_a_vn_may_change_its_mode() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), pull(&mut w, "c"));
    w.take(a, 1);
    ask(&mut w, c, mac(1));
    let again = subscribe(&mut w, c);
    assert!(matches!(&again[..], [NvaToNve::Snapshot { vms, .. }, NvaToNve::End { .. }] if vms.len() == 1));
    let out = w.say(c, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    assert!(matches!(&sent(&out, c)[..], [NvaToNve::Snapshot { vms, .. }, _] if vms.len() == 3));
    assert!(matches!(&subscribe(&mut w, c)[..], [NvaToNve::End { .. }]), "it begins anew");
}

#[test]
fn r36_who_was_told_that_an_address_is_absent_hears_of_the_vm_that_gets_it() {
    let mut w = World::new();
    let (c, d) = (pull(&mut w, "c"), pull(&mut w, "d"));
    assert_eq!(ask(&mut w, c, QueryBy::Ip(ip(77))), (None, 5000));
    w.pass(10);
    let (_, out) = w.define_vm(definition(77)).unwrap();
    assert_eq!((updated(&out, c).len(), updated(&out, d).len()), (1, 0), "who did not ask is not told");
    w.ack(c, &out);
    // Having been told, it is told what follows.
    assert_eq!(w.d.interested(key(77)), [id("c")]);
    live(&mut w, &[c, d], 8_000);
    assert_eq!(w.d.interested(key(77)), [id("c")]);
    let a = w.join("a");
    let out = w.say(a, claim(77, Version::ZERO));
    assert_eq!(updated(&out, c).len(), 1);
}

#[test]
fn r36_an_absence_is_of_interest_as_long_as_its_answer_and_the_windows() {
    for (later, told) in [(5_800, 1), (6_200, 0)] {
        let mut w = World::new();
        let c = pull(&mut w, "c");
        ask(&mut w, c, QueryBy::Ip(ip(77)));
        live(&mut w, &[c], later);
        let (_, out) = w.define_vm(definition(77)).unwrap();
        assert_eq!(updated(&out, c).len(), told, "after {later} ms");
    }
}

#[test]
fn r36_a_new_snapshot_names_who_got_an_absent_address() {
    let mut w = World::new();
    let c = pull(&mut w, "c");
    ask(&mut w, c, QueryBy::Ip(ip(77)));
    // The update is lost.
    w.define_vm(definition(77)).unwrap();
    let said = subscribe(&mut w, c);
    let [NvaToNve::Snapshot { vms, .. }, NvaToNve::End { .. }] = &said[..] else { panic!("{said:?}") };
    assert_eq!(vms.iter().map(|r| r.key).collect::<Vec<_>>(), [key(77)]);
}

#[test]
fn r27_who_pulls_is_told_of_the_router_in_whose_name_it_answers() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), pull(&mut w, "c"));
    let gateways = |out: &[Output], s| {
        let ends = sent(out, s).into_iter();
        ends.filter_map(|m| if let NvaToNve::End { gateway, .. } = m { Some(gateway) } else { None })
            .collect::<Vec<_>>()
    };
    let router = |n, router| VmDefinition { router, ..definition(n) };
    let of = |n: u8| Some(Gateway { mac: key(n).mac, ip: definition(n).ipv4[0] });
    let (_, out) = w.define_vm(router(78, true)).unwrap();
    assert_eq!(gateways(&out, c), [], "nobody is answered in this VN");
    let on = VnChanges { rarp: Some(true), ..VnChanges::default() };
    let (_, out) = w.set_vn("red", on).unwrap();
    assert_eq!((gateways(&out, c), gateways(&out, a)), (vec![of(78)], vec![None]));
    let (_, out) = w.define_vm(router(77, true)).unwrap();
    assert_eq!((gateways(&out, c), gateways(&out, a)), (vec![of(77)], vec![]));
    let (_, out) = w.define_vm(router(79, true)).unwrap();
    assert_eq!(gateways(&out, c), [], "the first by MAC it stays");
    let (_, out) = w.define_vm(router(77, false)).unwrap();
    assert_eq!(gateways(&out, c), [of(78)]);
    let (_, out) = w.delete_vm(&definition(78).name).unwrap();
    assert_eq!(gateways(&out, c), [of(79)]);
}
