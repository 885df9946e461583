//! A trace as an operator reads it, one line a step.

use core::fmt;

use godwit_tables::policies::Judged;
use godwit_tables::update::{NextHop, PortRole};

use super::{Ending, Found, Problem, Step, Trace};

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().iter().try_for_each(|s| writeln!(f, "{s}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Step::Ingress { port, role: None } => write!(f, "port {}: has no role", port.0),
            Step::Ingress { port, role: Some(role) } => match role {
                PortRole::Access { vn, mac, admission } => {
                    write!(f, "port {}: VM {mac} of VN {}, {admission:?}", port.0, vn.0)
                }
                PortRole::Uplink { mac, .. } => write!(f, "port {}: uplink {mac}", port.0),
                PortRole::Exception { uplink } => {
                    write!(f, "port {}: the host's side of uplink {}", port.0, uplink.0)
                }
            },
            Step::Parsed { dst, src, ethertype } => {
                write!(f, "frame: from {src} to {dst}, type {:#06x}", ethertype.0)
            }
            Step::Outer { sender, ttl } => write!(f, "VXLAN from NVE {sender}, TTL {ttl}"),
            Step::VnFound { vn, vni } => write!(f, "VN {}: VNI {vni}", vn.0),
            Step::Marked { dscp } => write!(f, "outer DSCP {dscp}"),
            Step::Policy { port, judged: Judged { verdict, rule: Some(rule) } } => {
                write!(f, "policy of port {}: {verdict}, by the rule `{rule}`", port.0)
            }
            Step::Policy { port, judged: Judged { verdict, rule: None } } => {
                write!(f, "policy of port {}: {verdict}, by its default", port.0)
            }
            Step::SourceAccepted { mac } => write!(f, "source {mac} is the port's VM"),
            Step::Untagged => write!(f, "802.1Q tag taken off"),
            Step::Announces { kind } => write!(f, "announces its VM: {kind:?}"),
            Step::AsksFor { target, owner: Some(mac) } => {
                write!(f, "asks for {target}, which is at {mac}")
            }
            Step::AsksFor { target, owner: None } => {
                write!(f, "asks for {target}, which the directory is to tell")
            }
            Step::Route { dst, route } => {
                write!(f, "route to {dst}")?;
                // That of an address says it already.
                if let Some((prefix, _)) = route.filter(|(prefix, _)| !prefix.is_host()) {
                    write!(f, " by {prefix}")?;
                }
                write!(f, ": ")?;
                match route.map(|(_, to)| to) {
                    None => write!(f, "none"),
                    Some(NextHop::Vm(key)) => write!(f, "VM {} of VN {}", key.mac(), key.vn().0),
                    Some(NextHop::Subnet { vn, ask: true }) => {
                        write!(f, "a subnet of VN {}, whose VMs the directory is asked for", vn.0)
                    }
                    Some(NextHop::Subnet { vn, ask: false }) => {
                        write!(f, "a subnet of VN {}, and no VM has the address", vn.0)
                    }
                    Some(NextHop::Gateway(vn)) => write!(f, "the gateway itself, in VN {}", vn.0),
                }
            }
            Step::Forwards { dst, src, ttl } => write!(f, "routed: from {src} to {dst}, TTL {ttl}"),
            Step::Tells { from, problem } => write!(f, "the sender is told from {from}: {problem}"),
            Step::Punted => write!(f, "DHCP or a router solicitation, which control answers"),
            Step::FibHit { key, found } => {
                write!(f, "destination {} in VN {}: ", key.mac(), key.vn().0)?;
                match found {
                    Found::Missing => write!(f, "unknown here"),
                    Found::Querying(n) => write!(f, "the directory is being asked, {n} waiting"),
                    Found::Known(state, 0) => write!(f, "{state:?}"),
                    Found::Known(state, n) => write!(f, "{state:?}, {n} waiting"),
                }
            }
            Step::Tunnel { tunnel, remote: None, .. } => write!(f, "tunnel {}: does not exist", tunnel.0),
            Step::Tunnel { tunnel, remote: Some(remote), mtu, hop } => {
                write!(f, "tunnel {}: to NVE {remote}, MTU {mtu}, ", tunnel.0)?;
                match hop {
                    Some((uplink, mac)) => write!(f, "by port {} to the next hop {mac}", uplink.0),
                    None => write!(f, "its next hop does not answer yet"),
                }
            }
            Step::Ending(verdict) => verdict.fmt(f),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::TimeExceeded => write!(f, "time exceeded"),
            Problem::NoRoute => write!(f, "network unreachable"),
            Problem::Host => write!(f, "host unreachable"),
            Problem::Port => write!(f, "port unreachable"),
            Problem::Protocol => write!(f, "protocol unreachable"),
            Problem::TooBig(mtu) => write!(f, "too big, {mtu} bytes pass"),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ending::Send { port } => write!(f, "=> leaves through port {}", port.0),
            Ending::Encapsulated { remote, in_flight: false } => write!(f, "=> goes to NVE {remote}"),
            Ending::Encapsulated { remote, in_flight: true } => {
                write!(f, "=> forwarded in flight to NVE {remote}")
            }
            Ending::Fragmented { remote, pieces } => {
                write!(f, "=> goes to NVE {remote} in {pieces} fragments")
            }
            Ending::Miss => write!(f, "=> waits, and the directory is asked"),
            Ending::Held => write!(f, "=> waits"),
            Ending::Answered => write!(f, "=> answered"),
            Ending::Waits => write!(f, "=> the request waits for the directory"),
            Ending::Replicated(n) => write!(f, "=> copied to {n}"),
            Ending::Consumed => write!(f, "=> ends here, as it should"),
            Ending::Drop(reason) => write!(f, "=> dropped, {}: {}", reason.name(), reason.help()),
        }
    }
}
