//! Link state, polled and by event.

use std::ffi::c_void;

use dpdk_sys::godwit_event_handler;

use crate::error::Errno;

/// A port's link at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Frames can pass.
    pub up: bool,
    /// In Mbit/s; `None` where the device does not know.
    pub speed_mbps: Option<u32>,
    /// Both directions at once.
    pub full_duplex: bool,
}

/// What DPDK tells about a port's link, from its interrupt thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The link went up or down, or changed its speed.
    Changed(Link),
    /// The device is gone (unplugged without notice). Its queues stay safe to poll and give nothing;
    /// what remains is to take them from the workers and to detach the port.
    Removed,
}

/// Reads a port's link without waiting for it to settle.
pub(crate) fn read(port: u16) -> Result<Link, Errno> {
    let mut link = dpdk_sys::godwit_link::default();
    // SAFETY: `link` is writable; DPDK answers with an error where there is no such port.
    match unsafe { dpdk_sys::godwit_port_link(port, &mut link) } {
        0 => Ok(Link {
            up: link.up != 0,
            speed_mbps: (link.speed_mbps != u32::MAX && link.speed_mbps != 0).then_some(link.speed_mbps),
            full_duplex: link.full_duplex != 0,
        }),
        rc => Err(Errno::from_rc(rc)),
    }
}

/// A callback as the shim's `arg` refers to it.
struct Callback(Box<dyn Fn(LinkEvent) + Send + Sync>);

/// A callback's registration with a port, ended when it is dropped.
pub(crate) struct Watch {
    port: u16,
    /// Both boxes live at fixed addresses until DPDK has let go of them.
    handler: *mut godwit_event_handler,
    callback: *mut Callback,
}

// SAFETY: the pointers are to boxes that this value owns; the callback may be called from any thread.
unsafe impl Send for Watch {}

impl Watch {
    /// Registers `callback` for the events of `port`.
    pub(crate) fn new(port: u16, callback: Box<dyn Fn(LinkEvent) + Send + Sync>) -> Result<Self, Errno> {
        let callback = Box::into_raw(Box::new(Callback(callback)));
        let handler =
            Box::into_raw(Box::new(godwit_event_handler { callback: Some(on_event), arg: callback.cast() }));
        // SAFETY: the handler and what it refers to stay in place until `Watch` is dropped, which
        // unregisters them first.
        let rc = unsafe { dpdk_sys::godwit_port_watch(port, handler) };
        let mut watch = Self { port, handler, callback };
        if rc != 0 {
            watch.free();
            std::mem::forget(watch);
            return Err(Errno::from_rc(rc));
        }
        Ok(watch)
    }

    fn free(&mut self) {
        // SAFETY: both came from Box::into_raw and are freed once: from `new` on failure, where the value
        // is forgotten, or from `drop`. DPDK refers to neither.
        unsafe {
            drop(Box::from_raw(self.handler));
            drop(Box::from_raw(self.callback));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        loop {
            // SAFETY: the handler is the one registered in `new`. -EAGAIN means that a call is running.
            let rc = unsafe { dpdk_sys::godwit_port_unwatch(self.port, self.handler) };
            if rc != -libc::EAGAIN {
                break;
            }
            std::thread::yield_now();
        }
        self.free();
    }
}

/// Called by DPDK's interrupt thread, or by the thread of a driver that found the change.
extern "C" fn on_event(port: u16, removed: i32, arg: *mut c_void) {
    // SAFETY: `arg` is the callback that `Watch::new` registered; it is not freed while a call runs.
    let callback = unsafe { &*arg.cast::<Callback>() };
    let event =
        if removed != 0 { LinkEvent::Removed } else { LinkEvent::Changed(read(port).unwrap_or_default()) };
    (callback.0)(event);
}
