//! What the cold paths need at hand, and the few ways in which a frame can end.

use core::marker::PhantomData;

use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, VnIdx};
use godwit_tables::{DropReason, Tables};
use godwit_wire::Instant;

use crate::packet::{Packet, PacketSource};
use crate::{Output, Spare};

/// One call's arguments.
pub(crate) struct Context<'a, P, O, S> {
    pub tables: &'a mut Tables,
    pub out: &'a mut O,
    pub src: &'a mut S,
    pub spare: &'a mut Spare,
    /// The port that the burst came in on.
    pub ingress: PortIdx,
    pub now: Instant,
    packet: PhantomData<fn() -> P>,
}

impl<'a, P: Packet, O: Output<P>, S: PacketSource<P>> Context<'a, P, O, S> {
    #[inline]
    pub fn new(
        tables: &'a mut Tables,
        out: &'a mut O,
        src: &'a mut S,
        spare: &'a mut Spare,
        ingress: PortIdx,
        now: Instant,
    ) -> Self {
        Context { tables, out, src, spare, ingress, now, packet: PhantomData }
    }

    /// Sends a frame as it is.
    #[inline(always)]
    pub fn send(&mut self, port: PortIdx, packet: P) {
        self.tables.counters.sent(port, packet.len());
        self.out.send(port, packet);
    }

    /// Delivers a frame to a VM's port, if that still serves the VN.
    #[inline(always)]
    pub fn deliver(&mut self, port: PortIdx, vn: VnIdx, packet: P) {
        match self.may_enter(port, vn, &packet) {
            Ok(()) => self.send(port, packet),
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// A frame may go to a VM's port: that serves the VN, and its VM's policy allows the frame (R23).
    ///
    /// # Errors
    /// Why not.
    #[inline(always)]
    pub fn may_enter(&self, port: PortIdx, vn: VnIdx, packet: &P) -> Result<(), DropReason> {
        let ports = &self.tables.ports;
        match ports.serves(port, vn) {
            true => Ok(()),
            false if ports.leads_to(port, vn) => ports.may_get(port, packet.data()),
            false => Err(DropReason::PortGone),
        }
    }

    /// Drops a frame of the burst.
    #[cold]
    #[inline(never)]
    pub fn drop(&mut self, packet: P, reason: DropReason) {
        self.tables.counters.drop_one(self.ingress, reason);
        self.out.discard(packet);
    }

    /// Drops frames of the burst that have the same fault.
    pub fn drop_run(&mut self, packets: impl ExactSizeIterator<Item = P>, reason: DropReason) {
        self.tables.counters.drop_many(self.ingress, reason, packets.len() as u64);
        for packet in packets {
            self.out.discard(packet);
        }
    }

    /// A frame ends here as it should.
    #[cold]
    pub fn consume(&mut self, packet: P) {
        self.tables.counters.worker.consumed += 1;
        self.out.discard(packet);
    }

    /// Drops the first `n` frames of a burst, counting them as received.
    #[cold]
    pub fn refuse(&mut self, burst: &mut Vec<P>, n: usize, reason: DropReason) {
        for packet in burst.drain(..n) {
            self.tables.counters.received(self.ingress, 1, packet.len() as u64);
            self.drop(packet, reason);
        }
    }

    /// Tells control; false where it has too much to hear, which is counted.
    #[cold]
    pub fn event(&mut self, event: Event) -> bool {
        let heard = self.out.event(event);
        self.tables.counters.worker.events_dropped += u64::from(!heard);
        heard
    }
}
