//! Orders of the operator about VNs, VMs and NVEs.

use super::*;

fn define(w: &mut World, def: VmDefinition) -> Result<VmRecord, Refusal> {
    w.define_vm(def).map(|(r, _)| r)
}

fn create(w: &mut World, n: u32, name: &str) -> Result<VnInfo, Refusal> {
    let record = VnRecord { vni: vni(n), name: name.into(), settings: VnSettings::default() };
    w.create_vn(record).map(|(r, _)| r)
}

#[test]
fn r13_names_and_numbers_of_vns_are_unique() {
    let mut w = World::new();
    create(&mut w, 16_777_215, "blue").unwrap();
    create(&mut w, 16_777_215, "blue").unwrap(); // Again is no error.
    let taken = Refusal::VniTaken { vni: vni(16_777_215), name: "blue".into() };
    assert_eq!(create(&mut w, 16_777_215, "green"), Err(taken));
    assert!(matches!(create(&mut w, 7, "blue"), Err(Refusal::VnExists { .. })));
    assert!(matches!(create(&mut w, 7, "no good"), Err(Refusal::Name(_))));
    let tiny = VnRecord {
        vni: vni(8),
        name: "tiny".into(),
        settings: VnSettings { mtu: 60, ..VnSettings::default() },
    };
    assert_eq!(w.create_vn(tiny).err(), Some(Refusal::BadMtu(60)));
}

#[test]
fn r33_a_second_mac_for_an_address_is_refused() {
    let mut w = World::new();
    let def = VmDefinition { ipv4: definition(1).ipv4, ..definition(9) };
    let taken = Refusal::IpTaken { ip: ip(1), vn: "red".into(), name: "vm1".into() };
    assert_eq!(define(&mut w, def.clone()), Err(taken));
    create(&mut w, 200, "blue").unwrap();
    define(&mut w, VmDefinition { vn: "blue".into(), ..def }).unwrap(); // R13: another VN, another world.
}

#[test]
fn r33_definitions_that_clash_are_refused() {
    let mut w = World::new();
    let d = definition(1);
    let cases = [
        (VmDefinition { mac: key(8).mac, ipv4: vec![], ..d.clone() }, "VmExists"),
        (VmDefinition { name: "other".into(), ..d.clone() }, "MacTaken"),
        (VmDefinition { vn: "green".into(), ..d.clone() }, "UnknownVn"),
        (VmDefinition { name: "".into(), ..d.clone() }, "Name"),
        (VmDefinition { mac: Mac::BROADCAST, ..definition(9) }, "BadMac"),
        (VmDefinition { ipv4: vec![Ipv4Addr::new(224, 0, 0, 1)], ..definition(9) }, "BadIp"),
        (VmDefinition { pinned: Some(id("nowhere")), ..definition(9) }, "UnknownNve"),
        (
            VmDefinition { ipv4: (0..65).map(|n| Ipv4Addr::new(10, 9, 0, n)).collect(), ..definition(9) },
            "TooMany",
        ),
    ];
    let before = w.durable.clone();
    for (def, expected) in cases {
        let refused = define(&mut w, def).unwrap_err();
        assert!(format!("{refused:?}").starts_with(expected), "{refused:?}");
        assert!(refused.to_string().len() > 20, "it says what to do: {refused}");
    }
    assert_eq!(w.durable, before, "a refusal changes nothing");
}

#[test]
fn r55_changed_addresses_are_pushed_with_a_new_version() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    let held = w.take(a, 1);
    w.settle(&[a, c]);
    let def = VmDefinition { ipv4: vec![Ipv4Addr::new(192, 168, 0, 77)], ..definition(1) };
    let (record, out) = w.define_vm(def.clone()).unwrap();
    assert!(record.version > held.version && owner(&record) == Some("a"));
    assert_eq!((updated(&out, c), updated(&out, a)), (vec![record.clone()], vec![record]));
    define(&mut w, VmDefinition { mac: key(8).mac, ..definition(8) }).unwrap();
    let (_, out) = w.define_vm(def.clone()).unwrap();
    assert_eq!(out, [], "the same again changes nothing");
    let old = VmDefinition { ipv4: vec![Ipv4Addr::new(192, 168, 0, 1)], ..definition(9) };
    define(&mut w, old).unwrap(); // The old address is free.
    w.join("b");
    w.start(1, "b", "m").unwrap();
    let router = VmDefinition { router: true, ..def };
    assert!(matches!(define(&mut w, router), Err(Refusal::VmMoving { .. })));
}

#[test]
fn r33_vms_in_use_are_not_deleted() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    w.take(a, 1);
    let delete = |w: &mut World, name: &str| w.delete_vm(name);
    assert_eq!(delete(&mut w, "vm1"), Err(Refusal::VmActive { vm: "vm1".into(), nve: id("a") }));
    let (gone, out) = delete(&mut w, "vm2").unwrap();
    let removed = sent(&out, c).into_iter().find_map(|m| match m {
        NvaToNve::Update { change: Change::Removed { key, version }, .. } => Some((key, version)),
        _ => None,
    });
    let (removed, version) = removed.unwrap();
    assert!(removed == key(2) && version > gone.version);
    assert_eq!(delete(&mut w, "vm2").err(), Some(Refusal::UnknownVm("vm2".into())));
    w.leave(a);
    delete(&mut w, "vm1").unwrap(); // Its NVE is away and may never come back.
    let again = define(&mut w, definition(2)).unwrap();
    assert!(again.version > version, "R20: a key's versions rise even over its removal");
}

