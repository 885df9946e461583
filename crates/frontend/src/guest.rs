//! A guest: what QEMU and a virtio-net driver do together, without either.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::header::{self, Header};
use crate::memory::{self, Memory};
use crate::raw::{Message, request};
use crate::ring::{Piece, Place, Ring};
use crate::{Error, Raw, features};

/// Protocol features (vhost-user specification).
mod protocol {
    /// There may be more than one queue pair.
    pub const MQ: u64 = 1 << 0;
    /// The back end announces a guest that has moved.
    pub const RARP: u64 = 1 << 2;
    /// The back end answers each message that asks for it.
    pub const REPLY_ACK: u64 = 1 << 3;
}

/// What a guest is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Feature bits that it takes where they are offered.
    pub features: u64,
    /// Feature bits without which it does not start.
    pub required: u64,
    /// Queue pairs.
    pub pairs: u16,
    /// Descriptors of each ring; a power of two unless rings are packed.
    pub size: u16,
    /// Bytes of each buffer.
    pub buffer: u32,
    /// How long the back end may take to answer a message.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            features: features::USUAL,
            required: features::PLAIN,
            pairs: 1,
            size: 256,
            buffer: 2048,
            patience: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// The same with packed rings.
    pub fn packed(mut self) -> Settings {
        self.features |= features::RING_PACKED;
        self.required |= features::RING_PACKED;
        self
    }

    /// A guest that hardly ever sends: small rings, little memory.
    pub fn small() -> Settings {
        Settings { size: 32, ..Settings::default() }
    }
}

/// One ring with its buffers and events.
struct Queue {
    ring: Ring,
    /// Offset of its first buffer.
    buffers: usize,
    /// Buffers that no chain has.
    free: Vec<u16>,
    /// Buffers of each chain, by its id.
    of: Vec<Vec<u16>>,
    kick: EventFd,
    call: EventFd,
}

/// A guest on a vhost-user port.
pub struct Guest {
    raw: Raw,
    /// The back end answers each message.
    acknowledges: bool,
    memory: Memory,
    /// Receive and transmit ring of each pair in turn.
    queues: Vec<Queue>,
    settings: Settings,
    offered: u64,
    agreed: u64,
    header: usize,
    frame: Vec<u8>,
}

impl Guest {
    /// Connects to a back end that listens, and starts all rings.
    ///
    /// # Errors
    /// Where it does not listen, refuses, or does not offer what the guest requires.
    pub fn connect(path: &Path, settings: &Settings) -> Result<Guest, Error> {
        Guest::on(UnixStream::connect(path).map_err(Error::system("connect"))?, settings)
    }

    /// Takes the connection of a back end that connects by itself, and starts all rings.
    ///
    /// # Errors
    /// See [`Guest::connect`].
    pub fn accept(listener: &UnixListener, settings: &Settings) -> Result<Guest, Error> {
        Guest::on(listener.accept().map_err(Error::system("accept"))?.0, settings)
    }

    fn on(socket: UnixStream, settings: &Settings) -> Result<Guest, Error> {
        let raw = Raw::new(socket);
        raw.set_patience(settings.patience)?;
        let (queues, len) = queues(settings)?;
        let memory = Memory::new(len)?;
        let mut guest = Guest {
            raw,
            acknowledges: false,
            memory,
            queues,
            settings: settings.clone(),
            offered: 0,
            agreed: 0,
            header: header::LONG,
            frame: Vec::new(),
        };
        guest.negotiate()?;
        guest.start()?;
        Ok(guest)
    }

    fn negotiate(&mut self) -> Result<(), Error> {
        self.tell(&Message::new(request::SET_OWNER), &[])?;
        let offered = self.ask(&Message::new(request::GET_FEATURES))?;
        let missing = self.settings.required & !offered;
        if missing != 0 {
            return Err(Error::Features { missing, offered });
        }
        self.offered = offered;
        if offered & features::PROTOCOL != 0 {
            let theirs = self.ask(&Message::new(request::GET_PROTOCOL_FEATURES))?;
            let agreed = theirs & (protocol::MQ | protocol::RARP | protocol::REPLY_ACK);
            self.tell(&Message::words(request::SET_PROTOCOL_FEATURES, &[agreed]), &[])?;
            self.acknowledges = agreed & protocol::REPLY_ACK != 0;
        }
        Ok(())
    }

