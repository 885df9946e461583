//! Frames for tests, built byte by byte.
//!
//! Nothing here uses the emitters or checksums of `godwit-wire`: the code is as plain as the RFCs'
//! drawings, so that it can serve as the oracle which those are tested against. Every header has
//! knobs to make it wrong: a field that is normally computed (`Option`) or a [`Ck`].

mod membership;
mod nd;
mod vxlan;

pub use membership::{
    group_mac_v4, igmp, igmp_one, igmp2_query, igmp3_report, mld, mld_one, mld1_query, mld2_report,
};
pub use nd::{Nd, group_mac, mac_option, solicited_node};
pub use vxlan::Vxlan;

use godwit_wire::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How a checksum is filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ck {
    /// Right. For UDP a computed 0 becomes 0xffff.
    #[default]
    Good,
    /// Wrong: the right one plus one, and never 0.
    Bad,
    /// This value.
    Raw(u16),
}

impl Ck {
    fn fill(self, good: u16) -> u16 {
        match self {
            Ck::Good => good,
            Ck::Bad if good == 0xffff => 1,
            // 0xffff is the other spelling of 0, so it would still be right.
            Ck::Bad if good == 0xfffe || good == 0 => 0x5555,
            Ck::Bad => good + 1,
            Ck::Raw(v) => v,
        }
    }
}

/// The Internet checksum as RFC 1071 describes it: add 16-bit words, each carry at once.
pub fn checksum(data: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    let mut i = 0;
    while i < data.len() {
        let low = if i + 1 < data.len() { data[i + 1] } else { 0 };
        sum += u32::from(data[i]) * 256 + u32::from(low);
        if sum > 0xffff {
            sum -= 0xffff;
        }
        i += 2;
    }
    !(sum as u16)
}

/// The checksum of an upper-layer message under its pseudo-header. Panics on mixed families: a
/// bug of the test.
pub fn upper_checksum(src: IpAddr, dst: IpAddr, proto: u8, message: &[u8]) -> u16 {
    let mut all = Vec::new();
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            all.extend(s.octets());
            all.extend(d.octets());
            all.extend([0, proto]);
            all.extend((message.len() as u16).to_be_bytes());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            all.extend(s.octets());
            all.extend(d.octets());
            all.extend((message.len() as u32).to_be_bytes());
            all.extend([0, 0, 0, proto]);
        }
        _ => panic!("source and destination are of different families"),
    }
    all.extend(message);
    checksum(&all)
}

/// An Ethernet frame without padding.
pub fn ethernet(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut f = Vec::new();
    f.extend(dst.0);
    f.extend(src.0);
    f.extend(ethertype.to_be_bytes());
    f.extend(payload);
    f
}

/// `frame` with a tag of type `tpid` (0x8100, 0x88a8) put right after the addresses.
pub fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let mut f = frame[..12].to_vec();
    f.extend(tpid.to_be_bytes());
    f.extend(tci.to_be_bytes());
    f.extend(&frame[12..]);
    f
}

/// `frame` padded with zeros to `len` bytes, 60 for the smallest on the wire.
pub fn padded(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    if frame.len() < len {
        frame.resize(len, 0);
    }
    frame
}

/// An ARP or RARP packet.
#[derive(Clone, Copy, Debug)]
pub struct Arp {
    /// Operation: 1 request, 2 reply, 3 and 4 their RARP kin.
    pub op: u16,
    /// Sender hardware address.
    pub sha: Mac,
    /// Sender protocol address.
    pub spa: Ipv4Addr,
    /// Target hardware address.
    pub tha: Mac,
    /// Target protocol address.
    pub tpa: Ipv4Addr,
    /// Hardware type; 1 is Ethernet.
    pub hrd: u16,
    /// Protocol type; 0x0800 is IPv4.
    pub pro: u16,
    /// Hardware address length; 6.
    pub hln: u8,
    /// Protocol address length; 4.
    pub pln: u8,
}

impl Default for Arp {
    fn default() -> Arp {
        let none = Ipv4Addr::UNSPECIFIED;
        Arp {
            op: 1,
            sha: Mac::ZERO,
            spa: none,
            tha: Mac::ZERO,
            tpa: none,
            hrd: 1,
            pro: 0x0800,
            hln: 6,
            pln: 4,
        }
    }
}

impl Arp {
    /// The 28 bytes.
    pub fn packet(&self) -> Vec<u8> {
        let mut p = Vec::new();
        p.extend(self.hrd.to_be_bytes());
        p.extend(self.pro.to_be_bytes());
        p.extend([self.hln, self.pln]);
        p.extend(self.op.to_be_bytes());
        p.extend(self.sha.0);
        p.extend(self.spa.octets());
        p.extend(self.tha.0);
        p.extend(self.tpa.octets());
        p
    }
}

/// A broadcast ARP request.
pub fn arp_request(mac: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let arp = Arp { sha: mac, spa: ip, tpa: target, ..Arp::default() };
    ethernet(Mac::BROADCAST, mac, 0x0806, &arp.packet())
}

