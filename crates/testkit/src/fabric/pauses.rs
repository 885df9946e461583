//! Pauses of VMs' connections (R54): an operator orders them, and lets the connections go on a while later. Where a
//! schedule promises to lose nothing, it loses nothing by them either, and keeps order, whether the VM moves meanwhile
//! or not.

use godwit_model::{MoveMode, WhilePaused};
use godwit_nva::Order;
use godwit_wire::Span;

use super::draw::Place;
use super::nva::Job;
use super::schedule::{Class, Fault, FlowPlan, MovePlan, Schedule};
use super::world::{Event, World};
use crate::rng::Rng;

/// Of a hundred schedules whose class may have pauses, so many have them.
const SHARE: u64 = 12;
/// The longest pause, in milliseconds: with a session that is cut meanwhile no frame is held for longer than holds
/// allow.
const LONGEST: u64 = 1200;
/// Who is to let connections go on tries again after so long while the NVA is away.
const AGAIN: Span = Span::from_ms(50);

/// A schedule with pauses, or as it is.
pub(super) fn draw(mut schedule: Schedule) -> Schedule {
    // Of a generator of its own, so that the rest is as the seed has it.
    let mut rng = Rng::new(schedule.seed.rotate_left(37) ^ 0x54);
    let may = matches!(schedule.class, Class::Planned | Class::Cuts | Class::Frozen | Class::Anything);
    if may && schedule.drain.is_none() && rng.chance(SHARE * 10) {
        for _ in 0..rng.between(1, 3) {
            let vm = rng.index(schedule.vms.len());
            // What is held at a switch that the VM comes back to may be older than what waits there.
            if schedule.moves.iter().filter(|m| m.vm == vm).count() > 1 {
                continue;
            }
            let (at, span) = (Span(rng.below(schedule.run.0)), rng.ms(1, LONGEST));
            schedule.faults.push((at, Fault::PauseVm(vm, span)));
        }
    }
    schedule
}

/// Nothing fails, and one VM moves in the midst of a pause of a second.
pub(super) fn moved(seed: u64) -> Schedule {
    let mut plan = super::draw::schedule(Class::Planned, seed);
    let mut rng = Rng::new(!seed);
    let hosts = plan.hosts();
    let at = rng.ms(50, 200);
    let place = Place { class: Class::Planned, vms: &plan.vms, hosts, run: plan.run, weather: &plan.weather };
    let to = (plan.vms[0].home + 1) % hosts;
    let soon = Span(at.0 + Span::from_ms(50).0);
    let drawn = place.draw(&mut rng, 0, soon);
    let mode = MoveMode::Hot;
    plan.moves = vec![MovePlan { vm: 0, to, mode, dies: false, local: false, abort: None, ..drawn }];
    plan.faults = vec![(at, Fault::PauseVm(0, Span::from_ms(1000)))];
    plan.clones.clear();
    plan.run = Span::from_ms(2000);
    plan.flows.retain(|f| (f.from, f.to) != (1, Some(0)));
    for v6 in [false, true] {
        plan.flows.push(FlowPlan { from: 1, to: Some(0), v6, every: rng.ms(4, 10) });
    }
    plan
}

impl World {
    /// The operator pauses a VM's connections, and is to let them go on after `span`.
    pub fn pause_vm(&mut self, vm: usize, span: Span) {
        let name = self.guests[vm].name.clone();
        // Where the NVA may be gone when they are to go on, they do so by themselves.
        let limit_s = if self.plan.class.is_lossless() { 60 } else { 2 };
        let order = Order::PauseVm { vm: name, treatment: WhilePaused::Hold, limit_s };
        if self.nva_request(Job::Told { order }) {
            self.stats.pauses += 1;
            self.paused.insert(vm);
            self.after(span, Event::ResumeVm { vm });
        }
    }

    /// A VM's connections go on.
    pub fn resume_vm(&mut self, vm: usize) {
        let order = Order::ResumeVm { vm: self.guests[vm].name.clone() };
        if !self.nva_request(Job::Told { order }) {
            self.after(AGAIN, Event::ResumeVm { vm });
        }
    }
}
