//! One VM's mobility at this NVE: a pure state machine, (event, now) -> actions.
//!
//! The machine decides three things, always by its whole state and never by a difference, so that
//! they may be asked for again at any time: what workers do with the VM's frames ([`Vm::wish`]),
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
//! The directory's word is not kept here: the mirror has it, and each call gets the newest record.
//! Versions decide (R20): what is not newer than our own last hosting never moves a VM away.

mod claim;
mod handover;
mod moves;
mod oper;
mod port;
mod refusal;
mod scan;
mod seek;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use godwit_model::message::NveToNva;
use godwit_model::{
    BindingState, ClaimCause, HandoverCounts, LearningOf, Location, MoveId, MoveStep, MoveStepKind, NveId,
    Version, VmKey, VmRecord, timing,
};
use godwit_tables::update::{Admission, PortIdx};
use godwit_wire::{Bucket, Instant};

use crate::config::NveConfig;
use crate::io::Level;
use crate::view::PortState;

pub(crate) use claim::Claim;
pub(crate) use handover::Handover;
pub(crate) use moves::Intent;
pub(crate) use port::AccessPort;
use port::Door;
pub(crate) use refusal::Refusal;
use scan::Scan;
use seek::Seek;
use verify::Check;

/// What a call may know and where it puts what is to be done.
pub(crate) struct Ctx<'a> {
    pub(crate) now: Instant,
    pub(crate) wall_us: u64,
    pub(crate) config: &'a NveConfig,
    /// The NVA has welcomed us.
    pub(crate) online: bool,
    /// The newest record of this VM.
    pub(crate) record: Option<&'a VmRecord>,
    /// Whose word binds addresses in its VN, where the record does not say (R93).
    pub(crate) learning: LearningOf,
    /// It names a policy that is not here (R23).
    pub(crate) missing_policy: bool,
    /// Number of the last claim or query.
    pub(crate) seq: &'a mut u64,
    /// Questions to VMs that all of them together are good for.
    pub(crate) asks: &'a mut Bucket,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Ctx<'_> {
    fn next_seq(&mut self) -> u64 {
        *self.seq += 1;
        *self.seq
    }

    fn send(&mut self, message: NveToNva) {
        self.actions.push(Action::Send(message));
    }

    fn note(&mut self, level: Level, text: String) {
        self.actions.push(Action::Note(level, text));
    }

    /// The VM may announce `ip`: it has it, shares it (R92) or may bind addresses by its own word (R93).
    fn may_announce(&self, ip: IpAddr) -> bool {
        self.record.is_none_or(|r| {
            r.mac_of(ip).is_some()
                || r.allowed.shares_ip(ip)
                || r.learning(self.learning, r.key.mac, ip).room() > 0
                || !r.allowed.nested.is_empty()
        })
    }

    /// Where the directory has the VM, if that is another NVE.
    fn elsewhere(&self) -> Option<(&Location, Version)> {
        let r = self.record.filter(|r| r.state == BindingState::Active)?;
        r.location.as_ref().filter(|l| l.nve != self.config.nve).map(|l| (l, r.version))
    }

    /// The version with which the directory has the VM here.
    fn here(&self) -> Option<Version> {
        let r = self.record.filter(|r| r.state == BindingState::Active)?;
        r.location.as_ref().filter(|l| l.nve == self.config.nve).map(|_| r.version)
    }

    /// A planned move of it is under way.
    fn is_moving(&self) -> bool {
        self.record.is_some_and(|r| r.moving.is_some())
    }

    fn version(&self) -> Version {
        self.record.map_or(Version::ZERO, |r| r.version)
    }
}

/// Something to be done once.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Action {
    /// A message; void unless the NVA has welcomed us, because a new session repeats what counts.
    Send(NveToNva),
    /// The VM is not here any more, which it was by this version (R39).
    Departed(Version),
    /// The VM left: the others of its VN are to be asked whether they are still here (R32).
    ScanOthers,
    /// A withdrawal, which waits for a session (R19).
    Withdraw(Version),
    /// Progress of a move, which waits for a session.
    Report { id: MoveId, step: Option<MoveStep>, counts: Option<HandoverCounts> },
    /// Tell the machine when all workers have applied what it wishes now.
    Gate { seq: u64 },
    /// What the old NVE held for the VM comes from now on (R45).
    Settle,
    /// A claim is put off, because there were many (R67).
    ClaimDelayed,
    /// Ask the VM on a port whether it is alive, by its addresses (R21).
    Probe { port: PortIdx, ips: Vec<IpAddr> },
    /// A line for the log.
    Note(Level, String),
}

