//! Drains: switches that are emptied (R85).

/// How far a drain is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DrainPhase {
    /// Moves are ordered until the NVE is empty.
    Running,
    /// Stopped by the operator: moves under way end, and no others are ordered.
    Stopped,
    /// Nothing is left that can be moved.
    Ended,
}

/// Moves of one drain that may be under way at the same time.
pub const MAX_PARALLEL_MOVES: u32 = 64;
