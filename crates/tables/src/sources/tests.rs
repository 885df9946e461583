//! What is set, and what is new.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const M1: Mac = Mac([2, 0, 0, 0, 0, 1]);
const M2: Mac = Mac([2, 0, 0, 0, 0, 2]);
const T0: Instant = Instant(1_000_000_000);
const ROOM: SourceRule = SourceRule::Listed { room: 2 };

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn at(ms: u64) -> Instant {
    T0 + Span::from_ms(ms)
}

fn rules(v4: SourceRule, v6: SourceRule, link_local: SourceRule) -> SourceRules {
    SourceRules { v4, v6, link_local }
}

/// Uses an address as the packet path does; `Some(tell)` where it may.
fn uses(s: &mut Sources, a: &str, mac: Mac, now: Instant) -> Option<bool> {
    let a = ip(a);
    let may = s.waits(a, now).is_some() || s.has_room(a, mac, Some(s.rule(Family::of(a))), 0, now);
    let told = may.then(|| s.note(a, mac, false, &mut false, now));
    if told == Some(true) {
        s.heard(a, now);
    }
    told
}

#[test]
fn r65_until_rules_are_set_the_first_address_binds() {
    let mut s = Sources::new(0);
    assert!(!s.is_bound() && s.usual().is_v4(7) && s.usual().is_v6(7));
    s.add(ip("10.0.0.1")).unwrap();
    s.add(ip("10.0.0.1")).unwrap();
    s.add(ip("10.0.0.2")).unwrap();
    assert_eq!(s.rule(Family::V6), SourceRule::Listed { room: 0 });
    assert_eq!(s.rule(Family::LinkLocal), SourceRule::Any);
    assert!(s.lists(ip("10.0.0.1")) && s.lists(ip("10.0.0.2")) && !s.lists(ip("10.0.0.3")));
    assert!(s.usual().is_v4(0x0a00_0001) && !s.usual().is_v4(0x0a00_0002) && !s.usual().is_v6(1));
    s.remove(ip("10.0.0.1"), T0);
    assert!(!s.lists(ip("10.0.0.1")) && s.lists(ip("10.0.0.2")) && s.usual().is_v4(0x0a00_0002));
    s.remove(ip("10.0.0.1"), T0);
    s.remove(ip("10.0.0.2"), T0);
    assert!(!s.is_bound());
}

#[test]
fn r65_an_empty_list_binds_where_its_family_has_a_rule() {
    let mut s = Sources::new(0);
    s.set_rules(rules(SourceRule::Any, SourceRule::Listed { room: 0 }, ROOM));
    assert!(s.is_bound() && s.usual().is_v4(7) && !s.usual().is_v6(7));
    s.add(ip("10.0.0.1")).unwrap();
    assert!(s.usual().is_v4(7), "a rule says more than the list");
    s.set_rules(rules(SourceRule::Any, SourceRule::Any, SourceRule::Any));
    assert!(!s.is_bound() && s.usual().is_v6(7));
}

#[test]
fn frames_are_compared_with_a_global_address_first() {
    let mut s = Sources::new(0);
    for a in ["fe80::1", "2001:db8::1", "fe80::2", "2001:db8::2"] {
        s.add(ip(a)).unwrap();
    }
    let is_usual = |s: &Sources, a: &str| match ip(a) {
        IpAddr::V6(a) => s.usual().is_v6(a.to_bits()),
        IpAddr::V4(a) => s.usual().is_v4(a.to_bits()),
    };
    assert!(is_usual(&s, "2001:db8::1"));
    s.remove(ip("2001:db8::1"), T0);
    assert!(is_usual(&s, "2001:db8::2"));
    s.remove(ip("2001:db8::2"), T0);
    assert!(is_usual(&s, "fe80::1") || is_usual(&s, "fe80::2"));
}

