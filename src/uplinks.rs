//! Uplinks and their exception ports, which are there from the start to the end of the switch.

use godwit_control::{Input, PortSpec, UplinkSpec, UplinkV4, UplinkV6};
use godwit_tables::update::PortIdx;
use godwit_wire::Mac;

use crate::config::UplinkConfig;
use crate::opening::{Wanted, open};
use crate::switch::Switch;
use crate::{ports, underlay};

/// Opens an uplink and the host's side of it, and tells control of both.
///
/// # Errors
/// A device that cannot be opened, or no number for it.
pub fn add(switch: &mut Switch, u: &UplinkConfig) -> anyhow::Result<()> {
    let (workers, pool) = (switch.workers.len(), switch.pool.clone());
    let wanted = Wanted {
        name: u.name.clone(),
        devargs: u.bond.as_ref().map_or_else(|| u.devargs.clone(), ToString::to_string),
        rx_queues: u.rx_queues,
        mtu: u.mtu,
        is_access: false,
        postcopy: false,
        checksums: switch.config.nve.udp_checksum.then_some(u.offloads),
        bond: u.bond.clone(),
        tagged: u.vlan.is_some(),
    };
    let opened = open(&wanted, workers, pool.clone())?;
    // The host's side has the uplink's address: what others send to it comes in here, and is looked at if it is ours.
    let mac = opened.mac();
    let (wanted_uplink, opened_uplink) = (wanted, opened);
    let exception = match &u.exception {
        None => None,
        Some(devargs) => {
            let wanted = Wanted {
                name: format!("{}.exception", u.name),
                devargs: underlay::with_mac(devargs, mac),
                rx_queues: 1,
                mtu: 0,
                is_access: false,
                postcopy: false,
                checksums: None,
                bond: None,
                tagged: false,
            };
            let opened = open(&wanted, workers, pool)?;
            underlay::check_mac(&wanted.name, opened.mac(), mac);
            // The uplink's number is not known yet; it is told below.
            Some(ports::attach(switch, &wanted, opened, |d| PortSpec::Exception { uplink: d.number })?)
        }
    };
    let link_local = switch.config.underlay.has_locator() && u.ipv6.is_none();
    let number = ports::attach(switch, &wanted_uplink, opened_uplink, |d| {
        let spec = uplink_spec(u, d.mac, u.mtu.min(d.mtu), exception);
        // Without an address of its own it asks from this one, and answers for it.
        PortSpec::Uplink(UplinkSpec { v6_link_local: link_local.then(|| d.mac.link_local()), ..spec })
    })?;
    if let Some(port) = exception {
        let name = format!("{}.exception", u.name);
        let workers =
            switch.devices.get(port).map(|d| d.polled_by.iter().map(|q| q.1).collect()).unwrap_or_default();
        switch.input(Input::PortAdded { port, name, spec: PortSpec::Exception { uplink: number }, workers });
    }
    Ok(())
}

fn uplink_spec(u: &UplinkConfig, mac: Mac, mtu: u16, exception: Option<PortIdx>) -> UplinkSpec {
    UplinkSpec {
        mac,
        v4: u.ipv4.map(|p| UplinkV4 { addr: p.addr(), prefix_len: p.prefix_len(), gateway: u.gateway4 }),
        v6: u.ipv6.map(|p| UplinkV6 { addr: p.addr(), prefix_len: p.prefix_len(), gateway: u.gateway6 }),
        v6_link_local: None,
        mtu,
        exception,
        vlan: u.vlan,
    }
}
