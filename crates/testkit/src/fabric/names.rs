//! Names and addresses of everything in the fabric, and the numbers inside its test frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_control::{UplinkSpec, UplinkV4, UplinkV6};
use godwit_model::{NveId, VmKey};
use godwit_wire::{Mac, Prefix, Vni};

use super::schedule::{RoutingPlan, Side, Underlay};
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

/// Name of a VM.
pub fn vm_name(vn: usize, number: usize) -> String {
    format!("vm{vn}-{number}")
}

/// VMs of a routed VN are numbered from here, so that those of a domain have addresses of their own and those of
/// different domains the same ones.
pub fn first_number(plan: &RoutingPlan, vn: usize) -> usize {
    if plan.is_routed_only(vn) { 32 } else { 16 }
}

/// The subnet of VMs that are numbered from `first`.
pub fn subnet(first: usize, v6: bool) -> Prefix {
    Prefix::of(gateway(first, v6), if v6 { 124 } else { 28 })
}

/// The gateway's address in it.
pub fn gateway(first: usize, v6: bool) -> IpAddr {
    if v6 { vm_v6(first + 13).into() } else { vm_v4(first + 13).into() }
}

/// IPv4 address.
pub fn vm_v4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number as u8 + 1)
}

/// IPv6 address.
pub fn vm_v6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number as u16 + 1)
}

/// The VM that has an address by its number.
pub fn number_of(ip: IpAddr) -> Option<usize> {
    (0..64).find(|n| ip == vm_v4(*n) || ip == vm_v6(*n))
}

/// The address that VMs of a VN share.
pub fn virtual_ip(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 2, 1).into() } else { Ipv4Addr::new(10, 0, 2, 1).into() }
}

/// Its MAC, where it has one of its own.
pub const VIRTUAL_MAC: Mac = Mac([0, 0, 0x5e, 0, 1, 7]);

/// An address that nobody has by the operator's word.
pub fn free_ip(n: u8, v6: bool) -> IpAddr {
    let last = n + 1;
    match v6 {
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 3, last.into()).into(),
        false => Ipv4Addr::new(10, 0, 3, last).into(),
    }
}

/// The link-local address of a VM.
pub fn link_local(number: usize) -> IpAddr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number as u16 + 1).into()
}

/// The prefix that a VM routes for.
pub fn routed(number: usize, v6: bool) -> Prefix {
    let (net, bits): (IpAddr, u8) = match v6 {
        true => (Ipv6Addr::new(0xfd01, 0, 0, number as u16, 0, 0, 0, 0).into(), 64),
        false => (Ipv4Addr::new(10, 1, number as u8, 0).into(), 24),
    };
    Prefix::new(net, bits).expect("no bits beyond")
}

/// MAC and address of what is in a VM or behind it.
pub fn side(number: usize, side: Side, v6: bool) -> (Mac, IpAddr) {
    let (own, n) = (vm_key(0, number).mac, number as u8);
    match side {
        Side::Own if v6 => (own, vm_v6(number).into()),
        Side::Own => (own, vm_v4(number).into()),
        Side::Nested(m) => {
            let (mac, last) = (Mac([2, 0, 0, 1, n + 1, m as u8 + 1]), n * 8 + m as u8 + 1);
            let ip: IpAddr = match v6 {
                true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 4, last.into()).into(),
                false => Ipv4Addr::new(10, 0, 4, last).into(),
            };
            (mac, ip)
        }
        Side::Routed if v6 => (own, Ipv6Addr::new(0xfd01, 0, 0, number as u16, 0, 0, 0, 7).into()),
        Side::Routed => (own, Ipv4Addr::new(10, 1, n, 7).into()),
    }
}

/// The address that a frame asks for, by ARP or ND.
pub fn asked_for(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [8, 6] if *frame.get(21)? == 1 => ip_at(frame, 38, false),
        [0x86, 0xdd] if *frame.get(54)? == 135 => ip_at(frame, 62, true),
        _ => None,
    }
}

/// The address that a frame says to be at a MAC, and whether it says so to everybody.
pub fn told_of(frame: &[u8]) -> Option<(IpAddr, Mac, bool)> {
    let mac = |at: usize| Some(Mac(*frame.get(at..)?.first_chunk()?));
    let to_all = frame.first()? & 1 == 1;
    match frame.get(12..14)? {
        [8, 6] => {
            let ip = ip_at(frame, 28, false)?;
            let says = *frame.get(21)? == 2 || ip_at(frame, 38, false)? == ip;
            says.then_some((ip, mac(22)?, to_all))
        }
        [0x86, 0xdd] if *frame.get(54)? == 136 => Some((ip_at(frame, 62, true)?, mac(80)?, to_all)),
        _ => None,
    }
}

fn ip_at(frame: &[u8], at: usize, v6: bool) -> Option<IpAddr> {
    let b = frame.get(at..)?;
    match v6 {
        true => b.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        false => b.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
    }
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
    pub fn bytes(self) -> [u8; TAG_LEN] {
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

/// Frame 0 of a flow from somebody to somebody, or to everybody in the VN.
pub fn data_frame(flow: usize, from: (Mac, IpAddr), to: Option<(Mac, IpAddr)>) -> Vec<u8> {
    let source = (from.0, from.1, 5000 + flow as u16);
    let (mac, ip) = to.unwrap_or((Mac::BROADCAST, Ipv4Addr::new(10, 0, 0, 255).into()));
    frames::udp_frame(source, (mac, ip, 6000), &Tag { flow: flow as u16, seq: 0 }.bytes())
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
