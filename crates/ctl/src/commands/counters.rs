//! `godwitctl counters`: what NVEs, workers and ports counted, and why frames were dropped.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use serde::Serialize;

use super::port::NveArg;
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::hand::{Hand, unexpected};
use crate::nva::Nva;
use crate::parse;
use crate::table::Table;

/// Arguments of `counters`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl counters                        all connected NVEs
  godwitctl counters --nve nve-a --drops    why nve-a dropped frames
  godwitctl counters --port vm1 --watch 1   rates, every second until interrupted

With --watch and --json, each round prints one line.")]
pub struct CountersArgs {
    #[command(flatten)]
    target: NveArg,
    /// Counters that are zero, too.
    #[arg(long)]
    all: bool,
    /// Only counters of lost frames, each with its meaning.
    #[arg(long)]
    drops: bool,
    /// Only this port's.
    #[arg(long, value_parser = parse::name)]
    port: Option<String>,
    /// Repeat every so many seconds, with rates.
    #[arg(long, value_name = "SECS", value_parser = parse::seconds)]
    watch: Option<Duration>,
    /// With --watch: end after so many rounds.
    #[arg(long, value_name = "N", requires = "watch")]
    rounds: Option<u64>,
}

/// One counter for output.
#[derive(Serialize)]
struct CounterView {
    nve: String,
    /// None where the port's device counted, or control where there is no port either.
    worker: Option<u32>,
    port: Option<String>,
    name: String,
    /// count, drop or gauge; a gauge's value rises and falls.
    kind: String,
    /// packets, bytes or nanoseconds; 1 for events and things; None from a switch that does not say.
    unit: Option<String>,
    drop: bool,
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<f64>,
    help: String,
}

/// An NVE that could not be asked.
#[derive(Serialize)]
struct Missing {
    nve: String,
    error: String,
}

/// One round.
#[derive(Serialize)]
struct Counters {
    counters: Vec<CounterView>,
    dropped_total: u64,
    missing: Vec<Missing>,
    #[serde(skip)]
    with_rates: bool,
    #[serde(skip)]
    with_help: bool,
}

impl Report for Counters {
    fn text(&self) -> String {
        let mut headings = vec!["NVE", ">WORKER", "PORT", "COUNTER", "KIND", ">VALUE"];
        if self.with_rates {
            headings.push(">PER SECOND");
        }
        if self.with_help {
            headings.push("MEANING");
        }
        let mut t = Table::new(&headings);
        for c in &self.counters {
            let mut last = Vec::new();
            if self.with_rates {
                last.push(c.per_second.map(|r| format!("{r:.0}")).unwrap_or_default());
            }
            if self.with_help {
                last.push(c.help.clone());
            }
            let mut last = last.into_iter();
            t.row([
                c.nve.clone(),
                c.worker.map_or_else(
                    || if c.port.is_none() { "control" } else { "device" }.into(),
                    |w| w.to_string(),
                ),
                c.port.clone().unwrap_or_default(),
                c.name.clone(),
                c.kind.clone(),
                c.value.to_string(),
                last.next().unwrap_or_else(|| " ".into()),
                last.next().unwrap_or_else(|| " ".into()),
            ]);
        }
        let none = if self.with_help { "no frame was dropped" } else { "nothing counted" };
        let dropped = format!("\ndropped in all: {}\n", self.dropped_total);
        t.text_or(none) + if t.is_empty() { "" } else { &dropped }
    }
}

/// Where the counters come from.
enum Source {
    One(Hand),
    AllConnected(Nva),
}

impl Source {
    async fn new(a: &CountersArgs, ctx: &Context<'_>) -> Result<Source, Failure> {
        match a.target.nve.as_deref() {
            None if !ctx.link.goes_by_socket(None) => Ok(Source::AllConnected(ctx.link.nva().await?)),
            nve => Ok(Source::One(ctx.link.nve(nve).await?)),
        }
    }

    /// All lists that could be had, and who did not answer.
    async fn read(&self, all: bool) -> Result<(Vec<v1::CounterList>, Vec<(String, Failure)>), Failure> {
        let nva = match self {
            Source::One(hand) => return Ok((vec![read_one(hand, all).await?], Vec::new())),
            Source::AllConnected(nva) => nva,
        };
        // All at once, so that one that hangs costs its timeout only once.
        let asked = nva.nves().await?.into_iter().filter(|n| n.connected).map(|nve| {
            let hand = Hand::Relay { nva: nva.clone(), nve: nve.name.clone() };
            (nve.name, tokio::spawn(async move { read_one(&hand, all).await }))
        });
        let (mut lists, mut missing) = (Vec::new(), Vec::new());
        for (nve, answer) in asked.collect::<Vec<_>>() {
            match answer.await {
                Ok(Ok(list)) => lists.push(list),
                Ok(Err(failure)) => missing.push((nve, failure)),
                Err(e) => missing.push((nve.clone(), Failure::refused(format!("asking {nve} failed: {e}")))),
            }
        }
        Ok((lists, missing))
    }
}

