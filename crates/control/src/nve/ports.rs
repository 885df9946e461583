//! Ports come and go, lose and find their link.

use std::net::IpAddr;

use godwit_model::{Location, MAX_MACS, MoveId, OperState, VmKey};
use godwit_tables::update::{Admission, MAX_PORTS, PortIdx, PortRole};

use godwit_wire::Mac;

use crate::io::{Level, Outputs, PortSpec, UplinkSpec};
use crate::manager::ManagerRefusal;
use crate::mobility::{Ctx, Vm};
use crate::records::static_record;

use super::{Nve, Port, PortKind};

impl Nve {
    pub(super) fn port_added(&mut self, port: PortIdx, name: String, spec: PortSpec, out: &mut Outputs) {
        if usize::from(port.0) >= MAX_PORTS {
            return self
                .alarm(format!("port {name} has number {}, beyond {MAX_PORTS}: ignored", port.0), out);
        }
        self.port_removed(port, out);
        let kind = match spec {
            PortSpec::Access { vni, mac, .. } => PortKind::Access(VmKey { vni, mac }),
            PortSpec::Uplink(_) => PortKind::Uplink,
            PortSpec::Exception { .. } => PortKind::Exception,
        };
        self.ports.insert(port, Port { name: name.clone(), kind, link_up: true });
        match spec {
            PortSpec::Access { vni, mac, explicit_activation } => {
                self.access_added(port, name, VmKey { vni, mac }, explicit_activation, out);
            }
            PortSpec::Uplink(spec) => self.uplink_added(port, spec, out),
            PortSpec::Exception { uplink } => self.desired.set_port(port, PortRole::Exception { uplink }),
        }
    }

    fn access_added(&mut self, port: PortIdx, name: String, key: VmKey, explicit: bool, out: &mut Outputs) {
        if !key.mac.is_unicast() {
            self.ports.remove(&port);
            return self.alarm(format!("port {name}: {} is no VM's address: ignored", key.mac), out);
        }
        self.ensure_vn(key.vni, out);
        let Some(vn) = self.desired.vn(key.vni) else { return };
        // Before anything names it.
        let admission = Admission::Closed;
        self.desired.set_port(port, PortRole::Access { vn, mac: key.mac, admission });
        self.mirror.clear_absent(key);
        // The session may be gone before the VN's records come (R15).
        if let Some(record) = self.prepared.get(&key).cloned() {
            self.learn(record, out);
        }
        self.with_vm(key, out, |vm, cx| vm.port_added(port, name, explicit, cx));
    }

    fn uplink_added(&mut self, port: PortIdx, spec: UplinkSpec, out: &mut Outputs) {
        let (v4, v6) = (spec.v4.map(|n| n.addr), spec.v6.map(|n| n.addr));
        let UplinkSpec { mac, v6_link_local, exception, vlan, .. } = spec;
        let own = self.config.locators;
        let role = match own.is_empty() {
            true => {
                PortRole::Uplink { mac, v4, v6, link_v4: None, link_v6: None, v6_link_local, exception, vlan }
            }
            // The loopback's are reached by every uplink; its own are no locators.
            false => {
                let (link_v4, link_v6) = (v4, v6);
                PortRole::Uplink {
                    mac,
                    v4: own.v4,
                    v6: own.v6,
                    link_v4,
                    link_v6,
                    v6_link_local,
                    exception,
                    vlan,
                }
            }
        };
        self.desired.set_port(port, role);
        self.underlay.set_uplink(self.now, port, spec);
        self.locators_changed(out);
    }

    /// Other locators lead to other tunnels, and the NVA tells them to others.
    fn locators_changed(&mut self, out: &mut Outputs) {
        self.follow_underlay(out);
        self.sync_all(out);
        self.hello(out);
    }

    /// Another VM behind an access port, besides the one that the port was made for.
    pub(super) fn vm_behind_port(&mut self, port: PortIdx, mac: Mac, ips: &[IpAddr], out: &mut Outputs) {
        let Some(PortKind::Access(host)) = self.ports.get(&port).map(|p| p.kind) else {
            return out.note(Level::Warn, format!("port {} is no access port: {mac} ignored", port.0));
        };
        let key = VmKey { mac, ..host };
        self.behind.insert(key, port);
        let here = Location { nve: self.config.nve.clone(), locators: self.locators() };
        self.mirror.set_static(static_record(key, here, ips, false));
        self.sync_vm(key, out);
        match self.desired.bindings(port).map(|b| b.macs.len()) {
            Some(MAX_MACS) => out.note(
                Level::Debug,
                format!(
                    "port {}: {mac} is reached behind it; it sends by the slower way, as all beyond \
                    {MAX_MACS}",
                    port.0
                ),
            ),
            _ => self.sync_bindings(host),
        }
    }

