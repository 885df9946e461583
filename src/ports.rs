//! Ports: devices that come, go and change workers while traffic runs.
//!
//! The order of steps is what keeps frames: a port's ways out are there before its role, its role
//! before its receive queues; and on its way out all that in reverse, each step answered by every
//! worker before the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use crossbeam::queue::ArrayQueue;
use godwit_control::{Input, PortSpec, WorkerSet};
use godwit_dpdk::{LinkEvent, Port, RxQueue, TxQueue};
use godwit_model::VmKey;
use godwit_pipeline::packet::ReceiveOffloads;
use godwit_tables::update::{MAX_PORTS, PortIdx};
use godwit_wire::Mac;
use godwit_worker::command::{Command, Reply, TxPath};
use godwit_worker::io::QUEUES;
use godwit_worker::offloads::{SharedReceiveOffloads, SharedUse};
use godwit_worker::outbox::OUTBOX;

use crate::bonds::Legs;
use crate::config::{Activation, PortConfig};
use crate::devices::{Device, is_pci, queue_of};
use crate::offloads::ChecksumOffload;
use crate::opening::{Opened, Wanted, open};
use crate::placement::{self, Queue};
use crate::presence::Presence;
use crate::switch::{Shared, Switch};
use crate::watched::Watched;
use crate::{kernel, numa, static_config};

/// Frames that other workers may leave for a port between two iterations of the one that sends them.
const RELAY: usize = 4096;

/// How often a device that is being let go of or taken back is looked at, and how many times, before its port can be
/// removed.
const RETURN_LOOK: Duration = Duration::from_millis(10);
const RETURN_LOOKS: u32 = 500;

/// Gives an opened device a number and hands its queues to the workers.
///
/// # Errors
/// No number is free, a queue is pinned where no worker is, or the driver takes no callback.
pub fn attach(
    switch: &mut Switch,
    wanted: &Wanted,
    opened: Opened,
    spec: impl FnOnce(&Device) -> PortSpec,
) -> anyhow::Result<PortIdx> {
    let number = switch.devices.free_number().with_context(|| {
        format!("port {:?}: all {MAX_PORTS} port numbers are taken; remove a port", wanted.name)
    })?;
    let placed = place(switch, wanted, number, &opened.port, opened.rx.len() as u16)?;
    warn_of_distance(switch, wanted, &opened.port, &placed);
    let offloads = receive_offloads(switch, wanted, &opened)?;
    let Opened { port, rx, tx, checksums, watched, .. } = opened;
    let device = Device {
        name: wanted.name.clone(),
        receive_offloads: offloads.clone(),
        in_use: Vec::new(),
        offloads: checksums.as_ref().map(ChecksumOffload::to_string).unwrap_or_default(),
        devargs: wanted.devargs.clone(),
        number,
        polled_by: (0..).zip(placed.iter().copied()).collect(),
        sent_by: Vec::new(),
        mac: Mac(port.mac()),
        mtu: port.mtu(),
        link_counts: port.driver_name() != "net_tap",
        kernel_link: kernel::kernel_link(port.driver_name(), &wanted.devargs),
        legs: Legs::of(&port),
        // Control takes it for up. Whether a bond's partner has agreed shows at the first look.
        link_up: port.is_bond() || port.link().up,
        port: Some(port),
        wanted: wanted.clone(),
        watched,
        presence: Presence::default(),
        is_access: false,
        postcopy: wanted.postcopy,
    };
    let guests_queues = device.port.as_ref().is_some_and(Port::is_vhost);
    let spec = spec(&device);
    let is_access = matches!(spec, PortSpec::Access { .. });
    switch.devices.map.insert(number, Device { is_access, ..device });
    let (sent_by, in_use) = attach_tx(switch, number, &placed, tx, offloads.as_ref(), guests_queues);
    if let Some(device) = switch.devices.map.get_mut(&number) {
        (device.sent_by, device.in_use) = (sent_by, in_use);
    }
    let workers: WorkerSet = placed.iter().copied().collect();
    switch.input(Input::PortAdded { port: number, name: wanted.name.clone(), spec, workers });
    for ((queue, &worker), rx) in (0..).zip(&placed).zip(rx) {
        switch.workers[worker].order(Command::AttachRx { port: number, queue, rx });
    }
    tracing::info!(port = %wanted.name, devargs = %wanted.devargs, number = number.0, workers = ?placed, "port added");
    Ok(number)
}

