//! The switch process: flags and configuration in, a running NVE out.

mod config;
mod cores;

/// Version of the switch.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() {
    let flags = <config::Flags as clap::Parser>::parse();
    let _ = config::load(flags.config.as_deref(), &flags, &cores::online());
}
