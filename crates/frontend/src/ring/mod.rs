//! The driver's side of virtqueues: split (virtio 1.2, 2.7) and packed ones (2.8).

mod packed;
mod split;

pub use packed::Packed;
pub use split::Split;

use crate::{Error, Memory};

/// Descriptor flag: another one follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: for the device to write.
pub const WRITE: u16 = 2;
/// Descriptor flag: it points to a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Bytes of a descriptor in a ring or in an indirect table.
pub const DESCRIPTOR: usize = 16;

/// A buffer, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Guest physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes it.
    pub writable: bool,
}

/// What the device has done with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain, as [`Ring::add`] named it.
    pub id: u16,
    /// Bytes that the device wrote.
    pub len: u32,
}

/// Where the three parts of a ring are: offsets in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Descriptors.
    pub desc: usize,
    /// What the driver writes: available ring, or driver event suppression.
    pub driver: usize,
    /// What the device writes: used ring, or device event suppression.
    pub device: usize,
    /// Descriptors in it; a power of two for a split ring.
    pub size: u16,
}

impl Place {
    /// The parts one after another from an offset, which is divisible by 16.
    pub fn at(start: usize, size: u16) -> Place {
        let entries = usize::from(size);
        let driver = start + entries * DESCRIPTOR;
        let device = (driver + 6 + 2 * entries).next_multiple_of(16);
        Place { desc: start, driver, device, size }
    }

    /// The offset after them.
    pub fn end(&self) -> usize {
        self.device + 6 + 8 * usize::from(self.size)
    }
}

/// A ring of either kind.
pub enum Ring {
    /// Split.
    Split(Split),
    /// Packed.
    Packed(Packed),
}

impl Ring {
    /// An empty ring.
    pub fn new(place: Place, packed: bool) -> Ring {
        if packed { Ring::Packed(Packed::new(place)) } else { Ring::Split(Split::new(place)) }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        match self {
            Ring::Split(ring) => ring.place(),
            Ring::Packed(ring) => ring.place(),
        }
    }

    /// Descriptors that are not in use.
    pub fn free(&self) -> usize {
        match self {
            Ring::Split(ring) => ring.free(),
            Ring::Packed(ring) => ring.free(),
        }
    }

    /// Puts a chain in, which the device sees after [`Ring::publish`] at the latest. Answers its id; `None` where there
    /// are too few free descriptors.
    ///
    /// # Errors
    /// Where the ring is not in the memory.
    pub fn add(&mut self, memory: &Memory, pieces: &[Piece]) -> Result<Option<u16>, Error> {
        match self {
            Ring::Split(ring) => ring.add(memory, pieces),
            Ring::Packed(ring) => ring.add(memory, pieces),
        }
    }

    /// Shows the device all that was added.
    ///
    /// # Errors
    /// Where the ring is not in the memory.
    pub fn publish(&mut self, memory: &Memory) -> Result<(), Error> {
        match self {
            Ring::Split(ring) => ring.publish(memory),
            Ring::Packed(_) => Ok(()),
        }
    }

    /// The next chain that the device has done with.
    ///
    /// # Errors
    /// Where the device wrote what it never was given.
    pub fn used(&mut self, memory: &Memory) -> Result<Option<Used>, Error> {
        match self {
            Ring::Split(ring) => ring.used(memory),
            Ring::Packed(ring) => ring.used(memory),
        }
    }

    /// Whether the device wants to be told of what was published.
    ///
    /// # Errors
    /// Where the ring is not in the memory.
    pub fn wants_kick(&self, memory: &Memory) -> Result<bool, Error> {
        // What was published is there before the device's wish is read.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        match self {
            Ring::Split(ring) => ring.wants_kick(memory),
            Ring::Packed(ring) => ring.wants_kick(memory),
        }
    }

    /// Whether the device is to signal what it has done.
    ///
    /// # Errors
    /// Where the ring is not in the memory.
    pub fn set_calls(&self, memory: &Memory, wanted: bool) -> Result<(), Error> {
        match self {
            Ring::Split(ring) => ring.set_calls(memory, wanted),
            Ring::Packed(ring) => ring.set_calls(memory, wanted),
        }
    }

    /// Where the device begins, as SET_VRING_BASE has it.
    pub fn base(&self) -> u16 {
        match self {
            Ring::Split(_) => 0,
            // Index 0, and both wrap counters are 1.
            Ring::Packed(_) => 0x8000,
        }
    }
}

/// A descriptor as it lies in memory: of a split ring or of an indirect table `tail` is flags and next, of a packed
/// ring id and flags.
pub fn descriptor(addr: u64, len: u32, tail: (u16, u16)) -> [u8; DESCRIPTOR] {
    let mut out = [0; DESCRIPTOR];
    out[..8].copy_from_slice(&addr.to_le_bytes());
    out[8..12].copy_from_slice(&len.to_le_bytes());
    out[12..14].copy_from_slice(&tail.0.to_le_bytes());
    out[14..].copy_from_slice(&tail.1.to_le_bytes());
    out
}

#[cfg(test)]
mod tests;