/// What workers shall do with the VM's frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// What the directory says.
    Directory,
    /// Deliver to the port.
    Local(PortIdx),
    /// Hold what the overlay brings; local senders reach it where it still runs.
    Expected { via: Option<Location> },
    /// Hold everything.
    Paused,
    /// Forward packets in flight (R43).
    Departed { to: Location, until: Instant },
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

/// Where the VM stands at this NVE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Not running here; its ports are silent.
    Idle,
    /// Runs on a port.
    Running { port: PortIdx },
    /// Paused; the port may be gone already.
    Paused { port: Option<PortIdx>, cause: PauseCause },
    /// Runs at another NVE; its ports here are closed (R41).
    Left,
    /// The NVA refused its claim; the port is closed.
    Refused(Refusal),
}

/// A forward entry (R43).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Forward {
    /// The NVE to forward to.
    pub(crate) to: Location,
    /// Version of that location; newer than our own last hosting (R46b).
    pub(crate) version: Version,
    /// When the VM left.
    pub(crate) since: Instant,
    /// When the entry dies.
    pub(crate) until: Instant,
    /// When the NVA is asked whether anybody still needs it.
    ask_at: Option<Instant>,
    /// It was asked and has not answered.
    asked: bool,
    /// The NVA is away since then: its life stands still (R72).
    paused: Option<Instant>,
    /// Lifetimes that it was given beyond its first (R43).
    pub(crate) extensions: u8,
    /// Senders that were complained about.
    told: BTreeSet<IpAddr>,
}

/// The NVA is asked in the last quarter of an entry's life: time enough for an answer, and late
/// enough that most entries are not needed any more.
fn ask_before(until: Instant, config: &NveConfig) -> Instant {
    Instant(until.0.saturating_sub(config.fwd_timer.0 / 4))
}

impl Forward {
    /// It may be extended, so the NVA is to be asked when its end is near.
    fn arm_question(&mut self, now: Instant, config: &NveConfig) {
        let may = self.extensions < timing::FWD_EXTENSIONS;
        self.ask_at = may.then(|| ask_before(self.until, config).max(now));
    }

    /// When it dies, as far as that is known now.
    fn ends(&self) -> Instant {
        if self.paused.is_some() { Instant::NEVER } else { self.until }
    }

    /// When something is due.
    fn deadline(&self) -> Option<Instant> {
        let due = self.ask_at.map_or(self.until, |t| t.min(self.until));
        self.paused.is_none().then_some(due)
    }

    /// The first complaint about this sender, of a bounded number.
    pub(crate) fn told(&mut self, sender: IpAddr) -> bool {
        self.told.len() < 64 && self.told.insert(sender)
    }
}

/// One VM's machine.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) key: VmKey,
    pub(crate) ports: BTreeMap<PortIdx, AccessPort>,
    /// Name of the port that it had last.
    pub(crate) last_port: String,
    pub(crate) phase: Phase,
    /// The directory has spoken on this VM since its port came, or in this session.
    pub(crate) provisioned: bool,
    /// The directory has answered since a port came to it in this session. What it said before it heard of the port may
    /// be older than our report that the VM is not here.
    answered: bool,
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
    /// When a vanished port ends the attachment (R19).
    withdraw_at: Option<Instant>,
    /// Wall clock of the last pause.
    paused_us: u64,
    /// The VM itself spoke since it was activated: its claim rests on more than what we remember.
    spoke: bool,
    /// The directory has had it here since it was activated on its port.
    confirmed: bool,
    /// The R flag of its last advertisement here (R25).
    pub(crate) router: Option<bool>,
    /// The O flags of its advertisements here, by address; none of addresses that its record has not (R25).
    overrides: BTreeMap<Ipv6Addr, bool>,
    /// Address of an announcement that came before the directory spoke.
    announced: Option<IpAddr>,
    /// No second note on a refused announcement before then.
    quiet_until: Instant,
    pub(crate) handover: Handover,
    /// The NVA wants to know whether it still runs here (R21).
    check: Option<Check>,
    /// It is asked because another VM left (R32).
    scan: Option<Scan>,
    /// It is looked for.
    seek: Option<Seek>,
    /// Changes between its ports that it was good for of late.
    changes: Bucket,
    /// When it was paused last.
    paused_since: Instant,
    /// When it began to run on its port.
    running_since: Instant,
    /// It would run on a port, had its policy come (R23).
    waits: Option<(PortIdx, ClaimCause)>,
    /// Where the directory has it, as far as a refusal of its claim knows.
    refused_for: Option<NveId>,
}

