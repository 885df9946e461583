//! What the VM of a port may send from: addresses, prefixes and MACs (R65, R92–R94).
//!
//! Control says what is set. What the VM uses without that, and may bind by its own word, is remembered as *new* until
//! control sets or removes it: it is used at once, and there is a bound on how much of it there is.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::{Instant, Mac, Prefix, Span};

use crate::OutOfRange;
use crate::sets::Set;
use crate::update::{PrefixKind, SourceRule, SourceRules};

mod lists;
use lists::{List, Prefixes};

/// Addresses of one family that a port is bound to at most: what a record lists and what its VM has bound.
pub const MAX_SOURCES: usize = 64 + 256;
/// MACs of one kind, nested or virtual, that a port has beside its own.
pub const MAX_MACS: usize = 64;
/// Prefixes of one kind, routed or virtual, that a port has.
pub const MAX_PREFIXES: usize = 32;
/// Addresses of a port that are used before control has set them.
pub const MAX_NEW: usize = 64;
/// Addresses that control has refused and that are remembered for [`REFUSED_FOR`]; where there are more, nothing new is
/// taken until that is over.
const MAX_REFUSED: usize = 64;
/// So long an address that control refused is not told again.
pub const REFUSED_FOR: Span = Span::from_ms(5000);
/// Control is told again of what it has not set nor removed, while it is used.
pub const TOLD_AGAIN: Span = Span::from_ms(1000);
/// A new address that has not been used for so long makes room for another one.
const FORGOTTEN: Span = Span::from_ms(30_000);

/// What a burst compares with: the address that frames of a port usually come from, and which bits of it count. Where
/// every source is good none do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usual {
    v4: (u32, u32),
    v6: (u128, u128),
}

impl Usual {
    /// The frame comes from the usual address. `false` says only: look closer.
    #[inline(always)]
    pub fn is_v4(&self, source: u32) -> bool {
        (source ^ self.v4.0) & self.v4.1 == 0
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn is_v6(&self, source: u128) -> bool {
        (source ^ self.v6.0) & self.v6.1 == 0
    }

    /// The usual IPv4 address, where there is one only.
    #[inline]
    pub fn one_v4(&self) -> Option<Ipv4Addr> {
        (self.v4.1 == u32::MAX).then(|| self.v4.0.into())
    }

    /// The same for IPv6.
    #[inline]
    pub fn one_v6(&self) -> Option<Ipv6Addr> {
        (self.v6.1 == u128::MAX).then(|| self.v6.0.into())
    }
}

/// Addresses that have a rule of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, link-local addresses excepted.
    V6,
    /// IPv6 link-local addresses.
    LinkLocal,
}

impl Family {
    /// The family of an address.
    #[inline]
    pub fn of(ip: IpAddr) -> Family {
        match ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(a) if a.is_unicast_link_local() => Family::LinkLocal,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// An address that a VM uses and control has not set yet.
#[derive(Clone, Copy, Debug)]
struct New {
    ip: IpAddr,
    mac: Mac,
    /// It may, since it shares the prefix (R92).
    shared: bool,
    /// Control has not heard yet that it was announced.
    announced: bool,
    /// When control was told; zero where it has not heard.
    told: Instant,
    /// When it was last used, to within [`TOLD_AGAIN`].
    used: Instant,
}

const NOBODY: New = New {
    ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    mac: Mac::ZERO,
    shared: false,
    announced: false,
    told: Instant(0),
    used: Instant(0),
};

/// A virtual MAC of a port, and when control was told that it is used here.
type SharedMac = (Mac, Instant);

/// Something to tell control is due.
fn is_due(told: Instant, now: Instant) -> bool {
    told == Instant(0) || now.since(told) >= TOLD_AGAIN
}

/// What was set for one port.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `None`: never set. Then the first address that is set binds.
    rules: Option<SourceRules>,
    seed: u64,
    v4: Set<u32, 512>,
    v6: Set<u128, 512>,
    /// One of each family, or none: 0.
    first: (u32, u128),
    nested: Set<u64, 128>,
    shared_macs: List<SharedMac, MAX_MACS>,
    routed: Prefixes,
    shared: Prefixes,
    new: List<New, MAX_NEW>,
    refused: List<(IpAddr, Instant), MAX_REFUSED>,
}

impl Sources {
    /// Nothing was set.
    pub(crate) fn new(seed: u64) -> Sources {
        Sources {
            rules: None,
            seed,
            v4: Set::EMPTY,
            v6: Set::EMPTY,
            first: (0, 0),
            nested: Set::EMPTY,
            shared_macs: List::of((Mac::ZERO, Instant(0))),
            routed: Prefixes::NONE,
            shared: Prefixes::NONE,
            new: List::of(NOBODY),
            refused: List::of((NOBODY.ip, Instant(0))),
        }
    }

