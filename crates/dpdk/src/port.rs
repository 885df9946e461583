//! Ethernet ports: plugging in, set-up, running, unplugging.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bond_driver;
use crate::config::{self, ConfigReport, PortConfig};
use crate::device::{Device, Lease, State};
use crate::error::{Errno, Result};
use crate::log;
use crate::queue::{RxQueue, TxQueue};

/// An Ethernet port and the right to control it.
///
/// The packet path is in the [`RxQueue`]s and [`TxQueue`]s that [`Port::start`] gives. Dropping the port
/// stops and unplugs the device as soon as its last queue handle is gone; [`Port::close`] does it at
/// once and says where it cannot.
pub struct Port(pub(crate) Arc<Device>);

impl Port {
    /// Plugs a device in, or takes one over that EAL plugged in when it started.
    ///
    /// `devargs` is a PCI address or a virtual device's name, with arguments: `0000:03:00.0`,
    /// `net_tap0,iface=tap7`, `net_pcap0,rx_pcap=in.pcap`. A device that is there already keeps the
    /// arguments it has. Of a device with several ports the first free one is taken. Takes milliseconds.
    ///
    /// # Errors
    /// [`crate::Error::EalNotRunning`]; [`crate::Error::PortClaimed`] where another `Port` owns the device;
    /// [`crate::Error::Probe`] where DPDK cannot plug it in; [`crate::Error::NoPort`] where it is no
    /// network device.
    pub fn probe(devargs: &str) -> Result<Self> {
        Device::plug(devargs).map(Self)
    }

    /// Sets queues, buffers and offloads up, fitted to what the device can do. The report tells what it
    /// got. For a port that is not started.
    ///
    /// # Errors
    /// [`crate::Error::PortState`] while it runs; [`crate::Error::Port`] where the driver refuses.
    pub fn configure(&mut self, asked: PortConfig) -> Result<ConfigReport> {
        let device = &*self.0;
        let mut control = device
            .control_if("configure", |state| matches!(state, State::Plugged | State::Configured { .. }))?;
        let info = device.read_info()?;
        let copies =
            config::copies(&info.driver) || control.members.iter().any(|m| config::copies(&m.driver));
        let allowance = config::tag_allowance(&info, &asked, copies);
        let (conf, mut report) = config::plan(&info, &asked, allowance, asked.mempool.data_room());
        control.state = State::Plugged;
        // SAFETY: the port exists, is stopped and not controlled by anyone else; `conf` is readable.
        device.check("configuring", || unsafe { dpdk_sys::godwit_port_configure(device.id, &conf) })?;
        self.set_up_queues(&asked, &mut report)?;
        if report.guest_offloads {
            self.withhold_ufo();
        }
        if asked.promiscuous {
            // SAFETY: the port exists and this thread controls it.
            let (rc, _) = log::capture(|| unsafe { dpdk_sys::rte_eth_promiscuous_enable(device.id) });
            report.promiscuous = rc == 0;
            if rc != 0 {
                report.notes.push(format!("{} has no promiscuous mode: {}", info.driver, Errno::from_rc(rc)));
            }
        }
        device.read_addresses(&mut control)?;
        control.mtu -= allowance;
        report.mtu = control.mtu;
        control.state = State::Configured { rx: report.rx_queues, tx: report.tx_queues };
        Ok(report)
    }

    /// Guests are not to leave UDP datagrams for us to fragment. One that connected before this is too
    /// early to be told; what it leaves is refused frame by frame.
    fn withhold_ufo(&self) {
        let socket = self.0.devargs.split(',').find_map(|arg| arg.strip_prefix("iface="));
        let Some(socket) = socket.and_then(|s| CString::new(s).ok()) else { return };
        // SAFETY: the text is terminated; DPDK looks the socket up and answers with an error if it has none.
        let (rc, said) = log::capture(|| unsafe { dpdk_sys::godwit_vhost_withhold_ufo(socket.as_ptr()) });
        if rc != 0 {
            tracing::debug!(port = %self.0.name, "UDP fragmentation stays on offer: {said:?}");
        }
    }

