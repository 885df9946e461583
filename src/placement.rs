//! Which worker polls which receive queue: pure functions, so that they can be printed and tested.

mod pin;
#[cfg(test)]
mod properties;

pub use pin::{Pin, Refusal, check};

use godwit_tables::update::PortIdx;

/// A rebalance moves a queue only where the busier of two workers gets this much relief, in thousandths
/// of a core: each move costs a moment in which the queue is not polled.
const MIN_GAIN: u64 = 50;

/// Queues that together cost a thousandth of a core however idle they are: a look at a guest's ring takes some 10 ns,
/// and comes once in 50 µs.
const QUEUES_A_MILLE: u64 = 5;
/// Where a queue is placed, what idle ones cost counts by so many of them at a time: few of them outweigh neither
/// a port's own spread nor a measured load.
const IDLE_STEP: u64 = 50;

/// A receive queue by port and number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId {
    /// The port.
    pub port: PortIdx,
    /// The queue's number at the port.
    pub queue: u16,
}

/// A receive queue that is to be polled by someone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    /// Which.
    pub id: QueueId,
    /// Its port's name, by which pins mean it.
    pub name: String,
    /// NUMA node of its device; `None` where it has none.
    pub node: Option<u32>,
    /// Measured load in thousandths of a core; `None` where nothing was measured.
    pub load: Option<u64>,
    /// The worker that polls it now; `None` where a worker is sought.
    pub at: Option<usize>,
    /// Its VM's memory may be missing for a while (post-copy migration), and whoever touches it waits.
    pub postcopy: bool,
}

/// Where a worker runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerAt {
    /// Its core.
    pub core: usize,
    /// The core's NUMA node; `None` where the machine tells none.
    pub node: Option<u32>,
    /// It is kept for ports whose VM's memory may be missing.
    pub postcopy: bool,
}

/// A queue that should change workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which.
    pub id: QueueId,
    /// The worker that polls it.
    pub from: usize,
    /// The worker that should.
    pub to: usize,
}

/// Chooses a worker for every queue that has none; the others stay. Answers in the order of `queues`.
///
/// A pinned queue goes to its core. Post-copy queues go to the worker that is kept for them, and no others
/// do, where there is such a worker beside others: a page that is missing there stops nobody else. The
/// others go, those with the highest load first, to a worker of
/// their device's NUMA node where there is one; of these to the one with the least measured load (to which each
/// [`IDLE_STEP`] queues add what they cost idle), then
/// to the one that polls the fewest queues of that port, then the fewest at all, then the lowest: a
/// port's queues spread first, then the ports. Pins on ports that are not among `queues` don't count.
///
/// # Errors
/// A pin that cannot be followed ([`check`]).
pub fn assign(queues: &[Queue], workers: &[WorkerAt], pins: &[Pin]) -> Result<Vec<usize>, Refusal> {
    let pins = own_pins(queues, workers, pins)?;
    let mut at: Vec<Option<usize>> = queues.iter().map(|q| q.at).collect();
    for (queue, at) in queues.iter().zip(&mut at).filter(|(_, at)| at.is_none()) {
        *at = pinned(queue, workers, &pins);
    }
    let mut open: Vec<usize> = (0..queues.len()).filter(|&i| at[i].is_none()).collect();
    open.sort_by_key(|&i| (std::cmp::Reverse(queues[i].load.unwrap_or(0)), queues[i].id));
    for i in open {
        let rank = |w: usize| {
            let mine = || queues.iter().zip(&at).filter(move |(_, at)| **at == Some(w)).map(|(q, _)| q);
            let idle = mine().count() as u64 / IDLE_STEP * IDLE_STEP / QUEUES_A_MILLE;
            let load: u64 = mine().filter_map(|q| q.load).sum::<u64>() + idle;
            let of_port = mine().filter(|q| q.id.port == queues[i].id.port).count();
            (
                is_misplaced(&queues[i], workers[w]),
                is_remote(&queues[i], workers[w]),
                load,
                of_port,
                mine().count(),
                w,
            )
        };
        at[i] = (0..workers.len()).min_by_key(|&w| rank(w));
    }
    // Without a worker there is no switch.
    Ok(at.into_iter().map(|w| w.unwrap_or(0)).collect())
}

/// Changes that take load from the busiest worker, one after the other, until none is worth its cost.
/// Then idle queues, where one worker has so many more than another that it matters. Every queue has a worker; each is
/// moved once at most, never a pinned one, and never away from the NUMA node of its device.
///
/// # Errors
/// A pin that cannot be followed ([`check`]).
pub fn rebalance(queues: &[Queue], workers: &[WorkerAt], pins: &[Pin]) -> Result<Vec<Change>, Refusal> {
    let pins = own_pins(queues, workers, pins)?;
    let mut at: Vec<usize> = queues.iter().map(|q| q.at.unwrap_or(0)).collect();
    let mut load = vec![0_u64; workers.len()];
    for (queue, &w) in queues.iter().zip(&at) {
        load[w] += queue.load.unwrap_or(0);
    }
    let mut free: Vec<usize> =
        (0..queues.len()).filter(|&i| pinned(&queues[i], workers, &pins).is_none()).collect();
    let mut changes = Vec::new();
    // The lowest of the busiest, so that the same loads give the same changes.
    while let Some(from) = (0..workers.len()).max_by_key(|&w| (load[w], std::cmp::Reverse(w))) {
        let candidates = free.iter().filter(|&&i| at[i] == from).flat_map(|&i| {
            (0..workers.len()).filter(move |&w| may_move(&queues[i], workers, from, w)).map(move |w| (i, w))
        });
        let gain = |&(i, w): &(usize, usize)| {
            let moved = queues[i].load.unwrap_or(0);
            load[from].saturating_sub((load[from] - moved).max(load[w] + moved))
        };
        let best = candidates.max_by_key(|c| (gain(c), std::cmp::Reverse(*c)));
        let Some((i, to)) = best.filter(|c| gain(c) >= MIN_GAIN) else { break };
        changes.push(Change { id: queues[i].id, from, to });
        let moved = queues[i].load.unwrap_or(0);
        (load[from], load[to], at[i]) = (load[from] - moved, load[to] + moved, to);
        free.retain(|&f| f != i);
    }
    free.retain(|&i| queues[i].load == Some(0));
    spread_idle(queues, workers, &free, (&mut at, &load), &mut changes);
    Ok(changes)
}

