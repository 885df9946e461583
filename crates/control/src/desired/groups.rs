//! Multicast groups and their members (R61).

use std::collections::BTreeSet;
use std::net::IpAddr;

use godwit_tables::update::{Member, Multicast, TunnelIdx, Update, VnIdx};

use super::{DesiredState, Vn};

impl DesiredState {
    /// Sets what becomes of multicast in a VN.
    pub(crate) fn set_multicast(&mut self, vn: VnIdx, multicast: Multicast) {
        let Some(v) = self.vns.get_mut(&vn).filter(|v| v.multicast != multicast) else { return };
        v.multicast = multicast;
        self.emit(Update::VnMulticastSet { vn, multicast });
    }

    /// Sets the tunnel to the underlay's group of a VN (R60).
    pub(crate) fn set_underlay_group(&mut self, vn: VnIdx, tunnel: Option<TunnelIdx>) {
        let Some(v) = self.vns.get_mut(&vn).filter(|v| v.underlay_group != tunnel) else { return };
        let old = core::mem::replace(&mut v.underlay_group, tunnel);
        self.count_use(tunnel, 1);
        self.emit(Update::VnUnderlayGroup { vn, tunnel });
        self.count_use(old, -1);
    }

    /// The VN has a group of the underlay.
    pub(crate) fn has_underlay_group(&self, vn: VnIdx) -> bool {
        self.vns.get(&vn).is_some_and(|v| v.underlay_group.is_some())
    }

    /// The groups of the underlay that VNs use (R60), as tunnels.
    pub(crate) fn underlay_groups(&self) -> BTreeSet<IpAddr> {
        self.vns.values().filter_map(|v| self.remote(v.underlay_group?)).collect()
    }

    /// Sets the members of a group of a VN.
    pub(crate) fn set_members(&mut self, vn: VnIdx, group: IpAddr, wanted: BTreeSet<Member>) {
        let Some(v) = self.vns.get_mut(&vn) else { return };
        let old = match wanted.is_empty() {
            true => v.members.remove(&group),
            false => v.members.insert(group, wanted.clone()),
        };
        let old = old.unwrap_or_default();
        for &member in wanted.difference(&old) {
            self.count_use(tunnel_of(member), 1);
            self.emit(Update::GroupMemberSet { vn, group, member });
        }
        for &member in old.difference(&wanted) {
            self.emit(Update::GroupMemberRemove { vn, group, member });
            self.count_use(tunnel_of(member), -1);
        }
    }

    /// No group of the VN has members.
    pub(crate) fn clear_groups(&mut self, vn: VnIdx) {
        let groups: Vec<IpAddr> =
            self.vns.get(&vn).into_iter().flat_map(|v| v.members.keys().copied()).collect();
        for group in groups {
            self.set_members(vn, group, BTreeSet::new());
        }
    }
}

fn tunnel_of(member: Member) -> Option<TunnelIdx> {
    match member {
        Member::Tunnel(tunnel) => Some(tunnel),
        Member::Port(_) => None,
    }
}

/// What a worker with empty tables is told of a VN's groups.
pub(super) fn updates(vn: VnIdx, v: &Vn) -> impl Iterator<Item = Update> + '_ {
    let multicast = v.multicast;
    let policy = (multicast != Multicast::Flood).then_some(Update::VnMulticastSet { vn, multicast });
    let members = v.members.iter().flat_map(move |(&group, members)| {
        members.iter().map(move |&member| Update::GroupMemberSet { vn, group, member })
    });
    let group = v.underlay_group.map(|tunnel| Update::VnUnderlayGroup { vn, tunnel: Some(tunnel) });
    policy.into_iter().chain(group).chain(members)
}
