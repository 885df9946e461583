//! The hypervisor's part of a hot move: it orders the move, prepares the new host, pauses the guest
//! at the old one and lets it go on at the new one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::{
    MoveMode, MoveName, MovePhase, MoveRecord, MoveStepKind, PausePort, StartMoveRequest, WorkerPerf,
};
use serde::Serialize;

use crate::agent::proto::{Gap, Request};
use crate::clock::{ms, now_ns, wall_us};
use crate::gap::FrameGap;
use crate::guest::migrate::Migration;
use crate::guest::processor::{Processor, Work};
use crate::guest::qemu::Nic;
use crate::lab::guests::{Placed, VhostPort};
use crate::lab::rpc::is_unreachable;
use crate::lab::{Lab, nve::Nva};

/// How long each part of a move may take; the NVA may be away for a while, and a process stand still for a minute.
const PATIENCE: Duration = Duration::from_secs(90);
/// The last packets of VMs within a VM have left it by then.
const INNER_DRAIN: Duration = Duration::from_millis(20);
/// How long it may take a living NVA to hear of a pause.
const HEARS: Duration = Duration::from_millis(500);
/// How often the lab looks whether a move has come further.
const POLL: Duration = Duration::from_millis(4);

/// How a move went.
#[derive(Clone, Debug)]
pub struct Moved {
    /// The move's name.
    pub id: String,
    /// The old NVE.
    pub from: String,
    /// The new NVE.
    pub to: String,
    /// From the guest standing still to the guest going on, by the monotonic clock; nothing where
    /// the move was called off before.
    pub paused: Option<Gap>,
    /// When the guest stood still, by the wall clock that timelines are written in.
    pub paused_wall_us: u64,
    /// What the hypervisor did when, by the monotonic clock: each entry is the beginning of a part.
    pub parts: Vec<(&'static str, u64)>,
    /// The switch had taken everything that the guest had sent before it paused.
    pub drained: bool,
    /// QEMU's own figures, where it was QEMU that moved the VM.
    pub migration: Option<Migration>,
    /// The longest iteration of each worker of the new switch during a post-copy migration, by core.
    pub longest: Vec<Longest>,
    /// The silence at the VM's peer that belongs to the move, by the monotonic clock; for the caller to find.
    pub gap: Option<Gap>,
    /// What the VM's processor did from its first moment at the new NVE to the end of that; for the caller to find.
    pub work: Option<Work>,
    /// The same of all frames, taken apart; for the caller to find.
    pub frames: Option<FrameGap>,
    /// The NVA's record when the move was final; [`Moved::refresh`] reads it again.
    pub record: MoveRecord,
    /// What `godwitctl move show` says of it, for the caller to ask.
    pub shown: String,
}

/// The longest iteration of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Longest {
    /// The worker's core.
    pub core: u32,
    /// It polls the VM's port.
    pub polls_v: bool,
    /// In milliseconds; a preemption counts.
    pub ms: f64,
}

/// What the NVEs of a move held and forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets held.
    pub held: u64,
    /// Packets forwarded in flight.
    pub forwarded: u64,
    /// Packets given up.
    pub dropped: u64,
    /// The most memory that held packets took, in bytes.
    pub peak_bytes: u64,
}

impl Moved {
    /// The move was carried out, not called off.
    pub fn done(&self) -> bool {
        self.record.phase() == MovePhase::Done
    }

    /// From now on the hypervisor does this.
    fn part(&mut self, what: &'static str) {
        self.parts.push((what, now_ns()));
    }

    /// Waits until both NVEs are prepared; true where the move was called off instead.
    fn prepared(&mut self, lab: &mut Lab) -> Result<bool> {
        self.part("waiting for both NVEs to be prepared");
        self.record = wait_phase(lab, &self.id, |p| p >= MovePhase::Prepared)?;
        Ok(is_called_off(&self.record))
    }

    /// How long the guest stood still.
    pub fn pause_ms(&self) -> f64 {
        self.paused.map_or(0.0, |p| ms(p.to_ns - p.from_ns))
    }

