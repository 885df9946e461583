//! What becomes of a frame for a single VM: one decision, without side effects.
//!
//! The cold path of packet processing acts on it, and a trace prints it. The fast path reads the plain words of the
//! forwarding table by itself; a property test holds it to the same decision.

use godwit_wire::Instant;
use godwit_wire::tenant::{self, Look};

use crate::holds::Origin;
use crate::update::{Key, PortIdx, Target, VnIdx};
use crate::vms::{Fib, SpecialIdx, State};
use crate::{Dispatch, DropReason, Tables};

/// A frame for a single VM, as far as it decides where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inbound<'a> {
    /// The port that it came in on.
    pub ingress: PortIdx,
    /// From a VM here, or from another NVE.
    pub origin: Origin,
    /// The outer TTL with which a frame from another NVE is sent on in flight; `None`: it has been sent on too often
    /// (R46d). Of no meaning for frames of VMs here.
    pub flight: Option<u8>,
    /// The gateway has sent it on: it may leave by the port that it came in on (R58).
    pub routed: bool,
    /// The inner frame.
    pub frame: &'a [u8],
}

/// Where a frame leaves this NVE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Egress {
    /// By a VM's port.
    Port(PortIdx),
    /// By a tunnel.
    Tunnel(Target),
}

/// What becomes of a frame. `room` of those that wait: whether the hold takes the frame; [`Tables::hold`] says the
/// same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It is delivered to a VM here.
    Deliver(PortIdx),
    /// It is encapsulated for the first time.
    Encapsulate {
        /// Where to.
        target: Target,
        /// Its flow and ECN.
        look: Look,
    },
    /// It is sent on in flight (R44).
    Forward {
        /// The entry whose forward entry this is.
        at: SpecialIdx,
        /// Where to.
        target: Target,
        /// Its flow and ECN.
        look: Look,
        /// The outer TTL.
        ttl: u8,
    },
    /// The directory is asked, and the frame waits for the answer (R34, R35).
    Query {
        /// The hold takes it.
        room: Result<(), DropReason>,
    },
    /// It waits for a tunnel whose next hop does not answer yet.
    AwaitTunnel {
        /// The tunnel.
        target: Target,
        /// The hold takes it.
        room: Result<(), DropReason>,
    },
    /// It waits with an entry that has frames waiting, or is to have (R35, R45).
    Hold {
        /// The entry.
        at: SpecialIdx,
        /// Only because older frames that could go are still there: these go first.
        behind: bool,
        /// The hold takes it.
        room: Result<(), DropReason>,
    },
    /// It is dropped.
    Drop {
        /// Why.
        reason: DropReason,
        /// Where its entry would have it leave.
        egress: Option<Egress>,
    },
}

/// What becomes of a frame, and which entry says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What the forwarding table says of the destination.
    pub entry: Option<Fib>,
    /// What becomes of the frame.
    pub action: Action,
}

impl Decision {
    /// Where the frame leaves, or would if it were not dropped or did not have to wait for a tunnel.
    pub fn egress(&self) -> Option<Egress> {
        match self.action {
            Action::Deliver(port) => Some(Egress::Port(port)),
            Action::Encapsulate { target, .. }
            | Action::Forward { target, .. }
            | Action::AwaitTunnel { target, .. } => Some(Egress::Tunnel(target)),
            Action::Query { .. } | Action::Hold { .. } => None,
            Action::Drop { egress, .. } => egress,
        }
    }
}

const fn nowhere(reason: DropReason) -> Action {
    Action::Drop { reason, egress: None }
}

impl Tables {
    /// What becomes of a frame for the VM `key`.
    pub fn decide(&self, key: Key, inbound: &Inbound<'_>, now: Instant) -> Decision {
        let entry = self.vms.get(key);
        let action = match (entry, inbound.origin) {
            (Some(Fib::Local(port)), _) => self.decide_delivery(port, key.vn(), inbound),
            (Some(Fib::Special(at)), _) => self.decide_special(at, key.vn(), inbound),
            (Some(Fib::Remote(to) | Fib::Ageing(to)), Origin::Local) => self.decide_remote(to, inbound),
            (None, Origin::Local) => self.decide_unknown(inbound, now),
            // Split horizon (R46a): without a forward entry nothing goes back to the overlay.
            (None | Some(Fib::Remote(_) | Fib::Ageing(_) | Fib::Detached(_)), Origin::Overlay) => {
                nowhere(DropReason::NotLocal)
            }
            (Some(Fib::Detached(_)), Origin::Local) => nowhere(DropReason::Detached),
        };
        Decision { entry, action }
    }

