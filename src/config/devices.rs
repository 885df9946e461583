//! Devices of a configuration: each serves one port, each socket one device, and DPDK has room for all.

use std::collections::BTreeMap;
use std::path::PathBuf;

use godwit_dpdk::{VhostSocket, canonical_socket};

use super::check::Checker;
use super::{Config, ConfigError, uplink};

impl Checker<'_> {
    /// Devices by the keys that name them.
    pub(super) fn devices(&self, c: &Config) -> Result<(), ConfigError> {
        let room = godwit_dpdk::max_devices();
        let mut devices: BTreeMap<&str, String> = BTreeMap::new();
        let admin = (canonical_socket(&c.nve.admin_socket()), "nve.admin_socket".to_owned());
        let mut sockets: BTreeMap<PathBuf, String> = BTreeMap::from([admin]);
        for (number, (devargs, key)) in named(c).into_iter().enumerate() {
            let device = uplink::device(devargs);
            if device.is_empty() {
                let remedy = "give a PCI address or devargs such as net_vhost0,iface=PATH";
                return self.bad(key, "no device", remedy);
            }
            if let Some(other) = devices.insert(device, key.clone()) {
                let what = format!("{device} is also {other}");
                return self.bad(key, what, "a device serves one port: name another");
            }
            if number >= room {
                let what = format!(
                    "this DPDK build has room for {room} devices (RTE_MAX_ETHPORTS), exceptions included"
                );
                return self.bad(key, what, "use fewer ports, or build DPDK with more");
            }
            let found = VhostSocket::parse(devargs).and_then(|socket| {
                socket.as_ref().map_or(Ok(()), VhostSocket::check)?;
                Ok(socket)
            });
            let socket = found.or_else(|e| self.bad(key.clone(), e.what, &e.remedy))?;
            let Some(socket) = socket else { continue };
            if let Some(other) = sockets.insert(socket.canonical(), key.clone()) {
                let what = format!("iface={} is the socket of {other} too", socket.path().display());
                return self.bad(key, what, "give each guest a socket of its own");
            }
        }
        Ok(())
    }
}

/// VMs' devices that this build of DPDK has room for beside the uplinks and their exception ports.
pub fn room_for_vms(c: &Config) -> usize {
    let ports = c.ports.len();
    godwit_dpdk::max_devices().saturating_sub(named(c).len().saturating_sub(ports))
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
