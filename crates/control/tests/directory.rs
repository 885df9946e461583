//! The rules of what the directory says and is asked: one test a rule, named after its requirement.

use std::net::Ipv4Addr;

use crate::lab::said::{A, B, C, claims, is_remote_to, other_record, queries, warned};
use crate::lab::{Lab, PORT, key, location, locator, mac, vm, vm_ip, vni};
use godwit_control::Input;
use godwit_model::message::{Change, NvaToNve, NveToNva};
use godwit_model::{ClaimCause, DirectoryMode, Version, VnSettings};
use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, VmState};

#[test]
fn r20_updates_seven_nine_eight_leave_nine() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(C, 2);
    let base = lab.version(1);
    let at = |n| Version { seq: base.seq + n, ..base };
    for (n, place) in [(7, A), (9, B), (8, A)] {
        let record = other_record(&lab, 1, place, at(n));
        lab.input(C, Input::Nva(NvaToNve::Snapshot { vni: vni(), vms: vec![record] }));
    }
    assert!(is_remote_to(&lab, C, 1, B));
    assert_eq!(lab.hosts[C].nve.entry(lab.now, vm(1)).unwrap().version, at(9));
}

#[test]
fn r34_r36_a_miss_is_one_question_and_absence_holds_for_its_life() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    let miss = Event::MissMac { key: key(50), port: PORT };
    for _ in 0..1000 {
        lab.event(A, miss);
    }
    assert_eq!(queries(&lab, A).len(), 1);
    lab.settle();
    let Some(VmState::Absent { until }) = lab.hosts[A].state(50) else { panic!() };
    assert_eq!(until.since(lab.now).as_ms(), 5_000);
    // R36: an attach ends it at once.
    lab.nva.define(vm(50), vm_ip(50));
    lab.add_port(B, PORT, 50);
    lab.settle();
    lab.announce(B, PORT, 50);
    lab.settle();
    assert!(is_remote_to(&lab, A, 50, B));
}

#[test]
fn r34_a_lost_answer_is_asked_for_again_with_its_number() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.nva.mute_queries = true;
    lab.event(A, Event::MissMac { key: key(50), port: PORT });
    lab.pass(450);
    let asked = queries(&lab, A);
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|s| *s == asked[0]));
    lab.input(A, Input::Nva(NvaToNve::Response { seq: 999, record: None, lifetime_ms: 1000 }));
    assert_eq!(lab.hosts[A].state(50), None, "an unasked answer counts for nothing");
    // Nor does one that nobody asked for, whatever it says, or one to this question that is of another VM.
    let mut says = |seq, n| {
        lab.nva.define(vm(n), vm_ip(n));
        let r = lab.nva.records.get_mut(&vm(n)).unwrap();
        r.bind(location(B));
        let record = Some(r.clone());
        lab.input(A, Input::Nva(NvaToNve::Response { seq, record, lifetime_ms: 1000 }));
        assert_eq!((lab.hosts[A].state(50), lab.hosts[A].state(n)), (None, None), "{seq} {n}");
    };
    says(999, 50);
    says(999, 51);
    says(asked[0], 51);
    lab.event(A, Event::MissMac { key: key(50), port: PORT });
    assert_eq!(queries(&lab, A).len(), 4, "R42: no more than once a second");
    lab.pass(1_000);
    assert!(queries(&lab, A).len() > 4);
}

#[test]
fn r34_an_answer_that_is_lost_twice_comes_within_300_ms() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    // In the directory, and the push of it did not come.
    lab.nva.define(vm(50), vm_ip(50));
    let r = lab.nva.records.get_mut(&vm(50)).unwrap();
    r.bind(location(B));
    lab.nva.mute_queries = true;
    for _ in 0..10 {
        lab.event(A, Event::MissMac { key: key(50), port: PORT });
    }
    lab.pass(150);
    assert_eq!(queries(&lab, A).len(), 2, "asked twice, answered never");
    lab.nva.mute_queries = false;
    lab.pass(150);
    assert!(is_remote_to(&lab, A, 50, B));
    let asked = queries(&lab, A);
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|seq| *seq == asked[0]), "the same question");
}

