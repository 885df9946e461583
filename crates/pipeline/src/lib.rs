//! Pure packet processing: burst, tables and time in, verdicts out.
//!
//! No DPDK, no clock, no lock, no log, no allocation: everything comes as an argument, so the same
//! code runs in the switch, in a test, under a fuzzer and in a simulation.
//!
//! # What happens to a burst
//!
//! A frame from a VM's port or an uplink passes, with its whole burst, through passes that are
//! short enough for their memory accesses to overlap:
//!
//! 1. *look*: read the headers, find the VN, hash flow and destination, prefetch its location (one
//!    cache line);
//! 2. *apply*: read the location, encapsulate or decapsulate in place, note the exit;
//! 3. *emit*: frames leave in their order, as many together as go the same way.
//!
//! Known unicast stays on this fast path. Everything else (ARP and ND, broadcast, VMs that
//! move, unknown destinations, the underlay's own traffic, every drop) branches off into cold
//! functions, which look the destination up once more: an earlier frame of the same burst may have
//! changed what is known of it.
//!
//! | File | Does |
//! |---|---|
//! | `classify` | first look at a frame, without side effects |
//! | `access` | frames from VMs: the passes, the decision in full, the cold path |
//! | `disposition` | what a frame from a VM asks for |
//! | `port` | which MACs and addresses a port's VM may send from |
//! | `overlay` | frames from an uplink, VXLAN to us |
//! | `underlay` | frames from an uplink that are not; the exception port |
//! | `encap`, `decap` | putting on and taking off the outer header |
//! | `run` | the burst's frames leave, as many together as go the same way |
//! | `gateway` | what the gateway of a routed VN answers, and tells of what it cannot send on |
//! | `routed` | packets that the gateway sends on; what waits for a route; fragments |
//! | `proxy` | ARP and ND in the overlay: announcements, answers, requests that wait |
//! | `bum` | broadcast and multicast |
//! | `special` | VMs with a special entry: hold, drain, forward in flight; `tick` |
//! | `offload` | frames that a guest left unfinished, or in several pieces |
//! | `too_big` | what does not fit the way: the sender is told |
//! | `trace` | what would happen to a frame, and why: its steps, the walk, the text |
#![forbid(unsafe_code)]
// Truncation is left out: what goes over the packet path is bounded by a frame or a table, and `as` costs nothing.
#![cfg_attr(not(test), warn(clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::cast_lossless))]

mod access;
mod bum;
mod classify;
mod context;
mod decap;
mod disposition;
mod encap;
mod gateway;
pub mod mem;
mod offload;
mod overlay;
pub mod packet;
mod port;
mod proxy;
mod resets;
mod routed;
mod run;
mod special;
mod too_big;
pub mod trace;
mod underlay;

pub use classify::DEFAULT_TTL;
pub use trace::{Trace, trace};

use godwit_tables::event::Event;
use godwit_tables::update::{Key, MAX_PORTS, PortIdx, PortRole};
use godwit_tables::{DropReason, Tables, prefetch};
use godwit_wire::Instant;

use bum::Destination;
use context::Context;
use packet::{Packet, PacketSource, ReceiveOffloads};

/// The most frames that go through the passes together; longer bursts are cut.
pub const MAX_BURST: usize = 64;

/// The longest frame that [`Output::punt`] takes, in bytes: one with a packet of 1,500 bytes and two tags.
pub const MAX_PUNT: usize = 1522;

/// Held frames that one call of [`Pipeline::tick`] sends at most.
pub const DRAIN_BUDGET: u32 = 64;

/// A pass over a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Headers, keys, prefetch of locations.
    Look,
    /// Locations, outer headers.
    Apply,
    /// Frames leave, or take the cold path.
    Emit,
}

/// Where verdicts go. The worker gathers frames by port and sends them together.
pub trait Output<P> {
    /// `packet` leaves through `port`. The pipeline has counted it as sent; an output that cannot
    /// send it tells [`godwit_tables::Counters::not_sent`].
    fn send(&mut self, port: PortIdx, packet: P);
    /// Several that leave through `port`, in order.
    #[inline]
    fn send_run(&mut self, port: PortIdx, packets: impl Iterator<Item = P>) {
        packets.for_each(|packet| self.send(port, packet));
    }
    /// All of `packets` leave through `port`, in order; none stays behind.
    #[inline]
    fn send_all(&mut self, port: PortIdx, packets: &mut Vec<P>) {
        self.send_run(port, packets.drain(..));
    }
    /// For control. `false` where there is no room: the pipeline counts it.
    fn event(&mut self, event: Event) -> bool;
    /// A copy of a VM's frame for control, which came in on `port`: what it answers or learns from (DHCP, router
    /// solicitations, IGMP, MLD). `false` where there is no room, or the frame is longer than [`MAX_PUNT`]: the
    /// pipeline counts it.
    fn punt(&mut self, _port: PortIdx, _frame: &[u8]) -> bool {
        false
    }
    /// What the port takes unfinished (R11). It may change at any time.
    fn receive_offloads(&self, _port: PortIdx) -> ReceiveOffloads {
        ReceiveOffloads::NOTHING
    }
    /// The port has so much to send that held frames had better wait (R45). Asked of moving VMs' frames only.
    fn is_full(&self, _port: PortIdx) -> bool {
        false
    }
    /// A pass is over: for who measures them.
    #[inline(always)]
    fn ended(&mut self, _stage: Stage) {}
    /// `packet` is done with. Override to give buffers back in bulk.
    #[inline]
    fn discard(&mut self, packet: P) {
        drop(packet);
    }
}

