//! Whether a port's device is there: a state machine without side effects.
//!
//! A device may disappear under a running switch: a tap or the interface under a packet socket is deleted, a card is
//! pulled. Its port loses its link and lets go of the device ([`Step::Leave`]); when the device can be opened again,
//! it is ([`Step::Open`]), and after a failure again, slower each time.

use std::time::{Duration, Instant};

/// How long a device has to be there before it is opened: whoever made it still sets it up.
const SETTLE: Duration = Duration::from_secs(1);
/// From the first failure to the next try; it doubles with each.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const SLOWEST: Duration = Duration::from_secs(30);

/// What there is to be seen of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sight {
    /// The very device that was opened is there.
    pub same: bool,
    /// One is there that could be opened in its place.
    pub any: bool,
}

/// What is to be done for a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The device is gone: let go of it.
    Leave,
    /// It is back: open it.
    Open,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The device is in use.
    Present,
    /// It is being let go of, or opened.
    Busy,
    /// It is gone.
    Gone,
    /// It is back, and opened at that time at the earliest.
    Returning(Instant),
}

/// Presence of one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presence {
    phase: Phase,
    /// After the next failure.
    again: Duration,
}

impl Default for Presence {
    fn default() -> Self {
        Presence { phase: Phase::Present, again: AGAIN }
    }
}

impl Presence {
    /// The device was looked at. A step that is answered is under way from then on, until [`Presence::left`],
    /// [`Presence::opened`] or [`Presence::failed`].
    pub fn sees(&mut self, sight: Sight, now: Instant) -> Option<Step> {
        let (phase, step) = match self.phase {
            Phase::Present if !sight.same => (Phase::Busy, Some(Step::Leave)),
            Phase::Gone if sight.any => (Phase::Returning(now + SETTLE), None),
            Phase::Returning(_) if !sight.any => (Phase::Gone, None),
            Phase::Returning(due) if now >= due => (Phase::Busy, Some(Step::Open)),
            phase => (phase, None),
        };
        self.phase = phase;
        step
    }

    /// The device is in use.
    pub fn is_present(&self) -> bool {
        self.phase == Phase::Present
    }

    /// A step is under way.
    pub fn is_busy(&self) -> bool {
        self.phase == Phase::Busy
    }

    /// The step cannot be taken now: the device is looked at again.
    pub fn postpone(&mut self, step: Step, now: Instant) {
        self.phase = match step {
            Step::Leave => Phase::Present,
            Step::Open => Phase::Returning(now),
        };
    }

    /// The device was let go of.
    pub fn left(&mut self) {
        self.phase = Phase::Gone;
    }

    /// It was opened.
    pub fn opened(&mut self) {
        *self = Presence::default();
    }

    /// It could not be opened; answers with the time until the next try.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let pause = self.again;
        *self = Presence { phase: Phase::Returning(now + pause), again: (pause * 2).min(SLOWEST) };
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: Sight = Sight { same: true, any: true };
    const GONE: Sight = Sight { same: false, any: false };
    const OTHER: Sight = Sight { same: false, any: true };

    #[test]
    fn r18_a_device_that_goes_is_left_and_opened_when_it_is_back() {
        let (mut p, start) = (Presence::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(p.sees(THERE, at(0)), None);
        assert_eq!(p.sees(GONE, at(100)), Some(Step::Leave));
        assert_eq!(p.sees(GONE, at(200)), None, "once");
        p.left();
        assert_eq!(p.sees(GONE, at(60_000)), None);
        assert_eq!(p.sees(OTHER, at(61_000)), None, "it settles first");
        assert_eq!(p.sees(OTHER, at(61_999)), None);
        assert_eq!(p.sees(OTHER, at(62_000)), Some(Step::Open));
        assert_eq!(p.sees(OTHER, at(63_000)), None, "once");
        p.opened();
        assert_eq!(p.sees(THERE, at(64_000)), None);
    }

    #[test]
    fn r18_another_one_in_its_place_is_no_device_that_stayed() {
        let (mut p, start) = (Presence::default(), Instant::now());
        assert_eq!(p.sees(OTHER, start), Some(Step::Leave));
        p.left();
        assert_eq!(p.sees(OTHER, start), None);
        assert_eq!(p.sees(GONE, start + SETTLE), None, "gone again before it was opened");
        assert_eq!(p.sees(OTHER, start + SETTLE), None);
        assert_eq!(p.sees(OTHER, start + 2 * SETTLE), Some(Step::Open));
    }

    #[test]
    fn r18_failures_slow_the_next_tries_down_to_a_bound_and_a_success_forgets_them() {
        let (mut p, mut now) = (Presence::default(), Instant::now());
        assert_eq!(p.sees(GONE, now), Some(Step::Leave));
        p.left();
        p.sees(OTHER, now);
        now += SETTLE;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(p.sees(OTHER, now), Some(Step::Open));
            let pause = p.failed(now);
            assert_eq!(p.sees(OTHER, now + pause - Duration::from_millis(1)), None);
            now += pause;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(p.sees(OTHER, now), Some(Step::Open));
        p.opened();
        assert_eq!(p, Presence::default());
    }

    #[test]
    fn r18_a_step_that_has_to_wait_is_taken_later() {
        let (mut p, now) = (Presence::default(), Instant::now());
        assert_eq!(p.sees(GONE, now), Some(Step::Leave));
        p.postpone(Step::Leave, now);
        assert_eq!(p.sees(GONE, now), Some(Step::Leave));
        p.left();
        p.sees(OTHER, now);
        assert_eq!(p.sees(OTHER, now + SETTLE), Some(Step::Open));
        p.postpone(Step::Open, now + SETTLE);
        assert_eq!(p.sees(OTHER, now + SETTLE), Some(Step::Open));
    }
}
