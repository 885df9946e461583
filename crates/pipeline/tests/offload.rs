//! Frames that guests leave unfinished (R11).

use crate::common::*;
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_pipeline::packet::{Asks, Packet, ReceiveOffloads};
use godwit_tables::DropReason;
use godwit_tables::update::*;
use godwit_testkit::frames;
use godwit_wire::offload::Layers;
use godwit_wire::{Frame, Mac, WireError};
use std::net::IpAddr;

const ALL: ReceiveOffloads = ReceiveOffloads { checksum: true, tcp4: true, tcp6: true };
const CHECKSUM: Asks = Asks { checksum: true, segment: 0 };
const MSS: u16 = 1400;

const fn cut(segment: u16) -> Asks {
    Asks { checksum: true, segment }
}

fn ips(six: bool) -> (IpAddr, IpAddr) {
    if six { (v6(1).into(), v6(2).into()) } else { (v4(1).into(), v4(2).into()) }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A TCP frame with FIN, PSH and ACK, as complete as a sender would have made it.
fn tcp(six: bool, to: Mac, len: usize) -> Vec<u8> {
    let (src, dst) = ips(six);
    frames::tcp_frame((M1, src, 1000), (to, dst, 80), (u32::MAX - 5000, 7), 0x19, &payload(len))
}

fn udp(six: bool, to: Mac, len: usize) -> Vec<u8> {
    let (src, dst) = ips(six);
    frames::udp_frame((M1, src, 1000), (to, dst, 53), &payload(len))
}

fn layers(frame: &[u8]) -> Result<Layers, WireError> {
    Frame::read(frame).and_then(|f| Layers::of(&f))
}

/// What a guest sends that leaves its checksum out: the sum of the pseudo-header stands in its place.
fn unfinished(mut frame: Vec<u8>) -> Vec<u8> {
    let at = layers(&frame).expect("TCP or UDP").checksum_at();
    frame[at..at + 2].copy_from_slice(&[0xab, 0xcd]);
    frame
}

fn from_guest(frame: Vec<u8>, asks: Asks, piece: usize) -> MemPacket {
    MemPacket::new(&unfinished(frame)).in_pieces(piece).asking(asks)
}

/// Checks every packet of a cut stream and returns its payload.
fn joined<'a>(packets: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let packets: Vec<&[u8]> = packets.collect();
    let mut all = Vec::new();
    for (i, p) in packets.iter().enumerate() {
        let l = layers(p).expect("sound");
        assert_eq!(l.end, p.len());
        let mut again = p.to_vec();
        assert!(l.complete(&mut again));
        assert_eq!(again, *p, "packet {i}: its checksum is right");
        let seq = u32::from_be_bytes(p[l.l4 + 4..l.l4 + 8].try_into().unwrap());
        assert_eq!(seq, (u32::MAX - 5000).wrapping_add(all.len() as u32));
        assert_eq!(p[l.l4 + 13], if i + 1 == packets.len() { 0x19 } else { 0x10 }, "FIN and PSH on the last");
        all.extend(&p[l.payload..]);
    }
    all
}

#[test]
fn r11_a_partial_checksum_is_completed_before_encapsulation() {
    for (six, to, piece) in [(false, R4, 4096), (true, R6, 4096), (false, R6, 200), (true, R4, 150)] {
        for frame in [tcp(six, to, 900), udp(six, to, 901)] {
            let mut lab = Lab::new();
            lab.input_packets(P1, vec![from_guest(frame.clone(), CHECKSUM, piece)]);
            let (port, outer) = lab.only();
            assert_eq!((port, open(outer).1), (UPLINK, &frame[..]));
            let w = &lab.tables.counters.worker;
            assert_eq!((w.checksums_completed, w.encapsulated, w.copies), (1, 1, 0));
        }
    }
}

#[test]
fn r11_64_kib_are_cut_before_encapsulation_and_no_outer_packet_exceeds_the_mtu() {
    for (six, to) in [(false, R4), (true, R6)] {
        let mut lab = Lab::new();
        lab.input_packets(P1, vec![from_guest(tcp(six, to, 65_000), cut(MSS), 2048)]);
        let outer = lab.to(UPLINK);
        assert_eq!(outer.len(), 65_000usize.div_ceil(MSS.into()));
        assert!(outer.iter().all(|f| f.len() <= 14 + usize::from(MTU)));
        assert_eq!(joined(outer.iter().map(|f| open(f).1)), payload(65_000));
        let w = &lab.tables.counters.worker;
        assert_eq!((w.segmented, w.copies, w.encapsulated), (1, 46, 47));
        let rx = lab.tables.counters.port(P1).rx_bytes;
        assert_eq!(rx as usize, tcp(six, to, 65_000).len(), "all pieces are counted");
    }
}

