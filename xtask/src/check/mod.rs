//! The house checks. Each is a module with a function from the tree to what it found.

mod glossary;
mod operator;
mod places;
mod pure;
mod suites;
mod width;

use crate::finding::Finding;
use crate::problem::Problem;
use crate::requirements;
use crate::say;
use crate::tree::Tree;

/// A check: its name, what holds where it passes, and the check itself.
struct Check {
    name: &'static str,
    holds: &'static str,
    run: fn(&Tree) -> Result<Vec<Finding>, Problem>,
}

/// All checks, in the order they run in.
const CHECKS: [Check; 7] = [
    Check { name: "suites", holds: "every test file is part of a test binary", run: suites::check },
    Check {
        name: "pure",
        holds: "pure crates depend on nothing of DPDK, cores on no runtime",
        run: pure::check,
    },
    Check { name: "width", holds: "no line is longer than 120 characters", run: width::check },
    Check {
        name: "requirements",
        holds: "every requirement is defined, and tested where it works",
        run: requirements,
    },
    Check { name: "operator", holds: "no requirement's number reaches an operator", run: operator::check },
    Check {
        name: "places",
        holds: "the documents name files that exist, and count them",
        run: places::check,
    },
    Check { name: "glossary", holds: "documents use terms that the glossary defines", run: glossary::check },
];

fn requirements(tree: &Tree) -> Result<Vec<Finding>, Problem> {
    Ok(requirements::check(tree))
}

/// Names of all checks.
pub fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|check| check.name).collect()
}

/// Whether there is a check of that name.
pub fn exists(name: &str) -> bool {
    names().contains(&name)
}

/// Runs the named checks, or all if none is named, and reports each on stdout.
///
/// # Errors
///
/// A check that could not be made, and why.
pub fn run(tree: &Tree, names: &[String]) -> Result<Vec<Finding>, Problem> {
    let mut all = Vec::new();
    for check in CHECKS.iter().filter(|check| names.is_empty() || names.iter().any(|name| name == check.name))
    {
        let findings = (check.run)(tree)?;
        match findings.len() {
            0 => say(&format!("{}: {}", check.name, check.holds)),
            count => say(&format!("{}: {count} to mend", check.name)),
        }
        all.extend(findings);
    }
    Ok(all)
}
