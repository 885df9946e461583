//! What happens in one run, all of it drawn from a seed before anything runs.

use std::collections::BTreeSet;

use godwit_model::{MoveMode, Unplanned};
use godwit_wire::Span;

mod addresses;

pub use addresses::{AddressPlan, Side, SidePlan, TakeOver, TenantPlan, UsePlan};

/// What may go wrong in a schedule, and so what it promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Nothing fails: planned hot moves lose nothing and duplicate nothing.
    Planned,
    /// Sessions are cut and soon there again: moves still lose nothing.
    Cuts,
    /// One switch hears nothing from the NVA all the time, and its VMs go on sending to where the others
    /// were: what they send is forwarded and nothing is lost (R43).
    Frozen,
    /// The NVA and the sessions with it fail: VMs that do not move lose nothing.
    NvaFaults,
    /// Guests, switches and the NVA stand still for up to a minute, guests reboot, have two ports or say nothing at
    /// all, and are defined anew while they start: whoever lives is found (R32).
    Stalls,
    /// The underlay and the switches fail too, and VMs start elsewhere without an order: the safety
    /// invariants hold, and everything converges afterwards.
    Anything,
}

impl Class {
    /// The classes, which take turns by seed.
    pub const ALL: [Class; 6] =
        [Class::Planned, Class::Cuts, Class::Frozen, Class::NvaFaults, Class::Anything, Class::Stalls];

    /// Hypervisors take their time, and holds suffice: no frame is lost.
    pub fn is_lossless(self) -> bool {
        matches!(self, Class::Planned | Class::Cuts | Class::Frozen)
    }
}

/// Families of the locators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Underlay {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Both,
}

/// Something broken on purpose, to prove that it is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// Switches do not forward packets in flight (R43).
    NoForwarding,
    /// Old NVEs do not hold packets for paused VMs (R45).
    NoHandoverHold,
    /// New NVEs do not hold packets that arrive early (R45).
    NoArriveHold,
    /// NVEs have no key to tell stale senders where a VM is (R47).
    NoRedirects,
    /// The NVA sends before its store has written, and a crash loses what was not written.
    ForgetfulStore,
    /// The underlay delivers some frames twice, in a schedule that promises otherwise.
    SecretDuplicates,
    /// Guests do not answer who asks whether they are there.
    NoAnswers,
    /// Switches do not ask the NVA for what VMs use by their own word (R92, R93).
    LostBinds,
    /// Switches let VMs send from any address (R65).
    UnboundSources,
    /// A switch gives an address back without asking the VM that has it (R93).
    HastyUnbind,
    /// The NVA lets every VM of the VN have its virtual address (R92).
    SharedByAll,
    /// Old NVEs do not forward packets for MACs that are nested in VMs that left (R94).
    NestedNotForwarded,
    /// NVEs do not tell local VMs that an address has got another MAC (R24).
    NoAnnouncer,
    /// Workers have one routing domain only (R58).
    OneDomain,
    /// Switches route where frames leave the overlay, too (R58).
    RoutedTwice,
    /// Workers go on answering for VMs that are gone (R28, R58).
    AnswersForGone,
    /// NVEs do not mark the end of their paths, though order is promised (R77).
    NoMarkers,
    /// A drained switch takes VMs again before the operator says so (R85).
    Undrained,
}

/// A VM.
#[derive(Clone, Debug)]
pub struct VmPlan {
    /// Its VN.
    pub vn: usize,
    /// Its number in the VN, which gives its addresses.
    pub number: usize,
    /// Where it runs first.
    pub home: usize,
    /// Its ports activate on the hypervisor's word only.
    pub explicit: bool,
    /// It never speaks of itself: it only answers who asks for its addresses.
    pub quiet: bool,
    /// Its definition is completed while it starts.
    pub defined_late: bool,
}

/// Numbered frames from one VM to another, or to everybody in its VN.
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// Sender.
    pub from: usize,
    /// Receiver, of the same VN; none: broadcast.
    pub to: Option<usize>,
    /// IPv6 inside.
    pub v6: bool,
    /// Gap between two frames.
    pub every: Span,
}

/// Routing domains: VNs beside the others, whose VMs reach each other by way of the gateway (R58).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoutingPlan {
    /// The first of their VNs: each domain has two, of which the second is not bridged.
    pub first: usize,
    /// How many domains; all use the same addresses.
    pub domains: usize,
    /// By domain: a VM that hosts of a prefix are behind.
    pub routers: Vec<usize>,
    /// Flows beside those of [`Schedule::flows`], between VMs of one domain.
    pub flows: Vec<SidePlan>,
}

