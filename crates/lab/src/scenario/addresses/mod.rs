//! Addresses that VMs have beside those that their definition lists (R92 to R94): keepalived's virtual address fails
//! over between NVEs, addresses are learned, nested VMs and a node's pods move along.

mod keepalived;
mod learned;
pub(crate) mod nested;
mod recorded;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::Common;
use crate::cmd;
use crate::lab::{Lab, LabSpec, VN};

/// Switches of the lab.
const NVES: [&str; 3] = ["a", "b", "c"];

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Two VMs run keepalived; the master dies, returns, moves and dies again.
    Keepalived,
    /// A VM adds addresses by itself and moves.
    Learned,
    /// A VM with many addresses, a router, and a VM that is allowed what was refused before.
    Recorded,
    /// A bridge with three nested VMs, and a node with a pod prefix, move under load.
    Nested,
}

/// Options of `godwit-lab addresses`.
#[derive(Clone, Debug, Args)]
pub struct Addresses {
    #[command(flatten)]
    common: Common,
    /// Only this part
    #[arg(long, value_enum, value_name = "PART")]
    part: Option<Part>,
    /// Probe packets a second, each way, of each pair of VMs
    #[arg(long, default_value_t = 500, value_name = "PPS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

impl Addresses {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let all = [Part::Recorded, Part::Learned, Part::Nested, Part::Keepalived];
        let parts: Vec<Part> = all.into_iter().filter(|p| self.part.is_none_or(|one| one == *p)).collect();
        let keepalived = parts.contains(&Part::Keepalived);
        let tools: &[&str] = if keepalived { &["ping", "keepalived"] } else { &["ping"] };
        let bins = self.common.prepare(tools)?;
        println!("Godwit lab: virtual, learned, routed and nested addresses");
        let mut passed = true;
        for part in parts {
            let spec = LabSpec::new(&NVES, false, &self.common.switch_options());
            let mut lab = Lab::start(&spec, &bins)?;
            let result = match part {
                Part::Keepalived => keepalived::run(&mut lab, self.rate),
                Part::Recorded => recorded::run(&mut lab),
                Part::Learned => learned::run(&mut lab),
                Part::Nested => nested::run(&mut lab, self.rate),
            };
            passed &= super::report::end(&mut lab, result, |good| *good)?;
            lab.check_processes()?;
        }
        println!("\n{}", if passed { "PASSED" } else { "FAILED" });
        Ok(passed)
    }
}

/// Prints a line of the report and returns whether it is good.
#[must_use]
fn verdict(good: bool, text: &str) -> bool {
    println!("  {} {text}", if good { "ok  " } else { "FAIL" });
    good
}

/// Rows of pings before the lack of the last answers counts.
const ROWS: u32 = 5;

/// What came of a row of pings.
struct Pings {
    sent: u32,
    received: u32,
    /// The last request that was answered.
    last: u32,
    /// When answers came, in seconds since 1970.
    times: Vec<f64>,
}

impl Pings {
    fn lost(&self) -> u32 {
        self.sent - self.received
    }

    /// Only the last answers are missing: ping leaves without them a moment after its last request.
    fn lacks_its_end(&self) -> bool {
        self.received > 0 && self.received < self.sent && self.last == self.received
    }
}

/// Pings `target` from a namespace, `count` times with `gap` between them.
fn ping(namespace: &str, target: &str, count: u32, gap: Duration) -> Result<Pings> {
    ping_from(namespace, None, target, count, gap)
}

/// The same from one of the namespace's own addresses. A row of which only the end is missing says nothing of a loss,
/// and is repeated.
fn ping_from(
    namespace: &str,
    source: Option<&str>,
    target: &str,
    count: u32,
    gap: Duration,
) -> Result<Pings> {
    let mut pings = row(namespace, source, target, count, gap)?;
    for _ in 1..ROWS {
        if !pings.lacks_its_end() {
            break;
        }
        pings = row(namespace, source, target, count, gap)?;
    }
    Ok(pings)
}

fn row(namespace: &str, source: Option<&str>, target: &str, count: u32, gap: Duration) -> Result<Pings> {
    let output = ping_command(namespace, source, target, count, gap).output().context("running ping")?;
    // It fails where nothing comes back, which is for the caller to judge.
    Ok(read_pings(&String::from_utf8_lossy(&output.stdout), count))
}

fn ping_command(
    namespace: &str,
    source: Option<&str>,
    target: &str,
    count: u32,
    gap: Duration,
) -> std::process::Command {
    let family = if target.contains(':') { "-6" } else { "-4" };
    let mut command = cmd::in_namespace(namespace, "ping");
    command.args([family, "-D", "-n", "-W", "1", "-c", &count.to_string()]);
    command.args(["-i", &format!("{:.3}", gap.as_secs_f64())]);
    command.args(source.iter().flat_map(|s| ["-I", s])).arg(target);
    command
}

/// Reads what ping printed with -D.
fn read_pings(text: &str, sent: u32) -> Pings {
    let at = |l: &str| l.strip_prefix('[')?.split_once(']')?.0.parse::<f64>().ok();
    let number = |l: &str| l.split_once("icmp_seq=")?.1.split(' ').next()?.parse::<u32>().ok();
    let answers = text.lines().filter(|l| l.contains("bytes from") && !l.contains("DUP!"));
    let answers: Vec<(f64, u32)> = answers.filter_map(|l| at(l).zip(number(l))).collect();
    let last = answers.iter().map(|a| a.1).max().unwrap_or(0);
    let times: Vec<f64> = answers.iter().map(|a| a.0).collect();
    Pings { sent, received: times.len() as u32, last, times }
}

/// What an operator types.
pub(crate) fn vm_set(lab: &Lab, name: &str, options: &[&str]) -> Result<()> {
    let mut args = vec!["vm", "set", name];
    args.extend(options);
    lab.ctl(&args).with_context(|| format!("VM {name} of VN {VN}")).map(drop)
}

fn ip(namespace: &str, line: &str) -> Result<String> {
    cmd::run_in(namespace, "ip", &line.split(' ').collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "PING 203.0.113.200 (203.0.113.200) 56(84) bytes of data.\n\
        [1700000000.000000] 64 bytes from 203.0.113.200: icmp_seq=1 ttl=64 time=0.3 ms\n\
        [1700000000.010000] 64 bytes from 203.0.113.200: icmp_seq=2 ttl=64 time=0.3 ms\n\
        [1700000000.010100] 64 bytes from 203.0.113.200: icmp_seq=2 ttl=64 time=0.3 ms (DUP!)\n\
        [1700000000.910000] 64 bytes from 203.0.113.200: icmp_seq=91 ttl=64 time=0.3 ms\n\n\
        --- 203.0.113.200 ping statistics ---\n";

    #[test]
    fn what_ping_prints_is_read() {
        let pings = read_pings(TEXT, 91);
        assert_eq!((pings.received, pings.lost(), pings.last), (3, 88, 91));
        assert_eq!(pings.times, [1_700_000_000.0, 1_700_000_000.01, 1_700_000_000.91]);
    }

    #[test]
    fn a_row_lacks_its_end_alone_or_answers_between() {
        let first_two: Vec<&str> = TEXT.lines().take(4).collect();
        let first_two = first_two.join("\n");
        assert!(read_pings(&first_two, 3).lacks_its_end());
        assert!(!read_pings(&first_two, 2).lacks_its_end(), "it is whole");
        assert!(!read_pings(TEXT, 92).lacks_its_end(), "answers before the last are missing, too");
        assert!(!read_pings("", 3).lacks_its_end(), "nobody answers");
    }
}
