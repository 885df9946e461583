//! One packet buffer.
//!
//! The accessors stand on the packet path: they read and write the buffer's header in place, check
//! what memory safety needs and nothing else, and make no call.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use dpdk_sys::godwit_mbuf;
use godwit_packet::{Asks, Unfinished};

/// The frame is IPv4 (set with [`TX_IP_CKSUM`]).
pub const TX_IPV4: u64 = dpdk_sys::GODWIT_MBUF_TX_IPV4;
/// The frame is IPv6.
pub const TX_IPV6: u64 = dpdk_sys::GODWIT_MBUF_TX_IPV6;
/// The NIC is to fill in the IPv4 header's checksum.
pub const TX_IP_CKSUM: u64 = dpdk_sys::GODWIT_MBUF_TX_IP_CKSUM;
/// The NIC is to fill in the UDP checksum.
pub const TX_UDP_CKSUM: u64 = dpdk_sys::GODWIT_MBUF_TX_UDP_CKSUM;

/// A guest left the TCP or UDP checksum out. Both bits: one of them alone says that it is wrong.
const RX_L4_NONE: u64 = dpdk_sys::GODWIT_MBUF_RX_L4_CKSUM_NONE as u64;
/// A guest wants the frame cut.
const RX_LRO: u64 = dpdk_sys::GODWIT_MBUF_RX_LRO as u64;
/// A guest's frame with any of these asks for something. Wrong checksums are looked at closely, too: it costs
/// one test less. An uplink's frames are not asked: some cards call a checksum wrong that VXLAN leaves out, or that a
/// tenant made up.
const ASKING: u64 = dpdk_sys::GODWIT_MBUF_RX_L4_CKSUM_BAD as u64 | RX_LRO;
const TX_TCP_SEG: u64 = dpdk_sys::GODWIT_MBUF_TX_TCP_SEG;
const TX_TCP_CKSUM: u64 = dpdk_sys::GODWIT_MBUF_TX_TCP_CKSUM;
/// Where the lengths lie in [`godwit_mbuf::tx_offload`]: 7, 9, 8 and 16 bits.
const L3_LEN_AT: u32 = 7;
const L4_LEN_AT: u32 = 16;
const SEGMENT_AT: u32 = 24;

/// A packet buffer and its only owner; dropped, it goes back to its pool.
///
/// A frame that a driver had to spread over several segments ([`Mbuf::is_contiguous`] is `false`) shows
/// its first segment only.
#[repr(transparent)]
pub struct Mbuf(NonNull<godwit_mbuf>);

