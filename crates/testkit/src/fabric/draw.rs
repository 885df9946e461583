//! How a seed becomes a schedule.

use std::collections::BTreeSet;

use godwit_model::Unplanned;
use godwit_wire::Span;

use super::schedule::{
    Abort, Announce, Class, ClonePlan, Fault, FlowPlan, MovePlan, Pause, Schedule, Underlay, VmPlan, Weather,
};
use crate::rng::Rng;

/// The schedule of a seed, of one class.
pub(super) fn schedule(class: Class, seed: u64) -> Schedule {
    let mut rng = Rng::new(seed);
    let least = if class == Class::Frozen { 3 } else { 2 };
    let hosts = rng.between(least, 5) as usize;
    let workers = (0..hosts).map(|_| rng.between(1, 2) as usize).collect();
    let underlay = rng.pick(&[Underlay::V4, Underlay::V6, Underlay::Both]);
    let vns = rng.between(1, 2) as usize;
    let vms = draw_vms(&mut rng, class, hosts, vns);
    let run = rng.ms(800, 3000);
    let weather = draw_weather(&mut rng, class);
    let flows = draw_flows(&mut rng, &vms);
    let place = Place { class, vms: &vms, hosts, run, weather: &weather };
    let moves = place.moves(&mut rng);
    let faults = match class {
        Class::Stalls => draw_stalls(&mut rng, vms.len(), hosts, run),
        _ => draw_faults(&mut rng, class, hosts, run),
    };
    // The shortest ones end in the midst of traffic; who still needs them has them extended.
    let fwd_timer = Span::from_ms(rng.pick(&[500, 1000, 5_000, 60_000]));
    let unplanned = rng.pick(&[Unplanned::Verify, Unplanned::Accept, Unplanned::Deny]);
    let (pulls, pos_life) = draw_pulls(&mut rng, class, hosts, vns);
    let sabotage = None;
    let mut plan = Schedule {
        seed,
        class,
        workers,
        underlay,
        vns,
        vms,
        flows,
        moves,
        faults,
        clones: draw_clones(class, seed, hosts, run),
        addresses: None,
        routing: None,
        drain: None,
        weather,
        unplanned,
        fwd_timer,
        pulls,
        pos_life,
        run,
        sabotage,
    };
    plan.addresses = super::draw_addresses::draw(&plan);
    plan
}

/// Clones in one planned schedule of four. Of a generator of its own, so that the rest is as the seed has it.
fn draw_clones(class: Class, seed: u64, hosts: usize, run: Span) -> Vec<ClonePlan> {
    let mut rng = Rng::new(seed.rotate_left(17) ^ 0xc107e);
    if class != Class::Planned || !rng.chance(250) {
        return Vec::new();
    }
    let draw = |rng: &mut Rng| {
        let named = rng.chance(700);
        let (at, of) = (Span(rng.below(run.0)), rng.index(hosts));
        ClonePlan { at, of, named, elsewhere: named && rng.chance(500) }
    };
    (0..rng.between(1, 2)).map(|_| draw(&mut rng)).collect()
}

/// A schedule in which nothing fails and nothing moves but two VMs of one VN, which change places at the same time
/// while they send to each other.
pub(super) fn swap(seed: u64) -> Schedule {
    let mut plan = schedule(Class::Planned, seed);
    // Of its own, so that the rest is as the seed has it.
    let mut rng = Rng::new(!seed);
    let hosts = plan.hosts();
    // The first two are of one VN.
    if plan.vms[1].home == plan.vms[0].home {
        plan.vms[1].home = (plan.vms[0].home + 1) % hosts;
    }
    let place = Place { class: Class::Planned, vms: &plan.vms, hosts, run: plan.run, weather: &plan.weather };
    let at = Span(rng.below(plan.run.0 / 2));
    let change = |rng: &mut Rng, vm: usize, to: usize| MovePlan {
        vm,
        to: plan.vms[to].home,
        dies: false,
        local: false,
        abort: None,
        ..place.draw(rng, vm, at)
    };
    let moves = vec![change(&mut rng, 0, 1), change(&mut rng, 1, 0)];
    plan.moves = moves;
    for (from, to) in [(0, 1), (1, 0)] {
        plan.flows.retain(|f| (f.from, f.to) != (from, Some(to)));
        for v6 in [false, true] {
            plan.flows.push(FlowPlan { from, to: Some(to), v6, every: rng.ms(4, 10) });
        }
    }
    plan
}