/// The scratch memory of packet processing; one a worker.
pub struct Pipeline {
    access: [access::AccessSlot; MAX_BURST],
    overlay: [overlay::OverlaySlot; MAX_BURST],
    seen: decap::Seen,
    spare: Spare,
}

/// Scratch memory of the cold paths, reserved at start.
pub(crate) struct Spare {
    /// One held frame on its way out.
    pub frame: Vec<u8>,
    /// Where a broadcast goes.
    pub destinations: Vec<Destination>,
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline::new()
    }
}

impl Pipeline {
    /// Reserves the scratch memory.
    pub fn new() -> Pipeline {
        Pipeline {
            access: [access::AccessSlot::default(); MAX_BURST],
            overlay: [overlay::OverlaySlot::default(); MAX_BURST],
            seen: decap::Seen::default(),
            spare: Spare {
                frame: Vec::with_capacity(64 * 1024),
                destinations: Vec::with_capacity(MAX_PORTS + 1024),
            },
        }
    }

    /// Processes the frames that came in on `ingress`, in order, and leaves `burst` empty.
    pub fn process<P: Packet, O: Output<P>, S: PacketSource<P>>(
        &mut self,
        burst: &mut Vec<P>,
        ingress: PortIdx,
        tables: &mut Tables,
        out: &mut O,
        src: &mut S,
        now: Instant,
    ) {
        let role = tables.ports.role(ingress).copied();
        let mut cx = Context::new(tables, out, src, &mut self.spare, ingress, now);
        while !burst.is_empty() {
            let n = burst.len().min(MAX_BURST);
            match role {
                Some(PortRole::Access { vn, mac, admission }) => {
                    access::burst(&mut cx, &mut self.access, burst, n, vn, mac, admission);
                }
                Some(PortRole::Uplink { .. }) => {
                    let uplink = underlay::Uplink::of(ingress, &role);
                    overlay::burst(&mut cx, &mut self.overlay, burst, n, &uplink, &mut self.seen);
                }
                Some(PortRole::Exception { uplink }) => underlay::from_exception(&mut cx, burst, n, uplink),
                None => cx.refuse(burst, n, DropReason::PortUnknown),
            }
        }
    }

    /// Puts the tag of the VLAN that `port` is in, if it is an uplink in one, into a frame of control's (R95). False,
    /// and no change, where the headroom is too small.
    pub fn tag<P: Packet>(packet: &mut P, port: PortIdx, tables: &Tables) -> bool {
        match tables.ports.role(port) {
            Some(&PortRole::Uplink { vlan, .. }) => underlay::put_in_vlan(packet, vlan),
            _ => true,
        }
    }

    /// Sends frames another way that had been sent to `port` of the VM `key`, which runs there no longer: wherever
    /// the tables say now (R45). Leaves `frames` empty. They count as decapsulated again when they are delivered.
    pub fn redirect<P: Packet, O: Output<P>, S: PacketSource<P>>(
        &mut self,
        frames: &mut Vec<P>,
        (port, key): (PortIdx, Key),
        tables: &mut Tables,
        out: &mut O,
        src: &mut S,
        now: Instant,
    ) {
        let is_known = tables.vns.get(key.vn()).is_some();
        let mut cx = Context::new(tables, out, src, &mut self.spare, port, now);
        for packet in frames.drain(..) {
            match is_known {
                true => cx.resolve(packet, key, classify::Arrival::RETURNED),
                false => cx.drop(packet, DropReason::UnknownVn),
            }
        }
    }

    /// Asks the cache for what [`Self::process`] will read and write of a burst that a device has put into
    /// memory. Of one that this core has copied there all is near already, and asking would cost 3 % of its time.
    #[inline]
    pub fn fetch<P: Packet>(burst: &[P], ingress: PortIdx, tables: &Tables) {
        // The headroom into which the outer header goes, or the second line, where the inner destination is.
        let before = match tables.ports.role(ingress) {
            Some(PortRole::Access { .. }) => 64,
            _ => -64,
        };
        for packet in burst {
            prefetch::read(packet.data());
            prefetch::near(packet.data(), before);
        }
    }

    /// Does what time asks for: sends held frames (at most [`DRAIN_BUDGET`]), ends what has ended,
    /// answers requests that waited, reports handovers. A few comparisons where nothing is due, so
    /// call it every iteration.
    #[inline]
    pub fn tick<P: Packet, O: Output<P>, S: PacketSource<P>>(
        &mut self,
        tables: &mut Tables,
        out: &mut O,
        src: &mut S,
        now: Instant,
    ) {
        if tables.ready() > 0
            || tables.specials_due(now)
            || tables.asks_due(now)
            || tables.has_arrivals()
            || tables.awaited_due(now)
        {
            let port = PortIdx(u16::MAX);
            special::tick(&mut Context::new(tables, out, src, &mut self.spare, port, now));
        }
    }
}
