//! Ethernet ports: plugging in, set-up, running, unplugging.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, ConfigReport, DevInfo, PortConfig};
use crate::error::{Errno, Error, Result, Said};
use crate::link::{self, Link, LinkEvent, Watch};
use crate::queue::{RxQueue, TxQueue};
use crate::{eal, log};

/// The ids of the ports that a [`Port`] owns. Held while devices are plugged in or out.
static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Bytes that hold any port's name (`RTE_ETH_NAME_MAX_LEN`).
const NAME_LEN: usize = 64;

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

/// The queues of a started port, in the order of their numbers.
#[derive(Debug)]
pub struct Queues {
    /// Receive queues.
    pub rx: Vec<RxQueue>,
    /// Transmit queues.
    pub tx: Vec<TxQueue>,
}

/// A device's life, in order; a stopped port can be configured or started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plugged,
    Configured { rx: u16, tx: u16 },
    Started { rx: u16, tx: u16 },
    Detached,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Plugged => "not configured",
            Self::Configured { .. } => "configured and not started",
            Self::Started { .. } => "started",
            Self::Detached => "detached",
        }
    }
}

/// What control calls need; the lock around it keeps them apart, as DPDK demands.
struct Control {
    state: State,
    watch: Option<Watch>,
}

/// The device, shared between the port and its queues; the last of them to go unplugs it.
struct Device {
    id: u16,
    name: String,
    queues_out: AtomicUsize,
    control: Mutex<Control>,
}

/// A queue's hold on its running port.
pub(crate) struct Lease(Arc<Device>);

/// An Ethernet port and the right to control it.
///
/// The packet path is in the [`RxQueue`]s and [`TxQueue`]s that [`Port::start`] gives. Dropping the port
/// stops and unplugs the device as soon as its last queue handle is gone; [`Port::detach`] does it at
/// once or says why it cannot.
pub struct Port(Arc<Device>);

impl Port {
    /// Plugs a device in, or takes one over that EAL plugged in when it started.
    ///
    /// `devargs` is a PCI address or a virtual device's name, with arguments: `0000:03:00.0`,
    /// `net_tap0,iface=tap7`, `net_pcap0,rx_pcap=in.pcap`. A device that is there already keeps the
    /// arguments it has. Of a device with several ports the first free one is taken.
    ///
    /// # Errors
    /// [`Error::EalNotRunning`]; [`Error::PortClaimed`] where another `Port` owns the device;
    /// [`Error::Probe`] where DPDK cannot plug it in; [`Error::NoPort`] where it is no network device.
    pub fn probe(devargs: &str) -> Result<Self> {
        eal::ensure_running()?;
        let c_devargs = CString::new(devargs).map_err(|_| Error::Nul(devargs.replace('\0', "\\0")))?;
        let mut claimed = lock(&CLAIMED);
        let (mut found, _) = log::capture(|| find(&c_devargs));
        let mut said = Said::default();
        if found.is_empty() {
            // SAFETY: EAL runs, the text is terminated, and the lock keeps hot-plugging to one thread.
            let (rc, why) = log::capture(|| unsafe { dpdk_sys::rte_dev_probe(c_devargs.as_ptr()) });
            if rc < 0 {
                let errno = Errno::from_rc(rc);
                let remedy = probe_remedy(errno);
                return Err(Error::Probe { devargs: devargs.into(), errno, said: why, remedy });
            }
            (found, said) = log::capture(|| find(&c_devargs));
        }
        let Some(&first) = found.first() else {
            return Err(Error::NoPort { devargs: devargs.into(), said });
        };
        let Some(&id) = found.iter().find(|id| !claimed.contains(id)) else {
            return Err(Error::PortClaimed { devargs: devargs.into(), name: name_of(first) });
        };
        claimed.insert(id);
        Ok(Self(Arc::new(Device {
            id,
            name: name_of(id),
            queues_out: AtomicUsize::new(0),
            control: Mutex::new(Control { state: State::Plugged, watch: None }),
        })))
    }

