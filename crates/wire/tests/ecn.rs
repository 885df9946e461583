//! R6: RFC 6040 figure 4, all sixteen combinations in both families.

use godwit_testkit::frames::{self, V4, V6};
use godwit_wire::ecn::{CongestionDrop, apply_to_frame, decapsulate};
use godwit_wire::{Ecn, Mac};

const M1: Mac = Mac([2, 0, 0, 0, 0, 1]);
const M2: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// The figure as the RFC prints it: a row an inner codepoint, columns Not-ECT, ECT(0), ECT(1), CE.
const FIGURE_4: [(Ecn, [Option<Ecn>; 4]); 4] = [
    (Ecn::NotEct, [Some(Ecn::NotEct), Some(Ecn::NotEct), Some(Ecn::NotEct), None]),
    (Ecn::Ect0, [Some(Ecn::Ect0), Some(Ecn::Ect0), Some(Ecn::Ect1), Some(Ecn::Ce)]),
    (Ecn::Ect1, [Some(Ecn::Ect1), Some(Ecn::Ect1), Some(Ecn::Ect1), Some(Ecn::Ce)]),
    (Ecn::Ce, [Some(Ecn::Ce), Some(Ecn::Ce), Some(Ecn::Ce), Some(Ecn::Ce)]),
];
const COLUMNS: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

fn v4(tos: u8) -> Vec<u8> {
    let mut ip = V4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17);
    ip.tos = tos;
    frames::ethernet(M2, M1, 0x0800, &ip.packet(&[0; 8]))
}

fn v6(class: u8) -> Vec<u8> {
    let one = std::net::Ipv6Addr::LOCALHOST;
    let mut ip = V6::new(one, one, 17);
    (ip.class, ip.label) = (class, 0xabcde);
    frames::ethernet(M2, M1, 0x86dd, &ip.packet(&[0; 8]))
}

#[test]
fn codepoints() {
    for bits in 0..=255u8 {
        assert_eq!(Ecn::from_bits(bits).bits(), bits & 3);
    }
    assert_eq!((Ecn::Ect0.bits(), Ecn::Ect1.bits()), (0b10, 0b01));
}

#[test]
fn figure_4() {
    for (inner, row) in FIGURE_4 {
        for (outer, expected) in COLUMNS.into_iter().zip(row) {
            assert_eq!(decapsulate(inner, outer).ok(), expected, "{inner:?} in {outer:?}");
        }
    }
}

#[test]
fn figure_4_in_frames_keeps_dscp_and_checksum() {
    for build in [v4 as fn(u8) -> Vec<u8>, v6] {
        for dscp in [0, 0x2e << 2, 0xfc] {
            for (inner, row) in FIGURE_4 {
                for (outer, expected) in COLUMNS.into_iter().zip(row) {
                    let before = build(dscp | inner.bits());
                    let mut f = build(dscp | inner.bits());
                    let result = apply_to_frame(&mut f, outer);
                    // The frame built with the merged codepoint has the right checksum.
                    let wanted = expected.map(|e| build(dscp | e.bits()));
                    assert_eq!(result, if wanted.is_some() { Ok(()) } else { Err(CongestionDrop) });
                    assert_eq!(f, wanted.unwrap_or(before));
                }
            }
        }
    }
}

#[test]
fn frames_that_are_not_ip_pass_even_under_ce() {
    let mut arp = frames::garp(M1, [10, 0, 0, 1].into());
    let before = arp.clone();
    assert_eq!(apply_to_frame(&mut arp, Ecn::Ce), Ok(()));
    assert_eq!(arp, before);
    assert_eq!(Ecn::for_encap(&arp), Ecn::NotEct);
    assert_eq!(Ecn::of_frame(&arp), None);
}

#[test]
fn encapsulation_copies_through_tags() {
    for e in COLUMNS {
        assert_eq!(Ecn::for_encap(&v4(0xb8 | e.bits())), e);
        assert_eq!(Ecn::for_encap(&frames::tagged(&v6(0xb8 | e.bits()), 0x8100, 1)), e);
    }
}
