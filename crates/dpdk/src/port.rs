//! Ports: plugging in, set-up, running, unplugging, whatever is behind them.

use std::fmt;
use std::time::{Duration, Instant};

use crate::config::{ConfigReport, PortConfig};
use crate::error::Result;
use crate::ethport::EthPort;
use crate::queue::{RxQueue, TxQueue};
use crate::vhost::{self, VhostPort};

/// What a port that is none of DPDK's devices has in the place of an id, and its frames with it.
pub const NO_PORT_ID: u16 = u16::MAX;

/// An Ethernet port and the right to control it: a device of DPDK's, or a guest's end on a vhost-user socket.
///
/// The packet path is in the [`RxQueue`]s and [`TxQueue`]s that [`Port::start`] gives. Dropping the port
/// stops and unplugs the device as soon as its last queue handle is gone; [`Port::close`] does it at
/// once and says where it cannot.
pub struct Port(pub(crate) Kind);

/// What is behind a port.
pub(crate) enum Kind {
    Eth(EthPort),
    Vhost(VhostPort),
}

/// The same of either kind.
macro_rules! each {
    ($port:expr, $it:ident => $what:expr) => {
        match &$port.0 {
            $crate::port::Kind::Eth($it) => $what,
            $crate::port::Kind::Vhost($it) => $what,
        }
    };
}
pub(crate) use each;

impl Port {
    /// Plugs a device in, or takes one over that EAL plugged in when it started.
    ///
    /// `devargs` is a PCI address or a virtual device's name, with arguments: `0000:03:00.0`,
    /// `net_tap0,iface=tap7`, `net_pcap0,rx_pcap=in.pcap`. A device that is there already keeps the
    /// arguments it has. Of a device with several ports the first free one is taken. Takes milliseconds.
    ///
    /// `vhost=PATH` with its arguments is a vhost-user port, and `net_vhost0,iface=PATH` as well. Its socket is made
    /// by [`Port::configure`].
    ///
    /// # Errors
    /// [`crate::Error::EalNotRunning`]; [`crate::Error::PortClaimed`] where another `Port` owns the device;
    /// [`crate::Error::Probe`] where DPDK cannot plug it in; [`crate::Error::NoPort`] where it is no
    /// network device; [`crate::Error::Socket`] for a vhost-user port's arguments.
    pub fn probe(devargs: &str) -> Result<Self> {
        let kind = match vhost::are_ours(devargs) {
            true => Kind::Vhost(VhostPort::plug(devargs)?),
            false => Kind::Eth(EthPort::plug(devargs)?),
        };
        Ok(Self(kind))
    }

    /// Sets queues, buffers and offloads up, fitted to what the device can do. The report tells what it
    /// got. For a port that is not started.
    ///
    /// # Errors
    /// [`crate::Error::PortState`] while it runs; [`crate::Error::Port`] where the driver refuses;
    /// [`crate::Error::Socket`] and [`crate::Error::Probe`] where a guest's socket cannot be made.
    pub fn configure(&mut self, asked: PortConfig) -> Result<ConfigReport> {
        each!(self, port => port.configure(&asked))
    }

    /// Starts the port and hands its queues out, each in the order of their numbers.
    ///
    /// # Errors
    /// [`crate::Error::PortState`] unless it is configured and stopped; [`crate::Error::Port`] where the
    /// driver fails.
    pub fn start(&mut self) -> Result<(Vec<RxQueue>, Vec<TxQueue>)> {
        Ok(match &self.0 {
            Kind::Eth(port) => {
                let (rx, tx) = port.start()?;
                (rx.into_iter().map(RxQueue::from).collect(), tx.into_iter().map(TxQueue::from).collect())
            }
            Kind::Vhost(port) => {
                let (rx, tx) = port.start()?;
                (rx.into_iter().map(RxQueue::from).collect(), tx.into_iter().map(TxQueue::from).collect())
            }
        })
    }

    /// Stops the port. Frames in its queues are lost.
    ///
    /// # Errors
    /// [`crate::Error::QueuesOut`] while queue handles exist; [`crate::Error::PortState`] unless it is
    /// started; [`crate::Error::Port`] where the driver fails.
    pub fn stop(&mut self) -> Result<()> {
        each!(self, port => port.stop())
    }

    /// Stops the port where it runs, closes it and unplugs its device, which can then be plugged in anew.
    ///
    /// # Errors
    /// [`crate::Error::QueuesOut`] while queue handles exist: the device is unplugged when the last of
    /// them is dropped; [`crate::Error::Port`] where the driver fails.
    pub fn close(self) -> Result<()> {
        match self.0 {
            Kind::Eth(port) => port.close(),
            Kind::Vhost(port) => port.close(),
        }
    }

    /// Queue handles that exist.
    pub fn queues_out(&self) -> usize {
        each!(self, port => port.leases().out())
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
        each!(self, port => port.leases().ensure_none(self.name()))
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}
