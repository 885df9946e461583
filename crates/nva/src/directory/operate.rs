//! The operator's orders: VNs, VMs, NVEs. Each checks everything before it changes anything.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::message::Change;
use godwit_model::{
    Allowed, BindingState, DirectoryMode, Gateway, Learning, Location, Locators, NveId, Unplanned, Version,
    VmKey, VmRecord, VnSettings, check_name,
};
use godwit_wire::{Mac, Vni};

use super::{Directory, Level, Nve, NveInfo, NveRecord, Refusal, SessionId, Vn, VnInfo, VnRecord, Write};

/// A VM as an operator defines it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmDefinition {
    /// Its name, unique in the directory.
    pub name: String,
    /// Name of its VN.
    pub vn: String,
    /// Its address, unique in the VN.
    pub mac: Mac,
    /// Its IPv4 addresses, each unique in the VN.
    pub ipv4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, each unique in the VN.
    pub ipv6: Vec<Ipv6Addr>,
    /// It is a router, whatever it advertises; without this its own advertisements decide (R25).
    pub router: bool,
    /// It is at this NVE by the operator's word; none: it is claimed.
    pub pinned: Option<NveId>,
    /// The policy of what it may send and receive (R23).
    pub policy: Option<String>,
    /// What it may have beside these addresses (R92 to R94).
    pub allowed: Allowed,
}

/// What is to change in a VN; `None`: it stays.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VnChanges {
    /// Requests for addresses that the directory does not have are flooded (R31).
    pub flood_silent: Option<bool>,
    /// What becomes of claims without a move for VMs of other NVEs (R21).
    pub unplanned: Option<Unplanned>,
    /// VMs that ask for their own IPv4 address by RARP are answered (R27).
    pub rarp: Option<bool>,
    /// Whose word binds IPv4 addresses to its VMs (R93); `Some(None)`: not said any more.
    pub learning_v4: Option<Option<Learning>>,
    /// Of IPv6 likewise.
    pub learning_v6: Option<Option<Learning>>,
}

impl VnChanges {
    /// The settings with these changes.
    fn applied_to(&self, mut s: VnSettings) -> VnSettings {
        s.flood_silent = self.flood_silent.unwrap_or(s.flood_silent);
        s.unplanned = self.unplanned.unwrap_or(s.unplanned);
        s.rarp = self.rarp.unwrap_or(s.rarp);
        s.learning.v4 = self.learning_v4.unwrap_or(s.learning.v4);
        s.learning.v6 = self.learning_v6.unwrap_or(s.learning.v6);
        s
    }
}

/// What the log says of a VN's settings.
fn settings_text(s: &VnSettings) -> String {
    format!(
        "requests for unknown addresses are {}, unplanned moves: {:?}, RARP: {}, addresses: {}",
        if s.flood_silent { "flooded" } else { "dropped" },
        s.unplanned,
        s.rarp,
        super::allowed::learning_text(s.learning)
    )
}

impl Directory {
    /// Makes a VN; the same order again changes nothing.
    ///
    /// # Errors
    /// Where its name or number is taken, or a value is of no use.
    pub(super) fn create_vn(&mut self, vn: VnRecord) -> Result<VnInfo, Refusal> {
        check_name("VN", &vn.name)?;
        let mtu = vn.settings.mtu;
        if mtu != 0 && !(576..=9216).contains(&mtu) {
            return Err(Refusal::BadMtu(mtu));
        }
        let vni = vn.vni;
        let there = self.vn_names.get(&vn.name).copied();
        if let Some(vni) = there.filter(|v| self.vns[v].record.as_ref() != Some(&vn)) {
            return Err(Refusal::VnExists { name: vn.name, vni });
        }
        if there.is_none() {
            if let Some(r) = self.vns.get(&vni).and_then(|v| v.record.as_ref()) {
                return Err(Refusal::VniTaken { vni, name: r.name.clone() });
            }
            self.vn_names.insert(vn.name.clone(), vni);
            self.persist(Write::PutVn(vn.clone()));
            self.log(Level::Info, format!("VN {} has VNI {vni}", vn.name));
            self.vns.entry(vni).or_default().record = Some(vn);
            self.snapshot_all(vni);
        }
        let info = self.vn_info(vni).ok_or(Refusal::UnknownVn(String::new()))?;
        Ok(info)
    }

