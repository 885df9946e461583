//! Locations that change, and a table that grows from nothing, while a worker is under full load.
//!
//! The updates come by the switch's session with its NVA, through its control and its workers'
//! mailboxes; the directory at the other end runs in this program. The time from an update to its effect
//! is the switch's own record (`godwitctl perf`): from the moment control hands it to the worker until an
//! iteration later. An acknowledgement says that all workers have applied what came before it, so from sending
//! to acknowledgement is an upper bound that has the session both ways in it, and the millisecond in which
//! control looks at its workers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_api::v1;
use serde::Serialize;

use crate::directory::{Book, Directory};
use crate::ends::{Ends, REMOTE_VM, VNI};
use crate::godwit::Godwit;
use crate::peer::{Peer, SETTLE, Site};
use crate::plan::{self, Row};
use crate::stats::{Rates, median};
use crate::stillness::{self, Gaps};
use crate::{godwit, memory};

/// Where the directories serve, in the namespace: one runs until the program ends.
const REPLACING: &str = "127.0.0.1:6641";
const GROWING: &str = "127.0.0.1:6642";
/// VMs that move around, those that traffic goes to among them.
const MOVING: u32 = 100_000;
/// Entries that the table grows to.
const GROWN: u32 = 1_000_000;
/// Updates are sent in so many portions a second, each with an acknowledgement asked for.
const PORTIONS: u32 = 1000;

/// What the worker's own record says of a stretch of time.
#[derive(Debug, Serialize)]
pub struct Record {
    /// From update to effect, in microseconds: median, 99th percentile, maximum.
    pub effect_us: [f64; 3],
    /// The length of a busy iteration, in microseconds: median, 99th percentile, maximum.
    pub iteration_us: [f64; 3],
    /// Iterations of more than 200 us.
    pub long: u64,
    /// Those that would have been long without the worker's absence, too: by the switch itself, or by what
    /// neither system nor hypervisor counts.
    pub long_own: u64,
    /// The most that the worker itself took in one of the last 32 of a window, in microseconds.
    pub longest_own_us: f64,
    /// Those of `long_own`, window by window: what the switch itself does comes back in each, what the machine does
    /// comes and goes.
    pub long_own_by_window: Vec<u64>,
    /// Orders in those of the last 32 of a window: what an iteration does besides a burst of frames.
    pub long_own_orders: Vec<u64>,
}

impl Record {
    fn of(w: &v1::WorkerPerf) -> Record {
        let us = |d: &Option<v1::Durations>| {
            let d = d.clone().unwrap_or_default();
            [d.p50_ns, d.p99_ns, d.max_ns].map(|ns| ns as f64 / 1e3)
        };
        let own = w.long.iter().map(|l| l.ns.saturating_sub(l.away_ns));
        let orders = w
            .long
            .iter()
            .zip(own.clone())
            .filter(|(_, own)| u128::from(*own) > stillness::LONG.as_nanos())
            .map(|(l, _)| l.orders);
        Record {
            effect_us: us(&w.mailbox),
            iteration_us: us(&w.iterations),
            long: w.long_count,
            long_own: w.long_own_count,
            longest_own_us: own.max().unwrap_or(0) as f64 / 1e3,
            long_own_by_window: vec![w.long_own_count],
            long_own_orders: orders.collect(),
        }
    }

    fn text(&self) -> String {
        let [p50, p99, max] = self.effect_us;
        let [i50, i99, imax] = self.iteration_us;
        format!(
            "update to effect: median {p50:.0} us, 99 % {p99:.0} us, longest {max:.0} us; \
             iterations: median {i50:.1} us, 99 % {i99:.1} us, longest {imax:.0} us, {} over 200 us, {} of \
             these by the worker's own work (longest {:.0} us of it), by window: {}; orders in them: {}",
            self.long,
            self.long_own,
            self.longest_own_us,
            stillness::listed(&self.long_own_by_window),
            stillness::listed(&self.long_own_orders)
        )
    }
}