impl RoutingPlan {
    /// The domain of a VN.
    pub fn domain(&self, vn: usize) -> Option<usize> {
        vn.checked_sub(self.first).map(|n| n / 2).filter(|domain| *domain < self.domains)
    }

    /// The VN is not bridged.
    pub fn is_routed_only(&self, vn: usize) -> bool {
        self.domain(vn).is_some() && (vn - self.first) % 2 == 1
    }

    /// Frames from the one to the other go by way of the gateway.
    pub fn is_routed(&self, from: usize, to: usize) -> bool {
        self.domain(from).is_some() && (from != to || self.is_routed_only(from))
    }
}

/// How a VM makes itself known at its new place (R18, R24 to R26).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announce {
    /// Not at all: the hypervisor activates the port.
    Explicit,
    /// Gratuitous ARP.
    Garp,
    /// Unsolicited neighbor advertisement.
    Na,
    /// QEMU's RARP.
    Rarp,
    /// With its first frame.
    FirstFrame,
    /// Not at all, and nobody activates its port.
    Never,
}

/// How the old switch learns that the VM is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// The hypervisor says so.
    Asked,
    /// The port's link goes down.
    LinkDown,
    /// The port is removed at once.
    Unplugged,
}

/// When a move is called off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abort {
    /// As soon as it is ordered.
    Ordered,
    /// With the new port there, and nobody known to be prepared.
    Plugged,
    /// Before the VM is paused.
    Prepared,
    /// The VM is paused, and the old switch has not heard of it.
    Pausing,
    /// While it is paused.
    Paused,
}

/// A move: the hypervisor's script with all its timing.
#[derive(Clone, Debug)]
pub struct MovePlan {
    /// When it is wanted, from the start of traffic. It waits for an earlier move of the same VM.
    pub at: Span,
    /// The VM.
    pub vm: usize,
    /// No move: the VM dies, and is started at the new switch without a word to the NVA.
    pub dies: bool,
    /// To another port of the switch where it is, without a word to the NVA (R23).
    pub local: bool,
    /// The new switch.
    pub to: usize,
    /// Hot, or one that shuts the VM down (R50, R51).
    pub mode: MoveMode,
    /// The new port is there before the order.
    pub plug_first: bool,
    /// The script waits so long for Prepared and goes on without.
    pub patience: Span,
    /// From the order's answer to the new port.
    pub plug_after: Span,
    /// How the old switch learns of the pause.
    pub pause: Pause,
    /// From the guest's pause to the old switch hearing of it.
    pub pause_lag: Span,
    /// How long the guest stands still.
    pub blackout: Span,
    /// How it makes itself known.
    pub announce: Announce,
    /// From its going on to its first frame.
    pub quiet: Span,
    /// Until then it says nothing at all, not even announcements.
    pub silent: bool,
    /// Called off.
    pub abort: Option<Abort>,
    /// After a call-off the hypervisor activates the old port itself. A switch that never heard of the
    /// move learns of the call-off in no other way, so that it may only be left out where nothing fails.
    pub tell_old: bool,
    /// From the going on to the old port's removal.
    pub unplug_after: Span,
}

/// Something that fails, at a time from the start of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A session is cut.
    Cut(usize),
    /// A switch cannot reach the NVA for a while.
    Partition(usize, Span),
    /// The NVA is killed and comes back after a while.
    Kill(Span),
    /// The NVA is killed right before its next write is durable.
    KillBeforeWrite(Span),
    /// The NVA is killed right after its next write, before it says anything that rests on it.
    KillAfterWrite(Span),
    /// The underlay loses, repeats and delays more, for a while.
    Storm(Span),
    /// A switch dies and comes back after a while, remembering nothing.
    Reboot(usize, Span),
    /// A guest stands still for a while, and nobody is told.
    StallGuest(usize, Span),
    /// A switch stands still for a while.
    StallHost(usize, Span),
    /// The NVA stands still for a while.
    StallNva(Span),
    /// A guest reboots: its link is gone for a while.
    RebootGuest(usize, Span),
    /// A guest gets a second port at its switch, and changes between them in this interval.
    SecondPort(usize, Span),
    /// The operator changes a VM's addresses.
    Redefine(usize),
    /// The operator pauses a VM's connections for a while: what comes for it is held (R54).
    PauseVm(usize, Span),
}

/// Another switch that says it is one of those that are there, by a cloned configuration (R96), and does not give up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClonePlan {
    /// When it tries first, from the start of traffic.
    pub at: Span,
    /// The switch that it is a clone of.
    pub of: usize,
    /// It has the same name; else it has the same locators only.
    pub named: bool,
    /// It has locators of its own.
    pub elsewhere: bool,
}

