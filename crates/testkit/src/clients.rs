//! What hosts ask of their gateway: router solicitations and DHCP, byte by byte (RFC 4861, RFC 2131, RFC 8415).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_wire::Mac;

use crate::frames::{self, Ck, V6};

/// All routers, and all DHCP servers and relays.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All DHCPv6 servers and relays.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

fn multicast(ip: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = ip.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// A router solicitation; from `::` without a source link-layer address.
pub fn router_solicit(mac: Mac, src: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![0; 4];
    if !src.is_unspecified() {
        body.extend([1, 1]);
        body.extend(mac.0);
    }
    let mut ip = V6::new(src, ALL_ROUTERS, 58);
    ip.hop_limit = 255;
    let message = frames::icmpv6(src, ALL_ROUTERS, 133, 0, &body, Ck::Good);
    frames::ethernet(multicast(ALL_ROUTERS), mac, 0x86dd, &ip.packet(&message))
}

/// A message of a DHCP client for IPv4.
#[derive(Clone, Debug)]
pub struct Dhcp4 {
    /// Source of the frame, and hardware address.
    pub mac: Mac,
    /// Number of the message: 1 is DISCOVER, 3 REQUEST.
    pub kind: u8,
    /// Number of the transaction.
    pub xid: u32,
    /// The reply is to be broadcast.
    pub broadcast: bool,
    /// The address that it has.
    pub ciaddr: Ipv4Addr,
    /// The relay that the message came by.
    pub giaddr: Ipv4Addr,
    /// Where the packet goes.
    pub dst: Ipv4Addr,
    /// Options after the message's kind, as they stand.
    pub options: Vec<u8>,
}

impl Dhcp4 {
    /// A broadcast message of a client without an address.
    pub fn new(mac: Mac, kind: u8) -> Dhcp4 {
        let (none, dst) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        Dhcp4 {
            mac,
            kind,
            xid: 0x1234_5678,
            broadcast: false,
            ciaddr: none,
            giaddr: none,
            dst,
            options: vec![],
        }
    }

    /// With one more option.
    #[must_use]
    pub fn option(mut self, code: u8, value: &[u8]) -> Dhcp4 {
        self.options.extend([code, value.len() as u8]);
        self.options.extend(value);
        self
    }

    /// The UDP payload.
    pub fn message(&self) -> Vec<u8> {
        let mut m = vec![1, 1, 6, 0];
        m.extend(self.xid.to_be_bytes());
        m.extend([0, 0, if self.broadcast { 0x80 } else { 0 }, 0]);
        m.extend(self.ciaddr.octets());
        m.extend([0; 8]);
        m.extend(self.giaddr.octets());
        m.extend(self.mac.0);
        // The rest of the hardware address, server name and file.
        m.extend([0; 10 + 64 + 128]);
        m.extend([99, 130, 83, 99, 53, 1, self.kind]);
        m.extend(&self.options);
        m.push(255);
        m
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let (src, to) = (IpAddr::V4(self.ciaddr), (Mac::BROADCAST, self.dst.into(), 67));
        frames::udp_frame((self.mac, src, 68), to, &self.message())
    }
}

/// A message of a DHCP client for IPv6.
#[derive(Clone, Debug)]
pub struct Dhcp6 {
    /// Source of the frame.
    pub mac: Mac,
    /// Number of the message: 1 is Solicit, 3 Request.
    pub kind: u8,
    /// Number of the transaction.
    pub xid: [u8; 3],
    /// Where the packet goes.
    pub dst: Ipv6Addr,
    /// Options, as they stand.
    pub options: Vec<u8>,
}

impl Dhcp6 {
    /// A message with the client's identifier, of its link-layer address.
    pub fn new(mac: Mac, kind: u8) -> Dhcp6 {
        let duid = [&[0, 3, 0, 1][..], &mac.0].concat();
        Dhcp6 { mac, kind, xid: [1, 2, 3], dst: ALL_SERVERS, options: vec![] }.option(1, &duid)
    }

    /// With one more option.
    #[must_use]
    pub fn option(mut self, code: u16, value: &[u8]) -> Dhcp6 {
        self.options.extend(option(code, value));
        self
    }

    /// With an identity association for these addresses.
    #[must_use]
    pub fn addresses(self, id: u32, ips: &[Ipv6Addr]) -> Dhcp6 {
        let mut body = id.to_be_bytes().to_vec();
        body.extend([0; 8]);
        ips.iter().for_each(|ip| body.extend(option(5, &[&ip.octets()[..], &[0; 8]].concat())));
        self.option(3, &body)
    }

    /// The client's address: link-local, from its MAC.
    pub fn src(&self) -> Ipv6Addr {
        self.mac.link_local()
    }

    /// The UDP payload.
    pub fn message(&self) -> Vec<u8> {
        [&[self.kind][..], &self.xid, &self.options].concat()
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let to = (multicast(self.dst), self.dst.into(), 547);
        frames::udp_frame((self.mac, self.src().into(), 546), to, &self.message())
    }
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let mut o = code.to_be_bytes().to_vec();
    o.extend((value.len() as u16).to_be_bytes());
    o.extend(value);
    o
}

/// One of each, for fuzzers to begin from.
pub fn seeds(mac: Mac, gateway: Mac, ip: (Ipv4Addr, Ipv6Addr)) -> Vec<Vec<u8>> {
    let duid = [&[0, 3, 0, 1][..], &gateway.0].concat();
    let mut all = vec![router_solicit(mac, Ipv6Addr::UNSPECIFIED), router_solicit(mac, mac.link_local())];
    for kind in 1..=8 {
        let plain = Dhcp4::new(mac, kind).option(55, &[1, 3, 6, 26]);
        all.push(plain.clone().option(50, &ip.0.octets()).option(61, &[1, 2, 0, 0, 0, 0, 1]).frame());
        all.push(Dhcp4 { ciaddr: ip.0, broadcast: true, ..plain }.frame());
    }
    for kind in 1..=11 {
        let plain = Dhcp6::new(mac, kind).option(6, &[0, 23, 0, 24]).option(8, &[0, 0]);
        all.push(plain.clone().addresses(1, &[ip.1]).option(14, &[]).frame());
        all.push(plain.clone().option(2, &duid).addresses(1, &[ip.1]).option(25, &[0; 12]).frame());
        all.push(plain.option(2, &duid).option(4, &[0; 4]).frame());
    }
    all
}
