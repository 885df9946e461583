//! Ports: devices that come, go and change workers while traffic runs.
//!
//! The order of steps is what keeps frames: a port's ways out are there before its role, its role
//! before its receive queues; and on its way out all that in reverse, each step answered by every
//! worker before the next.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::queue::ArrayQueue;
use godwit_control::{Input, PortSpec, WorkerSet};
use godwit_dpdk::{Mempool, Port, PortConfig as DeviceConfig, RxQueue, TxQueue};
use godwit_pipeline::packet::Takes;
use godwit_tables::update::{MAX_PORTS, PortIdx};
use godwit_wire::Mac;
use godwit_worker::command::{Command, Reply, TxPath};
use godwit_worker::outbox::OUTBOX;
use godwit_worker::takes::{SharedTakes, SharedUse};

use crate::bonds::Legs;
use crate::config::{Activation, BondConfig, Offloads, PortConfig};
use crate::devices::{Device, queue_of};
use crate::offloads::{self, Verdict};
use crate::placement::{self, Queue};
use crate::switch::{Switch, is_pci};
use crate::{numa, statics, underlay};

type Shared = Rc<RefCell<Switch>>;

/// The driver of ports whose guest decides which queues are in use.
const VHOST: &str = "net_vhost";

/// Frames that other workers may leave for a port between two iterations of the one that sends them.
const RELAY: usize = 4096;

/// What is wanted of a device.
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// PCI address or vdev arguments.
    pub devargs: String,
    /// Receive queues.
    pub rx_queues: u16,
    /// Largest IP packet; 0: the device's own.
    pub mtu: u16,
    /// A VM is behind it.
    pub is_access: bool,
    /// Its memory may be missing for a while: post-copy migration.
    pub postcopy: bool,
    /// Outer UDP checksums are wanted of it, by the card on this condition.
    pub checksums: Option<Offloads>,
    /// Several devices as one, in place of `devargs`.
    pub bond: Option<BondConfig>,
    /// Its frames have an 802.1Q tag, which `mtu` does not count.
    pub tagged: bool,
}

/// A started device with its queues.
pub struct Opened {
    port: Port,
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
    guest_offloads: bool,
    checksums: Option<Verdict>,
}

impl Opened {
    /// The device's own address.
    pub fn mac(&self) -> Mac {
        Mac(self.port.mac())
    }
}

/// Probes, configures and starts a device. Takes milliseconds; call it off the control thread.
///
/// # Errors
/// What DPDK said, with the device's name and a remedy.
pub fn open(wanted: &Wanted, workers: usize, pool: Arc<Mempool>) -> Result<Opened, String> {
    let failed = |e: &dyn std::fmt::Display| format!("port {:?}: {e}", wanted.name);
    let mut port = plug(wanted).map_err(|e| failed(&e))?;
    let (rx_queues, tx_queues) = queues_of(wanted, workers, &port).map_err(|e| failed(&e))?;
    let checksums = match wanted.checksums {
        Some(offloads) => Some(offloads::decide(offloads, &mut port, &pool).map_err(|e| failed(&e))?),
        None => None,
    };
    let config = DeviceConfig {
        tx_checksums: checksums.as_ref().is_some_and(Verdict::by_card),
        rx_queues,
        tx_queues,
        mtu: (wanted.mtu != 0).then_some(wanted.mtu),
        rss: wanted.rx_queues > 1 && rx_queues == wanted.rx_queues,
        guest_offloads: wanted.is_access,
        tagged: wanted.tagged,
        ..DeviceConfig::new(pool)
    };
    let report = port.configure(config).map_err(|e| failed(&e))?;
    for note in &report.notes {
        tracing::info!(port = %wanted.name, "{note}");
    }
    if let Some(verdict) = &checksums {
        verdict.log(&wanted.name);
    }
    let (rx, tx) = port.start().map_err(|e| failed(&e))?;
    Ok(Opened { port, rx, tx, guest_offloads: report.guest_offloads, checksums })
}

/// Plugs the device in, or the devices of a bond.
fn plug(wanted: &Wanted) -> Result<Port, godwit_dpdk::Error> {
    match &wanted.bond {
        Some(bond) => {
            let members: Vec<&str> = bond.members.iter().map(String::as_str).collect();
            Port::bond(&wanted.name, bond.mode.into(), &members)
        }
        None if wanted.is_access => Port::probe(&guest_devargs(&wanted.devargs)),
        None => Port::probe(&wanted.devargs),
    }
}

