//! Nothing that lives stays dead: whatever withdrew, closed, refused or lost a VM, it is found again without its help
//! while its port has a link and nobody else has it.

use crate::lab::said::{A, B, admission, claims, withdrawals};
use crate::lab::*;
use godwit_control::view::PortState;
use godwit_control::{Input, PortSpec, WorkerSet};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{DenyReason, Version, VmRecord};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{Admission, PortIdx, VmState};
use godwit_wire::Mac;
use std::net::Ipv4Addr;

const SECOND: PortIdx = PortIdx(9);
/// Whoever lives is found within this time, in milliseconds.
const FOUND: u64 = 10_000;

fn link(lab: &mut Lab, port: PortIdx, up: bool) {
    lab.input(A, Input::PortLink { port, up });
    lab.settle();
}

fn runs(lab: &Lab, port: PortIdx) -> bool {
    lab.hosts[A].state(1) == Some(VmState::Local { port })
}

/// How often VM 1 was asked on each port since the last look.
fn asked(lab: &mut Lab, port: PortIdx) -> usize {
    let frames = std::mem::take(&mut lab.hosts[A].frames);
    frames.iter().filter(|(p, f)| *p == port && f[6..12] == Mac::PROBER.0).count()
}

/// Time passes; VM 1 answers on this port whatever it is asked there. When it was found.
fn answering(lab: &mut Lab, port: PortIdx, ms: u64) -> Option<u64> {
    for at in 0..ms / 100 {
        lab.pass(100);
        if asked(lab, port) > 0 {
            lab.event(A, Event::Announce { port, kind: AnnounceKind::Alive, mac: mac(1), ip: None });
            lab.settle();
        }
        if runs(lab, port) {
            return Some(at * 100);
        }
    }
    None
}

fn bound(lab: &Lab) -> bool {
    lab.nva.records[&vm(1)].is_active()
}

fn port_state(lab: &Lab, port: PortIdx) -> PortState {
    lab.hosts[A].nve.ports().iter().find(|p| p.port == port).unwrap().state
}

#[test]
fn r19_a_guest_that_was_away_and_says_nothing_is_there_again_with_its_link() {
    for away in [1_000, 5_000, 60_000] {
        let mut lab = Lab::new(2);
        lab.run_vm(A, 1);
        link(&mut lab, PORT, false);
        lab.pass(away);
        assert_eq!(!bound(&lab), away > 3_000, "{away} ms");
        link(&mut lab, PORT, true);
        assert!(runs(&lab, PORT), "after {away} ms");
        assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(A)));
    }
}

#[test]
fn r19_a_link_that_returns_does_not_take_a_vm_from_where_it_is_now() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    link(&mut lab, PORT, false);
    lab.pass(4_000);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(B)));
    link(&mut lab, PORT, true);
    lab.pass(FOUND);
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(B)));
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated));
    // It goes there, too, and is at A after all: asked, it says so.
    lab.input(B, Input::PortRemoved { port: PORT });
    lab.pass(3_500);
    assert!(answering(&mut lab, PORT, FOUND).is_some());
}

#[test]
fn r18_what_the_operator_activated_stays_so_when_its_guest_reboots_and_not_when_it_moved() {
    let mut lab = Lab::new(2);
    lab.nva.define(vm(1), vm_ip(1));
    let spec = PortSpec::Access { vni: vni(), mac: mac(1), explicit_activation: true };
    let workers = WorkerSet::first(1);
    lab.input(A, Input::PortAdded { port: PORT, name: "p".into(), spec, workers });
    lab.settle();
    lab.pass(FOUND);
    assert_eq!(asked(&mut lab, PORT), 0, "an order is awaited, not the VM");
    lab.input(A, Input::ActivatePort { port: PORT });
    lab.settle();
    for _ in 0..2 {
        link(&mut lab, PORT, false);
        lab.pass(10_000);
        assert!(!bound(&lab));
        link(&mut lab, PORT, true);
        assert!(runs(&lab, PORT) && bound(&lab));
    }
    // It moves to B: from here on A needs another order.
    lab.order_move("m", 1, A, B);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    lab.input(B, Input::PortRemoved { port: PORT });
    lab.pass(3_500);
    link(&mut lab, PORT, false);
    link(&mut lab, PORT, true);
    lab.pass(FOUND);
    assert_eq!((runs(&lab, PORT), asked(&mut lab, PORT)), (false, 0));
}

