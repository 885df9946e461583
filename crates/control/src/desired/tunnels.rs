//! Tunnels, and the VNs whose broadcast is copied to them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use godwit_tables::update::{PortIdx, Shares, TunnelIdx, Update, VnIdx};
use godwit_wire::outer::OuterHeader;

use super::DesiredState;

/// All ways of a tunnel (R95): none while no next hop answers, one for all flows, or several that share them.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct TunnelWays {
    /// Each with its place, which it keeps while it is there.
    pub(crate) ways: Vec<(u8, TunnelWay)>,
    /// By which place each share of the flows goes, where there are several.
    pub(crate) shares: Option<Shares>,
}

/// A resolved tunnel.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct TunnelWay {
    pub(crate) uplink: PortIdx,
    pub(crate) mtu: u16,
    pub(crate) header: OuterHeader,
}

#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) remote: IpAddr,
    pub(super) ways: TunnelWays,
    /// Where its IPv4 packets go (R4).
    pub(super) twin: Option<TunnelIdx>,
    /// VM entries, replication lists and tunnels that name it.
    pub(super) users: u32,
}

impl DesiredState {
    /// Sets the tunnels that get copies of a VN's broadcast and multicast frames (R60).
    pub(crate) fn set_replicas(&mut self, vn: VnIdx, wanted: BTreeSet<TunnelIdx>) {
        let Some(v) = self.vns.get_mut(&vn) else { return };
        let old = core::mem::replace(&mut v.replicas, wanted.clone());
        for &tunnel in wanted.difference(&old) {
            self.count_use(Some(tunnel), 1);
            self.emit(Update::ReplicaAdd { vn, tunnel });
        }
        for &tunnel in old.difference(&wanted) {
            self.emit(Update::ReplicaRemove { vn, tunnel });
            self.count_use(Some(tunnel), -1);
        }
    }

    /// Those that VXLAN of a VN is accepted from (R69).
    pub(crate) fn senders(&self, vn: VnIdx) -> BTreeSet<IpAddr> {
        self.vns.get(&vn).map(|v| v.senders.clone()).unwrap_or_default()
    }

    /// Sets those that VXLAN of a VN is accepted from; from them only, once they are known (R69).
    pub(crate) fn set_senders(&mut self, vn: VnIdx, wanted: BTreeSet<IpAddr>, known: bool) {
        let Some(v) = self.vns.get_mut(&vn) else { return };
        let old = core::mem::replace(&mut v.senders, wanted.clone());
        let changes = known != v.senders_known;
        v.senders_known = known;
        // Those that go are taken while nobody is looked for, those that come before anybody is.
        if changes && !known {
            self.emit(Update::SendersKnown { vn, known });
        }
        for &ip in wanted.difference(&old) {
            self.emit(Update::SenderAdd { vn, ip });
        }
        if changes && known {
            self.emit(Update::SendersKnown { vn, known });
        }
        for &ip in old.difference(&wanted) {
            self.emit(Update::SenderRemove { vn, ip });
        }
    }

    /// The tunnel to a locator.
    pub(crate) fn tunnel(&self, remote: IpAddr) -> Option<TunnelIdx> {
        self.by_remote.get(&remote).copied()
    }

    /// The locator behind a tunnel.
    pub(crate) fn remote(&self, tunnel: TunnelIdx) -> Option<IpAddr> {
        self.tunnels.get(&tunnel).map(|t| t.remote)
    }

    /// Adds a tunnel; `None`: all numbers are in use.
    pub(crate) fn add_tunnel(&mut self, remote: IpAddr, ways: TunnelWays) -> Option<TunnelIdx> {
        let tunnel = TunnelIdx(self.tunnel_numbers.take(u32::MAX)?);
        self.by_remote.insert(remote, tunnel);
        way_updates(tunnel, remote, None, &ways).into_iter().for_each(|u| self.emit(u));
        self.tunnels.insert(tunnel, Tunnel { remote, ways, twin: None, users: 0 });
        Some(tunnel)
    }

