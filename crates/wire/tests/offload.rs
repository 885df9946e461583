//! Checksums and segments that a guest leaves to the switch (R11), against builders that know neither.

use godwit_testkit::{frames, fuzzing};
use godwit_wire::offload::{Cut, Layers, MAX_SEGMENTS};
use godwit_wire::{Frame, Mac, WireError};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const MACS: (Mac, Mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
const CWR: u8 = 0x80;
const URG: u8 = 0x20;
const FIN_PSH: u8 = 0x09;

/// A TCP frame as its fields.
#[derive(Clone, Debug)]
struct Sent {
    six: bool,
    tags: usize,
    /// IPv4 options or an IPv6 hop-by-hop header, in units of 8 bytes.
    extra: usize,
    ident: u16,
    seq: u32,
    flags: u8,
    urgent: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Sent {
    fn addresses(&self) -> (IpAddr, IpAddr) {
        match self.six {
            true => (Ipv6Addr::from(1).into(), Ipv6Addr::from(2 << 64).into()),
            false => (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(192, 0, 2, 255).into()),
        }
    }

    /// The frame, byte by byte; a checksum other than the right one where `partial` says so.
    fn frame(&self, partial: Option<u16>) -> Vec<u8> {
        let (src, dst) = self.addresses();
        let mut m = vec![0x12, 0x34, 0x56, 0x78];
        m.extend(self.seq.to_be_bytes());
        m.extend([9, 9, 9, 9, ((20 + self.options.len()) as u8) << 2, self.flags, 1, 2, 0, 0]);
        m.extend(self.urgent.to_be_bytes());
        m.extend(&self.options);
        m.extend(&self.payload);
        let sum = partial.unwrap_or_else(|| frames::upper_checksum(src, dst, 6, &m));
        m[16..18].copy_from_slice(&sum.to_be_bytes());
        let packet = match (src, dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                let mut ip = frames::V4::new(s, d, 6);
                (ip.ident, ip.frag, ip.options) = (self.ident, 0x4000, vec![1; 8 * self.extra]);
                ip.packet(&m)
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                let mut ip = frames::V6::new(s, d, 6);
                if self.extra > 0 {
                    ip.next = 0;
                    ip.extensions = vec![6, self.extra as u8 - 1];
                    ip.extensions.resize(8 * self.extra, 0);
                }
                ip.packet(&m)
            }
            _ => unreachable!("one family"),
        };
        let frame = frames::ethernet(MACS.1, MACS.0, frames::ethertype(src), &packet);
        (0..self.tags).fold(frame, |f, _| frames::tagged(&f, 0x8100, 5))
    }

    /// What RFC 9293 has a sender put into packets of `segment` bytes.
    fn expected(&self, segment: usize) -> Vec<Vec<u8>> {
        let n = self.payload.len().div_ceil(segment).max(1);
        let packet = |i: usize| {
            let from = i * segment;
            let mut one = self.clone();
            one.payload = self.payload[from..self.payload.len().min(from + segment)].to_vec();
            one.seq = self.seq.wrapping_add(from as u32);
            one.ident = self.ident.wrapping_add(i as u16);
            if i > 0 {
                one.flags &= !CWR;
            }
            if i + 1 < n {
                one.flags &= !FIN_PSH;
            }
            if self.flags & URG != 0 {
                one.urgent = self.urgent.saturating_sub(from as u16);
                if from > 0 && one.urgent == 0 {
                    one.flags &= !URG;
                }
            }
            one.frame(None)
        };
        (0..n).map(packet).collect()
    }
}

prop_compose! {
    fn sent()(
        six in any::<bool>(),
        tags in 0usize..3,
        extra in 0usize..3,
        (ident, seq) in (any::<u16>(), prop_oneof![any::<u32>(), Just(u32::MAX - 700)]),
        flags in any::<u8>().prop_map(|f| f & !6),
        urgent in 0u16..3000,
        options in (0usize..11).prop_map(|n| vec![1; 4 * n]),
        payload in proptest::collection::vec(any::<u8>(), 0..4000),
    ) -> Sent {
        Sent { six, tags, extra, ident, seq, flags, urgent, options, payload }
    }
}

/// Cuts a frame as the pipeline does.
fn cut(frame: &[u8], segment: u16) -> Vec<Vec<u8>> {
    let cut = Cut::of(&Frame::read(frame).expect("a header"), segment).expect("a sound frame");
    let mut at = cut.header_len();
    let packet = |i| {
        let mut packet = frame[..cut.header_len()].to_vec();
        packet.extend(&frame[at..at + cut.payload_len(i)]);
        at += cut.payload_len(i);
        assert!(cut.finish(i, &mut packet));
        packet
    };
    (0..cut.count()).map(packet).collect()
}

proptest! {
    #[test]
    fn r11_segments_are_those_of_a_sender_that_cuts_itself(
        s in sent(), segment in 16u16..1500, partial: u16, padding in 0usize..7,
    ) {
        let mut frame = s.frame(Some(partial));
        frame.resize(frame.len() + padding, 0xee);
        prop_assert_eq!(cut(&frame, segment), s.expected(segment.into()));
    }

    #[test]
    fn r11_a_partial_checksum_is_completed(s in sent(), partial: u16) {
        let mut frame = s.frame(Some(partial));
        let layers = Frame::read(&frame).and_then(|f| Layers::of(&f)).expect("sound");
        prop_assert!(layers.complete(&mut frame));
        prop_assert_eq!(frame, s.frame(None));
    }

    #[test]
    fn r11_no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::offload(&bytes);
    }

    #[test]
    fn r11_no_change_of_a_sound_frame_panics(
        s in sent(), at in 0usize..100, value: u8, first in 0usize..200, segment: u16,
    ) {
        let mut frame = s.frame(None);
        if let Some(b) = frame.get_mut(at) {
            *b = value;
        }
        fuzzing::offload(&[&segment.to_be_bytes()[..], &[first as u8], &frame].concat());
    }
}

