//! The hypervisor's part of a hot move: it orders the move, prepares the new host, pauses the guest
//! at the old one and lets it go on at the new one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_nva_api::v1::admin_request::Kind as Ask;
use godwit_nva_api::v1::{
    MoveMode, MoveName, MovePhase, MoveRecord, MoveStepKind, PausePort, StartMoveRequest,
};

use crate::agent::proto::Gap;
use crate::clock::{ms, now_ns, wall_us};
use crate::guest::migrate::Migration;
use crate::guest::qemu::Nic;
use crate::lab::guests::VhostPort;
use crate::lab::rpc::is_unreachable;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, nve::Nva};

/// How long each part of a move may take; the NVA may be away for a while.
const PATIENCE: Duration = Duration::from_secs(20);
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
    /// The NVA's record when the move was final; [`Moved::refresh`] reads it again.
    pub record: MoveRecord,
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
}

impl Moved {
    /// The move was carried out, not called off.
    pub fn done(&self) -> bool {
        self.record.phase() == MovePhase::Done
    }

    /// How long the guest stood still.
    pub fn pause_ms(&self) -> f64 {
        self.paused.map_or(0.0, |p| ms(p.to_ns - p.from_ns))
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

/// Moves a running VM to another switch while its traffic runs.
///
/// # Errors
/// Where a step fails; a move that the NVA calls off before the guest was paused is no error but a
/// record that says so.
pub fn hot_move(lab: &mut Lab, vm: &str, to: &str, id: &str) -> Result<Moved> {
    let old = lab.vm(vm)?.attached.clone().with_context(|| format!("VM {vm} is attached nowhere"))?;
    let order = StartMoveRequest { vm: vm.into(), to: to.into(), mode: MoveMode::Hot.into(), id: id.into() };
    let mut parts = vec![("ordering the move", now_ns())];
    let ordered = patiently(|| lab.nva.operator.start_move(order.clone()))?;
    parts.push(("adding the port at the new NVE", now_ns()));
    let new = lab.plug(vm, to)?;
    parts.push(("waiting for both NVEs to be prepared", now_ns()));
    let mut moved = Moved {
        id: ordered.id.clone(),
        from: old.nve.clone(),
        to: to.into(),
        paused: None,
        paused_wall_us: 0,
        parts,
        drained: true,
        record: ordered,
    };
    moved.record = wait_phase(lab, &moved.id, |p| p >= MovePhase::Prepared)?;
    if is_called_off(&moved.record) {
        lab.unplug(&new)?;
        return Ok(moved);
    }

    moved.parts.push(("pausing the guest", now_ns()));
    moved.drained = lab.vm(vm)?.pause()?;
    let (from_ns, wall) = (now_ns(), wall_us());
    moved.parts.push(("the guest's pause", from_ns));
    lab.nve(&old.nve)?
        .admin
        .ask(Ask::PausePort(PausePort { name: old.port.clone(), move_id: moved.id.clone() }))?;
    let guest = lab.vm(vm)?;
    guest.attach(&new)?;
    guest.resume(false)?;
    moved.paused = Some(Gap { from_ns, to_ns: now_ns() });
    moved.paused_wall_us = wall;
    moved.parts.push(("waiting for the move to be done", now_ns()));

    moved.record = wait_phase(lab, &moved.id, |p| p >= MovePhase::Done)?;
    moved.parts.push(("removing the port at the old NVE", now_ns()));
    lab.unplug(&old)?;
    moved.parts.push(("", now_ns()));
    Ok(moved)
}

/// Moves a real guest to another switch by QEMU's live migration, while its traffic runs. Returns its new
/// port beside what became of the move and of the migration.
///
/// Nobody tells the switches that the guest pauses: QEMU lets go of the old port when it stops the
/// guest, and announces the guest at the new one.
///
/// # Errors
/// Where a step fails, or the NVA calls the move off.
pub fn migrate_guest(
    lab: &mut Lab,
    spec: &VmSpec,
    old: &VhostPort,
    to: &str,
    id: &str,
) -> Result<(Moved, Migration, VhostPort)> {
    let name = spec.name.as_str();
    let order =
        StartMoveRequest { vm: name.into(), to: to.into(), mode: MoveMode::Hot.into(), id: id.into() };
    let mut parts = vec![("ordering the move", now_ns())];
    let ordered = patiently(|| lab.nva.operator.start_move(order.clone()))?;
    parts.push(("adding the port at the new NVE", now_ns()));
    let new = lab.plug_vhost(spec, to, "")?;
    let destination = lab.guest(name)?.prepare_destination(vec![Nic::new(&new.socket, spec.mac)])?;
    parts.push(("waiting for both NVEs to be prepared", now_ns()));
    let prepared = wait_phase(lab, &ordered.id, |p| p >= MovePhase::Prepared)?;
    if is_called_off(&prepared) {
        bail!("move {} was called off:\n{}", ordered.id, timeline(&prepared));
    }
    parts.push(("the migration", now_ns()));
    let guest = lab.guest(name)?;
    guest.begin_migration(&destination)?;
    let migration = guest.finish_migration(destination)?;
    parts.push(("waiting for the move to be done", now_ns()));
    let record = wait_phase(lab, &ordered.id, |p| p >= MovePhase::Done)?;
    parts.push(("removing the port at the old NVE", now_ns()));
    lab.unplug_vhost(old)?;
    parts.push(("", now_ns()));
    let (now, wall) = (now_ns(), wall_us());
    // QEMU tells by the wall clock; silences are measured by the other one.
    let at_ns = |us: u64| now.saturating_sub(wall.saturating_sub(us) * 1000);
    let resumed_us = migration.resumed_us.unwrap_or(wall);
    let moved = Moved {
        id: ordered.id,
        from: old.nve.clone(),
        to: to.into(),
        paused: Some(Gap { from_ns: at_ns(migration.stopped_us), to_ns: at_ns(resumed_us) }),
        paused_wall_us: migration.stopped_us,
        parts,
        drained: true,
        record,
    };
    Ok((moved, migration, new))
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
    let line = |s: &godwit_nva_api::v1::MoveStep| {
        let at = s.at_us as f64 / 1000.0 - start as f64 / 1000.0;
        let who = if s.nve.is_empty() { "NVA" } else { &s.nve };
        let what = s.what().as_str_name().trim_start_matches("MOVE_STEP_KIND_").to_lowercase();
        format!("      {at:>9.2} ms  {who:<6} {what} {}\n", s.note)
    };
    record.steps.iter().map(line).collect()
}
