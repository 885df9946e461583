//! Bytes that others wrote: every constant is the output of scapy 2.x for the expression above it.
//! Parsers must read them, emitters and the naive builders of testkit must reproduce them.

use godwit_testkit::frames::{self, Ck};
use godwit_wire::ipv4::Ipv4Repr;
use godwit_wire::ndp::{AdvertFrame, SolicitFrame};
use godwit_wire::outer::Patch;
use godwit_wire::{
    Arp, Ecn, EtherType, Ethernet, FlowHash, FlowKey, Icmpv4, Ipv4, Ipv6, Mac, Ndp, OuterHeader, Tcp, Udp,
    Vni, arp, ecn, ethernet, flow, icmpv4, icmpv6, ndp, outer, parse_outer, quote,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

// Ether(dst='02:00:00:00:01:02',src='02:00:00:00:01:01')/
// IP(src='192.0.2.1',dst='192.0.2.2',ttl=64,id=0,flags='DF',tos=2)/
// UDP(sport=50000,dport=4789,chksum=0)/VXLAN(flags=8,vni=0x123456)/
// Ether(dst='02:00:00:00:00:02',src='02:00:00:00:00:01')/
// IP(src='10.0.0.1',dst='10.0.0.2',tos=2)/UDP(sport=1000,dport=53)/b'hello'
const VXLAN_V4: &str = "\
    020000000102020000000101080045020053000040004011b694c0000201c0000202c35012b5003f\
    0000080000001234560002000000000202000000000108004502002100010000401166c70a000001\
    0a00000203e80035000da3e268656c6c6f";

// Ether(dst='02:00:00:00:01:02',src='02:00:00:00:01:01')/
// IPv6(src='fd00::1',dst='fd00::2',hlim=64,fl=0x54321)/UDP(sport=50000,dport=4789)/
// VXLAN(flags=8,vni=0x123456)/Ether(dst='02:00:00:00:00:02',src='02:00:00:00:00:01')/
// ARP(op=1,hwsrc='02:00:00:00:00:01',psrc='10.0.0.1',pdst='10.0.0.2')
const VXLAN_V6_SUMMED: &str = "\
    02000000010202000000010186dd60054321003a1140fd000000000000000000000000000001fd00\
    0000000000000000000000000002c35012b5003a8f28080000001234560002000000000202000000\
    0001080600010800060400010200000000010a0000010000000000000a000002";

// Ether(dst='02:00:00:00:00:01',src='02:00:00:00:00:02')/
// ARP(op=2,hwsrc='02:00:00:00:00:02',psrc='10.0.0.2',hwdst='02:00:00:00:00:01',pdst='10.0.0.1')
const ARP_REPLY: &str = "\
    020000000001020000000002080600010800060400020200000000020a0000020200000000010a00\
    0001";

// Ether(dst='33:33:ff:00:00:02',src='02:00:00:00:00:01')/
// IPv6(src='fd01::1',dst='ff02::1:ff00:2',hlim=255)/ICMPv6ND_NS(tgt='fd01::2')/
// ICMPv6NDOptSrcLLAddr(lladdr='02:00:00:00:00:01')
const NS: &str = "\
    3333ff00000202000000000186dd6000000000203afffd010000000000000000000000000001ff02\
    00000000000000000001ff00000287007d9500000000fd0100000000000000000000000000020101\
    020000000001";

// Ether(dst='02:00:00:00:00:01',src='02:00:00:00:00:02')/
// IPv6(src='fd01::2',dst='fd01::1',hlim=255)/ICMPv6ND_NA(tgt='fd01::2',R=1,S=1,O=1)/
// ICMPv6NDOptDstLLAddr(lladdr='02:00:00:00:00:02')
const NA: &str = "\
    02000000000102000000000286dd6000000000203afffd010000000000000000000000000002fd01\
    000000000000000000000000000188009c96e0000000fd0100000000000000000000000000020201\
    020000000002";

// Ether(dst='02:00:00:00:00:02',src='02:00:00:00:00:01')/Dot1Q(vlan=100,prio=3)/
// IP(src='10.0.0.1',dst='10.0.0.2',id=7)/
// TCP(sport=1000,dport=80,flags='SA',seq=1,ack=2,options=[('MSS',1460)])
const TCP_TAGGED: &str = "\
    0200000000020200000000018100606408004500002c00070000400666c30a0000010a00000203e8\
    00500000000100000002601220005fd90000020405b4";

// Ether(dst='02:00:00:00:00:02',src='02:00:00:00:00:01')/IPv6(src='fd01::1',dst='fd01::2')/
// IPv6ExtHdrHopByHop()/IPv6ExtHdrFragment(nh=17,offset=3,m=1,id=99)/b'12345678'
const V6_FRAGMENT: &str = "\
    02000000000202000000000186dd6000000000180040fd010000000000000000000000000001fd01\
    00000000000000000000000000022c0001040000000011000019000000633132333435363738";

// Ether(dst='02:00:00:00:01:01',src='02:00:00:00:01:09')/
// IP(src='192.0.2.9',dst='192.0.2.1',id=0)/ICMP(type=3,code=4,nexthopmtu=1400)/
// IP(src='192.0.2.1',dst='192.0.2.2',id=0,flags='DF',len=1500)/
// UDP(sport=50000,dport=4789,len=1480,chksum=0)/VXLAN(flags=8,vni=0x123456)
const FRAG_NEEDED: &str = "\
    020000000101020000000109080045000040000000004001f6b2c0000209c00002010304ab810000\
    0578450005dc000040004011b10dc0000201c0000202c35012b505c800000800000012345600";

// Ether(dst='02:00:00:00:00:02',src='02:00:00:00:00:01')/
// IP(src='10.0.0.1',dst='10.0.0.2',id=1,ttl=9)/ICMP(type=8,id=1,seq=2)/b'abc'
const PING_V4: &str = "\
    02000000000202000000000108004500001f0001000009019ddb0a0000010a0000020800339a0001\
    0002616263";

// Ether(dst='02:00:00:00:00:01',src='02:00:00:00:00:02')/
// IP(src='10.0.0.2',dst='10.0.0.1',id=1,ttl=64)/ICMP(type=0,id=1,seq=2)/b'abc'
const PONG_V4: &str = "\
    02000000000102000000000208004500001f00010000400166db0a0000020a00000100003b9a0001\
    0002616263";

// Ether(dst='02:00:00:00:00:02',src='02:00:00:00:00:01')/
// IPv6(src='fd01::1',dst='fd01::2',hlim=9)/ICMPv6EchoRequest(id=1,seq=2,data=b'abc')
const PING_V6: &str = "\
    02000000000202000000000186dd60000000000b3a09fd010000000000000000000000000001fd01\
    00000000000000000000000000028000c14d00010002616263";

// Ether(dst='02:00:00:00:00:01',src='02:00:00:00:00:02')/
// IPv6(src='fd01::2',dst='fd01::1',hlim=64)/ICMPv6EchoReply(id=1,seq=2,data=b'abc')
const PONG_V6: &str = "\
    02000000000102000000000286dd60000000000b3a40fd010000000000000000000000000002fd01\
    00000000000000000000000000018100c04d00010002616263";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}

