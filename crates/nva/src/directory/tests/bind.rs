//! What VMs bind by their own word: virtual addresses (R92) and learned ones (R93).

use godwit_model::message::QueryBy;
use godwit_model::{Allowed, BindRefusal, BoundIp, Learning, LearningOf, MAX_BOUND};
use godwit_wire::Prefix;

use super::*;

/// What an NVE says of VM `n`, which speaks of an address from its own MAC.
pub(super) fn wish(n: u8, ip: IpAddr, announced: bool, age_ms: u32) -> NveToNva {
    NveToNva::Bind { seq: 1, key: key(n), mac: key(n).mac, ip: Some(ip), announced, age_ms }
}

/// The answer to a Bind.
pub(super) fn answer(out: &[Output], to: SessionId) -> Result<VmRecord, (BindRefusal, String)> {
    let found = sent(out, to).into_iter().find_map(|m| match m {
        NvaToNve::Bound { record, .. } => Some(Ok(record)),
        NvaToNve::BindRefused { reason, text, .. } => Some(Err((reason, text))),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no answer: {out:?}"))
}

pub(super) fn virtual_ip(ip: IpAddr) -> Allowed {
    Allowed { virtual_ips: vec![Prefix::host(ip)], ..Allowed::default() }
}

pub(super) fn allow(w: &mut World, n: u8, allowed: Allowed) -> Vec<Output> {
    let def = VmDefinition { allowed, ..definition(n) };
    w.define_vm(def).unwrap().1
}

fn say_bind(w: &mut World, s: SessionId, n: u8, ip: IpAddr) -> Result<VmRecord, (BindRefusal, String)> {
    let out = w.say(s, wish(n, ip, true, 0));
    answer(&out, s)
}

fn learns(n: u8) -> Allowed {
    let learning = LearningOf { v4: Some(Learning::Learned(n)), v6: None };
    Allowed { learning, ..Allowed::default() }
}

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 200));

/// VMs 1 at a and 2 at b, both of which may have the virtual address; c looks on.
fn pair() -> (World, SessionId, SessionId, SessionId) {
    let mut w = World::new();
    let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
    for n in [1, 2] {
        allow(&mut w, n, virtual_ip(VIP));
    }
    w.take(a, 1);
    w.take(b, 2);
    w.settle(&[a, b, c]);
    (w, a, b, c)
}

#[test]
fn r92_a_virtual_address_goes_to_who_announced_it_last() {
    let (mut w, a, b, c) = pair();
    // Nobody has it: a mere source address is enough.
    let out = w.say(a, wish(1, VIP, false, 0));
    let first = answer(&out, a).unwrap();
    assert_eq!(first.bound.ips, [BoundIp { ip: VIP, mac: key(1).mac, is_virtual: true }]);
    assert_eq!(updated(&out, c), std::slice::from_ref(&first));
    assert_eq!(updated(&out, b), std::slice::from_ref(&first));
    // The other one takes it by an announcement only.
    let out = w.say(b, wish(2, VIP, false, 0));
    assert_eq!(answer(&out, b).unwrap_err().0, BindRefusal::Taken);
    w.say(a, wish(1, VIP, true, 0));
    w.pass(100);
    let out = w.say(b, wish(2, VIP, true, 50));
    let second = answer(&out, b).unwrap();
    let said = updated(&out, c);
    assert_eq!(said.len(), 2);
    let (loser, winner) = (&said[0], &said[1]);
    assert!(loser.key == key(1) && loser.bound.is_empty() && loser.version > first.version);
    assert!(*winner == second && winner.version > loser.version, "the loser's version comes first");
    assert_eq!(updated(&out, a).len(), 2, "the loser's NVE hears of both");
    // What was said before that counts no more, whenever it comes.
    w.pass(100);
    let out = w.say(a, wish(1, VIP, true, 190));
    let (reason, text) = answer(&out, a).unwrap_err();
    assert!(reason == BindRefusal::Taken && text.contains("vm2"), "{text}");
    // The same once more is answered and is no news.
    let out = w.say(b, wish(2, VIP, true, 0));
    assert_eq!((answer(&out, b), all_sent(&out).len()), (Ok(second), 1));
}

