//! Locations that change, and a table that grows, while a worker is under full load.
//!
//! The updates come by the switch's session with its NVA, through its control and its workers'
//! mailboxes; the directory at the other end runs in this program. An acknowledgement says that all
//! workers have applied what came before it, so from sending to acknowledgement is an upper bound of
//! the time from update to effect: it has the session both ways in it, and the millisecond in which
//! control looks at its workers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use godwit_nva_api::v1;
use serde::Serialize;

use super::directory::Directory;
use super::ends::{Ends, REMOTE_VM, VNI};
use super::godwit::Godwit;
use super::peer::{Peer, Site};
use super::plan::{self, Row};
use super::stats::{Rates, median};
use super::{SETTLE, godwit, memory};

/// Where the directory serves, in the namespace.
const ADDRESS: &str = "127.0.0.1:6640";
/// VMs that move around, those that traffic goes to among them.
const MOVING: u32 = 100_000;
/// Entries that the table grows to.
const GROWN: u32 = 1_000_000;
/// Updates are sent in so many portions a second, each with an acknowledgement asked for.
const PORTIONS: u32 = 1000;

/// Rates around a table that grows.
#[derive(Debug, Serialize)]
pub struct Growth {
    /// Entries in the end.
    pub entries: u64,
    /// How long it took.
    pub seconds: f64,
    /// Millions of frames a second before.
    pub before_mpps: f64,
    /// While it grew, the median of windows.
    pub during_mpps: Option<f64>,
    /// Of those windows the slowest.
    pub slowest_mpps: Option<f64>,
    /// After.
    pub after_mpps: f64,
}

/// What updates do to a worker under load.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Updates a second that were sent.
    pub asked_per_second: u32,
    /// Updates a second that the worker applied.
    pub applied_per_second: Option<f64>,
    /// Millions of frames a second without updates, a round each.
    pub without_mpps: Rates,
    /// With.
    pub with_mpps: Rates,
    /// The median of the ratios within a round.
    pub with_over_without: Option<f64>,
    /// From sending to acknowledgement, in microseconds: median, 99th percentile, maximum.
    pub ack_us: Option<[f64; 3]>,
    /// The table that grew.
    pub growth: Growth,
}

/// A directory, a switch that listens to it, and the state of its VMs.
struct Run {
    directory: Directory,
    godwit: Godwit,
    row: Row,
    seq: u64,
    asked: Vec<(u64, Instant)>,
    acks: Vec<Duration>,
}

