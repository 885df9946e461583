//! Addresses that VMs have beside those that their definition lists (R92 to R94): keepalived's virtual address fails
//! over between NVEs, addresses are learned, nested VMs and a node's pods move along.

mod keepalived;
mod learned;
mod nested;
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
            if !matches!(result, Ok(true)) {
                lab.keep_logs();
                println!("{}", super::report::diagnosis(&mut lab));
            }
            passed &= result.with_context(|| format!("logs in {}", lab.dir.display()))?;
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

/// What came of a row of pings.
struct Pings {
    sent: u32,
    received: u32,
    /// The longest time between two answers.
    gap: Duration,
}

impl Pings {
    fn lost(&self) -> u32 {
        self.sent - self.received
    }
}

/// Pings `target` from a namespace, `count` times with `gap` between them.
fn ping(namespace: &str, target: &str, count: u32, gap: Duration) -> Result<Pings> {
    ping_from(namespace, None, target, count, gap)
}

/// The same from one of the namespace's own addresses.
fn ping_from(
    namespace: &str,
    source: Option<&str>,
    target: &str,
    count: u32,
    gap: Duration,
) -> Result<Pings> {
    let family = if target.contains(':') { "-6" } else { "-4" };
    let (count_text, gap_text) = (count.to_string(), format!("{:.3}", gap.as_secs_f64()));
    let mut args = vec!["netns", "exec", namespace, "ping", family, "-D", "-n", "-W", "1"];
    args.extend(["-c", &count_text, "-i", &gap_text]);
    args.extend(source.iter().flat_map(|s| ["-I", s]));
    args.push(target);
    let output = std::process::Command::new("ip").args(&args).output().context("running ping")?;
    // It fails where nothing comes back, which is for the caller to judge.
    Ok(read_pings(&String::from_utf8_lossy(&output.stdout), count))
}

/// Reads what ping printed with -D.
fn read_pings(text: &str, sent: u32) -> Pings {
    let at = |l: &str| l.strip_prefix('[')?.split_once(']')?.0.parse::<f64>().ok();
    let answers = text.lines().filter(|l| l.contains("bytes from") && !l.contains("DUP!"));
    let times: Vec<f64> = answers.filter_map(at).collect();
    let gap = times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    Pings { sent, received: times.len() as u32, gap: Duration::from_secs_f64(gap) }
}

/// What an operator types.
fn vm_set(lab: &Lab, name: &str, options: &[&str]) -> Result<()> {
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

    #[test]
    fn what_ping_prints_is_read() {
        let text = "PING 203.0.113.200 (203.0.113.200) 56(84) bytes of data.\n\
                    [1700000000.000000] 64 bytes from 203.0.113.200: icmp_seq=1 ttl=64 time=0.3 ms\n\
                    [1700000000.010000] 64 bytes from 203.0.113.200: icmp_seq=2 ttl=64 time=0.3 ms\n\
                    [1700000000.010100] 64 bytes from 203.0.113.200: icmp_seq=2 ttl=64 time=0.3 ms (DUP!)\n\
                    [1700000000.910000] 64 bytes from 203.0.113.200: icmp_seq=91 ttl=64 time=0.3 ms\n\n\
                    --- 203.0.113.200 ping statistics ---\n";
        let pings = read_pings(text, 91);
        assert_eq!((pings.received, pings.lost()), (3, 88));
        assert_eq!(pings.gap.as_millis(), 900);
    }
}
