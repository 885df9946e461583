//! What a store has, as lines of text: to compare it with a copy, or with another NVA's.

use std::fmt::Debug;
use std::io::{self, Write};
use std::path::Path;

use super::StoreError;
use super::redb::File;
use crate::directory::State;

/// Writes the state in `dir`, one record a line, in the order of kinds and keys. Two stores with the same lines have
/// the same state. Nothing of it is changed.
///
/// # Errors
/// Where the store cannot be read, or nothing can be written to `out`.
pub fn export(dir: &Path, out: &mut impl Write) -> Result<(), ExportError> {
    let state = File::open_idle(dir)?.read()?;
    write(&state, out)?;
    Ok(())
}

/// An export that failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lines find no reader.
    #[error("cannot write the export: {0}; send it to a file on a disk with space")]
    Output(#[from] io::Error),
}

fn write(s: &State, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "epoch\t{}", s.epoch)?;
    writeln!(out, "seq\t{}", s.seq)?;
    writeln!(out, "last_domain\t{}", s.last_domain)?;
    all(out, "vn", s.vns.values())?;
    all(out, "domain", s.domains.values())?;
    all(out, "route", s.routes.iter())?;
    all(out, "vm", s.vms.values())?;
    all(out, "policy", s.policies.values())?;
    all(out, "flaps", s.flaps.iter())?;
    all(out, "nve", s.nves.values())?;
    all(out, "move", s.moves.values())?;
    all(out, "drain", s.drains.values())
}

fn all<T: Debug>(out: &mut impl Write, kind: &str, records: impl Iterator<Item = T>) -> io::Result<()> {
    for record in records {
        writeln!(out, "{kind}\t{record:?}")?;
    }
    Ok(())
}
