//! The command line as a whole; each family's arguments stand with its code in [`crate::commands`].

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::commands::Command;
use crate::global::Global;

const EXAMPLES: &str = "\
Examples:
  godwitctl vn create blue --vni 5001
  godwitctl vm define web1 --vn blue --mac 02:00:00:00:00:01 --ipv4 10.0.0.1
  godwitctl vm move web1 --to nve-b --wait
  godwitctl move show m-1
  godwitctl counters --drops
  godwitctl --socket /run/godwit/nve-a.sock port list
  godwitctl trace --nve nve-a --port vm1 --dst 02:00:00:00:00:02 --ipv4-src 10.0.0.1 --ipv4-dst 10.0.0.2

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 NVA or NVE unreachable.";

/// Operates Godwit: virtual networks, VMs and their moves at the NVA; ports, counters and
/// forwarding state at the NVEs.
#[derive(Parser, Clone, Debug)]
#[command(name = "godwitctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the process's arguments; ends the process with code 2 where they are wrong.
    pub fn read() -> Cli {
        Cli::from_args(std::env::args_os()).unwrap_or_else(|e| e.exit())
    }

    /// Reads these arguments, the program's name first.
    ///
    /// # Errors
    /// clap's, which also stands for `--help` and `--version`.
    pub fn from_args<I, T>(args: I) -> Result<Cli, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let matches = Cli::command().try_get_matches_from(args)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        cli.global.socket_given = innermost_source(&matches, "socket") == Some(ValueSource::CommandLine);
        Ok(cli)
    }
}

/// Where a global argument's value came from; clap hands it down to the innermost subcommand.
fn innermost_source(matches: &clap::ArgMatches, id: &str) -> Option<ValueSource> {
    match matches.subcommand() {
        Some((_, inner)) if inner.try_contains_id(id).is_ok() => innermost_source(inner, id),
        _ => matches.value_source(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_socket_on_the_command_line_is_told_from_one_in_the_environment() {
        let given = |args: &[&str]| Cli::from_args(args).map(|c| c.global.socket_given).unwrap_or(false);
        assert!(given(&["godwitctl", "--socket", "/s", "port", "list"]));
        assert!(given(&["godwitctl", "port", "list", "--socket", "/s"]));
        assert!(!given(&["godwitctl", "port", "list"]));
    }
}
