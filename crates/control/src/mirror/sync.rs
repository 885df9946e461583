//! A VN as a whole: its snapshot, revisions and members (R37).

use std::net::IpAddr;

use godwit_model::{Gateway, Location, Locators, NveId, Version, VmRecord, VnSettings};
use godwit_wire::Vni;

use super::Mirror;
use super::members::Members;

/// Where a VN's synchronization stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sync {
    /// Not subscribed in this session.
    Off,
    /// Subscribed; the snapshot is coming.
    Snapshot,
    /// Complete up to this revision.
    Done(u64),
}

/// What the end of a snapshot says of its VN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotEnd {
    pub(crate) revision: u64,
    pub(crate) settings: VnSettings,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) members: Vec<Location>,
    pub(crate) lingering: Vec<NveId>,
}

impl Mirror {
    /// It was asked for in this session.
    pub(crate) fn is_subscribed(&self, vni: Vni) -> bool {
        self.vns.get(&vni).is_some_and(|vn| vn.sync != Sync::Off)
    }

    /// It was asked for in this session, and its snapshot is not complete.
    pub(crate) fn awaits_snapshot(&self, vni: Vni) -> bool {
        self.vns.get(&vni).is_some_and(|vn| vn.sync == Sync::Snapshot)
    }

    /// So many VNs are mirrored, and of so many the snapshot is complete.
    pub(crate) fn synced(&self) -> (usize, usize) {
        (self.vns.len(), self.complete.len())
    }

    /// No session: nothing is subscribed any more, what is known stays.
    pub(crate) fn session_down(&mut self) {
        for vn in self.vns.values_mut() {
            vn.sync = Sync::Off;
        }
        self.complete.clear();
        self.domains.doubt();
    }

    /// Subscribe has been said: from now on records are confirmed anew.
    pub(crate) fn begin_snapshot(&mut self, vni: Vni) {
        if let Some(vn) = self.vns.get_mut(&vni) {
            vn.sync = Sync::Snapshot;
            self.complete.remove(&vni);
            for e in vn.vms.values_mut() {
                e.confirmed = false;
            }
        }
    }

    /// The snapshot is complete: what it did not confirm goes (R37), unless it was not to name all (`pulled`). Returns
    /// those records.
    pub(crate) fn end_snapshot(&mut self, vni: Vni, end: SnapshotEnd, pulled: bool) -> Vec<VmRecord> {
        let Some(vn) = self.vns.get_mut(&vni) else { return Vec::new() };
        let swept = if vn.sync == Sync::Snapshot {
            let gone = vn.vms.values().filter(|e| !e.confirmed && e.record.version != Version::ZERO);
            gone.map(|e| e.record.clone()).collect()
        } else {
            Vec::new()
        };
        vn.sync = Sync::Done(end.revision);
        self.complete.insert(vni);
        vn.settings = end.settings;
        vn.gateway = end.gateway;
        vn.members = Members::of(end.members);
        vn.lingering = end.lingering.into_iter().collect();
        for r in swept.iter().filter(|_| !pulled) {
            self.removed(r.key, r.version);
        }
        swept
    }

    /// Counts an update; false: some are missing, and the VN wants a new snapshot (R37).
    pub(crate) fn revision(&mut self, vni: Vni, revision: u64) -> bool {
        let Some(vn) = self.vns.get_mut(&vni) else { return true };
        let Sync::Done(have) = vn.sync else { return true };
        if revision > have.saturating_add(1) {
            return false;
        }
        vn.sync = Sync::Done(have.max(revision));
        true
    }

    /// A snapshot that was not asked for is newer than what came before it: updates were lost on the way, and what it
    /// does not name may be gone (R38).
    pub(crate) fn has_missed(&self, vni: Vni, end: u64) -> bool {
        self.vns.get(&vni).is_some_and(|vn| matches!(vn.sync, Sync::Done(have) if end > have))
    }

    /// An NVE has members in the VN.
    pub(crate) fn member_joined(&mut self, vni: Vni, location: Location) {
        if let Some(vn) = self.vns.get_mut(&vni) {
            vn.lingering.remove(&location.nve);
            vn.members.insert(location);
        }
    }

    /// An NVE only forwards for VMs that left it (R17).
    pub(crate) fn member_lingers(&mut self, vni: Vni, location: Location) {
        if let Some(vn) = self.vns.get_mut(&vni) {
            vn.lingering.insert(location.nve.clone());
            vn.members.insert(location);
        }
    }

    /// NVEs that end their paths with a marker (R77).
    pub(crate) fn mark(&mut self, reset: bool, nves: Vec<NveId>, gone: &[NveId]) {
        if reset {
            self.marking.clear();
        }
        self.marking.extend(nves);
        self.marking.retain(|nve| !gone.contains(nve));
    }

    /// The member of the VN with this locator does so.
    pub(crate) fn marks(&self, vni: Vni, ip: IpAddr) -> bool {
        self.member_at(vni, ip).is_some_and(|(nve, _)| self.marking.contains(nve))
    }

    /// The member of the VN with this locator.
    pub(crate) fn member_at(&self, vni: Vni, ip: IpAddr) -> Option<(&NveId, Locators)> {
        self.vns.get(&vni)?.members.at(ip)
    }

    /// An NVE has no part any more.
    pub(crate) fn member_left(&mut self, vni: Vni, nve: &NveId) {
        if let Some(vn) = self.vns.get_mut(&vni) {
            vn.lingering.remove(nve);
            vn.members.remove(nve);
        }
    }
}
