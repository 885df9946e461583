//! A guest's memory at both ends of a migration, compared byte by byte.
//!
//! What a switch writes into a guest it has to report to QEMU, which carries pages again that were written since; what
//! an emulated processor writes QEMU has to notice itself. Whatever one of the two misses stays behind, and the guest
//! finds old contents: far from here, and perhaps much later. So it is looked for where it happens.
//!
//! It does happen: a kernel was seen one of whose threads had the stack pointer of one sleep and the stack of another,
//! and no switch writes either. By its sources QEMU (7.2 to 10.0) forgets that a page was written, as its migration
//! asks, and then has the processor report the next write to it; a processor that has just reported one, and is about to
//! note that it need not again, may do so after that. It reports none then until its translation buffer is emptied, and
//! what it writes until then stays behind if it is the last that is written to that page.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// Bytes of a page, for which QEMU keeps books.
pub const PAGE: usize = 4096;
/// What a read takes at a time.
const CHUNK: usize = 1 << 20;

/// The guest's memory in a QEMU that has it in a file without a name, which the switch shares.
pub struct Memory {
    file: File,
    length: u64,
}

impl Memory {
    /// The memory that the process has under `name`, QEMU's id of it.
    ///
    /// # Errors
    /// Where the process has no such file, or has ended.
    pub fn of(process: u32, name: &str) -> Result<Memory> {
        let folder = format!("/proc/{process}/fd");
        let wanted = format!("/memfd:{name} (deleted)");
        let all = fs::read_dir(&folder).with_context(|| format!("reading {folder}"))?;
        let path = all
            .flatten()
            .map(|entry| entry.path())
            .find(|path| fs::read_link(path).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
            .with_context(|| format!("process {process} has no memory called {name}"))?;
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let length = file.metadata()?.len();
        Ok(Memory { file, length })
    }

    /// The numbers of the pages whose contents are not the same in both; neither may be running.
    ///
    /// # Errors
    /// Where one cannot be read, or they are of different lengths.
    pub fn differing_pages(&self, other: &Memory) -> Result<Vec<u64>> {
        ensure!(self.length == other.length, "{} bytes here and {} there", self.length, other.length);
        let (mut here, mut there) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut pages = Vec::new();
        for at in (0..self.length).step_by(CHUNK) {
            let length = CHUNK.min((self.length - at) as usize);
            let (here, there) = (&mut here[..length], &mut there[..length]);
            self.file.read_exact_at(here, at)?;
            other.file.read_exact_at(there, at)?;
            if here != there {
                let first = at / PAGE as u64;
                let differing = here.chunks(PAGE).zip(there.chunks(PAGE)).enumerate();
                pages.extend(differing.filter(|(_, (a, b))| a != b).map(|(n, _)| first + n as u64));
            }
        }
        Ok(pages)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::io::Write;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    fn memory(name: &str, bytes: &[u8]) -> (File, Memory) {
        let name_c = CString::new(name).unwrap();
        let mut file = File::from(memfd_create(name_c.as_c_str(), MFdFlags::empty()).unwrap());
        file.write_all(bytes).unwrap();
        let found = Memory::of(std::process::id(), name).unwrap();
        (file, found)
    }

    #[test]
    fn pages_that_differ_are_named_and_others_are_not() {
        let length = 2 * CHUNK + 3 * PAGE;
        let bytes: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
        let mut changed = bytes.clone();
        for at in [0, 5 * PAGE + 4095, CHUNK, 2 * CHUNK + 2 * PAGE + 17] {
            changed[at] ^= 1;
        }
        let (_a, here) = memory("compared-here", &bytes);
        let (_b, there) = memory("compared-there", &changed);
        assert_eq!(here.differing_pages(&there).unwrap(), [0, 5, 256, 514]);
        assert_eq!(here.differing_pages(&here).unwrap(), [0; 0]);
    }

    #[test]
    fn memories_of_different_lengths_and_names_nobody_has_are_errors() {
        let (_a, long) = memory("compared-long", &[1; 2 * PAGE]);
        let (_b, short) = memory("compared-short", &[1; PAGE]);
        let text = long.differing_pages(&short).unwrap_err().to_string();
        assert!(text.contains("8192 bytes here and 4096 there"), "{text}");
        let text = Memory::of(std::process::id(), "nobody").err().unwrap().to_string();
        assert!(text.contains("no memory called nobody"), "{text}");
    }
}
