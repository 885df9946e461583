//! What would happen to a frame, and why: the operator's question at 3 a.m.
//!
//! A trace asks the same functions that packet processing asks, and changes nothing. Its verdict is
//! what [`crate::Pipeline::process`] would do with the frame at this moment, as far as the tables
//! decide it; an empty buffer pool or a full transmit queue it cannot foresee.

mod text;
mod walk;

use core::net::IpAddr;

use godwit_tables::DropReason;
use godwit_tables::event::AnnounceKind;
use godwit_tables::policies::Judged;
use godwit_tables::update::{Key, NextHop, PortIdx, PortRole, TunnelIdx, VmState, VnIdx};
use godwit_wire::{Dscp, EtherType, Mac, Prefix, Vni};

pub use crate::gateway::Problem;
pub use walk::trace;

/// The most steps that a trace takes.
pub const MAX_STEPS: usize = 18;

/// What the forwarding table says of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing.
    Missing,
    /// The directory is being asked; so many frames wait.
    Querying(u32),
    /// What control said; so many frames wait.
    Known(VmState, u32),
}

/// How a frame ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It leaves through a port, without an outer header.
    Send {
        /// The port.
        port: PortIdx,
    },
    /// It goes to another NVE.
    Encapsulated {
        /// The NVE's locator.
        remote: IpAddr,
        /// It came from the overlay (R44).
        in_flight: bool,
    },
    /// It goes to another NVE, cut into fragments (R8).
    Fragmented {
        /// The NVE's locator.
        remote: IpAddr,
        /// Fragments.
        pieces: usize,
    },
    /// It begins a query and waits (R34, R35).
    Miss,
    /// It waits (R35, R45).
    Held,
    /// It is answered, back through the port that it came in on.
    Answered,
    /// It is a request and waits for the directory (R31).
    Waits,
    /// It goes to so many places (R60).
    Replicated(usize),
    /// It ends here as it should.
    Consumed,
    /// It is dropped.
    Drop(DropReason),
}

/// One step of a trace.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step {
    /// The port that the frame comes in on.
    Ingress {
        /// The port.
        port: PortIdx,
        /// Its role.
        role: Option<PortRole>,
    },
    /// The frame's own header.
    Parsed {
        /// Destination.
        dst: Mac,
        /// Source.
        src: Mac,
        /// What follows.
        ethertype: EtherType,
    },
    /// Outer header of a VXLAN packet to us.
    Outer {
        /// The sending NVE.
        sender: IpAddr,
        /// TTL as received.
        ttl: u8,
    },
    /// The VN of the frame.
    VnFound {
        /// Its number.
        vn: VnIdx,
        /// Its identifier.
        vni: Vni,
    },
    /// What goes to another NVE has this outer DSCP, by its VM's policy, or as it came (R23).
    Marked {
        /// The code point.
        dscp: Dscp,
    },
    /// A policy was asked (R23).
    Policy {
        /// The port whose VM has it.
        port: PortIdx,
        /// What it says.
        judged: Judged,
    },
    /// The source is the port's VM (R65).
    SourceAccepted {
        /// The VM.
        mac: Mac,
    },
    /// An 802.1Q tag is taken off (R10).
    Untagged,
    /// The frame announces its VM to control (R18).
    Announces {
        /// How.
        kind: AnnounceKind,
    },
    /// The frame asks for an address.
    AsksFor {
        /// The address.
        target: IpAddr,
        /// Its owner, if known.
        owner: Option<Mac>,
    },
    /// The gateway looks for a route (R58).
    Route {
        /// The destination.
        dst: IpAddr,
        /// The prefix of the route, and where it leads.
        route: Option<(Prefix, NextHop)>,
    },
    /// The gateway sends the packet on to a VM (R7, R58).
    Forwards {
        /// The VM, the frame's new destination.
        dst: Mac,
        /// The gateway, its new source.
        src: Mac,
        /// TTL or hop limit as it leaves.
        ttl: u8,
    },
    /// The gateway tells the sender of a problem, unless it has told it of too many of late.
    Tells {
        /// The gateway's address.
        from: IpAddr,
        /// What.
        problem: Problem,
    },
    /// Control is shown the frame, and answers it: DHCP or a router solicitation.
    Punted,
    /// The entry of the destination.
    FibHit {
        /// VN and MAC.
        key: Key,
        /// What is known.
        found: Found,
    },
    /// The tunnel that the entry names.
    Tunnel {
        /// The tunnel.
        tunnel: TunnelIdx,
        /// The remote locator, if the tunnel exists.
        remote: Option<IpAddr>,
        /// The uplink and the next hop's MAC, those of the frame's flow where the tunnel has several ways (R95);
        /// `None` where the next hop does not answer.
        hop: Option<(PortIdx, Mac)>,
        /// Largest outer packet, in bytes.
        mtu: u16,
    },
    /// The end.
    Ending(Ending),
}

/// The steps of one frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Trace {
    steps: [Step; MAX_STEPS],
    len: usize,
}

impl Trace {
    /// The steps, in order; the last one is the verdict.
    pub fn steps(&self) -> &[Step] {
        &self.steps[..self.len]
    }

    /// How the frame ends.
    pub fn verdict(&self) -> Ending {
        match self.steps().last() {
            Some(Step::Ending(v)) => *v,
            _ => Ending::Drop(DropReason::PortUnknown),
        }
    }

    fn push(&mut self, step: Step) {
        debug_assert!(self.len < MAX_STEPS, "a trace with more steps than it has room for");
        if let Some(place) = self.steps.get_mut(self.len) {
            *place = step;
            self.len += 1;
        }
    }
}
