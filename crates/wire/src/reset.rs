//! The reset that answers a TCP segment in the name of a host that does not run any more (R53): RFC 9293 section
//! 3.10.7.1, with the sequence number that RFC 5961 section 3 asks for.

use core::net::IpAddr;

use crate::bytes::{put, put_u16, put_u32};
use crate::checksum::{fold, pseudo_v4, pseudo_v6, sum};
use crate::ipv4::Ipv4Repr;
use crate::ipv6::Ipv6Repr;
use crate::tcp::{self, ACK, FIN, RST, SYN, Tcp};
use crate::{Frame, ethernet, ipv6, proto};

/// Bytes of the longest frame: two tags, IPv6, a header without options.
pub const MAX_LEN: usize =
    ethernet::HEADER_LEN + ethernet::MAX_TAGS * ethernet::TAG_LEN + ipv6::HEADER_LEN + tcp::HEADER_LEN;

/// Writes the frame that resets the connection of the segment in `frame`, back to its sender, with the frame's tags;
/// returns its length. `None` where no reset may be sent: about a reset, a fragment, a segment whose checksums are
/// wrong, one from or to a group, and what is no TCP.
///
/// A segment with ACK is answered by its acknowledgement number, which is what its sender expects next exactly: any
/// other one would only be challenged (RFC 5961 section 3.2).
pub fn answer(frame: &Frame<'_>, buf: &mut [u8; MAX_LEN]) -> Option<usize> {
    let (upper, bytes) = frame.upper()?;
    if upper.proto != proto::TCP || upper.fragment.is_some() || frame.dst().is_multicast() {
        return None;
    }
    let (src, dst) = checked_addresses(frame, bytes)?;
    let segment = Tcp::new_checked(bytes).ok()?;
    if segment.flags() & RST != 0 {
        return None;
    }
    let (seq, ack, flags) = if segment.flags() & ACK != 0 {
        (segment.ack(), 0, RST)
    } else {
        (0, segment.seq().wrapping_add(length(&segment)), RST | ACK)
    };
    let mut header = [0; tcp::HEADER_LEN];
    put_u16(&mut header, 0, segment.dst_port());
    put_u16(&mut header, 2, segment.src_port());
    put_u32(&mut header, 4, seq);
    put_u32(&mut header, 8, ack);
    put(&mut header, 12, [(tcp::HEADER_LEN as u8 / 4) << 4, flags]);
    // It goes from where the segment was sent to.
    emit(frame, (dst, src), header, buf)
}

/// SEG.LEN of RFC 9293: data, and one each for SYN and FIN.
fn length(segment: &Tcp<&[u8]>) -> u32 {
    let flags = segment.flags();
    segment.payload().len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0)
}

/// Source and destination of a packet between two hosts whose checksums are right.
fn checked_addresses(frame: &Frame<'_>, segment: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (src, dst, good): (IpAddr, IpAddr, bool) = if frame.is_v6() {
        let ip = frame.ipv6()?;
        let s = pseudo_v6(ip.src(), ip.dst(), proto::TCP, segment.len() as u32) + sum(segment);
        (ip.src().into(), ip.dst().into(), fold(s) == 0xffff)
    } else {
        let ip = frame.ipv4()?;
        let s = pseudo_v4(ip.src(), ip.dst(), proto::TCP, segment.len() as u16) + sum(segment);
        let limited = ip.src().is_broadcast() || ip.dst().is_broadcast();
        (ip.src().into(), ip.dst().into(), fold(s) == 0xffff && ip.verify_checksum() && !limited)
    };
    let single = |a: IpAddr| !a.is_multicast() && !a.is_unspecified();
    (good && single(src) && single(dst)).then_some((src, dst))
}