#[test]
fn r32_a_vm_that_only_answers_is_found_wherever_it_was_lost() {
    // Its port is new, it never speaks.
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    assert!(answering(&mut lab, PORT, FOUND).is_some());
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(A)));
    // The NVA has detached it behind A's back, and then the port went and came as another one.
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(4_000);
    lab.add_port(A, SECOND, 1);
    lab.settle();
    assert!(answering(&mut lab, SECOND, FOUND).is_some());
}

#[test]
fn r32_what_is_sent_to_a_vm_that_is_looked_for_finds_it_at_once() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.pass(FOUND);
    asked(&mut lab, PORT);
    lab.pass(300);
    asked(&mut lab, PORT);
    let vn = key(1).vn();
    lab.event(A, Event::MissIp { vn, ip: vm_ip(1), port: PortIdx(3) });
    assert_eq!(asked(&mut lab, PORT), 1, "an ARP request of a neighbor");
    lab.pass(300);
    asked(&mut lab, PORT);
    lab.event(A, Event::MissMac { key: key(1), port: PortIdx(3) });
    assert_eq!(asked(&mut lab, PORT), 1, "a frame");
    lab.event(A, Event::MissMac { key: key(1), port: PortIdx(3) });
    assert_eq!(asked(&mut lab, PORT), 0, "not more often than it can answer");
    lab.pass(1_000);
    asked(&mut lab, PORT);
    let record = lab.nva.records.get(&vm(1)).cloned();
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record }));
    assert_eq!(asked(&mut lab, PORT), 1, "somebody elsewhere asks the NVA");
}

#[test]
fn r32_questions_to_vms_that_are_looked_for_are_bounded() {
    let mut lab = Lab::new(1);
    for n in 1..=200 {
        lab.nva.define(vm(n), vm_ip(n));
        lab.add_port(A, PortIdx(u16::from(n)), n);
    }
    lab.settle();
    lab.hosts[A].frames.clear();
    lab.pass(60_000);
    let all = lab.hosts[A].frames.iter().filter(|(_, f)| f[6..12] == Mac::PROBER.0).count();
    assert!((200 * 15..=200 * 24).contains(&all), "{all} questions in a minute to 200 VMs");
}

#[test]
fn r23_a_bond_in_the_guest_is_followed_each_time_it_speaks() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.add_port(A, SECOND, 1);
    lab.settle();
    let version = lab.version(1);
    for (on, off) in [(SECOND, PORT), (PORT, SECOND), (SECOND, PORT)] {
        lab.pass(500);
        lab.announce(A, on, 1);
        lab.settle();
        assert!(runs(&lab, on));
        assert_eq!(port_state(&lab, off), PortState::Associated, "not departed for good");
    }
    assert_eq!((lab.version(1), lab.hosts[A].alarms()), (version, 0), "nobody else is told");
    // Its link goes: what it says on the other one counts, and so does its answer there.
    link(&mut lab, SECOND, false);
    assert!(answering(&mut lab, PORT, FOUND).is_some());
    link(&mut lab, SECOND, true);
    // It changes without a word: where it runs it does not answer any more.
    assert!(answering(&mut lab, SECOND, FOUND).is_some());
}

#[test]
fn r23_a_vm_that_speaks_on_two_ports_at_once_is_followed_a_few_times_a_second() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.add_port(A, SECOND, 1);
    lab.settle();
    let (mut changes, mut on) = (0, PORT);
    for n in 0..1000 {
        lab.pass(10);
        lab.announce(A, if n % 2 == 0 { SECOND } else { PORT }, 1);
        let now = if runs(&lab, SECOND) { SECOND } else { PORT };
        changes += usize::from(now != on);
        on = now;
    }
    lab.settle();
    assert!((20..=60).contains(&changes), "{changes} changes in 10 s");
    assert!((1..=11).contains(&lab.hosts[A].alarms()));
}

