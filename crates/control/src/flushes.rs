//! Flushes on their way through the workers: what may be said only when all that they had of a VM's frames has left
//! (R77).

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::{Locators, VmKey};
use godwit_wire::{Instant, Span};

use crate::config::WorkerSet;

/// Flushes under way; beyond it none begins.
const MAX_FLUSHES: usize = 1024;
/// An answer that has not come by then is lost: workers are more patient with nothing.
const LIFE: Span = Span::from_ms(1000);

/// What waits for a flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flushed {
    /// The last frame by a VM's old path has left here.
    Path { key: VmKey, number: u64 },
    /// What the NVE at `sender` sent before its end marker has left here.
    End { key: VmKey, sender: IpAddr, number: u64 },
    /// What a VM that is paused or gone has sent from here has left.
    SentAll { key: VmKey, to: Locators },
}

#[derive(Debug)]
struct Waiting {
    /// Answers that are due, by worker.
    left: BTreeMap<usize, usize>,
    until: Instant,
    then: Flushed,
}

/// Flushes on their way.
#[derive(Default, Debug)]
pub(crate) struct Flushes {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
}

impl Flushes {
    /// Begins one, which each of `workers` answers `answers` times; `None`: nobody would answer, or there are too
    /// many.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        workers: WorkerSet,
        answers: usize,
        then: Flushed,
    ) -> Option<u64> {
        if self.waiting.len() >= MAX_FLUSHES {
            self.waiting.retain(|_, w| w.until > now);
        }
        if workers.is_empty() || answers == 0 || self.waiting.len() >= MAX_FLUSHES {
            return None;
        }
        self.last += 1;
        let left = workers.iter().map(|w| (w, answers)).collect();
        self.waiting.insert(self.last, Waiting { left, until: now + LIFE, then });
        Some(self.last)
    }

    /// A worker has answered; what may be done now, if it was the last.
    pub(crate) fn answered(&mut self, worker: usize, token: u64) -> Option<Flushed> {
        let w = self.waiting.get_mut(&token)?;
        let due = w.left.get_mut(&worker)?;
        *due -= 1;
        if *due == 0 {
            w.left.remove(&worker);
        }
        if !w.left.is_empty() {
            return None;
        }
        self.waiting.remove(&token).map(|w| w.then)
    }

    /// A worker left: nothing waits for it any more.
    pub(crate) fn worker_left(&mut self, worker: usize) -> Vec<Flushed> {
        let over = self.waiting.extract_if(.., |_, w| {
            w.left.remove(&worker);
            w.left.is_empty()
        });
        over.map(|(_, w)| w.then).collect()
    }
}

#[cfg(test)]
mod tests {
    use godwit_wire::{Mac, Vni};

    use super::*;

    #[test]
    fn r77_a_flush_is_over_when_the_last_worker_has_answered_for_the_last_mac() {
        let key = VmKey { vni: Vni::from_low24(1), mac: Mac([2, 0, 0, 0, 0, 1]) };
        let then = |number| Flushed::Path { key, number };
        let mut f = Flushes::default();
        let now = Instant(5);
        let token = f.begin(now, WorkerSet::first(2), 2, then(1)).unwrap();
        assert_eq!([f.answered(0, token), f.answered(1, token), f.answered(0, token)], [None; 3]);
        assert_eq!(f.answered(0, token), None, "more than it was asked for");
        assert_eq!(f.answered(1, token), Some(then(1)));
        assert_eq!(f.answered(1, token), None);

        let token = f.begin(now, WorkerSet::first(2), 1, then(2)).unwrap();
        assert_eq!(f.answered(0, token), None);
        assert_eq!(f.worker_left(1), [then(2)]);
        assert_eq!(f.begin(now, WorkerSet::EMPTY, 1, then(3)), None);

        // Answers that were lost take no room for good.
        let many = (0..MAX_FLUSHES).filter_map(|_| f.begin(now, WorkerSet::first(1), 1, then(4))).count();
        assert_eq!(many, MAX_FLUSHES);
        assert_eq!(f.begin(now, WorkerSet::first(1), 1, then(5)), None);
        assert!(f.begin(now + LIFE, WorkerSet::first(1), 1, then(6)).is_some());
    }
}
