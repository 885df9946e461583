//! The routing domain of the lab: its networks, and who is in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use godwit_wire::Mac;

use crate::cmd;
use crate::lab::Lab;
use crate::lab::vm::{Network, VmSpec};

/// The gateway's MAC where nobody configured another; written out here, so that a change would be noticed.
pub(crate) const GATEWAY_MAC: Mac = Mac([0x02, 0x67, 0x77, 0x00, 0x00, 0x01]);
/// The domain's name.
const NAME: &str = "red";

/// A network of the domain: 10.1.n.0/24 and 2001:db8:1:n::/64, whose first address is the gateway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Net(pub u8);

impl Net {
    /// As the directory knows it.
    pub fn network(self) -> Network {
        Network { name: format!("{NAME}{}", self.0), vni: 200 + u32::from(self.0) }
    }

    /// An address of it.
    pub fn ip(self, v6: bool, n: u8) -> IpAddr {
        if v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 1, self.0.into(), 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(10, 1, self.0, n).into()
        }
    }

    /// The gateway's address.
    pub fn gateway(self, v6: bool) -> IpAddr {
        self.ip(v6, 1)
    }

    /// It joins the domain with a gateway beside its bridge.
    pub fn bridged(self) -> Member {
        Member { net: self, routed_only: false, managed: false }
    }

    /// The same; IPv6 addresses are to be had by DHCP where `managed`.
    pub fn told(self, managed: bool) -> Member {
        Member { managed, ..self.bridged() }
    }

    /// It joins the domain without a bridge.
    pub fn routed_only(self) -> Member {
        Member { routed_only: true, ..self.bridged() }
    }

    /// The subnet.
    pub fn subnet(self, v6: bool) -> String {
        format!("{}/{}", self.ip(v6, 0), if v6 { 64 } else { 24 })
    }

    /// A VM of it, with address number `n`.
    pub fn vm(self, name: &str, n: u8) -> VmSpec {
        VmSpec {
            name: name.into(),
            mac: Mac([0x02, 0x67, 0x77, 1, self.0, n]),
            ips: vec![self.ip(false, n), self.ip(true, n)],
            vn: self.network(),
        }
    }

    /// The same with the IPv6 address that a kernel makes of its MAC address and the advertised prefix (RFC 4862).
    pub fn autoconfigured(self, name: &str, n: u8) -> VmSpec {
        let mut spec = self.vm(name, n);
        let [a, b, c, d, e, f] = spec.mac.0;
        let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        if let IpAddr::V6(subnet) = self.ip(true, 0) {
            let mut octets = subnet.octets();
            octets[8..].copy_from_slice(&id);
            spec.ips[1] = Ipv6Addr::from(octets).into();
        }
        spec
    }
}

/// How a network is in the domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    net: Net,
    routed_only: bool,
    /// IPv6 addresses are to be had by DHCP.
    managed: bool,
}

/// The domain in the directory.
pub(crate) struct Domain;

impl Domain {
    /// Makes the domain and its networks.
    ///
    /// # Errors
    /// Where the NVA refuses.
    pub fn create(lab: &Lab, members: &[Member]) -> Result<Domain> {
        lab.ctl(&["domain", "create", NAME])?;
        for member in members {
            let Network { name, vni } = member.net.network();
            let (vni, subnets) = (vni.to_string(), [false, true].map(|v6| member.subnet(v6)));
            let mut args = vec!["vn", "create", &name, "--vni", &vni, "--domain", NAME];
            args.extend(subnets.iter().flat_map(|s| ["--subnet", s.as_str()]));
            if member.routed_only {
                args.push("--routed-only");
            }
            lab.ctl(&args)?;
        }
        Ok(Domain)
    }

    /// Packets for a prefix go to a VM, which may also send from there.
    ///
    /// # Errors
    /// Where the NVA refuses.
    pub fn route(&self, lab: &Lab, prefix: &str, via: &str) -> Result<()> {
        lab.ctl(&["vm", "set", via, "--route", prefix])?;
        lab.ctl(&["domain", "route", "add", NAME, prefix, "--via", via]).map(drop)
    }
}

impl Member {
    /// A subnet as the operator writes it: all have DHCP or advertisements.
    fn subnet(&self, v6: bool) -> String {
        let how = match (v6, self.managed) {
            (false, _) => "dhcp",
            (true, false) => "ra",
            (true, true) => "ra=managed,dhcp",
        };
        format!("{},gateway={},{how}", self.net.subnet(v6), self.net.gateway(v6))
    }
}

/// Starts a VM that is a namespace, with the gateway as its default routes.
///
/// # Errors
/// Where any step fails.
pub(crate) fn start(lab: &mut Lab, net: Net, spec: VmSpec, nve: &str) -> Result<()> {
    let name = spec.name.clone();
    lab.start_vm(spec, nve)?;
    default_routes(&lab.namespace(&name), net)
}

/// Makes the gateway of a network a namespace's default routes.
///
/// # Errors
/// Where the system refuses.
pub(crate) fn default_routes(namespace: &str, net: Net) -> Result<()> {
    let routes = [false, true].map(|v6| {
        let family = if v6 { "-6 " } else { "" };
        format!("{family}route add default via {}", net.gateway(v6))
    });
    // A batch has one family for all of its lines.
    routes.iter().try_for_each(|line| cmd::sh(&format!("ip -n {namespace} {line}")).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_their_vms_are_numbered() {
        let net = Net(2);
        assert_eq!(net.bridged().subnet(false), "10.1.2.0/24,gateway=10.1.2.1,dhcp");
        assert_eq!(net.bridged().subnet(true), "2001:db8:1:2::/64,gateway=2001:db8:1:2::1,ra");
        let managed = net.told(true);
        assert_eq!(managed.subnet(true), "2001:db8:1:2::/64,gateway=2001:db8:1:2::1,ra=managed,dhcp");
        assert_eq!((net.network().name.as_str(), net.network().vni), ("red2", 202));
        let v = net.autoconfigured("v", 10);
        assert_eq!(v.ips[1].to_string(), "2001:db8:1:2:67:77ff:fe01:20a");
    }
}
