//! A device that is plugged in: shared between its port and its queues, unplugged by the last of them.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::DevInfo;
use crate::error::{Errno, Error, Result, Said};
use crate::lease::{Leases, Lessor};
use crate::link::Watch;
use crate::vhost::VhostSocket;
use crate::{eal, log};

/// The ids of the ports that a [`Device`] stands for. Held while devices are plugged in or out.
static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Bytes that hold any port's name (`RTE_ETH_NAME_MAX_LEN`).
const NAME_LEN: usize = 64;

/// A device's life, in order; a stopped port can be configured or started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Plugged,
    Configured { rx: u16, tx: u16 },
    Started { rx: u16, tx: u16 },
    Unplugged,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plugged => "not configured",
            Self::Configured { .. } => "configured and not started",
            Self::Started { .. } => "started",
            Self::Unplugged => "unplugged",
        }
    }
}

/// What control calls need; the lock around it keeps them apart, as DPDK demands.
pub(crate) struct Control {
    pub(crate) state: State,
    pub(crate) watch: Option<Watch>,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    /// What a bond consists of; unplugged after it.
    pub(crate) members: Vec<Arc<Device>>,
}

pub(crate) struct Device {
    pub(crate) id: u16,
    pub(crate) name: String,
    /// The driver's name.
    pub(crate) driver: String,
    /// What it was plugged in with.
    pub(crate) devargs: String,
    leases: Leases,
    control: Mutex<Control>,
}

impl Lessor for Device {
    fn leases(&self) -> &Leases {
        &self.leases
    }

    fn port_name(&self) -> &str {
        &self.name
    }
}

impl Device {
    /// Plugs a device in, or finds one that is, and claims its first free port. See
    /// [`crate::Port::probe`].
    pub(crate) fn plug(devargs: &str) -> Result<Arc<Self>> {
        eal::ensure_running()?;
        let c_devargs = CString::new(devargs).map_err(|_| Error::Nul(devargs.replace('\0', "\\0")))?;
        let mut claimed = lock(&CLAIMED);
        let (mut found, _) = log::capture(|| find(&c_devargs));
        let mut said = Said::default();
        if found.is_empty() {
            make_way(devargs)?;
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
        drop(claimed);
        let mut device = Self {
            id,
            name: name_of(id),
            driver: String::new(),
            devargs: devargs.into(),
            leases: Leases::default(),
            control: Mutex::new(Control {
                state: State::Plugged,
                watch: None,
                mac: [0; 6],
                mtu: 0,
                members: Vec::new(),
            }),
        };
        // From here on an early return unplugs the device again, as it drops the value.
        device.driver = device.read_info()?.driver;
        device.read_addresses(&mut lock(&device.control))?;
        Ok(Arc::new(device))
    }

    /// Locks the port for a control call.
    pub(crate) fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    /// Locks the port for a control call that needs a state `fits` accepts.
    pub(crate) fn control_if(
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

    pub(crate) fn ensure_idle(&self) -> Result<()> {
        self.leases.ensure_none(&self.name)
    }

    /// Reads the device's abilities.
    pub(crate) fn read_info(&self) -> Result<DevInfo> {
        let mut info = dpdk_sys::godwit_dev_info::default();
        // SAFETY: the port exists; `info` is writable.
        self.check("reading its abilities", || unsafe { dpdk_sys::godwit_port_info(self.id, &mut info) })?;
        // SAFETY: DPDK sets a terminated text that lives as long as the driver is loaded, or NULL.
        let driver = (!info.driver_name.is_null()).then(|| unsafe { CStr::from_ptr(info.driver_name) });
        Ok(DevInfo::new(&info, driver.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()))
    }

    /// Reads the MAC address and the MTU, as the driver has them, into `control`.
    pub(crate) fn read_addresses(&self, control: &mut Control) -> Result<()> {
        let (mac, mtu) = (&mut control.mac, &mut control.mtu);
        // SAFETY: the port exists; `mac` has the six bytes that are written.
        self.check("reading the MAC address", || unsafe {
            dpdk_sys::godwit_port_mac(self.id, mac.as_mut_ptr())
        })?;
        // SAFETY: the port exists; `mtu` is writable.
        self.check("reading the MTU", || unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id, mtu) })
    }

