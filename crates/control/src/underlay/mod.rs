//! The underlay as far as the NVE itself needs it: which uplink and which next hop lead to a remote
//! locator, and the next hops' MAC addresses (RFC 826, RFC 4861).
//!
//! Pure: frames to send are collected, changes of the way to a locator are handed out by
//! [`Underlay::take_changes`]. A next hop that was known once stays in use while it is probed, so one
//! lost answer stops no tunnel; only when three probes in a row stayed unanswered is it unknown.

mod neighbor;
mod path_mtu;
mod route;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::Locators;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Mac};

use crate::io::UplinkSpec;
use crate::timers::Timers;

pub(crate) use neighbor::Neighbor;

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
}

#[derive(Debug)]
struct Uplink {
    spec: UplinkSpec,
    link_up: bool,
}

/// A remote locator in use.
#[derive(Debug)]
struct Remote {
    /// Uplink and next hop; `None`: no uplink leads there.
    via: Option<(PortIdx, IpAddr)>,
    /// The way as it was handed out.
    hop: Option<Hop>,
}

/// Uplinks, their neighbors and the remote locators in use.
#[derive(Default, Debug)]
pub(crate) struct Underlay {
    uplinks: BTreeMap<PortIdx, Uplink>,
    neighbors: BTreeMap<(PortIdx, IpAddr), Neighbor>,
    remotes: BTreeMap<IpAddr, Remote>,
    timers: Timers<(PortIdx, IpAddr)>,
    changed: BTreeSet<IpAddr>,
    paths: path_mtu::Paths,
    frames: Vec<(PortIdx, Vec<u8>)>,
    /// Next hops that stopped to answer, since the start.
    pub(crate) lost: u64,
}

impl Underlay {
    /// The NVE's locators: of each family the one of the first uplink that has it.
    pub(crate) fn locators(&self) -> Locators {
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

    /// Adds or replaces an uplink and announces its locators.
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
        }
        true
    }

    /// Starts to use `remote`; its way, if that is known already.
    pub(crate) fn watch(&mut self, now: Instant, remote: IpAddr) -> Option<Hop> {
        if !self.remotes.contains_key(&remote) {
            let via = self.route(remote);
            self.remotes.insert(remote, Remote { via, hop: None });
            if let Some(key) = via {
                self.use_neighbor(now, key);
            }
            self.settle(remote);
            self.changed.remove(&remote);
        }
        self.hop(remote)
    }

    /// Stops to use it.
    pub(crate) fn unwatch(&mut self, remote: IpAddr) {
        if let Some(Remote { via: Some(key), .. }) = self.remotes.remove(&remote) {
            self.release_neighbor(key);
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

    /// The way to a watched locator.
    pub(crate) fn hop(&self, remote: IpAddr) -> Option<Hop> {
        self.remotes.get(&remote).and_then(|r| r.hop)
    }

    /// Some uplink leads to a watched locator, resolved or not.
    pub(crate) fn is_routed(&self, remote: IpAddr) -> bool {
        self.remotes.get(&remote).is_some_and(|r| r.via.is_some())
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
            let via = self.route(remote);
            if let Some(r) = self.remotes.get_mut(&remote) {
                r.via = via;
            }
            if let Some(key) = via {
                self.use_neighbor(now, key);
            }
            self.settle(remote);
        }
        self.drop_unasked();
    }

    /// Computes the way to `remote` from its next hop and notes whether it changed.
    fn settle(&mut self, remote: IpAddr) {
        let Some(r) = self.remotes.get(&remote) else { return };
        let hop = r.via.and_then(|(port, next)| {
            let dst_mac = self.neighbors.get(&(port, next))?.mac?;
            let spec = self.uplinks.get(&port)?.spec;
            let src_ip = source(&spec, remote)?;
            Some(Hop {
                uplink: port,
                src_mac: spec.mac,
                dst_mac,
                src_ip,
                mtu: self.paths.mtu(remote, spec.mtu),
            })
        });
        if let Some(r) = self.remotes.get_mut(&remote).filter(|r| r.hop != hop) {
            r.hop = hop;
            self.changed.insert(remote);
        }
    }

    /// All locators behind a next hop, after its MAC changed.
    fn settle_behind(&mut self, key: (PortIdx, IpAddr)) {
        let behind: Vec<IpAddr> =
            self.remotes.iter().filter(|(_, r)| r.via == Some(key)).map(|(ip, _)| *ip).collect();
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
}

/// The uplink's locator of `remote`'s family.
fn source(spec: &UplinkSpec, remote: IpAddr) -> Option<IpAddr> {
    match remote {
        IpAddr::V4(_) => spec.v4.map(|n| n.addr.into()),
        IpAddr::V6(_) => spec.v6.map(|n| n.addr.into()),
    }
}
