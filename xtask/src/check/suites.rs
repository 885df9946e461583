//! Test files are modules of one binary a crate. One that no suite names would never run.

use crate::finding::Finding;
use crate::problem::Problem;
use crate::tree::{File, Tree};

/// Finds test files beside a suite that are neither its modules nor tests of their own.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, Problem> {
    let suites = tree.files.iter().filter(|file| file.path.ends_with("tests/suite.rs"));
    Ok(suites.flat_map(|suite| forgotten(tree, suite)).collect())
}

/// Files that a suite and its crate's manifest forget.
fn forgotten(tree: &Tree, suite: &File) -> Vec<Finding> {
    let manifest = suite.path.replace("tests/suite.rs", "Cargo.toml");
    let manifest = tree.file(&manifest).map_or("", |file| &file.text);
    let beside = tree.ending("rs").filter(|file| file.folder() == suite.folder());
    let missed = beside.filter(|file| {
        let name = name(file);
        let is_module = suite.text.lines().any(|line| line == format!("mod {name};"));
        let is_test = manifest.lines().any(|line| line == format!("name = \"{name}\""));
        !is_module && !is_test
    });
    missed
        .map(|file| {
            let what = format!("neither a module of {} nor a test of its own in Cargo.toml", suite.path);
            Finding::at(&file.path, 0, what, format!("write `mod {};` in the suite", name(file)))
        })
        .collect()
}

/// The file's name without its ending.
fn name(file: &File) -> &str {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    name.trim_end_matches(".rs")
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_forgotten_file_is_named() {
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", "[[test]]\nname = \"suite\"\n[[test]]\nname = \"alone\"\n"),
            ("crates/a/tests/suite.rs", "mod within;\n"),
            ("crates/a/tests/within.rs", ""),
            ("crates/a/tests/alone.rs", ""),
            ("crates/a/tests/forgotten.rs", ""),
            ("crates/a/tests/common/mod.rs", ""),
        ]);
        let found = check(&tree).expect("the check is made");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].file, "crates/a/tests/forgotten.rs");
        assert!(found[0].remedy.contains("mod forgotten;"));
    }
}