    /// Runs a DPDK call that answers 0 or a negative error number.
    pub(crate) fn check(&self, operation: &'static str, call: impl FnOnce() -> i32) -> Result<()> {
        match log::capture(call) {
            (0, _) => Ok(()),
            (rc, said) => Err(self.failed(operation, Errno::from_rc(rc), said)),
        }
    }

    pub(crate) fn failed(&self, operation: &'static str, errno: Errno, said: Said) -> Error {
        Error::Port { port: self.name.clone(), operation, errno, said, remedy: remedy(errno) }
    }

    /// Stops, closes and unplugs the device, once.
    ///
    /// # Errors
    /// [`Error::QueuesOut`] while queue handles exist; [`Error::Port`] where the driver fails.
    pub(crate) fn unplug(&self) -> Result<()> {
        let mut control = self.control();
        self.ensure_idle()?;
        if control.state == State::Unplugged {
            return Ok(());
        }
        control.watch = None;
        let mut claimed = lock(&CLAIMED);
        let result = self.check("unplugging", || {
            if matches!(control.state, State::Started { .. }) {
                // SAFETY: the port runs, and no queue of it can be polled any more. A failure does not
                // keep the port from being closed.
                unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
            }
            // SAFETY: the port exists and is stopped; the locks keep other calls on it and hot-plugging
            // away.
            unsafe { dpdk_sys::godwit_port_remove(self.id) }
        });
        // Whatever the driver answered, the port is not touched again. Where it stayed, its id does too.
        control.state = State::Unplugged;
        // SAFETY: reads a table of DPDK's; any number may be asked for.
        if unsafe { dpdk_sys::rte_eth_dev_is_valid_port(self.id) } == 0 {
            claimed.remove(&self.id);
        }
        result
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !eal::is_running() {
            // EAL closed the port at its shutdown and freed its callbacks; the watch is left alone.
            std::mem::forget(self.control().watch.take());
            return;
        }
        if let Err(error) = self.unplug() {
            tracing::warn!("{error}");
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Devices that this DPDK build has room for.
pub fn max_devices() -> usize {
    // SAFETY: a constant of the shim.
    unsafe { dpdk_sys::GODWIT_MAX_PORTS as usize }
}

/// Refuses what DPDK would refuse without saying why, or would take and not serve, and removes a stale socket.
fn make_way(devargs: &str) -> Result<()> {
    let room = max_devices();
    // SAFETY: reads a table of DPDK's; any number may be asked for.
    if (0..room).all(|id| unsafe { dpdk_sys::rte_eth_dev_is_valid_port(id as u16) } != 0) {
        return Err(Error::NoRoom { devargs: devargs.into(), room });
    }
    let failed = |why| Error::Socket { devargs: devargs.into(), why };
    if let Some(socket) = VhostSocket::parse(devargs).map_err(failed)?
        && socket.clear_the_way().map_err(failed)?
    {
        tracing::info!("{}: replaced a socket that nobody listened at any more", socket.shown());
    }
    Ok(())
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
        libc::EIO | libc::ENODEV => "The device is gone: close the port",
        _ => "See DPDK's log at level debug",
    }
}

fn probe_remedy(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EEXIST => "A device of that name exists: give the new one another name",
        // Virtual devices answer -1 to whatever goes wrong, which reads as EPERM.
        libc::EPERM | libc::EACCES => {
            "Check the arguments and the files or interfaces they name; some devices need root or CAP_NET_ADMIN"
        }
        libc::ENOMEM => "Give DPDK more memory (EalConfig::memory_mb)",
        libc::ENODEV | libc::ENOENT => {
            "Check the name and the arguments; a PCI device has to be bound to vfio-pci \
             (dpdk-devbind.py) and EalConfig::pci must not be Off"
        }
        _ => "Check the device's name and arguments, and that its driver is installed (Debian: package dpdk)",
    }
}
