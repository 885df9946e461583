//! Virtual, learned, routed and nested addresses at an NVE (R92, R93, R94).

use std::net::{IpAddr, Ipv6Addr};

use crate::lab::binds::*;
use crate::lab::said::*;
use crate::lab::*;
use godwit_control::{Input, Level};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{LEARNED_DEFAULT, Learning, MoveId};
use godwit_tables::event::{AnnounceKind, Event, HandoverStats, Refused};
use godwit_tables::update::{Key, PortIdx, SourceRule, SourceRules, VmState, VnIdx};
use godwit_wire::{Mac, Prefix};

const NESTED: [Mac; 3] = [Mac([2, 0, 0, 0, 9, 1]), Mac([2, 0, 0, 0, 9, 2]), Mac([2, 0, 0, 0, 9, 3])];
const VRRP: Mac = Mac([0, 0, 0x5e, 0, 1, 0x33]);

fn at(mac: Mac) -> Key {
    Key::new(VnIdx(0), mac)
}

fn state(lab: &Lab, i: usize, mac: Mac) -> Option<VmState> {
    lab.hosts[i].tables.vms.get(&at(mac)).copied()
}

fn owner(lab: &Lab, i: usize, ip: IpAddr) -> Option<Mac> {
    lab.hosts[i].tables.neighbors.get(&(VnIdx(0), ip)).copied().flatten()
}

fn privacy(n: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0xabcd, 0, 0, n).into()
}

fn link_local(n: u16) -> IpAddr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n).into()
}

fn port(n: u8) -> PortIdx {
    PortIdx(n.into())
}

fn listed(v4: u8, v6: u8, link_local: u8) -> SourceRules {
    let listed = |room| SourceRule::Listed { room };
    SourceRules { v4: listed(v4), v6: listed(v6), link_local: listed(link_local) }
}

fn alarmed(lab: &Lab, i: usize, words: &[&str]) -> bool {
    let says = |text: &str| words.iter().all(|w| text.contains(w));
    lab.hosts[i].notes.iter().any(|n| n.level == Level::Alarm && says(&n.text))
}

#[test]
fn r94_nested_macs_are_where_their_vm_is() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.allow(1, |a| a.nested = NESTED.to_vec());
    for mac in NESTED {
        assert_eq!(state(&lab, A, mac), Some(VmState::Local { port: PORT }));
        assert_eq!(state(&lab, B, mac), lab.hosts[B].state(1));
        assert_eq!(lab.hosts[A].tables.macs.get(&(PORT, mac)), Some(&false));
    }
    // One of them goes, and nobody keeps it.
    lab.allow(1, |a| a.nested = NESTED[..2].to_vec());
    assert_eq!((state(&lab, A, NESTED[2]), state(&lab, B, NESTED[2])), (None, None));
    assert!(!lab.hosts[A].tables.macs.contains_key(&(PORT, NESTED[2])));
    // The VM goes: its port, and all that led to it.
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(4000);
    assert_eq!(lab.hosts[A].tables.vms.len(), 0);
    assert_eq!(state(&lab, B, NESTED[0]), None, "detached");
}

#[test]
fn r94_a_nested_mac_that_is_asked_for_is_answered_with_its_vm() {
    let mut lab = Lab::with(2, |config| config.pull = [vni()].into());
    lab.nva.define(vm(1), vm_ip(1));
    lab.nva.records.get_mut(&vm(1)).unwrap().allowed.nested = NESTED.to_vec();
    lab.run_vm(B, 2);
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.announce(A, PORT, 1);
    lab.settle();
    let before = queries(&lab, B).len();
    lab.event(B, Event::MissMac { key: at(NESTED[1]), port: port(2) });
    lab.settle();
    assert!(matches!(state(&lab, B, NESTED[1]), Some(VmState::Remote { .. })));
    assert_eq!(queries(&lab, B).len(), before + 1);
    // Its use keeps the whole record.
    lab.pass(29_000);
    let use_it = Event::InUse { key: at(NESTED[1]) };
    assert!(matches!(state(&lab, B, NESTED[1]), Some(VmState::Ageing { .. })));
    lab.event(B, use_it);
    lab.settle();
    assert!(matches!(state(&lab, B, NESTED[1]), Some(VmState::Remote { .. })));
    assert_eq!(queries(&lab, B).len(), before + 2);
}

