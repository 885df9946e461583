//! What holds of addresses that VMs have by their own word (R92 to R94).
//!
//! * [`Invariant::Owner`]: an address leads to one VM of its VN at most, a virtual one only to a VM that is allowed it,
//!   and to the one that announced it last: within [`TAKEN`] where nothing fails, within [`FOUND`] of the last obstacle
//!   elsewhere. No frame for it comes to two VMs. A VM binds as many addresses as it may.
//! * [`Invariant::Keeps`]: an address that a VM learned and uses is not taken from it while it lives and its switch and
//!   the NVA do, whatever others send from it, and wherever it moves.
//! * [`Invariant::Spoofed`]: no frame comes from an address that its sender may not have, or that another VM has been
//!   known to have for [`KNOWN`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::{GATEWAY_MAC, MAX_BOUND, Version, VmRecord};
use godwit_tables::update::{PortIdx, SourceRule, SourceRules, Update, VmState};
use godwit_wire::{Instant, Mac, Span};

use super::addresses::Purpose;
use super::invariants::{FOUND, Invariant};
use super::names;
use super::routing;
use super::schedule::{Class, Sabotage, Side};
use super::world::World;

/// So soon a virtual address is where it was announced (R92).
const TAKEN: Span = Span::from_ms(1000);
/// What the directory has for so long, all switches know that have their sessions.
const KNOWN: Span = Span::from_ms(1000);
/// A VM that lives has answered whoever looked for its addresses within this time.
const ANSWERED: Span = Span::from_ms(1200);
/// A frame that is on its way for longer is lost: no guest is paused for so long.
const UNDER_WAY: Span = Span::from_ms(1500);
/// Addresses of a family that a VM binds by itself where nobody says how many.
const ROOM: usize = 8;

/// Who has which address, by the directory.
#[derive(Default)]
pub(super) struct Holders {
    /// By VN: the VM, and since when.
    now: BTreeMap<(usize, IpAddr), (usize, Instant)>,
    /// The records that this is of.
    versions: Vec<Version>,
    /// Every binding that anybody was told of.
    ever: BTreeSet<(usize, IpAddr, Mac)>,
}

impl Holders {
    /// Somebody is told of a VM.
    pub fn told(&mut self, vn: usize, record: &VmRecord) {
        self.ever.extend(record.bound.ips.iter().map(|b| (vn, b.ip, b.mac)));
    }
}

/// What broken switches let pass.
pub(super) fn broken(by: Option<Sabotage>, update: Update) -> Option<Update> {
    match (by, update) {
        (Some(Sabotage::UnboundSources), Update::SourceRulesSet { port, .. }) => {
            let any = SourceRule::Any;
            let rules = SourceRules { v4: any, v6: any, link_local: any };
            Some(Update::SourceRulesSet { port, rules })
        }
        (Some(Sabotage::NestedNotForwarded), Update::VmSet { key, state: VmState::Departed { .. } }) => {
            (key.mac().0[3] == 0).then_some(update)
        }
        (Some(by), update) => routing::broken(by, update),
        (None, update) => Some(update),
    }
}

impl World {
    /// The VM may have the address for all that the operator said.
    fn may_use(&self, vm: usize, ip: IpAddr) -> bool {
        let (tenant, number) = (self.plan.tenant(vm), self.guests[vm].number);
        let unrecorded = if ip.is_ipv4() { tenant.unrecorded.0 } else { tenant.unrecorded.1 };
        let own = names::number_of(ip) == Some(number);
        let shared = tenant.shares && ip == names::virtual_ip(ip.is_ipv6());
        let learns = unrecorded || tenant.room.is_some() || ip == names::link_local(number);
        // A port has room for what the MACs within its VM bind, and so for a moment for the VM itself.
        own || shared || learns || tenant.nested > 0
    }

    /// It is not the VM's to use, and its switch should know: it has the VM's record, which it has not where it started
    /// while there was no NVA.
    pub fn is_anothers(&self, vm: usize, ip: IpAddr) -> bool {
        let guest = &self.guests[vm];
        let knows = |host: usize| self.hosts[host].nve.version(guest.key) > Version::ZERO;
        guest.at.is_some_and(|(host, _)| knows(host)) && (!self.may_use(vm, ip) || self.has_rival(vm, ip))
    }

