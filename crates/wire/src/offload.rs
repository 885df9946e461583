//! What a guest may leave undone in a frame: its transport checksum, and the cutting of a large TCP
//! segment into those that fit the link (R11).
//!
//! Nothing of this trusts the guest's offsets: everything is read from the headers, and whatever is left
//! undone is computed from them anew. A frame may lie in several pieces, the first of which holds all
//! headers.

use crate::bytes::{put_u16, put_u32, u16_at, u32_at, v4_at, v6_at};
use crate::checksum::{self, fold, pseudo_v4, pseudo_v6, udp_field};
use crate::error::WireError;
use crate::frame::{Frame, Network};
use crate::{ipv6, proto, tcp};

/// Packets that one frame is cut into at most. A 64 KiB segment makes 45 of an MTU of 1,500 bytes; a guest
/// that asks for ever smaller ones asks for an amplifier.
pub const MAX_SEGMENTS: usize = 256;

/// IPv6 extension headers that may precede the transport header.
const MAX_EXTENSIONS: u16 = 8;
/// What only the last packet of a cut frame has: no more data, deliver without delay.
const LAST_ONLY: u8 = tcp::FIN | tcp::PSH;
/// What only the first has: the congestion window was reduced (RFC 3168 section 6.1.2).
const CWR: u8 = 0x80;
/// What only those before its pointer's end have: urgent data.
const URG: u8 = 0x20;
/// No sender cuts a frame with one of these.
const NEVER: u8 = tcp::SYN | tcp::RST;

const TCP_CHECKSUM: usize = 16;
const TCP_URGENT: usize = 18;
const UDP_CHECKSUM: usize = 6;
const UDP_HEADER: usize = 8;

/// Where the layers of a frame lie, in bytes from its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layers {
    /// The IP header.
    pub l3: usize,
    /// The TCP or UDP header.
    pub l4: usize,
    /// The payload.
    pub payload: usize,
    /// The end of the IP packet; what comes after it is padding.
    pub end: usize,
    /// IPv6.
    pub six: bool,
    /// TCP, otherwise UDP.
    pub tcp: bool,
}

impl Layers {
    /// What there is to complete or to cut of a frame, which has to begin with all of its headers. Up to two tags, IPv4
    /// options and those IPv6 extension headers that leave the pseudo-header alone may precede TCP or UDP.
    ///
    /// # Errors
    /// [`WireError::NotThis`] where it is neither TCP nor UDP over IP, [`WireError::Fragment`] (a
    /// fragment's checksum covers more than itself), and what else is wrong with a length.
    pub fn of(frame: &Frame<'_>) -> Result<Layers, WireError> {
        let (ip, six) = match frame.network() {
            Network::V4(ip) => (ip, false),
            Network::V6(ip) => (ip, true),
            Network::Malformed(why) => return Err(why),
            Network::Unknown => return Err(WireError::Truncated),
            Network::NotIp if frame.ethertype().is_tag() => return Err(WireError::TooDeep),
            Network::NotIp => return Err(WireError::NotThis),
        };
        let upper = ip.upper?;
        if upper.fragment.is_some() {
            return Err(WireError::Fragment);
        }
        // A routing header would put another destination into the pseudo-header.
        if !upper.only_options {
            return Err(WireError::NotThis);
        }
        if upper.extensions > MAX_EXTENSIONS {
            return Err(WireError::TooDeep);
        }
        let (l4, end, tcp) = (upper.at, ip.end, upper.proto == proto::TCP);
        let payload = l4 + transport(frame.bytes(), l4, end, upper.proto)?;
        Ok(Layers { l3: frame.l3(), l4, payload, end, six, tcp })
    }

    /// The checksum field.
    pub fn checksum_at(&self) -> usize {
        self.l4 + if self.tcp { TCP_CHECKSUM } else { UDP_CHECKSUM }
    }

    /// The sum of the pseudo-header for a transport header and payload of `len` bytes.
    fn pseudo(&self, headers: &[u8], len: usize) -> u64 {
        let proto = if self.tcp { proto::TCP } else { proto::UDP };
        if self.six {
            let (src, dst) = (v6_at(headers, self.l3 + 8), v6_at(headers, self.l3 + 24));
            pseudo_v6(src, dst, proto, len as u32)
        } else {
            let (src, dst) = (v4_at(headers, self.l3 + 12), v4_at(headers, self.l3 + 16));
            pseudo_v4(src, dst, proto, len as u16)
        }
    }

