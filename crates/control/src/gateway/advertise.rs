//! Contents of router advertisements (RFC 4861 section 4.2): one for all subnets of a VN, as one router has them.

use std::net::{IpAddr, Ipv6Addr};

use godwit_model::VnRouting;
use godwit_wire::ipv6::{ALL_NODES, ALL_NODES_MAC};
use godwit_wire::{Mac, Prefix, Span, ndp};

use super::frames;

/// Default lifetimes of prefixes, in seconds (RFC 4861 section 6.2.1): 30 and 7 days.
const VALID: u32 = 2_592_000;
const PREFERRED: u32 = 604_800;
/// Longest time between advertisements, in seconds (RFC 4861 section 6.2.1).
const MAX_INTERVAL: u64 = 600;
/// The shortest that may be the longest, in seconds.
const MIN_MAX_INTERVAL: u64 = 4;
/// Prefixes in one message, withdrawn ones included, and DNS servers: with these the frame has at most 1,100 bytes.
const MAX_PREFIXES: usize = 24;
const MAX_DNS: usize = 8;

const HOP_LIMIT: u8 = 64;
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

mod option {
    pub(super) const SOURCE_MAC: u8 = 1;
    pub(super) const PREFIX: u8 = 3;
    pub(super) const MTU: u8 = 5;
    pub(super) const DNS: u8 = 25;
}

/// What the gateway advertises in a VN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Advertisement {
    gateway: Mac,
    managed: bool,
    other: bool,
    /// Router lifetime, in seconds.
    lifetime_s: u16,
    mtu: u16,
    prefixes: Vec<Advertised>,
    dns: Vec<Ipv6Addr>,
}

/// A subnet in an advertisement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Advertised {
    prefix: Prefix,
    /// L flag. Clear where the VN is routed only: hosts then send to the gateway without asking for each other, which
    /// would only tell them its MAC.
    on_link: bool,
    /// A flag: hosts may form addresses from it.
    autonomous: bool,
    /// It is advertised no more: said with lifetimes of 0, so that hosts use no address of it for new connections.
    gone: bool,
}

impl Advertisement {
    /// Of a VN whose gateway has this MAC; none where no subnet is advertised.
    ///
    /// The router's lifetime is the longest that a subnet says, and its flags are those of all together.
    pub(crate) fn of(routing: &VnRouting, gateway: Mac, mtu: u16) -> Option<Advertisement> {
        let v6 = || routing.subnets.iter().filter(|s| s.prefix.addr().is_ipv6());
        let advertised = || v6().filter_map(|s| Some((s, s.advertise?)));
        let (_, first) = advertised().next()?;
        let prefixes = advertised().map(|(subnet, a)| Advertised {
            prefix: subnet.prefix,
            on_link: !routing.routed_only,
            // Interface identifiers have 64 bits (RFC 4862 section 5.5.3).
            autonomous: !a.managed && subnet.prefix.prefix_len() == 64,
            gone: false,
        });
        let mut dns: Vec<Ipv6Addr> = Vec::new();
        for ip in advertised().filter_map(|(s, _)| s.dhcp.as_ref()).flat_map(|d| &d.dns) {
            match ip {
                IpAddr::V6(ip) if !dns.contains(ip) && dns.len() < MAX_DNS => dns.push(*ip),
                _ => {}
            }
        }
        Some(Advertisement {
            gateway,
            managed: advertised().any(|(_, a)| a.managed),
            other: advertised().any(|(_, a)| a.other),
            lifetime_s: advertised().map(|(_, a)| a.lifetime_s).fold(first.lifetime_s, u16::max),
            mtu,
            prefixes: prefixes.take(MAX_PREFIXES).collect(),
            dns,
        })
    }

    /// The same, which also takes back the prefixes that `before` had and this one has not.
    pub(crate) fn after(mut self, before: &Advertisement) -> Advertisement {
        for old in &before.prefixes {
            let known = self.prefixes.iter().any(|p| p.prefix == old.prefix);
            if !known && self.prefixes.len() < MAX_PREFIXES {
                self.prefixes.push(Advertised { gone: true, ..*old });
            }
        }
        self
    }

