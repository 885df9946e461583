//! What a process holds.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::nve::Nve;

/// Memory, files and threads of a process.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Resources {
    /// Its own memory that is resident, in KiB: without guests' memory and without hugepages.
    pub anonymous_kb: u64,
    /// Shared memory that is resident, in KiB: guests'.
    pub shared_kb: u64,
    /// Hugepages, in KiB.
    pub hugepages_kb: u64,
    /// Open files.
    pub files: u64,
    /// Threads.
    pub threads: u64,
}

impl Resources {
    /// Of a switch.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub(super) fn of(nve: &Nve) -> Result<Resources> {
        let id = nve.process.id().context("the switch is another program's process")?;
        let folder = PathBuf::from(format!("/proc/{id}"));
        let status = folder.join("status");
        let text =
            std::fs::read_to_string(&status).with_context(|| format!("reading {}", status.display()))?;
        let files = folder.join("fd");
        let files = files.read_dir().with_context(|| format!("reading {}", files.display()))?.count() as u64;
        let number =
            |name: &str| number(&text, name).with_context(|| format!("{} has no {name}", status.display()));
        Ok(Resources {
            anonymous_kb: number("RssAnon")?,
            shared_kb: number("RssShmem")?,
            hugepages_kb: number("HugetlbPages")?,
            files,
            threads: number("Threads")?,
        })
    }
}

/// The number in a line of `/proc/PID/status`.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = "Name:\tgodwit\nRssAnon:\t   11640 kB\nHugetlbPages:\t  262144 kB\nThreads:\t5\n";
        assert_eq!(number(text, "RssAnon"), Some(11_640));
        assert_eq!(number(text, "HugetlbPages"), Some(262_144));
        assert_eq!(number(text, "Threads"), Some(5));
        assert_eq!(number(text, "Rss"), None);
    }
}
