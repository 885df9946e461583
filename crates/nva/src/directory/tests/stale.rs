//! What an old NVE tells others by way of the NVA.

use super::*;

/// VM 1 went from A to B; C is in its VN too. With the version that A had it by.
fn moved() -> (World, [SessionId; 3], Version) {
    let mut w = World::new();
    let [a, b, c] = ["a", "b", "c"].map(|n| w.join(n));
    let had = w.take(a, 1).version;
    w.settle(&[a, b, c]);
    w.start(1, "b", "m1").unwrap();
    let out = w.say(b, claim(1, Version::ZERO));
    assert!(granted(&out, b).is_some());
    (w, [a, b, c], had)
}

fn left(version: Version) -> NveToNva {
    NveToNva::Departed { key: key(1), ips: vec![ip(1)], version }
}

#[test]
fn r39_a_departure_reaches_the_other_nves_of_the_vn() {
    let (mut w, [a, b, c], version) = moved();
    let out = w.say(a, left(version));
    let told = NvaToNve::Departed { key: key(1), version, from: id("a") };
    assert_eq!(all_sent(&out), [(b, told.clone()), (c, told)]);
    let out = w.say(b, left(w.vm(1).version));
    assert_eq!(all_sent(&out).len(), 2, "the owner itself may say so too");
}

#[test]
fn r39_only_the_recorded_owner_may_say_so() {
    let (mut w, [a, _, c], version) = moved();
    let refused = |out: &[Output], s| matches!(all_sent(out)[..], [(to, NvaToNve::Error { .. })] if to == s);
    let out = w.say(c, left(version));
    assert!(refused(&out, c), "{out:?}");
    let warned = |o: &Output| matches!(o, Output::Log { level: Level::Warn, text } if text.contains("NVE c"));
    assert!(out.iter().any(warned), "audited");
    let newer = w.vm(1).version;
    assert!(refused(&w.say(a, left(newer)), a), "A never had that version");
    w.restart();
    let a = w.join("a");
    assert_eq!(all_sent(&w.say(a, left(version))), [], "of an earlier incarnation: nobody can tell any more");
}

#[test]
fn r39_a_vm_manager_may_say_that_a_vm_departed() {
    let (mut w, [a, b, c], had) = moved();
    let mut say = |nve: Option<&str>| {
        let nve = nve.map(id);
        w.vm_departed("vm1", nve.as_ref())
    };
    let (done, out) = say(None);
    assert_eq!(done, Ok(Departure { nve: id("b"), told: 2 }), "it left who has it");
    let sent_by_b = all_sent(&out);
    let (done, out) = say(Some("a"));
    assert_eq!(done, Ok(Departure { nve: id("a"), told: 2 }), "who had it last may be named too");
    let told = NvaToNve::Departed { key: key(1), version: had, from: id("a") };
    assert_eq!(all_sent(&out), [(b, told.clone()), (c, told)], "as if a had said so");
    let version = w.vm(1).version;
    let told = NvaToNve::Departed { key: key(1), version, from: id("b") };
    assert_eq!(sent_by_b, [(a, told.clone()), (c, told)]);
    assert!(w.vm(1).is_at(&id("b")), "a hint: the location stays");
}

#[test]
fn r39_a_vm_manager_that_names_another_nve_is_refused() {
    let (mut w, [a, b, c], _) = moved();
    let (refused, out) = w.vm_departed("vm1", Some(&id("c")));
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), RefusalKind::State);
    assert!(refused.to_string().contains("NVE c is not the recorded owner of VM \"vm1\", which is at NVE b"));
    assert_eq!(all_sent(&out), [], "nobody is told");
    let warned = |o: &Output| matches!(o, Output::Log { level: Level::Warn, text } if text.contains("NVE c"));
    assert!(out.iter().any(warned), "audited");
    let (unknown, _) = w.vm_departed("vm9", None);
    assert_eq!(unknown, Err(Refusal::UnknownVm("vm9".into())));
    w.settle(&[a, b, c]);
    let version = w.vm(1).version;
    w.say(b, NveToNva::Withdraw { key: key(1), version });
    let (nowhere, _) = w.vm_departed("vm1", None);
    assert_eq!(nowhere, Err(Refusal::DepartsFromNowhere { vm: "vm1".into() }));
}

#[test]
fn r47_a_redirect_by_the_nva_reaches_the_stale_sender() {
    let (mut w, [a, _, c], _) = moved();
    let version = w.vm(1).version;
    let (to, sender) = (Some(locators(2)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)));
    let out = w.say(a, NveToNva::Redirect { key: key(1), to, version, sender });
    let told = NvaToNve::Redirect { key: key(1), to, version, from: id("a") };
    assert_eq!(all_sent(&out), [(c, told)]);
    let never = Version { seq: version.seq + 1, ..version };
    let out = w.say(a, NveToNva::Redirect { key: key(1), to, version: never, sender });
    assert!(matches!(all_sent(&out)[..], [(s, NvaToNve::Error { .. })] if s == a), "{out:?}");
    let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let out =
        w.say(a, NveToNva::Redirect { key: key(1), to: None, version: Version::ZERO, sender: stranger });
    assert_eq!(all_sent(&out), [], "no member of the VN");
}