#[test]
fn r92_a_detached_owner_keeps_no_virtual_address() {
    let (mut w, a, b, _) = pair();
    let held = say_bind(&mut w, a, 1, VIP).unwrap();
    w.say(a, NveToNva::Withdraw { key: key(1), version: held.version });
    assert_eq!(w.vm(1).bound.ips.len(), 1, "it may be back");
    // Even where it announced the address before.
    let out = w.say(b, wish(2, VIP, true, 5000));
    assert_eq!(answer(&out, b).unwrap().mac_of(VIP), Some(key(2).mac));
    assert!(w.vm(1).bound.is_empty());
}

#[test]
fn r92_a_virtual_mac_takes_its_addresses_along() {
    let mut w = World::new();
    let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
    let vmac = Mac([0, 0, 0x5e, 0, 1, 0x33]);
    for n in [1, 2] {
        let allowed = Allowed { virtual_macs: vec![vmac], ..virtual_ip(VIP) };
        allow(&mut w, n, allowed);
    }
    w.take(a, 1);
    w.take(b, 2);
    let speaks = |n, ip| NveToNva::Bind { seq: 1, key: key(n), mac: vmac, ip, announced: true, age_ms: 0 };
    let out = w.say(a, speaks(1, Some(VIP)));
    let record = answer(&out, a).unwrap();
    assert_eq!((record.bound.macs.clone(), record.mac_of(VIP)), (vec![vmac], Some(vmac)));
    // Who asks for the MAC is told of the VM.
    let ask = |w: &mut World| {
        let out = w.say(c, NveToNva::Query { seq: 3, vni: vni(100), by: QueryBy::Mac(vmac) });
        sent(&out, c).into_iter().find_map(|m| match m {
            NvaToNve::Response { record, .. } => record.map(|r| r.key),
            _ => None,
        })
    };
    assert_eq!(ask(&mut w), Some(key(1)));
    w.pass(100);
    let out = w.say(b, speaks(2, None));
    let record = answer(&out, b).unwrap();
    assert_eq!((record.bound.macs.clone(), record.mac_of(VIP)), (vec![vmac], Some(vmac)));
    assert!(w.vm(1).bound.is_empty() && ask(&mut w) == Some(key(2)));
    // Spoken before: the master stays.
    let late = NveToNva::Bind { seq: 1, key: key(1), mac: vmac, ip: None, announced: false, age_ms: 5000 };
    let out = w.say(a, late);
    assert_eq!(answer(&out, a).unwrap_err().0, BindRefusal::Taken);
}

#[test]
fn r92_who_is_not_allowed_is_told_what_would_allow_it() {
    let (mut w, a, ..) = pair();
    let c = w.nve_session("c");
    w.take(c, 3);
    let (reason, text) = say_bind(&mut w, c, 3, VIP).unwrap_err();
    assert_eq!(reason, BindRefusal::NotAllowed);
    assert!(text.contains("godwitctl vm set vm3 --virtual 192.168.0.200"), "{text}");
    let (reason, text) = say_bind(&mut w, c, 3, ip(77)).unwrap_err();
    assert_eq!(reason, BindRefusal::NotAllowed);
    for command in ["vm set vm3 --ipv4 192.168.0.77", "--addresses-v4 learned", "--virtual 192.168.0.77"] {
        assert!(text.contains(command), "{text}");
    }
    allow(&mut w, 3, learns(8));
    let (reason, text) = say_bind(&mut w, c, 3, VIP).unwrap_err();
    assert_eq!(reason, BindRefusal::NotAllowed, "virtual addresses are not learned");
    assert!(text.contains("godwitctl vm set vm3 --virtual 192.168.0.200"), "{text}");
    let odd =
        NveToNva::Bind { seq: 1, key: key(1), mac: key(9).mac, ip: Some(VIP), announced: true, age_ms: 0 };
    let out = w.say(a, odd);
    let (reason, text) = answer(&out, a).unwrap_err();
    assert!(
        reason == BindRefusal::NotAllowed && text.contains("vm set vm1 --nested 02:00:00:00:00:09"),
        "{text}"
    );
    let spoofed =
        NveToNva::Bind { seq: 1, key: key(1), mac: key(2).mac, ip: Some(VIP), announced: true, age_ms: 0 };
    let out = w.say(a, spoofed);
    assert_eq!(answer(&out, a).unwrap_err().0, BindRefusal::Taken);
}

