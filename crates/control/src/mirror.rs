//! The directory as this NVE knows it: records by MAC and by address, members, negative answers.
//!
//! Pure data with the rules of when something counts: a record by its version (R20), a VN as a whole
//! by snapshot and revision (R37), a negative answer by its life (R36). What follows for the workers
//! is decided elsewhere; every method says which keys and addresses it touched.

mod absent;
mod domains;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use godwit_model::{
    DomainId, Gateway, LearningOf, Locators, NveId, Version, VmKey, VmRecord, VnRouting, VnSettings,
};
use godwit_wire::{Mac, Vni};

use crate::negative_cache::NegativeCache;

use domains::Domains;
pub(crate) use domains::RouteChange;
pub(crate) use sync::SnapshotEnd;
use sync::Sync;

/// Negative answers that a VN keeps of each kind.
const NEGATIVE_CACHE_SIZE: usize = 16_384;

/// Whether a record changed what we know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    /// News; the record that it replaced.
    Newer(Option<VmRecord>),
    /// Known, confirmed; something beside the location may have changed (the old record).
    Confirmed(VmRecord),
    /// Older than what we know, or of a VN that we have no part in: ignored.
    Ignored,
}

#[derive(Debug)]
struct Entry {
    record: VmRecord,
    /// Named since the last Subscribe.
    confirmed: bool,
}

/// An address from a configuration file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) mac: Mac,
    pub(crate) router: bool,
}

/// One VN.
#[derive(Debug)]
struct VnMirror {
    sync: Sync,
    settings: VnSettings,
    gateway: Option<Gateway>,
    /// Of the records here, those of routers that the operator defined.
    routers: BTreeMap<Mac, Ipv4Addr>,
    vms: BTreeMap<Mac, Entry>,
    /// Records by each address that leads to them.
    by_ip: BTreeMap<IpAddr, BTreeSet<Mac>>,
    /// Records by their nested MACs and the virtual ones that they have (R92, R94).
    by_mac: BTreeMap<Mac, BTreeSet<Mac>>,
    members: BTreeMap<NveId, Locators>,
    /// Those of them that only forward for VMs that left them (R17).
    lingering: BTreeSet<NveId>,
    absent: NegativeCache<Mac>,
    absent_ip: NegativeCache<IpAddr>,
}

impl VnMirror {
    fn new() -> VnMirror {
        VnMirror {
            sync: Sync::Off,
            settings: VnSettings::default(),
            gateway: None,
            routers: BTreeMap::new(),
            vms: BTreeMap::new(),
            by_ip: BTreeMap::new(),
            by_mac: BTreeMap::new(),
            members: BTreeMap::new(),
            lingering: BTreeSet::new(),
            absent: NegativeCache::new(NEGATIVE_CACHE_SIZE),
            absent_ip: NegativeCache::new(NEGATIVE_CACHE_SIZE),
        }
    }

    fn index(&mut self, record: &VmRecord) {
        for (ip, _) in record.addresses() {
            self.by_ip.entry(ip).or_default().insert(record.key.mac);
        }
        for mac in record.macs().skip(1) {
            self.by_mac.entry(mac).or_default().insert(record.key.mac);
        }
        if let Some(g) = Gateway::of(record) {
            self.routers.insert(g.mac, g.ip);
        }
    }

    fn unindex(&mut self, record: &VmRecord) {
        self.routers.remove(&record.key.mac);
        for (ip, _) in record.addresses() {
            unindex(&mut self.by_ip, ip, record.key.mac);
        }
        for mac in record.macs().skip(1) {
            unindex(&mut self.by_mac, mac, record.key.mac);
        }
    }
}

fn unindex<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Mac>>, key: K, mac: Mac) {
    if let Some(macs) = index.get_mut(&key) {
        macs.remove(&mac);
        if macs.is_empty() {
            index.remove(&key);
        }
    }
}

/// The directory's mirror.
#[derive(Default, Debug)]
pub(crate) struct Mirror {
    /// Routing domains (R58).
    pub(crate) domains: Domains,
    vns: BTreeMap<Vni, VnMirror>,
    /// VNs whose snapshot is complete.
    complete: BTreeSet<Vni>,
    static_vms: BTreeMap<VmKey, VmRecord>,
    /// NVEs that end their paths with a marker, of whatever VN (R77).
    marking: BTreeSet<NveId>,
    static_ips: BTreeMap<(Vni, IpAddr), Owner>,
    static_routing: BTreeMap<Vni, VnRouting>,
}

impl Mirror {
    /// Starts to mirror a VN, with what the configuration file says of it.
    pub(crate) fn add_vn(&mut self, vni: Vni) {
        if self.vns.contains_key(&vni) {
            return;
        }
        let mut vn = VnMirror::new();
        vn.settings.routing = self.static_routing.get(&vni).cloned();
        self.vns.insert(vni, vn);
        let fixed: Vec<VmRecord> = self.static_vms.values().filter(|r| r.key.vni == vni).cloned().collect();
        for record in fixed {
            self.offer(record);
        }
    }

