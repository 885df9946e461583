//! Classic pcap captures (LINKTYPE_ETHERNET), to look at test traffic with tcpdump or Wireshark
//! and to replay recorded traffic.

use godwit_wire::Instant;
use std::borrow::Borrow;
use std::path::Path;
use std::{fmt, fs, io};

const MAGIC_MICRO: u32 = 0xa1b2_c3d4;
const MAGIC_NANO: u32 = 0xa1b2_3c4d;
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
const LINKTYPE_ETHERNET: u32 = 1;
/// No frame is longer; a larger length in a file means that it is damaged.
const SNAP_LEN: u32 = 262_144;

/// The unit of a capture's time stamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Microseconds, which every tool reads.
    Micro,
    /// Nanoseconds.
    Nano,
}

/// One captured frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// When: nanoseconds since an epoch of the writer's choice.
    pub at: Instant,
    /// The frame as far as it was captured.
    pub data: Vec<u8>,
}

/// Why bytes are no capture that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PcapError {
    /// Not the magic number of a classic pcap file (pcapng is another format).
    Magic,
    /// Another link type than Ethernet.
    LinkType(u32),
    /// Ends inside a header or frame.
    Truncated,
    /// A frame longer than any that can have been captured.
    TooLong(u32),
}

impl fmt::Display for PcapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PcapError::Magic => f.write_str("not a classic pcap file"),
            PcapError::LinkType(t) => write!(f, "link type {t}, not Ethernet"),
            PcapError::Truncated => f.write_str("the capture ends inside a packet"),
            PcapError::TooLong(n) => write!(f, "a packet of {n} bytes"),
        }
    }
}

impl std::error::Error for PcapError {}

/// Frames as packets one microsecond apart.
pub fn from_frames(frames: &[Vec<u8>]) -> Vec<Packet> {
    let packet = |(i, f): (usize, &Vec<u8>)| Packet { at: Instant(i as u64 * 1000), data: f.clone() };
    frames.iter().enumerate().map(packet).collect()
}

/// A whole capture file, little-endian.
pub fn to_bytes(packets: &[Packet], resolution: Resolution) -> Vec<u8> {
    let mut out = Vec::new();
    // Memory takes whatever is written.
    let _ = write(&mut out, packets, resolution);
    out
}

/// Writes a capture, little-endian, one frame after the other: not all of them need fit into memory.
///
/// # Errors
/// Those of `out`.
pub fn write(
    mut out: impl io::Write,
    packets: impl IntoIterator<Item = impl Borrow<Packet>>,
    resolution: Resolution,
) -> io::Result<()> {
    let (magic, unit) = match resolution {
        Resolution::Micro => (MAGIC_MICRO, 1000),
        Resolution::Nano => (MAGIC_NANO, 1),
    };
    // Version 2.4, zone, accuracy.
    out.write_all(&words([magic, 0x0004_0002, 0, 0, SNAP_LEN, LINKTYPE_ETHERNET]))?;
    for p in packets {
        let Packet { at, data } = p.borrow();
        let (seconds, rest, len) = (at.0 / 1_000_000_000, at.0 % 1_000_000_000 / unit, data.len() as u32);
        out.write_all(&words([seconds as u32, rest as u32, len, len]))?;
        out.write_all(data)?;
    }
    out.flush()
}

fn words<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Reads a capture of either byte order and resolution.
pub fn from_bytes(b: &[u8]) -> Result<Vec<Packet>, PcapError> {
    let magic: [u8; 4] = b.get(..4).and_then(|m| m.try_into().ok()).ok_or(PcapError::Magic)?;
    let (unit, little) = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
        (MAGIC_MICRO, _) => (1000, true),
        (MAGIC_NANO, _) => (1, true),
        (_, MAGIC_MICRO) => (1000, false),
        (_, MAGIC_NANO) => (1, false),
        _ => return Err(PcapError::Magic),
    };
    let word = |at: usize| -> Result<u32, PcapError> {
        let w = b.get(at..at + 4).and_then(|w| w.try_into().ok()).ok_or(PcapError::Truncated)?;
        Ok(if little { u32::from_le_bytes(w) } else { u32::from_be_bytes(w) })
    };
    // The upper bits of the link type may hold the length of the FCS.
    let link = word(20)? & 0xffff;
    if link != LINKTYPE_ETHERNET {
        return Err(PcapError::LinkType(link));
    }
    let (mut packets, mut at) = (Vec::new(), FILE_HEADER);
    while at < b.len() {
        let ns = u64::from(word(at)?) * 1_000_000_000 + u64::from(word(at + 4)?) * unit;
        let len = word(at + 8)?;
        word(at + 12)?;
        if len > SNAP_LEN {
            return Err(PcapError::TooLong(len));
        }
        let (from, to) = (at + PACKET_HEADER, at + PACKET_HEADER + len as usize);
        let data = b.get(from..to).ok_or(PcapError::Truncated)?.to_vec();
        packets.push(Packet { at: Instant(ns), data });
        at = to;
    }
    Ok(packets)
}

/// Writes frames to a file, one microsecond apart.
pub fn save(path: impl AsRef<Path>, frames: &[Vec<u8>]) -> io::Result<()> {
    fs::write(path, to_bytes(&from_frames(frames), Resolution::Nano))
}

/// Reads the frames of a file.
pub fn load(path: impl AsRef<Path>) -> io::Result<Vec<Vec<u8>>> {
    let packets = from_bytes(&fs::read(path)?).map_err(io::Error::other)?;
    Ok(packets.into_iter().map(|p| p.data).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_resolutions_round_trip() {
        let frames = vec![vec![1u8; 60], Vec::new(), vec![2u8; 1514]];
        let packets = from_frames(&frames);
        for r in [Resolution::Micro, Resolution::Nano] {
            assert_eq!(from_bytes(&to_bytes(&packets, r)), Ok(packets.clone()));
        }
    }

    #[test]
    fn every_truncation_is_an_error_or_fewer_packets() {
        let bytes = to_bytes(&from_frames(&[vec![1; 60], vec![2; 61]]), Resolution::Nano);
        let ends = [24, 24 + 16 + 60, bytes.len()];
        for n in 0..bytes.len() {
            assert_eq!(from_bytes(&bytes[..n]).is_ok(), ends.contains(&n), "{n}");
        }
    }

    #[test]
    fn a_big_endian_file_reads() {
        let mut b = MAGIC_MICRO.to_be_bytes().to_vec();
        b.extend([0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 1]);
        b.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3, 7, 8, 9]);
        let expected = Packet { at: Instant(1_000_002_000), data: vec![7, 8, 9] };
        assert_eq!(from_bytes(&b), Ok(vec![expected]));
    }

    #[test]
    fn other_formats_are_refused() {
        assert_eq!(from_bytes(&[0x0a, 0x0d, 0x0d, 0x0a]), Err(PcapError::Magic));
        let mut b = to_bytes(&[], Resolution::Micro);
        b[20] = 113;
        assert_eq!(from_bytes(&b), Err(PcapError::LinkType(113)));
        let mut b = to_bytes(&from_frames(&[vec![0; 4]]), Resolution::Micro);
        b[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(from_bytes(&b), Err(PcapError::TooLong(u32::MAX)));
    }
}
