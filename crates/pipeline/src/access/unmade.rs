//! Packets of VMs for which there is no buffer: none is left, or none holds them in one piece.
//!
//! A guest with a large MTU sends packets, and has packets cut, that are larger than a buffer. Buffers hold whatever an
//! uplink carries, so such a packet is too big for its way to another NVE, whatever is left in the pool: its sender
//! is told (R8), a routed one that may be cut is, and the drop is counted by its true reason.

use godwit_tables::event::Event;
use godwit_tables::update::{Admission, Key, PortRole};
use godwit_tables::{Action, DropReason, Egress};
use godwit_wire::policy::{Direction, Traffic};
use godwit_wire::route::{decrement_ttl, set_addresses};
use godwit_wire::{Frame, Mac, ethernet};

use super::inspect::inspect;
use crate::classify::Arrival;
use crate::context::Context;
use crate::disposition::Disposition;
use crate::packet::{Packet, PacketSource};
use crate::port::Port;
use crate::routed::{self, Routed};
use crate::{DEFAULT_TTL, Output};

/// Where a packet without a buffer would go.
struct Way {
    key: Key,
    from: Arrival,
    /// Of a routed packet the gateway's MAC.
    gateway: Option<Mac>,
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Ends a packet of this port's VM, `bytes`, for which there was no buffer: drops it, for the reason `otherwise`
    /// where it had been delivered or held with a buffer.
    #[cold]
    #[inline(never)]
    pub fn end_unmade(&mut self, bytes: &mut [u8], otherwise: DropReason) {
        let ended = match self.way_of_unmade(bytes) {
            Ok(Some(way)) => self.tell_unmade(bytes, &way),
            Ok(None) => None,
            Err(reason) => Some(Err(reason)),
        };
        match ended {
            Some(Ok(sent)) => self.tables.counters.worker.encapsulated += sent,
            Some(Err(reason)) => self.tables.counters.drop_one(self.ingress, reason),
            None => self.tables.counters.drop_one(self.ingress, otherwise),
        }
    }

    /// The VM that a packet of this port's is for, as far as the port may send it; `None` where it goes to none.
    fn way_of_unmade(&mut self, bytes: &[u8]) -> Result<Option<Way>, DropReason> {
        let role = self.tables.ports.role(self.ingress);
        let Some(&PortRole::Access { vn, mac, admission: admission @ Admission::Activated }) = role else {
            return Ok(None);
        };
        let port = Port::of(self.tables, self.ingress, vn, mac, admission);
        let (Some(port), Ok(frame)) = (port, Frame::read(bytes)) else { return Ok(None) };
        let (disposition, _) = inspect(&frame, &port, self.tables, self.now);
        let way = match disposition {
            Disposition::Unicast(to) => Way { key: Key::new(vn, to), from: Arrival::Local, gateway: None },
            Disposition::Route => {
                let Some(routing) = port.routing else { return Ok(None) };
                let Routed::To(key) = routed::look_up(&frame, &routing, self.tables) else { return Ok(None) };
                Way { key, from: Arrival::Routed, gateway: Some(routing.mac) }
            }
            Disposition::Drop(reason) => return Err(reason),
            _ => return Ok(None),
        };
        if port.filtered {
            let traffic = Traffic::of(&frame, Direction::Out);
            self.tables.ports.may_send(self.ingress, traffic.as_ref(), self.now)?;
        }
        Ok(Some(way))
    }

    /// Tells the sender of a packet what passes, or cuts it: the number of fragments sent, or why it is dropped. `None`
    /// where it is not too big for its way.
    fn tell_unmade(&mut self, bytes: &mut [u8], way: &Way) -> Option<Result<u64, DropReason>> {
        let key = way.key;
        if let Some(gateway) = way.gateway {
            bytes.get_mut(ethernet::HEADER_LEN..).and_then(decrement_ttl)?;
            set_addresses(bytes, key.mac(), gateway);
            self.tables.counters.worker.routed += 1;
        }
        let inbound = way.from.inbound(self.ingress, bytes);
        match self.tables.decide(key, &inbound, self.now).action {
            Action::Drop { reason: DropReason::TooBig, egress: Some(Egress::Tunnel(to)) } => {
                let marks = (DEFAULT_TTL, self.tables.ports.dscp(self.ingress));
                if way.gateway.is_none() {
                    self.tell_too_big_here(bytes, to.tunnel);
                } else if let Some(sent) = self.send_fragments(bytes, key.vn(), to, marks, self.ingress) {
                    return Some(Ok(sent));
                } else {
                    self.tell_routed_too_big(bytes, key.vn(), to, self.ingress);
                }
                Some(Err(DropReason::TooBig))
            }
            Action::Drop { reason, .. } => Some(Err(reason)),
            // The packet cannot wait for the answer; one that is sent again shall find it.
            Action::Query { .. } => {
                self.tables.begin_query(key, self.ingress, self.now).ok()?;
                self.event(Event::MissMac { key, port: self.ingress });
                None
            }
            _ => None,
        }
    }
}
