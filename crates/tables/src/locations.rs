//! The forwarding table: an integer key to a nonzero integer value, made for looking up a whole
//! burst at a time.
//!
//! A bucket is one cache line: four keys, then their four values. A key lives in its home bucket
//! or, where that is full, in the nearest bucket after it that has room. That gives the invariant
//! that all work relies on: *every bucket between a key's home and its place is full*. A lookup
//! therefore ends at the first bucket with room, and a removal must not leave room in the middle of
//! such a path: it moves a later entry into the gap (see [`Locations::remove`]). There are no
//! tombstones, so a table that lives for months is as fast as a new one.
//!
//! The table never holds more than the capacity given at start, at most five sixths of its slots;
//! it is never resized and never evicts (R13). Its memory is zeroed lazily by the kernel, so a
//! large capacity costs nothing until it is used or touched. A zero value marks an empty slot, which leaves
//! every key usable, key 0 too.

use core::num::NonZeroU64;

use crate::{pages, prefetch};

/// Entries in one bucket.
const WAYS: usize = 4;
/// Words in one bucket: keys, then values. One cache line.
const WORDS: usize = 2 * WAYS;

type Bucket = [u64; WORDS];

/// The table has as many entries as it was built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The home bucket of a key: the result of hashing it once, good for one table.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Home(u32);

/// The table as a burst reads it: what it takes to find its memory is worked out once.
#[derive(Clone, Copy)]
pub struct View<'a> {
    buckets: &'a [Bucket],
    mask: u32,
    seed: [u64; 2],
}

impl View<'_> {
    /// Hashes a key: one wide multiplication, folded.
    #[inline(always)]
    pub fn home(&self, key: u64) -> Home {
        let p = u128::from(key ^ self.seed[0]) * u128::from(self.seed[1]);
        Home((p as u64 ^ (p >> 64) as u64) as u32 & self.mask)
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> &Bucket {
        &self.buckets[at as usize]
    }

    /// Asks the cache for a key's home bucket.
    #[inline(always)]
    pub fn prefetch(&self, home: Home) {
        prefetch::read(self.bucket(home.0));
    }

    /// The value of `key`, whose home was computed (and prefetched) before.
    #[inline(always)]
    pub fn get_at(&self, home: Home, key: u64) -> Option<NonZeroU64> {
        let mut at = home.0;
        loop {
            let b = self.bucket(at);
            // No branch depends on which of the four slots it is: the processor would guess wrong
            // three times out of four. An empty slot answers 0 whatever key was left in it.
            let mut found = 0;
            for way in 0..WAYS {
                found |= if b[way] == key { b[WAYS + way] } else { 0 };
            }
            if found != 0 || b[WAYS..].contains(&0) {
                return NonZeroU64::new(found);
            }
            at = (at + 1) & self.mask;
        }
    }
}

/// A map from `u64` to `NonZeroU64` with a fixed capacity.
pub struct Locations {
    /// Buckets, from `first` on, so that each begins a cache line.
    words: Vec<u64>,
    first: usize,
    /// Number of buckets, a power of two, minus one.
    mask: u32,
    len: usize,
    capacity: usize,
    seed: [u64; 2],
}

impl Locations {
    /// A table for at most `capacity` entries. `seed` keeps tenants from aiming many keys at one
    /// bucket.
    ///
    /// # Panics
    /// Where `capacity` exceeds 2^31, or memory is not to be had.
    pub fn new(capacity: usize, seed: [u64; 2]) -> Locations {
        assert!(capacity <= 1 << 31, "a location table of {capacity} entries");
        let buckets = (capacity.max(1) * 6).div_ceil(5 * WAYS).next_power_of_two();
        let words = pages::zeroed((buckets + 1) * WORDS);
        let first = words.as_ptr().align_offset(64).min(WORDS);
        // An odd multiplier spreads even a seed of zeros.
        let seed = [seed[0] ^ 0x9e37_79b9_7f4a_7c15, (seed[1] ^ 0xd6e8_feb8_6659_fd93) | 1];
        Locations { words, first, mask: buckets as u32 - 1, len: 0, capacity, seed }
    }

