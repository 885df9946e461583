//! A VM has left: are the others of its VN still here (R32)?

use std::collections::{BTreeMap, BTreeSet};

use crate::lab::*;
use godwit_control::Input;
use godwit_model::VmKey;
use godwit_model::message::NveToNva;
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{PortIdx, VmState};
use godwit_wire::arp::{Arp, OP_REQUEST};
use godwit_wire::{Mac, ethernet};
use std::net::{IpAddr, Ipv4Addr};

const A: usize = 0;
const B: usize = 1;

/// VMs 1 to `last` at A, long enough not to be probing their addresses any more.
fn begin(last: u8) -> Lab {
    let mut lab = Lab::with(2, |c| c.scan_rate = 100);
    (1..=last).for_each(|n| lab.run_vm(A, n));
    lab.pass(10_000);
    lab.settle();
    lab
}

/// VM 1 goes from A to B; from here on frames and messages are counted.
fn one_leaves(lab: &mut Lab) {
    let at_b = PortIdx(1);
    lab.add_port(B, at_b, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.hosts[A].frames.clear();
    lab.hosts[B].frames.clear();
    lab.hosts[A].said.clear();
    lab.announce(B, at_b, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
}

/// Questions at A since then, by port. Each is for the port's VM alone.
fn questions(lab: &Lab) -> BTreeMap<u16, usize> {
    let mut all = BTreeMap::new();
    let ours = lab.hosts[A].frames.iter().filter(|(_, f)| f[6..12] == Mac::PROBER.0);
    for (port, frame) in ours {
        let n = port.0 as u8;
        assert_eq!(frame[..6], mac(n).0, "unicast, on its own port");
        let arp = Arp::new_checked(&frame[ethernet::HEADER_LEN..]).unwrap();
        assert_eq!((arp.op(), arp.spa()), (OP_REQUEST, Ipv4Addr::UNSPECIFIED));
        assert_eq!(IpAddr::V4(arp.tpa()), vm_ip(n));
        *all.entry(port.0).or_default() += 1;
    }
    all
}

fn answer(lab: &mut Lab, n: u8) {
    let port = PortIdx(n.into());
    lab.event(A, Event::Announce { port, kind: AnnounceKind::Alive, mac: mac(n), ip: None });
}

fn withdrawn(lab: &Lab) -> Vec<VmKey> {
    let of = |m: &NveToNva| if let NveToNva::Withdraw { key, .. } = m { Some(*key) } else { None };
    lab.hosts[A].said.iter().filter_map(of).collect()
}

#[test]
fn r32_of_fifty_vms_the_silent_one_is_told_of_and_the_paused_one_is_left_alone() {
    let mut lab = begin(51);
    let (silent, paused) = (2, 3);
    lab.input(A, Input::PausePort { port: PortIdx(paused.into()) });
    one_leaves(&mut lab);
    // At 100 a second, not all at once.
    lab.pass(99);
    assert!((1..=11).contains(&questions(&lab).len()), "{:?}", questions(&lab));
    lab.pass(900);
    let asked = questions(&lab);
    assert_eq!(asked.len(), 49, "49 running VMs within a second");
    assert!(!asked.contains_key(&u16::from(paused)) && !asked.contains_key(&1));
    assert!(asked.values().all(|n| *n == 1), "each once: {asked:?}");
    (2..=51).filter(|n| ![silent, paused].contains(n)).for_each(|n| answer(&mut lab, n));
    let alarms = lab.hosts[A].alarms();
    lab.pass(4000);
    lab.settle();
    let again = questions(&lab);
    assert_eq!(again.iter().filter(|(_, n)| **n > 1).collect::<Vec<_>>(), [(&u16::from(silent), &3)]);
    assert!(lab.hosts[B].frames.iter().all(|(_, f)| f[6..12] != Mac::PROBER.0), "nobody else asks");
    // A stalled host is silent, too: while its port has a link, the VM stays and is reached.
    assert_eq!((withdrawn(&lab), lab.hosts[A].alarms()), (vec![], alarms + 1));
    assert_eq!(lab.hosts[A].state(silent), Some(VmState::Local { port: PortIdx(silent.into()) }));
}

#[test]
fn r32_a_silent_vm_that_was_activated_by_order_stays_with_an_alarm() {
    let mut lab = begin(2);
    let port = PortIdx(2);
    lab.input(A, Input::PausePort { port });
    lab.input(A, Input::ActivatePort { port });
    lab.settle();
    one_leaves(&mut lab);
    let alarms = lab.hosts[A].alarms();
    lab.pass(10_000);
    lab.settle();
    assert_eq!(questions(&lab), [(2, 3)].into());
    assert_eq!((withdrawn(&lab), lab.hosts[A].alarms()), (vec![], alarms + 1));
    assert_eq!(lab.hosts[A].state(2), Some(VmState::Local { port }));
}

#[test]
fn r32_a_vm_that_has_just_come_is_asked_when_it_has_done_probing() {
    let mut lab = begin(1);
    lab.run_vm(A, 2);
    one_leaves(&mut lab);
    lab.pass(7_900);
    assert_eq!(questions(&lab), [].into());
    lab.pass(200);
    assert_eq!(questions(&lab), [(2, 1)].into());
}

#[test]
fn r32_no_rate_no_questions() {
    let mut lab = Lab::with(2, |c| c.scan_rate = 0);
    (1..=2).for_each(|n| lab.run_vm(A, n));
    lab.pass(10_000);
    one_leaves(&mut lab);
    lab.pass(10_000);
    assert_eq!(questions(&lab), [].into());
}

/// What VM 1 is asked for on its port, by the last octet.
fn asked_for(lab: &Lab) -> BTreeSet<u8> {
    let ours = lab.hosts[A].frames.iter().filter(|(port, f)| *port == PORT && f[6..12] == Mac::PROBER.0);
    ours.map(|(_, f)| Arp::new_checked(&f[ethernet::HEADER_LEN..]).unwrap().tpa().octets()[3]).collect()
}

#[test]
fn r32_a_vm_that_is_looked_for_is_asked_for_each_of_its_addresses() {
    for count in [1, 4, 6, 20, 64] {
        let mut lab = Lab::new(1);
        lab.nva.define(vm(1), vm_ip(1));
        let record = lab.nva.records.get_mut(&vm(1)).unwrap();
        record.ipv4 = (1..=count).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
        lab.add_port(A, PORT, 1);
        lab.settle();
        // Within the ten seconds in which it is found, whichever of them its guest has configured.
        lab.pass(10_000);
        assert_eq!(asked_for(&lab), (1..=count).collect(), "{count} addresses");
    }
}

#[test]
fn r21_a_vm_in_doubt_is_asked_for_each_of_its_addresses_before_its_silence_counts() {
    use godwit_model::message::NvaToNve;
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    let record = lab.nva.records.get_mut(&vm(1)).unwrap();
    record.ipv4 = (1..=20).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.announce(A, PORT, 1);
    lab.settle();
    for _ in 0..3 {
        lab.hosts[A].frames.clear();
        let version = lab.version(1);
        lab.input(A, Input::Nva(NvaToNve::Verify { key: vm(1), version }));
        assert_eq!(asked_for(&lab), (1..=20).collect());
        answer(&mut lab, 1);
    }
}
