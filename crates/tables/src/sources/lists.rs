//! Short lists in memory of fixed size, which are looked through one by one.

use core::net::IpAddr;

use godwit_wire::Prefix;

use super::MAX_PREFIXES;
use crate::OutOfRange;

/// A short list in memory of its own.
#[derive(Clone, Debug)]
pub(super) struct List<T, const N: usize> {
    items: [T; N],
    pub(super) len: usize,
}

impl<T: Copy, const N: usize> List<T, N> {
    pub(super) const fn of(nothing: T) -> Self {
        List { items: [nothing; N], len: 0 }
    }

    pub(super) fn all(&self) -> &[T] {
        &self.items[..self.len.min(N)]
    }

    pub(super) fn all_mut(&mut self) -> &mut [T] {
        &mut self.items[..self.len.min(N)]
    }

    pub(super) fn push(&mut self, item: T) -> Result<(), OutOfRange> {
        *self.items.get_mut(self.len).ok_or(OutOfRange)? = item;
        self.len += 1;
        Ok(())
    }

    pub(super) fn take(&mut self, at: usize) {
        self.len -= 1;
        self.items.swap(at, self.len);
    }

    /// Keeps those that `good` takes, in their order; it is shown those that were kept before as well.
    pub(super) fn retain(&mut self, mut good: impl FnMut(&[T], &T) -> bool) {
        let mut kept = 0;
        for at in 0..self.len.min(N) {
            let item = self.items[at];
            if good(&self.items[..kept], &item) {
                self.items[kept] = item;
                kept += 1;
            }
        }
        self.len = kept;
    }
}

/// Prefixes as frames are compared with them: their bits, and which of these count.
#[derive(Clone, Debug)]
pub(super) struct Prefixes {
    pub(super) v4: List<(u32, u32), MAX_PREFIXES>,
    pub(super) v6: List<(u128, u128), MAX_PREFIXES>,
}

impl Prefixes {
    pub(super) const NONE: Prefixes = Prefixes { v4: List::of((0, 0)), v6: List::of((0, 0)) };

    #[inline(always)]
    pub(super) fn has_v4(&self, a: u32) -> bool {
        self.v4.all().iter().any(|(bits, mask)| (a ^ bits) & mask == 0)
    }

    #[inline(always)]
    pub(super) fn has_v6(&self, a: u128) -> bool {
        self.v6.all().iter().any(|(bits, mask)| (a ^ bits) & mask == 0)
    }

    #[inline]
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => self.has_v4(a.to_bits()),
            IpAddr::V6(a) => self.has_v6(a.to_bits()),
        }
    }

    pub(super) fn add(&mut self, prefix: Prefix) -> Result<(), OutOfRange> {
        self.remove(prefix);
        if self.v4.len + self.v6.len >= MAX_PREFIXES {
            return Err(OutOfRange);
        }
        match prefix.addr() {
            IpAddr::V4(a) => self.v4.push((a.to_bits(), mask(prefix, 32) as u32)),
            IpAddr::V6(a) => self.v6.push((a.to_bits(), mask(prefix, 128))),
        }
    }

    pub(super) fn remove(&mut self, prefix: Prefix) {
        match prefix.addr() {
            IpAddr::V4(a) => {
                let gone = (a.to_bits(), mask(prefix, 32) as u32);
                self.v4.retain(|_, p| *p != gone);
            }
            IpAddr::V6(a) => {
                let gone = (a.to_bits(), mask(prefix, 128));
                self.v6.retain(|_, p| *p != gone);
            }
        }
    }
}

/// The first bits of so many.
fn mask(prefix: Prefix, bits: u32) -> u128 {
    u128::MAX.checked_shl(bits.saturating_sub(prefix.prefix_len().into())).unwrap_or(0)
}
