//! The first look at a frame. Nothing here has side effects: packet processing and the trace read
//! the same functions.

use core::net::{IpAddr, Ipv4Addr};

use godwit_tables::DropReason;
use godwit_wire::outer::{Outer, OuterError};
use godwit_wire::{Dscp, EtherType, Mac};

/// TTL or hop limit of a first encapsulation (R3, R4).
pub const DEFAULT_TTL: u8 = 64;
/// What forwarding in flight takes off the outer TTL (R46d).
const FLIGHT_COST: u8 = 16;

/// Destination, source and type of a frame, as integers.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub dst: u64,
    pub src: u64,
    pub ethertype: EtherType,
}

impl Addresses {
    /// Two overlapping loads; `None` below 14 bytes.
    #[inline(always)]
    pub fn of(frame: &[u8]) -> Option<Addresses> {
        let h = frame.first_chunk::<14>()?;
        let word = |at: usize| {
            u64::from_be_bytes([
                h[at],
                h[at + 1],
                h[at + 2],
                h[at + 3],
                h[at + 4],
                h[at + 5],
                h[at + 6],
                h[at + 7],
            ])
        };
        let (front, back) = (word(0), word(6));
        Some(Addresses { dst: front >> 16, src: back >> 16, ethertype: EtherType(back as u16) })
    }

    #[inline(always)]
    pub fn to_group(self) -> bool {
        is_group(self.dst)
    }

    #[inline(always)]
    pub fn dst_mac(self) -> Mac {
        Mac::from_u64(self.dst)
    }

    #[inline(always)]
    pub fn src_mac(self) -> Mac {
        Mac::from_u64(self.src)
    }
}

/// The group bit of an address as an integer.
#[inline(always)]
pub(crate) fn is_group(mac: u64) -> bool {
    mac & 1 << 40 != 0
}

/// A sender's address as [`from_to_single`] compares it: in the upper 48 bits, as it lies in a frame, so
/// that no frame's bytes need to be turned round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender(u64);

impl Sender {
    /// No frame is from it.
    pub const NOBODY: Sender = Sender(1);

    pub fn of(mac: Mac) -> Sender {
        Sender(mac.to_u64().swap_bytes())
    }

    pub fn mac(self) -> Mac {
        Mac::from_u64(self.0.swap_bytes())
    }
}

/// The destination of a frame from `sender` to a single host, whatever it carries.
#[inline(always)]
pub(crate) fn from_to_single(frame: &[u8], sender: Sender) -> Option<u64> {
    let h = frame.first_chunk::<14>()?;
    let front = u64::from_le_bytes(*h.first_chunk()?);
    let back = u64::from_le_bytes(*h.last_chunk()?);
    // The group bit is the lowest of the first byte.
    (((back << 16) ^ sender.0) | (front & 1) == 0).then_some(front.swap_bytes() >> 16)
}

/// The destination of a frame to a single host, and who sends it, whatever it carries.
#[inline(always)]
pub(crate) fn to_single(frame: &[u8]) -> Option<(u64, Sender)> {
    let h = frame.first_chunk::<14>()?;
    let front = u64::from_le_bytes(*h.first_chunk()?);
    let back = u64::from_le_bytes(*h.last_chunk()?);
    (front & 1 == 0).then_some((front.swap_bytes() >> 16, Sender(back << 16)))
}

/// Destination and source of a frame that needs nothing but these looked up: to a single host, neither tagged nor ARP
/// nor RARP.
#[inline(always)]
pub(crate) fn plain_unicast(frame: &[u8]) -> Option<(u64, Mac)> {
    let a = Addresses::of(frame)?;
    let special = matches!(a.ethertype, EtherType::ARP | EtherType::RARP | EtherType::VLAN | EtherType::QINQ);
    let plain = !a.to_group() && a.dst != 0 && !special;
    plain.then_some((a.dst, a.src_mac()))
}

/// 01:80:c2:00:00:00 to 01:80:c2:00:00:0f: spanning tree, LACP, LLDP and the like, which no bridge
/// forwards (IEEE 802.1Q table 8-1).
pub(crate) fn is_link_local_reserved(dst: u64) -> bool {
    dst & !0xf == 0x0180_c200_0000
}

/// The outer TTL of a packet that is forwarded in flight, or `None` where it has been forwarded too
/// often (R46d): never more than 64 whatever the sender used, 16 less at each NVE.
#[inline]
pub(crate) fn flight_ttl(received: u8) -> Option<u8> {
    let left = received.min(DEFAULT_TTL).saturating_sub(FLIGHT_COST);
    (left >= FLIGHT_COST).then_some(left)
}

