//! A VM's port as a burst sees it, and which MACs and addresses its VM may send from (R65, R92–R94).
//!
//! The fast path compares a frame with the one MAC and the one address of each family that are usual.
//! [`Port::carries`] is the second look, at everything else that was set; what is new, or refused, takes the cold path,
//! which tells control.

use core::net::IpAddr;

use godwit_tables::event::{Event, Refused};
use godwit_tables::neighbors::Neighbor;
use godwit_tables::sources::{self, Family, Sources};
use godwit_tables::update::{Admission, Key, PortIdx, SourceRule, VmState, VnIdx, VnRouting};
use godwit_tables::vms::{Fib, State};
use godwit_tables::{DropReason, Tables};
use godwit_wire::tenant::Source;
use godwit_wire::{Dscp, Instant, Mac, Vni};

use crate::Output;
use crate::context::Context;
use crate::packet::{Packet, PacketSource};

/// The port that a burst came in on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    pub port: PortIdx,
    pub vn: VnIdx,
    pub vni: Vni,
    /// Who speaks: the port's own VM, until a frame says otherwise.
    pub mac: Mac,
    pub admission: Admission,
    pub transparent: bool,
    /// The port's own MAC.
    own: Mac,
    /// What `mac` is.
    pub speaker: Speaker,
    /// It speaks within a VLAN of a transparent VN, whose addresses are not the directory's.
    pub tagged: bool,
    /// The IP source that frames usually have (R65).
    usual: sources::Usual,
    /// Its VM's policy has a say (R23).
    pub filtered: bool,
    /// And marks what it sends.
    pub dscp: Option<Dscp>,
    /// Its VN's part in a routing domain (R58).
    pub routing: Option<VnRouting>,
    /// Any source is good but the gateway's, which has to be looked for.
    unbound: bool,
}

/// What a frame's source MAC is to the port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speaker {
    /// The port's own.
    Own,
    /// One within its VM (R94).
    Nested,
    /// A virtual one of its VM's (R92).
    Shared {
        /// Others have it, as far as known here, and control is to be told that it is used here.
        tell: bool,
    },
    /// A VM behind the port, which only the configuration knows of.
    Behind,
}

/// What a frame does with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// It comes from there.
    Data,
    /// It says to its readers, by ARP or ND, that the address is its sender's.
    Word,
    /// It says so to everybody, unasked.
    Announcement,
}

/// What is to be said of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// The VM may use it.
    Good,
    /// It may, and control is to be told.
    New {
        /// Since it shares the address with others (R92).
        shared: bool,
    },
    /// It may not.
    Refused(Refused),
}

/// An address that control is to be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NewSource {
    ip: IpAddr,
    shared: bool,
    announced: bool,
}

/// What was found of a frame's addresses, for control.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(crate) struct Found {
    /// What it uses that is not set: its IP source, and what it says is its own.
    new: [Option<NewSource>; 2],
    /// It speaks from a virtual MAC that others have.
    mac: bool,
    /// What was refused.
    refused: Option<(Mac, Option<IpAddr>, Refused)>,
}

impl Found {
    fn add(&mut self, new: NewSource) {
        match self.new.iter_mut().flatten().find(|n| n.ip == new.ip) {
            Some(same) => same.announced |= new.announced,
            None => {
                if let Some(free) = self.new.iter_mut().find(|n| n.is_none()) {
                    *free = Some(new);
                }
            }
        }
    }

    /// Notes what is refused; nothing else of the frame counts then.
    pub fn refuse(&mut self, mac: Mac, ip: Option<IpAddr>, why: Refused) -> DropReason {
        *self = Found { refused: Some((mac, ip, why)), ..Found::default() };
        match why {
            Refused::Mac | Refused::Address | Refused::Taken => DropReason::SpoofedSource,
            Refused::Full => DropReason::AddressLimit,
            Refused::NotAnnounced => DropReason::NotAnnounced,
        }
    }

    /// The frame is malformed: it says nothing.
    pub fn clear(&mut self) {
        *self = Found::default();
    }
}

