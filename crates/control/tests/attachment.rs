//! The rules of ports, announcements and claims: one test a rule, named after its requirement.

use crate::lab::said::{A, B, admission, claims, is_remote_to, warned, withdrawals};
use crate::lab::{self, Lab, PORT, key, location, locator, mac, vm, vm_ip, vni};
use godwit_control::view::PortState;
use godwit_control::{Input, PortSpec, WorkerSet};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{ClaimCause, OnCold, Version};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{Admission, PortIdx, VmState};

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
            AnnounceKind::NeighborAdvertisement { router: false, overrides: true },
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
    assert!(
        warned(&lab, A, "10.0.0.9, an address that is not its own")
            && warned(&lab, A, "a MAC that is not its own")
    );
}

/// R18 allows 100 ms from the announcement to the directory: nothing but the way between them takes time.
#[test]
fn r18_an_announcement_is_in_the_directory_without_waiting_for_any_timer() {
    let mut lab = Lab::new(2);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(B, PORT, 1);
    lab.settle();
    let heard = lab.now;
    lab.announce(B, PORT, 1);
    assert_eq!(claims(&lab, B).len(), 1, "with the event itself");
    while lab.nva_hears(B) {}
    assert_eq!((lab.nva.records[&vm(1)].active(), lab.now), (Some(&location(B)), heard));
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
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(A)));
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
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(B)));
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
    assert!(!lab.nva.records[&vm(1)].is_active());
    assert_eq!(lab.hosts[A].state(1), None);
    assert_eq!(lab.hosts[A].tables.neighbors.len(), 0, "R28: detached is not answered");
}

#[test]
fn r53_a_vm_that_is_detached_is_known_as_such_where_its_vn_has_connections_reset() {
    for pulls in [false, true] {
        let mut lab = Lab::with(2, |c| c.pull = if pulls { [vni()].into() } else { [].into() });
        lab.nva.settings.on_cold = OnCold::Reset;
        lab.run_vm(A, 1);
        lab.run_vm(B, 2);
        if pulls {
            lab.event(B, Event::MissMac { key: key(1), port: PORT });
            lab.settle();
        }
        assert!(matches!(lab.hosts[B].state(1), Some(VmState::Remote { .. })), "pulls: {pulls}");
        lab.input(A, Input::PortLink { port: PORT, up: false });
        lab.pass(3_100);
        for host in [A, B] {
            assert_eq!(lab.hosts[host].state(1), Some(VmState::Detached { reset: true }), "pulls: {pulls}");
        }
        lab.input(A, Input::PortLink { port: PORT, up: true });
        lab.input(A, Input::ActivatePort { port: PORT });
        lab.settle();
        assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
        assert!(matches!(lab.hosts[B].state(1), Some(VmState::Remote { .. })), "pulls: {pulls}");
    }
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
    assert!(!lab.nva.records[&vm(1)].is_active());
    assert!(lab.nva.records[&vm(2)].is_active());
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
    assert!(!lab.nva.records[&vm(1)].is_active());
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
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated), "it may come back (R15)");
    let version = lab.version(1);
    lab.settle();
    assert_eq!(lab.version(1), version);
    assert!(lab.hosts[A].tables.tunnels.is_empty());
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(10_000);
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: second }));
}

#[test]
fn r73_what_the_directory_said_before_it_heard_of_a_port_does_not_open_it() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(4_000);
    let second = PortIdx(9);
    lab.add_port(A, second, 1);
    // On its way since before the withdrawal.
    let old = lab::said::other_record(&lab, 1, A, Version { epoch: 1, seq: 1000 });
    lab.input(A, Input::Nva(NvaToNve::Snapshot { vni: vni(), vms: vec![old.clone()] }));
    assert_eq!(admission(&lab, A, second), Some(Admission::Associated), "the VM may run elsewhere by now");
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record: Some(old) }));
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: second }), "the answer to the port");
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
        NveToNva::Report { attachments, .. } => Some(attachments.clone()),
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
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(A)));
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
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(A)));
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
    assert_eq!(lab.nva.records[&vm(1)].active(), Some(&location(A)));
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
    assert!(!lab.nva.records[&vm(1)].is_active());
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

#[test]
fn d15_a_vm_that_nobody_has_told_of_waits_for_the_nva_unless_the_switch_is_open_to_it() {
    for open in [false, true] {
        let mut lab = Lab::with(1, |config| config.open_to_unknown = open);
        lab.disconnect(A);
        lab.nva.define(vm(1), vm_ip(1));
        lab.add_port(A, PORT, 1);
        lab.settle();
        lab.announce(A, PORT, 1);
        let runs = |lab: &Lab| admission(lab, A, PORT) == Some(Admission::Activated);
        assert_eq!(runs(&lab), open);
        assert_eq!(warned(&lab, A, "is new here and the NVA is away"), !open);
        lab.connect(A);
        lab.settle();
        assert!(runs(&lab), "the directory has said what it knows");
        assert_eq!(claims(&lab, A).len(), 1);
    }
}

#[test]
fn d15_a_vm_that_the_switch_knows_is_served_without_the_nva() {
    let mut lab = Lab::with(1, |config| config.open_to_unknown = false);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.disconnect(A);
    lab.announce(A, PORT, 1);
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Activated));
}
