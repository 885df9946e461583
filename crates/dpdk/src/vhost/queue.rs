//! Queues of a guest: what a worker owns of its rings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::port::Socket;
use super::ring::{Look, Ring, TAKES_ALL, TAKES_NO_SUM, TAKES_TSO4, TAKES_TSO6};
use crate::lease::Lease;
use crate::mbuf::{self, Mbuf, TX_IPV6};
use crate::mempool::Mempool;

/// Frames that librte_vhost handles in one call, at most (`MAX_PKT_BURST`).
const CALL: usize = 32;

/// Bits of a packed ring's descriptor that say whose it is (virtio 1.1, section 2.7.1).
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Bytes of a packed ring's descriptor, and where its flags are in it.
const DESCRIPTOR: usize = 16;
const FLAGS_AT: usize = 14;

/// What a guest sends by. One owner, any thread.
#[derive(Debug)]
pub(crate) struct VhostRx {
    ring: Arc<Ring>,
    number: u16,
    pool: Arc<Mempool>,
    /// The next entry, as the library has it; `None` where that is to be asked for.
    next: Option<u16>,
    lease: Lease<Socket>,
}

/// What a guest receives by. One owner, any thread.
#[derive(Debug)]
pub(crate) struct VhostTx {
    ring: Arc<Ring>,
    number: u16,
    lease: Lease<Socket>,
}

impl VhostRx {
    /// The only handle of the ring of that number.
    pub(super) fn new(ring: Arc<Ring>, number: u16, pool: Arc<Mempool>, lease: Lease<Socket>) -> VhostRx {
        VhostRx { ring, number, pool, next: None, lease }
    }

    /// See [`crate::RxQueue::rx`].
    #[inline]
    pub(crate) fn rx(&mut self, out: &mut Vec<Mbuf>, max: usize) -> usize {
        let Some(vid) = self.ring.enter() else { return 0 };
        self.ring.hears_news();
        self.next = None;
        let start = out.len();
        let mut room = max.min(out.capacity() - start);
        while room > 0 {
            let asked = room.min(CALL);
            // SAFETY: the ring is open until `leave`, so that the library keeps the connection and its memory, and
            // `&mut self` is the ring's only handle. The spare capacity has room for `asked` pointers, to which Mbuf
            // is transparent; the library writes `got` of them, each to a buffer of the pool that it gives up.
            let got = unsafe {
                let spare = out.as_mut_ptr().add(out.len()).cast();
                let (pool, asked) = (self.pool.as_ptr(), asked as u16);
                let got = usize::from(dpdk_sys::godwit_vhost_rx(vid, self.number, pool, spare, asked));
                out.set_len(out.len() + got);
                got
            };
            room -= got;
            if got < asked {
                break;
            }
        }
        self.ring.leave();
        let got = out.len() - start;
        if got > 0 {
            self.ring.count(got, out[start..].iter().map(|m| m.frame_len() as u64).sum());
        }
        got
    }

    /// See [`crate::RxQueue::has_frames`].
    #[inline]
    pub(crate) fn has_frames(&mut self) -> bool {
        let Some(vid) = self.ring.enter() else { return false };
        let has = self.ring.has_news() || self.sees_some(vid);
        self.ring.leave();
        has
    }

    /// The ring has entries that were not taken. In the ring.
    #[inline]
    fn sees_some(&mut self, vid: i32) -> bool {
        let Some(at) = self.ring.at() else { return true };
        let number = self.number;
        // SAFETY: the ring is open, so the connection is there; only this queue and the library's thread, which
        // tells of it, change the position.
        let next = *self.next.get_or_insert_with(|| unsafe { dpdk_sys::godwit_vhost_position(vid, number) });
        match at {
            // SAFETY: the word lies in the guest's memory, which stays mapped while the ring is open, at an even
            // address as the library has it. The guest writes to it at any time, so it is read as an atomic.
            Look::Split(at) => unsafe { word(at) != Some(next) },
            Look::Packed(base, size) => {
                let (index, wrap) = (next & 0x7fff, next >> 15 != 0);
                if index >= size {
                    return true;
                }
                // SAFETY: as above; the ring has `size` descriptors, all of them in the guest's memory.
                let flags = unsafe { word(base.byte_add(usize::from(index) * DESCRIPTOR + FLAGS_AT)) };
                let Some(flags) = flags else { return true };
                wrap == (flags & AVAILABLE != 0) && wrap != (flags & USED != 0)
            }
        }
    }

