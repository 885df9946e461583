//! A vhost-user port: its socket, set up, run and closed as other ports are.

use std::ffi::CString;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys::{
    GODWIT_VHOST_CLIENT, GODWIT_VHOST_CSUM, GODWIT_VHOST_ECN, GODWIT_VHOST_EXTBUF, GODWIT_VHOST_GUEST_CSUM,
    GODWIT_VHOST_GUEST_TSO, GODWIT_VHOST_HOST_TSO, GODWIT_VHOST_IOMMU, GODWIT_VHOST_LINEAR,
    GODWIT_VHOST_ONE_PAIR, GODWIT_VHOST_POSTCOPY, GODWIT_VHOST_UFO,
};
use godwit_packet::ReceiveOffloads;

use super::events::{self, EVENTS, MAX_LISTENING_GUESTS, Refused};
use super::guest::Guest;
use super::mapped;
use super::queue::{VhostRx, VhostTx};
use super::socket::{SocketError, VhostSocket};
use crate::config::{ConfigReport, DevInfo, PortConfig};
use crate::device::State;
use crate::error::{Errno, Error, Result, Said};
use crate::lease::{Lease, Leases, Lessor};
use crate::link::{Link, LinkEvent};
use crate::mempool::Mempool;
use crate::query::Stats;
use crate::{eal, log};

/// What such a port's driver is called.
pub(crate) const DRIVER: &str = "vhost";

/// The MTU where none is asked for, and the bounds of IPv4's (RFC 791).
const USUAL_MTU: u16 = 1500;
const MIN_MTU: u16 = 68;

/// A port's own address: "VHOST", which is a locally administered unicast address, and a number.
const MAC: [u8; 5] = *b"VHOST";
static NEXT_MAC: AtomicU8 = AtomicU8::new(0);

/// A vhost-user port and the right to control it.
pub(crate) struct VhostPort(Arc<Socket>);

/// The port's parts, which its queues keep alive.
pub(crate) struct Socket {
    /// Its name: the device's in DPDK's form of arguments, the argument with the path in ours.
    name: String,
    devargs: String,
    socket: VhostSocket,
    guest: Arc<Guest>,
    leases: Leases,
    control: Mutex<Control>,
}

struct Control {
    state: State,
    /// The library has the socket, which takes frames unfinished or not.
    open: Option<bool>,
    pool: Option<Arc<Mempool>>,
    mac: [u8; 6],
    mtu: u16,
}

impl Lessor for Socket {
    fn leases(&self) -> &Leases {
        &self.leases
    }

    fn port_name(&self) -> &str {
        &self.name
    }
}

impl VhostPort {
    /// Claims the socket that the arguments name. Nothing is there before [`VhostPort::configure`].
    pub(crate) fn plug(devargs: &str) -> Result<VhostPort> {
        eal::ensure_running()?;
        let failed = |why| Error::Socket { devargs: devargs.into(), why };
        let nul = || Error::Nul(devargs.replace('\0', "\\0"));
        let name = devargs.split(',').next().unwrap_or_default().trim().to_owned();
        let none = || SocketError { what: "no socket is named".into(), remedy: "use vhost=PATH".into() };
        let no_room = || SocketError {
            what: format!(
                "DPDK's vhost library has room for {MAX_LISTENING_GUESTS} guests at sockets of the switch"
            ),
            remedy: "remove a port, or have guests listen (mode=client), of whom there may be twice as many"
                .into(),
        };
        let socket = VhostSocket::parse(devargs).map_err(failed)?.ok_or_else(|| failed(none()))?;
        let path = CString::new(socket.path().as_os_str().as_encoded_bytes()).map_err(|_| nul())?;
        let files = if socket.options.client { 1 } else { 2 };
        let guest = Arc::new(Guest::new(path, socket.options.queues, files));
        events::register(&guest).map_err(|refused| match refused {
            Refused::Taken => Error::PortClaimed { devargs: devargs.into(), name: socket.shown() },
            Refused::Full => failed(no_room()),
        })?;
        let [a, b, c, d, e] = MAC;
        let control = Control {
            state: State::Plugged,
            open: None,
            pool: None,
            mac: [a, b, c, d, e, NEXT_MAC.fetch_add(1, Ordering::Relaxed)],
            mtu: USUAL_MTU,
        };
        Ok(VhostPort(Arc::new(Socket {
            name,
            devargs: devargs.into(),
            socket,
            guest,
            leases: Leases::default(),
            control: Mutex::new(control),
        })))
    }

