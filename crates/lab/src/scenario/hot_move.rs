//! A VM moves between switches under load, for every combination of inner and outer IP version.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::clocks::GuestClock;
use super::interop::only;
use super::nva_kill::{Blow, strike};
use super::report::{self, MoveLine, Run};
use super::routed::{self, GATEWAY_MAC, Plan, Routed, World};
use super::{Common, Guests, Load, finish, ip_version, talk, with_agents};
use crate::agent::proto::Gap;
use crate::capture::Capture;
use crate::clock::ms;
use crate::gap::FrameGap;
use crate::guest::processor::Processor;
use crate::guest::qemu::{GuestSpec, QEMU};
use crate::guest::standard_image;
use crate::lab::delay::{Delay, duration};
use crate::lab::nve::{Binaries, Locator};
use crate::lab::topology::GUEST;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec, VNI};
use crate::mover::{How, Moved, hot_move};
use crate::random::Dice;
use crate::traffic::{Talk, Traffic, run};
use crate::watch::Watch;

/// The switches that the VM goes around.
const ROUND: [&str; 3] = ["a", "b", "c"];
/// The VM that moves and the one it talks to.
const PAIR: (&str, &str) = ("v", "p");
/// The number of the VM that moves.
const V: u8 = 10;
/// NVEs report what they forwarded once more after a move's end.
pub const LATE_COUNTS: Duration = Duration::from_millis(600);

/// The counter of frames that go on to where their VM is now.
const FORWARDED: &str = "forwarded_in_flight";
/// After a move's end senders know where the VM is.
const SETTLED: Duration = Duration::from_secs(1);
/// For so long the switches are then watched.
const LATE: Duration = Duration::from_millis(300);

/// Options of `godwit-lab hot-move`.
#[derive(Clone, Debug, Args)]
pub struct HotMove {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// What the VM that moves is made of
    #[arg(long, value_enum, default_value = "netns", value_name = "KIND")]
    guests: Guests,
    /// How many times the VM moves in each combination [default: 5; with QEMU's guests 10]
    #[arg(long, value_name = "N")]
    moves: Option<u32>,
    /// Only this inner IP version
    #[arg(long, value_name = "4|6", value_parser = ip_version)]
    inner: Option<u8>,
    /// Only this outer IP version
    #[arg(long, value_name = "4|6", value_parser = ip_version)]
    outer: Option<u8>,
    /// Seconds of traffic around each move
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    duration_per_move: f64,
    /// Switch forwarding in flight off: shows that this test can fail
    #[arg(long)]
    no_forward: bool,
    /// Switch end markers off: packets may be reordered
    #[arg(long)]
    no_markers: bool,
    /// The VM stands still for so long at its new host before it runs there
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = duration)]
    pause_destination: Duration,
    /// v runs at its new host while most of its memory is still at the old one: each switch has a worker of its own for
    /// such ports
    #[arg(long, conflicts_with_all = ["pause_destination", "abort_one"])]
    postcopy: bool,
    /// Switches pull records when they need them, instead of having them pushed
    #[arg(long)]
    pull: bool,
    /// One move is given up when the VM has stopped, and ordered again
    #[arg(long)]
    abort_one: bool,
    /// The NVA is killed at some point of each move, and started again
    #[arg(long)]
    kill_nva: bool,
    /// Every message between switches and NVA takes so long: 10ms±5ms
    #[arg(long, value_name = "TIME")]
    nva_delay: Option<Delay>,
    /// Capture the first switch's wire and let tshark look at every frame that it forwards in flight
    #[arg(long)]
    capture: bool,
    /// Seed of the points at which the NVA is killed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// v and p are in subnets of their own
    #[arg(skip)]
    routed: Option<Plan>,
}

impl HotMove {
    /// The plain scenario with a guest of QEMU.
    pub(super) fn of_a_guest(common: Common, load: Load, moves: u32, duration_per_move: f64) -> HotMove {
        HotMove {
            common,
            load,
            guests: Guests::Qemu,
            moves: Some(moves),
            inner: None,
            outer: None,
            duration_per_move,
            no_forward: false,
            no_markers: false,
            pause_destination: Duration::ZERO,
            postcopy: false,
            pull: false,
            abort_one: false,
            kill_nva: false,
            nva_delay: None,
            capture: false,
            seed: 1,
            routed: None,
        }
    }