    /// Sets queues, buffers and offloads up, fitted to what the device can do. The report tells what it
    /// got. For a port that is not started.
    ///
    /// # Errors
    /// [`Error::PortState`] while it runs; [`Error::Port`] where the driver refuses.
    pub fn configure(&mut self, asked: &PortConfig) -> Result<ConfigReport> {
        let mut control =
            self.control("configure", |state| matches!(state, State::Plugged | State::Configured { .. }))?;
        let info = self.read_info()?;
        let (conf, mut report) = config::plan(&info, asked, asked.mempool.data_room());
        let (id, name) = (self.0.id, &self.0.name);
        control.state = State::Plugged;
        // SAFETY: the port exists, is stopped and not controlled by anyone else; `conf` is readable.
        check(name, "configuring", || unsafe { dpdk_sys::godwit_port_configure(id, &conf) })?;
        self.set_up_queues(asked, &mut report)?;
        if asked.promiscuous {
            // SAFETY: the port exists and this thread controls it.
            let (rc, _) = log::capture(|| unsafe { dpdk_sys::rte_eth_promiscuous_enable(id) });
            report.promiscuous = rc == 0;
            if rc != 0 {
                report.notes.push(format!("{} has no promiscuous mode: {}", info.driver, Errno::from_rc(rc)));
            }
        }
        report.mtu = read_mtu(id, name)?;
        control.state = State::Configured { rx: report.rx_queues, tx: report.tx_queues };
        Ok(report)
    }

