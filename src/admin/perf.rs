//! How the workers spend their time.

use godwit_api::v1::{self, admin_response::Kind as Answer};
use godwit_wire::Instant;
use godwit_worker::command::{Command, Snapshot};
use godwit_worker::perf::Histogram;
use godwit_worker::stages::{Stage, Ticks};

use super::views;
use crate::switch::{Shared, Switch};

/// The record of every worker; with `reset`, it begins anew after that.
///
/// # Errors
/// Where a worker is stopping.
pub async fn perf(switch: &Shared, reset: bool) -> anyhow::Result<Answer> {
    let snapshots = views::snapshots(switch).await?;
    let mut s = switch.borrow_mut();
    if reset {
        s.workers.iter_mut().for_each(|w| w.order(Command::ResetPerf));
    }
    let now = s.clock.now();
    let workers = snapshots.iter().enumerate().map(|(i, w)| worker(&s, i, w, now)).collect();
    Ok(Answer::Perf(v1::PerfReport { nve: s.config.nve.id.clone(), tick_hz: godwit_dpdk::tsc_hz(), workers }))
}

fn worker(s: &Switch, number: usize, w: &Snapshot, now: Instant) -> v1::WorkerPerf {
    let queues = w.queues.iter().map(|&(port, queue, q)| v1::QueuePerf {
        port: s.devices.get(port).map_or_else(|| port.0.to_string(), |d| d.name.clone()),
        queue: queue.into(),
        bursts: q.bursts,
        packets: q.packets,
        timed_packets: q.timed_packets,
        ticks: q.ticks,
        resting: q.resting,
    });
    let mut queues: Vec<_> = queues.collect();
    // A queue changes its place whenever it begins or ends to rest.
    queues.sort_by(|a, b| (&a.port, a.queue).cmp(&(&b.port, b.queue)));
    let long = w.perf.long().map(|l| v1::LongIteration {
        ago_ns: now.0.saturating_sub(l.at.0),
        ns: l.ns,
        packets: l.packets.into(),
        orders: l.orders.into(),
        preempted: l.preempted,
        away_ns: l.away_ns,
    });
    v1::WorkerPerf {
        worker: number as u32,
        core: s.workers[number].at.core as u32,
        span_ns: now.0.saturating_sub(w.perf.since.0),
        busy_ns: w.perf.busy_ns,
        idle_ns: w.perf.idle_ns,
        iterations: Some(durations(&w.perf.iterations)),
        mailbox: Some(durations(&w.perf.mailbox)),
        queues,
        long: long.collect(),
        long_count: w.perf.long_count,
        long_own_count: w.perf.long_own_count,
        looks: w.perf.looks.count,
        timed_looks: w.perf.looks.timed,
        look_ticks: w.perf.looks.ticks,
        stages: stages(w.stages),
    }
}

/// Empty where this build does not measure them.
fn stages(ticks: Ticks) -> Vec<v1::StageTicks> {
    if ticks.iter().all(|&t| t == 0) {
        return Vec::new();
    }
    let named = Stage::ALL.into_iter().zip(ticks);
    named.map(|(stage, ticks)| v1::StageTicks { name: stage.name().to_owned(), ticks }).collect()
}

fn durations(h: &Histogram) -> v1::Durations {
    v1::Durations {
        count: h.count(),
        p50_ns: h.quantile(0.5),
        p99_ns: h.quantile(0.99),
        max_ns: h.max(),
        buckets: h.buckets().map(|(upto_ns, count)| v1::DurationBucket { upto_ns, count }).collect(),
    }
}