    /// What the VM's processor did from its first moment at the new NVE to the end of the silence at the peer.
    pub fn work_in_gap(&self, processor: &Processor) -> Option<Work> {
        let (paused, gap) = (self.paused?, self.gap?);
        // Its books are kept by the wall clock.
        let wall_us = |ns: u64| self.paused_wall_us + ns.saturating_sub(paused.from_ns) / 1000;
        let (resumed, end) = (wall_us(paused.to_ns), wall_us(gap.to_ns));
        processor.between(resumed.min(end), end)
    }

    /// From the pause to the first step of this kind, in milliseconds.
    pub fn ms_to(&self, kind: MoveStepKind) -> Option<f64> {
        let at = self.record.steps.iter().find(|s| s.what() == kind)?.at_us;
        (self.paused_wall_us > 0).then(|| (at as f64 - self.paused_wall_us as f64) / 1000.0)
    }

    /// What the old NVE, or the new one, did with packets of the guest.
    pub fn carried(&self, by_old: bool) -> Carried {
        let nve = if by_old { &self.from } else { &self.to };
        let counts = self.record.counts.iter().find(|c| c.nve == *nve).and_then(|c| c.counts);
        counts.map_or_else(Carried::default, |c| Carried {
            held: c.held,
            forwarded: c.forwarded,
            dropped: c.dropped,
            peak_bytes: c.peak_bytes,
        })
    }

    /// What the hypervisor did at a time; nothing outside of the move.
    pub fn part_at(&self, at_ns: u64) -> Option<&'static str> {
        let after = self.parts.partition_point(|p| p.1 <= at_ns);
        let part = self.parts.get(after.checked_sub(1)?)?.0;
        (!part.is_empty()).then_some(part)
    }

    /// Reads the record again: NVEs go on counting after the end.
    ///
    /// # Errors
    /// Where the NVA does not answer.
    pub fn refresh(&mut self, nva: &Nva) -> Result<()> {
        self.record = nva.operator.show_move(MoveName { id: self.id.clone() })?;
        Ok(())
    }
}

/// Repeats a call while the NVA cannot be reached.
///
/// # Errors
/// Where it refuses, or stays away.
pub fn patiently<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(e) if is_unreachable(&e) && Instant::now() < give_up => sleep(POLL),
            result => return result,
        }
    }
}

/// What is special about a move.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// The VM stands still for so long at the new host before it runs there.
    pub pause_destination: Duration,
    /// The hypervisor gives up when the VM has stopped at the old host; it goes on there.
    pub abort: bool,
    /// The VM runs at the new host while most of its memory is still at the old one; QEMU's guests only.
    pub postcopy: bool,
    /// The VM says nothing of itself at its new host: namespaces only, since QEMU always does.
    pub silent: bool,
}

/// Moves a running VM to another switch while its traffic runs, whatever it is made of.
///
/// # Errors
/// Where a step fails; a move that the NVA calls off before the guest was paused is no error but a
/// record that says so.
pub fn hot_move(lab: &mut Lab, vm: &str, to: &str, id: &str, how: How) -> Result<Moved> {
    let mut begun = begin(lab, vm, to, id)?;
    if let Some(placed) = lab.placed.get(vm).cloned() {
        let (moved, port) = migrate(lab, &placed, begun, how)?;
        if let (Some(port), Some(placed)) = (port, lab.placed.get_mut(vm)) {
            placed.port = port;
        }
        return Ok(moved);
    }
    let old = lab.vm(vm)?.attached.clone().with_context(|| format!("VM {vm} is attached nowhere"))?;
    begun.part("adding the port at the new NVE");
    let new = lab.plug(vm, to)?;
    if begun.prepared(lab)? {
        lab.unplug(&new)?;
        return Ok(begun);
    }
    begun.part("pausing the guest");
    run_inner(lab, vm, &Request::Pause)?;
    begun.drained = lab.vm(vm)?.pause()?;
    let (from_ns, wall) = (now_ns(), wall_us());
    begun.part("the guest's pause");
    lab.nve(&old.nve)?
        .admin
        .ask(Ask::PausePort(PausePort { name: old.port.clone(), move_id: begun.id.clone() }))?;
    if how.abort {
        await_pause(lab, &begun.id);
        call_off(lab, &begun.id)?;
    } else {
        lab.vm(vm)?.attach(&new)?;
        sleep(how.pause_destination);
    }
    if how.silent {
        lab.vm(vm)?.resume_silently()?;
    } else {
        lab.vm(vm)?.resume(false)?;
    }
    run_inner(lab, vm, &Request::Run)?;
    begun.paused = Some(Gap::between(from_ns, now_ns()));
    begun.paused_wall_us = wall;
    begun.part("waiting for the move to be over");
    begun.record = wait_phase(lab, &begun.id, |p| p >= MovePhase::Done)?;
    begun.part("removing the port at the old NVE");
    lab.unplug(if how.abort { &new } else { &old })?;
    begun.part("");
    Ok(begun)
}

