//! One look at a tenant's frame: what encapsulation and the check of sources need of its headers.
//!
//! Nearly every frame is IPv4 without options or IPv6 without extension headers, with TCP or UDP,
//! not fragmented. [`quick_look`] reads these at fixed places; all else is read by [`Frame`]. Where both have an
//! answer it is the same, which a property holds them to (`tests/frame.rs`).

use crate::bytes::{array, u16_at, u32_at};
use crate::ecn::Ecn;
use crate::ethernet;
use crate::flow::{FlowHash, FlowKey, FlowKind, HashKey};
use crate::frame::Frame;
use crate::{guard, ipv4, ipv6, proto};

/// The IP source address of a frame, as an integer whose highest bits come first on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Not an IP packet.
    NotIp,
    /// IPv4.
    V4(u32),
    /// IPv6.
    V6(u128),
    /// The EtherType says IP, and the header cannot be read.
    Malformed,
}

/// What [`look`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// The hash of the frame's flow (R2): [`crate::flow::flow_hash`].
    pub hash: FlowHash,
    /// The outer ECN codepoint (R6): [`Ecn::for_encap`].
    pub ecn: Ecn,
    /// Who says to have sent it (R65).
    pub source: Source,
}

impl Look {
    /// What a frame that has been read says.
    #[inline]
    pub fn of(frame: &Frame<'_>, key: &HashKey) -> Look {
        let ecn = frame.ecn().unwrap_or(Ecn::NotEct);
        Look { hash: FlowKey::of(frame).hash(key), ecn, source: frame.source() }
    }

    /// It is an IPv4 packet.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        matches!(self.source, Source::V4(_))
    }
}

const L3: usize = ethernet::HEADER_LEN;
const V4_L4: usize = L3 + ipv4::HEADER_LEN;
const V6_L4: usize = L3 + ipv6::HEADER_LEN;

/// EtherType, version and header length of an IPv4 packet without options, and the TOS, as they lie: a
/// comparison needs no byte turned round.
const PLAIN_V4: u32 = u32::from_le_bytes([0x08, 0x00, 0x45, 0]);
const PLAIN_V4_MASK: u32 = u32::from_le_bytes([0xff, 0xff, 0xff, 0]);
/// The same for EtherType and version of IPv6.
const PLAIN_V6: u32 = u32::from_le_bytes([0x86, 0xdd, 0x60, 0]);
const PLAIN_V6_MASK: u32 = u32::from_le_bytes([0xff, 0xff, 0xf0, 0]);
/// More fragments, and the fragment's offset; time to live and protocol follow.
const FRAGMENT: u32 = u32::from_le_bytes([0x3f, 0xff, 0, 0]);

/// Reads flow, ECN and source of an untagged frame in one pass. Never fails.
#[inline]
pub fn look(frame: &[u8], key: &HashKey) -> Look {
    quick_look(frame, key).unwrap_or_else(|| look_closer(frame, key))
}

/// The same for the usual frames only: an untagged TCP or UDP packet in one piece, to another port than DHCP
/// clients have. So no [`crate::guard::Word::OfServer`] is among them. `None` says nothing about a frame: use
/// [`look`].
#[inline(always)]
pub fn quick_look(frame: &[u8], key: &HashKey) -> Option<Look> {
    let h = frame.first_chunk()?;
    let front = u32::from_le_bytes(array(h, 12));
    if front & PLAIN_V4_MASK == PLAIN_V4 {
        look_v4(h, (front >> 24) as u8, frame.len(), key)
    } else if front & PLAIN_V6_MASK == PLAIN_V6 {
        look_v6(frame.first_chunk()?, frame.len(), key)
    } else {
        None
    }
}

#[inline(always)]
fn look_v4(h: &[u8; V4_L4 + 4], tos: u8, len: usize, key: &HashKey) -> Option<Look> {
    const LEAST: usize = ipv4::HEADER_LEN + 4;
    let word = u32::from_le_bytes(array(h, L3 + 6));
    let proto = (word >> 24) as u8;
    let whole = word & FRAGMENT == 0 && matches!(proto, proto::TCP | proto::UDP);
    // At least `LEAST` and at most what the frame holds, which is at least `LEAST`.
    let total = usize::from(u16_at(h, L3 + 2));
    if !whole || total.wrapping_sub(LEAST) > len - L3 - LEAST {
        return None;
    }
    let addr = u64::from_be_bytes(array(h, L3 + 12));
    let ports = u32_at(h, V4_L4);
    if ports as u16 == guard::CLIENTS[0] {
        return None;
    }
    let flow = FlowKey::new([addr, 0, 0, 0], FlowKind::V4Ports, proto.into(), ports);
    Some(Look { hash: flow.hash(key), ecn: Ecn::from_bits(tos), source: Source::V4((addr >> 32) as u32) })
}

