//! What an operator sees of the switch.

use anyhow::{Context, bail};
use godwit_api::convert::ip_bytes;
use godwit_api::v1::{self, admin_response::Kind as Answer};
use godwit_control::view::{BindingsView, DomainRouteView, DomainRoutesView, EntryView, PortView};
use godwit_pipeline::trace::{Step, Trace};
use godwit_wire::Vni;
use godwit_worker::command::{Command, Reply, Snapshot};

use crate::bonds::Legs;
use crate::switch::{Shared, Switch};

/// Asks every worker for its counters.
pub(super) async fn snapshots(switch: &Shared) -> anyhow::Result<Vec<Box<Snapshot>>> {
    let asked: Vec<_> = {
        let mut s = switch.borrow_mut();
        s.workers.iter_mut().map(|w| w.ask(Command::Snapshot(Snapshot::empty()))).collect()
    };
    let mut snapshots = Vec::new();
    for (worker, answer) in asked.into_iter().enumerate() {
        match answer.await {
            Ok(Reply::Snapshot(s)) => snapshots.push(s),
            _ => bail!("worker {worker} did not answer; it is stopping"),
        }
    }
    Ok(snapshots)
}

/// The whole switch at a glance.
pub async fn status(switch: &Shared) -> anyhow::Result<Answer> {
    let snapshots = snapshots(switch).await?;
    let s = switch.borrow();
    let nva = s.nve.nva();
    let neighbors = s.nve.neighbors().into_iter().map(|n| v1::UnderlayNeighbor {
        ip: ip_bytes(n.ip),
        mac: n.mac.map_or(0, |m| m.to_u64()),
        state: n.state.into(),
        uplink: n.uplink_name,
    });
    Ok(Answer::Status(v1::Status {
        nve: s.config.nve.id.clone(),
        version: crate::VERSION.into(),
        dpdk: godwit_dpdk::version().trim_start_matches("DPDK ").into(),
        locators: Some(s.nve.locators().into()),
        nva_url: s.config.nve.nva.join(", "),
        nva_connected: nva.connected,
        nva_epoch: nva.epoch,
        nva_refusal: nva.refusal.unwrap_or_default(),
        uptime_ms: s.clock.now().0 / 1_000_000,
        hugepages: s.hugepages,
        neighbors: neighbors.collect(),
        workers: snapshots.iter().enumerate().map(|(i, w)| worker_status(&s, i, w)).collect(),
    }))
}

fn worker_status(s: &Switch, number: usize, w: &Snapshot) -> v1::WorkerStatus {
    let mine = s.devices.iter().flat_map(|d| {
        let queues = d.polled_by.iter().filter(|q| q.1 == number);
        queues.map(|q| format!("{}/{}", d.name, q.0)).collect::<Vec<_>>()
    });
    v1::WorkerStatus {
        worker: number as u32,
        core: s.workers[number].at.core as u32,
        queues: mine.collect(),
        iterations: w.work.iterations,
        busy_iterations: w.work.busy,
        mailbox_depth: s.workers[number].depth() as u64,
        locations: w.locations,
        held_packets: w.held,
    }
}

/// All ports.
pub fn ports(s: &Switch) -> Answer {
    let ports = s.nve.ports().into_iter().map(|p| port_info(s, p)).collect();
    Answer::Ports(v1::PortList { ports })
}

fn port_info(s: &Switch, p: PortView) -> v1::PortInfo {
    let d = s.devices.get(p.port);
    v1::PortInfo {
        name: p.name,
        devargs: d.map_or_else(String::new, |d| d.devargs.clone()),
        role: p.role.into(),
        key: p.key.map(Into::into),
        vm: p.vm,
        state: p.state.as_str().into(),
        link_up: d.map_or(p.link_up, |d| d.link_up),
        mtu: d.map_or(0, |d| d.mtu.into()),
        mac: d.map_or(0, |d| d.mac.to_u64()),
        worker: d.and_then(|d| d.polled_by.first()).map_or(0, |q| q.1 as u32),
        driver: d
            .and_then(|d| d.port.as_ref())
            .map_or_else(String::new, |port| port.driver_name().to_owned()),
        number: p.port.0.into(),
        offloads: d.map_or_else(String::new, |d| d.offloads.clone()),
        vm_state: p.oper.map_or_else(String::new, |o| o.to_string()),
        bindings: p.bindings.map(|b| bindings(s, b)),
        legs: d.and_then(|d| d.legs.as_ref()).map(Legs::info).unwrap_or_default(),
        vlan: s
            .config
            .uplinks
            .iter()
            .find(|u| d.is_some_and(|d| d.name == u.name))
            .and_then(|u| u.vlan)
            .map_or(0, |v| v.get().into()),
    }
}

