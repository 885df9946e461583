//! The forwarding table: a nonzero integer key to a nonzero integer value, made for looking up a whole
//! burst at a time.
//!
//! A bucket is one cache line: four keys, then their four values. A key lives in its home bucket
//! or, where that is full, in the nearest bucket after it that has room. That gives the invariant
//! that all work relies on: *every bucket between a key's home and its place is full*. A lookup
//! therefore ends at the first bucket with room, and a removal must not leave room in the middle of
//! such a path: it moves a later entry into the gap (see [`Locations::remove`]). There are no
//! tombstones, so a table that lives for months is as fast as a new one.
//!
//! The memory is taken once, for the capacity given at start, of whose slots at most five sixths are
//! used; nothing is evicted (R13). But homes lie in its front part only, which grows with the
//! entries: a thousand of them in half a million buckets would each need a page's translation and a
//! cache line of their own. It grows one bucket at a time (linear hashing): an insertion beyond
//! `LOAD` splits `SPLITS` buckets until their number has doubled, so none takes long. It never
//! shrinks. Until all homes are in use, entries that find their buckets full go into the part behind.
//!
//! A bit a bucket says that a key has gone on from it. Of a large table it costs a second cache's time to
//! look at, and saves asking memory for the next bucket when the key has not been found, while everything waits.
//!
//! A zero value marks an empty slot. Its key is zero too, so that no lookup finds what was there:
//! key 0 is therefore none that can be inserted.

use core::hint::select_unpredictable;
use core::num::NonZeroU64;

use crate::{pages, prefetch};

/// Entries in one bucket.
const WAYS: usize = 4;
/// Words in one bucket: keys, then values. One cache line.
const WORDS: usize = 2 * WAYS;

/// Buckets that have homes from the start: 64 KiB, which a core's nearer caches hold.
const FEWEST: usize = 1024;
/// Entries for each bucket with homes, in tenths, beyond which the number of these doubles. At 24 one bucket
/// in ten overflows; while they double it gets to 29.
const LOAD: usize = 24;
/// Buckets that one insertion splits.
const SPLITS: usize = 4;
/// Entries that one split moves at most. With the keys spread by a secret seed there are two on average.
const MOVED: usize = 64;

/// Buckets with homes from which on they do not lie in a core's own caches, so that [`Spilled`] is looked at: 1 MiB.
const FAR: u32 = 1 << 14;

type Bucket = [u64; WORDS];

/// The table has as many entries as it was built for, or the key is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The home bucket of a key: the result of hashing it once, good for one table.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Home(pub(crate) u32);

/// Where keys have their homes.
#[derive(Clone, Copy)]
struct Homes {
    seed: [u64; 2],
    /// Buckets with homes.
    count: u32,
    /// The power of two that `count` has reached or is growing to, minus one.
    mask: u32,
}

impl Homes {
    /// One wide multiplication, folded; the lower bits count.
    #[inline(always)]
    fn hash(&self, key: u64) -> u32 {
        let p = u128::from(key ^ self.seed[0]) * u128::from(self.seed[1]);
        (p as u64 ^ (p >> 64) as u64) as u32
    }

    #[inline(always)]
    fn of(&self, key: u64) -> Home {
        let mut at = self.hash(key) & self.mask;
        if at >= self.count {
            // Only while the number of homes doubles: this bucket has not been split yet.
            core::hint::cold_path();
            at &= self.mask >> 1;
        }
        Home(at)
    }
}

/// From which buckets a key has gone on, of those that are its home. A bucket with room has no such key; a full one may
/// be said to have one that is there no longer.
struct Spilled(Vec<u64>);

impl Spilled {
    fn set(&mut self, at: u32) {
        self.0[at as usize / 64] |= 1 << (at % 64);
    }

    fn clear(&mut self, at: u32) {
        self.0[at as usize / 64] &= !(1 << (at % 64));
    }
}

/// The table as a burst reads it: what it takes to find its memory is worked out once.
#[derive(Clone, Copy)]
pub struct View<'a> {
    buckets: &'a [Bucket],
    spilled: &'a [u64],
    homes: Homes,
    last: u32,
}

