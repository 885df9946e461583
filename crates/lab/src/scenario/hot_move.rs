//! A VM moves between switches under load, for every combination of inner and outer IP version.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use godwit_nva_api::v1::MoveStepKind;

use super::report::{self, MoveLine, Run};
use super::{Common, Load, finish, ip_version, talk, with_agents};
use crate::lab::nve::Binaries;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};
use crate::mover::{Moved, hot_move};
use crate::traffic::{Traffic, run};

/// The switches that the VM goes around.
const ROUND: [&str; 3] = ["a", "b", "c"];
/// The VM that moves and the one it talks to.
const PAIR: (&str, &str) = ("v", "p");
/// NVEs report what they forwarded once more after a move's end.
pub const LATE_COUNTS: Duration = Duration::from_millis(600);

/// Options of `godwit-lab hot-move`.
#[derive(Clone, Debug, Args)]
pub struct HotMove {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// How many times the VM moves in each combination
    #[arg(long, default_value_t = 5, value_name = "N")]
    moves: u32,
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
}

impl HotMove {
    /// Runs the scenario and prints its report; false where the network lost, duplicated or broke
    /// anything that it should have carried.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[])?;
        let combinations = self.combinations();
        self.introduce(combinations.len());
        let (mut runs, mut hint) = (Vec::new(), String::new());
        for (i, &(inner, outer)) in combinations.iter().enumerate() {
            println!("[{}/{}] inner IPv{inner} over outer IPv{outer}", i + 1, combinations.len());
            let stays = self.common.keep && i + 1 == combinations.len();
            runs.push(self.combination(inner, outer, &bins, stays.then_some(&mut hint))?);
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

    fn introduce(&self, combinations: usize) {
        let Load { rate, tcp_mbit, .. } = &self.load;
        println!("Godwit lab: hot move");
        println!(
            "  VM v moves {} times around the switches a, b, c and talks to VM p at c: {} probes a second\n  \
             and {tcp_mbit} Mbit/s of TCP each way, for {combinations} combination(s) of IP versions.",
            self.moves,
            report::thousands(u64::from(*rate)),
        );
        println!("  Each switch is a process with an EAL of its own; workers {}.", self.common.workers);
        if self.no_forward {
            println!("  Forwarding in flight is OFF: packets must get lost, or this test proves nothing.");
        }
        println!();
    }

    /// One combination, in a lab of its own; it stays where a hint is wanted on how to use it.
    fn combination(&self, inner: u8, outer: u8, bins: &Binaries, hint: Option<&mut String>) -> Result<Run> {
        let started = Instant::now();
        let mut options = self.common.switch_options();
        options.forward_in_flight = !self.no_forward;
        let mut lab = Lab::start(&LabSpec::new(&ROUND, outer == 6, &options), bins)?;
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
        lab.start_vm(VmSpec::numbered("p", 20), "c")?;
        lab.start_vm(VmSpec::numbered("v", 10), "a")?;
        let traffic = talk(lab, 1, self.load.spec(), inner == 6, PAIR)?;
        let hugepages = lab.nve("a")?.admin.status()?.hugepages;
        println!(
            "      lab {} ready in {:.1} s ({})",
            lab.id,
            started.elapsed().as_secs_f64(),
            if hugepages { "hugepages" } else { "no hugepages" },
        );
        with_agents(lab, PAIR, |v, p| run(p).and_then(|()| run(v)))?;
        let half = Duration::from_secs_f64(self.duration_per_move / 2.0);
        let mut moves = Vec::new();
        let mut tcp_went_on = true;
        for n in 1..=self.moves {
            std::thread::sleep(half);
            let (mut moved, tcp) = self.one_move(lab, n, &traffic)?;
            tcp_went_on &= tcp;
            std::thread::sleep(half.max(LATE_COUNTS));
            moved.refresh(&lab.nva)?;
            println!("      {}", MoveLine::new(n, &moved).text(Some(tcp)));
            if !moved.drained {
                println!("             (the old switch did not take all that v had sent before its pause)");
            }
            moves.push(moved);
        }
        let talk = finish(lab, &traffic, PAIR)?;
        std::thread::sleep(LATE_COUNTS);
        let nva = lab.nva.clone();
        moves.iter_mut().try_for_each(|m| m.refresh(&nva))?;
        lab.check_processes()?;
        let mut kernel_drops = 0;
        for vm in lab.vms.values_mut() {
            kernel_drops += vm.all_kernel_drops()?;
        }
        let mut run = Run::new(inner, outer, &moves, &talk, tcp_went_on);
        (run.lab, run.hugepages, run.kernel_drops) = (lab.id.clone(), hugepages, kernel_drops);
        run.workers = self.common.workers.clone();
        run.forward_in_flight = !self.no_forward;
        println!("      {}", run.summary());
        Ok(run)
    }

    fn one_move(&self, lab: &mut Lab, n: u32, traffic: &Traffic) -> Result<(Moved, bool)> {
        let to = ROUND[n as usize % ROUND.len()];
        let moved = hot_move(lab, PAIR.0, to, &format!("{}-move-{n}", lab.id))?;
        if !moved.done() {
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
        let total = runs.len() as u32 * self.moves;
        if faultless {
            println!(
                "\nPASSED: {total} hot moves, nothing lost, nothing duplicated, every TCP connection alive."
            );
        } else {
            println!("\nFAILED: see the lines above; each failed run says where its logs are.");
        }
        faultless
    }
}

/// The steps that a move's line shows, with their names there.
pub const SHOWN_STEPS: [(MoveStepKind, &str); 3] = [
    (MoveStepKind::Activated, "activated"),
    (MoveStepKind::Granted, "granted"),
    (MoveStepKind::Done, "done"),
];
