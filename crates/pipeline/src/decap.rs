//! Taking off the outer header (R1, R5, R6, R10, R12).
//!
//! Nearly every packet that another NVE sends has one of two shapes: no IPv4 options or no IPv6
//! extension headers, UDP checksum zero, no congestion mark, an untagged inner frame. [`usual`]
//! knows these by fields at fixed places and says no to all else, which then goes through the
//! complete parser. A property test holds the two to the same answer.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_tables::update::VnIdx;
use godwit_tables::{DropReason, Tables};
use godwit_wire::ethernet::{Ethernet, Membership, TAG_LEN, membership, strip_tag};
use godwit_wire::outer::{Outer, TAGGED_V4_LEN, V4_LEN, V6_LEN};
use godwit_wire::{Ecn, EtherType, Mac, VlanId, Vni, ecn};

use crate::classify::{Addresses, is_group};
use crate::packet::Packet;

/// The VN that was found last: most bursts have one or few.
#[derive(Clone, Copy)]
pub(crate) struct LastVn {
    vni: Vni,
    pub found: VnIdx,
    transparent: bool,
    /// Only its senders are accepted (R69).
    checked: bool,
}

/// The sender that was accepted last, by VN: most bursts have one or few.
#[derive(Clone, Copy, Default)]
pub(crate) struct LastSender {
    /// The VN and the family; 0 is none.
    vn: u32,
    /// Its address as it lies in a frame.
    words: [u64; 2],
}

impl LastSender {
    /// Of a packet of the usual shape.
    #[inline(always)]
    fn of(vn: VnIdx, frame: &[u8], inner_offset: usize) -> LastSender {
        // IPv4: 50 bytes of headers, the source in byte 26; IPv6: 70, in byte 22. A tag shifts both.
        let is_v4 = inner_offset < V6_LEN;
        let words = if is_v4 {
            [u64::from(le32(frame, inner_offset - (V4_LEN - 26))), 0]
        } else {
            let at = inner_offset - (V6_LEN - 22);
            [le64(frame, at), le64(frame, at + 8)]
        };
        LastSender { vn: (u32::from(vn.0) + 1) << 1 | u32::from(is_v4), words }
    }

    fn ip(self) -> IpAddr {
        let [a, b] = self.words;
        match self.vn & 1 {
            1 => IpAddr::V4(Ipv4Addr::from((a as u32).to_le_bytes())),
            _ => IpAddr::V6(Ipv6Addr::from((u128::from(b) << 64 | u128::from(a)).to_le_bytes())),
        }
    }
}

/// Whether packets of the usual shape come from a sender of their VN (R69). `false` says only: look closer.
#[inline(always)]
pub(crate) fn is_from_sender(
    tables: &Tables,
    vn: LastVn,
    frame: &[u8],
    inner_offset: usize,
    last: &mut LastSender,
) -> bool {
    let now = LastSender::of(vn.found, frame, inner_offset);
    let same = (now.words[0] ^ last.words[0]) | (now.words[1] ^ last.words[1]) | u64::from(now.vn ^ last.vn);
    same == 0 || !vn.checked || is_other_sender(tables, vn, now, last)
}

/// Out of line: of most bursts the sender is the last one.
#[inline(never)]
fn is_other_sender(tables: &Tables, vn: LastVn, now: LastSender, last: &mut LastSender) -> bool {
    let accepted = tables.vns.accepts(vn.found, now.ip());
    if accepted {
        *last = now;
    }
    accepted
}

/// The VN that the last burst ended with, good until the tables' VNs change.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    generation: u64,
    vn: Option<LastVn>,
    sender: LastSender,
}

impl Seen {
    pub fn recall(self, tables: &Tables) -> (Option<LastVn>, LastSender) {
        match self.generation == tables.vns.generation() {
            true => (self.vn, self.sender),
            false => (None, LastSender::default()),
        }
    }

