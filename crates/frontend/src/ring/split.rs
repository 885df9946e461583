//! Split virtqueues (virtio 1.2, 2.7).

use super::{DESCRIPTOR, NEXT, Piece, Place, Used, WRITE, descriptor};
use crate::{Error, Memory};

/// Available ring's and used ring's flag: no notification.
const NO_NOTIFY: u16 = 1;

/// The driver's side of one.
pub struct Split {
    place: Place,
    free: Vec<u16>,
    /// The descriptor after each one of a chain.
    next: Vec<u16>,
    /// Descriptors of the chain that begins at each; 0 where none does.
    chain: Vec<u16>,
    available: u16,
    seen: u16,
}

impl Split {
    /// An empty one; its memory is zeroed.
    pub fn new(place: Place) -> Split {
        let size = place.size;
        Split {
            place,
            free: (0..size).rev().collect(),
            next: vec![0; size.into()],
            chain: vec![0; size.into()],
            available: 0,
            seen: 0,
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Chains that were added so far, modulo 2^16: the index that it tells the switch.
    pub fn available(&self) -> u16 {
        self.available
    }

    /// Writes any descriptor at any index of the table.
    ///
    /// # Errors
    /// Where the table is not in the memory.
    pub fn write_descriptor(
        &self,
        memory: &Memory,
        index: u16,
        (addr, len, flags, next): (u64, u32, u16, u16),
    ) -> Result<(), Error> {
        let at = self.place.desc + usize::from(index) * DESCRIPTOR;
        memory.write(at, &descriptor(addr, len, (flags, next)))
    }

    /// Puts any index into the available ring, as if it were a chain's.
    ///
    /// # Errors
    /// Where the ring is not in the memory.
    pub fn offer(&mut self, memory: &Memory, head: u16) -> Result<(), Error> {
        let slot = usize::from(self.available % self.place.size);
        memory.store16(self.place.driver + 4 + 2 * slot, head)?;
        self.available = self.available.wrapping_add(1);
        Ok(())
    }

    /// Sets the index that the device reads, and that later chains go on from.
    ///
    /// # Errors
    /// Where the ring is not in the memory.
    pub fn jump(&mut self, memory: &Memory, available: u16) -> Result<(), Error> {
        self.available = available;
        self.publish(memory)
    }

    pub(super) fn add(&mut self, memory: &Memory, pieces: &[Piece]) -> Result<Option<u16>, Error> {
        if pieces.is_empty() || pieces.len() > self.free.len() {
            return Ok(None);
        }
        let taken = self.free.split_off(self.free.len() - pieces.len());
        for (n, (index, piece)) in taken.iter().zip(pieces).enumerate() {
            let next = taken.get(n + 1).copied();
            let flags = if next.is_some() { NEXT } else { 0 } | if piece.writable { WRITE } else { 0 };
            self.next[usize::from(*index)] = next.unwrap_or(0);
            self.write_descriptor(memory, *index, (piece.addr, piece.len, flags, next.unwrap_or(0)))?;
        }
        let head = taken[0];
        self.chain[usize::from(head)] = taken.len() as u16;
        self.offer(memory, head)?;
        Ok(Some(head))
    }

    pub(super) fn publish(&mut self, memory: &Memory) -> Result<(), Error> {
        memory.store16(self.place.driver + 2, self.available)
    }

    pub(super) fn used(&mut self, memory: &Memory) -> Result<Option<Used>, Error> {
        if memory.load16(self.place.device + 2)? == self.seen {
            return Ok(None);
        }
        let slot = usize::from(self.seen % self.place.size);
        let mut entry = [0; 8];
        memory.read(self.place.device + 4 + 8 * slot, &mut entry)?;
        let [a, b, c, d, e, f, g, h] = entry;
        let (id, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        self.seen = self.seen.wrapping_add(1);
        let head = usize::try_from(id).unwrap_or(usize::MAX);
        match self.chain.get(head) {
            None | Some(0) => {
                return Err(Error::Ring(format!("chain {id} is used, which was not available")));
            }
            Some(_) => {}
        }
        let mut index = head as u16;
        for _ in 0..std::mem::take(&mut self.chain[head]) {
            self.free.push(index);
            index = self.next[usize::from(index)];
        }
        Ok(Some(Used { id: head as u16, len }))
    }

    pub(super) fn wants_kick(&self, memory: &Memory) -> Result<bool, Error> {
        Ok(memory.load16(self.place.device)? & NO_NOTIFY == 0)
    }

    pub(super) fn set_calls(&self, memory: &Memory, wanted: bool) -> Result<(), Error> {
        memory.store16(self.place.driver, if wanted { 0 } else { NO_NOTIFY })
    }
}
