//! What guests do by their own word: masters of virtual addresses (R92), addresses that no record lists (R93), and
//! those who want to reach them.
//!
//! A master announces the virtual address of its VN, and answers who asks for it. Another one becomes the master at any
//! time, wherever it runs; the former one goes on for a while, as one that is paused, stands still or hears nothing
//! does, and the new one says once more that it is the master when the former has heard of it, as VRRP has it. A VM
//! that dies is no master afterwards, and another one of its VN is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::{Allowed, Learning, LearningOf};
use godwit_pipeline::mem::MemPacket;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Mac, Prefix, Span};

use super::bound::Holders;
use super::draw::FROZEN;
use super::invariants::Invariant;
use super::names::{self, Tag};
use super::schedule::{AddressPlan, Class, Sabotage, Schedule, Side};
use super::traffic::{CHATTER, ROUNDS};
use super::world::{Event, World};
use crate::frames::{self, Nd};

/// The flow of frames that are told apart by their number alone.
pub(super) const WORD: u16 = u16::MAX;
/// Who cannot speak now tries again.
const AGAIN: Span = Span::from_ms(20);
/// Everybody has heard of a master's last announcement.
const HEARD: Span = Span::from_ms(100);

/// What a guest has by its own word.
#[derive(Default)]
pub(super) struct Own {
    /// It is the master of its VN's virtual address, for all that it knows.
    pub master: bool,
    /// Counts the times that it became that.
    reign: u32,
    /// Counts the series of its announcements.
    turn: u32,
    /// Where it believes the virtual addresses to be, IPv4 and IPv6, and since when.
    pub heard: [Option<(Mac, Instant)>; 2],
    /// Addresses that it uses, since when.
    pub uses: BTreeMap<IpAddr, Instant>,
}

/// Why a frame was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To reach the virtual address. `fresh`: the sender was told of its last owner, or was there all the time.
    Call { fresh: bool },
    /// The same, when all is quiet.
    Probe,
    /// To another VM, from an address that is the sender's by its own word at most. `rival`: another VM has it, or the
    /// sender may never have it; so nobody may get the frame.
    Use { to: usize, rival: bool },
}

/// A frame that is not of a flow.
pub(super) struct Word {
    pub from: usize,
    pub at: Instant,
    pub purpose: Purpose,
    frame: Vec<u8>,
    /// The VM that got it.
    pub got: Option<usize>,
}

/// All of it, and who has which address.
#[derive(Default)]
pub(super) struct Words {
    /// Changes of masters that are on their way.
    pub pending: usize,
    /// The last announcement of somebody who announces a few times only is heard by then.
    pub busy_until: Instant,
    /// By VN: who announced the virtual address, and since when nobody else did.
    pub reigns: Vec<Vec<(Instant, usize)>>,
    /// By VN: since when the one who announced it last does not have it.
    pub missed_since: Vec<Option<Instant>>,
    pub all: Vec<Word>,
    pub holders: Holders,
    /// Questions at the end: who, for which address.
    pub open: Vec<(usize, IpAddr)>,
}

impl Words {
    pub fn new(plan: &Schedule) -> Words {
        Words { reigns: vec![Vec::new(); plan.vns], missed_since: vec![None; plan.vns], ..Words::default() }
    }
}

impl World {
    fn addresses(&self) -> Option<&AddressPlan> {
        self.plan.addresses.as_ref()
    }

    /// What the operator lets a VM have.
    pub fn allowed(&self, vm: usize) -> Allowed {
        let (tenant, number) = (self.plan.tenant(vm), self.guests[vm].number);
        let learning = tenant.room.map(Learning::Learned);
        let mut allowed =
            Allowed { learning: LearningOf { v4: learning, v6: learning }, ..Allowed::default() };
        let families = [false, true];
        let to_all = self.addresses().is_some() && self.sabotaged(Sabotage::SharedByAll);
        if tenant.shares || to_all {
            allowed.virtual_ips = families.map(|v6| Prefix::host(names::virtual_ip(v6))).to_vec();
            allowed.virtual_macs = self.virtual_mac().into_iter().collect();
        }
        if tenant.routes {
            allowed.routes = families.map(|v6| names::routed(number, v6)).to_vec();
        }
        allowed.nested = (0..tenant.nested).map(|n| names::side(number, Side::Nested(n), false).0).collect();
        allowed
    }

    /// The virtual MAC, where there is one.
    pub fn virtual_mac(&self) -> Option<Mac> {
        self.addresses().filter(|a| a.virtual_mac).map(|_| names::VIRTUAL_MAC)
    }