#[test]
fn r93_only_the_nve_of_the_vm_binds_for_it() {
    let (mut w, _, b, c) = pair();
    let (reason, text) = say_bind(&mut w, b, 1, VIP).unwrap_err();
    assert!(reason == BindRefusal::NotHere && text.contains("at NVE a"), "{text}");
    let out = w.say(c, wish(7, VIP, true, 0));
    assert_eq!(answer(&out, c).unwrap_err().0, BindRefusal::UnknownVm);
    // The new NVE of an ordered move may speak before its claim.
    w.start(1, "c", "m").unwrap();
    assert!(say_bind(&mut w, c, 1, VIP).is_ok());
    assert_eq!(owner(w.vm(1)), Some("a"));
}

#[test]
fn r93_a_vm_learns_as_many_as_it_may() {
    let mut w = World::new();
    let a = w.join("a");
    w.take(a, 1);
    // Its IPv4 address is recorded, so others are not its own; IPv6 is learned.
    assert_eq!(say_bind(&mut w, a, 1, ip(77)).unwrap_err().0, BindRefusal::NotAllowed);
    let v6 = |n: u16| IpAddr::V6([0x2001, 0xdb8, 0, 0, 0, 0, 0, n].into());
    let local = |n: u16| IpAddr::V6([0xfe80, 0, 0, 0, 0, 0, 0, n].into());
    for n in 1..=8 {
        say_bind(&mut w, a, 1, v6(n)).unwrap();
        say_bind(&mut w, a, 1, local(n)).unwrap();
    }
    let (reason, text) = say_bind(&mut w, a, 1, v6(9)).unwrap_err();
    assert!(reason == BindRefusal::Full && text.contains("vm set vm1 --addresses-v6 learned=16"), "{text}");
    assert_eq!(say_bind(&mut w, a, 1, local(9)).unwrap_err().0, BindRefusal::Full);
    assert_eq!(w.vm(1).bound.ips.len(), 16);
    // One that is not answered for makes room.
    let before = w.vm(1).version;
    let out = w.say(a, NveToNva::Unbind { key: key(1), ip: v6(3) });
    assert!(updated(&out, a)[0].version > before && w.vm(1).mac_of(v6(3)).is_none());
    say_bind(&mut w, a, 1, v6(9)).unwrap();
    // Nobody has what is none.
    for bad in ["0.0.0.0", "255.255.255.255", "224.0.0.18", "ff02::1", "::", "::1"] {
        assert_eq!(say_bind(&mut w, a, 1, bad.parse().unwrap()).unwrap_err().0, BindRefusal::NotAllowed);
    }
    // And its own recorded one is there already.
    assert!(say_bind(&mut w, a, 1, ip(1)).is_ok());
}

