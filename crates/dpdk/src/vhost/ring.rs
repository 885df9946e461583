//! One ring of a guest, between the worker that polls it and librte_vhost's thread, which takes it away.
//!
//! A ring is *open* while its worker may use it. [`Ring::enter`] and [`Ring::leave`] enclose each use; [`Ring::close`]
//! keeps further ones away, and [`Ring::wait`] waits for one that is under way. What the library frees or unmaps, it
//! frees after both.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU16, AtomicU64, Ordering, fence};

use super::barrier;

/// The ring is not to be used.
const CLOSED: u8 = 0;
/// It is; the other side's barrier is [`barrier::heavy`].
const OPEN: u8 = 1;
/// It is, and both sides need a full barrier.
const OPEN_FENCED: u8 = 2;

/// `VIRTIO_NET_F_GUEST_CSUM`: the guest takes frames without their checksums.
pub(super) const TAKES_NO_SUM: u8 = 1;
/// `VIRTIO_NET_F_GUEST_TSO4` and `_TSO6`: it takes TCP frames that are not cut.
pub(super) const TAKES_TSO4: u8 = 2;
pub(super) const TAKES_TSO6: u8 = 4;
/// All of these.
pub(super) const TAKES_ALL: u8 = TAKES_NO_SUM | TAKES_TSO4 | TAKES_TSO6;

/// What both sides know of a ring: one cache line, written by the worker, except when the guest changes.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Ring {
    state: AtomicU8,
    /// A worker uses the ring right now.
    busy: AtomicBool,
    /// Something has happened at the ring that its entries do not show.
    news: AtomicBool,
    /// What a guest takes unfinished, by the bits above.
    takes: AtomicU8,
    /// The library's number of the connection.
    vid: AtomicI32,
    /// Where to look for entries ([`Ring::at`]); null where that is not known.
    base: AtomicPtr<u16>,
    /// Descriptors of a packed ring; 0: a split one.
    packed: AtomicU16,
    /// Frames and bytes that went through it; written by its worker only.
    frames: AtomicU64,
    bytes: AtomicU64,
    /// Frames that its guest could not be given at all.
    lost: AtomicU64,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring {
            state: AtomicU8::new(CLOSED),
            busy: AtomicBool::new(false),
            news: AtomicBool::new(false),
            takes: AtomicU8::new(0),
            vid: AtomicI32::new(-1),
            base: AtomicPtr::new(ptr::null_mut()),
            packed: AtomicU16::new(0),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }
}

/// Where a ring's entries are to be seen, without taking any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// Of a split ring: the guest's count of entries, modulo 65,536.
    Split(*const u16),
    /// Of a packed ring: its descriptors, and how many.
    Packed(*const u16, u16),
}

impl Ring {
    /// The worker's side: begins to use the ring. The library's number of the connection, or `None` where the ring is
    /// closed. After `Some`, [`Ring::leave`] is called.
    #[inline(always)]
    pub(super) fn enter(&self) -> Option<i32> {
        let state = self.state.load(Ordering::Relaxed);
        if state == CLOSED {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        if state == OPEN {
            barrier::light()
        } else {
            fence(Ordering::SeqCst)
        }
        // Acquire: what `open` wrote before is seen, and nothing of what follows is done before.
        if self.state.load(Ordering::Acquire) == CLOSED {
            self.leave();
            return None;
        }
        Some(self.vid.load(Ordering::Relaxed))
    }

    /// The worker's side: ends its use of the ring.
    #[inline(always)]
    pub(super) fn leave(&self) {
        // Release: whatever was done in the ring has been done when `wait` sees this.
        self.busy.store(false, Ordering::Release);
    }

    /// Opens a closed ring for a connection of that number.
    pub(super) fn open(&self, vid: i32, look: Option<Look>, takes: u8) {
        let (base, packed) = match look {
            None => (ptr::null(), 0),
            Some(Look::Split(at)) => (at, 0),
            Some(Look::Packed(at, size)) => (at, size),
        };
        self.vid.store(vid, Ordering::Relaxed);
        self.base.store(base.cast_mut(), Ordering::Relaxed);
        self.packed.store(packed, Ordering::Relaxed);
        self.takes.store(takes, Ordering::Relaxed);
        self.tell();
        let state = if barrier::is_one_sided() { OPEN } else { OPEN_FENCED };
        // Release: pairs with the second load in `enter`.
        self.state.store(state, Ordering::Release);
    }

    /// Keeps the worker out from now on. It may be in the ring still: see [`Ring::wait`].
    pub(super) fn close(&self) {
        self.state.store(CLOSED, Ordering::SeqCst);
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Relaxed) != CLOSED
    }

