//! Devices of a configuration: each serves one port, each socket one port, and there is room for all.

use std::collections::BTreeMap;
use std::path::PathBuf;

use godwit_dpdk::{MAX_LISTENING_GUESTS, VhostSocket, canonical_socket};
use godwit_tables::update::MAX_PORTS;

use super::check::Checker;
use super::{Config, ConfigError, uplink};

impl Checker<'_> {
    /// Devices by the keys that name them.
    pub(super) fn devices(&self, c: &Config) -> Result<(), ConfigError> {
        let room = godwit_dpdk::max_devices();
        let mut of_dpdk = 0;
        let mut devices: BTreeMap<&str, String> = BTreeMap::new();
        let admin = (canonical_socket(&c.nve.admin_socket()), "nve.admin_socket".to_owned());
        let mut sockets: BTreeMap<PathBuf, String> = BTreeMap::from([admin]);
        for (number, (devargs, key)) in named(c).into_iter().enumerate() {
            let device = uplink::device(devargs);
            if device.is_empty() {
                let remedy = "give a PCI address or devargs such as vhost=PATH";
                return self.bad(key, "no device", remedy);
            }
            let found = VhostSocket::parse(devargs).and_then(|socket| {
                socket.as_ref().map_or(Ok(()), VhostSocket::check)?;
                Ok(socket)
            });
            let socket = found.or_else(|e| self.bad(key.clone(), e.what, &e.remedy))?;
            if let Some(socket) = &socket
                && let Some(other) = sockets.insert(socket.canonical(), key.clone())
            {
                let what = format!("{} is the socket of {other} too", socket.shown());
                return self.bad(key, what, "give each guest a socket of its own");
            }
            if let Some(other) = devices.insert(device, key.clone()) {
                let what = format!("{device} is also {other}");
                return self.bad(key, what, "a device serves one port: name another");
            }
            if number >= MAX_PORTS {
                let what = format!("a switch has at most {MAX_PORTS} ports, uplinks and exceptions included");
                return self.bad(key, what, "use fewer ports");
            }
            of_dpdk += usize::from(socket.is_none());
            if of_dpdk > room {
                let what = format!(
                    "this DPDK build has room for {room} devices (RTE_MAX_ETHPORTS), exceptions included"
                );
                let remedy = "use fewer of them, vhost-user ports (vhost=PATH), or build DPDK with more";
                return self.bad(key, what, remedy);
            }
        }
        Ok(())
    }
}

/// VMs that there is room for beside the uplinks and their exception ports, at vhost-user ports of which DPDK's library
/// serves so many.
pub fn room_for_vms(c: &Config) -> usize {
    let others = named(c).len().saturating_sub(c.ports.len());
    MAX_PORTS.saturating_sub(others).min(MAX_LISTENING_GUESTS)
}

/// All devices with the keys that name them; a port by its name, too.
fn named(c: &Config) -> Vec<(&str, String)> {
    let mut all = Vec::new();
    for (i, u) in c.uplinks.iter().enumerate() {
        all.extend(uplink::devices(u, i));
        all.extend(u.exception.as_deref().map(|e| (e, format!("uplink[{i}].exception"))));
    }
    for (i, p) in c.ports.iter().enumerate() {
        all.push((p.devargs.as_str(), format!("port[{i}].devargs ({:?})", p.name)));
    }
    all
}
