//! State that one worker owns, and the vocabulary by which control changes it.
//!
//! Nothing here is shared: a worker owns its [`Tables`] outright, control reaches them only by
//! [`update::Update`], and they answer with [`event::Event`]. All memory is reserved when the
//! tables are made; nothing below allocates, locks, blocks, reads a clock or logs (R14).
//!
//! | File | Holds |
//! |---|---|
//! | `locations` | the forwarding table's memory: integer to integer, one cache line a lookup |
//! | `pages` | memory in huge pages |
//! | `vms` | what is known of each VM, in a word or in a special entry |
//! | `arrivals` | frames of VMs whose port is not activated yet |
//! | `holds` | frames that wait, in memory of their own |
//! | `topology` | ports, virtual networks |
//! | `tunnels` | ways to other NVEs, by flow where there are several |
//! | `sources` | what a port's VM may send from: addresses, prefixes, MACs |
//! | `sets` | sets of integers in memory of fixed size |
//! | `neighbors` | IP addresses, and the requests that wait to be told of one |
//! | `apply` | what each update does |
//! | `service` | what time does: ages, ends, progress reports |
//! | `counters` | what is counted, and the balance that it must keep |
#![deny(unsafe_code)]

mod apply;
mod arrivals;
mod config;
pub mod counters;
pub mod event;
pub mod holds;
pub mod limiter;
pub mod locations;
pub mod neighbors;
mod pages;
pub mod policies;
pub mod prefetch;
mod service;
mod sets;
pub mod sources;
pub mod topology;
pub mod tunnels;
pub mod update;
pub mod vms;

pub use config::TablesConfig;
pub use counters::{Counters, DropReason, PortCounters, WorkerCounters};
pub use service::Serviced;

use arrivals::Arrivals;
use godwit_wire::{Bucket, HashKey, Instant, Rate, Span};
use holds::{About, Holds, Origin};
use limiter::Limiter;
use neighbors::{Ask, AskRefused, Asks, Neighbors};
use topology::{Ports, Vns};
use tunnels::Tunnels;
use update::{Key, PortIdx, PortRole, TunnelIdx, VmState};
use vms::{Special, SpecialIdx, State, Vms};

/// All state of one worker.
pub struct Tables {
    /// Locations.
    pub vms: Vms,
    /// Ports.
    pub ports: Ports,
    /// Virtual networks.
    pub vns: Vns,
    /// Tunnels.
    pub tunnels: Tunnels,
    /// IP addresses.
    pub neighbors: Neighbors,
    /// Counters.
    pub counters: Counters,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Outer UDP checksums are computed, not zero (R5).
    pub udp_checksum: bool,
    /// The outer header gets the inner packet's DSCP, not 0 (R6).
    pub copy_dscp: bool,
    /// Key of the flow hash (R2).
    pub hash_key: HashKey,
    holds: Holds,
    arrivals: Arrivals,
    asks: Asks,
    redirects: Limiter,
    news: Limiter,
    peers: Bucket,
    bounds: Bounds,
}

/// Datagrams of other NVEs that are handed to control (R47).
const PEERS: Rate = Rate::per_second(1000, 256);

/// What of the configuration is needed after start.
struct Bounds {
    miss_capacity: usize,
    misses_per_port: u16,
    asks_per_port: u16,
    miss_hold_age: Span,
    redirect_interval: Span,
}

/// Where a frame for a VM with a special entry goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dispatch {
    /// To the port.
    Deliver(PortIdx),
    /// Through the tunnel, whose header is ready.
    Tunnel {
        /// The tunnel.
        tunnel: TunnelIdx,
        /// The frame came from the overlay: the outer TTL shrinks (R46d).
        in_flight: bool,
    },
    /// It waits.
    Hold,
    /// Nowhere.
    Drop(DropReason),
}

