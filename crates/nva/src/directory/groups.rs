//! Multicast groups that VMs have joined, NVE by NVE (R61).
//!
//! An NVE says which groups of a VN its VMs have joined; the others copy multicast to it accordingly. What it said
//! stays while it is a member of the VN, connected or not, as its membership does (R17): its VMs go on without the NVA.
//! It is not persisted: after a restart of the NVA each NVE says it again, and what others know of one that has not yet
//! is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_model::message::NvaToNve;
use godwit_model::{MAX_GROUPS, MAX_GROUPS_OF_NVE, NveId};
use godwit_wire::Vni;

use super::{Directory, SessionId};

/// Of one VN: what each NVE that said anything has.
pub(super) type Groups = BTreeMap<NveId, BTreeSet<IpAddr>>;

/// Every group of both families: what an NVE without a session gets, since it cannot say what it wants.
const EVERY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

impl Directory {
    /// VMs of an NVE joined or left groups of a VN.
    pub(super) fn groups(
        &mut self,
        session: SessionId,
        nve: &NveId,
        vni: Vni,
        reset: bool,
        joined: Vec<IpAddr>,
        left: Vec<IpAddr>,
    ) {
        let subscribed = self.sessions.get(&session).is_some_and(|s| s.subscribed.contains_key(&vni));
        if !subscribed {
            return self
                .error(session, format!("VN {vni} is not subscribed to, so nobody joins groups in it"));
        }
        let is_group = |ip: &IpAddr| ip.is_multicast() || ip.is_unspecified();
        if let Some(ip) = joined.iter().chain(&left).find(|ip| !is_group(ip)) {
            return self.error(session, format!("VN {vni}: {ip} is no multicast group"));
        }
        let (Some(vn), Some(n)) = (self.vns.get_mut(vni), self.nves.get_mut(nve)) else { return };
        let is_new = !vn.groups.contains_key(nve);
        let groups = vn.groups.entry(nve.clone()).or_default();
        let before = groups.clone();
        if reset {
            groups.clear();
        }
        groups.retain(|ip| !left.contains(ip));
        let room = MAX_GROUPS.min((MAX_GROUPS_OF_NVE + before.len()).saturating_sub(n.groups));
        let mut refused = 0;
        for ip in joined {
            if groups.len() < room {
                groups.insert(ip);
            } else {
                refused += usize::from(!groups.contains(&ip));
            }
        }
        n.groups = (n.groups + groups.len()).saturating_sub(before.len());
        let joined: Vec<IpAddr> = groups.difference(&before).copied().collect();
        let left: Vec<IpAddr> = before.difference(groups).copied().collect();
        if is_new || !joined.is_empty() || !left.is_empty() {
            self.tell_groups(vni, nve, is_new, &joined, &left);
        }
        if refused > 0 {
            let text =
                format!("VN {vni}: {refused} multicast groups of NVE {nve} find no room: too many joined");
            self.error(session, text);
        }
    }

    fn tell_groups(&mut self, vni: Vni, nve: &NveId, reset: bool, joined: &[IpAddr], left: &[IpAddr]) {
        let own = self.nves.get(nve).and_then(|n| n.session);
        for session in self.vns.subscribers(vni).into_iter().filter(|s| Some(*s) != own) {
            let (joined, left) = (joined.to_vec(), left.to_vec());
            self.send(session, NvaToNve::Groups { vni, nve: nve.clone(), reset, joined, left });
        }
    }

    /// An NVE without a session takes part in a VN now.
    pub(super) fn tell_groups_of_foreign(&mut self, vni: Vni, nve: &NveId) {
        self.tell_groups(vni, nve, true, &EVERY, &[]);
    }

    /// What a session hears of all other NVEs, after the End of a snapshot.
    pub(super) fn groups_of_others(&mut self, session: SessionId, vni: Vni) {
        let own = self.sessions.get(&session).and_then(|s| s.nve.clone());
        let Some(vn) = self.vns.get(vni) else { return };
        // Where nobody said anything, multicast is not snooped, or not yet.
        let snoops =
            vn.record.as_ref().is_some_and(|r| r.settings.multicast == godwit_model::Multicast::Snoop);
        let others = vn.members.iter().filter(|nve| snoops && Some(*nve) != own.as_ref());
        let of = |nve: &NveId| match self.nves.get(nve).is_some_and(|n| n.record.foreign) {
            true => Some(EVERY.to_vec()),
            false => Some(vn.groups.get(nve)?.iter().copied().collect()),
        };
        let said: Vec<(NveId, Vec<IpAddr>)> =
            others.filter_map(|nve| Some((nve.clone(), of(nve)?))).collect();
        for (nve, joined) in said {
            self.send(session, NvaToNve::Groups { vni, nve, reset: true, joined, left: Vec::new() });
        }
    }

    /// The NVE is no member of the VN any more; others hear that.
    pub(super) fn forget_groups(&mut self, nve: &NveId, vni: Vni) {
        let gone = self.vns.get_mut(vni).and_then(|vn| vn.groups.remove(nve));
        if let (Some(gone), Some(n)) = (gone, self.nves.get_mut(nve)) {
            n.groups = n.groups.saturating_sub(gone.len());
        }
    }
}
