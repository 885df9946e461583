//! What the VM of a port may call its own: addresses and MACs that the directory has of it, and room for what it binds
//! by its own word (R15, R65, R92 to R94).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::{LEARNED_MAX, LearningOf, MAX_BOUND, MAX_MACS, Version, VmKey, VmRecord};
use godwit_tables::update::{Key, PortIdx, SourceRule, SourceRules, VmState};
use godwit_wire::{Instant, Mac};

use crate::bindings::Bindings;
use crate::mobility::Vm;

use super::Nve;

/// A VM is bound to what the file says of it; its link-local addresses are in no file.
const FIXED: SourceRules = SourceRules {
    v4: SourceRule::Listed { room: 0 },
    v6: SourceRule::Listed { room: 0 },
    link_local: SourceRule::Any,
};

/// Families of addresses for which there are rules, as an address of each.
const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// The family of `ip` and that of `other` are the same.
fn same_family(ip: IpAddr, other: IpAddr) -> bool {
    (ip.is_ipv4(), is_link_local(ip)) == (other.is_ipv4(), is_link_local(other))
}

/// How many more addresses of the family of `like` one MAC of the VM may bind by its own word (R93).
pub(super) fn room_of(record: &VmRecord, vn: LearningOf, mac: Mac, like: IpAddr) -> usize {
    let all = usize::from(record.learning(vn, mac, like).room());
    let learned = record.bound.ips.iter().filter(|b| !b.is_virtual && b.mac == mac);
    all.saturating_sub(learned.filter(|b| same_family(b.ip, like)).count())
}

fn rule(record: &VmRecord, vn: LearningOf, like: IpAddr) -> SourceRule {
    let own = core::iter::once(record.key.mac).chain(record.allowed.nested.iter().copied());
    // What a virtual MAC answers for is shared or recorded; its link-local address is neither.
    let shared = record.allowed.virtual_macs.iter().copied().filter(|_| is_link_local(like));
    let room: usize = own.chain(shared).map(|mac| room_of(record, vn, mac, like)).sum();
    let left = MAX_BOUND.saturating_sub(record.bound.ips.len());
    let room = u8::try_from(room.min(left)).unwrap_or(LEARNED_MAX).min(LEARNED_MAX);
    let learns = record.learning(vn, record.key.mac, like).room() > 0 || !record.allowed.nested.is_empty();
    if room == 0 && learns { SourceRule::Full } else { SourceRule::Listed { room } }
}

impl Nve {
    /// The VM that a MAC is of: itself, or the one that it is a nested or virtual MAC of (R92, R94).
    pub(super) fn carrier(&self, key: VmKey) -> VmKey {
        if self.vms.contains_key(&key) {
            return key;
        }
        self.mirror.parent(key).map_or(key, |r| r.key)
    }

    /// All of it that a port must know before it opens (R15).
    pub(super) fn sync_bindings(&mut self, key: VmKey) {
        let ports: Vec<PortIdx> =
            self.vms.get(&key).into_iter().flat_map(|vm| vm.ports.keys().copied()).collect();
        for port in ports {
            let bindings = self.bindings_of(key, port);
            self.desired.bind_port(port, bindings);
        }
    }

    fn bindings_of(&self, key: VmKey, port: PortIdx) -> Bindings {
        let server = self.mirror.is_defined_router(key);
        let mut b = Bindings { sources: self.mirror.addresses(key), server, ..Bindings::default() };
        let record = self.mirror.record(key).filter(|r| r.version > Version::ZERO);
        if let Some(r) = record {
            let vn = self.mirror.learning(key.vni);
            let (v4, v6) = (rule(r, vn, V4), rule(r, vn, V6));
            b.rules = SourceRules { v4, v6, link_local: rule(r, vn, LINK_LOCAL) };
            b.macs = r.allowed.nested.iter().map(|mac| (*mac, false)).collect();
            b.macs.extend(r.allowed.virtual_macs.iter().map(|mac| (*mac, true)));
            b.routed = r.allowed.routes.iter().copied().collect();
            b.shared = r.allowed.virtual_ips.iter().copied().collect();
        }
        let behind = self.behind.iter().filter(|(k, p)| **p == port && k.vni == key.vni).take(MAX_MACS);
        let behind: Vec<VmKey> = behind.map(|(key, _)| *key).collect();
        let said = behind.iter().all(|k| !self.mirror.addresses(*k).is_empty());
        b.macs.extend(behind.iter().map(|k| (k.mac, false)));
        if record.is_none() && !b.sources.is_empty() && said {
            b.rules = FIXED;
        }
        if record.is_some() || !b.sources.is_empty() {
            b.sources.extend(behind.iter().flat_map(|k| self.mirror.addresses(*k)));
        }
        b
    }

    /// Nested and virtual MACs are where their VM is, by the same barrier; what is absent is so by itself.
    pub(super) fn sync_nested(&mut self, key: VmKey, state: Option<VmState>) {
        let Some(vn) = self.desired.vn(key.vni) else { return };
        let Some(record) = self.mirror.record(key).filter(|r| r.macs().nth(1).is_some()) else { return };
        let macs: Vec<Mac> = record.macs().skip(1).collect();
        for mac in macs {
            let nested = VmKey { mac, ..key };
            if self.carrier(nested) == key {
                let absent = match state {
                    None => true,
                    Some(VmState::Absent { until }) => until != Instant::NEVER,
                    Some(_) => false,
                };
                let state = if absent { self.absent_state(nested) } else { state };
                self.desired.set_vm(Key::new(vn, mac), state);
            }
        }
    }

    pub(super) fn absent_state(&self, key: VmKey) -> Option<VmState> {
        let until = self.mirror.absent(key).filter(|t| *t > self.now)?;
        Some(VmState::Absent { until })
    }

    /// The MACs whose frames are the VM's, its own first.
    pub(super) fn macs_of(&self, key: VmKey) -> Vec<Mac> {
        match self.mirror.record(key) {
            Some(r) => r.macs().filter(|mac| self.carrier(VmKey { mac: *mac, ..key }) == key).collect(),
            None => vec![key.mac],
        }
    }

    /// It runs or is paused here.
    pub(super) fn is_hosted(&self, key: VmKey) -> bool {
        self.vms.get(&key).is_some_and(Vm::is_hosted)
    }
}
