//! The pure crates build and pass their tests without libdpdk. cargo says what they depend on, which needs no
//! second build.

use std::process::Command;

use crate::finding::Finding;
use crate::problem::Problem;
use crate::tree::Tree;

/// Crates that know nothing of DPDK.
const PURE: [&str; 12] = [
    "godwit-counters",
    "godwit-wire",
    "godwit-model",
    "godwit-packet",
    "godwit-tables",
    "godwit-pipeline",
    "godwit-worker",
    "godwit-api",
    "godwit-control",
    "godwit-nva",
    "godwit-ctl",
    "godwit-testkit",
];

/// Crates that bind DPDK.
const DPDK: [&str; 2] = ["dpdk-sys", "godwit-dpdk"];

/// Asks cargo for the pure crates' dependencies.
pub fn check(_: &Tree) -> Result<Vec<Finding>, Problem> {
    let mut findings = Vec::new();
    let listed = dependencies(&PURE)?;
    if bound(&listed).is_empty() {
        return Ok(findings);
    }
    // One of them does: which one, cargo says of each alone.
    for package in PURE {
        for found in bound(&dependencies(&[package])?) {
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

/// Crates of DPDK in a list of dependencies.
fn bound(listed: &str) -> Vec<&'static str> {
    let named = |name: &str| listed.lines().any(|line| line.split(' ').next() == Some(name));
    DPDK.into_iter().filter(|name| named(name)).collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn crates_of_dpdk_are_found_by_their_whole_name() {
        assert_eq!(bound("godwit-wire v0.1.0\ndpdk-sys v0.1.0 (*)\n"), ["dpdk-sys"]);
        assert!(bound("dpdk-sysroot v1\nlibc v0.2\n").is_empty());
    }
}
