//! What other NVEs say of VMs, until the directory answers (R39, R47).
//!
//! A redirect is used at once and asked about; a departure only makes an entry suspect, which is asked about
//! while traffic goes on. Either ends with the directory's next word on the VM.

use std::collections::BTreeMap;

use godwit_model::{Locators, Version, VmKey};
use godwit_wire::{Instant, Span};

/// Of each kind; more are refused and counted.
const MAX: usize = 16_384;
/// Between two questions on one VM that unconfirmed news lead to (R42).
const REST: Span = Span::from_ms(1000);

/// A location that another NVE named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hearsay {
    pub(crate) to: Locators,
    pub(crate) version: Version,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// No longer suspect: only kept so that it is not asked about again at once.
    settled: bool,
    asked: Instant,
}

/// All that is not confirmed.
#[derive(Default, Debug)]
pub(crate) struct Unconfirmed {
    hearsay: BTreeMap<VmKey, Hearsay>,
    suspects: BTreeMap<VmKey, Suspect>,
}

impl Unconfirmed {
    /// Where another NVE says that the VM is.
    pub(crate) fn hearsay(&self, key: VmKey) -> Option<Hearsay> {
        self.hearsay.get(&key).copied()
    }

    /// Takes a named location; false where there is no room.
    pub(crate) fn believe(&mut self, key: VmKey, heard: Hearsay) -> bool {
        let room = self.hearsay.len() < MAX || self.hearsay.contains_key(&key);
        if room {
            self.hearsay.insert(key, heard);
        }
        room
    }

    /// The entry is in doubt.
    pub(crate) fn is_suspect(&self, key: VmKey) -> bool {
        self.suspects.get(&key).is_some_and(|s| !s.settled)
    }

    /// Puts an entry in doubt; true where it is to be asked about.
    pub(crate) fn suspect(&mut self, now: Instant, key: VmKey) -> bool {
        if let Some(s) = self.suspects.get_mut(&key) {
            let rested = now.since(s.asked) >= REST;
            if rested {
                *s = Suspect { settled: false, asked: now };
            }
            return rested;
        }
        if self.suspects.len() >= MAX {
            self.suspects.retain(|_, s| now.since(s.asked) < REST);
        }
        let room = self.suspects.len() < MAX;
        if room {
            self.suspects.insert(key, Suspect { settled: false, asked: now });
        }
        room
    }

    /// The directory has spoken: what was heard is over. True where a named location was in use.
    pub(crate) fn settle(&mut self, key: VmKey) -> bool {
        if let Some(s) = self.suspects.get_mut(&key) {
            s.settled = true;
        }
        self.hearsay.remove(&key).is_some()
    }

    /// Its VN is not ours any more, or the VM is here.
    pub(crate) fn forget(&mut self, of: impl Fn(VmKey) -> bool) {
        self.hearsay.retain(|k, _| !of(*k));
        self.suspects.retain(|k, _| !of(*k));
    }
}

#[cfg(test)]
mod tests {
    use godwit_wire::{Mac, Vni};

    use super::*;

    fn key(n: u16) -> VmKey {
        let [a, b] = n.to_be_bytes();
        VmKey { vni: Vni::from_low24(7), mac: Mac([2, 0, 0, 0, a, b]) }
    }

    #[test]
    fn r39_a_vm_is_asked_about_once_a_second() {
        let (mut r, t) = (Unconfirmed::default(), Instant(5_000_000_000));
        assert!(r.suspect(t, key(1)));
        assert!(!r.suspect(t + Span::from_ms(10), key(1)));
        assert!(r.is_suspect(key(1)));
        r.settle(key(1));
        assert!(!r.is_suspect(key(1)));
        assert!(!r.suspect(t + Span::from_ms(999), key(1)), "just asked");
        assert!(r.suspect(t + Span::from_ms(1000), key(1)));
    }

    #[test]
    fn r47_rumours_are_bounded() {
        let (mut r, t) = (Unconfirmed::default(), Instant(5_000_000_000));
        let heard = Hearsay { to: Locators::default(), version: Version::ZERO };
        for n in 0..MAX as u16 {
            assert!(r.suspect(t, key(n)) && r.believe(key(n), heard));
        }
        let more = key(MAX as u16);
        assert!(!r.suspect(t, more) && !r.believe(more, heard));
        assert!(r.believe(key(0), heard), "a known one may change");
        assert!(r.suspect(t + REST, more), "the old ones have had their answers");
        assert!(r.settle(key(0)) && r.believe(more, heard));
        r.forget(|_| true);
        assert!(!r.is_suspect(more) && r.hearsay(more).is_none());
    }
}
