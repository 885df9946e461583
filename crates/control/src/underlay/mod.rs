//! The underlay as far as the NVE itself needs it: which uplink and which next hop lead to a remote
//! locator, and the next hops' MAC addresses (RFC 826, RFC 4861).
//!
//! Pure: frames to send are collected, changes of the way to a locator are handed out by
//! [`Underlay::take_changes`]. A next hop that was known once stays in use while it is probed, so one
//! lost answer stops no tunnel; only when three probes in a row stayed unanswered is it unknown.
//!
//! Several next hops with the same right share a locator's flows (R95, `spread.rs`). They are probed more often
//! than one alone, since there is somebody to take over.

mod neighbor;
mod news;
mod path_mtu;
mod route;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::{Deadlines, Locators};
use godwit_tables::update::{PortIdx, Shares};
use godwit_wire::ethernet::{multicast_mac_v4, multicast_mac_v6};
use godwit_wire::{Instant, Mac, VlanId};

use crate::config::Liveness;
use crate::io::{Route, RouteOrigin, UplinkSpec};

pub(crate) use neighbor::Neighbor;
pub(crate) use news::{Cut, News};
pub(crate) use spread::NextHop;
use spread::Spread;

/// Neighbors that are kept without being in use; the rest is asked for again when needed.
const MAX_IDLE_NEIGHBORS: usize = 1024;

/// The way to a remote locator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hop {
    pub(crate) uplink: PortIdx,
    pub(crate) src_mac: Mac,
    pub(crate) dst_mac: Mac,
    pub(crate) src_ip: IpAddr,
    /// Largest outer IP packet, in bytes.
    pub(crate) mtu: u16,
    /// The uplink's VLAN.
    pub(crate) vlan: Option<VlanId>,
}

/// All ways to a remote locator that are fit to be used.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Ways {
    /// Each with its place, which it keeps while it is fit.
    pub(crate) hops: Vec<(u8, Hop)>,
    /// The place by which each share of the flows goes, where there are several.
    pub(crate) shares: Option<Shares>,
}

#[derive(Debug)]
struct Uplink {
    spec: UplinkSpec,
    link_up: bool,
}

/// A remote locator in use.
#[derive(Debug)]
struct Remote {
    /// Uplinks and next hops; none: no uplink leads there.
    vias: Vec<NextHop>,
    spread: Spread,
    /// The ways as they were handed out.
    ways: Ways,
}

/// Uplinks, their neighbors and the remote locators in use.
#[derive(Default, Debug)]
pub(crate) struct Underlay {
    /// Locators of a loopback, of which each family may have one.
    loopback: Locators,
    liveness: Liveness,
    uplinks: BTreeMap<PortIdx, Uplink>,
    /// The configuration's routes.
    fixed: Vec<Route>,
    /// The kernel's.
    kernel: Vec<Route>,
    neighbors: BTreeMap<NextHop, Neighbor>,
    remotes: BTreeMap<IpAddr, Remote>,
    timers: Deadlines<NextHop>,
    changed: BTreeSet<IpAddr>,
    paths: path_mtu::Paths,
    frames: Vec<(PortIdx, Vec<u8>)>,
    news: Vec<News>,
}

impl Underlay {
    /// With the locators of a loopback, if there are any.
    pub(crate) fn new(loopback: Locators, liveness: Liveness) -> Underlay {
        Underlay { loopback, liveness, ..Underlay::default() }
    }

    /// The NVE's locators: those of the loopback; without them, of each family the one of the first uplink that
    /// has it.
    pub(crate) fn locators(&self) -> Locators {
        if !self.loopback.is_empty() {
            return if self.uplinks.is_empty() { Locators::default() } else { self.loopback };
        }
        let mut l = Locators::default();
        for u in self.uplinks.values() {
            l.v4 = l.v4.or(u.spec.v4.map(|n| n.addr));
            l.v6 = l.v6.or(u.spec.v6.map(|n| n.addr));
        }
        l
    }

    /// The smallest MTU of the uplinks, in bytes.
    pub(crate) fn mtu(&self) -> Option<u16> {
        self.uplinks.values().map(|u| u.spec.mtu).min()
    }

    /// Packets to `remote` come from a locator that every uplink leads to.
    fn is_loopback(&self, remote: IpAddr) -> bool {
        match remote {
            IpAddr::V4(_) => self.loopback.v4.is_some(),
            IpAddr::V6(_) => self.loopback.v6.is_some(),
        }
    }

    /// Takes over all routes of one origin.
    pub(crate) fn set_routes(&mut self, now: Instant, origin: RouteOrigin, routes: Vec<Route>) {
        self.take_routes(origin, routes);
        self.reroute(now);
    }

