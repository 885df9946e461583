//! Real guests: a Linux kernel of its own under QEMU, its network cards on the switches' vhost-user
//! ports, driven by the same agent as the VMs that are namespaces.
//!
//! QEMU emulates the processor (TCG), so that this works inside any virtual machine; a guest is up in
//! a few seconds. [`kernel`] has the kernel, [`image`] builds the root file system, [`qemu`] the command
//! line, [`qmp`] speaks with QEMU; [`Guest`] is one that runs, [`migrate`] moves it, [`memory`] sees
//! whether all of it came, and [`processor`] says how busy it is then.

pub mod cpio;
pub mod image;
pub mod kernel;
pub mod memory;
pub mod migrate;
pub mod processor;
pub mod qemu;
pub mod qmp;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use self::image::Image;
use self::kernel::Kernel;
use self::processor::Processor;
use self::qemu::{Files, GuestSpec};
use self::qmp::Qmp;
use crate::agent::client::Agent;
use crate::agent::proto::ExecReport;
use crate::lab::process::{Process, tail};

/// From the start of QEMU to the agent's first word; three seconds on an idle machine, many times that on one that
/// is busy compiling.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);
/// How long a guest may take to switch itself off.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(15);
/// A command in a guest that takes longer hangs.
const COMMAND_PATIENCE: Duration = Duration::from_secs(30);

/// The kernel and the image that most guests use, written to `dir`. More programs and modules go into an
/// [`Image`] of one's own.
///
/// # Errors
/// Where something is missing; says which package has it.
pub fn standard_image(lab: &Path, dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let kernel = Kernel::get()?;
    let path = dir.join("guest.cpio");
    Image::new(&kernel, lab)?.write(&path)?;
    Ok((kernel.image, path))
}

/// A guest that runs. QEMU ends with this value.
pub struct Guest {
    /// What it is made of.
    pub spec: GuestSpec,
    /// The agent in it; see [`Agent::exec`] and [`Guest::sh`].
    pub agent: Agent,
    /// Its QEMU's control socket.
    pub qmp: Qmp,
    /// Its QEMU.
    pub process: Process,
    /// Its files.
    pub files: Files,
    /// A migration stops the guest once QEMU expects to carry the rest in so many milliseconds; a guest
    /// that writes its memory faster than that never gets there.
    pub downtime_limit_ms: u32,
    /// What its processor did since it came to its present place by a migration; a guest with several is not watched.
    pub processor: Option<Processor>,
    dir: PathBuf,
    namespace: Option<String>,
    generation: u32,
}

/// A QEMU that runs, whose guest is not up yet: it boots, or waits for a migration.
pub struct Booting {
    spec: GuestSpec,
    process: Process,
    files: Files,
    dir: PathBuf,
    namespace: Option<String>,
    generation: u32,
}

impl Booting {
    /// Starts QEMU. `dir` gets its sockets and logs; with a namespace it runs in it.
    ///
    /// # Errors
    /// Where QEMU is missing or cannot be started.
    pub fn start(spec: GuestSpec, dir: &Path, namespace: Option<&str>) -> Result<Booting> {
        Booting::launch(spec, dir, namespace, 0, false)
    }

    fn launch(
        spec: GuestSpec,
        dir: &Path,
        namespace: Option<&str>,
        generation: u32,
        incoming: bool,
    ) -> Result<Booting> {
        qemu::ensure_present()?;
        let files = Files::new(dir, &spec.name, generation);
        let command = qemu::command(&spec, &files, namespace, incoming)?;
        let process = Process::start(&process_name(&spec.name, generation), command, dir)?;
        let namespace = namespace.map(str::to_owned);
        Ok(Booting { spec, process, files, dir: dir.into(), namespace, generation })
    }

    fn control(&mut self) -> Result<Qmp> {
        let process = &mut self.process;
        Qmp::connect(&self.files.qmp, || process.check())
    }

    /// Waits until the guest's agent answers.
    ///
    /// # Errors
    /// Where it does not, or QEMU ends; with the end of what the guest's kernel printed.
    pub fn wait_up(mut self) -> Result<Guest> {
        let qmp = self.control()?;
        let mut agent = Agent::connect(&self.files.agent, BOOT_PATIENCE)?;
        let process = &mut self.process;
        agent.wait_up(BOOT_PATIENCE, || process.check()).with_context(|| {
            format!("guest {}; its console:\n{}", self.spec.name, tail(&self.files.console, 25))
        })?;
        let Booting { spec, process, files, dir, namespace, generation } = self;
        Ok(Guest {
            spec,
            agent,
            qmp,
            process,
            files,
            downtime_limit_ms: 20,
            processor: None,
            dir,
            namespace,
            generation,
        })
    }
}

