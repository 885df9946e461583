//! How a worker spends its time: what an operator asks when frames get lost at 3 a.m.
//!
//! Iterations are timed by the loop's own clock, which it reads anyway; queues are timed in one iteration
//! of some. Nothing here allocates.

use godwit_wire::Instant;

/// An iteration longer than this is written down, in nanoseconds.
pub const LONG_NS: u64 = 200_000;

/// How old the mark may be from which a long iteration's absence is told, in nanoseconds: what was away
/// between them counts as the iteration's, and a mark costs a system call.
const MARK_NS: u64 = 1_000_000;

/// An idle iteration as long as this slept or was away, in nanoseconds.
const ASLEEP_NS: u64 = 20_000;

/// Long iterations that are remembered; the oldest goes first.
pub const LONG_KEPT: usize = 32;

/// Sub-buckets of a doubling, as a power of two: no value is off by more than an eighth.
const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;
/// Doublings: up to 2^36 ns, a minute.
const BUCKETS: usize = (36 - SUB_BITS as usize + 1) * SUB as usize;

/// How a worker spent its iterations.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Work {
    /// Iterations of the loop.
    pub iterations: u64,
    /// Those in which there was something to do.
    pub busy: u64,
}

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
    /// It rests: it is looked at seldom, until there is something in it.
    pub resting: bool,
}

/// Looks at resting queues.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Looks {
    /// Looks.
    pub count: u64,
    /// Those that were timed.
    pub timed: u64,
    /// Ticks that these took; 0 where the queues have no tick counter.
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
    /// How long of it the core did something else, in nanoseconds: ran another thread, or, where a hypervisor
    /// says so, another machine. Up to a millisecond's other absences before it, each too short to be long, may be in
    /// it.
    pub away_ns: u64,
    /// How often the system took the core away during it or since the long one before.
    pub preempted: u64,
}

impl Long {
    /// What the worker itself took, in nanoseconds.
    pub fn own_ns(&self) -> u64 {
        self.ns - self.away_ns
    }
}

/// What the system says of the calling thread.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CoreUse {
    /// How often it took the core away so far.
    pub preemptions: u64,
    /// For how long the thread had a core so far, in nanoseconds; what a hypervisor took is not in it, where that
    /// is told. Nothing where the system does not say.
    pub on_core_ns: Option<u64>,
}

/// A moment from which absences are told.
#[derive(Clone, Copy, Default, Debug)]
struct Mark {
    at: Instant,
    on_core_ns: Option<u64>,
}

