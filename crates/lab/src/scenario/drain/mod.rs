//! Switches are drained one after the other while all their VMs talk: undisturbed, and with the operator's command, the
//! NVA or another switch killed half-way. What is left each time, what was lost, and how long it took.

mod crowd;
mod frames;
mod manager;

use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use godwit_api::v1;
use serde::Serialize;

use super::{Common, report};
use crate::cmd;
use crate::lab::nve::{Hugepages, SwitchOptions};
use crate::lab::topology::set_sysctls;
use crate::lab::{CTL_PATIENCE_S, Lab, LabSpec};
use crowd::{Crowd, Totals};
use manager::{Manager, Switch};

/// The switches' names.
const NAMES: [&str; 13] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"];
/// VMs of one switch at most: DPDK has room for 32 devices in Debian's build, and one is the uplink.
const ROOM: usize = 31;
/// So many workers share few cores.
const IDLE_SLEEP_US: u32 = 1000;
/// A tap takes 1,024 buffers of a switch, and these are half of its memory.
const MEMORY_MB: u32 = 128 + 6 * ROOM as u32;
/// A packet buffer of a switch with the usual MTU.
const BUFFER_BYTES: u64 = 2560;
/// How often held packets are counted.
const SAMPLE: Duration = Duration::from_millis(50);
/// All VMs are located within this time, and a drain ends.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is killed half-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kill {
    /// Nothing.
    Nothing,
    /// godwitctl, which is started again.
    Ctl,
    /// The NVA, which is started again.
    Nva,
    /// A switch that VMs go to; it stays away, and so do the VMs that it has.
    Switch,
}

/// Options of `godwit-lab drain`.
#[derive(Clone, Debug, Args)]
pub struct Drain {
    #[command(flatten)]
    common: Common,
    /// VMs of all switches together, an even number
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=360))]
    vms: u16,
    /// Switches, each of which is drained once
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=13))]
    switches: u16,
    /// Moves at the same time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
    /// Probe packets a second of each VM
    #[arg(long, default_value_t = 5, value_name = "PPS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// VMs that send 1,000 a second instead
    #[arg(long, default_value_t = 4, value_name = "N")]
    fast: u16,
    /// What is killed half-way in the second drain and those that follow; a switch in the last one
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST",
        default_values_t = [Kill::Ctl, Kill::Nva, Kill::Switch])]
    kill: Vec<Kill>,
}

/// How one drain went.
#[derive(Serialize)]
struct Round {
    nve: String,
    killed: Kill,
    /// What `godwitctl nve drain --wait --json` printed.
    report: serde_json::Value,
    seconds: f64,
    probes: Totals,
    lost: u64,
    /// At one moment, of all switches together.
    peak_held_packets: u64,
    peak_held_bytes: u64,
    given_up: Vec<String>,
    good: bool,
}