    /// A tunnel's next hops were resolved, changed or got lost.
    pub(crate) fn set_ways(&mut self, tunnel: TunnelIdx, ways: TunnelWays) {
        let Some(t) = self.tunnels.get_mut(&tunnel).filter(|t| t.ways != ways) else { return };
        let updates = way_updates(tunnel, t.remote, Some(&t.ways), &ways);
        t.ways = ways;
        updates.into_iter().for_each(|u| self.emit(u));
    }

    /// Sets where the IPv4 packets for a tunnel go (R4).
    pub(crate) fn set_twin(&mut self, tunnel: TunnelIdx, twin: Option<TunnelIdx>) {
        let Some(t) = self.tunnels.get_mut(&tunnel).filter(|t| t.twin != twin) else { return };
        let old = core::mem::replace(&mut t.twin, twin);
        self.count_use(twin, 1);
        self.emit(Update::TunnelTwin { tunnel, twin });
        self.count_use(old, -1);
    }

    /// Tunnels that no VM entry, no replication list and no other tunnel names.
    pub(crate) fn unused_tunnels(&self) -> impl Iterator<Item = (TunnelIdx, IpAddr)> + '_ {
        self.tunnels.iter().filter(|(_, t)| t.users == 0).map(|(idx, t)| (*idx, t.remote))
    }

    /// Removes an unused tunnel; its number is to be freed once that is applied. False: it is used.
    pub(crate) fn remove_tunnel(&mut self, tunnel: TunnelIdx) -> bool {
        let Some(t) = self.tunnels.get(&tunnel).filter(|t| t.users == 0) else { return false };
        let twin = t.twin;
        self.by_remote.remove(&t.remote);
        self.tunnels.remove(&tunnel);
        self.emit(Update::TunnelRemove { tunnel });
        self.count_use(twin, -1);
        true
    }

    /// Its removal is applied everywhere.
    pub(crate) fn free_tunnel(&mut self, tunnel: TunnelIdx) {
        self.tunnel_numbers.free.insert(tunnel.0);
    }

    pub(super) fn count_use(&mut self, tunnel: Option<TunnelIdx>, by: i32) {
        if let Some(t) = tunnel.and_then(|t| self.tunnels.get_mut(&t)) {
            t.users = t.users.saturating_add_signed(by);
        }
    }
}

/// What leads a worker from a tunnel's old ways, if it knows any, to the new ones. No flow is sent by a way that
/// is in neither: a way is told before a share names it, and taken back after.
pub(super) fn way_updates(
    tunnel: TunnelIdx,
    remote: IpAddr,
    old: Option<&TunnelWays>,
    new: &TunnelWays,
) -> Vec<Update> {
    let Some(&(_, first)) = new.ways.first() else { return vec![Update::TunnelPending { tunnel, remote }] };
    let set =
        |w: TunnelWay| Update::TunnelSet { tunnel, uplink: w.uplink, remote, mtu: w.mtu, header: w.header };
    let known = old.and_then(|o| o.ways.first()).map(|(_, w)| *w);
    let told = old.filter(|o| o.shares.is_some());
    // Without any way so far, frames may wait for the first.
    let mut updates = Vec::new();
    if known.is_none() {
        updates.push(set(first));
    }
    if new.shares.is_some() {
        let fresh = new.ways.iter().filter(|w| !told.is_some_and(|o| o.ways.contains(w)));
        updates.extend(fresh.map(|&(at, w)| {
            let TunnelWay { uplink, mtu, header } = w;
            Update::TunnelWay { tunnel, at, uplink, mtu, header }
        }));
    }
    if known.is_some_and(|k| k != first) {
        updates.push(set(first));
    }
    if new.shares != told.and_then(|o| o.shares) {
        updates.push(Update::TunnelSpread { tunnel, shares: new.shares });
    }
    updates
}