impl Tables {
    /// Reserves everything.
    ///
    /// # Panics
    /// Where memory is not to be had or a capacity is absurd.
    pub fn new(config: &TablesConfig) -> Tables {
        assert!(config.vn_capacity <= usize::from(u16::MAX), "VN numbers are 16 bits");
        Tables {
            vms: Vms::new(config),
            ports: Ports::new(config),
            vns: Vns::new(config),
            tunnels: Tunnels::new(config),
            neighbors: Neighbors::new(config),
            counters: Counters::with_ports(config.port_capacity),
            vxlan_port: config.vxlan_port,
            udp_checksum: config.udp_checksum,
            copy_dscp: config.copy_dscp,
            hash_key: config.hash_key,
            holds: Holds::new(config.hold_bytes),
            arrivals: Arrivals::new(),
            asks: Asks::new(config),
            redirects: Limiter::new(),
            news: Limiter::new(),
            peers: Bucket::default(),
            bounds: Bounds {
                miss_capacity: config.miss_capacity,
                misses_per_port: config.misses_per_port,
                asks_per_port: config.asks_per_port,
                miss_hold_age: config.miss_hold_age,
                redirect_interval: config.redirect_interval,
            },
        }
    }

    /// Makes the location table resident, so that no update waits for the kernel to back it with
    /// memory. To be called by the worker's own thread.
    pub fn bring_in(&mut self) {
        self.vms.bring_in();
    }

    /// Frames that are here and neither gone on nor dropped: held ones and waiting requests.
    pub fn waiting(&self) -> u64 {
        u64::from(self.holds.frames()) + self.asks.len() as u64
    }

    /// The hold memory.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// The requests that wait for the directory.
    pub fn asks(&self) -> &Asks {
        &self.asks
    }

    /// Where a frame from `origin` goes when its VM is in `state`. `flushing`: it was held before.
    pub fn dispatch(&self, state: &State, origin: Origin, flushing: bool) -> Dispatch {
        let tunnel = |tunnel, in_flight| match self.tunnels.get(tunnel) {
            Some(t) if t.header.is_some() => Dispatch::Tunnel { tunnel, in_flight },
            Some(_) => Dispatch::Hold,
            None => Dispatch::Drop(DropReason::NoTunnel),
        };
        match (*state, origin) {
            (State::Querying { .. }, Origin::Local) => Dispatch::Hold,
            (State::Querying { .. }, Origin::Overlay) => Dispatch::Drop(DropReason::NotLocal),
            (State::Known(VmState::Local { port }), _) => Dispatch::Deliver(port),
            (State::Known(VmState::Remote { tunnel: t } | VmState::Ageing { tunnel: t }), Origin::Local) => {
                tunnel(t, false)
            }
            // Held while the VM was expected here, and now it runs elsewhere: no forward entry
            // allows to send it back to the overlay (R46a, R46b).
            (State::Known(VmState::Remote { .. } | VmState::Ageing { .. }), Origin::Overlay) if flushing => {
                Dispatch::Drop(DropReason::HoldAborted)
            }
            (State::Known(VmState::Remote { .. } | VmState::Ageing { .. }), Origin::Overlay) => {
                Dispatch::Drop(DropReason::NotLocal)
            }
            (State::Known(VmState::Expected { via: Some(t), .. }), Origin::Local) => tunnel(t, false),
            (State::Known(VmState::Expected { .. } | VmState::Paused { .. }), _) => Dispatch::Hold,
            (State::Known(VmState::Departed { tunnel: t, .. }), _) => tunnel(t, origin == Origin::Overlay),
            (State::Known(VmState::Absent { .. }), _) => Dispatch::Drop(DropReason::UnknownUnicast),
        }
    }

    /// Where a new frame from `origin` for a VM with a special entry goes once the frames that wait
    /// before it are gone. `None` where some must go first: they are sendable, and newer frames
    /// must not overtake them.
    pub fn dispatch_new(&self, s: &Special, origin: Origin) -> Option<Dispatch> {
        let goes = |o| !matches!(self.dispatch(&s.state, o, true), Dispatch::Hold);
        let blocked = |o| !s.queue(o).is_empty() && goes(o);
        if blocked(Origin::Local) || blocked(Origin::Overlay) {
            return None;
        }
        Some(self.dispatch(&s.state, origin, false))
    }

