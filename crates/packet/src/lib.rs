//! What packet processing needs of a packet buffer, so that it runs on mbufs, on memory and on captures.
//!
//! A crate of its own, so that neither the pipeline knows DPDK nor DPDK's layer the pipeline.
#![forbid(unsafe_code)]
#![no_std]

/// A contiguous frame with room before and after it.
pub trait Packet {
    /// The frame, from the destination address on, without FCS.
    fn data(&self) -> &[u8];
    /// The same, writable.
    fn data_mut(&mut self) -> &mut [u8];
    /// Its length in bytes.
    #[inline]
    fn len(&self) -> usize {
        self.data().len()
    }
    /// There are no bytes in it.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Grows the frame by `n` bytes at its front and returns the whole of it; the new bytes' content
    /// is unspecified. `None`, and no change, where the headroom is smaller.
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]>;
    /// The same for a number of bytes that is known beforehand; returns the new bytes only.
    #[inline(always)]
    fn prepend_chunk<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.prepend(N)?.first_chunk_mut()
    }
    /// Cuts `n` bytes off the front; `n` is at most the length.
    fn trim_front(&mut self, n: usize);
    /// Cuts the frame to its first `len` bytes; `len` is at most the length.
    fn truncate(&mut self, len: usize);
    /// Replaces the content by `bytes`. `false`, and no change, where they do not fit.
    fn set(&mut self, bytes: &[u8]) -> bool;
    /// All bytes lie in one piece; other frames are dropped with a reason of their own.
    #[inline]
    fn is_contiguous(&self) -> bool {
        true
    }
}

/// Where the pipeline gets buffers for copies, answers and frames that were held.
pub trait PacketSource<P: Packet> {
    /// An empty buffer with headroom for an outer header, or `None` where the pool is empty.
    fn alloc(&mut self) -> Option<P>;
}
