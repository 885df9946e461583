//! What the old NVE of a VM has to tell those who may still send to it, where it goes by the NVA: that the VM
//! left (R39), and where a sender should send instead (R47).
//!
//! Both are hints. Nothing is kept and nothing repeated: whoever misses one learns the same by its update.

use std::net::IpAddr;

use godwit_model::message::NvaToNve;
use godwit_model::{Locators, NveId, Version, VmKey};

use super::{Directory, Level, Refusal, SessionId};

/// A departure that was passed on by a VM manager's word (R39).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Departure {
    /// The NVE that the VM left.
    pub nve: NveId,
    /// The other NVEs of the VN that were told; the rest learn it by their snapshots.
    pub told: usize,
}

impl Directory {
    /// An NVE says that a VM left it: the others of the VN hear of it, if it is the VM's to say (R39).
    pub(super) fn departed(&mut self, session: SessionId, nve: &NveId, key: VmKey, version: Version) {
        let Some(r) = self.records.get(&key) else { return };
        let owner = r.is_at(nve) && version <= r.version;
        let former = self.claims.former(key).is_some_and(|(n, v)| n == nve && version <= *v);
        if !owner && !former {
            // After a start the NVA does not know who had what before; everybody gets a snapshot anyhow.
            if version.epoch < self.epoch && version < r.version {
                return;
            }
            let text =
                format!("NVE {nve} is not the recorded owner of {key}: its departure is not passed on");
            return self.error(session, text);
        }
        let told = self.pass_departure_on(nve, key, version);
        self.log(Level::Debug, format!("NVE {nve} says that {key} left it: {told} NVEs are told"));
    }

    /// Tells everybody who hears of the VM but the NVE that it left; how many those are.
    fn pass_departure_on(&mut self, nve: &NveId, key: VmKey, version: Version) -> usize {
        let own = self.session_of(nve);
        let others: Vec<SessionId> = self.hearers(key).into_iter().filter(|s| Some(*s) != own).collect();
        for other in &others {
            self.send(*other, NvaToNve::Departed { key, version, from: nve.clone() });
        }
        others.len()
    }

    /// A VM manager says that a VM left an NVE, or for none the one that the directory has it at: the others of the
    /// VN hear of it as from the NVE itself (R39). It is a hint, too: the location stays until the NVE withdraws the
    /// VM or another one claims it.
    ///
    /// # Errors
    /// Where the VM is not there, or is attached nowhere and no NVE is named, or the NVE neither has it nor had it
    /// last.
    pub(super) fn vm_departed(&mut self, name: &str, nve: Option<&NveId>) -> Result<Departure, Refusal> {
        let answer = self.who_had(name, nve).map(|(nve, key, version)| {
            let told = self.pass_departure_on(&nve, key, version);
            let text =
                format!("the operator says that VM {name} ({key}) left NVE {nve}: {told} NVEs are told");
            self.log(Level::Info, text);
            Departure { nve, told }
        });
        if let Err(refusal) = &answer {
            self.log(Level::Warn, format!("refused a departure by the operator's word: {refusal}"));
        }
        answer
    }

    /// The NVE that a VM may have left, and the version by which it had it.
    fn who_had(&self, name: &str, nve: Option<&NveId>) -> Result<(NveId, VmKey, Version), Refusal> {
        let r = self.vm_named(name)?;
        let owner = r.active_nve();
        match (owner, nve, self.claims.former(r.key)) {
            (None, None, _) => Err(Refusal::DepartsFromNowhere { vm: name.into() }),
            (Some(owner), None, _) => Ok((owner.clone(), r.key, r.version)),
            (Some(owner), Some(nve), _) if owner == nve => Ok((owner.clone(), r.key, r.version)),
            (_, Some(nve), Some((former, version))) if former == nve => Ok((nve.clone(), r.key, *version)),
            (owner, Some(nve), _) => Err(Refusal::NotOwner {
                vm: name.into(),
                nve: nve.clone(),
                at: owner.map_or("attached nowhere".into(), |owner| format!("at NVE {owner}")),
            }),
        }
    }

    /// An NVE has a stale sender that it cannot tell directly: its NVE is told (R47), and where the VM is not by that
    /// NVE's word but by the directory's own: what contradicts it is not passed on.
    pub(super) fn redirect(
        &mut self,
        session: SessionId,
        from: NveId,
        key: VmKey,
        to: Option<Locators>,
        version: Version,
        sender: IpAddr,
    ) {
        if to.is_some() && self.records.get(&key).is_none_or(|r| r.version < version) {
            let text =
                format!("a redirect for {key} names version {version}, which the directory never gave");
            return self.error(session, text);
        }
        let known = self.records.get(&key).and_then(|r| Some((r.active()?.locators, r.version)));
        let (to, version) = match (to, known) {
            (Some(_), Some((at, version))) => (Some(at), version),
            (Some(_), None) => (None, Version::ZERO),
            (None, _) => (None, version),
        };
        let members = self.vns.get(key.vni).into_iter().flat_map(|vn| &vn.members);
        let stale = members.filter_map(|m| self.nves.get(m)).find(|n| n.record.locators.contains(sender));
        if let Some(other) = stale.and_then(|n| n.session) {
            self.send(other, NvaToNve::Redirect { key, to, version, from });
        }
    }
}