    /// Begins a query for an unknown destination (R34). The caller raises the event and holds the
    /// frame.
    ///
    /// # Errors
    /// [`DropReason::MissLimit`] where too many are under way, for all or for this port.
    pub fn begin_query(&mut self, key: Key, port: PortIdx, now: Instant) -> Result<SpecialIdx, DropReason> {
        if !self.may_query(port, now) {
            return Err(DropReason::MissLimit);
        }
        let until = now + self.bounds.miss_hold_age;
        let hold = self.hold_of_question(port, now);
        let at = self.special(key, State::Querying { port, until }).ok_or(DropReason::MissLimit)?;
        self.vms.special_mut(at).limits.packets = hold;
        self.ports.counts(port).misses += 1;
        self.ports.asked(port, now);
        self.counters.worker.misses += 1;
        Ok(at)
    }

    /// Frames that may wait for an answer that `port` asks for (R35). More than else where its VM has just moved
    /// here: it says at once what it could not say on the way, to peers that this NVE need not know yet (R45).
    fn hold_of_question(&self, port: PortIdx, now: Instant) -> u32 {
        let usual = self.miss_hold_packets();
        let Some(&PortRole::Access { vn, mac, .. }) = self.ports.role(port) else { return usual };
        match self.vms.special_of(Key::new(vn, mac)) {
            Some(vm) if vm.is_settling(now) => usual.max(vm.limits.packets),
            _ => usual,
        }
    }

    /// A frame of this port for an unknown destination would begin a query.
    pub fn may_query(&self, port: PortIdx, now: Instant) -> bool {
        self.ports.may_ask(port, now)
            && self.vms.querying() < self.bounds.miss_capacity
            && self.ports.under_way(port).0 < self.bounds.misses_per_port
            && self.vms.has_room()
    }

    /// The special entry of a remote VM whose tunnel is not ready, so that frames can wait for it.
    ///
    /// # Errors
    /// [`DropReason::NoTunnel`] where the tunnel does not exist, [`DropReason::MissLimit`] where
    /// there is no room.
    pub fn await_tunnel(&mut self, key: Key, tunnel: TunnelIdx) -> Result<SpecialIdx, DropReason> {
        if self.tunnels.get(tunnel).is_none() {
            return Err(DropReason::NoTunnel);
        }
        self.special(key, State::Known(VmState::Remote { tunnel })).ok_or(DropReason::MissLimit)
    }

    /// A new special entry, an old negative answer's if there is no other.
    fn special(&mut self, key: Key, state: State) -> Option<SpecialIdx> {
        let made = match self.vms.make_special(key, state) {
            Ok(made) => made,
            Err(_) => {
                let victim = self.vms.some_absent()?;
                self.forget(victim, DropReason::HoldAborted);
                self.vms.make_special(key, state).ok()?
            }
        };
        let (at, is_new) = made;
        self.count_vm(key, is_new);
        Some(at)
    }

    fn count_vm(&mut self, key: Key, is_new: bool) {
        if is_new && let Some(vn) = self.vns.slot(key.vn()) {
            vn.vms += 1;
        }
    }

    /// Holds a frame for a VM with a special entry; the oldest one goes where its limit is reached
    /// (R35, R45).
    ///
    /// # Errors
    /// Why it is not held. The caller counts the drop.
    pub fn hold(&mut self, at: SpecialIdx, frame: &[u8], about: About) -> Result<(), DropReason> {
        let limits = self.vms.special(at).limits;
        let querying = matches!(self.vms.special(at).state, State::Querying { .. });
        self.vms.touch(at, about.arrived);
        if let Err(reason) = self.room_to_hold(querying, limits.packets, frame.len()) {
            self.vms.special_mut(at).stats.dropped += 1;
            return Err(reason);
        }
        while self.vms.special(at).waiting() >= limits.packets {
            self.drop_oldest(at, DropReason::HoldOverflow);
        }
        let s = self.vms.special_mut(at);
        // There was room before anything was dropped for it.
        let pushed = self.holds.push(&mut s.queues[about.origin as usize], frame, about);
        pushed.map_err(|_| DropReason::HoldMemory)?;
        s.stats.held += 1;
        self.counters.worker.held += 1;
        self.vms.due(about.arrived + limits.age);
        Ok(())
    }