/// VMs numbered from 0 in each VN: the second VN repeats the addresses of the first.
fn draw_vms(rng: &mut Rng, class: Class, hosts: usize, vns: usize) -> Vec<VmPlan> {
    let stalls = class == Class::Stalls;
    let mut vms = Vec::new();
    for vn in 0..vns {
        for number in 0..rng.between(2, 4) as usize {
            let (home, explicit) = (rng.index(hosts), rng.chance(200));
            let (quiet, defined_late) = (stalls && rng.chance(400), stalls && rng.chance(300));
            vms.push(VmPlan { vn, number, home, explicit, quiet, defined_late });
        }
    }
    vms
}

/// Everybody sends to somebody, some to more.
fn draw_flows(rng: &mut Rng, vms: &[VmPlan]) -> Vec<FlowPlan> {
    let mut flows = Vec::new();
    for (from, vm) in vms.iter().enumerate() {
        for (to, peer) in vms.iter().enumerate() {
            if to != from && peer.vn == vm.vn && rng.chance(600) {
                let (v6, every) = (rng.chance(500), rng.ms(4, 25));
                flows.push(FlowPlan { from, to: Some(to), v6, every });
            }
        }
        if rng.chance(150) {
            flows.push(FlowPlan { from, to: None, v6: false, every: rng.ms(50, 150) });
        }
    }
    flows
}

fn draw_weather(rng: &mut Rng, class: Class) -> Weather {
    let least = rng.between(5, 100);
    let stormy = class == Class::Anything;
    Weather {
        underlay_us: (least, least + rng.pick(&[10, 200, 2000])),
        mailbox_us: rng.pick(&[20, 200, 2000]),
        event_us: rng.pick(&[20, 500]),
        session_us: rng.pick(&[100, 1000, 10_000]),
        commit_us: rng.pick(&[50, 1000, 10_000]),
        loss: if stormy { rng.between(0, 300) } else { 0 },
        repeat: if stormy { rng.between(0, 200) } else { 0 },
        message_repeat: rng.pick(&[0, 0, 100]),
    }
}

/// What moves are drawn from.
pub(super) struct Place<'a> {
    pub class: Class,
    pub vms: &'a [VmPlan],
    pub hosts: usize,
    pub run: Span,
    pub weather: &'a Weather,
}

impl Place<'_> {
    fn moves(&self, rng: &mut Rng) -> Vec<MovePlan> {
        let (vms, run) = (self.vms, self.run);
        let count = rng.between(1, 8);
        // Some schedules move one VM over and over, and some everything at once.
        let (favourite, window) = (rng.index(vms.len()), rng.pick(&[run.0 / 20, run.0 / 2, run.0 * 8 / 10]));
        let keen = rng.chance(300);
        let mut moves = Vec::new();
        for _ in 0..count {
            let vm = if keen { favourite } else { rng.index(vms.len()) };
            let at = Span(rng.below(window));
            moves.push(self.draw(rng, vm, at));
        }
        if rng.chance(150) && vms.len() >= 2 {
            moves.extend(self.swap(rng));
        }
        if self.class == Class::Frozen {
            moves.retain(|m| vms[m.vm].home != FROZEN && (m.local || m.to != FROZEN));
        }
        moves.sort_by_key(|m| m.at);
        moves
    }

    /// Two VMs change places at the same time.
    fn swap(&self, rng: &mut Rng) -> [MovePlan; 2] {
        let vms = self.vms;
        let (a, at) = (rng.index(vms.len()), Span(rng.below(self.run.0 / 2)));
        let b = (a + 1 + rng.index(vms.len() - 1)) % vms.len();
        let (mut there, mut back) = (self.draw(rng, a, at), self.draw(rng, b, at));
        (there.to, back.to) = (vms[b].home, vms[a].home);
        [there, back]
    }

    pub fn draw(&self, rng: &mut Rng, vm: usize, at: Span) -> MovePlan {
        let (class, weather) = (self.class, self.weather);
        let calm = class.is_lossless();
        // A hypervisor stops a VM's last device before it starts its first one elsewhere, and that takes
        // longer than a switch needs to hear of it. No frame of the VM is under way when it pauses.
        let least = 3000 + 3 * (weather.mailbox_us + weather.event_us);
        let most = least + rng.pick(&[1000, 1000, 50_000, 50_000, 300_000, 1_000_000]);
        let announce = match rng.below(5) {
            _ if self.vms[vm].explicit => Announce::Explicit,
            _ if self.vms[vm].quiet => Announce::Never,
            0 => Announce::Explicit,
            1 => Announce::Garp,
            2 => Announce::Na,
            3 => Announce::Rarp,
            _ => Announce::FirstFrame,
        };
        // A guest that talks before its port is activated loses what it says (R15); one that waits so
        // long does not.
        let settled = 2000 + 2 * (weather.mailbox_us + weather.event_us);
        // A switch that dies forgets the hypervisor's word, and then only the guest itself can tell.
        let silent = announce == Announce::Explicit && class != Class::Anything && rng.chance(200);
        let quiet = match calm {
            _ if silent => rng.us(settled, self.run.0 / 1000),
            true => rng.us(settled, settled + 5000),
            false => rng.us(0, 5000),
        };
        let dies = class == Class::Anything && rng.chance(80);
        let local = !dies && rng.chance(120);
        let aborts = [Abort::Ordered, Abort::Plugged, Abort::Prepared, Abort::Pausing, Abort::Paused];
        MovePlan {
            at,
            vm,
            dies,
            local,
            to: rng.index(self.hosts),
            plug_first: rng.chance(300),
            patience: if calm { Span::from_ms(5000) } else { rng.ms(0, 1500) },
            plug_after: rng.us(100, 20_000),
            pause: match calm {
                true => Pause::Asked,
                false => rng.pick(&[Pause::Asked, Pause::LinkDown, Pause::Unplugged]),
            },
            pause_lag: rng.us(10, 1000),
            blackout: rng.us(least, most),
            announce,
            quiet,
            silent,
            abort: (!local && rng.chance(250)).then(|| rng.pick(&aborts)),
            tell_old: rng.chance(500) || class != Class::Planned,
            unplug_after: rng.us(1000, 300_000),
        }
    }
}

