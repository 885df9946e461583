//! What a frame from a VM asks for.

use core::net::IpAddr;

use godwit_tables::DropReason;
use godwit_tables::event::AnnounceKind;
use godwit_tables::neighbors::Ask;
use godwit_wire::Mac;
use godwit_wire::arp::ArpRepr;
use godwit_wire::ndp::AdvertFrame;

/// What a frame from a VM asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Disposition {
    /// Carried to the VM with this address.
    Unicast(Mac),
    /// The same, but the frame is addressed to a group: rewrite its destination (R29).
    ToOwner(Mac),
    /// For the gateway: routed to a VM, or answered (R58).
    Route,
    /// Shown to control, which answers it (R58).
    Punt,
    /// Copied to everybody in the VN (R60).
    Flood,
    /// The same, after its 802.1Q tag was taken off and the frame looked at again (R10).
    Untag,
    /// Tells that the VM is here (R18).
    Announce(AnnounceKind, Option<IpAddr>),
    /// Answered, or waits for an answer (R28–R31).
    Resolve(Resolution),
    /// Nothing; the frame did what it could.
    Nothing,
    /// Waits for the port to be activated; the port's VM shows that it is alive (R18).
    FirstFrame,
    /// Waits for the port to be activated, and says nothing of its VM (R30).
    Probe,
    /// Dropped.
    Drop(DropReason),
}

impl Disposition {
    /// The frame carries data: the policy of the VM that sends it has a say (R23).
    pub fn is_carried(&self) -> bool {
        matches!(self, Disposition::Unicast(_) | Disposition::Flood | Disposition::Route | Disposition::Punt)
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Resolution {
    /// An ARP reply.
    Arp(ArpRepr),
    /// A neighbor advertisement.
    Nd(AdvertFrame),
    /// It waits.
    Wait {
        /// As what.
        ask: Ask,
        /// The directory is asked (R31): nobody else waits for the address yet.
        query: bool,
    },
    /// Nobody has the address as far as the directory knows, and in this VN silent hosts are asked
    /// for themselves (R31).
    Flood {
        /// Who asks for what.
        ask: Ask,
    },
}