/// Rates around a table that grows.
#[derive(Debug, Serialize)]
pub struct Growth {
    /// Entries in the end.
    pub entries: u64,
    /// How long it took.
    pub seconds: f64,
    /// The worker's record from the first entry to the last.
    pub record: Record,
    /// Millions of frames a second before.
    pub before_mpps: f64,
    /// While it grew, the median of windows.
    pub during_mpps: Option<f64>,
    /// Of those windows the slowest.
    pub slowest_mpps: Option<f64>,
    /// After.
    pub after_mpps: f64,
    /// What the machine did to a thread on the worker's core, as long before and after together.
    pub machine: Gaps,
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
    /// The worker's record of the windows with updates.
    pub record: Record,
    /// The record of as many windows without.
    pub record_without: Record,
    /// What the machine did to a thread on the worker's core in as many windows among them, the switch stopped.
    pub machine: Gaps,
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
    fn start(site: &Site, address: &str) -> Result<Run> {
        let mut row = plan::select(&[], "encap-v4/60/1000")?[0];
        row.nves = 256;
        let ends = Ends::new(row, site)?;
        memory::reserve(godwit::memory_mb(&ends))?;
        let directory = Directory::serve(&site.namespace, address.parse()?, Book::default())?;
        let godwit = Godwit::start_listening(site, &ends, &format!("http://{address}"))?;
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
        run.godwit.perf(true)?;
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

/// Measures `rounds` windows with and without updates and of what the machine does, then lets the table grow.
///
/// # Errors
/// Where the switch does not start or loses its session.
pub fn measure(site: &Site, rate: u32, rounds: u32, window: Duration) -> Result<Outcome> {
    // What sends the updates shall not take the worker's core.
    stillness::stay_on(site.cores.main())?;
    let mut run = Run::start(site, REPLACING)?;
    // All that will move is known before: replacing is measured here, growing below.
    let end = Instant::now() + Duration::from_secs_f64(f64::from(MOVING) / f64::from(rate));
    run.stream(rate, MOVING, end)?;
    run.settle_acks();
    run.acks.clear();
    let mut seen = Seen::default();
    for round in 0..rounds as usize {
        let mut windows = [Window::With, Window::Without, Window::Machine];
        windows.rotate_left(round % 3);
        for of in windows {
            std::thread::sleep(SETTLE);
            run.godwit.perf(true)?;
            seen.window(&mut run, site, of, rate, window)?;
        }
    }
    let ack_us = percentiles(&mut run.acks);
    drop(run);
    let half = Duration::from_secs_f64(f64::from(GROWN) / f64::from(rate) / 2.0);
    let still = alone(site, half)?;
    let mut growth = grow(&mut Run::start(site, GROWING)?, rate, window)?;
    growth.machine = still.and(alone(site, half)?);
    Ok(Outcome {
        asked_per_second: rate,
        applied_per_second: median(&seen.applied),
        with_over_without: seen.with.ratio(&seen.without),
        without_mpps: seen.without,
        with_mpps: seen.with,
        ack_us,
        record: seen.record_with.sum(),
        record_without: seen.record_without.sum(),
        machine: seen.machine,
        growth,
    })
}

/// What a window is for.
#[derive(Clone, Copy)]
enum Window {
    With,
    Without,
    Machine,
}

/// What the windows showed so far.
#[derive(Default)]
struct Seen {
    without: Rates,
    with: Rates,
    applied: Vec<f64>,
    record_without: Parts,
    record_with: Parts,
    machine: Gaps,
}

impl Seen {
    /// One window; the worker's record began with it.
    fn window(&mut self, run: &mut Run, site: &Site, of: Window, rate: u32, window: Duration) -> Result<()> {
        match of {
            Window::Without => {
                self.without.0.push(run.godwit.measure(window)?.mpps);
                self.record_without.add(run.godwit.perf(false)?);
            }
            Window::With => {
                let before = run.godwit.reading()?;
                run.stream(rate, MOVING, Instant::now() + window)?;
                let after = run.godwit.reading()?;
                let seconds = (after.at - before.at).as_secs_f64();
                self.with.0.push((after.sent - before.sent) as f64 / seconds / 1e6);
                self.applied.push((after.updates - before.updates) as f64 / seconds);
                self.record_with.add(run.godwit.perf(false)?);
                std::thread::sleep(SETTLE);
                run.settle_acks();
            }
            Window::Machine => {
                run.godwit.run(false)?;
                let gaps = alone(site, window);
                run.godwit.run(true)?;
                self.machine = std::mem::take(&mut self.machine).and(gaps?);
            }
        }
        Ok(())
    }
}

/// The gaps of a thread that has the worker's core for itself.
fn alone(site: &Site, window: Duration) -> Result<Gaps> {
    let core = *site.cores.workers(1).first().context("a machine has a core")?;
    stillness::watch(core, site.cores.main(), window)
}

/// Records of several windows: the worst of each figure.
#[derive(Default)]
struct Parts(Vec<Record>);

impl Parts {
    fn add(&mut self, w: v1::WorkerPerf) {
        self.0.push(Record::of(&w));
    }

    fn sum(self) -> Record {
        let worst = |of: fn(&Record) -> f64| self.0.iter().map(of).fold(0.0, f64::max);
        Record {
            effect_us: [worst(|r| r.effect_us[0]), worst(|r| r.effect_us[1]), worst(|r| r.effect_us[2])],
            iteration_us: [
                worst(|r| r.iteration_us[0]),
                worst(|r| r.iteration_us[1]),
                worst(|r| r.iteration_us[2]),
            ],
            long: self.0.iter().map(|r| r.long).sum(),
            long_own: self.0.iter().map(|r| r.long_own).sum(),
            longest_own_us: worst(|r| r.longest_own_us),
            long_own_by_window: self.0.iter().map(|r| r.long_own).collect(),
            long_own_orders: self.0.iter().flat_map(|r| r.long_own_orders.iter().copied()).collect(),
        }
    }
}

fn percentiles(all: &mut [Duration]) -> Option<[f64; 3]> {
    all.sort_unstable();
    let us = |d: &Duration| d.as_secs_f64() * 1e6;
    let at = |share: f64| all.get((share * all.len() as f64) as usize).map(us);
    Some([at(0.5)?, at(0.99)?, all.last().map(us)?])
}

/// From traffic's destinations to a million entries, as fast as updates come. The worker's record began when
/// there were none but traffic's destinations.
fn grow(run: &mut Run, rate: u32, window: Duration) -> Result<Growth> {
    let traffic = run.row.destinations;
    let before_mpps = run.godwit.measure(window)?.mpps;
    run.godwit.perf(true)?;
    let (start, mut during) = (Instant::now(), Rates::default());
    let mut last = run.godwit.reading()?;
    let step = (rate / 4).max(1);
    for vm in traffic..GROWN {
        run.move_vm(vm, vm % step == 0)?;
        if vm % step == 0 {
            let due = start + Duration::from_secs_f64(f64::from(vm - traffic) / f64::from(rate));
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
    let record = Record::of(&run.godwit.perf(false)?);
    let slowest_mpps = during.0.iter().copied().min_by(f64::total_cmp);
    std::thread::sleep(SETTLE);
    let after_mpps = run.godwit.measure(window)?.mpps;
    Ok(Growth {
        entries,
        seconds,
        record,
        before_mpps,
        during_mpps: during.median(),
        slowest_mpps,
        after_mpps,
        machine: Gaps::default(),
    })
}

impl Outcome {
    /// As people read it.
    pub fn text(&self) -> String {
        let or = |v: Option<f64>, digits: usize| v.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"));
        let [p50, p99, max] = self.ack_us.unwrap_or_default();
        let g = &self.growth;
        format!(
            "updates by the NVA's session: {} a second sent, {} applied; {} Mpps without, {} with, ratio {}\n\
             with updates: {}\n\
             without: {}\n\
             {}\n\
             update to acknowledgement: median {p50:.0} us, 99 % {p99:.0} us, longest {max:.0} us\n\
             growing from nothing to {} entries in {:.1} s: {:.2} Mpps before, {} during (slowest window {}), {:.2} \
             after\n\
             while growing: {}\n\
             {}",
            self.asked_per_second,
            or(self.applied_per_second, 0),
            or(self.without_mpps.median(), 2),
            or(self.with_mpps.median(), 2),
            or(self.with_over_without, 3),
            self.record.text(),
            self.record_without.text(),
            self.machine.text(),
            g.entries,
            g.seconds,
            g.before_mpps,
            or(g.during_mpps, 2),
            or(g.slowest_mpps, 2),
            g.after_mpps,
            g.record.text(),
            g.machine.text(),
        )
    }
}
