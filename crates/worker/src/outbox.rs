//! Frames gathered by destination port and sent a burst at a time.
//!
//! Every worker has a place for every port, and a way to it: a transmit queue of its own, or a relay
//! to the worker that owns one. A queue that is full keeps its frames for the next iterations, up to
//! the outbox's capacity; beyond that the newest are dropped and counted as `tx_full`.

use godwit_pipeline::packet::{Packet, ReceiveOffloads};
use godwit_tables::counters::Counters;
use godwit_tables::update::{MAX_PORTS, PortIdx};
use godwit_wire::{Instant, Mac};

use crate::command::{Relay, TxPath};
use crate::io::{Io, KEEP_ALIVE, TxQueue};
use crate::offloads::SharedReceiveOffloads;
use crate::polling::{IDLE_POLL, share};

/// Frames that a port's outbox holds before it must be sent.
pub const OUTBOX: usize = 512;

/// Frames that wait for a port, from which on held ones do not come on top: the rest of the outbox is for others.
const FULL: usize = OUTBOX / 4;

/// Relays that are served in every iteration. With more, and something to do, only some are, each once within
/// [`IDLE_POLL`]: those of hundreds of idle guests cost more than the frames of a busy one.
const RELAYS: usize = 16;

struct Slot<I: Io> {
    queue: Vec<I::Packet>,
    tx: Option<TxPath<I>>,
    offloads: Option<SharedReceiveOffloads>,
    serves: Option<Relay<I::Packet>>,
    listed: bool,
    /// Frames at the front of `queue` that have to leave before a receive queue changes workers.
    owed: usize,
    /// The same in the relay that is served.
    owed_relay: usize,
    lost_packets: u64,
    lost_bytes: u64,
}

/// A worker's outboxes.
pub struct Outboxes<I: Io> {
    slots: Box<[Slot<I>]>,
    /// Ports with frames waiting or losses to account for.
    busy: Vec<PortIdx>,
    /// Ports whose relay this worker serves.
    serving: Vec<PortIdx>,
    /// The place in `serving` at which the last turn ended.
    next_served: usize,
    /// When the last turn was.
    served: Instant,
    /// When transmit queues that want it are kept alive again; never, where none does.
    keep_alive: Instant,
}

impl<I: Io> Outboxes<I> {
    /// Allocates everything but the queues, which come with [`Outboxes::attach`].
    pub fn new() -> Outboxes<I> {
        let slot = |_| Slot {
            queue: Vec::new(),
            tx: None,
            offloads: None,
            serves: None,
            listed: false,
            owed: 0,
            owed_relay: 0,
            lost_packets: 0,
            lost_bytes: 0,
        };
        Outboxes {
            slots: (0..MAX_PORTS).map(slot).collect(),
            busy: Vec::with_capacity(MAX_PORTS),
            serving: Vec::with_capacity(MAX_PORTS),
            next_served: 0,
            served: Instant(0),
            keep_alive: Instant::NEVER,
        }
    }

    /// Gives the port a way out. `queue` is an empty vector with capacity, made by control.
    pub fn attach(
        &mut self,
        port: PortIdx,
        tx: TxPath<I>,
        offloads: Option<SharedReceiveOffloads>,
        queue: Vec<I::Packet>,
    ) {
        if let Some(slot) = self.slots.get_mut(usize::from(port.0)) {
            slot.offloads = offloads;
            slot.queue = queue;
            slot.tx = Some(tx);
            // Whether it wants that, the first time shows.
            self.keep_alive = Instant(0);
        }
    }

    /// Calls the transmit queues that have something to do besides sending, when it is time.
    #[inline]
    pub fn keep_alive(&mut self, now: Instant) {
        if now >= self.keep_alive {
            self.keep_all_alive(now);
        }
    }

    #[cold]
    fn keep_all_alive(&mut self, now: Instant) {
        let mut any = false;
        for slot in &mut self.slots {
            if let Some(TxPath::Own(tx) | TxPath::Either { tx, .. }) = &mut slot.tx {
                any |= tx.keep_alive();
            }
        }
        self.keep_alive = if any { now + KEEP_ALIVE } else { Instant::NEVER };
    }

    /// Sends what others put into `relay` from now on.
    pub fn serve(&mut self, port: PortIdx, relay: Relay<I::Packet>) {
        if let Some(slot) = self.slots.get_mut(usize::from(port.0))
            && slot.serves.replace(relay).is_none()
        {
            self.serving.push(port);
        }
    }

    /// Takes the way to the port back; what could not be sent any more is counted.
    pub fn detach(&mut self, port: PortIdx, counters: &mut Counters) -> Option<TxPath<I>> {
        self.serve_relays();
        self.flush(counters);
        self.serving.retain(|p| *p != port);
        let slot = self.slots.get_mut(usize::from(port.0))?;
        let queue = core::mem::take(&mut slot.queue);
        let relay = slot.serves.take();
        for packet in
            queue.into_iter().chain(relay.iter().flat_map(|relay| core::iter::from_fn(|| relay.pop())))
        {
            counters.not_sent(port, 1, packet.len() as u64);
        }
        (slot.owed, slot.owed_relay) = (0, 0);
        slot.offloads = None;
        slot.tx.take()
    }

