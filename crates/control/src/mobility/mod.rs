//! One VM's mobility at this NVE: a pure state machine, (event, now) -> actions.
//!
//! The machine decides three things, always by its whole state and never by a difference, so that
//! they may be asked for again at any time: what workers do with the VM's frames ([`Vm::desired_entry`]),
//! how far each of its ports may talk ([`Vm::admission`]), and when time alone changes something
//! ([`Vm::deadline`]). Everything else is an [`Action`] that happens once: a message, a report, a
//! note.
//!
//! ```text
//!            port added                  announce / ActivatePort
//!   (none) ------------> Idle ------------------------------------> Running --- Claim -> Grant
//!                         ^  ^ port gone, hold over: Withdraw         |   ^  \
//!                         |  +------------------- Paused <-- pause ---+   |   \ Deny
//!                         |                         |  \___ resume, abort_/    v
//!      Prepare(Target)    |   newer location        v                        Refused
//!     or port added again +--------------------- Left (forward entry)
//! ```
//!
//! | Phase | Event | Next |
//! |---|---|---|
//! | Idle, Left | announcement, order, the directory has it here | Running, with a claim |
//! | Running | order, link lost, port gone, its manager's report | Paused |
//! | Running | the announced address is not its own | Idle |
//! | Running, Paused | newer location at another NVE | Left, with a forward entry |
//! | Running, Paused | claim refused | Refused; without a port or by old news Idle or Left |
//! | Paused | order, announcement, link or port back, move called off | Running |
//! | Paused | hold over, its manager's report | Idle, with a withdrawal |
//! | Left | port added, move back here, no NVE has it | Idle |
//! | Left | forward entry over, no port | Idle |
//! | Refused | announcement, order, grant, no other NVE has it | Running |
//! | Refused | port gone, move to here | Idle |
//!
//! | Phase | What it carries |
//! |---|---|
//! | Idle, Left | nothing |
//! | Running | port; since when; whether the VM itself spoke |
//! | Paused | port, while that is there; cause; beginning of the run and of the pause; when the attachment ends |
//! | Refused | port and cause of the claim; version and owner that it lost to; when it is claimed again |
//!
//! Beside the phase, and in each of them, stand what the directory has said since the first port came
//! ([`Provision`]), the claim and the forward entry, this NVE's part in a move ([`Intent`]), and the history of the
//! VM's stays here (`hosted`, `ran_from`, `withdrawn`, `confirmed`), by which late answers are judged.
//!
//! The directory's word is not kept here: the mirror has it, and each call gets the newest record.
//! Versions decide (R20): what is not newer than our own last hosting never moves a VM away.

mod claim;
mod connections;
mod context;
mod directory;
mod forward;
mod handover_counts;
mod moves;
mod oper;
mod order;
mod phase;
mod port;
mod provision;
mod refusal;
mod scan;
mod seek;
mod verify;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use godwit_model::{
    ClaimCause, Location, MoveStep, MoveStepKind, NveId, Version, VmKey, VmRecord, WhilePaused,
};
use godwit_tables::update::{Admission, PortIdx};
use godwit_wire::{Bucket, Instant, Rate};

use crate::io::Level;
use crate::view::PortState;

pub(crate) use claim::Claim;
use connections::Connections;
pub(crate) use context::{Action, Ctx};
use forward::Forward;
pub(crate) use handover_counts::Handover;
pub(crate) use moves::Intent;
use order::Ordering;
use phase::{Pause, PauseCause};
pub(crate) use phase::{Phase, Run};
pub(crate) use port::AccessPort;
use port::Behind;
use provision::Provision;
pub(crate) use refusal::Refusal;
use scan::Scan;
use seek::Seek;
use verify::Check;

/// Notes on one VM's announcements, and claims of its changed flags.
const NOTES: Rate = Rate::per_second(1, 1);

/// What workers shall do with the VM's frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DesiredEntry {
    /// What the directory says.
    Directory,
    /// Deliver to the port.
    Local(PortIdx),
    /// Hold what the overlay brings; local senders reach it where it still runs.
    Expected { via: Option<Location> },
    /// Hold everything.
    Paused,
    /// Drop everything: its connections are paused (R54).
    Blocked,
    /// Forward packets in flight (R43).
    Departed { to: Location, until: Instant },
}

