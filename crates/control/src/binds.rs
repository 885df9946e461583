//! Addresses and virtual MACs that VMs here use by their own word and the directory has not granted yet (R92, R93).

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::{MAX_BOUND, MAX_MACS, VmKey};
use godwit_wire::{Instant, Mac, Span};

/// Requests that may wait at a time; of more, what the workers say again counts.
const MAX_WAITING: usize = 8192;
/// Of these one VM's: as many as its record could take, all its virtual MACs included. What is beyond would be refused,
/// and while the NVA is away it must not take the room of other VMs.
const MAX_A_VM: usize = MAX_BOUND + MAX_MACS;
/// First repetition of a request without an answer; it doubles up to [`BACKOFF_MAX`].
const BACKOFF: Span = Span::from_ms(200);
const BACKOFF_MAX: Span = Span::from_ms(2000);
/// After so long without an answer a request is given up; the workers go on saying what the VM uses.
pub(crate) const PATIENCE: Span = Span::from_ms(5000);
/// Of an owner that announces its virtual address again and again the directory hears so often.
const SAID_AGAIN: Span = Span::from_ms(1000);
/// So often it is looked whether a VM may be asked for by now: while it is being claimed, it may not.
const LOOK: Span = Span::from_ms(200);

/// What a VM uses by its own word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: VmKey,
    /// The MAC that it spoke from.
    pub(crate) mac: Mac,
    /// The address; `None`: it is of the virtual MAC alone.
    pub(crate) ip: Option<IpAddr>,
}

/// What a request says beside [`Wanted`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) seq: u64,
    pub(crate) announced: bool,
    /// When the VM spoke.
    pub(crate) heard: Instant,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    backoff: Span,
    /// When it is given up; `None`: it has not gone out in this session.
    until: Option<Instant>,
}

/// What the owner of a virtual address said of it.
#[derive(Clone, Copy, Debug)]
struct Said {
    heard: Instant,
    /// When the directory was told last.
    told: Instant,
}

/// Requests without an answer.
#[derive(Default, Debug)]
pub(crate) struct Binds {
    waiting: BTreeMap<Wanted, Waiting>,
    /// Virtual addresses that VMs here have, and when they announced them.
    said: BTreeMap<Wanted, Said>,
    by_seq: BTreeMap<u64, Wanted>,
    /// Requests that found no room, since the start.
    pub(crate) dropped: u64,
}

impl Binds {
    /// A VM spoke. True: there is a request that is to go out now.
    pub(crate) fn want(&mut self, now: Instant, wanted: Wanted, announced: bool, seq: &mut u64) -> bool {
        if let Some(w) = self.waiting.get_mut(&wanted) {
            // A later announcement is another request: of two VMs' the last one counts.
            let news = announced && (!w.request.announced || now > w.request.heard);
            if !news {
                return false;
            }
            self.by_seq.remove(&w.request.seq);
        } else if self.waiting.len() >= MAX_WAITING || self.count(wanted.key) >= MAX_A_VM {
            self.dropped += 1;
            return false;
        }
        *seq += 1;
        let request = Request { seq: *seq, announced, heard: now };
        self.by_seq.insert(*seq, wanted);
        self.waiting.insert(wanted, Waiting { request, backoff: BACKOFF, until: None });
        true
    }

    /// The owner of a virtual address announces it once more: a request that is to go out then, so that the directory
    /// knows which of two announcements is the later one, whenever it hears of the other.
    pub(crate) fn say_again(&mut self, now: Instant, wanted: Wanted, seq: &mut u64) -> Option<Instant> {
        if self.said.len() >= MAX_WAITING && !self.said.contains_key(&wanted) {
            return None;
        }
        let said = self.said.entry(wanted).or_insert(Said { heard: now, told: Instant(0) });
        said.heard = now;
        let at = now.max(said.told + SAID_AGAIN);
        self.want(now, wanted, true, seq);
        Some(at)
    }

    /// The directory has not heard yet when the owner of a virtual address announced it last.
    pub(crate) fn is_to_say_again(&self, wanted: Wanted) -> bool {
        self.said.get(&wanted).is_some_and(|s| s.heard > s.told) && self.waiting.contains_key(&wanted)
    }

    /// A new session, perhaps with a directory that was not there when a virtual address was announced: it is told
    /// again, with its age, of those that `has` says to be owned here. The others are forgotten.
    pub(crate) fn say_all_again(&mut self, has: impl Fn(Wanted) -> bool, seq: &mut u64) {
        self.said.retain(|wanted, _| has(*wanted));
        let mut all = Vec::new();
        for (wanted, said) in &mut self.said {
            said.told = Instant(0);
            all.push((*wanted, said.heard));
        }
        for (wanted, heard) in all {
            self.want(heard, wanted, true, seq);
        }
    }