    /// The rule of a family. Where no rules were set, an address that is set binds both, but for link-local ones.
    #[inline]
    pub fn rule(&self, family: Family) -> SourceRule {
        match (&self.rules, family) {
            (Some(rules), Family::V4) => rules.v4,
            (Some(rules), Family::V6) => rules.v6,
            (Some(rules), Family::LinkLocal) => rules.link_local,
            (None, Family::LinkLocal) => SourceRule::Any,
            (None, _) if self.v4.is_empty() && self.v6.is_empty() => SourceRule::Any,
            (None, _) => SourceRule::Listed { room: 0 },
        }
    }

    /// Rules were set.
    #[inline]
    pub fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// Some addresses are not good.
    pub fn is_bound(&self) -> bool {
        [Family::V4, Family::V6, Family::LinkLocal].iter().any(|&f| self.rule(f) != SourceRule::Any)
    }

    /// What a burst compares with.
    pub(crate) fn usual(&self) -> Usual {
        let any = |family| self.rule(family) == SourceRule::Any;
        let mask = |any: bool| if any { 0 } else { u128::MAX };
        let six = any(Family::V6) && any(Family::LinkLocal);
        Usual { v4: (self.first.0, mask(any(Family::V4)) as u32), v6: (self.first.1, mask(six)) }
    }

    /// Frames may come from more than one MAC and one address of each family. Those from link-local addresses are few.
    pub(crate) fn has_more(&self) -> bool {
        let addresses =
            self.v4.len() > 1 || self.v6.some(|a| a != self.first.1 && !is_link_local(a)).is_some();
        let macs = !self.nested.is_empty() || self.shared_macs.len > 0;
        addresses || macs || self.routed.v4.len + self.routed.v6.len > 0
    }

    /// The address is set.
    #[inline]
    pub fn lists(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => self.v4.contains(a.to_bits(), self.seed),
            IpAddr::V6(a) => self.v6.contains(a.to_bits(), self.seed),
        }
    }

    /// The VM routes for the address (R94).
    #[inline]
    pub fn routes(&self, ip: IpAddr) -> bool {
        self.routed.has(ip)
    }

    /// A data frame may come from this address: it is set, or the VM routes for it.
    #[inline(always)]
    pub fn carries_v4(&self, source: u32) -> bool {
        self.v4.contains(source, self.seed) || self.routed.has_v4(source)
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn carries_v6(&self, source: u128) -> bool {
        self.v6.contains(source, self.seed) || self.routed.has_v6(source)
    }

    /// The VM shares the address with others (R92).
    pub fn shares(&self, ip: IpAddr) -> bool {
        self.shared.has(ip)
    }

    /// The MAC is nested in the VM (R94).
    #[inline]
    pub fn nests(&self, mac: Mac) -> bool {
        self.nested.contains(mac.to_u64(), self.seed)
    }

    /// Whether the MAC is a virtual one of the VM's (R92): whether control is to be told again that it is used.
    #[inline]
    pub fn shares_mac(&self, mac: Mac, now: Instant) -> Option<bool> {
        let found = self.shared_macs.all().iter().find(|(m, _)| *m == mac)?;
        Some(is_due(found.1, now))
    }

    /// No address is shared, and none waits for control.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.new.len == 0 && self.shared.v4.len + self.shared.v6.len == 0
    }

    /// Whether the address is in use already, and waits for control: whether control is to be told again.
    pub fn waits(&self, ip: IpAddr, now: Instant) -> Option<bool> {
        self.new.all().iter().find(|n| n.ip == ip).map(|n| is_due(n.told, now))
    }

    /// Control does not want to hear of the address for now.
    pub fn is_refused(&self, ip: IpAddr, now: Instant) -> bool {
        self.refused.all().iter().any(|(refused, until)| *refused == ip && now < *until)
    }