    /// Sets features, memory and rings, and enables the rings: all that follows the negotiation of protocol features.
    fn start(&mut self) -> Result<(), Error> {
        self.agreed = self.offered & self.settings.features;
        let missing = (self.agreed ^ self.settings.features) & features::RING_PACKED;
        if missing != 0 {
            return Err(Error::Features { missing, offered: self.offered });
        }
        let long = features::VERSION_1 | features::MRG_RXBUF | features::RING_PACKED;
        self.header = if self.agreed & long != 0 { header::LONG } else { header::SHORT };
        self.tell(&Message::words(request::SET_FEATURES, &[self.agreed]), &[])?;
        self.tell(&Message::memory(1, &[self.memory.region()]), &[self.memory.file().as_fd()])?;
        for index in 0..self.queues.len() {
            self.fill(index)?;
            self.start_ring(index)?;
        }
        for index in 0..self.queues.len() {
            self.tell(&Message::state(request::SET_VRING_ENABLE, index as u32, 1), &[])?;
        }
        Ok(())
    }

    /// Gives the device all buffers of a receive ring; a transmit ring begins empty, and is not signaled.
    fn fill(&mut self, index: usize) -> Result<(), Error> {
        let queue = &mut self.queues[index];
        if index % 2 == 1 {
            return queue.ring.set_calls(&self.memory, false);
        }
        while let Some(buffer) = queue.free.pop() {
            post(queue, &self.memory, buffer, self.settings.buffer)?;
        }
        queue.ring.publish(&self.memory)
    }

    fn start_ring(&self, index: usize) -> Result<(), Error> {
        let (queue, n) = (&self.queues[index], index as u32);
        let (place, base) = (queue.ring.place(), queue.ring.base());
        self.tell(&Message::state(request::SET_VRING_NUM, n, place.size.into()), &[])?;
        self.tell(&Message::state(request::SET_VRING_BASE, n, base.into()), &[])?;
        self.tell(&Message::placed(n, place), &[])?;
        self.tell(&Message::words(request::SET_VRING_CALL, &[n.into()]), &[queue.call.as_fd()])?;
        self.tell(&Message::words(request::SET_VRING_KICK, &[n.into()]), &[queue.kick.as_fd()])
    }

    /// Sends a message that has no answer; where the back end acknowledges, waits for that.
    fn tell(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let failed = |why: String| Error::Message { request: message.request, why };
        if !self.acknowledges {
            return self.raw.send(message, fds).map_err(|e| failed(e.to_string()));
        }
        match self.raw.ask(&message.clone().acknowledged(), fds) {
            Ok(0) => Ok(()),
            Ok(code) => Err(failed(format!("refused with {code}"))),
            Err(e) => Err(failed(e.to_string())),
        }
    }

    /// Sends a message that has an answer, and returns its first word.
    fn ask(&self, message: &Message) -> Result<u64, Error> {
        let failed = |e: Error| Error::Message { request: message.request, why: e.to_string() };
        self.raw.ask(message, &[]).map_err(failed)
    }

    /// Stops all rings and starts them again with other features, as a guest does that reloads its driver. What was in
    /// the rings is lost.
    ///
    /// # Errors
    /// Where the back end refuses.
    pub fn restart(&mut self, features: u64) -> Result<(), Error> {
        self.stop()?;
        self.settings.features = features;
        let (queues, len) = queues(&self.settings)?;
        self.queues = queues;
        if self.memory.len() == len {
            // A back end keeps the memory that it has where addresses and lengths stay: rings begin empty in it.
            for queue in &self.queues {
                let place = queue.ring.place();
                self.memory.write(place.desc, &vec![0; place.end() - place.desc])?;
            }
        } else {
            self.memory = Memory::new(len)?;
        }
        self.start()
    }

