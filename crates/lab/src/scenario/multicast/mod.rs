//! Multicast only where it is wanted (R61): a stream to a group follows its receiver over hot moves, and Linux's
//! bridge, a querier that nobody here wrote, agrees with the switch on who is a member.

mod moves;
mod querier;
mod stream;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Common, ip_version, report};
use crate::lab::nve::Binaries;
use crate::lab::{Lab, LabSpec, VN};

/// Switches of the lab: v moves between the first two, p sends at the third, the last one has no member.
const NVES: [&str; 4] = ["a", "b", "c", "d"];

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A receiver moves hot, leaves and joins again.
    Moves,
    /// Linux's bridge snoops, and asks.
    Queriers,
}

/// Options of `godwit-lab multicast`.
#[derive(Clone, Debug, Args)]
pub struct Multicast {
    #[command(flatten)]
    common: Common,
    /// Only this part
    #[arg(long, value_enum, value_name = "PART")]
    part: Option<Part>,
    /// Moves of v over each outer IP version
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    moves: u32,
    /// Packets a second to each of the two groups
    #[arg(long, default_value_t = 2000, value_name = "PPS", value_parser = clap::value_parser!(u32).range(100..))]
    rate: u32,
    /// Only this outer IP version
    #[arg(long, value_name = "4|6", value_parser = ip_version)]
    outer: Option<u8>,
}

/// What the options say of a run.
#[derive(Clone, Copy, Debug)]
struct Plan {
    moves: u32,
    rate: u32,
    outer: u8,
}

impl Multicast {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&["tcpdump", "bridge"])?;
        println!("Godwit lab: multicast");
        let wants = |part| self.part.is_none_or(|one| one == part);
        let outers = self.outer.map_or(vec![4, 6], |o| vec![o]);
        let (mut runs, mut queriers) = (Vec::new(), None);
        if wants(Part::Moves) {
            for outer in &outers {
                let plan = Plan { moves: self.moves, rate: self.rate, outer: *outer };
                let last = !wants(Part::Queriers) && Some(outer) == outers.last();
                let carry_out = |lab: &mut Lab| snooping(lab).and_then(|()| moves::run(lab, plan));
                runs.push(self.in_lab(&bins, *outer, last, carry_out, moves::Run::is_right)?);
            }
        }
        if wants(Part::Queriers) {
            let outer = outers[0];
            let carry_out = |lab: &mut Lab| querier::run(lab, outer);
            queriers = Some(self.in_lab(&bins, outer, true, carry_out, querier::Outcome::is_right)?);
        }
        let passed =
            runs.iter().all(moves::Run::is_right) && queriers.as_ref().is_none_or(querier::Outcome::is_right);
        report::write_json_value(
            self.common.json.as_deref(),
            &serde_json::json!({
                "scenario": "multicast", "runs": runs, "queriers": queriers, "passed": passed
            }),
        )?;
        println!(
            "\n{}",
            if passed { "PASSED: multicast went where it was wanted, and nowhere else." } else { "FAILED" }
        );
        Ok(passed)
    }

    /// Builds a lab, carries a part out, and takes it down; the last one may stay.
    fn in_lab<T>(
        &self,
        bins: &Binaries,
        outer: u8,
        last: bool,
        carry_out: impl FnOnce(&mut Lab) -> Result<T>,
        good: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        let spec = LabSpec::new(&NVES, outer == 6, &self.common.switch_options());
        let mut lab = Lab::start(&spec, bins)?;
        let result = carry_out(&mut lab);
        report::end_or_keep(self.common.keep && last, &mut lab, result, good)
            .with_context(|| format!("outer IPv{outer}"))
    }
}

/// The lab's VN copies multicast to members only.
fn snooping(lab: &Lab) -> Result<()> {
    lab.ctl(&["vn", "set", VN, "--multicast", "snoop"]).map(drop)
}

/// Prints a line of the report and returns whether it is good.
#[must_use]
fn verdict(good: bool, text: &str) -> bool {
    println!("    {} {text}", if good { "ok  " } else { "FAIL" });
    good
}

/// Milliseconds for people and reports.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Serialize)]
#[serde(transparent)]
struct Ms(f64);

impl Ms {
    /// From one time in microseconds to another; negative where that was before.
    fn between(from_us: u64, to_us: u64) -> Ms {
        Ms((to_us as f64 - from_us as f64) / 1000.0)
    }
}
