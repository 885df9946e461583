//! Ports: a dense array by the numbers that control gives out, and a chain of the ports of each VN.

use core::net::IpAddr;

use godwit_wire::policy::{Rule, Traffic, Verdict};
use godwit_wire::{Bucket, Dscp, Instant, Mac, Rate, Span};

use crate::policies::{Judged, Policies};
use crate::sources::{Book, Sources, Usual};
use crate::update::{Admission, Key, MAX_PORTS, PortIdx, PortRole, VnIdx};
use crate::{DropReason, OutOfRange, TablesConfig};

const NO_PORT: u16 = u16::MAX;
/// ICMP errors that a port is sent at most.
const ERRORS_A_SECOND: u8 = 100;
/// In [`Ports::delivery`]: no VM's port.
const NO_VN: u32 = u32::MAX;
/// In [`Ports::delivery`]: what goes there is looked at first. No VN's number has this bit.
const FILTERED: u32 = 1 << 31;

/// Announcements of a port that are told to control: 16 at once, one more every 5 ms.
const ANNOUNCEMENTS: Rate = Rate::per_second(200, 16);
/// IGMP and MLD messages of a port that are told to control: 128 at once, one more every 50 ms. In old versions a host
/// answers a general query with a message a group, and it may be in 64 of each family.
const MEMBERSHIPS: Rate = Rate::per_second(20, 128);
/// Frames of a port that are handed to control, DHCP and router solicitations: 32 at once, one more every 20 ms.
const PUNTS: Rate = Rate::per_second(50, 32);
/// Between two first frames of a port that are told to control.
const FIRST_FRAMES: Span = Span::from_ms(5);

/// A port.
pub struct Port {
    role: Option<PortRole>,
    /// Next port of the same VN, in no order.
    next_in_vn: u16,
    /// Destinations being asked for because of this port's frames.
    pub(crate) misses: u16,
    /// Requests of this port that wait.
    pub(crate) asks: u16,
    announcements: Bucket,
    /// IGMP and MLD (R61).
    memberships: Bucket,
    /// ARP, RARP and ND frames (R67).
    resolution: Bucket,
    /// Questions to the directory because of this port's frames (R67).
    questions: Bucket,
    /// DHCP and router solicitations (R67).
    punts: Bucket,
    first_frame: Instant,
    spoofed: Instant,
    taken: Instant,
    /// Errors sent since then.
    errors: (u8, Instant),
    /// What a burst compares sources with.
    usual: Usual,
    /// There is more to compare them with.
    more: bool,
    /// Where in the book its sources are.
    sources: u16,
    /// Its VM may speak as a router and as a DHCP server (R66).
    server: bool,
}

/// Whether a second has passed since `last`, which is now then.
fn once_a_second(last: &mut Instant, now: Instant) -> bool {
    let due = *last == Instant(0) || now.since(*last) >= Span::from_ms(1000);
    if due {
        *last = now;
    }
    due
}

/// All ports.
pub struct Ports {
    ports: Vec<Port>,
    /// The VN that a VM's port serves, in one word, for delivery; with [`FILTERED`] where a policy has a say.
    delivery: Vec<u32>,
    policies: Policies,
    sources: Book,
    /// First port of each VN.
    heads: Vec<u16>,
    resolution: Rate,
    questions: Rate,
}

impl Ports {
    pub(crate) fn new(config: &TablesConfig) -> Ports {
        let vacant = || Port {
            role: None,
            next_in_vn: NO_PORT,
            misses: 0,
            asks: 0,
            announcements: Bucket::default(),
            memberships: Bucket::default(),
            resolution: Bucket::default(),
            questions: Bucket::default(),
            punts: Bucket::default(),
            first_frame: Instant(0),
            spoofed: Instant(0),
            taken: Instant(0),
            errors: (0, Instant(0)),
            usual: Usual::default(),
            more: false,
            sources: Book::NONE,
            server: false,
        };
        let ports = config.port_capacity.clamp(1, MAX_PORTS);
        Ports {
            ports: (0..ports).map(|_| vacant()).collect(),
            delivery: vec![NO_VN; ports],
            policies: Policies::new(ports),
            sources: Book::new(ports, config.table_seed[0]),
            heads: vec![NO_PORT; config.vn_capacity],
            resolution: config.resolution_rate,
            questions: config.question_rate,
        }
    }

    /// What a port is for; `None` where it is not configured.
    #[inline]
    pub fn role(&self, port: PortIdx) -> Option<&PortRole> {
        self.ports.get(usize::from(port.0))?.role.as_ref()
    }