    pub fn keep(&mut self, vn: Option<LastVn>, sender: LastSender, tables: &Tables) {
        *self = Seen { generation: tables.vns.generation(), vn, sender };
    }
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
    if vn.checked && !tables.vns.accepts(vn.found, outer.src) {
        return Err(DropReason::UnknownSender);
    }
    let inner = frame.get(outer.inner_offset..outer.inner_end).unwrap_or_default();
    let a = Addresses::of(inner).ok_or(DropReason::InnerTruncated)?;
    // Packets are routed where they come from a VM, and nowhere else (R58).
    if tables.routes.of_vn(vn.found).is_some_and(|r| r.mac.to_u64() == a.dst) {
        return Err(DropReason::OverlayToGateway);
    }
    if is_group(a.src) {
        return Err(DropReason::InnerMulticastSource);
    }
    if a.ethertype.is_tag() && !vn.transparent {
        // A tag without a VLAN is as good as none, and is taken off; one behind it is one too many.
        let untagged = inner.get(TAG_LEN..).and_then(Addresses::of);
        if membership(inner) != Membership::Priority || untagged.is_some_and(|a| a.ethertype.is_tag()) {
            return Err(DropReason::InnerVlan);
        }
    }
    if Ethernet::new_checked(inner).is_err() {
        // Half a tag: nobody knows what the frame is (R10).
        return Err(DropReason::InnerTruncated);
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
    Ok(LastVn { vni, found, transparent, checked: tables.vns.are_senders_known(found) })
}

/// The own addresses and port as [`usual`] compares them: as they lie in a frame, so that no frame's bytes need
/// to be turned round.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    /// In the upper 48 bits.
    mac: u64,
    /// More than 32 bits: none.
    v4: u64,
    v6: [u64; 2],
    /// Not 0: none.
    no_v6: u64,
    port: u64,
    /// Type and VLAN of the tag; 0: none.
    tag: u32,
}

/// Type and VLAN of a tag; priority and DEI are its sender's.
const TAG_MASK: u32 = u32::from_le_bytes([0xff, 0xff, 0x0f, 0xff]);

impl Own {
    pub const fn new(mac: Mac, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, vxlan_port: u16) -> Own {
        let (v6, no_v6) = match v6 {
            Some(a) => {
                let a = u128::from_le_bytes(a.octets());
                ([a as u64, (a >> 64) as u64], 0)
            }
            None => ([0; 2], 1),
        };
        Own {
            mac: mac.to_u64().swap_bytes(),
            v4: match v4 {
                Some(a) => u32::from_le_bytes(a.octets()) as u64,
                None => u64::MAX,
            },
            v6,
            no_v6,
            port: vxlan_port.swap_bytes() as u64,
            tag: 0,
        }
    }

    /// The same addresses in a VLAN (R95).
    pub const fn in_vlan(self, vlan: Option<VlanId>) -> Own {
        let tag = match vlan {
            None => 0,
            Some(id) => {
                let [high, low] = id.get().to_be_bytes();
                u32::from_le_bytes([0x81, 0x00, high, low])
            }
        };
        Own { tag, ..self }
    }
}

/// A VXLAN packet of the usual shape, to us.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Usual {
    /// Where the inner frame begins: 50 or 70, behind a tag 54 or 74.
    pub inner_offset: usize,
    /// Where it ends.
    pub inner_end: usize,
    pub vni: Vni,
    /// Inner destination, a single host.
    pub dst: u64,
}

/// Recognises the usual shape. `None` says nothing about a packet: look closer. `TAGGED`: behind the tag of the
/// uplink's VLAN, and no other.
#[inline(always)]
pub(crate) fn usual<const TAGGED: bool>(frame: &[u8], own: &Own) -> Option<Usual> {
    if !TAGGED {
        let h: &[u8; V4_LEN + 14] = frame.first_chunk()?;
        return if le64(h, 0) << 16 == own.mac { usual_ip(h, frame, own) } else { None };
    }
    let h: &[u8; TAGGED_V4_LEN + 14] = frame.first_chunk()?;
    if le64(h, 0) << 16 != own.mac || le32(h, 12) & TAG_MASK != own.tag {
        return None;
    }
    let behind = &frame[TAG_LEN..];
    let u = usual_ip(behind.first_chunk()?, behind, own)?;
    Some(Usual { inner_offset: u.inner_offset + TAG_LEN, inner_end: u.inner_end + TAG_LEN, ..u })
}

