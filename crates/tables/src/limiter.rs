//! A bound on how often the same thing is said, in constant memory.

use core::net::IpAddr;

use godwit_wire::{Instant, Span};

const SLOTS: usize = 256;
/// Different things that share a slot follow each other at this distance at least, which bounds
/// the total as well.
const CROWDED: Span = Span::from_ms(10);

/// When each of a few hundred things was last said. Two that share a slot make each other wait a
/// little, or are said again early: harmless for what is limited here.
pub struct Limiter {
    slots: Box<[(u64, Instant)]>,
}

/// A number for a VM's key and a sender's locator.
pub fn tag(key: u64, sender: IpAddr) -> u64 {
    let bits = match sender {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    };
    let folded = bits as u64 ^ (bits >> 64) as u64;
    let p = u128::from(key ^ 0x2545_f491_4f6c_dd1d) * u128::from(folded | 1 << 63);
    p as u64 ^ (p >> 64) as u64
}

impl Limiter {
    pub(crate) fn new() -> Limiter {
        Limiter { slots: vec![(0, Instant(0)); SLOTS].into() }
    }

    /// `tag` may be said now; if so, this counts as saying it.
    pub fn allow(&mut self, tag: u64, interval: Span, now: Instant) -> bool {
        let slot = &mut self.slots[(tag >> 32) as usize % SLOTS];
        let wait = if slot.0 == tag { interval } else { CROWDED };
        if slot.1 != Instant(0) && now.since(slot.1) < wait {
            return false;
        }
        *slot = (tag, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn r47_one_sender_of_one_vm_once_an_interval() {
        let mut l = Limiter::new();
        let t = tag(5, Ipv4Addr::new(192, 0, 2, 1).into());
        let ival = Span::from_ms(100);
        assert!(l.allow(t, ival, Instant(1)));
        assert!(!l.allow(t, ival, Instant(1) + Span::from_ms(99)));
        assert!(l.allow(t, ival, Instant(1) + Span::from_ms(100)));
    }

    #[test]
    fn senders_and_vms_have_tags_of_their_own() {
        let a: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        let b: IpAddr = Ipv4Addr::new(192, 0, 2, 2).into();
        assert_ne!(tag(5, a), tag(5, b));
        assert_ne!(tag(5, a), tag(6, a));
    }
}
