//! `godwitctl nve drain`: an NVE is emptied, and takes no VMs meanwhile.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::Args;
use godwit_api::v1;
use serde::Serialize;

use crate::context::{Context, Report};
use crate::failure::{Failure, Kind};
use crate::nva::Nva;
use crate::suggest::{self, Named};
use crate::table::{Table, facts};
use crate::{parse, text};

/// How often the NVA is asked how far a drain is.
const POLL: Duration = Duration::from_millis(300);
/// Cells of the progress bar.
const BAR: u32 = 30;

/// Arguments of `nve drain`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl nve drain nve-a --wait
  godwitctl nve drain nve-a --to nve-b,nve-c --parallel 8
  godwitctl nve drain nve-a --stop
  godwitctl nve undrain nve-a

VM managers perform the moves, as any other. The NVA goes on without this command: the same order again
follows it, or goes on where the drain was stopped. Until `nve undrain`, no VM comes to the NVE.
With --wait the exit code says how it ended: 0 empty, 1 VMs are left, 3 the NVA stayed away longer than --timeout.")]
pub struct DrainArgs {
    /// The NVE.
    #[arg(value_name = "NVE", value_parser = parse::name)]
    name: String,
    /// Where its VMs may go; without this to any other NVE.
    #[arg(long, value_name = "NVE", value_parser = parse::name, value_delimiter = ',')]
    to: Vec<String>,
    /// Moves at the same time.
    #[arg(long, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(godwit_model::MAX_PARALLEL_MOVES)))]
    parallel: u32,
    /// Shut down VMs whose VN takes no hot moves, and move them cold; without this they are left.
    #[arg(long)]
    accept_interruption: bool,
    /// Wait for the end, and print the report.
    #[arg(long)]
    wait: bool,
    /// Order no more moves; those under way end.
    #[arg(long, conflicts_with_all = ["to", "accept_interruption", "wait", "show"])]
    stop: bool,
    /// Print the report of a drain, and order nothing.
    #[arg(long, conflicts_with_all = ["to", "accept_interruption", "wait"])]
    show: bool,
}

/// A drain for output.
#[derive(Serialize)]
pub struct DrainView {
    nve: String,
    /// `running`, `stopped` or `ended`.
    phase: String,
    /// Nothing is left.
    empty: bool,
    to: Vec<String>,
    parallel: u32,
    accept_interruption: bool,
    ordered_at: String,
    elapsed_ms: u64,
    total: u32,
    moved: u32,
    here: u32,
    /// Left without this drain: stopped, or moved by other orders.
    elsewhere: u32,
    moving: Vec<MovingView>,
    failed: Vec<LeftView>,
    left: Vec<LeftView>,
    note: Option<String>,
}

#[derive(Serialize)]
struct MovingView {
    vm: String,
    #[serde(rename = "move")]
    id: String,
    to: String,
    phase: String,
}

#[derive(Serialize)]
struct LeftView {
    vm: String,
    reason: Option<String>,
}

impl From<v1::Drain> for DrainView {
    fn from(d: v1::Drain) -> DrainView {
        let left = |list: Vec<v1::DrainedVm>| {
            list.into_iter().map(|v| LeftView { vm: v.vm, reason: text::some(&v.reason) }).collect()
        };
        let phase = text::enum_name(d.phase().as_str_name(), "DRAIN_PHASE_");
        let moving = d.moving.into_iter().map(|m| MovingView {
            phase: text::enum_name(m.phase().as_str_name(), "MOVE_PHASE_"),
            vm: m.vm,
            id: m.move_id,
            to: m.to,
        });
        DrainView {
            phase,
            empty: d.here == 0,
            nve: d.nve,
            to: d.to,
            parallel: d.parallel,
            accept_interruption: d.accept_interruption,
            ordered_at: text::moment_us(d.ordered_us),
            elapsed_ms: d.elapsed_ms,
            total: d.total,
            moved: d.moved,
            here: d.here,
            elsewhere: d.elsewhere,
            moving: moving.collect(),
            failed: left(d.failed),
            left: left(d.left),
            note: text::some(&d.note),
        }
    }
}

impl DrainView {
    /// How it stands, in a line.
    pub fn sentence(&self) -> String {
        format!(
            "{}: {} of {} VMs moved in {}, {} still there",
            self.phase,
            self.moved,
            self.total,
            text::span_ms(self.elapsed_ms),
            self.here
        )
    }

    fn next_step(&self) -> String {
        let nve = &self.nve;
        match (self.phase.as_str(), self.empty) {
            ("running", _) => format!("`godwitctl nve drain {nve} --wait` follows it, `--stop` stops it"),
            (_, true) => format!("it takes no VMs until `godwitctl nve undrain {nve}`"),
            ("stopped", _) => {
                format!("the same order again goes on; `godwitctl nve undrain {nve}` lets it take VMs")
            }
            _ => format!("order it again when the reasons are gone, or `godwitctl nve undrain {nve}`"),
        }
    }
}

