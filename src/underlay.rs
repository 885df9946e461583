//! What the switch does for its underlay besides carrying packets: routes, and the host's side of uplinks (R95).

use std::collections::BTreeMap;

use anyhow::anyhow;
use godwit_control::{Input, Liveness, Route, RouteHop, RouteOrigin};
use godwit_tables::update::PortIdx;
use godwit_wire::{Mac, Span};

use crate::config::{RouteSource, UnderlayConfig, kernel_interface, uplink_of};
use crate::kernel::{Table, Watch};
use crate::switch::Switch;

/// Of routes that are not taken over, so many are named in the log at once.
const NAMED: usize = 5;

/// As control has it.
pub fn liveness(u: &UnderlayConfig) -> Liveness {
    Liveness {
        interval: Span::from_ms(u.probe_ms),
        tries: u.probe_tries,
        wait: Span::from_ms(u.probe_wait_ms),
    }
}

/// Tells control of the configured routes.
///
/// # Errors
/// An uplink is missing.
pub fn add_routes(switch: &mut Switch) -> anyhow::Result<()> {
    let config = switch.config.clone();
    let mut routes = Vec::new();
    for r in &config.routes {
        let mut hops = Vec::new();
        for via in &r.via {
            let at = uplink_of(&config, via)
                .map_err(|(what, remedy)| anyhow!("route to {}: {what}; {remedy}", r.to))?;
            hops.push(RouteHop { uplink: number_of(switch, &config.uplinks[at].name)?, ip: Some(via.ip) });
        }
        routes.push(Route { to: r.to.addr(), len: r.to.prefix_len(), hops });
    }
    if !routes.is_empty() {
        switch.input(Input::Routes { origin: RouteOrigin::Fixed, routes });
    }
    Ok(())
}

fn number_of(switch: &Switch, uplink: &str) -> anyhow::Result<PortIdx> {
    switch.devices.by_name(uplink).map(|d| d.number).ok_or_else(|| switch.no_port(uplink))
}

/// Starts to follow the kernel's routes, where the configuration wants that.
///
/// # Errors
/// The kernel refuses.
pub fn watch_kernel(switch: &Switch) -> anyhow::Result<Option<Watch>> {
    if switch.config.underlay.routes != RouteSource::Kernel {
        return Ok(None);
    }
    let mut interfaces = BTreeMap::new();
    for u in &switch.config.uplinks {
        match kernel_interface(u) {
            Some(name) => {
                interfaces.insert(name.to_owned(), number_of(switch, &u.name)?);
            }
            None => tracing::warn!(
                "uplink {} has no exception interface: no route of the kernel leads to it; give it exception = \
                 \"net_tapN,iface=NAME\", or exception_interface",
                u.name
            ),
        }
    }
    Watch::start(interfaces).map(Some)
}

/// Takes over what the kernel's routes are now.
pub fn take_kernel(switch: &mut Switch, table: Table) {
    let Table { routes, ignored } = table;
    let news: Vec<_> = ignored.iter().filter(|i| !switch.ignored_routes.contains(i)).collect();
    for i in news.iter().take(NAMED) {
        tracing::warn!("the kernel's route to {} is not used: it {}", i.to, i.why);
    }
    if news.len() > NAMED {
        tracing::warn!(
            "{} more of the kernel's routes are not used; see godwitctl underlay",
            news.len() - NAMED
        );
    }
    tracing::info!(used = routes.len(), unused = ignored.len(), "the kernel's routes");
    switch.ignored_routes = ignored;
    switch.input(Input::Routes { origin: RouteOrigin::Kernel, routes });
}

/// Arguments that give the host's side of an uplink the uplink's address, where its driver takes them.
pub fn with_mac(devargs: &str, mac: Mac) -> String {
    let said = devargs.split(',').any(|arg| arg.trim().starts_with("mac="));
    let takes = devargs.starts_with("net_tap") || devargs.starts_with("eth_tap");
    if takes && !said { format!("{devargs},mac={mac}") } else { devargs.to_owned() }
}

/// Warns where the host's side of an uplink has another address than the uplink.
pub fn check_mac(name: &str, host: Mac, uplink: Mac) {
    if host != uplink {
        tracing::warn!(
            "{name} has the address {host} and its uplink {uplink}: what is sent to the host's does not reach the \
             switch's locators, and some cards drop it; give the host's interface the uplink's address: ip \
             link set dev NAME address {uplink}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r95_a_tap_gets_the_uplinks_address_unless_it_has_its_own() {
        let mac = Mac([2, 0, 0, 0, 0, 0xab]);
        assert_eq!(with_mac("net_tap0,iface=fab0", mac), "net_tap0,iface=fab0,mac=02:00:00:00:00:ab");
        for kept in ["net_tap0,iface=fab0,mac=02:00:00:00:00:01", "net_af_packet0,iface=veth0"] {
            assert_eq!(with_mac(kept, mac), kept);
        }
    }
}
