//! The store keeps what it was told, and says so when it cannot.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use godwit_model::{
    Advertise, Allowed, Bindings, Bound, BoundIp, Dhcp, DomainId, HandoverCounts, Learning, LearningOf,
    Location, Locators, Mirror, ModeSet, MoveId, MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStep,
    MoveStepKind, Multicast, NveId, OnCold, Policy, StaticRoute, Subnet, UnderlayGroup, Unplanned, Version,
    VmKey, VmRecord, VnRouting, VnSettings, parse_rule,
};
use godwit_wire::policy::Verdict;
use godwit_wire::{Dscp, Mac, Prefix, Vni};
use proptest::prelude::*;

use super::*;
use crate::directory::{DomainRecord, NveRecord, StoredMove, VnAccess, VnRecord};

/// Waits for what a store gives.
fn wait<T>(pending: Pending<T>) -> Result<T, StoreError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(pending)
}

/// A store in `dir` with what it loaded.
fn open(dir: &Path) -> Result<(RedbStore, State, u32), StoreError> {
    let mut store = RedbStore::open(dir)?;
    let Loaded { state, epoch } = wait(store.load())?;
    Ok((store, state, epoch))
}

fn vm(n: u8, seq: u64) -> VmRecord {
    let here = n.is_multiple_of(2).then(|| Location {
        nve: NveId::new("a").unwrap(),
        locators: Locators { v4: None, v6: Some(Ipv6Addr::LOCALHOST) },
    });
    let vip = [192, 168, 0, n].into();
    let bound = [BoundIp { ip: vip, mac: Mac([2, 0, 0, 0, 1, n]), is_virtual: true }];
    let mut bindings = Bindings::from(here);
    bindings.set_pending(seq.is_multiple_of(3).then(|| Location {
        nve: NveId::new("b").unwrap(),
        locators: Locators { v4: Some(Ipv4Addr::LOCALHOST), v6: None },
    }));
    VmRecord {
        name: format!("vm{n}"),
        key: VmKey { vni: Vni::from_low24(100), mac: Mac([2, 0, 0, 0, 0, n]) },
        ipv4: vec![Ipv4Addr::new(10, 0, 0, n)],
        ipv6: vec![],
        bindings,
        version: Version { epoch: 1, seq },
        router: seq.is_multiple_of(3),
        router_pinned: false,
        allowed: Allowed {
            virtual_ips: vec![Prefix::host(vip)],
            routes: vec!["10.244.0.0/16".parse().unwrap()],
            nested: vec![Mac([2, 0, 0, 0, 1, n])],
            ..Allowed::default()
        },
        bound: Bound { ips: bound.into_iter().filter(|_| n > 1).collect(), macs: vec![] },
        no_override: if n > 1 { vec![Ipv6Addr::LOCALHOST] } else { vec![] },
        frozen: n > 2,
        policy: (n > 1).then(|| "web".into()),
        pinned: false,
        moving: seq.is_multiple_of(5).then(|| MoveId("m".into())),
        standby: seq.is_multiple_of(2).then(|| Mirror {
            nve: NveId::new("b").unwrap(),
            interval_s: 30,
            mirrored_us: seq,
        }),
    }
}

fn a_move(n: u8, number: u64) -> StoredMove {
    let step = MoveStep { at_us: number, nve: None, what: MoveStepKind::Ordered, note: "because".into() };
    let record = MoveRecord {
        id: MoveId(format!("m{n}")),
        vm: "vm1".into(),
        key: vm(1, 0).key,
        from: NveId::new("a").unwrap(),
        to: NveId::new("b").unwrap(),
        mode: MoveMode::Hot,
        origin: if number.is_multiple_of(2) { MoveOrigin::Ordered } else { MoveOrigin::Unplanned },
        phase: MovePhase::Paused,
        version: Version::ZERO,
        steps: vec![step],
        counts: vec![(NveId::new("a").unwrap(), HandoverCounts { held: number, ..Default::default() })],
    };
    StoredMove { number, record }
}

