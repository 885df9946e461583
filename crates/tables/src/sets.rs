//! Sets of integers in memory of fixed size, for what a frame is compared with: a few words are looked at, whatever a
//! VM chooses to send.

use crate::OutOfRange;

/// What a [`Set`] holds.
pub(crate) trait Item: Copy + Eq {
    /// Never a member: it marks a free place.
    const NONE: Self;
    /// Bits that a seed spreads: VMs choose items, and nobody outside knows the seed.
    fn spread(self, seed: u64) -> u64;
}

/// Spreads even where nobody gave a seed.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Item for u32 {
    const NONE: u32 = 0;

    #[inline(always)]
    fn spread(self, seed: u64) -> u64 {
        u64::from(self).wrapping_mul((seed ^ GOLDEN) | 1)
    }
}

impl Item for u64 {
    const NONE: u64 = 0;

    #[inline(always)]
    fn spread(self, seed: u64) -> u64 {
        fold(self ^ seed, (seed ^ GOLDEN) | 1)
    }
}

impl Item for u128 {
    const NONE: u128 = 0;

    #[inline(always)]
    fn spread(self, seed: u64) -> u64 {
        fold(self as u64 ^ seed ^ GOLDEN, (self >> 64) as u64 ^ seed.rotate_left(32) ^ !GOLDEN)
    }
}

/// At most a good half of `N` items; `N` is a power of two.
#[derive(Clone, Debug)]
pub(crate) struct Set<T, const N: usize> {
    places: [T; N],
    len: u16,
}

impl<T: Item, const N: usize> Set<T, N> {
    pub(crate) const EMPTY: Self = Set { places: [T::NONE; N], len: 0 };

    #[inline(always)]
    fn home(item: T, seed: u64) -> usize {
        (item.spread(seed) >> (64 - N.trailing_zeros())) as usize
    }

    /// Where the item is, or the free place where it would be.
    #[inline(always)]
    fn place(&self, item: T, seed: u64) -> usize {
        let mut at = Self::home(item, seed) % N;
        // Not all places are taken, so this ends.
        while self.places[at] != item && self.places[at] != T::NONE {
            at = (at + 1) % N;
        }
        at
    }

    #[inline(always)]
    pub(crate) fn contains(&self, item: T, seed: u64) -> bool {
        item != T::NONE && self.places[self.place(item, seed)] == item
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item, of at most `most`.
    pub(crate) fn add(&mut self, item: T, most: usize, seed: u64) -> Result<(), OutOfRange> {
        let at = self.place(item, seed);
        if item == T::NONE || self.places[at] == item {
            return Ok(());
        }
        if usize::from(self.len) >= most.min(N - 1) {
            return Err(OutOfRange);
        }
        self.places[at] = item;
        self.len += 1;
        Ok(())
    }

    /// Removes an item; true where it was there.
    pub(crate) fn remove(&mut self, item: T, seed: u64) -> bool {
        let mut free = self.place(item, seed);
        if item == T::NONE || self.places[free] != item {
            return false;
        }
        self.places[free] = T::NONE;
        self.len -= 1;
        // Those behind that could not have the free place before move up.
        let mut at = (free + 1) % N;
        while self.places[at] != T::NONE {
            let home = Self::home(self.places[at], seed) % N;
            if at.wrapping_sub(home) % N >= at.wrapping_sub(free) % N {
                self.places[free] = core::mem::replace(&mut self.places[at], T::NONE);
                free = at;
            }
            at = (at + 1) % N;
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.len.into()
    }

    /// Any item that `good` takes. Looks at all places: not for the packet path.
    pub(crate) fn some(&self, good: impl Fn(T) -> bool) -> Option<T> {
        self.places.iter().copied().find(|&i| i != T::NONE && good(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_holds_what_was_added_and_not_removed(
            seed in any::<u64>(),
            steps in proptest::collection::vec((any::<bool>(), 1u128..24), 0..200),
        ) {
            let (mut set, mut wanted) = (Set::<u128, 16>::EMPTY, BTreeSet::new());
            for (add, n) in steps {
                // Some differ in the upper half only.
                let item = if n % 3 == 0 { n << 64 } else { n };
                if add {
                    let full = wanted.len() == 10 && !wanted.contains(&item);
                    prop_assert_eq!(set.add(item, 10, seed).is_err(), full);
                    if !full {
                        wanted.insert(item);
                    }
                } else {
                    prop_assert_eq!(set.remove(item, seed), wanted.remove(&item));
                }
                for n in 1..24 {
                    for item in [n, n << 64] {
                        prop_assert_eq!(set.contains(item, seed), wanted.contains(&item));
                    }
                }
                prop_assert_eq!(set.is_empty(), wanted.is_empty());
                prop_assert_eq!(set.some(|_| true).is_some(), !wanted.is_empty());
            }
        }
    }
}
