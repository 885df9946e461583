//! The functions of DPDK that are stepped in front of: starting a port, and asking for its address.
//!
//! The names are DPDK's, so that the program's calls arrive here; DPDK's own functions are what the next library has
//! by that name.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::slice;
use std::sync::Mutex;

use crate::queue::{Buffer, Queue};
use crate::settings::{self, Play, Settings};

type Port = u16;
type Start = unsafe extern "C" fn(Port) -> c_int;
type GetMac = unsafe extern "C" fn(Port, *mut [u8; 6]) -> c_int;
type GetName = unsafe extern "C" fn(Port, *mut c_char) -> c_int;
type Callback = unsafe extern "C" fn(Port, u16, *mut *mut Buffer, u16, u16, *mut c_void) -> u16;
type AddCallback = unsafe extern "C" fn(Port, u16, Callback, *mut c_void) -> *const c_void;

/// Longest name of a port with its end (`RTE_ETH_NAME_MAX_LEN`).
const NAME: usize = 64;
/// What DPDK says of a bad argument.
const EINVAL: c_int = -22;

/// Ports that play a capture, and on how many queues.
static PLAYING: Mutex<Vec<(Port, u16)>> = Mutex::new(Vec::new());

/// The next function by that name after those of this library; null if there is none.
fn next(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends with a zero, and looking it up has no further conditions.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

/// What a port plays.
fn play_of(port: Port, settings: &Settings) -> Option<&Play> {
    let f = next(c"rte_eth_dev_get_name_by_port");
    if f.is_null() {
        return None;
    }
    // SAFETY: DPDK's function of this name has had this signature since it was introduced.
    let get = unsafe { transmute::<*mut c_void, GetName>(f) };
    let mut name = [0 as c_char; NAME];
    // SAFETY: there is room for the longest name.
    if unsafe { get(port, name.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: DPDK wrote a name that ends with a zero.
    settings.of(unsafe { CStr::from_ptr(name.as_ptr()) }.to_bytes())
}

/// Has all queues of a port play the capture that do not yet; false where DPDK takes no callback.
fn play(port: Port, what: &'static Play) -> bool {
    let f = next(c"rte_eth_add_rx_callback");
    if f.is_null() {
        return false;
    }
    // SAFETY: DPDK's function of this name has had this signature since 16.07.
    let add = unsafe { transmute::<*mut c_void, AddCallback>(f) };
    let mut playing = PLAYING.lock().unwrap_or_else(|e| e.into_inner());
    let at = playing.iter().position(|(p, _)| *p == port).unwrap_or_else(|| {
        playing.push((port, 0));
        playing.len() - 1
    });
    loop {
        // Never taken back: a port that stops and starts again goes on with it.
        let queue: *mut Queue = Box::leak(Box::new(Queue::new(&what.capture)));
        // SAFETY: the callback has the signature that DPDK calls, and its last argument lives for ever.
        if unsafe { add(port, playing[at].1, received, queue.cast()) }.is_null() {
            // SAFETY: it came from a box, and DPDK did not take it.
            drop(unsafe { Box::from_raw(queue) });
            return playing[at].1 > 0;
        }
        playing[at].1 += 1;
    }
}

/// What DPDK calls with each burst that the device handed out.
unsafe extern "C" fn received(
    _port: Port,
    _queue: u16,
    buffers: *mut *mut Buffer,
    n: u16,
    _max: u16,
    queue: *mut c_void,
) -> u16 {
    if n > 0 {
        // SAFETY: DPDK hands over an array of so many buffers, which the poller of this queue alone has, and the
        // queue that `play` made.
        unsafe { (*queue.cast::<Queue>()).fill(slice::from_raw_parts(buffers, n.into())) };
    }
    n
}

/// Starts a port, as DPDK's function of that name does; the one that is to play the capture does so from then on. Where
/// that is not possible the port does not start, and standard error has the reason.
///
/// # Safety
/// That of DPDK's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rte_eth_dev_start(port: Port) -> c_int {
    let f = next(c"rte_eth_dev_start");
    if f.is_null() {
        return EINVAL;
    }
    match settings::get() {
        Ok(Some(settings)) => {
            if let Some(what) = play_of(port, settings)
                && !play(port, what)
            {
                eprintln!("godwit-replay: DPDK takes no receive callback for {}", what.device);
                return EINVAL;
            }
        }
        Ok(None) => {}
        Err(why) => {
            eprintln!("godwit-replay: {why}");
            return EINVAL;
        }
    }
    // SAFETY: DPDK's function of this name, and the caller's promise.
    unsafe { transmute::<*mut c_void, Start>(f)(port) }
}

/// Says what a port's MAC address is, as DPDK's function of that name does; of the one that plays the capture, what
/// was asked for.
///
/// # Safety
/// That of DPDK's function: there is room for an address, or the pointer is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rte_eth_macaddr_get(port: Port, mac: *mut [u8; 6]) -> c_int {
    let f = next(c"rte_eth_macaddr_get");
    if f.is_null() {
        return EINVAL;
    }
    // SAFETY: DPDK's function of this name, and the caller's promise.
    let result = unsafe { transmute::<*mut c_void, GetMac>(f)(port, mac) };
    if let (0, Ok(Some(settings))) = (result, settings::get())
        && let Some(wanted) = settings.mac
        && play_of(port, settings).is_some()
    {
        // SAFETY: DPDK has just written an address there, so it is not null.
        unsafe { mac.write(wanted) };
    }
    result
}