fn routing(n: u8) -> VnRouting {
    let subnet = Subnet {
        prefix: Prefix::new([10, n, 0, 0].into(), 24).unwrap(),
        gateway: [10, n, 0, 1].into(),
        advertise: Some(Advertise { managed: true, other: false, lifetime_s: 1800 }),
        dhcp: Some(Dhcp { lease_s: 3600, dns: vec![[10, n, 0, 2].into()] }),
    };
    VnRouting { domain: DomainId(n.into()), routed_only: n > 3, subnets: vec![subnet] }
}

fn domain(n: u8) -> DomainRecord {
    DomainRecord { id: DomainId(n.into()), name: format!("d{n}") }
}

fn static_route(n: u8, via: u8) -> (DomainId, StaticRoute) {
    let texts = ["10.9.0.0/16", "0.0.0.0/0", "2001:db8:9::/48", "10.9.0.7"];
    let prefix: Prefix = texts[usize::from(n) % texts.len()].parse().unwrap();
    (DomainId((n / 2).into()), StaticRoute { prefix, via: vm(via, 0).key })
}

fn vn(n: u8, mtu: u16) -> VnRecord {
    VnRecord {
        vni: Vni::from_low24(n.into()),
        name: format!("vn{n}"),
        settings: VnSettings {
            mtu,
            transparent_vlan: n > 2,
            flood_silent: n > 3,
            rarp: n > 4,
            learning: LearningOf {
                v4: (n > 1).then_some(Learning::Recorded),
                v6: Some(Learning::Learned(n + 1)),
            },
            unplanned: if n > 1 { Unplanned::Accept } else { Unplanned::Verify },
            routing: (n > 2).then(|| routing(n)),
            multicast: if n > 3 { Multicast::Snoop } else { Multicast::Flood },
            underlay_group: UnderlayGroup { v4: (n > 4).then(|| [239, 1, 1, n].into()), v6: None },
            modes: if n > 2 { ModeSet::of(&[MoveMode::Cold]) } else { ModeSet::ALL },
            on_cold: if n > 3 { OnCold::Reset } else { OnCold::Drop },
        },
    }
}

#[test]
fn a_vn_of_format_1_keeps_its_settings() {
    // Name, number, MTU 1400, tags pass, flooded, claims refused, RARP answered, 8 learned IPv4 addresses.
    let before = b"\x0a\x03vn7\x10\x07\x18\xf8\x0a\x20\x01\x38\x01\x40\x03\x48\x01\x5a\x02\x08\x08";
    let learning = LearningOf { v4: Some(Learning::Learned(8)), v6: None };
    let settings = VnSettings {
        mtu: 1400,
        transparent_vlan: true,
        flood_silent: true,
        rarp: true,
        learning,
        unplanned: Unplanned::Deny,
        ..VnSettings::default()
    };
    let expected = VnRecord { vni: Vni::from_low24(7), name: "vn7".into(), settings };
    assert_eq!(super::codec::vn_from(before).unwrap(), expected);
}

#[test]
fn an_unplanned_move_of_format_1_stays_one() {
    let stored = a_move(1, 7);
    let mut bytes = super::codec::stored_move(&stored);
    // Its last field is the origin, which format 1 did not have; the mode was 2.
    assert_eq!(stored.record.origin, MoveOrigin::Unplanned);
    let record = bytes.iter().position(|b| *b == 0x12).expect("the record") + 1;
    assert_eq!(bytes.split_off(bytes.len() - 2), [0x58, 2]);
    bytes[record] -= 2;
    let mode = bytes.windows(2).position(|w| w == [0x30, 1]).expect("the mode") + 1;
    bytes[mode] = 2;
    assert_eq!(super::codec::move_from(&bytes).unwrap(), stored);
}

fn nve(n: u8, foreign: bool) -> NveRecord {
    NveRecord {
        id: NveId::new(format!("nve{n}")).unwrap(),
        locators: Locators { v4: Some(Ipv4Addr::new(10, 1, 0, n)), v6: None },
        foreign,
        software: "godwit 0.1".into(),
        instance: 0x1234_5678_9abc_def0 + u64::from(n),
        vnis: BTreeSet::new(),
    }
}

