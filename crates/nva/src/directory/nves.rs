//! NVEs: the operator's orders about them, and what follows from their locators.

use std::collections::BTreeSet;

use godwit_model::message::Change;
use godwit_model::{Abilities, Location, Locators, NveId, Version, VmKey};
use godwit_wire::{Instant, Vni};

use super::{Directory, Level, NveInfo, NveRecord, Refusal, SessionId, Write};

/// An NVE and what is known of it.
pub(super) struct Nve {
    pub record: NveRecord,
    pub session: Option<SessionId>,
    /// What it said in its last Hello that it can do.
    pub abilities: Abilities,
    /// When its last session was last heard.
    pub heard: Option<Instant>,
    /// VMs whose location it is.
    pub vms: BTreeSet<VmKey>,
    /// Its last session ended while it was dirty (R38).
    pub dirty: bool,
    /// It knew everything below this version when its last session ended; zero after a restart.
    pub knew_below: Version,
    /// It had a session before the NVA's restart, and may be about to come back (R96).
    pub expected: bool,
    /// Multicast groups that its VMs have joined, of all VNs (R61).
    pub groups: usize,
    /// Another switch that was refused for its sake (R96).
    pub refused: Option<super::clones::Refused>,
}

impl Nve {
    pub fn new(record: NveRecord) -> Nve {
        Nve {
            record,
            session: None,
            abilities: Abilities::unsaid(),
            heard: None,
            vms: BTreeSet::new(),
            dirty: false,
            knew_below: Version::ZERO,
            expected: false,
            groups: 0,
            refused: None,
        }
    }
}

impl Directory {
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
        self.nve_info(id, self.now).ok_or_else(|| Refusal::UnknownNve(id.to_string()))
    }

    /// Forgets an NVE that is not connected and holds no VM.
    ///
    /// # Errors
    /// Where it is not there, connected, holds VMs, or takes part in a move.
    pub(super) fn delete_nve(&mut self, id: &NveId) -> Result<NveInfo, Refusal> {
        let info = self.nve_info(id, self.now).ok_or_else(|| Refusal::UnknownNve(id.to_string()))?;
        if !self.nves.contains_key(id) {
            self.forget_access(id);
            return Ok(info);
        }
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
        self.revoke_keys(id);
        self.forget_access(id);
        self.forget_drain(id);
        for vni in info.vnis.iter().chain(&info.routing) {
            self.drop_member(id, *vni);
        }
        self.log(Level::Info, format!("NVE {id} is deleted"));
        Ok(info)
    }

    /// A foreign NVE is a member of a VN while a VM of it is pinned there (R60).
    pub(super) fn sync_foreign_member(&mut self, nve: &NveId, vni: Vni) {
        let Some(n) = self.nves.get(nve).filter(|n| n.record.foreign) else { return };
        let wanted = n.vms.iter().any(|key| key.vni == vni);
        if !wanted {
            return self.drop_member(nve, vni);
        }
        let joins = self.vns.at(vni).members.insert(nve.clone());
        if let (true, Some(location)) = (joins, self.location_of(nve)) {
            self.update_all(vni, Change::MemberJoined(location), None);
            self.tell_groups_of_foreign(vni, nve);
        }
    }

    /// The NVE's locators changed: all that is there gets a new version, and everybody learns it.
    pub(super) fn relocate(&mut self, nve: &NveId) {
        let Some(n) = self.nves.get(nve) else { return };
        let (locators, keys) = (n.record.locators, n.vms.clone());
        let member_of = super::view::memberships(n);
        self.log(Level::Info, format!("NVE {nve} has new locators; {} VMs follow", keys.len()));
        for key in keys {
            let Some(mut record) = self.records.get(&key).cloned() else { continue };
            record.version = self.next_version();
            record.relocate(nve, locators);
            self.put_vm(record);
            self.publish(key, None);
        }
        self.keys_follow_locators(nve);
        let own = self.session_of(nve);
        for vni in member_of {
            if let Some(news) = self.membership(nve, vni) {
                self.update_all(vni, news, own);
            }
        }
    }

    pub(super) fn forget_nve(&mut self, nve: &NveId) {
        self.nves.remove(nve);
        self.no_longer_live(nve);
        self.persist(Write::RemoveNve(nve.clone()));
    }

    /// Saves what is known of the NVE; the VNs that it is in are saved one by one.
    pub(super) fn save_nve(&mut self, nve: &NveId) {
        if let Some(n) = self.nves.get(nve) {
            let NveRecord { id, locators, foreign, software, instance, vnis: _ } = &n.record;
            let record = NveRecord {
                id: id.clone(),
                locators: *locators,
                foreign: *foreign,
                software: software.clone(),
                instance: *instance,
                vnis: BTreeSet::new(),
            };
            self.persist(Write::PutNve(record));
        }
    }

    pub(super) fn session_of(&self, nve: &NveId) -> Option<SessionId> {
        self.nves.get(nve)?.session
    }

    pub(super) fn location_of(&self, nve: &NveId) -> Option<Location> {
        let n = self.nves.get(nve)?;
        Some(Location { nve: nve.clone(), locators: n.record.locators })
    }
}
