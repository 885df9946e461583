//! `godwitctl vm pause` and `vm resume`: a VM's connections wait, wherever it runs (R54).

use std::time::Duration;

use clap::Args;
use godwit_api::v1;
use serde::Serialize;

use crate::context::Report;
use crate::failure::Failure;
use crate::nva::Nva;
use crate::suggest::{self, Named};
use crate::{parse, text};

/// Arguments of `vm pause`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl vm pause web1
  godwitctl vm pause web1 --drop --for 10m
  godwitctl vm resume web1

The VM runs on. Frames for it wait at its switch, within the bounds of holds (`handover_hold_ms`, `hold_memory_mb`), and
come in order with `vm resume`, at its new switch if it has moved meanwhile. When the time is over they are dropped, and
the pause ends. The same again begins the time anew.")]
pub struct PauseArgs {
    /// The VM.
    #[arg(value_parser = parse::name)]
    name: String,
    /// Frames for it wait (the default).
    #[arg(long, conflicts_with = "drop")]
    hold: bool,
    /// Frames for it are dropped.
    #[arg(long)]
    drop: bool,
    /// The pause ends by itself after this: 1s to 1h.
    #[arg(long = "for", value_name = "TIME", value_parser = limit, default_value = "60s")]
    limit: Duration,
}

/// A time of a second or more: the protocol's 0 is the default.
fn limit(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if time < Duration::from_secs(1) { Err("1s to 1h".into()) } else { Ok(time) }
}

/// A pause for output.
#[derive(Serialize, Clone, Debug)]
pub struct PauseView {
    /// `hold` or `drop`.
    treatment: String,
    /// RFC 3339.
    since: String,
    limit_s: u32,
    /// `resumed` or `timed out`; null while it lasts.
    end: Option<String>,
    /// RFC 3339; null while it lasts.
    ended: Option<String>,
}

impl From<v1::ConnectionPause> for PauseView {
    fn from(p: v1::ConnectionPause) -> PauseView {
        let end = Some(p.end()).filter(|end| *end != v1::PauseEnd::Unspecified);
        PauseView {
            treatment: text::enum_name(p.treatment().as_str_name(), "WHILE_PAUSED_"),
            since: text::moment_us(p.since_us),
            limit_s: p.limit_s,
            end: end.map(|end| text::enum_name(end.as_str_name(), "PAUSE_END_")),
            ended: end.map(|_| text::moment_us(p.ended_us)),
        }
    }
}

impl PauseView {
    /// In words.
    pub fn words(&self) -> String {
        let frames = if self.treatment == "drop" { "dropped" } else { "held" };
        match (&self.end, &self.ended) {
            (Some(end), Some(at)) => format!("from {} to {at} ({end}), frames were {frames}", self.since),
            _ => {
                let limit = text::span_ms(1000 * u64::from(self.limit_s));
                format!("since {}, for {limit} at most, frames are {frames}", self.since)
            }
        }
    }
}

/// The pause of a VM after an order about it.
#[derive(Serialize)]
pub(super) struct Paused {
    vm: String,
    pause: Option<PauseView>,
}

impl Report for Paused {
    fn text(&self) -> String {
        match &self.pause {
            Some(p) => format!("VM {}: paused {}\n", self.vm, p.words()),
            None => format!("VM {} is not paused\n", self.vm),
        }
    }
}

impl From<v1::VmRecord> for Paused {
    fn from(r: v1::VmRecord) -> Paused {
        Paused { vm: r.name, pause: r.pause.map(Into::into) }
    }
}

/// Pauses a VM's connections.
pub(super) async fn pause(nva: &Nva, a: PauseArgs) -> Result<Paused, Failure> {
    let treatment = if a.drop { v1::WhilePaused::Drop } else { v1::WhilePaused::Hold };
    // The NVA says which times are of use.
    let limit_s = u32::try_from(a.limit.as_secs()).unwrap_or(u32::MAX);
    let request = v1::PauseVmRequest { vm: a.name.clone(), treatment: treatment.into(), limit_s };
    match nva.settle(nva.client().pause_vm(request)).await {
        Ok(record) => Ok(record.into()),
        Err(f) => Err(suggest::explain(nva, f, &[(Named::Vm, &a.name)]).await),
    }
}

/// A VM's connections go on.
pub(super) async fn resume(nva: &Nva, name: &str) -> Result<Paused, Failure> {
    match nva.settle(nva.client().resume_vm(v1::VmName { name: name.into() })).await {
        Ok(record) => Ok(record.into()),
        Err(f) => Err(suggest::explain(nva, f, &[(Named::Vm, name)]).await),
    }
}