#[test]
fn r30_r93_a_live_vm_keeps_what_it_learned_and_is_asked() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    for n in [1, 2] {
        allow(&mut w, n, learns(8));
    }
    w.take(a, 1);
    w.take(b, 2);
    say_bind(&mut w, a, 1, ip(50)).unwrap();
    let asked = |out: &[Output]| sent(out, a).contains(&NvaToNve::VerifyIp { key: key(1), ip: ip(50) });
    let out = w.say(b, wish(2, ip(50), true, 0));
    let (reason, text) = answer(&out, b).unwrap_err();
    assert!(reason == BindRefusal::Taken && text.contains("vm1"), "{text}");
    assert!(asked(&out));
    let out = w.say(b, wish(2, ip(50), true, 0));
    assert!(!asked(&out), "not in a row");
    // Recorded addresses are not even asked for.
    let out = w.say(b, wish(2, ip(1), true, 0));
    assert_eq!(answer(&out, b).unwrap_err().0, BindRefusal::Taken);
    assert_eq!(all_sent(&out).len(), 1);
    // The holder does not answer for it: now it is free.
    w.say(a, NveToNva::Unbind { key: key(1), ip: ip(50) });
    assert_eq!(say_bind(&mut w, b, 2, ip(50)).unwrap().mac_of(ip(50)), Some(key(2).mac));
    // A detached one loses it at once, and until then it is its own.
    let version = w.vm(2).version;
    w.say(b, NveToNva::Withdraw { key: key(2), version });
    assert_eq!(w.vm(2).bound.ips.len(), 1);
    say_bind(&mut w, a, 1, ip(50)).unwrap();
    assert!(w.vm(2).bound.is_empty());
    // Nor does one keep it whose NVE has been away for long.
    let b = w.nve_session("b");
    w.take(b, 2);
    w.leave(a);
    assert_eq!(say_bind(&mut w, b, 2, ip(50)).unwrap_err().0, BindRefusal::Taken);
    for _ in 0..11 {
        w.pass(1000);
        w.say(b, NveToNva::Keepalive);
    }
    assert!(say_bind(&mut w, b, 2, ip(50)).is_ok() && w.vm(1).bound.is_empty());
}

#[test]
fn r93_what_a_vm_at_a_dead_nve_learned_is_free_after_a_restart_of_the_nva_too() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    for n in [1, 2] {
        allow(&mut w, n, learns(8));
    }
    w.take(a, 1);
    w.take(b, 2);
    say_bind(&mut w, a, 1, ip(50)).unwrap();
    w.restart();
    let b = w.join("b");
    assert_eq!(say_bind(&mut w, b, 2, ip(50)).unwrap_err().0, BindRefusal::Taken, "a may be about to come");
    let mut waited = 0;
    while say_bind(&mut w, b, 2, ip(50)).is_err() {
        w.pass(1000);
        w.say(b, NveToNva::Keepalive);
        waited += 1;
        assert!(waited <= 12, "nobody can bind it for ever");
    }
    assert!((9..=12).contains(&waited), "{waited} s");
    assert!(w.vm(1).bound.is_empty());
}

#[test]
fn r93_the_vn_says_what_is_learned_where_the_vm_does_not() {
    let mut w = World::new();
    let a = w.join("a");
    w.take(a, 1);
    let set = |w: &mut World, learning| {
        let to = VnChanges { learning_v4: Some(learning), ..VnChanges::default() };
        w.set_vn("red", to).unwrap().1
    };
    let out = set(&mut w, Some(Learning::Learned(2)));
    let told = sent(&out, a).into_iter().any(|m| match m {
        NvaToNve::End { settings, .. } => settings.learning.v4 == Some(Learning::Learned(2)),
        _ => false,
    });
    assert!(told, "members hear of it");
    say_bind(&mut w, a, 1, ip(50)).unwrap();
    say_bind(&mut w, a, 1, ip(51)).unwrap();
    assert_eq!(say_bind(&mut w, a, 1, ip(52)).unwrap_err().0, BindRefusal::Full);
    // What is not allowed any more goes.
    let version = w.vm(1).version;
    set(&mut w, Some(Learning::Learned(1)));
    assert!(w.vm(1).bound.ips.len() == 1 && w.vm(1).version > version);
    set(&mut w, None);
    assert!(w.vm(1).bound.is_empty(), "by default a VM with a recorded address learns none");
}

