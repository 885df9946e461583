//! `scripts/xtask`: the house checks of this tree, and the map from requirements to tests.
//!
//! It reads the tree and changes nothing. It has no dependencies, so that it builds in seconds on a machine
//! that has nothing else.

#![forbid(unsafe_code)]

mod affected;
mod check;
mod finding;
mod markdown;
mod problem;
mod requirements;
mod rust;
mod tree;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use finding::Finding;
use problem::Problem;
use requirements::Number;
use tree::Tree;

const USAGE: &str = "\
usage: scripts/xtask requirements [--tests R46]
       scripts/xtask check [NAME...]
       scripts/xtask affected FILE...

requirements   each requirement of docs/requirements/ with its state and its tests, one a line
  --tests R46  only the tests of that requirement or clause, with file and line
check          the house checks; without names all of them
affected       the tests that changes of these files can break, as a filter of cargo-nextest; nothing for none

Exit code 0: nothing found; 1: something is to be mended; 2: wrong arguments or an unreadable tree.
";

/// What the command line asks for.
enum Command {
    Map { only: Option<Number> },
    Check { names: Vec<String> },
    Affected { files: Vec<String> },
    Help,
}

/// Reads the command line, or returns what is wrong with it.
fn parse(arguments: &[String]) -> Result<Command, Problem> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["requirements"] => Ok(Command::Map { only: None }),
        ["requirements", "--tests", number] => match Number::parse(number) {
            Some(number) => Ok(Command::Map { only: Some(number) }),
            None => {
                let wrong = format!("--tests {number}: not a requirement; give one such as R46 or R46d");
                Err(Problem(wrong))
            }
        },
        ["check", names @ ..] => match names.iter().find(|name| !check::exists(name)) {
            None => Ok(Command::Check { names: names.iter().map(|name| (*name).to_owned()).collect() }),
            Some(name) => {
                let wrong = format!("check {name}: no such check; there are {}", check::names().join(", "));
                Err(Problem(wrong))
            }
        },
        ["affected", files @ ..] => {
            Ok(Command::Affected { files: files.iter().map(|file| (*file).to_owned()).collect() })
        }
        ["help" | "-h" | "--help"] => Ok(Command::Help),
        [] => Err(Problem("no command: give `requirements`, `check` or `affected`".into())),
        other => Err(Problem(format!("`{}`: not understood", other.join(" ")))),
    }
}

/// Runs a command and returns what it found.
fn run(command: &Command) -> Result<Vec<Finding>, Problem> {
    match command {
        Command::Help => {
            say(&format!("{USAGE}\nchecks: {}", check::names().join(", ")));
            Ok(Vec::new())
        }
        Command::Affected { files } => {
            affected::filter(files).iter().for_each(|filter| say(filter));
            Ok(Vec::new())
        }
        Command::Map { only } => Ok(requirements::print(&Tree::read(&root())?, *only)),
        Command::Check { names } => check::run(&Tree::read(&root())?, names),
    }
}

/// Prints a line. A reader that has seen enough, such as `head`, is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The folder that has the workspace's Cargo.toml.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match parse(&arguments) {
        Ok(command) => command,
        Err(wrong) => {
            eprint!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&command) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            findings.iter().for_each(|finding| eprintln!("{finding}"));
            eprintln!("{} to mend", findings.len());
            ExitCode::from(1)
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Command, Problem> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_wrong_argument_is_named_with_what_is_possible() {
        let wrong =
            parsed(&["requirements", "--tests", "46"]).err().expect("46 is no requirement").to_string();
        assert!(wrong.contains("--tests 46") && wrong.contains("R46"), "{wrong}");
        let wrong = parsed(&["check", "widths"]).err().expect("no such check").to_string();
        assert!(wrong.contains("widths") && wrong.contains("width"), "{wrong}");
        assert!(parsed(&[]).is_err());
    }

    #[test]
    fn commands_are_read() {
        assert!(matches!(parsed(&["requirements"]), Ok(Command::Map { only: None })));
        assert!(matches!(parsed(&["requirements", "--tests", "R46d"]), Ok(Command::Map { only: Some(_) })));
        assert!(matches!(parsed(&["check", "width"]), Ok(Command::Check { names }) if names == ["width"]));
    }
}
