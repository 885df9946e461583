//! Aligned columns without borders.

use comfy_table::CellAlignment;
use comfy_table::presets::NOTHING;

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Clone, Debug)]
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with these headings; one that begins with `>` is aligned to the right.
    pub fn new(headings: &[&str]) -> Table {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_header(headings.iter().map(|h| h.trim_start_matches('>')));
        for (column, heading) in table.column_iter_mut().zip(headings) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Table(table)
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let dash = |c: String| if c.is_empty() { "-".to_owned() } else { c };
        self.0.add_row(cells.map(dash));
    }

    /// Without rows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text, or `instead` (as a line of its own) where there are no rows.
    pub fn text_or(&self, instead: &str) -> String {
        if self.is_empty() { format!("{instead}\n") } else { self.text() }
    }

    /// The text, heading first, without trailing blanks.
    pub fn text(&self) -> String {
        self.0.trim_fmt() + "\n"
    }
}

/// Lines of a name and a value, the values aligned; empty values are left out.
pub fn facts(pairs: &[(&str, String)]) -> String {
    let shown = || pairs.iter().filter(|(_, v)| !v.is_empty());
    let width = shown().map(|(k, _)| k.len()).max().unwrap_or(0);
    shown().map(|(k, v)| format!("{k:<width$}  {v}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut t = Table::new(&["NAME", ">N", "NOTE"]);
        t.row(["a".into(), "7".into(), String::new()]);
        t.row(["longer".into(), "1234".into(), "x".into()]);
        assert_eq!(t.text(), "NAME       N  NOTE\na          7  -\nlonger  1234  x\n");
    }

    #[test]
    fn facts_leave_out_what_is_empty() {
        assert_eq!(facts(&[("a", "1".into()), ("long", String::new())]), "a  1\n");
    }
}