#[test]
fn vns_with_vms_are_not_deleted() {
    let mut w = World::new();
    let delete = |w: &mut World| w.delete_vn("red").map(|_| ());
    assert_eq!(delete(&mut w), Err(Refusal::VnHasVms { vn: "red".into(), vms: 3 }));
    for n in 1..=3 {
        w.delete_vm(&format!("vm{n}")).unwrap();
    }
    delete(&mut w).unwrap();
    assert_eq!(delete(&mut w), Err(Refusal::UnknownVn("red".into())));
    assert!(w.durable.vns.is_empty());
}

#[test]
fn nves_are_deleted_only_when_nothing_depends_on_them() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    let delete = |w: &mut World, name: &str| {
        let id = id(name);
        w.delete_nve(&id).map(|(_, out)| out)
    };
    assert_eq!(delete(&mut w, "a"), Err(Refusal::NveConnected { nve: id("a") }));
    w.start(1, "b", "m").unwrap();
    w.leave(b);
    assert!(matches!(delete(&mut w, "b"), Err(Refusal::VmMoving { .. })));
    w.abort_move(&MoveId("m".into())).unwrap();
    let out = delete(&mut w, "b").unwrap();
    let left = |m: &NvaToNve| matches!(m, NvaToNve::Update { change: Change::MemberLeft(_), .. });
    assert!(sent(&out, a).iter().any(left));
    w.leave(a);
    assert_eq!(delete(&mut w, "a"), Err(Refusal::NveHasVms { nve: id("a"), vms: 1 }));
    let speaks = w.define_nve(&id("a"), locators(9));
    assert_eq!(speaks.err(), Some(Refusal::NveSpeaks { nve: id("a") }));
}

#[test]
fn r60_a_foreign_nves_new_locator_reaches_everybody() {
    let mut w = World::new();
    let a = w.join("a");
    w.define_nve(&id("tor"), locators(98)).unwrap();
    define(&mut w, VmDefinition { pinned: Some(id("tor")), ..definition(1) }).unwrap();
    let (_, out) = w.define_nve(&id("tor"), locators(99)).unwrap();
    assert_eq!(updated(&out, a)[0].active().unwrap().locators, locators(99));
}

#[test]
fn lists_say_what_is_there() {
    let mut w = World::new();
    let a = w.join("a");
    w.take(a, 1);
    w.now = w.now + Span::from_ms(70);
    let nve = w.d.nves(w.now).pop().unwrap();
    assert_eq!((nve.vms, nve.connected, nve.silent_ms), (1, true, 70));
    assert_eq!(nve.vnis, [vni(100)]);
    let vn = w.d.vns().pop().unwrap();
    assert_eq!((vn.vms, vn.members), (3, vec![id("a")]));
    assert_eq!(w.d.vms(Some("red")).unwrap().len(), 3);
    assert!(w.d.vms(Some("blue")).is_err());
    assert_eq!(w.d.vm_named("vm2").unwrap().key, key(2));
    let s = w.d.status();
    assert_eq!((s.vns, s.vms, s.nves_connected, s.moves_unfinished), (1, 3, 1, 0));
}

#[test]
fn r31_silent_flood_is_a_vns_option_that_its_members_are_told() {
    let mut w = World::new();
    let a = w.join("a");
    let flag = |out: &[Output]| match sent(out, a).pop() {
        Some(NvaToNve::End { settings, .. }) => Some(settings.flood_silent),
        _ => None,
    };
    let flood = VnChanges { flood_silent: Some(true), ..VnChanges::default() };
    let (info, out) = w.set_vn("red", flood).unwrap();
    assert!(info.record.settings.flood_silent);
    assert_eq!(flag(&out), Some(true));
    let (_, out) = w.set_vn("red", flood).unwrap();
    assert_eq!(flag(&out), None, "the same again changes nothing");
    w.restart();
    assert!(w.d.vns()[0].record.settings.flood_silent, "durable");
    assert!(w.set_vn("blue", flood).is_err());
}

#[test]
fn r27_rarp_is_a_vns_option_that_its_members_are_told() {
    let mut w = World::new();
    let a = w.join("a");
    let on = VnChanges { rarp: Some(true), ..VnChanges::default() };
    let (_, out) = w.set_vn("red", on).unwrap();
    assert!(matches!(
        sent(&out, a).pop(),
        Some(NvaToNve::End { settings: VnSettings { rarp: true, .. }, .. })
    ));
    w.restart();
    assert!(w.d.vns()[0].record.settings.rarp, "durable");
}

#[test]
fn r33_the_interested_are_those_who_hear_of_changes() {
    let mut w = World::new();
    let (a, _b) = (w.join("a"), w.join("b"));
    let (c, _) = w.hello("c");
    let names = |w: &World| w.d.interested(key(1)).iter().map(NveId::to_string).collect::<Vec<_>>();
    assert_eq!(names(&w), ["a", "b"]);
    w.say(c, NveToNva::Associate { key: key(1), port: "p".into() });
    assert_eq!(names(&w), ["a", "b", "c"], "a port without a subscription");
    w.leave(a);
    assert_eq!(names(&w), ["b", "c"]);
}
