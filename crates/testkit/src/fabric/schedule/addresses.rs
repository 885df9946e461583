//! What VMs have and do by their own word, in a schedule (R92 to R94).

use std::net::IpAddr;

use godwit_wire::Span;

/// What a frame of a VM comes from, or is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The VM itself.
    Own,
    /// A MAC within it (R94).
    Nested(usize),
    /// A host of the prefix that it routes for (R94).
    Routed,
}

/// What a VM may have beside its recorded addresses.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TenantPlan {
    /// It shares its VN's virtual address with others (R92).
    pub shares: bool,
    /// Its record has no IPv4 address, and no IPv6 address: it binds them by its own word (R93).
    pub unrecorded: (bool, bool),
    /// It may bind so many of each family beside the recorded ones.
    pub room: Option<u8>,
    /// MACs within it.
    pub nested: usize,
    /// It routes for a prefix.
    pub routes: bool,
}

/// A VM becomes the master of its VN's virtual address, as by VRRP (R92).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakeOver {
    /// When, from the start of traffic; later where it does not run then.
    pub at: Span,
    /// The VM.
    pub vm: usize,
    /// So long the master before goes on as if it were that still.
    pub lag: Span,
}

/// A VM uses an address by its own word, whosever it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UsePlan {
    /// From then on.
    pub at: Span,
    /// Until then; none: for good.
    pub until: Option<Span>,
    /// The VM.
    pub vm: usize,
    /// The address.
    pub ip: IpAddr,
    /// Gap between two frames.
    pub every: Span,
}

/// Numbered frames between what is in VMs, behind them, or themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SidePlan {
    /// Sender.
    pub from: (usize, Side),
    /// Receiver, of the same VN.
    pub to: (usize, Side),
    /// IPv6 inside.
    pub v6: bool,
    /// Gap between two frames.
    pub every: Span,
}

/// What VMs have and do by their own word (R92 to R94).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressPlan {
    /// VMs, as in [`super::Schedule::vms`].
    pub vms: Vec<TenantPlan>,
    /// Masters of virtual addresses, by time.
    pub takeovers: Vec<TakeOver>,
    /// Virtual addresses answer by a virtual MAC (RFC 9568 section 7.3).
    pub virtual_mac: bool,
    /// Masters announce themselves again and again, not only at first.
    pub refresh: bool,
    /// Addresses that VMs use.
    pub uses: Vec<UsePlan>,
    /// Flows beside those of [`super::Schedule::flows`].
    pub flows: Vec<SidePlan>,
    /// How often NVEs ask for learned addresses.
    pub check: Span,
}
