//! The pure crates build and pass their tests without libdpdk, and the cores of them without a runtime or a network
//! besides. cargo says what they depend on, which needs no second build. The directory is a core within a crate that
//! is none: its files name what they use.

use std::process::Command;

use crate::finding::Finding;
use crate::problem::Problem;
use crate::rust::Source;
use crate::tree::Tree;

/// Crates that know neither DPDK nor a runtime: input and time come as arguments.
const CORES: [&str; 7] = [
    "godwit-counters",
    "godwit-wire",
    "godwit-model",
    "godwit-packet",
    "godwit-tables",
    "godwit-pipeline",
    "godwit-control",
];

/// Crates that know nothing of DPDK, beside the cores; bench has it for its tests only.
const WITHOUT_DPDK: [&str; 9] = [
    "godwit-worker",
    "godwit-api",
    "godwit-nva",
    "godwit-nva-client",
    "godwit-ctl",
    "godwit-testkit",
    "godwit-frontend",
    "godwit-lab",
    "godwit-bench",
];

/// Crates that bind DPDK.
const DPDK: [&str; 2] = ["dpdk-sys", "godwit-dpdk"];

/// What brings a runtime or a network.
const RUNTIME: [&str; 2] = ["tokio", "tonic"];

/// The folder of the directory's state machine.
const DIRECTORY: &str = "crates/nva/src/directory/";

/// What the directory must not name, as it is written in code.
const NOT_IN_DIRECTORY: [&str; 4] = ["tokio", "tonic", "godwit_api", "redb"];

/// Asks cargo for the pure crates' dependencies, and reads the directory's files.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, Problem> {
    let of_cores = [DPDK, RUNTIME].concat();
    let mut findings = refused(&CORES, &of_cores)?;
    findings.extend(refused(&WITHOUT_DPDK, &DPDK)?);
    findings.extend(in_directory(tree));
    Ok(findings)
}

/// Packages that depend on something forbidden.
fn refused(packages: &[&str], forbidden: &[&'static str]) -> Result<Vec<Finding>, Problem> {
    let mut findings = Vec::new();
    if among(forbidden, &dependencies(packages)?).is_empty() {
        return Ok(findings);
    }
    // One of them does: which one, cargo says of each alone.
    for package in packages {
        for found in among(forbidden, &dependencies(&[package])?) {
            let file = format!("crates/{}/Cargo.toml", package.trim_start_matches("godwit-"));
            let what = format!("{package} depends on {found}");
            findings.push(Finding::at(
                &file,
                0,
                what,
                "take the dependency out: find it with `cargo tree -i`",
            ));
        }
    }
    Ok(findings)
}

/// What `cargo tree` lists for packages: a dependency a line.
fn dependencies(packages: &[&str]) -> Result<String, Problem> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none"]);
    packages.iter().for_each(|package| {
        command.args(["--package", package]);
    });
    let output = command.output().map_err(|error| Problem(format!("cargo tree: cannot be run: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Problem(format!("cargo tree: failed:\n{said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Forbidden crates in a list of dependencies.
fn among(forbidden: &[&'static str], listed: &str) -> Vec<&'static str> {
    let named = |name: &str| listed.lines().any(|line| line.split(' ').next() == Some(name));
    forbidden.iter().copied().filter(|name| named(name)).collect()
}

/// Lines of the directory's code that name what it must not use.
fn in_directory(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.ending("rs").filter(|file| file.path.starts_with(DIRECTORY)) {
        for (line, code) in (1..).zip(&Source::parse(&file.text).code) {
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if let Some(word) = words.find(|word| NOT_IN_DIRECTORY.contains(word)) {
                let what = format!("the directory's state machine uses {word}");
                let remedy = "do it in the service or the store, and hand the result in";
                findings.push(Finding::at(&file.path, line, what, remedy));
            }
        }
    }
    findings
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn crates_of_dpdk_are_found_by_their_whole_name() {
        assert_eq!(among(&DPDK, "godwit-wire v0.1.0\ndpdk-sys v0.1.0 (*)\n"), ["dpdk-sys"]);
        assert!(among(&DPDK, "dpdk-sysroot v1\nlibc v0.2\n").is_empty());
    }

    #[test]
    fn a_runtime_in_the_directory_is_found_in_code_and_not_in_comments() {
        let text = "// tokio runs it\nuse std::time::Duration;\nuse tokio::sync::mpsc;\n";
        let tree = Tree::of(&[
            ("crates/nva/src/directory/a.rs", text),
            ("crates/nva/src/service.rs", text),
            ("crates/nva/src/directory/b.rs", "use tokio_like::x;\n"),
        ]);
        let found = in_directory(&tree);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].file.as_str(), found[0].line), ("crates/nva/src/directory/a.rs", 3));
    }
}