/// A unicast ARP reply from (`mac`, `ip`) to (`to_mac`, `to_ip`).
pub fn arp_reply(mac: Mac, ip: Ipv4Addr, to_mac: Mac, to_ip: Ipv4Addr) -> Vec<u8> {
    let arp = Arp { op: 2, sha: mac, spa: ip, tha: to_mac, tpa: to_ip, ..Arp::default() };
    ethernet(to_mac, mac, 0x0806, &arp.packet())
}

/// What a host with these addresses answers to a frame: to an ARP request or a neighbor solicitation for one of
/// them, from somebody who says who it is. `None` to everything else.
pub fn answer(frame: &[u8], mac: Mac, v4: Ipv4Addr, v6: Ipv6Addr) -> Option<Vec<u8>> {
    let bytes4 =
        |at: usize| frame.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(Ipv4Addr::from);
    let bytes16 =
        |at: usize| frame.get(at..at + 16).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(Ipv6Addr::from);
    let asker = Mac(*frame.get(6..)?.first_chunk()?);
    match frame.get(12..14)? {
        [8, 6] if frame.get(21) == Some(&1) && bytes4(38) == Some(v4) => {
            let from = bytes4(28).filter(|ip| *ip != v4)?;
            Some(arp_reply(mac, v4, asker, from))
        }
        [0x86, 0xdd] if frame.get(54) == Some(&135) && bytes16(62) == Some(v6) => {
            let from = bytes16(22).filter(|ip| !ip.is_unspecified())?;
            let mut advert = Nd::announce(mac, v6);
            (advert.eth.1, advert.ip.1, advert.flags) = (asker, from, 0x60);
            Some(advert.frame())
        }
        _ => None,
    }
}

/// A broadcast gratuitous ARP request.
pub fn garp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    arp_request(mac, ip, ip)
}

/// An ARP address probe (RFC 5227): sender address 0.
pub fn arp_probe(mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    arp_request(mac, Ipv4Addr::UNSPECIFIED, target)
}

/// The RARP announcement that QEMU sends after a migration, 60 bytes.
pub fn rarp_announce(mac: Mac) -> Vec<u8> {
    let arp = Arp { op: 3, sha: mac, tha: mac, ..Arp::default() };
    padded(ethernet(Mac::BROADCAST, mac, 0x8035, &arp.packet()), 60)
}

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct V4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Protocol.
    pub proto: u8,
    /// Time to live.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub ident: u16,
    /// Flags and fragment offset as they stand: 0x4000 DF, 0x2000 MF, offset in units of 8 bytes.
    pub frag: u16,
    /// Options; a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Instead of 4 and the right header length.
    pub version_ihl: Option<u8>,
    /// Instead of the right total length.
    pub total_len: Option<u16>,
    /// The header checksum.
    pub checksum: Ck,
}

impl V4 {
    /// An ordinary header.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, proto: u8) -> V4 {
        V4 {
            src,
            dst,
            proto,
            ttl: 64,
            tos: 0,
            ident: 0,
            frag: 0,
            options: Vec::new(),
            version_ihl: None,
            total_len: None,
            checksum: Ck::Good,
        }
    }

    /// Header and payload.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut p = vec![self.version_ihl.unwrap_or(0x40 + (header / 4) as u8), self.tos];
        p.extend(self.total_len.unwrap_or((header + payload.len()) as u16).to_be_bytes());
        p.extend(self.ident.to_be_bytes());
        p.extend(self.frag.to_be_bytes());
        p.extend([self.ttl, self.proto, 0, 0]);
        p.extend(self.src.octets());
        p.extend(self.dst.octets());
        p.extend(&self.options);
        let ck = self.checksum.fill(checksum(&p));
        p[10..12].copy_from_slice(&ck.to_be_bytes());
        p.extend(payload);
        p
    }
}

/// An IPv6 header.
#[derive(Clone, Debug)]
pub struct V6 {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Next header: of the first extension, if there are any.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub class: u8,
    /// Flow label, 20 bits.
    pub label: u32,
    /// Version; 6.
    pub version: u8,
    /// Extension headers as they stand.
    pub extensions: Vec<u8>,
    /// Instead of the right payload length.
    pub payload_len: Option<u16>,
}

impl V6 {
    /// An ordinary header.
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr, next: u8) -> V6 {
        V6 {
            src,
            dst,
            next,
            hop_limit: 64,
            class: 0,
            label: 0,
            version: 6,
            extensions: Vec::new(),
            payload_len: None,
        }
    }

    /// Header, extensions and payload.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let first = (u32::from(self.version) << 28) + (u32::from(self.class) << 20) + self.label;
        let len = self.payload_len.unwrap_or((self.extensions.len() + payload.len()) as u16);
        let mut p = first.to_be_bytes().to_vec();
        p.extend(len.to_be_bytes());
        p.extend([self.next, self.hop_limit]);
        p.extend(self.src.octets());
        p.extend(self.dst.octets());
        p.extend(&self.extensions);
        p.extend(payload);
        p
    }
}

