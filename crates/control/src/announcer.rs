//! Telling local VMs that an address has got another MAC (R24): what is to be told, and how fast.
//!
//! Guests keep what they resolved for minutes. An address that goes to another VM by the directory's
//! word would stay unreachable for them for so long, since nothing of it passes their ports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use godwit_wire::{Bucket, Instant, Mac, Rate, Vni};

/// Former owners that are remembered; of more, a change may go untold.
const MAX_FORMER: usize = 65_536;
/// Changes that wait to be told; of more, the newest goes untold and is counted.
const MAX_WAITING: usize = 4_096;
/// Frames to all local VMs together.
const FRAMES: Rate = Rate::per_second(1000, 200);

/// Who had which address, and what local VMs have not been told.
#[derive(Default, Debug)]
pub(crate) struct Announcer {
    /// The last owner of an address that nobody has now.
    former: BTreeMap<(Vni, IpAddr), Mac>,
    /// The same by owner.
    had: BTreeSet<(Vni, Mac, IpAddr)>,
    waiting: VecDeque<(Vni, IpAddr)>,
    frames: Bucket,
    /// Changes that found no room and were not complained about.
    dropped: u64,
}

impl Announcer {
    /// The owner of an address changes from `old` to `new`; true where local VMs are to be told.
    pub(crate) fn changed(&mut self, vni: Vni, ip: IpAddr, old: Option<Mac>, new: Option<Mac>) -> bool {
        let Some(new) = new else {
            if let Some(old) = old.filter(|_| self.former.len() < MAX_FORMER) {
                self.forget_former(vni, ip);
                self.former.insert((vni, ip), old);
                self.had.insert((vni, old, ip));
            }
            return false;
        };
        let before = self.forget_former(vni, ip).or(old);
        if before.is_none_or(|mac| mac == new) || self.waiting.contains(&(vni, ip)) {
            return false;
        }
        if self.waiting.len() >= MAX_WAITING {
            self.dropped += 1;
            return false;
        }
        self.waiting.push_back((vni, ip));
        true
    }

    fn forget_former(&mut self, vni: Vni, ip: IpAddr) -> Option<Mac> {
        let former = self.former.remove(&(vni, ip))?;
        self.had.remove(&(vni, former, ip));
        Some(former)
    }

    /// The addresses that `mac` had, and nobody has now.
    pub(crate) fn had(&self, vni: Vni, mac: Mac) -> Vec<IpAddr> {
        let from = (vni, mac, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.had.range(from..).take_while(|(v, m, _)| (*v, *m) == (vni, mac)).map(|(.., ip)| *ip).collect()
    }

    /// The next change to be told, if it is time; what it cost is said with [`Announcer::told`].
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Vni, IpAddr)> {
        if self.due(now).is_none_or(|t| t > now) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// So many frames told of a change.
    pub(crate) fn told(&mut self, now: Instant, frames: usize) {
        self.frames.spend(FRAMES, now, frames as u64);
    }

    /// When the next change may be told.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.frames.next(FRAMES, now))
    }

    /// Changes that found no room since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.dropped)
    }

    /// Nobody here has a part in the VN any more.
    pub(crate) fn forget_vn(&mut self, vni: Vni) {
        self.former.retain(|(v, _), _| *v != vni);
        self.had.retain(|(v, ..)| *v != vni);
        self.waiting.retain(|(v, _)| *v != vni);
    }
}

#[cfg(test)]
mod tests {
    use godwit_wire::Span;

    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn r24_only_another_owner_is_news() {
        let (vni, mut h) = (Vni::from_low24(7), Announcer::default());
        assert!(!h.changed(vni, ip(1), None, Some(A)), "the first owner");
        assert!(!h.changed(vni, ip(1), Some(A), None));
        assert!(!h.changed(vni, ip(1), None, Some(A)), "it is back");
        assert!(!h.changed(vni, ip(1), Some(A), None));
        assert!(h.changed(vni, ip(1), None, Some(B)), "by way of nobody");
        assert!(!h.changed(vni, ip(1), Some(B), Some(A)), "waits already; the newest owner will be told");
        assert_eq!(h.next(Instant(1)), Some((vni, ip(1))));
        assert!(h.changed(vni, ip(1), Some(A), Some(B)));
        h.forget_vn(vni);
        assert_eq!(h.next(Instant(1)), None);
    }

    #[test]
    fn r24_many_changes_are_told_at_a_bounded_rate() {
        let (vni, mut h) = (Vni::from_low24(7), Announcer::default());
        let mut now = Instant(10_000_000_000);
        for n in 0..5_000 {
            h.changed(vni, ip(n), Some(A), Some(B));
        }
        assert_eq!(h.take_dropped(), 5_000 - MAX_WAITING as u64);
        let mut told = 0;
        let end = now + Span::from_ms(1000);
        while now < end {
            while h.next(now).is_some() {
                told += 2;
                h.told(now, 2);
            }
            now = h.due(now).unwrap().max(now + Span::from_us(1));
        }
        assert!((1_190..=1_210).contains(&told), "a burst of 200 and 1,000 a second: {told}");
    }
}
