//! The rules of uplinks, tunnels and workers: one test a rule, named after its requirement.

use crate::lab::said::{A, B, C, is_remote_to, other_record};
use crate::lab::{self, Lab, PORT, UPLINK, key, location, locator, mac, nve_id, vm, vm_ip, vni};
use godwit_control::{Input, OuterChoice, UplinkSpec};
use godwit_model::message::NvaToNve;
use godwit_model::{Locators, Version, VnSettings};
use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, VmState};
use godwit_wire::Instant;
use godwit_wire::outer::Family;

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
        record.bind(here);
        lab.input(A, Input::Nva(NvaToNve::Snapshot { vni: vni(), vms: vec![record] }));
        lab.event(A, Event::Neighbor { uplink: UPLINK, ip: v6.into(), mac: mac(77), solicited: true });
        let Some(VmState::Remote { to }) = lab.hosts[A].state(2) else { panic!() };
        let (_, way) = lab.hosts[A].tables.tunnels[&to.tunnel];
        assert_eq!(way.unwrap().0.family(), family, "{choice:?} {ip}");
        // What of its frames is IPv4 goes over IPv4 even so, if the choice is the frame's.
        let twin = lab.hosts[A].tables.twins.get(&to.tunnel).map(|t| lab.hosts[A].tables.tunnels[t].0);
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
    record.bind(godwit_model::Location { nve: nve_id(B), locators: Locators { v4: None, v6 } });
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

/// The MTU of host `i`'s way to a locator, as its worker has it.
fn tunnel_mtu(lab: &Lab, i: usize, to: usize) -> Option<u16> {
    let mut ways = lab.hosts[i].tables.tunnels.values().filter(|(remote, _)| *remote == locator(to));
    ways.next().and_then(|(_, way)| way.map(|(_, mtu)| mtu))
}

#[test]
fn r9_a_routers_word_narrows_the_tunnel_to_that_nve_only() {
    let mut lab = Lab::new(3);
    (0..3).for_each(|i| lab.run_vm(i, i as u8 + 1));
    let mtus = |lab: &Lab| [B, C].map(|to| tunnel_mtu(lab, A, to));
    let told = |local, remote, mtu| Event::PathTooBig { local, remote, mtu };
    let ignored = |lab: &Lab| lab.hosts[A].notes.iter().filter(|n| n.text.contains("ignored")).count();
    assert_eq!(mtus(&lab), [Some(1550); 2]);
    // Forged: an NVE that is none of ours, a locator that is not ours, a value that no router may name.
    let stranger = "198.18.0.77".parse().unwrap();
    let forged = [
        told(locator(A), stranger, 1400),
        told(stranger, locator(B), 1400),
        told(locator(A), locator(B), 1279),
        told(locator(A), locator(B), 70_000),
    ];
    let before = lab.hosts[A].tables.clone();
    for (n, event) in forged.into_iter().enumerate() {
        lab.event(A, event);
        assert_eq!((&lab.hosts[A].tables, ignored(&lab)), (&before, n + 1), "{event:?}");
    }
    lab.event(A, told(locator(A), locator(B), 1400));
    assert_eq!(mtus(&lab), [Some(1400), Some(1550)]);
    assert_eq!(
        [tunnel_mtu(&lab, B, A), tunnel_mtu(&lab, C, B)],
        [Some(1550); 2],
        "others have their own ways"
    );
    lab.event(A, told(locator(A), locator(B), 1500));
    assert_eq!(mtus(&lab), [Some(1400), Some(1550)], "not raised so soon");
    lab.pass(599_999);
    assert_eq!(mtus(&lab), [Some(1400), Some(1550)]);
    lab.pass(1);
    assert_eq!(mtus(&lab), [Some(1550); 2], "ten minutes later a larger one is tried again");
    assert_eq!(ignored(&lab), forged.len() + 1);
}

#[test]
fn a_tunnel_is_pending_until_its_next_hop_answers() {
    let mut lab = Lab::new(2);
    lab.run_vm(B, 2);
    lab.answer_arp = false;
    lab.run_vm(A, 1);
    let Some(VmState::Remote { to }) = lab.hosts[A].state(2) else { panic!() };
    assert_eq!(lab.hosts[A].tables.tunnels[&to.tunnel], (locator(B), None));
    lab.event(A, Event::Neighbor { uplink: UPLINK, ip: locator(B), mac: mac(99), solicited: true });
    let (_, way) = lab.hosts[A].tables.tunnels[&to.tunnel];
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
    // That a VM has come is news for who was there, and nothing to know.
    h.tables.settled.clear();
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
fn r31_a_vns_word_on_silent_hosts_reaches_the_workers() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    assert!(lab.hosts[A].tables.silent.is_empty());
    let end = |flood_silent| NvaToNve::End {
        vni: vni(),
        revision: 50,
        known: true,
        settings: VnSettings { flood_silent, ..VnSettings::default() },
        gateway: None,
        members: Vec::new(),
        lingering: Vec::new(),
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
