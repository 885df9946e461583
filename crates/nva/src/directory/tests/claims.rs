//! Who owns a VM.

use std::net::Ipv6Addr;

use super::*;

#[test]
fn r18_a_free_vm_goes_to_the_first_who_claims_it() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    let before = w.vm(1).version;
    let out = w.say(a, claim(1, Version::ZERO));
    let record = granted(&out, a).unwrap();
    assert_eq!((owner(&record), record.is_active()), (Some("a"), true));
    assert!(record.version > before);
    assert_eq!(w.durable.vms[&key(1)], record, "durable with the step that says so");
    assert_eq!(updated(&out, c), [record], "there is no old NVE to wait for");
}

#[test]
fn r18_a_repeated_claim_is_confirmed_with_the_same_version() {
    let mut w = World::new();
    let a = w.join("a");
    let first = w.take(a, 1);
    let out = w.say(a, claim(1, Version::ZERO));
    assert_eq!(granted(&out, a), Some(first));
    assert!(!out.iter().any(|o| matches!(o, Output::Persist(_))), "nothing changed");
}

#[test]
fn r73_a_claim_after_a_restart_is_confirmed_with_the_old_version() {
    let mut w = World::new();
    let a = w.join("a");
    let first = w.take(a, 1);
    w.restart();
    let a = w.join("a");
    let out = w.say(a, claim(1, first.version));
    assert_eq!(granted(&out, a), Some(first.clone()));
    let other = w.take(a, 2);
    assert!(other.version > first.version && other.version.epoch == 2, "the new epoch is above the old");
}

#[test]
fn r18_an_unknown_vm_is_denied() {
    let mut w = World::new();
    let a = w.join("a");
    let out = w.say(a, claim(9, Version::ZERO));
    assert_eq!(denied(&out, a), Some(DenyReason::UnknownVm));
}

#[test]
fn r55_the_addresses_must_be_the_recorded_ones() {
    let mut w = World::new();
    let a = w.join("a");
    let cause = ClaimCause::Activate;
    let known = w.vm(1).version;
    for ips in [vec![], vec![ip(2)], vec![ip(1), ip(9)]] {
        // Who knows the record has no such VM; who does not is told it, and claims again.
        for (base, reason) in
            [(known, DenyReason::AddressMismatch), (Version::ZERO, DenyReason::StaleVersion)]
        {
            let m = NveToNva::Claim {
                seq: 1,
                key: key(1),
                ips: ips.clone(),
                cause,
                base,
                port: "p1".into(),
                router: None,
                overrides: Default::default(),
            };
            let out = w.say(a, m);
            assert_eq!(denied(&out, a), Some(reason));
        }
    }
    let m = NveToNva::Claim {
        seq: 1,
        key: key(1),
        ips: vec![ip(1), ip(1)],
        cause,
        base: Version::ZERO,
        port: "p1".into(),
        router: None,
        overrides: Default::default(),
    };
    let out = w.say(a, m);
    assert!(granted(&out, a).is_some(), "neither order nor doubles matter");
}

#[test]
fn r21_a_vm_of_another_nve_is_denied_without_a_move() {
    let mut w = World::new();
    w.policy(Unplanned::Deny);
    let (a, b) = (w.join("a"), w.join("b"));
    let held = w.take(a, 1);
    let out = w.say(b, claim(1, Version::ZERO));
    assert_eq!(denied(&out, b), Some(DenyReason::OwnedElsewhere));
    let out = w.say(b, claim(1, held.version));
    assert_eq!(denied(&out, b), Some(DenyReason::OwnedElsewhere), "to know the owner is no right");
    let older = Version { seq: held.version.seq - 1, ..held.version };
    let out = w.say(b, claim(1, older));
    assert_eq!(denied(&out, b), Some(DenyReason::StaleVersion));
    assert_eq!(owner(w.vm(1)), Some("a"));
}

#[test]
fn r21_a_move_intent_wins_even_with_an_old_base() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    let held = w.take(a, 1);
    w.start(1, "b", "m").unwrap();
    let out = w.say(b, claim(1, Version { seq: 1, ..held.version }));
    let record = granted(&out, b).unwrap();
    assert!(record.version > held.version);
    let out = w.say(a, claim(1, held.version));
    assert_eq!(denied(&out, a), Some(DenyReason::StaleVersion), "the old owner lost it");
}

#[test]
fn r21_of_two_claims_for_a_moving_vm_the_target_wins_in_either_order() {
    for target_first in [true, false] {
        let mut w = World::new();
        let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
        w.take(a, 1);
        w.start(1, "b", "m").unwrap();
        for s in if target_first { [b, c] } else { [c, b] } {
            w.say(s, claim(1, Version::ZERO));
        }
        assert_eq!(owner(w.vm(1)), Some("b"));
    }
}

