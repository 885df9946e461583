//! What being routed means for the VMs of a VN: their addresses are in its subnets, and what is the gateway's is no
//! VM's.

use std::net::IpAddr;

use godwit_model::routable::is_edge;
use godwit_model::{Subnet, VmKey, VmRecord};
use godwit_wire::{Prefix, Vni};

use super::super::{Directory, Refusal, VmDefinition};

/// No router looks at where these are.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// For people: subnets of one family.
fn list<'a>(subnets: impl Iterator<Item = &'a Subnet>) -> String {
    super::some(subnets.map(|s| s.prefix.to_string()))
}

impl Directory {
    /// A definition fits a routed VN. What the VM had before may stay outside the subnets, which came later.
    pub(in super::super) fn check_routed(&self, key: VmKey, def: &VmDefinition) -> Result<(), Refusal> {
        self.check_next_hop(key, def)?;
        if self.routing_of(key.vni).is_none() {
            return Ok(());
        }
        let a = &def.allowed;
        let mut macs = [key.mac].into_iter().chain(a.nested.iter().chain(&a.virtual_macs).copied());
        if macs.any(|mac| mac == self.config.gateway_mac) {
            return Err(Refusal::GatewayMac { mac: self.config.gateway_mac, vm: def.name.clone() });
        }
        let old = self.records.get(&key);
        for ip in super::super::allowed::ips_of(def) {
            let had = old.is_some_and(|r| r.ips().any(|own| own == ip));
            self.check_routed_ip(key.vni, &def.name, ip, had)?;
        }
        let prefixes = a.routes.iter().map(|p| ("route", p));
        for (what, p) in prefixes.chain(a.virtual_ips.iter().map(|p| ("virtual prefix", p))) {
            if let Some(s) = self.subnets_of(key.vni).find(|s| p.contains(s.gateway)) {
                return Err(self.gateways(key.vni, s, format!("{what} {p}"), &def.name));
            }
        }
        Ok(())
    }

    pub(super) fn subnets_of(&self, vni: Vni) -> impl Iterator<Item = &Subnet> {
        self.routing_of(vni).into_iter().flat_map(|r| &r.subnets)
    }

    fn gateways(&self, vni: Vni, s: &Subnet, mine: String, vm: &str) -> Refusal {
        Refusal::GatewayAddress {
            mine,
            vm: vm.into(),
            gateway: s.gateway,
            subnet: s.prefix,
            vn: self.vn_name(vni),
        }
    }

    /// A VM of the VN may have this address: it is in a subnet, where the VN has any of its family, and not the
    /// gateway's. `had`: it is its own already.
    pub(in super::super) fn check_routed_ip(
        &self,
        vni: Vni,
        vm: &str,
        ip: IpAddr,
        had: bool,
    ) -> Result<(), Refusal> {
        if let Some(s) = self.subnets_of(vni).find(|s| s.gateway == ip) {
            return Err(self.gateways(vni, s, format!("address {ip}"), vm));
        }
        let link_local = IpAddr::V6(self.config.gateway_mac.link_local());
        if ip == link_local
            && let Some(s) = self.subnets_of(vni).next()
        {
            let s = Subnet { gateway: link_local, ..s.clone() };
            return Err(self.gateways(vni, &s, format!("address {ip}"), vm));
        }
        if had || is_link_local(ip) {
            return Ok(());
        }
        let alike = || self.subnets_of(vni).filter(|s| s.prefix.is_ipv4() == ip.is_ipv4());
        match alike().find(|s| s.prefix.contains(ip)) {
            Some(s) if is_edge(&s.prefix, ip) => Err(Refusal::SubnetEdge {
                ip,
                vm: vm.into(),
                subnet: s.prefix,
                what: if ip == s.prefix.addr() { "network" } else { "broadcast" },
            }),
            Some(_) => Ok(()),
            None if alike().next().is_none() => Ok(()),
            None => Err(Refusal::OutsideSubnets {
                ip,
                vm: vm.into(),
                vn: self.vn_name(vni),
                subnets: list(alike()),
            }),
        }
    }

    /// Names of VMs that have addresses in the prefix, some of them, and how many VMs these are.
    pub(super) fn vms_within(&self, vni: Vni, prefix: &Prefix) -> (usize, String) {
        let mut keys: Vec<VmKey> = self.records.ips_in(vni, prefix).map(|(_, key)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        let names = keys.iter().filter_map(|key| Some(self.records.get(key)?.name.as_str()));
        (keys.len(), super::some(names))
    }

    /// A VM that has the gateway's MAC in a routed VN, as it may after a start with another one.
    pub fn has_gateway_mac(&self) -> Option<&VmRecord> {
        let mac = self.config.gateway_mac;
        let routed = self.vns.iter().map(|(vni, _)| vni).filter(|vni| self.routing_of(*vni).is_some());
        let mut owners = routed.filter_map(|vni| self.records.get(&self.records.key_of_mac(vni, mac)));
        owners.next()
    }
}