impl Vm {
    pub(crate) fn new(key: VmKey) -> Vm {
        Vm {
            key,
            ports: BTreeMap::new(),
            last_port: String::new(),
            phase: Phase::Idle,
            provisioned: false,
            answered: true,
            hosted: Version::ZERO,
            ran_from: Version::ZERO,
            withdrawn: Version::ZERO,
            claim: None,
            claims: Bucket::default(),
            intent: None,
            forward: None,
            withdraw_at: None,
            paused_us: 0,
            spoke: false,
            confirmed: false,
            router: None,
            overrides: BTreeMap::new(),
            announced: None,
            quiet_until: Instant(0),
            handover: Handover::default(),
            check: None,
            scan: None,
            seek: None,
            changes: Bucket::default(),
            paused_since: Instant(0),
            running_since: Instant(0),
            waits: None,
            refused_for: None,
        }
    }

    /// What workers shall do with its frames.
    pub(crate) fn wish(&self, now: Instant, record: Option<&VmRecord>, us: &NveId) -> Wish {
        match self.phase {
            Phase::Running { port } => return Wish::Local(port),
            Phase::Paused { .. } => return Wish::Paused,
            Phase::Idle | Phase::Left | Phase::Refused(_) => {}
        }
        // While it is only associated for its return, it still runs where it went (R46c).
        if let Some(f) = self.forward.as_ref().filter(|f| f.ends() > now) {
            return Wish::Departed { to: f.to.clone(), until: f.ends() };
        }
        match &self.intent {
            Some(intent) if intent.is_target() && self.open_port().is_some() => {
                Wish::Expected { via: intent.runs_at(record, us) }
            }
            _ => Wish::Directory,
        }
    }

    /// How far a port of its may talk.
    pub(crate) fn admission(&self, port: PortIdx) -> Admission {
        let Some(p) = self.ports.get(&port) else { return Admission::Closed };
        match self.phase {
            // A paused VM's port stays open: frames that it had sent before still leave.
            Phase::Running { port: on } | Phase::Paused { port: Some(on), .. } if on == port => {
                Admission::Activated
            }
            _ if p.is_closed() => Admission::Closed,
            _ => Admission::Associated,
        }
    }

    /// Where an access port of its stands, for people (R15).
    pub(crate) fn port_state(&self, port: PortIdx) -> PortState {
        match (self.admission(port), self.phase) {
            (Admission::Activated, Phase::Paused { .. }) => PortState::Paused,
            (Admission::Activated, _) => PortState::Activated,
            // Not there, says its manager (R16).
            (Admission::Closed, _) if self.ports.get(&port).is_some_and(|p| p.off) => PortState::Init,
            (Admission::Closed, Phase::Refused(_)) => PortState::Quarantined,
            (Admission::Closed, _) => PortState::Departed,
            (Admission::Associated, _) if self.provisioned => PortState::Associated,
            (Admission::Associated, _) => PortState::Init,
        }
    }

    /// It runs or is paused here, so that local senders may resolve its addresses.
    pub(crate) fn is_hosted(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Paused { .. })
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
        !self.needs_vn() && self.intent.is_none() && !self.handover.is_reporting()
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
        let crashed = self.ports.values().filter_map(|p| p.off_at).min();
        let (seek, refused) = (self.seek.as_ref().map(Seek::deadline), self.refusal_deadline());
        [
            seek,
            refused,
            claim,
            forward,
            intent,
            self.withdraw_at,
            self.handover.deadline(),
            check,
            scan,
            crashed,
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
            self.report_prepared(cx, "next hop not resolved yet");
        }
        if self.withdraw_at.is_some_and(|t| t <= cx.now) {
            self.withdraw_at = None;
            if matches!(self.phase, Phase::Paused { .. }) {
                self.keep_door();
                self.attachment_over("it has no port any more", cx);
            }
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
        self.handover.tick(self.key, cx);
    }

