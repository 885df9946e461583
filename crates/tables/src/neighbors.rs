//! Which MAC owns an IP address (R28–R31), and the requests that wait to be told.

use core::net::IpAddr;

use godwit_wire::{Instant, Mac, Span};
use hashbrown::HashMap;

use crate::update::{PortIdx, VnIdx};
use crate::{OutOfRange, TablesConfig};

/// What is known of an IP address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Neighbor {
    /// A VM owns it.
    Known {
        /// Its address.
        mac: Mac,
        /// It is a router.
        router: bool,
    },
    /// No VM owns it, until then.
    Absent {
        /// End of the negative answer's life.
        until: Instant,
    },
}

/// All known addresses.
pub struct Neighbors {
    /// Built for twice its bound: with at most half of its places taken, hashbrown clears up after
    /// removals in place and never asks for memory.
    map: HashMap<(VnIdx, IpAddr), Neighbor>,
    capacity: usize,
    last_purge: Instant,
}

impl Neighbors {
    /// Negative answers that have expired are looked for at most this often.
    const PURGE_INTERVAL: Span = Span::from_ms(100);

    pub(crate) fn new(config: &TablesConfig) -> Neighbors {
        let capacity = config.neighbor_capacity;
        Neighbors { map: HashMap::with_capacity(2 * capacity), capacity, last_purge: Instant(0) }
    }

    /// What is known of `ip`; a negative answer that has expired is not known any more.
    pub fn get(&self, vn: VnIdx, ip: IpAddr, now: Instant) -> Option<Neighbor> {
        let found = *self.map.get(&(vn, ip))?;
        let live = !matches!(found, Neighbor::Absent { until } if until <= now);
        live.then_some(found)
    }

    /// Addresses in the table.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Adds or replaces; true where the address is new.
    pub(crate) fn set(&mut self, vn: VnIdx, ip: IpAddr, n: Neighbor) -> Result<bool, OutOfRange> {
        if let Some(old) = self.map.get_mut(&(vn, ip)) {
            *old = n;
            return Ok(false);
        }
        if self.map.len() >= self.capacity {
            return Err(OutOfRange);
        }
        self.map.insert((vn, ip), n);
        Ok(true)
    }

    /// Drops expired negative answers, telling the VN of each; false where it is too early for
    /// another look.
    pub(crate) fn purge(&mut self, now: Instant, mut gone: impl FnMut(VnIdx)) -> bool {
        if now.since(self.last_purge) < Self::PURGE_INTERVAL && self.last_purge != Instant(0) {
            return false;
        }
        self.last_purge = now;
        self.map.retain(|&(vn, _), n| {
            let dead = matches!(*n, Neighbor::Absent { until } if until <= now);
            if dead {
                gone(vn);
            }
            !dead
        });
        true
    }

    pub(crate) fn remove(&mut self, vn: VnIdx, ip: IpAddr) -> bool {
        self.map.remove(&(vn, ip)).is_some()
    }

    /// Forgets all addresses of a VN. Visits the whole table.
    pub(crate) fn remove_vn(&mut self, vn: VnIdx) {
        self.map.retain(|&(v, _), _| v != vn);
    }
}

/// An ARP request or a neighbor solicitation that waits for the directory (R31).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The VN.
    pub vn: VnIdx,
    /// The address asked for.
    pub target: IpAddr,
    /// The port that asks.
    pub port: PortIdx,
    /// The asker.
    pub mac: Mac,
    /// The asker's address; unspecified for a probe (R30).
    pub ip: IpAddr,
    /// Only the owner may answer: the question has an option that nobody else can speak for (R29). The directory is
    /// asked all the same, so that the host's next one finds the owner.
    pub only_owner: bool,
    /// When it has waited long enough.
    pub expires: Instant,
}

impl Ask {
    /// The same question from the same asker.
    fn repeats(&self, other: &Ask) -> bool {
        Ask { expires: other.expires, ..*self } == *other
    }
}

/// Why a request does not wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskRefused {
    /// It waits already.
    Repeated,
    /// The table, or the port's share of it, is full.
    Full,
}

/// Requests that wait. Few: looked through one by one.
pub struct Asks {
    asks: Vec<Ask>,
    capacity: usize,
    /// An answer came for one of them, or time ran out for the first.
    pub(crate) due: Instant,
}

impl Asks {
    pub(crate) fn new(config: &TablesConfig) -> Asks {
        Asks {
            asks: Vec::with_capacity(config.ask_capacity),
            capacity: config.ask_capacity,
            due: Instant::NEVER,
        }
    }

    /// Requests that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.asks.len()
    }

    /// There are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// The waiting request at `at`.
    #[inline]
    pub fn get(&self, at: usize) -> Option<Ask> {
        self.asks.get(at).copied()
    }

    /// Somebody waits for this address already, so the directory has been asked.
    pub fn is_asked(&self, vn: VnIdx, target: IpAddr) -> bool {
        self.asks.iter().any(|a| a.target == target && a.vn == vn)
    }

    /// Whether `ask` may wait; changes nothing.
    pub(crate) fn check(&self, ask: &Ask, of_port: u16, per_port: u16) -> Result<(), AskRefused> {
        if self.asks.iter().any(|a| a.repeats(ask)) {
            return Err(AskRefused::Repeated);
        }
        if self.asks.len() >= self.capacity || of_port >= per_port {
            return Err(AskRefused::Full);
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, ask: Ask) {
        debug_assert!(self.asks.len() < self.capacity);
        self.due = self.due.min(ask.expires);
        self.asks.push(ask);
    }

    /// Takes a request out; the last one takes its place.
    pub(crate) fn remove(&mut self, at: usize) -> Ask {
        self.asks.swap_remove(at)
    }

    /// The directory said something about an address.
    pub(crate) fn told(&mut self, vn: VnIdx, target: IpAddr) {
        if self.is_asked(vn, target) {
            self.due = Instant(0);
        }
    }
}