impl Drain {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        ensure!(self.vms.is_multiple_of(2), "VMs talk in pairs: take an even number");
        let switches = usize::from(self.switches);
        ensure!(
            self.kill.len() < switches,
            "the first drain is undisturbed: name fewer than {switches} to kill"
        );
        // A switch that is drained gives its VMs to the others, and one of these may be killed.
        let places = ROOM * switches.saturating_sub(2).max(1);
        ensure!(
            usize::from(self.vms) <= places,
            "{switches} switches drain {places} VMs at most: take more switches"
        );
        let bins = self.common.prepare(&[])?;
        println!(
            "Godwit lab: drain\n  {} VMs talk in pairs, {} packets/s each and {} of them 1,000; their {switches} \
             switches are drained in turn, {} moves at the same time.\n",
            self.vms, self.rate, self.fast, self.parallel
        );
        let options = SwitchOptions {
            hugepages: Hugepages::Never,
            idle_sleep_us: IDLE_SLEEP_US,
            memory_mb: MEMORY_MB,
            ..self.common.switch_options()
        };
        let mut lab = Lab::start(&LabSpec::new(&NAMES[..switches], false, &options), &bins)?;
        let result = self.in_lab(&mut lab);
        report::end_or_keep(self.common.keep, &mut lab, result, |good| *good)
    }

    fn in_lab(&self, lab: &mut Lab) -> Result<bool> {
        let (mut namespaces, mut switches) = (Vec::new(), Vec::new());
        for name in &NAMES[..usize::from(self.switches)] {
            let nve = lab.nve(name)?;
            // The kernel of a switch's namespace says nothing on the VMs' behalf.
            set_sysctls(&nve.namespace, &[("net/ipv6/conf/default/disable_ipv6", "1")])?;
            namespaces.push(nve.namespace.clone());
            let (namespace, admin) = (nve.namespace.clone(), nve.admin.clone());
            switches.push(Switch { name: (*name).into(), namespace, admin });
        }
        let gap = Duration::from_secs(1) / self.rate;
        let pace = (gap, usize::from(self.fast), Duration::from_millis(1));
        let crowd = Crowd::new(&namespaces, usize::from(self.vms), pace)?;
        let manager = Manager::new(&crowd, lab.nva.operator.clone(), switches);
        let rounds = std::thread::scope(|scope| {
            crowd.run(scope);
            let rounds = self.start(lab, &manager).and_then(|()| {
                manager.run(scope);
                self.rounds(lab, &manager)
            });
            manager.end();
            crowd.end();
            rounds
        })?;
        self.verdict(&rounds, &crowd)
    }

    /// Defines all VMs, and starts them, as many at each switch.
    fn start(&self, lab: &Lab, manager: &Manager<'_>) -> Result<()> {
        let crowd = manager.crowd;
        let began = Instant::now();
        for vm in 0..crowd.len() {
            lab.define_vm(crowd.spec(vm), "")?;
            let host = vm % usize::from(self.switches);
            let port = manager.plug(vm, host)?;
            crowd.attach(vm, host, &port)?;
            crowd.announce(vm)?;
        }
        loop {
            let list = lab.nva.operator.list_vms(v1::ListVmsRequest::default())?.vms;
            let here: Vec<&str> =
                list.iter().filter(|v| v.location.is_some()).map(|v| v.name.as_str()).collect();
            if here.len() == crowd.len() {
                println!("  lab {} ready: all VMs run after {:.1?}", lab.id, began.elapsed());
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "only {} VMs are located after {PATIENCE:?}", here.len());
            let missing = (0..crowd.len()).filter(|n| !here.contains(&crowd.spec(*n).name.as_str()));
            missing.into_iter().try_for_each(|vm| crowd.announce(vm))?;
            sleep(Duration::from_millis(500));
        }
    }

    fn rounds(&self, lab: &mut Lab, manager: &Manager<'_>) -> Result<Vec<Round>> {
        let mut rounds = Vec::new();
        let switches = &NAMES[..usize::from(self.switches)];
        let others: Vec<Kill> = self.kill.iter().copied().filter(|k| *k != Kill::Switch).collect();
        for (n, nve) in switches.iter().enumerate() {
            let is_last = n + 1 == switches.len() && self.kill.contains(&Kill::Switch);
            let early = n.checked_sub(1).and_then(|n| others.get(n)).copied();
            let kill = if is_last { Kill::Switch } else { early.unwrap_or(Kill::Nothing) };
            if n > 0 {
                lab.ctl(&["nve", "undrain", switches[n - 1]])?;
            }
            let round =
                self.round(lab, manager, nve, kill).with_context(|| format!("drain of {nve}, {kill:?}"))?;
            println!("  {}", round.line());
            round.given_up.iter().take(5).for_each(|why| println!("      given up: {why}"));
            rounds.push(round);
        }
        Ok(rounds)
    }

    fn round(&self, lab: &mut Lab, manager: &Manager<'_>, nve: &str, kill: Kill) -> Result<Round> {
        let crowd = manager.crowd;
        let before = crowd.totals(|_| true);
        crowd.send(true);
        sleep(Duration::from_secs(1));
        let (peak, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let began = Instant::now();
        let mut victim = None;
        let report = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| sample_holds(manager, &peak, &over));
            let report = self.drain(lab, nve, kill, &mut victim);
            over.store(true, Ordering::Relaxed);
            drop(sampler.join());
            report
        })?;
        let seconds = began.elapsed().as_secs_f64();
        sleep(Duration::from_secs(1));
        crowd.send(false);
        let lives = |vm: usize| crowd.at(vm).is_some_and(|at| Some(at.host) != victim);
        // Of a switch that was killed, its VMs are dead, and so is what others sent them.
        let probes = match victim {
            None => crowd.totals(|_| true).since(before),
            Some(_) => crowd.totals(lives),
        };
        let held = peak.load(Ordering::Relaxed);
        let given_up =
            std::mem::take(&mut *manager.given_up.lock().map_err(|_| anyhow::anyhow!("a mover panicked"))?);
        let empty = report["here"] == 0 && report["phase"] == "ended";
        let unharmed = victim.is_some() || probes.lost() == 0 && probes.duplicated == 0;
        Ok(Round {
            nve: nve.into(),
            killed: kill,
            report,
            seconds,
            probes,
            lost: probes.lost(),
            peak_held_packets: held,
            peak_held_bytes: held * BUFFER_BYTES,
            given_up,
            good: empty && unharmed,
        })
    }

    /// Drains a switch by the operator's command, something killed when a third of its VMs are away.
    fn drain(
        &self,
        lab: &mut Lab,
        nve: &str,
        kill: Kill,
        victim: &mut Option<usize>,
    ) -> Result<serde_json::Value> {
        let mut ctl = self.order(lab, nve)?;
        if kill != Kill::Nothing
            && let Err(e) = wait_moved(lab, nve)
        {
            let _ = ctl.kill();
            let _ = ctl.wait();
            return Err(e);
        }
        match kill {
            Kill::Nothing => {}
            Kill::Ctl => {
                ctl.kill().context("kill -9 of godwitctl")?;
                ctl.wait()?;
                // The drain goes on meanwhile; the same order follows it.
                sleep(Duration::from_millis(200));
                ctl = self.order(lab, nve)?;
            }
            Kill::Nva => {
                lab.nva.kill9()?;
                sleep(Duration::from_millis(500));
                lab.nva.launch()?;
                lab.nva.wait_ready()?;
            }
            Kill::Switch => {
                let n = NAMES.iter().position(|s| *s != nve).context("there is another switch")?;
                *victim = Some(n);
                lab.nves.get_mut(NAMES[n]).context("the lab has it")?.process.kill9()?;
            }
        }
        let output = ctl.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| {
            format!("godwitctl nve drain {nve}: {text}{}", String::from_utf8_lossy(&output.stderr))
        })
    }

    fn order(&self, lab: &Lab, nve: &str) -> Result<std::process::Child> {
        let mut ctl = cmd::in_namespace(&lab.namespace("nva"), &lab.bins.ctl);
        let parallel = self.parallel.to_string();
        ctl.args(["--timeout", CTL_PATIENCE_S, "--json"]).args(lab.nva.ctl_flags());
        ctl.args(["nve", "drain", nve, "--wait", "--parallel", &parallel]);
        ctl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        ctl.spawn().context("starting godwitctl")
    }

    fn verdict(&self, rounds: &[Round], crowd: &Crowd) -> Result<bool> {
        let drops = crowd.kernel_drops.load(Ordering::Relaxed);
        if drops > 0 {
            println!("  this machine's own kernel dropped {drops} frames");
        }
        let moved: u64 = rounds.iter().filter_map(|r| r.report["moved"].as_u64()).sum();
        let lost: u64 = rounds.iter().map(|r| r.lost).sum();
        let seconds: f64 = rounds.iter().map(|r| r.seconds).sum();
        let held = rounds.iter().map(|r| r.peak_held_bytes).max().unwrap_or(0) / 1024;
        println!(
            "\n  in all: {moved} VMs moved in {seconds:.1} s, {lost} packets lost, at most {} KiB of buffers held",
            report::thousands(held)
        );
        let passed = rounds.iter().all(|r| r.good);
        report::write_json_value(
            self.common.json.as_deref(),
            &serde_json::json!({
                "scenario": "drain", "vms": self.vms, "switches": self.switches, "parallel": self.parallel,
                "rounds": rounds,
                "moved": moved, "lost": lost, "seconds": seconds, "peak_held_kib": held,
                "kernel_drops": drops, "passed": passed,
            }),
        )?;
        println!(
            "\n{}",
            if passed {
                "PASSED: every drain ended with an empty switch, and no VM that lives lost a packet."
            } else {
                "FAILED: see above."
            }
        );
        Ok(passed)
    }
}

