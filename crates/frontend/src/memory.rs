//! A guest's memory: a memfd that the back end maps, too.

use std::fs::File;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory, VolatileSlice};

use crate::Error;
use crate::raw::Region;

/// Guest physical address of the memory's first byte.
pub const GUEST: u64 = 0x4000_0000;
/// Its address in the front end, as messages name it: no pointer, only a number that both ends translate.
pub const USER: u64 = 0x7000_0000_0000;

/// Memory of one region, of ordinary pages.
pub struct Memory {
    map: MmapRegion,
    file: File,
}

impl Memory {
    /// Zeroed memory.
    ///
    /// # Errors
    /// Where the system has none.
    pub fn new(len: usize) -> Result<Memory, Error> {
        let fd = memfd_create("godwit-guest", MFdFlags::MFD_CLOEXEC).map_err(Error::errno("memfd_create"))?;
        let file = File::from(fd);
        file.set_len(len as u64).map_err(Error::system("ftruncate"))?;
        let shared = file.try_clone().map_err(Error::system("dup"))?;
        let map = MmapRegion::from_file(FileOffset::new(shared, 0), len);
        let map = map.map_err(|e| Error::Map { len, why: e.to_string() })?;
        Ok(Memory { map, file })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.map.size()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file that backs it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The region as SET_MEM_TABLE tells it.
    pub fn region(&self) -> Region {
        Region { guest: GUEST, len: self.len() as u64, user: USER, offset: 0 }
    }

    fn slice(&self, at: usize, len: usize) -> Result<VolatileSlice<'_>, Error> {
        self.map.get_slice(at, len).map_err(|_| Error::Outside { at, len })
    }

    /// Writes bytes at an offset.
    ///
    /// # Errors
    /// Where they do not fit.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        let outside = |_| Error::Outside { at, len: bytes.len() };
        self.slice(at, bytes.len())?.write_slice(bytes, 0).map_err(outside)
    }

    /// Reads bytes at an offset.
    ///
    /// # Errors
    /// Where there are not as many.
    pub fn read(&self, at: usize, bytes: &mut [u8]) -> Result<(), Error> {
        let len = bytes.len();
        self.slice(at, len)?.read_slice(bytes, 0).map_err(|_| Error::Outside { at, len })
    }

    /// Writes an aligned word of 16 bits, after all that was written before.
    ///
    /// # Errors
    /// Where the offset is outside or odd.
    pub fn store16(&self, at: usize, value: u16) -> Result<(), Error> {
        let slice = self.slice(at, 2)?;
        slice.store(value.to_le(), 0, Ordering::Release).map_err(|_| Error::Outside { at, len: 2 })
    }

    /// Reads an aligned word of 16 bits, before all that is read later.
    ///
    /// # Errors
    /// Where the offset is outside or odd.
    pub fn load16(&self, at: usize) -> Result<u16, Error> {
        let slice = self.slice(at, 2)?;
        slice.load(0, Ordering::Acquire).map(u16::from_le).map_err(|_| Error::Outside { at, len: 2 })
    }
}

/// Guest physical address of an offset.
pub fn guest(at: usize) -> u64 {
    GUEST + at as u64
}

/// Address in the front end of an offset.
pub fn user(at: usize) -> u64 {
    USER + at as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_ends_where_it_ends() {
        let memory = Memory::new(8192).unwrap();
        memory.write(8190, &[1, 2]).unwrap();
        memory.store16(8188, 0x0403).unwrap();
        let mut end = [0; 4];
        memory.read(8188, &mut end).unwrap();
        assert_eq!(end, [3, 4, 1, 2]);
        assert_eq!(memory.load16(8190).unwrap(), 0x0201);
        for (at, len) in [(8191, 2), (8192, 1), (usize::MAX, 2)] {
            assert!(matches!(memory.write(at, &vec![0; len]), Err(Error::Outside { .. })), "{at}");
        }
        assert!(memory.load16(1).is_err(), "odd");
        assert_eq!(memory.region().len, 8192);
    }
}