    /// What was set of the sources of a port's VM (R65); `None`: nothing, and every one is good.
    #[inline]
    pub fn sources(&self, port: PortIdx) -> Option<&Sources> {
        self.sources.get(self.ports.get(usize::from(port.0))?.sources)
    }

    /// What a burst of the port compares sources with.
    #[inline]
    pub fn usual(&self, port: PortIdx) -> Usual {
        self.ports.get(usize::from(port.0)).map_or(Usual::default(), |p| p.usual)
    }

    /// The port's VM may speak as a router and as a DHCP server (R66).
    pub fn is_server(&self, port: PortIdx) -> bool {
        self.ports.get(usize::from(port.0)).is_some_and(|p| p.server)
    }

    pub(crate) fn set_server(&mut self, port: PortIdx, server: bool) -> Result<(), OutOfRange> {
        self.ports.get_mut(usize::from(port.0)).ok_or(OutOfRange)?.server = server;
        Ok(())
    }

    /// Frames of the port may come from more than one MAC and one address of each family, link-local ones apart.
    #[inline]
    pub fn has_more(&self, port: PortIdx) -> bool {
        self.ports.get(usize::from(port.0)).is_some_and(|p| p.more || p.server)
    }

    /// Changes the sources of a port, which may have none yet.
    pub(crate) fn set_sources(
        &mut self,
        port: PortIdx,
        change: impl FnOnce(&mut Sources) -> Result<(), OutOfRange>,
    ) -> Result<(), OutOfRange> {
        let p = self.ports.get_mut(usize::from(port.0)).ok_or(OutOfRange)?;
        let sources = self.sources.open(&mut p.sources)?;
        let done = change(sources);
        (p.usual, p.more) = (sources.usual(), sources.has_more());
        done
    }

    /// Takes something of the sources of a port, if it has any.
    pub(crate) fn unset_sources(&mut self, port: PortIdx, change: impl FnOnce(&mut Sources)) {
        let Some(p) = self.ports.get_mut(usize::from(port.0)) else { return };
        let Some(sources) = self.sources.get_mut(p.sources) else { return };
        change(sources);
        (p.usual, p.more) = (sources.usual(), sources.has_more());
    }

    /// The port's VM uses an address that is not set and that it may bind by its own word; `shared`: since it shares
    /// it. True where control is to be told; [`Ports::heard_source`] then says that it was. `announced` becomes true
    /// where control has not heard yet that it was announced.
    pub fn note_source(
        &mut self,
        (port, mac, ip): (PortIdx, Mac, IpAddr),
        shared: bool,
        announced: &mut bool,
        now: Instant,
    ) -> bool {
        let place = self.at(port).sources;
        self.sources.get_mut(place).is_some_and(|s| s.note(ip, mac, shared, announced, now))
    }

    /// Control was told of an address that the port's VM uses, or of a virtual MAC.
    pub fn heard_source(&mut self, port: PortIdx, mac: Mac, ip: Option<IpAddr>, now: Instant) {
        let place = self.at(port).sources;
        match (self.sources.get_mut(place), ip) {
            (Some(s), Some(ip)) => s.heard(ip, now),
            (Some(s), None) => s.heard_mac(mac, now),
            (None, _) => {}
        }
    }

    /// The port is a VM's, in this VN (a stale entry never leads into another VN, R13), and takes everything.
    #[inline(always)]
    pub fn serves(&self, port: PortIdx, vn: VnIdx) -> bool {
        self.delivery.get(usize::from(port.0)) == Some(&u32::from(vn.0))
    }

    /// The port is a VM's, in this VN; a policy may have a say in what goes there.
    pub fn leads_to(&self, port: PortIdx, vn: VnIdx) -> bool {
        let word = self.delivery.get(usize::from(port.0));
        word.is_some_and(|w| *w != NO_VN && w & !FILTERED == u32::from(vn.0))
    }

    /// A policy has a say in what the port's VM sends and gets (R23).
    pub fn is_filtered(&self, port: PortIdx) -> bool {
        self.policies.is_set(usize::from(port.0))
    }

    /// The outer DSCP that the policy of the port's VM gives to what it sends to other NVEs (R23).
    pub fn dscp(&self, port: PortIdx) -> Option<Dscp> {
        self.policies.dscp(usize::from(port.0))
    }