impl Port {
    /// `None` where the port's VN is not configured.
    pub fn of(tables: &Tables, port: PortIdx, vn: VnIdx, mac: Mac, admission: Admission) -> Option<Port> {
        let v = tables.vns.get(vn)?;
        let filtered = tables.ports.is_filtered(port);
        let routing = tables.routes.of_vn(vn);
        let binds = |s: &Sources| {
            [Family::V4, Family::V6, Family::LinkLocal].iter().all(|&f| s.rule(f) != SourceRule::Any)
        };
        let unbound = routing.is_some() && !tables.ports.sources(port).is_some_and(binds);
        Some(Port {
            port,
            vn,
            vni: v.vni,
            mac,
            admission,
            transparent: v.transparent_vlan,
            own: mac,
            speaker: Speaker::Own,
            tagged: false,
            usual: tables.ports.usual(port),
            filtered,
            dscp: if filtered { tables.ports.dscp(port) } else { None },
            routing,
            unbound,
        })
    }

    /// The port with `mac`, a frame's source, as the one who speaks; `None` where it is none of its VM's MACs.
    pub fn spoken_by(&self, mac: Mac, tables: &Tables, now: Instant) -> Option<Port> {
        Some(Port { mac, speaker: self.speaker_of(mac, tables, now)?, ..*self })
    }

    fn speaker_of(&self, mac: Mac, tables: &Tables, now: Instant) -> Option<Speaker> {
        if self.routing.is_some_and(|r| r.mac == mac) {
            return None;
        }
        if mac == self.own {
            return Some(Speaker::Own);
        }
        if let Some(s) = tables.ports.sources(self.port) {
            if s.nests(mac) {
                return Some(Speaker::Nested);
            }
            if let Some(due) = s.shares_mac(mac, now) {
                return Some(Speaker::Shared { tell: due && !self.is_here(mac, tables) });
            }
        }
        let behind = tables.vms.get(Key::new(self.vn, mac)) == Some(Fib::Local(self.port));
        (behind && mac != Mac::ZERO).then_some(Speaker::Behind)
    }

    /// Frames for the MAC go to this port.
    fn is_here(&self, mac: Mac, tables: &Tables) -> bool {
        match tables.vms.get(Key::new(self.vn, mac)) {
            Some(Fib::Local(port)) => port == self.port,
            Some(Fib::Special(at)) => {
                matches!(tables.vms.special(at).state,
                    State::Known(VmState::Local { port } | VmState::Arrived { port, .. }) if port == self.port)
            }
            _ => false,
        }
    }

    /// The frame has the usual source. `false` says only: look closer.
    #[inline(always)]
    pub fn is_usual(&self, source: Source) -> bool {
        match source {
            Source::V4(a) => self.usual.is_v4(a),
            Source::V6(a) => self.usual.is_v6(a),
            Source::NotIp => true,
            Source::Malformed => false,
        }
    }

    /// The usual source of each family, IPv4 and IPv6, is one address that packets are routed from (R58).
    #[inline]
    pub fn usual_can_be_routed(&self) -> (bool, bool) {
        let good = |ip: Option<IpAddr>| ip.is_some_and(|ip| !godwit_wire::route::is_martian(ip));
        (good(self.usual.one_v4().map(IpAddr::V4)), good(self.usual.one_v6().map(IpAddr::V6)))
    }