/// The rest of a frame whose addresses are right; `h` is its start, and what stands there for addresses is not looked
/// at.
#[inline(always)]
fn usual_ip(h: &[u8; V4_LEN + 14], frame: &[u8], own: &Own) -> Option<Usual> {
    const V4: u32 = u32::from_le_bytes([0x08, 0x00, 0x45, 0]);
    const V6: u32 = u32::from_le_bytes([0x86, 0xdd, 0x60, 0]);
    // EtherType, version, header length and the lower bit of ECN: it may be 00 or 10.
    const V4_MASK: u32 = u32::from_le_bytes([0xff, 0xff, 0xff, 0x01]);
    const V6_MASK: u32 = u32::from_le_bytes([0xff, 0xff, 0xf0, 0x10]);
    let front = le32(h, 12);
    if front & V4_MASK == V4 {
        usual_v4(h, frame.len(), own)
    } else if front & V6_MASK == V6 {
        usual_v6(frame.first_chunk()?, frame.len(), own)
    } else {
        None
    }
}

#[inline(always)]
fn bytes<const N: usize>(h: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&h[at..at + N]);
    out
}

#[inline(always)]
fn le32(h: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(h, at))
}

#[inline(always)]
fn le64(h: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(h, at))
}

const IP: usize = 14;

/// The inverse of 0xffff modulo 2^64: what it multiplies into the first 2^64 / 0xffff numbers is a multiple of
/// 0xffff, and nothing else is.
const ONES_INVERSE: u64 = 0xfffe_fffe_fffe_ffff;

#[inline(always)]
fn usual_v4(h: &[u8; V4_LEN + 14], len: usize, own: &Own) -> Option<Usual> {
    // No fragment, whatever TTL, UDP.
    const MASK: u32 = u32::from_le_bytes([0x3f, 0xff, 0, 0xff]);
    let plain = le32(h, IP + 6) & MASK == u32::from_le_bytes([0, 0, 0, 17]);
    let dst = u64::from(le32(h, IP + 16));
    // One's complement sums do not mind the byte order, nor whether words of 32 bits are added. A sum is all
    // ones just where it is a multiple of that, and not 0, which no header with a version sums to.
    let sum = (0..4).map(|word| u64::from(le32(h, IP + 4 * word))).sum::<u64>() + dst;
    let sound = sum.wrapping_mul(ONES_INVERSE) <= u64::MAX / 0xffff;
    if !(plain && dst == own.v4 && sound) {
        return None;
    }
    let total = u16::from_be_bytes(bytes(h, IP + 2));
    usual_inner(h, len, IP + 20, total.wrapping_sub(20), own)
}

#[inline(always)]
fn usual_v6(h: &[u8; V6_LEN + 14], len: usize, own: &Own) -> Option<Usual> {
    let other = (le64(h, IP + 24) ^ own.v6[0]) | (le64(h, IP + 32) ^ own.v6[1]) | own.no_v6;
    if h[IP + 6] != 17 || other != 0 {
        return None;
    }
    usual_inner(h, len, IP + 40, u16::from_be_bytes(bytes(h, IP + 4)), own)
}

