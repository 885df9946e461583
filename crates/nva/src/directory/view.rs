//! Looking at the directory without changing it.

use std::net::IpAddr;

use godwit_model::{
    Abilities, DirectoryMode, DrainPhase, Locators, ModeSet, MoveId, MoveRecord, NveId, Policy, VmKey,
    VmRecord,
};
use godwit_wire::{Instant, Mac, Prefix, Vni};

use super::clones::RefusedInfo;
use super::{Directory, Nve, NveRecord, Refusal, SessionId, VnAccess, VnRecord};

/// A VN as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VnInfo {
    /// What was defined.
    pub record: VnRecord,
    /// Name of its routing domain (R58).
    pub domain: Option<String>,
    /// VMs in it.
    pub vms: usize,
    /// NVEs with members.
    pub members: Vec<NveId>,
    /// NVEs without ports in it that route to its VMs: they get its records, and no copies (R58).
    pub routing: Vec<NveId>,
    /// Members that ask for the records that they need (R34).
    pub pulling: Vec<NveId>,
}

/// An NVE as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NveInfo {
    /// What is known of it.
    pub record: NveRecord,
    /// It has a session.
    pub connected: bool,
    /// It left updates unacknowledged since its last acknowledgement, and has not connected anew (R38).
    pub dirty: bool,
    /// VMs located at it.
    pub vms: usize,
    /// Moves that it takes part in, by its last word.
    pub modes: ModeSet,
    /// VNs that it is a member of.
    pub vnis: Vec<Vni>,
    /// VNs that it only routes to (R58).
    pub routing: Vec<Vni>,
    /// Milliseconds since it was last heard; 0 where it was not, since the NVA's start.
    pub silent_ms: u64,
    /// Another switch that came with its name or a locator of its own and was refused (R96).
    pub refused: Option<RefusedInfo>,
    /// How far it is with being emptied (R85); `None`: it takes VMs.
    pub drain: Option<DrainPhase>,
    /// The VNs that it may take part in (R68).
    pub access: VnAccess,
}

impl NveInfo {
    /// An NVE of which only the operator has spoken.
    pub(super) fn unheard(id: &NveId, access: VnAccess) -> NveInfo {
        let record = NveRecord {
            id: id.clone(),
            locators: Locators::default(),
            foreign: false,
            software: String::new(),
            instance: 0,
            vnis: Default::default(),
        };
        NveInfo {
            record,
            connected: false,
            dirty: false,
            vms: 0,
            modes: Abilities::unsaid().modes,
            vnis: Vec::new(),
            routing: Vec::new(),
            silent_ms: 0,
            refused: None,
            drain: None,
            access,
        }
    }
}

/// A VM that has a virtual address or a virtual MAC (R92).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedOwner {
    /// The address; `None`: it is of the MAC.
    pub ip: Option<IpAddr>,
    /// The MAC, or the one that answers for the address.
    pub mac: Mac,
    /// The VM's name.
    pub vm: String,
}

/// Owners of shared addresses that are shown of one VM at most.
const MAX_OWNERS: usize = 1024;

/// The directory in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// This incarnation (R73).
    pub epoch: u32,
    /// VNs defined.
    pub vns: usize,
    /// VMs defined.
    pub vms: usize,
    /// NVEs with a session.
    pub nves_connected: usize,
    /// Moves that are neither done nor called off.
    pub moves_unfinished: usize,
}

/// The VNs that an NVE is a member of: by its word, or for a foreign one by its pinned VMs.
pub(super) fn memberships(n: &Nve) -> Vec<Vni> {
    if !n.record.foreign {
        return n.record.vnis.iter().copied().collect();
    }
    let mut vnis: Vec<Vni> = n.vms.iter().map(|key| key.vni).collect();
    vnis.dedup(); // The keys are in the order of their VNs.
    vnis
}

impl Directory {
    /// This incarnation's number.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Numbers for people.
    pub fn status(&self) -> Status {
        Status {
            epoch: self.epoch,
            vns: self.vns.defined_count(),
            vms: self.records.len(),
            nves_connected: self.nves.values().filter(|n| n.session.is_some()).count(),
            moves_unfinished: self.moves.open_count(),
        }
    }

    /// Every VN that was defined, by VNI.
    pub fn vns(&self) -> Vec<VnInfo> {
        self.vns.iter().filter_map(|(vni, _)| self.vn_info(vni)).collect()
    }

    pub(super) fn vn_info(&self, vni: Vni) -> Option<VnInfo> {
        let vn = self.vns.get(vni)?;
        let record = vn.record.clone()?;
        let sessions = vn.subscribers.iter().filter_map(|s| self.sessions.get(s));
        let pulls = sessions.filter(|s| s.mode(vni) == Some(DirectoryMode::Pull));
        let routes = |nve: &&NveId| record.settings.routing.is_some() && vn.lingering.contains(*nve);
        let routing: Vec<NveId> = vn.members.iter().filter(routes).cloned().collect();
        Some(VnInfo {
            members: vn.members.iter().filter(|nve| !routes(nve)).cloned().collect(),
            domain: self.routing_of(vni).and_then(|r| self.domain_name(r.domain)).map(str::to_owned),
            routing,
            record,
            vms: self.records.of_vn(vni).count(),
            pulling: pulls.filter_map(|s| s.nve.clone()).collect(),
        })
    }

