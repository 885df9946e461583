//! The memory of routes: the same table as [`crate::locations`], for keys of 152 bits.
//!
//! A bucket is one cache line and holds two entries. What `locations` says of homes, of the way from a home to an
//! entry's place, of splits and removals holds here too; the tests check it for every entry. It is filled less, so
//! that few keys are not in their home buckets: two ways overflow sooner than four.
//!
//! Entries are numbered, and keep their numbers when they move: who wants to change one later finds it without
//! hashing. The numbers lie beside the buckets, where no lookup reads them.

use super::entry::{Addr, Found, Scope, Words};
use super::filter::{Bits, Filter};
use crate::locations::Home;
use crate::{pages, prefetch};

/// Entries in one bucket.
const WAYS: usize = 2;
/// Words in one bucket.
const WORDS: usize = 8;
/// Buckets that have homes from the start: 64 KiB.
const FEWEST: usize = 1024;
/// Entries for each bucket with homes, in tenths, beyond which the number of these doubles. At 6 one bucket in forty
/// overflows.
const LOAD: usize = 6;
/// Buckets that one insertion splits.
const SPLITS: usize = 4;
/// Entries that one split moves at most.
const MOVED: usize = 32;
/// Buckets with homes from which on they do not lie in a core's own caches: 1 MiB.
const FAR: u32 = 1 << 14;

type Bucket = [[u64; WORDS / WAYS]; WAYS];

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
    /// What of a hash depends on the scope alone.
    #[inline(always)]
    fn mix(&self, scope: Scope) -> u64 {
        (scope.0 >> Scope::SHIFT).wrapping_add(1).wrapping_mul(self.seed[1])
    }

    /// One wide multiplication, folded; the lower bits count.
    #[inline(always)]
    fn hash(&self, addr: Addr, mix: u64) -> u32 {
        let p = u128::from(addr.hi ^ self.seed[0]) * u128::from(addr.lo ^ mix);
        (p as u64 ^ (p >> 64) as u64) as u32
    }

    #[inline(always)]
    fn of(&self, addr: Addr, mix: u64) -> Home {
        let mut at = self.hash(addr, mix) & self.mask;
        if at >= self.count {
            // Only while the number of homes doubles: this bucket has not been split yet.
            core::hint::cold_path();
            at &= self.mask >> 1;
        }
        Home(at)
    }

    fn hash_of(&self, words: &Words) -> u32 {
        self.hash(words.addr(), self.mix(words.scope()))
    }

    fn home_of(&self, words: &Words) -> u32 {
        self.of(words.addr(), self.mix(words.scope())).0
    }
}

/// A scope, and what its hashes have in common.
#[derive(Clone, Copy)]
pub(super) struct Mixed {
    pub scope: Scope,
    mix: u64,
}

/// The table as a burst reads it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    buckets: &'a [Bucket],
    spilled: &'a [u64],
    filter: Bits<'a>,
    homes: Homes,
    last: u32,
}

impl View<'_> {
    /// 1 where there may be a prefix, and 0 where there is none.
    #[inline(always)]
    pub fn may_be(&self, addr: Addr, of: Mixed) -> u64 {
        self.filter.of(self.homes.hash(addr, of.mix))
    }

    #[inline(always)]
    pub fn mixed(&self, scope: Scope) -> Mixed {
        Mixed { scope, mix: self.homes.mix(scope) }
    }

    #[inline(always)]
    pub fn home(&self, addr: Addr, of: Mixed) -> Home {
        self.homes.of(addr, of.mix)
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> &Bucket {
        &self.buckets[at as usize]
    }

    /// A key may have gone on from its home.
    #[inline(always)]
    fn has_spilled(&self, home: Home) -> bool {
        self.spilled[home.0 as usize / 64] >> (home.0 % 64) & 1 == 1
    }

    /// Asks the cache for a key's home bucket, and for the next one if keys have gone on to it.
    #[inline(always)]
    pub fn prefetch(&self, home: Home) {
        let bucket = self.bucket(home.0);
        prefetch::read(bucket);
        if self.homes.mask >= FAR {
            // No branch: the same line again costs nothing.
            prefetch::near(bucket, -(isize::from(self.has_spilled(home)) * 64));
        }
    }

    /// What is there for a key whose home was computed, and prefetched, before.
    #[inline(always)]
    pub fn get_at(&self, home: Home, addr: Addr, scope: Scope) -> Option<Found> {
        let b = self.bucket(home.0);
        // The lower halves of two addresses in one bucket are hardly ever the same: one entry is compared in full. No
        // branch depends on which it is.
        let words = Words(b[usize::from(b[1][1] == addr.lo)]);
        if words.is(addr, scope) {
            return words.found();
        }
        if b[0][1] != addr.lo && !self.has_spilled(home) {
            return None;
        }
        self.get_further(home, addr, scope)
    }

    /// Apart, so that who looks up a burst keeps its registers.
    #[cold]
    #[inline(never)]
    fn get_further(&self, home: Home, addr: Addr, scope: Scope) -> Option<Found> {
        let mut at = home.0;
        loop {
            let b = self.bucket(at);
            let found = found_in(b, addr, scope);
            if found.is_some() || room_in(b).is_some() {
                return found;
            }
            at = if at == self.last { 0 } else { at + 1 };
        }
    }
}