async fn read_one(hand: &Hand, all: bool) -> Result<v1::CounterList, Failure> {
    match hand.ask(Ask::GetCounters(v1::GetCounters { all })).await? {
        Answer::Counters(list) => Ok(list),
        _ => Err(unexpected(&hand.peer())),
    }
}

/// The kind of a counter, from a switch that does not say it, too.
pub(super) fn kind(c: &v1::Counter) -> String {
    if !c.kind.is_empty() {
        return c.kind.clone();
    }
    if c.drop { "drop" } else { "count" }.into()
}

/// What identifies a counter from one round to the next.
type Key = (String, u32, String, String);

fn key(nve: &str, c: &v1::Counter) -> Key {
    (nve.to_owned(), c.worker, c.port.clone(), c.name.clone())
}

/// The values of the round before, and when they were read.
struct Earlier {
    at: Instant,
    values: HashMap<Key, u64>,
}

fn remember(lists: &[v1::CounterList]) -> Earlier {
    let each = lists.iter().flat_map(|l| l.counters.iter().map(|c| (key(&l.nve, c), c.value)));
    Earlier { at: Instant::now(), values: each.collect() }
}

/// The counters that the arguments ask for.
fn select(a: &CountersArgs, lists: &[v1::CounterList], earlier: Option<&Earlier>) -> Vec<CounterView> {
    let elapsed = earlier.map(|e| e.at.elapsed().as_secs_f64().max(1e-6));
    let mut shown = Vec::new();
    for list in lists {
        for c in &list.counters {
            let wanted = (!a.drops || c.drop)
                && (a.all || c.value != 0)
                && a.port.as_deref().is_none_or(|p| p == c.port);
            if !wanted {
                continue;
            }
            let rate = |e: &Earlier, secs: f64| {
                let before = e.values.get(&key(&list.nve, c)).copied().unwrap_or(0);
                c.value.saturating_sub(before) as f64 / secs
            };
            shown.push(CounterView {
                nve: list.nve.clone(),
                worker: (!c.device).then_some(c.worker),
                port: crate::text::some(&c.port),
                name: c.name.clone(),
                kind: kind(c),
                unit: crate::text::some(&c.unit),
                drop: c.drop,
                value: c.value,
                per_second: earlier.zip(elapsed).map(|(e, secs)| rate(e, secs)),
                help: c.help.clone(),
            });
        }
    }
    shown
}

/// Who did not answer: the failure itself for one, a summary for several.
fn missing_as_failure(mut missing: Vec<(String, Failure)>) -> Result<(), Failure> {
    match missing.len() {
        0 => Ok(()),
        1 => Err(missing.remove(0).1),
        n => {
            let names: Vec<&str> = missing.iter().map(|(nve, _)| nve.as_str()).collect();
            let text = format!("{n} NVEs did not answer: {}", names.join(", "));
            let first = &missing[0].1;
            Err(Failure { kind: first.kind, text, remedy: Some(format!("the first said: {}", first.text)) })
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The [`Failure`] to report; where some NVEs answered and others did not, after printing what there is.
pub async fn run(a: &CountersArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let source = Source::new(a, ctx).await?;
    let mut earlier: Option<Earlier> = None;
    let mut round = 0;
    loop {
        let (lists, missing) = source.read(a.all).await?;
        let counters = select(a, &lists, earlier.as_ref());
        let report = Counters {
            dropped_total: counters.iter().filter(|c| c.drop).map(|c| c.value).sum(),
            counters,
            missing: missing.iter().map(|(n, f)| Missing { nve: n.clone(), error: f.text.clone() }).collect(),
            with_rates: a.watch.is_some(),
            with_help: a.drops,
        };
        round += 1;
        let Some(pause) = a.watch else {
            ctx.show(&report)?;
            return missing_as_failure(missing);
        };
        if round > 1 && !ctx.json {
            ctx.print("\n")?;
        }
        ctx.show_one_of_many(&report)?;
        for (_, failure) in &missing {
            failure.report(ctx.err);
        }
        if a.rounds.is_some_and(|n| round >= n) {
            return Ok(());
        }
        earlier = Some(remember(&lists));
        tokio::time::sleep(pause).await;
    }
}