/// The VNs of an NVE stood in its row, and have rows of their own since.
#[test]
fn an_nve_of_format_2_stays_in_its_vns_and_leaves_them() {
    let dir = tempfile::tempdir().unwrap();
    let (_, state, _) = open(dir.path()).unwrap();
    assert_eq!(state.nves.len(), 0);
    let (id, vnis) = (nve(1, false).id, BTreeSet::from([5, 7].map(Vni::from_low24)));
    let file = super::redb::File::open(dir.path()).unwrap();
    // Name, an IPv4 locator, the two VNs.
    file.set_nve("nve1", b"\x0a\x04nve1\x12\x06\x0a\x04\x0a\x01\x00\x01\x3a\x02\x05\x07");
    file.set_format(2);
    drop(file);
    for _ in 0..2 {
        let (_, state, _) = open(dir.path()).unwrap();
        assert_eq!(state.nves[&id].vnis, vnis);
    }
    let (mut store, ..) = open(dir.path()).unwrap();
    wait(store.commit(vec![Write::LeaveVn(id.clone(), Vni::from_low24(5))])).unwrap();
    drop(store);
    let (_, state, _) = open(dir.path()).unwrap();
    assert_eq!(state.nves[&id].vnis, BTreeSet::from([Vni::from_low24(7)]));
}

fn policy(n: u8, rate: u16) -> Policy {
    let rule = parse_rule("deny out tcp 10.0.0.0/8 port 1-9").unwrap();
    let (default, burst) = (if n > 1 { Verdict::Deny } else { Verdict::Allow }, 1);
    let (name, rules, dscp) = (format!("p{n}"), vec![rule; n.into()], Dscp::new(rate as u8 % 70));
    Policy { name, rules, default, rate: rate.into(), burst, dscp }
}

fn write() -> impl Strategy<Value = Write> {
    let n = 0..4u8;
    prop_oneof![
        any::<u16>().prop_map(|s| Write::Seq(s.into())),
        (n.clone(), any::<u16>()).prop_map(|(n, mtu)| Write::PutVn(vn(n, mtu))),
        (n.clone(), any::<u16>()).prop_map(|(n, rate)| Write::PutPolicy(policy(n, rate))),
        n.clone().prop_map(|n| Write::RemovePolicy(policy(n, 1).name)),
        (n.clone(), any::<[u64; 3]>()).prop_map(|(n, times)| Write::PutFlaps(vm(n, 0).key, times.to_vec())),
        n.clone().prop_map(|n| Write::RemoveFlaps(vm(n, 0).key)),
        n.clone().prop_map(|n| Write::PutDomain(domain(n))),
        n.clone().prop_map(|n| Write::RemoveDomain(domain(n).id)),
        (n.clone(), n.clone()).prop_map(|(n, via)| {
            let (id, route) = static_route(n, via);
            Write::PutRoute(id, route)
        }),
        n.clone().prop_map(|n| {
            let (id, route) = static_route(n, 0);
            Write::RemoveRoute(id, route.prefix)
        }),
        n.clone().prop_map(|n| Write::RemoveVn(vn(n, 0).vni)),
        (n.clone(), any::<u64>()).prop_map(|(n, s)| Write::PutVm(vm(n, s))),
        n.clone().prop_map(|n| Write::RemoveVm(vm(n, 0).key)),
        (n.clone(), any::<bool>()).prop_map(|(n, f)| Write::PutNve(nve(n, f))),
        n.clone().prop_map(|n| Write::RemoveNve(nve(n, false).id)),
        (n.clone(), n.clone()).prop_map(|(n, v)| Write::JoinVn(nve(n, false).id, vn(v, 0).vni)),
        (n.clone(), n.clone()).prop_map(|(n, v)| Write::LeaveVn(nve(n, false).id, vn(v, 0).vni)),
        (n.clone(), any::<bool>(), proptest::collection::btree_set(1u32..9, 0..4)).prop_map(
            |(n, only, vnis)| {
                let vnis = vnis.into_iter().map(Vni::from_low24).collect();
                let access = if only { VnAccess::Only(vnis) } else { VnAccess::AllBut(vnis) };
                Write::PutAccess(nve(n, false).id, access)
            }
        ),
        n.clone().prop_map(|n| Write::RemoveAccess(nve(n, false).id)),
        (n.clone(), any::<u64>()).prop_map(|(n, number)| Write::PutMove(a_move(n, number))),
        n.prop_map(|n| Write::RemoveMove(a_move(n, 0).record.id)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_committed_is_there_after_reopening(
        batches in proptest::collection::vec(proptest::collection::vec(write(), 0..12), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = MemoryStore::default();
        for (starts, batch) in batches.iter().enumerate() {
            let (mut store, state, epoch) = open(dir.path()).unwrap();
            prop_assert_eq!(&State { epoch: 0, ..state }, &model.state);
            prop_assert_eq!(epoch as usize, starts + 1, "each start has its epoch");
            // The directory never gives a lower number than before.
            let mut last = model.state.seq;
            let mut rises = |w: &Write| match w {
                Write::Seq(n) if *n < last => false,
                Write::Seq(n) => { last = *n; true }
                _ => true,
            };
            let batch: Vec<Write> = batch.clone().into_iter().filter(&mut rises).collect();
            wait(store.commit(batch.clone())).unwrap();
            wait(model.commit(batch)).unwrap();
        }
    }
}

#[test]
fn a_second_process_is_told_that_the_file_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    let e = open(dir.path()).err().unwrap();
    assert!(matches!(e, StoreError::InUse { .. }), "{e}");
    assert!(e.to_string().contains("another godwit-nva"), "{e}");
}

#[test]
fn a_file_that_is_no_store_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), vec![0x5a; 9000]).unwrap();
    let e = open(dir.path()).err().unwrap();
    assert!(matches!(e, StoreError::Damaged { .. }), "{e}");
    let text = e.to_string();
    assert!(text.contains(FILE) && text.contains("backup"), "{text}");
}