    /// Moves the frames for a VM that its device has not taken to `into`, in order, as many as that has room for.
    /// What others left in the port's relay comes along; what was handed on unfinished stays.
    #[cold]
    pub fn take_back(&mut self, port: PortIdx, mac: Mac, into: &mut Vec<I::Packet>, counters: &mut Counters) {
        self.serve_relays();
        let Some(slot) = self.slots.get_mut(usize::from(port.0)) else { return };
        let mut room = into.capacity() - into.len();
        let mut bytes = 0;
        let before = into.len();
        into.extend(slot.queue.extract_if(.., |packet| {
            let goes = room > 0 && !packet.is_handed_on() && packet.data().starts_with(&mac.0);
            room -= usize::from(goes);
            bytes += if goes { packet.len() as u64 } else { 0 };
            goes
        }));
        slot.owed = slot.owed.min(slot.queue.len());
        counters.taken_back(port, (into.len() - before) as u64, bytes);
    }

    /// Receiver offload capabilities of the port.
    pub fn offloads(&self, port: PortIdx) -> ReceiveOffloads {
        self.slots.get(usize::from(port.0)).map_or(ReceiveOffloads::NOTHING, Slot::offloads)
    }

    /// The port has so much to send that what can wait elsewhere had better do so.
    pub fn is_full(&self, port: PortIdx) -> bool {
        let Some(slot) = self.slots.get(usize::from(port.0)) else { return false };
        let relayed = match &slot.tx {
            Some(TxPath::Relay(relay)) => relay.len(),
            Some(TxPath::Either { relay, used, .. }) if !used.get() => relay.len(),
            _ => 0,
        };
        slot.queue.len() + relayed >= FULL
    }

    /// Puts a frame into the port's outbox.
    #[inline]
    pub fn send(&mut self, port: PortIdx, packet: I::Packet) {
        let Some(slot) = self.slots.get_mut(usize::from(port.0)) else { return };
        if slot.queue.len() == slot.queue.capacity() {
            slot.make_room();
        }
        if slot.queue.len() < slot.queue.capacity() {
            slot.queue.push(packet);
        } else {
            slot.lost_packets += 1;
            slot.lost_bytes += packet.len() as u64;
        }
        if !slot.listed {
            slot.listed = true;
            self.busy.push(port);
        }
    }

    /// Puts all of `packets` into the port's outbox; none stays behind.
    #[inline]
    pub fn send_all(&mut self, port: PortIdx, packets: &mut Vec<I::Packet>) {
        match self.slots.get_mut(usize::from(port.0)) {
            Some(slot) if packets.len() <= slot.room() => {
                slot.queue.append(packets);
                if !slot.listed {
                    slot.listed = true;
                    self.busy.push(port);
                }
            }
            _ => self.send_run(port, packets.drain(..)),
        }
    }

    /// Puts several frames into the port's outbox.
    #[inline]
    pub fn send_run(&mut self, port: PortIdx, packets: impl Iterator<Item = I::Packet>) {
        let Some(slot) = self.slots.get_mut(usize::from(port.0)) else { return };
        if !slot.listed {
            slot.listed = true;
            self.busy.push(port);
        }
        let (_, most) = packets.size_hint();
        if most.is_some_and(|n| n <= slot.room()) {
            slot.queue.extend(packets);
        } else {
            packets.for_each(|packet| self.send(port, packet));
        }
    }

    /// Serves the relays whose turn it is; all of them where the worker has nothing to do, or few. Returns whether
    /// there was anything.
    #[inline]
    pub fn serve_due_relays(&mut self, now: Instant, loaded: bool) -> bool {
        let all = self.serving.len();
        if all <= RELAYS || !loaded {
            return self.serve_relays();
        }
        let due = share(all, now.since(self.served), IDLE_POLL).max(RELAYS);
        self.served = now;
        let mut any = false;
        for _ in 0..due {
            self.next_served = if self.next_served + 1 < all { self.next_served + 1 } else { 0 };
            any |= self.serve_relay(self.serving[self.next_served]);
        }
        any
    }

    /// Serves all relays. Returns whether there was anything.
    pub fn serve_relays(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.serving.len() {
            any |= self.serve_relay(self.serving[i]);
        }
        any
    }

