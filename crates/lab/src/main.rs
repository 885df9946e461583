//! `godwit-lab`: builds a data center out of network namespaces and runs scenarios in it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use godwit_lab::agent;
use godwit_lab::lab::{cleanup, take_down};
use godwit_lab::scenario::hot_move::HotMove;
use godwit_lab::scenario::interop::Interop;
use godwit_lab::scenario::nva_kill::NvaKill;

/// A data center on one machine: switches, an NVA and VMs in network namespaces
#[derive(Parser)]
#[command(name = "godwit-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Move a VM between switches under load, for every combination of IP versions
    HotMove(HotMove),
    /// Kill the NVA in the middle of moves and start it again
    NvaKill(NvaKill),
    /// Talk to Linux's own vxlan device and let tshark look at every frame
    Interop(Interop),
    /// List the labs that stand on this machine
    List,
    /// Take a lab down that was left standing
    Down {
        /// Its id, or `all`
        id: String,
    },
    /// The software inside a lab's VMs; started by the lab
    #[command(hide = true)]
    Agent {
        /// Socket to serve
        socket: PathBuf,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("godwit-lab: {e:#}");
            ExitCode::from(2)
        }
    }
}

impl Command {
    /// False where a scenario found fault.
    fn run(self) -> Result<bool> {
        if let Command::Agent { socket } = &self {
            return agent::serve(socket).map(|()| true);
        }
        cleanup::on_signals()?;
        match self {
            Command::HotMove(scenario) => scenario.run(),
            Command::NvaKill(scenario) => scenario.run(),
            Command::Interop(scenario) => scenario.run(),
            Command::List => {
                cleanup::labs().iter().for_each(|id| println!("{id}  {}", cleanup::directory(id).display()));
                Ok(true)
            }
            Command::Down { id } => {
                let ids = if id == "all" { cleanup::labs() } else { vec![id] };
                ids.iter().try_for_each(|id| take_down(id))?;
                println!("taken down: {}", ids.join(" "));
                Ok(true)
            }
            Command::Agent { .. } => Ok(true),
        }
    }
}
