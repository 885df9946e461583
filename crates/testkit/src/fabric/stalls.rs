//! Guests, switches and the NVA that stand still and go on; guests that reboot, that have two ports, that are defined
//! anew while they start. Whoever lives must be found (R32).
//!
//! A process that stands still hears nothing meanwhile and everything afterwards, in order: its sockets, mailboxes and
//! rings keep it, rings as far as they have room. A hypervisor waits for a switch's answer before it goes on with a
//! guest, and a guest's link tells of no stall.

use std::net::Ipv4Addr;

use godwit_control::Input;
use godwit_model::VmKey;
use godwit_nva::directory::VmDefinition;
use godwit_nva::{Directory, Order};
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use super::invariants::{FOUND, Invariant};
use super::names;
use super::schedule::Announce;
use super::world::{Event, World};

/// How often somebody looks whether all that live are reached.
pub(super) const WATCH: Span = Span::from_ms(250);
/// Changes between two ports.
const HOPS: u32 = 5;

impl World {
    pub fn is_stalled(&self, host: usize) -> bool {
        self.now < self.hosts[host].stalled_until
    }

    pub fn nva_stalls(&self) -> bool {
        self.now < self.nva.stalled_until
    }

    /// What happens to a switch that stands still happens when it goes on.
    pub fn unless_stalled(&mut self, event: Event) -> Option<Event> {
        let host = match &event {
            Event::Mailbox { host, .. }
            | Event::Poll { host, .. }
            | Event::Word { host, .. }
            | Event::Deadline { host }
            | Event::Input { host, .. }
            | Event::PortRx { host, .. }
            | Event::UplinkRx { host, .. }
            | Event::Connect { host }
            | Event::Keepalive { host } => *host,
            Event::ToNve { conn, .. } | Event::NveNotices { conn } => self.conns[*conn].host,
            _ => return Some(event),
        };
        if !self.is_stalled(host) {
            return Some(event);
        }
        let frame = matches!(event, Event::PortRx { .. } | Event::UplinkRx { .. });
        if frame && !self.ring_takes(host) {
            return None;
        }
        self.queue.push(self.hosts[host].stalled_until, event);
        None
    }

    fn stalls(&mut self, until: Instant) {
        self.stats.stalls += 1;
        self.stalls_until = self.stalls_until.max(until);
    }

    pub fn stall_guest(&mut self, vm: usize, span: Span) {
        let until = self.now + span;
        self.guests[vm].stalled_until = self.guests[vm].stalled_until.max(until);
        self.stalls(until);
    }

    pub fn stall_host(&mut self, host: usize, span: Span) {
        if self.is_stalled(host) || self.is_down(host) {
            return;
        }
        let until = self.now + span;
        (self.hosts[host].stalled_until, self.hosts[host].ring) = (until, 0);
        self.stalls(until);
    }

    pub fn stall_nva(&mut self, span: Span) {
        let until = self.now + span;
        if self.nva_stalls() {
            return;
        }
        self.nva.stalled_until = until;
        self.stalls(until);
        self.queue.push(until, Event::Wakes);
    }

    /// The NVA takes what has gathered.
    pub fn wakes(&mut self) {
        if self.nva.is_up() {
            self.nva_works();
        }
    }

    /// The guest is gone with its link, and boots. Not in the midst of a move.
    pub fn reboot_guest(&mut self, vm: usize, down: Span) {
        let guest = &self.guests[vm];
        let Some((host, port)) = guest.at.filter(|_| guest.running && guest.script.is_none()) else { return };
        self.stall_guest(vm, down);
        self.stats.guests_rebooted += 1;
        self.forgets_addresses(vm);
        let others = self.guests[vm].second;
        for port in [Some(port), others].into_iter().flatten() {
            self.note(|| format!("n{host} port {}: the link goes", port.0));
            self.control(host, Input::PortLink { port, up: false });
            let until = self.guests[vm].stalled_until;
            self.queue.push(until, Event::Relink { host, port });
        }
    }

    pub fn relink(&mut self, host: usize, port: PortIdx) {
        if self.hosts[host].ports.contains_key(&port) {
            self.note(|| format!("n{host} port {}: the link is back", port.0));
            self.control(host, Input::PortLink { port, up: true });
        }
    }

    /// A second port for a guest, which it changes to and from. Explicit ports know no such thing.
    pub fn second_port(&mut self, vm: usize, every: Span) {
        let guest = &self.guests[vm];
        let free = guest.running && guest.script.is_none() && guest.second.is_none();
        let Some((host, _)) = guest.at.filter(|_| free && !self.plan.vms[vm].explicit) else { return };
        let port = self.plug(host, vm);
        self.guests[vm].second = Some(port);
        self.after(every, Event::Hop { vm, every, left: HOPS });
    }

