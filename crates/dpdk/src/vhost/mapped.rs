//! Memory that a front end takes back from under the switch.
//!
//! A front end shares files, and may cut one short at any time; whoever touches what is gone gets SIGBUS, which ends a
//! process. Here an empty page is put in place of what is missing, and the thread goes on: what it reads are zeros, and
//! what it writes nobody sees. The guest is lost by that, and nobody else.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};
use std::{io, mem, ptr};

/// Connections of the library (`RTE_MAX_VHOST_DEVICE`), and pieces of memory of each: eight of the guest's, and the log
/// of a migration.
const CONNECTIONS: usize = 1024;
const PIECES: usize = 9;
/// The log's place among them.
const LOG: usize = 8;
/// The page of a log: no front end has one in hugepages.
const PAGE: usize = 4096;

/// One piece; nothing where it starts at 0.
struct Piece {
    start: AtomicUsize,
    end: AtomicUsize,
    page: AtomicUsize,
    /// A page was put in place of one that is gone.
    gone: AtomicBool,
}

static ALL: [Piece; CONNECTIONS * PIECES] = [const { Piece::none() }; CONNECTIONS * PIECES];

thread_local! {
    /// The library's thread maps a guest's memory right now, and looks into it before it can be noted.
    static MAPPING: Cell<bool> = const { Cell::new(false) };
}

/// Pages that such memory may have.
const PAGES: [usize; 3] = [PAGE, 2 << 20, 1 << 30];

/// What SIGBUS led to before.
static BEFORE: Before = Before(OnceLock::new());

struct Before(OnceLock<libc::sigaction>);

// SAFETY: a plain value that is written once, before the handler is there.
unsafe impl Sync for Before {}
// SAFETY: as above.
unsafe impl Send for Before {}

impl Piece {
    const fn none() -> Piece {
        Piece {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            page: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
        }
    }

    fn set(&self, start: usize, len: usize, page: usize) {
        self.start.store(0, Ordering::SeqCst);
        self.gone.store(false, Ordering::Relaxed);
        self.end.store(start.saturating_add(len), Ordering::Relaxed);
        self.page.store(page.max(PAGE), Ordering::Relaxed);
        // Release: the handler, which begins with it, sees the rest.
        self.start.store(start, Ordering::Release);
    }

    /// The page that an address is in, and its length.
    fn page_of(&self, address: usize) -> Option<(usize, usize)> {
        let start = self.start.load(Ordering::Acquire);
        let (end, page) = (self.end.load(Ordering::Relaxed), self.page.load(Ordering::Relaxed));
        (start != 0 && (start..end).contains(&address)).then(|| (address - (address - start) % page, page))
    }
}

/// The pieces of a connection.
fn pieces(vid: i32) -> &'static [Piece] {
    let first = usize::try_from(vid).unwrap_or(CONNECTIONS) * PIECES;
    ALL.get(first..first + PIECES).unwrap_or_default()
}

/// Has the process live on when memory that was noted is gone.
pub(super) fn guard() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeroes is an action that is not looked at before the call below has filled it in.
        let mut before: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: as above, and of the handler's all that counts is set here.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both are valid; the handler does nothing that a handler may not.
        let done = unsafe {
            libc::sigaction(libc::SIGBUS, ptr::null(), &mut before) == 0 && {
                let _ = BEFORE.0.set(before);
                libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) == 0
            }
        };
        if !done {
            let error = io::Error::last_os_error();
            tracing::warn!("a guest that cuts its memory short will end the switch: {error}");
        }
    });
}

/// On the library's thread: it maps a guest's memory from now on, or has done so.
pub(super) fn maps(now: bool) {
    MAPPING.set(now);
}

/// Notes the memory of a connection as it is mapped now, in place of what was noted.
pub(super) fn note_memory(vid: i32) {
    let mut found = [dpdk_sys::godwit_vhost_piece::default(); LOG];
    // SAFETY: there is room for as many as are said; the connection's memory was told of.
    let n = unsafe { dpdk_sys::godwit_vhost_memory(vid, found.as_mut_ptr(), found.len() as u32) };
    for (at, piece) in pieces(vid).iter().take(LOG).enumerate() {
        match found.get(at).filter(|_| at < usize::try_from(n).unwrap_or(0)) {
            Some(f) => piece.set(f.start as usize, f.len as usize, f.page as usize),
            None => piece.start.store(0, Ordering::SeqCst),
        }
    }
}

