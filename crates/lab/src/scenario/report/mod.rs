//! What people and programs read after a scenario.

mod downtime;
mod ending;
mod line;
mod run;
mod table;

use std::path::Path;

use anyhow::{Context, Result};

pub use downtime::beyond_downtime;
pub use ending::{complaint, diagnosis, end, end_or_keep, playground};
pub use line::MoveLine;
pub use run::{Run, verdict};
pub use table::{table, thousands};

fn round(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

/// Writes the runs to a file, if one was asked for.
///
/// # Errors
/// Where it cannot be written.
pub fn write_json(path: Option<&Path>, runs: &[Run]) -> Result<()> {
    write_json_value(path, &serde_json::json!({ "runs": runs }))
}

/// Writes any result to a file, if one was asked for.
///
/// # Errors
/// Where it cannot be written.
pub fn write_json_value(path: Option<&Path>, value: &serde_json::Value) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
