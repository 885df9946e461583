//! A real guest: Linux under QEMU on a vhost-user port of one switch talks, through VXLAN, to a VM at
//! another switch, and is migrated there while it does.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use godwit_api::v1::{self, MoveStepKind, Version, VmName};

use super::Common;
use crate::guest::qemu::{GuestSpec, Nic};
use crate::guest::{Guest, standard_image};
use crate::lab::guests::Placed;
use crate::lab::topology::{self, GUEST, GUEST_MTU};
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};
use crate::mover::{How, hot_move};

/// Echo requests each way and family.
const PINGS: u32 = 20;
/// Whatever a guest's kernel says unasked, it says within this.
const QUIET: Duration = Duration::from_millis(700);
/// QEMU's five announcements take 0.8 s.
const ROUNDS: Duration = Duration::from_millis(1200);
/// An announcement leads to a record within this, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Options of `godwit-lab guest`.
#[derive(Clone, Debug, Args)]
pub struct GuestTalk {
    #[command(flatten)]
    common: Common,
    /// The guest's own kernel says nothing: QEMU and DPDK announce it, at first and after the migration
    #[arg(long)]
    silent: bool,
    /// Processors of the guest, and queue pairs of its card, a pair for each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4),
        conflicts_with = "silent")]
    queues: u16,
}

impl GuestTalk {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[crate::guest::qemu::QEMU, "busybox"])?;
        println!(
            "Godwit lab: a real guest\n  g, Linux under QEMU on a vhost-user port of switch a, and p at switch b\n"
        );
        let mut lab = Lab::start(&LabSpec::new(&["a", "b"], false, &self.common.switch_options()), &bins)?;
        let result = if self.silent { silent_in_lab(&mut lab) } else { in_lab(&mut lab, self.queues) };
        let passed = super::report::end(&mut lab, result, |good| *good)?;
        println!("\n{}", if passed { "PASSED: every echo came back." } else { "FAILED" });
        Ok(passed)
    }
}

fn in_lab(lab: &mut Lab, queues: u16) -> Result<bool> {
    let (g, p) = (VmSpec::numbered("g", 10), VmSpec::numbered("p", 20));
    let (kernel, image) = standard_image(&lab.bins.lab.clone(), &lab.dir)?;
    lab.start_vm(p.clone(), "b")?;
    let machine = GuestSpec { cpus: queues.into(), ..GuestSpec::new("g", &kernel, &image) };
    lab.start_guest(&g, machine, "a", queues)?;
    println!("  g is up: Linux {}", lab.guest("g")?.sh("uname -r")?.trim());
    let mut passed = echoes(lab, &g, &p)? && by_every_queue(lab, &p, "a", queues)?;

    let moved = hot_move(lab, "g", "b", "guest-1", How::default())?;
    let migration = moved.migration.as_ref().context("the move was called off")?;
    println!(
        "  g migrated from a to b: QEMU's downtime {} ms, {} ms in all; the move is {}",
        migration.downtime_ms,
        migration.total_ms,
        moved.record.phase().as_str_name()
    );
    passed &= moved.done();
    passed &= echoes(lab, &g, &p)? && by_every_queue(lab, &p, "b", queues)?;
    lab.check_processes()?;
    let guest = lab.guests.remove("g").context("the guest is gone")?;
    guest.shut_down()?;
    Ok(passed)
}

/// A guest whose kernel speaks of itself neither when it comes up nor after a migration (R26): its card does not offer
/// it to announce itself, so that QEMU does, by an order to the switch's DPDK, which makes a frame of it.
fn silent_in_lab(lab: &mut Lab) -> Result<bool> {
    let (g, p) = (VmSpec::numbered("g", 10), VmSpec::numbered("p", 20));
    let (kernel, image) = standard_image(&lab.bins.lab.clone(), &lab.dir)?;
    lab.start_vm(p.clone(), "b")?;
    start_silent(lab, &g, GuestSpec::new("g", &kernel, &image))?;
    sleep(QUIET);
    ensure!(owner(lab)?.is_none(), "somebody announced g before QEMU did");
    println!("  g is up and says nothing: the directory has it nowhere");

    lab.guest("g")?.announced_by_qemu()?;
    let announced = Instant::now();
    while owner(lab)?.is_none_or(|(nve, _)| nve != "a") {
        ensure!(announced.elapsed() < PATIENCE, "QEMU announced g, and the directory has it not at a");
        sleep(Duration::from_millis(5));
    }
    println!("  QEMU announces it: the directory has it at a");
    answer_arp(lab.guest("g")?, true)?;
    let unmoved = one_version(lab)?;

    let moved = hot_move(lab, "g", "b", "guest-1", How::default())?;
    let ran = moved.record.steps.iter().find(|s| s.what() == MoveStepKind::Activated);
    let cause = ran.map(|s| format!("ran at {} {}", s.nve, s.note)).unwrap_or_default();
    println!("  g migrated to b: it {cause}; the move is {}", moved.record.phase().as_str_name());
    let all = one_version(lab)? && unmoved && moved.done() && cause == "ran at b by a RARP";
    let passed = all && echoes_of_family(lab, &g, &p, false)?;
    lab.check_processes()?;
    Ok(passed)
}

