//! VMs: the operator's orders about them. Each checks everything before it changes anything.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::{Allowed, Bindings, Location, NveId, Version, VmKey, VmRecord, check_name};
use godwit_wire::Mac;

use super::{Directory, Level, Refusal, Write};

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

impl Directory {
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
        let old = self.records.get(&key).cloned();
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
        for b in old.iter().chain([&record]).flat_map(|r| r.bindings.iter()) {
            self.sync_foreign_member(&b.location.nve, key.vni);
        }
        Ok(record)
    }

    fn check_definition(&self, def: &VmDefinition) -> Result<VmKey, Refusal> {
        check_name("VM", &def.name)?;
        let vni = self.vns.vni_of(&def.vn).ok_or_else(|| Refusal::UnknownVn(def.vn.clone()))?;
        if !def.mac.is_unicast() || def.mac == Mac::PROBER {
            return Err(Refusal::BadMac { mac: def.mac });
        }
        let key = VmKey { vni, mac: def.mac };
        if let Some(other) = self.records.key_of(&def.name).filter(|k| *k != key) {
            return Err(Refusal::VmExists { name: def.name.clone(), key: other.to_string() });
        }
        if let Some(r) = self.records.get(&key).filter(|r| r.name != def.name) {
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
        self.check_routed(key, def)?;
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
        if let Some(pin) = pin.as_ref().filter(|p| old.is_none_or(|r| !r.is_at(&p.nve))) {
            self.check_takes_vms(&pin.nve)?;
        }
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
            bindings: bound_to(location, old),
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
            standby: old.and_then(|r| r.standby.clone()),
            pause: old.and_then(|r| r.pause),
            former: old.and_then(|r| r.former.clone()),
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
    /// Where it is not there, runs, moves, or is the next hop of routes.
    pub(super) fn delete_vm(&mut self, name: &str) -> Result<VmRecord, Refusal> {
        let record = self.vm_named(name)?.clone();
        if let Some((id, ..)) = self.intent(&record) {
            return Err(Refusal::VmMoving { vm: name.into(), id });
        }
        let place = record.active_nve().cloned();
        if let Some(nve) = place.filter(|n| !record.pinned && self.session_of(n).is_some()) {
            return Err(Refusal::VmActive { vm: name.into(), nve });
        }
        self.check_not_next_hop(&record)?;
        let version = self.next_version();
        let gateway = self.gateway_of(record.key.vni);
        self.remove_vm(record.key);
        self.claims.forget_former(record.key);
        self.forget_unplanned(record.key);
        self.persist(Write::RemoveVm(record.key));
        self.log(Level::Info, format!("VM {name} ({}) is deleted, version {version}", record.key));
        self.publish(record.key, None);
        self.follow_gateway(record.key.vni, gateway);
        for b in record.bindings.iter() {
            self.sync_foreign_member(&b.location.nve, record.key.vni);
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
}

/// At its location; where it is to run is no matter of its definition.
fn bound_to(location: Option<Location>, old: Option<&VmRecord>) -> Bindings {
    let mut bindings = Bindings::from(location);
    bindings.set_pending(old.and_then(|r| r.pending().cloned()));
    bindings
}

/// Where a definition puts the VM: at its pin, else where it was, unless the pin that put it there is gone.
fn placed(
    def: &VmDefinition,
    old: Option<&VmRecord>,
    pin: Option<Location>,
) -> Result<Option<Location>, Refusal> {
    let here = old.and_then(|r| r.active().cloned());
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
