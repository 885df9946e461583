//! What the service counts, for operators.

use std::time::Instant;

use godwit_counters::Entry;

godwit_counters::counters! {
    /// Counters of the service, since its start.
    Counts;

    /// Sessions ended because their NVE did not read: too many messages waited for it.
    sessions_overflowed: One,
    /// Batches of changes made durable.
    batches_committed: One,
    /// Changes of records made durable.
    writes_committed: One,
    /// Time from the hand-over of a batch to the store until it was durable, summed up.
    commit_time: Nanoseconds,
}

/// The counters, with the batch that the store has; it has one at a time.
#[derive(Default)]
pub(super) struct Meter {
    counts: Counts,
    committing: Option<(Instant, usize)>,
}

impl Meter {
    /// A batch of so many writes goes to the store; one without writes is none.
    pub fn handed_over(&mut self, writes: usize) {
        self.committing = (writes > 0).then(|| (Instant::now(), writes));
    }

    /// The batch is durable.
    pub fn durable(&mut self) {
        let Some((since, writes)) = self.committing.take() else { return };
        self.counts.batches_committed += 1;
        self.counts.writes_committed += writes as u64;
        self.counts.commit_time += u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }

    /// A session is ended because too much waits for it.
    pub fn overflowed(&mut self) {
        self.counts.sessions_overflowed += 1;
    }

    /// All counters.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + use<> {
        self.counts.entries()
    }
}
