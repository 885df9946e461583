//! The switch: the ONE place where devices, tables, queues, workers and control are wired.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use godwit_control::{Input, Level, Nve, NveConfig, Outputs, PortSpec, UplinkSpec, UplinkV4, UplinkV6};
use godwit_dpdk::{Eal, EalConfig, HugePages, Mempool, Pci};
use godwit_model::message::NveToNva;
use godwit_model::{Locators, NveId};
use godwit_tables::update::{HoldLimits, PortIdx};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{HashKey, Mac, Rate, Span, Vni};
use godwit_worker::command::{Command, Mailbox, Reply, SmallFrame};
use godwit_worker::worker::Worker;
use tokio::sync::oneshot;

use crate::config::{Config, DirectoryKind, Hugepages, OuterChoice, UplinkConfig};
use crate::devices::Devices;
use crate::placement::WorkerAt;
use crate::ports::{self, Wanted};
use crate::workers::{self, Since, Thread, WorkerHandle};
use crate::{cores, numa, statics, underlay};

/// Bytes of a packet buffer behind its headroom, at least: a 1,550-byte outer packet with room to spare.
const DATA_ROOM: usize = 2048;
/// What a frame has besides its IP packet: Ethernet header, two tags, FCS.
const FRAME_OVERHEAD: usize = 14 + 8 + 4;
/// Bytes that a buffer takes of the pool's memory besides its data: headroom, header, bookkeeping.
const BUFFER_EXTRA: usize = 512;
/// Share of the memory that packet buffers take; the rest is for device rings and DPDK itself.
const POOL_SHARE: f64 = 0.5;

/// How long after its activation, and again after the grant, what a VM that has moved in does not take at once can
/// wait. The old NVE sends what it held when it hears of the grant, in one burst. Longer, the VM's frames would go
/// the slower way for nothing.
const SETTLE: Span = Span::from_ms(5000);

/// How long uplinks wait at the start for an NVA that cannot be reached (R96).
const LOCATOR_GUARD_MS: u64 = 3000;
/// A worker that takes longer to stop is told of.
const STOPS: Duration = Duration::from_secs(1);
/// And one that takes longer to do as ordered.
const SETTLES: Duration = Duration::from_secs(5);

/// All of a running switch that control owns.
pub struct Switch {
    /// The configuration it was started with.
    pub config: Config,
    /// The pure core of control.
    pub nve: Nve,
    /// Control's sides of the workers.
    pub workers: Vec<WorkerHandle>,
    /// The devices.
    pub devices: Devices,
    /// Packet buffers.
    pub pool: Arc<Mempool>,
    /// The switch's clock.
    pub clock: Since,
    /// EAL uses hugepages.
    pub hugepages: bool,
    /// A driver said that a link changed; control looks within a millisecond.
    pub links_changed: Arc<AtomicBool>,
    /// The kernel's routes that are not in use, and why.
    pub ignored_routes: Vec<crate::kernel::Ignored>,
    outputs: Outputs,
    /// What waits to be said to the NVA, in order; the session takes it.
    to_nva: Vec<NveToNva>,
    barriers: Vec<(usize, u64, oneshot::Receiver<Reply<godwit_worker::dpdk::DpdkIo>>)>,
    /// The EAL ends with the switch, after everything that uses it.
    _eal: Eal,
}

impl Switch {
    /// Starts EAL, buffers, workers and the configured ports, in this order.
    ///
    /// # Errors
    /// What could not be started, and the remedy.
    pub async fn start(config: Config) -> anyhow::Result<Rc<RefCell<Switch>>> {
        let worker_cores = cores::parse(&config.nve.workers).map_err(|e| anyhow!(e))?;
        let control_core = control_core(&config, &worker_cores);
        let eal = start_eal(&config, control_core)?;
        core_affinity::set_for_current(core_affinity::CoreId { id: control_core });
        let room = data_room(&config);
        let buffers = (config.nve.memory_mb as f64 * 1048576.0 * POOL_SHARE) as usize / (room + BUFFER_EXTRA);
        let pool = packet_buffers(&config, &worker_cores, buffers as u32, room as u16)
            .context("cannot make the packet buffers; raise nve.memory_mb or free hugepages")?;
        let clock = Since::now_is_zero();
        let workers = start_workers(&config, &worker_cores, &pool, clock)?;
        let nve = Nve::new(nve_config(&config, workers.len())?);
        let hugepages = eal.uses_hugepages();
        let switch = Switch {
            nve,
            workers,
            devices: Devices::default(),
            pool,
            clock,
            hugepages,
            links_changed: Arc::default(),
            ignored_routes: Vec::new(),
            outputs: Outputs::default(),
            to_nva: Vec::new(),
            barriers: Vec::new(),
            _eal: eal,
            config,
        };
        let switch = Rc::new(RefCell::new(switch));
        if let Err(e) = add_configured_ports(&switch).await {
            // Said at once: what stops takes its time, and a device that hangs may take all of it.
            tracing::error!("the switch cannot start: {e:#}");
            // The workers let go of their queues, so that the devices that are there close, and their sockets with
            // them.
            Switch::stop(switch).await;
            return Err(e);
        }
        Ok(switch)
    }

