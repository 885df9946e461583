//! What the directory does not have, for as long as its word counts (R36).

use std::collections::{BTreeMap, BTreeSet};

use godwit_wire::Instant;

/// Negative answers of one kind, so many at most. Of more the one that ends first goes: it would be asked about
/// again the soonest in any case.
#[derive(Debug)]
pub(crate) struct NegativeCache<K> {
    ends: BTreeMap<K, Instant>,
    /// The same by end.
    order: BTreeSet<(Instant, K)>,
    capacity: usize,
}

impl<K: Ord + Copy> NegativeCache<K> {
    pub(crate) fn new(capacity: usize) -> NegativeCache<K> {
        NegativeCache { ends: BTreeMap::new(), order: BTreeSet::new(), capacity }
    }

    /// `key` is absent until then; returns which other answer had to go for it.
    pub(crate) fn insert(&mut self, key: K, until: Instant) -> Option<K> {
        self.remove(key);
        let evicted = if self.ends.len() >= self.capacity { self.order.pop_first() } else { None };
        if let Some((_, oldest)) = evicted {
            self.ends.remove(&oldest);
        }
        self.ends.insert(key, until);
        self.order.insert((until, key));
        evicted.map(|(_, oldest)| oldest)
    }

    pub(crate) fn remove(&mut self, key: K) {
        if let Some(until) = self.ends.remove(&key) {
            self.order.remove(&(until, key));
        }
    }

    /// When the answer on `key` ends.
    pub(crate) fn get(&self, key: K) -> Option<Instant> {
        self.ends.get(&key).copied()
    }

    /// Takes out those that have ended; `Instant::NEVER` takes all.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<K> {
        let mut over = Vec::new();
        while let Some(&(until, key)) = self.order.first()
            && until <= now
        {
            self.order.pop_first();
            self.ends.remove(&key);
            over.push(key);
        }
        over
    }

    /// All, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, Instant)> + '_ {
        self.ends.iter().map(|(k, t)| (*k, *t))
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
        assert_eq!((n.iter().count(), n.order.len()), (0, 0));
    }
}