    /// Subscribers learn that the VN is there, or is not any more.
    fn snapshot_all(&mut self, vni: Vni) {
        self.snapshot_to(vni, |_| true);
    }

    fn snapshot_to(&mut self, vni: Vni, mode: impl Fn(DirectoryMode) -> bool) {
        let all = self.vns.get(&vni).map(|v| v.subscribers.clone()).unwrap_or_default();
        let mode_of = |s: &SessionId| self.sessions.get(s).and_then(|s| s.mode(vni));
        let those: Vec<_> = all.into_iter().filter(|s| mode_of(s).is_some_and(&mode)).collect();
        for session in those {
            self.settle_by_snapshot(session, vni);
            self.snapshot(session, vni);
        }
    }

    /// The router of a VN in whose name VMs are answered (R27): the first by MAC, where they are answered at all.
    fn gateway(&self, vn: &Vn) -> Option<Gateway> {
        let (mac, ip) = vn.gateways.first_key_value()?;
        vn.record.as_ref().filter(|r| r.settings.rarp).map(|_| Gateway { mac: *mac, ip: *ip })
    }

    /// What a subscriber is told of it: who is pushed all records finds it there.
    pub(super) fn told_gateway(&self, vn: &Vn, mode: DirectoryMode) -> Option<Gateway> {
        self.gateway(vn).filter(|_| mode == DirectoryMode::Pull)
    }

    /// Tells those who pull a VN that it has another router than `before`.
    fn follow_gateway(&mut self, vni: Vni, before: Option<Gateway>) {
        if self.gateway_of(vni) != before {
            self.snapshot_to(vni, |mode| mode == DirectoryMode::Pull);
        }
    }

    fn gateway_of(&self, vni: Vni) -> Option<Gateway> {
        self.vns.get(&vni).and_then(|vn| self.gateway(vn))
    }

    /// Changes what a VN does with requests for unknown addresses (R31), which its members are told, or with
    /// unplanned moves (R21).
    ///
    /// # Errors
    /// Where it is not there.
    pub(super) fn set_vn(&mut self, name: &str, to: VnChanges) -> Result<VnInfo, Refusal> {
        let unknown = || Refusal::UnknownVn(name.into());
        let vni = *self.vn_names.get(name).ok_or_else(unknown)?;
        let record = self.vns.get_mut(&vni).and_then(|vn| vn.record.as_mut()).ok_or_else(unknown)?;
        let before = record.settings;
        let settings = to.applied_to(before);
        if settings != before {
            record.settings = settings;
            let record = record.clone();
            self.persist(Write::PutVn(record));
            self.log(Level::Info, format!("VN {name}: {}", settings_text(&settings)));
            if !settings.same_for_nves(&before) {
                self.snapshot_all(vni);
            }
            if settings.learning != before.learning {
                self.follow_learning(vni);
            }
        }
        let info = self.vn_info(vni).ok_or_else(unknown)?;
        Ok(info)
    }

    /// Deletes a VN without VMs.
    ///
    /// # Errors
    /// Where it is not there, or has VMs.
    pub(super) fn delete_vn(&mut self, name: &str) -> Result<VnInfo, Refusal> {
        let vni = *self.vn_names.get(name).ok_or_else(|| Refusal::UnknownVn(name.into()))?;
        let vms = self.vms_of(vni).count();
        if vms > 0 {
            return Err(Refusal::VnHasVms { vn: name.into(), vms });
        }
        let info = self.vn_info(vni).ok_or_else(|| Refusal::UnknownVn(name.into()))?;
        self.vn_names.remove(name);
        if let Some(vn) = self.vns.get_mut(&vni) {
            vn.record = None;
        }
        self.persist(Write::RemoveVn(vni));
        self.log(Level::Info, format!("VN {name} is deleted"));
        self.snapshot_all(vni);
        self.drop_empty_vn(vni);
        Ok(info)
    }

