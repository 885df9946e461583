//! Reading the audit log, from the oldest file on, while it is written and rotated.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{AuditFile, Line, file};

/// Bytes of one line; a longer one is skipped.
const LONGEST: u64 = 64 * 1024;
/// Lines that are read before others have their turn.
const LOOKS: usize = 4_096;

/// Entries that are wanted.
#[derive(Clone, Default, Debug)]
pub(in crate::service) struct Filter {
    /// A part of who; empty: anybody.
    pub who: String,
    /// The beginning of what; empty: anything.
    pub what: String,
    /// Not before, in microseconds since 1970.
    pub since_us: u64,
}

impl Filter {
    fn wants(&self, line: &Line) -> bool {
        line.at_us >= self.since_us && line.who.contains(&self.who) && line.what.starts_with(&self.what)
    }
}

/// A place in the audit log.
pub(in crate::service) struct Reader {
    path: PathBuf,
    filter: Filter,
    /// Files that are still to be opened, the next one last.
    older: Vec<File>,
    open: Option<BufReader<File>>,
    /// A line whose end has not been written.
    begun: Vec<u8>,
}

impl Reader {
    /// At the beginning of the oldest file.
    pub fn new(settings: &AuditFile, filter: Filter) -> Reader {
        let path = settings.path.clone();
        // Opened at once, so that a rotation does not show one twice or not at all.
        let older = (0..settings.files.max(1)).filter_map(|n| File::open(file::name(&path, n)).ok());
        let mut reader = Reader { filter, older: older.collect(), open: None, begun: Vec::new(), path };
        reader.next_file();
        reader
    }

    /// Goes on to the next file, if there is one.
    fn next_file(&mut self) -> bool {
        let Some(next) = self.older.pop() else { return false };
        self.begun.clear();
        self.open = Some(BufReader::new(next));
        true
    }

    /// The next entries that are wanted; true where there is no more for now.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn read(&mut self) -> io::Result<(Vec<Line>, bool)> {
        let mut lines = Vec::new();
        for _ in 0..LOOKS {
            match self.line()? {
                Some(line) => lines.extend(line.filter(|l| self.filter.wants(l))),
                None if self.next_file() => {}
                None => return Ok((lines, !self.rotated()?)),
            }
        }
        Ok((lines, false))
    }

    /// The next line of the file; the inner `None`: one that is none.
    fn line(&mut self) -> io::Result<Option<Option<Line>>> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let room = LONGEST.saturating_sub(self.begun.len() as u64);
        open.take(room).read_until(b'\n', &mut self.begun)?;
        if self.begun.last() != Some(&b'\n') && self.begun.len() as u64 != LONGEST {
            return Ok(None);
        }
        let line = serde_json::from_slice(&self.begun).ok();
        self.begun.clear();
        Ok(Some(line))
    }

    /// The file has another name by now, and there is a new one under its own, which is next: when the rest of this one
    /// has been read.
    fn rotated(&mut self) -> io::Result<bool> {
        let Ok(file) = File::open(&self.path) else { return Ok(false) };
        let inode = |f: &File| f.metadata().map(|m| (m.dev(), m.ino()));
        if let Some(open) = &self.open
            && inode(open.get_ref())? == inode(&file)?
        {
            return Ok(false);
        }
        self.older.push(file);
        Ok(true)
    }

    /// The file, for errors.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
