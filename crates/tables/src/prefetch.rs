//! The one intrinsic that safe Rust lacks on the packet path.
#![allow(unsafe_code)]

/// Asks the cache for the line that `at` lies in. Changes nothing but time.
#[inline(always)]
pub fn read<T: ?Sized>(at: &T) {
    hint(core::ptr::from_ref(at).cast());
}

/// Asks the cache for the line `bytes` before `at` (where the headroom of a packet lies) or, if
/// negative, after it.
#[inline(always)]
pub fn near<T: ?Sized>(at: &T, bytes: isize) {
    hint(core::ptr::from_ref(at).cast::<u8>().wrapping_offset(-bytes));
}

#[inline(always)]
fn hint(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 is a hint that never faults, whatever the address, and has no effect on
    // memory or registers; SSE is part of every x86_64 target.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