/// Lets the VMs within a VM stand still, or run.
fn run_inner(lab: &mut Lab, vm: &str, order: &Request) -> Result<()> {
    let inner = lab.inner.get(vm).cloned().unwrap_or_default();
    for name in &inner {
        lab.vm(name)?.agent.order(order)?;
    }
    if !inner.is_empty() && matches!(order, Request::Pause) {
        // What they sent is on its way through the bridge of the outer one, where nobody counts it.
        sleep(INNER_DRAIN);
    }
    Ok(())
}

/// Orders a move.
fn begin(lab: &mut Lab, vm: &str, to: &str, id: &str) -> Result<Moved> {
    let from = lab.place_of(vm)?;
    let order = StartMoveRequest {
        vm: vm.into(),
        to: to.into(),
        mode: MoveMode::Hot.into(),
        id: id.into(),
        ..Default::default()
    };
    let parts = vec![("ordering the move", now_ns())];
    let record = patiently(|| lab.nva.operator.start_move(order.clone()))?;
    Ok(Moved {
        id: record.id.clone(),
        from,
        to: to.into(),
        paused: None,
        paused_wall_us: 0,
        parts,
        drained: true,
        migration: None,
        longest: Vec::new(),
        gap: None,
        work: None,
        frames: None,
        record,
        shown: String::new(),
    })
}

/// The NVA has heard that the VM stands still, if it is there: what it is told next comes by another way, and might
/// come first.
fn await_pause(lab: &Lab, id: &str) {
    let give_up = Instant::now() + HEARS;
    while Instant::now() < give_up {
        match lab.nva.operator.show_move(MoveName { id: id.into() }) {
            Ok(record) if record.phase() < MovePhase::Paused => sleep(POLL),
            _ => return,
        }
    }
}

fn call_off(lab: &Lab, id: &str) -> Result<()> {
    patiently(|| lab.nva.operator.abort_move(MoveName { id: id.into() })).map(drop)
}

