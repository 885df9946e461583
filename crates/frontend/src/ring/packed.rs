//! Packed virtqueues (virtio 1.2, 2.8).

use super::{DESCRIPTOR, NEXT, Piece, Place, Used, WRITE, descriptor};
use crate::{Error, Memory};

/// Descriptor flags: available and used, each compared with its side's wrap counter.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Event suppression: no notification.
const DISABLE: u16 = 1;

/// A position, and how often it went around: odd or even.
#[derive(Clone, Copy)]
struct Cursor {
    index: u16,
    wrap: bool,
}

impl Cursor {
    fn step(&mut self, by: u16, size: u16) {
        self.index += by;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }
}

/// The driver's side of one.
pub struct Packed {
    place: Place,
    ids: Vec<u16>,
    /// Descriptors of each id's chain; 0 where it has none.
    chain: Vec<u16>,
    free: usize,
    next: Cursor,
    seen: Cursor,
}

impl Packed {
    /// An empty one; its memory is zeroed.
    pub fn new(place: Place) -> Packed {
        let start = Cursor { index: 0, wrap: true };
        Packed {
            place,
            ids: (0..place.size).rev().collect(),
            chain: vec![0; place.size.into()],
            free: place.size.into(),
            next: start,
            seen: start,
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn free(&self) -> usize {
        self.free
    }

    fn at(&self, index: u16) -> usize {
        self.place.desc + usize::from(index) * DESCRIPTOR
    }

    /// Writes any descriptor at any index: address, length, id and flags.
    ///
    /// # Errors
    /// Where the ring is not in the memory.
    pub fn write_descriptor(
        &self,
        memory: &Memory,
        index: u16,
        (addr, len, id, flags): (u64, u32, u16, u16),
    ) -> Result<(), Error> {
        let bytes = descriptor(addr, len, (id, flags));
        memory.write(self.at(index), &bytes[..14])?;
        memory.store16(self.at(index) + 14, flags)
    }

    /// The index of the next descriptor, and the flags that make it available to the device.
    pub fn next(&self) -> (u16, u16) {
        (self.next.index, if self.next.wrap { AVAIL } else { USED })
    }

    pub(super) fn add(&mut self, memory: &Memory, pieces: &[Piece]) -> Result<Option<u16>, Error> {
        if pieces.is_empty() || pieces.len() > self.free {
            return Ok(None);
        }
        // As many ids as descriptors, and a chain has one of each at least.
        let Some(id) = self.ids.pop() else { return Ok(None) };
        let first = self.next();
        for (n, piece) in pieces.iter().enumerate() {
            let (index, mut flags) = self.next();
            flags |= if n + 1 < pieces.len() { NEXT } else { 0 } | if piece.writable { WRITE } else { 0 };
            // The device sees nothing of the chain before its first descriptor.
            let shown = if n == 0 { flags ^ (AVAIL | USED) } else { flags };
            self.write_descriptor(memory, index, (piece.addr, piece.len, id, shown))?;
            self.next.step(1, self.place.size);
        }
        let flags = memory.load16(self.at(first.0) + 14)?;
        memory.store16(self.at(first.0) + 14, flags & !(AVAIL | USED) | first.1)?;
        self.free -= pieces.len();
        self.chain[usize::from(id)] = pieces.len() as u16;
        Ok(Some(id))
    }

    pub(super) fn used(&mut self, memory: &Memory) -> Result<Option<Used>, Error> {
        let at = self.at(self.seen.index);
        let flags = memory.load16(at + 14)?;
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        if avail != used || used != self.seen.wrap || self.free == usize::from(self.place.size) {
            return Ok(None);
        }
        let mut entry = [0; 6];
        memory.read(at + 8, &mut entry)?;
        let [a, b, c, d, low, high] = entry;
        let (len, id) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([low, high]));
        let count = self.chain.get_mut(usize::from(id)).map(std::mem::take).unwrap_or(0);
        if count == 0 {
            return Err(Error::Ring(format!("id {id} is used, which was not available")));
        }
        self.seen.step(count, self.place.size);
        self.free += usize::from(count);
        self.ids.push(id);
        Ok(Some(Used { id, len }))
    }

    pub(super) fn wants_kick(&self, memory: &Memory) -> Result<bool, Error> {
        Ok(memory.load16(self.place.device + 2)? & 3 != DISABLE)
    }

    pub(super) fn set_calls(&self, memory: &Memory, wanted: bool) -> Result<(), Error> {
        memory.store16(self.place.driver + 2, if wanted { 0 } else { DISABLE })
    }
}