    /// Waits until the worker has left a ring that was closed, and [`barrier::heavy`] called after that. Not under a
    /// lock of the library's that the worker may be waiting for.
    pub(super) fn wait(&self) {
        let mut looks = 0_u32;
        // Acquire: pairs with the store in `leave`.
        while self.busy.load(Ordering::Acquire) {
            looks += 1;
            // The worker may have lost its core.
            if looks.is_multiple_of(64) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    /// Has the worker look into the ring, whatever its entries say.
    pub(super) fn tell(&self) {
        self.news.store(true, Ordering::Release);
    }

    /// The worker's side: there is news. Only in the ring.
    #[inline(always)]
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed)
    }

    /// The worker's side: it looks into the ring now.
    #[inline(always)]
    pub(super) fn hears_news(&self) {
        if self.news.load(Ordering::Relaxed) {
            // An exchange, so that what was written before the news was told is seen.
            self.news.swap(false, Ordering::Acquire);
        }
    }

    /// The worker's side: where to look for entries; `None`: only by taking them. Only in the ring.
    #[inline(always)]
    pub(super) fn at(&self) -> Option<Look> {
        let base = self.base.load(Ordering::Relaxed).cast_const();
        match self.packed.load(Ordering::Relaxed) {
            _ if base.is_null() => None,
            0 => Some(Look::Split(base)),
            size => Some(Look::Packed(base, size)),
        }
    }

    /// The worker's side: what the guest takes unfinished. Only in the ring.
    #[inline(always)]
    pub(super) fn takes(&self) -> u8 {
        self.takes.load(Ordering::Relaxed)
    }

    /// The worker's side: counts what went through.
    #[inline(always)]
    pub(super) fn count(&self, frames: usize, bytes: u64) {
        add(&self.frames, frames as u64);
        add(&self.bytes, bytes);
    }

    /// The worker's side: counts frames that the guest could not be given.
    pub(super) fn count_lost(&self, frames: usize) {
        add(&self.lost, frames as u64);
    }

    /// Frames, bytes, and frames lost.
    pub(super) fn counts(&self) -> [u64; 3] {
        [&self.frames, &self.bytes, &self.lost].map(|n| n.load(Ordering::Relaxed))
    }
}

/// Adds to a number that one thread writes: no locked instruction.
#[inline(always)]
fn add(to: &AtomicU64, n: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Keeps the workers out of all these rings, and returns when none is in one.
pub(super) fn take_away<'a>(rings: impl Iterator<Item = &'a Ring> + Clone) {
    rings.clone().for_each(Ring::close);
    barrier::heavy();
    rings.for_each(Ring::wait);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn r13_a_ring_is_one_line_and_opens_with_all_that_was_said() {
        assert_eq!(size_of::<Ring>(), 64);
        let ring = Ring::default();
        assert_eq!(ring.enter(), None);
        let word = 7_u16;
        ring.open(5, Some(Look::Split(&word)), TAKES_ALL);
        assert_eq!(ring.enter(), Some(5));
        assert!(ring.has_news());
        ring.hears_news();
        assert!(!ring.has_news());
        assert_eq!((ring.at(), ring.takes()), (Some(Look::Split(&word)), TAKES_ALL));
        ring.leave();
        ring.count(2, 120);
        ring.count(1, 60);
        ring.count_lost(1);
        assert_eq!(ring.counts(), [3, 180, 1]);
        take_away([&ring].into_iter());
        assert_eq!(ring.enter(), None);
        assert!(!ring.is_open());
    }

    /// What the other side frees once the ring is closed is never touched after that.
    #[test]
    fn r13_nobody_is_in_a_ring_that_was_taken_away() {
        const ROUNDS: usize = 500;
        let ring = Arc::new(Ring::default());
        // Stands for the guest's memory: 0 is gone, anything else is there.
        let memory = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let worker = std::thread::spawn({
            let (ring, memory, ended) = (ring.clone(), memory.clone(), ended.clone());
            move || {
                let (mut used, mut wrong) = (0_usize, 0_usize);
                while !ended.load(Ordering::Relaxed) {
                    let Some(vid) = ring.enter() else {
                        std::thread::yield_now();
                        continue;
                    };
                    used += 1;
                    for _ in 0..16 {
                        wrong += usize::from(memory.load(Ordering::Relaxed) != vid as usize + 1);
                    }
                    ring.leave();
                }
                (used, wrong)
            }
        });
        for round in 0..ROUNDS {
            memory.store(round + 1, Ordering::Relaxed);
            ring.open(round as i32, None, 0);
            if round % 4 == 0 {
                std::thread::yield_now();
            }
            take_away([&*ring].into_iter());
            memory.store(0, Ordering::Relaxed);
        }
        ended.store(true, Ordering::Relaxed);
        let (_, wrong) = worker.join().expect("the worker ends well");
        assert_eq!(wrong, 0);
    }
}