const M1: Mac = Mac([2, 0, 0, 0, 0, 1]);
const M2: Mac = Mac([2, 0, 0, 0, 0, 2]);
const U1: Mac = Mac([2, 0, 0, 0, 1, 1]);
const U2: Mac = Mac([2, 0, 0, 0, 1, 2]);
const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);

fn vni() -> Vni {
    Vni::new(0x12_3456).expect("24 bits")
}

#[test]
fn outer_v4_parses_and_is_written_the_same() {
    let f = bytes(VXLAN_V4);
    let o = parse_outer(&f, 4789).expect("valid");
    assert_eq!((o.src, o.dst), (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])));
    assert_eq!((o.ttl, o.ecn, o.vni, o.src_port), (64, Ecn::Ect0, vni(), 50000));
    assert_eq!((o.inner_offset, o.inner_end), (50, f.len()));
    assert_eq!(o.udp_checksum, outer::UdpChecksum::Zero);

    let h = OuterHeader::v4(U1, U2, [192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 4789, 255);
    let mut out = [0; 50];
    let patch = Patch { vni: vni(), hash: FlowHash::with(50000, 0), class: Ecn::for_encap(&f[50..]).into() };
    h.write(&mut out, f.len() - 50, 64, patch);
    assert_eq!(out, f[..50]);
}

