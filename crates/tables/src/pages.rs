//! Memory of large tables: in huge pages where the kernel has them to give.
//!
//! A thousand locations lie in a thousand pages of 4 KiB, and each lookup would wait for a page
//! walk; in pages of 2 MiB a million of them need 16.
#![allow(unsafe_code)]

/// Zeroed words, not resident yet; above a huge page's size the kernel is asked for huge pages.
pub(crate) fn zeroed(words: usize) -> Vec<u64> {
    // `vec!` of zero integers asks the allocator for zeroed memory and does not touch it.
    let memory = vec![0u64; words];
    #[cfg(target_os = "linux")]
    if words * 8 >= HUGE {
        const PAGE: usize = 4096;
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
    fn large_memory_is_zero_and_stays_as_it_was() {
        let mut memory = super::zeroed(1 << 19);
        assert!(memory.iter().all(|&w| w == 0));
        memory[513] = 7;
        memory[512] = 9;
        super::touch(&mut memory);
        assert_eq!((memory[512], memory[513], memory.iter().sum::<u64>()), (9, 7, 16));
    }
}
