//! What the forwarding table says of a key, in one word.

use core::num::NonZeroU64;

use godwit_wire::Vni;

use crate::locations::{self, Home};
use crate::update::{Key, PortIdx, Target, TunnelIdx};

/// A special entry's place in its slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpecialIdx(pub(crate) u32);

/// What the forwarding table says of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fib {
    /// Deliver to this port.
    Local(PortIdx),
    /// Send through this tunnel, with this VNI.
    Remote(Target),
    /// See the special entry.
    Special(SpecialIdx),
    /// The same, and say that it is in use (R40). The fast path does not know it.
    Ageing(Target),
    /// The VM is attached nowhere; segments of its connections are answered by resets, or not (R53).
    Detached(bool),
}

const LOCAL: u64 = 1;
const REMOTE: u64 = 2;
const SPECIAL: u64 = 3;
const AGEING: u64 = 4;
const DETACHED: u64 = 5;
/// A word: the index in the low 32 bits, the VNI in the next 24, the kind in the high 8.
const VNI: u32 = 32;
const KIND: u32 = 56;

impl Fib {
    #[inline(always)]
    pub(super) fn pack(self) -> NonZeroU64 {
        let (kind, vni, index) = match self {
            Fib::Local(p) => (LOCAL, 0, u32::from(p.0)),
            Fib::Remote(t) => (REMOTE, t.vni.get(), t.tunnel.0),
            Fib::Special(s) => (SPECIAL, 0, s.0),
            Fib::Ageing(t) => (AGEING, t.vni.get(), t.tunnel.0),
            Fib::Detached(reset) => (DETACHED, 0, u32::from(reset)),
        };
        let word = kind << KIND | u64::from(vni) << VNI | u64::from(index);
        NonZeroU64::MIN.saturating_add(word - 1)
    }

    #[inline(always)]
    pub(super) fn unpack(word: NonZeroU64) -> Fib {
        let index = word.get() as u32;
        let target = || Target {
            tunnel: TunnelIdx(index),
            // A VNI has 24 bits, and the kind lies above them.
            vni: Vni::from_low24((word.get() >> VNI) as u32),
        };
        match word.get() >> KIND {
            LOCAL => Fib::Local(PortIdx(index as u16)),
            REMOTE => Fib::Remote(target()),
            AGEING => Fib::Ageing(target()),
            DETACHED => Fib::Detached(index != 0),
            _ => Fib::Special(SpecialIdx(index)),
        }
    }
}

/// What the forwarding table has for a key, not taken apart.
#[derive(Clone, Copy)]
pub struct Word(NonZeroU64);

/// The upper half of the words of [`Fib::Remote`] with one VNI.
#[derive(Clone, Copy)]
pub struct RemoteMark(u32);

impl RemoteMark {
    /// Of the words with this VNI.
    #[inline]
    pub fn of(vni: Vni) -> RemoteMark {
        RemoteMark((REMOTE << (KIND - VNI)) as u32 | vni.get())
    }
}

impl Word {
    /// The tunnel, where the word is of [`Fib::Remote`] with the VNI of the mark: kind and VNI in one comparison.
    #[inline(always)]
    pub fn tunnel_of(self, mark: RemoteMark) -> Option<TunnelIdx> {
        ((self.0.get() >> VNI) as u32 == mark.0).then_some(TunnelIdx(self.0.get() as u32))
    }

    /// The word taken apart.
    #[inline(always)]
    pub fn fib(self) -> Fib {
        Fib::unpack(self.0)
    }
}

/// The forwarding table as a burst reads it.
#[derive(Clone, Copy)]
pub struct View<'a>(pub(super) locations::View<'a>);

impl View<'_> {
    /// Hashes a key once for [`View::prefetch`] and [`View::get_at`].
    #[inline(always)]
    pub fn home(&self, key: Key) -> Home {
        self.0.home(key.0)
    }

    /// Asks the cache for a key's entry.
    #[inline(always)]
    pub fn prefetch(&self, home: Home) {
        self.0.prefetch(home);
    }

    /// The word of a key whose home was computed before.
    #[inline(always)]
    pub fn word_at(&self, home: Home, key: Key) -> Option<Word> {
        self.0.get_at(home, key.0).map(Word)
    }

    /// What is known of a key whose home was computed before.
    #[inline(always)]
    pub fn get_at(&self, home: Home, key: Key) -> Option<Fib> {
        self.0.get_at(home, key.0).map(Fib::unpack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_keeps_what_it_was_made_of(index in any::<u32>(), vni in any::<u32>()) {
            let to = Target { tunnel: TunnelIdx(index), vni: Vni::from_low24(vni) };
            let local = Fib::Local(PortIdx(index as u16));
            let detached = Fib::Detached(index & 1 == 1);
            for fib in [local, Fib::Remote(to), Fib::Ageing(to), Fib::Special(SpecialIdx(index)), detached] {
                prop_assert_eq!(Fib::unpack(fib.pack()), fib);
                let tunnel = Word(fib.pack()).tunnel_of(RemoteMark::of(to.vni));
                prop_assert_eq!(tunnel, (fib == Fib::Remote(to)).then_some(to.tunnel));
            }
            let other = RemoteMark::of(Vni::from_low24(!vni));
            prop_assert_eq!(Word(Fib::Remote(to).pack()).tunnel_of(other), None);
        }
    }
}