/// Receiver offload capabilities of an opened device, with the callbacks that keep them true; `None` where it has none.
///
/// # Errors
/// The driver takes no callback.
pub(crate) fn receive_offloads(
    switch: &Switch,
    wanted: &Wanted,
    opened: &Opened,
) -> anyhow::Result<Option<SharedReceiveOffloads>> {
    let by_card = opened.checksums.as_ref().is_some_and(ChecksumOffload::by_card);
    let offloads = (opened.guest_offloads || by_card).then(SharedReceiveOffloads::default);
    if let Some(offloads) = offloads.as_ref().filter(|_| by_card) {
        offloads.set(ReceiveOffloads { checksum: true, ..ReceiveOffloads::NOTHING });
    }
    let changed = switch.links_changed.clone();
    let watched = match &opened.watched {
        _ if opened.port.is_vhost() => {
            // Whoever comes next says anew what it takes; `Switch::poll_links` asks, and soon: what is sent to a guest
            // that has stopped waits for the news (R45).
            let offloads = offloads.clone();
            opened.port.set_link_callback(move |event| {
                let gone = !matches!(event, LinkEvent::Changed(link) if link.up);
                if let Some(offloads) = offloads.as_ref().filter(|_| gone) {
                    offloads.set(ReceiveOffloads::NOTHING);
                }
                changed.store(true, Ordering::Release);
            })
        }
        Watched::Pci { removed, .. } => {
            let removed = removed.clone();
            opened.port.set_link_callback(move |event| {
                if event == LinkEvent::Removed {
                    removed.store(true, Ordering::Release);
                }
                changed.store(true, Ordering::Release);
            })
        }
        _ => Ok(()),
    };
    watched.with_context(|| format!("port {:?}", wanted.name))?;
    Ok(offloads)
}

/// Chooses the workers of a new port's receive queues, in the order of these.
pub(crate) fn place(
    switch: &Switch,
    wanted: &Wanted,
    number: PortIdx,
    port: &Port,
    queues: u16,
) -> anyhow::Result<Vec<usize>> {
    let name = wanted.name.as_str();
    let new = (0..queues).map(|queue| queue_of(number, name, port, queue, wanted.postcopy));
    let mut all: Vec<Queue> = new.collect();
    all.extend(switch.devices.queues());
    let workers: Vec<_> = switch.workers.iter().map(|w| w.at).collect();
    let pins: Vec<_> = switch.config.nve.rxq_affinity.iter().filter(|p| p.port == name).cloned().collect();
    let mut placed = placement::assign(&all, &workers, &pins).context("nve.rxq_affinity")?;
    placed.truncate(queues.into());
    refuse_overfull(&all, &placed)?;
    Ok(placed)
}

/// A worker has room for so many receive queues, and allocates nothing once it runs. `all`: the new port's queues, then
/// those that workers poll.
fn refuse_overfull(all: &[Queue], placed: &[usize]) -> anyhow::Result<()> {
    for &worker in placed {
        let polled = all.iter().skip(placed.len()).filter(|q| q.at == Some(worker)).count();
        let more = placed.iter().filter(|w| **w == worker).count();
        if polled + more > QUEUES {
            bail!(
                "worker {worker} polls {polled} receive queues, and {QUEUES} at most: {more} more do not fit; give \
                 ports fewer queues, or the switch more workers"
            );
        }
    }
    Ok(())
}

/// Tells of a card whose frames cross between NUMA nodes. A virtual device may name a node, which means nothing.
fn warn_of_distance(switch: &Switch, wanted: &Wanted, port: &Port, placed: &[usize]) {
    let card = port.numa_node().filter(|_| is_pci(&wanted.devargs)).and_then(|n| n.try_into().ok());
    let polled: Vec<_> = placed.iter().map(|&w| switch.workers[w].at).map(|at| (at.core, at.node)).collect();
    for sentence in numa::misplaced(card, &polled, switch.pool.numa_node()) {
        tracing::warn!(port = %wanted.name, "{sentence}");
    }
}