/// One VM's machine.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) key: VmKey,
    pub(crate) ports: BTreeMap<PortIdx, AccessPort>,
    /// Name of the port that it had last.
    pub(crate) last_port: String,
    pub(crate) phase: Phase,
    /// What the directory has said of it since its first port came. Independent of the phase: a VM runs before the
    /// directory has spoken, and the directory speaks of VMs that do not run.
    provisioned: Provision,
    /// Version of our own last hosting; zero for never.
    pub(crate) hosted: Version,
    /// Version of the record that the last activation rested on.
    ran_from: Version,
    /// Version that we withdrew last; the directory's echo of it must not activate a port.
    withdrawn: Version,
    pub(crate) claim: Option<Claim>,
    /// Claims that it was good for of late (R67).
    claims: Bucket,
    pub(crate) intent: Option<Intent>,
    pub(crate) forward: Option<Forward>,
    /// The directory has had it here since it was activated on its port. Outlives that stay: a refusal of a claim,
    /// which may come when the VM runs here no more, is the news of a departure only where the VM had been here.
    confirmed: bool,
    /// The R flag of its last advertisement here (R25).
    pub(crate) router: Option<bool>,
    /// The O flags of its advertisements here, by address; none of addresses that its record has not (R25).
    overrides: BTreeMap<Ipv6Addr, bool>,
    /// Address of an announcement that came before the directory spoke.
    announced: Option<IpAddr>,
    /// Notes on announcements, and claims of changed flags.
    notes: Bucket,
    pub(crate) handover: Handover,
    /// The NVA wants to know whether it still runs here (R21).
    check: Option<Check>,
    /// It is asked because another VM left (R32).
    scan: Option<Scan>,
    /// It is looked for.
    seek: Option<Seek>,
    /// Changes between its ports that it was good for of late.
    changes: Bucket,
    /// It would run on a port, had its policy come (R23). In every phase: it may run on another port meanwhile.
    waits: Option<(PortIdx, ClaimCause)>,
    /// It has come by a planned move, and not all is in order yet (R77).
    ordering: Option<Ordering>,
    /// The pause of its connections that is on (R54).
    connections: Option<Connections>,
    /// What is held for that is to be dropped.
    drops_held: bool,
}

impl Vm {
    pub(crate) fn new(key: VmKey) -> Vm {
        Vm {
            key,
            ports: BTreeMap::new(),
            last_port: String::new(),
            phase: Phase::Idle,
            provisioned: Provision::Unsaid,
            hosted: Version::ZERO,
            ran_from: Version::ZERO,
            withdrawn: Version::ZERO,
            claim: None,
            claims: Bucket::default(),
            intent: None,
            forward: None,
            confirmed: false,
            router: None,
            overrides: BTreeMap::new(),
            announced: None,
            notes: Bucket::default(),
            handover: Handover::default(),
            check: None,
            scan: None,
            seek: None,
            changes: Bucket::default(),
            waits: None,
            ordering: None,
            connections: None,
            drops_held: false,
        }
    }

    /// What workers shall do with its frames.
    pub(crate) fn desired_entry(&self, now: Instant, record: Option<&VmRecord>, us: &NveId) -> DesiredEntry {
        match (&self.phase, self.while_paused()) {
            (Phase::Running(_) | Phase::Paused(_), Some(WhilePaused::Drop)) => return DesiredEntry::Blocked,
            (Phase::Running(run), None) => return DesiredEntry::Local(run.port),
            (Phase::Running(_) | Phase::Paused(_), _) => return DesiredEntry::Paused,
            (Phase::Idle | Phase::Left | Phase::Refused(_), _) => {}
        }
        // While it is only associated for its return, it still runs where it went (R46c).
        if let Some(f) = self.forward.as_ref().filter(|f| f.ends() > now) {
            return DesiredEntry::Departed { to: f.to.clone(), until: f.ends() };
        }
        match &self.intent {
            // What comes for a VM that is shut down is not held for its start.
            Some(intent) if intent.is_target() && !intent.mode.interrupts() && self.open_port().is_some() => {
                DesiredEntry::Expected { via: intent.runs_at(record, us) }
            }
            _ => DesiredEntry::Directory,
        }
    }

    /// How far a port of its may talk.
    pub(crate) fn admission(&self, port: PortIdx) -> Admission {
        let Some(p) = self.ports.get(&port) else { return Admission::Closed };
        // A paused VM's port stays open: frames that it had sent before still leave.
        if self.is_on(port) && !self.is_muted() {
            Admission::Activated
        } else if p.is_closed() {
            Admission::Closed
        } else {
            Admission::Associated
        }
    }

    /// Where an access port of its stands, for people (R15).
    pub(crate) fn port_state(&self, port: PortIdx) -> PortState {
        match (self.admission(port), &self.phase) {
            (Admission::Activated, Phase::Paused(_)) => PortState::Paused,
            (Admission::Activated, _) => PortState::Activated,
            // Not there, says its manager (R16).
            (Admission::Closed, _) if self.ports.get(&port).is_some_and(|p| p.behind == Behind::Nobody) => {
                PortState::Init
            }
            (Admission::Closed, Phase::Refused(_)) => PortState::Quarantined,
            (Admission::Closed, _) => PortState::Departed,
            (Admission::Associated, _) if self.provisioned.is_said() => PortState::Associated,
            (Admission::Associated, _) => PortState::Init,
        }
    }