#[test]
fn r16_a_pause_that_is_over_without_a_word_ends_when_the_vm_is_heard_or_answers() {
    for speaks in [true, false] {
        let mut lab = Lab::new(1);
        lab.run_vm(A, 1);
        lab.input(A, Input::PausePort { port: PORT });
        lab.announce(A, PORT, 1);
        assert!(!runs(&lab, PORT), "said before the pause");
        lab.event(A, Event::Announce { port: PORT, kind: AnnounceKind::Alive, mac: mac(1), ip: None });
        assert!(!runs(&lab, PORT), "likewise");
        if speaks {
            lab.pass(3_000);
            lab.announce(A, PORT, 1);
            assert!(runs(&lab, PORT));
        } else {
            assert!(answering(&mut lab, PORT, FOUND).is_some());
        }
    }
}

#[test]
fn r93_a_vm_without_recorded_addresses_is_activated_by_any_announcement() {
    for (kind, ip) in [
        (AnnounceKind::GratuitousArp, Some(vm_ip(9))),
        (
            AnnounceKind::NeighborAdvertisement { router: false, overrides: true },
            Some("fe80::9".parse().unwrap()),
        ),
        (AnnounceKind::Rarp, None),
    ] {
        let mut lab = Lab::new(1);
        lab.nva.define(vm(1), vm_ip(1));
        lab.nva.records.get_mut(&vm(1)).unwrap().ipv4.clear();
        lab.add_port(A, PORT, 1);
        lab.settle();
        lab.event(A, Event::Announce { port: PORT, kind, mac: mac(1), ip });
        lab.settle();
        assert!(runs(&lab, PORT) && bound(&lab), "{kind:?}");
    }
}

/// VM 1 with its port at A, which claims it with the addresses of before: the definition crosses the claim.
fn crossed() -> Lab {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.announce(A, PORT, 1);
    lab
}

fn last_claim(lab: &Lab) -> (u64, Vec<std::net::IpAddr>) {
    let all = claims(lab, A);
    let last = all.last().unwrap();
    (last.0, last.2.clone())
}

fn deny(lab: &mut Lab, reason: DenyReason, record: Option<VmRecord>) {
    let seq = last_claim(lab).0;
    lab.hosts[A].outbox.clear();
    lab.input(A, Input::Nva(NvaToNve::Deny { seq, key: vm(1), reason, text: "no".into(), record }));
}

#[test]
fn r55_a_claim_that_crossed_a_definition_is_made_again_and_its_port_stays_open() {
    for reason in [DenyReason::AddressMismatch, DenyReason::StaleVersion] {
        let mut lab = crossed();
        let other = VmRecord {
            ipv4: vec![Ipv4Addr::new(10, 0, 0, 77)],
            version: Version { epoch: 1, seq: 500 },
            ..lab.nva.records[&vm(1)].clone()
        };
        lab.nva.records.insert(vm(1), other.clone());
        deny(&mut lab, reason, Some(other));
        assert!(runs(&lab, PORT), "{reason:?}: no quarantine");
        lab.pass(1_000);
        assert_eq!(last_claim(&lab).1, [std::net::IpAddr::from([10, 0, 0, 77])]);
        assert_eq!((bound(&lab), lab.hosts[A].alarms()), (true, 0));
    }
}

