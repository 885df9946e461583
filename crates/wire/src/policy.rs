//! What a VM may send and receive: an access control list without a memory of connections (R23).
//!
//! A rule is written as it is read: `deny out tcp 192.0.2.0/24 remote-port 25`. *out* is what the VM sends, *in* what
//! it is sent; the address and `remote-port` are the other side's, `port` is the VM's own. The first rule that
//! matches decides, otherwise the policy's default does.
//!
//! ARP, RARP and neighbor discovery are not subject to rules: without them nobody could send anything. What is not
//! IP otherwise matches rules without protocol, address and ports only. Later fragments, and all that is truncated,
//! have no ports to look at: rules that deny ports match them, rules that allow ports don't.

use core::fmt;
use core::net::IpAddr;

use crate::frame::Frame;
use crate::prefix::Prefix;
use crate::proto;

/// Rules that a policy has at most.
pub const MAX_RULES: usize = 64;

/// Which way a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The VM sent it.
    Out,
    /// The VM is to get it.
    In,
}

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Verdict {
    /// It goes on.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
}

/// Ports from the first to the last, both among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// One rule of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What becomes of frames that it matches.
    pub verdict: Verdict,
    /// Frames that go this way.
    pub direction: Direction,
    /// IP protocol; `None`: any frame.
    pub proto: Option<u8>,
    /// The other side's addresses; `None`: any.
    pub remote: Option<Prefix>,
    /// The VM's own ports; `None`: any.
    pub port: Option<PortRange>,
    /// The other side's ports; `None`: any.
    pub remote_port: Option<PortRange>,
}

impl Rule {
    /// Allows all that goes out.
    pub const ANY: Rule = Rule {
        verdict: Verdict::Allow,
        direction: Direction::Out,
        proto: None,
        remote: None,
        port: None,
        remote_port: None,
    };

    /// The rule is about this traffic.
    fn matches(&self, t: &Traffic) -> bool {
        self.direction == t.direction
            && self.proto.is_none_or(|p| t.proto == Some(p))
            && self.remote.is_none_or(|r| t.remote.is_some_and(|ip| r.contains(ip)))
            && self.matches_ports(t)
    }

    fn matches_ports(&self, t: &Traffic) -> bool {
        if self.port.is_none() && self.remote_port.is_none() {
            return true;
        }
        match t.ports {
            Some((own, remote)) => {
                self.port.is_none_or(|r| r.contains(own))
                    && self.remote_port.is_none_or(|r| r.contains(remote))
            }
            None => self.verdict == Verdict::Deny,
        }
    }
}

/// What rules look at of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    direction: Direction,
    /// IP protocol.
    proto: Option<u8>,
    remote: Option<IpAddr>,
    /// Own, then remote.
    ports: Option<(u16, u16)>,
}

impl Traffic {
    /// `None` for what no rule is about: ARP, RARP and neighbor discovery. Never fails.
    pub fn of(frame: &Frame<'_>, direction: Direction) -> Option<Traffic> {
        if is_resolution(frame) {
            return None;
        }
        let (remote, proto) = if let Some(ip) = frame.ipv4() {
            (IpAddr::V4(if direction == Direction::Out { ip.dst() } else { ip.src() }), ip.proto())
        } else if let Some(ip) = frame.ipv6() {
            // Of a chain that cannot be followed, what the fixed header names.
            let proto = frame.upper().map_or(ip.next_header(), |(upper, _)| upper.proto);
            (IpAddr::V6(if direction == Direction::Out { ip.dst() } else { ip.src() }), proto)
        } else {
            return Some(Traffic { direction, proto: None, remote: None, ports: None });
        };
        let ports = frame.ports().map(|both| {
            let (from, to) = ((both >> 16) as u16, both as u16);
            if direction == Direction::Out { (from, to) } else { (to, from) }
        });
        Some(Traffic { direction, proto: Some(proto), remote: Some(remote), ports })
    }
}