    /// The directory has it at another VM, and the sender's switch should know.
    fn has_rival(&self, vm: usize, ip: IpAddr) -> bool {
        let guest = &self.guests[vm];
        let Some((host, _)) = guest.at else { return false };
        let knows = !self.plan.pulls[host].contains(&guest.vn) && self.is_online(host, KNOWN);
        let Some(directory) = self.nva.settled().filter(|_| knows) else { return false };
        let Some((holder, since)) = self.words.holders.now.get(&(guest.vn, ip)).copied() else {
            return false;
        };
        let record = directory.vm(self.guests[holder].key);
        let is_there = record.is_some_and(|r| r.is_active() && r.moving.is_none());
        let other = &self.guests[holder];
        let stays = other.script.is_none() && self.now.since(other.runs_since) > KNOWN;
        holder != vm && is_there && stays && self.now.since(since) > KNOWN
    }

    /// The switch and the NVA have talked to each other for so long, and nobody has stood still.
    fn is_online(&self, host: usize, span: Span) -> bool {
        let h = &self.hosts[host];
        let stood = h.stalled_until.max(self.nva.stalled_until);
        let session = h.conn.map(|conn| &self.conns[conn]).filter(|c| !c.cut);
        let long = session.is_some_and(|c| self.now.since(c.since) > span);
        long && h.nve.nva().connected && !self.is_down(host) && self.now.since(stood) > span
    }

    /// The directory has it as the VM's, and has said so to everybody.
    pub fn is_known(&self, vm: usize, ip: IpAddr) -> bool {
        let recorded = match self.plan.tenant(vm).unrecorded {
            (v4, _) if ip.is_ipv4() => !v4,
            (_, v6) => !v6,
        };
        let told = self.plan.class != Class::Frozen;
        let bound = self.words.holders.now.get(&(self.guests[vm].vn, ip));
        let has = |(holder, since): &(usize, Instant)| *holder == vm && self.now.since(*since) > KNOWN;
        recorded || told && bound.is_some_and(has)
    }

    // ---- At every event ----

    /// Somebody tells a VM that an address is at a MAC.
    pub fn check_told(&mut self, at: (usize, PortIdx), vm: usize, frame: &[u8]) {
        let Some((ip, mac, to_all)) = names::told_of(frame) else { return };
        let vn = self.guests[vm].vn;
        let of = names::number_of(ip)
            .and_then(|number| self.guests.iter().position(|g| g.vn == vn && g.number == number));
        let owns = of.is_some_and(|of| self.guests[of].key.mac == mac && self.is_or_was_its(of, ip, mac));
        let nested = self.nested_at(vn, ip) == Some(mac);
        self.check_ghost(at, vm, frame);
        let theirs = owns || nested || self.words.holders.ever.contains(&(vn, ip, mac));
        let right = match self.gateway_tells(vn, ip) {
            true => mac == GATEWAY_MAC || theirs && self.has_no_routing(at.0, vm),
            false => theirs,
        };
        if !right {
            let text = format!("n{} told vm {vm} that {ip} has {mac}", at.0);
            return self.fail(Invariant::Destination, text);
        }
        if self.guests[vm].at == Some(at) && ip == names::virtual_ip(ip.is_ipv6()) {
            self.guests[vm].own.heard[usize::from(ip.is_ipv6())] = Some((mac, self.now));
        }
        if !to_all {
            self.words.open.retain(|open| *open != (vm, ip));
            if let Some(number) = names::number_of(ip) {
                self.question_answered(vm, number, ip.is_ipv6());
            }
        }
    }

    /// Recorded, or bound once: a VM is not asked before.
    fn is_or_was_its(&self, vm: usize, ip: IpAddr, mac: Mac) -> bool {
        let (v4, v6) = self.plan.tenant(vm).unrecorded;
        let learned = if ip.is_ipv4() { v4 } else { v6 };
        !learned || self.words.holders.ever.contains(&(self.guests[vm].vn, ip, mac))
    }

    fn nested_at(&self, vn: usize, ip: IpAddr) -> Option<Mac> {
        (0..self.guests.len()).filter(|vm| self.guests[*vm].vn == vn).find_map(|vm| {
            let sides = (0..self.plan.tenant(vm).nested)
                .map(|n| names::side(self.guests[vm].number, Side::Nested(n), ip.is_ipv6()));
            sides.into_iter().find(|(_, its)| *its == ip).map(|(mac, _)| mac)
        })
    }

