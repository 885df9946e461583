//! TCP (RFC 9293), as far as a switch reads it: ports, sequence numbers, flags.

use crate::bytes::{u16_at, u32_at};
use crate::checksum::{fold, pseudo_v4, pseudo_v6, sum};
use crate::error::WireError;
use crate::proto;
use core::net::{Ipv4Addr, Ipv6Addr};

mod field {
    pub const SRC_PORT: usize = 0;
    pub const DST_PORT: usize = 2;
    pub const SEQ: usize = 4;
    pub const ACK: usize = 8;
    pub const OFFSET: usize = 12;
    pub const FLAGS: usize = 13;
    pub const WINDOW: usize = 14;
    pub const CHECKSUM: usize = 16;
}

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// FIN: the sender has no more data.
pub const FIN: u8 = 0x01;
/// SYN: opens a connection.
pub const SYN: u8 = 0x02;
/// RST: resets the connection.
pub const RST: u8 = 0x04;
/// PSH: deliver without delay.
pub const PSH: u8 = 0x08;
/// ACK: the acknowledgement number is valid.
pub const ACK: u8 = 0x10;

/// A view of a TCP segment; its length is that of the buffer, which must be the IP payload.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<T> {
    buf: T,
}

impl<T: AsRef<[u8]>> Tcp<T> {
    /// Checks the data offset against 20 and the buffer. Does not verify the checksum.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::BadLength`] where the data offset is below 20.
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let b = buf.as_ref();
        if b.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let header = usize::from(b[field::OFFSET] >> 4) * 4;
        if header < HEADER_LEN {
            return Err(WireError::BadLength);
        }
        if b.len() < header {
            return Err(WireError::Truncated);
        }
        Ok(Tcp { buf })
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

    /// Sequence number.
    #[inline]
    pub fn seq(&self) -> u32 {
        u32_at(self.b(), field::SEQ)
    }

    /// Acknowledgement number, valid where [`ACK`] is set.
    #[inline]
    pub fn ack(&self) -> u32 {
        u32_at(self.b(), field::ACK)
    }

    /// The flags CWR to FIN as one byte.
    #[inline]
    pub fn flags(&self) -> u8 {
        self.b()[field::FLAGS]
    }

    /// Receive window, unscaled.
    #[inline]
    pub fn window(&self) -> u16 {
        u16_at(self.b(), field::WINDOW)
    }

    /// The checksum as it stands.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.b(), field::CHECKSUM)
    }

    /// Bytes of header with its options: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.b()[field::OFFSET] >> 4) * 4
    }

    /// What follows header and options.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.b()[self.header_len()..]
    }

    /// The checksum is right, over the IPv4 pseudo-header.
    pub fn verify_v4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> bool {
        let len = self.b().len() as u16;
        fold(pseudo_v4(src, dst, proto::TCP, len) + sum(self.b())) == 0xffff
    }

    /// The checksum is right, over the IPv6 pseudo-header.
    pub fn verify_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        let len = self.b().len() as u32;
        fold(pseudo_v6(src, dst, proto::TCP, len) + sum(self.b())) == 0xffff
    }
}