    /// The directory's record changed, was confirmed or went.
    pub(crate) fn directory_changed(&mut self, cx: &mut Ctx<'_>) {
        if let Some((to, version)) = cx.elsewhere() {
            let to = to.clone();
            return self.runs_elsewhere(to, version, cx);
        }
        if let Some(version) = cx.here() {
            return self.directory_has_it_here(version, cx);
        }
        // Detached, or not in the directory.
        match self.phase {
            Phase::Running { .. } if self.claim.is_none() => {
                cx.note(
                    Level::Warn,
                    format!("the directory has {} nowhere, but it runs here: claiming", self.key),
                );
                self.reclaim_later(cx);
            }
            Phase::Refused(r) if cx.version() > r.at => self.after_refusal(r, cx),
            Phase::Left if cx.record.is_some() => {
                // Nobody has it: a VM that is behind a port here may say so.
                self.forward = None;
                self.reopen_ports();
            }
            Phase::Idle | Phase::Left | Phase::Refused(_) => self.forward = None,
            Phase::Running { .. } | Phase::Paused { .. } => {}
        }
    }

    fn directory_has_it_here(&mut self, version: Version, cx: &mut Ctx<'_>) {
        self.forward.take_if(|f| version > f.version);
        match self.phase {
            Phase::Running { .. } | Phase::Paused { .. } => {
                self.hosted = self.hosted.max(version);
                self.confirmed |= version > self.ran_from;
            }
            Phase::Refused(r) if version > r.at => self.after_refusal(r, cx),
            // Control started anew under a running VM, or the operator pinned it here: the port that
            // is there is the VM's. An echo of what we withdrew does not count, and in the midst of a
            // move only the VM itself can tell where it is.
            Phase::Idle
                if self.answered && version > self.withdrawn && self.intent.is_none() && !cx.is_moving() =>
            {
                let on = self.ports.iter().find(|(_, p)| p.could_have_it() && !p.awaits_order());
                if let Some(port) = on.map(|(port, _)| *port) {
                    self.activate(port, ClaimCause::Resync, cx);
                }
            }
            Phase::Idle | Phase::Left | Phase::Refused(_) => {}
        }
    }

    /// The directory has it at another NVE; only news since our own last hosting counts (R20, R46b).
    fn runs_elsewhere(&mut self, to: Location, version: Version, cx: &mut Ctx<'_>) {
        let known = if self.is_hosted() { self.hosted.max(self.ran_from) } else { self.hosted };
        if version <= known {
            return;
        }
        match self.phase {
            // A claim of a VM that just came here is decided by its answer.
            Phase::Running { .. } if self.claim.as_ref().is_some_and(Claim::is_fresh) => {}
            Phase::Paused { .. } if self.claim.as_ref().is_some_and(Claim::awaits_answer) => {}
            Phase::Running { .. } | Phase::Paused { .. } => self.depart(to, version, cx),
            Phase::Idle | Phase::Left | Phase::Refused(_) => {
                // It was there already when an order let it in here: the order stands.
                if self.phase != Phase::Idle || version > self.ran_from {
                    self.ports.values_mut().for_each(AccessPort::is_left);
                }
                self.news_of_the_owner(&to.nve, version, cx.now);
                if let Some(f) = self.forward.as_mut().filter(|f| version > f.version) {
                    cx.actions.push(Action::Note(
                        Level::Info,
                        format!("{} moved on to {} ({version}): forwarding there", self.key, to.nve),
                    ));
                    f.to = to;
                    f.version = version;
                }
            }
        }
    }