/// What a bucket has for a key. An empty slot has the scope 0, which no key has.
fn found_in(b: &Bucket, addr: Addr, scope: Scope) -> Option<Found> {
    b.iter().map(|words| Words(*words)).find(|words| words.is(addr, scope))?.found()
}

#[inline]
fn room_in(b: &Bucket) -> Option<usize> {
    (0..WAYS).find(|&w| Words(b[w]).is_empty())
}

/// A slot: bucket and way in one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(u32);

impl Place {
    fn new(at: u32, way: usize) -> Place {
        Place(at * WAYS as u32 + way as u32)
    }

    fn bucket(self) -> u32 {
        self.0 / WAYS as u32
    }

    fn way(self) -> usize {
        self.0 as usize % WAYS
    }
}

/// An entry on its way from one slot to another.
#[derive(Clone, Copy)]
struct Entry {
    words: Words,
    number: u32,
}

pub(super) struct Table {
    words: Vec<u64>,
    /// Where the first bucket begins, so that each begins a cache line.
    first: usize,
    /// The last bucket; their number is a power of two.
    last: u32,
    homes: Homes,
    /// From which buckets a key has gone on, of those that are its home.
    spilled: Vec<u64>,
    filter: Filter,
    /// The number of each slot's entry.
    numbers: Vec<u32>,
    /// The place of each number's entry.
    places: Vec<u32>,
    len: usize,
    capacity: usize,
}

impl Table {
    pub fn new(capacity: usize, seed: [u64; 2]) -> Table {
        Table::with_homes(capacity, FEWEST, seed)
    }