    /// The same moves in a routing domain, of what `how` has.
    pub(super) fn of_a_domain(how: &Routed) -> HotMove {
        let plain = HotMove::of_a_guest(how.common.clone(), how.load.clone(), 0, how.duration_per_move);
        let Routed { guests, moves, inner, outer, pull, .. } = *how;
        HotMove { guests, moves, inner, outer, pull, routed: Some(how.plan()), ..plain }
    }

    /// Runs the scenario and prints its report; false where the network lost, duplicated or broke
    /// anything that it should have carried.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let mut tools = if self.guests == Guests::Qemu { vec![QEMU, "busybox"] } else { Vec::new() };
        if self.capture {
            tools.extend(["tcpdump", "tshark"]);
        }
        ensure!(
            !self.postcopy || self.guests == Guests::Qemu,
            "--postcopy needs --guests qemu: a namespace has no memory"
        );
        let bins = self.common.prepare(&tools)?;
        self.introduce();
        self.rounds(&bins)
    }

    /// All combinations, one after the other, and what came of them.
    pub(super) fn rounds(&self, bins: &Binaries) -> Result<bool> {
        let combinations = self.combinations();
        let (mut runs, mut hint) = (Vec::new(), String::new());
        for (i, &(inner, outer)) in combinations.iter().enumerate() {
            println!("[{}/{}] inner IPv{inner} over outer IPv{outer}", i + 1, combinations.len());
            let stays = self.common.keep && i + 1 == combinations.len();
            runs.push(self.combination(inner, outer, bins, stays.then_some(&mut hint))?);
            // Written each time, so that an interrupted evening still leaves what was measured.
            report::write_json(self.common.json.as_deref(), &runs)?;
        }
        print!("\n{}", report::table(&runs));
        if let Some(path) = &self.common.json {
            println!("\nThe same as JSON: {}", path.display());
        }
        let passed = self.verdict(&runs);
        print!("{hint}");
        Ok(passed)
    }

    fn combinations(&self) -> Vec<(u8, u8)> {
        let of = |only: Option<u8>| only.map_or(vec![4, 6], |v| vec![v]);
        of(self.outer).iter().flat_map(|&o| of(self.inner).into_iter().map(move |i| (i, o))).collect()
    }

    pub(super) fn moves(&self) -> u32 {
        self.moves.unwrap_or(if self.guests == Guests::Qemu { 10 } else { 5 })
    }

    fn introduce(&self) {
        let (combinations, load) = (self.combinations().len(), self.load.spec(self.guests));
        println!("Godwit lab: hot move");
        println!(
            "  VM v moves {} times around the switches a, b, c and talks to VM p at c: {} probes a second\n  \
             and {} Mbit/s of TCP each way, for {combinations} combination(s) of IP versions.",
            self.moves(),
            report::thousands(u64::from(load.rate)),
            load.tcp_rate_bit / 1_000_000,
        );
        println!("  Each switch is a process with an EAL of its own; workers {}.", self.common.workers);
        if self.guests == Guests::Qemu {
            println!("  v is Linux under QEMU, emulated, on vhost-user ports; QEMU migrates it live.");
        }
        if self.pause_destination > Duration::ZERO {
            println!("  At each new host v stands still for {:?} before it runs.", self.pause_destination);
        }
        if self.pull {
            println!("  The switches pull the VN's records when they need them.");
        }
        if self.postcopy {
            println!("  Migrations end as post-copy: v runs at its new host before its memory is there.");
        }
        if self.abort_one {
            println!("  One move is given up when v has stopped; v goes on where it was, and moves again.");
        }
        if self.kill_nva {
            println!("  The NVA is killed during each move and started again (seed {}).", self.seed);
        }
        if let Some(Delay { mean, spread }) = self.nva_delay {
            println!("  Between switches and NVA each message takes {mean:?} ± {spread:?}.");
        }
        if self.no_forward {
            println!("  Forwarding in flight is OFF: packets must get lost, or this test proves nothing.");
        }
        println!();
    }

    /// One combination, in a lab of its own; it stays where a hint is wanted on how to use it.
    pub(super) fn combination(
        &self,
        inner: u8,
        outer: u8,
        bins: &Binaries,
        hint: Option<&mut String>,
    ) -> Result<Run> {
        let started = Instant::now();
        let mut options = self.common.switch_options();
        options.forward_in_flight = !self.no_forward;
        options.markers = !self.no_markers;
        if self.pull {
            options.pull = if self.routed.is_some() { routed::vnis() } else { vec![VNI] };
        }
        if self.postcopy {
            options.keep_for_postcopy()?;
        }
        let mut spec = LabSpec::new(&ROUND, outer == 6, &options);
        spec.nva_delay = self.nva_delay;
        let mut lab = Lab::start(&spec, bins)?;
        let result = self.in_lab(&mut lab, inner, outer, started);
        match &result {
            Ok(run) if run.is_faultless() || self.no_forward => {}
            Ok(run) => {
                lab.keep_logs();
                println!("{}", report::complaint(&mut lab, run));
            }
            Err(_) => {
                lab.keep_logs();
                println!("{}", report::diagnosis(&mut lab));
            }
        }
        if let Some(hint) = hint {
            lab.keep()?;
            *hint = report::playground(&lab);
        }
        result
            .with_context(|| format!("inner IPv{inner} over outer IPv{outer}; logs in {}", lab.dir.display()))
    }

    fn in_lab(&self, lab: &mut Lab, inner: u8, outer: u8, started: Instant) -> Result<Run> {
        let mut world = self.routed.map(|plan| World::build(lab, plan)).transpose()?;
        if world.is_none() {
            lab.start_vm(VmSpec::numbered("p", 20), "c")?;
            self.start_v(lab)?;
        }
        let traffic = talk(lab, 1, self.load.spec(self.guests), inner == 6, PAIR)?;
        let hugepages = lab.nve("a")?.admin.status()?.hugepages;
        println!(
            "      lab {} ready in {:.1} s ({})",
            lab.id,
            started.elapsed().as_secs_f64(),
            if hugepages { "hugepages" } else { "no hugepages" },
        );
        with_agents(lab, PAIR, |v, p| run(p).and_then(|()| run(v)))?;
        // What is routed comes from the gateway.
        let seen_as = if self.routed.is_some() { GATEWAY_MAC } else { VmSpec::numbered(PAIR.0, V).mac };
        let watch = Watch::start(&lab.namespace(PAIR.1), GUEST, seen_as)?;
        let wire = format!("u-{}", ROUND[0]);
        let capture = self.capture.then(|| Capture::start(&lab.namespace("net"), &wire, &lab.dir));
        let capture = capture.transpose()?;
        let (mut moves, clock, tcp_went_on) = self.go_round(lab, &traffic, &watch, world.as_mut())?;
        let (forwarded_by_switches, forwarded_late) = forwarded_late(lab)?;
        let mut talk = finish(lab, &traffic, PAIR)?;
        let routed = world.map(|world| world.end(lab)).transpose()?;
        let first = only(Locator::numbered(1, outer == 4, outer == 6));
        let of_p = lab.address_of(PAIR.1, inner == 6)?.ip();
        let relayed = capture.map(|c| c.relayed(first, of_p)).transpose()?;
        if let Some(clock) = clock {
            by_the_machines_clock(&mut talk, &clock);
        }
        std::thread::sleep(LATE_COUNTS);
        let nva = lab.nva.clone();
        for m in &mut moves {
            m.refresh(&nva)?;
            m.shown = lab.ctl(&["move", "show", &m.id])?;
        }
        lab.check_processes()?;
        let mut kernel_drops = 0;
        for vm in lab.vms.values_mut() {
            kernel_drops += vm.all_kernel_drops()?;
        }
        let mut run = Run::new(inner, outer, &moves, &talk, tcp_went_on);
        (run.lab, run.hugepages, run.kernel_drops) = (lab.id.clone(), hugepages, kernel_drops);
        run.workers = self.common.workers.clone();
        run.forward_in_flight = !self.no_forward;
        // Without an NVA that answers at once no wait is long enough.
        let at_once = !self.kill_nva && self.nva_delay.is_none();
        let patient = self.common.long_holds && waits_run_out(lab)? > 0;
        run.ordered = at_once && !self.no_markers && !self.no_forward && !patient;
        (run.forwarded_by_switches, run.forwarded_late) = (forwarded_by_switches, forwarded_late);
        println!("      {}", run.summary());
        if let Some(r) = &relayed {
            println!(
                "      tshark: {} frames forwarded in flight by {}, {} malformed, {} bad checksums and {} good ones, \
                 {} of another VN",
                report::thousands(r.frames),
                ROUND[0],
                r.malformed,
                r.bad,
                report::thousands(r.good),
                r.other_vn
            );
        }
        (run.relayed, run.routed) = (relayed, routed);
        Ok(run)
    }

    fn start_v(&self, lab: &mut Lab) -> Result<()> {
        let v = VmSpec::numbered(PAIR.0, V);
        match self.guests {
            Guests::Netns => lab.start_vm(v, "a"),
            Guests::Qemu => {
                let (kernel, image) = standard_image(&lab.bins.lab.clone(), &lab.dir)?;
                lab.start_guest(&v, GuestSpec::new("v", &kernel, &image), "a", 1).map(drop)
            }
        }
    }

    /// All the moves; beside them v's clock, where that is not the machine's, and whether TCP was seen to go on
    /// after each of them.
    fn go_round(
        &self,
        lab: &mut Lab,
        traffic: &Traffic,
        watch: &Watch,
        mut world: Option<&mut World>,
    ) -> Result<(Vec<Moved>, Option<GuestClock>, bool)> {
        let half = Duration::from_secs_f64(self.duration_per_move / 2.0);
        let qemu = self.guests == Guests::Qemu;
        let mut clock = if qemu { Some(GuestClock::new(ahead(lab)?)) } else { None };
        let (mut moves, mut dice) = (Vec::new(), Dice::new(self.seed));
        let mut tcp_went_on = true;
        // The one in the middle is given up and repeated; with the NVA killed, others may be called off.
        let (mut abort, mut tries) = (self.abort_one, 0);
        while moves.iter().filter(|m: &&Moved| m.done()).count() < self.moves() as usize {
            tries += 1;
            if tries > 2 * self.moves() + 2 {
                bail!("{tries} moves were ordered, and too many of them called off");
            }
            std::thread::sleep(half);
            let gives_up = abort && 2 * moves.len() >= self.moves() as usize;
            abort &= !gives_up;
            world.as_mut().map_or(Ok(()), |w| w.before_move(lab))?;
            let (mut moved, tcp) = self.one_move(lab, tries, traffic, gives_up, &mut dice)?;
            tcp_went_on &= tcp;
            if let (Some(clock), Some(paused)) = (&mut clock, moved.paused) {
                clock.stood_still(paused.from_ns, ahead(lab)?);
            }
            std::thread::sleep(half.max(LATE_COUNTS));
            world.as_mut().map_or(Ok(()), |w| w.after_move(lab))?;
            moved.refresh(&lab.nva)?;
            moved.gap = silence(lab, &moved)?;
            // A namespace has no processor of its own.
            let processor = lab.guests.get(PAIR.0).and_then(|v| v.processor.as_ref());
            moved.work = processor.and_then(|p| moved.work_in_gap(p));
            moved.frames = frames(processor, watch, &moved);
            println!("      {}", MoveLine::new(tries, &moved).text(Some(tcp)));
            if !moved.done() {
                println!("             (called off: v is where it was)");
            }
            if !moved.drained {
                println!("             (the old switch did not take all that v had sent before its pause)");
            }
            moves.push(moved);
        }
        Ok((moves, clock, tcp_went_on))
    }

    fn one_move(
        &self,
        lab: &mut Lab,
        n: u32,
        traffic: &Traffic,
        gives_up: bool,
        dice: &mut Dice,
    ) -> Result<(Moved, bool)> {
        let here = lab.place_of(PAIR.0)?;
        let at = ROUND.iter().position(|r| *r == here).context("v is at none of the switches")?;
        let to = ROUND[(at + 1) % ROUND.len()];
        let blow = self.kill_nva.then(|| Blow::roll(dice, self.guests));
        let killer = blow.map(|blow| {
            let nva = lab.nva.clone();
            std::thread::spawn(move || strike(&nva, blow))
        });
        let how = How {
            pause_destination: self.pause_destination,
            abort: gives_up,
            postcopy: self.postcopy,
            ..How::default()
        };
        let moved = hot_move(lab, PAIR.0, to, &format!("{}-move-{n}", lab.id), how);
        if let Some(killer) = killer {
            killer.join().map_err(|_| anyhow::anyhow!("the killer panicked"))??;
        }
        let moved = moved.with_context(|| format!("move {n}, NVA: {blow:?}"))?;
        if !moved.done() && !gives_up && !self.kill_nva {
            bail!("move {n} was called off: {}", crate::mover::timeline(&moved.record));
        }
        let tcp = with_agents(lab, PAIR, |v, p| traffic.tcp_progresses(v, p))?;
        Ok((moved, tcp))
    }

    fn verdict(&self, runs: &[Run]) -> bool {
        let faultless = runs.iter().all(Run::is_faultless);
        let lost: u64 = runs.iter().map(|r| r.lost).sum();
        if self.no_forward {
            let shown = lost > 0;
            let verb =
                if shown { "as it must be" } else { "so this test cannot fail: something is wrong with it" };
            println!("\nWithout forwarding in flight {} packets were lost, {verb}.", report::thousands(lost));
            return shown;
        }
        if let Some(beyond) = report::beyond_downtime(runs) {
            println!("\n{beyond}");
        }
        let total = runs.len() as u32 * self.moves();
        println!("\n{}", report::verdict(runs, total));
        faultless
    }
}

