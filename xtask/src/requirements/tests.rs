//! Which tests show which requirements: by the numbers that a test's name begins with, and by those in the
//! documentation above it.

use super::definitions::Definitions;
use super::{Number, find};
use crate::finding::Finding;
use crate::rust::{Kind, Source, regions};
use crate::tree::{File, Tree};

/// A test that names requirements.
pub struct Shown {
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: usize,
    /// Its name.
    pub name: String,
    numbers: Vec<Number>,
}

impl Shown {
    /// Whether it shows a requirement, a clause of it, or a clause.
    pub fn shows(&self, number: Number) -> bool {
        self.numbers.iter().any(|shown| number.has(*shown))
    }

    /// Its name behind the crate and the file that it is in.
    pub fn short(&self) -> String {
        let path = self.file.trim_start_matches("crates/").trim_end_matches(".rs");
        format!("{} {}", path.replace("/tests/", "/").replace("/src/", "/"), self.name)
    }

    /// Numbers in its name or documentation that nothing defines.
    pub fn undefined(&self, definitions: &Definitions) -> Vec<Finding> {
        let unknown = Number::leading(&self.name).into_iter().filter(|number| !definitions.has(*number));
        unknown
            .map(|number| {
                let what = format!("{} is named for {number}, which is not defined", self.name);
                Finding::at(&self.file, self.line, what, "define it in docs/requirements/ or rename the test")
            })
            .collect()
    }
}

/// All tests that name requirements, by file.
pub fn collect(tree: &Tree) -> Vec<Shown> {
    let ours = tree.ending("rs").filter(|file| !file.path.starts_with("xtask/"));
    ours.flat_map(of_file).collect()
}

fn of_file(file: &File) -> Vec<Shown> {
    let source = Source::parse(&file.text);
    let mut all = Vec::new();
    for test in regions::tests(&source) {
        let mut numbers = Number::leading(&test.name);
        let docs = source.pieces.iter().filter(|p| p.kind == Kind::Doc && test.head.contains(&p.line));
        numbers.extend(docs.flat_map(|doc| find(&doc.text)));
        if !numbers.is_empty() {
            all.push(Shown { file: file.path.clone(), line: test.line, name: test.name, numbers });
        }
    }
    all
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_test_is_shown_by_file_and_name() {
        let text = "/// Ports spread (R2).\n#[test]\nfn spread() {}\n#[test]\nfn r46d_three_times() \
            {}\n#[test]\nfn x() {}";
        let tree = Tree::of(&[("crates/wire/tests/flow.rs", text)]);
        let all = collect(&tree);
        let short: Vec<String> = all.iter().map(Shown::short).collect();
        assert_eq!(short, ["wire/flow spread", "wire/flow r46d_three_times"]);
        let shows = |at: usize, word| all[at].shows(Number::parse(word).expect("a number"));
        assert!(shows(0, "R2") && shows(1, "R46") && shows(1, "R46d") && !shows(1, "R46a"));
    }
}
