//! VMs in updates: where they are, and what is held for them.

use godwit_wire::{Instant, Span};

use super::{PortIdx, Target};

/// Bounds of one VM's handover buffer (R45), besides the memory that all have together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldLimits {
    /// At most so many packets; the oldest goes first.
    pub packets: u32,
    /// A packet older than this is dropped.
    pub age: Span,
}

impl HoldLimits {
    /// As many packets as memory allows.
    pub const fn of_age(age: Span) -> HoldLimits {
        HoldLimits { packets: u32::MAX, age }
    }
}

/// What a worker does with frames for one VM. Whatever the worker held for the VM under an earlier
/// state is sent where the new state says, in order and before newer frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmState {
    /// At another NVE. Frames from local ports are tunnelled there; frames from the overlay are not
    /// ours and are dropped as `NotLocal` (split horizon, R46a).
    Remote {
        /// Its NVE.
        to: Target,
    },
    /// As `Remote`, and its life nears its end: the first frame from a local port makes it `Remote` and is told to
    /// control, which asks the directory again (R40).
    Ageing {
        /// Its NVE.
        to: Target,
    },
    /// Activated on a port of this NVE: everything is delivered there.
    Local {
        /// Its port.
        port: PortIdx,
    },
    /// As `Local` for what comes from the overlay; frames from local ports wait until their old path, by which they
    /// went to the VM's old NVE, has ended (R77).
    Arrived {
        /// Its port.
        port: PortIdx,
        /// Bounds of what waits.
        hold: HoldLimits,
    },
    /// Associated here and expected to start (new NVE of a move): frames from the overlay are held;
    /// frames from local ports go to where it still runs, or are held where that is unknown.
    Expected {
        /// Where it still runs.
        via: Option<Target>,
        /// Bounds of what arrives early.
        hold: HoldLimits,
    },
    /// Everything is held: paused on this NVE for its handover (old NVE of a move, R45), or at another NVE to which
    /// nothing is sent before the old path has ended (R77).
    Paused {
        /// Bounds of what is held.
        hold: HoldLimits,
    },
    /// It is here, and an operator has paused its connections: frames are dropped as `VmPaused`, those that are held at
    /// once (R54).
    Blocked,
    /// Left this NVE (R41, R43): frames from the overlay are forwarded in flight through the tunnel
    /// with the outer TTL rule of R46d and counted as forwarded; frames from local ports are
    /// tunnelled as for `Remote`. At `until` the worker turns it into `Remote`.
    Departed {
        /// The new NVE.
        to: Target,
        /// When the forward entry dies (fwd_timer).
        until: Instant,
    },
    /// The directory knows no such VM, or one that is attached nowhere: frames are dropped as
    /// `UnknownUnicast` without another query until `until`, when the worker forgets the entry (R36).
    Absent {
        /// End of the negative answer's life.
        until: Instant,
    },
    /// The directory has the VM, and it is attached nowhere: frames are dropped as `Detached` until control says
    /// otherwise (R19, R51).
    Detached {
        /// Segments of connections with it are answered by resets (R53).
        reset: bool,
    },
}

impl VmState {
    /// Where frames of VMs here are sent, if to another NVE.
    pub fn target(self) -> Option<Target> {
        match self {
            VmState::Remote { to } | VmState::Ageing { to } | VmState::Departed { to, .. } => Some(to),
            VmState::Expected { via, .. } => via,
            VmState::Local { .. }
            | VmState::Arrived { .. }
            | VmState::Paused { .. }
            | VmState::Blocked
            | VmState::Absent { .. }
            | VmState::Detached { .. } => None,
        }
    }
}