    /// Defines a VM, or changes the addresses, the router flag, the pin, the policy or what is allowed of one that is
    /// there.
    ///
    /// # Errors
    /// Where a name or an address is taken or of no use, or the VM cannot be changed now.
    pub(super) fn define_vm(&mut self, def: VmDefinition) -> Result<VmRecord, Refusal> {
        self.put_definition(VmDefinition { allowed: super::allowed::sorted(def.allowed), ..def })
    }

    /// The order of this step: the VM is to be as defined.
    pub(super) fn put_definition(&mut self, def: VmDefinition) -> Result<VmRecord, Refusal> {
        let key = self.check_definition(&def)?;
        let old = self.vms.get(&key).cloned();
        let record = self.defined(key, &def, old.as_ref())?;
        if old.as_ref() == Some(&record) {
            // Nothing changes; an NVE that was refused the VM tries again.
            self.tell_ports(key, &BTreeSet::new());
            return Ok(record);
        }
        self.take_from_others(&record);
        let record = VmRecord { version: self.next_version(), ..record };
        self.log(Level::Info, format!("VM {} ({key}) is defined, version {}", record.name, record.version));
        let gateway = self.gateway_of(key.vni);
        self.put_vm(record.clone());
        self.publish(key, None);
        self.follow_gateway(key.vni, gateway);
        let places = [old.and_then(|r| r.location), record.location.clone()];
        for nve in places.into_iter().flatten().map(|l| l.nve) {
            self.sync_foreign_member(&nve, key.vni);
        }
        Ok(record)
    }

    fn check_definition(&self, def: &VmDefinition) -> Result<VmKey, Refusal> {
        check_name("VM", &def.name)?;
        let vni = *self.vn_names.get(&def.vn).ok_or_else(|| Refusal::UnknownVn(def.vn.clone()))?;
        if !def.mac.is_unicast() || def.mac == Mac::PROBER {
            return Err(Refusal::BadMac { mac: def.mac });
        }
        let key = VmKey { vni, mac: def.mac };
        if let Some(other) = self.vm_names.get(&def.name).filter(|k| **k != key) {
            return Err(Refusal::VmExists { name: def.name.clone(), key: other.to_string() });
        }
        if let Some(r) = self.vms.get(&key).filter(|r| r.name != def.name) {
            return Err(Refusal::MacTaken { mac: def.mac, vn: def.vn.clone(), name: r.name.clone() });
        }
        if let Some(policy) = &def.policy {
            self.policy(policy)?;
        }
        let got = def.ipv4.len() + def.ipv6.len();
        if got > self.config.max_addresses {
            return Err(Refusal::TooManyAddresses { got, max: self.config.max_addresses });
        }
        let v4 = def.ipv4.iter().copied().map(IpAddr::V4);
        for ip in v4.chain(def.ipv6.iter().copied().map(IpAddr::V6)) {
            self.check_ip(key, &def.vn, ip)?;
        }
        self.check_allowed(key, def)?;
        Ok(key)
    }

    /// One address has one MAC within its VN (R33).
    fn check_ip(&self, key: VmKey, vn: &str, ip: IpAddr) -> Result<(), Refusal> {
        if !super::allowed::is_individual(ip) {
            return Err(Refusal::BadIp(ip));
        }
        // What another one only learned is its own no more.
        match self.holder(key, ip).filter(|r| r.ips().any(|own| own == ip)) {
            None => Ok(()),
            Some(r) => Err(Refusal::IpTaken { ip, vn: vn.into(), name: r.name.clone() }),
        }
    }

