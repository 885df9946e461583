//! What all contenders have in common.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use godwit_lab::cmd;
use godwit_lab::lab::cleanup;
use godwit_lab::lab::rpc::Rpc;

/// A contender that runs again needs so long until its caches are warm.
pub const SETTLE: Duration = Duration::from_millis(300);

/// What plays the capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Player {
    /// net_null, whose buffers are filled from frames that lie close together
    Replay,
    /// net_pcap with infinite_rx, which reads each frame from a buffer of its own
    Pcap,
}

impl Player {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Player::Replay => "replay",
            Player::Pcap => "pcap",
        }
    }

    /// The device, as DPDK calls it.
    pub fn device(self) -> &'static str {
        match self {
            Player::Replay => "net_null0",
            Player::Pcap => "net_pcap0",
        }
    }

    /// The `n`-th such device.
    pub fn numbered(self, n: u32) -> String {
        format!("{}{n}", self.device().trim_end_matches('0'))
    }
}

/// A switch that carries frames between the ends; it stands still while others are measured.
pub trait Peer {
    /// Frames a second that left it during `window`, in millions, and what is to be said of it.
    ///
    /// # Errors
    /// Where it ended or tells no figures.
    fn measure(&mut self, window: Duration) -> Result<Measured>;

    /// Lets its threads run, or stops them where they are.
    ///
    /// # Errors
    /// Where it ended.
    fn run(&mut self, run: bool) -> Result<()>;
}

/// One figure.
pub struct Measured {
    /// Millions of frames a second.
    pub mpps: f64,
    /// What makes it doubtful.
    pub note: Option<String>,
}

/// The cores of the machine, divided among polling threads and the rest.
#[derive(Clone, Debug)]
pub struct Cores(pub Vec<usize>);

impl Cores {
    /// All that the kernel has online.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn online() -> Result<Cores> {
        let path = "/sys/devices/system/cpu/online";
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        Cores::parse(text.trim()).with_context(|| format!("{path} says {text:?}"))
    }

    fn parse(list: &str) -> Option<Cores> {
        let mut all = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            all.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
        }
        (!all.is_empty()).then_some(Cores(all))
    }

    /// The highest `n` cores, for polling threads: the machine's own work is usually on the lowest.
    pub fn workers(&self, n: usize) -> &[usize] {
        &self.0[self.0.len().saturating_sub(n)..]
    }

    /// Where everything else runs.
    pub fn main(&self) -> usize {
        self.0[0]
    }
}

/// Where the contenders run: a namespace and a folder that go with the program.
pub struct Site {
    id: String,
    /// Configurations, captures, sockets and logs.
    pub dir: PathBuf,
    /// Their network namespace.
    pub namespace: String,
    /// Calls into it.
    pub rpc: Rpc,
    /// The machine's cores.
    pub cores: Cores,
    /// The switch under test.
    pub godwit: PathBuf,
    /// What plays captures to them.
    pub player: Player,
    /// Leave the folder behind.
    pub keep: bool,
}

impl Site {
    /// Makes the namespace and the folder.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn new(godwit: PathBuf, player: Player, keep: bool) -> Result<Site> {
        let id = cleanup::claim()?;
        let namespace = format!("{}bench", cleanup::prefix(&id));
        cmd::run("ip", &["netns", "add", &namespace])?;
        cmd::run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        let rpc = Rpc::start(&namespace)?;
        let dir = cleanup::directory(&id);
        Ok(Site { id, dir, namespace, rpc, cores: Cores::online()?, godwit, player, keep })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        cleanup::sweep(&self.id, self.keep);
        cleanup::forget(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_threads_get_the_highest_cores() {
        let cores = Cores::parse("0-2,5").unwrap();
        assert_eq!(cores.workers(1), [5]);
        assert_eq!(cores.workers(2), [2, 5]);
        assert_eq!(cores.workers(9), [0, 1, 2, 5]);
        assert_eq!(cores.main(), 0);
        assert!(Cores::parse("").is_none());
    }
}
