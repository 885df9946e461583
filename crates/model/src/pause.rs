//! A pause of a VM's connections, which an operator orders (R54).

use core::fmt;

/// What becomes of frames for a VM whose connections are paused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum WhilePaused {
    /// They wait, within the bounds of holds.
    #[default]
    Hold,
    /// They are dropped.
    Drop,
}

impl fmt::Display for WhilePaused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhilePaused::Hold => "held",
            WhilePaused::Drop => "dropped",
        })
    }
}

/// How a pause ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PauseEnd {
    /// By order: what was held is delivered.
    Resumed,
    /// Its time was over: what was held is dropped.
    TimedOut,
}

/// A pause of a VM's connections. Its record outlives it for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionPause {
    /// What becomes of frames for the VM.
    pub treatment: WhilePaused,
    /// When it was ordered last, in microseconds since 1970 by the NVA's clock; no two pauses of a VM have the same.
    pub since_us: u64,
    /// It ends so long after that, in seconds.
    pub limit_s: u32,
    /// How it ended, and when, in microseconds since 1970; none while it lasts.
    pub ended: Option<(PauseEnd, u64)>,
}

impl ConnectionPause {
    /// Limits that a pause may have, in seconds.
    pub const LIMITS: core::ops::RangeInclusive<u32> = 1..=3600;

    /// It lasts.
    pub fn is_on(&self) -> bool {
        self.ended.is_none()
    }

    /// When its time is over, in microseconds since 1970.
    pub fn due_us(&self) -> u64 {
        self.since_us.saturating_add(u64::from(self.limit_s) * 1_000_000)
    }
}