    fn with_homes(capacity: usize, fewest: usize, seed: [u64; 2]) -> Table {
        assert!(capacity <= 1 << 29, "a table of {capacity} routes");
        let buckets = (capacity.max(1) * 10).div_ceil(LOAD).next_power_of_two();
        let words = pages::zeroed((buckets + 1) * WORDS);
        let first = words.as_ptr().align_offset(64).min(WORDS);
        // Odd multipliers spread even a seed of zeros.
        let seed = [(seed[0] ^ 0x9e37_79b9_7f4a_7c15) | 1, (seed[1] ^ 0xd6e8_feb8_6659_fd93) | 1];
        let count = buckets.min(fewest) as u32;
        Table {
            words,
            first,
            last: buckets as u32 - 1,
            homes: Homes { seed, count, mask: count - 1 },
            spilled: vec![0; buckets.div_ceil(64)],
            filter: Filter::new(),
            numbers: vec![0; buckets * WAYS],
            places: vec![0; capacity],
            len: 0,
            capacity,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    #[inline(always)]
    pub fn view(&self) -> View<'_> {
        let (entries, _) = self.words[self.first..].as_chunks();
        let (buckets, _) = entries.as_chunks();
        View {
            buckets,
            spilled: &self.spilled,
            filter: self.filter.bits(),
            homes: self.homes,
            last: self.last,
        }
    }

    fn bucket(&self, at: u32) -> Bucket {
        *self.view().bucket(at)
    }

    fn home(&self, words: &Words) -> u32 {
        self.homes.home_of(words)
    }

    /// The bucket after `at`; the first follows the last.
    fn after(&self, at: u32) -> u32 {
        (at + 1) & self.last
    }

    /// The place of a key, and the number of its entry.
    pub fn find(&self, addr: Addr, scope: Scope) -> Option<(Place, u32)> {
        let mut at = self.homes.of(addr, self.homes.mix(scope)).0;
        loop {
            let b = self.bucket(at);
            if let Some(way) = (0..WAYS).find(|&w| Words(b[w]).is(addr, scope)) {
                let place = Place::new(at, way);
                return Some((place, self.numbers[place.0 as usize]));
            }
            if room_in(&b).is_some() {
                return None;
            }
            at = self.after(at);
        }
    }

    /// The place of the entry with a number.
    pub fn place(&self, number: u32) -> Place {
        Place(self.places[number as usize])
    }

    pub fn get(&self, place: Place) -> Words {
        Words(self.bucket(place.bucket())[place.way()])
    }

    /// Changes what an entry says; its key stays.
    pub fn set(&mut self, place: Place, found: Found) {
        let words = Words::new(self.get(place).addr(), found);
        self.write(place, words);
    }

    /// Adds an entry whose key is not there, under a number that no entry has: one below the capacity.
    pub fn insert(&mut self, words: Words, number: u32) {
        debug_assert!(!self.is_full(), "there are no more numbers than room");
        if !words.scope().is_host() {
            self.filter.add(self.homes.hash_of(&words));
        }
        self.add(Entry { words, number });
        self.grow();
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

    /// Gives the next bucket homes: those of the keys of one other bucket that hash to it. `false`, and nothing has
    /// changed, where there are too many of them.
    fn split(&mut self) -> bool {
        let to = self.homes.count;
        let mut moved = [Entry { words: Words::EMPTY, number: 0 }; MOVED];
        let mut n = 0;
        while let Some(place) = self.one_for(to) {
            if n == MOVED {
                moved.iter().for_each(|&entry| self.add(entry));
                return false;
            }
            moved[n] = self.take(place);
            n += 1;
        }
        self.homes.count += 1;
        moved[..n].iter().for_each(|&entry| self.add(entry));
        true
    }

    /// An entry whose home will be bucket `to`: until then it is the one that `to` splits, and the entry lies there or
    /// in the full buckets after it.
    fn one_for(&self, to: u32) -> Option<Place> {
        let from = to & (self.homes.mask >> 1);
        let mut at = from;
        loop {
            let b = self.bucket(at);
            let wanted = |w: Words| !w.is_empty() && self.homes.hash_of(&w) & self.homes.mask == to;
            if let Some(way) = (0..WAYS).find(|&way| wanted(Words(b[way]))) {
                return Some(Place::new(at, way));
            }
            at = self.after(at);
            if room_in(&b).is_some() || at == from {
                return None;
            }
        }
    }

    /// Puts an entry that is not in the table into the first room on its way.
    fn add(&mut self, entry: Entry) {
        let home = self.home(&entry.words);
        let mut at = home;
        let way = loop {
            match room_in(&self.bucket(at)) {
                Some(way) => break way,
                None => at = self.after(at),
            }
        };
        if at != home {
            self.spilled[home as usize / 64] |= 1 << (home % 64);
        }
        self.put(Place::new(at, way), entry);
        self.len += 1;
    }

    fn write(&mut self, place: Place, words: Words) {
        let from = self.first + place.0 as usize * (WORDS / WAYS);
        self.words[from..from + WORDS / WAYS].copy_from_slice(&words.0);
    }

    fn put(&mut self, place: Place, entry: Entry) {
        self.write(place, entry.words);
        self.numbers[place.0 as usize] = entry.number;
        self.places[entry.number as usize] = place.0;
    }

    /// Removes the entry at a place.
    pub fn remove(&mut self, place: Place) {
        let words = self.take(place).words;
        if !words.scope().is_host() {
            self.filter.remove(self.homes.hash_of(&words));
        }
    }

    /// Removes an entry; one that passed its bucket on its way is moved into the gap, and so on.
    fn take(&mut self, place: Place) -> Entry {
        let entry = self.entry(place);
        let was_full = room_in(&self.bucket(place.bucket())).is_none();
        self.write(place, Words::EMPTY);
        self.len -= 1;
        if was_full {
            self.close_gap(place);
        }
        entry
    }

    fn entry(&self, place: Place) -> Entry {
        Entry { words: self.get(place), number: self.numbers[place.0 as usize] }
    }

    /// Fills a gap in a bucket that was full from the buckets after it.
    fn close_gap(&mut self, mut gap: Place) {
        let mut at = gap.bucket();
        loop {
            at = self.after(at);
            if at == gap.bucket() {
                // Every other bucket is full; nothing passed this one that did not come round.
                break;
            }
            let b = self.bucket(at);
            let was_full = room_in(&b).is_none();
            let passed = |w: Words| !w.is_empty() && self.passed(&w, gap.bucket(), at);
            if let Some(way) = (0..WAYS).find(|&way| passed(Words(b[way]))) {
                let from = Place::new(at, way);
                let entry = self.entry(from);
                self.put(gap, entry);
                self.write(from, Words::EMPTY);
                gap = from;
            }
            if !was_full {
                break;
            }
        }
        let gap = gap.bucket();
        self.spilled[gap as usize / 64] &= !(1 << (gap % 64));
    }

    /// On the way from its home to `at`, where it is, an entry came by `gap`.
    fn passed(&self, words: &Words, gap: u32, at: u32) -> bool {
        let travelled = at.wrapping_sub(self.home(words)) & self.last;
        travelled >= (at.wrapping_sub(gap) & self.last)
    }
}

#[cfg(test)]
mod tests;
