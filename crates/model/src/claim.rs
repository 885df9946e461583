//! Claims: their causes, their refusals, and the policy for those that nobody ordered.

/// What made an NVE claim a VM (R18).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClaimCause {
    /// An explicit activation by the hypervisor or the operator.
    Activate,
    /// A gratuitous ARP (R24).
    GratuitousArp,
    /// An unsolicited neighbor advertisement (R25).
    NeighborAdvertisement,
    /// A hypervisor's RARP (R26).
    Rarp,
    /// The VM's first frame.
    FirstFrame,
    /// Said again after a reconnect.
    Resync,
}

impl ClaimCause {
    /// By what the VM made itself known, for the operator.
    pub fn as_text(self) -> &'static str {
        match self {
            ClaimCause::Activate => "by order, or its port came back",
            ClaimCause::GratuitousArp => "by a gratuitous ARP",
            ClaimCause::NeighborAdvertisement => "by a neighbor advertisement",
            ClaimCause::Rarp => "by a RARP",
            ClaimCause::FirstFrame => "by its first frame",
            ClaimCause::Resync => "was there before this session",
        }
    }
}

/// Why a claim was refused; the text is for people, the kind for programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DenyReason {
    /// No such VM in the directory.
    UnknownVm,
    /// The addresses differ from the recorded ones (R55).
    AddressMismatch,
    /// It lives at another NVE and no move to this one was ordered.
    OwnedElsewhere,
    /// The claim rests on an older version than the recorded one and loses.
    StaleVersion,
    /// Its location is pinned by the operator.
    Pinned,
    /// Its location is frozen after too many unplanned moves (R22).
    Frozen,
    /// The claiming NVE is being drained, and takes no VM that was not there (R85).
    Draining,
    /// The claiming NVE may not take part in the VN (R68).
    NotAllowed,
}

/// Why an address is not bound to a VM; the text beside it is for people, the kind for programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BindRefusal {
    /// The directory has no such VM.
    UnknownVm,
    /// The VM is not at the NVE that asks.
    NotHere,
    /// Neither its record nor its VN lets it bind this by its own word.
    NotAllowed,
    /// It has bound as many as it may.
    Full,
    /// It is another VM's.
    Taken,
}

/// What the NVA does with a claim for a VM that lives at another NVE, where no move was ordered (R21).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Unplanned {
    /// The old NVE is asked whether the VM still runs there: granted if not.
    #[default]
    Verify,
    /// Granted at once.
    Accept,
    /// Refused.
    Deny,
}
