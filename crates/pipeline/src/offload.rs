//! Frames that a guest left unfinished or that lie in several pieces (R11).
//!
//! Such a frame is never plain, so it does not take the fast path. To a VM here that can do without
//! what is missing it goes as it is; for everything else (a tunnel, a hold, copies, a VM that cannot) it
//! becomes plain frames first, each in one buffer with its checksums right, and these go the way of any
//! other.

use godwit_tables::DropReason;
use godwit_tables::update::{Key, PortIdx};
use godwit_tables::vms::Fib;
use godwit_wire::offload::{Cut, Layers};
use godwit_wire::{Frame, WireError};

use crate::Output;
use crate::classify::Arrival;
use crate::context::Context;
use crate::packet::{Asks, Packet, PacketSource, ReceiveOffloads, Unfinished};

/// Bytes that the first of several pieces must have: Ethernet, two tags, the largest IPv4 or a usual IPv6
/// header, the largest TCP header. Drivers fill one buffer before they begin the next.
const FIRST_PIECE: usize = 14 + 8 + 60 + 60;

/// A frame that is not plain may be looked at: its first piece has its headers, and what it asks for can be
/// done. `frame`: as it was read, if it could be.
///
/// # Errors
/// Why it is dropped.
pub(crate) fn admit<P: Packet>(packet: &P, frame: Option<&Frame<'_>>) -> Result<(), DropReason> {
    let (first, len) = (packet.data(), packet.len());
    if first.len() < len && first.len() < FIRST_PIECE {
        return Err(DropReason::NotContiguous);
    }
    let asks = packet.asks();
    if asks == Asks::NOTHING {
        return Ok(());
    }
    frame.and_then(|f| missing(f, asks)).map(|_| ()).ok_or(DropReason::BadOffload)
}

/// Reads a frame from its first piece.
///
/// # Errors
/// As [`Frame::read_first`].
pub(crate) fn read<P: Packet>(packet: &P) -> Result<Frame<'_>, WireError> {
    Frame::read_first(packet.data(), packet.len())
}

/// What is missing of a frame; `None` where its headers do not allow what it asks for.
fn missing(frame: &Frame<'_>, asks: Asks) -> Option<Unfinished> {
    let layers = match asks.segment {
        0 => Layers::of(frame).ok()?,
        segment => *Cut::of(frame, segment).ok()?.layers(),
    };
    let Layers { l3, l4, payload, six, tcp, .. } = layers;
    Some(Unfinished { l2_len: l3, l3_len: l4 - l3, l4_len: payload - l4, six, tcp, segment: asks.segment })
}

/// Whether a receiver that takes so much can be given the frame as it is.
fn suits<P: Packet>(packet: &P, told: &Unfinished, takes: ReceiveOffloads) -> bool {
    let whole = packet.data().len() == packet.len();
    let large = if told.six { takes.tcp6 } else { takes.tcp4 };
    takes.checksum && (large || whole && told.segment == 0)
}

/// Reads the pieces of a frame one after the other.
struct Reader<'a, I> {
    pieces: I,
    rest: &'a [u8],
}

impl<'a, I: Iterator<Item = &'a [u8]>> Reader<'a, I> {
    fn new(mut pieces: I) -> Self {
        let rest = pieces.next().unwrap_or_default();
        Reader { pieces, rest }
    }

    /// Steps over the next `n` bytes, at most to the end.
    fn skip(&mut self, mut n: usize) {
        while n > self.rest.len() {
            n -= self.rest.len();
            let Some(next) = self.pieces.next() else {
                self.rest = &[];
                return;
            };
            self.rest = next;
        }
        self.rest = &self.rest[n..];
    }

    /// Fills `to`; `false` where the frame ends before.
    fn read(&mut self, mut to: &mut [u8]) -> bool {
        loop {
            let n = to.len().min(self.rest.len());
            let (now, later) = to.split_at_mut(n);
            now.copy_from_slice(&self.rest[..n]);
            self.rest = &self.rest[n..];
            if later.is_empty() {
                return true;
            }
            to = later;
            match self.pieces.next() {
                Some(next) => self.rest = next,
                None => return false,
            }
        }
    }
}

