//! Bounds on what a session may say (R70), and clocks of NVEs.

use godwit_model::message::Attachment;

use super::*;

fn errors(out: &[Output], to: SessionId) -> Vec<String> {
    let of = sent(out, to).into_iter().filter_map(|m| match m {
        NvaToNve::Error { text } => Some(text),
        _ => None,
    });
    of.collect()
}

fn lines(out: &[Output]) -> usize {
    out.iter().filter(|o| matches!(o, Output::Log { .. })).count()
}

fn closes(out: &[Output], session: SessionId) -> bool {
    out.iter().any(|o| matches!(o, Output::Close { session: s, .. } if *s == session))
}

#[test]
fn d10_an_nve_has_so_many_ports_and_no_more() {
    let mut w = World::with(Config { max_ports: 3, ..Config::default() });
    let a = w.join("a");
    let associate = |port: &str, n| NveToNva::Associate { key: key(n), port: port.into() };
    for (port, n) in [("p1", 1), ("p2", 1), ("p3", 2)] {
        assert_eq!(errors(&w.say(a, associate(port, n)), a), Vec::<String>::new());
    }
    let refused = errors(&w.say(a, associate("p4", 3)), a);
    assert!(refused[0].contains("p4") && refused[0].contains("3 at most"), "{refused:?}");
    assert_eq!(errors(&w.say(a, associate("p1", 1)), a), Vec::<String>::new(), "it is there");
    w.say(a, NveToNva::Disassociate { key: key(1), port: "p1".into() });
    assert_eq!(errors(&w.say(a, associate("p4", 3)), a), Vec::<String>::new(), "there is room again");
    let attachment =
        |n: u8| Attachment { key: key(n), port: format!("p{n}"), version: Version::ZERO, active: false };
    let all = NveToNva::Report { attachments: (1..=5).map(attachment).collect(), more: false };
    assert!(errors(&w.say(a, all), a)[0].starts_with("2 ports"));
}

#[test]
fn d10_a_report_in_parts_is_one() {
    let mut w = World::new();
    let a = w.join("a");
    let (one, two) = (w.take(a, 1), w.take(a, 2));
    w.pass(2500);
    w.say(a, NveToNva::Keepalive);
    let part = |r: &VmRecord, more| {
        let a = Attachment { key: r.key, port: "p".into(), version: r.version, active: true };
        NveToNva::Report { attachments: vec![a], more }
    };
    w.say(a, part(&one, true));
    assert!(w.vm(1).is_active() && w.vm(2).is_active(), "it is not complete");
    w.say(a, part(&two, false));
    assert!(w.vm(1).is_active() && w.vm(2).is_active());
    w.say(a, part(&one, false));
    assert!(w.vm(1).is_active() && !w.vm(2).is_active(), "another report names only one");
}

#[test]
fn d10_what_an_nve_says_leads_to_so_many_lines() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    let stale = || NveToNva::Withdraw { key: key(1), version: Version { epoch: 9, seq: 9 } };
    let total: usize = (0..5_000).map(|_| lines(&w.say(a, stale()))).sum();
    assert!((1_000..1_010).contains(&total), "{total}");
    assert!(lines(&w.say(b, stale())) > 0, "another one is heard");
    w.now = w.now + Span::from_ms(1_000);
    assert!(lines(&w.say(a, stale())) > 0, "later it is heard again");
}

#[test]
fn r70_a_session_of_which_all_is_refused_ends() {
    let mut w = World::new();
    let a = w.join("a");
    let unknown = || Input::Other { error: Some("kind: is not set".into()) };
    let mut closed = 0;
    for _ in 0..1_100 {
        closed += usize::from(closes(&w.nve(a, unknown()), a));
    }
    assert_eq!(closed, 1);
}

#[test]
fn d1_a_session_that_does_not_say_who_it_is_ends_whatever_else_it_says() {
    let mut w = World::new();
    let nameless = w.connect();
    let mut closed = false;
    for _ in 0..12 {
        w.say(nameless, NveToNva::Keepalive);
        closed |= closes(&w.pass(1_000), nameless);
    }
    assert!(closed);
}

#[test]
fn d1_there_are_so_many_sessions_and_no_more() {
    let mut w = World::with(Config { max_sessions: 2, ..Config::default() });
    let (a, _) = w.hello("a");
    w.connect();
    let third = SessionId(99);
    assert!(closes(&w.nve(third, Input::Connected { address: None, identity: Identity::Unproven }), third));
    assert_eq!(w.nve_session("a"), a);
}

#[test]
fn d9_without_space_orders_are_refused_and_vms_move_on() {
    let mut w = World::new();
    let a = w.join("a");
    w.request(Peer::Clock, Input::Space(false));
    assert_eq!(w.define_vm(definition(4)).err(), Some(Refusal::NoSpace));
    assert_eq!(Refusal::NoSpace.kind(), RefusalKind::Full);
    w.take(a, 1);
    assert!(w.order::<VmRecord>(Order::DeleteVm { name: "vm2".into() }).is_ok(), "that needs none");
    w.request(Peer::Clock, Input::Space(true));
    assert!(w.define_vm(definition(4)).is_ok());
}

#[test]
fn d16_a_report_with_a_clock_of_1970_changes_nothing() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.start(1, "b", "m").unwrap();
    w.leave(b);
    w.abort_move(&MoveId("m".into())).unwrap();
    // A step that was under way, by a clock that was never set.
    let step = MoveStep { at_us: 7, nve: None, what: MoveStepKind::Prepared, note: String::new() };
    w.say(a, NveToNva::MoveReport { id: MoveId("m".into()), key: key(1), step: Some(step), counts: None });
    let steps = &w.d.move_record(&MoveId("m".into())).unwrap().steps;
    assert!(steps.iter().all(|s| s.at_us > 1_000_000_000_000_000), "{steps:?}");
    w.say(a, NveToNva::Keepalive);
    w.pass(1_000);
    let (b, out) = w.hello("b");
    let told = sent(&out, b).into_iter().any(|m| matches!(m, NvaToNve::MoveAbort { .. }));
    assert!(told, "the other party hears that it was called off");
}

#[test]
fn d17_a_version_that_was_never_given_tells_that_changes_were_lost() {
    let mut w = World::new();
    let a = w.join("a");
    let older = w.durable.clone();
    let held = w.take(a, 1);
    let attachment = Attachment { key: key(1), port: "p1".into(), version: held.version, active: true };
    let report = NveToNva::Report { attachments: vec![attachment], more: false };
    let alarms = |out: &[Output]| {
        let is =
            |o: &&Output| matches!(o, Output::Log { level: Level::Alarm, text } if text.contains("are lost"));
        out.iter().filter(is).count()
    };
    w.restart();
    let a = w.join("a");
    assert_eq!(alarms(&w.say(a, report.clone())), 0, "all is there");
    // The file of before the grant.
    w.durable = State { epoch: w.durable.epoch, ..older };
    w.restart();
    let a = w.join("a");
    assert_eq!(alarms(&w.say(a, report.clone())), 1);
    assert_eq!(alarms(&w.say(a, report)), 0, "it is said once");
}