    /// Whether a frame of `len` bytes finds room in a hold. Full memory refuses newcomers (R35); a
    /// full queue lets its oldest go, and that is [`Tables::hold`]'s to do.
    ///
    /// # Errors
    /// Why not.
    pub fn room_to_hold(&self, querying: bool, packets: u32, len: usize) -> Result<(), DropReason> {
        // Half of the memory is for handovers alone, so that a storm of misses cannot starve them.
        if querying && self.holds.slots_used() > self.holds.slots() / 2 {
            return Err(DropReason::HoldMemory);
        }
        match packets {
            0 => Err(DropReason::HoldOverflow),
            _ if self.holds.has_room(len) => Ok(()),
            _ => Err(DropReason::HoldMemory),
        }
    }

    /// Frames held for one unknown destination at most, if no VM that has just moved here asked for it (R35).
    pub fn miss_hold_packets(&self) -> u32 {
        self.vms.default_limits().packets
    }

    /// The oldest frame that an entry holds, of those that `dispatch` lets go; where it goes.
    pub fn next_held(&self, at: SpecialIdx) -> Option<(Origin, Dispatch)> {
        let s = self.vms.special(at);
        let candidate = |origin: Origin| {
            if s.queue(origin).is_empty() {
                return None;
            }
            let to = self.dispatch(&s.state, origin, true);
            (to != Dispatch::Hold).then(|| (self.holds.oldest_seq(s.queue(origin)), origin, to))
        };
        let (a, b) = (candidate(Origin::Local), candidate(Origin::Overlay));
        let first = match (a, b) {
            (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
            (a, b) => a.or(b),
        };
        first.map(|(_, origin, to)| (origin, to))
    }

    /// Takes the oldest held frame of an origin out; its bytes replace those of `into`.
    pub fn take_held(&mut self, at: SpecialIdx, origin: Origin, into: &mut Vec<u8>) -> Option<About> {
        self.holds.pop_into(&mut self.vms.special_mut(at).queues[origin as usize], into)
    }

    /// Drops the oldest held frame of an origin.
    pub fn drop_held(&mut self, at: SpecialIdx, origin: Origin, reason: DropReason) {
        let s = self.vms.special_mut(at);
        if let Some(about) = self.holds.pop(&mut s.queues[origin as usize]) {
            s.stats.dropped += 1;
            self.counters.drop_one(about.ingress, reason);
            self.vms.touch(at, about.arrived);
        }
    }

    fn drop_all_held(&mut self, at: SpecialIdx, reason: DropReason) {
        while self.vms.special(at).waiting() > 0 {
            self.drop_oldest(at, reason);
        }
    }

    fn drop_oldest(&mut self, at: SpecialIdx, reason: DropReason) {
        let q = &self.vms.special(at).queues;
        let overlay_first = self.holds.oldest_seq(&q[1]) < self.holds.oldest_seq(&q[0]);
        self.drop_held(at, if overlay_first { Origin::Overlay } else { Origin::Local }, reason);
    }

    /// Counts a held frame that went on.
    pub fn flushed(&mut self, at: SpecialIdx, now: Instant) {
        self.counters.worker.flushed += 1;
        self.vms.special_mut(at).stats.flushed += 1;
        self.vms.touch(at, now);
    }

    /// Counts a frame that was sent on in flight (R43).
    pub fn forwarded(&mut self, at: SpecialIdx, now: Instant) {
        self.counters.worker.forwarded_in_flight += 1;
        let stats = &mut self.vms.special_mut(at).stats;
        stats.forwarded += 1;
        if stats.first_forward == Instant(0) {
            stats.first_forward = now;
        }
        stats.last_forward = now;
        self.vms.touch(at, now);
    }

    /// Counts a held frame, already taken out, that could not be sent.
    pub fn lost(&mut self, at: SpecialIdx, port: PortIdx, reason: DropReason, now: Instant) {
        self.vms.special_mut(at).stats.dropped += 1;
        self.counters.drop_one(port, reason);
        self.vms.touch(at, now);
    }

    /// Frees an entry: what it holds is dropped, its key leaves the table.
    fn forget(&mut self, at: SpecialIdx, reason: DropReason) {
        self.drop_all_held(at, reason);
        let key = self.vms.special(at).key;
        self.query_over(at);
        self.vms.free_special(at, None);
        self.uncount_vm(key);
    }

    fn uncount_vm(&mut self, key: Key) {
        if let Some(vn) = self.vns.slot(key.vn()) {
            vn.vms = vn.vms.saturating_sub(1);
        }
    }

    /// The entry is about to be something else than `Querying`.
    fn query_over(&mut self, at: SpecialIdx) {
        if let State::Querying { port, .. } = self.vms.special(at).state {
            let misses = &mut self.ports.counts(port).misses;
            *misses = misses.saturating_sub(1);
        }
    }

    /// Whether a request may wait; `Ok(true)` where the directory must be asked. Changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn check_ask(&self, ask: &Ask, now: Instant) -> Result<bool, AskRefused> {
        self.asks.check(ask, self.ports.under_way(ask.port).1, self.bounds.asks_per_port)?;
        let query = !self.asks.is_asked(ask.vn, ask.target);
        if query && !self.ports.may_ask(ask.port, now) {
            return Err(AskRefused::Full);
        }
        Ok(query)
    }

