//! The page of states: one row a requirement, `| [R46](link) | Title | state | what does not work |`.

use super::definitions::Definitions;
use super::{Number, PAGE};
use crate::finding::Finding;
use crate::markdown::{self, Kind};
use crate::tree::Tree;

/// How far a requirement is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// All of it.
    Works,
    /// Some of it; the row says what is missing.
    InPart,
    /// Nothing of it.
    NotYet,
}

/// Words of the states.
const STATES: [State; 3] = [State::Works, State::InPart, State::NotYet];

impl State {
    /// The word on the page.
    pub fn word(self) -> &'static str {
        match self {
            State::Works => "works",
            State::InPart => "in part",
            State::NotYet => "not yet",
        }
    }
}

/// One row.
pub struct Row {
    /// The requirement.
    pub number: Number,
    /// Line on the page.
    pub line: usize,
    /// How far it is met.
    pub state: State,
    title: String,
    link: String,
    missing: String,
}

/// The rows of the page, and those that cannot be read.
pub fn rows(tree: &Tree) -> (Vec<Row>, Vec<Finding>) {
    let Some(page) = tree.file(PAGE) else {
        return (Vec::new(), vec![Finding::at(PAGE, 0, "is not there", "write it, a row a requirement")]);
    };
    let (mut rows, mut findings) = (Vec::new(), Vec::new());
    let table = markdown::lines(&page.text).into_iter().filter(|line| line.kind == Kind::Table);
    for line in table.filter(|line| line.text.starts_with("| [R")) {
        match row(line.number, line.text) {
            Some(row) => rows.push(row),
            None => findings.push(Finding::at(
                PAGE,
                line.number,
                "the row cannot be read",
                "write `| [R46](link) | title | works, in part or not yet | what does not work |`",
            )),
        }
    }
    (rows, findings)
}

/// Reads one row.
fn row(line: usize, text: &str) -> Option<Row> {
    let [number, title, state, missing] = markdown::cells(text).try_into().ok()?;
    let (number, link) = number.strip_prefix('[')?.strip_suffix(')')?.split_once("](")?;
    let state = STATES.into_iter().find(|known| known.word() == state)?;
    let number = Number::parse(number)?;
    Some(Row { number, line, state, title: title.into(), link: link.into(), missing: missing.into() })
}

/// Compares the rows with the definitions: each requirement has one row, with its title and its link.
pub fn check(rows: &[Row], definitions: &Definitions) -> Vec<Finding> {
    let mut findings: Vec<Finding> = rows.iter().filter_map(|row| wrong(row, definitions)).collect();
    for definition in &definitions.requirements {
        let count = rows.iter().filter(|row| row.number == definition.number).count();
        if count != 1 {
            let what = format!("{} has {count} rows", definition.number);
            findings.push(Finding::at(PAGE, 0, what, "give it one"));
        }
    }
    findings
}

/// What is wrong with one row.
fn wrong(row: &Row, definitions: &Definitions) -> Option<Finding> {
    let at = |what: String, remedy: String| Some(Finding::at(PAGE, row.line, what, remedy));
    let Some(definition) = definitions.find(row.number) else {
        return at(format!("{} is not defined", row.number), String::from("define it in docs/requirements/"));
    };
    if row.title != definition.title {
        return at(format!("{}: another title", row.number), format!("write `{}`", definition.title));
    }
    if row.link != definition.link {
        return at(format!("{}: another link", row.number), format!("write `{}`", definition.link));
    }
    if row.state != State::Works && row.missing.is_empty() {
        let remedy = String::from("say so in the last column");
        return at(format!("{}: it is not said what does not work", row.number), remedy);
    }
    None
}

#[cfg(test)]
mod unit {
    use super::*;

    const DEFINED: &str = "### R1 Header\nSources: x\n### R2 Ports\nSources: x\n";

    fn findings(page: &str) -> Vec<String> {
        let tree = Tree::of(&[("docs/requirements/a.md", DEFINED), (PAGE, page)]);
        let (rows, mut findings) = rows(&tree);
        findings.extend(check(&rows, &Definitions::read(&tree)));
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn sound_rows_are_let_be() {
        let found = findings(
            "| R | Title | State | Missing |\n|---|---|---|---|\n\
             | [R1](requirements/a.md#r1-header) | Header | works | |\n\
             | [R2](requirements/a.md#r2-ports) | Ports | not yet | all of it |\n",
        );
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn each_fault_of_a_row_is_named() {
        let found = findings(
            "| [R1](requirements/a.md#r1-header) | Heading | works | |\n\
             | [R1](requirements/b.md#r1-header) | Header | works | |\n\
             | [R2](requirements/a.md#r2-ports) | Ports | in part | |\n\
             | [R3](requirements/a.md#r3) | Third | works | |\n\
             | [R2](requirements/a.md#r2-ports) | Ports | perhaps | |\n",
        );
        let expected = [
            "docs/REQUIREMENTS.md:5: the row cannot be read",
            "docs/REQUIREMENTS.md:1: R1: another title",
            "docs/REQUIREMENTS.md:2: R1: another link",
            "docs/REQUIREMENTS.md:3: R2: it is not said",
            "docs/REQUIREMENTS.md:4: R3 is not defined",
            "docs/REQUIREMENTS.md: R1 has 2 rows",
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
