//! `godwitctl perf`: how an NVE's workers spend their time.

use clap::Args;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use serde::Serialize;

use super::port::NveArg;
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::hand::unexpected;
use crate::table::Table;

/// Arguments of `perf`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl perf --nve nve-a           since the start or the last reset
  godwitctl perf --nve nve-a --reset   the same, and begin the record anew

CYCLES are of the time stamp counter, for receiving and processing a frame; sending is not in them.
RESTING queues brought nothing for a while: a busy worker looks at them once in nve.idle_poll_us only.
A build for benchmarks (cargo build --features stage-meter) shows what each pipeline stage costs.
A worker that is alone on its core and idle is busy polling: BUSY counts iterations with work only.
MAILBOX is the time from an update's being sent to a worker until it surely had effect.
OWN is what is left of a long iteration without the time in which the core did something else: ran another
thread, or, where a hypervisor says so, another machine. PREEMPTED says how often the system took the core
away: isolate it (isolcpus, nohz_full). Many long ones with little of their own: somebody else is at fault.")]
pub struct PerfArgs {
    #[command(flatten)]
    target: NveArg,
    /// Begin the record anew after this.
    #[arg(long)]
    reset: bool,
}

#[derive(Serialize)]
struct PerfView {
    nve: String,
    workers: Vec<WorkerView>,
}

#[derive(Serialize)]
struct WorkerView {
    worker: u32,
    core: u32,
    span_s: f64,
    busy_percent: f64,
    iterations_us: Spread,
    mailbox_us: Spread,
    queues: Vec<QueueView>,
    /// Looks at resting queues.
    looks: u64,
    cycles_per_look: f64,
    /// Cycles a packet by pipeline stage; empty in builds that do not measure it.
    stages: Vec<StageView>,
    long_iterations: u64,
    /// Those that would have been long without the worker's absence, too.
    long_own_iterations: u64,
    long: Vec<LongView>,
}

#[derive(Serialize)]
struct Spread {
    count: u64,
    p50: f64,
    p99: f64,
    max: f64,
    /// Largest value of each bucket that is not empty, and its count.
    buckets: Vec<(f64, u64)>,
}

#[derive(Serialize)]
struct QueueView {
    port: String,
    queue: u32,
    packets: u64,
    packets_per_burst: f64,
    cycles_per_packet: f64,
    /// It brought nothing for a while, and is looked at seldom.
    resting: bool,
}

#[derive(Serialize)]
struct StageView {
    stage: String,
    cycles_per_packet: f64,
    share: f64,
}

#[derive(Serialize)]
struct LongView {
    ago_s: f64,
    us: f64,
    /// Without the time in which the core did something else.
    own_us: f64,
    packets: u64,
    orders: u64,
    preempted: u64,
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn spread(d: Option<v1::Durations>) -> Spread {
    let d = d.unwrap_or_default();
    let buckets = d.buckets.iter().map(|b| (us(b.upto_ns), b.count)).collect();
    Spread { count: d.count, p50: us(d.p50_ns), p99: us(d.p99_ns), max: us(d.max_ns), buckets }
}

/// The pipeline stages, for each packet that came in.
fn stages(w: &v1::WorkerPerf) -> Vec<StageView> {
    let packets = w.queues.iter().map(|q| q.packets).sum();
    let all = w.stages.iter().map(|s| s.ticks).sum();
    let one = |s: &v1::StageTicks| StageView {
        stage: s.name.clone(),
        cycles_per_packet: ratio(s.ticks, packets),
        share: ratio(s.ticks, all),
    };
    w.stages.iter().map(one).collect()
}

fn view(report: v1::PerfReport) -> PerfView {
    let queue = |q: v1::QueuePerf| QueueView {
        packets_per_burst: ratio(q.packets, q.bursts),
        cycles_per_packet: ratio(q.ticks, q.timed_packets),
        port: q.port,
        queue: q.queue,
        packets: q.packets,
        resting: q.resting,
    };
    let long = |l: v1::LongIteration| LongView {
        ago_s: l.ago_ns as f64 / 1e9,
        us: us(l.ns),
        own_us: us(l.ns.saturating_sub(l.away_ns)),
        packets: l.packets,
        orders: l.orders,
        preempted: l.preempted,
    };
    let worker = |w: v1::WorkerPerf| WorkerView {
        stages: stages(&w),
        worker: w.worker,
        core: w.core,
        span_s: w.span_ns as f64 / 1e9,
        busy_percent: 100.0 * ratio(w.busy_ns, w.busy_ns + w.idle_ns),
        iterations_us: spread(w.iterations),
        mailbox_us: spread(w.mailbox),
        queues: w.queues.into_iter().map(queue).collect(),
        looks: w.looks,
        cycles_per_look: ratio(w.look_ticks, w.timed_looks),
        long_iterations: w.long_count,
        long_own_iterations: w.long_own_count,
        long: w.long.into_iter().map(long).collect(),
    };
    PerfView { nve: report.nve, workers: report.workers.into_iter().map(worker).collect() }
}

impl Report for PerfView {
    fn text(&self) -> String {
        let mut text = self.workers_table() + "\n" + &self.queues_table() + &self.looks_table();
        for w in &self.workers {
            text += &w.stages_table();
            text += &w.histogram();
            text += &w.long_table();
        }
        text
    }
}

impl PerfView {
    fn workers_table(&self) -> String {
        let mut t = Table::new(&[
            ">WORKER",
            ">CORE",
            ">OVER",
            ">BUSY",
            ">ITERATION P50",
            ">P99",
            ">MAX",
            ">MAILBOX P50",
            ">P99",
            ">MAX",
            ">LONG",
        ]);
        for w in &self.workers {
            let (i, m) = (&w.iterations_us, &w.mailbox_us);
            t.row([
                w.worker.to_string(),
                w.core.to_string(),
                format!("{:.1} s", w.span_s),
                format!("{:.1} %", w.busy_percent),
                format!("{:.1} us", i.p50),
                format!("{:.1} us", i.p99),
                format!("{:.1} us", i.max),
                format!("{:.1} us", m.p50),
                format!("{:.1} us", m.p99),
                format!("{:.1} us", m.max),
                w.long_iterations.to_string(),
            ]);
        }
        t.text_or("no worker answered")
    }

