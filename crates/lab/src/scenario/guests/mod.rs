//! Hundreds of guests on the vhost-user ports of one switch, some of whom talk, to each other and over VXLAN to guests
//! of a second switch. Most of the others leave and come again meanwhile, ports and all. Afterwards everybody answers,
//! no frame was lost, and the switch holds as much memory and as many files as before.
//!
//! The guests are raw front ends (`godwit-frontend`) in this process; one thread drives them all.

mod driver;
mod resources;
mod roster;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use godwit_frontend::Settings;
use serde::Serialize;

use self::driver::{Driver, Talked};
use self::resources::Resources;
use self::roster::{ASKER, REMOTE, Roster};
use super::Common;
use super::report::{self, thousands};
use crate::lab::nve::SwitchOptions;
use crate::lab::{Lab, LabSpec};

/// The switch of the many guests, and the other one.
const HOME: &str = "a";
const AWAY: &str = "b";
/// How long it may take until the directory has all guests and their ports are active, and until all have answered.
const PATIENCE: Duration = Duration::from_secs(60);
/// Frames of talkers that are under way reach their receivers within this time.
const LAST: Duration = Duration::from_millis(500);
/// Memory that a switch may keep after ports came and went, in KiB: its allocator's share of the peak.
const SLACK_KB: u64 = 8192;

/// Options of `godwit-lab guests`.
#[derive(Clone, Debug, Args)]
pub struct ManyGuests {
    #[command(flatten)]
    common: Common,
    /// Guests of one switch, each on a vhost-user port of its own
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=1000))]
    guests: u32,
    /// Guests that leave and come again in a round, with their ports; of those that do not talk
    #[arg(long, default_value_t = 300, value_name = "N")]
    churn: u32,
    /// Rounds of that
    #[arg(long, default_value_t = 2, value_name = "N")]
    rounds: u32,
    /// Pairs of guests that talk
    #[arg(long, default_value_t = 20, value_name = "N")]
    pairs: u32,
    /// Frames a second that all of them send together
    #[arg(long, default_value_t = 4000, value_name = "FPS", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: u32,
    /// Guests have packed rings
    #[arg(long)]
    packed: bool,
    /// Memory of each switch for packets, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory_mb: u32,
}

/// One state of the switch.
#[derive(Debug, Serialize)]
struct Step {
    what: String,
    seconds: f64,
    resources: Resources,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Outcome {
    guests: u32,
    churn: u32,
    /// Seconds from the first port until all guests were connected, and until all were known and active.
    connected_s: f64,
    active_s: f64,
    steps: Vec<Step>,
    /// Guests that did not answer, after the start and after each round.
    silent: Vec<Vec<u32>>,
    talked: Talked,
    /// Frames that the switches dropped, by reason.
    drops: Vec<String>,
    grew_kb: i64,
    passed: bool,
}

impl ManyGuests {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let idle = self.guests.saturating_sub(ASKER + 1 + 2 * self.pairs + REMOTE);
        ensure!(
            self.churn <= idle,
            "{} guests of {} do not talk: no more than those can leave and come again (--churn, --pairs)",
            idle,
            self.guests
        );
        let bins = self.common.prepare(&[])?;
        println!("Godwit lab: guests");
        println!(
            "  {} guests at switch a and {REMOTE} at b; {} pairs and {REMOTE} over VXLAN send {} frames a second; {} \
             times\n  {} others leave and come again, ports and all.\n",
            self.guests,
            self.pairs,
            thousands(self.rate.into()),
            self.rounds,
            self.churn
        );
        let options = SwitchOptions { memory_mb: self.memory_mb, ..self.common.switch_options() };
        let mut lab = Lab::start(&LabSpec::new(&[HOME, AWAY], false, &options), &bins)?;
        let result = self.in_lab(&mut lab);
        let outcome = report::end_or_keep(self.common.keep, &mut lab, result, |r| r.passed)?;
        print_result(&outcome);
        report::write_json_value(self.common.json.as_deref(), &serde_json::to_value(&outcome)?)?;
        Ok(outcome.passed)
    }

    /// What a guest is like: who hardly ever sends has small rings.
    fn settings(&self, roster: &Roster, n: u32) -> Settings {
        let idle = roster.last(self.guests - 2 * self.pairs - REMOTE - ASKER - 1).contains(&n);
        let settings = if idle { Settings::small() } else { Settings::default() };
        if self.packed { settings.packed() } else { settings }
    }

