//! The lab's end of the line to an agent.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::proto::{
    Announcement, ExecReport, ProbeReport, ProbeSpec, Reply, Request, Stats, TcpReport, TcpSpec,
};
use crate::clock::now_ns;

/// Longer than anything an agent does for a request.
const REPLY_PATIENCE: Duration = Duration::from_secs(90);

/// Less than that, so that the answer comes before its reader gives up.
const EXEC_LIMIT: Duration = Duration::from_secs(50);

/// A connection to the agent in one VM.
pub struct Agent {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Agent {
    /// Connects as soon as the agent listens.
    ///
    /// # Errors
    /// Where it does not within `patience`.
    pub fn connect(path: &Path, patience: Duration) -> Result<Agent> {
        let give_up = Instant::now() + patience;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                    if Instant::now() > give_up {
                        bail!("the agent at {} did not come up in {patience:?}", path.display());
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) => return Err(e).with_context(|| format!("connecting to {}", path.display())),
            }
        };
        stream.set_read_timeout(Some(REPLY_PATIENCE))?;
        Ok(Agent { reader: BufReader::new(stream.try_clone()?), writer: stream })
    }

    /// Asks the agent whether it is there until it says so. For one that comes up behind a socket that
    /// somebody else, a hypervisor, listens at; `alive` says whether waiting still makes sense.
    ///
    /// # Errors
    /// Where it does not answer within `patience`, or `alive` fails.
    pub fn wait_up(&mut self, patience: Duration, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
        let give_up = Instant::now() + patience;
        writeln!(self.writer, "{}", serde_json::to_string(&Request::Hello)?).context("greeting the agent")?;
        self.writer.set_read_timeout(Some(Duration::from_millis(100)))?;
        loop {
            alive()?;
            match self.reader.fill_buf() {
                Ok([]) => bail!("the line to the agent was closed"),
                Ok(_) => break,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    anyhow::ensure!(Instant::now() < give_up, "the agent did not come up in {patience:?}");
                }
                Err(e) => return Err(e).context("waiting for the agent"),
            }
        }
        self.writer.set_read_timeout(Some(REPLY_PATIENCE))?;
        let mut line = String::new();
        self.reader.read_line(&mut line).context("waiting for the agent's answer")?;
        match serde_json::from_str(&line)? {
            Reply::Ok => Ok(()),
            other => bail!("unexpected answer of the agent: {other:?}"),
        }
    }

    /// Sends a line and returns the answer's line.
    ///
    /// # Errors
    /// Where the agent is gone or silent.
    pub fn raw(&mut self, line: &str) -> Result<String> {
        writeln!(self.writer, "{line}").context("the agent is gone")?;
        let mut reply = String::new();
        let n = self.reader.read_line(&mut reply).context("waiting for the agent's answer")?;
        if n == 0 {
            bail!("the agent ended without an answer to {line}");
        }
        Ok(reply)
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        let line = serde_json::to_string(request)?;
        match serde_json::from_str(&self.raw(&line)?)? {
            Reply::Error { text } => bail!("agent: {text}"),
            reply => Ok(reply),
        }
    }

    /// Gives an order that has no other answer than that it is done.
    ///
    /// # Errors
    /// Where the agent refuses or fails.
    pub fn order(&mut self, request: &Request) -> Result<()> {
        match self.ask(request)? {
            Reply::Ok => Ok(()),
            other => bail!("unexpected answer of the agent: {other:?}"),
        }
    }

    /// Opens a probe.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn probe_open(&mut self, spec: ProbeSpec) -> Result<()> {
        self.order(&Request::ProbeOpen(spec))
    }

    /// Greets the probe's peer until it answers.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn probe_meet(&mut self, probe: u32, patience: Duration) -> Result<()> {
        self.order(&Request::ProbeMeet { probe, timeout_ms: patience.as_millis() as u64 })
    }

    /// What a probe saw; `peer_sent` names what should have come.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn probe_report(&mut self, probe: u32, peer_sent: u64) -> Result<ProbeReport> {
        match self.ask(&Request::ProbeReport { probe, peer_sent })? {
            Reply::Probe(report) => Ok(report),
            other => bail!("unexpected answer of the agent: {other:?}"),
        }
    }

    /// When packets were sent.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn sent_at(&mut self, probe: u32, seqs: Vec<u64>) -> Result<Vec<u64>> {
        match self.ask(&Request::SentAt { probe, seqs })? {
            Reply::SentAt { at_ns } => Ok(at_ns),
            other => bail!("unexpected answer of the agent: {other:?}"),
        }
    }

    /// Announces addresses.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn announce(&mut self, what: Announcement) -> Result<()> {
        self.order(&Request::Announce(what))
    }

    /// Waits for a TCP connection at `local`.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn tcp_listen(&mut self, transfer: u32, local: SocketAddr, spec: TcpSpec) -> Result<()> {
        self.order(&Request::TcpListen { transfer, local, spec })
    }

    /// Connects to a listening agent.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn tcp_connect(&mut self, transfer: u32, peer: SocketAddr, spec: TcpSpec) -> Result<()> {
        self.order(&Request::TcpConnect { transfer, peer, spec })
    }

    /// How the transfer stands.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn tcp_status(&mut self, transfer: u32) -> Result<TcpReport> {
        match self.ask(&Request::TcpStatus { transfer })? {
            Reply::Tcp(report) => Ok(report),
            other => bail!("unexpected answer of the agent: {other:?}"),
        }
    }

    /// Counters of the VM's interfaces and sockets.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn stats(&mut self, interfaces: &[&str]) -> Result<Stats> {
        let interfaces = interfaces.iter().map(|i| (*i).to_owned()).collect();
        match self.ask(&Request::Stats { interfaces })? {
            Reply::Stats(stats) => Ok(stats),
            other => bail!("unexpected answer of the agent: {other:?}"),
        }
    }

    /// Runs a program to its end, at most 50 seconds.
    ///
    /// # Errors
    /// Where it cannot be started; its own failure is in the report.
    pub fn exec(&mut self, argv: &[&str], timeout: Duration) -> Result<ExecReport> {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        let timeout_ms = timeout.min(EXEC_LIMIT).as_millis() as u64;
        match self.ask(&Request::Exec { argv, timeout_ms })? {
            Reply::Exec(report) => Ok(report),
            other => bail!("unexpected answer of the agent: {other:?}"),
        }
    }

    /// By how many nanoseconds the agent's monotonic clock is ahead of the machine's: the best of
    /// several questions, right to within half of the quickest one's round trip, which is the second
    /// number.
    ///
    /// # Errors
    /// See [`Agent::order`].
    pub fn clock_offset(&mut self) -> Result<(i64, u64)> {
        let mut best = (0, u64::MAX);
        for _ in 0..10 {
            let before = now_ns();
            let Reply::Now { at_ns } = self.ask(&Request::Now)? else { bail!("the agent has no clock") };
            let trip = now_ns() - before;
            if trip < best.1 {
                best = (at_ns as i64 - (before + trip / 2) as i64, trip);
            }
        }
        Ok(best)
    }
}
