//! Packets of guests that no buffer holds: what their senders are told, at every length (R8).

use crate::common::routing::*;
use crate::common::*;
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_pipeline::packet::Asks;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Ck, V4};
use godwit_wire::Mac;
use godwit_wire::offload::Layers;
use std::net::IpAddr;

/// Bytes that a buffer holds, as in a switch whose uplinks carry 1,500 bytes.
const ROOM: usize = 2048;

/// Payloads of packets between what one buffer holds and what a guest's MTU of 9,000 bytes allows, and a shorter one.
const LENGTHS: [usize; 9] = [1600, 2006, 2007, 2050, 3000, 4096, 6143, 8192, 8900];

/// A packet to `to` that must not be fragmented, with so many bytes behind its header.
fn packet_of(six: bool, to: Mac, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
    if six {
        return frames::udp_frame((M1, v6(1).into(), 1), (to, v6(2).into(), 2), &payload[8..]);
    }
    let ip = V4 { frag: 0x4000, ..V4::new(v4(1), v4(2), 99) };
    frames::ethernet(to, M1, 0x0800, &ip.packet(&payload))
}

/// The same frames in one piece, with buffers for all of them, and in pieces with small ones.
fn both(lab: impl Fn() -> Lab, frame: &[u8]) -> (Lab, Lab) {
    let (mut large, mut small) = (lab(), lab());
    small.pool = MemPool::endless().with_room(ROOM);
    large.one(P1, frame);
    small.input_packets(P1, vec![MemPacket::new(frame).in_pieces(ROOM)]);
    (large, small)
}

#[test]
fn r8_a_sender_hears_the_same_whatever_a_buffer_holds() {
    for len in LENGTHS {
        for (six, to) in [(false, R4), (false, R6), (true, R4), (true, R6)] {
            let (large, small) = both(Lab::new, &packet_of(six, to, len));
            assert_eq!(small.out.sent, large.out.sent, "{len} bytes");
            assert_eq!(small.only().0, P1, "its sender is told");
            for lab in [&large, &small] {
                let told = lab.tables.counters.worker.told_too_big;
                assert_eq!((lab.drops(DropReason::TooBig), told), (1, 1), "{len} bytes");
            }
            assert_eq!(small.tables.counters.total().dropped(), 1, "for one reason");
        }
    }
}

#[test]
fn r8_an_empty_pool_does_not_change_the_reason() {
    for len in LENGTHS.into_iter().filter(|len| len + 54 > ROOM) {
        let mut lab = Lab::new();
        lab.pool = MemPool::of(0).with_room(ROOM);
        lab.input_packets(P1, vec![MemPacket::new(&packet_of(true, R4, len)).in_pieces(ROOM)]);
        assert!(lab.out.sent.is_empty(), "nothing to write an answer into");
        assert_eq!((lab.drops(DropReason::TooBig), lab.drops(DropReason::NoBuffer)), (1, 0));
    }
    // What would have gone, had there been a buffer, was lost for the lack of one.
    let mut lab = Lab::new();
    lab.pool = MemPool::of(0);
    lab.input_packets(P1, vec![MemPacket::new(&packet_of(false, R4, 700)).in_pieces(400)]);
    assert_eq!((lab.drops(DropReason::TooBig), lab.drops(DropReason::NoBuffer)), (0, 1));
}

/// The guest of a switch with a larger MTU moved here and still has its segments cut for it.
#[test]
fn r8_r11_segments_that_no_buffer_holds_are_too_big() {
    for (six, to, mtu) in [(false, R4, MTU - 50), (true, R4, MTU - 50), (false, R6, MTU - 70)] {
        let ips: (IpAddr, IpAddr) =
            if six { (v6(1).into(), v6(2).into()) } else { (v4(1).into(), v4(2).into()) };
        let mut frame = frames::tcp_frame((M1, ips.0, 1000), (to, ips.1, 80), (77, 7), 0x18, &[5; 12_100]);
        if !six {
            // It must not be fragmented.
            frame[20] = 0x40;
        }
        for pool in [MemPool::endless().with_room(ROOM), MemPool::endless()] {
            let mut lab = Lab::new();
            lab.pool = pool;
            let asks = Asks { checksum: true, segment: 2400 };
            lab.input_packets(P1, vec![MemPacket::new(&frame).in_pieces(ROOM).asking(asks)]);
            assert_eq!(lab.to(UPLINK).len(), 1, "the last one is short");
            assert_eq!((lab.drops(DropReason::TooBig), lab.to(P1).len()), (5, 5));
            assert_eq!(lab.tables.counters.total().dropped(), 5);
            let answer = lab.to(P1)[4];
            let icmp = if six { 54 } else { 34 };
            let told = u16::from_be_bytes([answer[icmp + 6], answer[icmp + 7]]);
            assert_eq!(told, mtu);
            // It quotes the segment, which the guest knows by its sequence number.
            let quote = &answer[icmp + 8..];
            let tcp = if six { 40 } else { 20 };
            assert_eq!(quote[tcp + 4..tcp + 8], (77 + 4 * 2400_u32).to_be_bytes());
        }
    }
}