#[test]
fn r22_a_pinned_vm_is_claimed_by_nobody_else() {
    let mut w = World::new();
    let a = w.join("a");
    w.define_nve(&id("tor"), locators(99)).unwrap();
    let pinned = VmDefinition { pinned: Some(id("tor")), ..definition(1) };
    w.define_vm(pinned).unwrap();
    let out = w.say(a, claim(1, Version::ZERO));
    assert_eq!(denied(&out, a), Some(DenyReason::Pinned));
    assert_eq!(w.start(1, "a", "m"), Err(Refusal::VmPinned { vm: "vm1".into(), nve: id("tor") }));
}

#[test]
fn r19_a_withdrawal_is_compare_and_delete() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    let at_a = w.take(a, 1);
    let older = Version { seq: at_a.version.seq - 1, ..at_a.version };
    w.say(a, NveToNva::Withdraw { key: key(1), version: older });
    assert_eq!(owner(w.vm(1)), Some("a"), "a stale one changes nothing");
    w.say(b, NveToNva::Withdraw { key: key(1), version: at_a.version });
    assert_eq!(owner(w.vm(1)), Some("a"), "nor one of somebody else");
    let out = w.say(a, NveToNva::Withdraw { key: key(1), version: at_a.version });
    let record = w.vm(1).clone();
    assert_eq!((record.is_active(), owner(&record)), (false, None));
    assert!(record.version > at_a.version);
    assert_eq!(record.ipv4, definition(1).ipv4, "the addresses stay reserved");
    assert_eq!(updated(&out, b), [record]);
    w.take(b, 1);
    w.say(a, NveToNva::Withdraw { key: key(1), version: at_a.version });
    assert_eq!(owner(w.vm(1)), Some("b"), "R19's own test: the late one changes nothing");
}

#[test]
fn r19_a_withdrawal_counts_although_its_nve_has_not_heard_what_else_changed() {
    let mut w = World::new();
    let a = w.join("a");
    let before = w.take(a, 1);
    w.say(a, NveToNva::Withdraw { key: key(1), version: before.version });
    let held = w.take(a, 1);
    w.say(a, claim_of_router(1, Some(true)));
    assert!(w.vm(1).version > held.version, "a new version, at the same place");
    w.say(a, NveToNva::Withdraw { key: key(1), version: before.version });
    assert_eq!(owner(w.vm(1)), Some("a"), "it came anew since");
    w.say(a, NveToNva::Withdraw { key: key(1), version: held.version });
    assert!(!w.vm(1).is_active());
}

#[test]
fn r45_a_withdrawal_during_a_move_waits_for_its_end() {
    for granted in [true, false] {
        let mut w = World::new();
        let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
        let held = w.take(a, 1);
        w.start(1, "b", "m").unwrap();
        let out = w.say(a, NveToNva::Withdraw { key: key(1), version: held.version });
        assert_eq!(updated(&out, c), [], "others keep sending to A, which holds");
        if granted {
            w.say(b, claim(1, Version::ZERO));
            assert_eq!(owner(w.vm(1)), Some("b"));
        } else {
            let out = w.abort_move(&MoveId("m".into())).unwrap().1;
            assert!(!w.vm(1).is_active(), "now it counts");
            assert_eq!(updated(&out, c).len(), 1);
        }
    }
}

#[test]
fn r45_the_source_that_claims_again_takes_its_withdrawal_back() {
    let mut w = World::new();
    let (a, _b) = (w.join("a"), w.join("b"));
    let held = w.take(a, 1);
    w.start(1, "b", "m").unwrap();
    w.say(a, NveToNva::Withdraw { key: key(1), version: held.version });
    w.say(a, claim(1, held.version));
    w.abort_move(&MoveId("m".into())).unwrap();
    assert_eq!(owner(w.vm(1)), Some("a"));
}

#[test]
fn r20_versions_rise_with_every_change_of_a_key() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    let mut last = w.vm(1).version;
    for round in 0..3 {
        let s = if round % 2 == 0 { a } else { b };
        let granted = w.take(s, 1).version;
        assert!(granted > last);
        w.say(s, NveToNva::Withdraw { key: key(1), version: granted });
        last = w.vm(1).version;
        assert!(last > granted);
    }
}

fn claim_of_router(n: u8, router: Option<bool>) -> NveToNva {
    match claim(n, Version::ZERO) {
        NveToNva::Claim { seq, key, ips, base, port, .. } => {
            let cause = ClaimCause::NeighborAdvertisement;
            NveToNva::Claim { seq, key, ips, cause, base, port, router, overrides: Default::default() }
        }
        other => other,
    }
}

#[test]
fn r25_the_r_flag_is_learned_from_the_vm_itself() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    let first = granted(&w.say(a, claim_of_router(1, Some(true))), a).unwrap();
    assert!(first.router && !first.router_pinned);
    let again = w.say(a, claim_of_router(1, Some(true)));
    assert_eq!(granted(&again, a).unwrap().version, first.version, "nothing new");
    assert_eq!(granted(&w.say(a, claim(1, first.version)), a).unwrap(), first, "not heard is no word");
    let out = w.say(a, claim_of_router(1, Some(false)));
    let none = granted(&out, a).unwrap();
    assert!(!none.router && none.version > first.version);
    assert_eq!(updated(&out, c), [none], "proxies elsewhere answer with it");
    w.say(a, claim_of_router(1, Some(true)));
    let (kept, _) = w.define_vm(definition(1)).unwrap();
    assert!(kept.router, "a definition that says nothing leaves what was learned");
}