// SAFETY: a buffer has one owner, which may be any thread; pools take buffers back from every thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over a buffer from C.
    ///
    /// # Safety
    /// `raw` points to a live rte_mbuf of a live pool, that nothing else owns or refers to.
    #[inline]
    pub unsafe fn from_raw(raw: NonNull<godwit_mbuf>) -> Self {
        Self(raw)
    }

    /// Gives the buffer up to C, which has to free it.
    #[inline]
    pub fn into_raw(self) -> NonNull<godwit_mbuf> {
        ManuallyDrop::new(self).0
    }

    #[inline]
    fn header(&self) -> &godwit_mbuf {
        // SAFETY: the pointer is to a live rte_mbuf, whose leading fields godwit_mbuf mirrors (asserted
        // when the shim is compiled). As the only owner, `&self` excludes writers.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut godwit_mbuf {
        // SAFETY: as in `header`; `&mut self` excludes every other access.
        unsafe { self.0.as_mut() }
    }

    /// The frame's bytes.
    #[inline]
    pub fn data(&self) -> &[u8] {
        let h = self.header();
        // SAFETY: DPDK and the methods below keep data_off + data_len <= buf_len, the buffer's size; the
        // buffer is initialised memory and has no other owner.
        unsafe {
            std::slice::from_raw_parts(
                h.buf_addr.cast::<u8>().add(usize::from(h.data_off)),
                usize::from(h.data_len),
            )
        }
    }

    /// The frame's bytes, writable.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let h = self.header();
        // SAFETY: as in `data`; `&mut self` excludes every other access for the slice's life.
        unsafe {
            std::slice::from_raw_parts_mut(
                h.buf_addr.cast::<u8>().add(usize::from(h.data_off)),
                usize::from(h.data_len),
            )
        }
    }

    /// Bytes of data (of the first segment, where there are several).
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.header().data_len)
    }

    /// There are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.header().data_len == 0
    }

    /// The whole frame's length in bytes, all segments counted.
    #[inline]
    pub fn frame_len(&self) -> usize {
        self.header().pkt_len as usize
    }

    /// The frame lies in one piece.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.header().nb_segs == 1
    }

    /// The frame lies in one piece and its sender left nothing to be done: one test of each of two words of
    /// the header's first cache line.
    #[inline]
    pub fn is_plain(&self) -> bool {
        let h = self.header();
        h.nb_segs == 1 && h.ol_flags & ASKING == 0
    }

    /// What the guest that sent the frame left to be done.
    #[inline]
    pub fn asks(&self) -> Asks {
        let h = self.header();
        let cut = h.ol_flags & RX_LRO != 0;
        let segment = if cut { (h.tx_offload >> SEGMENT_AT) as u16 } else { 0 };
        // A cut without a size is beyond what packets can carry out; one byte makes it refuse.
        let segment = if cut { segment.max(1) } else { segment };
        Asks { checksum: cut || h.ol_flags & RX_L4_NONE == RX_L4_NONE, segment }
    }

    /// Forgets what the sender left to be done.
    #[inline]
    pub fn finished(&mut self) {
        self.header_mut().ol_flags &= !(RX_L4_NONE | RX_LRO);
    }

    /// Has the frame sent without its checksum, or uncut, its receiver told. For ports whose guest takes it
    /// so ([`crate::Port::guest_receive_offloads`]).
    pub fn hand_on(&mut self, missing: Unfinished) {
        self.finished();
        let h = self.header_mut();
        let family = if missing.six { TX_IPV6 } else { TX_IPV4 };
        let checksum = if missing.tcp { TX_TCP_CKSUM } else { TX_UDP_CKSUM };
        let cut = if missing.segment > 0 { TX_TCP_SEG } else { 0 };
        h.ol_flags |= family | checksum | cut;
        h.tx_offload = (missing.l2_len as u64 & 0x7f)
            | (missing.l3_len as u64 & 0x1ff) << L3_LEN_AT
            | (missing.l4_len as u64 & 0xff) << L4_LEN_AT
            | u64::from(missing.segment) << SEGMENT_AT;
    }

    /// [`Mbuf::hand_on`] was called.
    #[inline]
    pub fn is_handed_on(&self) -> bool {
        self.header().ol_flags & (TX_TCP_SEG | TX_TCP_CKSUM | TX_UDP_CKSUM) != 0
    }

    /// [`Mbuf::hand_on`] was called for a frame that its receiver is to cut.
    pub(crate) fn is_uncut(&self) -> bool {
        self.header().ol_flags & TX_TCP_SEG != 0
    }

    /// Fills in the checksum that [`Mbuf::hand_on`] left to the receiver. `false`, and perhaps another sum in its
    /// place, where the frame has no such one.
    pub(crate) fn finish_checksum(&mut self) -> bool {
        // SAFETY: the buffer is live and has no other owner; all that is read and written lies within its frame.
        unsafe { dpdk_sys::godwit_mbuf_finish_checksum(self.0.as_ptr()) == 0 }
    }

    /// The frame's pieces in order.
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: Some(self.0), left: self.header().nb_segs, frame: PhantomData }
    }

    /// Bytes free before the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.header().data_off)
    }

    /// Bytes free after the data (of the first segment).
    #[inline]
    pub fn tailroom(&self) -> usize {
        let h = self.header();
        usize::from(h.buf_len) - usize::from(h.data_off) - usize::from(h.data_len)
    }

    /// Grows the frame by `n` bytes at its front and returns the whole of it; the new bytes hold
    /// whatever was there. `None`, and no change, where the headroom is smaller.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let h = self.header_mut();
        if n > usize::from(h.data_off) {
            return None;
        }
        // `n` is at most data_off, and data_off + data_len at most buf_len: no sum overflows.
        h.data_off -= n as u16;
        h.data_len += n as u16;
        h.pkt_len = h.pkt_len.wrapping_add(n as u32);
        Some(self.data_mut())
    }

    /// The same for a number of bytes that is known beforehand; returns the new bytes only.
    #[inline(always)]
    pub fn prepend_chunk<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let h = self.header_mut();
        if N > usize::from(h.data_off) {
            return None;
        }
        h.data_off -= N as u16;
        h.data_len += N as u16;
        h.pkt_len = h.pkt_len.wrapping_add(N as u32);
        // SAFETY: the `N` bytes from the new data_off on lie within the buffer, since they did within
        // the headroom; the buffer is initialised memory, and `&mut self` excludes every other access.
        // A buffer in use has an address, which the compiler cannot know and would ask for each frame.
        unsafe {
            core::hint::assert_unchecked(!h.buf_addr.is_null());
            Some(&mut *h.buf_addr.cast::<u8>().add(usize::from(h.data_off)).cast())
        }
    }

    /// Cuts `n` bytes off the front.
    ///
    /// # Panics
    /// Where `n` exceeds the length.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        let h = self.header_mut();
        assert!(n <= usize::from(h.data_len), "trim_front beyond the end of the frame");
        h.data_off += n as u16;
        h.data_len -= n as u16;
        h.pkt_len = h.pkt_len.wrapping_sub(n as u32);
    }

    /// Grows the frame by `n` bytes at its end (of the first segment) and returns the new ones, which
    /// hold whatever was there. `None`, and no change, where the tailroom is smaller.
    #[inline]
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() {
            return None;
        }
        let h = self.header_mut();
        let old = usize::from(h.data_len);
        h.data_len += n as u16;
        h.pkt_len = h.pkt_len.wrapping_add(n as u32);
        Some(&mut self.data_mut()[old..])
    }

    /// Cuts the frame (its first segment) to `len` bytes.
    ///
    /// # Panics
    /// Where `len` exceeds the length.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        let h = self.header_mut();
        assert!(len <= usize::from(h.data_len), "truncate beyond the end of the frame");
        h.pkt_len = h.pkt_len.wrapping_sub(u32::from(h.data_len) - len as u32);
        h.data_len = len as u16;
    }

    /// Keeps the bytes from `from` to `end` of a frame in one segment.
    ///
    /// # Panics
    /// Where they are not in that order, or the frame is shorter.
    #[inline(always)]
    pub fn cut(&mut self, from: usize, end: usize) {
        let h = self.header_mut();
        assert!(from <= end && end <= usize::from(h.data_len), "a cut beyond the end of the frame");
        let len = (end - from) as u16;
        h.pkt_len = h.pkt_len.wrapping_sub(u32::from(h.data_len - len));
        h.data_off += from as u16;
        h.data_len = len;
    }

    /// Replaces the content by `bytes`, with the headroom as it is. `false`, and no change, where they
    /// do not fit or the frame has several segments.
    #[inline]
    pub fn set(&mut self, bytes: &[u8]) -> bool {
        let room = self.len() + self.tailroom();
        if bytes.len() > room || !self.is_contiguous() {
            return false;
        }
        let h = self.header_mut();
        h.data_len = bytes.len() as u16;
        h.pkt_len = bytes.len() as u32;
        self.data_mut().copy_from_slice(bytes);
        true
    }

    /// The id of the port that received the frame.
    #[inline]
    pub fn port_id(&self) -> u16 {
        self.header().port
    }

    /// DPDK's offload flags (`RTE_MBUF_F_*`).
    #[inline]
    pub fn offload_flags(&self) -> u64 {
        self.header().ol_flags & !BUFFER_FLAGS
    }

    /// Sets DPDK's offload flags. Those that say whose memory the buffer is cannot be changed.
    #[inline]
    pub fn set_offload_flags(&mut self, flags: u64) {
        let h = self.header_mut();
        h.ol_flags = (h.ol_flags & BUFFER_FLAGS) | (flags & !BUFFER_FLAGS);
    }

    /// Gives all buffers back to their pools at once and leaves the vector empty, its capacity kept.
    #[inline]
    pub fn free_all(pkts: &mut Vec<Mbuf>) {
        let n = pkts.len();
        // SAFETY: the vector's `n` elements are pointers to live, owned buffers, to which Mbuf is
        // transparent. Its length is set to 0 first, so that no element is freed twice.
        unsafe {
            pkts.set_len(0);
            dpdk_sys::godwit_mbuf_free_bulk(pkts.as_mut_ptr().cast(), n as u32);
        }
    }
}