/// ARP, RARP, neighbor discovery, behind tags or not. Discovery is never in fragments (RFC 6980).
fn is_resolution(frame: &Frame<'_>) -> bool {
    frame.resolves() && frame.upper().is_none_or(|(upper, _)| upper.fragment.is_none())
}

/// What rules and default say of a frame; which rule decided, counted from 0.
pub fn verdict(rules: &[Rule], default: Verdict, traffic: &Traffic) -> (Verdict, Option<usize>) {
    match rules.iter().position(|r| r.matches(traffic)) {
        Some(at) => (rules[at].verdict, Some(at)),
        None => (default, None),
    }
}

impl PortRange {
    /// `None` where the last is before the first.
    pub fn new(first: u16, last: u16) -> Option<PortRange> {
        (first <= last).then_some(PortRange { first, last })
    }

    /// `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// Protocols that have names in rules.
pub const NAMES: [(&str, u8); 5] = [
    ("tcp", proto::TCP),
    ("udp", proto::UDP),
    ("sctp", proto::SCTP),
    ("icmp", proto::ICMP),
    ("icmp6", proto::ICMPV6),
];

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        write!(f, "{} {direction}", self.verdict)?;
        match (self.proto, NAMES.iter().find(|(_, n)| Some(*n) == self.proto)) {
            (None, _) => write!(f, " any")?,
            (_, Some((name, _))) => write!(f, " {name}")?,
            (Some(n), None) => write!(f, " {n}")?,
        }
        self.remote.map_or(Ok(()), |r| write!(f, " {}/{}", r.addr(), r.prefix_len()))?;
        self.port.map_or(Ok(()), |r| write!(f, " port {r}"))?;
        self.remote_port.map_or(Ok(()), |r| write!(f, " remote-port {r}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn traffic(frame: &[u8], direction: Direction) -> Option<Traffic> {
        Traffic::of(&Frame::read(frame).expect("a header"), direction)
    }

    fn v4(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    /// From 10.0.0.1 port 1000 to 10.0.0.2 port 2000.
    fn udp() -> Vec<u8> {
        let mut f = vec![0; 14 + 28];
        f[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        f[17] = 28;
        f[23] = proto::UDP;
        f[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        f[34..38].copy_from_slice(&[3, 0xe8, 7, 0xd0]);
        f
    }

    fn later_fragment() -> Vec<u8> {
        let mut f = udp();
        f[21] = 1;
        f
    }

    fn rule(verdict: Verdict, direction: Direction) -> Rule {
        Rule { verdict, direction, ..Rule::ANY }
    }

    #[test]
    fn r23_own_and_remote_change_sides_with_the_direction() {
        let out = traffic(&udp(), Direction::Out);
        let want = Traffic {
            direction: Direction::Out,
            proto: Some(proto::UDP),
            remote: Some(v4(2)),
            ports: Some((1000, 2000)),
        };
        assert_eq!(out, Some(want));
        let want =
            Traffic { direction: Direction::In, remote: Some(v4(1)), ports: Some((2000, 1000)), ..want };
        assert_eq!(traffic(&udp(), Direction::In), Some(want));
    }

    #[test]
    fn r23_arp_rarp_and_discovery_are_nobodys_to_forbid() {
        let frame = |ethertype: [u8; 2]| [&[0; 12], &ethertype[..], &[0; 46]].concat();
        for silent in [frame([8, 6]), frame([0x80, 0x35])] {
            assert_eq!(traffic(&silent, Direction::Out), None);
        }
        let mut tagged = frame([0x81, 0]);
        tagged[16..18].copy_from_slice(&[8, 6]);
        assert_eq!(traffic(&tagged, Direction::Out), None);
        let mut nd = frame([0x86, 0xdd]);
        nd.resize(14 + 40 + 24, 0);
        (nd[14], nd[19], nd[20]) = (0x60, 24, proto::ICMPV6);
        for kind in 0..=255 {
            nd[54] = kind;
            assert_eq!(traffic(&nd, Direction::In).is_none(), (133..=137).contains(&kind), "{kind}");
        }
        let other = traffic(&frame([0x88, 0xcc]), Direction::Out).expect("rules are about it");
        assert_eq!((other.proto, other.remote, other.ports), (None, None, None));
        assert!(rule(Verdict::Deny, Direction::Out).matches(&other));
    }

    #[test]
    fn r23_fragments_pass_no_rule_about_ports_that_allows_and_none_that_denies() {
        let t = traffic(&later_fragment(), Direction::Out).expect("IP");
        assert_eq!((t.proto, t.ports), (Some(proto::UDP), None));
        let port = PortRange::new(5, 6);
        for verdict in [Verdict::Allow, Verdict::Deny] {
            let r = Rule { proto: Some(proto::UDP), port, ..rule(verdict, Direction::Out) };
            assert_eq!(r.matches(&t), verdict == Verdict::Deny);
            let whole = traffic(&udp(), Direction::Out).expect("IP");
            assert!(!r.matches(&whole), "its ports are others");
        }
    }

    #[test]
    fn r23_the_first_rule_that_matches_decides() {
        let t = traffic(&udp(), Direction::Out).expect("IP");
        let other = rule(Verdict::Deny, Direction::In);
        let rules = [other, rule(Verdict::Allow, Direction::Out), rule(Verdict::Deny, Direction::Out)];
        assert_eq!(verdict(&rules, Verdict::Deny, &t), (Verdict::Allow, Some(1)));
        assert_eq!(verdict(&rules[..1], Verdict::Deny, &t), (Verdict::Deny, None));
        assert_eq!(verdict(&[], Verdict::Allow, &t), (Verdict::Allow, None));
    }

    #[test]
    fn a_prefix_has_no_bits_beyond_its_length() {
        assert!(Prefix::new(v4(0), 24).is_some() && Prefix::new(v4(0), 0).is_none());
        assert!(Prefix::new(v4(1), 24).is_none() && Prefix::new(v4(1), 33).is_none());
        let all = Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0).expect("every IPv4 address");
        assert!(all.contains(v4(9)) && !all.contains("::1".parse().expect("an address")));
        assert!(PortRange::new(2, 1).is_none());
    }

    proptest! {
        /// Against bits compared one by one.
        #[test]
        fn r23_a_prefix_contains_what_begins_with_its_bits(a: u32, b: u32, v6: bool, len in 0..=128_u8) {
            let wide = |n: u32| match v6 {
                true => IpAddr::V6((u128::from(n) << 96 | u128::from(n)).into()),
                false => IpAddr::V4(n.into()),
            };
            let bits = if v6 { 128 } else { 32 };
            let len = len.min(bits);
            let bit = |ip: IpAddr, i: u8| match ip {
                IpAddr::V4(x) => x.to_bits() >> (31 - i) & 1 == 1,
                IpAddr::V6(x) => x.to_bits() >> (127 - i) & 1 == 1,
            };
            let cleared = match wide(a) {
                _ if len == 0 => wide(0),
                IpAddr::V4(x) => IpAddr::V4((x.to_bits() >> (32 - len) << (32 - len)).into()),
                IpAddr::V6(x) => IpAddr::V6((x.to_bits() >> (128 - len) << (128 - len)).into()),
            };
            let prefix = Prefix::new(cleared, len).expect("nothing beyond it is set");
            let same = (0..len).all(|i| bit(cleared, i) == bit(wide(b), i));
            prop_assert_eq!(prefix.contains(wide(b)), same);
            prop_assert!(prefix.contains(wide(a)));
        }

        #[test]
        fn no_bytes_panic(frame in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Frame::read(&frame).map(|f| Traffic::of(&f, Direction::Out));
        }
    }
}
