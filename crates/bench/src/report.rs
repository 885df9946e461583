//! What people and programs read.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;
use serde_json::{Value, json};

use crate::beside::{self, Ratio};
use crate::plan::Row;
use crate::stats::{Rates, rounded};

/// What a row gave.
pub struct Outcome {
    /// The row.
    pub row: Row,
    /// Rates of the contenders; empty where one has no such case.
    pub godwit: Rates,
    /// OVS-DPDK.
    pub ovs: Rates,
    /// testpmd.
    pub floor: Rates,
    /// What is to be said of it.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Nothing measured yet.
    pub fn new(row: Row) -> Outcome {
        let none = Rates::default;
        Outcome { row, godwit: none(), ovs: none(), floor: none(), notes: Vec::new() }
    }

    fn json(&self) -> Value {
        let Outcome { row, godwit, ovs, floor, notes } = self;
        json!({
            "case": row.case,
            "frame_bytes": row.sizes.mean(),
            "sizes": row.sizes.to_string(),
            "destinations": row.destinations,
            "flows": row.flows,
            "nves": row.nves,
            "workers": row.workers,
            "godwit_mpps": rounded(godwit.median()),
            "ovs_mpps": rounded(ovs.median()),
            "floor_mpps": rounded(floor.median()),
            "godwit_over_ovs": rounded(godwit.ratio(ovs)),
            "godwit_over_floor": rounded(godwit.ratio(floor)),
            "godwit_best_mpps": rounded(godwit.best()),
            "ovs_best_mpps": rounded(ovs.best()),
            "floor_best_mpps": rounded(floor.best()),
            "rounds": { "godwit": godwit, "ovs": ovs, "floor": floor },
            "notes": notes,
        })
    }
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"))
}

/// The rows as a table.
pub fn table(rows: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "case", "bytes", "dest.", "flows", "workers", "godwit", "ovs", "floor", "/ovs", "/floor", "best",
        "spread",
    ]);
    for o in rows {
        let r = &o.row;
        table.add_row([
            r.case.name().to_owned(),
            r.sizes.to_string(),
            r.destinations.to_string(),
            r.flows.to_string(),
            r.workers.to_string(),
            cell(o.godwit.median(), 2),
            cell(o.ovs.median(), 2),
            cell(o.floor.median(), 2),
            cell(o.godwit.ratio(&o.ovs), 2),
            cell(o.godwit.ratio(&o.floor), 2),
            cell(o.godwit.best(), 2),
            o.godwit.spread().map_or_else(|| "–".into(), |s| format!("{:.0} %", 100.0 * s)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// A row beside another one, by each contender.
#[derive(Serialize)]
pub struct Scaling {
    what: String,
    godwit: Option<f64>,
    /// Of the best rounds: rows are minutes apart, and a slow moment of the machine falls on one of them.
    godwit_best: Option<f64>,
    ovs: Option<f64>,
    floor: Option<f64>,
}

/// What rows say together: how each contender takes more destinations, the other outer family, the
/// other way, and a second worker.
pub fn scalings(rows: &[Outcome]) -> Vec<Scaling> {
    let mut out = Vec::new();
    for o in rows.iter().filter(|o| o.row.is_shortest()) {
        let base = beside::reference(o.row);
        let Some(b) = rows.iter().find(|b| b.row == base) else { continue };
        if b.row == o.row {
            continue;
        }
        let ratio = |a: &Rates, b: &Rates| rounded(a.median().zip(b.median()).map(|(a, b)| a / b));
        out.push(Scaling {
            what: format!("{} to {base}", o.row),
            godwit: ratio(&o.godwit, &b.godwit),
            godwit_best: rounded(o.godwit.best().zip(b.godwit.best()).map(|(a, b)| a / b)),
            ovs: ratio(&o.ovs, &b.ovs),
            floor: ratio(&o.floor, &b.floor),
        });
    }
    out
}

/// The scalings as lines.
pub fn scalings_text(all: &[Scaling]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["a contender's own ratio", "godwit", "best", "ovs", "floor"]);
    for s in all {
        table.add_row([
            s.what.clone(),
            cell(s.godwit, 2),
            cell(s.godwit_best, 2),
            cell(s.ovs, 2),
            cell(s.floor, 2),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The pairs as lines.
pub fn ratios_text(all: &[Ratio]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["row", "beside", "godwit", "best", "floor", "best"]);
    for r in all {
        let figures = [r.godwit, r.godwit_best, r.floor, r.floor_best].map(|v| cell(v, 3));
        table.add_row([r.of.clone(), r.to.clone()].into_iter().chain(figures));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// What the figures were measured on and how.
#[derive(Serialize)]
pub struct Conditions {
    /// Version and revision of the switch.
    pub godwit: String,
    /// OVS's version.
    pub ovs: String,
    /// DPDK's version.
    pub dpdk: String,
    /// The processor.
    pub cpu: String,
    /// Online cores.
    pub cores: usize,
    /// What played the captures.
    pub ends: &'static str,
    /// Alternations.
    pub rounds: usize,
    /// Seconds of each window.
    pub seconds: f64,
}

/// Writes everything as JSON.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_json(path: &Path, rows: &[Outcome], ratios: &[Ratio], conditions: &Conditions) -> Result<()> {
    let all = json!({
        "rows": rows.iter().map(Outcome::json).collect::<Vec<_>>(),
        "scaling": scalings(rows),
        "in_turn": ratios,
        "conditions": conditions,
    });
    write_pretty(path, &all)
}

/// Writes what updates did as JSON.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_updates(path: &Path, outcome: &crate::updates::Outcome, conditions: &Conditions) -> Result<()> {
    write_pretty(path, &json!({ "updates": outcome, "conditions": conditions }))
}

/// Writes what a scan did as JSON.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_storm(path: &Path, outcome: &crate::storm::Outcome, conditions: &Conditions) -> Result<()> {
    write_pretty(path, &json!({ "storm": outcome, "conditions": conditions }))
}

/// Writes `value` so that people can read it, too.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_pretty(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;

    fn outcome(name: &str, godwit: f64) -> Outcome {
        let row = plan::select(&[], name).unwrap()[0];
        Outcome { godwit: Rates(vec![godwit]), floor: Rates(vec![50.0]), ..Outcome::new(row) }
    }

    #[test]
    fn a_peer_without_such_a_case_is_null() {
        let j = outcome("encap-v4/60/1000", 20.0).json();
        assert_eq!(j["godwit_mpps"], 20.0);
        assert_eq!(j["godwit_over_floor"], 0.4);
        assert!(j["ovs_mpps"].is_null());
        assert_eq!((&j["case"], &j["frame_bytes"]), (&json!("encap-v4"), &json!(60)));
    }

    #[test]
    fn rows_are_compared_with_the_next_simpler_one() {
        let rows = [
            outcome("encap-v4/60/1000", 20.0),
            outcome("encap-v4/60/1000000", 10.0),
            outcome("encap-v6/60/1000", 19.0),
            outcome("encap-v4/60/1000/workers=2", 38.0),
        ];
        let ratios: Vec<f64> = scalings(&rows).iter().filter_map(|s| s.godwit).collect();
        assert_eq!(ratios, [0.5, 0.95, 1.9]);
    }
}
