//! Moves: their phases and their timeline.

use core::fmt;

use crate::{MoveId, NveId, Version, VmKey};

/// How a VM moves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MoveMode {
    /// In running state: addresses and connections stay (R49).
    Hot,
    /// Shut down at the old NVE, started at a new one that has had its state mirrored and knows of it: addresses
    /// stay, connections begin anew (R50).
    Warm,
    /// Shut down at the old NVE, its state sent, then started at the new one: addresses stay, connections begin
    /// anew (R51).
    Cold,
}

impl MoveMode {
    /// All of them.
    pub const ALL: [MoveMode; 3] = [MoveMode::Hot, MoveMode::Warm, MoveMode::Cold];

    /// `hot`, `warm` or `cold`.
    pub fn as_str(self) -> &'static str {
        match self {
            MoveMode::Hot => "hot",
            MoveMode::Warm => "warm",
            MoveMode::Cold => "cold",
        }
    }

    /// The VM does not run for a while, and its connections end.
    pub fn interrupts(self) -> bool {
        matches!(self, MoveMode::Warm | MoveMode::Cold)
    }
}

impl fmt::Display for MoveMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The modes that a VN or an NVE takes (R56).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModeSet(u8);

impl ModeSet {
    /// Every mode.
    pub const ALL: ModeSet = ModeSet(0b111);

    /// Those of a list.
    pub fn of(modes: &[MoveMode]) -> ModeSet {
        ModeSet(modes.iter().fold(0, |set, m| set | 1 << *m as u8))
    }

    /// It has this one.
    pub fn has(self, mode: MoveMode) -> bool {
        self.0 >> mode as u8 & 1 == 1
    }

    /// There is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What it has, in the order of [`MoveMode::ALL`].
    pub fn iter(self) -> impl Iterator<Item = MoveMode> {
        MoveMode::ALL.into_iter().filter(move |m| self.has(*m))
    }
}

impl Default for ModeSet {
    fn default() -> ModeSet {
        ModeSet::ALL
    }
}

impl fmt::Display for ModeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mode) in self.iter().enumerate() {
            write!(f, "{}{mode}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for ModeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModeSet({self})")
    }
}

/// What a switch says in its Hello that it can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// Moves that it takes part in (R56).
    pub modes: ModeSet,
    /// It ends its path to a VM's old NVE with a marker, and waits for those of others (R77).
    pub end_markers: bool,
    /// VMs that it takes at most, as the directory counts when it empties other switches (R85); 0: it does not say.
    pub capacity: u32,
}

impl Abilities {
    /// Of a switch that says nothing of them: one of an earlier release (R84).
    #[must_use]
    pub fn unsaid() -> Abilities {
        Abilities { modes: ModeSet::of(&[MoveMode::Hot]), end_markers: false, capacity: 0 }
    }
}

/// What becomes of segments of connections with a VM that is detached (R53).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum OnCold {
    /// They are dropped.
    #[default]
    Drop,
    /// The sender's NVE answers them by a reset.
    Reset,
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
    /// The VM is shut down at the old NVE, and detached (cold and warm).
    Stopped,
    /// Its state is packaged, says its manager (cold).
    Packaged,
    /// Its state is at the new host, says its manager (cold).
    Sent,
    /// It is instantiated at the new host, says its manager; its start is the grant (cold and warm).
    Instantiated,
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
    /// Whoever ordered the move accepted that it interrupts the VM (R56).
    Accepted,
    /// The VM is shut down at the old NVE (R51).
    Stopped,
    /// Its state is packaged (R51).
    Packaged,
    /// Its state is at the new host (R51).
    Sent,
    /// It is instantiated at the new host (R51).
    Instantiated,
    /// The end markers that the new NVE waited for have come, or their time is over (R77).
    InOrder,
    /// An operator paused the connections of the VM, or they were paused when the move was ordered (R54).
    ConnectionsPaused,
    /// They go on: by order, or because the time of the pause was over (R54).
    ConnectionsResumed,
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