    fn set_up_queues(&self, asked: &PortConfig, report: &mut ConfigReport) -> Result<()> {
        let (id, name) = (self.0.id, &self.0.name);
        (report.rx_desc, report.tx_desc) = (asked.rx_desc, asked.tx_desc);
        check(name, "fitting the descriptors", || {
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
        // SAFETY: the port exists.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(id) };
        for queue in 0..report.rx_queues {
            check(name, "setting a receive queue up", || {
                // SAFETY: the port is configured with that queue; the pool lives as long as EAL.
                unsafe {
                    dpdk_sys::godwit_rx_queue_setup(id, queue, report.rx_desc, socket, asked.mempool.as_ptr())
                }
            })?;
        }
        for queue in 0..report.tx_queues {
            check(name, "setting a transmit queue up", || {
                // SAFETY: the port is configured with that queue.
                unsafe { dpdk_sys::godwit_tx_queue_setup(id, queue, report.tx_desc, socket) }
            })?;
        }
        Ok(())
    }

    /// Starts the port and hands its queues out.
    ///
    /// # Errors
    /// [`Error::PortState`] unless it is configured and stopped; [`Error::Port`] where the driver fails.
    pub fn start(&mut self) -> Result<Queues> {
        let mut control = self.control("start", |state| matches!(state, State::Configured { .. }))?;
        let State::Configured { rx, tx } = control.state else { unreachable!("the state was checked") };
        let id = self.0.id;
        // SAFETY: the port is configured, stopped and not controlled by anyone else.
        check(&self.0.name, "starting", || unsafe { dpdk_sys::rte_eth_dev_start(id) })?;
        control.state = State::Started { rx, tx };
        // SAFETY: the port runs with these queues and does not stop while a lease is out; it was stopped,
        // so no earlier handles exist.
        unsafe {
            Ok(Queues {
                rx: (0..rx).map(|queue| RxQueue::new(id, queue, Lease::new(&self.0))).collect(),
                tx: (0..tx).map(|queue| TxQueue::new(id, queue, Lease::new(&self.0))).collect(),
            })
        }
    }

    /// Stops the port. Frames in its queues are lost.
    ///
    /// # Errors
    /// [`Error::QueuesOut`] while queue handles exist; [`Error::PortState`] unless it is started;
    /// [`Error::Port`] where the driver fails.
    pub fn stop(&mut self) -> Result<()> {
        let mut control = self.control("stop", |state| matches!(state, State::Started { .. }))?;
        self.ensure_idle()?;
        let State::Started { rx, tx } = control.state else { unreachable!("the state was checked") };
        let id = self.0.id;
        // SAFETY: the port runs, and no queue of it can be polled any more.
        check(&self.0.name, "stopping", || unsafe { dpdk_sys::rte_eth_dev_stop(id) })?;
        control.state = State::Configured { rx, tx };
        Ok(())
    }

    /// Stops the port where it runs, closes it and unplugs its device. After that every call on it fails
    /// with [`Error::PortState`], and the device can be plugged in anew.
    ///
    /// # Errors
    /// [`Error::QueuesOut`] while queue handles exist; [`Error::PortState`] where it is detached already;
    /// [`Error::Port`] where the driver fails.
    pub fn detach(&mut self) -> Result<()> {
        let mut control = self.control("detach", |state| state != State::Detached)?;
        self.ensure_idle()?;
        let (rc, said) = unplug(self.0.id, &mut control);
        if rc == 0 {
            return Ok(());
        }
        let errno = Errno::from_rc(rc);
        let port = self.0.name.clone();
        Err(Error::Port { port, operation: "unplugging", errno, said, remedy: remedy(errno) })
    }

    /// Queue handles that still exist.
    pub fn queues_out(&self) -> usize {
        self.0.queues_out.load(Ordering::Acquire)
    }

    /// Waits until the last queue handle is dropped, so that [`Port::stop`] or [`Port::detach`] can follow.
    ///
    /// # Errors
    /// [`Error::QueuesOut`] where that takes longer than `timeout`.
    pub fn wait_idle(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while self.queues_out() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ensure_idle()
    }

    /// Has `callback` called at changes of the link and at the loss of the device; it replaces an earlier
    /// one. It runs on DPDK's interrupt thread or a driver's: it must not block, nor call this crate; let
    /// it put the event on a bounded queue. Where [`DevInfo::link_events`] is `false`, poll
    /// [`Port::link`] instead.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where DPDK has no memory for it.
    pub fn set_link_callback(&self, callback: impl Fn(LinkEvent) + Send + Sync + 'static) -> Result<()> {
        let mut control = self.attached("watch the link")?;
        control.watch = None;
        let watch = Watch::new(self.0.id, Box::new(callback));
        control.watch = Some(watch.map_err(|errno| self.failed("watching the link", errno))?);
        Ok(())
    }

    /// The link as it is now, without waiting for it to settle.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where the driver fails.
    pub fn link(&self) -> Result<Link> {
        let _control = self.attached("read the link")?;
        link::read(self.0.id).map_err(|errno| self.failed("reading the link", errno))
    }

    /// Turns the link on or off at this end.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where the driver cannot.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let _control = self.attached("set the link")?;
        let id = self.0.id;
        // SAFETY: the port exists and the lock keeps other control calls away.
        check(&self.0.name, "setting the link", || unsafe {
            if up { dpdk_sys::rte_eth_dev_set_link_up(id) } else { dpdk_sys::rte_eth_dev_set_link_down(id) }
        })
    }

    /// The port's own address.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where the driver fails.
    pub fn mac(&self) -> Result<[u8; 6]> {
        let _control = self.attached("read the MAC address")?;
        let mut mac = [0; 6];
        let id = self.0.id;
        // SAFETY: the port exists; `mac` has the six bytes that are written.
        check(&self.0.name, "reading the MAC address", || unsafe {
            dpdk_sys::godwit_port_mac(id, mac.as_mut_ptr())
        })?;
        Ok(mac)
    }

    /// Gives the port another address.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where the driver cannot or the address is no
    /// unicast one.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<()> {
        let _control = self.attached("set the MAC address")?;
        let id = self.0.id;
        // SAFETY: the port exists; `mac` has the six bytes that are read.
        check(&self.0.name, "setting the MAC address", || unsafe {
            dpdk_sys::godwit_port_set_mac(id, mac.as_ptr())
        })
    }

