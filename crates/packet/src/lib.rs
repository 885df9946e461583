//! What packet processing needs of a packet buffer, so that it runs on mbufs, on memory and on captures.
//!
//! A crate of its own, so that neither the pipeline knows DPDK nor DPDK's layer the pipeline.
#![forbid(unsafe_code)]
#![no_std]

/// What the sender of a frame left to be done on its way (R11).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Asks {
    /// Its TCP or UDP checksum is not there yet.
    pub checksum: bool,
    /// It is to be cut into packets of so many bytes of TCP payload; 0: it is not. Implies `checksum`.
    pub segment: u16,
}

impl Asks {
    /// Nothing: the frame can go onto a wire as it is.
    pub const NOTHING: Asks = Asks { checksum: false, segment: 0 };
}

/// Receiver offload capabilities of a port: what may be unfinished in frames to it (R11).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReceiveOffloads {
    /// Frames without their TCP or UDP checksum.
    pub checksum: bool,
    /// TCP over IPv4 in frames larger than its MTU and in several pieces.
    pub tcp4: bool,
    /// The same over IPv6.
    pub tcp6: bool,
}

impl ReceiveOffloads {
    /// Complete frames only.
    pub const NOTHING: ReceiveOffloads = ReceiveOffloads { checksum: false, tcp4: false, tcp6: false };

    /// As the low bits of a byte.
    pub const fn bits(self) -> u8 {
        self.checksum as u8 | (self.tcp4 as u8) << 1 | (self.tcp6 as u8) << 2
    }

    /// From [`ReceiveOffloads::bits`].
    pub const fn from_bits(bits: u8) -> ReceiveOffloads {
        ReceiveOffloads { checksum: bits & 1 != 0, tcp4: bits & 2 != 0, tcp6: bits & 4 != 0 }
    }
}

/// What the receiver of an unfinished frame is told, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unfinished {
    /// Ethernet header and tags.
    pub l2_len: usize,
    /// IP header with options or extensions.
    pub l3_len: usize,
    /// TCP or UDP header with options.
    pub l4_len: usize,
    /// IPv6.
    pub six: bool,
    /// TCP, otherwise UDP.
    pub tcp: bool,
    /// As in [`Asks`].
    pub segment: u16,
}

/// A frame with room before and after it. Nearly all lie in one piece; one that a guest wants cut may be a
/// chain of several.
pub trait Packet {
    /// The frame, from the destination address on, without FCS; of a chain the first piece.
    fn data(&self) -> &[u8];
    /// The same, writable.
    fn data_mut(&mut self) -> &mut [u8];
    /// The whole frame's length in bytes.
    #[inline]
    fn len(&self) -> usize {
        self.data().len()
    }
    /// There are no bytes in it.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Grows the frame by `n` bytes at its front and returns the first piece; the new bytes' content
    /// is unspecified. `None`, and no change, where the headroom is smaller.
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]>;
    /// The same for a number of bytes that is known beforehand; returns the new bytes only.
    #[inline(always)]
    fn prepend_chunk<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.prepend(N)?.first_chunk_mut()
    }
    /// Grows a frame in one piece by `n` bytes at its end and returns them; their content is unspecified.
    /// `None`, and no change, where the tailroom is smaller.
    fn append(&mut self, n: usize) -> Option<&mut [u8]>;
    /// Cuts `n` bytes off the front; `n` is at most the first piece's length.
    fn trim_front(&mut self, n: usize);
    /// Cuts the frame to its first `len` bytes; it lies in one piece and `len` is at most its length.
    fn truncate(&mut self, len: usize);
    /// Keeps the bytes from `from` to `end` only; the frame lies in one piece and is at least that long.
    #[inline(always)]
    fn cut(&mut self, from: usize, end: usize) {
        self.truncate(end);
        self.trim_front(from);
    }
    /// Replaces the content by `bytes`. `false`, and no change, where they do not fit.
    fn set(&mut self, bytes: &[u8]) -> bool;
    /// The frame lies in one piece and asks for nothing: the only kind that the straight lines of packet
    /// processing take. Asked for each frame, so it costs next to nothing.
    #[inline]
    fn is_plain(&self) -> bool {
        true
    }
    /// The frame lies in one piece, whatever it asks for.
    #[inline]
    fn is_contiguous(&self) -> bool {
        true
    }
    /// All pieces in order.
    #[inline]
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        core::iter::once(self.data())
    }
    /// What its sender left to be done.
    #[inline]
    fn asks(&self) -> Asks {
        Asks::NOTHING
    }
    /// Marks the frame as one that asks for nothing.
    #[inline]
    fn finished(&mut self) {}
    /// Has the frame sent as it is, its receiver told what is missing.
    #[inline]
    fn hand_on(&mut self, _missing: Unfinished) {}
    /// [`Packet::hand_on`] was called.
    #[inline]
    fn is_handed_on(&self) -> bool {
        false
    }
}

/// Where the pipeline gets buffers for copies, answers and frames that were held.
pub trait PacketSource<P: Packet> {
    /// An empty buffer with headroom for an outer header, or `None` where the pool is empty.
    fn alloc(&mut self) -> Option<P>;
}