    /// The record that the definition leads to, with the version of the old one.
    fn defined(&self, key: VmKey, def: &VmDefinition, old: Option<&VmRecord>) -> Result<VmRecord, Refusal> {
        let pin = match &def.pinned {
            Some(nve) => Some(self.location_of(nve).ok_or_else(|| Refusal::UnknownNve(nve.to_string()))?),
            None => None,
        };
        let location = placed(def, old, pin)?;
        let sorted = |mut v: Vec<_>| {
            v.sort_unstable();
            v.dedup();
            v
        };
        let mut ipv6 = def.ipv6.clone();
        ipv6.sort_unstable();
        ipv6.dedup();
        let learned = old.into_iter().flat_map(|r| &r.no_override).copied();
        let no_override = learned.filter(|ip| ipv6.contains(ip)).collect();
        let mut record = VmRecord {
            name: def.name.clone(),
            key,
            ipv4: sorted(def.ipv4.clone()),
            ipv6,
            state: if location.is_some() { BindingState::Active } else { BindingState::Detached },
            location,
            version: old.map_or(Version::ZERO, |r| r.version),
            // What the VM said itself stays, unless the operator knows better or did so before.
            router: def.router || old.is_some_and(|r| r.router && !r.router_pinned),
            router_pinned: def.router,
            no_override,
            frozen: old.is_some_and(|r| r.frozen),
            pinned: def.pinned.is_some(),
            policy: def.policy.clone(),
            moving: old.and_then(|r| r.moving.clone()),
            allowed: def.allowed.clone(),
            bound: old.map(|r| r.bound.clone()).unwrap_or_default(),
        };
        super::bind::trim(&mut record, self.learning_of(key.vni));
        // Both NVEs were told its addresses for a move that is under way.
        match old.filter(|o| **o != record).and_then(|o| self.intent(o)) {
            Some((id, ..)) => Err(Refusal::VmMoving { vm: def.name.clone(), id }),
            None => Ok(record),
        }
    }

    /// Deletes a VM that does not run at a connected NVE.
    ///
    /// # Errors
    /// Where it is not there, runs, or moves.
    pub(super) fn delete_vm(&mut self, name: &str) -> Result<VmRecord, Refusal> {
        let record = self.vm_named(name)?.clone();
        if let Some((id, ..)) = self.intent(&record) {
            return Err(Refusal::VmMoving { vm: name.into(), id });
        }
        let place = record.location.as_ref().map(|l| l.nve.clone());
        if let Some(nve) = place.clone().filter(|n| !record.pinned && self.session_of(n).is_some()) {
            return Err(Refusal::VmActive { vm: name.into(), nve });
        }
        let version = self.next_version();
        self.vms.remove(&record.key);
        self.former.remove(&record.key);
        self.forget_unplanned(record.key);
        let gateway = self.gateway_of(record.key.vni);
        self.unindex(&record);
        self.persist(Write::RemoveVm(record.key));
        self.log(Level::Info, format!("VM {name} ({}) is deleted, version {version}", record.key));
        self.publish(record.key, None);
        self.follow_gateway(record.key.vni, gateway);
        if let Some(nve) = place {
            self.sync_foreign_member(&nve, record.key.vni);
        }
        Ok(record)
    }

    /// Lets a frozen VM be claimed and moved again, and forgets its unplanned moves (R22). Of one that is not
    /// frozen only the count is forgotten.
    ///
    /// # Errors
    /// Where it is not there.
    pub(super) fn clear_vm(&mut self, name: &str) -> Result<VmRecord, Refusal> {
        let mut record = self.vm_named(name)?.clone();
        self.forget_unplanned(record.key);
        if record.frozen {
            record.frozen = false;
            record.version = self.next_version();
            self.log(
                Level::Info,
                format!("VM {name} ({}) is frozen no more, version {}", record.key, record.version),
            );
            self.put_vm(record.clone());
            self.publish(record.key, None);
        }
        Ok(record)
    }