    /// Moves what other workers left for a port that this one serves into its outbox, as much as that has room for:
    /// what waits in the relay keeps the others from sending what had better wait with them (R45).
    #[inline]
    fn serve_relay(&mut self, port: PortIdx) -> bool {
        let Some(slot) = self.slots.get(usize::from(port.0)) else { return false };
        match &slot.serves {
            Some(relay) if !relay.is_empty() => {
                let (relay, room) = (relay.clone(), slot.room());
                self.move_from_relay(port, &relay, room)
            }
            _ => false,
        }
    }

    fn move_from_relay(&mut self, port: PortIdx, relay: &Relay<I::Packet>, room: usize) -> bool {
        let mut n = 0;
        while n < room
            && let Some(packet) = relay.pop()
        {
            n += 1;
            self.send(port, packet);
        }
        self.slots[usize::from(port.0)].moved_from_relay(n);
        n > 0
    }

    /// Hands everything to the queues. Returns whether something was sent.
    pub fn flush(&mut self, counters: &mut Counters) -> bool {
        let mut sent = false;
        let mut i = 0;
        while i < self.busy.len() {
            let port = self.busy[i];
            let slot = &mut self.slots[usize::from(port.0)];
            sent |= slot.transmit() > 0;
            if slot.lost_packets > 0 {
                counters.not_sent(port, slot.lost_packets, slot.lost_bytes);
                (slot.lost_packets, slot.lost_bytes) = (0, 0);
            }
            if slot.queue.is_empty() {
                slot.listed = false;
                self.busy.swap_remove(i);
            } else {
                i += 1;
            }
        }
        sent
    }

    /// Remembers what waits now, in outboxes and in the relays that are served.
    pub fn mark(&mut self) {
        for &port in &self.busy {
            let slot = &mut self.slots[usize::from(port.0)];
            slot.owed = slot.queue.len();
        }
        for &port in &self.serving {
            let slot = &mut self.slots[usize::from(port.0)];
            slot.owed_relay = slot.serves.as_ref().map_or(0, |relay| relay.len());
        }
    }

    /// All that waited at the last [`Outboxes::mark`] has left.
    pub fn is_clear(&self) -> bool {
        let slot = |p: &PortIdx| &self.slots[usize::from(p.0)];
        self.busy.iter().all(|p| slot(p).owed == 0) && self.serving.iter().all(|p| slot(p).owed_relay == 0)
    }

    /// Frames that wait in all outboxes.
    pub fn waiting(&self) -> usize {
        self.busy.iter().map(|p| self.slots[usize::from(p.0)].queue.len()).sum()
    }
}

impl<I: Io> Default for Outboxes<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Io> Slot<I> {
    #[cold]
    fn make_room(&mut self) {
        self.transmit();
    }

    fn room(&self) -> usize {
        self.queue.capacity() - self.queue.len()
    }

    fn offloads(&self) -> ReceiveOffloads {
        self.offloads.as_ref().map_or(ReceiveOffloads::NOTHING, SharedReceiveOffloads::get)
    }

    /// A guest left, or restarted with another driver, before it got frames that were handed on as they
    /// were. Its successor may be unable to take them, and they would block what comes after them.
    #[cold]
    fn forget_unfinished(&mut self) {
        let (packets, bytes) = (&mut self.lost_packets, &mut self.lost_bytes);
        self.queue.retain(|packet| {
            let keep = !packet.is_handed_on();
            *packets += u64::from(!keep);
            *bytes += if keep { 0 } else { packet.len() as u64 };
            keep
        });
    }

    /// What was owed of the relay is owed of the outbox once it is there.
    fn moved_from_relay(&mut self, n: usize) {
        if self.owed_relay > 0 {
            self.owed_relay = self.owed_relay.saturating_sub(n);
            if self.owed_relay == 0 {
                self.owed = self.queue.len();
            }
        }
    }

    fn transmit(&mut self) -> usize {
        let sent = self.transmit_some();
        // Also where frames went another way than out, there are no more of them than frames.
        self.owed = self.owed.saturating_sub(sent).min(self.queue.len());
        sent
    }

    fn transmit_some(&mut self) -> usize {
        match &mut self.tx {
            Some(TxPath::Own(tx)) => {
                let sent = tx.tx(&mut self.queue);
                if sent == 0 && self.offloads.is_some() && self.offloads() == ReceiveOffloads::NOTHING {
                    self.forget_unfinished();
                }
                sent
            }
            Some(TxPath::Either { tx, used, .. }) if used.get() => tx.tx(&mut self.queue),
            Some(TxPath::Relay(relay) | TxPath::Either { relay, .. }) => {
                let before = self.queue.len();
                for packet in self.queue.drain(..) {
                    if let Err(packet) = relay.push(packet) {
                        self.lost_packets += 1;
                        self.lost_bytes += packet.len() as u64;
                    }
                }
                before
            }
            None => {
                self.lost_packets += self.queue.len() as u64;
                self.lost_bytes += self.queue.iter().map(|p| p.len() as u64).sum::<u64>();
                self.queue.clear();
                0
            }
        }
    }
}
