//! Slots of equal size, in chunks that are taken when they are needed and given back when they are not.
//!
//! All bookkeeping of a slot lies in the slot. What is not taken is address space without memory: the kernel zeroes
//! pages when they are touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fixedbitset::FixedBitSet;

use crate::pages;

/// Bytes of a slot, of which `ROOM` are the frame's. 1,522-byte frames fill six of them almost exactly.
pub const SLOT: usize = 268;
/// Bytes of a frame, or of what is remembered of it, in one slot.
pub(super) const ROOM: usize = SLOT - LINK;
/// Bytes of the number of the next slot.
const LINK: usize = 4;
/// Bytes of memory that is taken and given back together: few enough that giving them back takes microseconds.
pub const CHUNK: usize = 256 << 10;
/// Chunks that stay when they are empty, so that small holds come and go without the kernel.
const KEPT: u32 = 8;
/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Chunks that the workers of a switch have in common: each takes of them what it needs beyond its own.
#[derive(Clone, Debug, Default)]
pub struct SharedChunks {
    total: u32,
    left: Arc<AtomicU32>,
}

impl SharedChunks {
    /// `bytes` of memory in common, in whole chunks.
    pub fn of(bytes: usize) -> SharedChunks {
        let total = (bytes / CHUNK) as u32;
        SharedChunks { total, left: Arc::new(AtomicU32::new(total)) }
    }

    /// Chunks that nobody has taken.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn put_back(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Chunk {
    /// First slot of the list of those that were used and are free.
    free: u32,
    /// Slots from this one on were not used since the chunk was taken.
    fresh: u32,
    /// Slots in use.
    used: u32,
}

const EMPTY: Chunk = Chunk { free: NONE, fresh: 0, used: 0 };

/// The memory.
pub(super) struct Arena {
    bytes: Vec<u8>,
    /// Where the first page of `bytes` begins.
    base: usize,
    chunks: Vec<Chunk>,
    /// Slots of a chunk.
    per_chunk: u32,
    /// Chunks of this arena alone.
    own: u32,
    shared: SharedChunks,
    /// Chunks that are not taken.
    untaken: FixedBitSet,
    /// Chunks that are taken and have free slots.
    roomy: FixedBitSet,
    /// Chunks that are taken.
    taken: u32,
    /// Those of them without a slot in use.
    idle: u32,
    /// Slots in use.
    used: u32,
}

impl Arena {
    /// An arena with `bytes` of its own, at least one slot, and what it gets of `shared`.
    pub(super) fn new(bytes: usize, shared: SharedChunks) -> Arena {
        let own = (bytes / CHUNK).clamp(1, (NONE as usize - 1) * SLOT / CHUNK) as u32;
        let per_chunk = bytes.clamp(SLOT, CHUNK) / SLOT;
        let chunks = own as usize + shared.total as usize;
        let bytes = pages::zeroed_bytes(chunks * CHUNK + pages::PAGE);
        let mut untaken = FixedBitSet::with_capacity(chunks);
        untaken.insert_range(..);
        Arena {
            base: bytes.as_ptr().align_offset(pages::PAGE).min(pages::PAGE),
            bytes,
            chunks: vec![EMPTY; chunks],
            per_chunk: per_chunk as u32,
            own,
            shared,
            untaken,
            roomy: FixedBitSet::with_capacity(chunks),
            taken: 0,
            idle: 0,
            used: 0,
        }
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Slots there may be, if no other arena takes any of the shared ones.
    pub(super) fn most(&self) -> u32 {
        (self.own + self.shared.total) * self.per_chunk
    }

    /// Slots of this arena alone.
    pub(super) fn own(&self) -> u32 {
        self.own * self.per_chunk
    }

    /// Memory that is taken, in bytes.
    pub(super) fn resident(&self) -> usize {
        self.taken as usize * CHUNK
    }

    /// Slots that can be taken now.
    pub(super) fn free(&self) -> u32 {
        let untaken = self.own.saturating_sub(self.taken) + self.shared.left();
        (self.taken + untaken) * self.per_chunk - self.used
    }

    /// Sees to it that `slots` can be taken one by one; false where they cannot.
    pub(super) fn provide(&mut self, slots: u32) -> bool {
        while self.taken * self.per_chunk - self.used < slots {
            let Some(chunk) = self.untaken.minimum() else { return false };
            if self.taken >= self.own && !self.shared.take() {
                return false;
            }
            self.untaken.remove(chunk);
            self.roomy.insert(chunk);
            self.chunks[chunk] = EMPTY;
            self.taken += 1;
            self.idle += 1;
        }
        true
    }

    /// A slot, with no next one. The caller has seen to it that there is one.
    pub(super) fn take(&mut self) -> u32 {
        let at = self.roomy.minimum().unwrap_or_default();
        debug_assert!(self.roomy.contains(at), "provided before");
        let first = at as u32 * self.per_chunk;
        let slot = match self.chunks[at].free {
            NONE => first + self.chunks[at].fresh,
            slot => slot,
        };
        let next = self.next(slot);
        let chunk = &mut self.chunks[at];
        if chunk.free == NONE {
            chunk.fresh += 1;
        } else {
            chunk.free = next;
        }
        self.idle -= u32::from(chunk.used == 0);
        chunk.used += 1;
        if chunk.used == self.per_chunk {
            self.roomy.remove(at);
        }
        self.used += 1;
        self.link(slot, NONE);
        slot
    }

    /// Frees a slot. Memory beyond what is worth keeping goes back.
    pub(super) fn put_back(&mut self, slot: u32) {
        let at = (slot / self.per_chunk) as usize;
        self.link(slot, self.chunks[at].free);
        let chunk = &mut self.chunks[at];
        chunk.free = slot;
        chunk.used -= 1;
        self.used -= 1;
        self.roomy.insert(at);
        if chunk.used == 0 {
            *chunk = EMPTY;
            self.idle += 1;
            // Of what is shared, one stays: the next frame may need it at once.
            if self.idle > KEPT || self.idle > 1 && self.taken > self.own {
                self.give_back(at);
            }
        }
    }

    #[cold]
    fn give_back(&mut self, chunk: usize) {
        let from = self.base + chunk * CHUNK;
        pages::give_back(&mut self.bytes[from..from + CHUNK]);
        self.roomy.remove(chunk);
        self.untaken.insert(chunk);
        self.idle -= 1;
        self.taken -= 1;
        if self.taken >= self.own {
            self.shared.put_back();
        }
    }

    fn at(&self, slot: u32) -> usize {
        let (chunk, place) = (slot / self.per_chunk, slot % self.per_chunk);
        self.base + chunk as usize * CHUNK + place as usize * SLOT
    }

    /// The slot that follows.
    pub(super) fn next(&self, slot: u32) -> u32 {
        let at = self.at(slot);
        u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }

    pub(super) fn link(&mut self, slot: u32, next: u32) {
        let at = self.at(slot);
        self.bytes[at..at + LINK].copy_from_slice(&next.to_le_bytes());
    }

    /// What a slot holds.
    pub(super) fn room(&self, slot: u32) -> &[u8] {
        let at = self.at(slot) + LINK;
        &self.bytes[at..at + ROOM]
    }

    /// The same, to be written.
    pub(super) fn room_mut(&mut self, slot: u32) -> &mut [u8] {
        let at = self.at(slot) + LINK;
        &mut self.bytes[at..at + ROOM]
    }

    /// The address of its memory.
    #[cfg(test)]
    pub(super) fn address(&self) -> usize {
        self.bytes.as_ptr().addr() + self.base
    }
}
