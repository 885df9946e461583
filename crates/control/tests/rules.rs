//! One test a rule, each named after its requirement.

mod lab;

use std::net::{IpAddr, Ipv4Addr};

use godwit_control::view::{EntryState, PortState};
use godwit_control::{Input, Level, OuterChoice, PortSpec, UplinkSpec, WorkerSet};
use godwit_model::message::{Change, NvaToNve, NveToNva};
use godwit_model::{BindingState, ClaimCause, DenyReason, Locators, Version, VmRecord};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{Admission, PortIdx, PortRole, VmState};
use godwit_wire::outer::Family;
use godwit_wire::{Instant, Mac};
use lab::{Lab, PORT, UPLINK, access, key, location, locator, mac, nve_id, vm, vm_ip, vni};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn admission(lab: &Lab, i: usize, port: PortIdx) -> Option<Admission> {
    match lab.hosts[i].tables.ports.get(&port)? {
        PortRole::Access { admission, .. } => Some(*admission),
        _ => None,
    }
}

fn claims(lab: &Lab, i: usize) -> Vec<(u64, ClaimCause, Vec<IpAddr>)> {
    let claim = |m: &NveToNva| match m {
        NveToNva::Claim { seq, cause, ips, .. } => Some((*seq, *cause, ips.clone())),
        _ => None,
    };
    lab.hosts[i].said.iter().filter_map(claim).collect()
}

fn queries(lab: &Lab, i: usize) -> Vec<u64> {
    let seq = |m: &NveToNva| if let NveToNva::Query { seq, .. } = m { Some(*seq) } else { None };
    lab.hosts[i].said.iter().filter_map(seq).collect()
}

fn withdrawals(lab: &Lab, i: usize) -> Vec<Version> {
    let version =
        |m: &NveToNva| if let NveToNva::Withdraw { version, .. } = m { Some(*version) } else { None };
    lab.hosts[i].said.iter().filter_map(version).collect()
}

fn warned(lab: &Lab, i: usize, what: &str) -> bool {
    lab.hosts[i].notes.iter().any(|n| n.level >= Level::Warn && n.text.contains(what))
}

fn is_remote_to(lab: &Lab, i: usize, n: u8, to: usize) -> bool {
    matches!(lab.hosts[i].state(n), Some(VmState::Remote { .. }))
        && lab.hosts[i].tunnel_ip(n) == Some(locator(to))
}

fn other_record(lab: &Lab, n: u8, at: usize, version: Version) -> VmRecord {
    VmRecord {
        location: Some(location(at)),
        state: BindingState::Active,
        version,
        ..lab.nva.records[&vm(n)].clone()
    }
}

// ---- Attachment ----

#[test]
fn r15_init_associated_activated() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    let state = |lab: &Lab| lab.hosts[A].nve.ports().iter().find(|p| p.port == PORT).unwrap().state;
    assert_eq!(state(&lab), PortState::Init);
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated), "announcements are heard");
    lab.settle();
    assert_eq!(state(&lab), PortState::Associated);
    assert_eq!(lab.hosts[A].state(1), None, "no delivery");
    assert_eq!(lab.hosts[A].tables.neighbors.len(), 0, "no ARP answers");
    lab.announce(A, PORT, 1);
    assert_eq!(state(&lab), PortState::Activated);
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Activated));
    assert_eq!(lab.hosts[A].tables.neighbors[&(key(1).vn(), vm_ip(1))], Some(mac(1)));
}

#[test]
fn r18_r24_r25_r26_every_announcement_claims_with_its_cause_and_all_addresses() {
    for (kind, ip, cause) in [
        (AnnounceKind::GratuitousArp, Some(vm_ip(1)), ClaimCause::GratuitousArp),
        (
            AnnounceKind::NeighborAdvertisement { router: false },
            Some(vm_ip(1)),
            ClaimCause::NeighborAdvertisement,
        ),
        (AnnounceKind::Rarp, None, ClaimCause::Rarp),
        (AnnounceKind::FirstFrame, None, ClaimCause::FirstFrame),
    ] {
        let mut lab = Lab::new(1);
        lab.nva.define(vm(1), vm_ip(1));
        lab.add_port(A, PORT, 1);
        lab.settle();
        for _ in 0..5 {
            lab.event(A, Event::Announce { port: PORT, kind, mac: mac(1), ip });
            lab.settle();
        }
        let all = claims(&lab, A);
        assert_eq!(all.len(), 1, "R26: five rounds, one claim");
        assert_eq!((all[0].1, all[0].2.as_slice()), (cause, [vm_ip(1)].as_slice()), "R55");
    }
}

