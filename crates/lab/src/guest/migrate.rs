//! Live migration of a guest from one QEMU to another.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::memory::{Difference, Memory};
use super::processor::Processor;
use super::qemu::{MEMORY_FILE, Nic};
use super::qmp::Qmp;
use super::{Booting, Guest};
use crate::agent::client::Agent;
use crate::lab::process::Process;

/// How long a migration may take; less than a second where the guest is quiet.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the guest may take to run at its new place, once all of it is there.
const RESUME_PATIENCE: Duration = Duration::from_secs(70);
/// What a migration that ends as post-copy carries before the guest goes on at its new place: for so long, at so many
/// bytes a second. Both are small, so that most of the memory is missing there at first.
const BEFORE_POSTCOPY: (Duration, u64) = (Duration::from_millis(300), 16 << 20);
/// Bytes a second of it that come unasked afterwards.
const POSTCOPY_BANDWIDTH: u64 = 128 << 20;
/// How often QEMU is asked how far it is.
const POLL: Duration = Duration::from_millis(5);

/// A QEMU that waits for a guest to come in.
pub struct Incoming {
    booting: Booting,
    qmp: Qmp,
    processor: Option<Processor>,
}

/// How a migration went, in QEMU's own words.
#[derive(Clone, Debug, Serialize)]
pub struct Migration {
    /// From the guest's stop here to its readiness there, as QEMU has it, in milliseconds.
    pub downtime_ms: u64,
    /// From the order to the end, in milliseconds.
    pub total_ms: u64,
    /// Bytes carried.
    pub bytes: u64,
    /// Pages that were missing at the new place and asked for, where the migration ended as post-copy.
    pub postcopy_requests: Option<u64>,
    /// When the guest stopped at its old place, by the wall clock, in microseconds since 1970.
    pub stopped_us: u64,
    /// When it went on at its new place; nothing where it waits there for [`Guest::resume`].
    pub resumed_us: Option<u64>,
    /// The pages of its memory whose contents are not the same at both places; nothing where it went on at once, and
    /// changed them.
    pub differences: Option<Vec<Difference>>,
}