fn process_name(guest: &str, generation: u32) -> String {
    format!("qemu-{guest}-{generation}")
}

impl Guest {
    /// Starts a guest and waits until it is up; [`Booting`] does it in two steps, for several at a time.
    ///
    /// # Errors
    /// See [`Booting::start`] and [`Booting::wait_up`].
    pub fn start(spec: GuestSpec, dir: &Path, namespace: Option<&str>) -> Result<Guest> {
        Booting::start(spec, dir, namespace)?.wait_up()
    }

    /// Takes up a guest that another program started and left: the `generation`th QEMU of it, with its files in `dir`.
    ///
    /// # Errors
    /// Where QEMU or the guest's agent does not answer.
    pub fn adopt(spec: GuestSpec, dir: &Path, namespace: Option<&str>, generation: u32) -> Result<Guest> {
        let process = Process::adopted(&process_name(&spec.name, generation), dir);
        let files = Files::new(dir, &spec.name, generation);
        let namespace = namespace.map(str::to_owned);
        Booting { spec, process, files, dir: dir.into(), namespace, generation }.wait_up()
    }

    /// How many times it has migrated.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Runs a program in the guest to its end.
    ///
    /// # Errors
    /// Where it cannot be started; its own failure is in the report.
    pub fn exec(&mut self, argv: &[&str], timeout: Duration) -> Result<ExecReport> {
        self.agent.exec(argv, timeout).with_context(|| format!("in guest {}: {argv:?}", self.spec.name))
    }

    /// Runs a line of shell in the guest and returns what it printed. What is to go on in the background
    /// needs its output sent elsewhere: `iperf3 -s >/tmp/log 2>&1 &`.
    ///
    /// # Errors
    /// Where it fails or takes more than half a minute; the error has what it printed.
    pub fn sh(&mut self, line: &str) -> Result<String> {
        let report = self.exec(&["sh", "-c", line], COMMAND_PATIENCE)?;
        let (name, output) = (&self.spec.name, report.output);
        ensure!(!report.timed_out, "in guest {name}: `{line}` did not end in {COMMAND_PATIENCE:?}: {output}");
        ensure!(report.code == Some(0), "in guest {name}: `{line}` failed ({:?}): {output}", report.code);
        Ok(output)
    }

    /// Takes a network card up with an MTU and addresses, /24 and /64.
    ///
    /// # Errors
    /// Where the guest refuses.
    pub fn configure(&mut self, interface: &str, mtu: u32, ips: &[IpAddr]) -> Result<()> {
        let mut line = format!("ip link set {interface} mtu {mtu} up");
        for ip in ips {
            let length = if ip.is_ipv6() { 64 } else { 24 };
            line += &format!(" && ip addr add {ip}/{length} dev {interface}");
        }
        self.sh(&line).map(drop)
    }

    /// Has QEMU announce the guest's network cards, as it does after a migration: five rounds, 50 ms after the first
    /// one and ever later.
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn announced_by_qemu(&mut self) -> Result<()> {
        let rounds = json!({ "initial": 50, "max": 550, "rounds": 5, "step": 100 });
        self.qmp.execute("announce-self", rounds).map(drop)
    }

    /// Stops the guest's processors at once, as a hypervisor does.
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn pause(&mut self) -> Result<()> {
        self.qmp.execute("stop", json!({})).map(drop)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn resume(&mut self) -> Result<()> {
        self.qmp.execute("cont", json!({})).map(drop)
    }

    /// Lets the guest switch itself off, and waits until QEMU has ended.
    ///
    /// # Errors
    /// Where it does not; QEMU is ended then all the same.
    pub fn shut_down(mut self) -> Result<()> {
        // The answer may be cut off with the guest.
        let _ = self
            .agent
            .exec(&["sh", "-c", "sync; (sleep 0.1; poweroff -f) >/dev/null 2>&1 &"], COMMAND_PATIENCE);
        let give_up = std::time::Instant::now() + SHUTDOWN_PATIENCE;
        while std::time::Instant::now() < give_up {
            if self.process.ended()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "guest {} did not switch off in {SHUTDOWN_PATIENCE:?}; its console:\n{}",
            self.spec.name,
            tail(&self.files.console, 15)
        )
    }
}
