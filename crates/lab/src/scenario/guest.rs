//! A real guest: Linux under QEMU on a vhost-user port of one switch talks, through VXLAN, to a VM at
//! another switch, and is migrated there while it does.

use anyhow::{Context, Result};
use clap::Args;

use super::Common;
use crate::guest::qemu::GuestSpec;
use crate::guest::standard_image;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};
use crate::mover::{How, hot_move};

/// Echo requests each way and family.
const PINGS: u32 = 20;

/// Options of `godwit-lab guest`.
#[derive(Clone, Debug, Args)]
pub struct GuestTalk {
    #[command(flatten)]
    common: Common,
}

impl GuestTalk {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[crate::guest::qemu::QEMU, "busybox"])?;
        println!(
            "Godwit lab: a real guest\n  g, Linux under QEMU on a vhost-user port of switch a, and p at switch b\n"
        );
        let mut lab = Lab::start(&LabSpec::new(&["a", "b"], false, &self.common.switch_options()), &bins)?;
        let result = in_lab(&mut lab);
        if !matches!(result, Ok(true)) {
            lab.keep_logs();
            println!("{}", super::report::diagnosis(&mut lab));
        }
        let passed = result.with_context(|| format!("logs in {}", lab.dir.display()))?;
        println!("\n{}", if passed { "PASSED: every echo came back." } else { "FAILED" });
        Ok(passed)
    }
}

fn in_lab(lab: &mut Lab) -> Result<bool> {
    let (g, p) = (VmSpec::numbered("g", 10), VmSpec::numbered("p", 20));
    let (kernel, image) = standard_image(&lab.bins.lab.clone(), &lab.dir)?;
    lab.start_vm(p.clone(), "b")?;
    lab.start_guest(&g, GuestSpec::new("g", &kernel, &image), "a", "")?;
    println!("  g is up: Linux {}", lab.guest("g")?.sh("uname -r")?.trim());
    let mut passed = echoes(lab, &g, &p)?;

    let moved = hot_move(lab, "g", "b", "guest-1", How::default())?;
    let migration = moved.migration.as_ref().context("the move was called off")?;
    println!(
        "  g migrated from a to b: QEMU's downtime {} ms, {} ms in all; the move is {}",
        migration.downtime_ms,
        migration.total_ms,
        moved.record.phase().as_str_name()
    );
    passed &= moved.done();
    passed &= echoes(lab, &g, &p)?;
    lab.check_processes()?;
    let guest = lab.guests.remove("g").context("the guest is gone")?;
    guest.shut_down()?;
    Ok(passed)
}

/// Echo requests from both to each other over both families; true if all came back.
fn echoes(lab: &mut Lab, g: &VmSpec, p: &VmSpec) -> Result<bool> {
    let mut all = true;
    for v6 in [false, true] {
        let (at_g, at_p) = (g.address(v6, 0).ip(), p.address(v6, 0).ip());
        let family = if v6 { "-6" } else { "-4" };
        let from_g = format!("ping {family} -c {PINGS} -i 0.05 -W 5 {at_p} || true");
        let out_g = lab.guest("g")?.sh(&from_g)?;
        let namespace = lab.namespace("p");
        let from_p = format!("ping {family} -c {PINGS} -i 0.05 -W 5 {at_g} || true");
        let out_p = crate::cmd::run_in(&namespace, "sh", &["-c", &format!("busybox {from_p}")])?;
        for (who, out) in [("g to p", out_g), ("p to g", out_p)] {
            let came = received(&out);
            println!("    IPv{} {who}: {came} of {PINGS} echoes", if v6 { 6 } else { 4 });
            if came != PINGS {
                println!("{out}");
                all = false;
            }
        }
    }
    Ok(all)
}

/// The number that ping gives for what it received, busybox's or iputils'.
fn received(output: &str) -> u32 {
    let line = output.lines().find(|l| l.contains("received")).unwrap_or_default();
    let count = line.split(',').find(|part| part.contains("received")).unwrap_or_default();
    count.split_whitespace().find_map(|w| w.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_both_pings_print() {
        assert_eq!(received("x\n20 packets transmitted, 19 packets received, 5% packet loss\n"), 19);
        assert_eq!(received("20 packets transmitted, 18 received, 10% packet loss, time 1ms\n"), 18);
        assert_eq!(received("ping: no route"), 0);
    }
}