impl Mark {
    /// How long the thread has been away since, in nanoseconds; 0 where nobody knows.
    fn away_ns(self, now: Instant, on_core_ns: Option<u64>) -> u64 {
        let Some((was, is)) = self.on_core_ns.zip(on_core_ns) else { return 0 };
        now.0.saturating_sub(self.at.0).saturating_sub(is.saturating_sub(was))
    }
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
    /// Those that would have been long without the worker's absence, too.
    pub long_own_count: u64,
    /// Looks at resting queues.
    pub looks: Looks,
    long: [Long; LONG_KEPT],
    preempted: u64,
    mark: Mark,
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
            long_own_count: 0,
            looks: Looks::default(),
            long: [Long::default(); LONG_KEPT],
            preempted: 0,
            mark: Mark::default(),
        }
    }

    /// Begins anew.
    pub fn reset(&mut self, now: Instant) {
        *self = Perf { preempted: self.preempted, mark: self.mark, ..Perf::new(now) };
    }

    /// The long iterations that are remembered, the newest first.
    pub fn long(&self) -> impl Iterator<Item = Long> + '_ {
        let n = self.long_count as usize;
        (0..n.min(LONG_KEPT)).map(move |i| self.long[(n - 1 - i) % LONG_KEPT])
    }

    /// Counts the iteration that ended. `core_use` is asked about once a millisecond, and for long ones.
    #[inline]
    pub fn iteration(&mut self, done: Iteration, ended: Instant, core_use: impl FnOnce() -> CoreUse) {
        let ns = ended.0.saturating_sub(done.began.0);
        if done.busy {
            self.busy_ns += ns;
            self.iterations.record(ns);
            if ns > LONG_NS {
                return self.remember(done, ended, core_use());
            }
        } else {
            self.idle_ns += ns;
        }
        if ended.0.saturating_sub(self.mark.at.0) > MARK_NS || !done.busy && ns > ASLEEP_NS {
            self.mark(ended, core_use());
        }
    }

    #[cold]
    #[inline(never)]
    fn mark(&mut self, now: Instant, core_use: CoreUse) {
        self.mark = Mark { at: now, on_core_ns: core_use.on_core_ns };
    }

    #[cold]
    #[inline(never)]
    fn remember(&mut self, done: Iteration, ended: Instant, core_use: CoreUse) {
        let preempted = core_use.preemptions.saturating_sub(self.preempted);
        self.preempted = core_use.preemptions;
        let Iteration { began: at, packets, orders, .. } = done;
        let ns = ended.0 - at.0;
        let away_ns = self.mark.away_ns(ended, core_use.on_core_ns).min(ns);
        let long = Long { at, ns, packets, orders, away_ns, preempted };
        self.long[self.long_count as usize % LONG_KEPT] = long;
        self.long_count += 1;
        self.long_own_count += u64::from(long.own_ns() > LONG_NS);
        self.mark(ended, core_use);
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
            let core_use = CoreUse { preemptions: n, on_core_ns: None };
            p.iteration(done, Instant(began.0 + LONG_NS + 1 + n), || core_use);
        }
        let kept: Vec<u32> = p.long().map(|l| l.packets).collect();
        assert_eq!(kept, (8..40).rev().collect::<Vec<u32>>());
        assert_eq!((p.long_count, p.long().next().unwrap().preempted), (40, 1));
        assert_eq!(p.iterations.count(), 40);
        assert_eq!(p.long_own_count, 40, "nobody says that the worker was away");
        p.reset(Instant(7));
        assert_eq!((p.long_count, p.long().count(), p.since), (0, 0, Instant(7)));
    }

    #[test]
    fn idle_time_is_no_iteration() {
        let mut p = Perf::new(Instant(0));
        p.iteration(Iteration::default(), Instant(5_000_000), CoreUse::default);
        assert_eq!((p.idle_ns, p.busy_ns, p.iterations.count(), p.long_count), (5_000_000, 0, 0, 0));
    }

    /// A thread's life in microseconds: each iteration with its length, its absence and whether it was busy.
    fn live(lives: &[(u64, u64, bool)]) -> Perf {
        let mut p = Perf::new(Instant(0));
        let (mut now, mut on_core) = (0, 0);
        for &(long, away, busy) in lives {
            let done = Iteration { began: Instant(now), busy, packets: 1, orders: 0 };
            now += long * 1000;
            on_core += (long - away) * 1000;
            p.iteration(done, Instant(now), || CoreUse { preemptions: 0, on_core_ns: Some(on_core) });
        }
        p
    }

    #[test]
    fn what_the_worker_itself_took_is_told_from_its_absence() {
        let own = |p: &Perf| (p.long_count, p.long_own_count, p.long().next().map(|l| l.own_ns() / 1000));
        // Sleeps before it are not its absence, nor is the one before that was long, too.
        let sleeps = [(100, 95, false), (150, 140, false), (30, 0, true)];
        assert_eq!(own(&live(&[&sleeps[..], &[(250, 0, true)]].concat())), (1, 1, Some(250)));
        assert_eq!(own(&live(&[&sleeps[..], &[(250, 240, true)]].concat())), (1, 0, Some(10)));
        assert_eq!(own(&live(&[(5_000, 0, true), (3_000, 2_950, true), (300, 0, true)])), (3, 2, Some(300)));
        // Iterations of 10 us for 5 ms: what was away more than a mark ago is not the last one's.
        let mut many = vec![(10, 0, true); 500];
        many[100] = (190, 180, true);
        many.push((400, 5, true));
        assert_eq!(own(&live(&many)), (1, 1, Some(395)));
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
