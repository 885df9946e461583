//! Ports come and go, lose and find their link.

use godwit_model::VmKey;
use godwit_tables::update::{Admission, MAX_PORTS, PortIdx, PortRole};

use crate::io::{Level, Outputs, PortSpec, UplinkSpec};
use crate::mobility::{Ctx, Vm};

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
            PortSpec::Exception { uplink } => self.router.set_port(port, PortRole::Exception { uplink }),
        }
    }

    fn access_added(&mut self, port: PortIdx, name: String, key: VmKey, explicit: bool, out: &mut Outputs) {
        if !key.mac.is_unicast() {
            self.ports.remove(&port);
            return self.alarm(format!("port {name}: {} is no VM's address: ignored", key.mac), out);
        }
        self.ensure_vn(key.vni, out);
        let Some(vn) = self.router.vn(key.vni) else { return };
        // Before anything names it.
        let admission = Admission::Closed;
        self.router.set_port(port, PortRole::Access { vn, mac: key.mac, admission });
        self.mirror.clear_absent(key);
        self.with_vm(key, out, |vm, cx| vm.port_added(port, name, explicit, cx));
    }

    fn uplink_added(&mut self, port: PortIdx, spec: UplinkSpec, out: &mut Outputs) {
        let (v4, v6) = (spec.v4.map(|n| n.addr), spec.v6.map(|n| n.addr));
        let (v6_link_local, exception) = (spec.v6_link_local, spec.exception);
        self.router.set_port(port, PortRole::Uplink { mac: spec.mac, v4, v6, v6_link_local, exception });
        self.underlay.set_uplink(self.now, port, spec);
        self.locators_changed(out);
    }

    /// Other locators lead to other tunnels, and the NVA tells them to others.
    fn locators_changed(&mut self, out: &mut Outputs) {
        self.follow_underlay(out);
        self.sync_all(out);
        self.hello(out);
    }

    pub(super) fn port_removed(&mut self, port: PortIdx, out: &mut Outputs) {
        let Some(kind) = self.ports.get(&port).map(|p| p.kind) else { return };
        // First the VM, then the port, then the VN: nothing names what is not there.
        match kind {
            PortKind::Access(key) => self.with_known_vm(key, out, |vm, cx| vm.port_removed(port, cx)),
            PortKind::Uplink => {
                self.underlay.remove_uplink(self.now, port);
                self.locators_changed(out);
            }
            PortKind::Exception => {}
        }
        self.router.remove_port(port);
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
