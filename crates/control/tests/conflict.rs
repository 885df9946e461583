//! Another NVE claims a VM that lives here, and no move explains it.

use crate::lab::said::{is_remote_to, other_record};
use crate::lab::*;
use godwit_control::Input;
use godwit_model::message::{Change, NvaToNve, NveToNva};
use godwit_model::{Version, VmRecord};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::VmState;
use godwit_wire::arp::{Arp, OP_REQUEST};
use godwit_wire::ndp::{self, Ndp};
use godwit_wire::{Instant, Mac, ethernet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const A: usize = 0;

fn verify(lab: &mut Lab, n: u8) -> Version {
    let version = lab.nva.records.get(&vm(n)).map_or(Version::ZERO, |r| r.version);
    lab.hosts[A].frames.clear();
    lab.input(A, Input::Nva(NvaToNve::Verify { key: vm(n), version }));
    version
}

/// What was said to the NVA about the VM: alive or not.
fn verdicts(lab: &Lab) -> Vec<(Version, bool)> {
    let of = lab.hosts[A].said.iter().filter_map(|m| match m {
        NveToNva::Verified { version, alive, .. } => Some((*version, *alive)),
        _ => None,
    });
    of.collect()
}

#[test]
fn r21_a_vm_that_answers_is_alive() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let version = verify(&mut lab, 1);
    let [(port, frame)] = &lab.hosts[A].frames[..] else { panic!("one question") };
    assert_eq!(*port, PORT);
    assert_eq!((&frame[..6], &frame[6..12]), (&mac(1).0[..], &Mac::PROBER.0[..]), "to it alone");
    let arp = Arp::new_checked(&frame[ethernet::HEADER_LEN..]).unwrap();
    assert_eq!((arp.op(), arp.sha(), arp.spa()), (OP_REQUEST, Mac::PROBER, Ipv4Addr::UNSPECIFIED));
    assert_eq!(IpAddr::V4(arp.tpa()), vm_ip(1));
    verify(&mut lab, 1);
    assert_eq!((lab.hosts[A].frames.len(), verdicts(&lab)), (0, vec![]), "asked already, said again");
    let answer = Event::Announce { port: PORT, kind: AnnounceKind::Alive, mac: mac(1), ip: None };
    lab.event(A, answer);
    assert_eq!(verdicts(&lab), [(version, true)]);
    lab.event(A, answer);
    lab.pass(5000);
    assert_eq!(verdicts(&lab).len(), 1, "said once");
}

#[test]
fn r21_a_vm_is_asked_for_three_seconds() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let version = verify(&mut lab, 1);
    lab.pass(2999);
    assert_eq!((lab.hosts[A].frames.len(), verdicts(&lab).len()), (3, 0));
    lab.pass(1);
    assert_eq!(verdicts(&lab), [(version, false)]);
}

#[test]
fn r21_an_ipv6_address_is_solicited() {
    let mut lab = Lab::new(1);
    let ip: Ipv6Addr = "2001:db8::1".parse().unwrap();
    lab.nva.define(vm(1), ip.into());
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.event(A, Event::Announce { port: PORT, kind: AnnounceKind::Rarp, mac: mac(1), ip: None });
    lab.settle();
    verify(&mut lab, 1);
    let frame = &lab.hosts[A].frames[0].1;
    let Ok(Ndp::Solicit(s)) = ndp::parse(&frame[ethernet::HEADER_LEN..]) else { panic!("no solicitation") };
    assert_eq!((s.target, s.dst, s.slla), (ip, ip, Some(Mac::PROBER)));
    assert!(s.src.is_unicast_link_local());
}

#[test]
fn r21_a_vm_without_a_port_is_gone_at_once() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(9), vm_ip(9));
    let unknown = verify(&mut lab, 9);
    assert_eq!(verdicts(&lab), [(unknown, false)]);
    lab.run_vm(A, 1);
    let version = verify(&mut lab, 1);
    lab.input(A, Input::PortRemoved { port: PORT });
    assert_eq!(verdicts(&lab)[1..], [(version, false)], "it goes while it is being asked");
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.input(A, Input::PortLink { port: PORT, up: false });
    let version = verify(&mut lab, 1);
    assert_eq!(verdicts(&lab), [(version, false)], "no link, no VM");
}

#[test]
fn r22_nobody_is_told_who_has_a_frozen_vms_address_and_its_owner_keeps_its_traffic() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(1, 2);
    lab.settle();
    let at = (key(1).vn(), vm_ip(1));
    for (frozen, seq) in [(true, 50), (false, 51)] {
        let version = Version { epoch: 1, seq };
        let record = VmRecord { frozen, ..other_record(&lab, 1, A, version) };
        lab.nva.records.insert(vm(1), record.clone());
        for (i, said) in lab.nva.news(vni(), &Change::Vm(record), None) {
            lab.hosts[i].inbox.push_back(said);
        }
        lab.settle();
        for i in [A, 1] {
            let told = lab.hosts[i].tables.neighbors.get(&at).copied().flatten();
            assert_eq!(told, (!frozen).then_some(mac(1)), "at {i}, frozen: {frozen}");
            let silent = lab.hosts[i].tables.absent_ips.get(&at).copied();
            assert_eq!(silent, frozen.then_some(Instant::NEVER), "asks nobody again");
        }
        assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
        assert!(is_remote_to(&lab, 1, 1, A));
    }
}