impl View<'_> {
    /// Hashes a key.
    #[inline(always)]
    pub fn home(&self, key: u64) -> Home {
        self.homes.of(key)
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> &Bucket {
        &self.buckets[at as usize]
    }

    /// Asks the cache for a key's home bucket, and for the next one if keys have gone on to it.
    #[inline(always)]
    #[allow(clippy::cast_possible_wrap, reason = "one bit")]
    pub fn prefetch(&self, home: Home) {
        let bucket = self.bucket(home.0);
        prefetch::read(bucket);
        if self.homes.mask >= FAR {
            // No branch: the same line again costs nothing.
            let further = self.spilled[home.0 as usize / 64] >> (home.0 % 64) & 1;
            prefetch::near(bucket, -(further as isize * 64));
        }
    }

    /// The value of `key`, whose home was computed (and prefetched) before.
    #[inline(always)]
    pub fn get_at(&self, home: Home, key: u64) -> Option<NonZeroU64> {
        // Nearly every key that is there is in its home bucket.
        match NonZeroU64::new(value_in(self.bucket(home.0), key)) {
            None => self.get_further(home, key),
            found => found,
        }
    }

    /// Apart, so that who looks up a burst keeps its registers.
    #[cold]
    #[inline(never)]
    fn get_further(&self, home: Home, key: u64) -> Option<NonZeroU64> {
        let mut at = home.0;
        loop {
            let b = self.bucket(at);
            let found = value_in(b, key);
            if found != 0 || room_in(b).is_some() {
                return NonZeroU64::new(found);
            }
            at = if at == self.last { 0 } else { at + 1 };
        }
    }
}

/// A map from `u64` to `NonZeroU64` with a fixed capacity.
pub struct Locations {
    /// Buckets, from `first` on, so that each begins a cache line.
    words: Vec<u64>,
    first: usize,
    /// The last bucket; their number is a power of two.
    last: u32,
    homes: Homes,
    spilled: Spilled,
    len: usize,
    capacity: usize,
}

impl Locations {
    /// A table for at most `capacity` entries. `seed` keeps tenants from aiming many keys at one
    /// bucket.
    ///
    /// # Panics
    /// Where `capacity` exceeds 2^31, or memory is not to be had.
    pub fn new(capacity: usize, seed: [u64; 2]) -> Locations {
        Self::with_homes(capacity, FEWEST, seed)
    }

    /// `fewest` buckets, a power of two, have homes at first.
    fn with_homes(capacity: usize, fewest: usize, seed: [u64; 2]) -> Locations {
        assert!(capacity <= 1 << 31, "a location table of {capacity} entries");
        let buckets = (capacity.max(1) * 6).div_ceil(5 * WAYS).next_power_of_two();
        let words = pages::zeroed((buckets + 1) * WORDS);
        let first = words.as_ptr().align_offset(64).min(WORDS);
        // An odd multiplier spreads even a seed of zeros.
        let seed = [seed[0] ^ 0x9e37_79b9_7f4a_7c15, (seed[1] ^ 0xd6e8_feb8_6659_fd93) | 1];
        let count = buckets.min(fewest) as u32;
        let homes = Homes { seed, count, mask: count - 1 };
        let spilled = Spilled(vec![0; buckets.div_ceil(64)]);
        Locations { words, first, last: buckets as u32 - 1, homes, spilled, len: 0, capacity }
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
        (self.words.len() + self.spilled.0.len()) * 8
    }

    /// Makes all of it resident.
    pub fn bring_in(&mut self) {
        pages::touch(&mut self.words);
        pages::touch(&mut self.spilled.0);
    }

    /// The table as a burst reads it.
    #[inline(always)]
    pub fn view(&self) -> View<'_> {
        let (buckets, _) = self.words[self.first..].as_chunks();
        View { buckets, spilled: &self.spilled.0, homes: self.homes, last: self.last }
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

    /// The bucket after `at`; the first follows the last.
    fn after(&self, at: u32) -> u32 {
        (at + 1) & self.last
    }

    /// Adds an entry, or replaces its value; returns the earlier value.
    ///
    /// # Errors
    /// [`Full`] where the key is new and the table holds its capacity already, and for key 0.
    pub fn insert(&mut self, key: u64, value: NonZeroU64) -> Result<Option<NonZeroU64>, Full> {
        if key == 0 {
            return Err(Full);
        }
        let mut at = self.homes.of(key).0;
        let (at, way) = loop {
            let b = self.bucket_mut(at);
            if let Some(way) = way_of(b, key) {
                let old = core::mem::replace(&mut b[WAYS + way], value.get());
                return Ok(NonZeroU64::new(old));
            }
            if let Some(way) = room_in(b) {
                break (at, way);
            }
            at = self.after(at);
        };
        if self.len == self.capacity {
            return Err(Full);
        }
        self.add(at, way, key, value.get());
        self.grow();
        Ok(None)
    }