#[test]
fn r11_between_vms_of_one_host_frames_stay_whole() {
    for six in [false, true] {
        let mut lab = Lab::new();
        lab.out.takes = ALL;
        let sent = from_guest(tcp(six, M2, 65_000), cut(MSS), 2048);
        lab.input_packets(P1, vec![sent.clone(), from_guest(udp(six, M2, 10), CHECKSUM, 4096)]);
        assert_eq!(lab.out.sent.len(), 2);
        let (large, small) = (&lab.out.sent[0], &lab.out.sent[1]);
        assert!(large.0 == P2 && large.1 == sent, "not a byte is touched");
        let told = large.1.handed_on().expect("its receiver is told");
        assert_eq!((told.l2_len, told.l4_len, told.segment), (14, 20, MSS));
        assert!((told.six, told.tcp, told.l3_len) == (six, true, if six { 40 } else { 20 }));
        let told = small.1.handed_on().expect("its receiver is told");
        assert!(!told.tcp && told.segment == 0);
        assert_eq!(lab.tables.counters.worker.handed_on, 2);
    }
}

#[test]
fn r11_a_vm_that_cannot_finish_frames_gets_finished_ones() {
    let some = [
        ReceiveOffloads::NOTHING,
        ReceiveOffloads { tcp6: false, ..ALL },
        ReceiveOffloads { checksum: false, ..ALL },
    ];
    for (takes, six) in some.into_iter().zip([false, true, true]) {
        let mut lab = Lab::new();
        lab.out.takes = takes;
        lab.input_packets(P1, vec![from_guest(tcp(six, M2, 9000), cut(MSS), 2048)]);
        assert_eq!(joined(lab.to(P2).into_iter()), payload(9000));
        assert!(lab.out.sent.iter().all(|(_, p)| p.is_plain() && p.handed_on().is_none()));
    }
    let mut lab = Lab::new();
    lab.input_packets(P1, vec![from_guest(udp(false, M2, 99), CHECKSUM, 4096)]);
    assert_eq!(lab.only(), (P2, &udp(false, M2, 99)[..]));
}

#[test]
fn r11_requests_that_the_headers_do_not_allow_are_dropped() {
    let mut lab = Lab::new();
    let mut drops = |packet: MemPacket, reason| {
        let before = lab.drops(reason);
        lab.input_packets(P1, vec![packet]);
        assert_eq!((lab.drops(reason), lab.out.sent.len()), (before + 1, 0), "{}", reason.name());
    };
    let bad = DropReason::BadOffload;
    // A segment size that is absurd; UDP, which is not cut; what is no IP; a length beyond the frame.
    drops(from_guest(tcp(false, R4, 9000), cut(1), 2048), bad);
    drops(from_guest(udp(false, R4, 9000), cut(MSS), 2048), bad);
    for ethertype in [0x0806, 0x88b5] {
        drops(MemPacket::new(&frames::ethernet(R4, M1, ethertype, &[1; 50])).asking(CHECKSUM), bad);
    }
    let whole = tcp(false, R4, 100);
    for len in [14, 20, 34, 53, whole.len() - 1] {
        drops(MemPacket::new(&whole[..len]).asking(CHECKSUM), bad);
        drops(MemPacket::new(&whole[..len]).asking(cut(MSS)), bad);
    }
    let mut fragment = whole;
    fragment[20] = 0x20;
    drops(MemPacket::new(&fragment).asking(CHECKSUM), bad);
    // Headers that are spread over pieces.
    drops(from_guest(tcp(false, R4, 900), cut(MSS), 60), DropReason::NotContiguous);
    drops(MemPacket::new(&tcp(false, M2, 900)).in_pieces(60), DropReason::NotContiguous);
    drops(
        MemPacket::new(&frames::padded(frames::garp(M1, v4(1)), 500)).in_pieces(200),
        DropReason::NotContiguous,
    );
}

