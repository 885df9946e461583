//! How news spreads.

use super::*;

/// A, B and C are subscribed, A has VM 1, and a move to B is ordered.
fn before_a_move() -> (World, [SessionId; 3]) {
    let mut w = World::new();
    let s = [w.join("a"), w.join("b"), w.join("c")];
    w.take(s[0], 1);
    w.settle(&s);
    w.start(1, "b", "m").unwrap();
    (w, s)
}

#[test]
fn r45_the_old_nve_learns_first_and_the_others_after_its_ack() {
    let (mut w, [a, b, c]) = before_a_move();
    let out = w.say(b, claim(1, Version::ZERO));
    let sends = all_sent(&out);
    assert!(matches!(sends[0], (s, NvaToNve::Update { .. }) if s == a), "{sends:?}");
    assert!(matches!(sends[1], (s, NvaToNve::Grant { .. }) if s == b));
    assert_eq!(sends.len(), 2, "C must wait");
    let out = w.ack(a, &out);
    assert_eq!(updated(&out, c).len(), 1);
    assert_eq!(updated(&out, c)[0], *w.vm(1));
}

#[test]
fn r38_the_others_wait_no_longer_than_upd_delay() {
    let (mut w, [_, b, c]) = before_a_move();
    w.say(b, claim(1, Version::ZERO));
    assert_eq!(updated(&w.pass(40), c), []);
    assert_eq!(updated(&w.pass(10), c).len(), 1);
}

#[test]
fn r38_the_others_do_not_wait_for_an_old_nve_that_is_away() {
    let (mut w, [a, b, c]) = before_a_move();
    w.leave(a);
    let out = w.say(b, claim(1, Version::ZERO));
    assert_eq!(updated(&out, c).len(), 1);
}

#[test]
fn r38_the_others_are_told_when_the_old_nve_goes_away_without_an_ack() {
    let (mut w, [a, b, c]) = before_a_move();
    w.say(b, claim(1, Version::ZERO));
    let out = w.leave(a);
    assert_eq!(updated(&out, c).len(), 1);
}

#[test]
fn r38_a_change_overtakes_one_that_waits() {
    let (mut w, [_, b, c]) = before_a_move();
    let at_b = {
        let out = w.say(b, claim(1, Version::ZERO));
        granted(&out, b).unwrap()
    };
    let out = w.say(b, NveToNva::Withdraw { key: key(1), version: at_b.version });
    let told = updated(&out, c);
    assert_eq!((told.len(), told[0].is_active()), (1, false));
    assert_eq!(updated(&w.pass(60), c), [], "the older one is not said any more");
}

#[test]
fn r38_an_update_is_said_again_and_then_the_nve_is_dirty() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    w.settle(&[a, c]); // The news that C has joined is known.
    w.take(a, 1);
    let mut repeats = 0;
    let mut snapshots = 0;
    for m in sent(&w.pass(600), c) {
        match m {
            NvaToNve::Update { .. } => {
                assert_eq!(snapshots, 0, "the snapshot is the last word");
                repeats += 1;
            }
            NvaToNve::End { .. } => snapshots += 1,
            _ => {}
        }
    }
    assert_eq!((repeats, snapshots), (3, 1));
    assert!(is_dirty(&w, "c"));
    w.say(c, NveToNva::Ack { ack_ids: vec![w.d.updates.last_ack()] });
    assert!(!is_dirty(&w, "c"), "a late Ack counts");
    assert!(w.d.is_quiet());
}

fn is_dirty(w: &World, nve: &str) -> bool {
    w.d.nves(w.now).into_iter().find(|n| n.record.id == id(nve)).unwrap().dirty
}

#[test]
fn r38_two_lost_the_third_counts() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    w.settle(&[a, c]);
    let first = updated(&w.say(a, claim(1, Version::ZERO)), c);
    assert_eq!(first.len(), 1, "lost");
    let lost = |w: &mut World| loop {
        let out = w.pass(10);
        if !updated(&out, c).is_empty() {
            break out;
        }
    };
    lost(&mut w);
    let third = lost(&mut w);
    assert_eq!(updated(&third, c), first, "the same word");
    w.ack(c, &third);
    assert!(w.d.is_quiet() && !is_dirty(&w, "c"));
    assert_eq!(sent(&w.pass(600), c), [], "no repetition, no snapshot");
}