    /// Ports or holds of it are there.
    pub(crate) fn is_present(&self) -> bool {
        !self.ports.is_empty() || self.is_hosted()
    }

    /// Its VN is needed: ports, holds or a forward entry are there.
    pub(crate) fn needs_vn(&self) -> bool {
        self.is_present() || self.forward.is_some()
    }

    /// Nothing about it needs to be remembered.
    pub(crate) fn is_forgettable(&self) -> bool {
        !self.needs_vn() && self.intent.is_none() && self.ordering.is_none() && !self.handover.is_reporting()
    }

    /// A location whose next hop should be known ahead (R42): the other side of a planned move.
    pub(crate) fn peer(&self) -> Option<&Location> {
        self.intent.as_ref().map(Intent::peer)
    }

    /// When time alone changes something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let claim = self.claim.as_ref().and_then(|c| c.next);
        let forward = self.forward.as_ref().and_then(Forward::deadline);
        let intent = self.intent.as_ref().map(Intent::deadline);
        let check = self.check.as_ref().map(Check::deadline);
        let scan = self.scan.as_ref().map(Scan::deadline);
        let crashed = self.ports.values().filter_map(AccessPort::crash_ends).min();
        let (seek, refused) = (self.seek.as_ref().map(Seek::deadline), self.refusal_deadline());
        [
            seek,
            refused,
            claim,
            forward,
            intent,
            self.phase.pause().and_then(|pause| pause.withdraw_at),
            self.handover.deadline(),
            check,
            scan,
            crashed,
            self.order_deadline(),
            self.connections_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, cx: &mut Ctx<'_>) {
        if self.intent.as_ref().is_some_and(|i| i.expires <= cx.now) {
            self.intent_expired(cx);
        }
        if self.intent.as_ref().is_some_and(|i| i.prepare_by().is_some_and(|t| t <= cx.now)) {
            self.report_prepared(cx, "next hop not resolved yet, or records on their way");
        }
        if self.phase.pause().and_then(|pause| pause.withdraw_at).is_some_and(|t| t <= cx.now) {
            self.keep_door();
            self.attachment_over("it has no port any more", cx);
        }
        self.crash_due(cx);
        self.ask_for_extension(cx);
        if self.forward.as_ref().is_some_and(|f| f.ends() <= cx.now) {
            self.forward = None;
            self.handover.finish(self.key, cx);
            if self.ports.is_empty() && self.phase == Phase::Left {
                self.phase = Phase::Idle;
            }
        }
        self.repeat_claim(cx);
        self.check_due(cx);
        self.scan_due(cx);
        self.refusal_due(cx);
        self.seek_due(cx);
        self.order_due(cx);
        self.connections_due(cx);
        self.handover.tick(self.key, cx);
    }

    /// The port stayed away, or the VM's manager says that it does not run: the attachment ends (R19).
    fn attachment_over(&mut self, why: &str, cx: &mut Ctx<'_>) {
        self.phase = Phase::Idle;
        self.claim = None;
        self.seek = None;
        if self.hosted > Version::ZERO {
            cx.note(Level::Info, format!("{} is withdrawn ({}): {why}", self.key, self.hosted));
            self.tell_departure(cx);
            self.withdraw(self.hosted, cx);
            cx.actions.push(Action::ScanOthers);
        }
    }

    /// The directory has it here by this version, and it is not: the withdrawal that said so rested on an older
    /// version, or there was nothing to withdraw yet. Said once a version (R19).
    pub(crate) fn disowns(&mut self, version: Version) -> bool {
        let explained = self.intent.as_ref().is_some_and(|i| !i.ends_here());
        let idle = self.phase == Phase::Idle && self.provisioned.is_settled() && !explained;
        let missing = idle && version > self.withdrawn && !self.ports.values().any(AccessPort::could_have_it);
        if missing {
            self.withdrawn = version;
        }
        missing
    }

    /// It is shut down here for a move, which begins with that.
    pub(crate) fn ends_for_move(&self) -> bool {
        self.intent.as_ref().is_some_and(Intent::ends_here)
    }

    /// Others may have it here still (R39).
    fn tell_departure(&self, cx: &mut Ctx<'_>) {
        if self.hosted > Version::ZERO {
            cx.actions.push(Action::Departed(self.hosted));
        }
    }

    fn withdraw(&mut self, version: Version, cx: &mut Ctx<'_>) {
        self.withdrawn = self.withdrawn.max(version);
        cx.actions.push(Action::Withdraw(version));
    }

    fn step(&self, cx: &Ctx<'_>, what: MoveStepKind, at_us: u64, note: &str) -> MoveStep {
        MoveStep { at_us, nve: Some(cx.config.nve.clone()), what, note: note.to_owned() }
    }
}
