//! Datagrams between NVEs (R39, R47, R77): UDP between locators, sealed. Here are their shape and their frames;
//! the seal is control's.
//!
//! ```text
//!  0       4       8        12         20        64      80
//!  | magic | key # | sender | counter  | body ...| tag   |
//! ```
//!
//! Everything before the body is in clear and protected by the tag. All datagrams have one length, so that a
//! worker can hand one on by value.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Mac, Vni};
use crate::bytes::{array, mac_at, put, put_u16, u16_at, u32_at, v4_at, v6_at};
use crate::checksum::{fold, pseudo_v4, pseudo_v6, sum, udp_field};
use crate::error::WireError;
use crate::ethernet::{self, EtherType, Ethernet};
use crate::ipv4::{self, Ipv4};
use crate::ipv6::{self, Ipv6};
use crate::proto;
use crate::udp::{self, Udp};

/// UDP port of both ends.
pub const PORT: u16 = 47_890;
/// First bytes of a datagram: name and format.
pub const MAGIC: [u8; 4] = *b"GDW1";
/// Bytes before the body.
pub const HEAD_LEN: usize = 20;
/// Bytes of a body.
pub const BODY_LEN: usize = 44;
/// Bytes of the tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a datagram.
pub const LEN: usize = HEAD_LEN + BODY_LEN + TAG_LEN;
/// Bytes of the longest frame that carries one.
pub const MAX_FRAME_LEN: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + udp::HEADER_LEN + LEN;

/// A sealed datagram.
pub type Datagram = [u8; LEN];

/// What protects a datagram: key, sender under that key, and the sender's counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Number of the key.
    pub key: u32,
    /// Number of the sender under the key.
    pub sender: u32,
    /// Rises with each datagram of the sender.
    pub counter: u64,
}

impl Head {
    /// As it stands in the datagram.
    pub fn emit(&self) -> [u8; HEAD_LEN] {
        let mut b = [0; HEAD_LEN];
        put(&mut b, 0, MAGIC);
        put(&mut b, 4, self.key.to_be_bytes());
        put(&mut b, 8, self.sender.to_be_bytes());
        put(&mut b, 12, self.counter.to_be_bytes());
        b
    }

    /// Of a datagram.
    ///
    /// # Errors
    /// [`WireError::NotThis`] where it begins otherwise.
    pub fn parse(datagram: &Datagram) -> Result<Head, WireError> {
        if datagram[..MAGIC.len()] != MAGIC {
            return Err(WireError::NotThis);
        }
        Ok(Head {
            key: u32_at(datagram, 4),
            sender: u32_at(datagram, 8),
            counter: u64::from_be_bytes(array(datagram, 12)),
        })
    }
}

/// What is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The VM is at the locators of the notice; the receiver sent to where it was (R47).
    Redirect,
    /// The VM is not here; the receiver sent to where it is not (R47).
    NotHere,
    /// The VM left (R39).
    Departed,
    /// Behind all that the NVE at the locators of the notice has sent for the VM by the way that this comes by; who
    /// gets it sends it on the same way, and the VM's NVE answers it (R77).
    PathEnd,
    /// That NVE's old path has ended: all of it is at the VM's NVE (R77).
    PathEnded,
    /// All that the VM itself has sent from its old NVE has left that (R77).
    SentAll,
}

impl Kind {
    /// A notice of the kind names locators.
    fn names_locators(self) -> bool {
        matches!(self, Kind::Redirect | Kind::PathEnd)
    }
}

/// The opened body of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// What is said.
    pub kind: Kind,
    /// The VM's network.
    pub vni: Vni,
    /// The VM.
    pub mac: Mac,
    /// A version as epoch and sequence: with `Redirect` of the new location, with `Departed` of the old one; with
    /// `PathEnd` the number by which its sender knows the answer.
    pub version: (u32, u64),
    /// IPv4 locator: with `Redirect` of the new location, with `PathEnd` of its first sender.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 locator, likewise.
    pub v6: Option<Ipv6Addr>,
}