    /// The port is open, and neither a policy nor a gateway without rules has each frame looked at: there are plain
    /// frames.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.admission == Admission::Activated && !self.filtered && !self.unbound
    }

    /// The address is one of the gateway's, which no VM may use (R58).
    fn is_gateways(&self, ip: IpAddr, tables: &Tables, now: Instant) -> bool {
        let Some(routing) = self.routing else { return false };
        let its = |n| matches!(n, Neighbor::Known { mac, .. } if mac == routing.mac);
        ip == routing.mac.link_local() || tables.neighbors.get(self.vn, ip, now).is_some_and(its)
    }

    /// Plain frames may come from more than one MAC and one address of each family.
    #[inline]
    pub fn has_more(&self, tables: &Tables) -> bool {
        self.is_plain() && tables.ports.has_more(self.port)
    }

    /// A data frame of the port's own MAC may have this source, since it was set. `false` says only: look closer.
    #[inline(always)]
    pub fn is_set(&self, source: Source, set: Option<&Sources>) -> bool {
        match (source, set) {
            (Source::V4(a), Some(s)) => s.carries_v4(a),
            (Source::V6(a), Some(s)) => s.carries_v6(a),
            _ => false,
        }
    }

    /// A data frame from this MAC may have this source, and control need not be told. `false` says only: take the
    /// cold path. Out of line: where an address is usual, nothing is spent on others.
    #[cold]
    #[inline(never)]
    pub fn carries(&self, mac: Mac, source: Source, tables: &Tables, now: Instant) -> bool {
        let set = tables.ports.sources(self.port);
        set.is_some_and(|s| {
            let own = mac == self.own;
            let set = (own || s.nests(mac)) && self.is_set(source, set);
            set || own && self.is_forwarded(source, s, tables, now)
        }) || self.carries_unset(mac, source, tables, now)
    }

    /// A router forwards a frame with this source, and there is nothing else to think of (R94).
    #[inline]
    fn is_forwarded(&self, source: Source, s: &Sources, tables: &Tables, now: Instant) -> bool {
        let forwards = tables.ports.is_server(self.port) && s.is_quiet();
        let free = |ip| {
            can_be_a_source(ip) && !self.is_others(ip, s, tables, now) && !self.is_gateways(ip, tables, now)
        };
        forwards && address(source).is_some_and(free)
    }

    /// The same of a MAC or an address that is not set.
    #[inline(never)]
    fn carries_unset(&self, mac: Mac, source: Source, tables: &Tables, now: Instant) -> bool {
        let Some(ip) = address(source) else { return false };
        match self.speaker_of(mac, tables, now) {
            None | Some(Speaker::Shared { tell: true }) => false,
            Some(by) => self.standing((mac, by), ip, Use::Data, 0, tables, now) == Standing::Good,
        }
    }

    /// A frame may have this source (R65). What is not IP says nothing of addresses; what cannot be
    /// read is refused where there is something to compare with.
    ///
    /// # Errors
    /// Why it is dropped.
    pub fn check_source(
        &self,
        source: Source,
        used: impl Fn(IpAddr) -> Use,
        tables: &Tables,
        now: Instant,
        found: &mut Found,
    ) -> Result<(), DropReason> {
        found.mac = self.speaker == Speaker::Shared { tell: true };
        match address(source) {
            Some(ip) => self.check(ip, used(ip), tables, now, found),
            None if source == Source::Malformed && self.is_bound(tables) => {
                found.clear();
                Err(DropReason::InnerMalformed)
            }
            None => Ok(()),
        }
    }

    fn is_bound(&self, tables: &Tables) -> bool {
        self.speaker != Speaker::Behind && tables.ports.sources(self.port).is_some_and(Sources::is_bound)
    }

    /// The VM may use `ip` so (R65, R92–R94).
    ///
    /// # Errors
    /// Why the frame is dropped.
    pub fn check(
        &self,
        ip: IpAddr,
        used: Use,
        tables: &Tables,
        now: Instant,
        found: &mut Found,
    ) -> Result<(), DropReason> {
        let family = Family::of(ip);
        let more = found.new.iter().flatten().filter(|n| n.ip != ip && Family::of(n.ip) == family).count();
        match self.standing((self.mac, self.speaker), ip, used, more, tables, now) {
            Standing::Good => Ok(()),
            Standing::New { shared } => {
                found.add(NewSource { ip, shared, announced: used == Use::Announcement });
                Ok(())
            }
            Standing::Refused(why) => Err(found.refuse(self.mac, Some(ip), why)),
        }
    }

    /// What is to be said of `ip`, used by `by`, in a frame that uses `more` new ones.
    fn standing(
        &self,
        by: (Mac, Speaker),
        ip: IpAddr,
        used: Use,
        more: usize,
        tables: &Tables,
        now: Instant,
    ) -> Standing {
        // Before it has others, a VM uses the unspecified one (DHCP, RFC 4862 section 5.4.2).
        if ip.is_unspecified() {
            return Standing::Good;
        }
        if self.is_gateways(ip, tables, now) {
            return Standing::Refused(Refused::Taken);
        }
        let set = tables.ports.sources(self.port).filter(|_| by.1 != Speaker::Behind);
        if let Some(s) = set {
            if s.lists(ip) {
                return Standing::Good;
            }
            // Its readers reach the prefix by the VM, but nobody has one of its addresses to announce (R94).
            if s.routes(ip) {
                return match used {
                    Use::Announcement => Standing::Refused(Refused::Address),
                    Use::Data | Use::Word => Standing::Good,
                };
            }
            let rule = s.rule(Family::of(ip));
            if rule != SourceRule::Any && (by.1 == Speaker::Own || s.has_rules()) {
                return self.standing_of_unset((s, rule), by, (ip, used, more), tables, now);
            }
        }
        // Nobody said what the VM has; one behind it has what nobody else is known to have.
        if by.1 == Speaker::Own {
            return Standing::Good;
        }
        match tables.neighbors.get(self.vn, ip, now) {
            Some(Neighbor::Known { mac, .. }) if mac != by.0 => Standing::Refused(Refused::Taken),
            _ => Standing::Good,
        }
    }

    /// The same of an address that is not set.
    fn standing_of_unset(
        &self,
        (s, rule): (&Sources, SourceRule),
        by: (Mac, Speaker),
        (ip, used, more): (IpAddr, Use, usize),
        tables: &Tables,
        now: Instant,
    ) -> Standing {
        let shared = s.shares(ip);
        if !shared && self.is_others(ip, s, tables, now) {
            return Standing::Refused(Refused::Taken);
        }
        // Nobody learns it; where the VM may bind addresses by its own word, it has those of VLANs as well.
        if self.tagged && !shared && rule != (SourceRule::Listed { room: 0 }) {
            return Standing::Good;
        }
        match s.waits(ip, now) {
            Some(true) => return Standing::New { shared },
            Some(false) => return Standing::Good,
            None if !can_be_a_source(ip) => return Standing::Refused(Refused::Address),
            None => {}
        }
        // A router forwards from everywhere, but for other VMs of the VN (R94).
        let routed = used == Use::Data && tables.ports.is_server(self.port);
        if routed && !(shared && self.is_others(ip, s, tables, now)) {
            return Standing::Good;
        }
        if shared && used != Use::Announcement {
            return Standing::Refused(Refused::NotAnnounced);
        }
        // Who lost a race for a virtual address may win the next one.
        if !shared && (s.is_refused(ip, now) || rule == (SourceRule::Listed { room: 0 })) {
            return Standing::Refused(Refused::Address);
        }
        if s.has_room(ip, by.0, (!shared).then_some(rule), more, now) {
            Standing::New { shared }
        } else {
            Standing::Refused(Refused::Full)
        }
    }

    /// The address is known to be another VM's.
    fn is_others(&self, ip: IpAddr, s: &Sources, tables: &Tables, now: Instant) -> bool {
        match tables.neighbors.get(self.vn, ip, now) {
            Some(Neighbor::Known { mac, .. }) => {
                let shares = || s.shares_mac(mac, now).is_some() && self.is_here(mac, tables);
                !(mac == self.own || s.nests(mac) || shares())
            }
            _ => false,
        }
    }
}