impl Run {
    fn start(site: &Site) -> Result<Run> {
        let mut row = plan::select(&[], "encap-v4/60/1000")?[0];
        row.nves = 256;
        let ends = Ends::new(row, &site.dir)?;
        memory::reserve(godwit::memory_mb(&ends))?;
        let directory = Directory::serve(&site.namespace, ADDRESS.parse()?)?;
        let godwit = Godwit::start_listening(site, &ends, &format!("http://{ADDRESS}"))?;
        let mut run = Run {
            directory,
            godwit,
            row,
            // The switch's own VM was granted the first.
            seq: 1,
            asked: Vec::new(),
            acks: Vec::new(),
        };
        let give_up = Instant::now() + Duration::from_secs(30);
        while !run.directory.is_connected() {
            run.godwit.check()?;
            ensure!(Instant::now() < give_up, "the switch opens no session");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Traffic's destinations come first.
        for vm in 0..row.destinations {
            run.move_vm(vm, false)?;
        }
        run.godwit.wait(row)?;
        Ok(run)
    }

    /// The VM is at the next NVE from now on.
    fn move_vm(&mut self, vm: u32, ack: bool) -> Result<()> {
        self.seq += 1;
        let nve = (vm.wrapping_add(self.seq as u32)) % self.row.nves;
        let std::net::IpAddr::V4(locator) = self.row.case.remote(nve) else { return Ok(()) };
        let record = v1::VmRecord {
            name: format!("vm-{vm}"),
            key: Some(v1::VmKey { vni: VNI, mac: REMOTE_VM.to_u64() + u64::from(vm) }),
            location: Some(v1::Location {
                nve: format!("nve-{nve}"),
                locators: Some(v1::Locators { v4: locator.octets().to_vec(), v6: Vec::new() }),
            }),
            state: v1::BindingState::Active.into(),
            version: Some(v1::Version { epoch: 1, seq: self.seq }),
            ..v1::VmRecord::default()
        };
        let ack_id = if ack { self.seq } else { 0 };
        if ack {
            self.asked.push((ack_id, Instant::now()));
        }
        self.directory.update(VNI, record, ack_id)
    }

    /// Sends `rate` updates a second until `end`, over the first `vms` VMs. Returns how many.
    fn stream(&mut self, rate: u32, vms: u32, end: Instant) -> Result<u64> {
        let (start, portion, mut sent) = (Instant::now(), (rate / PORTIONS).max(1), 0_u64);
        while Instant::now() < end {
            for i in 0..portion {
                self.move_vm((sent % u64::from(vms)) as u32, i + 1 == portion)?;
                sent += 1;
            }
            let due = start + Duration::from_secs_f64(sent as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(sent)
    }

    /// Matches acknowledgements with what was asked.
    fn settle_acks(&mut self) {
        for (id, at) in self.directory.take_acks() {
            if let Some(i) = self.asked.iter().position(|a| a.0 == id) {
                let (_, asked) = self.asked.swap_remove(i);
                self.acks.push(at - asked);
            }
        }
    }
}

/// Measures `rounds` windows with and without updates, then lets the table grow.
///
/// # Errors
/// Where the switch does not start or loses its session.
pub fn measure(site: &Site, rate: u32, rounds: u32, window: Duration) -> Result<Outcome> {
    let mut run = Run::start(site)?;
    let (mut without, mut with, mut applied) = (Rates::default(), Rates::default(), Vec::new());
    // All that will move is known before: replacing is measured here, growing below.
    let end = Instant::now() + Duration::from_secs_f64(f64::from(MOVING) / f64::from(rate));
    run.stream(rate, MOVING, end)?;
    run.settle_acks();
    run.acks.clear();
    for round in 0..rounds {
        for on in [round % 2 == 0, round % 2 != 0] {
            std::thread::sleep(SETTLE);
            if !on {
                without.0.push(run.godwit.measure(window)?.mpps);
                continue;
            }
            let before = run.godwit.reading()?;
            run.stream(rate, MOVING, Instant::now() + window)?;
            let after = run.godwit.reading()?;
            let seconds = (after.at - before.at).as_secs_f64();
            with.0.push((after.sent - before.sent) as f64 / seconds / 1e6);
            applied.push((after.updates - before.updates) as f64 / seconds);
            std::thread::sleep(SETTLE);
            run.settle_acks();
        }
    }
    let ack_us = percentiles(&mut run.acks);
    let growth = grow(&mut run, rate, window)?;
    Ok(Outcome {
        asked_per_second: rate,
        applied_per_second: median(&applied),
        with_over_without: with.ratio(&without),
        without_mpps: without,
        with_mpps: with,
        ack_us,
        growth,
    })
}

fn percentiles(all: &mut [Duration]) -> Option<[f64; 3]> {
    all.sort_unstable();
    let us = |d: &Duration| d.as_secs_f64() * 1e6;
    let at = |share: f64| all.get((share * all.len() as f64) as usize).map(us);
    Some([at(0.5)?, at(0.99)?, all.last().map(us)?])
}

/// From what moved to a million entries, as fast as updates come.
fn grow(run: &mut Run, rate: u32, window: Duration) -> Result<Growth> {
    let before_mpps = run.godwit.measure(window)?.mpps;
    let (start, mut during) = (Instant::now(), Rates::default());
    let mut last = run.godwit.reading()?;
    let step = (rate / 4).max(1);
    for vm in MOVING..GROWN {
        run.move_vm(vm, vm % step == 0)?;
        if vm % step == 0 {
            let due = start + Duration::from_secs_f64(f64::from(vm - MOVING) / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let now = run.godwit.reading()?;
            during.0.push((now.sent - last.sent) as f64 / (now.at - last.at).as_secs_f64() / 1e6);
            last = now;
        }
    }
    let give_up = Instant::now() + Duration::from_secs(120);
    let mut entries = run.godwit.locations()?;
    while entries < u64::from(GROWN) && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(50));
        entries = run.godwit.locations()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let slowest_mpps = during.0.iter().copied().min_by(f64::total_cmp);
    std::thread::sleep(SETTLE);
    let after_mpps = run.godwit.measure(window)?.mpps;
    Ok(Growth { entries, seconds, before_mpps, during_mpps: during.median(), slowest_mpps, after_mpps })
}

impl Outcome {
    /// As people read it.
    pub fn text(&self) -> String {
        let or = |v: Option<f64>, digits: usize| v.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"));
        let [p50, p99, max] = self.ack_us.unwrap_or_default();
        let g = &self.growth;
        format!(
            "updates by the NVA's session: {} a second sent, {} applied; {} Mpps without, {} with, ratio {}\n\
             update to acknowledgement: median {p50:.0} us, 99 % {p99:.0} us, longest {max:.0} us\n\
             growing to {} entries in {:.1} s: {:.2} Mpps before, {} during (slowest window {}), {:.2} after",
            self.asked_per_second,
            or(self.applied_per_second, 0),
            or(self.without_mpps.median(), 2),
            or(self.with_mpps.median(), 2),
            or(self.with_over_without, 3),
            g.entries,
            g.seconds,
            g.before_mpps,
            or(g.during_mpps, 2),
            or(g.slowest_mpps, 2),
            g.after_mpps,
        )
    }
}