    /// Tells control that something happened, and carries out what it wants done.
    pub fn input(&mut self, input: Input) {
        let now = self.clock.now();
        self.nve.handle(now, wall_us(), input, &mut self.outputs);
        self.dispatch();
    }

    fn dispatch(&mut self) {
        let mut out = std::mem::take(&mut self.outputs);
        for (worker, update) in out.updates.drain(..) {
            self.workers[worker].update(update);
        }
        for (worker, token) in out.barriers.drain(..) {
            let reached = self.workers[worker].ask(Command::Barrier { token });
            self.barriers.push((worker, token, reached));
        }
        for (port, frame) in out.frames.drain(..) {
            match SmallFrame::new(&frame) {
                // Any worker reaches any port; the first always exists.
                Some(frame) => self.workers[0].order(Command::Send { port, frame }),
                None => {
                    tracing::error!(port = port.0, len = frame.len(), "control made a frame that is too long")
                }
            }
        }
        self.to_nva.append(&mut out.to_nva);
        for note in out.notes.drain(..) {
            match note.level {
                Level::Debug => tracing::debug!("{note}"),
                Level::Info => tracing::info!("{note}"),
                Level::Warn => tracing::warn!("{note}"),
                Level::Alarm => tracing::error!("{note}"),
            }
        }
        self.outputs = out;
    }

    /// Takes what the workers said, and hands it to control. Returns whether there was anything.
    pub fn poll_workers(&mut self) -> bool {
        let mut any = false;
        for worker in 0..self.workers.len() {
            self.workers[worker].pump();
            for _ in 0..workers::EVENTS {
                let Some(event) = self.workers[worker].event() else { break };
                any = true;
                self.input(Input::Worker { worker, event });
            }
        }
        any | self.poll_barriers()
    }

