//! A virtual fabric: switches, their VMs, the underlay, hypervisors and an NVA in one process and in
//! virtual time, from one seed.
//!
//! Nothing of what is tested is imitated. A switch is the production control (`godwit-control`'s
//! `Nve`) and one or two workers of production tables and pipeline, which exchange real encapsulated
//! frames, ARP and ND included. The NVA is the production directory before a store that crashes. What
//! is imitated is what lies between them: mailboxes, streams, the link, clocks, guests, hypervisors.
//! It is made slower and less reliable than in life, as the [`Schedule`] says.
//!
//! One seed is one run: [`Schedule::random`] draws what is there and what happens, [`run`] lets it
//! happen. A failure names its seed, and running that again gives the same failure with its trace.
//! What is checked stands at the head of [`invariants`].
//!
//! | File | Is |
//! |---|---|
//! | `pauses` | pauses of VMs' connections |
//! | `schedule`, `draw`, `draw_addresses`, `draw_routing` | what happens in a run, and how a seed becomes one |
//! | `world` | everything that is there, and the loop |
//! | `host`, `worker` | a switch |
//! | `nva`, `session` | the NVA with its store; streams to it |
//! | `traffic`, `flow` | guests with their numbered frames, and the underlay |
//! | `script` | the hypervisor's part of a move |
//! | `stalls` | guests, switches and the NVA that stand still; guests that reboot, have two ports, or are redefined |
//! | `addresses` | guests with virtual, learned and nested addresses |
//! | `routing` | routing domains, and VMs that are gone |
//! | `invariants`, `bound` | what must hold |
//! | `names`, `queue`, `rng`, `stats` | small things |

#[cfg(test)]
mod absent;
mod addresses;
mod bound;
mod clones;
mod drains;
mod draw;
mod draw_addresses;
mod draw_routing;
mod flow;
mod host;
mod interrupted;
pub mod invariants;
mod names;
mod nva;
mod pauses;
mod queue;
mod routing;
mod schedule;
mod script;
mod session;
mod stalls;
mod stats;
mod traffic;
mod worker;
mod world;

use std::fmt;

use godwit_control::Input;
use godwit_model::VnSettings;
use godwit_nva::directory::VnRecord;
use godwit_nva::{Answered, Directory, Input as NvaInput, Order, Output, Peer, Reply, Request};
use godwit_tables::event::Event::InUse;
use godwit_tables::vms::Fib;
use godwit_wire::{Instant, Span};

pub use invariants::Invariant;
pub use schedule::{
    Abort, AddressPlan, Announce, Class, ClonePlan, DrainPlan, Fault, FlowPlan, MovePlan, Pause, RoutingPlan,
    Sabotage, Schedule, Side, SidePlan, TakeOver, TenantPlan, Underlay, UsePlan, VmPlan, Weather,
};
pub use stats::Stats;

use world::{Event, World};

/// How often the fabric is asked whether it has come to rest.
const LOOK: Span = Span::from_ms(100);
/// The probe's frames have arrived, or never will.
const PROBE: Span = Span::from_ms(300);

/// Lines of its trace that a failure shows; with `{:#}` it shows all.
const SHOWN: usize = 200;

/// A run that violated an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its schedule.
    pub schedule: Box<Schedule>,
    /// What was violated.
    pub invariant: Invariant,
    /// How.
    pub text: String,
    /// When, in virtual time.
    pub at: Instant,
    /// The last events before.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = if f.alternate() { 0 } else { self.trace.len().saturating_sub(SHOWN) };
        for line in &self.trace[hidden..] {
            writeln!(f, "{line}")?;
        }
        let seed = self.schedule.seed;
        writeln!(
            f,
            "seed {seed}: {:?} violated at {} ms: {}",
            self.invariant,
            self.at.0 / 1_000_000,
            self.text
        )?;
        write!(
            f,
            "again: FABRIC_SEED={seed} cargo test -p godwit-testkit --test fabric replay -- --nocapture"
        )
    }
}

impl std::error::Error for Failure {}

