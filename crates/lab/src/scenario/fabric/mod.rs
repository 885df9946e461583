//! The underlay as data centers have it (R95): a bond with LACP and a tagged uplink that loses a leg; two uplinks with
//! BGP, of which one is lost. Behind them is another's NVE, Linux's vxlan device.

mod bond;
mod partner;
mod routed;
mod routers;

use anyhow::{Context, Result};
use clap::Args;

use super::Common;
use super::report;

/// Options of `godwit-lab fabric`.
#[derive(Clone, Debug, Args)]
pub struct Fabric {
    #[command(flatten)]
    common: Common,
    /// Only this part
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Probe packets a second, each way
    #[arg(long, default_value_t = 5000, value_name = "PPS",
        value_parser = clap::value_parser!(u32).range(100..=100_000))]
    rate: u32,
    /// Seconds of traffic before, during and after the loss, each
    #[arg(long, default_value_t = 4.0, value_name = "S")]
    duration: f64,
    /// Seconds that a busy machine may take to find an uplink lost, beside what the switch and BGP take
    #[arg(long, default_value_t = 0.9, value_name = "S", value_parser = seconds)]
    slack: f64,
}

fn seconds(text: &str) -> Result<f64> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.0..=60.0).contains(s));
    seconds.context("seconds are a number from 0 to 60")
}

/// The parts, each in a lab of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Two uplinks with BGP lose one, in three ways
    Routed,
    /// A bond with LACP in a VLAN, with Open vSwitch as its partner, loses a leg
    Bond,
}

impl Fabric {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let mut results = Vec::new();
        let mut passed = true;
        for part in [Part::Bond, Part::Routed] {
            if self.part.is_some_and(|only| only != part) {
                continue;
            }
            let (good, result) = match part {
                Part::Routed => self.routed()?,
                Part::Bond => self.bond()?,
            };
            passed &= good;
            results.push(result);
        }
        report::write_json_value(
            self.common.json.as_deref(),
            &serde_json::json!({ "scenario": "fabric", "parts": results, "passed": passed }),
        )?;
        println!("\n{}", if passed { "PASSED" } else { "FAILED" });
        Ok(passed)
    }
}
