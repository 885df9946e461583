//! DPDK's log, turned into `tracing` events of target `dpdk`.
//!
//! Lines that are logged while a fallible call runs are gathered and become part of that call's
//! error instead: the caller decides whether they are worth a line.

use std::cell::RefCell;
use std::ffi::c_char;

use crate::error::{Errno, Said};

thread_local! {
    /// The lines of the running [`capture`], if one runs on this thread.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The longest text that an error carries along.
const MAX_SAID: usize = 400;

/// Sends DPDK's log here. Called before EAL starts and once more after, as newer releases choose
/// their own output while they start.
pub(crate) fn redirect() -> Result<(), Errno> {
    // SAFETY: `sink` keeps the callback's contract: it reads `len` bytes at `text` and nothing else.
    match unsafe { dpdk_sys::godwit_log_redirect(Some(sink)) } {
        0 => Ok(()),
        rc => Err(Errno::from_rc(rc)),
    }
}

/// Runs `call` and returns what DPDK logged on this thread meanwhile, at level warning or worse.
pub(crate) fn capture<T>(call: impl FnOnce() -> T) -> (T, Said) {
    CAPTURED.set(Some(String::new()));
    let result = call();
    (result, Said(CAPTURED.take().unwrap_or_default()))
}

/// The stream's end: DPDK calls it with each write of its log.
extern "C" fn sink(level: u32, text: *const c_char, len: usize) {
    // SAFETY: the shim passes a buffer of `len` readable bytes that lives until this returns.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if !gather(level, line) {
            emit(level, line);
        }
    }
}

/// Adds the line to the running capture. `false` where none runs.
fn gather(level: u32, line: &str) -> bool {
    CAPTURED.with(|captured| {
        let Ok(mut captured) = captured.try_borrow_mut() else { return false };
        let Some(said) = captured.as_mut() else { return false };
        tracing::debug!(target: "dpdk", "{line}");
        if level <= WARNING && said.len() < MAX_SAID {
            if !said.is_empty() {
                said.push_str(" / ");
            }
            said.push_str(line);
        }
        true
    })
}

/// Levels of rte_log.h; lower is worse.
const ERR: u32 = 4;
const WARNING: u32 = 5;
const INFO: u32 = 7;

fn emit(level: u32, line: &str) {
    if level <= ERR {
        tracing::error!(target: "dpdk", "{line}");
    } else if level <= WARNING {
        tracing::warn!(target: "dpdk", "{line}");
    } else if level <= INFO {
        tracing::info!(target: "dpdk", "{line}");
    } else {
        tracing::debug!(target: "dpdk", "{line}");
    }
}
