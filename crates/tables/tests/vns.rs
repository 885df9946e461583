//! VNs and replication lists against maps.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::*;
use godwit_tables::Tables;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_wire::Mac;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Set(u16, u32),
    Remove(u16),
    Add(u16, u32),
    Take(u16, u32),
}

fn op() -> impl Strategy<Value = Op> {
    let (vn, tunnel) = (0u16..5, 0u32..6);
    prop_oneof![
        2 => (vn.clone(), 10u32..14).prop_map(|(vn, vni)| Op::Set(vn, vni)),
        1 => vn.clone().prop_map(Op::Remove),
        4 => (vn.clone(), tunnel.clone()).prop_map(|(vn, t)| Op::Add(vn, t)),
        2 => (vn, tunnel).prop_map(|(vn, t)| Op::Take(vn, t)),
    ]
}

#[derive(Default)]
struct Vn {
    vni: u32,
    replicas: BTreeSet<u32>,
    missing: bool,
}

proptest! {
    #[test]
    fn r60_vnis_and_replicas_are_what_was_said(ops in proptest::collection::vec(op(), 0..80)) {
        let (most, limit) = (config().vn_capacity as u16, config().replica_limit);
        let mut t = Tables::new(&config());
        let (mut vns, mut by_vni) = (BTreeMap::<u16, Vn>::new(), BTreeMap::<u32, u16>::new());
        for op in ops {
            let generation = t.vns.generation();
            match op {
                Op::Set(n, id) => {
                    let event = t.apply(vn_set(VnIdx(n), id), NOW);
                    prop_assert_eq!(event, None);
                    prop_assert!(t.vns.generation() != generation);
                    if n >= most {
                        continue;
                    }
                    let old = vns.entry(n).or_default();
                    if by_vni.get(&old.vni) == Some(&n) {
                        by_vni.remove(&old.vni);
                    }
                    old.vni = id;
                    by_vni.insert(id, n);
                }
                Op::Remove(n) => {
                    prop_assert_eq!(t.apply(Update::VnRemove { vn: VnIdx(n) }, NOW), None);
                    if let Some(old) = vns.remove(&n)
                        && by_vni.get(&old.vni) == Some(&n)
                    {
                        by_vni.remove(&old.vni);
                    }
                }
                Op::Add(n, tunnel) => {
                    let update = Update::ReplicaAdd { vn: VnIdx(n), tunnel: TunnelIdx(tunnel) };
                    let refused = match vns.get_mut(&n) {
                        None => true,
                        Some(v) if v.replicas.contains(&tunnel) => false,
                        Some(v) if v.replicas.len() == limit => {
                            v.missing = true;
                            true
                        }
                        Some(v) => !v.replicas.insert(tunnel),
                    };
                    let full = Event::TableFull { key: Key::new(VnIdx(n), Mac::BROADCAST) };
                    prop_assert_eq!(t.apply(update, NOW), refused.then_some(full));
                }
                Op::Take(n, tunnel) => {
                    let update = Update::ReplicaRemove { vn: VnIdx(n), tunnel: TunnelIdx(tunnel) };
                    prop_assert_eq!(t.apply(update, NOW), None);
                    if let Some(v) = vns.get_mut(&n)
                        && v.replicas.remove(&tunnel)
                    {
                        v.missing = false;
                    }
                }
            }
            for n in 0..5 {
                let vn = VnIdx(n);
                let replicas: Vec<u32> = t.vns.replicas(vn).map(|r| r.0).collect();
                let model = vns.get(&n);
                prop_assert_eq!(t.vns.get(vn).map(|v| v.vni), model.map(|v| vni(v.vni)));
                prop_assert_eq!(t.vns.get(vn).map(|v| v.replicas_missing), model.map(|v| v.missing));
                prop_assert_eq!(replicas.len(), model.map_or(0, |v| v.replicas.len()), "none twice");
                prop_assert!(replicas.iter().all(|r| model.is_some_and(|v| v.replicas.contains(r))));
            }
            for id in 10..14 {
                prop_assert_eq!(t.vns.by_vni(vni(id)).map(|vn| vn.0), by_vni.get(&id).copied());
            }
        }
    }
}

#[test]
fn r31_silent_hosts_are_asked_at_most_so_often() {
    let mut t = tables();
    assert!(!t.vns.may_flood_silent(VN, NOW), "nothing is flooded unless the VN says so");
    assert_eq!(t.apply(Update::VnSilent { vn: VN, flood_gap: Some(ms(100)) }, NOW), None);
    assert!(t.vns.may_flood_silent(VN, NOW));
    assert!(!t.vns.may_flood_silent(VN, NOW + ms(99)));
    assert!(t.vns.may_flood_silent(VN, NOW + ms(100)));
    assert!(!t.vns.may_flood_silent(OTHER_VN, NOW + ms(200)));
    assert_eq!(t.apply(Update::VnSilent { vn: VN, flood_gap: None }, NOW), None);
    assert!(!t.vns.may_flood_silent(VN, NOW + ms(1000)));
}

/// A VN that gets the number next inherits nothing.
#[test]
fn r13_a_removed_vn_leaves_nothing_behind() {
    let mut t = tables();
    let state = VmState::Paused { hold: limits(3) };
    for update in [
        Update::VmSet { key: key(9), state },
        Update::NeighborSet { vn: VN, ip: v4(1), mac: mac(1), router: false },
        Update::ReplicaAdd { vn: VN, tunnel: READY },
    ] {
        assert_eq!(t.apply(update, NOW), None);
    }
    t.begin_query(key(10), P1, NOW).expect("room");
    assert_eq!(t.apply(Update::VnRemove { vn: VN }, NOW), None);
    assert_eq!(t.apply(vn_set(VN, 3), NOW), None);
    assert_eq!((t.vms.len(), t.vms.specials(), t.vms.querying(), t.neighbors.len()), (0, 0, 0, 0));
    assert_eq!(t.vns.replicas(VN).count(), 0);
    assert_eq!((t.vns.by_vni(vni(1)), t.vns.by_vni(vni(3))), (None, Some(VN)));
}
