//! What can go wrong, said so that an operator can act on it.

use std::ffi::CStr;
use std::fmt;

use crate::vhost::SocketError;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An error number of DPDK or the kernel, positive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// From a DPDK return value, where failure is a negative error number.
    pub(crate) fn from_rc(rc: i32) -> Self {
        Self(rc.saturating_abs())
    }

    /// What the last failing DPDK call of this thread left in `rte_errno`.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local integer; no precondition.
        Self(unsafe { dpdk_sys::godwit_errno() })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: rte_strerror takes any number and returns a terminated text that stays valid until
        // this thread's next call of it; it is read before this function returns.
        let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(self.0)) };
        write!(f, "{} (errno {})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What DPDK logged while a call failed; shown after the error's own text, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(pub(crate) String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; DPDK said: {}", self.0) }
    }
}

/// Why a DPDK operation failed, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// EAL starts once a process, also after a failed start or a shutdown.
    #[error("DPDK's EAL was already started in this process; it starts once, so restart the process instead")]
    EalStartedTwice,
    /// Something needs EAL before [`crate::Eal::init`] has returned, or after its shutdown.
    #[error("DPDK's EAL is not running; call Eal::init first")]
    EalNotRunning,
    /// `rte_eal_init` failed.
    #[error("DPDK's EAL did not start with `{args}`: {errno}{said}. {remedy}")]
    EalInit {
        /// The arguments EAL was given.
        args: String,
        /// Why.
        errno: Errno,
        /// What DPDK logged.
        said: Said,
        /// What to do.
        remedy: &'static str,
    },
    /// Hugepages were demanded and are not there.
    #[error(
        "{wanted_mb} MB of hugepages were demanded, {free_mb} MB are free; reserve them with \
         `sysctl vm.nr_hugepages={pages}`, or allow running without"
    )]
    NoHugepages {
        /// Demanded, in MB.
        wanted_mb: u32,
        /// Free, in MB.
        free_mb: u64,
        /// How many default-sized pages would do.
        pages: u64,
    },
    /// A text with a NUL byte cannot be handed to C.
    #[error("`{0}` contains a NUL byte")]
    Nul(String),
    /// This thread is known to EAL already (EAL's main thread always is).
    #[error(
        "this thread is registered with DPDK already; register each worker thread once, and not EAL's main thread"
    )]
    ThreadRegistered,
    /// `rte_thread_register` failed.
    #[error(
        "a thread could not be registered with DPDK: {errno}. At most RTE_MAX_LCORE (128 in most builds) threads can be"
    )]
    ThreadRegister {
        /// Why.
        errno: Errno,
    },
    /// A pool could not be made.
    #[error("memory pool `{name}` of {count} buffers of {data_room} bytes: {errno}{said}. {remedy}")]
    Mempool {
        /// Its name.
        name: String,
        /// Buffers asked for.
        count: u32,
        /// Bytes a buffer, headroom included.
        data_room: u16,
        /// Why.
        errno: Errno,
        /// What DPDK logged.
        said: Said,
        /// What to do.
        remedy: &'static str,
    },
    /// A device could not be plugged in.
    #[error("device `{devargs}` could not be plugged in: {errno}{said}. {remedy}")]
    Probe {
        /// The device and its arguments.
        devargs: String,
        /// Why.
        errno: Errno,
        /// What DPDK logged.
        said: Said,
        /// What to do.
        remedy: &'static str,
    },
    /// DPDK has no room for another device.
    #[error(
        "device `{devargs}` could not be plugged in: this DPDK build has room for {room} devices \
         (RTE_MAX_ETHPORTS) and all are taken. Remove a port, or build DPDK with more"
    )]
    NoRoom {
        /// The device and its arguments.
        devargs: String,
        /// Devices that there is room for.
        room: usize,
    },
    /// The arguments or the socket of a vhost-user device cannot be used. Nothing was touched.
    #[error("device `{devargs}`: {why}")]
    Socket {
        /// The device and its arguments.
        devargs: String,
        /// What is wrong, and what to do.
        why: SocketError,
    },
    /// The device is there and has no Ethernet port.
    #[error(
        "device `{devargs}` was plugged in but has no Ethernet port{said}. Check that its driver is a network one"
    )]
    NoPort {
        /// The device and its arguments.
        devargs: String,
        /// What DPDK logged.
        said: Said,
    },
    /// Another [`crate::Port`] of this process owns the device.
    #[error(
        "device `{devargs}` is in use as port {name}; detach that one first, or give the new one another name"
    )]
    PortClaimed {
        /// The device and its arguments.
        devargs: String,
        /// The name of the port.
        name: String,
    },
    /// An operation on a port failed.
    #[error("port {port}: {operation} failed: {errno}{said}. {remedy}")]
    Port {
        /// The port's name.
        port: String,
        /// What was tried.
        operation: &'static str,
        /// Why.
        errno: Errno,
        /// What DPDK logged.
        said: Said,
        /// What to do.
        remedy: &'static str,
    },
    /// A port was asked for something in a state that does not allow it.
    #[error("port {port}: cannot {operation} while it is {state}")]
    PortState {
        /// The port's name.
        port: String,
        /// What was tried.
        operation: &'static str,
        /// The state it was in.
        state: &'static str,
    },
    /// Queue handles are still out, and may be polled by a worker.
    #[error("port {port}: {queues} queue handles are still in use; have the workers drop them first")]
    QueuesOut {
        /// The port's name.
        port: String,
        /// How many.
        queues: usize,
    },
}
