//! `godwitctl placement`: which worker polls which receive queue of an NVE.

use clap::{Args, Subcommand};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use serde::Serialize;

use super::port::{NveArg, order};
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::hand::unexpected;
use crate::parse;
use crate::table::Table;

/// Which worker polls which receive queue of an NVE.
#[derive(Subcommand, Clone, Debug)]
pub enum PlacementCommand {
    /// List the receive queues with their workers and their load, measured now.
    #[command(
        after_help = "Example:\n  godwitctl placement show --nve nve-a\n\nLOAD is the share of the worker's \
            core that receiving and processing the queue's frames takes;\nsending is not in it. PINNED: the \
            configuration names this core (rxq_affinity)."
    )]
    Show(ShowArgs),
    /// Let another worker poll a receive queue; no frame is lost, doubled or overtaken.
    ///
    /// It lasts until the port is removed or the switch restarts, and goes before a pin.
    #[command(after_help = "Example:\n  godwitctl placement set up0:1 2 --nve nve-a")]
    Set {
        /// The queue, by port and number.
        #[arg(value_name = "PORT:QUEUE", value_parser = parse::queue)]
        queue: (String, u16),
        /// The worker's number.
        worker: u32,
        /// Which NVE.
        #[command(flatten)]
        target: NveArg,
    },
    /// Move queues from busy workers to idle ones, by load measured now; pinned ones stay.
    #[command(after_help = "Example:\n  godwitctl placement rebalance --dry-run --nve nve-a")]
    Rebalance {
        /// Say what would be moved, and move nothing.
        #[arg(long)]
        dry_run: bool,
        /// What to measure, and where.
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Arguments of `placement show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// How long to measure, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=3000))]
    window: u32,
    #[command(flatten)]
    target: NveArg,
}

#[derive(Serialize)]
struct PlacementView {
    nve: String,
    window_ms: u32,
    queues: Vec<QueueView>,
}

#[derive(Serialize)]
struct QueueView {
    port: String,
    queue: u32,
    node: Option<u32>,
    worker: u32,
    core: u32,
    worker_node: Option<u32>,
    pinned: bool,
    packets_per_s: u64,
    /// Percent of a core; `null` where it could not be measured.
    load_percent: Option<f64>,
}

#[derive(Serialize)]
struct ChangeView {
    port: String,
    queue: u32,
    from: u32,
    to: u32,
}

#[derive(Serialize)]
struct RebalanceView {
    dry_run: bool,
    changes: Vec<ChangeView>,
    #[serde(flatten)]
    after: PlacementView,
}

fn view(report: v1::PlacementReport) -> PlacementView {
    let queue = |q: v1::PlacedQueue| QueueView {
        port: q.port,
        queue: q.queue,
        node: q.node,
        worker: q.worker,
        core: q.core,
        worker_node: q.worker_node,
        pinned: q.pinned,
        packets_per_s: q.packets_per_s,
        load_percent: q.load.map(|l| l as f64 / 10.0),
    };
    PlacementView {
        nve: report.nve,
        window_ms: report.window_ms,
        queues: report.queues.into_iter().map(queue).collect(),
    }
}

impl Report for PlacementView {
    fn text(&self) -> String {
        let mut t = Table::new(&[
            "PORT",
            ">QUEUE",
            ">NODE",
            ">WORKER",
            ">CORE",
            ">CORE'S NODE",
            "PINNED",
            ">PACKETS/S",
            ">LOAD",
        ]);
        let node = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
        for q in &self.queues {
            t.row([
                q.port.clone(),
                q.queue.to_string(),
                node(q.node),
                q.worker.to_string(),
                q.core.to_string(),
                node(q.worker_node),
                if q.pinned { "yes" } else { "no" }.into(),
                q.packets_per_s.to_string(),
                q.load_percent.map(|l| format!("{l:.1} %")).unwrap_or_default(),
            ]);
        }
        t.text_or("no receive queue is polled")
    }
}

impl Report for RebalanceView {
    fn text(&self) -> String {
        let verb = if self.dry_run { "would move" } else { "moved" };
        let mut text = String::new();
        for c in &self.changes {
            text += &format!("{verb} {}:{} from worker {} to {}\n", c.port, c.queue, c.from, c.to);
        }
        if self.changes.is_empty() {
            text += "nothing to move: no change would relieve the busiest worker by 5 % of its core\n";
        }
        text + "\n" + &self.after.text()
    }
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: PlacementCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        PlacementCommand::Show(a) => {
            let ask = Ask::GetPlacement(v1::GetPlacement { window_ms: a.window });
            let report = report(&a.target, ask, ctx).await?;
            ctx.show(&view(report))
        }
        PlacementCommand::Set { queue: (port, queue), worker, target } => {
            let fallback = format!("worker {worker} polls {port}:{queue}");
            let ask = Ask::SetPlacement(v1::SetPlacement { port, queue: queue.into(), worker });
            order(&target, ask, fallback, ctx).await
        }
        PlacementCommand::Rebalance { dry_run, show } => {
            let ask = Ask::Rebalance(v1::Rebalance { window_ms: show.window, dry_run });
            let mut report = report(&show.target, ask, ctx).await?;
            let change =
                |c: v1::PlacementChange| ChangeView { port: c.port, queue: c.queue, from: c.from, to: c.to };
            let changes = std::mem::take(&mut report.changes).into_iter().map(change).collect();
            ctx.show(&RebalanceView { dry_run, changes, after: view(report) })
        }
    }
}

async fn report(target: &NveArg, ask: Ask, ctx: &mut Context<'_>) -> Result<v1::PlacementReport, Failure> {
    let hand = ctx.link.nve(target.nve.as_deref()).await?;
    match hand.ask(ask).await? {
        Answer::Placement(report) => Ok(report),
        _ => Err(unexpected(&hand.peer())),
    }
}
