//! Buffers and pools as packet processing sees them.

use std::sync::Arc;

use godwit_packet::{Asks, Packet, PacketSource, Unfinished};

use crate::mbuf::Mbuf;
use crate::mempool::Mempool;

/// A worker's handle of a pool.
pub type Pool = Arc<Mempool>;

impl Packet for Mbuf {
    #[inline]
    fn data(&self) -> &[u8] {
        Mbuf::data(self)
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        Mbuf::data_mut(self)
    }

    #[inline]
    fn len(&self) -> usize {
        self.frame_len()
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        Mbuf::prepend(self, n)
    }

    #[inline(always)]
    fn prepend_chunk<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        Mbuf::prepend_chunk(self)
    }

    #[inline]
    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if self.is_contiguous() { Mbuf::append(self, n) } else { None }
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        Mbuf::trim_front(self, n);
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        Mbuf::truncate(self, len);
    }

    #[inline(always)]
    fn cut(&mut self, from: usize, end: usize) {
        Mbuf::cut(self, from, end);
    }

    #[inline]
    fn set(&mut self, bytes: &[u8]) -> bool {
        Mbuf::set(self, bytes)
    }

    #[inline]
    fn is_plain(&self) -> bool {
        Mbuf::is_plain(self)
    }

    #[inline]
    fn is_contiguous(&self) -> bool {
        Mbuf::is_contiguous(self)
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.segments()
    }

    fn asks(&self) -> Asks {
        Mbuf::asks(self)
    }

    fn finished(&mut self) {
        Mbuf::finished(self);
    }

    fn hand_on(&mut self, missing: Unfinished) {
        Mbuf::hand_on(self, missing);
    }

    fn is_handed_on(&self) -> bool {
        Mbuf::is_handed_on(self)
    }
}

impl PacketSource<Mbuf> for Pool {
    #[inline]
    fn alloc(&mut self) -> Option<Mbuf> {
        Mempool::alloc(self)
    }
}
