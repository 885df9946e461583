//! A TCP transfer beside the probes: paced, in both directions, checked byte by byte. It shows
//! whether a connection survives what the lab does to its ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::gate::{Gate, Pass};
use super::proto::{TcpReport, TcpSpec};
use crate::clock::{now_ns, sleep_until};
use crate::random;

const CHUNK: usize = 8192;
/// A sender further behind than this does not catch up: it would flood what has just recovered.
const BACKLOG_NS: u64 = 50_000_000;
/// How long a write may block, so that a sender soon comes to the gate.
const WRITE_PATIENCE: Duration = Duration::from_millis(20);

/// One end of a transfer.
#[derive(Clone, Default)]
pub struct Transfer(Arc<Mutex<TcpReport>>);

impl Transfer {
    /// Listens, and runs the transfer over the first connection.
    ///
    /// # Errors
    /// Where the address cannot be listened at.
    pub fn listen(local: SocketAddr, spec: TcpSpec, gate: Arc<Gate>) -> Result<Transfer> {
        let listener = TcpListener::bind(local).with_context(|| format!("listening at {local}"))?;
        let transfer = Transfer::default();
        let this = transfer.clone();
        thread::Builder::new().name("tcp-listen".into()).spawn(move || match listener.accept() {
            Ok((stream, _)) => this.start(stream, spec, gate),
            Err(e) => this.fail(format!("accept: {e}")),
        })?;
        Ok(transfer)
    }

    /// Connects, and runs the transfer.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn connect(peer: SocketAddr, spec: TcpSpec, gate: Arc<Gate>) -> Result<Transfer> {
        let stream = TcpStream::connect_timeout(&peer, Duration::from_secs(10))
            .with_context(|| format!("connecting to {peer}"))?;
        let transfer = Transfer::default();
        transfer.start(stream, spec, gate);
        Ok(transfer)
    }

    /// How it stands.
    pub fn report(&self) -> TcpReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(&self, stream: TcpStream, spec: TcpSpec, gate: Arc<Gate>) {
        self.update(|r| r.connected = true);
        if let Err(e) = self.spawn(stream, spec, gate) {
            self.fail(format!("{e:#}"));
        }
    }

    fn spawn(&self, stream: TcpStream, spec: TcpSpec, gate: Arc<Gate>) -> Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        let reader = stream.try_clone()?;
        let this = self.clone();
        thread::Builder::new().name("tcp-rx".into()).spawn(move || this.read_all(reader, !spec.seed))?;
        let this = self.clone();
        thread::Builder::new().name("tcp-tx".into()).spawn(move || this.write_all(stream, spec, &gate))?;
        Ok(())
    }

    fn write_all(&self, mut stream: TcpStream, spec: TcpSpec, gate: &Gate) {
        let gate = gate.join();
        let Pass::Go(_) = gate.pass() else { return };
        let due_ns =
            |bytes: u64| (u128::from(bytes) * 8_000_000_000 / u128::from(spec.rate_bit.max(1))) as u64;
        let (mut offset, mut start, mut chunk) = (0u64, now_ns(), [0; CHUNK]);
        loop {
            match gate.pass() {
                Pass::Go(waited) => start += waited,
                Pass::Stop => {
                    // The peer reads to the end of the stream and knows then that it has it all.
                    let _ = stream.shutdown(Shutdown::Write);
                    return;
                }
            }
            let now = now_ns();
            start = start.max(now.saturating_sub(due_ns(offset) + BACKLOG_NS));
            if start + due_ns(offset) > now {
                sleep_until((start + due_ns(offset)).min(now + 2_000_000));
                continue;
            }
            random::fill(spec.seed, offset, &mut chunk);
            match stream.write(&chunk) {
                Ok(n) => {
                    offset += n as u64;
                    self.update(|r| r.sent = offset);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return self.fail(format!("write after {offset} bytes: {e}")),
            }
        }
    }

    fn read_all(&self, mut stream: TcpStream, seed: u64) {
        let (mut offset, mut buffer) = (0u64, vec![0; 65536]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return self.update(|r| r.peer_done = true),
                Ok(n) => {
                    if let Some(at) = random::first_difference(seed, offset, &buffer[..n]) {
                        return self.fail(format!("wrong byte at offset {}", offset + at as u64));
                    }
                    offset += n as u64;
                    self.update(|r| r.received = offset);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return self.fail(format!("read after {offset} bytes: {e}")),
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut TcpReport)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn fail(&self, text: String) {
        self.update(|r| {
            r.error.get_or_insert(text);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::is_taken;
    use super::*;

    #[test]
    fn a_transfer_arrives_whole_and_at_its_rate() {
        const RATE_BIT: u64 = 20_000_000;
        let gate = Arc::new(Gate::default());
        let spec = |seed| TcpSpec { seed, rate_bit: RATE_BIT };
        let (local, a) = loop {
            // Another test may take the free port in between.
            let local = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            match Transfer::listen(local, spec(11), gate.clone()) {
                Ok(a) => break (local, a),
                Err(e) => assert!(is_taken(&e), "{e:#}"),
            }
        };
        let b = Transfer::connect(local, spec(!11), gate.clone()).unwrap();
        let started = now_ns();
        gate.open();
        let both = |done: fn(&TcpReport) -> bool| {
            let over = |t: &Transfer| done(&t.report()) || t.report().error.is_some();
            let give_up = now_ns() + 20_000_000_000;
            while !(over(&a) && over(&b)) && now_ns() < give_up {
                thread::sleep(Duration::from_millis(5));
            }
        };
        both(|r| r.sent >= 500_000);
        gate.stop();
        both(|r| r.peer_done);
        // The senders may have been kept from their end for a while, and send at their rate until then.
        let took_ns = now_ns() - started;
        let (a, b) = (a.report(), b.report());
        assert!(a.error.is_none() && b.error.is_none(), "{a:?} {b:?}");
        assert!(a.peer_done && b.peer_done);
        assert_eq!((a.sent, b.sent), (b.received, a.received));
        let most = (took_ns + BACKLOG_NS) * (RATE_BIT / 8) / 1_000_000_000 + CHUNK as u64;
        for end in [&a, &b] {
            assert!((500_000..=most).contains(&end.sent), "{end:?}, at most {most}");
        }
    }
}
