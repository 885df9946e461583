//! UDP (RFC 768).

use crate::bytes::{put_u16, u16_at};
use crate::checksum::{fold, pseudo_v4, pseudo_v6, sum};
use crate::error::WireError;
use crate::proto;
use core::net::{Ipv4Addr, Ipv6Addr};

mod field {
    pub const SRC_PORT: usize = 0;
    pub const DST_PORT: usize = 2;
    pub const LEN: usize = 4;
    pub const CHECKSUM: usize = 6;
}

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// A view of a UDP datagram; bytes after its length field are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Udp<T> {
    buf: T,
}

impl<T: AsRef<[u8]>> Udp<T> {
    /// Checks the length field against 8 and the buffer. Does not verify the checksum.
    ///
    /// # Errors
    /// [`WireError::Truncated`] where the buffer ends first, [`WireError::BadLength`] where the
    /// length field is below 8.
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let b = buf.as_ref();
        if b.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let len = usize::from(u16_at(b, field::LEN));
        if len < HEADER_LEN {
            return Err(WireError::BadLength);
        }
        if b.len() < len {
            return Err(WireError::Truncated);
        }
        Ok(Udp { buf })
    }

    #[inline]
    fn b(&self) -> &[u8] {
        self.buf.as_ref()
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        u16_at(self.b(), field::SRC_PORT)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        u16_at(self.b(), field::DST_PORT)
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(u16_at(self.b(), field::LEN))
    }

    /// The checksum as it stands; zero means none was computed.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.b(), field::CHECKSUM)
    }

    /// What follows the header, to the length field's end.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.b()[HEADER_LEN..self.total_len()]
    }

    /// The checksum is absent (zero) or right, over the IPv4 pseudo-header.
    #[inline]
    pub fn verify_v4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> bool {
        let len = self.total_len();
        self.checksum() == 0 || self.verify(pseudo_v4(src, dst, proto::UDP, len as u16))
    }

    /// The checksum is right, over the IPv6 pseudo-header. Zero is wrong here: whether it is
    /// tolerated (R5, RFC 6935) is the caller's decision.
    #[inline]
    pub fn verify_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        let len = self.total_len();
        self.checksum() != 0 && self.verify(pseudo_v6(src, dst, proto::UDP, len as u32))
    }

    #[inline]
    fn verify(&self, pseudo: u64) -> bool {
        fold(pseudo + sum(&self.b()[..self.total_len()])) == 0xffff
    }
}

/// Writes a header with checksum zero for `payload_len` bytes of payload; returns 8.
///
/// # Errors
/// [`WireError::NoSpace`], or [`WireError::BadLength`] where the payload does not fit.
#[inline]
pub fn emit(buf: &mut [u8], src_port: u16, dst_port: u16, payload_len: usize) -> Result<usize, WireError> {
    if buf.len() < HEADER_LEN {
        return Err(WireError::NoSpace);
    }
    let len = payload_len.checked_add(HEADER_LEN).and_then(|n| u16::try_from(n).ok());
    put_u16(buf, field::SRC_PORT, src_port);
    put_u16(buf, field::DST_PORT, dst_port);
    put_u16(buf, field::LEN, len.ok_or(WireError::BadLength)?);
    put_u16(buf, field::CHECKSUM, 0);
    Ok(HEADER_LEN)
}