fn address(source: Source) -> Option<IpAddr> {
    match source {
        Source::V4(a) => Some(IpAddr::V4(a.into())),
        Source::V6(a) => Some(IpAddr::V6(a.into())),
        Source::NotIp | Source::Malformed => None,
    }
}

/// An address that a host can have: not a group, not everybody, not of its own inside.
fn can_be_a_source(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => !(a.is_multicast() || a.is_loopback() || a.is_broadcast() || a.octets()[0] == 0),
        IpAddr::V6(a) => !(a.is_multicast() || a.is_loopback() || a.to_ipv4_mapped().is_some()),
    }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Tells control of a frame's addresses: of what is new, or of what was refused, once a second each.
    pub fn tell_sources(&mut self, port: PortIdx, mac: Mac, found: &Found, is_open: bool) {
        for new in found.new.iter().flatten() {
            let mut announced = new.announced;
            let due =
                self.tables.ports.note_source((port, mac, new.ip), new.shared, &mut announced, self.now);
            // What a port that is not open announces is told as an announcement.
            if due && is_open && self.event(Event::SourceSeen { port, mac, ip: Some(new.ip), announced }) {
                self.tables.ports.heard_source(port, mac, Some(new.ip), self.now);
            }
        }
        if found.mac && is_open && self.event(Event::SourceSeen { port, mac, ip: None, announced: false }) {
            self.tables.ports.heard_source(port, mac, None, self.now);
        }
        if let Some((mac, ip, why)) = found.refused
            && self.tables.ports.may_report_spoof(port, self.now)
        {
            self.event(Event::Spoofed { port, mac, ip, why });
        }
    }
}