    /// The MAC by which a guest answers for an address, if it does.
    pub fn answers_by(&self, vm: usize, ip: IpAddr) -> Option<Mac> {
        let (guest, tenant) = (&self.guests[vm], self.plan.tenant(vm));
        let virtual_ip = ip == names::virtual_ip(ip.is_ipv6());
        if virtual_ip && guest.own.master {
            return Some(self.virtual_mac().unwrap_or(guest.key.mac));
        }
        if names::number_of(ip) == Some(guest.number) || guest.own.uses.contains_key(&ip) {
            return Some(guest.key.mac);
        }
        let nested = (0..tenant.nested).map(|n| names::side(guest.number, Side::Nested(n), ip.is_ipv6()));
        nested.into_iter().find(|(_, its)| *its == ip).map(|(mac, _)| mac)
    }

    /// With traffic begins what VMs do by their own word.
    pub fn begin_addresses(&mut self) {
        let Some(plan) = self.addresses().cloned() else { return };
        for t in &plan.takeovers {
            self.words.pending += 1;
            self.after(t.at, Event::TakeOver { vm: t.vm, lag: t.lag });
        }
        for (n, u) in plan.uses.iter().enumerate() {
            self.after(u.at, Event::Use(n));
        }
        if !plan.takeovers.is_empty() {
            self.after(CHATTER, Event::Call);
        }
    }

    // ---- Virtual addresses ----

    fn master_of(&self, vn: usize) -> Option<usize> {
        self.guests.iter().position(|g| g.vn == vn && g.own.master)
    }

    pub fn take_over(&mut self, vm: usize, lag: Span) {
        if !self.guests[vm].can_speak(self.now) {
            return self.after(AGAIN, Event::TakeOver { vm, lag });
        }
        self.words.pending -= 1;
        let vn = self.guests[vm].vn;
        for other in 0..self.guests.len() {
            let guest = &self.guests[other];
            if guest.vn == vn && guest.own.master && other != vm {
                let reign = guest.own.reign;
                self.words.pending += 1;
                self.after(lag, Event::StepDown { vm: other, reign });
            }
        }
        self.note(|| format!("guest {vm} becomes the master"));
        self.stats.takeovers += 1;
        let own = &mut self.guests[vm].own;
        (own.master, own.reign) = (true, own.reign + 1);
        self.begin_to_proclaim(vm);
    }

    /// A former master hears that there is another one, which says so again.
    pub fn step_down(&mut self, vm: usize, reign: u32) {
        let own = &self.guests[vm].own;
        if own.master && own.reign == reign {
            if !self.guests[vm].can_speak(self.now) {
                return self.after(AGAIN, Event::StepDown { vm, reign });
            }
            self.note(|| format!("guest {vm} is not the master any more"));
            self.guests[vm].own.master = false;
        }
        self.words.pending -= 1;
        if let Some(master) = self.master_of(self.guests[vm].vn) {
            self.begin_to_proclaim(master);
        }
    }

    fn begin_to_proclaim(&mut self, vm: usize) {
        let own = &mut self.guests[vm].own;
        own.turn += 1;
        let turn = own.turn;
        self.proclaim(vm, turn, 0);
    }

    /// A master announces the address in both families.
    pub fn proclaim(&mut self, vm: usize, turn: u32, round: u32) {
        let guest = &self.guests[vm];
        if !guest.own.master || guest.own.turn != turn {
            return;
        }
        let again = round < ROUNDS.len() as u32;
        if again {
            self.words.busy_until = self.words.busy_until.max(self.now + CHATTER + HEARD);
        }
        if !self.guests[vm].can_speak(self.now) {
            return self.after(AGAIN, Event::Proclaim { vm, turn, round });
        }
        self.announce_ip(vm, self.virtual_mac(), names::virtual_ip(false));
        self.announce_ip(vm, self.virtual_mac(), names::virtual_ip(true));
        let (vn, now) = (self.guests[vm].vn, self.now);
        let reigns = &mut self.words.reigns[vn];
        if reigns.last().is_none_or(|r| r.1 != vm) {
            reigns.push((now, vm));
        }
        if again || self.addresses().is_some_and(|a| a.refresh) {
            let gap = ROUNDS.get(round as usize).copied().unwrap_or(CHATTER);
            self.after(gap, Event::Proclaim { vm, turn, round: round + 1 });
        }
    }

    /// By gratuitous ARP or an unsolicited advertisement.
    fn announce_ip(&mut self, vm: usize, mac: Option<Mac>, ip: IpAddr) {
        let mac = mac.unwrap_or(self.guests[vm].key.mac);
        let frame = match ip {
            IpAddr::V4(ip) => frames::garp(mac, ip),
            IpAddr::V6(ip) => Nd::announce(mac, ip).frame(),
        };
        self.note(|| format!("guest {vm} announces {ip} at {mac}"));
        let worker = self.rng.index(2);
        self.guest_puts(vm, worker, MemPacket::new(&frame));
    }