    /// Defines an NVE that has no session, or gives it other locators.
    ///
    /// # Errors
    /// Where the NVE speaks for itself, has no locator, or the directory is full.
    pub(super) fn define_nve(&mut self, id: &NveId, locators: Locators) -> Result<NveInfo, Refusal> {
        if locators.is_empty() {
            return Err(Refusal::NoLocator);
        }
        let full = self.nves.len() >= self.config.max_nves;
        match self.nves.get_mut(id) {
            Some(n) if !n.record.foreign => return Err(Refusal::NveSpeaks { nve: id.clone() }),
            Some(n) if n.record.locators == locators => {}
            Some(n) => {
                n.record.locators = locators;
                self.save_nve(id);
                self.relocate(id);
            }
            None if full => {
                return Err(Refusal::Full { what: "NVEs", max: self.config.max_nves });
            }
            None => {
                let (software, vnis) = (String::new(), BTreeSet::new());
                let record =
                    NveRecord { id: id.clone(), locators, foreign: true, software, instance: 0, vnis };
                self.nves.insert(id.clone(), Nve::new(record));
                self.save_nve(id);
            }
        }
        let info = self.nve_info(id, self.now).ok_or_else(|| Refusal::UnknownNve(id.to_string()))?;
        Ok(info)
    }

    /// Forgets an NVE that is not connected and holds no VM.
    ///
    /// # Errors
    /// Where it is not there, connected, holds VMs, or takes part in a move.
    pub(super) fn delete_nve(&mut self, id: &NveId) -> Result<NveInfo, Refusal> {
        let info = self.nve_info(id, self.now).ok_or_else(|| Refusal::UnknownNve(id.to_string()))?;
        if info.connected {
            return Err(Refusal::NveConnected { nve: id.clone() });
        }
        if info.vms > 0 {
            return Err(Refusal::NveHasVms { nve: id.clone(), vms: info.vms });
        }
        let moves = self.moves(None, true);
        if let Some(m) = moves.into_iter().find(|m| m.from == *id || m.to == *id) {
            return Err(Refusal::VmMoving { vm: m.vm.clone(), id: m.id.clone() });
        }
        self.forget_nve(id);
        for vni in &info.vnis {
            self.drop_member(id, *vni);
        }
        self.log(Level::Info, format!("NVE {id} is deleted"));
        Ok(info)
    }

    /// A foreign NVE is a member of a VN while a VM of it is pinned there (R60).
    fn sync_foreign_member(&mut self, nve: &NveId, vni: Vni) {
        let Some(n) = self.nves.get(nve).filter(|n| n.record.foreign) else { return };
        let wanted = n.vms.iter().any(|key| key.vni == vni);
        if !wanted {
            return self.drop_member(nve, vni);
        }
        let joins = self.vns.entry(vni).or_default().members.insert(nve.clone());
        if let (true, Some(location)) = (joins, self.location_of(nve)) {
            self.update_all(vni, Change::MemberJoined(location), None);
        }
    }
}

/// Where a definition puts the VM: at its pin, else where it was, unless the pin that put it there is gone.
fn placed(
    def: &VmDefinition,
    old: Option<&VmRecord>,
    pin: Option<Location>,
) -> Result<Option<Location>, Refusal> {
    let here = old.and_then(|r| r.location.clone());
    let claimed = old.is_some_and(|r| !r.pinned);
    match (pin, here) {
        (Some(pin), Some(here)) if claimed && pin.nve != here.nve => {
            Err(Refusal::VmActive { vm: def.name.clone(), nve: here.nve })
        }
        (Some(pin), _) => Ok(Some(pin)),
        (None, here) if claimed => Ok(here),
        (None, _) => Ok(None),
    }
}
