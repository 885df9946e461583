//! The command families: arguments, calls and output of each in a file of its own.

mod addresses;
pub mod counters;
pub mod entries;
mod explain;
pub mod move_view;
pub mod moves;
pub mod nva;
pub mod nve;
pub mod perf;
pub mod placement;
pub mod policy;
pub mod port;
mod port_bindings;
pub mod trace;
pub mod underlay;
pub mod vm;
pub mod vn;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::failure::Failure;

/// Runs one command.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(command: Command, ctx: &mut Context<'_>) -> Result<(), Failure> {
    match command {
        Command::Nva(c) => nva::run(c, ctx).await,
        Command::Nve(c) => nve::run(c, ctx).await,
        Command::Vn(c) => vn::run(c, ctx).await,
        Command::Vm(c) => vm::run(c, ctx).await,
        Command::Policy(c) => policy::run(c, ctx).await,
        Command::Move(c) => moves::run(c, ctx).await,
        Command::Port(c) => port::run(c, ctx).await,
        Command::Counters(a) => counters::run(&a, ctx).await,
        Command::Perf(a) => perf::run(&a, ctx).await,
        Command::Placement(c) => placement::run(c, ctx).await,
        Command::Underlay(a) => underlay::run(&a, ctx).await,
        Command::Entries(a) => entries::run(&a, ctx).await,
        Command::Trace(a) => trace::run(&a, ctx).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "godwitctl", &mut script);
            ctx.print(&String::from_utf8_lossy(&script))
        }
    }
}
