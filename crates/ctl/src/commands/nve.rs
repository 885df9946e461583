//! `godwitctl nve`: network virtualization edges as the directory and they themselves see them.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::Subcommand;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use serde::Serialize;

use super::access::{self, AllowArgs, DenyArgs};
use super::drain::{self, DrainArgs, DrainView, drain_of};
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::hand::{Hand, unexpected};
use crate::nva::Nva;
use crate::suggest::{self, Named};
use crate::table::{Table, facts};
use crate::{parse, text};

/// Network virtualization edges.
#[derive(Subcommand, Clone, Debug)]
pub enum NveCommand {
    /// List the NVEs that the NVA knows.
    List,
    /// Show one NVE: its session, workers and underlay neighbors.
    #[command(
        after_help = "Examples:\n  godwitctl nve show nve-a\n  godwitctl --socket /run/godwit/nve-a.sock nve show"
    )]
    Show {
        /// Its name; left out with --socket.
        #[arg(value_name = "NVE", value_parser = parse::name)]
        name: Option<String>,
    },
    /// Define a foreign NVE: one that speaks VXLAN but not the NVE-NVA protocol.
    #[command(
        after_help = "Example:\n  godwitctl nve define rack7-vtep --ipv4 198.18.0.7\n\nVMs behind it are \
            pinned: godwitctl vm define ... --pin rack7-vtep"
    )]
    #[command(group(clap::ArgGroup::new("locator").required(true).multiple(true).args(["ipv4", "ipv6"])))]
    Define {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
        /// Its underlay IPv4 address.
        #[arg(long, value_name = "IP", value_parser = parse::ipv4)]
        ipv4: Option<Ipv4Addr>,
        /// Its underlay IPv6 address.
        #[arg(long, value_name = "IP", value_parser = parse::ipv6)]
        ipv6: Option<Ipv6Addr>,
    },
    /// Move all VMs away from an NVE, for its maintenance; no VM comes to it meanwhile.
    Drain(DrainArgs),
    /// Let an NVE take VMs again; a drain that runs ends.
    Undrain {
        /// Its name.
        #[arg(value_name = "NVE", value_parser = parse::name)]
        name: String,
    },
    /// Let an NVE take part in VNs; without an order it may in all.
    Allow(AllowArgs),
    /// Let an NVE take part in VNs no more: it leaves them at once.
    Deny(DenyArgs),
    /// Forget an NVE that is not connected and carries no VM.
    Delete {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

/// An NVE as the directory sees it.
#[derive(Serialize)]
pub(super) struct NveView {
    name: String,
    session: &'static str,
    connected: bool,
    /// It left updates unacknowledged (R38).
    dirty: bool,
    foreign: bool,
    ipv4: Option<String>,
    ipv6: Option<String>,
    software: Option<String>,
    vms: u32,
    vnis: Vec<u32>,
    /// VNs that it has no ports in and routes to.
    routed_vnis: Vec<u32>,
    silent_ms: u64,
    /// Moves that it takes part in.
    modes: Vec<String>,
    /// Another switch that came with its name or a locator and was refused (R96).
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<RefusedView>,
    /// How far it is with being emptied; absent: it takes VMs.
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<String>,
    /// The VNs that it may take part in.
    may_take_part_in: String,
}

/// A switch that was refused for an NVE's sake.
#[derive(Serialize)]
struct RefusedView {
    text: String,
    count: u64,
    ago_ms: u64,
}

impl RefusedView {
    fn sentence(&self) -> String {
        let times = if self.count == 1 { "once".into() } else { format!("{} times", self.count) };
        format!("ALARM: {} ({times}, last {} ago)", self.text, text::span_ms(self.ago_ms))
    }
}

impl From<v1::NveInfo> for NveView {
    fn from(n: v1::NveInfo) -> NveView {
        let session = match (n.connected, n.foreign) {
            (true, _) if n.dirty => "dirty",
            (true, _) => "connected",
            (false, true) => "foreign",
            // Nobody has heard of it but the operator.
            (false, false) if n.locators == Some(v1::Locators::default()) => "awaited",
            (false, false) => "lost",
        };
        let drain = text::enum_name(n.drain().as_str_name(), "DRAIN_PHASE_");
        let locators = n.locators.unwrap_or_default();
        NveView {
            name: n.name,
            session,
            connected: n.connected,
            dirty: n.dirty,
            foreign: n.foreign,
            ipv4: text::locator(&locators.v4),
            ipv6: text::locator(&locators.v6),
            software: text::some(&n.software),
            vms: n.vms,
            vnis: n.vnis,
            routed_vnis: n.routing,
            silent_ms: n.silent_ms,
            modes: n.modes.iter().filter_map(|m| super::mode_word(*m)).collect(),
            refused: n.refused.map(|r| RefusedView { text: r.text, count: r.count, ago_ms: r.ago_ms }),
            drain: (n.drain != 0).then_some(drain),
            may_take_part_in: access::phrase(n.access.as_ref()),
        }
    }
}

impl NveView {
    /// The state of its session, and that it is drained.
    fn state(&self) -> String {
        if self.drain.is_some() { format!("{}, draining", self.session) } else { self.session.into() }
    }

    fn silent(&self) -> String {
        if self.foreign || self.silent_ms == 0 { String::new() } else { text::span_ms(self.silent_ms) }
    }

    fn vni_list(&self) -> String {
        let routed = self.routed_vnis.iter().map(|vni| format!("{vni} (routes)"));
        self.vnis.iter().map(u32::to_string).chain(routed).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Serialize)]
struct NveList {
    nves: Vec<NveView>,
}

impl Report for NveList {
    fn text(&self) -> String {
        let mut t =
            Table::new(&["NAME", "SESSION", ">SILENT", "IPV4", "IPV6", ">VMS", "VNIS", "MAY", "SOFTWARE"]);
        for n in &self.nves {
            t.row([
                n.name.clone(),
                n.state(),
                n.silent(),
                text::or_empty(n.ipv4.as_ref()),
                text::or_empty(n.ipv6.as_ref()),
                n.vms.to_string(),
                n.vni_list(),
                n.may_take_part_in.clone(),
                text::or_empty(n.software.as_ref()),
            ]);
        }
        let mut text =
            t.text_or("no NVEs; one appears when a godwit connects, or with `godwitctl nve define`");
        for refused in self.nves.iter().filter_map(|n| n.refused.as_ref()) {
            text += &format!("{}\n", refused.sentence());
        }
        text
    }
}

/// A worker as its NVE reports it.
#[derive(Serialize)]
struct WorkerView {
    worker: u32,
    core: u32,
    queues: Vec<String>,
    iterations: u64,
    busy_iterations: u64,
    mailbox_depth: u64,
    locations: u64,
    held_packets: u64,
}

#[derive(Serialize)]
struct NeighborView {
    ip: String,
    mac: String,
    state: String,
    uplink: String,
}

/// What an NVE says of itself.
#[derive(Serialize)]
struct StatusView {
    nve: String,
    version: String,
    dpdk: String,
    ipv4: Option<String>,
    ipv6: Option<String>,
    nva_url: String,
    nva_connected: bool,
    nva_epoch: u32,
    /// Why the NVA refuses it (R96).
    #[serde(skip_serializing_if = "Option::is_none")]
    nva_refusal: Option<String>,
    uptime_ms: u64,
    hugepages: bool,
    workers: Vec<WorkerView>,
    neighbors: Vec<NeighborView>,
}

impl From<v1::Status> for StatusView {
    fn from(s: v1::Status) -> StatusView {
        let locators = s.locators.unwrap_or_default();
        let worker = |w: v1::WorkerStatus| WorkerView {
            worker: w.worker,
            core: w.core,
            queues: w.queues,
            iterations: w.iterations,
            busy_iterations: w.busy_iterations,
            mailbox_depth: w.mailbox_depth,
            locations: w.locations,
            held_packets: w.held_packets,
        };
        let neighbor = |n: v1::UnderlayNeighbor| NeighborView {
            ip: text::ip(&n.ip),
            mac: text::mac(n.mac),
            state: n.state,
            uplink: n.uplink,
        };
        StatusView {
            nve: s.nve,
            version: s.version,
            dpdk: s.dpdk,
            ipv4: text::locator(&locators.v4),
            ipv6: text::locator(&locators.v6),
            nva_url: s.nva_url,
            nva_connected: s.nva_connected,
            nva_epoch: s.nva_epoch,
            nva_refusal: text::some(&s.nva_refusal),
            uptime_ms: s.uptime_ms,
            hugepages: s.hugepages,
            workers: s.workers.into_iter().map(worker).collect(),
            neighbors: s.neighbors.into_iter().map(neighbor).collect(),
        }
    }
}

impl StatusView {
    fn facts(&self) -> String {
        let link = if self.nva_connected { "connected" } else { "not connected, forwarding on what it has" };
        let alarm =
            self.nva_refusal.as_ref().map(|why| format!("ALARM: the NVA refuses this switch: {why}\n"));
        alarm.unwrap_or_default()
            + &facts(&[
                ("NVE", self.nve.clone()),
                ("version", format!("{} on DPDK {}", self.version, self.dpdk)),
                ("up", text::span_ms(self.uptime_ms)),
                ("IPv4 locator", text::or_empty(self.ipv4.as_ref())),
                ("IPv6 locator", text::or_empty(self.ipv6.as_ref())),
                ("NVA", format!("{} ({link}, epoch {})", self.nva_url, self.nva_epoch)),
                ("hugepages", if self.hugepages { "yes" } else { "no" }.into()),
            ])
    }

    fn workers(&self) -> String {
        let headings =
            [">WORKER", ">CORE", ">BUSY", ">MAILBOX", ">LOCATIONS", ">HELD", "QUEUES (PORT/QUEUE)"];
        let mut t = Table::new(&headings);
        for w in &self.workers {
            let busy = w.busy_iterations as f64 * 100.0 / w.iterations.max(1) as f64;
            t.row([
                w.worker.to_string(),
                w.core.to_string(),
                format!("{busy:.1}%"),
                w.mailbox_depth.to_string(),
                w.locations.to_string(),
                w.held_packets.to_string(),
                w.queues.join(" "),
            ]);
        }
        t.text_or("no workers")
    }

    fn neighbors(&self) -> String {
        let mut t = Table::new(&["NEIGHBOR", "MAC", "STATE", "UPLINK"]);
        for n in &self.neighbors {
            t.row([n.ip.clone(), n.mac.clone(), n.state.clone(), n.uplink.clone()]);
        }
        t.text_or("no underlay neighbors")
    }
}

/// One NVE: the directory's view, its own, or both.
#[derive(Serialize)]
struct NveShow {
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<NveView>,
    /// Of one that is emptied.
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<DrainView>,
    /// Null where the NVE has no session to be asked through.
    status: Option<StatusView>,
}

impl Report for NveShow {
    fn text(&self) -> String {
        let mut parts = Vec::new();
        match (&self.status, &self.directory) {
            (Some(s), _) => parts.push(s.facts()),
            (None, Some(d)) => parts.push(facts(&[
                ("NVE", d.name.clone()),
                ("version", text::or_empty(d.software.as_ref())),
                ("IPv4 locator", text::or_empty(d.ipv4.as_ref())),
                ("IPv6 locator", text::or_empty(d.ipv6.as_ref())),
            ])),
            (None, None) => {}
        }
        if let Some(d) = &self.directory {
            parts.push(facts(&[
                ("session", d.session.into()),
                ("drain", self.drain.as_ref().map(DrainView::sentence).unwrap_or_default()),
                ("silent for", d.silent()),
                ("VMs", d.vms.to_string()),
                ("VNIs", d.vni_list()),
                ("may take part in", d.may_take_part_in.clone()),
                ("moves", d.modes.join(", ")),
            ]));
            parts.extend(d.refused.as_ref().map(|r| r.sentence() + "\n"));
        }
        if let Some(s) = &self.status {
            parts.extend([s.workers(), s.neighbors()]);
        }
        parts.join("\n")
    }
}

/// An NVE that was changed.
#[derive(Serialize)]
pub(super) struct Changed {
    #[serde(skip)]
    pub verb: String,
    #[serde(flatten)]
    pub nve: NveView,
}

impl Report for Changed {
    fn text(&self) -> String {
        format!("NVE {} {}\n", self.nve.name, self.verb)
    }
}

async fn show_by_name(nva: &Nva, name: &str) -> Result<NveShow, Failure> {
    let nves = nva.nves().await?;
    let Some(found) = nves.iter().find(|n| n.name == name) else {
        let known: Vec<String> = nves.into_iter().map(|n| n.name).collect();
        return Err(suggest::unknown("NVE", name, &known, "godwitctl nve list"));
    };
    let status = if found.connected {
        let hand = Hand::Relay { nva: nva.clone(), nve: name.to_owned() };
        Some(status(&hand).await?)
    } else {
        None
    };
    let drain = if found.drain == 0 { None } else { Some(drain_of(nva, name).await?) };
    Ok(NveShow { directory: Some(found.clone().into()), drain, status })
}

async fn status(hand: &Hand) -> Result<StatusView, Failure> {
    match hand.ask(Ask::GetStatus(v1::GetStatus {})).await? {
        Answer::Status(s) => Ok(s.into()),
        _ => Err(unexpected(&hand.peer())),
    }
}

async fn show(name: Option<String>, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let shown = match name {
        Some(name) => show_by_name(&ctx.link.nva().await?, &name).await?,
        None => {
            NveShow { directory: None, drain: None, status: Some(status(&ctx.link.nve(None).await?).await?) }
        }
    };
    ctx.show(&shown)
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: NveCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        NveCommand::Show { name } => show(name, ctx).await,
        NveCommand::Drain(args) => drain::run(args, ctx).await,
        NveCommand::Allow(args) => access::allow(args, ctx).await,
        NveCommand::Deny(args) => access::deny(args, ctx).await,
        NveCommand::Undrain { name } => drain::undrain(name, ctx).await,
        NveCommand::List => {
            let nves = ctx.link.nva().await?.nves().await?;
            ctx.show(&NveList { nves: nves.into_iter().map(NveView::from).collect() })
        }
        NveCommand::Define { name, ipv4, ipv6 } => {
            let nva = ctx.link.nva().await?;
            let locators = v1::Locators {
                v4: ipv4.map(|a| a.octets().to_vec()).unwrap_or_default(),
                v6: ipv6.map(|a| a.octets().to_vec()).unwrap_or_default(),
            };
            let definition = v1::NveDefinition { name, locators: Some(locators) };
            let nve = nva.settle(nva.client().define_nve(definition)).await?;
            ctx.show(&Changed { verb: "defined".into(), nve: nve.into() })
        }
        NveCommand::Delete { name } => {
            let nva = ctx.link.nva().await?;
            match nva.settle(nva.client().delete_nve(v1::NveName { name: name.clone() })).await {
                Ok(nve) => ctx.show(&Changed { verb: "deleted".into(), nve: nve.into() }),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Nve, &name)]).await),
            }
        }
    }
}
