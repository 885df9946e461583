//! `godwitctl move`: moves and their timelines.

use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use godwit_api::v1;
use serde::Serialize;

use super::move_view::{MoveView, is_final, step_line, step_view};
use crate::context::{Context, Report};
use crate::failure::{Failure, Kind};
use crate::nva::Nva;
use crate::parse;
use crate::suggest::{self, Named};
use crate::table::Table;

/// Pause before a lost NVA is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Moves, ordered and not.
#[derive(Subcommand, Clone, Debug)]
pub enum MoveCommand {
    /// List moves: those that were ordered, and claims for other NVEs' VMs that nobody ordered.
    List {
        /// Only this VM's.
        #[arg(long, value_parser = parse::name)]
        vm: Option<String>,
        /// Only those that are not over.
        #[arg(long)]
        unfinished: bool,
    },
    /// Show a move's timeline, counts and outage.
    #[command(
        after_help = "Example:\n  godwitctl move show m-1\n\nTimes count from the order, in milliseconds, by \
            the clock of the host that reports the step."
    )]
    Show {
        /// The move.
        #[arg(value_parser = parse::move_id)]
        id: String,
    },
    /// Call a move off; the VM stays where it is. Refused once the new NVE has the grant.
    Abort {
        /// The move.
        #[arg(value_parser = parse::move_id)]
        id: String,
    },
    /// Say how far a VM's manager is with a warm or cold move; what was said may be said again.
    #[command(
        after_help = "Example:\n  godwitctl move report m-1 packaged\n\nA cold move is stopped, packaged, sent \
            and instantiated, in this order; a warm one stopped and instantiated. That it is stopped is known \
            from its port, too, and its start ends the move."
    )]
    Report {
        /// The move.
        #[arg(value_parser = parse::move_id)]
        id: String,
        /// What is done.
        #[arg(value_enum)]
        step: Reported,
    },
    /// Print a move's steps as they happen, until it is over.
    #[command(
        after_help = "With --json, each change prints the whole record as one line.\nExit codes: 0 done, 1 \
            aborted or failed, 3 the NVA stayed away longer than --timeout."
    )]
    Watch {
        /// The move.
        #[arg(value_parser = parse::move_id)]
        id: String,
    },
}

/// What a manager says of a warm or cold move.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reported {
    /// The VM is shut down at its old host.
    Stopped,
    /// Its state is packaged.
    Packaged,
    /// Its state is at its new host.
    Sent,
    /// It is instantiated at its new host, and does not run yet.
    Instantiated,
}

impl From<Reported> for v1::MovePhase {
    fn from(r: Reported) -> v1::MovePhase {
        match r {
            Reported::Stopped => v1::MovePhase::Stopped,
            Reported::Packaged => v1::MovePhase::Packaged,
            Reported::Sent => v1::MovePhase::Sent,
            Reported::Instantiated => v1::MovePhase::Instantiated,
        }
    }
}

#[derive(Serialize)]
struct MoveList {
    moves: Vec<MoveView>,
}

impl Report for MoveList {
    fn text(&self) -> String {
        let headings = ["ID", "VM", "FROM", "TO", "MODE", "PHASE", "BEGAN", ">OUTAGE (MS)"];
        let mut t = Table::new(&headings);
        for m in &self.moves {
            t.row([
                m.id.clone(),
                m.vm.clone(),
                m.from.clone(),
                m.to.clone(),
                m.how().to_owned(),
                m.phase.clone(),
                m.ordered_at.clone().unwrap_or_default(),
                m.outage.paused_to_activated_ms.map(|ms| format!("{ms:.3}")).unwrap_or_default(),
            ]);
        }
        t.text_or("no moves")
    }
}

/// A move that was ordered and is not waited for.
struct Ordered(MoveView);

impl Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Report for Ordered {
    fn text(&self) -> String {
        let m = &self.0;
        format!(
            "move {}: {} from {} to {}, {}\n`godwitctl move watch {}` follows it\n",
            m.id, m.vm, m.from, m.to, m.phase, m.id
        )
    }
}

/// What to do with each change of a watched move.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Text: new steps. JSON: the record in a line.
    Each,
    /// Text: new steps. JSON: the last record only.
    Last,
}

/// After `vm move`: says what was ordered, or waits for its end.
///
/// # Errors
/// The [`Failure`] to report; also where the move did not end well.
pub async fn ordered(
    nva: &Nva,
    record: v1::MoveRecord,
    wait: bool,
    ctx: &mut Context<'_>,
) -> Result<(), Failure> {
    if wait {
        watch(nva, &record.id, Progress::Last, ctx).await
    } else {
        ctx.show(&Ordered(MoveView::new(&record)))
    }
}

