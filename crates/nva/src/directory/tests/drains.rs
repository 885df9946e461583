//! Drains: an NVE is emptied, and takes no VMs meanwhile.

use godwit_model::{Abilities, DrainPhase, ModeSet};

use super::*;

/// A session of an NVE with these locators and abilities, subscribed to VN red.
fn join_as(w: &mut World, name: &str, locators: Locators, abilities: Abilities) -> SessionId {
    let session = w.connect();
    let software = "test".into();
    let hello = NveToNva::Hello { nve: id(name), locators, software, last_epoch: 0, instance: 1, abilities };
    w.say(session, hello);
    w.say(session, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    session
}

fn takes(vms: u32) -> Abilities {
    Abilities { modes: ModeSet::ALL, end_markers: false, capacity: vms }
}

/// NVE a with the VMs 1, 2 and 3, and the empty NVEs b and c.
fn three() -> (World, [SessionId; 3]) {
    let mut w = World::new();
    let s = [("a", 1), ("b", 2), ("c", 3)].map(|(n, at)| join_as(&mut w, n, locators(at), takes(100)));
    for n in 1..=3 {
        w.take(s[0], n);
    }
    w.settle(&s);
    (w, s)
}

/// The VMs that NVEs are told to prepare for, with the NVE they go to.
fn targets(w: &World, outputs: &[Output]) -> Vec<(String, String)> {
    let of = all_sent(outputs).into_iter().filter_map(|(session, m)| match m {
        NvaToNve::MovePrepare { role: godwit_model::message::MoveRole::Target, record, to, .. } => {
            assert_eq!(w.d.session_for(&to.nve), Ok(session));
            Some((record.name, to.nve.to_string()))
        }
        _ => None,
    });
    of.collect()
}

/// The VM managers do as they are told, until nothing more is ordered; every move of a VM, in their order.
fn managed(w: &mut World, sessions: &[SessionId], rounds: usize) -> Vec<(String, String)> {
    let (mut done, mut todo) = (Vec::new(), w.pass(20));
    for _ in 0..rounds {
        let mut next = Vec::new();
        for (vm, to) in targets(w, &todo) {
            let (session, n) = (w.nve_session(&to), vm[2..].parse().unwrap());
            next.extend(w.say(session, claim(n, Version::ZERO)));
            done.push((vm, to));
        }
        for s in sessions {
            let seen = [&todo[..], &next[..]].concat();
            next.extend(w.ack(*s, &seen));
            w.say(*s, NveToNva::Keepalive);
        }
        next.extend(w.pass(100));
        todo = next;
    }
    done
}

fn info(w: &World, nve: &str) -> DrainInfo {
    w.d.drain_info(&id(nve)).unwrap()
}

fn reasons(list: &[DrainedVm]) -> Vec<(&str, &str)> {
    list.iter().map(|v| (v.vm.as_str(), v.reason.as_str())).collect()
}

fn cannot(w: &mut World, to: &[&str]) -> String {
    match w.drain_to("a", to, 1) {
        Err(Refusal::CannotDrain { nve, why }) if nve == id("a") => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r85_all_vms_leave_spread_over_the_others_so_many_at_a_time() {
    let (mut w, s) = three();
    let (ordered, _) = w.drain_to("a", &[], 2).unwrap();
    assert_eq!((ordered.record.total, ordered.here, ordered.record.phase), (3, 3, DrainPhase::Running));
    let out = w.pass(20);
    assert_eq!(targets(&w, &out).len(), 2, "two at a time");
    assert_eq!(info(&w, "a").moving.len(), 2);
    let went: Vec<String> = targets(&w, &out).into_iter().map(|(_, to)| to).collect();
    assert_eq!(went, ["b", "c"], "each to the one with the most room");
    // As the managers do.
    for (vm, to) in targets(&w, &out) {
        let session = w.nve_session(&to);
        let out = w.say(session, claim(vm[2..].parse().unwrap(), Version::ZERO));
        s.iter().for_each(|s| drop(w.ack(*s, &out)));
    }
    w.settle(&s);
    let rest: Vec<MoveId> = info(&w, "a").moving.into_iter().map(|m| m.id).collect();
    assert_eq!(rest.len(), 1);
    let to = w.d.move_record(&rest[0]).unwrap().to.clone();
    let session = w.d.session_for(&to).unwrap();
    w.say(session, claim(3, Version::ZERO));
    w.settle(&s);
    let report = info(&w, "a");
    assert_eq!((report.record.phase, report.record.moved, report.here), (DrainPhase::Ended, 3, 0));
    assert_eq!((report.failed, report.left, report.elsewhere), (vec![], vec![], 0));
    assert!(report.elapsed_ms > 0 && report.record.ended_us > report.record.ordered_us);
    assert_eq!(w.durable.drains[&id("a")], report.record);
    let (again, _) = w.drain_to("a", &[], 2).unwrap();
    assert_eq!(again.record, report.record, "who orders it once more sees how it ended");
}

#[test]
fn r85_nobody_new_comes_to_an_nve_that_is_drained() {
    let (mut w, s) = three();
    w.define_vm(definition(4)).unwrap();
    w.take(s[1], 4);
    w.settle(&s);
    w.define_vm(definition(5)).unwrap();
    w.drain_to("a", &[], 1).unwrap();
    assert_eq!(w.start(4, "a", "x"), Err(Refusal::NveDraining { nve: id("a") }));
    let pinned = VmDefinition { pinned: Some(id("a")), ..definition(5) };
    assert_eq!(w.define_vm(pinned).unwrap_err(), Refusal::NveDraining { nve: id("a") });
    let out = w.say(s[0], claim(5, Version::ZERO));
    assert_eq!(denied(&out, s[0]), Some(DenyReason::Draining), "it never ran there");
    let out = w.say(s[0], claim(4, Version::ZERO));
    assert_eq!(denied(&out, s[0]), Some(DenyReason::Draining), "it runs elsewhere");
    let out = w.say(s[0], claim(1, Version::ZERO));
    assert!(granted(&out, s[0]).is_some(), "what runs there stays until it is moved");
    // Its port goes and comes, as with a switch that starts again.
    let version = w.vm(2).version;
    w.say(s[0], NveToNva::Withdraw { key: key(2), version });
    assert_eq!(owner(w.vm(2)), None);
    let out = w.say(s[0], claim(2, Version::ZERO));
    assert!(granted(&out, s[0]).is_some(), "it was there before");
    w.undrain("a").unwrap();
    let out = w.say(s[0], claim(5, Version::ZERO));
    assert!(granted(&out, s[0]).is_some());
    assert_eq!(w.undrain("a").unwrap_err(), Refusal::NotDraining { nve: id("a") });
}

#[test]
fn r85_a_vm_that_was_down_when_the_nva_restarted_may_come_back_to_the_nve_that_it_was_at() {
    let (mut w, s) = three();
    w.define_vm(definition(4)).unwrap();
    w.drain_to("a", &[], 1).unwrap();
    let version = w.vm(2).version;
    w.say(s[0], NveToNva::Withdraw { key: key(2), version });
    assert_eq!(w.durable.vms[&key(2)].former, Some((id("a"), version)));
    w.restart();
    let a = join_as(&mut w, "a", locators(1), takes(100));
    let out = w.say(a, claim(4, Version::ZERO));
    assert_eq!(denied(&out, a), Some(DenyReason::Draining), "it never ran there");
    let out = w.say(a, claim(2, Version::ZERO));
    assert!(granted(&out, a).is_some(), "it was there before");
    assert_eq!(w.vm(2).former, None, "where it runs, that says more");
}

#[test]
fn r85_a_switch_without_drains_is_refused_in_its_own_words() {
    let mut w = World::new();
    let a = join_as(&mut w, "a", locators(1), Abilities::unsaid());
    w.join("b");
    w.drain_to("a", &[], 1).unwrap();
    let out = w.say(a, claim(1, Version::ZERO));
    assert_eq!(denied(&out, a), Some(DenyReason::OwnedElsewhere));
}

#[test]
fn r85_a_claim_that_waits_for_the_old_nves_word_is_refused_when_the_drain_begins() {
    let (mut w, s) = three();
    let out = w.say(s[1], claim(1, Version::ZERO));
    assert_eq!((granted(&out, s[1]), denied(&out, s[1])), (None, None), "NVE a is asked");
    let (_, out) = w.drain_to("b", &[], 1).unwrap();
    assert_eq!(denied(&out, s[1]), Some(DenyReason::Draining));
}

#[test]
fn r85_a_move_ordered_before_the_drain_ends_and_its_vm_is_moved_on() {
    let (mut w, s) = three();
    w.start(1, "b", "m").unwrap();
    w.drain_to("b", &["c"], 1).unwrap();
    w.pass(50);
    let out = w.say(s[1], claim(1, Version::ZERO));
    assert!(granted(&out, s[1]).is_some());
    w.settle(&s);
    assert_eq!(w.phase("m"), MovePhase::Done);
}

#[test]
fn r85_orders_that_make_no_sense_are_refused() {
    let (mut w, s) = three();
    let foreign = id("v");
    w.define_nve(&foreign, locators(9)).unwrap();
    assert_eq!(w.drain_to("x", &[], 1).unwrap_err(), Refusal::UnknownNve("x".into()));
    assert_eq!(w.drain_to("a", &["x"], 1).unwrap_err(), Refusal::UnknownNve("x".into()));
    assert_eq!(w.drain_to("a", &[], 0).unwrap_err(), Refusal::BadParallel(0));
    assert_eq!(w.drain_to("a", &[], 65).unwrap_err(), Refusal::BadParallel(65));
    assert!(cannot(&mut w, &["a"]).contains("itself"));
    assert!(cannot(&mut w, &["v"]).contains("NVE v has no session"));
    assert!(matches!(w.drain_to("v", &[], 1), Err(Refusal::CannotDrain { .. })));
    w.leave(s[2]);
    assert_eq!(w.drain_to("a", &["c"], 1).unwrap_err(), Refusal::NveNotConnected { nve: id("c") });
    w.drain_to("b", &[], 1).unwrap();
    assert_eq!(w.drain_to("a", &["b"], 1).unwrap_err(), Refusal::NveDraining { nve: id("b") });
    assert_eq!(
        cannot(&mut w, &[]),
        "none takes the 3 VMs of VN \"red\": NVE b is being drained itself; NVE c is not connected"
    );
    assert_eq!(w.d.drain_info(&id("a")).unwrap_err(), Refusal::NotDraining { nve: id("a") });
}

#[test]
fn r85_what_the_others_cannot_take_is_refused_before_anything_moves() {
    let mut w = World::new();
    let a = join_as(&mut w, "a", locators(1), takes(100));
    let v6 = Locators { v4: None, v6: Some("2001:db8::2".parse().unwrap()) };
    // Of none of the VM's senders: it is no member of the VN.
    let b = join_as(&mut w, "b", v6, takes(100));
    w.say(b, NveToNva::Unsubscribe { vni: vni(100) });
    let c = join_as(&mut w, "c", locators(3), takes(2));
    let cold = Abilities { modes: ModeSet::of(&[MoveMode::Cold]), ..takes(100) };
    let d = join_as(&mut w, "d", locators(4), cold);
    for n in 1..=3 {
        w.take(a, n);
    }
    w.settle(&[a, b, c, d]);
    let why = cannot(&mut w, &["b", "d"]);
    assert!(why.contains("NVE b has no underlay address family in common with NVE a"), "{why}");
    assert!(why.contains("NVE d takes no hot moves"), "{why}");
    let why = cannot(&mut w, &[]);
    assert!(why.contains("no room for 1 of 3 VMs") && why.contains("2 places"), "{why}");
    assert!(w.d.moves(None, false).is_empty() && w.durable.drains.is_empty(), "nothing half done");
    assert!(w.d.nves(w.now).iter().all(|n| n.drain.is_none()));
}

#[test]
fn r85_who_cannot_move_is_left_with_the_reason() {
    let mut w = World::new();
    let settings = VnSettings { modes: ModeSet::of(&[MoveMode::Cold]), ..VnSettings::default() };
    w.create_vn(VnRecord { vni: vni(200), name: "blue".into(), settings }).unwrap();
    let s = [("a", 1), ("b", 2)].map(|(n, at)| join_as(&mut w, n, locators(at), takes(100)));
    w.take(s[0], 1);
    let blue = VmDefinition { name: "cold".into(), vn: "blue".into(), ..definition(9) };
    let cold = w.define_vm(blue).unwrap().0.key;
    let NveToNva::Claim { seq, ips, cause, base, port, router, overrides, .. } = claim(9, Version::ZERO)
    else {
        unreachable!()
    };
    w.say(s[0], NveToNva::Claim { seq, key: cold, ips, cause, base, port, router, overrides });
    w.define_vm(VmDefinition { pinned: Some(id("a")), ..definition(2) }).unwrap();
    w.settle(&s);
    w.drain_to("a", &[], 4).unwrap();
    managed(&mut w, &s, 6);
    let report = info(&w, "a");
    assert_eq!((report.record.phase, report.record.moved, report.here), (DrainPhase::Ended, 1, 2));
    let left = reasons(&report.left);
    assert!(left[0].0 == "vm2" && left[0].1.starts_with("pinned to this NVE"), "{left:?}");
    assert!(left[1].0 == "cold" && left[1].1.starts_with("interruption not accepted"), "{left:?}");
    // Accepted, it goes cold.
    let order = DrainOrder { nve: id("a"), to: vec![], parallel: 4, accept_interruption: true };
    let _: (DrainInfo, _) = w.order(Order::DrainNve(order)).unwrap();
    w.pass(20);
    let moving = info(&w, "a").moving;
    assert_eq!(moving.len(), 1);
    assert_eq!(w.d.move_record(&moving[0].id).unwrap().mode, MoveMode::Cold);
}

#[test]
fn r85_a_drain_goes_on_after_the_nva_was_killed() {
    let (mut w, _) = three();
    w.drain_to("a", &[], 1).unwrap();
    w.pass(20);
    let first = info(&w, "a").moving;
    w.restart();
    let s = [("a", 1), ("b", 2), ("c", 3)].map(|(n, at)| join_as(&mut w, n, locators(at), takes(100)));
    let out = w.say(s[0], claim(1, Version::ZERO));
    assert!(granted(&out, s[0]).is_some(), "what runs there still does");
    w.pass(50);
    assert_eq!(info(&w, "a").moving.len(), 1);
    assert_eq!(info(&w, "a").moving[0].id, first[0].id, "the same move");
    // Its new NVE claims the VM.
    let to = w.nve_session(first[0].to.as_str());
    let mut out = w.say(to, claim(1, Version::ZERO));
    for s in &s {
        out.extend(w.ack(*s, &out.clone()));
    }
    out.extend(w.pass(200));
    let n = targets(&w, &out).len();
    assert_eq!(n, 1, "the next one");
    let (vm, to) = targets(&w, &out).pop().unwrap();
    let session = w.nve_session(&to);
    w.say(session, claim(vm[2..].parse().unwrap(), Version::ZERO));
    w.settle(&s);
    let last = info(&w, "a").moving.pop().unwrap();
    let session = w.nve_session(last.to.as_str());
    w.say(session, claim(last.vm[2..].parse().unwrap(), Version::ZERO));
    w.settle(&s);
    let report = info(&w, "a");
    assert_eq!((report.record.phase, report.record.moved, report.here), (DrainPhase::Running, 3, 0));
    // A switch that came back may have more to say; then it is over.
    for _ in 0..12 {
        w.settle(&s);
        w.pass(1000);
        s.iter().for_each(|s| drop(w.say(*s, NveToNva::Keepalive)));
    }
    assert_eq!(info(&w, "a").record.phase, DrainPhase::Ended);
}

#[test]
fn r85_a_drain_is_stopped_and_goes_on_by_the_same_order() {
    let (mut w, s) = three();
    w.drain_to("a", &["b"], 1).unwrap();
    w.pass(20);
    let (stopped, _) = w.stop_drain("a").unwrap();
    assert_eq!((stopped.record.phase, stopped.moving.len()), (DrainPhase::Stopped, 1));
    w.say(s[1], claim(1, Version::ZERO));
    w.settle(&s);
    let report = info(&w, "a");
    assert_eq!((report.record.moved, report.moving.len(), report.here), (1, 0, 2), "what ran has ended");
    assert_eq!(reasons(&report.left)[0], ("vm2", "the drain was stopped"));
    let out = w.say(s[0], claim(1, Version::ZERO));
    assert_eq!(granted(&out, s[0]), None, "nobody comes there still");
    let (again, _) = w.drain_to("a", &["b"], 1).unwrap();
    assert_eq!((again.record.phase, again.record.total), (DrainPhase::Running, 3));
    managed(&mut w, &s, 8);
    let report = info(&w, "a");
    assert_eq!((report.record.phase, report.record.moved, report.here), (DrainPhase::Ended, 3, 0));
}

#[test]
fn r85_without_a_manager_the_drain_ends_and_says_so() {
    let (mut w, s) = three();
    w.drain_to("a", &[], 3).unwrap();
    let patience = w.d.config.intent_timeout.as_ms();
    for _ in 0..4 * patience / 1000 {
        w.pass(1000);
        s.iter().for_each(|s| drop(w.say(*s, NveToNva::Keepalive)));
    }
    let report = info(&w, "a");
    assert_eq!((report.record.phase, report.record.moved, report.here), (DrainPhase::Ended, 0, 3));
    assert!(report.record.note.contains("does a VM manager perform them?"), "{:?}", report.record.note);
    let failed = reasons(&report.failed);
    assert_eq!(failed.len(), 3);
    assert!(failed[0].1.starts_with("failed 3 times: move d"), "{failed:?}");
    assert!(w.vm(1).moving.is_none() && w.d.moves(None, true).is_empty());
}

#[test]
fn r85_vms_that_leave_by_themselves_are_told_apart() {
    let (mut w, s) = three();
    w.drain_to("a", &[], 1).unwrap();
    let version = w.vm(3).version;
    w.say(s[0], NveToNva::Withdraw { key: key(3), version });
    managed(&mut w, &s, 8);
    let report = info(&w, "a");
    assert_eq!((report.record.phase, report.record.moved, report.elsewhere), (DrainPhase::Ended, 2, 1));
}

#[test]
fn r85_a_drain_waits_for_its_nve_and_is_forgotten_with_it() {
    let (mut w, s) = three();
    w.drain_to("a", &["b"], 3).unwrap();
    w.leave(s[0]);
    w.pass(1000);
    assert_eq!(info(&w, "a").record.phase, DrainPhase::Running);
    assert!(w.drain_to("a", &["b"], 3).is_ok(), "the order again, while it is away");
    w.restart();
    w.pass(20);
    assert_eq!(info(&w, "a").record.phase, DrainPhase::Running);
    for n in 1..=3 {
        let id = w.vm(n).moving.clone();
        id.into_iter().for_each(|id| drop(w.abort_move(&id).unwrap()));
        w.delete_vm(&format!("vm{n}")).unwrap();
    }
    w.delete_nve(&id("a")).unwrap();
    assert!(w.durable.drains.is_empty());
}

#[test]
fn r85_two_hundred_vms_leave_one_nve_to_those_with_room() {
    let mut w = World::new();
    let rooms = [("a", 1, 300), ("b", 2, 150), ("c", 3, 30), ("d", 4, 40)];
    let s = rooms.map(|(n, at, room)| join_as(&mut w, n, locators(at), takes(room)));
    for n in 4..=200 {
        w.define_vm(definition(n)).unwrap();
    }
    for n in 1..=200 {
        w.take(s[0], n);
    }
    w.settle(&s);
    w.drain_to("a", &[], 64).unwrap();
    let done = managed(&mut w, &s, 12);
    assert_eq!(done.len(), 200);
    let report = info(&w, "a");
    assert_eq!((report.record.phase, report.record.moved, report.here), (DrainPhase::Ended, 200, 0));
    let has = |nve: &str| w.d.nves(w.now).into_iter().find(|n| n.record.id == id(nve)).unwrap().vms;
    assert!(has("b") <= 150 && has("c") <= 30 && has("d") <= 40, "none has more than it takes");
    assert_eq!(has("b") + has("c") + has("d"), 200);
}
