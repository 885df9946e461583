//! Requirements' numbers stand in comments and in names of tests. An operator, who reads help, errors, logs and
//! tables, never sees one.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::problem::Problem;
use crate::requirements::{Number, find};
use crate::rust::{Kind, Piece, Source, regions};
use crate::tree::{File, Tree};

/// What to do about a number.
const REMEDY: &str = "say it in words; the number may stand in a comment";

/// Finds numbers in literals of the programs, in the help that clap and our macros make of documentation, and in
/// scripts.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, Problem> {
    let tests = test_files(tree);
    let programs = tree.ending("rs").filter(|file| !is_test(&file.path) && !tests.contains(&file.path));
    let scripts = tree.files.iter().filter(|file| file.ending() == "lua" || file.is_shell());
    let macros: Vec<String> =
        tree.ending("rs").flat_map(|f| regions::help_macros(&Source::parse(&f.text))).collect();
    Ok(programs.flat_map(|file| in_program(file, &macros)).chain(scripts.flat_map(in_script)).collect())
}

/// Files that no operator runs, by their place.
fn is_test(path: &str) -> bool {
    let folders = ["tests", "benches", "examples", "fuzz", "xtask"];
    path.split('/').any(|part| folders.contains(&part) || part == "tests.rs")
}

/// Files that are compiled for tests only, by the declaration of their module.
fn test_files(tree: &Tree) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for file in tree.ending("rs") {
        for name in regions::test_modules(&Source::parse(&file.text)) {
            let folder = module_folder(file);
            all.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]);
        }
    }
    all
}

/// The folder that a file's modules lie in.
fn module_folder(file: &File) -> &str {
    let is_root = ["/mod.rs", "/lib.rs", "/main.rs"].iter().any(|name| file.path.ends_with(name));
    if is_root { file.folder() } else { file.path.trim_end_matches(".rs") }
}

/// Numbers in a program; `macros` make help of documentation.
fn in_program(file: &File, macros: &[String]) -> Vec<Finding> {
    let source = Source::parse(&file.text);
    let (tests, mut help) = (regions::test_only(&source), regions::help(&source));
    help.extend(regions::invocations(&source, macros));
    let within = |all: &[regions::Lines], piece: &Piece| all.iter().any(|lines| lines.contains(&piece.line));
    let shown = source.pieces.iter().filter(|piece| match piece.kind {
        Kind::Literal => !within(&tests, piece),
        Kind::Doc => within(&help, piece) && !within(&tests, piece),
        Kind::Comment => false,
    });
    shown.flat_map(|piece| numbers(file, piece)).collect()
}

/// Numbers in a piece of source, at the lines they stand at.
fn numbers(file: &File, piece: &Piece) -> Vec<Finding> {
    let place = if piece.kind == Kind::Doc { "help" } else { "a literal" };
    let lines = piece.text.lines().enumerate();
    lines
        .flat_map(|(at, line)| find(line).into_iter().map(move |number| (piece.line + at, number)))
        .map(|(line, number)| finding(file, line, number, place))
        .collect()
}

/// Numbers in a script that are in no comment.
fn in_script(file: &File) -> Vec<Finding> {
    let comment = if file.ending() == "lua" { "--" } else { "#" };
    let lines = file.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with(comment));
    lines
        .flat_map(|(at, line)| find(line).into_iter().map(move |number| (at + 1, number)))
        .map(|(line, number)| finding(file, line, number, "a script"))
        .collect()
}

fn finding(file: &File, line: usize, number: Number, place: &str) -> Finding {
    Finding::at(&file.path, line, format!("an operator sees {number} in {place}"), REMEDY)
}

#[cfg(test)]
mod unit {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<(String, usize)> {
        let found = check(&Tree::of(files)).expect("the check is made");
        found.into_iter().map(|finding| (finding.file, finding.line)).collect()
    }

    #[test]
    fn literals_and_help_are_shown_and_comments_are_not() {
        let text = "// R1\n/// R2\nfn f() { g(\"R3\") }\n/// R4\n#[derive(Args)]\nstruct A {\n    /// R5\n    \
            b: u8,\n}\n";
        let lines: Vec<usize> = found(&[("src/a.rs", text)]).iter().map(|(_, line)| *line).collect();
        assert_eq!(lines, [3, 4, 7]);
    }

    #[test]
    fn documentation_that_a_macro_takes_is_shown_wherever_it_is_used() {
        let made = "macro_rules! counts {\n    ($(#[doc = $help:literal])+ $name:ident) => {};\n}\n";
        let used = "tables::counts! {\n    /// R1\n    // R2\n    a\n}\n/// R3\nfn f() {}\n";
        assert_eq!(found(&[("a/src/a.rs", made), ("b/src/b.rs", used)]), [(String::from("b/src/b.rs"), 2)]);
    }

    #[test]
    fn tests_are_no_programs() {
        let within = "#[cfg(test)]\nmod tests {\n    fn f() { g(\"R3\") }\n}\n#[cfg(test)]\nmod apart;\n";
        let files = [("src/a.rs", within), ("src/a/apart.rs", "f(\"R3\")"), ("tests/b.rs", "f(\"R3\")")];
        assert_eq!(found(&files), []);
    }

    #[test]
    fn scripts_show_what_is_no_comment() {
        let text = "#!/bin/sh\n# R1\necho R2\n";
        assert_eq!(found(&[("scripts/a", text)]), [(String::from("scripts/a"), 3)]);
        assert_eq!(found(&[("scripts/a.lua", "-- R1\nprint(\"R2\")\n")]).len(), 1);
    }
}
