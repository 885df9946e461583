//! Records of VMs with their indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use godwit_model::{Gateway, VmKey, VmRecord};
use godwit_wire::{Mac, Prefix, Vni};

use super::{Directory, Write};

/// The records of all VMs, found by what leads to them. What leads to one leads to no other.
#[derive(Default)]
pub(super) struct Records {
    by_key: BTreeMap<VmKey, VmRecord>,
    names: BTreeMap<String, VmKey>,
    /// How many a VN has.
    by_vn: BTreeMap<Vni, usize>,
    /// Every address that leads to a VM, recorded or bound.
    ips: BTreeMap<(Vni, IpAddr), Mac>,
    /// Nested MACs, and virtual ones that a VM has: whose they are.
    macs: BTreeMap<(Vni, Mac), Mac>,
    /// VMs that are allowed prefixes or other MACs.
    allowing: BTreeSet<VmKey>,
    /// VMs whose connections are paused, or were of late.
    paused: BTreeSet<VmKey>,
}

impl Records {
    pub fn get(&self, key: &VmKey) -> Option<&VmRecord> {
        self.by_key.get(key)
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// All of them, by VNI and MAC.
    pub fn values(&self) -> impl Iterator<Item = &VmRecord> {
        self.by_key.values()
    }

    /// Those of a VN, by MAC.
    pub fn of_vn(&self, vni: Vni) -> impl Iterator<Item = &VmRecord> {
        self.by_key.range(keys_of(vni)).map(|(_, r)| r)
    }

    /// How many a VN has.
    pub fn count_of_vn(&self, vni: Vni) -> usize {
        self.by_vn.get(&vni).copied().unwrap_or(0)
    }

    /// Those of a VN, or of all, behind this one, by VNI and MAC.
    pub fn after(&self, vni: Option<Vni>, last: Option<VmKey>) -> impl Iterator<Item = &VmRecord> {
        let (first, end) = match vni.map(keys_of) {
            Some(keys) => {
                let first = last.filter(|key| key.vni == keys.start().vni);
                (first.map_or(Bound::Included(*keys.start()), Bound::Excluded), Bound::Included(*keys.end()))
            }
            None => (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded),
        };
        self.by_key.range((first, end)).map(|(_, r)| r)
    }

    /// At most `max` names, those that have most in common with this one from their beginning on first.
    pub fn similar(&self, name: &str, max: usize) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        let mut longer: Option<&str> = None;
        let ends = (0..=name.len()).rev().filter(|end| name.is_char_boundary(*end));
        for prefix in ends.map(|end| &name[..end]) {
            let from = self.names.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            let alike = from.map(|(n, _)| n.as_str()).take_while(|n| n.starts_with(prefix));
            for n in alike.filter(|n| longer.is_none_or(|longer| !n.starts_with(longer))) {
                if found.len() >= max {
                    return found;
                }
                found.push(n);
            }
            longer = Some(prefix);
        }
        found
    }

    /// Those of a VN behind this one, by MAC.
    pub fn of_vn_after(&self, vni: Vni, last: Option<VmKey>) -> impl Iterator<Item = &VmRecord> {
        self.after(Some(vni), last)
    }

    /// Those of a VN that are allowed prefixes or other MACs, by MAC.
    pub fn allowing(&self, vni: Vni) -> impl Iterator<Item = &VmRecord> {
        self.allowing.range(keys_of(vni)).filter_map(|key| self.by_key.get(key))
    }

    /// VMs whose connections are paused, or were of late.
    pub fn pauses(&self) -> &BTreeSet<VmKey> {
        &self.paused
    }

    /// The VM of this name.
    pub fn key_of(&self, name: &str) -> Option<VmKey> {
        self.names.get(name).copied()
    }

    /// The VM that an address leads to.
    pub fn key_of_ip(&self, vni: Vni, ip: IpAddr) -> Option<VmKey> {
        self.ips.get(&(vni, ip)).map(|mac| VmKey { vni, mac: *mac })
    }

    /// The VM that a nested or virtual MAC leads to.
    pub fn key_of_other_mac(&self, vni: Vni, mac: Mac) -> Option<VmKey> {
        self.macs.get(&(vni, mac)).map(|mac| VmKey { vni, mac: *mac })
    }

    /// The VM that a MAC leads to, or would lead to by itself.
    pub fn key_of_mac(&self, vni: Vni, mac: Mac) -> VmKey {
        self.key_of_other_mac(vni, mac).unwrap_or(VmKey { vni, mac })
    }

