//! Locations, neighbors and routing domains from the configuration file: an NVE without a directory.

use std::net::IpAddr;

use godwit_control::Input;
use godwit_model::{Domain, DomainId, Location, Locators, NveId, StaticRoute, Subnet, VmKey, VnRouting};
use godwit_tables::update::PortIdx;
use godwit_wire::{Mac, Vni};

use crate::config::{Config, DomainConfig, DomainRouteConfig, SubnetConfig, VmConfig, VnConfig};
use crate::switch::Switch;

/// Hands every static entry to control.
pub fn add(switch: &mut Switch, config: &Config) {
    for n in &config.neighbors {
        let Some(uplink) = switch.devices.by_name(&n.uplink).map(|d| d.number) else { continue };
        for i in 0..n.count {
            switch.input(Input::UnderlayNeighbor { uplink, ip: nth(n.ip, i), mac: n.mac });
        }
    }
    // Before VMs and ports: what these mean in a routed VN is known when they come.
    for (n, domain) in (1..).zip(&config.domains) {
        switch.input(static_domain(config, DomainId(n), domain));
    }
    for vm in config.vms.iter().filter(|v| v.locator.is_some()) {
        for i in 0..vm.count {
            if let Some(input) = static_vm(vm, i) {
                switch.input(input);
            }
            if i % 1024 == 0 {
                make_room(switch);
            }
        }
    }
}

/// Hands the VMs behind a port to control, which has the port.
pub fn add_behind(switch: &mut Switch, name: &str, port: PortIdx) {
    let behind = |v: &&VmConfig| v.port.as_deref() == Some(name);
    let vms: Vec<VmConfig> = switch.config.vms.iter().filter(behind).cloned().collect();
    for vm in vms {
        for i in 0..vm.count {
            switch.input(Input::VmBehindPort { port, mac: nth_mac(vm.mac, i), ips: nth_ips(&vm, i) });
            if i % 1024 == 0 {
                make_room(switch);
            }
        }
    }
}

/// Lets the workers take what waits, so that a long list needs no long queue.
fn make_room(switch: &mut Switch) {
    while switch.is_behind() {
        switch.poll_workers();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// The `i`-th VM of a row.
fn static_vm(vm: &VmConfig, i: u32) -> Option<Input> {
    let locator = nth(vm.locator?, i % vm.nves);
    let nve = NveId::new(format!("static-{}", locator.to_string().replace(':', "-"))).ok()?;
    Some(Input::StaticVm {
        vni: vm.vni,
        mac: nth_mac(vm.mac, i),
        location: Location { nve, locators: locators_of(locator) },
        ips: nth_ips(vm, i),
        router: false,
    })
}

/// The addresses of the `i`-th VM of a row.
fn nth_ips(vm: &VmConfig, i: u32) -> Vec<IpAddr> {
    vm.ips.iter().map(|ip| nth(*ip, i)).collect()
}

/// A domain, what its VNs have of it, and its routes.
fn static_domain(config: &Config, id: DomainId, domain: &DomainConfig) -> Input {
    let vns = config.vns.iter().filter(|v| v.domain.as_ref() == Some(&domain.name));
    let mut parts: Vec<(Vni, VnRouting)> = vns.map(|v| (v.vni, part(v, id))).collect();
    parts.sort_by_key(|(vni, _)| *vni);
    let route = |r: &DomainRouteConfig, n| {
        let via = VmKey { vni: r.vni, mac: r.next_hop(n) };
        Some(StaticRoute { prefix: r.prefix(n)?, via })
    };
    let routes = domain.routes.iter().flat_map(|r| (0..r.count).filter_map(move |n| route(r, n))).collect();
    let vns = parts.iter().map(|(vni, _)| *vni).collect();
    let domain = Domain { id, name: domain.name.clone(), gateway_mac: domain.gateway_mac, vns };
    Input::StaticDomain { domain, vns: parts, routes }
}

/// A VN's part in its domain.
fn part(vn: &VnConfig, domain: DomainId) -> VnRouting {
    let subnet =
        |s: &SubnetConfig| Subnet { prefix: s.prefix, gateway: s.gateway, advertise: None, dhcp: None };
    let mut subnets: Vec<Subnet> = vn.subnets.iter().map(subnet).collect();
    subnets.sort_by_key(|s| s.prefix);
    VnRouting { domain, routed_only: vn.routed_only, subnets }
}

fn nth_mac(mac: Mac, n: u32) -> Mac {
    Mac::from_u64(mac.to_u64() + u64::from(n))
}

/// The address `n` after `ip`.
pub fn nth(ip: IpAddr, n: u32) -> IpAddr {
    match ip {
        IpAddr::V4(a) => IpAddr::V4(a.to_bits().wrapping_add(n).into()),
        IpAddr::V6(a) => IpAddr::V6(a.to_bits().wrapping_add(n.into()).into()),
    }
}

/// Locators of another NVE that is known by one of them only.
fn locators_of(ip: IpAddr) -> Locators {
    match ip {
        IpAddr::V4(a) => Locators { v4: Some(a), v6: None },
        IpAddr::V6(a) => Locators { v4: None, v6: Some(a) },
    }
}
