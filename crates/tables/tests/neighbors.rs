//! Addresses against a map.

use std::collections::BTreeMap;

use crate::common::*;
use godwit_tables::Tables;
use godwit_tables::event::Event;
use godwit_tables::neighbors::{Ask, AskRefused, Neighbor};
use godwit_tables::update::*;
use godwit_wire::Instant;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Set(VnIdx, u8, u64),
    Absent(VnIdx, u8, u64),
    Remove(VnIdx, u8),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let vn = || proptest::sample::select(&[VN, OTHER_VN][..]);
    prop_oneof![
        3 => (vn(), 0u8..8, 0u64..3).prop_map(|(vn, ip, mac)| Op::Set(vn, ip, mac)),
        3 => (vn(), 0u8..8, 0u64..3000).prop_map(|(vn, ip, t)| Op::Absent(vn, ip, t)),
        2 => (vn(), 0u8..8).prop_map(|(vn, ip)| Op::Remove(vn, ip)),
        1 => (0u64..2000).prop_map(Op::Wait),
    ]
}

fn is_alive(n: &Neighbor, now: Instant) -> bool {
    !matches!(n, Neighbor::Absent { until } if *until <= now)
}

proptest! {
    #[test]
    fn r28_the_last_word_on_an_address_counts(ops in proptest::collection::vec(op(), 0..100)) {
        let (mut t, mut now, mut model) = (tables(), NOW, BTreeMap::new());
        for op in ops {
            let (vn, ip, update, told) = match op {
                Op::Set(vn, ip, n) => {
                    let (mac, router) = (mac(n), n == 0);
                    let update = Update::NeighborSet { vn, ip: v4(ip), mac, router };
                    (vn, ip, update, Some(Neighbor::Known { mac, router }))
                }
                Op::Absent(vn, ip, after) => {
                    let until = now + ms(after);
                    let update = Update::NeighborAbsent { vn, ip: v4(ip), until };
                    (vn, ip, update, Some(Neighbor::Absent { until }))
                }
                Op::Remove(vn, ip) => (vn, ip, Update::NeighborRemove { vn, ip: v4(ip) }, None),
                Op::Wait(n) => {
                    now = now + ms(n);
                    continue;
                }
            };
            match (t.apply(update, now), told) {
                // Only for what is new, and only where as many are known.
                (Some(Event::TableFull { .. }), Some(_)) => {
                    let known = model.get(&(vn, ip)).is_some_and(|n| is_alive(n, now));
                    prop_assert!(!known && t.neighbors.len() == config().neighbor_capacity);
                }
                (None, Some(n)) => drop(model.insert((vn, ip), n)),
                (None, None) => drop(model.remove(&(vn, ip))),
                other => prop_assert!(false, "{:?}", other),
            }
            for vn in [VN, OTHER_VN] {
                for ip in 0..8 {
                    let known = model.get(&(vn, ip)).filter(|n| is_alive(n, now)).copied();
                    prop_assert_eq!(t.neighbors.get(vn, v4(ip), now), known);
                }
            }
            prop_assert!(t.neighbors.len() <= config().neighbor_capacity);
        }
        // What is left of a VN goes with it.
        for vn in [VN, OTHER_VN] {
            prop_assert_eq!(t.apply(Update::VnRemove { vn }, now), None);
        }
        prop_assert!(t.neighbors.is_empty());
    }
}

fn ask(t: &Tables, port: PortIdx, target: u8) -> Ask {
    let (ip, expires) = (v4(1), t.ask_expires(NOW));
    Ask { vn: VN, target: v4(target), port, mac: mac(1), ip, only_owner: false, expires }
}

#[test]
fn r31_one_question_an_address_and_a_bound_a_port() {
    let mut t = tables_of(&godwit_tables::TablesConfig { asks_per_port: 3, ..config() });
    let first = ask(&t, P1, 50);
    assert_eq!(t.check_ask(&first, NOW), Ok(true), "the directory is asked");
    t.ask(first, true, NOW);
    assert_eq!(t.check_ask(&first, NOW), Err(AskRefused::Repeated));
    let other = Ask { port: P2, mac: mac(2), ..first };
    assert_eq!(t.check_ask(&other, NOW), Ok(false), "it has been asked");
    t.ask(other, false, NOW);
    for target in [51, 52] {
        t.ask(ask(&t, P1, target), true, NOW);
    }
    assert_eq!(t.check_ask(&ask(&t, P1, 53), NOW), Err(AskRefused::Full));
    assert_eq!((t.asks().len(), t.waiting()), (4, 4));
    // An answer makes the table worth a look at once; time does later.
    assert!(!t.asks_due(NOW));
    let update = Update::NeighborSet { vn: VN, ip: v4(50), mac: mac(5), router: false };
    assert_eq!(t.apply(update, NOW), None);
    assert!(t.asks_due(NOW));
    t.asks_seen();
    assert!(!t.asks_due(NOW) && t.asks_due(first.expires));
    let at = (0..4).find(|at| t.asks().get(*at) == Some(first)).expect("it waits");
    assert_eq!(t.take_ask(at), first);
    assert_eq!(t.check_ask(&ask(&t, P1, 53), NOW), Ok(true), "there is room again");
}
