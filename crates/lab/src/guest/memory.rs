//! A guest's memory at both ends of a migration, compared byte by byte.
//!
//! What a switch writes into a guest it has to report to QEMU, which carries pages again that were written since; what
//! an emulated processor writes QEMU has to notice itself. Whatever one of the two misses stays behind, and the guest
//! finds old contents: far from here, and perhaps much later. So it is looked for where it happens.
//!
//! It was seen: a kernel one of whose threads had the stack pointer of one sleep and the stack of another. No switch
//! writes either, nor can it make QEMU forget what a processor wrote; so QEMU missed one. Its sources (7.2 to 10.0)
//! leave room for that: its processor looks whether a page is known as written, and a moment later notes that it need
//! not report writes to it; a migration that begins to ask anew in between is not heard. Held at that very place a
//! processor lost nothing all the same: that it is this which loses pages is a guess.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// Bytes of a page, for which QEMU keeps books.
pub const PAGE: usize = 4096;
/// Bytes of a page that a [`Difference`] shows.
const SHOWN: usize = 32;
/// What a read takes at a time.
const CHUNK: usize = 1 << 20;

/// A page whose contents are not the same at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its number: its first byte's address in the memory, divided by [`PAGE`].
    pub page: u64,
    /// The first byte in it that differs.
    pub at: usize,
    /// How many do.
    pub bytes: usize,
    /// 32 bytes from the eight on that the first one is among, in hexadecimal, at the old place
    pub old: String,
    /// and at the new one.
    pub new: String,
}

impl Difference {
    fn of(page: u64, old: &[u8], new: &[u8]) -> Option<Difference> {
        let at = old.iter().zip(new).position(|(a, b)| a != b)?;
        let bytes = old.iter().zip(new).filter(|(a, b)| a != b).count();
        let shown = at & !7..old.len().min((at & !7) + SHOWN);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        Some(Difference { page, at, bytes, old: hex(&old[shown.clone()]), new: hex(&new[shown]) })
    }
}

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

    /// The pages whose contents are not the same in both, this one the old; neither may be running.
    ///
    /// # Errors
    /// Where one cannot be read, or they are of different lengths.
    pub fn differences(&self, new: &Memory) -> Result<Vec<Difference>> {
        ensure!(
            self.length == new.length,
            "{} bytes at the old place and {} at the new",
            self.length,
            new.length
        );
        let (mut here, mut there) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut all = Vec::new();
        for at in (0..self.length).step_by(CHUNK) {
            let length = CHUNK.min((self.length - at) as usize);
            let (here, there) = (&mut here[..length], &mut there[..length]);
            self.file.read_exact_at(here, at)?;
            new.file.read_exact_at(there, at)?;
            let pages = here.chunks(PAGE).zip(there.chunks(PAGE)).zip(at / PAGE as u64..);
            all.extend(pages.filter_map(|((old, new), page)| Difference::of(page, old, new)));
        }
        Ok(all)
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
        for at in [0, 5 * PAGE + 4095, CHUNK, CHUNK + 9, 2 * CHUNK + 2 * PAGE + 17] {
            changed[at] ^= 1;
        }
        let (_a, here) = memory("compared-here", &bytes);
        let (_b, there) = memory("compared-there", &changed);
        let found = here.differences(&there).unwrap();
        let places: Vec<_> = found.iter().map(|d| (d.page, d.at, d.bytes)).collect();
        assert_eq!(places, [(0, 0, 1), (5, 4095, 1), (256, 0, 2), (514, 17, 1)]);
        assert_eq!(here.differences(&here).unwrap(), []);
        // From a multiple of eight on, and not beyond the page.
        assert_eq!((found[0].old.len(), found[1].old.len(), found[3].old.len()), (64, 16, 64));
        assert_eq!((&found[0].old[..4], &found[0].new[..4]), ("0000", "0100"));
    }

    #[test]
    fn memories_of_different_lengths_and_names_nobody_has_are_errors() {
        let (_a, long) = memory("compared-long", &[1; 2 * PAGE]);
        let (_b, short) = memory("compared-short", &[1; PAGE]);
        let text = long.differences(&short).unwrap_err().to_string();
        assert!(text.contains("8192 bytes at the old place and 4096 at the new"), "{text}");
        let text = Memory::of(std::process::id(), "nobody").err().unwrap().to_string();
        assert!(text.contains("no memory called nobody"), "{text}");
    }
}
