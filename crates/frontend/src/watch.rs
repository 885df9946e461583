//! Two ordinary guests that send each other numbered frames without a pause, and notice what is lost: whoever harms a
//! switch or another guest of it harms them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use godwit_testkit::frames;
use godwit_wire::Mac;

use crate::{Crowd, Error, Guest, Header, Settings, header};

/// Each guest sends a frame that often.
const INTERVAL: Duration = Duration::from_millis(1);
/// Frames that are under way arrive within this time on a machine that is busy.
const LAST: Duration = Duration::from_secs(2);
/// UDP port of the numbered frames, and of those for others.
const PORT: u16 = 7100;
const OTHERS: u16 = 7101;
/// Descriptors of a ring: room for a second in which the thread is kept from its core.
const RING: u16 = 1024;
/// One frame in so many goes to each other station.
const FOR_OTHERS: u64 = 4;
/// Where the UDP payload begins.
const PAYLOAD: usize = 14 + 20 + 8;

/// A port and who is behind it.
#[derive(Clone, Debug)]
pub struct Station {
    /// The port's socket.
    pub socket: PathBuf,
    /// MAC address.
    pub mac: Mac,
    /// IPv4 address.
    pub ip: Ipv4Addr,
}

impl Station {
    /// Station number `n` with its socket in a folder: `gN.vhost`.
    pub fn numbered(folder: &Path, n: u8) -> Station {
        let ip = Ipv4Addr::new(203, 0, 113, n + 1);
        Station { socket: folder.join(format!("g{n}.vhost")), mac: Mac([2, 0x67, 0x79, 0, 0, n]), ip }
    }

    /// A UDP packet from here to there.
    pub fn frame(&self, to: &Station, port: u16, payload: &[u8]) -> Vec<u8> {
        let end = |s: &Station| (s.mac, s.ip.into(), port);
        frames::padded(frames::udp_frame(end(self), end(to), payload), 60)
    }
}

/// What the two guests have noticed since they were asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Frames that they sent to each other.
    pub sent: u64,
    /// Those that did not arrive.
    pub lost: u64,
    /// Frames for which their rings had no room, because the switch took nothing.
    pub refused: u64,
    /// Headers of received frames that no device may write.
    pub bad: Vec<Header>,
    /// A guest lost its connection or its rings.
    pub broken: Option<String>,
}

impl Seen {
    /// Whether nobody was harmed.
    pub fn is_well(&self) -> bool {
        self.sent > 0 && self.lost + self.refused == 0 && self.bad.is_empty() && self.broken.is_none()
    }
}

/// The two guests, in a thread of their own.
pub struct Watch {
    ask: Option<Sender<()>>,
    seen: Receiver<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Connects both and lets them talk; now and then they also send to the `others`, whoever those are.
    ///
    /// # Errors
    /// Where one cannot connect.
    pub fn start(pair: [Station; 2], others: Vec<Station>) -> Result<Watch, Error> {
        let mut crowd = Crowd::new()?;
        for (n, station) in (0..).zip(&pair) {
            let settings = Settings { size: RING, ..Settings::default() };
            let mut guest = Guest::connect(&station.socket, &settings)?;
            guest.send(0, &Header::default(), &frames::padded(frames::garp(station.mac, station.ip), 60))?;
            crowd.add(n, guest)?;
        }
        let (ask, asked) = channel();
        let (tell, seen) = channel();
        let mut talk =
            Talk { pair, others, crowd, ways: Default::default(), seen: Seen::default(), turns: 0 };
        let run = move || talk.run(&asked, &tell);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(run);
        Ok(Watch { ask: Some(ask), seen, thread: Some(thread.map_err(Error::system("thread"))?) })
    }

