//! Random bindings and definitions against a naive account of who may have what.

use std::collections::BTreeMap;

use godwit_model::{Allowed, BindRefusal, Learning, LearningOf, MAX_BOUND};
use godwit_wire::Prefix;
use proptest::prelude::*;

use super::bind::answer;
use super::*;

const NVES: [&str; 3] = ["a", "b", "c"];

/// Few addresses, so that they meet: 192.168.0.1 to 3 are recorded, the rest is bound.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1..12u8).prop_map(ip),
        (1..6u16).prop_map(|n| IpAddr::V6([0xfe80, 0, 0, 0, 0, 0, 0, n].into())),
        (1..6u16).prop_map(|n| IpAddr::V6([0x2001, 0xdb8, 0, 0, 0, 0, 0, n].into())),
    ]
}

/// The VMs' own MACs, and some that they nest or share.
fn mac() -> impl Strategy<Value = Mac> {
    (1..9u8).prop_map(|n| key(n).mac)
}

#[derive(Clone, Debug)]
enum Op {
    Claim(usize, u8),
    Withdraw(usize, u8),
    Bind { nve: usize, vm: u8, mac: Option<Mac>, ip: Option<IpAddr>, announced: bool, age_ms: u32 },
    Unbind(usize, u8, IpAddr),
    Set(u8, Box<Allowed>),
    Record(u8, u8),
    Learning(Option<Learning>),
    Move(u8, usize),
    Pass(u64),
    Crash,
}

