//! Hostile guests out of bytes: each byte string is a script of messages, descriptors and headers that is played at a
//! port. Any string is a script, so that a fuzzer finds its way; most begin with a guest whose rings work, since what
//! is behind those is out of reach otherwise.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::guest::{Guest, Settings};
use crate::header::Header;
use crate::raw::{self, Message, Raw, Region, request};
use crate::ring::{self, Piece, Place, Ring};
use crate::{Error, features, memory};

/// Steps of a script at most.
const STEPS: usize = 64;
/// Descriptors of the rings that scripts begin with.
const SIZE: u16 = 64;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// Bytes that are read one after another; there is always one more, which is 0.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Numbers at which something changes, and any others.
    fn word(&mut self) -> u64 {
        match self.byte() {
            n @ 0..64 => n.into(),
            n @ 64..128 => 1 << (n - 64),
            n @ 128..192 => (1 << (n - 128)) - 1,
            192..224 => u64::from(self.half()),
            _ => (0..4).fold(0, |all, _| all << 16 | u64::from(self.half())),
        }
    }
}

/// Plays a script at a port's socket. What the back end refuses is no error; the connection is gone afterwards.
///
/// # Errors
/// Where the port cannot be connected to at all, or this side's system refuses.
pub fn play(socket: &Path, bytes: &[u8], frame: &[u8]) -> Result<(), Error> {
    let mut read = Reader(bytes);
    let kind = read.byte();
    let mut settings = Settings { size: SIZE, patience: PATIENCE, ..Settings::default() };
    if kind & 1 != 0 {
        settings = settings.packed();
    }
    if kind & 2 != 0 {
        settings.features = features::PLAIN | settings.required;
    }
    if kind & 12 == 12 {
        // Without a guest: messages alone.
        let raw = Raw::connect(socket)?;
        raw.set_patience(PATIENCE)?;
        messages(&raw, &mut read);
        return Ok(());
    }
    let mut guest = match Guest::connect(socket, &settings) {
        Ok(guest) => guest,
        // The back end is still busy with the end of the last one, or does not offer this.
        Err(Error::Message { .. } | Error::Features { .. }) => return Ok(()),
        Err(e) => return Err(e),
    };
    for _ in 0..STEPS {
        if read.is_empty() {
            break;
        }
        if step(&mut guest, &mut read, frame).is_err() {
            break;
        }
    }
    Ok(())
}

/// One step of a guest whose rings work, or did.
fn step(guest: &mut Guest, read: &mut Reader<'_>, frame: &[u8]) -> Result<(), Error> {
    match read.byte() % 8 {
        0..3 => {
            let header = Header {
                flags: read.byte(),
                gso_type: read.byte(),
                hdr_len: read.half(),
                gso_size: read.word() as u16,
                csum_start: read.word() as u16,
                csum_offset: read.word() as u16,
                num_buffers: read.byte().into(),
            };
            let mut frame = frame.to_vec();
            frame.resize(usize::from(read.word() as u16), 0x5a);
            for _ in 0..read.byte() % 4 {
                let at = usize::from(read.half()) % frame.len().max(1);
                if let Some(byte) = frame.get_mut(at) {
                    *byte = read.byte();
                }
            }
            guest.send(0, &header, &frame).map(drop)
        }
        3..6 => descriptors(guest, read),
        6 => {
            let raw = guest.raw()?;
            message(&raw, read, Some(guest))
        }
        _ => {
            guest.receive(0, |_, _| ()).map(drop)?;
            std::thread::sleep(Duration::from_micros(u64::from(read.byte()) * 4));
            Ok(())
        }
    }
}