/// Starts g at a without a word of it: without IPv6, whose kernel joins groups and asks for routers.
fn start_silent(lab: &mut Lab, g: &VmSpec, mut machine: GuestSpec) -> Result<()> {
    lab.define_vm(g, "")?;
    let namespace = lab.namespace(&g.name);
    topology::add_namespace(&namespace)?;
    let port = lab.plug_vhost(g, "a", 1, false)?;
    let card = Nic { properties: "guest_announce=off".into(), ..Nic::new(&port.socket, g.mac) };
    machine.nics.push(card);
    let mut guest = Guest::start(machine, &lab.dir, Some(&namespace))?;
    guest.sh("for all in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$all; done")?;
    // Its switch asks for a VM that it does not hear of, and an answer would be a word, too (R32).
    answer_arp(&mut guest, false)?;
    let v4: Vec<IpAddr> = g.ips.iter().copied().filter(IpAddr::is_ipv4).collect();
    guest.configure(GUEST, GUEST_MTU, &v4)?;
    lab.guests.insert(g.name.clone(), guest);
    lab.placed.insert(g.name.clone(), Placed { spec: g.clone(), port });
    Ok(())
}

/// Lets the guest's kernel answer those who ask for its addresses, or none of them.
fn answer_arp(guest: &mut Guest, answers: bool) -> Result<()> {
    let ignored = if answers { 0 } else { 8 };
    guest.sh(&format!("echo {ignored} >/proc/sys/net/ipv4/conf/all/arp_ignore")).map(drop)
}

/// Where the directory has g, and since which version.
fn owner(lab: &Lab) -> Result<Option<(String, Version)>> {
    let record = lab.nva.operator.show_vm(VmName { name: "g".into() })?;
    Ok(record.location.map(|l| l.nve).filter(|nve| !nve.is_empty()).zip(record.version))
}

/// Waits until QEMU has announced g for the last time; true if all that was one version with all of g's addresses.
fn one_version(lab: &Lab) -> Result<bool> {
    let first = owner(lab)?;
    sleep(ROUNDS);
    let last = owner(lab)?;
    let addresses = lab.nva.operator.show_vm(VmName { name: "g".into() })?;
    let whole = addresses.ipv4.len() == 1 && addresses.ipv6.len() == 1;
    println!(
        "    five rounds are {}",
        if first == last && whole { "one version" } else { "MORE THAN ONE VERSION" }
    );
    Ok(first == last && whole)
}

/// Echo requests from both to each other over both families; true if all came back.
fn echoes(lab: &mut Lab, g: &VmSpec, p: &VmSpec) -> Result<bool> {
    let v4 = echoes_of_family(lab, g, p, false)?;
    Ok(echoes_of_family(lab, g, p, true)? && v4)
}

/// The same over one family.
fn echoes_of_family(lab: &mut Lab, g: &VmSpec, p: &VmSpec, v6: bool) -> Result<bool> {
    let mut all = true;
    let (at_g, at_p) = (g.address(v6, 0).ip(), p.address(v6, 0).ip());
    let family = if v6 { "-6" } else { "-4" };
    // Ping fails where echoes are missing; they are counted below, and said.
    let from_g = format!("ping {family} -c {PINGS} -i 0.05 -W 5 {at_p} || true");
    let out_g = lab.guest("g")?.sh(&from_g)?;
    let namespace = lab.namespace("p");
    let from_p = format!("ping {family} -c {PINGS} -i 0.05 -W 5 {at_g} || true");
    let out_p = crate::cmd::run_in(&namespace, "sh", &["-c", &format!("busybox {from_p}")])?;
    for (who, out) in [("g to p", out_g), ("p to g", out_p)] {
        let came = received(&out);
        println!("    IPv{} {who}: {came} of {PINGS} echoes", if v6 { 6 } else { 4 });
        if came != PINGS {
            println!("{out}");
            all = false;
        }
    }
    Ok(all)
}

/// Each processor of the guest sends by the queue of its own: true if echoes came back to all of them, and the switch
/// where the guest is received frames of each queue.
fn by_every_queue(lab: &mut Lab, p: &VmSpec, nve: &str, queues: u16) -> Result<bool> {
    if queues == 1 {
        return Ok(true);
    }
    lab.nve(nve)?.admin.perf(true)?;
    let mut all = true;
    for processor in 0..queues {
        let ping =
            format!("taskset {:x} ping -c {PINGS} -i 0.05 -W 5 {}", 1 << processor, p.address(false, 0).ip());
        // As above: missing echoes are counted, not an error of the shell's.
        let came = received(&lab.guest("g")?.sh(&format!("{ping} || true"))?);
        println!("    g's processor {processor} to p: {came} of {PINGS} echoes");
        all &= came == PINGS;
    }
    let port = lab.placed("g")?.port.port.clone();
    let workers = lab.nve(nve)?.admin.perf(false)?;
    for queue in 0..queues {
        let of_queue = |w: &v1::WorkerPerf| {
            w.queues.iter().filter(|q| q.port == port && q.queue == u32::from(queue)).map(|q| q.packets).sum()
        };
        let by_worker: Vec<u64> = workers.iter().map(of_queue).collect();
        let frames: u64 = by_worker.iter().sum();
        println!("    {nve} received {frames} frames of g's queue {queue}, by worker: {by_worker:?}");
        all &= frames >= u64::from(PINGS);
    }
    Ok(all)
}

/// The number that ping gives for what it received, busybox's or iputils'.
pub(super) fn received(output: &str) -> u32 {
    let line = output.lines().find(|l| l.contains("received")).unwrap_or_default();
    let count = line.split(',').find(|part| part.contains("received")).unwrap_or_default();
    count.split_whitespace().find_map(|w| w.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_both_pings_print() {
        assert_eq!(received("x\n20 packets transmitted, 19 packets received, 5% packet loss\n"), 19);
        assert_eq!(received("20 packets transmitted, 18 received, 10% packet loss, time 1ms\n"), 18);
        assert_eq!(received("ping: no route"), 0);
    }
}