    /// The largest IP packet in bytes.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where the driver fails.
    pub fn mtu(&self) -> Result<u16> {
        let _control = self.attached("read the MTU")?;
        read_mtu(self.0.id, &self.0.name)
    }

    /// Changes the MTU; some drivers want the port stopped for it.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where the driver refuses.
    pub fn set_mtu(&self, mtu: u16) -> Result<()> {
        let _control = self.attached("set the MTU")?;
        let id = self.0.id;
        // SAFETY: the port exists and the lock keeps other control calls away.
        check(&self.0.name, "setting the MTU", || unsafe { dpdk_sys::rte_eth_dev_set_mtu(id, mtu) })
    }

    /// The device's counters.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where the driver fails.
    pub fn stats(&self) -> Result<Stats> {
        let _control = self.attached("read the counters")?;
        let mut s = dpdk_sys::godwit_stats::default();
        let id = self.0.id;
        // SAFETY: the port exists; `s` is writable.
        check(&self.0.name, "reading the counters", || unsafe { dpdk_sys::godwit_port_stats(id, &mut s) })?;
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

    /// What the device can do.
    ///
    /// # Errors
    /// [`Error::PortState`] after detaching; [`Error::Port`] where the driver fails.
    pub fn dev_info(&self) -> Result<DevInfo> {
        let _control = self.attached("read its abilities")?;
        self.read_info()
    }

    /// The driver's name, such as `net_tap`.
    ///
    /// # Errors
    /// As [`Port::dev_info`].
    pub fn driver_name(&self) -> Result<String> {
        Ok(self.dev_info()?.driver)
    }

    /// The NUMA node the device is on; `None` where it has none, as virtual ones.
    pub fn numa_node(&self) -> Option<i32> {
        // SAFETY: DPDK answers with -1 where there is no such port.
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

    /// Locks the port for a control call that needs a state `fits` accepts.
    fn control(&self, operation: &'static str, fits: fn(State) -> bool) -> Result<MutexGuard<'_, Control>> {
        eal::ensure_running()?;
        let control = lock(&self.0.control);
        if fits(control.state) {
            return Ok(control);
        }
        Err(Error::PortState { port: self.0.name.clone(), operation, state: control.state.name() })
    }

    fn attached(&self, operation: &'static str) -> Result<MutexGuard<'_, Control>> {
        self.control(operation, |state| state != State::Detached)
    }

    fn ensure_idle(&self) -> Result<()> {
        match self.queues_out() {
            0 => Ok(()),
            queues => Err(Error::QueuesOut { port: self.0.name.clone(), queues }),
        }
    }

    /// Reads the device's abilities; the caller holds the lock.
    fn read_info(&self) -> Result<DevInfo> {
        let mut info = dpdk_sys::godwit_dev_info::default();
        let id = self.0.id;
        // SAFETY: the port exists; `info` is writable.
        check(&self.0.name, "reading its abilities", || unsafe {
            dpdk_sys::godwit_port_info(id, &mut info)
        })?;
        // SAFETY: DPDK sets a terminated text that lives as long as the driver is loaded, or NULL.
        let driver = (!info.driver_name.is_null()).then(|| unsafe { CStr::from_ptr(info.driver_name) });
        Ok(DevInfo::new(&info, driver.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()))
    }

    fn failed(&self, operation: &'static str, errno: Errno) -> Error {
        let port = self.0.name.clone();
        Error::Port { port, operation, errno, said: Said::default(), remedy: remedy(errno) }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("id", &self.0.id).field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Lease {
    fn new(device: &Arc<Device>) -> Self {
        device.queues_out.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(device))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Release: what the queue's owner did happens before the port is stopped.
        self.0.queues_out.fetch_sub(1, Ordering::Release);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let id = self.id;
        let control = self.control.get_mut().unwrap_or_else(PoisonError::into_inner);
        if control.state == State::Detached {
            return;
        }
        if !eal::is_running() {
            // EAL closed the port at its shutdown and freed its callbacks; the watch is left alone.
            std::mem::forget(control.watch.take());
            return;
        }
        let (rc, said) = unplug(id, control);
        if rc != 0 {
            tracing::warn!("port {}: unplugging failed: {}{said}", self.name, Errno::from_rc(rc));
        }
    }
}

/// Stops, closes and unplugs the device. The caller has seen to it that no queue handle exists.
fn unplug(id: u16, control: &mut Control) -> (i32, Said) {
    control.watch = None;
    let mut claimed = lock(&CLAIMED);
    let (rc, said) = log::capture(|| {
        if matches!(control.state, State::Started { .. }) {
            // SAFETY: the port runs, and no queue of it can be polled any more. A failure does not keep
            // the port from being closed.
            unsafe { dpdk_sys::rte_eth_dev_stop(id) };
        }
        // SAFETY: the port exists and is stopped; the locks keep other calls on it and hot-plugging away.
        unsafe { dpdk_sys::godwit_port_remove(id) }
    });
    // SAFETY: reads a table of DPDK's; any number may be asked for.
    if rc == 0 || unsafe { dpdk_sys::rte_eth_dev_is_valid_port(id) } == 0 {
        control.state = State::Detached;
        claimed.remove(&id);
    }
    (rc, said)
}

/// The ids of the ports of a device; empty where it is not plugged in.
fn find(devargs: &CStr) -> Vec<u16> {
    let mut ids = [0u16; 64];
    // SAFETY: the text is terminated; `ids` has room for as many ids as are said.
    let n = unsafe { dpdk_sys::godwit_port_find(devargs.as_ptr(), ids.as_mut_ptr(), ids.len() as u32) };
    ids[..usize::try_from(n).unwrap_or(0).min(ids.len())].to_vec()
}

fn name_of(id: u16) -> String {
    let mut name = [0 as c_char; NAME_LEN];
    // SAFETY: `name` is writable and its true size is given; DPDK terminates it or leaves the zeroes.
    unsafe {
        dpdk_sys::godwit_port_name(id, name.as_mut_ptr(), name.len());
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    }
}

fn read_mtu(id: u16, name: &str) -> Result<u16> {
    let mut mtu = 0;
    // SAFETY: the port exists; `mtu` is writable.
    check(name, "reading the MTU", || unsafe { dpdk_sys::rte_eth_dev_get_mtu(id, &mut mtu) })?;
    Ok(mtu)
}

/// Runs a DPDK call that answers 0 or a negative error number.
fn check(port: &str, operation: &'static str, call: impl FnOnce() -> i32) -> Result<()> {
    let (rc, said) = log::capture(call);
    if rc == 0 {
        return Ok(());
    }
    let errno = Errno::from_rc(rc);
    Err(Error::Port { port: port.into(), operation, errno, said, remedy: remedy(errno) })
}

/// A lock that a panicking holder does not poison: what it guards is DPDK's state, not ours.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remedy(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EBUSY => "Stop the port first",
        libc::ENOTSUP => "The driver cannot do this",
        libc::ENOMEM => "Give the pool more buffers than all queues have descriptors, or DPDK more memory",
        libc::EINVAL => "The driver does not take these values: compare them with Port::dev_info",
        libc::EIO | libc::ENODEV => "The device is gone: detach the port",
        _ => "See DPDK's log at level debug",
    }
}

fn probe_remedy(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EEXIST => "A device of that name exists: give the new one another name",
        libc::EPERM | libc::EACCES => "Run as root, or give the process CAP_NET_ADMIN",
        libc::ENOMEM => "Give DPDK more memory (EalConfig::memory_mb)",
        libc::ENODEV | libc::ENOENT => {
            "Check the name and the arguments; a PCI device has to be bound to vfio-pci (dpdk-devbind.py) and allowed by EalConfig::pci"
        }
        _ => "Check the device's name and arguments, and that its driver is installed (Debian: package dpdk)",
    }
}