/// The drop reason for a malformed outer header; `None` for the underlay's own traffic.
pub(crate) fn outer_drop(e: OuterError) -> Option<DropReason> {
    Some(match e {
        OuterError::NotVxlan => return None,
        OuterError::Truncated => DropReason::Truncated,
        OuterError::BadVersion => DropReason::BadIpVersion,
        OuterError::IpLength => DropReason::BadIpLength,
        OuterError::IpChecksum => DropReason::BadIpChecksum,
        OuterError::BadExtension => DropReason::BadIpExtension,
        OuterError::Fragment => DropReason::OuterFragment,
        OuterError::UdpLength => DropReason::BadUdpLength,
        OuterError::UdpChecksum => DropReason::BadUdpChecksum,
        OuterError::NoVni => DropReason::VxlanNoVniFlag,
        OuterError::InnerTooShort => DropReason::InnerTruncated,
    })
}

/// Where a frame came from, as far as it matters after decapsulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// A VM's port.
    Local,
    /// A VM's port, and the gateway has sent it on (R58).
    Routed,
    /// Another NVE.
    Overlay {
        /// Its locator.
        sender: IpAddr,
        /// Outer TTL as received.
        ttl: u8,
        /// Outer DSCP as received, if it says anything: it goes along when the frame is sent on (R23).
        dscp: Option<Dscp>,
    },
}

impl Arrival {
    /// It had been delivered already, and its VM did not take it. Nobody remembers who sent it; it may make one
    /// journey less than a fresh one (R46d).
    pub const RETURNED: Arrival =
        Arrival::Overlay { sender: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ttl: 48, dscp: None };

    /// From the NVE that put this header on.
    pub fn outer(outer: &Outer) -> Arrival {
        let dscp = Some(outer.dscp).filter(|dscp| dscp.get() != 0);
        Arrival::Overlay { sender: outer.src, ttl: outer.ttl, dscp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_wire::Frame;
    use proptest::prelude::*;

    proptest! {
        /// What the fast path reads of a frame's addresses is what the cold path reads.
        #[test]
        fn addresses_are_those_of_a_frame_that_was_read(
            mut b in prop::collection::vec(any::<u8>(), 0..40),
            ethertype in prop::sample::select(vec![0x0800u16, 0x0806, 0x8035, 0x8100, 0x88a8, 0x86dd]),
        ) {
            if let Some(at) = b.get_mut(12..14) {
                at.copy_from_slice(&ethertype.to_be_bytes());
            }
            let Ok(f) = Frame::read(&b) else {
                prop_assert!(Addresses::of(&b).is_none() && to_single(&b).is_none());
                return Ok(());
            };
            let a = Addresses::of(&b).expect("a header");
            prop_assert_eq!((a.dst_mac(), a.src_mac(), a.ethertype), (f.dst(), f.src(), f.outer_type()));
            let single = (!f.dst().is_multicast()).then_some(f.dst().to_u64());
            prop_assert_eq!(to_single(&b).map(|(dst, src)| (dst, src.mac())), single.map(|dst| (dst, f.src())));
            prop_assert_eq!(from_to_single(&b, Sender::of(f.src())), single);
            let plain = f.dst().is_unicast() && !f.outer_type().is_tag() && f.arp().is_none();
            prop_assert_eq!(plain_unicast(&b), plain.then(|| (f.dst().to_u64(), f.src())));
        }
    }

    #[test]
    fn r46d_three_times_and_no_more() {
        assert_eq!(flight_ttl(255), Some(48));
        assert_eq!(flight_ttl(64), Some(48));
        assert_eq!(flight_ttl(48), Some(32));
        assert_eq!(flight_ttl(32), Some(16));
        assert_eq!(flight_ttl(31), None);
        assert_eq!(flight_ttl(16), None);
        assert_eq!(flight_ttl(0), None);
    }

    #[test]
    fn plain_unicast_is_nothing_else() {
        let mac = 0x0200_0000_0001;
        let frame = |dst: u64, src: u64, ty: u16| {
            let mut f = Mac::from_u64(dst).0.to_vec();
            f.extend(Mac::from_u64(src).0);
            f.extend(ty.to_be_bytes());
            f
        };
        let found = Some((0x0200_0000_0002, Mac::from_u64(mac)));
        assert_eq!(plain_unicast(&frame(0x0200_0000_0002, mac, 0x0800)), found);
        assert_eq!(plain_unicast(&frame(0x0300_0000_0002, mac, 0x0800)), None);
        assert_eq!(plain_unicast(&frame(0, mac, 0x0800)), None);
        for ty in [0x0806, 0x8035, 0x8100, 0x88a8] {
            assert_eq!(plain_unicast(&frame(0x0200_0000_0002, mac, ty)), None);
        }
        assert_eq!(plain_unicast(&frame(2, mac, 0x0800)[..13]), None);
    }

    #[test]
    fn reserved_groups() {
        assert!(is_link_local_reserved(0x0180_c200_0000));
        assert!(is_link_local_reserved(0x0180_c200_000e));
        assert!(!is_link_local_reserved(0x0180_c200_0010));
    }
}
