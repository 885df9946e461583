//! Records that NVE, NVA and operator share: who a VM is, where it is, how sure we are, how it moves.
//!
//! No I/O and no protocol: `godwit-api` turns these into protobuf and back.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_lossless
    )
)]

mod addressing;
mod deadlines;
pub mod message;
mod oper;
mod policy;
pub mod timing;
mod vn;

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::{Mac, Vni};

pub use addressing::{
    Allowed, BadLearning, Bound, BoundIp, BoundKind, LEARNED_DEFAULT, LEARNED_MAX, Learning, LearningOf,
    MAX_BOUND, MAX_MACS, MAX_PREFIXES,
};
pub use deadlines::Deadlines;
pub use oper::{BadOperState, OperState};
pub use policy::{BadDscp, BadPolicy, BadRule, Policy, parse_dscp, parse_rule};
pub use vn::VnSettings;

/// The name of a Network Virtualization Edge, as the operator chose it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NveId(String);

/// A name that cannot be used; says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} name {name:?} is not valid: use 1 to 63 of the characters A-Z a-z 0-9 . _ - and begin with a \
     letter or digit"
)]
pub struct BadName {
    /// What was to be named: NVE, VN, VM or port.
    pub what: &'static str,
    /// The name as given.
    pub name: String,
}

/// Checks a name of an NVE, VN, VM or port.
///
/// # Errors
/// Where it is empty, longer than 63 bytes, or has other characters than `A-Za-z0-9._-`.
pub fn check_name(what: &'static str, name: &str) -> Result<(), BadName> {
    let ok = (1..=63).contains(&name.len())
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if ok { Ok(()) } else { Err(BadName { what, name: name.into() }) }
}

impl NveId {
    /// # Errors
    /// See [`check_name`].
    pub fn new(name: impl Into<String>) -> Result<NveId, BadName> {
        let name = name.into();
        check_name("NVE", &name)?;
        Ok(NveId(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What identifies a VM's interface (TSI) in the data plane: its VN and its MAC address (R13, R33).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VmKey {
    /// The virtual network.
    pub vni: Vni,
    /// The interface's address, unique within the VN.
    pub mac: Mac,
}

impl fmt::Display for VmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vni, self.mac)
    }
}

/// A location's version: assigned by the NVA only, compared lexicographically (R20).
///
/// The epoch rises with every start of the NVA, the sequence with every change of a location.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Version {
    /// The NVA's incarnation.
    pub epoch: u32,
    /// The change within it; never reused.
    pub seq: u64,
}

impl Version {
    /// Below every version that an NVA assigns.
    pub const ZERO: Version = Version { epoch: 0, seq: 0 };
}

/// Compares 32-bit sequence numbers that come from elsewhere and wrap around, as RFC 1982 does: 0 is
/// newer than 0xFFFF_FFFF (R20). `None` where two are 2^31 apart, so that neither is newer.
pub fn serial_cmp(a: u32, b: u32) -> Option<core::cmp::Ordering> {
    match a.wrapping_sub(b).cast_signed() {
        i32::MIN => None,
        ahead => Some(ahead.cmp(&0)),
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

/// An NVE's underlay addresses; at least one is set in a valid value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Locators {
    /// IPv4 locator.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 locator.
    pub v6: Option<Ipv6Addr>,
}

impl Locators {
    /// Neither family is set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Whether `ip` is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => self.v4 == Some(a),
            IpAddr::V6(a) => self.v6 == Some(a),
        }
    }
}

/// A key of 256 bits that no log shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An NVE as others see it: its name and where to send to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// The NVE.
    pub nve: NveId,
    /// Its locators.
    pub locators: Locators,
}

/// The router of a VN, in whose name VMs without a disk are answered (R27).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// Its MAC.
    pub mac: Mac,
    /// Its first IPv4 address.
    pub ip: Ipv4Addr,
}

impl Gateway {
    /// What the record says, if it is of a router that the operator defined. What a VM says of itself makes none.
    #[must_use]
    pub fn of(record: &VmRecord) -> Option<Gateway> {
        let ip = *record.ipv4.first()?;
        (record.router && record.router_pinned).then_some(Gateway { mac: record.key.mac, ip })
    }
}

/// Where the directory stands with a VM's interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BindingState {
    /// Defined, attached nowhere; its addresses stay reserved (R19).
    Detached,
    /// Attached to the NVE of its location, which carries its traffic.
    Active,
}

