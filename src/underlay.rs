//! What the switch does for its underlay besides carrying packets: routes, and the host's side of uplinks (R95).

use std::collections::BTreeMap;
use std::path::Path;

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
pub fn add_routes(switch: &mut Switch) -> Result<(), String> {
    let config = switch.config.clone();
    let mut routes = Vec::new();
    for r in &config.routes {
        let mut hops = Vec::new();
        for via in &r.via {
            let at = uplink_of(&config, via)
                .map_err(|(what, remedy)| format!("route to {}: {what}; {remedy}", r.to))?;
            hops.push(RouteHop { uplink: number_of(switch, &config.uplinks[at].name)?, ip: Some(via.ip) });
        }
        routes.push(Route { to: r.to.addr, len: r.to.len, hops });
    }
    if !routes.is_empty() {
        switch.input(Input::Routes { origin: RouteOrigin::Fixed, routes });
    }
    Ok(())
}

fn number_of(switch: &Switch, uplink: &str) -> Result<PortIdx, String> {
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
                interfaces.insert(name.to_owned(), number_of(switch, &u.name).map_err(anyhow::Error::msg)?);
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

/// What the kernel says of the link of one of its interfaces; `None` where it has none of that name.
pub fn carrier(sys: &Path, interface: &str) -> Option<bool> {
    let folder = sys.join("class/net").join(interface);
    // An interface that is down has no carrier to be read.
    let up = || std::fs::read_to_string(folder.join("carrier")).is_ok_and(|text| text.trim() == "1");
    folder.exists().then(up)
}

/// The kernel's interface that a device of these arguments takes its frames from, for drivers that may call its link
/// up whatever it is.
pub fn kernel_link(driver: &str, devargs: &str) -> Option<String> {
    let named = || devargs.split(',').find_map(|arg| arg.trim().strip_prefix("iface="));
    ["net_af_packet", "net_af_xdp"].contains(&driver).then(named).flatten().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r95_the_kernel_knows_the_link_where_a_driver_does_not() {
        assert_eq!(kernel_link("net_af_xdp", "net_af_xdp0,iface=eth1,queues=2").as_deref(), Some("eth1"));
        assert_eq!(kernel_link("net_tap", "net_tap0,iface=eth1"), None);
        let sys = tempfile::tempdir().unwrap();
        let eth = sys.path().join("class/net/eth1");
        std::fs::create_dir_all(&eth).unwrap();
        let look = || carrier(sys.path(), "eth1");
        assert_eq!((carrier(sys.path(), "eth2"), look()), (None, Some(false)), "down: nothing to be read");
        std::fs::write(eth.join("carrier"), "1\n").unwrap();
        assert_eq!(look(), Some(true));
        std::fs::write(eth.join("carrier"), "0\n").unwrap();
        assert_eq!(look(), Some(false));
    }

    #[test]
    fn r95_a_tap_gets_the_uplinks_address_unless_it_has_its_own() {
        let mac = Mac([2, 0, 0, 0, 0, 0xab]);
        assert_eq!(with_mac("net_tap0,iface=fab0", mac), "net_tap0,iface=fab0,mac=02:00:00:00:00:ab");
        for kept in ["net_tap0,iface=fab0,mac=02:00:00:00:00:01", "net_af_packet0,iface=veth0"] {
            assert_eq!(with_mac(kept, mac), kept);
        }
    }
}