/// What all switches have forwarded in flight a second after the last move, and what they do in a while from then on,
/// under traffic: nothing, since whoever sends to v has heard by then where it is (R48).
fn forwarded_late(lab: &Lab) -> Result<(u64, u64)> {
    let forwarded = || -> Result<u64> {
        let all = lab.nves.values().map(|nve| nve.admin.counters());
        let all = all.collect::<Result<Vec<_>>>()?;
        Ok(all.iter().flatten().filter(|c| c.name == FORWARDED).map(|c| c.value).sum())
    };
    std::thread::sleep(SETTLED);
    let before = forwarded()?;
    std::thread::sleep(LATE);
    Ok((before, forwarded()? - before))
}

/// By how many nanoseconds v's clock is ahead of the machine's.
fn ahead(lab: &mut Lab) -> Result<i64> {
    Ok(lab.guest(PAIR.0)?.agent.clock_offset()?.0)
}

/// The silence at p around the move: the longest that v's pause was a part of.
fn silence(lab: &mut Lab, moved: &Moved) -> Result<Option<Gap>> {
    let Some(pause) = moved.paused else { return Ok(None) };
    let gaps = lab.vm(PAIR.1)?.agent.probe_report(1, 0)?.gaps;
    // What p had received by then may be a little older or newer than the pause itself.
    let around = |g: &&Gap| g.to_ns + 1_000_000 > pause.from_ns && g.from_ns < pause.to_ns + 1_000_000;
    Ok(gaps.iter().filter(around).max_by_key(|g| g.to_ns - g.from_ns).copied())
}

