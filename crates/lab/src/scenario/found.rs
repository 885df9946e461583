//! VMs that were lost and only answer: each is reached again within ten seconds, and speaks first nowhere.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stalls::pings;
use super::{Common, report};
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};

/// Whoever lives is found within this time.
const FOUND: Duration = Duration::from_secs(10);
/// A host hangs for so long: the switch has asked its VM in vain by then.
const HANGS: Duration = Duration::from_secs(13);

/// Options of `godwit-lab found`.
#[derive(Clone, Debug, Args)]
pub struct Found {
    #[command(flatten)]
    common: Common,
}

impl Found {
    /// Runs the scenario and prints its report; false where a VM was not found.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&["ping"])?;
        println!(
            "Godwit lab: found\n  VMs that were lost say nothing; within {FOUND:?} each must be reached.\n"
        );
        let mut lab = Lab::start(&LabSpec::new(&["a", "b"], false, &self.common.switch_options()), &bins)?;
        let result = cases(&mut lab);
        if !matches!(result, Ok(true)) {
            lab.keep_logs();
            println!("{}", report::diagnosis(&mut lab));
        }
        if self.common.keep {
            lab.keep()?;
            println!("\n{}", report::playground(&lab));
        }
        result.with_context(|| format!("logs in {}", lab.dir.display()))
    }
}

fn cases(lab: &mut Lab) -> Result<bool> {
    lab.start_vm(VmSpec::numbered("cli", 10), "b")?;
    lab.start_vm(VmSpec::numbered("oth", 30), "a")?;
    lab.start_vm(VmSpec::numbered("web", 20), "a")?;
    let mut good = said("a host hung while another VM left its switch", hangs(lab)?);
    good &= said("a guest changed to its second port, and says so", second_port(lab, true)?);
    good &= said("it changed to a third one without a word", second_port(lab, false)?);
    good &= said("a definition crossed the claim while the NVA stood still", crossed(lab)?);
    lab.check_processes()?;
    println!("\n{}", if good { "PASSED: all were found." } else { "FAILED: see the lines above." });
    Ok(good)
}

fn said(what: &str, found: Option<Duration>) -> bool {
    match found {
        Some(t) => println!("  {what}: reached after {:.1} s", t.as_secs_f64()),
        None => println!("  {what}: NOT reached within {FOUND:?}"),
    }
    found.is_some()
}

/// How long it takes until cli reaches a VM.
fn reached(lab: &mut Lab, vm: &str) -> Result<Option<Duration>> {
    let started = Instant::now();
    while started.elapsed() < FOUND {
        if pings(lab, "cli", vm, false)? && pings(lab, "cli", vm, true)? {
            return Ok(Some(started.elapsed()));
        }
    }
    Ok(None)
}

/// R32 asks web, which hears nothing, since its host hangs.
fn hangs(lab: &mut Lab) -> Result<Option<Duration>> {
    lab.vm("web")?.pause()?;
    let port = lab.vm("oth")?.attached.clone().context("oth is attached")?;
    lab.unplug(&port)?;
    sleep(HANGS);
    lab.vm("web")?.resume_silently()?;
    reached(lab, "web")
}

/// A bond in the guest: its other leg, at the same switch.
fn second_port(lab: &mut Lab, speaks: bool) -> Result<Option<Duration>> {
    let leg = lab.plug("web", "a")?;
    lab.vm("web")?.attach(&leg)?;
    if speaks {
        lab.vm("web")?.announce(false)?;
    }
    reached(lab, "web")
}

/// New starts and is given another address while the NVA stands still for a second.
fn crossed(lab: &mut Lab) -> Result<Option<Duration>> {
    let mut spec = VmSpec::numbered("new", 40);
    lab.start_vm(spec.clone(), "a")?;
    // It starts anew at the other switch, where nobody has heard of its new address yet.
    let old = lab.vm("new")?.attached.clone().context("new is attached")?;
    lab.vm("new")?.attached = None;
    lab.unplug(&old)?;
    sleep(Duration::from_secs(4));
    let port = lab.plug("new", "b")?;
    let nva = lab.nva.process_id().context("the lab started the NVA")?;
    let signal = |s: Signal| kill(Pid::from_raw(nva as i32), s).with_context(|| format!("{s} to the NVA"));
    signal(Signal::SIGSTOP)?;
    lab.vm("new")?.attach(&port)?;
    lab.vm("new")?.announce(false)?;
    spec.ips.push("203.0.113.77".parse()?);
    std::thread::scope(|scope| {
        let define = scope.spawn(|| lab.define_vm(&spec, ""));
        sleep(Duration::from_secs(1));
        signal(Signal::SIGCONT)?;
        define.join().map_err(|_| anyhow::anyhow!("the operator panicked"))?
    })?;
    reached(lab, "new")
}
