//! Policies follow their VMs: a port opens with its VM's policy, or not at all (R15, R23).

use crate::lab::said::{A, B, admission, claims, warned};
use crate::lab::{Lab, PORT, vm, vm_ip};
use godwit_control::{Input, WorkerSet};
use godwit_model::message::NvaToNve;
use godwit_model::{Policy, parse_rule};
use godwit_tables::update::{Admission, PortIdx, VmState};
use godwit_wire::Dscp;
use godwit_wire::policy::{Rule, Verdict};

fn policy(name: &str, rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|r| parse_rule(r).unwrap()).collect();
    Policy { name: name.into(), rules, default: Verdict::Allow, rate: 0, burst: 0, dscp: None }
}

fn told(policies: &[Policy]) -> Input {
    Input::Nva(NvaToNve::Policies { reset: false, policies: policies.to_vec(), gone: vec![] })
}

fn rules(lab: &Lab, i: usize, port: PortIdx) -> Option<Vec<Rule>> {
    lab.hosts[i].tables.policies.get(&port).map(|(rules, ..)| rules.clone())
}

fn dscp(lab: &Lab, i: usize, port: PortIdx) -> Option<Dscp> {
    lab.hosts[i].tables.policies.get(&port).and_then(|(.., dscp)| *dscp)
}

/// VM 1 with the policy `web`, which both NVEs have been told, at A.
fn web() -> (Lab, Policy) {
    let mut lab = Lab::new(2);
    let web =
        Policy { dscp: Dscp::new(46), ..policy("web", &["deny out tcp remote-port 25", "deny in udp"]) };
    for i in [A, B] {
        lab.input(i, told(std::slice::from_ref(&web)));
    }
    lab.nva.policies = vec![web.clone()];
    lab.nva.define(vm(1), vm_ip(1));
    lab.nva.records.get_mut(&vm(1)).unwrap().policy = Some("web".into());
    lab.add_port(A, PORT, 1);
    lab.settle();
    (lab, web)
}

#[test]
fn r23_the_policy_is_there_before_the_port_opens_and_goes_with_it() {
    let (mut lab, web) = web();
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated));
    assert_eq!(rules(&lab, A, PORT), Some(web.rules));
    lab.announce(A, PORT, 1);
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Activated));
    lab.input(A, Input::PortRemoved { port: PORT });
    assert_eq!(rules(&lab, A, PORT), None);
}

#[test]
fn r23_the_policy_is_at_the_next_port_of_the_same_nve_and_at_the_next_nve() {
    let (mut lab, web) = web();
    lab.announce(A, PORT, 1);
    lab.settle();
    let second = PortIdx(9);
    lab.add_port(A, second, 1);
    lab.settle();
    assert_eq!(rules(&lab, A, second), Some(web.rules.clone()));
    lab.announce(A, second, 1);
    lab.settle();
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: second }));
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    assert_eq!(rules(&lab, B, PORT), Some(web.rules), "before the VM runs there");
    lab.announce(B, PORT, 1);
    lab.settle();
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }));
}

#[test]
fn r23_the_mark_goes_with_the_vm_and_changes_at_once() {
    let (mut lab, web) = web();
    let (ef, second) = (web.dscp, PortIdx(9));
    assert_eq!((ef.is_some(), dscp(&lab, A, PORT)), (true, ef), "before the port opens");
    lab.announce(A, PORT, 1);
    lab.settle();
    lab.add_port(A, second, 1);
    lab.settle();
    assert_eq!(dscp(&lab, A, second), ef, "another port of the same NVE");
    lab.announce(A, second, 1);
    lab.settle();
    lab.add_port(B, PORT, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    assert_eq!(dscp(&lab, B, PORT), ef, "the next NVE, before the VM runs there");
    lab.announce(B, PORT, 1);
    lab.settle();
    assert_eq!(lab.hosts[B].state(1), Some(VmState::Local { port: PORT }));
    // Nothing but the mark is another one, then there is none.
    for new in [Dscp::new(0), Dscp::new(10), None] {
        lab.input(B, told(&[Policy { dscp: new, ..web.clone() }]));
        assert_eq!((dscp(&lab, B, PORT), rules(&lab, B, PORT)), (new, Some(web.rules.clone())));
    }
}

#[test]
fn r23_without_its_policy_a_vm_is_refused_activation_until_it_comes() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.nva.records.get_mut(&vm(1)).unwrap().policy = Some("web".into());
    lab.add_port(A, PORT, 1);
    lab.settle();
    for _ in 0..3 {
        lab.announce(A, PORT, 1);
        lab.settle();
    }
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated));
    assert_eq!((lab.hosts[A].state(1), claims(&lab, A).len()), (None, 0), "nor does it claim");
    assert_eq!(lab.hosts[A].alarms(), 1, "said once");
    assert!(warned(&lab, A, "the policy web of"), "{:?}", lab.hosts[A].notes);
    lab.input(A, told(&[policy("db", &[])]));
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated), "another one");
    lab.input(A, told(&[policy("web", &["deny out"])]));
    lab.settle();
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Activated), "it need not speak again");
    assert_eq!(rules(&lab, A, PORT).map(|r| r.len()), Some(1));
    assert_eq!(claims(&lab, A).len(), 1);
}

#[test]
fn r23_an_order_does_not_open_a_port_without_its_policy_either() {
    let mut lab = Lab::new(1);
    lab.nva.define(vm(1), vm_ip(1));
    lab.nva.records.get_mut(&vm(1)).unwrap().policy = Some("web".into());
    lab.add_port(A, PORT, 1);
    lab.settle();
    lab.input(A, Input::ActivatePort { port: PORT });
    assert_eq!(admission(&lab, A, PORT), Some(Admission::Associated));
    // Gone meanwhile: nothing is left of the wish.
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.input(A, told(&[policy("web", &[])]));
    assert_eq!(lab.hosts[A].state(1), None);
}

#[test]
fn r23_a_changed_policy_is_in_force_at_once_and_another_nva_changes_nothing() {
    let (mut lab, _) = web();
    lab.announce(A, PORT, 1);
    lab.settle();
    let new = policy("web", &["deny in"]);
    lab.input(A, told(std::slice::from_ref(&new)));
    assert_eq!(rules(&lab, A, PORT), Some(new.rules.clone()));
    // A new session of an NVA that has lost it: who has one keeps it.
    lab.nva.policies.clear();
    lab.disconnect(A);
    lab.connect(A);
    lab.settle();
    assert_eq!(rules(&lab, A, PORT), Some(new.rules));
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PORT }));
}

#[test]
fn r23_a_vm_that_has_lost_its_policy_has_none() {
    let (mut lab, _) = web();
    lab.announce(A, PORT, 1);
    lab.settle();
    let mut record = lab.nva.records[&vm(1)].clone();
    record.policy = None;
    record.version.seq += 100;
    lab.input(A, Input::Nva(NvaToNve::Provision { key: vm(1), record: Some(record) }));
    assert_eq!(rules(&lab, A, PORT), None);
}

#[test]
fn r14_a_worker_that_joins_is_told_the_policies_too() {
    let (mut lab, web) = web();
    let workers = WorkerSet::first(1);
    assert!(workers.contains(0));
    lab.hosts[A].tables = Default::default();
    lab.input(A, Input::WorkerLeft { worker: 0 });
    lab.input(A, Input::WorkerJoined { worker: 0 });
    assert_eq!(rules(&lab, A, PORT), Some(web.rules));
}