/// A descriptor chain of any content in either ring.
fn descriptors(guest: &mut Guest, read: &mut Reader<'_>) -> Result<(), Error> {
    let index = usize::from(read.byte() & 1);
    let (start, len) = (guest.buffers(index), guest.memory().len());
    let (count, mode) = (1 + read.byte() % 8, read.byte());
    let mut pieces = Vec::new();
    for _ in 0..count {
        let addr = match read.byte() % 4 {
            0 | 1 => memory::guest(start + usize::from(read.half()) % 65_536),
            2 => memory::guest(len).wrapping_sub(read.word()),
            _ => read.word(),
        };
        pieces.push(Piece { addr, len: read.word() as u32, writable: (mode ^ index as u8) & 1 == 0 });
    }
    let (ring, memory) = guest.ring(index);
    let place = ring.place();
    if mode & 2 == 0 {
        if ring.add(memory, &pieces)?.is_some() {
            ring.publish(memory)?;
        }
        return guest.kick(index);
    }
    match ring {
        Ring::Split(ring) => {
            for piece in &pieces {
                let at = read.half() % place.size;
                let flags = u16::from(read.byte()) & 7;
                ring.write_descriptor(memory, at, (piece.addr, piece.len, flags, read.word() as u16))?;
            }
            ring.offer(memory, read.word() as u16)?;
            let jump = if mode & 4 == 0 { 0 } else { read.word() as u16 };
            ring.jump(memory, ring.available().wrapping_add(jump))?;
        }
        Ring::Packed(ring) => {
            for (n, piece) in pieces.iter().enumerate() {
                let (at, flags) = ring.next();
                let at = (at + n as u16) % place.size;
                let flags = if mode & 4 == 0 { flags } else { 0 } | u16::from(read.byte()) & 7;
                ring.write_descriptor(memory, at, (piece.addr, piece.len, read.word() as u16, flags))?;
            }
        }
    }
    if mode & 8 != 0 {
        indirect(guest, index, read)?;
    }
    guest.kick(index)
}

/// A table of descriptors where the ring's first buffer is, and a descriptor that points to it.
fn indirect(guest: &mut Guest, index: usize, read: &mut Reader<'_>) -> Result<(), Error> {
    let at = guest.buffers(index);
    for n in 0..usize::from(read.byte() % 16) {
        let tail = (u16::from(read.byte()) & 7, read.word() as u16);
        let addr = if read.byte() & 1 == 0 { memory::guest(at + 4096) } else { read.word() };
        let bytes = ring::descriptor(addr, read.word() as u32, tail);
        guest.memory().write(at + n * ring::DESCRIPTOR, &bytes)?;
    }
    let (ring, memory) = guest.ring(index);
    if let Ring::Split(ring) = ring {
        let len = read.word() as u32;
        let flags = ring::INDIRECT | u16::from(read.byte()) & 7;
        ring.write_descriptor(memory, 0, (memory::guest(at), len, flags, 0))?;
        ring.offer(memory, 0)?;
        ring.jump(memory, ring.available())?;
    }
    Ok(())
}

fn messages(raw: &Raw, read: &mut Reader<'_>) {
    for _ in 0..STEPS {
        if read.is_empty() || message(raw, read, None).is_err() {
            return;
        }
    }
}

/// A file of a length: a whole one, a short one, or an empty one.
fn file(len: u64) -> Result<File, Error> {
    let fd = memfd_create("godwit-script", MFdFlags::MFD_CLOEXEC).map_err(Error::errno("memfd_create"))?;
    let file = File::from(fd);
    // A length that cannot be leaves the file empty.
    let _ = file.set_len(len.min(1 << 32));
    Ok(file)
}