    fn set_up_queues(&self, asked: &PortConfig, report: &mut ConfigReport) -> Result<()> {
        let device = &*self.0;
        let id = device.id;
        (report.rx_desc, report.tx_desc) = (asked.rx_desc, asked.tx_desc);
        device.check("fitting the descriptors", || {
            // SAFETY: the port is configured; both numbers are writable.
            unsafe {
                dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &mut report.rx_desc, &mut report.tx_desc)
            }
        })?;
        for (what, asked, got) in
            [("receive", asked.rx_desc, report.rx_desc), ("transmit", asked.tx_desc, report.tx_desc)]
        {
            if asked != got {
                report.notes.push(format!("{asked} {what} descriptors asked for, the device takes {got}"));
            }
        }
        let socket = self.numa_node().unwrap_or(-1);
        for queue in 0..report.rx_queues {
            device.check("setting a receive queue up", || {
                // SAFETY: the port is configured with that queue; the pool lives as long as EAL.
                unsafe {
                    dpdk_sys::godwit_rx_queue_setup(id, queue, report.rx_desc, socket, asked.mempool.as_ptr())
                }
            })?;
        }
        for queue in 0..report.tx_queues {
            device.check("setting a transmit queue up", || {
                // SAFETY: the port is configured with that queue.
                unsafe { dpdk_sys::godwit_tx_queue_setup(id, queue, report.tx_desc, socket) }
            })?;
        }
        Ok(())
    }

    /// Starts the port and hands its queues out, each in the order of their numbers.
    ///
    /// # Errors
    /// [`crate::Error::PortState`] unless it is configured and stopped; [`crate::Error::Port`] where the
    /// driver fails.
    pub fn start(&mut self) -> Result<(Vec<RxQueue>, Vec<TxQueue>)> {
        let device = &*self.0;
        let mut control = device.control_if("start", |state| matches!(state, State::Configured { .. }))?;
        let State::Configured { rx, tx } = control.state else { unreachable!("the state was checked") };
        // SAFETY: the port is configured, stopped and not controlled by anyone else.
        device.check("starting", || unsafe { dpdk_sys::rte_eth_dev_start(device.id) })?;
        control.state = State::Started { rx, tx };
        bond_driver::started(device, &control.members, tx)?;
        let copies =
            config::copies(&device.driver) || control.members.iter().any(|m| config::copies(&m.driver));
        let lively = device.driver == bond_driver::DRIVER;
        // SAFETY: the port runs with these queues and does not stop while a lease is out; it was stopped,
        // so no earlier handles exist.
        unsafe {
            Ok((
                (0..rx).map(|queue| RxQueue::new(device.id, queue, copies, Lease::new(&self.0))).collect(),
                (0..tx).map(|queue| TxQueue::new(device.id, queue, lively, Lease::new(&self.0))).collect(),
            ))
        }
    }

    /// Stops the port. Frames in its queues are lost.
    ///
    /// # Errors
    /// [`crate::Error::QueuesOut`] while queue handles exist; [`crate::Error::PortState`] unless it is
    /// started; [`crate::Error::Port`] where the driver fails.
    pub fn stop(&mut self) -> Result<()> {
        let device = &*self.0;
        let mut control = device.control_if("stop", |state| matches!(state, State::Started { .. }))?;
        device.ensure_idle()?;
        let State::Started { rx, tx } = control.state else { unreachable!("the state was checked") };
        // SAFETY: the port runs, and no queue of it can be polled any more.
        device.check("stopping", || unsafe { dpdk_sys::rte_eth_dev_stop(device.id) })?;
        control.state = State::Configured { rx, tx };
        Ok(())
    }

    /// Stops the port where it runs, closes it and unplugs its device, which can then be plugged in anew.
    ///
    /// # Errors
    /// [`crate::Error::QueuesOut`] while queue handles exist: the device is unplugged when the last of
    /// them is dropped; [`crate::Error::Port`] where the driver fails.
    pub fn close(self) -> Result<()> {
        self.0.unplug()
    }

    /// Queue handles that exist.
    pub fn queues_out(&self) -> usize {
        self.0.queues_out()
    }

    /// Waits until the last queue handle is dropped, so that [`Port::stop`] or [`Port::close`] can follow.
    ///
    /// # Errors
    /// [`crate::Error::QueuesOut`] where that takes longer than `timeout`.
    pub fn wait_idle(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while self.queues_out() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.ensure_idle()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("id", &self.0.id).field("name", &self.0.name).finish_non_exhaustive()
    }
}
