//! Which prefixes there may be, so that a lookup need not look at the table for each length that a domain has.

/// Bits of a hash that name a bit of the filter: 64 KiB, which a core's nearer caches hold. Of 10,000 prefixes one in
/// fifty that are not there has a bit.
const BITS: u32 = 19;
/// Words that the bits are.
const WORDS: usize = 1 << (BITS - 6);

/// The filter as a burst reads it.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a>(&'a [u64; WORDS]);

impl Bits<'_> {
    /// 1 where there may be a prefix with the hash, and 0 where there is none.
    #[inline(always)]
    pub fn of(self, hash: u32) -> u64 {
        let bit = hash >> (u32::BITS - BITS);
        self.0[(bit / 64) as usize] >> (bit % 64) & 1
    }
}

/// A bit for each upper part of a hash, and how many prefixes have it.
pub(super) struct Filter {
    bits: Box<[u64; WORDS]>,
    /// Where no lookup reads them. One that is full stays so.
    counts: Vec<u8>,
}

impl Filter {
    pub fn new() -> Filter {
        // Zeros that nobody has touched take no memory.
        let bits = vec![0; WORDS].into_boxed_slice().try_into().expect("so many words");
        Filter { bits, counts: vec![0; 1 << BITS] }
    }

    pub fn bits(&self) -> Bits<'_> {
        Bits(&self.bits)
    }

    /// There is a prefix more with the hash.
    pub fn add(&mut self, hash: u32) {
        let bit = hash >> (u32::BITS - BITS);
        let count = &mut self.counts[bit as usize];
        *count = count.saturating_add(1);
        self.bits[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    /// There is one less.
    pub fn remove(&mut self, hash: u32) {
        let bit = hash >> (u32::BITS - BITS);
        let count = &mut self.counts[bit as usize];
        if *count < u8::MAX {
            *count = count.saturating_sub(1);
        }
        if *count == 0 {
            self.bits[(bit / 64) as usize] &= !(1 << (bit % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_added_and_not_removed_may_be_there(
            ops in proptest::collection::vec((any::<bool>(), 0u32..6), 0..200),
        ) {
            // Some share their upper bits, some do not.
            let hash = |n: u32| (n / 2) << 31 | (n / 3) << 20 | n;
            let bit = |n: u32| hash(n) >> (u32::BITS - BITS);
            let (mut filter, mut there) = (Filter::new(), [0; 6]);
            for (adds, n) in ops {
                match adds {
                    true => filter.add(hash(n)),
                    false if there[n as usize] > 0 => filter.remove(hash(n)),
                    false => continue,
                }
                there[n as usize] += if adds { 1 } else { -1 };
                for n in 0..6 {
                    let any = (0..6).any(|m| bit(m) == bit(n) && there[m as usize] > 0);
                    prop_assert_eq!(filter.bits().of(hash(n)), u64::from(any));
                }
            }
        }
    }

    #[test]
    fn a_count_that_was_full_once_stays() {
        let mut filter = Filter::new();
        (0..300).for_each(|_| filter.add(7));
        (0..300).for_each(|_| filter.remove(7));
        assert_eq!((filter.bits().of(7), filter.bits().of(u32::MAX)), (1, 0));
    }
}
