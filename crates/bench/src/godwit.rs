//! The switch under test, as its operator starts it: a configuration file and nothing else. Spoof
//! checks, counters, ECN and MTU handling are on, for there is no way to switch them off.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_api::v1::{self, Counter};
use godwit_lab::cmd;
use godwit_lab::lab::process::Process;
use godwit_lab::lab::rpc::Admin;
use godwit_wire::Mac;

use crate::ends::{self, Ends, LOCAL_VM, NEXT_HOP, REMOTE_VM, VNI};
use crate::peer::{Measured, Peer, Site};
use crate::plan::Row;
use crate::routed;
use crate::vhost;

/// Bytes that a packet buffer takes, and the share of the memory that buffers get.
const BUFFER: usize = 2560;
const POOL_SHARE: usize = 2;
/// Sixteenths of a MiB that a guest's port takes.
const GUEST_MB_OF_16: usize = 4;
/// The first idle guest.
const IDLE_VM: Mac = Mac([0x02, 0x40, 0, 0, 0, 0]);
/// How long it may take until all locations are known and frames flow.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// The same under valgrind.
const COUNTED_PATIENCE: Duration = Duration::from_secs(900);
/// Frames that have gone out when caches and buffers are warm.
const WARM: u64 = 1_000_000;
/// IP addresses and routes that a switch has room for unless told otherwise, and what a routed row has beside its
/// destinations: VMs that route for them, gateways, subnets.
const ADDRESSES: u32 = 65_536;
const MORE_ADDRESSES: u32 = 1024;
/// A share of lost frames that is worth a word.
const LOSS: f64 = 0.001;

/// The running switch.
pub struct Godwit {
    process: Process,
    admin: Admin,
    /// What the names of the ports begin with that frames leave by.
    out: &'static str,
}

/// Counters at a time.
pub struct Reading {
    /// When.
    pub at: Instant,
    /// Frames that went out.
    pub sent: u64,
    /// Updates that workers applied.
    pub updates: u64,
}

/// MiB of memory that the switch needs for a row.
pub fn memory_mb(ends: &Ends) -> usize {
    let bytes = ends.buffers() * BUFFER.max(ends.row.longest().next_multiple_of(1024) + 1024);
    let guests = (ends.row.guests + ends.row.idle) as usize * GUEST_MB_OF_16 / 16;
    (POOL_SHARE * bytes).div_ceil(1 << 20).max(256) + guests
}

/// Ports beside the uplink, and VMs beside theirs, of a row of guests.
fn guests(text: &mut String, site: &Site, row: &Row) -> Result<()> {
    for n in 0..row.guests + row.idle {
        let (name, mac) = match n.checked_sub(row.guests) {
            None => (format!("vm{n}"), ends::local_vm(row, n)),
            Some(idle) => (format!("idle{idle}"), ends::nth(IDLE_VM, idle)),
        };
        let ips = if n < row.guests { format!("\"{}\"", ends::near_ip(row, n)) } else { String::new() };
        writeln!(
            text,
            "[[port]]\nname = \"{name}\"\ndevargs = \"net_vhost{n},iface={}\"\nvni = {VNI}\nmac = \"{mac}\"\n\
             ips = [{ips}]\nactivate = \"start\"",
            vhost::socket(site, "godwit", n).display()
        )?;
    }
    if row.case.is_encap() {
        return Ok(());
    }
    for n in row.guests..row.destinations {
        let (mac, port) = (ends::local_vm(row, n), n % row.guests);
        writeln!(text, "[[vm]]\nvni = {VNI}\nmac = \"{mac}\"\nport = \"vm{port}\"")?;
    }
    Ok(())
}

