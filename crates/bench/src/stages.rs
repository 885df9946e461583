//! Where the cycles of a frame go: a switch that was built to measure its pipeline stages carries a row's frames
//! by itself.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use godwit_api::v1::WorkerPerf;
use serde::Serialize;
use serde_json::json;

use crate::ends::Ends;
use crate::godwit::{self, Godwit};
use crate::peer::{Peer, SETTLE, Site};
use crate::plan::Row;
use crate::report::Conditions;
use crate::stats::median;
use crate::{memory, report};

/// What a row's frames cost.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The row's name.
    pub row: String,
    /// Millions of frames a second of the switch that measures itself, median of the rounds.
    pub mpps: f64,
    /// Ticks of the time stamp counter a frame, by pipeline stage: medians of the rounds.
    pub stages: Vec<(String, f64)>,
}

/// Measures the rows, one after the other.
///
/// # Errors
/// Where the switch does not start, or was not built for this.
pub fn measure(site: &Site, rows: &[Row], rounds: u32, window: Duration) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        eprintln!("[{}/{}] {row}", n + 1, rows.len());
        outcomes.push(measure_row(site, *row, rounds, window)?);
    }
    Ok(outcomes)
}

fn measure_row(site: &Site, row: Row, rounds: u32, window: Duration) -> Result<Outcome> {
    let ends = Ends::new(row, site)?;
    memory::reserve(godwit::memory_mb(&ends))?;
    let mut switch = Godwit::start(site, &ends)?;
    sleep(SETTLE);
    let (mut rates, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        switch.perf(true)?;
        rates.push(switch.measure(window)?.mpps);
        let perf = switch.perf(false)?;
        ensure!(
            !perf.stages.is_empty(),
            "{} does not measure its stages: build it with --features stage-meter",
            site.godwit.display()
        );
        taken.push(by_frame(&perf));
    }
    let names = taken.first().into_iter().flatten().map(|(name, _)| name.clone());
    let middle = |at: usize| median(&taken.iter().map(|t| t[at].1).collect::<Vec<f64>>()).unwrap_or_default();
    let stages = names.enumerate().map(|(at, name)| (name, middle(at))).collect();
    Ok(Outcome { row: row.to_string(), mpps: median(&rates).unwrap_or_default(), stages })
}

/// Ticks for each frame that came in.
fn by_frame(perf: &WorkerPerf) -> Vec<(String, f64)> {
    let frames = perf.queues.iter().map(|q| q.packets).sum::<u64>().max(1) as f64;
    perf.stages.iter().map(|s| (s.name.clone(), s.ticks as f64 / frames)).collect()
}

/// A row a line, a stage a column.
pub fn text(outcomes: &[Outcome]) -> String {
    let Some(first) = outcomes.first() else { return String::new() };
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    let names = first.stages.iter().map(|(name, _)| name.as_str());
    table.set_header(["row", "Mpps"].into_iter().chain(names).chain(["all"]));
    for o in outcomes {
        let all: f64 = o.stages.iter().map(|(_, ticks)| ticks).sum();
        let stages = o.stages.iter().map(|(_, ticks)| format!("{ticks:.1}"));
        let begin = [o.row.clone(), format!("{:.2}", o.mpps)];
        table.add_row(begin.into_iter().chain(stages).chain([format!("{all:.1}")]));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!("Ticks of the time stamp counter for a frame, by pipeline stage.\n{table}")
}

/// Writes the results as JSON.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(path: &Path, outcomes: &[Outcome], conditions: &Conditions) -> Result<()> {
    report::write_pretty(path, &json!({ "stages": outcomes, "conditions": conditions }))
}

#[cfg(test)]
mod tests {
    use godwit_api::v1::{QueuePerf, StageTicks};

    use super::*;

    #[test]
    fn a_frames_cost_is_split_by_pass() {
        let stage = |name: &str, ticks| StageTicks { name: name.into(), ticks };
        let queue = |packets| QueuePerf { packets, ..QueuePerf::default() };
        let perf = WorkerPerf {
            queues: vec![queue(60), queue(40)],
            stages: vec![stage("look", 1000), stage("apply", 2050)],
            ..WorkerPerf::default()
        };
        let stages = by_frame(&perf);
        assert_eq!(stages, [("look".to_owned(), 10.0), ("apply".to_owned(), 20.5)]);
        let text = text(&[Outcome { row: "encap-v4/60/1".into(), mpps: 30.0, stages }]);
        let row = text.lines().find(|line| line.contains("encap-v4/60/1")).expect("the row has a line");
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["encap-v4/60/1", "30.00", "10.0", "20.5", "30.5"]);
    }
}
