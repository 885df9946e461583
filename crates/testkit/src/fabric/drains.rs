//! Drains: a switch is emptied by moves that the NVA orders, and hypervisors perform them as any other (R85).
//!
//! One switch is drained, once. Meanwhile other VMs want to come to it, which is refused until it is empty and takes
//! VMs again. [`Invariant::Drained`]: nobody new comes to it meanwhile, and the drain's end says who is left.

use std::collections::BTreeSet;

use godwit_model::{DrainPhase, MoveId, MoveMode, VmKey};
use godwit_nva::Order;
use godwit_nva::directory::{DrainOrder, Refusal};
use godwit_wire::{Instant, Span};

use super::draw::Place;
use super::invariants::Invariant;
use super::names;
use super::nva::Job;
use super::schedule::{Class, DrainPlan, MovePlan, Sabotage, Schedule};
use super::world::{Event, World};
use crate::rng::Rng;

/// How often the manager looks for moves.
const LOOK: Span = Span::from_ms(5);
/// An order without an answer is given again after so long.
const ANSWER: Span = Span::from_ms(400);

/// Of a hundred schedules in which a switch may be drained, so many have it.
const SHARE: u64 = 8;

/// A schedule with a drain, or as it is.
pub(super) fn draw(schedule: Schedule) -> Schedule {
    // Of a generator of its own, so that the rest is as the seed has it.
    let mut rng = Rng::new(schedule.seed.rotate_left(29) ^ 0xd7a1);
    if rng.chance(SHARE * 10) { add(schedule) } else { schedule }
}

/// The schedule with a drain in the place of its moves, unless its class has moves that a drain cannot be beside.
pub(super) fn add(mut schedule: Schedule) -> Schedule {
    if !matches!(schedule.class, Class::Planned | Class::Cuts | Class::NvaFaults) {
        return schedule;
    }
    let mut rng = Rng::new(schedule.seed.rotate_left(31) ^ 0xd7a2);
    let (host, at) = (rng.index(schedule.hosts()), Span(rng.below(schedule.run.0 / 2)));
    let hosts = schedule.hosts();
    let place = Place {
        class: schedule.class,
        vms: &schedule.vms,
        hosts,
        run: schedule.run,
        weather: &schedule.weather,
    };
    let planned = |rng: &mut Rng, vm: usize, at: Span| MovePlan {
        dies: false,
        local: false,
        abort: None,
        to: host,
        mode: MoveMode::Hot,
        ..place.draw(rng, vm, at)
    };
    let moves: Vec<MovePlan> = (0..schedule.vms.len()).map(|vm| planned(&mut rng, vm, at)).collect();
    // Others want to come there.
    let elsewhere = (0..schedule.vms.len()).filter(|vm| schedule.vms[*vm].home != host);
    let wanted = elsewhere.map(|vm| {
        let later = Span(at.0 + Span::from_ms(300).0);
        planned(&mut rng, vm, later)
    });
    let wanted = if schedule.class == Class::NvaFaults { Vec::new() } else { wanted.collect() };
    let parallel = rng.between(1, 4) as u32;
    schedule.moves = wanted;
    schedule.drain = Some(DrainPlan { at, host, parallel, moves });
    schedule
}

/// How far the schedule's drain is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) enum Drain {
    /// There is none, or it is not yet wanted.
    #[default]
    None,
    /// Wanted, and not yet known to be obeyed; when it was ordered last.
    Wanted(Instant),
    /// Obeyed: the VMs that were there, or on their way.
    Runs(BTreeSet<VmKey>),
    /// It has ended, and the switch is to take VMs again.
    Ended(BTreeSet<VmKey>, Instant),
    /// The switch takes VMs again.
    Over,
}

impl World {
    /// The schedule's drain is wanted, or goes on.
    pub fn manage(&mut self) {
        let Some(plan) = self.plan.drain.clone() else { return };
        match self.drain.clone() {
            Drain::None => {
                self.stats.drains += 1;
                self.drain = Drain::Wanted(self.now);
                self.order_drain(&plan);
            }
            Drain::Wanted(at) if at + ANSWER <= self.now => {
                self.drain = Drain::Wanted(self.now);
                self.order_drain(&plan);
            }
            Drain::Runs(here) => self.perform_drain(&plan, here),
            Drain::Ended(here, at) if at + ANSWER <= self.now => {
                self.drain = Drain::Ended(here, self.now);
                self.order_undrain(&plan);
            }
            Drain::Wanted(_) | Drain::Ended(..) => {}
            Drain::Over => return,
        }
        self.after(LOOK, Event::Manage);
    }

