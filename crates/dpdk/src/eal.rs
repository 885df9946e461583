//! EAL, DPDK's environment: one a process.

use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::eal_config::EalConfig;
use crate::error::{Errno, Error, Result};
use crate::memory::{self, Memory};
use crate::{args, log};

const NOT_STARTED: u8 = 0;
const STARTING: u8 = 1;
const RUNNING: u8 = 2;
const ENDED: u8 = 3;

/// How far EAL has come in this process. It only ever grows.
static PHASE: AtomicU8 = AtomicU8::new(NOT_STARTED);

/// The running EAL.
///
/// It has one lcore, the main one, and starts no thread that polls: worker threads are the caller's,
/// each with a [`crate::ThreadRegistration`]. Dropping this value leaves EAL running to the end of the
/// process, since buffers and pools may live on in any thread; [`Eal::shutdown`] ends it in order.
#[derive(Debug)]
pub struct Eal {
    memory: Memory,
}

impl Eal {
    /// Starts EAL on the calling thread.
    ///
    /// EAL pins its caller to the main core; the affinity that the thread had is restored before this
    /// returns. The calling thread is EAL's main lcore and needs no registration.
    ///
    /// # Errors
    /// [`Error::EalStartedTwice`] at the second call, even where the first one failed;
    /// [`Error::NoHugepages`] where they are demanded; [`Error::EalInit`] where DPDK refuses.
    pub fn init(config: EalConfig) -> Result<Self> {
        let memory = memory::choose(config.huge, config.memory_mb)?;
        let core = config.main_core.unwrap_or_else(current_core);
        let prefix = config.file_prefix.clone().unwrap_or_else(|| format!("godwit-{}", std::process::id()));
        let args = args::build(&config, memory, core, &prefix);
        let c_args = to_c(&args)?;
        PHASE
            .compare_exchange(NOT_STARTED, STARTING, Ordering::AcqRel, Ordering::Acquire)
            .map_err(|_| Error::EalStartedTwice)?;

        let affinity = Affinity::of_this_thread();
        let result = start(args, c_args);
        affinity.restore();
        PHASE.store(if result.is_ok() { RUNNING } else { ENDED }, Ordering::Release);
        result.map(|()| Self { memory })
    }

    /// EAL got hugepages, and not ordinary pages in their place.
    pub fn uses_hugepages(&self) -> bool {
        self.memory == Memory::Huge
    }

    /// Ends EAL: its files and devices are given back. It cannot be started again. A failure is logged, as
    /// the process is about to end.
    ///
    /// # Safety
    /// All ports, queues and thread registrations have been dropped, no other thread is in a call of
    /// this crate, and after this no pool or buffer is used, nor any buffer dropped.
    pub unsafe fn shutdown(self) {
        PHASE.store(ENDED, Ordering::Release);
        // SAFETY: EAL was started, as `self` exists; the caller vouches that nothing uses it any more.
        let rc = unsafe { dpdk_sys::rte_eal_cleanup() };
        if rc != 0 {
            tracing::warn!("EAL's clean-up failed: {}", Errno::from_rc(rc));
        }
    }
}

/// The release of the DPDK that is loaded, such as `DPDK 22.11.11`. Works before EAL starts.
pub fn version() -> &'static str {
    // SAFETY: returns a terminated text in DPDK's static storage, filled before it returns.
    unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_str().unwrap_or("DPDK of unknown version")
}

/// Guards calls that would crash without EAL.
pub(crate) fn ensure_running() -> Result<()> {
    if is_running() { Ok(()) } else { Err(Error::EalNotRunning) }
}

/// EAL has started and was not shut down.
pub(crate) fn is_running() -> bool {
    PHASE.load(Ordering::Acquire) == RUNNING
}

/// Calls `rte_eal_init`. `c_args` is leaked: EAL keeps pointers into it.
fn start(args: Vec<String>, c_args: Vec<CString>) -> Result<()> {
    if let Err(errno) = log::redirect() {
        tracing::warn!("DPDK's log cannot be redirected and goes to stderr: {errno}");
    }
    let mut argv: Vec<*mut c_char> = c_args.into_iter().map(CString::into_raw).collect();
    argv.push(std::ptr::null_mut());
    let argv = argv.leak();
    let argc = i32::try_from(args.len()).unwrap_or(i32::MAX);
    // SAFETY: argv holds argc writable, terminated strings and a closing NULL, all of which live to
    // the process's end; PHASE admits one caller a process.
    let (rc, said) = log::capture(|| unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) });
    if rc < 0 {
        let errno = Errno::last();
        return Err(Error::EalInit { args: args.join(" "), errno, said, remedy: init_remedy(errno) });
    }
    let _ = log::redirect();
    remove_runtime_folder();
    Ok(())
}

/// Removes the folder that EAL makes for each file prefix. Without telemetry and shared memory nothing is
/// ever put there, and a process that ends leaves it behind.
fn remove_runtime_folder() {
    // SAFETY: EAL runs; it returns a terminated text in its static storage.
    let folder = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    if let Ok(folder) = folder.to_str() {
        // Where it is not empty, or gone, that is as well.
        let _ = std::fs::remove_dir(folder);
    }
}

fn init_remedy(errno: Errno) -> &'static str {
    match errno.0 {
        libc::EACCES | libc::EPERM => {
            "It needs root, or CAP_IPC_LOCK, CAP_SYS_ADMIN and write access to its runtime folder"
        }
        libc::ENOMEM => "Lower the memory asked for, or reserve more hugepages (`sysctl vm.nr_hugepages=N`)",
        libc::EINVAL | libc::ENOEXEC => "Check the arguments and the names of the devices among them",
        libc::EAGAIN => "Another DPDK process uses the same file prefix: choose another one",
        _ => "Start with a log level of debug to see what it tried",
    }
}

fn to_c(args: &[String]) -> Result<Vec<CString>> {
    args.iter()
        .map(|arg| CString::new(arg.as_str()).map_err(|_| Error::Nul(arg.replace('\0', "\\0"))))
        .collect()
}

/// The core this thread runs on; 0 where the kernel does not say.
fn current_core() -> usize {
    // SAFETY: no arguments, no memory touched.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

/// The cores a thread may run on, kept while EAL pins it.
struct Affinity(Option<libc::cpu_set_t>);

impl Affinity {
    fn of_this_thread() -> Self {
        // SAFETY: cpu_set_t is a plain bit set, for which all zeroes is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is writable and its true size is given; 0 means the calling thread.
        let rc = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
        Self((rc == 0).then_some(set))
    }

    fn restore(self) {
        let Some(set) = self.0 else { return };
        // SAFETY: `set` is readable and its true size is given; 0 means the calling thread.
        if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } != 0 {
            tracing::warn!("the thread that started EAL stays pinned: {}", std::io::Error::last_os_error());
        }
    }
}
