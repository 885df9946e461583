//! What VMs announce, what the switch answers, and what NVEs tell each other, read by tshark, which nobody here wrote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_testkit::frames::{self, Arp, Nd};
use godwit_testkit::tshark::{Which, read};
use godwit_wire::arp::{self, ArpRepr};
use godwit_wire::ndp::{self, AdvertFrame};
use godwit_wire::peer::{self, MAX_FRAME_LEN};
use godwit_wire::{Mac, ethernet};

const M: Mac = Mac([2, 0, 0, 0, 0, 1]);
const GW: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

fn emitted(repr: ArpRepr, dst: Mac) -> Vec<u8> {
    let mut buf = [0; arp::FRAME_LEN];
    repr.emit_frame(&mut buf, dst, repr.sha).unwrap();
    buf.to_vec()
}

#[test]
fn r24_r26_r27_r28_arp_and_rarp() {
    let reply_form = Arp { op: 2, sha: M, spa: IP, tha: M, tpa: IP, ..Arp::default() };
    let asked = ArpRepr::request(GW, Ipv4Addr::new(10, 0, 0, 254), IP);
    let frames = [
        frames::garp(M, IP),
        frames::ethernet(Mac::BROADCAST, M, 0x0806, &reply_form.packet()),
        emitted(ArpRepr::gratuitous(M, IP), Mac::BROADCAST),
        frames::rarp_announce(M),
        emitted(ArpRepr { op: arp::OP_RARP_REPLY, sha: GW, spa: asked.spa, tha: M, tpa: IP }, M),
        emitted(ArpRepr::reply_to(&asked, M), GW),
    ];
    // What tshark calls gratuitous, we do: both forms, and nothing else.
    let ours = |f: &Vec<u8>| {
        let arp = godwit_wire::Arp::new_checked(&f[ethernet::HEADER_LEN..]).unwrap();
        arp.is_gratuitous(M)
    };
    assert_eq!(frames.iter().map(ours).collect::<Vec<_>>(), [true, true, true, false, false, false]);
    let fields = "eth.dst eth.type arp.opcode arp.isgratuitous arp.src.hw_mac arp.src.proto_ipv4 arp.dst.hw_mac \
                  arp.dst.proto_ipv4";
    let (m, gw, all) = ("02:00:00:00:00:01", "02:00:00:00:00:fe", "ff:ff:ff:ff:ff:ff");
    let none = "00:00:00:00:00:00";
    let lines = read(&frames, Which::All, fields);
    let want = [
        format!("{all} 0x0806 1 1 {m} 10.0.0.1 {none} 10.0.0.1"),
        format!("{all} 0x0806 2 1 {m} 10.0.0.1 {m} 10.0.0.1"),
        format!("{all} 0x0806 1 1 {m} 10.0.0.1 {none} 10.0.0.1"),
        format!("{all} 0x8035 3  {m} 0.0.0.0 {m} 0.0.0.0"),
        format!("{m} 0x8035 4  {gw} 10.0.0.254 {m} 10.0.0.1"),
        format!("{gw} 0x0806 2  {m} 10.0.0.1 {gw} 10.0.0.254"),
    ];
    // Versions of tshark differ in whether they say 0 or nothing.
    let same = |l: &String| l.replace(" 0 02:", "  02:").replace("False", "").replace("True", "1");
    assert_eq!(lines.iter().map(same).collect::<Vec<_>>(), want);
}

#[test]
fn r25_unsolicited_advertisements_to_both_groups() {
    let to_all = Nd::announce(M, IP6);
    let group = frames::solicited_node(IP6);
    let to_group = Nd { eth: (M, frames::group_mac(group)), ip: (IP6, group), ..to_all.clone() };
    let mut buf = [0; ndp::MAX_FRAME_LEN];
    let n = AdvertFrame::unsolicited(M, IP6, true).emit_frame(&mut buf).unwrap();
    let fields = "eth.dst ipv6.dst ipv6.hlim icmpv6.type icmpv6.checksum.status icmpv6.nd.na.target_address \
                  icmpv6.opt.linkaddr";
    let lines = read(&[to_all.frame(), to_group.frame(), buf[..n].to_vec()], Which::All, fields);
    let end = "255 136 1 2001:db8::1 02:00:00:00:00:01";
    let all = format!("33:33:00:00:00:01 ff02::1 {end}");
    assert_eq!(lines, [all.clone(), format!("33:33:ff:00:00:01 ff02::1:ff00:1 {end}"), all]);
}

#[test]
fn r47_redirects_are_plain_udp_outside() {
    let frame = |src: IpAddr, dst: IpAddr| {
        let mut buf = [0; MAX_FRAME_LEN];
        let mut datagram = [0xa5; peer::LEN];
        datagram[..4].copy_from_slice(&peer::MAGIC);
        let n = peer::emit_frame(&mut buf, (M, GW), (src, dst), &datagram).unwrap();
        buf[..n].to_vec()
    };
    let v4 = frame(Ipv4Addr::new(198, 18, 0, 1).into(), Ipv4Addr::new(198, 18, 0, 2).into());
    let v6 = frame(IP6.into(), "2001:db8::2".parse().unwrap());
    let fields =
        "eth.dst ip.dst ipv6.dst ip.checksum.status udp.srcport udp.dstport udp.length udp.checksum.status";
    let lines = read(&[v4, v6], Which::All, fields);
    let gw = "02:00:00:00:00:fe";
    let end = "47890 47890 88 1";
    assert_eq!(lines, [format!("{gw} 198.18.0.2  1 {end}"), format!("{gw}  2001:db8::2  {end}")]);
}