    pub(crate) fn configure(&self, asked: &PortConfig) -> Result<ConfigReport> {
        let port = &*self.0;
        let mut control =
            port.control_if("configure", |s| matches!(s, State::Plugged | State::Configured { .. }))?;
        let mut report = ConfigReport { promiscuous: true, ..ConfigReport::default() };
        let pairs = port.socket.options.queues;
        let mut fit = |what: &str, asked: u16| {
            let got = asked.clamp(1, pairs);
            if got != asked {
                report.notes.push(format!("{asked} {what} queues asked for, {} has {got}", port.name));
            }
            got
        };
        let (rx, tx) = (fit("receive", asked.rx_queues), fit("transmit", asked.tx_queues));
        let unfinished = asked.guest_offloads && !port.socket.options.finished;
        if control.open.is_none() {
            port.open(unfinished, asked.postcopy)?;
            control.open = Some(unfinished);
        }
        (report.rx_queues, report.tx_queues) = (rx, tx);
        // A guest has as many descriptors as it makes.
        (report.rx_desc, report.tx_desc) = (asked.rx_desc, asked.tx_desc);
        report.guest_offloads = control.open == Some(true);
        control.mtu = asked.mtu.unwrap_or(USUAL_MTU).max(MIN_MTU);
        report.mtu = control.mtu;
        control.pool = Some(asked.mempool.clone());
        control.state = State::Configured { rx, tx };
        Ok(report)
    }

    pub(crate) fn start(&self) -> Result<(Vec<VhostRx>, Vec<VhostTx>)> {
        let port = &self.0;
        let mut control = port.control_if("start", |s| matches!(s, State::Configured { .. }))?;
        let (State::Configured { rx, tx }, Some(pool)) = (control.state, control.pool.clone()) else {
            unreachable!("the state was checked")
        };
        control.state = State::Started { rx, tx };
        let ring = |number| (port.guest.ring(number), number);
        let rx = (0..rx).map(|queue| {
            let (ring, number) = ring(2 * queue + 1);
            VhostRx::new(ring, number, pool.clone(), Lease::new(port))
        });
        let tx = (0..tx).map(|queue| {
            let (ring, number) = ring(2 * queue);
            VhostTx::new(ring, number, Lease::new(port))
        });
        Ok((rx.collect(), tx.collect()))
    }

    pub(crate) fn stop(&self) -> Result<()> {
        let mut control = self.0.control_if("stop", |s| matches!(s, State::Started { .. }))?;
        self.0.leases.ensure_none(&self.0.name)?;
        let State::Started { rx, tx } = control.state else { unreachable!("the state was checked") };
        control.state = State::Configured { rx, tx };
        Ok(())
    }

    pub(crate) fn close(self) -> Result<()> {
        self.0.close()
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.0.leases
    }

    pub(crate) fn watch(&self, callback: impl Fn(LinkEvent) + Send + Sync + 'static) {
        self.0.guest.watch(Some(Box::new(callback)));
    }

    pub(crate) fn link(&self) -> Link {
        self.0.guest.link()
    }

    pub(crate) fn receive_offloads(&self) -> ReceiveOffloads {
        self.0.guest.receive_offloads()
    }

    pub(crate) fn queue_changes(&self) -> Vec<(u16, bool)> {
        self.0.guest.queue_changes()
    }

    pub(crate) fn stats(&self) -> Stats {
        let [[rx_packets, rx_bytes, _], [tx_packets, tx_bytes, tx_errors]] = self.0.guest.counts();
        Stats { rx_packets, tx_packets, rx_bytes, tx_bytes, tx_errors, ..Stats::default() }
    }

    pub(crate) fn dev_info(&self) -> DevInfo {
        DevInfo::of_software(DRIVER, self.0.socket.options.queues)
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        self.0.control().mac
    }

