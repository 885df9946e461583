//! Messages of vhost-user as bytes: any request, any length, any descriptors, in any order.

use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};

use crate::Error;
use crate::ring::Place;

/// Requests by their numbers (vhost-user specification, front-end message types).
pub mod request {
    #![allow(missing_docs)] // As the specification names them.
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const NET_SET_MTU: u32 = 20;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const IOTLB_MSG: u32 = 22;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const POSTCOPY_ADVISE: u32 = 28;
    pub const POSTCOPY_LISTEN: u32 = 29;
    pub const POSTCOPY_END: u32 = 30;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
    /// The first number without a message.
    pub const NONE: u32 = 45;
}

/// Version 1, in the flags of each message.
pub const VERSION: u32 = 1;
/// Flag: an answer is wanted to a message that has none.
pub const NEED_REPLY: u32 = 8;
/// Flag in the payload of messages with a ring's event: there is none.
pub const NO_FD: u64 = 1 << 8;

/// Bytes of a message before its payload.
const HEADER: usize = 12;
/// Longest answer that is read, in bytes.
const LONGEST: u32 = 4096;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub request: u32,
    /// Version and flags.
    pub flags: u32,
    /// Length that it claims, if that is not the payload's.
    pub size: Option<u32>,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// A memory region as SET_MEM_TABLE tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest physical address.
    pub guest: u64,
    /// Length in bytes.
    pub len: u64,
    /// Address in the front end.
    pub user: u64,
    /// Offset in the file.
    pub offset: u64,
}

impl Message {
    /// A message without payload.
    pub fn new(request: u32) -> Message {
        Message { request, flags: VERSION, size: None, payload: Vec::new() }
    }

    /// With words of 64 bits.
    pub fn words(request: u32, words: &[u64]) -> Message {
        let payload = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        Message { payload, ..Message::new(request) }
    }

    /// Of a ring: its index and a number.
    pub fn state(request: u32, index: u32, number: u32) -> Message {
        Message::words(request, &[u64::from(number) << 32 | u64::from(index)])
    }

    /// SET_VRING_ADDR with addresses in the front end: descriptors, used ring, available ring.
    pub fn addresses(index: u32, flags: u32, [desc, used, avail]: [u64; 3], log: u64) -> Message {
        let head = u64::from(flags) << 32 | u64::from(index);
        Message::words(request::SET_VRING_ADDR, &[head, desc, used, avail, log])
    }

    /// SET_VRING_ADDR of a ring where it is in a guest's memory.
    pub fn placed(index: u32, place: Place) -> Message {
        let all = [place.desc, place.device, place.driver].map(crate::memory::user);
        Message::addresses(index, 0, all, 0)
    }

    /// SET_MEM_TABLE, which claims `count` regions.
    pub fn memory(count: u32, regions: &[Region]) -> Message {
        let words = regions.iter().flat_map(|r| [r.guest, r.len, r.user, r.offset]);
        let all: Vec<u64> = std::iter::once(u64::from(count)).chain(words).collect();
        Message::words(request::SET_MEM_TABLE, &all)
    }

    /// The same with an answer wanted.
    pub fn acknowledged(self) -> Message {
        Message { flags: self.flags | NEED_REPLY, ..self }
    }

    /// As it goes over the socket.
    pub fn bytes(&self) -> Vec<u8> {
        let size = self.size.unwrap_or(self.payload.len() as u32);
        let head = [self.request, self.flags, size];
        head.iter().flat_map(|w| w.to_le_bytes()).chain(self.payload.iter().copied()).collect()
    }
}