impl Report for DrainView {
    fn text(&self) -> String {
        let to = if self.to.is_empty() { "any other NVE".into() } else { self.to.join(", ") };
        let elsewhere = if self.elsewhere == 0 { String::new() } else { self.elsewhere.to_string() };
        let mut parts = vec![facts(&[
            ("drain of", self.nve.clone()),
            ("state", self.sentence()),
            ("ended because", text::or_empty(self.note.as_ref())),
            ("to", to),
            ("at the same time", format!("{} moves", self.parallel)),
            ("left by themselves", elsewhere),
            ("ordered", self.ordered_at.clone()),
        ])];
        if !self.moving.is_empty() {
            let mut t = Table::new(&["MOVING", "MOVE", "TO", "PHASE"]);
            self.moving.iter().for_each(|m| {
                t.row([m.vm.clone(), m.id.clone(), m.to.clone(), m.phase.clone()]);
            });
            parts.push(t.text());
        }
        for (heading, list) in [("FAILED", &self.failed), ("LEFT", &self.left)] {
            let mut t = Table::new(&[heading, "REASON"]);
            for v in list.iter() {
                t.row([v.vm.clone(), v.reason.clone().unwrap_or_else(|| "its turn will come".into())]);
            }
            if !t.is_empty() {
                parts.push(t.text());
            }
        }
        parts.push(self.next_step() + "\n");
        parts.join("\n")
    }
}

/// The drain of an NVE.
///
/// # Errors
/// The NVA's refusal, or that it cannot be reached.
pub async fn drain_of(nva: &Nva, name: &str) -> Result<DrainView, Failure> {
    let drain = nva.settle(nva.client().show_drain(v1::NveName { name: name.into() })).await?;
    Ok(drain.into())
}

/// Runs `nve drain`.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(a: DrainArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    let name = v1::NveName { name: a.name.clone() };
    let drain = if a.show {
        nva.settle(nva.client().show_drain(name)).await
    } else if a.stop {
        nva.settle(nva.client().stop_drain(name)).await
    } else {
        let request = v1::DrainNveRequest {
            nve: a.name.clone(),
            to: a.to.clone(),
            parallel: a.parallel,
            accept_interruption: a.accept_interruption,
        };
        nva.settle(nva.client().drain_nve(request)).await
    };
    match drain {
        Ok(_) if a.wait => wait(&nva, &a.name, ctx).await,
        Ok(drain) => ctx.show(&DrainView::from(drain)),
        Err(f) => {
            let names = std::iter::once(&a.name).chain(&a.to);
            let used: Vec<(Named, &str)> = names.map(|n| (Named::Nve, n.as_str())).collect();
            Err(suggest::explain(&nva, f, &used).await)
        }
    }
}

/// Runs `nve undrain`.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn undrain(name: String, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    match nva.settle(nva.client().undrain_nve(v1::NveName { name: name.clone() })).await {
        Ok(drain) => ctx.show(&Undrained(drain.into())),
        Err(f) => Err(suggest::explain(&nva, f, &[(Named::Nve, &name)]).await),
    }
}

/// A drain that is no more.
struct Undrained(DrainView);

impl Serialize for Undrained {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Report for Undrained {
    fn text(&self) -> String {
        let d = &self.0;
        format!("NVE {} takes VMs again; its drain had {}\n", d.nve, d.sentence())
    }
}

/// Follows a drain to its end, over restarts of the NVA that are shorter than the timeout.
async fn wait(nva: &Nva, name: &str, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let mut progress = Progress { bar: std::io::stderr().is_terminal(), shown: None };
    let mut lost_at: Option<Instant> = None;
    let last = loop {
        match drain_of(nva, name).await {
            Ok(drain) if drain.phase != "running" && drain.moving.is_empty() => break drain,
            Ok(drain) => {
                lost_at = None;
                progress.show(&drain, ctx)?;
            }
            Err(f) if f.kind == Kind::Unreachable => {
                if lost_at.get_or_insert_with(Instant::now).elapsed() >= ctx.link.timeout() {
                    let show = format!("`godwitctl nve drain {name} --show` shows it");
                    return Err(f.remedy(format!("the drain goes on; {show}")));
                }
            }
            Err(f) => return Err(f),
        }
        tokio::time::sleep(POLL).await;
    };
    progress.end(ctx)?;
    ctx.show(&last)?;
    if last.empty {
        return Ok(());
    }
    Err(Failure::refused(format!("NVE {name} still has {} VMs", last.here)).remedy(last.next_step()))
}

/// How far a drain is, for who waits: a bar on a terminal, lines elsewhere.
struct Progress {
    bar: bool,
    shown: Option<(u32, usize, usize)>,
}

impl Progress {
    fn show(&mut self, d: &DrainView, ctx: &mut Context<'_>) -> Result<(), Failure> {
        let state = (d.here, d.moving.len(), d.failed.len());
        if !self.bar && self.shown == Some(state) {
            return Ok(());
        }
        self.shown = Some(state);
        let failed = if d.failed.is_empty() { String::new() } else { format!(", {} failed", d.failed.len()) };
        let line = format!(
            "{} of {} VMs moved, {} on their way{failed}, {}",
            d.moved,
            d.total,
            d.moving.len(),
            text::span_ms(d.elapsed_ms)
        );
        if self.bar {
            let full = (u64::from(d.total.saturating_sub(d.here)) * u64::from(BAR))
                .checked_div(d.total.into())
                .unwrap_or_default() as usize;
            let empty = BAR as usize - full.min(BAR as usize);
            write!(ctx.err, "\r\x1b[K{}: [{}{}] {line}", d.nve, "#".repeat(full), ".".repeat(empty))?;
        } else {
            writeln!(ctx.err, "{}: {line}", d.nve)?;
        }
        ctx.err.flush()?;
        Ok(())
    }

    /// The bar gives its line back.
    fn end(&self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        if self.bar && self.shown.is_some() {
            write!(ctx.err, "\r\x1b[K")?;
            ctx.err.flush()?;
        }
        Ok(())
    }
}
