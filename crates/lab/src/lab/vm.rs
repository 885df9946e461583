//! A VM: a namespace with an agent in it, and the hosts' taps that it is attached to.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::nve::Binaries;
use super::process::Process;
pub use super::spec::{Network, VmSpec};
use super::topology::{self, GUEST};
use crate::agent::client::Agent;
use crate::agent::proto::{Announcement, InterfaceStats, Request};
use crate::cmd;

const AGENT_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last frames of a paused guest may take to reach its switch.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);

/// A VM's port at one switch and the tap behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The switch.
    pub nve: String,
    /// The port's name there.
    pub port: String,
    /// The tap in the VM's namespace.
    pub tap: String,
}

/// A running VM.
pub struct Vm {
    /// Who it is.
    pub spec: VmSpec,
    /// Its namespace.
    pub namespace: String,
    /// The line to its agent.
    pub agent: Agent,
    /// The tap that its NIC is connected to.
    pub attached: Option<Attachment>,
    /// A tap that waits for its NIC.
    pub prepared: Option<Attachment>,
    /// Frames that the machine's kernel dropped between the guest and its switches.
    pub kernel_drops: u64,
    /// The agent's process.
    pub process: Process,
    /// Packets that the guest had sent, and that the tap had passed on, when the two were connected.
    pub(super) before: (u64, u64),
    /// The guest's kernel is cut off from its NIC.
    pub(super) silent: bool,
}

impl Vm {
    /// Builds the guest, unattached, with its agent running.
    ///
    /// # Errors
    /// Where the system refuses or the agent does not come up.
    pub fn start(spec: VmSpec, namespace: &str, bins: &Binaries, dir: &Path) -> Result<Vm> {
        topology::build_guest(namespace, &spec)?;
        let (process, agent) = start_agent(&spec.name, namespace, bins, dir)?;
        Ok(Vm::with(spec, namespace, process, agent))
    }

    /// A VM that stands already, with its agent.
    ///
    /// # Errors
    /// Where the agent does not answer.
    pub fn adopt(spec: VmSpec, namespace: &str, process: Process, dir: &Path) -> Result<Vm> {
        let agent = Agent::connect(&agent_socket(&spec.name, dir), AGENT_PATIENCE)?;
        Ok(Vm::with(spec, namespace, process, agent))
    }

    /// A VM with a running agent, attached nowhere.
    pub fn with(spec: VmSpec, namespace: &str, process: Process, agent: Agent) -> Vm {
        Vm {
            spec,
            namespace: namespace.into(),
            agent,
            attached: None,
            prepared: None,
            kernel_drops: 0,
            process,
            before: (0, 0),
            silent: false,
        }
    }

    /// Connects the guest's NIC to a tap instead of the present one. What a guest sends meanwhile is gone, as with a
    /// cable that is pulled, and owed to neither tap.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn attach(&mut self, to: &Attachment) -> Result<()> {
        let mut lines = Vec::new();
        if let Some(old) = &self.attached {
            let stats = self.agent.stats(&[&old.tap])?.interfaces[0];
            self.kernel_drops += stats.tx_dropped + stats.rx_dropped;
            lines.push(format!("link set {} nomaster", old.tap));
        }
        // Even a guest without programs speaks, of its multicast groups: a packet between the count and the new
        // connection would be missed on the tap for good.
        let was_silent = self.silent;
        self.silence(true)?;
        let (guest, tap) = self.interfaces(&to.tap)?;
        self.before = (guest.tx_packets, tap.tx_packets + tap.tx_dropped);
        lines.push(format!("link set {} master {GUEST}", to.tap));
        cmd::ip_batch(&self.namespace, &lines)?;
        self.attached = Some(to.clone());
        if was_silent { Ok(()) } else { self.silence(false) }
    }

    fn silence(&mut self, silent: bool) -> Result<()> {
        topology::silence_guest(&self.namespace, silent)?;
        self.silent = silent;
        Ok(())
    }

    /// Pauses the guest: its programs stand still, all they sent has been taken by the switch, and
    /// its kernel sends nothing either. False where the switch did not take all of it in time.
    ///
    /// # Errors
    /// Where the agent or the system refuses.
    pub fn pause(&mut self) -> Result<bool> {
        self.agent.order(&Request::Pause)?;
        self.silence(true)?;
        let Some(tap) = self.attached.as_ref().map(|a| a.tap.clone()) else { return Ok(true) };
        let give_up = Instant::now() + DRAIN_PATIENCE;
        while !self.drained(&tap)? {
            if Instant::now() > give_up {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    /// Every frame that left the guest since the tap was attached has left the tap's queue.
    fn drained(&mut self, tap: &str) -> Result<bool> {
        let (guest, tap) = self.interfaces(tap)?;
        let (sent, taken) = self.before;
        Ok(tap.tx_packets + tap.tx_dropped - taken >= guest.tx_packets - sent)
    }

    fn interfaces(&mut self, other: &str) -> Result<(InterfaceStats, InterfaceStats)> {
        let stats = self.agent.stats(&[GUEST, other])?;
        Ok((stats.interfaces[0], stats.interfaces[1]))
    }

    /// Lets a paused guest go on; it announces itself first, as guests do after a migration.
    ///
    /// # Errors
    /// Where the agent or the system refuses.
    pub fn resume(&mut self, rarp: bool) -> Result<()> {
        self.silence(false)?;
        self.announce(rarp)?;
        self.agent.order(&Request::Run)
    }

    /// Lets a paused guest go on without a word.
    ///
    /// # Errors
    /// Where the agent or the system refuses.
    pub fn resume_silently(&mut self) -> Result<()> {
        self.silence(false)?;
        self.agent.order(&Request::Run)
    }

    /// Sends gratuitous ARP and unsolicited neighbor advertisements.
    ///
    /// # Errors
    /// Where the agent cannot.
    pub fn announce(&mut self, rarp: bool) -> Result<()> {
        let what = Announcement {
            interface: GUEST.into(),
            mac: self.spec.mac.to_string(),
            ips: self.spec.ips.clone(),
            rarp,
        };
        self.agent.announce(what)
    }

    /// Everything that this machine's kernel dropped on the way, the present tap and sockets included.
    ///
    /// # Errors
    /// Where the agent cannot tell.
    pub fn all_kernel_drops(&mut self) -> Result<u64> {
        let tap = self.attached.as_ref().map_or_else(String::new, |a| a.tap.clone());
        let stats = self.agent.stats(&[&tap])?;
        let now = stats.interfaces[0];
        Ok(self.kernel_drops + now.tx_dropped + now.rx_dropped + stats.socket_drops)
    }
}

fn agent_socket(name: &str, dir: &Path) -> PathBuf {
    dir.join(format!("agent-{name}.sock"))
}

/// Starts an agent in any namespace.
///
/// # Errors
/// Where it does not come up; the error has the end of its log.
pub fn start_agent(name: &str, namespace: &str, bins: &Binaries, dir: &Path) -> Result<(Process, Agent)> {
    let socket = agent_socket(name, dir);
    let mut command = cmd::in_namespace(namespace, &bins.lab);
    command.arg("agent").arg(&socket);
    let mut process = Process::start(&format!("agent-{name}"), command, dir)?;
    match Agent::connect(&socket, AGENT_PATIENCE) {
        Ok(agent) => Ok((process, agent)),
        Err(e) => {
            process.check().context("agent")?;
            bail!("{e:#}")
        }
    }
}
