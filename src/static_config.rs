//! Locations and neighbors from the configuration file: an NVE without a directory.

use std::net::IpAddr;

use godwit_control::Input;
use godwit_model::{Location, Locators, NveId};
use godwit_tables::update::PortIdx;
use godwit_wire::Mac;

use crate::config::{Config, VmConfig};
use crate::switch::Switch;

/// Hands every static entry to control.
pub fn add(switch: &mut Switch, config: &Config) {
    for n in &config.neighbors {
        let Some(uplink) = switch.devices.by_name(&n.uplink).map(|d| d.number) else { continue };
        for i in 0..n.count {
            switch.input(Input::UnderlayNeighbor { uplink, ip: nth(n.ip, i), mac: n.mac });
        }
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
            switch.input(Input::VmBehindPort { port, mac: nth_mac(vm.mac, i), ips: vm.ips.clone() });
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
        ips: vm.ips.clone(),
        router: false,
    })
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