    fn queues_table(&self) -> String {
        let mut t =
            Table::new(&[">WORKER", "PORT", ">QUEUE", ">PACKETS", ">PACKETS A BURST", ">CYCLES A PACKET"]);
        for w in &self.workers {
            for q in &w.queues {
                t.row([
                    w.worker.to_string(),
                    q.port.clone(),
                    q.queue.to_string(),
                    q.packets.to_string(),
                    format!("{:.1}", q.packets_per_burst),
                    format!("{:.0}", q.cycles_per_packet),
                ]);
            }
        }
        t.text_or("no receive queue is polled")
    }

    /// Workers that looked at resting queues.
    fn looks_table(&self) -> String {
        let mut t = Table::new(&[">WORKER", ">QUEUES", ">RESTING", ">LOOKS", ">CYCLES A LOOK"]);
        for w in self.workers.iter().filter(|w| w.looks > 0) {
            t.row([
                w.worker.to_string(),
                w.queues.len().to_string(),
                w.queues.iter().filter(|q| q.resting).count().to_string(),
                w.looks.to_string(),
                format!("{:.0}", w.cycles_per_look),
            ]);
        }
        if t.is_empty() { String::new() } else { format!("\n{}", t.text()) }
    }
}

impl WorkerView {
    fn stages_table(&self) -> String {
        if self.stages.is_empty() {
            return String::new();
        }
        let mut t = Table::new(&["PASS", ">CYCLES A PACKET", ">SHARE"]);
        for s in &self.stages {
            t.row([
                s.stage.clone(),
                format!("{:.1}", s.cycles_per_packet),
                format!("{:.1} %", s.share * 100.0),
            ]);
        }
        format!("\npasses of worker {}\n{}", self.worker, t.text())
    }

    /// Busy iterations by doublings of their length, as bars.
    fn histogram(&self) -> String {
        let all = &self.iterations_us;
        if all.count == 0 {
            return String::new();
        }
        let mut rows: Vec<(f64, u64)> = Vec::new();
        for &(upto, count) in &all.buckets {
            let doubling = us(((upto * 1000.0).round() as u64 + 1).next_power_of_two());
            match rows.last_mut() {
                Some(last) if last.0 == doubling => last.1 += count,
                _ => rows.push((doubling, count)),
            }
        }
        let mut t = Table::new(&[">UP TO", ">ITERATIONS", ">SHARE", ""]);
        for (upto, count) in rows {
            let share = ratio(count, all.count);
            // Rare ones are what one looks for: they get a dot at least.
            let bar = "#".repeat((share * 40.0).round() as usize);
            let bar = if bar.is_empty() { ".".to_owned() } else { bar };
            t.row([format!("{upto:.3} us"), count.to_string(), format!("{:.4} %", share * 100.0), bar]);
        }
        format!("\nbusy iterations of worker {}\n{}", self.worker, t.text())
    }

    fn long_table(&self) -> String {
        if self.long.is_empty() {
            return String::new();
        }
        let mut t = Table::new(&[">AGO", ">LONG", ">OWN", ">PACKETS", ">ORDERS", ">PREEMPTED"]);
        for l in &self.long {
            t.row([
                format!("{:.1} s", l.ago_s),
                format!("{:.0} us", l.us),
                format!("{:.0} us", l.own_us),
                l.packets.to_string(),
                l.orders.to_string(),
                l.preempted.to_string(),
            ]);
        }
        format!(
            "\nthe newest long iterations of worker {}, of {}, {} of them by its own work\n{}",
            self.worker,
            self.long_iterations,
            self.long_own_iterations,
            t.text()
        )
    }
}

/// Runs the command.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(a: &PerfArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let hand = ctx.link.nve(a.target.nve.as_deref()).await?;
    match hand.ask(Ask::GetPerf(v1::GetPerf { reset: a.reset })).await? {
        Answer::Perf(report) => ctx.show(&view(report)),
        _ => Err(unexpected(&hand.peer())),
    }
}