/// An IPv6 fragment header; `offset` in bytes, a multiple of 8.
pub fn v6_fragment(next: u8, offset: u16, more: bool, ident: u32) -> Vec<u8> {
    let mut h = vec![next, 0];
    h.extend((offset + u16::from(more)).to_be_bytes());
    h.extend(ident.to_be_bytes());
    h
}

/// An IP packet of either family with TTL 64; the addresses must be of one family.
pub fn ip(src: IpAddr, dst: IpAddr, proto: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => V4::new(s, d, proto).packet(payload),
        (IpAddr::V6(s), IpAddr::V6(d)) => V6::new(s, d, proto).packet(payload),
        _ => panic!("source and destination are of different families"),
    }
}

/// The EtherType of an address' family.
pub fn ethertype(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { 0x0800 } else { 0x86dd }
}

/// A UDP datagram.
pub fn udp(src: IpAddr, dst: IpAddr, ports: (u16, u16), payload: &[u8], ck: Ck) -> Vec<u8> {
    let mut m = Vec::new();
    m.extend(ports.0.to_be_bytes());
    m.extend(ports.1.to_be_bytes());
    m.extend((8 + payload.len() as u16).to_be_bytes());
    m.extend([0, 0]);
    m.extend(payload);
    let good = match upper_checksum(src, dst, 17, &m) {
        0 => 0xffff,
        v => v,
    };
    m[6..8].copy_from_slice(&ck.fill(good).to_be_bytes());
    m
}

/// A TCP segment without options, window 64240.
pub fn tcp(
    src: IpAddr,
    dst: IpAddr,
    ports: (u16, u16),
    seq_ack: (u32, u32),
    flags: u8,
    payload: &[u8],
    ck: Ck,
) -> Vec<u8> {
    let mut m = Vec::new();
    m.extend(ports.0.to_be_bytes());
    m.extend(ports.1.to_be_bytes());
    m.extend(seq_ack.0.to_be_bytes());
    m.extend(seq_ack.1.to_be_bytes());
    m.extend([0x50, flags]);
    m.extend(64240u16.to_be_bytes());
    m.extend([0, 0, 0, 0]);
    m.extend(payload);
    let good = upper_checksum(src, dst, 6, &m);
    m[16..18].copy_from_slice(&ck.fill(good).to_be_bytes());
    m
}

/// An ICMP message for IPv4.
pub fn icmpv4(kind: u8, code: u8, rest: u32, payload: &[u8], ck: Ck) -> Vec<u8> {
    let mut m = vec![kind, code, 0, 0];
    m.extend(rest.to_be_bytes());
    m.extend(payload);
    let good = checksum(&m);
    m[2..4].copy_from_slice(&ck.fill(good).to_be_bytes());
    m
}

/// An ICMPv6 message; `body` is all after the checksum.
pub fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, kind: u8, code: u8, body: &[u8], ck: Ck) -> Vec<u8> {
    let mut m = vec![kind, code, 0, 0];
    m.extend(body);
    let good = upper_checksum(src.into(), dst.into(), 58, &m);
    m[2..4].copy_from_slice(&ck.fill(good).to_be_bytes());
    m
}

/// A UDP packet from one VM to another, as a frame. `from` and `to` are (MAC, IP, port).
pub fn udp_frame(from: (Mac, IpAddr, u16), to: (Mac, IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let m = udp(from.1, to.1, (from.2, to.2), payload, Ck::Good);
    ethernet(to.0, from.0, ethertype(from.1), &ip(from.1, to.1, 17, &m))
}

/// A TCP packet from one VM to another, as a frame. `from` and `to` are (MAC, IP, port).
pub fn tcp_frame(
    from: (Mac, IpAddr, u16),
    to: (Mac, IpAddr, u16),
    seq_ack: (u32, u32),
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let m = tcp(from.1, to.1, (from.2, to.2), seq_ack, flags, payload, Ck::Good);
    ethernet(to.0, from.0, ethertype(from.1), &ip(from.1, to.1, 6, &m))
}

/// An echo request of either family, as a frame. `ident_seq` holds the identifier in its upper
/// half, the sequence number in its lower.
pub fn ping(from: (Mac, IpAddr), to: (Mac, IpAddr), ident_seq: u32, payload: &[u8]) -> Vec<u8> {
    echo(from, to, [8, 128], ident_seq, payload)
}

/// The answer to a [`ping`].
pub fn pong(from: (Mac, IpAddr), to: (Mac, IpAddr), ident_seq: u32, payload: &[u8]) -> Vec<u8> {
    echo(from, to, [0, 129], ident_seq, payload)
}

fn echo(from: (Mac, IpAddr), to: (Mac, IpAddr), kinds: [u8; 2], ident_seq: u32, data: &[u8]) -> Vec<u8> {
    let (proto, message) = match (from.1, to.1) {
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let mut body = ident_seq.to_be_bytes().to_vec();
            body.extend(data);
            (58, icmpv6(s, d, kinds[1], 0, &body, Ck::Good))
        }
        _ => (1, icmpv4(kinds[0], 0, ident_seq, data, Ck::Good)),
    };
    ethernet(to.0, from.0, ethertype(from.1), &ip(from.1, to.1, proto, &message))
}