fn bindings(s: &Switch, b: BindingsView) -> v1::PortBindings {
    let now = s.clock.now();
    let [room_v4, room_v6, room_link_local] = b.room.map(|room| room.map(u32::from));
    let bound = b.bound.iter().map(|b| v1::BoundIp {
        ip: ip_bytes(b.ip),
        mac: b.mac.to_u64(),
        is_virtual: b.is_virtual,
    });
    let refused = b.refused.into_iter().map(|r| v1::RefusedSource {
        mac: r.mac.to_u64(),
        ip: r.ip.map_or_else(Vec::new, ip_bytes),
        why: r.why,
        allow: r.allow,
        count: r.count,
        ago_ms: now.since(r.last).as_ms(),
    });
    v1::PortBindings {
        recorded: b.recorded.into_iter().map(ip_bytes).collect(),
        bound: bound.collect(),
        macs: b.macs.iter().map(|m| m.to_u64()).collect(),
        allowed: (!b.allowed.is_empty()).then(|| b.allowed.into()),
        router: b.router,
        room_v4,
        room_v6,
        room_link_local,
        refused: refused.collect(),
    }
}

/// What is known of VMs.
pub fn entries(s: &Switch, vni: u32) -> anyhow::Result<Answer> {
    let vni = match vni {
        0 => None,
        n => Some(Vni::new(n).with_context(|| format!("{n} is no VNI; use 0 to {}", Vni::MAX))?),
    };
    let entries = s.nve.entries(s.clock.now(), vni).into_iter().map(entry).collect();
    Ok(Answer::Entries(v1::EntryList { entries }))
}

fn entry(e: EntryView) -> v1::Entry {
    v1::Entry {
        key: Some(e.key.into()),
        state: e.state.as_str().into(),
        nve: e.nve.map_or_else(String::new, |n| n.to_string()),
        locator: e.locator.map_or_else(String::new, |l| l.to_string()),
        version: Some(e.version.into()),
        expires_ms: e.expires.map_or(0, |s| s.as_ms().max(1)),
        ips: e.ips.into_iter().map(ip_bytes).collect(),
        handover: Some(e.handover.into()),
        suspect: e.suspect,
        unconfirmed: e.unconfirmed,
        next_hops: e.hops.iter().map(super::underlay::name).collect(),
    }
}

/// Routes in one answer, at most.
const MAX_ROUTES: usize = 10_000;

/// Routes of the routing domains that this switch has a part in.
pub fn routes(s: &Switch, asked: &v1::GetRoutes) -> anyhow::Result<Answer> {
    let name = Some(asked.domain.as_str()).filter(|name| !name.is_empty());
    let (domains, more) = s.nve.domain_routes(name, asked.hosts, MAX_ROUTES);
    if let Some(name) = name.filter(|_| domains.is_empty()) {
        let known: Vec<String> = s.nve.domains().into_iter().map(|d| d.name).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        bail!("this switch has no part in a routing domain {name:?}; those with VMs here: {known}");
    }
    Ok(Answer::Routes(v1::RouteReport { domains: domains.into_iter().map(domain).collect(), more }))
}

fn domain(d: DomainRoutesView) -> v1::NveDomain {
    let vnis = |vns: &[Vni]| vns.iter().map(|vni| vni.get()).collect();
    let route = |r: DomainRouteView| {
        let (mac, vm, nve) =
            r.via.map_or((0, String::new(), None), |(key, vm, nve)| (key.mac.to_u64(), vm, nve));
        let nve = nve.map_or_else(String::new, |n| n.to_string());
        v1::NveRoute { prefix: r.prefix.to_string(), kind: r.kind.into(), vni: r.vni.get(), mac, vm, nve }
    };
    v1::NveDomain {
        vnis: vnis(&d.domain.vns),
        routed_to: vnis(&d.domain.routed_to),
        name: d.domain.name,
        host_routes: d.domain.host_routes as u64,
        prefixes: d.domain.prefixes as u64,
        routes: d.routes.into_iter().map(route).collect(),
    }
}

/// What would happen to a frame, in words.
pub fn trace(s: &Switch, worker: usize, trace: &Trace) -> v1::TraceResult {
    // Workers know next hops by their MACs only.
    let words = |step: &Step| match *step {
        Step::Tunnel { hop: Some((uplink, mac)), .. } => {
            let neighbors = s.nve.neighbors();
            let known = neighbors.iter().find(|n| n.uplink == uplink && n.mac == Some(mac));
            format!("{step}{}", known.map_or(String::new(), |n| format!(", {} on {}", n.ip, n.uplink_name)))
        }
        _ => step.to_string(),
    };
    v1::TraceResult {
        worker: worker as u32,
        steps: trace.steps().iter().map(words).collect(),
        verdict: trace.verdict().to_string(),
    }
}
