//! The NVE-NVA messages in the words of this crate; `proto/godwit/v1/session.proto` is their wire form.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use godwit_wire::{Mac, Prefix, Vni};

use crate::{
    Abilities, BindRefusal, ClaimCause, DenyReason, DirectoryMode, Domain, DomainId, Gateway, HandoverCounts,
    Location, Locators, MoveId, MoveMode, MoveStep, NveId, Policy, Secret, StaticRoute, Version, VmKey,
    VmRecord, VnSettings,
};

/// From an NVE to the NVA. `Hello` opens a session; administrative replies travel beside these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NveToNva {
    /// Who speaks, and the NVA epoch it last saw (0 for none).
    Hello {
        /// The NVE.
        nve: NveId,
        /// Its locators.
        locators: Locators,
        /// Its software, for people.
        software: String,
        /// Last epoch seen.
        last_epoch: u32,
        /// Random number of the process that speaks: a switch that connects again has the same, one that was started
        /// anew or that was cloned another (R96). 0 of a switch that has none.
        instance: u64,
        /// What it can do.
        abilities: Abilities,
    },
    /// It has ports in the VN: wants snapshot, end and updates, and counts as a member (R17, R37).
    Subscribe {
        /// The VN.
        vni: Vni,
        /// All records of the VN, or those only that it asks for.
        mode: DirectoryMode,
        /// It has no port in the VN, as [`NveToNva::Linger`] says it later.
        lingers: bool,
    },
    /// It has no ports in the VN any more.
    Unsubscribe {
        /// The VN.
        vni: Vni,
    },
    /// It has no port in a VN that it subscribed to, but still forwards for VMs that left it, or routes to its VMs
    /// (R58); or it has one again (R17). A Subscribe says it by itself.
    Linger {
        /// The VN.
        vni: Vni,
        /// It has no port.
        lingers: bool,
    },
    /// A port for the VM is there and silent (R15).
    Associate {
        /// The VM.
        key: VmKey,
        /// The port's name.
        port: String,
    },
    /// That port is gone.
    Disassociate {
        /// The VM.
        key: VmKey,
        /// The port's name.
        port: String,
    },
    /// Pull (R34); repeated with the same `seq`.
    Query {
        /// Number of the question.
        seq: u64,
        /// The VN.
        vni: Vni,
        /// What is asked for.
        by: QueryBy,
    },
    /// The VM runs here (R18); repeated with the same `seq` until answered.
    Claim {
        /// Number of the claim.
        seq: u64,
        /// The VM.
        key: VmKey,
        /// The addresses that the port is provisioned with (R55).
        ips: Vec<IpAddr>,
        /// Why.
        cause: ClaimCause,
        /// The version that the NVE's knowledge rests on.
        base: Version,
        /// The port's name.
        port: String,
        /// The R flag of an advertisement that the VM itself sent on this port (R25); `None`: not heard.
        router: Option<bool>,
        /// The O flags of its advertisements, by the address that they were for (R25).
        overrides: BTreeMap<Ipv6Addr, bool>,
    },
    /// The VM left; compare-and-delete by version (R19).
    Withdraw {
        /// The VM.
        key: VmKey,
        /// The version that the NVE held.
        version: Version,
    },
    /// An Update has taken effect in every worker.
    Ack {
        /// Its number.
        ack_id: u64,
    },
    /// A forward entry nears its end; whoever still needs it has it extended (R43).
    ForwardEnding {
        /// The VM.
        key: VmKey,
        /// The version of the location that is forwarded to.
        version: Version,
    },
    /// The VM is not here any more; the NVA passes it on to the other NVEs of its VN (R39).
    Departed {
        /// The VM.
        key: VmKey,
        /// Its addresses.
        ips: Vec<IpAddr>,
        /// The version of the location that is over.
        version: Version,
    },
    /// A sender with an old location that could not be told directly, or did not listen (R47).
    Redirect {
        /// The VM that it sends to.
        key: VmKey,
        /// Where the VM is; `None`: not here, nothing more is known.
        to: Option<Locators>,
        /// Version of that location; zero without one.
        version: Version,
        /// The sender's locator.
        sender: IpAddr,
    },
    /// The VM spoke of an address or a MAC as its own that its record does not have yet, on its port here (R92, R93);
    /// repeated with the same `seq` until answered.
    Bind {
        /// Number of the request.
        seq: u64,
        /// The VM.
        key: VmKey,
        /// The MAC that it spoke from: its own, a nested or a virtual one.
        mac: Mac,
        /// The address; `None`: it is of the virtual MAC alone.
        ip: Option<IpAddr>,
        /// By an announcement (ARP, neighbor advertisement), which takes a virtual address from another VM; not by a
        /// mere source address.
        announced: bool,
        /// Milliseconds since it spoke, so that of two announcements the later one counts, whichever comes first.
        age_ms: u32,
    },
    /// A bound address was not answered for when it was asked (R93).
    Unbind {
        /// The VM.
        key: VmKey,
        /// The address.
        ip: IpAddr,
    },
    /// Answer to `Verify` (R21).
    Verified {
        /// The VM.
        key: VmKey,
        /// The version that the question named.
        version: Version,
        /// It runs here: it answered, or cannot be asked. Otherwise it is gone or silent.
        alive: bool,
        /// How that was found, for people.
        note: String,
    },
    /// Progress of a move at this NVE.
    MoveReport {
        /// The move.
        id: MoveId,
        /// The VM.
        key: VmKey,
        /// A step, if any.
        step: Option<MoveStep>,
        /// Counts so far, if any.
        counts: Option<HandoverCounts>,
    },
    /// Multicast groups of a VN that VMs here joined or left (R61). The VN is subscribed to.
    Groups {
        /// The VN.
        vni: Vni,
        /// What was said before counts no more: `joined` are all.
        reset: bool,
        /// Groups, at most [`MAX_GROUPS`](crate::MAX_GROUPS) of the VN altogether; `0.0.0.0` or `::`: every group of
        /// the family, since a multicast router is here.
        joined: Vec<IpAddr>,
        /// Groups that nobody here wants any more.
        left: Vec<IpAddr>,
    },
    /// Every attachment, after a reconnect and every report_ival (R17).
    Report {
        /// All of them.
        attachments: Vec<Attachment>,
    },
    /// Nothing new.
    Keepalive,
}