#[test]
fn r38_dirty_until_it_reconnects() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    w.settle(&[a, c]);
    let old = w.take(a, 1);
    // Nothing that C is told arrives, the snapshot neither.
    w.pass(600);
    assert!(is_dirty(&w, "c"));
    w.say(a, NveToNva::Withdraw { key: key(1), version: old.version });
    w.take(a, 1);
    w.pass(600);
    assert!(is_dirty(&w, "c"));
    w.leave(c);
    assert!(is_dirty(&w, "c"), "while it is away");

    let (c, _) = w.hello("c");
    let out = w.say(c, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let told: Vec<VmRecord> = sent(&out, c)
        .into_iter()
        .flat_map(|m| match m {
            NvaToNve::Snapshot { vms, .. } => vms,
            _ => vec![],
        })
        .collect();
    assert!(told.contains(w.vm(1)), "what it missed: {told:?}");
    assert!(!is_dirty(&w, "c"));
    w.settle(&[a, c]);
    assert_eq!(updated(&w.pass(600), c), [], "nothing is owed to it");
    assert!(!is_dirty(&w, "c"));
}

#[test]
fn r38_an_ack_ends_the_repeats_and_may_come_twice() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    w.settle(&[a, c]);
    let out = w.say(a, claim(1, Version::ZERO));
    w.ack(c, &out);
    w.ack(c, &out);
    assert!(w.d.is_quiet());
    assert_eq!(updated(&w.pass(300), c), []);
}

