//! A guest's clock beside the machine's: it stands still while the guest does, so it falls behind with each
//! migration.

use crate::agent::proto::Gap;

/// By how much the guest's clock was ahead of the machine's, from when on.
#[derive(Clone, Debug)]
pub(super) struct GuestClock {
    // By the guest's clock; ascending.
    spans: Vec<(u64, i64)>,
}

impl GuestClock {
    /// Ahead by so many nanoseconds, until it is said otherwise.
    pub(super) fn new(ahead: i64) -> GuestClock {
        GuestClock { spans: vec![(0, ahead)] }
    }

    /// The guest stood still, from `stopped_ns` of the machine's clock on, and its clock is ahead by so much now.
    pub(super) fn stood_still(&mut self, stopped_ns: u64, ahead: i64) {
        let before = self.spans.last().map_or(0, |s| s.1);
        self.spans.push((stopped_ns.saturating_add_signed(before), ahead));
    }

    /// What the machine's clock showed when the guest's showed `ns`.
    pub(super) fn machine(&self, ns: u64) -> u64 {
        let after = self.spans.partition_point(|s| s.0 <= ns);
        let ahead = self.spans.get(after.saturating_sub(1)).map_or(0, |s| s.1);
        ns.saturating_add_signed(-ahead)
    }

    /// A silence of the guest's, by the machine's clock.
    pub(super) fn gap(&self, gap: Gap) -> Gap {
        Gap { from_ns: self.machine(gap.from_ns), to_ns: self.machine(gap.to_ns), ..gap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_over_a_stop_has_the_stop_in_it() {
        let mut clock = GuestClock::new(1000);
        // Stopped at 5,000 of the machine's clock, which is 6,000 of its own, for 300.
        clock.stood_still(5_000, 700);
        assert_eq!(clock.machine(5_900), 4_900);
        assert_eq!(clock.machine(6_100), 5_400);
        let gap = clock.gap(Gap::between(5_990, 6_020));
        assert_eq!((gap.from_ns, gap.to_ns), (4_990, 5_320));
    }
}