#[test]
fn r24_an_announcement_with_an_address_that_is_not_the_vms_is_refused() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    let wrong =
        |mac, ip| Event::Announce { port: PORT, kind: AnnounceKind::GratuitousArp, mac, ip: Some(ip) };
    lab.event(A, wrong(mac(1), vm_ip(9)));
    lab.event(A, wrong(mac(9), vm_ip(1)));
    assert_eq!(lab.hosts[A].state(1), None);
    assert!(claims(&lab, A).is_empty());
    assert!(warned(&lab, A, "not its address") && warned(&lab, A, "on the port of"));
}

#[test]
fn r18_an_explicit_port_waits_for_its_order() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    let spec = PortSpec::Access { vni: vni(), mac: mac(1), explicit_activation: true };
    let workers = WorkerSet::first(1);
    lab.input(A, Input::PortAdded { port: PORT, name: "p".into(), spec, workers });
    lab.settle();
    lab.announce(A, PORT, 1);
    assert!(claims(&lab, A).is_empty());
    lab.input(A, Input::ActivatePort { port: PORT });
    assert_eq!(claims(&lab, A)[0].1, ClaimCause::Activate);
}

#[test]
fn r18_a_claim_is_repeated_with_its_number_and_growing_gaps() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.nva.mute = true;
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.announce(A, PORT, 1);
    lab.pass(21_000);
    let all = claims(&lab, A);
    // 0, 0.2, 0.6, 1.4, 3.0, 6.2, then every 5 s.
    assert_eq!(all.len(), 8, "{all:?}");
    assert!(all.iter().all(|c| c.0 == all[0].0));
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }), "delivered all the while");
}

#[test]
fn r18_a_vm_that_starts_without_an_nva_is_served_and_claimed_later() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.disconnect(A);
    lab.add_port(A, PORT, 1);
    lab.announce(A, PORT, 1);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    lab.connect(A);
    lab.settle();
    assert_eq!(claims(&lab, A).len(), 1);
    assert_eq!(lab.nva.records[&vm(1)].location, Some(location(A)));
}

#[test]
fn r24_an_address_announced_before_the_directory_spoke_is_checked_when_it_does() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    let kind = AnnounceKind::GratuitousArp;
    lab.event(A, Event::Announce { port: PORT, kind, mac: mac(1), ip: Some(vm_ip(77)) });
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    lab.settle();
    assert!(claims(&lab, A).is_empty());
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated));
}

#[test]
fn r18_r21_a_denied_claim_closes_the_port_and_the_directory_says_where_it_is() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.announce(B, PORT, 1);
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }));
    lab.settle();
    assert_eq!(admission(&lab, B, PORT), Some(Admission::Closed));
    assert!(is_remote_to(&lab, B, 1, A), "never hosted here: no forward entry");
    assert_eq!(lab.hosts[B].alarms(), 1);
    let port = lab.hosts[B].nve.ports().into_iter().find(|p| p.port == PORT).unwrap();
    assert_eq!(port.state.as_str(), "quarantined");
    // A goes; the refused VM may try again by itself.
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(3_500);
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }));
    assert_eq!(lab.nva.records[&vm(1)].location, Some(location(B)));
}

#[test]
fn r21_the_loser_of_a_split_forwards_to_the_winner() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.disconnect(A);
    // Behind A's back the VM is claimed at B.
    lab.nva.accept_unplanned = true;
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    lab.nva.accept_unplanned = false;
    lab.connect(A);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    assert_eq!(lab.hosts[A].tunnel_ip(1), Some(locator(B)));
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Closed));
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }));
}

#[test]
fn r19_a_vanished_port_is_withdrawn_after_a_while_and_not_if_it_comes_back() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let version = lab.version(1);
    lab.input(A, Input::PortRemoved { port: PORT });
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })), "held meanwhile");
    lab.pass(2_000);
    lab.add_port(A, PORT, 1);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    lab.pass(10_000);
    assert_eq!(withdrawals(&lab, A), []);

    lab.input(A, Input::PortLink { port: PORT, up: false });
    lab.pass(3_100);
    assert_eq!(withdrawals(&lab, A), [version], "a link that stays down ends it too");
    assert_eq!(lab.nva.records[&vm(1)].state, BindingState::Detached);
    assert_eq!(lab.hosts[A].state(1), None);
    assert_eq!(lab.hosts[A].tables.neighbors.len(), 0, "R28: detached is not answered");
}

