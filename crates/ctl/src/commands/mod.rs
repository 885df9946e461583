//! The command families: arguments, calls and output of each in a file of its own.

pub mod access;
mod addresses;
pub mod audit;
pub mod counters;
pub mod domain;
pub mod drain;
pub mod entries;
mod explain;
mod mirror;
pub mod move_view;
pub mod moves;
pub mod nva;
pub mod nve;
pub mod perf;
pub mod placement;
pub mod policy;
pub mod port;
mod port_bindings;
pub mod routes;
mod subnets;
pub mod trace;
pub mod underlay;
pub mod vm;
pub mod vn;
mod vn_view;
pub mod watch_qmp;

use clap::Subcommand;
use godwit_api::v1;

use crate::context::Context;
use crate::failure::Failure;
use crate::text;

/// The word of a mode on the wire.
fn mode_word(mode: i32) -> Option<String> {
    let mode = v1::MoveMode::try_from(mode).ok().filter(|m| *m != v1::MoveMode::Unspecified)?;
    Some(text::enum_name(mode.as_str_name(), "MOVE_MODE_"))
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// The directory itself.
    #[command(subcommand)]
    Nva(nva::NvaCommand),
    /// Network virtualization edges, ours and foreign ones.
    #[command(subcommand)]
    Nve(nve::NveCommand),
    /// Virtual networks.
    #[command(subcommand)]
    Vn(vn::VnCommand),
    /// Routing domains: VNs whose VMs reach each other by routing.
    #[command(subcommand)]
    Domain(domain::DomainCommand),
    /// VMs: where they are, and moving them.
    #[command(subcommand)]
    Vm(vm::VmCommand),
    /// Policies: what VMs may send and receive, wherever they run.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Planned moves and their timelines.
    #[command(subcommand)]
    Move(moves::MoveCommand),
    /// Ports of one NVE.
    #[command(subcommand)]
    Port(port::PortCommand),
    /// Tell an NVE how the VM on a port is, as its QEMU tells it: a manager for VMs without libvirt.
    WatchQmp(watch_qmp::WatchQmpArgs),
    /// Who changed what at the NVA, and what was refused.
    Audit(audit::AuditArgs),
    /// Counters by NVE, worker and port; why frames were dropped.
    Counters(counters::CountersArgs),
    /// How an NVE's workers spend their time: cycles a packet, iterations, latency of updates.
    Perf(perf::PerfArgs),
    /// Which worker of an NVE polls which receive queue.
    #[command(subcommand)]
    Placement(placement::PlacementCommand),
    /// One NVE's underlay: routes, next hops with their state, and the ways to other NVEs.
    Underlay(underlay::UnderlayArgs),
    /// Routes of routing domains as one NVE has them.
    Routes(routes::RoutesArgs),
    /// What one NVE knows of VMs: locations, forward entries, negative answers.
    Entries(entries::EntriesArgs),
    /// Follow a described frame through an NVE's tables: what would happen to it, and why.
    Trace(trace::TraceArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  godwitctl completions bash > /etc/bash_completion.d/godwitctl")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs one command; `line` describes the whole command line, for completions.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(
    command: Command,
    line: impl FnOnce() -> clap::Command,
    ctx: &mut Context<'_>,
) -> Result<(), Failure> {
    match command {
        Command::Nva(c) => nva::run(c, ctx).await,
        Command::Nve(c) => nve::run(c, ctx).await,
        Command::Vn(c) => vn::run(c, ctx).await,
        Command::Domain(c) => domain::run(c, ctx).await,
        Command::Vm(c) => vm::run(c, ctx).await,
        Command::Policy(c) => policy::run(c, ctx).await,
        Command::Move(c) => moves::run(c, ctx).await,
        Command::Port(c) => port::run(c, ctx).await,
        Command::WatchQmp(a) => watch_qmp::run(a, ctx).await,
        Command::Audit(a) => audit::run(a, ctx).await,
        Command::Counters(a) => counters::run(&a, ctx).await,
        Command::Perf(a) => perf::run(&a, ctx).await,
        Command::Placement(c) => placement::run(c, ctx).await,
        Command::Underlay(a) => underlay::run(&a, ctx).await,
        Command::Routes(a) => routes::run(a, ctx).await,
        Command::Entries(a) => entries::run(&a, ctx).await,
        Command::Trace(a) => trace::run(&a, ctx).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut line(), "godwitctl", &mut script);
            ctx.print(&String::from_utf8_lossy(&script))
        }
    }
}
