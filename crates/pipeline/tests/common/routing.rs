//! Two VNs of a routing domain: their subnets, gateways and VMs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_tables::update::*;
use godwit_testkit::frames::{self, Ck, V4, V6};
use godwit_wire::{Mac, Prefix};

use super::*;

pub const DOMAIN: DomainIdx = DomainIdx(3);
/// The gateway, at every NVE.
pub const GW: Mac = mac(0x6777);

/// Addresses of the other VN.
pub fn far4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, n)
}

pub fn far6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, n)
}

/// The gateway's addresses in the VN, and in the other one.
pub fn gw(six: bool) -> IpAddr {
    if six { v6(0xfe).into() } else { v4(254).into() }
}

pub fn far_gw(six: bool) -> IpAddr {
    if six { far6(0xfe).into() } else { far4(254).into() }
}

pub fn near(six: bool, n: u8) -> IpAddr {
    if six { v6(n.into()).into() } else { v4(n).into() }
}

pub fn far(six: bool, n: u8) -> IpAddr {
    if six { far6(n.into()).into() } else { far4(n).into() }
}

/// A UDP packet with this TTL in an Ethernet frame.
pub fn packet(macs: (Mac, Mac), ips: (IpAddr, IpAddr), ttl: u8, payload: &[u8]) -> Vec<u8> {
    let m = frames::udp(ips.0, ips.1, (1000, 2000), payload, Ck::Good);
    frames::ethernet(macs.1, macs.0, frames::ethertype(ips.0), &ip_packet(ips, 17, ttl, &m))
}

pub fn ip_packet(ips: (IpAddr, IpAddr), proto: u8, ttl: u8, message: &[u8]) -> Vec<u8> {
    match ips {
        (IpAddr::V4(s), IpAddr::V4(d)) => V4 { ttl, ..V4::new(s, d, proto) }.packet(message),
        (IpAddr::V6(s), IpAddr::V6(d)) => V6 { hop_limit: ttl, ..V6::new(s, d, proto) }.packet(message),
        _ => panic!("two families"),
    }
}

/// The ICMP error of the gateway in P1's VN about a packet of P1's VM. `rest`: of both families.
pub fn told(from: IpAddr, v4: (u8, u8), v6: (u8, u8), rest: u32, about: &[u8]) -> Vec<u8> {
    told_to(M1, near(from.is_ipv6(), 1), from, (v4, v6), rest, about)
}

pub fn told_to(
    mac: Mac,
    to: IpAddr,
    from: IpAddr,
    (v4, v6): ((u8, u8), (u8, u8)),
    rest: u32,
    about: &[u8],
) -> Vec<u8> {
    let original = &about[14..];
    let (proto, message) = match (from, to) {
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let mut body = rest.to_be_bytes().to_vec();
            body.extend(&original[..original.len().min(1232)]);
            (58, frames::icmpv6(s, d, v6.0, v6.1, &body, Ck::Good))
        }
        _ => (1, frames::icmpv4(v4.0, v4.1, rest, &original[..original.len().min(548)], Ck::Good)),
    };
    frames::ethernet(mac, GW, frames::ethertype(from), &ip_packet((from, to), proto, 64, &message))
}

impl Lab {
    /// P1 (M1, .1) and P2 (M2, .2) in the VN, P3 (M1 again, .1) in the other one, where R4 (.4) and R6 (.6) are at
    /// other NVEs. 172.16/16 and fd16::/16 are behind M2.
    pub fn routed(only: bool) -> Lab {
        let mut lab = Lab::new();
        lab.join(only);
        lab
    }

    pub fn join(&mut self, only: bool) {
        let (mut a, mut b) = ([NO_LENGTH; MAX_LENGTHS], [NO_LENGTH; MAX_LENGTHS]);
        (a[0], a[1], b[0], b[1]) = (24, 16, 64, 16);
        self.apply(Update::DomainSet { domain: DOMAIN, v4: a, v6: b });
        for (vn, subnets) in [(VN, ["10.0.0.0/24", "fd00::/64"]), (OTHER_VN, ["10.0.1.0/24", "fd01::/64"])] {
            self.part_of(vn, VnRouting::new(DOMAIN, GW, only));
            for subnet in subnets {
                let prefix: Prefix = subnet.parse().unwrap();
                let six = prefix.addr().is_ipv6();
                let gateway = if vn == VN { gw(six) } else { far_gw(six) };
                self.apply(Update::SubnetSet { vn, prefix, gateway });
                self.route_to(prefix, NextHop::Subnet { vn, ask: false });
                self.route_to(Prefix::host(gateway), NextHop::Gateway(vn));
                for ip in [gateway, GW.link_local().into()] {
                    self.apply(Update::NeighborSet { vn, ip, mac: GW, router: true });
                }
            }
        }
        let far_vni = |tunnel| Target { tunnel, vni: other_vni() };
        for (mac, to) in [(R4, far_vni(T4)), (R6, far_vni(T6))] {
            self.apply(Update::VmSet { key: Key::new(OTHER_VN, mac), state: VmState::Remote { to } });
        }
        for six in [false, true] {
            for (n, mac) in [(1, M1), (2, M2)] {
                self.own_route(near(six, n), key(mac));
                self.neighbor(near(six, n), mac);
            }
            for (n, mac) in [(1, M1), (4, R4), (6, R6), (9, STRANGER)] {
                self.own_route(far(six, n), Key::new(OTHER_VN, mac));
            }
        }
        for prefix in ["172.16.0.0/16", "fd16::/16"] {
            self.route_to(prefix.parse().unwrap(), NextHop::Vm(key(M2)));
        }
    }

    pub fn part_of(&mut self, vn: VnIdx, routing: VnRouting) {
        self.apply(Update::VnRoutingSet { vn, routing: Some(routing) });
    }

    pub fn route_to(&mut self, prefix: Prefix, to: NextHop) {
        self.apply(Update::RouteSet { domain: DOMAIN, prefix, to });
    }

    pub fn own_route(&mut self, ip: IpAddr, key: Key) {
        self.route_to(Prefix::host(ip), NextHop::Vm(key));
    }

    /// The directory is asked for addresses of the other VN.
    pub fn pull(&mut self) {
        for subnet in ["10.0.1.0/24", "fd01::/64"] {
            self.route_to(subnet.parse().unwrap(), NextHop::Subnet { vn: OTHER_VN, ask: true });
        }
    }
}
