//! How a seed becomes virtual, learned and nested addresses. Of a generator of its own, so that the rest of a schedule
//! is as the seed has it.

use std::net::IpAddr;

use godwit_wire::Span;

use super::names;
use super::schedule::{AddressPlan, Schedule, Side, SidePlan, TakeOver, TenantPlan, UsePlan};
use crate::rng::Rng;

/// Schedules of a thousand that have such addresses.
const SHARE: u64 = 125;

/// Addresses that a VM uses at once where it tries many.
const MANY: u8 = 12;

/// For one schedule of eight.
pub(super) fn draw(plan_of: &Schedule) -> Option<AddressPlan> {
    generator(plan_of).chance(SHARE).then(|| plan(plan_of))
}

fn generator(schedule: &Schedule) -> Rng {
    Rng::new(schedule.seed.rotate_left(29) ^ 0xadd7)
}

/// For this schedule in any case.
pub(super) fn plan(schedule: &Schedule) -> AddressPlan {
    let mut rng = generator(schedule);
    rng.next();
    let mut vms: Vec<TenantPlan> = schedule.vms.iter().map(|vm| draw_tenant(&mut rng, vm.quiet)).collect();
    for vn in 0..schedule.vns {
        draw_sharers(&mut rng, schedule, vn, &mut vms);
    }
    let takeovers = draw_takeovers(&mut rng, schedule, &vms);
    let uses = draw_uses(&mut rng, schedule, &vms);
    let flows = draw_flows(&mut rng, schedule, &vms);
    // Announced once, an address must stay where nothing but a session fails.
    let refresh = rng.chance(500) || !schedule.class.is_lossless();
    let check = rng.pick(&[500, 2000, 300_000]);
    let virtual_mac = rng.chance(400);
    AddressPlan { vms, takeovers, virtual_mac, refresh, uses, flows, check: Span::from_ms(check) }
}

/// One that never says anything has addresses at which it is asked.
fn draw_tenant(rng: &mut Rng, quiet: bool) -> TenantPlan {
    let unrecorded =
        if !quiet && rng.chance(300) { (rng.chance(700), rng.chance(700)) } else { (false, false) };
    let learns = unrecorded == (false, false) && rng.chance(250);
    TenantPlan {
        shares: false,
        unrecorded,
        room: learns.then(|| rng.between(1, 3) as u8),
        nested: if rng.chance(400) { rng.between(1, 2) as usize } else { 0 },
        routes: rng.chance(300),
    }
}

/// Two of a VN at least share its address, or none does.
fn draw_sharers(rng: &mut Rng, schedule: &Schedule, vn: usize, vms: &mut [TenantPlan]) {
    let here = |vm: &usize| schedule.vms[*vm].vn == vn && !schedule.vms[*vm].quiet;
    let mut may: Vec<usize> = (0..vms.len()).filter(here).collect();
    if may.len() < 2 || !rng.chance(750) {
        return;
    }
    while may.len() > 2 && rng.chance(500) {
        may.remove(rng.index(may.len()));
    }
    may.iter().for_each(|vm| vms[*vm].shares = true);
}

fn draw_takeovers(rng: &mut Rng, schedule: &Schedule, vms: &[TenantPlan]) -> Vec<TakeOver> {
    let mut all = Vec::new();
    for vn in 0..schedule.vns {
        let sharers: Vec<usize> =
            (0..vms.len()).filter(|vm| vms[*vm].shares && schedule.vms[*vm].vn == vn).collect();
        if sharers.is_empty() {
            continue;
        }
        let count = rng.between(1, 4);
        // The first one soon.
        let first = Span(rng.below(schedule.run.0 / 8));
        all.push(TakeOver { at: first, vm: rng.pick(&sharers), lag: Span(0) });
        for _ in 1..count {
            let (at, vm) = (Span(rng.below(schedule.run.0)), rng.pick(&sharers));
            all.push(TakeOver { at, vm, lag: rng.ms(0, 300) });
        }
    }
    all.sort_by_key(|t| t.at);
    all
}

