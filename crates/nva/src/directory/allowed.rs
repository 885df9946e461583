//! What the operator lets a VM have beside its recorded addresses: virtual ones that it shares with others (R92),
//! those that it may bind by itself (R93), and what stands behind it (R94). Each order is checked against what the
//! other VMs of the VN have, and names both sides where that is in conflict.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::{Allowed, Learning, LearningOf, MAX_MACS, MAX_PREFIXES, NveId, VmKey, VmRecord};
use godwit_wire::{Mac, Prefix, Vni};

use super::{Directory, Level, Refusal, VmDefinition};

/// What is to come to a list and to go from it, in this order: what is in both stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListChange<T> {
    /// To go; what is not there is gone already.
    pub remove: Vec<T>,
    /// To come.
    pub add: Vec<T>,
}

impl<T> Default for ListChange<T> {
    fn default() -> ListChange<T> {
        ListChange { remove: Vec::new(), add: Vec::new() }
    }
}

impl<T: Ord> ListChange<T> {
    fn apply(self, list: &mut Vec<T>) {
        list.retain(|x| !self.remove.contains(x));
        list.extend(self.add);
        list.sort_unstable();
        list.dedup();
    }
}

/// What is to change of a VM; the rest stays.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct VmChanges {
    /// It is a router, by the operator's word (R25, R94).
    pub router: Option<bool>,
    /// Its policy; `Some(None)`: none any more (R23).
    pub policy: Option<Option<String>>,
    /// Whose word binds IPv4 addresses; `Some(None)`: what the VN says (R93).
    pub learning_v4: Option<Option<Learning>>,
    /// Of IPv6 likewise.
    pub learning_v6: Option<Option<Learning>>,
    /// Recorded addresses.
    pub ipv4: ListChange<Ipv4Addr>,
    /// Of IPv6 likewise.
    pub ipv6: ListChange<Ipv6Addr>,
    /// Virtual addresses (R92).
    pub virtual_ips: ListChange<Prefix>,
    /// Virtual MACs (R92).
    pub virtual_macs: ListChange<Mac>,
    /// Prefixes that it routes for (R94).
    pub routes: ListChange<Prefix>,
    /// MACs of VMs within it (R94).
    pub nested: ListChange<Mac>,
}

/// With every list in order, each entry once.
pub(super) fn sorted(mut a: Allowed) -> Allowed {
    fn sort<T: Ord>(list: &mut Vec<T>) {
        list.sort_unstable();
        list.dedup();
    }
    sort(&mut a.virtual_ips);
    sort(&mut a.routes);
    sort(&mut a.virtual_macs);
    sort(&mut a.nested);
    a
}

/// There are prefixes or MACs that others must keep away from.
pub(super) fn wants_more(a: &Allowed) -> bool {
    !(a.virtual_ips.is_empty() && a.routes.is_empty() && a.virtual_macs.is_empty() && a.nested.is_empty())
}

/// An address that a VM may have.
pub(super) fn is_individual(ip: IpAddr) -> bool {
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast)
}

/// For people: what is said of both families.
pub(super) fn learning_text(l: LearningOf) -> String {
    let word = |l: Option<Learning>| l.map_or("by default".to_owned(), |l| l.to_string());
    format!("IPv4 {}, IPv6 {}", word(l.v4), word(l.v6))
}

/// A prefix can be allowed to a VM.
fn check_prefix(what: &'static str, p: Prefix) -> Result<(), Refusal> {
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
    let no_vms = |ip: IpAddr| ip.is_multicast() || ip.is_loopback() || link_local(ip);
    let wide = p.prefix_len() > 0 && !no_vms(p.addr()) && !no_vms(p.last()) && !p.contains(LINK_LOCAL);
    let good = if p.is_host() { is_individual(p.addr()) } else { wide };
    if good { Ok(()) } else { Err(Refusal::BadPrefix { what, prefix: p }) }
}

const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));

/// What of one VM is in the way of another one's: the words for both, and the command that removes the other's.
struct Clash {
    mine: String,
    theirs: String,
    undo: String,
}