const HAS_V4: u8 = 1;
const HAS_V6: u8 = 2;

impl Notice {
    /// The body.
    pub fn emit(&self) -> [u8; BODY_LEN] {
        let mut b = [0; BODY_LEN];
        b[0] = match self.kind {
            Kind::Redirect => 1,
            Kind::NotHere => 2,
            Kind::Departed => 3,
            Kind::PathEnd => 4,
            Kind::PathEnded => 5,
            Kind::SentAll => 6,
        };
        b[1] = u8::from(self.v4.is_some()) | (u8::from(self.v6.is_some()) << 1);
        put(&mut b, 2, self.mac.0);
        put(&mut b, 8, self.vni.get().to_be_bytes());
        put(&mut b, 12, self.version.0.to_be_bytes());
        put(&mut b, 16, self.version.1.to_be_bytes());
        put(&mut b, 24, self.v4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        put(&mut b, 28, self.v6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
        b
    }

    /// Of a body whose seal was right.
    ///
    /// # Errors
    /// [`WireError::BadField`]: a kind, flag, VNI or address that no NVE of this format sends.
    pub fn parse(b: &[u8; BODY_LEN]) -> Result<Notice, WireError> {
        let kind = match b[0] {
            1 => Kind::Redirect,
            2 => Kind::NotHere,
            3 => Kind::Departed,
            4 => Kind::PathEnd,
            5 => Kind::PathEnded,
            6 => Kind::SentAll,
            _ => return Err(WireError::BadField),
        };
        let flags = b[1];
        let vni = Vni::new(u32_at(b, 8)).ok_or(WireError::BadField)?;
        let mac = mac_at(b, 2);
        let (v4, v6) = (v4_at(b, 24), v6_at(b, 28));
        let named = flags & (HAS_V4 | HAS_V6) != 0;
        let bad = flags & !(HAS_V4 | HAS_V6) != 0
            || named != kind.names_locators()
            || !mac.is_unicast()
            || (flags & HAS_V4 != 0 && !is_locator(v4.into()))
            || (flags & HAS_V6 != 0 && !is_locator(v6.into()));
        if bad {
            return Err(WireError::BadField);
        }
        Ok(Notice {
            kind,
            vni,
            mac,
            version: (u32_at(b, 12), u64::from_be_bytes(array(b, 16))),
            v4: (flags & HAS_V4 != 0).then_some(v4),
            v6: (flags & HAS_V6 != 0).then_some(v6),
        })
    }
}

fn is_locator(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

/// A datagram as it came, with nothing proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// Sender's locator.
    pub src: IpAddr,
    /// Locator that it was sent to.
    pub dst: IpAddr,
    /// The sealed datagram.
    pub datagram: &'a Datagram,
}

/// Finds a datagram in an underlay frame: UDP to [`PORT`], of its length, with its first bytes and right
/// checksums.
///
/// # Errors
/// [`WireError::NotThis`] for all other traffic; [`WireError::BadChecksum`], or what the headers' gates say.
pub fn parse(frame: &[u8]) -> Result<Received<'_>, WireError> {
    let eth = Ethernet::new_checked(frame)?;
    let packet = &frame[ethernet::HEADER_LEN..];
    let (src, dst, at, good): (IpAddr, IpAddr, usize, bool) = match eth.ethertype() {
        EtherType::IPV4 => {
            let ip = Ipv4::new_checked(packet)?;
            if ip.proto() != proto::UDP || ip.is_fragment() || packet[0] != 0x45 {
                return Err(WireError::NotThis);
            }
            let good = ip.verify_checksum()
                && Udp::new_checked(ip.payload()).is_ok_and(|u| u.verify_v4(ip.src(), ip.dst()));
            (ip.src().into(), ip.dst().into(), ipv4::HEADER_LEN, good)
        }
        EtherType::IPV6 => {
            let ip = Ipv6::new_checked(packet)?;
            if ip.next_header() != proto::UDP {
                return Err(WireError::NotThis);
            }
            let good = Udp::new_checked(ip.payload()).is_ok_and(|u| u.verify_v6(ip.src(), ip.dst()));
            (ip.src().into(), ip.dst().into(), ipv6::HEADER_LEN, good)
        }
        _ => return Err(WireError::NotThis),
    };
    let rest = packet.get(at..).ok_or(WireError::Truncated)?;
    let u = rest.get(..udp::HEADER_LEN).ok_or(WireError::Truncated)?;
    let body: &Datagram =
        rest.get(udp::HEADER_LEN..).and_then(|b| b.first_chunk()).ok_or(WireError::NotThis)?;
    let right = u16_at(u, 2) == PORT && usize::from(u16_at(u, 4)) == udp::HEADER_LEN + LEN;
    if !right || body[..MAGIC.len()] != MAGIC {
        return Err(WireError::NotThis);
    }
    if !good {
        return Err(WireError::BadChecksum);
    }
    Ok(Received { src, dst, datagram: body })
}

/// Writes the frame that carries a datagram between two locators; returns its length.
///
/// # Errors
/// [`WireError::NoSpace`]; [`WireError::BadField`] where the locators are of two families.
pub fn emit_frame(
    buf: &mut [u8],
    (src_mac, dst_mac): (Mac, Mac),
    (src, dst): (IpAddr, IpAddr),
    datagram: &Datagram,
) -> Result<usize, WireError> {
    const TTL: u8 = 64;
    let payload_len = udp::HEADER_LEN + LEN;
    let (ty, ip_len) = match dst {
        IpAddr::V4(_) => (EtherType::IPV4, ipv4::HEADER_LEN),
        IpAddr::V6(_) => (EtherType::IPV6, ipv6::HEADER_LEN),
    };
    let at = ethernet::HEADER_LEN + ip_len;
    let frame = buf.get_mut(..at + payload_len).ok_or(WireError::NoSpace)?;
    ethernet::emit(frame, dst_mac, src_mac, ty)?;
    let pseudo = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ip = ipv4::Ipv4Repr {
                src,
                dst,
                proto: proto::UDP,
                ttl: TTL,
                tos: 0,
                ident: 0,
                dont_fragment: true,
                payload_len,
            };
            ip.emit(&mut frame[ethernet::HEADER_LEN..])?;
            pseudo_v4(src, dst, proto::UDP, payload_len as u16)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let ip = ipv6::Ipv6Repr {
                src,
                dst,
                next_header: proto::UDP,
                hop_limit: TTL,
                traffic_class: 0,
                flow_label: 0,
                payload_len,
            };
            ip.emit(&mut frame[ethernet::HEADER_LEN..])?;
            pseudo_v6(src, dst, proto::UDP, payload_len as u32)
        }
        _ => return Err(WireError::BadField),
    };
    udp::emit(&mut frame[at..], PORT, PORT, LEN)?;
    put(frame, at + udp::HEADER_LEN, *datagram);
    let computed = !fold(pseudo + sum(&frame[at..]));
    put_u16(frame, at + 6, udp_field(computed));
    Ok(at + payload_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const DST: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn notice(kind: Kind) -> Notice {
        let there = kind.names_locators();
        Notice {
            kind,
            vni: Vni::from_low24(0x00ab_cdef),
            mac: Mac([2, 1, 2, 3, 4, 5]),
            version: (3, 0x0102_0304_0506_0708),
            v4: there.then_some(Ipv4Addr::new(198, 18, 0, 2)),
            v6: there.then_some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
        }
    }

    fn pairs() -> [(IpAddr, IpAddr); 2] {
        let v6 = |n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into();
        [(Ipv4Addr::new(198, 18, 0, 1).into(), Ipv4Addr::new(198, 18, 0, 2).into()), (v6(1), v6(2))]
    }

    fn datagram() -> Datagram {
        let mut d = [0x5a; LEN];
        d[..HEAD_LEN].copy_from_slice(&Head { key: 1, sender: 2, counter: 3 }.emit());
        d
    }

    #[test]
    fn r47_a_notice_survives_its_body() {
        let order = [Kind::PathEnd, Kind::PathEnded, Kind::SentAll];
        for kind in [Kind::Redirect, Kind::NotHere, Kind::Departed].into_iter().chain(order) {
            assert_eq!(Notice::parse(&notice(kind).emit()), Ok(notice(kind)));
        }
        let one = Notice { v6: None, ..notice(Kind::Redirect) };
        assert_eq!(Notice::parse(&one.emit()), Ok(one));
    }

    #[test]
    fn r77_an_end_marker_has_its_place_in_the_format() {
        let body = notice(Kind::PathEnd).emit();
        let begins = [4, 3, 2, 1, 2, 3, 4, 5, 0x00, 0xab, 0xcd, 0xef, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(body[..24], begins);
        assert_eq!((body[24..28].to_vec(), body[43]), (vec![198, 18, 0, 2], 2));
        for (kind, first) in [(Kind::PathEnded, [5, 0]), (Kind::SentAll, [6, 0])] {
            let body = notice(kind).emit();
            assert_eq!(body[..2], first);
            assert!(body[24..].iter().all(|b| *b == 0), "{kind:?} names nobody");
        }
    }

    #[test]
    fn r47_nonsense_in_a_body_is_refused() {
        let nowhere = Notice { v4: None, v6: None, ..notice(Kind::Redirect) };
        let group = Notice { mac: Mac::BROADCAST, ..notice(Kind::NotHere) };
        let zero = Notice { v4: Some(Ipv4Addr::UNSPECIFIED), ..notice(Kind::Redirect) };
        let lost = Notice { v4: Some(Ipv4Addr::LOCALHOST), ..notice(Kind::Departed) };
        let nobody = Notice { v4: None, v6: None, ..notice(Kind::PathEnd) };
        let answer = Notice { v4: Some(Ipv4Addr::LOCALHOST), ..notice(Kind::PathEnded) };
        for n in [nowhere, group, zero, lost, nobody, answer] {
            assert_eq!(Notice::parse(&n.emit()), Err(WireError::BadField), "{n:?}");
        }
        for (at, value) in [(0, 0), (0, 7), (1, 4), (8, 1)] {
            let mut b = notice(Kind::Redirect).emit();
            b[at] = value;
            assert_eq!(Notice::parse(&b), Err(WireError::BadField), "byte {at}");
        }
    }

    #[test]
    fn r47_a_frame_comes_back_as_it_went() {
        let d = datagram();
        assert_eq!(Head::parse(&d), Ok(Head { key: 1, sender: 2, counter: 3 }));
        for (src, dst) in pairs() {
            let mut buf = [0; MAX_FRAME_LEN];
            let n = emit_frame(&mut buf, (SRC, DST), (src, dst), &d).unwrap();
            let frame = &buf[..n];
            assert_eq!((&frame[..6], &frame[6..12]), (&DST.0[..], &SRC.0[..]));
            assert_eq!(parse(frame), Ok(Received { src, dst, datagram: &d }));
            for cut in 0..n {
                assert!(parse(&frame[..cut]).is_err(), "cut at {cut}");
            }
            for at in 14..n {
                let mut broken = buf;
                broken[at] ^= 0x10;
                let same =
                    parse(&broken[..n]).is_ok_and(|r| r.datagram == &d && r.dst == dst && r.src == src);
                // Of IPv6 nothing sums hop limit, class and label.
                let unsummed = dst.is_ipv6() && (14..22).contains(&at);
                assert!(!same || unsummed, "byte {at}");
            }
        }
        let mut buf = [0; MAX_FRAME_LEN];
        let mixed = (pairs()[0].0, pairs()[1].1);
        assert_eq!(emit_frame(&mut buf, (SRC, DST), mixed, &d), Err(WireError::BadField));
        assert_eq!(emit_frame(&mut buf[..100], (SRC, DST), pairs()[1], &d), Err(WireError::NoSpace));
    }
}
