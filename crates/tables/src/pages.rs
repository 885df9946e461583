//! Memory of large tables: in huge pages where the kernel has them to give. Memory of holds: in small ones, taken when
//! they are touched and given back.
//!
//! A thousand locations lie in a thousand pages of 4 KiB, and each lookup would wait for a page
//! walk; in pages of 2 MiB a million of them need 16. A hold is written and read once, and zeroing 2 MiB for its first
//! frame would stop the worker.
#![allow(unsafe_code)]

/// Zeroed words, not resident yet; above a huge page's size the kernel is asked for huge pages.
pub(crate) fn zeroed(words: usize) -> Vec<u64> {
    // `vec!` of zero integers asks the allocator for zeroed memory and does not touch it.
    let memory = vec![0u64; words];
    #[cfg(target_os = "linux")]
    if words * 8 >= HUGE {
        let from = memory.as_ptr().addr().next_multiple_of(PAGE);
        let end = memory.as_ptr().addr() + words * 8;
        // SAFETY: the range is whole pages inside `memory`. The advice changes neither content nor
        // protection, only how the kernel backs the range; an error leaves all as it was.
        unsafe {
            libc::madvise(
                memory.as_ptr().with_addr(from).cast_mut().cast(),
                (end - from) / PAGE * PAGE,
                libc::MADV_HUGEPAGE,
            );
        }
    }
    memory
}

/// Zeroed bytes, not resident yet, in pages of [`PAGE`] bytes.
pub(crate) fn zeroed_bytes(len: usize) -> Vec<u8> {
    let mut memory = vec![0u8; len];
    #[cfg(target_os = "linux")]
    advise(&mut memory, libc::MADV_NOHUGEPAGE);
    memory
}

/// Gives the whole pages inside `memory` back to the kernel: they are zero from then on, and take no memory until they
/// are touched. Where the kernel refuses, as for locked pages, they stay as they are.
pub(crate) fn give_back(memory: &mut [u8]) {
    #[cfg(target_os = "linux")]
    advise(memory, libc::MADV_DONTNEED);
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

#[cfg(target_os = "linux")]
fn advise(memory: &mut [u8], advice: libc::c_int) {
    let from = memory.as_ptr().align_offset(PAGE).min(memory.len());
    let whole = &mut memory[from..];
    let len = whole.len() / PAGE * PAGE;
    // SAFETY: the range is whole pages inside `whole`, which nobody else can read or write meanwhile. The memory is the
    // allocator's, private and anonymous: its pages stay or become zeroes, and both are values of `u8`. An error
    // leaves all as it was.
    unsafe {
        libc::madvise(whole.as_mut_ptr().cast(), len, advice);
    }
}

/// A page, in bytes.
pub(crate) const PAGE: usize = 4096;

/// A huge page on x86-64, in bytes.
const HUGE: usize = 2 << 20;

/// Makes memory resident, so that no later write waits for the kernel. Called by the thread that
/// will use it, the memory lies on that thread's NUMA node.
pub(crate) fn touch(memory: &mut [u64]) {
    for word in memory.iter_mut().step_by(512) {
        // SAFETY: `word` is a valid, exclusive reference; writing back what was read changes nothing.
        unsafe { core::ptr::write_volatile(word, core::ptr::read_volatile(word)) };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn whole_pages_go_back_and_nothing_else() {
        let mut memory = super::zeroed_bytes(5 * super::PAGE);
        memory.fill(7);
        let from = memory.as_ptr().align_offset(super::PAGE) + super::PAGE;
        super::give_back(&mut memory[from..from + super::PAGE]);
        let there = memory.iter().filter(|&&b| b == 7).count();
        assert_eq!(there, 4 * super::PAGE);
        assert!(memory[from..from + super::PAGE].iter().all(|&b| b == 0));
        // Less than a page: nothing happens.
        super::give_back(&mut memory[1..50]);
        assert_eq!(memory.iter().filter(|&&b| b == 7).count(), there);
    }

    #[test]
    fn large_memory_is_zero_and_stays_as_it_was() {
        let mut memory = super::zeroed(1 << 19);
        assert!(memory.iter().all(|&w| w == 0));
        memory[513] = 7;
        memory[512] = 9;
        super::touch(&mut memory);
        assert_eq!((memory[512], memory[513], memory.iter().sum::<u64>()), (9, 7, 16));
    }
}
