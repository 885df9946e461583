//! IGMP and MLD messages, as hosts and routers send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Ck, V4, V6, checksum, ethernet, group_mac, icmpv6};
use godwit_wire::Mac;

/// The MAC of an IPv4 group.
pub fn group_mac_v4(group: Ipv4Addr) -> Mac {
    let o = group.octets();
    Mac([1, 0, 0x5e, o[1] & 0x7f, o[2], o[3]])
}

/// An IGMP message in a frame: `head` is type and code, `rest` follows the checksum.
pub fn igmp(from: (Mac, Ipv4Addr), dst: Ipv4Addr, head: [u8; 2], rest: &[u8]) -> Vec<u8> {
    let mut m = vec![head[0], head[1], 0, 0];
    m.extend(rest);
    let sum = checksum(&m);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    let ip = V4 { ttl: 1, tos: 0xc0, options: vec![0x94, 4, 0, 0], ..V4::new(from.1, dst, 2) };
    ethernet(group_mac_v4(dst), from.0, 0x0800, &ip.packet(&m))
}

/// An MLD message in a frame: `rest` follows the checksum.
pub fn mld(from: (Mac, Ipv6Addr), dst: Ipv6Addr, kind: u8, rest: &[u8]) -> Vec<u8> {
    let m = icmpv6(from.1, dst, kind, 0, rest, Ck::Good);
    let ip = V6 { hop_limit: 1, extensions: vec![58, 0, 5, 2, 0, 0, 1, 0], ..V6::new(from.1, dst, 0) };
    ethernet(group_mac(dst), from.0, 0x86dd, &ip.packet(&m))
}

/// Records of one source each (none where `sources` is false), as IGMPv3 and MLDv2 have them: type and group.
fn records(records: &[(u8, IpAddr)], sources: bool) -> Vec<u8> {
    let mut b = vec![0, 0];
    b.extend((records.len() as u16).to_be_bytes());
    for (kind, group) in records {
        b.extend([*kind, 0, 0, u8::from(sources)]);
        match group {
            IpAddr::V4(v4) => {
                b.extend([v4.octets(), [10, 9, 9, 9]].concat().iter().take(4 + 4 * usize::from(sources)))
            }
            IpAddr::V6(v6) => {
                b.extend([v6.octets(), [0xfd; 16]].concat().iter().take(16 + 16 * usize::from(sources)))
            }
        }
    }
    b
}

/// A report of IGMPv3 on these groups: 4 joins (any source), 3 leaves.
pub fn igmp3_report(from: (Mac, Ipv4Addr), of: &[(u8, Ipv4Addr)], sources: bool) -> Vec<u8> {
    let of: Vec<_> = of.iter().map(|(kind, group)| (*kind, IpAddr::V4(*group))).collect();
    igmp(from, Ipv4Addr::new(224, 0, 0, 22), [0x22, 0], &records(&of, sources))
}

/// A report of MLDv2 on these groups.
pub fn mld2_report(from: (Mac, Ipv6Addr), of: &[(u8, Ipv6Addr)], sources: bool) -> Vec<u8> {
    let of: Vec<_> = of.iter().map(|(kind, group)| (*kind, IpAddr::V6(*group))).collect();
    mld(from, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16), 143, &records(&of, sources))
}

/// A report (0x16) or a leave (0x17) of IGMPv2, or a report of version 1 (0x12).
pub fn igmp_one(from: (Mac, Ipv4Addr), kind: u8, group: Ipv4Addr) -> Vec<u8> {
    let dst = if kind == 0x17 { Ipv4Addr::new(224, 0, 0, 2) } else { group };
    igmp(from, dst, [kind, 0], &group.octets())
}

/// A report (131) or a done (132) of MLDv1.
pub fn mld_one(from: (Mac, Ipv6Addr), kind: u8, group: Ipv6Addr) -> Vec<u8> {
    let dst = if kind == 132 { Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2) } else { group };
    mld(from, dst, kind, &[&[0; 4][..], &group.octets()].concat())
}

/// A general query of IGMPv2, answered within 10 s.
pub fn igmp2_query(from: (Mac, Ipv4Addr)) -> Vec<u8> {
    igmp(from, Ipv4Addr::new(224, 0, 0, 1), [0x11, 100], &[0; 4])
}

/// A general query of MLDv1, answered within 10 s.
pub fn mld1_query(from: (Mac, Ipv6Addr)) -> Vec<u8> {
    let rest = [&10_000u16.to_be_bytes()[..], &[0; 18]].concat();
    mld(from, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 130, &rest)
}
