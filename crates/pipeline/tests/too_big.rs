//! Frames that become too big on their way to a VM that moved: their senders are told (R8, R44).

use std::net::IpAddr;

use crate::common::*;
use godwit_pipeline::mem::MemPool;
use godwit_tables::DropReason;
use godwit_tables::update::*;
use godwit_testkit::frames;
use godwit_wire::Mac;
use godwit_wire::outer::OuterHeader;

const ROOM: u16 = 1480;

/// A UDP packet of `len` bytes from `src` to M1 that must not be fragmented.
fn unfragmentable(src: Mac, len: usize) -> Vec<u8> {
    let ip = frames::V4 { frag: 0x4000, ..frames::V4::new(v4(4), v4(1), 17) };
    frames::ethernet(M1, src, 0x0800, &ip.packet(&vec![0; len - 20]))
}

/// A UDP packet of `len` bytes from `src` to M1 over IPv6.
fn six(src: Mac, len: usize) -> Vec<u8> {
    frames::udp_frame((src, v6(4).into(), 1), (M1, v6(1).into(), 2), &vec![0; len - 48])
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    // The way to M1's new NVE carries inner packets of ROOM bytes.
    let header = OuterHeader::v6(UP_MAC, HOP_MAC, LOC6, NVE_B6, 4789, 64);
    let mtu = ROOM + 70;
    lab.apply(Update::TunnelSet { tunnel: T6, uplink: UPLINK, remote: NVE_B6.into(), mtu, header });
    lab
}

fn departed(lab: &mut Lab) {
    let until = lab.now + ms(60_000);
    lab.vm(M1, VmState::Departed { to: through(T6), until });
}

/// What an ICMP error in a frame says: from, to, type, code, MTU, and what it quotes.
fn told(frame: &[u8]) -> (Mac, Mac, u8, u8, u16, &[u8]) {
    let mac = |at: usize| Mac(frame[at..at + 6].try_into().expect("six bytes"));
    let icmp = if frame[12..14] == [8, 0] { 34 } else { 54 };
    let mtu = u16::from_be_bytes([frame[icmp + 6], frame[icmp + 7]]);
    (mac(6), mac(0), frame[icmp], frame[icmp + 1], mtu, &frame[icmp + 8..])
}

#[test]
fn r44_the_sender_of_an_in_flight_frame_that_does_not_fit_is_told_through_the_overlay() {
    for (frame, kind, code) in
        [(unfragmentable(R4, usize::from(ROOM) + 1), 3, 4), (six(R4, usize::from(ROOM) + 1), 2, 0)]
    {
        let mut lab = lab();
        departed(&mut lab);
        lab.one(UPLINK, &vxlan().frame(&frame));
        assert_eq!(lab.drops(DropReason::TooBig), 1);
        let (outer, inner) = open(lab.only().1);
        assert_eq!(
            outer.dst,
            IpAddr::V4(NVE_B),
            "where the directory has the sender, not where it sent from"
        );
        let (from, to, its_kind, its_code, mtu, quote) = told(inner);
        assert_eq!((from, to), (M1, R4), "in the name of the VM that it was sent to");
        assert_eq!((its_kind, its_code, mtu), (kind, code, ROOM));
        assert_eq!(quote, &frame[14..14 + quote.len()]);
        lab.clear();
        let fits = unfragmentable(R4, ROOM.into());
        lab.one(UPLINK, &vxlan().frame(&fits));
        assert_eq!(open(lab.only().1).0.dst, IpAddr::V6(NVE_B6), "what fits goes on");
        assert_eq!(lab.tables.counters.worker.told_too_big, 1);
    }
}

#[test]
fn r44_a_sender_that_is_not_known_here_is_told_by_way_of_its_nve() {
    let mut lab = lab();
    departed(&mut lab);
    let frame = vxlan().frame(&unfragmentable(STRANGER, 1500));
    lab.one(UPLINK, &frame);
    assert!(lab.out.sent.is_empty(), "no way to that NVE is known");
    let header = OuterHeader::v4(UP_MAC, HOP_MAC, LOC4, NVE_C, 4789, 64);
    lab.apply(Update::TunnelSet { tunnel: PENDING, uplink: UPLINK, remote: NVE_C.into(), mtu: MTU, header });
    lab.one(UPLINK, &frame);
    let (outer, inner) = open(lab.only().1);
    assert_eq!((outer.dst, told(inner).1), (IpAddr::V4(NVE_C), STRANGER));
    assert_eq!(lab.drops(DropReason::TooBig), 2);
}