#[test]
fn outer_v6_with_checksum_parses_and_is_written_the_same() {
    let f = bytes(VXLAN_V6_SUMMED);
    let o = parse_outer(&f, 4789).expect("valid");
    assert_eq!((o.ttl, o.ecn, o.vni, o.src_port), (64, Ecn::NotEct, vni(), 50000));
    assert_eq!((o.inner_offset, o.inner_end), (70, f.len()));
    assert_eq!(o.udp_checksum, outer::UdpChecksum::Good);

    let (a, b) = ("fd00::1".parse().expect("address"), "fd00::2".parse().expect("address"));
    let h = OuterHeader::v6(U1, U2, a, b, 4789, 64);
    let mut out = f.clone();
    let patch = Patch { vni: vni(), hash: FlowHash::with(50000, 0x54321), class: Ecn::NotEct.into() };
    h.write(&mut out[..70], f.len() - 70, 64, patch);
    assert_eq!(out[60..62], [0, 0], "no checksum by default");
    outer::fill_udp_checksum(&mut out, 4789).expect("VXLAN");
    assert_eq!(out, f);
}

#[test]
fn testkit_builds_what_scapy_builds() {
    let inner = |tos| {
        let m = frames::udp(A4.into(), B4.into(), (1000, 53), b"hello", Ck::Good);
        let mut ip = frames::V4::new(A4, B4, 17);
        (ip.tos, ip.ident) = (tos, 1);
        frames::ethernet(M2, M1, 0x0800, &ip.packet(&m))
    };
    let locators = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    let mut vx = frames::Vxlan::new((U1, U2), locators, vni());
    (vx.tos, vx.ports.0) = (2, 50000);
    assert_eq!(vx.frame(&inner(2)), bytes(VXLAN_V4));

    assert_eq!(frames::arp_reply(M2, B4, M1, A4), bytes(ARP_REPLY));
    assert_eq!(frames::Nd::solicit(M1, A6, B6).frame(), bytes(NS));
    let mut na = frames::Nd::announce(M2, B6);
    (na.eth, na.ip, na.flags) = ((M2, M1), (B6, A6), 0xe0);
    assert_eq!(na.frame(), bytes(NA));
    assert_eq!(frames::pong((M2, B6.into()), (M1, A6.into()), 0x1_0002, b"abc"), bytes(PONG_V6));
}

#[test]
fn arp_reply() {
    let f = bytes(ARP_REPLY);
    let eth = Ethernet::new_checked(&f[..]).expect("frame");
    assert_eq!(eth.ethertype(), EtherType::ARP);
    let a = Arp::new_checked(eth.payload()).expect("ARP");
    assert!(a.is_reply() && !a.is_gratuitous(eth.src()) && !a.is_probe());
    let asked = arp::ArpRepr::request(M1, A4, B4);
    let mut out = [0; arp::FRAME_LEN];
    let reply = arp::ArpRepr::reply_to(&asked, M2);
    assert_eq!(reply, a.repr());
    assert_eq!(reply.emit_frame(&mut out, M1, M2), Ok(42));
    assert_eq!(out[..], f);
}

/// A solicitation and the answer on behalf of its target, byte by byte (R29).
#[test]
fn neighbour_solicitation_and_its_proxied_answer() {
    let f = bytes(NS);
    let Ok(Ndp::Solicit(s)) = ndp::parse(&f[14..]) else { panic!("a solicitation") };
    assert_eq!((s.src, s.target, s.slla), (A6, B6, Some(M1)));
    assert!(!s.is_dad() && !s.is_unicast() && !s.other_options && s.nonce.is_none());
    let mut out = [0; ndp::MAX_FRAME_LEN];
    let len = SolicitFrame::resolve(M1, A6, B6).emit_frame(&mut out).expect("fits");
    assert_eq!(out[..len], f);

    let f = bytes(NA);
    let Ok(Ndp::Advert(a)) = ndp::parse(&f[14..]) else { panic!("an advertisement") };
    assert_eq!((a.target, a.tlla, a.router, a.solicited, a.overrides), (B6, Some(M2), true, true, true));
    assert!(!a.is_unsolicited_announce());
    let len = AdvertFrame::reply_to(&s, M1, M2, true).emit_frame(&mut out).expect("fits");
    assert_eq!(out[..len], f);
}