#[test]
fn r8_r58_a_routed_packet_that_no_buffer_holds_is_cut_or_told_of() {
    for len in [2100, 5000, 8900] {
        for frag in [0, 0x4000] {
            let packet = V4 { frag, ident: 9, ..V4::new(v4(1), far4(4), 99) }.packet(&vec![3; len]);
            let frame = frames::ethernet(GW, M1, 0x0800, &packet);
            let (large, small) = both(|| Lab::routed(false), &frame);
            assert_eq!(small.out.sent, large.out.sent, "{len} bytes");
            assert_eq!(small.to(UPLINK).len() > 1, frag == 0);
            let counts = |lab: &Lab| {
                let w = &lab.tables.counters.worker;
                (w.routed, w.fragmented, w.encapsulated, w.told_too_big)
            };
            assert_eq!(counts(&small), counts(&large));
            assert_eq!(small.drops(DropReason::TooBig), u64::from(frag != 0));
        }
    }
}

/// The checksum that the guest left out is there before the packet is cut: no receiver could complete it.
#[test]
fn r8_r11_what_is_cut_is_complete() {
    let ips: (IpAddr, IpAddr) = (v4(1).into(), far4(4).into());
    let message = frames::udp(ips.0, ips.1, (1, 2), &[8; 5000], Ck::Good);
    let frame = frames::ethernet(GW, M1, 0x0800, &V4::new(v4(1), far4(4), 17).packet(&message));
    let mut whole = Lab::routed(false);
    whole.one(P1, &frame);
    let mut left = frame.clone();
    let at = Layers::of(&godwit_wire::Frame::read(&frame).unwrap()).unwrap().checksum_at();
    left[at..at + 2].copy_from_slice(&[1, 2]);
    let mut lab = Lab::routed(false);
    lab.pool = MemPool::endless().with_room(ROOM);
    let asks = Asks { checksum: true, segment: 0 };
    lab.input_packets(P1, vec![MemPacket::new(&left).in_pieces(ROOM).asking(asks)]);
    assert!(lab.to(UPLINK).len() > 3);
    assert_eq!(lab.out.sent, whole.out.sent);
}

#[test]
fn r8_what_a_vm_must_not_send_is_told_nothing() {
    let mut lab = Lab::new();
    lab.pool = MemPool::endless().with_room(ROOM);
    let put = |lab: &mut Lab, frame: &[u8]| {
        lab.input_packets(P1, vec![MemPacket::new(frame).in_pieces(ROOM)]);
        assert!(lab.out.sent.is_empty());
    };
    lab.apply(Update::SourceSet { port: P1, ip: v4(7).into() });
    put(&mut lab, &packet_of(false, R4, 5000));
    assert_eq!(lab.drops(DropReason::SpoofedSource), 1);
    // A VM here, and everybody: there is no path to be too big for.
    let mut lab = Lab::new();
    lab.pool = MemPool::endless().with_room(ROOM);
    put(&mut lab, &packet_of(false, M2, 5000));
    put(&mut lab, &packet_of(false, Mac::BROADCAST, 5000));
    assert_eq!(lab.drops(DropReason::NotContiguous), 2);
    lab.vm(R4, VmState::Detached { reset: false });
    put(&mut lab, &packet_of(false, R4, 5000));
    assert_eq!(lab.drops(DropReason::Detached), 1);
}

#[test]
fn r8_r34_a_packet_that_cannot_wait_asks_for_its_destination_all_the_same() {
    let mut lab = Lab::new();
    lab.pool = MemPool::endless().with_room(ROOM);
    let frame = packet_of(false, STRANGER, 5000);
    let put = |lab: &mut Lab| lab.input_packets(P1, vec![MemPacket::new(&frame).in_pieces(ROOM)]);
    put(&mut lab);
    put(&mut lab);
    let asked = |e: &&Event| matches!(e, Event::MissMac { key: k, .. } if *k == key(STRANGER));
    assert_eq!(lab.out.events.iter().filter(asked).count(), 1);
    assert_eq!((lab.drops(DropReason::NotContiguous), lab.tables.waiting()), (2, 0));
    lab.vm(STRANGER, VmState::Remote { to: through(T4) });
    lab.settle();
    put(&mut lab);
    assert_eq!((lab.only().0, lab.drops(DropReason::TooBig)), (P1, 1));
}
