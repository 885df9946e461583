//! The copies of multicast in a capture of one wire: when each left for which NVE.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use godwit_wire::Frame;

/// A classic capture of Ethernet frames with microseconds, in this machine's byte order.
const MAGIC: u32 = 0xa1b2_c3d4;
const FILE_HEADER: usize = 24;
const FRAME_HEADER: usize = 16;
const ETHERNET: u32 = 1;
/// UDP: its number, the tunnel's port, and the bytes of its header and of VXLAN's.
const UDP: u8 = 17;
const VXLAN_PORT: [u8; 2] = 4789u16.to_be_bytes();
const HEADERS: usize = 16;

/// A frame with a datagram to a group inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copy {
    /// By the wall clock, in microseconds since 1970.
    pub at_us: u64,
    /// The NVE that it is for.
    pub to: IpAddr,
    /// The group.
    pub group: IpAddr,
}

/// Reads a capture. Of what is in tunnels, UDP to multicast groups counts; reports of IGMP and MLD do not.
///
/// # Errors
/// Where the file cannot be read or is no capture.
pub fn read(file: &Path) -> Result<Vec<Copy>> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    copies(&bytes).with_context(|| format!("{} is no capture of Ethernet frames", file.display()))
}

fn copies(bytes: &[u8]) -> Result<Vec<Copy>> {
    let u32_at = |at: usize| -> Result<u32> {
        let word = bytes.get(at..at + 4).context("it ends within a header")?;
        Ok(u32::from_ne_bytes(word.try_into()?))
    };
    ensure!(u32_at(0)? == MAGIC && u32_at(20)? == ETHERNET, "it begins otherwise");
    let (mut at, mut copies) = (FILE_HEADER, Vec::new());
    // The last frame may be cut where the capture ended.
    while let (Ok(seconds), Ok(us), Ok(len)) = (u32_at(at), u32_at(at + 4), u32_at(at + 8)) {
        let end = at + FRAME_HEADER + len as usize;
        let Some(frame) = bytes.get(at + FRAME_HEADER..end) else { break };
        let at_us = u64::from(seconds) * 1_000_000 + u64::from(us);
        copies.extend(inside(frame).map(|(to, group)| Copy { at_us, to, group }));
        at = end;
    }
    Ok(copies)
}

/// The NVE that a frame is for, and the group that a datagram inside is for.
fn inside(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let outer = Frame::read(frame).ok()?;
    let (upper, datagram) = outer.upper()?;
    let is_tunnel = upper.proto == UDP && datagram.get(2..4)? == VXLAN_PORT;
    let inner = Frame::read(datagram.get(HEADERS..)?).ok().filter(|_| is_tunnel)?;
    let group = target(&inner)?;
    (group.is_multicast() && inner.upper()?.0.proto == UDP).then_some((target(&outer)?, group))
}

fn target(frame: &Frame<'_>) -> Option<IpAddr> {
    let v4 = frame.ipv4().map(|ip| ip.dst().into());
    v4.or_else(|| frame.ipv6().map(|ip| ip.dst().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet in an Ethernet frame.
    fn packet(to: [u8; 4], proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut f = vec![2; 12];
        f.extend([8, 0, 0x45, 0]);
        f.extend((20 + payload.len() as u16).to_be_bytes());
        f.extend([0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1]);
        f.extend(to);
        f.extend(payload);
        f
    }

    fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut d = vec![0, 9];
        d.extend(port.to_be_bytes());
        d.extend((8 + payload.len() as u16).to_be_bytes());
        d.extend([0, 0]);
        d.extend(payload);
        d
    }

    fn tunneled(inner: &[u8], port: u16) -> Vec<u8> {
        let vxlan = [&[8, 0, 0, 0, 0, 0, 100, 0], inner].concat();
        packet([198, 18, 0, 2], UDP, &datagram(port, &vxlan))
    }

    fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut all: Vec<u8> =
            [MAGIC, 0, 0, 0, 65_535, ETHERNET].iter().flat_map(|w| w.to_ne_bytes()).collect();
        for frame in frames {
            let len = frame.len() as u32;
            all.extend([7, 5, len, len].iter().flat_map(|w: &u32| w.to_ne_bytes()));
            all.extend(frame);
        }
        all
    }

    #[test]
    fn datagrams_to_groups_inside_of_tunnels_are_copies() {
        let to_group = packet([239, 1, 1, 7], UDP, &datagram(4001, b"x"));
        let report = packet([239, 1, 1, 7], 2, &[0x16, 0, 0, 0, 239, 1, 1, 7]);
        let to_one = packet([203, 0, 113, 7], UDP, &datagram(4001, b"x"));
        let frames = [
            tunneled(&to_group, 4789),
            tunneled(&report, 4789),
            tunneled(&to_one, 4789),
            tunneled(&to_group, 4790),
            to_group,
        ];
        let mut bytes = capture(&frames);
        let copy =
            Copy { at_us: 7_000_005, to: IpAddr::from([198, 18, 0, 2]), group: IpAddr::from([239, 1, 1, 7]) };
        assert_eq!(copies(&bytes).unwrap(), [copy]);
        bytes.truncate(FILE_HEADER + FRAME_HEADER + 3);
        assert_eq!(copies(&bytes).unwrap(), []);
        assert!(copies(&bytes[1..]).is_err() && copies(&[]).is_err());
    }
}