    pub(crate) fn queue_id(&self) -> u16 {
        self.number / 2
    }

    pub(crate) fn port_name(&self) -> &str {
        self.lease.name()
    }
}

/// A word that the guest may be writing to; `None` at an odd address, which a guest may name.
///
/// # Safety
/// The two bytes are mapped.
#[inline]
unsafe fn word(at: *const u16) -> Option<u16> {
    // SAFETY: the caller vouches for the bytes; the address is even. No reference to them is ever made.
    at.is_aligned().then(|| unsafe { AtomicU16::from_ptr(at.cast_mut()) }.load(Ordering::Relaxed))
}

impl VhostTx {
    /// The only handle of the ring of that number.
    pub(super) fn new(ring: Arc<Ring>, number: u16, lease: Lease<Socket>) -> VhostTx {
        VhostTx { ring, number, lease }
    }

    /// See [`crate::TxQueue::tx`].
    #[inline]
    pub(crate) fn tx(&mut self, pkts: &mut Vec<Mbuf>) -> usize {
        let Some(vid) = self.ring.enter() else { return 0 };
        let takes = self.ring.takes();
        let lost = if takes == TAKES_ALL { 0 } else { finish(pkts, takes) };
        let mut sent = 0;
        while sent < pkts.len() {
            let asked = (pkts.len() - sent).min(CALL);
            // SAFETY: the ring is open until `leave`, so that the library keeps the connection and its memory, and
            // `&mut self` is the ring's only handle. The elements are pointers to live, owned buffers, which the
            // library reads, and whose checksum fields it may write.
            let took = unsafe {
                let first = pkts.as_mut_ptr().add(sent).cast();
                usize::from(dpdk_sys::godwit_vhost_tx(vid, self.number, first, asked as u16))
            };
            sent += took;
            if took < asked {
                break;
            }
        }
        self.ring.leave();
        if lost > 0 {
            self.ring.count_lost(lost);
        }
        if sent > 0 {
            self.ring.count(sent, pkts[..sent].iter().map(|m| m.frame_len() as u64).sum());
            // SAFETY: the first `sent` elements are owned buffers that the library is done with; they are removed
            // without being freed a second time.
            unsafe {
                dpdk_sys::godwit_mbuf_free_bulk(pkts.as_mut_ptr().cast(), sent as u32);
                mbuf::forget_front(pkts, sent);
            }
        }
        sent + lost
    }

    pub(crate) fn queue_id(&self) -> u16 {
        self.number / 2
    }

    pub(crate) fn port_name(&self) -> &str {
        self.lease.name()
    }
}

/// Frames that were left unfinished for another guest, or before this one said what it takes: fills in checksums, and
/// drops what would have to be cut. How many were dropped.
#[cold]
fn finish_some(pkts: &mut Vec<Mbuf>, takes: u8) -> usize {
    let before = pkts.len();
    pkts.retain_mut(|m| {
        if !m.is_handed_on() {
            return true;
        }
        let cut = if m.offload_flags() & TX_IPV6 != 0 { TAKES_TSO6 } else { TAKES_TSO4 };
        let needs = if m.is_uncut() { cut | TAKES_NO_SUM } else { TAKES_NO_SUM };
        takes & needs == needs || (!m.is_uncut() && m.finish_checksum())
    });
    before - pkts.len()
}

#[inline]
fn finish(pkts: &mut Vec<Mbuf>, takes: u8) -> usize {
    if pkts.iter().any(Mbuf::is_handed_on) { finish_some(pkts, takes) } else { 0 }
}