#[test]
fn r19_a_withdrawal_without_an_nva_is_said_later() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.run_vm(A, 2);
    lab.disconnect(A);
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(4_000);
    assert_eq!(withdrawals(&lab, A), []);
    lab.connect(A);
    lab.settle();
    assert_eq!(lab.nva.records[&vm(1)].state, BindingState::Detached);
    assert_eq!(lab.nva.records[&vm(2)].state, BindingState::Active);
}

#[test]
fn r19_a_grant_for_a_vm_that_went_is_withdrawn() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.announce(A, PORT, 1);
    lab.nva_hears(A);
    let grant = std::mem::take(&mut lab.hosts[A].inbox);
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(3_500);
    lab.hosts[A].inbox = grant;
    lab.settle();
    assert_eq!(lab.nva.records[&vm(1)].state, BindingState::Detached);
}

#[test]
fn r23_a_move_between_ports_of_one_nve_keeps_the_location_and_tunnels_nothing() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let second = PortIdx(9);
    lab.add_port(A, second, 1);
    lab.settle();
    lab.announce(A, second, 1);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: second }));
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Closed));
    let version = lab.version(1);
    lab.settle();
    assert_eq!(lab.version(1), version);
    assert!(lab.hosts[A].tables.tunnels.is_empty());
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(10_000);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: second }));
}

#[test]
fn r17_the_vn_is_joined_with_the_first_port_and_reported_regularly() {
    let mut lab = Lab::new(1);
    let subscribed =
        |lab: &Lab| lab.hosts[A].said.iter().filter(|m| matches!(m, NveToNva::Subscribe { .. })).count();
    assert_eq!(subscribed(&lab), 0);
    lab.run_vm(A, 1);
    lab.run_vm(A, 2);
    assert_eq!(subscribed(&lab), 1);
    lab.hosts[A].said.clear();
    lab.pass(61_000);
    let report = lab.hosts[A].said.iter().find_map(|m| match m {
        NveToNva::Report { attachments } => Some(attachments.clone()),
        _ => None,
    });
    let report = report.expect("one each report_ival");
    assert_eq!(report.len(), 2);
    assert!(report.iter().all(|a| a.active && a.version > Version::ZERO));
    for port in [PORT, PortIdx(2)] {
        lab.input(A, Input::PortRemoved { port });
    }
    lab.pass(3_500);
    assert!(lab.hosts[A].said.contains(&NveToNva::Unsubscribe { vni: vni() }));
    assert!(lab.hosts[A].tables.vns.is_empty());
}

#[test]
fn control_that_restarts_under_a_running_vm_takes_it_up_again() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let mut fresh = Lab::new(1);
    fresh.nva = lab.nva;
    fresh.nva.lost(A);
    fresh.disconnect(A);
    fresh.connect(A);
    fresh.add_port(A, PORT, 1);
    fresh.settle();
    assert_eq!(fresh.hosts[A].state(1), Some(VmState::Local { port: PORT }));
}

/// A lab in which VM 1 runs at A and B claims it behind A's back: A has not heard of it.
fn taken_unheard() -> Lab {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.nva.accept_unplanned = true;
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.nva_hears(B);
    lab
}

#[test]
fn r41_a_port_that_waits_for_its_return_stays_open_when_the_news_of_its_departure_is_late() {
    let mut lab = taken_unheard();
    lab.input(A, Input::PortRemoved { port: PORT });
    let back = PortIdx(7);
    lab.add_port(A, back, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    assert_eq!(admission(&lab, A, back), Some(Admission::Associated));
    lab.announce(A, back, 1);
    lab.settle();
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: back }));
    assert_eq!(lab.nva.records[&vm(1)].location, Some(location(A)));
}