#[test]
fn r8_r11_the_mtu_holds_for_each_segment() {
    let mut lab = Lab::new();
    lab.input_packets(P1, vec![from_guest(tcp(false, R4, 5000), cut(1600), 2048)]);
    assert_eq!(lab.drops(DropReason::TooBig), 3);
    assert_eq!(lab.to(UPLINK).len(), 1, "the last one is short");
}

#[test]
fn r45_what_a_guest_leaves_unfinished_before_its_port_is_open_waits_too() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    let sent = [udp(false, R4, 33), tcp(false, R4, 3000)];
    lab.input_packets(P1, vec![from_guest(sent[0].clone(), CHECKSUM, 4096)]);
    lab.input_packets(P1, vec![from_guest(sent[1].clone(), cut(MSS), 2048)]);
    assert_eq!((lab.out.sent.len(), lab.tables.waiting()), (0, 4));
    lab.access(P1, VN, M1, Admission::Activated);
    lab.tick();
    let outer = lab.to(UPLINK);
    assert_eq!(open(outer[0]).1, &sent[0][..], "first come, first go");
    assert_eq!(joined(outer[1..].iter().map(|f| open(f).1)), payload(3000));
    assert_eq!(lab.tables.waiting(), 0);
}

#[test]
fn r11_r35_what_waits_waits_finished() {
    let mut lab = Lab::new();
    lab.input_packets(P1, vec![from_guest(tcp(false, STRANGER, 6000), cut(MSS), 2048)]);
    assert_eq!((lab.out.sent.len(), lab.tables.waiting()), (0, 5));
    lab.vm(STRANGER, VmState::Remote { to: through(T4) });
    lab.settle();
    assert_eq!(joined(lab.to(UPLINK).iter().map(|f| open(f).1)), payload(6000));
}

#[test]
fn r11_r60_copies_are_complete() {
    let mut lab = Lab::new();
    lab.out.takes = ALL;
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let frame = udp(false, Mac::BROADCAST, 300);
    lab.input_packets(P1, vec![from_guest(frame.clone(), CHECKSUM, 4096)]);
    assert_eq!(lab.to(P2), [&frame[..]]);
    assert_eq!(open(lab.to(UPLINK)[0]).1, frame);
}

#[test]
fn r10_r11_a_tag_is_stripped_before_the_rest_is_done() {
    let mut lab = Lab::new();
    let tagged = frames::tagged(&tcp(false, R4, 3000), 0x8100, 7);
    lab.input_packets(P1, vec![from_guest(tagged, cut(MSS), 2048)]);
    assert_eq!(joined(lab.to(UPLINK).iter().map(|f| open(f).1)), payload(3000));
}

#[test]
fn r11_an_empty_pool_costs_segments_and_nothing_else() {
    let mut lab = Lab::new();
    lab.pool = MemPool::of(2);
    lab.input_packets(P1, vec![from_guest(tcp(false, R4, 6000), cut(MSS), 2048)]);
    assert_eq!((lab.to(UPLINK).len(), lab.drops(DropReason::NoBuffer)), (2, 3));
    lab.input_packets(P1, vec![from_guest(udp(false, R4, 700), CHECKSUM, 400)]);
    assert_eq!(lab.drops(DropReason::NoBuffer), 4);
}

#[test]
fn r11_a_large_frame_in_pieces_is_put_together() {
    let mut lab = Lab::new();
    let frame = udp(true, M2, 9000);
    lab.input_packets(P1, vec![MemPacket::new(&frame).in_pieces(2048)]);
    assert_eq!(lab.only(), (P2, &frame[..]));
    // One that no buffer holds.
    lab.input_packets(P1, vec![MemPacket::new(&udp(true, M2, 20_000)).in_pieces(2048)]);
    assert_eq!(lab.drops(DropReason::NotContiguous), 1);
}

#[test]
fn r11_r65_a_large_frame_has_its_source_checked() {
    for six in [false, true] {
        let mut lab = Lab::new();
        lab.apply(Update::SourceSet { port: P1, ip: ips(six).1 });
        let sent = from_guest(tcp(six, R4, 9000), cut(MSS), 2048);
        lab.input_packets(P1, vec![sent.clone()]);
        assert_eq!((lab.drops(DropReason::SpoofedSource), lab.to(UPLINK).len()), (1, 0));
        lab.apply(Update::SourceSet { port: P1, ip: ips(six).0 });
        lab.input_packets(P1, vec![sent]);
        assert_eq!(lab.to(UPLINK).len(), 7);
    }
}
