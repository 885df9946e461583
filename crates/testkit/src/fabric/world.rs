//! Everything that is there, and the loop that lets it happen.

use std::collections::{BTreeMap, VecDeque};

use godwit_control::Input;
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_pipeline::mem::MemPacket;
use godwit_tables::event::Event as Word;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use super::addresses::Words;
use super::drains::Drain;
use super::flow::Flow;
use super::host::Host;
use super::invariants::{Invariant, Known};
use super::nva::{Job, Nva};
use super::queue::Queue;
use super::schedule::{Class, Fault, Sabotage, Schedule};
use super::script::Script;
use super::session::Conn;
use super::stats::Stats;
use super::traffic::{Guest, Question};
use crate::rng::Rng;

/// Events that one schedule may take; more means that something goes round in circles.
const MAX_EVENTS: u64 = 2_000_000;
/// Lines that the trace keeps.
const TRACE_LINES: usize = 50_000;

/// Something that happens at its time.
pub(super) enum Event {
    /// A worker looks into its mailbox.
    Mailbox { host: usize, worker: usize },
    /// A worker has something to do by itself.
    Poll { host: usize, worker: usize },
    /// A worker's word reaches control.
    Word { host: usize, life: u32, worker: usize, word: Word },
    /// Control's deadline.
    Deadline { host: usize },
    /// Something reaches control.
    Input { host: usize, life: u32, input: Box<Input> },
    /// A guest's frame reaches its port.
    PortRx { host: usize, worker: usize, port: PortIdx, packet: MemPacket },
    /// An underlay frame reaches an uplink.
    UplinkRx { host: usize, packet: MemPacket },
    /// A guest's application sends.
    Send { flow: usize },
    /// A guest announces itself, if it is still there.
    Announce { vm: usize, host: usize, port: PortIdx, round: u32 },
    /// A guest asks for an address.
    Ask,
    /// A message reaches the NVA.
    ToNva { conn: usize, message: Box<NveToNva> },
    /// A message reaches a switch.
    ToNve { conn: usize, message: Box<NvaToNve> },
    /// A switch notices that its session is gone.
    NveNotices { conn: usize },
    /// The NVA notices it.
    NvaNotices { conn: usize },
    /// A switch tries to connect.
    Connect { host: usize },
    /// A clone of a switch tries to connect.
    CloneConnect { clone: usize },
    /// A switch looks after its session.
    Keepalive { host: usize },
    /// The NVA's clock.
    NvaTick,
    /// A transaction of the NVA's store ends, if the NVA still lives.
    Durable { life: u32 },
    /// The NVA starts again.
    NvaStart,
    /// A switch starts again.
    Boot { host: usize },
    /// A fault of the schedule.
    Fault(usize),
    /// A move of the schedule is wanted.
    Wanted(usize),
    /// A hypervisor's script goes on, unless it went on otherwise.
    Script { script: usize, turn: u32 },
    /// A hypervisor removes a port.
    Unplug { host: usize, port: PortIdx },
    /// A guest's link is there again.
    Relink { host: usize, port: PortIdx },
    /// A guest with two ports uses the other one.
    Hop { vm: usize, every: Span, left: u32 },
    /// The operator changes a VM's addresses.
    Redefine { vm: usize },
    /// A VM becomes the master of its VN's virtual address.
    TakeOver { vm: usize, lag: Span },
    /// A former master hears of it, unless it has become the master again.
    StepDown { vm: usize, reign: u32 },
    /// A master announces the address, unless it has begun to do so anew.
    Proclaim { vm: usize, turn: u32, round: u32 },
    /// A VM uses an address by its own word.
    Use(usize),
    /// The operator lets a VM's connections go on.
    ResumeVm { vm: usize },
    /// Somebody wants to reach a virtual address.
    Call,
    /// The manager looks how far the drain is.
    Manage,
    /// Somebody looks whether all that live are reached.
    Watch,
    /// A process that stood still goes on.
    Wakes,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub invariant: Invariant,
    pub text: String,
    pub at: Instant,
}

