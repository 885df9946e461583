//! The scenarios that the lab runs, and what they have in common.

pub mod addresses;
pub mod bare_metal;
mod clocks;
pub mod compare;
pub mod drain;
pub mod fabric;
pub mod found;
pub mod frozen;
pub mod guest;
pub mod guest_memory;
pub mod guest_tso;
pub mod guests;
pub mod hot_move;
pub mod interop;
pub mod interrupted;
pub mod libvirt;
pub mod multicast;
pub mod nva_kill;
pub mod ovs_guests;
pub mod ovs_pair;
pub mod placement;
pub mod report;
pub mod routed;
pub mod router_role;
pub mod split_brain;
pub mod stalls;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::agent::client::Agent;
use crate::lab::Lab;
use crate::lab::nve::{Binaries, Hugepages, SwitchOptions};
use crate::lab::topology::GUEST_MTU;
use crate::traffic::{End, Talk, Traffic, TrafficSpec};

/// Options that all scenarios understand.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Worker cores of each switch, as a mask (0x3) or a list (0-1)
    #[arg(long, default_value = "0x1", value_name = "MASK|LIST")]
    pub workers: String,
    /// Whether switches take hugepages
    #[arg(long, value_enum, default_value = "auto")]
    pub hugepages: Hugepages,
    /// Microseconds that a worker without work sleeps; 0 polls without rest
    #[arg(long, default_value_t = 50, value_name = "US")]
    pub idle_sleep_us: u32,
    /// Receive and send queues of each uplink
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub uplink_queues: u32,
    /// Switches hold packets of VMs on the move for up to ten seconds and wait 200 ms for end markers, since their
    /// processes share one machine that may be busy; order is judged where no wait ran out
    #[arg(long)]
    pub long_holds: bool,
    /// Switches and operators speak to the NVA in clear, without certificates
    #[arg(long)]
    pub plain: bool,
    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Leave the lab standing and say how to play with it
    #[arg(long)]
    pub keep: bool,
    /// Folder with godwit, godwit-nva, godwitctl and godwit-lab, if not this program's
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// What is sent while a scenario runs.
#[derive(Clone, Debug, Args)]
pub struct Load {
    /// Probe packets a second, each way [default: 5000; with QEMU's guests 2000]
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// UDP payload of a probe packet in bytes
    #[arg(long, default_value_t = 100, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(32..=1352))]
    pub payload: u32,
    /// Every N-th probe is a packet of 1,400 bytes; 0 for none
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub big_every: u32,
    /// TCP megabits a second, each way; 0 for no TCP [default: 20; with QEMU's guests 2]
    #[arg(long, value_name = "MBIT")]
    pub tcp_mbit: Option<u32>,
}

/// What the VM that moves is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Guests {
    /// A namespace with an agent; the lab plays its hypervisor
    Netns,
    /// Linux under QEMU, which migrates it live
    Qemu,
}

impl Load {
    /// As the agents have it. An emulated processor sends less.
    pub fn spec(&self, guests: Guests) -> TrafficSpec {
        let (rate, tcp_mbit) = match guests {
            Guests::Netns => (5000, 20),
            Guests::Qemu => (2000, 2),
        };
        TrafficSpec {
            rate: self.rate.unwrap_or(rate),
            one_way: false,
            payload: self.payload as usize,
            big_every: self.big_every,
            tcp_rate_bit: u64::from(self.tcp_mbit.unwrap_or(tcp_mbit)) * 1_000_000,
        }
    }
}

impl Common {
    /// The switches' options.
    pub fn switch_options(&self) -> SwitchOptions {
        SwitchOptions {
            workers: self.workers.clone(),
            hugepages: self.hugepages,
            forward_in_flight: true,
            markers: true,
            idle_sleep_us: self.idle_sleep_us,
            uplink_queues: self.uplink_queues,
            postcopy_core: None,
            pull: Vec::new(),
            long_holds: self.long_holds,
            memory_mb: 128,
            plain: self.plain,
        }
    }

    /// The programs under test, once it is sure that a lab can be built here.
    ///
    /// # Errors
    /// Where a program, a tool or a right is missing; says what to do.
    pub fn prepare(&self, tools: &[&str]) -> Result<Binaries> {
        ensure!(nix::unistd::geteuid().is_root(), "the lab makes network namespaces: run it as root");
        for tool in ["ip", "tc", "ethtool"].iter().chain(tools) {
            ensure!(crate::cmd::exists(tool), "{tool} is missing: ./scripts/run installs what the lab needs");
        }
        Binaries::find(self.bin_dir.as_deref())
    }
}

/// Reads an IP version from the command line.
fn ip_version(text: &str) -> Result<u8> {
    match text {
        "4" => Ok(4),
        "6" => Ok(6),
        _ => bail!("IP versions are 4 and 6"),
    }
}

/// Opens traffic between two VMs of a lab over one inner family.
///
/// # Errors
/// Where they do not reach each other.
pub fn talk(lab: &mut Lab, probe: u32, spec: TrafficSpec, v6: bool, (a, b): (&str, &str)) -> Result<Traffic> {
    let addresses = (lab.address_of(a, v6)?, lab.address_of(b, v6)?);
    let opened = with_agents(lab, (a, b), |x, y| {
        let mut x = End { agent: x, address: addresses.0 };
        let mut y = End { agent: y, address: addresses.1 };
        Traffic::open(probe, spec, GUEST_MTU, &mut x, &mut y)
    });
    opened.with_context(|| format!("VMs {a} and {b} do not reach each other"))
}

/// Both agents of a pair of VMs at once.
///
/// # Errors
/// Where a VM is missing or the function fails.
pub fn with_agents<T>(
    lab: &mut Lab,
    pair: (&str, &str),
    work: impl FnOnce(&mut Agent, &mut Agent) -> Result<T>,
) -> Result<T> {
    lab.with_agents(pair, work)
}

/// Ends a talk between two VMs and judges it.
///
/// # Errors
/// Where an agent does not answer.
pub fn finish(lab: &mut Lab, traffic: &Traffic, pair: (&str, &str)) -> Result<Talk> {
    with_agents(lab, pair, |a, b| traffic.finish(a, b))
}
