//! Segments for a VM that is attached nowhere: their connection is reset, where its VN wants that (R53).

use godwit_tables::update::PortIdx;
use godwit_wire::{Frame, reset};

use crate::Output;
use crate::context::Context;
use crate::packet::{Packet, PacketSource};

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Answers the segment that a VM sent by `port`, if it may be answered and the port has not been charged for too
    /// many answers of late.
    #[cold]
    #[inline(never)]
    pub fn reset_connection(&mut self, packet: &P, port: PortIdx) -> Option<()> {
        let frame = Frame::read(packet.data()).ok()?;
        let mut buf = [0; reset::MAX_LEN];
        let len = reset::answer(&frame, &mut buf)?;
        if !self.tables.ports.may_send_error(port, self.now) {
            return None;
        }
        let mut answer = self.src.alloc()?;
        if !answer.set(&buf[..len]) {
            self.out.discard(answer);
            return None;
        }
        self.send(port, answer);
        self.tables.counters.worker.resets_sent += 1;
        self.tables.counters.worker.copies += 1;
        Some(())
    }
}
