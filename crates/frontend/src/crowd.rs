//! Many guests in one thread, which sleeps until one of them has received something.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{Error, Guest, Header};

/// Events that are taken at once.
const EVENTS: usize = 256;

/// Guests by a number of the caller's.
pub struct Crowd {
    guests: BTreeMap<u32, Guest>,
    epoll: Epoll,
}

/// A frame that a guest of a crowd has received.
#[derive(Debug)]
pub struct Received<'a> {
    /// The guest.
    pub guest: u32,
    /// Its queue pair.
    pub pair: usize,
    /// The header.
    pub header: &'a Header,
    /// The frame.
    pub frame: &'a [u8],
}

impl Crowd {
    /// Nobody yet.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new() -> Result<Crowd, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::errno("epoll_create"))?;
        Ok(Crowd { guests: BTreeMap::new(), epoll })
    }

    /// Takes a guest in; the one that had its number leaves.
    ///
    /// # Errors
    /// Where the system cannot wait for it.
    pub fn add(&mut self, number: u32, guest: Guest) -> Result<(), Error> {
        self.remove(number);
        for pair in 0..guest.pairs() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(number) << 16 | pair as u64);
            self.epoll.add(guest.call(pair), event).map_err(Error::errno("epoll_ctl"))?;
        }
        self.guests.insert(number, guest);
        Ok(())
    }

    /// Lets a guest go, with its connection as it is.
    pub fn remove(&mut self, number: u32) -> Option<Guest> {
        let guest = self.guests.remove(&number)?;
        for pair in 0..guest.pairs() {
            // The back end may hold the event, too: closing it would not end the wait.
            let _ = self.epoll.delete(guest.call(pair));
        }
        Some(guest)
    }

    /// A guest.
    pub fn get(&mut self, number: u32) -> Option<&mut Guest> {
        self.guests.get_mut(&number)
    }

    /// All guests.
    pub fn iter(&mut self) -> impl Iterator<Item = (u32, &mut Guest)> {
        self.guests.iter_mut().map(|(number, guest)| (*number, guest))
    }

    /// Guests in it.
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    /// Waits until somebody has received something, for `patience` at most, and takes all of it; frames taken.
    ///
    /// # Errors
    /// Where a back end broke a ring.
    pub fn receive(
        &mut self,
        patience: Duration,
        mut each: impl FnMut(Received<'_>),
    ) -> Result<usize, Error> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let timeout = EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::MAX);
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(e) => return Err(Error::errno("epoll_wait")(e)),
        };
        let mut count = 0;
        for event in &events[..ready] {
            let (number, pair) = ((event.data() >> 16) as u32, (event.data() & 0xffff) as usize);
            let Some(guest) = self.guests.get_mut(&number) else { continue };
            guest.take_call(pair);
            let took = |header: &Header, frame: &[u8]| each(Received { guest: number, pair, header, frame });
            count += guest.receive(pair, took)?;
        }
        Ok(count)
    }
}
