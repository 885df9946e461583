//! What may happen only after all workers have applied the updates so far.

use std::collections::BTreeMap;

use godwit_model::VmKey;
use godwit_tables::update::{DomainIdx, TunnelIdx, VnIdx};

use crate::config::WorkerSet;

/// What waits for the workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    /// Tell the NVA that its update is in effect; void in another session.
    Ack { session: u64, ack_id: u64 },
    /// Let the claim go out (R46c).
    Claim { key: VmKey, seq: u64 },
    /// The number names nothing any more and may be given out again.
    FreeVn(VnIdx),
    /// Likewise.
    FreeTunnel(TunnelIdx),
    /// Likewise.
    FreeDomain(DomainIdx),
}

#[derive(Debug)]
struct Waiting {
    workers: WorkerSet,
    then: Vec<After>,
}

/// Barriers on their way through the workers' mailboxes.
#[derive(Default, Debug)]
pub(crate) struct Barriers {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    batch: Vec<After>,
}

impl Barriers {
    /// Adds to what the barrier at the end of this input will release.
    pub(crate) fn after_applied(&mut self, what: After) {
        self.batch.push(what);
    }

    /// Something waits for the barrier at the end of this input.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Issues it: the token to send to all of `workers`. Without workers there is nothing to wait
    /// for: what waited is handed back.
    pub(crate) fn issue(&mut self, workers: WorkerSet) -> Result<u64, Vec<After>> {
        let then = core::mem::take(&mut self.batch);
        if workers.is_empty() {
            return Err(then);
        }
        self.last += 1;
        self.waiting.insert(self.last, Waiting { workers, then });
        Ok(self.last)
    }

    /// A worker has applied everything up to `token`; what may happen now, in order.
    pub(crate) fn applied(&mut self, worker: usize, token: u64) -> Vec<After> {
        for (_, w) in self.waiting.range_mut(..=token) {
            w.workers = w.workers.without(worker);
        }
        self.take_complete()
    }

    /// A worker left: nothing waits for it any more.
    pub(crate) fn worker_left(&mut self, worker: usize) -> Vec<After> {
        self.applied(worker, u64::MAX)
    }

    fn take_complete(&mut self) -> Vec<After> {
        let mut released = Vec::new();
        self.waiting.retain(|_, w| {
            let complete = w.workers.is_empty();
            if complete {
                released.append(&mut w.then);
            }
            !complete
        });
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_when_the_last_worker_has_applied() {
        let ack = |ack_id| After::Ack { session: 1, ack_id };
        let mut b = Barriers::default();
        b.after_applied(ack(1));
        let first = b.issue(WorkerSet::first(2)).unwrap();
        b.after_applied(ack(2));
        let second = b.issue(WorkerSet::first(2)).unwrap();
        assert!(b.applied(0, second).is_empty());
        assert_eq!(b.applied(1, first), [ack(1)]);
        assert_eq!(b.worker_left(1), [ack(2)]);
        b.after_applied(ack(3));
        assert_eq!(b.issue(WorkerSet::EMPTY), Err(vec![ack(3)]));
    }
}
