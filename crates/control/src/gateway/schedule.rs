//! When a port is sent router advertisements that it did not ask for (RFC 4861 sections 6.2.4 and 6.2.5).

use std::hash::Hasher as _;

use fnv::FnvHasher;
use godwit_wire::{Instant, Span};

use super::Advertisement;

/// MAX_INITIAL_RTR_ADVERTISEMENTS, and the longest time between these.
const INITIAL: u8 = 3;
const INITIAL_INTERVAL: Span = Span::from_ms(16_000);
/// MAX_FINAL_RTR_ADVERTISEMENTS.
const FINAL: u8 = 3;
/// MIN_DELAY_BETWEEN_RAS, of those to all hosts.
const MIN_DELAY: Span = Span::from_ms(3_000);

/// Gateways of before that are still to say that they are gone, at most.
const MAX_RETIRED: usize = 4;

/// What is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// So many more in quick succession: the port is new, or what is advertised has changed.
    Initial(u8),
    /// One now and then.
    Steady,
    /// So many more that withdraw what was advertised.
    Final(u8),
}

/// The advertisements of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Advertiser {
    says: Advertisement,
    /// What gateways with other MACs still have to say, once, after the next advertisement.
    retired: Vec<Advertisement>,
    stage: Stage,
    /// Makes the times of this port differ from those of others; the same each time.
    seed: u64,
    sent: u64,
    last: Option<Instant>,
    due: Instant,
}

impl Advertiser {
    /// For a port whose VM runs since `now`. The first is due after some seconds: a VM that starts asks by itself,
    /// and one that moved in knows its router.
    pub(crate) fn new(says: Advertisement, seed: u64, now: Instant) -> Advertiser {
        let stage = Stage::Initial(INITIAL);
        let mut new = Advertiser { says, retired: Vec::new(), stage, seed, sent: 0, last: None, due: now };
        new.due = now + new.pause();
        new
    }

    /// When [`Self::take`] is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// The gateway advertises this from now on.
    pub(crate) fn change(&mut self, says: Advertisement, now: Instant) {
        if says == self.says.settled() && !self.is_ending() {
            return;
        }
        self.retired.retain(|old| !old.is_of_gateway_of(&says));
        if !says.is_of_gateway_of(&self.says) && self.retired.len() < MAX_RETIRED {
            self.retired.push(self.says.retired());
        }
        self.says = says.after(&self.says);
        self.stage = Stage::Initial(INITIAL);
        self.due = self.soonest(now);
    }

    /// The gateway advertises nothing any more.
    pub(crate) fn end(&mut self, now: Instant) {
        if self.is_ending() {
            return;
        }
        self.says = self.says.withdrawn();
        self.stage = Stage::Final(FINAL);
        self.due = self.soonest(now);
    }

    /// A host without an address asked: it hears what all hear, as soon as that may be sent.
    pub(crate) fn hasten(&mut self, now: Instant) {
        self.due = self.due.min(self.soonest(now));
    }

    /// The advertisement that is due, and after it those of gateways that are gone: so no host is without a router.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut frames = vec![self.says.to_all()];
        frames.extend(self.retired.drain(..).map(|old| old.to_all()));
        (self.last, self.sent) = (Some(now), self.sent + 1);
        self.stage = match self.stage {
            Stage::Initial(2..) | Stage::Final(_) => self.stage.next(),
            Stage::Initial(_) | Stage::Steady => {
                self.says = self.says.settled();
                Stage::Steady
            }
        };
        self.due = now + self.pause();
        frames
    }

    /// All has been withdrawn, and said so often enough.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Final(0)
    }

    fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Final(_))
    }

    fn soonest(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| now.max(last + MIN_DELAY))
    }

    /// Time to the next one.
    fn pause(&self) -> Span {
        let (min, max) = self.says.interval();
        match self.stage {
            Stage::Final(_) => MIN_DELAY,
            Stage::Initial(_) => {
                let max = max.min(INITIAL_INTERVAL);
                self.random(Span(max.0 / 2), max).max(MIN_DELAY)
            }
            Stage::Steady => self.random(min, max).max(MIN_DELAY),
        }
    }

    /// From `min` to `max`, another each time and for each port.
    fn random(&self, min: Span, max: Span) -> Span {
        let mut hasher = FnvHasher::default();
        hasher.write_u64(self.seed);
        hasher.write_u64(self.sent);
        // FNV's low bits are its best ones, and a span has many.
        let range = max.0.saturating_sub(min.0) + 1;
        Span(min.0 + hasher.finish() % range)
    }
}

impl Stage {
    fn next(self) -> Stage {
        match self {
            Stage::Initial(n) => Stage::Initial(n.saturating_sub(1)),
            Stage::Final(n) => Stage::Final(n.saturating_sub(1)),
            Stage::Steady => Stage::Steady,
        }
    }
}
