//! `godwitctl entries`: what one NVE knows of VMs.

use clap::Args;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use serde::Serialize;

use super::port::NveArg;
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::hand::{Hand, unexpected};
use crate::table::Table;
use crate::{parse, suggest, text};

/// Arguments of `entries`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl entries --nve nve-a --vn blue
  godwitctl --socket /run/godwit/nve-a.sock entries --vn 5001

States: remote, local, expected (a move to here), paused (held here), departed (forwarded to its new
NVE until the entry ends), absent (a negative answer), querying.")]
pub struct EntriesArgs {
    #[command(flatten)]
    target: NveArg,
    /// Only this VN: its name, or its VNI; with --socket its VNI.
    #[arg(long, value_name = "VN")]
    vn: Option<String>,
}

/// What an NVE knows of a VM, for output.
#[derive(Serialize)]
struct EntryView {
    vni: u32,
    mac: String,
    state: String,
    /// Another NVE says that the VM left; the NVA is being asked.
    suspect: bool,
    /// The locator is another NVE's word, which the NVA has not confirmed.
    unconfirmed: bool,
    nve: Option<String>,
    locator: Option<String>,
    version: Option<String>,
    /// Null: it does not end by itself.
    expires_ms: Option<u64>,
    ips: Vec<String>,
    /// By which next hops the locator is reached, with their uplinks.
    next_hops: Vec<String>,
    held: u64,
    flushed: u64,
    forwarded: u64,
    dropped: u64,
    /// Of those dropped: for want of memory, for the limit of packets, for their age.
    dropped_memory: u64,
    dropped_limit: u64,
    dropped_age: u64,
    /// Memory that held packets take now, and the most that they took, in bytes.
    held_bytes: u64,
    peak_bytes: u64,
}

impl From<v1::Entry> for EntryView {
    fn from(e: v1::Entry) -> EntryView {
        let (vni, mac) = text::key(e.key.as_ref());
        let h = e.handover.unwrap_or_default();
        EntryView {
            vni,
            mac,
            state: e.state,
            suspect: e.suspect,
            unconfirmed: e.unconfirmed,
            nve: text::some(&e.nve),
            locator: text::some(&e.locator),
            version: text::version(e.version.as_ref()),
            expires_ms: (e.expires_ms != 0).then_some(e.expires_ms),
            ips: text::ips(&e.ips),
            next_hops: e.next_hops,
            held: h.held,
            flushed: h.flushed,
            forwarded: h.forwarded,
            dropped: h.dropped,
            dropped_memory: h.dropped_memory,
            dropped_limit: h.dropped_limit,
            dropped_age: h.dropped_age,
            held_bytes: h.held_bytes,
            peak_bytes: h.peak_bytes,
        }
    }
}

impl EntryView {
    fn state(&self) -> String {
        match (self.unconfirmed, self.suspect) {
            (true, _) => format!("{}, unconfirmed", self.state),
            (false, true) => format!("{}, suspect", self.state),
            _ => self.state.clone(),
        }
    }

    fn handover(&self) -> String {
        let counts = [
            ("held", self.held),
            ("flushed", self.flushed),
            ("forwarded", self.forwarded),
            ("dropped", self.dropped),
        ];
        let mut shown: Vec<String> =
            counts.iter().filter(|c| c.1 != 0).map(|(what, n)| format!("{what} {n}")).collect();
        let reasons = loss_reasons([self.dropped_memory, self.dropped_limit, self.dropped_age]);
        shown.extend(reasons.map(|why| format!("of these for {why}")));
        let memory = [("memory now", self.held_bytes), ("memory at most", self.peak_bytes)];
        shown.extend(
            memory.iter().filter(|m| m.1 != 0).map(|(what, n)| format!("{what} {}", text::memory(*n))),
        );
        shown.join(", ")
    }
}

/// Why held packets were dropped, and how many.
pub(super) fn loss_reasons([memory, limit, age]: [u64; 3]) -> Option<String> {
    let shown: Vec<String> = [("memory", memory), ("limit", limit), ("age", age)]
        .iter()
        .filter(|r| r.1 != 0)
        .map(|(why, n)| format!("{why} {n}"))
        .collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

#[derive(Serialize)]
struct EntryList {
    entries: Vec<EntryView>,
}

impl Report for EntryList {
    fn text(&self) -> String {
        let headings = [
            ">VNI",
            "MAC",
            "STATE",
            "NVE",
            "LOCATOR",
            "BY NEXT HOPS",
            ">VERSION",
            ">ENDS IN",
            "IPS",
            "HANDOVER",
        ];
        let mut t = Table::new(&headings);
        for e in &self.entries {
            t.row([
                e.vni.to_string(),
                e.mac.clone(),
                e.state(),
                text::or_empty(e.nve.as_ref()),
                text::or_empty(e.locator.as_ref()),
                e.next_hops.join(" "),
                text::or_empty(e.version.as_ref()),
                e.expires_ms.map(text::span_ms).unwrap_or_default(),
                e.ips.join(" "),
                e.handover(),
            ]);
        }
        t.text_or("no entries")
    }
}

/// A VNI from a VN's name, which only the NVA knows, or from a number.
async fn resolve(vn: &str, hand: &Hand) -> Result<u32, Failure> {
    match (hand, parse::vni(vn)) {
        (Hand::Socket { .. }, Ok(vni)) => Ok(vni),
        (Hand::Socket { .. }, Err(_)) => Err(Failure::usage(format!("--vn {vn:?} is not a VNI"))
            .remedy("names are the NVA's: with --socket give the VNI, 0 to 16777215")),
        (Hand::Relay { nva, .. }, number) => {
            let vns = nva.vns().await?;
            if let Some(found) = vns.iter().find(|v| v.name == vn) {
                return Ok(found.vni);
            }
            let known: Vec<String> = vns.into_iter().map(|v| v.name).collect();
            number.map_err(|_| suggest::unknown("VN", vn, &known, "godwitctl vn list"))
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(a: &EntriesArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let hand = ctx.link.nve(a.target.nve.as_deref()).await?;
    let vni = match &a.vn {
        Some(vn) => resolve(vn, &hand).await?,
        None => 0,
    };
    match hand.ask(Ask::ListEntries(v1::ListEntries { vni })).await? {
        Answer::Entries(list) => {
            ctx.show(&EntryList { entries: list.entries.into_iter().map(EntryView::from).collect() })
        }
        _ => Err(unexpected(&hand.peer())),
    }
}
