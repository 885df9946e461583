//! The file of the audit log: appended to, rotated, never left with half a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::AuditFile;

/// The file that is written to.
pub(super) struct Appended {
    settings: AuditFile,
    file: File,
    size: u64,
}

/// The n-th file, 0 the one that is written to.
pub(super) fn name(path: &Path, n: usize) -> PathBuf {
    if n == 0 {
        return path.into();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    if size > 0 {
        // A crash may have left half a line.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            return Ok((file, size + 1));
        }
    }
    Ok((file, size))
}

impl Appended {
    pub fn open(settings: AuditFile) -> io::Result<Appended> {
        let (file, size) = open(&settings.path)?;
        Ok(Appended { settings, file, size })
    }

    /// All of these lines are on the disk, or none of them.
    pub fn append(&mut self, lines: &str) -> io::Result<()> {
        let len = lines.len() as u64;
        if self.size > 0 && self.size + len > self.settings.max_bytes {
            self.rotate()?;
        }
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.size += len,
            // What got there of them is taken back.
            Err(_) => drop(self.file.set_len(self.size)),
        }
        written
    }

    /// Each file takes the name of the one that is older; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        let older = self.settings.files.saturating_sub(1);
        if older == 0 {
            self.file.set_len(0)?;
            self.size = 0;
            return Ok(());
        }
        for n in (0..older).rev() {
            match fs::rename(name(path, n), name(path, n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        (self.file, self.size) = open(path)?;
        Ok(())
    }
}