    /// Stops all rings, in the order in which QEMU does.
    ///
    /// # Errors
    /// Where the back end does not answer.
    pub fn stop(&mut self) -> Result<(), Error> {
        for index in 0..self.queues.len() {
            self.tell(&Message::state(request::SET_VRING_ENABLE, index as u32, 0), &[])?;
        }
        for index in 0..self.queues.len() {
            self.ask(&Message::state(request::GET_VRING_BASE, index as u32, 0))?;
        }
        Ok(())
    }

    /// Whether the back end still holds the connection.
    pub fn is_connected(&self) -> bool {
        self.raw.is_connected()
    }

    /// The same connection, for messages of any content.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn raw(&self) -> Result<Raw, Error> {
        self.raw.try_clone()
    }

    /// Feature bits that were agreed on.
    pub fn agreed(&self) -> u64 {
        self.agreed
    }

    /// Bytes of header before each frame.
    pub fn header_len(&self) -> usize {
        self.header
    }

    /// Its memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Queue pairs.
    pub fn pairs(&self) -> usize {
        self.queues.len() / 2
    }

    /// A ring and the memory that it is in: 2 × pair to receive, one more to transmit.
    pub fn ring(&mut self, index: usize) -> (&mut Ring, &Memory) {
        (&mut self.queues[index].ring, &self.memory)
    }

    /// Offset of a ring's buffers, which follow one another.
    pub fn buffers(&self, index: usize) -> usize {
        self.queues[index].buffers
    }

    /// What becomes readable when a pair has received something.
    pub fn call(&self, pair: usize) -> BorrowedFd<'_> {
        self.queues[2 * pair].call.as_fd()
    }

    /// Takes what made [`Guest::call`] readable.
    pub fn take_call(&self, pair: usize) {
        // It fails where there is nothing to take.
        let _ = self.queues[2 * pair].call.read();
    }

    /// Sends a frame by a pair; false where its ring is full.
    ///
    /// # Errors
    /// Where the back end broke the ring.
    pub fn send(&mut self, pair: usize, header: &Header, frame: &[u8]) -> Result<bool, Error> {
        Ok(self.put(pair, header, frame)? && self.kick(2 * pair + 1).map(|()| true)?)
    }

    /// The same without telling the back end, as for the first frames of a burst.
    ///
    /// # Errors
    /// See [`Guest::send`].
    pub fn put(&mut self, pair: usize, header: &Header, frame: &[u8]) -> Result<bool, Error> {
        self.reclaim(pair)?;
        let (bytes, buffer) = (header.bytes(), self.settings.buffer as usize);
        let queue = &mut self.queues[2 * pair + 1];
        let count = (self.header + frame.len()).div_ceil(buffer);
        if count > queue.free.len() || count > queue.ring.free() {
            return Ok(false);
        }
        let taken = queue.free.split_off(queue.free.len() - count);
        let mut rest = frame;
        let mut pieces = Vec::with_capacity(count);
        for (n, slot) in taken.iter().enumerate() {
            let at = queue.buffers + usize::from(*slot) * buffer;
            let ahead = if n == 0 { self.header } else { 0 };
            let (now, later) = rest.split_at(rest.len().min(buffer - ahead));
            self.memory.write(at, &bytes[..ahead])?;
            self.memory.write(at + ahead, now)?;
            pieces.push(Piece { addr: memory::guest(at), len: (ahead + now.len()) as u32, writable: false });
            rest = later;
        }
        let Some(id) = queue.ring.add(&self.memory, &pieces)? else {
            queue.free.extend(taken);
            return Ok(false);
        };
        queue.of[usize::from(id)] = taken;
        queue.ring.publish(&self.memory)?;
        Ok(true)
    }

    /// Tells the back end that a ring has something new, where it wants to be told.
    ///
    /// # Errors
    /// Where the ring is not in the memory.
    pub fn kick(&self, index: usize) -> Result<(), Error> {
        if self.queues[index].ring.wants_kick(&self.memory)? {
            // It fails where it was told so often that the count is full.
            let _ = self.queues[index].kick.write(1);
        }
        Ok(())
    }

    /// Takes back the buffers of frames that the back end has done with; their number.
    ///
    /// # Errors
    /// Where the back end broke the ring.
    pub fn reclaim(&mut self, pair: usize) -> Result<usize, Error> {
        let queue = &mut self.queues[2 * pair + 1];
        let mut count = 0;
        while let Some(used) = queue.ring.used(&self.memory)? {
            queue.free.append(&mut queue.of[usize::from(used.id)]);
            count += 1;
        }
        Ok(count)
    }

    /// Frames that the back end has not done with. Chains that were added by [`Guest::ring`] count, too.
    pub fn waiting(&self, pair: usize) -> usize {
        let ring = &self.queues[2 * pair + 1].ring;
        usize::from(ring.place().size) - ring.free()
    }

    /// Takes all frames that a pair has received; their number.
    ///
    /// # Errors
    /// Where the back end broke the ring, or a frame's header.
    pub fn receive(&mut self, pair: usize, mut each: impl FnMut(&Header, &[u8])) -> Result<usize, Error> {
        let (mut count, index) = (0, 2 * pair);
        let mut frame = std::mem::take(&mut self.frame);
        while self.receive_one(index, &mut frame)? {
            let header = Header::parse(&frame[..self.header])
                .ok_or_else(|| Error::Ring("a frame without header".into()))?;
            each(&header, &frame[self.header..]);
            count += 1;
        }
        self.frame = frame;
        if count > 0 {
            self.queues[index].ring.publish(&self.memory)?;
            self.kick(index)?;
        }
        Ok(count)
    }

    /// One frame with its header, whose buffers go back to the device.
    fn receive_one(&mut self, index: usize, frame: &mut Vec<u8>) -> Result<bool, Error> {
        frame.clear();
        let (mut missing, mut first) = (1, true);
        while missing > 0 {
            let queue = &mut self.queues[index];
            let Some(used) = queue.ring.used(&self.memory)? else {
                if first {
                    return Ok(false);
                }
                return Err(Error::Ring(format!("{missing} buffers of a frame are missing")));
            };
            let Some(slot) = queue.of[usize::from(used.id)].pop() else {
                return Err(Error::Ring(format!("chain {} has no buffer", used.id)));
            };
            if used.len > self.settings.buffer {
                return Err(Error::Ring(format!("{} bytes in a buffer", used.len)));
            }
            let (start, at) =
                (frame.len(), queue.buffers + usize::from(slot) * self.settings.buffer as usize);
            frame.resize(start + used.len as usize, 0);
            self.memory.read(at, &mut frame[start..])?;
            post(queue, &self.memory, slot, self.settings.buffer)?;
            if std::mem::take(&mut first) {
                if frame.len() < self.header {
                    return Err(Error::Ring(format!("a frame of {} bytes with its header", frame.len())));
                }
                if self.agreed & features::MRG_RXBUF != 0 {
                    missing = Header::parse(frame).map_or(1, |h| h.num_buffers).max(1);
                }
            }
            missing -= 1;
        }
        Ok(true)
    }
}