    /// Writes the right transport checksum into a frame that lies in one piece, from whose first bytes
    /// these layers were read. `false`, and no change, where the frame is shorter than they say.
    #[must_use]
    pub fn complete(&self, frame: &mut [u8]) -> bool {
        let at = self.checksum_at();
        if frame.len() < self.end || at + 2 > self.end {
            return false;
        }
        put_u16(frame, at, 0);
        let sum = self.pseudo(frame, self.end - self.l4) + checksum::sum(&frame[self.l4..self.end]);
        let sum = !fold(sum);
        put_u16(frame, at, if self.tcp { sum } else { udp_field(sum) });
        true
    }
}

/// Bytes of transport header.
fn transport(first: &[u8], l4: usize, end: usize, proto: u8) -> Result<usize, WireError> {
    let header = match proto {
        proto::TCP if first.len() < l4 + tcp::HEADER_LEN => return Err(WireError::Truncated),
        proto::TCP => usize::from(first[l4 + 12] >> 4) * 4,
        proto::UDP if first.len() < l4 + UDP_HEADER => return Err(WireError::Truncated),
        proto::UDP if l4 + usize::from(u16_at(first, l4 + 4)) != end => return Err(WireError::BadLength),
        proto::UDP => UDP_HEADER,
        _ => return Err(WireError::NotThis),
    };
    if proto == proto::TCP && header < tcp::HEADER_LEN || l4 + header > end {
        return Err(WireError::BadLength);
    }
    if l4 + header > first.len() {
        return Err(WireError::Truncated);
    }
    Ok(header)
}

/// How a TCP frame is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    layers: Layers,
    /// Payload bytes of every packet but the last.
    segment: usize,
    count: usize,
}

impl Cut {
    /// Cuts a frame, or what its first piece begins, into packets of at most `segment` bytes of TCP payload.
    ///
    /// # Errors
    /// As [`Layers::of`]; [`WireError::NotThis`] where it is not TCP; [`WireError::BadField`] where it opens
    /// or resets a connection, `segment` is 0 or would make more than [`MAX_SEGMENTS`] packets.
    pub fn of(frame: &Frame<'_>, segment: u16) -> Result<Cut, WireError> {
        let layers = Layers::of(frame)?;
        if !layers.tcp {
            return Err(WireError::NotThis);
        }
        let segment = usize::from(segment);
        if segment == 0 || frame.bytes()[layers.l4 + 13] & NEVER != 0 {
            return Err(WireError::BadField);
        }
        let count = (layers.end - layers.payload).div_ceil(segment).max(1);
        if count > MAX_SEGMENTS {
            return Err(WireError::BadField);
        }
        Ok(Cut { layers, segment, count })
    }

    /// Where the frame's layers lie.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Packets that come of it: 1 or more.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of all headers; each packet begins with a copy of them.
    pub fn header_len(&self) -> usize {
        self.layers.payload
    }

    /// Bytes of payload in packet `i`, counted from 0: they follow those of packet `i - 1`.
    pub fn payload_len(&self, i: usize) -> usize {
        let all = self.layers.end - self.layers.payload;
        all.saturating_sub(i * self.segment).min(self.segment)
    }

    /// Makes `frame`, which holds a copy of the headers and the payload of packet `i`, that packet: lengths,
    /// IPv4 identification, sequence number, flags, checksums. `false`, and no change, where its length is
    /// another.
    #[must_use]
    pub fn finish(&self, i: usize, frame: &mut [u8]) -> bool {
        if i >= self.count || frame.len() != self.header_len() + self.payload_len(i) {
            return false;
        }
        let Layers { l3, l4, six, .. } = self.layers;
        if six {
            put_u16(frame, l3 + 4, (frame.len() - l3 - ipv6::HEADER_LEN) as u16);
        } else {
            put_u16(frame, l3 + 2, (frame.len() - l3) as u16);
            let ident = u16_at(frame, l3 + 4).wrapping_add(i as u16);
            put_u16(frame, l3 + 4, ident);
            put_u16(frame, l3 + 10, 0);
            let header = checksum::checksum(&frame[l3..l4]);
            put_u16(frame, l3 + 10, header);
        }
        self.finish_tcp(i, &mut frame[l4..]);
        let layers = Layers { end: frame.len(), ..self.layers };
        layers.complete(frame)
    }

    fn finish_tcp(&self, i: usize, segment: &mut [u8]) {
        let before = i * self.segment;
        put_u32(segment, 4, u32_at(segment, 4).wrapping_add(before as u32));
        let mut flags = segment[13];
        if i > 0 {
            flags &= !CWR;
        }
        if i + 1 < self.count {
            flags &= !LAST_ONLY;
        }
        if flags & URG != 0 {
            // The pointer counts from the packet's own sequence number.
            let left = usize::from(u16_at(segment, TCP_URGENT)).saturating_sub(before);
            put_u16(segment, TCP_URGENT, left as u16);
            if left == 0 && i > 0 {
                flags &= !URG;
            }
        }
        segment[13] = flags;
    }
}
