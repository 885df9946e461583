//! Records of VMs with their indexes.

use godwit_model::{Gateway, VmKey, VmRecord};
use godwit_wire::{Mac, Vni};

use super::{Directory, Write};

impl Directory {
    /// Puts a VM's record in place with all indexes, and makes it durable.
    pub(super) fn put_vm(&mut self, record: VmRecord) {
        let key = record.key;
        if let Some(old) = self.vms.remove(&key) {
            self.unindex(&old);
            let place = |r: &VmRecord| r.location.as_ref().map(|l| l.nve.clone());
            if let Some(nve) = place(&old).filter(|_| place(&old) != place(&record)) {
                self.note_former(&nve, key);
                self.former.insert(key, (nve, old.version));
            }
        }
        self.index(&record);
        self.persist(Write::PutVm(record.clone()));
        self.vms.insert(key, record);
    }

    pub(super) fn index(&mut self, r: &VmRecord) {
        for (ip, _) in r.addresses() {
            self.ips.insert((r.key.vni, ip), r.key.mac);
        }
        for mac in r.macs().filter(|mac| *mac != r.key.mac) {
            self.macs.insert((r.key.vni, mac), r.key.mac);
        }
        if super::allowed::wants_more(&r.allowed) {
            self.allowing.insert(r.key);
        }
        self.vm_names.insert(r.name.clone(), r.key);
        if let (Some(g), Some(vn)) = (Gateway::of(r), self.vns.get_mut(&r.key.vni)) {
            vn.gateways.insert(g.mac, g.ip);
        }
        if let Some(nve) = r.location.as_ref().and_then(|l| self.nves.get_mut(&l.nve)) {
            nve.vms.insert(r.key);
        }
    }

    pub(super) fn unindex(&mut self, r: &VmRecord) {
        for (ip, _) in r.addresses() {
            self.ips.remove(&(r.key.vni, ip));
        }
        for mac in r.macs().filter(|mac| *mac != r.key.mac) {
            self.macs.remove(&(r.key.vni, mac));
        }
        self.allowing.remove(&r.key);
        self.vm_names.remove(&r.name);
        if let Some(vn) = self.vns.get_mut(&r.key.vni) {
            vn.gateways.remove(&r.key.mac);
        }
        if let Some(nve) = r.location.as_ref().and_then(|l| self.nves.get_mut(&l.nve)) {
            nve.vms.remove(&r.key);
        }
    }

    /// The records of a VN, by MAC.
    pub(super) fn vms_of(&self, vni: Vni) -> impl Iterator<Item = &VmRecord> {
        let first = VmKey { vni, mac: Mac::ZERO };
        let last = VmKey { vni, mac: Mac::BROADCAST };
        self.vms.range(first..=last).map(|(_, r)| r)
    }
}
