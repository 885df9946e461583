//! What a call of the machine may know, and what it asks to be done.

use std::net::IpAddr;

use godwit_model::message::NveToNva;
use godwit_model::{HandoverCounts, LearningOf, Location, Locators, MoveId, MoveStep, Version, VmRecord};
use godwit_tables::update::PortIdx;
use godwit_wire::{Bucket, Instant};

use crate::config::NveConfig;
use crate::io::Level;

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
    pub(super) fn next_seq(&mut self) -> u64 {
        *self.seq += 1;
        *self.seq
    }

    pub(super) fn send(&mut self, message: NveToNva) {
        self.actions.push(Action::Send(message));
    }

    pub(super) fn note(&mut self, level: Level, text: String) {
        self.actions.push(Action::Note(level, text));
    }

    /// The VM may announce `ip`: it has it, shares it (R92) or may bind addresses by its own word (R93).
    pub(super) fn may_announce(&self, ip: IpAddr) -> bool {
        self.record.is_none_or(|r| {
            r.mac_of(ip).is_some()
                || r.allowed.shares_ip(ip)
                || r.learning(self.learning, r.key.mac, ip).room() > 0
                || !r.allowed.nested.is_empty()
        })
    }

    /// Where the directory has the VM, if that is another NVE.
    pub(super) fn elsewhere(&self) -> Option<(&Location, Version)> {
        let r = self.record?;
        r.active().filter(|l| l.nve != self.config.nve).map(|l| (l, r.version))
    }

    /// The version with which the directory has the VM here.
    pub(super) fn here(&self) -> Option<Version> {
        self.record.filter(|r| r.is_at(&self.config.nve)).map(|r| r.version)
    }

    /// A planned move of it is under way.
    pub(super) fn is_moving(&self) -> bool {
        self.record.is_some_and(|r| r.moving.is_some())
    }

    pub(super) fn version(&self) -> Version {
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
    /// Tell the machine when all workers have applied the entry that it desires now.
    Gate { seq: u64 },
    /// What the old NVE held for the VM comes from now on (R45).
    Settle,
    /// It does not run here any more, and the new NVE of its move wants to know when all that it sent has left (R77).
    SentAll { to: Locators, port: Option<PortIdx> },
    /// It runs here again after that, and sends more.
    SendsAgain { to: Locators },
    /// The old NVE of its move did not say so in time (R77).
    MarkerLate,
    /// A claim is put off, because there were many (R67).
    ClaimDelayed,
    /// Ask the VM on a port whether it is alive, by its addresses (R21).
    Probe { port: PortIdx, ips: Vec<IpAddr> },
    /// A line for the log.
    Note(Level, String),
}
