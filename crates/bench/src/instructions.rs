//! Instructions that a frame takes, counted by valgrind's callgrind, which other users of a machine do not change.
//!
//! The switch runs as it ships, between the same ends, but some hundred times slower and without hugepages. Counted is
//! what its worker executes in the program itself. What DPDK's drivers and the player execute is left out: it is the
//! same for each build.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use godwit_lab::cmd;
use serde::Serialize;
use serde_json::json;

use crate::ends::Ends;
use crate::godwit::Godwit;
use crate::peer::Site;
use crate::plan::Row;
use crate::report;
use crate::report::Conditions;

/// Pipeline stages that are functions of their own; the second has the first one's frames.
const STAGES: [&str; 2] = ["look", "apply"];

/// What frames of a row take in one build.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The row's name.
    pub row: String,
    /// The build.
    pub godwit: PathBuf,
    /// Instructions a frame, by stage: `look`, `apply` and all the rest.
    pub stages: Vec<(String, f64)>,
}

impl Outcome {
    fn all(&self) -> f64 {
        self.stages.iter().map(|(_, n)| n).sum()
    }
}

/// Counts the rows, each in every build.
///
/// # Errors
/// Where valgrind is missing, or a switch does not carry the frames.
pub fn measure(site: &mut Site, builds: &[PathBuf], rows: &[Row], window: Duration) -> Result<Vec<Outcome>> {
    cmd::run("valgrind", &["--version"]).context("install valgrind, which counts instructions")?;
    let mut outcomes = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        for build in builds {
            eprintln!("[{}/{}] {row} {}", n + 1, rows.len(), build.display());
            site.godwit.clone_from(build);
            outcomes.push(measure_row(site, *row, window)?);
        }
    }
    Ok(outcomes)
}

fn measure_row(site: &Site, row: Row, window: Duration) -> Result<Outcome> {
    let ends = Ends::new(row, site)?;
    let file = site.dir.join("callgrind.out");
    let switch = Godwit::start_counted(site, &ends, &file)?;
    let pid = switch.id().context("the switch has ended")?.to_string();
    switch.perf(true)?;
    cmd::run("callgrind_control", &["--instr=on", &pid])?;
    thread::sleep(window);
    cmd::run("callgrind_control", &["--instr=off", &pid])?;
    let queues = switch.perf(false)?.queues;
    let bursts = queues.iter().map(|q| q.bursts).sum::<u64>();
    ensure!(bursts > 0, "{row}: no frame came while instructions were counted");
    let burst = queues.iter().map(|q| q.packets).sum::<u64>() as f64 / bursts as f64;
    // Written now: at its end the switch may be too slow to be waited for.
    cmd::run("callgrind_control", &["--dump", &pid])?;
    let worker = worker(&file, &site.godwit)?;
    Ok(Outcome { row: row.to_string(), godwit: site.godwit.clone(), stages: worker.by_frame(burst) })
}

/// The counts of the thread that looks at bursts; removes all threads' files.
fn worker(file: &Path, program: &Path) -> Result<Counts> {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let program = fs::canonicalize(program)?;
    let mut found = None;
    for entry in fs::read_dir(file.parent().context("a file in a folder")?)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name)) {
            let counts = Counts::read(&fs::read_to_string(&path)?, &program.to_string_lossy());
            found = found.or(Some(counts).filter(|c| c.bursts > 0));
            fs::remove_file(&path)?;
        }
    }
    found.with_context(|| format!("no thread's counts in {}* have a burst", file.display()))
}

/// What one thread executed of one program.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    /// Instructions in each function itself.
    functions: HashMap<String, u64>,
    /// Calls of the first stage.
    bursts: u64,
}

