//! One neighbor's life: asked for, reachable, probed while in use, lost (RFC 4861 section 7.3, used
//! for ARP alike).

use std::net::IpAddr;

use godwit_tables::update::PortIdx;
use godwit_wire::arp::{self, ArpRepr};
use godwit_wire::ndp::{self, AdvertFrame, SolicitFrame};
use godwit_wire::{Instant, Mac, Span};

use super::{MAX_IDLE_NEIGHBORS, News, NextHop, Underlay};

/// Gaps after the first questions, in milliseconds: quick ones for a packet that waits, then one a second
/// (RFC 4861's RETRANS_TIMER). Longer ones would go on cutting VMs off long after an outage is over.
const RETRY_MS: [u64; 5] = [50, 150, 300, 500, 1000];
/// A confirmed neighbor is trusted for so long, unless others beside it could take over.
const REACHABLE: Span = Span::from_ms(30_000);
/// Gap between two probes.
const PROBE_GAP: Span = Span::from_ms(1000);
/// Unanswered probes that make a neighbor unknown, unless [`Liveness`](crate::Liveness) says else.
const PROBES: u32 = 3;
/// A neighbor that nothing uses is forgotten after so long.
const IDLE: Span = Span::from_ms(600_000);

/// How sure we are of a neighbor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Being asked for, this often so far.
    Incomplete { tries: u32 },
    /// Confirmed of late.
    Reachable,
    /// Not confirmed of late, and nobody needs it.
    Stale,
    /// Not confirmed of late, in use, being asked directly.
    Probe { tries: u32 },
    /// The operator's word: never asked, never changed.
    Permanent,
}

impl Reach {
    /// For people.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Reach::Incomplete { .. } => "incomplete",
            Reach::Reachable => "reachable",
            Reach::Stale => "stale",
            Reach::Probe { .. } => "probe",
            Reach::Permanent => "permanent",
        }
    }
}

/// A neighbor on an uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Neighbor {
    pub(crate) mac: Option<Mac>,
    pub(crate) reach: Reach,
    /// So many remote locators are behind it.
    users: u32,
    /// Of these, so many have other next hops, too.
    shared: u32,
    /// It is probed as one that has others beside it.
    watched: bool,
    /// It was in use and fell silent.
    silent: bool,
}

impl Neighbor {
    fn new(mac: Option<Mac>, reach: Reach) -> Neighbor {
        Neighbor { mac, reach, users: 0, shared: 0, watched: false, silent: false }
    }

    /// Nothing is behind it, until it is counted again.
    pub(super) fn release_all(&mut self) {
        (self.users, self.shared) = (0, 0);
    }
}

impl Underlay {
    /// One more locator is behind this next hop; `shared`: behind others, too.
    pub(super) fn use_neighbor(&mut self, now: Instant, key: NextHop, shared: bool) {
        // The MAC of a group follows from its address.
        if key.1.is_multicast() {
            return;
        }
        let fresh = Neighbor::new(None, Reach::Incomplete { tries: 0 });
        let known = self.neighbors.contains_key(&key);
        let n = self.neighbors.entry(key).or_insert(fresh);
        n.users += 1;
        n.shared += u32::from(shared);
        let hurry = shared && !n.watched;
        n.watched |= shared;
        match n.reach {
            Reach::Incomplete { .. } if !known => self.ask(now, key),
            Reach::Stale => self.probe(now, key),
            // Trusted for longer than it may be from now on.
            Reach::Reachable if hurry => self.probe(now, key),
            _ => {}
        }
    }

    /// One locator less.
    pub(super) fn release_neighbor(&mut self, key: NextHop, shared: bool) {
        let Some(n) = self.neighbors.get_mut(&key) else { return };
        n.users = n.users.saturating_sub(1);
        n.shared = n.shared.saturating_sub(u32::from(shared));
        n.watched = n.shared > 0;
        if n.users == 0 && n.mac.is_none() {
            self.neighbors.remove(&key);
            self.timers.set(key, None);
        }
    }

    /// Neighbors that nothing needs and that never answered are not asked for any longer.
    pub(super) fn drop_unasked(&mut self) {
        let timers = &mut self.timers;
        self.neighbors.retain(|key, n| {
            n.watched = n.shared > 0;
            let keep = n.users > 0 || n.mac.is_some();
            if !keep {
                timers.set(*key, None);
            }
            keep
        });
    }

    /// A worker saw that `ip` is at `mac`. Neighbors that we know are updated; others are noted if
    /// they can be neighbors at all, because a tunnel to them may be wanted soon.
    pub(crate) fn learned(&mut self, now: Instant, port: PortIdx, ip: IpAddr, mac: Mac, solicited: bool) {
        let key = (port, ip);
        let own = |u: &super::Uplink| [u.spec.v4.map(|n| n.addr.into()), u.spec.v6.map(|n| n.addr.into())];
        let is_own = |ip| self.uplinks.values().any(|u| own(u).contains(&Some(ip)));
        if !mac.is_unicast() || !self.is_on_link(port, ip) || self.locators().contains(ip) || is_own(ip) {
            return;
        }
        let known = self.neighbors.get_mut(&key);
        if known.as_ref().is_some_and(|n| n.reach == Reach::Permanent) {
            return;
        }
        let Some(n) = known else {
            if self.neighbors.len() < MAX_IDLE_NEIGHBORS + self.remotes.len() {
                self.neighbors.insert(key, Neighbor::new(Some(mac), Reach::Stale));
                self.timers.set(key, Some(now + IDLE));
            }
            return;
        };
        let moved = n.mac != Some(mac);
        n.mac = Some(mac);
        if core::mem::take(&mut n.silent) {
            self.news.push(News::Back { uplink: port, ip });
        }
        if solicited || !moved {
            n.reach = Reach::Reachable;
            let trusted = if n.watched { self.liveness.interval } else { REACHABLE };
            self.timers.set(key, Some(now + trusted));
        } else if n.users > 0 {
            // News that we did not ask for: used at once, and verified.
            self.probe(now, key);
        }
        if moved {
            self.settle_behind(key);
        }
    }