impl Round {
    fn line(&self) -> String {
        let killed = match self.killed {
            Kill::Nothing => "undisturbed",
            Kill::Ctl => "godwitctl killed and started again",
            Kill::Nva => "the NVA killed and started again",
            Kill::Switch => "a switch killed",
        };
        format!(
            "drain of {} ({killed}): {} of {} VMs moved in {:.1} s, {} left; {} packets sent, {} lost, {} duplicated, \
             {} reordered; at most {} held ({} KiB of buffers)",
            self.nve,
            self.report["moved"],
            self.report["total"],
            self.seconds,
            self.report["here"],
            report::thousands(self.probes.sent),
            self.lost,
            self.probes.duplicated,
            self.probes.reordered,
            report::thousands(self.peak_held_packets),
            report::thousands(self.peak_held_bytes / 1024)
        )
    }
}

/// Waits until a third of a switch's VMs are away.
fn wait_moved(lab: &Lab, nve: &str) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up {
        if let Ok(d) = lab.nva.operator.show_drain(v1::NveName { name: nve.into() })
            && d.phase() == v1::DrainPhase::Running
            && d.moved * 3 >= d.total
        {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    bail!("not a third of the VMs of {nve} had moved after {PATIENCE:?}")
}

/// Remembers how many packets all switches together held at most.
fn sample_holds(manager: &Manager<'_>, peak: &AtomicU64, over: &AtomicBool) {
    let last: Mutex<Vec<u64>> = Mutex::new(vec![0; manager.switches.len()]);
    while !over.load(Ordering::Relaxed) {
        for (n, switch) in manager.switches.iter().enumerate() {
            // One that was killed holds nothing.
            let held = switch.admin.status().map(|s| s.workers.iter().map(|w| w.held_packets).sum());
            if let Ok(mut all) = last.lock() {
                all[n] = held.unwrap_or(0);
                peak.fetch_max(all.iter().sum(), Ordering::Relaxed);
            }
        }
        sleep(SAMPLE);
    }
}
