//! What an NVE's control is told once, at its start.

use std::collections::BTreeSet;

use godwit_model::{Abilities, Locators, ModeSet, NveId, timing};
use godwit_tables::update::HoldLimits;
use godwit_wire::{Rate, Span, Vni};

/// A set of worker numbers below 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct WorkerSet(u64);

impl WorkerSet {
    /// No worker.
    pub const EMPTY: WorkerSet = WorkerSet(0);
    /// The largest number of workers of one NVE.
    pub const MAX_WORKERS: usize = 64;

    /// The workers `0..count`; `count` above [`WorkerSet::MAX_WORKERS`] means that many.
    pub const fn first(count: usize) -> WorkerSet {
        if count >= Self::MAX_WORKERS { WorkerSet(u64::MAX) } else { WorkerSet((1 << count) - 1) }
    }

    /// Just `worker`.
    pub fn one(worker: usize) -> WorkerSet {
        WorkerSet::EMPTY.with(worker)
    }

    /// This set and `worker`; a number of 64 or more changes nothing.
    #[must_use]
    pub fn with(self, worker: usize) -> WorkerSet {
        if worker < Self::MAX_WORKERS { WorkerSet(self.0 | 1 << worker) } else { self }
    }

    /// This set without `worker`.
    #[must_use]
    pub fn without(self, worker: usize) -> WorkerSet {
        if worker < Self::MAX_WORKERS { WorkerSet(self.0 & !(1 << worker)) } else { self }
    }

    /// Whether `worker` is in it.
    pub fn contains(self, worker: usize) -> bool {
        worker < Self::MAX_WORKERS && self.0 >> worker & 1 == 1
    }

    /// No worker is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many workers are in it.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The numbers, lowest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MAX_WORKERS).filter(move |w| self.contains(*w))
    }
}

impl FromIterator<usize> for WorkerSet {
    fn from_iter<I: IntoIterator<Item = usize>>(workers: I) -> WorkerSet {
        workers.into_iter().fold(WorkerSet::EMPTY, WorkerSet::with)
    }
}

/// Which underlay family carries a VM's frames where both NVEs have both (R4).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OuterChoice {
    /// The family of the VM's addresses; IPv6 where it has both or none is known, since one entry
    /// serves a MAC with all its addresses.
    #[default]
    Auto,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How next hops are watched that have others beside them (R95), by ARP and neighbor solicitations: one that is
/// silent is out of use within `interval + tries * wait` after its last answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Liveness {
    /// From an answer to the next question.
    pub interval: Span,
    /// Questions without an answer after which it is out of use.
    pub tries: u32,
    /// How long each of them waits for its answer.
    pub wait: Span,
}

impl Default for Liveness {
    fn default() -> Liveness {
        Liveness { interval: Span::from_ms(1000), tries: 3, wait: Span::from_ms(300) }
    }
}

