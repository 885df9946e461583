//! Traffic between two VMs: probes both ways and a TCP transfer, opened, run and judged.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::agent::client::Agent;
use crate::agent::proto::{Gap, ProbeReport, ProbeSpec, Request, TcpReport, TcpSpec};
use crate::clock::{ms, now_ns};

const PROBE_PORT: u16 = 4000;
const TCP_PORT: u16 = 5000;
/// How long two VMs may take to find each other at first.
const MEET_PATIENCE: Duration = Duration::from_secs(15);
/// What is under way when senders stop, a second copy of a packet for instance, has so long to arrive,
const DRAIN: Duration = Duration::from_millis(700);
/// and longer where packets are still missing: until nothing has come for so long.
const QUIET: Duration = Duration::from_secs(5);
/// How long a TCP connection may stand still before it counts as dead; its timers back off to
/// seconds when several segments in a row are lost.
const TCP_PATIENCE: Duration = Duration::from_secs(15);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct TrafficSpec {
    /// Probe packets a second each way.
    pub rate: u32,
    /// Whether only the first end sends probes.
    pub one_way: bool,
    /// Their UDP payload.
    pub payload: usize,
    /// Every so manieth has the length of a full guest packet; 0 for none.
    pub big_every: u32,
    /// TCP bits a second each way; 0 for no TCP.
    pub tcp_rate_bit: u64,
}

/// Two VMs that talk.
#[derive(Clone, Debug)]
pub struct Traffic {
    probe: u32,
    spec: TrafficSpec,
    seed: u64,
}

/// One end of a talk.
pub struct End<'a> {
    /// The agent.
    pub agent: &'a mut Agent,
    /// Its address, with port 0.
    pub address: SocketAddr,
}

impl End<'_> {
    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address.ip(), port)
    }
}

impl Traffic {
    /// Opens probes and a TCP connection between two ends and waits until they have met; nothing
    /// else flows before [`run`].
    ///
    /// # Errors
    /// Where they do not reach each other.
    pub fn open(
        probe: u32,
        spec: TrafficSpec,
        mtu: u32,
        a: &mut End<'_>,
        b: &mut End<'_>,
    ) -> Result<Traffic> {
        let port = PROBE_PORT + probe as u16;
        // IP and UDP headers, so that a big probe is a packet of exactly the MTU.
        let headers = if a.address.is_ipv6() { 48 } else { 28 };
        let one = |local, peer, rate| ProbeSpec {
            probe,
            local,
            peer,
            rate,
            payload: spec.payload,
            big_every: spec.big_every,
            big_payload: mtu as usize - headers,
            interface: None,
        };
        a.agent.probe_open(one(a.at(port), b.at(port), spec.rate))?;
        b.agent.probe_open(one(b.at(port), a.at(port), if spec.one_way { 0 } else { spec.rate }))?;
        a.agent.probe_meet(probe, MEET_PATIENCE)?;
        b.agent.probe_meet(probe, MEET_PATIENCE)?;
        let traffic = Traffic { probe, spec, seed: now_ns() };
        traffic.open_tcp(a, b).context("TCP")?;
        Ok(traffic)
    }

    fn open_tcp(&self, a: &mut End<'_>, b: &mut End<'_>) -> Result<()> {
        if self.spec.tcp_rate_bit == 0 {
            return Ok(());
        }
        let tcp = |seed| TcpSpec { seed, rate_bit: self.spec.tcp_rate_bit };
        let port = TCP_PORT + self.probe as u16;
        b.agent.tcp_listen(self.probe, b.at(port), tcp(self.seed))?;
        a.agent.tcp_connect(self.probe, b.at(port), tcp(!self.seed))
    }

