//! Receive queues that change workers while two VMs talk: nothing may get lost, doubled or overtaken.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use godwit_api::v1::{GetPlacement, PlacedQueue, SetPlacement};
use serde::Serialize;

use super::report::{self, thousands};
use super::{Common, Guests, Load, finish, talk, with_agents};
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};
use crate::traffic::{Stream, Talk, TrafficSpec, run};

/// v is at the switch whose queues change workers, p at the other.
const PAIR: (&str, &str) = ("v", "p");
/// Milliseconds over which the switch measures its queues' loads.
const WINDOW_MS: u32 = 100;
/// Linux lets a flow enter a TAP at the queue by which its other direction last left it, and changes queues at once:
/// what still lies in the old queue is overtaken, by the kernel. So each direction is a flow of its own here, and the
/// kernel is given time to forget that they greeted each other, for which it takes 3 s.
const FORGET: Duration = Duration::from_secs(5);

/// Options of `godwit-lab placement`.
#[derive(Clone, Debug, Args)]
pub struct Placement {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// How often a queue changes workers
    #[arg(long, default_value_t = 60, value_name = "N")]
    handovers: u32,
    /// Milliseconds between two changes
    #[arg(long, default_value_t = 50, value_name = "MS")]
    pause: u64,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Outcome {
    workers: usize,
    uplink_queues: u32,
    handovers: u32,
    /// Handovers in which a worker did not wait for a device that took nothing.
    late: u32,
    /// Frames that the switches dropped, by reason.
    drops: Vec<String>,
    kernel_drops: u64,
    talk: Talk,
    passed: bool,
}

impl Placement {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[])?;
        println!("Godwit lab: placement");
        println!(
            "  VMs v and p talk, {} probes a second and TCP each way, while receive queues of v's switch\n  \
             change workers {} times; its uplink has {} queue(s).\n",
            thousands(u64::from(self.load.spec(Guests::Netns).rate)),
            self.handovers,
            self.common.uplink_queues
        );
        let mut lab = Lab::start(&LabSpec::new(&["a", "b"], false, &self.common.switch_options()), &bins)?;
        let result = self.in_lab(&mut lab);
        let outcome = report::end(&mut lab, result, |r| r.passed)?;
        print_result(&outcome);
        report::write_json_value(self.common.json.as_deref(), &serde_json::to_value(&outcome)?)?;
        Ok(outcome.passed)
    }

    fn in_lab(&self, lab: &mut Lab) -> Result<Outcome> {
        lab.start_vm(VmSpec::numbered("p", 20), "b")?;
        lab.start_vm(VmSpec::numbered("v", 10), "a")?;
        let workers = lab.nve("a")?.admin.status()?.workers.len();
        ensure!(workers > 1, "switch a has one worker: give it more with --workers 0-1");
        let spec = TrafficSpec { one_way: true, ..self.load.spec(Guests::Netns) };
        let there = talk(lab, 1, spec, false, PAIR)?;
        let back = talk(lab, 2, TrafficSpec { tcp_rate_bit: 0, ..spec }, false, (PAIR.1, PAIR.0))?;
        std::thread::sleep(FORGET);
        with_agents(lab, PAIR, |v, p| run(p).and_then(|()| run(v)))?;
        let mut late = 0;
        for n in 0..self.handovers {
            std::thread::sleep(Duration::from_millis(self.pause));
            late += u32::from(hand_over(lab, n, workers)?);
        }
        std::thread::sleep(Duration::from_millis(self.pause));
        let talk =
            Talk { b_to_a: finish(lab, &back, (PAIR.1, PAIR.0))?.a_to_b, ..finish(lab, &there, PAIR)? };
        lab.check_processes()?;
        let drops = drops(lab)?;
        let mut kernel_drops = 0;
        for vm in lab.vms.values_mut() {
            kernel_drops += vm.all_kernel_drops()?;
        }
        let whole = |s: &Stream| s.sent > 0 && s.lost + s.duplicated + s.reordered + s.corrupt == 0;
        let passed = whole(&talk.a_to_b)
            && whole(&talk.b_to_a)
            && late == 0
            && talk.tcp.as_ref().is_none_or(|t| t.alive);
        let (uplink_queues, handovers) = (self.common.uplink_queues, self.handovers);
        Ok(Outcome { workers, uplink_queues, handovers, late, drops, kernel_drops, talk, passed })
    }
}

/// The n-th change at switch a: its queues take turns, each to the next worker. Answers whether a worker
/// lost patience.
fn hand_over(lab: &Lab, n: u32, workers: usize) -> Result<bool> {
    let admin = &lab.nve("a")?.admin;
    let queues = match admin.ask(Ask::GetPlacement(GetPlacement { window_ms: WINDOW_MS }))? {
        Answer::Placement(report) => report.queues,
        other => bail!("no placement but {other:?}"),
    };
    ensure!(!queues.is_empty(), "switch a polls no queue");
    // The next queue with each change, and another one to begin with in each round.
    let PlacedQueue { port, queue, worker, .. } = queues[n as usize % queues.len()].clone();
    let to = (worker + 1) % workers as u32;
    let order = SetPlacement { port: port.clone(), queue, worker: to };
    match admin.ask(Ask::SetPlacement(order))? {
        Answer::Done(done) => Ok(done.text.contains("overtaken")),
        other => bail!("{port}:{queue} to worker {to}: {other:?}"),
    }
}

/// What the switches' workers and devices dropped of the VMs' frames.
fn drops(lab: &Lab) -> Result<Vec<String>> {
    let mut drops = Vec::new();
    for nve in lab.nves.values() {
        for c in nve.admin.counters()?.into_iter().filter(|c| c.drop && c.value > 0) {
            drops.push(format!("{} {} {}: {}", nve.name, c.port, c.name, c.value));
        }
    }
    Ok(drops)
}

fn print_result(r: &Outcome) {
    for (way, s) in [("v to p", &r.talk.a_to_b), ("p to v", &r.talk.b_to_a)] {
        println!(
            "  {way}: {} sent, {} lost, {} doubled, {} overtaken, longest silence {:.1} ms",
            thousands(s.sent),
            s.lost,
            s.duplicated,
            s.reordered,
            s.gap_ms_max
        );
    }
    if let Some(tcp) = &r.talk.tcp {
        println!("  TCP: {:.1} MB, {}", tcp.bytes as f64 / 1e6, if tcp.alive { "alive" } else { "DEAD" });
    }
    println!("  {} changes, {} late; drops: {:?}; kernel {}", r.handovers, r.late, r.drops, r.kernel_drops);
    println!(
        "\n{}",
        if r.passed { "PASSED: nothing lost, nothing doubled, nothing overtaken." } else { "FAILED" }
    );
}