#[test]
fn r21_a_claim_that_rests_on_old_news_may_be_made_again() {
    let mut lab = taken_unheard();
    lab.input(A, Input::PortRemoved { port: PORT });
    let back = PortIdx(7);
    lab.add_port(A, back, 1);
    lab.announce(A, back, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })), "B has it, A hosted it");
    assert_eq!(admission(&lab, A, back), Some(Admission::Associated), "no quarantine");
    assert_eq!(lab.hosts[A].alarms(), 0);
    lab.announce(A, back, 1);
    lab.settle();
    assert_eq!(lab.nva.records[&vm(1)].location, Some(location(A)));
}

#[test]
fn r21_an_order_to_activate_that_rested_on_old_news_is_carried_out_once_nobody_has_the_vm() {
    let mut lab = taken_unheard();
    lab.input(A, Input::PortRemoved { port: PORT });
    let (back, workers) = (PortIdx(7), WorkerSet::first(1));
    let spec = PortSpec::Access { vni: vni(), mac: mac(1), explicit_activation: true };
    lab.input(A, Input::PortAdded { port: back, name: "back".into(), spec, workers });
    lab.input(A, Input::ActivatePort { port: back });
    lab.settle();
    assert_eq!(admission(&lab, A, back), Some(Admission::Closed));
    lab.input(B, Input::PortRemoved { port: PORT });
    lab.pass(3_500);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: back }));
    assert_eq!(lab.nva.records[&vm(1)].location, Some(location(A)));
}

#[test]
fn r41_an_announcement_that_crosses_the_departure_is_a_departure() {
    let mut lab = taken_unheard();
    lab.input(A, Input::PausePort { port: PORT });
    lab.input(A, Input::ActivatePort { port: PORT });
    // The VM's last words at A cross the news that it is at B.
    lab.announce(A, PORT, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Closed));
    assert_eq!(claims(&lab, A).len(), 2, "it was asked");
    assert_eq!(lab.hosts[A].alarms(), 0);
}

#[test]
fn r41_a_departed_vms_port_may_speak_again_when_nobody_has_the_vm() {
    let mut lab = taken_unheard();
    lab.settle();
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Closed));
    lab.input(B, Input::PortRemoved { port: PORT });
    lab.pass(3_500);
    assert_eq!(lab.nva.records[&vm(1)].state, BindingState::Detached);
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated));
    assert_eq!(lab.hosts[A].state(1), None, "R43: nothing is forwarded to where it is not");
}

#[test]
fn r17_a_port_that_was_only_associated_goes_before_its_vn() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.input(A, Input::PortRemoved { port: PORT });
    assert!(lab.hosts[A].tables.vns.is_empty());
    // Its number is free again.
    lab.add_port(A, PORT, 1);
    assert!(lab.hosts[A].tables.vns.contains_key(&key(1).vn()));
}

#[test]
fn r45_a_pause_before_the_first_grant_does_not_keep_what_the_directory_has_elsewhere() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.input(B, Input::PausePort { port: PORT });
    lab.input(B, Input::PortRemoved { port: PORT });
    // The claim is lost with its session.
    lab.disconnect(B);
    lab.connect(B);
    lab.settle();
    assert!(!matches!(lab.hosts[B].state(1), Some(VmState::Paused { .. })));
}

// ---- The directory ----

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
    lab.event(A, Event::MissMac { key: key(50), port: PORT });
    assert_eq!(queries(&lab, A).len(), 4, "R42: no more than once a second");
    lab.pass(1_000);
    assert!(queries(&lab, A).len() > 4);
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
    assert!(lab.hosts[A].said.contains(&NveToNva::Subscribe { vni: vni() }));
    assert_eq!(lab.hosts[A].state(2), None, "not confirmed: gone");
    assert!(!lab.hosts[A].tables.neighbors.contains_key(&(key(1).vn(), vm_ip(2))));
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
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

#[test]
fn r72_without_an_nva_forwarding_goes_on_and_r73_everything_is_said_again() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.event(A, Event::MissMac { key: key(50), port: PORT });
    lab.settle();
    let before = lab.hosts[A].tables.clone();
    lab.disconnect(A);
    assert_eq!(lab.hosts[A].tables, before);
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
    assert_eq!(lab.hosts[A].state(50), None, "R36: negative answers are over");
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
    assert!(lab.hosts[A].said.contains(&NveToNva::Subscribe { vni: vni() }));
}

// ---- Underlay and workers ----

