//! Where the documents say that a thing is added or found: the paths exist, and the table of places agrees with the
//! lists that it counts.

use std::path::Path;

use crate::finding::Finding;
use crate::markdown::{self, Kind};
use crate::problem::Problem;
use crate::tree::{File, Tree};

/// The document that lists what each addition touches.
const GUIDE: &str = "CONTRIBUTING.md";

/// Documents whose paths are those of the tree.
const DOCUMENTS: [&str; 2] = [GUIDE, "docs/ARCHITECTURE.md"];

/// How a path within the tree begins.
const ROOTS: [&str; 7] = ["crates/", "src/", "tests/", "docs/", "scripts/", "xtask/", "fuzz/"];

/// Numbers as a list's first words give them.
const NUMBERS: [&str; 14] = [
    "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
    "Thirteen", "Fourteen",
];

/// Finds paths that lead nowhere and counts that disagree.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, Problem> {
    let documents = DOCUMENTS.iter().filter_map(|path| tree.file(path));
    let mut findings: Vec<Finding> = documents.flat_map(lost_paths).collect();
    findings.extend(tree.file(GUIDE).into_iter().flat_map(wrong_counts));
    findings.extend(tree.file(GUIDE).into_iter().flat_map(wrong_lists));
    Ok(findings)
}

/// Paths in a document's prose and tables that the tree does not have.
fn lost_paths(document: &File) -> Vec<Finding> {
    let lines = markdown::lines(&document.text).into_iter().filter(|line| line.kind != Kind::Code);
    let mut findings = Vec::new();
    for line in lines {
        for path in line.text.split('`').skip(1).step_by(2).filter(|code| is_path(code)) {
            if !exists(path) {
                let what = format!("{path}: no such file or folder");
                findings.push(Finding::at(&document.path, line.number, what, "name the one that is meant"));
            }
        }
    }
    findings
}

/// Whether code in a document is a path of the tree; those with a placeholder or a pattern are not.
fn is_path(code: &str) -> bool {
    let is_plain = code.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    is_plain && !code.contains("NAME") && ROOTS.iter().any(|root| code.starts_with(root))
}

/// Whether there is a file or folder at a path of the tree, be it text or not.
fn exists(path: &str) -> bool {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path).exists()
}

/// Rows of the table of places whose number is not that of the section.
fn wrong_counts(guide: &File) -> Vec<Finding> {
    let sections = sections(guide);
    let lines = markdown::lines(&guide.text);
    let places = lines.iter().skip_while(|line| line.text != "### Places touched");
    let rows = places.filter(|line| line.kind == Kind::Table);
    let mut findings = Vec::new();
    for row in rows {
        let cells = markdown::cells(row.text);
        let [name, files, ..] = cells.as_slice() else { continue };
        let section = sections.iter().find(|(title, _)| title == name);
        let counted = section.and_then(|(_, count)| *count);
        if counted.map(|count| count.to_string()).as_deref() != Some(*files) {
            let what = match counted {
                Some(count) => format!("{name}: {files} files here, {count} in its section"),
                None => format!("{name}: no section of this name begins with a number of files"),
            };
            findings.push(Finding::at(
                &guide.path,
                row.number,
                what,
                "make the table agree with the section",
            ));
        }
    }
    findings
}

/// Lists that have more or fewer items than the words before them announce.
fn wrong_lists(guide: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut announced: Option<(usize, usize)> = None;
    let mut items = 0;
    for (at, line) in guide.text.lines().chain(["### "]).enumerate() {
        let is_item = line.split_once(". ").is_some_and(|(n, _)| n.parse() == Ok(items + 1));
        items += usize::from(is_item);
        let next = number_of_files(line);
        if next.is_none() && !line.starts_with("### ") {
            continue;
        }
        if let Some((number, count)) = announced.filter(|(_, count)| *count != items) {
            let what = format!("{count} files are announced, {items} listed");
            findings.push(Finding::at(&guide.path, number, what, "make the words agree with the list"));
        }
        announced = next.map(|count| (at + 1, count));
        items = 0;
    }
    findings
}

/// The number of files that a line announces at its beginning.
fn number_of_files(line: &str) -> Option<usize> {
    let (first, rest) = line.split_once(' ')?;
    let number = NUMBERS.iter().position(|number| *number == first)?;
    rest.starts_with("files").then_some(number + 1)
}

/// The sections, by their titles without an article, and the number that the first of their lists announces.
fn sections(guide: &File) -> Vec<(String, Option<usize>)> {
    let mut found: Vec<(String, Option<usize>)> = Vec::new();
    for line in guide.text.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            let name = title.trim_start_matches("An ").trim_start_matches("A ");
            found.push((name.to_owned(), None));
        } else if let Some((_, count @ None)) = found.last_mut() {
            *count = number_of_files(line);
        }
    }
    found
}

#[cfg(test)]
mod unit {
    use super::*;

    const TEXT: &str = "### A drop reason\n\nTwo files:\n\n1. `src/main.rs`: one.\n2. `src/main.rs`: two.\n\n\
                        ### Places touched\n\n\
                        | Addition | Files |\n|---|---:|\n| drop reason | 2 |\n";

    fn found(text: &str) -> Vec<String> {
        let tree = Tree::of(&[(GUIDE, text)]);
        check(&tree).expect("the check is made").into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn what_agrees_and_exists_passes() {
        assert_eq!(found(TEXT), Vec::<String>::new());
        assert_eq!(found("see `crates/wire/` and `crates/wire/src/NAME.rs`"), Vec::<String>::new());
    }

    #[test]
    fn a_path_that_leads_nowhere_is_named() {
        assert_eq!(found("see `src/gone.rs`"), ["src/gone.rs: no such file or folder"]);
    }

    #[test]
    fn a_count_that_disagrees_is_named() {
        assert_eq!(found(&TEXT.replace("| 2 |", "| 3 |")), ["drop reason: 3 files here, 2 in its section"]);
        assert_eq!(found(&TEXT.replace("| drop", "| lost")).len(), 1);
        assert_eq!(found(&TEXT.replace("2. ", "and ")), ["2 files are announced, 1 listed"]);
    }
}