    /// The guest dies or boots: it uses nothing, and another one is to be the master.
    pub fn forgets_addresses(&mut self, vm: usize) {
        let own = std::mem::take(&mut self.guests[vm].own);
        self.guests[vm].own.reign = own.reign + 1;
        self.guests[vm].own.turn = own.turn + 1;
        if !own.master {
            return;
        }
        let vn = self.guests[vm].vn;
        let heir = (1..self.guests.len())
            .map(|n| (vm + n) % self.guests.len())
            .find(|heir| self.guests[*heir].vn == vn && self.plan.tenant(*heir).shares);
        if let Some(heir) = heir {
            self.words.pending += 1;
            let span = self.rng.ms(10, 1000);
            self.after(span, Event::TakeOver { vm: heir, lag: Span(0) });
        }
    }

    /// Somebody who is no master wants to reach the virtual address of its VN.
    pub fn call(&mut self) {
        if self.now >= self.traffic_until {
            return;
        }
        let gap = self.rng.ms(5, 25);
        self.after(gap, Event::Call);
        let (vm, v6) = (self.rng.index(self.guests.len()), self.rng.chance(500));
        let guest = &self.guests[vm];
        let Some((since, _)) = self.words.reigns[guest.vn].last().copied() else { return };
        if guest.own.master || !guest.can_speak(self.now) || guest.script.is_some() || self.hears_nothing(vm)
        {
            return;
        }
        let heard = guest.own.heard[usize::from(v6)];
        // One that stays is told of each change.
        let asks = self.guests[vm].has_moved && self.rng.chance(150);
        let guest = &self.guests[vm];
        match heard {
            Some((mac, heard)) if !asks => {
                let stays = !guest.has_moved && !self.pulls(vm);
                let fresh = stays || heard >= since;
                self.call_at(vm, mac, v6, Purpose::Call { fresh });
            }
            _ => self.ask_for(vm, names::virtual_ip(v6)),
        }
    }

    /// Its switch knows only what it asked for of late.
    fn pulls(&self, vm: usize) -> bool {
        let guest = &self.guests[vm];
        guest.at.is_some_and(|(host, _)| self.plan.pulls[host].contains(&guest.vn))
    }

    fn call_at(&mut self, vm: usize, mac: Mac, v6: bool, purpose: Purpose) {
        let from = names::side(self.guests[vm].number, Side::Own, v6);
        self.put_word(vm, purpose, from, (mac, names::virtual_ip(v6)));
    }

    fn ask_for(&mut self, vm: usize, ip: IpAddr) {
        let guest = &self.guests[vm];
        let (mac, number) = (guest.key.mac, guest.number);
        let frame = match ip {
            IpAddr::V4(ip) => frames::arp_request(mac, names::vm_v4(number), ip),
            IpAddr::V6(ip) => Nd::solicit(mac, names::vm_v6(number), ip).frame(),
        };
        self.guest_puts(vm, 0, MemPacket::new(&frame));
    }

    // ---- Addresses that are used ----

    pub fn use_address(&mut self, n: usize) {
        let Some(plan) = self.addresses().and_then(|a| a.uses.get(n)).copied() else { return };
        if plan.until.is_some_and(|until| self.now > (self.start + until).min(self.traffic_until)) {
            self.guests[plan.vm].own.uses.remove(&plan.ip);
            return;
        }
        let gap = Span(self.rng.between(plan.every.0 / 2, plan.every.0 * 3 / 2));
        self.after(gap, Event::Use(n));
        if self.guests[plan.vm].can_speak(self.now) {
            self.guests[plan.vm].own.uses.entry(plan.ip).or_insert(self.now);
            self.speak_from(plan.vm, plan.ip);
        }
    }

    /// A frame to another VM, an announcement, or a question whether anybody has it.
    fn speak_from(&mut self, vm: usize, ip: IpAddr) {
        let mac = self.guests[vm].key.mac;
        let kind = if self.hears_nothing(vm) { 0 } else { self.rng.below(4) };
        match kind {
            0 => self.announce_ip(vm, None, ip),
            1 => {
                let frame = match ip {
                    IpAddr::V4(ip) => frames::arp_probe(mac, ip),
                    IpAddr::V6(ip) => Nd::dad(mac, ip).frame(),
                };
                self.guest_puts(vm, 0, MemPacket::new(&frame));
            }
            _ => {
                let vn = self.guests[vm].vn;
                let peers: Vec<usize> =
                    (0..self.guests.len()).filter(|p| *p != vm && self.guests[*p].vn == vn).collect();
                let to = self.rng.pick(&peers);
                let rival = self.is_anothers(vm, ip);
                self.stats.words_of_others += u64::from(rival);
                let sink = names::side(self.guests[to].number, Side::Own, ip.is_ipv6());
                self.put_word(vm, Purpose::Use { to, rival }, (mac, ip), sink);
            }
        }
    }