#[test]
fn r18_a_refused_vm_is_claimed_again_slower_and_slower_until_it_is_granted() {
    let mut lab = crossed();
    let record = lab.nva.records[&vm(1)].clone();
    lab.nva.mute = true;
    deny(&mut lab, DenyReason::AddressMismatch, Some(record.clone()));
    assert_eq!((port_state(&lab, PORT), lab.hosts[A].alarms()), (PortState::Quarantined, 1));
    let mut gaps = Vec::new();
    for _ in 0..5 {
        let (before, mut waited) = (claims(&lab, A).len(), 0);
        while claims(&lab, A).len() == before {
            lab.pass(100);
            waited += 100;
            assert!(waited < FOUND, "it is not tried again");
        }
        gaps.push(waited);
        assert!(!runs(&lab, PORT), "nothing is delivered before the grant");
        deny(&mut lab, DenyReason::AddressMismatch, Some(record.clone()));
    }
    assert!(gaps.is_sorted() && gaps[0] <= 1_100 && gaps[4] <= 5_100, "{gaps:?}");
    assert_eq!(lab.hosts[A].alarms(), 1, "said once");
    lab.nva.mute = false;
    lab.pass(FOUND);
    assert!(runs(&lab, PORT));
    assert_eq!((bound(&lab), port_state(&lab, PORT)), (true, PortState::Activated));
}

#[test]
fn r18_a_refusal_by_another_owner_waits_for_news_or_a_word() {
    let mut lab = Lab::new(2);
    lab.run_vm(B, 1);
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.announce(A, PORT, 1);
    lab.settle();
    assert_eq!(port_state(&lab, PORT), PortState::Quarantined);
    let before = claims(&lab, A).len();
    lab.pass(60_000);
    assert_eq!(claims(&lab, A).len(), before, "no time changes that");
    // Nor that it has another address by now, which its switch hears of as of every change.
    for n in 0..5 {
        let said = lab.nva.change(vm(1), |r| r.bound.macs = vec![mac(100 + n)]);
        said.into_iter().for_each(|(to, m)| lab.hosts[to].inbox.push_back(m));
        lab.settle();
        lab.pass(6_000);
    }
    assert_eq!(claims(&lab, A).len(), before);
    let record = lab.nva.records.get(&vm(1)).cloned();
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record }));
    lab.pass(100);
    assert_eq!(claims(&lab, A).len(), before + 1, "an order repeated");
    lab.input(B, Input::PortRemoved { port: PORT });
    lab.pass(3_500);
    assert!(runs(&lab, PORT), "the other one is gone");
}

#[test]
fn r18_a_refusal_ends_with_its_port_and_the_vm_is_found_on_its_other_one() {
    for removed in [true, false] {
        let mut lab = Lab::new(1);
        lab.add_port(A, PORT, 1);
        lab.add_port(A, SECOND, 1);
        lab.settle();
        lab.announce(A, PORT, 1);
        lab.settle();
        assert_eq!(admission(&lab, A, SECOND), Some(Admission::Closed), "the NVA does not know the VM");
        if removed {
            lab.input(A, Input::PortRemoved { port: PORT });
        } else {
            lab.input(A, Input::VmState { port: PORT, state: godwit_model::OperState::Shutdown });
            assert_eq!(admission(&lab, A, PORT), Some(Admission::Closed), "nobody is behind it");
        }
        lab.settle();
        lab.nva.define(vm(1), vm_ip(1));
        let record = lab.nva.records.get(&vm(1)).cloned();
        lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record }));
        assert!(answering(&mut lab, SECOND, FOUND).is_some(), "removed: {removed}");
        lab.settle();
        assert!(bound(&lab));
    }
}

#[test]
fn r18_a_refusal_that_comes_after_its_port_went_closes_no_other_one() {
    let mut lab = crossed();
    lab.nva.mute = true;
    lab.add_port(A, SECOND, 1);
    lab.settle();
    lab.input(A, Input::PortRemoved { port: PORT });
    let record = lab.nva.records.get(&vm(1)).cloned();
    deny(&mut lab, DenyReason::AddressMismatch, record);
    lab.nva.mute = false;
    lab.announce(A, SECOND, 1);
    lab.settle();
    assert!(runs(&lab, SECOND) && bound(&lab));
}