#[test]
fn r4_without_any_uplink_nothing_is_said_of_families_yet() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.input(A, Input::PortRemoved { port: UPLINK });
    assert_eq!(lab.hosts[A].state(2), None);
    assert_eq!(lab.hosts[A].alarms(), 0);
    lab.uplink(A, lab::uplink(A));
    lab.settle();
    assert!(is_remote_to(&lab, A, 2, B));
}

#[test]
fn r4_the_outer_family_follows_the_vms_addresses_where_both_nves_have_both() {
    let dual = |i: usize| UplinkSpec { v6: lab::uplink_v6(i).v6, ..lab::uplink(i) };
    let v6: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
    for (choice, ip, family) in [
        (OuterChoice::Auto, vm_ip(2), Family::V4),
        (OuterChoice::Auto, "2001:db8:5::2".parse().unwrap(), Family::V6),
        (OuterChoice::V6, vm_ip(2), Family::V6),
        (OuterChoice::V4, "2001:db8:5::2".parse().unwrap(), Family::V4),
    ] {
        let mut lab = Lab::with(2, |c| c.outer = choice);
        lab.uplink(A, dual(A));
        lab.run_vm(A, 1);
        lab.nva.define(vm(2), ip);
        let here = godwit_model::Location {
            nve: nve_id(B),
            locators: Locators { v6: Some(v6), ..location(B).locators },
        };
        let mut record = other_record(&lab, 2, B, Version { epoch: 1, seq: 99 });
        record.location = Some(here);
        lab.input(A, Input::Nva(NvaToNve::Snapshot { vni: vni(), vms: vec![record] }));
        lab.event(A, Event::Neighbor { uplink: UPLINK, ip: v6.into(), mac: mac(77), solicited: true });
        let Some(VmState::Remote { tunnel }) = lab.hosts[A].state(2) else { panic!() };
        let (_, way) = lab.hosts[A].tables.tunnels[&tunnel];
        assert_eq!(way.unwrap().0.family(), family, "{choice:?} {ip}");
        // What of its frames is IPv4 goes over IPv4 even so, if the choice is the frame's.
        let twin = lab.hosts[A].tables.twins.get(&tunnel).map(|t| lab.hosts[A].tables.tunnels[t].0);
        let expected = (choice == OuterChoice::Auto && family == Family::V6).then(|| locator(B));
        assert_eq!(twin, expected, "{choice:?} {ip}");
    }
}

#[test]
fn r4_without_a_common_family_frames_are_dropped_with_an_alarm() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.nva.define(vm(2), vm_ip(2));
    let mut record = other_record(&lab, 2, B, Version { epoch: 1, seq: 99 });
    let v6 = Some("2001:db8::2".parse().unwrap());
    record.location = Some(godwit_model::Location { nve: nve_id(B), locators: Locators { v4: None, v6 } });
    for _ in 0..3 {
        lab.input(A, Input::Nva(NvaToNve::Snapshot { vni: vni(), vms: vec![record.clone()] }));
    }
    assert_eq!(lab.hosts[A].state(2), Some(VmState::Absent { until: Instant::NEVER }));
    assert_eq!(lab.hosts[A].alarms(), 1, "once");
}

#[test]
fn r8_the_tenant_mtu_is_what_the_uplink_carries() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    assert_eq!(lab.hosts[A].tables.vns.values().next().unwrap().1, 1500, "underlay 1550, outer IPv4");
}

#[test]
fn a_tunnel_is_pending_until_its_next_hop_answers() {
    let mut lab = Lab::new(2);
    lab.run_vm(B, 2);
    lab.answer_arp = false;
    lab.run_vm(A, 1);
    let Some(VmState::Remote { tunnel }) = lab.hosts[A].state(2) else { panic!() };
    assert_eq!(lab.hosts[A].tables.tunnels[&tunnel], (locator(B), None));
    lab.event(A, Event::Neighbor { uplink: UPLINK, ip: locator(B), mac: mac(99), solicited: true });
    let (_, way) = lab.hosts[A].tables.tunnels[&tunnel];
    let (header, mtu) = way.unwrap();
    assert_eq!((header.dst_mac(), header.ttl(), mtu), (mac(99), 64, 1550));
}

#[test]
fn an_unused_tunnel_goes_and_its_number_returns_when_that_is_applied() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    assert_eq!(lab.hosts[A].tables.tunnels.len(), 1);
    lab.input(B, Input::PortRemoved { port: PortIdx(2) });
    lab.pass(100_000);
    assert_eq!(lab.hosts[A].tables.tunnels.len(), 0);
}