#[test]
fn r92_r94_all_that_a_record_can_have_finds_room_and_more_is_refused() {
    let mut s = Sources::new(7);
    for n in 0..MAX_SOURCES as u128 {
        s.add(IpAddr::V6(Ipv6Addr::from_bits(n + 1))).unwrap();
    }
    assert_eq!(s.add(ip("2001:db8::1")), Err(OutOfRange));
    assert_eq!(s.add(ip("::1")), Ok(()), "it is there");
    for n in 0..MAX_MACS as u64 {
        s.add_mac(Mac::from_u64(2 << 40 | n), false).unwrap();
        s.add_mac(Mac::from_u64(4 << 40 | n), true).unwrap();
    }
    assert_eq!(s.add_mac(Mac::from_u64(8 << 40), true), Err(OutOfRange));
    assert_eq!(s.add_mac(Mac::from_u64(6 << 40), false), Err(OutOfRange));
    for n in 0..MAX_PREFIXES as u8 {
        let p = |kind: u8| Prefix::new(IpAddr::from([kind, n, 0, 0]), 16).unwrap();
        s.add_prefix(p(10), PrefixKind::Routed).unwrap();
        s.add_prefix(p(10), PrefixKind::Routed).unwrap();
        s.add_prefix(p(11), PrefixKind::Shared).unwrap();
    }
    let more = Prefix::host(ip("192.0.2.1"));
    assert_eq!(s.add_prefix(more, PrefixKind::Routed), Err(OutOfRange));
    assert_eq!(s.add_prefix(more, PrefixKind::Shared), Err(OutOfRange));
    assert!(s.routes(ip("10.31.255.1")) && !s.routes(ip("11.0.0.1")) && s.shares(ip("11.0.0.1")));
}

#[test]
fn r93_new_addresses_wait_for_control_and_are_told_once_a_second() {
    let mut s = Sources::new(0);
    s.set_rules(rules(ROOM, ROOM, ROOM));
    assert_eq!(uses(&mut s, "10.0.0.1", M1, at(0)), Some(true));
    assert_eq!(uses(&mut s, "10.0.0.1", M1, at(999)), Some(false));
    assert_eq!(uses(&mut s, "10.0.0.1", M1, at(1000)), Some(true));
    assert_eq!(uses(&mut s, "10.0.0.2", M1, at(1000)), Some(true));
    assert_eq!(uses(&mut s, "10.0.0.3", M1, at(1000)), None, "two at a time");
    // Each family and each MAC has its own.
    assert_eq!(uses(&mut s, "10.0.0.3", M2, at(1000)), Some(true));
    assert_eq!(uses(&mut s, "2001:db8::1", M1, at(1000)), Some(true));
    assert_eq!(uses(&mut s, "fe80::1", M1, at(1000)), Some(true));
    // What control sets makes room.
    s.add(ip("10.0.0.1")).unwrap();
    assert_eq!(uses(&mut s, "10.0.0.4", M1, at(1000)), Some(true));
    s.set_rules(rules(SourceRule::Listed { room: 1 }, SourceRule::Full, ROOM));
    assert_eq!(s.waits(ip("10.0.0.2"), at(1000)), Some(false));
    assert_eq!(s.waits(ip("10.0.0.4"), at(1000)), None, "room for one of this MAC");
    assert_eq!(s.waits(ip("10.0.0.3"), at(1000)), Some(false));
    assert_eq!(uses(&mut s, "2001:db8::1", M1, at(1000)), None);
}

#[test]
fn r93_what_control_refuses_is_not_told_again_for_a_while() {
    let mut s = Sources::new(0);
    s.set_rules(rules(ROOM, ROOM, ROOM));
    assert_eq!(uses(&mut s, "10.0.0.1", M1, at(0)), Some(true));
    s.remove(ip("10.0.0.1"), at(10));
    assert!(s.is_refused(ip("10.0.0.1"), at(5009)) && !s.is_refused(ip("10.0.0.1"), at(5010)));
    s.remove(ip("10.0.0.2"), at(10));
    assert!(!s.is_refused(ip("10.0.0.2"), at(10)), "it did not use that one");
    // Who is refused again and again is not heard at all for a while.
    for n in 0..200 {
        let a = format!("2001:db8::{n}");
        if uses(&mut s, &a, M1, at(20)).is_some() {
            s.remove(ip(&a), at(20));
        }
    }
    assert_eq!(uses(&mut s, "2001:db8::ffff", M1, at(5000)), None);
    assert_eq!(uses(&mut s, "2001:db8::ffff", M1, at(5020)), Some(true));
}

