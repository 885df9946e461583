//! What VMs see of the network: their neighbor entries, echoes, and the ways that packets take.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::cmd;
use crate::lab::Lab;
use crate::lab::topology::GUEST;
use crate::scenario::guest::received;

/// Debian's traceroute, by its path: busybox's shell has one of its own, which it prefers by name.
const TRACEROUTE: &str = "/usr/bin/traceroute";
/// How long a way may take to be there at first.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a line of shell in a VM, whatever it is made of.
///
/// # Errors
/// Where it fails.
pub(crate) fn sh(lab: &mut Lab, vm: &str, line: &str) -> Result<String> {
    match lab.guests.get_mut(vm) {
        Some(guest) => guest.sh(line),
        None => cmd::run_in(&lab.namespace(vm), "sh", &["-c", line]),
    }
}

/// A kernel's entry of a neighbor, without its state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Entry(String);

impl Entry {
    /// Finds the neighbor in what `ip neighbor show` printed.
    pub fn read(ip: &str, table: &str) -> Entry {
        let of_line = |line: &'_ str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let words = table.lines().map(of_line).find(|words| words.first().is_some_and(|w| w == ip));
        // After these come its state and, as busybox has it, its statistics.
        let words = words.unwrap_or_default();
        let mac = words.iter().skip_while(|w| *w != "lladdr").nth(1);
        let router = if words.iter().any(|w| w == "router") { " router" } else { "" };
        Entry(mac.map(|mac| format!("{ip} lladdr {mac}{router}")).unwrap_or_default())
    }

    /// It has a MAC address.
    pub fn is_known(&self) -> bool {
        self.0.contains("lladdr")
    }
}

/// What a VM's kernel knows of a neighbor.
///
/// # Errors
/// Where the VM cannot be asked.
pub(crate) fn entry(lab: &mut Lab, vm: &str, ip: IpAddr) -> Result<Entry> {
    let family = if ip.is_ipv6() { "-6" } else { "-4" };
    let table = sh(lab, vm, &format!("ip {family} neigh show dev {GUEST}"))?;
    Ok(Entry::read(&ip.to_string(), &table))
}

/// Echo requests, and how many were answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Echoes {
    /// Who asked.
    pub from: String,
    /// Whom.
    pub to: String,
    /// How often.
    pub sent: u32,
    /// How many answers came.
    pub received: u32,
}

/// Echo requests of this many bytes from a VM to an address.
///
/// # Errors
/// Where ping cannot be run.
pub(crate) fn echoes(lab: &mut Lab, vm: &str, to: IpAddr, (sent, size): (u32, u32)) -> Result<Echoes> {
    let family = if to.is_ipv6() { "-6" } else { "-4" };
    // Ping fails where answers are missing; they are counted.
    let said = sh(lab, vm, &format!("ping {family} -c {sent} -s {size} -i 0.2 -W 5 {to} || true"))?;
    Ok(Echoes { from: vm.into(), to: to.to_string(), sent, received: received(&said) })
}

