//! `godwitctl audit`: who changed what at the NVA, and what was refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use godwit_api::v1;
use serde::Serialize;

use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::text;

/// Arguments of `audit`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl audit --since 1h
  godwitctl audit --since 2026-03-01T08:00:00Z --who alice
  godwitctl audit --what 'vm move' --json
  godwitctl audit --follow --since 0s

Entries come oldest first. With --json each is one line.")]
pub struct AuditArgs {
    /// Of those whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    who: String,
    /// Since a moment (RFC 3339), or so long ago, as in 90m or 2d.
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<SystemTime>,
    /// What begins so, as in 'vm move', vn or hello.
    #[arg(long, value_name = "WHAT", default_value = "")]
    what: String,
    /// Go on with what comes, until interrupted.
    #[arg(long)]
    follow: bool,
}

/// A moment that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("write a moment as in 2026-03-01T08:00:00Z, or a span before now as in 90m or 2d")]
struct BadMoment;

fn since(s: &str) -> Result<SystemTime, BadMoment> {
    if let Ok(moment) = humantime::parse_rfc3339_weak(s) {
        return Ok(moment);
    }
    let ago: Duration = humantime::parse_duration(s).map_err(|_| BadMoment)?;
    SystemTime::now().checked_sub(ago).ok_or(BadMoment)
}

/// One entry.
#[derive(Serialize)]
struct EntryView {
    at: String,
    who: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    what: String,
    details: String,
    refused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Attempts like this one since the last entry that were not written one by one.
    unwritten: u64,
}

impl From<v1::AuditEntry> for EntryView {
    fn from(e: v1::AuditEntry) -> EntryView {
        EntryView {
            at: text::moment_us(e.at_us),
            who: e.who,
            from: text::some(&e.from),
            what: e.what,
            details: e.details,
            refused: e.refused,
            why: text::some(&e.why),
            unwritten: e.unwritten,
        }
    }
}

impl Report for EntryView {
    fn text(&self) -> String {
        let from = self.from.as_ref().map(|f| format!(" from {f}")).unwrap_or_default();
        let more = match self.unwritten {
            0 => String::new(),
            n => format!(" (and {n} times before, unwritten)"),
        };
        let mut line = format!("{} {}{from}: {}{more}", self.at, self.who, self.what);
        if !self.details.is_empty() {
            line += &format!(": {}", self.details);
        }
        line += match self.refused {
            true => ": REFUSED: ",
            false => ": done",
        };
        line += self.why.as_deref().unwrap_or_default();
        line + "\n"
    }
}

/// Reads the audit log.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(args: AuditArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let AuditArgs { who, since, what, follow } = args;
    let since = since.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let since_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    let nva = ctx.link.nva().await?;
    let request = v1::ReadAuditRequest { who, what, since_us, follow };
    let mut entries = nva.settle(nva.client().read_audit(request)).await?;
    while let Some(entry) = entries.message().await.map_err(|s| Failure::from_status(&nva.peer(), &s))? {
        ctx.show_one_of_many(&EntryView::from(entry))?;
    }
    Ok(())
}