#[inline(always)]
fn look_v6(h: &[u8; V6_L4 + 4], len: usize, key: &HashKey) -> Option<Look> {
    let payload = usize::from(u16_at(h, L3 + 4));
    let proto = h[L3 + 6];
    if !matches!(proto, proto::TCP | proto::UDP) || payload < 4 || payload > len - V6_L4 {
        return None;
    }
    let word = |at| u64::from_be_bytes(array(h, at));
    let addr = [word(L3 + 8), word(L3 + 16), word(L3 + 24), word(L3 + 32)];
    let ports = u32_at(h, V6_L4);
    if ports as u16 == guard::CLIENTS[1] {
        return None;
    }
    let flow = FlowKey::new(addr, FlowKind::V6Ports, proto.into(), ports);
    Some(Look {
        hash: flow.hash(key),
        ecn: Ecn::from_bits((u16_at(h, L3) >> 4) as u8),
        source: Source::V6(u128::from(addr[0]) << 64 | u128::from(addr[1])),
    })
}

/// The answer of [`Frame`].
#[cold]
#[inline(never)]
fn look_closer(frame: &[u8], key: &HashKey) -> Look {
    match Frame::read(frame) {
        Ok(frame) => Look::of(&frame, key),
        Err(_) => Look { hash: FlowKey::NONE.hash(key), ecn: Ecn::NotEct, source: Source::NotIp },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::flow_hash;
    use proptest::prelude::*;

    const KEY: HashKey = HashKey::new(3, 5);

    fn agrees(frame: &[u8]) -> Look {
        let found = look(frame, &KEY);
        assert_eq!(found.hash, flow_hash(frame, &KEY));
        assert_eq!(found.ecn, Ecn::for_encap(frame));
        assert_eq!(found, look_closer(frame, &KEY));
        if let Some(quick) = quick_look(frame, &KEY) {
            assert_eq!(quick, found);
            let read = Frame::read(frame).expect("a header");
            assert_ne!(guard::word(&read), Some(guard::Word::OfServer), "R66");
        }
        found
    }

    fn v4(proto: u8, tos: u8, frag: u16, total: u16, len: usize) -> Vec<u8> {
        let mut f = vec![7; 14 + len];
        f[12..16].copy_from_slice(&[8, 0, 0x45, tos]);
        f[16..18].copy_from_slice(&total.to_be_bytes());
        f[20..22].copy_from_slice(&frag.to_be_bytes());
        f[23] = proto;
        f[26..30].copy_from_slice(&[10, 1, 2, 3]);
        f
    }

    fn v6(next: u8, class: u8, payload: u16, len: usize) -> Vec<u8> {
        let mut f = vec![7; 14 + len];
        f[12..14].copy_from_slice(&[0x86, 0xdd]);
        f[14..16].copy_from_slice(&(0x6000 | u16::from(class) << 4).to_be_bytes());
        f[18..20].copy_from_slice(&payload.to_be_bytes());
        f[20] = next;
        f
    }

    #[test]
    fn the_usual_and_its_neighbours() {
        for proto in [0, 6, 17, 132, 44, 58] {
            for frag in [0, 0x4000, 0x2000, 1, 0x8000] {
                for total in [0, 19, 20, 23, 24, 46, 47, 65535] {
                    let found = agrees(&v4(proto, 2, frag, total, 46));
                    let readable = (20..=46).contains(&total);
                    let expected = if readable { Source::V4(0x0a01_0203) } else { Source::Malformed };
                    assert_eq!(found.source, expected);
                }
            }
            for payload in [0, 3, 4, 20, 21, 65535] {
                agrees(&v6(proto, 3, payload, 60));
            }
        }
        assert_eq!(agrees(&v4(6, 3, 0, 40, 46)).ecn, Ecn::Ce);
        assert_eq!(agrees(&v6(17, 1, 20, 60)).ecn, Ecn::Ect1);
        assert_eq!(agrees(&[0; 60]).source, Source::NotIp);
        assert!(quick_look(&v4(6, 3, 0, 40, 46), &KEY).is_some());
        assert!(quick_look(&v6(17, 1, 20, 60), &KEY).is_some());
    }

    #[test]
    fn every_length() {
        for f in [v4(17, 1, 0, 46, 46), v6(6, 2, 20, 60)] {
            for len in 0..f.len() {
                agrees(&f[..len]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn the_same_as_the_parsers(
            six in any::<bool>(),
            len in 0usize..80,
            changes in proptest::collection::vec((12usize..60, any::<u8>()), 0..4),
            to in proptest::sample::select(vec![7u16, 68, 546]),
        ) {
            let mut f = if six { v6(17, 0, 20, 60) } else { v4(6, 0, 0x4000, 46, 46) };
            let at = if six { 56 } else { 36 };
            f[at..at + 2].copy_from_slice(&to.to_be_bytes());
            for (at, value) in changes {
                if let Some(b) = f.get_mut(at) {
                    *b = value;
                }
            }
            f.resize(len, 0);
            agrees(&f);
        }
    }
}