/// The frame of a TCP header without payload, between the ends of `about` the other way round.
fn emit(
    about: &Frame<'_>,
    (src, dst): (IpAddr, IpAddr),
    mut header: [u8; tcp::HEADER_LEN],
    buf: &mut [u8; MAX_LEN],
) -> Option<usize> {
    let l3 = about.l3();
    buf[..6].copy_from_slice(&about.src().0);
    buf[6..12].copy_from_slice(&about.dst().0);
    buf[12..l3].copy_from_slice(&about.bytes()[12..l3]);
    let len = header.len();
    let (pseudo, ip_len) = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ip = Ipv4Repr {
                src,
                dst,
                proto: proto::TCP,
                ttl: 64,
                tos: 0,
                ident: 0,
                dont_fragment: true,
                payload_len: len,
            };
            (pseudo_v4(src, dst, proto::TCP, len as u16), ip.emit(&mut buf[l3..]).ok()?)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let ip = Ipv6Repr {
                src,
                dst,
                next_header: proto::TCP,
                hop_limit: 64,
                traffic_class: 0,
                flow_label: 0,
                payload_len: len,
            };
            (pseudo_v6(src, dst, proto::TCP, len as u32), ip.emit(&mut buf[l3..]).ok()?)
        }
        _ => return None,
    };
    let checksum = !fold(pseudo + sum(&header));
    put_u16(&mut header, 16, checksum);
    let at = l3 + ip_len;
    buf[at..at + len].copy_from_slice(&header);
    Some(at + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A segment between two hosts: its sequence number, acknowledgement, flags and payload.
    #[derive(Clone, Debug)]
    struct Segment {
        v6: bool,
        tags: usize,
        seq: u32,
        ack: u32,
        flags: u8,
        data: Vec<u8>,
    }

    fn frame(s: &Segment) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for n in 0..s.tags {
            f.extend([0x81, 0, 0, 10 + n as u8]);
        }
        f.extend(if s.v6 { [0x86, 0xdd] } else { [0x08, 0] });
        let mut t = vec![0; tcp::HEADER_LEN];
        put_u16(&mut t, 0, 40_000);
        put_u16(&mut t, 2, 80);
        put_u32(&mut t, 4, s.seq);
        put_u32(&mut t, 8, s.ack);
        put(&mut t, 12, [0x50, s.flags, 0xff, 0xff]);
        t.extend(&s.data);
        let mut ip = [0; ipv6::HEADER_LEN];
        let (n, pseudo) = if s.v6 {
            let (src, dst) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
            let repr = Ipv6Repr {
                src,
                dst,
                next_header: proto::TCP,
                hop_limit: 9,
                traffic_class: 0,
                flow_label: 7,
                payload_len: t.len(),
            };
            (repr.emit(&mut ip).unwrap(), pseudo_v6(src, dst, proto::TCP, t.len() as u32))
        } else {
            let (src, dst) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
            let repr = Ipv4Repr {
                src,
                dst,
                proto: proto::TCP,
                ttl: 9,
                tos: 0,
                ident: 1,
                dont_fragment: false,
                payload_len: t.len(),
            };
            (repr.emit(&mut ip).unwrap(), pseudo_v4(src, dst, proto::TCP, t.len() as u16))
        };
        let sum = !fold(pseudo + sum(&t));
        put_u16(&mut t, 16, sum);
        f.extend(&ip[..n]);
        f.extend(&t);
        f
    }

    fn answered(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut buf = [0; MAX_LEN];
        let n = answer(&Frame::read(bytes).unwrap(), &mut buf)?;
        Some(buf[..n].to_vec())
    }

    /// Sequence number, acknowledgement and flags of a reset, whose checksums and ends are right.
    fn reset(of: &[u8]) -> Option<(u32, u32, u8)> {
        let bytes = answered(of)?;
        let (asked, told) = (Frame::read(of).unwrap(), Frame::read(&bytes).unwrap());
        assert_eq!((told.dst(), told.src()), (asked.src(), asked.dst()));
        assert_eq!(told.bytes()[12..told.l3()], asked.bytes()[12..asked.l3()], "the tags stay");
        let (_, segment) = told.upper().unwrap();
        let (src, dst) = checked_addresses(&told, segment).expect("right checksums");
        let (_, about) = asked.upper().unwrap();
        assert_eq!(Some((dst, src)), checked_addresses(&asked, about));
        let (t, a) = (Tcp::new_checked(segment).unwrap(), Tcp::new_checked(about).unwrap());
        assert_eq!((t.src_port(), t.dst_port()), (a.dst_port(), a.src_port()));
        assert!(t.payload().is_empty());
        Some((t.seq(), t.ack(), t.flags()))
    }

    #[test]
    fn r53_a_segment_with_ack_is_reset_by_what_its_sender_expects_next() {
        for v6 in [false, true] {
            let s = Segment { v6, tags: 0, seq: 1000, ack: 7777, flags: ACK | tcp::PSH, data: vec![1; 9] };
            assert_eq!(reset(&frame(&s)), Some((7777, 0, RST)));
        }
    }

    #[test]
    fn r53_a_bare_syn_is_reset_by_an_acknowledgement_of_it() {
        let s = Segment { v6: false, tags: 2, seq: u32::MAX, ack: 5, flags: SYN, data: vec![] };
        assert_eq!(reset(&frame(&s)), Some((0, 0, RST | ACK)));
    }

    #[test]
    fn r53_resets_fragments_groups_and_bad_checksums_are_not_answered() {
        let s = Segment { v6: false, tags: 0, seq: 1, ack: 2, flags: ACK, data: vec![3; 20] };
        let good = frame(&s);
        assert!(answered(&good).is_some());
        assert_eq!(answered(&frame(&Segment { flags: RST, ..s.clone() })), None);
        assert_eq!(answered(&frame(&Segment { flags: RST | ACK, v6: true, ..s.clone() })), None);
        let changed = |at: usize, to: u8| {
            let mut f = good.clone();
            f[at] = to;
            f
        };
        let last = good.len() - 1;
        assert_eq!(answered(&changed(last, 9)), None, "bad TCP checksum");
        assert_eq!(answered(&changed(22, 77)), None, "bad IPv4 checksum");
        assert_eq!(answered(&changed(0, 3)), None, "a group's MAC");
        // A first fragment whose header checksum is right.
        let mut first = changed(20, 0x20);
        put_u16(&mut first, 24, 0);
        let sum = crate::checksum::checksum(&first[14..34]);
        put_u16(&mut first, 24, sum);
        assert_eq!(answered(&first), None, "a fragment");
        assert_eq!(answered(&changed(23, 17)), None, "no TCP");
    }

    proptest! {
        #[test]
        fn r53_a_reset_answers_as_rfc_9293_says(
            (v6, tags, seq, ack) in (any::<bool>(), 0usize..3, any::<u32>(), any::<u32>()),
            flags in 0u8..64,
            data in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let s = Segment { v6, tags, seq, ack, flags, data };
            let len = s.data.len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            let right = match (flags & RST != 0, flags & ACK != 0) {
                (true, _) => None,
                (_, true) => Some((ack, 0, RST)),
                (_, false) => Some((0, seq.wrapping_add(len), RST | ACK)),
            };
            prop_assert_eq!(reset(&frame(&s)), right);
        }

        #[test]
        fn r53_no_frame_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 14..120), v6: bool) {
            bytes[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0] });
            let mut buf = [0; MAX_LEN];
            answer(&Frame::read(&bytes).unwrap(), &mut buf);
        }
    }
}
