//! The start of a switch: EAL, packet buffers, workers, control and the configured ports.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use godwit_control::{Nve, NveConfig};
use godwit_dpdk::{Eal, EalConfig, HugePages, Mempool, Pci};
use godwit_model::{Abilities, Locators, ModeSet, MoveMode, NveId};
use godwit_tables::holds::{CHUNK, SharedChunks};
use godwit_tables::update::HoldLimits;
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{HashKey, Rate, Span, Vni};
use godwit_worker::command::Mailbox;
use godwit_worker::worker::Worker;

use crate::config::{
    Config, DirectoryKind, Hugepages, MoveModeKind, OuterChoice, UplinkConfig, room_for_vms,
};
use crate::devices::is_pci;
use crate::placement::WorkerAt;
use crate::switch::{Shared, Switch};
use crate::workers::{self, Since, Thread, WorkerHandle};
use crate::{cores, numa, ports, static_config, underlay, uplinks};

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

/// Starts EAL, buffers, workers and the configured ports, in this order.
///
/// # Errors
/// What could not be started, and the remedy.
pub async fn start(config: Config) -> anyhow::Result<Shared> {
    let worker_cores = cores::parse(&config.nve.workers)?;
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
    let switch = Rc::new(RefCell::new(Switch::new(config, nve, workers, pool, clock, eal)));
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

/// A number that nobody can foresee.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
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

fn start_workers(
    config: &Config,
    cores: &[usize],
    pool: &Arc<Mempool>,
    clock: Since,
) -> anyhow::Result<Vec<WorkerHandle>> {
    let mut handles = Vec::new();
    let hold_half = (config.nve.hold_memory_mb << 20) / 2;
    let hold_shared = SharedChunks::of(hold_half);
    for (number, &core) in cores.iter().enumerate() {
        let mailbox = Mailbox::new(workers::MAILBOX, workers::EVENTS);
        let tables = Tables::new(&TablesConfig {
            location_capacity: config.nve.locations,
            neighbor_capacity: config.nve.addresses,
            route_capacity: config.nve.routes,
            // One VM's packets may all come by one worker, so that a part is for whoever needs it.
            hold_bytes: (hold_half / cores.len()).max(CHUNK),
            hold_shared: hold_shared.clone(),
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

/// The moves that the NVA is told of (R56).
fn move_modes(modes: &[MoveModeKind]) -> ModeSet {
    let modes: Vec<MoveMode> = modes.iter().map(|m| (*m).into()).collect();
    ModeSet::of(&modes)
}

fn nve_config(config: &Config, workers: usize) -> anyhow::Result<NveConfig> {
    let n = &config.nve;
    let age = Span::from_ms(n.handover_hold_ms);
    let hold = n.handover_hold_packets.map_or(HoldLimits::of_age(age), |packets| HoldLimits { packets, age });
    let room = u32::try_from(room_for_vms(config)).unwrap_or(u32::MAX);
    let capacity = n.vm_capacity.min(room.max(1));
    let defaults = NveConfig::new(NveId::new(n.id.clone())?, workers);
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
        check_senders: n.check_senders,
        forward_in_flight: n.forward_in_flight,
        marker_wait: Span::from_ms(n.marker_wait_ms),
        redirect_ival: Span::from_ms(n.redirect_ms),
        headless: Span::from_ms(n.headless_s * 1000),
        address_check: Span::from_ms(n.address_check_s * 1000),
        pull: pulled(config),
        scan_rate: n.scan_rate,
        scan_tries: n.scan_tries,
        query_rate: Rate::per_second(n.query_rate, n.query_rate.div_ceil(10)),
        claim_rate: Rate::per_second(n.claim_rate, n.claim_rate),
        abilities: Abilities {
            modes: move_modes(&n.move_modes),
            capacity,
            end_markers: n.marker_wait_ms > 0,
        },
        ..defaults
    })
}

async fn add_configured_ports(switch: &Shared) -> anyhow::Result<()> {
    let config = switch.borrow().config.clone();
    for uplink in &config.uplinks {
        uplinks::add(&mut switch.borrow_mut(), uplink)?;
    }
    underlay::add_routes(&mut switch.borrow_mut())?;
    static_config::add(&mut switch.borrow_mut(), &config);
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
    added.map(drop)
}

/// Keeps answers flowing while ports are added before the control loop runs.
async fn pump_forever(switch: Shared) {
    loop {
        switch.borrow_mut().poll_workers();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
