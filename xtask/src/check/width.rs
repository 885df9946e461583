//! Lines are at most 120 characters long. Tables, code blocks and the targets of links cannot be broken and
//! do not count.

use crate::finding::Finding;
use crate::markdown::{self, Kind};
use crate::problem::Problem;
use crate::tree::{File, Tree};

/// Longest line, in characters.
const LONGEST: usize = 120;

/// Finds the lines that are longer.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, Problem> {
    Ok(tree.files.iter().flat_map(long_lines).collect())
}

fn long_lines(file: &File) -> Vec<Finding> {
    let is_document = file.ending() == "md";
    let lines = markdown::lines(&file.text).into_iter();
    let counted = lines.filter(|line| !is_document || line.kind == Kind::Prose);
    let long = counted.filter_map(|line| {
        let width = markdown::without_links(line.text).chars().count();
        (width > LONGEST).then(|| {
            let what = format!("{} characters", line.text.chars().count());
            Finding::at(&file.path, line.number, what, format!("break the line: {LONGEST} is the most"))
        })
    });
    long.collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).expect("the check is made").len()
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(found("src/a.rs", &"ä".repeat(120)), 0);
        assert_eq!(found("src/a.rs", &"a".repeat(121)), 1);
        assert_eq!(found("scripts/run", &"a".repeat(121)), 1);
    }

    #[test]
    fn tables_code_and_links_are_let_be_in_documents() {
        let long = "a".repeat(121);
        assert_eq!(found("docs/A.md", &format!("| {long} |")), 0);
        assert_eq!(found("docs/A.md", &format!("```\n{long}\n```")), 0);
        assert_eq!(found("docs/A.md", &format!("see [this](https://example.net/{long})")), 0);
        assert_eq!(found("docs/A.md", &format!("word {long}")), 1);
        assert_eq!(found("src/a.rs", &format!("| {long} |")), 1);
    }
}