/// The configuration for a row, with further `keys` of the switch itself.
fn config(site: &Site, ends: &Ends, nva: Option<&str>, keys: &str) -> Result<String> {
    let Row { case, destinations, nves, workers, .. } = ends.row;
    let cores: Vec<String> = site.cores.workers(workers).iter().map(usize::to_string).collect();
    let family = if case.is_v6() { "ipv6" } else { "ipv4" };
    let (source, sink, encap) = (ends.source(), ends.sink(), case.is_encap());
    let (uplink, port) = if encap { (sink, source.as_str()) } else { (source.as_str(), sink) };
    let (uplink_queues, port_queues) = if encap { (1, workers) } else { (workers, 1) };
    let mut text = String::new();
    let mut nve_lines = nva.map_or_else(String::new, |url| format!("nva = \"{url}\"\n"));
    if case.is_routed() && destinations + MORE_ADDRESSES > ADDRESSES {
        let room = destinations + MORE_ADDRESSES;
        writeln!(nve_lines, "addresses = {room}\nroutes = {room}")?;
    }
    write!(
        text,
        "[nve]\nid = \"bench\"\nworkers = \"{cores}\"\ncontrol_core = {main}\nmemory_mb = {memory}\n\
         admin_socket = \"{dir}/godwit.sock\"\n{nve_lines}{keys}\
         [[uplink]]\nname = \"up\"\ndevargs = \"{uplink}\"\nrx_queues = {uplink_queues}\nmtu = {mtu}\n\
         {family} = \"{locator}/{prefix}\"\n\
         [[neighbor]]\nuplink = \"up\"\nip = \"{remote}\"\nmac = \"{NEXT_HOP}\"\ncount = {nves}\n",
        cores = cores.join(","),
        main = site.cores.main(),
        memory = memory_mb(ends),
        dir = site.dir.display(),
        mtu = ends.row.underlay_mtu(),
        locator = case.locator(),
        prefix = case.prefix(),
        remote = case.remote(0),
    )?;
    if case.is_vhost() {
        guests(&mut text, site, &ends.row)?;
    } else {
        write!(
            text,
            "[[port]]\nname = \"vm\"\ndevargs = \"{port}\"\nrx_queues = {port_queues}\nvni = {VNI}\n\
             mac = \"{LOCAL_VM}\"\nips = [{ips}]\nactivate = \"start\"\n",
            ips = quoted((0..ends.row.sources).map(|n| ends::near_ip(&ends.row, n))),
        )?;
    }
    if nva.is_some() {
        return Ok(text);
    }
    for n in 0..ends.row.nested {
        let (mac, ip) = (ends::nested_vm(n), ends::near_ip(&ends.row, ends.row.sources + n));
        writeln!(text, "[[vm]]\nvni = {VNI}\nmac = \"{mac}\"\nips = [\"{ip}\"]\nport = \"vm\"")?;
    }
    if case.is_routed() {
        routed::config(&mut text, &ends.row)?;
    } else if ends.row.random {
        scattered_vms(&mut text, &ends.row)?;
    } else if encap {
        let remote = case.remote(0);
        write!(
            text,
            "[[vm]]\nvni = {VNI}\nmac = \"{REMOTE_VM}\"\ncount = {destinations}\nlocator = \"{remote}\"\n\
             nves = {nves}\n",
        )?;
    } else if destinations > 1 && !case.is_vhost() {
        // The first is the port's own.
        let mac = Mac::from_u64(LOCAL_VM.to_u64() + 1);
        write!(text, "[[vm]]\nvni = {VNI}\nmac = \"{mac}\"\ncount = {}\nport = \"vm\"\n", destinations - 1)?;
    }
    Ok(text)
}

/// As a list of a configuration file holds them.
fn quoted(ips: impl Iterator<Item = IpAddr>) -> String {
    ips.map(|ip| format!("\"{ip}\"")).collect::<Vec<_>>().join(", ")
}

/// VMs whose addresses do not follow each other: one entry each.
fn scattered_vms(text: &mut String, row: &Row) -> Result<()> {
    // The first behind the port is the port's own.
    for n in if row.case.is_encap() { 0..row.destinations } else { 1..row.destinations } {
        if row.case.is_encap() {
            let (mac, locator) = (ends::remote_vm(row, n), row.case.remote(n % row.nves));
            writeln!(text, "[[vm]]\nvni = {VNI}\nmac = \"{mac}\"\nlocator = \"{locator}\"")?;
        } else {
            writeln!(text, "[[vm]]\nvni = {VNI}\nmac = \"{}\"\nport = \"vm\"", ends::local_vm(row, n))?;
        }
    }
    Ok(())
}

impl Godwit {
    /// Starts it and waits until it carries the row's frames with all locations known.
    ///
    /// # Errors
    /// Where it refuses, or carries nothing.
    pub fn start(site: &Site, ends: &Ends) -> Result<Godwit> {
        let mut godwit = Godwit::spawn(site, ends, None)?;
        godwit.wait(ends.row)?;
        Ok(godwit)
    }

