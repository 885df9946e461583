//! What the directory does not have, for as long as its word counts (R36).

use godwit_model::Deadlines;
use godwit_wire::Instant;

/// Negative answers of one kind, so many at most. Of more the one that ends first goes: it would be asked about
/// again the soonest in any case.
#[derive(Debug)]
pub(crate) struct NegativeCache<K> {
    ends: Deadlines<K>,
    capacity: usize,
}

impl<K: Ord + Copy> NegativeCache<K> {
    pub(crate) fn new(capacity: usize) -> NegativeCache<K> {
        NegativeCache { ends: Deadlines::default(), capacity }
    }

    /// `key` is absent until then; returns which other answer had to go for it.
    pub(crate) fn insert(&mut self, key: K, until: Instant) -> Option<K> {
        let is_full = !self.ends.has(key) && self.ends.len() >= self.capacity;
        let evicted = if is_full { self.ends.pop_first() } else { None };
        self.ends.set(key, Some(until));
        evicted
    }

    pub(crate) fn remove(&mut self, key: K) {
        self.ends.set(key, None);
    }

    /// When the answer on `key` ends.
    pub(crate) fn get(&self, key: K) -> Option<Instant> {
        self.ends.get(key)
    }

    /// Takes out those that have ended; `Instant::NEVER` takes all.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<K> {
        self.ends.take_due(now)
    }

    /// All, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, Instant)> + '_ {
        self.ends.range(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r36_of_too_many_negative_answers_the_oldest_goes() {
        let mut n = NegativeCache::new(3);
        for (key, until) in [(1, 10), (2, 30), (3, 20)] {
            assert_eq!(n.insert(key, Instant(until)), None);
        }
        assert_eq!(n.insert(1, Instant(40)), None, "the same once more needs no room");
        assert_eq!(n.insert(4, Instant(50)), Some(3), "the one that ends first");
        assert_eq!((n.get(3), n.get(1), n.get(4)), (None, Some(Instant(40)), Some(Instant(50))));
        n.remove(2);
        assert_eq!(n.insert(5, Instant(60)), None, "what was removed left room");
    }

    #[test]
    fn what_has_ended_goes_and_nothing_else() {
        let mut n = NegativeCache::new(10);
        for key in 0..10_u64 {
            n.insert(key, Instant(key + 1));
        }
        assert_eq!(n.expire(Instant(4)), [0, 1, 2, 3]);
        assert_eq!(n.iter().count(), 6);
        assert_eq!(n.expire(Instant::NEVER).len(), 6);
        assert_eq!((n.iter().count(), n.ends.len()), (0, 0));
    }
}
