//! Guests of QEMU in a lab: on vhost-user ports of its switches.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use serde::{Deserialize, Serialize};

use super::topology::{GUEST, GUEST_MTU};
use super::vm::VmSpec;
use super::{Lab, topology};
use crate::agent::client::Agent;
use crate::agent::proto::Announcement;
use crate::guest::Guest;
use crate::guest::qemu::{GuestSpec, Nic};

/// A vhost-user port of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostPort {
    /// The switch.
    pub nve: String,
    /// The port's name there.
    pub port: String,
    /// Its socket, where QEMU connects.
    pub socket: PathBuf,
}

/// A guest's VM, and the port that it is on.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Who it is.
    pub spec: VmSpec,
    /// Where it is.
    pub port: VhostPort,
}

impl Lab {
    /// Adds a vhost-user port with so many queue pairs for a VM at a switch. With `postcopy` the VM's memory may be
    /// missing for a while.
    ///
    /// # Errors
    /// Where the switch refuses.
    pub fn plug_vhost(&mut self, spec: &VmSpec, nve: &str, queues: u16, postcopy: bool) -> Result<VhostPort> {
        let postcopy_support = if postcopy { ",postcopy-support=1" } else { "" };
        let extra = format!(",queues={queues}{postcopy_support}");
        self.add_vhost(
            spec,
            nve,
            &extra,
            v1::AddPort { rx_queues: queues.into(), postcopy, ..Default::default() },
        )
    }

    /// Adds a vhost-user port with one queue pair, which only the operator's word activates where `explicit` says so.
    ///
    /// # Errors
    /// Where the switch refuses.
    pub fn plug_vhost_for(&mut self, spec: &VmSpec, nve: &str, explicit: bool) -> Result<VhostPort> {
        self.add_vhost(spec, nve, "", v1::AddPort { explicit_activation: explicit, ..Default::default() })
    }

    fn add_vhost(&mut self, spec: &VmSpec, nve: &str, extra: &str, what: v1::AddPort) -> Result<VhostPort> {
        self.taps += 1;
        let number = self.taps;
        let port = format!("{}-{number}", spec.name);
        let socket = self.dir.join(format!("{port}.vhost"));
        self.nve(nve)?.admin.ask(Ask::AddPort(v1::AddPort {
            name: port.clone(),
            devargs: format!("net_vhost{number},iface={}{extra}", socket.display()),
            vni: spec.vn.vni,
            mac: spec.mac.to_u64(),
            ..what
        }))?;
        Ok(VhostPort { nve: nve.into(), port, socket })
    }

    /// Removes a vhost-user port.
    ///
    /// # Errors
    /// Where the switch refuses.
    pub fn unplug_vhost(&self, port: &VhostPort) -> Result<()> {
        let name = port.port.clone();
        self.nve(&port.nve)?.admin.ask(Ask::RemovePort(v1::RemovePort { name })).map(drop)
    }

    /// Defines a VM at the NVA and starts it as a guest of QEMU at a switch: `machine` with one more card
    /// that is the VM's, with so many queue pairs. Waits until the directory has it there.
    ///
    /// # Errors
    /// Where any step fails.
    pub fn start_guest(
        &mut self,
        spec: &VmSpec,
        machine: GuestSpec,
        nve: &str,
        queues: u16,
    ) -> Result<VhostPort> {
        let ips = spec.ips.clone();
        self.start_guest_by(spec, machine, nve, queues, |guest, card| guest.configure(card, GUEST_MTU, &ips))
    }

    /// The same for a guest that gets its addresses as `configure` has it, which is given its card's name.
    ///
    /// # Errors
    /// Where any step fails.
    pub fn start_guest_by(
        &mut self,
        spec: &VmSpec,
        mut machine: GuestSpec,
        nve: &str,
        queues: u16,
        configure: impl FnOnce(&mut Guest, &str) -> Result<()>,
    ) -> Result<VhostPort> {
        self.define_vm(spec, "")?;
        let namespace = self.namespace(&spec.name);
        topology::add_namespace(&namespace)?;
        let port = self.plug_vhost(spec, nve, queues, false)?;
        machine.name = spec.name.clone();
        machine.nics.push(Nic { queues, ..Nic::new(&port.socket, spec.mac) });
        let interface = format!("eth{}", machine.nics.len() - 1);
        // In a namespace of the lab, so that it ends with it whatever happens.
        let mut guest = Guest::start(machine, &self.dir, Some(&namespace))?;
        configure(&mut guest, &interface)?;
        self.guests.insert(spec.name.clone(), guest);
        self.placed.insert(spec.name.clone(), Placed { spec: spec.clone(), port: port.clone() });
        let what = Announcement { interface, ..announcement(spec) };
        self.wait_located(&spec.name, nve, |lab| lab.guest(&spec.name)?.agent.announce(what.clone()))?;
        Ok(port)
    }

    /// Where a guest is.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn placed(&self, name: &str) -> Result<&Placed> {
        self.placed.get(name).with_context(|| format!("the lab has no guest {name}"))
    }

    /// The switch that a VM is attached to, whatever it is made of.
    ///
    /// # Errors
    /// Where there is no such VM, or it is attached nowhere.
    pub fn place_of(&mut self, name: &str) -> Result<String> {
        if let Some(guest) = self.placed.get(name) {
            return Ok(guest.port.nve.clone());
        }
        let attached = self.vm(name)?.attached.as_ref();
        Ok(attached.with_context(|| format!("VM {name} is attached nowhere"))?.nve.clone())
    }

    /// A VM's address of a family, with port 0, whatever it is made of.
    ///
    /// # Errors
    /// Where there is no such VM.
    pub fn address_of(&mut self, name: &str, v6: bool) -> Result<SocketAddr> {
        match self.placed.get(name) {
            Some(guest) => Ok(guest.spec.address(v6, 0)),
            None => Ok(self.vm(name)?.spec.address(v6, 0)),
        }
    }

    /// The agents of two VMs at once, whatever they are made of.
    ///
    /// # Errors
    /// Where one is missing or the function fails.
    pub fn with_agents<T>(
        &mut self,
        (a, b): (&str, &str),
        work: impl FnOnce(&mut Agent, &mut Agent) -> Result<T>,
    ) -> Result<T> {
        let vms = self.vms.iter_mut().map(|(name, vm)| (name, &mut vm.agent));
        let guests = self.guests.iter_mut().map(|(name, guest)| (name, &mut guest.agent));
        let (mut first, mut second) = (None, None);
        for (name, agent) in vms.chain(guests) {
            if name == a {
                first = Some(agent);
            } else if name == b {
                second = Some(agent);
            }
        }
        let first = first.with_context(|| format!("the lab has no VM {a}"))?;
        let second = second.with_context(|| format!("the lab has no VM {b}"))?;
        work(first, second)
    }

    /// A guest by name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn guest(&mut self, name: &str) -> Result<&mut Guest> {
        self.guests.get_mut(name).with_context(|| format!("the lab has no guest {name}"))
    }
}

/// What a guest says of itself on `eth0`.
fn announcement(spec: &VmSpec) -> Announcement {
    Announcement { interface: GUEST.into(), mac: spec.mac.to_string(), ips: spec.ips.clone(), rarp: false }
}