#[test]
fn r93_new_addresses_that_are_not_used_any_more_make_room() {
    let mut s = Sources::new(0);
    s.set_rules(rules(ROOM, ROOM, ROOM));
    uses(&mut s, "10.0.0.1", M1, at(0));
    uses(&mut s, "10.0.0.2", M1, at(0));
    uses(&mut s, "10.0.0.2", M1, at(20_000));
    assert_eq!(uses(&mut s, "10.0.0.3", M1, at(29_999)), None);
    assert_eq!(uses(&mut s, "10.0.0.3", M1, at(30_000)), Some(true));
    assert_eq!(s.waits(ip("10.0.0.1"), at(30_000)), None);
    assert!(s.waits(ip("10.0.0.2"), at(30_000)).is_some());
}

#[test]
fn r92_r94_what_goes_takes_along_what_was_new_because_of_it() {
    let mut s = Sources::new(0);
    let shared: Prefix = "10.0.0.200".parse().unwrap();
    s.set_rules(rules(ROOM, ROOM, ROOM));
    s.add_prefix(shared, PrefixKind::Shared).unwrap();
    s.add_mac(M2, false).unwrap();
    let mut announced = true;
    assert!(s.note(shared.addr(), M1, true, &mut announced, T0));
    uses(&mut s, "10.0.0.2", M2, T0);
    s.remove_prefix(shared, PrefixKind::Shared);
    s.remove_mac(M2);
    assert_eq!((s.waits(shared.addr(), T0), s.waits(ip("10.0.0.2"), T0)), (None, None));
    assert!(!s.shares(shared.addr()) && !s.nests(M2));
    // A MAC is nested or virtual.
    s.add_mac(M2, true).unwrap();
    s.add_mac(M2, false).unwrap();
    assert!(s.nests(M2) && s.shares_mac(M2, T0).is_none());
    s.add_mac(M2, true).unwrap();
    assert!(!s.nests(M2) && s.shares_mac(M2, T0).is_some());
}

#[test]
fn a_place_that_is_given_back_is_as_new() {
    let mut book = Book::new(2, 3);
    let (mut one, mut two) = (Book::NONE, Book::NONE);
    book.open(&mut one).unwrap().add(ip("10.0.0.1")).unwrap();
    book.open(&mut two).unwrap().add(ip("10.0.0.2")).unwrap();
    let old = one;
    book.close(&mut one);
    assert!(book.get(one).is_none() && book.get(two).is_some());
    let again = book.open(&mut one).unwrap();
    assert!(!again.lists(ip("10.0.0.1")) && !again.is_bound());
    assert_eq!(one, old);
}

proptest! {
    /// Whatever is set, used and refused: there is a bound on what is new, and it is what a plain model says.
    #[test]
    fn r93_the_bounds_hold(
        steps in proptest::collection::vec((0u8..8, 0u8..12, any::<bool>(), 0u64..4000), 1..150),
    ) {
        let mut s = Sources::new(1);
        s.set_rules(rules(SourceRule::Listed { room: 3 }, ROOM, ROOM));
        let (mut now, mut set) = (T0, BTreeSet::new());
        for (what, n, second, wait) in steps {
            let a = format!("10.0.0.{n}");
            let mac = if second { M2 } else { M1 };
            match what {
                0..5 if !set.contains(&a) => drop(uses(&mut s, &a, mac, now)),
                5 => {
                    s.add(ip(&a)).unwrap();
                    set.insert(a);
                }
                6 => {
                    s.remove(ip(&a), now);
                    set.remove(&a);
                }
                7 => now = now + Span::from_ms(wait),
                _ => {}
            }
            for mac in [M1, M2] {
                prop_assert!(s.new.all().iter().filter(|n| n.mac == mac).count() <= 3);
            }
            for n in 0..12 {
                let a = format!("10.0.0.{n}");
                prop_assert_eq!(s.lists(ip(&a)), set.contains(&a));
                prop_assert!(!(s.lists(ip(&a)) && s.waits(ip(&a), now).is_some()));
            }
        }
    }
}