    /// Gives more buckets homes where those that have some are well filled.
    fn grow(&mut self) {
        let complete = self.homes.count == self.homes.mask + 1;
        if complete {
            if self.homes.mask == self.last || self.len * 10 < self.homes.count as usize * LOAD {
                return;
            }
            self.homes.mask = self.homes.mask << 1 | 1;
        }
        for _ in 0..SPLITS {
            if self.homes.count > self.homes.mask || !self.split() {
                return;
            }
        }
    }

    /// Gives the next bucket homes: those of the keys of one other bucket that hash to it. `false`, and
    /// nothing has changed, where there are too many of them.
    fn split(&mut self) -> bool {
        let to = self.homes.count;
        let mut moved = [(0, 0); MOVED];
        let mut n = 0;
        while let Some((key, value)) = self.one_for(to) {
            if n == MOVED {
                moved.iter().for_each(|&(key, value)| self.place(key, value));
                return false;
            }
            self.remove(key);
            moved[n] = (key, value);
            n += 1;
        }
        self.homes.count += 1;
        moved[..n].iter().for_each(|&(key, value)| self.place(key, value));
        true
    }

    /// An entry whose home will be bucket `to`: until then it is the one that `to` splits, and the entry lies
    /// there or in the full buckets after it.
    fn one_for(&self, to: u32) -> Option<(u64, u64)> {
        let from = to & (self.homes.mask >> 1);
        let mut at = from;
        loop {
            let b = self.bucket(at);
            let wanted = |&w: &usize| b[WAYS + w] != 0 && self.homes.hash(b[w]) & self.homes.mask == to;
            if let Some(way) = (0..WAYS).find(wanted) {
                return Some((b[way], b[WAYS + way]));
            }
            at = self.after(at);
            if room_in(b).is_some() || at == from {
                return None;
            }
        }
    }

    /// Puts an entry back that is not in the table, which had it a moment ago and so has room.
    fn place(&mut self, key: u64, value: u64) {
        let mut at = self.homes.of(key).0;
        let way = loop {
            match room_in(self.bucket(at)) {
                Some(way) => break way,
                None => at = self.after(at),
            }
        };
        self.add(at, way, key, value);
    }

    /// Puts a key that is not in the table into the first room on its way.
    fn add(&mut self, at: u32, way: usize, key: u64, value: u64) {
        let home = self.homes.of(key).0;
        if at != home {
            self.spilled.set(home);
        }
        self.put(at, way, key, value);
        self.len += 1;
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
        let mut at = self.homes.of(key).0;
        let way = loop {
            let b = self.bucket(at);
            if let Some(way) = way_of(b, key) {
                break way;
            }
            if room_in(b).is_some() {
                return None;
            }
            at = self.after(at);
        };
        let was_full = room_in(self.bucket(at)).is_none();
        let value = self.bucket(at)[WAYS + way];
        self.put(at, way, 0, 0);
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
            at = self.after(at);
            if at == gap {
                // Every other bucket is full; nothing passed this one that did not come round.
                break;
            }
            let b = *self.bucket(at);
            let was_full = room_in(&b).is_none();
            if let Some(from) = (0..WAYS).find(|&w| b[WAYS + w] != 0 && self.passed(b[w], gap, at)) {
                self.put(gap, way, b[from], b[WAYS + from]);
                self.put(at, from, 0, 0);
                (gap, way) = (at, from);
            }
            if !was_full {
                break;
            }
        }
        self.spilled.clear(gap);
    }

    /// On the way from its home to `at`, where it is, `key` came by `gap`.
    fn passed(&self, key: u64, gap: u32, at: u32) -> bool {
        let travelled = at.wrapping_sub(self.homes.of(key).0) & self.last;
        travelled >= (at.wrapping_sub(gap) & self.last)
    }

    /// Removes all entries that `keep` refuses. Visits all homes: for tear-down only.
    pub fn retain(&mut self, mut keep: impl FnMut(u64, NonZeroU64) -> bool) {
        for at in 0..=self.last {
            if at >= self.homes.count && room_in(self.bucket(at - 1)).is_some() {
                // What lies behind the homes found all buckets before it full.
                return;
            }
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

/// The value of `key`, or 0. No branch depends on which of the four slots it is: the processor would guess
/// wrong three times out of four. An empty slot has key 0, or value 0 for who asks for that.
#[inline(always)]
fn value_in(b: &Bucket, key: u64) -> u64 {
    (0..WAYS).fold(0, |found, way| select_unpredictable(b[way] == key, b[WAYS + way], found))
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
mod tests;