    /// The guest changes to its other port. What is sent to it until it says so is lost, so that it stays where it is
    /// once there is no more traffic.
    pub fn hop(&mut self, vm: usize, every: Span, left: u32) {
        if self.now >= self.traffic_until {
            return;
        }
        let guest = &mut self.guests[vm];
        let idle = guest.running && guest.script.is_none() && self.now >= guest.stalled_until;
        let (Some((host, old)), Some(new), true) = (guest.at, guest.second, idle) else { return };
        self.stats.hops += 1;
        let guest = &mut self.guests[vm];
        (guest.at, guest.second) = (Some((host, new)), Some(old));
        self.note(|| format!("guest {vm} changes from port {} to {} at n{host}", old.0, new.0));
        let announce = if self.guests[vm].quiet { Announce::Never } else { Announce::Garp };
        self.guests[vm].announce = announce;
        let span = self.rng.us(1, 500);
        self.after(span, Event::Announce { vm, host, port: new, round: 0 });
        if left > 1 {
            self.after(every, Event::Hop { vm, every, left: left - 1 });
        }
    }

    /// A guest that is to move has one port.
    pub fn drop_second_port(&mut self, vm: usize) {
        if let (Some(port), Some((host, _))) = (self.guests[vm].second.take(), self.guests[vm].at) {
            self.unplug(host, port);
        }
    }

    /// A VM as the operator has it at present.
    pub fn definition(&self, vm: usize) -> VmDefinition {
        let guest = &self.guests[vm];
        let (no_v4, no_v6) = self.plan.tenant(vm).unrecorded;
        let more = guest.defined_more.then(|| Ipv4Addr::new(10, 0, 1, guest.number as u8 + 1));
        VmDefinition {
            name: guest.name.clone(),
            vn: format!("vn{}", guest.vn),
            mac: guest.key.mac,
            ipv4: std::iter::once(names::vm_v4(guest.number)).chain(more).filter(|_| !no_v4).collect(),
            ipv6: std::iter::once(names::vm_v6(guest.number)).filter(|_| !no_v6).collect(),
            router: false,
            pinned: None,
            policy: None,
            allowed: self.allowed(vm),
        }
    }

    /// The operator changes its mind about an address that the guest does not use.
    pub fn redefine(&mut self, directory: &mut Directory, vm: usize) {
        self.guests[vm].defined_more ^= true;
        let order = Order::DefineVm(self.definition(vm));
        match self.nva_obeys(directory, order) {
            Ok(_) => self.stats.redefined += 1,
            // It moves at present.
            Err(why) => {
                self.guests[vm].defined_more ^= true;
                self.note(|| format!("guest {vm} is not redefined: {why}"));
            }
        }
    }

    /// Whoever lives is delivered to, or has not been for a short time only.
    pub fn watch(&mut self) {
        self.after(WATCH, Event::Watch);
        self.watch_owners();
        for vm in 0..self.guests.len() {
            let missed = self.is_missed(vm);
            let now = self.now;
            let guest = &mut self.guests[vm];
            guest.missed_since = if missed { guest.missed_since.or(Some(now)) } else { None };
            let since = guest.missed_since.map_or(Span(0), |at| now.since(at));
            if since > FOUND {
                let text = format!("{} lives at {:?} and is not delivered to", guest.key, guest.at);
                return self.fail(Invariant::Found, text);
            }
        }
    }

    /// It runs behind a port with a link, its switch and the NVA are there, nobody else has it, and nothing that is for
    /// it comes to it.
    fn is_missed(&self, vm: usize) -> bool {
        let guest = &self.guests[vm];
        let Some((host, port)) = guest.at.filter(|_| guest.running && guest.script.is_none()) else {
            return false;
        };
        let h = &self.hosts[host];
        let stands = self.now < guest.stalled_until || self.is_stalled(host) || self.nva_stalls();
        let cut = h.conn.is_none_or(|conn| self.conns[conn].cut) || !h.nve.nva().connected;
        if stands || cut || self.is_down(host) || !h.ports.contains_key(&port) {
            return false;
        }
        let record = self.nva.settled().and_then(|d| d.vm(guest.key));
        let owner = record.and_then(|r| r.active_nve());
        if owner.is_some_and(|nve| *nve != names::nve(host)) {
            return false;
        }
        let macs = || self.macs_of(vm).filter(|mac| *mac != names::VIRTUAL_MAC);
        h.workers.iter().any(|w| macs().any(|mac| w.delivers(VmKey { mac, ..guest.key }) != Some(port)))
    }
}