fn draw_uses(rng: &mut Rng, schedule: &Schedule, vms: &[TenantPlan]) -> Vec<UsePlan> {
    let mut uses = Vec::new();
    for (vm, tenant) in vms.iter().enumerate().filter(|(vm, _)| !schedule.vms[*vm].quiet) {
        let number = schedule.vms[vm].number;
        for v6 in [false, true] {
            if if v6 { tenant.unrecorded.1 } else { tenant.unrecorded.0 } {
                let ip = names::side(number, Side::Own, v6).1;
                uses.push(UsePlan { at: Span(0), until: None, vm, ip, every: Span::from_ms(400) });
            }
        }
        for _ in 0..rng.between(0, 3) {
            let ip = draw_ip(rng, schedule, vms, vm);
            let at = Span(rng.below(schedule.run.0));
            let until = Some(Span(at.0 + rng.ms(50, 3000).0));
            uses.push(UsePlan { at, until, vm, ip, every: rng.ms(20, 250) });
        }
        if tenant.unrecorded == (false, false) && rng.chance(150) {
            let (at, v6) = (Span(rng.below(schedule.run.0)), rng.chance(500));
            for n in 0..MANY {
                let (ip, until) = (names::free_ip(10 + n, v6), Some(Span(at.0 + 1_000_000)));
                uses.push(UsePlan { at, until, vm, ip, every: Span::from_ms(20) });
            }
        }
    }
    for vn in 0..schedule.vns {
        uses.extend(draw_rivals(rng, schedule, vn, vms));
    }
    uses
}

/// One VM uses an address all the time, and another one wants it after a while.
fn draw_rivals(rng: &mut Rng, schedule: &Schedule, vn: usize, vms: &[TenantPlan]) -> Vec<UsePlan> {
    let v6 = rng.chance(500);
    let learns = |vm: &usize| {
        let unrecorded = if v6 { vms[*vm].unrecorded.1 } else { vms[*vm].unrecorded.0 };
        schedule.vms[*vm].vn == vn && !schedule.vms[*vm].quiet && (unrecorded || vms[*vm].room.is_some())
    };
    let mut learners: Vec<usize> = (0..vms.len()).filter(learns).collect();
    if learners.len() < 2 || rng.chance(300) {
        return Vec::new();
    }
    let holder = learners.swap_remove(rng.index(learners.len()));
    let (ip, run) = (names::free_ip(5, v6), schedule.run.0);
    let late = Span(rng.between(run / 2, run));
    let plan = |at, vm, every| UsePlan { at, until: Some(schedule.run), vm, ip, every };
    vec![plan(Span(0), holder, Span::from_ms(200)), plan(late, rng.pick(&learners), Span::from_ms(30))]
}

/// Mostly one that nobody has, of a few, so that others want it too.
fn draw_ip(rng: &mut Rng, schedule: &Schedule, vms: &[TenantPlan], vm: usize) -> IpAddr {
    let v6 = rng.chance(500);
    let of_others = |other: &usize| {
        let o = vms[*other].unrecorded;
        let learned = if v6 { o.1 } else { o.0 };
        // What was lost while its VM said nothing may be another's then, and what is promised would be lost.
        let here = *other != vm && schedule.vms[*other].vn == schedule.vms[vm].vn;
        here && !(learned && schedule.class.is_lossless())
    };
    let others: Vec<usize> = (0..vms.len()).filter(of_others).collect();
    match rng.below(10) {
        0 => names::link_local(schedule.vms[vm].number),
        // Who shares it announces it as its master only.
        1 | 2 if !vms[vm].shares => names::virtual_ip(v6),
        3 | 4 if !others.is_empty() => names::side(schedule.vms[rng.pick(&others)].number, Side::Own, v6).1,
        _ => names::free_ip(rng.below(3) as u8, v6),
    }
}

fn draw_flows(rng: &mut Rng, schedule: &Schedule, vms: &[TenantPlan]) -> Vec<SidePlan> {
    let mut flows = Vec::new();
    for (vm, tenant) in vms.iter().enumerate() {
        let sides = (0..tenant.nested).map(Side::Nested).chain(tenant.routes.then_some(Side::Routed));
        for side in sides {
            let peers: Vec<usize> = (0..vms.len())
                .filter(|peer| *peer != vm && schedule.vms[*peer].vn == schedule.vms[vm].vn)
                .collect();
            for out in [true, false] {
                let peer = rng.pick(&peers);
                let its = rng.index(vms[peer].nested + 1);
                let its = if its == 0 { Side::Own } else { Side::Nested(its - 1) };
                let (ours, theirs) = ((vm, side), (peer, its));
                let (from, to) = if out { (ours, theirs) } else { (theirs, ours) };
                let (v6, every) = (rng.chance(500), rng.ms(8, 40));
                flows.push(SidePlan { from, to, v6, every });
            }
        }
    }
    flows
}
