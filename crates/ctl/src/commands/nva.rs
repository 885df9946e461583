//! `godwitctl nva`: the directory itself.

use clap::Subcommand;
use godwit_api::v1;
use serde::Serialize;

use super::counters::kind;
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::nva::Nva;
use crate::table::{Table, facts};
use crate::text;

/// The directory itself.
#[derive(Subcommand, Clone, Debug)]
pub enum NvaCommand {
    /// Version, epoch, and how much it holds.
    #[command(after_help = "Example:\n  godwitctl --nva https://[2001:db8::1]:6640 nva status")]
    Status,
    /// What it counted since its start, each counter with its meaning, and how large it is.
    #[command(after_help = "\
Examples:
  godwitctl nva counters           those that are not zero
  godwitctl nva counters --all     all of them

KIND is count for what rises with each event, gauge for what rises and falls. With --json each has its unit: 1 for
events and things.")]
    Counters {
        /// Counters that are zero, too.
        #[arg(long)]
        all: bool,
    },
}

/// What the NVA says of itself.
#[derive(Serialize)]
struct Status {
    url: String,
    version: String,
    epoch: u32,
    uptime_ms: u64,
    vns: u32,
    vms: u32,
    nves_connected: u32,
    moves_unfinished: u32,
}

impl Report for Status {
    fn text(&self) -> String {
        facts(&[
            ("NVA", self.url.clone()),
            ("version", self.version.clone()),
            ("epoch", self.epoch.to_string()),
            ("up", text::span_ms(self.uptime_ms)),
            ("VNs", self.vns.to_string()),
            ("VMs", self.vms.to_string()),
            ("NVEs connected", self.nves_connected.to_string()),
            ("moves unfinished", self.moves_unfinished.to_string()),
        ])
    }
}

/// One counter of the NVA for output.
#[derive(Serialize)]
struct CounterView {
    name: String,
    /// count or gauge.
    kind: String,
    /// packets, bytes or nanoseconds; 1 for events and things.
    unit: String,
    value: u64,
    help: String,
}

/// What the NVA counted.
#[derive(Serialize)]
struct Counters {
    url: String,
    counters: Vec<CounterView>,
}

impl Report for Counters {
    fn text(&self) -> String {
        let mut t = Table::new(&["COUNTER", "KIND", ">VALUE", "MEANING"]);
        for c in &self.counters {
            let value = match c.unit.as_str() {
                "nanoseconds" => format!("{} ns", c.value),
                _ => c.value.to_string(),
            };
            t.row([c.name.clone(), c.kind.clone(), value, c.help.clone()]);
        }
        t.text_or("nothing counted")
    }
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: NvaCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    match command {
        NvaCommand::Status => status(&nva, ctx).await,
        NvaCommand::Counters { all } => counters(&nva, all, ctx).await,
    }
}

async fn status(nva: &Nva, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let s = nva.settle(nva.client().get_status(v1::NvaStatusRequest {})).await?;
    ctx.show(&Status {
        url: nva.url().to_owned(),
        version: s.version,
        epoch: s.epoch,
        uptime_ms: s.uptime_ms,
        vns: s.vns,
        vms: s.vms,
        nves_connected: s.nves_connected,
        moves_unfinished: s.moves_unfinished,
    })
}

async fn counters(nva: &Nva, all: bool, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let list = nva.settle(nva.client().get_counters(v1::GetCounters { all })).await?;
    let view = |c: v1::Counter| CounterView {
        kind: kind(&c),
        name: c.name,
        unit: c.unit,
        value: c.value,
        help: c.help,
    };
    let counters = list.counters.into_iter().map(view).collect();
    ctx.show(&Counters { url: nva.url().to_owned(), counters })
}
