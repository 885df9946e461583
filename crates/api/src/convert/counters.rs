//! Counters, whoever counted.

use godwit_counters::{Entry, Kind};

use crate::v1;

impl From<Entry> for v1::Counter {
    /// A counter of the first worker; where another one counts, or none, that is filled in.
    fn from(entry: Entry) -> v1::Counter {
        let d = entry.descriptor;
        v1::Counter {
            name: d.name.into(),
            drop: d.kind == Kind::Drop,
            value: entry.value,
            help: d.help.into(),
            unit: d.unit.as_str().into(),
            kind: d.kind.as_str().into(),
            ..v1::Counter::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    godwit_counters::counters! {
        /// Counters.
        Sample;

        /// Frames lost.
        lost: Packets as Drop,
        /// Time spent.
        spent: Nanoseconds,
    }

    #[test]
    fn all_that_is_known_of_a_counter_goes_along() {
        let counters: Vec<_> = Sample { lost: 3, spent: 9 }.entries().map(v1::Counter::from).collect();
        let lost = v1::Counter {
            name: "lost".into(),
            drop: true,
            value: 3,
            help: "Frames lost.".into(),
            unit: "packets".into(),
            kind: "drop".into(),
            ..Default::default()
        };
        assert_eq!(counters[0], lost);
        let spent = &counters[1];
        assert_eq!(
            (spent.drop, spent.unit.as_str(), spent.kind.as_str(), spent.value),
            (false, "nanoseconds", "count", 9)
        );
    }
}
