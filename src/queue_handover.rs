//! Receive queues that change workers while traffic runs.
//!
//! Everyone who takes part is told before the worker that polls the queue is, so that the queue is on its
//! way for no longer than the workers need (see `godwit_worker::queue_handover`); control only watches. No frame is
//! lost in the switch or overtaken by a later one of its queue. Frames in a hold are not waited for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use crossbeam::queue::ArrayQueue;
use godwit_control::{Input, WorkerSet};
use godwit_dpdk::RxQueue;
use godwit_tables::update::PortIdx;
use godwit_worker::command::{Command, Reply};
use godwit_worker::dpdk::DpdkIo;
use godwit_worker::queue_handover::{Baton, Progress, QueueHandover};

use crate::placement;
use crate::switch::{Shared, Switch};

/// How often control looks whether a queue has arrived.
const LOOK: Duration = Duration::from_millis(1);
/// So often before it calls the handover off.
const LOOKS: u32 = 2000;

/// Lets another worker poll one receive queue.
///
/// # Errors
/// An unknown port, queue or worker, another change under way, or workers that do not answer.
pub async fn hand_over(switch: &Shared, name: &str, queue: u16, to: usize) -> anyhow::Result<String> {
    let (port, from) = {
        let mut s = switch.borrow_mut();
        if to >= s.workers.len() {
            bail!("there is no worker {to}; there are {}, numbered from 0", s.workers.len());
        }
        let device = s.devices.by_name(name).ok_or_else(|| s.no_port(name))?;
        let from = device.polled_by.iter().find(|q| q.0 == queue).map(|q| q.1).with_context(|| {
            let n = device.polled_by.len();
            format!("port {name:?} has no receive queue {queue}; it has {n}, numbered from 0")
        })?;
        if from == to {
            return Ok(format!("worker {to} polls {name}:{queue} already"));
        }
        if !device.postcopy && s.workers[to].at.postcopy {
            bail!(
                "worker {to} is kept for post-copy ports (nve.postcopy_core), and {name:?} is none; name another"
            );
        }
        let (port, devargs) = (device.number, device.devargs.clone());
        s.devices.begin(name, &devargs)?;
        if let Err(e) = s.devices.begin_handover() {
            s.devices.end(name);
            return Err(e);
        }
        (port, from)
    };
    let result = carry_out(switch, port, queue, from, to).await;
    let mut s = switch.borrow_mut();
    s.devices.end_handover();
    s.devices.end(name);
    let late = result.with_context(|| format!("{name}:{queue}"))?;
    let polled = s.devices.polled(port, queue, to);
    s.input(Input::PortWorkers { port, workers: polled });
    let note = if late { "; a device took nothing for a while, frames may have been overtaken" } else { "" };
    tracing::info!(port = name, queue, from, to, late, "receive queue changed workers");
    Ok(format!("worker {to} polls {name}:{queue}{note}"))
}

/// Lets another worker poll all receive queues of a port.
///
/// # Errors
/// As of [`hand_over`].
pub async fn hand_over_all(switch: &Shared, name: &str, to: usize) -> anyhow::Result<String> {
    let queues: Vec<u16> = {
        let s = switch.borrow();
        let device = s.devices.by_name(name).ok_or_else(|| s.no_port(name))?;
        device.polled_by.iter().map(|q| q.0).collect()
    };
    for queue in queues {
        hand_over(switch, name, queue, to).await?;
    }
    Ok(format!("worker {to} polls port {name}"))
}

/// Answers whether someone lost patience with a device.
async fn carry_out(
    switch: &Shared,
    port: PortIdx,
    queue: u16,
    from: usize,
    to: usize,
) -> anyhow::Result<bool> {
    let mut route = vec![from];
    route.extend(placement::between(switch.borrow().devices.iter().map(|d| d.sent_by.as_slice()), from, to));
    route.push(to);
    let batons: Vec<Baton<DpdkIo>> = route[1..].iter().map(|_| Arc::new(ArrayQueue::new(1))).collect();
    let progress = Arc::new(Progress::default());
    let part = |i: usize| QueueHandover {
        port,
        queue,
        from: i.checked_sub(1).map(|i| batons[i].clone()),
        to: batons.get(i).cloned(),
        progress: progress.clone(),
    };
    for (i, &worker) in route.iter().enumerate().skip(1) {
        switch.borrow_mut().workers[worker].order(Command::HandOver(part(i)));
    }
    // Who will receive the queue waits for it before it is let go.
    Switch::settled(switch).await;
    switch.borrow_mut().workers[from].order(Command::HandOver(part(0)));
    for _ in 0..LOOKS {
        if progress.is_done() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let stranded = end(switch, port, queue, &route, &batons).await;
    if progress.is_done() {
        return Ok(progress.was_late());
    }
    if let Some(rx) = stranded {
        switch.borrow_mut().workers[from].order(Command::AttachRx { port, queue, rx });
    }
    bail!("the workers did not hand the queue over; worker {from} polls it as before")
}

/// Ends the handover at everyone who took part; the queue, if it did not arrive.
async fn end(
    switch: &Shared,
    port: PortIdx,
    queue: u16,
    route: &[usize],
    batons: &[Baton<DpdkIo>],
) -> Option<RxQueue> {
    let asked: Vec<_> = {
        let mut s = switch.borrow_mut();
        route.iter().map(|&w| s.workers[w].ask(Command::EndHandover { port, queue })).collect()
    };
    let mut stranded = None;
    for answer in asked {
        if let Ok(Reply::Rx { rx: Some(rx), .. }) = answer.await {
            stranded = Some(rx);
        }
    }
    stranded.or_else(|| batons.iter().find_map(|baton| baton.pop()))
}

impl crate::devices::Devices {
    /// Writes down who polls a queue; answers with all workers that poll the port.
    fn polled(&mut self, port: PortIdx, queue: u16, worker: usize) -> WorkerSet {
        let Some(device) = self.iter_mut().find(|d| d.number == port) else { return WorkerSet::EMPTY };
        device.polled_by.iter_mut().filter(|q| q.0 == queue).for_each(|q| q.1 = worker);
        device.polled_by.iter().map(|q| q.1).collect()
    }
}
