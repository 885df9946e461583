//! Frames of VMs whose port is provisioned and not activated yet: a VM that has just moved here talks before
//! control has heard that it is there (R15, R45). They wait in the hold memory until the port opens.

use godwit_wire::{Instant, Span};

use crate::Tables;
use crate::counters::DropReason;
use crate::holds::{About, Holds, Queue};
use crate::update::{Admission, PortIdx, PortRole};

/// Ports with waiting frames at a time.
const PORTS: usize = 64;
/// Frames of one port that wait; what comes after them is dropped. They are let go all at once, so that they must fit
/// what waits for a port.
const FRAMES: u32 = 400;
/// How long they wait for the port to open.
const AGE: Span = Span::from_ms(500);

/// The queues, one for each port that has frames waiting.
pub(crate) struct Arrivals {
    waiting: Vec<(PortIdx, Queue)>,
}

impl Arrivals {
    pub(crate) fn new() -> Arrivals {
        Arrivals { waiting: Vec::with_capacity(PORTS) }
    }

    fn place(&self, port: PortIdx) -> Option<usize> {
        self.waiting.iter().position(|w| w.0 == port)
    }

    /// Memory of all of them, in slots.
    fn slots_together(&self) -> u32 {
        self.waiting.iter().map(|w| w.1.slots()).sum()
    }

    /// Memory of a port's frames, in slots.
    fn slots(&self, port: PortIdx) -> u32 {
        self.place(port).map_or(0, |at| self.waiting[at].1.slots())
    }
}

impl Tables {
    /// Some port has frames that wait for it to open.
    #[inline]
    pub fn has_arrivals(&self) -> bool {
        !self.arrivals.waiting.is_empty()
    }

    /// This one has.
    #[inline]
    pub fn has_arrivals_at(&self, port: PortIdx) -> bool {
        self.has_arrivals() && self.arrivals.place(port).is_some()
    }

    /// Whether a frame of `len` bytes may wait for its port to open. Changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn room_for_arrival(&self, port: PortIdx, len: usize) -> Result<(), DropReason> {
        let full = match self.arrivals.place(port) {
            Some(at) => self.arrivals.waiting[at].1.len() >= FRAMES,
            None => self.arrivals.waiting.len() == PORTS,
        };
        let (slots, needs) = (self.arrivals.slots(port), Holds::slots_of(len));
        let pays = |(_, most)| most > slots + needs;
        // Half of the memory is left for handovers and questions, whatever VMs say before they are let in.
        let within = self.arrivals.slots_together() + needs <= self.holds.slots() / 2;
        let room = within && (self.holds.has_room(len) || self.vms.largest().is_some_and(pays));
        match (full, room) {
            (true, _) => Err(DropReason::PortClosed),
            (_, false) => Err(DropReason::HoldMemory),
            _ => Ok(()),
        }
    }

    /// Lets a frame wait for its port to open.
    ///
    /// # Errors
    /// See [`Tables::room_for_arrival`].
    pub fn await_opening(&mut self, port: PortIdx, frame: &[u8], now: Instant) -> Result<(), DropReason> {
        self.room_for_arrival(port, frame.len())?;
        self.make_room_beside(self.arrivals.slots(port), frame.len())?;
        let at = self.arrivals.place(port).unwrap_or_else(|| {
            self.arrivals.waiting.push((port, Queue::EMPTY));
            self.arrivals.waiting.len() - 1
        });
        let queue = &mut self.arrivals.waiting[at].1;
        self.holds.push(queue, frame, About::local(now, port, None)).map_err(|_| DropReason::HoldMemory)?;
        self.counters.worker.held += 1;
        self.count_hold_memory();
        Ok(())
    }

    /// Takes the oldest frame that waits for `port` into `into`, which has room for it. `None` where there is
    /// none left.
    pub fn take_arrival(&mut self, port: PortIdx, into: &mut Vec<u8>) -> Option<About> {
        let at = self.arrivals.place(port)?;
        let about = self.holds.pop_into(&mut self.arrivals.waiting[at].1, into);
        if self.arrivals.waiting[at].1.is_empty() {
            self.arrivals.waiting.swap_remove(at);
        }
        self.count_hold_memory();
        about
    }

    /// Drops the frames that have waited too long, and those of ports that will not open; answers with a port
    /// that is open and whose frames may go.
    pub fn sort_arrivals(&mut self, now: Instant) -> Option<PortIdx> {
        let mut open = None;
        let mut at = 0;
        while let Some(&(port, _)) = self.arrivals.waiting.get(at) {
            let oldest_allowed = match self.ports.role(port) {
                Some(PortRole::Access { admission: Admission::Activated, .. }) => {
                    open = Some(port);
                    at += 1;
                    continue;
                }
                Some(PortRole::Access { admission: Admission::Associated, .. }) => AGE,
                _ => Span(0),
            };
            let queue = &mut self.arrivals.waiting[at].1;
            while self.holds.oldest(queue).is_some_and(|a| now.since(a.arrived) >= oldest_allowed) {
                self.holds.pop(queue);
                self.counters.drop_one(port, DropReason::PortClosed);
            }
            if queue.is_empty() {
                self.arrivals.waiting.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.count_hold_memory();
        open
    }
}
