//! The one intrinsic that safe Rust lacks on the packet path.
#![allow(unsafe_code)]

/// Asks the cache for the line that `at` lies in. Changes nothing but time.
#[inline(always)]
pub fn read<T: ?Sized>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is a hint that never faults and has no effect on memory or registers; the
    // address comes from a live reference, and SSE is part of every x86_64 target.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(at).cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