/// A message of any content, sensible more often than not.
fn message(raw: &Raw, read: &mut Reader<'_>, guest: Option<&Guest>) -> Result<(), Error> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let event = EventFd::from_flags(flags).map_err(Error::errno("eventfd"))?;
    if read.byte() == 0 {
        // One that has no room, so that its next signal fails.
        event.write(u64::MAX - 1).map_err(Error::errno("write"))?;
    }
    let number = u32::from(read.byte()) % (request::NONE + 4);
    let index = u32::from(read.byte() % 5) & 3 | u32::from(read.byte() == 0xff) << 7;
    let len = 1 << (12 + read.byte() % 12);
    let files = [file(read.word().min(len))?, file(len)?];
    let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
    let mut message = match number {
        request::SET_MEM_TABLE => {
            let count = u32::from(read.byte() % 10);
            let regions: Vec<Region> = (0..count.min(8))
                .map(|n| Region {
                    guest: memory::GUEST + u64::from(n) * (read.word() & 0xffff_f000),
                    len: if read.byte() & 1 == 0 { len } else { read.word() },
                    user: memory::USER + u64::from(n) * len,
                    offset: if read.byte() & 3 == 0 { read.word() } else { 0 },
                })
                .collect();
            let fake = read.byte();
            fds.extend(regions.iter().enumerate().map(|(n, _)| match (fake >> n) & 1 {
                0 => files[1].as_fd(),
                _ if fake & 1 == 0 => event.as_fd(),
                _ => files[0].as_fd(),
            }));
            Message::memory(count, &regions)
        }
        request::SET_VRING_ADDR => {
            let place = Place::at(0, SIZE);
            let address = |read: &mut Reader<'_>, at: usize| match read.byte() & 3 {
                0 => memory::USER.wrapping_add(read.word()),
                1 => read.word(),
                _ => memory::user(at),
            };
            let all = [place.desc, place.device, place.driver].map(|at| address(read, at));
            Message::addresses(index, u32::from(read.byte() & 1), all, read.word())
        }
        request::SET_VRING_KICK | request::SET_VRING_CALL | request::SET_VRING_ERR => {
            fds.push(event.as_fd());
            Message::words(number, &[u64::from(index)])
        }
        request::SET_VRING_NUM
        | request::SET_VRING_BASE
        | request::GET_VRING_BASE
        | request::SET_VRING_ENABLE => Message::state(number, index, read.word() as u32),
        request::SET_LOG_BASE | request::SET_INFLIGHT_FD | request::GET_INFLIGHT_FD => {
            fds.push(files[0].as_fd());
            Message::words(number, &[read.word(), read.word(), read.word()])
        }
        request::SET_FEATURES => {
            let agreed = guest.map_or(features::USUAL, Guest::agreed);
            Message::words(number, &[agreed ^ read.word()])
        }
        _ => Message::words(number, &[read.word()]),
    };
    let shape = read.byte();
    match shape % 16 {
        0 => message.size = Some(read.word() as u32),
        1 => message.payload.truncate(usize::from(read.byte())),
        2 => message.flags = read.word() as u32,
        3 => fds.truncate(1),
        4 => fds.push(files[0].as_fd()),
        _ => {}
    }
    if shape & 0x80 != 0 {
        message = message.acknowledged();
    }
    let bytes = message.bytes();
    let sent = if shape & 0x60 == 0x60 { bytes.len() / 2 } else { bytes.len() };
    raw.send_bytes(&bytes[..sent], &fds)?;
    if sent < bytes.len() {
        return Err(Error::Ring("the script ends in the midst of a message".into()));
    }
    let answered = [
        request::GET_FEATURES,
        request::GET_PROTOCOL_FEATURES,
        request::GET_QUEUE_NUM,
        request::GET_VRING_BASE,
    ];
    if message.flags & raw::NEED_REPLY != 0 || answered.contains(&number) {
        raw.answer()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_which_something_changes_are_short_to_write() {
        let word = |bytes: &[u8]| Reader(bytes).word();
        assert_eq!((word(&[]), word(&[17]), word(&[64 + 33])), (0, 17, 1 << 33));
        assert_eq!((word(&[128 + 16]), word(&[200, 1, 2])), (0xffff, 0x0201));
        assert_eq!(word(&[255, 1, 0, 2, 0, 3, 0, 4, 0]), 0x0001_0002_0003_0004);
    }
}
