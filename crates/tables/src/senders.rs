//! The NVEs that VXLAN is accepted from in each VN, by outer source (R69), and those that were refused.
//!
//! Members of a VN are few for what they send: the packet path compares with the sender before, and looks here for
//! another one only. What is inside is not bound to where it comes from: packets in flight would violate that.

use core::net::IpAddr;
use core::num::NonZeroU64;
use std::collections::HashSet;

use godwit_wire::{Instant, Span, Vni};

use crate::locations::Locations;
use crate::update::VnIdx;
use crate::{OutOfRange, TablesConfig};

/// Unknown senders that are told apart at a time; of more, the one that has sent least goes.
const STRANGERS: usize = 32;
/// One of them is told to control so often at most.
const TELL: Span = Span::from_ms(1000);

/// VN and locator of every sender that is accepted.
pub struct Senders {
    v4: Locations,
    v6: HashSet<(VnIdx, u128)>,
    v6_capacity: usize,
    strangers: Vec<Stranger>,
}

/// A locator that sends to a VN that its NVE has no part in.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    ip: IpAddr,
    vni: Vni,
    /// Frames, as far as they were counted.
    frames: u64,
    /// Those that control was not told of.
    untold: u64,
    told: Instant,
}

/// Not 0: no VN has the number 65,535.
fn key(vn: VnIdx, ip: u32) -> u64 {
    (u64::from(vn.0) + 1) << 32 | u64::from(ip)
}

impl Senders {
    pub(crate) fn new(config: &TablesConfig) -> Senders {
        let capacity = config.sender_capacity;
        Senders {
            v4: Locations::new(capacity, config.table_seed),
            v6: HashSet::with_capacity(capacity),
            v6_capacity: capacity,
            strangers: Vec::with_capacity(STRANGERS),
        }
    }

    /// VXLAN of the VN is accepted from this locator.
    #[inline]
    pub fn has(&self, vn: VnIdx, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => self.v4.get(key(vn, a.to_bits())).is_some(),
            IpAddr::V6(a) => self.v6.contains(&(vn, a.to_bits())),
        }
    }

    pub(crate) fn add(&mut self, vn: VnIdx, ip: IpAddr) -> Result<(), OutOfRange> {
        match ip {
            IpAddr::V4(a) => {
                let done = self.v4.insert(key(vn, a.to_bits()), NonZeroU64::MIN);
                done.map(|_| ()).map_err(|_| OutOfRange)
            }
            IpAddr::V6(a) => {
                let new = (vn, a.to_bits());
                if self.v6.len() >= self.v6_capacity && !self.v6.contains(&new) {
                    return Err(OutOfRange);
                }
                self.v6.insert(new);
                Ok(())
            }
        }
    }

    pub(crate) fn remove(&mut self, vn: VnIdx, ip: IpAddr) {
        match ip {
            IpAddr::V4(a) => drop(self.v4.remove(key(vn, a.to_bits()))),
            IpAddr::V6(a) => drop(self.v6.remove(&(vn, a.to_bits()))),
        }
    }

    /// A frame of a sender that is not accepted was dropped; how many of it control is to be told of now.
    pub fn refused(&mut self, vni: Vni, ip: IpAddr, now: Instant) -> Option<u64> {
        let known = self.strangers.iter().position(|s| (s.ip, s.vni) == (ip, vni));
        let at = known.unwrap_or_else(|| self.place());
        let new = Stranger { ip, vni, frames: 0, untold: 0, told: Instant(0) };
        if at == self.strangers.len() {
            self.strangers.push(new);
        } else if known.is_none() {
            // Whoever has sent least gives way, and its count goes on: many that send one frame each do not push out
            // one that sends many.
            let before = self.strangers[at];
            self.strangers[at] = Stranger { frames: before.frames, told: before.told, ..new };
        }
        let s = &mut self.strangers[at];
        s.frames = s.frames.saturating_add(1);
        s.untold += 1;
        if s.told != Instant(0) && now.since(s.told) < TELL {
            return None;
        }
        s.told = now;
        Some(core::mem::take(&mut s.untold))
    }

    /// A new place, or that of the one that has sent least.
    fn place(&self) -> usize {
        if self.strangers.len() < STRANGERS {
            return self.strangers.len();
        }
        let least = self.strangers.iter().enumerate().min_by_key(|(_, s)| s.frames);
        least.map_or(0, |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(sender_capacity: usize) -> Senders {
        Senders::new(&TablesConfig { sender_capacity, ..TablesConfig::default() })
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([198, 18, 0, n])
    }

    #[test]
    fn r69_a_sender_is_one_of_its_vn() {
        let (mut s, six) = (senders(4), "2001:db8::1".parse().unwrap());
        for ip in [ip(1), six] {
            s.add(VnIdx(0), ip).unwrap();
            assert!(s.has(VnIdx(0), ip) && !s.has(VnIdx(1), ip));
            s.remove(VnIdx(1), ip);
            assert!(s.has(VnIdx(0), ip));
            s.remove(VnIdx(0), ip);
            assert!(!s.has(VnIdx(0), ip));
        }
    }

    #[test]
    fn r69_there_is_room_for_so_many() {
        let mut s = senders(2);
        for n in 0..2u8 {
            s.add(VnIdx(7), ip(n)).unwrap();
            s.add(VnIdx(7), IpAddr::from([0x2001, 0, 0, 0, 0, 0, 0, n.into()])).unwrap();
        }
        assert_eq!(s.add(VnIdx(7), ip(2)), Err(OutOfRange));
        assert_eq!(s.add(VnIdx(7), IpAddr::from([0x2001, 0, 0, 0, 0, 0, 0, 2])), Err(OutOfRange));
        assert_eq!(s.add(VnIdx(7), ip(1)), Ok(()), "it is there");
    }

    #[test]
    fn r69_who_sends_much_is_told_of_and_not_pushed_out() {
        let (mut s, vni) = (senders(1), Vni::from_low24(7));
        let mut now = Instant(1_000_000_000);
        let mut told = 0;
        for _ in 0..1000 {
            told += s.refused(vni, ip(1), now).unwrap_or(0);
        }
        assert_eq!(told, 1, "the first at once, the rest later");
        for n in 0..10_000u32 {
            s.refused(vni, IpAddr::V4(n.into()), now);
        }
        now = now + TELL;
        assert_eq!(s.refused(vni, ip(1), now), Some(1000), "none of it is lost");
        assert_eq!(s.strangers.len(), STRANGERS);
    }
}