    /// What the policy of the port's VM says of a frame, if it says anything.
    pub fn judge(&self, port: PortIdx, traffic: Option<&Traffic>) -> Option<Judged> {
        self.policies.judge(usize::from(port.0), traffic)
    }

    /// The policy of the port's VM lets it send a frame now; this counts as sending it (R23).
    ///
    /// # Errors
    /// Why not.
    pub fn may_send(
        &mut self,
        port: PortIdx,
        traffic: Option<&Traffic>,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.policies.send(usize::from(port.0), traffic, now)
    }

    /// It lets it send the frame however many it sends.
    pub fn sends_freely(&self, port: PortIdx, traffic: Option<&Traffic>) -> bool {
        self.policies.sends_freely(usize::from(port.0), traffic)
    }

    /// The policy of the port's VM lets it get a frame (R23), which is read only where there is a policy.
    ///
    /// # Errors
    /// Why not.
    pub fn may_get(&self, port: PortIdx, frame: &[u8]) -> Result<(), DropReason> {
        self.policies.receive(usize::from(port.0), frame)
    }

    pub(crate) fn stage_rule(&mut self, port: PortIdx, at: u8, rule: Rule) -> Result<(), OutOfRange> {
        self.policies.stage(usize::from(port.0), at, rule)
    }

    pub(crate) fn enforce_policy(
        &mut self,
        port: PortIdx,
        rules: u8,
        default: Verdict,
        rate: Rate,
        dscp: Option<Dscp>,
    ) -> Result<(), OutOfRange> {
        let at = usize::from(port.0);
        self.policies.enforce(at, rules, default, rate, dscp)?;
        self.mark(at);
        Ok(())
    }

    pub(crate) fn clear_policy(&mut self, port: PortIdx) {
        let at = usize::from(port.0);
        self.policies.clear(at);
        self.mark(at);
    }

    /// Delivery takes the fast path only where no policy has a say.
    fn mark(&mut self, at: usize) {
        let filtered = self.policies.is_set(at);
        if let Some(word) = self.delivery.get_mut(at).filter(|w| **w != NO_VN) {
            *word = *word & !FILTERED | if filtered { FILTERED } else { 0 };
        }
    }

    /// The activated VM ports of a VN.
    pub fn activated(&self, vn: VnIdx) -> impl Iterator<Item = PortIdx> {
        let mut next = self.heads.get(usize::from(vn.0)).copied().unwrap_or(NO_PORT);
        let chain = core::iter::from_fn(move || {
            let here = next;
            next = self.ports.get(usize::from(here))?.next_in_vn;
            Some(PortIdx(here))
        });
        chain.filter(|&p| self.is_activated(p))
    }

    /// The first port that was made for this VM, open or not, from number `first` on. Looks at every port: not for
    /// the packet path.
    pub fn next_of_vm(&self, key: Key, first: u16) -> Option<PortIdx> {
        let mut rest = self.ports.iter().zip(0..).skip(first.into());
        let its = |role| matches!(role, Some(PortRole::Access { vn, mac, .. }) if Key::new(vn, mac) == key);
        rest.find(|(port, _)| its(port.role)).map(|(_, n)| PortIdx(n))
    }

    /// The port's VM may talk.
    pub fn is_activated(&self, port: PortIdx) -> bool {
        matches!(self.role(port), Some(PortRole::Access { admission: Admission::Activated, .. }))
    }

    pub(crate) fn set(&mut self, port: PortIdx, role: Option<PortRole>) -> Result<(), OutOfRange> {
        let at = usize::from(port.0);
        if at >= self.ports.len() {
            return Err(OutOfRange);
        }
        if let Some(PortRole::Access { vn, .. }) = role
            && usize::from(vn.0) >= self.heads.len()
        {
            return Err(OutOfRange);
        }
        self.unlink(port);
        if role.is_none() {
            (self.ports[at].usual, self.ports[at].more) = (Usual::default(), false);
            self.sources.close(&mut self.ports[at].sources);
            self.ports[at].server = false;
            self.policies.clear(at);
        }
        self.ports[at].role = role;
        self.delivery[at] = NO_VN;
        if let Some(PortRole::Access { vn, .. }) = role {
            self.delivery[at] = vn.0.into();
            let head = &mut self.heads[usize::from(vn.0)];
            self.ports[at].next_in_vn = core::mem::replace(head, port.0);
        }
        self.mark(at);
        Ok(())
    }