/// One attachment in a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The VM.
    pub key: VmKey,
    /// The port's name.
    pub port: String,
    /// The version held; zero for none.
    pub version: Version,
    /// Activated, not only associated.
    pub active: bool,
}

/// The key of a query.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QueryBy {
    /// By MAC address.
    Mac(Mac),
    /// By IP address.
    Ip(IpAddr),
}

/// Which part an NVE has in a move.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MoveRole {
    /// The old NVE.
    Source,
    /// The new NVE.
    Target,
}

/// From the NVA to an NVE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NvaToNve {
    /// Answer to `Hello`.
    Welcome {
        /// The NVA's incarnation; messages of an older one are void.
        epoch: u32,
        /// After so long without a message the other side is taken for dead, in milliseconds.
        keepalive_ms: u32,
    },
    /// Answer to `Hello` instead of `Welcome`: another live switch has the NVE's name or one of its locators (R96).
    /// The session ends.
    Refused {
        /// Who has what, and what to do.
        text: String,
    },
    /// Part of a VN's snapshot.
    Snapshot {
        /// The VN.
        vni: Vni,
        /// Some of its records.
        vms: Vec<VmRecord>,
    },
    /// The VN's snapshot is complete; what it did not confirm goes (R37).
    End {
        /// The VN.
        vni: Vni,
        /// Its revision; updates count on from it by one.
        revision: u64,
        /// The directory has this VN.
        known: bool,
        /// The operator's settings.
        settings: VnSettings,
        /// The router in whose name RARP is answered, where the receiver pulls the VN and does not hear of it
        /// otherwise (R27).
        gateway: Option<Gateway>,
        /// The other NVEs that take part (R60).
        members: Vec<Location>,
        /// Those of them that only forward for VMs that left them: no copies go there (R17).
        lingering: Vec<NveId>,
    },
    /// NVEs that end their path to a VM's old NVE with a marker, and answer those of others (R77): told each NVE that
    /// does so itself, at the beginning of its session and when it changes.
    EndMarkers {
        /// What was told before is void.
        reset: bool,
        /// Further ones.
        nves: Vec<NveId>,
        /// Those that do so no more.
        gone: Vec<NveId>,
    },
    /// A change in a subscribed VN.
    Update {
        /// The VN.
        vni: Vni,
        /// Its revision with this change; a gap wants a new Subscribe.
        revision: u64,
        /// Other than 0: acknowledge when it is in effect.
        ack_id: u64,
        /// What changed.
        change: Change,
    },
    /// Answer to a query; `None`: authoritative absence.
    Response {
        /// The question's number.
        seq: u64,
        /// The record.
        record: Option<VmRecord>,
        /// Life of the answer in milliseconds; 0: don't cache.
        lifetime_ms: u64,
    },
    /// The claim holds: `record` has this NVE as location.
    Grant {
        /// The claim's number.
        seq: u64,
        /// The record.
        record: VmRecord,
    },
    /// The claim fails.
    Deny {
        /// The claim's number.
        seq: u64,
        /// The VM.
        key: VmKey,
        /// Why, for programs.
        reason: DenyReason,
        /// Why, for people.
        text: String,
        /// What the directory has instead, if anything.
        record: Option<VmRecord>,
    },
    /// A planned move concerns this NVE; repeated on reconnects until it is final (R49).
    MovePrepare {
        /// The move.
        id: MoveId,
        /// This NVE's part.
        role: MoveRole,
        /// The VM as recorded; its addresses provision the target (R55).
        record: VmRecord,
        /// The old NVE.
        from: Location,
        /// The new NVE.
        to: Location,
        /// How.
        mode: MoveMode,
    },
    /// The move was called off before its grant.
    MoveAbort {
        /// The move.
        id: MoveId,
        /// The VM.
        key: VmKey,
        /// Why.
        reason: String,
    },
    /// Policies, before the records that name them (R23).
    Policies {
        /// What was told before counts no more: these are the first of all that there are.
        reset: bool,
        /// New or changed ones.
        policies: Vec<Policy>,
        /// Names of those that are gone.
        gone: Vec<String>,
    },
    /// A routing domain that joins a VN which the receiver subscribed to; before the first End of such a VN (R58).
    Domain {
        /// The domain.
        domain: Domain,
        /// What was told of its routes before counts no more: all that there are come after it.
        reset: bool,
    },
    /// Static routes of a domain that the receiver was told of (R58).
    DomainRoutes {
        /// The domain.
        id: DomainId,
        /// New or changed routes.
        routes: Vec<StaticRoute>,
        /// Prefixes whose routes are gone.
        gone: Vec<Prefix>,
    },
    /// The domain is gone, or joins no VN of the receiver's any more.
    DomainGone {
        /// The domain.
        id: DomainId,
    },
    /// Multicast groups of a VN that VMs at another NVE joined or left (R61). After each End of the VN, all groups of
    /// each NVE that has said what it has; what is known of others stays.
    Groups {
        /// The VN.
        vni: Vni,
        /// The other NVE.
        nve: NveId,
        /// What was said of it before counts no more: `joined` are all.
        reset: bool,
        /// Groups, as in the message of that NVE.
        joined: Vec<IpAddr>,
        /// Groups that nobody there wants any more.
        left: Vec<IpAddr>,
    },
    /// What the directory has on an associated VM; `None`: nothing.
    Provision {
        /// The VM.
        key: VmKey,
        /// Its record.
        record: Option<VmRecord>,
    },
    /// Answer to `ForwardEnding`, where an interested NVE has not acknowledged the new location: the
    /// forward entry lives for another of its lifetimes (R43). Silence lets it end.
    ForwardExtend {
        /// The VM.
        key: VmKey,
        /// The version that the question named.
        version: Version,
    },
    /// An NVE says that the VM left it: who has an entry that is not newer asks again (R39).
    Departed {
        /// The VM.
        key: VmKey,
        /// The version of the location that is over.
        version: Version,
        /// The NVE that it left.
        from: NveId,
    },
    /// An NVE says that this one sends to an old location (R47).
    Redirect {
        /// The VM that is sent to.
        key: VmKey,
        /// Where the VM is; `None`: not there, nothing more is known.
        to: Option<Locators>,
        /// Version of that location; zero without one.
        version: Version,
        /// The NVE that was sent to.
        from: NveId,
    },
    /// By what this NVE opens datagrams of other NVEs from now on, and its number as their sender (R47, D13).
    ChannelKey {
        /// The secret's number; a secret never changes under its number.
        number: u32,
        /// The number of this session, which no other one ever gets.
        sender: u32,
        /// The secret; see [`channel`](crate::channel).
        secret: Secret,
        /// What was sealed for the secret before is not opened any more.
        alone: bool,
    },
    /// By what this NVE seals datagrams for others (D13).
    PairKeys {
        /// The keys, each in place of the one that the pair had.
        keys: Vec<PairKey>,
    },
    /// Answer to `Bind`: it is bound, as the record says.
    Bound {
        /// The request's number.
        seq: u64,
        /// The record.
        record: VmRecord,
    },
    /// Answer to `Bind`: it is not bound.
    BindRefused {
        /// The request's number.
        seq: u64,
        /// The VM.
        key: VmKey,
        /// The MAC that was named.
        mac: Mac,
        /// The address that was named.
        ip: Option<IpAddr>,
        /// Why, for programs.
        reason: BindRefusal,
        /// Why, and what would allow it, for people.
        text: String,
    },
    /// Another VM uses an address that this one has by its own word: is it still in use here? If not, `Unbind`
    /// follows (R93).
    VerifyIp {
        /// The VM that has it.
        key: VmKey,
        /// The address.
        ip: IpAddr,
    },
    /// Another NVE claims the VM without a move: does it still run here (R21)? Answered by `Verified`.
    Verify {
        /// The VM.
        key: VmKey,
        /// The version of the location that is doubted.
        version: Version,
    },
    /// A message was refused; the session stays.
    Error {
        /// What was wrong.
        text: String,
    },
    /// Nothing new.
    Keepalive,
}

/// The key of what an NVE seals at one of its locators for another one (D13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairKey {
    /// The own locator.
    pub from: IpAddr,
    /// The other NVE's.
    pub to: IpAddr,
    /// Number of the secret by which the other NVE opens it.
    pub number: u32,
    /// The key.
    pub secret: Secret,
}

/// A change in a VN.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant)] // Most are the large one.
pub enum Change {
    /// A new or changed record.
    Vm(VmRecord),
    /// A record is gone from the directory.
    Removed {
        /// The VM.
        key: VmKey,
        /// Version of the removal.
        version: Version,
    },
    /// The receiver is not told of this VM's changes any more: too many others are of interest to it. What it
    /// pulled is void, and who needs it asks again (R34).
    Forgotten {
        /// The VM.
        key: VmKey,
    },
    /// An NVE has members now.
    MemberJoined(Location),
    /// An NVE only forwards for VMs that left it: no copies go there (R17).
    MemberLingers(Location),
    /// An NVE has no part any more.
    MemberLeft(NveId),
}