    /// Adds or replaces an uplink and announces its addresses.
    pub(crate) fn set_uplink(&mut self, now: Instant, port: PortIdx, spec: UplinkSpec) {
        self.drop_neighbors_of(port);
        self.uplinks.insert(port, Uplink { spec, link_up: true });
        self.announce(port);
        self.reroute(now);
    }

    /// Forgets an uplink; false where there is none.
    pub(crate) fn remove_uplink(&mut self, now: Instant, port: PortIdx) -> bool {
        let was = self.uplinks.remove(&port).is_some();
        if was {
            self.drop_neighbors_of(port);
            self.reroute(now);
        }
        was
    }

    /// An uplink's link changed; false where there is none.
    pub(crate) fn link(&mut self, now: Instant, port: PortIdx, up: bool) -> bool {
        let Some(u) = self.uplinks.get_mut(&port) else { return false };
        if core::mem::replace(&mut u.link_up, up) != up {
            if up {
                self.announce(port);
            }
            self.reroute(now);
            if !up {
                self.news.push(News::LinkDown { uplink: port, cut: self.cut_behind(|v| v.0 == port) });
            }
        }
        true
    }

    /// Starts to use `remote`; the ways there that are known already.
    pub(crate) fn watch(&mut self, now: Instant, remote: IpAddr) -> Ways {
        if !self.remotes.contains_key(&remote) {
            let vias = self.route(remote);
            for &key in &vias {
                self.use_neighbor(now, key, vias.len() > 1);
            }
            self.remotes.insert(remote, Remote { vias, spread: Spread::default(), ways: Ways::default() });
            self.settle(remote);
            self.changed.remove(&remote);
        }
        self.ways(remote)
    }

    /// Stops to use it.
    pub(crate) fn unwatch(&mut self, remote: IpAddr) {
        let vias = self.remotes.remove(&remote).map(|r| r.vias).unwrap_or_default();
        for &key in &vias {
            self.release_neighbor(key, vias.len() > 1);
        }
        self.changed.remove(&remote);
        self.paths.forget(remote);
    }

    /// A router says that packets from the locator `local` to `remote` may have `mtu` bytes at most (R9). False
    /// where that changes nothing: they are not a way in use, or the value is not possible or not new.
    pub(crate) fn path_mtu(&mut self, now: Instant, local: IpAddr, remote: IpAddr, mtu: u32) -> bool {
        let Some(hop) = self.hop(remote).filter(|h| h.src_ip == local) else { return false };
        let Some(uplink) = self.uplinks.get(&hop.uplink).map(|u| u.spec.mtu) else { return false };
        let believed = self.paths.told(now, remote, mtu, uplink);
        if believed {
            self.settle(remote);
        }
        believed
    }

    /// The way to a watched locator; one of them where there are several.
    pub(crate) fn hop(&self, remote: IpAddr) -> Option<Hop> {
        self.remotes.get(&remote).and_then(|r| r.ways.hops.first()).map(|(_, hop)| *hop)
    }

    /// The ways to a watched locator.
    pub(crate) fn ways(&self, remote: IpAddr) -> Ways {
        self.remotes.get(&remote).map(|r| r.ways.clone()).unwrap_or_default()
    }

    /// Some uplink leads to a watched locator, resolved or not.
    pub(crate) fn is_routed(&self, remote: IpAddr) -> bool {
        self.remotes.get(&remote).is_some_and(|r| !r.vias.is_empty())
    }

