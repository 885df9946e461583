//! VMs that were lost and only answer: each is reached again within ten seconds, and speaks first nowhere.

mod crowd;
mod vhost;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stalls::pings;
use super::{Common, report};
use crate::cmd;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};

/// Whoever lives is found within this time.
const FOUND: Duration = Duration::from_secs(10);
/// A host hangs for so long: the switch has asked its VM in vain by then.
const HANGS: Duration = Duration::from_secs(13);

/// Who was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// VMs on taps: a hung host, a guest that changes its port, a definition that crosses a claim.
    Taps,
    /// Guests on vhost-user ports that reboot and only answer (dpdk-testpmd).
    Vhost,
    /// Two hundred VMs that start while the NVA stands still.
    Crowd,
}

/// Options of `godwit-lab found`.
#[derive(Clone, Debug, Args)]
pub struct Found {
    #[command(flatten)]
    common: Common,
    /// Only this part
    #[arg(long, value_enum, value_name = "PART")]
    part: Option<Part>,
}

impl Found {
    /// Runs the scenario and prints its report; false where a VM was not found.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let wants = |part| self.part.is_none_or(|one| one == part);
        let tools: &[&str] = if wants(Part::Vhost) { &["ping", "dpdk-testpmd"] } else { &["ping"] };
        let bins = self.common.prepare(tools)?;
        println!(
            "Godwit lab: found\n  VMs that were lost say nothing; within {FOUND:?} each must be reached.\n"
        );
        let mut good = true;
        if wants(Part::Taps) || wants(Part::Vhost) {
            let spec = LabSpec::new(&["a", "b"], false, &self.common.switch_options());
            let mut lab = Lab::start(&spec, &bins)?;
            let result = cases(&mut lab, wants(Part::Taps), wants(Part::Vhost));
            good &= report::end_or_keep(self.common.keep, &mut lab, result, |good| *good)?;
        }
        if wants(Part::Crowd) {
            good &= crowd::run(&self.common.switch_options(), &bins)?;
        }
        println!("\n{}", if good { "PASSED: all were found." } else { "FAILED: see the lines above." });
        Ok(good)
    }
}

fn cases(lab: &mut Lab, taps: bool, vhost: bool) -> Result<bool> {
    lab.start_vm(VmSpec::numbered("cli", 10), "b")?;
    let mut good = true;
    if taps {
        lab.start_vm(VmSpec::numbered("oth", 30), "a")?;
        lab.start_vm(VmSpec::numbered("web", 20), "a")?;
        good &= said("a host hung while another VM left its switch", hangs(lab)?);
        good &= said("a guest changed to its second port, and says so", second_port(lab, true)?);
        good &= said("it changed to a third one without a word", second_port(lab, false)?);
        good &= said("a definition crossed the claim while the NVA stood still", crossed(lab)?);
    }
    if vhost {
        good &= vhost::by_itself(lab)?;
        good &= vhost::by_the_operator(lab)?;
    }
    lab.check_processes()?;
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

/// How long it takes until cli reaches a VM that is no namespace of the lab, over IPv4.
fn reached_over_ipv4(lab: &mut Lab, spec: &VmSpec) -> Result<Option<Duration>> {
    let started = Instant::now();
    while started.elapsed() < FOUND {
        if answers(lab, spec)? {
            return Ok(Some(started.elapsed()));
        }
    }
    Ok(None)
}

/// One echo request of cli over IPv4, answered within a second.
fn answers(lab: &mut Lab, spec: &VmSpec) -> Result<bool> {
    let target = spec.address(false, 0).ip().to_string();
    let namespace = lab.vm("cli")?.namespace.clone();
    Ok(cmd::run_in(&namespace, "ping", &["-4", "-n", "-c", "1", "-W", "1", &target]).is_ok())
}

/// A signal to the NVA.
fn signal(lab: &Lab, s: Signal) -> Result<()> {
    let nva = lab.nva.process_id().context("the lab started the NVA")?;
    kill(Pid::from_raw(nva as i32), s).with_context(|| format!("{s} to the NVA"))
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
    signal(lab, Signal::SIGSTOP)?;
    lab.vm("new")?.attach(&port)?;
    lab.vm("new")?.announce(false)?;
    spec.ips.push("203.0.113.77".parse()?);
    let lab_ref = &*lab;
    std::thread::scope(|scope| {
        let define = scope.spawn(|| lab_ref.define_vm(&spec, ""));
        sleep(Duration::from_secs(1));
        signal(lab_ref, Signal::SIGCONT)?;
        define.join().map_err(|_| anyhow::anyhow!("the operator panicked"))?
    })?;
    reached(lab, "new")
}