/// Half of the schedules have switches that pull. Where the NVA may be away for long, a switch does not know who it
/// never asked for, and that loses frames rightly; so there only where losses are not counted.
fn draw_pulls(rng: &mut Rng, class: Class, hosts: usize, vns: usize) -> (Vec<BTreeSet<usize>>, Span) {
    // The shortest lives end many times in a run.
    let pos_life = Span::from_ms(rng.pick(&[200, 700, 3000, 30_000]));
    let some = rng.chance(500) && matches!(class, Class::Planned | Class::Cuts | Class::Anything);
    let draw = |_| (0..vns).filter(|_| some && rng.chance(600)).collect();
    ((0..hosts).map(draw).collect(), pos_life)
}

/// Stalls are mostly short, and some as long as they may be.
fn draw_stalls(rng: &mut Rng, vms: usize, hosts: usize, run: Span) -> Vec<(Span, Fault)> {
    let mut faults = Vec::new();
    let long = rng.chance(150);
    for _ in 0..rng.between(1, 4) {
        let at = Span(rng.below(run.0));
        let span = if long { rng.ms(1000, 60_000) } else { rng.ms(10, 4000) };
        let fault = match rng.below(6) {
            0 => Fault::StallGuest(rng.index(vms), span),
            1 => Fault::StallHost(rng.index(hosts), span),
            2 => Fault::StallNva(span),
            3 => Fault::RebootGuest(rng.index(vms), rng.ms(50, 8000)),
            4 => Fault::SecondPort(rng.index(vms), rng.ms(50, 1000)),
            _ => Fault::Redefine(rng.index(vms)),
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|f| f.0);
    faults
}

/// The switch that hears nothing in [`Class::Frozen`].
pub(super) const FROZEN: usize = 0;

fn draw_faults(rng: &mut Rng, class: Class, hosts: usize, run: Span) -> Vec<(Span, Fault)> {
    if class == Class::Planned {
        return Vec::new();
    }
    if class == Class::Frozen {
        // Longer than any run: it ends with the traffic.
        return vec![(Span(0), Fault::Partition(FROZEN, Span::from_ms(600_000)))];
    }
    if class == Class::Cuts {
        let cuts = (0..rng.between(1, 6)).map(|_| (Span(rng.below(run.0)), Fault::Cut(rng.index(hosts))));
        let mut cuts: Vec<_> = cuts.collect();
        cuts.sort_by_key(|f| f.0);
        return cuts;
    }
    let mut faults = Vec::new();
    for _ in 0..rng.between(1, 5) {
        let at = Span(rng.below(run.0));
        let down = rng.ms(10, 800);
        let kinds = if class == Class::Anything { 7 } else { 5 };
        let fault = match rng.below(kinds) {
            0 => Fault::Cut(rng.index(hosts)),
            1 => Fault::Partition(rng.index(hosts), rng.ms(50, 1500)),
            2 => Fault::Kill(down),
            3 => Fault::KillBeforeWrite(down),
            4 => Fault::KillAfterWrite(down),
            5 => Fault::Storm(rng.ms(50, 800)),
            _ => Fault::Reboot(rng.index(hosts), rng.ms(1, 500)),
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|f| f.0);
    faults
}