impl Guest {
    /// Starts the QEMU that this guest is to go to, with network cards on other ports, which must have the
    /// same properties as the present ones.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn prepare_destination(&self, nics: Vec<Nic>) -> Result<Incoming> {
        ensure!(nics.len() == self.spec.nics.len(), "a guest keeps the number of its network cards");
        let mut spec = self.spec.clone();
        spec.nics = nics;
        let (dir, namespace) = (&self.dir, self.namespace.as_deref());
        let mut booting = Booting::launch(spec, dir, namespace, self.generation + 1, true)?;
        let mut qmp = booting.control()?;
        let processor = watch_processor(&mut qmp)?;
        Ok(Incoming { booting, qmp, processor })
    }

    /// Begins to migrate; the guest goes on meanwhile. Follow with [`Guest::finish_migration`] or
    /// [`Guest::cancel_migration`].
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn begin_migration(&mut self, to: &Incoming) -> Result<()> {
        self.begin(to, false)
    }

    /// Begins to migrate and lets the guest go on at its new place while most of its memory is still at the old one:
    /// whoever touches a page there that is missing, guest or switch, waits for it. Follow with
    /// [`Guest::finish_migration`]; there is no way back.
    ///
    /// # Errors
    /// Where QEMU refuses: it says what the host or the switch lacks.
    pub fn begin_postcopy(&mut self, to: &mut Incoming) -> Result<()> {
        let able = json!({ "capabilities": [
            { "capability": "postcopy-ram", "state": true },
            { "capability": "postcopy-preempt", "state": true },
        ] });
        to.qmp.execute("migrate-set-capabilities", able.clone()).context("at the new place")?;
        self.qmp.execute("migrate-set-capabilities", able)?;
        let (before, bandwidth) = BEFORE_POSTCOPY;
        let limits = json!({ "max-bandwidth": bandwidth, "max-postcopy-bandwidth": POSTCOPY_BANDWIDTH });
        self.qmp.execute("migrate-set-parameters", limits)?;
        self.send_to(to)?;
        self.wait_for("active")?;
        std::thread::sleep(before);
        self.qmp.execute("migrate-start-postcopy", json!({})).map(drop)
    }

    /// Migrates until the guest has stopped and all but the rest of its memory is carried, and not further:
    /// [`Guest::cancel_migration`] follows, and the guest goes on where it is.
    ///
    /// # Errors
    /// Where QEMU refuses, or does not come so far.
    pub fn migrate_half_way(&mut self, to: &mut Incoming) -> Result<()> {
        self.begin(to, true)?;
        self.wait_for("pre-switchover")
    }

    /// Waits until the migration has come so far; a busy machine takes its time.
    fn wait_for(&mut self, stage: &str) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.migration_state()?["status"].as_str() {
                Some(status) if status == stage => return Ok(()),
                Some(status @ ("completed" | "failed" | "cancelled")) => bail!("the migration has {status}"),
                status if Instant::now() > give_up => bail!("the migration stands at {status:?}"),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn begin(&mut self, to: &Incoming, stop_before_end: bool) -> Result<()> {
        // With its usual bounds QEMU spreads even a small guest's memory over seconds, and stops the guest
        // for longer than it has to.
        let limits = json!({ "max-bandwidth": 1_u64 << 32, "downtime-limit": self.downtime_limit_ms });
        self.qmp.execute("migrate-set-parameters", limits)?;
        self.qmp.execute(
            "migrate-set-capabilities",
            json!({
                "capabilities": [
                    { "capability": "events", "state": true },
                    { "capability": "pause-before-switchover", "state": stop_before_end }
                ]
            }),
        )?;
        self.send_to(to)
    }

    fn send_to(&mut self, to: &Incoming) -> Result<()> {
        let uri = format!("unix:{}", to.booting.files.migration.display());
        self.qmp.execute("migrate", json!({ "uri": uri })).map(drop)
    }

    /// Waits until the guest runs at its new place; this value then is the guest there, and the old QEMU
    /// ends. With `paused` the guest waits there for [`Guest::resume`].
    ///
    /// # Errors
    /// Where the migration fails: the guest is at its old place then, and runs if it can.
    pub fn finish_migration(&mut self, to: Incoming) -> Result<Migration> {
        let Incoming { mut booting, mut qmp, processor } = to;
        let state =
            self.wait_migrated(&mut booting).with_context(|| format!("migrating {}", self.spec.name))?;
        let stopped_us = self.qmp.event("STOP", RESUME_PATIENCE)?.at_us;
        let resumed_us = match arrived(&mut qmp)? {
            true => Some(qmp.event("RESUME", RESUME_PATIENCE)?.at_us),
            false => None,
        };
        let differences =
            resumed_us.is_none().then(|| differences(&self.process, &booting.process)).transpose()?;
        let agent = Agent::connect(&booting.files.agent, RESUME_PATIENCE)?;
        if self.process.id().is_none() {
            // Another program started it, so that it is asked to end; its answer may be cut off.
            let _ = self.qmp.execute("quit", json!({}));
        }
        let Booting { spec, process, files, generation, .. } = booting;
        // Each old one goes with its assignment; the old QEMU last.
        (self.spec, self.agent, self.qmp, self.files, self.generation) =
            (spec, agent, qmp, files, generation);
        self.processor = processor;
        // There is nothing left in it that it could save.
        self.process.kill9()?;
        self.process = process;
        let number = |key: &str| state[key].as_u64().unwrap_or(0);
        Ok(Migration {
            downtime_ms: number("downtime"),
            total_ms: number("total-time"),
            bytes: state["ram"]["transferred"].as_u64().unwrap_or(0),
            postcopy_requests: state["ram"]["postcopy-requests"].as_u64().filter(|&n| n > 0),
            stopped_us,
            resumed_us,
            differences,
        })
    }

    /// Migrates the guest to network cards on other ports and waits until it runs there.
    ///
    /// # Errors
    /// See [`Guest::finish_migration`].
    pub fn migrate(&mut self, nics: Vec<Nic>) -> Result<Migration> {
        let destination = self.prepare_destination(nics)?;
        self.begin_migration(&destination)?;
        self.finish_migration(destination)
    }

    /// Calls a migration off; the guest goes on where it is.
    ///
    /// # Errors
    /// Where QEMU refuses, or it was too late: the migration has completed.
    pub fn cancel_migration(&mut self) -> Result<()> {
        self.qmp.execute("migrate_cancel", json!({}))?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.migration_state()?["status"].as_str() {
                Some("cancelled" | "failed") => return Ok(()),
                Some("completed") => bail!("guest {} has migrated already", self.spec.name),
                status if Instant::now() > give_up => bail!("the migration stands at {status:?}"),
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// When the guest last stopped here and went on, by the wall clock, in microseconds since 1970.
    ///
    /// # Errors
    /// Where it did not do both.
    pub fn stop_and_resume(&mut self) -> Result<(u64, u64)> {
        let stopped = self.qmp.event("STOP", RESUME_PATIENCE)?.at_us;
        Ok((stopped, self.qmp.event("RESUME", RESUME_PATIENCE)?.at_us))
    }

    /// QEMU's answer to `query-migrate`.
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn migration_state(&mut self) -> Result<Value> {
        self.qmp.execute("query-migrate", json!({}))
    }

    fn wait_migrated(&mut self, destination: &mut Booting) -> Result<Value> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            self.process.check()?;
            let state = self.migration_state()?;
            match state["status"].as_str() {
                // The figures follow the word.
                Some("completed") if state["total-time"].as_u64() > Some(0) => return Ok(state),
                Some("failed" | "cancelled") => {
                    destination.process.check()?;
                    bail!("QEMU says {}: {}", state["status"], state["error-desc"])
                }
                status if Instant::now() > give_up => bail!("it stands at {status:?} after {PATIENCE:?}"),
                _ => std::thread::sleep(POLL),
            }
        }
    }
}

