//! What the pipeline makes, read by tshark, which nobody here wrote.

use std::net::{IpAddr, Ipv4Addr};
use std::slice::from_ref;

use crate::common::*;
use godwit_tables::TablesConfig;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Nd, Vxlan};
use godwit_testkit::tshark::{Which, read};
use godwit_wire::outer::OuterHeader;
use godwit_wire::{HashKey, flow};

/// What an inner packet may have on the ways of [`narrow`].
const ROOM: u16 = 1400;

fn narrow() -> Lab {
    let mut lab = Lab::new();
    for (tunnel, remote) in [(T4, IpAddr::from(NVE_B)), (T6, NVE_B6.into())] {
        let (header, over) = match remote {
            IpAddr::V4(r) => (OuterHeader::v4(UP_MAC, HOP_MAC, LOC4, r, 4789, 64), 50),
            IpAddr::V6(r) => (OuterHeader::v6(UP_MAC, HOP_MAC, LOC6, r, 4789, 64), 70),
        };
        let mtu = ROOM + over;
        lab.apply(Update::TunnelSet { tunnel, uplink: UPLINK, remote, mtu, header });
    }
    lab
}

/// UDP packets that are one byte too long: IPv4 with DF, and IPv6.
fn too_long(from: (godwit_wire::Mac, u8), to: (godwit_wire::Mac, u8)) -> [Vec<u8>; 2] {
    let payload = vec![0x5a; usize::from(ROOM) + 1 - 28];
    let (src, dst) = (v4(from.1), v4(to.1));
    let datagram = frames::udp(src.into(), dst.into(), (1000, 2000), &payload, frames::Ck::Good);
    let ip = frames::V4 { frag: 0x4000, ..frames::V4::new(src, dst, 17) };
    let four = frames::ethernet(to.0, from.0, 0x0800, &ip.packet(&datagram));
    let ends = ((from.0, v6(from.1.into()).into(), 1000), (to.0, v6(to.1.into()).into(), 2000));
    let six = frames::udp_frame(ends.0, ends.1, &vec![0x5a; usize::from(ROOM) + 1 - 48]);
    [four, six]
}

fn sent(lab: &Lab, port: PortIdx) -> Vec<u8> {
    let frames = lab.to(port);
    assert_eq!(frames.len(), 1, "one frame is sent");
    frames[0].to_vec()
}

const M1_TEXT: &str = "02:00:00:00:00:01";
const R4_TEXT: &str = "02:00:00:00:00:04";

#[test]
fn r8_errors_to_local_vms_are_sound() {
    let mut answers = Vec::new();
    for transparent in [false, true] {
        let mut lab = narrow();
        lab.vn(VN, vni(), transparent);
        for frame in too_long((M1, 1), (R4, 4)) {
            let frame = if transparent { frames::tagged(&frame, 0x8100, 0x6005) } else { frame };
            lab.one(P1, &frame);
            answers.push(sent(&lab, P1));
            lab.clear();
        }
    }
    let v4_fields = "eth.dst eth.src vlan.id ip.src ip.dst ip.ttl ip.proto ip.checksum.status icmp.type icmp.code \
                     icmp.mtu icmp.checksum.status udp.srcport udp.dstport";
    let v6_fields = "eth.dst eth.src vlan.id ipv6.src ipv6.dst ipv6.hlim ipv6.nxt icmpv6.type icmpv6.code icmpv6.mtu \
                     icmpv6.checksum.status udp.srcport udp.dstport";
    let [four, six, four_tagged, six_tagged] = answers.try_into().expect("each is told");
    // The error, and within it the packet that it is about, from the other end.
    for (lines, tag, room) in [
        (read(&[four], Which::All, v4_fields), "", ROOM),
        (read(&[four_tagged], Which::All, v4_fields), "5", ROOM - 4),
    ] {
        let want = format!(
            "{M1_TEXT} {R4_TEXT} {tag} 10.0.0.4,10.0.0.1 10.0.0.1,10.0.0.4 64,64 1,17 1,1 3 4 {room} 1 1000 2000"
        );
        assert_eq!(lines, [want]);
    }
    for (lines, tag, room) in [
        (read(&[six], Which::All, v6_fields), "", ROOM),
        (read(&[six_tagged], Which::All, v6_fields), "5", ROOM - 4),
    ] {
        let want = format!(
            "{M1_TEXT} {R4_TEXT} {tag} fd00::4,fd00::1 fd00::1,fd00::4 64,64 58,17 2 0 {room} 1 1000 2000"
        );
        assert_eq!(lines, [want]);
    }
}

