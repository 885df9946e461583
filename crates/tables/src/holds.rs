//! Memory of its own for frames that wait (R35, R45), so that however many wait, packet reception
//! does not run out of buffers.
//!
//! The arena is cut into slots of [`SLOT`] bytes; a frame takes as many as it needs, chained. A
//! [`Queue`] is a chain of frames in order of arrival. What is remembered of a frame lies before it in its first slot.
//! Memory that no hold needs is not taken, and a large hold's goes back when it is over.

mod arena;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::{Dscp, Instant};

pub use arena::{CHUNK, SLOT, SharedChunks};

use crate::update::{MAX_PORTS, PortIdx};
use arena::{Arena, NONE, ROOM};

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
    slots: u32,
}

impl Queue {
    /// No frames.
    pub const EMPTY: Queue = Queue { head: NONE, tail: NONE, len: 0, slots: 0 };

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

    /// The memory that they take, in slots.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.slots
    }
}

/// What lies before a frame in its first slot.
#[derive(Clone, Copy)]
struct Head {
    /// First slot of the next frame in the queue.
    next_frame: u32,
    /// Bytes of the frame.
    len: u32,
    /// Order of arrival over all queues.
    seq: u64,
    about: About,
}

/// Bytes of a [`Head`].
const HEAD: usize = 46;
/// Frames of a queue that are looked at for their port.
const LOOKED_AT: usize = 256;
/// Stands for no DSCP.
const NO_DSCP: u8 = u8::MAX;

/// The first `N` bytes of `from`, which leave it.
fn split<const N: usize>(from: &mut &[u8]) -> [u8; N] {
    let (first, rest) = from.split_first_chunk().unwrap_or((&[0; N], &[]));
    *from = rest;
    *first
}