/// Receive and transmit queues to ask for: as many as are wanted, and one a worker.
///
/// A guest on vhost-user decides by itself how many of its queues it uses, at any time: all of those it
/// sends by are polled. Its first is the only one that is sure to be in use; of the others each worker has one,
/// and sends by it while the guest says that it receives by it ([`TxPath::Either`]). Packet sockets spread frames
/// over all of theirs, told or not.
fn queues_of(wanted: &Wanted, workers: usize, port: &Port) -> Result<(u16, u16), godwit_dpdk::Error> {
    if wanted.is_access && port.driver_name() == VHOST {
        let info = port.dev_info()?;
        // Memory that may be missing is touched by one worker only.
        let senders = if wanted.postcopy { 1 } else { workers as u16 };
        return Ok((info.max_rx_queues, info.max_tx_queues.clamp(1, senders)));
    }
    if port.has_driver("net_af_packet") {
        return Ok((port.dev_info()?.max_rx_queues, workers as u16));
    }
    Ok((wanted.rx_queues, workers as u16))
}

/// Offers TCP segmentation to a vhost-user guest, unless the arguments speak of it themselves (R11). All
/// switches should offer the same: a guest takes what it was offered along when it moves.
fn guest_devargs(devargs: &str) -> String {
    let vhost = ["net_vhost", "eth_vhost"].iter().any(|driver| devargs.starts_with(driver));
    let said = devargs.split(',').any(|arg| arg.trim().starts_with("tso="));
    if vhost && !said { format!("{devargs},tso=1") } else { devargs.to_owned() }
}