#[test]
fn r14_a_worker_that_joins_is_told_everything() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    let mut out = godwit_control::Outputs::default();
    let h = &mut lab.hosts[A];
    h.nve.handle(lab.now, 0, Input::WorkerJoined { worker: 1 }, &mut out);
    let mut joined = lab::worker::Tables::default();
    for (worker, update) in out.updates {
        assert_eq!(worker, 1);
        joined.apply_checked(update);
    }
    assert_eq!(joined, h.tables);
    // From now on barriers wait for it, until it leaves.
    let mut out = godwit_control::Outputs::default();
    h.nve.handle(lab.now, 0, Input::WorkerLeft { worker: 1 }, &mut out);
    h.nve.handle(lab.now, 0, Input::PortRemoved { port: PORT }, &mut out);
    assert!(out.updates.iter().all(|(w, _)| *w == 0));
}

#[test]
fn static_locations_serve_without_an_nva() {
    let mut lab = Lab::new(1);
    lab.disconnect(A);
    let here = location(B);
    lab.input(
        A,
        Input::StaticVm { vni: vni(), mac: mac(2), location: here, ips: vec![vm_ip(2)], router: false },
    );
    lab.input(A, Input::StaticNeighbor { vni: vni(), ip: vm_ip(7), mac: mac(7), router: true });
    assert_eq!(lab.hosts[A].state(2), None, "no VN yet");
    lab.add_port(A, PORT, 1);
    assert!(is_remote_to(&lab, A, 2, B));
    assert_eq!(lab.hosts[A].tables.replicas.len(), 1);
    let vn = key(1).vn();
    assert_eq!(lab.hosts[A].tables.neighbors[&(vn, vm_ip(2))], Some(mac(2)));
    assert_eq!(lab.hosts[A].tables.neighbors[&(vn, vm_ip(7))], Some(mac(7)));
    lab.announce(A, PORT, 1);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
    // The NVA's word replaces the file's, and its snapshot does not sweep it.
    lab.connect(A);
    lab.settle();
    assert!(is_remote_to(&lab, A, 2, B));
}

#[test]
fn vms_behind_a_port_are_there_without_an_nva_and_go_with_the_port() {
    let mut lab = Lab::new(2);
    lab.add_port(A, PORT, 1);
    let behind = |n| Input::VmBehindPort { port: PORT, mac: mac(n), ips: vec![vm_ip(n)] };
    lab.input(A, behind(2));
    lab.input(A, behind(3));
    assert_eq!(lab.hosts[A].state(2), Some(VmState::Local { port: PORT }));
    let vn = key(1).vn();
    assert_eq!(lab.hosts[A].tables.neighbors[&(vn, vm_ip(2))], Some(mac(2)));
    assert!(claims(&lab, A).is_empty(), "nobody else is told");
    // The NVA knows better.
    lab.run_vm(B, 3);
    lab.settle();
    assert!(is_remote_to(&lab, A, 3, B));
    lab.input(A, Input::PortRemoved { port: PORT });
    assert_eq!(lab.hosts[A].state(2), None);
    assert_eq!(lab.hosts[A].tables.neighbors.get(&(vn, vm_ip(2))), None);
}

#[test]
fn r46_r48_a_sender_that_does_not_learn_is_named() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    let stale = |sender| Event::StaleSender { key: key(1), sender };
    lab.event(A, stale(locator(C)));
    assert_eq!(lab.hosts[A].alarms(), 0, "in flight is no fault");
    lab.event(A, stale(locator(B)));
    assert_eq!(queries(&lab, A).len(), 1, "R46e: our own forward target sends here");
    lab.pass(6_000);
    for _ in 0..10 {
        lab.event(A, stale(locator(C)));
    }
    assert_eq!(lab.hosts[A].alarms(), 1);
}

#[test]
fn a_port_replaced_under_its_number_belongs_to_the_new_vm() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let spec = access(2);
    lab.input(A, Input::PortAdded { port: PORT, name: "q".into(), spec, workers: WorkerSet::first(1) });
    let role = lab.hosts[A].tables.ports[&PORT];
    assert!(matches!(role, PortRole::Access { mac: m, .. } if m == mac(2)));
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Paused { .. })));
}

