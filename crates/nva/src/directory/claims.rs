//! What is remembered of claims and of those who had VMs before.

use std::collections::BTreeMap;

use godwit_model::{NveId, Version, VmKey};
use godwit_wire::{Bucket, Instant, Span};

use super::SessionId;
use super::conflict::Contest;

/// A grant is remembered as recent for so long.
const RECENT: Span = Span::from_ms(5000);

/// Claims that wait, and what earlier ones led to.
#[derive(Default)]
pub(super) struct Claims {
    /// Claims for VMs of other NVEs that wait for the old NVE's word (R21).
    pub contests: BTreeMap<VmKey, Contest>,
    /// Lines that too many claims wait.
    pub crowd_lines: Bucket,
    /// The NVE that had a VM last, and the version with which it lost it: it may say so (R39).
    former: BTreeMap<VmKey, (NveId, Version)>,
    /// When VMs moved of late without being ordered to (R22), in microseconds since 1970: that outlives a restart.
    flaps: BTreeMap<VmKey, Vec<u64>>,
    /// When claims were granted, and on which connection, kept for a moment: see `report`.
    granted: BTreeMap<VmKey, (Instant, SessionId)>,
    /// Versions of a moment ago, since when records have changed but VMs stayed where they were: the first of them.
    stayed: BTreeMap<VmKey, (Instant, Version)>,
}

impl Claims {
    /// What was persisted.
    pub fn restored(flaps: BTreeMap<VmKey, Vec<u64>>) -> Claims {
        Claims { flaps, ..Claims::default() }
    }

    /// The NVE that had the VM last, and the version with which it lost it.
    pub fn former(&self, key: VmKey) -> Option<&(NveId, Version)> {
        self.former.get(&key)
    }

    /// An NVE lost the VM.
    pub fn set_former(&mut self, key: VmKey, nve: NveId, version: Version) {
        self.former.insert(key, (nve, version));
    }

    /// The VM is gone.
    pub fn forget_former(&mut self, key: VmKey) {
        self.former.remove(&key);
    }

    /// A claim is granted.
    pub fn note_granted(&mut self, key: VmKey, now: Instant, session: SessionId) {
        self.granted.insert(key, (now, session));
        self.stayed.remove(&key);
    }

    /// The record changed from this version on, and the VM stayed where it was.
    pub fn note_stayed(&mut self, key: VmKey, now: Instant, version: Version) {
        self.stayed.entry(key).or_insert((now, version)).0 = now;
    }

    /// The VM is where it was with this version, which its NVE may not have known to be old.
    pub fn has_stayed_since(&self, key: VmKey, version: Version) -> bool {
        self.stayed.get(&key).is_some_and(|(_, first)| *first <= version)
    }

    /// It was granted on this connection less than so long ago.
    pub fn was_granted(&self, key: VmKey, session: SessionId, now: Instant, within: Span) -> bool {
        self.granted.get(&key).is_some_and(|(at, on)| *on == session && now.since(*at) < within)
    }

    /// What is not recent any more is forgotten.
    pub fn forget_recent(&mut self, now: Instant) {
        self.stayed.retain(|_, (at, _)| now.since(*at) < RECENT);
        self.granted.retain(|_, (at, _)| now.since(*at) < RECENT);
    }

    /// When VMs moved of late without being ordered to.
    pub fn flaps(&self) -> &BTreeMap<VmKey, Vec<u64>> {
        &self.flaps
    }

    /// When the VM did; `None` where it did not.
    pub fn take_flaps(&mut self, key: VmKey) -> Option<Vec<u64>> {
        self.flaps.remove(&key)
    }

    pub fn set_flaps(&mut self, key: VmKey, times: Vec<u64>) {
        self.flaps.insert(key, times);
    }
}
