//! How a worker spends its time: what an operator asks when frames get lost at 3 a.m.
//!
//! Iterations are timed by the loop's own clock, which it reads anyway; queues are timed in one iteration
//! of some. Nothing here allocates.

use godwit_wire::Instant;

/// An iteration longer than this is written down, in nanoseconds.
pub const LONG_NS: u64 = 200_000;

/// Long iterations that are remembered; the oldest goes first.
pub const LONG_KEPT: usize = 32;

/// Sub-buckets of a doubling, as a power of two: no value is off by more than an eighth.
const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;
/// Doublings: up to 2^36 ns, a minute.
const BUCKETS: usize = (36 - SUB_BITS as usize + 1) * SUB as usize;

/// Counts of durations in nanoseconds, in buckets that grow with their values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS], max: 0 }
    }
}

impl Histogram {
    /// Counts a duration.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.max = self.max.max(ns);
        self.counts[bucket(ns)] += 1;
    }

    /// Durations counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The longest, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value below or at which `share` (0 to 1) of the durations lie, rounded up to its bucket's
    /// end; 0 where nothing was counted.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, &n) in self.counts.iter().enumerate() {
            seen += n;
            if n > 0 && seen >= wanted {
                return upper(i).min(self.max);
            }
        }
        0
    }

    /// Buckets that are not empty: the largest value of each, in nanoseconds, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(i, &n)| (upper(i), n))
    }

    /// Adds another worker's or another time's counts.
    pub fn merge(&mut self, other: &Histogram) {
        self.max = self.max.max(other.max);
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a += b;
        }
    }
}

/// The bucket of a value: exact below 16, then eight to a doubling.
#[inline]
fn bucket(ns: u64) -> usize {
    if ns < SUB {
        return ns as usize;
    }
    let doubling = ns.ilog2() - SUB_BITS;
    let sub = (ns >> doubling) - SUB;
    ((u64::from(doubling) + 1) * SUB + sub).min(BUCKETS as u64 - 1) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let (doubling, sub) = (bucket as u64 / SUB, bucket as u64 % SUB);
    if doubling == 0 { sub } else { ((SUB + sub + 1) << (doubling - 1)) - 1 }
}

/// What one receive queue brought.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QueuePerf {
    /// Bursts that were not empty.
    pub bursts: u64,
    /// Frames in them.
    pub packets: u64,
    /// Those of the bursts that were timed.
    pub timed_packets: u64,
    /// Ticks that receiving and processing these took; 0 where the queues have no tick counter.
    pub ticks: u64,
}

/// An iteration that took longer than [`LONG_NS`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Long {
    /// When it began.
    pub at: Instant,
    /// How long it took, in nanoseconds.
    pub ns: u64,
    /// Frames that came in during it.
    pub packets: u32,
    /// Orders carried out in it.
    pub orders: u32,
    /// How often the system took the core away during it or since the long one before.
    pub preempted: u64,
}

/// A worker's record since its start or the last reset.
#[derive(Clone, Debug)]
pub struct Perf {
    /// When it began.
    pub since: Instant,
    /// Time in iterations with something to do, in nanoseconds.
    pub busy_ns: u64,
    /// Time in the others, sleep included, in nanoseconds.
    pub idle_ns: u64,
    /// Lengths of busy iterations.
    pub iterations: Histogram,
    /// From the moment control sent an update until an iteration later, when it surely had effect.
    pub mailbox: Histogram,
    /// Long iterations in all.
    pub long_count: u64,
    long: [Long; LONG_KEPT],
    preempted: u64,
}

impl Perf {
    /// Nothing yet.
    pub fn new(now: Instant) -> Perf {
        Perf {
            since: now,
            busy_ns: 0,
            idle_ns: 0,
            iterations: Histogram::default(),
            mailbox: Histogram::default(),
            long_count: 0,
            long: [Long::default(); LONG_KEPT],
            preempted: 0,
        }
    }

    /// Begins anew.
    pub fn reset(&mut self, now: Instant) {
        *self = Perf { preempted: self.preempted, ..Perf::new(now) };
    }

    /// The long iterations that are remembered, the newest first.
    pub fn long(&self) -> impl Iterator<Item = Long> + '_ {
        let n = self.long_count as usize;
        (0..n.min(LONG_KEPT)).map(move |i| self.long[(n - 1 - i) % LONG_KEPT])
    }

    /// Counts the iteration that ended. `preemptions` tells how often the system has taken the core
    /// so far; it is asked for long ones only.
    #[inline]
    pub fn iteration(&mut self, done: Iteration, ended: Instant, preemptions: impl FnOnce() -> u64) {
        let ns = ended.0.saturating_sub(done.began.0);
        if !done.busy {
            self.idle_ns += ns;
            return;
        }
        self.busy_ns += ns;
        self.iterations.record(ns);
        if ns > LONG_NS {
            self.remember(done, ns, preemptions());
        }
    }

    #[cold]
    #[inline(never)]
    fn remember(&mut self, done: Iteration, ns: u64, preemptions: u64) {
        let preempted = preemptions.saturating_sub(self.preempted);
        self.preempted = preemptions;
        let Iteration { began: at, packets, orders, .. } = done;
        self.long[self.long_count as usize % LONG_KEPT] = Long { at, ns, packets, orders, preempted };
        self.long_count += 1;
    }
}

/// What is noted of an iteration while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Iteration {
    /// When it began.
    pub began: Instant,
    /// There was something to do.
    pub busy: bool,
    /// Frames that came in.
    pub packets: u32,
    /// Orders carried out.
    pub orders: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_are_dense_and_ascend() {
        let mut last = None;
        for i in 0..BUCKETS {
            assert!(last.is_none_or(|l| upper(i) > l));
            assert_eq!(bucket(upper(i)), i);
            last = Some(upper(i));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn long_iterations_are_remembered_newest_first() {
        let mut p = Perf::new(Instant(0));
        for n in 0..40u64 {
            let began = Instant(n * 1_000_000);
            let done = Iteration { began, busy: true, packets: n as u32, orders: 0 };
            p.iteration(done, Instant(began.0 + LONG_NS + 1 + n), || n);
        }
        let kept: Vec<u32> = p.long().map(|l| l.packets).collect();
        assert_eq!(kept, (8..40).rev().collect::<Vec<u32>>());
        assert_eq!((p.long_count, p.long().next().unwrap().preempted), (40, 1));
        assert_eq!(p.iterations.count(), 40);
        p.reset(Instant(7));
        assert_eq!((p.long_count, p.long().count(), p.since), (0, 0, Instant(7)));
    }

    #[test]
    fn idle_time_is_no_iteration() {
        let mut p = Perf::new(Instant(0));
        p.iteration(Iteration::default(), Instant(5_000_000), || panic!("idle iterations are never long"));
        assert_eq!((p.idle_ns, p.busy_ns, p.iterations.count()), (5_000_000, 0, 0));
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values_up_to_an_eighth(
            mut values in proptest::collection::vec(0u64..1 << 34, 1..200),
            share in 0.0f64..=1.0,
        ) {
            let mut h = Histogram::default();
            values.iter().for_each(|&v| h.record(v));
            values.sort_unstable();
            let at = ((values.len() as f64 * share).ceil() as usize).max(1) - 1;
            let (exact, got) = (values[at], h.quantile(share));
            prop_assert!(got >= exact && got as f64 <= exact as f64 * 1.125 + 1.0, "{got} for {exact}");
            prop_assert_eq!(h.max(), *values.last().unwrap());
            prop_assert_eq!(h.buckets().map(|(_, n)| n).sum::<u64>(), values.len() as u64);
        }
    }
}