    fn in_lab(&self, lab: &mut Lab) -> Result<Outcome> {
        let roster = Roster::new(self.guests);
        let driver = Driver::start(&roster)?;
        let start = Instant::now();
        for n in roster.all() {
            lab.define_vm(&roster.spec(n), "")?;
        }
        self.arrive(lab, &driver, roster, roster.all())?;
        let connected_s = start.elapsed().as_secs_f64();
        roster.wait_active(lab, &driver, PATIENCE)?;
        let active_s = start.elapsed().as_secs_f64();
        let mut silent = vec![driver.sweep(PATIENCE)?];
        let mut steps = vec![self.step(lab, format!("{} guests", self.guests), active_s)?];

        driver.talk(roster.flows(self.pairs), self.rate)?;
        std::thread::sleep(LAST);
        for round in 1..=self.rounds {
            let start = Instant::now();
            let leaving = roster.last(self.churn);
            for n in leaving.clone() {
                // Half of the guests end before their port goes, half are cut off.
                if n % 2 == 0 {
                    driver.remove(n)?;
                }
                roster.unplug(lab, n)?;
                driver.remove(n)?;
            }
            let seconds = start.elapsed().as_secs_f64();
            steps.push(self.step(lab, format!("round {round}: {} left", self.churn), seconds)?);
            let start = Instant::now();
            self.arrive(lab, &driver, roster, leaving)?;
            roster.wait_active(lab, &driver, PATIENCE)?;
            let seconds = start.elapsed().as_secs_f64();
            silent.push(driver.sweep(PATIENCE)?);
            steps.push(self.step(lab, format!("round {round}: {} came again", self.churn), seconds)?);
        }
        std::thread::sleep(LAST);
        let talked = driver.stop(LAST)?;
        lab.check_processes()?;

        let (before, after) = (&steps[0].resources, &steps[steps.len() - 1].resources);
        let grew_kb = after.anonymous_kb as i64 - before.anonymous_kb as i64;
        let kept = grew_kb <= SLACK_KB as i64
            && after.files == before.files
            && after.hugepages_kb == before.hugepages_kb;
        let passed = kept && silent.iter().all(Vec::is_empty) && talked.is_whole();
        let drops = drops(lab)?;
        let (guests, churn) = (self.guests, self.churn);
        Ok(Outcome { guests, churn, connected_s, active_s, steps, silent, talked, drops, grew_kb, passed })
    }

    /// Adds guests' ports, and has all guests connect: DPDK's library takes a second to notice a new socket.
    fn arrive(&self, lab: &Lab, driver: &Driver, roster: Roster, who: Range<u32>) -> Result<()> {
        who.clone().try_for_each(|n| roster.plug(lab, n))?;
        for n in who {
            driver.add(n, roster.connect(lab, n, &self.settings(&roster, n))?)?;
        }
        Ok(())
    }

    fn step(&self, lab: &Lab, what: String, seconds: f64) -> Result<Step> {
        Ok(Step { what, seconds, resources: Resources::of(lab.nve(HOME)?)? })
    }
}

/// What the switches' workers and devices dropped of the guests' frames.
fn drops(lab: &Lab) -> Result<Vec<String>> {
    let mut drops: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    for nve in lab.nves.values() {
        for c in nve.admin.counters()?.into_iter().filter(|c| c.drop && c.value > 0) {
            *drops.entry(format!("{} {}", nve.name, c.name)).or_default() += c.value;
        }
    }
    Ok(drops.into_iter().map(|(what, count)| format!("{what}: {count}")).collect())
}

fn print_result(r: &Outcome) {
    println!("  all connected after {:.1} s, all active after {:.1} s", r.connected_s, r.active_s);
    for step in &r.steps {
        let Resources { anonymous_kb, shared_kb, hugepages_kb, files, threads } = step.resources;
        println!(
            "  {:<28} {:>6.1} s  memory {:>7} KiB, hugepages {:>7} KiB, guests' {:>7} KiB, {files} files, {threads} \
             threads",
            step.what,
            step.seconds,
            thousands(anonymous_kb),
            thousands(hugepages_kb),
            thousands(shared_kb)
        );
    }
    for (n, silent) in r.silent.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
        println!("  after {n} rounds {} guests did not answer: {silent:?}", silent.len());
    }
    let t = &r.talked;
    println!(
        "  talkers: {} frames sent, {} lost, {} doubled, {} overtaken, {} refused by full rings; longest silence \
         {:.1} ms",
        thousands(t.sent),
        t.lost,
        t.doubled,
        t.overtaken,
        t.refused,
        t.silence_ms
    );
    println!("  drops: {:?}; memory grew by {} KiB", r.drops, r.grew_kb);
    let good = "PASSED: all answer, nothing lost, memory, files and hugepages are as before.";
    println!("\n{}", if r.passed { good } else { "FAILED" });
}
