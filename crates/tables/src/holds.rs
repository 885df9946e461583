//! Memory of its own for frames that wait (R35, R45), so that however many wait, packet reception
//! does not run out of buffers.
//!
//! The arena is cut into slots of [`SLOT`] bytes; a frame takes as many as it needs, chained. A
//! [`Queue`] is a chain of frames in order of arrival. Slots come into use from the first one on,
//! so memory that no hold ever needed is never touched. Freed slots are used again, last first.

use core::net::{IpAddr, Ipv4Addr};

use godwit_wire::{Dscp, Instant};

use crate::update::PortIdx;

/// Bytes of a frame in one slot. 1,514-byte frames fill six of them almost exactly.
pub const SLOT: usize = 256;

const NONE: u32 = u32::MAX;

/// Where a held frame came from: it decides where the frame may go (R46a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Origin {
    /// From a VM's port on this NVE.
    Local = 0,
    /// From another NVE; what is held is the decapsulated inner frame.
    Overlay = 1,
}

/// What is remembered of a held frame besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct About {
    /// When it came.
    pub arrived: Instant,
    /// The port it came in on.
    pub ingress: PortIdx,
    /// Local port or overlay.
    pub origin: Origin,
    /// Outer TTL it came with (R46d); of no meaning for frames from a local port.
    pub ttl: u8,
    /// The locator of the NVE that sent it; of no meaning for frames from a local port.
    pub sender: IpAddr,
    /// The outer DSCP that it is to have, by its VM's policy, or that it came with (R23).
    pub dscp: Option<Dscp>,
}

impl About {
    /// For a frame from a local port.
    pub fn local(arrived: Instant, ingress: PortIdx, dscp: Option<Dscp>) -> About {
        let sender = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        About { arrived, ingress, origin: Origin::Local, ttl: 0, sender, dscp }
    }

    /// For a frame that another NVE sent.
    pub fn overlay(arrived: Instant, ingress: PortIdx, sender: IpAddr, ttl: u8, dscp: Option<Dscp>) -> About {
        About { arrived, ingress, origin: Origin::Overlay, ttl, sender, dscp }
    }
}

/// Why a frame could not be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// Frames that wait for one VM, first come first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    head: u32,
    tail: u32,
    len: u32,
}

impl Queue {
    /// No frames.
    pub const EMPTY: Queue = Queue { head: NONE, tail: NONE, len: 0 };

    /// Frames in it.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// There are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// One slot's links; the frame's facts are in its first slot's.
#[derive(Clone, Copy)]
struct Meta {
    /// Next slot of the same frame, or next free slot.
    next: u32,
    /// First slot of the next frame in the queue.
    next_frame: u32,
    /// Bytes of the frame.
    len: u32,
    /// Order of arrival over all queues.
    seq: u64,
    about: About,
}

/// The arena.
pub struct Holds {
    bytes: Vec<u8>,
    meta: Vec<Meta>,
    slots: u32,
    free: u32,
    free_len: u32,
    frames: u32,
    seq: u64,
}

impl Holds {
    /// An arena of at most `bytes` bytes, bookkeeping included.
    pub fn new(bytes: usize) -> Holds {
        let slots = (bytes / (SLOT + size_of::<Meta>())).min(NONE as usize - 1);
        Holds {
            // Zeroed by the kernel when touched, not here.
            bytes: vec![0; slots * SLOT],
            // Reserved once, so that `push` below the capacity never allocates.
            meta: Vec::with_capacity(slots),
            slots: slots as u32,
            free: NONE,
            free_len: 0,
            frames: 0,
            seq: 0,
        }
    }

    /// Frames held, over all queues.
    #[inline]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Slots in use.
    #[inline]
    pub fn slots_used(&self) -> u32 {
        self.meta.len() as u32 - self.free_len
    }

    /// Slots there are.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// A frame of `len` bytes fits.
    pub fn has_room(&self, len: usize) -> bool {
        len.div_ceil(SLOT).max(1) <= (self.slots - self.slots_used()) as usize
    }

    /// Puts a frame at the end of `queue`.
    ///
    /// # Errors
    /// [`NoMemory`], and no change, where too few slots are free.
    pub fn push(&mut self, queue: &mut Queue, frame: &[u8], about: About) -> Result<(), NoMemory> {
        if !self.has_room(frame.len()) {
            return Err(NoMemory);
        }
        self.seq += 1;
        let meta = Meta { next: NONE, next_frame: NONE, len: frame.len() as u32, seq: self.seq, about };
        let first = self.take_slot(meta);
        let mut last = first;
        for (i, part) in frame.chunks(SLOT).enumerate() {
            if i > 0 {
                let slot = self.take_slot(meta);
                self.meta[last as usize].next = slot;
                last = slot;
            }
            let at = last as usize * SLOT;
            self.bytes[at..at + part.len()].copy_from_slice(part);
        }
        match queue.tail {
            NONE => queue.head = first,
            tail => self.meta[tail as usize].next_frame = first,
        }
        queue.tail = first;
        queue.len += 1;
        self.frames += 1;
        Ok(())
    }

    /// A free slot, marked with `meta`. The caller has checked that there is one.
    fn take_slot(&mut self, meta: Meta) -> u32 {
        if self.free == NONE {
            debug_assert!(self.meta.len() < self.slots as usize);
            self.meta.push(meta);
            return self.meta.len() as u32 - 1;
        }
        let slot = self.free;
        self.free = self.meta[slot as usize].next;
        self.free_len -= 1;
        self.meta[slot as usize] = meta;
        slot
    }