#[test]
fn r44_errors_through_the_overlay_are_sound() {
    for (six, frame) in too_long((R4, 4), (M1, 1)).into_iter().enumerate() {
        let mut lab = narrow();
        let until = lab.now + ms(60_000);
        lab.vm(M1, VmState::Departed { to: through(T6), until });
        lab.one(UPLINK, &vxlan().frame(&frame));
        let answer = sent(&lab, UPLINK);
        let outer = "ip.src ip.dst ip.ttl ip.flags.df ip.checksum.status udp.dstport udp.checksum vxlan.vni";
        assert_eq!(
            read(from_ref(&answer), Which::Outer, outer),
            ["198.18.0.1 198.18.0.2 64 1 1 4789 0x0000 1"]
        );
        let (inner, want) = if six == 1 {
            let fields = "eth.dst eth.src ipv6.src ipv6.dst ipv6.hlim icmpv6.type icmpv6.code icmpv6.mtu \
                          icmpv6.checksum.status";
            (fields, format!("fd00::1,fd00::4 fd00::4,fd00::1 64,64 2 0 {ROOM} 1"))
        } else {
            let fields = "eth.dst eth.src ip.src ip.dst ip.checksum.status icmp.type icmp.code icmp.mtu \
                          icmp.checksum.status";
            let ends = "198.18.0.1,10.0.0.1,10.0.0.4 198.18.0.2,10.0.0.4,10.0.0.1";
            (fields, format!("{ends} 1,1,1 3 4 {ROOM} 1"))
        };
        let macs = format!("02:00:00:00:bb:00,{R4_TEXT} 02:00:00:00:aa:00,{M1_TEXT}");
        assert_eq!(read(&[answer], Which::All, inner), [format!("{macs} {want}")]);
    }
}

/// One that came over the underlay, and how it goes on.
struct Onward {
    tunnel: TunnelIdx,
    summed: bool,
    marked: bool,
    original: Vec<u8>,
    frame: Vec<u8>,
}

/// Both families inside, on the way here, and on the way on; with and without a mark; with UDP checksums where
/// they are wanted.
fn re_encapsulated(v6_inside: bool) -> Vec<Onward> {
    let mut all = Vec::new();
    for (summed, marked) in [(false, false), (false, true), (true, true)] {
        for (tunnel, sender) in [T4, T6].into_iter().flat_map(|t| [(t, NVE_C.into()), (t, NVE_B6.into())]) {
            let mut lab = Lab::with(&TablesConfig { udp_checksum: summed, ..config() });
            let ip = |n: u8| if v6_inside { v6(n.into()).into() } else { IpAddr::V4(v4(n)) };
            let ends = ((R4, ip(4), 7), (M1, ip(1), 8));
            let mut original = frames::tcp_frame(ends.0, ends.1, (9, 10), 0x18, b"payload");
            capable(&mut original);
            let until = lab.now + ms(60_000);
            lab.vm(M1, VmState::Departed { to: through(tunnel), until });
            let came = Vxlan { tos: if marked { 3 } else { 2 }, ..vxlan_from(sender, vni()) };
            lab.one(UPLINK, &came.frame(&original));
            let frame = sent(&lab, UPLINK);
            all.push(Onward { tunnel, summed, marked, original, frame });
        }
    }
    all
}

#[test]
fn r44_outer_headers_of_re_encapsulated_frames_are_sound() {
    let all: Vec<Onward> = [false, true].into_iter().flat_map(re_encapsulated).collect();
    for tunnel in [T4, T6] {
        let fields = if tunnel == T4 {
            "eth.dst eth.src ip.src ip.dst ip.ttl ip.flags.df ip.checksum.status ip.dsfield udp.srcport \
             udp.dstport udp.checksum.status vxlan.flags vxlan.vni"
        } else {
            "eth.dst eth.src ipv6.src ipv6.dst ipv6.hlim ipv6.flow ipv6.tclass udp.srcport udp.dstport \
             udp.checksum.status vxlan.flags vxlan.vni"
        };
        let of: Vec<&Onward> = all.iter().filter(|o| o.tunnel == tunnel).collect();
        assert_eq!(of.len(), 12);
        let packets: Vec<Vec<u8>> = of.iter().map(|o| o.frame.clone()).collect();
        for (line, o) in read(&packets, Which::Outer, fields).iter().zip(of) {
            let hash = flow::flow_hash(&o.original, &HashKey::new(0, 0));
            let (tos, port, label) = (if o.marked { 3 } else { 2 }, hash.src_port(), hash.flow_label());
            // 1: good. 3: there is none.
            let status = if o.summed { 1 } else { 3 };
            let way = if tunnel == T4 {
                format!("198.18.0.1 198.18.0.2 48 1 1 0x{tos:02x}")
            } else {
                format!("2001:db8::1 2001:db8::2 48 0x{label:06x} 0x{tos:08x}")
            };
            let macs = "02:00:00:00:bb:00 02:00:00:00:aa:00";
            assert_eq!(*line, format!("{macs} {way} {port} 4789 {status} 0x0800 1"));
            assert_ne!(label, 0);
        }
    }
}

