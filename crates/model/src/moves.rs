//! Moves: their phases and their timeline.

use crate::{MoveId, NveId, Version, VmKey};

/// How a VM moves. Warm, cold and standby moves are later modes of the same record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MoveMode {
    /// In running state: addresses and connections stay (R49).
    Hot,
}

/// How a move began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MoveOrigin {
    /// An operator or a VM manager ordered it (R49).
    Ordered,
    /// An NVE claimed a VM that another one had, without an order (R21).
    Unplanned,
}

/// How far a planned move has come, in the directory's eyes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MovePhase {
    /// Ordered; both NVEs have been told.
    Preparing,
    /// Both NVEs said that they are ready.
    Prepared,
    /// The VM is paused at the old NVE.
    Paused,
    /// The new NVE holds the grant; the news spreads.
    Granted,
    /// Every NVE of the VN has acknowledged the new location.
    Done,
    /// Called off before the grant; the VM stays where it was.
    Aborted,
    /// It could not be done; the record says why.
    Failed,
}

impl MovePhase {
    /// No further step follows.
    pub fn is_final(self) -> bool {
        matches!(self, MovePhase::Done | MovePhase::Aborted | MovePhase::Failed)
    }
}

/// One entry of a move's timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveStep {
    /// Wall-clock time in microseconds since 1970, by the clock of the host that reports it.
    pub at_us: u64,
    /// The NVE it happened at; `None` for the NVA itself.
    pub nve: Option<NveId>,
    /// What happened.
    pub what: MoveStepKind,
    /// Free text for people: a reason, a number.
    pub note: String,
}

/// What a step of a move's timeline says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MoveStepKind {
    /// The manager ordered the move.
    Ordered,
    /// An NVE is ready for its part.
    Prepared,
    /// The VM paused at the old NVE; it holds what arrives.
    Paused,
    /// The VM runs at the new NVE.
    Activated,
    /// The new NVE claimed the VM.
    Claimed,
    /// The NVA granted the claim.
    Granted,
    /// The old NVE forwarded its first packet in flight.
    FirstForwarded,
    /// The old NVE forwarded its last packet in flight so far.
    LastForwarded,
    /// An NVE acknowledged the new location.
    Acknowledged,
    /// The move was called off.
    Aborted,
    /// The move failed.
    Failed,
    /// Every NVE concerned has acknowledged.
    Done,
    /// The NVA refused the claim of an NVE that is not the move's target.
    Denied,
    /// The NVA restarted while the move was under way.
    Restarted,
    /// The VM went on before every NVE had acknowledged this move's location.
    Overtaken,
    /// The NVA asked the NVE that has the VM whether it still runs there (R21).
    Asked,
    /// That NVE answered.
    Answered,
    /// The VM moved too often without an order, and stays where it is until the operator clears it (R22).
    Frozen,
}

/// What one NVE did with the packets of a moving VM.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HandoverCounts {
    /// Packets put into a handover buffer (R45).
    pub held: u64,
    /// Held packets that went on, to the local port or to the new NVE, in order.
    pub flushed: u64,
    /// Packets from the overlay tunnelled on to the new NVE, flushed ones of that path included (R43).
    pub forwarded: u64,
    /// Held packets dropped, and packets that found no room: memory, limit, age or an abort without a way out.
    pub dropped: u64,
    /// Of these, for want of memory: this VM held most, or found no room.
    pub dropped_memory: u64,
    /// For the limit of packets of one VM.
    pub dropped_limit: u64,
    /// For their age.
    pub dropped_age: u64,
    /// Memory that held packets take now, in bytes.
    pub held_bytes: u64,
    /// The most that they took: each worker's most, summed up.
    pub peak_bytes: u64,
    /// Wall-clock time of the first packet forwarded, microseconds since 1970; 0 for none.
    pub first_forward_us: u64,
    /// Wall-clock time of the last packet forwarded, microseconds since 1970; 0 for none.
    pub last_forward_us: u64,
}

/// A move with its timeline, as `godwitctl move show` prints it: an ordered one, or a claim that nobody ordered, with
/// its verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveRecord {
    /// Its identity.
    pub id: MoveId,
    /// The VM's name.
    pub vm: String,
    /// The VM's key.
    pub key: VmKey,
    /// The old NVE.
    pub from: NveId,
    /// The new NVE.
    pub to: NveId,
    /// How the VM moves.
    pub mode: MoveMode,
    /// How it began.
    pub origin: MoveOrigin,
    /// How far it is.
    pub phase: MovePhase,
    /// The version granted; `Version::ZERO` before.
    pub version: Version,
    /// What happened, in the order in which the NVA heard of it.
    pub steps: Vec<MoveStep>,
    /// Counts by NVE.
    pub counts: Vec<(NveId, HandoverCounts)>,
}