/// The pages that are not the same in both QEMUs, in neither of which the guest runs.
fn differences(old: &Process, new: &Process) -> Result<Vec<Difference>> {
    let memory = |process: &Process| Memory::of(process.id().context("QEMU is not ours")?, MEMORY_FILE);
    memory(old)?.differences(&memory(new)?).context("comparing the guest's memory at both places")
}

/// Watches the processor of a guest that is to come, if it has but one.
fn watch_processor(qmp: &mut Qmp) -> Result<Option<Processor>> {
    let all = qmp.execute("query-cpus-fast", json!({}))?;
    match all.as_array().map(Vec::as_slice) {
        Some([one]) => {
            let thread =
                one["thread-id"].as_u64().context("QEMU does not say which thread its processor is")?;
            Processor::watch(thread).map(Some)
        }
        _ => Ok(None),
    }
}

/// Waits until a guest that came in is whole; whether it runs.
fn arrived(qmp: &mut Qmp) -> Result<bool> {
    let give_up = Instant::now() + RESUME_PATIENCE;
    loop {
        let state = qmp.execute("query-status", json!({}))?["status"].clone();
        match state.as_str() {
            Some("running") => return Ok(true),
            Some("paused") => return Ok(false),
            _ if Instant::now() > give_up => {
                bail!("the new QEMU stands at {state} after {RESUME_PATIENCE:?}")
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

impl Incoming {
    /// Lets the guest wait at its new place for [`Guest::resume`] instead of running at once: what a
    /// destination under pressure looks like.
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn hold(&mut self) -> Result<()> {
        // A stop before the guest is there is remembered: it comes in stopped.
        self.qmp.execute("stop", json!({})).map(drop)
    }
}