#[test]
fn r31_a_miss_on_an_address_finds_its_owner_and_its_location() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    // As if the push had not come.
    let mut record = lab.nva.records[&vm(2)].clone();
    record.key.mac = mac(3);
    record.ipv4 = vec![Ipv4Addr::new(10, 0, 0, 3)];
    lab.nva.records.insert(vm(3), record);
    lab.event(A, Event::MissIp { vn: key(1).vn(), ip: vm_ip(3), port: PORT });
    lab.event(A, Event::MissIp { vn: key(1).vn(), ip: vm_ip(99), port: PORT });
    lab.settle();
    assert_eq!(lab.hosts[A].tables.neighbors[&(key(1).vn(), vm_ip(3))], Some(mac(3)));
    assert!(is_remote_to(&lab, A, 3, B));
    assert!(lab.hosts[A].tables.absent_ips.contains_key(&(key(1).vn(), vm_ip(99))));
}

#[test]
fn r37_a_gap_in_the_revisions_wants_a_new_snapshot_and_the_end_sweeps() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    assert!(is_remote_to(&lab, A, 2, B));
    // VM 2 vanishes from the directory, and A misses the word of it.
    let gone = lab.nva.records.remove(&vm(2)).unwrap();
    let change = Change::Removed { key: vm(2), version: gone.version };
    drop(lab.nva.news(vni(), &change, None));
    let joined = Change::MemberJoined(location(B));
    for (i, message) in lab.nva.news(vni(), &joined, None) {
        lab.hosts[i].inbox.push_back(message);
    }
    lab.hosts[A].said.clear();
    lab.settle();
    assert!(lab.hosts[A].said.contains(&NveToNva::Subscribe {
        vni: vni(),
        mode: DirectoryMode::Push,
        lingers: false
    }));
    assert_eq!(lab.hosts[A].state(2), None, "not confirmed: gone");
    assert!(!lab.hosts[A].tables.neighbors.contains_key(&(key(1).vn(), vm_ip(2))));
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
}

/// Of three changes the first two are lost on the way.
#[test]
fn r38_two_lost_updates_and_the_third_counts() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(C, 3);
    for (n, place) in [B, A, B].into_iter().enumerate() {
        let r = lab.nva.records.get_mut(&vm(1)).unwrap();
        r.version.seq += 1;
        r.bind(location(place));
        let change = Change::Vm(r.clone());
        for (i, message) in lab.nva.news(vni(), &change, None) {
            if n == 2 && i == C {
                lab.hosts[C].inbox.push_back(message);
            }
        }
    }
    lab.nve_hears(C);
    assert!(is_remote_to(&lab, C, 1, B), "at once");
    lab.settle();
    assert!(is_remote_to(&lab, C, 1, B));
    let subscribe = NveToNva::Subscribe { vni: vni(), mode: DirectoryMode::Push, lingers: false };
    assert_eq!(lab.hosts[C].said.iter().filter(|m| **m == subscribe).count(), 2, "what else was lost");
}

/// The NVA sends a snapshot by itself where nobody acknowledges.
#[test]
fn r38_a_snapshot_that_is_ahead_of_the_updates_is_asked_for_again_and_sweeps() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    let gone = lab.nva.records.remove(&vm(2)).unwrap();
    let change = Change::Removed { key: vm(2), version: gone.version };
    let lost = lab.nva.news(vni(), &change, None);
    let revision = lost.iter().find_map(|(i, m)| match m {
        NvaToNve::Update { revision, .. } if *i == A => Some(*revision),
        _ => None,
    });
    let members = vec![location(B)];
    let end = |revision| NvaToNve::End {
        vni: vni(),
        revision,
        known: true,
        settings: VnSettings::default(),
        gateway: None,
        members: members.clone(),
        lingering: Vec::new(),
    };
    lab.hosts[A].said.clear();
    lab.input(A, Input::Nva(end(revision.unwrap() - 1)));
    lab.settle();
    assert_eq!(lab.hosts[A].said, [], "as new as what is known");
    assert!(is_remote_to(&lab, A, 2, B));
    lab.input(A, Input::Nva(end(revision.unwrap())));
    lab.settle();
    let subscribe = NveToNva::Subscribe { vni: vni(), mode: DirectoryMode::Push, lingers: false };
    assert_eq!(lab.hosts[A].said.iter().filter(|m| **m == subscribe).count(), 1);
    assert_eq!(lab.hosts[A].state(2), None, "what the lost update said");
}