    /// The operator says where a neighbor is.
    pub(crate) fn set_permanent(&mut self, port: PortIdx, ip: IpAddr, mac: Mac) {
        let key = (port, ip);
        let fresh = Neighbor::new(None, Reach::Permanent);
        let n = self.neighbors.entry(key).or_insert(fresh);
        (n.mac, n.reach) = (Some(mac), Reach::Permanent);
        self.timers.set(key, None);
        self.settle_behind(key);
    }

    /// Asks and forgets what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        for remote in self.paths.tick(now) {
            self.settle(remote);
        }
        while let Some(key) = self.timers.pop_due(now) {
            let Some(n) = self.neighbors.get_mut(&key) else { continue };
            let enough = if n.watched { self.liveness.tries } else { PROBES };
            match n.reach {
                Reach::Incomplete { .. } => self.ask(now, key),
                Reach::Reachable if n.users > 0 => self.probe(now, key),
                Reach::Reachable => {
                    n.reach = Reach::Stale;
                    self.timers.set(key, Some(now + IDLE));
                }
                Reach::Stale => {
                    self.neighbors.remove(&key);
                }
                Reach::Probe { tries } if tries >= enough => self.give_up(now, key),
                Reach::Probe { .. } => self.probe(now, key),
                Reach::Permanent => {}
            }
        }
    }

    /// It did not answer: packets for the locators behind it wait from now on. One that nothing is behind any more is
    /// forgotten: it is asked for when it is needed.
    fn give_up(&mut self, now: Instant, key: NextHop) {
        if self.neighbors.get(&key).is_some_and(|n| n.users == 0) {
            self.neighbors.remove(&key);
            return;
        }
        if let Some(n) = self.neighbors.get_mut(&key) {
            n.mac = None;
            n.reach = Reach::Incomplete { tries: 0 };
            n.silent = true;
        }
        self.settle_behind(key);
        let (uplink, ip) = key;
        self.news.push(News::Silent { uplink, ip, cut: self.cut_behind(|via| *via == key) });
        self.ask(now, key);
    }

    /// Asks everyone.
    fn ask(&mut self, now: Instant, key: NextHop) {
        let Some(n) = self.neighbors.get_mut(&key) else { return };
        let Reach::Incomplete { tries } = &mut n.reach else { return };
        let gap = RETRY_MS[(*tries as usize).min(RETRY_MS.len() - 1)];
        *tries = tries.saturating_add(1);
        self.timers.set(key, Some(now + Span::from_ms(gap)));
        self.solicit(key, None);
    }

    /// Asks the neighbor itself.
    fn probe(&mut self, now: Instant, key: NextHop) {
        let Some(n) = self.neighbors.get_mut(&key) else { return };
        let tries = match n.reach {
            Reach::Probe { tries } => tries + 1,
            _ => 1,
        };
        n.reach = Reach::Probe { tries };
        let (mac, gap) = (n.mac, if n.watched { self.liveness.wait } else { PROBE_GAP });
        self.timers.set(key, Some(now + gap));
        self.solicit(key, mac);
    }

    /// Emits the question, to `to` or to everyone who may be concerned.
    fn solicit(&mut self, (port, ip): NextHop, to: Option<Mac>) {
        let Some(spec) = self.uplinks.get(&port).map(|u| u.spec) else { return };
        let mut buf = [0; ndp::MAX_FRAME_LEN];
        let written = match ip {
            // An uplink without an address of its own asks in the name of the loopback (RFC 8950's IPv4 aside).
            IpAddr::V4(target) => spec.v4.map(|n| n.addr).or(self.loopback.v4).and_then(|own| {
                let dst = to.unwrap_or(Mac::BROADCAST);
                ArpRepr::request(spec.mac, own, target).emit_frame(&mut buf, dst, spec.mac).ok()
            }),
            IpAddr::V6(target) => {
                let own = spec.v6.map_or(spec.v6_link_local.unwrap_or(spec.mac.link_local()), |n| n.addr);
                let frame = match to {
                    Some(mac) => SolicitFrame::probe(spec.mac, own, mac, target),
                    None => SolicitFrame::resolve(spec.mac, own, target),
                };
                frame.emit_frame(&mut buf).ok()
            }
        };
        self.push_frame(port, &buf, written);
    }

    /// Tells an uplink's neighbors where its locators are.
    pub(super) fn announce(&mut self, port: PortIdx) {
        let Some(spec) = self.uplinks.get(&port).map(|u| u.spec) else { return };
        if let Some(n) = spec.v4 {
            let mut buf = [0; arp::FRAME_LEN];
            let written =
                ArpRepr::gratuitous(spec.mac, n.addr).emit_frame(&mut buf, Mac::BROADCAST, spec.mac).ok();
            self.push_frame(port, &buf, written);
        }
        if let Some(n) = spec.v6 {
            let mut buf = [0; ndp::MAX_FRAME_LEN];
            let written = AdvertFrame::unsolicited(spec.mac, n.addr, false).emit_frame(&mut buf).ok();
            self.push_frame(port, &buf, written);
        }
    }

    fn push_frame(&mut self, port: PortIdx, buf: &[u8], written: Option<usize>) {
        if let Some(frame) = written.and_then(|n| buf.get(..n)) {
            self.frames.push((port, frame.to_vec()));
        }
    }
}
