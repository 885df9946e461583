//! Taking off the outer header (R1, R5, R6, R10, R12).
//!
//! Nearly every packet that another NVE sends has one of two shapes: no IPv4 options or no IPv6
//! extension headers, UDP checksum zero, no congestion mark, an untagged inner frame. [`usual`]
//! knows these by fields at fixed places and says no to all else, which then goes through the
//! complete parser. A property test holds the two to the same answer.

use godwit_tables::update::VnIdx;
use godwit_tables::{DropReason, Tables};
use godwit_wire::outer::{Outer, V4_LEN, V6_LEN};
use godwit_wire::{Ecn, EtherType, Vni, ecn};

use crate::classify::{Addresses, is_group};
use crate::packet::Packet;

/// The VN that was found last: most bursts have one or few.
#[derive(Clone, Copy)]
pub(crate) struct LastVn {
    vni: Vni,
    pub found: VnIdx,
    transparent: bool,
}

/// Finds the VN of a VXLAN packet and looks at the inner frame; the answer is the VN and the inner
/// destination.
///
/// # Errors
/// Why the packet is dropped.
pub(crate) fn look_inside(
    frame: &[u8],
    outer: &Outer,
    tables: &Tables,
    last: &mut Option<LastVn>,
) -> Result<(VnIdx, u64), DropReason> {
    let vn = find_vn(tables, outer.vni, last)?;
    let inner = frame.get(outer.inner_offset..outer.inner_end).unwrap_or_default();
    let a = Addresses::of(inner).ok_or(DropReason::InnerTruncated)?;
    if is_group(a.src) {
        return Err(DropReason::InnerMulticastSource);
    }
    if a.ethertype.is_tag() && !vn.transparent {
        return Err(DropReason::InnerVlan);
    }
    // Only an outer congestion mark can be impossible to pass on (RFC 6040 figure 4).
    if outer.ecn == Ecn::Ce && Ecn::of_frame(inner) == Some(Ecn::NotEct) {
        return Err(DropReason::Congestion);
    }
    Ok((vn.found, a.dst))
}

/// The VN with an identifier: the last one, or another.
///
/// # Errors
/// [`DropReason::UnknownVni`].
#[inline(always)]
pub(crate) fn find_vn(tables: &Tables, vni: Vni, last: &mut Option<LastVn>) -> Result<LastVn, DropReason> {
    match *last {
        Some(l) if l.vni == vni => Ok(l),
        _ => Ok(*last.insert(another_vn(tables, vni)?)),
    }
}

#[inline(never)]
fn another_vn(tables: &Tables, vni: Vni) -> Result<LastVn, DropReason> {
    let found = tables.vns.by_vni(vni).ok_or(DropReason::UnknownVni)?;
    let transparent = tables.vns.get(found).is_some_and(|v| v.transparent_vlan);
    Ok(LastVn { vni, found, transparent })
}

/// The own addresses, in the form in which [`usual`] compares them.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    pub mac: u64,
    pub v4: Option<[u8; 4]>,
    pub v6: Option<[u8; 16]>,
    pub vxlan_port: u16,
}

/// A VXLAN packet of the usual shape, to us.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Usual {
    /// Where the inner frame begins: 50 or 70.
    pub inner_offset: usize,
    /// Where it ends.
    pub inner_end: usize,
    pub vni: Vni,
    /// Inner destination, a single host.
    pub dst: u64,
}

/// Recognises the usual shape. `None` says nothing about a packet: look closer.
#[inline(always)]
pub(crate) fn usual(frame: &[u8], own: &Own) -> Option<Usual> {
    let a = Addresses::of(frame)?;
    if a.dst != own.mac {
        return None;
    }
    match a.ethertype {
        EtherType::IPV4 => usual_v4(frame, own),
        EtherType::IPV6 => usual_v6(frame, own),
        _ => None,
    }
}

#[inline(always)]
fn be16(b: &[u8], at: usize) -> usize {
    usize::from(b[at]) << 8 | usize::from(b[at + 1])
}

#[inline(always)]
fn usual_v4(frame: &[u8], own: &Own) -> Option<Usual> {
    const IP: usize = 14;
    let h: &[u8; V4_LEN + 14] = frame.first_chunk()?;
    let total = be16(h, IP + 2);
    // Version and header length, no fragment, UDP, ECN 00 or 10.
    let plain = h[IP] == 0x45 && be16(h, IP + 6) & 0x3fff == 0 && h[IP + 9] == 17 && h[IP + 1] & 1 == 0;
    let ours = Some([h[IP + 16], h[IP + 17], h[IP + 18], h[IP + 19]]) == own.v4;
    // The sum in this machine's byte order is all ones just when that in network order is.
    let word = |i: usize| {
        let at = IP + 4 * i;
        u64::from(u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]))
    };
    let sum = word(0) + word(1) + word(2) + word(3) + word(4);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sound = (sum & 0xffff) + (sum >> 16) == 0xffff;
    if !(plain && ours && sound) {
        return None;
    }
    usual_inner(frame, h, IP + 20, IP + total, own)
}

#[inline(always)]
fn usual_v6(frame: &[u8], own: &Own) -> Option<Usual> {
    const IP: usize = 14;
    let h: &[u8; V6_LEN + 14] = frame.first_chunk()?;
    // The low bit of ECN is bit 20 of the first word.
    let plain = h[IP] >> 4 == 6 && h[IP + 6] == 17 && h[IP + 1] & 0x10 == 0;
    let dst: &[u8; 16] = h[IP + 24..].first_chunk()?;
    if !(plain && Some(*dst) == own.v6) {
        return None;
    }
    usual_inner(frame, h, IP + 40, IP + 40 + be16(h, IP + 4), own)
}

