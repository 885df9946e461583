use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

impl Locations {
    fn spilled(&self, at: u32) -> bool {
        self.spilled.0[at as usize / 64] >> (at % 64) & 1 == 1
    }
}

fn nz(v: u64) -> NonZeroU64 {
    NonZeroU64::new(v).unwrap()
}

/// The invariant of the module's head, checked for every entry.
fn check(t: &Locations) {
    let mut count = 0;
    for at in 0..=t.last {
        let b = *t.bucket(at);
        assert!((0..WAYS).all(|w| (b[w] == 0) == (b[WAYS + w] == 0)), "an empty slot has key 0");
        assert!(room_in(&b).is_none() || !t.spilled(at), "nothing goes on from bucket {at}");
        for w in (0..WAYS).filter(|&w| b[WAYS + w] != 0) {
            count += 1;
            let mut on_the_way = t.homes.of(b[w]).0;
            assert!(on_the_way == at || t.spilled(on_the_way), "{:#x} went on unnoticed", b[w]);
            while on_the_way != at {
                assert!(room_in(t.bucket(on_the_way)).is_none(), "a gap before {:#x}", b[w]);
                on_the_way = t.after(on_the_way);
            }
        }
    }
    assert_eq!(count, t.len());
}

#[test]
fn buckets_begin_cache_lines() {
    for capacity in [1, 5, 100, 100_000] {
        let t = Locations::new(capacity, [1, 2]);
        assert_eq!(core::ptr::from_ref(t.bucket(0)).addr() % 64, 0);
        assert_eq!(t.bucket(t.last).len(), WORDS);
    }
}

#[test]
fn key_zero_finds_no_room_and_nothing() {
    let mut t = Locations::new(4, [0, 0]);
    assert_eq!(t.insert(0, nz(7)), Err(Full));
    t.insert(1, nz(8)).unwrap();
    assert_eq!((t.get(0), t.remove(0), t.len()), (None, None, 1));
}

#[test]
fn r13_full_refuses_new_entries_and_keeps_old_ones() {
    let mut t = Locations::new(1000, [3, 4]);
    for k in 1..=1000 {
        t.insert(k, nz(k + 1)).unwrap();
    }
    assert_eq!(t.insert(5000, nz(1)), Err(Full));
    assert_eq!(t.insert(10, nz(99)), Ok(Some(nz(11))), "a known key is replaced even when full");
    for k in (1..=1000).filter(|&k| k != 10) {
        assert_eq!(t.get(k), Some(nz(k + 1)));
    }
    check(&t);
}

#[test]
fn retain_keeps_what_it_is_told() {
    let mut t = Locations::new(500, [3, 4]);
    for k in 1..=500 {
        t.insert(k, nz(k + 1)).unwrap();
    }
    t.retain(|k, _| k % 3 == 0);
    check(&t);
    for k in 1..=500 {
        assert_eq!(t.get(k).is_some(), k % 3 == 0);
    }
}

#[test]
fn r13_homes_grow_with_the_entries_and_reach_all_of_the_memory() {
    let mut t = Locations::new(100_000, [3, 4]);
    let mut seen = vec![];
    for k in 1..=100_000 {
        let before = t.homes.count;
        t.insert(k << 20, nz(k)).unwrap();
        assert!(t.homes.count - before <= SPLITS as u32, "an insertion splits few buckets");
        seen.push(t.homes.count);
        if k.is_power_of_two() || (k > 2_455 && k < 2_500) {
            check(&t);
        }
    }
    check(&t);
    assert_eq!((seen[1_000], seen[99_999]), (FEWEST as u32, t.last + 1));
    assert!((1..=100_000).all(|k| t.get(k << 20) == Some(nz(k))));
    assert!((1..=100_000).all(|k| t.get(k).is_none()), "what is not there is not found");
    for k in 1..=100_000 {
        assert_eq!(t.remove(k << 20), Some(nz(k)));
    }
    check(&t);
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64),
    Remove(u64),
    Get(u64),
    Retain(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Few keys and a small table: long full stretches, wrapped ones too.
    let key = 1u64..200;
    let op = prop_oneof![
        (key.clone(), 1u64..1000).prop_map(|(k, v)| Op::Insert(k, v)),
        key.clone().prop_map(Op::Remove),
        key.prop_map(Op::Get),
    ];
    let op = prop_oneof![50 => op, 1 => (2u64..5).prop_map(Op::Retain)];
    proptest::collection::vec(op, 0..600)
}

proptest! {
    #[test]
    fn behaves_as_a_hash_map(ops in ops(), seed in any::<[u64; 2]>(), capacity in 1usize..200) {
        let mut t = Locations::with_homes(capacity, 1, seed);
        let mut oracle: HashMap<u64, u64> = HashMap::new();
        for op in ops {
            match op {
                Op::Insert(k, v) => {
                    let room = oracle.len() < capacity || oracle.contains_key(&k);
                    let got = t.insert(k, nz(v));
                    if room {
                        let old = oracle.insert(k, v).and_then(NonZeroU64::new);
                        prop_assert_eq!(got, Ok(old));
                    } else {
                        prop_assert_eq!(got, Err(Full));
                    }
                }
                Op::Remove(k) => {
                    prop_assert_eq!(t.remove(k), oracle.remove(&k).and_then(NonZeroU64::new));
                }
                Op::Retain(n) => {
                    t.retain(|k, _| k % n != 0);
                    oracle.retain(|k, _| k % n != 0);
                }
                Op::Get(k) => {
                    prop_assert_eq!(t.get(k), oracle.get(&k).copied().and_then(NonZeroU64::new));
                }
            }
            check(&t);
        }
    }
}