#[test]
fn r94_nested_macs_move_with_their_vm_and_nothing_of_theirs_is_lost() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(C, 3);
    lab.allow(1, |a| a.nested = NESTED.to_vec());
    lab.order_move("m1", 1, A, B);
    lab.add_port(B, PORT, 1);
    lab.settle();
    let key = |lab: &Lab, i: usize| (lab.hosts[i].state(1), state(lab, i, NESTED[0]));
    assert!(matches!(key(&lab, B), (Some(VmState::Expected { .. }), Some(VmState::Expected { .. }))));
    assert_eq!(lab.hosts[B].tables.macs.len(), 3, "before it comes");
    lab.input(A, Input::PausePort { port: PORT });
    assert!(matches!(key(&lab, A), (Some(VmState::Paused { .. }), Some(VmState::Paused { .. }))));
    // Its nested VM speaks first at the new NVE.
    let kind = AnnounceKind::GratuitousArp;
    lab.event(B, Event::Announce { port: PORT, kind, mac: NESTED[0], ip: Some(vm_ip(91)) });
    assert_eq!(key(&lab, B).0, Some(VmState::Local { port: PORT }));
    lab.settle();
    assert!(is_at(&lab, 1, B));
    for mac in NESTED {
        assert_eq!(state(&lab, B, mac), Some(VmState::Local { port: PORT }));
        assert!(matches!(state(&lab, A, mac), Some(VmState::Departed { .. })));
        assert_eq!(state(&lab, C, mac), lab.hosts[C].state(1));
        assert!(lab.hosts[B].tables.settled.contains(&at(mac)));
    }
    // What was held and forwarded is the VM's, whichever MAC it was for.
    let stats = |n| HandoverStats { held: n, flushed: n, ..HandoverStats::default() };
    lab.event(A, Event::Handover { key: at(mac(1)), stats: stats(5) });
    lab.event(A, Event::Handover { key: at(NESTED[0]), stats: stats(2) });
    let told = lab.hosts[A].nve.entry(lab.now, vm(1)).unwrap().handover;
    assert_eq!((told.held, told.flushed), (7, 7));
}

#[test]
fn r15_r94_a_port_knows_what_a_prepared_vm_may_have_though_the_session_goes_before_the_vns_records_come() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.allow(1, |a| a.nested = NESTED.to_vec());
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.disconnect(B);
    lab.add_port(B, PORT, 1);
    lab.settle();
    let tables = &lab.hosts[B].tables;
    assert!(tables.sources.contains(&(PORT, vm_ip(1))) && tables.rules.contains_key(&PORT));
    assert_eq!(tables.macs.get(&(PORT, NESTED[0])), Some(&false));
    lab.input(A, Input::PausePort { port: PORT });
    lab.announce(B, PORT, 1);
    lab.settle();
    assert_eq!(state(&lab, B, NESTED[0]), Some(VmState::Local { port: PORT }));
    lab.connect(B);
    lab.settle();
    lab.pass(500);
    assert!(is_at(&lab, 1, B));
}

#[test]
fn r15_a_port_knows_what_its_vm_may_have_before_it_opens() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let allowed = &mut lab.nva.records.get_mut(&vm(1)).unwrap().allowed;
    allowed.nested = NESTED.to_vec();
    allowed.virtual_macs = vec![VRRP];
    allowed.virtual_ips = vec![prefix("10.0.0.200/32")];
    allowed.routes = vec![prefix("10.244.3.0/24")];
    lab.add_port(A, PORT, 1);
    lab.settle();
    assert_eq!(admission(&lab, A, PORT), Some(godwit_tables::update::Admission::Associated));
    let t = &lab.hosts[A].tables;
    assert_eq!(t.macs.get(&(PORT, VRRP)), Some(&true));
    assert!(t.prefixes.contains(&(PORT, prefix("10.0.0.200/32"), true)));
    assert!(t.prefixes.contains(&(PORT, prefix("10.244.3.0/24"), false)));
    let each = LEARNED_DEFAULT;
    assert_eq!(
        t.rules[&PORT],
        listed(3 * each, 4 * each, 5 * each),
        "recorded IPv4, three nested, one virtual"
    );
}

