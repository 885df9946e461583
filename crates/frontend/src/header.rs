//! `virtio_net_hdr`, which precedes each frame in a ring (virtio 1.2, 5.1.6).

/// Length with the number of buffers: of virtio 1.0, and where buffers merge.
pub const LONG: usize = 12;
/// Length without.
pub const SHORT: usize = 10;

/// Flag: the checksum is to be computed.
pub const NEEDS_CSUM: u8 = 1;
/// Flag: the checksum was verified.
pub const DATA_VALID: u8 = 2;
/// Segmentation: none.
pub const GSO_NONE: u8 = 0;
/// Segmentation of TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// Fragmentation of UDP.
pub const GSO_UDP: u8 = 3;
/// Segmentation of TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;

/// The header of a frame. All fields are taken as they are, sensible or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Flags, such as [`NEEDS_CSUM`].
    pub flags: u8,
    /// Kind of segmentation, such as [`GSO_TCPV4`].
    pub gso_type: u8,
    /// Length of the frame's headers, in bytes.
    pub hdr_len: u16,
    /// Payload of each segment, in bytes.
    pub gso_size: u16,
    /// Offset at which the checksum begins, in bytes.
    pub csum_start: u16,
    /// Offset of the checksum field from there, in bytes.
    pub csum_offset: u16,
    /// Buffers of a received frame.
    pub num_buffers: u16,
}

impl Header {
    /// As it lies in memory; a short header is the first ten bytes.
    pub fn bytes(&self) -> [u8; LONG] {
        let mut out = [0; LONG];
        out[0] = self.flags;
        out[1] = self.gso_type;
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        for (at, word) in out[2..].chunks_exact_mut(2).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads a long header, or a short one with one buffer. `None` where there are fewer bytes.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let word = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        Some(Header {
            flags: *bytes.first()?,
            gso_type: *bytes.get(1)?,
            hdr_len: word(2)?,
            gso_size: word(4)?,
            csum_start: word(6)?,
            csum_offset: word(8)?,
            num_buffers: if bytes.len() >= LONG { word(10)? } else { 1 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV6,
            hdr_len: 0x1234,
            gso_size: 0xffff,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 7,
        };
        assert_eq!(Header::parse(&header.bytes()), Some(header));
        assert_eq!(Header::parse(&header.bytes()[..SHORT]), Some(Header { num_buffers: 1, ..header }));
        assert_eq!(Header::parse(&header.bytes()[..SHORT - 1]), None);
        assert_eq!(header.bytes()[6..8], [34, 0], "little-endian");
    }
}