    /// Takes a port out of its VN's chain.
    fn unlink(&mut self, port: PortIdx) {
        let at = usize::from(port.0);
        let Some(PortRole::Access { vn, .. }) = self.ports[at].role else { return };
        let after = core::mem::replace(&mut self.ports[at].next_in_vn, NO_PORT);
        let head = &mut self.heads[usize::from(vn.0)];
        if *head == port.0 {
            *head = after;
            return;
        }
        let mut before = usize::from(*head);
        while let Some(next) = self.ports.get(before).map(|p| p.next_in_vn) {
            if next == port.0 {
                self.ports[before].next_in_vn = after;
                return;
            }
            before = usize::from(next);
        }
        debug_assert!(false, "a VM's port is in its VN's chain");
    }

    /// Counters of what a port has under way, for the two tables that bound them.
    pub(crate) fn counts(&mut self, port: PortIdx) -> &mut Port {
        let last = self.ports.len() - 1;
        &mut self.ports[usize::from(port.0).min(last)]
    }

    fn at(&self, port: PortIdx) -> &Port {
        &self.ports[usize::from(port.0).min(self.ports.len() - 1)]
    }

    pub(crate) fn under_way(&self, port: PortIdx) -> (u16, u16) {
        let p = self.at(port);
        (p.misses, p.asks)
    }

    /// A port may raise another announcement now: a burst of 16, then one every 5 ms.
    pub fn may_announce(&mut self, port: PortIdx, now: Instant) -> bool {
        self.counts(port).announcements.take(ANNOUNCEMENTS, now)
    }

    /// Control may be told of another IGMP or MLD message of this port now (R61).
    pub fn may_report_membership(&mut self, port: PortIdx, now: Instant) -> bool {
        self.counts(port).memberships.take(MEMBERSHIPS, now)
    }

    /// The next ARP, RARP or ND frame of this port is looked at (R67).
    pub fn may_resolve(&self, port: PortIdx, now: Instant) -> bool {
        self.at(port).resolution.has(self.resolution, now)
    }

    /// One was.
    pub fn resolved(&mut self, port: PortIdx, now: Instant) {
        let rate = self.resolution;
        self.counts(port).resolution.take(rate, now);
    }

    /// The directory may be asked because of a frame of this port (R67).
    pub(crate) fn may_ask(&self, port: PortIdx, now: Instant) -> bool {
        self.at(port).questions.has(self.questions, now)
    }

    /// It was.
    pub(crate) fn asked(&mut self, port: PortIdx, now: Instant) {
        let rate = self.questions;
        self.counts(port).questions.take(rate, now);
    }

    /// A frame of this port may be handed to control now (R67).
    pub fn may_punt(&self, port: PortIdx, now: Instant) -> bool {
        self.at(port).punts.has(PUNTS, now)
    }

    /// One was.
    pub fn punted(&mut self, port: PortIdx, now: Instant) {
        self.counts(port).punts.take(PUNTS, now);
    }

    /// Whether [`Ports::may_send_error`] would say so; takes none.
    pub fn has_error_left(&self, port: PortIdx, now: Instant) -> bool {
        let (sent, since) = self.at(port).errors;
        sent < ERRORS_A_SECOND || now.since(since) >= Span::from_ms(1000)
    }

    /// An ICMP error may be sent to this port now: 100 in a second (R8).
    pub fn may_send_error(&mut self, port: PortIdx, now: Instant) -> bool {
        let (sent, since) = &mut self.counts(port).errors;
        if now.since(*since) >= Span::from_ms(1000) {
            (*sent, *since) = (0, now);
        }
        let allowed = *sent < ERRORS_A_SECOND;
        *sent += u8::from(allowed);
        allowed
    }

    /// A spoofed frame of this port may be reported now: once a second.
    pub fn may_report_spoof(&mut self, port: PortIdx, now: Instant) -> bool {
        once_a_second(&mut self.counts(port).spoofed, now)
    }

    /// That this port's VM asked for an address of another one may be reported now: once a second.
    pub fn may_report_taken(&mut self, port: PortIdx, now: Instant) -> bool {
        once_a_second(&mut self.counts(port).taken, now)
    }

    /// An Associated port may report a first frame now: once every 5 ms. Apart from announcements,
    /// which say more, so that ordinary frames do not silence them.
    pub fn may_report_first_frame(&mut self, port: PortIdx, now: Instant) -> bool {
        let p = self.counts(port);
        let due = p.first_frame == Instant(0) || now.since(p.first_frame) >= FIRST_FRAMES;
        if due {
            p.first_frame = now;
        }
        due
    }
}
