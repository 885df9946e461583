//! Ports against a map.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::*;
use godwit_tables::Tables;
use godwit_tables::update::*;
use godwit_wire::Rate;
use godwit_wire::policy::Verdict;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Access(u16, u16, u64, Admission),
    Uplink(u16),
    Remove(u16),
    Policy(u16, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let port = 0u16..9;
    let admission =
        proptest::sample::select(&[Admission::Closed, Admission::Associated, Admission::Activated][..]);
    prop_oneof![
        5 => (port.clone(), 0u16..5, 0u64..3, admission).prop_map(|(p, vn, m, a)| Op::Access(p, vn, m, a)),
        1 => port.clone().prop_map(Op::Uplink),
        2 => port.clone().prop_map(Op::Remove),
        2 => (port, any::<bool>()).prop_map(|(p, set)| Op::Policy(p, set)),
    ]
}

fn uplink() -> PortRole {
    PortRole::Uplink {
        mac: mac(0xaa),
        v4: None,
        v6: None,
        link_v4: None,
        link_v6: None,
        v6_link_local: None,
        exception: None,
        vlan: None,
    }
}

proptest! {
    #[test]
    fn ports_are_what_was_said_and_each_vn_has_its_own(ops in proptest::collection::vec(op(), 0..80)) {
        let (ports, vns) = (config().port_capacity as u16, config().vn_capacity as u16);
        let mut t = Tables::new(&config());
        let (mut roles, mut policed) = (BTreeMap::<u16, PortRole>::new(), BTreeSet::<u16>::new());
        for op in ops {
            let before = t.counters.worker.table_full;
            let (port, update, fits) = match op {
                Op::Access(p, vn, m, a) => (p, access(PortIdx(p), VnIdx(vn), mac(m), a), p < ports && vn < vns),
                Op::Uplink(p) => (p, Update::PortSet { port: PortIdx(p), role: uplink() }, p < ports),
                Op::Remove(p) => (p, Update::PortRemove { port: PortIdx(p) }, p < ports),
                Op::Policy(p, true) => {
                    let (default, rate) = (Verdict::Allow, Rate::UNLIMITED);
                    (p, Update::PolicySet { port: PortIdx(p), rules: 0, default, rate, dscp: None }, p < ports)
                }
                Op::Policy(p, false) => (p, Update::PolicyClear { port: PortIdx(p) }, true),
            };
            prop_assert_eq!(t.apply(update, NOW), None);
            prop_assert_eq!(t.counters.worker.table_full - before, u64::from(!fits), "{:?}", update);
            match (update, fits) {
                (Update::PortSet { role, .. }, true) => drop(roles.insert(port, role)),
                (Update::PortRemove { .. }, true) => {
                    roles.remove(&port);
                    policed.remove(&port);
                }
                (Update::PolicySet { .. }, true) => drop(policed.insert(port)),
                (Update::PolicyClear { .. }, _) => drop(policed.remove(&port)),
                _ => {}
            }
            for vn in 0..vns {
                let open = |r: &PortRole| match *r {
                    PortRole::Access { vn: v, admission, .. } => v.0 == vn && admission == Admission::Activated,
                    _ => false,
                };
                let expected: Vec<u16> = roles.iter().filter(|(_, r)| open(r)).map(|(p, _)| *p).collect();
                let mut activated: Vec<u16> = t.ports.activated(VnIdx(vn)).map(|p| p.0).collect();
                activated.sort_unstable();
                prop_assert_eq!(activated, expected);
            }
            for p in 0..9 {
                let (port, role) = (PortIdx(p), roles.get(&p));
                prop_assert_eq!(t.ports.role(port), role);
                prop_assert_eq!(t.ports.is_filtered(port), policed.contains(&p));
                for vn in 0..5 {
                    let leads = matches!(role, Some(PortRole::Access { vn: v, .. }) if v.0 == vn);
                    prop_assert_eq!(t.ports.leads_to(port, VnIdx(vn)), leads);
                    let plain = leads && !policed.contains(&p);
                    prop_assert_eq!(t.ports.serves(port, VnIdx(vn)), plain, "R23: a policy is asked first");
                }
            }
            for (vn, m) in (0..vns).flat_map(|vn| (0..3).map(move |m| (vn, m))) {
                let key = Key::new(VnIdx(vn), mac(m));
                let its = |r: &PortRole| matches!(*r, PortRole::Access { vn, mac, .. } if Key::new(vn, mac) == key);
                let expected: Vec<u16> = roles.iter().filter(|(_, r)| its(r)).map(|(p, _)| *p).collect();
                let mut found = Vec::new();
                while let Some(p) = t.ports.next_of_vm(key, found.last().map_or(0, |p| p + 1)) {
                    found.push(p.0);
                }
                prop_assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn r67_what_a_port_may_raise_is_bounded_in_time() {
    let mut t = tables();
    let ports = &mut t.ports;
    // A burst of 16 announcements, then one every 5 ms; a first frame every 5 ms; a spoofed one and one for an
    // address that another VM has, each once a second; 100 ICMP errors a second.
    assert_eq!((0..20).filter(|_| ports.may_announce(P1, NOW)).count(), 16);
    assert!(ports.may_announce(P1, NOW + ms(5)) && !ports.may_announce(P1, NOW + ms(5)));
    assert!(ports.may_announce(P2, NOW), "each port has its own");
    assert!(ports.may_report_first_frame(P1, NOW) && !ports.may_report_first_frame(P1, NOW + ms(4)));
    assert!(ports.may_report_first_frame(P1, NOW + ms(5)));
    assert!(ports.may_report_spoof(P1, NOW) && !ports.may_report_spoof(P1, NOW + ms(999)));
    assert!(ports.may_report_taken(P1, NOW), "the two do not silence each other");
    assert!(ports.may_report_spoof(P1, NOW + ms(1000)));
    assert_eq!((0..200).filter(|_| ports.may_send_error(P1, NOW)).count(), 100);
    assert!(ports.may_send_error(P1, NOW + ms(1000)));
}
