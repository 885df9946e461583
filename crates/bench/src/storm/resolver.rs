//! A VM that asks for one address after the other and waits for each answer: a packet socket at the other end of
//! its port's wire.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use godwit_lab::netns;
use godwit_testkit::frames;
use godwit_wire::Mac;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// From one question to the next: far below what a port may ask (R67).
const PERIOD: Duration = Duration::from_millis(40);
/// The asking VM.
pub struct Resolver {
    /// The namespace of its end of the wire.
    pub namespace: String,
    /// That end.
    pub interface: String,
    /// Its addresses.
    pub mac: Mac,
    /// See `mac`.
    pub ip: Ipv4Addr,
    /// The first address that it has not asked for yet, as a number.
    pub next: u32,
    /// What is at an address, by its number.
    pub target: fn(u32) -> (Ipv4Addr, Mac),
}

impl Resolver {
    /// Asks for new addresses during `window`; how long each answer took, `None` where none came within `patience`.
    ///
    /// # Errors
    /// Where its interface cannot be used.
    pub fn ask(&mut self, window: Duration, patience: Duration) -> Result<Vec<Option<Duration>>> {
        // A thread of its own, for it changes namespaces.
        let this = &*self;
        let asked = thread::scope(|s| s.spawn(|| this.run(window, patience)).join());
        let asked = asked.map_err(|_| anyhow!("the asking thread panicked"))??;
        self.next += asked.len() as u32;
        Ok(asked)
    }

    fn run(&self, window: Duration, patience: Duration) -> Result<Vec<Option<Duration>>> {
        netns::enter(&self.namespace)?;
        let link = netns::link(&self.interface)?;
        let (raw, all) = (SockType::Raw, SockProtocol::EthAll);
        let fd = socket(AddressFamily::Packet, raw, SockFlag::SOCK_CLOEXEC, all).context("raw socket")?;
        bind(fd.as_raw_fd(), &link).with_context(|| format!("binding to {}", self.interface))?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(10))?;
        let (start, mut took) = (Instant::now(), Vec::new());
        while start.elapsed() < window {
            let (target, mac) = (self.target)(self.next + took.len() as u32);
            let asked = Instant::now();
            let request = frames::padded(frames::arp_request(self.mac, self.ip, target), 60);
            send(fd.as_raw_fd(), &request, MsgFlags::empty()).context("asking")?;
            let answer = frames::arp_reply(mac, target, self.mac, self.ip);
            took.push(wait(fd.as_raw_fd(), (asked, patience), &answer)?);
            thread::sleep(PERIOD.saturating_sub(asked.elapsed()));
        }
        Ok(took)
    }
}

/// Waits for a frame whose ARP packet is that of `answer`.
fn wait(fd: i32, (asked, patience): (Instant, Duration), answer: &[u8]) -> Result<Option<Duration>> {
    let mut buffer = [0; 2048];
    while asked.elapsed() < patience {
        match recv(fd, &mut buffer, MsgFlags::empty()) {
            Ok(n) if buffer.get(12..answer.len().min(n)) == answer.get(12..) => {
                return Ok(Some(asked.elapsed()));
            }
            Ok(_) | Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            Err(e) => return Err(e).context("waiting for an answer"),
        }
    }
    Ok(None)
}
