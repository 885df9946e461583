//! Policies of ports: rules take effect together, and each port has its own (R23).

use std::collections::BTreeMap;

use crate::common::*;
use godwit_tables::holds::Origin;
use godwit_tables::update::*;
use godwit_tables::{Action, DropReason, Inbound, Tables};
use godwit_wire::policy::{Direction, MAX_RULES, Rule, Verdict};
use godwit_wire::{Dscp, Prefix, Rate};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Rule(u16, u8, Verdict, u8),
    Set(u16, u8, Verdict, Option<u8>),
    Clear(u16),
    Remove(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let port = 1u16..3;
    let verdict = || proptest::sample::select(&[Verdict::Allow, Verdict::Deny][..]);
    prop_oneof![
        5 => (port.clone(), 0u8..3, verdict(), 10u8..13).prop_map(|(p, at, v, ip)| Op::Rule(p, at, v, ip)),
        3 => (port.clone(), 0u8..4, verdict(), proptest::option::of(0u8..64))
            .prop_map(|(p, n, v, d)| Op::Set(p, n, v, d)),
        1 => port.clone().prop_map(Op::Clear),
        1 => port.prop_map(Op::Remove),
    ]
}

/// For traffic from this address.
fn rule(verdict: Verdict, ip: u8) -> Rule {
    Rule { verdict, direction: Direction::In, remote: Prefix::new(v4(ip), 32), ..Rule::ANY }
}

/// Rules, what becomes of the rest, and the mark.
type InForce = (Vec<Option<(Verdict, u8)>>, Verdict, Option<u8>);

#[derive(Clone, Default)]
struct Policy {
    staged: BTreeMap<u8, (Verdict, u8)>,
    in_force: Option<InForce>,
}

impl Policy {
    /// Whether the VM gets what comes from an address. A rule that was never staged is about what goes out.
    fn lets_in(&self, ip: u8) -> bool {
        let Some((rules, default, _)) = &self.in_force else { return true };
        let first = rules.iter().flatten().find(|r| r.1 == ip);
        first.map_or(*default, |r| r.0) == Verdict::Allow
    }
}

fn lets_in(t: &Tables, port: u16, ip: u8) -> bool {
    let f = frame(v4(ip), v4(1), 0);
    let inbound =
        Inbound { ingress: UPLINK, origin: Origin::Overlay, flight: None, routed: false, frame: &f };
    match t.decide(key(port.into()), &inbound, NOW).action {
        Action::Deliver(to) => to == PortIdx(port),
        Action::Drop { reason: DropReason::PolicyDenied, .. } => false,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn r23_rules_are_in_force_once_they_are_set(ops in proptest::collection::vec(op(), 0..60)) {
        let mut t = tables();
        let mut model = [const { Policy { staged: BTreeMap::new(), in_force: None } }; 3];
        for op in ops {
            match op {
                Op::Rule(p, at, verdict, ip) => {
                    let update = Update::PolicyRule { port: PortIdx(p), at, rule: rule(verdict, ip) };
                    prop_assert_eq!(t.apply(update, NOW), None);
                    model[usize::from(p)].staged.insert(at, (verdict, ip));
                }
                Op::Set(p, rules, default, dscp) => {
                    let (port, rate) = (PortIdx(p), Rate::UNLIMITED);
                    let mark = dscp.and_then(Dscp::new);
                    prop_assert_eq!(t.apply(Update::PolicySet { port, rules, default, rate, dscp: mark }, NOW), None);
                    let m = &mut model[usize::from(p)];
                    let all = (0..rules).map(|at| m.staged.get(&at).copied()).collect();
                    m.in_force = Some((all, default, dscp));
                }
                Op::Clear(p) => {
                    prop_assert_eq!(t.apply(Update::PolicyClear { port: PortIdx(p) }, NOW), None);
                    model[usize::from(p)] = Policy::default();
                }
                Op::Remove(p) => {
                    let port = PortIdx(p);
                    prop_assert_eq!(t.apply(Update::PortRemove { port }, NOW), None);
                    let again = access(port, VN, mac(p.into()), Admission::Activated);
                    prop_assert_eq!(t.apply(again, NOW), None);
                    model[usize::from(p)] = Policy::default();
                }
            }
            for p in 1..3 {
                let m = &model[usize::from(p)];
                prop_assert_eq!(t.ports.is_filtered(PortIdx(p)), m.in_force.is_some());
                let dscp = m.in_force.as_ref().and_then(|f| f.2).and_then(Dscp::new);
                prop_assert_eq!(t.ports.dscp(PortIdx(p)), dscp);
                for ip in 10..14 {
                    prop_assert_eq!(lets_in(&t, p, ip), m.lets_in(ip), "port {} from {}", p, ip);
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_the_old_policy_stays() {
    let mut t = tables();
    let (port, rate) = (P1, Rate::UNLIMITED);
    let deny = Update::PolicySet { port, rules: 0, default: Verdict::Deny, rate, dscp: None };
    assert_eq!(t.apply(deny, NOW), None);
    let most = MAX_RULES as u8;
    for update in [
        Update::PolicySet { port, rules: most + 1, default: Verdict::Allow, rate, dscp: None },
        Update::PolicyRule { port, at: most, rule: Rule::ANY },
        Update::PolicyRule { port: PortIdx(8), at: 0, rule: Rule::ANY },
    ] {
        let before = t.counters.worker.table_full;
        assert_eq!(t.apply(update, NOW), None);
        assert_eq!(t.counters.worker.table_full, before + 1, "{update:?}");
        assert!(!lets_in(&t, 1, 10));
    }
}