/// A switch that is drained, once (R85).
#[derive(Clone, Debug)]
pub struct DrainPlan {
    /// When it is ordered, from the start of traffic.
    pub at: Span,
    /// The switch.
    pub host: usize,
    /// Moves at the same time.
    pub parallel: u32,
    /// How hypervisors move each VM; the NVA says where to.
    pub moves: Vec<MovePlan>,
}

/// Delays and what the underlay does to frames.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Least and greatest delay of an underlay frame, in microseconds.
    pub underlay_us: (u64, u64),
    /// From control to a worker's tables, at most, in microseconds.
    pub mailbox_us: u64,
    /// From a worker to control, at most, in microseconds.
    pub event_us: u64,
    /// A message between switch and NVA, at most, in microseconds.
    pub session_us: u64,
    /// A transaction of the NVA's store, at most, in microseconds.
    pub commit_us: u64,
    /// Underlay frames lost in a storm, of a thousand.
    pub loss: u64,
    /// Underlay frames repeated in a storm, of a thousand.
    pub repeat: u64,
    /// Messages of sessions that come twice, of a thousand.
    pub message_repeat: u64,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Where it comes from; also seeds what happens by chance during the run.
    pub seed: u64,
    /// What it may do and promises.
    pub class: Class,
    /// Workers of each switch.
    pub workers: Vec<usize>,
    /// Families of the locators.
    pub underlay: Underlay,
    /// Number of VNs.
    pub vns: usize,
    /// VMs.
    pub vms: Vec<VmPlan>,
    /// Flows.
    pub flows: Vec<FlowPlan>,
    /// Moves, by time.
    pub moves: Vec<MovePlan>,
    /// Faults, by time.
    pub faults: Vec<(Span, Fault)>,
    /// Clones, in schedules in which nothing fails: they get nowhere, and nobody else notices.
    pub clones: Vec<ClonePlan>,
    /// Virtual, learned and nested addresses, where there are any.
    pub addresses: Option<AddressPlan>,
    /// Routing domains, where there are any.
    pub routing: Option<RoutingPlan>,
    /// A drain, where there is one.
    pub drain: Option<DrainPlan>,
    /// Delays.
    pub weather: Weather,
    /// What becomes of claims that no move explains (R21).
    pub unplanned: Unplanned,
    /// Life of a forward entry.
    pub fwd_timer: Span,
    /// Switches, each with the VNs that it pulls (R34).
    pub pulls: Vec<BTreeSet<usize>>,
    /// Life of an answer to those (R40).
    pub pos_life: Span,
    /// How long traffic runs.
    pub run: Span,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
}

impl Schedule {
    /// The schedule of a seed; the classes take turns.
    pub fn random(seed: u64) -> Schedule {
        Schedule::of(Class::ALL[(seed % Class::ALL.len() as u64) as usize], seed)
    }

    /// A schedule of one class.
    pub fn of(class: Class, seed: u64) -> Schedule {
        super::pauses::draw(super::drains::draw(super::draw_routing::draw(super::draw::schedule(
            class, seed,
        ))))
    }

    /// The schedule of a class and a seed with a drain, which others have in their turn.
    pub fn drained(class: Class, seed: u64) -> Schedule {
        super::drains::add(super::draw::schedule(class, seed))
    }

    /// The schedule of a class and a seed with routing domains, which others have in their turn.
    pub fn routed(class: Class, seed: u64) -> Schedule {
        let schedule = super::draw::schedule(class, seed);
        super::draw_routing::add(Schedule { addresses: None, ..schedule })
    }

    /// The schedule of a class and a seed with virtual, learned and nested addresses, which others have in their turn.
    pub fn addresses(class: Class, seed: u64) -> Schedule {
        let mut schedule = super::draw::schedule(class, seed);
        schedule.addresses = Some(super::draw_addresses::plan(&schedule));
        schedule
    }

    /// Nothing fails, and a VM moves while its connections are paused for a second (R54).
    pub fn paused(seed: u64) -> Schedule {
        super::pauses::moved(seed)
    }

    /// Nothing fails, and two VMs change places at the same time, once.
    pub fn swap(seed: u64) -> Schedule {
        super::draw::swap(seed)
    }

    /// The same with something broken.
    #[must_use]
    pub fn broken(mut self, by: Sabotage) -> Schedule {
        self.sabotage = Some(by);
        self
    }

    /// What a VM may have beside its recorded addresses.
    pub fn tenant(&self, vm: usize) -> TenantPlan {
        let routes = self.routing.as_ref().is_some_and(|r| r.routers.contains(&vm));
        let default = TenantPlan { routes, ..TenantPlan::default() };
        self.addresses.as_ref().and_then(|a| a.vms.get(vm)).copied().unwrap_or(default)
    }

    /// Number of switches.
    pub fn hosts(&self) -> usize {
        self.workers.len()
    }
}