    /// To a port: that is in the VN, the frame does not come from there unless it was routed, and its VM's policy lets
    /// it in (R23).
    fn decide_delivery(&self, port: PortIdx, vn: VnIdx, inbound: &Inbound<'_>) -> Action {
        let drop = |reason| Action::Drop { reason, egress: Some(Egress::Port(port)) };
        if !self.ports.leads_to(port, vn) {
            return drop(DropReason::PortGone);
        }
        if port == inbound.ingress && !inbound.routed {
            return drop(DropReason::Hairpin);
        }
        match self.ports.may_get(port, inbound.frame) {
            Ok(()) => Action::Deliver(port),
            Err(reason) => drop(reason),
        }
    }

    fn decide_remote(&self, to: Target, inbound: &Inbound<'_>) -> Action {
        let drop = |reason| Action::Drop { reason, egress: Some(Egress::Tunnel(to)) };
        match self.tunnels.get(to.tunnel) {
            None => drop(DropReason::NoTunnel),
            Some(t) if t.header.is_some() => match self.fit(to, inbound) {
                Ok(look) => Action::Encapsulate { target: to, look },
                Err(reason) => drop(reason),
            },
            // A frame waits for the tunnel that its entry names, whatever its twin does.
            Some(_) if !self.vms.has_special_room() => drop(DropReason::MissLimit),
            Some(_) => {
                let room = self.room_to_hold(false, self.miss_hold_packets(), 0, inbound.frame.len());
                Action::AwaitTunnel { target: to, room }
            }
        }
    }

    fn decide_unknown(&self, inbound: &Inbound<'_>, now: Instant) -> Action {
        if !self.may_query(inbound.ingress, now) {
            return nowhere(DropReason::MissLimit);
        }
        let packets = self.hold_of_question(inbound.ingress, now);
        Action::Query { room: self.room_to_hold(true, packets, 0, inbound.frame.len()) }
    }

    fn decide_special(&self, at: SpecialIdx, vn: VnIdx, inbound: &Inbound<'_>) -> Action {
        let s = self.vms.special(at);
        let hold = |behind| {
            let querying = matches!(s.state, State::Querying { .. });
            Action::Hold {
                at,
                behind,
                room: self.room_to_hold(querying, s.limits.packets, s.slots(), inbound.frame.len()),
            }
        };
        match self.dispatch_new(s, inbound.origin) {
            None => hold(true),
            Some(Dispatch::Hold) => hold(false),
            Some(Dispatch::Deliver(port)) => self.decide_delivery(port, vn, inbound),
            Some(Dispatch::Tunnel { target, in_flight }) => {
                let drop = |reason| Action::Drop { reason, egress: Some(Egress::Tunnel(target)) };
                match (in_flight, inbound.flight, self.fit(target, inbound)) {
                    (true, None, _) => drop(DropReason::TtlExhausted),
                    (_, _, Err(reason)) => drop(reason),
                    (false, _, Ok(look)) => Action::Encapsulate { target, look },
                    (true, Some(ttl), Ok(look)) => Action::Forward { at, target, look, ttl },
                }
            }
            Some(Dispatch::Drop(reason)) => nowhere(reason),
        }
    }

    /// The frame goes through the way of its flow (R4, R95).
    ///
    /// # Errors
    /// [`DropReason::TooBig`] (R8), [`DropReason::NoTunnel`].
    fn fit(&self, to: Target, inbound: &Inbound<'_>) -> Result<Look, DropReason> {
        let look = tenant::look(inbound.frame, &self.hash_key);
        match self.tunnels.ready_for_frame::<true>(to.tunnel, look.is_v4(), look.hash) {
            None => Err(DropReason::NoTunnel),
            Some((way, _)) if inbound.frame.len() > usize::from(way.inner_max) => Err(DropReason::TooBig),
            Some(_) => Ok(look),
        }
    }
}
