//! Pools of packet buffers.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::mbuf::Mbuf;
use crate::{eal, log};

/// Bytes before a fresh buffer's data: room for an outer header.
pub const HEADROOM: u16 = 128;

/// The largest cache a thread may have (`RTE_MEMPOOL_CACHE_MAX_SIZE`).
const MAX_CACHE: u32 = 512;

/// A pool of buffers of one size, shared by all threads.
///
/// Registered threads ([`crate::ThreadRegistration`]) allocate from caches of their own. The pool's
/// memory stays with DPDK to the end of the process: a buffer may outlive the last handle of its pool
/// in a driver's ring or in another thread.
#[derive(Debug)]
pub struct Mempool {
    pool: NonNull<dpdk_sys::rte_mempool>,
    name: String,
    size: u32,
    node: Option<u32>,
}

// SAFETY: rte_mempool is made for concurrent use: its ring is multi-producer and multi-consumer, and
// its caches are one a thread. The pool is never freed while EAL runs.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a pool of `count` buffers (best one less than a power of two), each with `data_room`
    /// bytes besides its headroom of [`HEADROOM`].
    ///
    /// `name` is unique in the process and at most 25 bytes long. `cache` is how many buffers a thread
    /// keeps for itself; it is cut to 512 and to two thirds of `count`. `socket` is the NUMA node,
    /// `None` any.
    ///
    /// # Errors
    /// [`Error::EalNotRunning`]; [`Error::Mempool`] where memory does not suffice or the name is taken.
    pub fn new(name: &str, count: u32, cache: u32, data_room: u16, socket: Option<i32>) -> Result<Arc<Self>> {
        eal::ensure_running()?;
        let c_name = CString::new(name).map_err(|_| Error::Nul(name.replace('\0', "\\0")))?;
        let cache = cache.min(MAX_CACHE).min(count / 3 * 2);
        let room = data_room.saturating_add(HEADROOM);
        let (pool, said) = log::capture(|| {
            // SAFETY: EAL runs; `c_name` is terminated and copied by DPDK; the numbers are checked by it.
            unsafe {
                dpdk_sys::rte_pktmbuf_pool_create(
                    c_name.as_ptr(),
                    count,
                    cache,
                    0,
                    room,
                    socket.unwrap_or(-1),
                )
            }
        });
        let Some(pool) = NonNull::new(pool) else {
            let errno = Errno::last();
            let remedy = create_remedy(errno);
            return Err(Error::Mempool { name: name.into(), count, data_room: room, errno, said, remedy });
        };
        let node = socket.and_then(|s| s.try_into().ok());
        Ok(Arc::new(Self { pool, name: name.into(), size: count, node }))
    }

    /// An empty buffer with [`HEADROOM`] bytes before its data, or `None` where the pool is empty.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is a live packet-buffer pool; a buffer it returns is reset and has no other
        // owner.
        unsafe { NonNull::new(dpdk_sys::godwit_mbuf_alloc(self.pool.as_ptr())).map(|m| Mbuf::from_raw(m)) }
    }

    /// Appends `n` empty buffers to `out`, all or none. `false` where the pool has fewer left, or
    /// `out` less spare capacity: it is never grown.
    #[inline]
    pub fn alloc_bulk(&self, out: &mut Vec<Mbuf>, n: usize) -> bool {
        let len = out.len();
        let Ok(count) = u32::try_from(n) else { return false };
        if out.capacity() - len < n {
            return false;
        }
        // SAFETY: the spare capacity has room for `n` pointers, to which Mbuf is transparent; on success
        // DPDK has written all of them, each to a reset buffer without another owner.
        unsafe {
            let spare = out.as_mut_ptr().add(len).cast();
            if dpdk_sys::godwit_mbuf_alloc_bulk(self.pool.as_ptr(), spare, count) != 0 {
                return false;
            }
            out.set_len(len + n);
        }
        true
    }

    /// Buffers that somebody owns: Rust code, a driver's ring. Exact when nothing is in motion; takes a
    /// walk over all caches, so it is not for the packet path.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool is live; DPDK only reads counters.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.pool.as_ptr()) }
    }

    /// Buffers that nobody owns, in the ring or in a cache. As costly as [`Self::in_use`].
    pub fn available(&self) -> u32 {
        // SAFETY: the pool is live; DPDK only reads counters.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many buffers it has in all.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The NUMA node that it was made on; `None` where none was asked for.
    pub fn numa_node(&self) -> Option<u32> {
        self.node
    }

    /// Bytes a buffer holds after its headroom.
    pub fn data_room(&self) -> u16 {
        // SAFETY: the pool is a live packet-buffer pool.
        unsafe { dpdk_sys::godwit_pool_data_room(self.pool.as_ptr()) }.saturating_sub(HEADROOM)
    }

    pub(crate) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.pool.as_ptr()
    }
}

fn create_remedy(errno: Errno) -> &'static str {
    match errno.0 {
        libc::ENOMEM => "Ask for fewer buffers, or give DPDK more memory (EalConfig::memory_mb)",
        libc::EEXIST => "Give the pool a name of its own",
        libc::ENAMETOOLONG => "Give the pool a name of at most 25 bytes",
        libc::EINVAL => "Check the number of buffers, the cache and the size of a buffer",
        _ => "See DPDK's log",
    }
}