/// The whole fabric.
pub(super) struct World {
    pub plan: Schedule,
    pub rng: Rng,
    pub now: Instant,
    pub queue: Queue<Event>,
    pub hosts: Vec<Host>,
    pub conns: Vec<Conn>,
    pub nva: Nva,
    pub guests: Vec<Guest>,
    pub flows: Vec<Flow>,
    /// VMs whose connections have been paused (R54).
    pub paused: std::collections::BTreeSet<usize>,
    pub scripts: Vec<Script>,
    /// When the last frame from one switch to another is there.
    pub links: BTreeMap<(usize, usize), Instant>,
    /// Requests of guests that wait for an answer: who, for which number, by ND.
    pub questions: BTreeMap<(usize, usize, bool), Question>,
    pub known: Known,
    /// How far the schedule's drain is.
    pub drain: Drain,
    /// What is said by VMs' own words, and what became of it.
    pub words: Words,
    pub stats: Stats,
    pub violation: Option<Violation>,
    /// When traffic began.
    pub start: Instant,
    /// Guests send until then.
    pub traffic_until: Instant,
    pub storm_until: Instant,
    /// Everything that stands still goes on then.
    pub stalls_until: Instant,
    trace: Option<VecDeque<String>>,
    events: u64,
}

impl World {
    pub fn new(plan: Schedule, traced: bool) -> World {
        let rng = Rng::new(plan.seed.rotate_left(32) ^ 0x5eed);
        let hosts = (0..plan.hosts()).map(|i| Host::new(i, &plan, 0)).collect();
        let guests: Vec<Guest> = plan.vms.iter().map(Guest::new).collect();
        let flows = Flow::all(&plan);
        World {
            rng,
            now: Instant(1_000_000_000),
            queue: Queue::default(),
            hosts,
            conns: Vec::new(),
            nva: Nva::default(),
            guests,
            flows,
            paused: Default::default(),
            scripts: Vec::new(),
            links: BTreeMap::new(),
            questions: BTreeMap::new(),
            known: Known::default(),
            drain: Drain::default(),
            words: Words::new(&plan),
            stats: Stats { schedules: 1, ..Stats::default() },
            violation: None,
            start: Instant::NEVER,
            traffic_until: Instant(0),
            storm_until: Instant(0),
            stalls_until: Instant(0),
            trace: traced.then(VecDeque::new),
            events: 0,
            plan,
        }
    }

    /// Microseconds since 1970, as far as timelines care.
    pub fn wall_us(&self) -> u64 {
        1_700_000_000_000_000 + self.now.0 / 1000
    }

    pub fn after(&mut self, span: Span, event: Event) {
        self.queue.push(self.now + span, event);
    }

    /// The schedule breaks this on purpose.
    pub fn sabotaged(&self, by: Sabotage) -> bool {
        self.plan.sabotage == Some(by)
    }

    pub fn is_stormy(&self) -> bool {
        self.now < self.storm_until
    }