    /// It is due and can be asked for: what to say, and when it is due again; nothing: it is given up.
    pub(crate) fn due(&mut self, now: Instant, wanted: Wanted) -> Option<(Request, Instant)> {
        let w = self.waiting.get_mut(&wanted)?;
        if *w.until.get_or_insert(now + PATIENCE) <= now {
            self.forget(wanted);
            return None;
        }
        let next = now + w.backoff;
        w.backoff = Span(w.backoff.0 * 2).min(BACKOFF_MAX);
        let request = w.request;
        if let Some(said) = self.said.get_mut(&wanted) {
            said.told = now;
        }
        Some((request, next))
    }

    /// It cannot be asked for yet: when to look again.
    pub(crate) fn look_later(&self, now: Instant) -> Instant {
        now + LOOK
    }

    /// What was asked for with this number.
    pub(crate) fn asked(&self, seq: u64) -> Option<Wanted> {
        self.by_seq.get(&seq).copied()
    }

    /// The directory granted something virtual: from then on the VM is the owner, since it spoke. False: it was before.
    pub(crate) fn granted(&mut self, now: Instant, wanted: Wanted) -> bool {
        let was = self.said.contains_key(&wanted);
        let heard = self.waiting.get(&wanted).map(|w| w.request.heard);
        if let Some(heard) = heard.filter(|_| was || self.said.len() < MAX_WAITING) {
            self.said.insert(wanted, Said { heard, told: now });
        }
        !was
    }

    /// Another VM is the owner; true where it was one here until now.
    pub(crate) fn lost(&mut self, wanted: Wanted) -> bool {
        self.said.remove(&wanted).is_some()
    }

    pub(crate) fn forget(&mut self, wanted: Wanted) {
        if let Some(w) = self.waiting.remove(&wanted) {
            self.by_seq.remove(&w.request.seq);
        }
    }

    /// The session is over: what was said in it may be lost.
    pub(crate) fn session_over(&mut self) {
        for w in self.waiting.values_mut() {
            (w.until, w.backoff) = (None, BACKOFF);
        }
    }

    /// What one VM waits for.
    pub(crate) fn of(&self, key: VmKey) -> Vec<Wanted> {
        self.range(key).collect()
    }

    fn range(&self, key: VmKey) -> impl Iterator<Item = Wanted> + '_ {
        let from = Wanted { key, mac: Mac::ZERO, ip: None };
        self.waiting.range(from..).map(|(w, _)| *w).take_while(move |w| w.key == key)
    }

    /// So many requests of one VM wait; [`MAX_A_VM`] at most.
    fn count(&self, key: VmKey) -> usize {
        self.range(key).count()
    }

    /// All that wait.
    pub(crate) fn all(&self) -> Vec<Wanted> {
        self.waiting.keys().copied().collect()
    }

    /// It was said in this session.
    pub(crate) fn has_gone_out(&self, wanted: Wanted) -> bool {
        self.waiting.get(&wanted).is_some_and(|w| w.until.is_some())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use godwit_wire::Vni;

    use super::*;

    #[test]
    fn r67_r93_a_vm_that_scans_without_the_nva_takes_no_room_of_others() {
        let (mut all, mut seq, now) = (Binds::default(), 0, Instant(1_000_000_000));
        let key = |n: u8| VmKey { vni: Vni::from_low24(7), mac: Mac([2, 0, 0, 0, 0, n]) };
        let wanted = |n: u8, ip: u32| {
            let ip = Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + ip)));
            Wanted { key: key(n), mac: key(n).mac, ip }
        };
        let granted = (0..10_000).filter(|ip| all.want(now, wanted(1, *ip), true, &mut seq)).count();
        assert_eq!((granted, all.of(key(1)).len()), (MAX_A_VM, MAX_A_VM));
        assert_eq!(all.dropped, 10_000 - MAX_A_VM as u64);
        // What waits already may be said again, others have their own room, and so has who was answered.
        assert!(all.want(now + Span::from_ms(1), wanted(1, 0), true, &mut seq));
        assert!(all.want(now, wanted(2, 0), true, &mut seq) && all.want(now, wanted(0, 0), true, &mut seq));
        all.forget(wanted(1, 5));
        assert!(all.want(now, wanted(1, 20_000), true, &mut seq));
        assert!(!all.want(now, wanted(1, 20_001), true, &mut seq));
        // All together are bounded, too.
        for n in 3..=200 {
            let took =
                (0..MAX_A_VM as u32).filter(|ip| all.want(now, wanted(n, *ip), true, &mut seq)).count();
            assert!(took <= MAX_A_VM);
        }
        assert_eq!(all.all().len(), MAX_WAITING);
    }
}
