//! librte_vhost's callbacks, brought to the guest of their socket.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys::godwit_vhost_events;

use super::guest::{Guest, Verdict};

/// Files that the library's thread watches at most (`MAX_FDS`), less one that wakes it.
const FILES: usize = 1023;

/// Guests that there is room for where the switch listens: each takes two of the library's files.
pub const MAX_LISTENING_GUESTS: usize = FILES / 2;

/// Sockets that are open, or about to be.
static SOCKETS: Mutex<Sockets> = Mutex::new(BTreeMap::new());

/// By their paths.
type Sockets = BTreeMap<CString, Arc<Guest>>;

/// Why a socket cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Another port has it.
    Taken,
    /// The library has no room for it.
    Full,
}

/// The library keeps a pointer to it.
pub(super) static EVENTS: godwit_vhost_events = godwit_vhost_events {
    connected: Some(connected),
    disconnected: Some(disconnected),
    attached: Some(attached),
    detached: Some(detached),
    ring_changed: Some(ring_changed),
    before: Some(before),
    after: Some(after),
};

fn sockets() -> MutexGuard<'static, Sockets> {
    SOCKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the callbacks of its path come to the guest.
pub(super) fn register(guest: &Arc<Guest>) -> Result<(), Refused> {
    let mut sockets = sockets();
    if sockets.contains_key(&guest.path) {
        return Err(Refused::Taken);
    }
    if sockets.values().chain([guest]).map(|g| g.files).sum::<usize>() > FILES {
        return Err(Refused::Full);
    }
    sockets.insert(guest.path.clone(), guest.clone());
    Ok(())
}

/// Ends that.
pub(super) fn unregister(guest: &Guest) {
    sockets().remove(&guest.path);
}

/// The guest of a callback's socket. The lock is not held while it is told.
fn guest(path: *const c_char) -> Option<Arc<Guest>> {
    // SAFETY: the shim passes a terminated text that lives until the callback returns.
    let path = unsafe { CStr::from_ptr(path) };
    sockets().get(path).cloned()
}

/// What a callback answers that may refuse.
fn answer(good: bool) -> i32 {
    if good { 0 } else { -1 }
}

extern "C" fn connected(path: *const c_char, vid: i32) -> i32 {
    answer(guest(path).is_some_and(|guest| guest.connected(vid)))
}

extern "C" fn disconnected(path: *const c_char, vid: i32) {
    if let Some(guest) = guest(path) {
        guest.disconnected(vid);
    }
}

extern "C" fn attached(path: *const c_char, vid: i32) -> i32 {
    answer(guest(path).is_some_and(|guest| guest.attached(vid)))
}

extern "C" fn detached(path: *const c_char, vid: i32) {
    if let Some(guest) = guest(path) {
        guest.detached(vid);
    }
}

extern "C" fn ring_changed(path: *const c_char, vid: i32, ring: u16, enabled: i32) {
    if let Some(guest) = guest(path) {
        guest.ring_changed(vid, ring, enabled != 0);
    }
}

extern "C" fn before(path: *const c_char, vid: i32, request: u32, word: *mut u64) -> i32 {
    // SAFETY: the shim passes a word of its own, which nobody else refers to.
    let word = unsafe { &mut *word };
    match guest(path).map_or(Verdict::Pass, |guest| guest.before(vid, request, *word)) {
        Verdict::Pass => 0,
        Verdict::Instead(other) => {
            *word = other;
            1
        }
        Verdict::HangUp => -1,
    }
}

extern "C" fn after(path: *const c_char, vid: i32, request: u32, word: u64) {
    if let Some(guest) = guest(path) {
        guest.after(vid, request, word);
    }
}
