//! What operators allow VMs beside their recorded addresses (R92 to R94), and what is refused.

use godwit_model::message::QueryBy;
use godwit_model::{Allowed, BindRefusal, BoundIp, Learning, LearningOf, MAX_MACS, MAX_PREFIXES};
use godwit_wire::Prefix;

use super::bind::{allow, answer, virtual_ip, wish};
use super::*;

fn define(w: &mut World, def: VmDefinition) -> Result<VmRecord, Refusal> {
    w.define_vm(def).map(|(r, _)| r)
}

fn set(w: &mut World, n: u8, to: VmChanges) -> Result<(VmRecord, Vec<Output>), Refusal> {
    let name = format!("vm{n}");
    w.set_vm(&name, to)
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn routes(text: &str) -> Allowed {
    Allowed { routes: vec![prefix(text)], ..Allowed::default() }
}

fn nested(n: u8) -> Allowed {
    Allowed { nested: vec![key(n).mac], ..Allowed::default() }
}

fn with(n: u8, allowed: Allowed) -> VmDefinition {
    VmDefinition { allowed, ..definition(n) }
}

fn add<T>(x: T) -> ListChange<T> {
    ListChange { remove: vec![], add: vec![x] }
}

fn remove<T>(x: T) -> ListChange<T> {
    ListChange { remove: vec![x], add: vec![] }
}

const POD: Mac = Mac([2, 0, 0, 0, 1, 1]);

#[test]
fn r94_what_overlaps_another_vm_is_refused_naming_both_and_the_remedy() {
    let mut w = World::new();
    allow(
        &mut w,
        1,
        Allowed { routes: vec![prefix("10.1.0.0/16")], nested: vec![POD], ..virtual_ip(ip(200)) },
    );
    let pods = Allowed { nested: vec![POD], ..Allowed::default() };
    let shares = |mac| Allowed { virtual_macs: vec![mac], ..Allowed::default() };
    let at = |a: [u8; 4]| VmDefinition { ipv4: vec![a.into()], ..definition(9) };
    let cases = [
        (with(2, nested(1)), "nested MAC 02:00:00:00:00:01 of VM \"vm2\"", "vm delete vm1"),
        (
            with(2, pods),
            "nested MAC 02:00:00:00:01:01 of VM \"vm2\"",
            "vm set vm1 --no-nested 02:00:00:00:01:01",
        ),
        (with(2, shares(POD)), "virtual MAC 02:00:00:00:01:01", "vm set vm1 --no-nested 02:00:00:00:01:01"),
        (with(2, shares(key(1).mac)), "its own MAC of VM \"vm1\"", "vm delete vm1"),
        (
            VmDefinition { mac: POD, ..definition(9) },
            "its nested MAC of VM \"vm1\"",
            "vm set vm1 --no-nested",
        ),
        (with(2, routes("10.1.2.0/24")), "route 10.1.2.0/24", "vm set vm1 --no-route 10.1.0.0/16"),
        (with(2, routes("192.168.0.200")), "the virtual prefix 192.168.0.200", "vm set vm1 --no-virtual"),
        (
            with(2, routes("192.168.0.0/30")),
            "the address 192.168.0.1 of VM \"vm1\"",
            "vm set vm1 --no-ipv4 192.168.0.1",
        ),
        (
            with(2, virtual_ip(ip(3))),
            "the address 192.168.0.3 of VM \"vm3\"",
            "vm set vm3 --no-ipv4 192.168.0.3",
        ),
        (with(2, virtual_ip([10, 1, 0, 9].into())), "the route 10.1.0.0/16", "vm set vm1 --no-route"),
        (at([10, 1, 0, 9]), "address 10.1.0.9 of VM \"vm9\"", "vm set vm1 --no-route 10.1.0.0/16"),
        (at([192, 168, 0, 200]), "address 192.168.0.200", "vm set vm1 --no-virtual 192.168.0.200"),
        (with(2, nested(2)), "nested MAC 02:00:00:00:00:02", "each MAC once"),
    ];
    let before = w.durable.clone();
    for (def, both, remedy) in cases {
        let refused = define(&mut w, def).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, Refusal::Overlap { .. }), "{text}");
        assert!(text.contains(both) && text.contains(remedy), "{text}");
    }
    assert_eq!(w.durable, before, "a refusal changes nothing");
    // What is shared is shared.
    allow(&mut w, 2, virtual_ip(ip(200)));
    allow(&mut w, 3, Allowed { virtual_ips: vec![prefix("192.168.0.200/29")], ..Allowed::default() });
}