#[test]
fn views_name_what_there_is() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.nva.mute_queries = true;
    lab.event(A, Event::MissMac { key: key(50), port: PORT });
    let entries = lab.hosts[A].nve.entries(lab.now, None);
    let states: Vec<_> = entries.iter().map(|e| (e.key, e.state)).collect();
    let want = [(vm(1), EntryState::Local), (vm(2), EntryState::Remote), (vm(50), EntryState::Querying)];
    assert_eq!(states, want);
    assert_eq!(entries[1].locator, Some(locator(B)));
    assert_eq!((entries[1].nve.clone(), entries[1].ips.clone()), (Some(nve_id(B)), vec![vm_ip(2)]));
    let neighbors = lab.hosts[A].nve.neighbors();
    assert_eq!(
        (neighbors[0].ip, neighbors[0].state, neighbors[0].uplink_name.as_str()),
        (locator(B), "reachable", "up0")
    );
    let nva = lab.hosts[A].nve.nva();
    assert_eq!((nva.connected, nva.epoch, nva.vns, nva.synced, nva.queries_waiting), (true, 1, 1, 1, 1));
}

#[test]
fn nonsense_is_refused_and_harmless() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let before = lab.hosts[A].tables.clone();
    let (denied, reason) = (vm(1), DenyReason::UnknownVm);
    lab.input(
        A,
        Input::Nva(NvaToNve::Deny { seq: 999, key: denied, reason, text: "?".into(), record: None }),
    );
    lab.input(A, Input::PausePort { port: PortIdx(77) });
    lab.input(A, Input::ActivatePort { port: UPLINK });
    lab.input(A, Input::PortRemoved { port: PortIdx(77) });
    lab.input(A, Input::Applied { worker: 63, token: u64::MAX });
    let spec = PortSpec::Access { vni: vni(), mac: Mac::BROADCAST, explicit_activation: false };
    let workers = WorkerSet::EMPTY;
    lab.input(A, Input::PortAdded { port: PortIdx(5), name: "x".into(), spec, workers });
    lab.input(A, Input::PortAdded { port: PortIdx(9999), name: "x".into(), spec: access(3), workers });
    lab.event(A, Event::TableFull { key: key(1) });
    lab.event(A, Event::NotLocal { key: godwit_tables::update::Key(u64::MAX), sender: locator(B) });
    assert_eq!(lab.hosts[A].tables, before);
}

/// Frames of the given EtherType that control sent to VMs' ports.
fn told(lab: &mut Lab, i: usize) -> Vec<(PortIdx, Vec<u8>)> {
    lab.hosts[i].frames.drain(..).filter(|(port, _)| *port != UPLINK).collect()
}