    /// The gateway advertises no more: lifetimes of 0 (RFC 4861 section 6.2.5).
    pub(crate) fn withdrawn(&self) -> Advertisement {
        let mut last = self.clone();
        last.lifetime_s = 0;
        last.prefixes.iter_mut().for_each(|p| p.gone = true);
        last
    }

    /// The gateway has another MAC, whose advertisements say the rest: this one is no router any more. Nothing is said
    /// of prefixes, which stay.
    pub(crate) fn retired(&self) -> Advertisement {
        Advertisement { lifetime_s: 0, prefixes: Vec::new(), dns: Vec::new(), ..self.clone() }
    }

    /// The same gateway says it.
    pub(crate) fn is_of_gateway_of(&self, other: &Advertisement) -> bool {
        self.gateway == other.gateway
    }

    /// Without the prefixes that were taken back.
    pub(crate) fn settled(&self) -> Advertisement {
        let mut rest = self.clone();
        rest.prefixes.retain(|p| !p.gone);
        rest
    }

    /// It says that nothing is there any more.
    fn is_withdrawn(&self) -> bool {
        self.prefixes.iter().all(|p| p.gone)
    }

    /// Shortest and longest time between two advertisements: as RFC 4861 section 6.2.1 has it, and so that a host
    /// hears three in the router's lifetime.
    pub(crate) fn interval(&self) -> (Span, Span) {
        let max = match self.lifetime_s {
            0 => MAX_INTERVAL,
            s => (u64::from(s) / 3).clamp(MIN_MAX_INTERVAL, MAX_INTERVAL),
        };
        (Span::from_ms(max * 1000 / 3), Span::from_ms(max * 1000))
    }

    /// The frame for all hosts behind a port.
    pub(crate) fn to_all(&self) -> Vec<u8> {
        self.frame(ALL_NODES_MAC, ALL_NODES)
    }

    /// The frame for the host that asked from an address.
    pub(crate) fn to_host(&self, mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
        self.frame(mac, ip)
    }

    fn frame(&self, mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
        frames::neighbor_discovery((self.gateway, mac), (self.gateway.link_local(), ip), self.message())
    }

    fn message(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.managed, MANAGED) | flag(self.other, OTHER);
        let mut m = vec![ndp::ROUTER_ADVERT, 0, 0, 0, HOP_LIMIT, flags];
        m.extend(self.lifetime_s.to_be_bytes());
        // Reachable time and retransmission timer: the hosts' own.
        m.extend([0; 8]);
        m.extend([option::SOURCE_MAC, 1]);
        m.extend(self.gateway.0);
        m.extend([option::MTU, 1, 0, 0]);
        m.extend(u32::from(self.mtu).to_be_bytes());
        for p in &self.prefixes {
            let IpAddr::V6(addr) = p.prefix.addr() else { continue };
            let (valid, preferred) = if p.gone { (0, 0) } else { (VALID, PREFERRED) };
            let flags = flag(p.on_link, ON_LINK) | flag(p.autonomous, AUTONOMOUS);
            m.extend([option::PREFIX, 4, p.prefix.prefix_len(), flags]);
            m.extend(valid.to_be_bytes());
            m.extend(preferred.to_be_bytes());
            m.extend([0; 4]);
            m.extend(addr.octets());
        }
        self.append_dns(&mut m);
        m
    }

    /// RFC 8106 section 5.1. Servers are good for three advertisements.
    fn append_dns(&self, m: &mut Vec<u8>) {
        let Ok(count) = u8::try_from(self.dns.len()) else { return };
        if count == 0 {
            return;
        }
        let lifetime_s = if self.is_withdrawn() { 0 } else { 3 * self.interval().1.as_ms() / 1000 };
        m.extend([option::DNS, 1 + 2 * count, 0, 0]);
        m.extend(u32::try_from(lifetime_s).unwrap_or(u32::MAX).to_be_bytes());
        self.dns.iter().for_each(|ip| m.extend(ip.octets()));
    }
}