    /// The addresses of a prefix that lead to VMs.
    pub fn ips_in<'a>(
        &'a self,
        vni: Vni,
        prefix: &Prefix,
    ) -> impl Iterator<Item = (IpAddr, VmKey)> + use<'a> {
        let held = self.ips.range((vni, prefix.addr())..=(vni, prefix.last()));
        held.map(|((vni, ip), mac)| (*ip, VmKey { vni: *vni, mac: *mac }))
    }

    /// Takes a record, and all that leads to it, out.
    fn remove(&mut self, key: &VmKey) -> Option<VmRecord> {
        let r = self.by_key.remove(key)?;
        for (ip, _) in r.addresses() {
            self.ips.remove(&(r.key.vni, ip));
        }
        for mac in r.macs().filter(|mac| *mac != r.key.mac) {
            self.macs.remove(&(r.key.vni, mac));
        }
        self.allowing.remove(&r.key);
        self.paused.remove(&r.key);
        if let Some(n) = self.by_vn.get_mut(&r.key.vni) {
            *n -= 1;
            if *n == 0 {
                self.by_vn.remove(&r.key.vni);
            }
        }
        self.names.remove(&r.name);
        Some(r)
    }

    /// Puts a record in; an older one of its key has been taken out.
    fn insert(&mut self, r: VmRecord) {
        for (ip, _) in r.addresses() {
            self.ips.insert((r.key.vni, ip), r.key.mac);
        }
        for mac in r.macs().filter(|mac| *mac != r.key.mac) {
            self.macs.insert((r.key.vni, mac), r.key.mac);
        }
        if super::allowed::wants_more(&r.allowed) {
            self.allowing.insert(r.key);
        }
        if r.pause.is_some() {
            self.paused.insert(r.key);
        }
        self.names.insert(r.name.clone(), r.key);
        *self.by_vn.entry(r.key.vni).or_default() += 1;
        self.by_key.insert(r.key, r);
    }

    /// What is to be persisted.
    pub fn stored(&self) -> BTreeMap<VmKey, VmRecord> {
        self.by_key.clone()
    }

    /// How many names, addresses and other MACs lead to VMs.
    #[cfg(test)]
    pub fn index_sizes(&self) -> (usize, usize, usize) {
        (self.names.len(), self.ips.len(), self.macs.len())
    }
}

/// All keys that VMs of a VN may have.
fn keys_of(vni: Vni) -> std::ops::RangeInclusive<VmKey> {
    VmKey { vni, mac: Mac::ZERO }..=VmKey { vni, mac: Mac::BROADCAST }
}

impl Directory {
    /// Puts a VM's record in place, where its VN and its NVE know of it too, and makes it durable.
    pub(super) fn put_vm(&mut self, mut record: VmRecord) {
        let key = record.key;
        if let Some(old) = self.remove_vm(key)
            && let Some(nve) = old.active_nve()
        {
            if record.is_at(nve) {
                self.claims.note_stayed(key, self.now, old.version);
            } else {
                self.note_former(nve, key);
                self.claims.set_former(key, nve.clone(), old.version);
                record.former = Some((nve.clone(), old.version));
            }
        }
        // Where it runs, that says more.
        if record.is_active() {
            record.former = None;
        }
        self.persist(Write::PutVm(record.clone()));
        self.insert_vm(record);
    }

    /// Puts a record in that is durable.
    pub(super) fn insert_vm(&mut self, record: VmRecord) {
        if let Some((nve, version)) = record.former.clone() {
            self.claims.set_former(record.key, nve, version);
        }
        if let (Some(g), Some(vn)) = (Gateway::of(&record), self.vns.get_mut(record.key.vni)) {
            vn.gateways.insert(g.mac, g.ip);
        }
        for b in record.bindings.iter() {
            if let Some(nve) = self.nves.get_mut(&b.location.nve) {
                nve.vms.insert(record.key);
            }
        }
        self.records.insert(record);
    }

    /// Takes a record out.
    pub(super) fn remove_vm(&mut self, key: VmKey) -> Option<VmRecord> {
        let record = self.records.remove(&key)?;
        if let Some(vn) = self.vns.get_mut(key.vni) {
            vn.gateways.remove(&key.mac);
        }
        for b in record.bindings.iter() {
            if let Some(nve) = self.nves.get_mut(&b.location.nve) {
                nve.vms.remove(&key);
            }
        }
        Some(record)
    }
}
