//! `godwit-bench`: speed, beside others. Godwit, DPDK's own forwarding (`dpdk-testpmd`, which touches nothing) and
//! OVS-DPDK carry the same frames between the same ends, in turn, in one run.
//!
//! All contenders of a row are started, and stand still (SIGSTOP) except the one that is measured. So
//! they alternate within seconds, and a slow moment of the machine falls on all of them; a row's ratios
//! are medians of the ratios within a round.
//!
//! | File | Does |
//! |---|---|
//! | `bench` | the command line, and the rows in their turn |
//! | `plan`, `case` | the rows, and their names |
//! | `routed` | routed rows: their domain, prefixes and gateway |
//! | `ends` | the frames, and the devices between which all carry them |
//! | `peer` | what contenders have in common; where they run |
//! | `godwit`, `testpmd`, `ovs` | starting each, and reading its own counters |
//! | `vhost` | rows of guests on vhost-user ports: the guests |
//! | `beside` | two rows in turn, for what is promised of their quotient |
//! | `updates`, `directory` | locations that change under load |
//! | `storm` | a VM that scans beside VMs that do not |
//! | `stages` | what each pipeline stage costs |
//! | `instructions` | instructions of a frame, beside another build's |
//! | `stillness` | what the machine itself does to a thread that never waits |
//! | `memory` | hugepages |
//! | `stats` | medians |
//! | `report` | table and JSON |
//!
//! The package's library, `replay`, is a program's of its own: what plays the captures.

#![forbid(unsafe_code)]

mod bench;
mod beside;
mod case;
mod directory;
mod ends;
mod godwit;
mod instructions;
mod memory;
mod ovs;
mod peer;
mod plan;
mod report;
mod routed;
mod stages;
mod stats;
mod stillness;
mod storm;
mod testpmd;
mod updates;
mod vhost;

use std::process::ExitCode;

use clap::Parser;
use godwit_lab::lab::cleanup;

use crate::bench::Bench;

fn main() -> ExitCode {
    let bench = Bench::parse();
    match cleanup::on_signals().and_then(|()| bench.run()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("godwit-bench: {e:#}");
            ExitCode::from(2)
        }
    }
}