    /// Adds a line to the trace, if there is one: the text is made only then.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        if trace.len() == TRACE_LINES {
            trace.pop_front();
        }
        let us = self.now.0.saturating_sub(1_000_000_000) / 1000;
        trace.push_back(format!("{:>6}.{:03} ms  {}", us / 1000, us % 1000, text()));
    }

    /// The last events, oldest first.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().map(Vec::from).unwrap_or_default()
    }

    /// Ends the run; only the first violation counts.
    pub fn fail(&mut self, invariant: Invariant, text: String) {
        self.note(|| format!("VIOLATION {invariant:?}: {text}"));
        let at = self.now;
        self.violation.get_or_insert(Violation { invariant, text, at });
    }

    /// Lets time pass until `until`, or until something is violated.
    pub fn run_until(&mut self, until: Instant) {
        while self.violation.is_none() && self.queue.next_at().is_some_and(|t| t <= until) {
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            self.events += 1;
            if self.events > MAX_EVENTS {
                self.fail(Invariant::Bounded, format!("more than {MAX_EVENTS} events"));
            }
            self.happen(event);
        }
        self.now = self.now.max(until);
        self.stats.events = self.events;
    }

    fn happen(&mut self, event: Event) {
        let Some(event) = self.unless_stalled(event) else { return };
        match event {
            Event::Mailbox { host, worker } => self.mailbox(host, worker),
            Event::Poll { host, worker } => self.poll(host, worker),
            // What an earlier life of a switch said to itself.
            Event::Word { host, life, .. } | Event::Input { host, life, .. }
                if life != self.hosts[host].life => {}
            Event::Word { host, worker, word, .. } => {
                self.note(|| format!("n{host} hears worker {worker}: {word:?}"));
                self.control(host, Input::Worker { worker, event: word });
            }
            Event::Deadline { host } => self.deadline(host),
            Event::Input { host, input, .. } => {
                self.note(|| format!("n{host} hears {input:?}"));
                self.control(host, *input);
            }
            Event::PortRx { host, worker, port, packet } => self.port_rx(host, worker, port, packet),
            Event::UplinkRx { host, packet } => self.uplink_rx(host, packet),
            Event::Send { flow } => self.guest_sends(flow),
            Event::Announce { vm, host, port, round } => self.announce(vm, host, port, round),
            Event::Ask => self.someone_asks(),
            Event::ToNva { conn, message } => self.nva_hears(conn, *message),
            Event::ToNve { conn, message } => self.nve_hears(conn, *message),
            Event::NveNotices { conn } => self.nve_notices(conn),
            Event::NvaNotices { conn } => self.nva_notices(conn),
            Event::Connect { host } => self.connect(host),
            Event::CloneConnect { clone } => self.clone_connects(clone),
            Event::Keepalive { host } => self.keepalive(host),
            Event::NvaTick => self.nva_tick(),
            Event::Durable { life } => self.durable(life),
            Event::NvaStart => self.nva_start(),
            Event::Boot { host } => self.boot(host),
            Event::Fault(n) => self.fault(n),
            Event::Wanted(n) => self.move_wanted(n),
            Event::Script { script, turn } => self.script_event(script, turn),
            Event::Unplug { host, port } => self.unplug(host, port),
            Event::Relink { host, port } => self.relink(host, port),
            Event::Hop { vm, every, left } => self.hop(vm, every, left),
            Event::Redefine { vm } => {
                self.nva_request(Job::Redefine { vm });
            }
            Event::TakeOver { vm, lag } => self.take_over(vm, lag),
            Event::StepDown { vm, reign } => self.step_down(vm, reign),
            Event::Proclaim { vm, turn, round } => self.proclaim(vm, turn, round),
            Event::Use(n) => self.use_address(n),
            Event::ResumeVm { vm } => self.resume_vm(vm),
            Event::Call => self.call(),
            Event::Manage => self.manage(),
            Event::Watch => self.watch(),
            Event::Wakes => self.wakes(),
        }
    }

    fn fault(&mut self, n: usize) {
        let fault = self.plan.faults[n].1;
        self.note(|| format!("FAULT {fault:?}"));
        self.stats.faults += 1;
        match fault {
            Fault::Cut(host) => self.cut_host(host),
            Fault::Partition(host, span) => {
                self.hosts[host].unreachable_until = self.now + span;
                self.cut_host(host);
            }
            Fault::Kill(span) => self.nva_crash(span),
            Fault::KillBeforeWrite(span) => self.nva.doom(false, span),
            Fault::KillAfterWrite(span) => self.nva.doom(true, span),
            Fault::Storm(span) => self.storm_until = self.now + span,
            Fault::Reboot(host, span) => self.reboot(host, span),
            Fault::StallGuest(vm, span) => self.stall_guest(vm, span),
            Fault::StallHost(host, span) => self.stall_host(host, span),
            Fault::StallNva(span) => self.stall_nva(span),
            Fault::RebootGuest(vm, span) => self.reboot_guest(vm, span),
            Fault::SecondPort(vm, every) => self.second_port(vm, every),
            Fault::PauseVm(vm, span) => self.pause_vm(vm, span),
            Fault::Redefine(vm) => {
                self.nva_request(Job::Redefine { vm });
            }
        }
    }

    /// Frames between these two are promised to arrive, once each.
    pub fn is_promised(&self, from: usize, to: usize) -> bool {
        // A switch that is not prepared may not have the records of the VNs that a VM's packets are routed to.
        let [vm, peer] = [from, to].map(|vm| &self.guests[vm]);
        if self.plan.is_routed(vm.vn, peer.vn) && (vm.unprepared || peer.unprepared) {
            return false;
        }
        // What is sent to a VM that is shut down is lost (R51), and what it would have answered.
        if vm.was_down || peer.was_down {
            return false;
        }
        match self.plan.class {
            Class::Planned | Class::Cuts | Class::Frozen => true,
            Class::NvaFaults => !self.guests[from].has_moved && !self.guests[to].has_moved,
            Class::Stalls | Class::Anything => false,
        }
    }
}
