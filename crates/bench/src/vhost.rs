//! Rows of guests on vhost-user ports. Those that send or receive are virtio-user devices of one `dpdk-testpmd`, which
//! moves frames between each and an end of its own on the core that the contender does not poll; idle ones are raw
//! front ends of this process. Each contender has guests of its own, which stand still when it does.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_frontend::{Guest, Settings};
use godwit_lab::cmd;
use godwit_lab::lab::process::Process;

use crate::ends::Ends;
use crate::godwit::Godwit;
use crate::ovs::Ovs;
use crate::peer::{Measured, Peer, Site};
use crate::plan::Case;
use crate::testpmd::Testpmd;

/// How long guests may take to be connected.
const PATIENCE: Duration = Duration::from_secs(30);
/// Buffers of the guests' program for each of them.
const BUFFERS: usize = 8192;
/// Bytes that a buffer takes.
const BUFFER: usize = 2176 + 192;

/// The socket of a contender's `n`-th guest; the idle ones come after the others. OVS names its own.
pub fn socket(site: &Site, contender: &str, n: u32) -> PathBuf {
    match contender {
        "ovs" => site.dir.join("ovs").join(format!("acc{n}")),
        _ => site.dir.join(format!("{contender}-{n}.vhost")),
    }
}

/// MiB of memory that the guests of one contender need.
pub fn memory_mb(ends: &Ends) -> usize {
    (ends.row.guests as usize * BUFFERS * BUFFER).div_ceil(1 << 20) + 64
}

/// The guests of one contender.
struct Guests {
    process: Process,
    /// They keep their connections, and do nothing.
    _idle: Vec<Guest>,
}

impl Guests {
    fn start(site: &Site, ends: &Ends, contender: &str) -> Result<Guests> {
        let row = ends.row;
        let sends = row.case == Case::VhostEncap;
        let sources = ends.sources(row.guests);
        let devices = (0..row.guests).flat_map(|n| {
            let card = format!("net_virtio_user{n},path={}", socket(site, contender, n).display());
            let end = if sends { sources[n as usize].clone() } else { format!("net_null{n},no-rx=1") };
            if sends { [end, card] } else { [card, end] }
        });
        let mut command = cmd::in_namespace(&site.namespace, "dpdk-testpmd");
        if sends {
            command.envs(ends.environment_of(row.guests));
        }
        let main = site.cores.main();
        command
            .args(["--lcores", &format!("0@{main},1@{main}"), "--no-pci", "--in-memory"])
            // A front end has few memory regions to offer.
            .args(["--single-file-segments", "-m", &memory_mb(ends).to_string()])
            .args(devices.map(|device| format!("--vdev={device}")))
            .args(["--", "--forward-mode=io", "--auto-start", "--nb-cores=1", "--stats-period=3600"])
            .arg(format!("--total-num-mbufs={}", BUFFERS * row.guests as usize));
        let mut process = Process::start(&format!("guests-{contender}"), command, &site.dir)?;
        let mut idle = Vec::new();
        for n in row.guests..row.guests + row.idle {
            process.check()?;
            let path = socket(site, contender, n);
            let guest = Guest::connect(&path, &Settings::small());
            idle.push(guest.with_context(|| format!("idle guest at {}", path.display()))?);
        }
        Ok(Guests { process, _idle: idle })
    }
}

/// A contender and its guests, who run and stand still together.
struct WithGuests<P> {
    peer: P,
    guests: Guests,
}

impl<P: Peer> Peer for WithGuests<P> {
    fn measure(&mut self, window: Duration) -> Result<Measured> {
        self.guests.process.check()?;
        self.peer.measure(window)
    }

    fn run(&mut self, run: bool) -> Result<()> {
        self.peer.run(run)?;
        self.guests.process.run(run)
    }
}

/// Godwit with its guests; it carries their frames.
///
/// # Errors
/// Where either does not start.
pub fn godwit(site: &Site, ends: &Ends) -> Result<Box<dyn Peer>> {
    let mut peer = Godwit::start_alone(site, ends)?;
    let guests = Guests::start(site, ends, "godwit")?;
    peer.wait(ends.row)?;
    Ok(Box::new(WithGuests { peer, guests }))
}

/// testpmd, which moves frames between each guest's `net_vhost` and an end.
///
/// # Errors
/// Where either does not start, or there are more guests than it has room for.
pub fn floor(site: &Site, ends: &Ends) -> Result<Box<dyn Peer>> {
    let row = ends.row;
    ensure!(row.idle == 0, "each guest is a device of its own there, and DPDK has room for few");
    let sends = row.case == Case::VhostEncap;
    let sources = ends.sources(row.guests);
    let devices: Vec<String> = (0..row.guests)
        .flat_map(|n| {
            let card = format!("net_vhost{n},iface={}", socket(site, "floor", n).display());
            if sends { [card, format!("net_null{n},no-rx=1")] } else { [sources[n as usize].clone(), card] }
        })
        .collect();
    let environment = if sends { Vec::new() } else { ends.environment_of(row.guests) };
    for n in 0..row.guests {
        // One that an earlier row's left, where testpmd could not listen. Mostly there is none.
        let _ = std::fs::remove_file(socket(site, "floor", n));
    }
    let mut peer = Testpmd::spawn(site, ends, &devices, &environment)?;
    wait_for(&socket(site, "floor", row.guests - 1), || peer.check())?;
    let guests = Guests::start(site, ends, "floor")?;
    peer.wait()?;
    Ok(Box::new(WithGuests { peer, guests }))
}

/// OVS-DPDK with its guests.
///
/// # Errors
/// Where either does not start.
pub fn ovs(site: &Site, ends: &Ends) -> Result<Box<dyn Peer>> {
    let peer = Ovs::start(site, ends)?;
    wait_for(&socket(site, "ovs", ends.row.guests + ends.row.idle - 1), || Ok(()))?;
    let guests = Guests::start(site, ends, "ovs")?;
    peer.settle(ends.row);
    Ok(Box::new(WithGuests { peer, guests }))
}

fn wait_for(socket: &std::path::Path, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while !socket.exists() {
        check()?;
        ensure!(Instant::now() < give_up, "{} did not appear in {PATIENCE:?}", socket.display());
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