fn allowed() -> impl Strategy<Value = Allowed> {
    let learning = prop::option::of(
        (0..4u8).prop_map(|n| if n == 0 { Learning::Recorded } else { Learning::Learned(n) }),
    );
    let ips = || prop::collection::vec(address().prop_map(Prefix::host), 0..3);
    let macs = || prop::collection::vec((4..9u8).prop_map(|n| key(n).mac), 0..3);
    (learning.clone(), learning, ips(), macs(), ips(), macs()).prop_map(
        |(v4, v6, virtual_ips, virtual_macs, routes, nested)| Allowed {
            learning: LearningOf { v4, v6 },
            virtual_ips,
            virtual_macs,
            routes,
            nested,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let (nve, vm) = (0..NVES.len(), 1..4u8);
    let bind = (
        nve.clone(),
        vm.clone(),
        prop::option::of(mac()),
        prop::option::of(address()),
        any::<bool>(),
        0..300u32,
    );
    let learning = prop::option::of((1..4u8).prop_map(Learning::Learned));
    prop_oneof![
        6 => (nve.clone(), vm.clone()).prop_map(|(n, v)| Op::Claim(n, v)),
        1 => (nve.clone(), vm.clone()).prop_map(|(n, v)| Op::Withdraw(n, v)),
        24 => bind.prop_map(|(nve, vm, mac, ip, announced, age_ms)| Op::Bind { nve, vm, mac, ip, announced, age_ms }),
        2 => (nve.clone(), vm.clone(), address()).prop_map(|(n, v, ip)| Op::Unbind(n, v, ip)),
        4 => (vm.clone(), allowed()).prop_map(|(v, a)| Op::Set(v, Box::new(a))),
        1 => (vm.clone(), 1..12u8).prop_map(|(v, n)| Op::Record(v, n)),
        1 => learning.prop_map(Op::Learning),
        2 => (vm, nve).prop_map(|(v, n)| Op::Move(v, n)),
        4 => (1..30u64).prop_map(|n| Op::Pass(n * 10)),
        1 => Just(Op::Crash),
    ]
}

/// What a naive reader of the requirement says: each address and each MAC leads to one VM; each VM has no more than it
/// may, and nothing that is another's by the operator's word.
fn check(w: &World, newest: &mut BTreeMap<VmKey, VmRecord>) {
    let all: Vec<&VmRecord> = (1..4).map(|n| w.vm(n)).collect();
    let vn = w.d.learning_of(vni(100));
    let mut by_ip: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut by_mac: BTreeMap<Mac, &str> = BTreeMap::new();
    for r in &all {
        for (ip, mac) in r.addresses() {
            assert_eq!(by_ip.insert(ip, &r.name), None, "{ip} is of two");
            assert!(r.macs().any(|m| m == mac), "{ip} of {} answers by {mac}", r.name);
            assert_eq!(w.d.records.key_of_ip(vni(100), ip), Some(r.key));
        }
        for mac in r.macs() {
            assert_eq!(by_mac.insert(mac, &r.name), None, "{mac} is of two");
        }
        for b in &r.bound.ips {
            assert_eq!(b.is_virtual, r.allowed.shares_ip(b.ip), "{} of {}", b.ip, r.name);
            let others = all.iter().filter(|o| o.key != r.key);
            for o in others {
                assert!(!o.ips().any(|ip| ip == b.ip) && !o.allowed.routes_ip(b.ip));
                assert!(b.is_virtual || !o.allowed.shares_ip(b.ip), "{} is virtual elsewhere", b.ip);
            }
            let local = |ip: IpAddr| matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
            let alike = r.bound.ips.iter().filter(|o| {
                !o.is_virtual
                    && o.mac == b.mac
                    && o.ip.is_ipv4() == b.ip.is_ipv4()
                    && local(o.ip) == local(b.ip)
            });
            let room = usize::from(r.learning(vn, b.mac, b.ip).room());
            assert!(b.is_virtual || alike.count() <= room, "{} learned too many", r.name);
        }
        assert!(r.bound.macs.iter().all(|m| r.allowed.shares_mac(*m)));
        assert!(r.bound.ips.is_sorted() && r.bound.macs.is_sorted() && r.bound.ips.len() <= MAX_BOUND);
        // A change is a new version, and versions rise.
        match newest.get(&r.key) {
            Some(old) if old.version == r.version => {
                assert_eq!((&old.bound, &old.allowed, &old.ipv4), (&r.bound, &r.allowed, &r.ipv4));
            }
            Some(old) => assert!(r.version > old.version),
            None => {}
        }
        newest.insert(r.key, (*r).clone());
    }
    let bound: usize = all.iter().map(|r| r.addresses().count()).sum();
    let more: usize = all.iter().map(|r| r.macs().count() - 1).sum();
    let (_, ips, macs) = w.d.records.index_sizes();
    assert_eq!((ips, macs), (bound, more), "indexes have no more");
    assert_eq!(w.d.state().vms, w.durable.vms, "what a crash would leave");
}

/// Of what a Bind may come to, what holds whatever came before.
fn check_answer(before: &[VmRecord], w: &World, op: &Op, answer: &Result<VmRecord, (BindRefusal, String)>) {
    let Op::Bind { vm, mac, ip, announced, .. } = op else { return };
    let mac = mac.unwrap_or(key(*vm).mac);
    let old = |n: usize| &before[n - 1];
    let others = || before.iter().filter(|r| r.key != key(*vm));
    match answer {
        Ok(r) => {
            assert_eq!(r, w.vm(*vm));
            assert!(r.macs().any(|m| m == mac), "it has the MAC");
            let Some(ip) = ip else { return };
            assert!(r.mac_of(*ip).is_some(), "it has the address");
            let had = others().find(|o| o.mac_of(*ip).is_some());
            if let Some(o) = had.filter(|o| o.is_active()) {
                // From somebody who runs, only what is virtual, by an announcement or with its MAC.
                let with_mac = o.bound.macs.contains(&mac) && o.mac_of(*ip) == Some(mac);
                assert!(r.allowed.shares_ip(*ip) && (*announced || with_mac), "{ip} taken from {}", o.name);
            }
        }
        Err((_, text)) => {
            assert!(text.len() > 10);
            let now: Vec<&VmRecord> = (1..4).map(|n| w.vm(n)).collect();
            assert!(now.iter().enumerate().all(|(i, r)| *r == old(i + 1)), "a refusal changes nothing");
        }
    }
}

fn run(w: &mut World, sessions: &mut Vec<SessionId>, op: &Op) {
    let vm = |v: u8, ipv4: Vec<Ipv4Addr>, allowed: Allowed| VmDefinition { allowed, ipv4, ..definition(v) };
    match op {
        Op::Claim(n, v) => {
            let r = w.vm(*v);
            let (base, ips) = (r.version, r.ips().collect());
            let NveToNva::Claim { seq, key, cause, port, router, overrides, .. } = claim(*v, base) else {
                return;
            };
            w.say(sessions[*n], NveToNva::Claim { seq, key, ips, cause, base, port, router, overrides });
        }
        Op::Withdraw(n, v) => {
            let version = w.vm(*v).version;
            w.say(sessions[*n], NveToNva::Withdraw { key: key(*v), version });
        }
        Op::Bind { nve, vm, mac, ip, announced, age_ms } => {
            let before: Vec<VmRecord> = (1..4).map(|n| w.vm(n).clone()).collect();
            let mac = mac.unwrap_or(key(*vm).mac);
            let (announced, age_ms) = (*announced, *age_ms);
            let said = NveToNva::Bind { seq: 1, key: key(*vm), mac, ip: *ip, announced, age_ms };
            let out = w.say(sessions[*nve], said);
            check_answer(&before, w, op, &answer(&out, sessions[*nve]));
        }
        Op::Unbind(n, v, ip) => {
            w.say(sessions[*n], NveToNva::Unbind { key: key(*v), ip: *ip });
        }
        Op::Set(v, allowed) => {
            let def = vm(*v, w.vm(*v).ipv4.clone(), (**allowed).clone());
            let _ = w.define_vm(def);
        }
        Op::Record(v, n) => {
            let def = vm(*v, vec![Ipv4Addr::new(192, 168, 0, *n)], w.vm(*v).allowed.clone());
            let _ = w.define_vm(def);
        }
        Op::Learning(to) => {
            let to = VnChanges { learning_v4: Some(*to), ..VnChanges::default() };
            w.set_vn("red", to).unwrap();
        }
        Op::Move(v, n) => {
            let _ = w.start(*v, NVES[*n], "");
        }
        Op::Pass(ms) => {
            for s in sessions {
                w.say(*s, NveToNva::Keepalive);
            }
            w.pass(*ms);
        }
        Op::Crash => {
            w.restart();
            *sessions = NVES.iter().map(|n| w.join(n)).collect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r92_r93_r94_an_address_is_of_one_vm_and_bounds_hold(ops in prop::collection::vec(op(), 1..120)) {
        let mut w = World::new();
        let mut sessions: Vec<SessionId> = NVES.iter().map(|n| w.join(n)).collect();
        let mut newest = BTreeMap::new();
        for op in &ops {
            run(&mut w, &mut sessions, op);
            check(&w, &mut newest);
        }
    }
}