    /// Lets a request wait (R31) as [`Tables::check_ask`] said: `query` where the directory is asked.
    pub fn ask(&mut self, ask: Ask, query: bool, now: Instant) {
        if query {
            self.ports.asked(ask.port, now);
        }
        self.ports.counts(ask.port).asks += 1;
        self.asks.push(ask);
    }

    /// When a request that comes now has waited long enough.
    pub fn ask_expires(&self, now: Instant) -> Instant {
        now + self.bounds.miss_hold_age
    }

    /// Waiting requests are worth a look.
    #[inline(always)]
    pub fn asks_due(&self, now: Instant) -> bool {
        self.asks.due <= now
    }

    /// Ends a look through the waiting requests: the next one is due when the first expires.
    pub fn asks_seen(&mut self) {
        let first = (0..self.asks.len()).filter_map(|i| self.asks.get(i)).map(|a| a.expires).min();
        self.asks.due = first.unwrap_or(Instant::NEVER);
    }

    /// Takes a waiting request out; the last one takes its place.
    pub fn take_ask(&mut self, at: usize) -> Ask {
        let ask = self.asks.remove(at);
        let count = &mut self.ports.counts(ask.port).asks;
        *count = count.saturating_sub(1);
        ask
    }

    /// A stale sender of frames for `key` may be reported now (R47).
    pub fn may_report_sender(&mut self, key: Key, sender: core::net::IpAddr, now: Instant) -> bool {
        self.redirects.allow(limiter::tag(key.0, sender), self.bounds.redirect_interval, now)
    }

    /// That frames of `sender` for `key` go round may be reported now (R46d).
    pub fn may_report_loop(&mut self, key: Key, sender: core::net::IpAddr, now: Instant) -> bool {
        self.news.allow(limiter::tag(!key.0, sender), Span::from_ms(1000), now)
    }

    /// A router's report on packets to `remote` may be passed on now (R9).
    pub fn may_report_path(&mut self, remote: core::net::IpAddr, now: Instant) -> bool {
        self.news.allow(limiter::tag(u64::MAX, remote), self.bounds.redirect_interval, now)
    }

    /// A datagram of another NVE may be handed to control now; nobody fills its queue with them (R47).
    pub fn may_report_peer(&mut self, now: Instant) -> bool {
        self.peers.take(PEERS, now)
    }

    /// An underlay neighbor's address may be reported now. Answers to our own questions and what
    /// was merely overheard do not silence each other.
    pub fn may_report_neighbor(
        &mut self,
        ip: core::net::IpAddr,
        mac: godwit_wire::Mac,
        solicited: bool,
        now: Instant,
    ) -> bool {
        let tag = limiter::tag(mac.to_u64() << 1 | u64::from(solicited), ip);
        self.news.allow(tag, self.bounds.redirect_interval, now)
    }
}