    /// It left (R41): close its ports, send on what was held and what still comes (R43).
    fn depart(&mut self, to: Location, version: Version, cx: &mut Ctx<'_>) {
        if matches!(self.phase, Phase::Running { .. }) {
            self.handover.begin(None);
        }
        cx.note(
            Level::Info,
            format!("{} runs at {} now ({version}): forwarding packets in flight", self.key, to.nve),
        );
        if let Some(intent) = self.intent.take() {
            self.handover.move_id = Some(intent.id);
        } else if let Some(id) = cx.record.and_then(|r| r.moving.clone()) {
            self.handover.move_id = Some(id);
        }
        self.start_forward(to, version, cx);
        self.tell_departure(cx);
        cx.actions.push(Action::ScanOthers);
        self.close_port_it_ran_on();
        self.phase = Phase::Left;
        self.claim = None;
        self.withdraw_at = None;
    }

    /// Its port is closed (R41). A port that waits for its return is not, nor is one on which the
    /// directory never had it: a VM that came back there is about to say so.
    fn close_port_it_ran_on(&mut self) {
        let on = match self.phase {
            Phase::Running { port } => Some(port),
            Phase::Paused { port, .. } => port,
            Phase::Idle | Phase::Left | Phase::Refused(_) => None,
        };
        self.ports.values_mut().for_each(AccessPort::is_left);
        if let Some(p) = on.filter(|_| self.confirmed).and_then(|port| self.ports.get_mut(&port)) {
            p.door = Door::Closed;
        }
    }

    fn start_forward(&mut self, to: Location, version: Version, cx: &Ctx<'_>) {
        let until = cx.now + cx.config.fwd_timer;
        let (since, told) = (cx.now, BTreeSet::new());
        let paused = (!cx.online).then_some(cx.now);
        let mut forward =
            Forward { to, version, since, until, ask_at: None, asked: false, paused, extensions: 0, told };
        forward.arm_question(cx.now, cx.config);
        self.forward = Some(forward);
    }

    /// Asks the NVA, if it is time, whether an interested NVE may still send here (R43).
    fn ask_for_extension(&mut self, cx: &mut Ctx<'_>) {
        let Some(f) =
            self.forward.as_mut().filter(|f| f.paused.is_none() && f.ask_at.is_some_and(|t| t <= cx.now))
        else {
            return;
        };
        f.ask_at = None;
        f.asked = cx.online;
        let version = f.version;
        cx.send(NveToNva::ForwardEnding { key: self.key, version });
    }

    /// Without the NVA nobody learns where the VM went but from us: the entry's life stands still (R72).
    pub(crate) fn pause_forward(&mut self, now: Instant) {
        if let Some(f) = self.forward.as_mut().filter(|f| f.until > now) {
            f.paused.get_or_insert(now);
        }
    }

    /// Its life goes on, by what was left of it.
    pub(crate) fn resume_forward(&mut self, now: Instant) {
        let Some(f) = &mut self.forward else { return };
        if let Some(since) = f.paused.take() {
            f.until = f.until + now.since(since);
            f.ask_at = None;
        }
    }

    /// A new session: what was asked in the last one was not answered.
    pub(crate) fn ask_again(&mut self, cx: &Ctx<'_>) {
        if let Some(f) = &mut self.forward {
            f.asked = false;
            f.arm_question(cx.now, cx.config);
        }
    }

    /// The NVA says that the forward entry is still needed (R43). The newest location counts: a
    /// question that crossed a further move is as good.
    pub(crate) fn extend_forward(&mut self, version: Version, cx: &mut Ctx<'_>) {
        let Some(f) = self.forward.as_mut().filter(|f| f.asked && version <= f.version) else { return };
        f.asked = false;
        f.extensions += 1;
        f.until = f.until + cx.config.fwd_timer;
        f.arm_question(cx.now, cx.config);
        let (n, to, max) = (f.extensions, f.to.nve.clone(), timing::FWD_EXTENSIONS);
        let text = format!(
            "the forward entry for {} to {to} is needed for longer: extended ({n} of {max})",
            self.key
        );
        cx.note(Level::Info, text);
    }

    /// The port stayed away, or the VM's manager says that it does not run: the attachment ends (R19).
    fn attachment_over(&mut self, why: &str, cx: &mut Ctx<'_>) {
        self.withdraw_at = None;
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
        let idle = self.phase == Phase::Idle && self.answered && self.intent.is_none();
        let missing = idle && version > self.withdrawn && !self.ports.values().any(AccessPort::could_have_it);
        if missing {
            self.withdrawn = version;
        }
        missing
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