impl Counts {
    /// Reads callgrind's format: lines of position and cost below the object (`ob=`) and function (`fn=`) that they are
    /// of, a call's cost in the line after `calls=`, names with a number at their first use and the number alone later.
    fn read(text: &str, program: &str) -> Counts {
        let (mut names, mut counts) = (HashMap::new(), Counts::default());
        let (mut object, mut function, mut called) = (String::new(), String::new(), String::new());
        let mut is_calls_cost = false;
        for line in text.lines() {
            match line.split_once('=') {
                Some(("ob", name)) => object = full_name(&mut names, "ob", name),
                Some(("cob", name)) => drop(full_name(&mut names, "ob", name)),
                Some(("fn", name)) => function = full_name(&mut names, "fn", name),
                Some(("cfn", name)) => called = full_name(&mut names, "fn", name),
                Some(("calls", times)) => {
                    let times = times.split_whitespace().next().and_then(|n| n.parse().ok());
                    counts.bursts += times.filter(|_| is_stage(&called, STAGES[0])).unwrap_or(0);
                    is_calls_cost = true;
                }
                None if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) => {
                    let cost = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
                    if !std::mem::take(&mut is_calls_cost) && object == program {
                        *counts.functions.entry(function.clone()).or_default() += cost.unwrap_or(0);
                    }
                }
                _ => {}
            }
        }
        counts
    }

    /// Instructions for each of the frames, of which a burst has so many, by stage.
    fn by_frame(&self, burst: f64) -> Vec<(String, f64)> {
        let frames = self.bursts.max(1) as f64 * burst;
        let of = |stage: Option<&str>| {
            let is = |name: &str| STAGES.into_iter().find(|s| is_stage(name, s));
            let costs = self.functions.iter().filter(|(name, _)| is(name) == stage);
            costs.map(|(_, n)| *n as f64).sum::<f64>() / frames
        };
        let stages = STAGES.iter().map(|s| ((*s).to_owned(), of(Some(s))));
        stages.chain([("rest".to_owned(), of(None))]).collect()
    }
}

/// The function is that stage for a burst of frames from VMs or from an uplink.
fn is_stage(function: &str, stage: &str) -> bool {
    ["access", "overlay"].iter().any(|file| function == format!("godwit_pipeline::{file}::{stage}"))
}

fn full_name(names: &mut HashMap<(&'static str, String), String>, kind: &'static str, text: &str) -> String {
    let (number, name) = text.split_once(' ').unwrap_or((text, ""));
    let known = names.entry((kind, number.to_owned())).or_default();
    if !name.is_empty() {
        *known = name.to_owned();
    }
    known.clone()
}

/// A build of a row a line; the last column is its share of the first build's.
pub fn text(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["row", "build", "look", "apply", "rest", "all", "of the first"]);
    for o in outcomes {
        let first = outcomes.iter().find(|f| f.row == o.row).map_or(1.0, Outcome::all);
        let stages = o.stages.iter().map(|(_, n)| format!("{n:.1}"));
        let begin = [o.row.clone(), o.godwit.display().to_string()];
        let end = [format!("{:.1}", o.all()), format!("{:.1} %", 100.0 * o.all() / first)];
        table.add_row(begin.into_iter().chain(stages).chain(end));
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!("Instructions for a frame in the switch itself, by pipeline stage.\n{table}")
}

/// Writes the results as JSON.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(path: &Path, outcomes: &[Outcome], conditions: &Conditions) -> Result<()> {
    report::write_pretty(path, &json!({ "instructions": outcomes, "conditions": conditions }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "\
events: Ir
ob=(1) /bin/godwit
fl=(1) ???
fn=(10) godwit_worker::worker::step
0 100
cfn=(11) godwit_pipeline::access::look
calls=5 0
0 999999
+3 20
fn=(11)
0 6400
cob=(2) /lib/libc.so
cfn=(12) memcpy
calls=7 0
0 70
ob=(2)
fn=(12)
0 70
ob=(1)
fn=(13) godwit_pipeline::access::apply
* 3200
";

    #[test]
    fn a_frames_instructions_are_those_of_the_program_without_its_calls() {
        let counts = Counts::read(OUT, "/bin/godwit");
        assert_eq!((counts.bursts, counts.functions.values().sum::<u64>()), (5, 9720));
        let stages: Vec<f64> = counts.by_frame(64.0).into_iter().map(|(_, n)| n).collect();
        assert_eq!(stages, [20.0, 10.0, 0.375]);
        assert_eq!(Counts::read("no counts at all", "/bin/godwit"), Counts::default());
    }

    #[test]
    fn builds_of_a_row_are_compared_with_the_first() {
        let of = |godwit: &str, n| Outcome {
            row: "encap-v4/60/1".into(),
            godwit: godwit.into(),
            stages: vec![("look".into(), n), ("apply".into(), n), ("rest".into(), 0.0)],
        };
        let text = text(&[of("old", 100.0), of("new", 99.0)]);
        let line = text.lines().find(|l| l.contains("new")).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["encap-v4/60/1", "new", "99.0", "99.0", "0.0", "198.0", "99.0", "%"]);
    }
}
