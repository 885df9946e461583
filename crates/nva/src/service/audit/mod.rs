//! The audit log: JSON lines in a file beside the store, which is only appended to and rotated (R68).
//!
//! A batch's entries are on the disk before its answers leave. A disk that refuses does not stop the service: switches
//! and moves matter more than the log. That is an alarm, entries wait in memory up to a bound and are written when the
//! disk takes them again, and those beyond the bound are counted in the file.

mod file;
mod line;
mod read;
mod writer;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use godwit_counters::Entry;
use tokio::sync::oneshot;

use crate::directory::AuditEntry;
pub(super) use line::Line;
pub(super) use read::{Filter, Reader};
use writer::Writer;

/// Where the audit log is, and how much of it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditFile {
    /// The file; older ones have `.1`, `.2`, … behind their name.
    pub path: PathBuf,
    /// A file with so many bytes is rotated.
    pub max_bytes: u64,
    /// Files that are kept, the one that is written to included.
    pub files: usize,
}

/// The audit log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot open the audit log {}: {why}; choose another file with --audit-log, or make its directory",
    path.display()
)]
pub struct AuditError {
    path: PathBuf,
    why: std::io::Error,
}

godwit_counters::counters! {
    /// The audit log, since the start.
    Counts;

    /// Entries of the audit log that are on the disk.
    audit_written: One, // R68
    /// Entries of the audit log that wait in memory because the disk refuses them.
    audit_waiting: One as Gauge, // R68
    /// Entries of the audit log that were dropped: the disk refused them, and too many waited.
    audit_lost: One, // R68
}

/// What the writing thread tells.
#[derive(Default)]
struct Shared {
    written: AtomicU64,
    waiting: AtomicU64,
    lost: AtomicU64,
}

/// The way to the thread that writes.
pub(super) struct Audit {
    writer: Option<Writer>,
    shared: Arc<Shared>,
}

/// An append, awaited; it always ends.
pub(super) type Written = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Audit {
    /// Without a file: entries are lines of the log.
    pub fn none() -> Audit {
        Audit { writer: None, shared: Arc::default() }
    }

    /// Opens the file and starts its thread.
    ///
    /// # Errors
    /// Where it cannot be opened, or there is no thread.
    pub fn open(settings: AuditFile) -> Result<Audit, AuditError> {
        let shared = Arc::<Shared>::default();
        let path = settings.path.clone();
        let writer = Writer::start(settings, Arc::clone(&shared)).map_err(|why| AuditError { path, why })?;
        Ok(Audit { writer: Some(writer), shared })
    }

    /// Writes the entries; `None` where there is nothing to wait for.
    pub fn append(&mut self, entries: Vec<AuditEntry>) -> Option<Written> {
        if entries.is_empty() {
            return None;
        }
        let lines = entries.into_iter().map(Line::from);
        let Some(writer) = &self.writer else {
            lines.for_each(|l| tracing::info!(target: "godwit_nva::audit", "{}", l.text()));
            return None;
        };
        let (done, durable) = oneshot::channel();
        writer.append(lines.collect(), done);
        Some(Box::pin(async move { drop(durable.await) }))
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry> + use<> {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let s = &self.shared;
        let counts = Counts {
            audit_written: get(&s.written),
            audit_waiting: get(&s.waiting),
            audit_lost: get(&s.lost),
        };
        counts.entries()
    }
}

#[cfg(test)]
mod tests;
