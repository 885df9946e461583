//! Deadlines by key: each key has at most one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use godwit_wire::Instant;

/// A set of keys with one deadline each, handed out earliest first and, at the same time, in the
/// order of the keys, so that a run can be repeated exactly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deadlines<K> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Deadlines { at: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Sets, moves or (`None`) clears the deadline of `key`.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.at.insert(key, at),
            None => self.at.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, key));
        }
        self.order.extend(at.map(|at| (at, key)));
    }

    /// Sets the deadline of `key` unless it has one.
    pub fn arm(&mut self, key: K, at: Instant) {
        if !self.has(key) {
            self.set(key, Some(at));
        }
    }

    /// Puts the deadline of `key` off to `at`, unless it is later already.
    pub fn extend(&mut self, key: K, at: Instant) {
        self.set(key, self.get(key).max(Some(at)));
    }

    /// The deadline of `key`.
    pub fn get(&self, key: K) -> Option<Instant> {
        self.at.get(&key).copied()
    }

    /// `key` has a deadline.
    pub fn has(&self, key: K) -> bool {
        self.at.contains_key(&key)
    }

    /// Keys with a deadline.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// No key has one.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the earliest key; its deadline is cleared.
    pub fn pop_first(&mut self) -> Option<K> {
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    /// Takes the earliest key, if there are more than `max`.
    pub fn pop_beyond(&mut self, max: usize) -> Option<K> {
        if self.len() > max { self.pop_first() } else { None }
    }

    /// Takes the earliest key that is due at `now`; its deadline is cleared.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now { None } else { self.pop_first() }
    }

    /// Takes all that are due at `now`, earliest first.
    pub fn take_due(&mut self, now: Instant) -> Vec<K> {
        core::iter::from_fn(|| self.pop_due(now)).collect()
    }

    /// The keys of a range with their deadlines, by key.
    pub fn range(&self, keys: impl RangeBounds<K>) -> impl Iterator<Item = (K, Instant)> {
        self.at.range(keys).map(|(k, at)| (*k, *at))
    }

    /// Clears the deadlines of all keys but such.
    pub fn retain(&mut self, stays: impl Fn(&K) -> bool) {
        self.at.retain(|key, _| stays(key));
        self.order.retain(|(_, key)| stays(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_one_deadline_a_key() {
        let mut t = Deadlines::default();
        t.set('b', Some(Instant(5)));
        t.set('a', Some(Instant(5)));
        t.set('c', Some(Instant(1)));
        t.set('c', Some(Instant(9)));
        assert_eq!(t.next(), Some(Instant(5)));
        assert_eq!(t.pop_due(Instant(4)), None);
        assert_eq!(t.pop_due(Instant(5)), Some('a'));
        t.set('b', None);
        assert_eq!(t.pop_due(Instant(8)), None);
        assert_eq!(t.pop_due(Instant(9)), Some('c'));
        assert_eq!(t.next(), None);
    }

    #[test]
    fn a_deadline_is_put_off_and_not_brought_forward() {
        let mut t = Deadlines::default();
        t.extend('a', Instant(5));
        t.extend('a', Instant(3));
        t.arm('a', Instant(9));
        assert_eq!(t.get('a'), Some(Instant(5)));
        t.extend('a', Instant(7));
        t.set('b', Some(Instant(6)));
        t.set('c', Some(Instant(8)));
        t.retain(|key| *key != 'b');
        assert_eq!(t.range('a'..='b').collect::<Vec<_>>(), [('a', Instant(7))]);
        assert_eq!((t.len(), t.take_due(Instant::NEVER)), (2, vec!['a', 'c']));
        assert!(t.is_empty() && t.next().is_none());
    }
}
