//! The rules of uplinks, tunnels and workers, and what else control keeps right: one test a rule, named
//! after its requirement.

use std::net::Ipv6Addr;

use crate::lab::said::{A, B, C, claims, is_remote_to, other_record, queries, warned};
use crate::lab::{self, Lab, PORT, UPLINK, access, key, location, locator, mac, nve_id, vm, vm_ip, vni};
use godwit_control::view::EntryState;
use godwit_control::{Input, Level, OuterChoice, PortSpec, UplinkSpec, WorkerSet};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{DenyReason, Locators, Version, VnSettings};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{PortIdx, PortRole, VmState};
use godwit_wire::outer::Family;
use godwit_wire::{Instant, Mac};

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
fn r46_who_sends_packets_round_is_named() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.run_vm(C, 3);
    let (sender, to) = (locator(B), locator(C));
    // Also where no forward entry is left that would name the VM's new NVE.
    lab.event(A, Event::TtlExhausted { key: key(9), sender, to });
    assert_eq!(lab.hosts[A].alarms(), 1);
    for who in [format!("{} ({sender})", nve_id(B)), format!("{} ({to})", nve_id(C)), vm(9).to_string()] {
        assert!(warned(&lab, A, &who), "{who}: {:?}", lab.hosts[A].notes);
    }
    assert_eq!(queries(&lab, A).len(), 1, "if it is us, the directory says so");
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
fn r25_the_o_flag_of_an_advertisement_is_claimed_and_its_change_too() {
    let mut lab = Lab::new(2);
    let (one, link_local): (Ipv6Addr, Ipv6Addr) =
        ("2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap());
    lab.nva.define(vm(1), one.into());
    lab.add_port(A, PORT, 1);
    lab.settle();
    let flags = |lab: &Lab| -> Vec<Vec<(Ipv6Addr, bool)>> {
        let heard = |m: &NveToNva| match m {
            NveToNva::Claim { overrides, .. } => {
                Some(overrides.iter().map(|(ip, set)| (*ip, *set)).collect())
            }
            _ => None,
        };
        lab.hosts[A].said.iter().filter_map(heard).collect()
    };
    let advert = |ip: Ipv6Addr, overrides| {
        let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides };
        Event::Announce { port: PORT, kind, mac: mac(1), ip: Some(ip.into()) }
    };
    lab.event(A, advert(one, false));
    lab.settle();
    assert_eq!(flags(&lab), [vec![(one, false)]]);
    lab.nva.records.get_mut(&vm(1)).unwrap().no_override = vec![one];
    let record = lab.nva.records[&vm(1)].clone();
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record: Some(record) }));
    for ip in [one, one, link_local, "2001:db8::9".parse().unwrap()] {
        lab.pass(1_100);
        lab.event(A, advert(ip, ip != one));
        lab.settle();
    }
    assert_eq!(flags(&lab).len(), 1, "known, or of an address that no directory lists, or of another's");
    for _ in 0..5 {
        lab.event(A, advert(one, true));
        lab.settle();
    }
    assert_eq!(flags(&lab)[1..], [vec![(one, true)]], "once a second at most");
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
        let kind = AnnounceKind::NeighborAdvertisement { router, overrides: true };
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
    // By its link-local address, which no directory lists.
    lab.pass(1_100);
    let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides: true };
    lab.event(A, Event::Announce { port: PORT, kind, mac: mac(1), ip: Some("fe80::1".parse().unwrap()) });
    lab.settle();
    assert_eq!(flags(&lab).last(), Some(&Some(false)));
    assert_eq!(flags(&lab).len(), 3);
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
fn r30_who_wants_anothers_address_is_named() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.settle();
    let before = lab.hosts[A].said.len();
    lab.event(A, Event::AddressTaken { port: PORT, ip: vm_ip(2), owner: mac(2) });
    let named = |text: &str| ["vm1-1", "vm2", &vm_ip(2).to_string()].iter().all(|w| text.contains(w));
    let alarms = lab.hosts[A].notes.iter().filter(|n| n.level == Level::Alarm && named(&n.text));
    assert_eq!(alarms.count(), 1);
    assert_eq!(lab.hosts[A].said.len(), before, "nobody claims because of it");
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