#[test]
fn r24_local_vms_are_told_when_an_address_has_got_another_mac() {
    let mut lab = Lab::new(2);
    for n in [1, 2] {
        lab.run_vm(A, n);
    }
    lab.run_vm(B, 3);
    assert_eq!(told(&mut lab, A), [], "first owners are no news");
    // The directory takes the address of VM 3 away, and gives it to VM 4.
    let version = Version { epoch: 1, seq: 100 };
    let mut without = other_record(&lab, 3, B, version);
    let ip = without.ipv4.pop().unwrap();
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(3), record: Some(without) }));
    assert_eq!(told(&mut lab, A), []);
    let mut other = other_record(&lab, 3, B, Version { epoch: 1, seq: 101 });
    other.key = vm(4);
    let v6: std::net::Ipv6Addr = "2001:db8::3".parse().unwrap();
    other.ipv6.push(v6);
    let news = NvaToNve::Provision { key: vm(4), record: Some(other) };
    lab.input(A, Input::Nva(news.clone()));
    let frames = told(&mut lab, A);
    assert_eq!(frames.iter().map(|(port, _)| port.0).collect::<Vec<_>>(), [1, 2], "each local VM once");
    let arp = godwit_wire::arp::Arp::new_checked(&frames[0].1[14..]).unwrap();
    assert!(arp.is_gratuitous(mac(4)) && arp.spa() == ip);
    assert_eq!(frames[0].1[..6], [0xff; 6]);
    lab.input(A, Input::Nva(news));
    assert_eq!(told(&mut lab, A), [], "said again, nothing new");
    // Its IPv6 address goes to VM 5, a router.
    let mut last = other_record(&lab, 3, B, Version { epoch: 1, seq: 102 });
    (last.key, last.ipv4, last.ipv6, last.router) = (vm(5), vec![], vec![v6], true);
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(5), record: Some(last) }));
    let frames = told(&mut lab, A);
    assert_eq!(frames.len(), 2);
    match godwit_wire::ndp::parse(&frames[1].1[14..]) {
        Ok(godwit_wire::ndp::Ndp::Advert(a)) => {
            assert!(a.is_unsolicited_announce() && a.overrides && a.router);
            assert_eq!((a.target, a.tlla), (v6, Some(mac(5))));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn r25_the_r_flag_of_an_advertisement_is_claimed_and_its_change_too() {
    let mut lab = Lab::new(2);
    lab.nva.define(vm(1), "2001:db8::1".parse().unwrap());
    let ip = Some("2001:db8::1".parse().unwrap());
    lab.add_port(A, PORT, 1);
    lab.settle();
    let flags = |lab: &Lab| -> Vec<Option<bool>> {
        let flag = |m: &NveToNva| if let NveToNva::Claim { router, .. } = m { Some(*router) } else { None };
        lab.hosts[A].said.iter().filter_map(flag).collect()
    };
    let advert = |router| {
        let kind = AnnounceKind::NeighborAdvertisement { router };
        Event::Announce { port: PORT, kind, mac: mac(1), ip }
    };
    lab.event(A, advert(true));
    lab.settle();
    assert_eq!(flags(&lab), [Some(true)]);
    lab.nva.records.get_mut(&vm(1)).unwrap().router = true;
    let record = lab.nva.records[&vm(1)].clone();
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record: Some(record) }));
    for _ in 0..5 {
        lab.event(A, advert(true));
        lab.settle();
    }
    assert_eq!(flags(&lab).len(), 1, "known");
    for _ in 0..5 {
        lab.event(A, advert(false));
        lab.settle();
    }
    assert_eq!(flags(&lab), [Some(true), Some(false)], "once a second at most");
}

#[test]
fn r31_a_vns_word_on_silent_hosts_reaches_the_workers() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    assert!(lab.hosts[A].tables.silent.is_empty());
    let end = |flood_silent| NvaToNve::End {
        vni: vni(),
        revision: 50,
        known: true,
        mtu: 0,
        transparent_vlan: false,
        flood_silent,
        members: Vec::new(),
    };
    lab.input(A, Input::Nva(end(true)));
    let gap = lab.hosts[A].tables.silent[&key(1).vn()];
    assert_eq!(gap.as_ms(), 100, "ten a second");
    lab.input(A, Input::WorkerJoined { worker: 1 });
    assert_eq!(lab.hosts[A].tables.silent[&key(1).vn()].as_ms(), 200, "two workers share them");
    lab.input(A, Input::WorkerLeft { worker: 1 });
    assert_eq!(lab.hosts[A].tables.silent[&key(1).vn()].as_ms(), 100);
    lab.input(A, Input::Nva(end(false)));
    assert!(lab.hosts[A].tables.silent.is_empty());
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

#[test]
fn r46e_a_frame_from_where_we_forward_to_is_a_question() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    lab.event(A, Event::StaleSender { key: key(1), sender: locator(C) });
    assert_eq!(queries(&lab, A), [], "another sender may just be late");
    lab.event(A, Event::StaleSender { key: key(1), sender: locator(B) });
    lab.event(A, Event::StaleSender { key: key(1), sender: locator(B) });
    assert_eq!(queries(&lab, A).len(), 1, "B sends what it should deliver: one of us is wrong");
}

#[test]
fn r45_a_pause_for_a_move_that_is_not_known_here_is_refused() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    let m1 = godwit_model::MoveId("m1".into());
    let may = |lab: &Lab, i: usize| lab.hosts[i].nve.may_pause(PORT, &m1);
    assert!(may(&lab, A).unwrap_err().contains("has not heard of move m1"));
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    assert_eq!(may(&lab, A), Ok(()));
    assert!(may(&lab, B).unwrap_err().contains("pause it at a"));
    let m2 = godwit_model::MoveId("m2".into());
    assert!(lab.hosts[A].nve.may_pause(PORT, &m2).unwrap_err().contains("in move m1 here"));
    assert!(lab.hosts[A].nve.may_pause(UPLINK, &m1).unwrap_err().contains("no access port"));
}