    /// Entries in the table.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most entries it takes.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Address space taken, in bytes; the part that was touched is resident.
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// Makes all of it resident.
    pub fn bring_in(&mut self) {
        pages::touch(&mut self.words);
    }

    /// The table as a burst reads it.
    #[inline(always)]
    pub fn view(&self) -> View<'_> {
        let (buckets, _) = self.words[self.first..].as_chunks();
        View { buckets, mask: self.mask, seed: self.seed }
    }

    /// See [`View::home`].
    #[inline(always)]
    pub fn home(&self, key: u64) -> Home {
        self.view().home(key)
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> &Bucket {
        let from = self.first + at as usize * WORDS;
        self.words[from..].first_chunk().expect("the last bucket is whole")
    }

    #[inline(always)]
    fn bucket_mut(&mut self, at: u32) -> &mut Bucket {
        let from = self.first + at as usize * WORDS;
        self.words[from..].first_chunk_mut().expect("the last bucket is whole")
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: u64) -> Option<NonZeroU64> {
        let view = self.view();
        view.get_at(view.home(key), key)
    }

    /// Adds an entry, or replaces its value; returns the earlier value.
    ///
    /// # Errors
    /// [`Full`] where the key is new and the table holds its capacity already.
    pub fn insert(&mut self, key: u64, value: NonZeroU64) -> Result<Option<NonZeroU64>, Full> {
        let mut at = self.home(key).0;
        loop {
            let b = self.bucket_mut(at);
            if let Some(way) = way_of(b, key) {
                let old = core::mem::replace(&mut b[WAYS + way], value.get());
                return Ok(NonZeroU64::new(old));
            }
            if let Some(way) = room_in(b) {
                if self.len == self.capacity {
                    return Err(Full);
                }
                self.put(at, way, key, value.get());
                self.len += 1;
                return Ok(None);
            }
            at = (at + 1) & self.mask;
        }
    }

    fn put(&mut self, at: u32, way: usize, key: u64, value: u64) {
        let b = self.bucket_mut(at);
        b[way] = key;
        b[WAYS + way] = value;
    }

    /// Removes an entry and returns its value.
    ///
    /// Where its bucket was full, entries of later buckets may have passed it on their way: one of
    /// them is moved into the gap, then the gap it left is treated alike, until a bucket with room
    /// ends the run. The run is as long as the full stretch, which the bound on the load keeps short.
    pub fn remove(&mut self, key: u64) -> Option<NonZeroU64> {
        let mut at = self.home(key).0;
        let way = loop {
            let b = self.bucket(at);
            if let Some(way) = way_of(b, key) {
                break way;
            }
            if room_in(b).is_some() {
                return None;
            }
            at = (at + 1) & self.mask;
        };
        let was_full = room_in(self.bucket(at)).is_none();
        let value = core::mem::take(&mut self.bucket_mut(at)[WAYS + way]);
        self.len -= 1;
        if was_full {
            self.close_gap(at, way);
        }
        NonZeroU64::new(value)
    }

    /// Fills the gap at (`gap`, `way`), in a bucket that was full, from the buckets after it.
    fn close_gap(&mut self, mut gap: u32, mut way: usize) {
        let mut at = gap;
        loop {
            at = (at + 1) & self.mask;
            if at == gap {
                // Every other bucket is full; nothing passed this one that did not come round.
                return;
            }
            let b = *self.bucket(at);
            let was_full = room_in(&b).is_none();
            if let Some(from) = (0..WAYS).find(|&w| b[WAYS + w] != 0 && self.passed(b[w], gap, at)) {
                self.put(gap, way, b[from], b[WAYS + from]);
                self.bucket_mut(at)[WAYS + from] = 0;
                (gap, way) = (at, from);
            }
            if !was_full {
                return;
            }
        }
    }

    /// On the way from its home to `at`, where it is, `key` came by `gap`.
    fn passed(&self, key: u64, gap: u32, at: u32) -> bool {
        let travelled = at.wrapping_sub(self.home(key).0) & self.mask;
        travelled >= (at.wrapping_sub(gap) & self.mask)
    }

    /// Removes all entries that `keep` refuses. Visits the whole table: for tear-down only.
    pub fn retain(&mut self, mut keep: impl FnMut(u64, NonZeroU64) -> bool) {
        for at in 0..=self.mask {
            // A removal may pull an entry of a later bucket into this one: look again.
            while let Some(key) = self.first_in(at, |k, v| !keep(k, v)) {
                self.remove(key);
            }
        }
    }

    fn first_in(&self, at: u32, mut wanted: impl FnMut(u64, NonZeroU64) -> bool) -> Option<u64> {
        let b = self.bucket(at);
        (0..WAYS).find_map(|w| {
            let value = NonZeroU64::new(b[WAYS + w])?;
            wanted(b[w], value).then_some(b[w])
        })
    }
}