    /// A VN by its name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn vn_named(&self, name: &str) -> Result<VnInfo, Refusal> {
        let info = self.vns.vni_of(name).and_then(|vni| self.vn_info(vni));
        info.ok_or_else(|| Refusal::UnknownVn(name.into()))
    }

    /// A VM's record by its key.
    pub fn vm(&self, key: VmKey) -> Option<&VmRecord> {
        self.records.get(&key)
    }

    /// A VM's record by its name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn vm_named(&self, name: &str) -> Result<&VmRecord, Refusal> {
        let record = self.records.key_of(name).and_then(|key| self.records.get(&key));
        record.ok_or_else(|| Refusal::UnknownVm(name.into()))
    }

    /// The NVEs that hear of changes to a VM's record: those with a session and a part in its VN, by
    /// subscription or by a port for the VM; in pull mode those that asked for it of late (R33).
    pub fn interested(&self, key: VmKey) -> Vec<NveId> {
        let sessions = self.hearers(key).into_iter().chain(self.ports.of(key));
        let mut nves: Vec<NveId> =
            sessions.filter_map(|s| self.sessions.get(&s)).filter_map(|s| s.nve.clone()).collect();
        nves.sort();
        nves.dedup();
        nves
    }

    /// Who has what the VM shares with others, itself included.
    pub fn shared(&self, key: VmKey) -> Vec<SharedOwner> {
        let Some(r) = self.records.get(&key) else { return Vec::new() };
        let held = |p: &Prefix| self.records.ips_in(key.vni, p);
        let ips = r.allowed.virtual_ips.iter().flat_map(held).filter_map(|(ip, owner)| {
            let owner = self.records.get(&owner)?;
            let mac = owner.bound.at(ip).filter(|b| b.is_virtual)?.mac;
            Some(SharedOwner { ip: Some(ip), mac, vm: owner.name.clone() })
        });
        let macs = r.allowed.virtual_macs.iter().filter_map(|mac| {
            let owner = self.records.get(&self.records.key_of_other_mac(key.vni, *mac)?)?;
            Some(SharedOwner { ip: None, mac: *mac, vm: owner.name.clone() })
        });
        ips.chain(macs).take(MAX_OWNERS).collect()
    }

    /// The VMs of one VN, or of all for none, by VNI and MAC.
    ///
    /// # Errors
    /// Where there is no such VN.
    pub fn vms(&self, vn: Option<&str>) -> Result<Vec<&VmRecord>, Refusal> {
        let Some(name) = vn else { return Ok(self.records.values().collect()) };
        let vni = self.vns.vni_of(name).ok_or_else(|| Refusal::UnknownVn(name.into()))?;
        Ok(self.records.of_vn(vni).collect())
    }

    /// A policy by its name.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn policy(&self, name: &str) -> Result<&Policy, Refusal> {
        self.policies.get(name).ok_or_else(|| Refusal::UnknownPolicy(name.into()))
    }

    /// All policies, by name.
    pub fn policies(&self) -> Vec<&Policy> {
        self.policies.all().collect()
    }

    /// Every NVE that is known, by name.
    pub fn nves(&self, now: Instant) -> Vec<NveInfo> {
        let unheard = self.access.keys().filter(|id| !self.nves.contains_key(id));
        self.nves.keys().chain(unheard).filter_map(|id| self.nve_info(id, now)).collect()
    }

    pub(super) fn nve_info(&self, id: &NveId, now: Instant) -> Option<NveInfo> {
        let access = self.access_of(id);
        let Some(n) = self.nves.get(id) else {
            return self.access.contains_key(id).then(|| NveInfo::unheard(id, access));
        };
        let session = n.session.and_then(|s| self.sessions.get(&s));
        let heard = session.map(|s| s.heard).or(n.heard);
        let lingers = |vni: &Vni| self.vns.get(*vni).is_some_and(|vn| vn.lingering.contains(id));
        let routes = |vni: &Vni| self.routing_of(*vni).is_some() && lingers(vni);
        let (routing, vnis) = memberships(n).into_iter().partition(routes);
        Some(NveInfo {
            record: n.record.clone(),
            connected: session.is_some(),
            dirty: session.map_or(n.dirty, |s| s.dirty),
            vms: n.vms.iter().filter(|key| self.records.get(key).is_some_and(|r| r.is_at(id))).count(),
            modes: n.abilities.modes,
            vnis,
            routing,
            silent_ms: heard.map_or(0, |at| now.since(at).as_ms()),
            refused: n.refused.as_ref().and_then(|r| r.info(now)),
            drain: self.drain_phase(id),
            access,
        })
    }

    /// The session of an NVE, where it has one.
    ///
    /// # Errors
    /// Where the NVE is not known or not connected.
    pub fn session_for(&self, nve: &NveId) -> Result<SessionId, Refusal> {
        let n = self.nves.get(nve).ok_or_else(|| Refusal::UnknownNve(nve.to_string()))?;
        n.session.ok_or_else(|| Refusal::NveNotConnected { nve: nve.clone() })
    }

    /// A move's record.
    ///
    /// # Errors
    /// Where there is no such move.
    pub fn move_record(&self, id: &MoveId) -> Result<&MoveRecord, Refusal> {
        let m = self.moves.get(id).ok_or_else(|| Refusal::UnknownMove(id.to_string()))?;
        Ok(&m.record)
    }

    /// The moves that are remembered, oldest first; of one VM only where `vm` is given.
    pub fn moves(&self, vm: Option<&str>, unfinished_only: bool) -> Vec<&MoveRecord> {
        let wanted = self
            .moves
            .by_age()
            .map(|m| &m.record)
            .filter(|r| vm.is_none_or(|vm| r.vm == vm) && !(unfinished_only && r.phase.is_final()));
        wanted.collect()
    }

    /// Nothing is under way: no update waits or lacks its acknowledgement.
    pub fn is_quiet(&self) -> bool {
        self.updates.is_quiet()
    }
}
