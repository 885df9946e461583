//! A guest that migrates without any switch: whether all of its memory comes along is then QEMU's alone.
//!
//! Where a guest dies after a migration between two switches, this tells whose fault it may be: what QEMU leaves
//! behind here, no switch had a part in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::guest::memory::Difference;
use crate::guest::qemu::GuestSpec;
use crate::guest::{Guest, standard_image};
use crate::lab::{cleanup, topology};

/// What the guest does meanwhile: a process waits for what does not come, two milliseconds at a time, as a thread does
/// that sends by a timer. It is alone: a processor that goes to another one forgets which pages it need not report.
const WORK: &str = "mkfifo /never; \
                    (exec 3<>/never; while :; do read -t 0.002 -u 3 line; done) >/dev/null 2>&1 &";
/// How long it does that before it migrates again.
const BETWEEN: Duration = Duration::from_millis(100);
/// How often what is under way says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// Options of `godwit-lab guest-memory`.
#[derive(Clone, Debug, Args)]
pub struct GuestMemory {
    /// Migrations
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    moves: u32,
    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    migrations: u32,
    /// The pages that were left behind, by the number of the migration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    differences: BTreeMap<u32, Vec<Difference>>,
}

impl GuestMemory {
    /// Runs the scenario and prints its report; false where a page was left behind.
    ///
    /// # Errors
    /// Where it cannot be carried out, or the guest dies.
    pub fn run(&self) -> Result<bool> {
        crate::guest::qemu::ensure_present()?;
        println!(
            "Godwit lab: a guest's memory\n  v, Linux under QEMU without a network card, migrates {} times; \
             each time its memory is compared at both ends\n",
            self.moves
        );
        let id = cleanup::claim()?;
        let mut report = Report::default();
        let result = migrations(self.moves, &id, &mut report);
        cleanup::forget(&id);
        cleanup::sweep(&id, result.is_err());
        if let Some(file) = &self.json {
            let text = serde_json::to_string_pretty(&report)?;
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        result.with_context(|| {
            format!("migration {}; logs in {}", report.migrations + 1, cleanup::directory(&id).display())
        })?;
        let left: usize = report.differences.values().map(Vec::len).sum();
        let with = report.differences.len();
        println!(
            "\n{}",
            if left == 0 {
                format!("PASSED: {} migrations, and no page was left behind.", report.migrations)
            } else {
                format!(
                    "FAILED: {left} pages were left behind in {with} of {} migrations, by QEMU alone.",
                    report.migrations
                )
            }
        );
        Ok(left == 0)
    }
}

fn migrations(moves: u32, id: &str, report: &mut Report) -> Result<()> {
    let lab = std::env::current_exe().context("where am I?")?;
    let (dir, namespace) = (cleanup::directory(id), format!("{}v", cleanup::prefix(id)));
    topology::add_namespace(&namespace)?;
    let (kernel, image) = standard_image(&lab, &dir)?;
    let mut guest = Guest::start(GuestSpec::new("v", &kernel, &image), &dir, Some(&namespace))?;
    println!("  v is up: Linux {}", guest.sh("uname -r")?.trim());
    guest.sh(WORK)?;
    let mut told = Instant::now();
    for n in 1..=moves {
        std::thread::sleep(BETWEEN);
        let mut destination = guest.prepare_destination(Vec::new())?;
        destination.hold()?;
        guest.begin_migration(&destination)?;
        let migration = guest.finish_migration(destination)?;
        let found = migration.differences.context("the guest ran before its memory was compared")?;
        guest.resume()?;
        if !found.is_empty() {
            println!("  migration {n}: left behind {}", numbers(&found));
            report.differences.insert(n, found);
        }
        ensure!(guest.sh("echo here")?.trim() == "here", "v says something else than it should");
        report.migrations = n;
        if told.elapsed() > PROGRESS {
            println!("  {n} of {moves} migrations");
            told = Instant::now();
        }
    }
    guest.shut_down()
}

/// The first of the pages, for people.
fn numbers(found: &[Difference]) -> String {
    let first = found.iter().take(8).map(|d| format!(" {:#x} ({} bytes from {})", d.page, d.bytes, d.at));
    let more = if found.len() > 8 { " and more" } else { "" };
    format!("{} pages:{}{more}", found.len(), first.collect::<String>())
}
