//! A memory barrier that one side pays for: the side that is rare.
//!
//! A worker says that it is in a ring, then looks whether it may be; whoever closes the ring says so, then looks
//! whether a worker is in it. Each must see what the other said first, for which both need a full barrier between
//! their store and their load (Dekker's algorithm). `membarrier(2)` has the kernel put one into every thread of the
//! process at once, so that a worker needs none of its own: it only keeps the compiler from changing the order.

use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence, fence};

/// Whether the kernel knows the call; asked once, when the first guest's port is made.
static KERNEL: OnceLock<bool> = OnceLock::new();

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes numbers and touches no memory of the process.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Whether [`heavy`] reaches all threads, so that [`light`] may be used on the other side. Where it does not, both
/// sides need full barriers.
pub(super) fn is_one_sided() -> bool {
    *KERNEL.get_or_init(|| membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
}

/// The frequent side's barrier between its store and its load, where [`is_one_sided`].
#[inline(always)]
pub(super) fn light() {
    compiler_fence(Ordering::SeqCst);
}

/// The rare side's barrier between its store and its load. Takes a microsecond, and interrupts the cores that run
/// threads of the process for as long.
pub(super) fn heavy() {
    fence(Ordering::SeqCst);
    if is_one_sided() && !membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        // Registered, it fails for want of memory at most; a moment later there is some.
        while !membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            std::thread::yield_now();
        }
    }
    fence(Ordering::SeqCst);
}