    /// After a transaction: who has which address now.
    pub fn check_bound(&mut self) {
        let Some(directory) = self.nva.directory.as_ref().filter(|_| self.plan.addresses.is_some()) else {
            return;
        };
        let records: Vec<_> = self.guests.iter().map(|g| directory.vm(g.key)).collect();
        let versions: Vec<Version> = records.iter().map(|r| r.map_or(Version::ZERO, |r| r.version)).collect();
        if versions == self.words.holders.versions {
            return;
        }
        let (mut now, mut wrong) = (BTreeMap::new(), None);
        for (vm, record) in records.iter().enumerate() {
            let Some(record) = record else { continue };
            wrong = wrong.or(self.excess(vm, record));
            for (ip, _) in record.addresses() {
                let place = (self.guests[vm].vn, ip);
                let before = self.words.holders.now.get(&place).filter(|(holder, _)| *holder == vm);
                let since = before.map_or(self.now, |(_, since)| *since);
                if let Some((other, _)) = now.insert(place, (vm, since)) {
                    wrong = wrong.or(Some(format!("{ip} is of vm {other} and of vm {vm}")));
                }
            }
        }
        let lost = |(place, (vm, _)): (&(usize, IpAddr), &(usize, Instant))| {
            let keeps = now.get(place).is_some_and(|(holder, _)| holder == vm);
            (!keeps && self.lives_with(*vm, place.1)).then_some((*vm, *place))
        };
        let taken = self.words.holders.now.iter().find_map(lost);
        if let Some(text) = wrong {
            return self.fail(Invariant::Owner, text);
        }
        if let Some((vm, (_, ip))) = taken {
            let text = format!("vm {vm} lives and uses {ip}, and has lost it");
            return self.fail(Invariant::Keeps, text);
        }
        (self.words.holders.now, self.words.holders.versions) = (now, versions);
    }

