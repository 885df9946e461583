//! Where a VM stands at this NVE. What has a meaning in one phase only is part of that phase.

use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use super::{Refusal, Vm};

/// What a VM said before its pause has arrived after so long.
const PAUSE_GRACE: Span = Span::from_ms(2000);

/// Where the VM stands at this NVE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Not running here; its ports are silent.
    Idle,
    /// Runs on a port.
    Running(Run),
    /// Paused; the port may be gone already.
    Paused(Pause),
    /// Runs at another NVE; its ports here are closed (R41).
    Left,
    /// The NVA refused its claim; the port is closed.
    Refused(Refusal),
}

/// A VM that runs on a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) port: PortIdx,
    /// When it began to run on it; a pause there does not count.
    pub(super) since: Instant,
    /// The VM itself spoke since it was activated: its claim rests on more than what this NVE remembers.
    pub(super) spoke: bool,
}

/// A VM that is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pause {
    /// The port that it ran on, while that is there.
    pub(super) port: Option<PortIdx>,
    pub(super) cause: PauseCause,
    /// When it began to run on that port.
    pub(super) ran_since: Instant,
    pub(super) since: Instant,
    /// Wall clock of its beginning.
    pub(super) wall_us: u64,
    /// When a vanished port ends the attachment (R19).
    pub(super) withdraw_at: Option<Instant>,
}

/// Why a VM is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PauseCause {
    /// The hypervisor said so.
    Asked,
    /// Its port lost the link.
    LinkDown,
    /// Its port is gone.
    PortGone,
}

impl Phase {
    /// The port that the VM runs on.
    pub(crate) fn running_on(&self) -> Option<PortIdx> {
        match self {
            Phase::Running(run) => Some(run.port),
            _ => None,
        }
    }

    /// The port that the VM runs on or is paused on.
    pub(crate) fn port(&self) -> Option<PortIdx> {
        match self {
            Phase::Running(run) => Some(run.port),
            Phase::Paused(pause) => pause.port,
            Phase::Idle | Phase::Left | Phase::Refused(_) => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self, Phase::Running(_))
    }

    pub(super) fn pause(&self) -> Option<&Pause> {
        match self {
            Phase::Paused(pause) => Some(pause),
            _ => None,
        }
    }
}

impl Pause {
    /// What the VM says now it did not say before its pause.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        now.since(self.since) >= PAUSE_GRACE
    }
}

impl Vm {
    /// It runs or is paused here, so that local senders may resolve its addresses.
    pub(crate) fn is_hosted(&self) -> bool {
        matches!(self.phase, Phase::Running(_) | Phase::Paused(_))
    }

    /// It runs here.
    pub(crate) fn runs(&self) -> bool {
        self.phase.is_running()
    }

    /// It runs on this port, or is paused on it.
    pub(super) fn is_on(&self, port: PortIdx) -> bool {
        self.phase.port() == Some(port)
    }

    /// Nothing ends the attachment of a paused VM until that is armed again.
    pub(super) fn disarm_withdrawal(&mut self) {
        if let Phase::Paused(pause) = &mut self.phase {
            pause.withdraw_at = None;
        }
    }
}