#[inline]
fn way_of(b: &Bucket, key: u64) -> Option<usize> {
    (0..WAYS).find(|&w| b[w] == key && b[WAYS + w] != 0)
}

#[inline]
fn room_in(b: &Bucket) -> Option<usize> {
    (0..WAYS).find(|&w| b[WAYS + w] == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn nz(v: u64) -> NonZeroU64 {
        NonZeroU64::new(v).unwrap()
    }

    /// The invariant of the module's head, checked for every entry.
    fn check(t: &Locations) {
        let mut count = 0;
        for at in 0..=t.mask {
            let b = *t.bucket(at);
            for w in (0..WAYS).filter(|&w| b[WAYS + w] != 0) {
                count += 1;
                let mut on_the_way = t.home(b[w]).0;
                while on_the_way != at {
                    assert!(room_in(t.bucket(on_the_way)).is_none(), "a gap before {:#x}", b[w]);
                    on_the_way = (on_the_way + 1) & t.mask;
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
            assert_eq!(t.bucket(t.mask).len(), WORDS);
        }
    }

    #[test]
    fn key_zero_is_a_key() {
        let mut t = Locations::new(4, [0, 0]);
        assert_eq!(t.get(0), None);
        t.insert(0, nz(7)).unwrap();
        assert_eq!(t.get(0), Some(nz(7)));
        assert_eq!(t.remove(0), Some(nz(7)));
        assert_eq!(t.get(0), None);
    }

    #[test]
    fn r13_full_refuses_new_entries_and_keeps_old_ones() {
        let mut t = Locations::new(1000, [3, 4]);
        for k in 0..1000 {
            t.insert(k, nz(k + 1)).unwrap();
        }
        assert_eq!(t.insert(5000, nz(1)), Err(Full));
        assert_eq!(t.insert(10, nz(99)), Ok(Some(nz(11))), "a known key is replaced even when full");
        for k in (0..1000).filter(|&k| k != 10) {
            assert_eq!(t.get(k), Some(nz(k + 1)));
        }
        check(&t);
    }

    #[test]
    fn retain_keeps_what_it_is_told() {
        let mut t = Locations::new(500, [3, 4]);
        for k in 0..500 {
            t.insert(k, nz(k + 1)).unwrap();
        }
        t.retain(|k, _| k % 3 == 0);
        check(&t);
        for k in 0..500 {
            assert_eq!(t.get(k).is_some(), k % 3 == 0);
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, u64),
        Remove(u64),
        Get(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        // Few keys and a small table: long full stretches, wrapped ones too.
        let key = 0u64..48;
        let op = prop_oneof![
            (key.clone(), 1u64..1000).prop_map(|(k, v)| Op::Insert(k, v)),
            key.clone().prop_map(Op::Remove),
            key.prop_map(Op::Get),
        ];
        proptest::collection::vec(op, 0..400)
    }

    proptest! {
        #[test]
        fn behaves_as_a_hash_map(ops in ops(), seed in any::<[u64; 2]>(), capacity in 1usize..40) {
            let mut t = Locations::new(capacity, seed);
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
                    Op::Get(k) => {
                        prop_assert_eq!(t.get(k), oracle.get(&k).copied().and_then(NonZeroU64::new));
                    }
                }
                check(&t);
            }
        }
    }
}