/// One VM interface in the directory (R33).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmRecord {
    /// The operator's name for the VM.
    pub name: String,
    /// VN and MAC.
    pub key: VmKey,
    /// Its IPv4 addresses, sorted.
    pub ipv4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, sorted.
    pub ipv6: Vec<Ipv6Addr>,
    /// Where it is; set exactly when `state` is `Active`.
    pub location: Option<Location>,
    /// Detached or active.
    pub state: BindingState,
    /// Version of this location and state.
    pub version: Version,
    /// It is a router (R flag of its neighbor advertisements, RFC 4861): by the operator's word, or
    /// learned from its own advertisements (R25).
    pub router: bool,
    /// `router` is the operator's word, which no advertisement changes.
    pub router_pinned: bool,
    /// Of `ipv6`, in order, what it last advertised with the O flag clear, as anycast addresses are (RFC 4861 section
    /// 7.2.7, R25). Answers in its name do not depend on this (R29).
    pub no_override: Vec<Ipv6Addr>,
    /// Its location is the operator's word (a foreign NVE without a session) and no claim moves it.
    pub pinned: bool,
    /// The planned move that is under way, if any.
    pub moving: Option<MoveId>,
    /// What it may send and receive, wherever it runs (R23): the name of a [`Policy`].
    pub policy: Option<String>,
    /// It went to and fro without being ordered to, and stays where it is until the operator clears it (R22).
    pub frozen: bool,
    /// What the operator allows it beside `ipv4` and `ipv6` (R92 to R94).
    pub allowed: Allowed,
    /// What it has by its own word; empty where nothing was heard of it (R92, R93).
    pub bound: Bound,
}

impl VmRecord {
    /// Every address that leads to it, each with the MAC that answers for it: recorded ones with its own, then bound
    /// ones.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, Mac)> + '_ {
        let recorded = self.ips().map(|ip| (ip, self.key.mac));
        recorded.chain(self.bound.ips.iter().map(|b| (b.ip, b.mac)))
    }

    /// The MAC that answers for an address of it.
    pub fn mac_of(&self, ip: IpAddr) -> Option<Mac> {
        self.addresses().find(|(own, _)| *own == ip).map(|(_, mac)| mac)
    }

    /// Every MAC whose frames are for it: its own, nested ones, and the virtual ones that it has.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + '_ {
        let nested = self.allowed.nested.iter().copied();
        core::iter::once(self.key.mac).chain(nested).chain(self.bound.macs.iter().copied())
    }

    /// Whose word binds addresses of the family of `ip` to `mac`, which is one of its own, nested or virtual ones;
    /// `vn` is what its VN says (R93).
    pub fn learning(&self, vn: LearningOf, mac: Mac, ip: IpAddr) -> Learning {
        let is_ipv4 = ip.is_ipv4();
        let default = Learning::Learned(LEARNED_DEFAULT);
        if matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local()) || mac != self.key.mac {
            return self.allowed.learning.family(is_ipv4).filter(|l| l.room() > 0).unwrap_or(default);
        }
        let recorded = if is_ipv4 { !self.ipv4.is_empty() } else { !self.ipv6.is_empty() };
        let said = self.allowed.learning.family(is_ipv4).or(vn.family(is_ipv4));
        said.unwrap_or(if recorded { Learning::Recorded } else { default })
    }

    /// The recorded addresses, IPv4 first: those that its definition lists.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ipv4.iter().copied().map(IpAddr::V4).chain(self.ipv6.iter().copied().map(IpAddr::V6))
    }
}

/// Identifies a planned move; chosen by the manager, so that a repeated order is the same move (R57).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MoveId(pub String);

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    /// Held packets dropped: limit, age or an abort without a way out.
    pub dropped: u64,
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

/// How an NVE learns the records of a VN, in the words of RFC 8171.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum DirectoryMode {
    /// The NVA sends all of them, and every change (R37).
    #[default]
    Push,
    /// The NVE asks for those that it needs, and forgets those that it no longer uses (R34, R40).
    Pull,
}

impl DirectoryMode {
    /// `push` or `pull`.
    pub fn as_text(self) -> &'static str {
        match self {
            DirectoryMode::Push => "push",
            DirectoryMode::Pull => "pull",
        }
    }
}

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

#[cfg(test)]
mod tests {
    use core::cmp::Ordering;

    use super::serial_cmp;

    #[test]
    fn r20_imported_sequences_wrap_around() {
        assert_eq!(serial_cmp(0, u32::MAX), Some(Ordering::Greater));
        assert_eq!(serial_cmp(u32::MAX, 0), Some(Ordering::Less));
        assert_eq!(serial_cmp(8, 7), Some(Ordering::Greater));
        assert_eq!(serial_cmp(7, 7), Some(Ordering::Equal));
        assert_eq!(serial_cmp(0x7fff_ffff, 0), Some(Ordering::Greater), "the farthest that counts");
        assert_eq!(serial_cmp(0x8000_0000, 0), None);
        assert_eq!(serial_cmp(0, 0x8000_0000), None);
    }
}