#[test]
fn r37_a_snapshot_comes_in_parts_and_updates_count_on() {
    let mut w = World::with(Config { snapshot_chunk: 2, ..Config::default() });
    let (c, _) = w.hello("c");
    let out = w.say(c, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let messages = sent(&out, c);
    let sizes: Vec<usize> = messages
        .iter()
        .filter_map(|m| match m {
            NvaToNve::Snapshot { vms, .. } => Some(vms.len()),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [2, 1]);
    let Some(NvaToNve::End { revision, known: true, settings: VnSettings { mtu: 1400, .. }, .. }) =
        messages.last()
    else {
        panic!("no End: {messages:?}")
    };
    let a = w.join("a");
    let mut expected = *revision;
    let mut out = w.say(a, claim(1, Version::ZERO));
    out.extend(w.say(a, claim(2, Version::ZERO)));
    for m in sent(&out, c) {
        if let NvaToNve::Update { revision, .. } = m {
            expected = expected.max(revision);
        }
    }
    let out = w.say(c, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let Some(NvaToNve::End { revision, .. }) = sent(&out, c).pop() else { panic!("no End") };
    assert_eq!(revision, expected, "a snapshot is as new as the last update");
}

#[test]
fn r37_only_subscribers_of_the_vn_hear_of_it() {
    let mut w = World::new();
    let (a, (d, _)) = (w.join("a"), w.hello("d"));
    w.say(d, NveToNva::Subscribe { vni: vni(200), mode: DirectoryMode::Push, lingers: false });
    let out = w.say(a, claim(1, Version::ZERO));
    assert_eq!(sent(&out, d), []);
}

#[test]
fn r37_a_vn_that_is_defined_later_is_said_to_its_subscribers() {
    let mut w = World::new();
    let (d, _) = w.hello("d");
    let out = w.say(d, NveToNva::Subscribe { vni: vni(200), mode: DirectoryMode::Push, lingers: false });
    assert!(matches!(sent(&out, d)[..], [NvaToNve::End { known: false, .. }]));
    let blue = VnRecord {
        vni: vni(200),
        name: "blue".into(),
        settings: VnSettings { transparent_vlan: true, ..VnSettings::default() },
    };
    let (_, out) = w.create_vn(blue).unwrap();
    assert!(matches!(
        sent(&out, d)[..],
        [NvaToNve::End { known: true, settings: VnSettings { transparent_vlan: true, .. }, .. }]
    ));
    let (_, out) = w.delete_vn("blue").unwrap();
    assert!(matches!(sent(&out, d)[..], [NvaToNve::End { known: false, .. }]));
}

#[test]
fn r60_members_come_and_go() {
    let mut w = World::new();
    let a = w.join("a");
    let (b, _) = w.hello("b");
    let out = w.say(b, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let Some(NvaToNve::End { members, .. }) = sent(&out, b).pop() else { panic!("no End") };
    assert_eq!(members.iter().map(|l| l.nve.as_str()).collect::<Vec<_>>(), ["a"], "not itself");
    let joined = sent(&out, a);
    assert!(
        matches!(&joined[..], [NvaToNve::Update { change: Change::MemberJoined(l), .. }] if l.nve == id("b"))
    );
    let out = w.say(b, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    assert_eq!(sent(&out, a), [], "it is one already");
    let out = w.say(b, NveToNva::Unsubscribe { vni: vni(100) });
    let left = sent(&out, a);
    assert!(matches!(&left[..], [NvaToNve::Update { change: Change::MemberLeft(n), .. }] if *n == id("b")));
}

/// Who takes part in VN red by what a new subscriber is told, and who of them lingers.
fn members(w: &mut World) -> (Vec<String>, Vec<String>) {
    let (d, _) = w.hello("d");
    let out = w.say(d, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let Some(NvaToNve::End { members, lingering, .. }) = sent(&out, d).pop() else { panic!("no End") };
    w.say(d, NveToNva::Unsubscribe { vni: vni(100) });
    let lingering = lingering.iter().map(NveId::to_string).collect();
    (members.iter().map(|l| l.nve.to_string()).collect(), lingering)
}

#[test]
fn r17_an_nve_that_only_forwards_gets_no_broadcast() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    let linger = |lingers| NveToNva::Linger { vni: vni(100), lingers };
    let told = |out: &[Output], to| {
        let of = sent(out, to).into_iter().filter_map(|m| match m {
            NvaToNve::Update { change, .. } => Some(change),
            _ => None,
        });
        of.collect::<Vec<_>>()
    };
    let (at_b, names) = (Location { nve: id("b"), locators: locators(2) }, |n: &[&str]| {
        n.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()
    });
    let out = w.say(b, linger(true));
    assert_eq!(told(&out, a), [Change::MemberLingers(at_b.clone())]);
    assert_eq!(w.say(b, linger(true)), [], "once");
    assert_eq!(members(&mut w), (names(&["a", "b"]), names(&["b"])), "known as a sender, not replicated to");
    w.settle(&[a, b]);
    assert_eq!(updated(&w.say(a, claim(1, Version::ZERO)), b).len(), 1, "it hears of everything");
    w.settle(&[a, b]);
    // A gap in the updates: it still lingers.
    let out = w.say(b, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: true });
    assert_eq!(told(&out, a), []);
    let out = w.say(b, linger(false));
    assert_eq!(told(&out, a), [Change::MemberJoined(at_b.clone())], "it has a port again");
    w.say(b, linger(true));

    // What is there after a restart of the NVE it says itself.
    let (b, _) = w.hello("b");
    assert_eq!(members(&mut w).1, names(&["b"]), "while it is away");
    let out = w.say(b, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    assert_eq!(told(&out, a), [Change::MemberJoined(at_b)]);
    w.say(b, linger(true));
    let out = w.say(b, NveToNva::Unsubscribe { vni: vni(100) });
    assert_eq!(told(&out, a), [Change::MemberLeft(id("b"))]);
    assert_eq!(members(&mut w), (names(&["a"]), names(&[])));
    let out = w.say(b, linger(true));
    assert!(matches!(sent(&out, b)[..], [NvaToNve::Error { .. }]), "it has no part in it: {out:?}");
}

#[test]
fn r60_a_disconnected_nve_stays_a_member_also_over_a_restart() {
    let mut w = World::new();
    let (a, _) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    w.leave(a);
    assert_eq!(owner(w.vm(1)), Some("a"), "and keeps its VMs");
    for _ in 0..2 {
        let (c, _) = w.hello("c");
        let out = w.say(c, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
        let Some(NvaToNve::End { members, .. }) = sent(&out, c).pop() else { panic!("no End") };
        assert_eq!(members.iter().map(|l| l.nve.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        w.restart();
    }
}

#[test]
fn r60_a_foreign_nve_is_a_member_while_a_vm_is_pinned_to_it() {
    let mut w = World::new();
    let a = w.join("a");
    w.define_nve(&id("tor"), locators(99)).unwrap();
    let pinned = VmDefinition { pinned: Some(id("tor")), ..definition(1) };
    let (_, out) = w.define_vm(pinned.clone()).unwrap();
    let joined = |m: &NvaToNve| matches!(m, NvaToNve::Update { change: Change::MemberJoined(_), .. });
    assert!(sent(&out, a).iter().any(joined));
    assert_eq!(owner(&updated(&out, a)[0]), Some("tor"));
    w.restart();
    let (c, _) = w.hello("c");
    let out = w.say(c, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let Some(NvaToNve::End { members, .. }) = sent(&out, c).pop() else { panic!("no End") };
    assert!(members.iter().any(|l| l.nve == id("tor")));
    let (_, out) = w.define_vm(definition(1)).unwrap();
    let left = |m: &NvaToNve| matches!(m, NvaToNve::Update { change: Change::MemberLeft(_), .. });
    assert!(sent(&out, c).iter().any(left), "unpinned: {out:?}");
    assert!(!w.vm(1).is_active());
}

#[test]
fn r17_new_locators_of_an_nve_reach_everybody() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    let before = w.take(a, 1);
    w.settle(&[a, c]);
    let session = w.connect();
    let hello = NveToNva::Hello {
        nve: id("a"),
        locators: locators(77),
        software: "test".into(),
        last_epoch: 1,
        instance: 1,
        abilities: godwit_model::Abilities::unsaid(),
    };
    let out = w.say(session, hello);
    let told = updated(&out, c);
    assert_eq!(told[0].active().unwrap().locators, locators(77));
    assert!(told[0].version > before.version);
    assert!(sent(&out, c).iter().any(|m| {
        matches!(m, NvaToNve::Update { change: Change::MemberJoined(l), .. } if l.locators == locators(77))
    }));
}

/// VM 1 went from A to B; who acknowledged it is up to the test.
fn after_a_move() -> (World, [SessionId; 3], Version) {
    let (mut w, [a, b, c]) = before_a_move();
    let out = w.say(b, claim(1, Version::ZERO));
    let version = granted(&out, b).unwrap().version;
    w.ack(a, &out);
    (w, [a, b, c], version)
}

fn extended(w: &mut World, a: SessionId, version: Version) -> bool {
    let out = w.say(a, NveToNva::ForwardEnding { key: key(1), version });
    sent(&out, a).contains(&NvaToNve::ForwardExtend { key: key(1), version })
}

#[test]
fn r43_a_forward_entry_lives_on_while_an_nve_has_not_acknowledged() {
    let (mut w, [a, b, c], version) = after_a_move();
    assert!(extended(&mut w, a, version), "C was told and did not acknowledge");
    w.say(c, NveToNva::Ack { ack_ids: vec![w.d.updates.last_ack()] });
    assert!(!extended(&mut w, a, version), "everybody knows");
    w.leave(c);
    assert!(!extended(&mut w, a, version), "C knew it when its session ended");
    let out = w.say(b, NveToNva::Withdraw { key: key(1), version });
    w.ack(a, &out);
    assert!(!extended(&mut w, a, version), "a VM that is nowhere is not forwarded for");
}

#[test]
fn r43_an_nve_that_is_away_may_still_send_to_the_old_one() {
    let (mut w, [a, _, c]) = before_a_move();
    w.leave(c);
    let b = w.nve_session("b");
    let out = w.say(b, claim(1, Version::ZERO));
    let version = granted(&out, b).unwrap().version;
    w.ack(a, &out);
    assert!(extended(&mut w, a, version), "C left before the move");
    let (c, _) = w.hello("c");
    assert!(extended(&mut w, a, version), "C is back and has not subscribed");
    w.say(c, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    assert!(!extended(&mut w, a, version), "its snapshot has the new location");
    w.restart();
    let (a, _) = w.hello("a");
    assert!(extended(&mut w, a, version), "after a restart nobody is taken to know what he did not say");
}

#[test]
fn r43_a_session_that_ends_with_an_update_owed_leaves_its_nve_behind() {
    let (mut w, [a, _, c], version) = after_a_move();
    w.leave(c);
    assert!(extended(&mut w, a, version));
}

#[test]
fn r43_a_foreign_nve_is_not_waited_for() {
    let (mut w, [a, b, c], _) = after_a_move();
    w.define_nve(&id("tor"), locators(99)).unwrap();
    let pinned = VmDefinition { pinned: Some(id("tor")), ..definition(3) };
    w.define_vm(pinned).unwrap();
    w.settle(&[a, b, c]);
    for ack_id in 0..=w.d.updates.last_ack() {
        w.say(c, NveToNva::Ack { ack_ids: vec![ack_id] });
    }
    let version = w.vm(1).version;
    assert!(!extended(&mut w, a, version));
}
