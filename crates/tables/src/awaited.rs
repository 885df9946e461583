//! Packets to be routed to an address that the directory is being asked for (R35, R58). They wait in the hold memory,
//! in their order, until the address has a host route, is known to be nobody's, or they have waited long enough.

use core::net::IpAddr;

use godwit_wire::{Instant, Prefix};

use crate::holds::{About, Queue};
use crate::neighbors::Neighbor;
use crate::update::{DomainIdx, NextHop, PortIdx, VnIdx};
use crate::{DropReason, Tables, TablesConfig};

/// An address without a host route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The routing domain.
    pub domain: DomainIdx,
    /// The VN whose subnet it is in.
    pub vn: VnIdx,
    /// The address.
    pub ip: IpAddr,
}

/// What becomes of the packets that wait for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// They wait.
    Waits,
    /// The first one is looked up again.
    Goes,
    /// The first one is dropped: nobody has the address, or it has waited long enough.
    Lost(DropReason),
}

struct Entry {
    place: Place,
    /// The port whose packet began it.
    port: PortIdx,
    queue: Queue,
    /// The directory is asked again from then on, if packets still come.
    until: Instant,
}

/// Addresses that packets wait for. Few: looked through one by one.
pub(crate) struct Awaited {
    entries: Vec<Entry>,
    capacity: usize,
    due: Instant,
    /// Memory of the packets, in slots.
    slots: u32,
}

impl Awaited {
    pub(crate) fn new(config: &TablesConfig) -> Awaited {
        let capacity = config.miss_capacity.min(MAX_PLACES);
        Awaited { entries: Vec::with_capacity(capacity), capacity, due: Instant::NEVER, slots: 0 }
    }

    fn find(&self, place: &Place) -> Option<usize> {
        self.entries.iter().position(|e| e.place == *place)
    }

    /// Memory of the packets, in slots.
    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// Routes have changed: that of a prefix, or (`None`) what applies to many.
    pub(crate) fn told(&mut self, route: Option<(DomainIdx, Prefix)>) {
        let concerns = |e: &Entry| route.is_none_or(|(d, p)| e.place.domain == d && p.contains(e.place.ip));
        if self.entries.iter().any(concerns) {
            self.due = Instant(0);
        }
    }

    /// The directory said something about an address.
    pub(crate) fn told_of(&mut self, vn: VnIdx, ip: IpAddr) {
        if self.entries.iter().any(|e| (e.place.vn, e.place.ip) == (vn, ip)) {
            self.due = Instant(0);
        }
    }
}

/// Addresses at most.
const MAX_PLACES: usize = 1024;

