//! Packets, pools and outboxes in ordinary memory: for tests, benchmarks and simulations, which
//! run the very pipeline that runs on mbufs.

use godwit_tables::event::Event;
use godwit_tables::update::PortIdx;

use crate::packet::{Asks, Packet, PacketSource, ReceiveOffloads, Unfinished};
use crate::{MAX_PUNT, Output};

/// Bytes before the frame in a fresh [`MemPacket`], as in an mbuf.
pub const HEADROOM: usize = 128;
/// The longest frame that [`MemPacket::set`](Packet::set) takes: a jumbo frame and some.
pub const MAX_FRAME: usize = 16 * 1024;

/// A frame in a `Vec`, with headroom.
#[derive(Clone, Debug)]
pub struct MemPacket {
    buf: Vec<u8>,
    start: usize,
    /// The longest frame that it holds.
    room: usize,
    /// What a plain frame does not have; apart, so that plain ones stay small.
    more: Option<Box<More>>,
}

/// What makes a frame one that is not plain.
#[derive(Clone, Default, Debug)]
struct More {
    /// The pieces that follow the first.
    others: Vec<Vec<u8>>,
    asks: Asks,
    doubted: bool,
    handed_on: Option<Unfinished>,
}

impl MemPacket {
    /// Holds `frame`, with [`HEADROOM`] bytes before it.
    pub fn new(frame: &[u8]) -> MemPacket {
        MemPacket::with_headroom(frame, HEADROOM)
    }

    /// Holds `frame`, with `headroom` bytes before it.
    pub fn with_headroom(frame: &[u8], headroom: usize) -> MemPacket {
        let mut buf = vec![0; headroom + frame.len()];
        buf[headroom..].copy_from_slice(frame);
        MemPacket { buf, start: headroom, room: MAX_FRAME, more: None }
    }

    /// Lies in pieces of at most `size` bytes, as a chained mbuf does.
    #[must_use]
    pub fn in_pieces(mut self, size: usize) -> MemPacket {
        let rest = self.buf.split_off(self.buf.len().min(self.start + size));
        if !rest.is_empty() {
            self.more().others = rest.chunks(size).map(<[u8]>::to_vec).collect();
        }
        self
    }

    /// Its sender left this to be done.
    #[must_use]
    pub fn asking(mut self, asks: Asks) -> MemPacket {
        self.more().asks = asks;
        self
    }

    /// A card calls its TCP or UDP checksum wrong.
    #[must_use]
    pub fn doubted(mut self) -> MemPacket {
        self.more().doubted = true;
        self
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    fn others(&self) -> &[Vec<u8>] {
        self.more.as_ref().map_or(&[], |m| &m.others)
    }

    /// What its receiver is told, where it was handed on unfinished.
    pub fn handed_on(&self) -> Option<Unfinished> {
        self.more.as_ref().and_then(|m| m.handed_on)
    }

    /// The whole frame in one piece.
    pub fn bytes(&self) -> Vec<u8> {
        self.pieces().flatten().copied().collect()
    }
}

impl PartialEq for MemPacket {
    fn eq(&self, other: &MemPacket) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Packet for MemPacket {
    #[inline]
    fn data(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..]
    }

    #[inline]
    fn len(&self) -> usize {
        self.buf.len() - self.start + self.others().iter().map(Vec::len).sum::<usize>()
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(n)?;
        Some(self.data_mut())
    }

    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        let old = self.data().len();
        if !self.others().is_empty() || n > self.room - old.min(self.room) {
            return None;
        }
        self.buf.resize(self.start + old + n, 0);
        Some(&mut self.data_mut()[old..])
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        debug_assert!(n <= self.data().len());
        self.start += n;
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        debug_assert!(len <= self.data().len());
        self.buf.truncate(self.start + len);
    }

    fn set(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room || !self.others().is_empty() {
            return false;
        }
        self.buf.truncate(self.start);
        self.buf.extend_from_slice(bytes);
        true
    }

    #[inline]
    fn is_plain(&self) -> bool {
        self.more.as_ref().is_none_or(|m| m.others.is_empty() && m.asks == Asks::NOTHING && !m.doubted)
    }