    fn poll_barriers(&mut self) -> bool {
        let mut reached = Vec::new();
        self.barriers.retain_mut(|(worker, token, receiver)| match receiver.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => true,
            Ok(_) => {
                reached.push((*worker, *token));
                false
            }
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        for &(worker, token) in &reached {
            self.input(Input::Applied { worker, token });
        }
        !reached.is_empty()
    }

    /// Lets control look at its timers.
    pub fn run_timers(&mut self) {
        if self.nve.next_deadline().is_some_and(|due| due <= self.clock.now()) {
            self.input(Input::Tick);
        }
    }

    /// Tells control of devices whose link changed, and workers what guests take unfinished.
    pub fn poll_links(&mut self) {
        for d in self.devices.iter() {
            if let Some(takes) = d.takes.as_ref().filter(|_| d.is_access) {
                takes.set(d.port.guest_takes());
            }
        }
        let mut changed = Vec::new();
        for d in self.devices.iter_mut().filter(|d| d.link_counts) {
            let up = d.look_at_link();
            d.follow_guest(up);
            if up != d.link_up {
                d.link_up = up;
                changed.push((d.number, up));
            }
        }
        for (port, up) in changed {
            self.input(Input::PortLink { port, up });
        }
    }

    /// What is to be said to the NVA, in order.
    pub fn take_to_nva(&mut self) -> Vec<NveToNva> {
        std::mem::take(&mut self.to_nva)
    }

    /// Workers have so much to do that control should take nothing more from the NVA.
    pub fn is_behind(&self) -> bool {
        self.workers.iter().any(WorkerHandle::is_behind)
    }

    /// Waits until every order given so far has taken effect in every worker.
    pub async fn settled(switch: &Rc<RefCell<Switch>>) {
        let barriers: Vec<_> = {
            let mut s = switch.borrow_mut();
            s.workers.iter_mut().map(|w| w.ask(Command::Barrier { token: 0 })).collect()
        };
        for (worker, mut barrier) in barriers.into_iter().enumerate() {
            // A worker that is stopping answers nothing; nothing is to be waited for then.
            while tokio::time::timeout(SETTLES, &mut barrier).await.is_err() {
                let core = switch.borrow().workers[worker].at.core;
                tracing::warn!(core, "the worker has not taken its orders for {SETTLES:?}: waiting for it");
            }
        }
    }

    /// The number of a VM's port.
    ///
    /// # Errors
    /// An unknown name, or the port of an uplink.
    pub fn access_port(&self, name: &str) -> Result<PortIdx, String> {
        let device = self.devices.by_name(name).ok_or_else(|| self.no_port(name))?;
        if device.is_access {
            Ok(device.number)
        } else {
            Err(format!(
                "port {name:?} is no VM's port; uplinks stay as configured until the switch restarts"
            ))
        }
    }

    /// The refusal of an unknown name.
    pub fn no_port(&self, name: &str) -> String {
        let names: Vec<&str> = self.devices.iter().map(|d| d.name.as_str()).collect();
        format!("NVE {} has no port {name:?}; it has {}", self.config.nve.id, names.join(", "))
    }

    /// Stops the workers and closes the devices.
    pub async fn stop(switch: Rc<RefCell<Switch>>) {
        let stopped: Vec<_> = {
            let mut s = switch.borrow_mut();
            s.workers.iter_mut().map(|w| w.ask(Command::Stop)).collect()
        };
        for (worker, answer) in stopped.into_iter().enumerate() {
            for w in &mut switch.borrow_mut().workers {
                w.pump();
            }
            if tokio::time::timeout(STOPS, pumped(&switch, answer)).await.is_err() {
                let core = switch.borrow().workers[worker].at.core;
                tracing::warn!(core, "the worker has not stopped in {STOPS:?}: waiting for it");
            }
        }
        for w in &mut switch.borrow_mut().workers {
            w.join();
        }
    }
}

/// Waits for an answer while nothing else pumps the workers' queues.
async fn pumped<T>(switch: &Rc<RefCell<Switch>>, mut answer: oneshot::Receiver<T>) {
    while matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
        switch.borrow_mut().workers.iter_mut().for_each(WorkerHandle::pump);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Wall-clock time in microseconds since 1970.
pub fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// Bytes that a buffer holds: any frame of any uplink, in one piece. What a guest leaves to be cut is
/// larger and comes in several buffers.
fn data_room(config: &Config) -> usize {
    let largest = config.uplinks.iter().map(|u| usize::from(u.mtu)).max().unwrap_or(0);
    (largest + FRAME_OVERHEAD).next_multiple_of(64).max(DATA_ROOM)
}

/// The configured control core, else the lowest without a worker, else the first worker's.
fn control_core(config: &Config, workers: &[usize]) -> usize {
    let free = || cores::online().into_iter().find(|c| !workers.contains(c));
    config.nve.control_core.or_else(free).unwrap_or(workers[0])
}

/// The configured devices that are PCI cards.
fn cards(config: &Config) -> Vec<String> {
    let members = |u: &'_ UplinkConfig| u.bond.iter().flat_map(|b| b.members.clone()).collect::<Vec<_>>();
    let own = config.uplinks.iter().flat_map(|u| members(u).into_iter().chain([u.devargs.clone()]));
    let uplinks = own.chain(config.uplinks.iter().filter_map(|u| u.exception.clone()));
    let devices = uplinks.chain(config.ports.iter().map(|p| p.devargs.clone()));
    devices.filter(|d| is_pci(d)).collect()
}

/// Packet buffers on the node of cards and workers; on any where that one has no memory for them.
fn packet_buffers(
    config: &Config,
    worker_cores: &[usize],
    count: u32,
    room: u16,
) -> Result<Arc<Mempool>, godwit_dpdk::Error> {
    let workers: Vec<_> = worker_cores.iter().map(|core| cores::node(*core)).collect();
    let cards: Vec<_> = cards(config).iter().map(|c| numa::of_card(c, Path::new("/sys"))).collect();
    let make =
        |node: Option<u32>| Mempool::new("godwit", count, 256, room, node.and_then(|n| n.try_into().ok()));
    let node = numa::of_buffers(&workers, &cards);
    make(node).or_else(|e| {
        let Some(node) = node else { return Err(e) };
        tracing::warn!("no packet buffers on NUMA node {node}, so on any: {e}");
        make(None)
    })
}

fn start_eal(config: &Config, control_core: usize) -> anyhow::Result<Eal> {
    let eal = EalConfig {
        main_core: Some(control_core),
        memory_mb: config.nve.memory_mb as u32,
        huge: match config.nve.hugepages {
            Hugepages::Auto => HugePages::Auto,
            Hugepages::Always => HugePages::Always,
            Hugepages::Never => HugePages::Never,
        },
        extra_args: config.nve.eal.clone(),
        // With an empty list EAL takes no device at its start, and ports can still be added later.
        pci: Pci::Listed(cards(config)),
        ..EalConfig::default()
    };
    Eal::init(eal).context("cannot start DPDK")
}

/// Whether devargs begin with a PCI address, `0000:03:00.0` or `03:00.0`.
pub fn is_pci(devargs: &str) -> bool {
    let address = devargs.split(',').next().unwrap_or_default();
    address.contains(':') && address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
}

fn start_workers(
    config: &Config,
    cores: &[usize],
    pool: &Arc<Mempool>,
    clock: Since,
) -> anyhow::Result<Vec<WorkerHandle>> {
    let mut handles = Vec::new();
    for (number, &core) in cores.iter().enumerate() {
        let mailbox = Mailbox::new(workers::MAILBOX, workers::EVENTS);
        let tables = Tables::new(&TablesConfig {
            location_capacity: config.nve.locations,
            hold_bytes: (config.nve.hold_memory_mb << 20) / cores.len(),
            vxlan_port: config.nve.vxlan_port,
            redirect_interval: Span::from_ms(config.nve.redirect_ms),
            settle: SETTLE,
            miss_hold_packets: config.nve.miss_hold_packets,
            udp_checksum: config.nve.udp_checksum,
            copy_dscp: config.nve.copy_dscp,
            // Every NVE uses the same: an inner flow keeps its source port when it is forwarded (R2).
            hash_key: HashKey::new(config.nve.flow_hash_key, !config.nve.flow_hash_key),
            question_rate: Rate::per_second(config.nve.question_rate, config.nve.question_burst),
            resolution_rate: Rate::per_second(config.nve.resolution_rate, config.nve.resolution_burst),
            // Nobody else needs to know this one, and tenants shall not be able to guess it.
            table_seed: [random(), random()],
            ..TablesConfig::default()
        });
        let worker = Worker::new(tables, pool.clone(), mailbox.clone());
        let idle_sleep = Duration::from_micros(config.nve.idle_sleep_us);
        let thread = workers::spawn(worker, Thread { number, core, clock, idle_sleep })
            .with_context(|| format!("cannot start worker {number}"))?;
        let postcopy = config.nve.postcopy_core == Some(core);
        let at = WorkerAt { core, node: cores::node(core), postcopy };
        handles.push(WorkerHandle::new(at, mailbox, clock, thread));
    }
    Ok(handles)
}

fn pulled(config: &Config) -> BTreeSet<Vni> {
    config.vns.iter().filter(|v| v.directory == DirectoryKind::Pull).map(|v| v.vni).collect()
}

fn nve_config(config: &Config, workers: usize) -> anyhow::Result<NveConfig> {
    let n = &config.nve;
    let hold = HoldLimits { packets: n.handover_hold_packets, age: Span::from_ms(n.handover_hold_ms) };
    Ok(NveConfig {
        software: format!("godwit {}", crate::VERSION),
        locators: Locators { v4: config.underlay.locator4, v6: config.underlay.locator6 },
        liveness: underlay::liveness(&config.underlay),
        instance: random(),
        locator_guard: Span::from_ms(if n.nva.is_some() { LOCATOR_GUARD_MS } else { 0 }),
        outer: match n.outer {
            OuterChoice::Auto => godwit_control::OuterChoice::Auto,
            OuterChoice::V4 => godwit_control::OuterChoice::V4,
            OuterChoice::V6 => godwit_control::OuterChoice::V6,
        },
        fwd_timer: Span::from_ms(n.fwd_timer_s * 1000),
        handover_hold: hold,
        arrive_hold: hold,
        vxlan_port: n.vxlan_port,
        forward_in_flight: n.forward_in_flight,
        redirect_ival: Span::from_ms(n.redirect_ms),
        headless: Span::from_ms(n.headless_s * 1000),
        address_check: Span::from_ms(n.address_check_s * 1000),
        pull: pulled(config),
        scan_rate: n.scan_rate,
        scan_tries: n.scan_tries,
        query_rate: Rate::per_second(n.query_rate, n.query_rate.div_ceil(10)),
        claim_rate: Rate::per_second(n.claim_rate, n.claim_rate),
        ..NveConfig::new(NveId::new(n.id.clone())?, workers)
    })
}

async fn add_configured_ports(switch: &Rc<RefCell<Switch>>) -> anyhow::Result<()> {
    let config = switch.borrow().config.clone();
    for uplink in &config.uplinks {
        add_uplink(&mut switch.borrow_mut(), uplink).map_err(|e| anyhow!(e))?;
    }
    underlay::add_routes(&mut switch.borrow_mut()).map_err(|e| anyhow!(e))?;
    statics::add(&mut switch.borrow_mut(), &config);
    let pump = tokio::task::spawn_local(pump_forever(switch.clone()));
    let mut added = Ok(String::new());
    for port in &config.ports {
        added = ports::add_access(switch, port.clone()).await;
        if added.is_err() {
            break;
        }
    }
    pump.abort();
    // It has a hold on the switch until it has ended.
    let _ = pump.await;
    added.map(|_| ()).map_err(|e| anyhow!(e))
}

/// Keeps answers flowing while ports are added before the control loop runs.
async fn pump_forever(switch: Rc<RefCell<Switch>>) {
    loop {
        switch.borrow_mut().poll_workers();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn add_uplink(switch: &mut Switch, u: &UplinkConfig) -> Result<(), String> {
    let (workers, pool) = (switch.workers.len(), switch.pool.clone());
    let wanted = Wanted {
        name: u.name.clone(),
        devargs: u.bond.as_ref().map_or_else(|| u.devargs.clone(), ToString::to_string),
        rx_queues: u.rx_queues,
        mtu: u.mtu,
        is_access: false,
        postcopy: false,
        checksums: switch.config.nve.udp_checksum.then_some(u.offloads),
        bond: u.bond.clone(),
        tagged: u.vlan.is_some(),
    };
    let opened = ports::open(&wanted, workers, pool.clone())?;
    // The host's side has the uplink's address: what others send to it comes in here, and is looked at if it is ours.
    let mac = opened.mac();
    let (wanted_uplink, opened_uplink) = (wanted, opened);
    let exception = match &u.exception {
        None => None,
        Some(devargs) => {
            let wanted = Wanted {
                name: format!("{}.exception", u.name),
                devargs: underlay::with_mac(devargs, mac),
                rx_queues: 1,
                mtu: 0,
                is_access: false,
                postcopy: false,
                checksums: None,
                bond: None,
                tagged: false,
            };
            let opened = ports::open(&wanted, workers, pool)?;
            underlay::check_mac(&wanted.name, opened.mac(), mac);
            // The uplink's number is not known yet; it is told below.
            Some(ports::attach(switch, &wanted, opened, |d| PortSpec::Exception { uplink: d.number })?)
        }
    };
    let link_local = switch.config.underlay.has_locator() && u.ipv6.is_none();
    let number = ports::attach(switch, &wanted_uplink, opened_uplink, |d| {
        let spec = uplink_spec(u, d.mac, u.mtu.min(d.mtu), exception);
        // Without an address of its own it asks from this one, and answers for it.
        PortSpec::Uplink(UplinkSpec { v6_link_local: link_local.then(|| d.mac.link_local()), ..spec })
    })?;
    if let Some(port) = exception {
        let name = format!("{}.exception", u.name);
        let workers =
            switch.devices.get(port).map(|d| d.polled_by.iter().map(|q| q.1).collect()).unwrap_or_default();
        switch.input(Input::PortAdded { port, name, spec: PortSpec::Exception { uplink: number }, workers });
    }
    Ok(())
}

fn uplink_spec(u: &UplinkConfig, mac: Mac, mtu: u16, exception: Option<PortIdx>) -> UplinkSpec {
    UplinkSpec {
        mac,
        v4: u.ipv4.map(|p| UplinkV4 { addr: p.addr, prefix_len: p.len, gateway: u.gateway4 }),
        v6: u.ipv6.map(|p| UplinkV6 { addr: p.addr, prefix_len: p.len, gateway: u.gateway6 }),
        v6_link_local: None,
        mtu,
        exception,
        vlan: u.vlan,
    }
}

/// Locators of another NVE that is known by one of them only.
pub fn locators_of(ip: IpAddr) -> Locators {
    match ip {
        IpAddr::V4(a) => Locators { v4: Some(a), v6: None },
        IpAddr::V6(a) => Locators { v4: None, v6: Some(a) },
    }
}