    /// Starts it with an NVA that is to tell it all locations.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_listening(site: &Site, ends: &Ends, nva: &str) -> Result<Godwit> {
        Godwit::spawn(site, ends, Some(nva))
    }

    /// Starts it under callgrind, which counts nothing yet and writes its counts to `counts` at the end.
    ///
    /// # Errors
    /// See [`Godwit::start`].
    pub fn start_counted(site: &Site, ends: &Ends, counts: &Path) -> Result<Godwit> {
        // A thread that polls would keep the others from the only core that there is under valgrind.
        let mut command = cmd::in_namespace(&site.namespace, "valgrind");
        command
            .args(["--tool=callgrind", "--fair-sched=yes", "--separate-threads=yes", "--instr-atstart=no"])
            .arg(format!("--callgrind-out-file={}", counts.display()))
            .arg(&site.godwit);
        let mut godwit = Godwit::spawn_as(command, site, ends, None, "hugepages = \"never\"\n")?;
        godwit.wait_for(ends.row, COUNTED_PATIENCE)?;
        Ok(godwit)
    }

    /// Starts it; frames flow when its guests do.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_alone(site: &Site, ends: &Ends) -> Result<Godwit> {
        let mut godwit = Godwit::spawn(site, ends, None)?;
        let give_up = Instant::now() + START_PATIENCE;
        while godwit.admin.status().is_err() {
            godwit.process.check()?;
            ensure!(Instant::now() < give_up, "it does not answer after {START_PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(godwit)
    }

    fn spawn(site: &Site, ends: &Ends, nva: Option<&str>) -> Result<Godwit> {
        Godwit::spawn_as(cmd::in_namespace(&site.namespace, &site.godwit), site, ends, nva, "")
    }

    fn spawn_as(
        mut command: Command,
        site: &Site,
        ends: &Ends,
        nva: Option<&str>,
        keys: &str,
    ) -> Result<Godwit> {
        let file = site.dir.join("godwit.toml");
        fs::write(&file, config(site, ends, nva, keys)?)
            .with_context(|| format!("writing {}", file.display()))?;
        command.arg("--config").arg(&file).env("GODWIT_LOG", "warn").envs(ends.environment());
        let process = Process::start("godwit", command, &site.dir)?;
        let admin = site.rpc.admin(&site.dir.join("godwit.sock"))?;
        let out = if ends.row.case.is_encap() { "up" } else { "vm" };
        Ok(Godwit { process, admin, out })
    }

    /// Its process's number.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Fails, with the end of its log, where it has ended.
    ///
    /// # Errors
    /// See above.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Locations that the first worker has.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn locations(&self) -> Result<u64> {
        Ok(self.admin.status()?.workers.first().map_or(0, |w| w.locations))
    }

    /// How its only worker spent its time since the last reset; with `reset`, the record begins anew.
    ///
    /// # Errors
    /// Where it does not answer, or has no worker.
    pub fn perf(&self, reset: bool) -> Result<v1::WorkerPerf> {
        self.admin.perf(reset)?.into_iter().next().context("the switch has no worker")
    }

    /// What it has counted so far.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn reading(&self) -> Result<Reading> {
        let counters = self.admin.counters()?;
        let updates = applied(&counters);
        Ok(Reading { at: Instant::now(), sent: self.sent(&counters), updates })
    }

    /// Waits until all locations are known and frames flow.
    ///
    /// # Errors
    /// Where it ended, or that takes too long.
    pub fn wait(&mut self, row: Row) -> Result<()> {
        self.wait_for(row, START_PATIENCE)
    }

    fn wait_for(&mut self, row: Row, patience: Duration) -> Result<()> {
        let give_up = Instant::now() + patience;
        let wanted = u64::from(row.vms()) * row.workers as u64;
        let mut counters = Vec::new();
        let (mut known, mut updates) = (0, 0);
        loop {
            self.process.check()?;
            if let Ok(status) = self.admin.status() {
                known = status.workers.iter().map(|w| w.locations).sum();
                counters = self.admin.counters()?;
                // Routes may come after the locations that they lead to.
                let settled = std::mem::replace(&mut updates, applied(&counters)) == updates;
                if known >= wanted && settled && self.sent(&counters) >= WARM {
                    return Ok(());
                }
            }
            ensure!(
                Instant::now() < give_up,
                "it knows {known} of {wanted} locations and sent {} frames in {patience:?}{}",
                self.sent(&counters),
                lost(&[], &counters).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn sent(&self, counters: &[Counter]) -> u64 {
        counters
            .iter()
            .filter(|c| c.port.starts_with(self.out) && c.name == "tx_packets")
            .map(|c| c.value)
            .sum()
    }
}

/// Updates that all workers have applied.
fn applied(counters: &[Counter]) -> u64 {
    counters.iter().filter(|c| c.name == "updates").map(|c| c.value).sum()
}

/// What was lost between two readings, if it matters: the reason with most frames.
fn lost(before: &[Counter], after: &[Counter]) -> Option<String> {
    let of = |all: &[Counter], name: &str, drop| -> u64 {
        all.iter().filter(|c| c.name == name && c.drop == drop).map(|c| c.value).sum()
    };
    let since = |name: &str, drop| of(after, name, drop).saturating_sub(of(before, name, drop));
    let came = since("rx_packets", false).max(1);
    let reasons = after.iter().filter(|c| c.drop).map(|c| (since(&c.name, true), c.name.as_str()));
    let (frames, reason) = reasons.max()?;
    let share = frames as f64 / came as f64;
    (share > LOSS).then(|| format!("; {:.1} % of what came was dropped as {reason}", 100.0 * share))
}

impl Peer for Godwit {
    fn measure(&mut self, window: Duration) -> Result<Measured> {
        let (before, start) = (self.admin.counters()?, Instant::now());
        std::thread::sleep(window);
        let (after, took) = (self.admin.counters()?, start.elapsed());
        let frames = self.sent(&after) - self.sent(&before);
        let note = lost(&before, &after).map(|l| l.trim_start_matches("; ").to_owned());
        Ok(Measured { mpps: frames as f64 / took.as_secs_f64() / 1e6, note })
    }

    fn run(&mut self, run: bool) -> Result<()> {
        self.process.run(run)
    }
}