#[test]
fn tagged_tcp() {
    let f = bytes(TCP_TAGGED);
    let eth = Ethernet::new_checked(&f[..]).expect("frame");
    assert_eq!((eth.tci(), eth.l3_offset()), (Some(3 << 13 | 100), 18));
    let ip = Ipv4::new_checked(eth.payload()).expect("IPv4");
    assert!(ip.verify_checksum());
    let tcp = Tcp::new_checked(ip.payload()).expect("TCP");
    assert!(tcp.verify_v4(ip.src(), ip.dst()));
    assert_eq!((tcp.src_port(), tcp.dst_port(), tcp.seq(), tcp.ack()), (1000, 80, 1, 2));
    assert_eq!((tcp.flags(), tcp.header_len()), (godwit_wire::tcp::SYN | godwit_wire::tcp::ACK, 24));
    let key = FlowKey::of_frame(&f);
    assert_eq!((key.kind(), key.proto(), key.ports()), (flow::FlowKind::V4Ports, 6, (1000, 80)));

    let mut plain = f.clone();
    assert_eq!(ethernet::strip_tag(&mut plain), Ok(3 << 13 | 100));
    assert_eq!(FlowKey::of_frame(&plain[4..]), key);
    ethernet::push_tag(&mut plain, 3 << 13 | 100).expect("room");
    assert_eq!(plain, f);
    // The header, written anew, is the one that scapy wrote.
    let repr = Ipv4Repr {
        src: A4,
        dst: B4,
        proto: 6,
        ttl: 64,
        tos: 0,
        ident: 7,
        dont_fragment: false,
        payload_len: 24,
    };
    let mut out = [0; 20];
    assert_eq!(repr.emit(&mut out), Ok(20));
    assert_eq!(out, f[18..38]);
}

#[test]
fn fragment_behind_hop_by_hop() {
    let f = bytes(V6_FRAGMENT);
    let ip = Ipv6::new_checked(&f[14..]).expect("IPv6");
    let upper = ip.upper().expect("a chain");
    let fragment = godwit_wire::ipv6::Fragment { offset: 24, more: true, ident: 99 };
    assert_eq!((upper.proto, upper.offset, upper.fragment), (17, 56, Some(fragment)));
    let key = FlowKey::of_frame(&f);
    assert_eq!((key.kind(), key.proto(), key.ports()), (flow::FlowKind::V6, 17, (0, 0)));
}

#[test]
fn a_router_reports_the_mtu() {
    let too_big = quote::parse_too_big(&bytes(FRAG_NEEDED), 4789).expect("about a tunnel");
    assert_eq!(too_big.local, IpAddr::from([192, 0, 2, 1]));
    assert_eq!(too_big.remote, IpAddr::from([192, 0, 2, 2]));
    assert_eq!((too_big.vni, too_big.mtu), (Some(vni()), 1400));
    assert_eq!(quote::parse_too_big(&bytes(FRAG_NEEDED), 8472), Err(godwit_wire::WireError::NotThis));
    // The error as our emitter writes it is the same message.
    let f = bytes(FRAG_NEEDED);
    let error = icmpv4::ErrorRepr {
        eth_src: Mac([2, 0, 0, 0, 1, 9]),
        eth_dst: U1,
        src: [192, 0, 2, 9].into(),
        dst: [192, 0, 2, 1].into(),
        kind: icmpv4::UNREACHABLE,
        code: icmpv4::CODE_FRAG_NEEDED,
        rest: 1400,
    };
    let mut out = [0; 600];
    let len = error.emit_frame(&mut out, &f[42..]).expect("fits");
    assert_eq!(out[..len], f);
}

#[test]
fn echo_is_answered_in_place() {
    let mut f = frames::padded(bytes(PING_V4), 60);
    let len = icmpv4::echo_reply_in_place(&mut f, 64).expect("an echo request");
    assert_eq!(f[..len], bytes(PONG_V4));
    let mut f = frames::padded(bytes(PING_V6), 80);
    let len = icmpv6::echo_reply_in_place(&mut f, 64).expect("an echo request");
    assert_eq!(f[..len], bytes(PONG_V6));
    let icmp = Icmpv4::new_checked(&bytes(PONG_V4)[34..]).map(|m| m.rest());
    assert_eq!(icmp, Ok(0x1_0002));
}

#[test]
fn inner_udp_checksum() {
    let f = bytes(VXLAN_V4);
    let ip = Ipv4::new_checked(&f[64..]).expect("IPv4");
    let udp = Udp::new_checked(ip.payload()).expect("UDP");
    assert!(udp.verify_v4(A4, B4) && !udp.verify_v4(A4, [10, 0, 0, 3].into()));
    assert_eq!((udp.payload(), ip.ecn()), (&b"hello"[..], Ecn::Ect0));
    let mut marked = f[50..].to_vec();
    assert!(ecn::set_in_frame(&mut marked, Ecn::Ce));
    assert!(Ipv4::new_checked(&marked[14..]).is_ok_and(|p| p.verify_checksum()));
}