#[test]
fn r44_inner_frames_of_re_encapsulated_ones_are_as_they_were() {
    let tcp = "tcp.srcport tcp.dstport tcp.seq_raw tcp.ack_raw tcp.flags tcp.window_size_value tcp.checksum \
               tcp.checksum.status tcp.payload";
    for (v6_inside, ip) in [
        (false, "eth.dst eth.src ip.src ip.dst ip.ttl ip.id ip.len ip.checksum.status ip.dsfield.ecn"),
        (true, "eth.dst eth.src ipv6.src ipv6.dst ipv6.hlim ipv6.plen ipv6.tclass.ecn"),
    ] {
        let all = re_encapsulated(v6_inside);
        let now: Vec<Vec<u8>> = all.iter().map(|o| o.frame.clone()).collect();
        let before: Vec<Vec<u8>> = all.iter().map(|o| o.original.clone()).collect();
        let (tcp_now, tcp_before) = (read(&now, Which::Inner, tcp), read(&before, Which::Inner, tcp));
        assert!(tcp_before[0].ends_with(" 1 7061796c6f6164"), "{}", tcp_before[0]);
        assert_eq!(tcp_now, tcp_before);
        let (ip_now, ip_before) = (read(&now, Which::Inner, ip), read(&before, Which::Inner, ip));
        for ((now, before), o) in ip_now.iter().zip(&ip_before).zip(&all) {
            let unmarked = before.strip_suffix('2').expect("ECT(0)");
            assert_eq!(
                *now,
                format!("{unmarked}{}", if o.marked { 3 } else { 2 }),
                "a mark is all that came"
            );
        }
    }
}

/// The sender understands congestion marks: ECT(0).
fn capable(frame: &mut [u8]) {
    if frame[12..14] == [8, 0] {
        frame[15] |= 2;
        frame[24..26].fill(0);
        let sum = frames::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[15] |= 0x20;
    }
}

#[test]
fn r30_answers_to_probes_are_sound() {
    let mut lab = Lab::new();
    lab.neighbor(v4(4), R4);
    lab.neighbor(v6(4), R4);
    lab.one(P1, &frames::arp_probe(M1, v4(4)));
    lab.one(P1, &Nd::dad(M1, v6(4)).frame());
    let answers: Vec<Vec<u8>> = lab.to(P1).into_iter().map(<[u8]>::to_vec).collect();
    let fields =
        "eth.dst eth.src arp.opcode arp.src.hw_mac arp.src.proto_ipv4 arp.dst.hw_mac arp.dst.proto_ipv4";
    let lines = read(&answers[..1], Which::All, fields);
    assert_eq!(
        lines,
        [format!("{M1_TEXT} {R4_TEXT} 2 {R4_TEXT} 10.0.0.4 {M1_TEXT} {}", Ipv4Addr::UNSPECIFIED)]
    );
    // Whoever probes has no address yet: to all nodes, and not solicited.
    let lines = read(&answers[1..], Which::All, ADVERT);
    assert_eq!(
        lines,
        [format!("33:33:00:00:00:01 {R4_TEXT} fd00::4 ff02::1 255 136 1 0 0 1 fd00::4 2 {R4_TEXT}")]
    );
}

const ADVERT: &str = "eth.dst eth.src ipv6.src ipv6.dst ipv6.hlim icmpv6.type icmpv6.checksum.status \
                      icmpv6.nd.na.flag.r icmpv6.nd.na.flag.s icmpv6.nd.na.flag.o icmpv6.nd.na.target_address \
                      icmpv6.opt.type icmpv6.opt.linkaddr";

#[test]
fn r29_a_router_is_advertised_as_one() {
    let mut lab = Lab::new();
    let mut answers = Vec::new();
    for router in [true, false] {
        lab.apply(Update::NeighborSet { vn: VN, ip: v6(4).into(), mac: R4, router });
        lab.one(P1, &Nd::solicit(M1, v6(1), v6(4)).frame());
        answers.push(sent(&lab, P1));
        lab.clear();
    }
    let want = |r| format!("{M1_TEXT} {R4_TEXT} fd00::4 fd00::1 255 136 1 {r} 1 1 fd00::4 2 {R4_TEXT}");
    assert_eq!(read(&answers, Which::All, ADVERT), [want(1), want(0)]);
}