/// Gives an opened device a number and hands its queues to the workers.
pub fn attach(
    switch: &mut Switch,
    wanted: &Wanted,
    opened: Opened,
    spec: impl FnOnce(&Device) -> PortSpec,
) -> Result<PortIdx, String> {
    let Opened { port, rx, tx, guest_offloads, checksums } = opened;
    let number = switch.devices.free_number().ok_or_else(|| {
        format!("port {:?}: all {MAX_PORTS} port numbers are taken; remove a port", wanted.name)
    })?;
    let placed = place(switch, wanted, number, &port, rx.len() as u16)?;
    warn_of_distance(switch, wanted, &port, &placed);
    let by_card = checksums.as_ref().is_some_and(Verdict::by_card);
    let takes = (guest_offloads || by_card).then(SharedTakes::default);
    if let Some(takes) = takes.as_ref().filter(|_| by_card) {
        takes.set(Takes { checksum: true, ..Takes::NOTHING });
    }
    if let Some(takes) = takes.clone().filter(|_| guest_offloads) {
        // Whoever comes next says anew what it takes; `Switch::poll_links` asks, and soon: what is sent to a guest
        // that has stopped waits for the news (R45).
        let changed = switch.links_changed.clone();
        let forget = move |_| {
            takes.set(Takes::NOTHING);
            changed.store(true, Ordering::Release);
        };
        port.set_link_callback(forget).map_err(|e| format!("port {:?}: {e}", wanted.name))?;
    }
    let device = Device {
        name: wanted.name.clone(),
        takes: takes.clone(),
        in_use: Vec::new(),
        offloads: checksums.as_ref().map(Verdict::to_string).unwrap_or_default(),
        devargs: wanted.devargs.clone(),
        number,
        polled_by: (0..).zip(placed.iter().copied()).collect(),
        sent_by: Vec::new(),
        mac: Mac(port.mac()),
        mtu: port.mtu(),
        link_counts: port.driver_name() != "net_tap",
        kernel_link: underlay::kernel_link(port.driver_name(), &wanted.devargs),
        legs: Legs::of(&port),
        // Control takes it for up. Whether a bond's partner has agreed shows at the first look.
        link_up: port.is_bond() || port.link().up,
        port,
        is_access: false,
        postcopy: wanted.postcopy,
    };
    let guests_queues = device.port.driver_name() == VHOST;
    let spec = spec(&device);
    let is_access = matches!(spec, PortSpec::Access { .. });
    switch.devices.map.insert(number, Device { is_access, ..device });
    let (sent_by, in_use) = attach_tx(switch, number, &placed, tx, takes.as_ref(), guests_queues);
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

/// Chooses the workers of a new port's receive queues, in the order of these.
fn place(
    switch: &Switch,
    wanted: &Wanted,
    number: PortIdx,
    port: &Port,
    queues: u16,
) -> Result<Vec<usize>, String> {
    let name = wanted.name.as_str();
    let new = (0..queues).map(|queue| queue_of(number, name, port, queue, wanted.postcopy));
    let mut all: Vec<Queue> = new.collect();
    all.extend(switch.devices.queues());
    let workers: Vec<_> = switch.workers.iter().map(|w| w.at).collect();
    let pins: Vec<_> = switch.config.nve.rxq_affinity.iter().filter(|p| p.port == name).cloned().collect();
    let mut placed =
        placement::assign(&all, &workers, &pins).map_err(|e| format!("nve.rxq_affinity: {e}"))?;
    placed.truncate(queues.into());
    Ok(placed)
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
fn attach_tx(
    switch: &mut Switch,
    port: PortIdx,
    polled: &[usize],
    tx: Vec<TxQueue>,
    takes: Option<&SharedTakes>,
    guests_queues: bool,
) -> (Vec<usize>, Vec<SharedUse>) {
    let takes = || takes.cloned();
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
        switch.workers[owner].order(Command::AttachTx { port, tx, takes: takes(), outbox: outbox() });
        if i < serving && owners.len() + relayed.len() > serving {
            switch.workers[owner].order(Command::ServeRelay { port, relay: relays[i].clone() });
        }
    }
    for (i, &w) in relayed.iter().enumerate() {
        let tx = TxPath::Relay(relays[i % serving].clone());
        sent_by[w] = owners[i % serving];
        switch.workers[w].order(Command::AttachTx { port, tx, takes: takes(), outbox: outbox() });
    }
    (sent_by, in_use)
}

/// Adds a VM's port.
///
/// # Errors
/// A name that is taken or bad, a device that cannot be opened.
pub async fn add_access(switch: &Shared, config: PortConfig) -> Result<String, String> {
    godwit_model::check_name("port", &config.name).map_err(|e| e.to_string())?;
    {
        let mut s = switch.borrow_mut();
        if config.postcopy && s.config.nve.postcopy_core.is_none() {
            return Err(format!(
                "port {:?}: no worker is kept for post-copy ports; set nve.postcopy_core and restart the switch",
                config.name
            ));
        }
        if let Some(d) = s.devices.by_name(&config.name) {
            return Err(format!(
                "port {:?} is there already, on {}; remove it or use another name",
                d.name, d.devargs
            ));
        }
        let refused = |e| format!("port {:?}: {e}", config.name);
        s.devices.refuse_taken(&config.devargs).map_err(refused)?;
        s.devices.begin(&config.name, &config.devargs)?;
    }
    let result = add_opened(switch, &config).await;
    switch.borrow_mut().devices.end(&config.name);
    result
}

async fn add_opened(switch: &Shared, config: &PortConfig) -> Result<String, String> {
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
    .map_err(|e| format!("opening the device failed: {e}"))?;
    let port = attach(&mut switch.borrow_mut(), &wanted, opened?, |_| PortSpec::Access {
        vni: config.vni,
        mac: config.mac,
        explicit_activation: config.activate == Activation::Explicit,
    })?;
    for &ip in &config.ips {
        let (vni, mac) = (config.vni, config.mac);
        switch.borrow_mut().input(Input::StaticNeighbor { vni, ip, mac, router: false });
    }
    statics::add_behind(&mut switch.borrow_mut(), &config.name, port);
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
pub async fn remove(switch: &Shared, name: &str) -> Result<String, String> {
    let number = switch.borrow().access_port(name)?;
    {
        let mut s = switch.borrow_mut();
        let devargs = s.devices.get(number).map(|d| d.devargs.clone()).unwrap_or_default();
        s.devices.begin(name, &devargs)?;
    }
    let result = close(switch, name, number).await;
    switch.borrow_mut().devices.end(name);
    result?;
    tracing::info!(port = name, "port removed");
    Ok(format!("port {name} removed"))
}

async fn close(switch: &Shared, name: &str, number: PortIdx) -> Result<(), String> {
    let device = detach(switch, number).await?;
    tokio::task::spawn_blocking(move || device.port.close())
        .await
        .map_err(|e| format!("closing port {name:?} failed: {e}"))?
        .map_err(|e| format!("port {name:?}: {e}"))
}

async fn detach(switch: &Shared, port: PortIdx) -> Result<Device, String> {
    drop(take_queues(switch, port).await);
    switch.borrow_mut().input(Input::PortRemoved { port });
    Switch::settled(switch).await;
    let ways: Vec<_> = {
        let mut s = switch.borrow_mut();
        s.workers.iter_mut().map(|w| w.ask(Command::DetachTx { port })).collect()
    };
    for way in ways {
        // The queue or relay is dropped here, on the control thread.
        drop(way.await);
    }
    let mut switch = switch.borrow_mut();
    switch.workers.iter_mut().for_each(|w| w.order(Command::RetirePort { port }));
    let device = switch.devices.map.remove(&port);
    device.ok_or_else(|| "the port went away meanwhile".into())
}

/// Takes a port's receive queues from their workers.
async fn take_queues(switch: &Shared, port: PortIdx) -> Vec<(u16, RxQueue)> {
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
