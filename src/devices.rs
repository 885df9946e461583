//! The devices of a running switch: by number and by name, and which of them are on their way in or out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use godwit_dpdk::{Port, VhostSocket};
use godwit_tables::update::{MAX_PORTS, PortIdx};
use godwit_wire::Mac;
use godwit_worker::offloads::{SharedReceiveOffloads, SharedUse};

use crate::bonds::Legs;
use crate::kernel;
use crate::opening::Wanted;
use crate::placement::{Queue, QueueId};
use crate::presence::Presence;
use crate::watched::Watched;

/// A device that serves a port.
pub struct Device {
    /// Its name.
    pub name: String,
    /// What was asked of DPDK.
    pub devargs: String,
    /// Its number.
    pub number: PortIdx,
    /// A VM is behind it.
    pub is_access: bool,
    /// Its VM's memory may be missing for a while.
    pub postcopy: bool,
    /// Receive queues with the workers that poll them.
    pub polled_by: Vec<(u16, usize)>,
    /// For each worker the one that sends to the device for it: itself, or the owner of its relay.
    pub sent_by: Vec<usize>,
    /// The device's own address.
    pub mac: Mac,
    /// Largest IP packet.
    pub mtu: u16,
    /// For each transmit queue of a guest's port but the first: the guest receives by it.
    pub in_use: Vec<SharedUse>,
    /// Receiver offload capabilities of the guest behind it, or of the uplink's card; `None` where there is neither.
    pub receive_offloads: Option<SharedReceiveOffloads>,
    /// What the card computes, for the operator; empty where nothing was asked of it.
    pub offloads: String,
    /// The device itself; `None` while it is gone.
    pub port: Option<Port>,
    /// What it was opened by, and is opened by again.
    pub wanted: Wanted,
    /// What it rests on.
    pub watched: Watched,
    /// Whether it is there.
    pub presence: Presence,
    /// A bond's legs; `None` for other devices.
    pub legs: Option<Legs>,
    /// The link as last seen.
    pub link_up: bool,
    /// The device's word on its link counts. That of a tap doesn't: its driver looks the interface up
    /// by name in the switch's own network namespace, and finds it gone once it was given to a guest's.
    pub link_counts: bool,
    /// The kernel's interface behind a device whose driver says nothing of the link.
    pub kernel_link: Option<String>,
}

impl Device {
    /// The link as it is now: by the driver's word, and by the kernel's where the driver has none. A bond whose partner
    /// takes nothing has none.
    pub fn look_at_link(&mut self) -> bool {
        let Some(port) = &self.port else { return false };
        if let Some(legs) = &mut self.legs {
            legs.follow(port, Instant::now());
            return legs.up();
        }
        let carrier = self.kernel_link.as_deref().and_then(|name| kernel::carrier(Path::new("/sys"), name));
        port.link().up && carrier != Some(false)
    }

    /// Notes which queues the guest receives by; none while there is no guest.
    pub fn follow_guest(&self, present: bool) {
        if self.in_use.is_empty() {
            return;
        }
        for (queue, used) in self.port.iter().flat_map(Port::guest_queue_changes) {
            if let Some(shared) = usize::from(queue).checked_sub(1).and_then(|at| self.in_use.get(at)) {
                shared.set(used);
                tracing::debug!(port = %self.name, queue, used, "the guest changed its queues");
            }
        }
        if !present {
            self.in_use.iter().for_each(|shared| shared.set(false));
        }
    }
}

/// All devices by number.
#[derive(Default)]
pub struct Devices {
    pub(crate) map: BTreeMap<PortIdx, Device>,
    /// Names that are being added or removed, with the arguments of their devices.
    busy: Vec<(String, String)>,
    /// A receive queue is on its way between workers.
    handing_over: bool,
}

impl Devices {
    /// The device of that name.
    pub fn by_name(&self, name: &str) -> Option<&Device> {
        self.map.values().find(|d| d.name == name)
    }

    /// All, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.map.values()
    }

    /// All, by number, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        self.map.values_mut()
    }

    /// The device with that number.
    pub fn get(&self, number: PortIdx) -> Option<&Device> {
        self.map.get(&number)
    }

    pub(crate) fn free_number(&self) -> Option<PortIdx> {
        (0..MAX_PORTS as u16).map(PortIdx).find(|n| !self.map.contains_key(n))
    }

    /// All receive queues with the workers that poll them.
    pub fn queues(&self) -> Vec<Queue> {
        let queues = |d: &Device| {
            let queue = |&(queue, w)| {
                let queue = queue_of(d.number, &d.name, d.port.as_ref()?, queue, d.postcopy);
                Some(Queue { at: Some(w), ..queue })
            };
            d.polled_by.iter().filter_map(queue).collect::<Vec<_>>()
        };
        self.map.values().flat_map(queues).collect()
    }

    /// Claims a name and its device for a change that takes several steps.
    ///
    /// # Errors
    /// Another change of that port is under way.
    pub fn begin(&mut self, name: &str, devargs: &str) -> anyhow::Result<()> {
        if self.busy.iter().any(|(busy, _)| busy == name) {
            bail!("port {name:?} is being added or removed right now; try again");
        }
        self.busy.push((name.to_owned(), devargs.to_owned()));
        Ok(())
    }

    /// Gives it free.
    pub fn end(&mut self, name: &str) {
        self.busy.retain(|(busy, _)| busy != name);
    }

    /// Refuses a device that another port has, or whose socket another port has, be it on its way in or out.
    ///
    /// # Errors
    /// The port that has it, or a socket's path that cannot be read.
    pub(crate) fn refuse_taken(&self, devargs: &str) -> anyhow::Result<()> {
        let device = |devargs: &str| devargs.split(',').next().map(|d| d.trim().to_owned());
        let canonical = |devargs: &str| VhostSocket::parse(devargs).ok().flatten().map(|s| s.canonical());
        let (wanted, socket) = (device(devargs), VhostSocket::parse(devargs)?);
        let there = self.map.values().map(|d| (&d.name, &d.devargs));
        for (name, taken) in there.chain(self.busy.iter().map(|(name, devargs)| (name, devargs))) {
            if device(taken) == wanted {
                let wanted = wanted.unwrap_or_default();
                bail!("{wanted} serves port {name:?} already; name another device");
            }
            if let Some(socket) = socket.as_ref().filter(|s| canonical(taken) == Some(s.canonical())) {
                let socket = socket.shown();
                bail!("{socket} is the socket of port {name:?}; name another path");
            }
        }
        Ok(())
    }

    /// Claims the way between workers, which one queue takes at a time.
    ///
    /// # Errors
    /// Another queue is on its way.
    pub fn begin_handover(&mut self) -> anyhow::Result<()> {
        if self.handing_over {
            bail!("another receive queue is changing workers right now; try again");
        }
        self.handing_over = true;
        Ok(())
    }

    /// Gives it free.
    pub fn end_handover(&mut self) {
        self.handing_over = false;
    }
}

/// A receive queue that nobody polls yet.
pub(crate) fn queue_of(number: PortIdx, name: &str, port: &Port, queue: u16, postcopy: bool) -> Queue {
    let id = QueueId { port: number, queue };
    let node = port.numa_node().and_then(|n| n.try_into().ok());
    Queue { id, name: name.to_owned(), node, load: None, at: None, postcopy }
}

/// Whether devargs begin with a PCI address, `0000:03:00.0` or `03:00.0`.
pub fn is_pci(devargs: &str) -> bool {
    let address = devargs.split(',').next().unwrap_or_default();
    address.contains(':') && address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
}
