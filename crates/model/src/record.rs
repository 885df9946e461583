//! A VM's record in the directory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::Mac;

use crate::{
    Allowed, Bindings, Bound, ConnectionPause, LEARNED_DEFAULT, Learning, LearningOf, Location, Locators,
    MoveId, NveId, Version, VmKey,
};

/// The NVE that a VM's state is mirrored to by its manager (R50).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// The standby NVE.
    pub nve: NveId,
    /// How often its manager mirrors it, in seconds, 1 to 3600.
    pub interval_s: u32,
    /// When that was done last, in microseconds since 1970, by the word of its manager; 0: not yet.
    pub mirrored_us: u64,
}

/// One VM interface in the directory (R33).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmRecord {
    /// The operator's name for the VM.
    pub name: String,
    /// VN and MAC.
    pub key: VmKey,
    /// Its IPv4 addresses, sorted.
    pub ipv4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, sorted.
    pub ipv6: Vec<Ipv6Addr>,
    /// Where it is, or that it is detached.
    pub bindings: Bindings,
    /// Version of these bindings.
    pub version: Version,
    /// It is a router (R flag of its neighbor advertisements, RFC 4861): by the operator's word, or
    /// learned from its own advertisements (R25).
    pub router: bool,
    /// `router` is the operator's word, which no advertisement changes.
    pub router_pinned: bool,
    /// Of `ipv6`, in order, what it last advertised with the O flag clear, as anycast addresses are (RFC 4861 section
    /// 7.2.7, R25). Answers in its name do not depend on this (R29).
    pub no_override: Vec<Ipv6Addr>,
    /// Its location is the operator's word (a foreign NVE without a session) and no claim moves it.
    pub pinned: bool,
    /// The planned move that is under way, if any.
    pub moving: Option<MoveId>,
    /// What it may send and receive, wherever it runs (R23): the name of a [`Policy`](crate::Policy).
    pub policy: Option<String>,
    /// It went to and fro without being ordered to, and stays where it is until the operator clears it (R22).
    pub frozen: bool,
    /// What the operator allows it beside `ipv4` and `ipv6` (R92 to R94).
    pub allowed: Allowed,
    /// What it has by its own word; empty where nothing was heard of it (R92, R93).
    pub bound: Bound,
    /// Where its state is mirrored to (R50).
    pub standby: Option<Mirror>,
    /// The pause of its connections that is on or was of late (R54).
    pub pause: Option<ConnectionPause>,
    /// While it is detached: the NVE that had it last, and the version with which it lost it.
    pub former: Option<(NveId, Version)>,
}

impl VmRecord {
    /// Location of the NVE that carries its traffic; none while it is detached.
    pub fn active(&self) -> Option<&Location> {
        self.bindings.active()
    }

    /// The NVE that carries its traffic.
    pub fn active_nve(&self) -> Option<&NveId> {
        self.active().map(|l| &l.nve)
    }

    /// An NVE carries its traffic; otherwise it is detached, and its addresses stay reserved (R19).
    pub fn is_active(&self) -> bool {
        self.active().is_some()
    }

    /// This NVE carries its traffic.
    pub fn is_at(&self, nve: &NveId) -> bool {
        self.active_nve() == Some(nve)
    }

    /// From now on the NVE at `location` carries its traffic; returns where that was before.
    pub fn bind(&mut self, location: Location) -> Option<Location> {
        self.bindings.bind(location)
    }

    /// No NVE carries its traffic any more; returns where that was.
    pub fn detach(&mut self) -> Option<Location> {
        self.bindings.detach()
    }

    /// Where it is to run, as others are told ahead (R50): nothing is sent there.
    pub fn pending(&self) -> Option<&Location> {
        self.bindings.pending()
    }

    /// It is to run there, or is not any more; whether that is news.
    pub fn set_pending(&mut self, location: Option<Location>) -> bool {
        let before = self.pending().cloned();
        self.bindings.set_pending(location);
        before.as_ref() != self.pending()
    }

    /// The pause of its connections that is on (R54).
    pub fn paused(&self) -> Option<&ConnectionPause> {
        self.pause.as_ref().filter(|p| p.is_on())
    }

    /// The NVE has other locators, wherever the record names it.
    pub fn relocate(&mut self, nve: &NveId, locators: Locators) {
        self.bindings.relocate(nve, locators);
    }

    /// Every address that leads to it, each with the MAC that answers for it: recorded ones with its own, then bound
    /// ones.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, Mac)> + '_ {
        let recorded = self.ips().map(|ip| (ip, self.key.mac));
        recorded.chain(self.bound.ips.iter().map(|b| (b.ip, b.mac)))
    }

    /// The MAC that answers for an address of it.
    pub fn mac_of(&self, ip: IpAddr) -> Option<Mac> {
        self.addresses().find(|(own, _)| *own == ip).map(|(_, mac)| mac)
    }

    /// Every MAC whose frames are for it: its own, nested ones, and the virtual ones that it has.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + '_ {
        let nested = self.allowed.nested.iter().copied();
        core::iter::once(self.key.mac).chain(nested).chain(self.bound.macs.iter().copied())
    }

    /// Whose word binds addresses of the family of `ip` to `mac`, which is one of its own, nested or virtual ones;
    /// `vn` is what its VN says (R93).
    pub fn learning(&self, vn: LearningOf, mac: Mac, ip: IpAddr) -> Learning {
        let is_ipv4 = ip.is_ipv4();
        let default = Learning::Learned(LEARNED_DEFAULT);
        if matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local()) || mac != self.key.mac {
            return self.allowed.learning.family(is_ipv4).filter(|l| l.room() > 0).unwrap_or(default);
        }
        let recorded = if is_ipv4 { !self.ipv4.is_empty() } else { !self.ipv6.is_empty() };
        let said = self.allowed.learning.family(is_ipv4).or(vn.family(is_ipv4));
        said.unwrap_or(if recorded { Learning::Recorded } else { default })
    }

    /// The recorded addresses, IPv4 first: those that its definition lists.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ipv4.iter().copied().map(IpAddr::V4).chain(self.ipv6.iter().copied().map(IpAddr::V6))
    }
}

/// The router of a VN, in whose name VMs without a disk are answered (R27).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// Its MAC.
    pub mac: Mac,
    /// Its first IPv4 address.
    pub ip: Ipv4Addr,
}

impl Gateway {
    /// What the record says, if it is of a router that the operator defined. What a VM says of itself makes none.
    #[must_use]
    pub fn of(record: &VmRecord) -> Option<Gateway> {
        let ip = *record.ipv4.first()?;
        (record.router && record.router_pinned).then_some(Gateway { mac: record.key.mac, ip })
    }
}
