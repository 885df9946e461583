//! Deadlines by key: each key has at most one.

use std::collections::{BTreeMap, BTreeSet};

use godwit_wire::Instant;

/// A set of keys with one deadline each, handed out earliest first and, at the same time, in the
/// order of the keys, so that a run can be repeated exactly.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers { at: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Sets, moves or (`None`) clears the deadline of `key`.
    pub(crate) fn set(&mut self, key: K, at: Option<Instant>) {
        if self.at.get(&key).copied() == at {
            return;
        }
        if let Some(old) = self.at.remove(&key) {
            self.order.remove(&(old, key));
        }
        if let Some(at) = at {
            self.at.insert(key, at);
            self.order.insert((at, key));
        }
    }

    /// Sets the deadline of `key` unless it has one.
    pub(crate) fn arm(&mut self, key: K, at: Instant) {
        if !self.at.contains_key(&key) {
            self.set(key, Some(at));
        }
    }

    /// Takes the earliest key that is due at `now`; its deadline is cleared.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_one_deadline_a_key() {
        let mut t = Timers::default();
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
}
