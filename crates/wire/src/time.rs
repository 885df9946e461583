//! Time as an argument: no crate below the switch process reads a clock.

use core::ops::{Add, Sub};

/// A point on the host's monotonic clock (CLOCK_MONOTONIC), in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Instant(pub u64);

/// A span of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Span(pub u64);

impl Span {
    /// `ms` milliseconds.
    pub const fn from_ms(ms: u64) -> Span {
        Span(ms.saturating_mul(1_000_000))
    }

    /// `us` microseconds.
    pub const fn from_us(us: u64) -> Span {
        Span(us.saturating_mul(1_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Instant {
    /// A point that never comes.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The span since `earlier`, zero where `earlier` is later.
    #[inline]
    pub const fn since(self, earlier: Instant) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// How often something may happen: a token bucket's size and how fast it fills (R67).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// From one token to the next; zero: no bound.
    gap: Span,
    /// Tokens of a full bucket but the last one, as the time in which they come.
    slack: Span,
}

impl Rate {
    /// No bound.
    pub const UNLIMITED: Rate = Rate { gap: Span(0), slack: Span(0) };

    /// So many a second on average, `burst` at once where nothing happened for long. A rate of 0 is
    /// [`Rate::UNLIMITED`]; a burst of 0 counts as 1.
    pub const fn per_second(rate: u32, burst: u32) -> Rate {
        if rate == 0 {
            return Rate::UNLIMITED;
        }
        Rate::every(Span(1_000_000_000 / rate as u64), burst)
    }

    /// Once a `gap` on average, `burst` at once where nothing happened for long; a burst of 0 counts as 1.
    pub const fn every(gap: Span, burst: u32) -> Rate {
        Rate { gap, slack: Span(gap.0.saturating_mul(burst.saturating_sub(1) as u64)) }
    }

    /// From one token to the next; zero: no bound.
    pub const fn gap(&self) -> Span {
        self.gap
    }
}

/// What one sender has used of a [`Rate`]. It begins full.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bucket {
    /// When it is full again.
    full: Instant,
}

impl Bucket {
    /// A token is there.
    #[inline]
    pub fn has(&self, rate: Rate, now: Instant) -> bool {
        self.full <= now + rate.slack
    }

    /// Takes a token; false where there is none.
    #[inline]
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let has = self.has(rate, now);
        if has {
            self.spend(rate, now, 1);
        }
        has
    }

    /// Takes so many tokens, there or not: those that are missing are waited for before the next one.
    #[inline]
    pub fn spend(&mut self, rate: Rate, now: Instant, tokens: u64) {
        self.full = self.full.max(now) + Span(rate.gap.0.saturating_mul(tokens));
    }

    /// When the next token is there: `now` or later.
    #[inline]
    pub fn next(&self, rate: Rate, now: Instant) -> Instant {
        now.max(self.full - rate.slack)
    }
}

impl Add<Span> for Instant {
    type Output = Instant;
    #[inline]
    fn add(self, s: Span) -> Instant {
        Instant(self.0.saturating_add(s.0))
    }
}

impl Sub<Span> for Instant {
    type Output = Instant;
    #[inline]
    fn sub(self, s: Span) -> Instant {
        Instant(self.0.saturating_sub(s.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r67_a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::per_second(100, 200);
        for start in [Instant(0), Instant(u64::MAX / 2)] {
            let mut b = Bucket::default();
            let taken = (0..2_000_000).filter(|&us| b.take(rate, start + Span::from_us(us))).count();
            // 200 at once, 100 in each of two seconds but for the last one's end.
            assert_eq!(taken, 399);
            let now = start + Span::from_ms(2_000);
            assert_eq!(b.next(rate, now), now, "the 400th");
            assert!(b.take(rate, now) && !b.take(rate, now));
            assert_eq!(b.next(rate, now), now + Span::from_ms(10));
        }
    }

    #[test]
    fn r67_tokens_spent_in_advance_are_waited_for() {
        let (rate, now, mut b) = (Rate::every(Span::from_ms(1), 2), Instant(5_000_000), Bucket::default());
        b.spend(rate, now, 5);
        assert_eq!((b.has(rate, now), b.next(rate, now)), (false, now + Span::from_ms(4)));
        assert!(b.take(rate, now + Span::from_ms(4)));
    }

    #[test]
    fn r67_no_rate_is_no_bound() {
        let mut b = Bucket::default();
        assert!((0..10_000).all(|_| b.take(Rate::per_second(0, 5), Instant(7))));
    }
}