impl Tables {
    /// Whether a packet of `len` bytes may wait for a route; `Ok(true)` where the directory must be asked. Changes
    /// nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn check_await(
        &self,
        place: &Place,
        port: PortIdx,
        len: usize,
        now: Instant,
    ) -> Result<bool, DropReason> {
        if let Some(Neighbor::Absent { .. }) = self.neighbors.get(place.vn, place.ip, now) {
            return Err(DropReason::HostUnreachable);
        }
        let may_ask = self.ports.may_ask(port, now);
        let query = match self.awaited.find(place) {
            // The question or its answer may have been lost.
            Some(at) => may_ask && self.awaited.entries[at].until <= now,
            None => true,
        };
        let full = self.awaited.entries.len() >= self.awaited.capacity
            || self.ports.under_way(port).0 >= self.bounds.misses_per_port
            || !may_ask;
        if full && self.awaited.find(place).is_none() {
            return Err(DropReason::MissLimit);
        }
        self.room_to_hold(true, self.miss_hold_packets(), 0, len)?;
        Ok(query)
    }

    /// Lets a packet wait for a route (R35); the oldest one goes where too many wait. `Ok(true)` where the caller asks
    /// the directory.
    ///
    /// # Errors
    /// See [`Tables::check_await`].
    pub fn await_route(&mut self, place: &Place, frame: &[u8], about: About) -> Result<bool, DropReason> {
        let (port, now) = (about.ingress, about.arrived);
        let query = self.check_await(place, port, frame.len(), now)?;
        // What it takes is this worker's from here on: nothing is counted as asked for that is not.
        if !self.holds.provide(frame.len()) {
            return Err(DropReason::HoldMemory);
        }
        let until = now + self.bounds.miss_hold_age;
        if self.awaited.find(place).is_none() {
            self.awaited.entries.push(Entry { place: *place, port, queue: Queue::EMPTY, until });
            self.ports.counts(port).misses += 1;
        }
        let found = self.awaited.find(place).ok_or(DropReason::MissLimit)?;
        if query {
            self.awaited.entries[found].until = until;
            self.ports.asked(port, now);
            self.counters.worker.misses += 1;
        }
        self.push_awaited(found, frame, about)?;
        Ok(query)
    }

    /// Lets a packet for `place` wait behind those that wait there already and may go: it must not overtake them.
    ///
    /// # Errors
    /// Why not.
    pub fn wait_behind(&mut self, place: &Place, frame: &[u8], about: About) -> Result<(), DropReason> {
        let found = self.awaited.find(place).ok_or(DropReason::HoldAborted)?;
        let slots = self.awaited.entries[found].queue.slots();
        self.room_to_hold(true, self.miss_hold_packets(), slots, frame.len())?;
        self.push_awaited(found, frame, about)
    }

    fn push_awaited(&mut self, found: usize, frame: &[u8], about: About) -> Result<(), DropReason> {
        let queue = &mut self.awaited.entries[found].queue;
        let before = queue.slots();
        let most = self.vms.default_limits().packets;
        while queue.len() >= most
            && let Some(oldest) = self.holds.pop(queue)
        {
            self.counters.drop_one(oldest.ingress, DropReason::HoldOverflow);
        }
        // There was room before anything was dropped for it, if no other worker took it meanwhile.
        let pushed = self.holds.push(queue, frame, about);
        self.awaited.slots = self.awaited.slots + queue.slots() - before;
        self.count_hold_memory();
        pushed.map_err(|_| DropReason::HoldMemory)?;
        self.counters.worker.held += 1;
        self.awaited.due = self.awaited.due.min(about.arrived + self.bounds.miss_hold_age);
        Ok(())
    }

    /// Packets that came in on this port wait for a route.
    pub(crate) fn awaited_from(&self, port: PortIdx) -> bool {
        self.awaited.entries.iter().any(|e| self.holds.has_from(&e.queue, port))
    }

    /// Where packets wait for this address, if any do: newer ones go after them.
    pub fn awaited_for(&self, domain: DomainIdx, ip: IpAddr) -> Option<usize> {
        self.awaited.entries.iter().position(|e| (e.place.domain, e.place.ip) == (domain, ip))
    }

    /// Packets that wait for routes are worth a look: some may go, or have waited long enough.
    #[inline(always)]
    pub fn awaited_due(&self, now: Instant) -> bool {
        self.awaited.due <= now
    }

    /// The address at `at` that packets wait for.
    pub fn awaited_place(&self, at: usize) -> Option<Place> {
        self.awaited.entries.get(at).map(|e| e.place)
    }

    /// What becomes of the packets that wait for the address at `at`; `None` beyond the last one.
    pub fn fate(&self, at: usize, now: Instant) -> Option<Fate> {
        let entry = self.awaited.entries.get(at)?;
        let Place { domain, vn, ip } = entry.place;
        if !matches!(self.routes.get(domain, ip), Some(NextHop::Subnet { ask: true, .. })) {
            return Some(Fate::Goes);
        }
        if let Some(Neighbor::Absent { .. }) = self.neighbors.get(vn, ip, now) {
            return Some(Fate::Lost(DropReason::HostUnreachable));
        }
        let old =
            self.holds.oldest(&entry.queue).is_none_or(|a| now.since(a.arrived) >= self.bounds.miss_hold_age);
        Some(if old { Fate::Lost(DropReason::HoldExpired) } else { Fate::Waits })
    }

    /// Takes the oldest packet that waits for the address at `at` into `into`, which has room for it. Where it was the
    /// last one, the last address takes the place of this one.
    pub fn take_awaited(&mut self, at: usize, into: &mut Vec<u8>) -> Option<About> {
        let entry = self.awaited.entries.get_mut(at)?;
        let before = entry.queue.slots();
        let about = self.holds.pop_into(&mut entry.queue, into);
        self.awaited.slots = self.awaited.slots + entry.queue.slots() - before;
        if entry.queue.is_empty() {
            let misses = &mut self.ports.counts(entry.port).misses;
            *misses = misses.saturating_sub(1);
            self.awaited.entries.swap_remove(at);
        }
        self.count_hold_memory();
        about
    }

    /// Ends a look through the waiting packets: the next one is due when the first has waited long enough.
    pub fn awaited_seen(&mut self) {
        let first =
            self.awaited.entries.iter().filter_map(|e| self.holds.oldest(&e.queue)).map(|a| a.arrived).min();
        self.awaited.due = first.map_or(Instant::NEVER, |first| first + self.bounds.miss_hold_age);
    }
}
