//! godwitctl: the operator's hand.
//!
//! It asks the NVA (`Operator`) or one NVE (`NveAdmin`, by its admin socket or relayed by the NVA),
//! and prints a table for people or, with `--json`, one document for programs. Each command family
//! has a file in [`commands`] that holds its arguments, its calls and its output.
//!
//! Exit codes: 0 done, 1 refused, 2 wrong usage, 3 NVA or NVE unreachable.
#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod context;
pub mod failure;
pub mod frame;
pub mod global;
pub mod hand;
pub mod link;
pub mod nva;
pub mod parse;
pub mod secure;
pub mod subnet;
pub mod suggest;
pub mod table;
pub mod text;

pub use cli::Cli;
pub use failure::Failure;

use std::io::Write;

use clap::CommandFactory;
use context::Context;

/// Runs one command; results go to `out`, warnings and progress to `err`.
///
/// # Errors
/// The [`Failure`] to report; its exit code is the process's.
pub async fn run(cli: Cli, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let link = link::Link::new(&cli.global);
    let mut ctx = Context { link, json: cli.global.json, out, err };
    commands::run(cli.command, Cli::command, &mut ctx).await
}