#[test]
fn r60_copies_go_to_each_member_once() {
    let mut lab = Lab::new(3);
    for (i, n) in [(A, 1), (B, 2), (C, 3), (C, 4)] {
        lab.run_vm(i, n);
    }
    assert_eq!(lab.hosts[A].tables.replicas.len(), 2);
    lab.input(B, Input::PortRemoved { port: PortIdx(2) });
    lab.pass(3_500);
    assert_eq!(lab.hosts[A].tables.replicas.len(), 1);
}

/// VM 1 goes from A to B, and A has no other port in the VN: until its forward entry ends it sends for it, is known
/// as a sender, and gets no copies.
#[test]
fn r17_an_nve_that_only_forwards_gets_no_broadcast() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(C, 3);
    lab.add_port(B, PortIdx(9), 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    let copies = |lab: &Lab, i: usize| {
        let tables = &lab.hosts[i].tables;
        let to = |j: &usize| tables.replicas.iter().any(|(_, t)| tables.tunnels[t].0 == locator(*j));
        [A, B, C].into_iter().filter(to).collect::<Vec<_>>()
    };
    assert_eq!(copies(&lab, C), [A, B]);
    lab.announce(B, PortIdx(9), 1);
    lab.settle();
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })), "it forwards");
    assert_eq!((copies(&lab, B), copies(&lab, C)), (vec![C], vec![B]));
    assert_eq!(copies(&lab, A), [B, C], "what it sends in the VN it sends to all");
    let linger = |lingers| NveToNva::Linger { vni: vni(), lingers };
    let said = |lab: &Lab, m: NveToNva| lab.hosts[A].said.iter().filter(|s| **s == m).count();
    assert_eq!((said(&lab, linger(true)), said(&lab, linger(false))), (1, 0));

    // A new session hears of it too, and so does who subscribes now.
    lab.disconnect(A);
    lab.connect(A);
    lab.settle();
    let subscribe = NveToNva::Subscribe { vni: vni(), mode: DirectoryMode::Push, lingers: true };
    assert_eq!((said(&lab, subscribe), said(&lab, linger(true)), copies(&lab, C)), (1, 1, vec![B]));
    lab.disconnect(C);
    lab.connect(C);
    lab.settle();
    assert_eq!(copies(&lab, C), [B]);

    // With a port it takes part again.
    lab.add_port(A, PORT, 2);
    lab.settle();
    assert_eq!((said(&lab, linger(false)), copies(&lab, C)), (1, vec![A, B]));
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.settle();
    assert_eq!(copies(&lab, C), [B]);
    lab.pass(62_000);
    assert_eq!(said(&lab, NveToNva::Unsubscribe { vni: vni() }), 1, "the forward entry has ended");
    assert!(lab.hosts[A].tables.vns.is_empty());
    assert_eq!(copies(&lab, C), [B]);
}