/// UDP, VXLAN and the inner header; `h` is a start of `frame` that holds them all.
#[inline(always)]
fn usual_inner(frame: &[u8], h: &[u8], udp: usize, end: usize, own: &Own) -> Option<Usual> {
    let (vx, inner) = (udp + 8, udp + 16);
    let udp_fits = be16(h, udp + 2) == usize::from(own.vxlan_port)
        && be16(h, udp + 6) == 0
        && end.checked_sub(udp) == Some(be16(h, udp + 4));
    if !udp_fits || end > frame.len() || end < inner + 14 || h[vx] & 8 == 0 {
        return None;
    }
    let a = Addresses::of(&h[inner..])?;
    if is_group(a.dst) || is_group(a.src) || a.ethertype.is_tag() {
        return None;
    }
    let vni = Vni::from_low24((h[vx + 4] as u32) << 16 | be16(h, vx + 5) as u32);
    Some(Usual { inner_offset: inner, inner_end: end, vni, dst: a.dst })
}

/// Cuts a packet down to its inner frame, outer padding gone too, and passes the outer ECN on.
pub(crate) fn decapsulate<P: Packet>(packet: &mut P, outer: &Outer) {
    packet.truncate(outer.inner_end);
    packet.trim_front(outer.inner_offset);
    // The look before has dropped what this would refuse.
    let merged = ecn::apply_to_frame(packet.data_mut(), outer.ecn);
    debug_assert!(merged.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_testkit::frames::{self, Ck, Vxlan};
    use godwit_wire::Mac;
    use godwit_wire::outer::parse_outer;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
    const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const OWN: Own =
        Own { mac: 0x0200_0000_0001, v4: Some(V4.octets()), v6: Some(V6.octets()), vxlan_port: 4789 };

    fn packet(six: bool) -> Vxlan {
        let ip: (IpAddr, IpAddr) = if six {
            (Ipv6Addr::LOCALHOST.into(), V6.into())
        } else {
            (Ipv4Addr::LOCALHOST.into(), V4.into())
        };
        Vxlan::new((Mac([2, 0, 0, 0, 0, 9]), MAC), ip, Vni::from_low24(0x00ab_cdef))
    }

    fn inner(len: usize) -> Vec<u8> {
        frames::ethernet(Mac([2, 1, 1, 1, 1, 1]), Mac([2, 2, 2, 2, 2, 2]), 0x1234, &vec![7; len])
    }

    /// Whatever [`usual`] accepts, the complete parser accepts with the same answer.
    fn agree(frame: &[u8]) -> Option<Usual> {
        let u = usual(frame, &OWN)?;
        let outer = parse_outer(frame, 4789).expect("the parser accepts what is usual");
        assert_eq!((outer.inner_offset, outer.inner_end, outer.vni), (u.inner_offset, u.inner_end, u.vni));
        assert!(outer.dst == IpAddr::V4(V4) || outer.dst == IpAddr::V6(V6));
        assert!(matches!(outer.ecn, Ecn::NotEct | Ecn::Ect0), "no mark to pass on");
        let a = Addresses::of(&frame[u.inner_offset..u.inner_end]).unwrap();
        assert!(a.dst == u.dst && !a.to_group() && !is_group(a.src) && !a.ethertype.is_tag());
        Some(u)
    }

    #[test]
    fn the_usual_is_recognised() {
        for six in [false, true] {
            for len in [0, 1, 46, 1500] {
                let f = packet(six).frame(&inner(len));
                let u = agree(&f).expect("of the usual shape");
                assert_eq!((u.inner_end, u.dst, u.vni.get()), (f.len(), 0x0201_0101_0101, 0x00ab_cdef));
                assert!(agree(&frames::padded(f, 200)).is_some());
            }
        }
    }

    #[test]
    fn the_unusual_is_left_to_the_parser() {
        for six in [false, true] {
            let p = || packet(six);
            let odd = [
                Vxlan { udp_checksum: Ck::Good, ..p() },
                Vxlan { tos: 3, ..p() },
                Vxlan { tos: 1, ..p() },
                Vxlan { flags: 0, ..p() },
                Vxlan { udp_len: Some(9), ..p() },
                Vxlan { ports: (1, 4790), ..p() },
                Vxlan { eth: (MAC, Mac::BROADCAST), ..p() },
            ];
            for x in odd {
                assert_eq!(usual(&x.frame(&inner(50)), &OWN), None);
            }
            assert_eq!(usual(&p().frame(&inner(50)[..13]), &OWN), None);
        }
        for x in [
            Vxlan { frag: 0x2000, ..packet(false) },
            Vxlan { frag: 1, ..packet(false) },
            Vxlan { ip_checksum: Ck::Bad, ..packet(false) },
            Vxlan { options: vec![1; 4], ..packet(false) },
        ] {
            assert_eq!(usual(&x.frame(&inner(50)), &OWN), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn never_more_generous_than_the_parser(
            six in any::<bool>(),
            len in 0usize..80,
            cut in 0usize..40,
            changes in proptest::collection::vec((0usize..90, any::<u8>()), 0..3),
        ) {
            let mut f = packet(six).frame(&inner(len));
            f.truncate(f.len() - cut.saturating_sub(20));
            for (at, value) in changes {
                if let Some(b) = f.get_mut(at) {
                    *b = value;
                }
            }
            agree(&f);
        }
    }
}