#[test]
fn r92_r94_what_is_of_no_use_is_refused() {
    let mut w = World::new();
    let multicast = Allowed { nested: vec![Mac([1, 0, 0x5e, 0, 0, 1])], ..Allowed::default() };
    let prober = Allowed { virtual_macs: vec![Mac::PROBER], ..Allowed::default() };
    for bad in [multicast, prober] {
        assert!(matches!(define(&mut w, with(1, bad)), Err(Refusal::BadMac { .. })));
    }
    for bad in
        ["0.0.0.0/0", "::/0", "224.0.0.0/4", "ff00::/8", "fe80::/64", "fc00::/6", "127.0.0.1", "0.0.0.0"]
    {
        let virtuals = Allowed { virtual_ips: vec![prefix(bad)], ..Allowed::default() };
        for allowed in [virtuals, routes(bad)] {
            let refused = define(&mut w, with(1, allowed)).unwrap_err();
            assert!(matches!(refused, Refusal::BadPrefix { .. }), "{bad}: {refused}");
        }
    }
    allow(&mut w, 1, virtual_ip("fe80::1".parse().unwrap())); // As VRRP for IPv6 needs it.
    let many =
        |n: usize| (0..n).map(|n| Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 + n as u32).into())).collect();
    let macs = |n: usize| (0..n).map(|n| Mac([2, 0, 0, 0, 9, n as u8])).collect();
    let full = Allowed {
        virtual_ips: many(MAX_PREFIXES),
        virtual_macs: vec![],
        routes: vec![],
        nested: macs(MAX_MACS),
        learning: LearningOf::default(),
    };
    allow(&mut w, 1, full.clone());
    for more in [
        Allowed { virtual_ips: many(MAX_PREFIXES + 1), ..Allowed::default() },
        Allowed { nested: macs(MAX_MACS + 1), ..Allowed::default() },
        Allowed { virtual_macs: macs(MAX_MACS + 1), ..Allowed::default() },
    ] {
        assert!(matches!(define(&mut w, with(1, more)), Err(Refusal::TooMany { .. })));
    }
    let one_more = VmChanges { nested: add(POD), ..VmChanges::default() };
    assert!(matches!(set(&mut w, 1, one_more), Err(Refusal::TooMany { .. })));
    assert_eq!(w.vm(1).allowed, full);
}

#[test]
fn r92_set_changes_what_is_named_and_define_all() {
    let mut w = World::new();
    let a = w.join("a");
    let first = w.take(a, 1);
    let (record, out) = set(&mut w, 1, VmChanges { nested: add(POD), ..VmChanges::default() }).unwrap();
    assert!(record.version > first.version && owner(&record) == Some("a"), "while it runs");
    assert_eq!(updated(&out, a), std::slice::from_ref(&record));
    let more = VmChanges {
        router: Some(true),
        routes: add(prefix("10.1.0.0/16")),
        ipv4: add([192, 168, 0, 77].into()),
        learning_v6: Some(Some(Learning::Recorded)),
        ..VmChanges::default()
    };
    let (record, _) = set(&mut w, 1, more.clone()).unwrap();
    let expected = Allowed {
        learning: LearningOf { v4: None, v6: Some(Learning::Recorded) },
        nested: vec![POD],
        ..routes("10.1.0.0/16")
    };
    assert_eq!(record.allowed, expected);
    assert!(record.router_pinned && record.ips().eq([ip(1), ip(77)]));
    let (again, out) = set(&mut w, 1, more).unwrap();
    assert!(again == record && updated(&out, a).is_empty(), "the same again is no news");
    let (again, _) = set(&mut w, 1, VmChanges::default()).unwrap();
    assert_eq!(again, record);
    let (record, _) = set(&mut w, 1, VmChanges { nested: remove(POD), ..VmChanges::default() }).unwrap();
    assert!(record.allowed.nested.is_empty() && record.allowed.routes.len() == 1);
    // A definition says it all.
    let record = define(&mut w, definition(1)).unwrap();
    assert!(record.allowed.is_empty() && !record.router_pinned && record.ips().eq([ip(1)]));
    assert_eq!(set(&mut w, 9, VmChanges::default()).err(), Some(Refusal::UnknownVm("vm9".into())));
    w.join("b");
    w.start(1, "b", "m").unwrap();
    let refused = set(&mut w, 1, VmChanges { nested: add(POD), ..VmChanges::default() });
    assert!(matches!(refused, Err(Refusal::VmMoving { .. })));
}