    /// What a VM has and may not have.
    fn excess(&self, vm: usize, record: &VmRecord) -> Option<String> {
        let (tenant, bound) = (self.plan.tenant(vm), &record.bound);
        let shared = |b: &&godwit_model::BoundIp| b.is_virtual;
        let stolen = bound.ips.iter().filter(shared).find(|b| {
            let virtual_ip = b.ip == names::virtual_ip(b.ip.is_ipv6());
            !tenant.shares || !virtual_ip
        });
        if let Some(b) = stolen {
            return Some(format!("vm {vm} has the virtual address {} and is not allowed it", b.ip));
        }
        if bound.macs.iter().any(|mac| !tenant.shares || Some(*mac) != self.virtual_mac()) {
            return Some(format!("vm {vm} has {:?} and is not allowed them", bound.macs));
        }
        let kind = |ip: IpAddr| (ip.is_ipv4(), matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local()));
        for b in bound.ips.iter().filter(|b| !b.is_virtual) {
            let alike = |o: &&godwit_model::BoundIp| (o.mac, kind(o.ip)) == (b.mac, kind(b.ip));
            let count = bound.ips.iter().filter(|o| !o.is_virtual).filter(alike).count();
            let own = b.mac == record.key.mac && !kind(b.ip).1;
            let unrecorded = if b.ip.is_ipv4() { tenant.unrecorded.0 } else { tenant.unrecorded.1 };
            let default = if own && !unrecorded { 0 } else { ROOM };
            let room = tenant.room.map_or(default, usize::from);
            if count > room {
                return Some(format!("vm {vm} has bound {count} addresses like {}, not {room}", b.ip));
            }
        }
        (bound.ips.len() > MAX_BOUND).then(|| format!("vm {vm} has bound {}", bound.ips.len()))
    }

    /// The VM uses a learned address, and whoever asked for it has been answered.
    fn lives_with(&self, vm: usize, ip: IpAddr) -> bool {
        let (guest, tenant) = (&self.guests[vm], self.plan.tenant(vm));
        let Some((host, port)) = guest.at.filter(|_| guest.running && guest.second.is_none()) else {
            return false;
        };
        let shared = tenant.shares && ip == names::virtual_ip(ip.is_ipv6());
        if shared || guest.script.is_some() || self.answers_by(vm, ip).is_none() {
            return false;
        }
        let used = guest.own.uses.get(&ip).copied().unwrap_or(Instant(0));
        let awake = guest.runs_since.max(guest.silent_until).max(guest.stalled_until).max(used);
        let there = self.hosts[host].ports.contains_key(&port) && self.is_online(host, ANSWERED);
        there && self.now.since(awake) > ANSWERED
    }

    /// Whoever announced a virtual address last has it, or has not had it for a short time only.
    pub fn watch_owners(&mut self) {
        for vn in 0..self.words.reigns.len() {
            let Some((since, vm)) = self.words.reigns[vn].last().copied() else { continue };
            let missed = self.lacks_virtual(vm);
            let first = self.words.missed_since[vn].filter(|at| *at >= since).unwrap_or(self.now);
            self.words.missed_since[vn] = missed.then_some(first);
            let limit = if self.plan.class == Class::Planned { TAKEN } else { FOUND };
            if missed && self.now.since(first) > limit {
                let text = format!("vm {vm} announced the virtual address last and does not have it");
                return self.fail(Invariant::Owner, text);
            }
        }
    }

    /// It is the master, nothing is in its way, and the directory has somebody else.
    fn lacks_virtual(&self, vm: usize) -> bool {
        let guest = &self.guests[vm];
        let Some((host, _)) = guest.at.filter(|_| guest.own.master && guest.script.is_none()) else {
            return false;
        };
        let alone = self.guests.iter().filter(|g| g.vn == guest.vn && g.own.master).count() == 1;
        if !alone || !guest.can_speak(self.now) || !self.is_online(host, Span(0)) || self.nva_stalls() {
            return false;
        }
        let Some(record) = self.nva.settled().and_then(|d| d.vm(guest.key)) else { return false };
        record.is_at(&names::nve(host)) && !self.has_virtual(record)
    }

    fn has_virtual(&self, record: &VmRecord) -> bool {
        let mac = self.virtual_mac().unwrap_or(record.key.mac);
        let ips = [false, true].iter().all(|v6| record.mac_of(names::virtual_ip(*v6)) == Some(mac));
        ips && record.macs().any(|its| its == mac)
    }

    // ---- At the end ----

    /// Why addresses have not come to rest.
    pub fn unrest_of_addresses(&self) -> Option<String> {
        let plan = self.plan.addresses.as_ref().filter(|_| self.now >= self.start)?;
        if self.words.pending > 0 || self.now < self.words.busy_until {
            return Some("a virtual address is on its way".into());
        }
        let directory = self.nva.directory.as_ref()?;
        for reigns in &self.words.reigns {
            let Some((_, vm)) = reigns.last().copied() else { continue };
            let record = directory.vm(self.guests[vm].key)?;
            if !self.guests[vm].own.master || !self.has_virtual(record) {
                return Some(format!(
                    "vm {vm} announced the virtual address last; it has {:?}",
                    record.bound
                ));
            }
        }
        for u in plan.uses.iter().filter(|u| u.until.is_none()) {
            let record = directory.vm(self.guests[u.vm].key)?;
            if record.mac_of(u.ip).is_none() {
                return Some(format!("vm {} uses {} and has {:?}", u.vm, u.ip, record.bound));
            }
        }
        None
    }

    /// The MACs whose frames are the guest's, by what it is and does.
    pub fn macs_of(&self, vm: usize) -> impl Iterator<Item = Mac> {
        let guest = &self.guests[vm];
        let number = guest.number;
        let nested =
            (0..self.plan.tenant(vm).nested).map(move |n| names::side(number, Side::Nested(n), false).0);
        let shared = self.virtual_mac().filter(|_| guest.own.master);
        std::iter::once(guest.key.mac).chain(nested).chain(shared)
    }

    /// Frames for virtual addresses came to their owners, and who asked was told.
    pub fn check_words(&mut self) {
        if let Some((vm, ip)) = self.words.open.first() {
            let text = format!("vm {vm} asked for {ip} at the end: no answer");
            return self.fail(Invariant::NoLoss, text);
        }
        for n in 0..self.words.all.len() {
            let word = &self.words.all[n];
            let Some(owner) = self.owner_promised(n) else { continue };
            if word.got != Some(owner) {
                let text = format!(
                    "frame {n} of vm {}, sent at {} ms for the virtual address of vm {owner}, came to {:?}",
                    word.from,
                    word.at.0.saturating_sub(1_000_000_000) / 1_000_000,
                    word.got
                );
                return self.fail(Invariant::NoLoss, text);
            }
        }
    }

    /// The VM that must have got the frame: the one that had the virtual address long before it was sent and long
    /// after.
    fn owner_promised(&self, n: usize) -> Option<usize> {
        let word = &self.words.all[n];
        let reigns = &self.words.reigns[self.guests[word.from].vn];
        match word.purpose {
            Purpose::Probe => reigns.last().map(|r| r.1),
            Purpose::Call { fresh: true } if self.plan.class == Class::Planned => {
                let (at, owner) = reigns.iter().rev().find(|r| r.0 <= word.at)?;
                let next = reigns.iter().find(|r| r.0 > word.at).map_or(Instant::NEVER, |r| r.0);
                let stays = word.at.since(*at) > TAKEN && next.since(word.at) > UNDER_WAY;
                stays.then_some(*owner)
            }
            _ => None,
        }
    }
}
