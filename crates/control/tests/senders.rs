//! Whom VXLAN is accepted from, by the members of a VN (R69).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::lab::*;
use godwit_control::Input;
use godwit_model::message::Change;
use godwit_tables::event::Event;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn senders(lab: &Lab, i: usize) -> BTreeSet<IpAddr> {
    lab.hosts[i].tables.senders.iter().map(|(_, ip)| *ip).collect()
}

fn all(hosts: &[usize]) -> BTreeSet<IpAddr> {
    hosts
        .iter()
        .flat_map(|i| {
            let l = location(*i).locators;
            l.v4.map(IpAddr::V4).into_iter().chain(l.v6.map(IpAddr::V6))
        })
        .collect()
}

#[test]
fn r69_members_are_accepted_and_those_that_left_for_what_is_in_flight() {
    let mut lab = Lab::new(3);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.settle();
    assert_eq!(senders(&lab, A), all(&[B]));
    assert_eq!(lab.hosts[A].tables.known_senders.len(), 1, "the directory has told of all");
    lab.run_vm(C, 3);
    lab.settle();
    assert_eq!(senders(&lab, A), all(&[B, C]));
    for (i, said) in lab.nva.news(vni(), &Change::MemberLeft(nve_id(C)), Some(C)) {
        lab.input(i, Input::Nva(said));
    }
    assert_eq!(senders(&lab, A), all(&[B, C]), "what it sent is under way");
    lab.pass(59_000);
    assert_eq!(senders(&lab, A), all(&[B, C]));
    lab.pass(2000);
    assert_eq!(senders(&lab, A), all(&[B]));
}

#[test]
fn r69_nobody_is_refused_without_the_directory() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    lab.settle();
    lab.disconnect(A);
    lab.pass(1000);
    assert_eq!((senders(&lab, A), lab.hosts[A].tables.known_senders.len()), (all(&[B]), 0));
    lab.connect(A);
    lab.settle();
    assert_eq!(
        (senders(&lab, A), lab.hosts[A].tables.known_senders.len()),
        (all(&[B]), 1),
        "all are told again"
    );
}

#[test]
fn r69_a_stranger_is_named_and_counted() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    let ip = IpAddr::from([198, 18, 9, 9]);
    for _ in 0..3 {
        lab.event(A, Event::UnknownSender { vni: vni(), ip, frames: 100 });
    }
    assert_eq!(lab.hosts[A].alarms(), 1, "said once a minute");
    let seen = lab.hosts[A].nve.unknown_senders();
    assert!(matches!(&seen[..], [s] if (s.ip, s.vni, s.frames) == (ip, vni(), 300)), "{seen:?}");
    for n in 0..1000u32 {
        lab.event(A, Event::UnknownSender { vni: vni(), ip: IpAddr::V4(n.into()), frames: 1 });
    }
    assert!(lab.hosts[A].nve.unknown_senders().len() <= 256);
    assert!(lab.hosts[A].alarms() < 20, "not one for each");
}