#[test]
fn r93_a_vm_without_recorded_addresses_activates_by_its_announcement_and_binds_it() {
    let mut lab = Lab::new(2);
    lab.nva.define(vm(1), vm_ip(1));
    lab.nva.records.get_mut(&vm(1)).unwrap().ipv4.clear();
    lab.add_port(A, PORT, 1);
    lab.settle();
    assert_eq!(lab.hosts[A].tables.rules[&PORT], listed(LEARNED_DEFAULT, LEARNED_DEFAULT, LEARNED_DEFAULT));
    lab.run_vm(B, 2);
    lab.announce(A, PORT, 1);
    lab.settle();
    lab.pass(500);
    assert!(is_at(&lab, 1, A));
    assert_eq!(owner(&lab, B, vm_ip(1)), Some(mac(1)));
    assert!(lab.hosts[A].tables.sources.contains(&(PORT, vm_ip(1))));
    let room = LEARNED_DEFAULT - 1;
    assert_eq!(lab.hosts[A].tables.rules[&PORT], listed(room, LEARNED_DEFAULT, LEARNED_DEFAULT));
    // The same as its first word after a hot move.
    lab.order_move("m1", 1, A, B);
    lab.add_port(B, PORT, 1);
    lab.settle();
    assert!(lab.hosts[B].tables.sources.contains(&(PORT, vm_ip(1))), "before it comes");
    lab.input(A, Input::PausePort { port: PORT });
    let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides: true };
    lab.event(B, Event::Announce { port: PORT, kind, mac: mac(1), ip: Some(link_local(1)) });
    lab.settle();
    lab.pass(500);
    assert!(is_at(&lab, 1, B));
    assert_eq!(owner(&lab, A, link_local(1)), Some(mac(1)));
    assert_eq!(lab.hosts[B].alarms(), 0);
}

#[test]
fn r93_a_privacy_address_is_bound_and_moves_along() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.seen(A, PORT, (mac(1), Some(privacy(1))), false);
    assert_eq!(owner(&lab, B, privacy(1)), Some(mac(1)));
    assert_eq!(binds(&lab, A), [(binds(&lab, A)[0].0, mac(1), Some(privacy(1)), false, 0)]);
    // Said again before the update was there: nothing follows.
    lab.seen(A, PORT, (mac(1), Some(privacy(1))), false);
    assert_eq!(binds(&lab, A).len(), 1);
    // One that it had for a while and dropped is given back.
    lab.pass(300_000);
    let frames = lab.hosts[A].frames.len();
    lab.pass(4000);
    assert!(lab.hosts[A].frames.len() > frames || frames > 0);
    assert_eq!(owner(&lab, B, privacy(1)), None);
    assert!(lab.hosts[A].said.contains(&NveToNva::Unbind { key: vm(1), ip: privacy(1) }));
}

#[test]
fn r93_a_learned_address_that_is_answered_for_stays() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.seen(A, PORT, (mac(1), Some(privacy(1))), true);
    for round in 0..3 {
        lab.pass(if round == 0 { 299_000 } else { 288_500 });
        let before = lab.hosts[A].frames.len();
        lab.pass(1_500);
        let asked = lab.hosts[A].frames.len() - before;
        assert!((1..=2).contains(&asked), "asked {asked} times");
        lab.alive(A, PORT, mac(1), Some(privacy(1)));
        lab.pass(10_000);
    }
    assert_eq!(lab.nva.records[&vm(1)].bound.ips.len(), 1);
    // Somebody else uses it: it is asked for at once.
    let before = lab.hosts[A].frames.len();
    lab.input(A, Input::Nva(NvaToNve::VerifyIp { key: vm(1), ip: privacy(1) }));
    assert_eq!(lab.hosts[A].frames.len(), before + 1);
    lab.pass(3_100);
    assert_eq!(lab.nva.records[&vm(1)].bound.ips.len(), 0, "three questions, a second apart, and no answer");
}

#[test]
fn r93_an_answer_for_another_address_keeps_none() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.seen(A, PORT, (mac(1), Some(privacy(1))), true);
    lab.pass(299_000);
    for _ in 0..5 {
        lab.pass(1_000);
        // The VM is alive, and answers for its recorded address, or with something else.
        lab.alive(A, PORT, mac(1), Some(privacy(2)));
        lab.alive(A, PORT, mac(1), None);
    }
    assert_eq!(lab.nva.records[&vm(1)].bound.ips.len(), 0);
}

#[test]
fn r93_requests_are_repeated_with_their_number_given_up_and_put_again_by_a_new_session() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.nva.mute_binds = true;
    lab.seen(A, PORT, (mac(1), Some(privacy(1))), false);
    lab.pass(4_900);
    let said = binds(&lab, A);
    assert!((3..=8).contains(&said.len()), "{said:?}");
    assert!(said.iter().all(|b| b.0 == said[0].0), "one number");
    lab.pass(60_000);
    assert!(binds(&lab, A).len() <= said.len() + 1, "given up");
    lab.seen(A, PORT, (mac(1), Some(privacy(2))), false);
    lab.disconnect(A);
    lab.seen(A, PORT, (mac(1), Some(privacy(3))), false);
    lab.pass(10_000);
    lab.nva.mute_binds = false;
    lab.connect(A);
    lab.settle();
    lab.pass(500);
    let again = binds(&lab, A);
    let last: Vec<_> = again.iter().rev().take(2).collect();
    assert!(last.iter().all(|b| b.4 >= 10_000), "they say how long ago it was: {last:?}");
    let bound: Vec<IpAddr> = lab.nva.records[&vm(1)].bound.ips.iter().map(|b| b.ip).collect();
    assert_eq!(bound, [privacy(2), privacy(3)]);
}