/// The pieces of a frame, see [`Mbuf::segments`].
#[derive(Debug)]
pub struct Segments<'a> {
    next: Option<NonNull<godwit_mbuf>>,
    left: u16,
    frame: PhantomData<&'a Mbuf>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next?;
        if self.left > 0 {
            // SAFETY: `at` is a segment of a live chain, which the borrowed frame owns.
            self.next = NonNull::new(unsafe { dpdk_sys::godwit_mbuf_next(at.as_ptr()) });
        }
        // SAFETY: as above; DPDK keeps data_off + data_len <= buf_len for each segment, and nobody writes
        // to it while the frame is borrowed.
        unsafe {
            let h = at.as_ref();
            let data = h.buf_addr.cast::<u8>().add(usize::from(h.data_off));
            Some(std::slice::from_raw_parts(data, usize::from(h.data_len)))
        }
    }
}

/// `RTE_MBUF_F_EXTERNAL` and `RTE_MBUF_F_INDIRECT`: they decide how a buffer is freed.
const BUFFER_FLAGS: u64 = dpdk_sys::GODWIT_MBUF_BUFFER_FLAGS;

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the buffer is live and owned by this value, which is not used again.
        unsafe { dpdk_sys::godwit_mbuf_free(self.0.as_ptr()) }
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("segments", &self.header().nb_segs)
            .finish_non_exhaustive()
    }
}

/// Removes the first `n` buffers without freeing them: somebody else has taken them over.
///
/// # Safety
/// `n` is at most the vector's length.
#[inline]
pub(crate) unsafe fn forget_front(pkts: &mut Vec<Mbuf>, n: usize) {
    let rest = pkts.len() - n;
    // SAFETY: both ranges lie within the vector's initialised part; the copied elements are not dropped
    // at their old place, as the length shrinks by as many.
    unsafe {
        let start = pkts.as_mut_ptr();
        std::ptr::copy(start.add(n), start, rest);
        pkts.set_len(rest);
    }
}

#[cfg(test)]
mod tests;