#[test]
fn r94_a_nested_mac_leads_to_the_vm_around_it() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    allow(&mut w, 1, Allowed { nested: vec![POD], ..Allowed::default() });
    w.take(a, 1);
    let ask = |w: &mut World| {
        let out = w.say(c, NveToNva::Query { seq: 3, vni: vni(100), by: QueryBy::Mac(POD) });
        sent(&out, c).into_iter().find_map(|m| match m {
            NvaToNve::Response { record, .. } => Some(record.map(|r| r.key)),
            _ => None,
        })
    };
    assert_eq!(ask(&mut w), Some(Some(key(1))));
    // Who was told that nobody has a MAC hears of the VM that gets it (R36).
    let (d, _) = w.hello("d");
    w.say(d, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Pull, lingers: false });
    let other = Mac([2, 0, 0, 0, 1, 2]);
    w.say(d, NveToNva::Query { seq: 3, vni: vni(100), by: QueryBy::Mac(other) });
    let (_, out) = set(&mut w, 1, VmChanges { nested: add(other), ..VmChanges::default() }).unwrap();
    assert_eq!(updated(&out, d).len(), 1);
    // It learns addresses of its own, counted for itself.
    let pod = |n: u8| NveToNva::Bind {
        seq: 1,
        key: key(1),
        mac: POD,
        ip: Some([10, 2, 0, n].into()),
        announced: true,
        age_ms: 0,
    };
    for n in 0..8 {
        let out = w.say(a, pod(n));
        assert_eq!(answer(&out, a).unwrap().mac_of([10, 2, 0, n].into()), Some(POD));
    }
    let out = w.say(a, pod(8));
    assert_eq!(answer(&out, a).unwrap_err().0, BindRefusal::Full);
    // Without the nested MAC, nothing of it stays.
    set(&mut w, 1, VmChanges { nested: remove(POD), ..VmChanges::default() }).unwrap();
    assert!(w.vm(1).bound.is_empty());
    assert_eq!(ask(&mut w), Some(None));
}

#[test]
fn r93_the_operators_word_takes_what_another_vm_learned() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    let learns = LearningOf { v4: Some(Learning::Learned(8)), v6: None };
    allow(&mut w, 1, Allowed { learning: learns, ..Allowed::default() });
    w.take(a, 1);
    let far = IpAddr::V4([10, 1, 0, 7].into());
    for address in [ip(50), far, ip(60), ip(70)] {
        let out = w.say(a, wish(1, address, true, 0));
        answer(&out, a).unwrap();
    }
    let def = VmDefinition { ipv4: vec![[192, 168, 0, 50].into()], ..definition(2) };
    let (winner, out) = w.define_vm(def).unwrap();
    let said = updated(&out, c);
    assert_eq!(said.iter().map(|r| r.key).collect::<Vec<_>>(), [key(1), key(2)]);
    assert!(said[0].mac_of(ip(50)).is_none() && said[0].version < winner.version);
    allow(&mut w, 3, routes("10.1.0.0/16"));
    assert!(w.vm(1).mac_of(far).is_none());
    // A virtual one is for who announces it; what it learned itself it has as virtual from now on.
    allow(&mut w, 3, virtual_ip(ip(60)));
    assert!(w.vm(1).mac_of(ip(60)).is_none());
    set(&mut w, 1, VmChanges { virtual_ips: add(Prefix::host(ip(70))), ..VmChanges::default() }).unwrap();
    assert_eq!(w.vm(1).bound.ips, [BoundIp { ip: ip(70), mac: key(1).mac, is_virtual: true }]);
    allow(&mut w, 3, virtual_ip(ip(70)));
    assert_eq!(w.vm(1).bound.ips.len(), 1, "it stays with who has it");
    // Recorded for itself, it is bound no more but its own.
    set(&mut w, 1, VmChanges { virtual_ips: remove(Prefix::host(ip(70))), ..VmChanges::default() }).unwrap();
    let out = w.say(a, wish(1, ip(80), true, 0));
    answer(&out, a).unwrap();
    set(&mut w, 1, VmChanges { ipv4: add([192, 168, 0, 80].into()), ..VmChanges::default() }).unwrap();
    assert!(w.vm(1).bound.at(ip(80)).is_none() && w.vm(1).mac_of(ip(80)) == Some(key(1).mac));
}

#[test]
fn r33_all_the_addresses_that_a_vm_may_have_lead_to_it() {
    let mut w = World::new();
    let c = w.join("c");
    let ipv4: Vec<Ipv4Addr> = (0..64).map(|n| Ipv4Addr::new(10, 9, 0, n + 1)).collect();
    define(&mut w, VmDefinition { ipv4: ipv4.clone(), ..definition(9) }).unwrap();
    for ip in ipv4 {
        let out = w.say(c, NveToNva::Query { seq: 3, vni: vni(100), by: QueryBy::Ip(ip.into()) });
        let [NvaToNve::Response { record: Some(r), .. }] = &sent(&out, c)[..] else { panic!("{out:?}") };
        assert_eq!(r.key, key(9));
    }
}