/// Damage gives an error or, where it hit unused bytes, the right state; it never gives a panic, and
/// never silently another state.
#[test]
fn damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path()).unwrap();
    let writes: Vec<Write> = (0..50).map(|n| Write::PutVm(vm(n, 4))).collect();
    wait(store.commit(writes.clone())).unwrap();
    drop(store);
    let good = fs::read(dir.path().join(FILE)).unwrap();
    let expected: State = {
        let mut m = MemoryStore::default();
        wait(m.commit(writes)).unwrap();
        m.state
    };
    for cut in [1, 100, 4096, good.len() / 2, good.len() - 1] {
        fs::write(dir.path().join(FILE), &good[..cut]).unwrap();
        same_or_error(dir.path(), &expected);
    }
    for at in (0..good.len()).step_by(good.len() / 97) {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(dir.path().join(FILE), &bad).unwrap();
        same_or_error(dir.path(), &expected);
    }
}

fn same_or_error(dir: &Path, expected: &State) {
    if let Ok((_, state, _)) = open(dir) {
        assert_eq!(&state.vms, &expected.vms);
    }
}

#[test]
fn a_newer_format_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let file = super::redb::File::open(dir.path()).unwrap();
    file.set_format(super::redb::FORMAT + 1);
    drop(file);
    let e = open(dir.path()).err().unwrap();
    assert!(matches!(e, StoreError::Newer { .. }), "{e}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let e = open(&file).err().unwrap();
    assert!(matches!(e, StoreError::Directory { .. }), "{e}");
}

#[test]
fn a_store_that_is_let_go_of_has_written_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, ..) = open(dir.path()).unwrap();
    let commit = store.commit(vec![Write::PutVm(vm(1, 1))]);
    // Nobody waits for the answer.
    drop((store, commit));
    let (_, state, _) = open(dir.path()).unwrap();
    assert_eq!(state.vms.len(), 1);
}

#[test]
fn r73_each_load_of_a_store_in_memory_is_an_incarnation() {
    let mut store = MemoryStore::default();
    for epoch in 1..4 {
        let loaded = wait(store.load()).unwrap();
        assert_eq!((loaded.state.epoch, loaded.epoch), (epoch - 1, epoch));
    }
}
