//! The switch process: flags and configuration in, a running NVE out.
#![forbid(unsafe_code)]

mod admin;
mod bonds;
mod config;
mod cores;
mod devices;
mod kernel;
mod numa;
mod offloads;
mod opening;
mod placement;
mod ports;
mod presence;
mod queue_handover;
mod returns;
mod run;
mod start;
mod static_config;
mod switch;
mod underlay;
mod uplinks;
mod watched;
mod workers;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Version of the switch: the package's, the source's revision and DPDK's.
pub const VERSION: &str = env!("GODWIT_VERSION");

fn main() -> ExitCode {
    let flags = config::Flags::parse();
    let config = match config::load(flags.config.as_deref(), &flags, &cores::online()) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("godwit: {e}");
            return ExitCode::from(2);
        }
    };
    if flags.check {
        println!("{}", config::summary(&config));
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_env("GODWIT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("godwit: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: config::Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run::run(config))
}