/// Parameters of one NVE's control; [`NveConfig::new`] gives the defaults of the requirement
/// catalogue's parameter table.
#[derive(Clone, PartialEq, Debug)]
pub struct NveConfig {
    /// This NVE's name.
    pub nve: NveId,
    /// Text of the software's version, for people at the NVA.
    pub software: String,
    /// Random number of this process, by which the NVA tells a switch that connects again from a clone (R96).
    pub instance: u64,
    /// What the NVA is told that this switch can do (R56, R77).
    pub abilities: Abilities,
    /// What comes for a VM that has moved here waits so long for the end of its sender's old path; 0: no path is
    /// ended with a marker, and none is waited for (R77).
    pub marker_wait: Span,
    /// Uplinks wait so long at the start for the NVA's welcome: a cloned switch that the NVA refuses shall not answer
    /// for the locator of the first (R96). 0: they do not wait.
    pub locator_guard: Span,
    /// Workers that exist from the start; others join by `Input::WorkerJoined`.
    pub workers: WorkerSet,
    /// Choice of the outer family (R4).
    pub outer: OuterChoice,
    /// Locators of a loopback, which all uplinks lead to; where there are none, the uplinks' addresses are the
    /// locators (R95).
    pub locators: Locators,
    /// How next hops are watched that have others beside them (R95).
    pub liveness: Liveness,
    /// Life of a forward entry after the VM left (R43); one that is still needed gets up to
    /// `timing::FWD_EXTENSIONS` more of them from the NVA.
    pub fwd_timer: Span,
    /// VXLAN is accepted from NVEs only that take part in its VN (R69).
    pub check_senders: bool,
    /// Bounds of what the old NVE holds for a paused VM (R45).
    pub handover_hold: HoldLimits,
    /// Bounds of what the new NVE holds for an expected VM (R45).
    pub arrive_hold: HoldLimits,
    /// Life of a negative answer (R36), where the NVA's own is longer or none came.
    pub neg_life: Span,
    /// VNs whose records are pulled, and not pushed (R34, R40).
    pub pull: BTreeSet<Vni>,
    /// A query is repeated after so long (R34).
    pub qry_timeout: Span,
    /// So many repetitions of a query with the same number (R34).
    pub qry_retries: u32,
    /// A query that nobody answered is not asked again for so long (R42).
    pub requery: Span,
    /// A stale sender of one VM is told where that is at most so often (R47).
    pub redirect_ival: Span,
    /// VMs of its VN that are asked a second whether they are still here when one has left (R32); 0 asks none.
    pub scan_rate: u32,
    /// Questions, a second apart, after which a VM counts as silent (R32).
    pub scan_tries: u32,
    /// A VM that has come is not asked for so long: it may be probing its own addresses (RFC 5227 §2.1.1).
    pub scan_grace: Span,
    /// Questions to VMs that are looked for, all together (R32).
    pub seek_rate: Rate,
    /// Questions to the directory that the workers' frames may raise, all ports together (R67).
    pub query_rate: Rate,
    /// Claims of one VM, repetitions of a waiting one not counted (R67).
    pub claim_rate: Rate,
    /// A vanished port's VM is withdrawn after so long, unless a pause or a move explains it (R19).
    pub port_down_hold: Span,
    /// Addresses that VMs here have learned are asked for so often (R93).
    pub address_check: Span,
    /// Without an NVA locations at other NVEs are kept for so long; 0 forgets them at once (R72).
    pub headless: Span,
    /// A pause or a move explains a vanished port for so long (R49).
    pub intent_timeout: Span,
    /// Between two full attachment reports (R17).
    pub report_ival: Span,
    /// First repetition of an unanswered claim; it doubles up to `claim_backoff_max` (R18).
    pub claim_backoff: Span,
    /// Longest gap between repetitions of a claim (R18).
    pub claim_backoff_max: Span,
    /// The NVE calls itself prepared after so long even if the other NVE's next hop is not resolved.
    pub prepare_timeout: Span,
    /// Least gap between two reports of one VM's handover counts.
    pub counts_ival: Span,
    /// Handover counts that stood still for so long are reported as a last forwarded packet.
    pub counts_quiet: Span,
    /// A tunnel that nothing uses any more is kept for so long.
    pub tunnel_linger: Span,
    /// Outer UDP destination port (R1).
    pub vxlan_port: u16,
    /// A lab option: without it the packets of a departed VM are dropped, as a switch without R43
    /// does.
    pub forward_in_flight: bool,
}

impl NveConfig {
    /// The defaults for an NVE of this name with workers `0..workers`.
    pub fn new(nve: NveId, workers: usize) -> NveConfig {
        let hold = HoldLimits::of_age(Span::from_ms(2500));
        NveConfig {
            nve,
            software: String::from("godwit"),
            instance: 0,
            abilities: Abilities { modes: ModeSet::ALL, end_markers: false, capacity: 1000 },
            marker_wait: Span::from_ms(20),
            locator_guard: Span(0),
            workers: WorkerSet::first(workers),
            outer: OuterChoice::Auto,
            locators: Locators::default(),
            liveness: Liveness::default(),
            fwd_timer: Span::from_ms(60_000),
            check_senders: true,
            handover_hold: hold,
            arrive_hold: hold,
            neg_life: Span::from_ms(5_000),
            pull: BTreeSet::new(),
            qry_timeout: Span::from_ms(timing::QRY_TIMEOUT_MS),
            qry_retries: timing::QRY_RETRIES,
            requery: Span::from_ms(1_000),
            redirect_ival: Span::from_ms(100),
            scan_rate: 100,
            scan_tries: 3,
            scan_grace: Span::from_ms(8000),
            seek_rate: Rate::per_second(1000, 100),
            query_rate: Rate::per_second(2000, 200),
            claim_rate: Rate::per_second(5, 5),
            port_down_hold: Span::from_ms(3_000),
            address_check: Span::from_ms(300_000),
            headless: Span::from_ms(300_000),
            intent_timeout: Span::from_ms(300_000),
            report_ival: Span::from_ms(60_000),
            claim_backoff: Span::from_ms(200),
            claim_backoff_max: Span::from_ms(5_000),
            prepare_timeout: Span::from_ms(1_000),
            counts_ival: Span::from_ms(100),
            counts_quiet: Span::from_ms(500),
            tunnel_linger: Span::from_ms(60_000),
            vxlan_port: 4789,
            forward_in_flight: true,
        }
    }
}