/// Gives every worker a way to the port: transmit queues to as many as there are, relays to the rest, and both to
/// owners of queues that a guest may put out of use (`guests_queues`). Answers with the worker that sends for each,
/// or may have to, and with the queues that are used only while the guest receives by them.
pub(crate) fn attach_tx(
    switch: &mut Switch,
    port: PortIdx,
    polled: &[usize],
    tx: Vec<TxQueue>,
    offloads: Option<&SharedReceiveOffloads>,
    guests_queues: bool,
) -> (Vec<usize>, Vec<SharedUse>) {
    let offloads = || offloads.cloned();
    let workers = switch.workers.len();
    let kept = switch.workers.iter().position(|w| w.at.postcopy);
    let owners = placement::transmit_owners(polled, tx.len(), workers, kept);
    let relays: Vec<_> = owners.iter().map(|_| Arc::new(ArrayQueue::new(RELAY))).collect();
    let outbox = || Vec::with_capacity(OUTBOX);
    let mut sent_by: Vec<usize> = (0..workers).collect();
    let mut in_use = Vec::new();
    let relayed: Vec<usize> = (0..workers).filter(|w| !owners.contains(w)).collect();
    // Only the first queue of a guest is sure to take what is not sent by its own worker.
    let serving = if guests_queues { 1 } else { relays.len() };
    for (i, (&owner, tx)) in owners.iter().zip(tx).enumerate() {
        let tx = if i < serving {
            TxPath::Own(tx)
        } else {
            let used = SharedUse::default();
            in_use.push(used.clone());
            sent_by[owner] = owners[0];
            TxPath::Either { tx, used, relay: relays[0].clone() }
        };
        switch.workers[owner].order(Command::AttachTx { port, tx, offloads: offloads(), outbox: outbox() });
        if i < serving && owners.len() + relayed.len() > serving {
            switch.workers[owner].order(Command::ServeRelay { port, relay: relays[i].clone() });
        }
    }
    for (i, &w) in relayed.iter().enumerate() {
        let tx = TxPath::Relay(relays[i % serving].clone());
        sent_by[w] = owners[i % serving];
        switch.workers[w].order(Command::AttachTx { port, tx, offloads: offloads(), outbox: outbox() });
    }
    (sent_by, in_use)
}

/// Adds a VM's port.
///
/// # Errors
/// A name that is taken or bad, a device that cannot be opened.
pub async fn add_access(switch: &Shared, config: PortConfig) -> anyhow::Result<String> {
    godwit_model::check_name("port", &config.name)?;
    {
        let mut s = switch.borrow_mut();
        if config.postcopy && s.config.nve.postcopy_core.is_none() {
            bail!(
                "port {:?}: no worker is kept for post-copy ports; set nve.postcopy_core and restart the switch",
                config.name
            );
        }
        if let Some(d) = s.devices.by_name(&config.name) {
            // Managers repeat an order whose answer was lost.
            let key = Some(VmKey { vni: config.vni, mac: config.mac });
            let is_same = s.nve.ports().iter().any(|p| p.name == config.name && p.key == key);
            if is_same && d.devargs == config.devargs {
                return Ok(format!("port {} is there already", config.name));
            }
            bail!("port {:?} is there already, on {}; remove it or use another name", d.name, d.devargs);
        }
        let taken = s.devices.refuse_taken(&config.devargs);
        taken.with_context(|| format!("port {:?}", config.name))?;
        s.devices.begin(&config.name, &config.devargs)?;
    }
    let result = add_opened(switch, &config).await;
    switch.borrow_mut().devices.end(&config.name);
    result
}