    fn forget_behind(&mut self, port: PortIdx, out: &mut Outputs) {
        let gone: Vec<VmKey> = self.behind.iter().filter(|(_, p)| **p == port).map(|(k, _)| *k).collect();
        for key in gone {
            self.behind.remove(&key);
            let ips: Vec<IpAddr> = self
                .mirror
                .forget_static(key)
                .into_iter()
                .flat_map(|r| r.ips().collect::<Vec<_>>())
                .collect();
            self.sync_vm(key, out);
            for ip in ips {
                self.sync_ip(key.vni, ip);
            }
        }
    }

    pub(super) fn port_removed(&mut self, port: PortIdx, out: &mut Outputs) {
        let Some(kind) = self.ports.get(&port).map(|p| p.kind) else { return };
        // First the VMs, then the port, then the VN: nothing names what is not there.
        self.forget_behind(port, out);
        if let PortKind::Access(key) = kind {
            self.port_wants_no_groups(key.vni, port, out);
        }
        match kind {
            PortKind::Access(key) => self.with_known_vm(key, out, |vm, cx| vm.port_removed(port, cx)),
            PortKind::Uplink => {
                self.underlay.remove_uplink(self.now, port);
                self.locators_changed(out);
            }
            PortKind::Exception => {}
        }
        self.desired.remove_port(port);
        self.refusals.forget(port);
        self.forget_services(port);
        self.ports.remove(&port);
        if let PortKind::Access(key) = kind {
            self.drop_vn_if_unneeded(key.vni, out);
        }
    }

    pub(super) fn port_link(&mut self, port: PortIdx, up: bool, out: &mut Outputs) {
        let Some(p) = self.ports.get_mut(&port) else { return };
        p.link_up = up;
        match p.kind {
            PortKind::Access(key) => self.with_known_vm(key, out, |vm, cx| vm.link(port, up, cx)),
            PortKind::Uplink => {
                self.underlay.link(self.now, port, up);
            }
            PortKind::Exception => {}
        }
    }

    /// Whether the VM behind `port` may be paused for the planned move `id` (R45): a pause for a move
    /// that this NVE never heard of would hold the VM's packets until `intent_timeout`.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn may_pause(&self, port: PortIdx, id: &MoveId) -> Result<(), ManagerRefusal> {
        let key = self.vm_of_port(port, "nothing to pause")?;
        let id = id.clone();
        match self.vms.get(&key).and_then(|vm| vm.intent.as_ref()) {
            Some(i) if i.id == id && !i.is_target() => Ok(()),
            Some(i) if i.id == id => Err(ManagerRefusal::Target { id, key, from: i.from.nve.clone() }),
            Some(i) => Err(ManagerRefusal::OtherMove { key, here: i.id.clone(), id }),
            None => Err(ManagerRefusal::UnknownMove { id, key }),
        }
    }

    /// Whether the VM manager may say `state` of the VM behind `port` after what it said before (R16).
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn may_say(&self, port: PortIdx, state: OperState) -> Result<(), ManagerRefusal> {
        let key = self.vm_of_port(port, "there is no VM behind it")?;
        let refused = self.vms.get(&key).and_then(|vm| vm.refuses_state(port, state));
        refused.map_or(Ok(()), |r| Err(r.into()))
    }

    /// The VM of an access port; `lack` is what another port does not have.
    fn vm_of_port(&self, port: PortIdx, lack: &'static str) -> Result<VmKey, ManagerRefusal> {
        match self.ports.get(&port) {
            None => Err(ManagerRefusal::NoPort(port)),
            Some(Port { kind: PortKind::Access(key), .. }) => Ok(*key),
            Some(p) => Err(ManagerRefusal::NoAccessPort { port: p.name.clone(), lack }),
        }
    }

    /// Hands something to the VM behind an access port.
    pub(super) fn access_port(
        &mut self,
        port: PortIdx,
        what: &str,
        out: &mut Outputs,
        f: impl FnOnce(&mut Vm, &mut Ctx<'_>),
    ) {
        match self.ports.get(&port).map(|p| p.kind) {
            Some(PortKind::Access(key)) => self.with_known_vm(key, out, f),
            _ => out.note(Level::Warn, format!("port {} is no access port: nothing to {what}", port.0)),
        }
    }
}
