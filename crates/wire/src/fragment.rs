//! Cutting of IPv4 packets that are too large for their way (RFC 791 section 3.2, R8).

use crate::bytes::{put_u16, u16_at};
use crate::checksum;
use crate::error::WireError;
use crate::ipv4::{self, Ipv4};

/// Offset of the flags and the fragment offset.
const FRAG: usize = 6;
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// The largest header.
const MAX_HEADER: usize = 60;
/// An option with this bit stands in each fragment, others in the first alone.
const COPIED: u8 = 0x80;

/// How a packet is cut.
#[derive(Clone, Copy, Debug)]
pub struct Fragments {
    /// The packet's own flags and offset.
    frag: u16,
    header: [u8; MAX_HEADER],
    header_len: usize,
    /// The header of each fragment but the first.
    later: [u8; MAX_HEADER],
    later_len: usize,
    /// Bytes of payload.
    payload: usize,
    /// Of these in the first fragment, and in each later one but the last.
    first: usize,
    step: usize,
}

impl Fragments {
    /// Cuts a packet into fragments of at most `mtu` bytes. A packet that fits is one fragment.
    ///
    /// # Errors
    /// What [`Ipv4::new_checked`] says; [`WireError::NotThis`] where the packet must not be cut;
    /// [`WireError::BadField`] of options that cannot be read; [`WireError::BadLength`] where `mtu` has no room for a
    /// header and eight bytes.
    pub fn of(packet: &[u8], mtu: usize) -> Result<Fragments, WireError> {
        let ip = Ipv4::new_checked(packet)?;
        if ip.dont_fragment() {
            return Err(WireError::NotThis);
        }
        let header_len = ip.header_len();
        let mut header = [0; MAX_HEADER];
        header[..header_len].copy_from_slice(&packet[..header_len]);
        let (later, later_len) = later_header(&packet[..header_len])?;
        let payload = ip.payload().len();
        let room = |header: usize| mtu.checked_sub(header).map_or(0, |n| n & !7);
        let (first, step) = (room(header_len), room(later_len));
        if first == 0 || step == 0 {
            return Err(WireError::BadLength);
        }
        let first = if ip.total_len() <= mtu { payload } else { first };
        let frag = u16_at(packet, FRAG);
        Ok(Fragments { frag, header, header_len, later, later_len, payload, first, step })
    }

    /// Fragments that come of it: 1 or more.
    pub fn count(&self) -> usize {
        1 + self.payload.saturating_sub(self.first).div_ceil(self.step)
    }

    /// Where the payload of fragment `i` lies in that of the packet, and how long it is.
    fn part(&self, i: usize) -> (usize, usize) {
        let (from, room) = match i {
            0 => (0, self.first),
            _ => (self.first + (i - 1) * self.step, self.step),
        };
        (from, self.payload.saturating_sub(from).min(room))
    }

    /// Bytes of fragment `i`.
    pub fn len(&self, i: usize) -> usize {
        (if i == 0 { self.header_len } else { self.later_len }) + self.part(i).1
    }

    /// There is always one fragment.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes fragment `i` of `packet`, which is the one that was cut; returns its length.
    ///
    /// # Errors
    /// [`WireError::NoSpace`]; [`WireError::Truncated`] where the packet is a shorter one.
    pub fn emit(&self, i: usize, packet: &[u8], to: &mut [u8]) -> Result<usize, WireError> {
        let (header, len) = match i {
            0 => (&self.header, self.header_len),
            _ => (&self.later, self.later_len),
        };
        let (from, part) = self.part(i);
        let start = self.header_len + from;
        let payload = packet.get(start..start + part).ok_or(WireError::Truncated)?;
        let to = to.get_mut(..len + part).ok_or(WireError::NoSpace)?;
        to[..len].copy_from_slice(&header[..len]);
        to[len..].copy_from_slice(payload);
        let more = if from + part < self.payload { MORE } else { self.frag & MORE };
        let offset = (self.frag & OFFSET) + (from / 8) as u16;
        put_u16(to, 2, (len + part) as u16);
        put_u16(to, FRAG, self.frag & !(MORE | OFFSET) | more | offset & OFFSET);
        put_u16(to, 10, 0);
        let sum = checksum::checksum(&to[..len]);
        put_u16(to, 10, sum);
        Ok(len + part)
    }
}

/// The header with those options alone that stand in each fragment.
fn later_header(header: &[u8]) -> Result<([u8; MAX_HEADER], usize), WireError> {
    let mut later = [0; MAX_HEADER];
    later[..ipv4::HEADER_LEN].copy_from_slice(&header[..ipv4::HEADER_LEN]);
    let (mut rest, mut at) = (&header[ipv4::HEADER_LEN..], ipv4::HEADER_LEN);
    while let [kind, ..] = *rest {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => match rest.get(1) {
                Some(&len) if len >= 2 && usize::from(len) <= rest.len() => usize::from(len),
                _ => return Err(WireError::BadField),
            },
        };
        if kind & COPIED != 0 {
            later[at..at + len].copy_from_slice(&rest[..len]);
            at += len;
        }
        rest = &rest[len..];
    }
    // What fills the last word up is the end of the list: 0.
    let len = at.next_multiple_of(4);
    later[0] = 0x40 | (len / 4) as u8;
    Ok((later, len))
}