    fn head(&self, queue: &Queue) -> Option<&Meta> {
        self.meta.get(queue.head as usize)
    }

    /// What is known of the oldest frame.
    pub fn oldest(&self, queue: &Queue) -> Option<About> {
        self.head(queue).map(|m| m.about)
    }

    /// Place of the oldest frame in the order of arrival over all queues; the last place where the
    /// queue is empty.
    pub fn oldest_seq(&self, queue: &Queue) -> u64 {
        self.head(queue).map_or(u64::MAX, |m| m.seq)
    }

    /// Takes the oldest frame out; its bytes replace the content of `into`, which must have room
    /// for it if it is not to allocate.
    pub fn pop_into(&mut self, queue: &mut Queue, into: &mut Vec<u8>) -> Option<About> {
        self.copy_into(queue, into)?;
        self.pop(queue)
    }

    /// A copy of the oldest frame, which stays; its bytes replace the content of `into`, as above.
    pub fn copy_into(&self, queue: &Queue, into: &mut Vec<u8>) -> Option<About> {
        let meta = *self.head(queue)?;
        into.clear();
        let (mut slot, mut left) = (queue.head as usize, meta.len as usize);
        loop {
            let part = left.min(SLOT);
            into.extend_from_slice(&self.bytes[slot * SLOT..slot * SLOT + part]);
            left -= part;
            if left == 0 {
                break;
            }
            slot = self.meta[slot].next as usize;
        }
        Some(meta.about)
    }

    /// Takes the oldest frame out and forgets its bytes.
    pub fn pop(&mut self, queue: &mut Queue) -> Option<About> {
        let meta = *self.head(queue)?;
        let mut slot = queue.head;
        while slot != NONE {
            let next = self.meta[slot as usize].next;
            self.meta[slot as usize].next = self.free;
            self.free = slot;
            self.free_len += 1;
            slot = next;
        }
        queue.head = meta.next_frame;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        queue.len -= 1;
        self.frames -= 1;
        Some(meta.about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn about(n: u64) -> About {
        About::local(Instant(n), PortIdx(n as u16), Dscp::new(n as u8))
    }

    #[test]
    fn frames_come_back_in_order_and_whole() {
        let mut h = Holds::new(100_000);
        let mut q = Queue::EMPTY;
        let frames: Vec<Vec<u8>> = [0, 1, 255, 256, 257, 1514, 9000]
            .into_iter()
            .map(|n: usize| (0..n).map(|i| (i * 7 + n) as u8).collect())
            .collect();
        for (i, f) in frames.iter().enumerate() {
            h.push(&mut q, f, about(i as u64)).unwrap();
        }
        assert_eq!(h.frames(), 7);
        let mut got = Vec::new();
        for (i, f) in frames.iter().enumerate() {
            assert_eq!(h.oldest(&q), Some(about(i as u64)));
            assert_eq!(h.pop_into(&mut q, &mut got), Some(about(i as u64)));
            assert_eq!(&got, f);
        }
        assert_eq!(h.pop_into(&mut q, &mut got), None);
        assert_eq!((h.frames(), h.slots_used(), q), (0, 0, Queue::EMPTY));
    }

    #[test]
    fn r45_bookkeeping_counts_against_the_bound() {
        let h = Holds::new(1 << 20);
        assert!(h.bytes.len() + h.meta.capacity() * size_of::<Meta>() <= 1 << 20);
        assert!(h.slots() > 3000);
    }

    #[test]
    fn no_memory_changes_nothing() {
        let mut h = Holds::new(2 * (SLOT + size_of::<Meta>()));
        let mut q = Queue::EMPTY;
        h.push(&mut q, &[1; 10], about(1)).unwrap();
        let before = q;
        assert_eq!(h.push(&mut q, &[2; 300], about(2)), Err(NoMemory));
        assert_eq!((q, h.slots_used()), (before, 1));
        h.push(&mut q, &[3; 256], about(3)).unwrap();
        assert_eq!(h.push(&mut q, &[], about(4)), Err(NoMemory));
    }

    proptest! {
        #[test]
        fn queues_do_not_disturb_each_other(
            ops in proptest::collection::vec((0usize..3, 0usize..900, any::<bool>()), 0..200)
        ) {
            let mut h = Holds::new(12_000);
            let mut queues = [Queue::EMPTY; 3];
            let mut oracle: [VecDeque<(u64, Vec<u8>)>; 3] = Default::default();
            let mut got = Vec::new();
            for (n, (q, len, push)) in ops.into_iter().enumerate() {
                let n = n as u64;
                if push {
                    let frame = vec![n as u8; len];
                    let room = frame.len().div_ceil(SLOT).max(1) <= (h.slots() - h.slots_used()) as usize;
                    prop_assert_eq!(h.push(&mut queues[q], &frame, about(n)).is_ok(), room);
                    if room {
                        oracle[q].push_back((n, frame));
                    }
                } else {
                    let want = oracle[q].pop_front();
                    let a = h.pop_into(&mut queues[q], &mut got);
                    prop_assert_eq!(a, want.as_ref().map(|w| about(w.0)));
                    if let Some((_, frame)) = want {
                        prop_assert_eq!(&got, &frame);
                    }
                }
                let frames: usize = oracle.iter().map(VecDeque::len).sum();
                prop_assert_eq!(h.frames() as usize, frames);
                let slots: usize = oracle.iter().flatten().map(|f| f.1.len().div_ceil(SLOT).max(1)).sum();
                prop_assert_eq!(h.slots_used() as usize, slots);
            }
        }
    }
}
