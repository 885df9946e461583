//! Sessions, ports, queries and reports.

use godwit_model::message::{Attachment, MoveRole, QueryBy};

use super::*;

fn errors(outputs: &[Output], to: SessionId) -> usize {
    sent(outputs, to).iter().filter(|m| matches!(m, NvaToNve::Error { .. })).count()
}

fn closed(outputs: &[Output]) -> Vec<SessionId> {
    let of = outputs.iter().filter_map(|o| match o {
        Output::Close { session, .. } => Some(*session),
        _ => None,
    });
    of.collect()
}

fn attachment(n: u8, version: Version, active: bool) -> Attachment {
    Attachment { key: key(n), port: "p1".into(), version, active }
}

fn provisions(outputs: &[Output], to: SessionId) -> Vec<Option<VmRecord>> {
    let of = sent(outputs, to).into_iter().filter_map(|m| match m {
        NvaToNve::Provision { record, .. } => Some(record),
        _ => None,
    });
    of.collect()
}

#[test]
fn r33_a_hello_is_welcomed_with_the_epoch() {
    let mut w = World::new();
    let (a, out) = w.hello("a");
    let policies = NvaToNve::Policies { reset: true, policies: vec![], gone: vec![] };
    assert_eq!(sent(&out, a), [NvaToNve::Welcome { epoch: 1, keepalive_ms: 3000 }, policies]);
    assert_eq!(w.durable.nves[&id("a")].locators, locators(1));
}

#[test]
fn r33_nothing_is_heard_before_hello() {
    let mut w = World::new();
    let s = w.connect();
    let out = w.say(s, claim(1, Version::ZERO));
    assert_eq!(errors(&out, s), 1);
    assert!(!w.vm(1).is_active());
    let out = w.nve(s, Input::Other { error: Some("kind: is not set".into()) });
    assert_eq!(errors(&out, s), 1, "and the session stays");
    assert_eq!(closed(&out), []);
}

#[test]
fn r33_a_session_is_of_one_nve() {
    let mut w = World::new();
    let (a, _) = w.hello("a");
    let hello = |nve| NveToNva::Hello {
        nve: id(nve),
        locators: locators(1),
        software: "test".into(),
        last_epoch: 0,
        instance: 1,
        abilities: godwit_model::Abilities::unsaid(),
    };
    let out = w.say(a, hello("b"));
    assert_eq!(errors(&out, a), 1);
    let out = w.say(a, hello("a"));
    assert!(matches!(sent(&out, a)[..], [NvaToNve::Welcome { .. }, _]), "said twice is welcomed twice");
    w.define_nve(&id("tor"), locators(99)).unwrap();
    let s = w.connect();
    let out = w.say(s, hello("tor"));
    assert_eq!((errors(&out, s), closed(&out)), (1, vec![s]), "a foreign NVE has no session");
}

#[test]
fn r77_nves_that_mark_their_paths_know_each_other() {
    let mut w = World::new();
    let hello = |w: &mut World, nve: &str, end_markers| {
        let session = w.connect();
        let abilities = godwit_model::Abilities { end_markers, ..godwit_model::Abilities::unsaid() };
        let software = "test".into();
        let locators = locators(nve.as_bytes()[0] - b'a' + 1);
        let said =
            NveToNva::Hello { nve: id(nve), locators, software, last_epoch: 0, instance: 1, abilities };
        let out = w.say(session, said);
        (session, out)
    };
    let told = |out: &[Output], to| -> Vec<(bool, Vec<NveId>, Vec<NveId>)> {
        let of = sent(out, to).into_iter().filter_map(|m| match m {
            NvaToNve::EndMarkers { reset, nves, gone } => Some((reset, nves, gone)),
            _ => None,
        });
        of.collect()
    };
    let (a, out) = hello(&mut w, "a", true);
    assert_eq!(told(&out, a), [(true, vec![], vec![])]);
    let (b, out) = hello(&mut w, "b", false);
    assert_eq!((told(&out, a), told(&out, b)), (vec![], vec![]), "one that does not is told nothing");
    let (c, out) = hello(&mut w, "c", true);
    assert_eq!(told(&out, a), [(false, vec![id("c")], vec![])]);
    assert_eq!((told(&out, b), told(&out, c)), (vec![], vec![(true, vec![id("a")], vec![])]));
    // Another session of the same is no news to others; one that does so no more is.
    let (c, out) = hello(&mut w, "c", true);
    assert_eq!((told(&out, a), told(&out, c)), (vec![], vec![(true, vec![id("a")], vec![])]));
    let (c, out) = hello(&mut w, "c", false);
    assert_eq!((told(&out, a), told(&out, c)), (vec![(false, vec![], vec![id("c")])], vec![]));
}

#[test]
fn r73_a_newer_session_replaces_the_older_one() {
    let mut w = World::new();
    let old = w.join("a");
    let (new, out) = w.hello("a");
    assert_eq!(closed(&out), [old]);
    let out = w.say(old, claim(1, Version::ZERO));
    assert_eq!(out, [], "the old one is not heard any more");
    assert_eq!(w.d.session_for(&id("a")), Ok(new));
    let out = w.leave(old);
    assert_eq!(out, [], "its end means nothing");
    assert_eq!(w.d.session_for(&id("a")), Ok(new));
}