#[test]
fn r93_what_may_not_be_bound_is_refused_and_the_alarm_names_it_and_the_command() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    // Its IPv4 addresses are recorded: nobody needs to be asked.
    lab.seen(A, PORT, (mac(1), Some(vm_ip(77))), false);
    assert!(binds(&lab, A).is_empty());
    assert!(alarmed(&lab, A, &["vm1", "10.0.0.77", "not its own", "vm set vm1 --addresses-v4 learned"]));
    // The NVA's word, with its text; the worker hears that it is refused.
    lab.nva.define(vm(9), vm_ip(9));
    lab.nva.records.get_mut(&vm(9)).unwrap().ipv6.push(match privacy(9) {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(_) => unreachable!(),
    });
    lab.seen(A, PORT, (mac(1), Some(privacy(9))), true);
    assert!(alarmed(&lab, A, &["another VM", "says the NVA", "the operator may allow it"]));
    assert!(lab.hosts[A].tables.refused.contains(&(PORT, privacy(9))));
    let alarms = lab.hosts[A].alarms();
    for _ in 0..20 {
        lab.pass(1000);
        lab.event(A, Event::Spoofed { port: PORT, mac: VRRP, ip: None, why: Refused::Mac });
    }
    assert_eq!(lab.hosts[A].alarms(), alarms + 1, "once a minute, and the port says how often");
    assert!(alarmed(&lab, A, &["00:00:5e:00:01:33", "--virtual-mac"]));
    let view = lab.hosts[A].nve.ports().into_iter().find(|p| p.port == PORT).unwrap();
    let refused = view.bindings.unwrap().refused;
    assert_eq!((refused[0].mac, refused[0].count), (VRRP, 20));
    assert!(
        refused.iter().any(|r| r.ip == Some(privacy(9)) && r.allow.contains("the operator may allow it"))
    );
}

#[test]
fn r92_a_virtual_address_goes_to_who_announces_it_last() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.run_vm(A, 3);
    let vip = vm_ip(200);
    for n in [1, 2] {
        lab.allow(n, |a| a.virtual_ips = vec![Prefix::host(vip)]);
    }
    lab.seen(A, PORT, (mac(1), Some(vip)), true);
    assert_eq!((owner(&lab, A, vip), owner(&lab, B, vip)), (Some(mac(1)), Some(mac(1))));
    assert!(lab.hosts[A].tables.sources.contains(&(PORT, vip)));
    lab.hosts[A].frames.clear();
    // Fail-over to the other NVE: VMs here that know the old owner are told (R24).
    lab.seen(B, port(2), (mac(2), Some(vip)), true);
    assert_eq!((owner(&lab, A, vip), owner(&lab, B, vip)), (Some(mac(2)), Some(mac(2))));
    assert!(!lab.hosts[A].tables.sources.contains(&(PORT, vip)));
    assert!(lab.hosts[B].tables.sources.contains(&(port(2), vip)));
    let told: Vec<PortIdx> = lab.hosts[A].frames.iter().map(|(port, _)| *port).collect();
    assert_eq!(told, [PORT, port(3)]);
    // And back, after the owner has moved.
    lab.seen(A, PORT, (mac(1), Some(vip)), true);
    assert_eq!(owner(&lab, B, vip), Some(mac(1)));
    assert_eq!(lab.hosts[A].alarms() + lab.hosts[B].alarms(), 0);
}

#[test]
fn r92_the_directory_hears_when_an_owner_announced_its_address_last() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let vip = vm_ip(200);
    lab.allow(1, |a| a.virtual_ips = vec![Prefix::host(vip)]);
    lab.seen(A, PORT, (mac(1), Some(vip)), true);
    assert_eq!(binds(&lab, A).len(), 1);
    let again = Event::Announce { port: PORT, kind: AnnounceKind::GratuitousArp, mac: mac(1), ip: Some(vip) };
    lab.pass(5000);
    // Of an announcement that another NVE tells later, with its age, it is known which one is the later.
    for _ in 0..20 {
        lab.event(A, again);
        lab.settle();
    }
    assert_eq!(binds(&lab, A).len(), 2, "at once");
    lab.pass(1100);
    assert_eq!(binds(&lab, A).len(), 3, "and what came after that a second later");
    lab.pass(60_000);
    assert_eq!(binds(&lab, A).len(), 3);
    // One that is said without a session is told in the next one, whatever the directory says of the record before.
    lab.disconnect(A);
    lab.event(A, again);
    lab.pass(7000);
    lab.connect(A);
    lab.settle();
    lab.pass(500);
    let said = binds(&lab, A);
    assert_eq!(said.len(), 4);
    assert!((7000..8000).contains(&said[3].4), "{said:?}");
    // A directory that was started since does not know what was said before.
    lab.disconnect(A);
    lab.pass(3000);
    lab.connect(A);
    lab.settle();
    lab.pass(500);
    let said = binds(&lab, A);
    assert!(said.len() == 5 && said[4].4 >= 10_000, "{said:?}");
    assert_eq!(lab.hosts[A].alarms(), 0);
}

