//! Broadcast, unknown groups and multicast: copies to everybody in the VN (R60).

use godwit_tables::DropReason;
use godwit_tables::Tables;
use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, TunnelIdx, VnIdx};
use godwit_wire::guard::{self, Word};
use godwit_wire::{Frame, Vni};

use crate::context::Context;
use crate::packet::{Packet, PacketSource};
use crate::{DEFAULT_TTL, Output};

/// Where one copy goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Destination {
    /// A VM's port.
    Port(PortIdx),
    /// Another NVE.
    Tunnel(TunnelIdx),
}

/// Whose business a frame is that nobody has read yet.
fn word_of(frame: &[u8]) -> Option<Word> {
    guard::word(&Frame::read(frame).ok()?)
}

/// A VM's frame to a group may go out: what routers and DHCP servers say comes from those only (R66). The overlay's
/// frames were looked at where they came in.
///
/// # Errors
/// Why not.
pub(crate) fn check_word(tables: &Tables, from: PortIdx, word: Option<Word>) -> Result<(), DropReason> {
    match word {
        Some(Word::OfServer) if !tables.ports.is_server(from) => Err(DropReason::NotRouter),
        _ => Ok(()),
    }
}

/// Everybody in the VN but the port that the frame came from. Frames from the overlay go to local
/// ports only (`vni` unset): split horizon (R46a). What is for DHCP servers is shown to no VM but these, so that no
/// other one can answer (R66).
pub(crate) fn destinations<'a>(
    tables: &'a Tables,
    vn: VnIdx,
    from: PortIdx,
    word: Option<Word>,
    to_tunnels: bool,
) -> impl Iterator<Item = Destination> + use<'a> {
    let all = word != Some(Word::ToServer);
    let hears = move |p: PortIdx| p != from && (all || tables.ports.is_server(p));
    let ports = tables.ports.activated(vn).filter(move |&p| hears(p)).map(Destination::Port);
    let tunnels = tables.vns.replicas(vn).filter(move |_| to_tunnels).map(Destination::Tunnel);
    ports.chain(tunnels)
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// Copies a frame to everybody in its VN; with a VNI to the other NVEs, too.
    #[cold]
    pub fn flood(&mut self, packet: P, vn: VnIdx, vni: Option<Vni>) {
        if !packet.is_plain() {
            return self.parts(packet, |cx, part| cx.flood(part, vn, vni));
        }
        let word = word_of(packet.data());
        self.flood_read(packet, vn, vni, word);
    }

    /// The same of a plain frame that has been read: whose business it is.
    pub fn flood_read(&mut self, packet: P, vn: VnIdx, vni: Option<Vni>, word: Option<Word>) {
        if vni.is_some()
            && let Err(reason) = check_word(self.tables, self.ingress, word)
        {
            return self.not_router(packet, reason);
        }
        let mut to = core::mem::take(&mut self.spare.destinations);
        to.clear();
        let room = to.capacity();
        to.extend(destinations(self.tables, vn, self.ingress, word, vni.is_some()).take(room));
        if vni.is_some() && self.tables.vns.get(vn).is_some_and(|v| v.replicas_missing) {
            // A copy that should have been made.
            self.tables.counters.worker.copies += 1;
            self.tables.counters.drop_one(self.ingress, DropReason::ReplicationLimit);
        }
        match to.split_last() {
            None => self.drop(packet, DropReason::NoReceiver),
            Some((&last, rest)) => {
                self.tables.counters.worker.replicated += 1;
                for &d in rest {
                    self.tables.counters.worker.copies += 1;
                    match self.copy(&packet) {
                        Some(copy) => self.replica(copy, d, vn, vni),
                        None => self.tables.counters.drop_one(self.ingress, DropReason::NoBuffer),
                    }
                }
                // The frame itself makes the last journey.
                self.replica(packet, last, vn, vni);
            }
        }
        self.spare.destinations = to;
    }

    /// Drops what only a router may say; control hears of it once a second and port.
    pub fn not_router(&mut self, packet: P, reason: DropReason) {
        if self.tables.ports.may_report_spoof(self.ingress, self.now) {
            self.event(Event::NotRouter { port: self.ingress });
        }
        self.drop(packet, reason);
    }

    fn copy(&mut self, packet: &P) -> Option<P> {
        let mut copy = self.src.alloc()?;
        if copy.set(packet.data()) {
            return Some(copy);
        }
        self.out.discard(copy);
        None
    }

    fn replica(&mut self, packet: P, to: Destination, vn: VnIdx, vni: Option<Vni>) {
        match (to, vni) {
            (Destination::Port(port), _) => self.deliver(port, vn, packet),
            (Destination::Tunnel(tunnel), Some(vni)) => {
                // A tunnel whose next hop does not answer loses broadcast, as a wire would.
                let mark = self.tables.ports.dscp(self.ingress);
                match self.tunnel(packet, tunnel, vni, (DEFAULT_TTL, mark)) {
                    Ok(()) => self.tables.counters.worker.encapsulated += 1,
                    Err((packet, reason)) => self.drop(packet, reason),
                }
            }
            (Destination::Tunnel(_), None) => self.drop(packet, DropReason::NoTunnel),
        }
    }
}