/// The same of its log.
pub(super) fn note_log(vid: i32) {
    let mut found = dpdk_sys::godwit_vhost_piece::default();
    // SAFETY: `found` is writable; any number of a connection may be asked for.
    let known = unsafe { dpdk_sys::godwit_vhost_log(vid, &mut found) } == 0 && found.start != 0;
    if let Some(piece) = pieces(vid).get(LOG) {
        let start = found.start as usize;
        match known {
            true => piece.set(start - start % PAGE, found.len as usize + start % PAGE, PAGE),
            false => piece.start.store(0, Ordering::SeqCst),
        }
    }
}

/// Forgets the guest's memory of a connection, which may be unmapped now, or all of it.
pub(super) fn forget(vid: i32, log_too: bool) {
    let n = if log_too { PIECES } else { LOG };
    pieces(vid).iter().take(n).for_each(|piece| piece.start.store(0, Ordering::SeqCst));
}

/// Whether some of a connection's memory was gone when it was touched, since the last call.
pub(super) fn was_gone(vid: i32) -> bool {
    pieces(vid).iter().fold(false, |any, piece| any | piece.gone.swap(false, Ordering::Relaxed))
}

/// Puts an empty page at an address that a guest's missing one has. `false` where the kernel does not.
fn put_page(at: usize, len: usize) -> bool {
    let (rights, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    // SAFETY: the page lies in a mapping of a guest's file, made by the library and still there, which goes as a whole
    // later; nothing but guests' bytes is in it, which may change at any time anyway.
    unsafe { libc::mmap(at as *mut libc::c_void, len, rights, flags, -1, 0) != libc::MAP_FAILED }
}

/// On SIGBUS, in the thread that touched the memory. Neither locks nor allocates.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid description, in which SIGBUS has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    // SAFETY: the thread's own, valid for its life.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let kept = unsafe { *errno };
    let found = ALL.iter().find_map(|piece| Some((piece, piece.page_of(address)?)));
    let mended = match found {
        Some((piece, (page, len))) => {
            piece.gone.store(true, Ordering::Relaxed);
            put_page(page, len)
        }
        // A smaller page than the file's is refused as such.
        None => MAPPING.get() && PAGES.iter().any(|&len| put_page(address - address % len, len)),
    };
    if !mended {
        // Not ours: what happened before happens when the thread touches it again.
        // SAFETY: the action was read from the kernel; a default one ends the process.
        unsafe {
            match BEFORE.0.get() {
                Some(before) => libc::sigaction(signal, before, ptr::null_mut()),
                None => libc::signal(signal, libc::SIG_DFL) as i32,
            };
        }
    }
    // SAFETY: as above.
    unsafe { *errno = kept };
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    const LEN: usize = 4 * PAGE;
    /// A number of a connection that no test of the library uses.
    const VID: i32 = 1023;

    #[test]
    fn r11_memory_that_is_gone_reads_as_zeros_and_harms_nobody() {
        guard();
        let file = tempfile::tempfile().expect("a file");
        file.set_len(LEN as u64).expect("there is room");
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a mapping of its own.
        let at = unsafe { libc::mmap(ptr::null_mut(), LEN, rights, flags, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED);
        let start = at as usize;
        // SAFETY: a byte of the mapping, which nobody else uses.
        let byte = |n: usize| unsafe { std::sync::atomic::AtomicU8::from_ptr((start + n) as *mut u8) };
        pieces(VID)[3].set(start, LEN, PAGE);
        (0..LEN).step_by(PAGE).for_each(|n| byte(n).store(7, Ordering::Relaxed));
        assert!(!was_gone(VID));
        file.set_len(PAGE as u64).expect("it can be cut");
        assert_eq!(byte(0).load(Ordering::Relaxed), 7, "what is there stays");
        assert_eq!(byte(2 * PAGE + 9).load(Ordering::Relaxed), 0);
        byte(3 * PAGE).store(5, Ordering::Relaxed);
        assert_eq!(byte(3 * PAGE).load(Ordering::Relaxed), 5);
        assert!(was_gone(VID) && !was_gone(VID));
        forget(VID, true);
        assert_eq!(ALL.iter().find_map(|piece| piece.page_of(start)), None);
        // SAFETY: the mapping is the test's, and not used any more.
        assert_eq!(unsafe { libc::munmap(at, LEN) }, 0);
        assert!(pieces(-1).is_empty() && pieces(1024).is_empty());
    }
}
