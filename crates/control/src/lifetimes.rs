//! How long pulled records still count (R40).

use std::collections::BTreeMap;

use godwit_model::VmKey;
use godwit_wire::{Instant, Mac, Vni};

/// How far a record's life is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Nothing is to be done before most of it is over.
    Fresh,
    /// The workers tell when it is used.
    Watched,
    /// It is used, or needed: the directory is being asked.
    Wanted,
    /// It ends and is not asked about: the answer was for once, or the end came while nobody could be asked (R72).
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lifetime {
    pub(crate) end: Instant,
    pub(crate) stage: Stage,
}

/// The lifetimes of pulled records. What has none lives as long as the directory says nothing else.
#[derive(Default, Debug)]
pub(crate) struct Lifetimes(BTreeMap<VmKey, Lifetime>);

impl Lifetimes {
    pub(crate) fn get(&self, key: VmKey) -> Option<Lifetime> {
        self.0.get(&key).copied()
    }

    pub(crate) fn set(&mut self, key: VmKey, life: Lifetime) {
        self.0.insert(key, life);
    }

    pub(crate) fn forget(&mut self, key: VmKey) {
        self.0.remove(&key);
    }

    pub(crate) fn is_watched(&self, key: VmKey) -> bool {
        self.get(key).is_some_and(|l| l.stage == Stage::Watched)
    }

    pub(crate) fn of_vn(&self, vni: Vni) -> impl Iterator<Item = VmKey> + '_ {
        self.0.range(VmKey { vni, mac: Mac::ZERO }..=VmKey { vni, mac: Mac::BROADCAST }).map(|(k, _)| *k)
    }
}
