//! Two switches that say they are one (R96).

use std::net::{IpAddr, SocketAddr};

use super::*;

fn hello(nve: &str, n: u8, instance: u64) -> NveToNva {
    NveToNva::Hello {
        nve: id(nve),
        locators: locators(n),
        software: "test".into(),
        last_epoch: 0,
        instance,
        abilities: godwit_model::Abilities::unsaid(),
    }
}

fn welcomed(outputs: &[Output], to: SessionId) -> bool {
    sent(outputs, to).iter().any(|m| matches!(m, NvaToNve::Welcome { .. }))
}

/// What a session is refused with, which closes it.
fn refused(outputs: &[Output], to: SessionId) -> Option<String> {
    let text = sent(outputs, to).into_iter().find_map(|m| match m {
        NvaToNve::Refused { text } => Some(text),
        _ => None,
    })?;
    assert!(outputs.iter().any(|o| matches!(o, Output::Close { session, .. } if *session == to)));
    Some(text)
}

fn alarms(outputs: &[Output]) -> usize {
    outputs.iter().filter(|o| matches!(o, Output::Log { text, .. } if text.starts_with("ALARM"))).count()
}

/// Time passes while a session is heard.
fn alive_for(w: &mut World, session: SessionId, ms: u64) -> Vec<Output> {
    let mut all = Vec::new();
    for _ in 0..ms / 100 {
        all.extend(w.say(session, NveToNva::Keepalive));
        all.extend(w.pass(100));
    }
    all
}

impl World {
    fn connect_from(&mut self, host: u8) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let address = Some(SocketAddr::new(IpAddr::V4([192, 0, 2, host].into()), 5000));
        self.nve(session, Input::Connected { address, identity: Identity::Unproven });
        session
    }

    /// A process that says who it is, and what it is told at once.
    fn process(&mut self, host: u8, nve: &str, n: u8, instance: u64) -> (SessionId, Vec<Output>) {
        let session = self.connect_from(host);
        let outputs = self.say(session, hello(nve, n, instance));
        (session, outputs)
    }

    fn refusal_shown(&self, nve: &str) -> Option<RefusedInfo> {
        self.d.nve_info(&id(nve), self.now).expect("a known NVE").refused
    }
}