/// VM 1 has two IPv6 addresses of which one is an anycast address.
#[test]
fn r25_the_o_flag_is_learned_for_each_address() {
    let mut w = World::new();
    let (a, c) = (w.join("a"), w.join("c"));
    let (one, two) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    let both = VmDefinition { ipv6: vec![one, two], ..definition(1) };
    w.define_vm(both.clone()).unwrap();
    let ips = w.vm(1).ips().collect::<Vec<_>>();
    let says = |w: &mut World, heard: &[(Ipv6Addr, bool)]| {
        let (overrides, ips) = (heard.iter().copied().collect(), ips.clone());
        let (seq, cause, port) = (7, ClaimCause::NeighborAdvertisement, "p1".to_owned());
        let base = Version::ZERO;
        w.say(a, NveToNva::Claim { seq, key: key(1), ips, cause, base, port, router: None, overrides })
    };
    let first = granted(&says(&mut w, &[(one, true), (two, false)]), a).unwrap();
    assert_eq!(first.no_override, [two]);
    let again = granted(&says(&mut w, &[(two, false)]), a).unwrap();
    assert_eq!(again.version, first.version, "nothing new");
    assert_eq!(granted(&says(&mut w, &[]), a).unwrap(), first, "not heard is no word");
    let stranger = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
    assert_eq!(granted(&says(&mut w, &[(stranger, false)]), a).unwrap(), first, "nor is another's address");
    let out = says(&mut w, &[(two, true), (one, false)]);
    let other = granted(&out, a).unwrap();
    assert!(other.no_override == [one] && other.version > first.version);
    assert_eq!(updated(&out, c), [other], "all are told");
    let restored = Directory::restore(Config::default(), w.durable.clone(), 2);
    assert_eq!(restored.state().vms[&key(1)].no_override, [one], "durable");
    let (kept, _) = w.define_vm(both.clone()).unwrap();
    assert_eq!(kept.no_override, [one], "a definition leaves what was learned");
    let without = VmDefinition { ipv6: vec![two], ..definition(1) };
    let (less, _) = w.define_vm(without).unwrap();
    assert!(less.no_override.is_empty(), "of addresses that it has");
}

#[test]
fn r25_the_operators_word_stands() {
    let mut w = World::new();
    let a = w.join("a");
    let router = VmDefinition { router: true, ..definition(1) };
    w.define_vm(router).unwrap();
    let r = granted(&w.say(a, claim_of_router(1, Some(false))), a).unwrap();
    assert!(r.router && r.router_pinned);
    let (r, _) = w.define_vm(definition(1)).unwrap();
    assert!(!r.router && !r.router_pinned, "taken back");
}

#[test]
fn r26_five_rounds_of_a_rarp_are_one_version() {
    let mut w = World::new();
    let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let both = VmDefinition { ipv6: vec![v6], ..definition(1) };
    w.define_vm(both).unwrap();
    let (a, b, c) = (w.join("a"), w.join("b"), w.join("c"));
    let ips = vec![ip(1), IpAddr::V6(v6)];
    let (cause, port, base) = (ClaimCause::GratuitousArp, "p1".to_owned(), Version::ZERO);
    let m = NveToNva::Claim {
        seq: 7,
        key: key(1),
        ips: ips.clone(),
        cause,
        base,
        port,
        router: None,
        overrides: Default::default(),
    };
    assert!(granted(&w.say(a, m), a).is_some());
    w.settle(&[a, b, c]);
    w.start(1, "b", "m").unwrap();
    let before = w.vm(1).version;
    let (mut versions, mut told) = (BTreeSet::new(), Vec::new());
    for seq in 0..5 {
        // Each round may come as a claim of its own: an NVE that restarts in between says it again.
        let (cause, port, base) = (ClaimCause::Rarp, "p1".to_owned(), before);
        let m = NveToNva::Claim {
            seq,
            key: key(1),
            ips: ips.clone(),
            cause,
            base,
            port,
            router: None,
            overrides: Default::default(),
        };
        let out = w.say(b, m);
        versions.insert(granted(&out, b).unwrap().version);
        let mut out = [out, w.pass(50 + 100 * seq)].concat();
        told.extend(updated(&out, c));
        for nve in [a, c] {
            out.extend(w.ack(nve, &out));
        }
        told.extend(updated(&w.pass(50), c));
        w.say(b, NveToNva::Keepalive);
    }
    assert_eq!(versions.len(), 1);
    assert_eq!(w.vm(1).version.seq, before.seq + 1);
    let moved: BTreeSet<Version> = told.iter().map(|r| r.version).collect();
    assert_eq!(moved, versions, "C is told of no other");
    for r in told.iter().chain([w.vm(1)]) {
        assert_eq!(
            (owner(r), r.ips().collect::<Vec<_>>()),
            (Some("b"), ips.clone()),
            "all addresses moved with it"
        );
    }
}