    /// Watched locators, with their next hops and how many of [`SHARES`](godwit_tables::update::SHARES) each has.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = (IpAddr, Vec<(NextHop, usize)>)> {
        self.remotes.iter().map(|(&ip, r)| (ip, r.shares()))
    }

    /// Likewise, of one locator.
    pub(crate) fn remote(&self, ip: IpAddr) -> Vec<(NextHop, usize)> {
        self.remotes.get(&ip).map(Remote::shares).unwrap_or_default()
    }

    /// What is known of one neighbor.
    pub(crate) fn neighbor(&self, key: NextHop) -> Option<&Neighbor> {
        self.neighbors.get(&key)
    }

    /// An uplink as it was configured.
    pub(crate) fn uplink(&self, port: PortIdx) -> Option<&UplinkSpec> {
        self.uplinks.get(&port).map(|u| &u.spec)
    }

    /// The uplink is there and has a link.
    pub(crate) fn has_link(&self, uplink: PortIdx) -> bool {
        self.uplinks.get(&uplink).is_some_and(|u| u.link_up)
    }

    /// The routes of one origin.
    pub(crate) fn routes(&self, origin: RouteOrigin) -> &[Route] {
        match origin {
            RouteOrigin::Fixed => &self.fixed,
            RouteOrigin::Kernel => &self.kernel,
        }
    }

    /// What became of next hops since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<News> {
        core::mem::take(&mut self.news)
    }

    /// Watched locators whose way changed since the last call, in order.
    pub(crate) fn take_changes(&mut self) -> BTreeSet<IpAddr> {
        core::mem::take(&mut self.changed)
    }

    /// Frames to send since the last call.
    pub(crate) fn take_frames(&mut self) -> Vec<(PortIdx, Vec<u8>)> {
        core::mem::take(&mut self.frames)
    }

    /// When [`Underlay::tick`] is wanted.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.timers.next(), self.paths.deadline()].into_iter().flatten().min()
    }

    /// All neighbors by uplink and address.
    pub(crate) fn neighbors(&self) -> impl Iterator<Item = (PortIdx, IpAddr, &Neighbor)> {
        self.neighbors.iter().map(|((port, ip), n)| (*port, *ip, n))
    }

    /// Chooses the way to every locator anew, and counts anew who needs which neighbor.
    fn reroute(&mut self, now: Instant) {
        for n in self.neighbors.values_mut() {
            n.release_all();
        }
        let remotes: Vec<IpAddr> = self.remotes.keys().copied().collect();
        for &remote in &remotes {
            let vias = self.route(remote);
            for &key in &vias {
                self.use_neighbor(now, key, vias.len() > 1);
            }
            if let Some(r) = self.remotes.get_mut(&remote) {
                r.vias = vias;
            }
            self.settle(remote);
        }
        self.drop_unasked();
    }

    /// Computes the ways to `remote` from its next hops and notes whether they changed.
    fn settle(&mut self, remote: IpAddr) {
        let Some(r) = self.remotes.get(&remote) else { return };
        let hops: BTreeMap<NextHop, Hop> =
            r.vias.iter().filter_map(|&via| Some((via, self.make_hop(remote, via)?))).collect();
        let Some(r) = self.remotes.get_mut(&remote) else { return };
        let fit: Vec<NextHop> = hops.keys().copied().collect();
        r.spread.follow(&fit);
        let hops = r.spread.places().filter_map(|(place, via)| Some((place, *hops.get(&via)?)));
        let ways = Ways { hops: hops.collect(), shares: r.spread.shares() };
        if r.ways != ways {
            r.ways = ways;
            self.changed.insert(remote);
        }
    }

    /// The way to `remote` by one of its next hops; `None`: that does not answer, or its uplink has no link.
    fn make_hop(&self, remote: IpAddr, (port, next): NextHop) -> Option<Hop> {
        let dst_mac = match next {
            IpAddr::V4(group) if group.is_multicast() => multicast_mac_v4(group),
            IpAddr::V6(group) if group.is_multicast() => multicast_mac_v6(group),
            _ => self.neighbors.get(&(port, next))?.mac?,
        };
        let Uplink { spec, link_up } = self.uplinks.get(&port)?;
        let src_ip = self.source(spec, remote)?;
        let mtu = self.paths.mtu(remote, spec.mtu);
        link_up.then_some(Hop { uplink: port, src_mac: spec.mac, dst_mac, src_ip, mtu, vlan: spec.vlan })
    }

    /// All locators behind a next hop, after its MAC changed.
    fn settle_behind(&mut self, key: NextHop) {
        let behind: Vec<IpAddr> =
            self.remotes.iter().filter(|(_, r)| r.vias.contains(&key)).map(|(ip, _)| *ip).collect();
        for remote in behind {
            self.settle(remote);
        }
    }

    fn drop_neighbors_of(&mut self, port: PortIdx) {
        let keys: Vec<_> = self.neighbors.keys().filter(|(p, _)| *p == port).copied().collect();
        for key in keys {
            self.neighbors.remove(&key);
            self.timers.set(key, None);
        }
    }

    /// Where packets to `remote` come from: the loopback's locator of its family, else the uplink's.
    fn source(&self, spec: &UplinkSpec, remote: IpAddr) -> Option<IpAddr> {
        let own = self.loopback;
        match (remote, own.is_empty()) {
            (IpAddr::V4(_), false) => own.v4.map(IpAddr::from),
            (IpAddr::V6(_), false) => own.v6.map(IpAddr::from),
            (IpAddr::V4(_), true) => spec.v4.map(|n| n.addr.into()),
            (IpAddr::V6(_), true) => spec.v6.map(|n| n.addr.into()),
        }
    }
}

impl Remote {
    /// Its next hops, with how many shares of its flows go by each.
    fn shares(&self) -> Vec<(NextHop, usize)> {
        let of = |via: &NextHop| {
            let place = self.spread.places().find(|(_, hop)| hop == via).map(|(place, _)| place);
            self.spread.count(place.filter(|p| self.ways.hops.iter().any(|(at, _)| at == p)))
        };
        self.vias.iter().map(|via| (*via, of(via))).collect()
    }
}