/// A connection to a back end.
pub struct Raw {
    socket: UnixStream,
}

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens.
    pub fn connect(path: &Path) -> Result<Raw, Error> {
        let socket = UnixStream::connect(path).map_err(Error::system("connect"))?;
        Ok(Raw { socket })
    }

    /// On a connection that stands.
    pub fn new(socket: UnixStream) -> Raw {
        Raw { socket }
    }

    /// The same connection once more.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn try_clone(&self) -> Result<Raw, Error> {
        Ok(Raw { socket: self.socket.try_clone().map_err(Error::system("dup"))? })
    }

    /// Bounds the time that an answer, or room for a message, is waited for.
    ///
    /// # Errors
    /// Where the time is zero.
    pub fn set_patience(&self, patience: Duration) -> Result<(), Error> {
        let all = self.socket.set_read_timeout(Some(patience));
        all.and_then(|()| self.socket.set_write_timeout(Some(patience))).map_err(Error::system("setsockopt"))
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// Where the back end has closed the connection, or takes nothing.
    pub fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.send_bytes(&message.bytes(), fds)
    }

    /// Sends bytes, descriptors beside the first of them: a part of a message, or several.
    ///
    /// # Errors
    /// See [`Raw::send`].
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let (fd, first) = (self.socket.as_raw_fd(), [IoSlice::new(bytes)]);
        let sent = sendmsg::<()>(fd, &first, control, flags, None).map_err(Error::errno("sendmsg"))?;
        (&self.socket).write_all(&bytes[sent..]).map_err(Error::system("write"))
    }

    /// Reads an answer; descriptors that come with it are dropped.
    ///
    /// # Errors
    /// Where the back end closes the connection, does not answer in time, or answers at length.
    pub fn answer(&self) -> Result<Message, Error> {
        let mut head = [0; HEADER];
        self.read(&mut head)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let size = word(8);
        if size > LONGEST {
            return Err(Error::Ring(format!("an answer of {size} bytes")));
        }
        let mut payload = vec![0; size as usize];
        self.read(&mut payload)?;
        Ok(Message { request: word(0), flags: word(4), size: None, payload })
    }

    fn read(&self, bytes: &mut [u8]) -> Result<(), Error> {
        std::io::Read::read_exact(&mut &self.socket, bytes).map_err(Error::system("read"))
    }

    /// Sends a message that has an answer, and reads its first word.
    ///
    /// # Errors
    /// See [`Raw::send`] and [`Raw::answer`].
    pub fn ask(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<u64, Error> {
        self.send(message, fds)?;
        let payload = self.answer()?.payload;
        let word = payload.first_chunk::<8>().copied().unwrap_or_default();
        Ok(u64::from_le_bytes(word))
    }

    /// Whether the back end has not closed the connection. What it has sent is left where it is.
    pub fn is_connected(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.socket.as_raw_fd(), &mut [0], flags) {
            Ok(count) => count > 0,
            Err(e) => e == nix::errno::Errno::EAGAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (Raw, Raw) {
        let (a, b) = UnixStream::pair().unwrap();
        (Raw { socket: a }, Raw { socket: b })
    }

    #[test]
    fn a_message_arrives_as_it_was_written() {
        let (a, b) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        let region = Region { guest: 1, len: 2, user: 3, offset: 4 };
        let message = Message::memory(1, &[region]).acknowledged();
        a.send(&message, &[file.as_fd()]).unwrap();
        let got = b.answer().unwrap();
        assert_eq!(got, message);
        assert_eq!((got.request, got.flags, got.payload.len()), (5, 9, 40));
        assert_eq!(Message::state(8, 3, 256).payload, [3, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_length_may_be_a_lie() {
        let (a, b) = pair();
        let message = Message { size: Some(1 << 20), ..Message::words(2, &[7]) };
        assert_eq!(message.bytes()[8..12], (1_u32 << 20).to_le_bytes());
        a.send(&message, &[]).unwrap();
        assert!(b.answer().is_err());
    }

    #[test]
    fn a_closed_connection_is_noticed() {
        let (a, b) = pair();
        assert!(a.is_connected());
        b.send(&Message::new(1), &[]).unwrap();
        assert!(a.is_connected(), "an answer waits");
        assert_eq!(a.answer().unwrap(), Message::new(1));
        drop(b);
        assert!(!a.is_connected());
    }
}