#[test]
fn r96_the_first_of_two_with_one_name_stays_and_the_second_is_refused() {
    let mut w = World::new();
    let (first, out) = w.process(1, "a", 1, 11);
    assert!(welcomed(&out, first));
    w.say(first, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let version = w.take(first, 1).version;
    let (second, out) = w.process(9, "a", 9, 12);
    assert_eq!(out, [], "nothing is decided yet");
    // Neither what the second says meanwhile, nor the time, changes anything.
    assert_eq!(w.say(second, claim(1, Version::ZERO)), []);
    let out = w.pass(900);
    assert!(out.iter().all(|o| !matches!(o, Output::Close { .. })), "{out:?}");
    let out = w.say(first, NveToNva::Keepalive);
    let text = refused(&out, second).expect("refused");
    for named in ["NVE a ", "192.0.2.1:5000", "192.0.2.9:5000", "10.0.0.1", "10.0.0.9"] {
        assert!(text.contains(named), "{text:?} names {named}");
    }
    assert_eq!(alarms(&out), 1);
    assert_eq!(w.d.session_for(&id("a")), Ok(first));
    assert_eq!(w.durable.nves[&id("a")].locators, locators(1));
    assert_eq!(w.vm(1).version, version, "nothing of the first's has changed");
    assert_eq!(w.refusal_shown("a").map(|r| (r.text, r.count)), Some((text, 1)));

    // It comes again and again: one alarm a minute, and a count.
    let mut told = 0;
    for n in 0..40 {
        let (again, _) = w.process(9, "a", 9, 12);
        w.pass(1000);
        let out = w.say(first, NveToNva::Keepalive);
        assert!(refused(&out, again).is_some(), "{n}");
        told += alarms(&out);
        w.pass(1000);
        w.say(first, NveToNva::Keepalive);
    }
    assert_eq!(told, 1);
    assert_eq!(w.refusal_shown("a").map(|r| r.count), Some(41));
    for _ in 0..130 {
        w.pass(1000);
        w.say(first, NveToNva::Keepalive);
    }
    assert_eq!(w.refusal_shown("a"), None, "it is over");
}

#[test]
fn r96_a_locator_belongs_to_one_live_nve() {
    let mut w = World::new();
    let (a, _) = w.process(1, "a", 1, 11);
    let (b, out) = w.process(2, "b", 1, 12);
    assert_eq!(out, []);
    let out = w.say(a, NveToNva::Keepalive);
    let text = refused(&out, b).expect("refused");
    assert!(text.contains("locator 10.0.0.1 is taken: NVE a") && text.contains("NVE b"), "{text}");
    assert!(w.d.session_for(&id("b")).is_err());
    // With one of its own it comes in; and not in the midst of its session either.
    let (b, out) = w.process(2, "b", 2, 12);
    assert!(welcomed(&out, b));
    w.say(b, hello("b", 1, 12));
    let out = w.say(a, NveToNva::Keepalive);
    assert!(refused(&out, b).is_some());
    assert!(w.d.session_for(&id("b")).is_err() && w.d.session_for(&id("a")) == Ok(a));
    // Whoever gives a locator up leaves it to others.
    assert!(welcomed(&w.say(a, hello("a", 7, 11)), a));
    let (b, out) = w.process(2, "b", 1, 12);
    assert!(welcomed(&out, b), "{out:?}");
}

#[test]
fn r96_a_restarted_switch_comes_in_as_soon_as_its_old_session_is_over() {
    let mut w = World::new();
    let (old, _) = w.process(1, "a", 1, 11);
    let (new, out) = w.process(1, "a", 1, 12);
    assert_eq!(out, []);
    let out = w.leave(old);
    assert!(welcomed(&out, new), "its connection is closed");
    // Or by its silence, within the keepalive.
    let (newer, _) = w.process(1, "a", 1, 13);
    let mut out = w.pass(1600);
    w.say(newer, NveToNva::Keepalive);
    out.extend(w.pass(1600));
    assert!(welcomed(&out, newer), "{out:?}");
    assert_eq!(alarms(&out), 0);
    // The same process replaces its own session at once, though a clone waits.
    let (clone, _) = w.process(9, "a", 1, 99);
    let (newest, out) = w.process(1, "a", 1, 13);
    assert!(welcomed(&out, newest) && !welcomed(&out, clone));
    let out = w.say(newest, NveToNva::Keepalive);
    assert!(refused(&out, clone).is_some());
}

#[test]
fn r96_of_several_that_wait_the_first_comes_in() {
    let mut w = World::new();
    let (old, _) = w.process(1, "a", 1, 11);
    let (one, _) = w.process(1, "a", 1, 12);
    let (two, _) = w.process(1, "a", 1, 13);
    let (gone, _) = w.process(1, "a", 1, 14);
    assert_eq!(w.leave(gone), []);
    let out = w.leave(old);
    assert!(welcomed(&out, one) && !welcomed(&out, two), "{out:?}");
    let out = w.say(one, NveToNva::Keepalive);
    assert!(refused(&out, two).is_some());
}

#[test]
fn r96_after_a_restart_of_the_nva_the_first_is_waited_for() {
    let mut w = World::new();
    w.process(1, "a", 1, 11);
    w.process(2, "b", 2, 22);
    w.restart();
    w.pass(100);
    let (clone, out) = w.process(9, "a", 9, 12);
    assert_eq!(out, []);
    let (thief, out) = w.process(9, "c", 1, 13);
    assert_eq!(out, [], "its locator is kept, too");
    let (a, out) = w.process(1, "a", 1, 11);
    assert!(welcomed(&out, a), "the process that had the session");
    let out = w.say(a, NveToNva::Keepalive);
    assert!(refused(&out, clone).is_some() && refused(&out, thief).is_some());
    // One that does not come back is waited for no longer than it takes to notice that, and to connect.
    let (b, _) = w.process(2, "b", 2, 23);
    let out = alive_for(&mut w, b, 9_700);
    assert!(!welcomed(&out, b), "{out:?}");
    let out = alive_for(&mut w, b, 300);
    assert!(welcomed(&out, b), "{out:?}");
}

#[test]
fn r96_after_a_restart_of_the_nva_an_attempt_that_times_out_costs_the_first_nothing() {
    let mut w = World::new();
    w.process(1, "a", 1, 11);
    w.restart();
    w.pass(100);
    let (clone, out) = w.process(9, "a", 9, 12);
    assert_eq!(out, []);
    // It noticed the end after 3 s of silence, tried in vain for 3 s, and waited 2 s.
    let out = alive_for(&mut w, clone, 8_000);
    assert!(!welcomed(&out, clone), "{out:?}");
    let (a, out) = w.process(1, "a", 1, 11);
    assert!(welcomed(&out, a));
    let out = w.say(a, NveToNva::Keepalive);
    assert!(refused(&out, clone).is_some());
}
