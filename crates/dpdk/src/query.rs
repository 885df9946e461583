//! What a port says of itself while it lives: link, addresses, counters, abilities.

use godwit_packet::ReceiveOffloads;

use crate::config::DevInfo;
use crate::device::Device;
use crate::error::Result;
use crate::link::{Link, LinkEvent};
use crate::port::{Kind, NO_PORT_ID, Port, each};
use crate::vhost;

/// Frames and bytes since the port's start or the last reset, as its driver counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames the device dropped because its queues were full.
    pub rx_missed: u64,
    /// Frames received with an error.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames lost because the pool was empty.
    pub rx_no_mbuf: u64,
}

impl Port {
    /// Has `callback` called at changes of the link and at the loss of the device; it replaces an earlier
    /// one. It runs on DPDK's interrupt thread, a driver's or librte_vhost's: it must not block, nor call this crate;
    /// let it put the event on a bounded queue. A guest's port reports changes of the queues that its guest uses as
    /// well. Where [`DevInfo::link_events`] is `false`, poll [`Port::link`] instead.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where DPDK has no memory for it.
    pub fn set_link_callback(&self, callback: impl Fn(LinkEvent) + Send + Sync + 'static) -> Result<()> {
        match &self.0 {
            Kind::Eth(port) => port.watch(callback),
            Kind::Vhost(port) => {
                port.watch(callback);
                Ok(())
            }
        }
    }

    /// The link as it is now, without waiting for it to settle; down where the device is gone. Of a guest's port:
    /// whether the guest is there.
    pub fn link(&self) -> Link {
        each!(self, port => port.link())
    }

    /// Turns the link on or off at this end.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver cannot.
    pub fn set_link(&self, up: bool) -> Result<()> {
        match &self.0 {
            Kind::Eth(port) => port.set_link(up),
            Kind::Vhost(port) => port.set_link(),
        }
    }

    /// The port's own address.
    pub fn mac(&self) -> [u8; 6] {
        each!(self, port => port.mac())
    }

    /// Gives the port another address.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver cannot or the address is no unicast one.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        each!(self, port => port.set_mac(mac))
    }

    /// The largest IP packet in bytes.
    pub fn mtu(&self) -> u16 {
        each!(self, port => port.mtu())
    }

    /// Changes the MTU; some drivers want the port stopped for it.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver refuses.
    pub fn set_mtu(&self, mtu: u16) -> Result<()> {
        each!(self, port => port.set_mtu(mtu))
    }

    /// Receiver offload capabilities of the guest on a vhost-user port, as it agreed to them: none while
    /// there is no guest, and for other ports. They change with the guest.
    pub fn guest_receive_offloads(&self) -> ReceiveOffloads {
        match &self.0 {
            Kind::Eth(_) => ReceiveOffloads::NOTHING,
            Kind::Vhost(port) => port.receive_offloads(),
        }
    }

    /// The guest on a vhost-user port put queues that it receives by into use, or out of it: their numbers, and
    /// which. Each change is said once; when the guest leaves, all are out of use without a word.
    pub fn guest_queue_changes(&self) -> Vec<(u16, bool)> {
        match &self.0 {
            Kind::Eth(_) => Vec::new(),
            Kind::Vhost(port) => port.queue_changes(),
        }
    }

    /// The device's counters; of a guest's port the sums over its rings, since it was made.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver fails.
    pub fn stats(&self) -> Result<Stats> {
        match &self.0 {
            Kind::Eth(port) => port.stats(),
            Kind::Vhost(port) => Ok(port.stats()),
        }
    }

    /// What the device can do.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver fails.
    pub fn dev_info(&self) -> Result<DevInfo> {
        match &self.0 {
            Kind::Eth(port) => port.dev_info(),
            Kind::Vhost(port) => Ok(port.dev_info()),
        }
    }

    /// The driver's name, such as `net_tap`; `vhost` for a vhost-user port.
    pub fn driver_name(&self) -> &str {
        match &self.0 {
            Kind::Eth(port) => &port.0.driver,
            Kind::Vhost(_) => vhost::DRIVER,
        }
    }

    /// A guest is behind it, on a vhost-user socket.
    pub fn is_vhost(&self) -> bool {
        matches!(self.0, Kind::Vhost(_))
    }

    /// The NUMA node the device is on; `None` where it has none, as virtual ones.
    pub fn numa_node(&self) -> Option<i32> {
        match &self.0 {
            Kind::Eth(port) => port.numa_node(),
            Kind::Vhost(_) => None,
        }
    }

    /// DPDK's number for the port, unique among those present; received buffers carry it. [`NO_PORT_ID`] for a
    /// vhost-user port, which is none of DPDK's devices.
    pub fn id(&self) -> u16 {
        match &self.0 {
            Kind::Eth(port) => port.0.id,
            Kind::Vhost(_) => NO_PORT_ID,
        }
    }

    /// The port's name, such as `net_tap0` or a PCI address.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Eth(port) => &port.0.name,
            Kind::Vhost(port) => port.name(),
        }
    }
}

/// A device's counters. Its lock, or that of the bond that it is in, is held.
pub(crate) fn stats_of(device: &Device) -> Result<Stats> {
    let mut s = dpdk_sys::godwit_stats::default();
    // SAFETY: the port exists; `s` is writable.
    device.check("reading the counters", || unsafe { dpdk_sys::godwit_port_stats(device.id, &mut s) })?;
    Ok(Stats {
        rx_packets: s.rx_packets,
        tx_packets: s.tx_packets,
        rx_bytes: s.rx_bytes,
        tx_bytes: s.tx_bytes,
        rx_missed: s.rx_missed,
        rx_errors: s.rx_errors,
        tx_errors: s.tx_errors,
        rx_no_mbuf: s.rx_no_mbuf,
    })
}
