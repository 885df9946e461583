//! Fragments of IPv4 packets, put together again as a receiver does (RFC 791 section 3.2).

use godwit_testkit::frames::{self, V4};
use godwit_wire::fragment::Fragments;
use godwit_wire::{Ipv4, WireError};
use proptest::prelude::*;
use std::net::Ipv4Addr;

const SRC: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const DST: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);

/// Well-formed options: each with a type and so many bytes of data.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        Just(vec![1u8]),
        (2u8..=255, 0usize..9).prop_map(|(kind, n)| [&[kind, 2 + n as u8], &vec![7; n][..]].concat()),
    ];
    proptest::collection::vec(one, 0..4).prop_map(|all| {
        let mut all = all.concat();
        all.truncate(if all.len() > 40 { 0 } else { 40 });
        all.resize(all.len().next_multiple_of(4), 0);
        all
    })
}

/// Options of the list that a fragment other than the first has.
fn copied(mut options: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [kind, rest @ ..] = options {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(rest[0]),
        };
        if *kind >= 128 {
            out.extend(&options[..len]);
        }
        options = &options[len..];
    }
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn well_formed(mut options: &[u8]) -> bool {
    loop {
        match options {
            [] | [0, ..] => return true,
            [1, rest @ ..] => options = rest,
            [_, n, ..] if *n >= 2 && usize::from(*n) <= options.len() => {
                options = &options[usize::from(*n)..]
            }
            _ => return false,
        }
    }
}

fn emit_all(cut: &Fragments, packet: &[u8]) -> Vec<Vec<u8>> {
    let one = |i| {
        let mut b = vec![0; cut.len(i)];
        assert_eq!(cut.emit(i, packet, &mut b), Ok(b.len()));
        assert_eq!(cut.emit(i, packet, &mut b[1..]), Err(WireError::NoSpace));
        b
    };
    (0..cut.count()).map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn r8_fragments_make_the_packet_again(
        options in options(),
        len in 0usize..5000,
        mtu in 68usize..1600,
        // A fragment itself: its own offset, and whether more follow.
        (offset, more) in (0u16..1000, any::<bool>()),
        ident in any::<u16>(),
    ) {
        prop_assume!(well_formed(&options));
        let payload: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let frag = offset | if more { 0x2000 } else { 0 };
        let header = V4 { frag, ident, options: options.clone(), ttl: 9, tos: 5, ..V4::new(SRC, DST, 17) };
        let packet = header.packet(&payload);
        let cut = Fragments::of(&packet, mtu).expect("it may be cut");
        let all = emit_all(&cut, &packet);
        let mut again: Vec<u8> = Vec::new();
        for (i, f) in all.iter().enumerate() {
            prop_assert!(f.len() <= mtu);
            let ip = Ipv4::new_checked(f.as_slice()).expect("a packet");
            prop_assert!(ip.verify_checksum() && !ip.dont_fragment());
            prop_assert_eq!((ip.src(), ip.dst(), ip.proto()), (SRC, DST, 17));
            prop_assert_eq!((ip.ttl(), ip.tos(), ip.ident()), (9, 5, ident));
            prop_assert_eq!(ip.fragment_offset(), usize::from(offset) * 8 + again.len());
            prop_assert_eq!(ip.more_fragments(), more || i + 1 < all.len());
            prop_assert_eq!(ip.total_len(), f.len());
            let want = if i == 0 { options.clone() } else { copied(&options) };
            prop_assert_eq!(&f[20..ip.header_len()], want.as_slice());
            again.extend_from_slice(ip.payload());
        }
        prop_assert_eq!(again, payload);
        if packet.len() <= mtu {
            prop_assert_eq!(all, vec![packet]);
        }
    }

    #[test]
    fn no_bytes_panic(b in proptest::collection::vec(any::<u8>(), 0..200), mtu in 0usize..300, six in any::<bool>()) {
        let mut b = b;
        if let Some(first) = b.first_mut() {
            *first = if six { 0x60 } else { 0x40 | *first & 15 };
        }
        if let Ok(cut) = Fragments::of(&b, mtu) {
            for i in 0..cut.count() {
                let mut to = vec![0; cut.len(i)];
                prop_assert_eq!(cut.emit(i, &b, &mut to), Ok(to.len()));
            }
        }
        let _ = godwit_wire::forward::upper_field(&b);
        let (to, from) = (godwit_wire::Mac([2; 6]), godwit_wire::Mac([4; 6]));
        let frame = frames::ethernet(to, from, if six { 0x86dd } else { 0x0800 }, &b);
        let _ = godwit_wire::Frame::read(&frame).map(|f| godwit_wire::forward::read(&f));
    }
}

#[test]
fn r8_what_must_not_or_cannot_be_cut() {
    let df = V4 { frag: 0x4000, ..V4::new(SRC, DST, 17) }.packet(&[0; 2000]);
    assert_eq!(Fragments::of(&df, 1500).err(), Some(WireError::NotThis));
    let plain = V4::new(SRC, DST, 17).packet(&[0; 2000]);
    assert_eq!(Fragments::of(&plain, 27).err(), Some(WireError::BadLength));
    assert_eq!(Fragments::of(&plain, 28).expect("eight bytes each").count(), 250);
    let bad = V4 { options: vec![7, 9, 0, 0], ..V4::new(SRC, DST, 17) }.packet(&[0; 2000]);
    assert_eq!(Fragments::of(&bad, 1500).err(), Some(WireError::BadField));
}
