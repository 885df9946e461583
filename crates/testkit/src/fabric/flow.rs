//! Flows of numbered frames.

use godwit_model::GATEWAY_MAC;
use godwit_pipeline::mem::MemPacket;
use godwit_wire::Span;

use super::names::{self, Tag};
use super::routing::{after_gateway, hops};
use super::schedule::{Schedule, Side};
use super::world::World;

/// One direction of one conversation, and what became of each of its frames.
pub(super) struct Flow {
    pub from: usize,
    pub to: Option<usize>,
    pub every: Span,
    /// Sent by the application while traffic runs; the others only for a last probe.
    pub periodic: bool,
    template: Vec<u8>,
    /// The same as it arrives: routed on its way, or not.
    pub arrives: Vec<u8>,
    /// How often each frame was received.
    pub received: Vec<u8>,
    /// The last of those that were received in order, one more than its number.
    pub newest: u32,
    /// Order is judged from this number on.
    pub in_order: u32,
    /// How often it was put into an outer header.
    pub encapsulated: Vec<u8>,
    /// How often the underlay repeated it.
    pub repeated: Vec<u8>,
}

impl Flow {
    /// A gateway sends its frames on.
    pub fn is_routed(&self) -> bool {
        hops(&self.arrives) != hops(&self.template)
    }

    /// The schedule's flows, then one for each pair and family, for the probe at the end.
    pub fn all(plan: &Schedule) -> Vec<Flow> {
        let mut flows: Vec<Flow> = Vec::new();
        for f in &plan.flows {
            let to = f.to.map(|to| (to, Side::Own));
            flows.push(Flow::new(plan, flows.len(), (f.from, Side::Own), to, f.v6, f.every));
        }
        let routed = plan.routing.iter().flat_map(|r| &r.flows);
        let sides = plan.addresses.iter().flat_map(|a| &a.flows).chain(routed);
        for f in sides.clone() {
            flows.push(Flow::new(plan, flows.len(), f.from, Some(f.to), f.v6, f.every));
        }
        for (from, vm) in plan.vms.iter().enumerate() {
            for (to, peer) in plan.vms.iter().enumerate() {
                if from != to && plan.joins(vm.vn, peer.vn) {
                    for v6 in [false, true] {
                        let ends = ((from, Side::Own), (to, Side::Own));
                        flows.push(Flow::new(plan, flows.len(), ends.0, Some(ends.1), v6, Span(0)));
                    }
                }
            }
        }
        for f in sides {
            flows.push(Flow::new(plan, flows.len(), f.from, Some(f.to), f.v6, Span(0)));
        }
        flows
    }

    /// One without a gap between its frames is for the probe.
    fn new(
        plan: &Schedule,
        number: usize,
        from: (usize, Side),
        to: Option<(usize, Side)>,
        v6: bool,
        every: Span,
    ) -> Flow {
        let side = |(vm, side): (usize, Side)| names::side(plan.vms[vm].number, side, v6);
        let routed = to.filter(|to| plan.is_routed(plan.vms[from.0].vn, plan.vms[to.0].vn)).map(side);
        let template = match routed {
            Some((_, ip)) => names::data_frame(number, side(from), Some((GATEWAY_MAC, ip))),
            None => names::data_frame(number, side(from), to.map(side)),
        };
        let arrives = match routed {
            Some((mac, _)) => after_gateway(&template, mac),
            None => template.clone(),
        };
        let (received, encapsulated, repeated) = (Vec::new(), Vec::new(), Vec::new());
        let (from, to, periodic) = (from.0, to.map(|to| to.0), every > Span(0));
        Flow {
            from,
            to,
            every,
            periodic,
            template,
            arrives,
            received,
            newest: 0,
            in_order: 0,
            encapsulated,
            repeated,
        }
    }

    /// Makes the next frame.
    pub fn next_frame(&mut self, flow: usize) -> MemPacket {
        let seq = self.received.len() as u32;
        for counts in [&mut self.received, &mut self.encapsulated, &mut self.repeated] {
            counts.push(0);
        }
        Tag { flow: flow as u16, seq }.renumber(&mut self.template);
        MemPacket::new(&self.template)
    }

    /// The frame is bit by bit what was sent, or what the gateway makes of that (R44, R58).
    pub fn is_intact(&mut self, tag: Tag, frame: &[u8]) -> bool {
        tag.renumber(&mut self.arrives);
        self.arrives == frame
    }
}

impl World {
    /// A VM goes on at another switch. What waits there for a receiver that moves as well, or whose connections are
    /// paused, may be with other workers than what came from the old switch, and workers do not know each other's order
    /// (R77).
    pub fn sender_has_moved(&mut self, vm: usize) {
        let (guests, paused) = (&self.guests, &self.paused);
        let waits = |to: usize| guests[to].script.is_some() || paused.contains(&to);
        let moves = |f: &&mut Flow| f.from == vm && f.to.is_some_and(waits);
        for flow in self.flows.iter_mut().filter(moves) {
            flow.in_order = flow.received.len() as u32;
        }
    }
}
