//! Requirements: where they are defined, what is said of them, and which tests show them.

mod definitions;
mod number;
mod state;
mod tests;
mod uses;

pub use number::{Number, find};

use crate::finding::Finding;
use crate::say;
use crate::tree::Tree;
use definitions::Definitions;
use state::{Row, State};
use tests::Shown;

/// Folder of the definitions.
pub const FOLDER: &str = "docs/requirements/";

/// Page with the state of each requirement.
pub const PAGE: &str = "docs/REQUIREMENTS.md";

/// Prints the map from requirements to tests, and returns what is wrong with it.
pub fn print(tree: &Tree, only: Option<Number>) -> Vec<Finding> {
    let definitions = Definitions::read(tree);
    let tests = tests::collect(tree);
    match only {
        Some(number) => print_tests(&tests, number),
        None => print_map(&definitions, &state::rows(tree).0, &tests),
    }
    check(tree)
}

/// Everything that is wrong with definitions, states, tests and uses.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let definitions = Definitions::read(tree);
    let (rows, mut findings) = state::rows(tree);
    let tests = tests::collect(tree);
    findings.extend(definitions.findings.iter().cloned());
    findings.extend(state::check(&rows, &definitions));
    findings.extend(uses::undefined(tree, &definitions));
    findings.extend(tests.iter().flat_map(|test| test.undefined(&definitions)));
    findings.extend(rows.iter().filter_map(|row| untested(row, &tests)));
    findings
}

/// A row that promises something that no test shows.
fn untested(row: &Row, tests: &[Shown]) -> Option<Finding> {
    let shown = row.state == State::NotYet || tests.iter().any(|test| test.shows(row.number));
    (!shown).then(|| {
        let what = format!("{} is said to work, and no test shows it", row.number);
        let remedy = format!("name a test {}_... or name the requirement above a test", row.number.prefix());
        Finding::at(PAGE, row.line, what, remedy)
    })
}

fn print_map(definitions: &Definitions, rows: &[Row], tests: &[Shown]) {
    for definition in &definitions.requirements {
        let state = rows.iter().find(|row| row.number == definition.number).map(|row| row.state.word());
        let shown: Vec<String> =
            tests.iter().filter(|test| test.shows(definition.number)).map(Shown::short).collect();
        say(&format!(
            "{} {}: {}; {} tests{}{}",
            definition.number,
            definition.title,
            state.unwrap_or("without a state"),
            shown.len(),
            if shown.is_empty() { "" } else { ": " },
            shown.join(", ")
        ));
    }
}

fn print_tests(tests: &[Shown], number: Number) {
    for test in tests.iter().filter(|test| test.shows(number)) {
        say(&format!("{}:{} {}", test.file, test.line, test.name));
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    const DEFINED: &str = "### R1 Header\nText.\n\n- **R1a** Clause.\n\nSources: our decision\n";
    const PAGE_TEXT: &str = "| [R1](requirements/a.md#r1-header) | Header | works | |\n";

    fn tree(test: &str) -> Tree {
        Tree::of(&[("docs/requirements/a.md", DEFINED), (PAGE, PAGE_TEXT), ("tests/a.rs", test)])
    }

    #[test]
    fn a_test_by_name_or_by_documentation_shows_a_requirement() {
        assert_eq!(check(&tree("#[test]\nfn r1_a() {}")), []);
        assert_eq!(check(&tree("/// The header (R1a).\n#[test]\nfn a() {}")), []);
    }

    #[test]
    fn a_requirement_that_works_needs_a_test() {
        let found = check(&tree("#[test]\nfn a() {}"));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].to_string().starts_with("docs/REQUIREMENTS.md:1: R1 is said to work"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn tests_and_comments_name_defined_requirements_only() {
        let found = check(&tree("#[test]\nfn r1_r2_a() {}\n// R1b, too."));
        let text: Vec<String> = found.iter().map(Finding::to_string).collect();
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(
            text[0].starts_with("tests/a.rs:3: R1b") && text[1].starts_with("tests/a.rs:2: "),
            "{text:?}"
        );
    }
}