#[test]
fn r8_senders_of_held_frames_that_do_not_fit_are_told() {
    let mut lab = lab();
    lab.vm(M1, VmState::Paused { hold: limits(100, 2000) });
    lab.one(P2, &unfragmentable(M2, 1500));
    lab.one(UPLINK, &vxlan().frame(&unfragmentable(R4, 1500)));
    lab.one(UPLINK, &vxlan().frame(&unfragmentable(R4, 1400)));
    assert!(lab.out.sent.is_empty());
    departed(&mut lab);
    lab.settle();
    assert_eq!(told(lab.to(P2)[0]).1, M2, "a VM of this NVE");
    let up = lab.to(UPLINK);
    assert_eq!(up.len(), 2);
    let (outer, inner) = open(up[0]);
    assert_eq!((outer.dst, told(inner).4), (IpAddr::V4(NVE_B), ROOM), "a VM of another one");
    assert_eq!(open(up[1]).0.dst, IpAddr::V6(NVE_B6), "what fits goes on");
    assert_eq!(lab.drops(DropReason::TooBig), 2);
}

#[test]
fn r8_another_vm_that_has_the_port_of_a_held_frames_sender_is_told_nothing() {
    let mut lab = lab();
    lab.vm(M1, VmState::Paused { hold: limits(100, 2000) });
    lab.one(P2, &unfragmentable(M2, 1500));
    lab.vm(M2, VmState::Absent { until: lab.now + ms(5000) });
    lab.access(P2, VN, mac(0x77), Admission::Activated);
    departed(&mut lab);
    lab.settle();
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.drops(DropReason::TooBig), 1);
}

#[test]
fn r8_nobody_is_told_about_multicast() {
    let mut lab = lab();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let len = usize::from(MTU);
    let four = |to: Mac, ip: [u8; 4]| {
        let ip = frames::V4 { frag: 0x4000, ..frames::V4::new(v4(2), ip.into(), 17) };
        frames::ethernet(to, M2, 0x0800, &ip.packet(&vec![0; len]))
    };
    let six = |to: Mac, ip: &str| {
        frames::udp_frame((M2, v6(2).into(), 1), (to, ip.parse().unwrap(), 2), &vec![0; len])
    };
    let group = Mac([0x01, 0, 0x5e, 1, 2, 3]);
    let to_nobody_alone = [
        four(group, [239, 1, 2, 3]),
        four(Mac::BROADCAST, [255; 4]),
        six(Mac([0x33, 0x33, 0, 0, 0, 0x77]), "ff05::77"),
        // The packet is for a group and the frame for one host, or the other way round.
        four(R4, [239, 1, 2, 3]),
        four(R4, [255; 4]),
        six(R4, "ff05::77"),
        four(group, [10, 0, 0, 4]),
    ];
    for f in &to_nobody_alone {
        let before = lab.drops(DropReason::TooBig);
        lab.one(P2, f);
        assert_eq!((lab.drops(DropReason::TooBig), lab.to(P2).len()), (before + 1, 0));
    }
    lab.one(P2, &four(R4, [10, 0, 0, 4]));
    assert_eq!(lab.to(P2).len(), 1, "about the same to one host its sender hears");
    // In flight and held it is the same.
    departed(&mut lab);
    lab.clear();
    for f in [four(M1, [239, 1, 2, 3]), six(M1, "ff05::77")] {
        lab.one(P2, &f);
        lab.one(UPLINK, &vxlan().frame(&f));
    }
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.tables.counters.worker.told_too_big, 1);
}

#[test]
fn r8_an_uplinks_frames_lead_to_100_errors_a_second() {
    let mut lab = lab();
    departed(&mut lab);
    let frame = vxlan().frame(&unfragmentable(R4, 1500));
    for _ in 0..150 {
        lab.one(UPLINK, &frame);
    }
    assert_eq!((lab.out.sent.len(), lab.drops(DropReason::TooBig)), (100, 150));
    lab.wait(ms(1000));
    lab.one(UPLINK, &frame);
    assert_eq!(lab.out.sent.len(), 101);
}

#[test]
fn r44_without_a_buffer_nobody_is_told_and_nothing_is_lost_count_of() {
    let mut lab = lab();
    departed(&mut lab);
    lab.pool = MemPool::of(0);
    lab.one(UPLINK, &vxlan().frame(&unfragmentable(R4, 1500)));
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.drops(DropReason::TooBig), 1);
}