#[test]
fn r93_what_is_bound_moves_along_and_outlives_a_restart() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    let first = w.take(a, 1);
    let local = IpAddr::V6([0xfe80, 0, 0, 0, 0, 0, 0, 1].into());
    let bound = say_bind(&mut w, a, 1, local).unwrap();
    assert!(bound.version > first.version);
    w.start(1, "b", "m").unwrap();
    let moved = w.take(b, 1);
    assert_eq!((owner(&moved), &moved.bound), (Some("b"), &bound.bound));
    w.restart();
    assert_eq!(w.vm(1).bound, bound.bound);
    let c = w.join("c");
    let out = w.say(c, NveToNva::Query { seq: 3, vni: vni(100), by: QueryBy::Ip(local) });
    let found = sent(&out, c).into_iter().any(|m| match m {
        NvaToNve::Response { record: Some(r), .. } => r.key == key(1),
        _ => false,
    });
    assert!(found, "its address leads to it");
}

#[test]
fn r45_a_binding_does_not_spread_a_new_location_early() {
    let (mut w, a, b, c) = pair();
    w.start(1, "b", "m").unwrap();
    let out = w.say(b, claim(1, Version::ZERO));
    assert!(updated(&out, a).len() == 1 && updated(&out, c).is_empty(), "the old NVE first");
    let out = w.say(b, wish(1, VIP, true, 0));
    assert!(answer(&out, b).is_ok());
    assert!(updated(&out, a).len() == 1 && updated(&out, c).is_empty());
    let out = w.pass(500);
    assert_eq!(updated(&out, c).first().map(|r| r.mac_of(VIP)), Some(Some(key(1).mac)));
}

#[test]
fn r67_r93_a_scanner_binds_as_many_as_allowed_and_is_not_answered_without_end() {
    let mut w = World::new();
    let a = w.join("a");
    allow(&mut w, 1, learns(8));
    w.take(a, 1);
    let (mut answers, mut lines) = (0, 0);
    for n in 0..10_000u32 {
        let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + n));
        let out = w.say(a, wish(1, ip, true, 0));
        answers += all_sent(&out).len();
        lines += out.iter().filter(|o| matches!(o, Output::Log { .. })).count();
    }
    assert_eq!(w.vm(1).bound.ips.len(), 8);
    assert!(answers <= 300 && lines <= 300, "{answers} answers, {lines} lines");
    w.pass(10_000);
    let back = w.join("a");
    assert!(say_bind(&mut w, back, 1, ip(200)).is_err(), "it is answered again");
    assert!(w.d.binding_is_bounded(300));
}

#[test]
fn r92_no_vm_has_more_than_the_bound() {
    let mut w = World::new();
    let a = w.join("a");
    let range = "10.9.0.0/16".parse().unwrap();
    allow(&mut w, 1, Allowed { virtual_ips: vec![range], ..Allowed::default() });
    w.take(a, 1);
    let mut refused = 0;
    for n in 0..300u16 {
        let [hi, lo] = n.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(10, 9, hi, lo));
        w.pass(50);
        w.say(a, NveToNva::Keepalive);
        refused += usize::from(say_bind(&mut w, a, 1, address).is_err());
    }
    assert_eq!((w.vm(1).bound.ips.len(), refused), (MAX_BOUND, 300 - MAX_BOUND));
    // As large as a record gets, a snapshot of many is cut into parts.
    let out = w.say(a, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false });
    let parts = sent(&out, a).into_iter().filter(|m| matches!(m, NvaToNve::Snapshot { .. })).count();
    assert_eq!(parts, 1);
    let weight = super::super::streams::weight(w.vm(1));
    assert!(500 / weight <= 16, "a part of 500 takes {} such records", 500 / weight);
}

#[test]
fn r38_r92_who_pulled_the_old_owner_hears_of_the_new_one() {
    let (mut w, a, b, _) = pair();
    let (d, _) = w.hello("d");
    w.say(d, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Pull, lingers: false });
    say_bind(&mut w, a, 1, VIP).unwrap();
    w.say(d, NveToNva::Query { seq: 3, vni: vni(100), by: QueryBy::Ip(VIP) });
    w.pass(100);
    let out = w.say(b, wish(2, VIP, true, 0));
    let said: Vec<VmKey> = updated(&out, d).iter().map(|r| r.key).collect();
    assert_eq!(said, [key(1), key(2)]);
}