    /// What a VM sends now and then to one that has moved goes to where that was, where its switch hears nothing: the
    /// switch there forwards for longer than it would for a flow.
    fn hears_nothing(&self, vm: usize) -> bool {
        self.plan.class == Class::Frozen && self.guests[vm].at.is_some_and(|(host, _)| host == FROZEN)
    }

    // ---- Their frames ----

    fn put_word(&mut self, vm: usize, purpose: Purpose, from: (Mac, IpAddr), to: (Mac, IpAddr)) {
        let number = self.words.all.len();
        let tag = Tag { flow: WORD, seq: number as u32 };
        let frame = frames::udp_frame((from.0, from.1, 5000), (to.0, to.1, 6000), &tag.bytes());
        self.note(|| format!("guest {vm} sends {tag:?} from {} to {}: {purpose:?}", from.1, to.1));
        self.guest_puts(vm, number, MemPacket::new(&frame));
        self.stats.words += 1;
        self.words.all.push(Word { from: vm, at: self.now, purpose, frame, got: None });
    }

    pub fn word_received(&mut self, vm: usize, at: (usize, PortIdx), tag: Tag, frame: &[u8]) {
        let Some(word) = self.words.all.get(tag.seq as usize) else { return };
        let (from, purpose, got) = (word.from, word.purpose, word.got);
        if word.frame != frame {
            return self.fail(Invariant::Intact, format!("{tag:?} came changed to vm {vm}"));
        }
        if self.guests[from].vn != self.guests[vm].vn {
            return self.fail(Invariant::Isolation, format!("{tag:?} of vm {from} came to vm {vm}"));
        }
        let right = match purpose {
            Purpose::Use { to, .. } => to == vm,
            _ => {
                self.plan.tenant(vm).shares && {
                    let own = frame.first_chunk() == Some(&self.guests[vm].key.mac.0);
                    own || self.virtual_mac().is_some()
                }
            }
        };
        if !right {
            return self.fail(Invariant::Destination, format!("{tag:?}, {purpose:?}, came to vm {vm}"));
        }
        if self.guests[vm].at != Some(at) {
            self.stats.frames_at_dead_ports += 1;
            return;
        }
        if let Purpose::Use { rival: true, .. } = purpose {
            let text = format!("{tag:?} from an address that is not vm {from}'s came to vm {vm}");
            return self.fail(Invariant::Spoofed, text);
        }
        if let Some(first) = got.filter(|first| *first != vm) {
            let text = format!("{tag:?} for the virtual address came to vm {first} and to vm {vm}");
            return self.fail(Invariant::Owner, text);
        }
        self.stats.words_received += 1;
        self.words.all[tag.seq as usize].got = Some(vm);
    }

    // ---- When all is quiet ----

    /// Everybody asks for virtual addresses, and somebody for each learned one.
    pub fn probe_addresses(&mut self) {
        let Some(plan) = self.addresses().cloned() else { return };
        for vm in 0..self.guests.len() {
            let shared = !self.words.reigns[self.guests[vm].vn].is_empty();
            if shared && !self.guests[vm].own.master {
                self.ask_at_the_end(vm, names::virtual_ip(false));
                self.ask_at_the_end(vm, names::virtual_ip(true));
            }
        }
        for u in plan.uses.iter().filter(|u| u.until.is_none()) {
            let asker =
                (0..self.guests.len()).find(|vm| *vm != u.vm && self.guests[*vm].vn == self.guests[u.vm].vn);
            if let Some(asker) = asker {
                self.ask_at_the_end(asker, u.ip);
            }
        }
    }

    fn ask_at_the_end(&mut self, vm: usize, ip: IpAddr) {
        self.words.open.push((vm, ip));
        self.ask_for(vm, ip);
    }

    /// A frame of everybody for each virtual address.
    pub fn call_at_the_end(&mut self) {
        for (vm, v6) in (0..self.guests.len()).flat_map(|vm| [(vm, false), (vm, true)]) {
            let own = &self.guests[vm].own;
            let shared = !self.words.reigns[self.guests[vm].vn].is_empty();
            if let Some((mac, _)) = own.heard[usize::from(v6)].filter(|_| shared && !own.master) {
                self.call_at(vm, mac, v6, Purpose::Probe);
            }
        }
    }
}