#[test]
fn r72_without_an_nva_forwarding_goes_on_and_r73_everything_is_said_again() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.event(A, Event::MissMac { key: key(50), port: PORT });
    lab.settle();
    let mut known = lab.hosts[A].tables.clone();
    assert!(known.vms.remove(&key(50)).is_some());
    // Who joins now cannot be told from a stranger.
    known.known_senders.clear();
    lab.disconnect(A);
    assert_eq!(
        lab.hosts[A].tables, known,
        "only negative answers are forgotten (R36), and nobody is refused (R69)"
    );
    lab.event(A, Event::MissMac { key: key(51), port: PORT });
    lab.nva.restart();
    lab.hosts[A].said.clear();
    lab.connect(A);
    lab.settle();
    let kinds: Vec<&str> = lab.hosts[A].said.iter().map(kind).collect();
    let order = ["hello", "subscribe", "associate", "claim", "report"];
    assert_eq!(kinds.iter().filter(|k| order.contains(k)).copied().collect::<Vec<_>>(), order);
    assert_eq!(claims(&lab, A)[0].1, ClaimCause::Resync);
    assert!(kinds.contains(&"query"), "what was asked for meanwhile is asked for now");
    let said = lab.hosts[A].said[0].clone();
    assert!(matches!(said, NveToNva::Hello { last_epoch: 1, .. }), "{said:?}");
    assert!(is_remote_to(&lab, A, 2, B));
}

fn kind(m: &NveToNva) -> &'static str {
    match m {
        NveToNva::Hello { .. } => "hello",
        NveToNva::Subscribe { .. } => "subscribe",
        NveToNva::Associate { .. } => "associate",
        NveToNva::Claim { .. } => "claim",
        NveToNva::Report { .. } => "report",
        NveToNva::Query { .. } => "query",
        _ => "other",
    }
}

#[test]
fn r73_an_nva_of_an_older_epoch_is_not_listened_to() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.nva.epoch = 5;
    lab.disconnect(A);
    lab.connect(A);
    lab.settle();
    lab.disconnect(A);
    lab.nva.epoch = 4;
    lab.connect(A);
    lab.settle();
    assert!(!lab.hosts[A].nve.nva().connected);
    let record = other_record(&lab, 1, B, Version { epoch: 9, seq: 1 });
    lab.input(A, Input::Nva(NvaToNve::Snapshot { vni: vni(), vms: vec![record] }));
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    assert!(lab.hosts[A].alarms() > 0);
}

#[test]
fn a_grant_of_another_nves_vm_is_refused() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    let record = other_record(&lab, 1, B, Version { epoch: 9, seq: 1 });
    lab.input(A, Input::Nva(NvaToNve::Grant { seq: 1, record }));
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    assert!(warned(&lab, A, "names another NVE"));
}

#[test]
fn r37_the_end_of_a_snapshot_that_comes_after_the_vn_was_left_brings_nothing_back() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    while lab.nva_hears(A) {}
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.settle();
    assert!(lab.hosts[A].tables.vns.is_empty());
    lab.hosts[A].said.clear();
    lab.add_port(A, PORT, 1);
    assert!(lab.hosts[A].said.contains(&NveToNva::Subscribe {
        vni: vni(),
        mode: DirectoryMode::Push,
        lingers: false
    }));
}

#[test]
fn r37_a_packet_for_an_entry_that_the_snapshot_has_not_brought_yet_pulls_it() {
    let mut lab = Lab::new(2);
    lab.run_vm(B, 2);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    // A has subscribed; the NVA answers, but nothing of the snapshot has come yet.
    while lab.nva_hears(A) {}
    let snapshot: Vec<NvaToNve> = lab.hosts[A].inbox.drain(..).collect();
    assert!(snapshot.iter().any(|m| matches!(m, NvaToNve::End { .. })));
    assert_eq!(lab.hosts[A].state(2), None);
    lab.event(A, Event::MissMac { key: key(2), port: PORT });
    assert_eq!(queries(&lab, A).len(), 1, "a miss before the end is pulled");
    lab.settle();
    assert!(is_remote_to(&lab, A, 2, B), "what waits for it can go");
    lab.hosts[A].inbox.extend(snapshot);
    lab.settle();
    assert!(is_remote_to(&lab, A, 2, B), "the snapshot confirms it");
}
