//! Which tests a change can break: changed files to a filter expression of cargo-nextest.
//!
//! A file of tests affects its own package; a source affects its package and all that depend on it; what builds
//! everything affects everything. The tests of whole processes start the programs, so they follow from each crate
//! that a program is made of.

use std::collections::BTreeSet;

/// Packages that are tools for tests and measurements: no program that the lab starts is made of them.
const BESIDE: [&str; 3] = ["godwit-testkit", "godwit-benches", "xtask"];

/// The tests of whole processes.
const PROCESSES: &str = "(package(=godwit) & kind(test))";

/// What a changed file affects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Affected {
    /// No test: documents, and scripts that other stages check.
    Nothing,
    /// The tests of one package.
    Own(String),
    /// The tests of a package, and of all that depend on it.
    Dependents(String),
    /// The tests of whole processes in one file.
    Processes(String),
    /// Everything.
    All,
}

/// The filter expression for changed files, or nothing where no test can break.
pub fn filter(files: &[String]) -> Option<String> {
    let affected: BTreeSet<Affected> = files.iter().map(|file| affected(file)).collect();
    if affected.contains(&Affected::All) {
        return Some("all()".into());
    }
    let terms: BTreeSet<String> = affected.iter().flat_map(terms).collect();
    (!terms.is_empty()).then(|| terms.into_iter().collect::<Vec<_>>().join(" | "))
}

/// The terms of the expression for what is affected.
fn terms(affected: &Affected) -> Vec<String> {
    match affected {
        Affected::Nothing | Affected::All => Vec::new(),
        Affected::Own(package) => vec![format!("package(={package})")],
        Affected::Dependents(package) if BESIDE.contains(&package.as_str()) => {
            vec![format!("rdeps(={package})")]
        }
        Affected::Dependents(package) => vec![format!("rdeps(={package})"), PROCESSES.into()],
        Affected::Processes(module) => vec![format!("(package(=godwit) & test(/^{module}::/))")],
    }
}

/// What one file affects, by its path in the tree.
fn affected(path: &str) -> Affected {
    if path.ends_with(".md") || path.starts_with("docs/") || path.starts_with("fuzz/") {
        return Affected::Nothing;
    }
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["crates", name, rest @ ..] => in_package(package(name), rest),
        ["xtask", ..] => Affected::Own("xtask".into()),
        // Compiled by the lints, measured by hand.
        ["benches", ..] => Affected::Nothing,
        ["src", rest @ ..] if rest.iter().any(is_of_tests) => Affected::Own("godwit".into()),
        ["src", ..] | ["build.rs"] => Affected::Dependents("godwit".into()),
        ["tests", "suite.rs"] | ["tests", "common", ..] => Affected::Own("godwit".into()),
        ["tests", file, ..] => Affected::Processes(file.trim_end_matches(".rs").into()),
        ["scripts", "nic"] => Affected::Own("godwit-lab".into()),
        ["scripts", "lib.sh" | "test"] => Affected::All,
        ["scripts", ..] | ["LICENSE" | ".editorconfig" | ".gitignore" | "deny.toml" | "rustfmt.toml"] => {
            Affected::Nothing
        }
        _ => Affected::All,
    }
}

/// What a file within a package affects.
fn in_package(package: String, rest: &[&str]) -> Affected {
    if rest.iter().any(is_of_tests) { Affected::Own(package) } else { Affected::Dependents(package) }
}

/// Whether a part of a path says that the file is for tests only.
fn is_of_tests(part: &&str) -> bool {
    matches!(*part, "tests" | "tests.rs" | "properties.rs")
}

/// The package of a folder of `crates/`.
fn package(folder: &str) -> String {
    match folder {
        "dpdk-sys" => folder.into(),
        _ => format!("godwit-{folder}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str]) -> Option<String> {
        filter(&files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn documents_break_no_test() {
        assert_eq!(of(&["README.md", "docs/requirements/moves.md", "scripts/bench"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_source_affects_what_depends_on_it_and_the_programs() {
        let expected = format!("{PROCESSES} | rdeps(=godwit-wire)");
        assert_eq!(of(&["crates/wire/src/arp.rs", "docs/SIMULATION.md"]), Some(expected));
        assert_eq!(of(&["crates/testkit/src/frames.rs"]), Some("rdeps(=godwit-testkit)".into()));
        let expected = format!("{PROCESSES} | rdeps(=godwit)");
        assert_eq!(of(&["src/run.rs"]), Some(expected));
    }

    #[test]
    fn a_test_affects_its_package() {
        assert_eq!(of(&["crates/ctl/tests/snapshots/a.snap"]), Some("package(=godwit-ctl)".into()));
        assert_eq!(of(&["crates/nva/src/directory/tests/mod.rs"]), Some("package(=godwit-nva)".into()));
        assert_eq!(of(&["tests/stalls.rs"]), Some("(package(=godwit) & test(/^stalls::/))".into()));
        assert_eq!(of(&["src/config/tests.rs"]), Some("package(=godwit)".into()));
    }

    #[test]
    fn what_builds_everything_affects_everything() {
        assert_eq!(of(&["Cargo.lock", "README.md"]), Some("all()".into()));
        assert_eq!(of(&["scripts/lib.sh"]), Some("all()".into()));
        assert!(of(&["crates/dpdk-sys/build.rs"]).is_some_and(|f| f.contains("rdeps(=dpdk-sys)")));
    }

    #[test]
    fn every_folder_of_crates_has_the_package_that_is_assumed() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates");
        for folder in std::fs::read_dir(root).expect("the crates are there").flatten() {
            let manifest = folder.path().join("Cargo.toml");
            let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
            let name = package(&folder.file_name().to_string_lossy());
            assert!(text.contains(&format!("name = \"{name}\"")), "{}: not {name}", manifest.display());
        }
    }
}
