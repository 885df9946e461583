//! Where a frame for a VM with a special entry goes.

use crate::holds::Origin;
use crate::update::{PortIdx, Target, VmState};
use crate::vms::{Special, State};
use crate::{DropReason, Tables};

/// Where a frame for a VM with a special entry goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dispatch {
    /// To the port.
    Deliver(PortIdx),
    /// Through the tunnel, whose header is ready.
    Tunnel {
        /// The tunnel, and the VNI under which the frame goes.
        target: Target,
        /// The frame came from the overlay: the outer TTL shrinks (R46d).
        in_flight: bool,
    },
    /// It waits.
    Hold,
    /// Nowhere.
    Drop(DropReason),
}

impl Tables {
    /// Where a frame from `origin` goes when its VM is in `state`. `flushing`: it was held before.
    pub fn dispatch(&self, state: &State, origin: Origin, flushing: bool) -> Dispatch {
        let tunnel = |target: Target, in_flight| match self.tunnels.get(target.tunnel) {
            Some(t) if t.header.is_some() => Dispatch::Tunnel { target, in_flight },
            Some(_) => Dispatch::Hold,
            None => Dispatch::Drop(DropReason::NoTunnel),
        };
        match (*state, origin) {
            (State::Querying { .. }, Origin::Local) => Dispatch::Hold,
            (State::Querying { .. }, Origin::Overlay) => Dispatch::Drop(DropReason::NotLocal),
            (State::Known(VmState::Local { port }), _)
            | (State::Known(VmState::Arrived { port, .. }), Origin::Overlay) => Dispatch::Deliver(port),
            (State::Known(VmState::Arrived { .. }), Origin::Local) => Dispatch::Hold,
            (State::Known(VmState::Remote { to } | VmState::Ageing { to }), Origin::Local) => {
                tunnel(to, false)
            }
            // Held while the VM was expected here, and now it runs elsewhere: no forward entry
            // allows to send it back to the overlay (R46a, R46b).
            (State::Known(VmState::Remote { .. } | VmState::Ageing { .. }), Origin::Overlay) if flushing => {
                Dispatch::Drop(DropReason::HoldAborted)
            }
            (State::Known(VmState::Remote { .. } | VmState::Ageing { .. }), Origin::Overlay) => {
                Dispatch::Drop(DropReason::NotLocal)
            }
            (State::Known(VmState::Expected { via: Some(to), .. }), Origin::Local) => tunnel(to, false),
            (State::Known(VmState::Expected { .. } | VmState::Paused { .. }), _) => Dispatch::Hold,
            (State::Known(VmState::Blocked), _) => Dispatch::Drop(DropReason::VmPaused),
            (State::Known(VmState::Departed { to, .. }), _) => tunnel(to, origin == Origin::Overlay),
            (State::Known(VmState::Detached { .. }), Origin::Local) => Dispatch::Drop(DropReason::Detached),
            (State::Known(VmState::Detached { .. }), Origin::Overlay) if flushing => {
                Dispatch::Drop(DropReason::HoldAborted)
            }
            (State::Known(VmState::Detached { .. }), Origin::Overlay) => Dispatch::Drop(DropReason::NotLocal),
            (State::Known(VmState::Absent { .. }), _) => Dispatch::Drop(DropReason::UnknownUnicast),
        }
    }

    /// Where a new frame from `origin` for a VM with a special entry goes once the frames that wait
    /// before it are gone. `None` where some must go first: they are sendable, and newer frames
    /// must not overtake them.
    pub fn dispatch_new(&self, s: &Special, origin: Origin) -> Option<Dispatch> {
        let goes = |o| !matches!(self.dispatch(&s.state, o, true), Dispatch::Hold);
        let blocked = |o| !s.queue(o).is_empty() && goes(o);
        if blocked(Origin::Local) || blocked(Origin::Overlay) {
            return None;
        }
        Some(self.dispatch(&s.state, origin, false))
    }
}
