//! The time stamp counter, the data path's clock.

/// The counter's value, in ticks of [`tsc_hz`].
#[inline]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 has RDTSC, and Linux lets user space execute it.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // SAFETY: reads a counter; no precondition.
        unsafe { dpdk_sys::godwit_rdtsc() }
    }
}

/// Ticks a second, as EAL measured them at its start; 0 before.
pub fn tsc_hz() -> u64 {
    // SAFETY: reads an integer that EAL writes once, while it starts.
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}