    /// There is room for `more` new addresses and one beyond them, that `mac` binds by its own word under `rule`, or
    /// under none since it shares them.
    pub fn has_room(
        &self,
        ip: IpAddr,
        mac: Mac,
        rule: Option<SourceRule>,
        more: usize,
        now: Instant,
    ) -> bool {
        let idle = |n: &New| is_forgotten(n, now);
        let all = self.new.all();
        let places = all.iter().filter(|n| !idle(n)).count() + more < MAX_NEW;
        let hears = self.refused.all().iter().filter(|(_, until)| now < *until).count() < MAX_REFUSED;
        let of_rule = match rule {
            None => true,
            Some(SourceRule::Listed { room }) => {
                let same = |n: &&New| counts_with(n, ip, mac) && !idle(n);
                all.iter().filter(same).count() + more < usize::from(room)
            }
            Some(SourceRule::Any | SourceRule::Full) => false,
        };
        places && hears && of_rule
    }

    /// The VM uses an address that is not set, and may: true where control is to be told, [`Sources::heard`] then says
    /// that it was. `announced` becomes true where control has not heard yet that it was announced.
    pub(crate) fn note(
        &mut self,
        ip: IpAddr,
        mac: Mac,
        shared: bool,
        announced: &mut bool,
        now: Instant,
    ) -> bool {
        if let Some(n) = self.new.all_mut().iter_mut().find(|n| n.ip == ip) {
            n.used = now;
            n.announced |= *announced;
            *announced = n.announced;
            return is_due(n.told, now);
        }
        // The one that was not used for longest; if need be of those that stand in its way.
        let crowded = self.new.all().len() == MAX_NEW;
        let idle = |(_, n): &(usize, &New)| is_forgotten(n, now) && (crowded || counts_with(n, ip, mac));
        let oldest = self.new.all().iter().enumerate().filter(idle).min_by_key(|(_, n)| n.used);
        if let Some((at, _)) = oldest {
            self.new.take(at);
        }
        let new = New { ip, mac, shared, announced: *announced, told: Instant(0), used: now };
        self.new.push(new).is_ok()
    }

    /// Control was told of an address.
    pub(crate) fn heard(&mut self, ip: IpAddr, now: Instant) {
        if let Some(n) = self.new.all_mut().iter_mut().find(|n| n.ip == ip) {
            (n.told, n.announced) = (now, false);
        }
    }

    /// Control was told that a virtual MAC is used.
    pub(crate) fn heard_mac(&mut self, mac: Mac, now: Instant) {
        if let Some(found) = self.shared_macs.all_mut().iter_mut().find(|(m, _)| *m == mac) {
            found.1 = now;
        }
    }

    // ---- What control sets ----

    pub(crate) fn set_rules(&mut self, rules: SourceRules) {
        self.rules = Some(rules);
        let room = |ip| match Family::of(ip) {
            Family::V4 => rules.v4,
            Family::V6 => rules.v6,
            Family::LinkLocal => rules.link_local,
        };
        self.new.retain(|kept, n| {
            let before = kept.iter().filter(|k| counts_with(k, n.ip, n.mac)).count();
            n.shared || matches!(room(n.ip), SourceRule::Listed { room } if before < usize::from(room))
        });
    }

    pub(crate) fn add(&mut self, ip: IpAddr) -> Result<(), OutOfRange> {
        match ip {
            IpAddr::V4(a) => self.v4.add(a.to_bits(), MAX_SOURCES, self.seed)?,
            IpAddr::V6(a) => self.v6.add(a.to_bits(), MAX_SOURCES, self.seed)?,
        }
        self.new.retain(|_, n| n.ip != ip);
        self.refused.retain(|_, (refused, _)| *refused != ip);
        self.choose_first(ip);
        Ok(())
    }