/// Evens out what idle queues cost, where it is worth a change at all. A change of an idle queue disturbs nobody.
/// `free`: the queues that may be moved; `at` and `load`: the workers of all queues, and what these take of each
/// worker.
fn spread_idle(
    queues: &[Queue],
    workers: &[WorkerAt],
    free: &[usize],
    (at, load): (&mut [usize], &[u64]),
    changes: &mut Vec<Change>,
) {
    // In parts of a thousandth of a core of which a queue costs one.
    let mut cost: Vec<u64> = load.iter().map(|l| l * QUEUES_A_MILLE).collect();
    at.iter().for_each(|&w| cost[w] += 1);
    let mut began = vec![false; workers.len()];
    for &i in free {
        let from = at[i];
        let allowed = (0..workers.len()).filter(|&w| may_move(&queues[i], workers, from, w));
        let Some(to) = allowed.min_by_key(|&w| (cost[w], w)) else { continue };
        let gap = cost[from].saturating_sub(cost[to]);
        began[from] |= gap > MIN_GAIN * QUEUES_A_MILLE;
        if began[from] && gap > 1 {
            changes.push(Change { id: queues[i].id, from, to });
            (cost[from], cost[to], at[i]) = (cost[from] - 1, cost[to] + 1, to);
        }
    }
}

/// A worker may take the queue from the one that has it.
fn may_move(queue: &Queue, workers: &[WorkerAt], from: usize, to: usize) -> bool {
    to != from
        && !is_misplaced(queue, workers[to])
        && is_remote(queue, workers[to]) <= is_remote(queue, workers[from])
}

/// The pins that concern `queues`, checked.
fn own_pins(queues: &[Queue], workers: &[WorkerAt], pins: &[Pin]) -> Result<Vec<Pin>, Refusal> {
    let mine = |p: &&Pin| queues.iter().any(|q| q.name == p.port);
    let pins: Vec<Pin> = pins.iter().filter(mine).cloned().collect();
    let highest = |name: &str| queues.iter().filter(|q| q.name == name).map(|q| q.id.queue + 1).max();
    let ports: Vec<(&str, u16)> =
        queues.iter().map(|q| (q.name.as_str(), highest(&q.name).unwrap_or(0))).collect();
    let cores: Vec<usize> = workers.iter().map(|w| w.core).collect();
    check(&pins, &ports, &cores).map_err(|(_, refusal)| refusal)?;
    Ok(pins)
}

/// The worker that the queue is pinned to.
pub fn pinned(queue: &Queue, workers: &[WorkerAt], pins: &[Pin]) -> Option<usize> {
    let pin = pins.iter().find(|p| p.port == queue.name && p.queue == queue.id.queue)?;
    workers.iter().position(|w| w.core == pin.core)
}

/// An ordinary queue at the worker that is kept for post-copy ports, or the other way round.
pub fn is_misplaced(queue: &Queue, worker: WorkerAt) -> bool {
    queue.postcopy != worker.postcopy
}

/// Queue and worker are known to be on different NUMA nodes.
fn is_remote(queue: &Queue, worker: WorkerAt) -> bool {
    matches!((queue.node, worker.node), (Some(a), Some(b)) if a != b)
}

/// Workers that a queue passes through on its way between two others: those that hold frames which the
/// first has received and has others send, where the second's frames could overtake them. `sent_by` has
/// for each port the worker that sends for each worker.
pub fn between<'a>(sent_by: impl Iterator<Item = &'a [usize]>, from: usize, to: usize) -> Vec<usize> {
    let mut via: Vec<usize> = sent_by
        .filter_map(|port| Some((*port.get(from)?, *port.get(to)?)))
        // The same ring, or no ring: they come in order anyway. To `to` itself the queue goes last.
        .filter(|(first, second)| first != second && *first != from && *first != to)
        .map(|(first, _)| first)
        .collect();
    via.sort_unstable();
    via.dedup();
    via
}

/// The worker that owns transmit queue `queue` of a port with fewer transmit queues than workers: the
/// first ones that poll it, so that a port with one queue is received and sent by the same worker. The
/// worker that is kept for post-copy ports comes last: others had to wait for it.
pub fn transmit_owners(
    polled_by: &[usize],
    tx_queues: usize,
    workers: usize,
    kept: Option<usize>,
) -> Vec<usize> {
    let mut owners: Vec<usize> = Vec::with_capacity(tx_queues);
    let ordinary = (0..workers).filter(|w| Some(*w) != kept);
    for &w in polled_by.iter().chain(&ordinary.chain(kept).collect::<Vec<_>>()) {
        if owners.len() < tx_queues && !owners.contains(&w) {
            owners.push(w);
        }
    }
    owners
}