/// The silence of all of v's frames at p around the move.
fn frames(processor: Option<&Processor>, watch: &Watch, moved: &Moved) -> Option<FrameGap> {
    let (stopped, at_us) = (moved.paused?, moved.paused_wall_us);
    let quiet = watch.around(at_us, at_us + stopped.length_ns() / 1000)?;
    FrameGap::new(&moved.record, (stopped, at_us), quiet, processor)
}

/// Turns what v's own clock says into the machine's time. How long a packet was under way cannot be told from
/// two clocks that are some milliseconds apart: it is not told.
fn by_the_machines_clock(talk: &mut Talk, clock: &GuestClock) {
    for m in &mut talk.a_to_b.missing {
        m.sent_ns = clock.machine(m.sent_ns);
    }
    for g in &mut talk.b_to_a.gaps {
        *g = clock.gap(*g);
    }
    talk.b_to_a.gap_ms_max = talk.b_to_a.gaps.iter().map(|g| ms(g.to_ns - g.from_ns)).fold(0.0, f64::max);
    for s in [&mut talk.a_to_b, &mut talk.b_to_a] {
        (s.delay_us_p50, s.delay_us_p99, s.delay_us_max) = (None, None, None);
    }
}

/// Waits for end markers that ran out, at all switches (R77).
fn waits_run_out(lab: &Lab) -> Result<u64> {
    let mut late = 0;
    for nve in lab.nves.values() {
        let counters = nve.admin.counters()?;
        late += counters.iter().filter(|c| c.name == "markers_late").map(|c| c.value).sum::<u64>();
    }
    Ok(late)
}
