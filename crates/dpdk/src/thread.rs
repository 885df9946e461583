//! Worker threads that EAL knows.

use std::marker::PhantomData;

use crate::eal;
use crate::error::{Errno, Error, Result};

/// The calling thread's registration with EAL, ended when it is dropped.
///
/// A registered thread has an lcore id, and with it a cache of its own in every pool; without, each
/// allocation goes to the pool's shared ring.
#[derive(Debug)]
pub struct ThreadRegistration {
    /// The registration belongs to one thread: neither `Send` nor `Sync`.
    _thread: PhantomData<*mut ()>,
}

impl ThreadRegistration {
    /// Registers the calling thread.
    ///
    /// # Errors
    /// [`Error::EalNotRunning`]; [`Error::ThreadRegistered`] where it is already, as EAL's main thread
    /// is; [`Error::ThreadRegister`] where EAL has no lcore id left.
    pub fn register() -> Result<Self> {
        eal::ensure_running()?;
        if current_lcore().is_some() {
            return Err(Error::ThreadRegistered);
        }
        // SAFETY: EAL runs, and this thread has no lcore id yet.
        if unsafe { dpdk_sys::rte_thread_register() } != 0 {
            return Err(Error::ThreadRegister { errno: Errno::last() });
        }
        Ok(Self { _thread: PhantomData })
    }

    /// The lcore id that EAL gave this thread.
    pub fn lcore_id(&self) -> u32 {
        current_lcore().unwrap_or(u32::MAX)
    }
}

impl Drop for ThreadRegistration {
    fn drop(&mut self) {
        if eal::is_running() {
            // SAFETY: the value is not Send, so this is the thread that registered itself.
            unsafe { dpdk_sys::rte_thread_unregister() }
        }
    }
}

/// This thread's lcore id, if EAL knows the thread.
fn current_lcore() -> Option<u32> {
    // SAFETY: reads a thread-local integer and a constant.
    let (id, none) = unsafe { (dpdk_sys::godwit_lcore_id(), dpdk_sys::GODWIT_NO_LCORE) };
    (id != none).then_some(id)
}

/// For how long the calling thread has had a core so far, in nanoseconds. Linux leaves out what the hypervisor gave to
/// other machines, where that tells (steal time).
pub fn on_core_ns() -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes to `time`.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } == 0;
    done.then(|| time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// How often the system has taken the core from the calling thread so far; 0 where it does not say.
pub fn preemptions() -> u64 {
    // SAFETY: all-zero is a valid rusage, and the call only writes to it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_THREAD, &mut usage) != 0 {
            return 0;
        }
        usage.ru_nivcsw.unsigned_abs()
    }
}
