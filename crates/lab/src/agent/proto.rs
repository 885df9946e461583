//! What the lab asks of an agent and what the agent answers: one JSON object a line each way.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A request to the agent in a VM; every one is answered by exactly one [`Reply`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Request {
    /// Are you there?
    Hello,
    /// Send gratuitous ARP and unsolicited neighbor advertisements for these addresses.
    Announce(Announcement),
    /// Open a numbered probe to a peer; its sender waits for [`Request::Run`].
    ProbeOpen(ProbeSpec),
    /// Exchange greetings until the peer has answered one, so that address resolution is behind us.
    ProbeMeet {
        /// The probe.
        probe: u32,
        /// Give up after so long.
        timeout_ms: u64,
    },
    /// The guest runs: senders go on where they were.
    Run,
    /// The guest pauses: answered when the last sender stands still.
    Pause,
    /// Senders end for good; TCP senders say so to their peers.
    Stop,
    /// What the probe has sent and received so far.
    ProbeReport {
        /// The probe.
        probe: u32,
        /// How many packets the peer says it sent, to name the missing ones.
        peer_sent: u64,
    },
    /// Join or leave the group that a probe receives at, by IGMP or MLD of the guest's kernel.
    Membership {
        /// The probe.
        probe: u32,
        /// The interface.
        interface: String,
        /// Join, not leave.
        joined: bool,
    },
    /// When the probe sent these sequence numbers, by the monotonic clock.
    SentAt {
        /// The probe.
        probe: u32,
        /// The sequence numbers.
        seqs: Vec<u64>,
    },
    /// Wait for one TCP connection and run the transfer over it.
    TcpListen {
        /// The lab's number for the transfer; the same at both ends.
        transfer: u32,
        /// Where to listen.
        local: SocketAddr,
        /// The transfer.
        spec: TcpSpec,
    },
    /// Connect to a listening agent and run the transfer.
    TcpConnect {
        /// The lab's number for the transfer; the same at both ends.
        transfer: u32,
        /// Where the other one listens.
        peer: SocketAddr,
        /// The transfer.
        spec: TcpSpec,
    },
    /// How a transfer stands.
    TcpStatus {
        /// The transfer.
        transfer: u32,
    },
    /// Counters of interfaces and sockets of this namespace.
    Stats {
        /// Interfaces to read.
        interfaces: Vec<String>,
    },
    /// Run a program to its end. For guests, whose shell the lab does not reach otherwise.
    Exec {
        /// The program and its arguments.
        argv: Vec<String>,
        /// It is killed, with what it started, when it takes longer.
        timeout_ms: u64,
    },
    /// What the guest's clock shows: a guest's is not the machine's.
    Now,
    /// End the agent.
    Quit,
}

/// The addresses that a guest announces when it wakes up on another host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// The guest's interface.
    pub interface: String,
    /// Its MAC address as text.
    pub mac: String,
    /// Its addresses of both families.
    pub ips: Vec<IpAddr>,
    /// Also send the RARP frame that QEMU sends on behalf of a guest.
    pub rarp: bool,
}

/// A stream of numbered UDP packets to a peer and the check of the peer's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// The lab's number for it; the same at both ends.
    pub probe: u32,
    /// Where this end sends from and receives at; a multicast group, where it only receives.
    pub local: SocketAddr,
    /// The other end, or a multicast group.
    pub peer: SocketAddr,
    /// Packets a second.
    pub rate: u32,
    /// UDP payload in bytes.
    pub payload: usize,
    /// Every so manieth packet has `big_payload` bytes; 0 for none.
    pub big_every: u32,
    /// UDP payload of those in bytes.
    pub big_payload: usize,
    /// The interface that a group is sent to by; otherwise the routes say.
    #[serde(default)]
    pub interface: Option<String>,
}

/// A paced TCP transfer, in both directions, of a pattern that the receiver checks byte by byte.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct TcpSpec {
    /// Seed of the bytes this end sends; the other end's is `!seed`.
    pub seed: u64,
    /// Bits a second.
    pub rate_bit: u64,
}

/// An agent's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Ok,
    /// Refused or failed.
    Error {
        /// Why.
        text: String,
    },
    /// To [`Request::ProbeReport`].
    Probe(ProbeReport),
    /// To [`Request::SentAt`], in the order of the request; 0 where it was not sent.
    SentAt {
        /// Nanoseconds.
        at_ns: Vec<u64>,
    },
    /// To [`Request::TcpStatus`].
    Tcp(TcpReport),
    /// To [`Request::Stats`].
    Stats(Stats),
    /// To [`Request::Exec`].
    Exec(ExecReport),
    /// To [`Request::Now`].
    Now {
        /// Nanoseconds of the monotonic clock there.
        at_ns: u64,
    },
}

/// What a program did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReport {
    /// Its exit code; nothing where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout and stderr, in this order of the two.
    pub output: String,
    /// It was killed because it took too long.
    pub timed_out: bool,
}

/// One end's view of a probe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Packets that the kernel accepted from this end.
    pub sent: u64,
    /// Attempts that the kernel refused and that were repeated.
    pub send_retries: u64,
    /// Different packets of the peer that arrived.
    pub received: u64,
    /// Arrivals of a packet that had arrived before.
    pub duplicated: u64,
    /// Arrivals behind a packet with a higher number (RFC 4737).
    pub reordered: u64,
    /// Arrivals whose bytes were not those sent.
    pub corrupt: u64,
    /// Silences of arrivals of 5 ms and more, longest first, at most 64.
    pub gaps: Vec<Gap>,
    /// Missing numbers below the peer's count as `[first, last]`, at most 64 ranges.
    pub missing: Vec<(u64, u64)>,
    /// Longest time a packet took from its sender to here, in microseconds.
    pub delay_us_max: u64,
    /// Median of that time.
    pub delay_us_p50: u64,
    /// 99th percentile of that time.
    pub delay_us_p99: u64,
}

/// A silence between two arrivals, by the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The arrival before.
    pub from_ns: u64,
    /// The arrival after.
    pub to_ns: u64,
    /// What lay between the sendings of the packets that arrived before and after, by the sender's own clock, which
    /// stands still while it is stopped; nothing of a silence that is not between packets.
    #[serde(default)]
    pub sender_ns: Option<u64>,
}

impl Gap {
    /// From one time to another.
    pub fn between(from_ns: u64, to_ns: u64) -> Gap {
        Gap { from_ns, to_ns, sender_ns: None }
    }

    /// Its length.
    pub fn length_ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// One end's view of a TCP transfer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TcpReport {
    /// The connection was made.
    pub connected: bool,
    /// Bytes handed to the kernel.
    pub sent: u64,
    /// Bytes received, all as they should be.
    pub received: u64,
    /// The peer ended its stream in order.
    pub peer_done: bool,
    /// What went wrong, if anything.
    pub error: Option<String>,
}

/// Counters of the namespace that the agent lives in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// By interface, in the order of the request.
    pub interfaces: Vec<InterfaceStats>,
    /// Datagrams that sockets dropped for lack of buffer space.
    pub socket_drops: u64,
}

/// Counters of one interface; zeros where it does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Frames sent.
    pub tx_packets: u64,
    /// Frames that could not be sent.
    pub tx_dropped: u64,
    /// Frames received.
    pub rx_packets: u64,
    /// Frames received and dropped.
    pub rx_dropped: u64,
}
