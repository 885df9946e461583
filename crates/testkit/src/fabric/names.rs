//! Names and addresses of everything in the fabric, and the numbers inside its test frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_control::{UplinkSpec, UplinkV4, UplinkV6};
use godwit_model::{NveId, VmKey};
use godwit_wire::{Mac, Vni};

use super::schedule::Underlay;
use crate::frames;

/// Name of a switch.
pub fn nve(host: usize) -> NveId {
    NveId::new(format!("n{host}")).expect("a letter and digits")
}

/// The uplink's own address.
pub fn uplink_mac(host: usize) -> Mac {
    Mac([2, 0xfe, 0, 0, 0, host as u8])
}

/// The switch behind an uplink's address.
pub fn host_of(mac: Mac) -> Option<usize> {
    (mac.0[..5] == [2, 0xfe, 0, 0, 0]).then_some(usize::from(mac.0[5]))
}

/// IPv4 locator.
pub fn locator_v4(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, host as u8 + 1)
}

/// IPv6 locator.
pub fn locator_v6(host: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host as u16 + 1)
}

/// The switch that has a locator.
pub fn host_at(locator: IpAddr) -> usize {
    match locator {
        IpAddr::V4(a) => usize::from(a.octets()[3]) - 1,
        IpAddr::V6(a) => usize::from(a.segments()[7]) - 1,
    }
}

/// A switch's uplink: all locators on one link.
pub fn uplink(host: usize, underlay: Underlay) -> UplinkSpec {
    let v4 = UplinkV4 { addr: locator_v4(host), prefix_len: 24, gateway: None };
    let v6 = UplinkV6 { addr: locator_v6(host), prefix_len: 64, gateway: None };
    UplinkSpec {
        mac: uplink_mac(host),
        v4: (underlay != Underlay::V6).then_some(v4),
        v6: (underlay != Underlay::V4).then_some(v6),
        v6_link_local: None,
        mtu: 1600,
        exception: None,
        vlan: None,
    }
}

/// Number of a virtual network on the wire.
pub fn vni(vn: usize) -> Vni {
    Vni::new(5000 + vn as u32).expect("24 bits")
}

/// A VM's addresses depend on its number in its VN only, so that they repeat in each VN (R13).
pub fn vm_key(vn: usize, number: usize) -> VmKey {
    VmKey { vni: vni(vn), mac: Mac([2, 0, 0, 0, 0, number as u8 + 1]) }
}

/// IPv4 address.
pub fn vm_v4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number as u8 + 1)
}

/// IPv6 address.
pub fn vm_v6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number as u16 + 1)
}

/// What a test frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// Its flow.
    pub flow: u16,
    /// Its number in the flow, from 0.
    pub seq: u32,
}

const MAGIC: [u8; 4] = *b"gdwt";
const TAG_LEN: usize = 16;

impl Tag {
    /// Numbers stand beside their complements, so that every frame of a flow has one checksum.
    fn bytes(self) -> [u8; TAG_LEN] {
        let mut b = [0; TAG_LEN];
        b[..4].copy_from_slice(&MAGIC);
        b[4..6].copy_from_slice(&self.flow.to_be_bytes());
        b[6..8].copy_from_slice(&(!self.flow).to_be_bytes());
        b[8..12].copy_from_slice(&self.seq.to_be_bytes());
        b[12..].copy_from_slice(&(!self.seq).to_be_bytes());
        b
    }

    /// The tag of an inner frame; none where it is no test frame of ours.
    pub fn of(frame: &[u8]) -> Option<Tag> {
        let at = tag_at(frame)?;
        let b = frame.get(at..at + TAG_LEN)?;
        let flow = u16::from_be_bytes([b[4], b[5]]);
        let seq = u32::from_be_bytes([b[8], b[9], b[10], b[11]]);
        let tag = Tag { flow, seq };
        (b == tag.bytes()).then_some(tag)
    }

    /// Puts another number into a frame of its flow.
    pub fn renumber(self, frame: &mut [u8]) {
        if let Some(at) = tag_at(frame) {
            frame[at..at + TAG_LEN].copy_from_slice(&self.bytes());
        }
    }
}

/// Where the UDP payload begins.
fn tag_at(frame: &[u8]) -> Option<usize> {
    match frame.get(12..14)? {
        [8, 0] => Some(14 + 20 + 8),
        [0x86, 0xdd] => Some(14 + 40 + 8),
        _ => None,
    }
}

/// Frame 0 of a flow between two VMs of a VN, or to everybody in it.
pub fn data_frame(flow: usize, from: usize, to: Option<usize>, v6: bool) -> Vec<u8> {
    let ip = |n| if v6 { IpAddr::from(vm_v6(n)) } else { vm_v4(n).into() };
    let source = (vm_key(0, from).mac, ip(from), 5000 + flow as u16);
    let sink = match to {
        Some(n) => (vm_key(0, n).mac, ip(n), 6000),
        None => (Mac::BROADCAST, Ipv4Addr::new(10, 0, 0, 255).into(), 6000),
    };
    frames::udp_frame(source, sink, &Tag { flow: flow as u16, seq: 0 }.bytes())
}

/// What an underlay frame carries, if it is VXLAN: its outer TTL and the inner frame.
pub fn inside_vxlan(frame: &[u8]) -> Option<(u8, &[u8])> {
    let (ttl, udp) = match frame.get(12..14)? {
        [8, 0] if *frame.get(23)? == 17 => (*frame.get(22)?, 34),
        [0x86, 0xdd] if *frame.get(20)? == 17 => (*frame.get(21)?, 54),
        _ => return None,
    };
    let port = frame.get(udp + 2..udp + 4)?;
    (port == 4789u16.to_be_bytes()).then_some(())?;
    Some((ttl, frame.get(udp + 16..)?))
}

/// Which worker's queue a NIC puts an underlay frame into: by the outer UDP source port (R2).
pub fn spread(frame: &[u8], workers: usize) -> usize {
    let at = match frame.get(12..14) {
        Some([8, 0]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => return 0,
    };
    let port = frame.get(at..at + 2).map_or(0, |p| usize::from(p[0]) * 7 + usize::from(p[1]));
    port % workers
}