async fn add_opened(switch: &Shared, config: &PortConfig) -> anyhow::Result<String> {
    let wanted = Wanted {
        name: config.name.clone(),
        devargs: config.devargs.clone(),
        rx_queues: config.rx_queues,
        mtu: config.mtu,
        is_access: true,
        postcopy: config.postcopy,
        checksums: None,
        bond: None,
        tagged: false,
    };
    let (workers, pool) = {
        let s = switch.borrow();
        (s.workers.len(), s.pool.clone())
    };
    // Probing takes milliseconds, in which the control thread goes on.
    let (wanted, opened) = tokio::task::spawn_blocking(move || {
        let opened = open(&wanted, workers, pool);
        (wanted, opened)
    })
    .await
    .context("opening the device failed")?;
    let port = attach(&mut switch.borrow_mut(), &wanted, opened?, |_| PortSpec::Access {
        vni: config.vni,
        mac: config.mac,
        explicit_activation: config.activate == Activation::Explicit,
    })?;
    for &ip in &config.ips {
        let (vni, mac) = (config.vni, config.mac);
        switch.borrow_mut().input(Input::StaticNeighbor { vni, ip, mac, router: false });
    }
    static_config::add_behind(&mut switch.borrow_mut(), &config.name, port);
    if config.activate == Activation::Start {
        switch.borrow_mut().input(Input::ActivatePort { port });
    }
    Switch::settled(switch).await;
    Ok(format!("port {} added as number {}", config.name, port.0))
}

/// Removes a VM's port: its queues are drained, then its device is closed.
///
/// # Errors
/// An unknown name, an uplink, or a device that does not close.
pub async fn remove(switch: &Shared, name: &str) -> anyhow::Result<String> {
    let number = switch.borrow().access_port(name)?;
    let devargs = switch.borrow().devices.get(number).map(|d| d.devargs.clone()).unwrap_or_default();
    begin(switch, number, (name, &devargs)).await?;
    let result = close(switch, name, number).await;
    switch.borrow_mut().devices.end(name);
    result?;
    tracing::info!(port = name, "port removed");
    Ok(format!("port {name} removed"))
}

/// Claims a port for a change; waits for a device that is just being let go of or taken back.
async fn begin(switch: &Shared, number: PortIdx, (name, devargs): (&str, &str)) -> anyhow::Result<()> {
    let is_busy = |switch: &Shared| switch.borrow().devices.get(number).is_some_and(|d| d.presence.is_busy());
    let mut looks = 0;
    while is_busy(switch) && looks < RETURN_LOOKS {
        tokio::time::sleep(RETURN_LOOK).await;
        looks += 1;
    }
    switch.borrow_mut().devices.begin(name, devargs)
}

async fn close(switch: &Shared, name: &str, number: PortIdx) -> anyhow::Result<()> {
    let device = detach(switch, number).await?;
    // It may be gone already.
    let Some(port) = device.port else { return Ok(()) };
    tokio::task::spawn_blocking(move || port.close())
        .await
        .with_context(|| format!("closing port {name:?} failed"))?
        .with_context(|| format!("port {name:?}"))
}

async fn detach(switch: &Shared, port: PortIdx) -> anyhow::Result<Device> {
    drop(take_queues(switch, port).await);
    switch.borrow_mut().input(Input::PortRemoved { port });
    Switch::settled(switch).await;
    take_ways(switch, port).await;
    let mut switch = switch.borrow_mut();
    switch.workers.iter_mut().for_each(|w| w.order(Command::RetirePort { port }));
    let device = switch.devices.map.remove(&port);
    device.ok_or_else(|| anyhow!("the port went away meanwhile"))
}

/// Takes all ways to a port from the workers.
pub(crate) async fn take_ways(switch: &Shared, port: PortIdx) {
    let ways: Vec<_> = {
        let mut s = switch.borrow_mut();
        s.workers.iter_mut().map(|w| w.ask(Command::DetachTx { port })).collect()
    };
    for way in ways {
        // The queue or relay is dropped here, on the control thread.
        drop(way.await);
    }
}

/// Takes a port's receive queues from their workers.
pub(crate) async fn take_queues(switch: &Shared, port: PortIdx) -> Vec<(u16, RxQueue)> {
    let asked: Vec<_> = {
        let mut s = switch.borrow_mut();
        let polled = s.devices.get(port).map(|d| d.polled_by.clone()).unwrap_or_default();
        polled.iter().map(|&(queue, w)| s.workers[w].ask(Command::DetachRx { port, queue })).collect()
    };
    let mut queues = Vec::new();
    for answer in asked {
        if let Ok(Reply::Rx { queue, rx: Some(rx), .. }) = answer.await {
            queues.push((queue, rx));
        }
    }
    queues
}