    /// What they have noticed since the last time: they stop for a moment, so that nothing is under way.
    pub fn look(&self) -> Seen {
        let gone = || Seen { broken: Some("the guests' thread has ended".into()), ..Seen::default() };
        match self.ask.as_ref().map(|ask| ask.send(())) {
            Some(Ok(())) => self.seen.recv().unwrap_or_else(|_| gone()),
            _ => gone(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked, and said so.
            let _ = thread.join();
        }
    }
}

/// Frames of one way.
#[derive(Default)]
struct Way {
    sent: u64,
    missing: BTreeSet<u64>,
}

struct Talk {
    pair: [Station; 2],
    others: Vec<Station>,
    crowd: Crowd,
    /// By sender.
    ways: [Way; 2],
    seen: Seen,
    turns: u64,
}

impl Talk {
    fn run(&mut self, asked: &Receiver<()>, tell: &Sender<Seen>) {
        let mut next = Instant::now();
        loop {
            match asked.try_recv() {
                Ok(()) => {
                    let seen = self.summary();
                    if tell.send(seen).is_err() {
                        return;
                    }
                    next = Instant::now();
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
            if next <= Instant::now() {
                // A thread that was kept from its core does not catch up: rings have an end.
                next = (next + INTERVAL).max(Instant::now() - 8 * INTERVAL);
                let said = self.say();
                self.note(said);
            }
            let took = self.take();
            self.note(took);
        }
    }

    fn note(&mut self, result: Result<(), Error>) {
        if let Err(e) = result {
            self.seen.broken.get_or_insert_with(|| e.to_string());
            // There is nothing left to wait for.
            std::thread::sleep(INTERVAL);
        }
    }

    fn summary(&mut self) -> Seen {
        let end = Instant::now() + LAST;
        while self.ways.iter().any(|w| !w.missing.is_empty()) && Instant::now() < end {
            let took = self.take();
            self.note(took);
        }
        for (n, guest) in self.crowd.iter() {
            if !guest.is_connected() {
                self.seen.broken.get_or_insert_with(|| format!("guest {n} lost its connection"));
            }
        }
        self.seen.lost = self.ways.iter().map(|w| w.missing.len() as u64).sum();
        self.ways.iter_mut().for_each(|w| w.missing.clear());
        std::mem::take(&mut self.seen)
    }

    fn say(&mut self) -> Result<(), Error> {
        self.turns += 1;
        for from in 0..2 {
            let number = self.ways[from].sent;
            let frame = self.pair[from].frame(&self.pair[1 - from], PORT, &number.to_be_bytes());
            let Some(guest) = self.crowd.get(from as u32) else { continue };
            if guest.send(0, &Header::default(), &frame)? {
                self.ways[from].sent += 1;
                self.ways[from].missing.insert(number);
                self.seen.sent += 1;
            } else {
                self.seen.refused += 1;
            }
            if self.turns.is_multiple_of(FOR_OTHERS) {
                for other in &self.others {
                    let frame = self.pair[from].frame(other, OTHERS, &number.to_be_bytes());
                    guest.send(0, &Header::default(), &frame)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<(), Error> {
        let (ways, bad, pair) = (&mut self.ways, &mut self.seen.bad, &self.pair);
        self.crowd.receive(INTERVAL, |got| {
            if !is_sound(got.header, got.frame) && bad.len() < 8 {
                bad.push(*got.header);
            }
            let from = 1 - (got.guest as usize).min(1);
            let is_ours = got.frame.get(6..12) == Some(&pair[from].mac.0[..])
                && got.frame.get(36..38) == Some(&PORT.to_be_bytes()[..]);
            if let Some(number) = got.frame.get(PAYLOAD..).and_then(|p| p.first_chunk())
                && is_ours
            {
                ways[from].missing.remove(&u64::from_be_bytes(*number));
            }
        })?;
        Ok(())
    }
}

/// Whether a device may write this header before this frame (virtio 1.2, 5.1.6.4).
pub fn is_sound(header: &Header, frame: &[u8]) -> bool {
    let field = usize::from(header.csum_start) + usize::from(header.csum_offset) + 2;
    let checksum = header.flags & header::NEEDS_CSUM == 0 || field <= frame.len();
    let segments = match header.gso_type & 0x7f {
        header::GSO_NONE => true,
        header::GSO_TCPV4 | header::GSO_TCPV6 | header::GSO_UDP => {
            header.gso_size > 0 && header.flags & header::NEEDS_CSUM != 0
        }
        _ => false,
    };
    checksum && segments && frame.len() >= 14
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_no_device_may_write_are_noticed() {
        let frame = [0; 60];
        let sound = |header: Header| is_sound(&header, &frame);
        let csum = Header { flags: 1, csum_start: 34, csum_offset: 16, ..Header::default() };
        assert!(sound(Header::default()) && sound(csum));
        assert!(!sound(Header { csum_start: 43, ..csum }));
        assert!(sound(Header { gso_type: 1, gso_size: 1000, ..csum }));
        assert!(!sound(Header { gso_type: 1, gso_size: 0, ..csum }));
        assert!(!sound(Header { gso_type: 9, gso_size: 1000, ..csum }));
        assert!(!is_sound(&Header::default(), &frame[..13]));
    }
}