#[test]
fn r11_udp_whose_sum_is_zero_is_sent_as_all_ones() {
    let (src, dst): (IpAddr, IpAddr) = (Ipv6Addr::from(1).into(), Ipv6Addr::from(2).into());
    // The payload that makes the sum zero.
    let open = frames::upper_checksum(src, dst, 17, &[0, 1, 0, 2, 0, 10, 0, 0, 0, 0]);
    let message = frames::udp(src, dst, (1, 2), &open.to_be_bytes(), frames::Ck::Raw(7));
    let mut frame = frames::ethernet(MACS.1, MACS.0, 0x86dd, &frames::ip(src, dst, 17, &message));
    let layers = Frame::read(&frame).and_then(|f| Layers::of(&f)).expect("sound");
    assert!(!layers.tcp && layers.complete(&mut frame));
    assert_eq!(frame[layers.checksum_at()..][..2], [0xff, 0xff]);
}

#[test]
fn r11_what_cannot_be_completed_or_cut_is_refused() {
    let base = Sent {
        six: false,
        tags: 0,
        extra: 0,
        ident: 1,
        seq: 1,
        flags: 0x10,
        urgent: 0,
        options: Vec::new(),
        payload: vec![7; 30_000],
    };
    let frame = base.frame(None);
    let cut = |f: &[u8], len, segment| Frame::read_first(f, len).and_then(|f| Cut::of(&f, segment));
    let of = |f: &[u8], segment| cut(f, frame.len(), segment).map(|c| c.count());
    assert_eq!(of(&frame, 1448), Ok(21));
    assert_eq!(of(&frame, 0), Err(WireError::BadField), "a segment size of zero");
    assert_eq!(of(&frame, 100), Err(WireError::BadField), "more than {MAX_SEGMENTS} packets");
    assert_eq!(of(&frame[..54], 1448), Ok(21), "the first piece need hold no more than the headers");
    assert_eq!(of(&frame[..53], 1448), Err(WireError::Truncated));
    assert_eq!(cut(&frame, frame.len() - 1, 1448), Err(WireError::BadLength), "longer than its frame");
    for (at, value, why) in [
        (12, 0x86, WireError::NotThis),
        (14, 0x55, WireError::BadVersion),
        (14, 0x44, WireError::BadLength),
        (20, 0x20, WireError::Fragment),
        (21, 0x01, WireError::Fragment),
        (23, 17, WireError::BadLength),
        (23, 132, WireError::NotThis),
        (46, 0x40, WireError::BadLength),
        (47, 0x12, WireError::BadField),
        (47, 0x14, WireError::BadField),
    ] {
        let mut bad = frame.clone();
        bad[at] = value;
        assert_eq!(of(&bad, 1448), Err(why), "byte {at} is {value:#x}");
    }
    let udp = frames::udp_frame(
        (MACS.0, Ipv4Addr::LOCALHOST.into(), 1),
        (MACS.1, Ipv4Addr::LOCALHOST.into(), 2),
        &[1; 99],
    );
    assert_eq!(cut(&udp, udp.len(), 50), Err(WireError::NotThis), "UDP is not cut");
}