    /// The first of each family that is set, rather none of one link only, is what frames are compared with first.
    fn choose_first(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(a) if self.first.0 == 0 => self.first.0 = a.to_bits(),
            IpAddr::V6(a) if is_better(a.to_bits(), self.first.1) => self.first.1 = a.to_bits(),
            _ => {}
        }
    }

    pub(crate) fn remove(&mut self, ip: IpAddr, now: Instant) {
        match ip {
            IpAddr::V4(a) => {
                self.v4.remove(a.to_bits(), self.seed);
                if self.first.0 == a.to_bits() {
                    self.first.0 = self.v4.some(|_| true).unwrap_or(0);
                }
            }
            IpAddr::V6(a) => {
                self.v6.remove(a.to_bits(), self.seed);
                if self.first.1 == a.to_bits() {
                    self.first.1 =
                        self.v6.some(|a| !is_link_local(a)).or(self.v6.some(|_| true)).unwrap_or(0);
                }
            }
        }
        if let Some(at) = self.new.all().iter().position(|n| n.ip == ip) {
            self.new.take(at);
            self.refused.retain(|_, (refused, until)| *refused != ip && now < *until);
            // Where there is no room for it, nothing else that is new is taken meanwhile, and it may be told again.
            let _ = self.refused.push((ip, now + REFUSED_FOR));
        }
    }

    pub(crate) fn add_mac(&mut self, mac: Mac, shared: bool) -> Result<(), OutOfRange> {
        // No frame comes from a group.
        if !mac.is_unicast() {
            return Ok(());
        }
        if !shared {
            self.shared_macs.retain(|_, (m, _)| *m != mac);
            return self.nested.add(mac.to_u64(), MAX_MACS, self.seed);
        }
        self.nested.remove(mac.to_u64(), self.seed);
        if self.shared_macs.all().iter().any(|(m, _)| *m == mac) {
            return Ok(());
        }
        self.shared_macs.push((mac, Instant(0)))
    }

    pub(crate) fn remove_mac(&mut self, mac: Mac) {
        self.nested.remove(mac.to_u64(), self.seed);
        self.shared_macs.retain(|_, (m, _)| *m != mac);
        self.new.retain(|_, n| n.mac != mac);
    }

    pub(crate) fn add_prefix(&mut self, prefix: Prefix, kind: PrefixKind) -> Result<(), OutOfRange> {
        match kind {
            PrefixKind::Routed => self.routed.add(prefix),
            PrefixKind::Shared => self.shared.add(prefix),
        }
    }

    pub(crate) fn remove_prefix(&mut self, prefix: Prefix, kind: PrefixKind) {
        match kind {
            PrefixKind::Routed => self.routed.remove(prefix),
            PrefixKind::Shared => {
                self.shared.remove(prefix);
                let left = &self.shared;
                self.new.retain(|_, n| !n.shared || left.has(n.ip));
            }
        }
    }
}

/// The sources of all ports. A port without any has no place here.
pub(crate) struct Book {
    all: Vec<Sources>,
    free: Vec<u16>,
    seed: u64,
}

impl Book {
    /// No port's place.
    pub(crate) const NONE: u16 = u16::MAX;

    pub(crate) fn new(ports: usize, seed: u64) -> Book {
        // Address space only: a place is written when a port needs it.
        Book { all: Vec::with_capacity(ports), free: Vec::with_capacity(ports), seed }
    }

    #[inline]
    pub(crate) fn get(&self, place: u16) -> Option<&Sources> {
        self.all.get(usize::from(place))
    }

    pub(crate) fn get_mut(&mut self, place: u16) -> Option<&mut Sources> {
        self.all.get_mut(usize::from(place))
    }

    /// The place of a port that may have none yet.
    pub(crate) fn open(&mut self, place: &mut u16) -> Result<&mut Sources, OutOfRange> {
        if *place == Book::NONE {
            // There are as many places as ports, all of them reserved.
            *place = match self.free.pop() {
                Some(place) => place,
                None => {
                    self.all.push(Sources::new(self.seed));
                    (self.all.len() - 1) as u16
                }
            };
        }
        self.all.get_mut(usize::from(*place)).ok_or(OutOfRange)
    }

    /// Gives a port's place back.
    pub(crate) fn close(&mut self, place: &mut u16) {
        let place = core::mem::replace(place, Book::NONE);
        if let Some(sources) = self.all.get_mut(usize::from(place)) {
            *sources = Sources::new(self.seed);
            self.free.push(place);
        }
    }
}

/// It has not been used for long.
fn is_forgotten(n: &New, now: Instant) -> bool {
    now.since(n.used) >= FORGOTTEN
}

/// It takes the room that the MAC has for the address's family.
fn counts_with(n: &New, ip: IpAddr, mac: Mac) -> bool {
    !n.shared && n.mac == mac && Family::of(n.ip) == Family::of(ip)
}

fn is_link_local(a: u128) -> bool {
    Ipv6Addr::from_bits(a).is_unicast_link_local()
}

fn is_better(new: u128, old: u128) -> bool {
    old == 0 || is_link_local(old) && !is_link_local(new)
}

#[cfg(test)]
mod tests;