    #[inline]
    fn is_contiguous(&self) -> bool {
        self.others().is_empty()
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.data()).chain(self.others().iter().map(Vec::as_slice))
    }

    fn asks(&self) -> Asks {
        self.more.as_ref().map_or(Asks::NOTHING, |m| m.asks)
    }

    fn finished(&mut self) {
        if let Some(more) = &mut self.more {
            more.asks = Asks::NOTHING;
            more.doubted = false;
        }
    }

    fn hand_on(&mut self, missing: Unfinished) {
        self.more().handed_on = Some(missing);
    }

    fn is_handed_on(&self) -> bool {
        self.handed_on().is_some()
    }
}

/// Makes [`MemPacket`]s, endlessly or a given number.
#[derive(Clone, Debug)]
pub struct MemPool {
    left: Option<usize>,
    taken: usize,
    room: usize,
}

impl Default for MemPool {
    fn default() -> MemPool {
        MemPool { left: None, taken: 0, room: MAX_FRAME }
    }
}

impl MemPool {
    /// Never empty.
    pub fn endless() -> MemPool {
        MemPool::default()
    }

    /// Empty after `packets` allocations.
    pub fn of(packets: usize) -> MemPool {
        MemPool { left: Some(packets), ..MemPool::default() }
    }

    /// Its packets hold frames of at most `room` bytes, as mbufs do.
    #[must_use]
    pub fn with_room(self, room: usize) -> MemPool {
        MemPool { room, ..self }
    }

    /// Packets taken so far.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

impl PacketSource<MemPacket> for MemPool {
    fn alloc(&mut self) -> Option<MemPacket> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        self.taken += 1;
        Some(MemPacket { room: self.room, ..MemPacket::new(&[]) })
    }
}

/// Keeps what the pipeline sends and says, in order.
#[derive(Clone, Debug)]
pub struct MemOutput<P> {
    /// Frames sent, each with its port.
    pub sent: Vec<(PortIdx, P)>,
    /// Events raised.
    pub events: Vec<Event>,
    /// Frames handed to control, each with the port that it came in on.
    pub punted: Vec<(PortIdx, Vec<u8>)>,
    /// Frames that control has room for.
    pub punt_room: usize,
    /// Frames dropped.
    pub discarded: usize,
    /// Events that find room; the rest is refused.
    pub event_room: usize,
    /// What every port takes unfinished.
    pub takes: ReceiveOffloads,
    /// Frames that a port takes before it is full.
    pub port_room: usize,
    /// Ports that are full whatever they took.
    pub busy: Vec<PortIdx>,
}

impl<P> Default for MemOutput<P> {
    fn default() -> Self {
        MemOutput {
            sent: Vec::new(),
            events: Vec::new(),
            punted: Vec::new(),
            punt_room: usize::MAX,
            discarded: 0,
            event_room: usize::MAX,
            takes: ReceiveOffloads::NOTHING,
            port_room: usize::MAX,
            busy: Vec::new(),
        }
    }
}

impl<P: Packet> MemOutput<P> {
    /// Nothing sent, nothing said.
    pub fn new() -> MemOutput<P> {
        MemOutput::default()
    }

    /// The frames sent to a port, in order.
    pub fn to(&self, port: PortIdx) -> Vec<&[u8]> {
        self.sent.iter().filter(|s| s.0 == port).map(|s| s.1.data()).collect()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sent.clear();
        self.events.clear();
        self.punted.clear();
        self.discarded = 0;
    }
}

impl<P: Packet> Output<P> for MemOutput<P> {
    #[inline]
    fn send(&mut self, port: PortIdx, packet: P) {
        self.sent.push((port, packet));
    }

    fn event(&mut self, event: Event) -> bool {
        let room = self.events.len() < self.event_room;
        if room {
            self.events.push(event);
        }
        room
    }

    fn punt(&mut self, port: PortIdx, frame: &[u8]) -> bool {
        let room = self.punted.len() < self.punt_room && frame.len() <= MAX_PUNT;
        if room {
            self.punted.push((port, frame.to_vec()));
        }
        room
    }

    fn receive_offloads(&self, _port: PortIdx) -> ReceiveOffloads {
        self.takes
    }

    fn is_full(&self, port: PortIdx) -> bool {
        self.busy.contains(&port) || self.port_room < usize::MAX && self.to(port).len() >= self.port_room
    }

    fn discard(&mut self, packet: P) {
        drop(packet);
        self.discarded += 1;
    }
}