/// What two VMs of a VN must not both be allowed; `ips` are the recorded addresses of the first one.
fn clash(mac: Mac, ips: &[IpAddr], mine: &Allowed, theirs: &VmRecord) -> Option<Clash> {
    let found = |mine: String, theirs: String, undo: String| Some(Clash { mine, theirs, undo });
    let t = &theirs.allowed;
    if t.nested.contains(&mac) {
        return found(format!("MAC {mac}"), "its nested MAC".into(), format!("--no-nested {mac}"));
    }
    if t.virtual_macs.contains(&mac) {
        return found(format!("MAC {mac}"), "its virtual MAC".into(), format!("--no-virtual-mac {mac}"));
    }
    let nested = mine.nested.iter().find(|m| t.nested.contains(m) || t.virtual_macs.contains(m));
    if let Some(m) = nested {
        let what = if t.nested.contains(m) { "nested" } else { "virtual-mac" };
        let theirs = if t.nested.contains(m) { "its nested MAC" } else { "its virtual MAC" };
        return found(format!("nested MAC {m}"), theirs.into(), format!("--no-{what} {m}"));
    }
    if let Some(m) = mine.virtual_macs.iter().find(|m| t.nested.contains(m)) {
        return found(format!("virtual MAC {m}"), "its nested MAC".into(), format!("--no-nested {m}"));
    }
    for (what, option, prefixes) in
        [("route", "route", &t.routes), ("virtual prefix", "virtual", &t.virtual_ips)]
    {
        let undo = |p: &Prefix| format!("--no-{option} {p}");
        for p in prefixes {
            if let Some(ip) = ips.iter().find(|ip| p.contains(**ip)) {
                return found(format!("address {ip}"), format!("the {what} {p}"), undo(p));
            }
            if let Some(m) = mine.routes.iter().find(|m| m.overlaps(p)) {
                return found(format!("route {m}"), format!("the {what} {p}"), undo(p));
            }
            if let Some(m) = mine.virtual_ips.iter().find(|m| option == "route" && m.overlaps(p)) {
                return found(format!("virtual prefix {m}"), format!("the {what} {p}"), undo(p));
            }
        }
    }
    None
}

impl Directory {
    /// Changes what is named of a VM, while it runs too; nothing to change is no error.
    ///
    /// # Errors
    /// Where it is not there, moves, or the change is refused as a definition would be.
    pub(super) fn set_vm(&mut self, name: &str, to: VmChanges) -> Result<VmRecord, Refusal> {
        let r = self.vm_named(name)?;
        let vn = self.vns.record(r.key.vni).ok_or_else(|| Refusal::UnknownVn(String::new()))?.name.clone();
        let pinned: Option<NveId> = r.active_nve().filter(|_| r.pinned).cloned();
        let mut def = VmDefinition {
            name: r.name.clone(),
            vn,
            mac: r.key.mac,
            ipv4: r.ipv4.clone(),
            ipv6: r.ipv6.clone(),
            router: to.router.unwrap_or(r.router_pinned),
            pinned,
            policy: to.policy.unwrap_or_else(|| r.policy.clone()),
            allowed: r.allowed.clone(),
        };
        to.ipv4.apply(&mut def.ipv4);
        to.ipv6.apply(&mut def.ipv6);
        let a = &mut def.allowed;
        to.virtual_ips.apply(&mut a.virtual_ips);
        to.virtual_macs.apply(&mut a.virtual_macs);
        to.routes.apply(&mut a.routes);
        to.nested.apply(&mut a.nested);
        a.learning.v4 = to.learning_v4.unwrap_or(a.learning.v4);
        a.learning.v6 = to.learning_v6.unwrap_or(a.learning.v6);
        self.put_definition(def)
    }

    /// What the VN says of learning.
    pub(super) fn learning_of(&self, vni: Vni) -> LearningOf {
        self.vns.record(vni).map(|r| r.settings.learning).unwrap_or_default()
    }

    /// Another VM of the VN that an address leads to.
    pub(super) fn holder(&self, key: VmKey, ip: IpAddr) -> Option<&VmRecord> {
        let holder = self.records.key_of_ip(key.vni, ip).filter(|holder| *holder != key)?;
        self.records.get(&holder)
    }

    /// The VM is at an NVE that is there, or was of late, or is expected after a restart of this NVA: it can speak for
    /// itself. What others want of one that cannot is not kept for it.
    pub(super) fn is_present(&self, r: &VmRecord) -> bool {
        let Some(nve) = r.active_nve().and_then(|nve| self.nves.get(nve)) else { return false };
        // Who was not heard since our own start could not be: it counts as heard then.
        let heard = nve.heard.or(self.clock.started).unwrap_or(self.now);
        nve.session.is_some() || nve.expected || self.now.since(heard) <= self.config.verify_timeout
    }

    /// The other VMs of the VN that are allowed prefixes or other MACs.
    pub(super) fn others_allowed(&self, key: VmKey) -> impl Iterator<Item = &VmRecord> {
        self.records.allowing(key.vni).filter(move |r| r.key != key)
    }

    /// The addresses of a prefix that lead to other VMs.
    pub(super) fn held_in(&self, key: VmKey, p: &Prefix) -> impl Iterator<Item = (IpAddr, &VmRecord)> {
        let held = self.records.ips_in(key.vni, p).filter(move |(_, holder)| *holder != key);
        held.filter_map(|(ip, holder)| Some((ip, self.records.get(&holder)?)))
    }

