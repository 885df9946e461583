//! Ports on DPDK's devices: plugging in, set-up, running, unplugging, and what such a port says of itself.

use std::sync::Arc;

use crate::bond_driver;
use crate::config::{self, ConfigReport, DevInfo, PortConfig};
use crate::device::{Device, State};
use crate::error::{Errno, Result, Said};
use crate::ethqueue::{EthRx, EthTx};
use crate::lease::{Lease, Leases, Lessor};
use crate::link::{self, Link, LinkEvent, Watch};
use crate::log;
use crate::query::{Stats, stats_of};

/// A device of DPDK's, and the right to control it.
pub(crate) struct EthPort(pub(crate) Arc<Device>);

impl EthPort {
    /// See [`crate::Port::probe`].
    pub(crate) fn plug(devargs: &str) -> Result<EthPort> {
        Device::plug(devargs).map(EthPort)
    }

    /// See [`crate::Port::configure`].
    pub(crate) fn configure(&self, asked: &PortConfig) -> Result<ConfigReport> {
        let device = &*self.0;
        let mut control = device
            .control_if("configure", |state| matches!(state, State::Plugged | State::Configured { .. }))?;
        let info = device.read_info()?;
        let copies =
            config::copies(&info.driver) || control.members.iter().any(|m| config::copies(&m.driver));
        let allowance = config::tag_allowance(&info, asked, copies);
        let (conf, mut report) = config::plan(&info, asked, allowance, asked.mempool.data_room());
        control.state = State::Plugged;
        // SAFETY: the port exists, is stopped and not controlled by anyone else; `conf` is readable.
        device.check("configuring", || unsafe { dpdk_sys::godwit_port_configure(device.id, &conf) })?;
        self.set_up_queues(asked, &mut report)?;
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

    /// See [`crate::Port::start`].
    pub(crate) fn start(&self) -> Result<(Vec<EthRx>, Vec<EthTx>)> {
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
                (0..rx).map(|queue| EthRx::new(device.id, queue, copies, Lease::new(&self.0))).collect(),
                (0..tx).map(|queue| EthTx::new(device.id, queue, lively, Lease::new(&self.0))).collect(),
            ))
        }
    }

    /// See [`crate::Port::stop`].
    pub(crate) fn stop(&self) -> Result<()> {
        let device = &*self.0;
        let mut control = device.control_if("stop", |state| matches!(state, State::Started { .. }))?;
        device.ensure_idle()?;
        let State::Started { rx, tx } = control.state else { unreachable!("the state was checked") };
        // SAFETY: the port runs, and no queue of it can be polled any more.
        device.check("stopping", || unsafe { dpdk_sys::rte_eth_dev_stop(device.id) })?;
        control.state = State::Configured { rx, tx };
        Ok(())
    }

    /// See [`crate::Port::close`].
    pub(crate) fn close(self) -> Result<()> {
        self.0.unplug()
    }

    pub(crate) fn leases(&self) -> &Leases {
        self.0.leases()
    }

    /// See [`crate::Port::set_link_callback`].
    pub(crate) fn watch(&self, callback: impl Fn(LinkEvent) + Send + Sync + 'static) -> Result<()> {
        let mut control = self.0.control();
        control.watch = None;
        let watch = Watch::new(self.0.id, Box::new(callback));
        control.watch =
            Some(watch.map_err(|errno| self.0.failed("watching the link", errno, Said::default()))?);
        Ok(())
    }

    pub(crate) fn link(&self) -> Link {
        let _control = self.0.control();
        link::read(self.0.id).unwrap_or_default()
    }

    pub(crate) fn set_link(&self, up: bool) -> Result<()> {
        let _control = self.0.control();
        let id = self.0.id;
        // SAFETY: the port exists and the lock keeps other control calls away.
        self.0.check("setting the link", || unsafe {
            if up { dpdk_sys::rte_eth_dev_set_link_up(id) } else { dpdk_sys::rte_eth_dev_set_link_down(id) }
        })
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        self.0.control().mac
    }

    pub(crate) fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        let mut control = self.0.control();
        // SAFETY: the port exists; `mac` has the six bytes that are read.
        self.0.check("setting the MAC address", || unsafe {
            dpdk_sys::godwit_port_set_mac(self.0.id, mac.as_ptr())
        })?;
        control.mac = mac;
        Ok(())
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.0.control().mtu
    }

    pub(crate) fn set_mtu(&self, mtu: u16) -> Result<()> {
        let mut control = self.0.control();
        // SAFETY: the port exists and the lock keeps other control calls away.
        self.0.check("setting the MTU", || unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.0.id, mtu) })?;
        control.mtu = mtu;
        Ok(())
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        let _control = self.0.control();
        stats_of(&self.0)
    }

    pub(crate) fn dev_info(&self) -> Result<DevInfo> {
        let _control = self.0.control();
        self.0.read_info()
    }

    pub(crate) fn numa_node(&self) -> Option<i32> {
        // SAFETY: reads a field; DPDK answers with -1 where there is no such port.
        let node = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.0.id) };
        (node >= 0).then_some(node)
    }
}
