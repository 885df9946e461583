//! The table of all runs.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::{MoveLine, Run};

/// A number with commas.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// The final table of all combinations.
pub fn table(runs: &[Run]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "inner",
        "outer",
        "moves",
        "sent",
        "lost",
        "dup.",
        "reord.",
        "longest\ngap ms",
        "beyond\npause ms",
        "held\nold+new",
        "forwarded\nold+new",
        "TCP",
    ]);
    for r in runs {
        let sum = |f: fn(&MoveLine) -> u64| r.timeline.iter().map(f).sum::<u64>();
        table.add_row([
            format!("IPv{}", r.inner),
            format!("IPv{}", r.outer),
            r.moves.to_string(),
            thousands(r.sent),
            thousands(r.lost),
            thousands(r.duplicated),
            thousands(r.reordered),
            format!("{:.1}", r.gap_ms_max),
            format!("{:.1}", r.gap_ms_max_beyond_pause),
            format!("{}+{}", thousands(sum(|m| m.held_old)), thousands(sum(|m| m.held_new))),
            format!("{}+{}", thousands(sum(|m| m.forwarded_old)), thousands(sum(|m| m.forwarded_new))),
            format!("{} {:.0} MB", if r.tcp_alive { "alive" } else { "DEAD" }, r.tcp_bytes as f64 / 1e6),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{}", legend(runs))
}

fn legend(runs: &[Run]) -> String {
    let pause = runs.iter().map(|r| r.pause_ms_max).fold(0.0, f64::max);
    let mut text = format!(
        "sent: both ways together. longest gap: the longest silence between two arrivals at either end, the\n\
         pause of v included (up to {pause:.1} ms); beyond pause: what is left when the pause is taken out.\n\
         held, forwarded: by the old and the new NVE of the moves.\n"
    );
    for r in runs.iter().filter(|r| r.gap_ms_max_beyond_pause >= 50.0) {
        let (inner, outer, gap) = (r.inner, r.outer, r.gap_ms_max_beyond_pause);
        let _ =
            writeln!(text, "IPv{inner} over IPv{outer}: the silence of {gap:.1} ms began {}.", r.gap_during);
    }
    let drops: u64 = runs.iter().map(|r| r.kernel_drops).sum();
    if drops > 0 {
        let _ =
            writeln!(text, "This machine's own kernel dropped {drops} frames between guests and switches.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(12_345_678), "12,345,678");
    }
}