/// Follows a move to its end, over restarts of the NVA that are shorter than the timeout.
async fn watch(nva: &Nva, id: &str, progress: Progress, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let mut watched = Watched::default();
    loop {
        let began = Instant::now();
        watched.heard_news = false;
        let lost = match follow(nva, id, progress, &mut watched, ctx).await {
            Ok(Some(last)) => return finish(&last, progress, ctx),
            Ok(None) => Failure::unreachable(format!("{} ended the watch of move {id:?}", nva.peer())),
            Err(f) if f.kind == Kind::Unreachable => f,
            Err(f) => return Err(suggest::explain(nva, f, &[(Named::Move, id)]).await),
        };
        // A stream that brought nothing and soon ended is no sign that the NVA is back.
        if watched.heard_news || began.elapsed() > ctx.link.timeout() {
            watched.lost_at = None;
        }
        if watched.lost_at.get_or_insert_with(Instant::now).elapsed() >= ctx.link.timeout() {
            return Err(lost.remedy(format!("the move goes on; `godwitctl move show {id}` shows it")));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// How far a watch is: what was printed, and since when the NVA is away.
#[derive(Default)]
struct Watched {
    heading: bool,
    steps_printed: usize,
    steps_heard: usize,
    last: Option<v1::MoveRecord>,
    heard_news: bool,
    lost_at: Option<Instant>,
}

/// One stream of changes; its last record where that is final.
async fn follow(
    nva: &Nva,
    id: &str,
    progress: Progress,
    watched: &mut Watched,
    ctx: &mut Context<'_>,
) -> Result<Option<v1::MoveRecord>, Failure> {
    let mut changes = nva.watch(id).await?;
    loop {
        let next = changes.message().await.map_err(|s| Failure::from_status(&nva.peer(), &s))?;
        let Some(record) = next else { return Ok(None) };
        if watched.last.as_ref() == Some(&record) {
            continue;
        }
        watched.heard_news |= record.steps.len() > watched.steps_heard;
        watched.steps_heard = watched.steps_heard.max(record.steps.len());
        watched.last = Some(record.clone());
        let view = MoveView::new(&record);
        if !ctx.json {
            print_news(&record, &view, watched, ctx)?;
        } else if progress == Progress::Each {
            ctx.show_one_of_many(&view)?;
        }
        if is_final(record.phase()) {
            return Ok(Some(record));
        }
    }
}

/// Prints the steps that were not printed yet, in the order in which the NVA heard of them.
fn print_news(
    record: &v1::MoveRecord,
    view: &MoveView,
    watched: &mut Watched,
    ctx: &mut Context<'_>,
) -> Result<(), Failure> {
    if !watched.heading {
        ctx.print(&format!("{}\n", view.heading()))?;
        watched.heading = true;
    }
    let start = view.ordered_at_us.unwrap_or(0);
    let news: String =
        record.steps.iter().skip(watched.steps_printed).map(|s| step_line(&step_view(s, start))).collect();
    watched.steps_printed = watched.steps_printed.max(record.steps.len());
    ctx.print(&news)
}

/// The end of a watch: results, and a failure where the move did not succeed.
fn finish(last: &v1::MoveRecord, progress: Progress, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let view = MoveView::new(last);
    if !ctx.json {
        ctx.print(&view.results())?;
    } else if progress == Progress::Last {
        ctx.show(&view)?;
    }
    if last.phase() == v1::MovePhase::Done {
        return Ok(());
    }
    let reason = view.steps.iter().rev().find_map(|s| s.note.clone().filter(|_| s.step == view.phase));
    let reason = reason.map(|r| format!(": {r}")).unwrap_or_default();
    Err(Failure::refused(format!("move {} {}{reason}", view.id, view.phase))
        .remedy(format!("`godwitctl vm show {}` says where the VM is now", view.vm)))
}

/// Runs a command of the family.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: MoveCommand, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let nva = ctx.link.nva().await?;
    match command {
        MoveCommand::List { vm, unfinished } => {
            match nva.moves(vm.as_deref().unwrap_or(""), unfinished).await {
                Ok(moves) => ctx.show(&MoveList { moves: moves.iter().map(MoveView::new).collect() }),
                Err(f) => {
                    let used: Vec<_> = vm.as_deref().map(|vm| (Named::Vm, vm)).into_iter().collect();
                    Err(suggest::explain(&nva, f, &used).await)
                }
            }
        }
        MoveCommand::Show { id } => {
            match nva.settle(nva.client().show_move(v1::MoveName { id: id.clone() })).await {
                Ok(record) => ctx.show(&MoveView::new(&record)),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Move, &id)]).await),
            }
        }
        MoveCommand::Abort { id } => {
            match nva.settle(nva.client().abort_move(v1::MoveName { id: id.clone() })).await {
                Ok(record) => ctx.show(&MoveView::new(&record)),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Move, &id)]).await),
            }
        }
        MoveCommand::Report { id, step } => {
            let phase = v1::MovePhase::from(step).into();
            let request = v1::ReportMoveRequest { id: id.clone(), phase };
            match nva.settle(nva.client().report_move(request)).await {
                Ok(record) => ctx.show(&Ordered(MoveView::new(&record))),
                Err(f) => Err(suggest::explain(&nva, f, &[(Named::Move, &id)]).await),
            }
        }
        MoveCommand::Watch { id } => watch(&nva, &id, Progress::Each, ctx).await,
    }
}