#[test]
fn r71_the_silent_are_closed_and_the_quiet_are_kept_alive() {
    let mut w = World::new();
    let (a, _) = w.hello("a");
    let (b, _) = w.hello("b");
    let mut out = Vec::new();
    for _ in 0..40 {
        w.say(b, NveToNva::Keepalive);
        out.extend(w.pass(100));
    }
    assert_eq!(closed(&out), [a]);
    let alive = sent(&out, b).iter().filter(|m| matches!(m, NvaToNve::Keepalive)).count();
    assert!((3..=4).contains(&alive), "one a second, got {alive} in four");
    assert!(w.d.session_for(&id("a")).is_err() && w.d.session_for(&id("b")).is_ok());
}

#[test]
fn r71_our_own_stall_is_not_the_nves_silence() {
    let mut w = World::new();
    w.pass(100);
    let (a, _) = w.hello("a");
    w.now = w.now + Span::from_ms(10_000);
    let out = w.tick();
    assert_eq!(closed(&out), []);
    assert_eq!(closed(&w.pass(3200)), [a], "but then it has to speak");
}

#[test]
fn r34_a_query_by_each_key_gives_one_identical_record() {
    let mut w = World::new();
    let (a, _) = w.hello("a");
    let mut ask = |by| {
        let out = w.say(a, NveToNva::Query { seq: 5, vni: vni(100), by });
        match sent(&out, a).pop() {
            Some(NvaToNve::Response { seq: 5, record, lifetime_ms }) => (record, lifetime_ms),
            other => panic!("no response: {other:?}"),
        }
    };
    let by_mac = ask(QueryBy::Mac(key(1).mac));
    assert_eq!((by_mac.0.as_ref().map(|r| r.key), by_mac.1), (Some(key(1)), 30_000));
    assert_eq!(ask(QueryBy::Ip(ip(1))), by_mac);
    assert_eq!(ask(QueryBy::Ip(ip(77))), (None, 5_000), "R36: an absence has a life too");
}

#[test]
fn r15_a_port_is_told_what_the_directory_has_and_told_again() {
    let mut w = World::new();
    let (a, _) = w.hello("a");
    let out = w.say(a, NveToNva::Associate { key: key(9), port: "p9".into() });
    assert_eq!(provisions(&out, a), [None]);
    let (record, out) = w.define_vm(definition(9)).unwrap();
    assert_eq!(provisions(&out, a), [Some(record)]);
    let (_, out) = w.delete_vm("vm9").unwrap();
    assert_eq!(provisions(&out, a), [None]);
    w.say(a, NveToNva::Disassociate { key: key(9), port: "p9".into() });
    let (_, out) = w.define_vm(definition(9)).unwrap();
    assert_eq!(provisions(&out, a), [], "the port is gone");
}

#[test]
fn r49_a_port_for_a_vm_on_its_way_is_told_of_the_move() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.start(1, "b", "m").unwrap();
    let out = w.say(b, NveToNva::Associate { key: key(1), port: "p1".into() });
    let target = |m: &NvaToNve| matches!(m, NvaToNve::MovePrepare { role: MoveRole::Target, .. });
    assert!(sent(&out, b).iter().any(target));
}

#[test]
fn r17_a_report_mends_a_lost_withdrawal() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    let r1 = w.take(a, 1);
    w.take(a, 2);
    let report = NveToNva::Report { attachments: vec![attachment(1, r1.version, true)], more: false };
    w.say(a, report.clone());
    assert_eq!(owner(w.vm(2)), Some("a"), "a report may cross with a grant");
    w.settle(&[a, c]);
    for _ in 0..5 {
        w.pass(500);
        w.say(a, NveToNva::Keepalive);
        w.say(c, NveToNva::Keepalive);
    }
    let out = w.say(a, report);
    assert_eq!((owner(w.vm(1)), owner(w.vm(2))), (Some("a"), None));
    assert_eq!(updated(&out, c).len(), 1);
}

#[test]
fn r17_an_nve_that_started_anew_loses_at_once_what_it_was_just_granted() {
    let mut w = World::new();
    let old = w.join("a");
    w.take(old, 1);
    let new = w.join("a");
    w.say(new, NveToNva::Report { attachments: vec![], more: false });
    assert_eq!(owner(w.vm(1)), None, "no grant of this session can have crossed the report");
}

#[test]
fn r17_a_report_brings_a_snapshot_to_an_nve_that_is_behind() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    let held = w.take(a, 1);
    w.settle(&[a, b]);
    w.start(1, "b", "m").unwrap();
    let out = w.say(b, claim(1, Version::ZERO));
    w.ack(a, &out);
    w.settle(&[a, b]);
    let out =
        w.say(a, NveToNva::Report { attachments: vec![attachment(1, held.version, true)], more: false });
    assert!(sent(&out, a).iter().any(|m| matches!(m, NvaToNve::End { .. })));
    assert_eq!(owner(w.vm(1)), Some("b"));
    let current = w.vm(1).version;
    let out = w.say(b, NveToNva::Report { attachments: vec![attachment(1, current, true)], more: false });
    assert!(!sent(&out, b).iter().any(|m| matches!(m, NvaToNve::End { .. })), "nothing to mend");
}

#[test]
fn r17_a_report_ends_memberships_that_are_not_used() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    w.leave(a);
    let (a, _) = w.hello("a");
    let out =
        w.say(a, NveToNva::Report { attachments: vec![attachment(1, Version::ZERO, false)], more: false });
    assert_eq!(sent(&out, c), [], "it has a port there");
    let out = w.say(a, NveToNva::Report { attachments: vec![], more: false });
    let left = |m: &NvaToNve| matches!(m, NvaToNve::Update { change: Change::MemberLeft(_), .. });
    assert!(sent(&out, c).iter().any(left));
    assert!(w.durable.nves[&id("a")].vnis.is_empty());
}