impl<P: Packet, O: Output<P>, S: PacketSource<P>> Context<'_, P, O, S> {
    /// [`Context::resolve`] for frames that are not plain.
    #[cold]
    #[inline(never)]
    pub fn resolve_parts(&mut self, mut packet: P, key: Key, from: Arrival) {
        // A policy looks at packets, not at what will become some.
        if let Some(Fib::Local(port)) = self.tables.vms.get(key)
            && !self.tables.ports.is_filtered(port)
            && let Some(told) = self.as_it_is(&packet, port)
        {
            packet.hand_on(told);
            self.tables.counters.worker.handed_on += 1;
            return self.resolve_whole(packet, key, from);
        }
        self.parts(packet, |cx, part| cx.resolve(part, key, from));
    }

    fn as_it_is(&self, packet: &P, port: PortIdx) -> Option<Unfinished> {
        let asks = packet.asks();
        if asks == Asks::NOTHING {
            return None;
        }
        let told = missing(&read(packet).ok()?, asks)?;
        suits(packet, &told, self.out.receive_offloads(port)).then_some(told)
    }

    /// Turns a frame into plain ones, each in one buffer, and does `then` with each of them, in order.
    /// What cannot be turned is dropped and counted.
    pub fn parts(&mut self, packet: P, then: impl FnMut(&mut Self, P)) {
        match packet.asks() {
            Asks { segment: 0, checksum } => self.one_part(packet, checksum, then),
            Asks { segment, .. } => self.segments(packet, segment, then),
        }
    }

    fn one_part(&mut self, packet: P, checksum: bool, mut then: impl FnMut(&mut Self, P)) {
        let mut packet = match self.in_one_piece(packet) {
            Ok(packet) => packet,
            Err((packet, reason)) => return self.end_in_pieces(packet, checksum, reason),
        };
        if checksum {
            let layers = read(&packet).and_then(|frame| Layers::of(&frame));
            if !layers.is_ok_and(|l| l.complete(packet.data_mut())) {
                return self.drop(packet, DropReason::BadOffload);
            }
            self.tables.counters.worker.checksums_completed += 1;
        }
        packet.finished();
        then(self, packet);
    }

    /// The frame, copied into one buffer where it lies in several.
    fn in_one_piece(&mut self, packet: P) -> Result<P, (P, DropReason)> {
        let len = packet.len();
        if packet.data().len() == len {
            return Ok(packet);
        }
        let Some(mut one) = self.src.alloc() else { return Err((packet, DropReason::NoBuffer)) };
        let copied = one.append(len).is_some_and(|to| Reader::new(packet.pieces()).read(to));
        if !copied {
            self.out.discard(one);
            return Err((packet, DropReason::NotContiguous));
        }
        self.out.discard(packet);
        Ok(one)
    }

    /// Ends a frame in several pieces that cannot be put into one; see [`Context::end_unmade`].
    #[cold]
    fn end_in_pieces(&mut self, packet: P, checksum: bool, otherwise: DropReason) {
        let mut bytes = core::mem::take(&mut self.spare.frame);
        bytes.clear();
        if packet.len() > bytes.capacity() {
            self.tables.counters.drop_one(self.ingress, otherwise);
        } else {
            packet.pieces().for_each(|piece| bytes.extend_from_slice(piece));
            let layers = Frame::read(&bytes).and_then(|frame| Layers::of(&frame));
            if checksum && !layers.is_ok_and(|l| l.complete(&mut bytes)) {
                self.tables.counters.drop_one(self.ingress, DropReason::BadOffload);
            } else {
                self.end_unmade(&mut bytes, otherwise);
            }
        }
        self.spare.frame = bytes;
        self.out.discard(packet);
    }

    /// Ends packet `i` of a frame that is cut, for which there is no buffer.
    #[cold]
    fn end_segment<'a>(
        &mut self,
        packet: &P,
        cut: &Cut,
        i: usize,
        payload: &mut Reader<'a, impl Iterator<Item = &'a [u8]>>,
        otherwise: DropReason,
    ) {
        let header = packet.data().get(..cut.header_len()).unwrap_or_default();
        let mut bytes = core::mem::take(&mut self.spare.frame);
        bytes.clear();
        if header.len() + cut.payload_len(i) > bytes.capacity() {
            payload.skip(cut.payload_len(i));
            self.tables.counters.drop_one(self.ingress, otherwise);
        } else {
            bytes.extend_from_slice(header);
            bytes.resize(header.len() + cut.payload_len(i), 0);
            // The cut has been fitted to the frame's length, so neither can fail.
            let made = payload.read(&mut bytes[header.len()..]) && cut.finish(i, &mut bytes);
            debug_assert!(made);
            self.end_unmade(&mut bytes, otherwise);
        }
        self.spare.frame = bytes;
    }

    fn segments(&mut self, packet: P, segment: u16, mut then: impl FnMut(&mut Self, P)) {
        let Ok(cut) = read(&packet).and_then(|frame| Cut::of(&frame, segment)) else {
            return self.drop(packet, DropReason::BadOffload);
        };
        self.tables.counters.worker.segmented += 1;
        self.tables.counters.worker.copies += cut.count() as u64 - 1;
        {
            let mut payload = Reader::new(packet.pieces());
            payload.skip(cut.header_len());
            for i in 0..cut.count() {
                match self.segment(&packet, &cut, i, &mut payload) {
                    Ok(part) => then(self, part),
                    Err(reason) => self.end_segment(&packet, &cut, i, &mut payload, reason),
                }
            }
        }
        self.out.discard(packet);
    }

    /// Packet `i` of a frame.
    ///
    /// # Errors
    /// [`DropReason::NoBuffer`], [`DropReason::NotContiguous`] where no buffer holds it. Nothing was read then.
    fn segment<'a>(
        &mut self,
        packet: &P,
        cut: &Cut,
        i: usize,
        payload: &mut Reader<'a, impl Iterator<Item = &'a [u8]>>,
    ) -> Result<P, DropReason> {
        // The first piece has the headers, or there was no cut.
        let header = packet.data().get(..cut.header_len()).unwrap_or_default();
        let mut part = self.src.alloc().ok_or(DropReason::NoBuffer)?;
        let Some(to) = part.append(header.len() + cut.payload_len(i)) else {
            self.out.discard(part);
            return Err(DropReason::NotContiguous);
        };
        let (head, tail) = to.split_at_mut(header.len());
        head.copy_from_slice(header);
        // The cut has been fitted to the frame's length, so neither can fail.
        let made = payload.read(tail) && cut.finish(i, to);
        debug_assert!(made);
        Ok(part)
    }
}
