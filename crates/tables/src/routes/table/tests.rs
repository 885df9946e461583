use super::*;
use crate::update::DomainIdx;
use proptest::prelude::*;
use std::collections::HashMap;
use std::num::NonZeroU64;

/// The invariant of `locations`, checked for every entry, and that numbers lead to places.
fn check(t: &Table) {
    let spilled = |at: u32| t.spilled[at as usize / 64] >> (at % 64) & 1 == 1;
    let mut count = 0;
    for at in 0..=t.last {
        let b = t.bucket(at);
        assert!(room_in(&b).is_none() || !spilled(at), "nothing goes on from bucket {at}");
        for way in (0..WAYS).filter(|&way| !Words(b[way]).is_empty()) {
            count += 1;
            let place = Place::new(at, way);
            assert_eq!(t.place(t.numbers[place.0 as usize]), place);
            let mut on_the_way = t.home(&Words(b[way]));
            assert!(on_the_way == at || spilled(on_the_way), "an entry went on unnoticed");
            while on_the_way != at {
                assert!(room_in(&t.bucket(on_the_way)).is_none(), "a gap before an entry");
                on_the_way = t.after(on_the_way);
            }
        }
    }
    assert_eq!(count, t.len());
}

fn words(n: u32, value: u64) -> Words {
    Words::new(Addr::v4(n), Found { meta: NonZeroU64::new(scope().0 | 1 << 32).unwrap(), value })
}

fn scope() -> Scope {
    Scope::v4(DomainIdx(0), 32)
}

fn found(t: &Table, n: u32) -> Option<u64> {
    let view = t.view();
    let of = view.mixed(scope());
    view.get_at(view.home(Addr::v4(n), of), Addr::v4(n), of.scope).map(|f| f.value)
}

#[test]
fn buckets_begin_cache_lines() {
    for capacity in [1, 5, 100, 100_000] {
        let t = Table::new(capacity, [1, 2]);
        assert_eq!(core::ptr::from_ref(t.view().bucket(0)).addr() % 64, 0);
        assert!(t.view().buckets.len() > t.last as usize);
    }
}

#[test]
fn r58_homes_grow_with_the_routes_and_reach_all_of_the_memory() {
    let mut t = Table::new(50_000, [3, 4]);
    for n in 0..50_000 {
        t.insert(words(n << 8, n.into()), n);
        if n.is_power_of_two() {
            check(&t);
        }
    }
    check(&t);
    assert!(t.is_full() && t.homes.count > 50_000);
    assert!((0..50_000).all(|n| found(&t, n << 8) == Some(n.into())));
    assert!((0..50_000).all(|n| found(&t, n << 8 | 1).is_none()));
    let far = (0..=t.last).filter(|at| t.spilled[*at as usize / 64] >> (at % 64) & 1 == 1).count();
    assert!(far < 5_000, "{far} of {} buckets overflow", t.last + 1);
    for n in 0..50_000 {
        t.remove(t.place(n));
    }
    check(&t);
}

proptest! {
    #[test]
    fn behaves_as_a_hash_map(
        ops in proptest::collection::vec((1u32..150, any::<u64>(), 0..4), 0..500),
        seed in any::<[u64; 2]>(),
        capacity in 1usize..200,
    ) {
        let mut t = Table::with_homes(capacity, 1, seed);
        let (mut oracle, mut numbers) = (HashMap::new(), (0..capacity as u32).collect::<Vec<_>>());
        for (n, value, op) in ops {
            let there = t.find(Addr::v4(n), scope());
            prop_assert_eq!(there.map(|(at, _)| t.get(at).found().unwrap().value), oracle.get(&n).copied());
            match (there, op) {
                (Some((at, number)), 0 | 1) => {
                    t.remove(at);
                    numbers.push(number);
                    oracle.remove(&n);
                }
                (Some((at, _)), _) => {
                    t.set(at, words(n, value).found().unwrap());
                    oracle.insert(n, value);
                }
                (None, 1..) if !t.is_full() => {
                    t.insert(words(n, value), numbers.pop().expect("a free number"));
                    oracle.insert(n, value);
                }
                (None, _) => {}
            }
            check(&t);
            prop_assert_eq!(found(&t, n), oracle.get(&n).copied());
        }
        for n in 1..150 {
            prop_assert_eq!(found(&t, n), oracle.get(&n).copied());
        }
    }
}
