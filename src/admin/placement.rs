//! Which worker polls which receive queue: shown with measured loads, changed, evened out.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, anyhow};
use godwit_api::v1::{self, admin_response::Kind as Answer};
use godwit_worker::command::Snapshot;
use godwit_worker::perf::QueuePerf;

use super::views;
use crate::placement::{self, Queue, QueueId};
use crate::queue_handover::hand_over;
use crate::switch::{Shared, Switch};

/// Milliseconds that loads are measured for where the asker says none.
const WINDOW_MS: u32 = 500;
/// The longest.
const LONGEST_MS: u32 = 3000;

/// Queues with their loads, and the frames a second of each.
struct Measured {
    window_ms: u32,
    queues: Vec<Queue>,
    rates: Vec<u64>,
}

/// All queues with their workers and loads.
///
/// # Errors
/// Where a worker is stopping.
pub async fn show(switch: &Shared, window_ms: u32) -> anyhow::Result<Answer> {
    let measured = measure(switch, window_ms).await?;
    Ok(Answer::Placement(report(&switch.borrow(), &measured, Vec::new())))
}

/// Has a worker poll a queue.
///
/// # Errors
/// As of [`hand_over`].
pub async fn set(switch: &Shared, order: v1::SetPlacement) -> anyhow::Result<String> {
    let queue = u16::try_from(order.queue)
        .map_err(|_| anyhow!("{} is no receive queue's number; they are numbered from 0", order.queue))?;
    hand_over(switch, &order.port, queue, order.worker as usize).await
}

/// Moves queues from busy workers to idle ones, by load measured now; or says what it would move.
///
/// # Errors
/// As of [`hand_over`]; what was moved before stays moved.
pub async fn rebalance(switch: &Shared, order: v1::Rebalance) -> anyhow::Result<Answer> {
    let mut measured = measure(switch, order.window_ms).await?;
    let changes = {
        let s = switch.borrow();
        let workers: Vec<_> = s.workers.iter().map(|w| w.at).collect();
        placement::rebalance(&measured.queues, &workers, &s.config.nve.rxq_affinity)
            .context("nve.rxq_affinity")?
    };
    let mut told = Vec::new();
    for change in changes {
        let Some(queue) = measured.queues.iter_mut().find(|q| q.id == change.id) else { continue };
        if !order.dry_run {
            hand_over(switch, &queue.name, queue.id.queue, change.to).await?;
            queue.at = Some(change.to);
        }
        told.push(v1::PlacementChange {
            port: queue.name.clone(),
            queue: queue.id.queue.into(),
            from: change.from as u32,
            to: change.to as u32,
        });
    }
    Ok(Answer::Placement(report(&switch.borrow(), &measured, told)))
}

/// Reads the workers' counts twice.
async fn measure(switch: &Shared, window_ms: u32) -> anyhow::Result<Measured> {
    let window_ms = if window_ms == 0 { WINDOW_MS } else { window_ms.min(LONGEST_MS) };
    let began = switch.borrow().clock.now();
    let before = by_queue(&views::snapshots(switch).await?);
    tokio::time::sleep(Duration::from_millis(window_ms.into())).await;
    let after = by_queue(&views::snapshots(switch).await?);
    let s = switch.borrow();
    let ns = s.clock.now().0.saturating_sub(began.0).max(1);
    let mut queues = s.devices.queues();
    let mut rates = Vec::new();
    for queue in &mut queues {
        let grown = grown(before.get(&queue.id), after.get(&queue.id));
        queue.load = grown.and_then(|g| load(g, godwit_dpdk::tsc_hz(), ns));
        let rate = |g: QueuePerf| u128::from(g.packets) * 1_000_000_000 / u128::from(ns);
        rates.push(grown.map_or(0, |g| rate(g) as u64));
    }
    Ok(Measured { window_ms, queues, rates })
}

fn by_queue(snapshots: &[Box<Snapshot>]) -> BTreeMap<QueueId, QueuePerf> {
    let all = snapshots.iter().flat_map(|s| &s.queues);
    all.map(|&(port, queue, perf)| (QueueId { port, queue }, perf)).collect()
}

/// What came between two counts. A queue that changed workers meanwhile counts from zero.
fn grown(before: Option<&QueuePerf>, after: Option<&QueuePerf>) -> Option<QueuePerf> {
    let after = *after?;
    let before = before.copied().filter(|b| b.packets <= after.packets).unwrap_or_default();
    Some(QueuePerf {
        bursts: after.bursts.saturating_sub(before.bursts),
        packets: after.packets - before.packets,
        timed_packets: after.timed_packets.saturating_sub(before.timed_packets),
        ticks: after.ticks.saturating_sub(before.ticks),
        resting: after.resting,
    })
}

/// Thousandths of a core that a queue took; `None` where frames came and none was timed.
fn load(grown: QueuePerf, hz: u64, ns: u64) -> Option<u64> {
    if grown.packets == 0 {
        return Some(0);
    }
    let span = u128::from(hz) * u128::from(ns) / 1_000_000_000;
    let ticks = u128::from(grown.ticks) * u128::from(grown.packets);
    let ticks = ticks.checked_div(grown.timed_packets.into())?;
    // One core's time at most: few timed bursts say little, and a disturbed one says too much.
    ticks.saturating_mul(1000).checked_div(span).map(|load| load.min(1000) as u64)
}

fn report(s: &Switch, measured: &Measured, changes: Vec<v1::PlacementChange>) -> v1::PlacementReport {
    let workers: Vec<_> = s.workers.iter().map(|w| w.at).collect();
    let queues = measured.queues.iter().zip(&measured.rates).map(|(q, &packets_per_s)| {
        let worker = q.at.unwrap_or(0);
        v1::PlacedQueue {
            port: q.name.clone(),
            queue: q.id.queue.into(),
            node: q.node,
            worker: worker as u32,
            core: workers[worker].core as u32,
            worker_node: workers[worker].node,
            pinned: placement::pinned(q, &workers, &s.config.nve.rxq_affinity) == Some(worker),
            packets_per_s,
            load: q.load,
        }
    });
    v1::PlacementReport {
        nve: s.config.nve.id.clone(),
        window_ms: measured.window_ms,
        queues: queues.collect(),
        changes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r13_a_queues_load_is_what_its_frames_cost() {
        let perf = |packets, timed_packets, ticks| QueuePerf {
            bursts: 1,
            packets,
            timed_packets,
            ticks,
            resting: false,
        };
        // 1,000,000 frames of 100 ticks in a second of 1 GHz.
        assert_eq!(load(perf(1_000_000, 50, 5000), 1_000_000_000, 1_000_000_000), Some(100));
        assert_eq!(load(perf(0, 0, 0), 1_000_000_000, 1), Some(0));
        assert_eq!(load(perf(5, 0, 0), 1_000_000_000, 1_000_000_000), None);
        assert_eq!(load(perf(u64::MAX, 1, u64::MAX >> 8), 1, 1), None, "no time, no load");
        let (before, after) = (perf(10, 5, 100), perf(4, 2, 40));
        assert_eq!(grown(Some(&before), Some(&after)), Some(after), "it counts anew at another worker");
        assert_eq!(grown(Some(&after), Some(&before)).map(|g| g.packets), Some(6));
    }
}