impl Head {
    fn write(&self, to: &mut [u8]) {
        let a = &self.about;
        let (is_v6, sender) = match a.sender {
            IpAddr::V4(ip) => (0, ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => (1, ip.octets()),
        };
        let [p0, p1] = a.ingress.0.to_le_bytes();
        let small = [p0, p1, a.origin as u8, a.ttl, is_v6, a.dscp.map_or(NO_DSCP, Dscp::get)];
        let parts: [&[u8]; 6] = [
            &self.next_frame.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.seq.to_le_bytes(),
            &a.arrived.0.to_le_bytes(),
            &small,
            &sender,
        ];
        let mut at = 0;
        for part in parts {
            to[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }

    fn read(mut from: &[u8]) -> Head {
        let next_frame = u32::from_le_bytes(split(&mut from));
        let len = u32::from_le_bytes(split(&mut from));
        let seq = u64::from_le_bytes(split(&mut from));
        let arrived = Instant(u64::from_le_bytes(split(&mut from)));
        let [p0, p1, origin, ttl, is_v6, dscp] = split(&mut from);
        let sender = Ipv6Addr::from(split::<16>(&mut from));
        let sender = match (is_v6, sender.to_ipv4_mapped()) {
            (0, Some(v4)) => IpAddr::V4(v4),
            _ => IpAddr::V6(sender),
        };
        let about = About {
            arrived,
            ingress: PortIdx(u16::from_le_bytes([p0, p1])),
            origin: if origin == Origin::Overlay as u8 { Origin::Overlay } else { Origin::Local },
            ttl,
            sender,
            dscp: Dscp::new(dscp),
        };
        Head { next_frame, len, seq, about }
    }
}

/// The arena and the frames in it.
pub struct Holds {
    arena: Arena,
    frames: u32,
    seq: u64,
    /// Frames of VMs here, by the port that they came in on.
    from: Vec<u32>,
}

impl Holds {
    /// An arena of at most `bytes` bytes, bookkeeping included, and what it gets of `shared`.
    pub fn new(bytes: usize, shared: SharedChunks) -> Holds {
        Holds { arena: Arena::new(bytes, shared), frames: 0, seq: 0, from: vec![0; MAX_PORTS] }
    }

    /// Frames held, over all queues.
    #[inline]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Frames held that came in on this port of a VM, over all queues.
    pub fn held_from(&self, port: PortIdx) -> u32 {
        self.from.get(usize::from(port.0)).copied().unwrap_or(0)
    }

    /// A frame of `queue` came in on this port of a VM; or one may have, where there are too many to look at.
    pub fn has_from(&self, queue: &Queue, port: PortIdx) -> bool {
        let mut next = queue.head;
        for _ in 0..LOOKED_AT {
            if next == NONE {
                return false;
            }
            let head = Head::read(self.arena.room(next));
            if head.about.ingress == port && head.about.origin == Origin::Local {
                return true;
            }
            next = head.next_frame;
        }
        next != NONE
    }

    fn count_from(&mut self, about: &About, change: i32) {
        let count = self.from.get_mut(usize::from(about.ingress.0));
        if let Some(n) = count.filter(|_| about.origin == Origin::Local) {
            *n = n.saturating_add_signed(change);
        }
    }

    /// Slots in use.
    #[inline]
    pub fn slots_used(&self) -> u32 {
        self.arena.used()
    }

    /// Slots there may be: its own and all shared ones.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.arena.most()
    }

    /// Slots that frames for unknown destinations may take together: of its own, and at most half of all, so that
    /// what is shared, and half of what is not, stays for handovers (R35, R45).
    pub fn miss_slots(&self) -> u32 {
        self.arena.own().min(self.slots() / 2)
    }

    /// Memory that was taken and not given back, in bytes.
    pub fn resident(&self) -> usize {
        self.arena.resident()
    }

    /// Slots that a frame of `len` bytes takes.
    pub fn slots_of(len: usize) -> u32 {
        1 + len.saturating_sub(ROOM - HEAD).div_ceil(ROOM) as u32
    }

    /// A frame of `len` bytes fits.
    pub fn has_room(&self, len: usize) -> bool {
        Holds::slots_of(len) <= self.arena.free()
    }

    /// The same, and what is free is this arena's from then on.
    pub(crate) fn provide(&mut self, len: usize) -> bool {
        self.arena.provide(Holds::slots_of(len))
    }

    /// Puts a frame at the end of `queue`.
    ///
    /// # Errors
    /// [`NoMemory`], and no change, where too few slots are free.
    pub fn push(&mut self, queue: &mut Queue, frame: &[u8], about: About) -> Result<(), NoMemory> {
        let slots = Holds::slots_of(frame.len());
        if !self.arena.provide(slots) {
            return Err(NoMemory);
        }
        self.seq += 1;
        let head = Head { next_frame: NONE, len: frame.len() as u32, seq: self.seq, about };
        let first = self.arena.take();
        let room = self.arena.room_mut(first);
        head.write(room);
        let (part, rest) = frame.split_at(frame.len().min(ROOM - HEAD));
        room[HEAD..HEAD + part.len()].copy_from_slice(part);
        let mut last = first;
        for part in rest.chunks(ROOM) {
            let slot = self.arena.take();
            self.arena.link(last, slot);
            self.arena.room_mut(slot)[..part.len()].copy_from_slice(part);
            last = slot;
        }
        match queue.tail {
            NONE => queue.head = first,
            tail => self.arena.room_mut(tail)[..4].copy_from_slice(&first.to_le_bytes()),
        }
        queue.tail = first;
        queue.len += 1;
        queue.slots += slots;
        self.frames += 1;
        self.count_from(&about, 1);
        Ok(())
    }

    fn head(&self, queue: &Queue) -> Option<Head> {
        (queue.head != NONE).then(|| Head::read(self.arena.room(queue.head)))
    }

    /// What is known of the oldest frame.
    pub fn oldest(&self, queue: &Queue) -> Option<About> {
        self.head(queue).map(|h| h.about)
    }

    /// Place of the oldest frame in the order of arrival over all queues; the last place where the
    /// queue is empty.
    pub fn oldest_seq(&self, queue: &Queue) -> u64 {
        self.head(queue).map_or(u64::MAX, |h| h.seq)
    }

    /// Takes the oldest frame out; its bytes replace the content of `into`, which must have room
    /// for it if it is not to allocate.
    pub fn pop_into(&mut self, queue: &mut Queue, into: &mut Vec<u8>) -> Option<About> {
        self.copy_into(queue, into)?;
        self.pop(queue)
    }

    /// A copy of the oldest frame, which stays; its bytes replace the content of `into`, as above.
    pub fn copy_into(&self, queue: &Queue, into: &mut Vec<u8>) -> Option<About> {
        let head = self.head(queue)?;
        into.clear();
        let (mut slot, mut left, mut from) = (queue.head, head.len as usize, HEAD);
        loop {
            let part = left.min(ROOM - from);
            into.extend_from_slice(&self.arena.room(slot)[from..from + part]);
            left -= part;
            if left == 0 {
                break;
            }
            (slot, from) = (self.arena.next(slot), 0);
        }
        self.oldest(queue)
    }

    /// Takes the oldest frame out and forgets its bytes.
    pub fn pop(&mut self, queue: &mut Queue) -> Option<About> {
        let head = self.head(queue)?;
        let mut slot = queue.head;
        while slot != NONE {
            let next = self.arena.next(slot);
            self.arena.put_back(slot);
            slot = next;
        }
        queue.head = head.next_frame;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        queue.len -= 1;
        queue.slots -= Holds::slots_of(head.len as usize);
        self.frames -= 1;
        self.count_from(&head.about, -1);
        Some(head.about)
    }
}

#[cfg(test)]
mod tests;
