//! How a seed becomes routing domains. Of a generator of its own, so that the rest of a schedule is as the seed has it.

use std::collections::BTreeSet;

use super::draw::{FROZEN, Place};
use super::names;
use super::schedule::{Class, RoutingPlan, Schedule, Side, SidePlan, VmPlan};
use crate::rng::Rng;

/// Schedules of a thousand that have routing domains.
const SHARE: u64 = 125;

/// In one schedule of eight, but for those with addresses of the VMs' own.
pub(super) fn draw(schedule: Schedule) -> Schedule {
    let chosen = schedule.addresses.is_none() && generator(&schedule).chance(SHARE);
    if chosen { add(schedule) } else { schedule }
}

fn generator(schedule: &Schedule) -> Rng {
    Rng::new(schedule.seed.rotate_left(41) ^ 0x2077e)
}

/// Adds one or two routing domains of two VNs each, with their VMs, flows and moves.
pub(super) fn add(mut schedule: Schedule) -> Schedule {
    let mut rng = generator(&schedule);
    rng.next();
    let (first, domains) = (schedule.vns, rng.between(1, 2) as usize);
    let mut plan = RoutingPlan { first, domains, routers: Vec::new(), flows: Vec::new() };
    schedule.vns += 2 * domains;
    let new = schedule.vms.len();
    for vn in first..schedule.vns {
        draw_vms(&mut rng, &mut schedule, &plan, vn);
    }
    for domain in 0..domains {
        let of: Vec<usize> = (new..schedule.vms.len())
            .filter(|vm| plan.domain(schedule.vms[*vm].vn) == Some(domain))
            .collect();
        plan.routers.push(rng.pick(&of));
    }
    plan.flows = draw_flows(&mut rng, &schedule, &plan);
    draw_moves(&mut rng, &mut schedule, new);
    draw_pulls(&mut rng, &mut schedule, first);
    schedule.routing = Some(plan);
    schedule
}

fn draw_vms(rng: &mut Rng, schedule: &mut Schedule, plan: &RoutingPlan, vn: usize) {
    let hosts = schedule.hosts();
    for number in 0..rng.between(1, 3) as usize {
        let quiet = schedule.class == Class::Stalls && rng.chance(300);
        let number = names::first_number(plan, vn) + number;
        let (home, explicit) = (rng.index(hosts), rng.chance(200));
        schedule.vms.push(VmPlan { vn, number, home, explicit, quiet, defined_late: false });
    }
}

/// Everybody sends to some of the domain, and to what is behind its router.
fn draw_flows(rng: &mut Rng, schedule: &Schedule, plan: &RoutingPlan) -> Vec<SidePlan> {
    let mut flows = Vec::new();
    let domain = |vm: usize| plan.domain(schedule.vms[vm].vn);
    for from in 0..schedule.vms.len() {
        for to in (0..schedule.vms.len()).filter(|to| *to != from && domain(from).is_some()) {
            if domain(to) != domain(from) {
                continue;
            }
            if rng.chance(500) {
                let ends = ((from, Side::Own), (to, Side::Own));
                flows.push(SidePlan { from: ends.0, to: ends.1, v6: rng.chance(500), every: rng.ms(4, 25) });
            }
            // Within a bridged VN it would be a matter of the VMs' own routes.
            if plan.routers.contains(&to) && plan.is_routed(schedule.vms[from].vn, schedule.vms[to].vn) {
                let (v6, every) = (rng.chance(500), rng.ms(10, 40));
                let behind = (to, Side::Routed);
                flows.push(SidePlan { from: (from, Side::Own), to: behind, v6, every });
                flows.push(SidePlan { from: behind, to: (from, Side::Own), v6, every });
            }
        }
    }
    flows
}

fn draw_moves(rng: &mut Rng, schedule: &mut Schedule, new: usize) {
    let Schedule { class, vms, run, weather, .. } = &*schedule;
    let place = Place { class: *class, vms, hosts: schedule.hosts(), run: *run, weather };
    let mut moves = Vec::new();
    for _ in 0..rng.between(1, 4) {
        let vm = new + rng.index(vms.len() - new);
        let at = godwit_wire::Span(rng.below(run.0 * 8 / 10));
        moves.push(place.draw(rng, vm, at));
    }
    if *class == Class::Frozen {
        moves.retain(|m| vms[m.vm].home != FROZEN && (m.local || m.to != FROZEN));
    }
    schedule.moves.extend(moves);
    schedule.moves.sort_by_key(|m| m.at);
}

/// Who pulls some of its VNs pulls some of these, too.
fn draw_pulls(rng: &mut Rng, schedule: &mut Schedule, first: usize) {
    let vns: Vec<usize> = (first..schedule.vns).collect();
    for pulls in schedule.pulls.iter_mut().filter(|pulls| !pulls.is_empty()) {
        let some: BTreeSet<usize> = vns.iter().copied().filter(|_| rng.chance(500)).collect();
        pulls.extend(some);
    }
}
