//! Where the pipeline's frames and events go: outboxes, and control.

use crossbeam::queue::ArrayQueue;
use godwit_pipeline::packet::ReceiveOffloads;
use godwit_pipeline::{Output, Stage as PipelineStage};
use godwit_tables::event::Event;
use godwit_tables::update::PortIdx;

use crate::io::Io;
use crate::outbox::Outboxes;
use crate::punts::Punts;
use crate::stages::Meter;

/// Where the pipeline's frames and events go during one call.
pub(crate) struct Exits<'a, I: Io> {
    pub outboxes: &'a mut Outboxes<I>,
    pub events: &'a ArrayQueue<Event>,
    pub punts: &'a Punts,
    pub meter: &'a mut Meter,
}

impl<I: Io> Output<I::Packet> for Exits<'_, I> {
    #[inline(always)]
    fn send(&mut self, port: PortIdx, packet: I::Packet) {
        self.outboxes.send(port, packet);
    }

    #[inline(always)]
    fn send_run(&mut self, port: PortIdx, packets: impl Iterator<Item = I::Packet>) {
        self.outboxes.send_run(port, packets);
    }

    #[inline(always)]
    fn send_all(&mut self, port: PortIdx, packets: &mut Vec<I::Packet>) {
        self.outboxes.send_all(port, packets);
    }

    fn receive_offloads(&self, port: PortIdx) -> ReceiveOffloads {
        self.outboxes.offloads(port)
    }

    fn is_full(&self, port: PortIdx) -> bool {
        self.outboxes.is_full(port)
    }

    fn event(&mut self, event: Event) -> bool {
        self.events.push(event).is_ok()
    }

    fn punt(&mut self, port: PortIdx, frame: &[u8]) -> bool {
        self.punts.put(port, frame)
    }

    #[inline(always)]
    fn ended(&mut self, stage: PipelineStage) {
        self.meter.ended::<I>(stage.into());
    }
}