/// Gives a buffer to the device, to be written.
fn post(queue: &mut Queue, memory: &Memory, buffer: u16, len: u32) -> Result<(), Error> {
    let at = queue.buffers + usize::from(buffer) * len as usize;
    let piece = Piece { addr: memory::guest(at), len, writable: true };
    match queue.ring.add(memory, &[piece])? {
        Some(id) => queue.of[usize::from(id)].push(buffer),
        None => queue.free.push(buffer),
    }
    Ok(())
}

/// All rings, one after another with their buffers, and the bytes that they take.
fn queues(settings: &Settings) -> Result<(Vec<Queue>, usize), Error> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let event = || EventFd::from_flags(flags).map_err(Error::errno("eventfd"));
    let packed = settings.features & features::RING_PACKED != 0;
    let (mut all, mut at) = (Vec::new(), 0);
    for _ in 0..2 * settings.pairs {
        let place = Place::at(at, settings.size);
        let buffers = place.end().next_multiple_of(64);
        at = (buffers + usize::from(settings.size) * settings.buffer as usize).next_multiple_of(4096);
        all.push(Queue {
            ring: Ring::new(place, packed),
            buffers,
            free: (0..settings.size).rev().collect(),
            of: vec![Vec::new(); settings.size.into()],
            kick: event()?,
            call: event()?,
        });
    }
    Ok((all, at))
}