    pub(crate) fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(self.refused("setting the MAC address", libc::EINVAL, "Use a unicast address"));
        }
        self.0.control().mac = mac;
        Ok(())
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.0.control().mtu
    }

    pub(crate) fn set_mtu(&self, mtu: u16) -> Result<()> {
        if mtu < MIN_MTU {
            return Err(self.refused("setting the MTU", libc::EINVAL, "Use 68 bytes or more"));
        }
        self.0.control().mtu = mtu;
        Ok(())
    }

    pub(crate) fn set_link(&self) -> Result<()> {
        Err(self.refused("setting the link", libc::ENOTSUP, "The guest's end decides on it"))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    fn refused(&self, operation: &'static str, errno: i32, remedy: &'static str) -> Error {
        let port = self.0.name.clone();
        Error::Port { port, operation, errno: Errno(errno), said: Said::default(), remedy }
    }
}

impl Socket {
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control_if(
        &self,
        operation: &'static str,
        fits: fn(State) -> bool,
    ) -> Result<MutexGuard<'_, Control>> {
        eal::ensure_running()?;
        let control = self.control();
        if fits(control.state) {
            return Ok(control);
        }
        Err(Error::PortState { port: self.name.clone(), operation, state: control.state.name() })
    }

    /// Listens, or connects. Guests are asked to leave nothing unfinished unless that is wanted.
    fn open(&self, unfinished: bool, postcopy: bool) -> Result<()> {
        let failed = |why| Error::Socket { devargs: self.devargs.clone(), why };
        if self.socket.clear_the_way().map_err(failed)? {
            tracing::info!("{}: replaced a socket that nobody listened at any more", self.socket.shown());
        }
        mapped::guard();
        let (options, withheld) = self.asked(unfinished, postcopy);
        let path = self.guest.path.as_ptr();
        // SAFETY: EAL runs; the path is terminated and copied by the library; `EVENTS` is a static, and its callbacks
        // keep to what the shim says of them.
        let (rc, said) = log::capture(|| unsafe {
            dpdk_sys::godwit_vhost_open(path, options, withheld, &raw const EVENTS)
        });
        if rc == 0 {
            return Ok(());
        }
        Err(Error::Probe {
            devargs: self.devargs.clone(),
            errno: Errno::from_rc(rc),
            said,
            remedy: "Check the socket's path and the rights on its folder, and how many files the process may open",
        })
    }

    /// The library's options, and the features that are not offered.
    fn asked(&self, unfinished: bool, postcopy: bool) -> (u32, u64) {
        let asked = &self.socket.options;
        let options = [
            (asked.client, GODWIT_VHOST_CLIENT),
            (asked.postcopy || postcopy, GODWIT_VHOST_POSTCOPY),
            (asked.iommu, GODWIT_VHOST_IOMMU),
            (asked.linear, GODWIT_VHOST_LINEAR),
            (asked.extbuf, GODWIT_VHOST_EXTBUF),
            (asked.queues == 1, GODWIT_VHOST_ONE_PAIR),
        ];
        let options = options.iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, bit)| all | bit);
        let features = [
            (true, GODWIT_VHOST_UFO),
            (!asked.tso || !unfinished, GODWIT_VHOST_HOST_TSO),
            (
                !unfinished,
                GODWIT_VHOST_CSUM | GODWIT_VHOST_GUEST_CSUM | GODWIT_VHOST_GUEST_TSO | GODWIT_VHOST_ECN,
            ),
        ];
        let withheld = features.iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, bits)| all | bits);
        (options, withheld.into())
    }

    /// Closes the socket, once.
    ///
    /// # Errors
    /// [`Error::QueuesOut`] while queue handles exist.
    fn close(&self) -> Result<()> {
        let mut control = self.control();
        self.leases.ensure_none(&self.name)?;
        if control.state == State::Unplugged {
            return Ok(());
        }
        control.state = State::Unplugged;
        self.guest.watch(None);
        if control.open.take().is_some() && eal::is_running() {
            // SAFETY: the path is terminated, and the library's; no queue of it is polled any more. No lock is held
            // that the callbacks take.
            let (rc, said) =
                log::capture(|| unsafe { dpdk_sys::godwit_vhost_close(self.guest.path.as_ptr()) });
            self.guest.closed();
            if rc != 0 {
                tracing::warn!("{}: the library does not know the socket any more{said}", self.name);
            }
        }
        events::unregister(&self.guest);
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!("{error}");
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("name", &self.name).finish_non_exhaustive()
    }
}