    /// What is allowed makes sense, and nothing of it is another VM's (R33, R92, R94).
    pub(super) fn check_allowed(&self, key: VmKey, def: &VmDefinition) -> Result<(), Refusal> {
        let a = &def.allowed;
        check_lists(key, def)?;
        for (what, mac) in macs_of(a) {
            if let Some(r) = self.records.get(&VmKey { mac, ..key }) {
                let remedy =
                    format!("a MAC is of one VM; delete that one first (`godwitctl vm delete {}`)", r.name);
                return Err(overlap(def, format!("{what} {mac}"), "its own MAC".into(), r, remedy));
            }
        }
        let ips = ips_of(def);
        for r in self.others_allowed(key) {
            if let Some(c) = clash(key.mac, &ips, a, r) {
                let remedy = format!("choose another one, or `godwitctl vm set {} {}` first", r.name, c.undo);
                return Err(overlap(def, c.mine, c.theirs, r, remedy));
            }
        }
        for (what, p) in prefixes_of(a) {
            let taken = self.held_in(key, p).find(|(ip, r)| r.ips().any(|own| own == *ip));
            if let Some((ip, r)) = taken {
                let option = if ip.is_ipv4() { "--no-ipv4" } else { "--no-ipv6" };
                let remedy = format!(
                    "choose a prefix without it, or `godwitctl vm set {} {option} {ip}` first",
                    r.name
                );
                return Err(overlap(def, format!("{what} {p}"), format!("the address {ip}"), r, remedy));
            }
        }
        Ok(())
    }

    /// The operator's word wins: what others bound by their own word, and now is this VM's, is theirs no more.
    pub(super) fn take_from_others(&mut self, record: &VmRecord) {
        let key = record.key;
        let mut lost: std::collections::BTreeMap<VmKey, Vec<IpAddr>> = Default::default();
        for ip in record.ips() {
            if let Some(r) = self.holder(key, ip) {
                lost.entry(r.key).or_default().push(ip);
            }
        }
        for (_, p) in prefixes_of(&record.allowed) {
            for (ip, r) in self.held_in(key, p) {
                // A virtual one stays with whom it is until this VM announces it.
                if r.bound.at(ip).is_some_and(|b| !b.is_virtual) {
                    lost.entry(r.key).or_default().push(ip);
                }
            }
        }
        for (other, ips) in lost {
            let why = format!("the operator gave it to VM {}", record.name);
            self.lose(other, &why, |bound| bound.ips.retain(|b| !ips.contains(&b.ip)));
        }
    }

    /// The VN says something else of learning: what is not allowed any more goes.
    pub(super) fn follow_learning(&mut self, vni: Vni) {
        let learning = self.learning_of(vni);
        let bound = self.records.of_vn(vni).filter(|r| !r.bound.is_empty());
        let keys: Vec<VmKey> = bound.map(|r| r.key).collect();
        for key in keys {
            let Some(mut record) = self.records.get(&key).cloned() else { continue };
            super::bind::trim(&mut record, learning);
            if self.records.get(&key).is_some_and(|old| old.bound != record.bound) {
                record.version = self.next_version();
                let text =
                    format!("VM {} ({key}) loses addresses that its VN does not let it learn", record.name);
                self.log(Level::Info, text);
                self.put_vm(record);
                self.publish_in_place(key, None);
            }
        }
    }
}

pub(super) fn ips_of(def: &VmDefinition) -> Vec<IpAddr> {
    let v4 = def.ipv4.iter().copied().map(IpAddr::V4);
    v4.chain(def.ipv6.iter().copied().map(IpAddr::V6)).collect()
}

fn macs_of(a: &Allowed) -> impl Iterator<Item = (&'static str, Mac)> + '_ {
    let nested = a.nested.iter().map(|m| ("nested MAC", *m));
    nested.chain(a.virtual_macs.iter().map(|m| ("virtual MAC", *m)))
}

pub(super) fn prefixes_of(a: &Allowed) -> impl Iterator<Item = (&'static str, &Prefix)> {
    a.routes.iter().map(|p| ("route", p)).chain(a.virtual_ips.iter().map(|p| ("virtual prefix", p)))
}

fn overlap(def: &VmDefinition, mine: String, theirs: String, other: &VmRecord, remedy: String) -> Refusal {
    Refusal::Overlap { mine, vm: def.name.clone(), theirs, other: other.name.clone(), remedy }
}

/// The lists by themselves: their lengths, their entries, and that nothing is named twice.
fn check_lists(key: VmKey, def: &VmDefinition) -> Result<(), Refusal> {
    let a = &def.allowed;
    let lengths = [
        ("virtual prefixes", a.virtual_ips.len(), MAX_PREFIXES),
        ("routes", a.routes.len(), MAX_PREFIXES),
        ("virtual MACs", a.virtual_macs.len(), MAX_MACS),
        ("nested MACs", a.nested.len(), MAX_MACS),
    ];
    if let Some((what, got, max)) = lengths.into_iter().find(|(_, got, max)| got > max) {
        return Err(Refusal::TooMany { what, got, max });
    }
    for (what, p) in prefixes_of(a) {
        check_prefix(what, *p)?;
    }
    for (what, mac) in macs_of(a) {
        if !mac.is_unicast() || mac == Mac::PROBER {
            return Err(Refusal::BadMac { mac });
        }
        let twice = what == "virtual MAC" && a.nested.contains(&mac);
        if mac == key.mac || twice {
            let theirs = if twice { "the nested MAC" } else { "the MAC" };
            return Err(Refusal::Overlap {
                mine: format!("{what} {mac}"),
                vm: def.name.clone(),
                theirs: theirs.into(),
                other: def.name.clone(),
                remedy: "name each MAC once".into(),
            });
        }
    }
    Ok(())
}