    /// Stops to mirror a VN.
    pub(crate) fn remove_vn(&mut self, vni: Vni) {
        self.vns.remove(&vni);
        self.complete.remove(&vni);
    }

    /// The VN's snapshot is complete: its members are known.
    pub(crate) fn is_complete(&self, vni: Vni) -> bool {
        self.complete.contains(&vni)
    }

    /// The mirrored VNs.
    pub(crate) fn vns(&self) -> impl Iterator<Item = Vni> + '_ {
        self.vns.keys().copied()
    }

    /// What the operator set for a VN.
    pub(crate) fn settings(&self, vni: Vni) -> &VnSettings {
        static UNSAID: LazyLock<VnSettings> = LazyLock::new(VnSettings::default);
        self.vns.get(&vni).map_or(&UNSAID, |v| &v.settings)
    }

    /// The router in whose name they are answered: one whose record is here, or the one that the directory named.
    pub(crate) fn gateway(&self, vni: Vni) -> Option<Gateway> {
        let vn = self.vns.get(&vni)?;
        vn.gateway.or_else(|| vn.routers.first_key_value().map(|(mac, ip)| Gateway { mac: *mac, ip: *ip }))
    }

    /// A VM's newest record.
    pub(crate) fn record(&self, key: VmKey) -> Option<&VmRecord> {
        self.vns.get(&key.vni).and_then(|v| v.vms.get(&key.mac)).map(|e| &e.record)
    }

    /// All records of a VN by MAC.
    pub(crate) fn records(&self, vni: Vni) -> impl Iterator<Item = &VmRecord> {
        self.vns.get(&vni).into_iter().flat_map(|v| v.vms.values().map(|e| &e.record))
    }

    /// The VM that a nested or virtual MAC is of: of several the one with the newest record. A VM
    /// of its own with this MAC comes first (R92, R94).
    pub(crate) fn parent(&self, key: VmKey) -> Option<&VmRecord> {
        let vn = self.vns.get(&key.vni)?;
        if vn.vms.contains_key(&key.mac) {
            return None;
        }
        let parents = vn.by_mac.get(&key.mac).into_iter().flatten();
        parents.filter_map(|m| vn.vms.get(m)).map(|e| &e.record).max_by_key(|r| (r.version, r.key.mac))
    }

    /// Whose word binds addresses in a VN, where a record does not say (R93).
    pub(crate) fn learning(&self, vni: Vni) -> LearningOf {
        self.settings(vni).learning
    }

    /// The records that `ip` leads to, newest first.
    pub(crate) fn owners(&self, vni: Vni, ip: IpAddr) -> Vec<&VmRecord> {
        let Some(vn) = self.vns.get(&vni) else { return Vec::new() };
        let macs = vn.by_ip.get(&ip).into_iter().flatten();
        let mut owners: Vec<_> = macs.filter_map(|m| vn.vms.get(m)).map(|e| &e.record).collect();
        owners.sort_by_key(|r| core::cmp::Reverse((r.version, r.key.mac)));
        owners
    }

    /// What the configuration file says on an address.
    pub(crate) fn static_owner(&self, vni: Vni, ip: IpAddr) -> Option<Owner> {
        self.static_ips.get(&(vni, ip)).copied()
    }

    /// Addresses of a VN that the configuration file names.
    pub(crate) fn static_ips(&self, vni: Vni) -> Vec<IpAddr> {
        self.static_ips.keys().filter(|(v, _)| *v == vni).map(|(_, ip)| *ip).collect()
    }

    /// The addresses of a VM, of the configuration file and of the directory.
    pub(crate) fn addresses(&self, key: VmKey) -> BTreeSet<IpAddr> {
        let fixed = self.static_ips.iter().filter(|((vni, _), o)| (*vni, o.mac) == (key.vni, key.mac));
        let recorded = self.record(key).into_iter().flat_map(VmRecord::addresses).map(|(ip, _)| ip);
        fixed.map(|((_, ip), _)| *ip).chain(recorded).collect()
    }

    /// The operator defined the VM as a router, in the directory or in the configuration file. What it says of itself
    /// counts for nothing here (R66).
    pub(crate) fn is_defined_router(&self, key: VmKey) -> bool {
        let fixed =
            self.static_ips.iter().any(|((vni, _), o)| (*vni, o.mac) == (key.vni, key.mac) && o.router);
        fixed || self.record(key).is_some_and(|r| r.router && r.router_pinned)
    }

    /// A VM from the configuration file: below everything that an NVA says.
    pub(crate) fn set_static(&mut self, record: VmRecord) -> Offer {
        self.static_vms.insert(record.key, record.clone());
        self.offer(record)
    }

    /// A VM of the configuration file is gone, with what was known of it from there.
    pub(crate) fn forget_static(&mut self, key: VmKey) -> Option<VmRecord> {
        let record = self.static_vms.remove(&key)?;
        self.removed(key, Version::ZERO);
        Some(record)
    }

    /// What the configuration file says of VNs' parts in a domain: their settings until the directory tells others.
    /// Returns the VNs that have or had a part.
    pub(crate) fn set_static_routing(&mut self, id: DomainId, vns: Vec<(Vni, VnRouting)>) -> BTreeSet<Vni> {
        let mut touched: BTreeSet<Vni> = vns.iter().map(|(vni, _)| *vni).collect();
        touched.extend(self.static_routing.iter().filter(|(_, r)| r.domain == id).map(|(vni, _)| *vni));
        self.static_routing.retain(|_, r| r.domain != id);
        self.static_routing.extend(vns);
        for vni in &touched {
            if let Some(vn) = self.vns.get_mut(vni) {
                vn.settings.routing = self.static_routing.get(vni).cloned();
            }
        }
        touched
    }

    /// An address from the configuration file.
    pub(crate) fn set_static_ip(&mut self, vni: Vni, ip: IpAddr, owner: Owner) {
        self.static_ips.insert((vni, ip), owner);
    }

    /// Other NVEs that get copies of broadcasts: all but those that only forward for VMs that left them (R17, R60).
    pub(crate) fn replicas(&self, vni: Vni, us: &NveId) -> BTreeMap<NveId, Locators> {
        let mut all = self.members(vni, us);
        if let Some(vn) = self.vns.get(&vni) {
            all.retain(|nve, _| !vn.lingering.contains(nve));
        }
        all
    }

    /// The directory told of this NVE's part in the VN: the configuration file alone does not say what it wants (R61).
    pub(crate) fn is_told_member(&self, vni: Vni, nve: &NveId) -> bool {
        self.vns.get(&vni).is_some_and(|vn| vn.members.contains_key(nve))
    }

    /// Other NVEs that take part in the VN, those of the configuration file included (R60).
    pub(crate) fn members(&self, vni: Vni, us: &NveId) -> BTreeMap<NveId, Locators> {
        let fixed = self.static_vms.values().filter(|r| r.key.vni == vni).flat_map(|r| r.bindings.iter());
        let fixed = fixed.map(|b| (b.location.nve.clone(), b.location.locators));
        let mut all: BTreeMap<NveId, Locators> = fixed.collect();
        if let Some(vn) = self.vns.get(&vni) {
            all.extend(vn.members.iter().map(|(n, l)| (n.clone(), *l)));
        }
        all.remove(us);
        all
    }

    /// Takes a record, from whatever message it came (R20). A negative answer on it is over (R36).
    pub(crate) fn offer(&mut self, record: VmRecord) -> Offer {
        let Some(vn) = self.vns.get_mut(&record.key.vni) else { return Offer::Ignored };
        let mac = record.key.mac;
        if let Some(known) = vn.vms.get_mut(&mac) {
            let (old, new) = (&known.record, &record);
            if new.version < old.version {
                // The NVA that has an older word has at least this VM.
                known.confirmed = true;
                return Offer::Ignored;
            }
            if new.version == old.version && new.bindings != old.bindings {
                known.confirmed = true;
                // A configuration file may be corrected; the NVA's word of a version is final.
                if new.version != Version::ZERO {
                    return Offer::Ignored;
                }
            }
        }
        record.macs().for_each(|mac| {
            vn.absent.remove(mac);
        });
        record.addresses().for_each(|(ip, _)| {
            vn.absent_ip.remove(ip);
        });
        let old = vn.vms.remove(&mac).map(|e| e.record);
        if let Some(old) = &old {
            vn.unindex(old);
        }
        vn.index(&record);
        let version = record.version;
        vn.vms.insert(mac, Entry { record, confirmed: true });
        match old {
            Some(old) if old.version == version && version != Version::ZERO => Offer::Confirmed(old),
            old => Offer::Newer(old),
        }
    }

    /// The directory dropped a VM; false for old news. What the configuration file says comes back.
    pub(crate) fn removed(&mut self, key: VmKey, version: Version) -> Option<VmRecord> {
        let vn = self.vns.get_mut(&key.vni)?;
        if vn.vms.get(&key.mac)?.record.version > version {
            return None;
        }
        let old = vn.vms.remove(&key.mac)?.record;
        vn.unindex(&old);
        if let Some(fixed) = self.static_vms.get(&key).cloned() {
            self.offer(fixed);
        }
        Some(old)
    }

    /// Forgets all records of the directory but those that `stays` names; returns them (R72).
    pub(crate) fn forget_others(&mut self, stays: impl Fn(&VmRecord) -> bool) -> Vec<VmRecord> {
        let all = self.vns.values().flat_map(|vn| vn.vms.values().map(|e| &e.record));
        let gone: Vec<VmRecord> = all.filter(|r| r.version != Version::ZERO && !stays(r)).cloned().collect();
        for r in &gone {
            self.removed(r.key, r.version);
        }
        gone
    }
}
