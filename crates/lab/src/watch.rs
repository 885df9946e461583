//! When frames of one VM arrive at another, whatever is in them, by the kernel's stamps.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use godwit_wire::Mac;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

use crate::netns;

/// Silences shorter than this are the ordinary rhythm of the machine and not kept.
const SILENCE_US: u64 = 5_000;
/// The newest are kept.
const KEPT: usize = 1024;
/// Frames are read so often; the kernel has stamped them before.
const PERIOD: Duration = Duration::from_millis(2);
/// Room for the frames of some seconds.
const BUFFER: usize = 16 << 20;

/// A silence of all frames, by the wall clock, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The frame before.
    pub from_us: u64,
    /// The frame after.
    pub to_us: u64,
}

/// Watches an interface until it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    last_us: Option<u64>,
    silences: VecDeque<Quiet>,
}

impl Watch {
    /// Watches for frames from `mac` at an interface of a namespace.
    ///
    /// # Errors
    /// Where the namespace or the interface is missing, or raw sockets are refused.
    pub fn start(namespace: &str, interface: &str, mac: Mac) -> Result<Watch> {
        let shared = Arc::new(Shared::default());
        let (tell, told) = mpsc::channel();
        let (namespace, interface, theirs) = (namespace.to_owned(), interface.to_owned(), shared.clone());
        thread::Builder::new().name("watch".into()).spawn(move || match listen(&namespace, &interface) {
            Err(e) => drop(tell.send(Err(e))),
            Ok(fd) => {
                drop(tell.send(Ok(())));
                while !theirs.over.load(Ordering::Relaxed) {
                    thread::sleep(PERIOD);
                    theirs.read(&fd, mac);
                }
            }
        })?;
        told.recv().context("the watching thread ended")??;
        Ok(Watch { shared })
    }

    /// The longest silence that a stop was a part of; both by the wall clock.
    pub fn around(&self, stopped_us: u64, resumed_us: u64) -> Option<Quiet> {
        // What has come and was not read yet would be missing.
        thread::sleep(2 * PERIOD);
        self.shared.seen().around(stopped_us, resumed_us)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has come.
    fn read(&self, fd: &OwnedFd, mac: Mac) {
        let mut head = [0; 14];
        let mut space = nix::cmsg_space!(TimeSpec);
        loop {
            let mut parts = [IoSliceMut::new(&mut head)];
            // The rest of a frame is not wanted; an empty queue is the usual error.
            let Ok(message) =
                recvmsg::<LinkAddr>(fd.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)
            else {
                return;
            };
            let stamp = message.cmsgs().ok().and_then(|mut all| {
                all.find_map(|c| match c {
                    ControlMessageOwned::ScmTimestampns(at) => Some(at),
                    _ => None,
                })
            });
            if let Some(at) = stamp
                && head[6..12] == mac.0
            {
                self.seen().arrived(at.tv_sec() as u64 * 1_000_000 + at.tv_nsec() as u64 / 1000);
            }
        }
    }
}

impl Seen {
    fn arrived(&mut self, at_us: u64) {
        if let Some(from_us) = self.last_us.replace(at_us)
            && at_us.saturating_sub(from_us) >= SILENCE_US
        {
            if self.silences.len() == KEPT {
                self.silences.pop_front();
            }
            self.silences.push_back(Quiet { from_us, to_us: at_us });
        }
    }

    fn around(&self, stopped_us: u64, resumed_us: u64) -> Option<Quiet> {
        let around = |q: &&Quiet| q.to_us > stopped_us && q.from_us < resumed_us;
        self.silences.iter().filter(around).max_by_key(|q| q.to_us - q.from_us).copied()
    }
}

fn listen(namespace: &str, interface: &str) -> Result<OwnedFd> {
    netns::enter(namespace)?;
    let link = netns::link(interface).with_context(|| format!("in namespace {namespace}"))?;
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("raw socket")?;
    setsockopt(&fd, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
    bind(fd.as_raw_fd(), &link).with_context(|| format!("watching {interface}"))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stops_silence_is_the_longest_around_it() {
        let mut seen = Seen::default();
        for at_ms in [0, 1, 20, 21, 180, 190, 900] {
            seen.arrived(at_ms * 1000);
        }
        let at = |from: u64, to: u64| Some(Quiet { from_us: from * 1000, to_us: to * 1000 });
        assert_eq!(seen.around(25_000, 40_000), at(21, 180));
        assert_eq!(seen.around(15_000, 40_000), at(21, 180));
        assert_eq!(seen.around(2_000, 3_000), at(1, 20));
        assert_eq!(seen.around(950_000, 960_000), None);
    }
}