/// Moves a real guest to another switch by QEMU's live migration. Returns its new port, where it has one, beside
/// what became of the move.
///
/// Nobody tells the switches that the guest pauses: QEMU lets go of the old port when it stops the
/// guest, and announces the guest at the new one.
fn migrate(lab: &mut Lab, placed: &Placed, mut begun: Moved, how: How) -> Result<(Moved, Option<VhostPort>)> {
    let (spec, old) = (&placed.spec, &placed.port);
    let name = spec.name.as_str();
    begun.part("adding the port at the new NVE");
    let queues = lab.guest(name)?.spec.nics.iter().map(|nic| nic.queues).max().unwrap_or(1);
    let new = lab.plug_vhost(spec, &begun.to, queues, how.postcopy)?;
    let guest = lab.guest(name)?;
    // The same card at another socket.
    let nics = guest.spec.nics.iter().map(|nic| Nic { socket: new.socket.clone(), ..nic.clone() }).collect();
    let mut destination = guest.prepare_destination(nics)?;
    if begun.prepared(lab)? {
        drop(destination);
        lab.unplug_vhost(&new)?;
        return Ok((begun, None));
    }
    begun.part("the migration");
    let (stopped_us, resumed_us) = if how.abort {
        let guest = lab.guest(name)?;
        guest.migrate_half_way(&mut destination)?;
        guest.cancel_migration()?;
        let times = guest.stop_and_resume()?;
        drop(destination);
        call_off(lab, &begun.id)?;
        times
    } else {
        if how.pause_destination > Duration::ZERO {
            destination.hold()?;
        }
        if how.postcopy {
            lab.nve(&begun.to)?.admin.perf(true)?;
            let guest = lab.guest(name)?;
            guest.begin_postcopy(&mut destination)?;
        } else {
            lab.guest(name)?.begin_migration(&destination)?;
        }
        let migration = lab.guest(name)?.finish_migration(destination)?;
        if how.postcopy {
            begun.longest = longest(lab, &new)?;
        }
        let resumed_us = match migration.resumed_us {
            Some(at) => at,
            None => {
                let stood = Duration::from_micros(wall_us().saturating_sub(migration.stopped_us));
                sleep(how.pause_destination.saturating_sub(stood));
                lab.guest(name)?.resume()?;
                wall_us()
            }
        };
        let stopped_us = migration.stopped_us;
        begun.migration = Some(migration);
        (stopped_us, resumed_us)
    };
    begun.part("waiting for the move to be over");
    begun.record = wait_phase(lab, &begun.id, |p| p >= MovePhase::Done)?;
    begun.part("removing the port at the old NVE");
    lab.unplug_vhost(if how.abort { &new } else { old })?;
    begun.part("");
    let (now, wall) = (now_ns(), wall_us());
    // QEMU tells by the wall clock; silences are measured by the other one.
    let at_ns = |us: u64| now.saturating_sub(wall.saturating_sub(us) * 1000);
    begun.paused = Some(Gap::between(at_ns(stopped_us), at_ns(resumed_us)));
    begun.paused_wall_us = stopped_us;
    Ok((begun, (!how.abort).then_some(new)))
}

/// How long each worker of a port's switch was in one iteration at most.
fn longest(lab: &mut Lab, port: &VhostPort) -> Result<Vec<Longest>> {
    let of = |w: &WorkerPerf| Longest {
        core: w.core,
        polls_v: w.queues.iter().any(|q| q.port == port.port),
        ms: w.iterations.as_ref().map_or(0.0, |d| ms(d.max_ns)),
    };
    Ok(lab.nve(&port.nve)?.admin.perf(false)?.iter().map(of).collect())
}

fn is_called_off(record: &MoveRecord) -> bool {
    matches!(record.phase(), MovePhase::Aborted | MovePhase::Failed)
}

/// Waits until the move has come so far, or is final.
fn wait_phase(lab: &mut Lab, id: &str, reached: impl Fn(MovePhase) -> bool) -> Result<MoveRecord> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let record = patiently(|| lab.nva.operator.show_move(MoveName { id: id.into() }))?;
        if is_called_off(&record) || reached(record.phase()) {
            return Ok(record);
        }
        if Instant::now() > give_up {
            lab.check_processes()?;
            bail!(
                "move {id} stands at {} after {PATIENCE:?}:\n{}",
                record.phase().as_str_name(),
                timeline(&record)
            );
        }
        sleep(POLL);
    }
}

/// A move's steps, a line each, relative to the first.
pub fn timeline(record: &MoveRecord) -> String {
    let start = record.steps.first().map_or(0, |s| s.at_us);
    let line = |s: &godwit_api::v1::MoveStep| {
        let at = s.at_us as f64 / 1000.0 - start as f64 / 1000.0;
        let who = if s.nve.is_empty() { "NVA" } else { &s.nve };
        let what = s.what().as_str_name().trim_start_matches("MOVE_STEP_KIND_").to_lowercase();
        format!("      {at:>9.2} ms  {who:<6} {what} {}\n", s.note)
    };
    record.steps.iter().map(line).collect()
}
