//! What a port says of itself while it lives: link, addresses, counters, abilities.

use godwit_packet::ReceiveOffloads;

use crate::config::DevInfo;
use crate::device::Device;
use crate::error::{Result, Said};
use crate::link::{self, Link, LinkEvent, Watch};
use crate::log;
use crate::port::Port;

/// `VIRTIO_NET_F_GUEST_CSUM`, `_GUEST_TSO4` and `_GUEST_TSO6` (virtio 1.1, section 5.1.3).
const GUEST_CSUM: u32 = 1;
const GUEST_TSO4: u32 = 7;
const GUEST_TSO6: u32 = 8;

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
    /// one. It runs on DPDK's interrupt thread or a driver's: it must not block, nor call this crate; let
    /// it put the event on a bounded queue. Where [`DevInfo::link_events`] is `false`, poll
    /// [`Port::link`] instead.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where DPDK has no memory for it.
    pub fn set_link_callback(&self, callback: impl Fn(LinkEvent) + Send + Sync + 'static) -> Result<()> {
        let mut control = self.0.control();
        control.watch = None;
        let watch = Watch::new(self.0.id, Box::new(callback));
        control.watch =
            Some(watch.map_err(|errno| self.0.failed("watching the link", errno, Said::default()))?);
        Ok(())
    }

    /// The link as it is now, without waiting for it to settle; down where the device is gone.
    pub fn link(&self) -> Link {
        let _control = self.0.control();
        link::read(self.0.id).unwrap_or_default()
    }

    /// Turns the link on or off at this end.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver cannot.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let _control = self.0.control();
        let id = self.0.id;
        // SAFETY: the port exists and the lock keeps other control calls away.
        self.0.check("setting the link", || unsafe {
            if up { dpdk_sys::rte_eth_dev_set_link_up(id) } else { dpdk_sys::rte_eth_dev_set_link_down(id) }
        })
    }

    /// The port's own address.
    pub fn mac(&self) -> [u8; 6] {
        self.0.control().mac
    }

    /// Gives the port another address.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver cannot or the address is no unicast one.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        let mut control = self.0.control();
        // SAFETY: the port exists; `mac` has the six bytes that are read.
        self.0.check("setting the MAC address", || unsafe {
            dpdk_sys::godwit_port_set_mac(self.0.id, mac.as_ptr())
        })?;
        control.mac = mac;
        Ok(())
    }

    /// The largest IP packet in bytes.
    pub fn mtu(&self) -> u16 {
        self.0.control().mtu
    }

    /// Changes the MTU; some drivers want the port stopped for it.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver refuses.
    pub fn set_mtu(&self, mtu: u16) -> Result<()> {
        let mut control = self.0.control();
        // SAFETY: the port exists and the lock keeps other control calls away.
        self.0.check("setting the MTU", || unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.0.id, mtu) })?;
        control.mtu = mtu;
        Ok(())
    }

    /// Receiver offload capabilities of the guest on a `net_vhost` port, as it agreed with the driver: none while
    /// there is no guest, and for other ports. They change with the guest.
    pub fn guest_receive_offloads(&self) -> ReceiveOffloads {
        let _control = self.0.control();
        let mut features = 0;
        // SAFETY: `features` is writable; any port number may be asked for.
        let (rc, _) = log::capture(|| unsafe { dpdk_sys::godwit_vhost_features(self.0.id, &mut features) });
        let has = |bit: u32| rc == 0 && features >> bit & 1 != 0;
        ReceiveOffloads { checksum: has(GUEST_CSUM), tcp4: has(GUEST_TSO4), tcp6: has(GUEST_TSO6) }
    }

    /// The guest on a `net_vhost` port put queues that it receives by into use, or out of it: their numbers, and
    /// which. Each change is said once; when the guest leaves, all are out of use without a word.
    pub fn guest_queue_changes(&self) -> Vec<(u16, bool)> {
        let _control = self.0.control();
        let mut changes = Vec::new();
        let mut event = dpdk_sys::godwit_queue_event::default();
        // SAFETY: `event` is writable; any port number may be asked for.
        let mut next =
            || unsafe { dpdk_sys::godwit_vhost_queue_event(self.0.id, &mut event) == 0 }.then_some(event);
        while let Some(event) = next() {
            if event.rx == 0 {
                changes.push((event.queue, event.enabled != 0));
            }
        }
        changes
    }

    /// The device's counters.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver fails.
    pub fn stats(&self) -> Result<Stats> {
        let _control = self.0.control();
        stats_of(&self.0)
    }

    /// What the device can do.
    ///
    /// # Errors
    /// [`crate::Error::Port`] where the driver fails.
    pub fn dev_info(&self) -> Result<DevInfo> {
        let _control = self.0.control();
        self.0.read_info()
    }

    /// The driver's name, such as `net_tap`.
    pub fn driver_name(&self) -> &str {
        &self.0.driver
    }

    /// The NUMA node the device is on; `None` where it has none, as virtual ones.
    pub fn numa_node(&self) -> Option<i32> {
        // SAFETY: reads a field; DPDK answers with -1 where there is no such port.
        let node = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.0.id) };
        (node >= 0).then_some(node)
    }

    /// DPDK's number for the port, unique among those present; received buffers carry it.
    pub fn id(&self) -> u16 {
        self.0.id
    }

    /// DPDK's name for the port, such as `net_tap0` or a PCI address.
    pub fn name(&self) -> &str {
        &self.0.name
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