/// Runs a schedule.
///
/// # Errors
/// What it violated; the trace comes from running it a second time.
pub fn run(schedule: &Schedule) -> Result<Stats, Failure> {
    let mut world = World::new(schedule.clone(), false);
    world.play();
    if world.violation.is_none() {
        return Ok(world.finished());
    }
    let mut again = World::new(schedule.clone(), true);
    again.play();
    let first = world.violation.take().map(|v| (v.invariant, v.text));
    let trace = again.take_trace();
    let Some(v) = again.violation else {
        unreachable!("the same schedule ran twice and did not fail twice: {first:?}")
    };
    assert_eq!(first, Some((v.invariant, v.text.clone())), "the same schedule failed in another way");
    Err(Failure {
        schedule: Box::new(schedule.clone()),
        invariant: v.invariant,
        text: v.text,
        at: v.at,
        trace,
    })
}

impl World {
    fn play(&mut self) {
        self.set_up();
        self.come_to_rest("after the start");
        self.start = self.now;
        self.traffic_until = self.now + self.plan.run;
        self.begin();
        self.run_until(self.traffic_until);
        self.storm_until = Instant(0);
        self.nva.pardon();
        self.pardon_hosts();
        self.come_to_rest("after the last fault and move");
        self.probe();
        self.check_ledger();
        if self.violation.is_none() {
            self.check_gone();
        }
    }

    /// The operator defines VNs and VMs, hypervisors start the VMs, everybody connects.
    fn set_up(&mut self) {
        let mut directory = Directory::new(nva::config(&self.plan));
        self.nva.disk.epoch = directory.epoch();
        let domains = self.plan.routing.as_ref().map_or(0, |r| r.domains);
        let mut ids = Vec::new();
        for number in 0..domains {
            let order = Order::CreateDomain { name: routing::domain(number) };
            if let Answered::Domain(domain) = self.first_order(&mut directory, order) {
                ids.push(domain.record.id);
            }
        }
        let mut orders = Vec::new();
        for vn in 0..self.plan.vns {
            let plan = self.plan.routing.as_ref();
            let part = plan.and_then(|plan| Some(routing::part(plan, vn, ids[plan.domain(vn)?])));
            let settings =
                VnSettings { unplanned: self.plan.unplanned, routing: part, ..VnSettings::default() };
            orders.push(Order::CreateVn(VnRecord { vni: names::vni(vn), name: format!("vn{vn}"), settings }));
        }
        for vm in 0..self.guests.len() {
            orders.push(Order::DefineVm(self.definition(vm)));
        }
        orders.extend(routing::routes(&self.plan));
        for order in orders {
            self.first_order(&mut directory, order);
        }
        self.nva.directory = Some(directory);
        self.after(Span::from_ms(10), Event::NvaTick);
        for host in 0..self.hosts.len() {
            self.plug_uplink(host);
            let span = self.rng.us(0, 20_000);
            self.after(span, Event::Connect { host });
            self.after(Span(1_000_000_000 + span.0), Event::Keepalive { host });
        }
        for vm in 0..self.guests.len() {
            let plan = self.plan.vms[vm].clone();
            let port = self.plug(plan.home, vm);
            let announce = match plan.explicit {
                true => Announce::Explicit,
                false if plan.quiet => Announce::Never,
                false => Announce::Garp,
            };
            self.resume(vm, plan.home, port, announce, Span(0));
            if plan.defined_late {
                let span = self.rng.us(0, 60_000);
                self.after(span, Event::Redefine { vm });
            }
        }
        self.after(stalls::WATCH, Event::Watch);
    }

    /// An order before anybody is there to be told.
    fn first_order(&mut self, directory: &mut Directory, order: Order) -> Answered {
        let (peer, what) = (Peer::operator(), NvaInput::Order(order));
        let request = Request { peer, what, now: self.now, wall_us: self.wall_us() };
        let Reply { answer, outputs } = directory.handle(request);
        for output in outputs {
            if let Output::Persist(write) = output {
                self.nva.disk.apply(&write);
            }
        }
        answer.expect("a new VN, VM, domain or route")
    }