#[test]
fn r93_who_uses_an_address_that_another_vm_learned_has_that_one_asked() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.seen(B, port(2), (mac(2), Some(privacy(1))), true);
    assert_eq!(owner(&lab, A, privacy(1)), Some(mac(2)));
    // Workers drop what comes from it, or tell the VM that it is taken.
    let spoofed = |ip| Event::Spoofed { port: PORT, mac: mac(1), ip: Some(ip), why: Refused::Taken };
    lab.event(A, spoofed(privacy(1)));
    lab.settle();
    assert_eq!(binds(&lab, A).len(), 1, "the directory has its owner asked");
    lab.event(A, Event::AddressTaken { port: PORT, ip: privacy(1), owner: mac(2) });
    lab.settle();
    assert_eq!(binds(&lab, A).len(), 2);
    assert_eq!(owner(&lab, A, privacy(1)), Some(mac(2)), "which keeps it while it answers");
    // A recorded one is not contested, nor where nothing is learned.
    lab.event(A, spoofed(vm_ip(2)));
    lab.event(A, Event::AddressTaken { port: PORT, ip: vm_ip(2), owner: mac(2) });
    lab.settle();
    assert_eq!(binds(&lab, A).len(), 2);
}

#[test]
fn r92_a_virtual_mac_is_where_its_owner_is() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.run_vm(C, 3);
    let vip = vm_ip(200);
    for n in [1, 2] {
        lab.allow(n, |a| {
            a.virtual_ips = vec![Prefix::host(vip)];
            a.virtual_macs = vec![VRRP];
        });
    }
    assert_eq!(state(&lab, C, VRRP), None, "nobody has it");
    lab.seen(A, PORT, (VRRP, None), false);
    lab.seen(A, PORT, (VRRP, Some(vip)), true);
    assert_eq!(owner(&lab, C, vip), Some(VRRP));
    assert_eq!(state(&lab, A, VRRP), Some(VmState::Local { port: PORT }));
    assert_eq!(state(&lab, C, VRRP), lab.hosts[C].state(1));
    lab.seen(B, port(2), (VRRP, Some(vip)), true);
    assert_eq!(state(&lab, B, VRRP), Some(VmState::Local { port: port(2) }));
    assert_eq!(state(&lab, C, VRRP), lab.hosts[C].state(2));
    assert_eq!(state(&lab, A, VRRP), lab.hosts[A].state(2), "the former owner sends there, too");
    // Its owner moves with all that it has.
    lab.order_move("m1", 2, B, C);
    lab.add_port(C, port(2), 2);
    lab.settle();
    lab.input(B, Input::PausePort { port: port(2) });
    assert!(matches!(state(&lab, B, VRRP), Some(VmState::Paused { .. })));
    lab.announce(C, port(2), 2);
    lab.settle();
    assert_eq!(state(&lab, C, VRRP), Some(VmState::Local { port: port(2) }));
    assert!(matches!(state(&lab, B, VRRP), Some(VmState::Departed { .. })));
    assert_eq!(state(&lab, A, VRRP), lab.hosts[A].state(2));
    let _ = MoveId(String::new());
}

#[test]
fn r93_the_operators_word_on_learning_reaches_the_port() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    assert_eq!(lab.hosts[A].tables.rules[&PORT], listed(0, LEARNED_DEFAULT, LEARNED_DEFAULT));
    lab.allow(1, |a| {
        a.learning.v4 = Some(Learning::Learned(3));
        a.learning.v6 = Some(Learning::Recorded);
    });
    assert_eq!(lab.hosts[A].tables.rules[&PORT], listed(3, 0, LEARNED_DEFAULT));
    lab.seen(A, PORT, (mac(1), Some(vm_ip(77))), false);
    assert_eq!(lab.hosts[A].tables.rules[&PORT], listed(2, 0, LEARNED_DEFAULT));
}