#[test]
fn r18_a_vm_that_starts_while_it_is_defined_is_active_with_its_definition() {
    let mut lab = Lab::new(1);
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.announce(A, PORT, 1);
    lab.settle();
    assert_eq!(port_state(&lab, PORT), PortState::Quarantined, "the NVA does not know it yet");
    lab.nva.define(vm(1), vm_ip(1));
    lab.pass(FOUND);
    assert!(runs(&lab, PORT) && bound(&lab));
}

#[test]
fn r49_what_the_manager_says_of_a_moving_vm_is_a_sign_that_the_move_goes_on() {
    use godwit_model::OperState::{Migrating, Running};
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.order_move("m", 1, A, B);
    lab.settle();
    lab.input(A, Input::VmState { port: PORT, state: Running });
    lab.settle();
    lab.hosts[A].said.clear();
    for _ in 0..3 {
        lab.input(A, Input::VmState { port: PORT, state: Migrating });
    }
    let signs = lab.hosts[A]
        .said
        .iter()
        .filter(|m| matches!(m, NveToNva::MoveReport { step: None, counts: None, .. }));
    assert_eq!(signs.count(), 3, "also when it says the same again");
    // While the NVA is there, its patience counts.
    lab.pass(400_000);
    assert!(lab.hosts[A].nve.expects_move(vm(1)));
    assert_eq!(withdrawals(&lab, A), []);
}

#[test]
fn r19_a_vm_that_the_directory_has_here_and_that_is_not_is_withdrawn_once_more() {
    for (unplugged, pinned) in [(true, false), (false, false), (true, true)] {
        let mut lab = Lab::new(1);
        lab.run_vm(A, 1);
        lab.run_vm(A, 2);
        // It is defined anew, and A hears of that only after it has withdrawn what it knew.
        let first = lab.version(1);
        let news = lab.nva.change(vm(1), |r| r.pinned = pinned);
        let next = lab.version(1);
        if unplugged {
            lab.input(A, Input::PortRemoved { port: PORT });
        } else {
            link(&mut lab, PORT, false);
        }
        lab.pass(3_500);
        assert_eq!((withdrawals(&lab, A), bound(&lab)), (vec![first], true));
        for (_, message) in news {
            lab.input(A, Input::Nva(message));
        }
        lab.settle();
        let second = lab.nva.records[&vm(1)].clone();
        if pinned {
            assert_eq!((second.is_active(), second.version), (true, next), "the operator's word");
        } else {
            assert_eq!((withdrawals(&lab, A), second.is_active()), (vec![first, next], false));
        }
    }
    // Nor is it there where nothing is known of its VN any more.
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    let record = lab.nva.records.get(&vm(1)).cloned();
    lab.input(B, Input::Nva(NvaToNve::Provision { key: vm(1), record: record.clone() }));
    assert_eq!(withdrawals(&lab, B), [], "it is at A");
    let record = record.map(|r| VmRecord { bindings: Some(location(B)).into(), ..r });
    lab.input(B, Input::Nva(NvaToNve::Provision { key: vm(1), record }));
    assert_eq!(withdrawals(&lab, B), [lab.version(1)]);
}

#[test]
fn r18_an_order_stands_for_a_guest_that_reboots_before_its_new_switch_has_the_grant() {
    let mut lab = Lab::new(2);
    lab.run_vm(B, 1);
    lab.order_move("m", 1, B, A);
    let spec = PortSpec::Access { vni: vni(), mac: mac(1), explicit_activation: true };
    lab.input(A, Input::PortAdded { port: PORT, name: "p".into(), spec, workers: WorkerSet::first(1) });
    lab.settle();
    lab.input(B, Input::PortRemoved { port: PORT });
    lab.disconnect(A);
    lab.input(A, Input::ActivatePort { port: PORT });
    lab.input(A, Input::PortLink { port: PORT, up: false });
    lab.connect(A);
    lab.settle();
    assert!(!runs(&lab, PORT));
    link(&mut lab, PORT, true);
    assert!(answering(&mut lab, PORT, FOUND).is_some());
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(A)));
}