/// UDP, VXLAN and the inner header; `h` is the start of a frame of `len` bytes that ends with the inner header.
#[inline(always)]
fn usual_inner<const N: usize>(
    h: &[u8; N],
    len: usize,
    udp: usize,
    udp_len: u16,
    own: &Own,
) -> Option<Usual> {
    let (vx, inner) = (udp + 8, udp + 16);
    // Destination port, length, no checksum; any source port before them.
    let right = le64(h, udp) >> 16 == own.port | u64::from(udp_len.swap_bytes()) << 16;
    // UDP, VXLAN and inner header at least, and at most what the frame holds, which is at least that.
    let fits = usize::from(udp_len).wrapping_sub(N - udp) <= len - N;
    let vxlan = le64(h, vx);
    if !right || !fits || vxlan & 8 == 0 {
        return None;
    }
    let (front, back) = (le64(h, inner), le64(h, inner + 6));
    // The group bit is the lowest of an address's first byte.
    let tag = EtherType(((back >> 48) as u16).swap_bytes()).is_tag();
    if (front | back) & 1 != 0 || tag {
        return None;
    }
    let vni = Vni::from_low24((vxlan.swap_bytes() >> 8) as u32);
    let dst = front.swap_bytes() >> 16;
    Some(Usual { inner_offset: inner, inner_end: udp + usize::from(udp_len), vni, dst })
}

/// Cuts a packet down to its inner frame, outer padding gone too, and passes the outer ECN on. A priority tag goes
/// where the VN strips tags (`untag`).
pub(crate) fn decapsulate<P: Packet>(packet: &mut P, outer: &Outer, untag: bool) {
    packet.truncate(outer.inner_end);
    packet.trim_front(outer.inner_offset);
    if untag && membership(packet.data()) == Membership::Priority && strip_tag(packet.data_mut()).is_ok() {
        packet.trim_front(TAG_LEN);
    }
    // The look before has dropped what this would refuse.
    let merged = ecn::apply_to_frame(packet.data_mut(), outer.ecn);
    debug_assert!(merged.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_testkit::frames::{self, Ck, Vxlan};
    use godwit_wire::outer::parse_outer;
    use proptest::prelude::*;
    use std::net::IpAddr;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
    const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const OWN: Own = Own::new(MAC, Some(V4), Some(V6), 4789);

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
        let u = usual::<false>(frame, &OWN)?;
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
                assert_eq!(usual::<false>(&x.frame(&inner(50)), &OWN), None);
            }
            assert_eq!(usual::<false>(&p().frame(&inner(50)[..13]), &OWN), None);
            let one_family = Own::new(MAC, six.then_some(V4), (!six).then_some(V6), 4789);
            assert_eq!(usual::<false>(&p().frame(&inner(50)), &one_family), None);
        }
        for x in [
            Vxlan { frag: 0x2000, ..packet(false) },
            Vxlan { frag: 1, ..packet(false) },
            Vxlan { ip_checksum: Ck::Bad, ..packet(false) },
            Vxlan { options: vec![1; 4], ..packet(false) },
        ] {
            assert_eq!(usual::<false>(&x.frame(&inner(50)), &OWN), None);
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

        #[test]
        fn r95_behind_its_tag_the_same_and_behind_no_other(
            six in any::<bool>(),
            len in 0usize..80,
            tci in prop_oneof![Just(100u16), Just(0x6064), any::<u16>()],
            tpid in prop_oneof![Just(0x8100u16), any::<u16>()],
            changes in proptest::collection::vec((0usize..90, any::<u8>()), 0..2),
        ) {
            let mut f = packet(six).frame(&inner(len));
            for (at, value) in changes {
                if let Some(b) = f.get_mut(at) {
                    *b = value;
                }
            }
            let own = OWN.in_vlan(VlanId::new(100));
            let expected = usual::<false>(&f, &own).filter(|_| tpid == 0x8100 && tci & 0x0fff == 100);
            let found = usual::<true>(&frames::tagged(&f, tpid, tci), &own);
            let moved = |u: Usual| Usual { inner_offset: u.inner_offset + 4, inner_end: u.inner_end + 4, ..u };
            prop_assert_eq!(found, expected.map(moved));
        }
    }
}