    /// Whether the TCP connection carries bytes both ways now, waiting for it as long as TCP's own
    /// timers may need.
    ///
    /// # Errors
    /// Where an agent does not answer.
    pub fn tcp_progresses(&self, a: &mut Agent, b: &mut Agent) -> Result<bool> {
        if self.spec.tcp_rate_bit == 0 {
            return Ok(true);
        }
        let (a0, b0) = (a.tcp_status(self.probe)?, b.tcp_status(self.probe)?);
        let give_up = Instant::now() + TCP_PATIENCE;
        while Instant::now() < give_up {
            let (a1, b1) = (a.tcp_status(self.probe)?, b.tcp_status(self.probe)?);
            if a1.error.is_some() || b1.error.is_some() {
                return Ok(false);
            }
            if a1.received > a0.received && b1.received > b0.received {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    /// Stops both ends, waits for what is under way, and compares what they sent and received.
    ///
    /// # Errors
    /// Where an agent does not answer.
    pub fn finish(&self, a: &mut Agent, b: &mut Agent) -> Result<Talk> {
        a.order(&Request::Stop)?;
        b.order(&Request::Stop)?;
        drain(std::slice::from_ref(self), a, b)?;
        self.judge(a, b)
    }

    /// Packets that have not arrived, and those that have.
    fn missing_and_received(&self, a: &mut Agent, b: &mut Agent) -> Result<(u64, u64)> {
        let (at_a, at_b) = (a.probe_report(self.probe, 0)?, b.probe_report(self.probe, 0)?);
        let missing = |sent: u64, received: u64| sent.saturating_sub(received);
        let all = missing(at_a.sent, at_b.received) + missing(at_b.sent, at_a.received);
        Ok((all, at_a.received + at_b.received))
    }

    /// Compares what two stopped ends sent and received, after [`drain`].
    ///
    /// # Errors
    /// Where an agent does not answer.
    pub fn judge(&self, a: &mut Agent, b: &mut Agent) -> Result<Talk> {
        let tcp = self.judge_tcp(a, b)?;
        let sent_a = a.probe_report(self.probe, 0)?.sent;
        let sent_b = b.probe_report(self.probe, 0)?.sent;
        let at_a = a.probe_report(self.probe, sent_b)?;
        let at_b = b.probe_report(self.probe, sent_a)?;
        let a_to_b = Stream::new(sent_a, at_a.send_retries, at_b.clone(), |s| a.sent_at(self.probe, s))?;
        let b_to_a = Stream::new(sent_b, at_b.send_retries, at_a, |s| b.sent_at(self.probe, s))?;
        Ok(Talk { a_to_b, b_to_a, tcp })
    }

    fn judge_tcp(&self, a: &mut Agent, b: &mut Agent) -> Result<Option<TcpOutcome>> {
        if self.spec.tcp_rate_bit == 0 {
            return Ok(None);
        }
        let give_up = Instant::now() + TCP_PATIENCE;
        loop {
            let (at_a, at_b) = (a.tcp_status(self.probe)?, b.tcp_status(self.probe)?);
            let over = |r: &TcpReport| r.peer_done || r.error.is_some();
            if (over(&at_a) && over(&at_b)) || Instant::now() > give_up {
                return Ok(Some(TcpOutcome::new(&at_a, &at_b)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until what two stopped ends have sent each other has arrived, or nothing more comes. A busy machine may keep
/// packets on their way for long.
///
/// # Errors
/// Where an agent does not answer.
pub fn drain(talks: &[Traffic], a: &mut Agent, b: &mut Agent) -> Result<()> {
    std::thread::sleep(DRAIN);
    let (mut known, mut since) = (0, Instant::now());
    loop {
        let (mut missing, mut received) = (0, 0);
        for talk in talks {
            let of_talk = talk.missing_and_received(a, b)?;
            (missing, received) = (missing + of_talk.0, received + of_talk.1);
        }
        if received > known {
            (known, since) = (received, Instant::now());
        }
        if missing == 0 || since.elapsed() > QUIET {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Lets the senders of an agent go.
///
/// # Errors
/// Where the agent does not answer.
pub fn run(agent: &mut Agent) -> Result<()> {
    agent.order(&Request::Run)
}

/// What became of a talk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Talk {
    /// Probes from the first end to the second.
    pub a_to_b: Stream,
    /// Probes from the second end to the first.
    pub b_to_a: Stream,
    /// The TCP transfer, where there was one.
    pub tcp: Option<TcpOutcome>,
}

/// What became of the probes of one direction.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stream {
    /// Packets sent.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Arrivals of packets that had arrived before.
    pub duplicated: u64,
    /// Arrivals behind a later packet.
    pub reordered: u64,
    /// Arrivals that were not what was sent.
    pub corrupt: u64,
    /// Sending attempts that the kernel refused and that were repeated.
    pub send_retries: u64,
    /// Median of the time from sender to receiver, in microseconds; nothing where their clocks differ.
    pub delay_us_p50: Option<u64>,
    /// 99th percentile of it.
    pub delay_us_p99: Option<u64>,
    /// The longest.
    pub delay_us_max: Option<u64>,
    /// The longest silence between two arrivals, in milliseconds.
    pub gap_ms_max: f64,
    /// Silences of 5 ms and more, longest first.
    #[serde(skip)]
    pub gaps: Vec<Gap>,
    /// Missing numbers and when the first of each range was sent.
    pub missing: Vec<Missing>,
}

/// A range of packets that did not arrive.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Missing {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// When the first was sent, by the monotonic clock.
    pub sent_ns: u64,
}

impl Stream {
    /// Compares what one end sent with what the other received; `sent_at` says when numbers were sent.
    ///
    /// # Errors
    /// Where `sent_at` fails.
    pub fn new(
        sent: u64,
        send_retries: u64,
        r: ProbeReport,
        sent_at: impl FnOnce(Vec<u64>) -> Result<Vec<u64>>,
    ) -> Result<Stream> {
        let times = sent_at(r.missing.iter().map(|m| m.0).collect())?;
        let missing = r.missing.iter().zip(times);
        Ok(Stream {
            sent,
            received: r.received,
            lost: sent.saturating_sub(r.received),
            duplicated: r.duplicated,
            reordered: r.reordered,
            corrupt: r.corrupt,
            send_retries,
            delay_us_p50: Some(r.delay_us_p50),
            delay_us_p99: Some(r.delay_us_p99),
            delay_us_max: Some(r.delay_us_max),
            gap_ms_max: r.gaps.first().map_or(0.0, |g| ms(g.to_ns - g.from_ns)),
            gaps: r.gaps,
            missing: missing.map(|(&(first, last), sent_ns)| Missing { first, last, sent_ns }).collect(),
        })
    }

    /// The longest silence in milliseconds that remains when these pauses are taken out of it.
    pub fn gap_ms_beyond(&self, pauses: &[Gap]) -> f64 {
        self.longest_beyond(pauses).map_or(0.0, |(_, ns)| ms(ns))
    }

    /// The silence that is longest when these pauses are taken out, and its nanoseconds without them.
    pub fn longest_beyond(&self, pauses: &[Gap]) -> Option<(Gap, u64)> {
        let overlap = |g: &Gap, p: &Gap| g.to_ns.min(p.to_ns).saturating_sub(g.from_ns.max(p.from_ns));
        let beyond = |g: &Gap| {
            let paused: u64 = pauses.iter().map(|p| overlap(g, p)).sum();
            (g.to_ns - g.from_ns).saturating_sub(paused)
        };
        self.gaps.iter().map(|g| (*g, beyond(g))).max_by_key(|l| l.1)
    }
}

/// What became of a TCP transfer.
#[derive(Clone, Debug, Serialize)]
pub struct TcpOutcome {
    /// The one connection carried all bytes of both ends, as they were sent, to its orderly end.
    pub alive: bool,
    /// Bytes carried, both ways together.
    pub bytes: u64,
    /// What went wrong.
    pub error: Option<String>,
}

impl TcpOutcome {
    fn new(a: &TcpReport, b: &TcpReport) -> TcpOutcome {
        let whole = a.sent == b.received && b.sent == a.received;
        let alive = a.connected && b.connected && a.peer_done && b.peer_done && whole;
        let describe = || format!("{}/{} and {}/{} bytes arrived", b.received, a.sent, a.received, b.sent);
        let error = a.error.clone().or(b.error.clone()).or_else(|| (!alive).then(describe));
        TcpOutcome { alive: alive && error.is_none(), bytes: a.received + b.received, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_taken_out_of_silences() {
        let gap = |from: u64, to: u64| Gap::between(from * 1_000_000, to * 1_000_000);
        let report = ProbeReport { gaps: vec![gap(100, 150), gap(300, 312)], ..Default::default() };
        let stream = Stream::new(0, 0, report, |_| Ok(Vec::new())).unwrap();
        assert_eq!(stream.gap_ms_max, 50.0);
        assert_eq!(stream.gap_ms_beyond(&[gap(105, 145), gap(400, 500)]), 12.0);
        assert_eq!(stream.gap_ms_beyond(&[]), 50.0);
    }

    #[test]
    fn a_transfer_is_alive_only_if_all_of_it_arrived() {
        let end =
            |sent, received| TcpReport { connected: true, sent, received, peer_done: true, error: None };
        assert!(TcpOutcome::new(&end(10, 20), &end(20, 10)).alive);
        assert!(!TcpOutcome::new(&end(10, 20), &end(20, 9)).alive);
        let mut reset = end(10, 20);
        reset.error = Some("reset".into());
        assert!(!TcpOutcome::new(&reset, &end(20, 10)).alive);
    }
}