    /// Traffic, moves and faults of the schedule.
    fn begin(&mut self) {
        for flow in 0..self.flows.len() {
            if self.flows[flow].periodic {
                let gap = Span(self.rng.below(self.flows[flow].every.0));
                self.after(gap, Event::Send { flow });
            }
        }
        self.after(Span::from_ms(5), Event::Ask);
        self.begin_addresses();
        for n in 0..self.plan.moves.len() {
            self.after(self.plan.moves[n].at, Event::Wanted(n));
        }
        if let Some(drain) = &self.plan.drain {
            self.after(drain.at, Event::Manage);
        }
        for clone in 0..self.plan.clones.len() {
            self.after(self.plan.clones[clone].at, Event::CloneConnect { clone });
        }
        for n in 0..self.plan.faults.len() {
            self.after(self.plan.faults[n].0, Event::Fault(n));
        }
    }

    /// Moves may take their time, each as long as orders are repeated; then all must be quiet soon.
    fn come_to_rest(&mut self, when: &str) {
        let last = self.now.max(self.stalls_until)
            + Span(invariants::PATIENCE.0 * (1 + self.plan.moves.len() as u64));
        let mut until = self.now + invariants::PATIENCE;
        loop {
            self.run_until(self.now + LOOK);
            let Some(why) = self.unrest() else { return };
            if self.violation.is_some() {
                return;
            }
            if (!self.scripts_are_done() || self.now < self.stalls_until) && self.now < last {
                until = self.now + invariants::PATIENCE;
            }
            if self.now >= until {
                return self.fail(Invariant::Converges, format!("no rest {when}: {why}"));
            }
        }
    }

    /// Everybody reaches everybody in its VN.
    fn probe(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.use_what_ages();
        if self.plan.addresses.is_some() {
            self.probe_addresses();
            self.run_until(self.now + PROBE);
            self.call_at_the_end();
        }
        for flow in 0..self.flows.len() {
            if !self.flows[flow].periodic {
                self.send_one(flow);
            }
        }
        self.run_until(self.now + PROBE);
    }

    /// What was pulled and has not been used since a reconnect may be wrong, and whoever uses it first finds out
    /// (R40). That is not the probe: its frames would be lost where nobody forwards any more.
    fn use_what_ages(&mut self) {
        let mut used = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            for (worker, w) in host.workers.iter().enumerate() {
                let keys = self.guests.iter().filter_map(|g| w.key(g.key));
                let ageing = keys.filter(|key| matches!(w.tables.vms.get(*key), Some(Fib::Ageing(_))));
                used.extend(ageing.map(|key| (number, worker, key)));
            }
        }
        if used.is_empty() {
            return;
        }
        for (host, worker, key) in used {
            self.control(host, Input::Worker { worker, event: InUse { key } });
        }
        self.run_until(self.now + PROBE);
    }

    fn finished(mut self) -> Stats {
        for worker in self.hosts.iter().flat_map(|h| &h.workers) {
            self.stats.frames_held += worker.tables.counters.worker.held;
            self.stats.frames_forwarded += worker.tables.counters.worker.forwarded_in_flight;
        }
        for host in &self.hosts {
            let counts = host.nve.counts();
            self.stats.scanned += counts.scanned;
            self.stats.addresses_bound += counts.addresses_bound;
            self.stats.addresses_refused += counts.addresses_refused;
            self.stats.addresses_given_back += counts.addresses_unbound;
            self.stats.redirects_direct += counts.redirects_direct;
            self.stats.redirects_by_nva += counts.redirects_by_nva;
            self.stats.redirects_used += counts.redirects_used;
            self.stats.markers_sent += counts.markers_sent;
            self.stats.markers_come += counts.markers_come;
            self.stats.markers_late += counts.markers_late;
            self.stats.order_held += counts.order_held;
            self.stats.sent_all += counts.sent_all;
            self.stats.sent_all_late += counts.sent_all_late;
            self.stats.entries_refreshed += counts.entries_refreshed;
            self.stats.entries_aged += counts.entries_aged;
        }
        self.stats.virtual_ms = (self.now.0 - 1_000_000_000) / 1_000_000;
        self.stats
    }
}
