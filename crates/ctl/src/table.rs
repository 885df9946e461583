//! Aligned columns without borders.

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; one that begins with `>` is aligned to the right.
    pub fn new(headings: &[&str]) -> Table {
        let column = |h: &&str| match h.strip_prefix('>') {
            Some(rest) => (rest.to_owned(), Align::Right),
            None => ((*h).to_owned(), Align::Left),
        };
        Table { columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let dash = |c: String| if c.is_empty() { "-".to_owned() } else { c };
        self.rows.push(cells.into_iter().map(dash).collect());
    }

    /// Without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, or `instead` (as a line of its own) where there are no rows.
    pub fn text_or(&self, instead: &str) -> String {
        if self.is_empty() { format!("{instead}\n") } else { self.text() }
    }

    /// The text, heading first, without trailing blanks.
    pub fn text(&self) -> String {
        let headings: Vec<String> = self.columns.iter().map(|(h, _)| h.clone()).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let width = |i: usize| lines().map(|r| cell(r, i).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in lines() {
            let mut line = String::new();
            for (i, ((_, align), width)) in self.columns.iter().zip(&widths).enumerate() {
                let gap = if i == 0 { "" } else { "  " };
                line += &match align {
                    Align::Left => format!("{gap}{:<width$}", cell(row, i)),
                    Align::Right => format!("{gap}{:>width$}", cell(row, i)),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn cell(row: &[String], i: usize) -> &str {
    row.get(i).map_or("", String::as_str)
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