    fn order_drain(&mut self, plan: &DrainPlan) {
        let (nve, parallel) = (names::nve(plan.host), plan.parallel);
        let order = DrainOrder { nve, to: Vec::new(), parallel, accept_interruption: false };
        self.nva_request(Job::Drain { order: Order::DrainNve(order) });
    }

    fn order_undrain(&mut self, plan: &DrainPlan) {
        self.nva_request(Job::Drain { order: Order::UndrainNve { nve: names::nve(plan.host) } });
    }

    /// The NVA's answer to an order about the drain; `undrain`: to its end.
    pub fn drain_answered(&mut self, undrain: bool, answer: Result<(), Refusal>) {
        let Some(plan) = self.plan.drain.clone() else { return };
        self.note(|| format!("DRAIN of n{}: end: {undrain}, {answer:?}", plan.host));
        let known = matches!(answer, Ok(()) | Err(Refusal::NotDraining { .. }));
        match &self.drain {
            Drain::Wanted(_) if !undrain && answer.is_ok() => {
                let here = self.guests.iter().filter(|g| self.located_at(g.key, plan.host)).map(|g| g.key);
                // Ordered before the drain, while the switch was away say.
                let nve = names::nve(plan.host);
                let moves = self.nva.directory.iter().flat_map(|d| d.moves(None, true));
                let coming = moves.filter(|m| m.to == nve).map(|m| m.key);
                self.drain = Drain::Runs(here.chain(coming).collect());
                // Behind the operator's back.
                if self.sabotaged(Sabotage::Undrained) {
                    self.order_undrain(&plan);
                }
            }
            Drain::Ended(..) if undrain && known => self.drain = Drain::Over,
            _ => {}
        }
    }

    fn located_at(&self, key: VmKey, host: usize) -> bool {
        let record = self.nva.directory.as_ref().and_then(|d| d.vm(key));
        record.is_some_and(|r| r.is_at(&names::nve(host)))
    }

    /// Hypervisors begin with moves that the NVA has ordered, and the operator sees whether it is over.
    fn perform_drain(&mut self, plan: &DrainPlan, here: BTreeSet<VmKey>) {
        let nve = names::nve(plan.host);
        let Some(info) = self.nva.settled().and_then(|d| d.drain_info(&nve).ok()) else { return };
        for m in &info.moving {
            let vm = self.guests.iter().position(|g| g.name == m.vm);
            let to = (0..self.hosts.len()).find(|host| names::nve(*host) == m.to);
            let (Some(vm), Some(to)) = (vm, to) else { continue };
            if self.guests[vm].script.is_none() && !self.known.orders.contains(&m.id) {
                self.known.orders.insert(MoveId(m.id.0.clone()));
                self.stats.drained += 1;
                self.perform(MovePlan { to, ..plan.moves[vm].clone() }, m.id.0.clone());
            }
        }
        if info.record.phase == DrainPhase::Running {
            return;
        }
        let told = info.failed.len() + info.left.len();
        if usize::try_from(info.here).ok() != Some(told) || self.plan.class == Class::Planned && told > 0 {
            return self.fail(Invariant::Drained, format!("the drain of n{} ended so: {info:?}", plan.host));
        }
        self.drain = Drain::Ended(here, self.now);
        self.order_undrain(plan);
    }

    /// Nobody new is at a switch that is drained.
    pub fn check_drain(&mut self) {
        let Some(plan) = &self.plan.drain else { return };
        let Drain::Runs(here) = &self.drain else { return };
        let new = self.guests.iter().find(|g| !here.contains(&g.key) && self.located_at(g.key, plan.host));
        if let Some(guest) = new {
            let text = format!("{} came to n{} while it was drained", guest.key, plan.host);
            self.fail(Invariant::Drained, text);
        }
    }

    /// No drain is wanted any more.
    pub fn drain_is_done(&self) -> bool {
        self.plan.drain.is_none() || self.drain == Drain::Over || self.now < self.start
    }
}