/// Waits until an address answers a VM.
///
/// # Errors
/// Where it does not.
pub(crate) fn wait_reached(lab: &mut Lab, vm: &str, to: IpAddr) -> Result<()> {
    let started = Instant::now();
    let line = format!("ping {} -c 1 -W 1 {to} || true", if to.is_ipv6() { "-6" } else { "-4" });
    while received(&sh(lab, vm, &line)?) == 0 {
        ensure!(started.elapsed() < PATIENCE, "VM {vm} does not reach {to}");
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The way of packets from a VM to an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Path {
    /// From this VM
    pub from: String,
    /// to this one,
    pub to: String,
    /// over this IP version.
    pub family: u8,
    /// When it was looked at.
    pub when: &'static str,
    /// Who should be on it, the target last.
    pub expected: Vec<IpAddr>,
    /// Who is on it; an address of all zeros for one that does not say.
    pub hops: Vec<IpAddr>,
}

impl Path {
    /// It is as it should be.
    pub fn is_right(&self) -> bool {
        self.hops == self.expected
    }

    /// For people.
    pub fn text(&self) -> String {
        let hops = |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let Path { from, to, family, .. } = self;
        let seen = hops(&self.hops);
        if self.is_right() {
            format!("traceroute, IPv{family}, {from} to {to}: {seen}")
        } else {
            format!("traceroute, IPv{family}, {from} to {to}: {seen} IN PLACE OF {}", hops(&self.expected))
        }
    }
}

/// What Debian's traceroute sees on the way from a VM to another one's address, the last that is expected.
///
/// # Errors
/// Where traceroute cannot be run.
pub(crate) fn path(
    lab: &mut Lab,
    (from, to): (&str, &str),
    when: &'static str,
    expected: Vec<IpAddr>,
) -> Result<Path> {
    let target = *expected.last().context("a way leads somewhere")?;
    wait_reached(lab, from, target)?;
    let (family, number) = if target.is_ipv6() { ("-6", 6) } else { ("-4", 4) };
    // A few probes at a time: kernels say of few packets in a second that nobody wants them.
    let line = format!("{TRACEROUTE} {family} -n -q 2 -N 2 -w 5 -m 6 {target}");
    let hops = hops(&sh(lab, from, &line)?, target);
    Ok(Path { from: from.into(), to: to.into(), family: number, when, expected, hops })
}

/// The first address of each line of traceroute's, up to the target.
fn hops(printed: &str, target: IpAddr) -> Vec<IpAddr> {
    let none: IpAddr = if target.is_ipv6() { [0_u16; 8].into() } else { [0; 4].into() };
    let mut hops = Vec::new();
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        // The headline has no number.
        if words.next().is_none_or(|n| n.parse::<u8>().is_err()) {
            continue;
        }
        hops.push(words.find_map(|w| w.parse().ok()).unwrap_or(none));
        if hops.last() == Some(&target) {
            break;
        }
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_compared_without_their_state() {
        let table =
            "10.1.1.10 lladdr 02:00:00:00:00:05 STALE\n10.1.1.1 lladdr 02:67:77:00:00:01 REACHABLE \n";
        let entry = Entry::read("10.1.1.1", table);
        assert!(entry.is_known());
        assert_eq!(entry, Entry::read("10.1.1.1", "10.1.1.1 lladdr 02:67:77:00:00:01 DELAY"));
        let router = Entry::read("fe80::1", "fe80::1 lladdr 02:67:77:00:00:01 router STALE\n");
        assert_ne!(router, Entry::read("fe80::1", "fe80::1 lladdr 02:67:77:00:00:01 STALE\n"));
        let busybox = "fe80::1 lladdr 02:67:77:00:00:01 router ref 1 used 0/0/0 probes 4 REACHABLE";
        assert_eq!(router, Entry::read("fe80::1", busybox));
        assert!(!Entry::read("10.1.1.1", "10.1.1.1 FAILED").is_known());
        assert!(!Entry::read("10.1.1.1", "10.1.1.11 lladdr 02:67:77:00:00:01 STALE").is_known());
    }

    #[test]
    fn hops_are_read_up_to_the_target() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let four = "traceroute to 10.1.2.20 (10.1.2.20), 6 hops max, 60 byte packets\n \
                    1  10.1.1.1  0.131 ms  0.095 ms\n 2  10.1.2.20  0.5 ms *\n";
        assert_eq!(hops(four, ip("10.1.2.20")), [ip("10.1.1.1"), ip("10.1.2.20")]);
        let lost = " 1  * *\n 2  2001:db8:1:2::14  0.5 ms\n 3  2001:db8:1:2::14  0.5 ms\n";
        assert_eq!(hops(lost, ip("2001:db8:1:2::14")), [ip("::"), ip("2001:db8:1:2::14")]);
    }
}
