//! A VM's operational state as its manager reports it: `vmOperState` of RFC 7666 (R16).

use core::fmt;
use core::str::FromStr;

/// What the manager says of a VM; numbered as in RFC 7666, `Deleted` besides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OperState {
    /// The manager could not find out.
    Unknown = 1,
    /// A state that RFC 7666 does not have.
    Other = 2,
    /// Being made.
    Preparing = 3,
    /// Executed.
    Running = 4,
    /// Being saved to persistent store.
    Suspending = 5,
    /// Saved; not executed.
    Suspended = 6,
    /// Being restored from persistent store.
    Resuming = 7,
    /// In memory; not executed.
    Paused = 8,
    /// On its way from or to another hypervisor.
    Migrating = 9,
    /// Being shut down.
    ShuttingDown = 10,
    /// Down, and not in memory.
    Shutdown = 11,
    /// Crashed.
    Crashed = 12,
    /// Not at this hypervisor any more (the event `vmDeleted`).
    Deleted = 13,
}

/// A word that is no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of a VM; use one of {names}", names = OperState::names())]
pub struct BadOperState(pub String);

impl OperState {
    /// All of them, by number.
    pub const ALL: [OperState; 13] = [
        OperState::Unknown,
        OperState::Other,
        OperState::Preparing,
        OperState::Running,
        OperState::Suspending,
        OperState::Suspended,
        OperState::Resuming,
        OperState::Paused,
        OperState::Migrating,
        OperState::ShuttingDown,
        OperState::Shutdown,
        OperState::Crashed,
        OperState::Deleted,
    ];

    /// The word of RFC 7666.
    pub fn as_str(self) -> &'static str {
        match self {
            OperState::Unknown => "unknown",
            OperState::Other => "other",
            OperState::Preparing => "preparing",
            OperState::Running => "running",
            OperState::Suspending => "suspending",
            OperState::Suspended => "suspended",
            OperState::Resuming => "resuming",
            OperState::Paused => "paused",
            OperState::Migrating => "migrating",
            OperState::ShuttingDown => "shuttingdown",
            OperState::Shutdown => "shutdown",
            OperState::Crashed => "crashed",
            OperState::Deleted => "deleted",
        }
    }

    /// The state of a number from the wire.
    pub fn from_number(number: i32) -> Option<OperState> {
        OperState::ALL.into_iter().find(|s| *s as i32 == number)
    }

    /// All words, for a refusal.
    pub fn names() -> String {
        OperState::ALL.map(OperState::as_str).join(", ")
    }

    /// It says nothing about where the VM stands.
    pub fn is_vague(self) -> bool {
        matches!(self, OperState::Unknown | OperState::Other)
    }

    /// The VM has its place at this hypervisor and may be executed there; a migrating one at either end.
    pub fn is_active(self) -> bool {
        use OperState::{Migrating, Paused, Running, ShuttingDown, Suspending};
        matches!(self, Running | Suspending | Paused | Migrating | ShuttingDown)
    }

    /// What may follow by RFC 7666, figure 2 and appendix A. The same state may be said again, and
    /// every VM may crash; after that only a new entry begins anew.
    pub fn next(self) -> &'static [OperState] {
        use OperState::{
            Crashed, Deleted, Migrating, Paused, Resuming, Running, Shutdown, ShuttingDown, Suspended,
            Suspending,
        };
        match self {
            OperState::Preparing | ShuttingDown => &[Shutdown, Crashed],
            Running => &[Suspending, Paused, Migrating, ShuttingDown, Crashed],
            Suspending => &[Suspended, Crashed],
            Suspended => &[Resuming, Crashed],
            Resuming | Paused => &[Running, Crashed],
            Migrating => &[Running, Shutdown, Crashed],
            Shutdown => &[Running, Migrating, Deleted, Crashed],
            Crashed | Deleted => &[],
            // Never remembered, so nothing follows from them.
            OperState::Unknown | OperState::Other => &[],
        }
    }

    /// Whether `to` may be said after this.
    pub fn allows(self, to: OperState) -> bool {
        to == self || to.is_vague() || self.next().contains(&to)
    }
}

impl fmt::Display for OperState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OperState {
    type Err = BadOperState;

    fn from_str(s: &str) -> Result<OperState, BadOperState> {
        OperState::ALL.into_iter().find(|o| o.as_str() == s).ok_or_else(|| BadOperState(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::OperState;

    #[test]
    fn r16_words_and_numbers_are_those_of_rfc_7666() {
        for (i, s) in OperState::ALL.into_iter().enumerate() {
            assert_eq!(s as usize, i + 1);
            assert_eq!(OperState::from_number(i as i32 + 1), Some(s));
            assert_eq!(s.as_str().parse(), Ok(s));
        }
        assert_eq!((OperState::from_number(0), OperState::from_number(14)), (None, None));
        let refused = "asleep".parse::<OperState>().unwrap_err().to_string();
        assert!(refused.contains("asleep") && refused.contains("suspended"), "{refused}");
    }

    /// Appendix A row by row, with figure 2's way between running and paused.
    #[test]
    fn r16_the_transitions_are_those_of_rfc_7666() {
        let table = [
            "preparing: shutdown crashed",
            "running: suspending paused migrating shuttingdown crashed",
            "suspending: suspended crashed",
            "suspended: resuming crashed",
            "resuming: running crashed",
            "paused: running crashed",
            "migrating: running shutdown crashed",
            "shuttingdown: shutdown crashed",
            "shutdown: running migrating deleted crashed",
            "crashed:",
            "deleted:",
        ];
        for row in table {
            let (from, to) = row.split_once(':').unwrap();
            let (from, to): (OperState, Vec<&str>) = (from.parse().unwrap(), to.split_whitespace().collect());
            for s in OperState::ALL {
                let expected = s == from || s.is_vague() || to.contains(&s.as_str());
                assert_eq!(from.allows(s), expected, "{from} to {s}");
            }
        }
    }
}
