//! A delay between the switches and their NVA: a TCP proxy beside the NVA that hands on what it reads some time
//! later, in order.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns;
use crate::random::Dice;

/// Pieces of a stream that are under way each way; a sender of more waits, as for a slow network.
const UNDER_WAY: usize = 1024;
/// No time is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// The proxy's port is the NVA's and so many more.
const BESIDE: u16 = 1;

/// How long a message is under way, each way: the mean, and how much more or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The mean.
    pub mean: Duration,
    /// At most so much more or less, evenly spread.
    pub spread: Duration,
}

/// A time or a delay that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadTime {
    /// It cannot be read.
    #[error("{0:?} is no time: write 250ms or 1s, at most 60s")]
    Unreadable(String),
    /// The spread is larger than the mean.
    #[error("it cannot be less than nothing")]
    Negative,
}

impl FromStr for Delay {
    type Err = BadTime;

    /// `10ms`, `10ms±5ms` or `10ms+-5ms`.
    fn from_str(text: &str) -> Result<Delay, BadTime> {
        let (mean, spread) = text.split_once('±').or_else(|| text.split_once("+-")).unwrap_or((text, "0ms"));
        let delay = Delay { mean: duration(mean)?, spread: duration(spread)? };
        if delay.spread > delay.mean { Err(BadTime::Negative) } else { Ok(delay) }
    }
}

/// Reads `250ms` or `1s`, up to a minute.
///
/// # Errors
/// Says what is expected.
pub fn duration(text: &str) -> Result<Duration, BadTime> {
    let time = humantime::parse_duration(text).ok().filter(|time| *time <= LONGEST);
    time.ok_or_else(|| BadTime::Unreadable(text.into()))
}

impl Delay {
    fn next(&self, dice: &mut Dice) -> Duration {
        let spread = self.spread.as_micros() as u64;
        self.mean - self.spread + Duration::from_micros(dice.between(0, 2 * spread + 1))
    }
}

/// Listens in a namespace beside the NVA at `ip` and returns the address that switches are to use. It ends
/// with the program; a connection ends with either of its ends.
///
/// # Errors
/// Where the namespace or the port cannot be had.
pub fn serve(namespace: &str, ip: IpAddr, port: u16, delay: Delay) -> Result<SocketAddr> {
    let namespace = namespace.to_owned();
    let (at, nva) = (SocketAddr::new(ip, port + BESIDE), SocketAddr::new(ip, port));
    let (tell, told) = mpsc::channel();
    thread::Builder::new().name("delay".into()).spawn(move || {
        // The namespace is this thread's; its sockets keep it.
        let listening = netns::enter(&namespace)
            .and_then(|()| TcpListener::bind(at).with_context(|| format!("listening at {at}")));
        match listening {
            Err(e) => drop(tell.send(Err(e))),
            Ok(listener) => {
                drop(tell.send(Ok(())));
                accept(&listener, nva, delay);
            }
        }
    })?;
    told.recv().context("the delay's thread ended")??;
    ensure!(at.port() > port, "there is no port after {port}");
    Ok(at)
}

fn accept(listener: &TcpListener, nva: SocketAddr, delay: Delay) {
    for (n, switch) in (1..).zip(listener.incoming()) {
        let Ok(switch) = switch else { continue };
        // With the NVA away the switch finds its connection closed, and tries again.
        let Ok(nva) = TcpStream::connect_timeout(&nva, Duration::from_secs(1)) else { continue };
        // Small messages go at once: the delay is this proxy's to add.
        let _ = (switch.set_nodelay(true), nva.set_nodelay(true));
        let (Ok(switch2), Ok(nva2)) = (switch.try_clone(), nva.try_clone()) else { continue };
        hand_on(switch, nva2, delay, Dice::new(2 * n));
        hand_on(nva, switch2, delay, Dice::new(2 * n + 1));
    }
}

type Piece = (Instant, Vec<u8>);

/// Starts the threads of one direction.
fn hand_on(from: TcpStream, to: TcpStream, delay: Delay, dice: Dice) {
    let (put, take) = mpsc::sync_channel(UNDER_WAY);
    // A direction without threads is a connection that stands still, and is given up by its ends.
    let _ = thread::Builder::new().name("delay-in".into()).spawn(move || read(from, &put, delay, dice));
    let _ = thread::Builder::new().name("delay-out".into()).spawn(move || write(to, &take));
}

fn read(mut from: TcpStream, put: &SyncSender<Piece>, delay: Delay, mut dice: Dice) {
    let mut buffer = vec![0; 65536];
    let mut last = Instant::now();
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        // A stream keeps its order: what is drawn a shorter way waits for what went before.
        last = last.max(Instant::now() + delay.next(&mut dice));
        if put.send((last, buffer[..n].to_vec())).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
}

fn write(mut to: TcpStream, take: &Receiver<Piece>) {
    while let Ok((due, bytes)) = take.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read() {
        let ms = Duration::from_millis;
        assert_eq!("10ms±5ms".parse(), Ok(Delay { mean: ms(10), spread: ms(5) }));
        assert_eq!("1s+-250ms".parse(), Ok(Delay { mean: ms(1000), spread: ms(250) }));
        assert_eq!("10ms".parse(), Ok(Delay { mean: ms(10), spread: ms(0) }));
        for bad in ["", "10", "ms", "5ms±10ms", "61s", "-1s", "2m"] {
            assert!(bad.parse::<Delay>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stream_arrives_later_and_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nva = listener.local_addr().unwrap();
        let front = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = front.local_addr().unwrap();
        let delay = "20ms±10ms".parse().unwrap();
        thread::spawn(move || accept(&front, nva, delay));
        let mut client = TcpStream::connect(at).unwrap();
        let started = Instant::now();
        for n in 0..100u8 {
            client.write_all(&[n; 7]).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(10));
        let sent: Vec<u8> = (0..100).flat_map(|n| [n; 7]).collect();
        assert_eq!(all, sent);
    }
}
