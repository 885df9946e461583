//! Lines of Markdown, with what they are part of.

/// What a line is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Paragraphs, headings and lists.
    Prose,
    /// The heads of a table's columns, and the line below them.
    Head,
    /// A row of a table.
    Table,
    /// A block of code, its fences included.
    Code,
}

/// One line.
pub struct Line<'a> {
    /// From 1.
    pub number: usize,
    /// What it is part of.
    pub kind: Kind,
    /// The line without its end.
    pub text: &'a str,
}

/// The lines of a document.
pub fn lines(text: &str) -> Vec<Line<'_>> {
    let mut fenced = false;
    let mut all = Vec::new();
    for (at, text) in text.lines().enumerate() {
        let start = text.trim_start();
        let fence = start.starts_with("```");
        let kind = match (fenced || fence, start.starts_with('|')) {
            (true, _) => Kind::Code,
            (false, true) => Kind::Table,
            (false, false) => Kind::Prose,
        };
        fenced ^= fence;
        all.push(Line { number: at + 1, kind, text });
        if kind == Kind::Table && start.starts_with("|--") {
            all.iter_mut().rev().take(2).for_each(|line| line.kind = Kind::Head);
        }
    }
    all
}

/// The cells of a row, without the bars around them.
pub fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim).collect()
}

/// A line without the targets of its links and without bare addresses.
pub fn without_links(line: &str) -> String {
    let mut rest = line;
    let mut kept = String::new();
    while let Some(at) = rest.find("](") {
        kept.push_str(&rest[..=at]);
        let target = &rest[at + 2..];
        rest = target.find(')').map_or("", |end| &target[end + 1..]);
    }
    kept.push_str(rest);
    kept.split(' ').filter(|word| !word.contains("://")).collect::<Vec<_>>().join(" ")
}

/// A line without what is set as code.
pub fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_code_are_told_from_prose() {
        let text = "a\n| b |\n```\n| c |\n```\nd\n| e |\n|---|\n| f |";
        let kinds: Vec<Kind> = lines(text).iter().map(|line| line.kind).collect();
        let (code, head) = ([Kind::Code; 3], [Kind::Head; 2]);
        let expected = [[Kind::Prose, Kind::Table].as_slice(), &code, &[Kind::Prose], &head, &[Kind::Table]];
        assert_eq!(kinds, expected.concat());
    }

    #[test]
    fn a_row_has_cells() {
        assert_eq!(cells("| a | b c |  |"), ["a", "b c", ""]);
    }

    #[test]
    fn targets_of_links_and_code_are_left_out() {
        assert_eq!(
            without_links("see [that](docs/A.md#b), or https://example.net/x now"),
            "see [that], or now"
        );
        assert_eq!(without_code("run `cargo test` and `X`"), "run   and  ");
    }
}
