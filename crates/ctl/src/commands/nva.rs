//! `godwitctl nva`: the directory itself.

use clap::Subcommand;
use godwit_api::v1;
use serde::Serialize;

use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::table::facts;
use crate::text;

/// The directory itself.
#[derive(Subcommand, Clone, Debug)]
pub enum NvaCommand {
    /// Version, epoch, and how much it holds.
    #[command(after_help = "Example:\n  godwitctl --nva http://[2001:db8::1]:6640 nva status")]
    Status,
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

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: NvaCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let NvaCommand::Status = command;
    let nva = ctx.link.nva().await?;
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
