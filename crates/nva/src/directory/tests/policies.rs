//! Policies of VMs: who is told of them, and what is refused (R23, R33).

use godwit_model::{Policy, parse_rule};
use godwit_wire::Dscp;
use godwit_wire::policy::Verdict;

use super::*;

fn policy(name: &str, rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|r| parse_rule(r).unwrap()).collect();
    Policy { name: name.into(), rules, default: Verdict::Allow, rate: 0, burst: 0, dscp: None }
}

fn define(w: &mut World, p: &Policy) -> Result<Vec<Output>, Refusal> {
    w.define_policy(p.clone()).map(|(_, out)| out)
}

fn remove(w: &mut World, name: &str) -> Result<Vec<Output>, Refusal> {
    w.remove_policy(name).map(|(_, out)| out)
}

/// What each session is told of policies.
fn told(outputs: &[Output]) -> Vec<(SessionId, bool, usize, usize)> {
    let news = |o: &Output| match o {
        Output::Send { session, message: NvaToNve::Policies { reset, policies, gone } } => {
            Some((*session, *reset, policies.len(), gone.len()))
        }
        _ => None,
    };
    outputs.iter().filter_map(news).collect()
}

#[test]
fn r23_every_nve_is_told_every_policy_before_any_record() {
    let mut w = World::new();
    let web = policy("web", &["deny out tcp remote-port 25"]);
    define(&mut w, &web).unwrap();
    let (a, out) = w.hello("a");
    assert_eq!(told(&out), [(a, true, 1, 0)]);
    let (b, _) = w.hello("b");
    let changed = policy("web", &["deny out"]);
    assert_eq!(told(&define(&mut w, &changed).unwrap()), [(a, false, 1, 0), (b, false, 1, 0)]);
    assert_eq!(told(&define(&mut w, &changed).unwrap()), [], "the same again is no news");
    assert_eq!(told(&remove(&mut w, "web").unwrap()), [(a, false, 0, 1), (b, false, 0, 1)]);
    // Many come in parts, of which the first begins anew.
    for n in 0..130 {
        define(&mut w, &policy(&format!("p{n}"), &[])).unwrap();
    }
    let (c, out) = w.hello("c");
    assert_eq!(told(&out), [(c, true, 64, 0), (c, false, 64, 0), (c, false, 2, 0)]);
}

#[test]
fn r23_a_policy_that_is_used_is_not_removed_and_one_that_is_not_there_is_not_given() {
    let mut w = World::new();
    let with = |policy: Option<&str>| VmDefinition { policy: policy.map(String::from), ..definition(1) };
    let refused = w.define_vm(with(Some("web")));
    assert_eq!(refused.err(), Some(Refusal::UnknownPolicy("web".into())));
    define(&mut w, &policy("web", &[])).unwrap();
    let (record, _) = w.define_vm(with(Some("web"))).unwrap();
    assert_eq!(record.policy.as_deref(), Some("web"));
    assert_eq!(remove(&mut w, "web"), Err(Refusal::PolicyUsed { name: "web".into(), vms: 1 }));
    w.define_vm(with(None)).unwrap();
    remove(&mut w, "web").unwrap();
    assert_eq!(remove(&mut w, "web"), Err(Refusal::UnknownPolicy("web".into())));
}

#[test]
fn r23_policies_are_durable_and_bounded() {
    let mut w = World::with(Config { max_policies: 2, ..Config::default() });
    for name in ["a", "b"] {
        define(&mut w, &policy(name, &["deny in 10.0.0.0/8"])).unwrap();
    }
    let full = Refusal::Full { what: "policies", max: 2 };
    assert_eq!(define(&mut w, &policy("c", &[])), Err(full));
    define(&mut w, &policy("a", &["deny in"])).unwrap();
    remove(&mut w, "b").unwrap();
    let long = Policy { rules: vec![parse_rule("deny in").unwrap(); 65], ..policy("d", &[]) };
    assert!(matches!(define(&mut w, &long), Err(Refusal::Policy(_))));
    assert_eq!(w.durable.policies, w.d.state().policies);
    let restored = Directory::restore(Config::default(), w.durable.clone(), 2);
    assert_eq!(restored.policies(), [&policy("a", &["deny in"])]);
}

/// A policy whose mark alone changes is another one.
#[test]
fn r23_the_mark_of_a_policy_is_told_and_durable() {
    let mut w = World::new();
    let (a, _) = w.hello("a");
    for dscp in [Dscp::new(46), Dscp::new(0), None, Dscp::new(34)] {
        let marked = Policy { dscp, ..policy("voice", &[]) };
        let out = define(&mut w, &marked).unwrap();
        let news = NvaToNve::Policies { reset: false, policies: vec![marked.clone()], gone: vec![] };
        assert_eq!(sent(&out, a), [news]);
        let restored = Directory::restore(Config::default(), w.durable.clone(), 2);
        assert_eq!(restored.policies(), [&marked]);
    }
}
